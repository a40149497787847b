/* graph/graph.h - Graphs: nodes, edges, weights, features; batches, types, orders.
 *
 * A message goes from an edge's source to its destination.  The edges stand by destination
 * (nsm_csr: rows are destinations, columns sources) with the transpose beside them, so that forward
 * and backward both add up by row.  Repeated edges are kept, each is one of its own.  Weights and
 * features of edges are given, and get their gradients, in the caller's order of edges.
 *
 * Self loops follow PyTorch Geometric: each layer says what it does with them, and the changed
 * graph, its normalisation and the map from the caller's order are made once and kept with the
 * graph.
 *
 * Letters: n nodes (destinations), m sources (m = n unless bipartite), E edges, K edge features. */
#ifndef NSM_GRAPH_H
#define NSM_GRAPH_H
#include "base/sparse.h"
#include "base/tape.h"
#ifdef __cplusplus
extern "C" {
#endif

typedef struct nsm_graph nsm_graph;
struct nsmi_graph_cache;

struct nsm_graph {
    nsm_ctx *ctx;
    int64_t nodes;        /* n */
    int64_t sources; /* m; in a bipartite graph source i and destination i are the same node only
                           * where a layer says so (sampled blocks) */
    int64_t edges;        /* E */
    nsm_csr *csr;         /* csr->source: the caller's number of each entry */
    nsm_tensor *weight;   /* [E] in the caller's order, or NULL */
    nsm_tensor *feature;  /* [E, K] in the caller's order, or NULL */
    nsm_tensor *type;     /* int32 [E] in the caller's order, or NULL */
    int types;            /* how many there may be; 0 without */
    int64_t graphs;       /* how many graphs this is a batch of: 1 */
    nsm_csr *member;      /* of a batch: row = graph, columns = its nodes; else NULL */
    nsm_tensor *graph_of; /* of a batch: int32 [n], the graph of each node; else NULL */
    nsm_tensor *member_node; /* of a batch: int32 [n], the nodes in member's order; else NULL */
    struct nsmi_graph_cache *cache;
};

/* Make a graph of n nodes from edges src[k] -> dst[k], k < E; the arrays are copied.  Return it or
 * NULL; the caller frees it, before ctx and after every tape that saw it.
 * Errors: NSM_EINVAL an end of an edge is out of range (with the edge's number); NSM_ENOMEM. */
nsm_graph *nsm_graph_new(nsm_ctx *ctx, int64_t nodes, int64_t edges, const int32_t *src,
                         const int32_t *dst);
/* The same where sources and destinations are two sets of nodes. */
nsm_graph *nsm_graph_bipartite(nsm_ctx *ctx, int64_t sources, int64_t nodes, int64_t edges,
                               const int32_t *src, const int32_t *dst);
/* The same from rows that stand together already: those that enter node i are
 * idx[ptr[i]..ptr[i+1]).
 * without_transpose: for a layer whose input wants no gradient, for inference and for sampling. */
nsm_graph *nsm_graph_from_rows(nsm_ctx *ctx, int64_t sources, int64_t nodes, const int64_t *ptr,
                               const int32_t *idx, bool without_transpose);
void nsm_graph_free(nsm_graph *g); /* NULL is allowed */

/* Give every edge a weight [E], or K features [E, K], copied, in the order that the edges were
 * given.
 * NSM_EINVAL: the number of an edge whose value is not finite; a K that is not positive. */
int nsm_graph_set_weights(nsm_graph *g, const float *weight);
int nsm_graph_set_features(nsm_graph *g, int64_t k, const float *feature);
/* Give every edge a type 0..types-1, copied: the relation it stands for (graph/rgcn.h).
 * NSM_EINVAL: the number of an edge whose type is another; types that are not positive. */
int nsm_graph_set_types(nsm_graph *g, int types, const int32_t *type);

/* The edges as they were given: fills src [E] and dst [E]. */
int nsm_graph_edges(const nsm_graph *g, int32_t *src, int32_t *dst);
/* How many edges enter every node: fills degree [n]. */
int nsm_graph_degrees(const nsm_graph *g, int64_t *degree);

/* Each edge in both directions; a self loop, and with merge every repeated edge, once.  from[k] is
 * the given edge that the k-th comes from, for its weight and features.  The caller frees the
 * arrays of out with nsm_edges_free().  Errors as nsm_graph_new. */
typedef struct { int64_t count; int32_t *src, *dst, *from; } nsm_edges;
int nsm_edges_symmetric(nsm_ctx *ctx, int64_t nodes, int64_t edges, const int32_t *src,
                        const int32_t *dst, bool merge, nsm_edges *out);
void nsm_edges_free(nsm_edges *edges);
/* Each edge k of type t as it is, and edge E + k, which is k turned around, of type types + t: the
 * inverse relations of graph/rgcn.h.  Fills out_type [2E]; otherwise as nsm_edges_symmetric. */
int nsm_edges_inverse(nsm_ctx *ctx, int64_t nodes, int64_t edges, const int32_t *src,
                      const int32_t *dst, int types, const int32_t *type, nsm_edges *out,
                      int32_t *out_type);

/* ---- batches of small graphs ---- */
/* All of them as one graph without edges between them; nodes and edges numbered one graph after the
 * other, weights, features and types too (either all graphs have them, or none). */
nsm_graph *nsm_graph_batch(nsm_ctx *ctx, int64_t count, nsm_graph *const *graph);
/* Say of a graph's nodes which of `graphs` graphs each belongs to, in any order. */
int nsm_graph_set_members(nsm_graph *g, int64_t graphs, const int32_t *graph_of_node);

/* ---- orders: place[i] is where node i goes ---- */
typedef enum {
    NSM_ORDER_DEGREE, /* most edges first */
    NSM_ORDER_RCM     /* reverse Cuthill-McKee (ACM 1969): neighbours close together */
} nsm_order;
/* Fill place [n].  Pays for meshes, road maps and other graphs whose given order says nothing.  On
 * the random power-law graph of bench/gnn.c neither order changed an epoch measurably. */
int nsm_graph_order(const nsm_graph *g, nsm_order order, int32_t *place);
/* The graph with node i renamed place[i]; edges keep their numbers, weights, features and types. */
nsm_graph *nsm_graph_permuted(const nsm_graph *g, const int32_t *place);

/* ---- typed nodes and edges: what HGT and RGCN work on ---- */
typedef struct { char *name; int64_t nodes; } nsm_node_type;
/* node types of its ends */
typedef struct { char *name; int src, dst; nsm_graph *graph; } nsm_relation;
typedef struct {
    nsm_ctx *ctx;
    int node_types, relations;
    nsm_node_type *node_type;
    nsm_relation *relation;
} nsm_hetero;

nsm_hetero *nsm_hetero_new(nsm_ctx *ctx);
void nsm_hetero_free(nsm_hetero *h); /* NULL is allowed */
/* Both return the new one's number, or a negative code.  NSM_EINVAL: the name is taken, a type does
 * not exist. */
int nsm_hetero_add_nodes(nsm_hetero *h, const char *name, int64_t nodes);
int nsm_hetero_add_edges(nsm_hetero *h, const char *name, int src_type, int dst_type, int64_t edges,
                         const int32_t *src, const int32_t *dst);
/* -1, no error, if there is none */
int nsm_hetero_find_nodes(const nsm_hetero *h, const char *name);
int nsm_hetero_find_edges(const nsm_hetero *h, const char *name);
/* All as one graph: nodes and edges one type after the other; the edges' types are the relations.
 * The caller frees it. */
nsm_graph *nsm_hetero_flat(const nsm_hetero *h);

#ifdef __cplusplus
}
#endif
#endif
