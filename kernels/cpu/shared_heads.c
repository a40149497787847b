/* kernels/cpu/shared_heads.c - Backward of a recurrence whose heads read and write by the same q
 * and k, as Mamba-2's do in groups (arXiv:2405.21060): what a chunk's heads have in common is made
 * once.
 *
 *   A_h = (Q K') o P_h      dQ = sum over h of F_h (dO_h S_h') + (sum of dA_h o P_h) K
 *   dA_h = dO_h V_h'        dK = sum over h of T_h (V_h dS_h') + (sum of dA_h o P_h)' Q
 *
 * P_h the decays from token to token, F_h those from the chunk's start, T_h those to its end.
 *
 * Gradients of the states go from the last chunk to the first, a head at a time, and are kept; then
 * every chunk stands alone, with all heads of its group.  A decay's gradient is that of
 * recurrence.c: x dx of every reader less y dy of every writer, where both are sums over one
 * triangle.
 */
#include "kernels/cpu/recurrence.h"

/* What it is made for: heads of a group side by side. */
typedef struct {
    const nsmi_recurrence *r;
    const values *in;
    const float *states, *dout;
    const nsmi_recurrence_grads *to;
    int64_t size, chunks, each; /* D E; chunks of a row, heads of a group */
    float *kept;                /* [rows, H, chunks, D, E] the state's gradient behind each chunk */
    int64_t row0;               /* the first of these rows */
} shared;

static float *kept_at(const shared *s, const work *c, int64_t chunk)
{
    return s->kept + (((c->b - s->row0) * s->r->heads + c->h) * s->chunks + chunk) * s->size;
}

static int64_t tokens_of(const shared *s, const work *c)
{
    return nsmi_length(s->r->length, c->b, s->r->n);
}

static void open_tokens(work *c, int64_t t0, int64_t n)
{
    c->t0 = t0;
    c->m = n - t0 < CHUNK ? n - t0 : CHUNK;
}

/* A head's states, from the last chunk to the first; the gradient before that is the carried
 * state's. */
static void states_back(const shared *s, work *c, const float *ds1)
{
    const nsmi_recurrence *r = s->r;
    const int64_t at = (c->b * r->heads + c->h) * s->size, n = tokens_of(s, c),
                  chunks = chunks_of(n);
    float *own = c->ds, *behind = chunks ? kept_at(s, c, chunks - 1) : own;
    if (ds1) memcpy(behind, ds1 + at, (size_t)s->size * sizeof *behind);
    else clear(behind, s->size);
    for (int64_t i = chunks - 1; i >= 0; i--, behind = c->ds) {
        c->ds = i ? kept_at(s, c, i - 1) : own;
        open_tokens(c, i * CHUNK, n);
        load(c, s->in->q, r->q_heads, r->dk, r->scale, c->q);
        load(c, s->dout, r->heads, r->dv, 1, c->o);
        load_decays(c);
        fade_state(c, behind, c->ds);
        tile_pack(c->o, c->le, false, c->le, c->m, c->pd);
        state_back(c, c->q, false, c->pd);
    }
    for (int64_t i = 0; s->to->s0 && i < s->size; i++) s->to->s0[at + i] += behind[i];
}

/* sum [m, ld] += f_i y_i by rows; of a decay's gradient, at[i] += sign f_i (x_i . y_i) */
static void add_faded(const work *c, const float *f, const float *x, const float *y, float sign,
                      float *sum, float *at)
{
    for (int64_t i = 0; i < c->m; i++) {
        vf all = vf_set(0), w = vf_set(f[i]);
        for (int64_t j = i * c->ld; j < (i + 1) * c->ld; j += W) {
            vf p = w * vf_load(y + j);
            all += p * vf_load(x + j);
            vf_store(sum + j, vf_load(sum + j) + p);
        }
        at[i] += sign * vf_sum(all);
    }
}

/* d1 = dA, lower, and the scores qk as they are before the decay: sum += dA o P, and what it says
 * of the decays. */
static void add_triangle(work *c, const float *qk, float *sum)
{
    float by_column[CHUNK] = { 0 };
    for (int64_t i = 0; i < c->m; i++) {
        vf all = vf_set(0);
        for (int64_t j = 0; j < CHUNK; j += W) {
            int64_t at = i * CHUNK + j;
            vf d = vf_load(c->d1 + at) * vf_load(c->fade.fade[0] + at), p = d * vf_load(qk + at);
            vf_store(sum + at, vf_load(sum + at) + d);
            vf_store(by_column + j, vf_load(by_column + j) + p);
            all += p;
        }
        c->dg[i + 1] += vf_sum(all);
    }
    for (int64_t j = 0; j < c->m; j++) c->dg[j + 1] -= by_column[j];
}

/* aqk = qk o P */
static void fade_scores(work *c, const float *qk)
{
    for (int64_t i = 0; i < c->m * CHUNK; i += W)
        vf_store(c->aqk + i, vf_load(qk + i) * vf_load(c->fade.fade[0] + i));
}

/* One head of a chunk: its own gradients, and its part of dq, dk and dA (in aab). */
static void head_back(const shared *s, work *c, const float *qk)
{
    const nsmi_recurrence *r = s->r;
    const int64_t at = c->t0 / CHUNK;
    const float *s0 = s->states + ((c->b * r->heads + c->h) * (s->chunks + 1) + at) * s->size;
    load(c, s->in->v, r->v_heads, r->dv, 1, c->v);
    load(c, s->dout, r->heads, r->dv, 1, c->o);
    load_decays(c);
    c->ds = kept_at(s, c, at);
    start_decay(c, s0 + s->size);
    fade_scores(c, qk);

    tile_pack(c->ds, r->dv, false, r->dv, r->dk, c->ps);
    fade_out(&c->fade, c->k, false, c->x);
    multiply(c->x, c->ld, false, c->ps, c->m, c->le, r->dk, 0, c->dv, c->le);
    tile_pack(c->o, c->le, false, c->le, c->m, c->pd);
    multiply_lower(&c->fade, c->aqk, true, c->pd, c->le, 1, c->dv, c->le);
    add_out(c, c->dv, r->dv, 1, s->to->v);

    pack_state_turned(c, c->ds);
    multiply(c->v, c->le, false, c->ps, c->m, c->ld, r->dv, 0, c->x, c->ld);
    add_faded(c, c->fade.out, c->k, c->x, -1, c->dk, c->dg + 1);
    pack_state_turned(c, s0);
    multiply(c->o, c->le, false, c->ps, c->m, c->ld, r->dv, 0, c->x, c->ld);
    add_faded(c, c->fade.in[0], c->q, c->x, 1, c->dq, c->dg + 1);
    triangle_back(c, c->o, c->v, false, c->d1);
    add_triangle(c, qk, c->aab);
    if (s->to->g) finish_decay(c, s->to->g);
}

/* A chunk with all heads of a group, from head h on. */
static void chunk_back(const shared *s, work *c, int64_t h, int64_t chunk)
{
    const nsmi_recurrence *r = s->r;
    float *qk = c->aqb;
    open_tokens(c, chunk * CHUNK, tokens_of(s, c));
    if (c->m <= 0) return;
    load(c, s->in->q, r->q_heads, r->dk, r->scale, c->q);
    load(c, s->in->k, r->k_heads, r->dk, 1, c->k);
    c->fade.m = c->m;
    decay_groups(&c->fade);
    tile_pack(c->k, c->ld, true, c->m, c->ld, c->fade.packed);
    multiply(c->q, c->ld, false, c->fade.packed, c->m, c->m, c->ld, 0, qk, CHUNK);
    clear_above(&c->fade, false, qk);
    clear(c->aab, c->m * CHUNK);
    clear(c->dq, CHUNK * c->ld);
    clear(c->dk, CHUNK * c->ld);
    for (c->h = h; c->h < h + s->each; c->h++) head_back(s, c, qk);
    c->h = h;
    tile_pack(c->k, c->ld, false, c->ld, c->m, c->fade.packed);
    multiply_lower(&c->fade, c->aab, false, c->fade.packed, c->ld, 1, c->dq, c->ld);
    tile_pack(c->q, c->ld, false, c->ld, c->m, c->fade.packed);
    multiply_lower(&c->fade, c->aab, true, c->fade.packed, c->ld, 1, c->dk, c->ld);
    add_out(c, c->dq, r->dk, r->scale, s->to->q);
    add_out(c, c->dk, r->dk, 1, s->to->k);
}

bool NSMI_FILL(shared_heads_back)(nsm_device *d, const nsmi_recurrence *r, const values *in,
                                  const float *states, const float *dout, const float *ds1,
                                  const nsmi_recurrence_grads *to)
{
    shared s = { .r = r,
                 .in = in,
                 .states = states,
                 .dout = dout,
                 .to = to,
                 .size = r->dk * r->dv,
                 .chunks = chunks_of(r->n),
                 .each = r->heads / r->k_heads,
                 .kept = nsmi_scratch(d) };
    const int64_t row = r->heads * s.chunks * s.size, rows = row ? NSMI_SCRATCH / row : 0,
                  work_of_row = r->n * r->heads * r->dk * r->dv;
    if (rows < 1) return false;
    for (s.row0 = 0; s.row0 < r->batch; s.row0 += rows) {
        int64_t here = r->batch - s.row0 < rows ? r->batch - s.row0 : rows;
#pragma omp parallel num_threads(nsmi_team(d, here *work_of_row))
        {
#pragma omp for schedule(dynamic)
            for (int64_t i = 0; i < here * r->heads; i++) {
                work c = { .b = s.row0 + i / r->heads, .h = i % r->heads };
                carve(&c, d, r, in);
                states_back(&s, &c, ds1);
            }
#pragma omp for schedule(dynamic)
            for (int64_t i = 0; i < here * r->k_heads * s.chunks; i++) {
                int64_t h = i / s.chunks % r->k_heads * s.each;
                work c = { .b = s.row0 + i / (s.chunks * r->k_heads), .h = h };
                carve(&c, d, r, in);
                chunk_back(&s, &c, h, i % s.chunks);
            }
        }
    }
    return true;
}
