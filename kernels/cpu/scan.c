/* kernels/cpu/scan.c - Scans by channel: the selective scan of Mamba and the weighted sum of
 * RWKV-4.
 *
 * Lanes are channels, so a token's inputs are loaded as they stand; the state of a lane's channel
 * is N vectors in the first cache.  Nothing of size B n D N is made: forward for training keeps the
 * states before each NSMI_CHUNK of tokens, backward computes those within a chunk anew from the
 * last chunk on. Gradients of what all channels share (B, C of a token) leave a part for each block
 * of channels, added
 * in order: the same for any number of threads.  Letters: B batch, n tokens, D channels, N
 * states. */
#include "kernels/cpu/cpu.h"

enum { CHUNK = NSMI_CHUNK, VECTORS = 128 / W, MOST = NSMI_SCAN_MOST, AHEAD = 6, EXP_COST = 16 };

typedef nsmi_scan_values values;
typedef nsmi_scan_grads grads;

/* Some channels of one row: ch .. ch + lanes, of group g. */
typedef struct {
    const nsmi_scan *s;
    const values *in;
    int64_t b, g, ch, lanes;
} span;

static inline vf softplus(vf x) { return vf_max(x, vf_set(0)) + vf_log1p(vf_exp(-vf_abs(x))); }

/* x [D, N] of these channels: a vector a state. */
static inline void load_states(const span *p, const float *x, vf *to)
{
    for (int64_t n = 0; n < p->s->states; n++) {
        float lane[W] = { 0 };
        for (int64_t l = 0; x && l < p->lanes; l++) lane[l] = x[(p->ch + l) * p->s->states + n];
        to[n] = vf_load(lane);
    }
}

static inline void store_states(const span *p, const vf *from, bool add, float *x)
{
    for (int64_t n = 0; x && n < p->s->states; n++)
        for (int64_t l = 0; l < p->lanes; l++) {
            float *to = x + (p->ch + l) * p->s->states + n;
            *to = add ? *to + from[n][l] : from[n][l];
        }
}

static inline int64_t row_of(const span *p, int64_t t)
{
    return (p->b * p->s->n + t) * p->s->channels + p->ch;
}
static inline const float *shared_row(const span *p, const float *x, int64_t t)
{
    return x + ((p->b * p->s->n + t) * p->s->groups + p->g) * p->s->states;
}

/* What a token brings: the step dt, before softplus too, and u. */
typedef struct { vf raw, dt, u; } token;

static inline token load_token(const span *p, int64_t t, vf bias)
{
    const float *u = p->in->u + row_of(p, t), *dt = p->in->dt + row_of(p, t);
    __builtin_prefetch(u + AHEAD * p->s->channels);
    __builtin_prefetch(dt + AHEAD * p->s->channels);
    token k = { .raw = vf_get(dt, p->lanes) + bias, .u = vf_get(u, p->lanes) };
    k.dt = p->s->softplus ? softplus(k.raw) : k.raw;
    return k;
}

/* B or C of a token: its own numbers, or the channels' fixed ones. */
static inline __attribute__((always_inline)) vf factor(bool fixed, const vf *own, const float *row,
                                                       int64_t n)
{
    return fixed ? own[n] : vf_set(row[n]);
}

/* One token: s goes on; the sum over states of s C.  keep: where to leave s and its decays for
 * backward, or NULL. */
static inline __attribute__((always_inline)) vf step(const span *p, int64_t t, const token *k,
                                                     const vf *a, const vf *b, const vf *c,
                                                     bool fixed, vf *s, vf *keep)
{
    const float *brow = fixed ? NULL : shared_row(p, p->in->b, t),
                *crow = fixed ? NULL : shared_row(p, p->in->c, t);
    const int64_t states = p->s->states;
    vf y = vf_set(0), x = k->dt * k->u;
    for (int64_t n = 0; n < states; n++) {
        vf w = vf_exp_down(k->dt * a[n]);
        s[n] = s[n] * w + x * factor(fixed, b, brow, n);
        y += s[n] * factor(fixed, c, crow, n);
        if (keep) {
            keep[n] = s[n];
            keep[states + n] = w;
        }
    }
    return y;
}

static inline vf channel_value(const span *p, const float *x)
{
    return x ? vf_get(x + p->ch, p->lanes) : vf_set(0);
}

static float *kept_at(const span *p, float *states, int64_t chunk)
{
    int64_t chunks = nsmi_blocks(p->s->n, CHUNK);
    return states + ((p->b * chunks + chunk) * p->s->states) * p->s->channels + p->ch;
}

static void forward_span(const span *p, float *y, float *s1, float *states)
{
    const nsmi_scan *k = p->s;
    const int64_t n = nsmi_length(k->length, p->b, k->n), size = k->channels * k->states;
    vf a[MOST], b[MOST], c[MOST], s[MOST], bias = channel_value(p, p->in->bias),
                                           skip = channel_value(p, p->in->skip);
    load_states(p, p->in->a, a);
    if (k->fixed) {
        load_states(p, p->in->b, b);
        load_states(p, p->in->c, c);
    }
    load_states(p, p->in->s0 ? p->in->s0 + p->b * size : NULL, s);
    for (int64_t t = 0; t < n; t++) {
        if (states && t % CHUNK == 0)
            for (int64_t i = 0; i < k->states; i++)
                vf_put(kept_at(p, states, t / CHUNK) + i * k->channels, s[i], p->lanes);
        token now = load_token(p, t, bias);
        vf sum = k->fixed ? step(p, t, &now, a, b, c, true, s, NULL)
                          : step(p, t, &now, a, NULL, NULL, false, s, NULL);
        sum += skip * now.u;
        if (p->in->z) {
            vf z = vf_get(p->in->z + row_of(p, t), p->lanes);
            __builtin_prefetch(p->in->z + row_of(p, t) + AHEAD * k->channels);
            sum *= z * vf_sigmoid(z);
        }
        vf_put(y + row_of(p, t), sum, p->lanes);
    }
    for (int64_t t = n; t < k->n; t++) vf_put(y + row_of(p, t), vf_set(0), p->lanes);
    store_states(p, s, false, s1 + p->b * size);
}

/* Blocks of at most 128 channels, none across two groups. */
static int64_t blocks_of(const nsmi_scan *s)
{
    return nsmi_blocks(s->channels / s->groups, VECTORS * W);
}

static span block_span(const nsmi_scan *s, const values *in, int64_t task, int64_t *end)
{
    int64_t blocks = blocks_of(s), own = s->channels / s->groups, at = task % blocks,
            g = task / blocks % s->groups;
    *end = g * own + nsmi_block_end(at, VECTORS * W, own);
    return (span){ s, in, task / blocks / s->groups, g, g * own + at * VECTORS * W, 0 };
}

static int64_t work_of(const nsmi_scan *s)
{
    return s->batch * s->n * s->channels * s->states * EXP_COST;
}

static void scan(nsm_device *d, const nsmi_scan *s, const values *in, float *y, float *s1,
                 float *states)
{
#pragma omp parallel for schedule(dynamic) num_threads(nsmi_team(d, work_of(s)))
    for (int64_t i = 0; i < s->batch * s->groups * blocks_of(s); i++) {
        int64_t end;
        for (span p = block_span(s, in, i, &end); p.ch < end; p.ch += W) {
            p.lanes = end - p.ch < W ? end - p.ch : W;
            forward_span(&p, y, s1, states);
        }
    }
}

/* ---- backward ---- */
/* What one vector of channels carries from chunk to chunk. */
typedef struct { vf ds[MOST], da[MOST], db[MOST], dc[MOST], dskip, dbias; } sums;

/* A thread's buffers: states and decays of a chunk, what they were before it; dB and dC of its
 * tokens, lanes not yet added. */
typedef struct { vf *keep, *first, *db, *dc; } buffers;

static inline void put_add(float *to, int64_t at, vf x, int64_t lanes)
{
    if (to) vf_put(to + at, vf_get(to + at, lanes) + x, lanes);
}

static inline __attribute__((always_inline)) void token_back(const span *p, const buffers *m,
                                                             int64_t t, int64_t i, const vf *a,
                                                             const vf *b, const vf *c, bool fixed,
                                                             vf bias, vf skip, const float *dout,
                                                             const grads *to, sums *g)
{
    const int64_t states = p->s->states, at = row_of(p, t);
    const float *brow = fixed ? NULL : shared_row(p, p->in->b, t),
                *crow = fixed ? NULL : shared_row(p, p->in->c, t);
    const vf *s = m->keep + i * 2 * states, *w = s + states, *was = i ? s - 2 * states : m->first;
    token k = load_token(p, t, bias);
    vf dy = vf_get(dout + at, p->lanes);
    if (p->in->z) {
        vf z = vf_get(p->in->z + at, p->lanes), y = skip * k.u;
        for (int64_t n = 0; n < states; n++) y += s[n] * factor(fixed, c, crow, n);
        put_add(to->z, at, vf_silu_back(z, dy * y), p->lanes);
        dy *= z * vf_sigmoid(z);
    }
    vf ddt = vf_set(0), sum = vf_set(0), x = k.dt * k.u;
    for (int64_t n = 0; n < states; n++) {
        vf ds = g->ds[n] + dy * factor(fixed, c, crow, n), fade = ds * was[n] * w[n];
        vf dc = dy * s[n], db = ds * x;
        if (fixed) {
            g->dc[n] += dc;
            g->db[n] += db;
        } else {
            m->dc[i * states + n] += dc;
            m->db[i * states + n] += db;
        }
        sum += ds * factor(fixed, b, brow, n);
        ddt += fade * a[n];
        g->da[n] += fade * k.dt;
        g->ds[n] = ds * w[n];
    }
    ddt += sum * k.u;
    vf draw = p->s->softplus ? ddt * vf_sigmoid(k.raw) : ddt;
    g->dskip += dy * k.u;
    g->dbias += draw;
    put_add(to->u, at, sum * k.dt + dy * skip, p->lanes);
    put_add(to->dt, at, draw, p->lanes);
}

/* Tokens t0 .. t1 of one vector of channels. */
static void chunk_back(const span *p, const buffers *m, int64_t t0, int64_t t1, const float *states,
                       const float *dout, const grads *to, sums *g)
{
    const nsmi_scan *k = p->s;
    vf a[MOST], b[MOST], c[MOST], s[MOST], bias = channel_value(p, p->in->bias),
                                           skip = channel_value(p, p->in->skip);
    load_states(p, p->in->a, a);
    if (k->fixed) {
        load_states(p, p->in->b, b);
        load_states(p, p->in->c, c);
    }
    const float *kept = kept_at(p, (float *)states, t0 / CHUNK);
    for (int64_t n = 0; n < k->states; n++)
        m->first[n] = s[n] = vf_get(kept + n * k->channels, p->lanes);
    for (int64_t t = t0; t < t1; t++) {
        token now = load_token(p, t, bias);
        vf *keep = m->keep + (t - t0) * 2 * k->states;
        if (k->fixed) step(p, t, &now, a, b, c, true, s, keep);
        else step(p, t, &now, a, NULL, NULL, false, s, keep);
    }
    for (int64_t t = t1 - 1; t >= t0; t--) {
        if (k->fixed) token_back(p, m, t, t - t0, a, b, c, true, bias, skip, dout, to, g);
        else token_back(p, m, t, t - t0, a, NULL, NULL, false, bias, skip, dout, to, g);
    }
}

static void finish_span(const span *p, const sums *g, const grads *to)
{
    const int64_t size = p->b * p->s->channels * p->s->states, row = p->b * p->s->channels + p->ch;
    store_states(p, g->ds, true, to->s0 ? to->s0 + size : NULL);
    store_states(p, g->da, false, to->a ? to->a + size : NULL);
    if (p->s->fixed) {
        store_states(p, g->db, false, to->b ? to->b + size : NULL);
        store_states(p, g->dc, false, to->c ? to->c + size : NULL);
    }
    if (to->skip) vf_put(to->skip + row, g->dskip, p->lanes);
    if (to->bias) vf_put(to->bias + row, g->dbias, p->lanes);
}

static float *part_of(const nsmi_scan *s, float *scratch, int64_t b, int64_t g, int64_t block)
{
    return scratch + ((b * s->groups + g) * blocks_of(s) + block) * s->n * 2 * s->states;
}

/* One block of channels of a row, all chunks from the last; part [n, 2, N] gets its dB and dC. */
static void block_back(nsm_device *d, const nsmi_scan *s, const values *in, int64_t task,
                       const float *states, const float *dout, const float *ds1, float *scratch,
                       const grads *to)
{
    int64_t end, states_n = s->states;
    span p = block_span(s, in, task, &end);
    const int64_t start = p.ch, n = nsmi_length(s->length, p.b, s->n), rows = CHUNK * states_n;
    float *part = s->fixed ? NULL : part_of(s, scratch, p.b, p.g, task % blocks_of(s));
    vf *at = (vf *)(((nsmi_cpu_state *)d->impl)->pack + (int64_t)omp_get_thread_num() * NSMI_PACK);
    buffers m = { at, at + 2 * rows, at + 2 * rows + states_n, at + 3 * rows + states_n };
    sums *g = (sums *)(at + 4 * rows + states_n);
    for (int64_t v = 0; start + v * W < end; v++) {
        memset(&g[v], 0, sizeof g[v]);
        p.ch = start + v * W;
        p.lanes = end - p.ch < W ? end - p.ch : W;
        load_states(&p, ds1 ? ds1 + p.b * s->channels * states_n : NULL, g[v].ds);
    }
    if (part)
        memset(part + n * 2 * states_n, 0, (size_t)((s->n - n) * 2 * states_n) * sizeof *part);
    for (int64_t c = nsmi_blocks(n, CHUNK) - 1; c >= 0; c--) {
        int64_t t0 = c * CHUNK, t1 = nsmi_block_end(c, CHUNK, n);
        memset(m.db, 0, (size_t)(2 * rows) * sizeof(vf));
        for (int64_t v = 0; start + v * W < end; v++) {
            p.ch = start + v * W;
            p.lanes = end - p.ch < W ? end - p.ch : W;
            chunk_back(&p, &m, t0, t1, states, dout, to, &g[v]);
        }
        for (int64_t i = 0; part && i < (t1 - t0) * states_n; i++) {
            float *row = part + (t0 + i / states_n) * 2 * states_n + i % states_n;
            row[0] = vf_sum(m.db[i]);
            row[states_n] = vf_sum(m.dc[i]);
        }
    }
    for (int64_t v = 0; start + v * W < end; v++) {
        p.ch = start + v * W;
        p.lanes = end - p.ch < W ? end - p.ch : W;
        finish_span(&p, &g[v], to);
    }
}

/* dB and dC [B, n, G, N] += the parts of their group's blocks, in order. */
static void add_parts(nsm_device *d, const nsmi_scan *s, const float *scratch, const grads *to)
{
    const int64_t states = s->states;
#pragma omp parallel for schedule(static) \
    num_threads(nsmi_team(d, s->batch * s->n * s->groups * states * blocks_of(s)))
    for (int64_t row = 0; row < s->batch * s->n; row++)
        for (int64_t g = 0; g < s->groups; g++)
            for (int64_t block = 0; block < blocks_of(s); block++) {
                const float *from = part_of(s, (float *)scratch, row / s->n, g, block) +
                                    row % s->n * 2 * states;
                for (int64_t n = 0; n < states; n++) {
                    if (to->b) to->b[(row * s->groups + g) * states + n] += from[n];
                    if (to->c) to->c[(row * s->groups + g) * states + n] += from[states + n];
                }
            }
}

static void scan_back(nsm_device *d, const nsmi_scan *s, const values *in, const float *states,
                      const float *dout, const float *ds1, float *scratch, const grads *to)
{
#pragma omp parallel for schedule(dynamic) num_threads(nsmi_team(d, 3 * work_of(s)))
    for (int64_t i = 0; i < s->batch * s->groups * blocks_of(s); i++)
        block_back(d, s, in, i, states, dout, ds1, scratch, to);
    if (!s->fixed) add_parts(d, s, scratch, to);
}

/* ---- RWKV-4: y_t = (sum over i < t of e^((t-1-i) w + k_i) v_i + e^(u + k_t) v_t) / (the same
 * without v) ---- */
typedef struct { vf num, den, top; } wkv_state; /* the true sums are num e^top, den e^top */

static inline vf wkv_read(const wkv_state *s, vf u, vf k, vf v, vf *past, vf *own, vf *den)
{
    vf p = vf_max(s->top, u + k);
    *past = vf_exp_down(s->top - p);
    *own = vf_exp_down(u + k - p);
    *den = *past * s->den + *own;
    return (*past * s->num + *own * v) / *den;
}

static inline void wkv_write(wkv_state *s, vf w, vf k, vf v, vf *past, vf *own)
{
    vf q = vf_max(s->top + w, k);
    *past = vf_exp_down(s->top + w - q);
    *own = vf_exp_down(k - q);
    s->num = *past * s->num + *own * v;
    s->den = *past * s->den + *own;
    s->top = q;
}

typedef struct { int64_t n, channels, b, ch, lanes, there; } wkv_span;

static inline wkv_state wkv_load(const wkv_span *p, const float *s) /* s [3, C] */
{
    return (wkv_state){ vf_get(s + p->ch, p->lanes), vf_get(s + p->channels + p->ch, p->lanes),
                        vf_get(s + 2 * p->channels + p->ch, p->lanes) };
}
static inline void wkv_store(const wkv_span *p, const wkv_state *s, float *to)
{
    vf_put(to + p->ch, s->num, p->lanes);
    vf_put(to + p->channels + p->ch, s->den, p->lanes);
    vf_put(to + 2 * p->channels + p->ch, s->top, p->lanes);
}
static inline wkv_span wkv_span_of(int64_t n, int64_t channels, const int32_t *length, int64_t task)
{
    int64_t spans = nsmi_blocks(channels, W), b = task / spans, ch = task % spans * W;
    return (wkv_span){
        n, channels, b, ch, channels - ch < W ? channels - ch : W, nsmi_length(length, b, n)
    };
}

static void wkv(nsm_device *d, int64_t batch, int64_t n, int64_t channels, const int32_t *length,
                const float *w, const float *u, const float *k, const float *v, const float *s0,
                float *y, float *s1, float *states)
{
    const int64_t spans = nsmi_blocks(channels, W), chunks = nsmi_blocks(n, CHUNK);
#pragma omp parallel for schedule(static) \
    num_threads(nsmi_team(d, batch *n *channels * 4 * EXP_COST))
    for (int64_t i = 0; i < batch * spans; i++) {
        wkv_span p = wkv_span_of(n, channels, length, i);
        vf decay = vf_get(w + p.ch, p.lanes), bonus = vf_get(u + p.ch, p.lanes), past, own, den;
        wkv_state s = wkv_load(&p, s0 + p.b * 3 * channels);
        for (int64_t t = 0; t < n; t++) {
            int64_t at = (p.b * n + t) * channels + p.ch;
            if (states && t % CHUNK == 0)
                wkv_store(&p, &s, states + (p.b * chunks + t / CHUNK) * 3 * channels);
            vf kt = vf_get(k + at, p.lanes), vt = vf_get(v + at, p.lanes);
            vf_put(y + at, t < p.there ? wkv_read(&s, bonus, kt, vt, &past, &own, &den) : vf_set(0),
                   p.lanes);
            if (t < p.there) wkv_write(&s, decay, kt, vt, &past, &own);
        }
        wkv_store(&p, &s, s1 + p.b * 3 * channels);
    }
}

/* The scale of the sums is free: gradients are of num and den at the scale that stands, and none
 * passes through it but to the first. */
typedef struct { vf num, den, w, u; } wkv_grads;

static inline void wkv_token_back(const wkv_state *was, vf w, vf u, vf k, vf v, vf dy, wkv_grads *g,
                                  vf *dk, vf *dv)
{
    vf past, own, den, ahead, mine;
    wkv_state s = *was;
    vf y = wkv_read(was, u, k, v, &past, &own, &den);
    wkv_write(&s, w, k, v, &ahead, &mine);
    vf gn = dy / den, gd = -gn * y, through = mine * (g->num * v + g->den),
       at = own * (gn * v + gd);
    *dv = mine * g->num + own * gn;
    *dk = through + at;
    g->u += at;
    g->w += ahead * (g->num * was->num + g->den * was->den);
    g->num = ahead * g->num + past * gn;
    g->den = ahead * g->den + past * gd;
}

static void wkv_back(nsm_device *d, int64_t batch, int64_t n, int64_t channels,
                     const int32_t *length, const float *w, const float *u, const float *k,
                     const float *v, const float *states, const float *dout, float *dw, float *du,
                     float *dk, float *dv, float *ds0)
{
    const int64_t spans = nsmi_blocks(channels, W), chunks = nsmi_blocks(n, CHUNK);
#pragma omp parallel for schedule(static) \
    num_threads(nsmi_team(d, batch *n *channels * 8 * EXP_COST))
    for (int64_t i = 0; i < batch * spans; i++) {
        wkv_span p = wkv_span_of(n, channels, length, i);
        vf decay = vf_get(w + p.ch, p.lanes), bonus = vf_get(u + p.ch, p.lanes), zero = vf_set(0),
           past, own;
        wkv_grads g = { zero, zero, zero, zero };
        wkv_state was[CHUNK];
        for (int64_t c = nsmi_blocks(p.there, CHUNK) - 1; c >= 0; c--) {
            int64_t t0 = c * CHUNK, t1 = nsmi_block_end(c, CHUNK, p.there);
            wkv_state s = wkv_load(&p, states + (p.b * chunks + c) * 3 * channels);
            for (int64_t t = t0; t < t1; t++) {
                int64_t at = (p.b * n + t) * channels + p.ch;
                was[t - t0] = s;
                wkv_write(&s, decay, vf_get(k + at, p.lanes), vf_get(v + at, p.lanes), &past, &own);
            }
            for (int64_t t = t1 - 1; t >= t0; t--) {
                int64_t at = (p.b * n + t) * channels + p.ch;
                vf dkt, dvt;
                wkv_token_back(&was[t - t0], decay, bonus, vf_get(k + at, p.lanes),
                               vf_get(v + at, p.lanes), vf_get(dout + at, p.lanes), &g, &dkt, &dvt);
                put_add(dk, at, dkt, p.lanes);
                put_add(dv, at, dvt, p.lanes);
            }
        }
        wkv_state first = wkv_load(&p, states + p.b * chunks * 3 * channels);
        vf_put(dw + p.b * channels + p.ch, g.w, p.lanes);
        vf_put(du + p.b * channels + p.ch, g.u, p.lanes);
        if (!ds0 || p.there == 0) continue;
        put_add(ds0, p.b * 3 * channels + p.ch, g.num, p.lanes);
        put_add(ds0, (p.b * 3 + 1) * channels + p.ch, g.den, p.lanes);
        put_add(ds0, (p.b * 3 + 2) * channels + p.ch, g.num * first.num + g.den * first.den,
                p.lanes);
    }
}

void NSMI_FILL(scan)(nsm_backend *be)
{
    be->scan = scan;
    be->scan_back = scan_back;
    be->wkv = wkv;
    be->wkv_back = wkv_back;
}
