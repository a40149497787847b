/* train_gcn.c - A program outside the tree: a graph is made, a GCN trained on it, its accuracy
 * printed.
 *
 *   cc train_gcn.c $(pkg-config --cflags --libs nsm) -o train_gcn && ./train_gcn [DATASET.h5]
 *
 * Without a file it makes a stochastic block model: classes that know each other better. */
#include <nsm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EPOCHS = 100 };

static int report(nsm_ctx *ctx)
{
    fprintf(stderr, "train_gcn: %s\n", nsm_error_message(ctx));
    return 1;
}

/* The share of a split's part whose likeliest class is the true one. */
static double accuracy(const nsm_dataset *ds, const nsm_dataset_split *split, int part,
                       const float *logits)
{
    int64_t right = 0, classes = ds->label.columns;
    for (int64_t k = 0; k < split->count[part]; k++) {
        int64_t node = split->index[part][k], best = 0;
        for (int64_t c = 1; c < classes; c++)
            if (logits[node * classes + c] > logits[node * classes + best]) best = c;
        right += best == ds->label.cls[node];
    }
    return (double)right / (double)split->count[part];
}

int main(int argc, char **argv)
{
    nsm_ctx_config context;
    memset(&context, 0, sizeof context);
    context.seed = 1;
    nsm_ctx *ctx = nsm_ctx_new(&context);
    const nsm_option made[] = { { "nodes", "2000" }, { "classes", "5" }, { "features", "16" } };
    nsm_dataset *ds = argc > 1 ? nsm_dataset_load(ctx, argv[1], NULL)
                               : nsm_generate(ctx, "sbm", made, 3);
    if (!ds) return report(ctx);
    const nsm_dataset_nodes *nodes = &ds->node[ds->target];
    const nsm_dataset_split *split = nsm_dataset_split_find(ds, NULL);
    int64_t n = nodes->count, classes = ds->label.columns;
    const int64_t shape[] = { n, nodes->features };

    /* data: features, classes, and a mask of the nodes to learn from */
    float *features = (float *)malloc((size_t)(n * nodes->features) * sizeof *features);
    float *mask = (float *)calloc((size_t)n, sizeof *mask);
    if (!split || !features || !mask ||
        nsm_dataset_features_rows(ds, ds->target, 0, n, NULL, features))
        return report(ctx);
    for (int64_t k = 0; k < split->count[NSM_TRAIN]; k++) mask[split->index[NSM_TRAIN][k]] = 1;
    nsm_tensor *x = nsm_tensor_from(ctx, NSM_F32, 2, shape, features);
    nsm_tensor *label = nsm_tensor_from(ctx, NSM_I32, 1, &n, ds->label.cls);
    nsm_tensor *train = nsm_tensor_from(ctx, NSM_F32, 1, &n, mask);
    nsm_graph *graph = nsm_graph_new(ctx, n, ds->edge[0].count, ds->edge[0].src, ds->edge[0].dst);

    /* model and optimizer */
    nsm_gnn_config config;
    memset(&config, 0, sizeof config);
    config.kind = "gcn";
    config.in_channels = (int)nodes->features;
    config.hidden_channels = 16;
    config.out_channels = (int)classes;
    config.dropout = 0.5f;
    nsm_gnn *gnn = nsm_gnn_new(ctx, &config);
    nsm_optimizer_config adam;
    memset(&adam, 0, sizeof adam);
    adam.kind = NSM_ADAM;
    adam.weight_decay = 5e-4;
    nsm_optimizer *optimizer = gnn ? nsm_optimizer_new(nsm_gnn_module(gnn), &adam) : NULL;
    nsm_tape *tape = nsm_tape_new(ctx);
    if (nsm_error(ctx)) return report(ctx);

    for (int epoch = 1; epoch <= EPOCHS; epoch++) {
        nsm_cross_entropy_config masked;
        memset(&masked, 0, sizeof masked);
        masked.row_weight = train;
        nsm_tensor *loss = nsm_cross_entropy(tape, nsm_gnn_apply(tape, gnn, graph, x, NULL), label,
                                             &masked);
        if (nsm_tape_backward(tape, loss)) return report(ctx);
        if (epoch % 20 == 0) printf("epoch %3d  loss %.4f\n", epoch, (double)nsm_tensor_item(loss));
        nsm_tape_reset(tape);
        if (nsm_optimizer_step(optimizer, 0.01)) return report(ctx);
    }

    nsm_tape_inference(tape, true);
    nsm_tensor *logits = nsm_gnn_apply(tape, gnn, graph, x, NULL);
    float *scores = (float *)malloc((size_t)(n * classes) * sizeof *scores);
    if (!logits || !scores || nsm_tensor_get(logits, scores)) return report(ctx);
    double test = accuracy(ds, split, NSM_TEST, scores);
    printf("test accuracy %.4f\n", test);

    free(scores);
    nsm_tape_free(tape);
    nsm_optimizer_free(optimizer);
    nsm_gnn_free(gnn);
    nsm_graph_free(graph);
    nsm_tensor_free(train);
    nsm_tensor_free(label);
    nsm_tensor_free(x);
    free(mask);
    free(features);
    nsm_dataset_free(ds);
    nsm_ctx_free(ctx);
    return test > 0.5 ? 0 : 1;
}
