/* tests/graph/test_igraph.c - There and back through igraph. */
#include "config.h"
#include "nsm-igraph.h"
#include "tests/graph/layer.h"

START_TEST(directed)
{
    enum { E = 40 };
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    nsm_graph *g = layer_graph(ctx, 12, E), *back;
    igraph_t ig;
    igraph_vector_t weight;
    int32_t a[2][E], b[2][E];
    float w[E];
    ck_assert_int_eq(nsm_graph_to_igraph(g, &ig), NSM_OK);
    ck_assert(igraph_vcount(&ig) == 12 && igraph_ecount(&ig) == E && igraph_is_directed(&ig));
    igraph_vector_init(&weight, E);
    for (int k = 0; k < E; k++) VECTOR(weight)[k] = k;
    back = nsm_graph_from_igraph(ctx, &ig, &weight);
    ck_ok(ctx);
    nsm_graph_edges(g, a[0], a[1]);
    nsm_graph_edges(back, b[0], b[1]);
    ck_assert_mem_eq(a, b, sizeof a);
    nsm_tensor_get(back->weight, w);
    for (int k = 0; k < E; k++) ck_assert_float_eq(w[k], (float)k);
    igraph_vector_resize(&weight, 3);
    ck_assert(!nsm_graph_from_igraph(ctx, &ig, &weight));
    ck_error(ctx, NSM_EINVAL);
    igraph_vector_destroy(&weight);
    igraph_destroy(&ig);
    nsm_graph_free(g);
    nsm_graph_free(back);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(undirected) /* both directions, a loop once */
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    igraph_t ig;
    igraph_small(&ig, 3, IGRAPH_UNDIRECTED, 0, 1, 2, 2, -1);
    nsm_graph *g = nsm_graph_from_igraph(ctx, &ig, NULL);
    int32_t src[3], dst[3];
    ck_assert(g && g->edges == 3);
    nsm_graph_edges(g, src, dst);
    ck_assert(src[0] == dst[1] && dst[0] == src[1] && src[0] != dst[0] && src[2] == 2 &&
              dst[2] == 2);
    igraph_destroy(&ig);
    nsm_graph_free(g);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(bipartite) /* the destinations come first */
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    igraph_t ig;
    int32_t src[] = { 0, 2 }, dst[] = { 1, 0 };
    nsm_graph *g = nsm_graph_bipartite(ctx, 3, 2, 2, src, dst);
    ck_assert_int_eq(nsm_graph_to_igraph(g, &ig), NSM_OK);
    ck_assert(igraph_vcount(&ig) == 5 && IGRAPH_FROM(&ig, 0) == 2 && IGRAPH_TO(&ig, 0) == 1 &&
              IGRAPH_FROM(&ig, 1) == 4);
    igraph_destroy(&ig);
    nsm_graph_free(g);
    nsm_ctx_free(ctx);
}
END_TEST

int main(void)
{
    return test_main("igraph", (const TTest *const[]){ directed, undirected, bipartite, NULL });
}
