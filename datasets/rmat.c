/* datasets/rmat.c - R-MAT: Chakrabarti, Zhan, Faloutsos, "R-MAT: a recursive model for graph
 * mining", SDM 2004; with planted classes.
 *
 * An edge halves the square of (source, destination) again and again, taking quadrant a, b, c or d.
 * Halves are cut at (low + high) / 2, so n need not be a power of two.  The class of a node is
 * its number modulo C: its place among its C neighbours in number, which tells R-MAT nothing.  With
 * the probability `homophily` the destination is moved, among these C, to the one of the source's
 * class: the degrees stay R-MAT's.  A loop is moved on by C, a node of the same class.  At last the
 * numbers are permuted (an affine map modulo n), so that hubs do not stand together.
 *
 * Edges come in blocks of a fixed size, each from its own place in the generator, so the graph
 * does not depend on the threads.  Repeated edges are kept. */
#include "config.h"
#include "datasets/planted.h"

typedef struct {
    int64_t n, classes;
    uint32_t a, ab, abc;  /* cumulated probabilities in 2^-32 */
    uint32_t homophily;
    uint64_t seed, scale, shift; /* permutation i -> (i * scale + shift) mod n */
    /* Philox blocks an edge: 32 levels of one word each, and one for homophily */
    int words;
} rmat;

static uint32_t probability(double p) { return p >= 1 ? UINT32_MAX : (uint32_t)(p * 0x1p32); }

static int32_t permuted(const rmat *r, int64_t i)
{
    return (int32_t)(((unsigned __int128)i * r->scale + r->shift) % (uint64_t)r->n);
}

static void draw_edge(const rmat *r, int64_t k, int32_t *src, int32_t *dst)
{
    int64_t low[2] = { 0, 0 }, high[2] = { r->n, r->n };
    uint64_t base = ((uint64_t)NSMI_STREAM_EDGES << 56) + (uint64_t)k * (uint64_t)r->words;
    uint32_t word[4];
    nsmi_philox(r->seed, base, word);
    bool moved = word[0] < r->homophily;
    for (int level = 1; high[0] - low[0] > 1 || high[1] - low[1] > 1; level++) {
        if (level % 4 == 0) nsmi_philox(r->seed, base + (uint64_t)level / 4, word);
        uint32_t w = word[level % 4];
        int half[2] = { w >= r->ab, w >= r->abc || (w >= r->a && w < r->ab) };
        for (int s = 0; s < 2; s++) {
            int64_t mid = (low[s] + high[s]) / 2;
            if (high[s] - low[s] <= 1) continue;
            if (half[s]) low[s] = mid;
            else high[s] = mid;
        }
    }
    int64_t u = low[0], v = low[1];
    if (moved) {
        v += u % r->classes - v % r->classes;
        if (v >= r->n) v -= r->classes;
    }
    if (u == v) v = v + r->classes < r->n ? v + r->classes : v % r->classes;
    *src = permuted(r, u);
    *dst = permuted(r, v);
}

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
    while (b) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static void draw_edges(nsm_dataset *ds, const rmat *r, int64_t edges)
{
    int64_t drawn = ds->directed ? edges : edges / 2;
    nsm_dataset_edges *e = nsm_dataset_add_edges(ds, "edge", 0, 0, edges);
    if (!e) return;
    #pragma omp parallel for schedule(static) num_threads(ds->ctx->dev.threads)
    for (int64_t k = 0; k < drawn; k++) {
        draw_edge(r, k, &e->src[k], &e->dst[k]);
        if (ds->directed) continue;
        e->src[drawn + k] = e->dst[k];
        e->dst[drawn + k] = e->src[k];
    }
}

nsm_dataset *nsmi_generate_rmat(nsm_ctx *ctx, const char *kind, const nsmi_options *o)
{
    rmat r = { .n = nsmi_option_int(o, "nodes", 2, INT32_MAX, 100000) };
    r.classes = nsmi_option_int(o, "classes", 1, r.n / 2, r.n < 32 ? r.n / 2 : 16);
    r.seed = (uint64_t)nsmi_option_int(o, "seed", 0, INT64_MAX, 0);
    r.homophily = probability(nsmi_option_float(o, "homophily", 0, 1, 0.5));
    int64_t edges = nsmi_option_int(o, "edges", 0, (int64_t)1 << 40, 1000000);
    bool directed = nsmi_option_bool(o, "directed", false);
    double a = nsmi_option_float(o, "a", 0, 1, 0.57), b = nsmi_option_float(o, "b", 0, 0.5, 0.19);
    if (a + 2 * b > 1)
        nsm_error_set(ctx, NSM_EINVAL, "%s: a + 2 b is %g, above 1", o->who, a + 2 * b);
    if (!directed && edges % 2)
        nsm_error_set(ctx, NSM_EINVAL,
                      "%s: edges=%lld is odd, and every edge stands in both directions", o->who,
                      (long long)edges);
    r.a = probability(a);
    r.ab = probability(a + b);
    r.abc = probability(a + 2 * b);
    r.words = 9;
    r.scale = (uint64_t)((double)r.n * 0.6180339887) | 1;
    while (common_divisor(r.scale, (uint64_t)r.n) != 1) r.scale += 2;
    r.shift = nsmi_draw(r.seed, NSMI_STREAM_CLASSES, 0) % (uint64_t)r.n;
    nsm_dataset *ds = nsmi_failed(ctx) ? NULL : nsmi_planted_new(ctx, kind, r.n, r.classes);
    if (ds && !nsmi_failed(ctx)) {
        ds->directed = directed;
        for (int64_t i = 0; i < r.n; i++) ds->label.cls[permuted(&r, i)] = (int32_t)(i % r.classes);
        draw_edges(ds, &r, edges);
        nsmi_plant(ds, o);
    }
    if (!nsmi_failed(ctx)) return ds;
    nsm_dataset_free(ds);
    return NULL;
}
