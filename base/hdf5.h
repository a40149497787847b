/* base/hdf5.h - Sealed HDF5 files: datasets and checkpoints.  Internal, not installed.
 *
 * A file is a seal of 512 bytes (HDF5 calls such a front part the user block) and an HDF5 file
 * behind it.  The seal holds magic, version, kind, length and an XXH3-128 digest of all that
 * follows, and a digest of itself; both are verified before libhdf5 sees a byte, because damaged
 * metadata can crash or hang that library, and because plain HDF5 notices half of all damage
 * only.  The seal is against damage, not against an attacker, who could compute it.
 *
 * Inside: newest object headers (H5F_LIBVER_V110), every array chunked with Fletcher-32, strings
 * of fixed length, nothing of variable length, no times: equal content gives equal bytes.
 *
 * A file is written under a temporary name in its own folder, sealed, flushed and renamed.  The
 * temporary is locked while its writer lives; what a dead one left is removed by the next write of
 * the same name.
 *
 * Paths inside the file are "a/b/c"; groups on the way are made as needed.  Every call leaves an
 * error with file and path in ctx, and returns at once while one stands there. */
#ifndef NSM_HDF5_H
#define NSM_HDF5_H
#include "base/tensor.h"

typedef struct nsmi_h5 nsmi_h5;

enum { NSMI_H5_VERSION = 1, NSMI_H5_MAX_TEXT = 60000, NSMI_H5_MAX_NAME = 255 };

/* ---- writing ---- */
/* kind: at most 15 letters */
nsmi_h5 *nsmi_h5_create(nsm_ctx *ctx, const char *path, const char *kind);
/* Seal, flush, rename.  Frees h, also on error, when the old file stays as it was.  Give it h NULL
 * or an erroneous ctx and it returns the error. */
int nsmi_h5_commit(nsm_ctx *ctx, nsmi_h5 *h);

int nsmi_h5_group(nsmi_h5 *h, const char *path);
int nsmi_h5_write(nsmi_h5 *h, const char *path, nsm_type type, int rank, const int64_t *dim,
                  const void *data);
/* The same in pieces: rows [first, first + rows) along the first dimension; first 0 makes the
 * array. */
int nsmi_h5_write_rows(nsmi_h5 *h, const char *path, nsm_type type, int rank, const int64_t *dim,
                       int64_t first, int64_t rows, const void *data);
int nsmi_h5_write_strings(nsmi_h5 *h, const char *path, int64_t count, char *const *string);
/* of any length: one string, [1] */
int nsmi_h5_write_text(nsmi_h5 *h, const char *path, const char *text);
/* Attributes of the group or array at path ("" or "/": the root). */
int nsmi_h5_put_int(nsmi_h5 *h, const char *path, const char *name, int64_t value);
int nsmi_h5_put_float(nsmi_h5 *h, const char *path, const char *name, double value);
/* <= NSMI_H5_MAX_TEXT bytes */
int nsmi_h5_put_text(nsmi_h5 *h, const char *path, const char *name, const char *text);

/* ---- reading ---- */
nsmi_h5 *nsmi_h5_open(nsm_ctx *ctx, const char *path, const char *kind);
/* The same without a seal, for a file from elsewhere: only in a process that may crash or hang. */
nsmi_h5 *nsmi_h5_open_foreign(nsm_ctx *ctx, const char *path);
/* The kind of a sealed file ("dataset", "checkpoint"), from its seal alone, into kind. */
int nsmi_h5_kind(nsm_ctx *ctx, const char *path, char kind[16]);

bool nsmi_h5_has(nsmi_h5 *h, const char *path);               /* something stands at path */
bool nsmi_h5_is_group(nsmi_h5 *h, const char *path);
bool nsmi_h5_has_attribute(nsmi_h5 *h, const char *path, const char *name);
/* What is in a group, in the order it was written: an array of *count names, to be freed by
 * nsmi_h5_free_strings(), or NULL. */
char **nsmi_h5_list(nsmi_h5 *h, const char *path, int64_t *count);

/* Type, rank and dims of an array.  An array of strings has *type -1. */
int nsmi_h5_shape(nsmi_h5 *h, const char *path, int *type, int *rank, int64_t dim[NSM_MAX_RANK]);
/* Read all of an array, into new memory (free()) or into out.  type and rank must be the array's;
 * a dim that is not -1 must be too, one that is -1 is filled in. */
void *nsmi_h5_read(nsmi_h5 *h, const char *path, nsm_type type, int rank, int64_t *dim);
int nsmi_h5_read_into(nsmi_h5 *h, const char *path, nsm_type type, int rank, const int64_t *dim,
                      void *out);
/* Rows [first, first + rows) along the first dimension; dim as above. */
int nsmi_h5_read_rows(nsmi_h5 *h, const char *path, nsm_type type, int rank, int64_t *dim,
                      int64_t first, int64_t rows, void *out);
char **nsmi_h5_read_strings(nsmi_h5 *h, const char *path, int64_t *count); /* *count -1: any */
char *nsmi_h5_read_text(nsmi_h5 *h, const char *path);
int nsmi_h5_get_int(nsmi_h5 *h, const char *path, const char *name, int64_t low, int64_t high,
                    int64_t *value);
int nsmi_h5_get_float(nsmi_h5 *h, const char *path, const char *name, double *value); /* finite */
char *nsmi_h5_get_text(nsmi_h5 *h, const char *path, const char *name);
void nsmi_h5_free_strings(char **string, int64_t count);

/* Where the rows of a plain two-dimensional float array stand in the file, to be read without
 * libhdf5, by any thread: row r is row_bytes from offset[r / rows_per_chunk] + (r % rows_per_chunk)
 * * row_bytes.  The file was verified when it was opened.  Fails on other layouts (foreign
 * files). */
typedef struct {
    int fd;               /* h's own: open until h is closed */
    int64_t rows, row_bytes, rows_per_chunk, chunks;
    int64_t *offset;      /* [chunks], free() */
} nsmi_h5_rows;
int nsmi_h5_map_rows(nsmi_h5 *h, const char *path, nsmi_h5_rows *rows);

/* Close a file that was opened, or give up one that was being written.  NULL is allowed. */
void nsmi_h5_close(nsmi_h5 *h);

const char *nsmi_h5_path(const nsmi_h5 *h);
#endif
