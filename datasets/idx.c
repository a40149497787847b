/* datasets/idx.c - Pictures with classes in the IDX files of MNIST and its kin (LeCun, Cortes,
 * Burges): a folder of
 *
 *   train-images-idx3-ubyte  train-labels-idx1-ubyte
 *   t10k-images-idx3-ubyte   t10k-labels-idx1-ubyte
 *
 * each also with .gz behind it.  A file is 0, 0, 8 (bytes), the rank, the sizes as big-endian
 * 32-bit numbers, then the bytes.  Nodes are the pictures, the training file's first. */
#include "config.h"
#include "datasets/internal.h"
#include "datasets/superpixels.h"

typedef struct {
    char *path, *data;
    int64_t dim[3];
    const uint8_t *byte; /* in data */
} idx_file;

static int64_t big_endian(const uint8_t *p)
{
    return (int64_t)p[0] << 24 | (int64_t)p[1] << 16 | (int64_t)p[2] << 8 | p[3];
}

static void idx_close(idx_file *f)
{
    free(f->path);
    free(f->data);
}

/* Read one file of this rank; its sizes are checked against its length. */
static bool idx_open(nsm_ctx *ctx, const char *source, const char *name, int rank, idx_file *f)
{
    int64_t bytes = 0, want = 1;
    f->path = nsmi_find_file(ctx, "%s/%s", source, name);
    if (!f->path && !nsmi_failed(ctx))
        nsm_error_set(ctx, NSM_EIO, "%s has no file %s, nor %s.gz", source, name, name);
    f->data = f->path ? nsmi_read_all(ctx, f->path, &bytes) : NULL;
    if (!f->data) return false;
    const uint8_t *p = (const uint8_t *)f->data;
    if (bytes < 4 + 4 * rank || p[0] || p[1] || p[2] != 8 || p[3] != rank) {
        nsm_error_set(ctx, NSM_EFORMAT, "%s is no IDX file of bytes with %d sizes", f->path, rank);
        return false;
    }
    for (int k = 0; k < rank; k++) {
        f->dim[k] = big_endian(p + 4 + 4 * k);
        if (!nsmi_mul(want, f->dim[k], &want)) want = -1;
    }
    f->byte = p + 4 + 4 * rank;
    if (want == bytes - 4 - 4 * rank && f->dim[0] > 0) return true;
    nsm_error_set(ctx, NSM_EFORMAT, "%s says that it holds %lld of %lld x %lld, but has %lld bytes",
                  f->path, (long long)f->dim[0], (long long)(rank > 1 ? f->dim[1] : 1),
                  (long long)(rank > 2 ? f->dim[2] : 1), (long long)(bytes - 4 - 4 * rank));
    return false;
}

/* Train, then test: pictures and classes. */
static bool open_all(nsm_ctx *ctx, const char *source, idx_file f[4])
{
    static const char *const name[] = { "train-images-idx3-ubyte", "t10k-images-idx3-ubyte",
                                        "train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte" };
    for (int k = 0; k < 4; k++)
        if (!idx_open(ctx, source, name[k], k < 2 ? 3 : 1, &f[k])) return false;
    for (int k = 0; k < 2; k++)
        if (f[k].dim[0] != f[2 + k].dim[0]) {
            nsm_error_set(ctx, NSM_EFORMAT, "%s has %lld pictures, %s %lld classes", f[k].path,
                          (long long)f[k].dim[0], f[2 + k].path, (long long)f[2 + k].dim[0]);
            return false;
        }
    if (f[0].dim[1] == f[1].dim[1] && f[0].dim[2] == f[1].dim[2]) return true;
    nsm_error_set(ctx, NSM_EFORMAT, "%s has pictures of another size than %s", f[1].path,
                  f[0].path);
    return false;
}

static void fill_nodes(nsm_dataset *ds, const idx_file f[4])
{
    int64_t train = f[0].dim[0], n = train + f[1].dim[0], size = f[0].dim[1] * f[0].dim[2];
    nsm_dataset_nodes *v = nsm_dataset_add_nodes(ds, "image", n);
    uint8_t *pixel = nsm_dataset_array(ds, n * size, 1);
    int32_t *cls = nsm_dataset_array(ds, n, sizeof *cls), most = 0;
    if (!v || !pixel || !cls) {
        nsm_dataset_release(pixel);
        nsm_dataset_release(cls);
        return;
    }
    memcpy(pixel, f[0].byte, (size_t)(train * size));
    memcpy(pixel + train * size, f[1].byte, (size_t)((n - train) * size));
    for (int64_t i = 0; i < n; i++) {
        cls[i] = i < train ? f[2].byte[i] : f[3].byte[i - train];
        most = cls[i] > most ? cls[i] : most;
    }
    v->image = (nsm_dataset_images){ f[0].dim[1], f[0].dim[2], 1, pixel, NULL };
    ds->label = (nsm_dataset_labels){
        .kind = NSM_LABEL_CLASS, .count = n, .columns = most + 1, .cls = cls
    };
}

/* The files' test part; the last `valid` of the training file are for validation. */
static void fill_split(nsm_dataset *ds, int64_t train, int64_t valid, int64_t test)
{
    nsm_dataset_split *s = nsmi_failed(ds->ctx) ? NULL : nsm_dataset_add_split(ds, "default");
    const int64_t count[] = { train - valid, valid, test };
    for (int64_t p = 0, at = 0; s && p < NSM_SPLIT_PARTS; at += count[p++]) {
        s->index[p] = nsm_dataset_array(ds, count[p], sizeof *s->index[p]);
        s->count[p] = s->index[p] ? count[p] : 0;
        for (int64_t k = 0; k < s->count[p]; k++) s->index[p][k] = (int32_t)(at + k);
    }
}

static void add_superpixels(nsm_dataset *ds, const nsmi_options *o, int64_t area)
{
    int64_t count = nsmi_option_int(o, "superpixels", 0, area, 0);
    double compactness = nsmi_option_float(o, "compactness", 0, 1e6, 0.1);
    if (count && !nsmi_failed(ds->ctx)) nsm_dataset_superpixels(ds, count, compactness);
}

nsm_dataset *nsmi_import_idx(nsm_ctx *ctx, const char *source, const nsmi_options *o)
{
    idx_file f[4] = { 0 };
    nsm_dataset *ds = NULL;
    char *name = nsmi_stem(ctx, source);
    if (name && open_all(ctx, source, f)) {
        int64_t train = f[0].dim[0],
                valid = nsmi_option_int(o, "valid", 0, train - 1, train > 5000 ? 5000 : 0);
        if (!nsmi_failed(ctx)) ds = nsm_dataset_new(ctx, name);
        if (ds) fill_nodes(ds, f);
        if (ds) fill_split(ds, train, valid, f[1].dim[0]);
        if (ds) add_superpixels(ds, o, f[0].dim[1] * f[0].dim[2]);
    }
    for (int k = 0; k < 4; k++) idx_close(&f[k]);
    free(name);
    if (!nsmi_failed(ctx)) return ds;
    nsm_dataset_free(ds);
    return NULL;
}
