/* kernels/cuda/norm.cu - Softmax, layer, RMS and batch norm.
 *
 * A row is a thread's, a warp's or a block's, by its length; numbers `inner` apart are a thread's,
 * so that neighbours read neighbours.  Sums over all rows (dw, db, a channel's moments) are cut
 * into parts by the shape alone, and the parts are added in order. */
#include "kernels/cuda/cuda.h"

/* ---- softmax of x [outer, n, inner] over n ---- */

static __device__ __forceinline__ int64_t row_start(int64_t r, int64_t n, int64_t inner)
{
    return r / inner * n * inner + r % inner;
}

template <int G>
static __global__ void softmax_kernel(int64_t rows, bool log, int64_t n, int64_t inner,
                                      const float *x, float *y)
{
    int64_t r = group_number<G>();
    if (r >= rows) return;
    int64_t at = row_start(r, n, inner);
    float top = minus_infinity(), sum = 0;
    for (int64_t j = group_place<G>(); j < n; j += G)
        top = x[at + j * inner] > top ? x[at + j * inner] : top;
    top = group_max<G>(top);
    for (int64_t j = group_place<G>(); j < n; j += G) sum += expf(x[at + j * inner] - top);
    sum = group_sum<G>(sum);
    float shift = log ? top + logf(sum) : top, scale = 1 / sum;
    for (int64_t j = group_place<G>(); j < n; j += G) {
        float v = x[at + j * inner] - shift;
        y[at + j * inner] = log ? v : scale * expf(v);
    }
}

static void softmax(nsm_device *d, bool log, int64_t outer, int64_t n, int64_t inner,
                    const float *x, float *y)
{
    int64_t rows = outer * inner;
    if (rows == 0) return;
    WITH_GROUP(inner > 1, n,
               NSM_LAUNCH(softmax_kernel<G>, groups_of(rows, G), BLOCK, stream_of(d), rows, log, n,
                          inner, x, y));
    launched(d);
}

template <int G>
static __global__ void softmax_back_kernel(int64_t rows, bool log, int64_t n, int64_t inner,
                                           const float *y, const float *dy, float beta, float *dx)
{
    int64_t r = group_number<G>();
    if (r >= rows) return;
    int64_t at = row_start(r, n, inner);
    float sum = 0;
    for (int64_t j = group_place<G>(); j < n; j += G)
        sum += log ? dy[at + j * inner] : dy[at + j * inner] * y[at + j * inner];
    sum = group_sum<G>(sum);
    for (int64_t j = group_place<G>(); j < n; j += G) {
        float v = y[at + j * inner], g = dy[at + j * inner];
        put(&dx[at + j * inner], beta, log ? g - expf(v) * sum : v * (g - sum));
    }
}

static void softmax_back(nsm_device *d, bool log, int64_t outer, int64_t n, int64_t inner,
                         const float *y, const float *dy, float beta, float *dx)
{
    int64_t rows = outer * inner;
    if (rows == 0) return;
    WITH_GROUP(inner > 1, n,
               NSM_LAUNCH(softmax_back_kernel<G>, groups_of(rows, G), BLOCK, stream_of(d), rows,
                          log, n, inner, y, dy, beta, dx));
    launched(d);
}

/* ---- sums per channel: of f and of g, which a pass computes from x and dy ---- */

typedef enum {
    SUM_X,         /* x */
    SUM_DEVIATION, /* (x - mean)^2 */
    SUM_GRADIENT   /* dy, and dy times x normed */
} channel_pass;

/* x [outer, C, inner].  stats [.., 2] = mean, rstd of a channel, or (by_row) of a row, then inner
 * is 1. */
typedef struct {
    channel_pass pass;
    int64_t outer, c, inner, part, parts;
    const float *x, *dy, *stats;
    bool by_row;
} channel_job;

template <int G> static __global__ void channel_kernel(int64_t tasks, channel_job s, float *partial)
{
    int64_t t = group_number<G>();
    if (t >= tasks) return;
    int64_t c = t % s.c, part = t / s.c, n = s.outer * s.inner, lo = part * s.part,
            hi = lo + s.part < n ? lo + s.part : n;
    float f = 0, g = 0;
    for (int64_t i = lo + group_place<G>(); i < hi; i += G) {
        int64_t o = i / s.inner, at = (o * s.c + c) * s.inner + (i - o * s.inner),
                who = s.by_row ? o : c;
        float x = s.x[at], mean = s.stats ? s.stats[2 * who] : 0;
        if (s.pass == SUM_X) f += x;
        else if (s.pass == SUM_DEVIATION) f += (x - mean) * (x - mean);
        else {
            f += s.dy[at];
            g += s.dy[at] * ((x - mean) * s.stats[2 * who + 1]);
        }
    }
    f = group_sum<G>(f);
    g = group_sum<G>(g);
    if (group_place<G>() != 0) return;
    partial[(c * 2) * s.parts + part] = f;
    partial[(c * 2 + 1) * s.parts + part] = g;
}

/* sum [C, 2] = the parts' sums */
static __global__ void channel_finish_kernel(int64_t tasks, int64_t parts, const float *partial,
                                             float *sum)
{
    int64_t t = group_number<LANES>();
    if (t >= tasks) return;
    float all = 0;
    for (int64_t i = group_place<LANES>(); i < parts; i += LANES) all += partial[t * parts + i];
    all = warp_sum(all);
    if (group_place<LANES>() == 0) sum[t] = all;
}

/* Both sums of every channel, [C, 2], in scratch memory; NULL where that is out. */
static const float *channel_sums(nsm_device *d, channel_job s)
{
    bool warp = s.inner > 1;
    cut_sum(s.outer * s.inner, s.c, warp, &s.part, &s.parts);
    int64_t tasks = s.c * s.parts;
    float *sum = scratch_floats(d, 2 * s.c + 2 * tasks), *partial = sum + 2 * s.c;
    if (!sum) return NULL;
    if (warp)
        NSM_LAUNCH(channel_kernel<LANES>, groups_of(tasks, LANES), BLOCK, stream_of(d), tasks, s,
                   partial);
    else NSM_LAUNCH(channel_kernel<1>, groups_of(tasks, 1), BLOCK, stream_of(d), tasks, s, partial);
    NSM_LAUNCH(channel_finish_kernel, groups_of(2 * s.c, LANES), BLOCK, stream_of(d), 2 * s.c,
               s.parts, partial, sum);
    launched(d);
    return sum;
}

/* dw [C] and db [C] += what channel_sums() gave. */
static __global__ void weights_back_kernel(int64_t n, const float *sum, float *dw, float *db)
{
    EACH_ITEM(c, n) {
        if (dw) dw[c] += sum[2 * c + 1];
        if (db) db[c] += sum[2 * c];
    }
}

/* ---- norms along rows ---- */

template <int G>
static __global__ void row_norm_kernel(int64_t rows, bool rms, int64_t cols, float eps,
                                       const float *x, const float *w, const float *b, float *y,
                                       float *stats)
{
    int64_t r = group_number<G>();
    if (r >= rows) return;
    const float *from = x + r * cols;
    float mean = 0, sum = 0;
    if (!rms) {
        for (int64_t j = group_place<G>(); j < cols; j += G) sum += from[j];
        mean = group_sum<G>(sum) / (float)cols;
        sum = 0;
    }
    for (int64_t j = group_place<G>(); j < cols; j += G) sum += (from[j] - mean) * (from[j] - mean);
    float rstd = 1 / sqrtf(group_sum<G>(sum) / (float)cols + eps);
    for (int64_t j = group_place<G>(); j < cols; j += G) {
        float v = (from[j] - mean) * rstd;
        if (w) v *= w[j];
        if (b) v += b[j];
        y[r * cols + j] = v;
    }
    if (group_place<G>() != 0) return;
    stats[2 * r] = mean;
    stats[2 * r + 1] = rstd;
}

static void row_norm(nsm_device *d, bool rms, int64_t rows, int64_t cols, float eps, const float *x,
                     const float *w, const float *b, float *y, float *stats)
{
    if (rows == 0) return;
    WITH_GROUP(false, cols,
               NSM_LAUNCH(row_norm_kernel<G>, groups_of(rows, G), BLOCK, stream_of(d), rows, rms,
                          cols, eps, x, w, b, y, stats));
    launched(d);
}

template <int G>
static __global__ void row_norm_back_kernel(int64_t rows, bool rms, int64_t cols, const float *x,
                                            const float *w, const float *stats, const float *dy,
                                            float beta, float *dx)
{
    int64_t r = group_number<G>();
    if (r >= rows) return;
    float mean = stats[2 * r], rstd = stats[2 * r + 1], sum = 0, sum_x = 0;
    for (int64_t j = group_place<G>(); j < cols; j += G) {
        float g = w ? dy[r * cols + j] * w[j] : dy[r * cols + j];
        sum += g;
        sum_x += g * ((x[r * cols + j] - mean) * rstd);
    }
    float mean_g = rms ? 0 : group_sum<G>(sum) / (float)cols,
          mean_gx = group_sum<G>(sum_x) / (float)cols;
    for (int64_t j = group_place<G>(); j < cols; j += G) {
        float g = w ? dy[r * cols + j] * w[j] : dy[r * cols + j];
        put(&dx[r * cols + j], beta,
            rstd * (g - mean_g - (x[r * cols + j] - mean) * rstd * mean_gx));
    }
}

static void row_norm_back(nsm_device *d, bool rms, int64_t rows, int64_t cols, const float *x,
                          const float *w, const float *stats, const float *dy, float beta,
                          float *dx, float *dw, float *db)
{
    if (rows == 0 || cols == 0) return;
    if (dw || db) { /* first: dx may be dy */
        channel_job s = { SUM_GRADIENT, rows, cols, 1, 0, 0, x, dy, stats, true };
        const float *sum = channel_sums(d, s);
        if (sum) FOR_ITEMS(d, weights_back_kernel, cols, sum, dw, db);
    }
    if (!dx) return;
    WITH_GROUP(false, cols,
               NSM_LAUNCH(row_norm_back_kernel<G>, groups_of(rows, G), BLOCK, stream_of(d), rows,
                          rms, cols, x, w, stats, dy, beta, dx));
    launched(d);
}

/* ---- batch norm ---- */

static __global__ void mean_kernel(int64_t n, float count, const float *sum, float *stats)
{
    EACH_ITEM(c, n) {
        stats[2 * c] = sum[2 * c] / count;
        stats[2 * c + 1] = 0;
    }
}

static __global__ void variance_kernel(int64_t n, float count, float eps, const float *sum,
                                       float *stats, float *var)
{
    EACH_ITEM(c, n) {
        stats[2 * c + 1] = 1 / sqrtf(sum[2 * c] / count + eps);
        if (var) var[c] = sum[2 * c] / count;
    }
}

static __global__ void batch_norm_kernel(int64_t n, int64_t c, int64_t inner, const float *x,
                                         const float *w, const float *b, const float *stats,
                                         float *y)
{
    EACH_ITEM(i, n) {
        int64_t k = i / inner % c;
        float scale = stats[2 * k + 1] * (w ? w[k] : 1);
        y[i] = (x[i] - stats[2 * k]) * scale + (b ? b[k] : 0);
    }
}

static void batch_norm(nsm_device *d, bool training, int64_t outer, int64_t c, int64_t inner,
                       float eps, const float *x, const float *w, const float *b, float *y,
                       float *stats, float *var)
{
    float count = (float)(outer * inner);
    if (training) {
        channel_job s = { SUM_X, outer, c, inner, 0, 0, x, NULL, NULL, false };
        const float *sum = channel_sums(d, s);
        if (!sum) return;
        FOR_ITEMS(d, mean_kernel, c, count, sum, stats);
        s.pass = SUM_DEVIATION;
        s.stats = stats;
        sum = channel_sums(d, s);
        FOR_ITEMS(d, variance_kernel, c, count, eps, sum, stats, var);
    }
    FOR_ITEMS(d, batch_norm_kernel, outer * c * inner, c, inner, x, w, b, stats, y);
}

/* Training: dx = w rstd (dy - mean(dy) - xhat mean(dy xhat)); else dx = w rstd dy. */
static __global__ void batch_norm_back_kernel(int64_t n, bool training, int64_t c, int64_t inner,
                                              float count, const float *x, const float *w,
                                              const float *stats, const float *sum, const float *dy,
                                              float beta, float *dx)
{
    EACH_ITEM(i, n) {
        int64_t k = i / inner % c;
        float rstd = stats[2 * k + 1], scale = rstd * (w ? w[k] : 1), v = dy[i];
        if (training)
            v -= sum[2 * k] / count + (x[i] - stats[2 * k]) * rstd * (sum[2 * k + 1] / count);
        put(&dx[i], beta, scale * v);
    }
}

static void batch_norm_back(nsm_device *d, bool training, int64_t outer, int64_t c, int64_t inner,
                            const float *x, const float *w, const float *stats, const float *dy,
                            float beta, float *dx, float *dw, float *db)
{
    channel_job s = { SUM_GRADIENT, outer, c, inner, 0, 0, x, dy, stats, false };
    const float *sum = outer * c * inner > 0 ? channel_sums(d, s) : NULL;
    if (!sum) return;
    FOR_ITEMS(d, weights_back_kernel, c, sum, dw, db);
    if (dx)
        FOR_ITEMS(d, batch_norm_back_kernel, outer * c * inner, training, c, inner,
                  (float)(outer * inner), x, w, stats, sum, dy, beta, dx);
}

void nsmi_cuda_norm(nsm_backend *be)
{
    be->softmax = softmax;
    be->softmax_back = softmax_back;
    be->row_norm = row_norm;
    be->row_norm_back = row_norm_back;
    be->batch_norm = batch_norm;
    be->batch_norm_back = batch_norm_back;
}
