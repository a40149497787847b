/* base/ops/sparse.c - Ops over sparse matrices and graphs.
 *
 * Every op takes an nsm_csr: rows are destinations, columns sources, and values that belong to
 * entries ("edges") stand in csr order.  Backward walks the transpose by row as forward walks the
 * rows, so neither writes one place from two threads.  Nothing of size entries x features is
 * written: the gradient with respect to an entry's weight is a dot product of two rows.
 *
 * Letters: R rows, C columns, E entries, F features, H heads, D per head. */
#include "config.h"
#include "base/internal.h"
#include "base/ops.h"

#define CSR(n) ((const nsm_csr *)(n)->p[0])

/* Is the matrix there, in this context, and its transpose when backward will want it? */
static bool csr_ok(nsm_node *n)
{
    const nsm_csr *m = CSR(n);
    if (!m)
        nsm_error_set(n->ctx, NSM_EINVAL, "%s: the sparse matrix is NULL", n->op->name);
    else if (m->ctx != n->ctx)
        nsm_error_set(n->ctx, NSM_EINVAL, "%s: the sparse matrix belongs to another context",
                      n->op->name);
    else if (n->recorded && !m->bwd.ptr)
        nsm_error_set(n->ctx, NSM_EINVAL, "%s: the sparse matrix was made without its transpose",
                      n->op->name);
    else
        return true;
    return false;
}

static bool floats(nsm_node *n, int i, int rank)
{
    return n->in[i] && n->in[i]->type == NSM_F32 && n->in[i]->rank == rank;
}

/* ---- y = A x: in {x [C,F], w [E] or NULL}, i {mean}, p {csr} -> y [R,F] ---- */
static void spmm_shape(nsm_node *n)
{
    if (!csr_ok(n)) return;
    const nsm_csr *m = CSR(n);
    bool ok = floats(n, 0, 2) && n->in[0]->dim[0] == m->cols;
    if (ok && n->in[1]) ok = n->in[1]->type == NSM_F32 && nsm_numel(n->in[1]) == m->nnz;
    if (!ok) nsmi_bad_shape(n, "want x [columns of the matrix, F] and weights [entries]");
    else OUT(n, 0, m->rows, n->in[0]->dim[1]);
}

static float *weights(nsm_node *n) { return n->in[1] ? X(1) : NULL; }

static void spmm_forward(nsm_node *n)
{
    BE(n)->spmm(DEV(n), &CSR(n)->fwd, n->in[0]->dim[1], weights(n), n->i[0] != 0, X(0), 0.0f, Y(0));
}

/* dy with each row divided by its number of entries: what a mean's backward spreads.  A row
 * without entries becomes infinite or NaN, and is read by nothing. */
static const float *mean_dy(nsm_node *n)
{
    const nsm_csr *m = CSR(n);
    int64_t f = n->in[0]->dim[1];
    if (!n->i[0]) return DY(0);
    float *ones = nsm_node_scratch(n, (size_t)m->cols * sizeof *ones);
    float *count = nsm_node_scratch(n, (size_t)m->rows * sizeof *count);
    float *dy = nsm_node_scratch(n, (size_t)(m->rows * f) * sizeof *dy);
    if (!ones || !count || !dy) return NULL;
    BE(n)->fill(DEV(n), m->cols, 1.0f, ones);
    BE(n)->spmm(DEV(n), &m->fwd, 1, NULL, false, ones, 0.0f, count);
    BE(n)->binary(DEV(n), NSMI_DIV, (int64_t[5]){ 1, 1, 1, m->rows, f }, DY(0),
                  (nsmi_strides){ { 0, 0, 0, f, 1 } }, count, (nsmi_strides){ { 0, 0, 0, 1, 0 } },
                  dy);
    return dy;
}

static void spmm_backward(nsm_node *n)
{
    float beta;
    const nsm_csr *m = CSR(n);
    int64_t f = n->in[0]->dim[1];
    const float *dy = mean_dy(n);
    if (!dy) return;
    float *dx = nsm_node_dx_beta(n, 0, &beta);
    if (dx) BE(n)->spmm(DEV(n), &m->bwd, f, weights(n), false, dy, beta, dx);
    float *dw = nsm_node_dx_beta(n, 1, &beta);
    if (dw) BE(n)->sddmm(DEV(n), &m->fwd, 1, f, dy, X(0), beta, dw);
}

/* Two of them, so that x is not kept where no weight wants a gradient. */
const nsm_op nsmi_op_spmm = { "nsm_spmm", spmm_shape,      spmm_forward, spmm_backward,
                              1,          NSM_READS_IN(1), false };
const nsm_op nsmi_op_spmm_weights = {
    "nsm_spmm", spmm_shape, spmm_forward, spmm_backward, 2, NSM_READS_IN(0) | NSM_READS_IN(1), false
};

nsm_tensor *nsm_spmm(nsm_tape *tape, const nsm_csr *csr, nsm_tensor *w, bool mean, nsm_tensor *x)
{
    const nsm_op *op = w && w->needs_grad ? &nsmi_op_spmm_weights : &nsmi_op_spmm;
    return nsm_apply(tape, op, &(nsm_args){ .in = { x, w }, .i = { mean }, .p = { csr } });
}

/* ---- the largest of a row's entries: in {x [C,F]} -> y [R,F] ---- */
static void spmm_max_shape(nsm_node *n)
{
    if (!csr_ok(n)) return;
    const nsm_csr *m = CSR(n);
    if (!floats(n, 0, 2) || n->in[0]->dim[0] != m->cols) {
        nsmi_bad_shape(n, "want x [columns of the matrix, F]");
        return;
    }
    OUT(n, 0, m->rows, n->in[0]->dim[1]);
    nsm_node_save(n, 0, NSM_I32, 2, (int64_t[]){ m->rows, n->in[0]->dim[1] });
}

static void spmm_max_forward(nsm_node *n)
{
    BE(n)->spmm_max(DEV(n), &CSR(n)->fwd, n->in[0]->dim[1], X(0), Y(0), n->saved[0]->i32);
}

static void spmm_max_backward(nsm_node *n)
{
    float *dx = DX(0);
    if (dx)
        BE(n)->spmm_max_back(DEV(n), &CSR(n)->bwd, n->in[0]->dim[1], n->saved[0]->i32, DY(0), dx);
}

const nsm_op nsmi_op_spmm_max = {
    "nsm_spmm_max", spmm_max_shape, spmm_max_forward, spmm_max_backward, 1, NSM_READS_NOTHING, false
};

nsm_tensor *nsm_spmm_max(nsm_tape *tape, const nsm_csr *csr, nsm_tensor *x)
{
    return nsm_apply(tape, &nsmi_op_spmm_max, &(nsm_args){ .in = { x }, .p = { csr } });
}

/* ---- over the entries of each row: in {x [E,F]} -> y [R,F]; i {which} ---- */
static void segment_shape(nsm_node *n)
{
    if (!csr_ok(n)) return;
    const nsm_csr *m = CSR(n);
    if (!floats(n, 0, 2) || n->in[0]->dim[0] != m->nnz) {
        nsmi_bad_shape(n, "want x [entries of the matrix, F]");
        return;
    }
    OUT(n, 0, m->rows, n->in[0]->dim[1]);
    if (n->i[0] == NSMI_MAX_OF || n->i[0] == NSMI_MIN_OF)
        nsm_node_save(n, 0, NSM_I32, 2, (int64_t[]){ m->rows, n->in[0]->dim[1] });
}

static int32_t *winners(nsm_node *n) { return n->saved[0] ? n->saved[0]->i32 : NULL; }

static void segment_forward(nsm_node *n)
{
    BE(n)->segment_reduce(DEV(n), (nsmi_reduce)n->i[0], &CSR(n)->fwd, n->in[0]->dim[1], X(0), Y(0),
                          winners(n));
}

static void segment_backward(nsm_node *n)
{
    float *dx = DX(0);
    if (dx)
        BE(n)->segment_reduce_back(DEV(n), (nsmi_reduce)n->i[0], &CSR(n)->fwd, n->in[0]->dim[1],
                                   winners(n), DY(0), dx);
}

const nsm_op nsmi_op_segment = {
    "nsm_segment", segment_shape, segment_forward, segment_backward, 1, NSM_READS_NOTHING, false
};

static nsm_tensor *segment(nsm_tape *tape, nsmi_reduce how, const nsm_csr *csr, nsm_tensor *x)
{
    return nsm_apply(tape, &nsmi_op_segment,
                     &(nsm_args){ .in = { x }, .i = { how }, .p = { csr } });
}

nsm_tensor *nsm_segment_sum(nsm_tape *tape, const nsm_csr *csr, nsm_tensor *x)
{
    return segment(tape, NSMI_SUM, csr, x);
}
nsm_tensor *nsm_segment_mean(nsm_tape *tape, const nsm_csr *csr, nsm_tensor *x)
{
    return segment(tape, NSMI_MEAN, csr, x);
}
nsm_tensor *nsm_segment_max(nsm_tape *tape, const nsm_csr *csr, nsm_tensor *x)
{
    return segment(tape, NSMI_MAX_OF, csr, x);
}
nsm_tensor *nsm_segment_min(nsm_tape *tape, const nsm_csr *csr, nsm_tensor *x)
{
    return segment(tape, NSMI_MIN_OF, csr, x);
}

static void segment_softmax_shape(nsm_node *n)
{
    if (!csr_ok(n)) return;
    if (!floats(n, 0, 2) || n->in[0]->dim[0] != CSR(n)->nnz)
        nsmi_bad_shape(n, "want x [entries of the matrix, H]");
    else OUT(n, 0, n->in[0]->dim[0], n->in[0]->dim[1]);
}

static void segment_softmax_forward(nsm_node *n)
{
    BE(n)->segment_softmax(DEV(n), &CSR(n)->fwd, n->in[0]->dim[1], X(0), Y(0));
}

static void segment_softmax_backward(nsm_node *n)
{
    float beta, *dx = nsm_node_dx_beta(n, 0, &beta);
    if (dx)
        BE(n)->segment_softmax_back(DEV(n), &CSR(n)->fwd, n->in[0]->dim[1], Y(0), DY(0), beta, dx);
}

const nsm_op nsmi_op_segment_softmax = { "nsm_segment_softmax",
                                         segment_softmax_shape,
                                         segment_softmax_forward,
                                         segment_softmax_backward,
                                         1,
                                         NSM_READS_OUT(0),
                                         false };

nsm_tensor *nsm_segment_softmax(nsm_tape *tape, const nsm_csr *csr, nsm_tensor *x)
{
    return nsm_apply(tape, &nsmi_op_segment_softmax, &(nsm_args){ .in = { x }, .p = { csr } });
}

/* ---- a dot product an entry and head: in {a [R,H*D], b [C,H*D]}, i {H} -> [E,H] ---- */
static void sddmm_shape(nsm_node *n)
{
    if (!csr_ok(n)) return;
    const nsm_csr *m = CSR(n);
    int64_t heads = n->i[0];
    bool ok = floats(n, 0, 2) && floats(n, 1, 2) && n->in[0]->dim[0] == m->rows &&
              n->in[1]->dim[0] == m->cols && n->in[0]->dim[1] == n->in[1]->dim[1] && heads > 0 &&
              n->in[0]->dim[1] % heads == 0;
    if (!ok) nsmi_bad_shape(n, "want a [rows, H*D] and b [columns, H*D]");
    else OUT(n, 0, m->nnz, heads);
}

static void sddmm_forward(nsm_node *n)
{
    BE(n)->sddmm(DEV(n), &CSR(n)->fwd, n->i[0], n->in[0]->dim[1] / n->i[0], X(0), X(1), 0.0f, Y(0));
}

/* d{row} of one side: for each head the matrix of its dy times the other side's columns. */
static void sddmm_side(nsm_node *n, const nsm_csr_part *part, int to, int from)
{
    float beta, *dx = nsm_node_dx_beta(n, to, &beta);
    int64_t heads = n->i[0], width = n->in[0]->dim[1], dim = width / heads;
    if (!dx) return;
    if (heads == 1) {
        BE(n)->spmm(DEV(n), part, dim, DY(0), false, X(from), beta, dx);
        return;
    }
    float *w = nsm_node_scratch(n, (size_t)part->nnz * sizeof *w);
    float *x = nsm_node_scratch(n, (size_t)(part->cols * dim) * sizeof *x);
    float *y = nsm_node_scratch(n, (size_t)(part->rows * dim) * sizeof *y);
    if (!w || !x || !y) return;
    for (int64_t h = 0; h < heads; h++) {
        BE(n)->copy_block(DEV(n), part->nnz, 1, DY(0) + h, heads, 0.0f, w, 1);
        BE(n)->copy_block(DEV(n), part->cols, dim, X(from) + h * dim, width, 0.0f, x, dim);
        BE(n)->spmm(DEV(n), part, dim, w, false, x, 0.0f, y);
        BE(n)->copy_block(DEV(n), part->rows, dim, y, dim, beta, dx + h * dim, width);
    }
}

static void sddmm_backward(nsm_node *n)
{
    sddmm_side(n, &CSR(n)->fwd, 0, 1);
    sddmm_side(n, &CSR(n)->bwd, 1, 0);
}

const nsm_op nsmi_op_sddmm = { "nsm_sddmm",    sddmm_shape, sddmm_forward,
                               sddmm_backward, 2,           NSM_READS_IN(0) | NSM_READS_IN(1),
                               false };

nsm_tensor *nsm_sddmm(nsm_tape *tape, const nsm_csr *csr, int heads, nsm_tensor *a, nsm_tensor *b)
{
    return nsm_apply(tape, &nsmi_op_sddmm,
                     &(nsm_args){ .in = { a, b }, .i = { heads }, .p = { csr } });
}

/* ---- sparse x times a dense map: in {x sparse [R,C], w [O,C], bias [O] or NULL} -> [R,O] ---- */
static void sparse_linear_shape(nsm_node *n)
{
    const nsm_tensor *x = n->in[0], *w = n->in[1];
    if (!x->csr) {
        nsmi_bad_shape(n, "the first input is not a sparse matrix");
        return;
    }
    n->p[0] = x->csr;
    bool ok = csr_ok(n) && floats(n, 1, 2) && w->dim[1] == x->dim[1] &&
              (!n->in[2] || nsm_numel(n->in[2]) == w->dim[0]);
    if (!ok) nsmi_bad_shape(n, "want x [R,C], w [O,C], bias [O]");
    else OUT(n, 0, x->dim[0], w->dim[0]);
}

/* [rows, cols] -> [cols, rows]: y = beta y + transpose of x */
static void transpose(nsm_node *n, int64_t rows, int64_t cols, const float *x, float beta, float *y)
{
    static const int swap[5] = { 0, 1, 2, 4, 3 };
    BE(n)->permute(DEV(n), (int64_t[5]){ 1, 1, 1, rows, cols }, swap, x, beta, y);
}

static float *transposed_weight(nsm_node *n)
{
    int64_t out = n->in[1]->dim[0], in = n->in[1]->dim[1];
    /* [C, O]: an entry of x reads one row */
    float *wt = nsm_node_scratch(n, (size_t)(out * in) * sizeof *wt);
    if (wt) transpose(n, out, in, X(1), 0.0f, wt);
    return wt;
}

static void sparse_linear_forward(nsm_node *n)
{
    int64_t out = n->in[1]->dim[0];
    float *wt = transposed_weight(n);
    if (!wt) return;
    BE(n)->spmm(DEV(n), &CSR(n)->fwd, out, X(0), false, wt, 0.0f, Y(0));
    if (n->in[2])
        BE(n)->bias_act_dropout(DEV(n), NSMI_IDENTITY, 0, 0, 0, (nsm_random){ 0 }, CSR(n)->rows,
                                out, Y(0), X(2), Y(0));
}

static void sparse_linear_backward(nsm_node *n)
{
    const nsm_csr *m = CSR(n);
    int64_t out = n->in[1]->dim[0];
    float beta, *dx = nsm_node_dx_beta(n, 0, &beta);
    if (dx) {
        float *wt = transposed_weight(n);
        if (!wt) return;
        BE(n)->sddmm(DEV(n), &m->fwd, 1, out, DY(0), wt, beta, dx);
    }
    float *dw = nsm_node_dx_beta(n, 1, &beta);
    if (dw) {
        float *dwt = nsm_node_scratch(n, (size_t)(m->cols * out) * sizeof *dwt); /* [C, O] */
        if (!dwt) return;
        BE(n)->spmm(DEV(n), &m->bwd, out, X(0), false, DY(0), 0.0f, dwt);
        transpose(n, m->cols, out, dwt, beta, dw);
    }
    float *db = nsm_node_dx_beta(n, 2, &beta);
    if (db) BE(n)->column_sum(DEV(n), m->rows, out, DY(0), beta, db);
}

const nsm_op nsmi_op_sparse_linear = {
    "nsm_sparse_linear", sparse_linear_shape, sparse_linear_forward, sparse_linear_backward, 2,
    NSM_READS_IN(0) | NSM_READS_IN(1), true
};

nsm_tensor *nsm_sparse_linear(nsm_tape *tape, nsm_tensor *x, nsm_tensor *w, nsm_tensor *bias)
{
    return nsm_apply(tape, &nsmi_op_sparse_linear, &(nsm_args){ .in = { x, w, bias } });
}

/* ---- fused attention over the entries of a row ---- */
enum { HEADS, WANT_PROB }; /* of i[] */
enum { SLOPE, DROP };      /* of f[] */

/* What both attentions declare once their inputs are right. */
static void attention_out(nsm_node *n)
{
    const nsm_csr *m = CSR(n);
    OUT(n, 0, m->rows, n->in[0]->dim[1]);
    if (n->i[WANT_PROB]) OUT(n, 1, m->nnz, n->i[HEADS]);
    SAVE(n, 0, m->rows, 2 * n->i[HEADS]); /* a row's largest score and one over the sum, per head */
    n->random = n->f[DROP] > 0 ? nsm_node_random(n, m->nnz * n->i[HEADS]) : (nsm_random){ 0 };
}

static int64_t per_head(nsm_node *n) { return n->in[0]->dim[1] / n->i[HEADS]; }
static float *prob(nsm_node *n) { return n->out[1] ? Y(1) : NULL; }
static float *edge_values(nsm_node *n, int i) { return n->in[i] ? X(i) : NULL; }

static bool heads_ok(nsm_node *n)
{
    bool ok = n->i[HEADS] > 0 && n->f[DROP] >= 0 && n->f[DROP] < 1;
    if (!ok)
        nsm_error_set(n->ctx, NSM_EINVAL,
                      "%s: heads is %lld and dropout %g, want heads > 0 and dropout in [0,1)",
                      n->op->name, (long long)n->i[HEADS], (double)n->f[DROP]);
    return ok;
}

/* [at least rows, cols] */
static bool covers(nsm_node *n, int i, int64_t rows, int64_t cols)
{
    return floats(n, i, 2) && n->in[i]->dim[0] >= rows && n->in[i]->dim[1] == cols;
}

/* in {x [C,H*D], src [C,H], dst [>=R,H], edge [E,H] or NULL} */
static void gat_shape(nsm_node *n)
{
    if (!csr_ok(n) || !heads_ok(n)) return;
    const nsm_csr *m = CSR(n);
    int64_t h = n->i[HEADS];
    bool ok = floats(n, 0, 2) && n->in[0]->dim[0] == m->cols && n->in[0]->dim[1] % h == 0 &&
              covers(n, 1, m->cols, h) && n->in[1]->dim[0] == m->cols && covers(n, 2, m->rows, h) &&
              (!n->in[3] || (covers(n, 3, m->nnz, h) && n->in[3]->dim[0] == m->nnz));
    if (!ok)
        nsmi_bad_shape(n,
                       "want x [columns, H*D], src [columns, H], dst [rows, H], edge [entries, H]");
    else attention_out(n);
}

static void gat_forward(nsm_node *n)
{
    BE(n)->gat(DEV(n), &CSR(n)->fwd, n->i[HEADS], per_head(n), n->f[SLOPE], n->f[DROP], n->random,
               X(0), X(1), X(2), edge_values(n, 3), Y(0), n->saved[0]->f32, prob(n));
}

static void gat_backward(nsm_node *n)
{
    const nsm_csr *m = CSR(n);
    if (!DY(0)) return;
    float *scratch = nsm_node_scratch(n, (size_t)(m->nnz * n->i[HEADS]) * sizeof *scratch);
    float *dx = DX(0), *dsrc = DX(1), *ddst = DX(2), *dedge = DX(3);
    if (nsmi_failed(n->ctx)) return;
    BE(n)->gat_back(DEV(n), m, n->i[HEADS], per_head(n), n->f[SLOPE], n->f[DROP], n->random, X(0),
                    X(1), X(2), edge_values(n, 3), Y(0), n->saved[0]->f32, DY(0), scratch, dx, dsrc,
                    ddst, dedge);
}

const nsm_op nsmi_op_gat_attention = {
    "nsm_gat_attention", gat_shape, gat_forward, gat_backward, 3,
    NSM_READS_IN(0) | NSM_READS_IN(1) | NSM_READS_IN(2) | NSM_READS_IN(3) | NSM_READS_OUT(0), false
};

/* Fill both results; prob may be NULL. */
static nsm_tensor *attention(nsm_tape *tape, const nsm_op *op, nsm_args *args, float drop,
                             nsm_tensor **probability)
{
    nsm_tensor *out[2] = { NULL, NULL };
    args->i[WANT_PROB] = probability != NULL;
    args->f[DROP] = nsm_tape_training(tape) ? drop : 0.0f;
    nsm_apply_many(tape, op, args, out, 2);
    if (probability) *probability = out[1];
    return out[0];
}

nsm_tensor *nsm_gat_attention(nsm_tape *tape, const nsm_csr *csr, int heads, float slope,
                              float drop, nsm_tensor *x, nsm_tensor *src, nsm_tensor *dst,
                              nsm_tensor *edge, nsm_tensor **probability)
{
    nsm_args args = { .in = { x, src, dst, edge }, .i = { heads }, .f = { slope }, .p = { csr } };
    return attention(tape, &nsmi_op_gat_attention, &args, drop, probability);
}

/* in {l [C,H*D], q [>=R,H*D], att [H,D], edge [E,H*D] or NULL} */
static void gatv2_shape(nsm_node *n)
{
    if (!csr_ok(n) || !heads_ok(n)) return;
    const nsm_csr *m = CSR(n);
    int64_t h = n->i[HEADS], width = n->in[0]->dim[1];
    bool ok = floats(n, 0, 2) && n->in[0]->dim[0] == m->cols && width % h == 0 &&
              covers(n, 1, m->rows, width) && n->in[2]->type == NSM_F32 &&
              nsm_numel(n->in[2]) == width &&
              (!n->in[3] || (covers(n, 3, m->nnz, width) && n->in[3]->dim[0] == m->nnz));
    if (!ok)
        nsmi_bad_shape(n, "want l [columns, H*D], q [rows, H*D], att [H,D], edge [entries, H*D]");
    else attention_out(n);
}

static void gatv2_forward(nsm_node *n)
{
    BE(n)->gatv2(DEV(n), &CSR(n)->fwd, n->i[HEADS], per_head(n), n->f[SLOPE], n->f[DROP], n->random,
                 X(0), X(1), edge_values(n, 3), X(2), Y(0), n->saved[0]->f32, prob(n));
}

static void gatv2_backward(nsm_node *n)
{
    const nsm_csr *m = CSR(n);
    if (!DY(0)) return;
    float *scratch = nsm_node_scratch(n, (size_t)(m->nnz * n->i[HEADS]) * sizeof *scratch);
    float *dl = DX(0), *dq = DX(1), *datt = DX(2), *dedge = DX(3);
    if (nsmi_failed(n->ctx)) return;
    BE(n)->gatv2_back(DEV(n), m, n->i[HEADS], per_head(n), n->f[SLOPE], n->f[DROP], n->random, X(0),
                      X(1), edge_values(n, 3), X(2), Y(0), n->saved[0]->f32, DY(0), scratch, dl, dq,
                      dedge, datt);
}

const nsm_op nsmi_op_gatv2_attention = {
    "nsm_gatv2_attention", gatv2_shape, gatv2_forward, gatv2_backward, 3,
    NSM_READS_IN(0) | NSM_READS_IN(1) | NSM_READS_IN(2) | NSM_READS_IN(3) | NSM_READS_OUT(0), false
};

nsm_tensor *nsm_gatv2_attention(nsm_tape *tape, const nsm_csr *csr, int heads, float slope,
                                float drop, nsm_tensor *l, nsm_tensor *q, nsm_tensor *att,
                                nsm_tensor *edge, nsm_tensor **probability)
{
    nsm_args args = { .in = { l, q, att, edge }, .i = { heads }, .f = { slope }, .p = { csr } };
    return attention(tape, &nsmi_op_gatv2_attention, &args, drop, probability);
}
