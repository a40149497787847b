/* tests/fusion/test_perceiver.c - What Perceiver and slot attention must do, beside their fixtures:
 * an element that is shut out is as if it were not there; who sees nothing goes on alone; drawn
 * noise follows the generator; every allocation fails in turn; one clear error for wrong sizes. */
#include "config.h"
#include "base/ops.h"
#include "fusion/perceiver.h"
#include "fusion/slot_attention.h"
#include "tests/test.h"

enum { B = 2, N = 7, F = 5, D = 8, S = 3, R = 2 };
static float x[B * N * F];

static nsm_perceiver *perceiver_new(nsm_ctx *ctx)
{
    return nsm_perceiver_new(ctx, &(nsm_perceiver_config){ .inputs = F,
                                                           .latents = S,
                                                           .width = D,
                                                           .layers = 2,
                                                           .blocks = 2,
                                                           .self_heads = 2,
                                                           .cross_heads = 2,
                                                           .qk_channels = 6,
                                                           .v_channels = 4,
                                                           .self_widening = 2,
                                                           .query = 6,
                                                           .queries = R,
                                                           .decoder_heads = 4,
                                                           .outputs = 3 });
}

static nsm_slot_attention *slots_new(nsm_ctx *ctx)
{
    return nsm_slot_attention_new(ctx, &(nsm_slot_attention_config){
                                           .inputs = F, .slots = S, .width = D });
}

/* The first n elements of each set. */
static nsm_tensor *elements(nsm_tape *tape, int64_t n)
{
    test_random(1, B * N * F, x);
    nsm_tensor *all = nsm_tape_tensor(tape, NSM_F32, 3, (int64_t[]){ B, N, F }, x);
    return n == N ? all : nsm_slice(tape, all, 1, 0, n);
}

/* All but the first n elements are shut out. */
static nsm_tensor *shut_behind(nsm_tape *tape, int64_t n)
{
    float shut[B * N];
    for (int64_t i = 0; i < B * N; i++) shut[i] = i % N < n ? 0 : -INFINITY;
    return nsm_tape_tensor(tape, NSM_F32, 2, (int64_t[]){ B, N }, shut);
}

START_TEST(shut_out)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    nsm_tape *tape = nsm_tape_new(ctx);
    nsm_perceiver *p = perceiver_new(ctx);
    nsm_slot_attention *s = slots_new(ctx);
    float noise[B * S * D], y[2][B * S * D], seen[B * S * N], seen_by[B * N * S];
    test_random(2, B * S * D, noise);
    nsm_tensor *e = nsm_tape_tensor(tape, NSM_F32, 3, (int64_t[]){ B, S, D }, noise), *w[2];
    for (int64_t n = 1; n <= 4; n += 3) {
        nsm_tensor_get(nsm_perceiver_encode(tape, p, elements(tape, n), NULL, NULL), y[0]);
        nsm_tensor_get(nsm_perceiver_encode(tape, p, elements(tape, N), shut_behind(tape, n),
                                            &w[0]),
                       y[1]);
        ck_ok(ctx);
        ck_assert(test_difference(y[0], y[1], B * S * D, 1e-6) < 1e-5);
        nsm_tensor_get(nsm_slot_attention_apply(tape, s, elements(tape, n), e, NULL, NULL), y[0]);
        nsm_tensor_get(nsm_slot_attention_apply(tape, s, elements(tape, N), e, shut_behind(tape, n),
                                                &w[1]),
                       y[1]);
        ck_ok(ctx);
        ck_assert(test_difference(y[0], y[1], B * S * D, 1e-6) < 1e-5);
        nsm_tensor_get(w[0], seen);
        nsm_tensor_get(w[1], seen_by);
        for (int64_t i = 0; i < B * S * N; i++) ck_assert(i % N < n || seen[i] == 0);
        for (int64_t i = 0; i < B * N * S; i++) ck_assert(i / S % N < n || seen_by[i] == 0);
    }
    /* nothing to see: nothing but the latents' own way, in both sets the same */
    nsm_tensor_get(nsm_perceiver_encode(tape, p, elements(tape, N), shut_behind(tape, 0), &w[0]),
                   y[0]);
    nsm_tensor_get(w[0], seen);
    ck_ok(ctx);
    for (int64_t i = 0; i < S * D; i++) ck_assert(isfinite(y[0][i]) && y[0][i] == y[0][S * D + i]);
    for (int64_t i = 0; i < B * S * N; i++) ck_assert(seen[i] == 0);
    nsm_tensor_get(nsm_slot_attention_apply(tape, s, elements(tape, N), e, shut_behind(tape, 0),
                                            NULL),
                   y[0]);
    for (int64_t i = 0; i < B * S * D; i++) ck_assert(isfinite(y[0][i]));
    nsm_slot_attention_free(s);
    nsm_perceiver_free(p);
    nsm_tape_free(tape);
    nsm_ctx_free(ctx);
}
END_TEST

/* Without noise given, a generator's; the same seed draws the same, the next call another. */
START_TEST(drawn)
{
    float y[3][B * S * D];
    for (int i = 0; i < 2; i++) {
        nsm_ctx *ctx = nsm_ctx_new(&(nsm_ctx_config){ .seed = 5 });
        nsm_tape *tape = nsm_tape_new(ctx);
        nsm_slot_attention *s = slots_new(ctx);
        nsm_tensor_get(nsm_slot_attention_apply(tape, s, elements(tape, N), NULL, NULL, NULL),
                       y[i]);
        nsm_tensor_get(nsm_slot_attention_apply(tape, s, elements(tape, N), NULL, NULL, NULL),
                       y[2]);
        ck_ok(ctx);
        nsm_slot_attention_free(s);
        nsm_tape_free(tape);
        nsm_ctx_free(ctx);
    }
    ck_assert(!memcmp(y[0], y[1], sizeof y[0]));
    ck_assert(test_difference(y[0], y[2], B * S * D, 1e-6) > 1e-3);
}
END_TEST

static void make_and_use(nsm_ctx *ctx)
{
    nsm_perceiver *p = perceiver_new(ctx);
    nsm_slot_attention *s = slots_new(ctx);
    nsm_tape *tape = nsm_tape_new(ctx);
    nsm_tensor *seen = NULL;
    if (tape) {
        nsm_tensor *a = elements(tape, N), *shut = shut_behind(tape, 4);
        nsm_tensor *z = nsm_perceiver_encode(tape, p, a, shut, &seen);
        nsm_tensor *y = nsm_sum(tape, nsm_perceiver_decode(tape, p, z, NULL, NULL, &seen), NSM_ALL,
                                false);
        z = nsm_slot_attention_apply(tape, s, a, NULL, shut, &seen);
        nsm_tape_backward(tape, nsm_add(tape, y, nsm_sum(tape, z, NSM_ALL, false)));
    }
    nsm_tape_free(tape);
    nsm_slot_attention_free(s);
    nsm_perceiver_free(p);
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
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    static const nsm_perceiver_layer_config layer[] = {
        { .width = 0 },
        { .width = 8, .heads = 3 },
        { .width = 8, .heads = 2, .v_channels = 3 },
        { .width = 8, .context = -1 },
        { .width = 8, .widening = -1 },
        { .width = 8, .qk_channels = -8 },
        { .width = 1 << 30 },
    };
    for (int i = 0; i < 7; i++) {
        ck_assert(!nsm_perceiver_layer_new(ctx, &layer[i]));
        ck_error(ctx, NSM_EINVAL);
    }
    static const nsm_perceiver_config whole[] = {
        { .inputs = 8, .latents = 0, .width = 8 },
        { .inputs = 0, .latents = 2, .width = 8 },
        { .inputs = 8, .latents = 2, .width = 8, .layers = -1 },
        { .inputs = 8, .latents = 2, .width = 8, .blocks = 1 << 20 },
        { .inputs = 5, .latents = 2, .width = 8 }, /* 8 heads do not divide 5 channels */
        { .inputs = 8, .latents = 2, .width = 8, .queries = -1 },
    };
    for (int i = 0; i < 6; i++) {
        ck_assert(!nsm_perceiver_new(ctx, &whole[i]));
        ck_error(ctx, NSM_EINVAL);
    }
    static const nsm_slot_attention_config slots[] = {
        { .inputs = 0, .slots = 2, .width = 4 },
        { .inputs = 4, .slots = 0, .width = 4 },
        { .inputs = 4, .slots = 2, .width = -4 },
        { .inputs = 4, .slots = 2, .width = 4, .iterations = -1 },
        { .inputs = 4, .slots = 2, .width = 4, .eps = -1 }
    };
    for (int i = 0; i < 5; i++) {
        ck_assert(!nsm_slot_attention_new(ctx, &slots[i]));
        ck_error(ctx, NSM_EINVAL);
    }
    nsm_perceiver *p = perceiver_new(ctx),
                  *bare = nsm_perceiver_new(ctx, &(nsm_perceiver_config){ .inputs = F,
                                                                          .latents = S,
                                                                          .width = D,
                                                                          .cross_heads = 1 });
    nsm_slot_attention *s = slots_new(ctx);
    nsm_tape *tape = nsm_tape_new(ctx);
    nsm_tensor *a = elements(tape, N), *flat = nsm_reshape(tape, a, 2, (int64_t[]){ -1, F });
    nsm_tensor *z = nsm_perceiver_encode(tape, bare, a, NULL, NULL);
    ck_assert(z && !nsm_perceiver_decode(tape, bare, z, NULL, NULL, NULL)); /* no decoder */
    ck_error(ctx, NSM_EINVAL);
    ck_assert(!nsm_perceiver_encode(tape, p, flat, NULL, NULL));
    ck_error(ctx, NSM_ESHAPE);
    ck_assert(!nsm_perceiver_encode(tape, p, a, flat, NULL));
    ck_error(ctx, NSM_ESHAPE);
    ck_assert(!nsm_perceiver_decode(tape, p, a, NULL, NULL, NULL));
    ck_error(ctx, NSM_ESHAPE);
    ck_assert(!nsm_slot_attention_apply(tape, s, flat, NULL, NULL, NULL));
    ck_error(ctx, NSM_ESHAPE);
    ck_assert(!nsm_slot_attention_apply(tape, s, a, a, NULL, NULL));
    ck_error(ctx, NSM_ESHAPE);
    ck_assert(!nsm_slot_attention_apply(tape, s, NULL, NULL, NULL, NULL));
    ck_ok(ctx);
    nsm_tape_free(tape);
    nsm_slot_attention_free(s);
    nsm_perceiver_free(p);
    nsm_perceiver_free(bare);
    nsm_ctx_free(ctx);
}
END_TEST

int main(void)
{
    return test_main("perceiver", (const TTest *const[]){ shut_out, drawn, memory, errors, NULL });
}
