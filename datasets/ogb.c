/* datasets/ogb.c - The OGB CSV layout, also with typed edges.
 *
 *   raw/edge.csv[.gz]             src,dst a line; made symmetric unless directed=true
 *   raw/edge-feat.csv             optional: dense rows of its edges
 *   raw/edge-<relation>.csv[.gz]  typed edges, directed as they stand; raw/relation-list.csv lists
 *   them
 *   raw/node-feat.csv or .mtx     dense rows, or a MatrixMarket coordinate matrix (kept sparse)
 *   raw/node-label.csv            one class, or several columns: 0/1 labels or real targets; a
 *                                 class or label that is empty or nan is unknown
 *   raw/num-node-list.csv         one line; raw/num-edge-list.csv: edges as listed
 *   split/<name>/{train,valid,test}.csv
 *
 * Many graphs (ogbg-*) have a line each in both lists, stand one after the other in the files of
 * nodes and edges, with nodes numbered anew in each, and are labelled in raw/graph-label.csv.
 *
 * A part that is missing is an error that says which option does without it. */
#include "config.h"
#include "datasets/internal.h"

typedef struct {
    nsm_ctx *ctx;
    const nsmi_options *o;
    const char *root;
    nsm_dataset *ds;
    int64_t nodes, graphs;
    int32_t *graph_nodes; /* [graphs] */
} ogb;

/* A file of raw/, found with or without .gz; NULL with an error if it must be there. */
static char *raw_file(ogb *g, const char *name, const char *advice)
{
    char *path = nsmi_find_file(g->ctx, "%s/raw/%s", g->root, name);
    if (!path && advice)
        nsm_error_set(g->ctx, NSM_EFORMAT, "%s/raw/%s[.gz] is missing%s%s", g->root, name,
                      *advice ? ": " : "", advice);
    return path;
}

static void read_sizes(ogb *g)
{
    char *path = raw_file(g, "num-node-list.csv", "");
    g->graphs = path ? nsmi_text_ints(g->ctx, path, 0, INT32_MAX, &g->graph_nodes) : 0;
    for (int64_t k = 0; k < g->graphs; k++) g->nodes += g->graph_nodes[k];
    if (path && !nsmi_failed(g->ctx) && (g->graphs < 1 || g->nodes > INT32_MAX))
        nsm_error_set(g->ctx, NSM_EFORMAT,
                      "%s: has %lld lines of %lld nodes together, want 1 to %d of both", path,
                      (long long)g->graphs, (long long)g->nodes, INT32_MAX);
    free(path);
}

static void add_nodes(ogb *g)
{
    nsm_dataset_nodes *v = nsm_dataset_add_nodes(g->ds, "node", g->nodes);
    g->ds->graphs = g->graphs;
    if (!v || g->graphs == 1) return;
    v->graph_ptr = nsmi_calloc(g->ctx, (size_t)g->graphs + 1, sizeof *v->graph_ptr);
    for (int64_t k = 0; v->graph_ptr && k < g->graphs; k++)
        v->graph_ptr[k + 1] = v->graph_ptr[k] + g->graph_nodes[k];
}

/* ---- dense rows ---- */

/* Rows of finite numbers, one for each of `rows` nodes or edges: [rows, *columns]. */
static float *read_dense(ogb *g, const char *path, int64_t rows, const char *what, int64_t *columns)
{
    float *table = NULL;
    int64_t row = 0, count = 0, room = 0;
    nsmi_text *t = nsmi_text_open(g->ctx, path);
    for (char *line; (line = nsmi_text_line(t)); row++) {
        const char *p = line;
        int64_t column = 0;
        if (row == rows) {
            nsmi_text_error(t, "more rows than the %lld %s", (long long)rows, what);
            break;
        }
        for (;; column++) {
            if (!nsmi_grow(g->ctx, &table, count, &room, sizeof *table)) break;
            if (!nsmi_parse_float(&p, &table[count])) break;
            count++;
            if (*p != ',') { column++; break; }
            p++;
        }
        if (nsmi_failed(g->ctx)) break;
        if (*p || column < 1) {
            nsmi_text_error(t, "column %lld: \"%.30s\" is not a finite number",
                            (long long)column + 1, p);
            break;
        }
        if (row == 0) *columns = column;
        if (column != *columns) {
            nsmi_text_error(t, "%lld columns, line 1 has %lld", (long long)column,
                            (long long)*columns);
            break;
        }
    }
    nsmi_text_close(t);
    if (!nsmi_failed(g->ctx) && row != rows)
        nsm_error_set(g->ctx, NSM_EFORMAT, "%s: has %lld rows, want %lld %s", path, (long long)row,
                      (long long)rows, what);
    if (!nsmi_failed(g->ctx)) return table;
    free(table);
    *columns = 0;
    return NULL;
}

/* ---- edges ---- */

/* Where an edge's numbers lead: of many graphs, to the one whose turn it is. */
typedef struct {
    int64_t graph, left, first, nodes; /* left: edges of this graph still to come */
} turn;

/* To the graph of the next edge; false: all have theirs. */
static bool next_turn(const ogb *g, const int32_t *edges, turn *t)
{
    while (t->left == 0) {
        if (t->graph == g->graphs) return false;
        if (t->graph) t->first += g->graph_nodes[t->graph - 1];
        t->nodes = g->graph_nodes[t->graph];
        t->left = edges[t->graph++];
    }
    t->left--;
    return true;
}

/* "src,dst" lines to the arrays of a new edge type; edges: of each graph, NULL: of one, any
 * number. */
static void read_edges(ogb *g, const char *path, const char *name, const int32_t *edges)
{
    int64_t count = 0, room = 0, a = 0, b = 0;
    turn at = { .nodes = g->nodes };
    int32_t (*pair)[2] = NULL;
    nsmi_text *t = nsmi_text_open(g->ctx, path);
    for (char *line; (line = nsmi_text_line(t));) {
        const char *p = line;
        if (edges && !next_turn(g, edges, &at)) {
            nsmi_text_error(t, "more edges than num-edge-list says");
            break;
        }
        if (!nsmi_parse_int(&p, 0, at.nodes - 1, &a) || *p++ != ',' ||
            !nsmi_parse_int(&p, 0, at.nodes - 1, &b) || *p) {
            nsmi_text_error(t, "\"%.40s\" is not src,dst with numbers from 0 to %lld", line,
                            (long long)at.nodes - 1);
            break;
        }
        if (!nsmi_grow(g->ctx, &pair, count, &room, sizeof *pair)) break;
        pair[count][0] = (int32_t)(at.first + a);
        pair[count++][1] = (int32_t)(at.first + b);
    }
    nsmi_text_close(t);
    nsm_dataset_edges *e = nsmi_failed(g->ctx) ? NULL
                                               : nsm_dataset_add_edges(g->ds, name, 0, 0, count);
    for (int64_t k = 0; e && k < count; k++) {
        e->src[k] = pair[k][0];
        e->dst[k] = pair[k][1];
    }
    free(pair);
}

static void read_plain_edges(ogb *g, char *path)
{
    int32_t *edges = NULL;
    int64_t want = 0;
    char *list = raw_file(g, "num-edge-list.csv",
                          g->graphs > 1 ? "it tells which edges are of which graph" : NULL);
    int64_t lines = list ? nsmi_text_ints(g->ctx, list, 0, INT32_MAX, &edges) : 0;
    for (int64_t k = 0; k < lines; k++) want += edges[k];
    if (list && !nsmi_failed(g->ctx) && lines != g->graphs)
        nsm_error_set(g->ctx, NSM_EFORMAT, "%s: has %lld lines, want %lld (one a graph)", list,
                      (long long)lines, (long long)g->graphs);
    if (!nsmi_failed(g->ctx)) read_edges(g, path, "edge", g->graphs > 1 ? edges : NULL);
    if (list && !nsmi_failed(g->ctx) && want != g->ds->edge[0].count)
        nsm_error_set(g->ctx, NSM_EFORMAT, "%s: has %lld edges, num-edge-list says %lld", path,
                      (long long)g->ds->edge[0].count, (long long)want);
    free(edges);
    free(list);
    char *features = nsmi_failed(g->ctx) || !nsmi_option_bool(g->o, "features", true)
                         ? NULL
                         : raw_file(g, "edge-feat.csv", NULL);
    if (features) {
        nsm_dataset_edges *e = &g->ds->edge[0];
        e->feature = read_dense(g, features, e->count, "edges", &e->features);
    }
    free(features);
    if (!nsmi_failed(g->ctx) && !g->ds->directed) nsmi_edges_symmetric(g->ds, 0);
}

/* rev_<relation>: the same edges the other way round. */
static void add_inverse(ogb *g)
{
    char name[NSMI_H5_MAX_NAME];
    int given = g->ds->edge_types;
    for (int i = 0; i < given && !nsmi_failed(g->ctx); i++) {
        snprintf(name, sizeof name, "rev_%s", g->ds->edge[i].name);
        nsm_dataset_edges *r = nsm_dataset_add_edges(g->ds, name, 0, 0, g->ds->edge[i].count);
        if (!r || !r->count) continue;
        memcpy(r->src, g->ds->edge[i].dst, (size_t)r->count * sizeof *r->src);
        memcpy(r->dst, g->ds->edge[i].src, (size_t)r->count * sizeof *r->dst);
    }
}

/* A line "relation,count" of relation-list.csv. */
static void read_relation(ogb *g, nsmi_text *t, char *line)
{
    int64_t want = 0;
    char name[NSMI_H5_MAX_NAME];
    char *comma = strrchr(line, ',');
    const char *p = comma ? comma + 1 : line;
    if (comma) *comma = 0;
    if (!comma || !nsmi_parse_int(&p, 0, INT32_MAX, &want) || *p || !nsmi_name_ok(line) ||
        strlen(line) > 200) {
        nsmi_text_error(t, "\"%.40s\" is not relation,count", line);
        return;
    }
    snprintf(name, sizeof name, "edge-%s.csv", line);
    char *path = raw_file(g, name, "relation-list.csv names it");
    if (path) read_edges(g, path, line, NULL);
    if (!nsmi_failed(g->ctx) && g->ds->edge[g->ds->edge_types - 1].count != want)
        nsm_error_set(g->ctx, NSM_EFORMAT, "%s: has %lld edges, relation-list says %lld", path,
                      (long long)g->ds->edge[g->ds->edge_types - 1].count, (long long)want);
    free(path);
}

static void read_typed_edges(ogb *g, const char *list)
{
    nsmi_text *t = nsmi_text_open(g->ctx, list);
    for (char *line; (line = nsmi_text_line(t));) read_relation(g, t, line);
    nsmi_text_close(t);
    if (!nsmi_failed(g->ctx) && !g->ds->edge_types)
        nsm_error_set(g->ctx, NSM_EFORMAT, "%s: names no relation", list);
    if (nsmi_option_bool(g->o, "inverse", false)) add_inverse(g);
}

static void read_all_edges(ogb *g)
{
    bool directed = nsmi_option_bool(g->o, "directed", false);
    char *relations = raw_file(g, "relation-list.csv", NULL);
    char *plain = raw_file(g, "edge.csv",
                           relations ? NULL
                                     : "nor is raw/relation-list.csv, which typed edges need");
    g->ds->directed = directed || relations;
    if (plain && relations)
        nsm_error_set(g->ctx, NSM_EFORMAT, "%s/raw: holds both edge.csv and relation-list.csv",
                      g->root);
    else if (relations && g->graphs > 1)
        nsm_error_set(g->ctx, NSM_EFORMAT, "%s: typed edges are read of one graph, not of %lld",
                      relations, (long long)g->graphs);
    else if (relations) read_typed_edges(g, relations);
    else if (plain) read_plain_edges(g, plain);
    free(plain);
    free(relations);
}

/* ---- features of nodes ---- */

/* An entry of a matrix as it stands in the file. */
typedef struct { int32_t row, col; float val; } entry;

static int by_place(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    return x->row != y->row ? (x->row > y->row) - (x->row < y->row)
                            : (x->col > y->col) - (x->col < y->col);
}

/* Entries to rows.  Mostly they stand in order already. */
static void to_rows(ogb *g, const char *path, nsm_dataset_nodes *v, entry *list, int64_t count)
{
    bool sorted = true;
    for (int64_t k = 1; k < count && sorted; k++) sorted = by_place(&list[k - 1], &list[k]) < 0;
    if (!sorted) qsort(list, (size_t)count, sizeof *list, by_place);
    v->ptr = nsmi_calloc(g->ctx, (size_t)v->count + 1, sizeof *v->ptr);
    v->idx = nsmi_malloc(g->ctx, (size_t)count * sizeof *v->idx);
    v->val = nsmi_malloc(g->ctx, (size_t)count * sizeof *v->val);
    if (nsmi_failed(g->ctx)) return;
    for (int64_t k = 0; k < count; k++) {
        if (k && by_place(&list[k - 1], &list[k]) == 0)
            nsm_error_set(g->ctx, NSM_EFORMAT, "%s: entry %d %d stands twice", path,
                          list[k].row + 1, list[k].col + 1);
        v->ptr[list[k].row + 1]++;
        v->idx[k] = list[k].col;
        v->val[k] = list[k].val;
    }
    for (int64_t i = 0; i < v->count; i++) v->ptr[i + 1] += v->ptr[i];
}

/* The header lines of a matrix: kind of values, then sizes behind comments.  false: an error. */
static bool matrix_header(nsmi_text *t, int64_t nodes, bool *pattern, int64_t *cols,
                          int64_t *entries)
{
    char kind[16] = "", shape[16] = "";
    int64_t rows = 0;
    char *line = nsmi_text_line(t);
    if (!line) return nsmi_text_error(t, "is empty"), false;
    if (sscanf(line, "%%%%MatrixMarket matrix coordinate %15s %15s", kind, shape) != 2 ||
        strcmp(shape, "general") ||
        (strcmp(kind, "pattern") && strcmp(kind, "real") && strcmp(kind, "integer")))
        return nsmi_text_error(
                   t, "is not \"%%%%MatrixMarket matrix coordinate pattern|real|integer general\""),
               false;
    *pattern = !strcmp(kind, "pattern");
    while ((line = nsmi_text_line(t)) && *line == '%') { }
    const char *p = line;
    if (!line || !nsmi_parse_int(&p, 0, INT32_MAX, &rows) || *p++ != ' ' ||
        !nsmi_parse_int(&p, 1, INT32_MAX, cols) || *p++ != ' ' ||
        !nsmi_parse_int(&p, 0, INT64_MAX / 64, entries) || *p)
        return nsmi_text_error(t, "is not rows columns entries"), false;
    if (rows != nodes)
        return nsmi_text_error(t, "%lld rows, want %lld nodes", (long long)rows, (long long)nodes),
               false;
    return true;
}

static void read_sparse(ogb *g, const char *path)
{
    nsm_dataset_nodes *v = &g->ds->node[0];
    int64_t count = 0, room = 0, row = 0, col = 0, want = 0;
    bool pattern = false;
    entry *list = NULL;
    nsmi_text *t = nsmi_text_open(g->ctx, path);
    bool ok = t && matrix_header(t, v->count, &pattern, &v->features, &want);
    for (char *line; ok && (line = nsmi_text_line(t));) {
        const char *p = line;
        float value = 1;
        if (!nsmi_parse_int(&p, 1, v->count, &row) || *p++ != ' ' ||
            !nsmi_parse_int(&p, 1, v->features, &col) ||
            (!pattern && (*p++ != ' ' || !nsmi_parse_float(&p, &value))) || *p) {
            nsmi_text_error(t, "\"%.40s\" is not row column%s within %lld and %lld", line,
                            pattern ? "" : " value", (long long)v->count, (long long)v->features);
            break;
        }
        if (!nsmi_grow(g->ctx, &list, count, &room, sizeof *list)) break;
        list[count++] = (entry){ (int32_t)row - 1, (int32_t)col - 1, value };
    }
    nsmi_text_close(t);
    if (!nsmi_failed(g->ctx) && count != want)
        nsm_error_set(g->ctx, NSM_EFORMAT, "%s: has %lld entries, its header says %lld", path,
                      (long long)count, (long long)want);
    if (!nsmi_failed(g->ctx)) to_rows(g, path, v, list, count);
    free(list);
}

static void read_features(ogb *g)
{
    if (!nsmi_option_bool(g->o, "features", true)) return;
    char *sparse = raw_file(g, "node-feat.mtx", NULL);
    char *dense = raw_file(g, "node-feat.csv",
                           sparse ? NULL : "nor is node-feat.mtx; features=false does without");
    if (sparse) read_sparse(g, sparse);
    else if (dense)
        g->ds->node[0].dense = read_dense(g, dense, g->nodes, "nodes", &g->ds->node[0].features);
    free(sparse);
    free(dense);
}

/* ---- labels ---- */

/* A number of a label file; NaN where it is unknown: "nan", or nothing at all. */
static bool parse_label(const char **p, float *value)
{
    *value = NAN;
    if (!**p || **p == ',') return true;
    if (strncasecmp(*p, "nan", 3)) return nsmi_parse_float(p, value);
    *p += 3;
    return !**p || **p == ',';
}

/* The label file as numbers [lines, columns]. */
static float *read_table(ogb *g, const char *path, int64_t *columns, bool *whole)
{
    int64_t want = g->ds->label.count, lines = 0, count = 0, room = 0;
    float *table = NULL;
    nsmi_text *t = nsmi_text_open(g->ctx, path);
    *columns = 0;
    *whole = true;
    for (char *line; (line = nsmi_text_line(t)); lines++) {
        const char *p = line - 1;
        int64_t column = 0;
        do {
            p++;
            if (!nsmi_grow(g->ctx, &table, count, &room, sizeof *table) ||
                !parse_label(&p, &table[count]))
                break;
            *whole &= isnan(table[count]) ||
                      (table[count] == floorf(table[count]) && fabsf(table[count]) < 1e6f);
            count++;
            column++;
        } while (*p == ',');
        if (nsmi_failed(g->ctx)) break;
        if (lines == 0) *columns = column;
        if (*p || column != *columns || column == 0) {
            nsmi_text_error(t, "\"%.40s\" is not %lld finite numbers", line,
                            (long long)(lines ? *columns : 1));
            break;
        }
    }
    nsmi_text_close(t);
    if (!nsmi_failed(g->ctx) && lines != want)
        nsm_error_set(g->ctx, NSM_EFORMAT, "%s: has %lld lines, want %lld %s", path,
                      (long long)lines, (long long)want,
                      g->ds->label.of_graphs ? "graphs" : "nodes");
    if (!nsmi_failed(g->ctx)) return table;
    free(table);
    return NULL;
}

static void set_classes(ogb *g, const char *path, const float *table)
{
    nsm_dataset_labels *l = &g->ds->label;
    l->kind = NSM_LABEL_CLASS;
    l->cls = nsm_dataset_array(g->ds, l->count, sizeof *l->cls);
    l->columns = 1;
    for (int64_t i = 0; l->cls && i < l->count; i++) {
        if (table[i] < -1) {
            nsm_error_set(g->ctx, NSM_EFORMAT, "%s:%lld: class %g is below -1", path,
                          (long long)i + 1, (double)table[i]);
            return;
        }
        l->cls[i] = isnan(table[i]) ? -1 : (int32_t)table[i];
        if (l->cls[i] >= l->columns) l->columns = l->cls[i] + 1;
    }
}

static void set_multi(ogb *g, const char *path, const float *table)
{
    nsm_dataset_labels *l = &g->ds->label;
    l->kind = NSM_LABEL_MULTI;
    l->multi = nsm_dataset_array(g->ds, l->count * l->columns, sizeof *l->multi);
    for (int64_t i = 0; l->multi && i < l->count * l->columns; i++) {
        if (!isnan(table[i]) && table[i] != 0 && table[i] != 1 && table[i] != -1) {
            nsm_error_set(g->ctx, NSM_EFORMAT, "%s:%lld: label %g is none of 0, 1, -1", path,
                          (long long)(i / l->columns) + 1, (double)table[i]);
            return;
        }
        l->multi[i] = table[i] >= 0 ? (uint8_t)table[i] : 255;
    }
}

/* Real targets, none of which may be unknown; takes the table over. */
static void set_values(ogb *g, const char *path, float *table)
{
    nsm_dataset_labels *l = &g->ds->label;
    l->kind = NSM_LABEL_VALUE;
    l->value = table;
    for (int64_t i = 0; i < l->count * l->columns; i++)
        if (isnan(table[i])) {
            nsm_error_set(g->ctx, NSM_EFORMAT, "%s:%lld: a target is unknown", path,
                          (long long)(i / l->columns) + 1);
            return;
        }
}

static void read_labels(ogb *g)
{
    static const char *const words[] = { "auto", "class", "multi", "value", "false", NULL };
    int kind = nsmi_option_choice(g->o, "labels", words);
    nsm_dataset_labels *l = &g->ds->label;
    if (nsmi_failed(g->ctx) || kind == 4) return;
    bool whole = true;
    char *of_graphs = raw_file(g, "graph-label.csv", NULL);
    char *path = of_graphs
                     ? of_graphs
                     : raw_file(g, "node-label.csv",
                                g->graphs > 1 ? "nor is graph-label.csv; labels=false does without"
                                              : "labels=false does without");
    l->of_graphs = of_graphs != NULL;
    l->count = of_graphs ? g->graphs : g->nodes;
    float *table = path ? read_table(g, path, &l->columns, &whole) : NULL;
    if (kind == 0)
        kind = !whole ? NSM_LABEL_VALUE : l->columns == 1 ? NSM_LABEL_CLASS : NSM_LABEL_MULTI;
    if (table && kind == NSM_LABEL_CLASS && (l->columns != 1 || !whole))
        nsm_error_set(g->ctx, NSM_EFORMAT, "%s: classes are one whole number a line", path);
    else if (table && kind == NSM_LABEL_CLASS) set_classes(g, path, table);
    else if (table && kind == NSM_LABEL_MULTI) set_multi(g, path, table);
    else if (table) set_values(g, path, table);
    if (kind != NSM_LABEL_VALUE) free(table);
    free(path);
}

/* ---- splits ---- */

static void read_split(ogb *g, const char *name)
{
    static const char *const parts[] = { "train", "valid", "test" };
    int64_t labelled = g->ds->label.of_graphs ? g->graphs : g->nodes;
    nsm_dataset_split *s = nsm_dataset_add_split(g->ds, name);
    for (int p = 0; s && p < NSM_SPLIT_PARTS; p++) {
        char *path = nsmi_find_file(g->ctx, "%s/split/%s/%s.csv", g->root, name, parts[p]);
        if (!path)
            nsm_error_set(g->ctx, NSM_EFORMAT,
                          "%s/split/%s/%s.csv[.gz] is missing: splits=false does without", g->root,
                          name, parts[p]);
        else s->count[p] = nsmi_text_ints(g->ctx, path, 0, labelled - 1, &s->index[p]);
        free(path);
    }
}

static void read_splits(ogb *g)
{
    if (!nsmi_option_bool(g->o, "splits", true) || nsmi_failed(g->ctx)) return;
    char *folder = nsmi_find_file(g->ctx, "%s/split", g->root);
    if (!folder)
        nsm_error_set(g->ctx, NSM_EFORMAT, "%s/split is missing: splits=false does without",
                      g->root);
    char **name = folder ? nsmi_list_folder(g->ctx, folder) : NULL;
    for (char **p = name; p && *p && !nsmi_failed(g->ctx); p++) read_split(g, *p);
    nsmi_free_list(name);
    free(folder);
}

nsm_dataset *nsmi_import_ogb(nsm_ctx *ctx, const char *source, const nsmi_options *o)
{
    ogb g = { .ctx = ctx, .o = o, .root = source };
    char *name = nsmi_stem(ctx, source);
    g.ds = name ? nsm_dataset_new(ctx, name) : NULL;
    free(name);
    if (!g.ds) return NULL;
    read_sizes(&g);
    if (!nsmi_failed(ctx)) add_nodes(&g);
    if (!nsmi_failed(ctx)) {
        /* first: they and features show best whether the numbers of nodes are true */
        read_labels(&g);
        read_splits(&g);
        if (!nsmi_failed(ctx)) read_features(&g);
        if (!nsmi_failed(ctx)) read_all_edges(&g);
    }
    free(g.graph_nodes);
    if (!nsmi_failed(ctx)) return g.ds;
    nsm_dataset_free(g.ds);
    return NULL;
}
