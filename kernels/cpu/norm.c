/* kernels/cpu/norm.c - Softmax, layer, RMS and batch norm, and rows by index.
 *
 * Softmax and batch norm see x as [outer, n, inner]; inner 1 goes along rows, otherwise W columns
 * of inner go down together.  Sums over all rows (dw, db, a channel's mean) are partial sums of
 * fixed blocks of rows, added in order. */
#include "kernels/cpu/cpu.h"

/* ---- softmax ---- */

static float row_top(int64_t n, const float *x)
{
    vf top = vf_set(-INFINITY);
    VF_EACH(i, k, n, { top = vf_max(vf_first(vf_get(x + i, k), k, top), top); });
    return vf_top(top);
}

static void softmax_row(bool log, int64_t n, const float *x, float *y)
{
    vf top = vf_set(row_top(n, x)), sum = {0};
    if (log) {
        VF_EACH(i, k, n, {
            sum += vf_first(vf_exp(vf_first(vf_get(x + i, k) - top, k, vf_set(0))), k, vf_set(0));
        });
        vf shift = top + logf(vf_sum(sum));
        VF_EACH(i, k, n, { vf_put(y + i, vf_get(x + i, k) - shift, k); });
        return;
    }
    VF_EACH(i, k, n, {
        vf e = vf_exp(vf_first(vf_get(x + i, k) - top, k, vf_set(0)));
        vf_put(y + i, e, k);
        sum += vf_first(e, k, vf_set(0));
    });
    float scale = 1 / vf_sum(sum);
    VF_EACH(i, k, n, { vf_put(y + i, scale * vf_get(y + i, k), k); });
}

/* k columns, `stride` apart from one of the n to the next */
static void softmax_columns(bool log, int64_t n, int64_t stride, int64_t k, const float *x,
                            float *y)
{
    vf top = vf_set(-INFINITY), sum = {0};
    for (int64_t j = 0; j < n; j++) top = vf_max(vf_get(x + j * stride, k), top);
    for (int64_t j = 0; j < n; j++) {
        vf e = vf_exp(vf_get(x + j * stride, k) - top);
        sum += e;
        if (!log) vf_put(y + j * stride, e, k);
    }
    if (log) {
        vf shift = top + vf_log(vf_first(sum, k, vf_set(1)));
        for (int64_t j = 0; j < n; j++)
            vf_put(y + j * stride, vf_get(x + j * stride, k) - shift, k);
    } else {
        vf scale = 1 / vf_first(sum, k, vf_set(1));
        for (int64_t j = 0; j < n; j++)
            vf_put(y + j * stride, scale * vf_get(y + j * stride, k), k);
    }
}

static void softmax_back_row(bool log, int64_t n, const float *y, const float *dy, float beta,
                             float *dx)
{
    vf sum = {0};
    VF_EACH(i, k, n, { sum += log ? vf_get(dy + i, k) : vf_get(dy + i, k) * vf_get(y + i, k); });
    float s = vf_sum(sum);
    VF_EACH(i, k, n, {
        vf v = vf_get(y + i, k), g = vf_get(dy + i, k);
        vf r = log ? g - vf_exp(v) * s : v * (g - s);
        vf_put(dx + i, beta == 0 ? r : beta * vf_get(dx + i, k) + r, k);
    });
}

static void softmax_back_columns(bool log, int64_t n, int64_t stride, int64_t k, const float *y,
                                 const float *dy, float beta, float *dx)
{
    vf s = {0};
    for (int64_t j = 0; j < n; j++) {
        vf g = vf_get(dy + j * stride, k);
        s += log ? g : g * vf_get(y + j * stride, k);
    }
    for (int64_t j = 0; j < n; j++) {
        vf v = vf_get(y + j * stride, k), g = vf_get(dy + j * stride, k);
        vf r = log ? g - vf_exp(v) * s : v * (g - s);
        vf_put(dx + j * stride, beta == 0 ? r : beta * vf_get(dx + j * stride, k) + r, k);
    }
}

static void softmax(nsm_device *d, bool log, int64_t outer, int64_t n, int64_t inner,
                    const float *x, float *y)
{
    int64_t strips = inner == 1 ? 1 : nsmi_blocks(inner, W),
            size = nsmi_block_rows(inner == 1 ? n : n * W), all = outer * strips;
#pragma omp parallel for num_threads(nsmi_team(d, outer * n * inner * 4)) schedule(static)
    for (int64_t b = 0; b < nsmi_blocks(all, size); b++)
        for (int64_t t = b * size; t < nsmi_block_end(b, size, all); t++) {
            int64_t i = t % strips * W, at = t / strips * n * inner + i;
            if (inner == 1)
                softmax_row(log, n, x + at, y + at);
            else
                softmax_columns(log, n, inner, inner - i < W ? inner - i : W, x + at, y + at);
        }
}

static void softmax_back(nsm_device *d, bool log, int64_t outer, int64_t n, int64_t inner,
                         const float *y, const float *dy, float beta, float *dx)
{
    int64_t strips = inner == 1 ? 1 : nsmi_blocks(inner, W),
            size = nsmi_block_rows(inner == 1 ? n : n * W), all = outer * strips;
#pragma omp parallel for num_threads(nsmi_team(d, outer * n * inner * 2)) schedule(static)
    for (int64_t b = 0; b < nsmi_blocks(all, size); b++)
        for (int64_t t = b * size; t < nsmi_block_end(b, size, all); t++) {
            int64_t i = t % strips * W, at = t / strips * n * inner + i;
            if (inner == 1)
                softmax_back_row(log, n, y + at, dy + at, beta, dx + at);
            else
                softmax_back_columns(log, n, inner, inner - i < W ? inner - i : W, y + at, dy + at,
                                     beta, dx + at);
        }
}

/* ---- norms along rows ---- */

static void row_norm(nsm_device *d, bool rms, int64_t rows, int64_t cols, float eps, const float *x,
                     const float *w, const float *b, float *y, float *stats)
{
    int64_t size = nsmi_block_rows(cols);
#pragma omp parallel for num_threads(nsmi_team(d, rows * cols)) schedule(static)
    for (int64_t block = 0; block < nsmi_blocks(rows, size); block++)
        for (int64_t r = block * size; r < nsmi_block_end(block, size, rows); r++) {
            const float *from = x + r * cols;
            float *to = y + r * cols, mean = 0;
            vf sum = {0};
            if (!rms) {
                VF_EACH(i, k, cols, { sum += vf_get(from + i, k); });
                mean = vf_sum(sum) / (float)cols;
                sum = vf_set(0);
            }
            VF_EACH(i, k, cols, {
                vf v = vf_first(vf_get(from + i, k) - mean, k, vf_set(0));
                sum += v * v;
            });
            float rstd = 1 / sqrtf(vf_sum(sum) / (float)cols + eps);
            VF_EACH(i, k, cols, {
                vf v = (vf_get(from + i, k) - mean) * rstd;
                if (w) v *= vf_get(w + i, k);
                if (b) v += vf_get(b + i, k);
                vf_put(to + i, v, k);
            });
            stats[2 * r] = mean;
            stats[2 * r + 1] = rstd;
        }
}

/* One row's dx; its part of dw and db is added. */
static void row_norm_back_row(bool rms, int64_t cols, const float *x, const float *w,
                              const float *stats, const float *dy, float beta, float *dx, float *dw,
                              float *db)
{
    float mean = stats[0], rstd = stats[1];
    vf sum = {0}, sum_x = {0};
    VF_EACH(i, k, cols, {
        vf dyi = vf_get(dy + i, k), xhat = (vf_get(x + i, k) - mean) * rstd,
           g = w ? dyi * vf_get(w + i, k) : dyi;
        sum += g;
        sum_x += g * xhat;
        if (dw) vf_put(dw + i, vf_get(dw + i, k) + dyi * xhat, k);
        if (db) vf_put(db + i, vf_get(db + i, k) + dyi, k);
    });
    if (!dx) return;
    float mean_g = rms ? 0 : vf_sum(sum) / (float)cols, mean_gx = vf_sum(sum_x) / (float)cols;
    VF_EACH(i, k, cols, {
        vf dyi = vf_get(dy + i, k), xhat = (vf_get(x + i, k) - mean) * rstd,
           g = w ? dyi * vf_get(w + i, k) : dyi;
        vf v = rstd * (g - mean_g - xhat * mean_gx);
        blend_n(dx + i, beta, v, k);
    });
}

/* y += the rows of partial [blocks, width] from column `first` on, in order. */
static void add_partials(int64_t blocks, int64_t width, int64_t first, int64_t n,
                         const float *partial, float *y)
{
    for (int64_t b = 0; y && b < blocks; b++)
        for (int64_t j = 0; j < n; j++) y[j] += partial[b * width + first + j];
}

static void row_norm_back(nsm_device *d, bool rms, int64_t rows, int64_t cols, const float *x,
                          const float *w, const float *stats, const float *dy, float beta,
                          float *dx, float *dw, float *db)
{
    int64_t size = nsmi_partial_rows(rows, cols, 2 * cols), blocks = nsmi_blocks(rows, size);
    float *partial = nsmi_scratch(d); /* [blocks, 2, C] */
#pragma omp parallel for num_threads(nsmi_team(d, rows * cols)) schedule(static)
    for (int64_t block = 0; block < blocks; block++) {
        float *sum = partial + block * 2 * cols;
        memset(sum, 0, (size_t)(2 * cols) * sizeof(float));
        for (int64_t r = block * size; r < nsmi_block_end(block, size, rows); r++)
            row_norm_back_row(rms, cols, x + r * cols, w, stats + 2 * r, dy + r * cols, beta,
                              dx ? dx + r * cols : NULL, dw ? sum : NULL, db ? sum + cols : NULL);
    }
    add_partials(blocks, 2 * cols, 0, cols, partial, dw);
    add_partials(blocks, 2 * cols, cols, cols, partial, db);
}

/* ---- batch norm ----
 * Two sums per channel are all that any of its passes needs: of f and of g, which a pass computes
 * from x and dy.  [rows, C] (inner 1) sums down the rows, else every channel sums its runs. */

typedef enum { SUM_X, SUM_DEVIATION, SUM_GRADIENT } channel_pass;

typedef struct {
    channel_pass pass;
    int64_t outer, c, inner;
    const float *x, *dy, *stats; /* stats [C,2] */
} channels;

/* SUM_X: x | SUM_DEVIATION: (x - mean)^2 | SUM_GRADIENT: dy and dy xhat */
static inline void channel_terms(channel_pass pass, vf x, vf dy, vf mean, vf rstd, vf *f, vf *g)
{
    vf v = x - mean;
    *f = pass == SUM_X ? x : pass == SUM_DEVIATION ? v * v : dy;
    *g = dy * v * rstd;
}

/* Sums of the rows of one block, into sum [2, C]: channels stand side by side. */
static void channel_rows(const channels *s, int64_t r0, int64_t r1, float *sum)
{
    for (int64_t c = 0; c < s->c; c += W) {
        int64_t k = s->c - c < W ? s->c - c : W;
        vf mean = {0}, rstd = {0}, f, g, sum_f = {0}, sum_g = {0};
        for (int64_t j = 0; s->stats && j < k; j++) {
            mean[j] = s->stats[2 * (c + j)];
            rstd[j] = s->stats[2 * (c + j) + 1];
        }
        for (int64_t r = r0; r < r1; r++) {
            vf x = vf_get(s->x + r * s->c + c, k), dy = s->dy ? vf_get(s->dy + r * s->c + c, k) : x;
            channel_terms(s->pass, x, dy, mean, rstd, &f, &g);
            sum_f += f;
            sum_g += g;
        }
        vf_put(sum + c, sum_f, k);
        vf_put(sum + s->c + c, sum_g, k);
    }
}

/* Sums of one channel's runs. */
static void channel_runs(const channels *s, int64_t c, float *sum_0, float *sum_1)
{
    vf mean = vf_set(s->stats ? s->stats[2 * c] : 0),
       rstd = vf_set(s->stats ? s->stats[2 * c + 1] : 0);
    double total_f = 0, total_g = 0;
    for (int64_t o = 0; o < s->outer; o++) {
        const float *x = s->x + (o * s->c + c) * s->inner,
                    *dy = s->dy ? s->dy + (o * s->c + c) * s->inner : x;
        vf f, g, sum_f = {0}, sum_g = {0};
        VF_EACH(i, k, s->inner, {
            channel_terms(s->pass, vf_first(vf_get(x + i, k), k, mean), vf_get(dy + i, k), mean,
                          rstd, &f, &g);
            sum_f += vf_first(f, k, vf_set(0));
            sum_g += g;
        });
        total_f += vf_sum(sum_f);
        total_g += vf_sum(sum_g);
    }
    *sum_0 = (float)total_f;
    *sum_1 = (float)total_g;
}

enum { GROUP_ROWS = 128 }; /* rows that a vector of sums takes before it is added to the block's */

/* Both sums of every channel, into scratch's first 2 C floats, which are returned. */
static const float *channel_sums(nsm_device *d, const channels *s)
{
    float *sum = nsmi_scratch(d), *partial = sum + 2 * s->c; /* [2, C]; [blocks, 2, C] */
    if (s->inner > 1) {
#pragma omp parallel for num_threads(nsmi_team(d, s->outer * s->c * s->inner)) schedule(static)
        for (int64_t c = 0; c < s->c; c++) channel_runs(s, c, sum + c, sum + s->c + c);
        return sum;
    }
    int64_t width = 2 * s->c, blocks = nsmi_blocks(s->outer, GROUP_ROWS);
    int64_t room = NSMI_SCRATCH / width - 1, size = GROUP_ROWS;
    if (blocks > room) size = nsmi_blocks(s->outer, room);
    blocks = nsmi_blocks(s->outer, size);
#pragma omp parallel for num_threads(nsmi_team(d, s->outer * s->c)) schedule(static)
    for (int64_t b = 0; b < blocks; b++)
        channel_rows(s, b * size, nsmi_block_end(b, size, s->outer), partial + b * width);
    for (int64_t j = 0; j < width; j++) {
        double total = 0;
        for (int64_t b = 0; b < blocks; b++) total += partial[b * width + j];
        sum[j] = (float)total;
    }
    return sum;
}

static void batch_norm_stats(nsm_device *d, int64_t outer, int64_t c, int64_t inner, float eps,
                             const float *x, float *stats, float *var)
{
    float count = (float)(outer * inner);
    const float *sum = channel_sums(d, &(channels){ SUM_X, outer, c, inner, x, NULL, NULL });
    for (int64_t j = 0; j < c; j++) stats[2 * j] = sum[j] / count, stats[2 * j + 1] = 0;
    sum = channel_sums(d, &(channels){ SUM_DEVIATION, outer, c, inner, x, NULL, stats });
    for (int64_t j = 0; j < c; j++) {
        stats[2 * j + 1] = 1 / sqrtf(sum[j] / count + eps);
        if (var) var[j] = sum[j] / count;
    }
}

/* y = beta y + coef[0,c] x + coef[1,c] + coef[2,c] other, in runs of neighbours; coef [3, C]. */
static void channel_affine(nsm_device *d, int64_t outer, int64_t c, int64_t inner,
                           const float *coef, const float *x, const float *other, float beta,
                           float *y)
{
    int64_t runs = inner == 1 ? outer : outer * c, n = inner == 1 ? c : inner,
            size = nsmi_block_rows(n);
#pragma omp parallel for num_threads(nsmi_team(d, outer * c * inner)) schedule(static)
    for (int64_t b = 0; b < nsmi_blocks(runs, size); b++)
        for (int64_t r = b * size; r < nsmi_block_end(b, size, runs); r++) {
            const float *from = x + r * n, *second = other ? other + r * n : NULL,
                        *scale = coef + (inner == 1 ? 0 : r % c);
            float *to = y + r * n;
            VF_EACH(i, k, n, {
                vf v = inner == 1
                           ? vf_get(scale + i, k) * vf_get(from + i, k) + vf_get(scale + c + i, k)
                           : scale[0] * vf_get(from + i, k) + scale[c];
                if (second)
                    v += inner == 1 ? vf_get(scale + 2 * c + i, k) * vf_get(second + i, k)
                                    : scale[2 * c] * vf_get(second + i, k);
                blend_n(to + i, beta, v, k);
            });
        }
}

static void batch_norm(nsm_device *d, bool training, int64_t outer, int64_t c, int64_t inner,
                       float eps, const float *x, const float *w, const float *b, float *y,
                       float *stats, float *var)
{
    if (training) batch_norm_stats(d, outer, c, inner, eps, x, stats, var);
    float *coef = nsmi_scratch(d);
    for (int64_t j = 0; j < c; j++) {
        coef[j] = stats[2 * j + 1] * (w ? w[j] : 1);
        coef[c + j] = (b ? b[j] : 0) - stats[2 * j] * coef[j];
    }
    channel_affine(d, outer, c, inner, coef, x, NULL, 0, y);
}

/* Training: dx = w rstd (dy - mean(dy) - xhat mean(dy xhat)); else dx = w rstd dy. */
static void batch_norm_back(nsm_device *d, bool training, int64_t outer, int64_t c, int64_t inner,
                            const float *x, const float *w, const float *stats, const float *dy,
                            float beta, float *dx, float *dw, float *db)
{
    float count = (float)(outer * inner);
    float *coef = nsmi_scratch(d) + 2 * c;
    const float *sum = channel_sums(d, &(channels){ SUM_GRADIENT, outer, c, inner, x, dy, stats });
    for (int64_t j = 0; j < c; j++) {
        float rstd = stats[2 * j + 1], scale = rstd * (w ? w[j] : 1);
        if (dw) dw[j] += sum[c + j];
        if (db) db[j] += sum[j];
        coef[j] = scale;
        coef[2 * c + j] = training ? -scale * rstd * sum[c + j] / count : 0;
        coef[c + j] = training ? -scale * sum[j] / count - coef[2 * c + j] * stats[2 * j] : 0;
    }
    if (dx) channel_affine(d, outer, c, inner, coef, dy, training ? x : NULL, beta, dx);
}

/* ---- rows by index ---- */

static void gather(nsm_device *d, int64_t n, int64_t cols, int64_t rows, const int32_t *index,
                   const float *x, float *y)
{
    (void)rows; /* the op has looked at every index */
    int64_t size = nsmi_block_rows(cols);
#pragma omp parallel for num_threads(nsmi_team(d, n * cols)) schedule(static)
    for (int64_t b = 0; b < nsmi_blocks(n, size); b++)
        for (int64_t i = b * size; i < nsmi_block_end(b, size, n); i++) {
            const float *from = x + (int64_t)index[i] * cols;
            float *to = y + i * cols;
            VF_EACH(j, k, cols, { vf_put(to + j, vf_get(from + j, k), k); });
        }
}

static void scatter_rows(nsm_device *d, int64_t n, int64_t cols, const int32_t *index,
                         const float *x, float *y)
{
    int64_t size = nsmi_block_rows(cols);
#pragma omp parallel for num_threads(nsmi_team(d, n *cols)) schedule(static)
    for (int64_t b = 0; b < nsmi_blocks(n, size); b++)
        for (int64_t i = b * size; i < nsmi_block_end(b, size, n); i++) {
            const float *from = x + i * cols;
            float *to = y + (int64_t)index[i] * cols;
            VF_EACH(j, k, cols, { vf_put(to + j, vf_get(to + j, k) + vf_get(from + j, k), k); });
        }
}

static void gather_back(nsm_device *d, const nsm_csr_part *by_row, int64_t cols, const float *dy,
                        float *dx)
{
#pragma omp parallel for num_threads(nsmi_team(d, by_row->nnz * cols)) schedule(dynamic)
    for (int64_t c = 0; c < by_row->chunks; c++)
        for (int64_t r = by_row->chunk[c]; r < by_row->chunk[c + 1]; r++) {
            float *to = dx + r * cols;
            for (int64_t e = by_row->ptr[r]; e < by_row->ptr[r + 1]; e++) {
                const float *from = dy + (by_row->pos ? by_row->pos[e] : e) * cols;
                VF_EACH(j, k, cols,
                        { vf_put(to + j, vf_get(to + j, k) + vf_get(from + j, k), k); });
            }
        }
}

void NSMI_FILL(norm)(nsm_backend *be)
{
    be->softmax = softmax;
    be->softmax_back = softmax_back;
    be->row_norm = row_norm;
    be->row_norm_back = row_norm_back;
    be->batch_norm = batch_norm;
    be->batch_norm_back = batch_norm_back;
    be->gather = gather;
    be->scatter_rows = scatter_rows;
    be->gather_back = gather_back;
}
