/* fusion/parts.h - What the systems of this folder share: linear maps and norms by name, which
 * elements are there, attention that can be looked at.  Not installed. */
#ifndef NSM_FUSION_PARTS_H
#define NSM_FUSION_PARTS_H
#include "base/internal.h"
#include "base/ops.h"
#include "fusion/set.h"

/* A weight and its bias, NULL: none; of a linear map or of a norm. */
typedef struct {
    nsm_tensor *w, *b;
} nsmi_pair;

/* A matrix [rows, cols] drawn from N(0, deviation^2); a vector of one value. */
nsm_tensor *nsmi_drawn(nsm_module *m, const char *name, int64_t rows, int64_t cols,
                       float deviation);
nsm_tensor *nsmi_filled(nsm_module *m, const char *name, int64_t count, float value);
/* <name>.weight [out, in] uniform in +-1/sqrt(in), <name>.bias [out] zeros. */
nsmi_pair nsmi_linear_new(nsm_module *m, const char *name, int64_t out, int64_t in, bool bias);
/* <name>.weight [n] ones, <name>.bias [n] zeros. */
nsmi_pair nsmi_norm_new(nsm_module *m, const char *name, int64_t n);
static inline nsm_tensor *nsmi_mapped(nsm_tape *tape, nsmi_pair p, nsm_tensor *x)
{
    return nsm_linear(tape, x, p.w, p.b);
}
static inline nsm_tensor *nsmi_normed(nsm_tape *tape, nsmi_pair p, nsm_tensor *x, float eps)
{
    return nsm_layer_norm(tape, x, p.w, p.b, 1, eps);
}

/* The same rows for every set: x [rows, d] -> [B, rows, d]. */
nsm_tensor *nsmi_for_each(nsm_tape *tape, nsm_tensor *x, int64_t batch);

/* Which elements of `count` modalities side by side are there, host uint8 [B, n] on the tape; NULL:
 * all of them, or an error. */
uint8_t *nsmi_presence(nsm_tape *tape, const nsm_set_input *in, int count, int64_t batch,
                       int64_t n);

/* The same to be added to scores: 0, or -inf for an absent element, [B, n]. */
nsm_tensor *nsmi_shut(nsm_tape *tape, const nsm_set_input *in, int count, int64_t batch, int64_t n);

/* softmax(q k^T / sqrt(D) + bias + shut) written out, for who wants to see it: q [B,n,H,D], k
 * [B,m,H,D], bias [B,1,n,m] or NULL, shut [B,m] or NULL -> [B,H,n,m].  A row that shut leaves
 * nothing to see gets zeros. */
nsm_tensor *nsmi_attention_weights(nsm_tape *tape, nsm_tensor *q, nsm_tensor *k, nsm_tensor *bias,
                                   nsm_tensor *shut);

#endif
