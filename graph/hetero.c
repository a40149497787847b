/* graph/hetero.c - Graphs with types: a table of node types, and a bipartite graph for each
 * relation. */
#include "config.h"
#include "graph/internal.h"

nsm_hetero *nsm_hetero_new(nsm_ctx *ctx)
{
    if (nsmi_failed(ctx)) return NULL;
    nsm_hetero *h = nsmi_calloc(ctx, 1, sizeof *h);
    if (h) h->ctx = ctx;
    return h;
}

void nsm_hetero_free(nsm_hetero *h)
{
    if (!h) return;
    for (int i = 0; i < h->node_types; i++) free(h->node_type[i].name);
    for (int i = 0; i < h->relations; i++) {
        free(h->relation[i].name);
        nsm_graph_free(h->relation[i].graph);
    }
    free(h->node_type);
    free(h->relation);
    free(h);
}

int nsm_hetero_find_nodes(const nsm_hetero *h, const char *name)
{
    for (int i = 0; h && i < h->node_types; i++)
        if (!strcmp(h->node_type[i].name, name)) return i;
    return -1;
}

int nsm_hetero_find_edges(const nsm_hetero *h, const char *name)
{
    for (int i = 0; h && i < h->relations; i++)
        if (!strcmp(h->relation[i].name, name)) return i;
    return -1;
}

int nsm_hetero_add_nodes(nsm_hetero *h, const char *name, int64_t nodes)
{
    if (!h) return NSM_EINVAL;
    if (nsmi_failed(h->ctx)) return nsm_error(h->ctx);
    if (nodes < 0 || nodes > INT32_MAX || nsm_hetero_find_nodes(h, name) >= 0)
        return nsm_error_set(
            h->ctx, NSM_EINVAL,
            "nsm_hetero_add_nodes: the type %s exists, or its %lld nodes are not 0..2^31-1", name,
            (long long)nodes);
    nsm_node_type *more = nsmi_realloc(h->ctx, h->node_type, (size_t)h->node_types + 1,
                                       sizeof *more);
    if (!more) return nsm_error(h->ctx);
    h->node_type = more;
    char *copy = nsmi_strdup(h->ctx, name);
    if (!copy) return nsm_error(h->ctx);
    h->node_type[h->node_types] = (nsm_node_type){ copy, nodes };
    return h->node_types++;
}

int nsm_hetero_add_edges(nsm_hetero *h, const char *name, int src_type, int dst_type, int64_t edges,
                         const int32_t *src, const int32_t *dst)
{
    if (!h) return NSM_EINVAL;
    if (nsmi_failed(h->ctx)) return nsm_error(h->ctx);
    bool known = src_type >= 0 && src_type < h->node_types && dst_type >= 0 &&
                 dst_type < h->node_types;
    if (!known || nsm_hetero_find_edges(h, name) >= 0)
        return nsm_error_set(
            h->ctx, NSM_EINVAL,
            "nsm_hetero_add_edges: the relation %s exists, or its node types %d and %d do not",
            name, src_type, dst_type);
    nsm_relation *more = nsmi_realloc(h->ctx, h->relation, (size_t)h->relations + 1, sizeof *more);
    if (!more) return nsm_error(h->ctx);
    h->relation = more;
    nsm_graph *g = nsm_graph_bipartite(h->ctx, h->node_type[src_type].nodes,
                                       h->node_type[dst_type].nodes, edges, src, dst);
    char *copy = g ? nsmi_strdup(h->ctx, name) : NULL;
    if (!copy) {
        nsm_graph_free(g);
        return nsm_error(h->ctx);
    }
    h->relation[h->relations] = (nsm_relation){ copy, src_type, dst_type, g };
    return h->relations++;
}

nsm_graph *nsm_hetero_flat(const nsm_hetero *h)
{
    if (!h || nsmi_failed(h->ctx)) return NULL;
    int64_t nodes = 0, edges = 0, at = 0;
    int64_t *offset = nsmi_malloc(h->ctx, (size_t)(h->node_types + 1) * sizeof *offset);
    for (int i = 0; offset && i < h->node_types; i++) {
        offset[i] = nodes;
        nodes += h->node_type[i].nodes;
    }
    for (int i = 0; i < h->relations; i++) edges += h->relation[i].graph->edges;
    if (nodes > INT32_MAX || edges > INT32_MAX)
        nsm_error_set(h->ctx, NSM_EINVAL,
                      "nsm_hetero_flat: %lld nodes and %lld edges, want fewer than 2^31",
                      (long long)nodes, (long long)edges);
    int32_t *src = nsmi_failed(h->ctx) ? NULL : nsmi_malloc(h->ctx, (size_t)edges * sizeof *src);
    int32_t *dst = src ? nsmi_malloc(h->ctx, (size_t)edges * sizeof *dst) : NULL;
    int32_t *type = dst ? nsmi_malloc(h->ctx, (size_t)edges * sizeof *type) : NULL;
    for (int i = 0; type && i < h->relations; i++) {
        const nsm_relation *r = &h->relation[i];
        if (nsm_graph_edges(r->graph, src + at, dst + at)) break;
        for (int64_t k = at; k < at + r->graph->edges; k++) {
            src[k] += (int32_t)offset[r->src];
            dst[k] += (int32_t)offset[r->dst];
            type[k] = i;
        }
        at += r->graph->edges;
    }
    nsm_graph *g = nsmi_failed(h->ctx) ? NULL : nsm_graph_new(h->ctx, nodes, edges, src, dst);
    if (g && h->relations) nsm_graph_set_types(g, h->relations, type);
    free(offset);
    free(src);
    free(dst);
    free(type);
    if (!nsmi_failed(h->ctx)) return g;
    nsm_graph_free(g);
    return NULL;
}
