/* kernels/cpu/sparse.c - Products with a sparse matrix, and reductions over its rows.
 *
 * What bounds them is the gather of rows x[idx e] from memory, so: a row's sum stays in registers,
 * rows that come soon are asked for early, and no value per entry and column is ever written.
 * Letters: R rows, C columns, E entries, F features, H heads, D per head. */
#include "kernels/cpu/rows.h"

/* ---- y = A x ---- */
typedef struct {
    const nsm_csr_part *m;
    int64_t f, col, cols; /* columns col..col+cols of F are this pass's */
    const float *w, *x;
    bool mean, far;       /* far: x is too large for the core's own cache, ask for its rows early */
    float beta;
    float *y;
} spmm_job;

enum { NEAR = 1 << 18 }; /* floats that stay in a core's own cache */

typedef enum { PLAIN, WEIGHTED, WEIGHTED_BY_POS } weighting;

/* The sum over lo..hi of nv vectors of columns, the last of `tail` lanes, in registers. */
INLINE void spmm_vectors(const spmm_job *j, int64_t lo, int64_t hi, int64_t col, const int nv,
                         int64_t tail,
                         const bool full, const weighting kind, float *acc)
{
    const int32_t *idx = j->m->idx, *pos = j->m->pos;
    const float *x = j->x + j->col + col, *w = j->w;
    int64_t f = j->f, last = j->far ? j->m->nnz - AHEAD : 0;
    vf s[8] = {{0}};
    for (int64_t e = lo; e < hi; e++) {
        if (e < last) {
            prefetch_row(x + idx[e + AHEAD] * f, nv * W);
            if (kind == WEIGHTED_BY_POS) __builtin_prefetch(w + pos[e + AHEAD]);
        }
        const float *row = x + idx[e] * f;
        float we = kind == PLAIN ? 1.0f : kind == WEIGHTED ? w[e] : w[pos[e]];
        for (int v = 0; v < nv; v++) {
            vf a = full || v + 1 < nv ? vf_load(row + v * W) : vf_load_n(row + v * W, tail);
            s[v] += kind == PLAIN ? a : we * a;
        }
    }
    for (int v = 0; v < nv; v++) vf_store(acc + col + v * W, s[v]);
}

INLINE void spmm_block(const spmm_job *j, int64_t lo, int64_t hi, int64_t col, const int nv,
                       int64_t tail, float *acc)
{
    weighting kind = !j->w ? PLAIN : j->m->pos ? WEIGHTED_BY_POS : WEIGHTED;
    if (tail == W && kind == PLAIN) spmm_vectors(j, lo, hi, col, nv, tail, true, PLAIN, acc);
    else if (tail == W && kind == WEIGHTED)
        spmm_vectors(j, lo, hi, col, nv, tail, true, WEIGHTED, acc);
    else if (tail == W) spmm_vectors(j, lo, hi, col, nv, tail, true, WEIGHTED_BY_POS, acc);
    else if (kind == PLAIN) spmm_vectors(j, lo, hi, col, nv, tail, false, PLAIN, acc);
    else if (kind == WEIGHTED) spmm_vectors(j, lo, hi, col, nv, tail, false, WEIGHTED, acc);
    else spmm_vectors(j, lo, hi, col, nv, tail, false, WEIGHTED_BY_POS, acc);
}

static void spmm_span(const void *job, int64_t row, int64_t lo, int64_t hi, float *acc)
{
    const spmm_job *j = job;
    (void)row;
    for (int64_t col = 0; col < j->cols; col += 8 * W) {
        int64_t n = least(j->cols - col, 8 * W), tail = (n - 1) % W + 1;
        switch ((n + W - 1) / W) {
        case 1: spmm_block(j, lo, hi, col, 1, tail, acc); break;
        case 2: spmm_block(j, lo, hi, col, 2, tail, acc); break;
        case 3: spmm_block(j, lo, hi, col, 3, tail, acc); break;
        case 4: spmm_block(j, lo, hi, col, 4, tail, acc); break;
        case 5: spmm_block(j, lo, hi, col, 5, tail, acc); break;
        case 6: spmm_block(j, lo, hi, col, 6, tail, acc); break;
        case 7: spmm_block(j, lo, hi, col, 7, tail, acc); break;
        default: spmm_block(j, lo, hi, col, 8, tail, acc); break;
        }
    }
}

static void spmm_join(const void *job, float *acc, const float *next)
{
    acc_add(acc, next, round_up(((const spmm_job *)job)->cols));
}

static void spmm_done(const void *job, int64_t row, float *acc, float *total)
{
    const spmm_job *j = job;
    int64_t n = j->m->ptr[row + 1] - j->m->ptr[row];
    (void)total;
    if (j->mean && n > 1) {
        vf share = vf_set(1.0f / (float)n);
        for (int64_t i = 0; i < j->cols; i += W) vf_store(acc + i, vf_load(acc + i) * share);
    }
    blend(j->y + row * j->f + j->col, j->beta, acc, j->cols);
}

static void spmm(nsm_device *d, const nsm_csr_part *m, int64_t f, const float *w, bool mean,
                 const float *x, float beta,
                 float *y)
{
    static const row_kernel k = { spmm_span, spmm_join, spmm_done, NULL };
    bool far = m->cols * f > NEAR;
    for (int64_t col = 0; col < f; col += TILE) {
        spmm_job j = { m, f, col, least(f - col, TILE), w, x, mean, far, beta, y };
        walk(d, m, (m->nnz + m->rows) * j.cols, &k, &j, 0, NULL);
    }
}

/* ---- out = A's pattern of a b' ---- */
typedef struct {
    const nsm_csr_part *m;
    int64_t heads, dim;
    const float *a, *b;
    float beta;
    float *out;
} sddmm_job;

static void sddmm_span(const void *job, int64_t row, int64_t lo, int64_t hi, float *acc)
{
    const sddmm_job *j = job;
    int64_t width = j->heads * j->dim, last = j->m->nnz - AHEAD;
    const float *a = j->a + row * width;
    (void)acc;
    for (int64_t e = lo; e < hi; e++) {
        if (e < last) prefetch_row(j->b + j->m->idx[e + AHEAD] * width, least(width, TILE));
        const float *b = j->b + j->m->idx[e] * width;
        float *out = j->out + place(j->m, e) * j->heads;
        for (int64_t h = 0; h < j->heads; h++) {
            float s = dot(a + h * j->dim, b + h * j->dim, j->dim);
            out[h] = j->beta != 0.0f ? j->beta * out[h] + s : s;
        }
    }
}

static void sddmm(nsm_device *d, const nsm_csr_part *m, int64_t heads, int64_t dim, const float *a,
                  const float *b,
                  float beta, float *out)
{
    static const row_kernel k = { sddmm_span, NULL, NULL, NULL };
    sddmm_job j = { m, heads, dim, a, b, beta, out };
    walk(d, m, m->nnz * heads * dim, &k, &j, 0, NULL);
}

/* ---- the largest or smallest over a row's entries, and the sums of segments ----
 * Entry e's values are x[at(e)], at: idx (spmm_max) or pos (segments).  acc holds TILE values and
 * their winners' numbers, -1 before the first.  A NaN wins, as in PyTorch: it is not hidden. */
typedef struct {
    const nsm_csr_part *m;
    const int32_t *at; /* NULL: the entry's own place */
    int64_t f, col, cols;
    float sign;        /* -1: the smallest is sought, as the largest of -x */
    nsmi_reduce kind;
    const float *x;
    float *y;
    int32_t *arg;
} extreme_job;

static inline void extreme_keep(float *best, float *win, vf x, vi who)
{
    vf b = vf_load(best);
    vi w = (vi)vf_load(win), take = (x > b) | ((x != x) & (b == b)) | (w < 0);
    vf_store(best, vf_pick(take, x, b));
    vf_store(win, vf_pick(take, (vf)who, (vf)w));
}

static void extreme_span(const void *job, int64_t row, int64_t lo, int64_t hi, float *acc)
{
    const extreme_job *j = job;
    float *win = acc + TILE;
    int64_t last = j->m->nnz - AHEAD;
    (void)row;
    for (int64_t i = 0; i < j->cols; i += W) {
        vf_store(acc + i, (vf){0});
        vf_store(win + i, (vf)((vi){0} - 1));
    }
    for (int64_t e = lo; e < hi; e++) {
        int32_t who = j->at ? j->at[e] : (int32_t)e;
        const float *x = j->x + who * j->f + j->col;
        if (j->at && e < last) prefetch_row(j->x + j->at[e + AHEAD] * j->f + j->col, j->cols);
        int64_t i = 0;
        for (; i + W <= j->cols; i += W)
            extreme_keep(acc + i, win + i, j->sign * vf_load(x + i), (vi){ 0 } + who);
        if (i < j->cols)
            extreme_keep(acc + i, win + i, j->sign * vf_load_n(x + i, j->cols - i),
                         (vi){ 0 } + who);
    }
}

static void extreme_join(const void *job, float *acc, const float *next)
{
    const extreme_job *j = job;
    for (int64_t i = 0; i < j->cols; i += W)
        extreme_keep(acc + i, acc + TILE + i, vf_load(next + i), (vi)vf_load(next + TILE + i));
}

static void extreme_done(const void *job, int64_t row, float *acc, float *total)
{
    const extreme_job *j = job;
    (void)total;
    if (j->sign < 0.0f)
        for (int64_t i = 0; i < j->cols; i += W) vf_store(acc + i, -vf_load(acc + i));
    if (j->m->ptr[row] == j->m->ptr[row + 1]) acc_zero(acc, j->cols);
    memcpy(j->y + row * j->f + j->col, acc, (size_t)j->cols * sizeof *acc);
    if (j->arg) memcpy(j->arg + row * j->f + j->col, acc + TILE, (size_t)j->cols * sizeof *acc);
}

static void extreme(nsm_device *d, extreme_job j)
{
    static const row_kernel k = { extreme_span, extreme_join, extreme_done, NULL };
    for (j.col = 0; j.col < j.f; j.col += TILE) {
        j.cols = least(j.f - j.col, TILE);
        walk(d, j.m, j.m->nnz * j.cols, &k, &j, 0, NULL);
    }
}

static void spmm_max(nsm_device *d, const nsm_csr_part *m, int64_t f, const float *x, float *y,
                     int32_t *arg)
{
    extreme(d, (extreme_job){
                   .m = m, .at = m->idx, .f = f, .sign = 1.0f, .x = x, .y = y, .arg = arg });
}

/* dx[c] += dy[r] where the winner of r is c; an edge that stands twice counts once, and its
 * copies stand together. */
typedef struct {
    const nsm_csr_part *m;
    int64_t f, col, cols;
    const int32_t *arg;
    const float *dy;
    float *dx;
} max_back_job;

static inline void won(float *acc, vi arg, vf dy, int32_t row)
{
    vf_store(acc, vf_load(acc) + vf_pick(arg == (vi){0} + row, dy, (vf){0}));
}

static void max_back_span(const void *job, int64_t row, int64_t lo, int64_t hi, float *acc)
{
    const max_back_job *j = job;
    const int32_t *idx = j->m->idx;
    acc_zero(acc, round_up(j->cols));
    for (int64_t e = lo; e < hi; e++) {
        if (e > j->m->ptr[row] && idx[e] == idx[e - 1]) continue;
        int64_t at = idx[e] * j->f + j->col, i = 0;
        const float *arg = (const float *)(j->arg + at), *dy = j->dy + at;
        for (; i + W <= j->cols; i += W)
            won(acc + i, (vi)vf_load(arg + i), vf_load(dy + i), (int32_t)row);
        if (i < j->cols)
            won(acc + i, (vi)vf_load_n(arg + i, j->cols - i), vf_load_n(dy + i, j->cols - i),
                (int32_t)row);
    }
}

static void max_back_join(const void *job, float *acc, const float *next)
{
    acc_add(acc, next, round_up(((const max_back_job *)job)->cols));
}

static void max_back_done(const void *job, int64_t row, float *acc, float *total)
{
    const max_back_job *j = job;
    (void)total;
    blend(j->dx + row * j->f + j->col, 1.0f, acc, j->cols);
}

static void spmm_max_back(nsm_device *d, const nsm_csr_part *bwd, int64_t f, const int32_t *arg,
                          const float *dy, float *dx)
{
    static const row_kernel k = { max_back_span, max_back_join, max_back_done, NULL };
    for (int64_t col = 0; col < f; col += TILE) {
        max_back_job j = { bwd, f, col, least(f - col, TILE), arg, dy, dx };
        walk(d, bwd, bwd->nnz * j.cols * 2, &k, &j, 0, NULL);
    }
}

/* ---- segments ---- */
static void segment_sum_span(const void *job, int64_t row, int64_t lo, int64_t hi, float *acc)
{
    const extreme_job *j = job;
    (void)row;
    acc_zero(acc, round_up(j->cols));
    for (int64_t e = lo; e < hi; e++) {
        const float *x = j->x + place(j->m, e) * j->f + j->col;
        int64_t i = 0;
        for (; i + W <= j->cols; i += W) vf_store(acc + i, vf_load(acc + i) + vf_load(x + i));
        if (i < j->cols) vf_store(acc + i, vf_load(acc + i) + vf_load_n(x + i, j->cols - i));
    }
}

static void segment_sum_join(const void *job, float *acc, const float *next)
{
    acc_add(acc, next, round_up(((const extreme_job *)job)->cols));
}

static void segment_sum_done(const void *job, int64_t row, float *acc, float *total)
{
    const extreme_job *j = job;
    int64_t n = j->m->ptr[row + 1] - j->m->ptr[row];
    float *y = j->y + row * j->f + j->col,
          share = j->kind == NSMI_MEAN && n > 1 ? 1.0f / (float)n : 1.0f;
    (void)total;
    for (int64_t i = 0; i < j->cols; i++) y[i] = share * acc[i];
}

static void segment_reduce(nsm_device *d, nsmi_reduce f, const nsm_csr_part *m, int64_t cols,
                           const float *x, float *y,
                           int32_t *arg)
{
    static const row_kernel sum = { segment_sum_span, segment_sum_join, segment_sum_done, NULL };
    extreme_job j = { .m = m,
                      .at = m->pos,
                      .f = cols,
                      .sign = f == NSMI_MIN_OF ? -1.0f : 1.0f,
                      .kind = f,
                      .x = x,
                      .y = y,
                      .arg = arg };
    if (f == NSMI_MAX_OF || f == NSMI_MIN_OF) {
        extreme(d, j);
        return;
    }
    for (j.col = 0; j.col < cols; j.col += TILE) {
        j.cols = least(cols - j.col, TILE);
        walk(d, m, m->nnz * j.cols, &sum, &j, 0, NULL);
    }
}

typedef struct {
    const nsm_csr_part *m;
    nsmi_reduce kind;
    int64_t f;
    const int32_t *arg;
    const float *dy;
    float *dx;
} segment_back_job;

static void segment_back_span(const void *job, int64_t row, int64_t lo, int64_t hi, float *acc)
{
    const segment_back_job *j = job;
    int64_t n = j->m->ptr[row + 1] - j->m->ptr[row];
    const float *dy = j->dy + row * j->f;
    bool extremes = j->kind == NSMI_MAX_OF || j->kind == NSMI_MIN_OF;
    const int32_t *arg = extremes ? j->arg + row * j->f : NULL;
    float share = j->kind == NSMI_MEAN ? 1.0f / (float)n : 1.0f;
    (void)acc;
    for (int64_t e = lo; e < hi; e++) {
        int64_t at = place(j->m, e);
        float *dx = j->dx + at * j->f;
        if (extremes)
            for (int64_t i = 0; i < j->f; i++) dx[i] += arg[i] == at ? dy[i] : 0.0f;
        else
            for (int64_t i = 0; i < j->f; i++) dx[i] += share * dy[i];
    }
}

static void segment_reduce_back(nsm_device *d, nsmi_reduce f, const nsm_csr_part *m, int64_t cols,
                                const int32_t *arg,
                                const float *dy, float *dx)
{
    static const row_kernel k = { segment_back_span, NULL, NULL, NULL };
    segment_back_job j = { m, f, cols, arg, dy, dx };
    walk(d, m, m->nnz * cols, &k, &j, 0, NULL);
}

/* Softmax over a row's entries, per head: acc holds each head's largest and, TILE further, the
 * sum of exp(x - largest). */
typedef struct {
    const nsm_csr_part *m;
    int64_t heads, head, count; /* heads head..head+count of this pass */
    float beta;
    const float *x, *dy; /* back: x is forward's y */
    float *y;
} softmax_job;

static void softmax_span(const void *job, int64_t row, int64_t lo, int64_t hi, float *acc)
{
    const softmax_job *j = job;
    float *sum = acc + TILE;
    (void)row;
    for (int64_t i = 0; i < round_up(j->count); i++) acc[i] = -INFINITY;
    acc_zero(sum, round_up(j->count));
    for (int64_t e = lo; e < hi; e++) {
        const float *x = j->x + place(j->m, e) * j->heads + j->head;
        for (int64_t i = 0; i < j->count; i++) acc[i] = x[i] > acc[i] ? x[i] : acc[i];
    }
    for (int64_t e = lo; e < hi; e++) {
        const float *x = j->x + place(j->m, e) * j->heads + j->head;
        for (int64_t i = 0; i < j->count; i += W)
            vf_store(sum + i, vf_load(sum + i) + vf_exp(vf_load_n(x + i, least(j->count - i, W)) -
                                                        vf_load(acc + i)));
    }
}

static void softmax_join(const void *job, float *acc, const float *next)
{
    const softmax_job *j = job;
    for (int64_t i = 0; i < j->count; i++) {
        float top = acc[i] > next[i] ? acc[i] : next[i];
        acc[TILE + i] = acc[TILE + i] * expf(acc[i] - top) + next[TILE + i] * expf(next[i] - top);
        acc[i] = top;
    }
}

static void softmax_write(const void *job, int64_t row, int64_t lo, int64_t hi, const float *acc)
{
    const softmax_job *j = job;
    (void)row;
    for (int64_t e = lo; e < hi; e++) {
        int64_t at = place(j->m, e) * j->heads + j->head;
        for (int64_t i = 0; i < j->count; i += W) {
            int64_t n = least(j->count - i, W);
            vf p = vf_exp(vf_load_n(j->x + at + i, n) - vf_load(acc + i)) / vf_load(acc + TILE + i);
            vf_store_n(j->y + at + i, p, n);
        }
    }
}

static void segment_softmax(nsm_device *d, const nsm_csr_part *m, int64_t heads, const float *x,
                            float *y)
{
    static const row_kernel k = { softmax_span, softmax_join, NULL, softmax_write };
    for (int64_t h = 0; h < heads; h += TILE) {
        softmax_job j = {
            .m = m, .heads = heads, .head = h, .count = least(heads - h, TILE), .x = x, .y = y
        };
        walk(d, m, m->nnz * j.count * 8, &k, &j, 0, NULL);
    }
}

static void softmax_back_span(const void *job, int64_t row, int64_t lo, int64_t hi, float *acc)
{
    const softmax_job *j = job;
    (void)row;
    acc_zero(acc, round_up(j->count));
    for (int64_t e = lo; e < hi; e++) {
        int64_t at = place(j->m, e) * j->heads + j->head;
        for (int64_t i = 0; i < j->count; i++) acc[i] += j->x[at + i] * j->dy[at + i];
    }
}

static void softmax_back_join(const void *job, float *acc, const float *next)
{
    acc_add(acc, next, round_up(((const softmax_job *)job)->count));
}

static void softmax_back_write(const void *job, int64_t row, int64_t lo, int64_t hi,
                               const float *acc)
{
    const softmax_job *j = job;
    (void)row;
    for (int64_t e = lo; e < hi; e++) {
        int64_t at = place(j->m, e) * j->heads + j->head;
        for (int64_t i = 0; i < j->count; i++) {
            float g = j->x[at + i] * (j->dy[at + i] - acc[i]);
            j->y[at + i] = j->beta != 0.0f ? j->beta * j->y[at + i] + g : g;
        }
    }
}

static void segment_softmax_back(nsm_device *d, const nsm_csr_part *m, int64_t heads,
                                 const float *y, const float *dy,
                                 float beta, float *dx)
{
    static const row_kernel k = { softmax_back_span, softmax_back_join, NULL, softmax_back_write };
    for (int64_t h = 0; h < heads; h += TILE) {
        softmax_job j = { m, heads, h, least(heads - h, TILE), beta, y, dy, dx };
        walk(d, m, m->nnz * j.count * 4, &k, &j, 0, NULL);
    }
}

void NSMI_FILL(sparse)(nsm_backend *be)
{
    be->spmm = spmm;
    be->sddmm = sddmm;
    be->spmm_max = spmm_max;
    be->spmm_max_back = spmm_max_back;
    be->segment_reduce = segment_reduce;
    be->segment_reduce_back = segment_reduce_back;
    be->segment_softmax = segment_softmax;
    be->segment_softmax_back = segment_softmax_back;
}
