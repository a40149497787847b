/* bench/gnn.c - Full-batch training epochs, and each of their kernels beside its limit.
 *
 * One epoch is forward, cross entropy on all nodes, backward, Adam: two layers, relu between them,
 * no dropout.  Nothing is carried from one epoch to the next but GCN's normalised adjacency.
 *
 * Limits: a sparse product of E entries and F columns moves 8E + 4EF + 4NF bytes at the rate of
 * random rows of F floats; attention the same and 4EH twice, its backward twice that; a dense
 * product runs at OpenBLAS's best rate, or at triad speed where moving its matrices takes
 * longer. */
#include "config.h"
#include "base/internal.h"
#include "base/ops.h"
#include "base/optimizer.h"
#include "bench/gnn.h"
#include "graph/internal.h"

nsm_graph *bench_graph(nsm_ctx *ctx, int64_t nodes, int64_t edges, uint64_t seed)
{
    nsm_graph *g = NULL;
    nsm_edges both = { 0 };
    nsm_random draw = { .seed = seed };
    int32_t *src = nsmi_malloc(ctx, (size_t)(edges + nodes) * sizeof *src),
            *dst = nsmi_malloc(ctx, (size_t)(edges + nodes) * sizeof *dst);
    int32_t *name = nsmi_malloc(ctx, (size_t)nodes * sizeof *name);
    if (src && dst && name) {
        for (int64_t i = 0; i < nodes; i++) name[i] = (int32_t)i;
        for (int64_t i = nodes - 1; i > 0; i--) {
            int64_t k = (int64_t)(nsm_random_uniform(draw, (uint64_t)(2 * edges + i)) *
                                  (float)(i + 1));
            int32_t swap = name[i];
            name[i] = name[k];
            name[k] = swap;
        }
        for (int64_t k = 0; k < edges; k++) {
            double u = (double)nsm_random_uniform(draw, (uint64_t)(2 * k)),
                   v = (double)nsm_random_uniform(draw, (uint64_t)(2 * k + 1));
            src[k] = name[(int64_t)((double)nodes * u * u)];
            dst[k] = (int32_t)((double)nodes * v);
        }
        for (int64_t i = 0; i < nodes; i++) src[edges + i] = dst[edges + i] = (int32_t)i;
        if (nsm_edges_symmetric(ctx, nodes, edges + nodes, src, dst, true, &both) == NSM_OK)
            g = nsm_graph_new(ctx, nodes, both.count, both.src, both.dst);
    }
    nsm_edges_free(&both);
    free(src);
    free(dst);
    free(name);
    return g;
}

/* ---- the work ---- */
typedef struct {
    const bench_gnn_config *config;
    nsm_ctx *ctx;
    const nsm_graph *graph;
    nsm_graph *made;
    nsm_tensor *x, *y, *made_x, *made_y;
    nsm_csr *pattern;       /* of a sparse x */
    nsm_gnn *gnn;
    nsm_optimizer *optimizer;
    nsm_tape *tape;
    nsm_replay *replay;
} job;

/* nonzeros ones in each row, as in a bag of words. */
static nsm_tensor *sparse_features(job *j)
{
    const bench_gnn_config *c = j->config;
    int64_t nnz = c->nodes * c->nonzeros;
    int64_t *ptr = nsmi_malloc(j->ctx, (size_t)(c->nodes + 1) * sizeof *ptr);
    int32_t *idx = nsmi_malloc(j->ctx, (size_t)nnz * sizeof *idx);
    float *ones = nsmi_malloc(j->ctx, (size_t)nnz * sizeof *ones);
    for (int64_t i = 0; ptr && idx && ones && i <= c->nodes; i++) ptr[i] = i * c->nonzeros;
    /* one in each of as many parts of the columns */
    for (int64_t e = 0; ptr && idx && ones && e < nnz; e++) {
        int64_t part = e % c->nonzeros, first = part * c->features / c->nonzeros,
                end = (part + 1) * c->features / c->nonzeros;
        idx[e] = (int32_t)(first + (int64_t)nsm_random_below(j->ctx, (uint64_t)(end - first)));
        ones[e] = 1;
    }
    nsm_tensor *x = NULL;
    if (!nsmi_failed(j->ctx))
        j->pattern = nsm_csr_from_rows(j->ctx, c->nodes, c->features, ptr, idx, false);
    if (j->pattern) x = nsm_tensor_sparse(j->ctx, j->pattern, ones);
    free(ptr);
    free(idx);
    free(ones);
    return x;
}

static void make_data(job *j)
{
    const bench_gnn_config *c = j->config;
    nsm_graph *g = bench_graph(j->ctx, c->nodes, c->edges, c->seed);
    if (g && c->ordered) {
        int32_t *place = nsmi_malloc(j->ctx, (size_t)g->nodes * sizeof *place);
        nsm_graph *moved = place && nsm_graph_order(g, c->order, place) == NSM_OK
                               ? nsm_graph_permuted(g, place)
                               : NULL;
        free(place);
        nsm_graph_free(g);
        g = moved;
    }
    j->graph = j->made = g;
    j->made_x = c->nonzeros
                    ? sparse_features(j)
                    : nsm_tensor_new(j->ctx, NSM_F32, 2, (int64_t[]){ c->nodes, c->features });
    if (j->made_x && !c->nonzeros) nsm_init_normal(j->made_x, 0, 1);
    j->x = j->made_x;
    int32_t *label = nsmi_malloc(j->ctx, (size_t)c->nodes * sizeof *label);
    for (int64_t i = 0; label && i < c->nodes; i++)
        label[i] = (int32_t)nsm_random_below(j->ctx, (uint64_t)c->classes);
    if (label) j->y = j->made_y = nsm_tensor_from(j->ctx, NSM_I32, 1, &c->nodes, label);
    free(label);
}

static bool start(job *j)
{
    const bench_gnn_config *c = j->config;
    j->graph = c->graph;
    j->x = c->x;
    j->y = c->y;
    if (!c->graph) make_data(j);
    bool attends = c->kind && !strncmp(c->kind, "gat", 3);
    j->gnn = nsm_gnn_new(j->ctx, &(nsm_gnn_config){
                                     .kind = c->kind,
                                     .in_channels = j->x ? (int)j->x->dim[1] : 0,
                                     .hidden_channels = attends ? c->hidden / c->heads : c->hidden,
                                     .out_channels = c->classes,
                                     .heads = c->heads });
    j->optimizer = j->gnn ? nsm_optimizer_new(nsm_gnn_module(j->gnn),
                                              &(nsm_optimizer_config){ .kind = NSM_ADAM })
                          : NULL;
    j->replay = j->gnn ? nsm_replay_new(nsm_gnn_module(j->gnn)) : NULL;
    j->tape = nsm_tape_new(j->ctx);
    return !nsmi_failed(j->ctx);
}

static void finish(job *j)
{
    nsm_tape_free(j->tape);
    nsm_replay_free(j->replay);
    nsm_optimizer_free(j->optimizer);
    nsm_gnn_free(j->gnn);
    nsm_tensor_free(j->made_x);
    nsm_tensor_free(j->made_y);
    nsm_csr_free(j->pattern);
    nsm_graph_free(j->made);
}

static int pass(void *user)
{
    job *j = user;
    nsm_tensor *logits = nsm_gnn_apply(j->tape, j->gnn, j->graph, j->x, NULL);
    nsm_tape_backward(j->tape, nsm_cross_entropy(j->tape, logits, j->y, NULL));
    nsm_tape_reset(j->tape);
    return nsm_error(j->ctx);
}

static void epoch(job *j)
{
    nsm_replay_run(j->replay, 0, pass, j);
    nsm_optimizer_step(j->optimizer, 0.01);
}

int bench_warm(const nsm_replay *r) { return *nsm_replay_why(r) ? 1 : 4; }

int bench_rising(const void *a, const void *b)
{
    double d = *(const double *)a - *(const double *)b;
    return (d > 0) - (d < 0);
}

static void time_epochs(job *j, bench_gnn_result *r)
{
    int epochs = j->config->epochs;
    double *ms = nsmi_malloc(j->ctx, (size_t)epochs * sizeof *ms);
    for (int k = -bench_warm(j->replay); ms && k < epochs && !nsmi_failed(j->ctx); k++) {
        double begin = bench_seconds();
        epoch(j);
        j->ctx->dev.be->sync(&j->ctx->dev);
        if (k >= 0) ms[k] = 1e3 * (bench_seconds() - begin);
    }
    if (ms && !nsmi_failed(j->ctx)) {
        qsort(ms, (size_t)epochs, sizeof *ms, bench_rising);
        r->epoch_ms = ms[epochs / 2];
        r->epoch_ms_min = ms[0];
    }
    free(ms);
}

/* ---- kernels ---- */
typedef struct {
    nsm_device *d;
    const nsm_csr *m;
    int64_t n, f, k, heads;     /* rows, columns; inner size of a product */
    const float *a, *b, *w;
    float *y, *s, *t;
} piece;

static void run_spmm(piece *p)
{
    p->d->be->spmm(p->d, &p->m->fwd, p->f, p->w, false, p->a, 0, p->y);
}
static void run_spmm_back(piece *p)
{
    p->d->be->spmm(p->d, &p->m->bwd, p->f, p->w, false, p->a, 0, p->y);
}
static void run_gemm(piece *p)
{
    p->d->be->gemm(p->d, false, true, p->n, p->f, p->k, 1, p->a, p->k, p->b, p->k, 0, p->y, p->f);
}
static void run_gemm_back(piece *p)
{
    p->d->be->gemm(p->d, true, false, p->f, p->k, p->n, 1, p->y, p->f, p->a, p->k, 0, p->t, p->k);
}

static void run_gat(piece *p)
{
    p->d->be->gat(p->d, &p->m->fwd, p->heads, p->f / p->heads, 0.2f, 0, (nsm_random){ 0 }, p->a,
                  p->b, p->b, NULL, p->y, p->s, NULL);
}

static void run_gat_back(piece *p)
{
    p->d->be->gat_back(p->d, p->m, p->heads, p->f / p->heads, 0.2f, 0, (nsm_random){ 0 }, p->a,
                       p->b, p->b, NULL, p->y, p->s, p->a, p->t, p->t + p->m->nnz * p->heads,
                       p->t + p->m->nnz * p->heads + p->n * p->f,
                       p->t + p->m->nnz * p->heads + p->n * (p->f + p->heads), NULL);
}

/* The least of three runs after one, next to the limit. */
static void measure(bench_gnn_result *r, const char *name, void (*run)(piece *), piece *p,
                    double limit_seconds)
{
    double best = 0;
    if (r->kernels == BENCH_KERNELS) return;
    for (int k = -1; k < 3; k++) {
        double begin = bench_seconds();
        run(p);
        p->d->be->sync(p->d);
        double took = bench_seconds() - begin;
        if (k == 0 || (k > 0 && took < best)) best = took;
    }
    bench_kernel *out = &r->kernel[r->kernels++];
    snprintf(out->name, sizeof out->name, "%s", name);
    out->ms = 1e3 * best;
    out->limit_ms = 1e3 * limit_seconds;
    out->share = limit_seconds / best;
}

static float *numbers(nsm_ctx *ctx, int64_t n)
{
    float *x = nsmi_device_alloc(ctx, (size_t)n * sizeof *x);
    if (x) ctx->dev.be->normal(&ctx->dev, (nsm_random){ 0 }, 0, 1, n, x);
    return x;
}

static void measure_spmm(job *j, bench_gnn_result *r, const nsm_csr *m, const float *w, int64_t f)
{
    char name[48];
    double gather = bench_gather_gbs(r->threads, m->cols, f) * 1e9;
    double bytes = 8.0 * (double)m->nnz + 4.0 * (double)(m->nnz * f) + 4.0 * (double)(m->rows * f);
    float *x = numbers(j->ctx, m->cols * f), *y = numbers(j->ctx, m->rows * f);
    piece p = { .d = &j->ctx->dev, .m = m, .n = m->rows, .f = f, .a = x, .y = y, .w = w };
    if (x && y) {
        snprintf(name, sizeof name, "spmm F=%lld", (long long)f);
        measure(r, name, run_spmm, &p, bytes / gather);
        snprintf(name, sizeof name, "spmm transposed F=%lld", (long long)f);
        measure(r, name, run_spmm_back, &p, bytes / gather);
    }
    nsmi_device_free(j->ctx, x);
    nsmi_device_free(j->ctx, y);
}

static void measure_gemm(job *j, bench_gnn_result *r, int64_t n, int64_t in, int64_t out)
{
    char name[48];
    double flops = 2.0 * (double)n * (double)in * (double)out,
           bytes = 4.0 * (double)(n * (in + out));
    double limit = fmax(flops / (r->gemm_gflops * 1e9), bytes / (r->triad_gbs * 1e9));
    float *x = numbers(j->ctx, n * in), *w = numbers(j->ctx, in * out),
          *y = numbers(j->ctx, n * out), *dw = numbers(j->ctx, in * out);
    piece p = { .d = &j->ctx->dev, .n = n, .f = out, .k = in, .a = x, .b = w, .y = y, .t = dw };
    if (x && w && y && dw) {
        snprintf(name, sizeof name, "linear %lld -> %lld", (long long)in, (long long)out);
        measure(r, name, run_gemm, &p, limit);
        snprintf(name, sizeof name, "linear %lld -> %lld, weights' gradient", (long long)in,
                 (long long)out);
        measure(r, name, run_gemm_back, &p, limit);
    }
    nsmi_device_free(j->ctx, x);
    nsmi_device_free(j->ctx, w);
    nsmi_device_free(j->ctx, y);
    nsmi_device_free(j->ctx, dw);
}

static void measure_gat(job *j, bench_gnn_result *r, const nsm_csr *m, int64_t heads, int64_t f)
{
    char name[48];
    double gather = bench_gather_gbs(r->threads, m->cols, f) * 1e9;
    double bytes = 8.0 * (double)m->nnz + 4.0 * (double)(m->nnz * (f + 2 * heads)) +
                   8.0 * (double)(m->rows * f);
    float *x = numbers(j->ctx, m->cols * f), *score = numbers(j->ctx, m->cols * heads),
          *y = numbers(j->ctx, m->rows * f);
    float *stat = numbers(j->ctx, m->rows * 2 * heads),
          *room = numbers(j->ctx, m->nnz * heads + m->rows * (f + 2 * heads));
    piece p = { .d = &j->ctx->dev,
                .m = m,
                .n = m->rows,
                .f = f,
                .heads = heads,
                .a = x,
                .b = score,
                .y = y,
                .s = stat,
                .t = room };
    if (x && score && y && stat && room) {
        snprintf(name, sizeof name, "gat H=%lld D=%lld", (long long)heads, (long long)(f / heads));
        measure(r, name, run_gat, &p, bytes / gather);
        snprintf(name, sizeof name, "gat backward H=%lld D=%lld", (long long)heads,
                 (long long)(f / heads));
        measure(r, name, run_gat_back, &p, 2 * bytes / gather);
    }
    nsmi_device_free(j->ctx, x);
    nsmi_device_free(j->ctx, score);
    nsmi_device_free(j->ctx, y);
    nsmi_device_free(j->ctx, stat);
    nsmi_device_free(j->ctx, room);
}

/* The sizes that the two layers work on. */
static void measure_kernels(job *j, bench_gnn_result *r)
{
    const bench_gnn_config *c = j->config;
    const nsm_graph *g = j->graph;
    int64_t in = j->x->dim[1], hidden = c->hidden, out = c->classes;
    r->triad_gbs = bench_triad_gbs(r->threads);
    r->gemm_gflops = bench_gemm_gflops(r->threads);
    if (!strncmp(c->kind, "gat", 3)) {
        const nsm_csr *m = nsmi_graph_loops(g);
        measure_gat(j, r, m, c->heads, hidden);
        measure_gat(j, r, m, 1, out);
    } else {
        nsm_tensor *w = NULL;
        const nsm_csr *m = strcmp(c->kind, "gcn")
                               ? g->csr
                               : nsmi_gcn_matrix(j->tape, g,
                                                 (nsmi_gcn_options){ true, true, false }, g->weight,
                                                 &w);
        if (!j->x->csr && in < hidden) measure_spmm(j, r, m, w ? w->f32 : NULL, in);
        else measure_spmm(j, r, m, w ? w->f32 : NULL, hidden);
        measure_spmm(j, r, m, w ? w->f32 : NULL, out);
    }
    if (!j->x->csr) measure_gemm(j, r, g->nodes, in, hidden);
    measure_gemm(j, r, g->nodes, hidden, out);
}

int bench_gnn(nsm_ctx *ctx, const bench_gnn_config *config, bench_gnn_result *result)
{
    bench_gnn_config c = *config;
    *result = (bench_gnn_result){ .threads = nsm_ctx_threads(ctx) };
    if (!c.nodes) c.nodes = 169343;
    if (!c.edges) c.edges = 1166243;
    if (!c.features) c.features = 128;
    if (!c.hidden) c.hidden = 256;
    if (!c.classes) c.classes = 40;
    if (!c.heads) c.heads = 8;
    if (!c.epochs) c.epochs = 5;
    job j = { .config = &c, .ctx = ctx };
    if (c.nonzeros < 0 || c.nonzeros > c.features || c.nodes < 1 || c.heads < 1 || c.epochs < 1 ||
        c.classes < 1)
        nsm_error_set(ctx, NSM_EINVAL,
                      "bench_gnn: nodes %lld, features %d, nonzeros %d, classes %d, heads %d, "
                      "epochs %d: one is out of range",
                      (long long)c.nodes, c.features, c.nonzeros, c.classes, c.heads, c.epochs);
    if (!nsmi_failed(ctx) && start(&j)) {
        result->nodes = j.graph->nodes;
        result->edges = j.graph->edges;
        time_epochs(&j, result);
        result->peak_mib = bench_peak_mib();
        if (c.kernels && !nsmi_failed(ctx)) measure_kernels(&j, result);
    }
    finish(&j);
    return nsm_error(ctx);
}
