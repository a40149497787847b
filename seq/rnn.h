/* seq/rnn.h - Stacks of LSTM (Hochreiter and Schmidhuber, Neural Computation 1997) or GRU (Cho et
 * al.,
 * arXiv:1406.1078) layers, one or two directions, as torch.nn has them.  As mixers they are "lstm"
 * and "gru".
 *
 *   LSTM   i, f, g, o = W_ih x + b_ih + W_hh h + b_hh;  c' = sig(f) c + sig(i) tanh(g);  h' =
 *          sig(o) tanh(c') with a projection h' = W_hr sig(o) tanh(c') (Sak et al.,
 *          arXiv:1402.1128)
 *   GRU    r, z, n = W_ih x + b_ih;  n = tanh(n + sig(r) (W_hn h + b_hn));  h' = (1 - sig(z)) n +
 *   sig(z) h
 *
 * Letters: B batch, n steps, I input size, H units, P size of h (H, or the projection), G gates (4,
 * 3). Parameters of layer l: weight_ih_l0 [G*H, I], weight_hh_l0 [G*H, P], bias_ih_l0, bias_hh_l0
 * [G*H], weight_hr_l0 [P, H]; of the other direction the same with _reverse behind. */
#ifndef NSM_RNN_H
#define NSM_RNN_H
#include "base/module.h"
#include "base/tape.h"
#ifdef __cplusplus
extern "C" {
#endif

/* Start from zero, set what you need: a field left 0 takes the value in ( ). */
typedef struct {
    bool gru;            /* (LSTM) */
    int input, hidden;   /* I, H, must be > 0 */
    int layers;          /* (1) */
    int projection;      /* P of an LSTM (0: none) */
    bool two_way;        /* both directions, their results side by side */
    bool no_bias;
} nsm_rnn_config;

typedef struct nsm_rnn nsm_rnn;

/* Make a stack, weights uniform in +-1/sqrt(H), or NULL.  The caller frees it, before ctx.  Errors:
 * NSM_EINVAL; NSM_ENOMEM. */
nsm_rnn *nsm_rnn_new(nsm_ctx *ctx, const nsm_rnn_config *config);
void nsm_rnn_free(nsm_rnn *r); /* NULL is allowed */
nsm_module *nsm_rnn_module(nsm_rnn *r);

/* x [B, n, I] -> y [B, n, P], or [B, n, 2 P] two-way.  h0 [L, B, P], c0 [L, B, H] or NULL (0), L
 * layers times directions, a layer's directions beside each other; hn, cn (may be NULL): the same
 * after the last step.  length: int32 [B] or NULL.
 * Errors: NSM_ESHAPE; NSM_EINVAL lengths with a projection. */
nsm_tensor *nsm_rnn_apply(nsm_tape *tape, nsm_rnn *r, nsm_tensor *x, nsm_tensor *h0, nsm_tensor *c0,
                          nsm_tensor *length, nsm_tensor **hn, nsm_tensor **cn);

#ifdef __cplusplus
}
#endif
#endif
