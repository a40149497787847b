/* batches.h - A dataset's nodes in sampled batches: the rows of edges that samplers walk, and
 * samplers.
 *
 * Only what enters each node is kept, once: 8n + 4E bytes; features stay where they are, in memory
 * or in the file, and a batch gathers its own rows. */
#ifndef TOOLS_BATCHES_H
#define TOOLS_BATCHES_H
#include <nsm.h>
#include "tools/recipe.h"

/* Sources of what enters node i of n: idx[ptr[i]..ptr[i+1]), ascending. */
typedef struct { int64_t n; int64_t *ptr; int32_t *idx; } edge_rows;

/* The edges within the target type; symmetric: in both directions, repeated ones once. */
int edge_rows_make(const nsm_dataset *ds, bool symmetric, edge_rows *out);
void edge_rows_clear(edge_rows *r);

typedef struct {
    const nsm_dataset *ds;
    const train_options *options;
    edge_rows rows;
    int fan_out[SETTING_LIST_MOST];
} batches;

/* Errors: NSM_EINVAL the model has no sampled form, fanouts are not one a layer; NSM_ENOMEM.  ds
 * and options must outlive it. */
int batches_make(const nsm_dataset *ds, const train_options *options, batches *out);
void batches_clear(batches *b);

/* A sampler over these nodes (NULL: the first `count`), with their features; in_order: as they
 * stand. b and nodes must outlive it. */
nsm_sampler *batches_sampler(const batches *b, int64_t count, const int32_t *node, bool in_order,
                             uint64_t seed);

/* Divide a row of features by its sum, where that is positive. */
void sum_to_one(float *row, int64_t n);

#endif
