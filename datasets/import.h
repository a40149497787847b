/* datasets/import.h - Datasets from other people's files.
 *
 * One importer a file, listed in one table; an importer gets a path and options and gives a
 * dataset that has passed nsm_dataset_validate().  Numbers are read the same in every locale;
 * NaN, infinity, junk and indices out of range are errors with file and line. */
#ifndef NSM_IMPORT_H
#define NSM_IMPORT_H
#include "datasets/dataset.h"
#ifdef __cplusplus
extern "C" {
#endif

/* Options are pairs of text, as on the command line: { "directed", "true" }. */
typedef struct {
    const char *key, *value;
} nsm_option;

typedef struct {
    const char *name; /* "ogb", "wordnet", ... */
    const char *help; /* one line */
    const char *options; /* lines "key=default  what it does" */
} nsm_format;

/* Read source in this format.  An unknown key, format or value is an error that names the known
 * ones.  Returns the dataset, which the caller frees, or NULL. */
nsm_dataset *nsm_import(nsm_ctx *ctx, const char *format, const char *source,
                        const nsm_option *option, int options);

/* The formats, for help texts: number i, or NULL behind the last. */
const nsm_format *nsm_import_format(int i);

#ifdef __cplusplus
}
#endif
#endif
