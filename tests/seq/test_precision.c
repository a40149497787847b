/* tests/seq/test_precision.c - Matrix products in TF32 and bf16: who has them, how near gradients
 * and a training run stay to float32's, and that numbers which are not finite are still told, by
 * name.  The products themselves are held to plain loops by tests/kernels. */
#include "config.h"
#include "base/ops.h"
#include "base/optimizer.h"
#include "seq/backbone.h"
#include "tests/test.h"

enum { ROWS = 24, IN = 40, OUT = 32, ALL = ROWS * IN + OUT * IN + OUT };
enum { BATCH = 4, TOKENS = 12, WORDS = 9, STEPS = 40 };

static bool rounds(const nsm_ctx *ctx) { return ctx->dev.be->precisions; }

START_TEST(who)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    for (int p = 0; p < NSM_PRECISION_KINDS; p++) {
        ck_assert_int_eq(nsm_precision_find(nsm_precision_name((nsm_precision)p)), p);
        bool has = p == NSM_PRECISION_FLOAT32 || rounds(ctx);
        int code = nsm_ctx_set_precision(ctx, (nsm_precision)p);
        ck_assert_int_eq(code, has ? NSM_OK : NSM_EINVAL);
        ck_assert_int_eq(nsm_ctx_precision(ctx), has ? p : NSM_PRECISION_FLOAT32);
        if (has) continue;
        ck_assert(strstr(nsm_error_message(ctx), "float32 alone"));
        ck_error(ctx, NSM_EINVAL);
    }
    ck_assert_int_eq(nsm_ctx_set_precision(ctx, (nsm_precision)9), NSM_EINVAL);
    ck_error(ctx, NSM_EINVAL);
    ck_assert_int_eq(nsm_precision_find("half"), -1);
    nsm_ctx_free(ctx);
}
END_TEST

static nsm_tensor *random_tensor(nsm_ctx *ctx, uint64_t seed, int rank, const int64_t *dim)
{
    float x[ROWS * IN + OUT * IN];
    nsm_tensor *t = nsm_tensor_new(ctx, NSM_F32, rank, dim);
    test_random(seed, nsm_numel(t), x);
    nsm_tensor_set(t, x);
    t->needs_grad = true;
    return t;
}

/* Of the sum of squares of a linear map: dx, dw, db side by side. */
static void linear_gradients(nsm_precision p, float *g)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    nsm_ctx_set_precision(ctx, p);
    nsm_tape *tape = nsm_tape_new(ctx);
    nsm_tensor *x = random_tensor(ctx, 1, 2, (int64_t[]){ ROWS, IN }),
               *w = random_tensor(ctx, 2, 2, (int64_t[]){ OUT, IN }),
               *b = random_tensor(ctx, 3, 1, (int64_t[]){ OUT });
    nsm_tensor *y = nsm_linear(tape, x, w, b);
    nsm_tape_backward(tape, nsm_sum(tape, nsm_mul(tape, y, y), NSM_ALL, false));
    nsm_tensor_get_grad(x, g);
    nsm_tensor_get_grad(w, g + ROWS * IN);
    nsm_tensor_get_grad(b, g + ROWS * IN + OUT * IN);
    ck_ok(ctx);
    nsm_tape_free(tape);
    nsm_tensor_free(x);
    nsm_tensor_free(w);
    nsm_tensor_free(b);
    nsm_ctx_free(ctx);
}

START_TEST(gradients)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    float exact[ALL], near[ALL];
    linear_gradients(NSM_PRECISION_FLOAT32, exact);
    for (int p = 1; rounds(ctx) && p < NSM_PRECISION_KINDS; p++) {
        linear_gradients((nsm_precision)p, near);
        double error = test_difference(near, exact, ALL, 1e-3);
        ck_assert_msg(error < 1e-2 && error > 1e-6, "%s: %g", nsm_precision_name((nsm_precision)p),
                      error);
    }
    nsm_ctx_free(ctx);
}
END_TEST

/* ---- a small model: the word after the next is the sum of both, of WORDS ---- */

static nsm_backbone *model_new(nsm_ctx *ctx)
{
    return nsm_backbone_new(ctx, &(nsm_backbone_config){
                                     .mixer = "lstm", .width = 16, .layers = 2, .vocab = WORDS });
}

static nsm_tensor *loss_of(nsm_tape *tape, nsm_backbone *b, int step)
{
    int32_t word[BATCH * (TOKENS + 1)], in[BATCH * TOKENS], next[BATCH * TOKENS];
    for (int i = 0; i < BATCH; i++)
        for (int t = 0; t <= TOKENS; t++) {
            int32_t *w = word + i * (TOKENS + 1) + t;
            *w = t < 2 ? (i * 5 + t * 2 + step) % WORDS : (w[-1] + w[-2]) % WORDS;
            if (t < TOKENS) in[i * TOKENS + t] = *w;
            if (t > 0) next[i * TOKENS + t - 1] = *w;
        }
    const int64_t dim[] = { BATCH, TOKENS };
    nsm_tensor *y = nsm_backbone_apply(tape, b, nsm_tape_tensor(tape, NSM_I32, 2, dim, in), NULL,
                                       NULL);
    y = nsm_reshape(tape, y, 2, (int64_t[]){ BATCH * TOKENS, WORDS });
    nsm_tensor *to = nsm_tape_tensor(tape, NSM_I32, 1, (int64_t[]){ BATCH * TOKENS }, next);
    return nsm_cross_entropy(tape, y, to, NULL);
}

static double trained(nsm_precision p, double *first)
{
    nsm_ctx *ctx = nsm_ctx_new(&(nsm_ctx_config){ .seed = 5 });
    nsm_ctx_set_precision(ctx, p);
    nsm_backbone *b = model_new(ctx);
    nsm_optimizer *o = nsm_optimizer_new(nsm_backbone_module(b),
                                         &(nsm_optimizer_config){ .kind = NSM_ADAM });
    nsm_tape *tape = nsm_tape_new(ctx);
    double sum = 0;
    for (int i = 0; i < STEPS; i++) {
        float now = NAN;
        nsm_tensor *loss = loss_of(tape, b, i);
        nsm_tensor_get(loss, &now);
        nsm_tape_backward(tape, loss);
        nsm_tape_reset(tape);
        nsm_optimizer_step(o, 0.01);
        if (i == 0) *first = (double)now;
        if (i >= STEPS - 5) sum += (double)now / 5;
    }
    ck_ok(ctx);
    nsm_tape_free(tape);
    nsm_optimizer_free(o);
    nsm_backbone_free(b);
    nsm_ctx_free(ctx);
    return sum;
}

START_TEST(training)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    double first, exact = trained(NSM_PRECISION_FLOAT32, &first);
    ck_assert_msg(exact < 0.8 * first, "nothing is learned: %g, %g", first, exact);
    for (int p = 1; rounds(ctx) && p < NSM_PRECISION_KINDS; p++) {
        double last = trained((nsm_precision)p, &first);
        ck_assert_msg(fabs(last - exact) < 0.02 * exact && last != exact, "%s: %g, float32 %g",
                      nsm_precision_name((nsm_precision)p), last, exact);
    }
    nsm_ctx_free(ctx);
}
END_TEST

/* A weight that is not finite: the loss is not, the layer is named, no weight is changed. */
START_TEST(not_finite)
{
    for (int p = 0; p < NSM_PRECISION_KINDS; p++) {
        nsm_ctx *ctx = nsm_ctx_new(&(nsm_ctx_config){ .seed = 5 });
        if (p && !rounds(ctx)) {
            nsm_ctx_free(ctx);
            continue;
        }
        nsm_ctx_set_precision(ctx, (nsm_precision)p);
        nsm_backbone *b = model_new(ctx);
        nsm_optimizer *o = nsm_optimizer_new(nsm_backbone_module(b),
                                             &(nsm_optimizer_config){ .kind = NSM_ADAM });
        nsm_tape *tape = nsm_tape_new(ctx);
        nsm_tensor *up = nsm_module_find(nsm_backbone_module(b), "layers.1.up.weight");
        int64_t n = nsm_numel(up);
        float *w = malloc((size_t)n * sizeof *w), now = 0;
        nsm_tensor_get(up, w);
        w[3] = INFINITY;
        nsm_tensor_set(up, w);
        float *before = test_weights(nsm_backbone_module(b), "head.weight");
        nsm_tensor *loss = loss_of(tape, b, 0);
        nsm_tensor_get(loss, &now);
        ck_assert(!isfinite(now));
        int32_t in[BATCH * TOKENS] = { 0 };
        const char *where = nsm_backbone_fault(
            tape, b, nsm_tape_tensor(tape, NSM_I32, 2, (int64_t[]){ BATCH, TOKENS }, in), NULL);
        ck_assert_ptr_nonnull(where);
        ck_assert_str_eq(where, "layers.1.feed-forward");
        nsm_tape_backward(tape, loss);
        ck_ok(ctx);
        nsm_optimizer_step(o, 0.01);
        nsm_tensor_get(up, w); /* a device may tell no sooner */
        ck_assert_int_eq(nsm_error(ctx), NSM_ENUMBER);
        ck_assert_msg(strstr(nsm_error_message(ctx), "weight is not finite in step 1"), "%s",
                      nsm_error_message(ctx));
        nsm_error_clear(ctx);
        float *after = test_weights(nsm_backbone_module(b), "head.weight");
        ck_assert_mem_eq(before, after, WORDS * 16 * sizeof *after);
        free(before), free(after), free(w);
        nsm_tape_free(tape);
        nsm_optimizer_free(o);
        nsm_backbone_free(b);
        nsm_ctx_free(ctx);
    }
}
END_TEST

int main(void)
{
    return test_main("precision",
                     (const TTest *const[]){ who, gradients, training, not_finite, NULL });
}
