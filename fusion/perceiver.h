/* fusion/perceiver.h - Perceiver (Jaegle et al., arXiv:2103.03206) and Perceiver IO (Jaegle et al.,
 * arXiv:2107.14795).
 *
 *   layer(x, c):  h = x + W_o attention(q = LN1(x), k and v = LN2(c)), c = x with LN1 for
 *                 self-attention;  y = h + W_2 gelu(W_1 LN(h))
 *   encode(x):    N learned latents, one layer over the elements x, then `blocks` times the same
 *                 `layers` layers of self-attention
 *   decode(q):    one layer of the queries over the latents, then a linear map
 *
 * Letters: B sets, n elements, D features of an element, N latents, d width of a latent, Q width of
 * a query, r queries.  Cost: O(n N d) for the cross attention, O(N^2 d) for each layer behind it.
 *
 * Parameters have the names of Hugging Face's PerceiverModel and PerceiverBasicDecoder, weights
 * [out, in]: embeddings.latents [N, d]; encoder.cross_attention. and encoder.self_attends.0., ...;
 * decoder.output_position_encodings.position_embeddings [r, Q], decoder.decoding_cross_attention.,
 * decoder.final_layer.; of a layer attention.self.layernorm1. (query, and with it keys and values
 * of self-attention), attention.self.layernorm2. (what is attended to), attention.self.query. key.
 * value., attention.output.dense., layernorm., mlp.dense1., mlp.dense2. */
#ifndef NSM_PERCEIVER_H
#define NSM_PERCEIVER_H
#include "base/module.h"
#include "base/tape.h"
#ifdef __cplusplus
extern "C" {
#endif

/* ---- one layer ---- */
/* Start from zero, set what you need: a field left 0 takes the value in ( ). */
typedef struct {
    int width;        /* of x, must be given */
    int context;      /* width of what x attends to (0: self-attention) */
    int heads;        /* must divide the channels (8) */
    int qk_channels;  /* of queries and of keys, all heads together (context; width) */
    int v_channels;   /* of values (qk_channels) */
    int widening;     /* inner width of the feed-forward, times width (1) */
    bool no_residual; /* x is not added to what it attended to */
    float eps;        /* of the norms (1e-5) */
} nsm_perceiver_layer_config;

typedef struct nsm_perceiver_layer nsm_perceiver_layer;

/* Make one, or NULL.  The caller frees it, before ctx.  Errors: NSM_EINVAL; NSM_ENOMEM. */
nsm_perceiver_layer *nsm_perceiver_layer_new(nsm_ctx *ctx,
                                             const nsm_perceiver_layer_config *config);
void nsm_perceiver_layer_free(nsm_perceiver_layer *l); /* NULL is allowed */
nsm_module *nsm_perceiver_layer_module(nsm_perceiver_layer *l);

/* x [B, n, width], context [B, m, context] (NULL for self-attention) -> [B, n, width].
 * shut [B, m] (NULL: all are seen): added to the scores, 0 or -inf for what is not to be seen; a
 * row that sees nothing attends to nothing.  seen (may be NULL) gets the weights, the mean of the
 * heads [B, n, m], through which no gradient passes.  Errors: NSM_ESHAPE. */
nsm_tensor *nsm_perceiver_layer_apply(nsm_tape *tape, nsm_perceiver_layer *l, nsm_tensor *x,
                                      nsm_tensor *context, nsm_tensor *shut, nsm_tensor **seen);

/* ---- the whole ---- */
/* Start from zero, set what you need: a field left 0 takes the value in ( ). */
typedef struct {
    int inputs;                        /* D, must be given */
    int latents, width;                /* N, d, must be given */
    int layers, blocks;                /* of self-attention (1), applied so many times (1) */
    int self_heads, cross_heads;       /* (8) (8) */
    int qk_channels, v_channels;       /* of the encoder's layers (as a layer has them) */
    int self_widening, cross_widening; /* (1) (1) */
    int query;                         /* Q (0: there is no decoder) */
    int queries;                       /* r learned queries (0: they are given) */
    int decoder_heads;                 /* (8) */
    int decoder_qk_channels, decoder_v_channels;
    int decoder_widening;  /* (1) */
    bool decoder_residual; /* the query is added to what it has attended to */
    int outputs;           /* of the linear map behind the decoder (0: there is none) */
    float eps;             /* of the norms (1e-5) */
} nsm_perceiver_config;

typedef struct nsm_perceiver nsm_perceiver;

/* Make one, or NULL.  The caller frees it, before ctx.  Errors: NSM_EINVAL; NSM_ENOMEM. */
nsm_perceiver *nsm_perceiver_new(nsm_ctx *ctx, const nsm_perceiver_config *config);
void nsm_perceiver_free(nsm_perceiver *p); /* NULL is allowed */
nsm_module *nsm_perceiver_module(nsm_perceiver *p);

/* x [B, n, D], shut [B, n] -> latents [B, N, d]; seen [B, N, n]: of the cross attention. */
nsm_tensor *nsm_perceiver_encode(nsm_tape *tape, nsm_perceiver *p, nsm_tensor *x, nsm_tensor *shut,
                                 nsm_tensor **seen);
/* latents [B, N, d], query [B, r, Q] (NULL: the learned ones), shut [B, N] (NULL: all are read) ->
 * [B, r, outputs], or [B, r, Q]; seen [B, r, N].  Errors: NSM_EINVAL no decoder, or no query;
 * NSM_ESHAPE. */
nsm_tensor *nsm_perceiver_decode(nsm_tape *tape, nsm_perceiver *p, nsm_tensor *latents,
                                 nsm_tensor *query, nsm_tensor *shut, nsm_tensor **seen);

#ifdef __cplusplus
}
#endif
#endif
