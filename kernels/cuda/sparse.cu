/* kernels/cuda/sparse.cu - Products with a sparse matrix, reductions over its rows, rows by index.
 * Letters: R rows, C columns, E entries, F features, H heads, D per head. */
#include "kernels/cuda/rows.h"

/* ---- sums over a row's entries ---- */

template <int V> struct sum_job {
    struct acc { float v[V]; };
    int64_t vecs, f;
    nsm_csr_part m;
    const int32_t *at;
    const float *w, *x;
    bool mean;
    float beta;
    float *y;

    __device__ int64_t source(int64_t e) const { return at ? at[e] : e; }
    __device__ float weight(int64_t e) const { return w ? w[m.pos ? m.pos[e] : e] : 1; }

    __device__ void span(int64_t, int64_t lo, int64_t hi, int64_t vec, acc &a) const
    {
        enum { AHEAD = 4 };
        const float *from = x + vec * V;
        for (int k = 0; k < V; k++) a.v[k] = 0;
        int64_t e = lo;
        for (; e + AHEAD <= hi; e += AHEAD) { /* fetched together, added in order */
            float v[AHEAD][V], by[AHEAD];
            for (int j = 0; j < AHEAD; j++) {
                by[j] = weight(e + j);
                get<V>(from + source(e + j) * f, v[j]);
            }
            for (int j = 0; j < AHEAD; j++)
                for (int k = 0; k < V; k++) a.v[k] += by[j] * v[j][k];
        }
        for (; e < hi; e++) {
            float v[V], by = weight(e);
            get<V>(from + source(e) * f, v);
            for (int k = 0; k < V; k++) a.v[k] += by * v[k];
        }
    }
    __device__ void join(acc &a, const acc &next) const
    {
        for (int k = 0; k < V; k++) a.v[k] += next.v[k];
    }
    __device__ void done(int64_t row, int64_t vec, acc &a) const
    {
        int64_t n = m.ptr[row + 1] - m.ptr[row];
        if (mean && n > 1)
            for (int k = 0; k < V; k++) a.v[k] *= 1.0f / (float)n;
        set<V>(y + row * f + vec * V, beta, a.v);
    }
};

void nsmi_cuda_sum_rows(nsm_device *d, const nsm_csr_part *m, const int32_t *at, int64_t f,
                        const float *w, bool mean, const float *x, float beta, float *y)
{
    if (f % 4 == 0 && aligned(x) && aligned(y)) {
        sum_job<4> j = { f / 4, f, *m, at, w, x, mean, beta, y };
        walk(d, m, j, NULL);
    } else {
        sum_job<1> j = { f, f, *m, at, w, x, mean, beta, y };
        walk(d, m, j, NULL);
    }
}

static void spmm(nsm_device *d, const nsm_csr_part *m, int64_t f, const float *w, bool mean,
                 const float *x, float beta, float *y)
{
    nsmi_cuda_sum_rows(d, m, m->idx, f, w, mean, x, beta, y);
}

static void gather_back(nsm_device *d, const nsm_csr_part *by_row, int64_t cols, const float *dy,
                        float *dx)
{
    nsmi_cuda_sum_rows(d, by_row, by_row->pos, cols, NULL, false, dy, 1, dx);
}

/* A row out of range is read by nobody: it is NaN, and the check of indices tells. */
static __global__ void gather_kernel(int64_t n, int64_t cols, const int32_t *index, const float *x,
                                     float *y, int64_t rows)
{
    EACH_ITEM(i, n) {
        int64_t r = index[i / cols];
        y[i] = r >= 0 && r < rows ? x[r * cols + i % cols] : not_a_number();
    }
}

static void gather(nsm_device *d, int64_t n, int64_t cols, int64_t rows, const int32_t *index,
                   const float *x, float *y)
{
    FOR_ITEMS(d, gather_kernel, n * cols, cols, index, x, y, rows);
}

static __global__ void scatter_rows_kernel(int64_t n, int64_t cols, const int32_t *index,
                                           const float *x, float *y)
{
    EACH_ITEM(i, n) y[index[i / cols] * cols + i % cols] += x[i];
}

static void scatter_rows(nsm_device *d, int64_t n, int64_t cols, const int32_t *index,
                         const float *x, float *y)
{
    FOR_ITEMS(d, scatter_rows_kernel, n * cols, cols, index, x, y);
}

/* ---- a dot product an entry and head ---- */

struct dot_job {
    int64_t heads, dim;
    nsm_csr_part m;
    const float *a, *b;
    float beta;
    float *out;

    __device__ void entry(int64_t row, int64_t e, int64_t h) const
    {
        put(place(e, h), beta,
            dot_of(a + (row * heads + h) * dim, b + (m.idx[e] * heads + h) * dim, dim));
    }
    __device__ void entry_warp(int64_t row, int64_t e, int64_t h) const
    {
        float s = dot_warp(a + (row * heads + h) * dim, b + (m.idx[e] * heads + h) * dim, dim);
        if (lane_of() == 0) put(place(e, h), beta, s);
    }
    __device__ float *place(int64_t e, int64_t h) const
    {
        return out + (m.pos ? m.pos[e] : e) * heads + h;
    }
};

static void sddmm(nsm_device *d, const nsm_csr_part *m, int64_t heads, int64_t dim, const float *a,
                  const float *b, float beta, float *out)
{
    dot_job j = { heads, dim, *m, a, b, beta, out };
    if (dim < LONG_DOT) each(d, m, j);
    else each_together(d, m, j);
}

/* ---- the largest or smallest over a row's entries ----
 * Entry e's values are x[at[e]]; a NaN wins, as in PyTorch: it is not hidden. */
struct extreme_job {
    struct acc { float best; int32_t who; };
    int64_t vecs; /* F */
    const int32_t *at;
    float sign; /* -1: the smallest is sought, as the largest of -x */
    const float *x;
    float *y;
    int32_t *arg;

    __device__ static void keep(acc &a, float v, int32_t who)
    {
        if (a.who < 0 || v > a.best || (v != v && a.best == a.best)) a.best = v, a.who = who;
    }
    __device__ void span(int64_t, int64_t lo, int64_t hi, int64_t vec, acc &a) const
    {
        a.best = 0;
        a.who = -1;
        for (int64_t e = lo; e < hi; e++) {
            int32_t who = at ? at[e] : (int32_t)e;
            keep(a, sign * x[who * vecs + vec], who);
        }
    }
    __device__ void join(acc &a, const acc &next) const { keep(a, next.best, next.who); }
    __device__ void done(int64_t row, int64_t vec, acc &a) const
    {
        y[row * vecs + vec] = a.who < 0 ? 0 : sign * a.best;
        if (arg) arg[row * vecs + vec] = a.who;
    }
};

static void spmm_max(nsm_device *d, const nsm_csr_part *m, int64_t f, const float *x, float *y,
                     int32_t *arg)
{
    extreme_job j = { f, m->idx, 1, x, y, arg };
    walk(d, m, j, NULL);
}

/* dx[c] += dy[r] where the winner of r is c; an edge that stands twice counts once, and its copies
 * stand together. */
struct max_back_job {
    struct acc { float v; };
    int64_t vecs; /* F */
    nsm_csr_part m;
    const int32_t *arg;
    const float *dy;
    float *dx;

    __device__ void span(int64_t row, int64_t lo, int64_t hi, int64_t vec, acc &a) const
    {
        a.v = 0;
        for (int64_t e = lo; e < hi; e++) {
            if (e > m.ptr[row] && m.idx[e] == m.idx[e - 1]) continue;
            int64_t at = m.idx[e] * vecs + vec;
            if (arg[at] == row) a.v += dy[at];
        }
    }
    __device__ void join(acc &a, const acc &next) const { a.v += next.v; }
    __device__ void done(int64_t row, int64_t vec, acc &a) const { dx[row * vecs + vec] += a.v; }
};

static void spmm_max_back(nsm_device *d, const nsm_csr_part *bwd, int64_t f, const int32_t *arg,
                          const float *dy, float *dx)
{
    max_back_job j = { f, *bwd, arg, dy, dx };
    walk(d, bwd, j, NULL);
}

/* ---- segments ---- */

static void segment_reduce(nsm_device *d, nsmi_reduce f, const nsm_csr_part *m, int64_t cols,
                           const float *x, float *y, int32_t *arg)
{
    if (f == NSMI_SUM || f == NSMI_MEAN) {
        nsmi_cuda_sum_rows(d, m, m->pos, cols, NULL, f == NSMI_MEAN, x, 0, y);
        return;
    }
    extreme_job j = { cols, m->pos, f == NSMI_MIN_OF ? -1.0f : 1.0f, x, y, arg };
    walk(d, m, j, NULL);
}

struct segment_back_job {
    int64_t heads; /* columns */
    nsm_csr_part m;
    nsmi_reduce kind;
    const int32_t *arg; /* NULL: a sum or a mean */
    const float *dy;
    float *dx;

    __device__ void entry(int64_t row, int64_t e, int64_t c) const
    {
        int64_t at = m.pos ? m.pos[e] : e;
        float g = dy[row * heads + c];
        if (kind == NSMI_MEAN) g *= 1.0f / (float)(m.ptr[row + 1] - m.ptr[row]);
        if (!arg || arg[row * heads + c] == at) dx[at * heads + c] += g;
    }
};

static void segment_reduce_back(nsm_device *d, nsmi_reduce f, const nsm_csr_part *m, int64_t cols,
                                const int32_t *arg, const float *dy, float *dx)
{
    segment_back_job j = { cols, *m, f, f == NSMI_MAX_OF || f == NSMI_MIN_OF ? arg : NULL, dy, dx };
    each(d, m, j);
}

/* ---- softmax over a row's entries, per head: first each row's largest and the sum of exp, in
 * stat [R, H, 2], then every entry ---- */

struct softmax_stat_job {
    struct acc { float top, sum; };
    int64_t vecs; /* H */
    const int32_t *pos;
    const float *x;
    float *stat;

    __device__ void span(int64_t, int64_t lo, int64_t hi, int64_t h, acc &a) const
    {
        a.top = minus_infinity();
        a.sum = 0;
        for (int64_t e = lo; e < hi; e++) {
            float v = x[(pos ? pos[e] : e) * vecs + h];
            a.top = v > a.top ? v : a.top;
        }
        for (int64_t e = lo; e < hi; e++) a.sum += expf(x[(pos ? pos[e] : e) * vecs + h] - a.top);
    }
    __device__ void join(acc &a, const acc &next) const
    {
        float top = next.top > a.top ? next.top : a.top;
        a.sum = a.sum * expf(a.top - top) + next.sum * expf(next.top - top);
        a.top = top;
    }
    __device__ void done(int64_t row, int64_t h, acc &a) const
    {
        stat[2 * (row * vecs + h)] = a.top;
        stat[2 * (row * vecs + h) + 1] = 1 / a.sum;
    }
};

struct softmax_job {
    int64_t heads;
    const int32_t *pos;
    const float *x, *stat;
    float *y;

    __device__ void entry(int64_t row, int64_t e, int64_t h) const
    {
        int64_t at = (pos ? pos[e] : e) * heads + h;
        const float *s = stat + 2 * (row * heads + h);
        y[at] = expf(x[at] - s[0]) * s[1];
    }
};

/* Scratch memory for `n` numbers and a job's parts behind them; *part: where those are. */
template <class J>
static float *stat_memory(nsm_device *d, const nsm_csr_part *m, const J &job, int64_t n,
                          void **part)
{
    size_t own = ((size_t)n * sizeof(float) + 15) & ~(size_t)15;
    char *p = (char *)nsmi_cuda_scratch(d, own + part_bytes(m, job));
    *part = p ? p + own : NULL;
    return (float *)p;
}

static void segment_softmax(nsm_device *d, const nsm_csr_part *m, int64_t heads, const float *x,
                            float *y)
{
    void *part;
    softmax_stat_job s = { heads, m->pos, x, NULL };
    if (m->rows == 0 || !(s.stat = stat_memory(d, m, s, 2 * m->rows * heads, &part))) return;
    walk(d, m, s, part);
    softmax_job j = { heads, m->pos, x, s.stat, y };
    each(d, m, j);
}

/* The sum over the row of y dy. */
struct softmax_dot_job {
    struct acc { float sum; };
    int64_t vecs; /* H */
    const int32_t *pos;
    const float *y, *dy;
    float *stat;

    __device__ void span(int64_t, int64_t lo, int64_t hi, int64_t h, acc &a) const
    {
        a.sum = 0;
        for (int64_t e = lo; e < hi; e++) {
            int64_t at = (pos ? pos[e] : e) * vecs + h;
            a.sum += y[at] * dy[at];
        }
    }
    __device__ void join(acc &a, const acc &next) const { a.sum += next.sum; }
    __device__ void done(int64_t row, int64_t h, acc &a) const { stat[row * vecs + h] = a.sum; }
};

struct softmax_back_job {
    int64_t heads;
    const int32_t *pos;
    const float *y, *dy, *stat;
    float beta;
    float *dx;

    __device__ void entry(int64_t row, int64_t e, int64_t h) const
    {
        int64_t at = (pos ? pos[e] : e) * heads + h;
        put(&dx[at], beta, y[at] * (dy[at] - stat[row * heads + h]));
    }
};

static void segment_softmax_back(nsm_device *d, const nsm_csr_part *m, int64_t heads,
                                 const float *y, const float *dy, float beta, float *dx)
{
    void *part;
    softmax_dot_job s = { heads, m->pos, y, dy, NULL };
    if (m->rows == 0 || !(s.stat = stat_memory(d, m, s, m->rows * heads, &part))) return;
    walk(d, m, s, part);
    softmax_back_job j = { heads, m->pos, y, dy, s.stat, beta, dx };
    each(d, m, j);
}

void nsmi_cuda_sparse(nsm_backend *be)
{
    be->gather = gather;
    be->scatter_rows = scatter_rows;
    be->gather_back = gather_back;
    be->spmm = spmm;
    be->sddmm = sddmm;
    be->spmm_max = spmm_max;
    be->spmm_max_back = spmm_max_back;
    be->segment_reduce = segment_reduce;
    be->segment_reduce_back = segment_reduce_back;
    be->segment_softmax = segment_softmax;
    be->segment_softmax_back = segment_softmax_back;
}
