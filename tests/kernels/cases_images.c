/* tests/kernels/cases_images.c - Convolution, pooling and linear maps of images, against loops in
 * double. */
#include "config.h"
#include "tests/kernels/cases.h"

/* batch, channels, height, width, outputs, groups, kernel, stride, padding, dilation */
static const int64_t shapes[][14] = {
    { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1 },    { 2, 3, 7, 9, 5, 1, 3, 3, 1, 1, 1, 1, 1, 1 },
    { 3, 6, 8, 5, 9, 3, 3, 2, 2, 3, 1, 2, 1, 1 },    { 2, 4, 17, 13, 6, 2, 3, 4, 1, 2, 4, 0, 3, 2 },
    { 2, 5, 13, 11, 5, 5, 7, 7, 1, 1, 3, 3, 1, 1 },  /* by channel */
    { 1, 3, 12, 8, 7, 1, 4, 4, 4, 4, 0, 0, 1, 1 },   /* patches */
    { 1, 2, 11, 10, 3, 1, 2, 1, 3, 4, 0, 1, 1, 1 },  /* a stride beyond the kernel */
    { 67, 3, 9, 10, 8, 1, 3, 3, 2, 2, 1, 1, 1, 1 },  /* several images a block */
    { 1, 130, 6, 5, 70, 1, 3, 3, 1, 1, 1, 1, 1, 1 }, /* several blocks of channels */
    { 2, 3, 150, 90, 9, 1, 3, 3, 2, 2, 1, 1, 1, 1 }, /* several blocks of rows */
    { 1, 2, 3, 9000, 2, 1, 2, 5, 1, 2, 0, 2, 1, 3 }, /* a wide row */
    { 1, 3, 4000, 1, 4, 1, 9, 1, 2, 1, 4, 0, 2, 1 }, /* a high column */
};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

static nsmi_conv conv_of(const int64_t s[14])
{
    nsmi_conv c = { s[0],
                    s[1],
                    s[2],
                    s[3],
                    s[4],
                    s[5],
                    0,
                    0,
                    { s[6], s[7] },
                    { s[8], s[9] },
                    { s[10], s[11] },
                    { s[12], s[13] } };
    c.out_height = (s[2] + 2 * s[10] - s[12] * (s[6] - 1) - 1) / s[8] + 1;
    c.out_width = (s[3] + 2 * s[11] - s[13] * (s[7] - 1) - 1) / s[9] + 1;
    return c;
}

/* All three sums of one walk over every product. */
static void convolve(const nsmi_conv *c, const float *x, const float *w, const float *dy, double *y,
                     double *dx, double *dw)
{
    int64_t in = c->channels / c->groups, out = c->outputs / c->groups,
            taps = c->kernel[0] * c->kernel[1], places = c->out_height * c->out_width;
    for (int64_t i = 0; i < c->batch * c->outputs * places; i++) {
        int64_t at = i % places, o = i / places % c->outputs, n = i / places / c->outputs;
        for (int64_t k = 0; k < in * taps; k++) {
            int64_t ch = o / out * in + k / taps,
                    row = at / c->out_width * c->stride[0] +
                          k % taps / c->kernel[1] * c->dilation[0] - c->padding[0],
                    col = at % c->out_width * c->stride[1] + k % c->kernel[1] * c->dilation[1] -
                          c->padding[1];
            if (row < 0 || row >= c->height || col < 0 || col >= c->width) continue;
            int64_t from = ((n * c->channels + ch) * c->height + row) * c->width + col,
                    weight = o * in * taps + k;
            y[i] += (double)x[from] * (double)w[weight];
            dx[from] += (double)dy[i] * (double)w[weight];
            dw[weight] += (double)dy[i] * (double)x[from];
        }
    }
}

static void one_convolution(kernels *k, const nsmi_conv *c, float beta)
{
    int64_t places = c->out_height * c->out_width,
            weights = c->outputs * (c->channels / c->groups) * c->kernel[0] * c->kernel[1];
    reals x = reals_random(k, c->batch * c->channels * c->height * c->width, -1, 1),
          w = reals_random(k, weights, -1, 1), bias = reals_random(k, c->outputs, -1, 1),
          dy = reals_random(k, c->batch * c->outputs * places, -1, 1),
          y = beta == 0 ? reals_blank(k, dy.n) : reals_random(k, dy.n, -1, 1),
          dx = beta == 0 ? reals_blank(k, x.n) : reals_random(k, x.n, -1, 1),
          dw = reals_random(k, w.n, -1, 1);
    double *wy = wanted_from(k, y, (double)beta), *wdx = wanted_from(k, dx, (double)beta),
           *wdw = wanted_from(k, dw, 1);
    if (k->check) convolve(c, x.h, w.h, dy.h, wy, wdx, wdw);
    for (int64_t i = 0; i < y.n && beta == 0; i++) wy[i] += (double)bias.h[i / places % c->outputs];
    k->be->conv2d(k->d, c, x.d, w.d, beta == 0 ? bias.d : NULL, beta, y.d);
    result(k, "conv2d", y, wy, 3e-6);
    k->be->conv2d_back_x(k->d, c, w.d, dy.d, beta, dx.d);
    result(k, "conv2d_back_x", dx, wdx, 3e-6);
    k->be->conv2d_back_w(k->d, c, x.d, dy.d, dw.d);
    result(k, "conv2d_back_w", dw, wdw, 1e-5);
}

void case_conv2d(kernels *k)
{
    for (int s = 0; s < SHAPES; s++) {
        nsmi_conv c = conv_of(shapes[s]);
        ck_assert(nsmi_conv_fits(&c));
        one_convolution(k, &c, s % 2 ? 0.5f : 0);
        one_convolution(k, &c, s % 2 ? 0 : 1);
    }
}

/* ---- pooling ---- */

/* The first largest place of window `at` of a plane, or -1. */
static int64_t winner(const nsmi_windows *c, int64_t at, const float *x)
{
    int64_t best = -1;
    for (int64_t row = 0; row < c->height; row++)
        for (int64_t col = 0; col < c->width; col++) {
            int64_t e = row + c->padding[0] - at / c->out_width * c->stride[0],
                    f = col + c->padding[1] - at % c->out_width * c->stride[1];
            if (e < 0 || e % c->dilation[0] || e / c->dilation[0] >= c->kernel[0] || f < 0 ||
                f % c->dilation[1] || f / c->dilation[1] >= c->kernel[1])
                continue;
            if (best < 0 || x[row * c->width + col] > x[best]) best = row * c->width + col;
        }
    return best;
}

void case_max_pool2d(kernels *k)
{
    static const nsmi_windows windows[] = {
        { 1, 1, 1, 1, 1, { 1, 1 }, { 1, 1 }, { 0, 0 }, { 1, 1 } },
        { 6, 7, 9, 4, 4, { 3, 2 }, { 2, 2 }, { 1, 0 }, { 1, 1 } },
        { 70, 12, 13, 10, 5, { 3, 3 }, { 1, 2 }, { 1, 1 }, { 2, 2 } },
        { 2, 5, 4, 3, 3, { 2, 3 }, { 2, 2 }, { 0, 1 }, { 1, 1 } }, /* the last beyond the plane */
    };
    for (int s = 0; s < 4; s++) {
        const nsmi_windows *c = &windows[s];
        int64_t in = c->height * c->width, out = c->out_height * c->out_width;
        reals x = reals_steps(k, c->planes * in, 4), y = reals_blank(k, c->planes * out),
              dy = reals_random(k, y.n, -1, 1), dx = reals_random(k, x.n, -1, 1);
        ints arg = ints_blank(k, y.n);
        double *wy = wanted(k, y.n), *wdx = wanted_from(k, dx, 1);
        int32_t *warg = host_array(k, y.n, sizeof *warg);
        for (int64_t i = 0; i < y.n; i++) {
            int64_t plane = i / out, best = winner(c, i % out, x.h + plane * in);
            warg[i] = (int32_t)best;
            wy[i] = (double)x.h[plane * in + best];
            wdx[plane * in + best] += (double)dy.h[i];
        }
        k->be->max_pool2d(k->d, c, x.d, y.d, arg.d);
        result(k, "max_pool2d", y, wy, 0);
        result_ints(k, "max_pool2d: arg", arg, warg);
        k->be->max_pool2d_back(k->d, c, arg.d, dy.d, dx.d);
        result(k, "max_pool2d_back", dx, wdx, 1e-6);
    }
}

/* ---- linear maps ---- */

/* `out` rows of 0, 1, 2, 3, 0, ... entries, and the same as a dense matrix [out, in]. */
static nsmi_sparse_rows rows_of(kernels *k, int64_t out, int64_t in, double *dense)
{
    ints ptr = ints_blank(k, out + 1), index = ints_random(k, 3 * out, 0, in);
    reals value = reals_random(k, 3 * out, -1, 1);
    ptr.h[0] = 0;
    for (int64_t i = 0; i < out; i++) {
        ptr.h[i + 1] = ptr.h[i] + (int32_t)(i % 4);
        for (int32_t e = ptr.h[i]; e < ptr.h[i + 1]; e++)
            dense[i * in + index.h[e]] += (double)value.h[e];
    }
    k->be->to_device(k->d, (size_t)(out + 1) * sizeof *ptr.h, ptr.h, ptr.d);
    return (nsmi_sparse_rows){ ptr.d, index.d, value.d };
}

void case_resample(kernels *k)
{
    static const int64_t size[][5] = { { 1, 1, 1, 2, 2 },
                                       { 5, 7, 9, 4, 11 },
                                       { 90, 13, 8, 30, 27 } };
    for (int s = 0; s < 3; s++) {
        const int64_t planes = size[s][0], *in = size[s] + 1, *out = size[s] + 3;
        double *a = wanted(k, out[0] * in[0]), *b = wanted(k, out[1] * in[1]);
        nsmi_sparse_rows ra = rows_of(k, out[0], in[0], a), rb = rows_of(k, out[1], in[1], b);
        reals x = reals_random(k, planes * in[0] * in[1], -1, 1),
              y = reals_random(k, planes * out[0] * out[1], -1, 1);
        double *want = wanted_from(k, y, 0.5);
        for (int64_t i = 0; k->check && i < y.n; i++)
            for (int64_t e = 0; e < in[0] * in[1]; e++)
                want[i] += a[i / out[1] % out[0] * in[0] + e / in[1]] *
                           b[i % out[1] * in[1] + e % in[1]] *
                           (double)x.h[i / out[0] / out[1] * in[0] * in[1] + e];
        k->be->resample(k->d, planes, in, out, ra, rb, x.d, 0.5f, y.d);
        result(k, "resample", y, want, 1e-6);
    }
}
