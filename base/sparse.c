/* base/sparse.c - Building compressed rows and their transpose.
 *
 * Two stable counting passes (by column, then by row) sort coordinates in O(E + R + C) without a
 * comparison; the transpose of sorted rows is one more such pass.  On the CPU the arrays are
 * ordinary device memory, filled on the host and copied over. */
#include "config.h"
#include "base/internal.h"

enum { CHUNK_WORK = 2048 }; /* edges + rows that one thread takes at a time */

void nsmi_counting_sort(int64_t nnz, int64_t keys, const int32_t *key, const int32_t *from,
                        int32_t *to, int64_t *count)
{
    memset(count, 0, (size_t)(keys + 1) * sizeof *count);
    for (int64_t k = 0; k < nnz; k++) count[key[k] + 1]++;
    for (int64_t i = 0; i < keys; i++) count[i + 1] += count[i];
    for (int64_t k = 0; k < nnz; k++) {
        int32_t e = from ? from[k] : (int32_t)k;
        to[count[key[e]]++] = e;
    }
}

void *nsmi_device_put(nsm_ctx *ctx, const void *host, size_t bytes)
{
    void *p = nsmi_device_alloc(ctx, bytes);
    if (p && bytes) ctx->dev.be->to_device(&ctx->dev, bytes, host, p);
    return p;
}

/* Cut rows into chunks of about CHUNK_WORK edges and rows; chunk has room for every row. */
static int64_t cut(int64_t rows, const int64_t *ptr, int64_t *chunk)
{
    int64_t n = 0, start = 0;
    chunk[0] = 0;
    for (int64_t r = 0; r < rows; r++)
        if (ptr[r + 1] - ptr[start] + (r + 1 - start) >= CHUNK_WORK || r + 1 == rows) {
            chunk[++n] = r + 1;
            start = r + 1;
        }
    return n;
}

/* The long rows, for devices whose threads are many and slow: each is shared out in pieces. */
static bool fill_long(nsm_ctx *ctx, nsm_csr_part *p, const int64_t *ptr)
{
    for (int64_t r = 0; r < p->rows; r++) p->longs += ptr[r + 1] - ptr[r] > NSM_PIECE;
    int32_t *row = nsmi_malloc(ctx, (size_t)p->longs * sizeof *row);
    int64_t *piece = nsmi_malloc(ctx, (size_t)(p->longs + 1) * sizeof *piece), n = 0;
    bool ok = row && piece;
    for (int64_t r = 0; ok && r < p->rows; r++) {
        int64_t entries = ptr[r + 1] - ptr[r];
        if (entries <= NSM_PIECE) continue;
        row[n] = (int32_t)r;
        piece[n++] = p->pieces;
        p->pieces += (entries + NSM_PIECE - 1) / NSM_PIECE;
    }
    if (ok) {
        piece[n] = p->pieces;
        p->long_row = nsmi_device_put(ctx, row, (size_t)n * sizeof *row);
        p->long_piece = nsmi_device_put(ctx, piece, (size_t)(n + 1) * sizeof *piece);
    }
    free(row);
    free(piece);
    return ok;
}

bool nsmi_csr_fill_part(nsm_ctx *ctx, nsm_csr_part *p, int64_t rows, int64_t cols,
                        const int64_t *ptr, const int32_t *idx, const int32_t *pos)
{
    int64_t nnz = ptr[rows];
    int64_t *chunk = nsmi_malloc(ctx, (size_t)(rows + 1) * sizeof *chunk);
    if (!chunk) return false;
    *p = (nsm_csr_part){ .rows = rows, .cols = cols, .nnz = nnz, .chunks = cut(rows, ptr, chunk) };
    p->ptr = nsmi_device_put(ctx, ptr, (size_t)(rows + 1) * sizeof *ptr);
    p->idx = nsmi_device_put(ctx, idx, (size_t)nnz * sizeof *idx);
    if (pos) p->pos = nsmi_device_put(ctx, pos, (size_t)nnz * sizeof *pos);
    p->chunk = nsmi_device_put(ctx, chunk, (size_t)(p->chunks + 1) * sizeof *chunk);
    free(chunk);
    return fill_long(ctx, p, ptr) && !nsmi_failed(ctx);
}

void nsmi_csr_free_part(nsm_ctx *ctx, nsm_csr_part *p)
{
    nsmi_device_free(ctx, p->ptr);
    nsmi_device_free(ctx, p->idx);
    nsmi_device_free(ctx, p->pos);
    nsmi_device_free(ctx, p->chunk);
    nsmi_device_free(ctx, p->long_row);
    nsmi_device_free(ctx, p->long_piece);
}

/* The transpose of host rows, into m->bwd. */
static bool add_transpose(nsm_ctx *ctx, nsm_csr *m, const int64_t *ptr, const int32_t *idx)
{
    int64_t *tptr = nsmi_calloc(ctx, (size_t)m->cols + 2, sizeof *tptr);
    int32_t *tidx = nsmi_malloc(ctx, (size_t)m->nnz * sizeof *tidx),
            *tpos = nsmi_malloc(ctx, (size_t)m->nnz * sizeof *tpos);
    bool ok = tptr && tidx && tpos;
    if (ok) {
        /* counts one place to the right, so that filling leaves tptr as the row starts */
        for (int64_t k = 0; k < m->nnz; k++) tptr[idx[k] + 2]++;
        for (int64_t c = 1; c <= m->cols; c++) tptr[c + 1] += tptr[c];
        for (int64_t r = 0; r < m->rows; r++)
            for (int64_t k = ptr[r]; k < ptr[r + 1]; k++) {
                int64_t at = tptr[idx[k] + 1]++;
                tidx[at] = (int32_t)r;
                tpos[at] = (int32_t)k;
            }
        ok = nsmi_csr_fill_part(ctx, &m->bwd, m->cols, m->rows, tptr, tidx, tpos);
    }
    free(tptr);
    free(tidx);
    free(tpos);
    return ok;
}

static nsm_csr *start(nsm_ctx *ctx, int64_t rows, int64_t cols, int64_t nnz)
{
    if (nsmi_failed(ctx)) return NULL;
    if (rows < 0 || cols < 0 || nnz < 0 || rows > INT32_MAX || cols > INT32_MAX ||
        nnz > INT32_MAX) {
        nsm_error_set(ctx, NSM_EINVAL,
                      "nsm_csr_new: %lld rows, %lld columns, %lld entries: each must be 0..2^31-1",
                      (long long)rows, (long long)cols, (long long)nnz);
        return NULL;
    }
    nsm_csr *m = nsmi_calloc(ctx, 1, sizeof *m);
    if (m) { m->ctx = ctx; m->rows = rows; m->cols = cols; m->nnz = nnz; }
    return m;
}

static bool check_indices(nsm_ctx *ctx, const char *what, int64_t nnz, const int32_t *index,
                          int64_t limit)
{
    for (int64_t k = 0; k < nnz; k++)
        if (index[k] < 0 || index[k] >= limit) {
            nsm_error_set(ctx, NSM_EINVAL, "nsm_csr_new: %s of entry %lld is %d, want 0..%lld",
                          what, (long long)k, index[k], (long long)limit - 1);
            return false;
        }
    return true;
}

nsm_csr *nsm_csr_new(nsm_ctx *ctx, int64_t rows, int64_t cols, int64_t nnz, const int32_t *row,
                     const int32_t *col, bool without_transpose)
{
    nsm_csr *m = start(ctx, rows, cols, nnz);
    if (!m) return NULL;
    int64_t most = rows > cols ? rows : cols;
    int64_t *count = nsmi_malloc(ctx, (size_t)(most + 2) * sizeof *count);
    int32_t *by_col = nsmi_malloc(ctx, (size_t)nnz * sizeof *by_col),
            *order = nsmi_malloc(ctx, (size_t)nnz * sizeof *order);
    bool ok = count && by_col && order && check_indices(ctx, "row", nnz, row, rows) &&
              check_indices(ctx, "column", nnz, col, cols);
    if (ok) {
        nsmi_counting_sort(nnz, cols, col, NULL, by_col, count);
        nsmi_counting_sort(nnz, rows, row, by_col, order, count);
        m->source = nsmi_device_put(ctx, order, (size_t)nnz * sizeof *order);
        for (int64_t k = 0; k < nnz; k++) by_col[k] = col[order[k]]; /* now the sorted columns */
        memmove(count + 1, count, (size_t)rows * sizeof *count);     /* ends become starts */
        count[0] = 0;
        ok = nsmi_csr_fill_part(ctx, &m->fwd, rows, cols, count, by_col, NULL) &&
             (without_transpose || add_transpose(ctx, m, count, by_col));
    }
    free(count);
    free(by_col);
    free(order);
    if (ok) return m;
    nsm_csr_free(m);
    return NULL;
}

nsm_csr *nsm_csr_from_rows(nsm_ctx *ctx, int64_t rows, int64_t cols, const int64_t *ptr,
                           const int32_t *idx, bool without_transpose)
{
    nsm_csr *m = start(ctx, rows, cols, rows >= 0 ? ptr[rows] : -1);
    if (!m) return NULL;
    bool ok = ptr[0] == 0;
    for (int64_t r = 0; ok && r < rows; r++) ok = ptr[r] <= ptr[r + 1] && ptr[r + 1] <= m->nnz;
    if (!ok) nsm_error_set(ctx, NSM_EINVAL, "nsm_csr_from_rows: ptr does not rise from 0");
    ok = ok && check_indices(ctx, "column", m->nnz, idx, cols) &&
         nsmi_csr_fill_part(ctx, &m->fwd, rows, cols, ptr, idx, NULL) &&
         (without_transpose || add_transpose(ctx, m, ptr, idx));
    if (ok) return m;
    nsm_csr_free(m);
    return NULL;
}

void nsm_csr_free(nsm_csr *m)
{
    if (!m) return;
    nsmi_csr_free_part(m->ctx, &m->fwd);
    nsmi_csr_free_part(m->ctx, &m->bwd);
    nsmi_device_free(m->ctx, m->source);
    free(m);
}
