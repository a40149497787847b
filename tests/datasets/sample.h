/* tests/datasets/sample.h - Small datasets and files for the tests of datasets/. */
#ifndef NSM_TEST_SAMPLE_H
#define NSM_TEST_SAMPLE_H
#include "datasets/internal.h"

/* A dataset that uses every part of the layout: two node types, dense and sparse features, names,
 * weights, edge features, labels of this kind, two splits, or (graphs) three small graphs. */
nsm_dataset *sample_new(nsm_ctx *ctx, nsm_label_kind kind, bool graphs);

/* NULL, or what differs first. */
const char *sample_difference(const nsm_dataset *a, const nsm_dataset *b);

/* A folder of the test's own, removed with all in it by the second; paths live until then. */
const char *sample_folder(void);
void sample_folder_remove(void);
const char *sample_path(const char *format, ...) NSM_PRINTF(1, 2); /* in the folder; ring of 16 */
void sample_write(const char *path, const void *data, size_t bytes); /* makes folders; .gz: packs */
void *sample_read(const char *path, size_t *bytes);

/* A folder of shared data sets, or NULL where they are not at hand (NSM_SHARED, ../shared). */
const char *sample_shared(const char *name);

/* Sources of each importer, written under sample_folder()/name; returns what to import. */
typedef struct {
    const char *format, *name;      /* of the importer; of the source */
    const char *file[12];           /* its files, relative to the source's folder */
    const char *text[12];           /* and what is in them */
    const char *source;             /* what is imported, relative to the folder; "" the folder */
    nsm_option option[4];
    int options;
    bool checked;                   /* files carry a checksum: a change may not go unnoticed */
} sample_source;
extern const sample_source sample_sources[]; /* the last has format NULL */
const char *sample_make(const sample_source *s);
/* Options whose value starts with "@" name a file of the source. */
nsm_dataset *sample_import(nsm_ctx *ctx, const sample_source *s);
#endif
