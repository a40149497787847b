/* tests/graph/layer.c - See layer.h. */
#include "config.h"
#include "tests/graph/layer.h"
#ifdef HAVE_HDF5
#include "tests/fixture.h"
extern const oracle_kind oracle_graph[];
#endif

nsm_graph *layer_graph(nsm_ctx *ctx, int64_t n, int64_t edges)
{
    int32_t *end = malloc((size_t)edges * 2 * sizeof *end);
    float *feature = malloc((size_t)(edges * LAYER_EDGE) * sizeof *feature),
          *u = malloc((size_t)edges * 2 * sizeof *u);
    test_random(7, edges * 2, u);
    test_random(8, edges * LAYER_EDGE, feature);
    /* the sources crowd at low numbers; the last node stays alone */
    for (int64_t k = 0; k < edges; k++) {
        float a = u[k] * u[k], b = fabsf(u[edges + k]);
        end[k] = (int32_t)(a * (float)(n - 1)) % (int32_t)(n - 1);
        end[edges + k] = k % 9 == 0   ? end[k]
                         : k % 3 == 0 ? 1
                                      : (int32_t)(b * (float)(n - 1)) % (int32_t)(n - 1);
    }
    nsm_graph *g = nsm_graph_new(ctx, n, edges, end, end + edges);
    nsm_graph_set_features(g, LAYER_EDGE, feature);
    for (int64_t k = 0; k < edges; k++) end[k] = (int32_t)(k % 7 % (LAYER_TYPES - 1));
    nsm_graph_set_types(g, LAYER_TYPES, end);
    free(end);
    free(feature);
    free(u);
    return g;
}

void layer_each(const test_layer *table, void (*run)(const test_layer *l))
{
    for (; table->fixture; table++) run(table);
}

void layer_fixture(const test_layer *l)
{
#ifdef HAVE_HDF5
    char path[1024], why[256];
    double error;
    const char *what;
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    snprintf(path, sizeof path, "%s/tests/fixtures/%s.h5", test_srcdir(), l->fixture);
    fixture *f = fixture_open(ctx, path, why);
    ck_assert_msg(f != NULL, "%s: %s", path, why);
    const oracle_kind *k = oracle_graph;
    while (k->system && (strcmp(k->system, fixture_system(f)) || strcmp(k->kind, fixture_kind(f))))
        k++;
    ck_assert(k->system);
    k->run(f);
    ck_assert_msg(fixture_verdict(f, &error, &what), "%s %g", what, error);
    fixture_close(f);
    nsm_ctx_free(ctx);
#else
    (void)l;
#endif
}

/* The layer's result on g, on the host; gradient: of the parameters, one after the other, added to
 * room. */
typedef struct { float *y; int64_t count; float *grad; int64_t grads; } result;

static int take_grad(void *user, const char *name, nsm_tensor *t, bool buffer)
{
    result *r = user;
    (void)name;
    (void)buffer;
    r->grad = realloc(r->grad, (size_t)(r->grads + nsm_numel(t)) * sizeof(float));
    nsm_tensor_get_grad(t, r->grad + r->grads);
    r->grads += nsm_numel(t);
    return 0;
}

static result compute(const test_layer *l, void *layer, const nsm_graph *g, nsm_tensor *x,
                      bool back)
{
    result r = { 0 };
    nsm_ctx *ctx = g->ctx;
    nsm_tape *tape = nsm_tape_new(ctx);
    nsm_tensor *y = l->apply(tape, layer, g, x);
    ck_ok(ctx);
    r.count = nsm_numel(y);
    r.y = malloc((size_t)r.count * sizeof *r.y);
    nsm_tensor_get(y, r.y);
    if (back) {
        float *cotangent = malloc((size_t)r.count * sizeof *cotangent);
        test_random(3, r.count, cotangent);
        nsm_module_zero_grad(l->module(layer));
        nsm_tensor_zero_grad(x);
        nsm_tape_seed(tape, y, cotangent);
        nsm_tape_backward(tape, NULL);
        ck_ok(ctx);
        nsm_module_walk(l->module(layer), take_grad, &r);
        if (x->needs_grad) take_grad(&r, "x", x, false);
        free(cotangent);
    }
    nsm_tape_free(tape);
    return r;
}

static nsm_tensor *features(nsm_ctx *ctx, int64_t n)
{
    float *host = malloc((size_t)(n * LAYER_IN) * sizeof *host);
    test_random(5, n * LAYER_IN, host);
    nsm_tensor *x = nsm_tensor_from(ctx, NSM_F32, 2, (int64_t[]){ n, LAYER_IN }, host);
    if (x) x->needs_grad = true;
    free(host);
    return x;
}

void layer_permutation(const test_layer *l)
{
    enum { N = 50 };
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    nsm_graph *g = layer_graph(ctx, N, 170);
    nsm_tensor *x = features(ctx, N), *moved = features(ctx, N);
    void *layer = l->make(ctx);
    float host[N * LAYER_IN], other[N * LAYER_IN];
    int32_t place[N];
    for (int i = 0; i < N; i++) place[i] = (i * 7 + 3) % N;
    nsm_tensor_get(x, host);
    for (int i = 0; i < N; i++)
        memcpy(other + place[i] * LAYER_IN, host + i * LAYER_IN, LAYER_IN * sizeof *host);
    nsm_tensor_set(moved, other);
    nsm_graph *h = nsm_graph_permuted(g, place);
    result a = compute(l, layer, g, x, false), b = compute(l, layer, h, moved, false);
    int64_t width = a.count / N;
    for (int i = 0; i < N; i++)
        ck_assert(test_difference(a.y + i * width, b.y + place[i] * width, width, 0.1) < 1e-5);
    free(a.y);
    free(b.y);
    l->free(layer);
    nsm_tensor_free(x);
    nsm_tensor_free(moved);
    nsm_graph_free(g);
    nsm_graph_free(h);
    nsm_ctx_free(ctx);
}

void layer_threads(const test_layer *l)
{
    enum { N = 3000, E = 60000 };
    static const int threads[] = { 1, 2, 3, 5 };
    result first = { 0 };
    for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) {
        nsm_ctx *ctx = nsm_ctx_new(&(nsm_ctx_config){ .threads = threads[i], .seed = 11 });
        nsm_graph *g = layer_graph(ctx, N, E);
        nsm_tensor *x = features(ctx, N);
        void *layer = l->make(ctx);
        result r = compute(l, layer, g, x, true);
        if (i == 0) first = r;
        ck_assert_msg(!memcmp(r.y, first.y, (size_t)r.count * sizeof(float)),
                      "the result of %d threads differs", threads[i]);
        ck_assert_msg(!memcmp(r.grad, first.grad, (size_t)r.grads * sizeof(float)),
                      "the gradients of %d threads differ", threads[i]);
        if (i > 0) {
            free(r.y);
            free(r.grad);
        }
        l->free(layer);
        nsm_tensor_free(x);
        nsm_graph_free(g);
        nsm_ctx_free(ctx);
    }
    free(first.y);
    free(first.grad);
}

static const test_layer *under_test;

static void once(nsm_ctx *ctx)
{
    const test_layer *l = under_test;
    nsm_random start = nsm_random_get(ctx);
    nsm_graph *g = layer_graph(ctx, 9, 20);
    nsm_tensor *x = features(ctx, 9);
    void *layer = l->make(ctx);
    nsm_tape *tape = nsm_tape_new(ctx);
    nsm_tensor *y = g && x && layer ? l->apply(tape, layer, g, x) : NULL;
    float ones[9 * 64];
    for (int i = 0; i < 9 * 64; i++) ones[i] = 1;
    if (y) nsm_tape_seed(tape, y, ones);
    if (tape) nsm_tape_backward(tape, NULL);
    nsm_tape_free(tape);
    if (layer) l->free(layer);
    nsm_tensor_free(x);
    nsm_graph_free(g);
    nsm_random_set(ctx, start);
}

void layer_memory(const test_layer *l)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    under_test = l;
    ck_assert_int_gt(test_brutal(once, ctx), 20);
    nsm_ctx_free(ctx);
}

void layer_sparse(const test_layer *l)
{
    enum { N = 40 };
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    nsm_graph *g = layer_graph(ctx, N, 120);
    nsm_tensor *x = features(ctx, N);
    void *layer = l->make(ctx);
    float host[N * LAYER_IN], value[N * LAYER_IN];
    int32_t row[N * LAYER_IN], col[N * LAYER_IN];
    int64_t nnz = 0;
    nsm_tensor_get(x, host);
    for (int i = 0; i < N * LAYER_IN; i++) {
        if (i % 3) {
            host[i] = 0;
            continue;
        }
        row[nnz] = i / LAYER_IN;
        col[nnz] = i % LAYER_IN;
        value[nnz++] = host[i];
    }
    nsm_tensor_set(x, host);
    x->needs_grad = false;
    nsm_csr *m = nsm_csr_new(ctx, N, LAYER_IN, nnz, row, col, false);
    /* made in row order, so csr order is the same */
    nsm_tensor *s = nsm_tensor_sparse(ctx, m, value);
    result a = compute(l, layer, g, x, true), b = compute(l, layer, g, s, true);
    ck_assert_int_eq(a.count, b.count);
    ck_assert(test_difference(b.y, a.y, a.count, 0.1) < 1e-5);
    ck_assert(test_difference(b.grad, a.grad, a.grads, 0.1) < 1e-5);
    free(a.y);
    free(a.grad);
    free(b.y);
    free(b.grad);
    l->free(layer);
    nsm_tensor_free(x);
    nsm_tensor_free(s);
    nsm_csr_free(m);
    nsm_graph_free(g);
    nsm_ctx_free(ctx);
}

void layer_errors(const test_layer *l)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    nsm_graph *g = layer_graph(ctx, 9, 20);
    nsm_tensor *x = features(ctx, 9), *short_x = features(ctx, 8);
    void *layer = l->make(ctx);
    nsm_tape *tape = nsm_tape_new(ctx);
    ck_assert(!l->apply(tape, layer, g, NULL));
    ck_ok(ctx);
    ck_assert(!l->apply(tape, layer, g, short_x));
    ck_assert(!l->apply(tape, layer, g, x)); /* the error stands */
    ck_error(ctx, NSM_ESHAPE);
    ck_assert(l->apply(tape, layer, g, x));
    ck_ok(ctx);
    nsm_tape_free(tape);
    l->free(layer);
    nsm_tensor_free(x);
    nsm_tensor_free(short_x);
    nsm_graph_free(g);
    nsm_ctx_free(ctx);
}
