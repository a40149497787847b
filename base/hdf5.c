/* base/hdf5.c - Groups, arrays, strings and attributes in sealed HDF5 files.
 *
 * Every call enters libhdf5 under one lock of the process (some builds of it are not thread-safe)
 * with its error printing switched off, and leaves both as they were.  What libhdf5 reports becomes
 * one sentence: the innermost entry of its stack.
 *
 * Nothing read is believed before it is checked: links must be hard, types one of four, ranks at
 * most five, and the bytes stored as many as the shape asks for before memory is asked for. */
#include "config.h"
#include <errno.h>
#include <hdf5.h>
#include <pthread.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/hdf5.h"
#include "base/internal.h"
#include "base/seal.h"

enum {
    CHUNK_BYTES = 1 << 20,   /* a chunk holds whole rows up to this size */
    DEFLATE_RATIO = 1100,    /* zlib packs at most so well: foreign files may be compressed */
    MAX_LINKS = 1000000      /* in a group */
};

struct nsmi_h5 {
    nsm_ctx *ctx;
    char *path, *kind;
    nsmi_draft *draft;       /* writing */
    int fd;                  /* reading: the verified file */
    hid_t file;
    bool foreign;
};

/* ---- entering and leaving libhdf5 ---- */

typedef struct {
    H5E_auto2_t print;
    void *data;
} guard;

static pthread_mutex_t library = PTHREAD_MUTEX_INITIALIZER;

static guard enter(void)
{
    guard g;
    pthread_mutex_lock(&library);
    H5Eget_auto2(H5E_DEFAULT, &g.print, &g.data);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    H5Eclear2(H5E_DEFAULT);
    return g;
}

static void leave(guard g)
{
    H5Eset_auto2(H5E_DEFAULT, g.print, g.data);
    pthread_mutex_unlock(&library);
}

static herr_t innermost(unsigned n, const H5E_error2_t *e, void *text)
{
    if (n == 0 && e->desc) snprintf(text, 160, " (%s)", e->desc);
    return 0;
}

/* Leave "file: path: what", with libhdf5's reason if it has one. */
static int fail(nsmi_h5 *h, int code, const char *path, const char *format, ...) NSM_PRINTF(4, 5);
static int fail(nsmi_h5 *h, int code, const char *path, const char *format, ...)
{
    char what[256], why[160] = "";
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, innermost, why);
    while (*path == '/') path++;
    return nsm_error_set(h->ctx, code, "%s: %s%s%s%s", h->path, path, *path ? ": " : "", what, why);
}

static bool refused(nsmi_h5 *h) { return !h || nsmi_failed(h->ctx); }
static int code_of(nsmi_h5 *h) { return h ? nsm_error(h->ctx) : NSM_EINVAL; }

static const char *or_root(const char *path) { return *path ? path : "/"; }

/* ---- types ---- */

static hid_t file_type(nsm_type type)
{
    switch (type) {
    case NSM_F32: return H5T_IEEE_F32LE;
    case NSM_I32: return H5T_STD_I32LE;
    case NSM_I64: return H5T_STD_I64LE;
    case NSM_U8: return H5T_STD_U8LE;
    case NSM_F64: return H5T_IEEE_F64LE;
    default: return -1;
    }
}

static hid_t memory_type(nsm_type type)
{
    switch (type) {
    case NSM_F32: return H5T_NATIVE_FLOAT;
    case NSM_I32: return H5T_NATIVE_INT32;
    case NSM_I64: return H5T_NATIVE_INT64;
    case NSM_F64: return H5T_NATIVE_DOUBLE;
    default: return H5T_NATIVE_UINT8;
    }
}

static hid_t string_type(size_t bytes)
{
    hid_t t = H5Tcopy(H5T_C_S1);
    if (t >= 0 && (H5Tset_size(t, bytes) < 0 || H5Tset_strpad(t, H5T_STR_NULLPAD) < 0 ||
                   H5Tset_cset(t, H5T_CSET_UTF8) < 0)) {
        H5Tclose(t);
        return -1;
    }
    return t;
}

/* The nsm_type of an HDF5 type, -1 for strings of fixed length, -2 for anything else. */
static int known_type(hid_t t)
{
    static const nsm_type types[] = { NSM_F32, NSM_I32, NSM_I64, NSM_U8, NSM_F64 };
    for (int i = 0; i < 5; i++)
        if (H5Tequal(t, file_type(types[i])) > 0) return types[i];
    if (H5Tget_class(t) == H5T_STRING && H5Tis_variable_str(t) == 0) return -1;
    return -2;
}

static const char *type_word(int type)
{
    return type == -1 ? "string" : type < 0 ? "another type" : nsm_type_name((nsm_type)type);
}

/* ---- opening and closing ---- */

static hid_t access_plist(void)
{
    hid_t p = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_libver_bounds(p, H5F_LIBVER_V110, H5F_LIBVER_V110);
    H5Pset_fclose_degree(p, H5F_CLOSE_STRONG);
#if H5_VERSION_GE(1, 10, 7) && !(H5_VERS_MAJOR == 1 && H5_VERS_MINOR == 12 && H5_VERS_RELEASE == 0)
    H5Pset_file_locking(p, 0, 1); /* files are replaced, never changed in place */
#endif
    return p;
}

static nsmi_h5 *new_file(nsm_ctx *ctx, const char *path, const char *kind)
{
    if (nsmi_failed(ctx)) return NULL;
    nsmi_h5 *h = nsmi_calloc(ctx, 1, sizeof *h);
    if (!h) return NULL;
    h->ctx = ctx;
    h->fd = -1;
    h->file = -1;
    h->path = nsmi_strdup(ctx, path);
    h->kind = nsmi_strdup(ctx, kind);
    if (h->path && h->kind) return h;
    nsmi_h5_close(h);
    return NULL;
}

nsmi_h5 *nsmi_h5_create(nsm_ctx *ctx, const char *path, const char *kind)
{
    nsmi_h5 *h = new_file(ctx, path, kind);
    if (!h) return NULL;
    h->draft = nsmi_draft_new(ctx, path);
    if (h->draft) {
        guard g = enter();
        hid_t create = H5Pcreate(H5P_FILE_CREATE), access = access_plist();
        H5Pset_userblock(create, NSMI_SEAL_BYTES);
        H5Pset_link_creation_order(create, H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED);
        H5Pset_obj_track_times(create, 0);
        h->file = H5Fcreate(nsmi_draft_temporary(h->draft), H5F_ACC_TRUNC, create, access);
        if (h->file < 0) fail(h, NSM_EIO, "", "cannot be created");
        H5Pclose(create);
        H5Pclose(access);
        leave(g);
    }
    if (!nsmi_failed(ctx)) return h;
    nsmi_h5_close(h);
    return NULL;
}

/* Was the file that libhdf5 opened by name the one that fd was verified on? */
static bool same_file(nsmi_h5 *h)
{
    struct stat a, b;
    int *handle = NULL;
    return H5Fget_vfd_handle(h->file, H5P_DEFAULT, (void **)&handle) >= 0 && handle &&
           !fstat(*handle, &a) && !fstat(h->fd, &b) && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino && a.st_size == b.st_size;
}

static void open_file(nsmi_h5 *h)
{
    guard g = enter();
    hid_t access = access_plist();
    h->file = H5Fopen(h->path, H5F_ACC_RDONLY, access);
    if (h->file < 0)
        fail(h, NSM_EFORMAT, "", "is not a readable HDF5 file");
    else if (!h->foreign && !same_file(h))
        fail(h, NSM_EIO, "", "was replaced while it was being opened");
    H5Pclose(access);
    leave(g);
}

nsmi_h5 *nsmi_h5_open(nsm_ctx *ctx, const char *path, const char *kind)
{
    nsmi_h5 *h = new_file(ctx, path, kind);
    if (!h) return NULL;
    h->fd = nsmi_seal_open(ctx, path, kind);
    if (h->fd >= 0) open_file(h);
    if (!nsmi_failed(ctx)) return h;
    nsmi_h5_close(h);
    return NULL;
}

nsmi_h5 *nsmi_h5_open_foreign(nsm_ctx *ctx, const char *path)
{
    nsmi_h5 *h = new_file(ctx, path, "");
    if (!h) return NULL;
    h->foreign = true;
    struct stat st;
    if (stat(path, &st) || !S_ISREG(st.st_mode))
        nsm_error_set(ctx, NSM_EIO, "%s: %s", path,
                      errno ? strerror(errno) : "is not a regular file");
    else
        open_file(h);
    if (!nsmi_failed(ctx)) return h;
    nsmi_h5_close(h);
    return NULL;
}

int nsmi_h5_kind(nsm_ctx *ctx, const char *path, char kind[16])
{
    return nsmi_seal_kind(ctx, path, kind);
}

/* Close libhdf5's side; false when what it still had to write did not go through. */
static bool close_hdf5(nsmi_h5 *h)
{
    if (h->file < 0) return true;
    guard g = enter();
    bool ok = H5Fclose(h->file) >= 0;
    h->file = -1;
    leave(g);
    return ok;
}

void nsmi_h5_close(nsmi_h5 *h)
{
    if (!h) return;
    close_hdf5(h);
    nsmi_draft_abort(h->draft);
    if (h->fd >= 0) close(h->fd);
    free(h->path);
    free(h->kind);
    free(h);
}

int nsmi_h5_commit(nsm_ctx *ctx, nsmi_h5 *h)
{
    if (!h) return nsm_error(ctx);
    if (!close_hdf5(h))
        nsm_error_set(ctx, NSM_EIO, "%s: cannot write: %s", h->path, strerror(errno));
    nsmi_draft_commit(ctx, h->draft, h->kind);
    h->draft = NULL;
    nsmi_h5_close(h);
    return nsm_error(ctx);
}

const char *nsmi_h5_path(const nsmi_h5 *h) { return h->path; }

/* ---- writing ---- */

static hid_t link_plist(void)
{
    hid_t p = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(p, 1);
    H5Pset_char_encoding(p, H5T_CSET_UTF8);
    return p;
}

/* Does something stand at path?  Every step must be a hard link to something here. */
static bool stands(nsmi_h5 *h, const char *path)
{
    char part[4 * NSMI_H5_MAX_NAME];
    if (strlen(path) >= sizeof part) return false;
    for (const char *end = path;; end++) {
        if (*end && *end != '/') continue;
        if (end > path) {
            H5L_info_t info;
            memcpy(part, path, (size_t)(end - path));
            part[end - path] = 0;
            if (H5Lexists(h->file, part, H5P_DEFAULT) <= 0) return false;
            if (H5Lget_info(h->file, part, &info, H5P_DEFAULT) < 0 || info.type != H5L_TYPE_HARD)
                return false;
        }
        if (!*end) return true;
    }
}

/* Make one group that tracks the order of what is put into it. */
static bool make_group(nsmi_h5 *h, const char *path)
{
    hid_t create = H5Pcreate(H5P_GROUP_CREATE);
    H5Pset_link_creation_order(create, H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED);
    H5Pset_obj_track_times(create, 0);
    hid_t group = H5Gcreate2(h->file, path, H5P_DEFAULT, create, H5P_DEFAULT);
    H5Pclose(create);
    return group >= 0 && H5Gclose(group) >= 0;
}

/* Make the groups that path runs through; with whole, the last step too. */
static int make_groups(nsmi_h5 *h, const char *path, bool whole)
{
    char part[4 * NSMI_H5_MAX_NAME];
    if (strlen(path) >= sizeof part) return fail(h, NSM_EINVAL, path, "is too long a path");
    for (const char *end = path;; end++) {
        if (*end && *end != '/') continue;
        if (end > path && (*end || whole)) {
            memcpy(part, path, (size_t)(end - path));
            part[end - path] = 0;
            if (!stands(h, part) && !make_group(h, part))
                return fail(h, NSM_EIO, part, "cannot be made");
        }
        if (!*end) return NSM_OK;
    }
}

int nsmi_h5_group(nsmi_h5 *h, const char *path)
{
    if (refused(h)) return code_of(h);
    guard g = enter();
    int e = make_groups(h, path, true);
    leave(g);
    return e;
}

/* Chunks are whole rows, of about CHUNK_BYTES; a longer row is cut along the next dimension. */
static void chunk_shape(int rank, const hsize_t *dim, size_t bytes, hsize_t *chunk)
{
    hsize_t rest = bytes;
    for (int i = rank - 1; i >= 0; i--) {
        hsize_t fits = rest >= CHUNK_BYTES ? 1 : CHUNK_BYTES / rest;
        chunk[i] = dim[i] < 1 ? 1 : dim[i] < fits ? dim[i] : fits;
        rest *= chunk[i];
    }
}

/* Make an array.  A scalar cannot be chunked: it is stored as [1].  An empty dimension has to be
 * declared unlimited: libhdf5 allows no chunk longer than its array. */
static hid_t make_array(nsmi_h5 *h, const char *path, hid_t file, int rank, const int64_t *dim)
{
    hsize_t size[NSM_MAX_RANK] = { 1 }, most[NSM_MAX_RANK] = { 1 }, chunk[NSM_MAX_RANK];
    if (make_groups(h, path, false)) return -1;
    for (int i = 0; i < rank; i++) {
        size[i] = (hsize_t)dim[i];
        most[i] = dim[i] ? (hsize_t)dim[i] : H5S_UNLIMITED;
    }
    if (rank == 0) rank = 1;
    chunk_shape(rank, size, H5Tget_size(file), chunk);
    hid_t create = H5Pcreate(H5P_DATASET_CREATE), links = link_plist(),
          space = H5Screate_simple(rank, size, most);
    H5Pset_chunk(create, rank, chunk);
    H5Pset_fletcher32(create);
    H5Pset_obj_track_times(create, 0);
    hid_t set = H5Dcreate2(h->file, path, file, space, links, create, H5P_DEFAULT);
    if (set < 0) fail(h, NSM_EIO, path, "cannot be made");
    H5Sclose(space);
    H5Pclose(links);
    H5Pclose(create);
    return set;
}

static int write_array(nsmi_h5 *h, const char *path, hid_t file, hid_t memory, int rank,
                       const int64_t *dim, const void *data)
{
    bool empty = false;
    for (int i = 0; i < rank; i++) empty |= !dim[i];
    hid_t set = make_array(h, path, file, rank, dim);
    if (set < 0) return nsm_error(h->ctx);
    if (!empty && H5Dwrite(set, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0)
        fail(h, NSM_EIO, path, "cannot be written");
    if (H5Dclose(set) < 0) fail(h, NSM_EIO, path, "cannot be written");
    return nsm_error(h->ctx);
}

static bool storable(nsm_type type, int rank, const int64_t *dim)
{
    bool ok = file_type(type) >= 0 && rank >= 0 && rank <= NSM_MAX_RANK;
    for (int i = 0; ok && i < rank; i++) ok = dim[i] >= 0;
    return ok;
}

int nsmi_h5_write(nsmi_h5 *h, const char *path, nsm_type type, int rank, const int64_t *dim,
                  const void *data)
{
    if (refused(h)) return code_of(h);
    guard g = enter();
    int e = storable(type, rank, dim)
                ? write_array(h, path, file_type(type), memory_type(type), rank, dim, data)
                : fail(h, NSM_EINVAL, path, "this type or shape cannot be stored");
    leave(g);
    return e;
}

static void write_slab(nsmi_h5 *h, const char *path, hid_t set, nsm_type type, int rank,
                       const int64_t *dim, int64_t first, int64_t rows, const void *data)
{
    hsize_t start[NSM_MAX_RANK] = { (hsize_t)first }, size[NSM_MAX_RANK];
    for (int i = 0; i < rank; i++) size[i] = (hsize_t)(i ? dim[i] : rows);
    hid_t memory = H5Screate_simple(rank, size, NULL), space = H5Dget_space(set);
    if (H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, size, NULL) < 0 ||
        H5Dwrite(set, memory_type(type), memory, space, H5P_DEFAULT, data) < 0)
        fail(h, NSM_EIO, path, "cannot be written");
    if (space >= 0) H5Sclose(space);
    if (memory >= 0) H5Sclose(memory);
}

int nsmi_h5_write_rows(nsmi_h5 *h, const char *path, nsm_type type, int rank, const int64_t *dim,
                       int64_t first, int64_t rows, const void *data)
{
    if (refused(h)) return code_of(h);
    guard g = enter();
    if (!storable(type, rank, dim) || rank < 1 || first < 0 || rows < 0 || first > dim[0] - rows) {
        fail(h, NSM_EINVAL, path, "this type, shape or range cannot be stored");
    } else {
        int64_t values = rows;
        for (int i = 1; i < rank; i++) values = values && dim[i] ? values * dim[i] : 0;
        hid_t set = first ? H5Dopen2(h->file, path, H5P_DEFAULT)
                          : make_array(h, path, file_type(type), rank, dim);
        if (set < 0) fail(h, NSM_EIO, path, "cannot be opened");
        if (set >= 0 && values) write_slab(h, path, set, type, rank, dim, first, rows, data);
        if (set >= 0 && H5Dclose(set) < 0) fail(h, NSM_EIO, path, "cannot be written");
    }
    leave(g);
    return nsm_error(h->ctx);
}

int nsmi_h5_write_strings(nsmi_h5 *h, const char *path, int64_t count, char *const *string)
{
    if (refused(h)) return code_of(h);
    size_t width = 1;
    for (int64_t i = 0; i < count; i++) {
        size_t n = strlen(string[i]);
        if (n > width) width = n;
    }
    char *all = nsmi_calloc(h->ctx, (size_t)count ? (size_t)count : 1, width);
    if (!all) return nsm_error(h->ctx);
    for (int64_t i = 0; i < count; i++)
        memcpy(all + (size_t)i * width, string[i], strlen(string[i]));
    guard g = enter();
    hid_t type = string_type(width);
    write_array(h, path, type, type, 1, &count, all);
    H5Tclose(type);
    leave(g);
    free(all);
    return nsm_error(h->ctx);
}

int nsmi_h5_write_text(nsmi_h5 *h, const char *path, const char *text)
{
    return nsmi_h5_write_strings(h, path, 1, &(char *){ (char *)text });
}

static int put(nsmi_h5 *h, const char *path, const char *name, hid_t file, hid_t memory,
               const void *value)
{
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t a = H5Acreate_by_name(h->file, or_root(path), name, file, space, H5P_DEFAULT, H5P_DEFAULT,
                                H5P_DEFAULT);
    if (a < 0 || H5Awrite(a, memory, value) < 0)
        fail(h, NSM_EIO, path, "attribute %.64s cannot be written", name);
    if (a >= 0) H5Aclose(a);
    H5Sclose(space);
    return nsm_error(h->ctx);
}

static int put_number(nsmi_h5 *h, const char *path, const char *name, bool real, const void *value)
{
    if (refused(h)) return code_of(h);
    guard g = enter();
    if (real) put(h, path, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, value);
    else put(h, path, name, H5T_STD_I64LE, H5T_NATIVE_INT64, value);
    leave(g);
    return nsm_error(h->ctx);
}

int nsmi_h5_put_int(nsmi_h5 *h, const char *path, const char *name, int64_t value)
{
    return put_number(h, path, name, false, &value);
}

int nsmi_h5_put_float(nsmi_h5 *h, const char *path, const char *name, double value)
{
    return put_number(h, path, name, true, &value);
}

int nsmi_h5_put_text(nsmi_h5 *h, const char *path, const char *name, const char *text)
{
    if (refused(h)) return code_of(h);
    size_t bytes = strlen(text);
    guard g = enter();
    hid_t type = string_type(bytes ? bytes : 1);
    if (bytes > NSMI_H5_MAX_TEXT)
        fail(h, NSM_EINVAL, path, "attribute %.64s is too long: %zu bytes", name, bytes);
    else put(h, path, name, type, type, text);
    H5Tclose(type);
    leave(g);
    return nsm_error(h->ctx);
}

/* ---- looking ---- */

bool nsmi_h5_has(nsmi_h5 *h, const char *path)
{
    if (refused(h)) return false;
    guard g = enter();
    bool yes = stands(h, path);
    leave(g);
    return yes;
}

static bool is_group(nsmi_h5 *h, const char *path)
{
    if (!stands(h, path)) return false;
    hid_t object = H5Oopen(h->file, or_root(path), H5P_DEFAULT);
    bool yes = object >= 0 && H5Iget_type(object) == H5I_GROUP;
    if (object >= 0) H5Oclose(object);
    return yes;
}

bool nsmi_h5_is_group(nsmi_h5 *h, const char *path)
{
    if (refused(h)) return false;
    guard g = enter();
    bool yes = is_group(h, path);
    leave(g);
    return yes;
}

bool nsmi_h5_has_attribute(nsmi_h5 *h, const char *path, const char *name)
{
    if (refused(h)) return false;
    guard g = enter();
    bool yes = stands(h, path) && H5Aexists_by_name(h->file, or_root(path), name, H5P_DEFAULT) > 0;
    leave(g);
    return yes;
}

typedef struct {
    nsmi_h5 *h;
    char **name;
    int64_t count, room;
} listing;

static herr_t list_one(hid_t group, const char *name, const H5L_info_t *info, void *user)
{
    listing *l = user;
    (void)group;
    if (info->type != H5L_TYPE_HARD)
        return fail(l->h, NSM_EFORMAT, name, "is a link that leads elsewhere"), -1;
    if (l->count == MAX_LINKS)
        return fail(l->h, NSM_EFORMAT, name, "stands in a group of too many"), -1;
    if (l->count == l->room) {
        int64_t room = l->room ? l->room * 2 : 16;
        char **more = nsmi_realloc(l->h->ctx, l->name, (size_t)room, sizeof *more);
        if (!more) return -1;
        l->name = more;
        l->room = room;
    }
    l->name[l->count] = nsmi_strdup(l->h->ctx, name);
    return l->name[l->count++] ? 0 : -1;
}

/* In the order of making where the group knows it (ours do), else by name. */
static H5_index_t order_of(hid_t group)
{
    unsigned order = 0;
    hid_t create = H5Gget_create_plist(group);
    if (create >= 0) {
        H5Pget_link_creation_order(create, &order);
        H5Pclose(create);
    }
    return order & H5P_CRT_ORDER_INDEXED ? H5_INDEX_CRT_ORDER : H5_INDEX_NAME;
}

char **nsmi_h5_list(nsmi_h5 *h, const char *path, int64_t *count)
{
    *count = 0;
    if (refused(h)) return NULL;
    listing l = { .h = h };
    guard g = enter();
    hid_t group = is_group(h, path) ? H5Gopen2(h->file, or_root(path), H5P_DEFAULT) : -1;
    if (group < 0) fail(h, NSM_EFORMAT, path, "is not there, or not a group");
    else {
        if (H5Literate(group, order_of(group), H5_ITER_INC, NULL, list_one, &l) < 0)
            fail(h, NSM_EFORMAT, path, "cannot be listed");
        H5Gclose(group);
    }
    leave(g);
    if (nsmi_failed(h->ctx)) {
        nsmi_h5_free_strings(l.name, l.count);
        return NULL;
    }
    *count = l.count;
    return l.name ? l.name : nsmi_calloc(h->ctx, 1, sizeof *l.name);
}

void nsmi_h5_free_strings(char **string, int64_t count)
{
    for (int64_t i = 0; string && i < count; i++) free(string[i]);
    free(string);
}

/* ---- reading arrays ---- */

/* An open array and what it is. */
typedef struct {
    hid_t set, space, type;
    int kind, rank; /* kind: nsm_type, -1 strings */
    int64_t dim[NSM_MAX_RANK], count;
    size_t bytes;   /* of one value */
} array;

static void close_array(array *a)
{
    if (a->type >= 0) H5Tclose(a->type);
    if (a->space >= 0) H5Sclose(a->space);
    if (a->set >= 0) H5Dclose(a->set);
}

/* The bytes stored must be those of the shape: no filter but the known, nothing kept elsewhere. */
static int check_storage(nsmi_h5 *h, const char *path, const array *a)
{
    hid_t create = H5Dget_create_plist(a->set);
    int64_t ratio = 1, need = 0;
    bool ok = create >= 0 && H5Pget_external_count(create) == 0;
    H5D_layout_t layout = ok ? H5Pget_layout(create) : H5D_LAYOUT_ERROR;
    ok = ok && (layout == H5D_CHUNKED ||
                (h->foreign && (layout == H5D_CONTIGUOUS || layout == H5D_COMPACT)));
    int filters = ok ? H5Pget_nfilters(create) : 0;
    for (int i = 0; ok && i < filters; i++) {
        unsigned flags, config, values[8];
        size_t n = 8;
        H5Z_filter_t f = H5Pget_filter2(create, (unsigned)i, &flags, &n, values, 0, NULL, &config);
        if (f == H5Z_FILTER_DEFLATE) ratio = DEFLATE_RATIO;
        ok = f == H5Z_FILTER_FLETCHER32 ||
             (h->foreign && (f == H5Z_FILTER_DEFLATE || f == H5Z_FILTER_SHUFFLE));
    }
    if (create >= 0) H5Pclose(create);
    if (!ok) return fail(h, NSM_EFORMAT, path, "is stored in a way that is not allowed");
    int64_t stored = (int64_t)H5Dget_storage_size(a->set);
    if (!nsmi_mul(a->count, (int64_t)a->bytes, &need) || need / ratio > stored)
        return fail(h, NSM_EFORMAT, path, "has a shape for more bytes than the %lld it holds",
                    (long long)stored);
    return NSM_OK;
}

static int open_array(nsmi_h5 *h, const char *path, array *a)
{
    *a = (array){ .set = -1, .space = -1, .type = -1 };
    if (!stands(h, path)) return fail(h, NSM_EFORMAT, path, "is not there");
    a->set = H5Dopen2(h->file, path, H5P_DEFAULT);
    if (a->set < 0) return fail(h, NSM_EFORMAT, path, "is not an array");
    a->space = H5Dget_space(a->set);
    a->type = H5Dget_type(a->set);
    if (a->space < 0 || a->type < 0) return fail(h, NSM_EFORMAT, path, "cannot be read");
    a->kind = known_type(a->type);
    if (a->kind == -2)
        return fail(h, NSM_EFORMAT, path,
                    "is of a type that is none of float32, int32, int64, uint8, fixed string");
    hsize_t dim[H5S_MAX_RANK];
    a->rank = H5Sget_simple_extent_ndims(a->space);
    if (a->rank < 1 || a->rank > NSM_MAX_RANK || H5Sget_simple_extent_dims(a->space, dim, NULL) < 0)
        return fail(h, NSM_EFORMAT, path, "has %d dimensions", a->rank);
    a->count = 1;
    a->bytes = H5Tget_size(a->type);
    for (int i = 0; i < a->rank; i++) {
        a->dim[i] = (int64_t)dim[i];
        if (dim[i] > INT64_MAX || !nsmi_mul(a->count, a->dim[i], &a->count))
            return fail(h, NSM_EFORMAT, path, "is too large");
    }
    return check_storage(h, path, a);
}

int nsmi_h5_shape(nsmi_h5 *h, const char *path, int *type, int *rank, int64_t dim[NSM_MAX_RANK])
{
    if (refused(h)) return code_of(h);
    array a;
    guard g = enter();
    if (open_array(h, path, &a) == NSM_OK) {
        *type = a.kind;
        *rank = a.rank;
        for (int i = 0; i < NSM_MAX_RANK; i++) dim[i] = i < a.rank ? a.dim[i] : 1;
    }
    close_array(&a);
    leave(g);
    return nsm_error(h->ctx);
}

/* A scalar of the caller's (rank 0) stands in the file as [1]. */
static int check_shape(nsmi_h5 *h, const char *path, const array *a, int type, int rank,
                       const int64_t *dim)
{
    static const int64_t one = 1;
    if (rank == 0) { rank = 1; dim = &one; }
    if (a->kind != type)
        return fail(h, NSM_EFORMAT, path, "is %s, want %s", type_word(a->kind), type_word(type));
    if (a->rank != rank)
        return fail(h, NSM_EFORMAT, path, "has %d dimensions, want %d", a->rank, rank);
    for (int i = 0; i < rank; i++)
        if (dim[i] >= 0 && dim[i] != a->dim[i])
            return fail(h, NSM_EFORMAT, path, "dimension %d is %lld, want %lld", i,
                        (long long)a->dim[i], (long long)dim[i]);
    return NSM_OK;
}

void *nsmi_h5_read(nsmi_h5 *h, const char *path, nsm_type type, int rank, int64_t *dim)
{
    if (refused(h)) return NULL;
    array a;
    void *out = NULL;
    guard g = enter();
    if (!open_array(h, path, &a) && !check_shape(h, path, &a, type, rank, dim))
        out = nsmi_malloc(h->ctx, (size_t)a.count * a.bytes);
    if (out && a.count && H5Dread(a.set, memory_type(type), H5S_ALL, H5S_ALL, H5P_DEFAULT, out) < 0)
        fail(h, NSM_EFORMAT, path, "cannot be read");
    for (int i = 0; i < rank && !nsmi_failed(h->ctx); i++) dim[i] = a.dim[i];
    close_array(&a);
    leave(g);
    if (!nsmi_failed(h->ctx)) return out;
    free(out);
    return NULL;
}

int nsmi_h5_read_into(nsmi_h5 *h, const char *path, nsm_type type, int rank, const int64_t *dim,
                      void *out)
{
    if (refused(h)) return code_of(h);
    array a;
    guard g = enter();
    if (!open_array(h, path, &a) && !check_shape(h, path, &a, type, rank, dim) && a.count &&
        H5Dread(a.set, memory_type(type), H5S_ALL, H5S_ALL, H5P_DEFAULT, out) < 0)
        fail(h, NSM_EFORMAT, path, "cannot be read");
    close_array(&a);
    leave(g);
    return nsm_error(h->ctx);
}

static void read_slab(nsmi_h5 *h, const char *path, const array *a, hid_t memory, int64_t first,
                      int64_t rows, void *out)
{
    hsize_t start[NSM_MAX_RANK] = { (hsize_t)first }, size[NSM_MAX_RANK];
    for (int i = 0; i < a->rank; i++) size[i] = (hsize_t)(i ? a->dim[i] : rows);
    hid_t space = H5Screate_simple(a->rank, size, NULL);
    if (H5Sselect_hyperslab(a->space, H5S_SELECT_SET, start, NULL, size, NULL) < 0 ||
        H5Dread(a->set, memory, space, a->space, H5P_DEFAULT, out) < 0)
        fail(h, NSM_EFORMAT, path, "cannot be read");
    if (space >= 0) H5Sclose(space);
}

int nsmi_h5_read_rows(nsmi_h5 *h, const char *path, nsm_type type, int rank, int64_t *dim,
                      int64_t first, int64_t rows, void *out)
{
    if (refused(h)) return code_of(h);
    array a;
    guard g = enter();
    if (!open_array(h, path, &a) && !check_shape(h, path, &a, type, rank, dim)) {
        if (first < 0 || rows < 0 || first > a.dim[0] - rows)
            fail(h, NSM_EINVAL, path, "rows %lld and %lld more of %lld", (long long)first,
                 (long long)rows, (long long)a.dim[0]);
        else if (rows && a.count)
            read_slab(h, path, &a, memory_type(type), first, rows, out);
        for (int i = 0; i < rank; i++) dim[i] = a.dim[i];
    }
    close_array(&a);
    leave(g);
    return nsm_error(h->ctx);
}

/* ---- reading strings ---- */

/* Cut a block of fixed-width texts into strings of their own. */
static char **cut_strings(nsm_ctx *ctx, const char *all, int64_t count, size_t width)
{
    char **string = nsmi_calloc(ctx, count ? (size_t)count : 1, sizeof *string);
    for (int64_t i = 0; string && i < count; i++) {
        size_t n = strnlen(all + (size_t)i * width, width);
        string[i] = nsmi_malloc(ctx, n + 1);
        if (!string[i]) {
            nsmi_h5_free_strings(string, i);
            return NULL;
        }
        memcpy(string[i], all + (size_t)i * width, n);
        string[i][n] = 0;
    }
    return string;
}

char **nsmi_h5_read_strings(nsmi_h5 *h, const char *path, int64_t *count)
{
    if (refused(h)) return NULL;
    array a;
    char *all = NULL, **string = NULL;
    guard g = enter();
    if (!open_array(h, path, &a) && !check_shape(h, path, &a, -1, 1, count))
        all = nsmi_malloc(h->ctx, (size_t)a.count * a.bytes);
    if (all && a.count && H5Dread(a.set, a.type, H5S_ALL, H5S_ALL, H5P_DEFAULT, all) < 0)
        fail(h, NSM_EFORMAT, path, "cannot be read");
    close_array(&a);
    leave(g);
    if (all && !nsmi_failed(h->ctx)) string = cut_strings(h->ctx, all, a.count, a.bytes);
    if (string) *count = a.count;
    free(all);
    return string;
}

char *nsmi_h5_read_text(nsmi_h5 *h, const char *path)
{
    int64_t one = 1;
    char **string = nsmi_h5_read_strings(h, path, &one);
    char *text = string ? string[0] : NULL;
    free(string);
    return text;
}

/* ---- reading attributes ---- */

/* Open a scalar attribute of a class; -1 with an error.  *bytes: its size. */
static hid_t open_attribute(nsmi_h5 *h, const char *path, const char *name, H5T_class_t class,
                            const char *word, hid_t *type)
{
    hid_t a = -1, space = -1;
    *type = -1;
    if (stands(h, path) && H5Aexists_by_name(h->file, or_root(path), name, H5P_DEFAULT) > 0)
        a = H5Aopen_by_name(h->file, or_root(path), name, H5P_DEFAULT, H5P_DEFAULT);
    if (a < 0) {
        fail(h, NSM_EFORMAT, path, "attribute %.64s is not there", name);
        return -1;
    }
    space = H5Aget_space(a);
    *type = H5Aget_type(a);
    if (space < 0 || *type < 0 || H5Sget_simple_extent_npoints(space) != 1 ||
        H5Tget_class(*type) != class || H5Tget_size(*type) > 2 * NSMI_H5_MAX_TEXT ||
        (class == H5T_STRING && H5Tis_variable_str(*type) != 0))
        fail(h, NSM_EFORMAT, path, "attribute %.64s is not %s", name, word);
    if (space >= 0) H5Sclose(space);
    if (!nsmi_failed(h->ctx)) return a;
    if (*type >= 0) H5Tclose(*type);
    H5Aclose(a);
    return -1;
}

/* A number, as int64_t or double; false with an error. */
static bool get_number(nsmi_h5 *h, const char *path, const char *name, bool real, void *value)
{
    hid_t type;
    hid_t a = open_attribute(h, path, name, real ? H5T_FLOAT : H5T_INTEGER,
                             real ? "a real number" : "an integer", &type);
    if (a < 0) return false;
    if (H5Aread(a, real ? H5T_NATIVE_DOUBLE : H5T_NATIVE_INT64, value) < 0)
        fail(h, NSM_EFORMAT, path, "attribute %.64s cannot be read", name);
    H5Tclose(type);
    H5Aclose(a);
    return !nsmi_failed(h->ctx);
}

int nsmi_h5_get_int(nsmi_h5 *h, const char *path, const char *name, int64_t low, int64_t high,
                    int64_t *value)
{
    int64_t v = 0;
    if (refused(h)) return code_of(h);
    guard g = enter();
    bool read = get_number(h, path, name, false, &v);
    if (read && (v < low || v > high))
        fail(h, NSM_EFORMAT, path, "attribute %.64s is %lld, outside %lld..%lld", name,
             (long long)v, (long long)low, (long long)high);
    else if (read) *value = v;
    leave(g);
    return nsm_error(h->ctx);
}

int nsmi_h5_get_float(nsmi_h5 *h, const char *path, const char *name, double *value)
{
    double v = 0;
    if (refused(h)) return code_of(h);
    guard g = enter();
    bool read = get_number(h, path, name, true, &v);
    if (read && !isfinite(v)) fail(h, NSM_ENUMBER, path, "attribute %.64s is not finite", name);
    else if (read) *value = v;
    leave(g);
    return nsm_error(h->ctx);
}

char *nsmi_h5_get_text(nsmi_h5 *h, const char *path, const char *name)
{
    if (refused(h)) return NULL;
    hid_t type;
    char *text = NULL;
    guard g = enter();
    hid_t a = open_attribute(h, path, name, H5T_STRING, "a text of fixed length", &type);
    if (a >= 0) {
        text = nsmi_calloc(h->ctx, 1, H5Tget_size(type) + 1);
        if (text && H5Aread(a, type, text) < 0)
            fail(h, NSM_EFORMAT, path, "attribute %.64s cannot be read", name);
        H5Tclose(type);
        H5Aclose(a);
    }
    leave(g);
    if (!nsmi_failed(h->ctx)) return text;
    free(text);
    return NULL;
}

/* ---- rows without libhdf5 ---- */

/* Does chunk k stand at this place of the file?  raw: what libhdf5 read of it. */
static bool chunk_at(int fd, const void *raw, void *block, size_t bytes, int64_t at)
{
    return pread(fd, block, bytes, at) == (ssize_t)bytes && !memcmp(raw, block, bytes);
}

/* Versions of libhdf5 differ in whether a chunk's address counts the seal.  Compare the bytes: the
 * first chunk that stands in one of the two places only decides (if none does, either is right). */
static int find_base(nsmi_h5 *h, const char *path, hid_t set, const nsmi_h5_rows *r, size_t bytes,
                     int64_t *base)
{
    char *raw = nsmi_malloc(h->ctx, 2 * bytes), *block = raw ? raw + bytes : NULL;
    bool decided = false;
    for (int64_t k = 0; raw && k < r->chunks && !decided && !nsmi_failed(h->ctx); k++) {
        hsize_t start[2] = { (hsize_t)(k * r->rows_per_chunk), 0 };
        uint32_t mask = 0;
        if (H5Dread_chunk(set, H5P_DEFAULT, start, &mask, raw) < 0)
            fail(h, NSM_EFORMAT, path, "cannot be read");
        bool plain = chunk_at(h->fd, raw, block, bytes, r->offset[k]);
        bool moved = chunk_at(h->fd, raw, block, bytes, r->offset[k] + NSMI_SEAL_BYTES);
        if (!plain && !moved)
            fail(h, NSM_EFORMAT, path, "chunk %lld is not where it should be", (long long)k);
        decided = plain != moved;
        *base = moved && !plain ? NSMI_SEAL_BYTES : 0;
    }
    free(raw);
    return nsm_error(h->ctx);
}

static int map_rows(nsmi_h5 *h, const char *path, const array *a, nsmi_h5_rows *r)
{
    hsize_t chunk[2] = { 0 };
    int64_t base = 0;
    hid_t create = H5Dget_create_plist(a->set);
    bool ok = create >= 0 && !h->foreign && H5Pget_chunk(create, 2, chunk) == 2 && chunk[0] > 0 &&
              (int64_t)chunk[1] == a->dim[1] && H5Pget_nfilters(create) == 1;
    if (create >= 0) H5Pclose(create);
    if (!ok) return fail(h, NSM_EFORMAT, path, "is not stored in whole rows");
    r->fd = h->fd;
    r->rows = a->dim[0];
    r->row_bytes = a->dim[1] * (int64_t)sizeof(float);
    r->rows_per_chunk = (int64_t)chunk[0];
    r->chunks = (r->rows + r->rows_per_chunk - 1) / r->rows_per_chunk;
    r->offset = nsmi_malloc(h->ctx, (size_t)r->chunks * sizeof *r->offset);
    size_t bytes = (size_t)(r->rows_per_chunk * r->row_bytes) + 4; /* the Fletcher-32 sum follows */
    for (int64_t k = 0; r->offset && k < r->chunks; k++) {
        hsize_t start[2] = { (hsize_t)(k * r->rows_per_chunk), 0 }, size = 0;
        unsigned mask = 0;
        haddr_t at = HADDR_UNDEF;
        if (H5Dget_chunk_info_by_coord(a->set, start, &mask, &at, &size) < 0 || at == HADDR_UNDEF ||
            size != bytes)
            return fail(h, NSM_EFORMAT, path, "chunk %lld is not there", (long long)k);
        r->offset[k] = (int64_t)at;
    }
    if (nsmi_failed(h->ctx) || find_base(h, path, a->set, r, bytes, &base))
        return nsm_error(h->ctx);
    for (int64_t k = 0; k < r->chunks; k++) r->offset[k] += base;
    return NSM_OK;
}

int nsmi_h5_map_rows(nsmi_h5 *h, const char *path, nsmi_h5_rows *rows)
{
    *rows = (nsmi_h5_rows){ .fd = -1 };
    if (refused(h)) return code_of(h);
    array a;
    guard g = enter();
    int64_t any[2] = { -1, -1 };
    if (!open_array(h, path, &a) && !check_shape(h, path, &a, NSM_F32, 2, any))
        map_rows(h, path, &a, rows);
    close_array(&a);
    leave(g);
    if (nsmi_failed(h->ctx)) {
        free(rows->offset);
        rows->offset = NULL;
    }
    return nsm_error(h->ctx);
}
