/* datasets/internal.h - What the files of datasets/ share: text in, options, checks, child
 * processes. Not installed. */
#ifndef NSM_DATASETS_INTERNAL_H
#define NSM_DATASETS_INTERNAL_H
#include <stdarg.h>
#include "base/hdf5.h"
#include "base/internal.h"
#include "datasets/dataset.h"
#include "datasets/generate.h"
#include "datasets/import.h"

/* ---- dataset.c, store.c ---- */
/* nsm_dataset_validate(), its messages starting with where, its code code (NSM_ENUMBER stays). */
int nsmi_dataset_check(const nsm_dataset *ds, const char *where, int code);
void nsmi_dataset_close(nsm_dataset *ds); /* the file that features were left in */
/* Read the documented layout from an open file. */
nsm_dataset *nsmi_dataset_read(nsm_ctx *ctx, nsmi_h5 *h, const nsm_dataset_options *options);
/* What is being checked: the prefix of messages and the code they carry. */
typedef struct {
    const nsm_dataset *ds;
    const char *where;
    int code;
} nsmi_check;
/* false */
bool nsmi_fault(const nsmi_check *c, int code, const char *format, ...) NSM_PRINTF(3, 4);
/* Are these numbers finite; offsets that start at 0, never fall and end at total (-1: anywhere)? */
bool nsmi_finite_all(const nsmi_check *c, const char *group, const char *name, const char *what,
                     const float *x, int64_t n);
bool nsmi_offsets_ok(const nsmi_check *c, const char *name, const char *what, const int64_t *ptr,
                     int64_t rows, int64_t total);

/* ---- content.c: texts and pictures of nodes, questions ---- */
void nsmi_content_free(nsm_dataset_nodes *v);
bool nsmi_content_ok(const nsmi_check *c, const nsm_dataset_nodes *v);
void nsmi_content_write(nsmi_h5 *h, const nsm_dataset_nodes *v);
void nsmi_content_read(nsmi_h5 *h, nsm_dataset_nodes *v);
void nsmi_questions_free(nsm_dataset_questions *q);
bool nsmi_questions_ok(const nsmi_check *c);
void nsmi_questions_write(nsmi_h5 *h, const nsm_dataset *ds);
void nsmi_questions_read(nsmi_h5 *h, nsm_dataset *ds);

/* ---- links.c ---- */
void nsmi_links_free(nsm_dataset_links *l);
bool nsmi_links_ok(const nsmi_check *c);
void nsmi_links_write(nsmi_h5 *h, const nsm_dataset *ds);
void nsmi_links_read(nsmi_h5 *h, nsm_dataset *ds);

/* May this be the name of a type or split, that is, a name in a file? */
bool nsmi_name_ok(const char *name);

/* ---- text.c: lines and numbers, the same in every locale ---- */
typedef struct nsmi_text nsmi_text;

/* Open a text file; one that ends in .gz must be gzip and is unpacked on the way.  NULL: error. */
nsmi_text *nsmi_text_open(nsm_ctx *ctx, const char *path);
void nsmi_text_close(nsmi_text *t); /* NULL is allowed */
/* The same over bytes in memory (copied), which messages call path. */
nsmi_text *nsmi_text_memory(nsm_ctx *ctx, const char *path, const char *text, int64_t bytes);
/* The next line without its end (\n or \r\n), NUL-terminated, to be written to; NULL at the end and
 * on error.  It lives until the next call. */
char *nsmi_text_line(nsmi_text *t);
int64_t nsmi_text_number(const nsmi_text *t);    /* of the line, from 1 */
/* Leave "file:line: what". */
int nsmi_text_error(nsmi_text *t, const char *format, ...) NSM_PRINTF(2, 3);

/* Read a number at *p and move *p behind it.  The text must go on with a separator, blank or its
 * end.  false: no number, or one that does not fit. */
bool nsmi_parse_int(const char **p, int64_t low, int64_t high, int64_t *value);
bool nsmi_parse_float(const char **p, float *value);   /* finite */
bool nsmi_parse_double(const char **p, double *value); /* finite */

/* All lines of a file that holds one integer each. */
int64_t nsmi_text_ints(nsm_ctx *ctx, const char *path, int64_t low, int64_t high, int32_t **out);

/* path, else path.gz, else NULL without an error.  The caller frees it. */
char *nsmi_find_file(nsm_ctx *ctx, const char *format, ...) NSM_PRINTF(2, 3);
/* The names in a folder, sorted; NULL-terminated; NULL on error. */
char **nsmi_list_folder(nsm_ctx *ctx, const char *path);
void nsmi_free_list(char **name);
/* "/a/b/c.txt.gz" -> "c", a name for a dataset. */
char *nsmi_stem(nsm_ctx *ctx, const char *path);

/* All of a file, unpacked if it is gzip, with a NUL behind it; the caller frees it. */
char *nsmi_read_all(nsm_ctx *ctx, const char *path, int64_t *bytes);

/* ---- archive.c: the files of a folder or archive ---- */
typedef struct { char *name, *text; int64_t bytes; } nsmi_file;
typedef struct { nsmi_file *file; int64_t count, room; } nsmi_files;
/* Those whose names begin with `begins` in the folder of this name, wherever it lies in an archive;
 * source may also be the folder itself, or hold it.  In the order of their paths; nsmi_files_free()
 * them. */
int nsmi_files_read(nsm_ctx *ctx, const char *source, const char *folder, const char *begins,
                    nsmi_files *f);
void nsmi_files_free(nsmi_files *f);

/* A growing array: if *count == *room, double it.  false: out of memory. */
bool nsmi_grow(nsm_ctx *ctx, void *array, int64_t count, int64_t *room, size_t bytes);

/* ---- options.c ---- */
typedef struct {
    nsm_ctx *ctx;
    const char *who;          /* for messages: "import ogb" */
    const nsm_option *option;
    int options;
} nsmi_options;

/* The value of a key (the last one given), or otherwise. */
const char *nsmi_option_text(const nsmi_options *o, const char *key, const char *otherwise);
int64_t nsmi_option_int(const nsmi_options *o, const char *key, int64_t low, int64_t high,
                        int64_t otherwise);
double nsmi_option_float(const nsmi_options *o, const char *key, double low, double high,
                         double otherwise);
bool nsmi_option_bool(const nsmi_options *o, const char *key, bool otherwise);
/* Index of the value in the NULL-terminated list, the first if the key is absent. */
int nsmi_option_choice(const nsmi_options *o, const char *key, const char *const *list);

/* Is every key one of the maker's option lines? */
bool nsmi_options_known(nsmi_options *o, const char *lines);

typedef struct {
    nsm_format about;
    nsm_dataset *(*run)(nsm_ctx *ctx, const char *source, const nsmi_options *o);
} nsmi_maker;

/* Find name in the table, check that every key is one of its options', run, validate. */
nsm_dataset *nsmi_make(nsm_ctx *ctx, const nsmi_maker *table, const char *verb, const char *name,
                       const char *source, const nsm_option *option, int options);

/* ---- split.c ---- */
/* Move this fraction of each class of a split's training part to its validation part, which is
 * empty. */
int nsmi_split_valid(nsm_dataset *ds, nsm_dataset_split *s, double fraction, uint64_t seed);

/* ---- importers and generators, one file each ---- */
nsm_dataset *nsmi_import_ogb(nsm_ctx *ctx, const char *source, const nsmi_options *o);
nsm_dataset *nsmi_import_wordnet(nsm_ctx *ctx, const char *source, const nsmi_options *o);
nsm_dataset *nsmi_import_tu(nsm_ctx *ctx, const char *source, const nsmi_options *o);
nsm_dataset *nsmi_import_triples(nsm_ctx *ctx, const char *source, const nsmi_options *o);
nsm_dataset *nsmi_import_csv(nsm_ctx *ctx, const char *source, const nsmi_options *o);
nsm_dataset *nsmi_import_graphml(nsm_ctx *ctx, const char *source, const nsmi_options *o);
nsm_dataset *nsmi_import_gml(nsm_ctx *ctx, const char *source, const nsmi_options *o);
nsm_dataset *nsmi_import_pajek(nsm_ctx *ctx, const char *source, const nsmi_options *o);
nsm_dataset *nsmi_import_edgelist(nsm_ctx *ctx, const char *source, const nsmi_options *o);
nsm_dataset *nsmi_import_idx(nsm_ctx *ctx, const char *source, const nsmi_options *o);
nsm_dataset *nsmi_import_emoji(nsm_ctx *ctx, const char *source, const nsmi_options *o);
nsm_dataset *nsmi_import_hdf5(nsm_ctx *ctx, const char *source, const nsmi_options *o);
nsm_dataset *nsmi_generate_sbm(nsm_ctx *ctx, const char *kind, const nsmi_options *o);
nsm_dataset *nsmi_generate_csbm(nsm_ctx *ctx, const char *kind, const nsmi_options *o);
nsm_dataset *nsmi_generate_rmat(nsm_ctx *ctx, const char *kind, const nsmi_options *o);
nsm_dataset *nsmi_generate_sort_of_clevr(nsm_ctx *ctx, const char *kind, const nsmi_options *o);
nsm_dataset *nsmi_generate_igraph(nsm_ctx *ctx, const char *kind, const nsmi_options *o);

/* ---- edges.c: work on edge lists ---- */
/* Make an edge type symmetric: (b, a) is added for every (a, b).  Without weights and features the
 * result is sorted and each edge stands once; with them, the reversed ones follow the given. */
int nsmi_edges_symmetric(nsm_dataset *ds, int type);

/* ---- child.c: parsers that may crash or hang ---- */
/* Run make in a child process with limits on time and memory; what it makes comes back through a
 * temporary sealed file.  A child that dies is an error about source. */
nsm_dataset *nsmi_in_child(nsm_ctx *ctx, const char *source, const nsmi_options *o,
                           nsm_dataset *(*make)(nsm_ctx *ctx, const char *source,
                                                const nsmi_options *o));
#endif
