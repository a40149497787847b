/* graph/graph.c - Making graphs, and the edges of many as the edges of one. */
#include "config.h"
#include "graph/internal.h"

static nsm_graph *wrap(nsm_ctx *ctx, nsm_csr *csr)
{
    nsm_graph *g = csr ? nsmi_calloc(ctx, 1, sizeof *g) : NULL;
    if (!g) {
        nsm_csr_free(csr);
        return NULL;
    }
    g->ctx = ctx;
    g->nodes = csr->rows;
    g->sources = csr->cols;
    g->edges = csr->nnz;
    g->graphs = 1;
    g->csr = csr;
    g->cache = nsmi_calloc(ctx, 1, sizeof *g->cache);
    if (g->cache) return g;
    nsm_graph_free(g);
    return NULL;
}

static bool ends_ok(nsm_ctx *ctx, const char *who, int64_t edges, const int32_t *end, int64_t limit,
                    const char *what)
{
    for (int64_t k = 0; k < edges; k++)
        if (end[k] < 0 || end[k] >= limit) {
            nsm_error_set(ctx, NSM_EINVAL, "%s: the %s of edge %lld is node %d, want 0..%lld", who,
                          what, (long long)k, end[k], (long long)limit - 1);
            return false;
        }
    return true;
}

nsm_graph *nsm_graph_bipartite(nsm_ctx *ctx, int64_t sources, int64_t nodes, int64_t edges,
                               const int32_t *src, const int32_t *dst)
{
    if (nsmi_failed(ctx)) return NULL;
    if (!ends_ok(ctx, "nsm_graph_new", edges, src, sources, "source")) return NULL;
    if (!ends_ok(ctx, "nsm_graph_new", edges, dst, nodes, "destination")) return NULL;
    return wrap(ctx, nsm_csr_new(ctx, nodes, sources, edges, dst, src, false));
}

nsm_graph *nsm_graph_new(nsm_ctx *ctx, int64_t nodes, int64_t edges, const int32_t *src,
                         const int32_t *dst)
{
    return nsm_graph_bipartite(ctx, nodes, nodes, edges, src, dst);
}

nsm_graph *nsm_graph_from_rows(nsm_ctx *ctx, int64_t sources, int64_t nodes, const int64_t *ptr,
                               const int32_t *idx, bool without_transpose)
{
    if (nsmi_failed(ctx)) return NULL;
    return wrap(ctx, nsm_csr_from_rows(ctx, nodes, sources, ptr, idx, without_transpose));
}

void nsm_graph_free(nsm_graph *g)
{
    if (!g) return;
    nsmi_graph_types_free(g);
    nsmi_graph_cache_free(g);
    nsm_tensor_free(g->weight);
    nsm_tensor_free(g->feature);
    nsm_csr_free(g->member);
    nsm_tensor_free(g->graph_of);
    nsm_tensor_free(g->member_node);
    nsm_csr_free(g->csr);
    free(g);
}

/* ---- weights and features ---- */
static int set_values(nsm_graph *g, const char *who, nsm_tensor **slot, int rank, int64_t k,
                      const float *host)
{
    if (!g) return NSM_EINVAL;
    if (nsmi_failed(g->ctx)) return nsm_error(g->ctx);
    if (k <= 0)
        return nsm_error_set(g->ctx, NSM_EINVAL, "%s: %lld values an edge, want 1 or more", who,
                             (long long)k);
    for (int64_t i = 0; i < g->edges * k; i++)
        if (!isfinite(host[i]))
            return nsm_error_set(g->ctx, NSM_EINVAL, "%s: a value of edge %lld is not finite", who,
                                 (long long)(i / k));
    nsm_tensor *t = nsm_tensor_from(g->ctx, NSM_F32, rank, (int64_t[]){ g->edges, k }, host);
    if (!t) return nsm_error(g->ctx);
    nsm_tensor_free(*slot);
    *slot = t;
    for (int i = 0; i < 8; i++) { /* normalisations of the old weights */
        nsm_tensor_free(g->cache->gcn[i]);
        g->cache->gcn[i] = NULL;
    }
    return NSM_OK;
}

int nsm_graph_set_weights(nsm_graph *g, const float *weight)
{
    return set_values(g, "nsm_graph_set_weights", g ? &g->weight : NULL, 1, 1, weight);
}

int nsm_graph_set_features(nsm_graph *g, int64_t k, const float *feature)
{
    return set_values(g, "nsm_graph_set_features", g ? &g->feature : NULL, 2, k, feature);
}

/* ---- looking at the edges ---- */
int nsm_graph_edges(const nsm_graph *g, int32_t *src, int32_t *dst)
{
    if (!g) return NSM_EINVAL;
    nsm_ctx *ctx = g->ctx;
    if (nsmi_failed(ctx)) return nsm_error(ctx);
    size_t bytes = (size_t)g->edges * sizeof(int32_t);
    int64_t *ptr = nsmi_host_copy(ctx, g->csr->fwd.ptr, (size_t)(g->nodes + 1) * sizeof *ptr);
    int32_t *idx = nsmi_host_copy(ctx, g->csr->fwd.idx, bytes);
    int32_t *from = g->csr->source ? nsmi_host_copy(ctx, g->csr->source, bytes) : NULL;
    if (!nsmi_failed(ctx))
        for (int64_t r = 0; r < g->nodes; r++)
            for (int64_t e = ptr[r]; e < ptr[r + 1]; e++) {
                int64_t k = from ? from[e] : e;
                src[k] = idx[e];
                dst[k] = (int32_t)r;
            }
    free(ptr);
    free(idx);
    free(from);
    return nsm_error(ctx);
}

int nsm_graph_degrees(const nsm_graph *g, int64_t *degree)
{
    if (!g) return NSM_EINVAL;
    int64_t *ptr = nsmi_failed(g->ctx) ? NULL
                                       : nsmi_host_copy(g->ctx, g->csr->fwd.ptr,
                                                        (size_t)(g->nodes + 1) * sizeof *ptr);
    for (int64_t r = 0; ptr && r < g->nodes; r++) degree[r] = ptr[r + 1] - ptr[r];
    free(ptr);
    return nsm_error(g->ctx);
}

/* ---- both directions ---- */
void nsm_edges_free(nsm_edges *edges)
{
    if (!edges) return;
    free(edges->src);
    free(edges->dst);
    free(edges->from);
    *edges = (nsm_edges){ 0 };
}

/* Drop what repeats: sort into rows, then keep the first of each run.  The order becomes that of
 * rows. */
static bool merge_edges(nsm_ctx *ctx, int64_t nodes, nsm_edges *all)
{
    nsm_csr *m = nsm_csr_new(ctx, nodes, nodes, all->count, all->dst, all->src, true);
    size_t bytes = (size_t)all->count * sizeof(int32_t);
    int64_t *ptr = m ? nsmi_host_copy(ctx, m->fwd.ptr, (size_t)(nodes + 1) * sizeof *ptr) : NULL;
    int32_t *idx = m ? nsmi_host_copy(ctx, m->fwd.idx, bytes) : NULL;
    int32_t *order = m ? nsmi_host_copy(ctx, m->source, bytes) : NULL;
    int32_t *from = nsmi_malloc(ctx, bytes);
    bool ok = ptr && idx && order && from;
    int64_t kept = 0;
    for (int64_t r = 0; ok && r < nodes; r++)
        for (int64_t e = ptr[r]; e < ptr[r + 1]; e++) {
            if (e > ptr[r] && idx[e] == idx[e - 1]) continue;
            all->src[kept] = idx[e];
            all->dst[kept] = (int32_t)r;
            from[kept++] = all->from[order[e]];
        }
    if (ok) {
        memcpy(all->from, from, (size_t)kept * sizeof *from);
        all->count = kept;
    }
    free(ptr);
    free(idx);
    free(order);
    free(from);
    nsm_csr_free(m);
    return ok;
}

int nsm_edges_symmetric(nsm_ctx *ctx, int64_t nodes, int64_t edges, const int32_t *src,
                        const int32_t *dst, bool merge, nsm_edges *out)
{
    *out = (nsm_edges){ 0 };
    if (nsmi_failed(ctx)) return nsm_error(ctx);
    if (edges > INT32_MAX / 2)
        return nsm_error_set(ctx, NSM_EINVAL, "nsm_edges_symmetric: %lld edges, want at most 2^30",
                             (long long)edges);
    if (!ends_ok(ctx, "nsm_edges_symmetric", edges, src, nodes, "source") ||
        !ends_ok(ctx, "nsm_edges_symmetric", edges, dst, nodes, "destination"))
        return nsm_error(ctx);
    size_t bytes = (size_t)edges * 2 * sizeof(int32_t);
    out->src = nsmi_malloc(ctx, bytes);
    out->dst = nsmi_malloc(ctx, bytes);
    out->from = nsmi_malloc(ctx, bytes);
    for (int64_t k = 0; !nsmi_failed(ctx) && k < edges; k++)
        for (int way = 0; way < (src[k] == dst[k] ? 1 : 2); way++) {
            out->src[out->count] = way ? dst[k] : src[k];
            out->dst[out->count] = way ? src[k] : dst[k];
            out->from[out->count++] = (int32_t)k;
        }
    if (!nsmi_failed(ctx) && merge) merge_edges(ctx, nodes, out);
    if (nsmi_failed(ctx)) nsm_edges_free(out);
    return nsm_error(ctx);
}

int nsm_edges_inverse(nsm_ctx *ctx, int64_t nodes, int64_t edges, const int32_t *src,
                      const int32_t *dst, int types, const int32_t *type, nsm_edges *out,
                      int32_t *out_type)
{
    *out = (nsm_edges){ 0 };
    if (nsmi_failed(ctx)) return nsm_error(ctx);
    if (edges > INT32_MAX / 2 || types > INT32_MAX / 2)
        return nsm_error_set(ctx, NSM_EINVAL,
                             "nsm_edges_inverse: %lld edges of %d types, want at most 2^30",
                             (long long)edges, types);
    if (!ends_ok(ctx, "nsm_edges_inverse", edges, src, nodes, "source") ||
        !ends_ok(ctx, "nsm_edges_inverse", edges, dst, nodes, "destination"))
        return nsm_error(ctx);
    size_t bytes = (size_t)edges * 2 * sizeof(int32_t);
    out->src = nsmi_malloc(ctx, bytes);
    out->dst = nsmi_malloc(ctx, bytes);
    out->from = nsmi_malloc(ctx, bytes);
    for (int64_t k = 0; !nsmi_failed(ctx) && k < 2 * edges; k++) {
        int64_t e = k % edges;
        bool turned = k >= edges;
        out->src[k] = turned ? dst[e] : src[e];
        out->dst[k] = turned ? src[e] : dst[e];
        out->from[k] = (int32_t)e;
        out_type[k] = type[e] + (turned ? types : 0);
    }
    if (nsmi_failed(ctx)) nsm_edges_free(out);
    else out->count = 2 * edges;
    return nsm_error(ctx);
}

/* ---- batches ---- */
int nsm_graph_set_members(nsm_graph *g, int64_t graphs, const int32_t *graph_of_node)
{
    if (!g) return NSM_EINVAL;
    nsm_ctx *ctx = g->ctx;
    if (nsmi_failed(ctx)) return nsm_error(ctx);
    for (int64_t i = 0; i < g->nodes; i++)
        if (graph_of_node[i] < 0 || graph_of_node[i] >= graphs)
            return nsm_error_set(
                ctx, NSM_EINVAL,
                "nsm_graph_set_members: the graph of node %lld is %d, want 0..%lld", (long long)i,
                graph_of_node[i], (long long)graphs - 1);
    int32_t *node = nsmi_malloc(ctx, (size_t)g->nodes * sizeof *node);
    if (!node) return nsm_error(ctx);
    for (int64_t i = 0; i < g->nodes; i++) node[i] = (int32_t)i;
    nsm_csr *member = nsm_csr_new(ctx, graphs, g->nodes, g->nodes, graph_of_node, node, false);
    nsm_tensor *of = nsm_tensor_from(ctx, NSM_I32, 1, &g->nodes, graph_of_node);
    nsm_tensor *order = nsm_tensor_new(ctx, NSM_I32, 1, &g->nodes);
    free(node);
    if (nsmi_failed(ctx)) {
        nsm_csr_free(member);
        nsm_tensor_free(of);
        nsm_tensor_free(order);
        return nsm_error(ctx);
    }
    ctx->dev.be->copy(&ctx->dev, (size_t)g->nodes * sizeof(int32_t), member->fwd.idx, order->data);
    nsm_csr_free(g->member);
    nsm_tensor_free(g->graph_of);
    nsm_tensor_free(g->member_node);
    g->member = member;
    g->graph_of = of;
    g->member_node = order;
    g->graphs = graphs;
    return NSM_OK;
}

typedef struct {
    int32_t *src, *dst, *type, *graph_of_node;
    float *weight, *feature;
    int64_t nodes, edges, k;
} joined;

/* Edges and their values of graph number `which`, after those before it. */
static void append(joined *j, const nsm_graph *g, int64_t which)
{
    int32_t *src = j->src + j->edges, *dst = j->dst + j->edges;
    nsm_graph_edges(g, src, dst);
    for (int64_t k = 0; k < g->edges; k++) {
        src[k] += (int32_t)j->nodes;
        dst[k] += (int32_t)j->nodes;
    }
    for (int64_t i = 0; i < g->nodes; i++) j->graph_of_node[j->nodes + i] = (int32_t)which;
    if (j->weight) nsm_tensor_get(g->weight, j->weight + j->edges);
    if (j->feature) nsm_tensor_get(g->feature, j->feature + j->edges * j->k);
    if (j->type) nsm_tensor_get(g->type, j->type + j->edges);
    j->nodes += g->nodes;
    j->edges += g->edges;
}

/* Sizes of all; false with an error where they cannot stand in one batch. */
static bool batch_sizes(nsm_ctx *ctx, int64_t count, nsm_graph *const *graph, int64_t *nodes,
                        int64_t *edges)
{
    const nsm_graph *first = count ? graph[0] : NULL;
    *nodes = *edges = 0;
    for (int64_t i = 0; i < count; i++) {
        const nsm_graph *g = graph[i];
        if (!g || g->sources != g->nodes)
            nsm_error_set(ctx, NSM_EINVAL, "nsm_graph_batch: graph %lld is NULL or bipartite",
                          (long long)i);
        else if (!g->weight != !first->weight || !g->feature != !first->feature ||
                 (g->feature && g->feature->dim[1] != first->feature->dim[1]) ||
                 g->types != first->types)
            nsm_error_set(ctx, NSM_EINVAL,
                          "nsm_graph_batch: graph %lld has other edge weights, features or types "
                          "than graph 0",
                          (long long)i);
        if (nsmi_failed(ctx)) return false;
        *nodes += g->nodes;
        *edges += g->edges;
    }
    if (*nodes > INT32_MAX || *edges > INT32_MAX)
        nsm_error_set(ctx, NSM_EINVAL,
                      "nsm_graph_batch: %lld nodes and %lld edges, want fewer than 2^31",
                      (long long)*nodes, (long long)*edges);
    return !nsmi_failed(ctx);
}

nsm_graph *nsm_graph_batch(nsm_ctx *ctx, int64_t count, nsm_graph *const *graph)
{
    int64_t nodes, edges;
    if (nsmi_failed(ctx) || !batch_sizes(ctx, count, graph, &nodes, &edges)) return NULL;
    joined j = { 0 };
    nsm_graph *g = NULL;
    bool weighted = count && graph[0]->weight, featured = count && graph[0]->feature,
         typed = count && graph[0]->type;
    j.k = featured ? graph[0]->feature->dim[1] : 0;
    j.src = nsmi_malloc(ctx, (size_t)edges * sizeof *j.src);
    j.dst = nsmi_malloc(ctx, (size_t)edges * sizeof *j.dst);
    j.graph_of_node = nsmi_malloc(ctx, (size_t)nodes * sizeof *j.graph_of_node);
    if (weighted) j.weight = nsmi_malloc(ctx, (size_t)edges * sizeof *j.weight);
    if (featured) j.feature = nsmi_malloc(ctx, (size_t)(edges * j.k) * sizeof *j.feature);
    if (typed) j.type = nsmi_malloc(ctx, (size_t)edges * sizeof *j.type);
    for (int64_t i = 0; !nsmi_failed(ctx) && i < count; i++) append(&j, graph[i], i);
    if (!nsmi_failed(ctx)) g = nsm_graph_new(ctx, nodes, edges, j.src, j.dst);
    if (g) nsm_graph_set_members(g, count, j.graph_of_node);
    if (g && weighted) nsm_graph_set_weights(g, j.weight);
    if (g && featured) nsm_graph_set_features(g, j.k, j.feature);
    if (g && typed) nsm_graph_set_types(g, graph[0]->types, j.type);
    free(j.src);
    free(j.dst);
    free(j.graph_of_node);
    free(j.weight);
    free(j.feature);
    free(j.type);
    if (!nsmi_failed(ctx)) return g;
    nsm_graph_free(g);
    return NULL;
}
