/* kernels/cuda/loss.cu - Cross entropy and its gradient; kernels/cpu/loss.c has the formulas.
 *
 * A row of logits is a thread's, a warp's or a block's.  -log p[c] = lse - x[c], so all terms are
 * sums of x, weighted. */
#include "kernels/cuda/cuda.h"

typedef struct {
    nsmi_ce o;
    int64_t rows, c, inner;
    const float *x, *prob;
    const int32_t *target;
} losses;

/* Where class c of row r stands. */
static __device__ __forceinline__ int64_t logit_at(const losses &l, int64_t r, int64_t c)
{
    return (r / l.inner * l.c + c) * l.inner + r % l.inner;
}

/* The weight of row r, 0 where it does not count. */
static __device__ __forceinline__ float weight_of_row(const losses &l, int64_t r)
{
    if (!l.prob && l.target[r] == l.o.ignore_index) return 0;
    return l.o.row_weight ? l.o.row_weight[r] : 1;
}

/* The coefficient of -log p[c] but for the label: smoothing, or all of a probability target. */
static __device__ __forceinline__ float spread(const losses &l, int64_t at, int64_t c)
{
    float q = l.o.label_smoothing / (float)l.c;
    if (l.prob) q += (1 - l.o.label_smoothing) * l.prob[at];
    return l.o.class_weight ? q * l.o.class_weight[c] : q;
}

static __device__ __forceinline__ bool spreads(const losses &l)
{
    return l.prob || l.o.label_smoothing != 0;
}
/* A label out of range is read by nobody: the loss is NaN, and the check of indices tells. */
static __device__ __forceinline__ bool is_class(const losses &l, int32_t y)
{
    return y >= 0 && y < l.c;
}
static __device__ __forceinline__ float weight_of_label(const losses &l, int32_t y)
{
    return l.o.class_weight ? l.o.class_weight[y] : 1;
}

template <int G>
static __global__ void cross_entropy_kernel(losses l, float *loss, float *weight, float *lse)
{
    int64_t r = group_number<G>();
    if (r >= l.rows) return;
    bool first = group_place<G>() == 0;
    float w = weight_of_row(l, r), top = minus_infinity(), sum = 0, terms = 0;
    if (w == 0) { /* all threads of the group see the same */
        if (first) loss[r] = weight[r] = lse[r] = 0;
        return;
    }
    for (int64_t c = group_place<G>(); c < l.c; c += G) {
        float v = l.x[logit_at(l, r, c)];
        top = v > top ? v : top;
    }
    top = group_max<G>(top);
    for (int64_t c = group_place<G>(); c < l.c; c += G) sum += expf(l.x[logit_at(l, r, c)] - top);
    float log_sum = top + logf(group_sum<G>(sum));
    if (spreads(l))
        for (int64_t c = group_place<G>(); c < l.c; c += G) {
            int64_t at = logit_at(l, r, c);
            terms += spread(l, at, c) * (log_sum - l.x[at]);
        }
    terms = group_sum<G>(terms);
    if (!first) return;
    weight[r] = w;
    if (!l.prob) {
        int32_t y = l.target[r];
        float label = is_class(l, y) ? weight_of_label(l, y) : 0;
        terms += is_class(l, y)
                     ? (1 - l.o.label_smoothing) * label * (log_sum - l.x[logit_at(l, r, y)])
                     : not_a_number();
        weight[r] = w * label;
    }
    loss[r] = w * terms;
    lse[r] = log_sum;
}

/* dx = g (A p - coefficients), A their sum. */
template <int G>
static __global__ void cross_entropy_back_kernel(losses l, const float *lse, const float *dloss,
                                                 float beta, float *dx)
{
    int64_t r = group_number<G>();
    if (r >= l.rows) return;
    float w = weight_of_row(l, r), g = w * dloss[r], sum = 0;
    int32_t y = l.prob || w == 0 ? -1 : l.target[r];
    float label = is_class(l, y) ? (1 - l.o.label_smoothing) * weight_of_label(l, y) : 0;
    if (spreads(l) && w != 0)
        for (int64_t c = group_place<G>(); c < l.c; c += G) sum += spread(l, logit_at(l, r, c), c);
    float all = label + group_sum<G>(sum);
    for (int64_t c = group_place<G>(); c < l.c; c += G) {
        int64_t at = logit_at(l, r, c);
        float v = 0;
        if (w != 0) {
            v = all * expf(l.x[at] - lse[r]);
            if (spreads(l)) v -= spread(l, at, c);
            if (c == y) v -= label;
            v *= g;
        }
        put(&dx[at], beta, v);
    }
}

static losses losses_of(nsmi_ce o, int64_t outer, int64_t c, int64_t inner, const float *logits,
                        const int32_t *target, const float *prob)
{
    losses l = { o, outer * inner, c, inner, logits, prob, target };
    return l;
}

static void cross_entropy(nsm_device *d, nsmi_ce o, int64_t outer, int64_t c, int64_t inner,
                          const float *logits, const int32_t *target, const float *prob,
                          float *loss, float *weight, float *lse)
{
    losses l = losses_of(o, outer, c, inner, logits, target, prob);
    if (l.rows == 0) return;
    WITH_GROUP(inner > 1, c,
               NSM_LAUNCH(cross_entropy_kernel<G>, groups_of(l.rows, G), BLOCK, stream_of(d), l,
                          loss, weight, lse));
    launched(d);
}

static void cross_entropy_back(nsm_device *d, nsmi_ce o, int64_t outer, int64_t c, int64_t inner,
                               const float *logits, const int32_t *target, const float *prob,
                               const float *lse, const float *dloss, float beta, float *dlogits)
{
    losses l = losses_of(o, outer, c, inner, logits, target, prob);
    if (l.rows == 0) return;
    WITH_GROUP(inner > 1, c,
               NSM_LAUNCH(cross_entropy_back_kernel<G>, groups_of(l.rows, G), BLOCK, stream_of(d),
                          l, lse, dloss, beta, dlogits));
    launched(d);
}

void nsmi_cuda_loss(nsm_backend *be)
{
    be->cross_entropy = cross_entropy;
    be->cross_entropy_back = cross_entropy_back;
}
