/* batches.h - A dataset's nodes in sampled batches: the rows of edges that samplers walk, and
 * samplers.
 *
 * Only what enters each node is kept, once: 8n + 4E bytes; features stay where they are, in memory
 * or in the file, and a batch gathers its own rows. */
#ifndef TOOLS_BATCHES_H
#define TOOLS_BATCHES_H
#include <nsm.h>
#include "tools/recipe.h"

/* Sources of what enters node i of n: idx[ptr[i]..ptr[i+1]), ascending; type: the relation of each
 * of these edges, or NULL. */
typedef struct {
    int64_t n;
    int64_t *ptr;
    int32_t *idx, *type;
} edge_rows;

/* How the edges within the target type are used: symmetric: in both directions, repeated ones once;
 * typed: the types of edges within it, counted from 0, are their relations; inverse: and edge k of
 * relation r turned around is one of relation r + (how many there are). */
typedef struct {
    bool symmetric, typed, inverse;
} edge_use;

/* What the model wants of the edges.  NSM_EINVAL: a model of relations wants them symmetric, or
 * another one inverse. */
int edge_use_of(nsm_ctx *ctx, const train_options *options, edge_use *out);
/* How many relations there are (0 unless typed), and with `of` [edge types] which of them each type
 * of edges is, -1: not within the target type. */
int edge_relations(const nsm_dataset *ds, edge_use use, int *of);
int edge_rows_make(const nsm_dataset *ds, edge_use use, edge_rows *out);
void edge_rows_clear(edge_rows *r);

typedef struct {
    const nsm_dataset *ds;
    const train_options *options;
    edge_rows rows;
    int relations; /* of the rows' edges, 0: they have no types */
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
