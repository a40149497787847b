/* datasets/edges.c - Work on edge lists: making one symmetric.
 *
 * Sorting by (src, dst) is two stable counting sorts, by dst and then by src: O(E + n). */
#include "config.h"
#include "datasets/internal.h"

/* Stable order of keys in [0, n): out lists the positions, in the order of `from` (NULL: 0, 1,
 * ...). */
static bool counting_sort(nsm_ctx *ctx, int64_t count, int64_t n, const int32_t *key,
                          const int64_t *from, int64_t *out)
{
    int64_t *start = nsmi_calloc(ctx, (size_t)n + 1, sizeof *start);
    if (!start) return false;
    for (int64_t k = 0; k < count; k++) start[key[k] + 1]++;
    for (int64_t i = 0; i < n; i++) start[i + 1] += start[i];
    for (int64_t k = 0; k < count; k++) {
        int64_t at = from ? from[k] : k;
        out[start[key[at]]++] = at;
    }
    free(start);
    return true;
}

/* Both directions of every edge, sorted, each once.  src, dst [2 * count] on entry hold them
 * all. */
static int64_t sort_unique(nsm_ctx *ctx, int64_t count, int64_t n, int32_t *src, int32_t *dst)
{
    int64_t *a = nsmi_malloc(ctx, (size_t)count * sizeof *a),
            *b = nsmi_malloc(ctx, (size_t)count * sizeof *b);
    int32_t *u = nsmi_malloc(ctx, (size_t)count * sizeof *u),
            *v = nsmi_malloc(ctx, (size_t)count * sizeof *v);
    int64_t kept = 0;
    if (a && b && u && v && counting_sort(ctx, count, n, dst, NULL, a) &&
        counting_sort(ctx, count, n, src, a, b)) {
        for (int64_t k = 0; k < count; k++) {
            int32_t s = src[b[k]], d = dst[b[k]];
            if (kept && u[kept - 1] == s && v[kept - 1] == d) continue;
            u[kept] = s;
            v[kept++] = d;
        }
        memcpy(src, u, (size_t)kept * sizeof *u);
        memcpy(dst, v, (size_t)kept * sizeof *v);
    }
    free(a); free(b); free(u); free(v);
    return kept;
}

/* The reversed edges behind the given ones, with their weights and features; loops stay single. */
static int append_reversed(nsm_dataset *ds, nsm_dataset_edges *e)
{
    int64_t loops = 0, given = e->count, F = e->features;
    for (int64_t k = 0; k < given; k++) loops += e->src[k] == e->dst[k];
    int64_t total = 2 * given - loops, at = given;
    int32_t *src = nsmi_realloc(ds->ctx, e->src, (size_t)total, sizeof *src);
    if (src) e->src = src;
    int32_t *dst = src ? nsmi_realloc(ds->ctx, e->dst, (size_t)total, sizeof *dst) : NULL;
    if (dst) e->dst = dst;
    float *w = dst && e->weight ? nsmi_realloc(ds->ctx, e->weight, (size_t)total, sizeof *w) : NULL;
    if (w) e->weight = w;
    float *f = dst && e->feature
                   ? nsmi_realloc(ds->ctx, e->feature, (size_t)total, (size_t)F * sizeof *f)
                   : NULL;
    if (f) e->feature = f;
    if (nsmi_failed(ds->ctx)) return nsm_error(ds->ctx);
    for (int64_t k = 0; k < given; k++) {
        if (e->src[k] == e->dst[k]) continue;
        e->src[at] = e->dst[k];
        e->dst[at] = e->src[k];
        if (w) w[at] = w[k];
        if (f) memcpy(f + at * F, f + k * F, (size_t)F * sizeof *f);
        at++;
    }
    e->count = total;
    return NSM_OK;
}

int nsmi_edges_symmetric(nsm_dataset *ds, int type)
{
    if (nsmi_failed(ds->ctx)) return nsm_error(ds->ctx);
    nsm_dataset_edges *e = &ds->edge[type];
    bool bare = !e->weight && !e->feature;
    if (append_reversed(ds, e) == NSM_OK && bare)
        e->count = sort_unique(ds->ctx, e->count, ds->node[e->src_type].count, e->src, e->dst);
    return nsm_error(ds->ctx);
}
