/* fusion/set_parts.h - The set form on tensors in place of a state, so that gradients reach the
 * pool it begins from and come from the one it leaves.  Not installed. */
#ifndef NSM_SET_PARTS_H
#define NSM_SET_PARTS_H
#include "fusion/set.h"

/* key, value [B,s,d]; alive uint8, usage float32 [B,s]: read and left as they are then. */
typedef struct { nsm_tensor *key, *value, *alive, *usage; } nsmi_pool_parts;

/* given NULL: a fresh pool.  closed [B,s] (NULL: none is): -inf for a state that nobody reads, else
 * 0.  *out: the pool that is left. */
nsm_tensor *nsmi_set_run(nsm_tape *tape, nsm_set *s, const nsm_set_input *in, nsm_tensor *query,
                         const nsmi_pool_parts *given, nsm_tensor *closed, nsmi_pool_parts *out,
                         nsm_set_view *view);

#endif
