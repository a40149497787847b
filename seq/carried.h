/* seq/carried.h - What mixers with a state of a fixed size share: reading and leaving its parts,
 * short convolutions and gates.  Not installed. */
#ifndef NSM_SEQ_CARRIED_H
#define NSM_SEQ_CARRIED_H
#include "seq/internal.h"

/* The part to begin from: NULL without a state. */
static inline nsm_tensor *nsmi_begin(nsm_tape *tape, const nsm_state *s, const char *part)
{
    return s ? nsmi_state_read(tape, s, part) : NULL;
}
static inline void nsmi_leave(nsm_state *s, const char *part, const nsm_tensor *y)
{
    if (s && y) nsmi_state_write(s, part, y);
}

/* A causal convolution whose last rows are carried in `part`. */
static inline nsm_tensor *nsmi_carried_conv(nsm_tape *tape, nsm_tensor *x, nsm_tensor *w,
                                            nsm_tensor *bias, bool silu, nsm_tensor *length,
                                            nsm_state *s, const char *part)
{
    nsm_tensor *next = NULL,
               *y = nsm_conv1d(tape, x, w, bias, silu, nsmi_begin(tape, s, part), length, &next);
    nsmi_leave(s, part, next);
    return y;
}

/* A recurrence whose state is carried in `part`; c is completed. */
static inline nsm_tensor *nsmi_carried_recurrence(nsm_tape *tape, nsm_tensor *q, nsm_tensor *k,
                                                  nsm_tensor *v, nsm_recurrence_config c,
                                                  nsm_tensor *length, nsm_state *s,
                                                  const char *part)
{
    nsm_tensor *next = NULL;
    c.state = nsmi_begin(tape, s, part);
    c.length = length;
    nsm_tensor *y = nsm_linear_recurrence(tape, q, k, v, &c, &next);
    nsmi_leave(s, part, next);
    return y;
}

/* The part of a state that such a convolution of C channels carries. */
static inline void nsmi_add_conv(nsm_state *s, const char *part, int64_t taps, int64_t channels)
{
    nsm_state_add(s, part, NSM_F32, 2, (int64_t[]){ taps - 1, channels });
}

/* Rows (last axis) of size n divided by sqrt(sum of squares + eps). */
static inline nsm_tensor *nsmi_unit_length(nsm_tape *tape, nsm_tensor *x, float eps)
{
    if (!x) return NULL;
    float n = (float)x->dim[x->rank - 1];
    return nsm_scale(tape, nsm_rms_norm(tape, x, NULL, 1, eps / n), 1 / sqrtf(n), 0);
}

/* The attention of seq/linear_transformer.c: q, k [B,n,H,D], v [B,n,H,E] -> [B,n,H,E].  *sums (sums
 * may be NULL): to begin from, then those after the last token.  mask (NULL: none) multiplies the
 * keys' features, [B,n,1,1]. */
nsm_tensor *nsmi_linear_attention(nsm_tape *tape, nsm_tensor *q, nsm_tensor *k, nsm_tensor *v,
                                  bool causal, float eps, nsm_tensor *mask, nsm_tensor **sums);
/* The mixer's forward on such sums in place of a state, so that gradients pass through them. */
nsm_tensor *nsmi_linear_transformer(nsm_tape *tape, nsm_mixer *m, nsm_tensor *x, nsm_tensor *length,
                                    nsm_tensor **sums);
/* That of seq/gsa.c: q [B,n,H,D], k [B,n,G,D], v [B,n,G,E], s, f [B,n,G,M] -> [B,n,H,E].  state: to
 * begin from, then after. */
nsm_tensor *nsmi_slot_attention(nsm_tape *tape, nsm_tensor *q, nsm_tensor *k, nsm_tensor *v,
                                nsm_tensor *s, nsm_tensor *f, float scale, nsm_tensor *length,
                                nsm_tensor *state[2]);

/* The largest divisor of n that is at most `most`: sizes of heads where none is given. */
static inline int nsmi_divisor(int n, int most)
{
    int d = n < most ? n : most;
    while (d > 1 && n % d) d--;
    return d;
}
#endif
