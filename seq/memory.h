/* seq/memory.h - The Neural State Machine over sequences: what can be seen of it.
 *
 * The mixer "nsm" (seq/mixer.h) keeps a pool of s states for each head.  A token that no state
 * explains opens one; any other is routed to the few that it matches and overwrites only these
 * (delta rule).  It reads by attention over the states, beside a short exact window.  States that
 * go unused are given up.  Heads of a second kind (dense_heads) keep a fading sum of all tokens
 * beside the pools of the others.
 *
 * nsm_mixer_set() changes s, topk, tau_new, beta_min, rho, tau_prune and tau_recycle of a trained
 * mixer; a state has the s that the mixer had when it was made. */
#ifndef NSM_SEQ_MEMORY_H
#define NSM_SEQ_MEMORY_H
#include "base/ops.h"
#include "seq/mixer.h"
#ifdef __cplusplus
extern "C" {
#endif

/* What one call of forward showed: B rows, n tokens, P heads with a pool (the first of all H), s
 * states.  The null share of a routing is 1 less the sum of its row; the states alive are the sum
 * of theirs. */
typedef struct {
    nsm_slots_trace slots;       /* routing maps, usage, events */
    /* int64 [B,P,s] the token whose key each state had before the first of these, -1: none */
    nsm_tensor *birth;
    nsm_tensor *seen;            /* int64 [B] tokens before these */
    nsm_tensor *beta;            /* [B,n,P] importance: strength of writing */
    /* [B,n,P*dv] logit of the share of memory, against the window; 0 with gate=silu */
    nsm_tensor *gate;
    /* [B,n,2H] what the clocks advance: of writing, of reading; NULL without clock */
    nsm_tensor *rate;
} nsm_memory_view;

/* Watch a mixer "nsm": every later forward leaves what it showed in the view, at some cost; off
 * (the default) it costs nothing.  Errors: NSM_EINVAL it is another mixer. */
int nsm_memory_watch(nsm_mixer *m, bool on);
/* NULL: nothing yet.  Valid until the next forward. */
const nsm_memory_view *nsm_memory_seen(const nsm_mixer *m);

#ifdef __cplusplus
}
#endif
#endif
