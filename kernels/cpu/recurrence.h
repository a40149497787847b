/* kernels/cpu/recurrence.h - A chunk of a head, its buffers and the pieces that both ways of going
 * over the chunks are made of: head by head (recurrence.c), and with heads that share their keys
 * taken together (shared_heads.c). */
#ifndef NSMI_CPU_RECURRENCE_H
#define NSMI_CPU_RECURRENCE_H
#include "kernels/cpu/decay.h"

enum { FEW = 4, BLOCK = 16, MATRIX = CHUNK * CHUNK, MOST = NSMI_RECURRENCE_MOST };

typedef nsmi_recurrence_values values;

/* One head of one row of the batch, and the buffers of its thread.  Rows are padded with zeros to
 * whole vectors. */
typedef struct {
    const nsmi_recurrence *r;
    const values *in;
    int64_t b, h, t0, m; /* row, head, the chunk's first token, its tokens */
    int64_t ld, le;      /* D, E to whole vectors */
    bool pairs, solves, by_value;
    decays fade;
    float *q, *k, *a, *bb, *dq, *dk, *da, *db, *x; /* [CHUNK, ld] */
    /* [CHUNK, le]; v with beta, w what the solving gives */
    float *v, *w, *e, *o, *dv, *dw;
    float *aqk, *aqb, *aak, *aab, *d1; /* [CHUNK, CHUNK] */
    float *state, *ps, *pv, *pw, *pd;  /* packings */
    /* gradient of the state; log decays; their gradient [CHUNK + 1] rows */
    float *ds, *g, *dg;
    float own[CHUNK]; /* gradient of a token's score with itself */
} work;

static inline float *take(float **at, int64_t n)
{
    float *p = *at;
    *at += nsmi_blocks(n, 16) * 16;
    return p;
}

static inline void carve(work *c, nsm_device *d, const nsmi_recurrence *r, const values *in)
{
    float *at = ((nsmi_cpu_state *)d->impl)->pack + (int64_t)omp_get_thread_num() * NSMI_PACK;
    c->r = r;
    c->in = in;
    c->ld = tile_width(r->dk);
    c->le = tile_width(r->dv);
    c->pairs = in->b != NULL;
    c->solves = in->a || in->beta;
    c->by_value = r->fade == NSMI_FADE_VALUES;
    decays *s = &c->fade;
    s->vector = r->fade == NSMI_FADE_KEYS || c->by_value;
    s->ld = c->by_value ? c->le : c->ld;
    float **by_key[] = { &c->q, &c->k, &c->a, &c->bb, &c->dq, &c->dk, &c->da, &c->db, &c->x };
    float **by_value[] = { &c->v, &c->w, &c->e, &c->o, &c->dv, &c->dw };
    float **square[] = { &c->aqk, &c->aqb, &c->aak, &c->aab, &c->d1, &s->fade[0], &s->fade[1] };
    float **faded[] = { &s->w, &s->start, &s->end, &s->rows, &s->packed, &c->g };
    float **few[] = { &s->before, &s->after, &s->block_rows };
    int64_t rows = c->ld > c->le ? c->ld : c->le;
    for (size_t i = 0; i < sizeof by_key / sizeof *by_key; i++)
        *by_key[i] = take(&at, CHUNK * c->ld);
    for (size_t i = 0; i < sizeof by_value / sizeof *by_value; i++)
        *by_value[i] = take(&at, CHUNK * c->le);
    for (size_t i = 0; i < sizeof square / sizeof *square; i++) *square[i] = take(&at, MATRIX);
    for (size_t i = 0; i < sizeof faded / sizeof *faded; i++) *faded[i] = take(&at, CHUNK * rows);
    for (size_t i = 0; i < sizeof few / sizeof *few; i++) *few[i] = take(&at, BLOCKS * rows);
    c->dg = take(&at, (CHUNK + 1) * rows);
    s->ones = take(&at, rows);
    s->totals = take(&at, rows);
    s->in[0] = take(&at, CHUNK);
    s->in[1] = take(&at, CHUNK);
    s->out = take(&at, CHUNK);
    c->pv = take(&at, CHUNK * rows);
    c->pw = take(&at, CHUNK * rows);
    c->pd = take(&at, CHUNK * rows);
    c->ps = take(&at, c->ld * c->le);
    c->ds = take(&at, r->dk * r->dv);
}

/* ---- tokens in and out: rows of [B, n, heads, size] ---- */
static inline int64_t row_at(const work *c, int64_t t, int64_t heads, int64_t size)
{
    return ((c->b * c->r->n + t) * heads + c->h * heads / c->r->heads) * size;
}

static inline void load(const work *c, const float *from, int64_t heads, int64_t size, float scale,
                        float *to)
{
    int64_t ld = tile_width(size);
    for (int64_t i = 0; i < CHUNK; i++) {
        float *row = to + i * ld;
        if (i >= c->m && i >= nsmi_blocks(c->m, W) * W) break;
        if (i >= c->m) {
            memset(row, 0, (size_t)ld * sizeof *row);
            continue;
        }
        const float *x = from + row_at(c, c->t0 + i, heads, size);
        VF_EACH(j, lanes, size, vf_store(row + j, scale * vf_get(x + j, lanes)););
    }
}

/* to [B, n, H, size] += scale x */
static inline void add_out(const work *c, const float *x, int64_t size, float scale, float *to)
{
    int64_t ld = tile_width(size);
    for (int64_t i = 0; to && i < c->m; i++) {
        float *row = to + row_at(c, c->t0 + i, c->r->heads, size);
        VF_EACH(j, lanes, size,
                vf_put(row + j, vf_get(row + j, lanes) + scale * vf_load(x + i * ld + j), lanes););
    }
}

static inline const float *decay_row(const work *c, int64_t t)
{
    int64_t size = c->fade.vector ? c->fade.d : 1, heads = c->r->g_heads;
    return c->in->g +
           (c->r->g_constant ? c->h * heads / c->r->heads * size : row_at(c, t, heads, size));
}

static inline void load_decays(work *c)
{
    decays *s = &c->fade;
    s->m = c->m;
    s->d = c->by_value ? c->r->dv : c->r->dk;
    decay_groups(s);
    if (!s->vector) {
        for (int64_t i = 0; c->in->g && i < c->m; i++) c->g[i] = *decay_row(c, c->t0 + i);
        decay_scalar(s, c->in->g ? c->g : NULL);
        return;
    }
    for (int64_t i = 0; i < c->m; i++) {
        const float *x = decay_row(c, c->t0 + i);
        VF_EACH(j, lanes, s->d, vf_store(c->g + i * s->ld + j, vf_get(x + j, lanes)););
    }
    decay_vector(s, c->g);
}

/* to = S with its rows (columns, by_value) faded over the whole chunk; both [D, E] */
static inline void fade_state(const work *c, const float *from, float *to)
{
    const decays *s = &c->fade;
    for (int64_t i = 0; i < c->r->dk; i++) {
        vf f = vf_set(!s->vector ? s->total : c->by_value ? 1 : s->totals[i]);
        const float *x = from + i * c->r->dv;
        float *y = to + i * c->r->dv;
        VF_EACH(j, lanes, c->r->dv, {
            vf all = c->by_value ? vf_load(s->totals + j) : f;
            vf_put(y + j, all * vf_get(x + j, lanes), lanes);
        });
    }
}

static inline float dot(const float *x, const float *y, int64_t n)
{
    vf s = vf_set(0);
    for (int64_t i = 0; i < n; i += W) s += vf_load(x + i) * vf_load(y + i);
    return vf_sum(s);
}

static inline void clear(float *x, int64_t n) { memset(x, 0, (size_t)n * sizeof *x); }

static inline int64_t chunks_of(int64_t n) { return nsmi_blocks(n, CHUNK); }

/* A packing of S or dS, turned: [E, D] */
static inline void pack_state_turned(work *c, const float *s)
{
    tile_pack(s, c->r->dv, true, c->r->dk, c->r->dv, c->ps);
}

/* The state's gradient += x~' y; pack of y in packed. */
static inline void state_back(work *c, const float *x, bool early, const float *packed)
{
    fade_in(&c->fade, x, early, false, c->x);
    multiply(c->x, c->ld, true, packed, c->r->dk, c->r->dv, c->m, 1, c->ds, c->r->dv);
}

/* da = x y', lower; the packing of y turned is in pd's place */
static inline void triangle_back(work *c, const float *x, const float *y, bool strict, float *da)
{
    tile_pack(y, c->le, true, c->m, c->le, c->pd);
    multiply(x, c->le, false, c->pd, c->m, c->m, c->le, 0, da, CHUNK);
    clear_above(&c->fade, strict, da);
}

/* ds is still that of the state after the chunk. */
static inline void start_decay(work *c, const float *s1)
{
    const decays *s = &c->fade;
    const int64_t dv = c->r->dv;
    clear(c->dg, (CHUNK + 1) * (s->vector ? s->ld : 1));
    float *last = c->dg + c->m * (s->vector ? s->ld : 1);
    for (int64_t d = 0; d < c->r->dk; d++) {
        vf sum = vf_set(0);
        VF_EACH(j, lanes, dv, {
            vf p = vf_get(s1 + d * dv + j, lanes) * vf_get(c->ds + d * dv + j, lanes);
            if (c->by_value) vf_store(last + j, vf_load(last + j) + p);
            sum += p;
        });
        if (!c->by_value) last[s->vector ? d : 0] += vf_sum(sum);
    }
}

/* dg of a token [B, n, H(, size)] += the sum over all rows behind it. */
static inline void finish_decay(work *c, float *dg)
{
    const decays *s = &c->fade;
    const int64_t size = s->vector ? s->d : 1, ld = s->vector ? s->ld : 1;
    for (int64_t i = c->m - 1; i >= 0; i--) {
        float *row = dg + row_at(c, c->t0 + i, c->r->heads, size), *sum = c->dg + (i + 1) * ld;
        for (int64_t j = 0; j < size; j++) {
            row[j] += sum[j];
            sum[j - ld] += sum[j];
        }
    }
}

/* Do heads share their keys and readers, with a decay for all of a key's numbers?  Then the scores
 * of a chunk are theirs together but for the decay. */
static inline bool heads_share(const nsmi_recurrence *r, const nsmi_recurrence_values *in)
{
    return r->q_heads == r->k_heads && r->k_heads < r->heads && !r->before && !in->a && !in->beta &&
           !in->bonus && (r->fade == NSMI_FADE_NONE || r->fade == NSMI_FADE_SCALAR);
}

/* ---- shared_heads.c ---- */
/* false: what it keeps of the states' gradients has no room in scratch, nothing was done. */
bool NSMI_FILL(shared_heads_back)(nsm_device *d, const nsmi_recurrence *r,
                                  const nsmi_recurrence_values *in, const float *states,
                                  const float *dout, const float *ds1,
                                  const nsmi_recurrence_grads *to);

#endif
