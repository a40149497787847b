/* base/ops/typed.c - A linear map for each type of entry.
 *
 * Piece by piece (base/sparse.h): the rows of a group are added up, the sums of a piece go through
 * its type's matrix in one product, and what comes out is added to the groups' rows, of which none
 * is there twice.  What is in memory at a time is a piece's, whatever the number of entries and
 * types; backward adds the rows up again instead of keeping them.
 *
 * Letters: T types, R rows, C columns, F features in, O out, K blocks on W's diagonal. */
#include "config.h"
#include "base/ops/common.h"

#define TYPED(n) ((const nsm_typed *)(n)->p[0])
#define AGGR(n) ((nsm_typed_aggr)(n)->i[0])

/* W: [T, F, O], or [T, K, F/K, O/K]. */
typedef struct {
    int64_t in, out, blocks;
} sizes;

static sizes sizes_of(const nsm_tensor *w)
{
    int64_t k = w->rank == 4 ? w->dim[1] : 1;
    return (sizes){ k * w->dim[w->rank - 2], k * w->dim[w->rank - 1], k };
}

static void typed_shape(nsm_node *n)
{
    const nsm_typed *t = TYPED(n);
    const nsm_tensor *x = n->in[0], *w = n->in[1];
    if (!t || t->ctx != n->ctx || (n->recorded && t->fwd.nnz && !t->bwd.piece)) {
        nsm_error_set(n->ctx, NSM_EINVAL,
                      "nsm_typed_linear: the typed matrix is NULL, of another context, or without "
                      "the transpose that a gradient needs");
        return;
    }
    int64_t rows = AGGR(n) == NSM_TYPED_GIVEN ? t->fwd.groups : t->fwd.cols;
    if (!nsmi_all_floats(n)) return;
    if (x->rank != 2 || x->csr || x->dim[0] != rows || (w->rank != 3 && w->rank != 4) ||
        w->dim[0] != t->types || sizes_of(w).in != x->dim[1])
        nsmi_bad_shape(n, "want dense x [columns, F] and w [types, F, O] or [types, K, F/K, O/K]");
    else OUT(n, 0, t->fwd.rows, sizes_of(w).out);
}

/* Room for a piece's groups, `width` numbers each. */
static float *piece_room(nsm_node *n, const nsm_typed_side *s, int64_t width)
{
    int64_t most = 0;
    for (int64_t i = 0; i < s->pieces; i++)
        if (s->piece[i].part.rows > most) most = s->piece[i].part.rows;
    return nsmi_floats(n, most * width);
}

/* The sums of a piece's groups, in `room`; x's own rows where they are given. */
static const float *group_sums(nsm_node *n, const nsm_typed_side *s, const nsm_typed_piece *p,
                               int64_t width, const float *x, float *room)
{
    if (AGGR(n) == NSM_TYPED_GIVEN && s == &TYPED(n)->fwd) return x + p->first * width;
    bool mean = AGGR(n) == NSM_TYPED_MEAN;
    const float *share = mean && s == &TYPED(n)->bwd ? s->share + p->entry : NULL;
    BE(n)->spmm(DEV(n), &p->part, width, share, mean && !share, x, 0.0f, room);
    return room;
}

/* y [rows, out] = beta y + a [rows, in] W_type, or its transpose, block by block. */
static void multiply(nsm_node *n, sizes z, bool transposed, int64_t rows, const float *a,
                     const float *w, float beta, float *y)
{
    int64_t in = z.in / z.blocks, out = z.out / z.blocks, from = transposed ? out : in,
            to = transposed ? in : out;
    for (int64_t k = 0; k < z.blocks; k++)
        BE(n)->gemm(DEV(n), false, transposed, rows, to, from, 1.0f, a + k * from, from * z.blocks,
                    w + k * in * out, out, beta, y + k * to, to * z.blocks);
}

/* y[row] += (sum over its entries of x) W_t, or W_t transposed, for every group of a side. */
static void add_mapped(nsm_node *n, const nsm_typed_side *s, bool transposed, const float *x,
                       float *y)
{
    sizes z = sizes_of(n->in[1]);
    int64_t from = transposed ? z.out : z.in, to = transposed ? z.in : z.out,
            size = z.in * z.out / z.blocks;
    float *sums = piece_room(n, s, from), *mapped = piece_room(n, s, to);
    if (!sums || !mapped) return;
    for (int64_t i = 0; i < s->pieces; i++) {
        const nsm_typed_piece *p = &s->piece[i];
        const float *a = group_sums(n, s, p, from, x, sums);
        multiply(n, z, transposed, p->part.rows, a, X(1) + p->type * size, 0.0f, mapped);
        BE(n)->scatter_rows(DEV(n), p->part.rows, to, s->row + p->first, mapped, y);
    }
}

static void typed_forward(nsm_node *n)
{
    BE(n)->fill(DEV(n), nsm_numel(n->out[0]), 0.0f, Y(0));
    add_mapped(n, &TYPED(n)->fwd, false, X(0), Y(0));
}

/* dW_t += sums' dy of every piece; and, where the sums were given, their gradients dy W_t'. */
static void walk_groups(nsm_node *n, float *dw, float *dgiven, float beta)
{
    const nsm_typed_side *s = &TYPED(n)->fwd;
    sizes z = sizes_of(n->in[1]);
    int64_t in = z.in / z.blocks, out = z.out / z.blocks, size = z.blocks * in * out;
    float *sums = piece_room(n, s, z.in), *dy = piece_room(n, s, z.out);
    if (!sums || !dy) return;
    for (int64_t i = 0; i < s->pieces; i++) {
        const nsm_typed_piece *p = &s->piece[i];
        int64_t rows = p->part.rows;
        BE(n)->gather(DEV(n), rows, z.out, s->rows, s->row + p->first, DY(0), dy);
        const float *a = dw ? group_sums(n, s, p, z.in, X(0), sums) : NULL;
        for (int64_t k = 0; dw && k < z.blocks; k++)
            BE(n)->gemm(DEV(n), true, false, in, out, rows, 1.0f, a + k * in, z.in, dy + k * out,
                        z.out, 1.0f, dw + p->type * size + k * in * out, out);
        if (dgiven)
            multiply(n, z, true, rows, dy, X(1) + p->type * size, beta, dgiven + p->first * z.in);
    }
}

static void typed_backward(nsm_node *n)
{
    float beta = 0, *given = NULL, *dw = DX(1);
    if (AGGR(n) == NSM_TYPED_GIVEN) given = nsm_node_dx_beta(n, 0, &beta);
    if (dw || given) walk_groups(n, dw, given, beta);
    float *dx = AGGR(n) == NSM_TYPED_GIVEN ? NULL : DX(0);
    if (dx) add_mapped(n, &TYPED(n)->bwd, true, DY(0), dx);
}

const nsm_op nsmi_op_typed_linear = { "nsm_typed_linear",
                                      typed_shape,
                                      typed_forward,
                                      typed_backward,
                                      2,
                                      NSM_READS_IN(0) | NSM_READS_IN(1),
                                      false };

nsm_tensor *nsm_typed_linear(nsm_tape *tape, const nsm_typed *typed, nsm_typed_aggr aggr,
                             nsm_tensor *x, nsm_tensor *w)
{
    return nsm_apply(tape, &nsmi_op_typed_linear,
                     &(nsm_args){ .in = { x, w }, .i = { aggr }, .p = { typed } });
}
