/* graph/gatv2.c - See gatv2.h. */
#include "config.h"
#include "graph/gatv2.h"
#include "graph/internal.h"

struct nsm_gatv2 {
    nsm_module module;
    nsm_module left, right;                   /* lin_l, lin_r */
    nsm_gatv2_config config;
    nsm_tensor *wl, *bl, *wr, *br;            /* [H*D, F], [H*D] */
    nsm_tensor *att;                          /* [H, D] */
    nsm_tensor *edge_weight;                  /* [H*D, K] or NULL */
    nsm_tensor *residual;                     /* [H*D or D, F] or NULL */
    nsm_tensor *bias;                         /* [H*D or D] or NULL */
};

static bool config_ok(nsm_ctx *ctx, const nsm_gatv2_config *c)
{
    if (c->in_channels > 0 && c->out_channels > 0 && c->heads > 0 && c->edge_dim >= 0 &&
        c->dropout >= 0 && c->dropout < 1 && c->attn_dropout >= 0 && c->attn_dropout < 1)
        return true;
    nsm_error_set(ctx, NSM_EINVAL,
                  "nsm_gatv2_new: in_channels is %d, out_channels %d, heads %d, edge_dim %d, "
                  "dropout %g, attn_dropout %g; "
                  "want sizes > 0, edge_dim >= 0, dropouts in [0,1)",
                  c->in_channels, c->out_channels, c->heads, c->edge_dim, (double)c->dropout,
                  (double)c->attn_dropout);
    return false;
}

/* A linear map's weight, and its bias unless the layer has none. */
static void make_map(nsm_gatv2 *gat, nsm_module *m, nsm_tensor **w, nsm_tensor **b)
{
    const nsm_gatv2_config *c = &gat->config;
    int64_t width = (int64_t)c->heads * c->out_channels;
    float bound = 1 / sqrtf((float)c->in_channels);
    *w = nsm_module_param(m, "weight", 2, (int64_t[]){ width, c->in_channels });
    nsm_init_glorot_uniform(*w, 1);
    if (c->no_bias) return;
    *b = nsm_module_param(m, "bias", 1, &width);
    nsm_init_uniform(*b, -bound, bound);
}

static void make_parameters(nsm_gatv2 *gat)
{
    nsm_module *m = &gat->module;
    const nsm_gatv2_config *c = &gat->config;
    int64_t h = c->heads, d = c->out_channels, width = c->average ? d : h * d;
    make_map(gat, &gat->left, &gat->wl, &gat->bl);
    nsm_module_child(m, "lin_l", &gat->left);
    if (!c->share_weights) {
        make_map(gat, &gat->right, &gat->wr, &gat->br);
        nsm_module_child(m, "lin_r", &gat->right);
    }
    gat->att = nsm_module_param(m, "att", 2, (int64_t[]){ h, d });
    nsm_init_glorot_uniform(gat->att, 1);
    if (c->edge_dim) {
        gat->edge_weight = nsm_module_param(m, "lin_edge.weight", 2,
                                            (int64_t[]){ h * d, c->edge_dim });
        nsm_init_glorot_uniform(gat->edge_weight, 1);
    }
    if (c->residual) {
        gat->residual = nsm_module_param(m, "res.weight", 2, (int64_t[]){ width, c->in_channels });
        nsm_init_glorot_uniform(gat->residual, 1);
    }
    if (!c->no_bias) gat->bias = nsm_module_param(m, "bias", 1, &width);
}

nsm_gatv2 *nsm_gatv2_new(nsm_ctx *ctx, const nsm_gatv2_config *config)
{
    if (nsmi_failed(ctx)) return NULL;
    nsm_gatv2_config c = *config;
    if (c.heads == 0) c.heads = 1;
    if (c.negative_slope == 0) c.negative_slope = 0.2f;
    if (!config_ok(ctx, &c)) return NULL;
    nsm_gatv2 *gat = nsmi_calloc(ctx, 1, sizeof *gat);
    if (!gat) return NULL;
    gat->config = c;
    nsm_module_init(&gat->module, ctx);
    nsm_module_init(&gat->left, ctx);
    nsm_module_init(&gat->right, ctx);
    make_parameters(gat);
    if (!nsmi_failed(ctx)) return gat;
    nsm_gatv2_free(gat);
    return NULL;
}

void nsm_gatv2_free(nsm_gatv2 *gat)
{
    if (!gat) return;
    nsm_module_clear(&gat->left);
    nsm_module_clear(&gat->right);
    nsm_module_clear(&gat->module);
    free(gat);
}

nsm_module *nsm_gatv2_module(nsm_gatv2 *gat) { return gat ? &gat->module : NULL; }

/* W_e f in csr order [nnz, H*D], or NULL where there are no edge features.  The few features are
 * put in order first: the map commutes with the mean that fills loops. */
static nsm_tensor *edge_map(nsm_tape *tape, const nsm_gatv2 *gat, const nsm_graph *g,
                            nsm_tensor *edge)
{
    const nsm_gatv2_config *c = &gat->config;
    if (!c->edge_dim) return NULL;
    if (!edge) {
        nsm_error_set(g->ctx, NSM_EINVAL,
                      "nsm_gatv2_apply: the layer wants %d edge features and the graph has none",
                      c->edge_dim);
        return NULL;
    }
    if (!nsmi_want("nsm_gatv2_apply", "edge", edge, g->edges, c->edge_dim)) return NULL;
    return nsm_linear(tape, nsmi_edge_values(tape, g, !c->no_self_loops, edge), gat->edge_weight,
                      NULL);
}

nsm_tensor *nsm_gatv2_apply(nsm_tape *tape, nsm_gatv2 *gat, const nsm_graph *g, nsm_tensor *x,
                            nsm_tensor *edge, nsm_attention *attention)
{
    if (attention) *attention = (nsm_attention){ 0 };
    if (!tape || !gat || !g || !x || nsmi_failed(gat->module.ctx)) return NULL;
    const nsm_gatv2_config *c = &gat->config;
    if (!nsmi_graph_covers("nsm_gatv2_apply", g) ||
        !nsmi_want("nsm_gatv2_apply", "x", x, g->sources, c->in_channels))
        return NULL;
    const nsm_csr *m = c->no_self_loops ? g->csr : nsmi_graph_loops(g);
    nsm_tensor *e = edge_map(tape, gat, g, edge ? edge : g->feature);
    nsm_tensor *l = nsm_linear(tape, x, gat->wl, gat->bl), *r = l; /* [m, H*D], [n or m, H*D] */
    if (!c->share_weights)
        r = nsm_linear(tape, x->csr ? x : nsmi_first_rows(tape, x, g->nodes), gat->wr, gat->br);
    nsm_tensor *y = nsmi_failed(g->ctx) ? NULL
                                        : nsm_gatv2_attention(tape, m, c->heads, c->negative_slope,
                                                              c->attn_dropout, l, r, gat->att, e,
                                                              attention ? &attention->prob : NULL);
    nsm_tape_drop(tape, l);
    nsm_tape_drop(tape, r);
    nsm_tape_drop(tape, e);
    if (attention) attention->csr = m;
    y = nsmi_join_heads(tape, y, c->heads, c->average);
    if (gat->residual)
        y = nsmi_add_residual(tape, y, nsmi_first_rows(tape, x, g->nodes), gat->residual);
    return nsmi_finish(tape, y, gat->bias, c->act, c->act_a, c->act_b, c->dropout);
}
