/* graph/sage.h - GraphSAGE layer.
 *
 * Hamilton, Ying and Leskovec, "Inductive Representation Learning on Large Graphs", NIPS 2017,
 * arXiv:1706.02216.
 *
 *   y[i] = W_l aggr{x[j] : j->i} + b + W_r x[i]                             algorithm 1, line 5
 *   y[i] = y[i] / max(|y[i]|, 1e-12) with normalize                         line 7
 *   aggr: mean, max or sum; repeated edges count again; 0 for a node that no edge enters
 *
 * Letters: n nodes (destinations), m sources, F features in, G features in of destinations, D out.
 * Parameters, with the names they have in a checkpoint:
 *   lin_l.weight [D, F]    lin_l.bias [D]    lin_r.weight [D, G]
 *   lin.weight [F, F]    lin.bias [F] with project: x[j] is replaced by relu(lin x[j]), x[i] is not
 *
 * The paper's pooling aggregator is max with project.  Mean and sum commute with W_l: the cheaper
 * order is computed.  Cost: O(n F D + E min(F, D)), with max O(n F D + E F). */
#ifndef NSM_SAGE_H
#define NSM_SAGE_H
#include "base/module.h"
#include "base/ops.h"
#include "graph/graph.h"
#ifdef __cplusplus
extern "C" {
#endif

typedef enum { NSM_SAGE_MEAN, NSM_SAGE_MAX, NSM_SAGE_SUM } nsm_sage_aggr;

/* Start from zero, set what you need: a field left 0 takes the value in ( ). */
typedef struct {
    int in_channels;     /* F, must be > 0 */
    int dst_channels;    /* G (F) */
    int out_channels;    /* D, must be > 0 */
    nsm_sage_aggr aggr;  /* (mean) */
    bool no_root_weight; /* leave W_r x out (with it) */
    bool normalize;      /* rows of y to unit length (no) */
    bool project;        /* relu(lin x) first (no) */
    bool no_bias;        /* leave b out (with b) */
    nsm_act act;         /* applied to y (none) */
    float act_a, act_b;  /* its constants, when both are 0 the usual ones */
    float dropout;       /* on the result, while the tape trains (0) */
} nsm_sage_config;

typedef struct nsm_sage nsm_sage;

/* Make a layer: weights and biases uniform in +-1/sqrt(their inputs), drawn from ctx's generator.
 * Return it, or NULL.  The caller frees it, before ctx.
 * Errors: NSM_EINVAL a size is not positive, aggr is unknown, dropout is not in [0, 1);
 * NSM_ENOMEM. */
nsm_sage *nsm_sage_new(nsm_ctx *ctx, const nsm_sage_config *config);

/* Free the layer and its parameters.  NULL is allowed. */
void nsm_sage_free(nsm_sage *sage);

/* x [m, F], dense or sparse (not with max), and those of the destinations dst [n, G] on graph g ->
 * y [n, D].  dst NULL: the first n rows of x, which is all of them unless g is bipartite.
 * Return y, which belongs to the tape (do not free it), or NULL.  g must outlive the tape's step.
 * If x is NULL, return NULL and leave the earlier error in place.
 * Errors: NSM_ESHAPE x is not [g->sources, F], dst not [g->nodes, G], dst is NULL and g has fewer
 * sources than destinations; NSM_ENOMEM. */
nsm_tensor *nsm_sage_apply(nsm_tape *tape, nsm_sage *sage, const nsm_graph *g, nsm_tensor *x,
                           nsm_tensor *dst);

/* The parameters, to train, save and load.  Owned by the layer. */
nsm_module *nsm_sage_module(nsm_sage *sage);

#ifdef __cplusplus
}
#endif
#endif
