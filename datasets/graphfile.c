/* datasets/graphfile.c - GraphML, GML, Pajek and edge lists, read by igraph.
 *
 * igraph's parsers are third parties' (libxml2, flex, bison) and keep their state in the process,
 * so they run in a child: a damaged file cannot harm the caller, and neither locale nor attribute
 * handler of the process is touched.
 *
 * Numeric and boolean attributes of the vertices become features, the one that label= names the
 * classes, a text attribute "name", "id" or "label" the nodes' names; a numeric edge attribute
 * "weight" (or weight=) the weights. */
#include "config.h"
#ifdef HAVE_IGRAPH
#include <igraph.h>
#include "datasets/words.h"

typedef igraph_error_t (*igraph_reader)(igraph_t *graph, FILE *in);

static igraph_error_t read_graphml(igraph_t *g, FILE *in)
{
    return igraph_read_graph_graphml(g, in, 0);
}
static igraph_error_t read_gml(igraph_t *g, FILE *in) { return igraph_read_graph_gml(g, in); }
static igraph_error_t read_pajek(igraph_t *g, FILE *in) { return igraph_read_graph_pajek(g, in); }
static igraph_error_t read_edgelist(igraph_t *g, FILE *in)
{
    return igraph_read_graph_edgelist(g, in, 0, true);
}

static void copy_edges(nsm_dataset *ds, const igraph_t *g, const nsmi_options *o)
{
    const char *weight = nsmi_option_text(o, "weight", "weight");
    int64_t edges = igraph_ecount(g);
    nsm_dataset_edges *e = nsm_dataset_add_edges(ds, "edge", 0, 0, edges);
    bool has = igraph_cattribute_has_attr(g, IGRAPH_ATTRIBUTE_EDGE, weight);
    if (!e) return;
    if (has) e->weight = nsm_dataset_array(ds, edges, sizeof *e->weight);
    for (int64_t k = 0; k < edges; k++) {
        e->src[k] = (int32_t)IGRAPH_FROM(g, k);
        e->dst[k] = (int32_t)IGRAPH_TO(g, k);
        if (e->weight) e->weight[k] = (float)EAN(g, weight, k);
    }
    ds->directed = nsmi_option_bool(o, "directed", igraph_is_directed(g));
    if (!ds->directed) nsmi_edges_symmetric(ds, 0);
}

/* A value of any type as a word; "" for none.  Whole numbers have no dot. */
static void word_of(const igraph_t *g, const char *name, igraph_attribute_type_t type, int64_t i,
                    char *buf, size_t room)
{
    double v = type == IGRAPH_ATTRIBUTE_NUMERIC ? VAN(g, name, i) : 0;
    if (type == IGRAPH_ATTRIBUTE_STRING) snprintf(buf, room, "%s", VAS(g, name, i));
    else if (type == IGRAPH_ATTRIBUTE_BOOLEAN) snprintf(buf, room, "%d", VAB(g, name, i));
    else if (isfinite(v)) snprintf(buf, room, "%.9g", v);
    else *buf = 0;
}

static void set_classes(nsm_dataset *ds, const igraph_t *g, const char *name,
                        igraph_attribute_type_t type)
{
    nsmi_words words = { 0 };
    int64_t n = ds->node[0].count;
    int32_t *cls = nsmi_malloc(ds->ctx, (size_t)n * sizeof *cls);
    for (int64_t i = 0; cls && i < n && !nsmi_failed(ds->ctx); i++) {
        char word[256];
        word_of(g, name, type, i, word, sizeof word);
        cls[i] = *word && strcmp(word, "-1") ? (int32_t)nsmi_words_add(ds->ctx, &words, word) : -1;
    }
    nsmi_words_to_classes(ds, &words, cls, n);
    nsmi_words_clear(&words);
}

static void set_names(nsm_dataset *ds, const igraph_t *g, const char *name)
{
    nsm_dataset_nodes *v = &ds->node[0];
    v->names = nsmi_calloc(ds->ctx, (size_t)v->count, sizeof *v->names);
    for (int64_t i = 0; v->names && i < v->count; i++)
        v->names[i] = nsm_dataset_string(ds, VAS(g, name, i));
}

static void set_features(nsm_dataset *ds, const igraph_t *g, const igraph_strvector_t *names,
                         const igraph_vector_int_t *types, const char *label)
{
    nsm_dataset_nodes *v = &ds->node[0];
    int64_t count = igraph_strvector_size(names), F = 0, at = 0;
    for (int64_t k = 0; k < count; k++)
        F += VECTOR(*types)[k] != IGRAPH_ATTRIBUTE_STRING &&
             strcmp(igraph_strvector_get(names, k), label);
    if (!F) return;
    v->dense = nsm_dataset_array(ds, v->count * F, sizeof *v->dense);
    v->features = v->dense ? F : 0;
    for (int64_t k = 0; v->dense && k < count; k++) {
        const char *name = igraph_strvector_get(names, k);
        if (VECTOR(*types)[k] == IGRAPH_ATTRIBUTE_STRING || !strcmp(name, label)) continue;
        for (int64_t i = 0; i < v->count; i++) {
            double x = VECTOR(*types)[k] == IGRAPH_ATTRIBUTE_BOOLEAN ? VAB(g, name, i)
                                                                     : VAN(g, name, i);
            if (!isfinite((float)x))
                nsm_error_set(ds->ctx, NSM_EFORMAT,
                              "vertex %lld has no finite %.60s; features=false does without",
                              (long long)i, name);
            v->dense[i * F + at] = (float)x;
        }
        at++;
    }
}

static void copy_nodes(nsm_dataset *ds, const igraph_t *g, const nsmi_options *o)
{
    const char *label = nsmi_option_text(o, "label", ""), *title = NULL;
    igraph_strvector_t none, names, more;
    igraph_vector_int_t no_types, types, more_types;
    bool found = !*label;
    igraph_strvector_init(&none, 0);
    igraph_strvector_init(&names, 0);
    igraph_strvector_init(&more, 0);
    igraph_vector_int_init(&no_types, 0);
    igraph_vector_int_init(&types, 0);
    igraph_vector_int_init(&more_types, 0);
    if (igraph_cattribute_list(g, &none, &no_types, &names, &types, &more, &more_types))
        nsm_error_set(ds->ctx, NSM_ENOMEM, "igraph: the attributes cannot be listed");
    for (int64_t k = 0; k < igraph_strvector_size(&names) && !nsmi_failed(ds->ctx); k++) {
        const char *name = igraph_strvector_get(&names, k);
        igraph_attribute_type_t type = (igraph_attribute_type_t)VECTOR(types)[k];
        if (!strcmp(name, label)) {
            found = true;
            set_classes(ds, g, name, type);
        } else if (type == IGRAPH_ATTRIBUTE_STRING &&
                   (!strcmp(name, "name") ||
                    (!title && (!strcmp(name, "id") || !strcmp(name, "label"))))) {
            title = name;
        }
    }
    if (!found) nsm_error_set(ds->ctx, NSM_EFORMAT, "the vertices have no attribute %.60s", label);
    if (title) set_names(ds, g, title);
    if (nsmi_option_bool(o, "features", true)) set_features(ds, g, &names, &types, label);
    igraph_strvector_destroy(&none);
    igraph_strvector_destroy(&names);
    igraph_strvector_destroy(&more);
    igraph_vector_int_destroy(&no_types);
    igraph_vector_int_destroy(&types);
    igraph_vector_int_destroy(&more_types);
}

static nsm_dataset *to_dataset(nsm_ctx *ctx, const char *source, const igraph_t *g,
                               const nsmi_options *o)
{
    char *name = nsmi_stem(ctx, source);
    nsm_dataset *ds = name ? nsm_dataset_new(ctx, name) : NULL;
    free(name);
    if (igraph_vcount(g) > INT32_MAX)
        nsm_error_set(ctx, NSM_EFORMAT, "%s: has too many vertices", source);
    if (ds && nsm_dataset_add_nodes(ds, "node", igraph_vcount(g))) {
        copy_nodes(ds, g, o);
        copy_edges(ds, g, o);
    }
    if (!nsmi_failed(ctx)) return ds;
    nsm_dataset_free(ds);
    return NULL;
}

/* What igraph says last, with its reason. */
static char reason[300];
static void keep_reason(const char *why, const char *file, int line, igraph_error_t code)
{
    (void)file; (void)line; (void)code;
    snprintf(reason, sizeof reason, "%s", why);
    IGRAPH_FINALLY_FREE();
}

static nsm_dataset *parse(nsm_ctx *ctx, const char *source, const nsmi_options *o,
                          igraph_reader read)
{
    igraph_t g;
    nsm_dataset *ds = NULL;
    igraph_error_t code;
    igraph_set_error_handler(keep_reason);
    igraph_set_warning_handler(igraph_warning_handler_ignore);
    igraph_set_attribute_table(&igraph_cattribute_table);
    FILE *in = fopen(source, "r");
    if (!in) {
        nsm_error_set(ctx, NSM_EIO, "%s: cannot be opened", source);
    } else if ((code = read(&g, in)) != IGRAPH_SUCCESS) {
        nsm_error_set(ctx, NSM_EFORMAT, "%s: %s", source, *reason ? reason : igraph_strerror(code));
    } else {
        ds = to_dataset(ctx, source, &g, o);
        igraph_destroy(&g);
    }
    if (in) fclose(in);
    return ds;
}

#define READER(format) \
    static nsm_dataset *parse_##format(nsm_ctx *ctx, const char *source, const nsmi_options *o) \
    { \
        return parse(ctx, source, o, read_##format); \
    } \
    nsm_dataset *nsmi_import_##format(nsm_ctx *ctx, const char *source, const nsmi_options *o) \
    { \
        return nsmi_in_child(ctx, source, o, parse_##format); \
    }
READER(graphml)
READER(gml)
READER(pajek)
READER(edgelist)
#endif
