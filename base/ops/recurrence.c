/* base/ops/recurrence.c - Ops over sequences [B, n, ...] that carry a state: the short causal
 * convolution.
 *
 * Each takes the state to begin from and gives the one to go on with, so that a sequence may be cut
 * anywhere.  Letters: B batch, n tokens, C channels, c taps. */
#include "config.h"
#include "base/ops/common.h"

static const float *values(const nsm_tensor *t) { return t ? t->f32 : NULL; }

static bool is_length(const nsm_tensor *t, int64_t batch)
{
    return !t || (t->type == NSM_I32 && t->rank == 1 && t->dim[0] == batch);
}

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
    bool ok = are_floats(n, CX, CTAIL) && x->rank == 3 &&
              (w->rank == 2 || (w->rank == 3 && w->dim[1] == 1)) && w->dim[0] == x->dim[2] &&
              taps_of(n) >= 1 && taps_of(n) <= NSMI_CONV_TAPS &&
              nsmi_is_vector(n->in[CBIAS], x->dim[2]) && is_length(n->in[CLENGTH], x->dim[0]);
    if (ok && tail)
        ok = tail->rank == 3 && tail->dim[0] == x->dim[0] && tail->dim[1] == taps_of(n) - 1 &&
             tail->dim[2] == x->dim[2];
    if (!ok) {
        nsmi_bad_shape(n, "want x [B,n,C], w [C,c] or [C,1,c] of at most 32 taps, bias [C], tail "
                          "[B,c-1,C], length int32 [B]");
        return;
    }
    nsm_node_out(n, 0, NSM_F32, 3, x->dim);
    OUT(n, 1, x->dim[0], taps_of(n) - 1, x->dim[2]);
}

static void conv1d_forward(nsm_node *n)
{
    const int64_t *dim = n->in[CX]->dim;
    const nsm_tensor *length = n->in[CLENGTH];
    BE(n)->conv1d(DEV(n), n->i[0] != 0, dim[0], dim[1], dim[2], taps_of(n), X(CX), X(CW),
                  values(n->in[CBIAS]), values(n->in[CTAIL]), Y(0));
    BE(n)->conv1d_tail(DEV(n), dim[0], dim[1], dim[2], taps_of(n), X(CX), values(n->in[CTAIL]),
                       length ? length->i32 : NULL, Y(1));
}

static void conv1d_backward(nsm_node *n)
{
    const int64_t *dim = n->in[CX]->dim;
    float *dx = DX(CX), *dw = DX(CW), *dbias = DX(CBIAS), *dtail = DX(CTAIL);
    if (nsmi_failed(n->ctx) || !DY(0)) return;
    BE(n)->conv1d_back(DEV(n), n->i[0] != 0, dim[0], dim[1], dim[2], taps_of(n), X(CX), X(CW),
                       values(n->in[CBIAS]), values(n->in[CTAIL]), DY(0), dx, dw, dbias, dtail);
}

const nsm_op nsmi_op_conv1d = { "nsm_conv1d",
                                conv1d_shape,
                                conv1d_forward,
                                conv1d_backward,
                                2,
                                NSM_READS_IN(CX) | NSM_READS_IN(CW) | NSM_READS_IN(CBIAS) |
                                    NSM_READS_IN(CTAIL),
                                false };
nsm_tensor *nsm_conv1d(nsm_tape *tape, nsm_tensor *x, nsm_tensor *w, nsm_tensor *bias, bool silu,
                       nsm_tensor *tail, nsm_tensor *length, nsm_tensor **next_tail)
{
    nsm_tensor *out[2] = { NULL, NULL };
    nsm_apply_many(tape, &nsmi_op_conv1d,
                   &(nsm_args){ .in = { x, w, bias, tail, length }, .i = { silu } }, out, 2);
    if (next_tail) *next_tail = out[1];
    return out[0];
}

/* ---- linear recurrences: in = q, k, v, g, beta, a, b, bonus, state, length; i = {before,
 * decay_values}; f[0] scale;
 * out = o, the last state; saved: the states before each chunk.  Letters: H heads, D, E sizes of
 * keys and values ---- */
enum { RQ, RK, RV, RG, RBETA, RA, RB, RBONUS, RSTATE, RLENGTH };

static bool is_shape(const nsm_tensor *t, int rank, const int64_t *dim)
{
    bool ok = !t || t->rank == rank;
    for (int k = 0; ok && t && k < rank; k++) ok = t->dim[k] == dim[k];
    return ok;
}
#define IS(t, ...) \
    is_shape(t, (int)(sizeof((int64_t[]){ __VA_ARGS__ }) / sizeof(int64_t)), \
             (const int64_t[]){ __VA_ARGS__ })

/* Heads of g and how it decays; false: its shape does not fit. */
static bool decay_plan(const nsm_tensor *g, bool by_value, nsmi_recurrence *r)
{
    if (!g) return !by_value;
    bool vector = g->rank % 2 == 0;
    r->g_constant = g->rank <= 2;
    r->fade = !vector ? NSMI_FADE_SCALAR : by_value ? NSMI_FADE_VALUES : NSMI_FADE_KEYS;
    r->g_heads = g->rank < 1 ? 0 : g->dim[g->rank <= 2 ? 0 : 2];
    if (g->rank < 1 || g->rank > 4 || (by_value && !vector) ||
        (vector && g->dim[g->rank - 1] != (by_value ? r->dv : r->dk)))
        return false;
    return r->g_constant || (g->dim[0] == r->batch && g->dim[1] == r->n);
}

static bool recurrence_plan(const nsm_node *n, nsmi_recurrence *r)
{
    const nsm_tensor *q = n->in[RQ], *k = n->in[RK], *v = n->in[RV];
    if (q->rank != 4 || k->rank != 4 || v->rank != 4) return false;
    *r = (nsmi_recurrence){ q->dim[0], q->dim[1],
                            0,         q->dim[3],
                            v->dim[3], q->dim[2],
                            k->dim[2], v->dim[2],
                            1,         NSMI_FADE_NONE,
                            false,     n->i[0] != 0,
                            n->f[0],   n->in[RLENGTH] ? n->in[RLENGTH]->i32 : NULL };
    if (!IS(k, r->batch, r->n, r->k_heads, r->dk) || !IS(v, r->batch, r->n, r->v_heads, r->dv) ||
        !decay_plan(n->in[RG], n->i[1], r))
        return false;
    const int64_t heads[] = { r->q_heads, r->k_heads, r->v_heads, r->g_heads };
    for (int i = 0; i < 4; i++)
        if (heads[i] > r->heads) r->heads = heads[i];
    bool ok = r->batch > 0 && r->n > 0 && r->heads > 0 && r->dk > 0 &&
              r->dk <= NSMI_RECURRENCE_MOST && r->dv > 0 && r->dv <= NSMI_RECURRENCE_MOST;
    for (int i = 0; ok && i < 4; i++) ok = heads[i] > 0 && r->heads % heads[i] == 0;
    return ok && IS(n->in[RBETA], r->batch, r->n, r->heads) &&
           IS(n->in[RA], r->batch, r->n, r->heads, r->dk) &&
           IS(n->in[RB], r->batch, r->n, r->heads, r->dk) && IS(n->in[RBONUS], r->heads, r->dk) &&
           IS(n->in[RSTATE], r->batch, r->heads, r->dk, r->dv) &&
           is_length(n->in[RLENGTH], r->batch);
}

static bool recurrence_goes_together(const nsm_node *n, const nsmi_recurrence *r)
{
    bool erases = n->in[RBETA] || n->in[RA];
    if (!n->in[RA] != !n->in[RB] || (n->in[RBETA] && n->in[RA]) || (n->in[RBONUS] && !r->before))
        return false;
    return !(erases && r->before) && !(r->fade == NSMI_FADE_VALUES && (erases || r->before));
}

static void recurrence_shape(nsm_node *n)
{
    nsmi_recurrence r;
    if (!are_floats(n, RQ, RSTATE) || !recurrence_plan(n, &r)) {
        nsmi_bad_shape(n, "want q, k [B,n,X,D], v [B,n,X,E], g [B,n,X], [B,n,X,D], [X] or [X,D], "
                          "beta [B,n,H], a, b [B,n,H,D], bonus [H,D], "
                          "state [B,H,D,E], length int32 [B]; D, E at most 512, each X a divisor "
                          "of the largest, H");
        return;
    }
    if (!recurrence_goes_together(n, &r)) {
        nsm_error_set(
            n->ctx, NSM_EINVAL,
            "%s: a goes with b and without beta, bonus with before, before without a and beta, "
            "and a decay of values with none of them",
            n->op->name);
        return;
    }
    OUT(n, 0, r.batch, r.n, r.heads, r.dv);
    OUT(n, 1, r.batch, r.heads, r.dk, r.dv);
}

static nsmi_recurrence_values recurrence_values(const nsm_node *n)
{
    return (nsmi_recurrence_values){ X(RQ),
                                     X(RK),
                                     X(RV),
                                     values(n->in[RG]),
                                     values(n->in[RBETA]),
                                     values(n->in[RA]),
                                     values(n->in[RB]),
                                     values(n->in[RBONUS]),
                                     values(n->in[RSTATE]) };
}

static void recurrence_forward(nsm_node *n)
{
    nsmi_recurrence r;
    recurrence_plan(n, &r);
    nsm_tensor *states = NULL;
    if (n->recorded)
        states = SAVE(n, 0, r.batch, r.heads, (r.n + NSMI_CHUNK - 1) / NSMI_CHUNK + 1, r.dk, r.dv);
    if (nsmi_failed(n->ctx)) return;
    nsmi_recurrence_values in = recurrence_values(n);
    BE(n)->recurrence(DEV(n), &r, &in, Y(0), Y(1), states ? states->f32 : NULL);
}

/* A gradient that the kernel leaves for every token and each of H heads, or that of the input
 * itself. */
typedef struct { int input; float *wide; int64_t heads, size; bool constant; } shared_gradient;

static float *wide_gradient(nsm_node *n, const nsmi_recurrence *r, shared_gradient *s)
{
    s->wide = NULL;
    if (!nsmi_needs(n, s->input)) return NULL;
    if (s->heads == r->heads && !s->constant) return DX(s->input);
    int64_t count = r->batch * r->n * r->heads * s->size;
    s->wide = nsmi_floats(n, count);
    if (s->wide) BE(n)->zero(DEV(n), (size_t)count * sizeof(float), s->wide);
    return s->wide;
}

static void narrow_gradient(nsm_node *n, const nsmi_recurrence *r, const shared_gradient *s)
{
    float beta, *dx = s->wide ? nsm_node_dx_beta(n, s->input, &beta) : NULL;
    const int64_t dim[5] = { 1, r->batch * r->n, s->heads, r->heads / s->heads, s->size };
    if (dx)
        BE(n)->sum_to(DEV(n), dim, s->wide,
                      (nsmi_strides){ { 0, s->constant ? 0 : s->heads * s->size, s->size, 0, 1 } },
                      beta, dx);
}

static void recurrence_backward(nsm_node *n)
{
    nsmi_recurrence r;
    recurrence_plan(n, &r);
    nsmi_recurrence_values in = recurrence_values(n);
    int64_t g_size = r.fade == NSMI_FADE_KEYS     ? r.dk
                     : r.fade == NSMI_FADE_VALUES ? r.dv
                                                  : 1,
            outs = nsm_numel(n->out[0]);
    shared_gradient q = { RQ, NULL, r.q_heads, r.dk, false },
                    k = { RK, NULL, r.k_heads, r.dk, false },
                    v = { RV, NULL, r.v_heads, r.dv, false },
                    g = { RG, NULL, r.g_heads, g_size, r.g_constant };
    nsmi_recurrence_grads to = { wide_gradient(n, &r, &q),
                                 wide_gradient(n, &r, &k),
                                 wide_gradient(n, &r, &v),
                                 wide_gradient(n, &r, &g),
                                 DX(RBETA),
                                 DX(RA),
                                 DX(RB),
                                 NULL,
                                 DX(RSTATE) };
    float *dout = DY(0), beta;
    if (nsmi_needs(n, RBONUS)) to.bonus = nsmi_floats(n, r.batch * r.heads * r.dk);
    if (!dout) dout = nsmi_floats(n, outs);
    if (nsmi_failed(n->ctx)) return;
    if (to.bonus) BE(n)->zero(DEV(n), (size_t)(r.batch * r.heads * r.dk) * sizeof(float), to.bonus);
    if (!DY(0)) BE(n)->zero(DEV(n), (size_t)outs * sizeof(float), dout);
    BE(n)->recurrence_back(DEV(n), &r, &in, n->saved[0]->f32, dout, DY(1), &to);
    narrow_gradient(n, &r, &q);
    narrow_gradient(n, &r, &k);
    narrow_gradient(n, &r, &v);
    narrow_gradient(n, &r, &g);
    float *db = to.bonus ? nsm_node_dx_beta(n, RBONUS, &beta) : NULL;
    if (db)
        BE(n)->sum_to(DEV(n), (const int64_t[5]){ 1, 1, 1, r.batch, r.heads * r.dk }, to.bonus,
                      (nsmi_strides){ { 0, 0, 0, 0, 1 } }, beta, db);
}

const nsm_op nsmi_op_linear_recurrence = { "nsm_linear_recurrence",
                                           recurrence_shape,
                                           recurrence_forward,
                                           recurrence_backward,
                                           3,
                                           NSM_READS_IN(RQ) | NSM_READS_IN(RK) | NSM_READS_IN(RV) |
                                               NSM_READS_IN(RG) | NSM_READS_IN(RBETA) |
                                               NSM_READS_IN(RA) | NSM_READS_IN(RB) |
                                               NSM_READS_IN(RBONUS) | NSM_READS_IN(RLENGTH),
                                           false };
nsm_tensor *nsm_linear_recurrence(nsm_tape *tape, nsm_tensor *q, nsm_tensor *k, nsm_tensor *v,
                                  const nsm_recurrence_config *config, nsm_tensor **state)
{
    static const nsm_recurrence_config none = { 0 };
    const nsm_recurrence_config *c = config ? config : &none;
    nsm_tensor *out[2] = { NULL, NULL };
    float scale = c->scale != 0 || !q || q->rank < 1 ? c->scale
                                                     : 1 / sqrtf((float)q->dim[q->rank - 1]);
    nsm_apply_many(tape, &nsmi_op_linear_recurrence,
                   &(nsm_args){
                       .in = { q, k, v, c->g, c->beta, c->a, c->b, c->bonus, c->state, c->length },
                       .i = { c->before, c->decay_values },
                       .f = { scale } },
                   out, 2);
    if (state) *state = out[1];
    return out[0];
}

/* The sum over the first axis of wide [B, size], to the gradient of input i. */
static void sum_rows(nsm_node *n, int i, int64_t batch, int64_t size, const float *wide)
{
    float beta, *dx = wide ? nsm_node_dx_beta(n, i, &beta) : NULL;
    if (dx)
        BE(n)->sum_to(DEV(n), (const int64_t[5]){ 1, 1, 1, batch, size }, wide,
                      (nsmi_strides){ { 0, 0, 0, 0, 1 } }, beta, dx);
}

static float *rows_of(nsm_node *n, int i, int64_t batch)
{
    return nsmi_needs(n, i) ? nsmi_floats(n, batch * nsm_numel(n->in[i])) : NULL;
}

static int64_t chunks_of(int64_t n) { return (n + NSMI_CHUNK - 1) / NSMI_CHUNK; }

/* ---- the selective scan: in = u, dt, a, b, c, skip, dt_bias, z, state, length; i[0] softplus; out
 * = y, the last state ---- */
enum { SU, SDT, SA, SB, SC, SSKIP, SBIAS, SZ, SSTATE, SLENGTH };

static bool scan_plan(const nsm_node *n, nsmi_scan *s)
{
    const nsm_tensor *u = n->in[SU], *a = n->in[SA], *b = n->in[SB];
    if (u->rank != 3 || a->rank != 2 || (b->rank != 4 && b->rank != 2)) return false;
    *s = (nsmi_scan){ u->dim[0],
                      u->dim[1],
                      u->dim[2],
                      a->dim[1],
                      b->rank == 4 ? b->dim[2] : 1,
                      n->i[0] != 0,
                      b->rank == 2,
                      n->in[SLENGTH] ? n->in[SLENGTH]->i32 : NULL };
    if (s->batch < 1 || s->n < 1 || s->channels < 1 || s->states < 1 ||
        s->states > NSMI_SCAN_MOST || s->groups < 1 || s->channels % s->groups ||
        !IS(n->in[SDT], s->batch, s->n, s->channels) || !IS(a, s->channels, s->states) ||
        !IS(n->in[SZ], s->batch, s->n, s->channels))
        return false;
    bool shared = s->fixed ? IS(b, s->channels, s->states) && IS(n->in[SC], s->channels, s->states)
                           : IS(b, s->batch, s->n, s->groups, s->states) &&
                                 IS(n->in[SC], s->batch, s->n, s->groups, s->states);
    return shared && IS(n->in[SSKIP], s->channels) && IS(n->in[SBIAS], s->channels) &&
           IS(n->in[SSTATE], s->batch, s->channels, s->states) &&
           is_length(n->in[SLENGTH], s->batch);
}

static void selective_scan_shape(nsm_node *n)
{
    nsmi_scan s;
    if (!are_floats(n, SU, SSTATE) || !scan_plan(n, &s)) {
        nsmi_bad_shape(n, "want u, dt, z [B,n,D], a [D,N], b and c [B,n,G,N] or both [D,N], skip, "
                          "dt_bias [D], state [B,D,N], length int32 [B]; "
                          "N at most 256, G a divisor of D");
        return;
    }
    OUT(n, 0, s.batch, s.n, s.channels);
    OUT(n, 1, s.batch, s.channels, s.states);
}

static nsmi_scan_values scan_values(const nsm_node *n)
{
    return (nsmi_scan_values){ X(SU),
                               X(SDT),
                               X(SA),
                               X(SB),
                               X(SC),
                               values(n->in[SSKIP]),
                               values(n->in[SBIAS]),
                               values(n->in[SZ]),
                               values(n->in[SSTATE]) };
}

static void selective_scan_forward(nsm_node *n)
{
    nsmi_scan s;
    scan_plan(n, &s);
    nsm_tensor *states = n->recorded ? SAVE(n, 0, s.batch, chunks_of(s.n), s.states, s.channels)
                                     : NULL;
    if (nsmi_failed(n->ctx)) return;
    nsmi_scan_values in = scan_values(n);
    BE(n)->scan(DEV(n), &s, &in, Y(0), Y(1), states ? states->f32 : NULL);
}

static void selective_scan_backward(nsm_node *n)
{
    nsmi_scan s;
    scan_plan(n, &s);
    nsmi_scan_values in = scan_values(n);
    nsmi_scan_grads to = { DX(SU),
                           DX(SDT),
                           rows_of(n, SA, s.batch),
                           s.fixed ? rows_of(n, SB, s.batch) : DX(SB),
                           s.fixed ? rows_of(n, SC, s.batch) : DX(SC),
                           rows_of(n, SSKIP, s.batch),
                           rows_of(n, SBIAS, s.batch),
                           DX(SZ),
                           DX(SSTATE) };
    float *scratch = nsmi_floats(n, nsmi_scan_scratch(&s)), *dout = DY(0);
    if (!dout) dout = nsmi_floats(n, nsm_numel(n->out[0]));
    if (nsmi_failed(n->ctx)) return;
    if (!DY(0)) BE(n)->zero(DEV(n), (size_t)nsm_numel(n->out[0]) * sizeof(float), dout);
    BE(n)->scan_back(DEV(n), &s, &in, n->saved[0]->f32, dout, DY(1), scratch, &to);
    int64_t size = s.channels * s.states;
    sum_rows(n, SA, s.batch, size, to.a);
    if (s.fixed) sum_rows(n, SB, s.batch, size, to.b);
    if (s.fixed) sum_rows(n, SC, s.batch, size, to.c);
    sum_rows(n, SSKIP, s.batch, s.channels, to.skip);
    sum_rows(n, SBIAS, s.batch, s.channels, to.bias);
}

const nsm_op nsmi_op_selective_scan = { "nsm_selective_scan",
                                        selective_scan_shape,
                                        selective_scan_forward,
                                        selective_scan_backward,
                                        5,
                                        NSM_READS_IN(SU) | NSM_READS_IN(SDT) | NSM_READS_IN(SA) |
                                            NSM_READS_IN(SB) | NSM_READS_IN(SC) |
                                            NSM_READS_IN(SSKIP) | NSM_READS_IN(SBIAS) |
                                            NSM_READS_IN(SZ) | NSM_READS_IN(SLENGTH),
                                        false };
nsm_tensor *nsm_selective_scan(nsm_tape *tape, nsm_tensor *u, nsm_tensor *dt, nsm_tensor *a,
                               nsm_tensor *b, nsm_tensor *c, const nsm_scan_config *config,
                               nsm_tensor **state)
{
    static const nsm_scan_config none = { 0 };
    const nsm_scan_config *k = config ? config : &none;
    nsm_tensor *out[2] = { NULL, NULL };
    nsm_apply_many(tape, &nsmi_op_selective_scan,
                   &(nsm_args){
                       .in = { u, dt, a, b, c, k->skip, k->dt_bias, k->z, k->state, k->length },
                       .i = { k->softplus } },
                   out, 2);
    if (state) *state = out[1];
    return out[0];
}

/* ---- RWKV-4's sum: in = w, u, k, v, state, length; out = y, the last state ---- */
enum { WW, WU, WK, WV, WSTATE, WLENGTH };

static void wkv_shape(nsm_node *n)
{
    const nsm_tensor *k = n->in[WK];
    if (!are_floats(n, WW, WSTATE) || k->rank != 3 || k->dim[0] < 1 || k->dim[1] < 1 ||
        !IS(n->in[WV], k->dim[0], k->dim[1], k->dim[2]) || !IS(n->in[WW], k->dim[2]) ||
        !IS(n->in[WU], k->dim[2]) || !IS(n->in[WSTATE], k->dim[0], 3, k->dim[2]) ||
        !is_length(n->in[WLENGTH], k->dim[0])) {
        nsmi_bad_shape(n, "want w, u [C], k, v [B,n,C], state [B,3,C], length int32 [B]");
        return;
    }
    nsm_node_out(n, 0, NSM_F32, 3, k->dim);
    OUT(n, 1, k->dim[0], 3, k->dim[2]);
}

static const int32_t *wkv_length(const nsm_node *n)
{
    return n->in[WLENGTH] ? n->in[WLENGTH]->i32 : NULL;
}

static void wkv_forward(nsm_node *n)
{
    const int64_t *dim = n->in[WK]->dim;
    nsm_tensor *states = n->recorded ? SAVE(n, 0, dim[0], chunks_of(dim[1]), 3, dim[2]) : NULL;
    if (nsmi_failed(n->ctx)) return;
    BE(n)->wkv(DEV(n), dim[0], dim[1], dim[2], wkv_length(n), X(WW), X(WU), X(WK), X(WV), X(WSTATE),
               Y(0), Y(1), states ? states->f32 : NULL);
}

static void wkv_backward(nsm_node *n)
{
    const int64_t *dim = n->in[WK]->dim;
    float *dw = nsmi_floats(n, dim[0] * dim[2]), *du = nsmi_floats(n, dim[0] * dim[2]),
          *dk = DX(WK), *dv = DX(WV), *ds = DX(WSTATE);
    if (nsmi_failed(n->ctx) || !DY(0)) return;
    BE(n)->wkv_back(DEV(n), dim[0], dim[1], dim[2], wkv_length(n), X(WW), X(WU), X(WK), X(WV),
                    n->saved[0]->f32, DY(0), dw, du, dk, dv, ds);
    sum_rows(n, WW, dim[0], dim[2], dw);
    sum_rows(n, WU, dim[0], dim[2], du);
}

const nsm_op nsmi_op_wkv = { "nsm_wkv",
                             wkv_shape,
                             wkv_forward,
                             wkv_backward,
                             5,
                             NSM_READS_IN(WW) | NSM_READS_IN(WU) | NSM_READS_IN(WK) |
                                 NSM_READS_IN(WV) | NSM_READS_IN(WLENGTH),
                             false };
nsm_tensor *nsm_wkv(nsm_tape *tape, nsm_tensor *w, nsm_tensor *u, nsm_tensor *k, nsm_tensor *v,
                    nsm_tensor *state, nsm_tensor *length, nsm_tensor **next)
{
    nsm_tensor *out[2] = { NULL, NULL };
    nsm_apply_many(tape, &nsmi_op_wkv, &(nsm_args){ .in = { w, u, k, v, state, length } }, out, 2);
    if (next) *next = out[1];
    return out[0];
}
