/* datasets/triples.c - Knowledge graphs as files of triples: train.txt, valid.txt, test.txt, lines
 * "head<TAB>relation<TAB>tail", each perhaps .gz.
 *
 * Entities are nodes, in the order of their coming; each relation is a type of edges, which holds
 * the training triples; links hold the triples of all three parts.  A triple that repeats within
 * a part stays as often as it stands there. */
#include "config.h"
#include "datasets/words.h"

typedef struct {
    nsm_ctx *ctx;
    nsmi_words entity, relation;
    int64_t count[NSM_SPLIT_PARTS], room[NSM_SPLIT_PARTS];
    int32_t (*triple[NSM_SPLIT_PARTS])[3]; /* head, relation, tail */
} graph;

/* Cut a line at its tabs into three names that are not empty; false: it is none. */
static bool cut(char *line, char *name[3])
{
    for (int k = 0; k < 3; k++) {
        name[k] = line;
        char *tab = strchr(line, '\t');
        if ((tab != NULL) != (k < 2)) return false;
        if (tab) *tab = 0, line = tab + 1;
        if (!*name[k]) return false;
    }
    return true;
}

static void read_line(graph *g, int part, nsmi_text *t, char *line)
{
    char *name[3];
    if (!cut(line, name)) {
        nsmi_text_error(t, "is not head, relation and tail with tabs between them");
        return;
    }
    if (!nsmi_name_ok(name[1])) {
        nsmi_text_error(t, "\"%.40s\" cannot be the name of a relation: a slash, or too long",
                        name[1]);
        return;
    }
    int64_t i = g->count[part], head = nsmi_words_add(g->ctx, &g->entity, name[0]),
            relation = nsmi_words_add(g->ctx, &g->relation, name[1]),
            tail = nsmi_words_add(g->ctx, &g->entity, name[2]);
    if (g->entity.count > INT32_MAX || g->relation.count > (1 << 20)) {
        nsmi_text_error(t, "is of entity %lld, relation %lld: more than there may be",
                        (long long)g->entity.count, (long long)g->relation.count);
        return;
    }
    if (nsmi_failed(g->ctx) ||
        !nsmi_grow(g->ctx, &g->triple[part], i, &g->room[part], sizeof **g->triple))
        return;
    int32_t *to = g->triple[part][i];
    to[0] = (int32_t)head;
    to[1] = (int32_t)relation;
    to[2] = (int32_t)tail;
    g->count[part]++;
}

static void read_part(graph *g, const char *source, int part)
{
    static const char *const file[] = { "train.txt", "valid.txt", "test.txt" };
    char *path = nsmi_find_file(g->ctx, "%s/%s", source, file[part]);
    if (!path && !nsmi_failed(g->ctx))
        nsm_error_set(g->ctx, NSM_EIO, "%s/%s[.gz] is missing", source, file[part]);
    nsmi_text *t = path ? nsmi_text_open(g->ctx, path) : NULL;
    for (char *line; t && !nsmi_failed(g->ctx) && (line = nsmi_text_line(t));)
        if (*line) read_line(g, part, t, line);
    nsmi_text_close(t);
    free(path);
}

static void add_edges(graph *g, nsm_dataset *ds)
{
    int64_t *count = nsmi_calloc(g->ctx, (size_t)g->relation.count + 1, sizeof *count);
    for (int64_t i = 0; count && i < g->count[NSM_TRAIN]; i++) count[g->triple[NSM_TRAIN][i][1]]++;
    for (int64_t r = 0; count && r < g->relation.count && !nsmi_failed(g->ctx); r++) {
        nsm_dataset_add_edges(ds, g->relation.word[r], 0, 0, count[r]);
        count[r] = 0;
    }
    for (int64_t i = 0; !nsmi_failed(g->ctx) && i < g->count[NSM_TRAIN]; i++) {
        const int32_t *t = g->triple[NSM_TRAIN][i];
        nsm_dataset_edges *e = &ds->edge[t[1]];
        e->src[count[t[1]]] = t[0];
        e->dst[count[t[1]]++] = t[2];
    }
    free(count);
}

static void add_links(graph *g, nsm_dataset *ds)
{
    for (int p = 0; p < NSM_SPLIT_PARTS; p++) {
        if (nsm_dataset_links_make(ds, p, g->count[p])) return;
        for (int64_t i = 0; i < g->count[p]; i++) {
            ds->link[p].src[i] = g->triple[p][i][0];
            ds->link[p].relation[i] = g->triple[p][i][1];
            ds->link[p].dst[i] = g->triple[p][i][2];
        }
    }
}

static nsm_dataset *build(graph *g, const char *source)
{
    char *name = nsmi_stem(g->ctx, source);
    nsm_dataset *ds = name ? nsm_dataset_new(g->ctx, name) : NULL;
    free(name);
    nsm_dataset_nodes *v = ds ? nsm_dataset_add_nodes(ds, "entity", g->entity.count) : NULL;
    if (!v) return ds;
    v->names = g->entity.word;
    g->entity.word = NULL;
    g->entity.count = 0;
    ds->directed = true;
    add_edges(g, ds);
    if (!nsmi_failed(g->ctx)) add_links(g, ds);
    return ds;
}

nsm_dataset *nsmi_import_triples(nsm_ctx *ctx, const char *source, const nsmi_options *o)
{
    graph g = { .ctx = ctx };
    nsm_dataset *ds = NULL;
    (void)o;
    for (int p = 0; p < NSM_SPLIT_PARTS && !nsmi_failed(ctx); p++) read_part(&g, source, p);
    if (!nsmi_failed(ctx)) ds = build(&g, source);
    nsmi_words_clear(&g.entity);
    nsmi_words_clear(&g.relation);
    for (int p = 0; p < NSM_SPLIT_PARTS; p++) free(g.triple[p]);
    if (!nsmi_failed(ctx)) return ds;
    nsm_dataset_free(ds);
    return NULL;
}
