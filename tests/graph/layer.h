/* tests/graph/layer.h - The cases that every graph layer has; its test gives the layer as a
 * table. */
#ifndef NSM_TEST_LAYER_H
#define NSM_TEST_LAYER_H
#include "graph/graph.h"
#include "tests/test.h"

/* Features of nodes and of edges; types of edges, of which the last has none. */
enum { LAYER_IN = 6, LAYER_EDGE = 3, LAYER_TYPES = 4 };

typedef struct {
    const char *fixture; /* "gcn/edge_weight": replayed by tests/oracle_graph.c */
    void *(*make)(nsm_ctx *ctx);
    nsm_tensor *(*apply)(nsm_tape *tape, void *layer, const nsm_graph *g, nsm_tensor *x);
    nsm_module *(*module)(void *layer);
    void (*free)(void *layer);
} test_layer;

/* A graph of n nodes with loops, repeats, isolated nodes, types, and LAYER_EDGE features
 * an edge. */
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

/* The case for each layer of a table; the last has no fixture. */
void layer_each(const test_layer *table, void (*run)(const test_layer *l));

/* The cases of a test program over its table. */
#define LAYER_TESTS(table)                                                \
    START_TEST(fixture) { layer_each(table, layer_fixture); } END_TEST         \
    START_TEST(permutation) { layer_each(table, layer_permutation); } END_TEST \
    START_TEST(threads) { layer_each(table, layer_threads); } END_TEST         \
    START_TEST(memory) { layer_each(table, layer_memory); } END_TEST           \
    START_TEST(sparse) { layer_each(table, layer_sparse); } END_TEST           \
    START_TEST(common_errors) { layer_each(table, layer_errors); } END_TEST

#endif
