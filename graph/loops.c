/* graph/loops.c - What layers derive from a graph: self loops, values in csr order, GCN's weights.
 *
 * Both of PyTorch Geometric's rules lead to the same edges: the loops of the list are taken out,
 * then every node gets one.  They differ in what the new loop carries: GCN's weighs what the
 * node's own (last) loop did, else 1 (improved: 2); GAT's has the mean features of the edges that
 * enter the node.  Each is a linear map from the caller's edges, kept as a sparse matrix, so values
 * and gradients pass by nsm_spmm like everything else.
 *
 * All is built on the host, once a graph. */
#include "config.h"
#include <float.h>
#include "graph/internal.h"

void nsmi_graph_cache_free(nsm_graph *g)
{
    nsmi_graph_cache *c = g->cache;
    if (!c) return;
    nsm_csr_free(c->loops);
    nsm_csr_free(c->order);
    nsm_csr_free(c->fill_mean);
    nsm_csr_free(c->keep_loops);
    nsm_tensor_free(c->fill_values);
    for (int i = 0; i < 2; i++) nsm_tensor_free(c->fill_one[i]);
    for (int i = 0; i < 8; i++) nsm_tensor_free(c->gcn[i]);
    free(c->origin);
    free(c);
}

/* A part's arrays on the host. */
typedef struct { int64_t *ptr; int32_t *idx, *source; } rows;

static bool get_rows(const nsm_csr *m, rows *r)
{
    nsm_ctx *ctx = m->ctx;
    r->ptr = nsmi_host_copy(ctx, m->fwd.ptr, (size_t)(m->rows + 1) * sizeof *r->ptr);
    r->idx = nsmi_host_copy(ctx, m->fwd.idx, (size_t)m->nnz * sizeof *r->idx);
    r->source = nsmi_malloc(ctx, (size_t)m->nnz * sizeof *r->source);
    if (r->source && m->source)
        ctx->dev.be->to_host(&ctx->dev, (size_t)m->nnz * sizeof *r->source, m->source, r->source);
    for (int64_t e = 0; r->source && !m->source && e < m->nnz; e++) r->source[e] = (int32_t)e;
    return !nsmi_failed(ctx);
}

static void free_rows(rows *r)
{
    free(r->ptr);
    free(r->idx);
    free(r->source);
}

/* ---- the graph with one loop a node ---- */
static bool build_loops(const nsm_graph *g, const rows *r)
{
    nsmi_graph_cache *c = g->cache;
    nsm_ctx *ctx = g->ctx;
    int64_t *ptr = nsmi_malloc(ctx, (size_t)(g->nodes + 1) * sizeof *ptr);
    int32_t *idx = nsmi_malloc(ctx, (size_t)(g->edges + g->nodes) * sizeof *idx);
    int32_t *origin = nsmi_malloc(ctx, (size_t)(g->edges + g->nodes) * sizeof *origin);
    int64_t at = 0;
    bool ok = ptr && idx && origin;
    for (int64_t i = 0; ok && i < g->nodes; i++) {
        bool placed = false;
        ptr[i] = at;
        for (int64_t e = r->ptr[i]; e <= r->ptr[i + 1]; e++) {
            bool end = e == r->ptr[i + 1];
            /* columns ascend: the loop has its place here */
            if (!placed && (end || r->idx[e] >= i)) {
                idx[at] = (int32_t)i;
                origin[at++] = -1;
                placed = true;
            }
            if (end || r->idx[e] == i) continue;
            idx[at] = r->idx[e];
            origin[at++] = r->source[e];
        }
    }
    if (ok) {
        ptr[g->nodes] = at;
        c->loops = nsm_csr_from_rows(ctx, g->nodes, g->sources, ptr, idx, !g->csr->bwd.ptr);
    }
    if (c->loops) c->origin = origin;
    else free(origin);
    free(ptr);
    free(idx);
    return c->loops != NULL;
}

const nsm_csr *nsmi_graph_loops(const nsm_graph *g)
{
    rows r = { 0 };
    if (nsmi_failed(g->ctx)) return NULL;
    if (g->cache->loops) return g->cache->loops;
    if (g->sources < g->nodes) {
        nsm_error_set(
            g->ctx, NSM_EINVAL,
            "self loops: the graph has %lld sources and %lld destinations, want as many or more",
            (long long)g->sources, (long long)g->nodes);
        return NULL;
    }
    if (get_rows(g->csr, &r)) build_loops(g, &r);
    free_rows(&r);
    return g->cache->loops;
}

/* ---- maps from the caller's edges ---- */
/* A row for each entry of `to`, its columns among the caller's E edges. */
typedef struct { int64_t *ptr; int32_t *idx; int64_t rows; } map;

static nsm_csr *finish_map(const nsm_graph *g, map *m)
{
    nsm_csr *made = nsmi_failed(g->ctx)
                        ? NULL
                        : nsm_csr_from_rows(g->ctx, m->rows, g->edges, m->ptr, m->idx, false);
    free(m->ptr);
    free(m->idx);
    return made;
}

static map start_map(const nsm_graph *g, int64_t row_count, int64_t room)
{
    map m = { .rows = row_count };
    m.ptr = nsmi_malloc(g->ctx, (size_t)(row_count + 1) * sizeof *m.ptr);
    m.idx = nsmi_malloc(g->ctx, (size_t)room * sizeof *m.idx);
    return m;
}

static nsm_csr *order_map(const nsm_graph *g)
{
    nsmi_graph_cache *c = g->cache;
    rows r = { 0 };
    if (c->order || nsmi_failed(g->ctx)) return c->order;
    if (get_rows(g->csr, &r)) {
        map m = start_map(g, g->edges, g->edges);
        for (int64_t e = 0; !nsmi_failed(g->ctx) && e < g->edges; e++) {
            m.ptr[e] = e;
            m.idx[e] = r.source[e];
        }
        if (m.ptr) m.ptr[g->edges] = g->edges;
        c->order = finish_map(g, &m);
    }
    free_rows(&r);
    return c->order;
}

/* Added loops: the mean over their node's other edges, or nothing (keep: the node's own loop, the
 * last of them in the caller's order). */
static nsm_csr *loop_map(const nsm_graph *g, bool keep, float **share)
{
    rows a = { 0 }, b = { 0 };
    const nsm_csr *loops = nsmi_graph_loops(g);
    nsm_csr *made = NULL;
    if (loops && get_rows(g->csr, &a) && get_rows(loops, &b)) {
        const int32_t *origin = g->cache->origin;
        int64_t at = 0;
        map m = start_map(g, loops->nnz, loops->nnz + g->edges);
        *share = nsmi_malloc(g->ctx, (size_t)(loops->nnz + g->edges) * sizeof **share);
        for (int64_t i = 0; !nsmi_failed(g->ctx) && i < g->nodes; i++) {
            int64_t others = b.ptr[i + 1] - b.ptr[i] - 1;
            int32_t own = -1;
            for (int64_t e = a.ptr[i]; e < a.ptr[i + 1]; e++)
                if (a.idx[e] == i && a.source[e] > own) own = a.source[e];
            for (int64_t e = b.ptr[i]; e < b.ptr[i + 1]; e++) {
                m.ptr[e] = at;
                if (origin[e] >= 0) {
                    m.idx[at] = origin[e];
                    (*share)[at++] = 1.0f;
                    continue;
                }
                if (keep && own >= 0) {
                    m.idx[at] = own;
                    (*share)[at++] = 1.0f;
                }
                for (int64_t k = b.ptr[i]; !keep && k < b.ptr[i + 1]; k++) {
                    if (origin[k] < 0) continue;
                    m.idx[at] = origin[k];
                    (*share)[at++] = 1.0f / (float)others;
                }
            }
        }
        if (m.ptr) m.ptr[loops->nnz] = at;
        made = finish_map(g, &m);
    }
    free_rows(&a);
    free_rows(&b);
    return made;
}

static bool mean_map(const nsm_graph *g)
{
    nsmi_graph_cache *c = g->cache;
    float *share = NULL;
    if (c->fill_values) return true;
    if (!c->fill_mean) c->fill_mean = loop_map(g, false, &share);
    if (c->fill_mean)
        c->fill_values = nsm_tensor_from(g->ctx, NSM_F32, 1, &c->fill_mean->nnz, share);
    if (c->fill_mean && !c->fill_values) {
        nsm_csr_free(c->fill_mean);
        c->fill_mean = NULL;
    }
    free(share);
    return c->fill_values != NULL;
}

nsm_tensor *nsmi_edge_values(nsm_tape *tape, const nsm_graph *g, bool loops, nsm_tensor *x)
{
    if (!x) return NULL;
    if (!loops) {
        nsm_csr *order = order_map(g);
        return order ? nsm_spmm(tape, order, NULL, false, x) : NULL;
    }
    return mean_map(g) ? nsm_spmm(tape, g->cache->fill_mean, g->cache->fill_values, false, x)
                       : NULL;
}

/* ---- GCN ---- */
/* Weights by entry on the host: `weight` (caller's order, host) or 1, and those of added loops. */
static float *entry_weights(const nsm_graph *g, const nsm_csr *m, nsmi_gcn_options o, const rows *r,
                            const float *weight)
{
    float *w = nsmi_malloc(g->ctx, (size_t)m->nnz * sizeof *w);
    float *own = o.loops ? nsmi_malloc(g->ctx, (size_t)g->nodes * sizeof *own) : NULL;
    int32_t *last = o.loops ? nsmi_malloc(g->ctx, (size_t)g->nodes * sizeof *last) : NULL;
    rows a = { 0 };
    if (o.loops && !nsmi_failed(g->ctx) && get_rows(g->csr, &a))
        for (int64_t i = 0; i < g->nodes; i++) {
            own[i] = o.improved ? 2.0f : 1.0f;
            last[i] = -1;
            for (int64_t e = a.ptr[i]; e < a.ptr[i + 1]; e++)
                if (a.idx[e] == i && a.source[e] > last[i]) {
                    last[i] = a.source[e];
                    own[i] = weight ? weight[a.source[e]] : 1.0f;
                }
        }
    for (int64_t i = 0; !nsmi_failed(g->ctx) && i < g->nodes; i++)
        for (int64_t e = r->ptr[i]; e < r->ptr[i + 1]; e++) {
            int32_t k = o.loops ? g->cache->origin[e] : r->source[e];
            w[e] = k < 0 ? own[i] : weight ? weight[k] : 1.0f;
        }
    free(own);
    free(last);
    free_rows(&a);
    if (!nsmi_failed(g->ctx)) return w;
    free(w);
    return NULL;
}

static void normalize(int64_t nodes, const rows *r, const double *factor, float *w)
{
    for (int64_t i = 0; i < nodes; i++)
        for (int64_t e = r->ptr[i]; e < r->ptr[i + 1]; e++)
            w[e] = (float)(w[e] * factor[i] * factor[r->idx[e]]);
}

/* The entries for the graph's own weights, which nothing trains. */
static nsm_tensor *fixed_entries(const nsm_graph *g, const nsm_csr *m, nsmi_gcn_options o)
{
    nsm_tensor *made = NULL;
    rows r = { 0 };
    float *host = g->weight
                      ? nsmi_host_copy(g->ctx, g->weight->data, (size_t)g->edges * sizeof *host)
                      : NULL;
    double *factor = nsmi_calloc(g->ctx, (size_t)g->nodes, sizeof *factor);
    float *w = !nsmi_failed(g->ctx) && get_rows(m, &r) ? entry_weights(g, m, o, &r, host) : NULL;
    if (w && o.normalize) {
        for (int64_t i = 0; i < g->nodes; i++) {
            for (int64_t e = r.ptr[i]; e < r.ptr[i + 1]; e++) factor[i] += w[e];
            factor[i] = factor[i] > 0 ? 1 / sqrt(factor[i]) : 0;
        }
        normalize(g->nodes, &r, factor, w);
    }
    if (w) made = nsm_tensor_from(g->ctx, NSM_F32, 1, &m->nnz, w);
    free(host);
    free(factor);
    free(w);
    free_rows(&r);
    return made;
}

/* What an added loop weighs, 0 for other entries: [nnz, 1]. */
static nsm_tensor *fill_weights(const nsm_graph *g, bool improved)
{
    nsmi_graph_cache *c = g->cache;
    nsm_tensor **slot = &c->fill_one[improved];
    if (*slot || !c->keep_loops) return *slot;
    int64_t n = c->loops->nnz;
    int64_t *ptr = nsmi_host_copy(g->ctx, c->keep_loops->fwd.ptr, (size_t)(n + 1) * sizeof *ptr);
    float *w = nsmi_malloc(g->ctx, (size_t)n * sizeof *w);
    for (int64_t e = 0; ptr && w && e < n; e++)
        w[e] = ptr[e + 1] == ptr[e] ? (improved ? 2.0f : 1.0f) : 0.0f;
    if (ptr && w) *slot = nsm_tensor_from(g->ctx, NSM_F32, 2, (int64_t[]){ n, 1 }, w);
    free(ptr);
    free(w);
    return *slot;
}

/* d^-1/2, and 0 where d is 0 or less: the clamps pass no gradient there. */
static nsm_tensor *inverse_root(nsm_tape *tape, nsm_tensor *d)
{
    const float tiny = 1e-20f;
    nsm_tensor *root = nsm_rsqrt(tape, nsm_clamp(tape, d, tiny, FLT_MAX));
    return nsm_mul(tape, root, nsm_clamp(tape, nsm_scale(tape, d, 1 / tiny, 0), 0, 1));
}

/* The entries as a function of the weights: gradients pass through the degrees too. */
static nsm_tensor *computed_entries(nsm_tape *tape, const nsm_graph *g, const nsm_csr *m,
                                    nsmi_gcn_options o, nsm_tensor *weight)
{
    nsmi_graph_cache *c = g->cache;
    nsm_tensor *w = nsm_reshape(tape, weight, 2, (int64_t[]){ g->edges, 1 });
    if (o.loops) {
        float *share = NULL;
        if (!c->keep_loops) c->keep_loops = loop_map(g, true, &share);
        free(share);
        nsm_tensor *fill = fill_weights(g, o.improved);
        w = c->keep_loops ? nsm_add(tape, nsm_spmm(tape, c->keep_loops, NULL, false, w), fill)
                          : NULL;
    } else {
        w = nsmi_edge_values(tape, g, false, w);
    }
    if (!o.normalize) return w;
    nsm_tensor *root = inverse_root(tape, nsm_segment_sum(tape, m, w));
    return nsm_mul(tape, w, nsm_sddmm(tape, m, 1, root, root));
}

const nsm_csr *nsmi_gcn_matrix(nsm_tape *tape, const nsm_graph *g, nsmi_gcn_options o,
                               nsm_tensor *weight, nsm_tensor **value)
{
    const nsm_csr *m = o.loops ? nsmi_graph_loops(g) : g->csr;
    *value = NULL;
    if (!m || nsmi_failed(g->ctx)) return NULL;
    if (weight && (weight != g->weight || weight->needs_grad)) {
        *value = computed_entries(tape, g, m, o, weight);
        return nsmi_failed(g->ctx) ? NULL : m;
    }
    if (!o.normalize && !o.loops && !g->weight) return m;
    nsm_tensor **slot = &g->cache->gcn[o.normalize + 2 * o.loops + 4 * o.improved];
    if (!*slot) *slot = fixed_entries(g, m, o);
    *value = *slot;
    return nsmi_failed(g->ctx) ? NULL : m;
}
