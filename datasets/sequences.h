/* datasets/sequences.h - Datasets of sequences: text as one long stream, and made tasks of many rows.
 *
 * A file of kind "sequences", version 1, inside: attributes version, name, description, kind
 * ("stream", "tokens", "class"), vocab, classes; symbols [vocab] texts; for each part train, valid, test
 * that is not empty id [rows, length] int32 and, by kind, target, and tokens [rows].
 *
 * One importer or generator is a row of a table, as for graphs. */
#ifndef NSM_SEQUENCES_H
#define NSM_SEQUENCES_H
#include "datasets/import.h"
#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    NSM_SEQUENCE_STREAM, /* one row; what follows is to be told */
    NSM_SEQUENCE_TOKENS, /* a target for each token, -1 where nothing is asked */
    NSM_SEQUENCE_CLASS   /* a class for each row */
} nsm_sequence_kind;

typedef struct {
    int64_t rows, length;  /* 0 rows: the part is empty */
    int32_t *id;           /* [rows, length], 0..vocab-1 */
    int32_t *target;       /* stream: NULL; tokens: [rows, length]; class: [rows] */
    int32_t *tokens;       /* [rows] how many of each row are there; NULL: all */
} nsm_sequence_part;

typedef struct {
    nsm_ctx *ctx;
    char *name, *description;
    nsm_sequence_kind kind;
    int64_t vocab, classes;  /* classes: of targets (vocab, unless of rows) */
    char **symbol;           /* [vocab] what each token reads as; NULL: none */
    nsm_sequence_part part[NSM_SPLIT_PARTS];
} nsm_sequences;

/* The caller frees what these return, before ctx.  Errors: NSM_EIO, NSM_EFORMAT, NSM_ENOMEM. */
nsm_sequences *nsm_sequences_load(nsm_ctx *ctx, const char *path);
int nsm_sequences_save(const nsm_sequences *s, const char *path);
void nsm_sequences_free(nsm_sequences *s); /* NULL is allowed */
/* Everything that the structs promise.  Errors: NSM_EINVAL. */
int nsm_sequences_validate(const nsm_sequences *s);

/* Read source ("text"), or make a task ("mqar", "selective_copying", "induction").  An unknown name, key or value
 * is an error that names the known ones. */
nsm_sequences *nsm_sequences_import(nsm_ctx *ctx, const char *format, const char *source, const nsm_option *option, int options);
nsm_sequences *nsm_sequences_generate(nsm_ctx *ctx, const char *task, const nsm_option *option, int options);
const nsm_format *nsm_sequences_format(int i); /* for help texts: number i, or NULL behind the last */
const nsm_format *nsm_sequences_task(int i);

/* The token that reads as the beginning of text, *bytes of it; -1: none. */
int32_t nsm_sequences_token(char *const *symbol, int64_t vocab, const char *text, size_t *bytes);

#ifdef __cplusplus
}
#endif
#endif
