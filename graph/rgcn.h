/* graph/rgcn.h - Relational graph convolution.
 *
 * Schlichtkrull, Kipf, Bloem, van den Berg, Titov and Welling, "Modeling Relational Data with
 * Graph Convolutional Networks", ESWC 2018, arXiv:1703.06103.
 *
 *   y[i] = sum over r of aggr{x[j] : j->i of relation r} W_r  +  x[i] W_0  +  b         eq. 2
 *   W_r  = sum over b of comp[r, b] V_b                        with num_bases, eq. 3
 *   W_r  = diag(Q_r1 .. Q_rK)                                  with num_blocks, eq. 4
 *   aggr: mean (the paper's 1/c_ir), sum or max; 0 where no edge of r enters i
 *
 * The relation of an edge is its type (nsm_graph_set_types).  Inverse relations are relations of
 * their own, which the caller adds: nsm_edges_inverse().
 *
 * Letters: n nodes (destinations), m sources, E edges, R relations, F features in, O out, B bases,
 * K blocks, P pairs (node, relation) with an edge: P <= E.
 * Parameters, with the names they have in a checkpoint:
 *   weight [R, F, O]; with num_bases [B, F, O], and comp [R, B]; with num_blocks [R, K, F/K, O/K]
 *   root [F, O]    bias [O]
 *
 * Cost: the least of O(E F + P F O), with blocks O(E F + P F O / K); O(m R F O + E O); and with
 * bases O(m B F O + E B O).  For a sparse x, m F is the number of its entries, and the first is
 * left out. */
#ifndef NSM_RGCN_H
#define NSM_RGCN_H
#include "base/module.h"
#include "base/ops.h"
#include "graph/graph.h"
#include "graph/sage.h"
#ifdef __cplusplus
extern "C" {
#endif

/* Start from zero, set what you need: a field left 0 takes the value in ( ). */
typedef struct {
    int in_channels;     /* F, must be > 0 */
    int out_channels;    /* O, must be > 0 */
    int relations;       /* R, must be > 0 */
    int num_bases;       /* B (0: none) */
    int num_blocks;      /* K, which divides F and O (0: none); not with bases */
    nsm_sage_aggr aggr;  /* of the edges of one relation (mean) */
    bool no_root_weight; /* leave x[i] W_0 out (with it) */
    bool no_bias;        /* leave b out (with b) */
    nsm_act act;         /* applied to y (none) */
    float act_a, act_b;  /* its constants, when both are 0 the usual ones */
    float dropout;       /* on the result, while the tape trains (0) */
} nsm_rgcn_config;

typedef struct nsm_rgcn nsm_rgcn;

/* Make a layer: Glorot-uniform weights drawn from ctx's generator, b = 0.
 * Return it, or NULL.  The caller frees it, before ctx.
 * Errors: NSM_EINVAL a size is not positive, bases and blocks are both given, blocks do not divide
 * F and O, aggr is unknown, dropout is not in [0, 1); NSM_ENOMEM. */
nsm_rgcn *nsm_rgcn_new(nsm_ctx *ctx, const nsm_rgcn_config *config);

/* Free the layer and its parameters.  NULL is allowed. */
void nsm_rgcn_free(nsm_rgcn *rgcn);

/* x [m, F], dense or sparse (not with max nor with blocks), on graph g, whose edges have types ->
 * y [n, O].  x[i] of destination i is row i of x.
 * Return y, which belongs to the tape (do not free it), or NULL.  g must outlive the tape's step.
 * If x is NULL, return NULL and leave the earlier error in place.
 * Errors: NSM_ESHAPE x is not [g->sources, F], g has fewer sources than destinations; NSM_EINVAL
 * g's edges have no types, or not R of them; NSM_ENOMEM. */
nsm_tensor *nsm_rgcn_apply(nsm_tape *tape, nsm_rgcn *rgcn, const nsm_graph *g, nsm_tensor *x);

/* The parameters, to train, save and load.  Owned by the layer. */
nsm_module *nsm_rgcn_module(nsm_rgcn *rgcn);

#ifdef __cplusplus
}
#endif
#endif
