/* tests/datasets/fuzz_readers.c - Every importer, and the sealed file, on damaged input.
 *
 * A small source is damaged in one place (a bit, a byte, a cut, a number spliced in, a piece
 * doubled or left out) and imported.  It must give a valid dataset or one error that says
 * something; where the file carries a checksum, the same dataset or an error; a sealed file that
 * differs in any bit, an error.  A hang ends the program by alarm().  NSM_FUZZ=N sets the number of
 * inputs for each. */
#include "config.h"
#include <unistd.h>
#include "base/seal.h"
#include "datasets/picture.h"
#include "datasets/sequences.h"
#include "tests/datasets/sample.h"
#include "tests/datasets/sample_picture.h"

static uint64_t state = 88172645463325252ull;
static uint64_t draw(uint64_t n)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return n ? state % n : 0;
}

/* Damage a copy of data; returns its new length.  out has room for 2 * bytes + 32. */
static size_t damage(const unsigned char *data, size_t bytes, unsigned char *out)
{
    static const char *const splice[] = { "-1",    "2147483648", "9223372036854775807",
                                          "nan",   "inf",        "1e999",
                                          "0x1p3", ",",          "\n",
                                          "\"",    " ",          "4294967296",
                                          "-",     "1e",         "99999999999999999999999" };
    static const unsigned char words[][8] = { { 0 },
                                              { 255, 255, 255, 255, 255, 255, 255, 255 },
                                              { 0, 0, 0, 128 },
                                              { 255, 255, 255, 255, 255, 255, 255, 127 },
                                              { 0, 0, 0, 0, 1 } };
    size_t at = draw(bytes), n, rest;
    memcpy(out, data, bytes);
    switch (draw(8)) {
    case 0: case 1: out[at] ^= (unsigned char)(1 << draw(8)); return bytes;
    case 2: out[at] = (unsigned char)draw(256); return bytes;
    case 3: return at;
    case 4: {
        const char *s = splice[draw(15)];
        n = strlen(s) < bytes - at ? strlen(s) : bytes - at;
        memcpy(out + at, s, n);
        return bytes;
    }
    case 5: {
        const char *s = splice[draw(15)];
        n = strlen(s);
        memcpy(out + at, s, n);
        memcpy(out + at + n, data + at, bytes - at);
        return bytes + n;
    }
    case 6:
        rest = bytes - at;
        n = rest < 8 ? rest : (size_t)2 << draw(3);
        memcpy(out + at, words[draw(5)], n < 8 ? n : 8);
        return bytes;
    default:
        n = 1 + draw(bytes - at);
        if (draw(2)) { /* leave a piece out */
            memcpy(out + at, data + at + n, bytes - at - n);
            return bytes - n;
        }
        memcpy(out + at + n, data + at, bytes - at); /* double it */
        return bytes + n;
    }
}

static void write_raw(const char *path, const void *data, size_t bytes)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, bytes, f) != bytes || fclose(f)) abort();
}

static int faults;
static void fault(const char *name, int64_t i, const char *what)
{
    printf("FAULT %s, input %lld: %s\n", name, (long long)i, what);
    faults++;
}

/* One error, of a kind that speaks of files, unless something was read; cleared. */
static void judge_error(nsm_ctx *ctx, const char *name, int64_t i, bool read)
{
    int code = nsm_error(ctx);
    if (!read && code == NSM_OK) fault(name, i, "neither a dataset nor an error");
    if (!read && strlen(nsm_error_message(ctx)) < 12) fault(name, i, "the error says nothing");
    if (!read && code != NSM_EIO && code != NSM_EFORMAT && code != NSM_ENUMBER &&
        code != NSM_EINVAL)
        fault(name, i, nsm_error_message(ctx));
    nsm_error_clear(ctx);
}

/* An error, or a dataset that is valid. */
static bool judge(nsm_ctx *ctx, const char *name, int64_t i, const nsm_dataset *ds)
{
    judge_error(ctx, name, i, ds != NULL);
    if (ds && nsm_dataset_validate(ds) != NSM_OK) fault(name, i, nsm_error_message(ctx));
    nsm_error_clear(ctx);
    return ds != NULL;
}

static void fuzz_source(nsm_ctx *ctx, const sample_source *s, int64_t inputs)
{
    int64_t read = 0, refused = 0;
    int files = 0;
    sample_make(s);
    while (files < 12 && s->file[files]) files++;
    nsm_dataset *whole = sample_import(ctx, s);
    if (!whole) {
        fault(s->name, -1, nsm_error_message(ctx));
        return;
    }
    for (int64_t i = 0; i < inputs; i++) {
        const char *path = sample_path("%s/%s", s->name, s->file[draw((uint64_t)files)]);
        size_t bytes;
        unsigned char *data = sample_read(path, &bytes), *out = malloc(2 * bytes + 32);
        size_t n = damage(data, bytes, out);
        write_raw(path, out, n);
        alarm(30);
        nsm_dataset *ds = sample_import(ctx, s);
        alarm(0);
        if (judge(ctx, s->name, i, ds)) {
            read++;
            const char *what = s->checked ? sample_difference(whole, ds) : NULL;
            if (what) fault(s->name, i, what);
        } else {
            refused++;
        }
        nsm_dataset_free(ds);
        write_raw(path, data, bytes);
        free(data);
        free(out);
    }
    nsm_dataset_free(whole);
    printf("%-12s %6lld inputs: %lld refused, %lld read\n", s->name, (long long)inputs,
           (long long)refused, (long long)read);
}

/* Sources of sequences: one file each. */
static const struct {
    const char *format, *name, *text;
    nsm_option option;
    const char *source;
} streams[] = {
    { "ett",
      "ETT.csv",
      "date,HUFL,OT\n2016-07-01 00:00:00,5.827,30.531\n2016-07-01 "
      "01:00:00,-5.69e0,27.787\n2016-07-01 02:00:00,0,1\n"
      "2016-07-01 03:00:00,1,2\n",
      { "valid", "0.25" },
      "ETT.csv" },
    { "babi",
      "stories/qa1_x_train.txt",
      "1 Mary went out.\n2 She left, too.\n3 Where is Mary?\tout\t1 2\n1 A is b.\n2 What is a? "
      "\tb,c\t1\n",
      { "skip", "2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20" },
      "stories" },
    { "text",
      "text",
      "a s\xc3\xa4"
      "d text, to be cut\n",
      { "valid", "0.25" },
      "text" },
};

static void fuzz_sequences(nsm_ctx *ctx, size_t which, int64_t inputs)
{
    const char *name = streams[which].name, *path = sample_path("%s", name),
               *source = sample_path("%s", streams[which].source);
    size_t bytes = strlen(streams[which].text);
    unsigned char *out = malloc(2 * bytes + 32);
    int64_t read = 0;
    sample_write(path, streams[which].text, bytes);
    sample_write(sample_path("stories/qa1_x_test.txt"), streams[1].text, strlen(streams[1].text));
    for (int64_t i = 0; i < inputs; i++) {
        size_t n = damage((const unsigned char *)streams[which].text, bytes, out);
        write_raw(path, out, n);
        alarm(30);
        nsm_sequences *s = nsm_sequences_import(ctx, streams[which].format, source,
                                                &streams[which].option, 1);
        alarm(0);
        judge_error(ctx, name, i, s != NULL);
        if (s && nsm_sequences_validate(s) != NSM_OK) fault(name, i, nsm_error_message(ctx));
        nsm_error_clear(ctx);
        read += s != NULL;
        nsm_sequences_free(s);
    }
    printf("%-12s %6lld inputs: %lld refused, %lld read\n", name, (long long)inputs,
           (long long)(inputs - read), (long long)read);
    free(out);
}

/* Pictures in files of every kind. */
static void fuzz_picture(nsm_ctx *ctx, const char *name, unsigned char *file, size_t bytes,
                         int64_t inputs)
{
    unsigned char *out = malloc(2 * bytes + 32);
    int64_t read = 0;
    for (int64_t i = 0; i < inputs; i++) {
        nsm_picture p;
        size_t n = damage(file, bytes, out);
        alarm(30);
        nsm_picture_decode(ctx, name, out, n, &(nsm_picture_options){ .most_pixels = 1 << 20 }, &p);
        alarm(0);
        judge_error(ctx, name, i, p.pixel != NULL);
        read += p.pixel != NULL;
        nsm_picture_clear(&p);
    }
    printf("%-12s %6lld inputs: %lld refused, %lld read\n", name, (long long)inputs,
           (long long)(inputs - read), (long long)read);
    free(out);
    free(file);
}

static void fuzz_pictures(nsm_ctx *ctx, int64_t inputs)
{
    size_t bytes = 0;
    (void)ctx, (void)inputs, (void)bytes;
#if defined(HAVE_PNG)
    for (int k = 0; k < SAMPLE_PNGS; k++) {
        unsigned char *file = sample_png(k, &bytes);
        fuzz_picture(ctx, "a.png", file, bytes, inputs);
    }
#endif
#if defined(HAVE_JPEG)
    for (int k = 0; k < SAMPLE_JPEGS; k++) {
        unsigned char *file = sample_jpeg(k, &bytes);
        fuzz_picture(ctx, "a.jpg", file, bytes, inputs);
    }
#endif
}

/* A sealed file, damaged, must be refused; its inside without the seal goes to the HDF5
 * importer. */
static void fuzz_hdf5(nsm_ctx *ctx, bool sealed, int64_t inputs)
{
    const char *name = sealed ? "sealed" : "hdf5", *path = sample_path("%s.h5", name);
    size_t bytes;
    int64_t read = 0;
    nsm_dataset *ds = sample_new(ctx, NSM_LABEL_CLASS, false);
    nsm_dataset_save(ds, path);
    unsigned char *file = sample_read(path, &bytes), *data = sealed ? file : file + NSMI_SEAL_BYTES;
    if (!sealed) bytes -= NSMI_SEAL_BYTES;
    unsigned char *out = malloc(2 * bytes + 32);
    for (int64_t i = 0; i < inputs; i++) {
        size_t n = damage(data, bytes, out);
        write_raw(path, out, n);
        alarm(30);
        nsm_dataset *got = sealed ? nsm_dataset_load(ctx, path, NULL)
                                  : nsm_import(ctx, "hdf5", path, NULL, 0);
        alarm(0);
        if (judge(ctx, name, i, got)) {
            read++;
            if (sealed && (n != bytes || memcmp(data, out, n)))
                fault(name, i, "a damaged file was read");
        }
        nsm_dataset_free(got);
    }
    printf("%-12s %6lld inputs: %lld refused, %lld read\n", name, (long long)inputs,
           (long long)(inputs - read), (long long)read);
    nsm_dataset_free(ds);
    free(file);
    free(out);
}

int main(void)
{
    const char *text = getenv("NSM_FUZZ");
    setvbuf(stdout, NULL, _IOLBF, 0);
    int64_t given = text && *text ? strtoll(text, NULL, 10) : 0;
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    for (const sample_source *s = sample_sources; s->format; s++) {
        bool child = strcmp(s->format, "ogb") && strcmp(s->format, "wordnet") &&
                     strcmp(s->format, "tu") && strcmp(s->format, "csv") &&
                     strcmp(s->format, "triples");
        fuzz_source(ctx, s, given ? given : child ? 40 : 500);
    }
    for (size_t i = 0; i < sizeof streams / sizeof *streams; i++)
        fuzz_sequences(ctx, i, given ? given : 500);
    fuzz_pictures(ctx, given ? given : 200);
    fuzz_hdf5(ctx, true, given ? given : 1000);
    fuzz_hdf5(ctx, false, given ? given : 60);
    nsm_ctx_free(ctx);
    sample_folder_remove();
    return faults ? EXIT_FAILURE : EXIT_SUCCESS;
}
