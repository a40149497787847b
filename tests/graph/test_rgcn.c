/* tests/graph/test_rgcn.c */
#include "config.h"
#include "graph/rgcn.h"
#include "graph/internal.h"
#include "tests/graph/layer.h"

static void *make_with(nsm_ctx *ctx, nsm_rgcn_config c)
{
    c.in_channels = LAYER_IN;
    c.relations = LAYER_TYPES;
    return nsm_rgcn_new(ctx, &c);
}
static void *make(nsm_ctx *ctx) { return make_with(ctx, (nsm_rgcn_config){ .out_channels = 5 }); }
static void *make_bases(nsm_ctx *ctx)
{
    return make_with(ctx,
                     (nsm_rgcn_config){ .out_channels = 9, .num_bases = 2, .aggr = NSM_SAGE_SUM });
}
static void *make_blocks(nsm_ctx *ctx)
{
    return make_with(ctx, (nsm_rgcn_config){
                              .out_channels = 9, .num_blocks = 3, .no_root_weight = true });
}
static void *make_max(nsm_ctx *ctx)
{
    return make_with(ctx,
                     (nsm_rgcn_config){ .out_channels = 4, .aggr = NSM_SAGE_MAX, .no_bias = true });
}
static nsm_tensor *apply(nsm_tape *tape, void *layer, const nsm_graph *g, nsm_tensor *x)
{
    return nsm_rgcn_apply(tape, layer, g, x);
}
static nsm_module *module(void *layer) { return nsm_rgcn_module(layer); }
static void release(void *layer) { nsm_rgcn_free(layer); }

static const test_layer layers[] = {
    { "rgcn/mean", make, apply, module, release },
    { "rgcn/bases", make_bases, apply, module, release },
    { NULL, NULL, NULL, NULL, NULL },
};
LAYER_TESTS(layers)

/* What does not take a sparse x. */
static const test_layer dense_only[] = {
    { "rgcn/blocks", make_blocks, apply, module, release },
    { "rgcn/sum", make_max, apply, module, release },
    { NULL, NULL, NULL, NULL, NULL },
};

START_TEST(blocks_and_max)
{
    static void (*const run[])(const test_layer *) = { layer_fixture, layer_permutation,
                                                       layer_threads, layer_memory, layer_errors };
    for (size_t i = 0; i < sizeof run / sizeof *run; i++) layer_each(dense_only, run[i]);
}
END_TEST

/* ---- the formula, edge by edge ---- */
enum { NODES = 23, EDGES = 140, OUT = 6 };

typedef struct {
    nsm_rgcn_config c;
    int32_t src[EDGES], dst[EDGES], type[EDGES];
    float x[NODES * LAYER_IN];
    float weight[LAYER_TYPES * LAYER_IN * OUT], comp[LAYER_TYPES * 3], root[LAYER_IN * OUT];
} example;

static double weight_of(const example *e, int r, int f, int o)
{
    double sum = 0;
    int k = e->c.num_blocks, in = LAYER_IN, out = OUT;
    if (k) {
        int fi = in / k, fo = out / k;
        return f / fi != o / fo ? 0
                                : (double)e->weight[((r * k + f / fi) * fi + f % fi) * fo + o % fo];
    }
    if (!e->c.num_bases) return (double)e->weight[(r * in + f) * out + o];
    for (int b = 0; b < e->c.num_bases; b++)
        sum += (double)e->comp[r * e->c.num_bases + b] * (double)e->weight[(b * in + f) * out + o];
    return sum;
}

/* aggr of feature f over the edges of relation r that enter node i. */
static double aggregate(const example *e, int i, int r, int f)
{
    double sum = 0, most = -INFINITY;
    int n = 0;
    for (int k = 0; k < EDGES; k++) {
        if (e->dst[k] != i || e->type[k] != r) continue;
        double v = (double)e->x[e->src[k] * LAYER_IN + f];
        sum += v;
        most = fmax(most, v);
        n++;
    }
    if (n == 0) return 0;
    return e->c.aggr == NSM_SAGE_MAX ? most : e->c.aggr == NSM_SAGE_MEAN ? sum / n : sum;
}

static void expect(const example *e, float *y)
{
    for (int i = 0; i < NODES; i++)
        for (int o = 0; o < OUT; o++) {
            double sum = 0;
            for (int f = 0; f < LAYER_IN; f++) {
                sum += (double)e->x[i * LAYER_IN + f] * (double)e->root[f * OUT + o];
                for (int r = 0; r < LAYER_TYPES; r++)
                    sum += aggregate(e, i, r, f) * weight_of(e, r, f, o);
            }
            y[i * OUT + o] = (float)sum;
        }
}

static void check_formula(nsm_ctx *ctx, nsm_rgcn_config c)
{
    example *e = calloc(1, sizeof *e);
    float want[NODES * OUT], got[NODES * OUT];
    nsm_graph *g = layer_graph(ctx, NODES, EDGES);
    nsm_rgcn *layer = make_with(ctx, c);
    ck_ok(ctx);
    e->c = c;
    test_random(4, NODES * LAYER_IN, e->x);
    nsm_graph_edges(g, e->src, e->dst);
    nsm_tensor_get(g->type, e->type);
    nsm_tensor_get(nsm_module_find(module(layer), "weight"), e->weight);
    nsm_tensor_get(nsm_module_find(module(layer), "root"), e->root);
    if (c.num_bases) nsm_tensor_get(nsm_module_find(module(layer), "comp"), e->comp);
    expect(e, want);
    nsm_tape *tape = nsm_tape_new(ctx);
    nsm_tensor *x = nsm_tape_tensor(tape, NSM_F32, 2, (int64_t[]){ NODES, LAYER_IN }, e->x);
    nsm_tensor *y = nsm_rgcn_apply(tape, layer, g, x);
    ck_ok(ctx);
    nsm_tensor_get(y, got);
    ck_assert(test_difference(got, want, NODES * OUT, 0.1) < 1e-5);
    nsm_tape_free(tape);
    nsm_rgcn_free(layer);
    nsm_graph_free(g);
    free(e);
}

START_TEST(formula)
{
    static const struct {
        int bases, blocks;
    } form[] = { { 0, 0 }, { 3, 0 }, { 0, 2 }, { 0, 6 } };
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    for (int f = 0; f < 4; f++)
        for (int aggr = NSM_SAGE_MEAN; aggr <= NSM_SAGE_SUM; aggr++)
            check_formula(ctx, (nsm_rgcn_config){ .out_channels = OUT,
                                                  .num_bases = form[f].bases,
                                                  .num_blocks = form[f].blocks,
                                                  .aggr = (nsm_sage_aggr)aggr,
                                                  .no_bias = true });
    nsm_ctx_free(ctx);
}
END_TEST

/* ---- both orders of a dense x: few pairs a relation, and few features out of many ---- */
static void compare_orders(nsm_ctx *ctx, nsm_sage_aggr aggr, int bases)
{
    enum { N = 3, E = 400, F = 40 };
    int32_t *src = malloc(E * sizeof *src), *dst = malloc(E * sizeof *dst),
            *type = malloc(E * sizeof *type);
    float x[N * F], a[N * 2], b[N * 2];
    for (int k = 0; k < E; k++) {
        src[k] = k % N;
        dst[k] = k / 5 % N;
        type[k] = k % 2;
    }
    test_random(6, N * F, x);
    nsm_graph *g = nsm_graph_new(ctx, N, E, src, dst);
    nsm_graph_set_types(g, 2, type);
    nsm_rgcn *l = nsm_rgcn_new(ctx, &(nsm_rgcn_config){ .in_channels = F,
                                                        .out_channels = 2,
                                                        .relations = 2,
                                                        .num_bases = bases,
                                                        .aggr = aggr });
    nsm_tape *tape = nsm_tape_new(ctx);
    nsm_tensor *dense = nsm_tape_tensor(tape, NSM_F32, 2, (int64_t[]){ N, F }, x);
    nsm_tensor *y = nsm_rgcn_apply(tape, l, g, dense);
    ck_assert_msg(bases == 1 ? g->cache->entry_type != NULL : g->cache->by_type != NULL,
                  "x was not transformed first");
    nsm_tensor_get(y, a);
    const nsm_typed *t = nsmi_graph_typed(g, false);
    nsm_typed_aggr how = aggr == NSM_SAGE_MEAN ? NSM_TYPED_MEAN : NSM_TYPED_SUM;
    nsm_tensor *w = nsm_module_find(module(l), "weight");
    if (bases) {
        w = nsm_reshape(tape, w, 2, (int64_t[]){ bases, F * 2 });
        w = nsm_matmul(tape, nsm_module_find(module(l), "comp"), w, false, false);
        w = nsm_reshape(tape, w, 3, (int64_t[]){ 2, F, 2 });
    }
    nsm_tensor *z = nsm_typed_linear(tape, t, how, dense, w);
    z = nsm_add(tape, z, nsm_matmul(tape, dense, nsm_module_find(module(l), "root"), false, false));
    nsm_tensor_get(z, b);
    ck_ok(ctx);
    ck_assert(test_difference(a, b, N * 2, 0.1) < 1e-5);
    nsm_tape_free(tape);
    nsm_rgcn_free(l);
    nsm_graph_free(g);
    free(src);
    free(dst);
    free(type);
}

START_TEST(orders)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    for (int bases = 0; bases < 4; bases++) {
        compare_orders(ctx, NSM_SAGE_MEAN, bases);
        compare_orders(ctx, NSM_SAGE_SUM, bases);
    }
    nsm_ctx_free(ctx);
}
END_TEST

/* ---- types of edges follow them ---- */
START_TEST(types_follow)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    int32_t src[] = { 2, 0, 1 }, dst[] = { 1, 1, 0 }, type[] = { 4, 0, 2 }, both[6], got[6];
    nsm_graph *g = nsm_graph_new(ctx, 3, 3, src, dst);
    ck_assert_int_eq(nsm_graph_set_types(g, 5, type), NSM_OK);
    nsm_graph *two = nsm_graph_batch(ctx, 2, (nsm_graph *[]){ g, g });
    ck_assert_int_eq(two->types, 5);
    nsm_tensor_get(two->type, got);
    ck_assert_mem_eq(got, type, sizeof type);
    ck_assert_mem_eq(got + 3, type, sizeof type);
    nsm_edges e;
    ck_assert_int_eq(nsm_edges_inverse(ctx, 3, 3, src, dst, 5, type, &e, both), NSM_OK);
    ck_assert_int_eq(e.count, 6);
    for (int k = 0; k < 3; k++) {
        ck_assert(e.src[k] == src[k] && e.dst[k] == dst[k] && both[k] == type[k]);
        ck_assert(e.src[k + 3] == dst[k] && e.dst[k + 3] == src[k] && both[k + 3] == type[k] + 5);
    }
    nsm_edges_free(&e);
    nsm_graph *none = nsm_graph_new(ctx, 3, 3, src, dst);
    ck_assert(!nsm_graph_batch(ctx, 2, (nsm_graph *[]){ g, none }));
    ck_error(ctx, NSM_EINVAL);
    type[1] = 5;
    ck_assert_int_eq(nsm_graph_set_types(g, 5, type), NSM_EINVAL);
    ck_assert_msg(strstr(nsm_error_message(ctx), "edge 1 is 5, want 0..4"), "%s",
                  nsm_error_message(ctx));
    ck_error(ctx, NSM_EINVAL);
    ck_assert_int_eq(nsm_graph_set_types(g, 0, type), NSM_EINVAL);
    ck_error(ctx, NSM_EINVAL);
    nsm_graph_free(g);
    nsm_graph_free(two);
    nsm_graph_free(none);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(errors)
{
    static const nsm_rgcn_config wrong[] = {
        { .in_channels = 0, .out_channels = 4, .relations = 2 },
        { .in_channels = 4, .out_channels = 4, .relations = 0 },
        { .in_channels = 4, .out_channels = 4, .relations = 2, .num_bases = -1 },
        { .in_channels = 4, .out_channels = 4, .relations = 2, .num_bases = 2, .num_blocks = 2 },
        { .in_channels = 4, .out_channels = 6, .relations = 2, .num_blocks = 4 },
        { .in_channels = 4, .out_channels = 4, .relations = 2, .aggr = (nsm_sage_aggr)9 },
        { .in_channels = 4, .out_channels = 4, .relations = 2, .dropout = 1 },
    };
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        ck_assert(!nsm_rgcn_new(ctx, &wrong[i]));
        ck_error(ctx, NSM_EINVAL);
    }
    int32_t src[] = { 0, 1 }, dst[] = { 0, 2 }, type[] = { 0, 1 };
    nsm_graph *g = nsm_graph_new(ctx, 3, 2, src, dst);
    void *layer = make(ctx);
    nsm_tape *tape = nsm_tape_new(ctx);
    nsm_tensor *x = nsm_tensor_new(ctx, NSM_F32, 2, (int64_t[]){ 3, LAYER_IN });
    nsm_tensor_zero(x);
    ck_assert(!nsm_rgcn_apply(tape, layer, g, x)); /* no types */
    ck_error(ctx, NSM_EINVAL);
    nsm_graph_set_types(g, 2, type);
    ck_assert(!nsm_rgcn_apply(tape, layer, g, x)); /* too few */
    ck_error(ctx, NSM_EINVAL);
    nsm_tape_free(tape);
    nsm_tensor_free(x);
    release(layer);
    nsm_graph_free(g);
    nsm_ctx_free(ctx);
}
END_TEST

int main(void)
{
    return test_main("rgcn", (const TTest *const[]){ fixture, permutation, threads, memory, sparse,
                                                     common_errors, blocks_and_max, formula, orders,
                                                     types_follow, errors, NULL });
}
