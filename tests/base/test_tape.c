/* tests/base/test_tape.c - The tape's promises: gradients add, memory goes back early, views share,
 * errors stick, a steady step allocates nothing. */
#include "config.h"
#include "tests/test.h"

/* y = x * x, with an op of the test's own: what a user's op looks like. */
static void square_shape(nsm_node *n)
{
    nsm_node_out(n, 0, NSM_F32, n->in[0]->rank, n->in[0]->dim);
}
static void square_forward(nsm_node *n)
{
    for (int64_t i = 0; i < nsm_numel(n->in[0]); i++) Y(0)[i] = X(0)[i] * X(0)[i];
}
static void square_backward(nsm_node *n)
{
    float *dx = DX(0);
    for (int64_t i = 0; dx && i < nsm_numel(n->in[0]); i++) dx[i] += 2 * X(0)[i] * DY(0)[i];
}
static const nsm_op square = { "square", square_shape,    square_forward, square_backward,
                               1,        NSM_READS_IN(0), false };

static nsm_tensor *squared(nsm_tape *t, nsm_tensor *x)
{
    return nsm_apply(t, &square, &(nsm_args){ .in = { x } });
}

static nsm_tensor *leaf(nsm_ctx *ctx, int64_t n)
{
    float host[64];
    for (int64_t i = 0; i < n; i++) host[i] = (float)i + 1;
    nsm_tensor *x = nsm_tensor_from(ctx, NSM_F32, 1, &n, host);
    if (x) x->needs_grad = true;
    return x;
}

START_TEST(gradients)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    ck_ok(ctx);
    nsm_tensor *x = leaf(ctx, 3);
    nsm_tape *t = nsm_tape_new(ctx);
    nsm_tensor *y = squared(t, squared(t, x)); /* x^4 */
    nsm_tensor *z = squared(t, x);             /* x^2, the same leaf again */
    nsm_tape_seed(t, y, (const float[]){ 1, 1, 1 });
    nsm_tape_seed(t, z, (const float[]){ 1, 10, 100 });
    ck_assert_int_eq(nsm_tape_backward(t, NULL), NSM_OK);
    float g[3];
    nsm_tensor_get_grad(x, g);
    ck_assert_float_eq(g[0], 4 + 2);
    ck_assert_float_eq(g[1], 32 + 40);
    ck_assert_float_eq(g[2], 108 + 600);
    ck_assert_ptr_null(y->data); /* given back */
    nsm_tape_free(t);
    nsm_tensor_free(x);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(views)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    nsm_tensor *x = leaf(ctx, 6);
    nsm_tape *t = nsm_tape_new(ctx);
    nsm_tensor *v = nsm_reshape(t, squared(t, x), 2, (const int64_t[]){ 2, -1 });
    ck_assert_int_eq(v->dim[1], 3);
    nsm_tensor *y = squared(t, v);
    nsm_tape_keep(t, y);
    nsm_tape_seed(t, y, (const float[]){ 1, 1, 1, 1, 1, 1 });
    nsm_tape_backward(t, NULL);
    float g[6], value[6];
    nsm_tensor_get_grad(x, g);
    for (int i = 0; i < 6; i++) ck_assert_float_eq(g[i], 4 * powf((float)i + 1, 3));
    ck_assert_int_eq(nsm_tensor_get(y, value), NSM_OK);
    ck_assert_float_eq(value[1], 16);
    ck_assert_ptr_null(nsm_reshape(t, x, 1, (const int64_t[]){ 7 }));
    ck_error(ctx, NSM_ESHAPE);
    nsm_tape_free(t);
    nsm_tensor_free(x);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(memory)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    nsm_tensor *x = leaf(ctx, 32);
    nsm_tape *t = nsm_tape_new(ctx);
    nsm_tape_inference(t, true);
    nsm_tensor *y = squared(t, x), *z = squared(t, y);
    int64_t with = nsm_ctx_memory(ctx).used_bytes;
    nsm_tape_drop(t, y); /* inference: freed at once */
    ck_assert_int_lt(nsm_ctx_memory(ctx).used_bytes, with);
    ck_assert_ptr_null(squared(t, y));
    ck_error(ctx, NSM_EINVAL);
    ck_assert_ptr_nonnull(z->data);
    nsm_tape_reset(t);
    nsm_tape_inference(t, false);
    y = squared(t, x);
    z = squared(t, y);
    nsm_tape_drop(t, y);
    ck_assert_ptr_nonnull(y->data); /* z's backward reads it */
    nsm_tape_reset(t);
    int64_t before = 0;
    for (int step = 0; step < 3; step++) { /* a steady step allocates nothing */
        float ones[32];
        for (int i = 0; i < 32; i++) ones[i] = 1;
        if (step == 1) before = nsm_ctx_memory(ctx).cached_bytes + nsm_ctx_memory(ctx).used_bytes;
        y = squared(t, squared(t, x));
        nsm_tape_seed(t, y, ones);
        nsm_tape_backward(t, NULL);
        nsm_tensor_zero_grad(x);
        nsm_tape_reset(t);
    }
    ck_assert_int_eq(before, nsm_ctx_memory(ctx).cached_bytes + nsm_ctx_memory(ctx).used_bytes);
    nsm_tape_free(t);
    nsm_tensor_free(x);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(errors)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    nsm_tape *t = nsm_tape_new(ctx);
    ck_assert_ptr_null(squared(t, NULL)); /* NULL in, NULL out, no error of its own */
    ck_ok(ctx);
    ck_assert_ptr_null(nsm_tensor_new(ctx, NSM_F32, 2, (const int64_t[]){ 3, -1 }));
    ck_assert_ptr_nonnull(strstr(nsm_error_message(ctx), "dim 1 is -1"));
    ck_assert_ptr_null(nsm_tape_new(ctx)); /* sticky */
    ck_error(ctx, NSM_EINVAL);
    ck_assert_ptr_null(
        nsm_tensor_new(ctx, NSM_F32, 3, (const int64_t[]){ 1 << 30, 1 << 30, 1 << 30 }));
    ck_error(ctx, NSM_ENOMEM);
    nsm_tensor *x = leaf(ctx, 3);
    nsm_tensor *y = squared(t, x);
    ck_assert_int_eq(nsm_tape_backward(t, y), NSM_ESHAPE); /* not one number */
    ck_error(ctx, NSM_ESHAPE);
    nsm_tape_free(t);
    nsm_tensor_free(x);
    nsm_ctx_free(ctx);
    ctx = nsm_ctx_new(&(nsm_ctx_config){ .backend = "abacus" });
    ck_assert_int_eq(nsm_error(ctx), NSM_EDEVICE);
    nsm_error_clear(ctx);
    ck_assert_int_eq(nsm_error(ctx), NSM_EDEVICE); /* cannot be cleared away */
    nsm_ctx_free(ctx);
}
END_TEST

static void whole_step(nsm_ctx *ctx)
{
    nsm_tensor *x = leaf(ctx, 5);
    nsm_tape *t = nsm_tape_new(ctx);
    nsm_tensor *y = nsm_reshape(t, squared(t, squared(t, x)), 2, (const int64_t[]){ 5, 1 });
    if (y) nsm_tape_seed(t, y, (const float[]){ 1, 2, 3, 4, 5 });
    if (t) nsm_tape_backward(t, NULL);
    nsm_tape_free(t);
    nsm_tensor_free(x);
}

START_TEST(brutal)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    ck_assert_int_gt(test_brutal(whole_step, ctx), 8);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(random_numbers) /* Philox4x32-10's published test vectors (Random123, kat_vectors) */
{
    nsm_ctx *ctx = nsm_ctx_new(&(nsm_ctx_config){ .seed = 0 });
    nsm_random zero = { 0, 0 };
    const uint32_t want[4] = { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 };
    for (uint64_t i = 0; i < 4; i++) ck_assert_uint_eq(nsm_random_u32(zero, i), want[i]);
    nsm_random a = nsm_random_take(ctx, 5), b = nsm_random_take(ctx, 1);
    ck_assert_uint_eq(b.offset - a.offset, 2);
    for (int i = 0; i < 1000; i++) ck_assert_uint_lt(nsm_random_below(ctx, 7), 7);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(csr)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    const int32_t row[] = { 2, 0, 2, 1, 2 }, col[] = { 1, 3, 0, 1, 1 };
    nsm_csr *m = nsm_csr_new(ctx, 3, 4, 5, row, col, false);
    ck_ok(ctx);
    const int64_t ptr[] = { 0, 1, 2, 5 }, tptr[] = { 0, 1, 4, 4, 5 };
    const int32_t idx[] = { 3, 1, 0, 1, 1 }, source[] = { 1, 3, 2, 0, 4 },
                  tidx[] = { 2, 1, 2, 2, 0 }, pos[] = { 2, 1, 3, 4, 0 };
    ck_assert_mem_eq(m->fwd.ptr, ptr, sizeof ptr);
    ck_assert_mem_eq(m->fwd.idx, idx, sizeof idx);
    ck_assert_mem_eq(m->source, source, sizeof source);
    ck_assert_mem_eq(m->bwd.ptr, tptr, sizeof tptr);
    ck_assert_mem_eq(m->bwd.idx, tidx, sizeof tidx);
    ck_assert_mem_eq(m->bwd.pos, pos, sizeof pos);
    ck_assert_int_eq(m->fwd.chunk[m->fwd.chunks], 3);
    nsm_csr_free(m);
    ck_assert_ptr_null(nsm_csr_new(ctx, 3, 3, 5, row, col, false));
    ck_assert_ptr_nonnull(strstr(nsm_error_message(ctx), "column of entry 1 is 3"));
    ck_error(ctx, NSM_EINVAL);
    nsm_ctx_free(ctx);
}
END_TEST

int main(void)
{
    return test_main("tape", (const TTest *const[]){ gradients, views, memory, errors, brutal,
                                                     random_numbers, csr, NULL });
}
