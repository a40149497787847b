/* datasets/dataset.h - A graph dataset in memory, and its file.
 *
 * Nodes of one or more types with features (dense, or sparse by row), edges of one or more types
 * between them, labels of one node type or of whole graphs, and named splits.  Plain visible
 * structs: read them as you like; arrays come from the dataset's allocator and belong to it.
 * The file is HDF5 with a seal in front (doc/format.md): a damaged one is refused before it is
 * parsed.
 *
 * Letters: n nodes of a type, F features, E edges of a type, G graphs, L things that have a label
 * (the target type's nodes, or the graphs), C classes, T regression targets.
 * Counts are int64_t, indices int32_t: a type has at most 2^31 - 1 nodes. */
#ifndef NSM_DATASET_H
#define NSM_DATASET_H
#include "base/context.h"
#ifdef __cplusplus
extern "C" {
#endif

/* Words of nodes: those of node i are id[ptr[i]] .. id[ptr[i+1] - 1], in their order. */
typedef struct {
    int64_t vocab;      /* V, 0: there is no text */
    int64_t *ptr;       /* [n + 1] */
    int32_t *id;        /* [ptr[n]] 0 .. V-1 */
    char **symbol;      /* [V] what each reads as, or NULL */
    int64_t classes;    /* C of words, 0: they have none */
    int32_t *label;     /* [ptr[n]] 0 .. C-1, or -1: not asked; with classes */
    char **class_names; /* [C], or NULL */
} nsm_dataset_text;

/* Pictures of nodes, of one size. */
typedef struct {
    int64_t height, width, channels; /* h, w, c; channels 0: there are none */
    uint8_t *pixel;     /* [n, h, w, c] */
    uint8_t *there;     /* [n] 0: this node has none (its pixels are 0), or NULL: all have one */
} nsm_dataset_images;

/* Nodes of one type.  Features are dense (dense != NULL), sparse (ptr != NULL), left in the file
 * (in_file) or absent (features == 0). */
typedef struct {
    char *name;         /* "node", "paper", ... */
    int64_t count;      /* n */
    int64_t features;   /* F, 0: none */
    float *dense;       /* [n, F] */
    int64_t *ptr;       /* [n + 1] sparse features: row i is idx, val [ptr[i], ptr[i+1]) */
    int32_t *idx;       /* [ptr[n]] column, ascending within a row */
    float *val;         /* [ptr[n]] */
    bool in_file;       /* dense, but only in the file: nsm_dataset_features_rows() reads them */
    char **names;       /* [n] a name for each node, or NULL */
    /* [G + 1] nodes of graph g are [graph_ptr[g], graph_ptr[g+1]), or NULL: one graph */
    int64_t *graph_ptr;
    nsm_dataset_text text;
    nsm_dataset_images image;
} nsm_dataset_nodes;

/* Edges of one type, src[k] -> dst[k].  In an undirected dataset both directions stand here. */
typedef struct {
    char *name;       /* "edge", "hypernym", ... */
    int src_type;     /* index into node[] */
    int dst_type;
    int64_t count;    /* E */
    int32_t *src;     /* [E] */
    int32_t *dst;     /* [E] */
    float *weight;    /* [E], or NULL */
    int64_t features; /* F of an edge, 0: none */
    float *feature;   /* [E, F], or NULL */
} nsm_dataset_edges;

typedef enum {
    NSM_LABEL_NONE,
    NSM_LABEL_CLASS, /* one class each: cls */
    NSM_LABEL_MULTI, /* any number of C labels each: multi */
    NSM_LABEL_VALUE  /* T numbers each: value */
} nsm_label_kind;

typedef struct {
    nsm_label_kind kind;
    bool of_graphs;  /* the labels are the graphs'; else the nodes' of type nsm_dataset.target */
    int64_t count;   /* L */
    int64_t columns; /* C or T */
    int32_t *cls;    /* [L] 0 .. C-1, or -1: unlabelled */
    uint8_t *multi;  /* [L, C] 0 or 1, or 255: unknown */
    float *value;    /* [L, T] finite */
    char **names;    /* [columns] names of the classes or columns, or NULL */
} nsm_dataset_labels;

enum { NSM_TRAIN, NSM_VALID, NSM_TEST, NSM_SPLIT_PARTS };

/* Which labelled things serve for what.  A part may be empty; no index stands twice in a split. */
typedef struct {
    char *name;                      /* "public", "default", "fold1", ... */
    int64_t count[NSM_SPLIT_PARTS];
    int32_t *index[NSM_SPLIT_PARTS]; /* ascending is not required */
} nsm_dataset_split;

/* Questions about nodes of the target type, each with one answer; a question belongs to the part of
 * a split that its node is in. */
typedef struct {
    int64_t count;       /* Q, 0: there are none */
    int32_t *node;       /* [Q] whom each is about, ascending */
    int64_t features;    /* F > 0 */
    float *value;        /* [Q, F] what is asked */
    char **value_names;  /* [F] what each of these numbers says, or NULL */
    int64_t classes;     /* C > 0 */
    int32_t *answer;     /* [Q] 0 .. C-1 */
    char **answer_names; /* [C], or NULL */
    int64_t groups;      /* kinds of questions that scores are told for, 0: none */
    int32_t *group;      /* [Q] 0 .. groups-1, or NULL */
    char **group_names;  /* [groups], or NULL */
    int32_t *pointed;    /* [Q] the node of pointed_type that the question is after, -1: none; or
                         * NULL */
    int pointed_type;    /* index into node[] */
} nsm_dataset_questions;

/* Links of one part that are to be predicted: edge type `relation` from src to dst.  The edges
 * themselves are what may be known; those of the training part may stand among them. */
typedef struct {
    int64_t count;
    int32_t *src, *relation, *dst; /* [count] */
} nsm_dataset_links;

typedef struct {
    nsm_ctx *ctx;
    char *name;        /* short: "cora" */
    char *description; /* free text, may be "" */
    bool directed;     /* false: every edge stands in both directions */
    int64_t graphs;    /* G: 1, or the number of small graphs (node[].graph_ptr) */
    int target;        /* the node type that labels and splits speak of */
    int node_types;
    nsm_dataset_nodes *node;
    int edge_types;
    nsm_dataset_edges *edge;
    nsm_dataset_labels label;
    nsm_dataset_questions question;
    nsm_dataset_links link[NSM_SPLIT_PARTS]; /* empty: there are none */
    int splits;
    nsm_dataset_split *split;
    void *file;        /* the library's own: the open file while features stay in it */
} nsm_dataset;

/* ---- files ---- */

/* Start from zero, set what you need: a field left 0 takes the value in ( ). */
typedef struct {
    /* Dense node features of more than this many bytes stay in the file (0: none do, -1: all
     * do). */
    int64_t features_in_file_bytes;
    bool no_names; /* leave the nodes' names out (read them) */
} nsm_dataset_options;

/* Read a dataset file whole, checked: seal, types, shapes, index ranges, finite numbers.  options
 * may be NULL.  Returns it, to be freed before ctx, or NULL.
 * Errors: NSM_EIO, NSM_EFORMAT (with the file and the place in it), NSM_ENOMEM. */
nsm_dataset *nsm_dataset_load(nsm_ctx *ctx, const char *path, const nsm_dataset_options *options);

/* Check, then write: to a temporary file beside path, flushed and renamed, so that path holds the
 * old or the new content whole at any moment.  Equal datasets give equal files. */
int nsm_dataset_save(const nsm_dataset *ds, const char *path);

/* ---- building by hand: what these make belongs to the dataset ---- */

/* An empty dataset: one graph, undirected, no types.  name may be NULL (""). */
nsm_dataset *nsm_dataset_new(nsm_ctx *ctx, const char *name);
void nsm_dataset_free(nsm_dataset *ds); /* NULL is allowed */

/* Append a node type, an edge type with uninitialised src, dst [edges], an empty split.  Each
 * returns what it made, valid until the next call, or NULL. */
nsm_dataset_nodes *nsm_dataset_add_nodes(nsm_dataset *ds, const char *name, int64_t count);
nsm_dataset_edges *nsm_dataset_add_edges(nsm_dataset *ds, const char *name, int src_type,
                                         int dst_type, int64_t edges);
nsm_dataset_split *nsm_dataset_add_split(nsm_dataset *ds, const char *name);
/* Uninitialised links of a part (NSM_TRAIN, ...), in place of those it has. */
int nsm_dataset_links_make(nsm_dataset *ds, int part, int64_t count);
/* Memory for an array of the dataset: give it to one of the pointers above.  count * bytes is
 * checked.  NULL when out.  Arrays that you replace, free with nsm_dataset_release(). */
void *nsm_dataset_array(nsm_dataset *ds, int64_t count, size_t bytes);
void nsm_dataset_release(void *array);
char *nsm_dataset_string(nsm_dataset *ds, const char *text);

/* Check everything that the structs above promise.  The first fault is named: what and where.
 * Errors: NSM_EINVAL, NSM_ENUMBER. */
int nsm_dataset_validate(const nsm_dataset *ds);

/* ---- looking ---- */
int nsm_dataset_find_nodes(const nsm_dataset *ds, const char *name); /* index, -1 if none */
int nsm_dataset_find_edges(const nsm_dataset *ds, const char *name);
/* The split of this name; name NULL: "default" if there is one, else the first.  NULL with
 * NSM_EINVAL (which lists the names) if there is none. */
const nsm_dataset_split *nsm_dataset_split_find(const nsm_dataset *ds, const char *name);

/* All edges between nodes of type t, in the order of the edge types, as one list: arrays of
 * *edges each, type[k] the edge type; any of src, dst, type may be NULL.  Release each. */
int nsm_dataset_edges_merged(const nsm_dataset *ds, int t, int64_t *edges, int32_t **src,
                             int32_t **dst, int32_t **type);

/* Copy dense features of rows row[0..rows) of node type t (row NULL: rows first, first + 1, ...) to
 * out [rows, F], from memory or from the file.  Sparse rows are spread out.  Rows are read in
 * parallel; the call itself may be made from a thread that does nothing else with ctx.
 * Errors: NSM_EINVAL a row is out of range; NSM_EIO. */
int nsm_dataset_features_rows(const nsm_dataset *ds, int t, int64_t first, int64_t rows,
                              const int32_t *row, float *out);

/* ---- splits ---- */
typedef enum {
    NSM_SPLIT_RANDOM,     /* fractions of all labelled; without any labels, of all target nodes */
    NSM_SPLIT_STRATIFIED, /* fractions of each class */
    /* fixed numbers of each class, the rest is for testing (Shchur et al. 2018) */
    NSM_SPLIT_PER_CLASS
} nsm_split_kind;

/* Start from zero, set what you need: a field left 0 takes the value in ( ). */
typedef struct {
    nsm_split_kind kind;
    double train, valid;       /* fractions (0.1 and 0.1); the rest is test */
    int64_t min_train;         /* stratified: at least so many of each class (1) */
    int64_t train_per_class;   /* per class (20) */
    int64_t valid_per_class;   /* per class (30) */
    uint64_t seed;             /* (0) */
} nsm_split_config;

/* Draw a split of the labelled things and store it under this name, in place of one that has it
 * already.  The same configuration gives the same split.  Indices are ascending.
 * Errors: NSM_EINVAL fractions, no classes, or too small for the fixed numbers. */
int nsm_dataset_split_make(nsm_dataset *ds, const char *name, const nsm_split_config *config);

#ifdef __cplusplus
}
#endif
#endif
