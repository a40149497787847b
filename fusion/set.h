/* fusion/set.h - The Neural State Machine over sets: elements of several modalities in one pool of
 * states.
 *
 *   z = ln_in(W_m x + b_m) of each modality's elements, side by side; k = z W_k to unit length, v =
 *   z W_v
 *   age    : of a pool that is handed over, states that went unused are given up
 *   open   : elements far from every state open states, farthest first
 *   write  : each element is routed to the few states nearest to its key; a gated update joins what
 *   came
 *   reason : states hear of each other by attention, `rounds` times with the same weights
 *   read   : queries, or the elements themselves, read all states by attention and by the keys'
 *   nearness
 *
 * The result does not depend on the order of elements or modalities, but for exact ties.  Time O(n
 * s d), memory O(n (s + d)).
 *
 * Letters: B sets, n elements, F features of an element, d width, s states, s0 of them learned, H
 * heads. Parameters, weights [out, in]: w_in_0 [d, F0], b_in_0, ...; w_in_query, b_in_query;
 * mu_key, mu [s0, d]; ln_in_w, ln_in_b, and of comm, mlp, read; w_k, w_v, w_q; w_cq, w_ck, w_cv,
 * w_co; w_rq, w_rk, w_rv, w_ro, w_rg, b_rg; w_z, u_z, b_z, and of r, h; log_gamma_w, null_w,
 * log_gamma_r [1]; w_m1 [2d, d], b_m1, w_m2, b_m2. */
#ifndef NSM_SET_H
#define NSM_SET_H
#include "base/module.h"
#include "base/state.h"
#include "base/tape.h"
#ifdef __cplusplus
extern "C" {
#endif

enum { NSM_SET_MODALITIES = 8 };

/* Start from zero, set what you need: a field left 0 takes the value in ( ). */
typedef struct {
    int width;                             /* d, must be given */
    int slots;                             /* s (16) */
    int learned;                           /* s0, at least 1 (1) */
    int top;                               /* states that a routing keeps (2) */
    int heads, rounds;                     /* (4) (1) */
    int modalities;                        /* at least 1, must be given */
    int features[NSM_SET_MODALITIES];      /* F of each */
    int query_features;                    /* 0: the elements read */
    float tau_new, rho, tau_prune;         /* (0.9) (0.5) (0.1) */
    /* deviation of b_in at the start; large, elements of a modality look alike: doc/set.md (0.1) */
    float spread;
} nsm_set_config;

typedef struct nsm_set nsm_set;

/* Make one, or NULL.  The caller frees it, before ctx.  Errors: NSM_EINVAL; NSM_ENOMEM. */
nsm_set *nsm_set_new(nsm_ctx *ctx, const nsm_set_config *config);
void nsm_set_free(nsm_set *s); /* NULL is allowed */
nsm_module *nsm_set_module(nsm_set *s);

/* The elements of one modality: x [B, n, F]; NULL: it is missing.  length int32 [B]: elements that
 * are there (n). */
typedef struct { nsm_tensor *x, *length; } nsm_set_input;

/* What a call showed, elements counted over the modalities as they are listed; on the tape. */
typedef struct {
    nsm_tensor *opened;   /* int32 [B,n] the state an element opened, -1 none */
    nsm_tensor *route;    /* [B,n,s] the shares of its routing; 1 - their sum is the null share */
    nsm_tensor *mass;     /* [B,s] elements that each state took */
    nsm_tensor *read;     /* [B,H,readers,s] what each reader took of each state */
} nsm_set_view;

/* in: one for each modality.  query [B, readers, query_features], or NULL without query_features.
 * pool (may be NULL): a state to begin from, left as it is then; gradients stop at its old values.
 * view may be NULL.
 * -> y [B, readers, d], the readers being the queries or all elements.
 * Errors: NSM_ESHAPE; NSM_EINVAL every modality is missing. */
nsm_tensor *nsm_set_apply(nsm_tape *tape, nsm_set *s, const nsm_set_input *in, nsm_tensor *query,
                          nsm_state *pool, nsm_set_view *view);

/* A fresh pool for B sets: the learned states alone.  The caller frees it, before ctx. */
nsm_state *nsm_set_pool(nsm_set *s, int64_t batch);

#ifdef __cplusplus
}
#endif
#endif
