/* vision/patch.h - Images as elements: each patch a linear map of its pixels.
 *
 * Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, arXiv:2010.11929, eq. 1: patches
 * that do not overlap, a linear map of each, an optional class token before them, learned places
 * added.
 *
 * Letters: B images of C channels, H x W; patches of P x Q, n = (H / P)(W / Q) of them; d features.
 * Parameters: projection.weight [d, C, P, Q], projection.bias [d]; cls_token [1, 1, d];
 * position_embeddings [1, n (+ 1), d] where places are learned.  Cost: O(B C H W d). */
#ifndef NSM_PATCH_H
#define NSM_PATCH_H
#include "base/module.h"
#include "base/ops.h"
#include "vision/place.h"
#ifdef __cplusplus
extern "C" {
#endif

/* Start from zero, set what you need: a field left 0 takes the value in ( ). */
typedef struct {
    int channels, height, width; /* C, H, W: must be given */
    int patch[2];                /* P, Q: must be given, and divide H and W */
    int features;                /* d: must be given (appended places make it d + 2) */
    bool class_token;            /* one more element, the first (no); not with appended places */
    nsm_place place;             /* (appended) */
} nsm_patch_config;

typedef struct nsm_patch nsm_patch;

/* Make one: weights normal, deviation 0.02, as the paper's code.  Return it, or NULL.  The caller
 * frees it, before ctx.  Errors: NSM_EINVAL; NSM_ENOMEM. */
nsm_patch *nsm_patch_new(nsm_ctx *ctx, const nsm_patch_config *config);
void nsm_patch_free(nsm_patch *patch); /* NULL is allowed */
nsm_module *nsm_patch_module(nsm_patch *patch);

/* Elements of an image, the class token among them; features of one. */
int64_t nsm_patch_elements(const nsm_patch *patch);
int64_t nsm_patch_features(const nsm_patch *patch);

/* x [B, C, H, W] -> [B, n, d], row after row; it belongs to the tape.
 * Errors: NSM_ESHAPE; NSM_ENOMEM. */
nsm_tensor *nsm_patch_apply(nsm_tape *tape, nsm_patch *patch, nsm_tensor *x);

#ifdef __cplusplus
}
#endif
#endif
