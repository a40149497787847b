/* base/ops/sequence.c - Ops on sequences [B, n, ...]: attention, rotation by position. */
#include "config.h"
#include "base/ops/common.h"

/* ---- attention: in = q, k, v, bias, key_length, offsets; f[0] scale;
 * i = {causal, window, offset, keys, heads of a packed q k v (0: three tensors), its heads of keys}
 * ---- */
enum { Q, K, V, BIAS, LENGTH, OFFSETS };

static bool is_packed(const nsm_node *n) { return n->i[4] > 0; }

/* Every stride and size but the pointers; false: shapes do not fit. */
static bool attention_plan(const nsm_node *n, nsmi_attention *a)
{
    const nsm_tensor *q = n->in[Q], *k = n->in[K], *v = n->in[V], *bias = n->in[BIAS];
    *a = (nsmi_attention){
        .scale = n->f[0], .causal = n->i[0], .window = n->i[1], .offset = n->i[2]
    };
    if (is_packed(n)) {
        int64_t h = n->i[4], g = n->i[5], row = q->dim[2], d = row / (h + 2 * g);
        if (q->rank != 3 || g < 1 || h % g || row != d * (h + 2 * g) || d < 1) return false;
        *a = (nsmi_attention){ q->dim[0],
                               q->dim[1],
                               q->dim[1],
                               h,
                               g,
                               d,
                               d,
                               { row * q->dim[1], row, d },
                               { row * q->dim[1], row, d },
                               { row * q->dim[1], row, d },
                               n->f[0],
                               n->i[0],
                               n->i[1],
                               n->i[2],
                               NULL,
                               NULL,
                               NULL,
                               { 0 } };
    } else {
        if (!k || !v || q->rank != 4 || k->rank != 4 || v->rank != 4) return false;
        const nsm_tensor *t[3] = { q, k, v };
        int64_t *stride[3] = { a->q, a->k, a->v };
        for (int i = 0; i < 3; i++) {
            stride[i][0] = t[i]->dim[1] * t[i]->dim[2] * t[i]->dim[3];
            stride[i][1] = t[i]->dim[2] * t[i]->dim[3];
            stride[i][2] = t[i]->dim[3];
        }
        a->batch = q->dim[0];
        a->n = q->dim[1];
        a->heads = q->dim[2];
        a->dk = q->dim[3];
        a->m = n->i[3] ? n->i[3] : k->dim[1];
        a->groups = k->dim[2];
        a->dv = v->dim[3];
        if (k->dim[0] != a->batch || v->dim[0] != a->batch || k->dim[1] != v->dim[1] ||
            v->dim[2] != a->groups || k->dim[3] != a->dk || a->groups < 1 || a->heads % a->groups ||
            a->m > k->dim[1])
            return false;
    }
    if (bias && bias->rank != 4) return false;
    int64_t full[4] = { a->batch, a->heads, a->n, a->m }, stride = 1;
    for (int i = 3; bias && i >= 0; i--) {
        if (bias->dim[i] != full[i] && bias->dim[i] != 1) return false;
        a->bias_stride[i] = bias->dim[i] == 1 ? 0 : stride;
        stride *= bias->dim[i];
    }
    return a->batch > 0 && a->n > 0 && a->dk > 0 && a->dv > 0;
}

static void attention_fill(const nsm_node *n, nsmi_attention *a, const float *data[3])
{
    attention_plan(n, a);
    a->bias = n->in[BIAS] ? n->in[BIAS]->f32 : NULL;
    a->keys = n->in[LENGTH] ? n->in[LENGTH]->i32 : NULL;
    a->offsets = n->in[OFFSETS] ? n->in[OFFSETS]->i32 : NULL;
    data[0] = n->in[Q]->f32;
    data[1] = is_packed(n) ? data[0] + a->heads * a->dk : n->in[K]->f32;
    data[2] = is_packed(n) ? data[1] + a->groups * a->dk : n->in[V]->f32;
}

static bool ints_by_row(const nsm_tensor *t, int64_t batch)
{
    return !t || (t->type == NSM_I32 && t->rank == 1 && t->dim[0] == batch);
}

static void attention_shape(nsm_node *n)
{
    nsmi_attention a;
    bool ok = true;
    for (int i = Q; i <= BIAS; i++) ok = ok && (!n->in[i] || n->in[i]->type == NSM_F32);
    if (!ok || !attention_plan(n, &a) || !ints_by_row(n->in[LENGTH], a.batch) ||
        !ints_by_row(n->in[OFFSETS], a.batch)) {
        nsmi_bad_shape(n, "want q [B,n,H,D], k [B,m,G,D], v [B,m,G,E], or q, k, v side by side "
                          "[B,n,(H+2G)*D], H a multiple of G, "
                          "bias [B|1,H|1,n|1,m|1], key_length and offsets int32 [B]");
        return;
    }
    if (is_packed(n)) OUT(n, 0, a.batch, a.n, a.heads * a.dv);
    else OUT(n, 0, a.batch, a.n, a.heads, a.dv);
    SAVE(n, 0, a.batch, a.heads, a.n);
}

static void attention_forward(nsm_node *n)
{
    nsmi_attention a;
    const float *data[3];
    attention_fill(n, &a, data);
    if (n->in[LENGTH])
        nsmi_check_index(n, "key_length of row", n->in[LENGTH], a.m + 1, NSMI_NO_OTHER);
    float *scratch = nsmi_floats(n, nsmi_attention_scratch(&a, false));
    if (scratch && !nsmi_failed(n->ctx))
        BE(n)->attention(DEV(n), &a, data[0], data[1], data[2], scratch, Y(0), n->saved[0]->f32);
}

/* The gradient of q, k or v, to be written with *beta; zeroed first where two of them are one
 * tensor. */
static float *gradient_of(nsm_node *n, int i, float *beta)
{
    bool shared = false;
    for (int k = Q; k <= V; k++)
        shared |= k != i && n->in[k] && nsmi_root(n->in[k]) == nsmi_root(n->in[i]);
    *beta = 1;
    return shared ? nsm_node_dx(n, i) : nsm_node_dx_beta(n, i, beta);
}

static void attention_backward(nsm_node *n)
{
    nsmi_attention a;
    const float *data[3];
    float *to[3], beta[3];
    attention_fill(n, &a, data);
    for (int i = 0; i < 3; i++) to[i] = i && is_packed(n) ? NULL : gradient_of(n, i, &beta[i]);
    if (is_packed(n) && to[0]) {
        to[1] = to[0] + a.heads * a.dk;
        to[2] = to[1] + a.groups * a.dk;
        beta[1] = beta[2] = beta[0];
    }
    if (!is_packed(n))
        for (int i = K; i <= V; i++) /* rows past the keys in use are not the kernel's */
            if (to[i] && beta[i] == 0 && a.m < n->in[i]->dim[1]) {
                BE(n)->zero(DEV(n), (size_t)nsm_numel(n->in[i]) * sizeof(float), to[i]);
                beta[i] = 1;
            }
    float db_beta, *db = n->in[BIAS] ? nsm_node_dx_beta(n, BIAS, &db_beta) : NULL;
    float *ds = db ? nsmi_floats(n, a.batch * a.heads * a.n * a.m) : NULL,
          *scratch = nsmi_floats(n, nsmi_attention_scratch(&a, true));
    if (!scratch || (db && !ds)) return;
    BE(n)->attention_back(DEV(n), &a, data[0], data[1], data[2], Y(0), n->saved[0]->f32, DY(0),
                          scratch, beta, to[0], to[1], to[2], ds);
    if (!db) return;
    const int64_t dim[5] = { 1, a.batch, a.heads, a.n, a.m };
    nsmi_strides s = { { 0, a.bias_stride[0], a.bias_stride[1], a.bias_stride[2],
                         a.bias_stride[3] } };
    BE(n)->sum_to(DEV(n), dim, ds, s, db_beta, db);
}

const nsm_op nsmi_op_attention = {
    "nsm_dot_attention", attention_shape, attention_forward, attention_backward, 1, 0, false
};

static nsm_tensor *attend(nsm_tape *tape, nsm_tensor *q, nsm_tensor *k, nsm_tensor *v, int heads,
                          int groups, int64_t dk, const nsm_dot_attention_config *config)
{
    static const nsm_dot_attention_config none = { 0 };
    const nsm_dot_attention_config *c = config ? config : &none;
    if (c->window < 0 || c->keys < 0) {
        nsm_error_set(nsm_tape_ctx(tape), NSM_EINVAL,
                      "nsm_dot_attention: window is %lld, keys %lld", (long long)c->window,
                      (long long)c->keys);
        return NULL;
    }
    float scale = c->scale != 0 ? c->scale : 1 / sqrtf((float)dk);
    return nsm_apply(tape, &nsmi_op_attention,
                     &(nsm_args){ .in = { q, k, v, c->bias, c->key_length, c->offsets },
                                  .i = { c->causal, c->window, c->offset, c->keys, heads, groups },
                                  .f = { scale } });
}

nsm_tensor *nsm_dot_attention(nsm_tape *tape, nsm_tensor *q, nsm_tensor *k, nsm_tensor *v,
                              const nsm_dot_attention_config *config)
{
    return tape && q && k && v
               ? attend(tape, q, k, v, 0, 0, q->dim[q->rank > 0 ? q->rank - 1 : 0], config)
               : NULL;
}

nsm_tensor *nsm_dot_attention_packed(nsm_tape *tape, nsm_tensor *qkv, int heads, int groups,
                                     const nsm_dot_attention_config *config)
{
    if (!tape || !qkv) return NULL;
    if (heads < 1 || groups < 1 || qkv->rank != 3 || (config && config->keys)) {
        nsm_error_set(qkv->ctx, NSM_EINVAL,
                      "nsm_dot_attention_packed: %d heads, %d of keys, rank %d", heads, groups,
                      qkv->rank);
        return NULL;
    }
    return attend(tape, qkv, NULL, NULL, heads, groups, qkv->dim[2] / (heads + 2 * groups), config);
}

/* ---- rotary: in = x, offsets; i = {heads, size, pairs, side by side, offset}; f[0] base ---- */
static void rotary_shape(nsm_node *n)
{
    const nsm_tensor *x = n->in[0];
    bool ok = x->type == NSM_F32 && x->rank == 3 && n->i[0] >= 0 && n->i[1] > 0 && n->i[2] > 0 &&
              2 * n->i[2] <= n->i[1] && n->i[0] <= x->dim[2] / n->i[1] && n->f[0] > 0;
    if (!ok || !ints_by_row(n->in[1], x->dim[0]))
        nsmi_bad_shape(
            n, "want x [B,n,heads*size or more], 2 pairs <= size, base > 0, offsets int32 [B]");
    else nsm_node_out(n, 0, NSM_F32, 3, x->dim);
}

static void rotary(const nsm_node *n, float sign, const float *from, float beta, float *to)
{
    const int64_t *dim = n->in[0]->dim;
    BE(n)->rotate(DEV(n), dim[0], dim[1], dim[2], n->i[0], n->i[1], n->i[2], n->i[3] != 0,
                  (double)n->f[0], n->i[4], n->in[1] ? n->in[1]->i32 : NULL, sign, from, beta, to);
}

static void rotary_forward(nsm_node *n) { rotary(n, 1, X(0), 0, Y(0)); }

static void rotary_backward(nsm_node *n)
{
    float beta, *dx = nsm_node_dx_beta(n, 0, &beta);
    if (dx) rotary(n, -1, DY(0), beta, dx);
}

const nsm_op nsmi_op_rotary = { "nsm_rotary",    rotary_shape, rotary_forward, rotary_backward, 1,
                                NSM_READS_IN(1), false };
nsm_tensor *nsm_rotary(nsm_tape *tape, nsm_tensor *x, const nsm_rotary_config *c)
{
    float base = c->base != 0 ? c->base : 10000;
    return nsm_apply(tape, &nsmi_op_rotary,
                     &(nsm_args){ .in = { x, c->offsets },
                                  .i = { c->heads, c->size, c->pairs ? c->pairs : c->size / 2,
                                         c->side_by_side, c->offset },
                                  .f = { base } });
}

/* ---- append: in = old [B, m, C], x [B, n, C]; p[0] host int64 [B]: where x goes in row b; NULL:
 * at m ---- */
static void append_shape(nsm_node *n)
{
    const nsm_tensor *old = n->in[0], *x = n->in[1];
    const int64_t *at = n->p[0];
    bool ok = old->type == NSM_F32 && x->type == NSM_F32 && old->rank == 3 && x->rank == 3 &&
              old->dim[0] == x->dim[0] && old->dim[2] == x->dim[2];
    for (int64_t b = 0; ok && at && b < x->dim[0]; b++) ok = at[b] >= 0 && at[b] <= old->dim[1];
    if (!ok) nsmi_bad_shape(n, "want old [B,m,C], x [B,n,C], places in 0..m");
    else OUT(n, 0, old->dim[0], old->dim[1] + x->dim[1], old->dim[2]);
    /* the caller's array need not live until backward */
    nsm_tensor *place = ok ? nsm_node_save(n, 0, NSM_I64, 1, x->dim) : NULL;
    for (int64_t b = 0; place && place->data && b < x->dim[0]; b++)
        BE(n)->to_device(DEV(n), sizeof *at, at ? &at[b] : &old->dim[1], place->i64 + b);
}

/* Three runs of rows of a sequence b: before x, x, behind it. */
typedef struct { int64_t x, out, old, c; } append_place;
static append_place append_at(const nsm_node *n, int64_t b, int64_t *at)
{
    const nsm_tensor *old = n->in[0], *x = n->in[1];
    int64_t c = old->dim[2];
    BE(n)->to_host(DEV(n), sizeof *at, n->saved[0]->i64 + b, at);
    return (append_place){ b * x->dim[1] * c, b * n->out[0]->dim[1] * c, b * old->dim[1] * c, c };
}

static void append_forward(nsm_node *n)
{
    int64_t m = n->in[0]->dim[1], rows = n->in[1]->dim[1], at;
    for (int64_t b = 0; b < n->in[0]->dim[0]; b++) {
        append_place p = append_at(n, b, &at);
        BE(n)->copy_block(DEV(n), at, p.c, X(0) + p.old, p.c, 0, Y(0) + p.out, p.c);
        BE(n)->copy_block(DEV(n), rows, p.c, X(1) + p.x, p.c, 0, Y(0) + p.out + at * p.c, p.c);
        BE(n)->copy_block(DEV(n), m - at, p.c, X(0) + p.old + at * p.c, p.c, 0,
                          Y(0) + p.out + (at + rows) * p.c, p.c);
    }
}

static void append_backward(nsm_node *n)
{
    int64_t m = n->in[0]->dim[1], rows = n->in[1]->dim[1], at;
    float beta0, beta1, *d0 = nsm_node_dx_beta(n, 0, &beta0), *d1 = nsm_node_dx_beta(n, 1, &beta1);
    for (int64_t b = 0; b < n->in[0]->dim[0]; b++) {
        append_place p = append_at(n, b, &at);
        const float *dy = DY(0) + p.out;
        if (d1) BE(n)->copy_block(DEV(n), rows, p.c, dy + at * p.c, p.c, beta1, d1 + p.x, p.c);
        if (!d0) continue;
        BE(n)->copy_block(DEV(n), at, p.c, dy, p.c, beta0, d0 + p.old, p.c);
        BE(n)->copy_block(DEV(n), m - at, p.c, dy + (at + rows) * p.c, p.c, beta0,
                          d0 + p.old + at * p.c, p.c);
    }
}

const nsm_op nsmi_op_append = { "nsm_append",      append_shape, append_forward, append_backward, 2,
                                NSM_READS_NOTHING, false };
nsm_tensor *nsm_append(nsm_tape *tape, nsm_tensor *old, nsm_tensor *x, const int64_t *at)
{
    return nsm_apply(tape, &nsmi_op_append, &(nsm_args){ .in = { old, x }, .p = { at } });
}
