/* node.c - See node.h. */
#include "config.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/metrics.h"
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
    float *scores;                       /* host [n, C]: labels that are not classes */
    int64_t outputs;
};

/* ---- from dataset to device ---- */
static void sum_to_one(float *row, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)row[i];
    if (sum > 0)
        for (int64_t i = 0; i < n; i++) row[i] = (float)((double)row[i] / sum);
}

static int make_features(node_task *n)
{
    const nsm_dataset_nodes *d = n->nodes;
    int64_t values = d->ptr ? d->ptr[d->count] : d->count * d->features;
    if (!d->features)
        return nsm_error_set(n->ctx, NSM_EINVAL, "the nodes of %s have no features to learn from", n->ds->name);
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
    for (size_t i = 0; i < 3; i++) {
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

/* The share of right answers among a part's nodes. */
static double accuracy(node_task *n, int part)
{
    int64_t right = 0, count = n->split->count[part];
    for (int64_t k = 0; k < count; k++) {
        int32_t i = n->split->index[part][k];
        right += n->guess[i] == n->ds->label.cls[i];
    }
    return count ? (double)right / (double)count : NAN;
}

/* Labels that are not classes: the part's rows together, then the metric of the kind. */
static double rows_score(node_task *n, int part)
{
    const nsm_dataset_labels *l = &n->ds->label;
    int64_t count = n->split->count[part], c = l->columns;
    float *guess = malloc((size_t)(count * c) * sizeof *guess + 1), *value = malloc((size_t)(count * c) * sizeof *value + 1);
    uint8_t *truth = malloc((size_t)(count * c) + 1);
    double score = NAN;
    if (!guess || !value || !truth) nsm_error_set(n->ctx, NSM_ENOMEM, "out of memory");
    for (int64_t k = 0; guess && value && truth && k < count; k++) {
        int64_t i = n->split->index[part][k];
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
    if (!logits) return nsm_error(n->ctx);
    int code = nsm_tensor_get(logits, n->scores);
    for (int64_t i = 0, c = n->outputs; !code && n->ds->label.kind == NSM_LABEL_CLASS && i < n->nodes->count; i++) {
        const float *row = n->scores + i * c;
        n->guess[i] = 0;
        for (int32_t k = 1; k < c; k++)
            if (row[k] > row[n->guess[i]]) n->guess[i] = k;
    }
    return code;
}

int node_task_guess(node_task *n, int32_t *out)
{
    int code = take_guesses(n, logits_for_looking(n));
    nsm_tape_reset(n->tape);
    if (!code) memcpy(out, n->guess, (size_t)n->nodes->count * sizeof *out);
    return code;
}

static int evaluate(task *base, part_score part[3])
{
    node_task *n = (node_task *)base;
    nsm_tensor *logits = logits_for_looking(n);
    int code = take_guesses(n, logits);
    for (int p = 0; !code && p < NSM_SPLIT_PARTS; p++) {
        part[p] = (part_score){ NAN, NAN };
        if (!n->split->count[p]) continue;
        part[p].score = n->ds->label.kind == NSM_LABEL_CLASS ? accuracy(n, p) : rows_score(n, p);
        if (p != NSM_TEST) part[p].loss = (double)nsm_tensor_item(loss_of(n, logits, p));
        code = nsm_error(n->ctx);
    }
    nsm_tape_reset(n->tape);
    return code;
}

int node_task_predict(node_task *n, float *out)
{
    nsm_tensor *y = logits_for_looking(n);
    if (n->ds->label.kind == NSM_LABEL_CLASS || n->ds->label.kind == NSM_LABEL_NONE) y = nsm_softmax(n->tape, y, -1);
    else if (n->ds->label.kind == NSM_LABEL_MULTI) y = nsm_sigmoid(n->tape, y);
    if (y) nsm_tensor_get(y, out);
    nsm_tape_reset(n->tape);
    return nsm_error(n->ctx);
}

void node_edges_clear(node_edges *e)
{
    free(e->src);
    free(e->dst);
    free(e->prob);
    *e = (node_edges){ 0 };
}

int node_task_edges(node_task *n, int layer, node_edges *e)
{
    nsm_attention all[64] = { 0 }, *a = &all[layer];
    *e = (node_edges){ .count = n->graph->edges };
    nsm_tape_inference(n->tape, true);
    nsm_tensor *y = nsm_gnn_apply(n->tape, n->gnn, n->graph, n->x, all);
    if (y && a->prob) {
        e->count = a->csr->nnz;
        e->heads = (int)a->prob->dim[1];
        e->prob = malloc((size_t)(e->count * e->heads) * sizeof *e->prob + 1);
    }
    e->src = malloc((size_t)e->count * sizeof *e->src + 1);
    e->dst = malloc((size_t)e->count * sizeof *e->dst + 1);
    if (!e->src || !e->dst || (e->heads && !e->prob)) nsm_error_set(n->ctx, NSM_ENOMEM, "out of memory");
    else if (e->heads) nsm_attention_get(a, e->src, e->dst, e->prob);
    else nsm_graph_edges(n->graph, e->src, e->dst);
    nsm_tape_reset(n->tape);
    if (nsm_error(n->ctx)) node_edges_clear(e);
    return nsm_error(n->ctx);
}

/* ---- making and freeing ---- */
static int set_up(node_task *n, int64_t inputs, int64_t outputs)
{
    nsm_dataset *ds = n->ds;
    bool training = outputs == 0;
    n->nodes = &ds->node[ds->target];
    n->outputs = outputs ? outputs : ds->label.columns;
    if (training && (ds->label.kind == NSM_LABEL_NONE || ds->label.of_graphs))
        return nsm_error_set(n->ctx, NSM_EINVAL, "%s has no labels of nodes to learn", ds->name);
    if (inputs && inputs != n->nodes->features)
        return nsm_error_set(n->ctx, NSM_ESHAPE, "the model reads %lld features a node, %s has %lld", (long long)inputs, ds->name,
                             (long long)n->nodes->features);
    if (outputs && ds->label.kind != NSM_LABEL_NONE && !ds->label.of_graphs && outputs != ds->label.columns)
        return nsm_error_set(n->ctx, NSM_ESHAPE, "the model tells %lld classes apart, %s has %lld", (long long)outputs, ds->name,
                             (long long)ds->label.columns);
    if (training || ds->splits) n->split = nsm_dataset_split_find(ds, *n->options->split ? n->options->split : NULL);
    if (nsm_error(n->ctx)) return nsm_error(n->ctx);
    if (training && !n->split->count[NSM_TRAIN])
        return nsm_error_set(n->ctx, NSM_EINVAL, "split %s of %s has no training nodes", n->split->name, ds->name);
    n->guess = malloc((size_t)n->nodes->count * sizeof *n->guess + 1);
    n->scores = malloc((size_t)(n->nodes->count * n->outputs) * sizeof *n->scores + 1);
    if (!n->guess || !n->scores) return nsm_error_set(n->ctx, NSM_ENOMEM, "out of memory");
    if (make_features(n) || make_graph(n) || make_labels(n) || make_parts(n) || make_model(n, n->nodes->features)) return nsm_error(n->ctx);
    static const char *const metric[] = { "accuracy", "accuracy", "roc_auc", "mae" };
    n->base = (task){ .ctx = n->ctx, .module = nsm_gnn_module(n->gnn), .metric = metric[ds->label.kind], .lower = ds->label.kind == NSM_LABEL_VALUE,
                      .steps_per_epoch = 1, .inputs = n->nodes->features, .outputs = n->outputs, .epoch = epoch, .evaluate = evaluate };
    return NSM_OK;
}

node_task *node_task_new(nsm_ctx *ctx, const train_options *options, nsm_dataset *ds, int64_t inputs, int64_t outputs)
{
    node_task *n = ds && !nsm_error(ctx) ? calloc(1, sizeof *n) : NULL;
    if (!n) {
        if (ds) nsm_error_set(ctx, NSM_ENOMEM, "out of memory");
        return NULL;
    }
    n->ctx = ctx;
    n->options = options;
    n->ds = ds;
    if (!set_up(n, inputs, outputs)) return n;
    node_task_free(n);
    return NULL;
}

void node_task_free(node_task *n)
{
    if (!n) return;
    nsm_tape_free(n->tape);
    nsm_gnn_free(n->gnn);
    nsm_graph_free(n->graph);
    nsm_tensor_free(n->x);
    nsm_csr_free(n->feature_rows);
    nsm_tensor_free(n->label);
    for (int p = 0; p < NSM_SPLIT_PARTS; p++) nsm_tensor_free(n->part[p]);
    free(n->guess);
    free(n->scores);
    free(n);
}

task *node_task_base(node_task *n) { return &n->base; }
int64_t node_task_nodes(const node_task *n) { return n->nodes->count; }
const nsm_dataset_split *node_task_split(const node_task *n) { return n->split; }

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
    node_task *n = code ? NULL : node_task_new(ctx, options, &part, 0, 0);
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

int node_task_estimate(nsm_ctx *ctx, const train_options *options, nsm_dataset *ds, node_estimate *out)
{
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
