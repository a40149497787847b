/* kernels/cpu/decay.h - Sums over the tokens of a chunk that fade with the distance between them:
 * what the chunked recurrences (recurrence.c) are made of.
 *
 * Token i multiplies what came before it by w_i, 0 <= w_i <= 1: one number, or one for each of D
 * columns.  With P(j, i) the product of w over the tokens j < t <= i:
 *
 *   scores   A_ij  = sum over d of x_id y_jd P(j, i)_d    j <= i
 *   by_row   dx_id += sum over j <= i of A_ij y_jd P(j, i)_d
 *   by_col   dy_jd += sum over i >= j of A_ij x_id P(j, i)_d
 *
 * `early`: token i looks before its own decay: P(j, i - 1), and j < i.  Nothing here divides by a
 * decay or takes the exponential of a positive number, so decays near 0 and near 1 are alike safe.
 *
 * One decay for all columns: P is a matrix, and these are plain products.  One for each column:
 * tokens are taken in blocks of W.  Between blocks P(j, i) = (j to its block's end) (whole blocks)
 * (block's start to i), so the sums are products of x and y with their parts multiplied in.  Within
 * a block the W x W sums run over d with a lane for each token, P carried along by one
 * multiplication a token.
 *
 * Letters: m tokens in the chunk, D columns, L of them with zeros to whole vectors. */
#ifndef NSM_DECAY_H
#define NSM_DECAY_H
#include "kernels/cpu/tile.h"

enum { CHUNK = NSMI_CHUNK, GROUPS = CHUNK / 4, BLOCKS = CHUNK / 4 };

typedef struct {
    int64_t m, d, ld;         /* tokens, columns that decay, L */
    bool vector;              /* each column its own */
    /* what is not zero, by groups of rows */
    int32_t none[GROUPS], to_diagonal[GROUPS], from_diagonal[GROUPS], all[GROUPS];
    /* one for all: products from the chunk's start to i, early or not; from j to its end; of all */
    float *in[2], *out, *fade[2]; /* [m]; fade [m, CHUNK] = P, zeros where nothing is seen */
    float total;
    /* each its own, [m, L]: w; the product from the block's start to i; from j to the block's
     * end */
    float *w, *start, *end;
    float *ones;              /* [L] */
    /* [blocks, L]: the product of all blocks before one, of all behind it */
    float *before, *after;
    float *totals;            /* [L] */
    float *rows, *packed;     /* [m, L] each: to work in */
    float *block_rows;        /* [W, L] */
} decays;

/* ---- small products ---- */
static inline void multiply(const float *a, int64_t lda, bool turned, const float *b, int64_t m,
                            int64_t n, int64_t k, float beta, float *c, int64_t ldc)
{
    tile_run(&(tile_product){ a, lda, turned, b, m, n, k, 1, beta, c, ldc, NULL, NULL, false });
}

/* A is a lower triangle [m, m], or turned. */
static inline void multiply_lower(const decays *s, const float *a, bool turned, const float *b,
                                  int64_t n, float beta, float *c, int64_t ldc)
{
    tile_run(&(tile_product){ a, CHUNK, turned, b, s->m, n, s->m, 1, beta, c, ldc,
                              turned ? s->from_diagonal : s->none, turned ? s->all : s->to_diagonal,
                              false });
}

static inline void clear_above(const decays *s, bool strict, float *a)
{
    for (int64_t i = 0; i < s->m; i++)
        for (int64_t j = strict ? i : i + 1; j < CHUNK; j++) a[i * CHUNK + j] = 0;
}

/* ---- what one token's decay is to a row ---- */
static inline const float *start_of(const decays *s, int64_t i, bool early)
{
    if (!early) return s->start + i * s->ld;
    return i % W ? s->start + (i - 1) * s->ld : s->ones;
}

/* to = x times the product from the chunk's start to each row (add: added to it) */
static inline void fade_in(const decays *s, const float *x, bool early, bool add, float *to)
{
    for (int64_t i = 0; i < s->m; i++) {
        const float *a = s->vector ? start_of(s, i, early) : NULL, *b = s->before + i / W * s->ld;
        for (int64_t c = 0; c < s->ld; c += W) {
            vf y = vf_load(x + i * s->ld + c) *
                   (s->vector ? vf_load(a + c) * vf_load(b + c) : vf_set(s->in[early][i]));
            vf_store(to + i * s->ld + c, add ? vf_load(to + i * s->ld + c) + y : y);
        }
    }
}

/* ... times the product from each row to the chunk's end */
static inline void fade_out(const decays *s, const float *y, bool add, float *to)
{
    for (int64_t j = 0; j < s->m; j++) {
        const float *a = s->end + j * s->ld, *b = s->after + j / W * s->ld;
        for (int64_t c = 0; c < s->ld; c += W) {
            vf z = vf_load(y + j * s->ld + c) *
                   (s->vector ? vf_load(a + c) * vf_load(b + c) : vf_set(s->out[j]));
            vf_store(to + j * s->ld + c, add ? vf_load(to + j * s->ld + c) + z : z);
        }
    }
}

/* ---- making: g [m, L] (vector), or [m]: the logs of the decays; NULL: none ---- */
static inline void decay_groups(decays *s)
{
    for (int g = 0; g < GROUPS; g++) {
        int64_t end = (g + 1) * TILE_ROWS;
        s->none[g] = 0;
        s->to_diagonal[g] = (int32_t)(end < s->m ? end : s->m);
        s->from_diagonal[g] = (int32_t)(g * TILE_ROWS < s->m ? g * TILE_ROWS : s->m);
        s->all[g] = (int32_t)s->m;
    }
}

static inline void decay_scalar(decays *s, const float *g)
{
    float sum[CHUNK + 1] = { 0 }; /* logs, summed: their differences are never above 0 */
    for (int64_t i = 0; i < s->m; i++) sum[i + 1] = sum[i] + (g ? g[i] : 0);
    for (int64_t i = 0; i < s->m; i++) {
        s->in[0][i] = expf(sum[i + 1]);
        s->in[1][i] = expf(sum[i]);
        s->out[i] = expf(sum[s->m] - sum[i + 1]);
    }
    s->total = expf(sum[s->m]);
    for (int early = 0; early < 2; early++)
        for (int64_t i = 0; i < s->m; i++) {
            int64_t seen = early ? i : i + 1;
            vf top = vf_set(sum[seen]);
            for (int64_t j = 0; j < CHUNK; j += W) {
                vi there = vi_lanes() + (int32_t)j < (int32_t)seen;
                vf p = g && j < seen ? vf_exp_down(top - vf_load(sum + 1 + j)) : vf_set(1);
                vf_store(s->fade[early] + i * CHUNK + j, vf_pick(there, p, vf_set(0)));
            }
        }
}

static inline void decay_vector(decays *s, const float *g)
{
    const int64_t ld = s->ld, blocks = nsmi_blocks(s->m, W);
    for (int64_t i = 0; i < blocks * W * ld; i += W)
        vf_store(s->w + i, i < s->m * ld ? vf_exp_down(vf_load(g + i)) : vf_set(0));
    for (int64_t c = 0; c < ld; c += W) {
        vf all = vf_set(1);
        vf_store(s->ones + c, all);
        for (int64_t b = 0; b < blocks; b++) {
            int64_t i0 = b * W, i1 = nsmi_block_end(b, W, s->m);
            vf p = vf_set(1), q = vf_set(1);
            vf_store(s->before + b * ld + c, all);
            for (int64_t i = i0; i < i1; i++)
                vf_store(s->start + i * ld + c, p *= vf_load(s->w + i * ld + c));
            for (int64_t j = i1 - 1; j >= i0; j--) {
                vf_store(s->end + j * ld + c, q);
                q *= vf_load(s->w + j * ld + c);
            }
            all *= p;
        }
        vf_store(s->totals + c, all);
        all = vf_set(1);
        for (int64_t b = blocks - 1; b >= 0; b--) {
            vf_store(s->after + b * ld + c, all);
            all *= vf_load(start_of(s, nsmi_block_end(b, W, s->m) - 1, false) + c);
        }
    }
}

/* ---- within a block of W tokens: lanes are tokens.  Rows of x, y and w behind the last token are
 * 0. ---- */
typedef struct {
    const decays *s;
    int64_t i0, rows; /* the block */
    bool early;
} decay_block;

/* Columns c .. c + W of `rows` rows as W vectors of a lane a row. */
static inline void load_turned(const float *x, int64_t ld, int64_t rows, vf t[W])
{
    for (int64_t i = 0; i < W; i++) t[i] = i < rows ? vf_load(x + i * ld) : vf_set(0);
    vf_transpose(t);
}

static inline void add_turned(vf t[W], int64_t ld, int64_t rows, float *to)
{
    vf_transpose(t);
    for (int64_t i = 0; i < rows; i++) vf_store(to + i * ld, vf_load(to + i * ld) + t[i]);
}

static inline vf put_lane(vf p, int j, vf x) { return vf_pick(vi_lanes() == j, x, p); }

/* t[j] lane i += x_id y_jd P(j, i)_d over all d */
static inline void block_scores(const decay_block *b, const float *x, const float *y, vf t[W])
{
    const decays *s = b->s;
    vf xt[W];
    for (int j = 0; j < W; j++) t[j] = vf_set(0);
    for (int64_t c = 0; c < s->ld; c += W) {
        load_turned(x + b->i0 * s->ld + c, s->ld, b->rows, xt);
        for (int64_t d = 0; d < W; d++) {
            const float *yd = y + b->i0 * s->ld + c + d, *wd = s->w + b->i0 * s->ld + c + d;
            vf p = vf_set(0);
#pragma GCC unroll 16
            for (int j = W - 1; j >= 0; j--) {
                if (!b->early) p = put_lane(p, j, xt[d]);
                t[j] += p * yd[j * s->ld];
                p *= wd[j * s->ld];
                if (b->early) p = put_lane(p, j, xt[d]);
            }
        }
    }
}

/* dx += over the block; a [rows, CHUNK] at its first column */
static inline void block_by_row(const decay_block *b, const float *a, const float *y, float *dx)
{
    const decays *s = b->s;
    vf at[W], out[W];
    load_turned(a, CHUNK, b->rows, at); /* at[j] lane i */
    for (int64_t c = 0; c < s->ld; c += W) {
        for (int64_t d = 0; d < W; d++) {
            const float *yd = y + b->i0 * s->ld + c + d, *wd = s->w + b->i0 * s->ld + c + d;
            vf z = vf_set(0);
            out[d] = vf_set(0);
#pragma GCC unroll 16
            for (int j = 0; j < W; j++) {
                if (b->early) out[d] = put_lane(out[d], j, z);
                z = z * wd[j * s->ld] + at[j] * yd[j * s->ld];
                if (!b->early) out[d] = put_lane(out[d], j, z);
            }
        }
        add_turned(out, s->ld, b->rows, dx + b->i0 * s->ld + c);
    }
}

static inline void block_by_col(const decay_block *b, const float *a, const float *x, float *dy)
{
    const decays *s = b->s;
    vf ar[W], out[W];
    /* ar[i] lane j */
    for (int64_t i = 0; i < W; i++) ar[i] = i < b->rows ? vf_get(a + i * CHUNK, W) : vf_set(0);
    for (int64_t c = 0; c < s->ld; c += W) {
        for (int64_t d = 0; d < W; d++) {
            const float *xd = x + b->i0 * s->ld + c + d, *wd = s->w + b->i0 * s->ld + c + d;
            vf p = vf_set(0), r = vf_set(0);
#pragma GCC unroll 16
            for (int i = 0; i < W; i++) {
                if (!b->early) p = put_lane(p * wd[i * s->ld], i, vf_set(1));
                r += ar[i] * p * xd[i * s->ld];
                if (b->early) p = put_lane(p * wd[i * s->ld], i, vf_set(1));
            }
            out[d] = r;
        }
        add_turned(out, s->ld, b->rows, dy + b->i0 * s->ld + c);
    }
}

/* ---- between blocks ---- */

/* Where vector column v of row k is in a packing of n columns by `depth` rows; *width: to the next
 * row. */
static inline float *packed_at(float *packed, int64_t n, int64_t depth, int64_t v, int64_t *width)
{
    tile_panels p = tile_panels_of(n);
    int64_t j = 0;
    while (tile_panel_start(&p, j + 1) <= v * W) j++;
    int64_t start = tile_panel_start(&p, j);
    *width = tile_panel_start(&p, j + 1) - start;
    return packed + start * depth + (v * W - start);
}

/* Rows of block `at` of y, times the product to the block's end, as vector column `at` of the
 * packing [L, m]. */
static inline void pack_block_turned(const decays *s, const float *y, int64_t at)
{
    int64_t width, rows = s->m - at * W < W ? s->m - at * W : W;
    float *to = packed_at(s->packed, s->m, s->ld, at, &width);
    for (int64_t c = 0; c < s->ld; c += W) {
        vf t[W];
        for (int64_t i = 0; i < W; i++) {
            int64_t from = (at * W + i) * s->ld + c;
            t[i] = i < rows ? vf_load(y + from) * vf_load(s->end + from) : vf_set(0);
        }
        vf_transpose(t);
        for (int64_t d = 0; d < W; d++) vf_store(to + (c + d) * width, t[d]);
    }
}

/* Vector columns 0 .. count of the packing, times the whole decay of a block. */
static inline void pass_block_turned(const decays *s, int64_t count, const float *whole)
{
    for (int64_t v = 0; v < count; v++) {
        int64_t width;
        float *to = packed_at(s->packed, s->m, s->ld, v, &width);
        for (int64_t d = 0; d < s->ld; d++)
            vf_store(to + d * width, vf_load(to + d * width) * whole[d]);
    }
}

static inline const float *whole_of(const decays *s, int64_t block)
{
    return s->start + (nsmi_block_end(block, W, s->m) - 1) * s->ld;
}

/* Rows of a block of x times the product from the block's start, in block_rows. */
static inline void start_rows(const decays *s, const float *x, bool early, int64_t i0, int64_t rows)
{
    for (int64_t i = 0; i < rows; i++) {
        const float *f = start_of(s, i0 + i, early);
        for (int64_t c = 0; c < s->ld; c += W)
            vf_store(s->block_rows + i * s->ld + c,
                     vf_load(x + (i0 + i) * s->ld + c) * vf_load(f + c));
    }
}

static inline void scores_by_column(const decays *s, const float *x, const float *y, bool early,
                                    float *a)
{
    int32_t none[GROUPS] = { 0 }, last[GROUPS];
    for (int64_t i0 = 0, at = 0; i0 < s->m; i0 += W, at++) {
        int64_t rows = s->m - i0 < W ? s->m - i0 : W;
        if (at > 1) pass_block_turned(s, at - 1, whole_of(s, at - 1));
        if (at > 0) {
            pack_block_turned(s, y, at - 1);
            start_rows(s, x, early, i0, rows);
            for (int g = 0; g < GROUPS; g++) last[g] = (int32_t)i0;
            tile_run(&(tile_product){ s->block_rows, s->ld, false, s->packed, rows, s->m, s->ld, 1,
                                      0, a + i0 * CHUNK, CHUNK, none, last, true });
        }
        vf t[W];
        block_scores(&(decay_block){ s, i0, rows, early }, x, y, t);
        vf_transpose(t);
        for (int64_t i = 0; i < rows; i++) {
            vf_store(a + (i0 + i) * CHUNK + i0, t[i]);
            for (int64_t j = i0 + W; j < CHUNK; j += W)
                vf_store(a + (i0 + i) * CHUNK + j, vf_set(0));
        }
    }
}

/* Rows of block `at` of y times the product to the block's end, into the packing [m, L]; those
 * before it pass it. */
static inline void pack_block(const decays *s, const float *y, int64_t at, const float *whole)
{
    for (int64_t v = 0; v < s->ld / W; v++) {
        int64_t width, last = nsmi_block_end(at, W, s->m);
        float *to = packed_at(s->packed, s->ld, s->m, v, &width);
        for (int64_t j = 0; j < at * W; j++)
            vf_store(to + j * width, vf_load(to + j * width) * vf_load(whole + v * W));
        for (int64_t j = at * W; j < last; j++)
            vf_store(to + j * width,
                     vf_load(y + j * s->ld + v * W) * vf_load(s->end + j * s->ld + v * W));
    }
}

static inline void by_row_by_column(const decays *s, const float *a, const float *y, bool early,
                                    float *dx)
{
    int32_t none[GROUPS] = { 0 }, last[GROUPS];
    for (int64_t i0 = 0, at = 0; i0 < s->m; i0 += W, at++) {
        int64_t rows = s->m - i0 < W ? s->m - i0 : W;
        block_by_row(&(decay_block){ s, i0, rows, early }, a + i0 * CHUNK + i0, y, dx);
        if (at == 0) continue;
        pack_block(s, y, at - 1, whole_of(s, at - 1));
        for (int g = 0; g < GROUPS; g++) last[g] = (int32_t)i0;
        tile_run(&(tile_product){ a + i0 * CHUNK, CHUNK, false, s->packed, rows, s->ld, s->m, 1, 0,
                                  s->block_rows, s->ld, none, last, false });
        for (int64_t i = 0; i < rows; i++) {
            const float *f = start_of(s, i0 + i, early);
            float *to = dx + (i0 + i) * s->ld;
            for (int64_t c = 0; c < s->ld; c += W)
                vf_store(to + c,
                         vf_load(to + c) + vf_load(s->block_rows + i * s->ld + c) * vf_load(f + c));
        }
    }
}

static inline void by_col_by_column(const decays *s, const float *a, const float *x, bool early,
                                    float *dy)
{
    memset(s->rows, 0, (size_t)(s->m * s->ld) * sizeof(float));
    for (int64_t at = nsmi_blocks(s->m, W) - 1; at >= 0; at--) {
        int64_t i0 = at * W, rows = s->m - i0 < W ? s->m - i0 : W;
        block_by_col(&(decay_block){ s, i0, rows, early }, a + i0 * CHUNK + i0, x, dy);
        if (at == 0) break;
        start_rows(s, x, early, i0, rows);
        tile_pack(s->block_rows, s->ld, false, s->ld, rows, s->packed);
        multiply(a + i0 * CHUNK, CHUNK, true, s->packed, i0, s->ld, rows, 1, s->rows, s->ld);
        const float *whole = whole_of(s, at - 1);
        for (int64_t j = 0; j < i0; j++)
            for (int64_t c = 0; c < s->ld; c += W) {
                float *sum = s->rows + j * s->ld + c, *to = dy + j * s->ld + c;
                if (j >= i0 - W)
                    vf_store(to, vf_load(to) + vf_load(sum) * vf_load(s->end + j * s->ld + c));
                else vf_store(sum, vf_load(sum) * vf_load(whole + c));
            }
    }
}

/* ---- the three sums; a [m, CHUNK], x, y, dx, dy [m, L] ---- */
static inline void decay_scores(const decays *s, const float *x, const float *y, bool early,
                                bool strict, float *a)
{
    if (s->vector) {
        scores_by_column(s, x, y, early, a);
        if (strict && !early) clear_above(s, true, a);
        return;
    }
    tile_pack(y, s->ld, true, s->m, s->ld, s->packed);
    tile_run(&(tile_product){ x, s->ld, false, s->packed, s->m, s->m, s->ld, 1, 0, a, CHUNK,
                              s->none, s->to_diagonal, true });
    for (int64_t i = 0; i < s->m; i++) {
        int64_t seen = strict ? i : i + 1;
        for (int64_t j = 0; j < CHUNK; j += W) {
            vf f = vf_load(s->fade[early] + i * CHUNK + j),
               z = j < seen ? vf_load(a + i * CHUNK + j) : vf_set(0);
            vi there = vi_lanes() + (int32_t)j < (int32_t)seen;
            vf_store(a + i * CHUNK + j, vf_pick(there, z * f, vf_set(0)));
        }
    }
}

/* a's upper part must be zero; one decay for all: a is left multiplied by P where `fade` */
static inline void fade_matrix(const decays *s, bool early, float *a)
{
    for (int64_t i = 0; !s->vector && i < s->m; i++)
        for (int64_t j = 0; j < CHUNK; j += W)
            vf_store(a + i * CHUNK + j,
                     vf_load(a + i * CHUNK + j) * vf_load(s->fade[early] + i * CHUNK + j));
}

/* The gradients of scores: dx and dy += from da, which is used up. */
static inline void decay_scores_back(const decays *s, const float *x, const float *y, bool early,
                                     float *da, float *dx, float *dy)
{
    if (s->vector) {
        by_row_by_column(s, da, y, early, dx);
        by_col_by_column(s, da, x, early, dy);
        return;
    }
    fade_matrix(s, early, da);
    tile_pack(y, s->ld, false, s->ld, s->m, s->packed);
    multiply_lower(s, da, false, s->packed, s->ld, 1, dx, s->ld);
    tile_pack(x, s->ld, false, s->ld, s->m, s->packed);
    multiply_lower(s, da, true, s->packed, s->ld, 1, dy, s->ld);
}

#endif
