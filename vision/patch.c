/* vision/patch.c - See patch.h. */
#include "config.h"
#include "vision/internal.h"
#include "vision/patch.h"

struct nsm_patch {
    nsm_module module;
    nsm_patch_config config;
    nsm_tensor *weight, *bias, *token, *place;
    int64_t height, width; /* of the grid */
};

static bool config_ok(nsm_ctx *ctx, const nsm_patch_config *c)
{
    if (c->channels > 0 && c->height > 0 && c->width > 0 && c->features > 0 && c->patch[0] > 0 &&
        c->patch[1] > 0 && c->height % c->patch[0] == 0 && c->width % c->patch[1] == 0 &&
        (unsigned)c->place < NSM_PLACES && !(c->class_token && c->place == NSM_PLACE_APPENDED))
        return true;
    nsm_error_set(
        ctx, NSM_EINVAL,
        "nsm_patch_new: images of %d x %d x %d in patches of %d x %d, %d features: want "
        "sizes above 0, patches that divide the image, no class token with appended places",
        c->channels, c->height, c->width, c->patch[0], c->patch[1], c->features);
    return false;
}

static void make(nsm_patch *m)
{
    const nsm_patch_config *c = &m->config;
    const int64_t d = c->features, dim[4] = { d, c->channels, c->patch[0], c->patch[1] },
                  token[3] = { 1, 1, d }, place[3] = { 1, nsm_patch_elements(m), d };
    m->weight = nsm_module_param(&m->module, "projection.weight", 4, dim);
    m->bias = nsm_module_param(&m->module, "projection.bias", 1, &d);
    if (c->class_token) m->token = nsm_module_param(&m->module, "cls_token", 3, token);
    if (c->place == NSM_PLACE_LEARNED)
        m->place = nsm_module_param(&m->module, "position_embeddings", 3, place);
    if (m->weight) nsm_init_normal(m->weight, 0, 0.02f);
    if (m->token) nsm_init_normal(m->token, 0, 0.02f);
    if (m->place) nsm_init_normal(m->place, 0, 0.02f);
}

nsm_patch *nsm_patch_new(nsm_ctx *ctx, const nsm_patch_config *config)
{
    if (nsmi_failed(ctx) || !config_ok(ctx, config)) return NULL;
    nsm_patch *m = nsmi_calloc(ctx, 1, sizeof *m);
    if (!m) return NULL;
    m->config = *config;
    m->height = config->height / config->patch[0];
    m->width = config->width / config->patch[1];
    nsm_module_init(&m->module, ctx);
    make(m);
    if (!nsmi_failed(ctx)) return m;
    nsm_patch_free(m);
    return NULL;
}

void nsm_patch_free(nsm_patch *m)
{
    if (!m) return;
    nsm_module_clear(&m->module);
    free(m);
}

nsm_module *nsm_patch_module(nsm_patch *m) { return m ? &m->module : NULL; }

int64_t nsm_patch_elements(const nsm_patch *m)
{
    return m->height * m->width + (m->config.class_token ? 1 : 0);
}

int64_t nsm_patch_features(const nsm_patch *m)
{
    return m->config.features + (m->config.place == NSM_PLACE_APPENDED ? 2 : 0);
}

/* The class token before the patches of each image. */
static nsm_tensor *with_token(nsm_tape *tape, const nsm_patch *m, nsm_tensor *x)
{
    if (!x || !m->token) return x;
    const int64_t dim[3] = { x->dim[0], 1, x->dim[2] };
    float *zeros = nsmi_calloc(x->ctx, (size_t)(dim[0] * dim[2]), sizeof *zeros);
    nsm_tensor *first = zeros ? nsm_tape_tensor(tape, NSM_F32, 3, dim, zeros) : NULL;
    free(zeros);
    if (!first) return NULL;
    return nsm_concat(tape, (nsm_tensor *[]){ nsm_add(tape, first, m->token), x }, 2, 1);
}

nsm_tensor *nsm_patch_apply(nsm_tape *tape, nsm_patch *m, nsm_tensor *x)
{
    if (!tape || !m || !x || nsmi_failed(m->module.ctx)) return NULL;
    const nsm_patch_config *c = &m->config;
    if (!nsmi_want_images("nsm_patch_apply", x, c->channels, c->height, c->width)) return NULL;
    nsm_tensor *y = nsm_conv2d(tape, x, m->weight, m->bias,
                               &(nsm_conv2d_config){ .stride = { c->patch[0], c->patch[1] } });
    y = with_token(tape, m, nsmi_elements(tape, y));
    if (c->place == NSM_PLACE_APPENDED) return nsmi_append_places(tape, y, m->height, m->width);
    return m->place ? nsm_add(tape, y, m->place) : y;
}
