/* seq/backbone.h - One model around every mixer, so that comparisons are fair.
 *
 *   x   = embed(input) (+ position) (+ type), normed with embed_norm
 *   x   = x + mixer(norm1(x));  x = x + ff(norm2(x))                in every layer
 *         or, with post_norm, x = norm1(x + mixer(x));  x = norm2(x + ff(x))
 *   h   = norm(x) (not with post_norm);  y = head(pool(h))
 *   ff  = W_down act(W_up x), or W_down (act(u) * v) with u, v = the halves of W_up x when gated;
 *   or a mixer of its own, `feed`
 *
 * Letters: B batch, n tokens, d width, V vocabulary, F features.
 * Parameters: embed.weight [V, d], or [d, F] and embed.bias; position.weight [places, d];
 * type.weight [types, d]; embed_norm.; layers.0.norm1. layers.0.mixer. layers.0.norm2. layers.0.up.
 * layers.0.down., or layers.0.feed., ...; norm.; head.weight [outputs, d] unless tied,
 * head.bias. */
#ifndef NSM_BACKBONE_H
#define NSM_BACKBONE_H
#include "base/ops.h"
#include "seq/mixer.h"
#ifdef __cplusplus
extern "C" {
#endif

typedef enum { NSM_POSITION_NONE, NSM_POSITION_LEARNED, NSM_POSITION_SINUSOIDAL } nsm_position;
typedef enum { NSM_POOL_NONE, NSM_POOL_LAST, NSM_POOL_FIRST, NSM_POOL_MEAN } nsm_pool;

/* Start from zero, set what you need: a field left 0 takes the value in ( ). */
typedef struct {
    const char *mixer;       /* must be given */
    const char *options;     /* of the mixer (none) */
    int width;               /* d, must be > 0 */
    int layers;              /* (2) */
    int vocab;               /* V: the input is tokens */
    int features;            /* F: the input is numbers; one of both must be given, unless bare */
    bool bare;               /* layers alone: no embedding, no last norm, no head */
    int outputs;             /* of the head (V) */
    int inner;               /* of the feed-forward (4 d); -1: there is none */
    nsm_act act;             /* (gelu) */
    bool gated;
    /* a mixer in place of the feed-forward: RWKV's channel mixing (none) */
    const char *feed;
    const char *feed_options; /* its options (none) */
    nsm_position position;   /* (none) */
    int places;              /* learned positions, must be > 0 with them */
    int types;               /* token types, as in BERT (0) */
    bool rms_norm;           /* RMSNorm (LayerNorm) */
    bool post_norm, embed_norm;
    float eps;               /* of the norms (1e-5) */
    float last_eps;          /* of `norm` (eps) */
    nsm_pool pool;           /* what the head looks at (every token) */
    bool tied;               /* the head's weight is the embedding's */
    bool head_bias;
    bool no_bias;            /* none in the feed-forward */
    float dropout;           /* of the embedding and of what layers add (0) */
} nsm_backbone_config;

typedef struct nsm_backbone nsm_backbone;

/* Make a model, or NULL.  The caller frees it, before ctx.  Errors: NSM_EINVAL, or the mixer's own;
 * NSM_ENOMEM. */
nsm_backbone *nsm_backbone_new(nsm_ctx *ctx, const nsm_backbone_config *config);
void nsm_backbone_free(nsm_backbone *b); /* NULL is allowed */
nsm_module *nsm_backbone_module(nsm_backbone *b);
/* with every default filled in */
const nsm_backbone_config *nsm_backbone_settings(const nsm_backbone *b);
nsm_mixer *nsm_backbone_mixer(nsm_backbone *b, int at); /* of layer `at` */

/* Input: tokens int32 [B, n] or features [B, n, F].  type (may be NULL): int32 [B, n].  length, s:
 * as in nsm_mixer_forward().  hidden: h [B, n, d].  apply: y [B, n, outputs], or [B, outputs] with
 * a pool.
 * Errors: NSM_ESHAPE; NSM_EINVAL a token or a place is out of range. */
nsm_tensor *nsm_backbone_hidden(nsm_tape *tape, nsm_backbone *b, nsm_tensor *input,
                                nsm_tensor *type, nsm_tensor *length, nsm_state *s);
/* x [B, n, d], embedded already */
nsm_tensor *nsm_backbone_layers(nsm_tape *tape, nsm_backbone *b, nsm_tensor *x, nsm_tensor *length,
                                nsm_state *s);
/* [..., d] -> [..., outputs] */
nsm_tensor *nsm_backbone_head(nsm_tape *tape, nsm_backbone *b, nsm_tensor *h);
nsm_tensor *nsm_backbone_apply(nsm_tape *tape, nsm_backbone *b, nsm_tensor *input,
                               nsm_tensor *length, nsm_state *s);
/* The two halves of apply(): x [B, n, d], ready for the layers; then from x what apply() gives. */
nsm_tensor *nsm_backbone_embed(nsm_tape *tape, nsm_backbone *b, nsm_tensor *input, nsm_tensor *type,
                               nsm_state *s);
nsm_tensor *nsm_backbone_answer(nsm_tape *tape, nsm_backbone *b, nsm_tensor *x, nsm_tensor *length,
                                nsm_state *s);
/* One token: int32 [B] or [B, F] -> [B, outputs]. */
nsm_tensor *nsm_backbone_step(nsm_tape *tape, nsm_backbone *b, nsm_tensor *input, nsm_state *s);

nsm_state *nsm_backbone_state(nsm_backbone *b, int64_t batch);
int nsm_backbone_restart(nsm_backbone *b, nsm_state *s);

/* The first module whose result is not finite on this input ("layers.3.mixer"), or NULL. */
const char *nsm_backbone_fault(nsm_tape *tape, nsm_backbone *b, nsm_tensor *input,
                               nsm_tensor *length);

#ifdef __cplusplus
}
#endif
#endif
