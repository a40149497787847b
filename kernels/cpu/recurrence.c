/* kernels/cpu/recurrence.c - Linear recurrences over heads, chunk by chunk: linear attention and
 * its kin.
 *
 *   S_t = Diag(w_t) S_{t-1} + k_t v_t'      o_t = scale S_t' q_t      (S [D, E], formulas in
 *   backend.h)
 *
 * A chunk of NSMI_CHUNK tokens is taken at once, as in the chunkwise forms of RetNet
 * (arXiv:2307.08621), GLA (arXiv:2312.06635) and Mamba-2 (arXiv:2405.21060): what came before the
 * chunk is read through S, what stands in it through a triangle of scores; all of it products of
 * small matrices (tile.h) and fading sums (decay.h).  With S, S' the states before and after, P(j,
 * i) the decay from j to i:
 *
 *   O = scale (Q~ S + A V),  A_ij = q_i . P(j, i) k_j        S' = P(0, m) S + K^' V
 *
 * Q~ is Q faded from the chunk's start, K^ is K faded to its end.  A token that first reads the
 * state by a vector a_t and writes what it found back by b_t (delta rule: a = -beta k, b = k,
 * RWKV-7: any two) writes w_t, which the tokens of a chunk owe each other: W = E + A_ab W with A_ab
 * strictly lower, solved by forward substitution (the UT transform of arXiv:2406.06484), by blocks
 * of products.
 *
 * With decays on the values' columns (the first pass of gated slot attention, arXiv:2409.07146) it
 * is O
 * that fades: O_i = sum over j of (q_i . k_j) P(j, i) v_j + P(0, i) S' q_i.
 *
 * Backward goes over the chunks from the last, with the states before each kept by forward and all
 * else computed anew.  A log decay's gradient is sum over what it fades: every reader x adds x dx,
 * every written y takes y dy, and the state after the chunk S' dS'; summed from the chunk's end.
 *
 * A task is a head of a row of the batch, alone: nothing depends on the threads. */
#include "kernels/cpu/recurrence.h"

static float beta_at(const work *c, int64_t i)
{
    return c->in->beta[row_at(c, c->t0 + i, c->r->heads, 1)];
}

static void open_chunk(work *c, int64_t t0, int64_t m)
{
    const nsmi_recurrence *r = c->r;
    c->t0 = t0;
    c->m = m;
    load(c, c->in->q, r->q_heads, r->dk, r->scale, c->q);
    load(c, c->in->k, r->k_heads, r->dk, 1, c->k);
    load(c, c->in->v, r->v_heads, r->dv, 1, c->v);
    if (c->pairs) {
        load(c, c->in->a, r->heads, r->dk, 1, c->a);
        load(c, c->in->b, r->heads, r->dk, 1, c->bb);
    } else if (c->solves) { /* the delta rule */
        load(c, c->in->k, r->k_heads, r->dk, -1, c->a);
        for (int64_t i = 0; i < m; i++) {
            float beta = beta_at(c, i);
            for (int64_t j = 0; j < c->ld; j++) c->a[i * c->ld + j] *= beta;
            for (int64_t j = 0; j < c->le; j++) c->v[i * c->le + j] *= beta;
        }
    }
    load_decays(c);
}

/* ---- what both directions need ---- */

/* Rows i0.. of x into a packing of m rows by n columns. */
static void pack_rows(const float *x, int64_t i0, int64_t rows, int64_t m, int64_t n, float *packed)
{
    for (int64_t v = 0; v < n / W; v++) {
        int64_t width;
        float *to = packed_at(packed, n, m, v, &width);
        for (int64_t i = i0; i < i0 + rows; i++)
            vf_store(to + i * width, vf_load(x + i * n + v * W));
    }
}

/* y = (1 - A)^-1 y with A strictly lower, or (1 - A')^-1 y; packed gets y. */
static void solve(const work *c, const float *a, bool turned, float *y, float *packed)
{
    int32_t first[GROUPS], last[GROUPS];
    int64_t blocks = nsmi_blocks(c->m, BLOCK);
    for (int64_t at = 0; at < blocks; at++) {
        int64_t i0 = (turned ? blocks - 1 - at : at) * BLOCK,
                rows = c->m - i0 < BLOCK ? c->m - i0 : BLOCK;
        for (int g = 0; g < GROUPS; g++) {
            first[g] = turned ? (int32_t)(i0 + rows) : 0;
            last[g] = turned ? (int32_t)c->m : (int32_t)i0;
        }
        if (at > 0)
            tile_run(&(tile_product){ turned ? a + i0 : a + i0 * CHUNK, CHUNK, turned, packed, rows,
                                      c->le, c->m, 1, 1, y + i0 * c->le, c->le, first, last,
                                      false });
        for (int64_t n = 1; n < rows; n++) {
            int64_t i = turned ? i0 + rows - 1 - n : i0 + n;
            float *yi = y + i * c->le;
            for (int64_t l = 0; l < n; l++) {
                int64_t j = turned ? i0 + rows - 1 - l : i0 + l;
                vf f = vf_set(turned ? a[j * CHUNK + i] : a[i * CHUNK + j]);
                const float *yj = y + j * c->le;
                for (int64_t e = 0; e < c->le; e += W)
                    vf_store(yi + e, vf_load(yi + e) + f * vf_load(yj + e));
            }
        }
        pack_rows(y, i0, rows, c->m, c->le, packed);
    }
}

/* sum of q u k; the bonus u [H, D] is what a token that reads early has of itself */
static float bonus_score(const work *c, int64_t i)
{
    const float *u = c->in->bonus + c->h * c->r->dk, *q = c->q + i * c->ld, *k = c->k + i * c->ld;
    float sum = 0;
    for (int64_t j = 0; j < c->r->dk; j++) sum += q[j] * u[j] * k[j];
    return sum;
}

/* The triangles of scores, and w: what each token writes, packed in pw (v in pv). */
static void inner(work *c, const float *s0)
{
    const decays *s = &c->fade;
    const bool early = c->r->before;
    if (!c->solves || c->pairs) tile_pack(c->v, c->le, false, c->le, c->m, c->pv);
    tile_pack(s0, c->r->dv, false, c->r->dv, c->r->dk, c->ps);
    decay_scores(s, c->q, c->k, early, early, c->aqk);
    for (int64_t i = 0; c->in->bonus && i < c->m; i++) c->aqk[i * CHUNK + i] = bonus_score(c, i);
    if (!c->solves) return;
    fade_in(s, c->a, c->pairs, false, c->x);
    memcpy(c->w, c->v, (size_t)(c->m * c->le) * sizeof *c->w);
    if (c->pairs) {
        decay_scores(s, c->a, c->k, true, true, c->aak);
        decay_scores(s, c->q, c->bb, false, false, c->aqb);
        multiply_lower(s, c->aak, false, c->pv, c->le, 0, c->w, c->le);
    }
    multiply(c->x, c->ld, false, c->ps, c->m, c->le, c->r->dk, 1, c->w, c->le);
    decay_scores(s, c->a, c->pairs ? c->bb : c->k, c->pairs, true, c->aab);
    solve(c, c->aab, false, c->w, c->pw);
}

/* What is written by key k in the end: v, or w. */
static const float *written(const work *c) { return c->solves && !c->pairs ? c->pw : c->pv; }

static void add_state(const work *c, const float *k, const float *packed, float *s1)
{
    fade_out(&c->fade, k, false, c->x);
    multiply(c->x, c->ld, true, packed, c->r->dk, c->r->dv, c->m, 1, s1, c->r->dv);
}

static void scores_by_value(work *c)
{
    tile_pack(c->k, c->ld, true, c->m, c->ld, c->fade.packed);
    multiply(c->q, c->ld, false, c->fade.packed, c->m, c->m, c->ld, 0, c->aqk, CHUNK);
    clear_above(&c->fade, false, c->aqk);
}

static void forward_by_value(work *c, const float *s0, float *s1)
{
    tile_pack(s0, c->r->dv, false, c->r->dv, c->r->dk, c->ps);
    multiply(c->q, c->ld, false, c->ps, c->m, c->le, c->r->dk, 0, c->e, c->le);
    fade_in(&c->fade, c->e, false, false, c->o);
    scores_by_value(c);
    by_row_by_column(&c->fade, c->aqk, c->v, false, c->o);
    if (!s1) return;
    fade_state(c, s0, s1);
    fade_out(&c->fade, c->v, false, c->e);
    tile_pack(c->e, c->le, false, c->le, c->m, c->pv);
    multiply(c->k, c->ld, true, c->pv, c->r->dk, c->r->dv, c->m, 1, s1, c->r->dv);
}

/* o [m, le], and the state after the chunk; s1 may be s0. */
static void forward_chunk(work *c, const float *s0, float *s1)
{
    if (c->by_value) {
        forward_by_value(c, s0, s1);
        return;
    }
    inner(c, s0);
    fade_in(&c->fade, c->q, c->r->before, false, c->x);
    multiply(c->x, c->ld, false, c->ps, c->m, c->le, c->r->dk, 0, c->o, c->le);
    multiply_lower(&c->fade, c->aqk, false, written(c), c->le, 1, c->o, c->le);
    if (c->pairs) multiply_lower(&c->fade, c->aqb, false, c->pw, c->le, 1, c->o, c->le);
    fade_state(c, s0, s1);
    add_state(c, c->k, written(c), s1);
    if (c->pairs) add_state(c, c->bb, c->pw, s1);
}

/* ---- a few tokens: no chunk, the state itself goes along ---- */
static void add_read(const work *c, const float *s, const float *x, bool fades, float *to)
{
    for (int64_t d = 0; d < c->r->dk; d++) {
        const decays *f = &c->fade;
        vf scale = vf_set(x[d] * (!fades ? 1 : f->vector ? f->w[d] : f->total));
        const float *row = s + d * c->r->dv;
        VF_EACH(j, lanes, c->r->dv,
                vf_store(to + j, vf_load(to + j) + scale * vf_get(row + j, lanes)););
    }
}

static void token(work *c, float *s)
{
    const decays *f = &c->fade;
    float *o = c->o, *w = c->w;
    clear(o, c->le);
    clear(w, c->le);
    if (c->solves) {
        if (!c->pairs) memcpy(w, c->v, (size_t)c->le * sizeof *w);
        add_read(c, s, c->a, !c->pairs, w);
    }
    const float *v = c->solves && !c->pairs ? w : c->v;
    float own = c->in->bonus ? bonus_score(c, 0) : 0;
    for (int64_t d = 0; d < c->r->dk; d++) {
        vf q = vf_set(c->q[d]), k = vf_set(c->k[d]), b = vf_set(c->pairs ? c->bb[d] : 0),
           all = vf_set(f->vector && !c->by_value ? f->w[d] : f->total);
        float *row = s + d * c->r->dv;
        VF_EACH(j, lanes, c->r->dv, {
            vf x = vf_get(row + j, lanes),
               y = x * (c->by_value ? vf_load(f->w + j) : all) + k * vf_load(v + j);
            if (c->pairs) y += b * vf_load(w + j);
            vf_put(row + j, y, lanes);
            vf_store(o + j, vf_load(o + j) + q * (c->r->before ? x : y));
        });
    }
    for (int64_t j = 0; j < c->le; j++) o[j] += own * c->v[j];
}

static void store_rows(const work *c, float *o)
{
    for (int64_t i = 0; i < c->m; i++) {
        float *row = o + row_at(c, c->t0 + i, c->r->heads, c->r->dv);
        VF_EACH(j, lanes, c->r->dv, vf_put(row + j, vf_load(c->o + i * c->le + j), lanes););
    }
}

static void forward_task(work *c, float *o, float *s1, float *states)
{
    const nsmi_recurrence *r = c->r;
    const int64_t size = r->dk * r->dv, task = c->b * r->heads + c->h,
                  n = nsmi_length(r->length, c->b, r->n);
    float *last = s1 + task * size,
          *now = states ? states + task * (chunks_of(r->n) + 1) * size : last;
    if (c->in->s0) memcpy(now, c->in->s0 + task * size, (size_t)size * sizeof *now);
    else clear(now, size);
    for (int64_t t = 0; t < n; t += c->m) {
        float *next = states ? now + size : now;
        if (!states && n <= FEW) {
            open_chunk(c, t, 1);
            token(c, now);
        } else {
            open_chunk(c, t, n - t < CHUNK ? n - t : CHUNK);
            forward_chunk(c, now, next);
        }
        store_rows(c, o);
        now = next;
    }
    for (int64_t t = n; t < r->n; t++) clear(o + row_at(c, t, r->heads, r->dv), r->dv);
    if (now != last) memcpy(last, now, (size_t)size * sizeof *now);
}

static int64_t work_of(const nsmi_recurrence *r)
{
    return r->batch * r->n * r->heads * (r->dk * r->dv / 4 + CHUNK * (r->dk + r->dv) / 8);
}

static void recurrence(nsm_device *d, const nsmi_recurrence *r, const values *in, float *o,
                       float *s1, float *states)
{
    int64_t tasks = r->batch * r->heads;
#pragma omp parallel for schedule(dynamic) num_threads(nsmi_team(d, work_of(r)))
    for (int64_t i = 0; i < tasks; i++) {
        work c = { .b = i / r->heads, .h = i % r->heads };
        carve(&c, d, r, in);
        forward_task(&c, o, s1, states);
    }
}

/* ---- backward ---- */

/* dx = P(0, i) (y S') for the readers x, where y is the gradient of what they read; ps: S turned,
 * packed. */
static void reader_back(work *c, const float *y, bool early, float *dx)
{
    multiply(y, c->le, false, c->ps, c->m, c->ld, c->r->dv, 0, c->x, c->ld);
    fade_in(&c->fade, c->x, early, false, dx);
}

/* dy (written or added to) = P(j, m) (w dS') for what was written with the values w; ps: dS turned,
 * packed. */
static void writer_back(work *c, const float *w, bool add, float *dy)
{
    multiply(w, c->le, false, c->ps, c->m, c->ld, c->r->dv, 0, c->x, c->ld);
    fade_out(&c->fade, c->x, add, dy);
}

/* Gradients of the solved: dw, that of what was written, becomes that of E; then of a, b (or k) and
 * the state. */
static void solved_back(work *c, const float *s0)
{
    const decays *s = &c->fade;
    const float *key = c->pairs ? c->bb : c->k;
    float *dkey = c->pairs ? c->db : c->dk, *dw = c->pairs ? c->dw : c->dv;
    solve(c, c->aab, true, dw, c->pv);
    triangle_back(c, dw, c->w, true, c->d1);
    if (c->pairs) { multiply_lower(s, c->aak, true, c->pv, c->le, 1, c->dv, c->le); }
    pack_state_turned(c, s0);
    reader_back(c, dw, c->pairs, c->da);
    decay_scores_back(s, c->a, key, c->pairs, c->d1, c->da, dkey);
    if (c->pairs) {
        triangle_back(c, dw, c->v, true, c->d1);
        decay_scores_back(s, c->a, c->k, true, c->d1, c->da, c->dk);
    }
    state_back(c, c->a, c->pairs, c->pv);
}

static void backward_chunk(work *c, const float *s0)
{
    const decays *s = &c->fade;
    const bool early = c->r->before;
    const float *mine = c->solves && !c->pairs ? c->w : c->v; /* what k writes */
    inner(c, s0);
    pack_state_turned(c, c->ds);
    writer_back(c, mine, false, c->dk);
    if (c->pairs) writer_back(c, c->w, false, c->db);
    tile_pack(c->ds, c->r->dv, false, c->r->dv, c->r->dk, c->ps);
    fade_out(s, c->k, false, c->x);
    multiply(c->x, c->ld, false, c->ps, c->m, c->le, c->r->dk, 0, c->dv, c->le);
    if (c->pairs) {
        fade_out(s, c->bb, false, c->x);
        multiply(c->x, c->ld, false, c->ps, c->m, c->le, c->r->dk, 0, c->dw, c->le);
    }
    tile_pack(c->o, c->le, false, c->le, c->m, c->pd); /* o is its gradient here */
    multiply_lower(s, c->aqk, true, c->pd, c->le, 1, c->dv, c->le);
    if (c->pairs) multiply_lower(s, c->aqb, true, c->pd, c->le, 1, c->dw, c->le);
    fade_state(c, c->ds, c->ds);
    state_back(c, c->q, early, c->pd);
    pack_state_turned(c, s0);
    reader_back(c, c->o, early, c->dq);
    for (int64_t i = 0; c->in->bonus && i < c->m; i++)
        c->own[i] = dot(c->o + i * c->le, c->v + i * c->le, c->le);
    triangle_back(c, c->o, mine, early, c->d1);
    decay_scores_back(s, c->q, c->k, early, c->d1, c->dq, c->dk);
    if (c->pairs) {
        triangle_back(c, c->o, c->w, false, c->d1);
        decay_scores_back(s, c->q, c->bb, false, c->d1, c->dq, c->db);
    }
    if (c->solves) solved_back(c, s0);
}

static void backward_by_value(work *c, const float *s0)
{
    const decays *s = &c->fade;
    float *e = c->e, *ds = c->ds;
    pack_state_turned(c, ds);
    fade_out(s, c->v, false, e);
    multiply(e, c->le, false, c->ps, c->m, c->ld, c->r->dv, 0, c->dk, c->ld);
    tile_pack(ds, c->r->dv, false, c->r->dv, c->r->dk, c->ps);
    multiply(c->k, c->ld, false, c->ps, c->m, c->le, c->r->dk, 0, e, c->le);
    fade_out(s, e, false, c->dv);
    scores_by_value(c);
    by_col_by_column(s, c->aqk, c->o, false, c->dv);
    scores_by_column(s, c->o, c->v, false, c->d1);
    tile_pack(c->q, c->ld, false, c->ld, c->m, c->pd);
    multiply_lower(s, c->d1, true, c->pd, c->ld, 1, c->dk, c->ld);
    fade_in(s, c->o, false, false, e);
    pack_state_turned(c, s0);
    multiply(e, c->le, false, c->ps, c->m, c->ld, c->r->dv, 0, c->dq, c->ld);
    tile_pack(c->k, c->ld, false, c->ld, c->m, c->pd);
    multiply_lower(s, c->d1, false, c->pd, c->ld, 1, c->dq, c->ld);
    fade_state(c, ds, ds);
    tile_pack(e, c->le, false, c->le, c->m, c->pd);
    multiply(c->q, c->ld, true, c->pd, c->r->dk, c->r->dv, c->m, 1, ds, c->r->dv);
}

/* dg: row i + 1 what tokens after i's decay read, row i what is read early; minus what was
 * written. */
static void add_decay(work *c, const float *x, const float *dx, int64_t ld, int64_t shift,
                      float sign)
{
    for (int64_t i = 0; i < c->m; i++) {
        if (!c->fade.vector) {
            c->dg[i + shift] += sign * dot(x + i * ld, dx + i * ld, ld);
            continue;
        }
        float *to = c->dg + (i + shift) * ld;
        for (int64_t j = 0; j < ld; j += W)
            vf_store(to + j,
                     vf_load(to + j) + sign * vf_load(x + i * ld + j) * vf_load(dx + i * ld + j));
    }
}

/* The bonus: a token's score with itself; dbonus [B, H, D] +=. */
static void bonus_back(work *c, float *dbonus)
{
    const float *u = c->in->bonus + c->h * c->r->dk;
    float *du = dbonus ? dbonus + (c->b * c->r->heads + c->h) * c->r->dk : NULL;
    for (int64_t i = 0; i < c->m; i++)
        for (int64_t j = 0; j < c->r->dk; j++) {
            int64_t at = i * c->ld + j;
            c->dq[at] += c->own[i] * u[j] * c->k[at];
            c->dk[at] += c->own[i] * u[j] * c->q[at];
            if (du) du[j] += c->own[i] * c->q[at] * c->k[at];
        }
}

/* The delta rule's a = -beta k and beta v. */
static void beta_back(work *c, float *dbeta)
{
    for (int64_t i = 0; i < c->m; i++) {
        float beta = beta_at(c, i), sum = -dot(c->da + i * c->ld, c->k + i * c->ld, c->ld);
        const float *v = c->in->v + row_at(c, c->t0 + i, c->r->v_heads, c->r->dv);
        float *dv = c->dv + i * c->le;
        for (int64_t j = 0; j < c->r->dv; j++) sum += dv[j] * v[j];
        for (int64_t j = 0; j < c->ld; j++) c->dk[i * c->ld + j] -= beta * c->da[i * c->ld + j];
        for (int64_t j = 0; j < c->le; j++) dv[j] *= beta;
        if (dbeta) dbeta[row_at(c, c->t0 + i, c->r->heads, 1)] += sum;
    }
}

static void add_decays(work *c)
{
    const int64_t early = c->r->before;
    if (c->by_value) {
        add_decay(c, c->w, c->o, c->le, 1, 1); /* w holds o itself here */
        add_decay(c, c->v, c->dv, c->le, 1, -1);
        return;
    }
    add_decay(c, c->q, c->dq, c->ld, 1 - early, 1);
    add_decay(c, c->k, c->dk, c->ld, 1, -1);
    if (c->solves) add_decay(c, c->a, c->da, c->ld, c->pairs ? 0 : 1, 1);
    if (c->pairs) add_decay(c, c->bb, c->db, c->ld, 1, -1);
}

static void backward_task(work *c, const float *states, const float *dout, const float *ds1,
                          const nsmi_recurrence_grads *to)
{
    const nsmi_recurrence *r = c->r;
    const int64_t size = r->dk * r->dv, task = c->b * r->heads + c->h,
                  n = nsmi_length(r->length, c->b, r->n);
    const float *kept = states + task * (chunks_of(r->n) + 1) * size;
    if (ds1) memcpy(c->ds, ds1 + task * size, (size_t)size * sizeof *c->ds);
    else clear(c->ds, size);
    for (int64_t at = chunks_of(n) - 1; at >= 0; at--) {
        const float *s0 = kept + at * size;
        open_chunk(c, at * CHUNK, nsmi_block_end(at, CHUNK, n) - at * CHUNK);
        if (to->g) start_decay(c, s0 + size);
        if (c->by_value && to->g) { /* the output itself is the reader */
            forward_by_value(c, s0, NULL);
            memcpy(c->w, c->o, (size_t)(c->m * c->le) * sizeof *c->w);
        }
        load(c, dout, r->heads, r->dv, 1, c->o);
        if (c->by_value) backward_by_value(c, s0);
        else backward_chunk(c, s0);
        if (to->g) {
            add_decays(c);
            finish_decay(c, to->g);
        }
        if (c->in->bonus) bonus_back(c, to->bonus);
        if (c->in->beta) beta_back(c, to->beta);
        add_out(c, c->dq, r->dk, r->scale, to->q);
        add_out(c, c->dk, r->dk, 1, to->k);
        add_out(c, c->dv, r->dv, 1, to->v);
        add_out(c, c->da, r->dk, 1, c->pairs ? to->a : NULL);
        add_out(c, c->db, r->dk, 1, c->pairs ? to->b : NULL);
    }
    for (int64_t i = 0; to->s0 && i < size; i++) to->s0[task * size + i] += c->ds[i];
}

static void recurrence_back(nsm_device *d, const nsmi_recurrence *r, const values *in,
                            const float *states, const float *dout, const float *ds1,
                            const nsmi_recurrence_grads *to)
{
    int64_t tasks = r->batch * r->heads;
    if (heads_share(r, in) && NSMI_FILL(shared_heads_back)(d, r, in, states, dout, ds1, to)) return;
#pragma omp parallel for schedule(dynamic) num_threads(nsmi_team(d, 3 * work_of(r)))
    for (int64_t i = 0; i < tasks; i++) {
        work c = { .b = i / r->heads, .h = i % r->heads };
        carve(&c, d, r, in);
        backward_task(&c, states, dout, ds1, to);
    }
}

void NSMI_FILL(recurrence)(nsm_backend *be)
{
    be->recurrence = recurrence;
    be->recurrence_back = recurrence_back;
}
