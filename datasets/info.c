/* datasets/info.c - Counts, degrees, homophily, components.  O(E + n log n). */
#include "config.h"
#include "datasets/info.h"
#include "datasets/internal.h"

/* ---- duplicates and missing reverses: by sorting the edges of a type as 64-bit keys ---- */

/* radix, 8 passes of 8 bits; the result is in a */
static void sort_keys(uint64_t *a, uint64_t *b, int64_t n)
{
    for (int shift = 0; shift < 64; shift += 8) {
        int64_t start[257] = { 0 };
        for (int64_t k = 0; k < n; k++) start[(a[k] >> shift & 255) + 1]++;
        for (int i = 0; i < 256; i++) start[i + 1] += start[i];
        for (int64_t k = 0; k < n; k++) b[start[a[k] >> shift & 255]++] = a[k];
        uint64_t *swap = a;
        a = b;
        b = swap;
    }
}

/* Keys of one direction that are not among those of the other; both sorted. */
static int64_t count_missing(const uint64_t *a, const uint64_t *b, int64_t n)
{
    int64_t missing = 0;
    for (int64_t i = 0, j = 0; i < n; i++) {
        while (j < n && b[j] < a[i]) j++;
        missing += j == n || b[j] != a[i];
    }
    return missing;
}

static int count_pairs(const nsm_dataset *ds, const nsm_dataset_edges *e, nsm_dataset_stats *s)
{
    size_t bytes = (size_t)e->count * sizeof(uint64_t);
    uint64_t *forth = nsmi_malloc(ds->ctx, bytes), *back = nsmi_malloc(ds->ctx, bytes),
             *room = nsmi_malloc(ds->ctx, bytes);
    if (forth && back && room) {
        for (int64_t k = 0; k < e->count; k++) {
            forth[k] = (uint64_t)e->src[k] << 32 | (uint32_t)e->dst[k];
            back[k] = (uint64_t)e->dst[k] << 32 | (uint32_t)e->src[k];
        }
        sort_keys(forth, room, e->count);
        for (int64_t k = 1; k < e->count; k++) s->duplicates += forth[k] == forth[k - 1];
        if (e->src_type == e->dst_type) {
            sort_keys(back, room, e->count);
            s->unpaired += count_missing(forth, back, e->count);
        }
    }
    free(forth);
    free(back);
    free(room);
    return nsm_error(ds->ctx);
}

/* ---- components: union by smaller number, halving paths ---- */

static int32_t root_of(int32_t *up, int32_t i)
{
    while (up[i] != i) i = up[i] = up[up[i]];
    return i;
}

static void join(int32_t *up, int32_t a, int32_t b)
{
    a = root_of(up, a);
    b = root_of(up, b);
    if (a < b) up[b] = a;
    else up[a] = b;
}

static void count_components(int32_t *up, int32_t *size, int64_t n, nsm_dataset_stats *s)
{
    memset(size, 0, (size_t)n * sizeof *size);
    for (int64_t i = 0; i < n; i++) size[root_of(up, (int32_t)i)]++;
    for (int64_t i = 0; i < n; i++) {
        s->components += size[i] > 0;
        if (size[i] > s->largest) s->largest = size[i];
    }
}

static int ascending(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static void degree_numbers(int32_t *in, int64_t n, nsm_dataset_stats *s)
{
    double sum = 0, squares = 0;
    if (!n) return;
    qsort(in, (size_t)n, sizeof *in, ascending);
    for (int64_t i = 0; i < n; i++) sum += in[i];
    s->degree_mean = sum / (double)n;
    for (int64_t i = 0; i < n; i++) squares += (in[i] - s->degree_mean) * (in[i] - s->degree_mean);
    s->degree_std = sqrt(squares / (double)n);
    s->degree_min = in[0];
    s->degree_max = in[n - 1];
    s->degree_median = (in[(n - 1) / 2] + in[n / 2]) / 2.0;
}

static int count_target(const nsm_dataset *ds, nsm_dataset_stats *s)
{
    int64_t n = ds->node[ds->target].count, same = 0, both = 0;
    const int32_t *cls = ds->label.of_graphs ? NULL : ds->label.cls;
    int32_t *in = nsmi_calloc(ds->ctx, (size_t)n, sizeof *in),
            *up = nsmi_malloc(ds->ctx, (size_t)n * sizeof *up);
    uint8_t *touched = nsmi_calloc(ds->ctx, (size_t)n, 1);
    for (int64_t i = 0; up && i < n; i++) up[i] = (int32_t)i;
    for (int t = 0; t < ds->edge_types && in && up && touched; t++) {
        const nsm_dataset_edges *e = &ds->edge[t];
        bool from = e->src_type == ds->target, to = e->dst_type == ds->target;
        for (int64_t k = 0; k < e->count; k++) {
            int32_t a = e->src[k], b = e->dst[k];
            if (from) touched[a] = 1;
            if (to) touched[b] = 1;
            if (!from || !to) continue;
            in[b]++;
            s->self_loops += a == b;
            join(up, a, b);
            if (!cls || cls[a] < 0 || cls[b] < 0) continue;
            both++;
            same += cls[a] == cls[b];
        }
    }
    s->homophily = both ? (double)same / (double)both : (double)NAN;
    for (int64_t i = 0; touched && i < n; i++) s->isolated += !touched[i];
    if (!nsmi_failed(ds->ctx)) {
        degree_numbers(in, n, s);
        count_components(up, in, n, s); /* in has served: it holds sizes now */
    }
    free(in);
    free(up);
    free(touched);
    return nsm_error(ds->ctx);
}

static int count_labels(const nsm_dataset *ds, nsm_dataset_stats *s)
{
    const nsm_dataset_labels *l = &ds->label;
    s->labelled = l->kind == NSM_LABEL_NONE ? 0 : l->count;
    if (l->kind != NSM_LABEL_CLASS) return NSM_OK;
    s->class_count = nsmi_calloc(ds->ctx, (size_t)l->columns, sizeof *s->class_count);
    s->classes = s->class_count ? l->columns : 0;
    s->labelled = 0;
    for (int64_t i = 0; s->class_count && i < l->count; i++) {
        if (l->cls[i] < 0) continue;
        s->class_count[l->cls[i]]++;
        s->labelled++;
    }
    return nsm_error(ds->ctx);
}

int nsm_dataset_info(const nsm_dataset *ds, nsm_dataset_stats *stats)
{
    *stats = (nsm_dataset_stats){ 0 };
    if (nsmi_failed(ds->ctx)) return nsm_error(ds->ctx);
    for (int t = 0; t < ds->node_types; t++) stats->nodes += ds->node[t].count;
    for (int t = 0; t < ds->edge_types; t++) {
        stats->edges += ds->edge[t].count;
        if (count_pairs(ds, &ds->edge[t], stats)) return nsm_error(ds->ctx);
    }
    if (count_target(ds, stats) == NSM_OK) count_labels(ds, stats);
    return nsm_error(ds->ctx);
}

void nsm_dataset_stats_clear(nsm_dataset_stats *stats)
{
    free(stats->class_count);
    stats->class_count = NULL;
    stats->classes = 0;
}
