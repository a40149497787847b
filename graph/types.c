/* graph/types.c - Types of edges, and the matrices that layers over them use.
 *
 * All is built on the host when first asked for, and kept with the graph. */
#include "config.h"
#include "graph/internal.h"

static void drop_cached(nsmi_graph_cache *c)
{
    for (int i = 0; i < 2; i++) {
        nsm_typed_free(c->typed[i]);
        c->typed[i] = NULL;
    }
    nsm_csr_free(c->by_type);
    nsm_csr_free(c->entry_type);
    nsm_tensor_free(c->type_share);
    nsm_tensor_free(c->entry_share);
    c->by_type = c->entry_type = NULL;
    c->type_share = c->entry_share = NULL;
}

void nsmi_graph_types_free(nsm_graph *g)
{
    if (g->cache) drop_cached(g->cache);
    nsm_tensor_free(g->type);
}

int nsm_graph_set_types(nsm_graph *g, int types, const int32_t *type)
{
    if (!g) return NSM_EINVAL;
    if (nsmi_failed(g->ctx)) return nsm_error(g->ctx);
    if (types <= 0)
        return nsm_error_set(g->ctx, NSM_EINVAL, "nsm_graph_set_types: %d types, want 1 or more",
                             types);
    for (int64_t k = 0; k < g->edges; k++)
        if (type[k] < 0 || type[k] >= types)
            return nsm_error_set(g->ctx, NSM_EINVAL,
                                 "nsm_graph_set_types: the type of edge %lld is %d, want 0..%d",
                                 (long long)k, type[k], types - 1);
    nsm_tensor *t = nsm_tensor_from(g->ctx, NSM_I32, 1, &g->edges, type);
    if (!t) return nsm_error(g->ctx);
    drop_cached(g->cache);
    nsm_tensor_free(g->type);
    g->type = t;
    g->types = types;
    return NSM_OK;
}

/* The edges as they were given. */
typedef struct {
    int32_t *src, *dst, *type;
} edges;

static bool get_edges(const nsm_graph *g, edges *e)
{
    size_t bytes = (size_t)g->edges * sizeof(int32_t);
    e->src = nsmi_malloc(g->ctx, bytes);
    e->dst = nsmi_malloc(g->ctx, bytes);
    e->type = nsmi_malloc(g->ctx, bytes);
    if (nsmi_failed(g->ctx)) return false;
    return nsm_graph_edges(g, e->src, e->dst) == NSM_OK &&
           nsm_tensor_get(g->type, e->type) == NSM_OK;
}

static void free_edges(edges *e)
{
    free(e->src);
    free(e->dst);
    free(e->type);
}

const nsm_typed *nsmi_graph_typed(const nsm_graph *g, bool groups)
{
    nsm_typed **slot = &g->cache->typed[groups];
    edges e = { 0 };
    if (*slot || nsmi_failed(g->ctx)) return *slot;
    if (get_edges(g, &e))
        *slot = nsm_typed_new(g->ctx, g->types, g->nodes, g->sources, g->edges, e.dst, e.src,
                              e.type, !g->csr->bwd.ptr, groups);
    free_edges(&e);
    return *slot;
}

/* 1 / how many edges of its type enter an edge's destination: in a row the types stand mixed, so
 * they are counted there and the counts taken back.  ptr: of the rows, type: of their entries. */
static nsm_tensor *shares(const nsm_graph *g, const int64_t *ptr, const int32_t *type)
{
    nsm_ctx *ctx = g->ctx;
    nsm_tensor *made = NULL;
    int32_t *count = nsmi_calloc(ctx, (size_t)g->types, sizeof *count);
    float *share = nsmi_malloc(ctx, (size_t)g->edges * sizeof *share);
    for (int64_t i = 0; count && share && i < g->nodes; i++) {
        for (int64_t e = ptr[i]; e < ptr[i + 1]; e++) count[type[e]]++;
        for (int64_t e = ptr[i]; e < ptr[i + 1]; e++) share[e] = 1.0f / (float)count[type[e]];
        for (int64_t e = ptr[i]; e < ptr[i + 1]; e++) count[type[e]] = 0;
    }
    if (count && share) made = nsm_tensor_from(ctx, NSM_F32, 1, &g->edges, share);
    free(count);
    free(share);
    return made;
}

/* Of by_type, whose columns say which type an entry has. */
static nsm_tensor *column_shares(const nsm_graph *g, const nsm_csr *m)
{
    int64_t *ptr = nsmi_host_copy(g->ctx, m->fwd.ptr, (size_t)(g->nodes + 1) * sizeof *ptr);
    int32_t *idx = nsmi_host_copy(g->ctx, m->fwd.idx, (size_t)g->edges * sizeof *idx);
    for (int64_t e = 0; idx && e < g->edges; e++) idx[e] %= g->types;
    nsm_tensor *made = ptr && idx ? shares(g, ptr, idx) : NULL;
    free(ptr);
    free(idx);
    return made;
}

const nsm_csr *nsmi_graph_by_type(const nsm_graph *g, nsm_tensor **share)
{
    nsmi_graph_cache *c = g->cache;
    nsm_ctx *ctx = g->ctx;
    edges e = { 0 };
    int64_t cols;
    if (nsmi_failed(ctx)) return NULL;
    if (!nsmi_mul(g->sources, g->types, &cols) || cols > INT32_MAX) {
        nsm_error_set(ctx, NSM_EINVAL,
                      "a graph of %lld sources and %d types: their product must be below 2^31",
                      (long long)g->sources, g->types);
        return NULL;
    }
    if (!c->by_type && get_edges(g, &e)) {
        for (int64_t k = 0; k < g->edges; k++) e.src[k] = e.src[k] * g->types + e.type[k];
        c->by_type = nsm_csr_new(ctx, g->nodes, cols, g->edges, e.dst, e.src, !g->csr->bwd.ptr);
    }
    free_edges(&e);
    if (c->by_type && !c->type_share) c->type_share = column_shares(g, c->by_type);
    *share = c->type_share;
    return nsmi_failed(ctx) ? NULL : c->by_type;
}

/* The types in csr order. */
static int32_t *entry_types(const nsm_graph *g)
{
    size_t bytes = (size_t)g->edges * sizeof(int32_t);
    int32_t *type = nsmi_malloc(g->ctx, bytes), *sorted = nsmi_malloc(g->ctx, bytes),
            *source = g->csr->source ? nsmi_host_copy(g->ctx, g->csr->source, bytes) : NULL;
    if (!nsmi_failed(g->ctx)) nsm_tensor_get(g->type, type);
    for (int64_t e = 0; !nsmi_failed(g->ctx) && e < g->edges; e++)
        sorted[e] = type[source ? source[e] : e];
    free(type);
    free(source);
    if (!nsmi_failed(g->ctx)) return sorted;
    free(sorted);
    return NULL;
}

const nsm_csr *nsmi_graph_entry_types(const nsm_graph *g, nsm_tensor **share)
{
    nsmi_graph_cache *c = g->cache;
    nsm_ctx *ctx = g->ctx;
    if (!c->entry_type && !nsmi_failed(ctx)) {
        int32_t *type = entry_types(g);
        int64_t *ptr = nsmi_host_copy(ctx, g->csr->fwd.ptr, (size_t)(g->nodes + 1) * sizeof *ptr),
                *one = nsmi_malloc(ctx, (size_t)(g->edges + 1) * sizeof *one);
        for (int64_t e = 0; one && e <= g->edges; e++) one[e] = e;
        if (type && ptr && one) c->entry_share = shares(g, ptr, type);
        if (c->entry_share)
            c->entry_type = nsm_csr_from_rows(ctx, g->edges, g->types, one, type, false);
        free(type);
        free(ptr);
        free(one);
    }
    *share = c->entry_share;
    return nsmi_failed(ctx) ? NULL : c->entry_type;
}
