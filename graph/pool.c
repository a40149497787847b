/* graph/pool.c - See pool.h.  A graph's nodes are a row of g->member, so pooling is a sparse
 * product; back to the nodes is a gather by g->graph_of. */
#include "config.h"
#include "graph/internal.h"
#include "graph/pool.h"

/* The rows of nodes; a graph that is no batch becomes a batch of one. */
static const nsm_csr *members(nsm_graph *g)
{
    if (nsmi_failed(g->ctx)) return NULL;
    if (!g->member) {
        int32_t *none = nsmi_calloc(g->ctx, (size_t)g->nodes, sizeof *none);
        if (none) nsm_graph_set_members(g, 1, none);
        free(none);
    }
    return g->member;
}

static nsm_tensor *pool(nsm_tape *tape, nsm_graph *g, nsm_tensor *x, bool mean)
{
    const nsm_csr *m = tape && g && x ? members(g) : NULL;
    return m ? nsm_spmm(tape, m, NULL, mean, x) : NULL;
}

nsm_tensor *nsm_pool_sum(nsm_tape *tape, nsm_graph *g, nsm_tensor *x)
{
    return pool(tape, g, x, false);
}
nsm_tensor *nsm_pool_mean(nsm_tape *tape, nsm_graph *g, nsm_tensor *x)
{
    return pool(tape, g, x, true);
}

nsm_tensor *nsm_pool_max(nsm_tape *tape, nsm_graph *g, nsm_tensor *x)
{
    const nsm_csr *m = tape && g && x ? members(g) : NULL;
    return m ? nsm_spmm_max(tape, m, x) : NULL;
}

/* ---- attentional pooling ---- */
struct nsm_attention_pool {
    nsm_module module;
    nsm_attention_pool_config config;
    nsm_tensor *gate_weight, *gate_bias, *weight, *bias;
};

static nsm_tensor *uniform(nsm_module *m, const char *name, int rank, int64_t out, int64_t in)
{
    float bound = 1 / sqrtf((float)in);
    nsm_tensor *t = nsm_module_param(m, name, rank, (int64_t[]){ out, in });
    nsm_init_uniform(t, -bound, bound);
    return t;
}

nsm_attention_pool *nsm_attention_pool_new(nsm_ctx *ctx, const nsm_attention_pool_config *c)
{
    if (nsmi_failed(ctx)) return NULL;
    if (c->in_channels <= 0 || c->out_channels <= 0) {
        nsm_error_set(ctx, NSM_EINVAL,
                      "nsm_attention_pool_new: in_channels is %d, out_channels %d, want sizes > 0",
                      c->in_channels, c->out_channels);
        return NULL;
    }
    nsm_attention_pool *p = nsmi_calloc(ctx, 1, sizeof *p);
    if (!p) return NULL;
    p->config = *c;
    nsm_module_init(&p->module, ctx);
    int64_t gates = c->by_feature ? c->out_channels : 1;
    p->gate_weight = uniform(&p->module, "gate_nn.weight", 2, gates, c->in_channels);
    p->gate_bias = uniform(&p->module, "gate_nn.bias", 1, gates, c->in_channels);
    p->weight = uniform(&p->module, "nn.weight", 2, c->out_channels, c->in_channels);
    p->bias = uniform(&p->module, "nn.bias", 1, c->out_channels, c->in_channels);
    if (!nsmi_failed(ctx)) return p;
    nsm_attention_pool_free(p);
    return NULL;
}

void nsm_attention_pool_free(nsm_attention_pool *p)
{
    if (!p) return;
    nsm_module_clear(&p->module);
    free(p);
}

nsm_module *nsm_attention_pool_module(nsm_attention_pool *p) { return p ? &p->module : NULL; }

nsm_tensor *nsm_attention_pool_apply(nsm_tape *tape, nsm_attention_pool *p, nsm_graph *g,
                                     nsm_tensor *x)
{
    if (!tape || !p || !g || !x || nsmi_failed(p->module.ctx)) return NULL;
    if (!nsmi_want("nsm_attention_pool_apply", "x", x, g->nodes, p->config.in_channels))
        return NULL;
    const nsm_csr *m = members(g);
    if (!m) return NULL;
    nsm_tensor *in_order = nsm_gather(tape, x, g->member_node); /* a graph's nodes together */
    nsm_tensor *gate = nsm_segment_softmax(tape, m,
                                           nsm_linear(tape, in_order, p->gate_weight,
                                                      p->gate_bias));
    return nsm_segment_sum(tape, m,
                           nsm_mul(tape, gate, nsm_linear(tape, in_order, p->weight, p->bias)));
}

/* ---- GraphNorm ---- */
struct nsm_graph_norm {
    nsm_module module;
    nsm_tensor *weight, *bias, *mean_scale;
    int channels;
    float eps;
};

nsm_graph_norm *nsm_graph_norm_new(nsm_ctx *ctx, int channels, float eps)
{
    int64_t c = channels;
    if (nsmi_failed(ctx)) return NULL;
    if (channels <= 0) {
        nsm_error_set(ctx, NSM_EINVAL, "nsm_graph_norm_new: channels is %d, want > 0", channels);
        return NULL;
    }
    nsm_graph_norm *norm = nsmi_calloc(ctx, 1, sizeof *norm);
    if (!norm) return NULL;
    nsm_module_init(&norm->module, ctx);
    norm->channels = channels;
    norm->eps = eps > 0 ? eps : 1e-5f;
    norm->weight = nsm_module_param(&norm->module, "weight", 1, &c);
    norm->bias = nsm_module_param(&norm->module, "bias", 1, &c);
    norm->mean_scale = nsm_module_param(&norm->module, "mean_scale", 1, &c);
    if (norm->weight) nsm_tensor_fill(norm->weight, 1);
    if (norm->mean_scale) nsm_tensor_fill(norm->mean_scale, 1);
    if (!nsmi_failed(ctx)) return norm;
    nsm_graph_norm_free(norm);
    return NULL;
}

void nsm_graph_norm_free(nsm_graph_norm *norm)
{
    if (!norm) return;
    nsm_module_clear(&norm->module);
    free(norm);
}

nsm_module *nsm_graph_norm_module(nsm_graph_norm *norm) { return norm ? &norm->module : NULL; }

nsm_tensor *nsm_graph_norm_apply(nsm_tape *tape, nsm_graph_norm *norm, nsm_graph *g, nsm_tensor *x)
{
    if (!tape || !norm || !g || !x || nsmi_failed(norm->module.ctx)) return NULL;
    if (!nsmi_want("nsm_graph_norm_apply", "x", x, g->nodes, norm->channels) || !members(g))
        return NULL;
    nsm_tensor *shift = nsm_mul(tape, nsm_pool_mean(tape, g, x), norm->mean_scale);  /* [G, F] */
    nsm_tensor *o = nsm_sub(tape, x, nsm_gather(tape, shift, g->graph_of));
    nsm_tensor *var = nsm_pool_mean(tape, g, nsm_square(tape, o));
    /* [G, F] */
    nsm_tensor *scale = nsm_mul(tape, nsm_rsqrt(tape, nsm_scale(tape, var, 1, norm->eps)),
                                norm->weight);
    return nsm_add(tape, nsm_mul(tape, o, nsm_gather(tape, scale, g->graph_of)), norm->bias);
}
