/* tests/kernels/cases_graph.c - Rows by index, sparse products, segments, and fused attention.
 *
 * The matrices: a small one with empty rows and repeated entries, one with a row and a column that
 * hold most of the entries, and empty ones.  Letters as in kernels/backend.h. */
#include "config.h"
#include "tests/kernels/cases.h"

/* What float32 sums over rows of thousands of entries keep of an attention's gradient: a difference
 * of two sums. */
#define BACK 1e-4

enum { MATRICES = 5 };

/* A matrix and the host's view of one of its directions. */
typedef struct {
    nsm_csr *csr;
    int64_t rows, cols, nnz;
    int64_t *ptr;
    int32_t *idx, *pos;
} matrix;

static void view(kernels *k, const nsm_csr_part *p, matrix *m)
{
    m->rows = p->rows;
    m->cols = p->cols;
    m->nnz = p->nnz;
    m->ptr = host_array(k, p->rows + 1, sizeof *m->ptr);
    m->idx = host_array(k, p->nnz, sizeof *m->idx);
    m->pos = host_array(k, p->nnz, sizeof *m->pos);
    k->be->to_host(k->d, (size_t)(p->rows + 1) * sizeof *m->ptr, p->ptr, m->ptr);
    k->be->to_host(k->d, (size_t)p->nnz * sizeof *m->idx, p->idx, m->idx);
    for (int64_t e = 0; e < p->nnz; e++) m->pos[e] = (int32_t)e;
    if (p->pos) k->be->to_host(k->d, (size_t)p->nnz * sizeof *m->pos, p->pos, m->pos);
}

static matrix matrix_new(kernels *k, int which)
{
    static const int64_t size[MATRICES][3] = {
        { 7, 5, 23 }, { 300, 200, 24000 }, { 900, 700, 5000 }, { 4, 3, 0 }, { 0, 3, 0 }
    };
    int64_t rows = size[which][0], cols = size[which][1], nnz = size[which][2];
    ints row = ints_random(k, nnz, 0, rows), col = ints_random(k, nnz, 0, cols);
    for (int64_t e = 0; e < nnz; e++) {
        if (row.h[e] % 4 == 2) row.h[e]++; /* every fourth row is empty */
        if (which == 1 && e % 5 < 2) row.h[e] = 17;
        if (which == 1 && e % 5 > 2) col.h[e] = 33;
    }
    matrix m = { .csr = nsm_csr_new(k->ctx, rows, cols, nnz, row.h, col.h, false) };
    ck_ok(k->ctx);
    view(k, &m.csr->fwd, &m);
    return m;
}

void case_gather(kernels *k)
{
    static const int64_t shape[][3] = {
        { 0, 3, 5 }, { 9, 1, 1 }, { 33, 17, 10 }, { 3001, 40, 300 }
    };
    for (int s = 0; s < 4; s++) {
        int64_t n = shape[s][0], cols = shape[s][1], rows = shape[s][2];
        ints index = ints_random(k, n, 0, rows);
        reals x = reals_random(k, rows * cols, -1, 1), y = reals_blank(k, n * cols);
        reals dy = reals_random(k, n * cols, -1, 1), dx = reals_random(k, rows * cols, -1, 1);
        double *want = wanted(k, n * cols), *back = wanted_from(k, dx, 1);
        int32_t *place = host_array(k, n, sizeof *place);
        for (int64_t i = 0; i < n * cols; i++) {
            int64_t at = index.h[i / cols] * cols + i % cols;
            place[i / cols] = (int32_t)(i / cols);
            want[i] = (double)x.h[at];
            back[at] += (double)dy.h[i];
        }
        k->be->gather(k->d, n, cols, rows, index.d, x.d, y.d);
        result(k, "gather", y, want, 0);
        nsm_csr *by = nsm_csr_new(k->ctx, n, rows, n, place, index.h, false);
        k->be->gather_back(k->d, &by->bwd, cols, dy.d, dx.d);
        result(k, "gather_back", dx, back, 1e-6);
        nsm_csr_free(by);
    }
}

/* The gather's backward from the indices: a row to be passed over, indices that are no row, runs of
 * one index that are long.  Of few indices every bit is known: a row's sum in float, in the order
 * of k, and then that is added. */
void case_gather_add(kernels *k)
{
    static const struct {
        int64_t n, cols, rows, skip;
        bool alike;
    } shape[] = {
        { 0, 3, 5, -1, false },    { 9, 1, 1, -1, false },      { 33, 17, 10, 3, false },
        { 250, 9, 6, 2, false },   { 256, 8, 5, -1, false },    { 1024, 4, 16, -1, false },
        { 1025, 5, 15, 0, false }, { 3001, 40, 300, 7, false }, { 5000, 8, 70000, 9, false },
        { 2600, 12, 40, 1, true },
    };
    for (size_t s = 0; k->be->gather_add && s < sizeof shape / sizeof *shape; s++) {
        int64_t n = shape[s].n, cols = shape[s].cols, rows = shape[s].rows;
        ints index = ints_random(k, n, 0, rows);
        for (int64_t i = 0; i < n; i++) {
            if (shape[s].alike && i % 7) index.h[i] = i % 2 ? 17 : 39;
            if (i % 97 == 96) index.h[i] = i % 2 ? -5 : (int32_t)rows; /* told elsewhere */
        }
        k->be->to_device(k->d, (size_t)n * sizeof *index.h, index.h, index.d);
        reals dy = reals_random(k, n * cols, -1, 1), dx = reals_random(k, rows * cols, -1, 1);
        double *back = wanted_from(k, dx, 1);
        float *sum = host_array(k, rows * cols, sizeof *sum);
        for (int64_t i = 0; i < n * cols; i++) {
            int64_t r = index.h[i / cols];
            if (r < 0 || r >= rows || r == shape[s].skip) continue;
            back[r * cols + i % cols] += (double)dy.h[i];
            sum[r * cols + i % cols] += dy.h[i];
        }
        for (int64_t i = 0; n <= 256 && i < rows * cols; i++) back[i] = (double)(dx.h[i] + sum[i]);
        k->be->gather_add(k->d, n, cols, rows, shape[s].skip, index.d, dy.d, dx.d);
        result(k, "gather_add", dx, back, n <= 256 ? 0 : 2e-6);
    }
}

void case_scatter_rows(kernels *k)
{
    static const int64_t shape[][3] = {
        { 0, 3, 5 }, { 1, 1, 1 }, { 9, 17, 10 }, { 1009, 40, 3001 }
    };
    for (int s = 0; s < 4; s++) {
        int64_t n = shape[s][0], cols = shape[s][1], rows = shape[s][2];
        ints index = ints_random(k, n, 0, rows);
        for (int64_t i = 0; i < n; i++) index.h[i] = (int32_t)((i * 7 + 3) % rows);
        k->be->to_device(k->d, (size_t)n * sizeof *index.h, index.h, index.d);
        reals x = reals_random(k, n * cols, -1, 1), y = reals_random(k, rows * cols, -1, 1);
        double *want = wanted_from(k, y, 1);
        for (int64_t i = 0; i < n * cols; i++)
            want[index.h[i / cols] * cols + i % cols] += (double)x.h[i];
        k->be->scatter_rows(k->d, n, cols, index.d, x.d, y.d);
        result(k, "scatter_rows", y, want, 1e-6);
    }
}

static void spmm(kernels *k, const matrix *m, const nsm_csr_part *part, int64_t f, int options)
{
    bool weights = options & 1, mean = options & 2, adds = options & 4;
    reals w = reals_random(k, m->nnz, -1, 1), x = reals_random(k, m->cols * f, -1, 1);
    reals y = adds ? reals_random(k, m->rows * f, -1, 1) : reals_blank(k, m->rows * f);
    double *want = wanted_from(k, y, adds ? 0.5 : 0);
    for (int64_t r = 0; r < m->rows; r++)
        for (int64_t e = m->ptr[r]; e < m->ptr[r + 1]; e++)
            for (int64_t j = 0; j < f; j++)
                want[r * f + j] += (weights ? (double)w.h[m->pos[e]] : 1) *
                                   (double)x.h[m->idx[e] * f + j] /
                                   (mean ? (double)(m->ptr[r + 1] - m->ptr[r]) : 1);
    k->be->spmm(k->d, part, f, weights ? w.d : NULL, mean, x.d, adds ? 0.5f : 0, y.d);
    result(k, "spmm", y, want, 1e-5);
}

void case_spmm(kernels *k)
{
    static const int64_t width[] = { 1, 3, 16, 17, 130, 600 };
    for (int which = 0; which < MATRICES; which++) {
        matrix m = matrix_new(k, which), back = m;
        view(k, &m.csr->bwd, &back);
        for (int i = 0; i < (which == 1 ? 4 : 6); i++)
            for (int options = 0; options < 8; options++)
                spmm(k, options % 3 ? &m : &back, options % 3 ? &m.csr->fwd : &m.csr->bwd, width[i],
                     options);
        nsm_csr_free(m.csr);
    }
}

void case_sddmm(kernels *k)
{
    static const int64_t size[][2] = { { 1, 1 }, { 3, 5 }, { 8, 16 }, { 1, 130 }, { 40, 2 } };
    for (int which = 0; which < MATRICES; which++) {
        matrix m = matrix_new(k, which);
        for (int s = 0; s < 10; s++) {
            int64_t heads = size[s / 2][0], dim = size[s / 2][1], n = heads * dim;
            reals a = reals_random(k, m.rows * n, -1, 1), b = reals_random(k, m.cols * n, -1, 1);
            reals y = s % 2 ? reals_random(k, m.nnz * heads, -1, 1) : reals_blank(k, m.nnz * heads);
            double *want = wanted_from(k, y, s % 2);
            for (int64_t r = 0; r < m.rows; r++)
                for (int64_t e = m.ptr[r]; e < m.ptr[r + 1]; e++)
                    for (int64_t j = 0; j < n; j++)
                        want[e * heads + j / dim] += (double)a.h[r * n + j] *
                                                     (double)b.h[m.idx[e] * n + j];
            k->be->sddmm(k->d, &m.csr->fwd, heads, dim, a.d, b.d, (float)(s % 2), y.d);
            result(k, "sddmm", y, want, 2e-6);
        }
        nsm_csr_free(m.csr);
    }
}

static void spmm_max(kernels *k, matrix *m, int64_t f)
{
    reals x = reals_steps(k, m->cols * f, 8), y = reals_blank(k, m->rows * f);
    reals dy = reals_random(k, m->rows * f, -1, 1), dx = reals_random(k, m->cols * f, -1, 1);
    ints arg = ints_blank(k, m->rows * f);
    double *want = wanted(k, m->rows * f), *back = wanted_from(k, dx, 1);
    int32_t *winner = host_array(k, m->rows * f, sizeof *winner);
    for (int64_t i = 0; i < m->rows * f; i++) {
        int64_t r = i / f, j = i % f;
        winner[i] = -1;
        for (int64_t e = m->ptr[r]; e < m->ptr[r + 1]; e++)
            if (winner[i] < 0 || x.h[m->idx[e] * f + j] > x.h[winner[i] * f + j])
                winner[i] = m->idx[e];
        if (winner[i] < 0) continue;
        want[i] = (double)x.h[winner[i] * f + j];
        back[winner[i] * f + j] += (double)dy.h[i];
    }
    k->be->spmm_max(k->d, &m->csr->fwd, f, x.d, y.d, arg.d);
    result(k, "spmm_max", y, want, 0);
    result_ints(k, "spmm_max's sources", arg, winner);
    k->be->spmm_max_back(k->d, &m->csr->bwd, f, arg.d, dy.d, dx.d);
    result(k, "spmm_max_back", dx, back, 2e-6);
}

void case_spmm_max(kernels *k)
{
    for (int which = 0; which < MATRICES; which++) {
        matrix m = matrix_new(k, which);
        spmm_max(k, &m, 1);
        spmm_max(k, &m, 17);
        if (which != 1) spmm_max(k, &m, 520);
        nsm_csr_free(m.csr);
    }
}

static void segment(kernels *k, const matrix *m, const nsm_csr_part *part, nsmi_reduce f,
                    int64_t cols)
{
    bool picks = f == NSMI_MAX_OF || f == NSMI_MIN_OF;
    reals x = reals_steps(k, m->nnz * cols, 8), y = reals_blank(k, m->rows * cols);
    reals dy = reals_random(k, m->rows * cols, -1, 1), dx = reals_random(k, m->nnz * cols, -1, 1);
    ints arg = ints_blank(k, m->rows * cols);
    double *want = wanted(k, m->rows * cols), *back = wanted_from(k, dx, 1);
    int32_t *winner = host_array(k, m->rows * cols, sizeof *winner);
    for (int64_t i = 0; i < m->rows * cols; i++) {
        int64_t r = i / cols, j = i % cols, count = m->ptr[r + 1] - m->ptr[r];
        double sign = f == NSMI_MIN_OF ? -1 : 1, each = f == NSMI_MEAN ? 1 / (double)count : 1;
        winner[i] = -1;
        for (int64_t e = m->ptr[r]; e < m->ptr[r + 1]; e++) {
            double v = (double)x.h[m->pos[e] * cols + j];
            if (!picks) {
                want[i] += each * v;
                back[m->pos[e] * cols + j] += each * (double)dy.h[i];
            } else if (winner[i] < 0 || sign * v > sign * want[i]) {
                winner[i] = m->pos[e];
                want[i] = v;
            }
        }
        if (winner[i] >= 0) back[winner[i] * cols + j] += (double)dy.h[i];
    }
    k->be->segment_reduce(k->d, f, part, cols, x.d, y.d, picks ? arg.d : NULL);
    result(k, "segment_reduce", y, want, picks ? 0 : 1e-5);
    if (picks) result_ints(k, "segment_reduce's entries", arg, winner);
    k->be->segment_reduce_back(k->d, f, part, cols, picks ? arg.d : NULL, dy.d, dx.d);
    result(k, "segment_reduce_back", dx, back, 2e-6);
}

void case_segments(kernels *k)
{
    for (int which = 0; which < MATRICES; which++) {
        matrix m = matrix_new(k, which), back = m;
        view(k, &m.csr->bwd, &back);
        for (int f = 0; f < 4; f++) {
            segment(k, &m, &m.csr->fwd, (nsmi_reduce)f, 1);
            segment(k, &m, &m.csr->fwd, (nsmi_reduce)f, 17);
            segment(k, &back, &m.csr->bwd, (nsmi_reduce)f, 5);
            if (m.nnz < 100) segment(k, &m, &m.csr->fwd, (nsmi_reduce)f, 520);
        }
        nsm_csr_free(m.csr);
    }
}

/* p [nnz, H] = softmax over each row's entries of s [nnz, H], in the order of pos. */
static void softmax_rows(const matrix *m, int64_t heads, const double *s, double *p)
{
    for (int64_t i = 0; i < m->rows * heads; i++) {
        int64_t r = i / heads, h = i % heads;
        double top = -INFINITY, sum = 0;
        for (int64_t e = m->ptr[r]; e < m->ptr[r + 1]; e++)
            top = fmax(top, s[m->pos[e] * heads + h]);
        for (int64_t e = m->ptr[r]; e < m->ptr[r + 1]; e++)
            sum += exp(s[m->pos[e] * heads + h] - top);
        for (int64_t e = m->ptr[r]; e < m->ptr[r + 1]; e++)
            p[m->pos[e] * heads + h] = exp(s[m->pos[e] * heads + h] - top) / sum;
    }
}

/* ds = beta ds + p (dp - sum over the row of p dp) */
static void softmax_rows_back(const matrix *m, int64_t heads, const double *p, const double *dp,
                              double *ds)
{
    for (int64_t i = 0; i < m->rows * heads; i++) {
        int64_t r = i / heads, h = i % heads;
        double sum = 0;
        for (int64_t e = m->ptr[r]; e < m->ptr[r + 1]; e++)
            sum += p[m->pos[e] * heads + h] * dp[m->pos[e] * heads + h];
        for (int64_t e = m->ptr[r]; e < m->ptr[r + 1]; e++) {
            int64_t at = m->pos[e] * heads + h;
            ds[at] += p[at] * (dp[at] - sum);
        }
    }
}

void case_segment_softmax(kernels *k)
{
    static const int64_t heads[] = { 1, 3, 8, 40 };
    for (int which = 0; which < MATRICES; which++) {
        matrix m = matrix_new(k, which), back = m;
        view(k, &m.csr->bwd, &back);
        for (int i = 0; i < 8; i++) {
            const matrix *side = i % 2 ? &back : &m;
            const nsm_csr_part *part = i % 2 ? &m.csr->bwd : &m.csr->fwd;
            int64_t h = heads[i / 2], n = m.nnz * h;
            reals x = reals_random(k, n, -30, 30), y = reals_blank(k, n),
                  dy = reals_random(k, n, -1, 1);
            reals dx = i % 2 ? reals_random(k, n, -1, 1) : reals_blank(k, n);
            double *p = wanted(k, n), *ds = wanted_from(k, dx, i % 2);
            softmax_rows(side, h, wanted_from(k, x, 1), p);
            k->be->segment_softmax(k->d, part, h, x.d, y.d);
            result(k, "segment_softmax", y, p, 1e-5);
            k->be->to_host(k->d, (size_t)n * sizeof(float), y.d, y.h);
            softmax_rows_back(side, h, wanted_from(k, y, 1), wanted_from(k, dy, 1), ds);
            k->be->segment_softmax_back(k->d, part, h, y.d, dy.d, (float)(i % 2), dx.d);
            result(k, "segment_softmax_back", dx, ds, 1e-5);
        }
        nsm_csr_free(m.csr);
    }
}

/* ---- attention ----
 * One reference for both: the score of entry e and head h is the sum over c of att[h, c] times
 * leaky_relu(a[idx, h, c] + b[row, h, c] + edge[e, h, c]); GAT's is that with one c and att 1. */
typedef struct {
    int64_t heads, dim, scored; /* scored: how many c */
    double slope, p_drop;
    nsm_random r;
    reals x, a, b, edge, att, dy; /* att.n 0: ones; edge.n 0: none */
    double *y, *prob;             /* forward */
    double *dx, *da, *db, *dedge, *datt; /* what backward adds to */
} attention;

static double argument(const attention *t, const matrix *m, int64_t r, int64_t e, int64_t j)
{
    int64_t n = t->heads * t->scored;
    return (double)t->a.h[m->idx[e] * n + j] + (double)t->b.h[r * n + j] +
           (t->edge.n ? (double)t->edge.h[e * n + j] : 0);
}

static double weight(const attention *t, int64_t j) { return t->att.n ? (double)t->att.h[j] : 1; }

static void attend(kernels *k, const attention *t, const matrix *m)
{
    int64_t n = t->heads * t->scored, width = t->heads * t->dim;
    double *s = wanted(k, m->nnz * t->heads), *dp = wanted(k, m->nnz * t->heads),
           *ds = wanted(k, m->nnz * t->heads);
    for (int64_t r = 0; r < m->rows; r++)
        for (int64_t e = m->ptr[r]; e < m->ptr[r + 1]; e++)
            for (int64_t j = 0; j < n; j++) {
                double z = argument(t, m, r, e, j);
                s[e * t->heads + j / t->scored] += weight(t, j) * (z > 0 ? z : t->slope * z);
            }
    softmax_rows(m, t->heads, s, t->prob);
    for (int64_t r = 0; r < m->rows; r++)
        for (int64_t e = m->ptr[r]; e < m->ptr[r + 1]; e++)
            for (int64_t j = 0; j < width; j++) {
                int64_t at = e * t->heads + j / t->dim, from = m->idx[e] * width + j;
                double scale = kept(t->r, t->p_drop, at);
                t->y[r * width + j] += t->prob[at] * scale * (double)t->x.h[from];
                t->dx[from] += t->prob[at] * scale * (double)t->dy.h[r * width + j];
                dp[at] += scale * (double)t->dy.h[r * width + j] * (double)t->x.h[from];
            }
    softmax_rows_back(m, t->heads, t->prob, dp, ds);
    for (int64_t r = 0; r < m->rows; r++)
        for (int64_t e = m->ptr[r]; e < m->ptr[r + 1]; e++)
            for (int64_t j = 0; j < n; j++) {
                double z = argument(t, m, r, e, j), g = ds[e * t->heads + j / t->scored];
                double dz = g * weight(t, j) * (z > 0 ? 1 : t->slope);
                if (t->datt) t->datt[j] += g * (z > 0 ? z : t->slope * z);
                t->da[m->idx[e] * n + j] += dz;
                t->db[r * n + j] += dz;
                if (t->dedge) t->dedge[e * n + j] += dz;
            }
}

static attention attention_new(kernels *k, const matrix *m, int64_t heads, int64_t dim,
                               int64_t scored, int options)
{
    int64_t n = heads * scored, width = heads * dim;
    attention t = {
        .heads = heads, .dim = dim, .scored = scored, .slope = (double)0.2f, .r = { 77, 5 }
    };
    t.p_drop = options & 2 ? (double)0.4f : 0;
    t.x = reals_random(k, m->cols * width, -1, 1);
    t.a = reals_random(k, m->cols * n, -1, 1);
    t.b = reals_random(k, m->rows * n, -1, 1);
    t.dy = reals_random(k, m->rows * width, -1, 1);
    if (options & 1) t.edge = reals_random(k, m->nnz * n, -1, 1);
    t.y = wanted(k, m->rows * width);
    t.prob = wanted(k, m->nnz * heads);
    return t;
}

static const int64_t sizes[][2] = {
    { 1, 1 }, { 8, 8 }, { 3, 5 }, { 1, 70 }, { 40, 2 }, { 2, 520 }
};
enum { SIZES = sizeof sizes / sizeof *sizes };

static void gat(kernels *k, const matrix *m, int64_t heads, int64_t dim, int options)
{
    attention t = attention_new(k, m, heads, dim, 1, options);
    int64_t width = heads * dim;
    reals y = reals_blank(k, m->rows * width), stat = reals_blank(k, m->rows * 2 * heads);
    reals prob = reals_blank(k, m->nnz * heads), scratch = reals_blank(k, m->nnz * heads);
    reals dx = reals_random(k, t.x.n, -1, 1), da = reals_random(k, t.a.n, -1, 1),
          db = reals_random(k, t.b.n, -1, 1);
    reals dedge = reals_random(k, t.edge.n, -1, 1);
    t.dx = wanted_from(k, dx, 1);
    t.da = wanted_from(k, da, 1);
    t.db = wanted_from(k, db, 1);
    t.dedge = t.edge.n ? wanted_from(k, dedge, 1) : NULL;
    if (k->check) attend(k, &t, m);
    const float *edge = t.edge.n ? t.edge.d : NULL;
    k->be->gat(k->d, &m->csr->fwd, heads, dim, 0.2f, (float)t.p_drop, t.r, t.x.d, t.a.d, t.b.d,
               edge, y.d, stat.d, options & 4 ? NULL : prob.d);
    result(k, "gat", y, t.y, 1e-5);
    if (!(options & 4)) result(k, "gat's probabilities", prob, t.prob, 1e-5);
    result_digest(k, stat);
    k->be->gat_back(k->d, m->csr, heads, dim, 0.2f, (float)t.p_drop, t.r, t.x.d, t.a.d, t.b.d, edge,
                    y.d, stat.d, t.dy.d, scratch.d, dx.d, da.d, db.d, t.edge.n ? dedge.d : NULL);
    result(k, "gat_back's dx", dx, t.dx, BACK);
    result(k, "gat_back's dsrc", da, t.da, BACK);
    result(k, "gat_back's ddst", db, t.db, BACK);
    if (t.edge.n) result(k, "gat_back's dedge", dedge, t.dedge, BACK);
}

/* l is what is summed and what is scored. */
static void gatv2(kernels *k, const matrix *m, int64_t heads, int64_t dim, int options)
{
    attention t = attention_new(k, m, heads, dim, dim, options);
    int64_t width = heads * dim;
    reals y = reals_blank(k, m->rows * width), stat = reals_blank(k, m->rows * 2 * heads);
    reals prob = reals_blank(k, m->nnz * heads), scratch = reals_blank(k, m->nnz * heads);
    reals dl = reals_random(k, t.x.n, -1, 1), dq = reals_random(k, t.b.n, -1, 1),
          datt = reals_random(k, width, -1, 1);
    reals dedge = reals_random(k, t.edge.n, -1, 1);
    t.a = t.x;
    t.att = reals_random(k, width, -1, 1);
    t.da = t.dx = wanted_from(k, dl, 1);
    t.db = wanted_from(k, dq, 1);
    t.datt = wanted_from(k, datt, 1);
    t.dedge = t.edge.n ? wanted_from(k, dedge, 1) : NULL;
    if (k->check) attend(k, &t, m);
    const float *edge = t.edge.n ? t.edge.d : NULL;
    k->be->gatv2(k->d, &m->csr->fwd, heads, dim, 0.2f, (float)t.p_drop, t.r, t.x.d, t.b.d, edge,
                 t.att.d, y.d, stat.d, options & 4 ? NULL : prob.d);
    result(k, "gatv2", y, t.y, 1e-5);
    if (!(options & 4)) result(k, "gatv2's probabilities", prob, t.prob, 1e-5);
    result_digest(k, stat);
    k->be->gatv2_back(k->d, m->csr, heads, dim, 0.2f, (float)t.p_drop, t.r, t.x.d, t.b.d, edge,
                      t.att.d, y.d, stat.d, t.dy.d, scratch.d, dl.d, dq.d,
                      t.edge.n ? dedge.d : NULL, datt.d);
    result(k, "gatv2_back's dl", dl, t.dx, BACK);
    result(k, "gatv2_back's dq", dq, t.db, BACK);
    result(k, "gatv2_back's datt", datt, t.datt, BACK);
    if (t.edge.n) result(k, "gatv2_back's dedge", dedge, t.dedge, BACK);
}

static void every_attention(kernels *k,
                            void (*run)(kernels *, const matrix *, int64_t, int64_t, int))
{
    for (int which = 0; which < MATRICES; which++) {
        matrix m = matrix_new(k, which);
        for (int s = 0; s < (which == 1 ? 3 : SIZES); s++) {
            if (m.nnz > 100 && sizes[s][0] * sizes[s][1] > 100) continue;
            for (int options = s % 2; options < 8; options += m.nnz > 100 ? 3 : 1)
                run(k, &m, sizes[s][0], sizes[s][1], options);
        }
        nsm_csr_free(m.csr);
    }
}

void case_gat(kernels *k) { every_attention(k, gat); }
void case_gatv2(kernels *k) { every_attention(k, gatv2); }
