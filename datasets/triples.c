/* datasets/triples.c - Knowledge graphs as files of triples: train.txt, valid.txt, test.txt, lines
 * "head<TAB>relation<TAB>tail", each perhaps .gz.
 *
 * Entities are nodes, in the order of their coming; each relation is a type of edges, which holds
 * the training triples; links hold the triples of all three parts.  A triple that repeats within
 * a part stays as often as it stands there.
 *
 * text= names a file of lines "entity<TAB>words", as KG-BERT's entity2text.txt has them.  The words
 * become the entities' text, and their features, a bag of words, so that a graph's encoder sees
 * what stands around.  An entity without a line has no text; a line of an entity that no triple
 * names is passed over; both are counted in the description. */
#include "config.h"
#include "datasets/words.h"

typedef struct {
    nsm_ctx *ctx;
    nsmi_words entity, relation;
    int64_t count[NSM_SPLIT_PARTS], room[NSM_SPLIT_PARTS];
    int32_t (*triple[NSM_SPLIT_PARTS])[3]; /* head, relation, tail */
    char **said;                           /* [entities] its words, NULL: none; NULL: no text= */
    int64_t told, strangers;               /* entities that have words; lines of no entity */
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

/* ---- texts ---- */
static void read_text_line(graph *g, nsmi_text *t, char *line)
{
    char *tab = strchr(line, '\t');
    if (!tab || tab == line) {
        nsmi_text_error(t, "is not an entity and its words with a tab between them");
        return;
    }
    *tab = 0;
    int64_t i = nsmi_words_find(&g->entity, line);
    if (i < 0) {
        g->strangers++;
        return;
    }
    if (g->said[i]) nsmi_text_error(t, "the entity %.60s has a text already", line);
    else g->told += (g->said[i] = nsmi_strdup(g->ctx, tab + 1)) != NULL;
}

static void read_texts(graph *g, const char *path)
{
    nsmi_text *t = nsmi_text_open(g->ctx, path);
    g->said = t ? nsmi_calloc(g->ctx, (size_t)g->entity.count + 1, sizeof *g->said) : NULL;
    for (char *line; g->said && !nsmi_failed(g->ctx) && (line = nsmi_text_line(t));)
        if (*line) read_text_line(g, t, line);
    nsmi_text_close(t);
    if (!nsmi_failed(g->ctx) && !g->told)
        nsm_error_set(g->ctx, NSM_EFORMAT, "%s: no line is of an entity that the triples name",
                      path);
}

typedef struct {
    nsm_ctx *ctx;
    nsmi_texts texts;
} written;

static void add_word(void *user, const char *word)
{
    written *w = user;
    nsmi_texts_word(w->ctx, &w->texts, word);
}

static void add_texts(graph *g, nsm_dataset *ds, int64_t least)
{
    written w = { .ctx = g->ctx };
    nsm_dataset_nodes *v = ds->node;
    for (int64_t i = 0; i < v->count && !nsmi_failed(g->ctx); i++) {
        const char *s = g->said[i];
        if (s) nsmi_words_each(s, s + strlen(s), add_word, &w);
        nsmi_texts_end(g->ctx, &w.texts);
    }
    if (!nsmi_failed(g->ctx) && !nsmi_texts_to_nodes(ds, &w.texts, least, v))
        nsmi_texts_to_features(ds, v);
    nsmi_texts_clear(&w.texts);
    char *about = nsmi_format(g->ctx, "%lld of %lld entities have a text; %lld texts are of none",
                              (long long)g->told, (long long)v->count, (long long)g->strangers);
    nsm_dataset_release(ds->description);
    ds->description = about;
}

/* ---- the dataset ---- */
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

static nsm_dataset *build(graph *g, const char *source, int64_t least)
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
    if (g->said) add_texts(g, ds, least);
    if (!nsmi_failed(g->ctx)) add_edges(g, ds);
    if (!nsmi_failed(g->ctx)) add_links(g, ds);
    return ds;
}

nsm_dataset *nsmi_import_triples(nsm_ctx *ctx, const char *source, const nsmi_options *o)
{
    graph g = { .ctx = ctx };
    nsm_dataset *ds = NULL;
    const char *text = nsmi_option_text(o, "text", "");
    int64_t least = nsmi_option_int(o, "least", 1, INT32_MAX, 1), entities = 0;
    for (int p = 0; p < NSM_SPLIT_PARTS && !nsmi_failed(ctx); p++) read_part(&g, source, p);
    entities = g.entity.count;
    if (!nsmi_failed(ctx) && *text) read_texts(&g, text);
    if (!nsmi_failed(ctx)) ds = build(&g, source, least);
    nsmi_h5_free_strings(g.said, entities);
    nsmi_words_clear(&g.entity);
    nsmi_words_clear(&g.relation);
    for (int p = 0; p < NSM_SPLIT_PARTS; p++) free(g.triple[p]);
    if (!nsmi_failed(ctx)) return ds;
    nsm_dataset_free(ds);
    return NULL;
}
