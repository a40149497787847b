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

/* ---- entries with types ----
 * A matrix A_t for each of T types, all of the same size, mostly without an entry in most rows: so
 * only the rows that a type has entries in are kept, as its groups.  Groups stand by type, then by
 * row, and are cut into pieces, each of one type and of at most NSM_TYPED_GROUPS groups: what is
 * computed for a piece at a time has a bounded size. */
enum { NSM_TYPED_GROUPS = 16384 };

typedef struct {
    int32_t type;
    int64_t first;     /* its first group */
    int64_t entry;     /* its first entry */
    nsm_csr_part part; /* a row for each of its groups; columns are the matrix's */
} nsm_typed_piece;

/* One direction. */
typedef struct {
    int64_t rows, cols, nnz, groups, pieces;
    nsm_typed_piece *piece;
    int32_t *row; /* [groups] the row of each; rises within a piece */
    float *share; /* [nnz] 1 / how many entries of its type its row has, in fwd's rows */
} nsm_typed_side;

struct nsm_typed {
    nsm_ctx *ctx;
    int types;
    nsm_typed_side fwd;
    nsm_typed_side bwd; /* the transpose: rows are columns */
    nsm_csr *group;     /* [groups of fwd, cols]: every group as a row; NULL unless asked for */
};

/* Build from coordinates in any order; repeats are kept.  Copies; the caller frees.
 * without_transpose leaves bwd empty; with_groups makes `group` (what max needs).
 * Errors: NSM_EINVAL an index or type is out of range (named with its k), or a size is;
 * NSM_ENOMEM. */
nsm_typed *nsm_typed_new(nsm_ctx *ctx, int types, int64_t rows, int64_t cols, int64_t nnz,
                         const int32_t *row, const int32_t *col, const int32_t *type,
                         bool without_transpose, bool with_groups);
void nsm_typed_free(nsm_typed *typed);

#ifdef __cplusplus
}
#endif
#endif
