/* kernels/cuda/functions.h - The functions of one and of two numbers, their derivatives, and draws.
 *
 * Which function is a switch that all threads take alike: a few instructions beside the memory that
 * an element costs. */
#ifndef NSM_CUDA_FUNCTIONS_H
#define NSM_CUDA_FUNCTIONS_H
#include "kernels/cuda/cuda.h"

static __device__ __forceinline__ float sigmoid_of(float x) { return 1 / (1 + expf(-x)); }

/* The smaller, the larger; b's NaN gives a, as in PyTorch's clamp of a NaN x only x = b may be
 * one. */
static __device__ __forceinline__ float low_of(float a, float b) { return a < b ? a : b; }
static __device__ __forceinline__ float high_of(float a, float b) { return a > b ? a : b; }

/* tanh(log(1 + exp(x))) without cancellation: (e^2 + 2e) / (e^2 + 2e + 2), 1 in float from 20 on */
static __device__ __forceinline__ float mish_gate(float x)
{
    float e = expf(low_of(20, x)), s = e * (e + 2);
    return s / (s + 2);
}

/* Constants of GELU: sqrt(1/2), sqrt(2/pi), the cubic term, 1/sqrt(2 pi) */
#define SQRT_HALF 0.7071067812f
#define SQRT_2_OVER_PI 0.7978845608f
#define GELU_CUBIC 0.044715f
#define ONE_OVER_SQRT_2_PI 0.3989422804f

static __device__ __forceinline__ float gelu_inner(float x)
{
    return SQRT_2_OVER_PI * (x + GELU_CUBIC * x * x * x);
}

static __device__ __forceinline__ float unary_value(nsmi_unary f, float a, float b, float x)
{
    switch (f) {
    case NSMI_RELU: return high_of(0, x);
    case NSMI_LEAKY_RELU: return x > 0 ? x : a * x;
    case NSMI_ELU: return x > 0 ? x : a * expm1f(x);
    case NSMI_GELU: return 0.5f * x * erfcf(-SQRT_HALF * x);
    case NSMI_GELU_TANH: return 0.5f * x * (1 + tanhf(gelu_inner(x)));
    case NSMI_SILU: return x * sigmoid_of(x);
    case NSMI_SIGMOID: return sigmoid_of(x);
    case NSMI_TANH: return tanhf(x);
    case NSMI_SOFTPLUS: return a * x > b ? x : log1pf(expf(a * x)) / a;
    case NSMI_RELU6: return low_of(6, high_of(0, x));
    case NSMI_HARDSWISH: return x * low_of(6, high_of(0, x + 3)) / 6;
    case NSMI_MISH: return x * mish_gate(x);
    case NSMI_QUICK_GELU: return x * sigmoid_of(1.702f * x);
    case NSMI_EXP: return expf(x);
    case NSMI_LOG: return logf(x);
    case NSMI_SQRT: return sqrtf(x);
    case NSMI_RSQRT: return 1 / sqrtf(x);
    case NSMI_SQUARE: return x * x;
    case NSMI_ABS: return fabsf(x);
    case NSMI_NEG: return -x;
    case NSMI_RECIPROCAL: return 1 / x;
    case NSMI_SIN: return sinf(x);
    case NSMI_COS: return cosf(x);
    case NSMI_SCALE: return a * x + b;
    case NSMI_CLAMP: return low_of(b, high_of(a, x));
    case NSMI_LOG_SIGMOID: return low_of(0, x) - log1pf(expf(-fabsf(x)));
    case NSMI_IDENTITY: return x;
    case NSMI_UNARIES: break;
    }
    return x;
}

static __device__ __forceinline__ float gelu_slope(float x)
{
    return 0.5f * erfcf(-SQRT_HALF * x) + x * ONE_OVER_SQRT_2_PI * expf(-0.5f * x * x);
}

static __device__ __forceinline__ float gelu_tanh_slope(float x)
{
    float t = tanhf(gelu_inner(x)), inner = SQRT_2_OVER_PI * (1 + 3 * GELU_CUBIC * x * x);
    return 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * inner;
}

static __device__ __forceinline__ float mish_slope(float x)
{
    float gate = mish_gate(x);
    return gate + x * sigmoid_of(x) * (1 - gate * gate);
}

/* d/dx of x sigmoid(c x) */
static __device__ __forceinline__ float gated_slope(float x, float c)
{
    float s = sigmoid_of(c * x);
    return s * (1 + c * x * (1 - s));
}

static __device__ __forceinline__ float unary_slope(nsmi_unary f, float a, float b, float x,
                                                    float dy)
{
    switch (f) {
    case NSMI_RELU: return x > 0 ? dy : 0;
    case NSMI_LEAKY_RELU: return x > 0 ? dy : a * dy;
    case NSMI_ELU: return x > 0 ? dy : a * dy * expf(x);
    case NSMI_GELU: return dy * gelu_slope(x);
    case NSMI_GELU_TANH: return dy * gelu_tanh_slope(x);
    case NSMI_SILU: return dy * gated_slope(x, 1);
    case NSMI_SIGMOID: { float s = sigmoid_of(x); return dy * s * (1 - s); }
    case NSMI_TANH: { float t = tanhf(x); return dy * (1 - t * t); }
    case NSMI_SOFTPLUS: return a * x > b ? dy : dy * sigmoid_of(a * x);
    case NSMI_RELU6: return x > 0 && x < 6 ? dy : 0;
    case NSMI_HARDSWISH: return x < -3 ? 0 : x <= 3 ? dy * (x / 3 + 0.5f) : dy;
    case NSMI_MISH: return dy * mish_slope(x);
    case NSMI_QUICK_GELU: return dy * gated_slope(x, 1.702f);
    case NSMI_EXP: return dy * expf(x);
    case NSMI_LOG: return dy / x;
    case NSMI_SQRT: return 0.5f * dy / sqrtf(x);
    case NSMI_RSQRT: return -0.5f * dy / (x * sqrtf(x));
    case NSMI_SQUARE: return 2 * x * dy;
    case NSMI_ABS: return x > 0 ? dy : x < 0 ? -dy : 0;
    case NSMI_NEG: return -dy;
    case NSMI_RECIPROCAL: return -dy / (x * x);
    case NSMI_SIN: return dy * cosf(x);
    case NSMI_COS: return -dy * sinf(x);
    case NSMI_SCALE: return a * dy;
    case NSMI_CLAMP: return x >= a && x <= b ? dy : 0;
    case NSMI_LOG_SIGMOID: return dy * sigmoid_of(-x);
    case NSMI_IDENTITY: return dy;
    case NSMI_UNARIES: break;
    }
    return dy;
}

static __device__ __forceinline__ float binary_value(nsmi_binary f, float a, float b)
{
    switch (f) {
    case NSMI_ADD: return a + b;
    case NSMI_SUB: return a - b;
    case NSMI_MUL: return a * b;
    case NSMI_DIV: return a / b;
    case NSMI_MAX: return a > b || a != a ? a : b; /* NaN shows */
    case NSMI_MIN: return a < b || a != a ? a : b;
    case NSMI_GATE: return a * (b * sigmoid_of(b));
    case NSMI_BINARIES: break;
    }
    return a;
}

/* A maximum of equals gives each half of dy. */
static __device__ __forceinline__ float share(bool mine, bool equal, float dy)
{
    return mine ? dy : equal ? 0.5f * dy : 0;
}

static __device__ __forceinline__ void binary_slopes(nsmi_binary f, float a, float b, float dy,
                                                     float *da, float *db)
{
    switch (f) {
    case NSMI_ADD: *da = dy, *db = dy; break;
    case NSMI_SUB: *da = dy, *db = -dy; break;
    case NSMI_MUL: *da = dy * b, *db = dy * a; break;
    case NSMI_DIV: *da = dy / b, *db = -dy * a / (b * b); break;
    case NSMI_MAX: *da = share(a > b, a == b, dy), *db = share(b > a, a == b, dy); break;
    case NSMI_MIN: *da = share(a < b, a == b, dy), *db = share(b < a, a == b, dy); break;
    case NSMI_GATE: *da = dy * b * sigmoid_of(b), *db = dy * a * gated_slope(b, 1); break;
    case NSMI_BINARIES: *da = *db = 0; break;
    }
}

/* ---- draws ---- */
static __device__ __forceinline__ float unit_of(uint32_t word)
{
    return (float)(word >> 8) * 0x1p-24f;
}

/* A block of random numbers as kernels take it. */
typedef struct {
    uint64_t seed, offset;
    const uint64_t *further; /* what is replayed: by so much; NULL: 0 */
} draws;

static inline draws draws_of(const nsm_device *d, nsm_random r)
{
    const nsmi_cuda_state *s = state_of(d);
    return { r.seed, r.offset, s->recording ? s->draws : NULL };
}

static __device__ __forceinline__ uint64_t first_of(const draws &r)
{
    return r.further ? r.offset + *r.further : r.offset;
}

/* Draws 4 k .. 4 k + 3 of r, in [0, 1). */
static __device__ __forceinline__ void four_units(const draws &r, int64_t k, float u[4])
{
    uint32_t word[4];
    nsmi_philox(r.seed, first_of(r) + (uint64_t)k, word);
    for (int j = 0; j < 4; j++) u[j] = unit_of(word[j]);
}

/* 1/(1-p) where draw i keeps a number, 0 where it drops it */
static __device__ __forceinline__ float kept_by(const draws &r, int64_t i, float p, float scale)
{
    return nsmi_philox_uniform(r.seed, first_of(r), (uint64_t)i) >= p ? scale : 0;
}

#endif
