/* tests/base/test_metrics.c - Metrics against scikit-learn 1.9.1, whose numbers stand below.
 *
 * Scores are small whole numbers over a power of two: there are ties, and they are exact. */
#include "config.h"
#include "tests/test.h"
#include "base/metrics.h"

enum { N = 40, C = 6, K = 3, L = 4, M = 12, R = 10 };

/* Classes: 4 is only guessed, 5 is nowhere. */
static const int32_t truth[] = {
    3, 2, 2, 3, 2, 3, 3, 0, 0, 1, 1, 3, 3, 0, 1, 3, 0, 3, 0, 1, 3, 1, 1, 1, 2, 1, 3, 1, 1, 2, 2,
    2, 2, 3, 3, 3, 2, 2, 1, 3
};
static const int32_t guess[] = {
    3, 2, 1, 4, 2, 3, 3, 0, 2, 1, 1, 3, 3, 0, 3, 3, 0, 3, 3, 1, 3, 2, 1, 1, 1, 3, 3, 1, 1, 0, 2,
    2, 2, 3, 3, 3, 3, 2, 1, 3
};

/* Two outcomes; scores in eighths. */
static const uint8_t outcome[] = {
    1, 0, 1, 1, 0, 1, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 1, 0, 0, 0, 1, 0, 1, 1, 1, 0, 1, 1, 0, 0, 0,
    1, 0, 0, 1, 0, 1, 0, 1, 0
};
static const int eighths[] = {
    5, 8, 2, 6, 6, 5, 0, 4, 3, 9, 6, 3, 0, 5, 2, 6, 7, 3, 8, 4, 4, 6, 9, 9, 10, 1, 3, 8, 2, 0, 5,
    7, 6, 7, 5, 1, 9, 3, 9, 7
};

/* Three classes; scores in sixteenths, rows sum to one. */
static const int32_t class_of[] = {
    2, 2, 1, 1, 2, 1, 2, 2, 1, 1, 2, 2, 0, 0, 0, 1, 0, 1, 1, 2, 2, 0, 2, 2, 2, 2, 0, 2, 0, 1, 2,
    2, 0, 0, 1, 1, 2, 0, 0, 0
};
static const int sixteenths[] = {
    0, 8, 8, 0, 2, 14, 5, 11, 0, 5, 5, 6, 0, 8, 8, 5, 11, 0, 0, 3, 13, 2, 6, 8, 6, 6, 4, 6, 10,
    0, 0, 5, 11, 0, 4, 12, 8, 0, 8, 4, 0, 12, 8, 0, 8, 3, 13, 0, 8, 0, 8, 3, 6, 7, 1, 15, 0, 0,
    4, 12, 0, 5, 11, 5, 3, 8, 0, 2, 14, 0, 7, 9, 0, 2, 14, 0, 4, 12, 3, 6, 7, 0, 4, 12, 12, 0, 4,
    3, 7, 6, 7, 3, 6, 0, 5, 11, 8, 0, 8, 6, 5, 5, 6, 10, 0, 4, 6, 6, 0, 6, 10, 3, 2, 11, 5, 3, 8,
    5, 7, 4
};

/* Four labels, the last never; the scores are of the first three. */
static const uint8_t label[] = {
    0, 1, 1, 0, 0, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 1, 0, 0,
    0, 0, 0, 1, 0, 0, 1, 1, 0, 0, 1, 0, 0, 0, 1, 1, 0
};
static const uint8_t label_guess[] = {
    0, 1, 1, 0, 1, 1, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0,
    0, 0, 0, 1, 0, 0, 1, 1, 0, 1, 1, 0, 0, 1, 0, 1, 0
};
static const int label_eighths[] = {
    7, 1, 6, 4, 3, 4, 4, 8, 7, 0, 6, 2, 3, 5, 8, 0, 4, 2, 8, 4, 7, 7, 0, 6, 7, 7, 8, 6, 7, 6, 2,
    7, 6, 6, 8, 6
};

/* Numbers in eighths. */
static const int real[] = {
    -13, -16, -14, -27, -34, 20, 22, -27, -9, 33
};
static const int fitted[] = {
    26, 7, 37, -14, 27, 34, 7, -28, -17, 1
};

#define near(have, want) ck_assert_double_eq_tol(have, want, 1e-12)

static float *scaled(const int *x, int n, float by, float *out)
{
    for (int i = 0; i < n; i++) out[i] = (float)x[i] / by;
    return out;
}

START_TEST(classes)
{
    static const double precision[C] = { 0.75, 0.8, 0.75, 0.7647058823529411, 0, 0 };
    static const double recall[C] = { 0.6, 0.7272727272727273, 0.6, 0.9285714285714286, 0, 0 };
    static const double f1[C] = {
        0.6666666666666666, 0.7619047619047619, 0.6666666666666666, 0.8387096774193549, 0, 0
    };
    static const int64_t support[C] = { 5, 11, 10, 14, 0, 0 }, row3[C] = { 0, 0, 0, 13, 1, 0 };
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    int64_t matrix[C * C], have_support[C];
    double p[C], r[C], f[C];
    near(nsm_accuracy(ctx, N, truth, guess), 0.75);
    near(nsm_f1(ctx, NSM_AVERAGE_MACRO, N, truth, guess, C), 0.58678955453149);
    near(nsm_f1(ctx, NSM_AVERAGE_MICRO, N, truth, guess, C), 0.75);
    near(nsm_f1(ctx, NSM_AVERAGE_WEIGHTED, N, truth, guess, C), 0.7530721966205837);
    nsm_confusion(ctx, N, truth, guess, C, matrix);
    ck_assert_mem_eq(matrix + 3 * C, row3, sizeof row3);
    nsm_score_classes(ctx, C, matrix, (nsm_class_scores){ p, r, f, have_support });
    for (int c = 0; c < C; c++) {
        near(p[c], precision[c]);
        near(r[c], recall[c]);
        near(f[c], f1[c]);
        ck_assert_int_eq(have_support[c], support[c]);
    }
    ck_ok(ctx);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(labels)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    near(nsm_f1_labels(ctx, NSM_AVERAGE_MACRO, M, L, label, label_guess), 0.4083333333333333);
    near(nsm_f1_labels(ctx, NSM_AVERAGE_MICRO, M, L, label, label_guess), 0.6875);
    near(nsm_f1_labels(ctx, NSM_AVERAGE_WEIGHTED, M, L, label, label_guess), 0.7571428571428572);
    ck_ok(ctx);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(curves)
{
    float score[M * L], x[N * K];
    uint8_t first3[M * 3];
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    near(nsm_roc_auc(ctx, N, outcome, scaled(eighths, N, 8, x)), 0.6950000000000001);
    near(nsm_average_precision(ctx, N, outcome, x), 0.7290368817342502);
    near(nsm_roc_auc_classes(ctx, N, K, class_of, scaled(sixteenths, N * K, 16, x)),
         0.8935374948443782);
    for (int i = 0; i < M * 3; i++) first3[i] = label[i / 3 * L + i % 3];
    near(nsm_roc_auc_labels(ctx, M, 3, first3, scaled(label_eighths, M * 3, 8, score), false),
         0.6632034632034632);
    /* A fourth label that never holds is passed over, or refused. */
    for (int i = 0; i < M * L; i++)
        score[i] = i % L < 3 ? (float)label_eighths[i / L * 3 + i % L] : 0;
    near(nsm_roc_auc_labels(ctx, M, L, label, score, true), 0.6632034632034632);
    ck_ok(ctx);
    ck_assert(isnan(nsm_roc_auc_labels(ctx, M, L, label, score, false)));
    ck_error(ctx, NSM_EINVAL);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(ranks)
{
    float x[N * K];
    double rank[N];
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    scaled(sixteenths, N * K, 16, x);
    nsm_ranks(ctx, NSM_TIES_WORST, N, K, x, class_of, rank);
    near(nsm_mrr(ctx, N, rank), 0.7791666666666667); /* label_ranking_average_precision_score */
    near(nsm_hits(ctx, N, rank, 1), 0.575);
    near(nsm_hits(ctx, N, rank, 2), 0.95);
    nsm_ranks(ctx, NSM_TIES_MEAN, N, K, x, class_of, rank);
    near(rank[0], 1.5);
    near(rank[1], 1);
    ck_ok(ctx);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(numbers)
{
    float a[R], b[R];
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    scaled(real, R, 8, a);
    scaled(fitted, R, 8, b);
    near(nsm_mae(ctx, R, a, b), 3.2125);
    near(nsm_rmse(ctx, R, a, b), 3.962914016225939);
    ck_ok(ctx);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(errors)
{
    static const uint8_t all[4] = { 1, 1, 1, 1 }, none[4] = { 0 }, both[4] = { 0, 1, 0, 1 };
    static const int32_t three[4] = { 0, 1, 2, 3 };
    static const float fine[4] = { 0.1f, 0.2f, 0.3f, 0.4f }, bad[4] = { 0.1f, NAN, 0.3f, 0.4f };
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    double rank[4];
#define refused(call, code)       \
    do {                          \
        ck_assert(isnan(call));   \
        ck_error(ctx, code);      \
    } while (0)
    refused(nsm_accuracy(ctx, 0, truth, guess), NSM_EINVAL);
    refused(nsm_f1(ctx, NSM_AVERAGE_MACRO, 4, three, three, 3), NSM_EINVAL);
    refused(nsm_roc_auc(ctx, 4, all, fine), NSM_EINVAL);
    refused(nsm_roc_auc(ctx, 4, none, fine), NSM_EINVAL);
    refused(nsm_roc_auc(ctx, 4, both, bad), NSM_ENUMBER);
    refused(nsm_average_precision(ctx, 4, none, fine), NSM_EINVAL);
    refused(nsm_average_precision(ctx, 4, both, bad), NSM_ENUMBER);
    refused(nsm_roc_auc_classes(ctx, 2, 2, three + 1, fine), NSM_EINVAL);
    refused(nsm_roc_auc_classes(ctx, 1, 3, three, fine), NSM_EINVAL);
    refused(nsm_mae(ctx, 4, fine, bad), NSM_ENUMBER);
    refused(nsm_rmse(ctx, 4, bad, fine), NSM_ENUMBER);
    nsm_ranks(ctx, NSM_TIES_WORST, 2, 2, bad, three, rank);
    ck_error(ctx, NSM_ENUMBER);
    nsm_ranks(ctx, NSM_TIES_WORST, 2, 2, fine, three + 1, rank);
    ck_error(ctx, NSM_EINVAL);
    rank[0] = 0;
    refused(nsm_mrr(ctx, 1, rank), NSM_ENUMBER);
    nsm_ctx_free(ctx);
}
END_TEST

static void run(nsm_ctx *ctx)
{
    float x[N * K];
    scaled(sixteenths, N * K, 16, x);
    nsm_f1(ctx, NSM_AVERAGE_MACRO, N, truth, guess, C);
    nsm_f1_labels(ctx, NSM_AVERAGE_MACRO, M, L, label, label_guess);
    nsm_roc_auc(ctx, N, outcome, x);
    nsm_roc_auc_classes(ctx, N, K, class_of, x);
    nsm_roc_auc_labels(ctx, M, L, label, x, true);
}

START_TEST(memory)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    ck_assert_int_gt(test_brutal(run, ctx), 4);
    nsm_ctx_free(ctx);
}
END_TEST

int main(void)
{
    return test_main("metrics", (const TTest *const[]){ classes, labels, curves, ranks, numbers,
                                                        errors, memory, NULL });
}
