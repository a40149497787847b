/* graph/pool.h - From the nodes of a batch of graphs to the graphs: pooling, and norms by graph.
 *
 * g is a batch (nsm_graph_batch, nsm_graph_set_members); without members it is one graph.
 * Letters: n nodes, G graphs, F features, D out. */
#ifndef NSM_POOL_H
#define NSM_POOL_H
#include "base/module.h"
#include "base/ops.h"
#include "graph/graph.h"
#ifdef __cplusplus
extern "C" {
#endif

/* x [n, F] -> [G, F]; a graph without nodes gives 0.  NSM_ESHAPE: x is not [g->nodes, F]. */
nsm_tensor *nsm_pool_sum(nsm_tape *tape, nsm_graph *g, nsm_tensor *x);
nsm_tensor *nsm_pool_mean(nsm_tape *tape, nsm_graph *g, nsm_tensor *x);
nsm_tensor *nsm_pool_max(nsm_tape *tape, nsm_graph *g, nsm_tensor *x);

/* Attentional pooling (Li et al., ICLR 2016, arXiv:1511.05493, eq. 7 with softmax):
 *   y[g] = sum over its nodes of softmax(gate_nn x) * (nn x), the softmax over a graph's nodes, by
 *   column
 * Parameters: gate_nn.weight [1 or D, F], gate_nn.bias, nn.weight [D, F], nn.bias [D]. */
typedef struct {
    int in_channels, out_channels; /* F, D; must be > 0 */
    bool by_feature;               /* a gate for each of D features (one for the node) */
} nsm_attention_pool_config;
typedef struct nsm_attention_pool nsm_attention_pool;
/* Errors: NSM_EINVAL a size is not positive; NSM_ENOMEM. */
nsm_attention_pool *nsm_attention_pool_new(nsm_ctx *ctx, const nsm_attention_pool_config *config);
void nsm_attention_pool_free(nsm_attention_pool *p); /* NULL is allowed */
/* [G, D] */
nsm_tensor *nsm_attention_pool_apply(nsm_tape *tape, nsm_attention_pool *p, nsm_graph *g,
                                     nsm_tensor *x);
nsm_module *nsm_attention_pool_module(nsm_attention_pool *p);

/* GraphNorm (Cai et al., ICML 2021, arXiv:2009.03294): by graph and channel, m = mean x,
 * o = x - mean_scale m, y = weight o / sqrt(mean o^2 + eps) + bias.
 * Parameters: weight, bias, mean_scale [F]. */
typedef struct nsm_graph_norm nsm_graph_norm;
/* eps 0: 1e-5.  Errors: NSM_EINVAL channels is not positive; NSM_ENOMEM. */
nsm_graph_norm *nsm_graph_norm_new(nsm_ctx *ctx, int channels, float eps);
void nsm_graph_norm_free(nsm_graph_norm *norm); /* NULL is allowed */
/* [n, F] */
nsm_tensor *nsm_graph_norm_apply(nsm_tape *tape, nsm_graph_norm *norm, nsm_graph *g, nsm_tensor *x);
nsm_module *nsm_graph_norm_module(nsm_graph_norm *norm);

#ifdef __cplusplus
}
#endif
#endif
