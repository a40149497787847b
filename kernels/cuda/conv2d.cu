/* kernels/cuda/conv2d.cu - 2-D convolution as a product with the matrix of patches.
 *
 * Patches of as many images as PATCHES numbers hold stand side by side, [C/G kh kw, images x places
 * of y], so that each product is a large one; y and dy are turned to [O/G, images x places] for it.
 * The gradient of x gathers from the gradient of its patches: no atomics, one order.
 * Letters: B images, C channels, O outputs, G groups, K = C/G kh kw, P places of an output. */
#include "kernels/cuda/cuda.h"

enum { PATCHES = 1 << 26 };

/* Images n..n + images of group g. */
typedef struct {
    nsmi_conv c;
    int64_t in, out, depth, places; /* C/G, O/G, K, P */
    int64_t image, images, group;
} part;

static part part_of(const nsmi_conv *c)
{
    part p = { *c, c->channels / c->groups, c->outputs / c->groups, 0, 0, 0, 0, 0 };
    p.depth = p.in * c->kernel[0] * c->kernel[1];
    p.places = c->out_height * c->out_width;
    p.images = least(c->batch, most(1, PATCHES / (p.places * (p.depth + p.out))));
    return p;
}

static __device__ __forceinline__ int64_t channel_of(const part &p, int64_t n, int64_t c)
{
    return (p.image + n) * p.c.channels + p.group * p.in + c;
}

static __global__ void patches_kernel(int64_t items, part p, const float *x, float *patches)
{
    EACH_ITEM(i, items)
    {
        int64_t at = i % p.places, n = i / p.places % p.images, k = i / p.places / p.images;
        int64_t f = k % p.c.kernel[1], e = k / p.c.kernel[1] % p.c.kernel[0],
                c = k / p.c.kernel[1] / p.c.kernel[0];
        int64_t row = at / p.c.out_width * p.c.stride[0] + e * p.c.dilation[0] - p.c.padding[0],
                col = at % p.c.out_width * p.c.stride[1] + f * p.c.dilation[1] - p.c.padding[1];
        bool there = row >= 0 && row < p.c.height && col >= 0 && col < p.c.width;
        patches[i] = there ? x[(channel_of(p, n, c) * p.c.height + row) * p.c.width + col] : 0;
    }
}

/* dx of a group's channels = beta dx + what its patches got */
static __global__ void unpatch_kernel(int64_t items, part p, const float *patches, float beta,
                                      float *dx)
{
    EACH_ITEM(i, items)
    {
        int64_t col = i % p.c.width, row = i / p.c.width % p.c.height,
                c = i / p.c.width / p.c.height % p.in, n = i / p.c.width / p.c.height / p.in;
        float sum = 0;
        for (int64_t e = 0; e < p.c.kernel[0]; e++) {
            int64_t y = row + p.c.padding[0] - e * p.c.dilation[0];
            if (y < 0 || y % p.c.stride[0] || y / p.c.stride[0] >= p.c.out_height) continue;
            for (int64_t f = 0; f < p.c.kernel[1]; f++) {
                int64_t z = col + p.c.padding[1] - f * p.c.dilation[1];
                if (z < 0 || z % p.c.stride[1] || z / p.c.stride[1] >= p.c.out_width) continue;
                int64_t k = (c * p.c.kernel[0] + e) * p.c.kernel[1] + f,
                        at = y / p.c.stride[0] * p.c.out_width + z / p.c.stride[1];
                sum += patches[(k * p.images + n) * p.places + at];
            }
        }
        put(&dx[(channel_of(p, n, c) * p.c.height + row) * p.c.width + col], beta, sum);
    }
}

/* Turned [O/G, images, P] to and from y. */
static __global__ void turn_out_kernel(int64_t items, part p, const float *turned,
                                       const float *bias, float beta, float *y)
{
    EACH_ITEM(i, items)
    {
        int64_t at = i % p.places, n = i / p.places % p.images, o = i / p.places / p.images;
        float v = turned[i] + (bias ? bias[p.group * p.out + o] : 0);
        put(&y[((p.image + n) * p.c.outputs + p.group * p.out + o) * p.places + at], beta, v);
    }
}

static __global__ void turn_in_kernel(int64_t items, part p, const float *dy, float *turned)
{
    EACH_ITEM(i, items)
    {
        int64_t at = i % p.places, n = i / p.places % p.images, o = i / p.places / p.images;
        turned[i] = dy[((p.image + n) * p.c.outputs + p.group * p.out + o) * p.places + at];
    }
}

/* Call step(part, patches [K, images P], turned [O/G, images P]) for every group of every run of
 * images. */
template <typename Step> static void each_part(nsm_device *d, const nsmi_conv *c, Step step)
{
    part p = part_of(c);
    int64_t most_images = p.images, patches = p.depth * most_images * p.places;
    if (c->batch * p.places * c->outputs == 0) return;
    float *room = scratch_floats(d, patches + p.out * most_images * p.places);
    if (!room) return;
    for (p.image = 0; p.image < c->batch; p.image += most_images)
        for (p.group = 0; p.group < c->groups; p.group++) {
            p.images = least(most_images, c->batch - p.image);
            step(p, room, room + patches);
        }
}

static void conv2d(nsm_device *d, const nsmi_conv *c, const float *x, const float *w,
                   const float *bias, float beta, float *y)
{
    each_part(d, c, [=](const part &p, float *patches, float *turned) {
        int64_t n = p.images * p.places;
        FOR_ITEMS(d, patches_kernel, p.depth * n, p, x, patches);
        d->be->gemm(d, false, false, p.out, n, p.depth, 1, w + p.group * p.out * p.depth, p.depth,
                    patches, n, 0, turned, n);
        FOR_ITEMS(d, turn_out_kernel, p.out * n, p, turned, bias, beta, y);
    });
}

static void conv2d_back_x(nsm_device *d, const nsmi_conv *c, const float *w, const float *dy,
                          float beta, float *dx)
{
    each_part(d, c, [=](const part &p, float *patches, float *turned) {
        int64_t n = p.images * p.places;
        FOR_ITEMS(d, turn_in_kernel, p.out * n, p, dy, turned);
        d->be->gemm(d, true, false, p.depth, n, p.out, 1, w + p.group * p.out * p.depth, p.depth,
                    turned, n, 0, patches, n);
        FOR_ITEMS(d, unpatch_kernel, p.images * p.in * p.c.height * p.c.width, p, patches, beta,
                  dx);
    });
}

static void conv2d_back_w(nsm_device *d, const nsmi_conv *c, const float *x, const float *dy,
                          float *dw)
{
    each_part(d, c, [=](const part &p, float *patches, float *turned) {
        int64_t n = p.images * p.places;
        FOR_ITEMS(d, patches_kernel, p.depth * n, p, x, patches);
        FOR_ITEMS(d, turn_in_kernel, p.out * n, p, dy, turned);
        d->be->gemm(d, false, true, p.out, p.depth, n, 1, turned, n, patches, n, 1,
                    dw + p.group * p.out * p.depth, p.depth);
    });
}

void nsmi_cuda_conv2d(nsm_backend *be)
{
    be->conv2d = conv2d;
    be->conv2d_back_x = conv2d_back_x;
    be->conv2d_back_w = conv2d_back_w;
}
