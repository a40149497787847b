/* graph/sampler.h - Neighbour sampling: batches of nodes with a few of their neighbours.
 *
 * Hamilton, Ying and Leskovec, "Inductive Representation Learning on Large Graphs", NIPS 2017,
 * arXiv:1706.02216, section 3.1 and appendix A.
 *
 * A batch has a block for each layer: a bipartite graph whose destinations are the first of its
 * sources.  The last layer's destinations are the batch's seeds; each destination of a block gets
 * fan_out of its neighbours, drawn without replacement, as sources; these are the destinations of
 * the block before.
 *
 * A batch depends on (seed, epoch, its number) alone: not on threads, nor on the batches before it.
 * Threads of the sampler's own prepare the next batches while the caller trains; they touch no
 * context.  Only the rows of edges that enter each node are needed: 8n + 4E bytes. */
#ifndef NSM_SAMPLER_H
#define NSM_SAMPLER_H
#include "graph/graph.h"
#ifdef __cplusplus
extern "C" {
#endif

/* Fill out [count, F] with the features of these nodes, for features that stay in a file.  Called
 * by the sampler's threads, several at once if workers > 1.  Returns NSM_OK or a code. */
typedef int (*nsm_row_reader)(void *user, int64_t count, const int32_t *node, float *out);

/* Start from zero, set what you need: a field left 0 takes the value in ( ). */
typedef struct {
    int64_t nodes;          /* n */
    const int64_t *ptr;     /* [n + 1] host; kept, as are all arrays and pointers here */
    const int32_t *idx;     /* [ptr[n]] host: what enters each node */
    int types;              /* of edges: the blocks' edges have them, too (none) */
    const int32_t *type;    /* [ptr[n]] host: 0..types-1, what each edge's is */
    int layers;             /* hops, must be > 0 */
    const int *fan_out;     /* [layers] of each hop, the seeds' own first; -1: all neighbours */
    int64_t seeds;          /* how many nodes an epoch goes over */
    const int32_t *seed_node; /* [seeds] (0 .. seeds-1) */
    int batch;              /* seeds a batch (1024) */
    bool in_order;          /* take the seeds as they stand (shuffle them anew each epoch) */
    uint64_t seed;          /* of everything drawn (0) */
    int workers;            /* threads (1); from nsm_sampler_start() to the epoch's end the context
                             * has so many fewer, at least 1, or its barriers would wait for a
                             * core */
    bool light; /* they have little to do beside a step: the context keeps its threads */
    int ahead;              /* batches that are prepared at most (2 a worker) */
    int64_t features;       /* F: gather the features of a batch's nodes (none) */
    const float *x;         /* [n, F] host, or */
    nsm_row_reader read;    /* read them */
    void *user;             /* of read */
} nsm_sampler_config;

typedef struct {
    int64_t number;         /* of the batch in its epoch */
    int64_t seeds;          /* the first of node[] */
    int64_t nodes;          /* sources of the first block */
    const int32_t *node;    /* [nodes] host: which node of the graph each is */
    int64_t edges;          /* sampled in all blocks */
    int layers;
    /* [layers] the first layer's first, as nsm_gnn_apply_blocks() wants them */
    nsm_graph **block;
    nsm_tensor *x;          /* [nodes, F], or NULL without features */
} nsm_batch;

typedef struct nsm_sampler nsm_sampler;

/* Errors: NSM_EINVAL a number is out of range, a seed is no node (with its place), ptr does not
 * rise; NSM_ENOMEM also when a thread cannot be started. */
nsm_sampler *nsm_sampler_new(nsm_ctx *ctx, const nsm_sampler_config *config);
void nsm_sampler_free(nsm_sampler *s); /* stops the threads; NULL is allowed */

int64_t nsm_sampler_batches(const nsm_sampler *s); /* of an epoch */

/* Begin an epoch, at its batch number `first` (0; more to go on where a run was stopped).  What was
 * prepared of another epoch is dropped. */
int nsm_sampler_start(nsm_sampler *s, int64_t epoch, int64_t first);

/* The next batch, or NULL: at the end of the epoch without an error, else with one.  It is the
 * sampler's, until the next call of one of these; reset the tape that saw it before. */
const nsm_batch *nsm_sampler_next(nsm_sampler *s);

#ifdef __cplusplus
}
#endif
#endif
