/* base/ops/linear.c - Products of matrices, and the linear layer.
 *
 * Of y = op(a) op(b), op transposing or not, both gradients are again such products:
 *   da = dy op(b)^T, or its transpose op(b) dy^T where a was transposed;   db likewise.
 * Letters: y [m, n], sum over k. */
#include "config.h"
#include "base/ops/common.h"

/* ---- matmul: i = {ta, tb} ---- */
typedef struct { bool ta, tb; int64_t m, n, k; } product;

/* From the last two axes of the inputs. */
static product product_of(const nsm_node *n)
{
    const nsm_tensor *a = n->in[0], *b = n->in[1];
    int64_t ar = a->dim[a->rank - 2], ac = a->dim[a->rank - 1], br = b->dim[b->rank - 2],
            bc = b->dim[b->rank - 1];
    product p = { n->i[0] != 0, n->i[1] != 0, 0, 0, 0 };
    p.m = p.ta ? ac : ar;
    p.k = p.ta ? ar : ac;
    p.n = p.tb ? br : bc;
    return p;
}

static bool inner_agree(const nsm_node *n)
{
    const nsm_tensor *b = n->in[1];
    return product_of(n).k == b->dim[b->rank - (n->i[1] ? 1 : 2)];
}

static void forward_one(nsm_node *n, product p, const float *a, const float *b, float beta,
                        float *y)
{
    BE(n)->gemm(DEV(n), p.ta, p.tb, p.m, p.n, p.k, 1, a, p.ta ? p.m : p.k, b, p.tb ? p.k : p.n,
                beta, y, p.n);
}

static void back_to_a(nsm_node *n, product p, const float *b, const float *dy, float beta,
                      float *da)
{
    int64_t ldb = p.tb ? p.k : p.n;
    if (p.ta) BE(n)->gemm(DEV(n), p.tb, true, p.k, p.m, p.n, 1, b, ldb, dy, p.n, beta, da, p.m);
    else BE(n)->gemm(DEV(n), false, !p.tb, p.m, p.k, p.n, 1, dy, p.n, b, ldb, beta, da, p.k);
}

static void back_to_b(nsm_node *n, product p, const float *a, const float *dy, float beta,
                      float *db)
{
    int64_t lda = p.ta ? p.m : p.k;
    if (p.tb) BE(n)->gemm(DEV(n), true, p.ta, p.n, p.k, p.m, 1, dy, p.n, a, lda, beta, db, p.k);
    else BE(n)->gemm(DEV(n), !p.ta, false, p.k, p.n, p.m, 1, a, lda, dy, p.n, beta, db, p.n);
}

static void matmul_shape(nsm_node *n)
{
    if (n->in[0]->rank != 2 || n->in[1]->rank != 2) nsmi_bad_shape(n, "two matrices are wanted");
    else if (!inner_agree(n)) nsmi_bad_shape(n, "the inner sizes differ");
    else if (nsmi_all_floats(n)) OUT(n, 0, product_of(n).m, product_of(n).n);
}

static void matmul_forward(nsm_node *n) { forward_one(n, product_of(n), X(0), X(1), 0, Y(0)); }

static void matmul_backward(nsm_node *n)
{
    float beta, *dx = nsm_node_dx_beta(n, 0, &beta);
    if (dx) back_to_a(n, product_of(n), X(1), DY(0), beta, dx);
    dx = nsm_node_dx_beta(n, 1, &beta);
    if (dx) back_to_b(n, product_of(n), X(0), DY(0), beta, dx);
}

const nsm_op nsmi_op_matmul = { "nsm_matmul",
                                matmul_shape,
                                matmul_forward,
                                matmul_backward,
                                2,
                                NSM_READS_IN(0) | NSM_READS_IN(1),
                                false };
nsm_tensor *nsm_matmul(nsm_tape *tape, nsm_tensor *a, nsm_tensor *b, bool transpose_a,
                       bool transpose_b)
{
    return nsm_apply(tape, &nsmi_op_matmul,
                     &(nsm_args){ .in = { a, b }, .i = { transpose_a, transpose_b } });
}

/* ---- bmm: the same over axes before the last two, which broadcast ---- */

/* The matrix of y's batch entry `at` in input i, by y's leading dims. */
static int64_t matrix_at(const nsm_node *n, int i, int64_t at)
{
    const nsm_tensor *x = n->in[i], *y = n->out[0];
    int64_t where = 0, stride = 1;
    for (int k = y->rank - 3; k >= 0; k--) {
        int axis = k - (y->rank - x->rank);
        int64_t size = axis >= 0 ? x->dim[axis] : 1;
        if (size != 1) where += at % y->dim[k] * stride;
        stride *= size;
        at /= y->dim[k];
    }
    return where;
}

static void bmm_shape(nsm_node *n)
{
    const nsm_tensor *a = n->in[0], *b = n->in[1];
    int rank = a->rank > b->rank ? a->rank : b->rank;
    int64_t dim[NSM_MAX_RANK];
    bool ok = a->rank >= 2 && b->rank >= 2 && inner_agree(n);
    for (int k = 0; ok && k < rank - 2; k++) {
        int ka = k - (rank - a->rank), kb = k - (rank - b->rank);
        int64_t da = ka < 0 ? 1 : a->dim[ka], db = kb < 0 ? 1 : b->dim[kb];
        ok = da == db || da == 1 || db == 1;
        dim[k] = da == 1 ? db : da;
    }
    if (!ok) {
        nsmi_bad_shape(n, "the inner sizes differ or the batches do not broadcast");
    } else if (nsmi_all_floats(n)) {
        dim[rank - 2] = product_of(n).m;
        dim[rank - 1] = product_of(n).n;
        nsm_node_out(n, 0, NSM_F32, rank, dim);
    }
}

static int64_t batch_of(const nsm_tensor *x)
{
    int64_t batch = 1;
    for (int k = 0; k < x->rank - 2; k++) batch *= x->dim[k];
    return batch;
}

/* Neither input is broadcast in part: one call of the batched kernel does, stride 0 for a single
 * matrix.  (Its gradient, a sum over the batch, is taken one by one.) */
static bool is_regular(const nsm_node *n)
{
    int64_t batch = batch_of(n->out[0]), a = batch_of(n->in[0]), b = batch_of(n->in[1]);
    return (a == batch || a == 1) && (b == batch || b == 1);
}

static void bmm_forward(nsm_node *n)
{
    product p = product_of(n);
    int64_t batch = batch_of(n->out[0]), a = p.m * p.k, b = p.k * p.n, y = p.m * p.n;
    if (is_regular(n))
        BE(n)->gemm_batch(DEV(n), p.ta, p.tb, batch, p.m, p.n, p.k, 1, X(0), p.ta ? p.m : p.k,
                          batch_of(n->in[0]) > 1 ? a : 0, X(1), p.tb ? p.k : p.n,
                          batch_of(n->in[1]) > 1 ? b : 0, 0, Y(0), p.n, y);
    else
        for (int64_t at = 0; at < batch; at++)
            forward_one(n, p, X(0) + matrix_at(n, 0, at) * a, X(1) + matrix_at(n, 1, at) * b, 0,
                        Y(0) + at * y);
}

/* Every matrix of input i has a gradient of its own: one batched call. */
static void bmm_back_batched(nsm_node *n, product p, int i, float beta, float *dx)
{
    int64_t batch = batch_of(n->out[0]), a = p.m * p.k, b = p.k * p.n, y = p.m * p.n;
    int64_t lda = p.ta ? p.m : p.k, ldb = p.tb ? p.k : p.n, sa = batch_of(n->in[0]) > 1 ? a : 0,
            sb = batch_of(n->in[1]) > 1 ? b : 0;
    const float *dy = DY(0);
    if (i == 0 && p.ta)
        BE(n)->gemm_batch(DEV(n), p.tb, true, batch, p.k, p.m, p.n, 1, X(1), ldb, sb, dy, p.n, y,
                          beta, dx, p.m, a);
    else if (i == 0)
        BE(n)->gemm_batch(DEV(n), false, !p.tb, batch, p.m, p.k, p.n, 1, dy, p.n, y, X(1), ldb, sb,
                          beta, dx, p.k, a);
    else if (p.tb)
        BE(n)->gemm_batch(DEV(n), true, p.ta, batch, p.n, p.k, p.m, 1, dy, p.n, y, X(0), lda, sa,
                          beta, dx, p.k, b);
    else
        BE(n)->gemm_batch(DEV(n), !p.ta, false, batch, p.k, p.n, p.m, 1, X(0), lda, sa, dy, p.n, y,
                          beta, dx, p.n, b);
}

static void bmm_back_to(nsm_node *n, int i)
{
    product p = product_of(n);
    int64_t batch = batch_of(n->out[0]), a = p.m * p.k, b = p.k * p.n, y = p.m * p.n;
    float beta, *dx;
    if (is_regular(n) && batch_of(n->in[i]) == batch) {
        dx = nsm_node_dx_beta(n, i, &beta);
        if (dx) bmm_back_batched(n, p, i, beta, dx);
        return;
    }
    dx = DX(i);
    for (int64_t at = 0; dx && at < batch; at++) {
        const float *dy = DY(0) + at * y;
        if (i == 0)
            back_to_a(n, p, X(1) + matrix_at(n, 1, at) * b, dy, 1, dx + matrix_at(n, 0, at) * a);
        else back_to_b(n, p, X(0) + matrix_at(n, 0, at) * a, dy, 1, dx + matrix_at(n, 1, at) * b);
    }
}

static void bmm_backward(nsm_node *n)
{
    bmm_back_to(n, 0);
    bmm_back_to(n, 1);
}

const nsm_op nsmi_op_bmm = { "nsm_bmm",    bmm_shape, bmm_forward,
                             bmm_backward, 2,         NSM_READS_IN(0) | NSM_READS_IN(1),
                             false };
nsm_tensor *nsm_bmm(nsm_tape *tape, nsm_tensor *a, nsm_tensor *b, bool transpose_a,
                    bool transpose_b)
{
    return nsm_apply(tape, &nsmi_op_bmm,
                     &(nsm_args){ .in = { a, b }, .i = { transpose_a, transpose_b } });
}

/* ---- linear: in = x, w, bias;  linear2: in = x1, w1, x2, w2, bias ---- */
static int64_t rows_of(const nsm_tensor *x)
{
    int64_t rows = 1;
    for (int k = 0; k < x->rank - 1; k++) rows *= x->dim[k];
    return rows;
}

/* Do x [..., in] and w [out, in] fit? */
static bool fits(const nsm_tensor *x, const nsm_tensor *w)
{
    return x->rank >= 1 && w->rank == 2 && x->dim[x->rank - 1] == w->dim[1];
}

static product linear_of(const nsm_tensor *x, const nsm_tensor *w)
{
    return (product){ false, true, rows_of(x), w->dim[0], w->dim[1] };
}

static void linear_out(nsm_node *n)
{
    int64_t dim[NSM_MAX_RANK];
    memcpy(dim, n->in[0]->dim, sizeof dim);
    dim[n->in[0]->rank - 1] = n->in[1]->dim[0];
    if (nsmi_all_floats(n)) nsm_node_out(n, 0, NSM_F32, n->in[0]->rank, dim);
}

static void add_bias(nsm_node *n, const nsm_tensor *bias)
{
    int64_t c = n->in[1]->dim[0];
    if (bias)
        BE(n)->bias_act_dropout(DEV(n), NSMI_IDENTITY, 0, 0, 0, n->random, rows_of(n->out[0]), c,
                                Y(0), bias->f32, Y(0));
}

/* The gradients of x (input i) and w (input i + 1). */
static void back_to_pair(nsm_node *n, int i)
{
    product p = linear_of(n->in[i], n->in[i + 1]);
    float beta, *dx = nsm_node_dx_beta(n, i, &beta);
    if (dx) back_to_a(n, p, X(i + 1), DY(0), beta, dx);
    dx = nsm_node_dx_beta(n, i + 1, &beta);
    if (dx) back_to_b(n, p, X(i), DY(0), beta, dx);
}

static void back_to_bias(nsm_node *n, int i)
{
    float beta, *db = nsm_node_dx_beta(n, i, &beta);
    if (db) BE(n)->column_sum(DEV(n), rows_of(n->out[0]), n->in[i]->dim[0], DY(0), beta, db);
}

static void linear_shape(nsm_node *n)
{
    if (!fits(n->in[0], n->in[1]) || !nsmi_is_vector(n->in[2], n->in[1]->dim[0]))
        nsmi_bad_shape(n, "want x [..., in], w [out, in], bias [out]");
    else linear_out(n);
}

static void linear_forward(nsm_node *n)
{
    forward_one(n, linear_of(n->in[0], n->in[1]), X(0), X(1), 0, Y(0));
    add_bias(n, n->in[2]);
}

static void linear_backward(nsm_node *n)
{
    back_to_pair(n, 0);
    back_to_bias(n, 2);
}

const nsm_op nsmi_op_linear = { "nsm_linear",
                                linear_shape,
                                linear_forward,
                                linear_backward,
                                2,
                                NSM_READS_IN(0) | NSM_READS_IN(1),
                                false };
nsm_tensor *nsm_linear(nsm_tape *tape, nsm_tensor *x, nsm_tensor *w, nsm_tensor *bias)
{
    if (x && x->csr) return nsm_sparse_linear(tape, x, w, bias);
    return nsm_apply(tape, &nsmi_op_linear, &(nsm_args){ .in = { x, w, bias } });
}

static void linear2_shape(nsm_node *n)
{
    const nsm_tensor *x1 = n->in[0], *w1 = n->in[1], *x2 = n->in[2], *w2 = n->in[3];
    bool ok = fits(x1, w1) && fits(x2, w2) && w1->dim[0] == w2->dim[0] && x1->rank == x2->rank &&
              nsmi_is_vector(n->in[4], w1->dim[0]);
    for (int k = 0; ok && k < x1->rank - 1; k++) ok = x1->dim[k] == x2->dim[k];
    if (!ok)
        nsmi_bad_shape(
            n, "want x1 [..., in1], w1 [out, in1], x2 [..., in2], w2 [out, in2], bias [out]");
    else linear_out(n);
}

static void linear2_forward(nsm_node *n)
{
    forward_one(n, linear_of(n->in[0], n->in[1]), X(0), X(1), 0, Y(0));
    forward_one(n, linear_of(n->in[2], n->in[3]), X(2), X(3), 1, Y(0));
    add_bias(n, n->in[4]);
}

static void linear2_backward(nsm_node *n)
{
    back_to_pair(n, 0);
    back_to_pair(n, 2);
    back_to_bias(n, 4);
}

const nsm_op nsmi_op_linear2 = { "nsm_linear2",
                                 linear2_shape,
                                 linear2_forward,
                                 linear2_backward,
                                 4,
                                 NSM_READS_IN(0) | NSM_READS_IN(1) | NSM_READS_IN(2) |
                                     NSM_READS_IN(3),
                                 false };
nsm_tensor *nsm_linear2(nsm_tape *tape, nsm_tensor *x1, nsm_tensor *w1, nsm_tensor *x2,
                        nsm_tensor *w2, nsm_tensor *bias)
{
    if ((x1 && x1->csr) || (x2 && x2->csr))
        return nsm_add(tape, nsm_linear(tape, x1, w1, bias), nsm_linear(tape, x2, w2, NULL));
    return nsm_apply(tape, &nsmi_op_linear2, &(nsm_args){ .in = { x1, w1, x2, w2, bias } });
}
