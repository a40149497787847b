/* datasets/dataset.c - Building a dataset, looking into it, and checking all that it promises. */
#include "config.h"
#include "datasets/internal.h"

/* ---- building ---- */

void *nsm_dataset_array(nsm_dataset *ds, int64_t count, size_t bytes)
{
    int64_t total;
    if (nsmi_failed(ds->ctx)) return NULL;
    if (!nsmi_mul(count, (int64_t)bytes, &total)) {
        nsm_error_set(ds->ctx, NSM_ENOMEM, "dataset %s: an array of %lld values is too large",
                      ds->name, (long long)count);
        return NULL;
    }
    return nsmi_malloc(ds->ctx, (size_t)total);
}

void nsm_dataset_release(void *array) { free(array); }

char *nsm_dataset_string(nsm_dataset *ds, const char *text)
{
    return nsmi_failed(ds->ctx) ? NULL : nsmi_strdup(ds->ctx, text);
}

nsm_dataset *nsm_dataset_new(nsm_ctx *ctx, const char *name)
{
    if (nsmi_failed(ctx)) return NULL;
    nsm_dataset *ds = nsmi_calloc(ctx, 1, sizeof *ds);
    if (!ds) return NULL;
    ds->ctx = ctx;
    ds->graphs = 1;
    ds->name = nsmi_strdup(ctx, name ? name : "");
    ds->description = nsmi_strdup(ctx, "");
    if (ds->name && ds->description) return ds;
    nsm_dataset_free(ds);
    return NULL;
}

static void free_nodes(nsm_dataset_nodes *v)
{
    nsmi_h5_free_strings(v->names, v->count);
    nsmi_content_free(v);
    free(v->name); free(v->dense); free(v->ptr); free(v->idx); free(v->val); free(v->graph_ptr);
}

static void free_edges(nsm_dataset_edges *e)
{
    free(e->name); free(e->src); free(e->dst); free(e->weight); free(e->feature);
}

static void free_split(nsm_dataset_split *s)
{
    free(s->name);
    for (int p = 0; p < NSM_SPLIT_PARTS; p++) free(s->index[p]);
}

void nsm_dataset_free(nsm_dataset *ds)
{
    if (!ds) return;
    nsmi_dataset_close(ds);
    for (int i = 0; i < ds->node_types; i++) free_nodes(&ds->node[i]);
    for (int i = 0; i < ds->edge_types; i++) free_edges(&ds->edge[i]);
    for (int i = 0; i < ds->splits; i++) free_split(&ds->split[i]);
    nsmi_h5_free_strings(ds->label.names, ds->label.columns);
    free(ds->label.cls); free(ds->label.multi); free(ds->label.value);
    nsmi_questions_free(&ds->question);
    for (int p = 0; p < NSM_SPLIT_PARTS; p++) nsmi_links_free(&ds->link[p]);
    free(ds->node); free(ds->edge); free(ds->split);
    free(ds->name); free(ds->description);
    free(ds);
}

/* Room for one more element of a small array, zeroed. */
static void *append(nsm_dataset *ds, void **array, int count, size_t bytes)
{
    char *more = nsmi_failed(ds->ctx) ? NULL
                                      : nsmi_realloc(ds->ctx, *array, (size_t)count + 1, bytes);
    if (!more) return NULL;
    *array = more;
    return memset(more + (size_t)count * bytes, 0, bytes);
}

nsm_dataset_nodes *nsm_dataset_add_nodes(nsm_dataset *ds, const char *name, int64_t count)
{
    nsm_dataset_nodes *v = append(ds, (void **)&ds->node, ds->node_types, sizeof *v);
    char *copy = v ? nsm_dataset_string(ds, name) : NULL;
    if (!copy) return NULL;
    *v = (nsm_dataset_nodes){ .name = copy, .count = count };
    ds->node_types++;
    return v;
}

nsm_dataset_edges *nsm_dataset_add_edges(nsm_dataset *ds, const char *name, int src_type,
                                         int dst_type, int64_t edges)
{
    nsm_dataset_edges *e = append(ds, (void **)&ds->edge, ds->edge_types, sizeof *e);
    if (!e) return NULL;
    *e = (nsm_dataset_edges){ .src_type = src_type, .dst_type = dst_type, .count = edges };
    e->name = nsm_dataset_string(ds, name);
    e->src = nsm_dataset_array(ds, edges, sizeof *e->src);
    e->dst = nsm_dataset_array(ds, edges, sizeof *e->dst);
    ds->edge_types++;
    if (e->name && e->src && e->dst) return e;
    free_edges(e);
    ds->edge_types--;
    return NULL;
}

nsm_dataset_split *nsm_dataset_add_split(nsm_dataset *ds, const char *name)
{
    nsm_dataset_split *s = append(ds, (void **)&ds->split, ds->splits, sizeof *s);
    char *copy = s ? nsm_dataset_string(ds, name) : NULL;
    if (!copy) return NULL;
    s->name = copy;
    ds->splits++;
    return s;
}

/* ---- looking ---- */

int nsm_dataset_find_nodes(const nsm_dataset *ds, const char *name)
{
    for (int i = 0; i < ds->node_types; i++)
        if (!strcmp(ds->node[i].name, name)) return i;
    return -1;
}

int nsm_dataset_find_edges(const nsm_dataset *ds, const char *name)
{
    for (int i = 0; i < ds->edge_types; i++)
        if (!strcmp(ds->edge[i].name, name)) return i;
    return -1;
}

const nsm_dataset_split *nsm_dataset_split_find(const nsm_dataset *ds, const char *name)
{
    if (nsmi_failed(ds->ctx)) return NULL;
    for (int i = 0; i < ds->splits; i++)
        if (!strcmp(ds->split[i].name, name ? name : "default")) return &ds->split[i];
    if (!name && ds->splits) return &ds->split[0];
    char list[256] = "";
    for (int i = 0; i < ds->splits && strlen(list) < 200; i++)
        snprintf(list + strlen(list), sizeof list - strlen(list), " %.40s", ds->split[i].name);
    nsm_error_set(ds->ctx, NSM_EINVAL, "dataset %s has no split %s%s; it has%s", ds->name,
                  name ? name : "", name ? "" : "at all", ds->splits ? list : " none");
    return NULL;
}

int nsm_dataset_edges_merged(const nsm_dataset *ds, int t, int64_t *edges, int32_t **src,
                             int32_t **dst, int32_t **type)
{
    if (nsmi_failed(ds->ctx)) return nsm_error(ds->ctx);
    int64_t total = 0, at = 0;
    int32_t **out[3] = { src, dst, type };
    for (int i = 0; i < ds->edge_types; i++)
        if (ds->edge[i].src_type == t && ds->edge[i].dst_type == t) total += ds->edge[i].count;
    for (int k = 0; k < 3; k++)
        if (out[k]) *out[k] = nsm_dataset_array((nsm_dataset *)ds, total, sizeof(int32_t));
    for (int i = 0; i < ds->edge_types && !nsmi_failed(ds->ctx); i++) {
        const nsm_dataset_edges *e = &ds->edge[i];
        if (e->src_type != t || e->dst_type != t) continue;
        if (src && e->count) memcpy(*src + at, e->src, (size_t)e->count * sizeof **src);
        if (dst && e->count) memcpy(*dst + at, e->dst, (size_t)e->count * sizeof **dst);
        for (int64_t k = 0; type && k < e->count; k++) (*type)[at + k] = i;
        at += e->count;
    }
    for (int k = 0; k < 3 && nsmi_failed(ds->ctx); k++)
        if (out[k]) { free(*out[k]); *out[k] = NULL; }
    *edges = total;
    return nsm_error(ds->ctx);
}

/* ---- checking ---- */

#define FAULT(c, ...) nsmi_fault(c, (c)->code, __VA_ARGS__)
bool nsmi_fault(const nsmi_check *c, int code, const char *format, ...)
{
    char what[320];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    nsm_error_set(c->ds->ctx, code, "%s: %s", c->where, what);
    return false;
}

bool nsmi_name_ok(const char *name)
{
    size_t n = name ? strlen(name) : 0;
    if (n < 1 || n > NSMI_H5_MAX_NAME || !strcmp(name, ".") || !strcmp(name, "..")) return false;
    for (size_t i = 0; i < n; i++)
        if (name[i] == '/' || (unsigned char)name[i] < 32 || name[i] == 127) return false;
    return true;
}

/* Names of types and splits: usable in a file, and each once. */
static bool name_ok(const nsmi_check *c, const char *kind, const char *name, int i,
                    const void *first, size_t stride)
{
    if (!nsmi_name_ok(name))
        return FAULT(c, "%s %d: its name is empty, too long, or has a slash in it", kind, i);
    for (int k = 0; k < i; k++) {
        const char *other;
        /* name is the first member */
        memcpy(&other, (const char *)first + (size_t)k * stride, sizeof other);
        if (!strcmp(other, name)) return FAULT(c, "%s %s stands twice", kind, name);
    }
    return true;
}

/* The first number that is not finite, or -1.  The exponent's bits are all set in such numbers
 * only; their running maximum is taken a block at a time, which vectorises. */
static int64_t not_finite(const float *x, int64_t n)
{
    for (int64_t at = 0; at < n; at += 4096) {
        int64_t end = n - at < 4096 ? n : at + 4096;
        uint32_t top = 0;
        for (int64_t i = at; i < end; i++) {
            uint32_t bits;
            memcpy(&bits, x + i, sizeof bits);
            bits &= 0x7f800000u;
            top = bits > top ? bits : top;
        }
        if (top != 0x7f800000u) continue;
        for (int64_t i = at; i < end; i++) {
            uint32_t bits;
            memcpy(&bits, x + i, sizeof bits);
            if ((bits & 0x7f800000u) == 0x7f800000u) return i;
        }
    }
    return -1;
}

bool nsmi_finite_all(const nsmi_check *c, const char *group, const char *name, const char *what,
                       const float *x, int64_t n)
{
    int64_t i = x ? not_finite(x, n) : -1;
    return i < 0 || nsmi_fault(c, NSM_ENUMBER, "%s %s: %s value %lld is not finite", group, name,
                               what, (long long)i);
}

/* Offsets that start at 0, never fall and end at total. */
bool nsmi_offsets_ok(const nsmi_check *c, const char *name, const char *what, const int64_t *ptr,
                       int64_t rows, int64_t total)
{
    if (ptr[0] != 0)
        return FAULT(c, "nodes %s: %s[0] is %lld, want 0", name, what, (long long)ptr[0]);
    for (int64_t i = 0; i < rows; i++)
        if (ptr[i + 1] < ptr[i])
            return FAULT(c, "nodes %s: %s falls at %lld", name, what, (long long)i);
    if (total >= 0 && ptr[rows] != total)
        return FAULT(c, "nodes %s: %s ends at %lld, want %lld", name, what, (long long)ptr[rows],
                     (long long)total);
    return true;
}

static bool sparse_ok(const nsmi_check *c, const nsm_dataset_nodes *v)
{
    if (!v->val || (!v->idx && v->ptr[v->count]))
        return FAULT(c, "nodes %s: idx or val is missing", v->name);
    if (!nsmi_offsets_ok(c, v->name, "ptr", v->ptr, v->count, -1)) return false;
    for (int64_t i = 0; i < v->count; i++)
        for (int64_t k = v->ptr[i]; k < v->ptr[i + 1]; k++) {
            if (v->idx[k] < 0 || v->idx[k] >= v->features)
                return FAULT(c, "nodes %s: feature %d of row %lld is out of 0..%lld", v->name,
                             v->idx[k], (long long)i, (long long)v->features - 1);
            if (k > v->ptr[i] && v->idx[k] <= v->idx[k - 1])
                return FAULT(c, "nodes %s: features of row %lld do not ascend", v->name,
                             (long long)i);
        }
    return nsmi_finite_all(c, "nodes", v->name, "feature", v->val, v->ptr[v->count]);
}

static bool nodes_ok(const nsmi_check *c, int i)
{
    const nsm_dataset_nodes *v = &c->ds->node[i];
    if (!name_ok(c, "node type", v->name, i, c->ds->node, sizeof *v)) return false;
    if (v->count < 0 || v->count > INT32_MAX || v->features < 0 || v->features > INT32_MAX)
        return FAULT(c, "nodes %s: %lld nodes of %lld features", v->name, (long long)v->count,
                     (long long)v->features);
    if ((v->dense != NULL) + (v->ptr != NULL) + v->in_file != (v->features > 0))
        return FAULT(c, "nodes %s: %lld features, but they are stored %d times", v->name,
                     (long long)v->features, (v->dense != NULL) + (v->ptr != NULL) + v->in_file);
    for (int64_t k = 0; v->names && k < v->count; k++)
        if (!v->names[k]) return FAULT(c, "nodes %s: name %lld is missing", v->name, (long long)k);
    if (c->ds->graphs != 1 && !v->graph_ptr)
        return FAULT(c, "nodes %s: graph_ptr is missing", v->name);
    if (v->graph_ptr &&
        !nsmi_offsets_ok(c, v->name, "graph_ptr", v->graph_ptr, c->ds->graphs, v->count))
        return false;
    if (v->ptr ? !sparse_ok(c, v)
               : !nsmi_finite_all(c, "nodes", v->name, "feature", v->dense, v->count * v->features))
        return false;
    return nsmi_content_ok(c, v);
}

static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t x = (a << 32 | b) + 0x9E3779B97F4A7C15ull;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ x >> 27) * 0x94D049BB133111EBull;
    return x ^ x >> 31;
}

static bool ends_ok(const nsmi_check *c, const nsm_dataset_edges *e)
{
    int64_t rows = c->ds->node[e->src_type].count, cols = c->ds->node[e->dst_type].count;
    uint64_t sum = 0; /* a symmetric list has the same multiset of pairs read either way */
    for (int64_t k = 0; k < e->count; k++) {
        if (e->src[k] < 0 || e->src[k] >= rows || e->dst[k] < 0 || e->dst[k] >= cols)
            return FAULT(c, "edges %s: edge %lld joins %d and %d, of %lld and %lld nodes", e->name,
                         (long long)k, e->src[k], e->dst[k], (long long)rows, (long long)cols);
        sum += mix((uint64_t)e->src[k], (uint64_t)e->dst[k]) -
               mix((uint64_t)e->dst[k], (uint64_t)e->src[k]);
    }
    if (!c->ds->directed && sum)
        return FAULT(c, "edges %s: the dataset is undirected, but some edge has no reverse",
                     e->name);
    return true;
}

/* In a set of graphs both ends of an edge lie in one of them. */
static bool same_graph(const nsmi_check *c, const nsm_dataset_edges *e)
{
    const int64_t *a = c->ds->node[e->src_type].graph_ptr, *b = c->ds->node[e->dst_type].graph_ptr;
    if (!a || !b) return true;
    int64_t g = 0; /* edges mostly come graph by graph: search from the last one */
    for (int64_t k = 0; k < e->count; k++) {
        if (e->src[k] < a[g] || e->src[k] >= a[g + 1]) {
            int64_t low = 0, high = c->ds->graphs;
            while (high - low > 1) {
                int64_t mid = (low + high) / 2;
                if (a[mid] <= e->src[k]) low = mid; else high = mid;
            }
            g = low;
        }
        if (e->dst[k] < b[g] || e->dst[k] >= b[g + 1])
            return FAULT(c, "edges %s: edge %lld joins two graphs", e->name, (long long)k);
    }
    return true;
}

static bool edges_ok(const nsmi_check *c, int i)
{
    const nsm_dataset_edges *e = &c->ds->edge[i];
    if (!name_ok(c, "edge type", e->name, i, c->ds->edge, sizeof *e)) return false;
    if (e->src_type < 0 || e->src_type >= c->ds->node_types || e->dst_type < 0 ||
        e->dst_type >= c->ds->node_types)
        return FAULT(c, "edges %s: from node type %d to %d, there are %d", e->name, e->src_type,
                     e->dst_type, c->ds->node_types);
    if (!c->ds->directed && e->src_type != e->dst_type)
        return FAULT(c, "edges %s: join two node types in an undirected dataset", e->name);
    if (e->count < 0 || e->features < 0 || (e->count && (!e->src || !e->dst)))
        return FAULT(c, "edges %s: %lld edges of %lld features", e->name, (long long)e->count,
                     (long long)e->features);
    if ((e->feature != NULL) != (e->features > 0))
        return FAULT(c, "edges %s: features are missing", e->name);
    return ends_ok(c, e) && same_graph(c, e) &&
           nsmi_finite_all(c, "edges", e->name, "weight", e->weight, e->count) &&
           nsmi_finite_all(c, "edges", e->name, "feature", e->feature, e->count * e->features);
}

static bool labels_ok(const nsmi_check *c)
{
    const nsm_dataset *ds = c->ds;
    const nsm_dataset_labels *l = &ds->label;
    if (l->kind == NSM_LABEL_NONE) return true;
    if (l->kind < 0 || l->kind > NSM_LABEL_VALUE)
        return FAULT(c, "labels: there is no kind %d", (int)l->kind);
    int64_t want = l->of_graphs ? ds->graphs : ds->node[ds->target].count;
    if (l->count != want)
        return FAULT(c, "labels: %lld, want %lld", (long long)l->count, (long long)want);
    if (l->columns < 1 || l->columns > INT32_MAX)
        return FAULT(c, "labels: %lld classes or columns", (long long)l->columns);
    if ((l->cls != NULL) != (l->kind == NSM_LABEL_CLASS) ||
        (l->multi != NULL) != (l->kind == NSM_LABEL_MULTI) ||
        (l->value != NULL) != (l->kind == NSM_LABEL_VALUE))
        return FAULT(c, "labels: not the array of their kind");
    for (int64_t i = 0; l->cls && i < l->count; i++)
        if (l->cls[i] < -1 || l->cls[i] >= l->columns)
            return FAULT(c, "labels: class %d of %lld is out of -1..%lld", l->cls[i], (long long)i,
                         (long long)l->columns - 1);
    for (int64_t i = 0; l->multi && i < l->count * l->columns; i++)
        if (l->multi[i] > 1 && l->multi[i] != 255)
            return FAULT(c, "labels: value %d at %lld is none of 0, 1, 255", l->multi[i],
                         (long long)i);
    return nsmi_finite_all(c, "labels", "of the target", "label", l->value, l->count * l->columns);
}

static bool split_ok(const nsmi_check *c, int i, uint8_t *seen, int64_t count)
{
    static const char *const part[] = { "train", "valid", "test" };
    const nsm_dataset_split *s = &c->ds->split[i];
    if (!name_ok(c, "split", s->name, i, c->ds->split, sizeof *s)) return false;
    memset(seen, 0, (size_t)count);
    for (int p = 0; p < NSM_SPLIT_PARTS; p++) {
        if (s->count[p] < 0 || (s->count[p] && !s->index[p]))
            return FAULT(c, "split %s: %s is missing", s->name, part[p]);
        for (int64_t k = 0; k < s->count[p]; k++) {
            int32_t v = s->index[p][k];
            if (v < 0 || v >= count)
                return FAULT(c, "split %s: %s[%lld] is %d, out of 0..%lld", s->name, part[p],
                             (long long)k, v, (long long)count - 1);
            if (seen[v])
                return FAULT(c, "split %s: %d stands twice, again in %s", s->name, v, part[p]);
            if (c->ds->label.cls && c->ds->label.cls[v] < 0)
                return FAULT(c, "split %s: %d in %s has no label", s->name, v, part[p]);
            seen[v] = 1;
        }
    }
    return true;
}

static bool splits_ok(const nsmi_check *c)
{
    const nsm_dataset *ds = c->ds;
    int64_t count = ds->label.of_graphs ? ds->graphs
                    : ds->node_types    ? ds->node[ds->target].count
                                        : 0;
    if (!ds->splits) return true;
    uint8_t *seen = nsmi_malloc(ds->ctx, (size_t)count);
    bool ok = seen != NULL;
    for (int i = 0; ok && i < ds->splits; i++) ok = split_ok(c, i, seen, count);
    free(seen);
    return ok;
}

int nsmi_dataset_check(const nsm_dataset *ds, const char *where, int code)
{
    if (nsmi_failed(ds->ctx)) return nsm_error(ds->ctx);
    const nsmi_check c = { ds, where, code };
    bool ok = ds->node_types > 0 || FAULT(&c, "no node type");
    if (ok && (ds->target < 0 || ds->target >= ds->node_types))
        ok = FAULT(&c, "target is node type %d of %d", ds->target, ds->node_types);
    if (ok && (ds->graphs < 0 || ds->graphs > INT32_MAX))
        ok = FAULT(&c, "%lld graphs", (long long)ds->graphs);
    for (int i = 0; ok && i < ds->node_types; i++) ok = nodes_ok(&c, i);
    for (int i = 0; ok && i < ds->edge_types; i++) ok = edges_ok(&c, i);
    if (ok && labels_ok(&c) && nsmi_questions_ok(&c) && nsmi_links_ok(&c)) splits_ok(&c);
    return nsm_error(ds->ctx);
}

int nsm_dataset_validate(const nsm_dataset *ds)
{
    char where[128];
    snprintf(where, sizeof where, "dataset %.100s", ds->name);
    return nsmi_dataset_check(ds, where, NSM_EINVAL);
}
