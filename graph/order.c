/* graph/order.c - Orders of nodes, and the graph in another order.
 *
 * The gather of sources' rows is what bounds a graph layer; it costs less where an edge's ends
 * stand close.  Degree order puts the rows that are read most together; reverse Cuthill-McKee walks
 * breadth first from a node of low degree, neighbours by degree, and turns the result around. */
#include "config.h"
#include "graph/internal.h"

typedef struct { int64_t *ptr; int32_t *idx; int64_t *degree; int64_t nodes; } adjacency;

static bool get_adjacency(const nsm_graph *g, adjacency *a)
{
    nsm_ctx *ctx = g->ctx;
    a->nodes = g->nodes;
    a->ptr = nsmi_host_copy(ctx, g->csr->fwd.ptr, (size_t)(g->nodes + 1) * sizeof *a->ptr);
    a->idx = nsmi_host_copy(ctx, g->csr->fwd.idx, (size_t)g->edges * sizeof *a->idx);
    a->degree = nsmi_malloc(ctx, (size_t)g->nodes * sizeof *a->degree);
    for (int64_t i = 0; !nsmi_failed(ctx) && i < g->nodes; i++)
        a->degree[i] = a->ptr[i + 1] - a->ptr[i];
    return !nsmi_failed(ctx);
}

static void free_adjacency(adjacency *a)
{
    free(a->ptr);
    free(a->idx);
    free(a->degree);
}

/* Nodes by rising degree, ties by number: a counting sort. */
static bool by_degree(nsm_ctx *ctx, const adjacency *a, int32_t *node)
{
    int64_t most = 0, from = 0;
    for (int64_t i = 0; i < a->nodes; i++) most = a->degree[i] > most ? a->degree[i] : most;
    int64_t *count = nsmi_calloc(ctx, (size_t)most + 1, sizeof *count);
    if (!count) return false;
    for (int64_t i = 0; i < a->nodes; i++) count[a->degree[i]]++;
    for (int64_t d = 0; d <= most; d++) {
        int64_t n = count[d];
        count[d] = from;
        from += n;
    }
    for (int64_t i = 0; i < a->nodes; i++) node[count[a->degree[i]]++] = (int32_t)i;
    free(count);
    return true;
}

/* Neighbours of low degree first; insertion, as most lists are short, and a hub's is cut off: the
 * order within a hub's thousands of neighbours is worth nothing. */
static void sort_few(const adjacency *a, int32_t *list, int64_t n)
{
    enum { FEW = 64 };
    for (int64_t i = 1; n <= FEW && i < n; i++)
        for (int64_t k = i; k > 0 && a->degree[list[k]] < a->degree[list[k - 1]]; k--) {
            int32_t swap = list[k];
            list[k] = list[k - 1];
            list[k - 1] = swap;
        }
}

static bool cuthill_mckee(nsm_ctx *ctx, const adjacency *a, int32_t *order)
{
    int32_t *start = nsmi_malloc(ctx, (size_t)a->nodes * sizeof *start);
    bool *seen = nsmi_calloc(ctx, (size_t)a->nodes, sizeof *seen);
    bool ok = start && seen && by_degree(ctx, a, start);
    int64_t head = 0, tail = 0;
    for (int64_t s = 0; ok && s < a->nodes; s++) {
        if (seen[start[s]]) continue;
        seen[start[s]] = true;
        order[tail++] = start[s];
        for (; head < tail; head++) {
            int64_t first = tail, i = order[head];
            for (int64_t e = a->ptr[i]; e < a->ptr[i + 1]; e++) {
                int32_t j = a->idx[e];
                if (seen[j]) continue;
                seen[j] = true;
                order[tail++] = j;
            }
            sort_few(a, order + first, tail - first);
        }
    }
    free(start);
    free(seen);
    return ok;
}

int nsm_graph_order(const nsm_graph *g, nsm_order order, int32_t *place)
{
    if (!g) return NSM_EINVAL;
    nsm_ctx *ctx = g->ctx;
    if (nsmi_failed(ctx)) return nsm_error(ctx);
    if (g->sources != g->nodes || (unsigned)order > NSM_ORDER_RCM)
        return nsm_error_set(ctx, NSM_EINVAL,
                             "nsm_graph_order: the graph is bipartite or the order %d unknown",
                             (int)order);
    adjacency a = { 0 };
    int32_t *node = nsmi_malloc(ctx, (size_t)g->nodes * sizeof *node);
    bool ok = node && get_adjacency(g, &a) &&
              (order == NSM_ORDER_DEGREE ? by_degree(ctx, &a, node) : cuthill_mckee(ctx, &a, node));
    /* both are turned around */
    for (int64_t i = 0; ok && i < g->nodes; i++) place[node[i]] = (int32_t)(g->nodes - 1 - i);
    free_adjacency(&a);
    free(node);
    return nsm_error(ctx);
}

static bool is_permutation(const nsm_graph *g, const int32_t *place)
{
    bool *taken = nsmi_calloc(g->ctx, (size_t)g->nodes, sizeof *taken);
    for (int64_t i = 0; taken && i < g->nodes; i++) {
        if (place[i] < 0 || place[i] >= g->nodes || taken[place[i]]) {
            nsm_error_set(
                g->ctx, NSM_EINVAL,
                "nsm_graph_permuted: node %lld goes to %d, which is taken or not in 0..%lld",
                (long long)i, place[i], (long long)g->nodes - 1);
            break;
        }
        taken[place[i]] = true;
    }
    free(taken);
    return !nsmi_failed(g->ctx);
}

static void copy_values(nsm_graph *to, const nsm_graph *g)
{
    int64_t k = g->feature ? g->feature->dim[1] : 1;
    float *host = nsmi_malloc(g->ctx, (size_t)(g->edges * k) * sizeof *host);
    if (host && g->weight && nsm_tensor_get(g->weight, host) == NSM_OK)
        nsm_graph_set_weights(to, host);
    if (host && g->feature && nsm_tensor_get(g->feature, host) == NSM_OK)
        nsm_graph_set_features(to, k, host);
    free(host);
    int32_t *type = g->type ? nsmi_malloc(g->ctx, (size_t)g->edges * sizeof *type) : NULL;
    if (type && nsm_tensor_get(g->type, type) == NSM_OK) nsm_graph_set_types(to, g->types, type);
    free(type);
}

nsm_graph *nsm_graph_permuted(const nsm_graph *g, const int32_t *place)
{
    if (!g || nsmi_failed(g->ctx)) return NULL;
    nsm_ctx *ctx = g->ctx;
    if (g->sources != g->nodes || g->member) {
        nsm_error_set(ctx, NSM_EINVAL, "nsm_graph_permuted: the graph is bipartite or a batch");
        return NULL;
    }
    nsm_graph *made = NULL;
    int32_t *src = nsmi_malloc(ctx, (size_t)g->edges * sizeof *src),
            *dst = nsmi_malloc(ctx, (size_t)g->edges * sizeof *dst);
    if (src && dst && is_permutation(g, place) && nsm_graph_edges(g, src, dst) == NSM_OK) {
        for (int64_t k = 0; k < g->edges; k++) {
            src[k] = place[src[k]];
            dst[k] = place[dst[k]];
        }
        made = nsm_graph_new(ctx, g->nodes, g->edges, src, dst);
    }
    if (made) copy_values(made, g);
    free(src);
    free(dst);
    if (!nsmi_failed(ctx)) return made;
    nsm_graph_free(made);
    return NULL;
}
