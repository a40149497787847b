/* graph/internal.h - What the graph layers share: the derived graphs that a graph keeps.
 * Not installed. */
#ifndef NSM_GRAPH_INTERNAL_H
#define NSM_GRAPH_INTERNAL_H
#include "base/internal.h"
#include "base/ops.h"
#include "graph/graph.h"

/* Made when first asked for, freed with the graph. */
typedef struct nsmi_graph_cache {
    nsm_csr *loops;          /* self loops taken out, then one a node */
    /* [loops->nnz] host: the caller's edge of each entry, -1 an added loop */
    int32_t *origin;
    nsm_csr *order;          /* [E, E]: csr order from the caller's */
    /* [loops->nnz, E]: the same for loops; an added loop is the mean of its node's edges */
    nsm_csr *fill_mean;
    nsm_tensor *fill_values; /* its entries */
    /* [loops->nnz, E]: as order; an own loop keeps its value, an added one is an empty row */
    nsm_csr *keep_loops;
    nsm_tensor *fill_one[2]; /* [loops->nnz, 1]: what an added loop weighs: 1, or 2 (improved) */
    nsm_tensor *gcn[8];      /* [nnz] weights of GCN by its options */
    nsm_typed *typed[2];     /* the edges by their types; with its groups as a matrix */
    nsm_csr *by_type;        /* [n, m*types]: column source * types + type */
    nsm_tensor *type_share;  /* its entries: 1 / the edges of that type that enter the node */
    nsm_csr *entry_type;     /* [E, types]: row = entry in csr order, its column the entry's type */
    nsm_tensor *entry_share; /* [E] as type_share, in csr order */
} nsmi_graph_cache;

/* The graph with loops replaced: NULL and an error if bipartite with fewer sources than nodes. */
const nsm_csr *nsmi_graph_loops(const nsm_graph *g);

/* Values of the caller's edges x [E, K] in csr order -> [nnz, K]; with loops those of
 * nsmi_graph_loops(), an added loop having the mean over the edges (loops left out) that enter its
 * node. */
nsm_tensor *nsmi_edge_values(nsm_tape *tape, const nsm_graph *g, bool loops, nsm_tensor *x);

/* GCN's matrix: which csr, and its entries.  *value is NULL where every entry is 1. */
typedef struct { bool normalize, loops, improved; } nsmi_gcn_options;
const nsm_csr *nsmi_gcn_matrix(nsm_tape *tape, const nsm_graph *g, nsmi_gcn_options o,
                               nsm_tensor *weight, nsm_tensor **value);

/* The edges by their types, which the graph must have (graph/types.c).  groups: with the matrix of
 * its groups. */
const nsm_typed *nsmi_graph_typed(const nsm_graph *g, bool groups);
/* A matrix over (source, type), and what an entry is in the mean of its node and type. */
const nsm_csr *nsmi_graph_by_type(const nsm_graph *g, nsm_tensor **share);

/* The type of every entry in csr order, as a matrix; share as above. */
const nsm_csr *nsmi_graph_entry_types(const nsm_graph *g, nsm_tensor **share);

void nsmi_graph_types_free(nsm_graph *g); /* before the cache */
void nsmi_graph_cache_free(nsm_graph *g);

/* A new host copy of device memory, or NULL. */
void *nsmi_host_copy(nsm_ctx *ctx, const void *device, size_t bytes);

/* Check an argument of a layer: x [rows, cols], sparse if allowed.  Leaves "who: what is [..], want
 * [..]". */
bool nsmi_want(const char *who, const char *what, const nsm_tensor *x, int64_t rows, int64_t cols);

/* How every layer ends: bias (may be NULL), activation and dropout in one pass, or none at all.
 * Drops y, which must be nobody else's. */
nsm_tensor *nsmi_finish(nsm_tape *tape, nsm_tensor *y, nsm_tensor *bias, nsm_act act, float a,
                        float b, float dropout);

/* The first rows of x, which is x itself when it has no others: the destinations of a block. */
nsm_tensor *nsmi_first_rows(nsm_tape *tape, nsm_tensor *x, int64_t rows);
/* has a source for every destination */
bool nsmi_graph_covers(const char *who, const nsm_graph *g);

/* y [n, H*D] as it is, or the mean of heads [n, D]; y plus x times w.  Both drop y. */
nsm_tensor *nsmi_join_heads(nsm_tape *tape, nsm_tensor *y, int heads, bool average);
nsm_tensor *nsmi_add_residual(nsm_tape *tape, nsm_tensor *y, nsm_tensor *x, nsm_tensor *w);

#endif
