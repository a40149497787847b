/* kernels/cuda/conv1d.cu - The causal depthwise convolution of few taps, with bias and SiLU.
 *
 * Backward first leaves the gradient before the activation in memory of its own, from which each
 * row of dx, each weight and each bias gathers what it needs.
 * Letters: B rows of a batch, n tokens, C channels, c taps; row p of the padded sequence is the
 * tail's row p, from c - 1 on x's row p - (c - 1). */
#include "kernels/cuda/functions.h"

typedef struct {
    bool silu;
    int64_t batch, n, channels, taps;
    const float *x, *w, *bias, *tail;
} conv;

/* Channel ch of padded row p of batch row b. */
static __device__ __forceinline__ float padded(const conv &k, int64_t b, int64_t p, int64_t ch)
{
    int64_t t = p - (k.taps - 1);
    if (t >= 0) return k.x[(b * k.n + t) * k.channels + ch];
    return k.tail ? k.tail[(b * (k.taps - 1) + p) * k.channels + ch] : 0;
}

static __device__ __forceinline__ float before(const conv &k, int64_t b, int64_t t, int64_t ch)
{
    float z = k.bias ? k.bias[ch] : 0;
    for (int64_t j = 0; j < k.taps; j++) z += k.w[ch * k.taps + j] * padded(k, b, t + j, ch);
    return z;
}

static __global__ void conv_kernel(int64_t n, conv k, float *y)
{
    EACH_ITEM(i, n) {
        int64_t ch = i % k.channels, t = i / k.channels % k.n, b = i / k.channels / k.n;
        float z = before(k, b, t, ch);
        y[i] = k.silu ? z * sigmoid_of(z) : z;
    }
}

static void conv1d(nsm_device *d, bool silu, int64_t batch, int64_t n, int64_t channels,
                   int64_t taps, const float *x, const float *w, const float *bias,
                   const float *tail, float *y)
{
    conv k = { silu, batch, n, channels, taps, x, w, bias, tail };
    FOR_ITEMS(d, conv_kernel, batch * n * channels, k, y);
}

static __global__ void conv_before_kernel(int64_t n, conv k, const float *dy, float *dz)
{
    EACH_ITEM(i, n) {
        int64_t ch = i % k.channels, t = i / k.channels % k.n, b = i / k.channels / k.n;
        dz[i] = k.silu ? dy[i] * gated_slope(before(k, b, t, ch), 1) : dy[i];
    }
}

/* Every padded row: the tail's into dtail, x's into dx. */
static __global__ void conv_rows_kernel(int64_t n, conv k, const float *dz, float *dx, float *dtail)
{
    EACH_ITEM(i, n) {
        int64_t rows = k.n + k.taps - 1, ch = i % k.channels, p = i / k.channels % rows,
                b = i / k.channels / rows, t = p - (k.taps - 1);
        float sum = 0;
        for (int64_t j = 0; j < k.taps; j++)
            if (p - j >= 0 && p - j < k.n)
                sum += k.w[ch * k.taps + j] * dz[(b * k.n + p - j) * k.channels + ch];
        if (t >= 0 && dx) dx[(b * k.n + t) * k.channels + ch] += sum;
        if (t < 0 && dtail) dtail[(b * (k.taps - 1) + p) * k.channels + ch] += sum;
    }
}

/* Part `i / (C c)` of weight i % (C c), channels side by side: partial [C c, parts] */
static __global__ void conv_weights_kernel(int64_t n, conv k, int64_t part, int64_t parts,
                                           const float *dz, float *partial)
{
    EACH_ITEM(i, n) {
        int64_t ch = i % k.channels, j = i / k.channels % k.taps, at = i / k.channels / k.taps,
                lo = at * part, all = k.batch * k.n;
        float sum = 0;
        for (int64_t r = lo; r < lo + part && r < all; r++)
            sum += dz[r * k.channels + ch] * padded(k, r / k.n, r % k.n + j, ch);
        partial[(ch * k.taps + j) * parts + at] = sum;
    }
}

static void weights_back(nsm_device *d, const conv &k, const float *dz, float *dw)
{
    int64_t part, parts, weights = k.channels * k.taps, dim[DIMS] = { 1, 1, 1, weights, 1 };
    nsmi_strides s = { { 0, 0, 0, 1, 0 } };
    cut_sum(k.batch * k.n, weights, false, &part, &parts);
    dim[4] = parts;
    float *partial = scratch_floats(d, weights * parts);
    if (!partial) return;
    FOR_ITEMS(d, conv_weights_kernel, weights * parts, k, part, parts, dz, partial);
    d->be->sum_to(d, dim, partial, s, 1, dw); /* so few that it needs no scratch memory */
}

static void conv1d_back(nsm_device *d, bool silu, int64_t batch, int64_t n, int64_t channels,
                        int64_t taps, const float *x, const float *w, const float *bias,
                        const float *tail, const float *dy, float *dx, float *dw, float *dbias,
                        float *dtail)
{
    conv k = { silu, batch, n, channels, taps, x, w, bias, tail };
    int64_t all = batch * n * channels;
    if (all == 0) return;
    float *dz = (float *)d->be->alloc(d, (size_t)all * sizeof *dz);
    if (!dz) {
        nsmi_cuda_trouble(d, NSM_ENOMEM, "out of memory for %s", "a convolution's gradient");
        return;
    }
    FOR_ITEMS(d, conv_before_kernel, all, k, dy, dz);
    if (dx || dtail)
        FOR_ITEMS(d, conv_rows_kernel, batch * (n + taps - 1) * channels, k, dz, dx, dtail);
    if (dw) weights_back(d, k, dz, dw);
    if (dbias) d->be->column_sum(d, batch * n, channels, dz, 1, dbias);
    d->be->release(d, dz, (size_t)all * sizeof *dz);
}

static __global__ void conv_tail_kernel(int64_t n, conv k, const int32_t *length, float *next)
{
    EACH_ITEM(i, n) {
        int64_t ch = i % k.channels, row = i / k.channels % (k.taps - 1),
                b = i / k.channels / (k.taps - 1);
        int64_t there = length && length[b] < k.n ? (length[b] < 0 ? 0 : length[b]) : k.n;
        next[i] = padded(k, b, there + row, ch);
    }
}

static void conv1d_tail(nsm_device *d, int64_t batch, int64_t n, int64_t channels, int64_t taps,
                        const float *x, const float *tail, const int32_t *length, float *next)
{
    conv k = { false, batch, n, channels, taps, x, NULL, NULL, tail };
    FOR_ITEMS(d, conv_tail_kernel, batch * (taps - 1) * channels, k, length, next);
}

void nsmi_cuda_conv1d(nsm_backend *be)
{
    be->conv1d = conv1d;
    be->conv1d_back = conv1d_back;
    be->conv1d_tail = conv1d_tail;
}
