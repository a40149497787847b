/* fusion/slot_attention.h - Slot attention (Locatello et al., arXiv:2006.15055, algorithm 1).
 *
 *   S    = mu + exp(log_sigma) noise;  x = LN(x);  k = W_k x;  v = W_v x
 *   `iterations` times, with the same weights:
 *     A  = softmax over the slots of k (W_q LN(S))^T / sqrt(d)      slots compete for elements
 *     u  = (A + eps)^T v / sum over the elements of (A + eps)
 *     S  = GRU(u, S);  S = S + W_2 relu(W_1 LN(S))
 *
 * Letters: B sets, n elements, F features, s slots, d width of a slot.  Cost: O(n s d) a time.
 * Parameters, weights [out, in]: slots_mu, slots_log_sigma [1, 1, d]; norm_input., norm_slots.,
 * norm_mlp.; to_q.weight [d, d], to_k.weight, to_v.weight [d, F]; gru.weight_ih, gru.weight_hh
 * [3d, d], gru.bias_ih, gru.bias_hh [3d]; mlp.0. [hidden, d], mlp.2. [d, hidden]. */
#ifndef NSM_SLOT_ATTENTION_H
#define NSM_SLOT_ATTENTION_H
#include "base/module.h"
#include "base/tape.h"
#ifdef __cplusplus
extern "C" {
#endif

/* Start from zero, set what you need: a field left 0 takes the value in ( ). */
typedef struct {
    int inputs;       /* F, must be given */
    int slots, width; /* s, d, must be given */
    int hidden;       /* of the feed-forward (2 d) */
    int iterations;   /* (3) */
    float eps;        /* (1e-8) */
    float norm_eps;   /* (1e-5) */
} nsm_slot_attention_config;

typedef struct nsm_slot_attention nsm_slot_attention;

/* Make one, or NULL.  The caller frees it, before ctx.  Errors: NSM_EINVAL; NSM_ENOMEM. */
nsm_slot_attention *nsm_slot_attention_new(nsm_ctx *ctx, const nsm_slot_attention_config *config);
void nsm_slot_attention_free(nsm_slot_attention *s); /* NULL is allowed */
nsm_module *nsm_slot_attention_module(nsm_slot_attention *s);

/* x [B, n, F] -> slots [B, s, d].  noise [B, s, d]; NULL: drawn from ctx's generator.  shut [B, n]
 * (NULL: all are there): 0, or -inf for an absent element.  seen (may be NULL) gets A of the last
 * time [B, n, s], zeros for absent elements.  Errors: NSM_ESHAPE. */
nsm_tensor *nsm_slot_attention_apply(nsm_tape *tape, nsm_slot_attention *s, nsm_tensor *x,
                                     nsm_tensor *noise, nsm_tensor *shut, nsm_tensor **seen);

#ifdef __cplusplus
}
#endif
#endif
