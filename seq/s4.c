/* seq/s4.c - S4 (Gu et al., arXiv:2111.00396) and S4D (Gu et al., arXiv:2206.11893): a linear
 * state space for each channel.
 *
 *   s' = A s + B u    y = 2 Re(C s) + D u    A = diag(a) - p p^* (S4) or diag(a) (S4D)
 *   bilinear:         dA = (1 - dt A / 2)^-1 (1 + dt A / 2),  dB = (1 - dt A / 2)^-1 dt B
 *   zero-order hold:  dA = e^(dt A),  dB = (dA - 1) A^-1 B
 *   out = the first half of W gelu(y) + b times the sigmoid of the second
 *
 * The tokens are cut in chunks of T = 64.  What a chunk's own tokens give is a product with the
 * Toeplitz matrix of the kernel K_l = C dA^l dB, what came before one with the rows C dA^(l+1), and
 * a chunk moves the state by dA^T: all products of matrices, over channels.  This was preferred to
 * the convolution by FFT because its sums do not mix tokens: no output depends on a later one in
 * any bit, rows of different lengths need nothing special, and the state that is carried on comes
 * with it.  The powers of dA come by doubling; with low rank only dA itself keeps its structure,
 * dA^2 is dense.  An inverse of 1 - dA^L (kernel_length) is the product of the 1 + dA^(L 2^k).
 *
 * Letters: as in seq/s4.h.  Parameters have the names of the published code.
 * State: s [B, H, N].  Cost: O(n H (T + 2 N)), and for each call O(H N T) for S4D, O(H N^2 T) for
 * S4; a step O(H N). */
#include "config.h"
#include "seq/carried.h"
#include "seq/s4.h"

enum { CHUNK = 64, LEVELS = 7 /* 1 + log2(CHUNK) */, DOUBLINGS = 24 };

/* ---- powers of dA ---- */
static nsm_tensor *rows(nsm_tape *tape, nsm_tensor *x, bool second)
{
    return x ? nsm_slice(tape, x, 1, second ? x->dim[1] / 2 : 0, x->dim[1] / 2) : NULL;
}

static nsm_tensor *beside(nsm_tape *tape, nsm_tensor *a, nsm_tensor *b, int axis)
{
    return nsm_concat(tape, (nsm_tensor *[]){ a, b }, 2, axis);
}

nsm_tensor *nsmi_s4_times(nsm_tape *tape, const nsmi_s4_power *a, nsm_tensor *x, bool turned)
{
    if (a->dense) return nsm_bmm(tape, a->dense, x, turned, false);
    nsm_tensor *re = rows(tape, x, false), *im = rows(tape, x, true);
    nsm_tensor *cross[2] = { nsm_mul(tape, a->im, im), nsm_mul(tape, a->im, re) };
    re = nsm_mul(tape, a->re, re);
    im = nsm_mul(tape, a->re, im);
    nsm_tensor *y = beside(tape, turned ? nsm_add(tape, re, cross[0]) : nsm_sub(tape, re, cross[0]),
                           turned ? nsm_sub(tape, im, cross[1]) : nsm_add(tape, im, cross[1]), 1);
    if (!a->u) return y;
    return nsm_sub(tape, y,
                   nsm_bmm(tape, turned ? a->v : a->u,
                           nsm_bmm(tape, turned ? a->u : a->v, x, true, false), false, false));
}

nsm_tensor *nsmi_s4_identity(nsm_tape *tape, int64_t n)
{
    float *host = nsmi_tape_room(tape, (size_t)(n * n) * sizeof *host);
    for (int64_t i = 0; host && i < n; i++) host[i * (n + 1)] = 1;
    return host ? nsm_tape_constant(tape, NSM_F32, 3, (int64_t[]){ 1, n, n }, host) : NULL;
}

static nsmi_s4_power product(nsm_tape *tape, const nsmi_s4_power *a, const nsmi_s4_power *b)
{
    if (a->dense || a->u) {
        nsm_tensor *right =
            b->dense ? b->dense
            : b->re  ? nsmi_s4_times(tape, b, nsmi_s4_identity(tape, 2 * b->re->dim[1]), false)
                     : NULL;
        return (nsmi_s4_power){ .dense = nsmi_s4_times(tape, a, right, false) };
    }
    return (nsmi_s4_power){
        .re = nsm_sub(tape, nsm_mul(tape, a->re, b->re), nsm_mul(tape, a->im, b->im)),
        .im = nsm_add(tape, nsm_mul(tape, a->re, b->im), nsm_mul(tape, a->im, b->re))
    };
}

nsmi_s4_power nsmi_s4_raised(nsm_tape *tape, const nsmi_s4_power *a, int exponent)
{
    nsmi_s4_power y = *a, square = *a;
    bool any = false;
    for (int e = exponent; e > 0; e >>= 1) {
        if (e & 1) y = any ? product(tape, &square, &y) : square;
        any |= e & 1;
        if (e > 1) square = product(tape, &square, &square);
    }
    return y;
}

/* ---- discrete ---- */
/* x [S, k] for every channel: [H, k] */
static nsm_tensor *spread(nsm_tape *tape, nsm_tensor *x, int64_t channels)
{
    if (!x || x->dim[0] == channels) return x;
    int64_t sets = x->dim[0], k = x->dim[1], times = channels / sets;
    nsm_tensor *zero = nsm_tape_tensor(tape, NSM_F32, 3, (int64_t[]){ times, 1, 1 }, NULL);
    if (zero) nsm_tensor_zero(zero);
    x = nsm_add(tape, nsm_reshape(tape, x, 3, (int64_t[]){ 1, sets, k }), zero);
    return x ? nsm_reshape(tape, x, 2, (int64_t[]){ channels, k }) : NULL;
}

/* Numbers [rows, M, 2], beginning at row `from`, as columns of real numbers: [H, N, 1] */
static nsm_tensor *column(nsm_tape *tape, nsm_tensor *x, int64_t from, int64_t sets,
                          int64_t channels)
{
    if (!x) return NULL;
    int64_t modes = x->dim[x->rank - 2];
    x = nsm_slice(tape, nsm_reshape(tape, x, 3, (int64_t[]){ -1, modes, 2 }), 0, from, sets);
    x = nsm_permute(tape, x, (const int[]){ 0, 2, 1 });
    x = x ? spread(tape, nsm_reshape(tape, x, 2, (int64_t[]){ sets, 2 * modes }), channels) : NULL;
    return x ? nsm_reshape(tape, x, 3, (int64_t[]){ channels, 2 * modes, 1 }) : NULL;
}

/* C [C,H,M,2] as the columns of 2 Re(C s): [H,N,C], 2 re and -2 im */
static nsm_tensor *readings(nsm_tape *tape, nsm_tensor *c)
{
    const int order[] = { 1, 3, 2, 0 };
    if (!c) return NULL;
    int64_t outputs = c->dim[0], channels = c->dim[1], modes = c->dim[2];
    nsm_tensor *sign =
        nsm_tape_constant(tape, NSM_F32, 3, (int64_t[]){ 2, 1, 1 }, (const float[]){ 2, -2 });
    c = nsm_mul(tape, nsm_permute(tape, c, order), sign); /* [H,2,M,C] */
    return c ? nsm_reshape(tape, c, 3, (int64_t[]){ channels, 2 * modes, outputs }) : NULL;
}

/* dt A of each mode: [H,M,1] */
typedef struct {
    nsm_tensor *dt, *re, *im;
} steps;
static steps steps_of(nsm_tape *tape, const nsmi_s4_weights *w)
{
    steps z = { NULL, NULL, NULL };
    if (!w->log_dt || !w->a_real || !w->a_imag) return z;
    int64_t channels = nsm_numel(w->log_dt), modes = w->a_real->dim[1];
    z.dt = nsm_exp(tape, nsm_reshape(tape, w->log_dt, 3, (int64_t[]){ channels, 1, 1 }));
    nsm_tensor *re = spread(tape, nsm_neg(tape, nsm_exp(tape, w->a_real)), channels),
               *im = spread(tape, nsm_neg(tape, w->a_imag), channels);
    if (!re || !im) return z;
    z.re = nsm_mul(tape, z.dt, nsm_reshape(tape, re, 3, (int64_t[]){ channels, modes, 1 }));
    z.im = nsm_mul(tape, z.dt, nsm_reshape(tape, im, 3, (int64_t[]){ channels, modes, 1 }));
    return z;
}

/* (x + iy) / (a + ib) by parts */
static nsmi_s4_power quotient(nsm_tape *tape, nsm_tensor *x, nsm_tensor *y, nsm_tensor *a,
                              nsm_tensor *b)
{
    nsm_tensor *size = nsm_add(tape, nsm_square(tape, a), nsm_square(tape, b));
    return (nsmi_s4_power){
        .re = nsm_div(tape, nsm_add(tape, nsm_mul(tape, x, a), nsm_mul(tape, y, b)), size),
        .im = nsm_div(tape, nsm_sub(tape, nsm_mul(tape, y, a), nsm_mul(tape, x, b)), size)
    };
}

/* e^z, and (e^z - 1) / z without cancellation: e^z - 1 = m cos y - 2 sin^2(y/2) + i e^x sin y, m =
 * e^x - 1 = 2 t / (1 - t), t = tanh(x/2) */
static void hold(nsm_tape *tape, const steps *z, nsm_tensor *b, nsmi_s4_system *out)
{
    nsm_tensor *t = nsm_tanh(tape, nsm_scale(tape, z->re, 0.5f, 0)), *cosine = nsm_cos(tape, z->im),
               *size = nsm_exp(tape, z->re);
    nsm_tensor *half = nsm_square(tape, nsm_sin(tape, nsm_scale(tape, z->im, 0.5f, 0)));
    nsm_tensor *m = nsm_div(tape, nsm_scale(tape, t, 2, 0), nsm_scale(tape, t, -1, 1));
    out->a = (nsmi_s4_power){ .re = nsm_mul(tape, size, cosine),
                              .im = nsm_mul(tape, size, nsm_sin(tape, z->im)) };
    nsmi_s4_power mean =
        quotient(tape, nsm_sub(tape, nsm_mul(tape, m, cosine), nsm_scale(tape, half, 2, 0)),
                 out->a.im, z->re, z->im);
    out->b = nsm_mul(tape, z->dt, nsmi_s4_times(tape, &mean, b, false));
}

/* With e = 1 - dt a / 2 the inverse of e + dt p p' a rank after the other: M - M p (M'p)' / (1/dt +
 * p' M p) */
static void bilinear(nsm_tape *tape, const steps *z, const nsmi_s4_weights *w, nsm_tensor *b,
                     nsmi_s4_system *out)
{
    nsm_tensor *one = nsm_tape_constant(tape, NSM_F32, 1, (int64_t[]){ 1 }, (const float[]){ 1 }),
               *none = nsm_scale(tape, one, 0, 0);
    nsmi_s4_power m = quotient(tape, one, none, nsm_scale(tape, z->re, -0.5f, 1),
                               nsm_scale(tape, z->im, -0.5f, 0));
    int64_t sets = w->a_real->dim[0],
            rank = w->p ? nsm_numel(w->p) / (2 * nsm_numel(w->a_real)) : 0;
    for (int64_t j = 0; j < rank; j++) {
        nsm_tensor *p = column(tape, w->p, j * sets, sets, nsm_numel(w->log_dt));
        nsm_tensor *u = nsmi_s4_times(tape, &m, p, false), *v = nsmi_s4_times(tape, &m, p, true);
        u = nsm_div(tape, u,
                    nsm_add(tape, nsm_reciprocal(tape, z->dt), nsm_bmm(tape, p, u, true, false)));
        m.u = j ? beside(tape, m.u, u, 2) : u;
        m.v = j ? beside(tape, m.v, v, 2) : v;
    }
    out->b = nsm_mul(tape, z->dt, nsmi_s4_times(tape, &m, b, false));
    out->a = (nsmi_s4_power){ .re = nsm_scale(tape, m.re, 2, -1),
                              .im = nsm_scale(tape, m.im, 2, 0),
                              .u = rank ? nsm_scale(tape, m.u, 2, 0) : NULL,
                              .v = m.v };
}

bool nsmi_s4_discrete(nsm_tape *tape, const nsmi_s4_weights *w, nsmi_s4_system *out)
{
    steps z = steps_of(tape, w);
    nsm_tensor *b = z.dt ? column(tape, w->b, 0, w->a_real->dim[0], nsm_numel(w->log_dt)) : NULL;
    *out = (nsmi_s4_system){ .c = readings(tape, w->c) };
    if (!z.im || !b) return false;
    if (w->zoh)
        hold(tape, &z, b, out);
    else
        bilinear(tape, &z, w, b, out);
    if (w->kernel_length > 0) {
        nsmi_s4_power g = nsmi_s4_raised(tape, &out->a, w->kernel_length);
        for (int k = 0; k < DOUBLINGS; k++) {
            out->c = nsm_add(tape, out->c, nsmi_s4_times(tape, &g, out->c, true));
            if (k + 1 < DOUBLINGS) g = product(tape, &g, &g);
        }
    }
    return out->c && out->b && !nsmi_failed(nsm_tape_ctx(tape));
}

/* ---- chunks ---- */
typedef struct {
    nsmi_s4_power power[LEVELS]; /* a^(2^k) */
    nsm_tensor *in, *out; /* [H,N,T] a^(T-1) b .. a b, b;  [H,N,T*C] c, a'c, .. (a')^(T-1) c */
    int64_t size;         /* T */
} chunk;

static chunk chunk_of(nsm_tape *tape, const nsmi_s4_system *a, int64_t n)
{
    chunk c = { .power = { a->a }, .in = a->b, .out = a->c, .size = 1 };
    for (int k = 0; c.size < n && c.size < CHUNK; k++, c.size *= 2) {
        c.in = beside(tape, nsmi_s4_times(tape, &c.power[k], c.in, false), c.in, 2);
        c.out = beside(tape, c.out, nsmi_s4_times(tape, &c.power[k], c.out, true), 2);
        c.power[k + 1] = product(tape, &c.power[k], &c.power[k]);
    }
    return c;
}

static const nsmi_s4_power *whole(const chunk *c)
{
    int k = 0;
    while ((int64_t)1 << k < c->size) k++;
    return &c->power[k];
}

/* K [H,1,n*C] by time, then output, for n up to any length: the chunk's, then (a')^T times those
 * before */
static nsm_tensor *kernel(nsm_tape *tape, const nsmi_s4_system *a, const chunk *c, int64_t n)
{
    nsm_tensor *out = c->out, *all = out;
    for (int64_t have = c->size; have < n && out; have += c->size) {
        out = nsmi_s4_times(tape, whole(c), out, true);
        all = beside(tape, all, out, 2);
    }
    return nsm_bmm(tape, a->b, all, true, false);
}

nsm_tensor *nsmi_s4_kernel(nsm_tape *tape, const nsmi_s4_system *a, int64_t n)
{
    chunk c = chunk_of(tape, a, n);
    nsm_tensor *k = kernel(tape, a, &c, n);
    if (!k) return NULL;
    int64_t outputs = a->c->dim[2];
    k = nsm_reshape(tape, k, 3, (int64_t[]){ k->dim[0], k->dim[2] / outputs, outputs });
    return nsm_slice(tape, nsm_permute(tape, k, (const int[]){ 2, 0, 1 }), 2, 0, n);
}

/* The kernel with D at its first place, as a matrix from tokens j to outputs (i, c): row j is K
 * shifted j tokens to the right. */
static nsm_tensor *toeplitz(nsm_tape *tape, nsm_tensor *k, nsm_tensor *skip, int64_t size)
{
    if (!k) return NULL;
    int64_t channels = k->dim[0], wide = k->dim[2], outputs = wide / size;
    nsm_tensor *behind = nsm_tape_tensor(tape, NSM_F32, 2, (int64_t[]){ channels, wide }, NULL);
    if (behind) nsm_tensor_zero(behind);
    k = nsm_reshape(tape, k, 2, (int64_t[]){ channels, wide });
    if (skip) {
        nsm_tensor *first =
            nsm_add(tape, nsm_slice(tape, k, 1, 0, outputs), nsm_transpose(tape, skip));
        k = size > 1 ? beside(tape, first, nsm_slice(tape, k, 1, outputs, wide - outputs), 1)
                     : first;
    }
    return nsm_slice(tape, nsmi_shifted(tape, beside(tape, k, behind, 1), size), 2, 0, wide);
}

/* ---- what is left in the state after rows of different lengths ---- */
/* The last length % T tokens of each row, at the end of a chunk of which the rest is 0: [H,T,B] */
static nsm_tensor *last_tokens(nsm_tape *tape, nsm_tensor *x, int64_t size, const int32_t *length)
{
    int64_t batch = x->dim[0], n = x->dim[1], channels = x->dim[2];
    int32_t *at = nsmi_tape_room(tape, (size_t)(size * batch) * sizeof *at);
    nsm_tensor *zero = nsm_tape_tensor(tape, NSM_F32, 2, (int64_t[]){ 1, channels }, NULL);
    if (zero) nsm_tensor_zero(zero);
    for (int64_t i = 0; at && i < size * batch; i++) {
        int64_t b = i % batch, place = length[b] - size + i / batch;
        at[i] = (int32_t)(i / batch < size - length[b] % size ? batch * n : b * n + place);
    }
    nsm_tensor *index =
        at ? nsm_tape_tensor(tape, NSM_I32, 2, (int64_t[]){ size, batch }, at) : NULL;
    x = beside(tape, nsm_reshape(tape, x, 2, (int64_t[]){ batch * n, channels }), zero, 0);
    return nsm_permute(tape, nsm_gather(tape, x, index), (const int[]){ 2, 0, 1 });
}

/* A row of B numbers: 1 where pick says */
static nsm_tensor *mask(nsm_tape *tape, int64_t batch, const int32_t *length, int64_t size,
                        int64_t chunk_at, int bit, int64_t *count)
{
    float *host = nsmi_tape_room(tape, (size_t)batch * sizeof *host);
    *count = 0;
    for (int64_t b = 0; host && b < batch; b++) {
        bool in = bit < 0 ? length[b] / size == chunk_at : length[b] % size >> bit & 1;
        host[b] = in ? 1.0f : 0.0f;
        *count += host[b] != 0;
    }
    return host ? nsm_tape_tensor(tape, NSM_F32, 1, &batch, host) : NULL;
}

/* before [chunks + 1]: the states [H,N,B] (or [1,H,N,B]) where chunks start, NULL: 0.  Each row's:
 * where its last, unfinished chunk starts, moved on by the powers that its remainder is made of;
 * and its last tokens. */
static nsm_tensor *state_after(nsm_tape *tape, const chunk *c, nsm_tensor *const *before,
                               int64_t chunks, nsm_tensor *x, const int32_t *length)
{
    int64_t batch = x->dim[0], count;
    nsm_tensor *s = NULL;
    for (int64_t k = 0; k <= chunks; k++) {
        nsm_tensor *here = mask(tape, batch, length, c->size, k, -1, &count);
        if (!count || !before[k]) continue;
        nsm_tensor *part = count == batch ? before[k] : nsm_mul(tape, before[k], here);
        s = s ? nsm_add(tape, s, part) : part;
    }
    for (int bit = 0; s && (int64_t)1 << bit < c->size; bit++) {
        nsm_tensor *here = mask(tape, batch, length, c->size, 0, bit, &count);
        if (!count) continue;
        nsm_tensor *moved = nsmi_s4_times(tape, &c->power[bit], s, false);
        s = count == batch ? moved : nsm_add(tape, s, nsm_mul(tape, nsm_sub(tape, moved, s), here));
    }
    nsm_tensor *own = nsm_bmm(tape, c->in, last_tokens(tape, x, c->size, length), false, false);
    return s ? nsm_add(tape, s, own) : own;
}

/* ---- the sequence ---- */
/* x [B,n,H] by channel, padded with zeros to chunks of T: [H,T,chunks*B] */
static nsm_tensor *by_channel(nsm_tape *tape, nsm_tensor *x, int64_t size, int64_t chunks)
{
    int64_t batch = x->dim[0], n = x->dim[1], channels = x->dim[2];
    if (size * chunks > n) {
        nsm_tensor *zero = nsm_tape_tensor(tape, NSM_F32, 3,
                                           (int64_t[]){ batch, size * chunks - n, channels }, NULL);
        if (zero) nsm_tensor_zero(zero);
        x = beside(tape, x, zero, 1);
    }
    x = x ? nsm_permute(tape, nsm_reshape(tape, x, 4, (int64_t[]){ batch, chunks, size, channels }),
                        (const int[]){ 3, 2, 1, 0 })
          : NULL;
    return x ? nsm_reshape(tape, x, 3, (int64_t[]){ channels, size, chunks * batch }) : NULL;
}

/* Fill before[1 .. last] from before[0] and what each chunk adds, u [H,T,chunks*B]. */
static void walk(nsm_tape *tape, const chunk *c, nsm_tensor *u, int64_t batch, int64_t chunks,
                 int64_t last, nsm_tensor **before)
{
    nsm_tensor *add = last > 0 ? nsm_bmm(tape, c->in, u, false, false) : NULL;
    if (!add) return;
    int64_t channels = add->dim[0], states = add->dim[1];
    add =
        nsm_permute(tape, nsm_reshape(tape, add, 4, (int64_t[]){ channels, states, chunks, batch }),
                    (const int[]){ 2, 0, 1, 3 });
    for (int64_t k = 0; k < last && add; k++) {
        nsm_tensor *own = nsm_reshape(tape, nsm_slice(tape, add, 0, k, 1), 3,
                                      (int64_t[]){ channels, states, batch });
        before[k + 1] =
            before[k] ? nsm_add(tape, nsmi_s4_times(tape, whole(c), before[k], false), own) : own;
    }
}

/* The states where chunks start, side by side: [H,N,chunks*B]; NULL: all are 0 */
static nsm_tensor *starts(nsm_tape *tape, nsm_tensor **before, int64_t chunks,
                          const nsm_tensor *like)
{
    if (!before[0] && chunks == 1) return NULL;
    if (!before[0] && like) {
        before[0] = nsm_tape_tensor(tape, NSM_F32, 3, like->dim, NULL);
        if (before[0]) nsm_tensor_zero(before[0]);
    }
    if (chunks == 1) return before[0];
    for (int64_t k = 0; k < chunks; k++) {
        if (!before[k]) return NULL;
        before[k] = nsm_reshape(tape, before[k], 4,
                                (int64_t[]){ 1, like->dim[0], like->dim[1], like->dim[2] });
    }
    nsm_tensor *all =
        nsm_permute(tape, nsm_concat(tape, before, (int)chunks, 0), (const int[]){ 1, 2, 0, 3 });
    return all ? nsm_reshape(tape, all, 3, (int64_t[]){ like->dim[0], like->dim[1], -1 }) : NULL;
}

/* u [H,T,chunks*B] -> [B,chunks*T,C*H]: the chunks' own, and what the states before them give */
static nsm_tensor *outputs_of(nsm_tape *tape, const nsmi_s4_system *a, const chunk *c,
                              nsm_tensor *skip, nsm_tensor *u, nsm_tensor *before, int64_t chunks)
{
    nsm_tensor *y =
        nsm_bmm(tape, toeplitz(tape, kernel(tape, a, c, c->size), skip, c->size), u, true, false);
    if (before)
        y = nsm_add(tape, y,
                    nsm_bmm(tape, nsmi_s4_times(tape, &a->a, c->out, true), before, true, false));
    if (!y) return NULL;
    int64_t channels = y->dim[0], outputs = y->dim[1] / c->size, batch = y->dim[2] / chunks;
    y = nsm_permute(
        tape, nsm_reshape(tape, y, 5, (int64_t[]){ channels, c->size, outputs, chunks, batch }),
        (const int[]){ 4, 3, 1, 2, 0 });
    return y ? nsm_reshape(tape, y, 3, (int64_t[]){ batch, chunks * c->size, outputs * channels })
             : NULL;
}

/* The rows' lengths on the host, 0 .. n. */
static int32_t *host_lengths(nsm_tape *tape, const nsm_tensor *length, int64_t batch, int64_t n)
{
    int32_t *host = nsmi_tape_room(tape, (size_t)batch * sizeof *host);
    if (host && length) nsm_tensor_get(length, host);
    for (int64_t b = 0; host && b < batch; b++)
        host[b] = (int32_t)nsmi_length(length ? host : NULL, b, n);
    return host;
}

nsm_tensor *nsmi_s4_run(nsm_tape *tape, const nsmi_s4_system *a, nsm_tensor *skip, nsm_tensor *x,
                        nsm_tensor *length, nsm_tensor **state)
{
    nsm_ctx *ctx = nsm_tape_ctx(tape);
    if (!x || nsmi_failed(ctx)) return NULL;
    chunk c = chunk_of(tape, a, x->dim[1]);
    int64_t batch = x->dim[0], chunks = (x->dim[1] + c.size - 1) / c.size;
    nsm_tensor **before = nsmi_tape_room(tape, (size_t)(chunks + 1) * sizeof *before),
               *u = by_channel(tape, x, c.size, chunks), *y = NULL;
    int32_t *lengths = state ? host_lengths(tape, length, batch, x->dim[1]) : NULL;
    if (before && u) {
        before[0] = state && *state ? nsm_permute(tape, *state, (const int[]){ 1, 2, 0 }) : NULL;
        walk(tape, &c, u, batch, chunks, state ? chunks : chunks - 1, before);
        if (lengths)
            *state = nsm_permute(tape, state_after(tape, &c, before, chunks, x, lengths),
                                 (const int[]){ 2, 0, 1 });
        y = outputs_of(tape, a, &c, skip, u,
                       starts(tape, before, chunks, chunks > 1 ? before[1] : NULL), chunks);
        y = nsm_slice(tape, y, 1, 0, x->dim[1]);
    }
    return y;
}

nsm_tensor *nsmi_s4_output(nsm_tape *tape, nsm_tensor *y, nsm_tensor *w, nsm_tensor *bias)
{
    return nsm_glu(tape, nsm_linear(tape, nsm_gelu(tape, y), w, bias), -1, NSM_ACT_SIGMOID, 1);
}

/* ---- the mixers ---- */
typedef struct {
    nsm_mixer base;
    int states, channels, copies, rank, init, zoh, kernel_length;
    float dt_min, dt_max;
    nsmi_s4_weights w;
    nsm_tensor *skip, *out, *out_bias;
} s4;

#define COMMON_KEYS                                                                                \
    KEY_INT(s4, states, 64, 2, 256, "real states of a channel, an even number"),                   \
        KEY_INT(s4, channels, 1, 1, 64, "outputs of a channel"),                                   \
        KEY_REAL(s4, dt_min, 0.001, 1e-6, 10, "least step at the start"),                          \
        KEY_REAL(s4, dt_max, 0.1, 1e-6, 10, "largest step at the start"),                          \
        KEY_INT(s4, kernel_length, 0, 0, 1 << 24,                                                  \
                "C is stored as trained for kernels of this length (0: C itself)")
static const nsm_mixer_key keys[] = {
    COMMON_KEYS, KEY_INT(s4, copies, 1, 1, 65536, "sets of A and B, a divisor of the width"),
    KEY_INT(s4, rank, 1, 1, 8, "rank of the correction"), KEYS_END
};
static const nsm_mixer_key keys_diagonal[] = {
    COMMON_KEYS,
    KEY_INT(s4, copies, 0, 0, 65536, "sets of A and B, a divisor of the width (0: one a channel)"),
    KEY_CHOICE(s4, init, NSMI_S4_LEGS, "legs|lin|inv|inv2|quad|real", "how the modes start"),
    KEY_CHOICE(s4, zoh, 1, "bilinear|zoh", "how time is made discrete"), KEYS_END
};

/* Repeat x [k] as rows of t. */
static void fill_rows(nsm_tensor *t, int64_t k, const double *x)
{
    float *host = t ? nsmi_malloc(t->ctx, (size_t)nsm_numel(t) * sizeof *host) : NULL;
    for (int64_t i = 0; host && i < nsm_numel(t); i++) host[i] = (float)x[i % k];
    if (host) nsm_tensor_set(t, host);
    free(host);
}

static void start_modes(s4 *a)
{
    nsm_ctx *ctx = a->base.module.ctx;
    int n = a->states, modes = n / 2;
    double *real = nsmi_calloc(ctx, 6 * (size_t)modes, sizeof *real), *imag = real + modes,
           *b = imag + modes, *p = b + 2 * modes;
    if (!real) return;
    if (!nsmi_s4_start(ctx, (nsmi_s4_init)a->init, n, real, imag, a->w.p ? b : NULL,
                       a->w.p ? p : NULL)) {
        for (int m = 0; m < modes; m++) {
            real[m] = log(-real[m]);
            imag[m] = -imag[m];
            if (!a->w.p) b[2 * m] = 1;
        }
        fill_rows(a->w.a_real, modes, real);
        fill_rows(a->w.a_imag, modes, imag);
        fill_rows(a->w.b, 2 * modes, b);
        if (a->w.p) fill_rows(a->w.p, 2 * modes, p);
    }
    free(real);
}

/* The correction of HiPPO-LegS has rank 1: what is beyond starts as 0. */
static void clear_beyond(s4 *a)
{
    int64_t first = (int64_t)a->copies * a->states, all = first * a->rank;
    float *host =
        a->w.p && a->rank > 1 ? nsmi_malloc(a->base.module.ctx, (size_t)all * sizeof *host) : NULL;
    if (host && !nsm_tensor_get(a->w.p, host)) {
        memset(host + first, 0, (size_t)(all - first) * sizeof *host);
        nsm_tensor_set(a->w.p, host);
    }
    free(host);
}

static int make_both(nsm_mixer *m, bool diagonal)
{
    s4 *a = (s4 *)m;
    int64_t d = m->width, modes = a->states / 2;
    if (!a->copies) a->copies = m->width;
    if (a->states % 2 || m->width % a->copies || a->dt_min > a->dt_max)
        return nsm_error_set(m->module.ctx, NSM_EINVAL,
                             "%s: states is %d, want an even number; copies %d, a divisor of the "
                             "width %d; dt_min %g, at most dt_max %g",
                             m->type->name, a->states, a->copies, m->width, (double)a->dt_min,
                             (double)a->dt_max);
    a->skip = nsmi_mixer_fill(m, "layer.D", 2, (int64_t[]){ a->channels, d }, 0);
    if (a->skip) nsm_init_normal(a->skip, 0, 1);
    a->w.log_dt = nsmi_mixer_fill(m, "layer.kernel.inv_dt", 2, (int64_t[]){ d, 1 }, 0);
    if (a->w.log_dt) nsm_init_uniform(a->w.log_dt, logf(a->dt_min), logf(a->dt_max));
    a->w.a_real = nsmi_mixer_fill(m, "layer.kernel.A_real", 2, (int64_t[]){ a->copies, modes }, 0);
    a->w.a_imag = nsmi_mixer_fill(m, "layer.kernel.A_imag", 2, (int64_t[]){ a->copies, modes }, 0);
    a->w.b = nsmi_mixer_fill(m, "layer.kernel.B", 4, (int64_t[]){ 1, a->copies, modes, 2 }, 0);
    a->w.c = nsmi_mixer_fill(m, "layer.kernel.C", 4, (int64_t[]){ a->channels, d, modes, 2 }, 0);
    if (a->w.c) nsm_init_normal(a->w.c, 0, sqrtf(0.5f));
    if (!diagonal)
        a->w.p =
            nsmi_mixer_fill(m, "layer.kernel.P", 4, (int64_t[]){ a->rank, a->copies, modes, 2 }, 0);
    a->out = nsmi_mixer_linear(m, "output_linear.0.weight", 2 * d, a->channels * d);
    a->out_bias = nsmi_mixer_fill(m, "output_linear.0.bias", 1, (int64_t[]){ 2 * d }, 0);
    a->w.zoh = a->zoh;
    a->w.kernel_length = a->kernel_length;
    if (!nsmi_failed(m->module.ctx)) start_modes(a);
    if (!nsmi_failed(m->module.ctx)) clear_beyond(a);
    return nsm_error(m->module.ctx);
}
static int make(nsm_mixer *m) { return make_both(m, false); }
static int make_diagonal(nsm_mixer *m) { return make_both(m, true); }

static nsm_tensor *forward(nsm_tape *tape, nsm_mixer *m, nsm_tensor *x, nsm_tensor *length,
                           nsm_state *s)
{
    s4 *a = (s4 *)m;
    nsmi_s4_system d;
    nsm_tensor *state = nsmi_begin(tape, s, "s");
    if (!nsmi_s4_discrete(tape, &a->w, &d)) return NULL;
    nsm_tensor *y = nsmi_s4_run(tape, &d, a->skip, x, length, s ? &state : NULL);
    nsmi_leave(s, "s", state);
    return nsmi_s4_output(tape, y, a->out, a->out_bias);
}

static int state(nsm_mixer *m, nsm_state *s)
{
    nsm_state_add(s, "s", NSM_F32, 2, (int64_t[]){ m->width, ((const s4 *)m)->states });
    return nsm_error(m->module.ctx);
}

const nsm_mixer_type nsmi_mixer_s4 = {
    .name = "s4",
    .about = "structured state spaces, diagonal plus low rank (arXiv:2111.00396)",
    .bytes = sizeof(s4),
    .keys = keys,
    .sizes = "states",
    .make = make,
    .forward = forward,
    .state = state,
};
const nsm_mixer_type nsmi_mixer_s4d = {
    .name = "s4d",
    .about = "diagonal state spaces (arXiv:2206.11893)",
    .bytes = sizeof(s4),
    .keys = keys_diagonal,
    .sizes = "states",
    .make = make_diagonal,
    .forward = forward,
    .state = state,
};
