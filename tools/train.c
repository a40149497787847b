/* train.c - nsm train: a recipe or a configuration becomes a trained model in a run folder. */
#include "config.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include "tools/fused.h"
#include "tools/link.h"
#include "tools/node.h"
#include "tools/pictures.h"
#include "tools/progress.h"
#include "tools/recipe.h"
#include "tools/report.h"
#include "tools/sequence.h"
#include "tools/trainer.h"

static const tool_option options[] = {
    { "data", 'd', "FILE", "the dataset (also data=FILE)" },
    { "out", 'o', "DIR", "the run's folder (runs/RECIPE-DATASET)" },
    { "resume", 'r', NULL,
      "go on from the newest whole checkpoint in the folder; start afresh where there is none" },
    { "dry-run", 'n', NULL,
      "print parameters, estimated peak memory and time of an epoch, and stop" },
    { NULL, 0, NULL, NULL },
};
static const tool_keys keys[] = { { "Settings", train_fields }, { NULL, NULL } };

typedef struct {
    tool *t;
    train_options o;
    nsm_dataset *ds;       /* of a graph, or ... */
    nsm_sequences *sequences;
    const char *folder;
    char folder_text[4096];
} job;

static double peak_mib(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)u.ru_maxrss / 1024;
}

/* "runs/gcn-cora" for gcn on data/cora.h5 */
static void default_folder(job *j)
{
    const char *base = strrchr(j->o.data, '/'), *what = *j->o.mixer    ? j->o.mixer
                                                        : *j->o.recipe ? j->o.recipe
                                                                       : j->o.model;
    base = base ? base + 1 : j->o.data;
    size_t n = strlen(base);
    if (n > 3 && !strcmp(base + n - 3, ".h5")) n -= 3;
    snprintf(j->folder_text, sizeof j->folder_text, "runs/%s-%.*s", what, (int)n, base);
    j->folder = j->folder_text;
}

static int read_settings(job *j)
{
    tool *t = j->t;
    if (recipe_settings(t->ctx, t->arg[0], t->pairs, t->pair, &j->o))
        return tool_usage(t, "%s", nsm_error_message(t->ctx));
    const char *data = tool_get(t, "data");
    if (data && settings_set(t->ctx, train_fields, &j->o, "data", data, "--data"))
        return tool_error(t);
    if (!*j->o.data)
        return tool_usage(t,
                          "which dataset? Give --data FILE; nsm import and nsm generate make one");
    j->folder = tool_get(t, "out");
    if (!j->folder) default_folder(j);
    return TOOL_DONE;
}

/* ---- one seed ---- */
/* rate: what was gone over in a second, under its name; NaN: nothing to say */
static json_t *result_of(const task *what, const trainer_result *r, const char *rate_of,
                         double rate)
{
    const trainer_state *s = &r->state;
    json_t *o = json_object();
    json_object_set_new(o, "test", report_real(s->kept[NSM_TEST]));
    json_object_set_new(o, "valid", report_real(s->kept[NSM_VALID]));
    json_object_set_new(o, "metric", json_string(what->metric));
    json_object_set_new(o, "epoch", json_integer(s->kept_epoch));
    json_object_set_new(o, "epochs", json_integer(s->epoch));
    json_object_set_new(o, "seconds", report_real(r->seconds));
    json_object_set_new(o, "epoch_ms", report_real(r->epoch_ms));
    json_object_set_new(o, "peak_mib", report_real(floor(peak_mib())));
    if (isfinite(rate)) json_object_set_new(o, rate_of, report_real(floor(rate)));
    json_object_set_new(o, "checkpoint", json_string(r->checkpoint ? r->checkpoint : ""));
    if (r->interrupted) json_object_set_new(o, "interrupted", json_true());
    return o;
}

/* Truth and guess of the test part, for the charts of classes. */
static int draw_classes(job *j, node_task *n, const char *folder, const char *title,
                        const int32_t *guess)
{
    const nsm_dataset_labels *l = &j->ds->label;
    node_list test = node_task_part(n, NSM_TEST);
    int64_t count = test.count;
    int32_t *pair = malloc((size_t)count * 2 * sizeof *pair + 1);
    if (!pair) return nsm_error_set(j->t->ctx, NSM_ENOMEM, "out of memory");
    for (int64_t k = 0; k < count; k++) {
        pair[k] = l->cls[test.node[k]];
        pair[count + k] = guess[test.node[k]];
    }
    int code = picture_classes(j->t->ctx, folder, title, (int)l->columns, l->names, count, pair,
                               pair + count);
    free(pair);
    return code;
}

/* What this program was built to draw. */
#ifdef HAVE_PLPLOT
enum { DRAWS_CHARTS = true };
#else
enum { DRAWS_CHARTS = false };
#endif
#ifdef HAVE_IGRAPH
enum { DRAWS_GRAPHS = true };
#else
enum { DRAWS_GRAPHS = false };
#endif

/* Charts of the kept model. */
static int draw(job *j, node_task *n, const char *folder, const trainer_result *r)
{
    nsm_ctx *ctx = j->t->ctx;
    if (!j->o.charts || r->interrupted) return NSM_OK;
    if (!DRAWS_CHARTS) {
        tool_note(j->t, "no charts: this nsm was built without PLplot");
        return NSM_OK;
    }
    char best[4096], title[256];
    snprintf(best, sizeof best, "%s/best.h5", folder);
    snprintf(title, sizeof title, "%s on %s", *j->o.recipe ? j->o.recipe : j->o.model, j->ds->name);
    if (trainer_load(ctx, best, node_task_base(n)->module) ||
        picture_curves(ctx, folder, title, r->state.kept_epoch))
        return nsm_error(ctx);
    bool classes = j->ds->label.kind == NSM_LABEL_CLASS;
    const int32_t *guess = classes ? node_task_guess(n, node_task_whole(n) ? -1 : NSM_TEST) : NULL;
    if (classes && (!guess || draw_classes(j, n, folder, title, guess))) return nsm_error(ctx);
    if (!DRAWS_GRAPHS) tool_note(j->t, "no picture of a graph: this nsm was built without igraph");
    if (!DRAWS_GRAPHS || !node_task_whole(n)) return NSM_OK;
    char path[4200];
    snprintf(path, sizeof path, "%s/neighbourhood.png", folder);
    return picture_model(ctx, path, j->ds, n,
                         (neighbourhood){ .node = picture_node(ctx, j->ds, j->t->seed),
                                          .guess = guess,
                                          .seed = j->t->seed });
}

/* Train what is told of no graph: its result, and the curves. */
static int train_task(job *j, task *what, const char *name, const char *data, const char *folder,
                      trainer_result *r)
{
    char title[256];
    int code = what ? trainer_run(j->t, what, &j->o, folder, tool_get(j->t, "resume") != NULL, r)
                    : nsm_error(j->t->ctx);
    snprintf(title, sizeof title, "%s on %s", name, data);
    if (!code && j->o.charts && DRAWS_CHARTS && !r->interrupted)
        code = picture_curves(j->t->ctx, folder, title, r->state.kept_epoch);
    return code;
}

static json_t *sized_result(const task *what, const trainer_result *r, const char *rate_of,
                            double rate)
{
    json_t *o = result_of(what, r, rate_of, rate);
    json_object_set_new(o, "parameters", json_integer(nsm_module_count(what->module)));
    return o;
}

static int train_sequences(job *j, const char *folder, trainer_result *r, json_t **result)
{
    sequence_task *s = sequence_task_new(j->t->ctx, &j->o, j->sequences, NULL);
    task *what = s ? sequence_task_base(s) : NULL;
    int code = train_task(j, what, j->o.mixer, j->sequences->name, folder, r);
    if (!code) *result = sized_result(what, r, "tokens_per_s", sequence_task_rate(s));
    sequence_task_free(s);
    return code;
}

/* Once more at the epoch that counts, for what is told beside its score. */
static int look_again(job *j, task *what, const char *folder, const trainer_result *r)
{
    char best[4200];
    part_score part[3];
    if (r->interrupted) return NSM_OK;
    snprintf(best, sizeof best, "%s/best.h5", folder);
    int code = trainer_load(j->t->ctx, best, what->module);
    return code ? code : what->evaluate(what, part);
}

static int train_fused(job *j, const char *folder, trainer_result *r, json_t **result)
{
    fused_task *s = fused_task_new(j->t->ctx, &j->o, j->ds, NULL);
    task *what = s ? fused_task_base(s) : NULL;
    int code = train_task(j, what, j->o.fuser, j->ds->name, folder, r);
    if (!code) *result = sized_result(what, r, NULL, NAN);
    if (!code && *j->o.sides && !(code = look_again(j, what, folder, r)) && !r->interrupted)
        fused_task_details(s, *result);
    fused_task_free(s);
    return code;
}

static int train_links(job *j, const char *folder, trainer_result *r, json_t **result)
{
    link_task *l = link_task_new(j->t->ctx, &j->o, j->ds, NULL);
    task *what = l ? link_task_base(l) : NULL;
    int code = train_task(j, what, j->o.decoder, j->ds->name, folder, r);
    if (!code) *result = result_of(what, r, "triples_per_s", link_task_rate(l));
    if (!code && !(code = look_again(j, what, folder, r)) && !r->interrupted)
        link_task_details(l, *result);
    link_task_free(l);
    return code;
}

static int train_seed(job *j, uint64_t seed, const char *folder, trainer_result *r, json_t **result)
{
    nsm_ctx *ctx = j->t->ctx;
    nsm_random_set(ctx, (nsm_random){ seed, 0 });
    if (j->sequences) return train_sequences(j, folder, r, result);
    if (fused_wanted(&j->o)) return train_fused(j, folder, r, result);
    if (link_wanted(&j->o)) return train_links(j, folder, r, result);
    node_task *n = node_task_new(ctx, &j->o, j->ds, NULL);
    int code = n ? trainer_run(j->t, node_task_base(n), &j->o, folder,
                               tool_get(j->t, "resume") != NULL, r)
                 : nsm_error(ctx);
    if (!code) {
        *result = result_of(node_task_base(n), r, "sampled_edges_per_s", node_task_sampled_rate(n));
        code = draw(j, n, folder, r);
    }
    node_task_free(n);
    return code;
}

/* ---- several ---- */
static void mean_and_deviation(const double *x, int64_t n, double *mean, double *deviation)
{
    double sum = 0, square = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i];
    *mean = sum / (double)n;
    for (int64_t i = 0; i < n; i++) square += (x[i] - *mean) * (x[i] - *mean);
    *deviation = n > 1 ? sqrt(square / (double)(n - 1)) : 0;
}

/* The exit code: an interrupted run tells which signal it was. */
static int ended(int code, bool interrupted)
{
    return code == TOOL_DONE && interrupted ? 128 + stop_signal() : code;
}

/* The mean is of the seeds that came to their end. */
static int train_seeds(job *j)
{
    int64_t seeds = j->o.seeds;
    double *test = calloc((size_t)seeds, sizeof *test),
           *valid = calloc((size_t)seeds, sizeof *valid);
    double seconds = 0, epoch_ms = 0, mean, deviation;
    int64_t done = 0;
    bool interrupted = false;
    int code = test && valid ? NSM_OK : nsm_error_set(j->t->ctx, NSM_ENOMEM, "out of memory");
    for (; !code && !interrupted && done < seeds && !stop_signal(); done += !interrupted) {
        char folder[4200];
        trainer_result r = { 0 };
        json_t *line = NULL;
        uint64_t seed = j->t->seed + (uint64_t)done;
        snprintf(folder, sizeof folder, "%s/seed-%llu", j->folder, (unsigned long long)seed);
        code = train_seed(j, seed, folder, &r, &line);
        interrupted = r.interrupted;
        test[done] = r.state.kept[NSM_TEST];
        valid[done] = r.state.kept[NSM_VALID];
        seconds += r.seconds;
        epoch_ms += r.epoch_ms;
        if (line) {
            json_object_set_new(line, "seed", json_integer((json_int_t)seed));
            report_line(j->t, line);
            tool_note(j->t, "seed %llu: test %.4f, valid %.4f, epoch %lld of %lld",
                      (unsigned long long)seed, test[done], valid[done],
                      (long long)r.state.kept_epoch, (long long)r.state.epoch);
        }
        free(r.checkpoint);
    }
    json_t *o = json_object();
    if (!code && done) {
        mean_and_deviation(test, done, &mean, &deviation);
        json_object_set_new(o, "test", report_real(mean));
        json_object_set_new(o, "test_std", report_real(deviation));
        mean_and_deviation(valid, done, &mean, &deviation);
        json_object_set_new(o, "valid", report_real(mean));
        json_object_set_new(o, "valid_std", report_real(deviation));
        json_object_set_new(o, "seeds", json_integer(done));
        json_object_set_new(o, "seconds", report_real(seconds));
        json_object_set_new(o, "epoch_ms", report_real(epoch_ms / (double)done));
        json_object_set_new(o, "peak_mib", report_real(floor(peak_mib())));
    }
    free(test);
    free(valid);
    if (!code) return ended(report_result(j->t, o), done < seeds);
    json_decref(o);
    return tool_error(j->t);
}

static int train_once(job *j)
{
    trainer_result r = { 0 };
    json_t *result = NULL;
    int code = train_seed(j, j->t->seed, j->folder, &r, &result);
    free(r.checkpoint);
    if (!code) return ended(report_result(j->t, result), r.interrupted);
    json_decref(result);
    return tool_error(j->t);
}

static int dry_run(job *j)
{
    node_estimate e;
    if (node_task_estimate(j->t->ctx, &j->o, j->ds, &e)) return tool_error(j->t);
    json_t *o = json_object();
    json_object_set_new(o, "parameters", json_integer(e.parameters));
    json_object_set_new(o, "estimated_peak_mib",
                        report_real(floor((double)e.peak_bytes / (1 << 20))));
    json_object_set_new(o, "estimated_epoch_ms", report_real(1e3 * e.epoch_seconds));
    json_object_set_new(o, "measured_on_share_of_graph", report_real(e.share));
    json_object_set_new(o, "epochs", json_integer(j->o.epochs));
    return report_result(j->t, o);
}

static int say_size(job *j, task *what)
{
    json_t *o = json_object();
    json_object_set_new(o, "parameters", json_integer(nsm_module_count(what->module)));
    json_object_set_new(o, "steps_per_epoch", json_integer(what->steps_per_epoch));
    json_object_set_new(o, "epochs", json_integer(j->o.epochs));
    return report_result(j->t, o);
}

static int dry_run_fused(job *j)
{
    fused_task *s = fused_task_new(j->t->ctx, &j->o, j->ds, NULL);
    int code = s ? say_size(j, fused_task_base(s)) : tool_error(j->t);
    fused_task_free(s);
    return code;
}

static int dry_run_sequences(job *j)
{
    sequence_task *s = sequence_task_new(j->t->ctx, &j->o, j->sequences, NULL);
    int code = s ? say_size(j, sequence_task_base(s)) : tool_error(j->t);
    sequence_task_free(s);
    return code;
}

static int dry_run_links(job *j)
{
    link_task *l = link_task_new(j->t->ctx, &j->o, j->ds, NULL);
    int code = l ? say_size(j, link_task_base(l)) : tool_error(j->t);
    link_task_free(l);
    return code;
}

static int run_train(tool *t)
{
    job j = { .t = t };
    int code = read_settings(&j);
    if (code == TOOL_DONE) {
        stop_install();
        if (sequence_wanted(&j.o)) j.sequences = nsm_sequences_load(t->ctx, j.o.data);
        else j.ds = node_dataset(t->ctx, &j.o);
        if (!j.ds && !j.sequences) code = tool_error(t);
        else if (j.sequences && tool_get(t, "dry-run")) code = dry_run_sequences(&j);
        else if (tool_get(t, "dry-run"))
            code = fused_wanted(&j.o)  ? dry_run_fused(&j)
                   : link_wanted(&j.o) ? dry_run_links(&j)
                                       : dry_run(&j);
        else code = j.o.seeds > 1 ? train_seeds(&j) : train_once(&j);
        nsm_dataset_free(j.ds);
        nsm_sequences_free(j.sequences);
    }
    settings_clear(train_fields, &j.o);
    return code;
}

const tool_command train_command = {
    .name = "train",
    .args = "RECIPE|CONFIG.yaml [KEY=VALUE...]",
    .summary = "train a model",
    .details =
        "RECIPE is gcn, gat, sage, rgcn or wordnet, with its paper's settings, or lm or recall "
        "for sequences, with mixer=NAME and that mixer's own keys; CONFIG.yaml holds "
        "settings, and may begin from one "
        "with \"recipe: gat\". The folder then holds config.yaml, log.csv, TensorBoard "
        "events, checkpoints, best.h5 and charts. "
        "Ctrl-C ends the step (an epoch, or with batch_size a batch), writes a checkpoint "
        "and stops; --resume goes on bit for bit.  With batch_size the "
        "graph may be larger than what training on the whole of it could hold.",
    .options = options,
    .keys = keys,
    .least = 1,
    .most = 1,
    .run = run_train,
};
