/* graph/igraph.c - See nsm-igraph.h.  igraph aborts on errors unless told otherwise: each call
 * here is made with its handler that returns the code. */
#include "config.h"
#include "graph/internal.h"
#include "nsm-igraph.h"

static bool fits(nsm_ctx *ctx, igraph_integer_t nodes, igraph_integer_t edges,
                 const igraph_vector_t *weight)
{
    if (nodes <= INT32_MAX && edges <= INT32_MAX / 2 &&
        (!weight || igraph_vector_size(weight) == edges))
        return true;
    nsm_error_set(ctx, NSM_EINVAL,
                  "nsm_graph_from_igraph: %lld nodes, %lld edges, %lld weights; want fewer than "
                  "2^31 nodes and "
                  "2^30 edges, and a weight each",
                  (long long)nodes, (long long)edges,
                  (long long)(weight ? igraph_vector_size(weight) : edges));
    return false;
}

nsm_graph *nsm_graph_from_igraph(nsm_ctx *ctx, const igraph_t *from, const igraph_vector_t *weight)
{
    if (nsmi_failed(ctx)) return NULL;
    igraph_integer_t nodes = igraph_vcount(from), edges = igraph_ecount(from);
    bool both = !igraph_is_directed(from);
    if (!fits(ctx, nodes, edges, weight)) return NULL;
    size_t room = (size_t)edges * (both ? 2 : 1);
    int32_t *src = nsmi_malloc(ctx, room * sizeof *src),
            *dst = nsmi_malloc(ctx, room * sizeof *dst);
    float *w = weight ? nsmi_malloc(ctx, room * sizeof *w) : NULL;
    nsm_graph *g = NULL;
    int64_t at = 0;
    for (igraph_integer_t k = 0; !nsmi_failed(ctx) && k < edges; k++) {
        int32_t a = (int32_t)IGRAPH_FROM(from, k), b = (int32_t)IGRAPH_TO(from, k);
        for (int way = 0; way < (both && a != b ? 2 : 1); way++) {
            src[at] = way ? b : a;
            dst[at] = way ? a : b;
            if (w) w[at] = (float)VECTOR(*weight)[k];
            at++;
        }
    }
    if (!nsmi_failed(ctx)) g = nsm_graph_new(ctx, nodes, at, src, dst);
    if (g && w) nsm_graph_set_weights(g, w);
    free(src);
    free(dst);
    free(w);
    if (!nsmi_failed(ctx)) return g;
    nsm_graph_free(g);
    return NULL;
}

static int build(const int32_t *src, const int32_t *dst, int64_t nodes, int64_t edges, igraph_t *to)
{
    igraph_vector_int_t ends;
    igraph_error_handler_t *before = igraph_set_error_handler(igraph_error_handler_ignore);
    int code = igraph_vector_int_init(&ends, 2 * edges);
    if (code == IGRAPH_SUCCESS) {
        for (int64_t k = 0; k < edges; k++) {
            VECTOR(ends)[2 * k] = src[k];
            VECTOR(ends)[2 * k + 1] = dst[k];
        }
        code = igraph_create(to, &ends, nodes, IGRAPH_DIRECTED);
        igraph_vector_int_destroy(&ends);
    }
    igraph_set_error_handler(before);
    return code;
}

int nsm_graph_to_igraph(const nsm_graph *g, igraph_t *to)
{
    if (!g) return NSM_EINVAL;
    nsm_ctx *ctx = g->ctx;
    if (nsmi_failed(ctx)) return nsm_error(ctx);
    int64_t first = g->sources == g->nodes ? 0 : g->nodes; /* number of source 0 */
    int32_t *src = nsmi_malloc(ctx, (size_t)g->edges * sizeof *src),
            *dst = nsmi_malloc(ctx, (size_t)g->edges * sizeof *dst);
    if (src && dst && nsm_graph_edges(g, src, dst) == NSM_OK) {
        for (int64_t k = 0; k < g->edges; k++) src[k] += (int32_t)first;
        int code = build(src, dst, first ? first + g->sources : g->nodes, g->edges, to);
        if (code)
            nsm_error_set(ctx, NSM_ENOMEM, "nsm_graph_to_igraph: igraph says %s",
                          igraph_strerror((igraph_error_t)code));
    }
    free(src);
    free(dst);
    return nsm_error(ctx);
}
