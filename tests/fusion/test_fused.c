/* tests/fusion/test_fused.c - The fused model: a graph's neighbours, words, pictures and questions
 * together.
 *
 * Every combination of modalities is tried: gradients reach every parameter; the order of
 * neighbours does not matter, nor what is absent; sampled blocks that hold the whole graph give
 * what the whole graph gives; a pointer points at what is there, wherever it stands; each word gets
 * an answer of its own; a set has no first node; a missing or unwanted part, a row out of range, a
 * bad configuration are errors; every allocation fails in turn. */
#include "config.h"
#include "base/ops.h"
#include "fusion/fused.h"
#include "tests/test.h"

enum {
    NODES = 7,
    EDGES = 9,
    RELATIONS = 3,
    B = 3,
    M = 3,
    T = 5,
    V = 11,
    F = 4,
    C = 6,
    Q = 4,
    R = 2
};
enum { NO_PICTURE, STEM, PATCHES };
static const int32_t src[EDGES] = { 0, 1, 2, 3, 4, 5, 6, 1, 2 },
                     dst[EDGES] = { 1, 2, 0, 2, 3, 4, 5, 0, 2 },
                     type[EDGES] = { 0, 1, 2, 0, 1, 2, 0, 1, 1 };
/* Things 2, 0, 5: themselves, then what enters them. */
static const int32_t element[B * M] = { 2, 1, 3, 0, 2, 1, 5, 6, 0 },
                     relation[B * M] = { 3, 1, 0, 3, 2, 1, 3, 0, 0 }, elements[B] = { 3, 3, 2 };
static const int32_t word[B * T] = { 1, 2, 3, 4, 5, 6, 7, 0, 0, 0, 8, 9, 10, 1, 0 },
                     words[B] = { 5, 2, 0 };

typedef struct {
    nsm_ctx *ctx;
    nsm_fused *model;
    nsm_graph *graph;
    nsm_tape *tape;
    bool has_graph, has_text, asked, has_picture;
} subject;

static subject subject_with(nsm_ctx *ctx, bool graph, bool text, bool asked, int picture,
                            nsm_fused_head head, bool sets)
{
    subject s = { ctx, NULL, NULL, NULL, graph, text, asked, picture > 0 };
    nsm_image_config stem = { 0 };
    nsm_patch_config patch = { 0 };
    if (picture == STEM)
        stem = (nsm_image_config){ .channels = 2, .height = 12, .width = 12, .layers = 2,
                                   .filters = { 5, 5 } };
    if (picture == PATCHES)
        patch = (nsm_patch_config){ .channels = 2, .height = 12, .width = 12, .patch = { 4, 6 } };
    s.model = nsm_fused_new(ctx, &(nsm_fused_config){ .width = 8,
                                                      .outputs = C,
                                                      .head = head,
                                                      .sets = sets,
                                                      .fuser_options = "slots=6 heads=2",
                                                      .graph = graph,
                                                      .features = graph ? F : 0,
                                                      .shown = graph ? C : 0,
                                                      .relations = RELATIONS,
                                                      .bases = 2,
                                                      .image = stem,
                                                      .patch = patch,
                                                      .vocab = text ? V : 0,
                                                      .mixer_options = "heads=2 s=4",
                                                      .question_features = asked ? Q : 0 });
    s.graph = nsm_graph_new(ctx, NODES, EDGES, src, dst);
    if (s.graph) nsm_graph_set_types(s.graph, RELATIONS, type);
    s.tape = nsm_tape_new(ctx);
    return s;
}

static subject subject_of(nsm_ctx *ctx, bool graph, bool text, bool asked, int picture)
{
    return subject_with(ctx, graph, text, asked, picture, NSM_FUSED_CLASSES, false);
}

static void subject_free(subject *s)
{
    nsm_tape_free(s->tape);
    nsm_fused_free(s->model);
    nsm_graph_free(s->graph);
}

static nsm_tensor *numbers(subject *s, uint64_t seed, int64_t a, int64_t b, int64_t c)
{
    float *x = malloc((size_t)(a * b * (c ? c : 1)) * sizeof *x);
    test_random(seed, a * b * (c ? c : 1), x);
    nsm_tensor *t = nsm_tape_tensor(s->tape, NSM_F32, c ? 3 : 2, (int64_t[]){ a, b, c }, x);
    free(x);
    return t;
}

static nsm_tensor *rows(subject *s, int64_t a, int64_t b, const int32_t *x)
{
    return nsm_tape_tensor(s->tape, NSM_I32, b ? 2 : 1, (int64_t[]){ a, b }, x);
}

static nsm_fused_input input_of(subject *s, const int32_t *element_of, const int32_t *relation_of)
{
    nsm_fused_input in = { 0 };
    if (s->has_graph) {
        in.nodes = nsm_fused_nodes(s->tape, s->model, s->graph, NULL, numbers(s, 1, NODES, F, 0),
                                   numbers(s, 2, NODES, C, 0));
        in.element = rows(s, B, M, element_of);
        in.relation = rows(s, B, M, relation_of);
        in.elements = rows(s, B, 0, elements);
    }
    if (s->has_text) {
        in.word = rows(s, B, T, word);
        in.words = rows(s, B, 0, words);
    }
    if (s->has_picture) {
        static float x[B * 2 * 12 * 12];
        int64_t height, width;
        nsm_fused_picture_grid(s->model, &height, &width);
        int32_t all = (int32_t)(height * width), there[B] = { all, 0, all };
        test_random(4, B * 2 * 12 * 12, x);
        in.picture = nsm_tape_tensor(s->tape, NSM_F32, 4, (int64_t[]){ B, 2, 12, 12 }, x);
        in.pictures = rows(s, B, 0, there);
    }
    if (s->asked) in.question = numbers(s, 3, B, R, Q);
    return in;
}

static nsm_tensor *apply(subject *s, const int32_t *element_of, const int32_t *relation_of)
{
    nsm_fused_input in = input_of(s, element_of, relation_of);
    return nsm_fused_apply(s->tape, s->model, &in);
}

static int has_gradient(void *user, const char *name, nsm_tensor *t, bool buffer)
{
    float *g = malloc((size_t)nsm_numel(t) * sizeof *g), largest = 0;
    (void)user;
    if (!buffer) {
        nsm_tensor_get_grad(t, g);
        for (int64_t i = 0; i < nsm_numel(t); i++) largest = fmaxf(largest, fabsf(g[i]));
    }
    free(g);
    /* the fuser's own: tests/fusion/test_fusers.c (a state that nobody reached passes none on) */
    ck_assert_msg(buffer || largest > 0 || !strncmp(name, "fuser.", 6), "no gradient reaches %s",
                  name);
    return NSM_OK;
}

START_TEST(combinations)
{
    for (int k = 1; k < 24; k++) {
        bool graph = k & 1, text = k & 2, asked = k & 4;
        int picture = k >> 3;
        if (!graph && !text && !picture) continue;
        nsm_ctx *ctx = nsm_ctx_new(NULL);
        subject s = subject_of(ctx, graph, text, asked, picture);
        nsm_tensor *y = apply(&s, element, relation);
        ck_ok(ctx);
        ck_assert(y->rank == 3 && y->dim[0] == B && y->dim[1] == (asked ? R : 1) && y->dim[2] == C);
        int32_t answer[B * R] = { 0, 3, 5, 1, 2, 4 };
        int64_t n = B * y->dim[1];
        y = nsm_reshape(s.tape, y, 2, (int64_t[]){ n, C });
        nsm_tensor *l = nsm_cross_entropy(s.tape, y, rows(&s, n, 0, answer), NULL);
        ck_assert_int_eq(nsm_tape_backward(s.tape, l), NSM_OK);
        nsm_module_walk(nsm_fused_module(s.model), has_gradient, NULL);
        subject_free(&s);
        nsm_ctx_free(ctx);
    }
}
END_TEST

/* Without a modality: what is left tells, as in a set that has no element of it. */
START_TEST(missing)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    subject s = subject_of(ctx, true, true, false, STEM);
    const int32_t empty[B] = { 0 };
    float a[B * C], b[B * C];
    nsm_tape_inference(s.tape, true);
    for (int without = 0; without < 7; without++) { /* bits: graph, text, picture */
        nsm_fused_input in = input_of(&s, element, relation);
        if (without & 1) in.nodes = in.element = in.relation = in.elements = NULL;
        if (without & 2) in.word = in.words = NULL;
        if (without & 4) in.picture = in.pictures = NULL;
        nsm_tensor_get(nsm_fused_apply(s.tape, s.model, &in), a);
        ck_ok(ctx);
        for (int i = 0; i < B * C; i++) ck_assert(isfinite(a[i]));
        nsm_fused_input none = input_of(&s, element, relation);
        if (without & 1) none = in; /* a thing's own node is always there */
        if (!(without & 1) && (without & 2)) none.words = rows(&s, B, 0, empty);
        if (!(without & 1) && (without & 4)) none.pictures = rows(&s, B, 0, empty);
        nsm_tensor_get(nsm_fused_apply(s.tape, s.model, &none), b);
        ck_assert(test_difference(a, b, B * C, 1e-3) < 1e-5);
    }
    subject_free(&s);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(order) /* of neighbours; what stands where nobody is */
{
    static const int32_t turned[B * M] = { 2, 3, 1, 0, 1, 2, 5, 6, 4 },
                         turned_relation[B * M] = { 3, 0, 1, 3, 1, 2, 3, 0, 2 };
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    subject s = subject_of(ctx, true, true, false, NO_PICTURE);
    float a[B * C], b[B * C];
    nsm_tape_inference(s.tape, true);
    nsm_tensor_get(apply(&s, element, relation), a);
    nsm_tensor_get(apply(&s, turned, turned_relation), b);
    ck_ok(ctx);
    ck_assert(test_difference(a, b, B * C, 1e-3) < 1e-5);
    subject_free(&s);
    nsm_ctx_free(ctx);
}
END_TEST

/* Two layers on blocks whose sources and destinations are all nodes. */
START_TEST(blocks)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    subject s = subject_of(ctx, true, false, false, NO_PICTURE);
    nsm_graph *block[2] = { s.graph, s.graph };
    float a[NODES * 8], b[NODES * 8];
    nsm_tape_inference(s.tape, true);
    nsm_tensor *x = numbers(&s, 1, NODES, F, 0), *shown = numbers(&s, 2, NODES, C, 0);
    nsm_tensor_get(nsm_fused_nodes(s.tape, s.model, s.graph, NULL, x, shown), a);
    nsm_tensor_get(nsm_fused_nodes(s.tape, s.model, NULL, block, x, shown), b);
    ck_ok(ctx);
    ck_assert(test_difference(a, b, NODES * 8, 1e-3) < 1e-5);
    subject_free(&s);
    nsm_ctx_free(ctx);
}
END_TEST

/* Logits are the head over what is read; without a head, and without layers over the graph, the
 * rest is the same. */
START_TEST(read_before_head)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    subject s = subject_of(ctx, true, true, false, STEM);
    nsm_tape_inference(s.tape, true);
    nsm_fused_input in = input_of(&s, element, relation);
    nsm_tensor *z = nsm_fused_read(s.tape, s.model, &in);
    ck_ok(ctx);
    ck_assert(z->rank == 3 && z->dim[0] == B && z->dim[1] == 1 && z->dim[2] == 8);
    nsm_tensor *w = nsm_module_find(nsm_fused_module(s.model), "head.weight"),
               *bias = nsm_module_find(nsm_fused_module(s.model), "head.bias");
    float a[B * C], b[B * C];
    nsm_tensor_get(nsm_linear(s.tape, z, w, bias), a);
    nsm_tensor_get(nsm_fused_apply(s.tape, s.model, &in), b);
    ck_assert(test_difference(a, b, B * C, 1e-3) < 1e-6);
    nsm_fused *bare = nsm_fused_new(
        ctx, &(nsm_fused_config){
                 .width = 8, .graph = true, .relations = 3, .features = F, .gnn = "none" });
    ck_ok(ctx);
    ck_assert(!nsm_module_find(nsm_fused_module(bare), "head.weight"));
    nsm_tensor *x = numbers(&s, 1, NODES, F, 0),
               *h = nsm_fused_nodes(s.tape, bare, NULL, NULL, x, NULL);
    nsm_fused_input near = {
        .nodes = h, .element = in.element, .relation = in.relation, .elements = in.elements
    };
    ck_assert(h->dim[0] == NODES && nsm_fused_read(s.tape, bare, &near)->dim[2] == 8);
    ck_ok(ctx);
    ck_assert(!nsm_fused_apply(s.tape, bare, &near));
    ck_error(ctx, NSM_EINVAL);
    nsm_fused_free(bare);
    subject_free(&s);
    nsm_ctx_free(ctx);
}
END_TEST

static void train_once(subject *s, nsm_tensor *y, const int32_t *answer)
{
    int64_t n = nsm_numel(y) / y->dim[2];
    y = nsm_reshape(s->tape, y, 2, (int64_t[]){ n, y->dim[2] });
    nsm_tensor *l = nsm_cross_entropy(s->tape, y, rows(s, n, 0, answer), NULL);
    ck_assert_int_eq(nsm_tape_backward(s->tape, l), NSM_OK);
    nsm_module_walk(nsm_fused_module(s->model), has_gradient, NULL);
}

/* The logits follow the elements where these go; what is absent cannot be meant. */
START_TEST(pointer)
{
    static const int32_t turned[B * M] = { 2, 3, 1, 0, 1, 2, 5, 6, 4 },
                                    turned_relation[B * M] = { 3, 0, 1, 3, 1, 2, 3, 0, 2 },
                                    to[M] = { 0, 2, 1 }, answer[B * R] = { 0, 2, 1, -1, 0, 1 };
    for (int k = 0; k < 4; k++) {
        bool text = k & 1, asked = k & 2;
        nsm_ctx *ctx = nsm_ctx_new(NULL);
        subject s = subject_with(ctx, true, text, asked, text ? STEM : NO_PICTURE,
                                 NSM_FUSED_POINTER, false);
        int64_t readers = asked ? R : 1;
        float a[B * R * M], b[B * R * M];
        nsm_tensor *y = apply(&s, element, relation);
        ck_ok(ctx);
        ck_assert(y->rank == 3 && y->dim[0] == B && y->dim[1] == readers && y->dim[2] == M);
        nsm_tensor_get(y, a);
        nsm_tensor_get(apply(&s, turned, turned_relation), b);
        for (int64_t i = 0; i < B * readers; i++)
            for (int j = 0; j < M; j++) {
                bool there = j < elements[i / readers], last = i / readers == B - 1;
                float other = b[i * M + (last ? j : to[j])];
                ck_assert(there ? fabsf(a[i * M + j] - other) < 1e-4f : isinf(a[i * M + j]));
            }
        train_once(&s, y, answer);
        subject_free(&s);
        nsm_ctx_free(ctx);
    }
}
END_TEST

/* Every word is a reader: another word is told otherwise; words behind the text mean nothing. */
START_TEST(tokens)
{
    static const int32_t answer[B * T] = { 0, 1, -1, 2, 5, 3, 4, -1, -1, -1, -1, -1, -1, -1, -1 };
    for (int graph = 0; graph < 2; graph++) {
        nsm_ctx *ctx = nsm_ctx_new(NULL);
        subject s = subject_with(ctx, graph, true, false, graph ? PATCHES : NO_PICTURE,
                                 NSM_FUSED_TOKENS, false);
        float a[B * T * C];
        nsm_tensor *y = apply(&s, element, relation);
        ck_ok(ctx);
        ck_assert(y->rank == 3 && y->dim[0] == B && y->dim[1] == T && y->dim[2] == C);
        nsm_tensor_get(y, a);
        ck_assert(test_difference(a, a + C, C, 1e-3) > 1e-3);
        train_once(&s, y, answer);
        subject_free(&s);
        nsm_ctx_free(ctx);
    }
}
END_TEST

/* A set of nodes: no order at all, not even of the first. */
START_TEST(sets)
{
    static const int32_t turned[B * M] = { 1, 2, 3, 2, 1, 0, 6, 5, 4 },
                                    turned_relation[B * M] = { 1, 3, 0, 2, 1, 3, 0, 3, 2 };
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    subject s = subject_with(ctx, true, false, false, NO_PICTURE, NSM_FUSED_CLASSES, true),
            own = subject_of(ctx, true, false, false, NO_PICTURE);
    float a[B * C], b[B * C];
    nsm_tape_inference(s.tape, true);
    nsm_tensor_get(apply(&s, element, relation), a);
    nsm_tensor_get(apply(&s, turned, turned_relation), b);
    ck_ok(ctx);
    ck_assert(test_difference(a, b, B * C, 1e-3) < 1e-5);
    nsm_tensor_get(apply(&own, element, relation), a);
    nsm_tensor_get(apply(&own, turned, turned_relation), b);
    ck_ok(ctx);
    ck_assert(test_difference(a, b, B * C, 1e-3) > 1e-3);
    subject_free(&s);
    subject_free(&own);
    nsm_ctx_free(ctx);
}
END_TEST

static void refused_head(nsm_ctx *ctx, bool graph, bool text, bool asked, nsm_fused_head head)
{
    ck_assert(!nsm_fused_new(ctx, &(nsm_fused_config){ .width = 8,
                                                       .outputs = 2,
                                                       .head = head,
                                                       .graph = graph,
                                                       .relations = RELATIONS,
                                                       .features = F,
                                                       .vocab = text ? V : 0,
                                                       .question_features = asked ? Q : 0 }));
    ck_error(ctx, NSM_EINVAL);
}

START_TEST(head_errors)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    refused_head(ctx, false, true, false, NSM_FUSED_POINTER);
    refused_head(ctx, true, false, false, NSM_FUSED_TOKENS);
    refused_head(ctx, true, true, true, NSM_FUSED_TOKENS);
    for (int points = 0; points < 2; points++) {
        subject s = subject_with(ctx, true, true, false, NO_PICTURE,
                                 points ? NSM_FUSED_POINTER : NSM_FUSED_TOKENS, false);
        nsm_fused_input in = input_of(&s, element, relation);
        if (points) in.nodes = in.element = in.relation = in.elements = NULL;
        else in.word = in.words = NULL;
        ck_assert(!nsm_fused_apply(s.tape, s.model, &in));
        ck_error(ctx, NSM_EINVAL);
        subject_free(&s);
    }
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(errors)
{
    static const int32_t beyond[B * M] = { 2, 1, 3, 0, 7, 1, 5, 6, 0 };
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    ck_assert(!nsm_fused_new(ctx, &(nsm_fused_config){ .width = 8, .outputs = 2 }));
    ck_error(ctx, NSM_EINVAL);
    ck_assert(!nsm_fused_new(ctx, &(nsm_fused_config){ .width = 8, .outputs = 2, .graph = true }));
    ck_error(ctx, NSM_EINVAL);
    ck_assert(!nsm_fused_new(ctx, &(nsm_fused_config){ .width = 8, .outputs = -1, .vocab = 3 }));
    ck_error(ctx, NSM_EINVAL);
    ck_assert(!nsm_fused_new(ctx, &(nsm_fused_config){ .width = INT32_MAX, .outputs = 2,
                                                       .vocab = 3 }));
    ck_error(ctx, NSM_EINVAL);
    ck_assert(!nsm_fused_new(
        ctx, &(nsm_fused_config){ .width = 8, .outputs = 2, .vocab = 3, .fuser = "glue" }));
    ck_error(ctx, NSM_EINVAL);
    ck_assert(!nsm_fused_new(
        ctx, &(nsm_fused_config){ .width = 8, .outputs = 2, .vocab = 3, .mixer = "spoon" }));
    ck_error(ctx, NSM_EINVAL);
    subject s = subject_of(ctx, true, true, false, NO_PICTURE);
    nsm_fused_input in = input_of(&s, element, relation);
    nsm_fused_input half = in, more = in, none = { 0 };
    half.word = NULL;
    ck_assert(!nsm_fused_apply(s.tape, s.model, &half));
    ck_error(ctx, NSM_EINVAL);
    half = in;
    half.elements = NULL;
    ck_assert(!nsm_fused_apply(s.tape, s.model, &half));
    ck_error(ctx, NSM_EINVAL);
    ck_assert(!nsm_fused_apply(s.tape, s.model, &none));
    ck_error(ctx, NSM_EINVAL);
    more.question = numbers(&s, 3, B, R, Q);
    ck_assert(!nsm_fused_apply(s.tape, s.model, &more));
    ck_error(ctx, NSM_EINVAL);
    ck_assert(!apply(&s, beyond, relation));
    ck_error(ctx, NSM_EINVAL);
    ck_assert(!nsm_fused_nodes(s.tape, s.model, s.graph, NULL, NULL, NULL));
    ck_error(ctx, NSM_EINVAL);
    subject_free(&s);
    nsm_ctx_free(ctx);
}
END_TEST

static void run(nsm_ctx *ctx, nsm_fused_head head)
{
    bool asked = head != NSM_FUSED_TOKENS;
    subject s = subject_with(ctx, true, true, asked, PATCHES, head, false);
    nsm_tensor *y = s.tape && s.model && s.graph ? apply(&s, element, relation) : NULL;
    if (head == NSM_FUSED_POINTER) y = nsm_softmax(s.tape, y, -1);
    nsm_tape_backward(s.tape, nsm_sum(s.tape, y, NSM_ALL, false));
    subject_free(&s);
}

static void run_classes(nsm_ctx *ctx) { run(ctx, NSM_FUSED_CLASSES); }
static void run_pointer(nsm_ctx *ctx) { run(ctx, NSM_FUSED_POINTER); }
static void run_tokens(nsm_ctx *ctx) { run(ctx, NSM_FUSED_TOKENS); }

START_TEST(memory)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    ck_assert_int_gt(test_brutal(run_classes, ctx), 50);
    ck_assert_int_gt(test_brutal(run_pointer, ctx), 50);
    ck_assert_int_gt(test_brutal(run_tokens, ctx), 50);
    nsm_ctx_free(ctx);
}
END_TEST

int main(void)
{
    return test_main("fused", (const TTest *const[]){ combinations, missing, order, blocks,
                                                      read_before_head, pointer, tokens, sets,
                                                      head_errors, errors, memory, NULL });
}
