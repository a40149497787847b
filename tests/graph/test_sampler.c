/* tests/graph/test_sampler.c - What is drawn is a subset of the neighbours, the same for any
 * threads, and on all neighbours a sampled model gives what the whole graph does. */
#include "config.h"
#include "graph/gnn.h"
#include "graph/sampler.h"
#include "tests/graph/layer.h"

enum { N = 2000, E = 30000, F = 5, BATCH = 64 };

typedef struct { int64_t *ptr; int32_t *idx; float *x; } data;

static data make_data(nsm_ctx *ctx)
{
    data d = { malloc((N + 1) * sizeof *d.ptr), malloc(E * sizeof *d.idx),
               malloc(N * F * sizeof *d.x) };
    nsm_graph *g = layer_graph(ctx, N, E);
    ctx->dev.be->to_host(&ctx->dev, (N + 1) * sizeof *d.ptr, g->csr->fwd.ptr, d.ptr);
    ctx->dev.be->to_host(&ctx->dev, E * sizeof *d.idx, g->csr->fwd.idx, d.idx);
    test_random(1, N * F, d.x);
    nsm_graph_free(g);
    return d;
}

static void free_data(data *d)
{
    free(d->ptr);
    free(d->idx);
    free(d->x);
}

static nsm_sampler_config config(const data *d, const int *fan_out)
{
    return (nsm_sampler_config){ .nodes = N,
                                 .ptr = d->ptr,
                                 .idx = d->idx,
                                 .layers = 2,
                                 .fan_out = fan_out,
                                 .seeds = N,
                                 .batch = BATCH,
                                 .seed = 5,
                                 .features = F,
                                 .x = d->x };
}

/* The type of an edge, told by its ends. */
static int32_t type_of(int32_t from, int32_t to) { return (from * 3 + to * 5) % 11; }

/* How often node `from` enters node `to`. */
static int times(const data *d, int32_t from, int32_t to)
{
    int count = 0;
    for (int64_t e = d->ptr[to]; e < d->ptr[to + 1]; e++) count += d->idx[e] == from;
    return count;
}

static void check_block(const data *d, const nsm_batch *b, const nsm_graph *g, int fan_out)
{
    int64_t *ptr = calloc((size_t)g->nodes + 1, sizeof *ptr);
    int32_t *idx = malloc((size_t)g->edges * sizeof *idx),
            *dst = malloc((size_t)g->edges * sizeof *dst);
    nsm_graph_edges(g, idx, dst); /* given by rows, so in csr order */
    for (int64_t e = 0; e < g->edges; e++) ptr[dst[e] + 1]++;
    for (int64_t i = 0; i < g->nodes; i++) ptr[i + 1] += ptr[i];
    for (int64_t i = 0; i < g->nodes; i++) {
        int32_t node = b->node[i];
        int64_t degree = d->ptr[node + 1] - d->ptr[node], got = ptr[i + 1] - ptr[i];
        ck_assert_int_eq(got, fan_out < degree ? fan_out : degree);
        for (int64_t e = ptr[i]; e < ptr[i + 1]; e++) {
            int here = 0;
            for (int64_t k = ptr[i]; k < ptr[i + 1]; k++) here += idx[k] == idx[e];
            ck_assert_int_le(here, times(d, b->node[idx[e]], node)); /* without replacement */
        }
    }
    free(ptr);
    free(idx);
    free(dst);
}

START_TEST(subset)
{
    static const int fan_out[] = { 4, 40 };
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    data d = make_data(ctx);
    nsm_sampler_config c = config(&d, fan_out);
    nsm_sampler *s = nsm_sampler_new(ctx, &c);
    const nsm_batch *b;
    int64_t seen = 0, batches = 0, sum = 0;
    ck_assert_int_eq(nsm_sampler_start(s, 3, 0), NSM_OK);
    while ((b = nsm_sampler_next(s))) {
        float *x = malloc((size_t)b->nodes * F * sizeof *x);
        ck_assert_int_eq(b->number, batches++);
        check_block(&d, b, b->block[1], 4);
        check_block(&d, b, b->block[0], 40);
        ck_assert(b->block[1]->nodes == b->seeds && b->block[0]->nodes == b->block[1]->sources &&
                  b->block[0]->sources == b->nodes);
        nsm_tensor_get(b->x, x);
        for (int64_t i = 0; i < b->nodes; i++)
            ck_assert_mem_eq(x + i * F, d.x + b->node[i] * F, F * sizeof *x);
        for (int64_t i = 0; i < b->seeds; i++) sum += b->node[i];
        seen += b->seeds;
        free(x);
    }
    ck_ok(ctx);
    ck_assert_int_eq(batches, nsm_sampler_batches(s));
    ck_assert_int_eq(seen, N);
    ck_assert_int_eq(sum, (int64_t)N * (N - 1) / 2); /* every seed once */
    nsm_sampler_free(s);
    free_data(&d);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(types) /* sampled edges keep theirs */
{
    static const int fan_out[] = { 4, -1 };
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    data d = make_data(ctx);
    nsm_sampler_config c = config(&d, fan_out);
    int32_t *type = malloc(E * sizeof *type), *src = malloc(E * sizeof *src),
            *dst = malloc(E * sizeof *dst), *got = malloc(E * sizeof *got);
    for (int32_t i = 0; i < N; i++)
        for (int64_t e = d.ptr[i]; e < d.ptr[i + 1]; e++) type[e] = type_of(d.idx[e], i);
    c.types = 11;
    c.type = type;
    nsm_sampler *s = nsm_sampler_new(ctx, &c);
    const nsm_batch *b;
    ck_assert_int_eq(nsm_sampler_start(s, 0, 0), NSM_OK);
    while ((b = nsm_sampler_next(s)))
        for (int k = 0; k < 2; k++) {
            const nsm_graph *g = b->block[k];
            ck_assert_int_eq(g->types, 11);
            nsm_graph_edges(g, src, dst);
            nsm_tensor_get(g->type, got);
            for (int64_t e = 0; e < g->edges; e++)
                ck_assert_int_eq(got[e], type_of(b->node[src[e]], b->node[dst[e]]));
        }
    ck_ok(ctx);
    nsm_sampler_free(s);
    type[7] = 11;
    ck_assert(!nsm_sampler_new(ctx, &c));
    ck_error(ctx, NSM_EINVAL);
    free(type);
    free(src);
    free(dst);
    free(got);
    free_data(&d);
    nsm_ctx_free(ctx);
}
END_TEST

static uint64_t digest(const nsm_batch *b)
{
    uint64_t h = 1469598103934665603u;
    for (int64_t i = 0; i < b->nodes; i++) h = (h ^ (uint64_t)b->node[i]) * 1099511628211u;
    for (int k = 0; k < b->layers; k++) {
        int64_t edges = b->block[k]->edges;
        int32_t *src = malloc((size_t)edges * sizeof *src),
                *dst = malloc((size_t)edges * sizeof *dst);
        nsm_graph_edges(b->block[k], src, dst);
        for (int64_t e = 0; e < edges; e++)
            h = (h ^ (uint64_t)src[e] ^ (uint64_t)dst[e] << 32) * 1099511628211u;
        free(src);
        free(dst);
    }
    return h;
}

START_TEST(reproducible) /* by any number of threads, and when an epoch is entered in the middle */
{
    static const int fan_out[] = { 5, 3 };
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    data d = make_data(ctx);
    uint64_t want[N / BATCH + 1], other = 0;
    for (int workers = 1; workers <= 5; workers += 2)
        for (int64_t first = 0; first < 20; first += 7) {
            nsm_sampler_config c = config(&d, fan_out);
            c.workers = workers;
            nsm_sampler *s = nsm_sampler_new(ctx, &c);
            const nsm_batch *b;
            nsm_sampler_start(s, 9, 1); /* left at once */
            ck_assert(nsm_sampler_next(s));
            nsm_sampler_start(s, 2, first);
            while ((b = nsm_sampler_next(s))) {
                if (workers == 1 && first == 0) want[b->number] = digest(b);
                ck_assert_uint_eq(digest(b), want[b->number]);
            }
            nsm_sampler_start(s, 4, 0);
            other = digest(nsm_sampler_next(s));
            ck_ok(ctx);
            nsm_sampler_free(s);
        }
    ck_assert_uint_ne(other, want[0]); /* another epoch */
    free_data(&d);
    nsm_ctx_free(ctx);
}
END_TEST

static void deaf(nsm_device *d, int which)
{
    (void)d;
    (void)which;
}

/* Batches whose features are not the nodes'.  deaf_to: nobody waits for them to arrive. */
static int64_t wrong_batches(nsm_ctx *ctx, const data *d, bool deaf_to)
{
    static const int fan_out[] = { 5, 3 };
    const nsm_backend *be = ctx->dev.be;
    nsm_backend altered = *be;
    if (deaf_to) altered.arrive = deaf;
    ctx->dev.be = &altered;
    nsm_sampler_config c = config(d, fan_out);
    nsm_sampler *s = nsm_sampler_new(ctx, &c);
    int64_t wrong = 0, waits = ctx->dev.waits;
    const nsm_batch *b;
    for (int epoch = 0; epoch < 2; epoch++) {
        nsm_sampler_start(s, epoch, 0);
        while ((b = nsm_sampler_next(s))) {
            float *x = malloc((size_t)b->nodes * F * sizeof *x);
            ck_assert_int_eq(ctx->dev.waits, waits); /* none for a batch */
            nsm_tensor_get(b->x, x);
            waits = ctx->dev.waits;
            bool good = true;
            for (int64_t i = 0; good && i < b->nodes; i++)
                good = !memcmp(x + i * F, d->x + b->node[i] * F, F * sizeof *x);
            wrong += !good;
            free(x);
            if (epoch == 0 && b->number == 9) break; /* with the next one under way */
        }
    }
    ck_ok(ctx);
    nsm_sampler_free(s);
    ctx->dev.be = be;
    return wrong;
}

START_TEST(beside) /* features come beside the work before them, and are waited for */
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    data d = make_data(ctx);
    ck_assert_int_eq(wrong_batches(ctx, &d, false), 0);
    if (!strcmp(nsm_ctx_backend(ctx), "emulated")) /* where they are as late as can be */
        ck_assert_int_gt(wrong_batches(ctx, &d, true), 0);
    free_data(&d);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(whole) /* all neighbours: the same logits as on the whole graph */
{
    static const int fan_out[] = { -1, -1 };
    static const char *const kinds[] = { "sage", "gat", "gatv2" };
    for (size_t k = 0; k < 3; k++) {
        nsm_ctx *ctx = nsm_ctx_new(NULL);
        data d = make_data(ctx);
        nsm_sampler_config c = config(&d, fan_out);
        nsm_graph *g = layer_graph(ctx, N, E);
        nsm_tensor *x = nsm_tensor_from(ctx, NSM_F32, 2, (int64_t[]){ N, F }, d.x);
        nsm_gnn *gnn = nsm_gnn_new(ctx, &(nsm_gnn_config){ .kind = kinds[k],
                                                           .in_channels = F,
                                                           .hidden_channels = 8,
                                                           .out_channels = 3,
                                                           .heads = 2,
                                                           .residual = true });
        nsm_tape *tape = nsm_tape_new(ctx);
        float all[N * 3], part[BATCH * 3];
        nsm_tensor_get(nsm_gnn_apply(tape, gnn, g, x, NULL), all);
        nsm_sampler *s = nsm_sampler_new(ctx, &c);
        nsm_sampler_start(s, 0, 0);
        const nsm_batch *b = nsm_sampler_next(s);
        nsm_tensor_get(nsm_gnn_apply_blocks(tape, gnn, b->block, b->x, NULL), part);
        ck_ok(ctx);
        for (int64_t i = 0; i < b->seeds; i++)
            ck_assert_msg(test_difference(part + i * 3, all + b->node[i] * 3, 3, 0.1) < 1e-5,
                          "%s: seed %lld differs", kinds[k], (long long)i);
        nsm_tape_free(tape);
        nsm_sampler_free(s);
        nsm_gnn_free(gnn);
        nsm_tensor_free(x);
        nsm_graph_free(g);
        free_data(&d);
        nsm_ctx_free(ctx);
    }
}
END_TEST

static int broken(void *user, int64_t count, const int32_t *node, float *out)
{
    (void)user;
    (void)count;
    (void)node;
    (void)out;
    return NSM_EIO;
}

START_TEST(errors)
{
    static const int fan_out[] = { 5, 3 }, wrong[] = { 5, -2 };
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    data d = make_data(ctx);
    nsm_sampler_config c = config(&d, wrong);
    ck_assert(!nsm_sampler_new(ctx, &c));
    ck_error(ctx, NSM_EINVAL);
    c = config(&d, fan_out);
    int32_t seeds[] = { 3, N };
    c.seed_node = seeds;
    c.seeds = 2;
    ck_assert(!nsm_sampler_new(ctx, &c));
    ck_assert_msg(strstr(nsm_error_message(ctx), "seed 1"), "%s", nsm_error_message(ctx));
    ck_error(ctx, NSM_EINVAL);
    d.idx[17] = -4;
    ck_assert(!nsm_sampler_new(ctx, &c));
    ck_error(ctx, NSM_EINVAL);
    d.idx[17] = 0;
    c = config(&d, fan_out);
    c.read = broken;
    nsm_sampler *s = nsm_sampler_new(ctx, &c);
    nsm_sampler_start(s, 0, 0);
    ck_assert(!nsm_sampler_next(s));
    ck_error(ctx, NSM_EIO);
    ck_assert_int_eq(nsm_sampler_start(s, 0, 1000), NSM_EINVAL);
    nsm_error_clear(ctx);
    nsm_sampler_free(s);
    free_data(&d);
    nsm_ctx_free(ctx);
}
END_TEST

static data *shared_data;

static void build(nsm_ctx *ctx)
{
    static const int fan_out[] = { 5, 3 };
    nsm_sampler_config c = config(shared_data, fan_out);
    nsm_sampler *s = nsm_sampler_new(ctx, &c);
    nsm_sampler_start(s, 0, 0);
    nsm_sampler_next(s);
    nsm_sampler_next(s);
    nsm_sampler_free(s);
}

START_TEST(memory)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    data d = make_data(ctx);
    shared_data = &d;
    ck_assert_int_gt(test_brutal(build, ctx), 20);
    free_data(&d);
    nsm_ctx_free(ctx);
}
END_TEST

int main(void)
{
    return test_main("sampler", (const TTest *const[]){ subset, types, reproducible, beside, whole,
                                                        errors, memory, NULL });
}
