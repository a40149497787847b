/* nsm-igraph.h - Graphs from and to igraph 0.10.  In a build with igraph only. */
#ifndef NSM_IGRAPH_H
#define NSM_IGRAPH_H
#include <igraph.h>
#include "graph/graph.h"
#ifdef __cplusplus
extern "C" {
#endif

/* The graph of an igraph: an undirected edge goes both ways, a self loop once.  weight [igraph's
 * number of edges] or NULL.  Return it, or NULL; the caller frees it.
 * Errors: NSM_EINVAL 2^31 nodes or edges or more, weight is of another length; NSM_ENOMEM. */
nsm_graph *nsm_graph_from_igraph(nsm_ctx *ctx, const igraph_t *from, const igraph_vector_t *weight);

/* An igraph, directed, with edges in the order they were given to g; `to` is initialised here and
 * destroyed by the caller when this returns NSM_OK.  Nodes of a bipartite graph: the destinations,
 * then the sources.  igraph's own errors leave NSM_ENOMEM. */
int nsm_graph_to_igraph(const nsm_graph *g, igraph_t *to);

#ifdef __cplusplus
}
#endif
#endif
