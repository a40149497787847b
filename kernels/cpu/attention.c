/* kernels/cpu/attention.c - Attention over a graph's edges: GAT and GATv2, fused.
 *
 * Forward is one pass over the destinations: scores of a block of entries, a softmax that goes on
 * from block to block (Milakov and Gimelshein, arXiv:1805.02867), and the weighted sum, so each
 * source row is fetched once and nothing of E x H x D is written.
 *
 * GAT's backward fetches dy[row] once per edge, walking by source: that gives dx and the
 * gradient of each probability, which stands in scratch [E, H] for the passes that need it by
 * destination (ddst, dedge) and by source (dsrc).  GATv2's needs the features on both sides of an
 * edge: by destination for dq and datt, by source for dl.
 *
 * Within a block, the numbers of an entry's heads stand together: flat[k heads + h].  A row of H
 * numbers meets them as a pattern: repeated until the period is a whole number of vectors.
 *
 * Letters: R rows (destinations), E entries, H heads, D per head; s score, p probability, z what
 * goes into the leaky relu; j source, r row, e entry in forward's order. */
#include "kernels/cpu/rows.h"
#include "kernels/cpu/random.h"

enum {
    FLAT = NSMI_DRAWS,        /* numbers of a block: entries x heads */
    PATTERN = MAX_HEADS * 16,
    /* floats of fetched rows that a block may hold: they are read twice */
    NEAR = 8192
};

typedef struct {
    const nsm_csr_part *m;
    int64_t heads, dim;
    tile t;
    float slope, p_drop, keep; /* keep: 1/(1 - p_drop) */
    nsm_random random;
    const float *x, *src, *dst, *edge; /* GATv2: x is l, dst is q */
    const float *att;                  /* NULL: GAT */
    float *y, *stat, *prob;
    /* backward */
    const float *dy;
    float *scratch, *dx, *dsrc, *ddst, *dedge;
    bool want_scores;                  /* a gradient through the scores is wanted */
} job_t;

/* ---- patterns ---- */
static inline int64_t pattern_size(int64_t n) /* least common multiple of n and W */
{
    int64_t twos = n & -n;
    return n * (W / least(twos, W));
}

static inline void pattern_set(float *pattern, const float *v, int64_t n)
{
    int64_t size = pattern_size(n);
    for (int64_t i = 0; i < n; i++) pattern[i] = v[i];
    for (int64_t i = n; i < size; i++) pattern[i] = pattern[i - n];
}

static inline vf leaky(vf z, float slope) { return vf_pick(z > 0.0f, z, z * slope); }
static inline vf leaky_slope(vf z, float slope)
{
    return vf_pick(z > 0.0f, vf_set(1.0f), vf_set(slope));
}

/* exp of what is not above 0; the floor keeps libmvec on its fast way and a NaN stays one. */
static inline vf exp_down(vf x) { return vf_exp(vf_max(vf_set(-87.0f), x)); }

/* The tile's heads of n entries from first on, between [E, H] and flat. */
static inline void flat_get(const job_t *j, const float *from, int64_t first, int64_t n,
                            float *flat)
{
    int64_t hn = j->t.heads;
    from += first * j->heads + j->t.head;
    if (hn == j->heads) memcpy(flat, from, (size_t)(n * hn) * sizeof *flat);
    else
        for (int64_t k = 0; k < n; k++)
            memcpy(flat + k * hn, from + k * j->heads, (size_t)hn * sizeof *flat);
}

static inline void flat_put(const job_t *j, const float *flat, int64_t first, int64_t n, float *to)
{
    int64_t hn = j->t.heads;
    to += first * j->heads + j->t.head;
    if (hn == j->heads) memcpy(to, flat, (size_t)(n * hn) * sizeof *flat);
    else
        for (int64_t k = 0; k < n; k++)
            memcpy(to + k * j->heads, flat + k * hn, (size_t)hn * sizeof *flat);
}

/* flat = 0 where a draw drops, 1/(1 - p_drop) where it keeps, for n entries from first on. */
static void drop_factors(const job_t *j, int64_t first, int64_t n, float *flat)
{
    float buffer[NSMI_DRAW_ROOM] __attribute__((aligned(64)));
    int64_t hn = j->t.heads, step = hn == j->heads ? n : 1, count = step * hn;
    for (int64_t k = 0; k < n; k += step) {
        const float *u = nsmi_units(j->random, (first + k) * j->heads + j->t.head, count, buffer);
        for (int64_t i = 0; i < count; i++) flat[k * hn + i] = u[i] >= j->p_drop ? j->keep : 0.0f;
    }
}

/* ---- scores ---- */
INLINE void copy_heads(const job_t *j, int64_t lo, int64_t n, const int64_t hn, float *flat)
{
    const int32_t *idx = j->m->idx;
    const float *src = j->src + j->t.head;
    for (int64_t k = 0; k < n; k++) {
        if (lo + k + 2 * AHEAD < j->m->nnz)
            __builtin_prefetch(src + idx[lo + k + 2 * AHEAD] * j->heads);
        memcpy(flat + k * hn, src + idx[lo + k] * j->heads, (size_t)hn * sizeof *flat);
    }
}

/* GAT: z of the entries lo..lo+n of row r, rounded up to whole vectors. */
static void gat_z(const job_t *j, int64_t r, int64_t lo, int64_t n, float *flat)
{
    float pattern[PATTERN] __attribute__((aligned(64)));
    int64_t hn = j->t.heads, size = pattern_size(hn), count = n * hn;
    switch (hn) {
    case 1: copy_heads(j, lo, n, 1, flat); break;
    case 4: copy_heads(j, lo, n, 4, flat); break;
    case 8: copy_heads(j, lo, n, 8, flat); break;
    default: copy_heads(j, lo, n, hn, flat); break;
    }
    pattern_set(pattern, j->dst + r * j->heads + j->t.head, hn);
    acc_zero(flat + count, round_up(count) - count);
    for (int64_t i = 0; i < count; i += size)
        for (int64_t q = 0; q < size && i + q < count; q += W)
            vf_store(flat + i + q, vf_load(flat + i + q) + vf_load(pattern + q));
    if (j->edge)
        for (int64_t k = 0; k < n; k++)
            for (int64_t h = 0; h < hn; h++)
                flat[k * hn + h] += j->edge[(lo + k) * j->heads + j->t.head + h];
}

/* GATv2: n lanes of z at column i of the tile's first head on. */
INLINE vf v2_z(const float *l, const float *q, const float *edge, int64_t i, int64_t n)
{
    if (n == W)
        return edge ? vf_load(l + i) + vf_load(q + i) + vf_load(edge + i)
                    : vf_load(l + i) + vf_load(q + i);
    vf z = vf_load_n(l + i, n) + vf_load_n(q + i, n);
    return edge ? z + vf_load_n(edge + i, n) : z;
}

INLINE float v2_score(const job_t *j, const float *l, const float *q, const float *edge,
                      const float *att)
{
    vf s = {0};
    int64_t i = 0, d = j->dim;
    for (; i + W <= d; i += W) s += vf_load(att + i) * leaky(v2_z(l, q, edge, i, W), j->slope);
    if (i < d) s += vf_load_n(att + i, d - i) * leaky(v2_z(l, q, edge, i, d - i), j->slope);
    return vf_sum(s);
}

/* The features of entry e's edge, for the tile's heads; NULL if there are none. */
static inline const float *edge_row(const job_t *j, int64_t e)
{
    return j->edge ? j->edge + (e * j->heads + j->t.head) * j->dim : NULL;
}

static inline const float *head_row(const job_t *j, const float *x, int64_t row)
{
    return x + (row * j->heads + j->t.head) * j->dim;
}

/* Ask for the tile's part of the row that entry e + AHEAD will need; for the numbers of its
 * heads. */
INLINE void ask(const job_t *j, const float *x, int64_t e)
{
    if (e + AHEAD < j->m->nnz)
        prefetch_row(head_row(j, x, j->m->idx[e + AHEAD]) + j->t.col,
                     (j->t.heads - 1) * j->dim + j->t.cols);
}

INLINE void ask_scratch(const job_t *j, int64_t e)
{
    if (e + AHEAD < j->m->nnz)
        __builtin_prefetch(j->scratch + j->m->pos[e + AHEAD] * j->heads + j->t.head, 1);
}

static void v2_scores(const job_t *j, int64_t r, int64_t lo, int64_t n, float *flat)
{
    const float *q = head_row(j, j->dst, r), *att = j->att + j->t.head * j->dim;
    for (int64_t k = 0; k < n; k++) {
        const float *l = head_row(j, j->x, j->m->idx[lo + k]), *edge = edge_row(j, lo + k);
        ask(j, j->x, lo + k);
        for (int64_t h = 0; h < j->t.heads; h++) {
            int64_t at = h * j->dim;
            flat[k * j->t.heads + h] = v2_score(j, l + at, q + at, edge ? edge + at : NULL,
                                                att + at);
        }
    }
}

static void scores(const job_t *j, int64_t r, int64_t lo, int64_t n, float *flat)
{
    if (j->att) {
        v2_scores(j, r, lo, n, flat);
        return;
    }
    gat_z(j, r, lo, n, flat);
    for (int64_t i = 0; i < n * j->t.heads; i += W)
        vf_store(flat + i, leaky(vf_load(flat + i), j->slope));
}

static inline int64_t block_entries(const job_t *j)
{
    int64_t most = FLAT / j->t.heads;
    if (j->att) most = least(most, NEAR / (j->t.heads * j->dim) + 1);
    return most;
}

/* ---- forward: acc holds each head's largest score, the sum of exp, and the weighted sums ---- */
enum { SUM_AT = MAX_HEADS, SUMS_AT = 2 * MAX_HEADS };

/* acc += weight * row, for the entries lo..lo+n; nv vectors a head, the last of `tail` lanes */
INLINE void add_rows(const job_t *j, int64_t lo, int64_t n, const float *flat, const int64_t nv,
                     int64_t tail, const bool full,
                     float *acc)
{
    int64_t hn = j->t.heads, d = j->dim;
    for (int64_t k = 0; k < n; k++) {
        const float *x = head_row(j, j->x, j->m->idx[lo + k]) + j->t.col;
        if (!j->att) ask(j, j->x, lo + k);
        float *a = acc;
        for (int64_t h = 0; h < hn; h++, x += d) {
            vf w = vf_set(flat[k * hn + h]);
            for (int64_t v = 0; v < nv; v++, a += W) {
                vf value = full || v + 1 < nv ? vf_load(x + v * W) : vf_load_n(x + v * W, tail);
                vf_store(a, vf_load(a) + w * value);
            }
        }
    }
}

static void add_weighted(const job_t *j, int64_t lo, int64_t n, const float *flat, float *acc)
{
    int64_t nv = j->t.pad / W, tail = (j->t.cols - 1) % W + 1;
    if (tail < W) add_rows(j, lo, n, flat, nv, tail, false, acc);
    else if (nv == 1) add_rows(j, lo, n, flat, 1, tail, true, acc);
    else if (nv == 2) add_rows(j, lo, n, flat, 2, tail, true, acc);
    else if (nv == 4) add_rows(j, lo, n, flat, 4, tail, true, acc);
    else add_rows(j, lo, n, flat, nv, tail, true, acc);
}

/* Raise acc's maxima to `top`, and what has been summed so far to match. */
static void raise(const job_t *j, const float *top, float *acc)
{
    int64_t hn = j->t.heads;
    float scale[MAX_HEADS + W];
    for (int64_t h = 0; h < hn; h++) scale[h] = acc[h] - top[h];
    for (int64_t h = 0; h < hn; h += W)
        vf_store_n(scale + h, exp_down(vf_load_n(scale + h, least(hn - h, W))), least(hn - h, W));
    for (int64_t h = 0; h < hn; h++) {
        acc[h] = top[h];
        acc[SUM_AT + h] *= scale[h];
        float *a = acc + SUMS_AT + h * j->t.pad;
        for (int64_t i = 0; i < j->t.pad; i += W) vf_store(a + i, scale[h] * vf_load(a + i));
    }
}

/* The largest of each head over a block and acc. */
static void block_top(const job_t *j, int64_t count, float *flat, const float *acc, float *top)
{
    float best[PATTERN] __attribute__((aligned(64)));
    int64_t hn = j->t.heads, size = pattern_size(hn);
    for (int64_t i = count; i < round_up(count); i++) flat[i] = -INFINITY;
    pattern_set(best, acc, hn);
    for (int64_t i = 0; i < count; i += size)
        for (int64_t q = 0; q < size && i + q < count; q += W)
            vf_store(best + q, vf_max(vf_load(flat + i + q), vf_load(best + q)));
    memcpy(top, best, (size_t)hn * sizeof *top);
    for (int64_t i = hn; i < size; i += hn)
        for (int64_t h = 0; h < hn; h++) top[h] = best[i + h] > top[h] ? best[i + h] : top[h];
}

/* flat = exp(flat - largest), the sums into acc. */
static void block_exp(const job_t *j, int64_t count, float *flat, float *acc)
{
    float top[PATTERN] __attribute__((aligned(64))), sum[PATTERN] __attribute__((aligned(64)));
    int64_t hn = j->t.heads, size = pattern_size(hn);
    pattern_set(top, acc, hn);
    acc_zero(sum, size);
    for (int64_t i = 0; i < count; i += size)
        for (int64_t q = 0; q < size && i + q < count; q += W) {
            vf p = exp_down(vf_load(flat + i + q) - vf_load(top + q));
            vf_store(flat + i + q, p);
            vf_store(sum + q, vf_load(sum + q) + p);
        }
    for (int64_t i = 0; i < size; i += hn)
        for (int64_t h = 0; h < hn; h++) acc[SUM_AT + h] += sum[i + h];
}

static void attend_span(const void *job, int64_t row, int64_t lo, int64_t hi, float *acc)
{
    const job_t *j = job;
    float flat[FLAT + W] __attribute__((aligned(64))), drop[FLAT + W], top[MAX_HEADS];
    int64_t hn = j->t.heads, most = block_entries(j);
    for (int64_t h = 0; h < hn; h++) acc[h] = -INFINITY;
    acc_zero(acc + SUM_AT, MAX_HEADS + hn * j->t.pad);
    for (int64_t b = lo; b < hi; b += most) {
        int64_t n = least(hi - b, most), count = n * hn;
        scores(j, row, b, n, flat);
        if (j->prob) flat_put(j, flat, b, n, j->prob);
        block_top(j, count, flat, acc, top);
        if (b == lo) memcpy(acc, top, (size_t)hn * sizeof *top);
        else raise(j, top, acc);
        block_exp(j, count, flat, acc);
        if (j->p_drop > 0.0f) {
            drop_factors(j, b, n, drop);
            for (int64_t i = 0; i < count; i++) flat[i] *= drop[i];
        }
        add_weighted(j, b, n, flat, acc + SUMS_AT);
    }
}

static void attend_join(const void *job, float *acc, const float *next)
{
    const job_t *j = job;
    float other[ACC] __attribute__((aligned(64))), top[MAX_HEADS];
    memcpy(other, next, sizeof other);
    for (int64_t h = 0; h < j->t.heads; h++) top[h] = acc[h] > next[h] ? acc[h] : next[h];
    raise(j, top, acc);
    raise(j, top, other);
    for (int64_t h = 0; h < j->t.heads; h++) acc[SUM_AT + h] += other[SUM_AT + h];
    acc_add(acc + SUMS_AT, other + SUMS_AT, j->t.heads * j->t.pad);
}

static void attend_done(const void *job, int64_t row, float *acc, float *total)
{
    const job_t *j = job;
    bool empty = j->m->ptr[row] == j->m->ptr[row + 1];
    (void)total;
    for (int64_t h = 0; h < j->t.heads; h++) {
        float share = empty ? 0.0f : 1.0f / acc[SUM_AT + h], *a = acc + SUMS_AT + h * j->t.pad;
        float *y = j->y + (row * j->heads + j->t.head + h) * j->dim + j->t.col;
        float *stat = j->stat + 2 * row * j->heads + j->t.head + h;
        for (int64_t i = 0; i < j->t.pad; i += W) vf_store(a + i, share * vf_load(a + i));
        blend(y, 0.0f, a, j->t.cols);
        stat[0] = empty ? 0.0f : acc[h];
        stat[j->heads] = share;
    }
}

/* p of the scores in flat, for row r, by what forward left in stat */
static void flat_prob(const job_t *j, int64_t r, int64_t count, float *flat)
{
    float top[PATTERN] __attribute__((aligned(64))), share[PATTERN] __attribute__((aligned(64)));
    const float *stat = j->stat + 2 * r * j->heads + j->t.head;
    int64_t size = pattern_size(j->t.heads);
    pattern_set(top, stat, j->t.heads);
    pattern_set(share, stat + j->heads, j->t.heads);
    for (int64_t i = 0; i < count; i += size)
        for (int64_t q = 0; q < size && i + q < count; q += W) {
            vf s = vf_load(flat + i + q) - vf_load(top + q);
            vf_store(flat + i + q, exp_down(s) * vf_load(share + q));
        }
}

static void prob_after(const void *job, int64_t row, int64_t lo, int64_t hi, const float *acc)
{
    const job_t *j = job;
    float flat[FLAT + W] __attribute__((aligned(64)));
    int64_t most = FLAT / j->t.heads;
    (void)acc;
    for (int64_t b = lo; b < hi; b += most) {
        int64_t n = least(hi - b, most);
        acc_zero(flat, FLAT + W);
        flat_get(j, j->prob, b, n, flat);
        flat_prob(j, row, n * j->t.heads, flat);
        flat_put(j, flat, b, n, j->prob);
    }
}

static void attend(nsm_device *d, job_t j)
{
    static const row_kernel plain = { attend_span, attend_join, attend_done, NULL };
    static const row_kernel with_prob = { attend_span, attend_join, attend_done, prob_after };
    j.keep = 1.0f / (1.0f - j.p_drop);
    FOR_TILES(t, j.heads, j.dim) {
        j.t = t;
        walk(d, j.m, (j.m->nnz + j.m->rows) * t.heads * (t.cols + 8), j.prob ? &with_prob : &plain,
             &j, 0, NULL);
    }
}

static void gat(nsm_device *d, const nsm_csr_part *m, int64_t heads, int64_t dim, float slope,
                float p_drop, nsm_random r, const float *x, const float *src, const float *dst,
                const float *edge, float *y, float *stat, float *prob)
{
    attend(d, (job_t){ .m = m,
                       .heads = heads,
                       .dim = dim,
                       .slope = slope,
                       .p_drop = p_drop,
                       .random = r,
                       .x = x,
                       .src = src,
                       .dst = dst,
                       .edge = edge,
                       .y = y,
                       .stat = stat,
                       .prob = prob });
}

static void gatv2(nsm_device *d, const nsm_csr_part *m, int64_t heads, int64_t dim, float slope,
                  float p_drop, nsm_random r, const float *l, const float *q, const float *edge,
                  const float *att, float *y, float *stat, float *prob)
{
    attend(d, (job_t){ .m = m,
                       .heads = heads,
                       .dim = dim,
                       .slope = slope,
                       .p_drop = p_drop,
                       .random = r,
                       .x = l,
                       .dst = q,
                       .edge = edge,
                       .att = att,
                       .y = y,
                       .stat = stat,
                       .prob = prob });
}

/* ---- GAT backward ---- */

/* 1, by destination: scratch = p, with a minus sign where it was dropped. */
static void prob_span(const void *job, int64_t row, int64_t lo, int64_t hi, float *acc)
{
    const job_t *j = job;
    float flat[FLAT + W] __attribute__((aligned(64))), drop[FLAT + W];
    int64_t most = FLAT / j->t.heads;
    (void)acc;
    for (int64_t b = lo; b < hi; b += most) {
        int64_t n = least(hi - b, most), count = n * j->t.heads;
        scores(j, row, b, n, flat);
        flat_prob(j, row, count, flat);
        if (j->p_drop > 0.0f) {
            drop_factors(j, b, n, drop);
            for (int64_t i = 0; i < count; i++) flat[i] = drop[i] > 0.0f ? flat[i] : -flat[i];
        }
        flat_put(j, flat, b, n, j->scratch);
    }
}

/* 2, by source j: dx[j] += p drop dy[r], and scratch = p drop <dy[r], x[j]>.  nv vectors a head,
 * the last of `tail` lanes; x padded as acc is. */
INLINE void source_rows(const job_t *j, int64_t lo, int64_t hi, const int64_t nv, int64_t tail,
                        const bool full,
                        const bool dots, const float *x, float *acc)
{
    int64_t hn = j->t.heads, d = j->dim;
    for (int64_t e = lo; e < hi; e++) {
        const float *dy = head_row(j, j->dy, j->m->idx[e]) + j->t.col;
        float *w = j->scratch + j->m->pos[e] * j->heads + j->t.head;
        ask(j, j->dy, e);
        ask_scratch(j, e);
        for (int64_t h = 0; h < hn; h++) {
            float weight = w[h] > 0.0f ? w[h] * j->keep : 0.0f;
            const float *xh = x + h * j->t.pad, *dyh = dy + h * d;
            float *a = acc + h * j->t.pad;
            vf s = {0};
            for (int64_t v = 0; v < nv; v++) {
                vf g = full || v + 1 < nv ? vf_load(dyh + v * W) : vf_load_n(dyh + v * W, tail);
                vf_store(a + v * W, vf_load(a + v * W) + weight * g);
                if (dots) s += g * vf_load(xh + v * W);
            }
            if (dots) w[h] = weight * vf_sum(s);
        }
    }
}

static void source_span(const void *job, int64_t row, int64_t lo, int64_t hi, float *acc)
{
    const job_t *j = job;
    float x[TILE] __attribute__((aligned(64)));
    int64_t nv = j->t.pad / W, tail = (j->t.cols - 1) % W + 1;
    bool dots = j->want_scores && j->t.cols == j->dim;
    acc_zero(acc, j->t.heads * j->t.pad);
    acc_zero(x, j->t.heads * j->t.pad);
    for (int64_t h = 0; h < j->t.heads; h++)
        memcpy(x + h * j->t.pad, head_row(j, j->x, row) + h * j->dim + j->t.col,
               (size_t)j->t.cols * sizeof *x);
    if (!dots) source_rows(j, lo, hi, nv, tail, false, false, x, acc);
    else if (tail < W) source_rows(j, lo, hi, nv, tail, false, true, x, acc);
    else if (nv == 1) source_rows(j, lo, hi, 1, tail, true, true, x, acc);
    else if (nv == 2) source_rows(j, lo, hi, 2, tail, true, true, x, acc);
    else if (nv == 4) source_rows(j, lo, hi, 4, tail, true, true, x, acc);
    else source_rows(j, lo, hi, nv, tail, true, true, x, acc);
}

static void tile_join(const void *job, float *acc, const float *next)
{
    const job_t *j = job;
    acc_add(acc, next, j->t.heads * j->t.pad);
}

static void source_done(const void *job, int64_t row, float *acc, float *total)
{
    const job_t *j = job;
    (void)total;
    if (!j->dx) return;
    for (int64_t h = 0; h < j->t.heads; h++)
        blend(j->dx + (row * j->heads + j->t.head + h) * j->dim + j->t.col, 1.0f,
              acc + h * j->t.pad, j->t.cols);
}

/* The same products where a head has more than TILE columns, after all of its dx. */
static void dots_span(const void *job, int64_t row, int64_t lo, int64_t hi, float *acc)
{
    const job_t *j = job;
    (void)acc;
    for (int64_t e = lo; e < hi; e++) {
        float *w = j->scratch + j->m->pos[e] * j->heads + j->t.head;
        const float *dy = head_row(j, j->dy, j->m->idx[e]), *x = head_row(j, j->x, row);
        for (int64_t h = 0; h < j->t.heads; h++)
            w[h] = w[h] > 0.0f ? w[h] * j->keep * dot(dy + h * j->dim, x + h * j->dim, j->dim)
                               : 0.0f;
    }
}

/* 3, by destination: the gradient of z, into scratch and dedge, its sum into ddst. */
static void gat_z_back(const job_t *j, int64_t count, const float *delta, const float *z,
                       const float *p, float *g)
{
    int64_t size = pattern_size(j->t.heads);
    for (int64_t i = 0; i < count; i += size)
        for (int64_t q = 0; q < size && i + q < count; q += W) {
            vf ds = vf_load(g + i + q) - vf_load(p + i + q) * vf_load(delta + q);
            vf_store(g + i + q, ds * leaky_slope(vf_load(z + i + q), j->slope));
        }
}

static void row_delta(const job_t *j, int64_t row, float *delta) /* [heads of the tile] */
{
    const float *y = head_row(j, j->y, row), *dy = head_row(j, j->dy, row);
    for (int64_t h = 0; h < j->t.heads; h++)
        delta[h] = dot(y + h * j->dim, dy + h * j->dim, j->dim);
}

static void row_span(const void *job, int64_t row, int64_t lo, int64_t hi, float *acc)
{
    const job_t *j = job;
    float z[FLAT + W] __attribute__((aligned(64))), p[FLAT + W] __attribute__((aligned(64)));
    float g[FLAT + W] __attribute__((aligned(64))), delta[PATTERN] __attribute__((aligned(64))),
        one[MAX_HEADS];
    int64_t hn = j->t.heads, most = FLAT / hn;
    acc_zero(acc, MAX_HEADS);
    row_delta(j, row, one);
    pattern_set(delta, one, hn);
    for (int64_t b = lo; b < hi; b += most) {
        int64_t n = least(hi - b, most), count = n * hn;
        gat_z(j, row, b, n, z);
        for (int64_t i = 0; i < count; i += W) vf_store(p + i, leaky(vf_load(z + i), j->slope));
        flat_prob(j, row, count, p);
        acc_zero(g + count, round_up(count) - count);
        flat_get(j, j->scratch, b, n, g);
        gat_z_back(j, count, delta, z, p, g);
        flat_put(j, g, b, n, j->scratch);
        for (int64_t k = 0; k < n; k++)
            for (int64_t h = 0; h < hn; h++) {
                acc[h] += g[k * hn + h];
                if (j->dedge) j->dedge[(b + k) * j->heads + j->t.head + h] += g[k * hn + h];
            }
    }
}

static void heads_join(const void *job, float *acc, const float *next)
{
    (void)job;
    acc_add(acc, next, MAX_HEADS);
}

static void row_done(const void *job, int64_t row, float *acc, float *total)
{
    const job_t *j = job;
    (void)total;
    if (j->ddst) blend(j->ddst + row * j->heads + j->t.head, 1.0f, acc, j->t.heads);
}

/* 4, by source: dsrc[j] += the sum of scratch over j's entries. */
static void scratch_span(const void *job, int64_t row, int64_t lo, int64_t hi, float *acc)
{
    const job_t *j = job;
    (void)row;
    acc_zero(acc, MAX_HEADS);
    for (int64_t e = lo; e < hi; e++) {
        const float *g = j->scratch + j->m->pos[e] * j->heads + j->t.head;
        ask_scratch(j, e);
        for (int64_t h = 0; h < j->t.heads; h++) acc[h] += g[h];
    }
}

static void scratch_done(const void *job, int64_t row, float *acc, float *total)
{
    const job_t *j = job;
    (void)total;
    blend(j->dsrc + row * j->heads + j->t.head, 1.0f, acc, j->t.heads);
}

/* Run k over all of m, for each group of heads when it needs no more columns than one a head. */
static void walk_heads(nsm_device *d, const nsm_csr_part *m, const row_kernel *k, job_t j)
{
    j.m = m;
    FOR_TILES(t, j.heads, 1) {
        j.t = t;
        walk(d, m, m->nnz * t.heads * 16, k, &j, 0, NULL);
    }
}

static void gat_back(nsm_device *d, const nsm_csr *m, int64_t heads, int64_t dim, float slope,
                     float p_drop, nsm_random r, const float *x, const float *src, const float *dst,
                     const float *edge, const float *y, const float *stat, const float *dy,
                     float *scratch, float *dx, float *dsrc, float *ddst, float *dedge)
{
    static const row_kernel probs = { prob_span, NULL, NULL, NULL },
                            dots = { dots_span, NULL, NULL, NULL };
    static const row_kernel by_source = { source_span, tile_join, source_done, NULL };
    static const row_kernel by_row = { row_span, heads_join, row_done, NULL };
    static const row_kernel sum_source = { scratch_span, heads_join, scratch_done, NULL };
    job_t j = { .heads = heads,
                .dim = dim,
                .slope = slope,
                .p_drop = p_drop,
                .keep = 1.0f / (1.0f - p_drop),
                .random = r,
                .x = x,
                .src = src,
                .dst = dst,
                .edge = edge,
                .y = (float *)y,
                .stat = (float *)stat,
                .dy = dy,
                .scratch = scratch,
                .dx = dx,
                .dsrc = dsrc,
                .ddst = ddst,
                .dedge = dedge,
                .want_scores = dsrc || ddst || dedge };
    if (!dx && !j.want_scores) return;
    walk_heads(d, &m->fwd, &probs, j);
    j.m = &m->bwd;
    if (dx || dim <= TILE)
        FOR_TILES(t, heads, dim) {
            j.t = t;
            walk(d, j.m, j.m->nnz * t.heads * t.cols * 2, &by_source, &j, 0, NULL);
        }
    if (!j.want_scores) return;
    if (dim > TILE) walk_heads(d, &m->bwd, &dots, j);
    walk_heads(d, &m->fwd, &by_row, j);
    if (dsrc) walk_heads(d, &m->bwd, &sum_source, j);
}

/* ---- GATv2 backward ---- */

/* By destination: scratch = ds = p (drop <dy, l[j]> - delta) of n entries from b on, also in ds. */
static void v2_score_back(const job_t *j, int64_t row, int64_t b, int64_t n, const float *delta,
                          float *ds)
{
    float p[FLAT + W] __attribute__((aligned(64))), drop[FLAT + W];
    int64_t hn = j->t.heads, count = n * hn;
    const float *dy = head_row(j, j->dy, row);
    v2_scores(j, row, b, n, p);
    acc_zero(p + count, round_up(count) - count);
    flat_prob(j, row, count, p);
    if (j->p_drop > 0.0f) drop_factors(j, b, n, drop);
    for (int64_t k = 0; k < n; k++) {
        const float *l = head_row(j, j->x, j->m->idx[b + k]);
        for (int64_t h = 0; h < hn; h++) {
            float dp = dot(dy + h * j->dim, l + h * j->dim, j->dim);
            if (j->p_drop > 0.0f) dp *= drop[k * hn + h];
            ds[k * hn + h] = p[k * hn + h] * (dp - delta[h]);
        }
    }
    flat_put(j, ds, b, n, j->scratch);
}

/* n lanes at column i: dz = ds att leaky'(z) into dq (and dedge), ds leaky(z) into datt */
INLINE void v2_columns(const job_t *j, float ds, vf z, const float *att, float *dq, float *datt,
                       float *dedge, int64_t i,
                       int64_t n)
{
    vf slope = ds * leaky_slope(z, j->slope);
    vf dz = slope * (n == W ? vf_load(att + i) : vf_load_n(att + i, n));
    vf_store(dq + i, vf_load(dq + i) + dz);
    vf_store(datt + i, vf_load(datt + i) + slope * z);
    if (dedge) blend_n(dedge + i, 1.0f, dz, n);
}

static void v2_row_add(const job_t *j, int64_t row, int64_t e, const float *ds, float *acc)
{
    const float *l = head_row(j, j->x, j->m->idx[e]), *q = head_row(j, j->dst, row),
                *edge = edge_row(j, e);
    for (int64_t h = 0; h < j->t.heads; h++) {
        int64_t at = h * j->dim + j->t.col, i = 0, n = j->t.cols;
        const float *att = j->att + j->t.head * j->dim + at, *eh = edge ? edge + at : NULL;
        float *dq = acc + h * j->t.pad, *datt = acc + TILE + h * j->t.pad;
        float *dedge = j->dedge ? j->dedge + (e * j->heads + j->t.head) * j->dim + at : NULL;
        for (; i + W <= n; i += W)
            v2_columns(j, ds[h], v2_z(l + at, q + at, eh, i, W), att, dq, datt, dedge, i, W);
        if (i < n)
            v2_columns(j, ds[h], v2_z(l + at, q + at, eh, i, n - i), att, dq, datt, dedge, i,
                       n - i);
    }
}

static void v2_row_span(const void *job, int64_t row, int64_t lo, int64_t hi, float *acc)
{
    const job_t *j = job;
    float ds[FLAT + W], delta[MAX_HEADS];
    int64_t most = block_entries(j);
    acc_zero(acc, ACC);
    row_delta(j, row, delta);
    for (int64_t b = lo; b < hi; b += most) {
        int64_t n = least(hi - b, most);
        v2_score_back(j, row, b, n, delta, ds);
        for (int64_t k = 0; k < n; k++) v2_row_add(j, row, b + k, ds + k * j->t.heads, acc);
    }
}

static void v2_row_join(const void *job, float *acc, const float *next)
{
    (void)job;
    acc_add(acc, next, ACC);
}

static void v2_row_done(const void *job, int64_t row, float *acc, float *total)
{
    const job_t *j = job;
    int64_t n = j->t.heads * j->t.pad;
    if (total) acc_add(total, acc + TILE, n);
    if (!j->ddst) return;
    for (int64_t h = 0; h < j->t.heads; h++)
        blend(j->ddst + (row * j->heads + j->t.head + h) * j->dim + j->t.col, 1.0f,
              acc + h * j->t.pad, j->t.cols);
}

/* By source j: p drop of the entries b..b+n, recomputed, into flat. */
static void v2_source_weights(const job_t *j, int64_t row, int64_t b, int64_t n, float *flat)
{
    float share[FLAT + W] __attribute__((aligned(64))), drop[MAX_HEADS];
    int64_t hn = j->t.heads, count = n * hn;
    const float *l = head_row(j, j->x, row), *att = j->att + j->t.head * j->dim;
    for (int64_t k = 0; k < n; k++) {
        int64_t r = j->m->idx[b + k];
        const float *q = head_row(j, j->dst, r), *edge = edge_row(j, j->m->pos[b + k]);
        const float *stat = j->stat + 2 * r * j->heads + j->t.head;
        ask(j, j->dst, b + k);
        ask(j, j->dy, b + k);
        ask_scratch(j, b + k);
        for (int64_t h = 0; h < hn; h++) {
            int64_t at = h * j->dim;
            flat[k * hn + h] = v2_score(j, l + at, q + at, edge ? edge + at : NULL, att + at) -
                               stat[h];
            share[k * hn + h] = stat[j->heads + h];
        }
        if (j->p_drop > 0.0f) {
            drop_factors(j, j->m->pos[b + k], 1, drop);
            for (int64_t h = 0; h < hn; h++) share[k * hn + h] *= drop[h];
        }
    }
    acc_zero(flat + count, round_up(count) - count);
    acc_zero(share + count, round_up(count) - count);
    for (int64_t i = 0; i < count; i += W)
        vf_store(flat + i, exp_down(vf_load(flat + i)) * vf_load(share + i));
}

static void v2_source_add(const job_t *j, int64_t row, int64_t b, const float *weight, float *acc)
{
    int64_t r = j->m->idx[b], e = j->m->pos[b];
    const float *l = head_row(j, j->x, row), *q = head_row(j, j->dst, r), *edge = edge_row(j, e);
    const float *ds = j->scratch + e * j->heads + j->t.head;
    for (int64_t h = 0; h < j->t.heads; h++) {
        int64_t at = h * j->dim + j->t.col, n;
        const float *att = j->att + j->t.head * j->dim + at, *dy = head_row(j, j->dy, r) + at;
        float *a = acc + h * j->t.pad;
        for (int64_t i = 0; i < j->t.cols; i += n) {
            n = least(j->t.cols - i, W);
            vf z = v2_z(l + at, q + at, edge ? edge + at : NULL, i, n);
            vf dz = ds[h] * leaky_slope(z, j->slope) *
                    (n == W ? vf_load(att + i) : vf_load_n(att + i, n));
            vf_store(a + i, vf_load(a + i) + dz +
                                weight[h] * (n == W ? vf_load(dy + i) : vf_load_n(dy + i, n)));
        }
    }
}

static void v2_source_span(const void *job, int64_t row, int64_t lo, int64_t hi, float *acc)
{
    const job_t *j = job;
    float flat[FLAT + W] __attribute__((aligned(64)));
    int64_t most = block_entries(j);
    acc_zero(acc, j->t.heads * j->t.pad);
    for (int64_t b = lo; b < hi; b += most) {
        int64_t n = least(hi - b, most);
        v2_source_weights(j, row, b, n, flat);
        for (int64_t k = 0; k < n; k++) v2_source_add(j, row, b + k, flat + k * j->t.heads, acc);
    }
}

static void gatv2_back(nsm_device *d, const nsm_csr *m, int64_t heads, int64_t dim, float slope,
                       float p_drop, nsm_random r, const float *l, const float *q,
                       const float *edge, const float *att, const float *y, const float *stat,
                       const float *dy, float *scratch, float *dl, float *dq, float *dedge,
                       float *datt)
{
    static const row_kernel by_row = { v2_row_span, v2_row_join, v2_row_done, NULL };
    static const row_kernel by_source = { v2_source_span, tile_join, source_done, NULL };
    float total[TILE];
    job_t j = { .heads = heads,
                .dim = dim,
                .slope = slope,
                .p_drop = p_drop,
                .keep = 1.0f / (1.0f - p_drop),
                .random = r,
                .x = l,
                .dst = q,
                .edge = edge,
                .att = att,
                .y = (float *)y,
                .stat = (float *)stat,
                .dy = dy,
                .scratch = scratch,
                .dx = dl,
                .ddst = dq,
                .dedge = dedge };
    FOR_TILES(t, heads, dim) {
        j.t = t;
        j.m = &m->fwd;
        acc_zero(total, TILE);
        walk(d, j.m, j.m->nnz * t.heads * t.cols * 8, &by_row, &j, t.heads * t.pad,
             datt ? total : NULL);
        for (int64_t h = 0; datt && h < t.heads; h++)
            blend(datt + (t.head + h) * dim + t.col, 1.0f, total + h * t.pad, t.cols);
        j.m = &m->bwd;
        if (dl) walk(d, j.m, j.m->nnz * t.heads * t.cols * 8, &by_source, &j, 0, NULL);
    }
}

void NSMI_FILL(attention)(nsm_backend *be)
{
    be->gat = gat;
    be->gat_back = gat_back;
    be->gatv2 = gatv2;
    be->gatv2_back = gatv2_back;
}
