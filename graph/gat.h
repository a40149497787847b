/* graph/gat.h - Graph attention layer.
 *
 * Velickovic et al., "Graph Attention Networks", ICLR 2018, arXiv:1710.10903.
 *
 *   e[j->i,h] = leaky_relu(a_dst[h] . W[h] x[i] + a_src[h] . W[h] x[j] (+ a_edge[h] . W_e[h]
 *   f[j->i]))   eq. 3
 *   p[j->i,h] = softmax of e over the edges j->i that enter i               eq. 2
 *   y[i,h]    = sum over j of p[j->i,h] W[h] x[j]                           eq. 4
 *   y         = heads side by side (eq. 5), or their mean (eq. 6), (+ R x[i]) + b
 *
 * Letters: n nodes, m sources, E edges, F features in, H heads, D features per head, K edge
 * features. Parameters, with the names they have in a checkpoint:
 *   lin.weight [H*D, F]    att_src [H, D]    att_dst [H, D]    bias [H*D], or [D] with average
 *   lin_edge.weight [H*D, K]    att_edge [H, D]    res.weight [H*D or D, F]
 *
 * Self loops are replaced by one a node, as in the paper, unless no_self_loops; its edge features
 * are the mean of those of the edges that enter the node.  Without loops a node that no edge enters
 * gets y = b.  In a bipartite graph (a sampled block) the first n sources are the destinations.
 *
 * a . W x is computed as (W^T a) . x, H columns instead of H*D; the attention is one fused op
 * that makes nothing of size E*H*D.  Cost: O(n F H D + E H D). */
#ifndef NSM_GAT_H
#define NSM_GAT_H
#include "base/module.h"
#include "base/ops.h"
#include "graph/attention.h"
#ifdef __cplusplus
extern "C" {
#endif

/* Start from zero, set what you need: a field left 0 takes the value in ( ). */
typedef struct {
    int in_channels;      /* F, must be > 0 */
    int out_channels;     /* D a head, must be > 0 */
    int heads;            /* H (1) */
    int edge_dim;         /* K, size of edge features (0: none) */
    bool average;         /* average the heads: the last layer of a classifier (concatenate) */
    bool no_self_loops;   /* use the edges as they are (replace loops) */
    bool no_bias;         /* leave b out (with b) */
    bool residual;        /* add a linear map of x (no) */
    float negative_slope; /* of leaky_relu (0.2) */
    float attn_dropout;   /* on p, while the tape trains (0) */
    nsm_act act;          /* applied to y, with b in one pass (none) */
    float act_a, act_b;   /* its constants, when both are 0 the usual ones */
    float dropout;        /* on the result, while the tape trains (0) */
} nsm_gat_config;

typedef struct nsm_gat nsm_gat;

/* Make a layer: Glorot-uniform weights drawn from ctx's generator, b = 0.
 * Return it, or NULL.  The caller frees it, before ctx.
 * Errors: NSM_EINVAL a size is not positive, heads or edge_dim is negative, a dropout is not in
 * [0, 1); NSM_ENOMEM. */
nsm_gat *nsm_gat_new(nsm_ctx *ctx, const nsm_gat_config *config);

/* Free the layer and its parameters.  NULL is allowed. */
void nsm_gat_free(nsm_gat *gat);

/* x [m, F], dense or sparse, on graph g -> y [n, H*D], or [n, D] with average.  edge [E, K] in the
 * order that g's edges were given; NULL: g->feature if K > 0.  attention may be NULL.
 * Return y, which belongs to the tape (do not free it), or NULL.  g must outlive the tape's step.
 * If x is NULL, return NULL and leave the earlier error in place.
 * Errors: NSM_ESHAPE x is not [g->sources, F], edge not [g->edges, K], g has fewer sources than
 * destinations; NSM_EINVAL K > 0 and there are no edge features; NSM_ENOMEM. */
nsm_tensor *nsm_gat_apply(nsm_tape *tape, nsm_gat *gat, const nsm_graph *g, nsm_tensor *x,
                          nsm_tensor *edge, nsm_attention *attention);

/* The parameters, to train, save and load.  Owned by the layer. */
nsm_module *nsm_gat_module(nsm_gat *gat);

#ifdef __cplusplus
}
#endif
#endif
