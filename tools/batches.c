/* batches.c - See batches.h. */
#include "config.h"
#include <stdlib.h>
#include <string.h>
#include "base/internal.h"
#include "tools/batches.h"

void sum_to_one(float *row, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)row[i];
    if (sum > 0)
        for (int64_t i = 0; i < n; i++) row[i] = (float)((double)row[i] / sum);
}

/* ---- which edges ---- */
int edge_use_of(nsm_ctx *ctx, const train_options *options, edge_use *out)
{
    bool typed = !strcmp(options->model, "rgcn");
    *out = (edge_use){ options->symmetric, typed, options->inverse };
    if (typed && options->symmetric)
        return nsm_error_set(
            ctx, NSM_EINVAL,
            "symmetric=true mixes an edge with its inverse; rgcn, whose edges have "
            "types, takes inverse=true");
    if (!typed && options->inverse)
        return nsm_error_set(ctx, NSM_EINVAL,
                             "inverse=true makes types of edges, which model=%s does not look at; "
                             "symmetric=true uses edges in both directions",
                             options->model);
    return NSM_OK;
}

int edge_relations(const nsm_dataset *ds, edge_use use, int *of)
{
    int count = 0;
    for (int i = 0; i < ds->edge_types; i++) {
        const nsm_dataset_edges *e = &ds->edge[i];
        bool within = e->src_type == ds->target && e->dst_type == ds->target;
        if (of) of[i] = within ? count : -1;
        count += within;
    }
    return !use.typed ? 0 : use.inverse ? 2 * count : count;
}

/* ---- rows of edges ---- */
static bool rows_new(nsm_ctx *ctx, int64_t n, edge_rows *r)
{
    *r = (edge_rows){ .n = n, .ptr = nsmi_calloc(ctx, (size_t)n + 2, sizeof *r->ptr) };
    return r->ptr != NULL;
}

/* Counts stand two places to the right of their node; make them starts, one place to the right. */
static bool rows_start(nsm_ctx *ctx, bool typed, edge_rows *r)
{
    for (int64_t i = 1; i <= r->n; i++) r->ptr[i + 1] += r->ptr[i];
    size_t bytes = (size_t)r->ptr[r->n + 1] * sizeof *r->idx;
    r->idx = nsmi_malloc(ctx, bytes);
    if (typed) r->type = nsmi_malloc(ctx, bytes);
    return r->idx && (r->type || !typed);
}

/* Count the edges by source, or with fill put their destinations in rows. */
static void by_source(const nsm_dataset *ds, edge_use use, bool fill, edge_rows *r)
{
    int64_t *at = r->ptr + (fill ? 1 : 2);
    int relation = 0, turned = edge_relations(ds, use, NULL) / 2;
    for (int i = 0; i < ds->edge_types; i++) {
        const nsm_dataset_edges *e = &ds->edge[i];
        if (e->src_type != ds->target || e->dst_type != ds->target) continue;
        for (int64_t k = 0; k < e->count; k++) {
            bool both = use.inverse || (use.symmetric && e->src[k] != e->dst[k]);
            for (int way = 0; way < (both ? 2 : 1); way++) {
                int32_t from = way ? e->dst[k] : e->src[k], to = way ? e->src[k] : e->dst[k];
                if (fill) r->idx[at[from]] = to;
                if (fill && use.typed) r->type[at[from]] = relation + (way ? turned : 0);
                at[from]++;
            }
        }
        relation++;
    }
}

/* Rows by destination from rows by source: walking sources in order leaves every row ascending. */
static bool turn(nsm_ctx *ctx, const edge_rows *from, edge_rows *to)
{
    if (!rows_new(ctx, from->n, to)) return false;
    for (int64_t e = 0; e < from->ptr[from->n]; e++) to->ptr[from->idx[e] + 2]++;
    if (!rows_start(ctx, from->type, to)) return false;
    for (int64_t i = 0; i < from->n; i++)
        for (int64_t e = from->ptr[i]; e < from->ptr[i + 1]; e++) {
            int64_t at = to->ptr[from->idx[e] + 1]++;
            to->idx[at] = (int32_t)i;
            if (from->type) to->type[at] = from->type[e];
        }
    return true;
}

/* Of what repeats in a row, the first. */
static void merge(edge_rows *r)
{
    int64_t kept = 0, begin = 0;
    for (int64_t i = 0; i < r->n; i++) {
        int64_t end = r->ptr[i + 1];
        for (int64_t e = begin; e < end; e++)
            if (e == begin || r->idx[e] != r->idx[e - 1]) r->idx[kept++] = r->idx[e];
        r->ptr[i + 1] = kept;
        begin = end;
    }
}

int edge_rows_make(const nsm_dataset *ds, edge_use use, edge_rows *out)
{
    nsm_ctx *ctx = ds->ctx;
    edge_rows sources = { 0 };
    *out = (edge_rows){ 0 };
    if (nsm_error(ctx)) return nsm_error(ctx);
    bool ok = rows_new(ctx, ds->node[ds->target].count, &sources);
    if (ok) by_source(ds, use, false, &sources);
    ok = ok && rows_start(ctx, use.typed, &sources);
    if (ok) by_source(ds, use, true, &sources);
    ok = ok && turn(ctx, &sources, out);
    edge_rows_clear(&sources);
    if (ok && use.symmetric) merge(out);
    if (!ok) edge_rows_clear(out);
    return nsm_error(ctx);
}

void edge_rows_clear(edge_rows *r)
{
    free(r->ptr);
    free(r->idx);
    free(r->type);
    *r = (edge_rows){ 0 };
}

/* ---- batches ---- */
int batches_make(const nsm_dataset *ds, const train_options *options, batches *out)
{
    const setting_list *f = &options->fanouts;
    *out = (batches){ .ds = ds, .options = options };
    if (!strcmp(options->model, "gcn"))
        return nsm_error_set(ds->ctx, NSM_EINVAL,
                             "batch_size=%lld: gcn cannot train on sampled neighbours; model=sage, "
                             "gat, gatv2 and rgcn can",
                             (long long)options->batch_size);
    if (f->count != options->layers)
        return nsm_error_set(ds->ctx, NSM_EINVAL,
                             "fanouts has %d numbers, want one for each of %lld layers", f->count,
                             (long long)options->layers);
    for (int k = 0; k < f->count; k++) {
        bool fits = f->value[k] >= -1 && f->value[k] <= 1e6;
        out->fan_out[k] = fits ? (int)f->value[k] : 0;
        if (!fits || (double)out->fan_out[k] != f->value[k])
            return nsm_error_set(
                ds->ctx, NSM_EINVAL,
                "fanouts: %g is no number of neighbours; want -1 (all) or 0..1000000", f->value[k]);
    }
    edge_use use;
    if (edge_use_of(ds->ctx, options, &use)) return nsm_error(ds->ctx);
    out->relations = edge_relations(ds, use, NULL);
    return edge_rows_make(ds, use, &out->rows);
}

void batches_clear(batches *b) { edge_rows_clear(&b->rows); }

/* By a sampler's thread. */
static int read_rows(void *user, int64_t count, const int32_t *node, float *out)
{
    const batches *b = user;
    int64_t f = b->ds->node[b->ds->target].features;
    int code = nsm_dataset_features_rows(b->ds, b->ds->target, 0, count, node, out);
    for (int64_t i = 0; !code && b->options->row_normalize && i < count; i++)
        sum_to_one(out + i * f, f);
    return code;
}

nsm_sampler *batches_sampler(const batches *b, int64_t count, const int32_t *node, bool in_order,
                             uint64_t seed)
{
    const nsm_dataset_nodes *d = &b->ds->node[b->ds->target];
    nsm_sampler_config c = {
        .nodes = b->rows.n,
        .ptr = b->rows.ptr,
        .idx = b->rows.idx,
        .types = b->relations,
        .type = b->rows.type,
        .layers = b->options->fanouts.count,
        .fan_out = b->fan_out,
        .seeds = count,
        .seed_node = node,
        .batch = (int)b->options->batch_size,
        .in_order = in_order,
        .seed = seed,
        .features = d->features,
    };
    if (d->dense && !b->options->row_normalize) {
        c.x = d->dense;
    } else {
        c.read = read_rows;
        c.user = (void *)(uintptr_t)b;
    }
    return nsm_sampler_new(b->ds->ctx, &c);
}
