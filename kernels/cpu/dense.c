/* kernels/cpu/dense.c - Matrix products, copies, sums and random numbers of dense arrays.
 *
 * A product is cut into tiles of a fixed size, each one single-thread sgemm call of OpenBLAS from
 * a parallel loop of ours: OpenBLAS' own threading changes the sums with the number of threads.
 * A long K over a small C (weight gradients) is cut into K blocks whose results are added in order.
 * Letters: C [m, n] = A [m, k] B [k, n]. */
#include <cblas.h>
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/random.h"

enum {
    TILE_LEAST = 128,   /* rows or columns of a tile, at least ... */
    TILE_MOST = 1024,   /* ... and at most */
    K_BLOCK = 4096,     /* of a long K */
    DIMS = 5
};

/* ---- matrix products ---- */

typedef struct {
    bool ta, tb;
    int64_t m, n, k;
    float alpha, beta;
    const float *a, *b;
    float *c;
    int64_t lda, ldb, ldc;
} product;

static void scale_rows(int64_t m, int64_t n, float beta, float *c, int64_t ldc)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) c[i * ldc + j] = beta == 0 ? 0 : beta * c[i * ldc + j];
}

/* Rows i.. and columns j.. of C, over k0 <= k < k1; OpenBLAS must run on one thread. */
static void tile(const product *p, int64_t i, int64_t mt, int64_t j, int64_t nt, int64_t k0,
                 int64_t k1, float beta, float *c, int64_t ldc)
{
    const float *a = p->a + (p->ta ? k0 * p->lda + i : i * p->lda + k0);
    const float *b = p->b + (p->tb ? j * p->ldb + k0 : k0 * p->ldb + j);
    cblas_sgemm(CblasRowMajor, p->ta ? CblasTrans : CblasNoTrans, p->tb ? CblasTrans : CblasNoTrans,
                (blasint)mt, (blasint)nt, (blasint)(k1 - k0), p->alpha, a, (blasint)p->lda, b,
                (blasint)p->ldb, beta, c, (blasint)ldc);
}

/* A quarter of the size, in whole vectors, within the limits: enough tiles to share out. */
static int64_t tile_size(int64_t size)
{
    int64_t part = (size / 4 + 63) / 64 * 64;
    return part < TILE_LEAST ? TILE_LEAST : part > TILE_MOST ? TILE_MOST : part;
}

static void product_long_k(nsm_device *d, const product *p, int64_t k_block)
{
    int64_t blocks = nsmi_blocks(p->k, k_block), size = p->m * p->n;
    float *partial = nsmi_scratch(d); /* [blocks, m, n] */
#pragma omp parallel for num_threads(nsmi_team(d, size * p->k)) schedule(dynamic)
    for (int64_t b = 0; b < blocks; b++)
        tile(p, 0, p->m, 0, p->n, b * k_block, nsmi_block_end(b, k_block, p->k), 0,
             partial + b * size, p->n);
#pragma omp parallel for num_threads(nsmi_team(d, size * blocks)) schedule(static)
    for (int64_t i = 0; i < p->m; i++) {
        float *c = p->c + i * p->ldc;
        for (int64_t j = 0; j < p->n; j++) {
            float sum = p->beta == 0 ? 0 : p->beta * c[j];
            for (int64_t b = 0; b < blocks; b++) sum += partial[b * size + i * p->n + j];
            c[j] = sum;
        }
    }
}

static void product_tiles(nsm_device *d, const product *p)
{
    int64_t mt = tile_size(p->m), nt = p->m >= p->n && p->n <= TILE_MOST ? p->n : tile_size(p->n);
    int64_t down = nsmi_blocks(p->m, mt), across = nsmi_blocks(p->n, nt);
#pragma omp parallel for num_threads(nsmi_team(d, p->m * p->n * p->k)) schedule(dynamic)
    for (int64_t t = 0; t < down * across; t++) {
        int64_t i = t / across * mt, j = t % across * nt;
        int64_t rows = p->m - i < mt ? p->m - i : mt, cols = p->n - j < nt ? p->n - j : nt;
        tile(p, i, rows, j, cols, 0, p->k, p->beta, p->c + i * p->ldc + j, p->ldc);
    }
}

/* OpenBLAS runs on one thread inside a parallel region, but a team of one is none: ask for it. */
static int hold_openblas(void)
{
    int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    return threads;
}

static void gemm(nsm_device *d, bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha,
                 const float *a, int64_t lda, const float *b, int64_t ldb, float beta, float *c,
                 int64_t ldc)
{
    product p = { ta, tb, m, n, k, alpha, beta, a, b, c, lda, ldb, ldc };
    if (m == 0 || n == 0) return;
    if (k == 0) {
        scale_rows(m, n, beta, c, ldc);
        return;
    }
    int threads = hold_openblas();
    int64_t room =
        m * n <= NSMI_SCRATCH ? NSMI_SCRATCH / (m * n) : 0; /* K blocks that scratch holds */
    int64_t k_block = room > 1 ? nsmi_blocks(k, room > 64 ? 64 : room) : k;
    if (k_block < K_BLOCK) k_block = K_BLOCK;
    if (k >= 2 * k_block && m <= TILE_MOST && n <= TILE_MOST)
        product_long_k(d, &p, k_block);
    else
        product_tiles(d, &p);
    omp_set_num_threads(threads);
}

static void gemm_batch(nsm_device *d, bool ta, bool tb, int64_t batch, int64_t m, int64_t n,
                       int64_t k, float alpha, const float *a, int64_t lda, int64_t sa,
                       const float *b, int64_t ldb, int64_t sb, float beta, float *c, int64_t ldc,
                       int64_t sc)
{
    if (batch < 4 && m * n * k >= (int64_t)1 << 20) { /* few and large: share out each */
        for (int64_t i = 0; i < batch; i++)
            gemm(d, ta, tb, m, n, k, alpha, a + i * sa, lda, b + i * sb, ldb, beta, c + i * sc,
                 ldc);
        return;
    }
    if (m == 0 || n == 0) return;
    int threads = hold_openblas();
#pragma omp parallel for num_threads(nsmi_team(d, batch * m * n * k)) schedule(dynamic)
    for (int64_t i = 0; i < batch; i++) {
        product p = { ta,         tb,         m,          n,   k,   alpha, beta,
                      a + i * sa, b + i * sb, c + i * sc, lda, ldb, ldc };
        if (k == 0)
            scale_rows(m, n, beta, p.c, ldc);
        else
            tile(&p, 0, m, 0, n, 0, k, beta, p.c, ldc);
    }
    omp_set_num_threads(threads);
}

/* ---- passes over arrays ---- */

#define FOR_BLOCKS(d, n)                                             \
    _Pragma("omp parallel for num_threads(nsmi_team(d, n)) schedule(static)") \
    for (int64_t block = 0; block < nsmi_blocks(n, NSMI_BLOCK); block++)
#define BLOCK_START (block * NSMI_BLOCK)
#define BLOCK_END(n) nsmi_block_end(block, NSMI_BLOCK, n)

static void fill(nsm_device *d, int64_t n, float value, float *y)
{
    FOR_BLOCKS(d, n) for (int64_t i = BLOCK_START, end = BLOCK_END(n); i < end; i++) y[i] = value;
}

static void axpy(nsm_device *d, int64_t n, float a, const float *x, float *y)
{
    FOR_BLOCKS(d, n)
    for (int64_t i = BLOCK_START, end = BLOCK_END(n); i < end; i++) y[i] += a * x[i];
}

static void axpby(nsm_device *d, int64_t n, float a, const float *x, float b, float *y)
{
    if (b == 0) {
        FOR_BLOCKS(d, n)
        for (int64_t i = BLOCK_START, end = BLOCK_END(n); i < end; i++) y[i] = a * x[i];
    } else {
        FOR_BLOCKS(d, n)
        for (int64_t i = BLOCK_START, end = BLOCK_END(n); i < end; i++) y[i] = a * x[i] + b * y[i];
    }
}

static void copy_row(int64_t n, const float *x, float beta, float *y)
{
    if (beta == 0)
        memcpy(y, x, (size_t)n * sizeof(float));
    else
        for (int64_t i = 0; i < n; i++) y[i] = beta * y[i] + x[i];
}

static void copy_block(nsm_device *d, int64_t rows, int64_t cols, const float *x, int64_t ldx,
                       float beta, float *y, int64_t ldy)
{
    int64_t size = nsmi_block_rows(cols);
    if (cols == 0) return;
#pragma omp parallel for num_threads(nsmi_team(d, rows * cols)) schedule(static)
    for (int64_t b = 0; b < nsmi_blocks(rows, size); b++)
        for (int64_t r = b * size; r < nsmi_block_end(b, size, rows); r++)
            copy_row(cols, x + r * ldx, beta, y + r * ldy);
}

/* y[i, j] = x[i x_row + j x_col], W by W, for x_row 1: planes that a permutation turns. */
static void transpose_square(const float *x, int64_t x_col, float beta, float *y, int64_t y_row)
{
    vf t[W];
    for (int j = 0; j < W; j++) t[j] = vf_load(x + j * x_col);
    vf_transpose(t);
    for (int i = 0; i < W; i++) {
        float *to = y + i * y_row;
        vf_store(to, beta == 0 ? t[i] : beta * vf_load(to) + t[i]);
    }
}

static void transpose_plane(int64_t rows, int64_t cols, const float *x, int64_t x_row,
                            int64_t x_col, float beta, float *y, int64_t y_row)
{
    for (int64_t i0 = 0; i0 < rows; i0 += W)
        for (int64_t j0 = 0; j0 < cols; j0 += W) {
            if (x_row == 1 && i0 + W <= rows && j0 + W <= cols) {
                transpose_square(x + i0 + j0 * x_col, x_col, beta, y + i0 * y_row + j0, y_row);
                continue;
            }
            for (int64_t i = i0; i < i0 + W && i < rows; i++)
                for (int64_t j = j0; j < j0 + W && j < cols; j++) {
                    float *to = y + i * y_row + j, value = x[i * x_row + j * x_col];
                    *to = beta == 0 ? value : beta * *to + value;
                }
        }
}

/* A permutation in y's order, dims of 1 left out and dims that stay neighbours joined. */
typedef struct {
    int rank;
    int64_t dim[DIMS], xs[DIMS], ys[DIMS];
} turning;

static turning turning_of(const int64_t dim[DIMS], const int perm[DIMS])
{
    int64_t stride[DIMS];
    turning t = { 0 };
    for (int64_t k = DIMS - 1, s = 1; k >= 0; s *= dim[k], k--) stride[k] = s;
    for (int k = 0; k < DIMS; k++) {
        int64_t size = dim[perm[k]], s = stride[perm[k]];
        if (size == 1) continue;
        if (t.rank && t.xs[t.rank - 1] == s * size) {
            t.dim[t.rank - 1] *= size;
            t.xs[t.rank - 1] = s;
        } else {
            t.dim[t.rank] = size;
            t.xs[t.rank++] = s;
        }
    }
    for (int64_t k = t.rank - 1, s = 1; k >= 0; s *= t.dim[k], k--) t.ys[k] = s;
    return t;
}

/* Planes of y's inner dim and the dim that stands innermost in x; the other dims count planes. */
static void permute(nsm_device *d, const int64_t dim[DIMS], const int perm[DIMS], const float *x,
                    float beta, float *y)
{
    int64_t n = dim[0] * dim[1] * dim[2] * dim[3] * dim[4];
    turning t = turning_of(dim, perm);
    if (n == 0) return;
    if (t.rank < 2) {
        copy_block(d, 1, n, x, n, beta, y, n);
        return;
    }
    int last = t.rank - 1, row = last - 1;
    for (int k = 0; k < last; k++)
        if (t.xs[k] == 1) row = k;
    bool rows = t.xs[last] == 1; /* whole rows stay together */
    int64_t step =
        rows ? nsmi_block_rows(t.dim[last]) : 4 * W; /* rows of a plane at a time */
    int64_t pieces = nsmi_blocks(t.dim[row], step), planes = n / (t.dim[row] * t.dim[last]);
#pragma omp parallel for num_threads(nsmi_team(d, n)) schedule(static)
    for (int64_t task = 0; task < planes * pieces; task++) {
        int64_t rest = task / pieces, piece = task % pieces * step, from = piece * t.xs[row],
                to = piece * t.ys[row];
        for (int k = last - 1; k >= 0; k--) {
            if (k == row) continue;
            from += rest % t.dim[k] * t.xs[k];
            to += rest % t.dim[k] * t.ys[k];
            rest /= t.dim[k];
        }
        int64_t count = t.dim[row] - piece < step ? t.dim[row] - piece : step;
        if (rows)
            for (int64_t i = 0; i < count; i++)
                copy_row(t.dim[last], x + from + i * t.xs[row], beta, y + to + i * t.ys[row]);
        else
            transpose_plane(count, t.dim[last], x + from, t.xs[row], t.xs[last], beta, y + to,
                            t.ys[row]);
    }
}

/* ---- sums ---- */

static float row_sum(int64_t n, const float *x)
{
    vf sum[4] = {{0}};
    int64_t i = 0;
    for (; i + 4 * W <= n; i += 4 * W)
        for (int j = 0; j < 4; j++) sum[j] += vf_load(x + i + j * W);
    for (; i < n; i += W) sum[0] += vf_get(x + i, n - i);
    return vf_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

/* What sum_to has to do: dims of 1 left out, neighbours of one kind joined; ys 0: summed over. */
typedef struct {
    int rank;
    int64_t dim[DIMS], xs[DIMS], ys[DIMS];
    int64_t kept, summed; /* products of the dims of each kind, but the last */
    int64_t inner, block, blocks; /* the last dim; summed combinations a block, and blocks */
    int64_t piece, pieces;        /* of the last dim */
    bool inner_kept;
} folding;

static folding folding_of(const int64_t dim[DIMS], nsmi_strides s)
{
    folding f = { .kept = 1, .summed = 1, .inner = 1 };
    for (int k = 0; k < DIMS; k++) {
        int64_t ys = s.stride[k];
        int p = f.rank - 1;
        if (dim[k] == 1) continue;
        if (f.rank && ((ys == 0 && f.ys[p] == 0) || (ys != 0 && f.ys[p] == ys * dim[k]))) {
            f.dim[p] *= dim[k];
            f.ys[p] = ys;
        } else {
            f.dim[f.rank] = dim[k];
            f.ys[f.rank++] = ys;
        }
    }
    for (int64_t k = f.rank - 1, x = 1; k >= 0; x *= f.dim[k], k--) f.xs[k] = x;
    for (int k = 0; k < f.rank - 1; k++) *(f.ys[k] ? &f.kept : &f.summed) *= f.dim[k];
    if (f.rank) f.inner = f.dim[f.rank - 1];
    f.inner_kept = f.rank && f.ys[f.rank - 1] == 1;
    /* the cut: from the shape alone */
    f.piece = f.inner_kept                            ? NSMI_BLOCK
              : nsmi_blocks(f.inner, 64) > NSMI_BLOCK ? nsmi_blocks(f.inner, 64)
                                                      : NSMI_BLOCK;
    f.pieces = f.inner ? nsmi_blocks(f.inner, f.piece) : 1; /* a sum of nothing is a task too */
    int64_t width = f.kept * (f.inner_kept ? f.inner : f.pieces);
    f.block = f.kept >= 64 ? f.summed : nsmi_partial_rows(f.summed, f.inner, width);
    f.blocks = f.summed ? nsmi_blocks(f.summed, f.block) : 1;
    return f;
}

/* Where combination i of the kept (or of the summed) dims but the last stands in x and y. */
static void folding_at(const folding *f, bool kept, int64_t i, int64_t *x, int64_t *y)
{
    for (int k = f->rank - 2; k >= 0; k--) {
        if ((f->ys[k] != 0) != kept) continue;
        *x += i % f->dim[k] * f->xs[k];
        *y += i % f->dim[k] * f->ys[k];
        i /= f->dim[k];
    }
}

/* One task: kept combination, block of summed combinations, piece of the last dim. */
static void fold_task(const folding *f, int64_t task, const float *x, float beta, float *y,
                      float *partial)
{
    int64_t piece = task % f->pieces, block = task / f->pieces % f->blocks,
            kept = task / f->pieces / f->blocks;
    int64_t from = 0, to = 0, first = piece * f->piece,
            n = nsmi_block_end(piece, f->piece, f->inner) - first;
    folding_at(f, true, kept, &from, &to);
    float *row = partial ? partial + (kept * f->blocks + block) * f->inner + first : y + to + first;
    float sum = 0;
    if (f->inner_kept)
        for (int64_t i = 0; i < n; i++) row[i] = partial || beta == 0 ? 0 : beta * row[i];
    for (int64_t i = block * f->block; i < nsmi_block_end(block, f->block, f->summed); i++) {
        int64_t at = from + first, none = 0;
        folding_at(f, false, i, &at, &none);
        if (f->inner_kept)
            for (int64_t j = 0; j < n; j++) row[j] += x[at + j];
        else
            sum += row_sum(n, x + at);
    }
    if (f->inner_kept) return;
    if (partial)
        partial[task] = sum;
    else
        y[to] = beta == 0 ? sum : beta * y[to] + sum;
}

/* Add the partial sums of the blocks, in order. */
static void fold_finish(const folding *f, float beta, const float *partial, float *y)
{
    int64_t width = f->inner_kept ? f->inner : 1,
            count = f->inner_kept ? f->blocks : f->blocks * f->pieces;
    for (int64_t kept = 0; kept < f->kept; kept++) {
        int64_t from = 0, to = 0;
        folding_at(f, true, kept, &from, &to);
        for (int64_t j = 0; j < width; j++) {
            float sum = beta == 0 ? 0 : beta * y[to + j];
            for (int64_t b = 0; b < count; b++) sum += partial[(kept * count + b) * width + j];
            y[to + j] = sum;
        }
    }
}

static void sum_to(nsm_device *d, const int64_t dim[DIMS], const float *x, nsmi_strides s,
                   float beta, float *y)
{
    folding f = folding_of(dim, s);
    int64_t tasks = f.kept * f.blocks * f.pieces,
            each = f.inner * (f.summed / f.blocks) / f.pieces + 1;
    bool direct = f.blocks == 1 && (f.inner_kept || f.pieces == 1);
    float *partial = direct ? NULL : nsmi_scratch(d);
    int64_t size = nsmi_block_rows(each);
#pragma omp parallel for num_threads(nsmi_team(d, tasks * each)) schedule(static)
    for (int64_t b = 0; b < nsmi_blocks(tasks, size); b++)
        for (int64_t t = b * size; t < nsmi_block_end(b, size, tasks); t++)
            fold_task(&f, t, x, beta, y, partial);
    if (!direct) fold_finish(&f, beta, partial, y);
}

static void column_sum(nsm_device *d, int64_t rows, int64_t cols, const float *x, float beta,
                       float *y)
{
    sum_to(d, (const int64_t[DIMS]){ 1, 1, 1, rows, cols }, x, (nsmi_strides){ { 0, 0, 0, 0, 1 } },
           beta, y);
}

static double sum_squares(nsm_device *d, int64_t n, const float *x)
{
    int64_t size = nsmi_blocks(n, NSMI_SCRATCH / 2) > NSMI_BLOCK ? nsmi_blocks(n, NSMI_SCRATCH / 2)
                                                                 : NSMI_BLOCK;
    int64_t blocks = nsmi_blocks(n, size);
    double *partial = (double *)nsmi_scratch(d), sum = 0;
#pragma omp parallel for num_threads(nsmi_team(d, n)) schedule(static)
    for (int64_t b = 0; b < blocks; b++) {
        double lane[W] = {0};
        int64_t i = b * size, end = nsmi_block_end(b, size, n);
        for (; i + W <= end; i += W)
            for (int j = 0; j < W; j++) lane[j] += (double)x[i + j] * x[i + j];
        for (int j = 0; i < end; i++, j++) lane[j] += (double)x[i] * x[i];
        partial[b] = 0;
        for (int j = 0; j < W; j++) partial[b] += lane[j];
    }
    for (int64_t b = 0; b < blocks; b++) sum += partial[b];
    return sum;
}

static bool all_finite(nsm_device *d, int64_t n, const float *x)
{
    int bad = 0;
#pragma omp parallel for num_threads(nsmi_team(d, n)) schedule(static) reduction(| : bad)
    for (int64_t block = 0; block < nsmi_blocks(n, NSMI_BLOCK); block++) {
        int found = 0;
        for (int64_t i = BLOCK_START, end = BLOCK_END(n); i < end; i++)
            found |= !(fabsf(x[i]) <= 3.402823466e38f);
        bad |= found;
    }
    return !bad;
}

/* ---- maxima ---- */

/* Does x take best's place?  In a maximum a NaN does, so that it shows. */
static inline vi wins(vf x, vf best, bool nan)
{
    return nan ? (x > best) | ((x != x) & (best == best)) : x > best;
}

/* The largest of sign * x[0..n): returns its place, the lowest of equals. */
static int64_t row_best(int64_t n, const float *x, float sign, bool nan, float *value)
{
    vf best = vf_set(-INFINITY);
    vi place = {0}, at = vi_lanes();
    VF_EACH(i, k, n, {
        vf v = vf_first(sign * vf_get(x + i, k), k, vf_set(-INFINITY));
        vi mask = wins(v, best, nan);
        best = vf_pick(mask, v, best);
        place = (mask & at) | (~mask & place);
        at += W;
    });
    float top = best[0];
    int32_t winner = place[0];
    for (int j = 1; j < W; j++) {
        bool better = best[j] > top || (nan && best[j] != best[j] && top == top);
        bool equal = best[j] == top || (best[j] != best[j] && top != top);
        if (better || (equal && place[j] < winner)) {
            top = best[j];
            winner = place[j];
        }
    }
    *value = sign * top;
    return winner;
}

static void best_of_rows(nsm_device *d, int64_t rows, int64_t n, float sign, const float *x,
                         float *y, int32_t *arg)
{
    int64_t size = nsmi_block_rows(n);
#pragma omp parallel for num_threads(nsmi_team(d, rows * n)) schedule(static)
    for (int64_t b = 0; b < nsmi_blocks(rows, size); b++)
        for (int64_t r = b * size; r < nsmi_block_end(b, size, rows); r++) {
            int64_t winner = row_best(n, x + r * n, sign, true, &y[r]);
            if (arg) arg[r] = (int32_t)winner;
        }
}

static void best_of_columns(nsm_device *d, int64_t outer, int64_t n, int64_t inner, float sign,
                            const float *x, float *y, int32_t *arg)
{
    int64_t strips = nsmi_blocks(inner, W);
#pragma omp parallel for num_threads(nsmi_team(d, outer * n * inner)) schedule(static)
    for (int64_t s = 0; s < outer * strips; s++) {
        int64_t o = s / strips, i = s % strips * W, k = inner - i < W ? inner - i : W;
        vf best = vf_set(-INFINITY);
        vi place = {0};
        for (int64_t j = 0; j < n; j++) {
            vf v = sign * vf_get(x + (o * n + j) * inner + i, k);
            vi mask = wins(v, best, true);
            best = vf_pick(mask, v, best);
            place = (mask & (int32_t)j) | (~mask & place);
        }
        vf_put(y + o * inner + i, sign * best, k);
        if (arg)
            for (int64_t j = 0; j < k; j++) arg[o * inner + i + j] = place[j];
    }
}

static void reduce(nsm_device *d, nsmi_reduce f, int64_t outer, int64_t n, int64_t inner,
                   const float *x, float *y, int32_t *arg)
{
    float sign = f == NSMI_MIN_OF ? -1.0f : 1.0f;
    if (f == NSMI_SUM || f == NSMI_MEAN) {
        sum_to(d, (const int64_t[DIMS]){ 1, 1, outer, n, inner }, x,
               (nsmi_strides){ { 0, 0, inner, 0, 1 } }, 0, y);
        if (f == NSMI_MEAN) axpby(d, outer * inner, 1.0f / (float)n, y, 0, y);
    } else if (inner == 1)
        best_of_rows(d, outer, n, sign, x, y, arg);
    else
        best_of_columns(d, outer, n, inner, sign, x, y, arg);
}

static void reduce_back(nsm_device *d, int64_t outer, int64_t n, int64_t inner, const int32_t *arg,
                        const float *dy, float *dx)
{
    FOR_BLOCKS(d, outer * inner)
    for (int64_t i = BLOCK_START, end = BLOCK_END(outer * inner); i < end; i++)
        dx[(i / inner * n + arg[i]) * inner + i % inner] += dy[i];
}

static void argmax(nsm_device *d, int64_t rows, int64_t cols, const float *x, int32_t *y)
{
    int64_t size = nsmi_block_rows(cols);
#pragma omp parallel for num_threads(nsmi_team(d, rows * cols)) schedule(static)
    for (int64_t b = 0; b < nsmi_blocks(rows, size); b++)
        for (int64_t r = b * size; r < nsmi_block_end(b, size, rows); r++) {
            float value;
            y[r] = (int32_t)row_best(cols, x + r * cols, 1, false, &value);
        }
}

/* ---- random numbers ---- */

static void dropout(nsm_device *d, float p, nsm_random r, int64_t n, const float *x, float beta,
                    float *y)
{
    float scale = p < 1 ? 1 / (1 - p) : 0;
    FOR_BLOCKS(d, n) for (int64_t i = BLOCK_START, end = BLOCK_END(n); i < end; i += NSMI_DRAWS) {
        float buffer[NSMI_DRAW_ROOM];
        int64_t count = end - i < NSMI_DRAWS ? end - i : NSMI_DRAWS;
        const float *u = nsmi_units(r, i, count, buffer), *from = x + i;
        float *to = y + i;
        if (beta == 0)
            for (int64_t j = 0; j < count; j++) to[j] = u[j] >= p ? scale * from[j] : 0;
        else
            for (int64_t j = 0; j < count; j++)
                to[j] = beta * to[j] + (u[j] >= p ? scale * from[j] : 0);
    }
}

static void uniform(nsm_device *d, nsm_random r, float low, float high, int64_t n, float *y)
{
    FOR_BLOCKS(d, n) for (int64_t i = BLOCK_START, end = BLOCK_END(n); i < end; i += NSMI_DRAWS) {
        float buffer[NSMI_DRAW_ROOM];
        int64_t count = end - i < NSMI_DRAWS ? end - i : NSMI_DRAWS;
        const float *u = nsmi_units(r, i, count, buffer);
        for (int64_t j = 0; j < count; j++) y[i + j] = low + (high - low) * u[j];
    }
}

/* Box-Muller: draws u, v (2 i, 2 i + 1) -> sqrt(-2 log(1 - u)) cos(2 pi v), and with sin. */
static void normal(nsm_device *d, nsm_random r, float mean, float std, int64_t n, float *y)
{
    FOR_BLOCKS(d, n) for (int64_t i = BLOCK_START, end = BLOCK_END(n); i < end; i += NSMI_DRAWS) {
        float buffer[NSMI_DRAW_ROOM];
        int64_t count = end - i < NSMI_DRAWS ? end - i : NSMI_DRAWS;
        const float *draw =
            nsmi_units(r, i, count, buffer); /* whole groups of 4 W: those past count are there */
        for (int64_t j = 0; j < count; j += 2 * W) {
            vf a = vf_load(draw + j), b = vf_load(draw + j + W);
            vf u = __builtin_shuffle(a, b, 2 * vi_lanes()),
               v = __builtin_shuffle(a, b, 2 * vi_lanes() + 1);
            vf radius = std * vf_sqrt(-2 * vf_log(1 - u)), angle = 6.283185307f * v;
            vu low, high;
            vu_interleave((vu)(mean + radius * vf_cos(angle)), (vu)(mean + radius * vf_sin(angle)),
                          &low, &high);
            vf_put(y + i + j, (vf)low, count - j);
            if (count - j > W) vf_put(y + i + j + W, (vf)high, count - j - W);
        }
    }
}

void NSMI_FILL(dense)(nsm_backend *be)
{
    be->gemm = gemm;
    be->gemm_batch = gemm_batch;
    be->fill = fill;
    be->axpy = axpy;
    be->axpby = axpby;
    be->copy_block = copy_block;
    be->permute = permute;
    be->sum_to = sum_to;
    be->column_sum = column_sum;
    be->sum_squares = sum_squares;
    be->all_finite = all_finite;
    be->reduce = reduce;
    be->reduce_back = reduce_back;
    be->argmax = argmax;
    be->dropout = dropout;
    be->uniform = uniform;
    be->normal = normal;
}
