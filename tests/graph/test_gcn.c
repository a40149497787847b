/* tests/graph/test_gcn.c */
#include "config.h"
#include "graph/gcn.h"
#include "tests/graph/layer.h"

static void *make(nsm_ctx *ctx)
{
    return nsm_gcn_new(ctx, &(nsm_gcn_config){
                                .in_channels = LAYER_IN, .out_channels = 10, .act = NSM_ACT_RELU });
}
static nsm_tensor *apply(nsm_tape *tape, void *layer, const nsm_graph *g, nsm_tensor *x)
{
    return nsm_gcn_apply(tape, layer, g, x, NULL);
}
static nsm_module *module(void *layer) { return nsm_gcn_module(layer); }
static void release(void *layer) { nsm_gcn_free(layer); }
static const test_layer layers[] = { { "gcn/improved_edge_weight_existing_loops", make, apply,
                                       module, release },
                                     { NULL, NULL, NULL, NULL, NULL } };
LAYER_TESTS(layers)

/* Both orders of the products give the same: aggregation first where the layer widens. */
START_TEST(orders)
{
    enum { N = 30 };
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    nsm_graph *g = layer_graph(ctx, N, 90);
    float host[N * LAYER_IN], wide[N * 8], narrow[N * 8];
    test_random(1, N * LAYER_IN, host);
    nsm_tensor *x = nsm_tensor_from(ctx, NSM_F32, 2, (int64_t[]){ N, LAYER_IN }, host);
    nsm_gcn *a = nsm_gcn_new(ctx, &(nsm_gcn_config){ .in_channels = LAYER_IN, .out_channels = 8 });
    nsm_tape *tape = nsm_tape_new(ctx);
    nsm_tensor_get(nsm_gcn_apply(tape, a, g, x, NULL), wide);
    const nsm_tensor *w = nsm_module_find(nsm_gcn_module(a), "lin.weight");
    for (int half = 0; half < 2; half++) { /* the same map by two layers of half the width */
        float part[4 * LAYER_IN], y[N * 4], all[8 * LAYER_IN];
        nsm_gcn *b = nsm_gcn_new(ctx,
                                 &(nsm_gcn_config){ .in_channels = LAYER_IN, .out_channels = 4 });
        nsm_tensor_get(w, all);
        memcpy(part, all + half * 4 * LAYER_IN, sizeof part);
        nsm_tensor_set(nsm_module_find(nsm_gcn_module(b), "lin.weight"), part);
        nsm_tensor_get(nsm_gcn_apply(tape, b, g, x, NULL), y);
        for (int i = 0; i < N; i++) memcpy(narrow + i * 8 + half * 4, y + i * 4, 4 * sizeof *y);
        nsm_gcn_free(b);
    }
    ck_ok(ctx);
    ck_assert(test_difference(wide, narrow, N * 8, 0) < 1e-6);
    nsm_tape_free(tape);
    nsm_gcn_free(a);
    nsm_tensor_free(x);
    nsm_graph_free(g);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(errors)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    ck_assert(!nsm_gcn_new(ctx, &(nsm_gcn_config){ .in_channels = 0, .out_channels = 3 }));
    ck_error(ctx, NSM_EINVAL);
    ck_assert(
        !nsm_gcn_new(ctx, &(nsm_gcn_config){ .in_channels = 2, .out_channels = 3, .dropout = 1 }));
    ck_error(ctx, NSM_EINVAL);
    int32_t src[] = { 0, 1 }, dst[] = { 0, 0 };
    nsm_graph *g = nsm_graph_bipartite(ctx, 2, 1, 2, src, dst);
    nsm_gcn *gcn_layer = make(ctx);
    nsm_tape *tape = nsm_tape_new(ctx);
    nsm_tensor *x = nsm_tensor_new(ctx, NSM_F32, 2, (int64_t[]){ 2, LAYER_IN });
    nsm_tensor_zero(x);
    ck_assert(!nsm_gcn_apply(tape, gcn_layer, g, x, NULL));
    ck_error(ctx, NSM_ESHAPE);
    nsm_graph *square = nsm_graph_new(ctx, 2, 2, src, dst);
    ck_assert(!nsm_gcn_apply(tape, gcn_layer, square, x, x)); /* the weights are not [E] */
    ck_error(ctx, NSM_ESHAPE);
    nsm_tape_free(tape);
    nsm_tensor_free(x);
    nsm_gcn_free(gcn_layer);
    nsm_graph_free(g);
    nsm_graph_free(square);
    nsm_ctx_free(ctx);
}
END_TEST

int main(void)
{
    return test_main("gcn", (const TTest *const[]){ fixture, permutation, threads, memory, sparse,
                                                    common_errors, orders, errors, NULL });
}
