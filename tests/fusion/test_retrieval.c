/* tests/fusion/test_retrieval.c - Two sides of things in one space: lengths, scores and loss
 * written out, gradients, the bound of the scale, errors, every allocation that fails. */
#include "config.h"
#include <math.h>
#include "base/ops.h"
#include "fusion/retrieval.h"
#include "tests/test.h"

enum { B = 4, T = 3, V = 9, D = 6, SIDE = 8 };
static const int32_t word[B * T] = { 1, 2, 3, 4, 5, 0, 6, 7, 8, 2, 0, 0 },
                              words[B] = { 3, 2, 3, 1 };

typedef struct {
    nsm_tape *tape;
    nsm_retrieval *model;
    nsm_tensor *u, *v; /* the pictures' side, the words' */
} subject;

static nsm_fused_config config(void)
{
    return (nsm_fused_config){
        .width = 8,
        .outputs = D,
        .fuser_options = "slots=5 heads=2",
        .vocab = V,
        .mixer_options = "heads=2 s=4",
        .image = { .channels = 1, .height = SIDE, .width = SIDE, .layers = 2, .filters = { 4, 4 } }
    };
}

static subject subject_of(nsm_ctx *ctx)
{
    static float x[B * SIDE * SIDE];
    nsm_fused_config c = config();
    subject s = { nsm_tape_new(ctx), nsm_retrieval_new(ctx, &c), NULL, NULL };
    if (!s.tape || !s.model) return s;
    test_random(4, B * SIDE * SIDE, x);
    nsm_fused_input seen = { .picture = nsm_tape_tensor(s.tape, NSM_F32, 4,
                                                        (int64_t[]){ B, 1, SIDE, SIDE }, x) },
                    read = { .word = nsm_tape_tensor(s.tape, NSM_I32, 2, (int64_t[]){ B, T }, word),
                             .words = nsm_tape_tensor(s.tape, NSM_I32, 1, (int64_t[]){ B },
                                                      words) };
    if (seen.picture) s.u = nsm_retrieval_side(s.tape, s.model, &seen);
    if (read.words) s.v = nsm_retrieval_side(s.tape, s.model, &read);
    return s;
}

static void subject_free(subject *s)
{
    nsm_tape_free(s->tape);
    nsm_retrieval_free(s->model);
}

static nsm_tensor *scale_of(const subject *s)
{
    return nsm_module_find(nsm_retrieval_module(s->model), "scale");
}

/* The mean of -log softmax of the diagonal, by rows (step 1) or by columns. */
static double diagonal_loss(const float *score, int by, int of)
{
    double loss = 0;
    for (int i = 0; i < B; i++) {
        double sum = 0;
        for (int j = 0; j < B; j++) sum += exp((double)score[i * by + j * of]);
        loss += log(sum) - (double)score[i * (B + 1)];
    }
    return loss / B;
}

START_TEST(formula)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    subject s = subject_of(ctx);
    float u[B * D], v[B * D], score[B * B];
    nsm_tensor *S = nsm_retrieval_scores(s.tape, s.model, s.u, s.v);
    nsm_tensor *l = nsm_retrieval_loss(s.tape, s.model, s.u, s.v);
    nsm_tensor_get(s.u, u);
    nsm_tensor_get(s.v, v);
    nsm_tensor_get(S, score);
    ck_ok(ctx);
    for (int i = 0; i < B; i++)
        for (int j = 0; j < B; j++) {
            double dot = 0, length = 0;
            for (int k = 0; k < D; k++) {
                dot += (double)u[i * D + k] * (double)v[j * D + k];
                length += (double)u[i * D + k] * (double)u[i * D + k];
            }
            ck_assert_double_eq_tol(length, 1, 1e-5);
            ck_assert_double_eq_tol((double)score[i * B + j], dot / 0.07, 1e-4);
        }
    ck_assert_double_eq_tol((double)nsm_tensor_item(l),
                            (diagonal_loss(score, B, 1) + diagonal_loss(score, 1, B)) / 2, 1e-4);
    subject_free(&s);
    nsm_ctx_free(ctx);
}
END_TEST

static int has_gradient(void *user, const char *name, nsm_tensor *t, bool buffer)
{
    float *g = malloc((size_t)nsm_numel(t) * sizeof *g), largest = 0;
    (void)user;
    if (!buffer) {
        nsm_tensor_get_grad(t, g);
        for (int64_t i = 0; i < nsm_numel(t); i++) largest = fmaxf(largest, fabsf(g[i]));
    }
    free(g);
    ck_assert_msg(buffer || largest > 0 || !strncmp(name, "fused.fuser.", 12),
                  "no gradient reaches %s", name);
    return NSM_OK;
}

START_TEST(gradients)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    subject s = subject_of(ctx);
    nsm_tensor *l = nsm_retrieval_loss(s.tape, s.model, s.u, s.v);
    ck_assert_int_eq(nsm_tape_backward(s.tape, l), NSM_OK);
    nsm_module_walk(nsm_retrieval_module(s.model), has_gradient, NULL);
    subject_free(&s);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(bounded) /* scores are never scaled by more than 100 */
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    subject s = subject_of(ctx);
    const float large = 9;
    float score[B * B];
    nsm_tensor_set(scale_of(&s), &large);
    nsm_tensor_get(nsm_retrieval_scores(s.tape, s.model, s.u, s.u), score);
    ck_ok(ctx);
    for (int i = 0; i < B; i++) ck_assert_double_eq_tol((double)score[i * (B + 1)], 100, 1e-2);
    subject_free(&s);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(errors)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    nsm_fused_config asked = config(), empty = { .width = 8, .outputs = D };
    asked.question_features = 3;
    ck_assert(!nsm_retrieval_new(ctx, &asked));
    ck_error(ctx, NSM_EINVAL);
    ck_assert(!nsm_retrieval_new(ctx, &empty));
    ck_error(ctx, NSM_EINVAL);
    subject s = subject_of(ctx);
    ck_assert(!nsm_retrieval_side(s.tape, s.model, &(nsm_fused_input){ 0 }));
    ck_error(ctx, NSM_EINVAL);
    nsm_tensor *other = nsm_tape_tensor(s.tape, NSM_F32, 2, (int64_t[]){ B, D + 1 }, NULL);
    ck_assert(!nsm_retrieval_loss(s.tape, s.model, s.u, other));
    ck_error(ctx, NSM_ESHAPE);
    subject_free(&s);
    nsm_ctx_free(ctx);
}
END_TEST

static void run(nsm_ctx *ctx)
{
    subject s = subject_of(ctx);
    if (s.tape && s.model) nsm_tape_backward(s.tape, nsm_retrieval_loss(s.tape, s.model, s.u, s.v));
    subject_free(&s);
}

START_TEST(memory)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    ck_assert_int_gt(test_brutal(run, ctx), 50);
    nsm_ctx_free(ctx);
}
END_TEST

int main(void)
{
    return test_main("retrieval",
                     (const TTest *const[]){ formula, gradients, bounded, errors, memory, NULL });
}
