/* graph/sample.h - Drawing one batch, without a context: what the sampler's threads run.  Not
 * installed. */
#ifndef NSM_SAMPLE_H
#define NSM_SAMPLE_H
#include "graph/sampler.h"
#include "kernels/backend.h"

/* A hop's edges: what enters destination i is idx[ptr[i]..ptr[i+1]), numbers within the batch. */
typedef struct {
    int64_t dst, edges;
    int64_t *ptr;
    int32_t *idx, *type;      /* type: with types only */
    int64_t ptr_room, idx_room, type_room;
} nsmi_hop;

/* A batch as drawn; its arrays grow and are used again. */
typedef struct {
    int64_t seeds, nodes, edges, node_room;
    int32_t *node;
    nsmi_hop *hop;            /* [layers], the seeds' own first */
    float *x;                 /* [nodes, F], 64-byte aligned; pinned with a device that wants it */
    int64_t x_room;
    nsm_device *device;       /* what allocates x, NULL: plain memory */
} nsmi_draft;

/* What a thread needs to draw: numbers of nodes within the batch, in an open hash. */
typedef struct {
    struct {
        int32_t node, number;
    } * slot;
    int64_t slots;
    int shift;
    int64_t *place;
    int64_t place_room;
} nsmi_picker;

uint64_t nsmi_epoch_key(uint64_t seed, int64_t epoch);
/* Seeds in the order of an epoch. */
void nsmi_shuffle(uint64_t epoch_key, int64_t n, int32_t *node);
/* Draw batch `number`: NSM_OK, NSM_ENOMEM, or what the row reader says. */
int nsmi_sample(const nsm_sampler_config *c, nsmi_picker *p, uint64_t epoch_key, int64_t number,
                int64_t seeds, const int32_t *seed_node, nsmi_draft *d);
void nsmi_draft_clear(nsmi_draft *d, int layers);
void nsmi_picker_clear(nsmi_picker *p);

#endif
