/* kernels/cuda/attend.cu - Scaled dot product attention on sequences by tiles, on tensor cores.
 *
 * Dao, "FlashAttention-2", arXiv:2307.08691.  A block takes a head's 64 queries (128 in bf16) and
 * goes over the keys that any of them sees, 64 at a time: keys and values pass through shared
 * memory, each asked for while the other is computed with; scores stay in registers, where a
 * softmax that goes on from tile to tile makes them the weights of the values.  So nothing of n x m
 * is written, keys are read once a block, and tiles that nobody sees are not read at all.
 *
 * What products read is rounded as the device's precision says (attend.h): copies, dense and filled
 * up to 32, 64 or 128 numbers a head, are written first, so that a tile is copied without a look at
 * strides, alignment and edges.  Softmax, sums and results are float32.
 *
 * Few queries, or heads of more than 128 numbers, go by rows (attend_rows.cu).  Not chosen: keys
 * shared out over blocks where queries are few and keys many; warp groups' products of sm_90, which
 * are faster but would need a kernel of their own.
 *
 * Letters as in backend.h: B rows of a batch, H heads, G groups, n queries, m keys; i query, j
 * key. */
#include "kernels/cuda/attend.h"

enum { KEYS = 64 }; /* of a tile */

/* The best score so far of a lane's rows, and its part of their sums. */
template <int M> struct softmax_rows { float top[M][2], sum[M][2]; };

/* Scores to weights; keep: what the sums until now are multiplied with. */
template <int M, int N>
static __device__ __forceinline__ void soften(float (&s)[M][N][4], softmax_rows<M> *r,
                                              float (&keep)[M][2])
{
    UNROLL for (int m = 0; m < M; m++)
    UNROLL for (int h = 0; h < 2; h++) {
        float best = r->top[m][h], sum = 0;
        UNROLL for (int n = 0; n < N; n++)
            best = fmaxf(best, fmaxf(s[m][n][2 * h], s[m][n][2 * h + 1]));
        for (int o = 1; o < 4; o *= 2) best = fmaxf(best, __shfl_xor_sync(0xffffffffu, best, o));
        const float base = best == minus_infinity() ? 0 : best;
        keep[m][h] = exp2_of(r->top[m][h] - base);
        r->top[m][h] = best;
        UNROLL for (int n = 0; n < N; n++)
        UNROLL for (int e = 2 * h; e < 2 * h + 2; e++) {
            s[m][n][e] = exp2_of(s[m][n][e] - base);
            sum += s[m][n][e];
        }
        r->sum[m][h] = r->sum[m][h] * keep[m][h] + sum;
    }
}

/* What a block computes with: the copies, of its queries and head. */
template <class P> struct block_head {
    int64_t b, h;
    int first; /* query */
    const typename P::number *q, *k, *v;
};

template <class P, int D, int ROWS>
static __device__ __forceinline__ block_head<P> head_of(const nsmi_attention &a,
                                                        const typename P::number *q,
                                                        const typename P::number *k,
                                                        const typename P::number *v)
{
    /* the last queries first: with causal they have most to do */
    const int64_t tiles = ceil_of(a.n, ROWS), t = blockIdx.x / tiles, b = t / a.heads,
                  h = t % a.heads, g = b * a.groups + h / (a.heads / a.groups);
    const int first = (int)(tiles - 1 - blockIdx.x % tiles) * ROWS;
    return { b, h, first, q + (t * a.n + first) * D, k + g * a.m * D, v + g * a.m * D };
}

/* Results of a block, and log of the sums. */
template <class P, int D, int M>
static __device__ __forceinline__ void finish_rows(const nsmi_attention &a, const block_head<P> &at,
                                                   softmax_rows<M> r, float (&o)[M][D / 8][4],
                                                   int row, float *y, float *lse)
{
    UNROLL for (int m = 0; m < M; m++)
    UNROLL for (int h = 0; h < 2; h++) {
        float sum = r.sum[m][h];
        for (int x = 1; x < 4; x *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, x);
        const int i = row + m * 16 + h * 8 + (int)lane_of() / 4;
        if (lane_of() % 4 == 0 && i < a.n)
            lse[(at.b * a.heads + at.h) * a.n + i] =
                sum == 0 ? 0 : (r.top[m][h] + log2f(sum)) / LOG2E;
        const float scale = sum == 0 ? 0 : 1 / sum;
        UNROLL for (int n = 0; n < D / 8; n++)
        UNROLL for (int e = 2 * h; e < 2 * h + 2; e++) o[m][n][e] *= scale;
    }
    put_rows<P, D, M>(o, row, (int)a.n, a.dv, 1, 0, y + (at.b * a.n * a.heads + at.h) * a.dv,
                      a.heads * a.dv);
}

template <class P, int D, int M, bool BIAS>
static __global__ void __launch_bounds__(THREADS_OF, M > 1 ? 2 : row_of<P, D>::HELD)
    attention_tiles_kernel(nsmi_attention a, const typename P::number *packed_q,
                           const typename P::number *packed_k, const typename P::number *packed_v,
                           float *y, float *lse)
{
    enum { ROWS = BLOCK_ROWS * M, LD = row_of<P, D>::LD };
    typename P::number *q = shared_tiles<P>(), *k = q + ROWS * LD, *v = k + KEYS * LD;
    const block_head<P> at = head_of<P, D, ROWS>(a, packed_q, packed_k, packed_v);
    const sight see = sight_of(a, at.b);
    const float *bias = bias_of(a, at.b, at.h);
    const int mine = (int)threadIdx.x / LANES * 16 * M, row = at.first + mine;
    const int last = min(at.first + ROWS, see.n) - 1, to = min(see.keys, last + see.ahead + 1);
    int j = max(0, at.first + see.behind + 1);
    softmax_rows<M> r;
    float o[M][D / 8][4];
    clear(o);
    UNROLL for (int m = 0; m < M; m++)
    UNROLL for (int h = 0; h < 2; h++) r.top[m][h] = minus_infinity(), r.sum[m][h] = 0;
    if (j < to) {
        fetch<P, D, ROWS>(q, at.q, see.n - at.first);
        fetch<P, D, KEYS>(k, at.k + (int64_t)j * D, see.keys - j);
    }
    for (; j < to; j += KEYS) {
        float s[M][KEYS / 8][4], keep[M][2];
        uint32_t p[KEYS / P::STEP][M][4];
        arrive();
        fetch<P, D, KEYS>(v, at.v + (int64_t)j * D, see.keys - j);
        product_of_rows<P, D>(s, q + mine * LD, k);
        finish_scores<BIAS, false>(s, a, see, bias, all_see(see, row, 16 * M, j, KEYS), row, j);
        soften(s, &r, keep);
        as_operand<P>(p, s);
        arrive();
        if (j + KEYS < to)
            fetch<P, D, KEYS>(k, at.k + (int64_t)(j + KEYS) * D, see.keys - j - KEYS);
        add_product<P, D>(o, keep, p, v);
    }
    finish_rows<P, D, M>(a, at, r, o, row, y, lse);
}

template <class P, int D, bool BIAS>
static void attend_tiles(nsm_device *d, const nsmi_attention *a, const float *q, const float *k,
                         const float *v, float *y, float *lse)
{
    enum { M = P::CHUNK == 8 && !BIAS ? 2 : 1, ROWS = BLOCK_ROWS * M };
    const strided from[] = { queries_of(a, q), keys_of(a, k), values_of(a, v) };
    const typename P::number *packed[3];
    size_t bytes = (ROWS + 2 * KEYS) * row_of<P, D>::LD * sizeof(typename P::number);
    if (!pack<P, D>(d, a->batch, 3, from, packed)) return;
    LAUNCH_TILES(d, (attention_tiles_kernel<P, D, M, BIAS>),
                 (unsigned)(ceil_of(a->n, ROWS) * a->heads * a->batch), bytes, *a, packed[0],
                 packed[1], packed[2], y, lse);
}

static void attention(nsm_device *d, const nsmi_attention *a, const float *q, const float *k,
                      const float *v, float *scratch, float *y, float *lse)
{
    (void)scratch;
    if (a->batch * a->heads * a->n == 0) return;
    if (!fits_tiles(a)) nsmi_cuda_attend_rows(d, a, q, k, v, y, lse);
    else WITH_ROUNDING(d, a, a->bias, (attend_tiles<P, D, BIAS>(d, a, q, k, v, y, lse)));
}

void nsmi_cuda_attend(nsm_backend *be)
{
    be->attention = attention;
    nsmi_cuda_attend_back(be);
    nsmi_cuda_attend_rotate(be);
}
