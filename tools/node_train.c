/* node_train.c - A model of nodes, its loss, and an epoch of training it.
 *
 * With batch_size a step is one sampled batch: its rows of features are gathered, its labels
 * copied, and nothing that grows with the graph stands on the device.  What is drawn depends on the
 * seed, the epoch and the batch's number alone, so a resumed run draws what the uninterrupted one
 * did. */
#include "config.h"
#include <stdlib.h>
#include <string.h>
#include "tools/node_parts.h"
#include "tools/progress.h"

int node_make_model(node_task *n)
{
    const train_options *o = n->options;
    static const struct {
        const char *name;
        nsm_gnn_norm norm;
    } norms[] = { { "none", NSM_GNN_NO_NORM },
                  { "batch", NSM_GNN_BATCH_NORM },
                  { "layer", NSM_GNN_LAYER_NORM } };
    int act = nsm_act_find(o->activation);
    if (act < 0)
        return nsm_error_set(n->ctx, NSM_EINVAL, "activation=%s is not known", o->activation);
    nsm_gnn_config c = {
        .kind = o->model,
        .in_channels = (int)n->nodes->features,
        .hidden_channels = (int)o->hidden,
        .out_channels = (int)n->outputs,
        .layers = (int)o->layers,
        .act = (nsm_act)act,
        .no_act = act == NSM_ACT_NONE,
        .dropout = (float)o->dropout,
        .residual = o->residual,
        .heads = (int)o->heads,
        .out_heads = (int)o->out_heads,
        .attn_dropout = (float)o->attn_dropout,
        .aggr = recipe_aggr(o),
        .num_bases = (int)o->bases,
        .num_blocks = (int)o->blocks,
    };
    edge_use use;
    if (edge_use_of(n->ctx, o, &use)) return nsm_error(n->ctx);
    c.relations = edge_relations(n->ds, use, NULL);
    if (use.typed && !c.relations)
        return nsm_error_set(n->ctx, NSM_EINVAL, "%s has no edges between its %s nodes",
                             n->ds->name, n->nodes->name);
    static const struct {
        const char *name;
        nsm_gnn_jump jump;
    } jumps[] = { { "none", NSM_GNN_NO_JUMP },
                  { "concat", NSM_GNN_JUMP_CONCAT },
                  { "max", NSM_GNN_JUMP_MAX } };
    for (size_t i = 0; i < 3; i++) {
        if (!strcmp(jumps[i].name, o->jump)) c.jump = jumps[i].jump;
        if (!strcmp(norms[i].name, o->norm)) c.norm = norms[i].norm;
    }
    n->gnn = nsm_gnn_new(n->ctx, &c);
    n->tape = nsm_tape_new(n->ctx);
    n->replay = n->gnn ? nsm_replay_new(nsm_gnn_module(n->gnn)) : NULL;
    n->loss = nsm_tensor_new(n->ctx, NSM_F32, 0, NULL);
    return nsm_error(n->ctx);
}

nsm_tensor *node_loss(node_task *n, nsm_tensor *logits, int part)
{
    const nsm_dataset_labels *l = &n->ds->label;
    nsm_tensor *mask = n->part[part];
    if (l->kind == NSM_LABEL_CLASS)
        return nsm_cross_entropy(n->tape, logits, n->label,
                                 &(nsm_cross_entropy_config){
                                     .label_smoothing = part == NSM_TRAIN
                                                            ? (float)n->options->label_smoothing
                                                            : 0,
                                     .row_weight = mask });
    nsm_tensor *each = l->kind == NSM_LABEL_MULTI
                           ? nsm_bce_with_logits(n->tape, logits, n->label, NULL, NSM_LOSS_NONE)
                           : nsm_mse_loss(n->tape, logits, n->label, NSM_LOSS_NONE);
    nsm_tensor *column = nsm_reshape(n->tape, mask, 2, (const int64_t[]){ -1, 1 });
    nsm_tensor *sum = nsm_sum(n->tape, nsm_mul(n->tape, each, column), NSM_ALL, false);
    return nsm_scale(n->tape, sum, 1.0f / (float)(n->split->count[part] * n->outputs), 0);
}

nsm_tensor *node_batch_loss(node_task *n, nsm_tensor *logits, nsm_tensor *label, int part)
{
    float smoothing = part == NSM_TRAIN ? (float)n->options->label_smoothing : 0;
    if (!label) return NULL;
    switch (n->ds->label.kind) {
    case NSM_LABEL_CLASS:
        return nsm_cross_entropy(n->tape, logits, label,
                                 &(nsm_cross_entropy_config){ .label_smoothing = smoothing });
    case NSM_LABEL_MULTI:
        return nsm_bce_with_logits(n->tape, logits, label, NULL, NSM_LOSS_MEAN);
    default:
        return nsm_mse_loss(n->tape, logits, label, NSM_LOSS_MEAN);
    }
}

static int pass(void *user)
{
    node_task *n = user;
    nsm_tensor *l = node_loss(n, nsm_gnn_apply(n->tape, n->gnn, n->graph, n->x, NULL), NSM_TRAIN);
    nsm_tape_backward(n->tape, l);
    nsm_tensor_copy(n->loss, l);
    nsm_tape_reset(n->tape);
    return nsm_error(n->ctx);
}

int node_epoch(task *base, int64_t number, epoch_place *at, int (*step)(void *user), void *user)
{
    node_task *n = (node_task *)base;
    (void)number;
    nsm_tape_inference(n->tape, false);
    if (!nsm_replay_run(n->replay, 0, pass, n))
        *at = (epoch_place){ .steps = 1, .rows = 1, .loss = (double)nsm_tensor_item(n->loss) };
    return nsm_error(n->ctx) ? nsm_error(n->ctx) : step(user);
}

/* Forward and backward; *loss: the sum over its seeds. */
static int train_batch(node_task *n, const nsm_batch *b, double *loss)
{
    nsm_tensor *label = node_labels(n, b->seeds, b->node);
    nsm_tensor *l = node_batch_loss(n, nsm_gnn_apply_blocks(n->tape, n->gnn, b->block, b->x, NULL),
                                    label, NSM_TRAIN);
    if (!nsm_tape_backward(n->tape, l)) *loss = (double)nsm_tensor_item(l) * (double)b->seeds;
    nsm_tape_reset(n->tape);
    nsm_tensor_free(label);
    return nsm_error(n->ctx);
}

/* The sampler is made here and not with the task: its seed is the generator's, which a resumed run
 * has from its checkpoint by now. */
int node_epoch_sampled(task *base, int64_t number, epoch_place *at, int (*step)(void *user),
                       void *user)
{
    node_task *n = (node_task *)base;
    double began = progress_now(), loss = 0;
    const nsm_batch *b;
    int code = NSM_OK;
    if (!n->sampler)
        n->sampler = batches_sampler(&n->batches, n->split->count[NSM_TRAIN],
                                     n->split->index[NSM_TRAIN], false,
                                     nsm_random_get(n->ctx).seed);
    if (!n->sampler || nsm_sampler_start(n->sampler, number, at->steps)) return nsm_error(n->ctx);
    nsm_tape_inference(n->tape, false);
    while (!code && (b = nsm_sampler_next(n->sampler))) {
        code = train_batch(n, b, &loss);
        at->steps++;
        at->rows += b->seeds;
        at->loss += loss;
        n->sampled_edges += b->edges;
        if (!code) code = step(user);
    }
    n->sampled_seconds += progress_now() - began;
    return nsm_error(n->ctx) ? nsm_error(n->ctx) : code;
}
