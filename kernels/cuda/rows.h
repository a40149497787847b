/* kernels/cuda/rows.h - How the graph kernels walk a sparse matrix by rows.
 *
 * A thread takes one row and a few neighbouring columns, so that the threads beside it read the
 * same rows of x along their length, and no thread waits for another.  A row of more than NSM_PIECE
 * entries is cut into pieces, which are units like a short row; the parts are joined in the order
 * of the entries.  The cut depends on the matrix alone.
 *
 * A job for walk() says what a thread keeps (type acc), and has
 *   span(row, lo, hi, vec, acc&)   fill acc from entries lo..hi of the row
 *   join(acc&, next)               two parts of one row
 *   done(row, vec, acc&)           what becomes of the row
 * with vec = 0 .. vecs-1 which columns.  A job for each() has
 *   entry(row, e, h)               one entry and head; or entry_warp(), which a whole warp
 *   calls. */
#ifndef NSM_CUDA_ROWS_H
#define NSM_CUDA_ROWS_H
#include "kernels/cuda/cuda.h"

/* Unit u: row u, or piece u - rows of a long one.  False: nothing, a long row's own unit. */
static __device__ __forceinline__ bool unit_of(const nsm_csr_part &m, int64_t u, int64_t *row,
                                               int64_t *lo, int64_t *hi)
{
    if (u < m.rows) {
        *row = u;
        *lo = m.ptr[u];
        *hi = m.ptr[u + 1];
        return *hi - *lo <= NSM_PIECE;
    }
    int64_t piece = u - m.rows, first = 0, last = m.longs;
    while (last - first > 1) {
        int64_t middle = (first + last) / 2;
        if (m.long_piece[middle] <= piece) first = middle;
        else last = middle;
    }
    *row = m.long_row[first];
    *lo = m.ptr[*row] + (piece - m.long_piece[first]) * NSM_PIECE;
    *hi = *lo + NSM_PIECE < m.ptr[*row + 1] ? *lo + NSM_PIECE : m.ptr[*row + 1];
    return true;
}

template <class J>
static __global__ void units_kernel(int64_t items, nsm_csr_part m, J job, typename J::acc *part)
{
    int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x, row, lo, hi;
    if (i >= items) return;
    int64_t u = i / job.vecs, vec = i - u * job.vecs;
    if (!unit_of(m, u, &row, &lo, &hi)) return;
    typename J::acc a;
    job.span(row, lo, hi, vec, a);
    if (u < m.rows) job.done(row, vec, a);
    else if (part) part[(u - m.rows) * job.vecs + vec] = a;
}

template <class J>
static __global__ void join_kernel(int64_t items, nsm_csr_part m, J job,
                                   const typename J::acc *part)
{
    int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
    if (i >= items) return;
    int64_t l = i / job.vecs, vec = i - l * job.vecs, p = m.long_piece[l];
    typename J::acc a = part[p * job.vecs + vec];
    for (p++; p < m.long_piece[l + 1]; p++) job.join(a, part[p * job.vecs + vec]);
    job.done(m.long_row[l], vec, a);
}

/* Bytes of the long rows' parts. */
template <class J> static inline size_t part_bytes(const nsm_csr_part *m, const J &job)
{
    return (size_t)(m->pieces * job.vecs) * sizeof(typename J::acc);
}

/* All rows; part: memory for part_bytes(), NULL: in scratch memory. */
template <class J>
static inline void walk(nsm_device *d, const nsm_csr_part *m, const J &job, void *part)
{
    typedef typename J::acc acc;
    int64_t items = (m->rows + m->pieces) * job.vecs;
    if (items == 0) return;
    if (m->pieces && !part) part = nsmi_cuda_scratch(d, part_bytes(m, job));
    if (m->pieces && !part) return;
    NSM_LAUNCH(units_kernel<J>, groups_of(items, 1), BLOCK, stream_of(d), items, *m, job,
               (acc *)part);
    if (m->longs)
        NSM_LAUNCH(join_kernel<J>, groups_of(m->longs * job.vecs, 1), BLOCK, stream_of(d),
                   m->longs * job.vecs, *m, job, (const acc *)part);
    launched(d);
}

/* Every entry and head: a warp's lanes share those of a row out, or do each together. */
template <class J, bool TOGETHER>
static __global__ void each_kernel(int64_t units, nsm_csr_part m, J job)
{
    int64_t u = group_number<LANES>(), row, lo, hi;
    if (u >= units || !unit_of(m, u, &row, &lo, &hi)) return;
    int64_t n = (hi - lo) * job.heads;
    if constexpr (TOGETHER) {
        for (int64_t i = 0; i < n; i++) job.entry_warp(row, lo + i / job.heads, i % job.heads);
    } else {
        for (int64_t i = group_place<LANES>(); i < n; i += LANES)
            job.entry(row, lo + i / job.heads, i % job.heads);
    }
}

template <class J> static inline void each(nsm_device *d, const nsm_csr_part *m, const J &job)
{
    int64_t units = m->rows + m->pieces;
    if (units == 0 || m->nnz == 0) return;
    NSM_LAUNCH((each_kernel<J, false>), groups_of(units, LANES), BLOCK, stream_of(d), units, *m,
               job);
    launched(d);
}

template <class J>
static inline void each_together(nsm_device *d, const nsm_csr_part *m, const J &job)
{
    int64_t units = m->rows + m->pieces;
    if (units == 0 || m->nnz == 0) return;
    NSM_LAUNCH((each_kernel<J, true>), groups_of(units, LANES), BLOCK, stream_of(d), units, *m,
               job);
    launched(d);
}

/* From this many columns on a warp computes a dot product together. */
enum { LONG_DOT = 64 };

/* ---- V neighbouring numbers: one access where V is 4 ---- */
template <int V> static __device__ __forceinline__ void get(const float *x, float v[V])
{
    if constexpr (V == 4) {
        float4 q = *(const float4 *)x;
        v[0] = q.x, v[1] = q.y, v[2] = q.z, v[3] = q.w;
    } else {
        v[0] = *x;
    }
}

template <int V> static __device__ __forceinline__ void set(float *y, float beta, const float v[V])
{
    if constexpr (V == 4) {
        float4 q = beta == 0 ? make_float4(0, 0, 0, 0) : *(const float4 *)y;
        *(float4 *)y = make_float4(blend(beta, q.x, v[0]), blend(beta, q.y, v[1]),
                                   blend(beta, q.z, v[2]), blend(beta, q.w, v[3]));
    } else {
        put(y, beta, v[0]);
    }
}

static __device__ __forceinline__ float dot_of(const float *a, const float *b, int64_t n)
{
    float s[2] = { 0, 0 };
    int64_t i = 0;
    for (; i + 2 <= n; i += 2) {
        s[0] += a[i] * b[i];
        s[1] += a[i + 1] * b[i + 1];
    }
    if (i < n) s[0] += a[i] * b[i];
    return s[0] + s[1];
}

static __device__ __forceinline__ float dot_warp(const float *a, const float *b, int64_t n)
{
    float s = 0;
    for (int64_t i = group_place<LANES>(); i < n; i += LANES) s += a[i] * b[i];
    return warp_sum(s);
}

/* ---- a row of results, HELD columns a lane ---- */
enum { HELD = 4, WIDE = HELD * LANES }; /* of a lane, of a warp */

/* held[x] += by row[first + lane + 32 x] */
static __device__ __forceinline__ void add_row(float held[HELD], float by, const float *row,
                                               int64_t first, int64_t size)
{
    for (int x = 0; x < HELD; x++) {
        int64_t c = first + lane_of() + (unsigned)x * LANES;
        if (c < size) held[x] += by * row[c];
    }
}

static __device__ __forceinline__ void put_row(const float held[HELD], float scale, float beta,
                                               float *row, int64_t first, int64_t size)
{
    for (int x = 0; x < HELD; x++) {
        int64_t c = first + lane_of() + (unsigned)x * LANES;
        if (c < size) put(&row[c], beta, scale * held[x]);
    }
}

static __device__ __forceinline__ void clear(float held[HELD])
{
    for (int x = 0; x < HELD; x++) held[x] = 0;
}

#endif
