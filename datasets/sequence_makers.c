/* datasets/sequence_makers.c - Where sequences come from: text files, and the tasks that memory is measured with.
 *
 * mqar  multi-query associative recall (Arora et al., arXiv:2312.04927): pairs of key and value, then the keys
 *       again at places drawn by a power law; after each its value is asked for.  Keys are the lower half of the
 *       vocabulary, values the upper.
 * selective_copying  (Gu and Dao, arXiv:2312.00752, 4.1.1): tokens among blanks, to be told in order behind them.
 * induction          (same, 4.1.2): what followed the mark when it came first, asked when it comes again.
 *
 * Every row depends on the seed, its part and its number alone. */
#include "config.h"
#include <errno.h>
#include <zlib.h>
#include "datasets/internal.h"
#include "datasets/sequences.h"

/* ---- text ---- */
enum { CHUNK = 1 << 20, CODES = 0x110000 };

static unsigned char *read_all(nsm_ctx *ctx, const char *path, int64_t *count)
{
    gzFile f = gzopen(path, "rb");
    unsigned char *text = NULL;
    int64_t room = 0, n = 0;
    int got = 1;
    if (!f) nsm_error_set(ctx, NSM_EIO, "%s: %s", path, strerror(errno ? errno : ENOMEM));
    while (f && got > 0 && !nsmi_failed(ctx)) {
        if (n + CHUNK > room) {
            unsigned char *more = nsmi_realloc(ctx, text, (size_t)(room = 2 * room + CHUNK), 1);
            if (!more) break;
            text = more;
        }
        got = gzread(f, text + n, CHUNK);
        if (got < 0) nsm_error_set(ctx, NSM_EFORMAT, "%s: it cannot be read to its end", path);
        else n += got;
    }
    if (f) gzclose(f);
    *count = n;
    if (!nsmi_failed(ctx)) return text;
    free(text);
    return NULL;
}

/* The code point at text and its bytes; -1: not UTF-8. */
static int32_t code_at(const unsigned char *text, int64_t left, int *bytes)
{
    int n = text[0] < 0x80 ? 1 : text[0] >> 5 == 6 ? 2 : text[0] >> 4 == 14 ? 3 : text[0] >> 3 == 30 ? 4 : 0;
    if (n == 0 || n > left) return -1;
    int32_t code = n == 1 ? text[0] : text[0] & (0x7f >> n);
    for (int i = 1; i < n; i++) {
        if (text[i] >> 6 != 2) return -1;
        code = code << 6 | (text[i] & 0x3f);
    }
    *bytes = n;
    return code < CODES ? code : -1;
}

/* Characters as they are first numbered: id holds code points, then places in the sorted alphabet. */
static int number_characters(nsm_sequences *s, const unsigned char *text, int64_t n, const char *path, int32_t *id, int64_t *count)
{
    int32_t *place = nsmi_calloc(s->ctx, CODES, sizeof *place), vocab = 0;
    *count = 0;
    for (int64_t at = 0; place && at < n;) {
        int bytes;
        int32_t code = code_at(text + at, n - at, &bytes);
        if (code <= 0) {
            free(place);
            return nsm_error_set(s->ctx, NSM_EFORMAT, "%s: byte %lld is not UTF-8 text; unit=byte takes anything", path, (long long)at);
        }
        place[code] = 1;
        id[(*count)++] = code;
        at += bytes;
    }
    for (int32_t c = 0; place && c < CODES; c++)
        if (place[c]) place[c] = ++vocab;
    s->vocab = vocab;
    s->symbol = nsmi_calloc(s->ctx, (size_t)vocab + 1, sizeof *s->symbol);
    for (int32_t c = 0; place && s->symbol && c < CODES; c++) {
        char u[5] = { (char)c };
        if (!place[c]) continue;
        if (c >= 0x80) { /* back to UTF-8 */
            int bytes = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
            for (int i = bytes - 1, rest = c; i > 0; i--, rest >>= 6) u[i] = (char)(0x80 | (rest & 0x3f));
            u[0] = (char)((0xf00 >> bytes & 0xff) | c >> 6 * (bytes - 1));
        }
        s->symbol[place[c] - 1] = nsmi_strdup(s->ctx, u);
    }
    for (int64_t i = 0; place && i < *count; i++) id[i] = place[id[i]] - 1;
    free(place);
    return nsm_error(s->ctx);
}

static void number_bytes(nsm_sequences *s, const unsigned char *text, int64_t n, int32_t *id, int64_t *count)
{
    s->vocab = 256;
    for (int64_t i = 0; i < n; i++) id[i] = text[i];
    *count = n;
}

/* The stream from .. to as a part. */
static void cut(nsm_sequences *s, int part, const int32_t *id, int64_t from, int64_t to)
{
    if (to <= from) return;
    s->part[part] = (nsm_sequence_part){ .rows = 1, .length = to - from, .id = nsmi_malloc(s->ctx, (size_t)(to - from) * sizeof *id) };
    if (s->part[part].id) memcpy(s->part[part].id, id + from, (size_t)(to - from) * sizeof *id);
}

static void make_text(nsm_sequences *s, const char *source, const nsmi_options *o)
{
    static const char *const units[] = { "character", "byte", NULL };
    double valid = nsmi_option_float(o, "valid", 0, 0.9, 0.1), test = nsmi_option_float(o, "test", 0, 0.9, 0);
    int unit = nsmi_option_choice(o, "unit", units);
    int64_t n = 0, count = 0;
    unsigned char *text = nsmi_failed(s->ctx) ? NULL : read_all(s->ctx, source, &n);
    int32_t *id = text ? nsmi_malloc(s->ctx, (size_t)n * sizeof *id) : NULL;
    if (id && unit == 0) number_characters(s, text, n, source, id, &count);
    else if (id) number_bytes(s, text, n, id, &count);
    int64_t test_at = count - (int64_t)((double)count * test), valid_at = test_at - (int64_t)((double)count * valid);
    if (!nsmi_failed(s->ctx) && valid_at < 2) nsm_error_set(s->ctx, NSM_EFORMAT, "%s: %lld tokens leave nothing to train on", source, (long long)count);
    s->kind = NSM_SEQUENCE_STREAM;
    s->classes = s->vocab;
    if (!nsmi_failed(s->ctx)) {
        cut(s, NSM_TRAIN, id, 0, valid_at);
        cut(s, NSM_VALID, id, valid_at, test_at);
        cut(s, NSM_TEST, id, test_at, count);
    }
    free(text);
    free(id);
}

/* ---- made tasks ---- */
/* A row's own draws. */
typedef struct { nsm_random from; uint64_t at; } draws;
static double unit(draws *d) { return (double)nsm_random_uniform(d->from, d->at++); }
static int64_t below(draws *d, int64_t n)
{
    uint64_t x = (uint64_t)nsm_random_u32(d->from, d->at++) << 32;
    x |= nsm_random_u32(d->from, d->at++);
    return (int64_t)(x % (uint64_t)n);
}

/* The first `count` of a random order of low .. low + n - 1; room [n]. */
static void choose(draws *d, int64_t low, int64_t n, int64_t count, int32_t *room)
{
    for (int64_t i = 0; i < n; i++) room[i] = (int32_t)(low + i);
    for (int64_t i = 0; i < count; i++) {
        int64_t j = i + below(d, n - i);
        int32_t x = room[i];
        room[i] = room[j];
        room[j] = x;
    }
}

/* What a task is told; every task uses some of it. */
typedef struct {
    int64_t length, vocab, count, least; /* count: pairs or tokens to remember; least of them while training */
    bool fill;
    double power;
    int32_t *room[3];                    /* [vocab + length] each */
} task_options;

static void mqar_row(const task_options *o, draws *d, bool train, int32_t *id, int32_t *target)
{
    int64_t pairs = train ? o->least + below(d, o->count - o->least + 1) : o->count, half = o->vocab / 2, gaps = (o->length - 2 * pairs) / 2;
    int32_t *key = o->room[0], *value = o->room[1], *gap = o->room[2];
    choose(d, 1, half - 1, pairs, key);
    choose(d, half, o->vocab - half, pairs, value);
    for (int64_t i = 0; i < o->length; i++) {
        id[i] = 0;
        target[i] = -1;
    }
    for (int64_t i = 0; i < pairs; i++) {
        id[2 * i] = key[i];
        id[2 * i + 1] = value[i];
    }
    /* places without repeats, weights power * (g + 1)^(power - 1): the largest of log weight + Gumbel noise */
    for (int64_t i = 0; i < gaps; i++) gap[i] = 0;
    for (int64_t i = 0; i < pairs; i++) {
        double best = -INFINITY;
        int64_t at = 0;
        for (int64_t g = 0; g < gaps; g++) {
            double u = unit(d), score = (o->power - 1) * log((double)(g + 1)) - log(-log(u > 0 ? u : 0x1p-25));
            if (gap[g] || !(score > best)) continue;
            best = score;
            at = g;
        }
        gap[at] = 1;
        id[2 * pairs + 2 * at] = key[i];
        target[2 * pairs + 2 * at] = value[i];
    }
    for (int64_t i = 0; o->fill && i < o->length; i++)
        if (id[i] == 0) id[i] = (int32_t)below(d, o->vocab);
}

/* 0 blank, 1 asks, 2.. tokens */
static void selective_row(const task_options *o, draws *d, bool train, int32_t *id, int32_t *target)
{
    int64_t body = o->length - o->count, left = o->count;
    (void)train;
    for (int64_t i = 0, told = 0; i < body; i++) {
        bool here = below(d, body - i) < left;
        id[i] = here ? (int32_t)(2 + below(d, o->vocab - 2)) : 0;
        target[i] = -1;
        if (!here) continue;
        target[body + told++] = id[i];
        left--;
    }
    for (int64_t i = body; i < o->length; i++) id[i] = 1;
}

/* 0 is the mark */
static void induction_row(const task_options *o, draws *d, bool train, int32_t *id, int32_t *target)
{
    int64_t at = below(d, o->length - 2);
    (void)train;
    for (int64_t i = 0; i < o->length; i++) {
        id[i] = (int32_t)(1 + below(d, o->vocab - 1));
        target[i] = -1;
    }
    id[at] = id[o->length - 1] = 0;
    target[o->length - 1] = id[at + 1];
}

static void make_rows(nsm_sequences *s, const nsmi_options *o, task_options *t,
                      void (*row)(const task_options *o, draws *d, bool train, int32_t *id, int32_t *target))
{
    const int64_t rows[NSM_SPLIT_PARTS] = { nsmi_option_int(o, "train", 1, INT32_MAX, 20000), nsmi_option_int(o, "valid", 0, INT32_MAX, 1000),
                                            nsmi_option_int(o, "test", 0, INT32_MAX, 1000) };
    uint64_t seed = (uint64_t)nsmi_option_int(o, "seed", 0, INT64_MAX, 0);
    s->kind = NSM_SEQUENCE_TOKENS;
    s->vocab = s->classes = t->vocab;
    for (int i = 0; i < 3; i++) t->room[i] = nsmi_malloc(s->ctx, (size_t)(t->vocab + t->length) * sizeof(int32_t));
    for (int p = 0; p < NSM_SPLIT_PARTS && !nsmi_failed(s->ctx); p++) {
        int64_t size;
        if (!nsmi_mul(rows[p], t->length, &size)) nsm_error_set(s->ctx, NSM_EINVAL, "%s: too many rows", o->who);
        int32_t *id = nsmi_failed(s->ctx) ? NULL : nsmi_calloc(s->ctx, (size_t)size, sizeof *id),
                *target = id ? nsmi_calloc(s->ctx, (size_t)size, sizeof *target) : NULL;
        s->part[p] = (nsm_sequence_part){ .rows = rows[p], .length = t->length, .id = id, .target = target };
        for (int64_t r = 0; target && r < rows[p]; r++) {
            draws d = { { seed * 4 + (uint64_t)p, (uint64_t)r << 24 }, 0 };
            row(t, &d, p == NSM_TRAIN, id + r * t->length, target + r * t->length);
        }
        if (!rows[p]) {
            free(id);
            free(target);
            s->part[p] = (nsm_sequence_part){ 0 };
        }
    }
    for (int i = 0; i < 3; i++) free(t->room[i]);
}

static void make_mqar(nsm_sequences *s, const char *source, const nsmi_options *o)
{
    task_options t = { .length = nsmi_option_int(o, "length", 4, 1 << 22, 64), .vocab = nsmi_option_int(o, "vocab", 8, 1 << 22, 256),
                       .fill = nsmi_option_bool(o, "fill", true), .power = nsmi_option_float(o, "power", 0, 10, 0.01) };
    (void)source;
    t.count = nsmi_option_int(o, "pairs", 1, 1 << 20, 8);
    t.least = nsmi_option_int(o, "least", 1, t.count, t.count > 1 ? t.count / 2 : 1);
    if (!nsmi_failed(s->ctx) && (4 * t.count > t.length || t.count > t.vocab / 2 - 1))
        nsm_error_set(s->ctx, NSM_EINVAL, "%s: %lld pairs need a length of 4 pairs or more, and half the vocabulary more than pairs", o->who, (long long)t.count);
    if (!nsmi_failed(s->ctx)) make_rows(s, o, &t, mqar_row);
}

static void make_selective(nsm_sequences *s, const char *source, const nsmi_options *o)
{
    task_options t = { .length = nsmi_option_int(o, "length", 2, 1 << 22, 64), .vocab = nsmi_option_int(o, "vocab", 3, 1 << 22, 16),
                       .count = nsmi_option_int(o, "tokens", 1, 1 << 20, 8) };
    (void)source;
    if (!nsmi_failed(s->ctx) && t.count > t.length)
        nsm_error_set(s->ctx, NSM_EINVAL, "%s: %lld tokens do not fit %lld places", o->who, (long long)t.count, (long long)t.length);
    t.length += t.count; /* the answers stand behind */
    if (!nsmi_failed(s->ctx)) make_rows(s, o, &t, selective_row);
}

static void make_induction(nsm_sequences *s, const char *source, const nsmi_options *o)
{
    task_options t = { .length = nsmi_option_int(o, "length", 3, 1 << 22, 64), .vocab = nsmi_option_int(o, "vocab", 3, 1 << 22, 16) };
    (void)source;
    if (!nsmi_failed(s->ctx)) make_rows(s, o, &t, induction_row);
}

/* ---- the tables ---- */
typedef struct {
    nsm_format about;
    void (*run)(nsm_sequences *s, const char *source, const nsmi_options *o);
} maker;

#define ROWS "train=20000  rows to train on\nvalid=1000  rows\ntest=1000  rows\nseed=0  of all draws\n"

static const maker formats[] = {
    { { "text", "text, plain or gzip, as one stream of tokens", "unit=character  or byte\nvalid=0.1  share at the end\ntest=0  share behind that\n" }, make_text },
    { { NULL, NULL, NULL }, NULL },
};
static const maker tasks[] = {
    { { "mqar", "sequences: multi-query associative recall",
        "length=64  tokens\nvocab=256  half of it keys, half values\npairs=8  to recall\nleast=4  of them in a training row\n"
        "fill=true  random tokens between, else 0\npower=0.01  of the gaps' law\n" ROWS }, make_mqar },
    { { "selective_copying", "sequences: tell the tokens that stood among blanks", "length=64  places\ntokens=8  among them\nvocab=16  two of it signs\n" ROWS }, make_selective },
    { { "induction", "sequences: what followed the mark the first time?", "length=64  tokens\nvocab=16  one of it the mark\n" ROWS }, make_induction },
    { { NULL, NULL, NULL }, NULL },
};

const nsm_format *nsm_sequences_format(int i) { return i >= 0 && i < (int)(sizeof formats / sizeof *formats) - 1 ? &formats[i].about : NULL; }
const nsm_format *nsm_sequences_task(int i) { return i >= 0 && i < (int)(sizeof tasks / sizeof *tasks) - 1 ? &tasks[i].about : NULL; }

static nsm_sequences *make(nsm_ctx *ctx, const maker *table, const char *verb, const char *name, const char *source, const nsm_option *option, int options)
{
    char who[64], known[200] = "";
    if (nsmi_failed(ctx)) return NULL;
    snprintf(who, sizeof who, "%s %.40s", verb, name);
    nsmi_options o = { ctx, who, option, options };
    for (; table->run && strcmp(table->about.name, name); table++)
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", *known ? ", " : "", table->about.name);
    if (!table->run) {
        nsm_error_set(ctx, NSM_EINVAL, "%s: there is no %.40s; there are %s", verb, name, known);
        return NULL;
    }
    if (!nsmi_options_known(&o, table->about.options)) return NULL;
    nsm_sequences *s = nsmi_calloc(ctx, 1, sizeof *s);
    if (!s) return NULL;
    s->ctx = ctx;
    s->name = source ? nsmi_stem(ctx, source) : nsmi_strdup(ctx, name);
    s->description = nsmi_strdup(ctx, table->about.help);
    table->run(s, source, &o);
    if (!nsmi_failed(ctx)) nsm_sequences_validate(s);
    if (!nsmi_failed(ctx)) return s;
    nsm_sequences_free(s);
    return NULL;
}

nsm_sequences *nsm_sequences_import(nsm_ctx *ctx, const char *format, const char *source, const nsm_option *option, int options)
{
    return make(ctx, formats, "import", format, source, option, options);
}

nsm_sequences *nsm_sequences_generate(nsm_ctx *ctx, const char *task, const nsm_option *option, int options)
{
    return make(ctx, tasks, "generate", task, NULL, option, options);
}
