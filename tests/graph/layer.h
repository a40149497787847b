/* tests/graph/layer.h - The cases that every graph layer has; its test gives the layer as a table. */
#ifndef NSM_TEST_LAYER_H
#define NSM_TEST_LAYER_H
#include "graph/graph.h"
#include "tests/test.h"

enum { LAYER_IN = 6, LAYER_EDGE = 3 }; /* features of nodes and of edges */

typedef struct {
    const char *fixture; /* "gcn/edge_weight": replayed by tests/oracle_graph.c */
    void *(*make)(nsm_ctx *ctx);
    nsm_tensor *(*apply)(nsm_tape *tape, void *layer, const nsm_graph *g, nsm_tensor *x);
    nsm_module *(*module)(void *layer);
    void (*free)(void *layer);
} test_layer;

/* A graph of n nodes with loops, repeats, isolated nodes and LAYER_EDGE features an edge. */
nsm_graph *layer_graph(nsm_ctx *ctx, int64_t n, int64_t edges);

void layer_fixture(const test_layer *l);
/* Renaming the nodes renames the rows of the result. */
void layer_permutation(const test_layer *l);
/* The same result and gradients, bit for bit, for 1, 2, 3 and 5 threads, hubs and all. */
void layer_threads(const test_layer *l);
/* Every allocation of making, applying and walking back fails in turn. */
void layer_memory(const test_layer *l);
/* A sparse x gives what the same x dense does. */
void layer_sparse(const test_layer *l);
/* x NULL, an error that stands, x of another size. */
void layer_errors(const test_layer *l);

/* The test program of a layer. */
#define LAYER_TESTS(l)                                                   \
    START_TEST(fixture) { layer_fixture(l); } END_TEST                   \
    START_TEST(permutation) { layer_permutation(l); } END_TEST           \
    START_TEST(threads) { layer_threads(l); } END_TEST                   \
    START_TEST(memory) { layer_memory(l); } END_TEST                     \
    START_TEST(sparse) { layer_sparse(l); } END_TEST                     \
    START_TEST(common_errors) { layer_errors(l); } END_TEST

#endif
