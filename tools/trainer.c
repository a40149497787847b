/* trainer.c - See trainer.h.
 *
 * Bit for bit: a checkpoint holds weights, optimizer, averages, the generator's state and where the
 * run stands, to the step within an epoch, and everything that follows is computed from these alone
 * (the order of an epoch's batches from the seed and the epoch's number).  The weights that
 * validation liked best are kept in memory and written as best.h5 before each checkpoint, so that
 * whatever a checkpoint says was kept is on disk when the checkpoint is. */
#include "config.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/checkpoint.h"
#include "base/schedule.h"
#include "tools/progress.h"
#include "tools/trainer.h"

enum { TRAIN, VALID, TEST, COLUMNS = 8 };

typedef struct {
    const tool *tool;
    task *task;
    const train_options *options;
    nsm_ctx *ctx;
    run *run;
    nsm_optimizer *optimizer;
    nsm_ema *ema;
    nsm_schedule schedule;
    trainer_state s, at_keep;  /* now, and when the kept weights were */
    char *config;
    nsm_tensor **live, **best; /* the module's tensors, and copies of the kept ones */
    int tensors;
    bool best_unsaved;
    progress progress;
    /* spent in training epochs; and by processes before this one, by the log */
    double seconds, before;
    int64_t trained, stepped;  /* epochs and steps of this process */
} loop;

/* ---- what a checkpoint holds besides weights, optimizer and generator ---- */
enum { STATE_USED = 10 + 12, STATE_FIELDS = STATE_USED + 5 };

static void state_fields(trainer_state *s, nsm_field *f)
{
    static const char *const part[3] = { "train", "valid", "test" };
    static char name[4][3][32];
    double *array[4] = { s->now, s->kept, s->now_loss, s->kept_loss };
    const char *const kind[4] = { "score", "kept_score", "loss", "kept_loss" };
    int n = 0;
    f[n++] = (nsm_field){ .name = "epoch", .type = NSM_FIELD_INT, .value = &s->epoch };
    f[n++] = (nsm_field){ .name = "wait", .type = NSM_FIELD_INT, .value = &s->wait };
    f[n++] = (nsm_field){ .name = "kept_epoch", .type = NSM_FIELD_INT, .value = &s->kept_epoch };
    f[n++] = (nsm_field){ .name = "stopped", .type = NSM_FIELD_INT, .value = &s->stopped };
    f[n++] = (nsm_field){ .name = "best_score", .type = NSM_FIELD_DOUBLE, .value = &s->best_score };
    f[n++] = (nsm_field){ .name = "best_loss", .type = NSM_FIELD_DOUBLE, .value = &s->best_loss };
    f[n++] = (nsm_field){ .name = "epoch_loss", .type = NSM_FIELD_DOUBLE, .value = &s->loss };
    f[n++] = (nsm_field){
        .name = "step", .type = NSM_FIELD_INT, .value = &s->at.steps, .optional = true
    };
    f[n++] = (nsm_field){
        .name = "step_rows", .type = NSM_FIELD_INT, .value = &s->at.rows, .optional = true
    };
    f[n++] = (nsm_field){
        .name = "step_loss", .type = NSM_FIELD_DOUBLE, .value = &s->at.loss, .optional = true
    };
    for (int a = 0; a < 4; a++)
        for (int p = 0; p < 3; p++) {
            snprintf(name[a][p], sizeof name[a][p], "%s_%s", part[p], kind[a]);
            f[n++] = (nsm_field){ .name = name[a][p],
                                  .type = NSM_FIELD_DOUBLE,
                                  .value = &array[a][p] };
        }
}

/* state, then the configuration and what the model has from the data */
static int meta_fields(trainer_meta *m, nsm_field f[STATE_FIELDS])
{
    state_fields(&m->state, f);
    f[STATE_USED] = (nsm_field){ .name = "config", .type = NSM_FIELD_TEXT, .value = &m->config };
    f[STATE_USED + 1] = (nsm_field){ .name = "inputs", .type = NSM_FIELD_INT, .value = &m->inputs };
    f[STATE_USED + 2] = (nsm_field){ .name = "outputs",
                                     .type = NSM_FIELD_INT,
                                     .value = &m->outputs };
    f[STATE_USED + 3] = (nsm_field){ .name = "labels", .type = NSM_FIELD_INT, .value = &m->labels };
    f[STATE_USED + 4] = (nsm_field){
        .name = "symbols", .type = NSM_FIELD_TEXT, .value = &m->symbols, .optional = true
    };
    return STATE_FIELDS;
}

int trainer_read(nsm_ctx *ctx, const char *path, trainer_meta *meta)
{
    nsm_field f[STATE_FIELDS];
    *meta = (trainer_meta){ 0 };
    int n = meta_fields(meta, f);
    return nsm_checkpoint_load(ctx, path, &(nsm_checkpoint){ .field = f, .fields = n });
}

int trainer_load(nsm_ctx *ctx, const char *path, nsm_module *module)
{
    return nsm_checkpoint_load(ctx, path, &(nsm_checkpoint){ .module = module });
}

void trainer_meta_clear(trainer_meta *meta)
{
    free(meta->config);
    free(meta->symbols);
    meta->config = meta->symbols = NULL;
}

static trainer_meta meta_of(loop *l)
{
    return (trainer_meta){ .config = l->config,
                           .inputs = l->task->inputs,
                           .outputs = l->task->outputs,
                           .labels = l->task->labels,
                           .symbols = l->task->symbols,
                           .state = l->s };
}

/* ---- the kept weights ---- */
static int collect(void *user, const char *name, nsm_tensor *x, bool buffer)
{
    loop *l = user;
    (void)name;
    (void)buffer;
    nsm_tensor **live = realloc(l->live, (size_t)(l->tensors + 1) * sizeof *live);
    if (live) l->live = live;
    nsm_tensor **best = realloc(l->best, (size_t)(l->tensors + 1) * sizeof *best);
    if (best) l->best = best;
    nsm_tensor *copy = live && best ? nsm_tensor_new(l->ctx, x->type, x->rank, x->dim) : NULL;
    if (!copy) return nsm_error_set(l->ctx, NSM_ENOMEM, "out of memory");
    l->live[l->tensors] = x;
    l->best[l->tensors++] = copy;
    return nsm_tensor_copy(copy, x);
}

static void keep(loop *l)
{
    l->s.kept_epoch = l->s.epoch;
    memcpy(l->s.kept, l->s.now, sizeof l->s.kept);
    memcpy(l->s.kept_loss, l->s.now_loss, sizeof l->s.kept_loss);
    for (int i = 0; i < l->tensors; i++) nsm_tensor_copy(l->best[i], l->live[i]);
    l->best_unsaved = true;
}

static void exchange(loop *l)
{
    for (int i = 0; i < l->tensors; i++) {
        void *data = l->live[i]->data;
        l->live[i]->data = l->best[i]->data;
        l->best[i]->data = data;
    }
}

/* best.h5: the kept weights, with the state of the epoch that they are of, so that the file does
 * not tell when it was written. */
static int save_best(loop *l)
{
    nsm_field f[STATE_FIELDS];
    trainer_meta m = meta_of(l);
    if (!l->best_unsaved) return NSM_OK;
    m.state = l->at_keep;
    int n = meta_fields(&m, f);
    const char *path = run_path(l->run, "best.h5");
    exchange(l);
    int code = path ? nsm_checkpoint_save(l->ctx, path,
                                          &(nsm_checkpoint){
                                              .module = l->task->module, .field = f, .fields = n })
                    : nsm_error(l->ctx);
    exchange(l);
    if (!code) l->best_unsaved = false;
    return code;
}

/* ---- checkpoints ---- */
static nsm_checkpoint contents_of(loop *l, nsm_random *random, const nsm_field *f, int n)
{
    return (nsm_checkpoint){ .module = l->task->module,
                             .optimizer = l->optimizer,
                             .ema = l->ema,
                             .random = random,
                             .field = f,
                             .fields = n };
}

/* Steps since the beginning: a checkpoint's number. */
static int64_t steps_of(const loop *l)
{
    return l->s.epoch * l->task->steps_per_epoch + l->s.at.steps;
}

static int save(loop *l)
{
    nsm_field f[STATE_FIELDS];
    trainer_meta m = meta_of(l);
    nsm_random random = nsm_random_get(l->ctx);
    int n = meta_fields(&m, f);
    nsm_checkpoint contents = contents_of(l, &random, f, n);
    if (run_log_flush(l->run) || save_best(l)) return nsm_error(l->ctx);
    return nsm_checkpoint_rotate(l->ctx, run_folder(l->run), steps_of(l),
                                 (int)l->options->keep_last, &contents);
}

/* Is this text what the settings say?  One of an earlier version lacks keys: they have their
 * defaults. */
static bool same_settings(loop *l, const char *text)
{
    train_options then = { 0 };
    char *now = NULL;
    if (!settings_init(l->ctx, train_fields, &then) &&
        !settings_parse(l->ctx, train_fields, &then, text, strlen(text),
                        "the checkpoint's settings", false))
        now = settings_text(l->ctx, train_fields, &then);
    bool same = now && !strcmp(now, l->config);
    free(now);
    settings_clear(train_fields, &then);
    return same;
}

/* Take up the newest checkpoint, if there is one. */
static int take_up(loop *l)
{
    char *path = nsm_checkpoint_newest(l->ctx, run_folder(l->run), NULL);
    if (!path) return nsm_error(l->ctx);
    nsm_field f[STATE_FIELDS];
    nsm_random random = nsm_random_get(l->ctx);
    trainer_meta m = { 0 };
    int n = meta_fields(&m, f);
    nsm_checkpoint contents = contents_of(l, &random, f, n);
    int code = nsm_checkpoint_load(l->ctx, path, &contents);
    if (!code && !same_settings(l, m.config) && !(code = nsm_error(l->ctx)))
        code = nsm_error_set(
            l->ctx, NSM_EINVAL,
            "%s was made with other settings; compare %s, or train in another folder", path,
            run_path(l->run, "config.yaml"));
    if (!code) {
        l->s = m.state;
        nsm_random_set(l->ctx, random);
        if (l->s.at.steps < 0 || l->s.at.steps > l->task->steps_per_epoch || l->s.at.rows < 0)
            code = nsm_error_set(l->ctx, NSM_EFORMAT, "%s is at step %lld of an epoch of %lld",
                                 path, (long long)l->s.at.steps,
                                 (long long)l->task->steps_per_epoch);
        /* what was kept before is in best.h5; only something better will replace it */
    }
    free(m.config);
    free(m.symbols);
    free(path);
    return code;
}

/* ---- one epoch ---- */
/* What stands behind the bar. */
static const char *note(const loop *l, char buf[128])
{
    const trainer_state *s = &l->s;
    bool within = s->at.steps > 0;
    int n = 0;
    if (l->task->steps_per_epoch > 1)
        n = snprintf(buf, 128, "epoch %lld  ", (long long)s->epoch + within);
    n += snprintf(buf + n, (size_t)(128 - n), "loss %.4f",
                  within ? s->at.loss / (double)s->at.rows : s->loss);
    if (s->kept_epoch)
        snprintf(buf + n, (size_t)(128 - n), "  valid %.4f  test %.4f", s->now[VALID],
                 s->now[TEST]);
    return buf;
}

static void show(loop *l)
{
    char buf[128];
    if (progress_due(&l->progress)) progress_step(&l->progress, steps_of(l), "%s", note(l, buf));
}

/* After a backward pass.  Within an epoch also what train() does between epochs. */
static int step(void *user)
{
    loop *l = user;
    int64_t every = l->options->checkpoint_steps;
    int code = nsm_optimizer_step(l->optimizer, nsm_schedule_rate(&l->schedule, nsm_optimizer_steps(
                                                                                    l->optimizer)));
    if (!code && l->ema) code = nsm_ema_update(l->ema);
    l->stepped++;
    if (code || l->s.at.steps == l->task->steps_per_epoch) return code;
    show(l);
    if (l->task->together && l->s.at.steps % l->task->together) return NSM_OK;
    if (stop_signal()) return TASK_PAUSED;
    return every && steps_of(l) % every == 0 ? save(l) : NSM_OK;
}

/* The rules: what is kept, and when patience ends.  Called while the averages are swapped in. */
static void judge(loop *l)
{
    trainer_state *s = &l->s;
    double score = s->now[VALID], loss = s->now_loss[VALID];
    bool higher = !l->task->lower, first = s->kept_epoch == 0;
    bool as_good = higher ? score >= s->best_score : score <= s->best_score;
    bool better = higher ? score > s->best_score : score < s->best_score;
    bool loss_as_good = loss <= s->best_loss;
    if (!strcmp(l->options->keep, "last") || isnan(score)) keep(l);
    else if (!strcmp(l->options->keep, "best") && (better || first)) keep(l);
    else if (!strcmp(l->options->keep, "both") && as_good && loss_as_good) keep(l);
    s->wait = as_good || loss_as_good ? 0 : s->wait + 1;
    if (as_good) s->best_score = score;
    if (loss_as_good) s->best_loss = loss;
    s->stopped = l->options->patience > 0 && s->wait >= l->options->patience;
    if (s->kept_epoch == s->epoch) l->at_keep = *s;
}

/* Count the epoch as done, its parts looked at or not. */
static int end_epoch(loop *l, bool look)
{
    part_score part[3];
    if (look && l->ema) nsm_ema_swap(l->ema);
    int code = look ? l->task->evaluate(l->task, part) : NSM_OK;
    if (!code) {
        l->s.epoch++;
        l->s.at = (epoch_place){ 0 };
        l->trained++;
    }
    for (int p = 0; !code && look && p < 3; p++) {
        l->s.now[p] = part[p].score;
        l->s.now_loss[p] = part[p].loss;
    }
    if (!code && look) judge(l);
    if (look && l->ema) nsm_ema_swap(l->ema);
    return code;
}

static int one_epoch(loop *l)
{
    int64_t number = l->s.epoch + 1;
    double began = progress_now();
    int code = l->task->epoch(l->task, number, &l->s.at, step, l);
    l->seconds += progress_now() - began;
    if (code) return code;
    l->s.loss = l->s.at.loss / (double)l->s.at.rows;
    if (!isfinite(l->s.loss))
        return nsm_error_set(l->ctx, NSM_ENUMBER,
                             "the loss of epoch %lld is not finite; try a lower lr, or clip=1",
                             (long long)number);
    bool look = number % l->options->eval_every == 0 || number == l->options->epochs;
    code = end_epoch(l, look);
    if (code) return code;
    double row[COLUMNS + TASK_NOTES] = { (double)number, l->s.loss, NAN, NAN, NAN, NAN, NAN };
    if (look) {
        row[2] = l->s.now_loss[VALID];
        for (int p = 0; p < 3; p++) row[3 + p] = l->s.now[p];
    }
    row[6] = nsm_schedule_rate(&l->schedule, nsm_optimizer_steps(l->optimizer) - 1);
    row[7] = l->before + l->seconds;
    for (int k = 0; k < l->task->notes; k++) row[COLUMNS + k] = look ? l->task->note[k] : NAN;
    return run_log(l->run, row);
}

static bool finished(const loop *l) { return l->s.epoch >= l->options->epochs || l->s.stopped; }

static bool due(const loop *l)
{
    const train_options *o = l->options;
    return (o->checkpoint_every && l->s.epoch % o->checkpoint_every == 0) ||
           (o->checkpoint_steps && steps_of(l) % o->checkpoint_steps == 0);
}

static int train(loop *l)
{
    int64_t steps = l->task->steps_per_epoch;
    int code = NSM_OK;
    char buf[128];
    bool fresh = steps_of(l) == 0; /* nothing is on disk yet */
    progress_start(&l->progress, l->tool, "training", steps > 1 ? "step" : "epoch", steps_of(l),
                   l->options->epochs * steps);
    while (!code && !finished(l) && !stop_signal()) {
        code = one_epoch(l);
        if (!code && !finished(l) && due(l)) code = save(l);
        if (!code) show(l);
    }
    progress_end(&l->progress, steps_of(l), "%s", note(l, buf));
    if ((!code || code == TASK_PAUSED) && (l->stepped || fresh)) return save(l);
    return code == TASK_PAUSED ? NSM_OK : code;
}

/* ---- setting up ---- */
static int make_optimizer(loop *l)
{
    const train_options *o = l->options;
    nsm_optimizer_rule rules[2] = { { .pattern = o->decay_only, .weight_decay = o->weight_decay },
                                    { .pattern = "*", .no_weight_decay = true } };
    int kind = nsm_optimizer_find(o->optimizer);
    if (kind < 0)
        return nsm_error_set(l->ctx, NSM_EINVAL, "optimizer=%s is not known", o->optimizer);
    nsm_optimizer_config config = { .kind = (nsm_optimizer_kind)kind,
                                    .weight_decay = o->weight_decay,
                                    .max_norm = o->clip };
    if (*o->decay_only) {
        config.rule = rules;
        config.rules = 2;
    }
    l->optimizer = nsm_optimizer_new(l->task->module, &config);
    if (l->optimizer && o->ema > 0) l->ema = nsm_ema_new(l->task->module, o->ema);
    return nsm_error(l->ctx);
}

static int make_schedule(loop *l)
{
    const train_options *o = l->options;
    static const struct { const char *name; nsm_schedule_kind kind;
    } kinds[] = {
        { "constant", NSM_SCHEDULE_WARMUP_CONSTANT },
        { "step", NSM_SCHEDULE_STEP },
        { "exponential", NSM_SCHEDULE_EXPONENTIAL },
        { "linear", NSM_SCHEDULE_WARMUP_LINEAR },
        { "cosine", NSM_SCHEDULE_WARMUP_COSINE },
        { "inverse_sqrt", NSM_SCHEDULE_WARMUP_INVERSE_SQRT },
        { "one_cycle", NSM_SCHEDULE_ONE_CYCLE },
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(kinds[i].name, o->schedule)) l->schedule.kind = kinds[i].kind;
    l->schedule.lr = o->lr;
    l->schedule.warmup = o->warmup;
    l->schedule.gamma = o->gamma;
    l->schedule.step_size = o->step_size;
    l->schedule.steps = o->epochs * l->task->steps_per_epoch;
    return nsm_schedule_check(l->ctx, &l->schedule);
}

/* Seconds of the epochs that are done, from the log of the processes that did them. */
static double seconds_before(loop *l)
{
    run_table log;
    const char *path = run_path(l->run, "log.csv");
    double seconds = 0;
    if (!l->s.epoch || !path || access(path, F_OK) || run_table_read(l->ctx, &log, path)) return 0;
    const double *epoch = run_table_column(&log, "epoch"),
                 *spent = run_table_column(&log, "seconds");
    for (int64_t i = 0; epoch && spent && i < log.rows; i++)
        if (epoch[i] <= (double)l->s.epoch && isfinite(spent[i])) seconds = spent[i];
    run_table_free(&log);
    return seconds;
}

static int set_up(loop *l, const char *folder, bool resume)
{
    const char *columns[COLUMNS + TASK_NOTES] = { "epoch", "loss", "valid_loss", "train",
                                                  "valid", "test", "lr",         "seconds" };
    for (int k = 0; k < l->task->notes; k++) columns[COLUMNS + k] = l->task->note_name[k];
    for (int p = 0; p < 3; p++)
        l->s.now[p] = l->s.kept[p] = l->s.now_loss[p] = l->s.kept_loss[p] = NAN;
    l->s.best_score = l->task->lower ? INFINITY : 0;
    l->s.best_loss = INFINITY;
    l->config = settings_text(l->ctx, train_fields, l->options);
    if (!l->config || make_schedule(l) || make_optimizer(l)) return nsm_error(l->ctx);
    l->run = run_open(l->ctx, folder, resume);
    if (!l->run || (resume && take_up(l)) || run_config(l->run, train_fields, l->options))
        return nsm_error(l->ctx);
    if (nsm_module_walk(l->task->module, collect, l)) return nsm_error(l->ctx);
    l->before = seconds_before(l);
    return run_log_open(l->run, COLUMNS + l->task->notes, columns, l->s.epoch ? l->s.epoch : -1);
}

static void tear_down(loop *l)
{
    for (int i = 0; i < l->tensors; i++) nsm_tensor_free(l->best[i]);
    free(l->live);
    free(l->best);
    nsm_ema_free(l->ema);
    nsm_optimizer_free(l->optimizer);
    run_close(l->run);
    free(l->config);
}

int trainer_run(const tool *t, task *what, const train_options *options, const char *folder,
                bool resume, trainer_result *result)
{
    loop l = { .tool = t, .task = what, .options = options, .ctx = what->ctx };
    *result = (trainer_result){ 0 };
    int code = set_up(&l, folder, resume);
    if (!code) code = train(&l);
    if (!code) {
        result->state = l.s;
        result->seconds = l.seconds;
        result->all_seconds = l.before + l.seconds;
        result->epoch_ms = l.trained ? 1e3 * l.seconds / (double)l.trained : NAN;
        result->interrupted = !finished(&l);
        result->checkpoint = nsm_checkpoint_newest(l.ctx, folder, NULL);
        code = nsm_error(l.ctx);
    }
    tear_down(&l);
    return code;
}
