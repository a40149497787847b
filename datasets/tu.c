/* datasets/tu.c - The TU Dortmund text layout: many small graphs, labelled as graphs.
 *
 *   DS_A.txt                 "i, j" a line: edges, both directions listed, nodes from 1
 *   DS_graph_indicator.txt   the graph of each node, from 1, never falling
 *   DS_graph_labels.txt      one whole number a graph: the classes, in ascending order
 *   DS_node_labels.txt       optional: one whole number a node -> one-hot features
 *   DS_node_attributes.txt   optional: numbers a node -> features before the one-hot ones
 *   DS_edge_labels.txt, DS_edge_attributes.txt   the same for edges
 *   10fold_idx/{train,test}_idx-K.txt            optional: graph numbers from 0 -> splits fold1 ..
 *
 * DS is the folder's name, or the one prefix that stands before _A.txt in it. */
#include "config.h"
#include "datasets/internal.h"

typedef struct {
    nsm_ctx *ctx;
    const char *folder;
    char *prefix;
    nsm_dataset *ds;
} tu;

static char *find_prefix(nsm_ctx *ctx, const char *folder)
{
    char *prefix = NULL, **name = nsmi_list_folder(ctx, folder);
    for (char **p = name; p && *p && !nsmi_failed(ctx); p++) {
        char *end = strstr(*p, "_A.txt");
        if (!end || (end[6] && strcmp(end + 6, ".gz"))) continue;
        if (prefix) nsm_error_set(ctx, NSM_EFORMAT, "%s: holds more than one *_A.txt", folder);
        else prefix = nsmi_format(ctx, "%.*s", (int)(end - *p), *p);
    }
    if (name && !prefix) nsm_error_set(ctx, NSM_EFORMAT, "%s: holds no *_A.txt", folder);
    nsmi_free_list(name);
    if (!nsmi_failed(ctx)) return prefix;
    free(prefix);
    return NULL;
}

static char *part(tu *t, const char *name, bool needed)
{
    char *path = nsmi_find_file(t->ctx, "%s/%s_%s.txt", t->folder, t->prefix, name);
    if (!path && needed)
        nsm_error_set(t->ctx, NSM_EFORMAT, "%s/%s_%s.txt is missing", t->folder, t->prefix, name);
    return path;
}

/* Rows of comma-separated numbers, all as long as the first; *columns 0: there is no such file. */
static float *read_table(tu *t, const char *name, int64_t rows, int64_t *columns)
{
    char *path = part(t, name, false);
    int64_t count = 0, room = 0, row = 0;
    float *table = NULL;
    *columns = 0;
    if (!path) return NULL;
    nsmi_text *text = nsmi_text_open(t->ctx, path);
    for (char *line; (line = nsmi_text_line(text)); row++) {
        const char *p = line;
        int64_t column = 0;
        for (;;) {
            while (*p == ' ') p++;
            if (!nsmi_grow(t->ctx, &table, count, &room, sizeof *table) ||
                !nsmi_parse_float(&p, &table[count]))
                break;
            count++;
            column++;
            while (*p == ' ') p++;
            if (*p != ',') break;
            p++;
        }
        if (nsmi_failed(t->ctx)) break;
        if (row == 0) *columns = column;
        if (*p || column == 0 || column != *columns) {
            nsmi_text_error(text, "\"%.40s\" is not %lld finite numbers", line,
                            (long long)(*columns ? *columns : 1));
            break;
        }
    }
    nsmi_text_close(text);
    if (!nsmi_failed(t->ctx) && row != rows)
        nsm_error_set(t->ctx, NSM_EFORMAT, "%s: has %lld lines, want %lld", path, (long long)row,
                      (long long)rows);
    free(path);
    if (!nsmi_failed(t->ctx)) return table;
    free(table);
    return NULL;
}

static int ascending(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* Whole numbers to ranks 0 .. *kinds-1 in place; returns the number of each rank, ascending. */
static int32_t *to_ranks(tu *t, int32_t *list, int64_t count, int64_t *kinds)
{
    int32_t *kind = nsmi_malloc(t->ctx, (size_t)count * sizeof *kind);
    int64_t n = 0;
    if (!kind) return NULL;
    memcpy(kind, list, (size_t)count * sizeof *kind);
    qsort(kind, (size_t)count, sizeof *kind, ascending);
    for (int64_t i = 0; i < count; i++)
        if (!n || kind[n - 1] != kind[i]) kind[n++] = kind[i];
    for (int64_t i = 0; i < count; i++) {
        int32_t *at = bsearch(&list[i], kind, (size_t)n, sizeof *kind, ascending);
        list[i] = (int32_t)(at - kind);
    }
    *kinds = n;
    return kind;
}

/* A file of one whole number for each of `rows`, as ranks. */
static int32_t *read_ranks(tu *t, const char *name, int64_t rows, bool needed, int64_t *kinds,
                           int32_t **kind)
{
    int32_t *list = NULL;
    char *path = part(t, name, needed);
    *kinds = 0;
    if (!path) return NULL;
    int64_t lines = nsmi_text_ints(t->ctx, path, -INT32_MAX, INT32_MAX, &list);
    if (!nsmi_failed(t->ctx) && rows >= 0 && lines != rows)
        nsm_error_set(t->ctx, NSM_EFORMAT, "%s: has %lld lines, want %lld", path, (long long)lines,
                      (long long)rows);
    free(path);
    *kind = nsmi_failed(t->ctx) ? NULL : to_ranks(t, list, lines, kinds);
    if (*kind) return list;
    free(list);
    return NULL;
}

/* Attributes, then labels as one-hot columns: [rows, *features], or NULL. */
static float *read_features(tu *t, const char *attributes, const char *labels, int64_t rows,
                            int64_t *features)
{
    int64_t F = 0, kinds = 0, all;
    int32_t *kind = NULL;
    *features = 0;
    if (nsmi_failed(t->ctx)) return NULL;
    float *table = read_table(t, attributes, rows, &F), *out = NULL;
    int32_t *rank = nsmi_failed(t->ctx) ? NULL : read_ranks(t, labels, rows, false, &kinds, &kind);
    if (kinds > 4096)
        nsm_error_set(t->ctx, NSM_EFORMAT, "%s_%s.txt: has %lld kinds of labels, too many",
                      t->prefix, labels, (long long)kinds);
    all = F + kinds;
    if (!nsmi_failed(t->ctx) && all)
        out = nsmi_calloc(t->ctx, (size_t)rows, (size_t)all * sizeof *out);
    for (int64_t i = 0; out && i < rows; i++) {
        if (F) memcpy(out + i * all, table + i * F, (size_t)F * sizeof *out);
        if (rank) out[i * all + F + rank[i]] = 1;
    }
    free(table);
    free(rank);
    free(kind);
    *features = out ? all : 0;
    return out;
}

/* The nodes, and where each graph's begin. */
static void read_nodes(tu *t)
{
    int32_t *graph = NULL;
    char *path = part(t, "graph_indicator", true);
    int64_t nodes = path ? nsmi_text_ints(t->ctx, path, 1, INT32_MAX, &graph) : 0;
    int64_t graphs = nodes > 0 ? graph[nodes - 1] : 0;
    for (int64_t i = 1; i < nodes; i++)
        if (graph[i] < graph[i - 1] || graph[i] > graph[i - 1] + 1 || graph[0] != 1)
            nsm_error_set(t->ctx, NSM_EFORMAT, "%s:%lld: graph %d follows graph %d", path,
                          (long long)i + 1, graph[i], graph[i - 1]);
    if (path && !nsmi_failed(t->ctx) && (nodes == 0 || graph[0] != 1))
        nsm_error_set(t->ctx, NSM_EFORMAT, "%s: does not begin with graph 1", path);
    nsm_dataset_nodes *v = nsmi_failed(t->ctx) ? NULL : nsm_dataset_add_nodes(t->ds, "node", nodes);
    if (v) v->graph_ptr = nsmi_calloc(t->ctx, (size_t)graphs + 1, sizeof *v->graph_ptr);
    if (v && v->graph_ptr) {
        t->ds->graphs = graphs;
        for (int64_t i = 0; i < nodes; i++) v->graph_ptr[graph[i]] = i + 1;
        v->dense = read_features(t, "node_attributes", "node_labels", nodes, &v->features);
    }
    free(graph);
    free(path);
}

static void read_edges(tu *t)
{
    int64_t count = 0, room = 0, a = 0, b = 0,
            nodes = nsmi_failed(t->ctx) ? 0 : t->ds->node[0].count;
    int32_t (*pair)[2] = NULL;
    char *path = part(t, "A", true);
    nsmi_text *text = path ? nsmi_text_open(t->ctx, path) : NULL;
    for (char *line; (line = nsmi_text_line(text));) {
        const char *p = line;
        bool ok = nsmi_parse_int(&p, 1, nodes, &a) && *p++ == ',';
        while (ok && *p == ' ') p++;
        if (!ok || !nsmi_parse_int(&p, 1, nodes, &b) || *p) {
            nsmi_text_error(text, "\"%.40s\" is not i, j with numbers from 1 to %lld", line,
                            (long long)nodes);
            break;
        }
        if (!nsmi_grow(t->ctx, &pair, count, &room, sizeof *pair)) break;
        pair[count][0] = (int32_t)a - 1;
        pair[count++][1] = (int32_t)b - 1;
    }
    nsmi_text_close(text);
    nsm_dataset_edges *e = nsmi_failed(t->ctx) ? NULL
                                               : nsm_dataset_add_edges(t->ds, "edge", 0, 0, count);
    for (int64_t k = 0; e && k < count; k++) {
        e->src[k] = pair[k][0];
        e->dst[k] = pair[k][1];
    }
    if (e) e->feature = read_features(t, "edge_attributes", "edge_labels", count, &e->features);
    free(pair);
    free(path);
}

static void read_labels(tu *t)
{
    nsm_dataset_labels *l = &t->ds->label;
    int32_t *kind = NULL;
    int64_t classes = 0;
    int32_t *cls = nsmi_failed(t->ctx)
                       ? NULL
                       : read_ranks(t, "graph_labels", t->ds->graphs, true, &classes, &kind);
    if (!cls) return;
    *l = (nsm_dataset_labels){
        .kind = NSM_LABEL_CLASS, .of_graphs = true, .count = t->ds->graphs, .columns = classes
    };
    l->cls = cls;
    l->names = nsmi_calloc(t->ctx, (size_t)classes, sizeof *l->names);
    for (int64_t c = 0; l->names && c < classes; c++)
        l->names[c] = nsmi_format(t->ctx, "%d", kind[c]);
    free(kind);
}

/* A fold has what it trains on and what it tests on; `valid` sets some of the former apart. */
static void read_folds(tu *t, const nsmi_options *o)
{
    double valid = nsmi_option_float(o, "valid", 0, 0.9, 0);
    uint64_t seed = (uint64_t)nsmi_option_int(o, "seed", 0, INT64_MAX, 0);
    for (int fold = 1; !nsmi_failed(t->ctx); fold++) {
        char name[32];
        char *train = nsmi_find_file(t->ctx, "%s/10fold_idx/train_idx-%d.txt", t->folder, fold);
        char *test = nsmi_find_file(t->ctx, "%s/10fold_idx/test_idx-%d.txt", t->folder, fold);
        snprintf(name, sizeof name, "fold%d", fold);
        nsm_dataset_split *s = train && test ? nsm_dataset_add_split(t->ds, name) : NULL;
        if (s) {
            s->count[NSM_TRAIN] = nsmi_text_ints(t->ctx, train, 0, t->ds->graphs - 1,
                                                 &s->index[NSM_TRAIN]);
            s->count[NSM_TEST] = nsmi_text_ints(t->ctx, test, 0, t->ds->graphs - 1,
                                                &s->index[NSM_TEST]);
            if (valid > 0) nsmi_split_valid(t->ds, s, valid, seed);
        }
        free(train);
        free(test);
        if (!s) return;
    }
}

/* Is every edge listed in both directions?  (TU files do, but nothing makes them.) */
static bool symmetric(nsm_dataset *ds)
{
    ds->directed = false;
    bool yes = nsm_dataset_validate(ds) == NSM_OK;
    if (!yes) nsm_error_clear(ds->ctx);
    return yes;
}

nsm_dataset *nsmi_import_tu(nsm_ctx *ctx, const char *source, const nsmi_options *o)
{
    tu t = { .ctx = ctx, .folder = source };
    t.prefix = find_prefix(ctx, source);
    t.ds = t.prefix ? nsm_dataset_new(ctx, t.prefix) : NULL;
    if (t.ds) {
        read_nodes(&t);
        read_edges(&t);
        read_labels(&t);
        if (!nsmi_failed(ctx)) t.ds->directed = !symmetric(t.ds);
        read_folds(&t, o);
    }
    free(t.prefix);
    if (!nsmi_failed(ctx)) return t.ds;
    nsm_dataset_free(t.ds);
    return NULL;
}
