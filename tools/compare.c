/* compare.c - nsm compare: the same work for every system, and a table of what came of it.
 *
 * Systems are mixers, on sequences, or fusers, where the data is a graph's.  Every model is trained
 * on the same rows with the same steps, batches and optimizer; its learning rate is the best of a
 * few, found with one seed and a share of the steps; then it is trained with several seeds.  All of
 * it is jobs in a folder (tools/compare.h), so that a table can be filled over days: what is there
 * is not done again, and models and seeds may be added later. */
#include "config.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/seal.h"
#include "tools/compare.h"
#include "tools/nearest.h"
#include "tools/progress.h"
#include "tools/run.h"

#define FIELD(name, type, fallback, help, range)                                                   \
    {                                                                                              \
#name, SETTING_##type, offsetof(compare_settings, name), fallback, help, NULL, range       \
    }
const setting compare_fields[] = {
    FIELD(lrs, LIST, "0.0003,0.001,0.003,0.01",
          "learning rates to choose from; a single one is taken as it is", ">0"),
    FIELD(trial, REAL, "0.25", "share of the steps that a trial of a learning rate takes",
          "0.001..1"),
    FIELD(lengths, LIST, NULL,
          "tokens after which inference is timed (64,256,1024,4096; with --task scaling 16 k to 1 "
          "M); [] for none",
          ">=1"),
    FIELD(
        state, LIST, "[]",
        "with --match state: bytes of a sequence's state, a row for each (that of the first model)",
        ">=1"),
    FIELD(grow, REAL, "4",
          "with --match state: the most that a mixer's own parameters may grow by for it", ">=1"),
    FIELD(params, INT, "0", "with --match params: so many (0: those of the first model)", ">=0"),
    FIELD(explain, INT, "64",
          "answers of which is measured what they rest on, for each seed (of fusers 2000); 0: none",
          "0..100000"),
    FIELD(explain_k, INT, "4", "inputs that are removed, or alone kept, to measure it",
          "1..1000000"),
    FIELD(segment, INT, "1024", "with --task scaling: tokens of a segment in training",
          "1..1000000"),
    FIELD(limit, REAL, "60",
          "with --task scaling: seconds after which a model whose state grows stops", ">0"),
    FIELD(recipe, STRING, "",
          "settings to begin from (that of the task's name, else what suits the data: lm, "
          "classify, forecast, recall)",
          NULL),
    { NULL, SETTING_BOOL, 0, NULL, NULL, NULL, NULL },
};
static const tool_keys keys[] = {
    { "Keys of the comparison", compare_fields },
    { "Settings of every training; those of one system are given as NAME.KEY=VALUE", train_fields },
    { NULL, NULL }
};
static const tool_option options[] = {
    { "task", 't', "NAME",
      "a task of nsm generate, with its keys as KEY=VALUE; or any name for --data; or scaling: "
      "time against length" },
    { "data", 'd', "FILE",
      "the task's data, made by nsm generate or nsm import; that of a graph: fusers are compared" },
    { "models", 'm', "A,B,...",
      "mixers, or fusers, each with keys of its own if wanted, as nsm:s=32:window=1 (all)" },
    { "match", 0, "WHAT", "make params, state or both equal (none)" },
    { "seeds", 0, "N", "runs of each model, from --seed on (3)" },
    { "steps", 0, "N", "steps of a run (what the recipe has)" },
    { "jobs", 'j', "N", "runs at a time, each with --threads threads, 1 unless said (1)" },
    { "out", 'o', "DIR", "the comparison's folder (compare/TASK)" },
    { "work", 0, "DIR", "do one job of a comparison, whose folder this is" },
    { NULL, 0, NULL, NULL },
};

/* ---- pairs: the comparison's, the task's, a system's, or of every training ---- */
static const nsm_format *task_of(const char *name)
{
    for (int i = 0; nsm_sequences_task(i); i++)
        if (!strcmp(nsm_sequences_task(i)->name, name)) return nsm_sequences_task(i);
    return NULL;
}

static bool is_key_of(const nsm_format *f, const char *pair)
{
    size_t n = strcspn(pair, "=");
    for (const char *line = f ? f->options : NULL; line && *line;
         line += strcspn(line, "\n"), line += *line == '\n')
        if (strcspn(line, "=") == n && !strncmp(line, pair, n)) return true;
    return false;
}

/* The name of system number i; NULL: there are no more. */
static const char *system_name(const comparison *c, int i)
{
    if (!c->fused) return nsm_mixer_types()[i] ? nsm_mixer_types()[i]->name : NULL;
    return nsm_fuser_types()[i] ? nsm_fuser_types()[i]->name : NULL;
}

static bool is_system(const comparison *c, const char *name)
{
    return c->fused ? nsm_fuser_find(name) != NULL : nsm_mixer_find(name) != NULL;
}

/* "nsm.s=32" is of system nsm: its length before the point; 0: of none. */
static size_t system_of(const comparison *c, const char *pair)
{
    size_t n = strcspn(pair, ".=");
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)(n < 63 ? n : 63), pair);
    return pair[n] == '.' && is_system(c, name) ? n : 0;
}

static bool is_own(const char *pair)
{
    char key[64];
    snprintf(key, sizeof key, "%.*s", (int)strcspn(pair, "="), pair);
    return settings_find(compare_fields, key) != NULL;
}

/* The pairs that are `wanted`, in an array to be freed. */
typedef enum { OF_COMPARE, OF_TASK, OF_SYSTEMS, OF_TRAINING } owner;
static char **pairs_of(const comparison *c, const nsm_format *f, owner wanted, int *count)
{
    char **list = calloc((size_t)c->t->pairs + 1, sizeof *list);
    *count = 0;
    for (int i = 0; list && i < c->t->pairs; i++) {
        char *p = c->t->pair[i];
        owner is = is_own(p)         ? OF_COMPARE
                   : system_of(c, p) ? OF_SYSTEMS
                   : is_key_of(f, p) ? OF_TASK
                                     : OF_TRAINING;
        if (is == wanted) list[(*count)++] = p;
    }
    if (!list) nsm_error_set(c->ctx, NSM_ENOMEM, "out of memory");
    return list;
}

/* ---- the data ---- */
/* The digest that the file's seal holds of all that is in it. */
static int digest_of(nsm_ctx *ctx, const char *path, char digest[33])
{
    unsigned char byte[16] = { 0 };
    FILE *f = nsm_error(ctx) ? NULL : fopen(path, "rb");
    bool ok = f && !fseek(f, 40, SEEK_SET) && fread(byte, 1, sizeof byte, f) == sizeof byte;
    if (f) fclose(f);
    for (int i = 0; i < 16; i++) sprintf(digest + 2 * i, "%02x", byte[i]);
    return ok ? NSM_OK : nsm_error_set(ctx, NSM_EIO, "%s: it cannot be read", path);
}

/* Make the task anew: equal keys and seed give an equal file, so one that is there must be it. */
static int make_data(comparison *c, const nsm_format *f)
{
    int pairs, options_count = 0;
    char path[COMPARE_PATH], **pair = pairs_of(c, f, OF_TASK, &pairs), before[33];
    nsm_option *list = calloc((size_t)pairs + 1, sizeof *list);
    for (int i = 0; pair && list && i < pairs; i++) {
        char *value = strchr(pair[i], '=');
        *value = 0;
        list[options_count++] = (nsm_option){ pair[i], value + 1 };
    }
    c->ds = nsm_sequences_generate(c->ctx, f->name, list, options_count);
    for (int i = 0; i < options_count; i++)
        *strchr(pair[i], 0) = '='; /* the command line as it was */
    bool there = !access(c->data, F_OK);
    snprintf(path, sizeof path, "%s%s", c->data, there ? ".new" : "");
    if (c->ds && !make_folder(c->ctx, c->out)) nsm_sequences_save(c->ds, path);
    if (!digest_of(c->ctx, path, c->digest) && there && !digest_of(c->ctx, c->data, before)) {
        if (strcmp(before, c->digest))
            nsm_error_set(c->ctx, NSM_EINVAL,
                          "%s is of other keys of the task; compare in another folder", c->data);
        unlink(path);
    }
    free(list);
    free(pair);
    return nsm_error(c->ctx);
}

static int take_data(comparison *c)
{
    const char *data = tool_get(c->t, "data"), *task = tool_get(c->t, "task");
    const nsm_format *f = data || c->scaling ? NULL : task_of(task);
    if (c->scaling) return make_folder(c->ctx, c->out);
    if (data) {
        snprintf(c->data, sizeof c->data, "%s", data);
        if (c->fused) c->things = nsm_dataset_load(c->ctx, data, NULL);
        else c->ds = nsm_sequences_load(c->ctx, data);
        return digest_of(c->ctx, data, c->digest) || make_folder(c->ctx, c->out) ? nsm_error(c->ctx)
                                                                                 : NSM_OK;
    }
    snprintf(c->data, sizeof c->data, "%s/data.h5", c->out);
    return make_data(c, f);
}

/* ---- the rows ---- */
static void set_options(comparison *c, contender *m, const char *own)
{
    char text[1024] = "";
    const char *system = compare_system(m);
    size_t name = strlen(system);
    for (int i = 0; i < c->t->pairs; i++) {
        const char *p = c->t->pair[i];
        if (system_of(c, p) == name && !strncmp(p, system, name))
            snprintf(text + strlen(text), sizeof text - strlen(text), "%s ", p + name + 1);
    }
    snprintf(text + strlen(text), sizeof text - strlen(text), "%s", own);
    for (char *p = text; *p; p++)
        if (*p == ':') *p = ' ';
    size_t n = strlen(text);
    if (n && text[n - 1] == ' ') text[n - 1] = 0;
    settings_set(c->ctx, train_fields, &m->o, c->fused ? "fuser" : "mixer", system, "--models");
    settings_set(c->ctx, train_fields, &m->o, c->fused ? "fuser_options" : "mixer_options", text,
                 "--models");
}

/* "nsm:s=32", the number of its state's size among those asked for. */
static int add_row(comparison *c, const char *text, int size)
{
    char name[64];
    nearest n = { 0 };
    snprintf(name, sizeof name, "%.*s", (int)strcspn(text, ":"), text);
    contender *more = realloc(c->model, (size_t)(c->models + 1) * sizeof *more);
    if (!more) return nsm_error_set(c->ctx, NSM_ENOMEM, "out of memory");
    c->model = more;
    contender *m = &c->model[c->models];
    *m = (contender){ .lr = NAN };
    if (c->fused) m->fuser = nsm_fuser_find(name);
    else m->type = nsm_mixer_find(name);
    if (!m->type && !m->fuser) {
        for (int i = 0; system_name(c, i); i++) nearest_try(&n, name, system_name(c, i));
        return nsm_error_set(c->ctx, NSM_EINVAL,
                             "--models: there is no %s \"%s\"; the nearest is \"%s\"",
                             c->fused ? "fuser" : "mixer", name, n.name);
    }
    c->models++;
    snprintf(m->label, sizeof m->label, "%.200s", text);
    if (c->s.state.count > 1)
        snprintf(m->label + strlen(m->label), 32, "@%.0f", c->s.state.value[size]);
    snprintf(m->folder, sizeof m->folder, "%.1000s/runs/%.255s", c->out, m->label);
    for (char *p = m->folder + strlen(c->out) + 6; *p; p++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.=@", *p))
            *p = '-';
    if (!settings_copy(c->ctx, train_fields, &c->base, &m->o))
        set_options(c, m, text + strcspn(text, ":") + (text[strcspn(text, ":")] == ':'));
    return nsm_error(c->ctx);
}

static int add_rows(comparison *c)
{
    const char *models = tool_get(c->t, "models");
    char text[256];
    int each = c->s.state.count ? c->s.state.count : 1;
    for (int i = 0; !models && system_name(c, i); i++)
        for (int k = 0; k < each && !nsm_error(c->ctx); k++) add_row(c, system_name(c, i), k);
    for (const char *p = models; p && *p; p += strcspn(p, ","), p += *p == ',') {
        snprintf(text, sizeof text, "%.*s", (int)strcspn(p, ","), p);
        for (int k = 0; k < each && !nsm_error(c->ctx); k++) add_row(c, text, k);
    }
    if (!c->models) nsm_error_set(c->ctx, NSM_EINVAL, "--models: none is named");
    return nsm_error(c->ctx);
}

/* ---- what is asked for ---- */
static int number(comparison *c, const char *option, int64_t least, int64_t *value)
{
    const char *text = tool_get(c->t, option);
    if (!text || (int_parse(text, value) && *value >= least && *value <= 1000000000))
        return TOOL_DONE;
    return tool_usage(c->t, "--%s is \"%s\", but must be a whole number, %lld or more", option,
                      text, (long long)least);
}

static int read_match(comparison *c)
{
    const char *what = tool_get(c->t, "match");
    c->match = !what || !strcmp(what, "none") ? MATCH_NONE
               : !strcmp(what, "params")      ? MATCH_PARAMS
               : !strcmp(what, "state")       ? MATCH_STATE
               : !strcmp(what, "both")        ? (compare_match)(MATCH_PARAMS | MATCH_STATE)
                                              : (compare_match)-1;
    if ((int)c->match < 0)
        return tool_usage(c->t, "--match is \"%s\", but must be params, state, both or none", what);
    if (c->fused && c->match & MATCH_STATE)
        return tool_usage(c->t, "--match %s: a fuser carries no state from call to call; params "
                                "alone can be matched", what);
    if (c->scaling && c->match & MATCH_PARAMS)
        return tool_usage(c->t, "--task scaling can match state alone");
    if (c->s.state.count && !(c->match & MATCH_STATE))
        return tool_usage(c->t, "state= is of use with --match state or both alone");
    return TOOL_DONE;
}

/* A key of the comparison that was not given has this value. */
static int fall_back(comparison *c, const char *key, const char *value)
{
    size_t n = strlen(key);
    for (int i = 0; i < c->t->pairs; i++)
        if (!strncmp(c->t->pair[i], key, n) && c->t->pair[i][n] == '=') return NSM_OK;
    return settings_set(c->ctx, compare_fields, &c->s, key, value, "nsm compare");
}

static int set_defaults(comparison *c)
{
    if (c->fused) fall_back(c, "explain", "2000");
    if (c->fused && c->s.lengths.count)
        nsm_error_set(c->ctx, NSM_EINVAL,
                      "lengths= is of sequences; nsm bench fuser times sets of elements");
    if (c->fused) return nsm_error(c->ctx);
    return fall_back(c, "lengths",
                     c->scaling ? "16384,32768,65536,131072,262144,524288,1048576"
                                : "64,256,1024,4096");
}

/* Is this the file of a graph?  What is wrong with it is said when it is read. */
static bool is_graph(nsm_ctx *ctx, const char *data)
{
    char kind[NSMI_KIND_BYTES] = "";
    if (data && nsmi_seal_kind(ctx, data, kind)) nsm_error_clear(ctx);
    return !strcmp(kind, "dataset");
}

static int read_request(comparison *c)
{
    const char *out = tool_get(c->t, "out"), *task = tool_get(c->t, "task"),
               *data = tool_get(c->t, "data");
    int pairs;
    c->seeds = 3;
    c->jobs = 1;
    if (!task && !data)
        return tool_usage(c->t, "which task? Give --task NAME of nsm generate, or --data FILE");
    c->task = task ? task : "data";
    c->fused = is_graph(c->ctx, data);
    c->scaling = !data && !strcmp(task, "scaling");
    if (!data && !c->scaling && !task_of(task)) {
        nearest n = { 0 };
        for (int i = 0; nsm_sequences_task(i); i++)
            nearest_try(&n, task, nsm_sequences_task(i)->name);
        return tool_usage(
            c->t, "nsm generate makes no task \"%s\" (the nearest is \"%s\"): give --data FILE too",
            task, n.name);
    }
    snprintf(c->out, sizeof c->out, "%s%s", out ? out : "compare/", out ? "" : c->task);
    char **pair = pairs_of(c, NULL, OF_COMPARE, &pairs);
    settings_init(c->ctx, compare_fields, &c->s);
    settings_pairs(c->ctx, compare_fields, &c->s, pairs, pair);
    free(pair);
    if (nsm_error(c->ctx)) return tool_usage(c->t, "%s", nsm_error_message(c->ctx));
    if (!c->s.lrs.count) return tool_usage(c->t, "lrs= is empty");
    if (number(c, "seeds", 1, &c->seeds) || number(c, "steps", 1, &c->steps) ||
        number(c, "jobs", 1, &c->jobs))
        return TOOL_USAGE;
    if (set_defaults(c)) return tool_error(c->t);
    return read_match(c);
}

/* Where settings begin: a recipe of the task's name, else what suits the data. */
static const char *recipe_of(const comparison *c)
{
    if (*c->s.recipe) return c->s.recipe;
    if (recipe_find(c->task)) return c->task;
    if (c->fused) return "fused";
    switch (c->ds ? c->ds->kind : NSM_SEQUENCE_STREAM) {
    case NSM_SEQUENCE_STREAM: return "lm";
    case NSM_SEQUENCE_CLASS: return "classify";
    case NSM_SEQUENCE_SERIES: return "forecast";
    default: return "recall";
    }
}

/* Steps of an epoch over the training part. */
static int read_epoch(comparison *c)
{
    const train_options *o = &c->base;
    const nsm_dataset_split *split = nsm_dataset_split_find(c->things,
                                                            *o->split ? o->split : NULL);
    if (!split) return nsm_error(c->ctx);
    if (!*o->fuser || o->batch_size < 1 || !split->count[NSM_TRAIN])
        return nsm_error_set(c->ctx, NSM_EINVAL,
                             "%s: fusers are compared with a recipe of fused models, a batch_size "
                             "and training nodes", c->data);
    c->epoch_steps = (split->count[NSM_TRAIN] + o->batch_size - 1) / o->batch_size;
    return NSM_OK;
}

/* Settings that all share: the recipe's, and those of the command line. */
static int read_settings(comparison *c)
{
    int pairs;
    char **pair = pairs_of(c, tool_get(c->t, "data") ? NULL : task_of(c->task), OF_TRAINING,
                           &pairs);
    recipe_settings(c->ctx, recipe_of(c), pairs, pair, &c->base);
    for (int i = 0; i < pairs && !nsm_error(c->ctx); i++)
        if (!strncmp(pair[i], "steps=", 6) || !strncmp(pair[i], "seeds=", 6) ||
            !strncmp(pair[i], "data=", 5) || !strncmp(pair[i], "mixer", 5) ||
            !strncmp(pair[i], "fuser", 5))
            nsm_error_set(c->ctx, NSM_EINVAL,
                          "%s: of a comparison this is said by an option (nsm compare --help)",
                          pair[i]);
    free(pair);
    if (nsm_error(c->ctx)) return tool_usage(c->t, "%s", nsm_error_message(c->ctx));
    if (c->fused && read_epoch(c)) return tool_error(c->t);
    if (!c->steps)
        c->steps = c->base.epochs * (c->fused        ? c->epoch_steps
                                     : c->base.steps ? c->base.steps
                                                     : 100);
    c->base.charts = false;
    c->base.checkpoint_every = 1;
    settings_set(c->ctx, train_fields, &c->base, "data", c->data, "--data");
    return NSM_OK;
}

static void close_comparison(comparison *c)
{
    for (int i = 0; i < c->models; i++) settings_clear(train_fields, &c->model[i].o);
    free(c->model);
    settings_clear(train_fields, &c->base);
    settings_clear(compare_fields, &c->s);
    nsm_sequences_free(c->ds);
    nsm_dataset_free(c->things);
}

static int run_compare(tool *t)
{
    comparison c = { .t = t, .ctx = t->ctx };
    if (tool_get(t, "work")) return compare_work(t, tool_get(t, "work"));
    int code = read_request(&c);
    stop_install();
    if (code == TOOL_DONE && take_data(&c)) code = tool_error(t);
    if (code == TOOL_DONE) code = read_settings(&c);
    if (code == TOOL_DONE && (add_rows(&c) || compare_sizes(&c))) code = tool_error(t);
    if (code == TOOL_DONE) {
        code = compare_run(&c);
        int told = nsm_error(t->ctx) ? code
                   : c.scaling       ? compare_scaling_report(&c)
                                     : compare_report(&c);
        if (code == TOOL_DONE) code = told;
    }
    close_comparison(&c);
    return code;
}

const tool_command compare_command = {
    .name = "compare",
    .args = "[KEY=VALUE...]",
    .summary = "Train several mixers or fusers on the same work, and tell how they did.",
    .details = "Every model sees the same rows for the same steps; its learning rate is chosen "
               "among lrs with one seed and a share of the "
               "steps.  The folder then holds the table (table.txt, table.csv), cost.png, "
               "state.png and a page, index.html.  Stop it at any "
               "moment and give the same command again: what is done is kept, and models or seeds "
               "may be added.",
    .options = options,
    .keys = keys,
    .least = 0,
    .most = 0,
    .run = run_compare,
};
