/* graph/gcn.c - See gcn.h. */
#include "config.h"
#include "graph/gcn.h"
#include "graph/internal.h"

struct nsm_gcn {
    nsm_module module;
    nsm_gcn_config config;
    nsm_tensor *weight; /* [D, F] */
    nsm_tensor *bias;   /* [D] or NULL */
};

static bool config_ok(nsm_ctx *ctx, const nsm_gcn_config *c)
{
    if (c->in_channels > 0 && c->out_channels > 0 && c->dropout >= 0 && c->dropout < 1) return true;
    nsm_error_set(ctx, NSM_EINVAL,
                  "nsm_gcn_new: in_channels is %d, out_channels %d, dropout %g; want sizes > 0, "
                  "dropout in [0,1)",
                  c->in_channels, c->out_channels, (double)c->dropout);
    return false;
}

nsm_gcn *nsm_gcn_new(nsm_ctx *ctx, const nsm_gcn_config *config)
{
    if (nsmi_failed(ctx) || !config_ok(ctx, config)) return NULL;
    nsm_gcn *gcn = nsmi_calloc(ctx, 1, sizeof *gcn);
    if (!gcn) return NULL;
    gcn->config = *config;
    nsm_module_init(&gcn->module, ctx);
    int64_t f = config->in_channels, d = config->out_channels;
    gcn->weight = nsm_module_param(&gcn->module, "lin.weight", 2, (int64_t[]){ d, f });
    if (!config->no_bias) gcn->bias = nsm_module_param(&gcn->module, "bias", 1, &d);
    nsm_init_glorot_uniform(gcn->weight, 1);
    if (!nsmi_failed(ctx)) return gcn;
    nsm_gcn_free(gcn);
    return NULL;
}

void nsm_gcn_free(nsm_gcn *gcn)
{
    if (!gcn) return;
    nsm_module_clear(&gcn->module);
    free(gcn);
}

nsm_module *nsm_gcn_module(nsm_gcn *gcn) { return gcn ? &gcn->module : NULL; }

/* Aggregating first costs E F and n F; after the map E D and n D.  The map itself costs the same,
 * but a gradient that x does not want is then not spread over the graph either. */
static nsm_tensor *convolve(nsm_tape *tape, nsm_gcn *gcn, const nsm_csr *m, nsm_tensor *s,
                            nsm_tensor *x)
{
    const nsm_gcn_config *c = &gcn->config;
    bool aggregate_first = !x->csr && c->in_channels < c->out_channels;
    nsm_tensor *h = aggregate_first ? nsm_spmm(tape, m, s, false, x)
                                    : nsm_linear(tape, x, gcn->weight, NULL);
    nsm_tensor *y = aggregate_first ? nsm_linear(tape, h, gcn->weight, NULL)
                                    : nsm_spmm(tape, m, s, false, h);
    nsm_tape_drop(tape, h);
    return y;
}

static bool shapes_ok(const nsm_gcn *gcn, const nsm_graph *g, const nsm_tensor *x,
                      const nsm_tensor *weight)
{
    if (g->sources != g->nodes) {
        nsm_error_set(g->ctx, NSM_ESHAPE,
                      "nsm_gcn_apply: the graph is bipartite, %lld sources and %lld destinations",
                      (long long)g->sources, (long long)g->nodes);
        return false;
    }
    if (weight && (weight->type != NSM_F32 || nsm_numel(weight) != g->edges)) {
        nsm_error_set(g->ctx, NSM_ESHAPE,
                      "nsm_gcn_apply: weight holds %lld %s values, want float32 [%lld]",
                      (long long)nsm_numel(weight), nsm_type_name(weight->type),
                      (long long)g->edges);
        return false;
    }
    return nsmi_want("nsm_gcn_apply", "x", x, g->nodes, gcn->config.in_channels);
}

nsm_tensor *nsm_gcn_apply(nsm_tape *tape, nsm_gcn *gcn, const nsm_graph *g, nsm_tensor *x,
                          nsm_tensor *weight)
{
    nsm_tensor *s;
    if (!tape || !gcn || !g || !x || nsmi_failed(gcn->module.ctx) || !shapes_ok(gcn, g, x, weight))
        return NULL;
    const nsm_gcn_config *c = &gcn->config;
    nsmi_gcn_options o = { !c->no_normalize, !c->no_self_loops, c->improved };
    const nsm_csr *m = nsmi_gcn_matrix(tape, g, o, weight ? weight : g->weight, &s);
    if (!m) return NULL;
    return nsmi_finish(tape, convolve(tape, gcn, m, s, x), gcn->bias, c->act, c->act_a, c->act_b,
                       c->dropout);
}
