/* tests/graph/test_link.c - Scores of triples by their formulas, and from either end. */
#include "config.h"
#include "graph/link.h"
#include "tests/test.h"

enum { B = 4, D = 6, N = 5 };

/* By the papers' sums. */
static double plain(nsm_link_kind kind, const float *h, const float *r, const float *t)
{
    double sum = 0;
    if (kind == NSM_LINK_DISTMULT) {
        for (int k = 0; k < D; k++) sum += (double)h[k] * (double)r[k] * (double)t[k];
        return sum;
    }
    for (int k = 0, m = D / 2; k < D / 2; k++, m++) {
        double re = (double)h[k] * (double)r[k] - (double)h[m] * (double)r[m],
               im = (double)h[k] * (double)r[m] + (double)h[m] * (double)r[k];
        sum += re * (double)t[k] + im * (double)t[m]; /* times conj t, the real part */
    }
    return sum;
}

static void check(nsm_ctx *ctx, nsm_link_kind kind)
{
    float h[B * D], r[B * D], t[B * D], e[N * D], got[B], all[2][B * N];
    int64_t dim[2] = { B, D }, entities[2] = { N, D };
    test_random(1, B * D, h);
    test_random(2, B * D, r);
    test_random(3, B * D, t);
    test_random(4, N * D, e);
    nsm_tape *tape = nsm_tape_new(ctx);
    nsm_tensor *H = nsm_tape_tensor(tape, NSM_F32, 2, dim, h),
               *R = nsm_tape_tensor(tape, NSM_F32, 2, dim, r),
               *T = nsm_tape_tensor(tape, NSM_F32, 2, dim, t),
               *E = nsm_tape_tensor(tape, NSM_F32, 2, entities, e);
    nsm_tensor_get(nsm_link_score(tape, kind, H, R, T), got);
    for (int end = NSM_LINK_TAIL; end <= NSM_LINK_HEAD; end++) {
        nsm_tensor *known = end == NSM_LINK_TAIL ? H : T;
        nsm_tensor *q = nsm_link_query(tape, kind, (nsm_link_end)end, known, R);
        nsm_tensor_get(nsm_link_all(tape, q, E), all[end]);
    }
    ck_ok(ctx);
    for (int i = 0; i < B; i++) {
        const float *hi = h + i * D, *ri = r + i * D, *ti = t + i * D;
        ck_assert(fabs((double)got[i] - plain(kind, hi, ri, ti)) < 1e-5);
        for (int k = 0; k < N; k++) {
            ck_assert(fabs((double)all[0][i * N + k] - plain(kind, hi, ri, e + k * D)) < 1e-5);
            ck_assert(fabs((double)all[1][i * N + k] - plain(kind, e + k * D, ri, ti)) < 1e-5);
        }
    }
    nsm_tape_free(tape);
}

START_TEST(formula)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    check(ctx, NSM_LINK_DISTMULT);
    check(ctx, NSM_LINK_COMPLEX);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(errors)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    nsm_tape *tape = nsm_tape_new(ctx);
    float zero[15] = { 0 };
    nsm_tensor *a = nsm_tape_tensor(tape, NSM_F32, 2, (int64_t[]){ 3, 5 }, zero),
               *b = nsm_tape_tensor(tape, NSM_F32, 2, (int64_t[]){ 5, 3 }, zero);
    ck_assert(!nsm_link_query(tape, NSM_LINK_DISTMULT, NSM_LINK_TAIL, a, b));
    ck_error(ctx, NSM_ESHAPE);
    ck_assert(!nsm_link_query(tape, NSM_LINK_COMPLEX, NSM_LINK_TAIL, a, a)); /* odd */
    ck_error(ctx, NSM_ESHAPE);
    ck_assert(!nsm_link_query(tape, (nsm_link_kind)2, NSM_LINK_TAIL, a, a));
    ck_error(ctx, NSM_EINVAL);
    ck_assert(!nsm_link_score(tape, NSM_LINK_DISTMULT, NULL, a, a));
    ck_ok(ctx);
    nsm_tape_free(tape);
    nsm_ctx_free(ctx);
}
END_TEST

int main(void) { return test_main("link", (const TTest *const[]){ formula, errors, NULL }); }
