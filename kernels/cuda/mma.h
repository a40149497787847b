/* kernels/cuda/mma.h - Products on tensor cores by a warp, and what feeds them: fragments read from
 * shared memory, copies into it that do not wait, numbers rounded to TF32 and bf16.
 *
 * A fragment holds words: a TF32 number each, or two neighbours in bf16, the first in the lower
 * half.  A step of a product takes 8 words along what is summed over: 8 numbers of TF32
 * (mma.m16n8k8), 16 of bf16 (mma.m16n8k16).  Counted in words both lie in a warp alike (PTX ISA,
 * "Matrix Fragments for mma").  Lane l, with g = l / 4 and t = l % 4, holds of
 *
 *   A [16, 8 words]    a[0] (g, t)     a[1] (g + 8, t)     a[2] (g, t + 4)      a[3] (g + 8, t + 4)
 *   B [8 words, 8]     b[0] (t, g)     b[1] (t + 4, g)
 *   C [16, 8] floats   c[0] (g, 2 t)   c[1] (g, 2 t + 1)   c[2] and c[3] those of row g + 8
 *
 * A product close to float32 has operands in two parts of TF32, the upper and what it leaves: three
 * of the four products of parts count, the small ones first.
 *
 * Where there is no GPU, the lanes give each other what they hold and the same is computed by these
 * places; sums are cut toward zero, as tensor cores do; a copy is made when it is waited for. */
#ifndef NSM_CUDA_MMA_H
#define NSM_CUDA_MMA_H
#include "kernels/cuda/cuda.h"

/* What a word holds. */
typedef struct { typedef float number; enum { NUMBERS = 1 }; } tf32;
typedef struct { typedef uint16_t number; enum { NUMBERS = 2 }; } bf16;
enum { STEP_WORDS = 8 };

#if defined(NSM_EMULATE)
#define UNROLL
#else
#define UNROLL _Pragma("unroll")
#endif

/* ---- rounding ---- */

/* The nearest bf16, of two as near the even one; a NaN stays one. */
static __device__ __forceinline__ uint16_t nearest_bf16(float x)
{
    unsigned bits = (unsigned)__float_as_int(x);
    if (x != x) return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static __device__ __forceinline__ float float_of_bf16(uint16_t x)
{
    return __int_as_float((int)((unsigned)x << 16));
}

/* The nearest TF32, of two as near the one farther from zero. */
static __device__ __forceinline__ float nearest_tf32(float x)
{
#if defined(NSM_EMULATE)
    if (!isfinite(x)) return x;
    return __int_as_float((int)(((unsigned)__float_as_int(x) + 0x1000u) & ~0x1fffu));
#else
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return __int_as_float((int)bits);
#endif
}

/* Two neighbours of bf16. */
static __device__ __forceinline__ uint32_t pair_bf16(float first, float second)
{
#if defined(NSM_EMULATE)
    return (uint32_t)nearest_bf16(first) | (uint32_t)nearest_bf16(second) << 16;
#else
    uint32_t both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(second), "f"(first));
    return both;
#endif
}

/* Fragments of float32, in part 0, into the parts. */
template <int PARTS, int N, int W>
static __device__ __forceinline__ void into_parts(uint32_t (&f)[PARTS][N][W])
{
    if constexpr (PARTS == 2) {
        UNROLL for (int n = 0; n < N; n++)
        UNROLL for (int w = 0; w < W; w++) {
            float x = __int_as_float((int)f[0][n][w]), upper = nearest_tf32(x);
            f[0][n][w] = (uint32_t)__float_as_int(upper);
            f[1][n][w] = (uint32_t)__float_as_int(nearest_tf32(x - upper));
        }
    }
}

#if defined(NSM_EMULATE)

/* ---- emulated ---- */

typedef struct { float *c; const uint32_t *a, *b; } held_fragments;

static inline float number_of(tf32, uint32_t word, int) { return __int_as_float((int)word); }
static inline float number_of(bf16, uint32_t word, int i)
{
    return float_of_bf16((uint16_t)(word >> 16 * i));
}

static inline float toward_zero(double x)
{
    float y = (float)x;
    return fabs((double)y) > fabs(x) ? __int_as_float(__float_as_int(y) - 1) : y;
}

/* What the hardware does with the fragments of 32 lanes, M x N of them. */
template <class T, int M, int N> static inline void multiply_lanes(const uint64_t *lanes)
{
    enum { K = STEP_WORDS * T::NUMBERS, COLS = 8 * N };
    static double a[16 * M][K], b[K][COLS], c[16 * M][COLS];
    const held_fragments *all[LANES];
    for (int l = 0; l < LANES; l++) all[l] = (const held_fragments *)(uintptr_t)lanes[l];
    for (int l = 0; l < LANES; l++)
        for (int x = 0, g = l / 4, t = l % 4; x < T::NUMBERS; x++) {
            for (int r = 0; r < 4 * M; r++)
                a[r / 4 * 16 + g + r % 2 * 8][(t + r / 2 % 2 * 4) * T::NUMBERS + x] =
                    (double)number_of(T(), all[l]->a[r], x);
            for (int r = 0; r < 2 * N; r++)
                b[(t + r % 2 * 4) * T::NUMBERS + x][r / 2 * 8 + g] =
                    (double)number_of(T(), all[l]->b[r], x);
        }
    for (int i = 0; i < 16 * M; i++)
        for (int j = 0; j < COLS; j++) c[i][j] = 0;
    for (int i = 0; i < 16 * M; i++)
        for (int k = 0; k < K; k++)
            for (int j = 0; j < COLS; j++) c[i][j] += a[i][k] * b[k][j];
    for (int l = 0; l < LANES; l++)
        for (int r = 0, g = l / 4, t = l % 4; r < 4 * M * N; r++) {
            float *mine = &all[l]->c[r];
            int row = r / (4 * N) * 16 + g + r / 2 % 2 * 8, col = r / 4 % N * 8 + 2 * t + r % 2;
            *mine = toward_zero((double)*mine + c[row][col]);
        }
}

template <class T, int M, int N>
static inline void multiply_all(float (&c)[M][N][4], const uint32_t (&a)[M][4],
                                const uint32_t (&b)[N][2])
{
    const held_fragments mine = { &c[0][0][0], &a[0][0], &b[0][0] };
    const uint64_t *lanes = nsm_emulated_exchange(0xffffffffu, (uint64_t)(uintptr_t)&mine,
                                                  __FILE__, __LINE__);
    if (lane_of() == 0) multiply_lanes<T, M, N>(lanes);
    __syncwarp();
}

template <class T, int PARTS, int M, int N>
static inline void multiply_step(float (&c)[M][N][4], const uint32_t (&a)[PARTS][M][4],
                                 const uint32_t (&b)[PARTS][N][2])
{
    if constexpr (PARTS == 2) {
        multiply_all<T>(c, a[1], b[0]);
        multiply_all<T>(c, a[0], b[1]);
    }
    multiply_all<T>(c, a[0], b[0]);
}

static inline void check_row(const void *row)
{
    if ((uintptr_t)row % 16) nsm_emulated_fail("a row of a fragment is not aligned");
}

static inline void read_fragments(uint32_t &r0, uint32_t &r1, uint32_t &r2, uint32_t &r3,
                                  const void *row)
{
    const uint64_t *rows = nsm_emulated_exchange(0xffffffffu, (uint64_t)(uintptr_t)row, __FILE__,
                                                 __LINE__);
    uint32_t *r[] = { &r0, &r1, &r2, &r3 };
    check_row(row);
    for (unsigned i = 0; i < 4; i++)
        *r[i] = ((const uint32_t *)(uintptr_t)rows[8 * i + lane_of() / 4])[lane_of() % 4];
}

static inline void read_turned(uint32_t &r0, uint32_t &r1, uint32_t &r2, uint32_t &r3,
                               const void *row)
{
    const uint64_t *rows = nsm_emulated_exchange(0xffffffffu, (uint64_t)(uintptr_t)row, __FILE__,
                                                 __LINE__);
    uint32_t *r[] = { &r0, &r1, &r2, &r3 };
    check_row(row);
    for (unsigned i = 0; i < 4; i++) {
        const uint64_t *two = &rows[8 * i + lane_of() % 4 * 2];
        *r[i] = (uint32_t)((const uint16_t *)(uintptr_t)two[0])[lane_of() / 4] |
                (uint32_t)((const uint16_t *)(uintptr_t)two[1])[lane_of() / 4] << 16;
    }
}

static inline void copy_async(void *to, const void *from, bool there)
{
    nsm_emulated_copy_late(to, there ? from : nullptr);
}
static inline void wait_for_copies(void) { nsm_emulated_copies_wait(); }

static inline float exp2_of(float x) { return exp2f(x); }

#else

/* ---- on a GPU ---- */

static __device__ __forceinline__ void multiply_one(tf32, float (&c)[4], const uint32_t (&a)[4],
                                                    const uint32_t (&b)[2])
{
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

static __device__ __forceinline__ void multiply_one(bf16, float (&c)[4], const uint32_t (&a)[4],
                                                    const uint32_t (&b)[2])
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* c += a b: M fragments of A by N of B, a step, in one part or two, the upper first. */
template <class T, int PARTS, int M, int N>
static __device__ __forceinline__ void multiply_step(float (&c)[M][N][4],
                                                     const uint32_t (&a)[PARTS][M][4],
                                                     const uint32_t (&b)[PARTS][N][2])
{
    UNROLL for (int n = 0; n < N; n++)
    UNROLL for (int m = 0; m < M; m++) {
        if constexpr (PARTS == 2) {
            multiply_one(T(), c[m][n], a[1][m], b[0][n]);
            multiply_one(T(), c[m][n], a[0][m], b[1][n]);
        }
        multiply_one(T(), c[m][n], a[0][m], b[0][n]);
    }
}

static __device__ __forceinline__ unsigned shared_address(const void *p)
{
    return (unsigned)__cvta_generic_to_shared(p);
}

/* Four squares of 8 rows of 16 bytes in shared memory; lane l gives the address of row l % 8 of
 * square l / 8 and gets word (l / 4, l % 4) of each. */
static __device__ __forceinline__ void read_fragments(uint32_t &r0, uint32_t &r1, uint32_t &r2,
                                                      uint32_t &r3, const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r0), "=r"(r1), "=r"(r2), "=r"(r3)
                 : "r"(shared_address(row)));
}

/* The same squares of 8 x 8 bf16, turned: lane l gets (2 t, g) and (2 t + 1, g) of each. */
static __device__ __forceinline__ void read_turned(uint32_t &r0, uint32_t &r1, uint32_t &r2,
                                                   uint32_t &r3, const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r0), "=r"(r1), "=r"(r2), "=r"(r3)
                 : "r"(shared_address(row)));
}

/* 16 bytes to shared memory, zeros where they are not there: a thread's own copies have arrived
 * when it has waited, all of a block's after a barrier behind that. */
static __device__ __forceinline__ void copy_async(void *to, const void *from, bool there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)),
                 "l"(__cvta_generic_to_global(from)), "r"(there ? 16 : 0)
                 : "memory");
}
static __device__ __forceinline__ void wait_for_copies(void)
{
    asm volatile("cp.async.wait_all;" ::: "memory");
}

/* 2^x to 2 units in the last place; 0 where that is below the normal numbers. */
static __device__ __forceinline__ float exp2_of(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#endif
#endif
