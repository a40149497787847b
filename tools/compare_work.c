/* compare_work.c - One job, in a process of its own.
 *
 * Training is nsm train's own, in a run's folder, taken up from its newest checkpoint.  Time is
 * that of its epochs, over all processes that did them.  Memory: the most that tensors took at
 * once, and the most that the process held, its program and libraries among it.  Times by length: a
 * token's, told after so many others with a carried state, and read among so many others at once.
 */
#include "config.h"
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>
#include "tools/compare.h"
#include "tools/fused.h"
#include "tools/node.h"
#include "tools/progress.h"
#include "tools/report.h"
#include "tools/sequence.h"
#include "tools/trainer.h"

enum { STEPS = 16, RUNS = 5 };

typedef struct {
    tool *t;
    nsm_ctx *ctx;
    const char *folder;
    json_t *job, *result;
    train_options o;
    nsm_sequences *ds;
    nsm_dataset *things;      /* of fused models, in its place */
    int lock;
} worker;

/* The task that the job's settings speak of: one of both. */
typedef struct {
    sequence_task *s;
    fused_task *f;
    task *what; /* NULL: an error */
} opened;

static opened open_task(worker *w, const trainer_meta *trained)
{
    opened t = { 0 };
    if (w->things) t.f = fused_task_new(w->ctx, &w->o, w->things, trained);
    else t.s = sequence_task_new(w->ctx, &w->o, w->ds, trained);
    t.what = t.f ? fused_task_base(t.f) : t.s ? sequence_task_base(t.s) : NULL;
    return t;
}

static void close_task(opened *t)
{
    fused_task_free(t->f);
    sequence_task_free(t->s);
}

/* The most that this process held, of the kernel's own account: ru_maxrss would be its parent's
 * too. */
static double peak_mib(void)
{
    char line[256];
    double kib = NAN;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, "VmHWM:", 6)) kib = strtod(line + 6, NULL);
    if (f) fclose(f);
    return kib / 1024;
}

/* ---- training ---- */
static void put_scores(worker *w, const trainer_result *r, const task *what)
{
    const trainer_state *s = &r->state;
    json_t *o = w->result;
    json_object_set_new(o, "metric", json_string(what->metric));
    json_object_set_new(o, "lower", json_boolean(what->lower));
    json_object_set_new(o, "test", report_real(s->kept[NSM_TEST]));
    json_object_set_new(o, "valid", report_real(s->kept[NSM_VALID]));
    json_object_set_new(o, "test_loss", report_real(s->kept_loss[NSM_TEST]));
    json_object_set_new(o, "valid_loss", report_real(s->kept_loss[NSM_VALID]));
    json_object_set_new(o, "epoch", json_integer(s->kept_epoch));
    json_object_set_new(o, "train_seconds", report_real(r->all_seconds));
}

/* Memory is told only by a process that trained. */
static int train(worker *w)
{
    trainer_result r = { 0 };
    nsm_random_set(
        w->ctx, (nsm_random){ (uint64_t)json_integer_value(json_object_get(w->job, "seed")), 0 });
    opened open = open_task(w, NULL);
    task *what = open.what;
    int code = what ? trainer_run(w->t, what, &w->o, w->folder, true, &r) : nsm_error(w->ctx);
    if (!code && !r.interrupted) {
        put_scores(w, &r, what);
        bool trained = isfinite(r.epoch_ms);
        json_object_set_new(w->result, "parameters", json_integer(nsm_module_count(what->module)));
        json_object_set_new(
            w->result, "tensor_mib",
            report_real(trained ? (double)nsm_ctx_memory(w->ctx).peak_bytes / (1 << 20) : NAN));
        json_object_set_new(w->result, "process_mib", report_real(trained ? peak_mib() : NAN));
    } else if (code == NSM_ENUMBER) { /* a result too: this rate is too high */
        json_object_set_new(w->result, "failed", json_string(nsm_error_message(w->ctx)));
        nsm_error_clear(w->ctx);
    }
    free(r.checkpoint);
    close_task(&open);
    return nsm_error(w->ctx);
}

/* ---- what the answers of a fused model rest on ---- */
static double told(const json_t *measured, const char *key)
{
    const json_t *v = json_object_get(measured, key);
    return v ? json_number_value(v) : NAN;
}

/* How far the accuracy falls; the names are those of compare_explain.c where they mean the same. */
static void put_falls(worker *w, const json_t *measured)
{
    static const struct { const char *name, *key; } fall[] = {
        { "own_comprehensiveness", "without_named" }, { "own_sufficiency", "named_alone" },
        { "random_comprehensiveness", "without_random" },
        { "fall_without_graph", "without_graph" }, { "fall_without_text", "without_text" },
        { "fall_without_picture", "without_picture" },
        { "fall_without_state", "without_most_read_state" },
    };
    double whole = told(measured, "accuracy");
    json_object_set_new(w->result, "answers", report_real(told(measured, "things")));
    json_object_set_new(w->result, "explained_accuracy", report_real(whole));
    for (size_t i = 0; i < sizeof fall / sizeof *fall; i++)
        json_object_set_new(w->result, fall[i].name,
                            report_real(whole - told(measured, fall[i].key)));
}

static int explain_fused(worker *w, const char *trained)
{
    char path[COMPARE_PATH + 32];
    trainer_meta meta = { 0 };
    snprintf(path, sizeof path, "%s/best.h5", trained);
    opened open = { 0 };
    if (!trainer_read(w->ctx, path, &meta)) open = open_task(w, &meta);
    if (open.what && !trainer_load(w->ctx, path, open.what->module)) {
        bool weights = nsm_fuser_find(w->o.fuser)->weights != NULL;
        json_t *measured = fused_task_explain(
            open.f, weights ? json_integer_value(json_object_get(w->job, "k")) : 0,
            json_integer_value(json_object_get(w->job, "answers")));
        if (measured) put_falls(w, measured);
        json_decref(measured);
    }
    close_task(&open);
    trainer_meta_clear(&meta);
    return nsm_error(w->ctx);
}

/* ---- times by length ---- */
static int rising(const void *a, const void *b)
{
    double d = *(const double *)a - *(const double *)b;
    return (d > 0) - (d < 0);
}

static nsm_tensor *tokens_of(nsm_tape *tape, int64_t n, int64_t vocab)
{
    int32_t *id = malloc((size_t)n * sizeof *id);
    for (int64_t i = 0; id && i < n; i++) id[i] = (int32_t)(i * 7919 % vocab);
    nsm_tensor *x = id ? nsm_tape_tensor(tape, NSM_I32, 2, (int64_t[]){ 1, n }, id) : NULL;
    free(id);
    return x;
}

/* Median seconds a token: reading n at once, then each of some more with the state that they left.
 */
static int time_length(nsm_ctx *ctx, nsm_backbone *b, int64_t n, double *read, double *step)
{
    double at_once[RUNS], one[STEPS];
    nsm_tape *tape = nsm_tape_new(ctx);
    nsm_state *s = nsm_backbone_state(b, 1);
    int64_t vocab = nsm_backbone_settings(b)->vocab;
    nsm_tape_inference(tape, true);
    for (int k = -1; k < RUNS && !nsm_error(ctx); k++) {
        nsm_backbone_restart(b, s);
        double began = progress_now();
        nsm_backbone_hidden(tape, b, tokens_of(tape, n, vocab), NULL, NULL, s);
        if (k >= 0) at_once[k] = (progress_now() - began) / (double)n;
        nsm_tape_reset(tape);
    }
    for (int k = -1; k < STEPS && !nsm_error(ctx); k++) {
        nsm_tensor *x = nsm_tape_tensor(tape, NSM_I32, 1, (int64_t[]){ 1 }, &(int32_t){ 1 });
        double began = progress_now();
        nsm_backbone_step(tape, b, x, s);
        if (k >= 0) one[k] = progress_now() - began;
        nsm_tape_reset(tape);
    }
    qsort(at_once, RUNS, sizeof *at_once, rising);
    qsort(one, STEPS, sizeof *one, rising);
    *read = at_once[RUNS / 2];
    *step = one[STEPS / 2];
    nsm_state_free(s);
    nsm_tape_free(tape);
    return nsm_error(ctx);
}

/* Learned positions are left out: there are none for lengths that were not trained on, and they
 * cost next to nothing. */
static int speed(worker *w)
{
    json_t *list = json_array(), *lengths = json_object_get(w->job, "lengths");
    settings_set(w->ctx, train_fields, &w->o, "position", "none", "nsm compare");
    sequence_task *made = sequence_task_new(w->ctx, &w->o, w->ds, NULL);
    nsm_backbone *b = made ? sequence_task_model(made) : NULL;
    for (size_t i = 0; b && nsm_backbone_settings(b)->vocab && i < json_array_size(lengths) &&
                       !nsm_error(w->ctx) && !stop_signal();
         i++) {
        double read, step;
        int64_t n = json_integer_value(json_array_get(lengths, i));
        if (!time_length(w->ctx, b, n, &read, &step))
            json_array_append_new(list, json_pack("{s:I, s:o, s:o}", "tokens", (json_int_t)n,
                                                  "read_us", report_real(1e6 * read), "step_us",
                                                  report_real(1e6 * step)));
    }
    json_object_set_new(w->result, "times", list);
    sequence_task_free(made);
    return nsm_error(w->ctx);
}

/* ---- the job ---- */
/* Its description, and the lock of it: one that an earlier process still has is waited for. */
static int take_job(worker *w)
{
    char path[COMPARE_PATH + 32];
    json_error_t error;
    snprintf(path, sizeof path, "%s/job.json", w->folder);
    w->lock = open(path, O_RDONLY | O_CLOEXEC);
    while (w->lock >= 0 && flock(w->lock, LOCK_EX) && errno == EINTR && !stop_signal()) continue;
    w->job = w->lock < 0 ? NULL : json_load_file(path, 0, &error);
    if (w->lock < 0) return nsm_error_set(w->ctx, NSM_EIO, "%s: %s", path, strerror(errno));
    if (!w->job) return nsm_error_set(w->ctx, NSM_EFORMAT, "%s: %s", path, error.text);
    const char *settings = json_string_value(json_object_get(w->job, "settings")),
               *data = json_string_value(json_object_get(w->job, "data"));
    if (!settings || !data || !json_is_string(json_object_get(w->job, "kind")))
        return nsm_error_set(w->ctx, NSM_EFORMAT, "%s: not a job", path);
    if (settings_init(w->ctx, train_fields, &w->o)) return nsm_error(w->ctx);
    if (settings_parse(w->ctx, train_fields, &w->o, settings, strlen(settings), path, false))
        return nsm_error(w->ctx);
    settings_set(w->ctx, train_fields, &w->o, "data", data, path);
    if (fused_wanted(&w->o)) w->things = node_dataset(w->ctx, &w->o);
    else if (*data) w->ds = nsm_sequences_load(w->ctx, data); /* time against length has none */
    return nsm_error(w->ctx);
}

static int do_job(worker *w)
{
    const char *kind = json_string_value(json_object_get(w->job, "kind"));
    char trained[COMPARE_PATH];
    if (!strcmp(kind, "scaling")) return compare_scaling(w->ctx, &w->o, w->job, w->result);
    if (!w->ds && !w->things)
        return nsm_error_set(w->ctx, NSM_EFORMAT, "%s: a job without data", w->folder);
    if (!strcmp(kind, "train")) return train(w);
    if (!strcmp(kind, "speed") && w->ds) return speed(w);
    snprintf(trained, sizeof trained, "%.4000s/..", w->folder);
    if (!strcmp(kind, "explain") && w->things) return explain_fused(w, trained);
    if (!strcmp(kind, "explain"))
        return compare_explain(w->ctx, &w->o, w->ds, trained, w->job, w->result);
    return nsm_error_set(w->ctx, NSM_EFORMAT, "%s: there are no jobs of kind \"%s\"", w->folder,
                         kind);
}

static int leave_result(worker *w)
{
    char path[COMPARE_PATH + 32];
    json_t *whole = json_pack("{s:O, s:O}", "job", w->job, "result", w->result);
    char *text = whole ? json_dumps(whole, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) : NULL;
    snprintf(path, sizeof path, "%s/result.json", w->folder);
    if (text) write_file(w->ctx, path, text, strlen(text));
    else nsm_error_set(w->ctx, NSM_ENOMEM, "out of memory for the result");
    free(text);
    json_decref(whole);
    return nsm_error(w->ctx);
}

int compare_work(tool *t, const char *folder)
{
    worker w = { .t = t, .ctx = t->ctx, .folder = folder, .result = json_object(), .lock = -1 };
    char path[COMPARE_PATH + 32];
    snprintf(path, sizeof path, "%.4000s/result.json", folder);
    stop_install();
    if (!take_job(&w) && access(path, F_OK) && !stop_signal() && !do_job(&w) && !stop_signal())
        leave_result(&w);
    int code = nsm_error(t->ctx) ? tool_error(t) : stop_signal() ? 128 + stop_signal() : TOOL_DONE;
    nsm_sequences_free(w.ds);
    nsm_dataset_free(w.things);
    settings_clear(train_fields, &w.o);
    json_decref(w.job);
    json_decref(w.result);
    if (w.lock >= 0) close(w.lock);
    return code;
}
