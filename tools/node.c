/* node.c - See node.h; node_parts.h tells which file does what. */
#include "config.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "tools/node_parts.h"

const char *const node_label_name[] = { "none", "classes", "several at once", "values" };

nsm_dataset *node_dataset(nsm_ctx *ctx, const train_options *options)
{
    bool in_file = options->batch_size > 0 && options->in_file;
    return nsm_dataset_load(ctx, options->data,
                            &(nsm_dataset_options){ .features_in_file_bytes = in_file ? -1 : 0 });
}

/* Does the data fit the model that was trained? */
static int check_data(node_task *n, const trainer_meta *trained)
{
    const nsm_dataset_labels *l = &n->ds->label;
    if (trained->labels < NSM_LABEL_CLASS || trained->labels > NSM_LABEL_VALUE ||
        trained->outputs < 1)
        return nsm_error_set(n->ctx, NSM_EFORMAT,
                             "the checkpoint's labels are of kind %lld, in %lld columns",
                             (long long)trained->labels, (long long)trained->outputs);
    if (trained->inputs != n->nodes->features)
        return nsm_error_set(n->ctx, NSM_ESHAPE,
                             "the model reads %lld features a node, %s has %lld",
                             (long long)trained->inputs, n->ds->name,
                             (long long)n->nodes->features);
    if (l->kind == NSM_LABEL_NONE || l->of_graphs) return NSM_OK;
    if (l->kind != (nsm_label_kind)trained->labels)
        return nsm_error_set(n->ctx, NSM_EINVAL,
                             "the model tells labels of another kind (%s) than %s has (%s)",
                             node_label_name[trained->labels], n->ds->name,
                             node_label_name[l->kind]);
    if (l->columns != trained->outputs)
        return nsm_error_set(n->ctx, NSM_ESHAPE, "the model tells %lld classes apart, %s has %lld",
                             (long long)trained->outputs, n->ds->name, (long long)l->columns);
    return NSM_OK;
}

/* What the trainer is told. */
static void fill_task(node_task *n)
{
    static const char *const metric[] = { "accuracy", "accuracy", "roc_auc", "mae" };
    int64_t batch = n->options->batch_size, labelled = n->split ? n->split->count[NSM_TRAIN] : 0;
    n->base = (task){ .ctx = n->ctx,
                      .module = nsm_gnn_module(n->gnn),
                      .metric = metric[n->labels],
                      .lower = n->labels == NSM_LABEL_VALUE,
                      .steps_per_epoch = n->sampled ? (labelled + batch - 1) / batch : 1,
                      .inputs = n->nodes->features,
                      .outputs = n->outputs,
                      .labels = n->labels,
                      .epoch = n->sampled ? node_epoch_sampled : node_epoch,
                      .evaluate = n->whole ? node_evaluate : node_evaluate_sampled };
}

static int set_up(node_task *n, const trainer_meta *trained)
{
    nsm_dataset *ds = n->ds;
    bool training = !trained;
    n->nodes = &ds->node[ds->target];
    if (training && (ds->label.kind == NSM_LABEL_NONE || ds->label.of_graphs))
        return nsm_error_set(n->ctx, NSM_EINVAL, "%s has no labels of nodes to learn", ds->name);
    if (trained && check_data(n, trained)) return nsm_error(n->ctx);
    n->outputs = trained ? trained->outputs : ds->label.columns;
    n->labels = trained ? (nsm_label_kind)trained->labels : ds->label.kind;
    if (training || ds->splits)
        n->split = nsm_dataset_split_find(ds, *n->options->split ? n->options->split : NULL);
    if (nsm_error(n->ctx)) return nsm_error(n->ctx);
    if (training && !n->split->count[NSM_TRAIN])
        return nsm_error_set(n->ctx, NSM_EINVAL, "split %s of %s has no training nodes",
                             n->split->name, ds->name);
    n->guess = node_array(n->ctx, n->nodes->count, 1, sizeof *n->guess);
    n->scores = node_array(n->ctx, n->nodes->count, n->outputs, sizeof *n->scores);
    if (nsm_error(n->ctx) || node_make_data(n) || node_make_look(n) || node_make_model(n))
        return nsm_error(n->ctx);
    fill_task(n);
    return NSM_OK;
}

node_task *node_task_new(nsm_ctx *ctx, const train_options *options, nsm_dataset *ds,
                         const trainer_meta *trained)
{
    node_task *n = ds && !nsm_error(ctx) ? calloc(1, sizeof *n) : NULL;
    if (!n) {
        if (ds) nsm_error_set(ctx, NSM_ENOMEM, "out of memory");
        return NULL;
    }
    n->ctx = ctx;
    n->options = options;
    n->ds = ds;
    if (!set_up(n, trained)) return n;
    node_task_free(n);
    return NULL;
}

void node_task_free(node_task *n)
{
    if (!n) return;
    nsm_sampler_free(n->sampler);
    batches_clear(&n->batches);
    nsm_tape_free(n->tape);
    nsm_replay_free(n->replay);
    nsm_tensor_free(n->loss);
    nsm_gnn_free(n->gnn);
    nsm_graph_free(n->graph);
    nsm_tensor_free(n->x);
    nsm_csr_free(n->feature_rows);
    nsm_tensor_free(n->label);
    for (int p = 0; p < NSM_SPLIT_PARTS; p++) {
        nsm_tensor_free(n->part[p]);
        free(n->look_own[p]);
    }
    free(n->guess);
    free(n->scores);
    free(n);
}

task *node_task_base(node_task *n) { return &n->base; }
int64_t node_task_nodes(const node_task *n) { return n->nodes->count; }
const nsm_dataset_split *node_task_split(const node_task *n) { return n->split; }
node_list node_task_part(const node_task *n, int part) { return n->look[part]; }
bool node_task_whole(const node_task *n) { return n->whole; }
double node_task_sampled_rate(const node_task *n)
{
    return n->sampled_edges ? (double)n->sampled_edges / n->sampled_seconds : NAN;
}
nsm_label_kind node_task_labels(const node_task *n) { return n->labels; }

void node_task_data(const node_task *n, const nsm_graph **graph, nsm_tensor **x, nsm_tensor **y)
{
    *graph = n->graph;
    *x = n->x;
    *y = n->label;
}
