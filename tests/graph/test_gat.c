/* tests/graph/test_gat.c - Both graph attention layers, by the same cases. */
#include "config.h"
#include "graph/gat.h"
#include "graph/gatv2.h"
#include "tests/graph/layer.h"

enum { HEADS = 3 };

typedef struct {
    void *(*make)(nsm_ctx *ctx, int in, int heads, float attn_dropout);
    nsm_tensor *(*apply)(nsm_tape *tape, void *layer, const nsm_graph *g, nsm_tensor *x,
                         nsm_tensor *edge, nsm_attention *attention);
    void (*free)(void *layer);
} attention_layer;

/* The functions of a layer, gat or gatv2, behind the types of both tables. */
#define FUNCTIONS(kind) \
    static void *kind##_new(nsm_ctx *ctx, int in, int heads, float attn_dropout) \
    { \
        return nsm_##kind##_new(ctx, &(nsm_##kind##_config){ .in_channels = in, \
                                                             .out_channels = 5, \
                                                             .heads = heads, \
                                                             .edge_dim = LAYER_EDGE, \
                                                             .act = NSM_ACT_ELU, \
                                                             .attn_dropout = attn_dropout }); \
    } \
    static nsm_tensor *kind##_attend(nsm_tape *tape, void *layer, const nsm_graph *g, \
                                     nsm_tensor *x, nsm_tensor *edge, nsm_attention *attention) \
    { \
        return nsm_##kind##_apply(tape, layer, g, x, edge, attention); \
    } \
    static nsm_tensor *kind##_apply(nsm_tape *tape, void *layer, const nsm_graph *g, \
                                    nsm_tensor *x) \
    { \
        return nsm_##kind##_apply(tape, layer, g, x, NULL, NULL); \
    } \
    static void *kind##_make(nsm_ctx *ctx) { return kind##_new(ctx, LAYER_IN, HEADS, 0); } \
    static nsm_module *kind##_module(void *layer) { return nsm_##kind##_module(layer); } \
    static void kind##_free(void *layer) { nsm_##kind##_free(layer); }
FUNCTIONS(gat)
FUNCTIONS(gatv2)

static const test_layer layers[] = {
    { "gat/edge_features", gat_make, gat_apply, gat_module, gat_free },
    { "gatv2/edge_features", gatv2_make, gatv2_apply, gatv2_module, gatv2_free },
    { NULL, NULL, NULL, NULL, NULL },
};
LAYER_TESTS(layers)

static const attention_layer both[] = { { gat_new, gat_attend, gat_free },
                                        { gatv2_new, gatv2_attend, gatv2_free } };

/* What the layer looked at sums to 1 over the edges that enter a node, and names them. */
static void check_attention(const attention_layer *l)
{
    enum { N = 20, E = 60 };
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    nsm_graph *g = layer_graph(ctx, N, E);
    void *layer = l->make(ctx, LAYER_IN, HEADS, 0);
    nsm_tape *tape = nsm_tape_new(ctx);
    nsm_tensor *x = nsm_tensor_new(ctx, NSM_F32, 2, (int64_t[]){ N, LAYER_IN });
    nsm_tensor_fill(x, 0.5f);
    nsm_attention a;
    ck_assert(l->apply(tape, layer, g, x, NULL, &a));
    int64_t n = a.csr->nnz;
    ck_assert_int_ge(n, N); /* a loop each */
    int32_t *src = malloc((size_t)n * sizeof *src), *dst = malloc((size_t)n * sizeof *dst);
    float *p = malloc((size_t)(n * HEADS) * sizeof *p);
    double sum[N][HEADS] = { { 0 } };
    ck_assert_int_eq(nsm_attention_get(&a, src, dst, p), NSM_OK);
    for (int64_t e = 0; e < n; e++)
        for (int h = 0; h < HEADS; h++) sum[dst[e]][h] += (double)p[e * HEADS + h];
    for (int i = 0; i < N; i++)
        for (int h = 0; h < HEADS; h++) ck_assert_double_eq_tol(sum[i][h], 1, 1e-5);
    free(src);
    free(dst);
    free(p);
    nsm_tape_free(tape);
    nsm_tensor_free(x);
    l->free(layer);
    nsm_graph_free(g);
    nsm_ctx_free(ctx);
}
START_TEST(attention)
{
    for (int i = 0; i < 2; i++) check_attention(&both[i]);
}
END_TEST

static void check_errors(const attention_layer *l)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    ck_assert(!l->make(ctx, 0, HEADS, 0));
    ck_error(ctx, NSM_EINVAL);
    ck_assert(!l->make(ctx, 4, -1, 0));
    ck_error(ctx, NSM_EINVAL);
    ck_assert(!l->make(ctx, 4, HEADS, 1.5f));
    ck_error(ctx, NSM_EINVAL);
    int32_t src[] = { 0, 1 }, dst[] = { 0, 2 };
    nsm_graph *plain = nsm_graph_new(ctx, 3, 2, src, dst),
              *few = nsm_graph_bipartite(ctx, 2, 3, 2, src, dst);
    void *layer = l->make(ctx, LAYER_IN, HEADS, 0);
    nsm_tape *tape = nsm_tape_new(ctx);
    nsm_tensor *x = nsm_tensor_new(ctx, NSM_F32, 2, (int64_t[]){ 3, LAYER_IN });
    nsm_tensor_zero(x);
    ck_assert(!l->apply(tape, layer, plain, x, NULL, NULL)); /* no edge features */
    ck_error(ctx, NSM_EINVAL);
    ck_assert(!l->apply(tape, layer, plain, x, x, NULL)); /* not [E, K] */
    ck_error(ctx, NSM_ESHAPE);
    ck_assert(!l->apply(tape, layer, few, x, NULL, NULL)); /* fewer sources than destinations */
    ck_error(ctx, NSM_ESHAPE);
    nsm_tape_free(tape);
    nsm_tensor_free(x);
    l->free(layer);
    nsm_graph_free(plain);
    nsm_graph_free(few);
    nsm_ctx_free(ctx);
}
START_TEST(errors)
{
    for (int i = 0; i < 2; i++) check_errors(&both[i]);
}
END_TEST

int main(void)
{
    return test_main("gat", (const TTest *const[]){ fixture, permutation, threads, memory, sparse,
                                                    common_errors, attention, errors, NULL });
}
