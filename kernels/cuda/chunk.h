/* kernels/cuda/chunk.h - What the chunked recurrences are made of: products of tiles, and sums over
 * the tokens of a chunk that fade with the distance between them.
 *
 * Token i multiplies what came before it by w_i, 0 <= w_i <= 1, a number for each of D columns (or
 * one for all).  With P(j, i) the product of w over the tokens j < t <= i:
 *
 *   scores   A_ij  = sum over d of x_id y_jd P(j, i)_d    j <= i
 *   by row   dx_id = P(0, i)_d z_id + sum over j <= i of A_ij y_jd P(j, i)_d
 *   by column dy_jd = P(j, m)_d z_jd + sum over i >= j of A_ij x_id P(j, i)_d
 *
 * `early`: token i looks before its own decay: P(j, i - 1), and j < i.  Nothing divides by a decay
 * or takes the exponential of a positive number.
 *
 * A block of threads is a square of 16 x 16, each with 4 x 4 numbers of a tile of 64 x 64.  For
 * scores the tokens are taken in fours: P(j, i) = (j to its four's end) (the fours between) (the
 * four's start to i), and pairs within a four are summed one by one.  The other two sums are
 * Horner's scheme along the tokens. */
#ifndef NSM_CUDA_CHUNK_H
#define NSM_CUDA_CHUNK_H
#include "kernels/cuda/rows.h"

enum {
    TOKENS = NSMI_CHUNK,
    SIDE = 16,
    QUAD = TOKENS / SIDE,
    DEPTH = 16,
    PITCH = TOKENS + 4,
    BEHIND = SIDE * (SIDE - 1) / 2,
    OWN_PAIRS = 10
};

/* ---- where things stand ---- */

/* Sequences of H heads in chunks; an array [B, n, heads, size] that is read through them; a log
 * decay. */
typedef struct { int64_t batch, n, heads, chunks; const int32_t *length; } sequences;
typedef struct { const float *p; int64_t heads, size; float scale; } heads_view;
/* size 1: one for all columns; g NULL: 1 */
typedef struct { const float *g; int64_t heads, size; bool constant; } decay_view;

/* One chunk of one head. */
typedef struct { int64_t b, h, head, c, t0; int m; } chunk_place;

static __device__ __forceinline__ chunk_place place_of(const sequences &s, int64_t task)
{
    chunk_place p = { task / s.chunks / s.heads, task / s.chunks % s.heads, task / s.chunks,
                      task % s.chunks,           task % s.chunks * TOKENS,  0 };
    int64_t there = nsmi_length(s.length, p.b, s.n) - p.t0;
    p.m = (int)(there < 0 ? 0 : least(there, TOKENS));
    return p;
}

/* Rows of a chunk: 0 behind its tokens and columns. */
typedef struct { const float *p; int64_t stride; int m, size; float scale; } strip;

static __device__ __forceinline__ strip strip_of(const sequences &s, const heads_view &v,
                                                 const chunk_place &p)
{
    strip r = { v.p + ((p.b * s.n + p.t0) * v.heads + p.h * v.heads / s.heads) * v.size,
                v.heads * v.size, p.m, (int)v.size, v.scale };
    return r;
}

static __device__ __forceinline__ float strip_at(const strip &s, int t, int c)
{
    return t < s.m && c < s.size ? s.scale * s.p[t * s.stride + c] : 0;
}

/* Decays of a chunk: 1 behind its tokens. */
typedef struct { const float *p; int64_t stride; int m, size; } fading;

static __device__ __forceinline__ fading fading_of(const sequences &s, const decay_view &v,
                                                   const chunk_place &p)
{
    int64_t first = v.constant ? 0 : (p.b * s.n + p.t0) * v.heads;
    fading f = { v.g ? v.g + (first + p.h * v.heads / s.heads) * v.size : NULL,
                 v.constant ? 0 : v.heads * v.size, p.m, (int)v.size };
    return f;
}

static __device__ __forceinline__ float decay_at(const fading &f, int t, int c)
{
    if (!f.p || t >= f.m || (c >= f.size && f.size > 1)) return 1;
    return expf(f.p[t * f.stride + (f.size > 1 ? c : 0)]);
}

/* A state [D, E]: 0 outside. */
typedef struct { const float *p; int rows, cols; } state_view;
static __device__ __forceinline__ float state_at(const state_view &s, int r, int c)
{
    return r < s.rows && c < s.cols ? s.p[(int64_t)r * s.cols + c] : 0;
}

/* ---- a block's shared memory ---- */
typedef struct { alignas(16) float a[DEPTH][PITCH], b[DEPTH][PITCH]; } tile_room;
typedef struct {
    alignas(16) float w[DEPTH][PITCH], whole[SIDE][DEPTH + 1], between[BEHIND][DEPTH + 1];
} scores_room;
typedef float square[TOKENS][PITCH];

static __device__ __forceinline__ int tile_row(void) { return (int)threadIdx.x / SIDE * QUAD; }
static __device__ __forceinline__ int tile_col(void) { return (int)threadIdx.x % SIDE * QUAD; }

static __device__ __forceinline__ void tile_clear(float acc[QUAD][QUAD])
{
    for (int r = 0; r < QUAD; r++)
        for (int c = 0; c < QUAD; c++) acc[r][c] = 0;
}

/* to[k][i] = x(i, k0 + k) for k < DEPTH; ALONG_K: neighbours in k stand side by side in memory */
template <bool ALONG_K, class X>
static __device__ __forceinline__ void tile_fill(float (*to)[PITCH], int k0, X x)
{
    for (int s = (int)threadIdx.x; s < DEPTH * TOKENS; s += BLOCK) {
        int k = ALONG_K ? s % DEPTH : s / TOKENS, i = ALONG_K ? s / DEPTH : s % TOKENS;
        to[k][i] = x(i, k0 + k);
    }
}

static __device__ __forceinline__ void four_of(const float *p, float v[QUAD]) { get<QUAD>(p, v); }

/* acc += a [64, depth] times b [depth, 64], of which a thread has four rows and columns; a(i, k),
 * b(j, k) are 0 from
 * k = depth on. */
template <bool A_ALONG_K, bool B_ALONG_K, class A, class B>
static __device__ void tile_product(tile_room &m, int depth, A a, B b, float acc[QUAD][QUAD])
{
    const int row = tile_row(), col = tile_col();
    for (int k0 = 0; k0 < depth; k0 += DEPTH) {
        __syncthreads();
        tile_fill<A_ALONG_K>(m.a, k0, a);
        tile_fill<B_ALONG_K>(m.b, k0, b);
        __syncthreads();
        for (int k = 0; k < DEPTH; k++) {
            float x[QUAD], y[QUAD];
            four_of(&m.a[k][row], x);
            four_of(&m.b[k][col], y);
            for (int r = 0; r < QUAD; r++)
                for (int c = 0; c < QUAD; c++) acc[r][c] += x[r] * y[c];
        }
    }
}

/* ---- scores ---- */

/* The four tokens of one thread, one column: the pairs among them, and what each is to other
 * fours. */
static __device__ __forceinline__ void four_tokens(bool early, float x[QUAD], float y[QUAD],
                                                   const float w[QUAD], float own[OWN_PAIRS])
{
    int at = 0;
    for (int j = 0; j < QUAD; j++) {
        float p = y[j];
        for (int i = j; i < QUAD; i++, at++) {
            if (i > j && !early) p *= w[i];
            if (i > j || !early) own[at] += x[i] * p;
            if (i > j && early) p *= w[i];
        }
    }
    float start = 1, end = 1;
    for (int i = 0; i < QUAD; i++) {
        if (!early) start *= w[i];
        x[i] *= start;
        if (early) start *= w[i];
    }
    for (int j = QUAD - 1; j >= 0; j--) {
        y[j] *= end;
        end *= w[j];
    }
}

/* The rows of a that a thread has, from its sums: zeros above the diagonal, and on it with
 * strict. */
static __device__ __forceinline__ void put_scores(square a, bool strict,
                                                  const float acc[QUAD][QUAD], float own[OWN_PAIRS])
{
    const int row = tile_row(), col = tile_col(), block = (int)threadIdx.x / SIDE * QUAD;
    for (int k = 0; k < OWN_PAIRS; k++)
        for (int o = SIDE / 2; o; o /= 2) own[k] += __shfl_xor_sync(0xffffffffu, own[k], o);
    if (row != col)
        for (int r = 0; r < QUAD; r++)
            for (int c = 0; c < QUAD; c++) a[row + r][col + c] = col < row ? acc[r][c] : 0;
    if (threadIdx.x % SIDE) return;
    for (int j = 0, at = 0; j < QUAD; j++) {
        for (int i = 0; i < j; i++) a[block + i][block + j] = 0;
        for (int i = j; i < QUAD; i++, at++)
            a[block + i][block + j] = strict && i == j ? 0 : own[at];
    }
}

/* a = scores of x and y over `depth` columns; x(t, d), y(t, d), w(t, d).  The block waits before
 * and behind it. */
template <class X, class Y, class D>
static __device__ void tile_scores(tile_room &m, scores_room &s, int depth, X x, Y y, D w,
                                   bool early, bool strict, square a)
{
    const int row = tile_row(), col = tile_col(), mine = (int)threadIdx.x / SIDE,
              lane = (int)threadIdx.x % SIDE;
    float acc[QUAD][QUAD], own[OWN_PAIRS] = { 0 };
    tile_clear(acc);
    for (int d0 = 0; d0 < depth; d0 += DEPTH) {
        float four_x[QUAD], four_y[QUAD], four_w[QUAD];
        __syncthreads();
        tile_fill<true>(m.a, d0, x);
        tile_fill<true>(m.b, d0, y);
        tile_fill<true>(s.w, d0, w);
        __syncthreads();
        four_of(&m.a[lane][mine * QUAD], four_x);
        four_of(&m.b[lane][mine * QUAD], four_y);
        four_of(&s.w[lane][mine * QUAD], four_w);
        four_tokens(early, four_x, four_y, four_w, own);
        set<QUAD>(&m.a[lane][mine * QUAD], 0, four_x);
        set<QUAD>(&m.b[lane][mine * QUAD], 0, four_y);
        s.whole[mine][lane] = four_w[0] * four_w[1] * four_w[2] * four_w[3];
        __syncthreads();
        float passed = 1;
        for (int t = mine - 1; t >= 0; t--) {
            s.between[mine * (mine - 1) / 2 + t][lane] = passed;
            passed *= s.whole[t][lane];
        }
        __syncthreads();
        if (lane >= mine) continue;
        for (int k = 0; k < DEPTH; k++) {
            float u[QUAD], v[QUAD], by = s.between[mine * (mine - 1) / 2 + lane][k];
            four_of(&m.a[k][row], u);
            four_of(&m.b[k][col], v);
            for (int r = 0; r < QUAD; r++)
                for (int c = 0; c < QUAD; c++) acc[r][c] += u[r] * by * v[c];
        }
    }
    put_scores(a, strict, acc, own);
    __syncthreads();
}

/* ---- Horner along the tokens: the two other sums, 64 columns from c0 on ---- */
template <class Y, class D>
static __device__ void tile_by_row(tile_room &m, square a, Y y, D w, bool early,
                                   float z[QUAD][QUAD])
{
    const int row = tile_row(), col = tile_col();
    for (int t0 = 0; t0 < TOKENS; t0 += DEPTH) {
        __syncthreads();
        tile_fill<false>(m.a, t0, [&](int c, int t) { return y(t, c); });
        tile_fill<false>(m.b, t0, [&](int c, int t) { return w(t, c); });
        __syncthreads();
        for (int t = 0; t < DEPTH && t0 + t < row + QUAD; t++) {
            float v[QUAD], f[QUAD];
            four_of(&m.a[t][col], v);
            four_of(&m.b[t][col], f);
            for (int r = 0; r < QUAD; r++) {
                if (t0 + t + early > row + r) continue;
                float by = a[row + r][t0 + t];
                for (int c = 0; c < QUAD; c++) z[r][c] = z[r][c] * f[c] + by * v[c];
            }
        }
    }
}

template <class X, class D>
static __device__ void tile_by_col(tile_room &m, square a, X x, D w, bool early,
                                   float z[QUAD][QUAD])
{
    const int row = tile_row(), col = tile_col();
    for (int t0 = TOKENS - DEPTH; t0 >= 0; t0 -= DEPTH) {
        __syncthreads();
        tile_fill<false>(m.a, t0, [&](int c, int t) { return x(t, c); });
        tile_fill<false>(m.b, t0, [&](int c, int t) { return w(t, c); });
        __syncthreads();
        for (int t = DEPTH - 1; t >= 0 && t0 + t >= row; t--) {
            float v[QUAD], f[QUAD], by[QUAD];
            four_of(&m.a[t][col], v);
            four_of(&m.b[t][col], f);
            four_of(&a[t0 + t][row], by);
            for (int r = 0; r < QUAD; r++) {
                int later = t0 + t - (row + r);
                for (int c = 0; c < QUAD; c++) {
                    if (later > 0)
                        z[r][c] = early ? z[r][c] * f[c] + by[r] * v[c]
                                        : (z[r][c] + by[r] * v[c]) * f[c];
                    if (later == 0 && !early) z[r][c] += by[r] * v[c];
                }
            }
        }
    }
}

/* A tile's numbers into out [B, n, H, size], columns from c0 on: = beta (it) + z */
static __device__ __forceinline__ void tile_put(const sequences &s, const chunk_place &p,
                                                float *out, int64_t size, int c0, float beta,
                                                const float z[QUAD][QUAD])
{
    const int row = tile_row(), col = tile_col() + c0;
    for (int r = 0; r < QUAD; r++)
        for (int c = 0; c < QUAD; c++)
            if (p.t0 + row + r < s.n && col + c < size)
                put(&out[((p.b * s.n + p.t0 + row + r) * s.heads + p.h) * size + col + c], beta,
                    z[r][c]);
}

#endif
