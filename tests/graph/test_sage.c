/* tests/graph/test_sage.c */
#include "config.h"
#include "graph/sage.h"
#include "tests/graph/layer.h"

static void *make(nsm_ctx *ctx)
{
    return nsm_sage_new(ctx, &(nsm_sage_config){
                                 .in_channels = LAYER_IN, .out_channels = 5, .normalize = true });
}

static nsm_tensor *apply(nsm_tape *tape, void *layer, const nsm_graph *g, nsm_tensor *x)
{
    return nsm_sage_apply(tape, layer, g, x, NULL);
}
static nsm_module *module(void *layer) { return nsm_sage_module(layer); }
static void release(void *layer) { nsm_sage_free(layer); }
static void *make_pooling(nsm_ctx *ctx)
{
    return nsm_sage_new(ctx, &(nsm_sage_config){ .in_channels = LAYER_IN,
                                                 .out_channels = 9,
                                                 .aggr = NSM_SAGE_MAX,
                                                 .project = true });
}

static const test_layer layers[] = {
    { "sage/bipartite_mean", make, apply, module, release },
    { "sage/project_max_normalize", make_pooling, apply, module, release },
    { NULL, NULL, NULL, NULL, NULL },
};
LAYER_TESTS(layers)

START_TEST(errors)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    ck_assert(!nsm_sage_new(ctx, &(nsm_sage_config){ .in_channels = 2, .out_channels = -1 }));
    ck_error(ctx, NSM_EINVAL);
    ck_assert(!nsm_sage_new(
        ctx, &(nsm_sage_config){ .in_channels = 2, .out_channels = 1, .aggr = (nsm_sage_aggr)7 }));
    ck_error(ctx, NSM_EINVAL);
    int32_t src[] = { 0, 1 }, dst[] = { 0, 2 };
    nsm_graph *few = nsm_graph_bipartite(ctx, 2, 3, 2, src, dst);
    void *layer = make(ctx);
    nsm_tape *tape = nsm_tape_new(ctx);
    nsm_tensor *x = nsm_tensor_new(ctx, NSM_F32, 2, (int64_t[]){ 2, LAYER_IN });
    nsm_tensor_zero(x);
    ck_assert(!nsm_sage_apply(tape, layer, few, x, NULL)); /* which rows are the destinations? */
    ck_error(ctx, NSM_ESHAPE);
    ck_assert(!nsm_sage_apply(tape, layer, few, x, x));    /* three are wanted */
    ck_error(ctx, NSM_ESHAPE);
    nsm_tape_free(tape);
    nsm_tensor_free(x);
    release(layer);
    nsm_graph_free(few);
    nsm_ctx_free(ctx);
}
END_TEST

int main(void)
{
    return test_main("sage", (const TTest *const[]){ fixture, permutation, threads, memory, sparse,
                                                     common_errors, errors, NULL });
}
