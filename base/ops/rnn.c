/* base/ops/rnn.c - LSTM and GRU: one direction of one layer over whole sequences. */
#include "config.h"
#include "base/ops/common.h"

/* in = gx, w, bias, h0, c0, length; i = {gru, reverse}; out = y, hn, cn; saved = gates, c */
enum { GX, WEIGHT, BIAS, H0, C0, LENGTH };

static bool is_rows(const nsm_tensor *t, int64_t b, int64_t h)
{
    return !t || (t->type == NSM_F32 && t->rank == 2 && t->dim[0] == b && t->dim[1] == h);
}

static nsmi_rnn rnn_of(const nsm_node *n)
{
    const nsm_tensor *gx = n->in[GX];
    return (
        nsmi_rnn){ n->i[0] != 0, n->i[1] != 0,          gx->dim[0],
                   gx->dim[1],   n->in[WEIGHT]->dim[1], n->in[LENGTH] ? n->in[LENGTH]->i32 : NULL };
}

static void rnn_shape(nsm_node *n)
{
    const nsm_tensor *gx = n->in[GX], *w = n->in[WEIGHT], *length = n->in[LENGTH];
    int64_t g = n->i[0] ? 3 : 4, b = gx->dim[0], h = w->rank == 2 ? w->dim[1] : 0;
    bool ok = gx->type == NSM_F32 && w->type == NSM_F32 && gx->rank == 3 && h > 0 && b > 0 &&
              w->dim[0] == g * h && gx->dim[2] == g * h &&
              (!n->in[BIAS] || (n->i[0] && nsmi_is_vector(n->in[BIAS], h))) &&
              is_rows(n->in[H0], b, h) && is_rows(n->in[C0], b, h) && !(n->i[0] && n->in[C0]) &&
              (!length || (length->type == NSM_I32 && length->rank == 1 && length->dim[0] == b));
    if (!ok) {
        nsmi_bad_shape(n, "want gx [B,n,G*H], w [G*H,H] with 4 gates (GRU: 3), a GRU's bias [H], "
                          "h0 and an LSTM's c0 [B,H], length int32 [B]");
        return;
    }
    OUT(n, 0, b, gx->dim[1], h);
    OUT(n, 1, b, h);
    if (!n->i[0]) OUT(n, 2, b, h);
    if (!n->recorded) return;
    SAVE(n, 0, b, gx->dim[1], 4, h);
    if (!n->i[0]) SAVE(n, 1, b, gx->dim[1], h);
}

static const float *data_of(const nsm_node *n, int i) { return n->in[i] ? n->in[i]->f32 : NULL; }

static void rnn_forward(nsm_node *n)
{
    nsmi_rnn a = rnn_of(n);
    if (n->in[LENGTH]) nsmi_check_index(n, "length of row", n->in[LENGTH], a.n + 1, NSMI_NO_OTHER);
    float *scratch = nsmi_floats(n, nsmi_rnn_scratch(&a));
    if (!scratch || nsmi_failed(n->ctx)) return;
    BE(n)->rnn(DEV(n), &a, X(GX), X(WEIGHT), data_of(n, BIAS), data_of(n, H0), data_of(n, C0),
               scratch, Y(0), n->saved[0] ? n->saved[0]->f32 : NULL,
               n->saved[1] ? n->saved[1]->f32 : NULL, Y(1), a.gru ? NULL : Y(2));
}

/* What the kernel leaves in scratch becomes (or is added to) the gradient of input i. */
static void pass_on(nsm_node *n, int i, const float *from)
{
    float beta, *to = nsm_node_dx_beta(n, i, &beta);
    if (to) BE(n)->axpby(DEV(n), nsm_numel(n->in[i]), 1, from, beta, to);
}

static void rnn_backward(nsm_node *n)
{
    nsmi_rnn a = rnn_of(n);
    int64_t rows = a.batch * a.n, h = a.hidden, gh = (a.gru ? 3 : 4) * h;
    float beta, *dx, *scratch = nsmi_floats(n, nsmi_rnn_scratch(&a)),
                     *dg = nsmi_floats(n, rows * gh), *dgh = a.gru ? nsmi_floats(n, rows * gh) : dg,
                     *before = nsmi_floats(n, rows * h), *dh0 = nsmi_floats(n, a.batch * h),
                     *dc0 = nsmi_floats(n, a.batch * h), *dy = DY(0);
    if (!dy && (dy = nsmi_floats(n, rows * h)))
        BE(n)->zero(DEV(n), (size_t)(rows * h) * sizeof *dy, dy);
    if (!scratch || !dg || !dgh || !before || !dh0 || !dc0 || !dy) return;
    BE(n)->rnn_back(DEV(n), &a, X(WEIGHT), data_of(n, H0), data_of(n, C0), Y(0), n->saved[0]->f32,
                    a.gru ? NULL : n->saved[1]->f32, dy, DY(1), a.gru ? NULL : DY(2), scratch, dg,
                    dgh, before, dh0, dc0);
    pass_on(n, GX, dg);
    pass_on(n, H0, dh0);
    if (!a.gru) pass_on(n, C0, dc0);
    if ((dx = nsm_node_dx_beta(n, WEIGHT, &beta)))
        BE(n)->gemm(DEV(n), true, false, gh, h, rows, 1, dgh, gh, before, h, beta, dx, h);
    if (!a.gru || !(dx = nsm_node_dx_beta(n, BIAS, &beta))) return;
    float *all = nsmi_floats(n, gh);
    if (!all) return;
    BE(n)->column_sum(DEV(n), rows, gh, dgh, 0, all);
    BE(n)->axpby(DEV(n), h, 1, all + 2 * h, beta, dx);
}

const nsm_op nsmi_op_rnn = { "nsm_rnn", rnn_shape, rnn_forward, rnn_backward, 2, 0, false };

nsm_tensor *nsm_lstm(nsm_tape *tape, nsm_tensor *gx, nsm_tensor *w, nsm_tensor *h0, nsm_tensor *c0,
                     nsm_tensor *length, bool reverse, nsm_tensor **hn, nsm_tensor **cn)
{
    nsm_tensor *out[3];
    nsm_apply_many(tape, &nsmi_op_rnn,
                   &(nsm_args){ .in = { gx, w, NULL, h0, c0, length }, .i = { false, reverse } },
                   out, 3);
    if (hn) *hn = out[1];
    if (cn) *cn = out[2];
    return out[0];
}

nsm_tensor *nsm_gru(nsm_tape *tape, nsm_tensor *gx, nsm_tensor *w, nsm_tensor *bias, nsm_tensor *h0,
                    nsm_tensor *length, bool reverse, nsm_tensor **hn)
{
    nsm_tensor *out[2];
    nsm_apply_many(tape, &nsmi_op_rnn,
                   &(nsm_args){ .in = { gx, w, bias, h0, NULL, length }, .i = { true, reverse } },
                   out, 2);
    if (hn) *hn = out[1];
    return out[0];
}
