/* kernels/cuda/attend.h - What attention's kernels by tiles share (attend.cu, attend_back.cu): the
 * copies that they read, which pairs are seen, products of tiles.
 *
 * A block has WARPS_OF warps; each holds 16 rows of scores, or 16 M of them, over a tile's columns
 * in registers, as fragments (mma.h).  A tile is rows of D numbers in shared memory, each followed
 * by 16 bytes: so eight rows, and the words of a column, lie in different banks.
 *
 * rounding<T, PARTS> says what products are made of: bf16; TF32; or with two parts float32
 * (mma.h). */
#ifndef NSM_CUDA_ATTEND_H
#define NSM_CUDA_ATTEND_H
#include "kernels/cuda/mma.h"

enum { WARPS_OF = 4, THREADS_OF = WARPS_OF * LANES, BLOCK_ROWS = 16 * WARPS_OF };
/* The largest head that tiles hold; queries from which on they pay; tokens that an int counts. */
enum { MOST_HEAD = 128, LEAST_QUERIES = 16, MOST_TOKENS = 1 << 29 };

template <class T, int PARTS_> struct rounding {
    typedef T kind;
    typedef typename T::number number;
    enum { PARTS = PARTS_, STEP = STEP_WORDS * T::NUMBERS, CHUNK = 16 / sizeof(number) };
};

/* LD: numbers of a row of a tile in shared memory.  HELD: blocks that a multiprocessor is to hold,
 * as many as the registers allow that a thread wants. */
template <class P, int D> struct row_of {
    enum { LD = D + P::CHUNK, HELD = D == 64 ? 3 : 2 };
};

/* kernels/cuda/attend_rows.cu: a warp a query, or a key. */
NSMI_SHARED void nsmi_cuda_attend_rows(nsm_device *d, const nsmi_attention *a, const float *q,
                                       const float *k, const float *v, float *y, float *lse);
/* What backward is given; delta [B, H, n] = <y, dy>, filled by nsmi_cuda_attend_delta(). */
typedef struct { const float *q, *k, *v, *y, *lse, *dy; float *delta; } attended;
/* Where its results go; any may be NULL. */
typedef struct { float *dq, *dk, *dv, *ds; float beta[3]; } attention_grads;
NSMI_SHARED void nsmi_cuda_attend_rows_back(nsm_device *d, const nsmi_attention *a,
                                            const attended *f, const attention_grads *to);
NSMI_SHARED void nsmi_cuda_attend_delta(nsm_device *d, const nsmi_attention *a, const attended *f);
NSMI_SHARED void nsmi_cuda_attend_rotate(nsm_backend *be);
/* kernels/cuda/attend_back.cu */
NSMI_SHARED void nsmi_cuda_attend_back(nsm_backend *be);

static inline bool fits_tiles(const nsmi_attention *a)
{
    return a->dk <= MOST_HEAD && a->dv <= MOST_HEAD && a->n >= LEAST_QUERIES &&
           a->n < MOST_TOKENS && a->m < MOST_TOKENS;
}

static __host__ __device__ inline int64_t offset_of(const nsmi_attention &a, int64_t b)
{
    return a.offsets ? a.offsets[b] : a.offset;
}

/* ---- copies: [B, heads, rows, D], rounded, zeros behind a row's size ---- */

typedef struct {
    const float *x;
    int64_t heads, rows, cols, stride[3];
    const int32_t *lengths; /* [B], rows behind are zeros whatever they hold; NULL: none are */
} strided;

template <class P, int D> static __global__ void pack_kernel(int64_t items, strided s, int4 *y)
{
    EACH_ITEM(t, items)
    {
        union { typename P::number n[P::CHUNK]; int4 all; } chunk;
        int64_t row = t / (D / P::CHUNK), col = t % (D / P::CHUNK) * P::CHUNK, i = row % s.rows,
                h = row / s.rows % s.heads, b = row / s.rows / s.heads;
        const float *x = s.x + b * s.stride[0] + i * s.stride[1] + h * s.stride[2];
        bool there = i < nsmi_length(s.lengths, b, s.rows);
        for (int e = 0; e < P::CHUNK; e++) {
            float v = there && col + e < s.cols ? x[col + e] : 0;
            if constexpr (P::CHUNK == 8) chunk.n[e] = nearest_bf16(v);
            else chunk.n[e] = P::PARTS == 1 ? nearest_tf32(v) : v;
        }
        y[t] = chunk.all;
    }
}

/* The copies of all that a kernel reads, one behind the other, in to[]; false: there is no room. */
template <class P, int D>
static bool pack(nsm_device *d, int64_t batch, int count, const strided *from,
                 const typename P::number **to)
{
    int64_t chunks = 0, done = 0;
    for (int i = 0; i < count; i++) chunks += batch * from[i].heads * from[i].rows * (D / P::CHUNK);
    int4 *room = (int4 *)nsmi_cuda_grow(d, &state_of(d)->rounded, (size_t)chunks * sizeof *room);
    if (!room) return false;
    for (int i = 0; i < count; i++) {
        int64_t items = batch * from[i].heads * from[i].rows * (D / P::CHUNK);
        FOR_ITEMS(d, (pack_kernel<P, D>), items, from[i], room + done);
        to[i] = (const typename P::number *)(room + done);
        done += items;
    }
    return true;
}

static inline strided queries_of(const nsmi_attention *a, const float *q)
{
    return { q, a->heads, a->n, a->dk, { a->q[0], a->q[1], a->q[2] }, NULL };
}
static inline strided keys_of(const nsmi_attention *a, const float *k)
{
    return { k, a->groups, a->m, a->dk, { a->k[0], a->k[1], a->k[2] }, a->keys };
}
static inline strided values_of(const nsmi_attention *a, const float *v)
{
    return { v, a->groups, a->m, a->dv, { a->v[0], a->v[1], a->v[2] }, a->keys };
}
static inline strided results_of(const nsmi_attention *a, const float *dy)
{
    return { dy, a->heads, a->n, a->dv, { a->n * a->heads * a->dv, a->heads * a->dv, a->dv },
             NULL };
}

/* Call with P, what this precision's products are made of, D, the size that heads are filled up to,
 * and BIAS, whether scores have one: a kernel without looks at no address a pair. */
#define WITH_ROUNDING(d, a, biased, call) \
    do { \
        int64_t nsm_size = most((a)->dk, (a)->dv); \
        if (nsm_size <= 32) { enum { D = 32 }; WITH_PRECISION(d, biased, call); } \
        else if (nsm_size <= 64) { enum { D = 64 }; WITH_PRECISION(d, biased, call); } \
        else { enum { D = 128 }; WITH_PRECISION(d, biased, call); } \
    } while (0)
#define WITH_PRECISION(d, biased, call) \
    do { \
        if ((d)->precision == NSM_PRECISION_BF16) { \
            typedef rounding<bf16, 1> P; \
            WITH_BIAS(biased, call); \
        } else if ((d)->precision == NSM_PRECISION_TF32) { \
            typedef rounding<tf32, 1> P; \
            WITH_BIAS(biased, call); \
        } else { \
            typedef rounding<tf32, 2> P; \
            WITH_BIAS(biased, call); \
        } \
    } while (0)
#define WITH_BIAS(biased, call) \
    do { \
        if (biased) { enum { BIAS = 1 }; call; } \
        else { enum { BIAS = 0 }; call; } \
    } while (0)

/* Launch with `bytes` of shared memory. */
#define LAUNCH_TILES(d, kernel, grid, bytes, ...) \
    do { \
        nsmi_cuda_ok(d, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, \
                                             (int)(bytes))); \
        NSM_LAUNCH_SHARED(kernel, grid, THREADS_OF, bytes, stream_of(d), __VA_ARGS__); \
        launched(d); \
    } while (0)

template <class P> static __device__ __forceinline__ typename P::number *shared_tiles(void)
{
#if defined(NSM_EMULATE)
    return (typename P::number *)nsm_emulated_shared;
#else
    extern __shared__ __align__(128) char nsmi_shared_tiles[];
    return (typename P::number *)nsmi_shared_tiles;
#endif
}

/* ---- which pairs are seen ---- */

/* Query i < n sees key j < keys where i + behind < j <= i + ahead. */
typedef struct { int n, keys, behind, ahead; } sight;

static __device__ __forceinline__ sight sight_of(const nsmi_attention &a, int64_t b)
{
    const int64_t far = (int64_t)1 << 30, off = offset_of(a, b);
    return { (int)a.n, (int)nsmi_length(a.keys, b, a.m),
             (int)(a.window ? most(least(off - a.window, far), -far) : -far),
             (int)(a.causal ? most(least(off, far), -far) : far) };
}

static __device__ __forceinline__ bool sees(const sight &s, int i, int j)
{
    return i < s.n && j < s.keys && j <= i + s.ahead && j > i + s.behind;
}

/* Do all queries of i .. i + ni - 1 see all keys of j .. j + nj - 1? */
static __device__ __forceinline__ bool all_see(const sight &s, int i, int ni, int j, int nj)
{
    return i + ni <= s.n && j + nj <= s.keys && j + nj - 1 <= i + s.ahead &&
           j > i + ni - 1 + s.behind;
}

/* ---- tiles ---- */

/* Ask for ROWS rows of a copy, zeros for those from `rows` on. */
template <class P, int D, int ROWS>
static __device__ __forceinline__ void fetch(typename P::number *tile, const typename P::number *x,
                                             int rows)
{
    enum { CHUNKS = D / P::CHUNK };
    UNROLL for (int c = (int)threadIdx.x; c < ROWS * CHUNKS; c += THREADS_OF) {
        int row = c / CHUNKS, col = c % CHUNKS * P::CHUNK;
        copy_async(tile + row * row_of<P, D>::LD + col, x + row * D + col, row < rows);
    }
}

/* What was asked for is there, for all; and all have done what they did before. */
static __device__ __forceinline__ void arrive(void)
{
    wait_for_copies();
    __syncthreads();
}

/* f(number, row, column) of each number that a lane holds of a warp's results; row and col: where
 * the warp's begin. */
template <int M, int N, class F>
static __device__ __forceinline__ void each_number(float (&c)[M][N][4], int row, int col, F f)
{
    row += (int)lane_of() / 4;
    col += (int)lane_of() % 4 * 2;
    UNROLL for (int m = 0; m < M; m++)
    UNROLL for (int n = 0; n < N; n++)
    UNROLL for (int e = 0; e < 4; e++)
        f(c[m][n][e], row + m * 16 + e / 2 * 8, col + n * 8 + e % 2);
}

template <int M, int N> static __device__ __forceinline__ void clear(float (&c)[M][N][4])
{
    each_number(c, 0, 0, [](float &x, int, int) { x = 0; });
}

/* c += x, from fragment n0 on.  A tensor core cuts its sums, always toward zero, which over many
 * steps shows in float32: there a few steps are summed alone and then added, to the nearest. */
template <int M, int ALL, int N>
static __device__ __forceinline__ void add(float (&c)[M][ALL][4], int n0, const float (&x)[M][N][4])
{
    UNROLL for (int m = 0; m < M; m++)
    UNROLL for (int n = 0; n < N; n++)
    UNROLL for (int e = 0; e < 4; e++) c[m][n0 + n][e] += x[m][n][e];
}

/* c [16 M, 8 N] = a b' of a warp's rows of one tile and all rows of another. */
template <class P, int D, int M, int N>
static __device__ __forceinline__ void product_of_rows(float (&c)[M][N][4],
                                                       const typename P::number *a,
                                                       const typename P::number *b)
{
    enum { LD = row_of<P, D>::LD };
    const int row = (int)lane_of() % 8, upper = (int)lane_of() / 8 % 2, far = (int)lane_of() / 16;
    a += (row + upper * 8) * LD + far * P::CHUNK;
    b += (row + far * 8) * LD + upper * P::CHUNK;
    clear(c);
    UNROLL for (int k = 0; k < D; k += P::STEP) {
        uint32_t fa[P::PARTS][M][4], fb[P::PARTS][N][2];
        UNROLL for (int m = 0; m < M; m++)
            read_fragments(fa[0][m][0], fa[0][m][1], fa[0][m][2], fa[0][m][3],
                           a + m * 16 * LD + k);
        UNROLL for (int n = 0; n < N; n += 2)
            read_fragments(fb[0][n][0], fb[0][n][1], fb[0][n + 1][0], fb[0][n + 1][1],
                           b + n * 8 * LD + k);
        into_parts(fa);
        into_parts(fb);
        if constexpr (P::PARTS == 2) {
            float step[M][N][4];
            clear(step);
            multiply_step<typename P::kind>(step, fa, fb);
            add(c, 0, step);
        } else {
            multiply_step<typename P::kind>(c, fa, fb);
        }
    }
}

/* Results as a product's first operand.  A step sums over the columns of two fragments of bf16, and
 * of one of TF32: there word t stands for column 2 t and word t + 4 for column 2 t + 1, which is
 * what a lane holds. */
template <class P, int M, int N, int STEPS>
static __device__ __forceinline__ void as_operand(uint32_t (&a)[STEPS][M][4],
                                                  const float (&c)[M][N][4])
{
    UNROLL for (int s = 0; s < STEPS; s++)
    UNROLL for (int m = 0; m < M; m++)
    UNROLL for (int w = 0; w < 4; w++) {
        if constexpr (P::CHUNK == 8) {
            const float *two = &c[m][2 * s + w / 2][w % 2 * 2];
            a[s][m][w] = pair_bf16(two[0], two[1]);
        } else {
            float x = c[m][s][w % 2 * 2 + w / 2];
            if (P::PARTS == 1) x = nearest_tf32(x);
            a[s][m][w] = (uint32_t)__float_as_int(x);
        }
    }
}

/* Step s, from column `col` on, of a tile that is summed over its rows, these in the order of
 * as_operand(). */
template <class P, int D, int N>
static __device__ __forceinline__ void read_columns(uint32_t (&b)[P::PARTS][N][2],
                                                    const typename P::number *tile, int s, int col)
{
    enum { LD = row_of<P, D>::LD };
    const int lane = (int)lane_of();
    if constexpr (P::CHUNK == 8) {
        tile += (s * P::STEP + lane % 16) * LD + col + lane / 16 * 8;
        UNROLL for (int n = 0; n < N; n += 2)
            read_turned(b[0][n][0], b[0][n][1], b[0][n + 1][0], b[0][n + 1][1], tile + n * 8);
    } else {
        tile += (s * P::STEP + lane % 4 * 2) * LD + col + lane / 4;
        UNROLL for (int n = 0; n < N; n++)
        UNROLL for (int w = 0; w < 2; w++)
            b[0][n][w] = (uint32_t)__float_as_int(tile[w * LD + n * 8]);
        into_parts(b);
    }
}

/* c [16 M, D] = keep c + a tile, with keep by row: of a lane's, m * 16 + r * 8. */
template <class P, int D, int M, int STEPS>
static __device__ __forceinline__ void add_product(float (&c)[M][D / 8][4],
                                                   const float (&keep)[M][2],
                                                   const uint32_t (&a)[STEPS][M][4],
                                                   const typename P::number *tile)
{
    enum { N = P::PARTS == 2 ? 4 : D / 8 }; /* fragments at a time */
    UNROLL for (int m = 0; m < M; m++)
    UNROLL for (int n = 0; n < D / 8; n++)
    UNROLL for (int e = 0; e < 4; e++) c[m][n][e] *= keep[m][e / 2];
    UNROLL for (int n = 0; n < D / 8; n += N) {
        float alone[M][N][4];
        clear(alone);
        UNROLL for (int s = 0; s < STEPS; s++) {
            uint32_t fa[P::PARTS][M][4], fb[P::PARTS][N][2];
            UNROLL for (int m = 0; m < M; m++)
            UNROLL for (int w = 0; w < 4; w++) fa[0][m][w] = a[s][m][w];
            into_parts(fa);
            read_columns<P, D>(fb, tile, s, n * 8);
            if constexpr (P::PARTS == 2) multiply_step<typename P::kind>(alone, fa, fb);
            else multiply_step<typename P::kind>(c, fa, fb);
        }
        if constexpr (P::PARTS == 2) add(c, n, alone);
    }
}

/* Rows of results to memory. */
template <class P, int D, int M>
static __device__ __forceinline__ void put_rows(float (&c)[M][D / 8][4], int row, int rows,
                                                int64_t size, float scale, float beta, float *y,
                                                int64_t stride)
{
    each_number(c, row, 0, [&](float &x, int i, int col) {
        if (i < rows && col < size) put(&y[i * stride + col], beta, scale * x);
    });
}

/* Of the scaled score, and what the base 2 makes of it: exp(x) = 2^(LOG2E x). */
#define LOG2E 1.4426950408889634f

/* The scores of a tile's pairs, times LOG2E: scaled, with bias; minus infinity where not seen.
 * TURNED: rows are keys.  whole: all are seen. */
template <bool BIAS, bool TURNED, int M, int N>
static __device__ __forceinline__ void finish_scores(float (&s)[M][N][4], const nsmi_attention &a,
                                                     const sight &see, const float *bias,
                                                     bool whole, int row, int col)
{
    const float scale = a.scale * LOG2E;
    each_number(s, row, col, [&](float &x, int, int) { x *= scale; });
    if (BIAS ? !bias && whole : whole) return;
    each_number(s, row, col, [&](float &x, int r, int c) {
        const int i = TURNED ? c : r, j = TURNED ? r : c;
        if (!sees(see, i, j)) x = minus_infinity();
        else if (BIAS && bias) x += LOG2E * bias[i * a.bias_stride[2] + j * a.bias_stride[3]];
    });
}

static __device__ __forceinline__ const float *bias_of(const nsmi_attention &a, int64_t b,
                                                       int64_t h)
{
    return a.bias ? a.bias + b * a.bias_stride[0] + h * a.bias_stride[1] : NULL;
}

#endif
