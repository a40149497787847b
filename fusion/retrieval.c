/* fusion/retrieval.c - See retrieval.h. */
#include "config.h"
#include <math.h>
#include "base/internal.h"
#include "fusion/parts.h"
#include "fusion/retrieval.h"

struct nsm_retrieval {
    nsm_module module;
    nsm_fused *fused;
    nsm_tensor *scale;
};

nsm_retrieval *nsm_retrieval_new(nsm_ctx *ctx, const nsm_fused_config *config)
{
    if (!nsmi_failed(ctx) && config->question_features)
        nsm_error_set(ctx, NSM_EINVAL, "nsm_retrieval_new: questions of %d numbers, want none",
                      config->question_features);
    nsm_retrieval *r = nsmi_failed(ctx) ? NULL : nsmi_calloc(ctx, 1, sizeof *r);
    if (!r) return NULL;
    nsm_module_init(&r->module, ctx);
    r->fused = nsm_fused_new(ctx, config);
    nsm_module_child(&r->module, "fused", nsm_fused_module(r->fused));
    r->scale = nsmi_filled(&r->module, "scale", 1, logf(1 / 0.07f));
    if (!nsmi_failed(ctx)) return r;
    nsm_retrieval_free(r);
    return NULL;
}

void nsm_retrieval_free(nsm_retrieval *r)
{
    if (!r) return;
    nsm_module_clear(&r->module);
    nsm_fused_free(r->fused);
    free(r);
}

nsm_module *nsm_retrieval_module(nsm_retrieval *r) { return r ? &r->module : NULL; }
nsm_fused *nsm_retrieval_fused(nsm_retrieval *r) { return r ? r->fused : NULL; }

nsm_tensor *nsm_retrieval_side(nsm_tape *tape, nsm_retrieval *r, const nsm_fused_input *side)
{
    nsm_tensor *y = nsm_fused_apply(tape, r->fused, side); /* [B, 1, D] */
    int64_t d = nsm_fused_settings(r->fused)->outputs;
    return y ? nsm_normalize(tape, nsm_reshape(tape, y, 2, (int64_t[]){ -1, d }), 1e-12f) : NULL;
}

static nsm_tensor *bounded(nsm_tape *tape, const nsm_retrieval *r)
{
    return nsm_clamp(tape, r->scale, -INFINITY, logf(100));
}

nsm_tensor *nsm_retrieval_scores(nsm_tape *tape, nsm_retrieval *r, nsm_tensor *u, nsm_tensor *v)
{
    return nsm_mul(tape, nsm_matmul(tape, u, v, false, true), nsm_exp(tape, bounded(tape, r)));
}

nsm_tensor *nsm_retrieval_loss(nsm_tape *tape, nsm_retrieval *r, nsm_tensor *u, nsm_tensor *v)
{
    return nsm_info_nce(tape, u, v,
                        &(nsm_info_nce_config){ .symmetric = true, .scale = bounded(tape, r) });
}
