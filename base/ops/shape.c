/* base/ops/shape.c - Ops that move values: permute, concatenate, slice, gather rows. */
#include "config.h"
#include "base/ops/common.h"

/* ---- permute: i = perm ---- */
static void permute_shape(nsm_node *n)
{
    const nsm_tensor *x = n->in[0];
    int64_t dim[NSM_MAX_RANK];
    unsigned seen = 0;
    for (int k = 0; k < x->rank; k++) {
        if (n->i[k] < 0 || n->i[k] >= x->rank || seen >> n->i[k] & 1) {
            nsm_error_set(n->ctx, NSM_EINVAL,
                          "nsm_permute: axis %d of the result is %lld: not a permutation", k,
                          (long long)n->i[k]);
            return;
        }
        seen |= 1u << n->i[k];
        dim[k] = x->dim[n->i[k]];
    }
    if (nsmi_all_floats(n)) nsm_node_out(n, 0, NSM_F32, x->rank, dim);
}

/* to = beta to + from permuted, or the other way round; the kernel wants five axes. */
static void permute(nsm_node *n, bool back, const nsm_tensor *shape, const float *from, float beta,
                    float *to)
{
    int pad = NSM_MAX_RANK - shape->rank, perm[NSM_MAX_RANK];
    int64_t dim[NSM_MAX_RANK];
    for (int k = 0; k < NSM_MAX_RANK; k++) {
        dim[k] = k < pad ? 1 : shape->dim[k - pad];
        int x = k < pad ? k : pad + (int)n->i[k - pad];
        if (back) perm[x] = k;
        else perm[k] = x;
    }
    BE(n)->permute(DEV(n), dim, perm, from, beta, to);
}

static void permute_forward(nsm_node *n) { permute(n, false, n->in[0], X(0), 0, Y(0)); }

static void permute_backward(nsm_node *n)
{
    float beta, *dx = nsm_node_dx_beta(n, 0, &beta);
    if (dx) permute(n, true, n->out[0], DY(0), beta, dx);
}

const nsm_op nsmi_op_permute = {
    "nsm_permute", permute_shape, permute_forward, permute_backward, 1, NSM_READS_NOTHING, false
};
nsm_tensor *nsm_permute(nsm_tape *tape, nsm_tensor *x, const int *perm)
{
    nsm_args args = { .in = { x } };
    for (int k = 0; x && k < x->rank; k++) args.i[k] = perm[k];
    return nsm_apply(tape, &nsmi_op_permute, &args);
}

nsm_tensor *nsm_transpose(nsm_tape *tape, nsm_tensor *x)
{
    int perm[NSM_MAX_RANK] = { 0, 1, 2, 3, 4 };
    if (!tape || !x) return NULL;
    if (x->rank < 2) {
        nsm_error_set(x->ctx, NSM_ESHAPE, "nsm_transpose: the rank is %d, want 2 or more", x->rank);
        return NULL;
    }
    perm[x->rank - 2] = x->rank - 1;
    perm[x->rank - 1] = x->rank - 2;
    return nsm_permute(tape, x, perm);
}

/* ---- concat: i = {axis, count} ---- */
static void concat_shape(nsm_node *n)
{
    int64_t dim[NSM_MAX_RANK];
    if (!nsmi_resolve_axis(n, 0, false) || !nsmi_all_floats(n)) return;
    memcpy(dim, n->in[0]->dim, sizeof dim);
    for (int i = 1; i < n->i[1]; i++) {
        const nsm_tensor *x = n->in[i];
        bool ok = x->rank == n->in[0]->rank;
        for (int k = 0; ok && k < x->rank; k++) ok = k == n->i[0] || x->dim[k] == dim[k];
        if (!ok) {
            nsmi_bad_shape(n, "only the sizes along the axis may differ");
            return;
        }
        dim[n->i[0]] += x->dim[n->i[0]];
    }
    nsm_node_out(n, 0, NSM_F32, n->in[0]->rank, dim);
}

static void concat_forward(nsm_node *n)
{
    nsmi_view all = nsmi_around(n->out[0], n->i[0]);
    float *to = Y(0);
    for (int i = 0; i < n->i[1]; i++) {
        int64_t cols = nsmi_around(n->in[i], n->i[0]).n * all.inner;
        BE(n)->copy_block(DEV(n), all.outer, cols, X(i), cols, 0, to, all.n * all.inner);
        to += cols;
    }
}

static void concat_backward(nsm_node *n)
{
    nsmi_view all = nsmi_around(n->out[0], n->i[0]);
    const float *from = DY(0);
    for (int i = 0; i < n->i[1]; i++) {
        int64_t cols = nsmi_around(n->in[i], n->i[0]).n * all.inner;
        float beta, *dx = nsm_node_dx_beta(n, i, &beta);
        if (dx) BE(n)->copy_block(DEV(n), all.outer, cols, from, all.n * all.inner, beta, dx, cols);
        from += cols;
    }
}

const nsm_op nsmi_op_concat = { "nsm_concat",      concat_shape, concat_forward, concat_backward, 1,
                                NSM_READS_NOTHING, false };
nsm_tensor *nsm_concat(nsm_tape *tape, nsm_tensor *const *x, int count, int axis)
{
    nsm_args args = { .i = { axis, count } };
    if (!tape) return NULL;
    if (count < 1) {
        nsm_error_set(nsm_tape_ctx(tape), NSM_EINVAL, "nsm_concat: %d tensors", count);
        return NULL;
    }
    for (int k = 0; k < count && k < NSM_OP_INPUTS; k++) {
        /* more than an op takes: each input is a concatenation itself */
        int from = count <= NSM_OP_INPUTS ? k : (int)((int64_t)count * k / NSM_OP_INPUTS);
        int to = count <= NSM_OP_INPUTS ? k + 1 : (int)((int64_t)count * (k + 1) / NSM_OP_INPUTS);
        args.in[k] = to - from == 1 ? x[from] : nsm_concat(tape, x + from, to - from, axis);
        if (!args.in[k]) return NULL;
        args.i[1] = k + 1;
    }
    return nsm_apply(tape, &nsmi_op_concat, &args);
}

/* ---- slice: i = {axis, start, length} ---- */
static void slice_shape(nsm_node *n)
{
    int64_t dim[NSM_MAX_RANK];
    if (!nsmi_resolve_axis(n, 0, false) || !nsmi_all_floats(n)) return;
    memcpy(dim, n->in[0]->dim, sizeof dim);
    int64_t size = dim[n->i[0]];
    if (n->i[1] < 0 || n->i[2] < 0 || n->i[1] > size || n->i[2] > size - n->i[1]) {
        nsm_error_set(n->ctx, NSM_EINVAL, "nsm_slice: %lld from %lld on, the axis has %lld",
                      (long long)n->i[2], (long long)n->i[1], (long long)size);
        return;
    }
    dim[n->i[0]] = n->i[2];
    nsm_node_out(n, 0, NSM_F32, n->in[0]->rank, dim);
}

static void slice_forward(nsm_node *n)
{
    nsmi_view v = nsmi_around(n->in[0], n->i[0]);
    int64_t cols = n->i[2] * v.inner;
    BE(n)->copy_block(DEV(n), v.outer, cols, X(0) + n->i[1] * v.inner, v.n * v.inner, 0, Y(0),
                      cols);
}

static void slice_backward(nsm_node *n)
{
    nsmi_view v = nsmi_around(n->in[0], n->i[0]);
    int64_t cols = n->i[2] * v.inner;
    float *dx = DX(0);
    if (dx)
        BE(n)->copy_block(DEV(n), v.outer, cols, DY(0), cols, 1, dx + n->i[1] * v.inner,
                          v.n * v.inner);
}

const nsm_op nsmi_op_slice = { "nsm_slice", slice_shape,       slice_forward, slice_backward,
                               1,           NSM_READS_NOTHING, false };
nsm_tensor *nsm_slice(nsm_tape *tape, nsm_tensor *x, int axis, int64_t start, int64_t length)
{
    return nsm_apply(tape, &nsmi_op_slice,
                     &(nsm_args){ .in = { x }, .i = { axis, start, length } });
}

/* ---- split: i = {axis, count, sizes of the parts} ---- */
static void split_shape(nsm_node *n)
{
    int64_t dim[NSM_MAX_RANK], sum = 0;
    if (!nsmi_resolve_axis(n, 0, false) || !nsmi_all_floats(n)) return;
    memcpy(dim, n->in[0]->dim, sizeof dim);
    int64_t size = dim[n->i[0]];
    bool ok = true;
    for (int k = 0; ok && k < n->i[1]; k++) {
        ok = n->i[2 + k] >= 0 && n->i[2 + k] <= size - sum;
        sum += ok ? n->i[2 + k] : 0;
    }
    if (!ok || sum != size) {
        nsm_error_set(n->ctx, NSM_EINVAL, "nsm_split: the sizes of the parts do not sum to %lld",
                      (long long)size);
        return;
    }
    for (int k = 0; k < n->i[1]; k++) {
        dim[n->i[0]] = n->i[2 + k];
        nsm_node_out(n, k, NSM_F32, n->in[0]->rank, dim);
    }
}

static void split_forward(nsm_node *n)
{
    nsmi_view all = nsmi_around(n->in[0], n->i[0]);
    const float *from = X(0);
    for (int k = 0; k < n->i[1]; k++) {
        int64_t cols = n->i[2 + k] * all.inner;
        BE(n)->copy_block(DEV(n), all.outer, cols, from, all.n * all.inner, 0, Y(k), cols);
        from += cols;
    }
}

static void split_backward(nsm_node *n)
{
    nsmi_view all = nsmi_around(n->in[0], n->i[0]);
    bool every = true;
    for (int k = 0; k < n->i[1]; k++) every &= DY(k) != NULL;
    float beta = 1, *dx = every ? nsm_node_dx_beta(n, 0, &beta) : nsm_node_dx(n, 0);
    for (int k = 0; dx && k < n->i[1]; k++) {
        int64_t cols = n->i[2 + k] * all.inner;
        if (DY(k))
            BE(n)->copy_block(DEV(n), all.outer, cols, DY(k), cols, beta, dx, all.n * all.inner);
        dx += cols;
    }
}

const nsm_op nsmi_op_split = { "nsm_split", split_shape,       split_forward, split_backward,
                               1,           NSM_READS_NOTHING, false };
int nsm_split(nsm_tape *tape, nsm_tensor *x, int axis, int count, const int64_t *size,
              nsm_tensor **part)
{
    nsm_args args = { .in = { x }, .i = { axis, count } };
    for (int k = 0; k < count; k++) part[k] = NULL;
    if (!tape) return NSM_EINVAL;
    if (count < 1 || count > NSM_OP_OUTPUTS)
        return nsm_error_set(nsm_tape_ctx(tape), NSM_EINVAL, "nsm_split: %d parts, want 1 to %d",
                             count, NSM_OP_OUTPUTS);
    memcpy(args.i + 2, size, (size_t)count * sizeof *size);
    return nsm_apply_many(tape, &nsmi_op_split, &args, part, count);
}

/* ---- gather: in = x, index; i[0] the row without a gradient ---- */
static void gather_shape(nsm_node *n)
{
    const nsm_tensor *x = n->in[0], *index = n->in[1];
    int64_t dim[2 * NSM_MAX_RANK];
    int rank = 0;
    if (x->type != NSM_F32 || index->type != NSM_I32 || x->rank < 1 ||
        index->rank + x->rank - 1 > NSM_MAX_RANK) {
        nsmi_bad_shape(n, "want x float32 [R, ...], index int32, a result of at most 5 axes");
        return;
    }
    for (int k = 0; k < index->rank; k++) dim[rank++] = index->dim[k];
    for (int k = 1; k < x->rank; k++) dim[rank++] = x->dim[k];
    nsm_node_out(n, 0, NSM_F32, rank, dim);
}

static int64_t row_size(const nsm_tensor *x)
{
    nsmi_view v = nsmi_around(x, 0);
    return v.inner;
}

static void gather_forward(nsm_node *n)
{
    int64_t rows = n->in[0]->dim[0];
    if (nsmi_check_index(n, "index", n->in[1], rows, NSMI_NO_OTHER))
        BE(n)->gather(DEV(n), nsm_numel(n->in[1]), row_size(n->in[0]), rows, n->in[1]->i32, X(0),
                      Y(0));
}

/* The rows of a matrix whose entry (index[k], k) stands for row k of dy: so every row of dx is
 * summed by one thread, in the order of k. */
static void gather_backward(nsm_node *n)
{
    int64_t count = nsm_numel(n->in[1]), kept = 0;
    float *dx = DX(0);
    if (BE(n)->gather_add) {
        if (dx)
            BE(n)->gather_add(DEV(n), count, row_size(n->in[0]), n->in[0]->dim[0], n->i[0],
                              n->in[1]->i32, DY(0), dx);
        return;
    }
    int32_t *row = nsmi_host_ints(n, n->in[1]),
            *from = nsmi_malloc(n->ctx, (size_t)count * sizeof *from);
    for (int64_t k = 0; dx && row && from && k < count; k++)
        if (row[k] != n->i[0]) {
            row[kept] = row[k];
            from[kept++] = (int32_t)k;
        }
    nsm_csr *m = dx && row && from
                     ? nsm_csr_new(n->ctx, n->in[0]->dim[0], count, kept, row, from, true)
                     : NULL;
    if (m) {
        nsm_csr_part part = m->fwd;
        part.pos = part.idx; /* a column is a row of dy */
        BE(n)->gather_back(DEV(n), &part, row_size(n->in[0]), DY(0), dx);
    }
    nsm_csr_free(m);
    free(row);
    free(from);
}

const nsm_op nsmi_op_gather = { "nsm_gather",    gather_shape, gather_forward, gather_backward, 2,
                                NSM_READS_IN(1), false };
nsm_tensor *nsm_gather(nsm_tape *tape, nsm_tensor *x, nsm_tensor *index)
{
    return nsm_embedding(tape, x, index, -1);
}

nsm_tensor *nsm_embedding(nsm_tape *tape, nsm_tensor *table, nsm_tensor *ids, int64_t padding)
{
    return nsm_apply(tape, &nsmi_op_gather, &(nsm_args){ .in = { table, ids }, .i = { padding } });
}
