/* fused_data.c - See fused_data.h. */
#include "config.h"
#include <stdlib.h>
#include <string.h>
#include "base/internal.h"
#include "tools/fused_data.h"

/* The number of each type's first node. */
static int64_t first_of(const nsm_dataset *ds, int type)
{
    int64_t first = 0;
    for (int t = 0; t < type; t++) first += ds->node[t].count;
    return first;
}

/* ---- edges ---- */
/* One edge: counted one place to the right of its destination, or with fill put there. */
static void add_edge(fused_data *d, int64_t from, int64_t to, int type, bool fill)
{
    if (!fill) {
        d->ptr[to + 1]++;
        return;
    }
    d->idx[d->ptr[to]] = (int32_t)from;
    d->type[d->ptr[to]++] = type;
}

/* Every node enters its graph. */
static void into_graphs(fused_data *d, bool fill)
{
    const nsm_dataset *ds = d->ds;
    int64_t first = 0;
    for (int t = 0; t < ds->node_types; first += ds->node[t++].count)
        for (int64_t g = 0, i = 0; i < ds->node[t].count; i++) {
            while (ds->node[t].graph_ptr && i >= ds->node[t].graph_ptr[g + 1]) g++;
            add_edge(d, first + i, d->first + g, d->relations - 1, fill);
        }
}

static void by_destination(fused_data *d, bool inverse, bool fill)
{
    const nsm_dataset *ds = d->ds;
    for (int way = 0; way < (inverse ? 2 : 1); way++)
        for (int t = 0; t < ds->edge_types; t++) {
            const nsm_dataset_edges *e = &ds->edge[t];
            int64_t src = first_of(ds, e->src_type), dst = first_of(ds, e->dst_type);
            for (int64_t k = 0; k < e->count; k++) {
                int64_t from = src + e->src[k], to = dst + e->dst[k];
                add_edge(d, way ? to : from, way ? from : to, t + way * ds->edge_types, fill);
            }
        }
}

static bool make_edges(fused_data *d, bool inverse, bool graphs)
{
    nsm_ctx *ctx = d->ds->ctx;
    d->relations = d->ds->edge_types * (inverse ? 2 : 1) + graphs;
    d->ptr = nsmi_calloc(ctx, (size_t)d->nodes + 2, sizeof *d->ptr);
    if (!d->ptr) return false;
    by_destination(d, inverse, false);
    if (graphs) into_graphs(d, false);
    for (int64_t i = 0; i < d->nodes; i++) d->ptr[i + 1] += d->ptr[i];
    d->idx = nsmi_malloc(ctx, (size_t)d->ptr[d->nodes] * sizeof *d->idx);
    d->type = nsmi_malloc(ctx, (size_t)d->ptr[d->nodes] * sizeof *d->type);
    if (!d->idx || !d->type) return false;
    by_destination(d, inverse, true); /* moves each start to its end */
    if (graphs) into_graphs(d, true);
    memmove(d->ptr + 1, d->ptr, (size_t)d->nodes * sizeof *d->ptr);
    d->ptr[0] = 0;
    return true;
}

/* ---- features ---- */
static int64_t entries_of(const nsm_dataset_nodes *v)
{
    return v->ptr ? v->ptr[v->count] : v->count * v->features;
}

/* Rows of one type, its columns from `column` on, and its column of ones, if it has one. */
static void add_rows(fused_data *d, const nsm_dataset_nodes *v, int64_t *row, int64_t column,
                     int64_t ones)
{
    for (int64_t i = 0; i < v->count; i++) {
        int64_t at = *row++, begin = v->ptr ? v->ptr[i] : i * v->features,
                end = v->ptr ? v->ptr[i + 1] : begin + v->features;
        for (int64_t k = begin; k < end; k++, at++) {
            d->column[at] = (int32_t)(column + (v->ptr ? v->idx[k] : k - begin));
            d->value[at] = v->ptr ? v->val[k] : v->dense[k];
        }
        if (ones >= 0) {
            d->column[at] = (int32_t)ones;
            d->value[at++] = 1;
        }
        *row = at;
    }
}

static bool make_features(fused_data *d)
{
    const nsm_dataset *ds = d->ds;
    int64_t entries = 0, columns = 0, row = 0;
    for (int t = 0; t < ds->node_types; t++) {
        entries += entries_of(&ds->node[t]);
        columns += ds->node[t].features;
    }
    bool ones = ds->node_types > 1 || !columns;
    if (ones) entries += d->nodes;
    d->features = columns + (ones ? ds->node_types : 0);
    if (d->features > INT32_MAX) {
        nsm_error_set(ds->ctx, NSM_EINVAL, "%s has %lld features of all types, want at most %d",
                      ds->name, (long long)d->features, INT32_MAX);
        return false;
    }
    d->row = nsmi_calloc(ds->ctx, (size_t)d->nodes + 1, sizeof *d->row);
    d->column = nsmi_malloc(ds->ctx, (size_t)entries * sizeof *d->column);
    d->value = nsmi_malloc(ds->ctx, (size_t)entries * sizeof *d->value);
    if (!d->row || !d->column || !d->value) return false;
    int64_t column = 0;
    for (int t = 0; t < ds->node_types; t++) {
        add_rows(d, &ds->node[t], d->row + row, column, ones ? columns + t : -1);
        row += ds->node[t].count;
        column += ds->node[t].features;
    }
    for (; row < d->nodes; row++) d->row[row + 1] = d->row[row]; /* graphs have none */
    return true;
}

/* Questions stand by node already. */
static bool make_questions(fused_data *d)
{
    const nsm_dataset_questions *q = &d->ds->question;
    if (!q->count) return true;
    d->asked = nsmi_calloc(d->ds->ctx, (size_t)d->targets + 1, sizeof *d->asked);
    if (!d->asked) return false;
    for (int64_t k = 0; k < q->count; k++) d->asked[q->node[k] + 1]++;
    for (int64_t i = 0; i < d->targets; i++) d->asked[i + 1] += d->asked[i];
    return true;
}

int fused_data_make(const nsm_dataset *ds, const train_options *options, bool graphs, fused_data *d)
{
    *d = (fused_data){ .ds = ds,
                       .nodes = first_of(ds, ds->node_types),
                       .first = first_of(ds, ds->target),
                       .targets = ds->node[ds->target].count,
                       .pointed = first_of(ds, ds->question.pointed_type) };
    if (graphs) {
        d->first = d->nodes;
        d->targets = ds->graphs;
        d->nodes += ds->graphs;
    }
    if (d->nodes > INT32_MAX)
        return nsm_error_set(ds->ctx, NSM_EINVAL, "%s has %lld nodes of all types, want at most %d",
                             ds->name, (long long)d->nodes, INT32_MAX);
    for (int t = 0; options->node_features && t < ds->node_types; t++)
        if (ds->node[t].in_file)
            return nsm_error_set(ds->ctx, NSM_EINVAL,
                                 "in_file=true: a fused model reads the features of %s from memory",
                                 ds->node[t].name);
    if (!make_edges(d, options->inverse, graphs) || !make_questions(d) ||
        (options->node_features && !make_features(d)))
        fused_data_clear(d);
    return nsm_error(ds->ctx);
}

void fused_data_clear(fused_data *d)
{
    free(d->ptr);
    free(d->idx);
    free(d->type);
    free(d->row);
    free(d->column);
    free(d->value);
    free(d->asked);
    *d = (fused_data){ 0 };
}

nsm_tensor *fused_data_rows(nsm_ctx *ctx, const fused_data *d, int64_t count, const int32_t *node,
                            nsm_csr **csr)
{
    if (!node) {
        *csr = nsm_csr_from_rows(ctx, d->nodes, d->features, d->row, d->column, false);
        return nsm_tensor_sparse(ctx, *csr, d->value);
    }
    int64_t entries = 0;
    for (int64_t i = 0; i < count; i++) entries += d->row[node[i] + 1] - d->row[node[i]];
    int64_t *row = nsmi_malloc(ctx, (size_t)(count + 1) * sizeof *row), at = 0;
    int32_t *column = nsmi_malloc(ctx, (size_t)entries * sizeof *column);
    float *value = nsmi_malloc(ctx, (size_t)entries * sizeof *value);
    for (int64_t i = 0; row && column && value && i < count; i++) {
        int64_t from = d->row[node[i]], n = d->row[node[i] + 1] - from;
        row[i] = at;
        memcpy(column + at, d->column + from, (size_t)n * sizeof *column);
        memcpy(value + at, d->value + from, (size_t)n * sizeof *value);
        at += n;
    }
    if (row) row[count] = at;
    bool room = row && column && value;
    *csr = room ? nsm_csr_from_rows(ctx, count, d->features, row, column, false) : NULL;
    nsm_tensor *x = room ? nsm_tensor_sparse(ctx, *csr, value) : NULL;
    free(row);
    free(column);
    free(value);
    return x;
}
