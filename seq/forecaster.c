/* seq/forecaster.c - See forecaster.h. */
#include "config.h"
#include "seq/forecaster.h"
#include "seq/internal.h"

struct nsm_forecaster {
    nsm_module module;
    nsm_forecaster_config config;
    int tokens;                /* N */
    nsm_backbone *layers;
    nsm_tensor *patch, *patch_bias, *position, *norm, *norm_bias, *head, *head_bias;
};

static const float least_variance = 1e-5f;

static nsm_tensor *weight_new(nsm_module *m, const char *name, int64_t out, int64_t in)
{
    nsm_tensor *w = nsm_module_param(m, name, 2, (int64_t[]){ out, in });
    float bound = 1 / sqrtf((float)in);
    nsm_init_uniform(w, -bound, bound);
    return w;
}

static void make(nsm_forecaster *f)
{
    const nsm_forecaster_config *c = &f->config;
    nsm_module *m = &f->module;
    int64_t d = c->layers.width, n = f->tokens, horizon = c->horizon;
    nsm_backbone_config layers = c->layers;
    layers.bare = true;
    f->layers = nsm_backbone_new(m->ctx, &layers);
    if (!f->layers) return;
    f->patch = weight_new(m, "patch.weight", d, c->patch);
    f->patch_bias = nsm_module_param(m, "patch.bias", 1, &d);
    f->position = nsm_module_param(m, "position.weight", 2, (int64_t[]){ n, d });
    nsm_init_normal(f->position, 0, 0.02f);
    nsm_module_child(m, "body", nsm_backbone_module(f->layers));
    f->norm = nsm_module_param(m, "norm.weight", 1, &d);
    if (f->norm) nsm_tensor_fill(f->norm, 1);
    if (!c->layers.rms_norm) f->norm_bias = nsm_module_param(m, "norm.bias", 1, &d);
    f->head = weight_new(m, "head.weight", horizon, n * d);
    f->head_bias = nsm_module_param(m, "head.bias", 1, &horizon);
}

nsm_forecaster *nsm_forecaster_new(nsm_ctx *ctx, const nsm_forecaster_config *config)
{
    if (nsmi_failed(ctx)) return NULL;
    nsm_forecaster_config c = *config;
    if (!c.patch) c.patch = 16;
    if (!c.stride) c.stride = c.patch > 1 ? c.patch / 2 : 1;
    if (c.lookback < 1 || c.horizon < 1 || c.patch < 1 || c.stride < 1 || c.patch > c.lookback) {
        nsm_error_set(ctx, NSM_EINVAL,
                      "nsm_forecaster_new: look-back %d, horizon %d, patch %d, stride %d: all "
                      "above 0, the patch within the look-back",
                      c.lookback, c.horizon, c.patch, c.stride);
        return NULL;
    }
    nsm_forecaster *f = nsmi_calloc(ctx, 1, sizeof *f);
    if (!f) return NULL;
    nsm_module_init(&f->module, ctx);
    f->config = c;
    f->tokens = (c.lookback - c.patch) / c.stride + 2;
    make(f);
    if (!nsmi_failed(ctx)) return f;
    nsm_forecaster_free(f);
    return NULL;
}

void nsm_forecaster_free(nsm_forecaster *f)
{
    if (!f) return;
    nsm_backbone_free(f->layers);
    nsm_module_clear(&f->module);
    free(f);
}

nsm_module *nsm_forecaster_module(nsm_forecaster *f) { return f ? &f->module : NULL; }

/* z [B, L] -> [B, N, P]: places in z, of which the last is repeated as often as the last patch
 * needs. */
static nsm_tensor *patches_of(nsm_tape *tape, const nsm_forecaster *f, nsm_tensor *z)
{
    const nsm_forecaster_config *c = &f->config;
    nsm_ctx *ctx = f->module.ctx;
    if (!z) return NULL;
    int64_t rows = z->dim[0], size = (int64_t)f->tokens * c->patch;
    int32_t *at = nsmi_malloc(ctx, (size_t)(rows * size) * sizeof *at);
    nsm_tensor *y = NULL;
    for (int64_t i = 0; at && i < rows * size; i++) {
        int64_t place = i % size / c->patch * c->stride + i % c->patch;
        at[i] = (int32_t)(i / size * c->lookback + (place < c->lookback ? place : c->lookback - 1));
    }
    if (at) {
        nsm_tensor *index = nsm_tape_constant(tape, NSM_I32, 3,
                                              (int64_t[]){ rows, f->tokens, c->patch }, at);
        y = nsm_gather(tape, nsm_reshape(tape, z, 2, (int64_t[]){ rows * c->lookback, 1 }), index);
    }
    free(at);
    return y ? nsm_reshape(tape, y, 3, (int64_t[]){ rows, f->tokens, c->patch }) : NULL;
}

/* Patches [B, N, P] -> [B, T], still standardised. */
static nsm_tensor *through(nsm_tape *tape, nsm_forecaster *f, nsm_tensor *p)
{
    const nsm_backbone_config *c = nsm_backbone_settings(f->layers);
    nsm_tensor *x = nsm_add(tape, nsm_linear(tape, p, f->patch, f->patch_bias), f->position);
    x = nsm_backbone_layers(tape, f->layers, nsm_dropout(tape, x, c->dropout), NULL, NULL);
    x = c->rms_norm ? nsm_rms_norm(tape, x, f->norm, 1, c->eps)
                    : nsm_layer_norm(tape, x, f->norm, f->norm_bias, 1, c->eps);
    if (!x) return NULL;
    return nsm_linear(tape, nsm_reshape(tape, x, 2, (int64_t[]){ x->dim[0], -1 }), f->head,
                      f->head_bias);
}

nsm_tensor *nsm_forecaster_apply(nsm_tape *tape, nsm_forecaster *f, nsm_tensor *x)
{
    char shape[96];
    if (!tape || !f || !x || nsmi_failed(f->module.ctx)) return NULL;
    if (x->type != NSM_F32 || x->rank != 2 || x->dim[1] != f->config.lookback) {
        nsm_error_set(f->module.ctx, NSM_ESHAPE,
                      "nsm_forecaster: the input is %s %s, want float32 [B,%d]",
                      nsm_type_name(x->type), nsm_shape_text(x, shape), f->config.lookback);
        return NULL;
    }
    nsm_tensor *seen = nsm_detach(tape, x), *mean = nsm_mean(tape, seen, 1, true),
               *z = nsm_sub(tape, seen, mean);
    nsm_tensor *deviation = nsm_sqrt(
        tape, nsm_scale(tape, nsm_mean(tape, nsm_square(tape, z), 1, true), 1, least_variance));
    nsm_tensor *y = through(tape, f, patches_of(tape, f, nsm_div(tape, z, deviation)));
    return nsm_add(tape, nsm_mul(tape, y, deviation), mean);
}
