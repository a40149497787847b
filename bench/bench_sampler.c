/* bench/bench_sampler.c - bench_sampler [key=value ...]: sampled edges a second on an R-MAT graph.
 *
 * Three measurements on the same batches: drawing alone; with the features gathered; and training
 * GraphSAGE (two layers of 128, mean) on them, the next batch drawn by the sampler's thread.
 * Keys: nodes edges features batch first second (the fan-outs) batches workers threads seed. */
#include "config.h"
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/internal.h"
#include "base/optimizer.h"
#include "bench/gnn.h"
#include "datasets/generate.h"
#include "graph/sampler.h"

enum { CLASSES = 16, HIDDEN = 128 };

typedef struct {
    int64_t nodes, edges, features, batch, first, second, batches, workers, threads, seed;
} settings;

static int64_t value(int argc, char **argv, const char *key, int64_t fallback)
{
    size_t n = strlen(key);
    for (int i = 1; i < argc; i++)
        if (!strncmp(argv[i], key, n) && argv[i][n] == '=')
            return strtoll(argv[i] + n + 1, NULL, 10);
    return fallback;
}

/* R-MAT's edges by destination, and the labels planted in it. */
static nsm_csr *make_graph(nsm_ctx *ctx, const settings *s, nsm_tensor **label)
{
    char nodes[32], edges[32], seed[32];
    snprintf(nodes, sizeof nodes, "%lld", (long long)s->nodes);
    snprintf(edges, sizeof edges, "%lld", (long long)s->edges);
    snprintf(seed, sizeof seed, "%lld", (long long)s->seed);
    nsm_option option[] = {
        { "nodes", nodes }, { "edges", edges }, { "seed", seed }, { "classes", "16" }
    };
    nsm_dataset *d = nsm_generate(ctx, "rmat", option, sizeof option / sizeof *option);
    if (!d) return NULL;
    *label = nsm_tensor_from(ctx, NSM_I32, 1, &s->nodes, d->label.cls);
    nsm_csr *m = nsm_csr_new(ctx, s->nodes, s->nodes, d->edge[0].count, d->edge[0].dst,
                             d->edge[0].src, true);
    nsm_dataset_free(d);
    return m;
}

/* Go over the batches; with gnn, train on each.  Returns sampled edges a second. */
static double run(nsm_ctx *ctx, const settings *s, const nsm_csr *m, const float *x,
                  const nsm_tensor *label, nsm_gnn *gnn)
{
    const int fan_out[] = { (int)s->first, (int)s->second };
    const nsm_batch *b;
    int64_t edges = 0, seeds = s->batch * s->batches;
    nsm_sampler_config c = { .nodes = s->nodes,
                             .ptr = m->fwd.ptr,
                             .idx = m->fwd.idx,
                             .layers = 2,
                             .fan_out = fan_out,
                             .seeds = seeds < s->nodes ? seeds : s->nodes,
                             .batch = (int)s->batch,
                             .seed = (uint64_t)s->seed,
                             .workers = (int)s->workers,
                             .features = x ? s->features : 0,
                             .x = x };
    nsm_sampler *sampler = nsm_sampler_new(ctx, &c);
    nsm_optimizer *o = gnn ? nsm_optimizer_new(nsm_gnn_module(gnn),
                                               &(nsm_optimizer_config){ .kind = NSM_ADAM })
                           : NULL;
    nsm_tape *tape = nsm_tape_new(ctx);
    double begin = bench_seconds();
    nsm_sampler_start(sampler, 0, 0);
    while ((b = nsm_sampler_next(sampler))) {
        edges += b->edges;
        if (!gnn) continue;
        int32_t *y = nsmi_malloc(ctx, (size_t)b->seeds * sizeof *y);
        for (int64_t i = 0; y && i < b->seeds; i++) y[i] = label->i32[b->node[i]];
        nsm_tensor *target = nsm_tensor_from(ctx, NSM_I32, 1, &b->seeds, y);
        nsm_tensor *logits = nsm_gnn_apply_blocks(tape, gnn, b->block, b->x, NULL);
        nsm_tape_backward(tape, nsm_cross_entropy(tape, logits, target, NULL));
        nsm_optimizer_step(o, 0.001);
        nsm_tape_reset(tape);
        nsm_tensor_free(target);
        free(y);
    }
    double seconds = bench_seconds() - begin;
    nsm_tape_free(tape);
    nsm_optimizer_free(o);
    nsm_sampler_free(sampler);
    return (double)edges / seconds;
}

int main(int argc, char **argv)
{
    settings s = { value(argc, argv, "nodes", 10000000), value(argc, argv, "edges", 100000000),
                   value(argc, argv, "features", 128),   value(argc, argv, "batch", 1024),
                   value(argc, argv, "first", 15),       value(argc, argv, "second", 10),
                   value(argc, argv, "batches", 50),     value(argc, argv, "workers", 1),
                   value(argc, argv, "threads", 0),      value(argc, argv, "seed", 0) };
    double rate[3] = { 0 };
    nsm_tensor *label = NULL, *x = NULL;
    nsm_gnn *gnn = NULL;
    int cores = omp_get_num_procs() - (int)s.workers; /* the sampler's threads keep theirs */
    nsm_ctx *ctx = nsm_ctx_new(&(nsm_ctx_config){ .threads = s.threads   ? (int)s.threads
                                                             : cores > 1 ? cores
                                                                         : 1 });
    nsm_csr *m = make_graph(ctx, &s, &label);
    if (m && label) rate[0] = run(ctx, &s, m, NULL, label, NULL);
    if (m && s.features > 0) {
        x = nsm_tensor_new(ctx, NSM_F32, 2, (int64_t[]){ s.nodes, s.features });
        gnn = nsm_gnn_new(ctx, &(nsm_gnn_config){ .kind = "sage",
                                                  .in_channels = (int)s.features,
                                                  .hidden_channels = HIDDEN,
                                                  .out_channels = CLASSES });
        if (x) nsm_init_normal(x, 0, 1);
        if (x) rate[1] = run(ctx, &s, m, x->f32, label, NULL);
        if (x && gnn) rate[2] = run(ctx, &s, m, x->f32, label, gnn);
    }
    int code = nsm_error(ctx);
    if (code) fprintf(stderr, "bench_sampler: %s\n", nsm_error_message(ctx));
    else
        printf("{\"bench\": \"sampler\", \"nodes\": %lld, \"edges\": %lld, "
               "\"sampled_edges_per_s\": %.0f, \"with_features_per_s\": %.0f, "
               "\"training_per_s\": %.0f, \"peak_mib\": %lld}\n",
               (long long)s.nodes, (long long)m->nnz, rate[0], rate[1], rate[2],
               (long long)bench_peak_mib());
    nsm_gnn_free(gnn);
    nsm_tensor_free(x);
    nsm_tensor_free(label);
    nsm_csr_free(m);
    nsm_ctx_free(ctx);
    return code ? EXIT_FAILURE : EXIT_SUCCESS;
}
