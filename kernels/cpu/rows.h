/* kernels/cpu/rows.h - How the graph kernels walk a sparse matrix row by row.
 *
 * A kernel gives what to do with a span of a row's entries (`span`, which fills acc), how two
 * parts of one row are joined (`join`), and what becomes of the row (`done`).  Rows are taken a
 * chunk at a time by whichever thread is free.  A row above LONG_ROW entries (the hub of a star)
 * is cut into pieces of PIECE entries that threads share; the parts are joined in the order of
 * the entries.  The cut depends on the matrix alone, so the result does not depend on the threads.
 *
 * Letters: R rows, H heads, D per head; e an entry, lo..hi a span of entries. */
#ifndef NSM_ROWS_H
#define NSM_ROWS_H
#include "kernels/cpu/cpu.h"

#define INLINE static inline __attribute__((always_inline))

enum {
    LONG_ROW = 8192,
    PIECE = 2048,
    WAVE = 16,    /* pieces whose parts are held at a time */
    /* columns that are accumulated at a time, each head's padded to a multiple of W */
    TILE = 512,
    ACC = 2 * TILE,
    /* parts of a sum over all rows; each is made by one thread, then they are added in order */
    SLOTS = 64,
    MAX_HEADS = 32,
    AHEAD = 16    /* entries between asking for a row of the other side and using it */
};

typedef struct {
    void (*span)(const void *job, int64_t row, int64_t lo, int64_t hi, float *acc);
    void (*join)(const void *job, float *acc, const float *next);
    void (*done)(const void *job, int64_t row, float *acc, float *total); /* NULL: nothing */
    /* NULL: nothing */
    void (*after)(const void *job, int64_t row, int64_t lo, int64_t hi, const float *acc);
} row_kernel;

/* Rows first..last; long ones are left out. */
static inline void walk_rows(const nsm_csr_part *m, int64_t first, int64_t last,
                             const row_kernel *k,
                             const void *job, float *total)
{
    float acc[ACC] __attribute__((aligned(64)));
    for (int64_t r = first; r < last; r++) {
        int64_t lo = m->ptr[r], hi = m->ptr[r + 1];
        if (hi - lo > LONG_ROW) continue;
        k->span(job, r, lo, hi, acc);
        if (k->done) k->done(job, r, acc, total);
        if (k->after) k->after(job, r, lo, hi, acc);
    }
}

static inline void walk_long_row(const nsm_csr_part *m, int64_t r, int team, const row_kernel *k,
                                 const void *job,
                                 float *total)
{
    float part[WAVE][ACC] __attribute__((aligned(64))), acc[ACC] __attribute__((aligned(64)));
    int64_t lo = m->ptr[r], hi = m->ptr[r + 1], pieces = (hi - lo + PIECE - 1) / PIECE;
    for (int64_t from = 0; from < pieces; from += WAVE) {
        int64_t n = pieces - from < WAVE ? pieces - from : WAVE;
#pragma omp parallel for schedule(dynamic) num_threads(team)
        for (int64_t i = 0; i < n; i++) {
            int64_t a = lo + (from + i) * PIECE, b = a + PIECE < hi ? a + PIECE : hi;
            k->span(job, r, a, b, part[i]);
        }
        for (int64_t i = 0; i < n; i++)
            if (from + i == 0) memcpy(acc, part[0], sizeof acc);
            else if (k->join) k->join(job, acc, part[i]);
    }
    if (k->done) k->done(job, r, acc, total);
    if (!k->after) return;
#pragma omp parallel for schedule(dynamic) num_threads(team)
    for (int64_t i = 0; i < pieces; i++) {
        int64_t a = lo + i * PIECE, b = a + PIECE < hi ? a + PIECE : hi;
        k->after(job, r, a, b, acc);
    }
}

/* All rows of m.  work: elementary operations in all.  total [columns] (may be NULL) is what
 * `done` adds to over all rows: += at the end. */
static inline void walk(const nsm_device *d, const nsm_csr_part *m, int64_t work,
                        const row_kernel *k, const void *job,
                        int64_t columns, float *total)
{
    int team = nsmi_team(d, work);
    if (!total) {
#pragma omp parallel for schedule(dynamic) num_threads(team)
        for (int64_t c = 0; c < m->chunks; c++)
            walk_rows(m, m->chunk[c], m->chunk[c + 1], k, job, NULL);
    }
    float sum[SLOTS][TILE] __attribute__((aligned(64)));
    if (total) {
#pragma omp parallel for schedule(dynamic) num_threads(team)
        for (int64_t s = 0; s < SLOTS; s++) {
            memset(sum[s], 0, sizeof sum[s]);
            for (int64_t c = s * m->chunks / SLOTS; c < (s + 1) * m->chunks / SLOTS; c++)
                walk_rows(m, m->chunk[c], m->chunk[c + 1], k, job, sum[s]);
        }
    }
    for (int64_t c = 0; c < m->chunks; c++) {
        if (m->ptr[m->chunk[c + 1]] - m->ptr[m->chunk[c]] <= LONG_ROW) continue;
        for (int64_t r = m->chunk[c]; r < m->chunk[c + 1]; r++)
            if (m->ptr[r + 1] - m->ptr[r] > LONG_ROW) walk_long_row(m, r, team, k, job, sum[0]);
    }
    if (total)
        for (int64_t s = 0; s < SLOTS; s++)
            for (int64_t i = 0; i < columns; i++) total[i] += sum[s][i];
}

/* ---- tiles: some heads whole, or a slice of one head's columns ---- */
typedef struct {
    int64_t head, heads;  /* which heads */
    int64_t col, cols;    /* which columns of each */
    int64_t pad;          /* floats of a head in acc, a multiple of W */
} tile;

static inline int64_t round_up(int64_t n) { return (n + W - 1) / W * W; }
static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static inline tile first_tile(int64_t heads, int64_t dim)
{
    tile t = { .cols = least(dim, TILE) };
    t.pad = round_up(t.cols);
    t.heads = least(least(heads, MAX_HEADS), TILE / t.pad);
    return t;
}

/* The tile after t; false after the last. */
static inline bool next_tile(tile *t, int64_t heads, int64_t dim)
{
    if (t->col + t->cols < dim) {
        t->col += t->cols;
        t->cols = least(dim - t->col, TILE);
        t->pad = round_up(t->cols);
        return true;
    }
    int64_t head = t->head + t->heads;
    if (head >= heads) return false;
    *t = first_tile(heads - head, dim);
    t->head = head;
    return true;
}

#define FOR_TILES(t, heads, dim) \
    for (tile t = first_tile(heads, dim), *more = &t; more; \
         more = next_tile(&t, heads, dim) ? &t : NULL)

/* ---- small pieces that kernels share ---- */
static inline int64_t place(const nsm_csr_part *m, int64_t e) { return m->pos ? m->pos[e] : e; }

static inline float dot(const float *a, const float *b, int64_t n)
{
    vf s = {0};
    int64_t i = 0;
    for (; i + W <= n; i += W) s += vf_load(a + i) * vf_load(b + i);
    if (i < n) s += vf_load_n(a + i, n - i) * vf_load_n(b + i, n - i);
    return vf_sum(s);
}

static inline void acc_zero(float *acc, int64_t n) { memset(acc, 0, (size_t)n * sizeof *acc); }

static inline void acc_add(float *acc, const float *next, int64_t n) /* n a multiple of W */
{
    for (int64_t i = 0; i < n; i += W) vf_store(acc + i, vf_load(acc + i) + vf_load(next + i));
}

/* y = beta y + v */
static inline void blend(float *y, float beta, const float *v, int64_t n)
{
    int64_t i = 0;
    for (; i + W <= n; i += W)
        vf_store(y + i, beta != 0.0f ? vf_load(v + i) + beta * vf_load(y + i) : vf_load(v + i));
    if (i < n) blend_n(y + i, beta, vf_load(v + i), n - i);
}

/* Ask for a row that will be needed soon.  The empty asm keeps GCC 12 from taking a function that
 * only prefetches for one without effect, and dropping its calls. */
INLINE void prefetch_row(const float *row, int64_t floats)
{
    for (int64_t i = 0; i < floats; i += 16) __builtin_prefetch(row + i);
    __asm__ volatile("");
}

#endif
