/* graph/gat.c - See gat.h. */
#include "config.h"
#include "graph/gat.h"
#include "graph/internal.h"

struct nsm_gat {
    nsm_module module;
    nsm_gat_config config;
    nsm_tensor *weight;                       /* [H*D, F] */
    nsm_tensor *att_src, *att_dst;            /* [H, D] */
    nsm_tensor *edge_weight, *att_edge;       /* [H*D, K], [H, D] or NULL */
    nsm_tensor *residual;                     /* [H*D or D, F] or NULL */
    nsm_tensor *bias;                         /* [H*D or D] or NULL */
};

static bool config_ok(nsm_ctx *ctx, const nsm_gat_config *c)
{
    if (c->in_channels > 0 && c->out_channels > 0 && c->heads > 0 && c->edge_dim >= 0 &&
        c->dropout >= 0 && c->dropout < 1 && c->attn_dropout >= 0 && c->attn_dropout < 1)
        return true;
    nsm_error_set(ctx, NSM_EINVAL,
                  "nsm_gat_new: in_channels is %d, out_channels %d, heads %d, edge_dim %d, dropout "
                  "%g, attn_dropout %g; "
                  "want sizes > 0, edge_dim >= 0, dropouts in [0,1)",
                  c->in_channels, c->out_channels, c->heads, c->edge_dim, (double)c->dropout,
                  (double)c->attn_dropout);
    return false;
}

static void make_parameters(nsm_gat *gat)
{
    nsm_module *m = &gat->module;
    const nsm_gat_config *c = &gat->config;
    int64_t h = c->heads, d = c->out_channels, width = c->average ? d : h * d;
    gat->weight = nsm_module_param(m, "lin.weight", 2, (int64_t[]){ h * d, c->in_channels });
    gat->att_src = nsm_module_param(m, "att_src", 2, (int64_t[]){ h, d });
    gat->att_dst = nsm_module_param(m, "att_dst", 2, (int64_t[]){ h, d });
    nsm_init_glorot_uniform(gat->weight, 1);
    nsm_init_glorot_uniform(gat->att_src, 1);
    nsm_init_glorot_uniform(gat->att_dst, 1);
    if (c->edge_dim) {
        gat->edge_weight = nsm_module_param(m, "lin_edge.weight", 2,
                                            (int64_t[]){ h * d, c->edge_dim });
        gat->att_edge = nsm_module_param(m, "att_edge", 2, (int64_t[]){ h, d });
        nsm_init_glorot_uniform(gat->edge_weight, 1);
        nsm_init_glorot_uniform(gat->att_edge, 1);
    }
    if (c->residual) {
        gat->residual = nsm_module_param(m, "res.weight", 2, (int64_t[]){ width, c->in_channels });
        nsm_init_glorot_uniform(gat->residual, 1);
    }
    if (!c->no_bias) gat->bias = nsm_module_param(m, "bias", 1, &width);
}

nsm_gat *nsm_gat_new(nsm_ctx *ctx, const nsm_gat_config *config)
{
    if (nsmi_failed(ctx)) return NULL;
    nsm_gat_config c = *config;
    if (c.heads == 0) c.heads = 1;
    if (c.negative_slope == 0) c.negative_slope = 0.2f;
    if (!config_ok(ctx, &c)) return NULL;
    nsm_gat *gat = nsmi_calloc(ctx, 1, sizeof *gat);
    if (!gat) return NULL;
    gat->config = c;
    nsm_module_init(&gat->module, ctx);
    make_parameters(gat);
    if (!nsmi_failed(ctx)) return gat;
    nsm_gat_free(gat);
    return NULL;
}

void nsm_gat_free(nsm_gat *gat)
{
    if (!gat) return;
    nsm_module_clear(&gat->module);
    free(gat);
}

nsm_module *nsm_gat_module(nsm_gat *gat) { return gat ? &gat->module : NULL; }

/* x [.., F] -> a[h] . W[h] x for every head [.., H], by way of W^T a [H, F] */
static nsm_tensor *scores(nsm_tape *tape, const nsm_gat_config *c, nsm_tensor *w, nsm_tensor *a,
                          nsm_tensor *x)
{
    int64_t h = c->heads, d = c->out_channels, f = w->dim[1];
    nsm_tensor *by_head = nsm_reshape(tape, w, 3, (int64_t[]){ h, d, f });
    /* [H, 1, F] */
    nsm_tensor *u = nsm_bmm(tape, nsm_reshape(tape, a, 3, (int64_t[]){ h, 1, d }), by_head, false,
                            false);
    return nsm_linear(tape, x, nsm_reshape(tape, u, 2, (int64_t[]){ h, f }), NULL);
}

/* Scores of the edges in csr order [nnz, H], or NULL where there are no edge features. */
static nsm_tensor *edge_scores(nsm_tape *tape, const nsm_gat *gat, const nsm_graph *g,
                               nsm_tensor *edge)
{
    const nsm_gat_config *c = &gat->config;
    if (!c->edge_dim) return NULL;
    if (!edge) {
        nsm_error_set(g->ctx, NSM_EINVAL,
                      "nsm_gat_apply: the layer wants %d edge features and the graph has none",
                      c->edge_dim);
        return NULL;
    }
    if (!nsmi_want("nsm_gat_apply", "edge", edge, g->edges, c->edge_dim)) return NULL;
    nsm_tensor *s = scores(tape, c, gat->edge_weight, gat->att_edge, edge);
    nsm_tensor *in_order = nsmi_edge_values(tape, g, !c->no_self_loops, s);
    nsm_tape_drop(tape, s);
    return in_order;
}

nsm_tensor *nsm_gat_apply(nsm_tape *tape, nsm_gat *gat, const nsm_graph *g, nsm_tensor *x,
                          nsm_tensor *edge, nsm_attention *attention)
{
    if (attention) *attention = (nsm_attention){ 0 };
    if (!tape || !gat || !g || !x || nsmi_failed(gat->module.ctx)) return NULL;
    const nsm_gat_config *c = &gat->config;
    if (!nsmi_graph_covers("nsm_gat_apply", g) ||
        !nsmi_want("nsm_gat_apply", "x", x, g->sources, c->in_channels))
        return NULL;
    const nsm_csr *m = c->no_self_loops ? g->csr : nsmi_graph_loops(g);
    nsm_tensor *e = edge_scores(tape, gat, g, edge ? edge : g->feature);
    nsm_tensor *h = nsm_linear(tape, x, gat->weight, NULL); /* [m, H*D] */
    nsm_tensor *src = scores(tape, c, gat->weight, gat->att_src, x);
    nsm_tensor *dst = scores(tape, c, gat->weight, gat->att_dst, x);
    nsm_tensor *y = nsmi_failed(g->ctx)
                        ? NULL
                        : nsm_gat_attention(tape, m, c->heads, c->negative_slope, c->attn_dropout,
                                            h, src, dst, e, attention ? &attention->prob : NULL);
    nsm_tape_drop(tape, h);
    nsm_tape_drop(tape, src);
    nsm_tape_drop(tape, dst);
    nsm_tape_drop(tape, e);
    if (attention) attention->csr = m;
    y = nsmi_join_heads(tape, y, c->heads, c->average);
    if (gat->residual)
        y = nsmi_add_residual(tape, y, nsmi_first_rows(tape, x, g->nodes), gat->residual);
    return nsmi_finish(tape, y, gat->bias, c->act, c->act_a, c->act_b, c->dropout);
}
