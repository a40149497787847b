/* kernels/cpu/loss.c - Cross entropy and its gradient, with PyTorch's semantics.
 *
 * Per row, with class weights w, smoothing e, C classes, p = softmax of the logits x:
 *   index y:      loss = (1 - e) w[y] (-log p[y]) + e / C sum over c of w[c] (-log p[c]), weight w[y]
 *   probability:  loss = sum over c of w[c] q[c] (-log p[c]), q = (1 - e) prob + e / C,    weight 1
 * both times the row's own weight.  -log p[c] = lse - x[c], so all terms are sums of x, weighted.
 *
 * Rows of [outer, C, inner] with inner > 1 stand side by side: their classes are `inner` apart. */
#include "kernels/cpu/cpu.h"

/* What one row works on: element c of it is at [c * stride]. */
typedef struct {
    int64_t c, stride;
    const float *x, *prob;
} row;

static row row_of(int64_t r, int64_t c, int64_t inner, const float *logits, const float *prob)
{
    int64_t at = r / inner * c * inner + r % inner;
    return (row){ c, inner, logits + at, prob ? prob + at : NULL };
}

/* k classes from c on; rows that are not contiguous are read one by one */
static inline vf classes(const float *p, int64_t stride, int64_t c, int64_t k)
{
    if (stride == 1) return vf_get(p + c, k);
    vf v = {0};
    for (int64_t j = 0; j < k; j++) v[j] = p[(c + j) * stride];
    return v;
}

static float log_sum_exp(const row *r)
{
    vf top = vf_set(-INFINITY), sum = {0};
    VF_EACH(c, k, r->c, { top = vf_max(vf_first(classes(r->x, r->stride, c, k), k, top), top); });
    float most = vf_top(top);
    VF_EACH(c, k, r->c, {
        sum += vf_first(vf_exp(vf_first(classes(r->x, r->stride, c, k) - most, k, vf_set(0))), k,
                        vf_set(0));
    });
    return most + logf(vf_sum(sum));
}

/* k coefficients of -log p[c] but for the label: smoothing, or all of a probability target */
static inline vf spread(nsmi_ce o, const row *r, int64_t c, int64_t k)
{
    float even = o.label_smoothing / (float)r->c;
    vf q = vf_set(even);
    if (r->prob) q += (1 - o.label_smoothing) * classes(r->prob, r->stride, c, k);
    return o.class_weight ? q * vf_get(o.class_weight + c, k) : q;
}

static bool is_spread(nsmi_ce o, const row *r) { return r->prob || o.label_smoothing != 0; }
static float label_weight(nsmi_ce o, int32_t y) { return o.class_weight ? o.class_weight[y] : 1; }

/* The weight of row r, 0 where it does not count. */
static float row_weight(nsmi_ce o, const int32_t *target, int64_t r)
{
    if (target && target[r] == o.ignore_index) return 0;
    return o.row_weight ? o.row_weight[r] : 1;
}

static float row_loss(nsmi_ce o, const row *r, int32_t y, float lse)
{
    vf sum = {0};
    float loss = 0;
    if (is_spread(o, r)) {
        VF_EACH(c, k, r->c, {
            sum +=
                vf_first(spread(o, r, c, k) * (lse - classes(r->x, r->stride, c, k)), k, vf_set(0));
        });
        loss = vf_sum(sum);
    }
    if (!r->prob)
        loss += (1 - o.label_smoothing) * label_weight(o, y) * (lse - r->x[y * r->stride]);
    return loss;
}

static void cross_entropy(nsm_device *d, nsmi_ce o, int64_t outer, int64_t c, int64_t inner,
                          const float *logits, const int32_t *target, const float *prob,
                          float *loss, float *weight, float *lse)
{
    int64_t rows = outer * inner, size = nsmi_block_rows(c);
#pragma omp parallel for num_threads(nsmi_team(d, rows * c * 4)) schedule(static)
    for (int64_t b = 0; b < nsmi_blocks(rows, size); b++)
        for (int64_t i = b * size; i < nsmi_block_end(b, size, rows); i++) {
            float w = row_weight(o, prob ? NULL : target, i);
            loss[i] = weight[i] = lse[i] = 0;
            if (w == 0) continue;
            row r = row_of(i, c, inner, logits, prob);
            int32_t y = prob ? 0 : target[i];
            lse[i] = log_sum_exp(&r);
            loss[i] = w * row_loss(o, &r, y, lse[i]);
            weight[i] = prob ? w : w * label_weight(o, y);
        }
}

/* dx = g (A p - coefficients), A their sum. */
static void row_back(nsmi_ce o, const row *r, int32_t y, float lse, float g, float beta, float *dx)
{
    bool spreads = is_spread(o, r);
    float label = r->prob ? 0 : (1 - o.label_smoothing) * label_weight(o, y), all = label;
    if (spreads) {
        vf sum = {0};
        VF_EACH(c, k, r->c, { sum += vf_first(spread(o, r, c, k), k, vf_set(0)); });
        all += vf_sum(sum);
    }
    VF_EACH(c, k, r->c, {
        vf v = all * vf_exp(vf_first(classes(r->x, r->stride, c, k) - lse, k, vf_set(0)));
        if (spreads) v -= spread(o, r, c, k);
        v *= g;
        if (r->stride == 1)
            vf_put(dx + c, beta == 0 ? v : beta * vf_get(dx + c, k) + v, k);
        else
            for (int64_t j = 0; j < k; j++) {
                float *to = dx + (c + j) * r->stride;
                *to = beta == 0 ? v[j] : beta * *to + v[j];
            }
    });
    if (!r->prob) dx[y * r->stride] -= g * label;
}

static void skip_row(const row *r, float beta, float *dx)
{
    for (int64_t c = 0; c < r->c; c++) dx[c * r->stride] = beta == 0 ? 0 : beta * dx[c * r->stride];
}

static void cross_entropy_back(nsm_device *d, nsmi_ce o, int64_t outer, int64_t c, int64_t inner,
                               const float *logits, const int32_t *target, const float *prob,
                               const float *lse, const float *dloss, float beta, float *dlogits)
{
    int64_t rows = outer * inner, size = nsmi_block_rows(c);
#pragma omp parallel for num_threads(nsmi_team(d, rows * c * 4)) schedule(static)
    for (int64_t b = 0; b < nsmi_blocks(rows, size); b++)
        for (int64_t i = b * size; i < nsmi_block_end(b, size, rows); i++) {
            row r = row_of(i, c, inner, logits, prob);
            float w = row_weight(o, prob ? NULL : target, i), *dx = dlogits + (r.x - logits);
            if (w == 0)
                skip_row(&r, beta, dx);
            else
                row_back(o, &r, prob ? 0 : target[i], lse[i], w * dloss[i], beta, dx);
        }
}

void NSMI_FILL(loss)(nsm_backend *be)
{
    be->cross_entropy = cross_entropy;
    be->cross_entropy_back = cross_entropy_back;
}
