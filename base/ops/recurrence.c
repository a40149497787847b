/* base/ops/recurrence.c - Ops over sequences [B, n, ...] that carry a state: the short causal convolution.
 *
 * Each takes the state to begin from and gives the one to go on with, so that a sequence may be cut
 * anywhere.  Letters: B batch, n tokens, C channels, c taps. */
#include "config.h"
#include "base/ops/common.h"

static const float *values(const nsm_tensor *t) { return t ? t->f32 : NULL; }

static bool is_length(const nsm_tensor *t, int64_t batch) { return !t || (t->type == NSM_I32 && t->rank == 1 && t->dim[0] == batch); }

static bool are_floats(const nsm_node *n, int first, int last)
{
    for (int i = first; i <= last; i++)
        if (n->in[i] && n->in[i]->type != NSM_F32) return false;
    return true;
}

/* ---- conv1d: in = x, w, bias, tail, length; i[0] silu; out = y, the next tail ---- */
enum { CX, CW, CBIAS, CTAIL, CLENGTH };

static int64_t taps_of(const nsm_node *n) { return n->in[CW]->dim[n->in[CW]->rank - 1]; }

static void conv1d_shape(nsm_node *n)
{
    const nsm_tensor *x = n->in[CX], *w = n->in[CW], *tail = n->in[CTAIL];
    bool ok = are_floats(n, CX, CTAIL) && x->rank == 3 && (w->rank == 2 || (w->rank == 3 && w->dim[1] == 1)) && w->dim[0] == x->dim[2] &&
              taps_of(n) >= 1 && taps_of(n) <= NSMI_CONV_TAPS && nsmi_is_vector(n->in[CBIAS], x->dim[2]) && is_length(n->in[CLENGTH], x->dim[0]);
    if (ok && tail) ok = tail->rank == 3 && tail->dim[0] == x->dim[0] && tail->dim[1] == taps_of(n) - 1 && tail->dim[2] == x->dim[2];
    if (!ok) {
        nsmi_bad_shape(n, "want x [B,n,C], w [C,c] or [C,1,c] of at most 32 taps, bias [C], tail [B,c-1,C], length int32 [B]");
        return;
    }
    nsm_node_out(n, 0, NSM_F32, 3, x->dim);
    OUT(n, 1, x->dim[0], taps_of(n) - 1, x->dim[2]);
}

static void conv1d_forward(nsm_node *n)
{
    const int64_t *dim = n->in[CX]->dim;
    const nsm_tensor *length = n->in[CLENGTH];
    BE(n)->conv1d(DEV(n), n->i[0] != 0, dim[0], dim[1], dim[2], taps_of(n), X(CX), X(CW), values(n->in[CBIAS]), values(n->in[CTAIL]), Y(0));
    BE(n)->conv1d_tail(DEV(n), dim[0], dim[1], dim[2], taps_of(n), X(CX), values(n->in[CTAIL]), length ? length->i32 : NULL, Y(1));
}

static void conv1d_backward(nsm_node *n)
{
    const int64_t *dim = n->in[CX]->dim;
    float *dx = DX(CX), *dw = DX(CW), *dbias = DX(CBIAS), *dtail = DX(CTAIL);
    if (nsmi_failed(n->ctx) || !DY(0)) return;
    BE(n)->conv1d_back(DEV(n), n->i[0] != 0, dim[0], dim[1], dim[2], taps_of(n), X(CX), X(CW), values(n->in[CBIAS]), values(n->in[CTAIL]),
                       DY(0), dx, dw, dbias, dtail);
}

const nsm_op nsmi_op_conv1d = { "nsm_conv1d", conv1d_shape, conv1d_forward, conv1d_backward, 2,
                                NSM_READS_IN(CX) | NSM_READS_IN(CW) | NSM_READS_IN(CBIAS) | NSM_READS_IN(CTAIL), false };
nsm_tensor *nsm_conv1d(nsm_tape *tape, nsm_tensor *x, nsm_tensor *w, nsm_tensor *bias, bool silu, nsm_tensor *tail, nsm_tensor *length,
                       nsm_tensor **next_tail)
{
    nsm_tensor *out[2] = { NULL, NULL };
    nsm_apply_many(tape, &nsmi_op_conv1d, &(nsm_args){ .in = { x, w, bias, tail, length }, .i = { silu } }, out, 2);
    if (next_tail) *next_tail = out[1];
    return out[0];
}
