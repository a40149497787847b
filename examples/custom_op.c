/* custom_op.c - An op and a layer of one's own, through the public interface alone, trained
 * together with the library's.
 *
 *   cc custom_op.c $(pkg-config --cflags --libs nsm) -lm -o custom_op && ./custom_op
 *
 * The op is the rational quadratic y = x / (1 + (a x)^2), with a learned number a for each feature;
 * the layer is linear -> op -> linear.  It learns a wave that a linear map cannot follow. */
#include <nsm.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLES = 256, HIDDEN = 16, STEPS = 1500 };

/* ---- the op: shape, forward, backward; backward adds to the gradients ---- */
static void bump_shape(nsm_node *n)
{
    const nsm_tensor *x = n->in[0], *a = n->in[1];
    if (x->rank != 2 || a->rank != 1 || a->dim[0] != x->dim[1])
        nsm_error_set(n->ctx, NSM_ESHAPE, "bump: want x [n,F] and a [F]");
    else
        nsm_node_out(n, 0, NSM_F32, x->rank, x->dim);
}

static void bump_forward(nsm_node *n)
{
    int64_t rows = n->in[0]->dim[0], cols = n->in[0]->dim[1];
    const float *x = n->in[0]->f32, *a = n->in[1]->f32;
    float *y = n->out[0]->f32;
    for (int64_t i = 0; i < rows * cols; i++) {
        float s = a[i % cols] * x[i];
        y[i] = x[i] / (1 + s * s);
    }
}

static void bump_backward(nsm_node *n)
{
    int64_t rows = n->in[0]->dim[0], cols = n->in[0]->dim[1];
    const float *x = n->in[0]->f32, *a = n->in[1]->f32, *dy = nsm_node_dy(n, 0);
    float *dx = nsm_node_dx(n, 0), *da = nsm_node_dx(n, 1);
    for (int64_t i = 0; i < rows * cols; i++) {
        float s = a[i % cols] * x[i], q = 1 / (1 + s * s);
        if (dx) dx[i] += dy[i] * (1 - s * s) * q * q;
        if (da) da[i % cols] -= dy[i] * 2 * s * x[i] * x[i] * q * q;
    }
}

static const nsm_op bump_op = { "bump",        bump_shape, bump_forward,
                                bump_backward, 2,          NSM_READS_IN(0) | NSM_READS_IN(1),
                                false };

static nsm_tensor *bump(nsm_tape *tape, nsm_tensor *x, nsm_tensor *a)
{
    nsm_args args = { { x, a }, { 0 }, { 0 }, { NULL } };
    return nsm_apply(tape, &bump_op, &args);
}

/* ---- the layer: a module first, then what it applies ---- */
typedef struct {
    nsm_module module;
    nsm_tensor *w1, *b1, *a, *w2, *b2;
} wave;

static void wave_init(wave *w, nsm_ctx *ctx)
{
    const int64_t in[] = { HIDDEN, 1 }, out[] = { 1, HIDDEN }, hidden[] = { HIDDEN }, one[] = { 1 };
    nsm_module_init(&w->module, ctx);
    w->w1 = nsm_module_param(&w->module, "lin1.weight", 2, in);
    w->b1 = nsm_module_param(&w->module, "lin1.bias", 1, hidden);
    w->a = nsm_module_param(&w->module, "bump.a", 1, hidden);
    w->w2 = nsm_module_param(&w->module, "lin2.weight", 2, out);
    w->b2 = nsm_module_param(&w->module, "lin2.bias", 1, one);
    nsm_init_normal(w->w1, 0, 2);
    nsm_init_normal(w->b1, 0, 2);
    nsm_init_uniform(w->a, 0.5f, 1.5f);
    nsm_init_glorot_uniform(w->w2, 1);
}

static nsm_tensor *wave_apply(nsm_tape *tape, wave *w, nsm_tensor *x)
{
    return nsm_linear(tape, bump(tape, nsm_linear(tape, x, w->w1, w->b1), w->a), w->w2, w->b2);
}

int main(void)
{
    float input[SAMPLES], target[SAMPLES], value = 1;
    const int64_t shape[] = { SAMPLES, 1 };
    nsm_ctx_config context;
    memset(&context, 0, sizeof context);
    context.seed = 3;
    nsm_ctx *ctx = nsm_ctx_new(&context);
    for (int i = 0; i < SAMPLES; i++) {
        input[i] = 6.0f * (float)i / SAMPLES - 3;
        target[i] = sinf(2 * input[i]);
    }
    nsm_tensor *x = nsm_tensor_from(ctx, NSM_F32, 2, shape, input);
    nsm_tensor *y = nsm_tensor_from(ctx, NSM_F32, 2, shape, target);
    wave w;
    wave_init(&w, ctx);
    nsm_optimizer_config config;
    memset(&config, 0, sizeof config);
    config.kind = NSM_ADAM;
    nsm_optimizer *adam = nsm_optimizer_new(&w.module, &config);
    nsm_tape *tape = nsm_tape_new(ctx);
    for (int step = 1; step <= STEPS && !nsm_error(ctx); step++) {
        nsm_tensor *loss = nsm_mse_loss(tape, wave_apply(tape, &w, x), y, NSM_LOSS_MEAN);
        if (!nsm_tape_backward(tape, loss)) value = nsm_tensor_item(loss);
        nsm_tape_reset(tape);
        nsm_optimizer_step(adam, 0.02);
        if (step % 300 == 0) printf("step %4d  loss %.5f\n", step, (double)value);
    }
    int failed = nsm_error(ctx) != NSM_OK;
    if (failed) fprintf(stderr, "custom_op: %s\n", nsm_error_message(ctx));
    nsm_tape_free(tape);
    nsm_optimizer_free(adam);
    nsm_module_clear(&w.module);
    nsm_tensor_free(y);
    nsm_tensor_free(x);
    nsm_ctx_free(ctx);
    return failed || value > 0.01f;
}
