/* tests/base/test_safetensors.c - Safetensors: what is written is read, every type is converted,
 * everything that the format forbids is refused. */
#include "config.h"
#include <sys/stat.h>
#include <unistd.h>
#include "tests/test.h"
#include "base/safetensors.h"

static char folder[64];

static void make_folder(void)
{
    strcpy(folder, "/tmp/nsm-safetensors-XXXXXX");
    ck_assert(mkdtemp(folder));
}

static const char *in_folder(const char *name)
{
    static char path[4][128];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

static void remove_folder(void)
{
    static const char *const names[] = { "x.safetensors", "1.safetensors", "2.safetensors",
                                         "model.safetensors", "model.safetensors.index.json" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) unlink(in_folder(names[i]));
    ck_assert_int_eq(rmdir(folder), 0);
}

/* A file of this header and these data bytes; length: what the first 8 bytes say, -1 the truth. */
static void write_raw(const char *name, const char *header, const void *data, size_t bytes,
                      int64_t length)
{
    FILE *f = fopen(in_folder(name), "wb");
    uint64_t n = length < 0 ? strlen(header) : (uint64_t)length;
    ck_assert(f);
    for (int i = 0; i < 8; i++) putc((int)(n >> 8 * i & 255), f);
    fwrite(header, 1, strlen(header), f);
    fwrite(data, 1, bytes, f);
    ck_assert(!fclose(f));
}

START_TEST(round_trip)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    float w[12], got[12];
    const int32_t index[3] = { -1, 2, 1 << 30 };
    make_folder();
    test_random(1, 12, w);
    w[3] = NAN;
    const nsm_safetensors_array array[] = {
        { "conv.weight", NSM_F32, 3, (const int64_t[]){ 2, 3, 2 }, w },
        { "index", NSM_I32, 1, (const int64_t[]){ 3 }, index },
        { "scalar", NSM_F32, 0, NULL, w },
        { "nothing", NSM_F32, 2, (const int64_t[]){ 0, 4 }, NULL },
    };
    nsm_safetensors_write(ctx, in_folder("x.safetensors"), array, 4,
                          &(nsm_safetensors_text){ "format", "nsm" }, 1);
    nsm_safetensors *s = nsm_safetensors_open(ctx, in_folder("x.safetensors"));
    ck_ok(ctx);
    ck_assert_int_eq(nsm_safetensors_count(s), 4);
    ck_assert_str_eq(nsm_safetensors_at(s, 0)->name, "conv.weight");
    ck_assert_str_eq(nsm_safetensors_metadata(s, "format"), "nsm");
    ck_assert(!nsm_safetensors_metadata(s, "author"));
    const nsm_safetensors_entry *e = nsm_safetensors_find(s, "conv.weight");
    ck_assert(e->rank == 3 && e->dim[1] == 3 && e->count == 12 && !strcmp(e->dtype, "F32"));
    nsm_safetensors_read(s, "conv.weight", got);
    ck_assert_mem_eq(got, w, sizeof w);
    nsm_safetensors_read(s, "index", got);
    ck_assert_float_eq(got[0], -1);
    ck_assert_float_eq(got[2], 1 << 30);
    ck_ok(ctx);
    nsm_safetensors_read(s, "bias", got);
    ck_error(ctx, NSM_EINVAL);
    nsm_safetensors_free(s);
    const nsm_safetensors_array twice[] = { array[1], array[1] };
    nsm_safetensors_write(ctx, in_folder("x.safetensors"), twice, 2, NULL, 0);
    ck_error(ctx, NSM_EINVAL);
    remove_folder();
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(types)
{
    static const struct { const char *dtype; size_t bytes; uint8_t raw[8]; float value; } row[] = {
        { "F64", 8, { 0, 0, 0, 0, 0, 0, 4, 192 }, -2.5f },
        { "F32", 4, { 0, 0, 32, 192 }, -2.5f },
        { "F16", 2, { 0, 193 }, -2.5f },
        { "F16", 2, { 1, 0 }, 0x1p-24f },
        { "F16", 2, { 255, 3 }, 1023 * 0x1p-24f },
        { "F16", 2, { 255, 123 }, 65504 },
        { "F16", 2, { 0, 252 }, -INFINITY },
        { "BF16", 2, { 32, 192 }, -2.5f },
        { "BF16", 2, { 128, 127 }, INFINITY },
        { "I64", 8, { 254, 255, 255, 255, 255, 255, 255, 255 }, -2 },
        { "I32", 4, { 254, 255, 255, 255 }, -2 },
        { "I16", 2, { 254, 255 }, -2 },
        { "I8", 1, { 254 }, -2 },
        { "U64", 8, { 0, 0, 0, 0, 0, 0, 0, 128 }, 0x1p63f },
        { "U32", 4, { 0, 0, 0, 128 }, 0x1p31f },
        { "U16", 2, { 0, 128 }, 0x1p15f },
        { "U8", 1, { 254 }, 254 },
        { "BOOL", 1, { 1 }, 1 },
    };
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    make_folder();
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        char header[160];
        float x = 0;
        uint8_t raw[8];
        snprintf(header, sizeof header,
                 "{\"x\":{\"dtype\":\"%s\",\"shape\":[1],\"data_offsets\":[0,%zu]}}", row[i].dtype,
                 row[i].bytes);
        write_raw("x.safetensors", header, row[i].raw, row[i].bytes, -1);
        nsm_safetensors *s = nsm_safetensors_open(ctx, in_folder("x.safetensors"));
        nsm_safetensors_read(s, "x", &x);
        nsm_safetensors_read_bytes(s, "x", raw);
        ck_ok(ctx);
        ck_assert_msg(x == row[i].value, "%s: %g, want %g", row[i].dtype, (double)x,
                      (double)row[i].value);
        if (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__)
            ck_assert_mem_eq(raw, row[i].raw, row[i].bytes);
        nsm_safetensors_free(s);
    }
    remove_folder();
    nsm_ctx_free(ctx);
}
END_TEST

#define A "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}"

START_TEST(refused)
{
    static const struct {
        const char *header;
        size_t bytes;
        int64_t length;
        const char *says;
    } bad[] = {
        { "{" A "}", 8, 1000, "the header has 1000 bytes" },
        { "{" A "}", 8, 100000001, "at most 100000000" },
        { "{" A "}", 8, INT64_MAX, "the header has" },
        { "{" A "}", 8, 0, "the header has 0" },
        { "{" A "}", 7, -1, "not within the file" },
        { "{" A "}", 9, -1, "the tensors hold 8 bytes, the file 9" },
        { "{" A "," A "}", 8, -1, "duplicate" },
        { "["
          "1"
          "]",
          0, -1, "no JSON object" },
        { "{\"a\":", 8, -1, "not JSON" },
        { "{\"a\":3}", 0, -1, "wanted" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, -1, "wanted" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"more\":1}}", 8, -1,
          "no more" },
        { "{\"a\":{\"dtype\":\"F31\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, -1, "type F31" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8, -1,
          "hold 8 bytes, its shape and type want 12" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, -1, "negative" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}", 8, -1,
          "not whole" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,8]}}", 8,
          -1, "too large" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,2],\"data_offsets\":[0,8]}}", 8, -1,
          "more than 8" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8, -1, "not within" },
        { "{" A ",\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, -1,
          "overlaps" },
        { "{" A ",\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[12,16]}}", 16, -1,
          "gap" },
        { "{\"__metadata__\":{\"k\":1}," A "}", 8, -1, "no string" },
        { "{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}," A "}", 8, -1, "duplicate" },
        { "{\"__metadata__\":[]," A "}", 8, -1, "no object" },
    };
    static const char data[16];
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    make_folder();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_raw("x.safetensors", bad[i].header, data, bad[i].bytes, bad[i].length);
        ck_assert(!nsm_safetensors_open(ctx, in_folder("x.safetensors")));
        ck_assert_msg(strstr(nsm_error_message(ctx), bad[i].says), "%zu: %s", i,
                      nsm_error_message(ctx));
        ck_error(ctx, NSM_EFORMAT);
    }
    ck_assert(!nsm_safetensors_open(ctx, in_folder("none.safetensors")));
    ck_error(ctx, NSM_EIO);
    ck_assert(!nsm_safetensors_open(ctx, folder));
    ck_error(ctx, NSM_EIO);
    ck_assert(!nsm_safetensors_open(ctx, "/dev/null"));
    ck_error(ctx, NSM_EFORMAT);
    remove_folder();
    nsm_ctx_free(ctx);
}
END_TEST

/* The same file cut at every length: an error each time. */
START_TEST(cut)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    float w[6] = { 0 };
    make_folder();
    const nsm_safetensors_array array[] = { { "a", NSM_F32, 1, (const int64_t[]){ 2 }, w },
                                            { "b", NSM_F32, 1, (const int64_t[]){ 4 }, w } };
    nsm_safetensors_write(ctx, in_folder("x.safetensors"), array, 2, NULL, 0);
    struct stat about;
    ck_assert(!stat(in_folder("x.safetensors"), &about));
    for (off_t n = about.st_size - 1; n >= 0; n--) {
        ck_assert(!truncate(in_folder("x.safetensors"), n));
        ck_assert(!nsm_safetensors_open(ctx, in_folder("x.safetensors")));
        ck_error(ctx, NSM_EFORMAT);
    }
    remove_folder();
    nsm_ctx_free(ctx);
}
END_TEST

static void write_text(const char *name, const char *text)
{
    FILE *f = fopen(in_folder(name), "w");
    ck_assert(f && fputs(text, f) >= 0 && !fclose(f));
}

START_TEST(shards)
{
    static const struct {
        const char *index, *says;
    } bad[] = {
        { "{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"1.safetensors\"}}", "names 2 tensors" },
        { "{\"weight_map\":{\"a\":\"2.safetensors\",\"b\":\"1.safetensors\"}}", "not in the file" },
        { "{\"weight_map\":{\"a\":\"1.safetensors\",\"c\":\"2.safetensors\"}}", "tensor c" },
        { "{\"weight_map\":{\"a\":\"../1.safetensors\",\"b\":\"2.safetensors\"}}",
          "no plain file name" },
        { "{\"weight_map\":{\"a\":\"1.safetensors\",\"a\":\"2.safetensors\"}}", "duplicate" },
        { "{\"weight_map\":3}", "weight_map" },
        { "{}", "weight_map" },
    };
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    float one = 1, two = 2, x = 0;
    make_folder();
    const nsm_safetensors_array a = { "a", NSM_F32, 0, NULL, &one },
                                b = { "b", NSM_F32, 0, NULL, &two };
    nsm_safetensors_write(ctx, in_folder("1.safetensors"), &a, 1, NULL, 0);
    nsm_safetensors_write(ctx, in_folder("2.safetensors"), &b, 1, NULL, 0);
    write_text("model.safetensors.index.json", "{\"metadata\":{\"total_size\":8},\"weight_map\":{"
                                               "\"b\":\"2.safetensors\",\"a\":\"1.safetensors\"}}");
    nsm_safetensors *s = nsm_safetensors_open(ctx, folder);
    ck_ok(ctx);
    ck_assert_int_eq(nsm_safetensors_count(s), 2);
    nsm_safetensors_read(s, "b", &x);
    ck_assert_float_eq(x, 2);
    nsm_safetensors_free(s);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_text("model.safetensors.index.json", bad[i].index);
        ck_assert(!nsm_safetensors_open(ctx, in_folder("model.safetensors.index.json")));
        ck_assert_msg(strstr(nsm_error_message(ctx), bad[i].says), "%zu: %s", i,
                      nsm_error_message(ctx));
        ck_error(ctx, NSM_EFORMAT);
    }
    nsm_safetensors_write(ctx, in_folder("2.safetensors"), &a, 1, NULL, 0);
    write_text("model.safetensors.index.json",
               "{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"2.safetensors\"}}");
    ck_assert(!nsm_safetensors_open(ctx, folder));
    ck_error(ctx, NSM_EFORMAT);
    remove_folder();
    nsm_ctx_free(ctx);
}
END_TEST

static const char *with_prefix(void *user, const char *dotted, char *buf, size_t buf_bytes)
{
    if (!strcmp(dotted, "mean")) return NULL;
    snprintf(buf, buf_bytes, "%s.%s", (const char *)user, dotted);
    return buf;
}

static void module_make(nsm_module *m, nsm_ctx *ctx, uint64_t seed)
{
    float x[6];
    nsm_module_init(m, ctx);
    nsm_tensor *w = nsm_module_param(m, "weight", 2, (const int64_t[]){ 2, 3 });
    nsm_tensor *mean = nsm_module_buffer(m, "mean", 1, (const int64_t[]){ 3 });
    test_random(seed, 6, x);
    if (w) nsm_tensor_set(w, x);
    if (mean) nsm_tensor_set(mean, x);
}

START_TEST(modules)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    nsm_module m, n, other;
    float x[6], y[6];
    const nsm_safetensors_options prefixed = { .map = with_prefix, .user = "model" };
    make_folder();
    const char *path = strdup(in_folder("x.safetensors"));
    module_make(&m, ctx, 1);
    module_make(&n, ctx, 2);
    nsm_safetensors_save(&m, path, NULL);
    nsm_safetensors_load(&n, path, NULL);
    ck_ok(ctx);
    nsm_tensor_get(nsm_module_find(&m, "weight"), x);
    nsm_tensor_get(nsm_module_find(&n, "weight"), y);
    ck_assert_mem_eq(x, y, sizeof x);
    nsm_safetensors_save(&m, path, &prefixed);
    nsm_safetensors_load(&n, path, &prefixed);
    ck_ok(ctx);
    nsm_safetensors_load(&n, path, NULL);
    ck_assert_ptr_nonnull(strstr(nsm_error_message(ctx), "tensor weight is missing"));
    ck_error(ctx, NSM_EFORMAT);
    nsm_safetensors_load(&n, path, &(nsm_safetensors_options){ .allow_missing = true });
    ck_assert_ptr_nonnull(strstr(nsm_error_message(ctx), "tensor model.weight has no place"));
    ck_error(ctx, NSM_EFORMAT);
    nsm_safetensors_load(&n, path,
                         &(nsm_safetensors_options){ .allow_missing = true, .allow_extra = true });
    ck_ok(ctx);
    nsm_safetensors_save(&m, path, NULL);
    nsm_module_init(&other, ctx);
    nsm_tensor *w = nsm_module_param(&other, "weight", 3, (const int64_t[]){ 2, 1, 3 });
    nsm_tensor *mean = nsm_module_param(&other, "mean", 1, (const int64_t[]){ 4 });
    nsm_safetensors_load(&other, path, NULL);
    ck_assert_ptr_nonnull(strstr(nsm_error_message(ctx), "tensor mean is [3], want [4]"));
    ck_error(ctx, NSM_EFORMAT);
    nsm_tensor_get(w, y);
    ck_assert_float_eq(y[0], 0); /* the first tensor fits; it was not touched */
    (void)mean;
    nsm_module_clear(&other);
    nsm_module_clear(&m);
    nsm_module_clear(&n);
    free((char *)path);
    remove_folder();
    nsm_ctx_free(ctx);
}
END_TEST

static void save_and_load(nsm_ctx *ctx)
{
    nsm_module m, n;
    module_make(&m, ctx, 1);
    module_make(&n, ctx, 2);
    nsm_safetensors_save(&m, in_folder("model.safetensors"), NULL);
    if (!nsm_error(ctx)) nsm_safetensors_load(&n, folder, NULL);
    nsm_module_clear(&m);
    nsm_module_clear(&n);
}

START_TEST(memory)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    make_folder();
    ck_assert_int_gt(test_brutal(save_and_load, ctx), 20);
    remove_folder();
    nsm_ctx_free(ctx);
}
END_TEST

int main(void)
{
    return test_main("safetensors", (const TTest *const[]){ round_trip, types, refused, cut, shards,
                                                            modules, memory, NULL });
}
