/* node_trial.c - Bytes and seconds of an epoch, before anything starts. */
#include "config.h"
#include <stdlib.h>
#include <sys/resource.h>
#include "tools/node_parts.h"
#include "tools/progress.h"

/* One epoch and one look, on a part of the nodes where the graph is large.
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

/* Steps that change nothing; the last one pauses the epoch. */
typedef struct { nsm_module *module; int64_t left; } trial_steps;

static int trial_step(void *user)
{
    trial_steps *t = user;
    nsm_module_zero_grad(t->module);
    return --t->left ? NSM_OK : TASK_PAUSED;
}

static int run_epoch(node_task *n, int64_t number, int64_t steps)
{
    epoch_place at = { 0 };
    int code = n->base.epoch(&n->base, number, &at, trial_step,
                             &(trial_steps){ n->base.module, steps });
    return code == TASK_PAUSED ? NSM_OK : code;
}

/* The second epoch counts: the first fills caches. */
static int time_trial(node_task *n, node_estimate *out)
{
    double began = 0;
    part_score part[3];
    int code = NSM_OK;
    for (int pass = 0; !code && pass < 2; pass++) {
        began = progress_now();
        code = run_epoch(n, 1, 1);
        out->epoch_seconds = progress_now() - began;
    }
    if (!code) code = n->base.evaluate(&n->base, part);
    out->parameters = nsm_module_count(n->base.module);
    out->peak_bytes = nsm_ctx_memory(n->ctx).peak_bytes;
    return code;
}

/* A dataset of the first `count` nodes.  Shares what it can with ds: labels, features, names. */
typedef struct {
    nsm_dataset ds;
    nsm_dataset_nodes node;
    nsm_dataset_edges *edge;
    nsm_dataset_split split;
} trial_part;

static bool part_edges(trial_part *p, const nsm_dataset *ds, int type)
{
    const nsm_dataset_edges *from = &ds->edge[type];
    nsm_dataset_edges *to = &p->edge[type];
    bool within = from->src_type == ds->target && from->dst_type == ds->target;
    *to = (nsm_dataset_edges){ .name = from->name };
    to->src = node_array(ds->ctx, within ? from->count : 0, 1, sizeof *to->src);
    to->dst = node_array(ds->ctx, within ? from->count : 0, 1, sizeof *to->dst);
    if (to->src && to->dst && within) to->count = fold_edges(to, from, p->node.count);
    return to->src && to->dst;
}

static int part_make(trial_part *p, const nsm_dataset *ds, const nsm_dataset_split *whole,
                     int64_t count)
{
    *p = (trial_part){ .ds = *ds, .node = ds->node[ds->target], .split = { .name = whole->name } };
    p->node.count = count;
    p->edge = calloc((size_t)ds->edge_types + 1, sizeof *p->edge);
    bool ok = p->edge != NULL;
    if (!ok) nsm_error_set(ds->ctx, NSM_ENOMEM, "out of memory");
    for (int k = 0; ok && k < NSM_SPLIT_PARTS; k++)
        ok = (p->split.index[k] = node_array(ds->ctx, whole->count[k], 1, sizeof(int32_t))) != NULL;
    if (ok) cut_split(&p->split, whole, count);
    for (int e = 0; ok && e < ds->edge_types; e++) ok = part_edges(p, ds, e);
    p->ds.node_types = 1;
    p->ds.target = 0;
    p->ds.node = &p->node;
    p->ds.edge = p->edge;
    p->ds.splits = 1;
    p->ds.split = &p->split;
    return nsm_error(ds->ctx);
}

static void part_clear(trial_part *p)
{
    for (int e = 0; p->edge && e < p->ds.edge_types; e++) {
        free(p->edge[e].src);
        free(p->edge[e].dst);
    }
    for (int k = 0; k < NSM_SPLIT_PARTS; k++) free(p->split.index[k]);
    free(p->edge);
}

static int trial_on(nsm_ctx *ctx, const train_options *options, nsm_dataset *ds, int64_t count,
                    node_estimate *out)
{
    trial_part part;
    const nsm_dataset_split *whole = nsm_dataset_split_find(ds, *options->split ? options->split
                                                                                : NULL);
    if (!whole) return nsm_error(ctx);
    int code = part_make(&part, ds, whole, count);
    node_task *n = code ? NULL : node_task_new(ctx, options, &part.ds, NULL);
    code = n ? time_trial(n, out) : nsm_error(ctx);
    node_task_free(n);
    part_clear(&part);
    return code;
}

/* Of a sampled run: a few batches of the real one.  Memory is what this process has come to use. */
static int estimate_sampled(nsm_ctx *ctx, const train_options *options, nsm_dataset *ds,
                            node_estimate *out)
{
    enum { WARM = 4, TIMED = 16 };
    node_task *n = node_task_new(ctx, options, ds, NULL);
    double began;
    part_score part[3];
    struct rusage used;
    int code = n ? NSM_OK : nsm_error(ctx);
    if (!code) code = run_epoch(n, 0, WARM);
    if (!code) {
        int64_t all = n->base.steps_per_epoch, timed = all < TIMED ? all : TIMED;
        began = progress_now();
        code = run_epoch(n, 1, TIMED);
        out->share = (double)timed / (double)all;
        out->epoch_seconds = (progress_now() - began) / out->share;
        out->parameters = nsm_module_count(n->base.module);
        if (!code && n->whole) code = n->base.evaluate(&n->base, part);
        getrusage(RUSAGE_SELF, &used);
        out->peak_bytes = (int64_t)used.ru_maxrss * 1024;
        for (int p = 0; p < NSM_SPLIT_PARTS && !n->whole; p++)
            out->peak_bytes += n->look[p].count * (n->outputs + 1) * (int64_t)sizeof(float);
    }
    node_task_free(n);
    return code;
}

int node_task_estimate(nsm_ctx *ctx, const train_options *options, nsm_dataset *ds,
                       node_estimate *out)
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
