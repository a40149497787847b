/* kernels/cuda/attend_back.cu - Backward of attention by tiles, on tensor cores; see attend.cu.
 *
 * Two passes, each of which computes the scores again, so that no two blocks add to one number: two
 * runs give the same bits.
 *
 *   P = exp(S - lse)   dP = dy V'   dS = P * (dP - delta)   delta = <y, dy>
 *
 * One pass has a block for 64 queries and goes over keys: dq = scale dS K, and dS itself where it
 * is wanted.  The other has a block for 64 keys and goes over the queries that see them, of all
 * heads that share the keys, with everything turned: S' = K Q', so dv = P' dy and dk = scale dS' Q
 * have what a lane holds as their first operand.
 *
 * Letters as in backend.h. */
#include "kernels/cuda/attend.h"

/* Copies, in the order of pack(). */
template <class P> struct packed_back { const typename P::number *q, *k, *v, *dy; };

/* What is moved past the rows that a block holds.  Fewer keys where numbers are long, so that all
 * tiles together stay within the 99 KB of the smallest device; fewer queries where registers would
 * run out. */
template <class P, int D> struct moved {
    enum { KEYS = P::CHUNK == 4 && D > 64 ? 32 : 64, QUERIES = P::PARTS == 2 || D > 64 ? 32 : 64 };
};
template <class P, int D> static size_t back_bytes(int moved_rows)
{
    return 2 * (BLOCK_ROWS + moved_rows) * row_of<P, D>::LD * sizeof(typename P::number);
}

static __device__ __forceinline__ float lse_of(const float *lse, int i, int n)
{
    return i < n ? LOG2E * lse[i] : 0;
}

/* Scores s and dP to P and dS; lse and delta of the head's queries. */
template <bool TURNED, int N>
static __device__ __forceinline__ void finish_pairs(float (&s)[1][N][4], float (&dp)[1][N][4],
                                                    const float *lse, const float *delta, int n,
                                                    int row, int col)
{
    const int i = TURNED ? col + (int)lane_of() % 4 * 2 : row + (int)lane_of() / 4;
    UNROLL for (int f = 0; f < N; f++)
    UNROLL for (int e = 0; e < 4; e++) {
        const int at = TURNED ? i + f * 8 + e % 2 : i + e / 2 * 8;
        s[0][f][e] = exp2_of(s[0][f][e] - lse_of(lse, at, n));
        dp[0][f][e] = s[0][f][e] * (dp[0][f][e] - (at < n ? delta[at] : 0));
    }
}

/* A block's queries: dq, and ds where it is wanted. */
template <class P, int D, bool BIAS>
static __global__ void __launch_bounds__(THREADS_OF, row_of<P, D>::HELD)
    attention_tiles_query_kernel(nsmi_attention a, packed_back<P> x, const float *lse,
                                 const float *delta, float beta, float *dq, float *ds)
{
    enum { LD = row_of<P, D>::LD, KEYS_OF = moved<P, D>::KEYS };
    typename P::number *q = shared_tiles<P>(), *dy = q + BLOCK_ROWS * LD,
                       *k = dy + BLOCK_ROWS * LD, *v = k + KEYS_OF * LD;
    const int64_t tiles = ceil_of(a.n, BLOCK_ROWS), t = blockIdx.x / tiles, b = t / a.heads,
                  h = t % a.heads, g = b * a.groups + h / (a.heads / a.groups);
    const int first = (int)(tiles - 1 - blockIdx.x % tiles) * BLOCK_ROWS;
    const int mine = (int)threadIdx.x / LANES * 16, row = first + mine;
    const sight see = sight_of(a, b);
    const int to = min(see.keys, min(first + BLOCK_ROWS, see.n) + see.ahead);
    const float *bias = bias_of(a, b, h);
    const float ones[1][2] = { { 1, 1 } };
    int j = max(0, first + see.behind + 1);
    float sum[1][D / 8][4];
    clear(sum);
    x.k += g * a.m * D;
    x.v += g * a.m * D;
    if (j < to) {
        fetch<P, D, BLOCK_ROWS>(q, x.q + (t * a.n + first) * D, see.n - first);
        fetch<P, D, BLOCK_ROWS>(dy, x.dy + (t * a.n + first) * D, see.n - first);
        fetch<P, D, KEYS_OF>(v, x.v + (int64_t)j * D, see.keys - j);
    }
    for (; j < to; j += KEYS_OF) {
        float s[1][KEYS_OF / 8][4], dp[1][KEYS_OF / 8][4];
        uint32_t operand[KEYS_OF / P::STEP][1][4];
        fetch<P, D, KEYS_OF>(k, x.k + (int64_t)j * D, see.keys - j);
        arrive();
        product_of_rows<P, D>(s, q + mine * LD, k);
        finish_scores<BIAS, false>(s, a, see, bias, all_see(see, row, 16, j, KEYS_OF), row, j);
        product_of_rows<P, D>(dp, dy + mine * LD, v);
        finish_pairs<false>(s, dp, lse + t * a.n, delta + t * a.n, see.n, row, j);
        if (BIAS && ds)
            each_number(dp, row, j, [&](float &y, int i, int c) {
                if (i < see.n && c < see.keys) ds[(t * a.n + i) * a.m + c] = y;
            });
        as_operand<P>(operand, dp);
        __syncthreads();
        if (j + KEYS_OF < to)
            fetch<P, D, KEYS_OF>(v, x.v + (int64_t)(j + KEYS_OF) * D, see.keys - j - KEYS_OF);
        add_product<P, D>(sum, ones, operand, k);
        __syncthreads();
    }
    if (dq)
        put_rows<P, D, 1>(sum, row, see.n, a.dk, a.scale, beta, dq + b * a.q[0] + h * a.q[2],
                          a.q[1]);
}

/* A block's keys: dk and dv, over the queries that see them. */
template <class P, int D, bool BIAS>
static __global__ void __launch_bounds__(THREADS_OF, row_of<P, D>::HELD)
    attention_tiles_key_kernel(nsmi_attention a, packed_back<P> x, const float *lse,
                               const float *delta, float beta_k, float beta_v, float *dk,
                               float *dv)
{
    enum { LD = row_of<P, D>::LD, QUERIES = moved<P, D>::QUERIES };
    typename P::number *k = shared_tiles<P>(), *v = k + BLOCK_ROWS * LD,
                       *q = v + BLOCK_ROWS * LD, *dy = q + QUERIES * LD;
    const int64_t tiles = ceil_of(a.m, BLOCK_ROWS), t = blockIdx.x / tiles, b = t / a.groups,
                  g = t % a.groups, each = a.heads / a.groups, head = b * a.heads + g * each;
    const int first = (int)(blockIdx.x % tiles) * BLOCK_ROWS;
    const int mine = (int)threadIdx.x / LANES * 16, row = first + mine;
    const sight see = sight_of(a, b);
    const int last = min(first + BLOCK_ROWS, see.keys) - 1, from = max(0, first - see.ahead),
              to = first < see.keys ? min(see.n, last - see.behind) : 0;
    const int steps = to > from ? (int)ceil_of(to - from, QUERIES) : 0, all = (int)each * steps;
    const float ones[1][2] = { { 1, 1 } };
    float sum_k[1][D / 8][4], sum_v[1][D / 8][4];
    clear(sum_k);
    clear(sum_v);
    if (all) {
        fetch<P, D, BLOCK_ROWS>(k, x.k + (t * a.m + first) * D, see.keys - first);
        fetch<P, D, BLOCK_ROWS>(v, x.v + (t * a.m + first) * D, see.keys - first);
    }
    for (int step = 0; step < all; step++) {
        const int64_t h = head + step / steps;
        const int i = from + step % steps * QUERIES;
        float s[1][QUERIES / 8][4], dp[1][QUERIES / 8][4];
        uint32_t operand[QUERIES / P::STEP][1][4];
        fetch<P, D, QUERIES>(q, x.q + (h * a.n + i) * D, see.n - i);
        fetch<P, D, QUERIES>(dy, x.dy + (h * a.n + i) * D, see.n - i);
        arrive();
        product_of_rows<P, D>(s, k + mine * LD, q);
        finish_scores<BIAS, true>(s, a, see, bias_of(a, b, h - b * a.heads),
                                  all_see(see, i, QUERIES, row, 16), row, i);
        product_of_rows<P, D>(dp, v + mine * LD, dy);
        finish_pairs<true>(s, dp, lse + h * a.n, delta + h * a.n, see.n, row, i);
        as_operand<P>(operand, s);
        add_product<P, D>(sum_v, ones, operand, dy);
        as_operand<P>(operand, dp);
        add_product<P, D>(sum_k, ones, operand, q);
        __syncthreads();
    }
    if (dk)
        put_rows<P, D, 1>(sum_k, row, (int)a.m, a.dk, a.scale, beta_k,
                          dk + b * a.k[0] + g * a.k[2], a.k[1]);
    if (dv)
        put_rows<P, D, 1>(sum_v, row, (int)a.m, a.dv, 1, beta_v, dv + b * a.v[0] + g * a.v[2],
                          a.v[1]);
}

template <class P, int D, bool BIAS>
static void attend_tiles_back(nsm_device *d, const nsmi_attention *a, const attended *f,
                              const attention_grads *to)
{
    const strided from[] = { queries_of(a, f->q), keys_of(a, f->k), values_of(a, f->v),
                             results_of(a, f->dy) };
    const typename P::number *x[4];
    if (!pack<P, D>(d, a->batch, 4, from, x)) return;
    packed_back<P> packed = { x[0], x[1], x[2], x[3] };
    if (to->dq || to->ds)
        LAUNCH_TILES(d, (attention_tiles_query_kernel<P, D, BIAS>),
                     (unsigned)(ceil_of(a->n, BLOCK_ROWS) * a->heads * a->batch),
                     (back_bytes<P, D>(moved<P, D>::KEYS)), *a, packed, f->lse, f->delta,
                     to->beta[0], to->dq, to->ds);
    if (a->m && (to->dk || to->dv))
        LAUNCH_TILES(d, (attention_tiles_key_kernel<P, D, BIAS>),
                     (unsigned)(ceil_of(a->m, BLOCK_ROWS) * a->groups * a->batch),
                     (back_bytes<P, D>(moved<P, D>::QUERIES)), *a, packed, f->lse, f->delta,
                     to->beta[1], to->beta[2], to->dk, to->dv);
}

static void attention_back(nsm_device *d, const nsmi_attention *a, const float *q, const float *k,
                           const float *v, const float *y, const float *lse, const float *dy,
                           float *scratch, const float beta[3], float *dq, float *dk, float *dv,
                           float *ds)
{
    const int64_t queries = a->batch * a->heads * a->n;
    const attended f = { q, k, v, y, lse, dy, scratch };
    const attention_grads to = { dq, dk, dv, ds, { beta[0], beta[1], beta[2] } };
    if (ds) d->be->zero(d, (size_t)(queries * a->m) * sizeof *ds, ds);
    if (queries) nsmi_cuda_attend_delta(d, a, &f);
    if (!fits_tiles(a)) nsmi_cuda_attend_rows_back(d, a, &f, &to);
    else if (queries)
        WITH_ROUNDING(d, a, a->bias || ds, (attend_tiles_back<P, D, BIAS>(d, a, &f, &to)));
}

void nsmi_cuda_attend_back(nsm_backend *be) { be->attention_back = attention_back; }
