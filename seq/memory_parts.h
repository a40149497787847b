/* seq/memory_parts.h - The mixer "nsm" on tensors in place of a state, so that gradients reach what
 * it began from and come from what it leaves.  Not installed. */
#ifndef NSM_SEQ_MEMORY_PARTS_H
#define NSM_SEQ_MEMORY_PARTS_H
#include "seq/mixer.h"

/* What it begins from; usage, alive, birth and a phase in float64 are left as after the last
 * token. */
typedef struct {
    nsm_tensor *key, *value;            /* [B,P,s,dk], [B,P,s,dv] */
    nsm_tensor *usage, *alive, *birth;  /* [B,P,s] float32, uint8, int64 */
    nsm_tensor *tail[3];                /* of q, k, v: [B,c-1,..] */
    nsm_tensor *past_k, *past_v;        /* [B,window-1,L,..] of the heads with one */
    nsm_tensor *phase;                  /* [B,2,H] float64, or float32 */
    nsm_tensor *seen;                   /* int64 [B] */
    nsm_tensor *dense;                  /* [B,H-P,dk,dv] of the dense heads, or NULL */
} nsmi_memory_parts;

typedef struct {
    nsm_tensor *y;
    /* to go on with; no gradient passes through the last two */
    nsm_tensor *key, *value, *dense, *tail[3], *past[2];
    nsm_tensor *map[3];                          /* W x before the convolutions, of q, k, v */
    /* as the slots and the window take them; of the clocks */
    nsm_tensor *k, *v, *rate[2];
} nsmi_memory_results;

/* given NULL: the start of a sequence, and nothing to go on with but key and value. */
int nsmi_memory_run(nsm_tape *tape, nsm_mixer *mixer, nsm_tensor *x, nsm_tensor *length,
                    const nsmi_memory_parts *given, nsmi_memory_results *out);

#endif
