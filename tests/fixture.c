/* tests/fixture.c - See fixture.h.  Reads plain HDF5, so the replayer opens files in a child. */
#include "config.h"
#include <hdf5.h>
#include <stdarg.h>
#include "tests/fixture.h"

enum { MOST = 4096, PATH = 512 };

typedef struct { char path[PATH]; bool compared; } entry;

struct fixture {
    nsm_ctx *ctx;
    hid_t file;
    char *system, *name, *config_text;
    json_t *config;
    entry *entry;              /* every dataset of the file */
    int entries;
    void *owned[MOST];         /* host arrays */
    int arrays;
    struct { char path[PATH]; nsm_tensor *tensor; } made[MOST];
    int tensors;
    double tolerance, top_output, top_grad;
    double error;              /* largest so far, over its allowance */
    char worst[PATH], fault[PATH];
};

void fixture_fault(fixture *f, const char *format, ...)
{
    if (f->fault[0]) return;
    va_list args;
    va_start(args, format);
    vsnprintf(f->fault, sizeof f->fault, format, args);
    va_end(args);
}

static char *read_text(hid_t file, const char *name)
{
    char *out = NULL, *text = NULL;
    hid_t a = H5Aexists(file, name) > 0 ? H5Aopen(file, name, H5P_DEFAULT) : -1;
    if (a < 0) return NULL;
    hid_t type = H5Aget_type(a);
    if (H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type)) {
        hid_t memory = H5Tcopy(H5T_C_S1);
        H5Tset_size(memory, H5T_VARIABLE);
        H5Tset_cset(memory, H5Tget_cset(type));
        if (H5Aread(a, memory, &text) >= 0 && text) out = strdup(text);
        H5free_memory(text);
        H5Tclose(memory);
    } else if (H5Tget_class(type) == H5T_STRING) {
        out = calloc(1, H5Tget_size(type) + 1);
        if (out && H5Aread(a, type, out) < 0) out[0] = '\0';
    }
    H5Tclose(type);
    H5Aclose(a);
    return out;
}

static herr_t note(hid_t id, const char *name, const H5O_info_t *info, void *user)
{
    fixture *f = user;
    (void)id;
    if (info->type != H5O_TYPE_DATASET || f->entries == MOST) return f->entries == MOST ? -1 : 0;
    snprintf(f->entry[f->entries++].path, PATH, "%s", name);
    return 0;
}

static bool starts(const char *s, const char *with) { return strncmp(s, with, strlen(with)) == 0; }

static double top_of(fixture *f, const char *group)
{
    double top = 0;
    for (int k = 0; k < f->entries; k++) {
        int64_t n;
        if (!starts(f->entry[k].path, group)) continue;
        const float *x = fixture_floats(f, f->entry[k].path, &n);
        for (int64_t i = 0; x && i < n; i++)
            if (fabs((double)x[i]) > top) top = fabs((double)x[i]);
    }
    return top;
}

fixture *fixture_open(nsm_ctx *ctx, const char *path, char why[256])
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    fixture *f = calloc(1, sizeof *f);
    json_error_t bad;
    if (!f || !(f->entry = calloc(MOST, sizeof *f->entry))) abort();
    f->ctx = ctx;
    f->file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (f->file < 0) {
        snprintf(why, 256, "not an HDF5 file");
        fixture_close(f);
        return NULL;
    }
    f->system = read_text(f->file, "system");
    f->name = read_text(f->file, "case");
    f->config_text = read_text(f->file, "config");
    f->config = f->config_text ? json_loads(f->config_text, 0, &bad) : NULL;
    if (!f->system || !f->name || !json_is_object(f->config) || !fixture_text(f, "kind", NULL) ||
        H5Ovisit2(f->file, H5_INDEX_NAME, H5_ITER_NATIVE, note, f, H5O_INFO_BASIC) < 0) {
        snprintf(why, 256,
                 "system, case, config or its kind is missing, or the tree cannot be walked");
        fixture_close(f);
        return NULL;
    }
    f->tolerance = fixture_number(f, "tolerance", 1e-4);
    f->top_output = top_of(f, "outputs/");
    f->top_grad = top_of(f, "grads/");
    return f;
}

void fixture_close(fixture *f)
{
    if (!f) return;
    for (int i = 0; i < f->tensors; i++) nsm_tensor_free(f->made[i].tensor);
    for (int i = 0; i < f->arrays; i++) free(f->owned[i]);
    if (f->file >= 0) H5Fclose(f->file);
    json_decref(f->config);
    free(f->system);
    free(f->name);
    free(f->config_text);
    free(f->entry);
    free(f);
}

nsm_ctx *fixture_ctx(const fixture *f) { return f->ctx; }
const char *fixture_system(const fixture *f) { return f->system; }
const char *fixture_case(const fixture *f) { return f->name; }
const char *fixture_kind(const fixture *f) { return fixture_text(f, "kind", ""); }
json_t *fixture_config(const fixture *f) { return f->config; }

double fixture_number(const fixture *f, const char *key, double fallback)
{
    json_t *v = json_object_get(f->config, key);
    return json_is_number(v) ? json_number_value(v) : fallback;
}

int64_t fixture_int(const fixture *f, const char *key, int64_t fallback)
{
    json_t *v = json_object_get(f->config, key);
    return json_is_number(v) ? (int64_t)json_number_value(v) : fallback;
}

bool fixture_bool(const fixture *f, const char *key, bool fallback)
{
    json_t *v = json_object_get(f->config, key);
    return json_is_boolean(v) ? json_is_true(v) : fallback;
}

const char *fixture_text(const fixture *f, const char *key, const char *fallback)
{
    json_t *v = json_object_get(f->config, key);
    return json_is_string(v) ? json_string_value(v) : fallback;
}

/* ---- arrays ---- */
static entry *find(const fixture *f, const char *path)
{
    for (int k = 0; k < f->entries; k++)
        if (!strcmp(f->entry[k].path, path)) return &f->entry[k];
    return NULL;
}

bool fixture_has(const fixture *f, const char *path) { return find(f, path) != NULL; }

const char *fixture_next(const fixture *f, const char *group, int *at)
{
    for (; *at < f->entries; ++*at)
        if (starts(f->entry[*at].path, group)) return f->entry[(*at)++].path;
    return NULL;
}

static int dims_of(hid_t set, int64_t dim[NSM_MAX_RANK])
{
    hsize_t size[H5S_MAX_RANK];
    hid_t space = H5Dget_space(set);
    int rank = space < 0 ? -1 : H5Sget_simple_extent_ndims(space);
    if (rank > NSM_MAX_RANK) rank = -1;
    if (rank >= 0) H5Sget_simple_extent_dims(space, size, NULL);
    for (int i = 0; i < NSM_MAX_RANK; i++) dim[i] = i < rank ? (int64_t)size[i] : 1;
    if (space >= 0) H5Sclose(space);
    return rank;
}

int fixture_dims(fixture *f, const char *path, int64_t dim[NSM_MAX_RANK])
{
    hid_t set = find(f, path) ? H5Dopen2(f->file, path, H5P_DEFAULT) : -1;
    if (set < 0) return -1;
    int rank = dims_of(set, dim);
    H5Dclose(set);
    return rank;
}

static void *read_array(fixture *f, const char *path, hid_t type, size_t bytes, int64_t *count)
{
    int64_t dim[NSM_MAX_RANK];
    void *data = NULL;
    hid_t set = find(f, path) ? H5Dopen2(f->file, path, H5P_DEFAULT) : -1;
    *count = 0;
    if (set < 0 || dims_of(set, dim) < 0 || f->arrays == MOST) {
        fixture_fault(f, "%s is missing or cannot be opened", path);
    } else {
        *count = 1;
        for (int i = 0; i < NSM_MAX_RANK; i++) *count *= dim[i];
        data = *count < (int64_t)1 << 30 ? malloc((size_t)*count * bytes + 1) : NULL;
        if (data && H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0) {
            free(data);
            data = NULL;
        }
        if (data) f->owned[f->arrays++] = data;
        else fixture_fault(f, "%s cannot be read", path);
    }
    if (set >= 0) H5Dclose(set);
    return data;
}

float *fixture_floats(fixture *f, const char *path, int64_t *count)
{
    return read_array(f, path, H5T_NATIVE_FLOAT, sizeof(float), count);
}

int32_t *fixture_ints(fixture *f, const char *path, int64_t *count)
{
    return read_array(f, path, H5T_NATIVE_INT32, sizeof(int32_t), count);
}

static nsm_tensor *tensor_of(fixture *f, const char *group, const char *name, nsm_type type)
{
    char path[PATH], grad[PATH + 8];
    int64_t dim[NSM_MAX_RANK], n;
    snprintf(path, sizeof path, "%s/%s", group, name);
    for (int i = 0; i < f->tensors; i++)
        if (!strcmp(f->made[i].path, path)) return f->made[i].tensor;
    const void *host = type == NSM_F32 ? (void *)fixture_floats(f, path, &n)
                                       : (void *)fixture_ints(f, path, &n);
    int rank = fixture_dims(f, path, dim);
    if (!host || rank < 0 || f->tensors == MOST) return NULL;
    nsm_tensor *t = nsm_tensor_from(f->ctx, type, rank, dim, host);
    if (!t) return NULL;
    snprintf(grad, sizeof grad, "grads/%s", path);
    t->needs_grad = type == NSM_F32 && fixture_has(f, grad);
    memcpy(f->made[f->tensors].path, path, sizeof path);
    f->made[f->tensors++].tensor = t;
    return t;
}

nsm_tensor *fixture_input(fixture *f, const char *name)
{
    return tensor_of(f, "inputs", name, NSM_F32);
}
nsm_tensor *fixture_index(fixture *f, const char *name)
{
    return tensor_of(f, "inputs", name, NSM_I32);
}
nsm_tensor *fixture_weight(fixture *f, const char *name)
{
    return tensor_of(f, "weights", name, NSM_F32);
}

/* Shapes agree when dims of 1 are left out. */
static bool same_shape(int rank, const int64_t *dim, const nsm_tensor *t)
{
    int i = 0, j = 0;
    for (;;) {
        while (i < rank && dim[i] == 1) i++;
        while (j < t->rank && t->dim[j] == 1) j++;
        if (i == rank || j == t->rank) return i == rank && j == t->rank;
        if (dim[i++] != t->dim[j++]) return false;
    }
}

typedef struct { fixture *f; const char *group; } loading;

static int load_one(void *user, const char *name, nsm_tensor *t, bool buffer)
{
    fixture *f = ((loading *)user)->f;
    char path[PATH];
    int64_t dim[NSM_MAX_RANK], n;
    (void)buffer;
    snprintf(path, sizeof path, "weights/%s", name);
    int rank = fixture_dims(f, path, dim);
    if (rank < 0) fixture_fault(f, "%s is missing", path);
    else if (!same_shape(rank, dim, t))
        fixture_fault(f, "%s has another shape than the model's", path);
    else {
        const float *host = fixture_floats(f, path, &n);
        if (host) nsm_tensor_set(t, host);
    }
    return 0;
}

void fixture_load(fixture *f, nsm_module *m)
{
    if (!m) return;
    nsm_module_walk(m, load_one, &(loading){ f, NULL });
    for (int k = 0; k < f->entries; k++)
        if (starts(f->entry[k].path, "weights/") && !nsm_module_find(m, f->entry[k].path + 8))
            fixture_fault(f, "%s is not in the model", f->entry[k].path);
}

/* ---- comparing ---- */
void fixture_values(fixture *f, const char *path, const float *have, int64_t count)
{
    int64_t n;
    entry *e = find(f, path);
    const float *want = fixture_floats(f, path, &n);
    if (!e || !want || !have) return;
    e->compared = true;
    if (n != count) {
        fixture_fault(f, "%s holds %lld values, the model gives %lld", path, (long long)n,
                      (long long)count);
        return;
    }
    double top = 0, worst = 0, kind = starts(path, "grads/") ? f->top_grad : f->top_output;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)have[i] - (double)want[i]);
        if (!(d <= worst)) worst = isnan(d) ? INFINITY : d;
        if (!(fabs((double)want[i]) <= top)) top = fabs((double)want[i]);
    }
    double over = top < 1e-3 * kind ? kind : top;
    double error = isfinite(top) ? worst / (over > 0 ? over : 1) : INFINITY;
    if (error < f->error) return;
    f->error = error;
    snprintf(f->worst, sizeof f->worst, "%s", path);
}

static float *host_of(fixture *f, nsm_tensor *t, bool grad)
{
    float *host = f->arrays < MOST ? malloc((size_t)nsm_numel(t) * sizeof(float) + 1) : NULL;
    if (!host) return NULL;
    f->owned[f->arrays++] = host;
    if (grad) nsm_tensor_get_grad(t, host);
    else nsm_tensor_get(t, host);
    return host;
}

void fixture_output(fixture *f, nsm_tape *tape, const char *name, nsm_tensor *y)
{
    char path[PATH];
    int64_t n;
    snprintf(path, sizeof path, "outputs/%s", name);
    if (!y) {
        fixture_fault(f, "%s was not computed: %s", path, nsm_error_message(f->ctx));
        return;
    }
    fixture_values(f, path, host_of(f, y, false), nsm_numel(y));
    snprintf(path, sizeof path, "cotangents/%s", name);
    if (!fixture_has(f, path) || !tape) return;
    const float *cotangent = fixture_floats(f, path, &n);
    if (cotangent && n == nsm_numel(y)) nsm_tape_seed(tape, y, cotangent);
    else fixture_fault(f, "%s does not fit its output", path);
}

static nsm_tensor *made(fixture *f, const char *path)
{
    for (int i = 0; i < f->tensors; i++)
        if (!strcmp(f->made[i].path, path)) return f->made[i].tensor;
    return NULL;
}

void fixture_grads(fixture *f, nsm_tape *tape, nsm_module *m)
{
    nsm_tape_backward(tape, NULL);
    for (int k = 0; k < f->entries; k++) {
        const char *path = f->entry[k].path;
        if (!starts(path, "grads/") || f->entry[k].compared) continue;
        nsm_tensor *t = made(f, path + 6);
        if (!t && m && starts(path, "grads/weights/")) t = nsm_module_find(m, path + 14);
        int64_t dim[NSM_MAX_RANK], n = 1;
        if (fixture_dims(f, path, dim) < 0) continue;
        for (int i = 0; i < NSM_MAX_RANK; i++) n *= dim[i];
        float *zeros = t ? NULL : calloc((size_t)n + 1, sizeof *zeros);
        fixture_values(f, path, t ? host_of(f, t, true) : zeros, t ? nsm_numel(t) : n);
        free(zeros);
    }
}

static int compare_one(void *user, const char *name, nsm_tensor *t, bool buffer)
{
    loading *l = user;
    char path[PATH];
    if (buffer) return 0;
    snprintf(path, sizeof path, "%s/%s", l->group, name);
    fixture_values(l->f, path, host_of(l->f, t, false), nsm_numel(t));
    return 0;
}

void fixture_module(fixture *f, const char *path, nsm_module *m)
{
    nsm_module_walk(m, compare_one, &(loading){ f, path });
}

bool fixture_verdict(fixture *f, double *error, const char **what)
{
    if (nsm_error(f->ctx)) fixture_fault(f, "%s", nsm_error_message(f->ctx));
    for (int k = 0; k < f->entries; k++) {
        const char *path = f->entry[k].path;
        bool wanted = starts(path, "outputs/") || starts(path, "grads/") || starts(path, "train/");
        if (wanted && !f->entry[k].compared) fixture_fault(f, "%s was not compared", path);
    }
    *error = f->error;
    *what = f->fault[0] ? f->fault : f->worst;
    return !f->fault[0] && f->error <= f->tolerance;
}
