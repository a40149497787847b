/* graph/gcn.h - Graph convolution.
 *
 * Kipf and Welling, "Semi-Supervised Classification with Graph Convolutional Networks", ICLR 2017,
 * arXiv:1609.02907.
 *
 *   y = S x W^T + b                                                     eq. 2
 *   S[i,j] = sum over the edges j->i of w[j->i] d[i]^-1/2 d[j]^-1/2
 *   d[i]   = sum of the weights of the edges that enter i; a d of 0 or less gives factor 0
 *
 * Letters: n nodes, E edges, F features in, D features out.
 * Parameters, with the names they have in a checkpoint:  lin.weight [D, F]    bias [D]
 *
 * Loops of the list are taken out and every node gets one, of the weight its own loop had, else 1
 * (improved: 2).  Of S (x W^T) and (S x) W^T the cheaper is computed.  Cost: O(n F D + E min(F,
 * D)). */
#ifndef NSM_GCN_H
#define NSM_GCN_H
#include "base/module.h"
#include "base/ops.h"
#include "graph/graph.h"
#ifdef __cplusplus
extern "C" {
#endif

/* Start from zero, set what you need: a field left 0 takes the value in ( ). */
typedef struct {
    int in_channels;    /* F, must be > 0 */
    int out_channels;   /* D, must be > 0 */
    bool improved;      /* an added loop weighs 2 (1) */
    bool no_normalize;  /* S holds the weights as they are (normalise) */
    bool no_self_loops; /* use the edges as they are (add loops) */
    bool no_bias;       /* leave b out (with b) */
    nsm_act act;        /* applied to y, with b in one pass (none) */
    float act_a, act_b; /* its constants, when both are 0 the usual ones */
    float dropout;      /* on the result, while the tape trains (0) */
} nsm_gcn_config;

typedef struct nsm_gcn nsm_gcn;

/* Make a layer: Glorot-uniform weights drawn from ctx's generator, b = 0.
 * Return it, or NULL.  The caller frees it, before ctx.
 * Errors: NSM_EINVAL a size is not positive, dropout is not in [0, 1); NSM_ENOMEM. */
nsm_gcn *nsm_gcn_new(nsm_ctx *ctx, const nsm_gcn_config *config);

/* Free the layer and its parameters.  NULL is allowed. */
void nsm_gcn_free(nsm_gcn *gcn);

/* x [n, F], dense or sparse, on graph g -> y [n, D].  weight [E] in the order that g's edges were
 * given, gradients reach it; NULL: g->weight, else 1.
 * Return y, which belongs to the tape (do not free it), or NULL.  g must outlive the tape's step.
 * If x is NULL, return NULL and leave the earlier error in place.
 * Errors: NSM_ESHAPE x is not [g->nodes, F], weight not [g->edges], g is bipartite; NSM_ENOMEM. */
nsm_tensor *nsm_gcn_apply(nsm_tape *tape, nsm_gcn *gcn, const nsm_graph *g, nsm_tensor *x,
                          nsm_tensor *weight);

/* The parameters, to train, save and load.  Owned by the layer. */
nsm_module *nsm_gcn_module(nsm_gcn *gcn);

#ifdef __cplusplus
}
#endif
#endif
