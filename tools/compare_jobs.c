/* compare_jobs.c - Jobs: what there is to do, who does it, and when.
 *
 * Every job runs in a process of its own, so that its memory and its time are its own, and so that
 * a fault in one leaves the others alone.  It is told by its folder's job.json alone, so a folder's
 * jobs may be done by hand too.  Trials of learning rates come first, then the runs with the best
 * one, then what their answers rest on; times by length are taken at the end, when nothing else
 * runs. */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif
#include "tools/compare.h"
#include "tools/progress.h"
#include "tools/run.h"

enum { JOBS_MOST = 256, POLL_NS = 20000000 };

/* ---- folders ---- */
void compare_trial_folder(const contender *m, double lr, char path[COMPARE_PATH])
{
    char number[32];
    snprintf(path, COMPARE_PATH, "%.3900s/lr-%s", m->folder, real_text(lr, number));
}

void compare_seed_folder(const contender *m, uint64_t seed, char path[COMPARE_PATH])
{
    snprintf(path, COMPARE_PATH, "%.3900s/seed-%llu", m->folder, (unsigned long long)seed);
}

void compare_explain_folder(const contender *m, uint64_t seed, char path[COMPARE_PATH])
{
    snprintf(path, COMPARE_PATH, "%.3900s/seed-%llu/explain", m->folder, (unsigned long long)seed);
}

void compare_speed_folder(const contender *m, char path[COMPARE_PATH])
{
    snprintf(path, COMPARE_PATH, "%.3900s/speed", m->folder);
}

/* ---- what a job is ---- */
/* Epochs and steps of an epoch that make so many steps together, the recipe's epochs at most; of
 * things, whole epochs. */
static void divide_steps(const comparison *c, train_options *o, int64_t steps)
{
    if (c->fused) {
        o->epochs = (steps + c->epoch_steps - 1) / c->epoch_steps;
        return;
    }
    int64_t epochs = o->epochs < steps ? o->epochs : steps;
    while (steps % epochs) epochs--;
    o->epochs = epochs;
    o->steps = steps / epochs;
    if (!strcmp(o->keep, "last")) o->eval_every = epochs; /* no other look is of use */
}

json_t *compare_job(const comparison *c, const contender *m, const char *kind, double lr,
                    uint64_t seed, int64_t steps)
{
    train_options o = { 0 };
    char *text = NULL;
    json_t *job = json_object(), *lengths = json_array();
    if (!settings_copy(c->ctx, train_fields, &m->o, &o)) {
        if (isfinite(lr)) o.lr = lr;
        divide_steps(c, &o, steps);
        if (o.warmup > steps / 4) o.warmup = steps / 4;
        settings_set(c->ctx, train_fields, &o, "data", "",
                     "nsm compare"); /* a file's place is not part of what is done */
        text = settings_text(c->ctx, train_fields, &o);
    }
    json_object_set_new(job, "kind", json_string(kind));
    json_object_set_new(job, "settings", json_string(text ? text : ""));
    json_object_set_new(job, "seed", json_integer((json_int_t)seed));
    json_object_set_new(job, "digest", json_string(c->digest));
    if (!strcmp(kind, "explain")) {
        json_object_set_new(job, "answers", json_integer(c->s.explain));
        json_object_set_new(job, "k", json_integer(c->s.explain_k));
    }
    for (int i = 0; i < c->s.lengths.count; i++)
        json_array_append_new(lengths, json_integer((json_int_t)c->s.lengths.value[i]));
    if (!strcmp(kind, "speed")) json_object_set(job, "lengths", lengths);
    json_decref(lengths);
    free(text);
    settings_clear(train_fields, &o);
    return job;
}

json_t *compare_trial_job(const comparison *c, const contender *m, double lr)
{
    int64_t steps = (int64_t)ceil(c->s.trial * (double)c->steps);
    return compare_job(c, m, "train", lr, c->t->seed, steps);
}

json_t *compare_seed_job(const comparison *c, const contender *m, uint64_t seed)
{
    return compare_job(c, m, "train", m->lr, seed, c->steps);
}

static json_t *read_json(nsm_ctx *ctx, const char *path)
{
    json_error_t error;
    json_t *v = access(path, F_OK) ? NULL : json_load_file(path, 0, &error);
    if (!v && !access(path, F_OK)) nsm_error_set(ctx, NSM_EFORMAT, "%s: %s", path, error.text);
    return v;
}

json_t *compare_result(nsm_ctx *ctx, const char *folder, const json_t *job)
{
    char path[COMPARE_PATH + 32];
    snprintf(path, sizeof path, "%s/result.json", folder);
    json_t *whole = nsm_error(ctx) ? NULL : read_json(ctx, path),
           *was = json_object_get(whole, "job"), *result = NULL;
    if (json_is_object(was)) json_object_del(was, "data");
    if (whole && !json_equal(was, job))
        nsm_error_set(ctx, NSM_EINVAL,
                      "%s is the result of other settings or data; compare in another folder, or "
                      "remove that one",
                      folder);
    else if (whole) result = json_incref(json_object_get(whole, "result"));
    json_decref(whole);
    return result;
}

/* ---- the list ---- */
typedef struct {
    char folder[COMPARE_PATH];
    json_t *job;
} work;

/* One job, if it is not done: true; *done counts those that are. */
static bool open_job(comparison *c, work *w, json_t *job, int64_t *done)
{
    json_t *result = compare_result(c->ctx, w->folder, job);
    *done += result != NULL;
    w->job = job;
    bool open = !result && !nsm_error(c->ctx);
    if (!open) json_decref(job);
    json_decref(result);
    return open;
}

/* The best of a row's trials by the loss of validation; false: not all are done. */
static bool choose_rate(comparison *c, contender *m)
{
    double best = INFINITY;
    char folder[COMPARE_PATH];
    bool all = true;
    m->lr = NAN;
    if (c->s.lrs.count == 1) {
        m->lr = c->s.lrs.value[0];
        return true;
    }
    for (int i = 0; i < c->s.lrs.count; i++) {
        json_t *job = compare_trial_job(c, m, c->s.lrs.value[i]);
        compare_trial_folder(m, c->s.lrs.value[i], folder);
        json_t *r = compare_result(c->ctx, folder, job), *loss = json_object_get(r, "valid_loss");
        all &= r != NULL;
        if (json_is_number(loss) && json_number_value(loss) < best) {
            best = json_number_value(loss);
            m->lr = c->s.lrs.value[i];
        }
        json_decref(r);
        json_decref(job);
    }
    if (all && isnan(m->lr))
        m->lr = c->s.lrs.value[0]; /* none came to a number: the runs will say so too */
    if (!all) m->lr = NAN;
    return all;
}

/* Open jobs of a row that can be done now, behind those in list; *done: jobs whose results are
 * there. */
static int row_jobs(comparison *c, contender *m, work *list, int count, int64_t *done)
{
    bool chosen = choose_rate(c, m);
    for (int i = 0; c->s.lrs.count > 1 && i < c->s.lrs.count && count < JOBS_MOST; i++) {
        compare_trial_folder(m, c->s.lrs.value[i], list[count].folder);
        count += open_job(c, &list[count], compare_trial_job(c, m, c->s.lrs.value[i]), done);
    }
    for (int64_t k = 0; chosen && k < c->seeds && count < JOBS_MOST; k++) {
        uint64_t seed = c->t->seed + (uint64_t)k;
        int before = count;
        compare_seed_folder(m, seed, list[count].folder);
        count += open_job(c, &list[count], compare_seed_job(c, m, seed), done);
        if (count > before || !c->s.explain || count == JOBS_MOST) continue;
        compare_explain_folder(m, seed, list[count].folder);
        count += open_job(c, &list[count], compare_job(c, m, "explain", m->lr, seed, c->steps),
                          done);
    }
    return count;
}

static int scaling_jobs(comparison *c, work *list, int64_t *done)
{
    int count = 0;
    *done = 0;
    for (int i = 0; i < 2 * c->models && count < JOBS_MOST; i++) {
        const contender *m = &c->model[i / 2];
        compare_scaling_folder(m, i % 2, list[count].folder);
        count += open_job(c, &list[count], compare_scaling_job(c, m, i % 2), done);
    }
    return count;
}

/* All that can be done now; the times by length when nothing else is left. */
static int open_jobs(comparison *c, work *list, int64_t *done)
{
    int count = 0;
    if (c->scaling) return scaling_jobs(c, list, done);
    *done = 0;
    for (int i = 0; i < c->models && count < JOBS_MOST; i++)
        count = row_jobs(c, &c->model[i], list, count, done);
    bool timing = count == 0;
    for (int i = 0; i < c->models && c->s.lengths.count && count < JOBS_MOST; i++) {
        compare_speed_folder(&c->model[i], list[count].folder);
        bool open = open_job(c, &list[count],
                             compare_job(c, &c->model[i], "speed", NAN, c->t->seed, 1), done);
        if (open && !timing) json_decref(list[count].job);
        count += open && timing;
    }
    return count;
}

/* ---- processes ---- */
typedef struct {
    comparison *c;
    struct {
        pid_t pid;
        char folder[COMPARE_PATH];
    } child[JOBS_MOST];
    int running;
    bool failed, told;
} crew;

static int begin_folder(comparison *c, const work *w)
{
    char path[COMPARE_PATH + 32];
    json_t *job = json_copy(w->job);
    json_object_set_new(job, "data", json_string(c->data));
    char *text = json_dumps(job, JSON_INDENT(1));
    snprintf(path, sizeof path, "%s/job.json", w->folder);
    if (!text) nsm_error_set(c->ctx, NSM_ENOMEM, "out of memory");
    else if (!make_folder(c->ctx, w->folder) && access(path, F_OK))
        write_file(c->ctx, path, text, strlen(text));
    free(text);
    json_decref(job);
    return nsm_error(c->ctx);
}

/* In the child: this program again, for this folder alone.  It ends with its parent. */
static void become(const comparison *c, const char *folder, pid_t parent)
{
    char threads[16], out[COMPARE_PATH];
    snprintf(threads, sizeof threads, "%d", c->t->threads ? c->t->threads : 1);
    snprintf(out, sizeof out, "--work=%.4000s", folder);
    char *args[] = { (char *)"nsm",
                     (char *)"compare",
                     out,
                     (char *)"-q",
                     (char *)"--threads",
                     threads,
                     (char *)"--precision",
                     (char *)nsm_precision_name(c->t->precision),
                     NULL,
                     NULL,
                     NULL };
    if (c->t->device) args[8] = (char *)"--device", args[9] = (char *)c->t->device;
    setpgid(0, 0); /* a terminal's Ctrl-C is the parent's, which passes it on */
#ifdef __linux__
    prctl(PR_SET_PDEATHSIG, SIGTERM);
#endif
    if (getppid() == parent) execv("/proc/self/exe", args);
    _exit(127);
}

static bool start(crew *w, const work *job)
{
    comparison *c = w->c;
    for (int i = 0; i < w->running; i++)
        if (!strcmp(w->child[i].folder, job->folder)) return false;
    if (begin_folder(c, job)) return false;
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) become(c, job->folder, parent);
    if (pid < 0) {
        nsm_error_set(c->ctx, NSM_ENOMEM, "no process for %s: %s", job->folder, strerror(errno));
        return false;
    }
    w->child[w->running].pid = pid;
    snprintf(w->child[w->running++].folder, COMPARE_PATH, "%s", job->folder);
    return true;
}

/* Take note of a child that has ended; false: none has. */
static bool reap(crew *w)
{
    int status;
    for (int i = 0; i < w->running; i++) {
        pid_t got = waitpid(w->child[i].pid, &status, WNOHANG);
        if (got == 0 || (got < 0 && errno == EINTR)) continue;
        bool done = got > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
        if (!done && !stop_signal() && !w->told)
            tool_fail(w->c->t, "%s was not done; the others stop", w->child[i].folder);
        w->told |= !done;
        w->failed |= !done;
        w->child[i] = w->child[--w->running];
        return true;
    }
    return false;
}

static void stop_all(crew *w)
{
    for (int i = 0; i < w->running; i++) kill(w->child[i].pid, SIGTERM);
    while (w->running)
        if (!reap(w)) nanosleep(&(struct timespec){ 0, POLL_NS }, NULL);
}

static void drop(work *list, int count)
{
    for (int i = 0; i < count; i++) json_decref(list[i].job);
}

static int64_t all_jobs(const comparison *c)
{
    if (c->scaling) return 2 * c->models;
    int64_t trials = c->s.lrs.count > 1 ? c->s.lrs.count : 0;
    return c->models * (trials + c->seeds * (c->s.explain ? 2 : 1) + (c->s.lengths.count > 0));
}

int compare_run(comparison *c)
{
    work *list = calloc(JOBS_MOST, sizeof *list);
    crew *w = calloc(1, sizeof *w);
    int64_t done = 0;
    progress p;
    if (!list || !w) {
        free(list);
        free(w);
        return tool_fail(c->t, "out of memory");
    }
    w->c = c;
    int count = open_jobs(c, list, &done);
    progress_start(&p, c->t, "comparing", "job", done, all_jobs(c));
    while (!nsm_error(c->ctx) && (count || w->running) && !stop_signal() && !w->failed) {
        const char *kind = count ? json_string_value(json_object_get(list[0].job, "kind")) : "";
        bool alone = !strcmp(kind, "speed") || !strcmp(kind, "scaling");
        for (int i = 0; i < count && w->running < (alone ? 1 : c->jobs); i++) start(w, &list[i]);
        while (w->running && !stop_signal() && !reap(w))
            nanosleep(&(struct timespec){ 0, POLL_NS }, NULL);
        drop(list, count);
        count = open_jobs(c, list, &done);
        progress_step(&p, done, "%d at work", w->running);
    }
    stop_all(w);
    drop(list, count);
    progress_end(&p, done, NULL);
    bool failed = w->failed && !stop_signal();
    free(list);
    free(w);
    if (nsm_error(c->ctx)) return tool_error(c->t);
    return failed ? TOOL_FAILED : stop_signal() ? 128 + stop_signal() : TOOL_DONE;
}
