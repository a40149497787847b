/* kernels/cpu/tile.h - Products of small matrices that stand in a core's own caches: what the large
 * product, attention and the chunked recurrences are made of.
 *
 * As in Goto and van de Geijn (ACM TOMS 34(3), 2008): B is packed into panels of at most 3 vectors
 * of columns; groups of TILE_ROWS rows of A go over a panel with all sums in registers.  A is read
 * where it stands, by rows or, turned, by columns.
 * Letters: C [m, n] = A [m, k] B [k, n]; a group is TILE_ROWS rows of C. */
#ifndef NSM_TILE_H
#define NSM_TILE_H
#include "kernels/cpu/cpu.h"

#if defined(__AVX512F__)
enum { TILE_ROWS = 8 };
#else
enum { TILE_ROWS = 4 }; /* 16 registers */
#endif
enum { TILE_VECTORS = 3 };

/* ---- panels: n columns in vectors, shared out evenly over panels of at most TILE_VECTORS ---- */
/* `wider` panels have a vector more */
typedef struct { int64_t count, vectors, wider; } tile_panels;

static inline tile_panels tile_panels_of(int64_t n)
{
    int64_t all = nsmi_blocks(n, W), count = nsmi_blocks(all, TILE_VECTORS);
    return (tile_panels){ count, count ? all / count : 0, count ? all % count : 0 };
}

static inline int64_t tile_panel_start(const tile_panels *p, int64_t j)
{
    return (j * p->vectors + (j < p->wider ? j : p->wider)) * W;
}

/* to [depth, rows] = from [rows, depth] turned; both at most W */
static inline void tile_turn(const float *from, int64_t ld, int64_t rows, int64_t depth, float *to,
                             int64_t ld_to)
{
    vf t[W];
    if (rows < W || depth < W) {
        for (int64_t r = 0; r < rows; r++)
            for (int64_t k = 0; k < depth; k++) to[k * ld_to + r] = from[r * ld + k];
        return;
    }
    for (int64_t r = 0; r < W; r++) t[r] = vf_load(from + r * ld);
    vf_transpose(t);
    for (int64_t k = 0; k < W; k++) vf_store(to + k * ld_to, t[k]);
}

/* Panel j of B's n columns, [depth, width], zeros past the last column.  B(k, c) is b[k * ldb + c],
 * or turned b[c * ldb + k]. */
static inline void tile_pack_panel(const float *b, int64_t ldb, bool turned, const tile_panels *s,
                                   int64_t j, int64_t n, int64_t depth, float *restrict packed)
{
    int64_t start = tile_panel_start(s, j), width = tile_panel_start(s, j + 1) - start,
            there = n - start < width ? n - start : width;
    float *to = packed + start * depth;
    if (turned) {
        if (there < width) memset(to, 0, (size_t)(depth * width) * sizeof(float));
        for (int64_t c = 0; c < there; c += W)
            for (int64_t k = 0; k < depth; k += W)
                tile_turn(b + (start + c) * ldb + k, ldb, there - c < W ? there - c : W,
                          depth - k < W ? depth - k : W, to + k * width + c, width);
        return;
    }
    const float *from = b + start;
    for (int64_t k = 0; k < depth; k++, from += ldb, to += width)
        for (int64_t c = 0; c < width; c += W) {
            int64_t left = there - c;
            vf_store(to + c, left >= W  ? vf_load(from + c)
                             : left > 0 ? vf_load_n(from + c, left)
                                        : vf_set(0));
        }
}

/* All of them: tile_width(n) * depth floats. */
static inline int64_t tile_width(int64_t n) { return nsmi_blocks(n, W) * W; }

static inline void tile_pack(const float *b, int64_t ldb, bool turned, int64_t n, int64_t depth,
                             float *packed)
{
    tile_panels s = tile_panels_of(n);
    for (int64_t j = 0; j < s.count; j++) tile_pack_panel(b, ldb, turned, &s, j, n, depth, packed);
}

/* ---- the register tile ---- */
typedef struct {
    const float *a, *b;   /* group of rows; panel [depth, vectors * W] */
    int64_t lda, depth;   /* A(r, k) is a[r * lda + k], or turned a[k * lda + r] */
    int64_t rows, cols;   /* of C, at most TILE_ROWS x vectors * W; turned, A has all TILE_ROWS */
    float alpha, beta;
    float *c;
    int64_t ldc;
} tile_group;

static inline __attribute__((always_inline)) void tile_multiply(const tile_group *g,
                                                                const int vectors,
                                                                const bool turned)
{
    vf sum[TILE_ROWS][TILE_VECTORS], b[TILE_VECTORS];
    const float *row[TILE_ROWS], *panel = g->b;
    const int64_t step = turned ? g->lda : 1;
    for (int r = 0; r < TILE_ROWS; r++) {
        int64_t there = r < g->rows ? r : 0; /* past the last: any row, not stored */
        row[r] = turned ? g->a + r : g->a + there * g->lda;
        for (int v = 0; v < vectors; v++) sum[r][v] = vf_set(0);
    }
    for (int64_t k = 0; k < g->depth; k++, panel += vectors * W) {
#pragma GCC unroll 3
        for (int v = 0; v < vectors; v++) b[v] = vf_load(panel + v * W);
#pragma GCC unroll 8
        for (int r = 0; r < TILE_ROWS; r++) {
            vf a = vf_set(row[r][k * step]);
#pragma GCC unroll 3
            for (int v = 0; v < vectors; v++) sum[r][v] += a * b[v];
        }
    }
    for (int r = 0; r < TILE_ROWS; r++) {
        if (r >= g->rows) break;
        for (int v = 0; v < vectors; v++) {
            float *c = g->c + r * g->ldc + v * W;
            int64_t lanes = g->cols - v * W;
            if (lanes <= 0) break;
            if (lanes > W) lanes = W;
            vf y = g->alpha * sum[r][v];
            vf_put(c, g->beta == 0 ? y : g->beta * vf_get(c, lanes) + y, lanes);
        }
    }
}

#define TILE_MULTIPLY(vectors) \
    static inline void tile_rows_##vectors(const tile_group *g) \
    { \
        tile_multiply(g, vectors, false); \
    } \
    static inline void tile_turned_##vectors(const tile_group *g) \
    { \
        tile_multiply(g, vectors, true); \
    }
TILE_MULTIPLY(1)
TILE_MULTIPLY(2)
TILE_MULTIPLY(3)

static void (*const tile_multiplies[2][TILE_VECTORS + 1])(const tile_group *) = {
    { NULL, tile_rows_1, tile_rows_2, tile_rows_3 },
    { NULL, tile_turned_1, tile_turned_2, tile_turned_3 },
};

/* ---- a whole small product: C = alpha A B + beta C, B packed ----
 * Of a group of rows only some columns are wanted, or only some of k is not zero: first[g] ..
 * last[g] (both NULL: all).  Columns that are not wanted are left as they are, but by whole
 * panels. */
typedef struct {
    const float *a;
    int64_t lda;
    /* A(i, k) is a[k * lda + i], and may be read up to the next multiple of TILE_ROWS */
    bool turned;
    const float *b;  /* by tile_pack */
    int64_t m, n, k;
    float alpha, beta;
    float *c;
    int64_t ldc;
    const int32_t *first, *last;
    bool columns;    /* ... of the columns, else of k */
} tile_product;

static inline void tile_run(const tile_product *p)
{
    tile_panels s = tile_panels_of(p->n);
    for (int64_t j = 0; j < s.count; j++) {
        int64_t start = tile_panel_start(&s, j), width = tile_panel_start(&s, j + 1) - start;
        void (*run)(const tile_group *) = tile_multiplies[p->turned][width / W];
        for (int64_t i = 0, g = 0; i < p->m; i += TILE_ROWS, g++) {
            int64_t k0 = 0, k1 = p->k;
            if (p->first && p->columns && (p->last[g] <= start || p->first[g] >= start + width))
                continue;
            if (p->first && !p->columns) {
                k0 = p->first[g];
                k1 = p->last[g] > k0 ? p->last[g] : k0;
            }
            run(&(tile_group){ p->a + (p->turned ? k0 * p->lda + i : i * p->lda + k0),
                               p->b + start * p->k + k0 * width, p->lda, k1 - k0,
                               p->m - i < TILE_ROWS ? p->m - i : TILE_ROWS,
                               p->n - start < width ? p->n - start : width, p->alpha, p->beta,
                               p->c + i * p->ldc + start, p->ldc });
        }
    }
}

#endif
