/* kernels/cuda/attend_rows.cu - Scaled dot product attention by rows, in float32, and rotation by
 * position.
 *
 * For what tiles do not hold or would hold mostly empty (attend.cu): heads of more than MOST_HEAD
 * numbers, and a few queries at a time, as in decoding, where keys are read once or a few times
 * anyhow and a tile of 64 queries would compute for nobody.
 *
 * A warp takes a query: its lanes score 32 keys at a time, and a softmax that goes on from tile to
 * tile sums their values, so nothing of n x m is written.  Backward takes a query for dq and a key
 * for dk and dv, each computing the scores again: no atomics.  A warp holds WIDE columns of a
 * result; where there are more, it goes over the keys again for each.
 *
 * Letters as in backend.h: B rows of a batch, H heads, G groups, n queries, m keys; i query, j
 * key. */
#include "kernels/cuda/attend.h"
#include "kernels/cuda/rows.h"

/* One query of one head, and which keys it sees. */
typedef struct { int64_t b, h, i, g, lo, hi, y; const float *q; } query;

static __device__ __forceinline__ query query_of(const nsmi_attention &a, const float *q, int64_t b,
                                                 int64_t h, int64_t i)
{
    query r = { b,
                h,
                i,
                h / (a.heads / a.groups),
                0,
                nsmi_length(a.keys, b, a.m),
                ((b * a.n + i) * a.heads + h) * a.dv,
                q + b * a.q[0] + i * a.q[1] + h * a.q[2] };
    int64_t at = i + offset_of(a, b);
    if (a.causal && r.hi > at + 1) r.hi = at + 1;
    if (a.window && at - a.window + 1 > 0) r.lo = at - a.window + 1;
    return r;
}

static __device__ __forceinline__ float score_of(const nsmi_attention &a, const query &r,
                                                 const float *k, int64_t j)
{
    float s = a.scale * dot_of(r.q, k + r.b * a.k[0] + j * a.k[1] + r.g * a.k[2], a.dk);
    if (a.bias)
        s += a.bias[r.b * a.bias_stride[0] + r.h * a.bias_stride[1] + r.i * a.bias_stride[2] +
                    j * a.bias_stride[3]];
    return s;
}

/* ---- forward ---- */

static __global__ void attention_kernel(int64_t queries, nsmi_attention a, const float *q,
                                        const float *k, const float *v, float *y, float *lse)
{
    int64_t t = group_number<LANES>();
    if (t >= queries) return;
    query r = query_of(a, q, t / a.n / a.heads, t / a.n % a.heads, t % a.n);
    const float *values = v + r.b * a.v[0] + r.g * a.v[2];
    for (int64_t first = 0; first < a.dv; first += WIDE) {
        float top = minus_infinity(), sum = 0, held[HELD];
        clear(held);
        for (int64_t j0 = r.lo; j0 < r.hi; j0 += LANES) {
            int64_t j = j0 + lane_of();
            float s = j < r.hi ? score_of(a, r, k, j) : minus_infinity(), best = warp_max(s);
            if (best == minus_infinity()) continue;
            if (best > top) {
                float scale = expf(top - best);
                sum *= scale;
                for (int x = 0; x < HELD; x++) held[x] *= scale;
                top = best;
            }
            float p = s == minus_infinity() ? 0 : expf(s - top);
            sum += p;
            for (int64_t e = j0; e < j0 + LANES && e < r.hi; e++)
                add_row(held, __shfl_sync(0xffffffffu, p, (int)(e - j0)), values + e * a.v[1],
                        first, a.dv);
        }
        sum = warp_sum(sum);
        put_row(held, sum > 0 ? 1 / sum : 0, 0, y + r.y, first, a.dv);
        if (first == 0 && lane_of() == 0) lse[t] = sum > 0 ? top + logf(sum) : 0;
    }
}

void nsmi_cuda_attend_rows(nsm_device *d, const nsmi_attention *a, const float *q, const float *k,
                           const float *v, float *y, float *lse)
{
    int64_t queries = a->batch * a->heads * a->n;
    NSM_LAUNCH(attention_kernel, groups_of(queries, LANES), BLOCK, stream_of(d), queries, *a, q, k,
               v, y, lse);
    launched(d);
}

/* ---- backward ---- */

static __global__ void attention_delta_kernel(int64_t queries, nsmi_attention a, attended f)
{
    int64_t t = group_number<LANES>();
    if (t >= queries) return;
    query r = query_of(a, f.q, t / a.n / a.heads, t / a.n % a.heads, t % a.n);
    float delta = dot_warp(f.y + r.y, f.dy + r.y, a.dv);
    if (lane_of() == 0) f.delta[t] = delta;
}

/* p of query r and key j, and the gradient of the score. */
static __device__ __forceinline__ float pair_of(const nsmi_attention &a, const attended &f,
                                                const query &r, int64_t j, float *ds)
{
    int64_t t = (r.b * a.heads + r.h) * a.n + r.i;
    float s = score_of(a, r, f.k, j), p = s == minus_infinity() ? 0 : expf(s - f.lse[t]);
    *ds = p *
          (dot_of(f.dy + r.y, f.v + r.b * a.v[0] + j * a.v[1] + r.g * a.v[2], a.dv) - f.delta[t]);
    return p;
}

/* A warp a query: dq, and ds where it is wanted. */
static __global__ void attention_query_kernel(int64_t queries, nsmi_attention a, attended f,
                                              float beta, float *dq, float *ds)
{
    int64_t t = group_number<LANES>();
    if (t >= queries) return;
    query r = query_of(a, f.q, t / a.n / a.heads, t / a.n % a.heads, t % a.n);
    for (int64_t first = 0; first == 0 || (dq && first < a.dk); first += WIDE) {
        float held[HELD];
        clear(held);
        for (int64_t j0 = r.lo; j0 < r.hi; j0 += LANES) {
            float g = 0;
            int64_t j = j0 + lane_of();
            if (j < r.hi) pair_of(a, f, r, j, &g);
            if (ds && first == 0 && j < r.hi) ds[t * a.m + j] = g;
            for (int64_t e = j0; dq && e < j0 + LANES && e < r.hi; e++)
                add_row(held, __shfl_sync(0xffffffffu, g, (int)(e - j0)),
                        f.k + r.b * a.k[0] + e * a.k[1] + r.g * a.k[2], first, a.dk);
        }
        if (dq) put_row(held, a.scale, beta, dq + (r.q - f.q), first, a.dk);
    }
}

/* A warp a key and group: dk and dv, over the queries that see it. */
static __global__ void attention_key_kernel(int64_t keys, nsmi_attention a, attended f,
                                            float beta_k, float beta_v, float *dk, float *dv)
{
    int64_t t = group_number<LANES>();
    if (t >= keys) return;
    int64_t j = t % a.m, g = t / a.m % a.groups, b = t / a.m / a.groups, each = a.heads / a.groups,
            off = offset_of(a, b), lo = 0, hi = a.n;
    if (a.causal && j - off > 0) lo = j - off;
    if (a.window && j + a.window - off < hi) hi = j + a.window - off;
    if (j >= nsmi_length(a.keys, b, a.m)) hi = 0;
    int64_t size = a.dk > a.dv ? a.dk : a.dv;
    for (int64_t first = 0; first < size; first += WIDE) {
        float held_k[HELD], held_v[HELD];
        clear(held_k);
        clear(held_v);
        for (int64_t h = g * each; h < (g + 1) * each; h++)
            for (int64_t i0 = lo; i0 < hi; i0 += LANES) {
                float p = 0, ds = 0;
                if (i0 + lane_of() < hi)
                    p = pair_of(a, f, query_of(a, f.q, b, h, i0 + lane_of()), j, &ds);
                for (int64_t i = i0; i < i0 + LANES && i < hi; i++) {
                    query r = query_of(a, f.q, b, h, i);
                    add_row(held_k, __shfl_sync(0xffffffffu, ds, (int)(i - i0)), r.q, first, a.dk);
                    add_row(held_v, __shfl_sync(0xffffffffu, p, (int)(i - i0)), f.dy + r.y, first,
                            a.dv);
                }
            }
        if (dk)
            put_row(held_k, a.scale, beta_k, dk + b * a.k[0] + j * a.k[1] + g * a.k[2], first,
                    a.dk);
        if (dv) put_row(held_v, 1, beta_v, dv + b * a.v[0] + j * a.v[1] + g * a.v[2], first, a.dv);
    }
}

void nsmi_cuda_attend_delta(nsm_device *d, const nsmi_attention *a, const attended *f)
{
    int64_t queries = a->batch * a->heads * a->n;
    NSM_LAUNCH(attention_delta_kernel, groups_of(queries, LANES), BLOCK, stream_of(d), queries, *a,
               *f);
}

void nsmi_cuda_attend_rows_back(nsm_device *d, const nsmi_attention *a, const attended *f,
                                const attention_grads *to)
{
    int64_t queries = a->batch * a->heads * a->n, keys = a->batch * a->groups * a->m;
    if (queries && (to->dq || to->ds))
        NSM_LAUNCH(attention_query_kernel, groups_of(queries, LANES), BLOCK, stream_of(d), queries,
                   *a, *f, to->beta[0], to->dq, to->ds);
    if (keys && (to->dk || to->dv))
        NSM_LAUNCH(attention_key_kernel, groups_of(keys, LANES), BLOCK, stream_of(d), keys, *a, *f,
                   to->beta[1], to->beta[2], to->dk, to->dv);
    launched(d);
}

/* ---- rotation by position ---- */

typedef struct {
    /* units of a row: its pairs, and the columns that stay */
    int64_t n, cols, heads, size, pairs, units;
    bool side_by_side;
    double base;
    int64_t offset;
    const int32_t *offsets;
    float sign;
} turning_pairs;

static __global__ void rotate_kernel(int64_t items, turning_pairs r, const float *x, float beta,
                                     float *y)
{
    EACH_ITEM(i, items) {
        int64_t row = i / r.units, unit = i % r.units, at = row * r.cols,
                turned = r.heads * r.pairs, still = r.size - 2 * r.pairs;
        if (unit >= turned) {
            unit -= turned;
            at += unit < r.heads * still ? unit / still * r.size + 2 * r.pairs + unit % still
                                         : unit + turned * 2;
            put(&y[at], beta, x[at]);
            continue;
        }
        int64_t c = unit % r.pairs, other = r.side_by_side ? 1 : r.pairs;
        double place = (double)(row % r.n + (r.offsets ? r.offsets[row / r.n] : r.offset));
        double angle = (double)r.sign * place * pow(r.base, -(double)c / (double)r.pairs);
        float cosine = (float)cos(angle), sine = (float)sin(angle), a, b;
        at += unit / r.pairs * r.size + (r.side_by_side ? 2 * c : c);
        a = x[at];
        b = x[at + other];
        put(&y[at], beta, a * cosine - b * sine);
        put(&y[at + other], beta, a * sine + b * cosine);
    }
}

static void rotate(nsm_device *d, int64_t batch, int64_t n, int64_t cols, int64_t heads,
                   int64_t size, int64_t pairs, bool side_by_side, double base, int64_t offset,
                   const int32_t *offsets, float sign, const float *x, float beta, float *y)
{
    turning_pairs r = { n,    cols,   heads,   size, pairs, cols - heads * pairs, side_by_side,
                        base, offset, offsets, sign };
    FOR_ITEMS(d, rotate_kernel, batch * n * r.units, r, x, beta, y);
}

void nsmi_cuda_attend_rotate(nsm_backend *be) { be->rotate = rotate; }
