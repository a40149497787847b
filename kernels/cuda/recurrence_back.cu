/* kernels/cuda/recurrence_back.cu - Gradients of the linear recurrences over heads, chunk by chunk:
 * those of states are carried from the end, arrays that met in scores give each other theirs, those
 * of decays are sums from the chunk's end (recurrence.cu). */
#include "kernels/cuda/recurrence.h"

/* ---- x and y, which met in scores a with A += left right', get dx and dy ---- */
typedef struct {
    sequences s;
    int64_t dk, dv;
    heads_view x, y;           /* [D] */
    heads_view left, right;    /* [E]: of what scores gave, the gradient; of what they took */
    /* [E]: dx_i also = P(0, i) (reads_i S'), dy_j = P(j, m) (writes_j dS'); p NULL: not */
    heads_view reads, writes;
    decay_view w;
    bool by_value, early, strict;
    const float *states, *dstates;
    float beta_x, beta_y;
    float *dx, *dy;            /* [B, n, H, D] */
} meeting;

/* a = left right' below the diagonal */
static __device__ void gradient_of_scores(const meeting &k, const strip &left, const strip &right,
                                          tile_room &m, square a)
{
    const int row = tile_row(), col = tile_col();
    float z[QUAD][QUAD];
    tile_clear(z);
    tile_product<true, true>(
        m, (int)k.dv, [&](int i, int e) { return strip_at(left, i, e); },
        [&](int j, int e) { return strip_at(right, j, e); }, z);
    for (int r = 0; r < QUAD; r++)
        for (int c = 0; c < QUAD; c++)
            a[row + r][col + c] = col + c + k.strict <= row + r ? z[r][c] : 0;
    __syncthreads();
}

static __global__ void __launch_bounds__(BLOCK, 2) meet_kernel(meeting k)
{
    __shared__ tile_room m;
    __shared__ square a;
    __shared__ second_room room;
    chunk_place p = place_of(k.s, blockIdx.x);
    strip x = strip_of(k.s, k.x, p), y = strip_of(k.s, k.y, p), left = strip_of(k.s, k.left, p),
          right = strip_of(k.s, k.right, p);
    strip reads = strip_of(k.s, k.reads.p ? k.reads : k.left, p),
          writes = strip_of(k.s, k.writes.p ? k.writes : k.right, p);
    state_view s = state_of_chunk(k.states, k.s, p, 0, k.dk, k.dv),
               ds = state_of_chunk(k.dstates, k.s, p, 1, k.dk, k.dv);
    fading w = fading_of(k.s, k.w, p);
    if (k.by_value)
        tile_scores(
            m, room.scores, (int)k.dv, [&](int t, int e) { return strip_at(left, t, e); },
            [&](int t, int e) { return strip_at(right, t, e); },
            [&](int t, int e) { return decay_at(w, t, e); }, k.early, k.strict, a);
    else gradient_of_scores(k, left, right, m, a);
    for (int d0 = 0; d0 < k.dk; d0 += TOKENS) {
        float z[QUAD][QUAD];
        auto decays = [&](int t, int d) { return k.by_value ? 1 : decay_at(w, t, d0 + d); };
        tile_clear(z);
        if (k.reads.p)
            tile_product<true, true>(
                m, (int)k.dv, [&](int i, int e) { return strip_at(reads, i, e); },
                [&](int d, int e) { return state_at(s, d0 + d, e); }, z);
        tile_by_row(m, a, [&](int t, int d) { return strip_at(y, t, d0 + d); }, decays, k.early, z);
        tile_put(k.s, p, k.dx, k.dk, d0, k.beta_x, z);
        tile_clear(z);
        if (k.writes.p)
            tile_product<true, true>(
                m, (int)k.dv, [&](int j, int e) { return strip_at(writes, j, e); },
                [&](int d, int e) { return state_at(ds, d0 + d, e); }, z);
        tile_by_col(m, a, [&](int t, int d) { return strip_at(x, t, d0 + d); }, decays, k.early, z);
        tile_put(k.s, p, k.dy, k.dk, d0, k.beta_y, z);
    }
}

static void meet(nsm_device *d, const meeting &k)
{
    int64_t tasks = k.s.batch * k.s.heads * k.s.chunks;
    NSM_LAUNCH(meet_kernel, (unsigned)tasks, BLOCK, stream_of(d), k);
    launched(d);
}

/* ---- gradients of decays: every x that reads adds x dx, every y that is written takes y dy; all
 * later tokens of the chunk, and S' dS' at its end ---- */
enum { TERMS = 4 };
/* early: read before the token's own decay */
typedef struct { heads_view x; const float *dx; float sign; bool early; } decay_term;
typedef struct {
    sequences s;
    int64_t dk, dv, size;      /* size: of the terms' rows */
    bool each, by_value;       /* a gradient for each column */
    int terms;
    decay_term term[TERMS];
    const float *states, *dstates;
    float *dg;                 /* [B, n, H(, size)] += */
} decay_gradient;

/* What token t of column c adds to its own decay (late), and to those before it alone. */
static __device__ void decay_terms(const decay_gradient &k, const chunk_place &p, int t, int c,
                                   float *late, float *early)
{
    *late = *early = 0;
    for (int i = 0; i < k.terms; i++) {
        strip x = strip_of(k.s, k.term[i].x, p);
        float v = k.term[i].sign * strip_at(x, t, c) *
                  k.term[i].dx[((p.b * k.s.n + p.t0 + t) * k.s.heads + p.h) * k.size + c];
        *(k.term[i].early ? early : late) += v;
    }
}

/* The sum over the rest of its row (or column) of S' dS' */
static __device__ float end_term(const decay_gradient &k, const float *s, const float *ds,
                                 int64_t c)
{
    float sum = 0;
    if (k.by_value)
        for (int64_t d = 0; d < k.dk; d++) sum += s[d * k.dv + c] * ds[d * k.dv + c];
    else
        for (int64_t e = lane_of(); e < k.dv; e += LANES) sum += s[c * k.dv + e] * ds[c * k.dv + e];
    return k.by_value ? sum : warp_sum(sum);
}

static __global__ void decay_gradient_kernel(decay_gradient k)
{
    __shared__ float end[NSMI_RECURRENCE_MOST], late[TOKENS], early[TOKENS];
    chunk_place p = place_of(k.s, blockIdx.x);
    const int64_t state = (p.head * (k.s.chunks + 1) + p.c + 1) * k.dk * k.dv;
    const int warp = (int)threadIdx.x / LANES;
    for (int64_t c = k.by_value ? threadIdx.x : warp; c < k.size; c += k.by_value ? BLOCK : WARPS) {
        float sum = end_term(k, k.states + state, k.dstates + state, c);
        if (k.by_value || lane_of() == 0) end[c] = sum;
    }
    for (int t = warp; !k.each && t < p.m; t += WARPS) {
        float a = 0, b = 0, x, y;
        for (int c = (int)lane_of(); c < k.size; c += LANES) {
            decay_terms(k, p, t, c, &x, &y);
            a += x;
            b += y;
        }
        late[t] = warp_sum(a);
        early[t] = warp_sum(b);
    }
    __syncthreads();
    float *dg = k.dg + ((p.b * k.s.n + p.t0) * k.s.heads + p.h) * (k.each ? k.size : 1);
    if (!k.each && threadIdx.x == 0) {
        float sum = 0;
        for (int64_t c = 0; c < k.size; c++) sum += end[c];
        for (int t = p.m - 1; t >= 0; t--) {
            sum += late[t];
            dg[t * k.s.heads] += sum;
            sum += early[t];
        }
    }
    for (int64_t c = threadIdx.x; k.each && c < k.size; c += BLOCK) {
        float sum = end[c], a, b;
        for (int t = p.m - 1; t >= 0; t--) {
            decay_terms(k, p, t, (int)c, &a, &b);
            sum += a;
            dg[t * k.s.heads * k.size + c] += sum;
            sum += b;
        }
    }
}

/* ---- gradients of the inputs from those of what the chunks were given ---- */
typedef struct {
    recurrence_work w;
    const float *dout;
    float *dq, *dk, *da, *db, *dv; /* in scratch memory */
    /* [B, n, H]: with a bonus, the gradient of a token's score with itself */
    float *own;
    nsmi_recurrence_grads to;
} finishing;

static __device__ __forceinline__ void add_to(float *to, int64_t at, float v)
{
    if (to) to[at] += v;
}

/* A warp a token and head. */
static __global__ void finish_kernel(int64_t rows, finishing f)
{
    const recurrence_work &w = f.w;
    const nsmi_recurrence &r = w.r;
    int64_t i = group_number<LANES>(), h = i % r.heads, row = i / r.heads;
    if (i >= rows || row % r.n >= nsmi_length(r.length, row / r.n, r.n)) return;
    const float *q = step_row(w.s, w.q.p, row, h, w.q.heads, r.dk),
                *k = step_row(w.s, w.k.p, row, h, w.k.heads, r.dk);
    const bool delta = w.solves && !w.pairs;
    float beta = delta ? w.in.beta[i] : 1, sum = 0, own = 0;
    if (delta) {
        const float *v = step_row(w.s, w.in.v, row, h, r.v_heads, r.dv);
        sum = dot_warp(f.dv + i * r.dv, v, r.dv) - dot_warp(f.da + i * r.dk, k, r.dk);
        if (lane_of() == 0) add_to(f.to.beta, i, sum);
    }
    if (w.in.bonus) {
        own = dot_warp(f.dout + i * r.dv, step_row(w.s, w.v.p, row, h, w.v.heads, r.dv), r.dv);
        if (lane_of() == 0) f.own[i] = own;
    }
    for (int64_t d = lane_of(); d < r.dk; d += LANES) {
        int64_t at = i * r.dk + d;
        float u = w.in.bonus ? own * w.in.bonus[h * r.dk + d] : 0;
        add_to(f.to.q, at, r.scale * (f.dq[at] + u * k[d]));
        add_to(f.to.k, at, f.dk[at] + u * r.scale * q[d] - (delta ? beta * f.da[at] : 0));
        if (w.pairs) add_to(f.to.a, at, f.da[at]);
        if (w.pairs) add_to(f.to.b, at, f.db[at]);
    }
    for (int64_t e = lane_of(); e < r.dv; e += LANES)
        add_to(f.to.v, i * r.dv + e, beta * f.dv[i * r.dv + e]);
}

/* The bonus [B, H, D] += sum over tokens of own q k: a part for each chunk, then these. */
static __global__ void bonus_kernel(int64_t items, finishing f, float *part)
{
    const nsmi_recurrence &r = f.w.r;
    EACH_ITEM(i, items) {
        chunk_place p = place_of(f.w.s, i / r.dk);
        strip q = strip_of(f.w.s, f.w.q, p), k = strip_of(f.w.s, f.w.k, p);
        int d = (int)(i % r.dk);
        float sum = 0;
        for (int t = 0; t < p.m; t++)
            sum += f.own[(p.b * r.n + p.t0 + t) * r.heads + p.h] * strip_at(q, t, d) *
                   strip_at(k, t, d);
        part[i] = sum;
    }
}

static __global__ void bonus_join_kernel(int64_t items, int64_t chunks, int64_t dk,
                                         const float *part, float *bonus)
{
    EACH_ITEM(i, items) {
        float sum = 0;
        for (int64_t c = 0; c < chunks; c++) sum += part[(i / dk * chunks + c) * dk + i % dk];
        bonus[i] += sum;
    }
}

typedef struct {
    finishing f;
    /* gradients of the states behind chunks, and first; dE; T' of what W was written by */
    float *dstates, *de, *back_x;
    float *dout_in, *o, *part;
} backing;

static void backing_rooms(backing *k, const nsmi_recurrence *r, const nsmi_recurrence_values *in,
                          const float *dout, const nsmi_recurrence_grads *to, float *base)
{
    recurrence_work *w = &k->f.w;
    const int64_t rows = r->batch * r->n * r->heads, keys = rows * r->dk, values = rows * r->dv;
    nsmi_recurrence_rooms(w, r, in, base);
    k->f.dout = dout;
    k->f.to = *to;
    k->dstates = take_floats(w, r->batch * r->heads * (w->s.chunks + 1) * r->dk * r->dv);
    k->f.dq = take_floats(w, keys);
    k->f.dk = take_floats(w, keys);
    k->f.dv = take_floats(w, values);
    if (w->solves) k->f.da = take_floats(w, keys);
    if (w->solves) k->back_x = take_floats(w, keys);
    if (w->pairs) k->f.db = take_floats(w, keys);
    /* of the delta rule dE is the gradient of beta v */
    k->de = w->pairs ? take_floats(w, values) : k->f.dv;
    if (w->by_value) k->dout_in = take_floats(w, values);
    if (w->by_value && to->g) k->o = take_floats(w, values);
    if (in->bonus) k->f.own = take_floats(w, rows);
    if (in->bonus) k->part = take_floats(w, r->batch * r->heads * w->s.chunks * r->dk);
}

/* W = x S + y of every chunk, from states that are kept */
static __global__ void written_kernel(sequences s, heads_view x, const float *states, int64_t dk,
                                      int64_t dv, float *y)
{
    __shared__ tile_room m;
    chunk_place p = place_of(s, blockIdx.x);
    strip from = strip_of(s, x, p);
    state_view before = state_of_chunk(states, s, p, 0, dk, dv);
    for (int e0 = 0; e0 < dv; e0 += TOKENS) {
        float z[QUAD][QUAD];
        tile_clear(z);
        tile_product<true, false>(
            m, (int)dk, [&](int t, int d) { return strip_at(from, t, d); },
            [&](int e, int d) { return state_at(before, d, e0 + e); }, z);
        tile_put(s, p, y, dv, e0, 1, z);
    }
}

/* W; T' K^ and T' A' dO, from which dE is carried. */
static void prepare_solving_back(nsm_device *d, const backing *k, const float *states,
                                 heads_view dout)
{
    const recurrence_work *w = &k->f.w;
    const nsmi_recurrence *r = &w->r;
    const int64_t tasks = r->batch * r->heads * w->s.chunks;
    NSM_LAUNCH(written_kernel, (unsigned)tasks, BLOCK, stream_of(d), w->s, own_view(w, w->x, r->dk),
               states, r->dk, r->dv, w->y);
    nsmi_recurrence_solve(d, w->s, w->t, true, own_view(w, w->pairs ? w->b_out : w->k_out, r->dk),
                          k->back_x);
    nsmi_recurrence_read(d, read_of_scores(w, w->q, w->b, false, true, dout, 0, k->de));
    nsmi_recurrence_solve(d, w->s, w->t, true, own_view(w, k->de, r->dv), k->de);
}

static void carry_back(nsm_device *d, const backing *k, const float *ds1, heads_view dout)
{
    const recurrence_work *w = &k->f.w;
    const nsmi_recurrence *r = &w->r;
    carrying c = { w->s, true, w->by_value, r->dk, r->dv, 0,          {},         {},
                   {},   {},   w->all,      ds1,   k->de, k->dstates, k->f.to.s0, true };
    c.l[0] = w->by_value ? w->q : own_view(w, w->q_in, r->dk);
    c.r[0] = w->by_value ? own_view(w, k->dout_in, r->dv) : dout;
    if (w->solves) {
        c.l[1] = own_view(w, w->a_in, r->dk);
        c.x = own_view(w, k->back_x, r->dk);
        c.y = own_view(w, k->de, r->dv);
    }
    nsmi_recurrence_carry(d, c);
}

/* dq, dk, da, db: from every two arrays that met. */
static void meet_all(nsm_device *d, const backing *k, const float *states, heads_view dout)
{
    const recurrence_work *w = &k->f.w;
    const nsmi_recurrence *r = &w->r;
    const heads_view none = {}, mine = written_by_keys(w), written = own_view(w, w->y, r->dv),
                     de = own_view(w, k->de, r->dv);
    const meeting first = { w->s,       r->dk, r->dv, w->q,        w->k,      dout,      mine,
                            dout,       mine,  w->w,  w->by_value, r->before, r->before, states,
                            k->dstates, 0,     0,     k->f.dq,     k->f.dk };
    meeting m = first;
    if (w->by_value) {
        m.reads = own_view(w, k->dout_in, r->dv);
        m.writes = own_view(w, w->v_out, r->dv);
    }
    meet(d, m);
    if (w->pairs)
        meet(d, meeting{ w->s, r->dk, r->dv, w->q, w->b, dout, written, none, written, w->w, false,
                         false, false, states, k->dstates, 1, 0, k->f.dq, k->f.db });
    if (w->solves)
        meet(d,
             meeting{ w->s, r->dk, r->dv, w->a, w->b, de, written, de, none, w->w, false, w->pairs,
                      true, states, k->dstates, 0, 1, k->f.da, w->pairs ? k->f.db : k->f.dk });
    if (w->pairs)
        meet(d, meeting{ w->s, r->dk, r->dv, w->a, w->k, de, w->v, none, none, w->w, false, true,
                         true, states, k->dstates, 1, 1, k->f.da, k->f.dk });
}

/* dv, where it is not dE. */
static void values_back(nsm_device *d, const backing *k, heads_view dout)
{
    const recurrence_work *w = &k->f.w;
    const nsmi_recurrence *r = &w->r;
    if (w->solves && !w->pairs) return;
    heads_view base = w->by_value ? w->k : own_view(w, w->k_out, r->dk);
    nsmi_recurrence_read(d, reading{ w->s, r->dk, r->dv, w->q, w->k, w->w, w->by_value, r->before,
                                     r->before, true, w->in.bonus, base, k->dstates, 1, dout, 0,
                                     k->f.dv });
    if (w->pairs)
        nsmi_recurrence_read(d, read_of_scores(w, w->a, w->k, true, true,
                                               own_view(w, k->de, r->dv), 1, k->f.dv));
}

static void decays_back(nsm_device *d, const backing *k, const float *states)
{
    const recurrence_work *w = &k->f.w;
    const nsmi_recurrence *r = &w->r;
    const int64_t tasks = r->batch * r->heads * w->s.chunks;
    decay_gradient g = { w->s,
                         r->dk,
                         r->dv,
                         w->by_value ? r->dv : r->dk,
                         r->fade != NSMI_FADE_SCALAR,
                         w->by_value,
                         0,
                         {},
                         states,
                         k->dstates,
                         k->f.to.g };
    if (w->by_value) {
        nsmi_recurrence_read_out(d, w, states, k->o);
        g.term[g.terms++] = decay_term{ own_view(w, k->o, r->dv), k->f.dout, 1, false };
        g.term[g.terms++] = decay_term{ w->v, k->f.dv, -1, false };
    } else {
        g.term[g.terms++] = decay_term{ w->q, k->f.dq, 1, r->before };
        g.term[g.terms++] = decay_term{ w->k, k->f.dk, -1, false };
        if (w->solves) g.term[g.terms++] = decay_term{ w->a, k->f.da, 1, w->pairs };
        if (w->pairs) g.term[g.terms++] = decay_term{ w->b, k->f.db, -1, false };
    }
    NSM_LAUNCH(decay_gradient_kernel, (unsigned)tasks, BLOCK, stream_of(d), g);
    launched(d);
}

static void recurrence_back(nsm_device *d, const nsmi_recurrence *r,
                            const nsmi_recurrence_values *in, const float *states,
                            const float *dout, const float *ds1, const nsmi_recurrence_grads *to)
{
    backing k = {};
    const int64_t rows = r->batch * r->n * r->heads, heads = r->batch * r->heads;
    if (rows == 0) return;
    backing_rooms(&k, r, in, dout, to, NULL);
    float *base = scratch_floats(d, k.f.w.used);
    if (!base) return;
    backing_rooms(&k, r, in, dout, to, base);
    heads_view dout_view = view_of(dout, r->heads, r->dv, 1);
    nsmi_recurrence_prepare(d, &k.f.w, dout, k.dout_in);
    if (k.f.w.solves) prepare_solving_back(d, &k, states, dout_view);
    carry_back(d, &k, ds1, dout_view);
    meet_all(d, &k, states, dout_view);
    values_back(d, &k, dout_view);
    if (to->g && r->fade) decays_back(d, &k, states);
    NSM_LAUNCH(finish_kernel, groups_of(rows, LANES), BLOCK, stream_of(d), rows, k.f);
    if (in->bonus && to->bonus) {
        FOR_ITEMS(d, bonus_kernel, heads * k.f.w.s.chunks * r->dk, k.f, k.part);
        FOR_ITEMS(d, bonus_join_kernel, heads * r->dk, k.f.w.s.chunks, r->dk, k.part, to->bonus);
    }
    launched(d);
}

void nsmi_cuda_recurrence_back(nsm_backend *be) { be->recurrence_back = recurrence_back; }
