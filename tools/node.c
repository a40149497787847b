/* node.c - See node.h.
 *
 * With batch_size a step is one sampled batch: its rows of features are gathered, its labels copied,
 * and nothing that grows with the graph stands on the device.  What is drawn depends on the seed, the
 * epoch and the batch's number alone, so a resumed run draws what the uninterrupted one did. */
#include "config.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include "base/metrics.h"
#include "tools/batches.h"
#include "tools/node.h"
#include "tools/progress.h"

struct node_task {
    task base;
    nsm_ctx *ctx;
    const train_options *options;
    nsm_dataset *ds;
    const nsm_dataset_nodes *nodes;
    const nsm_dataset_split *split;
    nsm_graph *graph;
    nsm_csr *feature_rows;
    nsm_tensor *x;                       /* [n, F] */
    nsm_tensor *label;                   /* int32 [n], or float32 [n, C] */
    nsm_tensor *part[NSM_SPLIT_PARTS];   /* [n]: 1 where a node is in the part */
    nsm_gnn *gnn;
    nsm_tape *tape;
    int32_t *guess;                      /* host [n] */
    float *scores;                       /* host [n, C] */
    int64_t outputs;
    bool sampled;                        /* trains on batches */
    bool whole;                          /* the model is put to the whole graph at once to look at it */
    batches batches;                     /* with sampled */
    nsm_sampler *sampler;                /* of the training nodes, from the first epoch on */
    int64_t most_batches;                /* of an epoch, for a trial; 0: all */
    int64_t sampled_edges;
    double sampled_seconds;
    node_list look[NSM_SPLIT_PARTS];     /* the nodes that evaluation looks at */
    int32_t *look_own[NSM_SPLIT_PARTS];  /* their lists, where they are not the split's */
    nsm_label_kind labels;               /* what the model tells; the data may have none */
};

static const char *const label_name[] = { "none", "classes", "several at once", "values" };

/* ---- from dataset to device ---- */
static int make_features(node_task *n)
{
    const nsm_dataset_nodes *d = n->nodes;
    int64_t values = d->ptr ? d->ptr[d->count] : d->count * d->features;
    float *host = malloc((size_t)values * sizeof *host + 1);
    if (!host) return nsm_error_set(n->ctx, NSM_ENOMEM, "out of memory: features of %lld values", (long long)values);
    int code = NSM_OK;
    if (d->ptr) memcpy(host, d->val, (size_t)values * sizeof *host);
    else code = nsm_dataset_features_rows(n->ds, n->ds->target, 0, d->count, NULL, host);
    for (int64_t i = 0; !code && n->options->row_normalize && i < d->count; i++)
        sum_to_one(host + (d->ptr ? d->ptr[i] : i * d->features), d->ptr ? d->ptr[i + 1] - d->ptr[i] : d->features);
    if (!code && d->ptr) {
        n->feature_rows = nsm_csr_from_rows(n->ctx, d->count, d->features, d->ptr, d->idx, false);
        n->x = nsm_tensor_sparse(n->ctx, n->feature_rows, host);
    } else if (!code) {
        n->x = nsm_tensor_from(n->ctx, NSM_F32, 2, (const int64_t[]){ d->count, d->features }, host);
    }
    free(host);
    return nsm_error(n->ctx);
}

static int make_graph(node_task *n)
{
    const edge_rows *r = &n->batches.rows;
    if (n->sampled) {
        n->graph = nsm_graph_from_rows(n->ctx, r->n, r->n, r->ptr, r->idx, true);
        return nsm_error(n->ctx);
    }
    int64_t edges;
    int32_t *src = NULL, *dst = NULL;
    nsm_edges both = { 0 };
    int code = nsm_dataset_edges_merged(n->ds, n->ds->target, &edges, &src, &dst, NULL);
    if (!code && n->options->symmetric) {
        code = nsm_edges_symmetric(n->ctx, n->nodes->count, edges, src, dst, true, &both);
        if (!code) n->graph = nsm_graph_new(n->ctx, n->nodes->count, both.count, both.src, both.dst);
        nsm_edges_free(&both);
    } else if (!code) {
        n->graph = nsm_graph_new(n->ctx, n->nodes->count, edges, src, dst);
    }
    nsm_dataset_release(src);
    nsm_dataset_release(dst);
    return nsm_error(n->ctx);
}

/* Labels as the loss wants them; unlabelled nodes are in no part, their label is never looked at. */
static int make_labels(node_task *n)
{
    const nsm_dataset_labels *l = &n->ds->label;
    int64_t count = n->nodes->count;
    if (l->kind == NSM_LABEL_NONE || l->of_graphs) return NSM_OK;
    if (l->kind == NSM_LABEL_CLASS) {
        int32_t *cls = malloc((size_t)count * sizeof *cls + 1);
        if (!cls) return nsm_error_set(n->ctx, NSM_ENOMEM, "out of memory");
        for (int64_t i = 0; i < count; i++) cls[i] = l->cls[i] < 0 ? 0 : l->cls[i];
        n->label = nsm_tensor_from(n->ctx, NSM_I32, 1, &count, cls);
        free(cls);
        return nsm_error(n->ctx);
    }
    int64_t dim[2] = { count, l->columns };
    float *value = malloc((size_t)(count * l->columns) * sizeof *value + 1);
    if (!value) return nsm_error_set(n->ctx, NSM_ENOMEM, "out of memory");
    for (int64_t i = 0; i < count * l->columns; i++)
        value[i] = l->kind == NSM_LABEL_VALUE ? l->value[i] : (float)(l->multi[i] == 1);
    n->label = nsm_tensor_from(n->ctx, NSM_F32, 2, dim, value);
    free(value);
    return nsm_error(n->ctx);
}

static int make_parts(node_task *n)
{
    const nsm_dataset_split *s = n->split;
    int64_t count = n->nodes->count;
    float *host = s ? malloc((size_t)count * sizeof *host + 1) : NULL;
    if (!s) return NSM_OK;
    if (!host) return nsm_error_set(n->ctx, NSM_ENOMEM, "out of memory");
    for (int p = 0; p < NSM_SPLIT_PARTS; p++) {
        memset(host, 0, (size_t)count * sizeof *host);
        for (int64_t k = 0; k < s->count[p]; k++) host[s->index[p][k]] = 1;
        n->part[p] = nsm_tensor_from(n->ctx, NSM_F32, 1, &count, host);
    }
    free(host);
    return nsm_error(n->ctx);
}

/* Does looking at the whole graph at once take no more than whole_mib?  Features, the widest three
 * results of layers, rows of edges. */
static bool whole_fits(const node_task *n)
{
    const train_options *o = n->options;
    const nsm_dataset_nodes *d = n->nodes;
    double nodes = (double)d->count, edges = (double)n->batches.rows.ptr[d->count];
    double features = d->ptr ? 3 * (double)d->ptr[d->count] : nodes * (double)d->features;
    double hidden = (double)(o->hidden * (strcmp(o->model, "sage") ? o->heads : 1));
    double width = fmax(hidden, (double)n->outputs);
    return 4 * (features + 3 * nodes * width + 2 * edges) <= (double)o->whole_mib * (1 << 20);
}

/* The nodes of each part that evaluation looks at: all, or eval_nodes of them, evenly drawn. */
static int make_look(node_task *n)
{
    const nsm_dataset_split *s = n->split;
    int64_t most = n->whole ? 0 : n->options->eval_nodes;
    for (int p = 0; s && p < NSM_SPLIT_PARTS; p++) {
        int64_t count = s->count[p], want = most && most < count ? most : count;
        n->look[p] = (node_list){ want, s->index[p] };
        if (want == count) continue;
        n->look_own[p] = malloc((size_t)want * sizeof *n->look_own[p]);
        if (!n->look_own[p]) return nsm_error_set(n->ctx, NSM_ENOMEM, "out of memory");
        for (int64_t k = 0; k < want; k++) n->look_own[p][k] = s->index[p][k * count / want];
        n->look[p].node = n->look_own[p];
    }
    return NSM_OK;
}

static int make_model(node_task *n, int64_t inputs)
{
    const train_options *o = n->options;
    static const struct { const char *name; nsm_gnn_norm norm; } norms[] = { { "none", NSM_GNN_NO_NORM }, { "batch", NSM_GNN_BATCH_NORM }, { "layer", NSM_GNN_LAYER_NORM } };
    static const struct { const char *name; nsm_sage_aggr aggr; } aggrs[] = { { "mean", NSM_SAGE_MEAN }, { "max", NSM_SAGE_MAX }, { "sum", NSM_SAGE_SUM } };
    int act = nsm_act_find(o->activation);
    if (act < 0) return nsm_error_set(n->ctx, NSM_EINVAL, "activation=%s is not known", o->activation);
    nsm_gnn_config c = {
        .kind = o->model, .in_channels = (int)inputs, .hidden_channels = (int)o->hidden, .out_channels = (int)n->outputs,
        .layers = (int)o->layers, .act = (nsm_act)act, .no_act = act == NSM_ACT_NONE, .dropout = (float)o->dropout, .residual = o->residual,
        .heads = (int)o->heads, .out_heads = (int)o->out_heads, .attn_dropout = (float)o->attn_dropout,
    };
    static const struct { const char *name; nsm_gnn_jump jump; } jumps[] = { { "none", NSM_GNN_NO_JUMP }, { "concat", NSM_GNN_JUMP_CONCAT }, { "max", NSM_GNN_JUMP_MAX } };
    for (size_t i = 0; i < 3; i++) {
        if (!strcmp(jumps[i].name, o->jump)) c.jump = jumps[i].jump;
        if (!strcmp(norms[i].name, o->norm)) c.norm = norms[i].norm;
        if (!strcmp(aggrs[i].name, o->aggr)) c.aggr = aggrs[i].aggr;
    }
    n->gnn = nsm_gnn_new(n->ctx, &c);
    n->tape = nsm_tape_new(n->ctx);
    return nsm_error(n->ctx);
}

/* ---- training and scoring ---- */
static nsm_tensor *loss_of(node_task *n, nsm_tensor *logits, int part)
{
    const nsm_dataset_labels *l = &n->ds->label;
    nsm_tensor *mask = n->part[part];
    if (l->kind == NSM_LABEL_CLASS)
        return nsm_cross_entropy(n->tape, logits, n->label, &(nsm_cross_entropy_config){
            .label_smoothing = part == NSM_TRAIN ? (float)n->options->label_smoothing : 0, .row_weight = mask });
    nsm_tensor *each = l->kind == NSM_LABEL_MULTI ? nsm_bce_with_logits(n->tape, logits, n->label, NULL, NSM_LOSS_NONE)
                                                  : nsm_mse_loss(n->tape, logits, n->label, NSM_LOSS_NONE);
    nsm_tensor *column = nsm_reshape(n->tape, mask, 2, (const int64_t[]){ -1, 1 });
    nsm_tensor *sum = nsm_sum(n->tape, nsm_mul(n->tape, each, column), NSM_ALL, false);
    return nsm_scale(n->tape, sum, 1.0f / (float)(n->split->count[part] * n->outputs), 0);
}

static int epoch(task *base, int64_t number, int (*step)(void *user), void *user, double *loss)
{
    node_task *n = (node_task *)base;
    (void)number;
    nsm_tape_inference(n->tape, false);
    nsm_tensor *l = loss_of(n, nsm_gnn_apply(n->tape, n->gnn, n->graph, n->x, NULL), NSM_TRAIN);
    if (!nsm_tape_backward(n->tape, l)) *loss = (double)nsm_tensor_item(l);
    nsm_tape_reset(n->tape);
    return nsm_error(n->ctx) ? nsm_error(n->ctx) : step(user);
}

/* ---- batches ---- */
/* The labels of a batch's seeds; the caller frees them. */
static nsm_tensor *labels_of(node_task *n, const nsm_batch *b)
{
    const nsm_dataset_labels *l = &n->ds->label;
    int64_t dim[2] = { b->seeds, l->columns }, c = l->columns;
    bool classes = l->kind == NSM_LABEL_CLASS;
    void *host = malloc((size_t)(b->seeds * (classes ? 1 : c)) * sizeof(float) + 1);
    if (!host) {
        nsm_error_set(n->ctx, NSM_ENOMEM, "out of memory");
        return NULL;
    }
    int32_t *cls = host;
    float *value = host;
    for (int64_t i = 0; i < b->seeds; i++) {
        int64_t node = b->node[i];
        if (classes) cls[i] = l->cls[node];
        for (int64_t k = 0; !classes && k < c; k++)
            value[i * c + k] = l->kind == NSM_LABEL_VALUE ? l->value[node * c + k] : (float)(l->multi[node * c + k] == 1);
    }
    nsm_tensor *t = nsm_tensor_from(n->ctx, classes ? NSM_I32 : NSM_F32, classes ? 1 : 2, dim, host);
    free(host);
    return t;
}

static nsm_tensor *batch_loss(node_task *n, nsm_tensor *logits, nsm_tensor *label, int part)
{
    float smoothing = part == NSM_TRAIN ? (float)n->options->label_smoothing : 0;
    if (!label) return NULL;
    switch (n->ds->label.kind) {
    case NSM_LABEL_CLASS:
        return nsm_cross_entropy(n->tape, logits, label, &(nsm_cross_entropy_config){ .label_smoothing = smoothing });
    case NSM_LABEL_MULTI:
        return nsm_bce_with_logits(n->tape, logits, label, NULL, NSM_LOSS_MEAN);
    default:
        return nsm_mse_loss(n->tape, logits, label, NSM_LOSS_MEAN);
    }
}

/* Forward and backward; *loss: the sum over its seeds. */
static int train_batch(node_task *n, const nsm_batch *b, double *loss)
{
    nsm_tensor *label = labels_of(n, b);
    nsm_tensor *l = batch_loss(n, nsm_gnn_apply_blocks(n->tape, n->gnn, b->block, b->x, NULL), label, NSM_TRAIN);
    if (!nsm_tape_backward(n->tape, l)) *loss = (double)nsm_tensor_item(l) * (double)b->seeds;
    nsm_tape_reset(n->tape);
    nsm_tensor_free(label);
    return nsm_error(n->ctx);
}

/* The sampler is made here and not with the task: its seed is the generator's, which a resumed run
 * has from its checkpoint by now. */
static int sampled_epoch(task *base, int64_t number, int (*step)(void *user), void *user, double *loss)
{
    node_task *n = (node_task *)base;
    double began = progress_now(), sum = 0, part = 0;
    int64_t seeds = 0, done = 0;
    const nsm_batch *b;
    if (!n->sampler)
        n->sampler = batches_sampler(&n->batches, n->split->count[NSM_TRAIN], n->split->index[NSM_TRAIN], false, nsm_random_get(n->ctx).seed);
    if (!n->sampler || nsm_sampler_start(n->sampler, number, 0)) return nsm_error(n->ctx);
    nsm_tape_inference(n->tape, false);
    while ((!n->most_batches || done < n->most_batches) && (b = nsm_sampler_next(n->sampler))) {
        if (train_batch(n, b, &part) || step(user)) break;
        sum += part;
        seeds += b->seeds;
        n->sampled_edges += b->edges;
        done++;
    }
    n->sampled_seconds += progress_now() - began;
    *loss = sum / (double)seeds;
    return nsm_error(n->ctx);
}

/* ---- looking at the model ---- */
/* Rows [rows, C] of scores and their likeliest columns, of these nodes (NULL: 0, 1, ...). */
static void keep_rows(node_task *n, int64_t rows, const int32_t *node, const float *score)
{
    int64_t c = n->outputs;
    for (int64_t i = 0; i < rows; i++) {
        int64_t to = node ? node[i] : i;
        const float *row = score + i * c;
        int32_t best = 0;
        for (int32_t k = 1; k < c; k++)
            if (row[k] > row[best]) best = k;
        n->guess[to] = best;
        if (score != n->scores) memcpy(n->scores + to * c, row, (size_t)c * sizeof *row);
    }
}

/* Logits as what they say: probabilities, or values. */
static nsm_tensor *as_told(node_task *n, nsm_tensor *y)
{
    switch (n->labels) {
    case NSM_LABEL_MULTI: return nsm_sigmoid(n->tape, y);
    case NSM_LABEL_VALUE: return y;
    default: return nsm_softmax(n->tape, y, -1);
    }
}

/* What to take down of the nodes that are looked at, batch by batch. */
typedef struct {
    node_list list;   /* node NULL: all */
    int part;         /* whose loss to sum up, or -1 */
    double loss;
    float *told;      /* [n, C] probabilities or values, or NULL */
} look;

static void look_at_batch(node_task *n, look *l, const nsm_batch *b, float *row)
{
    nsm_tensor *label = NULL, *y = nsm_gnn_apply_blocks(n->tape, n->gnn, b->block, b->x, NULL);
    if (y && !nsm_tensor_get(y, row)) keep_rows(n, b->seeds, b->node, row);
    if (l->part >= 0) {
        label = labels_of(n, b);
        l->loss += (double)nsm_tensor_item(batch_loss(n, y, label, l->part)) * (double)b->seeds;
    }
    if (l->told && (y = as_told(n, y)) && !nsm_tensor_get(y, row))
        for (int64_t i = 0; i < b->seeds; i++)
            memcpy(l->told + b->node[i] * n->outputs, row + i * n->outputs, (size_t)n->outputs * sizeof *row);
    nsm_tape_reset(n->tape);
    nsm_tensor_free(label);
}

/* Always the same draws: a model that does not change is not judged anew. */
static int look_sampled(node_task *n, look *l)
{
    nsm_sampler *s = batches_sampler(&n->batches, l->list.count, l->list.node, true, 0);
    float *row = s ? malloc((size_t)(n->options->batch_size * n->outputs) * sizeof *row) : NULL;
    const nsm_batch *b;
    if (s && !row) nsm_error_set(n->ctx, NSM_ENOMEM, "out of memory");
    nsm_tape_inference(n->tape, true);
    if (row && !nsm_sampler_start(s, 0, 0))
        while ((b = nsm_sampler_next(s))) look_at_batch(n, l, b, row);
    free(row);
    nsm_sampler_free(s);
    return nsm_error(n->ctx);
}

/* The share of right answers among a part's nodes. */
static double accuracy(node_task *n, int part)
{
    int64_t right = 0, count = n->look[part].count;
    for (int64_t k = 0; k < count; k++) {
        int32_t i = n->look[part].node[k];
        right += n->guess[i] == n->ds->label.cls[i];
    }
    return count ? (double)right / (double)count : NAN;
}

/* Labels that are not classes: the part's rows together, then the metric of the kind. */
static double rows_score(node_task *n, int part)
{
    const nsm_dataset_labels *l = &n->ds->label;
    int64_t count = n->look[part].count, c = l->columns;
    float *guess = malloc((size_t)(count * c) * sizeof *guess + 1), *value = malloc((size_t)(count * c) * sizeof *value + 1);
    uint8_t *truth = malloc((size_t)(count * c) + 1);
    double score = NAN;
    if (!guess || !value || !truth) nsm_error_set(n->ctx, NSM_ENOMEM, "out of memory");
    for (int64_t k = 0; guess && value && truth && k < count; k++) {
        int64_t i = n->look[part].node[k];
        memcpy(guess + k * c, n->scores + i * c, (size_t)c * sizeof *guess);
        if (l->kind == NSM_LABEL_MULTI) memcpy(truth + k * c, l->multi + i * c, (size_t)c);
        else memcpy(value + k * c, l->value + i * c, (size_t)c * sizeof *value);
    }
    if (!nsm_error(n->ctx) && count)
        score = l->kind == NSM_LABEL_MULTI ? nsm_roc_auc_labels(n->ctx, count, (int)c, truth, guess, true)
                                           : nsm_mae(n->ctx, count * c, value, guess);
    free(guess);
    free(value);
    free(truth);
    return score;
}

static nsm_tensor *logits_for_looking(node_task *n)
{
    nsm_tape_inference(n->tape, true);
    return nsm_gnn_apply(n->tape, n->gnn, n->graph, n->x, NULL);
}

static int take_guesses(node_task *n, nsm_tensor *logits)
{
    int code = logits ? nsm_tensor_get(logits, n->scores) : nsm_error(n->ctx);
    if (!code) keep_rows(n, n->nodes->count, NULL, n->scores);
    return code;
}

const int32_t *node_task_guess(node_task *n, int part)
{
    if (n->labels != NSM_LABEL_CLASS) {
        nsm_error_set(n->ctx, NSM_EINVAL, "the model tells no classes: its labels are %s", label_name[n->labels]);
        return NULL;
    }
    look l = { .list = part < 0 ? (node_list){ n->nodes->count, NULL } : n->look[part], .part = -1 };
    int code = n->whole ? take_guesses(n, logits_for_looking(n)) : look_sampled(n, &l);
    nsm_tape_reset(n->tape);
    return code ? NULL : n->guess;
}

static double score_of(node_task *n, int part)
{
    return n->labels == NSM_LABEL_CLASS ? accuracy(n, part) : rows_score(n, part);
}

static int evaluate(task *base, part_score part[3])
{
    node_task *n = (node_task *)base;
    nsm_tensor *logits = logits_for_looking(n);
    int code = take_guesses(n, logits);
    for (int p = 0; !code && p < NSM_SPLIT_PARTS; p++) {
        part[p] = (part_score){ NAN, NAN };
        if (!n->split->count[p]) continue;
        part[p].score = score_of(n, p);
        if (p != NSM_TEST) part[p].loss = (double)nsm_tensor_item(loss_of(n, logits, p));
        code = nsm_error(n->ctx);
    }
    nsm_tape_reset(n->tape);
    return code;
}

static int sampled_evaluate(task *base, part_score part[3])
{
    node_task *n = (node_task *)base;
    int code = NSM_OK;
    for (int p = 0; !code && p < NSM_SPLIT_PARTS; p++) {
        look l = { .list = n->look[p], .part = p != NSM_TEST ? p : -1 };
        part[p] = (part_score){ NAN, NAN };
        if (!l.list.count) continue;
        code = look_sampled(n, &l);
        if (!code) part[p].score = score_of(n, p);
        if (!code && p != NSM_TEST) part[p].loss = l.loss / (double)l.list.count;
        if (!code) code = nsm_error(n->ctx);
    }
    return code;
}

int node_task_predict(node_task *n, float *out, int32_t *guess)
{
    look l = { .list = { n->nodes->count, NULL }, .part = -1, .told = out };
    if (n->whole) {
        nsm_tensor *y = logits_for_looking(n);
        if (!take_guesses(n, y) && (y = as_told(n, y))) nsm_tensor_get(y, out);
        nsm_tape_reset(n->tape);
    } else {
        look_sampled(n, &l);
    }
    if (guess && !nsm_error(n->ctx)) memcpy(guess, n->guess, (size_t)n->nodes->count * sizeof *guess);
    return nsm_error(n->ctx);
}

void node_edges_clear(node_edges *e)
{
    free(e->src);
    free(e->dst);
    free(e->attention);
    *e = (node_edges){ 0 };
}

/* The mean over heads [H], in place: what is written never overtakes what is still to be read. */
static void mean_of_heads(float *prob, int64_t count, int64_t heads)
{
    for (int64_t k = 0; k < count; k++) {
        double sum = 0;
        for (int64_t h = 0; h < heads; h++) sum += (double)prob[k * heads + h];
        prob[k] = (float)(sum / (double)heads);
    }
}

int node_task_edges(node_task *n, node_edges *e)
{
    nsm_attention all[64] = { 0 }, *a = all;
    int64_t heads = 0;
    *e = (node_edges){ 0 };
    if (!n->whole)
        return nsm_error_set(n->ctx, NSM_EINVAL, "%s is too large to show its edges (the model samples them; whole_mib=%lld)",
                             n->ds->name, (long long)n->options->whole_mib);
    e->count = n->graph->edges;
    nsm_tape_inference(n->tape, true);
    nsm_tensor *y = nsm_gnn_apply(n->tape, n->gnn, n->graph, n->x, all);
    if (y && a->prob) {
        e->count = a->csr->nnz;
        heads = a->prob->dim[1];
        e->attention = malloc((size_t)(e->count * heads) * sizeof *e->attention + 1);
    }
    e->src = malloc((size_t)e->count * sizeof *e->src + 1);
    e->dst = malloc((size_t)e->count * sizeof *e->dst + 1);
    if (!e->src || !e->dst || (heads && !e->attention)) nsm_error_set(n->ctx, NSM_ENOMEM, "out of memory");
    else if (!heads) nsm_graph_edges(n->graph, e->src, e->dst);
    else if (!nsm_attention_get(a, e->src, e->dst, e->attention)) mean_of_heads(e->attention, e->count, heads);
    nsm_tape_reset(n->tape);
    if (nsm_error(n->ctx)) node_edges_clear(e);
    return nsm_error(n->ctx);
}

/* ---- making and freeing ---- */
/* The device's part of it only where the whole graph goes there. */
static int make_data(node_task *n)
{
    n->sampled = n->options->batch_size > 0;
    if (!n->nodes->features)
        return nsm_error_set(n->ctx, NSM_EINVAL, "the nodes of %s have no features to learn from", n->ds->name);
    if (n->sampled && batches_make(n->ds, n->options, &n->batches)) return nsm_error(n->ctx);
    n->whole = !n->sampled || whole_fits(n);
    if (!n->whole) return NSM_OK;
    if (make_features(n) || make_graph(n) || make_labels(n)) return nsm_error(n->ctx);
    return make_parts(n);
}

nsm_dataset *node_dataset(nsm_ctx *ctx, const train_options *options)
{
    bool in_file = options->batch_size > 0 && options->in_file;
    return nsm_dataset_load(ctx, options->data, &(nsm_dataset_options){ .features_in_file_bytes = in_file ? -1 : 0 });
}

/* Does the data fit the model that was trained? */
static int check_data(node_task *n, const trainer_meta *trained)
{
    const nsm_dataset_labels *l = &n->ds->label;
    if (trained->labels < NSM_LABEL_CLASS || trained->labels > NSM_LABEL_VALUE || trained->outputs < 1)
        return nsm_error_set(n->ctx, NSM_EFORMAT, "the checkpoint's labels are of kind %lld, in %lld columns",
                             (long long)trained->labels, (long long)trained->outputs);
    if (trained->inputs != n->nodes->features)
        return nsm_error_set(n->ctx, NSM_ESHAPE, "the model reads %lld features a node, %s has %lld",
                             (long long)trained->inputs, n->ds->name, (long long)n->nodes->features);
    if (l->kind == NSM_LABEL_NONE || l->of_graphs) return NSM_OK;
    if (l->kind != (nsm_label_kind)trained->labels)
        return nsm_error_set(n->ctx, NSM_EINVAL, "the model tells labels of another kind (%s) than %s has (%s)",
                             label_name[trained->labels], n->ds->name, label_name[l->kind]);
    if (l->columns != trained->outputs)
        return nsm_error_set(n->ctx, NSM_ESHAPE, "the model tells %lld classes apart, %s has %lld",
                             (long long)trained->outputs, n->ds->name, (long long)l->columns);
    return NSM_OK;
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
    if (training || ds->splits) n->split = nsm_dataset_split_find(ds, *n->options->split ? n->options->split : NULL);
    if (nsm_error(n->ctx)) return nsm_error(n->ctx);
    if (training && !n->split->count[NSM_TRAIN])
        return nsm_error_set(n->ctx, NSM_EINVAL, "split %s of %s has no training nodes", n->split->name, ds->name);
    n->guess = malloc((size_t)n->nodes->count * sizeof *n->guess + 1);
    n->scores = malloc((size_t)(n->nodes->count * n->outputs) * sizeof *n->scores + 1);
    if (!n->guess || !n->scores) return nsm_error_set(n->ctx, NSM_ENOMEM, "out of memory");
    if (make_data(n) || make_look(n) || make_model(n, n->nodes->features)) return nsm_error(n->ctx);
    static const char *const metric[] = { "accuracy", "accuracy", "roc_auc", "mae" };
    int64_t batch = n->options->batch_size, labelled = n->split ? n->split->count[NSM_TRAIN] : 0;
    n->base = (task){ .ctx = n->ctx, .module = nsm_gnn_module(n->gnn), .metric = metric[n->labels], .lower = n->labels == NSM_LABEL_VALUE,
                      .steps_per_epoch = n->sampled ? (labelled + batch - 1) / batch : 1, .inputs = n->nodes->features,
                      .outputs = n->outputs, .labels = n->labels, .epoch = n->sampled ? sampled_epoch : epoch,
                      .evaluate = n->whole ? evaluate : sampled_evaluate };
    return NSM_OK;
}

node_task *node_task_new(nsm_ctx *ctx, const train_options *options, nsm_dataset *ds, const trainer_meta *trained)
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
double node_task_sampled_rate(const node_task *n) { return n->sampled_edges ? (double)n->sampled_edges / n->sampled_seconds : NAN; }
nsm_label_kind node_task_labels(const node_task *n) { return n->labels; }

void node_task_data(const node_task *n, const nsm_graph **graph, nsm_tensor **x, nsm_tensor **y)
{
    *graph = n->graph;
    *x = n->x;
    *y = n->label;
}

/* ---- a trial: one epoch and one look, on a part of the nodes where the graph is large ----
 * The part keeps the first rows whole: all edges into them, their sources folded onto them. */
enum { TRIAL_NODES = 32768 };

static int64_t fold_edges(nsm_dataset_edges *to, const nsm_dataset_edges *from, int64_t count)
{
    int64_t n = 0;
    for (int64_t k = 0; k < from->count; k++)
        if (from->dst[k] < count) {
            to->src[n] = from->src[k] % (int32_t)count;
            to->dst[n++] = from->dst[k];
        }
    return n;
}

static void cut_split(nsm_dataset_split *to, const nsm_dataset_split *from, int64_t count)
{
    for (int p = 0; p < NSM_SPLIT_PARTS; p++) {
        to->count[p] = 0;
        for (int64_t k = 0; to->index[p] && k < from->count[p]; k++)
            if (from->index[p][k] < count) to->index[p][to->count[p]++] = from->index[p][k];
    }
}

static int no_step(void *user)
{
    nsm_module_zero_grad(user);
    return NSM_OK;
}

/* The second epoch counts: the first fills caches. */
static int time_trial(node_task *n, node_estimate *out)
{
    double loss, began = 0;
    part_score part[3];
    int code = NSM_OK;
    for (int pass = 0; !code && pass < 2; pass++) {
        began = progress_now();
        code = epoch(&n->base, 1, no_step, n->base.module, &loss);
        out->epoch_seconds = progress_now() - began;
    }
    if (!code) code = evaluate(&n->base, part);
    out->parameters = nsm_module_count(n->base.module);
    out->peak_bytes = nsm_ctx_memory(n->ctx).peak_bytes;
    return code;
}

/* Shares what it can with ds: labels, features, names; only the counts differ. */
static int trial_on(nsm_ctx *ctx, const train_options *options, nsm_dataset *ds, int64_t count, node_estimate *out)
{
    nsm_dataset part = *ds;
    nsm_dataset_nodes node = ds->node[ds->target];
    nsm_dataset_edges *edge = calloc((size_t)ds->edge_types + 1, sizeof *edge);
    nsm_dataset_split split = { .name = NULL };
    const nsm_dataset_split *whole = nsm_dataset_split_find(ds, *options->split ? options->split : NULL);
    bool ok = edge && whole;
    split.name = whole ? whole->name : NULL;
    node.count = count;
    for (int p = 0; ok && p < NSM_SPLIT_PARTS; p++) ok = (split.index[p] = malloc((size_t)whole->count[p] * sizeof(int32_t) + 1)) != NULL;
    if (ok) cut_split(&split, whole, count);
    for (int e = 0; ok && e < ds->edge_types; e++) {
        const nsm_dataset_edges *from = &ds->edge[e];
        bool within = from->src_type == ds->target && from->dst_type == ds->target;
        edge[e] = (nsm_dataset_edges){ .name = from->name };
        edge[e].src = malloc((size_t)(within ? from->count : 0) * sizeof(int32_t) + 1);
        edge[e].dst = malloc((size_t)(within ? from->count : 0) * sizeof(int32_t) + 1);
        ok = edge[e].src && edge[e].dst;
        if (ok && within) edge[e].count = fold_edges(&edge[e], from, count);
    }
    part.edge_types = ds->edge_types;
    part.node_types = 1;
    part.target = 0;
    part.node = &node;
    part.edge = edge;
    part.splits = 1;
    part.split = &split;
    int code = ok ? NSM_OK : nsm_error_set(ctx, NSM_ENOMEM, "out of memory");
    node_task *n = code ? NULL : node_task_new(ctx, options, &part, NULL);
    if (n) code = time_trial(n, out);
    else code = nsm_error(ctx);
    node_task_free(n);
    for (int e = 0; edge && e < ds->edge_types; e++) {
        free(edge[e].src);
        free(edge[e].dst);
    }
    for (int p = 0; p < NSM_SPLIT_PARTS; p++) free(split.index[p]);
    free(edge);
    return code;
}

/* Of a sampled run: a few batches of the real one.  Memory is what this process has come to use. */
static int estimate_sampled(nsm_ctx *ctx, const train_options *options, nsm_dataset *ds, node_estimate *out)
{
    enum { WARM = 4, TIMED = 16 };
    node_task *n = node_task_new(ctx, options, ds, NULL);
    double loss, began;
    part_score part[3];
    struct rusage used;
    int code = n ? NSM_OK : nsm_error(ctx);
    if (!code) {
        n->most_batches = WARM;
        code = sampled_epoch(&n->base, 0, no_step, n->base.module, &loss);
    }
    if (!code) {
        int64_t all = n->base.steps_per_epoch, timed = all < TIMED ? all : TIMED;
        n->most_batches = TIMED;
        began = progress_now();
        code = sampled_epoch(&n->base, 1, no_step, n->base.module, &loss);
        out->share = (double)timed / (double)all;
        out->epoch_seconds = (progress_now() - began) / out->share;
        out->parameters = nsm_module_count(n->base.module);
        if (!code && n->whole) code = n->base.evaluate(&n->base, part);
        getrusage(RUSAGE_SELF, &used);
        out->peak_bytes = (int64_t)used.ru_maxrss * 1024;
        for (int p = 0; p < NSM_SPLIT_PARTS && !n->whole; p++) out->peak_bytes += n->look[p].count * (n->outputs + 1) * (int64_t)sizeof(float);
    }
    node_task_free(n);
    return code;
}

int node_task_estimate(nsm_ctx *ctx, const train_options *options, nsm_dataset *ds, node_estimate *out)
{
    if (options->batch_size > 0) return estimate_sampled(ctx, options, ds, out);
    int64_t count = ds->node[ds->target].count, part = count < TRIAL_NODES ? count : TRIAL_NODES;
    int code = trial_on(ctx, options, ds, part, out);
    out->share = count ? (double)part / (double)count : 1;
    if (code || out->share >= 1) return code;
    /* weights, gradients and two moments do not grow with the graph */
    int64_t fixed = out->parameters * 4 * (int64_t)sizeof(float);
    out->peak_bytes = fixed + (int64_t)((double)(out->peak_bytes - fixed) / out->share);
    out->epoch_seconds /= out->share;
    return NSM_OK;
}
