/* split.c - nsm split: say which nodes (or graphs) of a dataset serve for training, validation and
 * testing.  The dataset is written anew, in place or to --out; other splits stay. */
#include <csv.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "tools/progress.h"
#include "tools/summary.h"

typedef struct {
    char *kind;
    double train, valid;
    int64_t min_train, train_per_class, valid_per_class, seed;
} options;

static const setting fields[] = {
    {"kind", SETTING_CHOICE, offsetof(options, kind), "stratified",
     "random: fractions of all; stratified: fractions of each class; per_class: fixed numbers of "
     "each class, the rest for testing",
     "random|stratified|per_class", NULL},
    {"train", SETTING_REAL, offsetof(options, train), "0.1", "fraction for training", NULL, "0..1"},
    {"valid", SETTING_REAL, offsetof(options, valid), "0.1", "fraction for validation", NULL,
     "0..1"},
    {"min_train", SETTING_INT, offsetof(options, min_train), "1",
     "stratified: at least so many of each class train", NULL, ">=1"},
    {"train_per_class", SETTING_INT, offsetof(options, train_per_class), "20",
     "per_class: for training", NULL, ">=1"},
    {"valid_per_class", SETTING_INT, offsetof(options, valid_per_class), "30",
     "per_class: for validation", NULL, ">=1"},
    {"seed", SETTING_INT, offsetof(options, seed), "0", "of the drawing", NULL, ">=0"},
    {0}};
static const tool_keys keys[] = {{"Keys", fields}, {0}};
static const tool_option command_options[] = {
    {"out", 'o', "FILE", "write to FILE and leave DATASET as it is"},
    {"from", 0, "FILE", "read the split: CSV lines INDEX,PART with PART one of train, valid, test"},
    {"remove", 0, NULL, "take the split NAME away"},
    {0}};

/* ---- a split from CSV ---- */

typedef struct {
    nsm_dataset_split *split;
    const char *path;
    nsm_ctx *ctx;
    int64_t limit, index, line;
    int column, part;
    uint8_t *seen; /* [limit] */
    bool counting;
} part_reader;

static int find_part(const char *text)
{
    static const char *const name[] = {"train", "valid", "test", "validation", "val"};
    static const int part[] = {NSM_TRAIN, NSM_VALID, NSM_TEST, NSM_VALID, NSM_VALID};
    for (int i = 0; i < 5; i++)
        if (!strcmp(text, name[i])) return part[i];
    return -1;
}

static void on_field(void *field, size_t bytes, void *user)
{
    part_reader *r = user;
    const char *text = bytes ? field : "";
    if (r->column == 0 && !int_parse(text, &r->index)) r->index = -1;
    if (r->column == 1) r->part = find_part(text);
    r->column++;
}

static void on_row(int c, void *user)
{
    part_reader *r = user;
    (void)c;
    int columns = r->column;
    r->column = 0;
    r->line++;
    if (nsm_error(r->ctx) || (r->line == 1 && r->index < 0 && r->part < 0)) return; /* a header */
    if (columns != 2 || r->part < 0)
        nsm_error_set(r->ctx, NSM_EFORMAT,
                      "%s:%lld: expected INDEX,PART with PART one of train, valid, test", r->path,
                      (long long)r->line);
    else if (r->index < 0 || r->index >= r->limit)
        nsm_error_set(r->ctx, NSM_EFORMAT, "%s:%lld: the index is not in 0..%lld", r->path,
                      (long long)r->line, (long long)r->limit - 1);
    else if (r->counting && r->seen[r->index]++)
        nsm_error_set(r->ctx, NSM_EFORMAT, "%s:%lld: index %lld comes twice", r->path,
                      (long long)r->line, (long long)r->index);
    if (nsm_error(r->ctx)) return;
    int64_t at = r->split->count[r->part]++;
    if (!r->counting) r->split->index[r->part][at] = (int32_t)r->index;
}

static void read_parts(part_reader *r, FILE *f)
{
    char buf[65536];
    struct csv_parser p;
    if (csv_init(&p, CSV_STRICT | CSV_APPEND_NULL)) {
        nsm_error_set(r->ctx, NSM_ENOMEM, "out of memory for %s", r->path);
        return;
    }
    r->line = 0;
    memset(r->split->count, 0, sizeof r->split->count);
    rewind(f);
    for (size_t n; !nsm_error(r->ctx) && (n = fread(buf, 1, sizeof buf, f)) > 0;)
        if (csv_parse(&p, buf, n, on_field, on_row, r) != n)
            nsm_error_set(r->ctx, NSM_EFORMAT, "%s:%lld: %s", r->path, (long long)r->line + 1,
                          csv_strerror(csv_error(&p)));
    if (ferror(f)) nsm_error_set(r->ctx, NSM_EIO, "%s: %s", r->path, strerror(errno));
    if (!nsm_error(r->ctx)) csv_fini(&p, on_field, on_row, r);
    csv_free(&p);
}

/* Twice through the file: first to count and check, then to fill. */
static int read_split(nsm_dataset *ds, const char *name, const char *path)
{
    part_reader r = {.path = path, .ctx = ds->ctx, .limit = ds->label.count, .counting = true};
    FILE *f = fopen(path, "rb");
    if (!f) return nsm_error_set(ds->ctx, NSM_EIO, "%s: %s", path, strerror(errno));
    r.seen = calloc((size_t)r.limit + 1, 1);
    if (!r.seen) nsm_error_set(ds->ctx, NSM_ENOMEM, "out of memory for %s", path);
    else if ((r.split = nsm_dataset_add_split(ds, name))) read_parts(&r, f);
    for (int i = 0; i < NSM_SPLIT_PARTS && !nsm_error(ds->ctx); i++)
        r.split->index[i] = nsm_dataset_array(ds, r.split->count[i], sizeof(int32_t));
    r.counting = false;
    if (!nsm_error(ds->ctx)) read_parts(&r, f);
    free(r.seen);
    fclose(f);
    return nsm_error(ds->ctx);
}

static bool remove_split(nsm_dataset *ds, const char *name)
{
    for (int i = 0; i < ds->splits; i++) {
        nsm_dataset_split *s = &ds->split[i];
        if (strcmp(s->name, name)) continue;
        for (int k = 0; k < NSM_SPLIT_PARTS; k++) nsm_dataset_release(s->index[k]);
        nsm_dataset_release(s->name);
        memmove(s, s + 1, (size_t)(ds->splits - i - 1) * sizeof *s);
        ds->splits--;
        return true;
    }
    return false;
}

static int change(const tool *t, nsm_dataset *ds, const options *o, const char *name)
{
    bool had = (tool_get(t, "remove") || tool_get(t, "from")) && remove_split(ds, name);
    if (tool_get(t, "remove"))
        return had ? NSM_OK
                   : nsm_error_set(t->ctx, NSM_EINVAL, "%s has no split \"%s\"", t->arg[0], name);
    if (tool_get(t, "from")) return read_split(ds, name, tool_get(t, "from"));
    nsm_split_config c = {.train = o->train,
                          .valid = o->valid,
                          .min_train = o->min_train,
                          .train_per_class = o->train_per_class,
                          .valid_per_class = o->valid_per_class,
                          .seed = t->seeded ? t->seed : (uint64_t)o->seed};
    c.kind = *o->kind == 'r'   ? NSM_SPLIT_RANDOM
             : *o->kind == 's' ? NSM_SPLIT_STRATIFIED
                               : NSM_SPLIT_PER_CLASS;
    return nsm_dataset_split_make(ds, name, &c);
}

static int run_split(tool *t)
{
    options o = {0};
    double began = progress_now();
    const char *out = tool_get(t, "out") ? tool_get(t, "out") : t->arg[0];
    int code = tool_settings(t, fields, &o);
    if (code == TOOL_DONE) {
        nsm_dataset *ds = nsm_dataset_load(t->ctx, t->arg[0], NULL);
        if (ds && change(t, ds, &o, t->args > 1 ? t->arg[1] : "default") == NSM_OK) {
            code = dataset_finish(t, ds, out, began);
        } else {
            code = tool_error(t);
            nsm_dataset_free(ds);
        }
    }
    settings_clear(fields, &o);
    return code;
}

const tool_command split_command = {
    .name = "split",
    .args = "DATASET [NAME] [KEY=VALUE...]",
    .summary = "Make, replace or remove a split of a dataset.",
    .details = "NAME is \"default\" unless given; a split of that name is replaced.",
    .options = command_options,
    .keys = keys,
    .least = 1,
    .most = 2,
    .run = run_split};
