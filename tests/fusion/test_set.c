/* tests/fusion/test_set.c - What the set form must do, beside its fixtures: the order of elements
 * does not matter; an absent element is as if it were not there; a pool that was saved and read
 * back goes on; any number of threads gives the same bits; every allocation fails in turn; one
 * clear error for wrong input. */
#include "config.h"
#include <unistd.h>
#include "base/ops.h"
#include "fusion/set.h"
#include "tests/test.h"

enum { B = 3, D = 12, F0 = 5, F1 = 7, N0 = 9, N1 = 6, S = 8 };
static float x0[B * N0 * F0], x1[B * N1 * F1], weight[B * 64 * D];

typedef struct { nsm_ctx *ctx; nsm_set *set; nsm_tape *tape; } subject;

static subject subject_new(int threads)
{
    subject s = { .ctx = nsm_ctx_new(&(nsm_ctx_config){ .threads = threads, .seed = 3 }) };
    s.set = nsm_set_new(s.ctx, &(nsm_set_config){ .width = D,
                                                  .slots = S,
                                                  .learned = 2,
                                                  .heads = 3,
                                                  .rounds = 2,
                                                  .modalities = 2,
                                                  .features = { F0, F1 },
                                                  .tau_new = 0.6f,
                                                  .tau_prune = 0.3f });
    s.tape = nsm_tape_new(s.ctx);
    ck_ok(s.ctx);
    test_random(1, B * N0 * F0, x0);
    test_random(2, B * N1 * F1, x1);
    test_random(3, B * 64 * D, weight);
    return s;
}

static void subject_free(subject *s)
{
    nsm_tape_free(s->tape);
    nsm_set_free(s->set);
    nsm_ctx_free(s->ctx);
}

static nsm_tensor *elements(subject *s, int64_t n, int64_t features, const float *x)
{
    return nsm_tape_tensor(s->tape, NSM_F32, 3, (int64_t[]){ B, n, features }, x);
}

/* Rows of x in reverse order, each set on its own. */
static void turn(int64_t n, int64_t features, const float *x, float *y)
{
    for (int64_t b = 0; b < B; b++)
        for (int64_t j = 0; j < n; j++)
            memcpy(y + (b * n + j) * features, x + (b * n + n - 1 - j) * features,
                   (size_t)features * sizeof *x);
}

START_TEST(order)
{
    subject s = subject_new(2);
    static float y[B * (N0 + N1) * D], z[B * (N0 + N1) * D], t0[B * N0 * F0], t1[B * N1 * F1],
        mass[2][B * S];
    nsm_set_view view;
    nsm_set_input in[2] = { { elements(&s, N0, F0, x0), NULL },
                            { elements(&s, N1, F1, x1), NULL } };
    nsm_tensor_get(nsm_set_apply(s.tape, s.set, in, NULL, NULL, &view), y);
    nsm_tensor_get(view.mass, mass[0]);
    ck_ok(s.ctx);
    int32_t opened[B * (N0 + N1)];
    int fresh = 0;
    nsm_tensor_get(view.opened, opened);
    for (int i = 0; i < B * (N0 + N1); i++) fresh += opened[i] >= 2;
    ck_assert_int_gt(fresh, B); /* the test is one of pools that fill */
    turn(N0, F0, x0, t0);
    turn(N1, F1, x1, t1);
    in[0].x = elements(&s, N0, F0, t0);
    in[1].x = elements(&s, N1, F1, t1);
    nsm_tensor_get(nsm_set_apply(s.tape, s.set, in, NULL, NULL, &view), z);
    nsm_tensor_get(view.mass, mass[1]);
    ck_ok(s.ctx);
    for (int64_t b = 0; b < B; b++)
        for (int64_t j = 0; j < N0 + N1; j++) {
            int64_t other = j < N0 ? N0 - 1 - j : N0 + N1 - 1 - (j - N0);
            for (int64_t e = 0; e < D; e++)
                ck_assert_float_eq_tol(y[(b * (N0 + N1) + j) * D + e],
                                       z[(b * (N0 + N1) + other) * D + e], 1e-5f);
        }
    for (int i = 0; i < B * S; i++) ck_assert_float_eq_tol(mass[0][i], mass[1][i], 1e-5f);
    subject_free(&s);
}
END_TEST

/* Modality 1 has no elements in any row: it is missing, or all are absent, or it is behind each
 * row's end. */
START_TEST(absent)
{
    subject s = subject_new(1);
    static float y[B * N0 * D], z[B * (N0 + N1) * D];
    const int32_t none[B] = { 0 }, some[B] = { 4, N0, 1 };
    nsm_set_input in[2] = { { elements(&s, N0, F0, x0), NULL }, { NULL, NULL } };
    nsm_tensor_get(nsm_set_apply(s.tape, s.set, in, NULL, NULL, NULL), y);
    in[1] = (nsm_set_input){ elements(&s, N1, F1, x1),
                             nsm_tape_tensor(s.tape, NSM_I32, 1, (int64_t[]){ B }, none) };
    nsm_tensor_get(nsm_set_apply(s.tape, s.set, in, NULL, NULL, NULL), z);
    ck_ok(s.ctx);
    for (int64_t b = 0; b < B; b++)
        ck_assert(test_difference(y + b * N0 * D, z + b * (N0 + N1) * D, N0 * D, 1e-6) < 1e-5);
    in[0].length = nsm_tape_tensor(s.tape, NSM_I32, 1, (int64_t[]){ B }, some);
    in[1] = (nsm_set_input){ NULL, NULL };
    nsm_tensor_get(nsm_set_apply(s.tape, s.set, in, NULL, NULL, NULL), z);
    nsm_tensor *first = nsm_slice(s.tape, in[0].x, 1, 0, 4);
    nsm_tensor_get(nsm_set_apply(s.tape, s.set,
                                 (nsm_set_input[]){ { first, NULL }, { NULL, NULL } }, NULL, NULL,
                                 NULL),
                   y);
    ck_ok(s.ctx);
    /* row 0 is that of its 4 elements alone */
    ck_assert(test_difference(y, z, 4 * D, 1e-6) < 1e-5);
    subject_free(&s);
}
END_TEST

/* Three calls on one pool, and the same with the pool through a file before the last. */
START_TEST(handed_over)
{
    subject s = subject_new(2);
    static float y[2][B * N0 * D];
    char path[] = "/tmp/nsm-set-XXXXXX";
    close(mkstemp(path));
    nsm_state *pool = nsm_set_pool(s.set, B), *other = nsm_set_pool(s.set, B);
    nsm_tape_inference(s.tape, true);
    nsm_set_input a[2] = { { elements(&s, N0, F0, x0), NULL }, { NULL, NULL } },
                  b[2] = { { NULL, NULL }, { elements(&s, N1, F1, x1), NULL } };
    nsm_set_apply(s.tape, s.set, a, NULL, pool, NULL);
    nsm_set_apply(s.tape, s.set, b, NULL, pool, NULL);
    nsm_state_save(pool, path);
    nsm_state_load(other, path);
    nsm_tensor_get(nsm_set_apply(s.tape, s.set, a, NULL, pool, NULL), y[0]);
    nsm_tensor_get(nsm_set_apply(s.tape, s.set, a, NULL, other, NULL), y[1]);
    ck_ok(s.ctx);
    ck_assert(!memcmp(y[0], y[1], sizeof y[0]));
    nsm_tensor_get(nsm_set_apply(s.tape, s.set, a, NULL, NULL, NULL), y[1]);
    ck_assert_msg(test_difference(y[0], y[1], B * N0 * D, 1e-6) > 1e-3,
                  "a pool that was handed over changes nothing");
    unlink(path);
    nsm_state_free(pool);
    nsm_state_free(other);
    subject_free(&s);
}
END_TEST

START_TEST(threads)
{
    static float first[2][B * N0 * F0], now[2][B * N0 * F0];
    for (int count = 1; count <= 5; count += 2) {
        subject s = subject_new(count);
        nsm_tensor *x = nsm_tensor_from(s.ctx, NSM_F32, 3, (int64_t[]){ B, N0, F0 }, x0);
        x->needs_grad = true;
        nsm_tensor *y = nsm_set_apply(s.tape, s.set,
                                      (nsm_set_input[]){ { x, NULL },
                                                         { elements(&s, N1, F1, x1), NULL } },
                                      NULL, NULL, NULL);
        nsm_tensor_get(nsm_slice(s.tape, y, 2, 0, 1), now[0]);
        nsm_tape_seed(s.tape, y, weight);
        nsm_tape_backward(s.tape, NULL);
        nsm_tensor_get_grad(x, now[1]);
        ck_ok(s.ctx);
        if (count == 1) memcpy(first, now, sizeof now);
        ck_assert(!memcmp(first, now, sizeof now));
        nsm_tensor_free(x);
        subject_free(&s);
    }
}
END_TEST

/* How many states the elements of one set open that each are two ones among 24 features. */
static int opened_at_the_start(float spread)
{
    enum { ITEMS = 6, FEATURES = 24, WIDE = 48 };
    nsm_ctx *ctx = nsm_ctx_new(&(nsm_ctx_config){ .seed = 1 });
    nsm_set *set = nsm_set_new(ctx, &(nsm_set_config){ .width = WIDE,
                                                       .modalities = 1,
                                                       .features = { FEATURES },
                                                       .tau_new = 0.7f,
                                                       .spread = spread });
    nsm_tape *tape = nsm_tape_new(ctx);
    float x[ITEMS * FEATURES] = { 0 };
    int32_t opened[ITEMS];
    int count = 0;
    nsm_set_view view;
    for (int i = 0; i < ITEMS; i++) x[i * FEATURES + i] = x[i * FEATURES + 16 + i] = 1;
    nsm_set_input in = { nsm_tape_tensor(tape, NSM_F32, 3, (int64_t[]){ 1, ITEMS, FEATURES }, x),
                         NULL };
    nsm_set_apply(tape, set, &in, NULL, NULL, &view);
    nsm_tensor_get(view.opened, opened);
    ck_ok(ctx);
    for (int i = 0; i < ITEMS; i++) count += opened[i] >= 0;
    nsm_tape_free(tape);
    nsm_set_free(set);
    nsm_ctx_free(ctx);
    return count;
}

/* What elements say outweighs the modality that they are of. */
START_TEST(told_apart)
{
    ck_assert_int_eq(opened_at_the_start(0), 6);
    ck_assert_int_lt(opened_at_the_start(0.5f), 5);
}
END_TEST

static void make_and_use(nsm_ctx *ctx)
{
    nsm_set *set = nsm_set_new(ctx, &(nsm_set_config){ .width = D,
                                                       .slots = S,
                                                       .modalities = 1,
                                                       .features = { F0 },
                                                       .query_features = 2 });
    nsm_tape *tape = nsm_tape_new(ctx);
    nsm_tensor *x = nsm_tensor_new(ctx, NSM_F32, 3, (int64_t[]){ 2, 4, F0 }),
               *q = nsm_tensor_new(ctx, NSM_F32, 3, (int64_t[]){ 2, 1, 2 });
    const int32_t length[2] = { 3, 0 };
    nsm_tensor *rows = nsm_tensor_from(ctx, NSM_I32, 1, (int64_t[]){ 2 }, length);
    if (x) nsm_tensor_fill(x, 0.5f);
    if (q) nsm_tensor_fill(q, 0.5f);
    nsm_state *pool = set ? nsm_set_pool(set, 2) : NULL;
    nsm_set_view view;
    nsm_tensor *y = x && q && rows
                        ? nsm_set_apply(tape, set, &(nsm_set_input){ x, rows }, q, pool, &view)
                        : NULL;
    if (y) nsm_tape_backward(tape, nsm_sum(tape, y, NSM_ALL, false));
    nsm_state_free(pool);
    nsm_tensor_free(x);
    nsm_tensor_free(q);
    nsm_tensor_free(rows);
    nsm_tape_free(tape);
    nsm_set_free(set);
}

START_TEST(memory)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    ck_assert_int_gt(test_brutal(make_and_use, ctx), 40);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(errors)
{
    subject s = subject_new(1);
    nsm_set_input none[2] = { { NULL, NULL }, { NULL, NULL } },
                  wide[2] = { { elements(&s, N1, F1, x1), NULL }, { NULL, NULL } };
    nsm_state *bare = nsm_state_new(s.ctx, B);
    ck_assert(!nsm_set_apply(s.tape, s.set, none, NULL, NULL, NULL));
    ck_error(s.ctx, NSM_EINVAL);
    ck_assert(!nsm_set_apply(s.tape, s.set, wide, NULL, NULL, NULL));
    ck_error(s.ctx, NSM_ESHAPE);
    nsm_set_input in[2] = { { elements(&s, N0, F0, x0), NULL }, { NULL, NULL } };
    /* a query where none is taken */
    ck_assert(!nsm_set_apply(s.tape, s.set, in, in[0].x, NULL, NULL));
    ck_error(s.ctx, NSM_ESHAPE);
    ck_assert(!nsm_set_apply(s.tape, s.set, in, NULL, bare, NULL));
    ck_error(s.ctx, NSM_EINVAL);
    static const nsm_set_config wrong[] = {
        { .width = 10, .heads = 3, .modalities = 1, .features = { 2 } },
        { .width = 8, .modalities = 0 },
        { .width = 8, .modalities = 1 },
        { .width = 8, .modalities = 1, .features = { 2 }, .slots = 2, .learned = 3 },
        { .width = 8, .modalities = 1, .features = { 2 }, .spread = -1 }
    };
    for (int i = 0; i < 5; i++) {
        ck_assert(!nsm_set_new(s.ctx, &wrong[i]));
        ck_error(s.ctx, NSM_EINVAL);
    }
    nsm_state_free(bare);
    subject_free(&s);
}
END_TEST

int main(void)
{
    return test_main("set", (const TTest *const[]){ order, absent, handed_over, threads, told_apart,
                                                    memory, errors, NULL });
}
