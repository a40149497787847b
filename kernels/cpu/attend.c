/* kernels/cpu/attend.c - Attention on sequences, without an n x n matrix; rotation by position.
 *
 * As in FlashAttention (Dao et al., arXiv:2205.14135; backward as in its Algorithm 4): a block of
 * queries goes over blocks of keys, the softmax renormalised on the way (Milakov and Gimelshein,
 * arXiv:1805.02867).  Scores, their exponentials and the values' sums are small products (tile.h)
 * in a core's own caches.  Keys and values are packed once for all blocks of queries.
 *
 * Backward goes over blocks of keys, each with all blocks of queries: dk and dv are sums in the
 * thread's own buffer, dq is a sum in scratch.  Where batch and heads alone are too few tasks the
 * blocks of keys are dealt out to `parts`, each with a dq of its own; these add up in order.
 * Letters: n queries, m keys, H heads, G heads of keys, D, E sizes of keys and values;
 * i queries, j keys. */
#include "kernels/cpu/tile.h"

enum {
    QUERIES = 96,      /* queries of a block */
    KEYS = 192,        /* keys of a block, forward; a multiple of every panel */
    KEYS_BACK = 96,    /* ... backward */
    GROUPS = 48,       /* groups of rows in a block, at most */
    FEW = 4,           /* fewer queries than this are not worth packing for */
    STRIP = 256,       /* keys that few queries look at together */
    TASKS = 16         /* with fewer tasks than these the keys are dealt out too */
};

/* Nothing that is seen is less. */
static const float lowest = -1e30f;

/* ---- who sees whom ---- */
typedef struct { int64_t keys, offset, window; bool causal; } sight;

static sight sight_of(const nsmi_attention *a, int64_t b)
{
    return (sight){ a->keys ? a->keys[b] : a->m, a->offsets ? a->offsets[b] : a->offset, a->window,
                    a->causal };
}

static inline int64_t within(int64_t x, int64_t low, int64_t high)
{
    return x < low ? low : x > high ? high : x;
}

/* Query i sees keys low <= j < high, perhaps none. */
static inline int64_t low_of(const sight *s, int64_t i)
{
    int64_t low = s->window ? i + s->offset - s->window + 1 : 0;
    return low > 0 ? low : 0;
}
static inline int64_t high_of(const sight *s, int64_t i)
{
    int64_t high = s->causal && i + s->offset + 1 < s->keys ? i + s->offset + 1 : s->keys;
    return high > 0 ? high : 0;
}

/* A block: queries i0 .. i0 + rows, keys j0 .. j0 + cols. */
typedef struct { int64_t i0, rows, j0, cols; } block;

static bool block_seen(const sight *s, const block *k)
{
    return high_of(s, k->i0 + k->rows - 1) > k->j0 && low_of(s, k->i0) < k->j0 + k->cols;
}

/* For every group of queries: the keys of the block that any of them sees. */
static void spans_of_queries(const sight *s, const block *k, int32_t *first, int32_t *last)
{
    for (int64_t r = 0, g = 0; r < k->rows; r += TILE_ROWS, g++) {
        int64_t end = r + TILE_ROWS < k->rows ? r + TILE_ROWS : k->rows;
        first[g] = (int32_t)within(low_of(s, k->i0 + r) - k->j0, 0, k->cols);
        last[g] = (int32_t)within(high_of(s, k->i0 + end - 1) - k->j0, 0, k->cols);
    }
}

/* For every group of keys: the queries of the block that see any of them. */
static void spans_of_keys(const sight *s, const block *k, int32_t *first, int32_t *last)
{
    for (int64_t c = 0, g = 0; c < k->cols; c += TILE_ROWS, g++) {
        int64_t end = c + TILE_ROWS < k->cols ? c + TILE_ROWS : k->cols;
        int64_t from = s->causal ? k->j0 + c - s->offset : 0;
        int64_t to = s->window ? k->j0 + end - 1 - s->offset + s->window : k->i0 + k->rows;
        first[g] = (int32_t)within(from - k->i0, 0, k->rows);
        last[g] = (int32_t)within(to - k->i0, 0, k->rows);
    }
}

/* Row r of the block's scores: what its query does not see becomes -inf, up to whole vectors. */
static void blind_row(const sight *s, const block *k, int64_t r, float *row)
{
    int64_t whole = tile_width(k->cols), low = within(low_of(s, k->i0 + r) - k->j0, 0, whole),
            high = within(high_of(s, k->i0 + r) - k->j0, low, k->cols);
    for (int64_t j = 0; j < low; j++) row[j] = -INFINITY;
    for (int64_t j = high; j < whole; j++) row[j] = -INFINITY;
}

static void add_bias(const nsmi_attention *a, int64_t b, int64_t h, const block *k, int64_t r,
                     float *row)
{
    const int64_t *t = a->bias_stride;
    const float *from = a->bias + b * t[0] + h * t[1] + (k->i0 + r) * t[2] + k->j0 * t[3];
    for (int64_t j = 0; j < k->cols; j++) row[j] += from[j * t[3]];
}

/* ---- sizes of blocks: what fits a thread's buffer ---- */
typedef struct { int64_t queries, keys; } blocks;

static blocks blocks_of(int64_t keys, int64_t by_query, int64_t by_key)
{
    blocks s = { QUERIES, keys };
    while (s.queries > TILE_ROWS &&
           s.queries * by_query + s.keys * by_key + s.queries * s.keys * 2 > NSMI_PACK) {
        s.queries = s.queries / 2 / TILE_ROWS * TILE_ROWS;
        s.keys = s.keys / 2 / W * W;
    }
    return s;
}

static float *buffer_of(const nsm_device *d)
{
    return ((nsmi_cpu_state *)d->impl)->pack + (int64_t)omp_get_thread_num() * NSMI_PACK;
}

/* ---- forward ---- */
typedef struct {
    const nsm_device *d;
    const nsmi_attention *a;
    const float *q, *k, *v;
    float *packed, *y, *lse;
    blocks size;
    /* packed floats of a block: keys turned [D, keys], then values [keys, E] */
    int64_t key_blocks, unit;
} forward;

static float *packed_of(const forward *f, int64_t b, int64_t g, int64_t c)
{
    return f->packed + ((b * f->a->groups + g) * f->key_blocks + c) * f->unit;
}

static void pack_keys(const forward *f, int64_t task)
{
    const nsmi_attention *a = f->a;
    int64_t c = task % f->key_blocks, g = task / f->key_blocks % a->groups,
            b = task / f->key_blocks / a->groups;
    int64_t j0 = c * f->size.keys, cols = nsmi_block_end(c, f->size.keys, a->m) - j0;
    float *to = packed_of(f, b, g, c);
    tile_pack(f->k + b * a->k[0] + j0 * a->k[1] + g * a->k[2], a->k[1], true, cols, a->dk, to);
    tile_pack(f->v + b * a->v[0] + j0 * a->v[1] + g * a->v[2], a->v[1], false, a->dv, cols,
              to + a->dk * tile_width(f->size.keys));
}

/* One row of scores: their exponentials, with the row's largest and its sums brought up to date. */
static inline void soften_row(float *row, int64_t cols, float *top, vf *sum, float *y, int64_t wide,
                              bool first)
{
    vf most = vf_load(row), all = vf_set(0);
    for (int64_t j = W; j < cols; j += W) most = vf_max(vf_load(row + j), most);
    float m = *top, higher = vf_top(most);
    if (higher > m) {
        float shrink = expf(m - higher);
        *top = m = higher;
        *sum *= shrink;
        for (int64_t e = 0; e < wide && !first; e += W) vf_store(y + e, vf_load(y + e) * shrink);
    }
    for (int64_t j = 0; j < cols; j += W) {
        vf p = vf_exp_down(vf_load(row + j) - m);
        vf_store(row + j, p);
        all += p;
    }
    *sum += all;
}

/* What a thread holds of one block of queries, in its buffer. */
typedef struct { float *score, *sum_y, *top; vf *sum; int64_t lds, ldy; } own;

static own own_of(const forward *f)
{
    own o = { .lds = tile_width(f->size.keys), .ldy = tile_width(f->a->dv) };
    o.sum = (vf *)buffer_of(f->d);
    o.score = (float *)(o.sum + f->size.queries);
    o.sum_y = o.score + f->size.queries * o.lds;
    o.top = o.sum_y + f->size.queries * o.ldy;
    return o;
}

static void one_block(const forward *f, const own *o, const sight *s, int64_t b, int64_t h,
                      const block *k, const float *packed, bool first)
{
    const nsmi_attention *a = f->a;
    int32_t from[GROUPS], to[GROUPS];
    spans_of_queries(s, k, from, to);
    tile_run(&(tile_product){ f->q + b * a->q[0] + k->i0 * a->q[1] + h * a->q[2], a->q[1], false,
                              packed, k->rows, k->cols, a->dk, a->scale, 0, o->score, o->lds, from,
                              to, true });
    for (int64_t r = 0; r < k->rows; r++) {
        float *row = o->score + r * o->lds;
        if (a->bias) add_bias(a, b, h, k, r, row);
        blind_row(s, k, r, row);
        soften_row(row, k->cols, &o->top[r], &o->sum[r], o->sum_y + r * o->ldy, o->ldy, first);
    }
    tile_run(&(tile_product){ o->score, o->lds, false, packed + a->dk * o->lds, k->rows, a->dv,
                              k->cols, 1, first ? 0 : 1, o->sum_y, o->ldy, from, to, false });
}

static void finish_rows(const forward *f, const own *o, int64_t b, int64_t h, int64_t i0,
                        int64_t rows, bool none)
{
    const nsmi_attention *a = f->a;
    for (int64_t r = 0; r < rows; r++) {
        float sum = none ? 0 : vf_sum(o->sum[r]),
              *y = f->y + ((b * a->n + i0 + r) * a->heads + h) * a->dv;
        const float *from = o->sum_y + r * o->ldy;
        float by = sum > 0 ? 1 / sum : 0;
        for (int64_t e = 0; e < a->dv; e++) y[e] = by > 0 ? from[e] * by : 0;
        f->lse[(b * a->heads + h) * a->n + i0 + r] = sum > 0 ? o->top[r] + logf(sum) : 0;
    }
}

static void query_block(const forward *f, int64_t b, int64_t h, int64_t t)
{
    const nsmi_attention *a = f->a;
    own o = own_of(f);
    sight s = sight_of(a, b);
    block k = { .i0 = t * f->size.queries };
    bool first = true;
    k.rows = nsmi_block_end(t, f->size.queries, a->n) - k.i0;
    for (int64_t r = 0; r < k.rows; r++) {
        o.top[r] = lowest;
        o.sum[r] = vf_set(0);
    }
    for (int64_t c = 0; c < f->key_blocks; c++) {
        k.j0 = c * f->size.keys;
        k.cols = nsmi_block_end(c, f->size.keys, a->m) - k.j0;
        if (!block_seen(&s, &k)) continue;
        one_block(f, &o, &s, b, h, &k, packed_of(f, b, h / (a->heads / a->groups), c), first);
        first = false;
    }
    finish_rows(f, &o, b, h, k.i0, k.rows, first);
}

/* Few queries, as in decoding: keys and values are read once, where they stand. */
static void few_queries(const forward *f, int64_t b, int64_t h, int64_t i)
{
    const nsmi_attention *a = f->a;
    int64_t g = h / (a->heads / a->groups);
    own o = own_of(f);
    sight s = sight_of(a, b);
    int64_t low = low_of(&s, i), high = high_of(&s, i);
    const float *q = f->q + b * a->q[0] + i * a->q[1] + h * a->q[2];
    bool first = true;
    o.top[0] = lowest;
    o.sum[0] = vf_set(0);
    memset(o.sum_y, 0, (size_t)o.ldy * sizeof *o.sum_y);
    for (int64_t j0 = low; j0 < high; j0 += STRIP, first = false) {
        block k = { i, 1, j0, high - j0 < STRIP ? high - j0 : STRIP };
        const float *key = f->k + b * a->k[0] + j0 * a->k[1] + g * a->k[2],
                    *value = f->v + b * a->v[0] + j0 * a->v[1] + g * a->v[2];
        for (int64_t j = 0; j < k.cols; j++, key += a->k[1]) {
            vf dot = vf_set(0);
            VF_EACH(e, lanes, a->dk, dot += vf_get(q + e, lanes) * vf_get(key + e, lanes););
            o.score[j] = a->scale * vf_sum(dot);
        }
        if (a->bias) add_bias(a, b, h, &k, 0, o.score);
        blind_row(&s, &k, 0, o.score);
        soften_row(o.score, k.cols, o.top, o.sum, o.sum_y, o.ldy, first);
        for (int64_t j = 0; j < k.cols; j++, value += a->v[1]) {
            vf p = vf_set(o.score[j]);
            VF_EACH(e, lanes, a->dv,
                    vf_put(o.sum_y + e, vf_get(o.sum_y + e, lanes) + p * vf_get(value + e, lanes),
                           lanes););
        }
    }
    finish_rows(f, &o, b, h, i, 1, first);
}

static void attention(nsm_device *d, const nsmi_attention *a, const float *q, const float *k,
                      const float *v, float *scratch, float *y, float *lse)
{
    forward f = { .d = d, .a = a, .q = q, .k = k, .v = v, .packed = scratch, .y = y, .lse = lse };
    int64_t heads = a->batch * a->heads, work = heads * a->n * a->m * (a->dk + a->dv) / 16;
    f.size = blocks_of(KEYS, W + tile_width(a->dv) + 1, 0);
    if (a->n < FEW) {
        if (f.size.keys * f.size.queries < STRIP) f.size.keys = STRIP;
#pragma omp parallel for num_threads(nsmi_team(d, work)) schedule(dynamic)
        for (int64_t t = 0; t < heads * a->n; t++)
            few_queries(&f, t / a->n / a->heads, t / a->n % a->heads, t % a->n);
        return;
    }
    f.key_blocks = nsmi_blocks(a->m, f.size.keys);
    f.unit = a->dk * tile_width(f.size.keys) + tile_width(a->dv) * f.size.keys;
    int64_t query_blocks = nsmi_blocks(a->n, f.size.queries);
#pragma omp parallel num_threads(nsmi_team(d, work))
    {
#pragma omp for schedule(static)
        for (int64_t t = 0; t < a->batch * a->groups * f.key_blocks; t++) pack_keys(&f, t);
#pragma omp for schedule(dynamic)
        for (int64_t t = heads * query_blocks - 1; t >= 0; t--) /* the longest first */
            query_block(&f, t % heads / a->heads, t % heads % a->heads, t / heads);
    }
}

/* ---- backward ---- */
typedef struct {
    const nsm_device *d;
    const nsmi_attention *a;
    const float *q, *k, *v, *y, *lse, *dy, *beta;
    float *delta, *partial;  /* [B, H, n] dy . y; [parts, B, H, n, wide D] */
    float *dq, *dk, *dv, *ds;
    blocks size;
    int64_t parts, key_blocks, wide; /* D up to whole vectors */
} backward;

/* A thread's buffer. */
typedef struct {
    /* of the block of keys: packed, packed, packed, [keys, D], [keys, E] */
    float *keys_turned, *values_turned, *keys, *dk, *dv;
    float *queries, *dy;                                 /* of the block of queries, packed */
    float *p, *dp;                                       /* [queries, keys] */
    int64_t lds, ldk, ldv;
} back_own;

static back_own back_own_of(const backward *t)
{
    back_own o = { .lds = tile_width(t->size.keys),
                   .ldk = tile_width(t->a->dk),
                   .ldv = tile_width(t->a->dv) };
    int64_t rows = t->size.queries, cols = o.lds;
    o.keys_turned = buffer_of(t->d);
    o.values_turned = o.keys_turned + t->a->dk * cols;
    o.keys = o.values_turned + t->a->dv * cols;
    o.dk = o.keys + cols * o.ldk;
    o.dv = o.dk + cols * o.ldk;
    o.queries = o.dv + cols * o.ldv;
    o.dy = o.queries + rows * o.ldk;
    o.p = o.dy + rows * o.ldv;
    o.dp = o.p + rows * o.lds;
    return o;
}

/* p and ds of a row from scores and dp; ds goes where dp was. */
static inline void back_row(float *p, float *dp, int64_t cols, float lse, float delta, float scale)
{
    for (int64_t j = 0; j < cols; j += W) {
        vf e = vf_exp_down(vf_min(vf_load(p + j) - lse, vf_set(0)));
        vf_store(p + j, e);
        vf_store(dp + j, e * (vf_load(dp + j) - delta) * scale);
    }
}

/* Where nothing was computed dp may hold anything; p is 0 there, and so must ds be. */
static void clear_row(const sight *s, const block *k, int64_t r, float *dp)
{
    int64_t whole = tile_width(k->cols), low = within(low_of(s, k->i0 + r) - k->j0, 0, whole),
            high = within(high_of(s, k->i0 + r) - k->j0, low, k->cols);
    memset(dp, 0, (size_t)low * sizeof *dp);
    memset(dp + high, 0, (size_t)(whole - high) * sizeof *dp);
}

static void back_block(const backward *t, const back_own *o, const sight *s, int64_t b, int64_t h,
                       const block *k, float *dq)
{
    const nsmi_attention *a = t->a;
    int64_t at = (b * a->heads + h) * a->n + k->i0;
    const float *q = t->q + b * a->q[0] + k->i0 * a->q[1] + h * a->q[2];
    const float *dy = t->dy + ((b * a->n + k->i0) * a->heads + h) * a->dv;
    int32_t from[GROUPS], to[GROUPS];
    spans_of_queries(s, k, from, to);
    tile_pack(q, a->q[1], false, a->dk, k->rows, o->queries);
    tile_pack(dy, a->heads * a->dv, false, a->dv, k->rows, o->dy);
    tile_run(&(tile_product){ q, a->q[1], false, o->keys_turned, k->rows, k->cols, a->dk, a->scale,
                              0, o->p, o->lds, from, to, true });
    tile_run(&(tile_product){ dy, a->heads * a->dv, false, o->values_turned, k->rows, k->cols,
                              a->dv, 1, 0, o->dp, o->lds, from, to, true });
    for (int64_t r = 0; r < k->rows; r++) {
        float *row = o->p + r * o->lds, *dp = o->dp + r * o->lds;
        if (a->bias) add_bias(a, b, h, k, r, row);
        blind_row(s, k, r, row);
        clear_row(s, k, r, dp);
        back_row(row, dp, k->cols, t->lse[at + r], t->delta[at + r], t->ds ? 1 : a->scale);
        if (!t->ds) continue;
        float *ds = t->ds + (at + r) * a->m + k->j0;
        for (int64_t j = 0; j < k->cols; j++) ds[j] = dp[j];
    }
    float scale = t->ds ? a->scale : 1;
    tile_run(&(tile_product){ o->dp, o->lds, false, o->keys, k->rows, a->dk, k->cols, scale, 1,
                              dq + k->i0 * t->wide, t->wide, from, to, false });
    spans_of_keys(s, k, from, to);
    tile_run(&(tile_product){ o->p, o->lds, true, o->dy, k->cols, a->dv, k->rows, 1, 1, o->dv,
                              o->ldv, from, to, false });
    tile_run(&(tile_product){ o->dp, o->lds, true, o->queries, k->cols, a->dk, k->rows, scale, 1,
                              o->dk, o->ldk, from, to, false });
}

/* y = beta y + x by rows */
static void put_rows(const float *x, int64_t ldx, int64_t rows, int64_t cols, float beta, float *y,
                     int64_t ldy)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++)
            y[r * ldy + c] = x[r * ldx + c] + (beta == 0 ? 0 : beta * y[r * ldy + c]);
}

/* The gradients of one block of keys, and what it adds to dq. */
static void key_block(const backward *t, const back_own *o, const sight *s, int64_t b, int64_t g,
                      int64_t part, int64_t c)
{
    const nsmi_attention *a = t->a;
    block k = { .j0 = c * t->size.keys };
    k.cols = nsmi_block_end(c, t->size.keys, a->m) - k.j0;
    const float *key = t->k + b * a->k[0] + k.j0 * a->k[1] + g * a->k[2],
                *value = t->v + b * a->v[0] + k.j0 * a->v[1] + g * a->v[2];
    tile_pack(key, a->k[1], true, k.cols, a->dk, o->keys_turned);
    tile_pack(value, a->v[1], true, k.cols, a->dv, o->values_turned);
    tile_pack(key, a->k[1], false, a->dk, k.cols, o->keys);
    memset(o->dk, 0, (size_t)(k.cols * o->ldk) * sizeof(float));
    memset(o->dv, 0, (size_t)(k.cols * o->ldv) * sizeof(float));
    for (int64_t h = g * (a->heads / a->groups); h < (g + 1) * (a->heads / a->groups); h++) {
        float *dq = t->partial + ((part * a->batch + b) * a->heads + h) * a->n * t->wide;
        for (int64_t r = 0; r < nsmi_blocks(a->n, t->size.queries); r++) {
            k.i0 = r * t->size.queries;
            k.rows = nsmi_block_end(r, t->size.queries, a->n) - k.i0;
            if (block_seen(s, &k)) back_block(t, o, s, b, h, &k, dq);
        }
    }
    if (t->dk)
        put_rows(o->dk, o->ldk, k.cols, a->dk, t->beta[1],
                 t->dk + b * a->k[0] + k.j0 * a->k[1] + g * a->k[2], a->k[1]);
    if (t->dv)
        put_rows(o->dv, o->ldv, k.cols, a->dv, t->beta[2],
                 t->dv + b * a->v[0] + k.j0 * a->v[1] + g * a->v[2], a->v[1]);
}

static void back_part(const backward *t, int64_t b, int64_t g, int64_t part)
{
    const nsmi_attention *a = t->a;
    back_own o = back_own_of(t);
    sight s = sight_of(a, b);
    int64_t share = a->heads / a->groups;
    memset(t->partial + ((part * a->batch + b) * a->heads + g * share) * a->n * t->wide, 0,
           (size_t)(share * a->n * t->wide) * sizeof(float));
    for (int64_t c = part; c < t->key_blocks; c += t->parts) key_block(t, &o, &s, b, g, part, c);
}

/* dy . y of query i, and ds of what it does not see. */
static void start_row(const backward *t, int64_t b, int64_t h, int64_t i)
{
    const nsmi_attention *a = t->a;
    int64_t at = ((b * a->n + i) * a->heads + h) * a->dv;
    vf dot = vf_set(0);
    VF_EACH(e, lanes, a->dv, dot += vf_get(t->dy + at + e, lanes) * vf_get(t->y + at + e, lanes););
    t->delta[(b * a->heads + h) * a->n + i] = vf_sum(dot);
    if (t->ds)
        memset(t->ds + ((b * a->heads + h) * a->n + i) * a->m, 0, (size_t)a->m * sizeof(float));
}

/* dq of query i: its parts in order. */
static void end_row(const backward *t, int64_t b, int64_t h, int64_t i)
{
    const nsmi_attention *a = t->a;
    int64_t part = a->batch * a->heads * a->n * t->wide;
    const float *from = t->partial + ((b * a->heads + h) * a->n + i) * t->wide;
    float *dq = t->dq + b * a->q[0] + i * a->q[1] + h * a->q[2];
    for (int64_t e = 0; e < a->dk; e += W) {
        int64_t lanes = a->dk - e < W ? a->dk - e : W;
        vf sum = t->beta[0] == 0 ? vf_set(0) : t->beta[0] * vf_get(dq + e, lanes);
        for (int64_t p = 0; p < t->parts; p++) sum += vf_load(from + p * part + e);
        vf_put(dq + e, sum, lanes);
    }
}

static void attention_back(nsm_device *d, const nsmi_attention *a, const float *q, const float *k,
                           const float *v, const float *y, const float *lse, const float *dy,
                           float *scratch, const float beta[3], float *dq, float *dk, float *dv,
                           float *ds)
{
    int64_t rows = a->batch * a->heads * a->n, tasks = a->batch * a->groups;
    backward t = { .d = d,
                   .a = a,
                   .q = q,
                   .k = k,
                   .v = v,
                   .y = y,
                   .lse = lse,
                   .dy = dy,
                   .beta = beta,
                   .delta = scratch,
                   .partial = scratch + nsmi_blocks(rows, W) * W,
                   .dq = dq,
                   .dk = dk,
                   .dv = dv,
                   .ds = ds,
                   .wide = tile_width(a->dk) };
    t.size = blocks_of(KEYS_BACK, t.wide + tile_width(a->dv), 3 * t.wide + 2 * tile_width(a->dv));
    t.key_blocks = nsmi_blocks(a->m, t.size.keys);
    t.parts = nsmi_blocks(TASKS, tasks) < t.key_blocks ? nsmi_blocks(TASKS, tasks) : t.key_blocks;
    if (t.parts < 1) t.parts = 1;
#pragma omp parallel num_threads(nsmi_team(d, rows * a->m * (a->dk + a->dv) / 8))
    {
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; r++)
            start_row(&t, r / a->n / a->heads, r / a->n % a->heads, r % a->n);
#pragma omp for schedule(dynamic)
        for (int64_t p = 0; p < tasks * t.parts; p++)
            back_part(&t, p / t.parts / a->groups, p / t.parts % a->groups, p % t.parts);
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows * (dq != NULL); r++)
            end_row(&t, r / a->n / a->heads, r / a->n % a->heads, r % a->n);
    }
}

/* ---- rotation by position ---- */
enum { PAIRS = 512 }; /* of a strip */

/* Cosines and sines of pairs c0 .. c0 + count at a place; the angle is reduced in double. */
static void turns(double place, double base, int64_t pairs, int64_t c0, int64_t count,
                  float *cosine, float *sine)
{
    const double turn = 6.283185307179586476925;
    for (int64_t c = 0; c < count; c++) {
        double angle = place * pow(base, -(double)(c0 + c) / (double)pairs);
        cosine[c] = (float)(angle - turn * rint(angle / turn));
    }
    for (int64_t c = count; c < tile_width(count); c++) cosine[c] = 0;
    for (int64_t c = 0; c < count; c += W) {
        vf angle = vf_load(cosine + c);
        vf_store(cosine + c, vf_cos(angle));
        vf_store(sine + c, vf_sin(angle));
    }
}

static inline float blend_one(float beta, float y, float x) { return beta == 0 ? x : beta * y + x; }

static void rotate_row(const float *x, float *y, float beta, int64_t heads, int64_t size,
                       int64_t pairs, bool side, int64_t c0, int64_t count, const float *cosine,
                       const float *sine)
{
    int64_t apart = side ? 1 : pairs, step = side ? 2 : 1;
    for (int64_t h = 0; h < heads; h++)
        for (int64_t c = 0; c < count; c++) {
            int64_t at = h * size + (c0 + c) * step;
            float a = x[at], b = x[at + apart];
            y[at] = blend_one(beta, y[at], a * cosine[c] - b * sine[c]);
            y[at + apart] = blend_one(beta, y[at + apart], a * sine[c] + b * cosine[c]);
        }
}

static void rotate(nsm_device *d, int64_t batch, int64_t n, int64_t cols, int64_t heads,
                   int64_t size, int64_t pairs, bool side, double base, int64_t offset,
                   const int32_t *offsets, float sign, const float *x, float beta, float *y)
{
#pragma omp parallel for num_threads(nsmi_team(d, batch * n * cols)) schedule(static)
    for (int64_t r = 0; r < batch * n; r++) {
        float cosine[PAIRS] __attribute__((aligned(64))), sine[PAIRS] __attribute__((aligned(64)));
        const float *from = x + r * cols;
        float *to = y + r * cols;
        double place = (double)sign * (double)(r % n + (offsets ? offsets[r / n] : offset));
        for (int64_t c0 = 0; c0 < pairs; c0 += PAIRS) {
            int64_t count = pairs - c0 < PAIRS ? pairs - c0 : PAIRS;
            turns(place, base, pairs, c0, count, cosine, sine);
            rotate_row(from, to, beta, heads, size, pairs, side, c0, count, cosine, sine);
        }
        for (int64_t h = 0; h < heads; h++)
            for (int64_t c = 2 * pairs; c < size; c++)
                to[h * size + c] = blend_one(beta, to[h * size + c], from[h * size + c]);
        for (int64_t c = heads * size; c < cols; c++) to[c] = blend_one(beta, to[c], from[c]);
    }
}

void NSMI_FILL(attend)(nsm_backend *be)
{
    be->rotate = rotate;
    be->attention = attention;
    be->attention_back = attention_back;
}
