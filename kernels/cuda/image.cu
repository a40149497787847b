/* kernels/cuda/image.cu - Planes of images: pooling by the largest, linear maps along the two axes.
 *
 * A thread is a number of the result; in the backward of pooling it asks every window that holds
 * its place whether it won there.  Letters: P planes [H, W]. */
#include "kernels/cuda/cuda.h"

static __global__ void max_pool_kernel(int64_t n, nsmi_windows c, const float *x, float *y,
                                       int32_t *arg)
{
    EACH_ITEM(k, n)
    {
        int64_t j = k % c.out_width, i = k / c.out_width % c.out_height, best = -1;
        const float *plane = x + k / c.out_width / c.out_height * c.height * c.width;
        for (int64_t e = 0; e < c.kernel[0]; e++) {
            int64_t row = i * c.stride[0] + e * c.dilation[0] - c.padding[0];
            if (row < 0 || row >= c.height) continue;
            for (int64_t f = 0; f < c.kernel[1]; f++) {
                int64_t col = j * c.stride[1] + f * c.dilation[1] - c.padding[1],
                        at = row * c.width + col;
                if (col < 0 || col >= c.width) continue;
                if (best < 0 || plane[at] > plane[best] ||
                    (plane[at] != plane[at] && plane[best] == plane[best]))
                    best = at;
            }
        }
        arg[k] = (int32_t)best;
        y[k] = best < 0 ? minus_infinity() : plane[best];
    }
}

static void max_pool2d(nsm_device *d, const nsmi_windows *c, const float *x, float *y, int32_t *arg)
{
    FOR_ITEMS(d, max_pool_kernel, c->planes * c->out_height * c->out_width, *c, x, y, arg);
}

/* Windows of an axis that hold place `at` at tap e: which one; -1: none. */
static __device__ __forceinline__ int64_t window_at(const nsmi_windows &c, int a, int64_t at,
                                                    int64_t e, int64_t count)
{
    int64_t start = at + c.padding[a] - e * c.dilation[a];
    return start < 0 || start % c.stride[a] || start / c.stride[a] >= count ? -1
                                                                            : start / c.stride[a];
}

static __global__ void max_pool_back_kernel(int64_t n, nsmi_windows c, const int32_t *arg,
                                            const float *dy, float *dx)
{
    EACH_ITEM(k, n)
    {
        int64_t col = k % c.width, row = k / c.width % c.height, plane = k / c.width / c.height;
        float sum = 0;
        for (int64_t e = c.kernel[0] - 1; e >= 0; e--) {
            int64_t i = window_at(c, 0, row, e, c.out_height);
            for (int64_t f = c.kernel[1] - 1; i >= 0 && f >= 0; f--) {
                int64_t j = window_at(c, 1, col, f, c.out_width),
                        at = (plane * c.out_height + i) * c.out_width + j;
                if (j >= 0 && arg[at] == row * c.width + col) sum += dy[at];
            }
        }
        dx[k] += sum;
    }
}

static void max_pool2d_back(nsm_device *d, const nsmi_windows *c, const int32_t *arg,
                            const float *dy, float *dx)
{
    FOR_ITEMS(d, max_pool_back_kernel, c->planes * c->height * c->width, *c, arg, dy, dx);
}

static __global__ void resample_kernel(int64_t n, int64_t height, int64_t width, int64_t out_height,
                                       int64_t out_width, nsmi_sparse_rows a, nsmi_sparse_rows b,
                                       const float *x, float beta, float *y)
{
    EACH_ITEM(k, n)
    {
        int64_t j = k % out_width, i = k / out_width % out_height;
        const float *plane = x + k / out_width / out_height * height * width;
        float sum = 0;
        for (int32_t e = a.ptr[i]; e < a.ptr[i + 1]; e++) {
            const float *row = plane + a.index[e] * width;
            float s = 0;
            for (int32_t f = b.ptr[j]; f < b.ptr[j + 1]; f++) s += b.value[f] * row[b.index[f]];
            sum += a.value[e] * s;
        }
        put(&y[k], beta, sum);
    }
}

static void resample(nsm_device *d, int64_t planes, const int64_t in[2], const int64_t out[2],
                     nsmi_sparse_rows a, nsmi_sparse_rows b, const float *x, float beta, float *y)
{
    FOR_ITEMS(d, resample_kernel, planes * out[0] * out[1], in[0], in[1], out[0], out[1], a, b, x,
              beta, y);
}

void nsmi_cuda_image(nsm_backend *be)
{
    be->max_pool2d = max_pool2d;
    be->max_pool2d_back = max_pool2d_back;
    be->resample = resample;
}
