/* fusion/perceiver.c - See perceiver.h. */
#include "config.h"
#include "fusion/parts.h"
#include "fusion/perceiver.h"
#include "seq/internal.h"

enum { MOST = 1 << 20, MOST_LAYERS = 1024 }; /* what a size of a configuration may be */

/* ---- one layer ---- */
struct nsm_perceiver_layer {
    nsm_module module;
    nsm_perceiver_layer_config config;
    nsmi_pair norm1, norm2, query, key, value, out, norm, dense1, dense2;
};

static bool layer_ok(nsm_ctx *ctx, const nsm_perceiver_layer_config *c)
{
    bool ok = c->width > 0 && c->width <= MOST && c->context >= 0 && c->context <= MOST &&
              c->heads > 0 && c->qk_channels > 0 && c->qk_channels <= MOST && c->v_channels > 0 &&
              c->v_channels <= MOST && c->qk_channels % c->heads == 0 &&
              c->v_channels % c->heads == 0 && c->widening > 0 && c->widening <= MOST && c->eps > 0;
    if (!ok)
        nsm_error_set(
            ctx, NSM_EINVAL,
            "nsm_perceiver_layer_new: width %d, context %d, %d heads, %d channels of "
            "queries and keys, %d of values, widening %d, eps %g; want sizes in 1..%d and "
            "heads that divide the channels",
            c->width, c->context, c->heads, c->qk_channels, c->v_channels, c->widening,
            (double)c->eps, MOST);
    return ok;
}

static void layer_make(nsm_perceiver_layer *l)
{
    const nsm_perceiver_layer_config *c = &l->config;
    nsm_module *m = &l->module;
    int64_t from = c->context ? c->context : c->width, inner = (int64_t)c->widening * c->width;
    l->norm1 = nsmi_norm_new(m, "attention.self.layernorm1", c->width);
    if (c->context) l->norm2 = nsmi_norm_new(m, "attention.self.layernorm2", c->context);
    l->query = nsmi_linear_new(m, "attention.self.query", c->qk_channels, c->width, true);
    l->key = nsmi_linear_new(m, "attention.self.key", c->qk_channels, from, true);
    l->value = nsmi_linear_new(m, "attention.self.value", c->v_channels, from, true);
    l->out = nsmi_linear_new(m, "attention.output.dense", c->width, c->v_channels, true);
    l->norm = nsmi_norm_new(m, "layernorm", c->width);
    l->dense1 = nsmi_linear_new(m, "mlp.dense1", inner, c->width, true);
    l->dense2 = nsmi_linear_new(m, "mlp.dense2", c->width, inner, true);
}

nsm_perceiver_layer *nsm_perceiver_layer_new(nsm_ctx *ctx, const nsm_perceiver_layer_config *config)
{
    if (nsmi_failed(ctx)) return NULL;
    nsm_perceiver_layer_config c = *config;
    if (!c.heads) c.heads = 8;
    if (!c.qk_channels) c.qk_channels = c.context ? c.context : c.width;
    if (!c.v_channels) c.v_channels = c.qk_channels;
    if (!c.widening) c.widening = 1;
    if (c.eps == 0) c.eps = 1e-5f;
    nsm_perceiver_layer *l = layer_ok(ctx, &c) ? nsmi_calloc(ctx, 1, sizeof *l) : NULL;
    if (!l) return NULL;
    nsm_module_init(&l->module, ctx);
    l->config = c;
    layer_make(l);
    if (!nsmi_failed(ctx)) return l;
    nsm_perceiver_layer_free(l);
    return NULL;
}

void nsm_perceiver_layer_free(nsm_perceiver_layer *l)
{
    if (l) nsm_module_clear(&l->module);
    free(l);
}

nsm_module *nsm_perceiver_layer_module(nsm_perceiver_layer *l) { return l ? &l->module : NULL; }

static bool is_set(const nsm_tensor *x, int64_t batch, int64_t width)
{
    return x->type == NSM_F32 && x->rank == 3 && x->dim[0] == batch && x->dim[1] > 0 &&
           x->dim[2] == width;
}

static bool layer_call_ok(const nsm_perceiver_layer *l, const nsm_tensor *x, const nsm_tensor *c,
                          const nsm_tensor *shut)
{
    const nsm_perceiver_layer_config *k = &l->config;
    char shape[3][96];
    bool ok = is_set(x, x->dim[0], k->width) && !c == !k->context &&
              (!c || is_set(c, x->dim[0], k->context)) &&
              (!shut || (shut->type == NSM_F32 && shut->rank == 2 && shut->dim[0] == x->dim[0] &&
                         shut->dim[1] == (c ? c : x)->dim[1]));
    if (!ok)
        nsm_error_set(l->module.ctx, NSM_ESHAPE,
                      "nsm_perceiver_layer_apply: x is %s, context %s, shut %s; want [B,n,%d], "
                      "[B,m,%d] (0: none), [B,m]",
                      nsm_shape_text(x, shape[0]), c ? nsm_shape_text(c, shape[1]) : "none",
                      shut ? nsm_shape_text(shut, shape[2]) : "none", k->width, k->context);
    return ok;
}

/* The mean of the heads: [B, H, n, m] -> [B, n, m]. */
static nsm_tensor *seen_by(nsm_tape *tape, nsm_tensor *q, nsm_tensor *k, nsm_tensor *shut)
{
    return nsm_mean(tape,
                    nsmi_attention_weights(tape, nsm_detach(tape, q), nsm_detach(tape, k), NULL,
                                           shut),
                    1, false);
}

nsm_tensor *nsm_perceiver_layer_apply(nsm_tape *tape, nsm_perceiver_layer *l, nsm_tensor *x,
                                      nsm_tensor *context, nsm_tensor *shut, nsm_tensor **seen)
{
    if (!tape || !l || !x || nsmi_failed(l->module.ctx) || !layer_call_ok(l, x, context, shut))
        return NULL;
    const nsm_perceiver_layer_config *c = &l->config;
    nsm_tensor *a = nsmi_normed(tape, l->norm1, x, c->eps);
    nsm_tensor *from = context ? nsmi_normed(tape, l->norm2, context, c->eps) : a;
    nsm_tensor *q = nsmi_split_heads(tape, nsmi_mapped(tape, l->query, a), c->heads);
    nsm_tensor *k = nsmi_split_heads(tape, nsmi_mapped(tape, l->key, from), c->heads);
    nsm_tensor *v = nsmi_split_heads(tape, nsmi_mapped(tape, l->value, from), c->heads);
    nsm_tensor *bias = shut ? nsm_reshape(tape, shut, 4,
                                          (int64_t[]){ x->dim[0], 1, 1, shut->dim[1] })
                            : NULL;
    nsm_tensor *y = nsm_dot_attention(tape, q, k, v, &(nsm_dot_attention_config){ .bias = bias });
    if (seen) *seen = seen_by(tape, q, k, shut);
    y = nsmi_mapped(tape, l->out, nsmi_join_last(tape, y));
    if (!c->no_residual) y = nsm_add(tape, x, y);
    nsm_tensor *h = nsm_gelu(tape,
                             nsmi_mapped(tape, l->dense1, nsmi_normed(tape, l->norm, y, c->eps)));
    return nsm_add(tape, y, nsmi_mapped(tape, l->dense2, h));
}

/* ---- the whole ---- */
struct nsm_perceiver {
    nsm_module module;
    nsm_perceiver_config config;
    nsm_tensor *latents, *queries;
    nsm_perceiver_layer *cross, **self, *decoder;
    nsmi_pair final;
};

static nsm_perceiver_layer *layer_new(nsm_perceiver *p, const char *name,
                                      nsm_perceiver_layer_config c)
{
    c.eps = p->config.eps;
    nsm_perceiver_layer *l = nsm_perceiver_layer_new(p->module.ctx, &c);
    if (l) nsm_module_child(&p->module, name, &l->module);
    return l;
}

static void make_encoder(nsm_perceiver *p)
{
    const nsm_perceiver_config *c = &p->config;
    nsm_module *m = &p->module;
    char name[64];
    p->latents = nsm_module_param(m, "embeddings.latents", 2, (int64_t[]){ c->latents, c->width });
    nsm_init_normal(p->latents, 0, 1);
    p->cross = layer_new(p, "encoder.cross_attention",
                         (nsm_perceiver_layer_config){ .width = c->width,
                                                       .context = c->inputs,
                                                       .heads = c->cross_heads,
                                                       .qk_channels = c->qk_channels,
                                                       .v_channels = c->v_channels,
                                                       .widening = c->cross_widening });
    p->self = nsmi_calloc(m->ctx, (size_t)c->layers, sizeof *p->self);
    for (int i = 0; p->self && i < c->layers && !nsmi_failed(m->ctx); i++) {
        snprintf(name, sizeof name, "encoder.self_attends.%d", i);
        p->self[i] = layer_new(p, name,
                               (nsm_perceiver_layer_config){ .width = c->width,
                                                             .heads = c->self_heads,
                                                             .qk_channels = c->qk_channels,
                                                             .v_channels = c->v_channels,
                                                             .widening = c->self_widening });
    }
}

static void make_decoder(nsm_perceiver *p)
{
    const nsm_perceiver_config *c = &p->config;
    if (c->queries) {
        p->queries = nsm_module_param(&p->module,
                                      "decoder.output_position_encodings.position_embeddings", 2,
                                      (int64_t[]){ c->queries, c->query });
        nsm_init_normal(p->queries, 0, 1);
    }
    p->decoder = layer_new(p, "decoder.decoding_cross_attention",
                           (nsm_perceiver_layer_config){ .width = c->query,
                                                         .context = c->width,
                                                         .heads = c->decoder_heads,
                                                         .qk_channels = c->decoder_qk_channels,
                                                         .v_channels = c->decoder_v_channels,
                                                         .widening = c->decoder_widening,
                                                         .no_residual = !c->decoder_residual });
    if (c->outputs)
        p->final = nsmi_linear_new(&p->module, "decoder.final_layer", c->outputs, c->query, true);
}

static bool config_ok(nsm_ctx *ctx, const nsm_perceiver_config *c)
{
    bool ok = c->inputs > 0 && c->latents > 0 && c->latents <= MOST && c->width > 0 &&
              c->layers > 0 && c->layers <= MOST_LAYERS && c->blocks > 0 &&
              c->blocks <= MOST_LAYERS && c->query >= 0 && c->queries >= 0 && c->queries <= MOST &&
              c->outputs >= 0 && c->outputs <= MOST;
    if (!ok)
        nsm_error_set(
            ctx, NSM_EINVAL,
            "nsm_perceiver_new: %d inputs, %d latents of width %d, %d layers %d times, "
            "queries of width %d, %d learned, %d outputs; want inputs, latents and width, "
            "and at most %d layers and times",
            c->inputs, c->latents, c->width, c->layers, c->blocks, c->query, c->queries, c->outputs,
            MOST_LAYERS);
    return ok;
}

nsm_perceiver *nsm_perceiver_new(nsm_ctx *ctx, const nsm_perceiver_config *config)
{
    if (nsmi_failed(ctx)) return NULL;
    nsm_perceiver_config c = *config;
    if (!c.layers) c.layers = 1;
    if (!c.blocks) c.blocks = 1;
    nsm_perceiver *p = config_ok(ctx, &c) ? nsmi_calloc(ctx, 1, sizeof *p) : NULL;
    if (!p) return NULL;
    nsm_module_init(&p->module, ctx);
    p->config = c;
    make_encoder(p);
    if (c.query) make_decoder(p);
    if (!nsmi_failed(ctx)) return p;
    nsm_perceiver_free(p);
    return NULL;
}

void nsm_perceiver_free(nsm_perceiver *p)
{
    if (!p) return;
    nsm_perceiver_layer_free(p->cross);
    for (int i = 0; p->self && i < p->config.layers; i++) nsm_perceiver_layer_free(p->self[i]);
    nsm_perceiver_layer_free(p->decoder);
    nsm_module_clear(&p->module);
    free(p->self);
    free(p);
}

nsm_module *nsm_perceiver_module(nsm_perceiver *p) { return p ? &p->module : NULL; }

nsm_tensor *nsm_perceiver_encode(nsm_tape *tape, nsm_perceiver *p, nsm_tensor *x, nsm_tensor *shut,
                                 nsm_tensor **seen)
{
    if (!tape || !p || !x || nsmi_failed(p->module.ctx)) return NULL;
    const nsm_perceiver_config *c = &p->config;
    nsm_tensor *z = nsmi_for_each(tape, p->latents, x->dim[0]);
    z = nsm_perceiver_layer_apply(tape, p->cross, z, x, shut, seen);
    for (int i = 0; i < c->blocks * c->layers && z; i++)
        z = nsm_perceiver_layer_apply(tape, p->self[i % c->layers], z, NULL, NULL, NULL);
    return z;
}

nsm_tensor *nsm_perceiver_decode(nsm_tape *tape, nsm_perceiver *p, nsm_tensor *latents,
                                 nsm_tensor *query, nsm_tensor *shut, nsm_tensor **seen)
{
    if (!tape || !p || !latents || nsmi_failed(p->module.ctx)) return NULL;
    if (!p->decoder || (!query && !p->queries)) {
        nsm_error_set(p->module.ctx, NSM_EINVAL, "nsm_perceiver_decode: there is no %s",
                      p->decoder ? "query, and none was learned" : "decoder");
        return NULL;
    }
    if (!query) query = nsmi_for_each(tape, p->queries, latents->dim[0]);
    nsm_tensor *y = nsm_perceiver_layer_apply(tape, p->decoder, query, latents, shut, seen);
    return p->final.w ? nsmi_mapped(tape, p->final, y) : y;
}
