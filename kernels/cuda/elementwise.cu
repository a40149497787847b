/* kernels/cuda/elementwise.cu - Functions of one and of two numbers over arrays, the fused bias +
 * activation + dropout, passes (fill, axpy, lerp), and random numbers.
 *
 * A thread takes four neighbours at a time, in one 16-byte access where the arrays are aligned to
 * that: the same four that one Philox counter draws for. */
#include "kernels/cuda/functions.h"

enum { FOUR = 4 };

/* Items of four in n numbers. */
static inline int64_t fours(int64_t n) { return ceil_of(n, FOUR); }

/* Numbers 4 i .. 4 i + 3 of x, those from n on left as they are. */
static __device__ __forceinline__ void load_four(const float *x, int64_t i, int64_t n, bool whole,
                                                 float v[FOUR])
{
    if (whole && FOUR * i + FOUR <= n) {
        float4 q = ((const float4 *)x)[i];
        v[0] = q.x, v[1] = q.y, v[2] = q.z, v[3] = q.w;
        return;
    }
    for (int j = 0; j < FOUR; j++)
        if (FOUR * i + j < n) v[j] = x[FOUR * i + j];
}

static __device__ __forceinline__ void store_four(float *y, int64_t i, int64_t n, bool whole,
                                                  const float v[FOUR])
{
    if (whole && FOUR * i + FOUR <= n) {
        ((float4 *)y)[i] = make_float4(v[0], v[1], v[2], v[3]);
        return;
    }
    for (int j = 0; j < FOUR; j++)
        if (FOUR * i + j < n) y[FOUR * i + j] = v[j];
}

/* ---- functions of one number ---- */

static __global__ void unary_kernel(int64_t items, nsmi_unary f, float a, float b, int64_t n,
                                    bool whole, const float *x, float *y)
{
    EACH_ITEM(i, items) {
        float v[FOUR] = { 0 };
        load_four(x, i, n, whole, v);
        for (int j = 0; j < FOUR; j++) v[j] = unary_value(f, a, b, v[j]);
        store_four(y, i, n, whole, v);
    }
}

static void unary(nsm_device *d, nsmi_unary f, float a, float b, int64_t n, const float *x,
                  float *y)
{
    FOR_ITEMS(d, unary_kernel, fours(n), f, a, b, n, aligned(x) && aligned(y), x, y);
}

static __global__ void unary_back_kernel(int64_t items, nsmi_unary f, float a, float b, int64_t n,
                                         bool whole, const float *x, const float *dy, float beta,
                                         float *dx)
{
    EACH_ITEM(i, items) {
        float v[FOUR] = { 0 }, g[FOUR] = { 0 }, to[FOUR] = { 0 };
        load_four(x, i, n, whole, v);
        load_four(dy, i, n, whole, g);
        if (beta != 0) load_four(dx, i, n, whole, to);
        for (int j = 0; j < FOUR; j++) to[j] = blend(beta, to[j], unary_slope(f, a, b, v[j], g[j]));
        store_four(dx, i, n, whole, to);
    }
}

static void unary_back(nsm_device *d, nsmi_unary f, float a, float b, int64_t n, const float *x,
                       const float *dy, float beta, float *dx)
{
    FOR_ITEMS(d, unary_back_kernel, fours(n), f, a, b, n, aligned(x) && aligned(dy) && aligned(dx),
              x, dy, beta, dx);
}

/* ---- passes ---- */

static __global__ void axpby_kernel(int64_t items, int64_t n, bool whole, float a, const float *x,
                                    float b, float *y)
{
    EACH_ITEM(i, items) {
        float v[FOUR] = { 0 }, to[FOUR] = { 0 };
        if (x) load_four(x, i, n, whole, v);
        if (b != 0) load_four(y, i, n, whole, to);
        for (int j = 0; j < FOUR; j++) to[j] = x ? blend(b, to[j], a * v[j]) : a;
        store_four(y, i, n, whole, to);
    }
}

static void axpby(nsm_device *d, int64_t n, float a, const float *x, float b, float *y)
{
    FOR_ITEMS(d, axpby_kernel, fours(n), n, aligned(x) && aligned(y), a, x, b, y);
}

static void axpy(nsm_device *d, int64_t n, float a, const float *x, float *y)
{
    axpby(d, n, a, x, 1, y);
}
static void fill(nsm_device *d, int64_t n, float value, float *y)
{
    axpby(d, n, value, NULL, 0, y);
}

static __global__ void lerp_kernel(int64_t n, float t, const float *x, float *y)
{
    EACH_ITEM(i, n) y[i] += t * (x[i] - y[i]);
}

static void lerp(nsm_device *d, int64_t n, float t, const float *x, float *y)
{
    FOR_ITEMS(d, lerp_kernel, n, t, x, y);
}

/* ---- functions of two numbers, with broadcasting ---- */

/* Dims of 1 left out, joint neighbours joined, the last first. */
typedef struct { int rank; int64_t n, dim[DIMS], as[DIMS], bs[DIMS]; } broadcast;

static broadcast broadcast_of(const int64_t dim[DIMS], nsmi_strides as, nsmi_strides bs)
{
    broadcast c;
    c.rank = 0;
    c.n = 1;
    for (int k = DIMS - 1; k >= 0; k--) {
        int p = c.rank - 1;
        c.n *= dim[k];
        if (dim[k] == 1) continue;
        if (c.rank && as.stride[k] == c.as[p] * c.dim[p] && bs.stride[k] == c.bs[p] * c.dim[p]) {
            c.dim[p] *= dim[k];
            continue;
        }
        c.dim[c.rank] = dim[k];
        c.as[c.rank] = as.stride[k];
        c.bs[c.rank++] = bs.stride[k];
    }
    return c;
}

/* Where number i of y comes from. */
static __device__ __forceinline__ void broadcast_at(const broadcast &c, int64_t i, int64_t *a,
                                                    int64_t *b)
{
    *a = *b = 0;
    for (int k = 0; k < c.rank; k++) {
        int64_t rest = k + 1 < c.rank ? (i <= INT32_MAX && c.dim[k] <= INT32_MAX
                                             ? (int64_t)((uint32_t)i / (uint32_t)c.dim[k])
                                             : i / c.dim[k])
                                      : 0;
        int64_t at = i - rest * c.dim[k];
        *a += at * c.as[k];
        *b += at * c.bs[k];
        i = rest;
    }
}

static __global__ void binary_kernel(int64_t n, nsmi_binary f, broadcast c, const float *a,
                                     const float *b, float *y)
{
    EACH_ITEM(i, n) {
        int64_t ia, ib;
        broadcast_at(c, i, &ia, &ib);
        y[i] = binary_value(f, a[ia], b[ib]);
    }
}

/* Both operands dense: four at a time. */
static __global__ void binary_dense_kernel(int64_t items, nsmi_binary f, int64_t n, bool whole,
                                           const float *a, const float *b, float *y)
{
    EACH_ITEM(i, items) {
        float v[FOUR] = { 0 }, w[FOUR] = { 0 };
        load_four(a, i, n, whole, v);
        load_four(b, i, n, whole, w);
        for (int j = 0; j < FOUR; j++) v[j] = binary_value(f, v[j], w[j]);
        store_four(y, i, n, whole, v);
    }
}

static void binary(nsm_device *d, nsmi_binary f, const int64_t dim[DIMS], const float *a,
                   nsmi_strides as, const float *b, nsmi_strides bs, float *y)
{
    broadcast c = broadcast_of(dim, as, bs);
    if (c.rank == 1 && c.as[0] == 1 && c.bs[0] == 1)
        FOR_ITEMS(d, binary_dense_kernel, fours(c.n), f, c.n,
                  aligned(a) && aligned(b) && aligned(y), a, b, y);
    else
        FOR_ITEMS(d, binary_kernel, c.n, f, c, a, b, y);
}

static __global__ void binary_back_kernel(int64_t n, nsmi_binary f, broadcast c, const float *a,
                                          const float *b, const float *dy, float beta_a, float *da,
                                          float beta_b, float *db)
{
    EACH_ITEM(i, n) {
        int64_t ia, ib;
        float ga = 0, gb = 0;
        broadcast_at(c, i, &ia, &ib);
        binary_slopes(f, a[ia], b[ib], dy[i], &ga, &gb);
        if (da) da[i] = beta_a == 0 ? ga : beta_a * da[i] + ga;
        if (db) db[i] = beta_b == 0 ? gb : beta_b * db[i] + gb;
    }
}

static void binary_back(nsm_device *d, nsmi_binary f, const int64_t dim[DIMS], const float *a,
                        nsmi_strides as, const float *b, nsmi_strides bs, const float *dy,
                        float beta_a, float *da, float beta_b, float *db)
{
    broadcast c = broadcast_of(dim, as, bs);
    FOR_ITEMS(d, binary_back_kernel, c.n, f, c, a, b, dy, beta_a, da, beta_b, db);
}

/* ---- bias, activation and dropout in one pass ---- */

typedef struct {
    nsmi_unary f;
    float a, b, p, scale;
    draws r;
    int64_t n, cols;
    bool whole;
} fused;

static fused fused_of(const nsm_device *d, nsmi_unary f, float a, float b, float p, nsm_random r,
                      int64_t rows, int64_t cols, bool whole)
{
    float scale = p < 1 ? 1 / (1 - p) : 0;
    fused u = { f, a, b, p, scale, draws_of(d, r), rows * cols, cols, whole };
    return u;
}

static __device__ __forceinline__ void add_bias(const fused &u, int64_t i, const float *bias,
                                                float v[FOUR])
{
    int64_t col = FOUR * i % u.cols;
    for (int j = 0; j < FOUR; j++) {
        v[j] += bias[col];
        if (++col == u.cols) col = 0;
    }
}

static __device__ __forceinline__ void drop(const fused &u, int64_t i, float v[FOUR])
{
    float draw[FOUR];
    four_units(u.r, i, draw);
    for (int j = 0; j < FOUR; j++) v[j] = draw[j] >= u.p ? u.scale * v[j] : 0;
}

static __global__ void fused_kernel(int64_t items, fused u, const float *x, const float *bias,
                                    float *y)
{
    EACH_ITEM(i, items) {
        float v[FOUR] = { 0 };
        load_four(x, i, u.n, u.whole, v);
        if (bias) add_bias(u, i, bias, v);
        for (int j = 0; j < FOUR; j++) v[j] = unary_value(u.f, u.a, u.b, v[j]);
        if (u.p > 0) drop(u, i, v);
        store_four(y, i, u.n, u.whole, v);
    }
}

static void bias_act_dropout(nsm_device *d, nsmi_unary f, float a, float b, float p, nsm_random r,
                             int64_t rows, int64_t cols, const float *x, const float *bias,
                             float *y)
{
    fused u = fused_of(d, f, a, b, p, r, rows, cols, aligned(x) && aligned(y));
    FOR_ITEMS(d, fused_kernel, fours(u.n), u, x, bias, y);
}

/* The gradient at x + bias: g where it may be, into dx with beta. */
static __global__ void fused_back_kernel(int64_t items, fused u, const float *x, const float *bias,
                                         const float *y, const float *dy, float beta, float *dx,
                                         float *g)
{
    EACH_ITEM(i, items) {
        float v[FOUR] = { 0 }, grad[FOUR] = { 0 }, to[FOUR] = { 0 };
        load_four(dy, i, u.n, u.whole, grad);
        if (beta != 0) load_four(dx, i, u.n, u.whole, to);
        if (!x && u.f == NSMI_RELU) { /* y > 0: it was kept and is positive */
            load_four(y, i, u.n, u.whole, v);
            for (int j = 0; j < FOUR; j++) grad[j] = v[j] > 0 ? u.scale * grad[j] : 0;
        } else {
            if (u.f != NSMI_IDENTITY) load_four(x, i, u.n, u.whole, v);
            if (u.f != NSMI_IDENTITY && bias) add_bias(u, i, bias, v);
            if (u.p > 0) drop(u, i, grad);
            for (int j = 0; j < FOUR; j++) grad[j] = unary_slope(u.f, u.a, u.b, v[j], grad[j]);
        }
        for (int j = 0; j < FOUR; j++) to[j] = blend(beta, to[j], grad[j]);
        store_four(dx, i, u.n, u.whole, to);
        if (g) store_four(g, i, u.n, true, grad);
    }
}

/* dbias is the sum of the gradients' columns; they are kept apart only where dx holds more than
 * them. */
static void bias_act_dropout_back(nsm_device *d, nsmi_unary f, float a, float b, float p,
                                  nsm_random r, int64_t rows, int64_t cols, const float *x,
                                  const float *bias, const float *y, const float *dy, float beta,
                                  float *dx, float *dbias)
{
    bool whole = aligned(dy) && aligned(dx) && (!x || aligned(x)) && (x || aligned(y));
    fused u = fused_of(d, f, a, b, p, r, rows, cols, whole);
    float *g = NULL;
    if (u.n == 0) return;
    if (dbias && beta != 0) {
        /* column_sum uses the scratch memory */
        g = (float *)d->be->alloc(d, (size_t)u.n * sizeof *g);
        if (!g) {
            nsmi_cuda_trouble(d, NSM_ENOMEM, "out of memory for %s", "gradients of a bias");
            return;
        }
    }
    FOR_ITEMS(d, fused_back_kernel, fours(u.n), u, x, bias, y, dy, beta, dx, g);
    if (dbias) d->be->column_sum(d, rows, cols, g ? g : dx, 1, dbias);
    if (g) d->be->release(d, g, (size_t)u.n * sizeof *g);
}

/* ---- random numbers: item i takes draws 4 i .. 4 i + 3 ---- */

static __global__ void dropout_kernel(int64_t items, fused u, const float *x, float beta, float *y)
{
    EACH_ITEM(i, items) {
        float v[FOUR] = { 0 }, to[FOUR] = { 0 };
        load_four(x, i, u.n, u.whole, v);
        if (beta != 0) load_four(y, i, u.n, u.whole, to);
        drop(u, i, v);
        for (int j = 0; j < FOUR; j++) to[j] = blend(beta, to[j], v[j]);
        store_four(y, i, u.n, u.whole, to);
    }
}

static void dropout(nsm_device *d, float p, nsm_random r, int64_t n, const float *x, float beta,
                    float *y)
{
    fused u = fused_of(d, NSMI_IDENTITY, 0, 0, p, r, 1, n, aligned(x) && aligned(y));
    FOR_ITEMS(d, dropout_kernel, fours(n), u, x, beta, y);
}

static __global__ void uniform_kernel(int64_t items, draws r, float low, float high, int64_t n,
                                      bool whole, float *y)
{
    EACH_ITEM(i, items) {
        float u[FOUR];
        four_units(r, i, u);
        for (int j = 0; j < FOUR; j++) u[j] = low + (high - low) * u[j];
        store_four(y, i, n, whole, u);
    }
}

static void uniform(nsm_device *d, nsm_random r, float low, float high, int64_t n, float *y)
{
    FOR_ITEMS(d, uniform_kernel, fours(n), draws_of(d, r), low, high, n, aligned(y), y);
}

/* Box-Muller: draws u, v (2 i, 2 i + 1) -> sqrt(-2 log(1 - u)) cos(2 pi v), and with sin. */
static __global__ void normal_kernel(int64_t items, draws r, float mean, float std, int64_t n,
                                     bool whole, float *y)
{
    EACH_ITEM(i, items) {
        float u[FOUR];
        four_units(r, i, u);
        for (int j = 0; j < FOUR; j += 2) {
            float radius = std * sqrtf(-2 * logf(1 - u[j])), angle = 6.283185307f * u[j + 1];
            u[j] = mean + radius * cosf(angle);
            u[j + 1] = mean + radius * sinf(angle);
        }
        store_four(y, i, n, whole, u);
    }
}

static void normal(nsm_device *d, nsm_random r, float mean, float std, int64_t n, float *y)
{
    FOR_ITEMS(d, normal_kernel, fours(n), draws_of(d, r), mean, std, n, aligned(y), y);
}

void nsmi_cuda_elementwise(nsm_backend *be)
{
    be->unary = unary;
    be->unary_back = unary_back;
    be->fill = fill;
    be->axpy = axpy;
    be->axpby = axpby;
    be->lerp = lerp;
    be->binary = binary;
    be->binary_back = binary_back;
    be->bias_act_dropout = bias_act_dropout;
    be->bias_act_dropout_back = bias_act_dropout_back;
    be->dropout = dropout;
    be->uniform = uniform;
    be->normal = normal;
}
