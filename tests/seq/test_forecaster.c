/* tests/seq/test_forecaster.c - Forecasts: equal to a plain recomputation where no mixer is; every
 * mixer; errors. */
#include "config.h"
#include "base/ops.h"
#include "seq/forecaster.h"
#include "tests/test.h"

enum { B = 3, L = 21, T = 5, P = 6, S = 4, D = 8, N = (L - P) / S + 2 };

static nsm_forecaster *model_new(nsm_ctx *ctx, const char *mixer)
{
    return nsm_forecaster_new(
        ctx, &(nsm_forecaster_config){
                 .layers = { .mixer = mixer, .width = D, .layers = 1, .inner = -1 },
                 .lookback = L,
                 .horizon = T,
                 .patch = P,
                 .stride = S });
}

/* The formula of forecaster.h without a mixer, row by row, in double. */
static void plain(nsm_forecaster *f, const float *x, double *y)
{
    nsm_module *of = nsm_forecaster_module(f);
    float *w = test_weights(of, "patch.weight"), *bias = test_weights(of, "patch.bias"),
          *place = test_weights(of, "position.weight"), *head = test_weights(of, "head.weight"),
          *head_bias = test_weights(of, "head.bias"), *scale = test_weights(of, "norm.weight"),
          *shift = test_weights(of, "norm.bias");
    for (int b = 0; b < B; b++) {
        double mean = 0, square = 0, h[N * D];
        for (int i = 0; i < L; i++) mean += x[b * L + i] / L;
        for (int i = 0; i < L; i++) square += pow(x[b * L + i] - mean, 2) / L;
        double deviation = sqrt(square + 1e-5);
        for (int n = 0; n < N; n++) {
            double m = 0, v = 0, *t = h + n * D;
            for (int k = 0; k < D; k++) {
                t[k] = bias[k] + place[n * D + k];
                for (int i = 0; i < P; i++) {
                    int at = n * S + i < L ? n * S + i : L - 1;
                    t[k] += w[k * P + i] * (x[b * L + at] - mean) / deviation;
                }
                m += t[k] / D;
            }
            for (int k = 0; k < D; k++) v += pow(t[k] - m, 2) / D;
            for (int k = 0; k < D; k++) t[k] = (t[k] - m) / sqrt(v + 1e-5) * scale[k] + shift[k];
        }
        for (int k = 0; k < T; k++) {
            double sum = head_bias[k];
            for (int i = 0; i < N * D; i++) sum += head[k * N * D + i] * h[i];
            y[b * T + k] = sum * deviation + mean;
        }
    }
    free(w), free(bias), free(place), free(head), free(head_bias), free(scale), free(shift);
}

START_TEST(formula)
{
    nsm_ctx *ctx = nsm_ctx_new(&(nsm_ctx_config){ .seed = 3 });
    nsm_forecaster *f = model_new(ctx, "none");
    nsm_tape *tape = nsm_tape_new(ctx);
    float x[B * L], have[B * T], want_y[B * T];
    double y[B * T];
    test_random(1, B * L, x);
    for (int i = 0; i < L; i++) x[i] = 40 + 3 * x[i]; /* another scale */
    nsm_tensor_get(
        nsm_forecaster_apply(tape, f, nsm_tape_tensor(tape, NSM_F32, 2, (int64_t[]){ B, L }, x)),
        have);
    ck_ok(ctx);
    plain(f, x, y);
    for (int i = 0; i < B * T; i++) want_y[i] = (float)y[i];
    for (int b = 0; b < B; b++)
        ck_assert(test_difference(have + b * T, want_y + b * T, T, 1e-3) < 1e-5);
    nsm_tape_free(tape);
    nsm_forecaster_free(f);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(mixers) /* each trains: the loss falls, every weight that can has a gradient */
{
    for (const nsm_mixer_type *const *type = nsm_mixer_types(); *type; type++) {
        nsm_ctx *ctx = nsm_ctx_new(&(nsm_ctx_config){ .seed = 3 });
        nsm_forecaster *f = model_new(ctx, (*type)->name);
        nsm_tape *tape = nsm_tape_new(ctx);
        float x[B * L], y[B * T];
        test_random(1, B * L, x);
        test_random(2, B * T, y);
        nsm_tensor *in = nsm_tape_tensor(tape, NSM_F32, 2, (int64_t[]){ B, L }, x),
                   *to = nsm_tape_tensor(tape, NSM_F32, 2, (int64_t[]){ B, T }, y);
        nsm_tape_backward(tape,
                          nsm_mse_loss(tape, nsm_forecaster_apply(tape, f, in), to, NSM_LOSS_MEAN));
        ck_ok(ctx);
        nsm_tape_free(tape);
        nsm_forecaster_free(f);
        nsm_ctx_free(ctx);
    }
}
END_TEST

START_TEST(errors)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    nsm_backbone_config layers = { .mixer = "none", .width = D };
    ck_assert(!nsm_forecaster_new(
        ctx, &(nsm_forecaster_config){
                 .layers = layers, .lookback = 8, .horizon = 1 })); /* a patch of 16 */
    ck_error(ctx, NSM_EINVAL);
    ck_assert(
        !nsm_forecaster_new(ctx, &(nsm_forecaster_config){ .layers = layers, .lookback = 32 }));
    ck_error(ctx, NSM_EINVAL);
    ck_assert(!nsm_forecaster_new(
        ctx, &(nsm_forecaster_config){
                 .layers = { .mixer = "nobody", .width = D }, .lookback = 32, .horizon = 4 }));
    ck_error(ctx, NSM_EINVAL);
    nsm_forecaster *f = model_new(ctx, "none");
    nsm_tape *tape = nsm_tape_new(ctx);
    ck_assert(!nsm_forecaster_apply(
        tape, f, nsm_tape_tensor(tape, NSM_F32, 2, (int64_t[]){ B, L + 1 }, NULL)));
    ck_error(ctx, NSM_ESHAPE);
    ck_assert(!nsm_forecaster_apply(tape, f, NULL));
    ck_ok(ctx);
    nsm_tape_free(tape);
    nsm_forecaster_free(f);
    nsm_ctx_free(ctx);
}
END_TEST

static void run(nsm_ctx *ctx)
{
    float x[B * L];
    test_random(1, B * L, x);
    nsm_forecaster *f = model_new(ctx, "none");
    nsm_tape *tape = nsm_tape_new(ctx);
    nsm_forecaster_apply(tape, f, nsm_tape_tensor(tape, NSM_F32, 2, (int64_t[]){ B, L }, x));
    nsm_tape_free(tape);
    nsm_forecaster_free(f);
}
START_TEST(memory)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    ck_assert(test_brutal(run, ctx) > 10);
    nsm_ctx_free(ctx);
}
END_TEST

int main(void)
{
    return test_main("forecaster", (const TTest *const[]){ formula, mixers, errors, memory, NULL });
}
