/* vision/image.c - See image.h. */
#include "config.h"
#include "vision/image.h"
#include "vision/internal.h"

typedef struct {
    nsm_tensor *weight, *bias, *norm_weight, *norm_bias, *mean, *var;
} layer;

struct nsm_image {
    nsm_module module;
    nsm_image_config config;
    layer layer[NSM_IMAGE_LAYERS];
    nsm_tensor *proj, *proj_bias, *place;
    int64_t height, width, features; /* h, w, d */
};

static int or_else(int value, int usual) { return value ? value : usual; }

static nsm_image_config with_defaults(const nsm_image_config *config)
{
    nsm_image_config c = *config;
    c.layers = or_else(c.layers, 4);
    for (int k = 0; k < NSM_IMAGE_LAYERS; k++) {
        c.filters[k] = or_else(c.filters[k], 24);
        c.stride[k] = or_else(c.stride[k], 2);
    }
    c.kernel = or_else(c.kernel, 3);
    c.groups = or_else(c.groups, 4);
    c.act = c.act ? c.act : NSM_ACT_RELU;
    c.momentum = c.momentum != 0 ? c.momentum : 0.1f;
    c.eps = c.eps != 0 ? c.eps : 1e-5f;
    return c;
}

static bool config_ok(nsm_ctx *ctx, const nsm_image_config *c)
{
    bool ok = c->channels > 0 && c->height > 0 && c->width > 0 && c->layers > 0 &&
              c->layers <= NSM_IMAGE_LAYERS && c->kernel > 0 && c->kernel % 2 && c->groups > 0 &&
              c->features >= 0 && (unsigned)c->norm <= NSM_IMAGE_NO_NORM &&
              (unsigned)c->act < NSM_ACTS && (unsigned)c->place < NSM_PLACES && c->eps > 0 &&
              c->momentum > 0;
    for (int k = 0; ok && k < c->layers; k++)
        ok = c->filters[k] > 0 && c->stride[k] > 0 &&
             (c->norm != NSM_IMAGE_GROUP_NORM || c->filters[k] % c->groups == 0);
    if (!ok)
        nsm_error_set(
            ctx, NSM_EINVAL,
            "nsm_image_new: images of %d x %d x %d, %d layers, kernel %d, %d groups: want "
            "sizes above 0, at most %d layers, an odd kernel, groups that divide filters",
            c->channels, c->height, c->width, c->layers, c->kernel, c->groups, NSM_IMAGE_LAYERS);
    return ok;
}

static nsm_tensor *named(nsm_image *m, const char *part, int k, const char *what, bool buffer,
                         int rank, const int64_t *dim)
{
    char name[48];
    snprintf(name, sizeof name, "%s%d.%s", part, k, what);
    return (buffer ? nsm_module_buffer : nsm_module_param)(&m->module, name, rank, dim);
}

static void fill(nsm_tensor *t, float value)
{
    if (t) nsm_tensor_fill(t, value);
}

static void make_layer(nsm_image *m, int k)
{
    const nsm_image_config *c = &m->config;
    layer *l = &m->layer[k];
    int64_t f = c->filters[k],
            dim[4] = { f, k ? c->filters[k - 1] : c->channels, c->kernel, c->kernel };
    l->weight = named(m, "conv", k, "weight", false, 4, dim);
    if (l->weight) nsm_init_kaiming_normal(l->weight, 0);
    if (c->norm == NSM_IMAGE_NO_NORM) {
        l->bias = named(m, "conv", k, "bias", false, 1, &f);
        return;
    }
    l->norm_weight = named(m, "norm", k, "weight", false, 1, &f);
    l->norm_bias = named(m, "norm", k, "bias", false, 1, &f);
    fill(l->norm_weight, 1);
    if (c->norm != NSM_IMAGE_BATCH_NORM) return;
    l->mean = named(m, "norm", k, "running_mean", true, 1, &f);
    l->var = named(m, "norm", k, "running_var", true, 1, &f);
    fill(l->var, 1);
}

static void make_head(nsm_image *m)
{
    const nsm_image_config *c = &m->config;
    int64_t f = c->filters[c->layers - 1] + (c->place == NSM_PLACE_APPENDED ? 2 : 0),
            dim[2] = { c->features, f };
    m->features = c->features ? c->features : f;
    if (c->features) {
        m->proj = nsm_module_param(&m->module, "proj.weight", 2, dim);
        m->proj_bias = nsm_module_param(&m->module, "proj.bias", 1, dim);
        if (m->proj) nsm_init_glorot_uniform(m->proj, 1);
    }
    if (c->place != NSM_PLACE_LEARNED) return;
    m->place = nsm_module_param(&m->module, "place", 2,
                                (const int64_t[]){ m->height * m->width, m->features });
    if (m->place) nsm_init_normal(m->place, 0, 0.02f);
}

nsm_image *nsm_image_new(nsm_ctx *ctx, const nsm_image_config *config)
{
    nsm_image_config c = config ? with_defaults(config) : (nsm_image_config){ 0 };
    if (nsmi_failed(ctx) || !config_ok(ctx, &c)) return NULL;
    nsm_image *m = nsmi_calloc(ctx, 1, sizeof *m);
    if (!m) return NULL;
    m->config = c;
    m->height = c.height;
    m->width = c.width;
    nsm_module_init(&m->module, ctx);
    for (int k = 0; k < c.layers; k++) {
        make_layer(m, k);
        m->height = (m->height - 1) / c.stride[k] + 1;
        m->width = (m->width - 1) / c.stride[k] + 1;
    }
    make_head(m);
    if (!nsmi_failed(ctx)) return m;
    nsm_image_free(m);
    return NULL;
}

void nsm_image_free(nsm_image *m)
{
    if (!m) return;
    nsm_module_clear(&m->module);
    free(m);
}

nsm_module *nsm_image_module(nsm_image *m) { return m ? &m->module : NULL; }

void nsm_image_grid(const nsm_image *m, int64_t *height, int64_t *width)
{
    *height = m->height;
    *width = m->width;
}

int64_t nsm_image_features(const nsm_image *m) { return m->features; }

static nsm_tensor *normed(nsm_tape *tape, const nsm_image_config *c, const layer *l, nsm_tensor *x)
{
    const nsm_batch_stats s = { l->mean, l->var, c->momentum, c->eps, nsm_tape_training(tape) };
    switch (c->norm) {
    case NSM_IMAGE_BATCH_NORM: return nsm_batch_norm(tape, x, l->norm_weight, l->norm_bias, &s);
    case NSM_IMAGE_LAYER_NORM:
        return nsm_layer_norm_axis(tape, x, l->norm_weight, l->norm_bias, 1, c->eps);
    case NSM_IMAGE_GROUP_NORM:
        return nsm_group_norm(tape, x, l->norm_weight, l->norm_bias, c->groups, c->eps);
    default: return x;
    }
}

nsm_tensor *nsm_image_apply(nsm_tape *tape, nsm_image *m, nsm_tensor *x)
{
    if (!tape || !m || !x || nsmi_failed(m->module.ctx)) return NULL;
    const nsm_image_config *c = &m->config;
    if (!nsmi_want_images("nsm_image_apply", x, c->channels, c->height, c->width)) return NULL;
    for (int k = 0; k < c->layers; k++) {
        const layer *l = &m->layer[k];
        nsm_conv2d_config conv = { .stride = { c->stride[k], c->stride[k] },
                                   .padding = { c->kernel / 2, c->kernel / 2 } };
        float a, b;
        nsm_act_constants(c->act, &a, &b);
        nsm_tensor *y = nsm_conv2d(tape, x, l->weight, l->bias, &conv), *z = normed(tape, c, l, y);
        x = nsm_activate(tape, z, NULL, c->act, a, b, 0);
        if (y != z) nsm_tape_drop(tape, y);
        nsm_tape_drop(tape, z);
    }
    x = nsmi_elements(tape, x);
    if (c->place == NSM_PLACE_APPENDED) x = nsmi_append_places(tape, x, m->height, m->width);
    if (m->proj) x = nsm_linear(tape, x, m->proj, m->proj_bias);
    return m->place ? nsm_add(tape, x, m->place) : x;
}
