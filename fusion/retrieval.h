/* fusion/retrieval.h - Finding a thing's other side: its picture by its words, or the other way.
 *
 * CLIP (Radford et al., "Learning transferable visual models from natural language supervision",
 * arXiv:2103.00020, figure 3) with one fused model (fusion/fused.h) as both its towers: a side is
 * what some modalities tell, the others missing.  Both sides go through the same pool of states.
 *
 *   u_i = y_i / |y_i|,  y = the model's outputs for one side of thing i;  v_i likewise, the other's
 *   S   = e^s U V^T,    s learned, from ln(1/0.07) on, at most ln 100
 *   L   = (mean_i of -log softmax(S_i.)_i + mean_i of -log softmax(S_.i)_i) / 2     InfoNCE
 *
 * Letters: B things, D the configuration's outputs.
 * Parameters: fused. (those of the fused model), scale [1], which is s. */
#ifndef NSM_RETRIEVAL_H
#define NSM_RETRIEVAL_H
#include "fusion/fused.h"
#ifdef __cplusplus
extern "C" {
#endif

typedef struct nsm_retrieval nsm_retrieval;

/* Make a model of two modalities or more, without questions, or NULL.  The caller frees it, before
 * ctx.  Errors: NSM_EINVAL the configuration has questions; those of nsm_fused_new(). */
nsm_retrieval *nsm_retrieval_new(nsm_ctx *ctx, const nsm_fused_config *config);
void nsm_retrieval_free(nsm_retrieval *r); /* NULL is allowed */
nsm_module *nsm_retrieval_module(nsm_retrieval *r);
nsm_fused *nsm_retrieval_fused(nsm_retrieval *r); /* for what it takes; it belongs to r */

/* One side of B things: what is missing is left NULL.  -> [B, D], rows of length 1. */
nsm_tensor *nsm_retrieval_side(nsm_tape *tape, nsm_retrieval *r, const nsm_fused_input *side);
/* u [A, D], v [B, D] -> S [A, B] */
nsm_tensor *nsm_retrieval_scores(nsm_tape *tape, nsm_retrieval *r, nsm_tensor *u, nsm_tensor *v);
/* Both sides of the same B things [B, D] -> L. */
nsm_tensor *nsm_retrieval_loss(nsm_tape *tape, nsm_retrieval *r, nsm_tensor *u, nsm_tensor *v);

#ifdef __cplusplus
}
#endif
#endif
