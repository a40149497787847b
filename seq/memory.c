/* seq/memory.c - The Neural State Machine over sequences, the mixer "nsm".
 *
 *   q, k, v   = silu(conv(W x)); q, k to unit length and turned by clocks that the content drives
 *   slots     : a token opens a state where no key is nearer than tau_new, is written to the topk
 *               nearest by the delta rule, and reads the topk nearest to q; a null share takes what
 *               matches nothing
 *   dense     : the last dense_heads heads have no slots but a matrix S [dk, dv] addressed by the
 *               keys themselves: S_t = a S_{t-1} + beta k (v - a S_{t-1}' k)', read = S_t' q, log a
 *               = -exp(log_fade) softplus(w_fade x + b_fade)   (Gated DeltaNet, arXiv:2412.06464)
 *   window    : exact attention over the last `window` tokens, itself among them; of all heads, or
 *               (dense_window=false) of those with a pool
 *   y         = W_out (g m rms(read) w + (1 - g) window), g = sigmoid(W_gate x + b); or with
 *               gate=silu W_out (silu(W_gate x + b) (m rms(read) w + window)), as fading sums want
 *
 * The slots' write is the dense one with routings r, p in place of k, q and fixed usage in place of
 * a fade: the two keep what the other loses, single things for long, and a running sum of all.
 *
 * Letters: H heads, P of them with a pool, L with a window, dk and dv sizes of a key and a value, s
 * states, s0 of them learned, c taps of the convolutions, M pairs that a clock turns.
 * Parameters, weights [out, in]: w_q, w_k [H*dk, d], w_v [H*dv, d], conv_q, conv_k, conv_v [.., c],
 * w_beta [H, d], b_beta [H], log_gamma_w, null_w, log_gamma_r, null_r [P], log_gamma_a [L],
 * rel_bias [L, window], norm_mem [H, dv], w_gate [H*dv, d], b_gate, w_out [d, H*dv]; with decay
 * w_alpha [P, d], b_alpha; with clock w_clock [2H, d], b_clock, writing first; with s0 slot_key [P,
 * s0, dk], slot_val [P, s0, dv]; with comm_every b_comm, log_gamma_c [P]; with dense_heads w_fade
 * [H-P, d], b_fade, log_fade [H-P].
 * State: K [P, s, dk], S [P, s, dv], alive, usage, birth [P, s], phase [2, H], tail_q, tail_k,
 * tail_v [c-1, ..], win_k, win_v [window-1, L, ..], with dense_heads dense [H-P, dk, dv]: its size
 * does not depend on the tokens seen.
 * Cost: O(n s d) time; O(n) memory in training. */
#include "config.h"
#include "seq/internal.h"
#include "seq/memory.h"
#include "seq/memory_parts.h"

enum { WATCHED = 11, DENSE = 512 }; /* what can be watched; the largest key and value of a matrix */
enum { SHARE, SILU };               /* kinds of gate */

typedef struct {
    nsm_mixer base;
    int heads, dense_heads, dk, dv, s, s0, topk, window, conv, clock, clock_heads, comm_every;
    int pools;     /* P, the heads before the dense ones */
    int windows;   /* L, the first heads */
    int gate_kind; /* SHARE, SILU */
    bool decay, dense_window;
    float gate_bias, decay_bias, tau_new, beta_min, rho, tau_prune, tau_recycle;
    nsm_tensor *w[3], *taps[3]; /* of q, k, v */
    nsm_tensor *w_beta, *b_beta, *w_alpha, *b_alpha, *w_clock, *b_clock;
    nsm_tensor *log_gamma_w, *null_w, *log_gamma_r, *null_r, *log_gamma_a, *rel_bias;
    nsm_tensor *w_fade, *b_fade, *log_fade;
    nsm_tensor *norm_mem, *w_gate, *b_gate, *w_out;
    nsm_tensor *slot_key, *slot_val, *b_comm, *log_gamma_c;
    bool watch;
    nsm_memory_view view;
} memory;

static const nsm_mixer_key keys[] = {
    KEY_INT(memory, heads, 4, 1, 65536, "heads, each with a memory of its own"),
    KEY_INT(memory, dense_heads, 0, 0, 65535,
            "the last heads, that have a fading matrix in place of a pool of states"),
    KEY_INT(memory, dk, 0, 0, 65536, "size of a key (0: width / heads)"),
    KEY_INT(memory, dv, 0, 0, 65536, "size of a value (0: width / heads)"),
    KEY_BOOL(memory, dense_window, true, "dense heads have a window too"),
    KEY_LIVE_INT(memory, s, 64, 1, 1 << 20, "states of a pool"),
    KEY_INT(memory, s0, 0, 0, 1 << 20, "of them learned: always there"),
    KEY_LIVE_INT(memory, topk, 8, 1, 1 << 20, "states that a routing keeps"),
    KEY_INT(memory, window, 16, 1, 1 << 20, "tokens seen exactly, itself among them"),
    KEY_INT(memory, conv, 4, 1, 32, "taps of the convolutions"),
    { "gate", NSM_KEY_CHOICE, offsetof(memory, gate_kind), 0, 0, 0, "share|silu",
      "of what is told: it parts memory from window, or scales their sum", false },
    KEY_REAL(memory, gate_bias, 1, -20, 20,
             "of gate=silu over pools at the start: 1 for recall, 0 for text"),
    KEY_BOOL(memory, decay, false, "contents fade by what the tokens say"),
    KEY_REAL(memory, decay_bias, 6, -20, 20,
             "... sigmoid of this is kept at every token at the start: 6 for recall, -1 for text"),
    KEY_INT(memory, clock, -1, -1, 256,
            "pairs of a key that a clock turns (0: no clocks, -1: dk / 8)"),
    KEY_INT(memory, clock_heads, 0, 0, 65536,
            "the first heads, that have clocks (0: all with a pool); the others know contents "
            "alone"),
    KEY_INT(memory, comm_every, 0, 0, 1 << 30, "tokens between communication of states (0: never)"),
    KEY_LIVE_REAL(memory, tau_new, 0.9, -2, 2,
                  "a token less near to every state than this opens one"),
    KEY_LIVE_REAL(memory, beta_min, 0.1, 0, 1, "... if it is written at least so strongly"),
    KEY_LIVE_REAL(memory, rho, 0.99, 0, 1, "what usage keeps at every token: how long states last"),
    KEY_LIVE_REAL(memory, tau_prune, 0.02, 0, 1e30, "a state of less usage is given up"),
    KEY_LIVE_REAL(memory, tau_recycle, 0.5, 0, 1e30,
                  "a full pool's least used state goes to a token this many times as strong"),
    KEYS_END
};

/* ---- parameters ---- */
static nsm_tensor *normal(memory *m, const char *name, int64_t out, int64_t in)
{
    nsm_tensor *w = nsm_module_param(&m->base.module, name, 2, (int64_t[]){ out, in });
    if (w) nsm_init_normal(w, 0, 1 / sqrtf(3 * (float)in));
    return w;
}

static nsm_tensor *by_head(memory *m, const char *name, int64_t count, float value)
{
    return nsmi_mixer_fill(&m->base, name, 1, &count, value);
}

static nsm_tensor *learned(memory *m, const char *name, int64_t size, float deviation)
{
    nsm_tensor *w = nsm_module_param(&m->base.module, name, 3,
                                     (int64_t[]){ m->pools, m->s0, size });
    if (w) nsm_init_normal(w, 0, deviation);
    return w;
}

static void make_routing(memory *m)
{
    int64_t h = m->heads, p = m->pools;
    m->w_beta = normal(m, "w_beta", h, m->base.width);
    m->b_beta = by_head(m, "b_beta", h, 1);
    if (m->decay)
        m->w_alpha = nsmi_mixer_fill(&m->base, "w_alpha", 2, (int64_t[]){ p, m->base.width }, 0);
    if (m->decay) m->b_alpha = by_head(m, "b_alpha", p, m->decay_bias);
    if (m->clock)
        m->w_clock = nsmi_mixer_fill(&m->base, "w_clock", 2, (int64_t[]){ 2 * h, m->base.width },
                                     0);
    if (m->clock) m->b_clock = by_head(m, "b_clock", 2 * h, -2);
    m->log_gamma_w = by_head(m, "log_gamma_w", p, logf(4));
    m->null_w = by_head(m, "null_w", p, 2);
    m->log_gamma_r = by_head(m, "log_gamma_r", p, logf(4));
    m->null_r = by_head(m, "null_r", p, 0);
    m->log_gamma_a = by_head(m, "log_gamma_a", m->windows, logf(8));
    m->rel_bias = nsmi_mixer_fill(&m->base, "rel_bias", 2, (int64_t[]){ m->windows, m->window }, 0);
    if (m->s0) m->slot_key = learned(m, "slot_key", m->dk, 1);
    if (m->s0) m->slot_val = learned(m, "slot_val", m->dv, 0.02f);
    if (m->comm_every) m->b_comm = by_head(m, "b_comm", p, -3);
    if (m->comm_every) m->log_gamma_c = by_head(m, "log_gamma_c", p, logf(4));
}

/* Fades at the start: 0.02 to 0.3 of what is there at every token. */
static void make_dense(memory *m)
{
    int64_t k = m->dense_heads;
    m->w_fade = normal(m, "w_fade", k, m->base.width);
    m->b_fade = by_head(m, "b_fade", k, -4); /* softplus: 0.02 */
    m->log_fade = by_head(m, "log_fade", k, 0);
    if (m->log_fade) nsm_init_uniform(m->log_fade, 0, logf(16));
}

/* A gate by SiLU begins open where there is a pool: what one state holds must pass as it is, else
 * nothing is learned of recall.  A fading sum is learned faster where the gate has no sign yet. */
static nsm_tensor *gate_bias(memory *m)
{
    int64_t count = (int64_t)m->heads * m->dv, open = (int64_t)m->pools * m->dv;
    nsm_tensor *b = by_head(m, "b_gate", count, 0);
    float *x = b && m->gate_kind == SILU
                   ? nsmi_malloc(m->base.module.ctx, (size_t)count * sizeof *x)
                   : NULL;
    for (int64_t i = 0; x && i < count; i++) x[i] = i < open ? m->gate_bias : 0;
    if (x) nsm_tensor_set(b, x);
    free(x);
    return b;
}

static int make(nsm_mixer *mixer)
{
    static const char *const maps[3] = { "w_q", "w_k", "w_v" }, *const taps[3] = { "conv_q",
                                                                                   "conv_k",
                                                                                   "conv_v" };
    memory *m = (memory *)mixer;
    int own = mixer->width % m->heads ? 0 : mixer->width / m->heads;
    if (!m->dk) m->dk = own;
    if (!m->dv) m->dv = own;
    if (m->clock < 0) m->clock = m->dk / 8;
    m->pools = m->heads - m->dense_heads;
    m->windows = m->dense_window ? m->heads : m->pools;
    if (!m->dk || !m->dv || 2 * m->clock > m->dk || m->pools < 1 || m->clock_heads > m->pools ||
        m->s0 > m->s || (m->dense_heads && (m->dk > DENSE || m->dv > DENSE)))
        return nsm_error_set(mixer->module.ctx, NSM_EINVAL,
                             "nsm: width is %d, heads %d, dense_heads %d, clock_heads %d, dk %d, "
                             "dv %d, clock %d, s %d, s0 %d; want heads that divide the width or dk "
                             "and dv (of dense heads at most %d), dense_heads + clock_heads <= "
                             "heads, a head that is not dense, 2 clock <= dk, s0 <= s",
                             mixer->width, m->heads, m->dense_heads, m->clock_heads, m->dk, m->dv,
                             m->clock, m->s, m->s0, DENSE);
    for (int i = 0; i < 3; i++) {
        int64_t rows = (int64_t)m->heads * (i < 2 ? m->dk : m->dv);
        float bound = 1 / sqrtf((float)m->conv);
        m->w[i] = normal(m, maps[i], rows, mixer->width);
        m->taps[i] = nsm_module_param(&mixer->module, taps[i], 2, (int64_t[]){ rows, m->conv });
        if (m->taps[i]) nsm_init_uniform(m->taps[i], -bound, bound);
    }
    make_routing(m);
    if (m->dense_heads) make_dense(m);
    m->norm_mem = nsmi_mixer_fill(mixer, "norm_mem", 2, (int64_t[]){ m->heads, m->dv }, 1);
    m->w_gate = normal(m, "w_gate", (int64_t)m->heads * m->dv, mixer->width);
    m->b_gate = gate_bias(m);
    m->w_out = normal(m, "w_out", mixer->width, (int64_t)m->heads * m->dv);
    return nsm_error(mixer->module.ctx);
}

/* ---- token maps ---- */
/* The clocks of the first heads go on, the others stand still. */
static nsm_tensor *some_stand(nsm_tape *tape, memory *m, nsm_tensor *rate)
{
    int turning = m->clock_heads ? m->clock_heads : m->pools;
    if (turning == m->heads) return rate;
    float *goes = nsmi_tape_room(tape, (size_t)m->heads * sizeof *goes);
    if (!goes) return NULL;
    for (int h = 0; h < m->heads; h++) goes[h] = h < turning;
    return nsm_mul(tape, rate,
                   nsm_tape_constant(tape, NSM_F32, 3, (int64_t[]){ 1, 1, m->heads }, goes));
}

/* What gates by head a token has, through one product: beta, then alpha, then the clocks' rates,
 * then the dense heads' log a. */
typedef struct {
    nsm_tensor *beta, *alpha, *rate[2], *rates, *fade;
} gates;

static nsm_tensor *log_fade(nsm_tape *tape, memory *m, nsm_tensor *x)
{
    nsm_tensor *speed = nsm_neg(tape, nsm_exp(tape, m->log_fade));
    return nsm_mul(tape, nsm_softplus(tape, x, 1, 20), speed);
}

static gates gates_of(nsm_tape *tape, memory *m, nsm_tensor *x)
{
    nsm_tensor *w[4] = { m->w_beta }, *b[4] = { m->b_beta };
    int64_t h = m->heads, at = h, shares = h + (m->decay ? m->pools : 0) + (m->clock ? 2 * h : 0);
    int count = 1;
    gates g = { 0 };
    if (m->decay) w[count] = m->w_alpha, b[count++] = m->b_alpha;
    if (m->clock) w[count] = m->w_clock, b[count++] = m->b_clock;
    if (m->dense_heads) w[count] = m->w_fade, b[count++] = m->b_fade;
    nsm_tensor *all = count > 1 ? nsm_linear(tape, x, nsm_concat(tape, w, count, 0),
                                             nsm_concat(tape, b, count, 0))
                                : nsm_linear(tape, x, *w, *b);
    if (m->dense_heads) {
        nsm_tensor *part[2];
        nsm_split(tape, all, 2, 2, (int64_t[]){ shares, m->dense_heads }, part);
        g.fade = log_fade(tape, m, part[1]);
        all = part[0];
    }
    all = nsm_sigmoid(tape, all);
    g.beta = shares > h ? nsm_slice(tape, all, 2, 0, h) : all;
    if (m->decay) g.alpha = nsm_slice(tape, all, 2, at, m->pools), at += m->pools;
    if (m->clock) {
        g.rate[0] = some_stand(tape, m, nsm_slice(tape, all, 2, at, h));
        g.rate[1] = some_stand(tape, m, nsm_slice(tape, all, 2, at + h, h));
        if (m->watch) g.rates = nsm_slice(tape, all, 2, at, 2 * h);
    }
    return g;
}

/* gamma and null of writing and of reading, then kappa and gamma of communication: [4 or 6, H] */
static nsm_tensor *scalars_of(nsm_tape *tape, memory *m)
{
    nsm_tensor *row[6] = { nsm_exp(tape, m->log_gamma_w),
                           m->null_w,
                           nsm_exp(tape, m->log_gamma_r),
                           m->null_r,
                           NULL,
                           NULL };
    int rows = m->comm_every ? 6 : 4;
    if (m->comm_every) row[4] = nsm_sigmoid(tape, m->b_comm);
    if (m->comm_every) row[5] = nsm_exp(tape, m->log_gamma_c);
    for (int i = 0; i < rows; i++)
        row[i] = nsm_reshape(tape, row[i], 2, (int64_t[]){ 1, m->pools });
    return nsm_concat(tape, row, rows, 0);
}

/* The learned states at the start of a sequence, others zero: x [P, s0, size] -> [B, P, s, size].
 * x NULL: none. */
static nsm_tensor *at_start(nsm_tape *tape, memory *m, nsm_tensor *x, int64_t batch, int64_t size)
{
    nsm_tensor *rows = nsm_tape_tensor(tape, NSM_F32, 3,
                                       (int64_t[]){ m->pools, m->s - m->s0, size }, NULL);
    nsm_tensor *every = nsm_tape_tensor(tape, NSM_F32, 4, (int64_t[]){ batch, 1, 1, 1 }, NULL);
    if (!rows || !every) return NULL;
    nsm_tensor_zero(rows);
    nsm_tensor_zero(every);
    return nsm_add(tape, x ? nsm_concat(tape, (nsm_tensor *[]){ x, rows }, 2, 1) : rows, every);
}

static nsm_tensor *unit_keys(nsm_tape *tape, memory *m)
{
    if (!m->s0) return NULL;
    nsm_tensor *key = nsm_reshape(tape, m->slot_key, 4, (int64_t[]){ 1, m->pools, m->s0, m->dk });
    key = nsm_clock(tape, key, NULL, 0, NULL, 0, NULL);
    return key ? nsm_reshape(tape, key, 3, (int64_t[]){ m->pools, m->s0, m->dk }) : NULL;
}

/* ---- watching ---- */
static nsm_tensor **watched(memory *m, int i)
{
    nsm_memory_view *v = &m->view;
    nsm_tensor **const all[WATCHED] = { &v->slots.write, &v->slots.read,   &v->slots.usage,
                                        &v->slots.alive, &v->slots.pruned, &v->slots.recycled,
                                        &v->slots.slot,  &v->birth,        &v->seen,
                                        &v->beta,        &v->gate };
    return i < WATCHED ? all[i] : i == WATCHED ? &v->rate : NULL;
}

static void forget(memory *m)
{
    for (int i = 0; watched(m, i); i++) {
        nsm_tensor_free(*watched(m, i));
        *watched(m, i) = NULL;
    }
}

static void make_view(memory *m, int64_t b, int64_t n, int64_t s)
{
    nsm_ctx *ctx = m->base.module.ctx;
    int64_t h = m->pools, dim[4] = { b, h, n, s };
    static const nsm_type types[7] = { NSM_F32, NSM_F32, NSM_F32, NSM_U8, NSM_U8, NSM_U8, NSM_I32 };
    forget(m);
    for (int i = 0; i < 7; i++) {
        *watched(m, i) = nsm_tensor_new(ctx, types[i], i < 5 ? 4 : 3, dim);
        if (*watched(m, i)) nsm_tensor_zero(*watched(m, i));
    }
    m->view.birth = nsm_tensor_new(ctx, NSM_I64, 3, (int64_t[]){ b, h, s });
    m->view.seen = nsm_tensor_new(ctx, NSM_I64, 1, &b);
}

static nsm_tensor *copy_of(const nsm_tensor *x)
{
    nsm_tensor *y = x ? nsm_tensor_new(x->ctx, x->type, x->rank, x->dim) : NULL;
    if (y) nsm_tensor_copy(y, x);
    return y;
}

/* What was there before the first token. */
static void view_start(memory *m, const nsmi_memory_parts *in)
{
    int64_t count = m->view.birth ? nsm_numel(m->view.birth) : 0;
    if (in->birth) nsm_tensor_copy(m->view.birth, in->birth);
    if (in->seen) nsm_tensor_copy(m->view.seen, in->seen);
    else if (m->view.seen) nsm_tensor_zero(m->view.seen);
    int64_t *none = in->birth || !count
                        ? NULL
                        : nsmi_malloc(m->base.module.ctx, (size_t)count * sizeof *none);
    for (int64_t i = 0; none && i < count; i++) none[i] = -1;
    if (none) nsm_tensor_set(m->view.birth, none);
    free(none);
}

/* ---- forward ---- */
/* z -> silu(conv(z)), by head; the tail to go on with. */
static nsm_tensor *convolve(nsm_tape *tape, memory *m, int i, nsm_tensor *x, nsm_tensor *length,
                            const nsmi_memory_parts *in, bool carry, nsmi_memory_results *out)
{
    out->map[i] = nsm_linear(tape, x, m->w[i], NULL);
    nsm_tensor *y = nsm_conv1d(tape, out->map[i], m->taps[i], NULL, true, in->tail[i], length,
                               carry ? &out->tail[i] : NULL);
    return nsmi_split_heads(tape, y, m->heads);
}

/* Of [B, n, H, ..] the heads with a pool, and the dense ones behind them, or NULL. */
static void part_heads(nsm_tape *tape, memory *m, nsm_tensor *x, nsm_tensor *part[2])
{
    part[0] = x;
    part[1] = NULL;
    if (m->dense_heads)
        nsm_split(tape, x, 2, 2, (int64_t[]){ m->pools, m->dense_heads }, part);
}

/* q, k, v and beta so parted. */
typedef nsm_tensor *parted[4][2];
enum { Q, K, V, BETA };

/* o and mass [B, n, P, ..] of the pools, and the states they leave. */
static void read_pools(nsm_tape *tape, memory *m, const parted x, const gates *g,
                       const nsmi_memory_parts *in, nsm_tensor *length, nsm_tensor *slots[4])
{
    nsm_slots_config c = { in->key ? (int)in->key->dim[2] : m->s,
                           m->s0,
                           m->topk,
                           m->comm_every,
                           m->tau_new,
                           m->beta_min,
                           m->rho,
                           m->tau_prune,
                           m->tau_recycle,
                           in->usage,
                           in->alive,
                           in->birth,
                           in->seen,
                           length,
                           NULL };
    if (m->watch && x[Q][0]) {
        make_view(m, x[Q][0]->dim[0], x[Q][0]->dim[1], c.slots);
        view_start(m, in);
        c.trace = &m->view.slots;
    }
    nsm_slots(tape, &c, x[Q][0], x[K][0], x[V][0], x[BETA][0], g->alpha, scalars_of(tape, m),
              in->key, in->value, slots);
}

/* The dense heads' o behind that of the pools, their mass 1. */
static void read_dense(nsm_tape *tape, const parted x, const gates *g,
                       const nsmi_memory_parts *in, nsm_tensor *length, nsm_tensor *slots[4],
                       nsm_tensor **next)
{
    nsm_recurrence_config c = { .scale = 1,
                                .g = g->fade,
                                .beta = x[BETA][1],
                                .state = in->dense,
                                .length = length };
    if (!c.g || !c.beta) return;
    nsm_tensor *o = nsm_linear_recurrence(tape, x[Q][1], x[K][1], x[V][1], &c, next);
    nsm_tensor *mass = nsm_tape_tensor(tape, NSM_F32, 3, c.beta->dim, NULL);
    if (mass) nsm_tensor_fill(mass, 1);
    slots[0] = nsm_concat(tape, (nsm_tensor *[]){ slots[0], o }, 2, 2);
    slots[1] = nsm_concat(tape, (nsm_tensor *[]){ slots[1], mass }, 2, 2);
}

/* The window of the first heads [B, n, H, dv], nothing of the others. */
static nsm_tensor *look_back(nsm_tape *tape, memory *m, nsm_tensor *const qkv[3], const parted x,
                             const nsmi_memory_parts *in, nsm_tensor *length, nsm_tensor *past[2])
{
    nsm_tensor *first[3] = { qkv[0], qkv[1], qkv[2] };
    bool all = m->windows == m->heads;
    for (int i = 0; !all && i < 3; i++) first[i] = x[i][0];
    nsm_tensor *near = nsm_window_attention(tape, first[0], first[1], first[2],
                                            nsm_exp(tape, m->log_gamma_a), m->rel_bias, in->past_k,
                                            in->past_v, in->seen, length, past);
    if (all || !near) return near;
    nsm_tensor *none = nsm_tape_tensor(
        tape, NSM_F32, 4, (int64_t[]){ near->dim[0], near->dim[1], m->dense_heads, m->dv }, NULL);
    if (none) nsm_tensor_zero(none);
    return nsm_concat(tape, (nsm_tensor *[]){ near, none }, 2, 2);
}

/* What is told, [B, n, H*dv]: o and mass of the memory, the window, and the gate's logit. */
static nsm_tensor *mix(nsm_tape *tape, memory *m, nsm_tensor *o, nsm_tensor *mass, nsm_tensor *near,
                       nsm_tensor *gate)
{
    if (m->gate_kind == SHARE) return nsm_memory_mix(tape, o, mass, near, gate, m->norm_mem);
    if (!mass) return NULL;
    mass = nsm_reshape(tape, mass, 4, (int64_t[]){ mass->dim[0], mass->dim[1], m->heads, 1 });
    o = nsm_mul(tape, nsm_mul(tape, nsm_rms_norm(tape, o, NULL, 1, 1e-5f), m->norm_mem), mass);
    return nsm_mul_silu(tape, nsmi_join_last(tape, nsm_add(tape, o, near)), gate);
}

/* What is seen of the heads with a pool; where the gate scales both, each has half a share. */
static void view_gates(nsm_tape *tape, memory *m, const parted x, const gates *g, nsm_tensor *gate)
{
    m->view.beta = copy_of(x[BETA][0]);
    m->view.gate = copy_of(m->dense_heads ? nsm_slice(tape, gate, 2, 0, (int64_t)m->pools * m->dv)
                                          : gate);
    if (m->view.gate && m->gate_kind == SILU) nsm_tensor_zero(m->view.gate);
    m->view.rate = copy_of(g->rates);
}

int nsmi_memory_run(nsm_tape *tape, nsm_mixer *mixer, nsm_tensor *x, nsm_tensor *length,
                    const nsmi_memory_parts *given, nsmi_memory_results *out)
{
    static const nsmi_memory_parts nothing = { 0 };
    memory *m = (memory *)mixer;
    nsmi_memory_parts in = given ? *given : nothing;
    nsm_tensor *slots[4] = { NULL }, *qkv[3], *gate;
    memset(out, 0, sizeof *out);
    if (!in.key && (given || m->s0)) {
        in.key = at_start(tape, m, unit_keys(tape, m), x->dim[0], m->dk);
        in.value = at_start(tape, m, m->slot_val, x->dim[0], m->dv);
    }
    gates g = gates_of(tape, m, x);
    for (int i = 0; i < 3; i++) qkv[i] = convolve(tape, m, i, x, length, &in, given != NULL, out);
    qkv[0] = nsm_clock(tape, qkv[0], g.rate[1], m->clock, in.phase, 1, length);
    qkv[1] = nsm_clock(tape, qkv[1], g.rate[0], m->clock, in.phase, 0, length);
    parted heads;
    for (int i = 0; i < 4; i++) part_heads(tape, m, i < BETA ? qkv[i] : g.beta, heads[i]);
    read_pools(tape, m, heads, &g, &in, length, slots);
    if (m->dense_heads)
        read_dense(tape, heads, &g, &in, length, slots, given ? &out->dense : NULL);
    nsm_tensor *near = look_back(tape, m, qkv, heads, &in, length, given ? out->past : NULL);
    gate = nsm_linear(tape, x, m->w_gate, m->b_gate);
    out->y = nsm_linear(tape, mix(tape, m, slots[0], slots[1], near, gate), m->w_out, NULL);
    out->k = qkv[1];
    out->v = qkv[2];
    out->rate[0] = g.rate[0];
    out->rate[1] = g.rate[1];
    out->key = slots[2];
    out->value = slots[3];
    if (m->watch) view_gates(tape, m, heads, &g, gate);
    return nsm_error(mixer->module.ctx);
}

static const char *const tails[3] = { "tail_q", "tail_k", "tail_v" };

static nsm_tensor *forward(nsm_tape *tape, nsm_mixer *mixer, nsm_tensor *x, nsm_tensor *length,
                           nsm_state *s)
{
    nsmi_memory_results out;
    nsmi_memory_parts in = { 0 };
    if (s) {
        in.key = nsmi_state_read(tape, s, "K");
        in.value = nsmi_state_read(tape, s, "S");
        for (int i = 0; i < 3; i++) in.tail[i] = nsmi_state_read(tape, s, tails[i]);
        in.past_k = nsmi_state_read(tape, s, "win_k");
        in.past_v = nsmi_state_read(tape, s, "win_v");
        if (((memory *)mixer)->dense_heads) in.dense = nsmi_state_read(tape, s, "dense");
        in.usage = nsm_state_get(s, "usage"); /* these are read and written in place */
        in.alive = nsm_state_get(s, "alive");
        in.birth = nsm_state_get(s, "birth");
        in.phase = nsm_state_get(s, "phase");
        in.seen = s->seen;
    }
    if (nsmi_failed(mixer->module.ctx) ||
        nsmi_memory_run(tape, mixer, x, length, s ? &in : NULL, &out))
        return NULL;
    if (!s) return out.y;
    nsmi_state_write(s, "K", out.key);
    nsmi_state_write(s, "S", out.value);
    for (int i = 0; i < 3; i++) nsmi_state_write(s, tails[i], out.tail[i]);
    nsmi_state_write(s, "win_k", out.past[0]);
    nsmi_state_write(s, "win_v", out.past[1]);
    if (out.dense) nsmi_state_write(s, "dense", out.dense);
    return out.y;
}

/* ---- state ---- */
static int state(nsm_mixer *mixer, nsm_state *s)
{
    memory *m = (memory *)mixer;
    int64_t h = m->heads, p = m->pools, slots = m->s, dk = m->dk, dv = m->dv;
    if (m->s0 > m->s)
        return nsm_error_set(mixer->module.ctx, NSM_EINVAL,
                             "nsm: s is %d, less than the %d learned states", m->s, m->s0);
    nsm_state_add(s, "K", NSM_F32, 3, (int64_t[]){ p, slots, dk });
    nsm_state_add(s, "S", NSM_F32, 3, (int64_t[]){ p, slots, dv });
    nsm_state_add(s, "alive", NSM_U8, 2, (int64_t[]){ p, slots });
    nsm_state_add(s, "usage", NSM_F32, 2, (int64_t[]){ p, slots });
    nsm_state_add(s, "birth", NSM_I64, 2, (int64_t[]){ p, slots });
    nsm_state_add(s, "phase", NSM_F64, 2, (int64_t[]){ 2, h });
    for (int i = 0; i < 3; i++)
        nsm_state_add(s, tails[i], NSM_F32, 2, (int64_t[]){ m->conv - 1, h * (i < 2 ? dk : dv) });
    nsm_state_add(s, "win_k", NSM_F32, 3, (int64_t[]){ m->window - 1, m->windows, dk });
    nsm_state_add(s, "win_v", NSM_F32, 3, (int64_t[]){ m->window - 1, m->windows, dv });
    if (m->dense_heads)
        nsm_state_add(s, "dense", NSM_F32, 3, (int64_t[]){ m->dense_heads, dk, dv });
    return nsm_error(mixer->module.ctx);
}

/* No token has opened a state; the learned ones are alive. */
static int start(nsm_mixer *mixer, nsm_state *s)
{
    memory *m = (memory *)mixer;
    nsm_ctx *ctx = mixer->module.ctx;
    nsm_tensor *birth = nsm_state_get(s, "birth"), *alive = nsm_state_get(s, "alive");
    int64_t count = nsm_numel(birth), slots = birth->dim[2];
    int64_t *none = nsmi_malloc(ctx, (size_t)count * sizeof *none);
    uint8_t *there = nsmi_malloc(ctx, (size_t)count);
    if (none && there) {
        for (int64_t i = 0; i < count; i++) {
            none[i] = -1;
            there[i] = i % slots < m->s0;
        }
        nsm_tensor_set(birth, none);
        nsm_tensor_set(alive, there);
    }
    free(none);
    free(there);
    if (!m->s0 || nsmi_failed(ctx)) return nsm_error(ctx);
    nsm_tape *tape = nsm_tape_new(ctx);
    nsm_tape_inference(tape, true);
    int s_now = m->s;
    m->s = (int)slots;
    nsmi_state_write(s, "K", at_start(tape, m, unit_keys(tape, m), s->batch, m->dk));
    nsmi_state_write(s, "S", at_start(tape, m, m->slot_val, s->batch, m->dv));
    m->s = s_now;
    nsm_tape_free(tape);
    return nsm_error(ctx);
}

static void clear(nsm_mixer *mixer) { forget((memory *)mixer); }

/* ---- what can be seen ---- */
static int watch_it(nsm_mixer *m, bool on)
{
    ((memory *)m)->watch = on;
    if (!on) forget((memory *)m);
    return NSM_OK;
}

/* The part of x [B, ...] that is row's, on the host, to be freed. */
static void *host_row(const nsm_tensor *x, int64_t row)
{
    size_t bytes = (size_t)(nsm_numel(x) / x->dim[0]) * nsm_type_bytes(x->type);
    void *y = nsmi_malloc(x->ctx, bytes);
    if (y)
        x->ctx->dev.be->to_host(&x->ctx->dev, bytes, (const char *)x->data + (size_t)row * bytes,
                                y);
    return y;
}

/* Reading by the tokens under which the states read were filed, times the share of memory against
 * the window: the mean of the heads with a pool. */
static void add_reads(const memory *m, int64_t n, int64_t slots, const float *read,
                      const int32_t *opened, const float *gate, int64_t *birth, int64_t seen,
                      float *out)
{
    int64_t step = (int64_t)m->pools * m->dv;
    for (int64_t t = 0; t < n; t++) {
        double share = 0;
        for (int64_t c = 0; c < m->dv; c++) share += 1 / (1 + exp(-(double)gate[t * step + c]));
        share /= (double)m->dv * m->pools;
        if (opened[t] >= 0) birth[opened[t]] = seen + t;
        for (int64_t i = 0; i < slots; i++)
            if (birth[i] >= seen)
                out[t * n + birth[i] - seen] += (float)share * read[t * slots + i];
    }
}

static int flow(nsm_mixer *mixer, int64_t row, int64_t n, float *out)
{
    memory *m = (memory *)mixer;
    nsm_ctx *ctx = mixer->module.ctx;
    const nsm_memory_view *v = &m->view;
    if (!v->beta || row < 0 || row >= v->beta->dim[0] || n != v->beta->dim[1])
        return nsmi_flow_unseen(mixer, v->beta != NULL, row, n);
    int64_t slots = v->slots.read->dim[3], *birth = host_row(v->birth, row),
            *seen = host_row(v->seen, row);
    float *read = host_row(v->slots.read, row), *gate = host_row(v->gate, row);
    int32_t *opened = host_row(v->slots.slot, row);
    memset(out, 0, (size_t)(n * n) * sizeof *out);
    for (int64_t h = 0; h < m->pools && !nsmi_failed(ctx); h++)
        add_reads(m, n, slots, read + h * n * slots, opened + h * n, gate + h * m->dv,
                  birth + h * slots, *seen, out);
    free(birth);
    free(seen);
    free(read);
    free(gate);
    free(opened);
    return nsm_error(ctx);
}

const nsm_mixer_type nsmi_mixer_nsm = {
    .name = "nsm",
    .about =
        "Neural State Machine: a pool of states, opened, routed to and given up, beside a window",
    .bytes = sizeof(memory),
    .keys = keys,
    .make = make,
    .clear = clear,
    .forward = forward,
    .state = state,
    .start = start,
    .sizes = "s",
    .weights = "routing",
    .watch = watch_it,
    .flow = flow,
};

int nsm_memory_watch(nsm_mixer *m, bool on)
{
    if (!m || nsmi_failed(m->module.ctx)) return m ? nsm_error(m->module.ctx) : NSM_EINVAL;
    if (m->type != &nsmi_mixer_nsm)
        return nsm_error_set(m->module.ctx, NSM_EINVAL,
                             "nsm_memory_watch: the mixer is %s, want nsm", m->type->name);
    return watch_it(m, on);
}

const nsm_memory_view *nsm_memory_seen(const nsm_mixer *m)
{
    const memory *me = (const memory *)m;
    return m && m->type == &nsmi_mixer_nsm && me->view.beta ? &me->view : NULL;
}
