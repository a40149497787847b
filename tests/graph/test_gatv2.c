/* tests/graph/test_gatv2.c */
#include "config.h"
#include "graph/gatv2.h"
#include "tests/graph/layer.h"

static void *make(nsm_ctx *ctx)
{
    return nsm_gatv2_new(ctx, &(nsm_gatv2_config){ .in_channels = LAYER_IN, .out_channels = 5, .heads = 3, .edge_dim = LAYER_EDGE,
                                             .act = NSM_ACT_ELU, .attn_dropout = 0.0f });
}

static nsm_tensor *apply(nsm_tape *tape, void *layer, const nsm_graph *g, nsm_tensor *x)
{
    return nsm_gatv2_apply(tape, layer, g, x, NULL, NULL);
}

static nsm_module *module(void *layer) { return nsm_gatv2_module(layer); }
static void release(void *layer) { nsm_gatv2_free(layer); }
static const test_layer gatv2 = { "gatv2/edge_features", make, apply, module, release };
LAYER_TESTS(&gatv2)

/* What the layer looked at sums to 1 over the edges that enter a node, and names them. */
START_TEST(attention)
{
    enum { N = 20, E = 60, H = 3 };
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    nsm_graph *g = layer_graph(ctx, N, E);
    void *layer = make(ctx);
    nsm_tape *tape = nsm_tape_new(ctx);
    nsm_tensor *x = nsm_tensor_new(ctx, NSM_F32, 2, (int64_t[]){ N, LAYER_IN });
    nsm_tensor_fill(x, 0.5f);
    nsm_attention a;
    ck_assert(nsm_gatv2_apply(tape, layer, g, x, NULL, &a));
    int64_t n = a.csr->nnz;
    ck_assert_int_ge(n, N); /* a loop each */
    int32_t *src = malloc((size_t)n * sizeof *src), *dst = malloc((size_t)n * sizeof *dst);
    float *p = malloc((size_t)(n * H) * sizeof *p);
    double sum[N][H] = { { 0 } };
    ck_assert_int_eq(nsm_attention_get(&a, src, dst, p), NSM_OK);
    for (int64_t e = 0; e < n; e++)
        for (int h = 0; h < H; h++) sum[dst[e]][h] += (double)p[e * H + h];
    for (int i = 0; i < N; i++)
        for (int h = 0; h < H; h++) ck_assert_double_eq_tol(sum[i][h], 1, 1e-5);
    free(src);
    free(dst);
    free(p);
    nsm_tape_free(tape);
    nsm_tensor_free(x);
    release(layer);
    nsm_graph_free(g);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(errors)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    ck_assert(!nsm_gatv2_new(ctx, &(nsm_gatv2_config){ .in_channels = 0, .out_channels = 3 }));
    ck_error(ctx, NSM_EINVAL);
    ck_assert(!nsm_gatv2_new(ctx, &(nsm_gatv2_config){ .in_channels = 4, .out_channels = 3, .heads = -1 }));
    ck_error(ctx, NSM_EINVAL);
    ck_assert(!nsm_gatv2_new(ctx, &(nsm_gatv2_config){ .in_channels = 4, .out_channels = 3, .attn_dropout = 1.5f }));
    ck_error(ctx, NSM_EINVAL);
    int32_t src[] = { 0, 1 }, dst[] = { 0, 2 };
    nsm_graph *plain = nsm_graph_new(ctx, 3, 2, src, dst), *few = nsm_graph_bipartite(ctx, 2, 3, 2, src, dst);
    void *layer = make(ctx);
    nsm_tape *tape = nsm_tape_new(ctx);
    nsm_tensor *x = nsm_tensor_new(ctx, NSM_F32, 2, (int64_t[]){ 3, LAYER_IN });
    nsm_tensor_zero(x);
    ck_assert(!nsm_gatv2_apply(tape, layer, plain, x, NULL, NULL)); /* no edge features */
    ck_error(ctx, NSM_EINVAL);
    ck_assert(!nsm_gatv2_apply(tape, layer, plain, x, x, NULL)); /* not [E, K] */
    ck_error(ctx, NSM_ESHAPE);
    ck_assert(!nsm_gatv2_apply(tape, layer, few, x, NULL, NULL)); /* fewer sources than destinations */
    ck_error(ctx, NSM_ESHAPE);
    nsm_tape_free(tape);
    nsm_tensor_free(x);
    release(layer);
    nsm_graph_free(plain);
    nsm_graph_free(few);
    nsm_ctx_free(ctx);
}
END_TEST

int main(void)
{
    return test_main("gatv2", (const TTest *const[]){ fixture, permutation, threads, memory, sparse, common_errors, attention, errors, NULL });
}
