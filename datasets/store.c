/* datasets/store.c - A dataset's file, and features that stay in it.  The layout: doc/format.md.
 *
 * Dense features are read from the file without libhdf5: chunks hold whole rows, uncompressed, and
 * the file was verified when it was opened, so a row is one pread() from a known place.  That is
 * many times faster than a selection of scattered rows through libhdf5, and works in parallel. */
#include "config.h"
#include <errno.h>
#include <unistd.h>
#include "datasets/internal.h"

enum { LAYOUT = 1, ROWS_AT_A_TIME = 1 << 16 };
#define FORMAT "nsm dataset"

static const char *const kinds[] = { "none", "class", "multi", "value" };
static const char *const parts[] = { "train", "valid", "test" };

/* The open file while features stay in it: where the rows of each node type are. */
typedef struct {
    nsmi_h5 *h;
    int types;
    nsmi_h5_rows rows[];
} source;

void nsmi_dataset_close(nsm_dataset *ds)
{
    source *f = ds->file;
    if (!f) return;
    for (int i = 0; i < f->types; i++) free(f->rows[i].offset);
    nsmi_h5_close(f->h);
    free(f);
    ds->file = NULL;
}

/* "nodes/paper/ptr": a path in the file, in a buffer of the caller's. */
enum { PATH = 2 * NSMI_H5_MAX_NAME };
static const char *join(char buf[PATH], const char *group, const char *name, const char *leaf)
{
    snprintf(buf, PATH, "%s/%s%s%s", group, name, *leaf ? "/" : "", leaf);
    return buf;
}

/* ---- writing ---- */

static void write_file_features(nsmi_h5 *h, const nsm_dataset *ds, int t, const char *path)
{
    const nsm_dataset_nodes *v = &ds->node[t];
    float *block = nsmi_malloc(ds->ctx, (size_t)(ROWS_AT_A_TIME * v->features) * sizeof *block);
    for (int64_t at = 0; block && at < v->count && !nsmi_failed(ds->ctx); at += ROWS_AT_A_TIME) {
        int64_t rows = v->count - at < ROWS_AT_A_TIME ? v->count - at : ROWS_AT_A_TIME;
        if (nsm_dataset_features_rows(ds, t, at, rows, NULL, block)) break;
        nsmi_h5_write_rows(h, path, NSM_F32, 2, (int64_t[]){ v->count, v->features }, at, rows,
                           block);
    }
    free(block);
}

static void write_nodes(nsmi_h5 *h, const nsm_dataset *ds, int t)
{
    char p[PATH];
    const nsm_dataset_nodes *v = &ds->node[t];
    const char *g = "nodes";
    nsmi_h5_group(h, join(p, g, v->name, ""));
    nsmi_h5_put_int(h, p, "count", v->count);
    nsmi_h5_put_int(h, p, "features", v->features);
    if (v->dense)
        nsmi_h5_write(h, join(p, g, v->name, "features"), NSM_F32, 2,
                      (int64_t[]){ v->count, v->features }, v->dense);
    if (v->in_file) write_file_features(h, ds, t, join(p, g, v->name, "features"));
    if (v->ptr) {
        int64_t nnz = v->ptr[v->count];
        nsmi_h5_write(h, join(p, g, v->name, "ptr"), NSM_I64, 1, (int64_t[]){ v->count + 1 },
                      v->ptr);
        nsmi_h5_write(h, join(p, g, v->name, "idx"), NSM_I32, 1, &nnz, v->idx);
        nsmi_h5_write(h, join(p, g, v->name, "val"), NSM_F32, 1, &nnz, v->val);
    }
    if (v->names) nsmi_h5_write_strings(h, join(p, g, v->name, "names"), v->count, v->names);
    if (v->graph_ptr)
        nsmi_h5_write(h, join(p, g, v->name, "graph_ptr"), NSM_I64, 1,
                      (int64_t[]){ ds->graphs + 1 }, v->graph_ptr);
    nsmi_content_write(h, v);
}

static void write_edges(nsmi_h5 *h, const nsm_dataset *ds, const nsm_dataset_edges *e)
{
    char p[PATH];
    const char *g = "edges";
    nsmi_h5_group(h, join(p, g, e->name, ""));
    nsmi_h5_put_text(h, p, "src_type", ds->node[e->src_type].name);
    nsmi_h5_put_text(h, p, "dst_type", ds->node[e->dst_type].name);
    nsmi_h5_put_int(h, p, "count", e->count);
    nsmi_h5_write(h, join(p, g, e->name, "src"), NSM_I32, 1, &e->count, e->src);
    nsmi_h5_write(h, join(p, g, e->name, "dst"), NSM_I32, 1, &e->count, e->dst);
    if (e->weight)
        nsmi_h5_write(h, join(p, g, e->name, "weight"), NSM_F32, 1, &e->count, e->weight);
    if (e->feature)
        nsmi_h5_write(h, join(p, g, e->name, "features"), NSM_F32, 2,
                      (int64_t[]){ e->count, e->features }, e->feature);
}

static void write_labels(nsmi_h5 *h, const nsm_dataset_labels *l)
{
    const int64_t dim[2] = { l->count, l->columns };
    if (l->kind == NSM_LABEL_NONE) return;
    nsmi_h5_group(h, "labels");
    nsmi_h5_put_text(h, "labels", "kind", kinds[l->kind]);
    nsmi_h5_put_text(h, "labels", "of", l->of_graphs ? "graphs" : "nodes");
    nsmi_h5_put_int(h, "labels", "columns", l->columns);
    if (l->cls) nsmi_h5_write(h, "labels/class", NSM_I32, 1, dim, l->cls);
    if (l->multi) nsmi_h5_write(h, "labels/multi", NSM_U8, 2, dim, l->multi);
    if (l->value) nsmi_h5_write(h, "labels/value", NSM_F32, 2, dim, l->value);
    if (l->names) nsmi_h5_write_strings(h, "labels/names", l->columns, l->names);
}

int nsm_dataset_save(const nsm_dataset *ds, const char *path)
{
    char p[PATH];
    if (nsm_dataset_validate(ds)) return nsm_error(ds->ctx);
    nsmi_h5 *h = nsmi_h5_create(ds->ctx, path, "dataset");
    nsmi_h5_put_text(h, "", "format", FORMAT);
    nsmi_h5_put_int(h, "", "version", LAYOUT);
    nsmi_h5_put_text(h, "", "name", ds->name);
    nsmi_h5_put_int(h, "", "directed", ds->directed);
    nsmi_h5_put_int(h, "", "graphs", ds->graphs);
    nsmi_h5_put_text(h, "", "target", ds->node[ds->target].name);
    nsmi_h5_write_text(h, "description", ds->description);
    for (int i = 0; i < ds->node_types; i++) write_nodes(h, ds, i);
    nsmi_h5_group(h, "edges");
    for (int i = 0; i < ds->edge_types; i++) write_edges(h, ds, &ds->edge[i]);
    write_labels(h, &ds->label);
    nsmi_questions_write(h, ds);
    nsmi_links_write(h, ds);
    nsmi_h5_group(h, "splits");
    for (int i = 0; i < ds->splits; i++) {
        const nsm_dataset_split *s = &ds->split[i];
        char group[PATH];
        nsmi_h5_group(h, join(group, "splits", s->name, ""));
        for (int k = 0; k < NSM_SPLIT_PARTS; k++)
            nsmi_h5_write(h, join(p, "splits", s->name, parts[k]), NSM_I32, 1, &s->count[k],
                          s->index[k]);
    }
    return nsmi_h5_commit(ds->ctx, h);
}

/* ---- reading ---- */

/* A reader goes on with NULLs after an error and is asked once at the end. */
typedef struct {
    nsm_ctx *ctx;
    nsmi_h5 *h;
    nsm_dataset *ds;
    const nsm_dataset_options *options;
} reader;

static void replace_text(char **text, char *with)
{
    if (!with) return;
    free(*text);
    *text = with;
}

static void read_root(reader *r)
{
    int64_t version = 0, directed = 0;
    char *format = nsmi_h5_get_text(r->h, "", "format");
    if (format && strcmp(format, FORMAT))
        nsm_error_set(r->ctx, NSM_EFORMAT, "%s: attribute format is \"%.40s\", want \"%s\"",
                      nsmi_h5_path(r->h), format, FORMAT);
    free(format);
    nsmi_h5_get_int(r->h, "", "version", 1, LAYOUT, &version);
    nsmi_h5_get_int(r->h, "", "directed", 0, 1, &directed);
    nsmi_h5_get_int(r->h, "", "graphs", 0, INT32_MAX, &r->ds->graphs);
    r->ds->directed = directed;
    replace_text(&r->ds->name, nsmi_h5_get_text(r->h, "", "name"));
    replace_text(&r->ds->description, nsmi_h5_read_text(r->h, "description"));
}

static bool stays_in_file(const reader *r, const nsm_dataset_nodes *v)
{
    int64_t limit = r->options ? r->options->features_in_file_bytes : 0, bytes;
    if (!limit) return false;
    return limit < 0 || !nsmi_mul(v->count * (int64_t)sizeof(float), v->features, &bytes) ||
           bytes > limit;
}

static void read_features(reader *r, nsm_dataset_nodes *v)
{
    char p[PATH];
    int64_t dim[2] = { v->count, v->features }, rows = v->count + 1, nnz = -1;
    bool dense = nsmi_h5_has(r->h, join(p, "nodes", v->name, "features"));
    if (v->features == 0) return;
    if (dense && stays_in_file(r, v)) {
        v->in_file = true;
    } else if (dense) {
        v->dense = nsmi_h5_read(r->h, p, NSM_F32, 2, dim);
    } else {
        v->ptr = nsmi_h5_read(r->h, join(p, "nodes", v->name, "ptr"), NSM_I64, 1, &rows);
        v->idx = nsmi_h5_read(r->h, join(p, "nodes", v->name, "idx"), NSM_I32, 1, &nnz);
        v->val = nsmi_h5_read(r->h, join(p, "nodes", v->name, "val"), NSM_F32, 1, &nnz);
        if (v->ptr && v->val && v->ptr[v->count] != nnz)
            nsm_error_set(r->ctx, NSM_EFORMAT,
                          "%s: nodes/%s/ptr ends at %lld, idx has %lld entries", nsmi_h5_path(r->h),
                          v->name, (long long)v->ptr[v->count], (long long)nnz);
    }
}

static void read_nodes(reader *r, const char *name)
{
    char p[PATH];
    int64_t count = 0, features = 0, graphs = r->ds->graphs + 1;
    nsmi_h5_get_int(r->h, join(p, "nodes", name, ""), "count", 0, INT32_MAX, &count);
    nsmi_h5_get_int(r->h, p, "features", 0, INT32_MAX, &features);
    nsm_dataset_nodes *v = nsm_dataset_add_nodes(r->ds, name, count);
    if (!v) return;
    v->features = features;
    read_features(r, v);
    if (nsmi_h5_has(r->h, join(p, "nodes", name, "names")) && !(r->options && r->options->no_names))
        v->names = nsmi_h5_read_strings(r->h, p, &count);
    if (nsmi_h5_has(r->h, join(p, "nodes", name, "graph_ptr")))
        v->graph_ptr = nsmi_h5_read(r->h, p, NSM_I64, 1, &graphs);
    nsmi_content_read(r->h, v);
}

/* The node type that an attribute names. */
static int read_type(reader *r, const char *path, const char *attribute)
{
    char *name = nsmi_h5_get_text(r->h, path, attribute);
    int t = name ? nsm_dataset_find_nodes(r->ds, name) : -1;
    if (name && t < 0)
        nsm_error_set(r->ctx, NSM_EFORMAT, "%s: %s: attribute %s: there is no node type %.64s",
                      nsmi_h5_path(r->h), *path ? path : "/", attribute, name);
    free(name);
    return t;
}

static void read_edges(reader *r, const char *name)
{
    char p[PATH];
    int64_t count = 0, dim[2] = { 0, -1 };
    int src = read_type(r, join(p, "edges", name, ""), "src_type"),
        dst = read_type(r, p, "dst_type");
    nsmi_h5_get_int(r->h, p, "count", 0, INT64_MAX / 16, &count);
    nsm_dataset_edges *e = nsm_dataset_add_edges(r->ds, name, src, dst, 0);
    if (!e) return;
    free(e->src);
    free(e->dst);
    e->count = dim[0] = count;
    e->src = nsmi_h5_read(r->h, join(p, "edges", name, "src"), NSM_I32, 1, &count);
    e->dst = nsmi_h5_read(r->h, join(p, "edges", name, "dst"), NSM_I32, 1, &count);
    if (nsmi_h5_has(r->h, join(p, "edges", name, "weight")))
        e->weight = nsmi_h5_read(r->h, p, NSM_F32, 1, &count);
    if (nsmi_h5_has(r->h, join(p, "edges", name, "features"))) {
        e->feature = nsmi_h5_read(r->h, p, NSM_F32, 2, dim);
        e->features = e->feature ? dim[1] : 0;
    }
}

static void read_labels(reader *r)
{
    nsm_dataset_labels *l = &r->ds->label;
    if (!nsmi_h5_has(r->h, "labels")) return;
    char *kind = nsmi_h5_get_text(r->h, "labels", "kind"),
         *of = nsmi_h5_get_text(r->h, "labels", "of");
    nsmi_h5_get_int(r->h, "labels", "columns", 1, INT32_MAX, &l->columns);
    l->of_graphs = of && !strcmp(of, "graphs");
    int k = NSM_LABEL_VALUE;
    while (kind && k > 0 && strcmp(kind, kinds[k])) k--;
    if (kind && of && (k == NSM_LABEL_NONE || (!l->of_graphs && strcmp(of, "nodes"))))
        nsm_error_set(r->ctx, NSM_EFORMAT, "%s: labels: kind %.40s of %.40s is not known",
                      nsmi_h5_path(r->h), kind, of);
    free(kind);
    free(of);
    if (nsmi_failed(r->ctx)) return;
    int64_t dim[2] = { -1, l->columns };
    l->kind = (nsm_label_kind)k;
    if (k == NSM_LABEL_CLASS) l->cls = nsmi_h5_read(r->h, "labels/class", NSM_I32, 1, dim);
    if (k == NSM_LABEL_MULTI) l->multi = nsmi_h5_read(r->h, "labels/multi", NSM_U8, 2, dim);
    if (k == NSM_LABEL_VALUE) l->value = nsmi_h5_read(r->h, "labels/value", NSM_F32, 2, dim);
    l->count = dim[0];
    if (nsmi_h5_has(r->h, "labels/names"))
        l->names = nsmi_h5_read_strings(r->h, "labels/names", &l->columns);
}

static void read_split(reader *r, const char *name)
{
    char p[PATH];
    nsm_dataset_split *s = nsm_dataset_add_split(r->ds, name);
    for (int k = 0; s && k < NSM_SPLIT_PARTS; k++) {
        int64_t count = -1;
        s->index[k] = nsmi_h5_read(r->h, join(p, "splits", name, parts[k]), NSM_I32, 1, &count);
        s->count[k] = s->index[k] ? count : 0;
    }
}

/* Call read for every name in a group. */
static void read_each(reader *r, const char *group, void (*read)(reader *r, const char *name))
{
    int64_t count = 0;
    char **name = nsmi_h5_list(r->h, group, &count);
    for (int64_t i = 0; name && i < count && !nsmi_failed(r->ctx); i++) read(r, name[i]);
    nsmi_h5_free_strings(name, count);
}

nsm_dataset *nsmi_dataset_read(nsm_ctx *ctx, nsmi_h5 *h, const nsm_dataset_options *options)
{
    reader r = { ctx, h, h ? nsm_dataset_new(ctx, NULL) : NULL, options };
    if (!r.ds) return NULL;
    read_root(&r);
    read_each(&r, "nodes", read_nodes);
    int target = read_type(&r, "", "target");
    r.ds->target = target < 0 ? 0 : target;
    if (nsmi_h5_has(h, "edges")) read_each(&r, "edges", read_edges);
    read_labels(&r);
    nsmi_questions_read(h, r.ds);
    nsmi_links_read(h, r.ds);
    if (nsmi_h5_has(h, "splits")) read_each(&r, "splits", read_split);
    if (nsmi_dataset_check(r.ds, nsmi_h5_path(h), NSM_EFORMAT) == NSM_OK) return r.ds;
    nsm_dataset_free(r.ds);
    return NULL;
}

/* Keep the file open and find the rows of what stays in it. */
static void keep_file(nsm_dataset *ds, nsmi_h5 *h)
{
    char p[PATH];
    source *f = nsmi_calloc(ds->ctx, 1, sizeof *f + (size_t)ds->node_types * sizeof f->rows[0]);
    if (!f) {
        nsmi_h5_close(h);
        return;
    }
    f->h = h;
    f->types = ds->node_types;
    ds->file = f;
    for (int i = 0; i < ds->node_types; i++) {
        const nsm_dataset_nodes *v = &ds->node[i];
        if (!v->in_file || nsmi_h5_map_rows(h, join(p, "nodes", v->name, "features"), &f->rows[i]))
            continue;
        if (f->rows[i].rows != v->count ||
            f->rows[i].row_bytes != v->features * (int64_t)sizeof(float))
            nsm_error_set(ds->ctx, NSM_EFORMAT,
                          "%s: %s: is not of the shape that its attributes say", nsmi_h5_path(h),
                          p);
    }
}

nsm_dataset *nsm_dataset_load(nsm_ctx *ctx, const char *path, const nsm_dataset_options *options)
{
    nsmi_h5 *h = nsmi_h5_open(ctx, path, "dataset");
    nsm_dataset *ds = nsmi_dataset_read(ctx, h, options);
    bool keep = false;
    for (int i = 0; ds && i < ds->node_types; i++) keep |= ds->node[i].in_file;
    if (keep) keep_file(ds, h);
    else nsmi_h5_close(h);
    if (!nsmi_failed(ctx)) return ds;
    nsm_dataset_free(ds);
    return NULL;
}

/* ---- rows of features ---- */

static bool read_row(const nsmi_h5_rows *f, int64_t row, char *out)
{
    off_t at = f->offset[row / f->rows_per_chunk] + (row % f->rows_per_chunk) * f->row_bytes;
    for (int64_t left = f->row_bytes; left > 0;) {
        ssize_t n = pread(f->fd, out, (size_t)left, at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        left -= n; out += n; at += n;
    }
    return true;
}

static void spread_row(const nsm_dataset_nodes *v, int64_t row, float *out)
{
    memset(out, 0, (size_t)v->features * sizeof *out);
    for (int64_t k = v->ptr[row]; k < v->ptr[row + 1]; k++) out[v->idx[k]] = v->val[k];
}

int nsm_dataset_features_rows(const nsm_dataset *ds, int t, int64_t first, int64_t rows,
                              const int32_t *row, float *out)
{
    if (nsmi_failed(ds->ctx)) return nsm_error(ds->ctx);
    if (t < 0 || t >= ds->node_types || rows < 0 ||
        (!row && (first < 0 || first > ds->node[t].count - rows)))
        return nsm_error_set(ds->ctx, NSM_EINVAL,
                             "nsm_dataset_features_rows: rows %lld and %lld more of node type %d",
                             (long long)first, (long long)rows, t);
    const nsm_dataset_nodes *v = &ds->node[t];
    const source *f = ds->file;
    int64_t bad = 0, broken = 0;
    if (v->features == 0) return NSM_OK;
    #pragma omp parallel for schedule(static) \
    num_threads(ds->ctx->dev.threads) reduction(+ : bad, broken) if (rows > 256)
    for (int64_t i = 0; i < rows; i++) {
        int64_t r = row ? row[i] : first + i;
        float *to = out + i * v->features;
        if (r < 0 || r >= v->count) bad++;
        else if (v->in_file) broken += !read_row(&f->rows[t], r, (char *)to);
        else if (v->ptr) spread_row(v, r, to);
        else memcpy(to, v->dense + r * v->features, (size_t)v->features * sizeof *to);
    }
    if (bad)
        return nsm_error_set(ds->ctx, NSM_EINVAL,
                             "nsm_dataset_features_rows: %lld of %lld rows are out of 0..%lld",
                             (long long)bad, (long long)rows, (long long)v->count - 1);
    if (broken)
        return nsm_error_set(ds->ctx, NSM_EIO, "%s: nodes/%s/features: %lld rows cannot be read",
                             nsmi_h5_path(f->h), v->name, (long long)broken);
    return NSM_OK;
}
