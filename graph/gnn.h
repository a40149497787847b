/* graph/gnn.h - Stacks of graph layers: one builder for every kind.
 *
 *   h_0     = dropout(x)
 *   h_k     = dropout(act(norm_k(conv_k(h_{k-1}) (+ h_{k-1} or its linear map))))     k < L
 *   logits  = conv_L(h_{L-1}) (+ ...), or lin(h_1 .. h_L side by side, or their maximum) with
 *             jumping knowledge (Xu et al., ICML 2018, arXiv:1806.03536)
 *
 * Modules: conv1. conv2. ... as their layers name them, norm1. ..., skip1.weight, lin. with
 * jumping. A new kind of layer is one file and one row in the table of graph/gnn.c. */
#ifndef NSM_GNN_H
#define NSM_GNN_H
#include "base/module.h"
#include "base/ops.h"
#include "graph/attention.h"
#include "graph/sage.h"
#ifdef __cplusplus
extern "C" {
#endif

typedef enum { NSM_GNN_NO_NORM, NSM_GNN_BATCH_NORM, NSM_GNN_LAYER_NORM } nsm_gnn_norm;
typedef enum { NSM_GNN_NO_JUMP, NSM_GNN_JUMP_CONCAT, NSM_GNN_JUMP_MAX } nsm_gnn_jump;

/* Start from zero, set what you need: a field left 0 takes the value in ( ). */
typedef struct {
    const char *kind;       /* "gcn", "gat", "gatv2", "sage", "rgcn"; must be given */
    int in_channels;        /* must be > 0 */
    int hidden_channels;    /* of each head; must be > 0 if layers > 1 or with jumping */
    int out_channels;       /* must be > 0 */
    int layers;             /* L (2) */
    nsm_act act;            /* (relu) */
    float act_a, act_b;     /* its constants, when both are 0 the usual ones */
    bool no_act;            /* none (with act) */
    float dropout;          /* of the input and between layers (0) */
    nsm_gnn_norm norm;      /* between a layer and its activation (none) */
    /* add a layer's input to its result, by a linear map where sizes differ (no) */
    bool residual;
    nsm_gnn_jump jump;      /* (none) */
    bool no_bias;
    /* gat, gatv2 */
    int heads, out_heads;   /* of the hidden layers (1), of the last (1) */
    bool average_hidden;    /* average the heads of hidden layers (side by side) */
    bool concat_out;        /* put the last layer's heads side by side: H*out_channels (average) */
    int edge_dim;           /* edge features (0: none) */
    float negative_slope;   /* (0.2) */
    float attn_dropout;     /* (0) */
    bool share_weights;     /* gatv2 */
    /* gcn, gat, gatv2 */
    bool no_self_loops;
    bool improved, no_normalize; /* gcn */
    /* sage, rgcn */
    nsm_sage_aggr aggr;     /* (mean) */
    bool no_root_weight;
    bool normalize, project; /* sage */
    /* rgcn: how many types the graph's edges have; must be > 0 */
    int relations;
    int num_bases, num_blocks; /* (0: none) */
} nsm_gnn_config;

typedef struct nsm_gnn nsm_gnn;

/* Make a stack, or NULL.  The caller frees it, before ctx.
 * Errors: NSM_EINVAL the kind is unknown (the known ones are named), or a layer's own;
 * NSM_ENOMEM. */
nsm_gnn *nsm_gnn_new(nsm_ctx *ctx, const nsm_gnn_config *config);
void nsm_gnn_free(nsm_gnn *gnn); /* NULL is allowed */

/* x [n, in] on graph g -> logits [n, out].  attention: NULL, or one of each layer to be filled
 * (kinds without attention leave it zero).  The result belongs to the tape.  Errors: the layers'
 * own. */
nsm_tensor *nsm_gnn_apply(nsm_tape *tape, nsm_gnn *gnn, const nsm_graph *g, nsm_tensor *x,
                          nsm_attention *attention);
/* The same on sampled blocks, one a layer, the first layer's first: x [block[0]->sources, in] ->
 * [block[L-1]->nodes, out].  Errors also: NSM_ESHAPE the kind is gcn, which has no bipartite
 * form. */
nsm_tensor *nsm_gnn_apply_blocks(nsm_tape *tape, nsm_gnn *gnn, nsm_graph *const *block,
                                 nsm_tensor *x, nsm_attention *attention);

int nsm_gnn_layers(const nsm_gnn *gnn);
const nsm_gnn_config *nsm_gnn_settings(const nsm_gnn *gnn); /* with every default filled in */
nsm_module *nsm_gnn_module(nsm_gnn *gnn);

/* The names of the kinds, NULL last. */
const char *const *nsm_gnn_kinds(void);

#ifdef __cplusplus
}
#endif
#endif
