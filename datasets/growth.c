/* datasets/growth.c - Barabasi-Albert and Erdos-Renyi graphs, drawn by igraph.
 *
 * igraph draws from one generator of the process; ours is put in its place for the call, under a
 * lock, and the former put back. */
#include "config.h"
#ifdef HAVE_IGRAPH
#include <igraph.h>
#include <pthread.h>
#include "datasets/planted.h"

static pthread_mutex_t library = PTHREAD_MUTEX_INITIALIZER;

static igraph_error_t draw(igraph_t *graph, const char *kind, const nsmi_options *o)
{
    igraph_integer_t n = nsmi_option_int(o, "nodes", 1, INT32_MAX, 1000);
    if (!strcmp(kind, "ba")) {
        igraph_integer_t m = nsmi_option_int(o, "m", 1, 100000, 4);
        double power = nsmi_option_float(o, "power", 0, 10, 1);
        if (nsmi_failed(o->ctx)) return IGRAPH_FAILURE;
        return igraph_barabasi_game(graph, n, power, m, NULL, true, 1, IGRAPH_UNDIRECTED,
                                    IGRAPH_BARABASI_PSUMTREE, NULL);
    }
    igraph_integer_t m = nsmi_option_int(o, "edges", 0, (int64_t)1 << 33, 5000);
    bool directed = nsmi_option_bool(o, "directed", false);
    if (nsmi_failed(o->ctx)) return IGRAPH_FAILURE;
    return igraph_erdos_renyi_game_gnm(graph, n, m, directed, IGRAPH_NO_LOOPS);
}

static nsm_dataset *from_graph(nsm_ctx *ctx, const char *kind, const igraph_t *graph)
{
    int64_t edges = igraph_ecount(graph);
    nsm_dataset *ds = nsmi_planted_new(ctx, kind, igraph_vcount(graph), 0);
    nsm_dataset_edges *e = ds ? nsm_dataset_add_edges(ds, "edge", 0, 0, edges) : NULL;
    if (!e) return ds;
    ds->directed = igraph_is_directed(graph);
    for (int64_t k = 0; k < edges; k++) {
        e->src[k] = (int32_t)IGRAPH_FROM(graph, k);
        e->dst[k] = (int32_t)IGRAPH_TO(graph, k);
    }
    if (!ds->directed) nsmi_edges_symmetric(ds, 0);
    return ds;
}

nsm_dataset *nsmi_generate_igraph(nsm_ctx *ctx, const char *kind, const nsmi_options *o)
{
    igraph_t graph;
    igraph_rng_t rng, *before;
    nsm_dataset *ds = NULL;
    uint64_t seed = (uint64_t)nsmi_option_int(o, "seed", 0, INT64_MAX, 0);
    pthread_mutex_lock(&library);
    igraph_error_handler_t *handler = igraph_set_error_handler(igraph_error_handler_ignore);
    igraph_error_t code = igraph_rng_init(&rng, &igraph_rngtype_mt19937);
    if (code == IGRAPH_SUCCESS) {
        before = igraph_rng_default();
        igraph_rng_seed(&rng, seed);
        igraph_rng_set_default(&rng);
        code = draw(&graph, kind, o);
        igraph_rng_set_default(before);
        igraph_rng_destroy(&rng);
    }
    if (code == IGRAPH_SUCCESS) {
        ds = from_graph(ctx, kind, &graph);
        igraph_destroy(&graph);
    } else {
        nsm_error_set(ctx, code == IGRAPH_ENOMEM ? NSM_ENOMEM : NSM_EINVAL, "%s: igraph: %s",
                      o->who, igraph_strerror(code));
    }
    igraph_set_error_handler(handler);
    pthread_mutex_unlock(&library);
    if (!nsmi_failed(ctx)) return ds;
    nsm_dataset_free(ds);
    return NULL;
}
#endif
