/* kernels/cpu/image.c - Planes of images: pooling by the largest, and linear maps along both axes
 * (average pooling, padding, resampling).
 *
 * A task is a plane: so windows that overlap add their gradients in order.
 * Letters: P planes [H, W]. */
#include "kernels/cpu/cpu.h"

static int64_t window_work(const nsmi_windows *c)
{
    return c->planes * c->out_height * c->out_width * c->kernel[0] * c->kernel[1];
}

/* The first largest number of window (i, j), or the first that is none; -1 outside of the plane. */
static int64_t winner(const nsmi_windows *c, int64_t i, int64_t j, const float *x)
{
    int64_t best = -1;
    for (int64_t e = 0; e < c->kernel[0]; e++) {
        int64_t row = i * c->stride[0] + e * c->dilation[0] - c->padding[0];
        if (row < 0 || row >= c->height) continue;
        for (int64_t f = 0; f < c->kernel[1]; f++) {
            int64_t col = j * c->stride[1] + f * c->dilation[1] - c->padding[1],
                    at = row * c->width + col;
            if (col < 0 || col >= c->width) continue;
            if (best < 0 || x[at] > x[best] || (isnan(x[at]) && !isnan(x[best]))) best = at;
        }
    }
    return best;
}

static void max_pool2d(nsm_device *d, const nsmi_windows *c, const float *x, float *y, int32_t *arg)
{
    int64_t in = c->height * c->width, out = c->out_height * c->out_width;
#pragma omp parallel for schedule(static) num_threads(nsmi_team(d, window_work(c)))
    for (int64_t p = 0; p < c->planes; p++)
        for (int64_t k = 0; k < out; k++) {
            int64_t at = winner(c, k / c->out_width, k % c->out_width, x + p * in);
            arg[p * out + k] = (int32_t)at;
            y[p * out + k] = at < 0 ? -INFINITY : x[p * in + at];
        }
}

static void max_pool2d_back(nsm_device *d, const nsmi_windows *c, const int32_t *arg,
                            const float *dy, float *dx)
{
    int64_t in = c->height * c->width, out = c->out_height * c->out_width;
#pragma omp parallel for schedule(static) num_threads(nsmi_team(d, c->planes *out))
    for (int64_t p = 0; p < c->planes; p++)
        for (int64_t k = p * out; k < (p + 1) * out; k++)
            if (arg[k] >= 0) dx[p * in + arg[k]] += dy[k];
}

/* (A x B')[i, j] */
static float entry_sum(nsmi_sparse_rows a, nsmi_sparse_rows b, int64_t i, int64_t j, const float *x,
                       int64_t width)
{
    float sum = 0;
    for (int32_t e = a.ptr[i]; e < a.ptr[i + 1]; e++) {
        const float *row = x + a.index[e] * width;
        float s = 0;
        for (int32_t f = b.ptr[j]; f < b.ptr[j + 1]; f++) s += b.value[f] * row[b.index[f]];
        sum += a.value[e] * s;
    }
    return sum;
}

static void resample(nsm_device *d, int64_t planes, const int64_t in[2], const int64_t out[2],
                     nsmi_sparse_rows a, nsmi_sparse_rows b, const float *x, float beta, float *y)
{
    int64_t work = planes * a.ptr[out[0]] * b.ptr[out[1]];
#pragma omp parallel for schedule(static) num_threads(nsmi_team(d, work))
    for (int64_t r = 0; r < planes * out[0]; r++) {
        const float *plane = x + r / out[0] * in[0] * in[1];
        float *row = y + r * out[1];
        for (int64_t j = 0; j < out[1]; j++) {
            float sum = entry_sum(a, b, r % out[0], j, plane, in[1]);
            row[j] = beta == 0 ? sum : beta * row[j] + sum;
        }
    }
}

void NSMI_FILL(image)(nsm_backend *be)
{
    be->max_pool2d = max_pool2d;
    be->max_pool2d_back = max_pool2d_back;
    be->resample = resample;
}
