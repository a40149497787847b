/* base/safetensors.c - Safetensors: the header is jansson's, the offsets are ours to check. */
#include "config.h"
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/internal.h"
#include "base/safetensors.h"
#include "base/seal.h"

enum { MOST_HEADER = 100000000, MOST_SHARDS = 10000, BUFFER = 1 << 16, NAME_BYTES = 512 };

typedef enum { F64, F32, F16, BF16, I64, I32, I16, I8, U64, U32, U16, U8, BOOL, DTYPES } dtype;
typedef struct { const char *name; size_t bytes; } dtype_row;
static const dtype_row dtypes[DTYPES] = {
    [F64] = { "F64", 8 },   [F32] = { "F32", 4 }, [F16] = { "F16", 2 }, [BF16] = { "BF16", 2 },
    [I64] = { "I64", 8 },   [I32] = { "I32", 4 }, [I16] = { "I16", 2 }, [I8] = { "I8", 1 },
    [U64] = { "U64", 8 },   [U32] = { "U32", 4 }, [U16] = { "U16", 2 }, [U8] = { "U8", 1 },
    [BOOL] = { "BOOL", 1 },
};
static const dtype dtype_of[] = { [NSM_F32] = F32, [NSM_BF16] = BF16, [NSM_F16] = F16,
                                  [NSM_I32] = I32, [NSM_I64] = I64,   [NSM_U8] = U8,
                                  [NSM_F64] = F64 };

typedef struct {
    nsm_safetensors_entry about; /* first: entries are handed out by this */
    dtype type;
    int shard;
    int64_t begin;               /* in its file */
} entry;

typedef struct {
    char *path;
    int fd;
    json_t *header;              /* owns the names */
} shard;

struct nsm_safetensors {
    nsm_ctx *ctx;
    shard *shard;
    int shards;
    entry *entry;
    int64_t entries;
};

/* ---- bytes ---- */

static bool read_at(int fd, int64_t at, void *out, size_t bytes)
{
    for (char *to = out; bytes;) {
        ssize_t got = pread(fd, to, bytes, (off_t)at);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        to += got;
        at += got;
        bytes -= (size_t)got;
    }
    return true;
}

static bool write_all(int fd, const void *data, size_t bytes)
{
    for (const char *from = data; bytes;) {
        ssize_t put = write(fd, from, bytes);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return false;
        from += put;
        bytes -= (size_t)put;
    }
    return true;
}

/* Between the file's byte order and this machine's. */
static void little(void *data, int64_t count, size_t bytes)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    unsigned char *p = data;
    for (int64_t i = 0; i < count; i++, p += bytes)
        for (size_t a = 0, b = bytes - 1; a < b; a++, b--) {
            unsigned char c = p[a];
            p[a] = p[b];
            p[b] = c;
        }
#else
    (void)data;
    (void)count;
    (void)bytes;
#endif
}

/* IEEE half precision; every value is exact in float32. */
static float from_half(uint16_t h)
{
    int exponent = h >> 10 & 31, mantissa = h & 1023;
    float x = exponent == 0    ? ldexpf((float)mantissa, -24)
              : exponent == 31 ? (mantissa ? NAN : INFINITY)
                               : ldexpf((float)(mantissa + 1024), exponent - 25);
    return h >> 15 ? -x : x;
}

static float from_brain(uint16_t h)
{
    uint32_t bits = (uint32_t)h << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

#define CONVERT(type, expression)                           \
    for (int64_t i = 0; i < n; i++) {                       \
        type v;                                             \
        memcpy(&v, (const char *)raw + i * sizeof v, sizeof v); \
        out[i] = (float)(expression);                       \
    }                                                       \
    break;

static void to_floats(dtype type, int64_t n, const void *raw, float *out)
{
    switch (type) {
    case F64: CONVERT(double, v)
    case F32: memcpy(out, raw, (size_t)n * sizeof *out); break;
    case F16: CONVERT(uint16_t, from_half(v))
    case BF16: CONVERT(uint16_t, from_brain(v))
    case I64: CONVERT(int64_t, v)
    case I32: CONVERT(int32_t, v)
    case I16: CONVERT(int16_t, v)
    case I8: CONVERT(int8_t, v)
    case U64: CONVERT(uint64_t, v)
    case U32: CONVERT(uint32_t, v)
    case U16: CONVERT(uint16_t, v)
    case BOOL: CONVERT(uint8_t, v != 0)
    default: CONVERT(uint8_t, v)
    }
}

/* ---- the header ---- */

static int bad(nsm_safetensors *s, const char *path, const char *name, const char *what)
{
    return nsm_error_set(s->ctx, NSM_EFORMAT, "%s: %s%.200s%s%s", path, name ? "tensor " : "",
                         name ? name : "", name ? ": " : "", what);
}

static bool whole(const json_t *v, int64_t *x)
{
    *x = json_is_integer(v) ? json_integer_value(v) : -1;
    return *x >= 0;
}

static int read_entry(nsm_safetensors *s, const char *path, const char *name, json_t *about,
                      int64_t room, entry *e)
{
    json_t *shape = json_object_get(about, "shape"),
           *offsets = json_object_get(about, "data_offsets"), *size;
    const char *type = json_string_value(json_object_get(about, "dtype"));
    int64_t begin, end;
    size_t i;
    if (json_object_size(about) != 3 || !type || !json_is_array(shape) ||
        json_array_size(offsets) != 2)
        return bad(s, path, name, "dtype, shape and data_offsets are wanted, and no more");
    while (e->type < DTYPES && strcmp(dtypes[e->type].name, type)) e->type++;
    if (e->type == DTYPES)
        return nsm_error_set(s->ctx, NSM_EFORMAT, "%s: tensor %.200s: type %.16s is not supported",
                             path, name, type);
    if (json_array_size(shape) > NSM_SAFETENSORS_RANK)
        return bad(s, path, name, "it has more than 8 dimensions");
    e->about = (nsm_safetensors_entry){
        .name = name, .dtype = dtypes[e->type].name, .rank = (int)json_array_size(shape), .count = 1
    };
    json_array_foreach(shape, i, size)
        if (!whole(size, &e->about.dim[i]) ||
            !nsmi_mul(e->about.count, e->about.dim[i], &e->about.count))
            return bad(s, path, name, "its shape is negative, not whole, or too large");
    if (!whole(json_array_get(offsets, 0), &begin) || !whole(json_array_get(offsets, 1), &end) ||
        begin > end || end > room)
        return bad(s, path, name, "its offsets are not within the file");
    if (!nsmi_mul(e->about.count, (int64_t)dtypes[e->type].bytes, &e->about.bytes) ||
        e->about.bytes != end - begin)
        return nsm_error_set(
            s->ctx, NSM_EFORMAT,
            "%s: tensor %.200s: its offsets hold %lld bytes, its shape and type want %lld", path,
            name, (long long)(end - begin), (long long)e->about.bytes);
    e->begin = begin;
    return NSM_OK;
}

static int by_place(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return (x->about.bytes > y->about.bytes) - (x->about.bytes < y->about.bytes);
}

/* Do the entries [from, entries) cover the data of their file, each byte once? */
static int check_cover(nsm_safetensors *s, const char *path, int64_t from, int64_t room)
{
    int64_t at = 0;
    qsort(s->entry + from, (size_t)(s->entries - from), sizeof *s->entry, by_place);
    for (int64_t i = from; i < s->entries; i++) {
        const entry *e = &s->entry[i];
        if (e->begin != at)
            return bad(s, path, e->about.name,
                       e->begin < at ? "it overlaps another" : "there is a gap before it");
        at += e->about.bytes;
    }
    return at == room ? NSM_OK
                      : nsm_error_set(s->ctx, NSM_EFORMAT,
                                      "%s: the tensors hold %lld bytes, the file %lld", path,
                                      (long long)at, (long long)room);
}

static int check_metadata(nsm_safetensors *s, const char *path, json_t *metadata)
{
    const char *key;
    json_t *value;
    if (!json_is_object(metadata)) return bad(s, path, NULL, "__metadata__ is no object");
    json_object_foreach(metadata, key, value)
        if (!json_is_string(value))
            return bad(s, path, NULL, "__metadata__ holds something that is no string");
    return NSM_OK;
}

static int read_entries(nsm_safetensors *s, int k, int64_t data, int64_t room)
{
    const char *path = s->shard[k].path, *name;
    json_t *about;
    int64_t from = s->entries;
    entry *more = nsmi_realloc(s->ctx, s->entry,
                               (size_t)from + json_object_size(s->shard[k].header), sizeof *more);
    if (!more) return nsm_error(s->ctx);
    s->entry = more;
    json_object_foreach(s->shard[k].header, name, about) {
        if (!strcmp(name, "__metadata__")) {
            if (check_metadata(s, path, about)) return nsm_error(s->ctx);
            continue;
        }
        entry *e = &s->entry[s->entries];
        *e = (entry){ .shard = k };
        if (read_entry(s, path, name, about, room, e)) return nsm_error(s->ctx);
        s->entries++;
    }
    if (check_cover(s, path, from, room)) return nsm_error(s->ctx);
    for (int64_t i = from; i < s->entries; i++) s->entry[i].begin += data;
    return NSM_OK;
}

/* The JSON of a file whose header has n bytes. */
static json_t *parse(nsm_safetensors *s, const char *path, int fd, int64_t at, int64_t n)
{
    json_error_t why;
    char *text = nsmi_malloc(s->ctx, (size_t)n);
    json_t *json = NULL;
    if (text && !read_at(fd, at, text, (size_t)n))
        nsm_error_set(s->ctx, NSM_EIO, "%s: it cannot be read: %s", path, strerror(errno));
    else if (text) {
        json = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, &why);
        if (!json)
            nsm_error_set(s->ctx, NSM_EFORMAT, "%s: the header is not JSON: %s", path, why.text);
        else if (!json_is_object(json)) {
            bad(s, path, NULL, "the header is no JSON object");
            json_decref(json);
            json = NULL;
        }
    }
    free(text);
    return json;
}

/* Open a regular file; its size, or -1. */
static int64_t open_file(nsm_safetensors *s, const char *path, int *fd)
{
    struct stat about;
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    if (*fd < 0 || fstat(*fd, &about)) {
        nsm_error_set(s->ctx, NSM_EIO, "%s: it cannot be opened: %s", path, strerror(errno));
        return -1;
    }
    if (S_ISREG(about.st_mode)) return about.st_size;
    bad(s, path, NULL, "it is not a regular file");
    return -1;
}

/* Takes path over. */
static int add_shard(nsm_safetensors *s, char *path)
{
    unsigned char head[8];
    uint64_t n = 0;
    if (!path) return nsm_error(s->ctx);
    shard *more = nsmi_realloc(s->ctx, s->shard, (size_t)s->shards + 1, sizeof *more);
    if (!more) {
        free(path);
        return nsm_error(s->ctx);
    }
    s->shard = more;
    shard *k = &s->shard[s->shards++];
    *k = (shard){ .path = path, .fd = -1 };
    int64_t size = open_file(s, path, &k->fd);
    if (size < 0) return nsm_error(s->ctx);
    if (size < 8 || !read_at(k->fd, 0, head, 8))
        return bad(s, path, NULL, "it is shorter than a header");
    for (int i = 7; i >= 0; i--) n = n << 8 | head[i];
    if (n > MOST_HEADER || n < 2 || n > (uint64_t)size - 8)
        return nsm_error_set(s->ctx, NSM_EFORMAT,
                             "%s: the header has %llu bytes, the file %lld; at most %d are allowed",
                             path, (unsigned long long)n, (long long)size, MOST_HEADER);
    k->header = parse(s, path, k->fd, 8, (int64_t)n);
    return k->header ? read_entries(s, s->shards - 1, 8 + (int64_t)n, size - 8 - (int64_t)n)
                     : nsm_error(s->ctx);
}

/* ---- several files ---- */

static int find_shard(const nsm_safetensors *s, const char *path)
{
    for (int i = 0; i < s->shards; i++)
        if (!strcmp(s->shard[i].path, path)) return i;
    return -1;
}

/* The index says which file has which tensor; a file name with a / would lead out of the folder. */
static int add_shards(nsm_safetensors *s, const char *index, json_t *map)
{
    const char *name, *slash = strrchr(index, '/');
    int folder = slash ? (int)(slash - index) + 1 : 0;
    json_t *file;
    json_object_foreach(map, name, file) {
        const char *base = json_string_value(file);
        if (!base || strchr(base, '/') || !*base || s->shards == MOST_SHARDS)
            return bad(s, index, name,
                       "its file is no plain file name, or there are too many files");
        char *path = nsmi_format(s->ctx, "%.*s%s", folder, index, base);
        if (path && find_shard(s, path) >= 0) free(path);
        else if (add_shard(s, path)) return nsm_error(s->ctx);
    }
    return NSM_OK;
}

static int by_name(const void *a, const void *b)
{ return strcmp(((const entry *)a)->about.name, ((const entry *)b)->about.name); }

static int sort_entries(nsm_safetensors *s)
{
    if (s->entries) qsort(s->entry, (size_t)s->entries, sizeof *s->entry, by_name);
    for (int64_t i = 1; i < s->entries; i++)
        if (!by_name(&s->entry[i - 1], &s->entry[i]))
            return bad(s, s->shard[s->entry[i].shard].path, s->entry[i].about.name,
                       "another file of the index has it too");
    return NSM_OK;
}

static int check_index(nsm_safetensors *s, const char *index, json_t *map)
{
    const char *name;
    json_t *file;
    if ((int64_t)json_object_size(map) != s->entries)
        return nsm_error_set(s->ctx, NSM_EFORMAT, "%s: it names %zu tensors, its files hold %lld",
                             index, json_object_size(map), (long long)s->entries);
    json_object_foreach(map, name, file) {
        const entry *e = (const entry *)nsm_safetensors_find(s, name);
        const char *path = e ? s->shard[e->shard].path : "", *slash = strrchr(path, '/');
        if (!e || strcmp(slash ? slash + 1 : path, json_string_value(file)))
            return bad(s, index, name, "it is not in the file that the index names");
    }
    return NSM_OK;
}

static int open_index(nsm_safetensors *s, const char *path)
{
    int fd = -1;
    int64_t size = open_file(s, path, &fd);
    json_t *json = NULL;
    if (size > MOST_HEADER) bad(s, path, NULL, "an index of more than 100 MB");
    else if (size >= 0) json = parse(s, path, fd, 0, size);
    if (fd >= 0) close(fd);
    json_t *map = json_object_get(json, "weight_map");
    if (json && !json_is_object(map)) bad(s, path, NULL, "it has no weight_map");
    if (!nsmi_failed(s->ctx) && !add_shards(s, path, map) && !sort_entries(s))
        check_index(s, path, map);
    json_decref(json);
    return nsm_error(s->ctx);
}

static bool ends_in(const char *s, const char *end)
{
    size_t a = strlen(s), b = strlen(end);
    return a >= b && !strcmp(s + a - b, end);
}

static int open_any(nsm_safetensors *s, const char *path)
{
    struct stat about;
    if (!stat(path, &about) && S_ISDIR(about.st_mode)) {
        char *file = nsmi_format(s->ctx, "%s/model.safetensors", path);
        if (file && !access(file, F_OK))
            return add_shard(s, file) ? nsm_error(s->ctx) : sort_entries(s);
        free(file);
        file = nsmi_format(s->ctx, "%s/model.safetensors.index.json", path);
        if (file) open_index(s, file);
        free(file);
        return nsm_error(s->ctx);
    }
    if (ends_in(path, ".json")) return open_index(s, path);
    return add_shard(s, nsmi_strdup(s->ctx, path)) ? nsm_error(s->ctx) : sort_entries(s);
}

nsm_safetensors *nsm_safetensors_open(nsm_ctx *ctx, const char *path)
{
    if (nsmi_failed(ctx)) return NULL;
    nsm_safetensors *s = nsmi_calloc(ctx, 1, sizeof *s);
    if (!s) return NULL;
    s->ctx = ctx;
    if (!open_any(s, path)) return s;
    nsm_safetensors_free(s);
    return NULL;
}

void nsm_safetensors_free(nsm_safetensors *s)
{
    if (!s) return;
    for (int i = 0; i < s->shards; i++) {
        if (s->shard[i].fd >= 0) close(s->shard[i].fd);
        json_decref(s->shard[i].header);
        free(s->shard[i].path);
    }
    free(s->shard);
    free(s->entry);
    free(s);
}

int64_t nsm_safetensors_count(const nsm_safetensors *s) { return s ? s->entries : 0; }

const nsm_safetensors_entry *nsm_safetensors_at(const nsm_safetensors *s, int64_t i)
{
    return s && i >= 0 && i < s->entries ? &s->entry[i].about : NULL;
}

const nsm_safetensors_entry *nsm_safetensors_find(const nsm_safetensors *s, const char *name)
{
    entry key = { .about = { .name = name } };
    const entry *e = s && s->entries
                         ? bsearch(&key, s->entry, (size_t)s->entries, sizeof *s->entry, by_name)
                         : NULL;
    return e ? &e->about : NULL;
}

const char *nsm_safetensors_metadata(const nsm_safetensors *s, const char *key)
{
    const char *value = NULL;
    for (int i = 0; s && !value && i < s->shards; i++)
        value = json_string_value(
            json_object_get(json_object_get(s->shard[i].header, "__metadata__"), key));
    return value;
}

/* ---- the numbers ---- */

static const entry *look_up(nsm_safetensors *s, const char *name)
{
    if (!s || nsmi_failed(s->ctx)) return NULL;
    const nsm_safetensors_entry *e = nsm_safetensors_find(s, name);
    if (!e)
        nsm_error_set(s->ctx, NSM_EINVAL, "%s: there is no tensor %s",
                      s->shards ? s->shard[0].path : "safetensors", name);
    return (const entry *)e;
}

static int unreadable(nsm_safetensors *s, const entry *e)
{
    return nsm_error_set(s->ctx, NSM_EIO, "%s: tensor %.200s cannot be read",
                         s->shard[e->shard].path, e->about.name);
}

int nsm_safetensors_read_bytes(nsm_safetensors *s, const char *name, void *out)
{
    const entry *e = look_up(s, name);
    if (!e) return s ? nsm_error(s->ctx) : NSM_EINVAL;
    if (!read_at(s->shard[e->shard].fd, e->begin, out, (size_t)e->about.bytes))
        return unreadable(s, e);
    little(out, e->about.count, dtypes[e->type].bytes);
    return NSM_OK;
}

static int read_floats(nsm_safetensors *s, const entry *e, float *out)
{
    char buffer[BUFFER];
    int64_t step = (int64_t)(BUFFER / dtypes[e->type].bytes);
    for (int64_t i = 0; i < e->about.count; i += step) {
        int64_t n = e->about.count - i < step ? e->about.count - i : step;
        size_t bytes = dtypes[e->type].bytes;
        if (!read_at(s->shard[e->shard].fd, e->begin + i * (int64_t)bytes, buffer,
                     (size_t)n * bytes))
            return unreadable(s, e);
        little(buffer, n, bytes);
        to_floats(e->type, n, buffer, out + i);
    }
    return NSM_OK;
}

int nsm_safetensors_read(nsm_safetensors *s, const char *name, float *out)
{
    const entry *e = look_up(s, name);
    return e ? read_floats(s, e, out) : s ? nsm_error(s->ctx) : NSM_EINVAL;
}

/* ---- writing ---- */

static int64_t bytes_of(const nsm_safetensors_array *a)
{
    int64_t n = (int64_t)nsm_type_bytes(a->type);
    for (int i = 0; i < a->rank; i++)
        if (!nsmi_mul(n, a->dim[i], &n)) return -1;
    return n;
}

/* Add value under a key that must be new.  Takes value over. */
static bool put(json_t *object, const char *key, json_t *value)
{
    if (!json_object_get(object, key)) return json_object_set_new(object, key, value) == 0;
    json_decref(value);
    return false;
}

static json_t *describe(const nsm_safetensors_array *a, int64_t begin, int64_t end)
{
    json_t *shape = json_array();
    for (int i = 0; i < a->rank; i++) json_array_append_new(shape, json_integer(a->dim[i]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtypes[dtype_of[a->type]].name, "shape",
                     shape, "data_offsets", (json_int_t)begin, (json_int_t)end);
}

/* The JSON, padded with spaces so that the data starts at a multiple of 8. */
static char *header_text(nsm_ctx *ctx, const nsm_safetensors_array *array, int64_t arrays,
                         const nsm_safetensors_text *text, int64_t texts)
{
    json_t *header = json_object(), *metadata = texts ? json_object() : NULL;
    int64_t at = 0;
    char *out = NULL;
    for (int64_t i = 0; i < texts; i++)
        if (!put(metadata, text[i].key, json_string(text[i].value)))
            nsm_error_set(ctx, NSM_EINVAL,
                          "nsm_safetensors_write: key %s comes twice or is not UTF-8", text[i].key);
    if (metadata) json_object_set_new(header, "__metadata__", metadata);
    for (int64_t i = 0; i < arrays; i++) {
        int64_t bytes = bytes_of(&array[i]);
        if (bytes < 0 || __builtin_add_overflow(at, bytes, &bytes))
            nsm_error_set(ctx, NSM_EINVAL, "nsm_safetensors_write: the size of %s is not possible",
                          array[i].name);
        else if (!put(header, array[i].name, describe(&array[i], at, bytes)))
            nsm_error_set(ctx, NSM_EINVAL,
                          "nsm_safetensors_write: name %s comes twice or is not UTF-8",
                          array[i].name);
        at = bytes;
    }
    char *json = nsmi_failed(ctx) ? NULL : json_dumps(header, JSON_COMPACT);
    if (json) out = nsmi_format(ctx, "%s%*s", json, (int)(7 - (strlen(json) + 7) % 8), "");
    else nsm_error_set(ctx, NSM_ENOMEM, "out of memory");
    free(json);
    json_decref(header);
    return out;
}

static bool write_data(int fd, const nsm_safetensors_array *a)
{
    char buffer[BUFFER];
    size_t width = nsm_type_bytes(a->type), all = (size_t)bytes_of(a);
    if (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__) return write_all(fd, a->data, all);
    for (size_t at = 0, n; at < all; at += n) {
        n = all - at < BUFFER ? all - at : BUFFER;
        memcpy(buffer, (const char *)a->data + at, n);
        little(buffer, (int64_t)(n / width), width);
        if (!write_all(fd, buffer, n)) return false;
    }
    return true;
}

int nsm_safetensors_write(nsm_ctx *ctx, const char *path, const nsm_safetensors_array *array,
                          int64_t arrays, const nsm_safetensors_text *text, int64_t texts)
{
    unsigned char head[8];
    if (nsmi_failed(ctx)) return nsm_error(ctx);
    char *header = header_text(ctx, array, arrays, text, texts);
    nsmi_draft *draft = header ? nsmi_draft_new(ctx, path) : NULL;
    if (draft) {
        int fd = nsmi_draft_fd(draft);
        size_t n = strlen(header);
        for (int i = 0; i < 8; i++) head[i] = (unsigned char)((uint64_t)n >> 8 * i);
        bool ok = write_all(fd, head, 8) && write_all(fd, header, n);
        for (int64_t i = 0; ok && i < arrays; i++) ok = write_data(fd, &array[i]);
        if (!ok) nsm_error_set(ctx, NSM_EIO, "%s: it cannot be written: %s", path, strerror(errno));
        nsmi_draft_commit(ctx, draft, NULL);
    }
    free(header);
    return nsm_error(ctx);
}

/* ---- modules ---- */

typedef struct {
    nsm_ctx *ctx;
    const nsm_safetensors_options *options;
    nsm_safetensors *file;
    enum { CHECK, READ, FILL } pass; /* of loading */
    bool *used;                   /* [entries] */
    float *buffer;                /* everything, in the order of the walk */
    int64_t at;                   /* ... how far this pass has come */
    nsm_safetensors_array *array; /* saving */
    int64_t arrays, room;
} moving;

static const char *file_name(const moving *m, const char *name, char buf[NAME_BYTES])
{
    return m->options->map ? m->options->map(m->options->user, name, buf, NAME_BYTES) : name;
}

static bool same_shape(const nsm_safetensors_entry *e, const nsm_tensor *t)
{
    for (int i = 0, j = 0;;) {
        while (i < e->rank && e->dim[i] == 1) i++;
        while (j < t->rank && t->dim[j] == 1) j++;
        if (i == e->rank || j == t->rank) return i == e->rank && j == t->rank;
        if (e->dim[i++] != t->dim[j++]) return false;
    }
}

static int wrong_shape(moving *m, const entry *e, const nsm_tensor *t)
{
    char want[96], have[128] = "";
    size_t at = 0;
    for (int i = 0; i < e->about.rank && at < sizeof have - 24; i++)
        at += (size_t)snprintf(have + at, sizeof have - at, "%s%lld", i ? "," : "",
                               (long long)e->about.dim[i]);
    return nsm_error_set(m->ctx, NSM_EFORMAT, "%s: tensor %.200s is [%s], want %s",
                         m->file->shard[e->shard].path, e->about.name, have,
                         nsm_shape_text(t, want));
}

/* The first walk checks and counts, the second reads, the third, where nothing can fail, fills. */
static int load_one(void *user, const char *name, nsm_tensor *t, bool buffer)
{
    moving *m = user;
    char buf[NAME_BYTES];
    const char *theirs = file_name(m, name, buf);
    (void)buffer;
    if (!theirs) return NSM_OK;
    const entry *e = (const entry *)nsm_safetensors_find(m->file, theirs);
    if (!e && m->options->allow_missing) return NSM_OK;
    if (!e)
        return nsm_error_set(m->ctx, NSM_EFORMAT, "%s: tensor %.200s is missing",
                             m->file->shard[0].path, theirs);
    int64_t at = m->at;
    m->at += e->about.count;
    if (m->pass == READ) return read_floats(m->file, e, m->buffer + at);
    if (m->pass == FILL) return nsm_tensor_set(t, m->buffer + at);
    if (!same_shape(&e->about, t) || t->type != NSM_F32) return wrong_shape(m, e, t);
    m->used[e - m->file->entry] = true;
    return NSM_OK;
}

static int check_extra(moving *m)
{
    for (int64_t i = 0; !m->options->allow_extra && i < m->file->entries; i++)
        if (!m->used[i])
            return nsm_error_set(m->ctx, NSM_EFORMAT, "%s: tensor %.200s has no place in the model",
                                 m->file->shard[m->file->entry[i].shard].path,
                                 m->file->entry[i].about.name);
    return NSM_OK;
}

int nsm_safetensors_load(nsm_module *module, const char *path,
                         const nsm_safetensors_options *options)
{
    static const nsm_safetensors_options none;
    if (!module) return NSM_EINVAL;
    moving m = { .ctx = module->ctx,
                 .options = options ? options : &none,
                 .file = nsm_safetensors_open(module->ctx, path) };
    if (m.file) m.used = nsmi_calloc(m.ctx, (size_t)m.file->entries, sizeof *m.used);
    if (m.used && !nsm_module_walk(module, load_one, &m) && !check_extra(&m))
        m.buffer = nsmi_malloc(m.ctx, (size_t)m.at * sizeof *m.buffer);
    for (m.pass = READ; m.buffer && m.pass <= FILL && !nsmi_failed(m.ctx); m.pass++) {
        m.at = 0;
        nsm_module_walk(module, load_one, &m);
    }
    free(m.buffer);
    free(m.used);
    nsm_safetensors_free(m.file);
    return nsm_error(module->ctx);
}

static int save_one(void *user, const char *name, nsm_tensor *t, bool buffer)
{
    moving *m = user;
    char buf[NAME_BYTES];
    const char *theirs = file_name(m, name, buf);
    (void)buffer;
    if (!theirs) return NSM_OK;
    if (m->arrays == m->room) {
        m->room = 2 * m->room + 16;
        nsm_safetensors_array *more = nsmi_realloc(m->ctx, m->array, (size_t)m->room, sizeof *more);
        if (!more) return nsm_error(m->ctx);
        m->array = more;
    }
    nsm_safetensors_array *a = &m->array[m->arrays++];
    void *data = nsmi_malloc(m->ctx, (size_t)nsm_numel(t) * nsm_type_bytes(t->type));
    *a = (nsm_safetensors_array){ nsmi_strdup(m->ctx, theirs), t->type, t->rank, t->dim, data };
    return data && a->name ? nsm_tensor_get(t, data) : nsm_error(m->ctx);
}

int nsm_safetensors_save(nsm_module *module, const char *path,
                         const nsm_safetensors_options *options)
{
    static const nsm_safetensors_options none;
    if (!module) return NSM_EINVAL;
    if (nsmi_failed(module->ctx)) return nsm_error(module->ctx);
    moving m = { .ctx = module->ctx, .options = options ? options : &none };
    if (!nsm_module_walk(module, save_one, &m))
        nsm_safetensors_write(m.ctx, path, m.array, m.arrays, m.options->text, m.options->texts);
    for (int64_t i = 0; i < m.arrays; i++) {
        free((char *)m.array[i].name);
        free((void *)m.array[i].data);
    }
    free(m.array);
    return nsm_error(module->ctx);
}
