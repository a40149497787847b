/* node_data.c - From the dataset to what a model of nodes works on. */
#include "config.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/internal.h"
#include "tools/node_parts.h"

void *node_array(nsm_ctx *ctx, int64_t rows, int64_t columns, size_t bytes)
{
    int64_t all;
    bool fits = nsmi_mul(rows, columns, &all) && nsmi_mul(all, (int64_t)bytes, &all);
    void *array = fits ? malloc((size_t)all + 1) : NULL;
    if (!array)
        nsm_error_set(ctx, NSM_ENOMEM, "out of memory for %lld rows of %lld numbers",
                      (long long)rows, (long long)columns);
    return array;
}

static int make_features(node_task *n)
{
    const nsm_dataset_nodes *d = n->nodes;
    int64_t stored = d->ptr ? d->ptr[d->count] : d->count;
    float *host = node_array(n->ctx, stored, d->ptr ? 1 : d->features, sizeof *host);
    if (!host) return nsm_error(n->ctx);
    int code = NSM_OK;
    if (d->ptr) memcpy(host, d->val, (size_t)stored * sizeof *host);
    else code = nsm_dataset_features_rows(n->ds, n->ds->target, 0, d->count, NULL, host);
    for (int64_t i = 0; !code && n->options->row_normalize && i < d->count; i++)
        sum_to_one(host + (d->ptr ? d->ptr[i] : i * d->features),
                   d->ptr ? d->ptr[i + 1] - d->ptr[i] : d->features);
    if (!code && d->ptr) {
        n->feature_rows = nsm_csr_from_rows(n->ctx, d->count, d->features, d->ptr, d->idx, false);
        n->x = nsm_tensor_sparse(n->ctx, n->feature_rows, host);
    } else if (!code) {
        n->x = nsm_tensor_from(n->ctx, NSM_F32, 2, (const int64_t[]){ d->count, d->features },
                               host);
    }
    free(host);
    return nsm_error(n->ctx);
}

/* The edges as they stand, or with their inverses, and their relations. */
static int make_typed_graph(node_task *n, edge_use use, int64_t edges, const int32_t *src,
                            const int32_t *dst, int32_t *type)
{
    int *of = node_array(n->ctx, n->ds->edge_types, 1, sizeof *of), relations;
    int32_t *all = node_array(n->ctx, edges, 2, sizeof *all);
    nsm_edges both = { 0 };
    if (of && all) {
        relations = edge_relations(n->ds, use, of);
        for (int64_t k = 0; k < edges; k++) type[k] = of[type[k]];
        if (!use.inverse) {
            n->graph = nsm_graph_new(n->ctx, n->nodes->count, edges, src, dst);
            nsm_graph_set_types(n->graph, relations, type);
        } else if (!nsm_edges_inverse(n->ctx, n->nodes->count, edges, src, dst, relations / 2, type,
                                      &both, all)) {
            n->graph = nsm_graph_new(n->ctx, n->nodes->count, both.count, both.src, both.dst);
            nsm_graph_set_types(n->graph, relations, all);
        }
    }
    nsm_edges_free(&both);
    free(of);
    free(all);
    return nsm_error(n->ctx);
}

static int make_symmetric_graph(node_task *n, int64_t edges, const int32_t *src, const int32_t *dst)
{
    nsm_edges both = { 0 };
    if (!nsm_edges_symmetric(n->ctx, n->nodes->count, edges, src, dst, true, &both))
        n->graph = nsm_graph_new(n->ctx, n->nodes->count, both.count, both.src, both.dst);
    nsm_edges_free(&both);
    return nsm_error(n->ctx);
}

static int make_graph(node_task *n)
{
    const edge_rows *r = &n->batches.rows;
    if (n->sampled) {
        n->graph = nsm_graph_from_rows(n->ctx, r->n, r->n, r->ptr, r->idx, true);
        if (r->type) nsm_graph_set_types(n->graph, n->batches.relations, r->type);
        return nsm_error(n->ctx);
    }
    edge_use use;
    int64_t edges;
    int32_t *src = NULL, *dst = NULL, *type = NULL;
    if (edge_use_of(n->ctx, n->options, &use)) return nsm_error(n->ctx);
    int code = nsm_dataset_edges_merged(n->ds, n->ds->target, &edges, &src, &dst,
                                        use.typed ? &type : NULL);
    if (!code && use.typed) make_typed_graph(n, use, edges, src, dst, type);
    else if (!code && use.symmetric) make_symmetric_graph(n, edges, src, dst);
    else if (!code) n->graph = nsm_graph_new(n->ctx, n->nodes->count, edges, src, dst);
    nsm_dataset_release(src);
    nsm_dataset_release(dst);
    nsm_dataset_release(type);
    return nsm_error(n->ctx);
}

nsm_tensor *node_labels(node_task *n, int64_t count, const int32_t *node)
{
    const nsm_dataset_labels *l = &n->ds->label;
    bool classes = l->kind == NSM_LABEL_CLASS;
    int64_t c = classes ? 1 : l->columns, dim[2] = { count, c };
    void *host = node_array(n->ctx, count, c, sizeof(float));
    if (!host) return NULL;
    int32_t *cls = host;
    float *value = host;
    for (int64_t i = 0; i < count; i++) {
        int64_t at = node ? node[i] : i;
        if (classes) cls[i] = l->cls[at] < 0 ? 0 : l->cls[at];
        else if (l->kind == NSM_LABEL_VALUE)
            memcpy(value + i * c, l->value + at * c, (size_t)c * sizeof *value);
        else
            for (int64_t k = 0; k < c; k++) value[i * c + k] = (float)(l->multi[at * c + k] == 1);
    }
    nsm_tensor *t = nsm_tensor_from(n->ctx, classes ? NSM_I32 : NSM_F32, classes ? 1 : 2, dim,
                                    host);
    free(host);
    return t;
}

/* Unlabelled nodes are in no part: their label is never looked at. */
static int make_labels(node_task *n)
{
    const nsm_dataset_labels *l = &n->ds->label;
    if (l->kind == NSM_LABEL_NONE || l->of_graphs) return NSM_OK;
    n->label = node_labels(n, n->nodes->count, NULL);
    return nsm_error(n->ctx);
}

static int make_parts(node_task *n)
{
    const nsm_dataset_split *s = n->split;
    int64_t count = n->nodes->count;
    if (!s) return NSM_OK;
    float *host = node_array(n->ctx, count, 1, sizeof *host);
    if (!host) return nsm_error(n->ctx);
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
    bool heads = strcmp(o->model, "sage") && strcmp(o->model, "rgcn");
    double hidden = (double)(o->hidden * (heads ? o->heads : 1));
    double width = fmax(hidden, (double)n->outputs);
    return 4 * (features + 3 * nodes * width + 2 * edges) <= (double)o->whole_mib * (1 << 20);
}

int node_make_look(node_task *n)
{
    const nsm_dataset_split *s = n->split;
    int64_t most = n->whole ? 0 : n->options->eval_nodes;
    for (int p = 0; s && p < NSM_SPLIT_PARTS; p++) {
        int64_t count = s->count[p], want = most && most < count ? most : count;
        n->look[p] = (node_list){ want, s->index[p] };
        if (want == count) continue;
        n->look_own[p] = node_array(n->ctx, want, 1, sizeof *n->look_own[p]);
        if (!n->look_own[p]) return nsm_error(n->ctx);
        for (int64_t k = 0; k < want; k++) n->look_own[p][k] = s->index[p][k * count / want];
        n->look[p].node = n->look_own[p];
    }
    return NSM_OK;
}

int node_make_data(node_task *n)
{
    n->sampled = n->options->batch_size > 0;
    if (!n->nodes->features)
        return nsm_error_set(n->ctx, NSM_EINVAL, "the nodes of %s have no features to learn from",
                             n->ds->name);
    if (n->sampled && batches_make(n->ds, n->options, &n->batches)) return nsm_error(n->ctx);
    n->whole = !n->sampled || whole_fits(n);
    if (!n->whole) return NSM_OK;
    if (make_features(n) || make_graph(n) || make_labels(n)) return nsm_error(n->ctx);
    return make_parts(n);
}

