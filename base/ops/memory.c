/* base/ops/memory.c - The state memory's ops: slots, the exact window, clocks, and the mix of what
 * they read. */
#include "config.h"
#include "base/ops/common.h"

static bool is_shape(const nsm_tensor *t, nsm_type type, int rank, const int64_t *dim)
{
    bool ok = !t || (t->type == type && t->rank == rank);
    for (int k = 0; t && ok && k < rank; k++) ok = t->dim[k] == dim[k];
    return ok;
}
#define IS(t, type, ...) \
    is_shape(t, type, (int)(sizeof((int64_t[]){ __VA_ARGS__ }) / sizeof(int64_t)), \
             (const int64_t[]){ __VA_ARGS__ })

/* q, k [B,n,H,D], v [B,n,H,E]: inputs 0 to 2. */
static bool is_qkv(const nsm_node *n)
{
    const nsm_tensor *q = n->in[0], *v = n->in[2];
    return q->type == NSM_F32 && q->rank == 4 && q->dim[3] > 0 &&
           IS(n->in[1], NSM_F32, q->dim[0], q->dim[1], q->dim[2], q->dim[3]) && v->rank == 4 &&
           v->dim[3] > 0 && IS(v, NSM_F32, q->dim[0], q->dim[1], q->dim[2], v->dim[3]);
}

/* The gradient of input i to add to, or a room of zeros that nobody will look at. */
static float *gradient_or_room(nsm_node *n, int i)
{
    float *dx = DX(i);
    if (dx || !n->in[i] || nsmi_failed(n->ctx)) return dx;
    size_t bytes = (size_t)nsm_numel(n->in[i]) * sizeof(float);
    dx = nsm_node_scratch(n, bytes);
    if (dx) BE(n)->zero(DEV(n), bytes, dx);
    return dx;
}

/* A copy, for backward, of what the caller may change before. */
static bool save_copy(nsm_node *n, int k, const nsm_tensor *t)
{
    nsm_tensor *copy = t && n->recorded ? nsm_node_save(n, k, t->type, t->rank, t->dim) : NULL;
    if (copy && copy->data)
        BE(n)->copy(DEV(n), (size_t)nsm_numel(t) * nsm_type_bytes(t->type), t->data, copy->data);
    return !nsmi_failed(n->ctx);
}

/* Scratch of as many floats as the kernel's own answer was; a backend without the kernel leaves an
 * error there. */
static float *room_of(nsm_node *n, int64_t floats)
{
    return nsmi_failed(n->ctx) ? NULL : nsmi_floats(n, floats);
}

/* ---- slots: in = q, k, v, beta, alpha, scalar, key, value, usage, alive, birth, seen;
 * i = {slots, learned, top, comm_every}, f = {tau_new, beta_min, rho, tau_prune, tau_recycle}, p =
 * {length, trace} ---- */
enum { Q, K, V, BETA, ALPHA, SCALAR, KEY, VALUE, USAGE, ALIVE, BIRTH, SEEN };
enum { O, MASS, KEY_OUT, VALUE_OUT };
enum { START, OWNER, KEPT, PROB, SEEN_COPY, LENGTH_COPY };
/* with decay each token notes all values */
enum { CHUNK = 64, CHUNK_DECAY = 32, CHUNK_LEAST = 4, DECAY_FLOATS = 1 << 18 };

static nsmi_slots slots_of(const nsm_node *n)
{
    const nsm_tensor *q = n->in[Q], *v = n->in[V];
    nsmi_slots c = { .batch = q->dim[0],
                     .tokens = q->dim[1],
                     .heads = q->dim[2],
                     .keys = q->dim[3],
                     .values = v->dim[3],
                     .slots = n->i[0],
                     .learned = n->i[1],
                     .top = n->i[2],
                     .chunk = CHUNK,
                     .comm_every = n->i[3],
                     .tau_new = n->f[0],
                     .beta_min = n->f[1],
                     .rho = n->f[2],
                     .tau_prune = n->f[3],
                     .tau_recycle = n->f[4] };
    if (n->in[ALPHA]) {
        c.chunk = DECAY_FLOATS / (c.slots * c.values);
        c.chunk = c.chunk > CHUNK_DECAY   ? CHUNK_DECAY
                  : c.chunk < CHUNK_LEAST ? CHUNK_LEAST
                                          : c.chunk;
    }
    c.chunks = c.tokens / c.chunk + 1 + (c.comm_every ? c.tokens / c.comm_every + 1 : 0);
    if (c.top > c.slots) c.top = c.slots;
    return c;
}

static nsmi_slots_in slots_in(const nsm_node *n)
{
    return (nsmi_slots_in){ n->in[Q]->f32,
                            n->in[K]->f32,
                            n->in[V]->f32,
                            n->in[BETA]->f32,
                            n->in[ALPHA] ? n->in[ALPHA]->f32 : NULL,
                            n->in[SCALAR]->f32,
                            n->in[KEY] ? n->in[KEY]->f32 : NULL,
                            n->in[VALUE] ? n->in[VALUE]->f32 : NULL };
}

static bool trace_fits(const nsm_slots_trace *t, const nsmi_slots *c)
{
    int64_t b = c->batch, h = c->heads, n = c->tokens, s = c->slots;
    return !t || (t->write && t->read && t->usage && t->alive && t->pruned && t->recycled &&
                  t->slot && IS(t->write, NSM_F32, b, h, n, s) &&
                  IS(t->read, NSM_F32, b, h, n, s) && IS(t->usage, NSM_F32, b, h, n, s) &&
                  IS(t->alive, NSM_U8, b, h, n, s) && IS(t->pruned, NSM_U8, b, h, n, s) &&
                  IS(t->recycled, NSM_U8, b, h, n) && IS(t->slot, NSM_I32, b, h, n));
}

static void slots_shape(nsm_node *n)
{
    const nsm_tensor *length = n->p[0];
    if (!is_qkv(n)) {
        nsmi_bad_shape(n, "want q, k [B,n,H,dk], v [B,n,H,dv]");
        return;
    }
    nsmi_slots c = slots_of(n);
    int64_t b = c.batch, h = c.heads, s = c.slots;
    bool ok = IS(n->in[BETA], NSM_F32, b, c.tokens, h) &&
              IS(n->in[ALPHA], NSM_F32, b, c.tokens, h) &&
              IS(n->in[SCALAR], NSM_F32, c.comm_every ? 6 : 4, h) &&
              IS(n->in[KEY], NSM_F32, b, h, s, c.keys) &&
              IS(n->in[VALUE], NSM_F32, b, h, s, c.values) && !n->in[KEY] == !n->in[VALUE] &&
              IS(n->in[USAGE], NSM_F32, b, h, s) && IS(n->in[ALIVE], NSM_U8, b, h, s) &&
              IS(n->in[BIRTH], NSM_I64, b, h, s) && !n->in[USAGE] == !n->in[ALIVE] &&
              !n->in[USAGE] == !n->in[BIRTH] && (n->in[KEY] || (!n->in[USAGE] && !c.learned)) &&
              IS(n->in[SEEN], NSM_I64, b) && IS(length, NSM_I32, b) && trace_fits(n->p[1], &c);
    if (!ok) {
        nsmi_bad_shape(n, "want beta, alpha [B,n,H], scalar [4|6,H], key [B,H,s,dk] with value "
                          "[B,H,s,dv], usage, alive, birth [B,H,s], seen [B], "
                          "length [B], and what is traced to fit these");
        return;
    }
    OUT(n, O, b, c.tokens, h, c.values);
    OUT(n, MASS, b, c.tokens, h);
    OUT(n, KEY_OUT, b, h, s, c.keys);
    OUT(n, VALUE_OUT, b, h, s, c.values);
}

/* What backward needs is made; false on an error. */
static bool slots_saved(nsm_node *n, const nsmi_slots *c, nsmi_slots_saved *saved)
{
    if (n->recorded && !n->saved[START]) {
        int64_t b = c->batch, h = c->heads, s = c->slots;
        nsm_node_save(n, START, NSM_F32, 5, (int64_t[]){ b, h, c->chunks, s, c->values });
        nsm_node_save(n, OWNER, NSM_I32, 4, (int64_t[]){ b, h, c->chunks + 1, s });
        nsm_node_save(n, KEPT, NSM_I32, 4, (int64_t[]){ b, h, c->tokens, 2 * c->top + 1 });
        nsm_node_save(n, PROB, NSM_F32, 4, (int64_t[]){ b, h, c->tokens, 2 * c->top });
    }
    if (nsmi_failed(n->ctx)) return false;
    if (n->recorded)
        *saved = (nsmi_slots_saved){ n->saved[START]->f32, n->saved[OWNER]->i32,
                                     n->saved[KEPT]->i32, n->saved[PROB]->f32 };
    return true;
}

static void slots_forward(nsm_node *n)
{
    const nsm_tensor *length = n->p[0];
    const nsm_slots_trace *t = n->p[1];
    nsmi_slots c = slots_of(n);
    nsmi_slots_in in = slots_in(n);
    nsmi_slots_state st = { 0 };
    nsmi_slots_saved saved;
    nsmi_slots_trace trace;
    c.seen = n->in[SEEN] ? n->in[SEEN]->i64 : NULL;
    c.length = length ? length->i32 : NULL;
    if (n->in[USAGE])
        st = (nsmi_slots_state){ n->in[USAGE]->f32, n->in[ALIVE]->u8, n->in[BIRTH]->i64 };
    if (t)
        trace = (nsmi_slots_trace){ t->write->f32, t->read->f32,    t->usage->f32, t->alive->u8,
                                    t->pruned->u8, t->recycled->u8, t->slot->i32 };
    float *scratch = room_of(n, BE(n)->slots_room(DEV(n), &c, in.alpha != NULL, false));
    if (!scratch || !save_copy(n, SEEN_COPY, n->in[SEEN]) || !save_copy(n, LENGTH_COPY, length) ||
        !slots_saved(n, &c, &saved))
        return;
    BE(n)->slots(DEV(n), &c, &in, &st, scratch, Y(O), Y(MASS), Y(KEY_OUT), Y(VALUE_OUT),
                 n->recorded ? &saved : NULL, t ? &trace : NULL);
}

static void slots_backward(nsm_node *n)
{
    nsmi_slots c = slots_of(n);
    nsmi_slots_in in = slots_in(n);
    nsmi_slots_saved saved;
    c.seen = n->saved[SEEN_COPY] ? n->saved[SEEN_COPY]->i64 : NULL;
    c.length = n->saved[LENGTH_COPY] ? n->saved[LENGTH_COPY]->i32 : NULL;
    float *scratch = room_of(n, BE(n)->slots_room(DEV(n), &c, in.alpha != NULL, true));
    nsmi_slots_grad g = { DY(O),
                          DY(MASS),
                          DY(KEY_OUT),
                          DY(VALUE_OUT),
                          gradient_or_room(n, Q),
                          gradient_or_room(n, K),
                          gradient_or_room(n, V),
                          gradient_or_room(n, BETA),
                          gradient_or_room(n, ALPHA),
                          gradient_or_room(n, SCALAR),
                          n->in[KEY] ? DX(KEY) : NULL,
                          n->in[VALUE] ? DX(VALUE) : NULL };
    if (slots_saved(n, &c, &saved)) BE(n)->slots_back(DEV(n), &c, &in, &saved, scratch, &g);
}

const nsm_op nsmi_op_slots = { "nsm_slots",
                               slots_shape,
                               slots_forward,
                               slots_backward,
                               4,
                               NSM_READS_IN(Q) | NSM_READS_IN(K) | NSM_READS_IN(V) |
                                   NSM_READS_IN(BETA) | NSM_READS_IN(ALPHA) | NSM_READS_IN(SCALAR) |
                                   NSM_READS_IN(KEY),
                               false };

int nsm_slots(nsm_tape *tape, const nsm_slots_config *c, nsm_tensor *q, nsm_tensor *k,
              nsm_tensor *v, nsm_tensor *beta, nsm_tensor *alpha, nsm_tensor *scalar,
              nsm_tensor *key, nsm_tensor *value, nsm_tensor *out[4])
{
    memset(out, 0, 4 * sizeof *out);
    if (!tape || !q || !k || !v || !beta || !scalar)
        return tape ? nsm_error(nsm_tape_ctx(tape)) : NSM_EINVAL;
    if (c->slots < 1 || c->learned < 0 || c->learned > c->slots || c->top < 1 || c->comm_every < 0)
        return nsm_error_set(
            nsm_tape_ctx(tape), NSM_EINVAL,
            "nsm_slots: %d slots, %d learned, %d kept by a routing, communication every %d tokens",
            c->slots, c->learned, c->top, c->comm_every);
    return nsm_apply_many(tape, &nsmi_op_slots,
                          &(nsm_args){ .in = { q, k, v, beta, alpha, scalar, key, value, c->usage,
                                               c->alive, c->birth, c->seen },
                                       .i = { c->slots, c->learned, c->top, c->comm_every },
                                       .f = { c->tau_new, c->beta_min, c->rho, c->tau_prune,
                                              c->tau_recycle },
                                       .p = { c->length, c->trace } },
                          out, 4);
}

/* ---- window: in = q, k, v, gamma, bias, past_k, past_v, seen, length; i = {next wanted}; saved =
 * lse, a copy of seen ---- */
enum { GAMMA = 3, BIAS, PAST_K, PAST_V, WINDOW_SEEN, WINDOW_LENGTH };

static nsmi_window window_of(const nsm_node *n, const nsm_tensor *seen)
{
    const nsm_tensor *q = n->in[Q];
    return (nsmi_window){ q->dim[0],
                          q->dim[1],
                          q->dim[2],
                          q->dim[3],
                          n->in[V]->dim[3],
                          n->in[BIAS]->dim[1],
                          seen ? seen->i64 : NULL };
}

static nsmi_window_in window_in(const nsm_node *n)
{
    const nsm_tensor *k = n->in[PAST_K], *v = n->in[PAST_V];
    return (nsmi_window_in){ n->in[Q]->f32,     n->in[K]->f32,    n->in[V]->f32,
                             n->in[GAMMA]->f32, n->in[BIAS]->f32, k ? k->f32 : NULL,
                             v ? v->f32 : NULL };
}

static void window_shape(nsm_node *n)
{
    const nsm_tensor *q = n->in[Q], *bias = n->in[BIAS];
    bool ok = is_qkv(n) && bias->rank == 2 && bias->dim[1] > 0 &&
              IS(bias, NSM_F32, q->dim[2], bias->dim[1]) && IS(n->in[GAMMA], NSM_F32, q->dim[2]);
    if (ok) {
        nsmi_window c = window_of(n, NULL);
        ok = IS(n->in[PAST_K], NSM_F32, c.batch, c.window - 1, c.heads, c.keys) &&
             IS(n->in[PAST_V], NSM_F32, c.batch, c.window - 1, c.heads, c.values) &&
             !n->in[PAST_K] == !n->in[PAST_V] && IS(n->in[WINDOW_SEEN], NSM_I64, c.batch) &&
             IS(n->in[WINDOW_LENGTH], NSM_I32, c.batch);
    }
    if (!ok) {
        nsmi_bad_shape(n, "want q, k [B,n,H,D], v [B,n,H,E], gamma [H], bias [H,w], past_k "
                          "[B,w-1,H,D] with past_v [B,w-1,H,E], seen int64 [B], "
                          "length int32 [B]");
        return;
    }
    nsm_node_out(n, 0, NSM_F32, 4, n->in[V]->dim);
    if (!n->i[0]) return;
    OUT(n, 1, q->dim[0], bias->dim[1] - 1, q->dim[2], q->dim[3]);
    OUT(n, 2, q->dim[0], bias->dim[1] - 1, q->dim[2], n->in[V]->dim[3]);
}

static void window_forward(nsm_node *n)
{
    nsmi_window c = window_of(n, n->in[WINDOW_SEEN]);
    nsmi_window_in in = window_in(n);
    float *scratch = room_of(n, BE(n)->window_room(DEV(n), &c, false));
    nsm_tensor *lse = n->recorded ? SAVE(n, 0, c.batch, c.tokens, c.heads) : NULL;
    if (!scratch || !save_copy(n, 1, n->in[WINDOW_SEEN])) return;
    BE(n)->window(DEV(n), &c, &in, scratch, Y(0), lse ? lse->f32 : NULL);
    if (!n->i[0]) return;
    const int32_t *length = n->in[WINDOW_LENGTH] ? n->in[WINDOW_LENGTH]->i32 : NULL;
    BE(n)->conv1d_tail(DEV(n), c.batch, c.tokens, c.heads * c.keys, c.window, in.k, in.past_k,
                       length, Y(1));
    BE(n)->conv1d_tail(DEV(n), c.batch, c.tokens, c.heads * c.values, c.window, in.v, in.past_v,
                       length, Y(2));
}

static void window_backward(nsm_node *n)
{
    nsmi_window c = window_of(n, n->saved[1]);
    nsmi_window_in in = window_in(n);
    float *scratch = room_of(n, BE(n)->window_room(DEV(n), &c, true));
    nsmi_window_grad g = { gradient_or_room(n, Q),           gradient_or_room(n, K),
                           gradient_or_room(n, V),           gradient_or_room(n, GAMMA),
                           gradient_or_room(n, BIAS),        n->in[PAST_K] ? DX(PAST_K) : NULL,
                           n->in[PAST_V] ? DX(PAST_V) : NULL };
    if (!nsmi_failed(n->ctx) && DY(0))
        BE(n)->window_back(DEV(n), &c, &in, n->saved[0]->f32, DY(0), scratch, &g);
}

const nsm_op nsmi_op_window = { "nsm_window_attention",
                                window_shape,
                                window_forward,
                                window_backward,
                                5,
                                NSM_READS_IN(Q) | NSM_READS_IN(K) | NSM_READS_IN(V) |
                                    NSM_READS_IN(GAMMA) | NSM_READS_IN(BIAS) |
                                    NSM_READS_IN(PAST_K) | NSM_READS_IN(PAST_V),
                                false };

nsm_tensor *nsm_window_attention(nsm_tape *tape, nsm_tensor *q, nsm_tensor *k, nsm_tensor *v,
                                 nsm_tensor *gamma, nsm_tensor *bias, nsm_tensor *past_k,
                                 nsm_tensor *past_v, nsm_tensor *seen, nsm_tensor *length,
                                 nsm_tensor *next[2])
{
    nsm_tensor *out[3] = { NULL, NULL, NULL };
    nsm_apply_many(tape, &nsmi_op_window,
                   &(nsm_args){ .in = { q, k, v, gamma, bias, past_k, past_v, seen, length },
                                .i = { next != NULL } },
                   out, 3);
    if (next) memcpy(next, out + 1, 2 * sizeof *next);
    return out[0];
}

/* ---- clock: in = x, rate, start, length; i = {pairs, row}; saved = phase, 1 / norm ---- */
enum { CLOCK_RATE = 1, CLOCK_START, CLOCK_LENGTH };

static nsmi_clock clock_of(const nsm_node *n)
{
    const nsm_tensor *x = n->in[0], *start = n->in[CLOCK_START];
    nsmi_clock c = { .batch = x->dim[0],
                     .tokens = x->dim[1],
                     .heads = x->dim[2],
                     .size = x->dim[3],
                     .pairs = n->i[0],
                     .row = n->i[1] };
    if (start) c.rows = start->dim[1];
    return c;
}

static void clock_shape(nsm_node *n)
{
    const nsm_tensor *x = n->in[0], *start = n->in[CLOCK_START];
    bool ok = x->type == NSM_F32 && x->rank == 4;
    if (ok) {
        nsmi_clock c = clock_of(n);
        ok = c.pairs >= 0 && c.pairs <= NSMI_CLOCK_PAIRS && 2 * c.pairs <= c.size &&
             IS(n->in[CLOCK_RATE], NSM_F32, c.batch, c.tokens, c.heads) &&
             (n->in[CLOCK_RATE] || !c.pairs) && IS(n->in[CLOCK_LENGTH], NSM_I32, c.batch) &&
             IS(start, start && start->type == NSM_F64 ? NSM_F64 : NSM_F32, c.batch, c.rows,
                c.heads) &&
             c.row >= 0 && (!start || c.row < c.rows);
    }
    if (!ok) {
        nsmi_bad_shape(n, "want x [B,n,H,D], at most D/2 and 256 pairs, rate [B,n,H], start "
                          "[B,rows,H], length int32 [B]");
        return;
    }
    nsm_node_out(n, 0, NSM_F32, 4, x->dim);
    SAVE(n, 1, x->dim[0], x->dim[1], x->dim[2]);
    if (n->i[0]) nsm_node_save(n, 0, NSM_F64, 3, x->dim);
}

static void clock_forward(nsm_node *n)
{
    const nsm_tensor *start = n->in[CLOCK_START], *length = n->in[CLOCK_LENGTH];
    nsmi_clock c = clock_of(n);
    c.length = length ? length->i32 : NULL;
    if (start && start->type == NSM_F64) c.start = start->f64;
    else if (start) c.start_float = start->f32;
    BE(n)->clock(DEV(n), &c, X(0), c.pairs ? X(CLOCK_RATE) : NULL,
                 c.pairs ? n->saved[0]->f64 : NULL, n->saved[1]->f32, Y(0));
}

static void clock_backward(nsm_node *n)
{
    const nsm_tensor *start = n->in[CLOCK_START];
    nsmi_clock c = clock_of(n);
    float beta, *dx = nsmi_dx_or_scratch(n, 0, &beta),
                *scratch = nsmi_floats(n, c.batch * c.tokens * c.heads);
    float *drate = c.pairs ? DX(CLOCK_RATE) : NULL,
          *dstart = c.pairs && start && start->type == NSM_F32 ? DX(CLOCK_START) : NULL;
    if (!nsmi_failed(n->ctx))
        BE(n)->clock_back(DEV(n), &c, c.pairs ? n->saved[0]->f64 : NULL, n->saved[1]->f32, Y(0),
                          DY(0), scratch, beta, dx, drate, dstart);
}

const nsm_op nsmi_op_clock = { "nsm_clock", clock_shape,      clock_forward, clock_backward,
                               1,           NSM_READS_OUT(0), false };

nsm_tensor *nsm_clock(nsm_tape *tape, nsm_tensor *x, nsm_tensor *rate, int pairs, nsm_tensor *start,
                      int row, nsm_tensor *length)
{
    return nsm_apply(tape, &nsmi_op_clock,
                     &(nsm_args){ .in = { x, rate, start, length }, .i = { pairs, row } });
}

/* ---- mix: in = o, mass, near, gate, w ---- */
enum { MIX_O, MIX_MASS, MIX_NEAR, MIX_GATE, MIX_W };

static void mix_shape(nsm_node *n)
{
    const nsm_tensor *o = n->in[MIX_O];
    bool ok = o->type == NSM_F32 && o->rank == 4 && o->dim[3] > 0 &&
              IS(n->in[MIX_NEAR], NSM_F32, o->dim[0], o->dim[1], o->dim[2], o->dim[3]) &&
              IS(n->in[MIX_MASS], NSM_F32, o->dim[0], o->dim[1], o->dim[2]) &&
              IS(n->in[MIX_GATE], NSM_F32, o->dim[0], o->dim[1], o->dim[2] * o->dim[3]) &&
              IS(n->in[MIX_W], NSM_F32, o->dim[2], o->dim[3]);
    if (ok) OUT(n, 0, o->dim[0], o->dim[1], o->dim[2] * o->dim[3]);
    else nsmi_bad_shape(n, "want o, near [B,n,H,E], mass [B,n,H], gate [B,n,H*E], w [H,E]");
}

static void mix_forward(nsm_node *n)
{
    const int64_t *dim = n->in[MIX_O]->dim;
    BE(n)->memory_mix(DEV(n), dim[0] * dim[1], dim[2], dim[3], X(MIX_O), X(MIX_MASS), X(MIX_NEAR),
                      X(MIX_GATE), X(MIX_W), Y(0));
}

static void mix_backward(nsm_node *n)
{
    const int64_t *dim = n->in[MIX_O]->dim;
    nsmi_mix x = { X(MIX_O), X(MIX_MASS), X(MIX_NEAR), X(MIX_GATE) };
    nsmi_mix_grad g;
    /* in the order of writing: one tensor may be two of them */
    g.gate = nsm_node_dx_beta(n, MIX_GATE, &g.beta[3]);
    g.near = nsm_node_dx_beta(n, MIX_NEAR, &g.beta[2]);
    g.mass = nsm_node_dx_beta(n, MIX_MASS, &g.beta[1]);
    g.o = nsm_node_dx_beta(n, MIX_O, &g.beta[0]);
    g.w = DX(MIX_W);
    if (!nsmi_failed(n->ctx))
        BE(n)->memory_mix_back(DEV(n), dim[0] * dim[1], dim[2], dim[3], &x, X(MIX_W), DY(0), &g);
}

const nsm_op nsmi_op_memory_mix = { "nsm_memory_mix",
                                    mix_shape,
                                    mix_forward,
                                    mix_backward,
                                    5,
                                    NSM_READS_IN(0) | NSM_READS_IN(1) | NSM_READS_IN(2) |
                                        NSM_READS_IN(3) | NSM_READS_IN(4),
                                    false };

nsm_tensor *nsm_memory_mix(nsm_tape *tape, nsm_tensor *o, nsm_tensor *m, nsm_tensor *near,
                           nsm_tensor *gate, nsm_tensor *w)
{
    return nsm_apply(tape, &nsmi_op_memory_mix, &(nsm_args){ .in = { o, m, near, gate, w } });
}
