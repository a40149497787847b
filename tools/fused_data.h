/* fused_data.h - A dataset as the fused model reads it: all nodes numbered one type after the
 * other, what enters each of them, their features as one sparse matrix, questions by node. */
#ifndef TOOLS_FUSED_DATA_H
#define TOOLS_FUSED_DATA_H
#include <nsm.h>
#include "tools/recipe.h"

typedef struct {
    const nsm_dataset *ds;
    int64_t nodes;   /* N, of all types */
    int64_t first;   /* the number of the target type's first node, or of the first graph */
    int64_t targets; /* how many it has */
    int64_t pointed; /* the number of the first node that questions may point at */
    /* Types of edges, with `inverse` each turned around as one more, and of graphs one more. */
    int relations;
    int64_t *ptr;        /* [N + 1] what enters node i: idx[ptr[i]..ptr[i+1]) by its relation, */
    int32_t *idx, *type; /* [E] then in the dataset's order */
    /* Features of all types side by side, and where there are several types, or no features at all,
     * a column of ones for each type. */
    int64_t features;     /* columns; 0: they are not to be seen */
    int64_t *row;         /* [N + 1] */
    int32_t *column;      /* [row[N]] */
    float *value;
    int64_t *asked;       /* [targets + 1] questions about each, NULL: there are none */
} fused_data;

/* graphs: the targets are the graphs, each as a node behind all others that all nodes of the graph
 * enter by a type of edges of its own.  The dataset must outlive it.  Errors: NSM_ENOMEM,
 * NSM_EINVAL. */
int fused_data_make(const nsm_dataset *ds, const train_options *options, bool graphs,
                    fused_data *d);
void fused_data_clear(fused_data *d);
/* The features of these nodes (NULL: all) as a sparse tensor over *csr; the caller frees both. */
nsm_tensor *fused_data_rows(nsm_ctx *ctx, const fused_data *d, int64_t count, const int32_t *node,
                            nsm_csr **csr);

#endif
