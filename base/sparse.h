/* base/sparse.h - Compressed sparse rows, with the transpose beside them.
 *
 * One structure serves graphs (row = destination, column = source) and sparse feature matrices
 * (row = node, column = feature).  Both directions are built once, so forward and backward each
 * accumulate by row: no atomics, the same sums for any thread count.
 * Letters: R rows, C columns, E stored entries ("edges"); E < 2^31. */
#ifndef NSM_SPARSE_H
#define NSM_SPARSE_H
#include "base/tensor.h"
#ifdef __cplusplus
extern "C" {
#endif

/* One direction.  Rows are cut into chunks of about equal work; a chunk is what one thread takes
 * at a time.  The cut depends on the matrix alone, never on the number of threads. */
typedef struct {
    int64_t rows, cols, nnz;
    int64_t *ptr;      /* [rows + 1] */
    int32_t *idx;      /* [nnz] column of each entry, ascending within a row */
    int32_t *pos;      /* [nnz] where the entry's value stands; NULL: at its own place */
    int64_t chunks;
    int64_t *chunk;    /* [chunks + 1] first row of each */
    /* rows of more than NSM_PIECE entries; the pieces of NSM_PIECE they are cut into */
    int64_t longs, pieces;
    int32_t *long_row;     /* [longs] which rows they are */
    int64_t *long_piece;   /* [longs + 1] first piece of each */
} nsm_csr_part;
enum { NSM_PIECE = 256 };

struct nsm_csr {
    nsm_ctx *ctx;
    int64_t rows, cols, nnz;
    nsm_csr_part fwd;  /* by row; pos is NULL: values stand in this order */
    nsm_csr_part bwd;  /* by column (the transpose); pos points into fwd's order */
    int32_t *source;   /* [nnz] which of the caller's entries each is; NULL: the same order */
};

/* Build from coordinates (row[k], col[k]), k < nnz, in any order, repeats allowed and kept: each
 * is an entry of its own.  Entries are sorted by row, then column, then k.  Copies; the caller
 * frees. without_transpose leaves bwd empty (for inference and for sampling).
 * Errors: NSM_EINVAL an index is out of range (named with its k) or a size is; NSM_ENOMEM. */
nsm_csr *nsm_csr_new(nsm_ctx *ctx, int64_t rows, int64_t cols, int64_t nnz, const int32_t *row,
                     const int32_t *col, bool without_transpose);
/* The same from rows that stand together already: ptr [rows+1], idx [nnz]. */
nsm_csr *nsm_csr_from_rows(nsm_ctx *ctx, int64_t rows, int64_t cols, const int64_t *ptr,
                           const int32_t *idx, bool without_transpose);
void nsm_csr_free(nsm_csr *csr);

#ifdef __cplusplus
}
#endif
#endif
