/* kernels/cpu/gemm.c - Matrix products with AVX-512, in place of OpenBLAS.
 *
 * OpenBLAS picks its kernels by the processor's model, and those that it does not know get the
 * AVX2 ones, half as fast; this is the AVX-512 path for all of them.  The other instruction sets
 * leave OpenBLAS in the table (dense.c).
 *
 * As in Goto and van de Geijn (ACM TOMS 34(3), 2008): B is packed into panels of at most 3 vectors
 * of columns by K_PACK rows, which stay in the first cache while groups of 8 rows of A go over
 * them, 8 x 3 vectors of sums in registers.  Rows of A are read where they stand; only A transposed
 * is packed, in groups of 8.  Every element of C is the same chain of sums wherever it stands:
 * over K_PACK values of k in a register, then block by block.
 * Letters: C [m, n] = A [m, k] B [k, n]; a tile is ROW_TILE rows of C. */
#include "kernels/cpu/tile.h"

#if defined(__AVX512F__)
enum {
    GROUP = TILE_ROWS,
    K_PACK = 256,       /* values of k packed at a time */
    ROW_TILE = 128,     /* rows of a task */
    COLS_SHARED = 8192, /* columns of B packed at a time for all threads */
    COLS_OWN = 1024,    /* ... for one thread, in its own buffer */
    TASKS = 16,         /* with fewer tiles than these, tasks take a part of the columns */
    K_BLOCK = 4096,     /* of a long K: least ... */
    K_BLOCKS = 64,      /* ... and how many at most */
    WORK = 32,          /* products of numbers that weigh as much as an element of other work */
    SMALL = 1024        /* rows and columns of C where K may be long */
};

typedef struct {
    bool ta, tb;
    int64_t m, n, k;
    float alpha, beta;
    const float *a, *b;
    float *c;
    int64_t lda, ldb, ldc;
} product;

/* Panel j of op(B)'s rows k0.. and columns j0... */
static void pack_panel(const product *p, const tile_panels *s, int64_t j, int64_t j0, int64_t n,
                       int64_t k0, int64_t depth, float *packed)
{
    tile_pack_panel(p->b + (p->tb ? j0 * p->ldb + k0 : k0 * p->ldb + j0), p->ldb, p->tb, s, j, n,
                    depth, packed);
}

/* Rows i.. of op(A) = A transposed: groups of 8, [groups, depth, 8], zeros past the last row. */
static void pack_rows(const product *p, int64_t i, int64_t rows, int64_t k0, int64_t depth,
                      float *packed)
{
    int64_t whole = rows / GROUP * GROUP;
    for (int64_t k = 0; k < depth; k++) {
        const float *from = p->a + (k0 + k) * p->lda + i;
        float *to = packed + k * GROUP;
        for (int64_t g = 0; g < whole; g += GROUP)
            memcpy(to + g * depth, from + g, GROUP * sizeof(float));
        for (int64_t r = 0; whole < rows && r < GROUP; r++)
            to[whole * depth + r] = whole + r < rows ? from[whole + r] : 0;
    }
}

/* Rows i.. of C over panels first..last: one packed depth of k.  pack_a: room for a tile of A. */
static void tile(const product *p, const tile_panels *s, int64_t first, int64_t last,
                 const float *packed, int64_t i, int64_t rows, int64_t n, int64_t k0, int64_t depth,
                 float beta, float *c, int64_t ldc, float *pack_a)
{
    if (p->ta) pack_rows(p, i, rows, k0, depth, pack_a);
    for (int64_t j = first; j < last; j++) {
        int64_t start = tile_panel_start(s, j), width = tile_panel_start(s, j + 1) - start;
        void (*run)(const tile_group *) = tile_multiplies[p->ta][width / W];
        for (int64_t r = 0; r < rows; r += GROUP)
            run(&(tile_group){
                p->ta ? pack_a + r * depth : p->a + (i + r) * p->lda + k0, packed + start * depth,
                p->ta ? GROUP : p->lda, depth, rows - r < GROUP ? rows - r : GROUP,
                n - start < width ? n - start : width, p->alpha, beta, c + r * ldc + start, ldc });
    }
}

/* ---- products ---- */

/* The buffer of a thread of the team that this device's kernel runs. */
static float *pack_of(const nsm_device *d, int thread)
{
    return ((nsmi_cpu_state *)d->impl)->pack + (int64_t)thread * NSMI_PACK;
}

/* One thread: C over k0 <= k < k1. */
static void product_alone(const product *p, int64_t k0, int64_t k1, float beta, float *c,
                          int64_t ldc, float *pack)
{
    float *pack_b = pack + ROW_TILE * K_PACK;
    for (int64_t j0 = 0; j0 < p->n; j0 += COLS_OWN) {
        int64_t n = p->n - j0 < COLS_OWN ? p->n - j0 : COLS_OWN;
        tile_panels s = tile_panels_of(n);
        for (int64_t k = k0; k < k1; k += K_PACK) {
            int64_t depth = k1 - k < K_PACK ? k1 - k : K_PACK;
            for (int64_t j = 0; j < s.count; j++) pack_panel(p, &s, j, j0, n, k, depth, pack_b);
            for (int64_t i = 0; i < p->m; i += ROW_TILE)
                tile(p, &s, 0, s.count, pack_b, i, p->m - i < ROW_TILE ? p->m - i : ROW_TILE, n, k,
                     depth, k == k0 ? beta : 1, c + i * ldc + j0, ldc, pack);
        }
    }
}

/* A long K over a small C: each block of K leaves a whole C in scratch; these add up in order. */
static void product_long_k(nsm_device *d, const product *p, int64_t k_block)
{
    int64_t blocks = nsmi_blocks(p->k, k_block), size = p->m * p->n;
    float *partial = nsmi_scratch(d); /* [blocks, m, n] */
#pragma omp parallel for num_threads(d->threads) schedule(dynamic)
    for (int64_t b = 0; b < blocks; b++)
        product_alone(p, b * k_block, nsmi_block_end(b, k_block, p->k), 0, partial + b * size, p->n,
                      pack_of(d, omp_get_thread_num()));
#pragma omp parallel for num_threads(nsmi_team(d, size * blocks)) schedule(static)
    for (int64_t i = 0; i < p->m; i++) {
        float *c = p->c + i * p->ldc;
        for (int64_t j = 0; j < p->n; j++) c[j] = p->beta == 0 ? 0 : p->beta * c[j];
        for (int64_t b = 0; b < blocks; b++)
            for (int64_t j = 0; j < p->n; j++) c[j] += partial[b * size + i * p->n + j];
    }
}

/* Columns j0.. of C, k0 <= k < k1: the team packs this part of B, then shares out the tiles. */
static void shared_part(const nsm_device *d, const product *p, int64_t j0, int64_t k0, int64_t k1)
{
    int64_t n = p->n - j0 < COLS_SHARED ? p->n - j0 : COLS_SHARED,
            depths = nsmi_blocks(k1 - k0, K_PACK);
    tile_panels s = tile_panels_of(n);
    int64_t tiles = nsmi_blocks(p->m, ROW_TILE),
            parts = tiles < TASKS ? nsmi_blocks(TASKS, tiles) : 1;
    int64_t width = tile_panel_start(&s, s.count);
    float *pack_b = nsmi_scratch(d); /* [k1 - k0, width], by K_PACK rows */
    if (parts > s.count) parts = s.count;
#pragma omp for schedule(static)
    for (int64_t t = 0; t < depths * s.count; t++) {
        int64_t k = k0 + t / s.count * K_PACK;
        pack_panel(p, &s, t % s.count, j0, n, k, k1 - k < K_PACK ? k1 - k : K_PACK,
                   pack_b + (k - k0) * width);
    }
#pragma omp for schedule(dynamic)
    for (int64_t t = 0; t < tiles * parts; t++) {
        int64_t i = t / parts * ROW_TILE, part = t % parts,
                rows = p->m - i < ROW_TILE ? p->m - i : ROW_TILE;
        for (int64_t k = k0; k < k1; k += K_PACK)
            tile(p, &s, part * s.count / parts, (part + 1) * s.count / parts,
                 pack_b + (k - k0) * width, i, rows, n, k, k1 - k < K_PACK ? k1 - k : K_PACK,
                 k == 0 ? p->beta : 1, p->c + i * p->ldc + j0, p->ldc,
                 pack_of(d, omp_get_thread_num()));
    }
}

static void product_shared(nsm_device *d, const product *p)
{
    int64_t cols = nsmi_blocks(p->n < COLS_SHARED ? p->n : COLS_SHARED, W) * W,
            most = NSMI_SCRATCH / cols / K_PACK * K_PACK;
#pragma omp parallel num_threads(d->threads)
    for (int64_t j0 = 0; j0 < p->n; j0 += COLS_SHARED)
        for (int64_t k = 0; k < p->k; k += most)
            shared_part(d, p, j0, k, p->k - k < most ? p->k : k + most);
}

static void scale_only(const product *p)
{
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t j = 0; j < p->n; j++)
            p->c[i * p->ldc + j] = p->beta == 0 ? 0 : p->beta * p->c[i * p->ldc + j];
}

static void gemm(nsm_device *d, bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha,
                 const float *a, int64_t lda, const float *b, int64_t ldb, float beta, float *c,
                 int64_t ldc)
{
    product p = { ta, tb, m, n, k, alpha, beta, a, b, c, lda, ldb, ldc };
    if (m == 0 || n == 0) return;
    int64_t room =
        m * n <= NSMI_SCRATCH ? NSMI_SCRATCH / (m * n) : 0; /* K blocks that scratch holds */
    int64_t k_block = room > 1 ? nsmi_blocks(k, room > K_BLOCKS ? K_BLOCKS : room) : k;
    k_block = k_block < K_BLOCK ? K_BLOCK : nsmi_blocks(k_block, K_PACK) * K_PACK;
    if (k == 0)
        scale_only(&p);
    else if (m <= SMALL && n <= SMALL && k >= 2 * k_block)
        product_long_k(d, &p, k_block);
    else if (nsmi_team(d, m * n * k / WORK) == 1)
        product_alone(&p, 0, k, beta, c, ldc, pack_of(d, 0));
    else
        product_shared(d, &p);
}

static void gemm_batch(nsm_device *d, bool ta, bool tb, int64_t batch, int64_t m, int64_t n,
                       int64_t k, float alpha, const float *a, int64_t lda, int64_t sa,
                       const float *b, int64_t ldb, int64_t sb, float beta, float *c, int64_t ldc,
                       int64_t sc)
{
    bool share = batch < 4 && m * n * k >= (int64_t)1 << 20; /* few and large: share out each */
    for (int64_t i = 0; share && i < batch; i++)
        gemm(d, ta, tb, m, n, k, alpha, a + i * sa, lda, b + i * sb, ldb, beta, c + i * sc, ldc);
    if (share || m == 0 || n == 0) return;
#pragma omp parallel for num_threads(nsmi_team(d, batch * m * n * k / WORK)) schedule(dynamic)
    for (int64_t i = 0; i < batch; i++) {
        product p = { ta,         tb,         m,          n,   k,   alpha, beta,
                      a + i * sa, b + i * sb, c + i * sc, lda, ldb, ldc };
        if (k == 0)
            scale_only(&p);
        else
            product_alone(&p, 0, k, beta, p.c, ldc, pack_of(d, omp_get_thread_num()));
    }
}

void NSMI_FILL(gemm)(nsm_backend *be)
{
    be->gemm = gemm;
    be->gemm_batch = gemm_batch;
}
#else
void NSMI_FILL(gemm)(nsm_backend *be) { (void)be; }
#endif
