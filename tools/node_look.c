/* node_look.c - Looking at a model of nodes: what it guesses, how well, and where its attention is.
 *
 * The whole graph at once, exactly, or batches of sampled neighbours. */
#include "config.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/metrics.h"
#include "tools/node_parts.h"
#include "tools/progress.h"

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
        label = node_labels(n, b->seeds, b->node);
        l->loss += (double)nsm_tensor_item(node_batch_loss(n, y, label, l->part)) *
                   (double)b->seeds;
    }
    if (l->told && (y = as_told(n, y)) && !nsm_tensor_get(y, row))
        for (int64_t i = 0; i < b->seeds; i++)
            memcpy(l->told + b->node[i] * n->outputs, row + i * n->outputs,
                   (size_t)n->outputs * sizeof *row);
    nsm_tape_reset(n->tape);
    nsm_tensor_free(label);
}

/* Always the same draws: a model that does not change is not judged anew.  TASK_PAUSED: a signal
 * came. */
static int look_sampled(node_task *n, look *l)
{
    nsm_sampler *s = batches_sampler(&n->batches, l->list.count, l->list.node, true, 0);
    float *row = s ? node_array(n->ctx, n->options->batch_size, n->outputs, sizeof *row) : NULL;
    const nsm_batch *b;
    nsm_tape_inference(n->tape, true);
    if (row && !nsm_sampler_start(s, 0, 0))
        while (!stop_signal() && (b = nsm_sampler_next(s))) look_at_batch(n, l, b, row);
    free(row);
    nsm_sampler_free(s);
    return nsm_error(n->ctx) ? nsm_error(n->ctx) : stop_signal() ? TASK_PAUSED : NSM_OK;
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
    float *guess = node_array(n->ctx, count, c, sizeof *guess),
          *value = node_array(n->ctx, count, c, sizeof *value);
    uint8_t *truth = node_array(n->ctx, count, c, sizeof *truth);
    double score = NAN;
    for (int64_t k = 0; guess && value && truth && k < count; k++) {
        int64_t i = n->look[part].node[k];
        memcpy(guess + k * c, n->scores + i * c, (size_t)c * sizeof *guess);
        if (l->kind == NSM_LABEL_MULTI) memcpy(truth + k * c, l->multi + i * c, (size_t)c);
        else memcpy(value + k * c, l->value + i * c, (size_t)c * sizeof *value);
    }
    if (!nsm_error(n->ctx) && count)
        score = l->kind == NSM_LABEL_MULTI
                    ? nsm_roc_auc_labels(n->ctx, count, (int)c, truth, guess, true)
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
        nsm_error_set(n->ctx, NSM_EINVAL, "the model tells no classes: its labels are %s",
                      node_label_name[n->labels]);
        return NULL;
    }
    look l = { .list = part < 0 ? (node_list){ n->nodes->count, NULL } : n->look[part],
               .part = -1 };
    int code = n->whole ? take_guesses(n, logits_for_looking(n)) : look_sampled(n, &l);
    nsm_tape_reset(n->tape);
    return code ? NULL : n->guess;
}

static double score_of(node_task *n, int part)
{
    return n->labels == NSM_LABEL_CLASS ? accuracy(n, part) : rows_score(n, part);
}

int node_evaluate(task *base, part_score part[3])
{
    node_task *n = (node_task *)base;
    nsm_tensor *logits = logits_for_looking(n);
    int code = take_guesses(n, logits);
    for (int p = 0; !code && p < NSM_SPLIT_PARTS; p++) {
        part[p] = (part_score){ NAN, NAN };
        if (!n->split->count[p]) continue;
        part[p].score = score_of(n, p);
        if (p != NSM_TEST) part[p].loss = (double)nsm_tensor_item(node_loss(n, logits, p));
        code = nsm_error(n->ctx);
    }
    nsm_tape_reset(n->tape);
    return code;
}

int node_evaluate_sampled(task *base, part_score part[3])
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
    if (guess && !nsm_error(n->ctx))
        memcpy(guess, n->guess, (size_t)n->nodes->count * sizeof *guess);
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
        return nsm_error_set(
            n->ctx, NSM_EINVAL,
            "%s is too large to show its edges (the model samples them; whole_mib=%lld)",
            n->ds->name, (long long)n->options->whole_mib);
    e->count = n->graph->edges;
    nsm_tape_inference(n->tape, true);
    nsm_tensor *y = nsm_gnn_apply(n->tape, n->gnn, n->graph, n->x, all);
    if (y && a->prob) {
        e->count = a->csr->nnz;
        heads = a->prob->dim[1];
        e->attention = node_array(n->ctx, e->count, heads, sizeof *e->attention);
    }
    e->src = node_array(n->ctx, e->count, 1, sizeof *e->src);
    e->dst = node_array(n->ctx, e->count, 1, sizeof *e->dst);
    if (nsm_error(n->ctx)) e->count = 0;
    else if (!heads) nsm_graph_edges(n->graph, e->src, e->dst);
    else if (!nsm_attention_get(a, e->src, e->dst, e->attention))
        mean_of_heads(e->attention, e->count, heads);
    nsm_tape_reset(n->tape);
    if (nsm_error(n->ctx)) node_edges_clear(e);
    return nsm_error(n->ctx);
}
