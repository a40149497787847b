/* tests/graph/test_graph.c - The container: self loops, batches, orders, types, both directions. */
#include "config.h"
#include "graph/internal.h"
#include "graph/pool.h"
#include "tests/graph/layer.h"

START_TEST(bad_edges)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    int32_t src[] = { 0, 1, 5 }, dst[] = { 1, 2, 0 };
    ck_assert(!nsm_graph_new(ctx, 3, 3, src, dst));
    ck_assert_msg(strstr(nsm_error_message(ctx), "source of edge 2 is node 5, want 0..2"), "%s",
                  nsm_error_message(ctx));
    ck_error(ctx, NSM_EINVAL);
    src[2] = 1;
    dst[0] = -1;
    ck_assert(!nsm_graph_new(ctx, 3, 3, src, dst));
    ck_assert_msg(strstr(nsm_error_message(ctx), "destination of edge 0"), "%s",
                  nsm_error_message(ctx));
    ck_error(ctx, NSM_EINVAL);
    dst[0] = 0;
    nsm_graph *g = nsm_graph_new(ctx, 3, 3, src, dst);
    ck_assert_int_eq(nsm_graph_set_weights(g, (float[]){ 1, NAN, 1 }), NSM_EINVAL);
    ck_assert_msg(strstr(nsm_error_message(ctx), "edge 1"), "%s", nsm_error_message(ctx));
    ck_error(ctx, NSM_EINVAL);
    nsm_graph_free(g);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(given_order) /* edges come back as they were given, repeats and loops too */
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    int32_t src[] = { 2, 0, 1, 0, 2 }, dst[] = { 1, 1, 0, 1, 2 }, s[5], d[5];
    int64_t degree[3];
    nsm_graph *g = nsm_graph_new(ctx, 3, 5, src, dst);
    nsm_graph_edges(g, s, d);
    ck_assert_mem_eq(s, src, sizeof src);
    ck_assert_mem_eq(d, dst, sizeof dst);
    nsm_graph_degrees(g, degree);
    ck_assert(degree[0] == 1 && degree[1] == 3 && degree[2] == 1);
    nsm_graph_free(g);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(empty) /* no nodes, no edges */
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    nsm_graph *none = nsm_graph_new(ctx, 0, 0, NULL, NULL),
              *alone = nsm_graph_new(ctx, 4, 0, NULL, NULL);
    ck_ok(ctx);
    ck_assert(nsmi_graph_loops(none) && nsmi_graph_loops(none)->nnz == 0);
    ck_assert(nsmi_graph_loops(alone) && nsmi_graph_loops(alone)->nnz == 4);
    nsm_graph_free(none);
    nsm_graph_free(alone);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(symmetric)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    int32_t src[] = { 0, 1, 2, 1 }, dst[] = { 1, 0, 2, 2 };
    nsm_edges e;
    ck_assert_int_eq(nsm_edges_symmetric(ctx, 3, 4, src, dst, false, &e), NSM_OK);
    ck_assert_int_eq(e.count, 7); /* the loop once */
    nsm_edges_free(&e);
    ck_assert_int_eq(nsm_edges_symmetric(ctx, 3, 4, src, dst, true, &e), NSM_OK);
    ck_assert_int_eq(e.count, 5); /* 0-1 both ways, 1-2 both ways, the loop */
    for (int64_t k = 0; k < e.count; k++) {
        int32_t a = src[e.from[k]], b = dst[e.from[k]];
        ck_assert((e.src[k] == a && e.dst[k] == b) || (e.src[k] == b && e.dst[k] == a));
    }
    nsm_edges_free(&e);
    src[0] = 9;
    ck_assert_int_eq(nsm_edges_symmetric(ctx, 3, 4, src, dst, true, &e), NSM_EINVAL);
    ck_assert(!e.src);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(batch) /* a layer over a batch gives what it gives over each graph */
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    nsm_graph *part[3] = { layer_graph(ctx, 5, 9), layer_graph(ctx, 7, 20),
                           layer_graph(ctx, 3, 2) };
    nsm_graph *all = nsm_graph_batch(ctx, 3, part);
    ck_ok(ctx);
    ck_assert(all->nodes == 15 && all->edges == 31 && all->graphs == 3);
    float x[15], y[15], mean[3], one[7];
    test_random(2, 15, x);
    nsm_tape *tape = nsm_tape_new(ctx);
    nsm_tensor *t = nsm_tensor_from(ctx, NSM_F32, 2, (int64_t[]){ 15, 1 }, x);
    nsm_tensor_get(nsm_spmm(tape, all->csr, NULL, false, t), y);
    nsm_tensor_get(nsm_spmm(tape, all->member, NULL, true, t), mean);
    for (int64_t i = 0, at = 0; i < 3; at += part[i++]->nodes) {
        double sum = 0;
        nsm_tensor *own = nsm_tensor_from(ctx, NSM_F32, 2, (int64_t[]){ part[i]->nodes, 1 },
                                          x + at);
        nsm_tensor_get(nsm_spmm(tape, part[i]->csr, NULL, false, own), one);
        ck_assert_mem_eq(one, y + at, (size_t)part[i]->nodes * sizeof *one);
        for (int64_t k = 0; k < part[i]->nodes; k++) sum += (double)x[at + k];
        ck_assert_double_eq_tol(mean[i], sum / (double)part[i]->nodes, 1e-6);
        nsm_tensor_free(own);
    }
    float weight[20];
    test_random(9, 20, weight);
    nsm_graph_set_weights(part[1], weight);
    ck_assert(!nsm_graph_batch(ctx, 3, part)); /* graph 1 has weights, graph 0 has none */
    ck_error(ctx, NSM_EINVAL);
    nsm_tape_free(tape);
    nsm_tensor_free(t);
    nsm_graph_free(all);
    for (int i = 0; i < 3; i++) nsm_graph_free(part[i]);
    nsm_ctx_free(ctx);
}
END_TEST

static int64_t spread(const nsm_graph *g) /* how far apart the ends of edges stand, in all */
{
    int64_t sum = 0;
    int32_t *src = malloc((size_t)g->edges * sizeof *src),
            *dst = malloc((size_t)g->edges * sizeof *dst);
    nsm_graph_edges(g, src, dst);
    for (int64_t k = 0; k < g->edges; k++) sum += abs(src[k] - dst[k]);
    free(src);
    free(dst);
    return sum;
}

START_TEST(orders)
{
    enum { N = 400 };
    int32_t src[2 * N], dst[2 * N], place[N];
    int64_t edges = 0;
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    for (int i = 0; i < N; i++) { /* a ring whose names were shuffled */
        src[edges] = dst[edges + 1] = i * 37 % N;
        dst[edges] = src[edges + 1] = (i + 1) * 37 % N;
        edges += 2;
    }
    nsm_graph *g = nsm_graph_new(ctx, N, edges, src, dst);
    ck_assert_int_eq(nsm_graph_order(g, NSM_ORDER_RCM, place), NSM_OK);
    nsm_graph *near = nsm_graph_permuted(g, place);
    ck_ok(ctx);
    ck_assert_int_le(spread(near), 2 * edges);
    ck_assert_int_gt(spread(g), 10 * edges);
    nsm_graph *power = layer_graph(ctx, 300, 2000);
    ck_assert_int_eq(nsm_graph_order(power, NSM_ORDER_DEGREE, place), NSM_OK);
    nsm_graph *sorted = nsm_graph_permuted(power, place);
    int64_t degree[300];
    nsm_graph_degrees(sorted, degree);
    for (int i = 1; i < 300; i++) ck_assert_int_le(degree[i], degree[i - 1]);
    place[0] = place[1];
    ck_assert(!nsm_graph_permuted(power, place));
    ck_error(ctx, NSM_EINVAL);
    nsm_graph_free(g);
    nsm_graph_free(near);
    nsm_graph_free(power);
    nsm_graph_free(sorted);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(types)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    nsm_hetero *h = nsm_hetero_new(ctx);
    int32_t author[] = { 0, 1, 1 }, paper[] = { 2, 0, 1 }, src[5], dst[5];
    ck_assert_int_eq(nsm_hetero_add_nodes(h, "author", 2), 0);
    ck_assert_int_eq(nsm_hetero_add_nodes(h, "paper", 3), 1);
    ck_assert_int_eq(nsm_hetero_add_edges(h, "writes", 0, 1, 3, author, paper), 0);
    ck_assert_int_eq(nsm_hetero_add_edges(h, "cites", 1, 1, 2, paper, paper + 1), 1);
    ck_assert(nsm_hetero_find_nodes(h, "paper") == 1 && nsm_hetero_find_edges(h, "cites") == 1);
    ck_assert(nsm_hetero_find_edges(h, "likes") == -1);
    nsm_graph *flat = nsm_hetero_flat(h);
    ck_assert(flat && flat->nodes == 5 && flat->edges == 5);
    nsm_graph_edges(flat, src, dst);
    ck_assert(src[0] == 0 && dst[0] == 4 && src[3] == 4 && dst[3] == 2);
    ck_assert_int_lt(nsm_hetero_add_nodes(h, "paper", 3), 0);
    ck_error(ctx, NSM_EINVAL);
    ck_assert_int_lt(nsm_hetero_add_edges(h, "reads", 0, 7, 3, author, paper), 0);
    ck_error(ctx, NSM_EINVAL);
    nsm_graph_free(flat);
    nsm_hetero_free(h);
    nsm_ctx_free(ctx);
}
END_TEST

/* Both pooling layers on a batch, forward and back. */
static void pool_all(nsm_ctx *ctx, nsm_graph *g)
{
    float host[9 * 3];
    test_random(6, 9 * 3, host);
    nsm_random start = nsm_random_get(ctx);
    nsm_tensor *x = nsm_tensor_from(ctx, NSM_F32, 2, (int64_t[]){ 9, 3 }, host);
    nsm_attention_pool *p = nsm_attention_pool_new(ctx, &(nsm_attention_pool_config){
                                                            .in_channels = 3, .out_channels = 2 });
    nsm_graph_norm *norm = nsm_graph_norm_new(ctx, 3, 0);
    nsm_tape *tape = nsm_tape_new(ctx);
    nsm_tensor *y = nsm_attention_pool_apply(tape, p, g, nsm_graph_norm_apply(tape, norm, g, x));
    if (tape) nsm_tape_backward(tape, nsm_sum(tape, y, NSM_ALL, false));
    nsm_tape_free(tape);
    nsm_attention_pool_free(p);
    nsm_graph_norm_free(norm);
    nsm_tensor_free(x);
    nsm_random_set(ctx, start);
}

START_TEST(pool_errors)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    ck_assert(!nsm_graph_norm_new(ctx, 0, 0));
    ck_error(ctx, NSM_EINVAL);
    ck_assert(!nsm_attention_pool_new(ctx, &(nsm_attention_pool_config){ .in_channels = 3 }));
    ck_error(ctx, NSM_EINVAL);
    nsm_graph *g = layer_graph(ctx, 9, 20); /* one graph, without members until they are wanted */
    nsm_tape *tape = nsm_tape_new(ctx);
    nsm_tensor *x = nsm_tensor_new(ctx, NSM_F32, 2, (int64_t[]){ 9, 3 }), *y;
    nsm_tensor_fill(x, 2);
    y = nsm_pool_mean(tape, g, x);
    float mean[3];
    ck_assert(y && y->dim[0] == 1 && nsm_tensor_get(y, mean) == NSM_OK && mean[1] == 2);
    nsm_graph_norm *norm = nsm_graph_norm_new(ctx, 4, 0);
    ck_assert(!nsm_graph_norm_apply(tape, norm, g, x));
    ck_error(ctx, NSM_ESHAPE);
    int32_t of[9] = { 0, 1, 2 };
    ck_assert_int_eq(nsm_graph_set_members(g, 2, of), NSM_EINVAL);
    ck_assert_msg(strstr(nsm_error_message(ctx), "node 2 is 2"), "%s", nsm_error_message(ctx));
    nsm_error_clear(ctx);
    nsm_tape_free(tape);
    nsm_graph_norm_free(norm);
    nsm_tensor_free(x);
    nsm_graph_free(g);
    nsm_ctx_free(ctx);
}
END_TEST

static void build_all(nsm_ctx *ctx)
{
    nsm_graph *part[2] = { layer_graph(ctx, 4, 9), layer_graph(ctx, 5, 9) };
    nsm_graph *all = part[0] && part[1] ? nsm_graph_batch(ctx, 2, part) : NULL;
    int32_t place[9], src[9] = { 0 }, dst[9] = { 1 };
    pool_all(ctx, all);
    nsm_edges e;
    nsm_edges_symmetric(ctx, 4, 9, src, dst, true, &e);
    nsm_edges_free(&e);
    nsm_graph_order(part[0], NSM_ORDER_RCM, place);
    nsm_graph *moved = nsmi_failed(ctx) ? NULL : nsm_graph_permuted(part[0], place);
    nsm_hetero *h = nsm_hetero_new(ctx);
    nsm_hetero_add_nodes(h, "a", 3);
    nsm_hetero_add_edges(h, "b", 0, 0, 9, src, dst);
    nsm_graph *flat = nsm_hetero_flat(h);
    nsm_graph_free(flat);
    nsm_hetero_free(h);
    nsm_graph_free(moved);
    nsm_graph_free(all);
    nsm_graph_free(part[0]);
    nsm_graph_free(part[1]);
}

START_TEST(memory)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    ck_assert_int_gt(test_brutal(build_all, ctx), 50);
    nsm_ctx_free(ctx);
}
END_TEST

int main(void)
{
    return test_main("graph",
                     (const TTest *const[]){ bad_edges, given_order, empty, symmetric, batch,
                                             orders, types, pool_errors, memory, NULL });
}
