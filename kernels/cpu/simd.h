/* kernels/cpu/simd.h - Vectors of floats, by GCC's vector extension: `vf` is as wide as the
 * instruction set this file is compiled for; the arithmetic operators work on it.
 *
 * Tails: load and store n < W lanes with vf_load_n / vf_store_n, so that every element goes through
 * the same instructions wherever it stands (a scalar tail would make the result depend on how
 * the work was cut).  exp, log, tanh, ... are glibc's libmvec where it is there, the scalar libm
 * lane by lane elsewhere. */
#ifndef NSM_SIMD_H
#define NSM_SIMD_H
#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
enum { W = 16 };
#elif defined(__AVX2__)
enum { W = 8 };
#else
enum { W = 4 };
#endif
typedef float vf __attribute__((vector_size(4 * W)));
typedef int32_t vi __attribute__((vector_size(4 * W)));
typedef uint32_t vu __attribute__((vector_size(4 * W)));
typedef float vf_u __attribute__((vector_size(4 * W), aligned(4), may_alias));

static inline vf vf_load(const float *p) { return *(const vf_u *)p; }
static inline void vf_store(float *p, vf v) { *(vf_u *)p = v; }
static inline vf vf_set(float x) { return x - (vf){0}; } /* 0 + x would lose the sign of -0 */

static inline vf vf_load_n(const float *p, int64_t n)
{
#if defined(__AVX512F__)
    return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1u), p);
#else
    vf v = {0};
    memcpy(&v, p, (size_t)n * sizeof(float));
    return v;
#endif
}

static inline void vf_store_n(float *p, vf v, int64_t n)
{
#if defined(__AVX512F__)
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1u), (__m512)v);
#else
    memcpy(p, &v, (size_t)n * sizeof(float));
#endif
}

typedef int32_t vi_u __attribute__((vector_size(4 * W), aligned(4), may_alias));
static inline vi vi_load(const int32_t *p) { return *(const vi_u *)p; }
static inline void vi_store(int32_t *p, vi v) { *(vi_u *)p = v; }

/* Bit i: lane i of a mask from a comparison. */
static inline uint32_t vi_bits(vi mask)
{
#if defined(__AVX512F__) && defined(__AVX512DQ__)
    return _mm512_movepi32_mask((__m512i)mask);
#elif defined(__AVX2__)
    return (uint32_t)_mm256_movemask_ps((__m256)mask);
#elif defined(__SSE2__)
    return (uint32_t)_mm_movemask_ps((__m128)mask);
#else
    uint32_t bits = 0;
    for (int i = 0; i < W; i++) bits |= (uint32_t)(mask[i] & 1) << i;
    return bits;
#endif
}

/* mask lane ? a : b, mask from a comparison of vectors */
static inline vf vf_pick(vi mask, vf a, vf b) { return (vf)((mask & (vi)a) | (~mask & (vi)b)); }

/* a > b ? a : b, and a < b ? a : b: b where one is not a number */
#if defined(__AVX512F__)
static inline vf vf_max(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
static inline vf vf_min(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
#elif defined(__AVX2__)
static inline vf vf_max(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
static inline vf vf_min(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
#elif defined(__SSE2__)
static inline vf vf_max(vf a, vf b) { return (vf)_mm_max_ps((__m128)a, (__m128)b); }
static inline vf vf_min(vf a, vf b) { return (vf)_mm_min_ps((__m128)a, (__m128)b); }
#else
static inline vf vf_max(vf a, vf b) { return vf_pick(a > b, a, b); }
static inline vf vf_min(vf a, vf b) { return vf_pick(a < b, a, b); }
#endif
static inline vf vf_abs(vf x) { return (vf)((vi)x & 0x7fffffff); }

/* k lanes, W or fewer: in a loop over whole vectors k is the constant W and the test goes away */
static inline vf vf_get(const float *p, int64_t k) { return k >= W ? vf_load(p) : vf_load_n(p, k); }
static inline void vf_put(float *p, vf v, int64_t k)
{
    if (k >= W)
        vf_store(p, v);
    else
        vf_store_n(p, v, k);
}

/* y = beta y + v in k lanes, y not read when beta is 0 */
static inline void blend_n(float *y, float beta, vf v, int64_t k)
{
    if (beta != 0.0f) v += beta * vf_get(y, k);
    vf_put(y, v, k);
}

/* Do `step` for i = 0, W, 2 W, ... below n, with k the lanes of it that are below n. */
#define VF_EACH(i, k, n, ...)                         \
    do {                                              \
        int64_t i = 0;                                \
        for (; i + W <= (n); i += W) {                \
            enum { k = W };                           \
            __VA_ARGS__                               \
        }                                             \
        if (i < (n)) {                                \
            const int64_t k = (n) - i;                \
            __VA_ARGS__                               \
        }                                             \
    } while (0)

static inline vi vi_lanes(void) /* 0, 1, 2, ... */
{
    vi v;
    for (int i = 0; i < W; i++) v[i] = i;
    return v;
}
static inline vf vf_first(vf v, int64_t k, vf rest) /* the first k lanes of v, then those of rest */
{
    return vf_pick(vi_lanes() < (int32_t)k, v, rest);
}

/* a0 b0 a1 b1 ...: the lower half of the lanes in *low, the upper half in *high */
static inline void vu_interleave(vu a, vu b, vu *low, vu *high)
{
    vi first;
    for (int i = 0; i < W; i++) first[i] = i / 2 + (i % 2) * W;
    *low = __builtin_shuffle(a, b, first);
    *high = __builtin_shuffle(a, b, first + W / 2);
}

/* t[i][j] <-> t[j][i]: W vectors as a square. */
static inline void vf_transpose(vf t[W])
{
    vf u[W];
#pragma GCC unroll 4
    for (int width = 1; width < W; width *= 2) {
#pragma GCC unroll 16
        for (int i = 0; i < W / 2; i++) {
            vu low, high;
            vu_interleave((vu)t[i], (vu)t[i + W / 2], &low, &high);
            u[2 * i] = (vf)low;
            u[2 * i + 1] = (vf)high;
        }
#pragma GCC unroll 16
        for (int i = 0; i < W; i++) t[i] = u[i];
    }
}

/* The lanes of v folded by `step`, halves onto halves, in registers: a fixed tree. */
#define VF_FOLD(v, step)                                     \
    _Pragma("GCC unroll 4") for (int h = W / 2; h > 0; h /= 2) \
        (v) = step((v), (vf)__builtin_shuffle((vi)(v), vi_lanes() ^ h))

static inline vf vf_add(vf a, vf b) { return a + b; }

static inline float vf_sum(vf v)
{
    VF_FOLD(v, vf_add);
    return v[0];
}

static inline float vf_top(vf v)
{
    VF_FOLD(v, vf_max);
    return v[0];
}

#define VF_LANEWISE(name)                                \
    static inline vf vf_##name(vf x)                     \
    {                                                    \
        vf y;                                            \
        for (int i = 0; i < W; i++) y[i] = name##f(x[i]); \
        return y;                                        \
    }
#if defined(HAVE_LIBMVEC) && defined(__AVX512F__)
#define VF_LIBMVEC(name)                  \
    extern __m512 _ZGVeN16v_##name##f(__m512); \
    static inline vf vf_##name(vf x) { return (vf)_ZGVeN16v_##name##f((__m512)x); }
#elif defined(HAVE_LIBMVEC) && defined(__AVX2__)
#define VF_LIBMVEC(name)                  \
    extern __m256 _ZGVdN8v_##name##f(__m256); \
    static inline vf vf_##name(vf x) { return (vf)_ZGVdN8v_##name##f((__m256)x); }
#elif defined(HAVE_LIBMVEC) && defined(__SSE2__)
#define VF_LIBMVEC(name)                  \
    extern __m128 _ZGVbN4v_##name##f(__m128); \
    static inline vf vf_##name(vf x) { return (vf)_ZGVbN4v_##name##f((__m128)x); }
#else
#define VF_LIBMVEC(name) VF_LANEWISE(name)
#endif
VF_LIBMVEC(exp)
VF_LIBMVEC(log)
VF_LIBMVEC(tanh)
VF_LIBMVEC(erf)
VF_LIBMVEC(sin)
VF_LIBMVEC(cos)
VF_LIBMVEC(log1p)
VF_LIBMVEC(expm1)
/* e^x for x <= 0, and 0 below -87: within 2 units of the last place (polynomial of Cephes'
 * expf). */
static inline vf vf_exp_down(vf x)
{
    const float magic = 12582912.0f; /* 1.5 2^23: its last bits are then a whole number */
    vf low = vf_set(-87.0f), y = vf_max(x, low);
    vf t = y * 1.44269504f + magic, n = t - magic;
    vf r = y - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    vf p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + (r + 1.0f);
    p = (vf)((vu)p + ((vu)t << 23)); /* wraps for x > 0, which callers mask */
    return vf_pick(x < low, vf_set(0), p);
}

static inline vf vf_sigmoid(vf x) { return 1 / (1 + vf_exp(-x)); }
static inline vf vf_silu_back(vf x, vf dy)
{
    vf s = vf_sigmoid(x);
    return dy * s * (1 + x * (1 - s));
}
#if defined(__AVX512F__)
static inline vf vf_sqrt(vf x) { return (vf)_mm512_sqrt_ps((__m512)x); }
#elif defined(__AVX2__)
static inline vf vf_sqrt(vf x) { return (vf)_mm256_sqrt_ps((__m256)x); }
#else
VF_LANEWISE(sqrt)
#endif

#endif
