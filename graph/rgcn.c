/* graph/rgcn.c - See rgcn.h.
 *
 * Three ways give the same numbers, and the cheapest is taken: the edges of a relation are added up
 * and then transformed, one product a relation (base/ops/typed.c), bases having been combined into
 * R matrices; x is transformed by each relation first, and edges gather the results; or it is
 * transformed by each basis first, which needs no matrix of a relation. */
#include "config.h"
#include "graph/internal.h"
#include "graph/rgcn.h"

struct nsm_rgcn {
    nsm_module module;
    nsm_rgcn_config config;
    nsm_tensor *weight, *comp; /* see rgcn.h; comp NULL without bases */
    nsm_tensor *root, *bias;   /* [F, O], [O], or NULL */
};

static bool config_ok(nsm_ctx *ctx, const nsm_rgcn_config *c)
{
    bool sizes = c->in_channels > 0 && c->out_channels > 0 && c->relations > 0 &&
                 c->num_bases >= 0 && c->num_blocks >= 0 && !(c->num_bases && c->num_blocks);
    if (sizes && c->num_blocks)
        sizes = c->in_channels % c->num_blocks == 0 && c->out_channels % c->num_blocks == 0;
    if (sizes && (unsigned)c->aggr <= NSM_SAGE_SUM && c->dropout >= 0 && c->dropout < 1)
        return true;
    nsm_error_set(ctx, NSM_EINVAL,
                  "nsm_rgcn_new: in_channels is %d, out_channels %d, relations %d, num_bases %d, "
                  "num_blocks %d, aggr %d, dropout %g; want sizes > 0, bases or blocks but not "
                  "both, blocks that divide the channels, aggr 0..2, dropout in [0,1)",
                  c->in_channels, c->out_channels, c->relations, c->num_bases, c->num_blocks,
                  (int)c->aggr, (double)c->dropout);
    return false;
}

/* Glorot over the last two axes, as if each matrix were alone. */
static nsm_tensor *parameter(nsm_rgcn *g, const char *name, int rank, const int64_t *dim)
{
    float bound = sqrtf(6.0f / (float)(dim[rank - 1] + dim[rank - 2]));
    nsm_tensor *t = nsm_module_param(&g->module, name, rank, dim);
    nsm_init_uniform(t, -bound, bound);
    return t;
}

nsm_rgcn *nsm_rgcn_new(nsm_ctx *ctx, const nsm_rgcn_config *config)
{
    if (nsmi_failed(ctx)) return NULL;
    nsm_rgcn_config c = *config;
    if (!config_ok(ctx, &c)) return NULL;
    nsm_rgcn *g = nsmi_calloc(ctx, 1, sizeof *g);
    if (!g) return NULL;
    int64_t in = c.in_channels, out = c.out_channels, r = c.relations, k = c.num_blocks;
    g->config = c;
    nsm_module_init(&g->module, ctx);
    if (k) g->weight = parameter(g, "weight", 4, (int64_t[]){ r, k, in / k, out / k });
    else
        g->weight = parameter(g, "weight", 3,
                              (int64_t[]){ c.num_bases ? c.num_bases : r, in, out });
    if (c.num_bases) g->comp = parameter(g, "comp", 2, (int64_t[]){ r, c.num_bases });
    if (!c.no_root_weight) g->root = parameter(g, "root", 2, (int64_t[]){ in, out });
    if (!c.no_bias) g->bias = nsm_module_param(&g->module, "bias", 1, &out);
    if (!nsmi_failed(ctx)) return g;
    nsm_rgcn_free(g);
    return NULL;
}

void nsm_rgcn_free(nsm_rgcn *g)
{
    if (!g) return;
    nsm_module_clear(&g->module);
    free(g);
}

nsm_module *nsm_rgcn_module(nsm_rgcn *g) { return g ? &g->module : NULL; }

/* The R matrices: the parameters themselves, or comp times the bases [R, F, O]. */
static nsm_tensor *relation_weights(nsm_tape *tape, const nsm_rgcn *g)
{
    int64_t in = g->config.in_channels, out = g->config.out_channels;
    if (!g->comp) return g->weight;
    nsm_tensor *bases = nsm_reshape(tape, g->weight, 2,
                                    (int64_t[]){ g->config.num_bases, in * out });
    nsm_tensor *w = nsm_matmul(tape, g->comp, bases, false, false);
    return nsm_reshape(tape, w, 3, (int64_t[]){ g->config.relations, in, out });
}

/* x by every relation, [m, R O], seen as m R rows; an edge reads the row of its source and type. */
static nsm_tensor *transform_first(nsm_tape *tape, const nsm_rgcn *g, const nsm_graph *graph,
                                   nsm_tensor *x, nsm_tensor *w)
{
    const nsm_rgcn_config *c = &g->config;
    int64_t out = c->out_channels, all = c->relations * out;
    nsm_tensor *share, *by_row = nsm_permute(tape, w, (const int[]){ 0, 2, 1 }); /* [R, O, F] */
    const nsm_csr *m = nsmi_graph_by_type(graph, &share);
    if (!m) return NULL;
    by_row = nsm_reshape(tape, by_row, 2, (int64_t[]){ all, c->in_channels });
    nsm_tensor *h = nsm_linear(tape, x, by_row, NULL); /* [m, R*O] */
    h = nsm_reshape(tape, h, 2, (int64_t[]){ m->cols, out });
    nsm_tensor *y = nsm_spmm(tape, m, c->aggr == NSM_SAGE_MEAN ? share : NULL, false, h);
    nsm_tape_drop(tape, h);
    return y;
}

/* x by every basis, [m, O] each; what edge e takes of basis b is comp[its relation, b], in a mean
 * times its share: one sparse product a basis. */
static nsm_tensor *bases_first(nsm_tape *tape, const nsm_rgcn *g, const nsm_graph *graph,
                               nsm_tensor *x)
{
    const nsm_rgcn_config *c = &g->config;
    int64_t in = c->in_channels, out = c->out_channels;
    nsm_tensor *share, *y = NULL;
    const nsm_csr *type = nsmi_graph_entry_types(graph, &share);
    if (!type) return NULL;
    nsm_tensor *part = nsm_spmm(tape, type, c->aggr == NSM_SAGE_MEAN ? share : NULL, false,
                                g->comp); /* [E, B] */
    part = nsm_transpose(tape, part);
    nsm_tensor *by_row = nsm_transpose(tape, g->weight); /* [B, O, F] */
    for (int64_t b = 0; by_row && part && b < c->num_bases; b++) {
        nsm_tensor *w = nsm_reshape(tape, nsm_slice(tape, by_row, 0, b, 1), 2,
                                    (int64_t[]){ out, in });
        nsm_tensor *h = nsm_linear(tape, x, w, NULL);
        nsm_tensor *z = nsm_spmm(tape, graph->csr, nsm_slice(tape, part, 0, b, 1), false, h);
        nsm_tape_drop(tape, h);
        nsm_tensor *sum = y ? nsm_add(tape, y, z) : z;
        if (y) {
            nsm_tape_drop(tape, y);
            nsm_tape_drop(tape, z);
        }
        y = sum;
    }
    return y;
}

/* Which way costs least: numbers multiplied and numbers gathered.  A sparse x has its entries in
 * place of its rows times F, and cannot be gathered before it is transformed. */
typedef enum { RELATIONS, TRANSFORMED, BASES } way;

static way cheapest(const nsm_rgcn_config *c, const nsm_graph *g, const nsm_tensor *x,
                    const nsm_typed *t)
{
    double f = c->in_channels, o = c->out_channels, e = (double)g->edges, b = c->num_bases,
           product = f * o, inputs = x->csr ? (double)x->csr->nnz : (double)g->sources * f,
           combine = c->relations * b * product;
    double transformed = c->relations * inputs * o + e * o + combine,
           bases = b > 0 ? b * inputs * o + e * o * b + b * product : INFINITY,
           relations = t ? (double)t->fwd.groups * product + e * f + combine : INFINITY;
    if (c->num_blocks || (relations <= transformed && relations <= bases)) return RELATIONS;
    return transformed <= bases ? TRANSFORMED : BASES;
}

static nsm_tensor *convolve(nsm_tape *tape, const nsm_rgcn *g, const nsm_graph *graph,
                            nsm_tensor *x)
{
    const nsm_rgcn_config *c = &g->config;
    bool max = c->aggr == NSM_SAGE_MAX;
    const nsm_typed *t = x->csr ? NULL : nsmi_graph_typed(graph, max);
    if (nsmi_failed(graph->ctx)) return NULL;
    way how = max ? RELATIONS : cheapest(c, graph, x, t);
    if (how == BASES) return bases_first(tape, g, graph, x);
    nsm_tensor *w = relation_weights(tape, g);
    if (how == TRANSFORMED) return transform_first(tape, g, graph, x, w);
    if (max) {
        nsm_tensor *largest = nsm_spmm_max(tape, t->group, x);
        return nsm_typed_linear(tape, t, NSM_TYPED_GIVEN, largest, w);
    }
    return nsm_typed_linear(tape, t, c->aggr == NSM_SAGE_MEAN ? NSM_TYPED_MEAN : NSM_TYPED_SUM, x,
                            w);
}

static bool input_ok(const nsm_rgcn *g, const nsm_graph *graph, const nsm_tensor *x)
{
    const nsm_rgcn_config *c = &g->config;
    if (!graph->type || graph->types != c->relations)
        nsm_error_set(graph->ctx, NSM_EINVAL,
                      "nsm_rgcn_apply: the graph's edges have %d types, want %d", graph->types,
                      c->relations);
    else if (x->csr && (c->aggr == NSM_SAGE_MAX || c->num_blocks))
        nsm_error_set(graph->ctx, NSM_ESHAPE,
                      "nsm_rgcn_apply: x is a sparse matrix, which max and blocks do not take");
    else
        return (!g->root || nsmi_graph_covers("nsm_rgcn_apply", graph)) &&
               nsmi_want("nsm_rgcn_apply", "x", x, graph->sources, c->in_channels);
    return false;
}

nsm_tensor *nsm_rgcn_apply(nsm_tape *tape, nsm_rgcn *g, const nsm_graph *graph, nsm_tensor *x)
{
    if (!tape || !g || !graph || !x || nsmi_failed(g->module.ctx) || !input_ok(g, graph, x))
        return NULL;
    const nsm_rgcn_config *c = &g->config;
    nsm_tensor *y = convolve(tape, g, graph, x);
    if (g->root && y) {
        nsm_tensor *own = nsmi_first_rows(tape, x, graph->nodes);
        y = nsmi_add_residual(tape, y, own, nsm_transpose(tape, g->root));
        if (own != x) nsm_tape_drop(tape, own);
    }
    return nsmi_finish(tape, y, g->bias, c->act, c->act_a, c->act_b, c->dropout);
}
