/* datasets/csv.c - Edges from a CSV file, nodes from a second one.
 *
 * The first line names the columns (header=false: they are named 1, 2, ...).  Nodes have names of
 * any kind; with nodes=FILE they are numbered in that file's order and the edges may name no
 * others, else in the order in which the edges name them.  libcsv does the quoting.
 *
 * Pictures are joined to nodes by a column of paths (image=) or by their files' names, a node's and
 * .png, .jpg or .jpeg, in a folder (images=).  A node without one is told apart in the dataset; a
 * path that leads nowhere, a damaged picture, one of no node are errors. */
#include "config.h"
#include <csv.h>
#include <errno.h>
#include <unistd.h>
#include "datasets/node_pictures.h"

enum { MAX_COLUMNS = 100000 };

/* One file on its way through libcsv: the fields of the record so far. */
typedef struct table table;
struct table {
    nsm_ctx *ctx;
    nsmi_text *text;
    char *record;              /* the fields, each with its NUL */
    int64_t used, room;
    int64_t *start, start_room, columns; /* where fields begin */
    nsmi_words header;
    bool headless;             /* the first record is data */
    int64_t rows;
    void (*row)(table *t, void *user);
    void *user;
};

static const char *cell(const table *t, int64_t column) { return t->record + t->start[column]; }

static void take_field(void *field, size_t bytes, void *user)
{
    table *t = user;
    if (nsmi_failed(t->ctx)) return;
    if (memchr(field, 0, bytes)) {
        nsmi_text_error(t->text, "a zero byte stands in a field");
        return;
    }
    if (t->columns == MAX_COLUMNS) {
        nsmi_text_error(t->text, "more than %d columns", MAX_COLUMNS);
        return;
    }
    while (t->used + (int64_t)bytes >= t->room)
        if (!nsmi_grow(t->ctx, &t->record, t->room, &t->room, 1)) return;
    if (!nsmi_grow(t->ctx, &t->start, t->columns, &t->start_room, sizeof *t->start)) return;
    t->start[t->columns++] = t->used;
    memcpy(t->record + t->used, field, bytes);
    t->used += (int64_t)bytes;
    t->record[t->used++] = 0;
}

static void name_columns(table *t)
{
    for (int64_t c = 0; c < t->columns && !nsmi_failed(t->ctx); c++) {
        char number[24];
        snprintf(number, sizeof number, "%lld", (long long)c + 1);
        int64_t at = nsmi_words_add(t->ctx, &t->header, t->headless ? number : cell(t, c));
        if (at != c && !nsmi_failed(t->ctx))
            nsmi_text_error(t->text, "two columns are named %.60s", cell(t, c));
    }
}

static void take_row(int end, void *user)
{
    table *t = user;
    bool first = t->header.count == 0;
    (void)end;
    if (nsmi_failed(t->ctx)) return;
    if (first) name_columns(t);
    if (t->columns != t->header.count) {
        nsmi_text_error(t->text, "%lld columns, the first line has %lld", (long long)t->columns,
                        (long long)t->header.count);
    } else if (!nsmi_failed(t->ctx) && (!first || t->headless)) {
        t->row(t, t->user);
        t->rows++;
    }
    t->columns = 0;
    t->used = 0;
}

/* Run a file through libcsv, line by line; row is called for every record. */
static void read_table(nsm_ctx *ctx, const nsmi_options *o, const char *path,
                       void (*row)(table *t, void *user), void *user)
{
    table t = {
        .ctx = ctx, .row = row, .user = user, .headless = !nsmi_option_bool(o, "header", true)
    };
    struct csv_parser parser;
    const char *delimiter = nsmi_option_text(o, "delimiter", ",");
    if (!strcmp(delimiter, "tab")) delimiter = "\t";
    if (strlen(delimiter) != 1 || *delimiter == '"')
        nsm_error_set(ctx, NSM_EINVAL, "%s: delimiter=%.20s is neither one character nor \"tab\"",
                      o->who, delimiter);
    t.text = nsmi_text_open(ctx, path);
    if (t.text && csv_init(&parser, CSV_STRICT | CSV_STRICT_FINI))
        nsm_error_set(ctx, NSM_ENOMEM, "%s: out of memory", path);
    else if (t.text) {
        csv_set_delim(&parser, (unsigned char)*delimiter);
        csv_set_space_func(&parser, NULL);
        bool ok = true;
        for (char *line; ok && (line = nsmi_text_line(t.text));) {
            size_t n = strlen(line);
            ok = csv_parse(&parser, line, n, take_field, take_row, &t) == n &&
                 csv_parse(&parser, "\n", 1, take_field, take_row, &t) == 1;
        }
        if (ok && !nsmi_failed(ctx)) ok = csv_fini(&parser, take_field, take_row, &t) == 0;
        if (!ok) nsmi_text_error(t.text, "quotes do not match");
        if (!nsmi_failed(ctx) && !t.header.count)
            nsm_error_set(ctx, NSM_EFORMAT, "%s: is empty", path);
        csv_free(&parser);
    }
    nsmi_text_close(t.text);
    nsmi_words_clear(&t.header);
    free(t.record);
    free(t.start);
}

/* The column that an option names, or a default (-1: none). */
static int64_t column_of(table *t, const nsmi_options *o, const char *key, int64_t otherwise)
{
    const char *name = nsmi_option_text(o, key, NULL);
    int64_t c = name ? nsmi_words_find(&t->header, name) : otherwise;
    if ((name && c < 0) || c >= t->header.count)
        nsmi_text_error(t->text, "there is no column %s=%.60s", key,
                        name ? name : "(by default the second)");
    return nsmi_failed(t->ctx) ? -1 : c;
}

/* ---- the graph ---- */

typedef struct {
    nsm_ctx *ctx;
    const nsmi_options *o;
    nsmi_words node, class;
    bool closed;               /* the node file has been read: edges name no new nodes */
    int64_t src, dst, weight;  /* columns of the edge file */
    int64_t id, label, image;  /* columns of the node file */
    int64_t *feature, features, *told, texts;
    nsmi_texts text;
    char *folder, **picture;   /* of the pictures; [pictures] the path of each node's, or NULL */
    int64_t pictures, picture_room;
    int64_t edges, edge_room[2], cells, cell_room, class_room;
    int32_t (*pair)[2], *cls;
    float *weights, *cell;
} graph;

static int64_t node_of(graph *g, table *t, int64_t column)
{
    const char *name = cell(t, column);
    if (!*name) return nsmi_text_error(t->text, "a node's name is empty"), -1;
    if (!g->closed) return nsmi_words_add(g->ctx, &g->node, name);
    int64_t i = nsmi_words_find(&g->node, name);
    if (i < 0) nsmi_text_error(t->text, "node %.60s is not in the node file", name);
    return i;
}

static bool number_in(table *t, int64_t column, float *value)
{
    const char *p = cell(t, column);
    if (nsmi_parse_float(&p, value) && !*p) return true;
    nsmi_text_error(t->text, "column %s: \"%.40s\" is not a finite number", t->header.word[column],
                    cell(t, column));
    return false;
}

static void edge_row(table *t, void *user)
{
    graph *g = user;
    if (t->rows == 0) {
        g->src = column_of(t, g->o, "src", 0);
        g->dst = column_of(t, g->o, "dst", 1);
        g->weight = column_of(t, g->o, "weight", -1);
        if (nsmi_failed(g->ctx)) return;
    }
    int64_t a = node_of(g, t, g->src), b = a < 0 ? -1 : node_of(g, t, g->dst);
    if (a < 0 || b < 0 || !nsmi_grow(g->ctx, &g->pair, g->edges, &g->edge_room[0], sizeof *g->pair))
        return;
    g->pair[g->edges][0] = (int32_t)a;
    g->pair[g->edges][1] = (int32_t)b;
    if (g->weight >= 0 &&
        (!nsmi_grow(g->ctx, &g->weights, g->edges, &g->edge_room[1], sizeof *g->weights) ||
         !number_in(t, g->weight, &g->weights[g->edges])))
        return;
    g->edges++;
}

/* The columns that key=a,b,c names, into column [header.count]: how many. */
static int64_t listed_columns(table *t, const char *key, const char *list, int64_t *column)
{
    int64_t count = 0;
    while (list && *list) {
        char name[256];
        size_t n = strcspn(list, ",");
        snprintf(name, sizeof name, "%.*s", (int)n, list);
        int64_t c = nsmi_words_find(&t->header, name);
        if (c < 0 || count == t->header.count) {
            nsmi_text_error(t->text, "%s=%.60s: there is no such column, or it is named twice", key,
                            name);
            return 0;
        }
        column[count++] = c;
        list += n + (list[n] == ',');
    }
    return count;
}

/* features=a,b,c names columns; without it all are but id, label, image and those of the text. */
static void choose_columns(graph *g, table *t)
{
    const char *list = nsmi_option_text(g->o, "features", NULL);
    size_t bytes = (size_t)t->header.count * sizeof *g->feature;
    g->feature = nsmi_malloc(g->ctx, bytes);
    g->told = nsmi_malloc(g->ctx, bytes);
    if (!g->feature || !g->told) return;
    g->texts = listed_columns(t, "text", nsmi_option_text(g->o, "text", NULL), g->told);
    if (list && !strcmp(list, "false")) return;
    if (list) g->features = listed_columns(t, "features", list, g->feature);
    for (int64_t c = 0; !list && c < t->header.count; c++) {
        bool taken = c == g->id || c == g->label || c == g->image;
        for (int64_t k = 0; k < g->texts; k++) taken |= g->told[k] == c;
        if (!taken) g->feature[g->features++] = c;
    }
}

typedef struct { graph *g; bool ok; } text_row;
static void take_word(void *user, const char *word)
{
    text_row *r = user;
    r->ok = r->ok && nsmi_texts_word(r->g->ctx, &r->g->text, word);
}

static bool take_texts(graph *g, const table *t)
{
    text_row r = { g, true };
    for (int64_t k = 0; k < g->texts; k++) {
        const char *text = cell(t, g->told[k]);
        nsmi_words_each(text, text + strlen(text), take_word, &r);
    }
    return r.ok && (!g->texts || nsmi_texts_end(g->ctx, &g->text));
}

/* The path that the node's image column holds; empty: it has no picture. */
static bool take_picture(graph *g, table *t)
{
    const char *name = g->image < 0 ? "" : cell(t, g->image);
    if (g->image < 0) return true;
    if (!nsmi_grow(g->ctx, &g->picture, g->pictures, &g->picture_room, sizeof *g->picture))
        return false;
    char *path = *name ? nsmi_picture_path(g->ctx, g->folder, name) : NULL;
    g->picture[g->pictures++] = path;
    if (*name && path && access(path, R_OK))
        nsmi_text_error(t->text, "column %s: %s: %s", t->header.word[g->image], path,
                        strerror(errno));
    return !nsmi_failed(g->ctx);
}

static void node_row(table *t, void *user)
{
    graph *g = user;
    if (t->rows == 0) {
        g->id = column_of(t, g->o, "id", 0);
        g->label = column_of(t, g->o, "label", -1);
        g->image = column_of(t, g->o, "image", -1);
        if (!nsmi_failed(g->ctx)) choose_columns(g, t);
        if (nsmi_failed(g->ctx)) return;
    }
    int64_t before = g->node.count, i = node_of(g, t, g->id);
    if (i < 0) return;
    if (g->node.count == before) {
        nsmi_text_error(t->text, "node %.60s stands twice", cell(t, g->id));
        return;
    }
    for (int64_t k = 0; k < g->features; k++) {
        if (!nsmi_grow(g->ctx, &g->cell, g->cells, &g->cell_room, sizeof *g->cell)) return;
        if (!number_in(t, g->feature[k], &g->cell[g->cells])) return;
        g->cells++;
    }
    if (!take_texts(g, t) || !take_picture(g, t)) return;
    if (g->label < 0 || !nsmi_grow(g->ctx, &g->cls, i, &g->class_room, sizeof *g->cls)) return;
    const char *word = cell(t, g->label);
    g->cls[i] = *word && strcmp(word, "-1") ? (int32_t)nsmi_words_add(g->ctx, &g->class, word) : -1;
}

/* Where the pictures lie: images=, else with the node file. */
static bool find_folder(graph *g, const char *nodes)
{
    const char *column = nsmi_option_text(g->o, "image", NULL),
               *folder = nsmi_option_text(g->o, "images", NULL), *end;
    if (column && !nodes)
        nsm_error_set(g->ctx, NSM_EINVAL,
                      "%s: image=%.60s is a column of nodes=FILE, which is missing", g->o->who,
                      column);
    if (!column && !folder &&
        (nsmi_option_text(g->o, "size", NULL) || nsmi_option_text(g->o, "channels", NULL)))
        nsm_error_set(g->ctx, NSM_EINVAL,
                      "%s: size= and channels= are of pictures, which image= or images= names",
                      g->o->who);
    if (folder) g->folder = nsmi_strdup(g->ctx, folder);
    else if (column && nodes) {
        end = strrchr(nodes, '/');
        g->folder = nsmi_strdup(g->ctx, !end ? "." : end == nodes ? "/" : nodes);
        if (end && end > nodes && g->folder) g->folder[end - nodes] = 0;
    }
    return !nsmi_failed(g->ctx);
}

static void join_pictures(graph *g, nsm_dataset *ds, nsm_dataset_nodes *v)
{
    if (!g->folder) return;
    if (g->image < 0) {
        g->picture = nsmi_pictures_in(g->ctx, g->folder, &g->node);
        g->pictures = g->picture ? g->node.count : 0;
    }
    if (!nsmi_failed(g->ctx)) nsmi_pictures_to_nodes(ds, v, g->picture, g->o);
}

static nsm_dataset *build(graph *g, const char *source)
{
    char *name = nsmi_stem(g->ctx, source);
    nsm_dataset *ds = name ? nsm_dataset_new(g->ctx, name) : NULL;
    free(name);
    nsm_dataset_nodes *v = ds ? nsm_dataset_add_nodes(ds, "node", g->node.count) : NULL;
    nsm_dataset_edges *e = v ? nsm_dataset_add_edges(ds, "edge", 0, 0, g->edges) : NULL;
    if (!e) return ds;
    for (int64_t k = 0; k < g->edges; k++) {
        e->src[k] = g->pair[k][0];
        e->dst[k] = g->pair[k][1];
    }
    e->weight = g->weights;
    g->weights = NULL;
    v = &ds->node[0];
    v->features = g->features;
    if (g->features) v->dense = g->cell;
    if (g->features) g->cell = NULL;
    /* no nodes, but columns */
    if (g->features && !v->dense) v->dense = nsmi_calloc(g->ctx, 1, sizeof *v->dense);
    if (g->label >= 0 && g->closed) {
        nsmi_words_to_classes(ds, &g->class, g->cls, g->node.count);
        g->cls = NULL;
    }
    if (g->texts)
        nsmi_texts_to_nodes(ds, &g->text, nsmi_option_int(g->o, "least", 1, INT32_MAX, 1), v);
    join_pictures(g, ds, v);
    v->names = g->node.word;
    g->node.word = NULL;
    g->node.count = 0;
    ds->directed = nsmi_option_bool(g->o, "directed", false);
    if (!ds->directed) nsmi_edges_symmetric(ds, 0);
    return ds;
}

nsm_dataset *nsmi_import_csv(nsm_ctx *ctx, const char *source, const nsmi_options *o)
{
    graph g = { .ctx = ctx, .o = o, .label = -1, .image = -1 };
    const char *nodes = nsmi_option_text(o, "nodes", NULL);
    nsm_dataset *ds = NULL;
    if (find_folder(&g, nodes) && nodes) read_table(ctx, o, nodes, node_row, &g);
    g.closed = nodes != NULL;
    if (!nsmi_failed(ctx)) read_table(ctx, o, source, edge_row, &g);
    if (!nsmi_failed(ctx)) ds = build(&g, source);
    nsmi_words_clear(&g.node);
    nsmi_words_clear(&g.class);
    nsmi_texts_clear(&g.text);
    nsmi_picture_paths_free(g.picture, g.pictures);
    free(g.told); free(g.folder);
    free(g.pair); free(g.cls); free(g.weights); free(g.cell); free(g.feature);
    if (!nsmi_failed(ctx)) return ds;
    nsm_dataset_free(ds);
    return NULL;
}
