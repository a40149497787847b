/* graph/gatv2.h - Graph attention layer, second form.
 *
 * Brody, Alon and Yahav, "How Attentive are Graph Attention Networks?", ICLR 2022,
 * arXiv:2105.14491.
 *
 *   l = x W_l^T + b_l (sources)    r = x W_r^T + b_r (destinations)
 *   e[j->i,h] = a[h] . leaky_relu(l[j,h] + r[i,h] (+ W_e[h] f[j->i]))       eq. 7
 *   p[j->i,h] = softmax of e over the edges j->i that enter i
 *   y[i,h]    = sum over j of p[j->i,h] l[j,h]
 *   y         = heads side by side, or their mean, (+ R x[i]) + b
 *
 * Letters: n nodes, m sources, E edges, F features in, H heads, D features per head, K edge
 * features. Parameters, with the names they have in a checkpoint:
 *   lin_l.weight [H*D, F]    lin_l.bias [H*D]    lin_r.weight, lin_r.bias the same    att [H, D]
 *   lin_edge.weight [H*D, K]    res.weight [H*D or D, F]    bias [H*D], or [D] with average
 *
 * Self loops, bipartite graphs and edge features are as in graph/gat.h.  Edge features alone make
 * something of size E*H*D.  Cost: O(n F H D + E H D). */
#ifndef NSM_GATV2_H
#define NSM_GATV2_H
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
    bool share_weights;   /* r = l: one set of weights, lin_l (two) */
    bool no_self_loops;   /* use the edges as they are (replace loops) */
    bool no_bias;         /* leave b, b_l and b_r out (with them) */
    bool residual;        /* add a linear map of x (no) */
    float negative_slope; /* of leaky_relu (0.2) */
    float attn_dropout;   /* on p, while the tape trains (0) */
    nsm_act act;          /* applied to y, with b in one pass (none) */
    float act_a, act_b;   /* its constants, when both are 0 the usual ones */
    float dropout;        /* on the result, while the tape trains (0) */
} nsm_gatv2_config;

typedef struct nsm_gatv2 nsm_gatv2;

/* Make a layer: Glorot-uniform weights drawn from ctx's generator, b = 0, b_l and b_r uniform in
 * +-1/sqrt(F).  Return it, or NULL.  The caller frees it, before ctx.
 * Errors: NSM_EINVAL a size is not positive, heads or edge_dim is negative, a dropout is not in
 * [0, 1); NSM_ENOMEM. */
nsm_gatv2 *nsm_gatv2_new(nsm_ctx *ctx, const nsm_gatv2_config *config);

/* Free the layer and its parameters.  NULL is allowed. */
void nsm_gatv2_free(nsm_gatv2 *gat);

/* x [m, F], dense or sparse, on graph g -> y [n, H*D], or [n, D] with average.  edge [E, K] in the
 * order that g's edges were given; NULL: g->feature if K > 0.  attention may be NULL.
 * Return y, which belongs to the tape (do not free it), or NULL.  g must outlive the tape's step.
 * Errors: as nsm_gat_apply(). */
nsm_tensor *nsm_gatv2_apply(nsm_tape *tape, nsm_gatv2 *gat, const nsm_graph *g, nsm_tensor *x,
                            nsm_tensor *edge, nsm_attention *attention);

/* The parameters, to train, save and load.  Owned by the layer. */
nsm_module *nsm_gatv2_module(nsm_gatv2 *gat);

#ifdef __cplusplus
}
#endif
#endif
