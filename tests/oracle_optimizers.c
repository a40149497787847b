/* tests/oracle_optimizers.c - Fixtures of the system "optimizers": steps with given gradients,
 * clipping, averages of weights, tables of learning rates, whole training runs. */
#include "config.h"
#include "base/ops.h"
#include "base/optimizer.h"
#include "base/schedule.h"
#include "tests/fixture.h"

enum { NAME = 256 };

/* A number that is there, where 0 means 0 and a configuration takes a negative for that; 0, the
 * default, where there is none. */
static double said(json_t *v)
{
    double x = json_is_number(v) ? json_number_value(v) : 0;
    return json_is_number(v) && x == 0 ? -1 : x;
}

static int64_t steps_of(fixture *f)
{
    int64_t steps = fixture_int(f, "steps", 0);
    if (steps > 0 && steps <= 1000000) return steps;
    fixture_fault(f, "steps is %lld", (long long)steps);
    return 0;
}

/* ---- from the file's words to a configuration ---- */

static nsm_optimizer_config config_of(fixture *f)
{
    char name[32] = "";
    const char *class = fixture_text(f, "optimizer", "");
    for (size_t i = 0; class[i] && i + 1 < sizeof name; i++)
        name[i] = (char)(class[i] >= 'A' && class[i] <= 'Z' ? class[i] - 'A' + 'a' : class[i]);
    json_t *c = fixture_config(f), *betas = json_object_get(c, "betas");
    int kind = nsm_optimizer_find(name);
    if (kind < 0) fixture_fault(f, "there is no optimizer %s", class);
    if (fixture_bool(f, "decoupled_weight_decay", false))
        fixture_fault(f, "decoupled_weight_decay is not built for %s", class);
    return (nsm_optimizer_config){
        .kind = kind < 0 ? NSM_SGD : (nsm_optimizer_kind)kind,
        .weight_decay = fixture_number(f, "weight_decay", 0),
        .beta1 = said(json_array_get(betas, 0)),
        .beta2 = said(json_array_get(betas, 1)),
        .eps = said(json_object_get(c, "eps")),
        .momentum = fixture_number(f, "momentum", 0),
        .dampening = fixture_number(f, "dampening", 0),
        .nesterov = fixture_bool(f, "nesterov", false),
        .amsgrad = fixture_bool(f, "amsgrad", false),
        .centered = fixture_bool(f, "centered", false),
        .alpha = said(json_object_get(c, "alpha")),
        .rho = said(json_object_get(c, "rho")),
        .lr_decay = fixture_number(f, "lr_decay", 0),
        .initial_accumulator = fixture_number(f, "initial_accumulator_value", 0),
        .momentum_decay = said(json_object_get(c, "momentum_decay")),
        .maximize = fixture_bool(f, "maximize", false),
    };
}

/* A module of the arrays in a group, with their values, or their shapes alone. */
static void module_of(fixture *f, const char *group, bool filled, nsm_module *m)
{
    const char *path;
    size_t prefix = strlen(group);
    nsm_module_init(m, fixture_ctx(f));
    for (int at = 0; (path = fixture_next(f, group, &at));) {
        int64_t dim[NSM_MAX_RANK], n;
        int rank = fixture_dims(f, path, dim);
        if (rank < 0) continue;
        nsm_tensor *t = nsm_module_param(m, path + prefix, rank, dim);
        const float *x = filled ? fixture_floats(f, path, &n) : NULL;
        if (x && t) nsm_tensor_set(t, x);
    }
    if (!m->params) fixture_fault(f, "%s holds nothing", group);
}

static void set_grad(nsm_tensor *t, const float *x)
{
    bool fresh;
    if (nsmi_grad(t, &fresh))
        t->ctx->dev.be->to_device(&t->ctx->dev, (size_t)nsm_numel(t) * sizeof *x, x, t->grad);
}

/* ---- steps with given gradients ---- */

/* Row `step` of inputs/grad_<name> is its gradient; the parameters become that of
 * outputs/<name>. */
static void run_steps(fixture *f)
{
    nsm_module m;
    nsm_optimizer_config config = config_of(f);
    int64_t steps = steps_of(f), n;
    double lr = fixture_number(f, "lr", 0);
    char path[NAME];
    module_of(f, "weights/", true, &m);
    nsm_optimizer *o = nsm_optimizer_new(&m, &config);
    float **after = calloc((size_t)m.params + 1, sizeof *after);
    for (int i = 0; after && i < m.params; i++)
        after[i] = calloc((size_t)(steps * nsm_numel(m.param[i].tensor)) + 1, sizeof **after);
    for (int64_t step = 0; o && step < steps; step++) {
        for (int i = 0; i < m.params; i++) {
            int64_t size = nsm_numel(m.param[i].tensor);
            snprintf(path, sizeof path, "inputs/grad_%s", m.param[i].name);
            const float *g = fixture_floats(f, path, &n);
            if (!g) break;
            if (n != steps * size) fixture_fault(f, "%s does not fit its weight", path);
            else set_grad(m.param[i].tensor, g + step * size);
        }
        nsm_optimizer_step(o, lr);
        for (int i = 0; i < m.params; i++)
            nsm_tensor_get(m.param[i].tensor, after[i] + step * nsm_numel(m.param[i].tensor));
    }
    for (int i = 0; after && i < m.params; i++) {
        snprintf(path, sizeof path, "outputs/%s", m.param[i].name);
        fixture_values(f, path, after[i], steps * nsm_numel(m.param[i].tensor));
        free(after[i]);
    }
    free(after);
    nsm_optimizer_free(o);
    nsm_module_clear(&m);
}

/* ---- clipping ---- */

/* Weights of 0 and a rate of 1: after one step uphill they are the clipped gradients. */
static void run_clip(fixture *f)
{
    nsm_module m;
    int64_t n;
    char path[NAME];
    if (fixture_number(f, "norm_type", 2) != 2 || fixture_number(f, "eps", 1e-6) != 1e-6)
        fixture_fault(f, "only norm_type 2 with eps 1e-6 is built");
    module_of(f, "inputs/", false, &m);
    nsm_optimizer *o =
        nsm_optimizer_new(&m, &(nsm_optimizer_config){ .max_norm = fixture_number(f, "max_norm", 0),
                                                       .maximize = true });
    for (int i = 0; o && i < m.params; i++) {
        snprintf(path, sizeof path, "inputs/%s", m.param[i].name);
        const float *g = fixture_floats(f, path, &n);
        if (g) set_grad(m.param[i].tensor, g);
    }
    nsm_optimizer_step(o, 1);
    for (int i = 0; i < m.params; i++) {
        n = nsm_numel(m.param[i].tensor);
        float *clipped = calloc((size_t)n + 1, sizeof *clipped);
        snprintf(path, sizeof path, "outputs/clipped_%s", m.param[i].name);
        nsm_tensor_get(m.param[i].tensor, clipped);
        fixture_values(f, path, clipped, n);
        free(clipped);
    }
    fixture_values(f, "outputs/total_norm", &(float){ (float)nsm_optimizer_norm(o) }, 1);
    nsm_optimizer_free(o);
    nsm_module_clear(&m);
}

/* ---- averages ---- */

static int get_average(void *user, const char *name, nsm_tensor *t, bool buffer)
{
    (void)name;
    (void)buffer;
    return nsm_tensor_get(t, user);
}

static void run_ema(fixture *f)
{
    nsm_module m;
    int64_t dim[NSM_MAX_RANK], n;
    int rank = fixture_dims(f, "inputs/w", dim);
    const float *w = fixture_floats(f, "inputs/w", &n);
    if (!w || rank < 1 || dim[0] < 2) {
        fixture_fault(f, "inputs/w is not a row of weights");
        return;
    }
    if (strcmp(fixture_text(f, "first", "copy"), "copy")) fixture_fault(f, "first is not copy");
    int64_t size = n / dim[0];
    float *out = calloc((size_t)n, sizeof *out);
    nsm_module_init(&m, fixture_ctx(f));
    nsm_tensor *t = nsm_module_param(&m, "w", rank - 1, dim + 1);
    if (t) nsm_tensor_set(t, w);
    nsm_ema *ema = nsm_ema_new(&m, fixture_number(f, "decay", 0));
    for (int64_t i = 1; out && ema && i < dim[0]; i++) {
        nsm_tensor_set(t, w + i * size);
        nsm_ema_update(ema);
        nsm_ema_walk(ema, get_average, out + (i - 1) * size);
    }
    fixture_values(f, "outputs/ema", out, n - size);
    free(out);
    nsm_ema_free(ema);
    nsm_module_clear(&m);
}

/* ---- learning rates ---- */

static double number(json_t *o, const char *key, double fallback)
{
    json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : fallback;
}

static int kind_of(const char *name)
{
    if (!strcmp(name, "cosine_annealing")) return NSM_SCHEDULE_COSINE;
    if (!strcmp(name, "cosine_warm_restarts")) return NSM_SCHEDULE_COSINE_RESTARTS;
    return nsm_schedule_find(name);
}

/* The first of these keys that the object has. */
static double any_of(json_t *o, const char *const *key)
{
    for (; *key; key++)
        if (json_is_number(json_object_get(o, *key))) return number(o, *key, 0);
    return 0;
}

static nsm_schedule schedule_of(fixture *f, json_t *o, double lr, int64_t *milestone, int most)
{
    static const char *const steps[] = { "num_training_steps", "T_max",       "T_0",
                                         "total_steps",        "total_iters", NULL };
    static const char *const ends[] = { "eta_min", "lr_end", NULL };
    const char *name = json_string_value(json_object_get(o, "kind")), *anneal;
    json_t *marks = json_object_get(o, "milestones");
    int kind = name ? kind_of(name) : -1;
    if (kind < 0 || (int)json_array_size(marks) > most)
        fixture_fault(f, "there is no schedule %s", name ? name : "");
    anneal = json_string_value(json_object_get(o, "anneal_strategy"));
    nsm_schedule s = {
        .kind = kind < 0 ? NSM_SCHEDULE_CONSTANT : (nsm_schedule_kind)kind,
        .lr = number(o, "max_lr", lr),
        .steps = (int64_t)any_of(o, steps),
        .warmup = (int64_t)number(o, "num_warmup_steps", 0),
        .step_size = (int64_t)number(o, "step_size", 0),
        .milestone = milestone,
        .gamma = said(json_object_get(o, "gamma")),
        .start_factor = said(json_object_get(o, "start_factor")),
        .end_factor = number(o, "end_factor", 0),
        .lr_end = any_of(o, ends),
        .period_factor = (int64_t)number(o, "T_mult", 1),
        .cycles = said(json_object_get(o, "num_cycles")),
        .timescale = number(o, "timescale", 0),
        .power = said(json_object_get(o, "power")),
        .pct_start = said(json_object_get(o, "pct_start")),
        .div_factor = number(o, "div_factor", 25),
        .final_div_factor = number(o, "final_div_factor", 1e4),
        .linear_anneal = anneal && !strcmp(anneal, "linear"),
        .three_phase = json_is_true(json_object_get(o, "three_phase")),
    };
    for (int i = 0; i < most && i < (int)json_array_size(marks); i++)
        milestone[s.milestones++] = json_integer_value(json_array_get(marks, (size_t)i));
    nsm_schedule_check(fixture_ctx(f), &s);
    return s;
}

static void run_schedules(fixture *f)
{
    const char *name;
    json_t *o;
    int64_t steps = steps_of(f);
    float *rate = calloc((size_t)steps + 1, sizeof *rate);
    json_object_foreach(json_object_get(fixture_config(f), "schedules"), name, o) {
        char path[NAME];
        int64_t milestone[64];
        nsm_schedule s = schedule_of(f, o, fixture_number(f, "base_lr", 0), milestone, 64);
        for (int64_t t = 0; rate && t < steps && !nsm_error(fixture_ctx(f)); t++)
            rate[t] = (float)nsm_schedule_rate(&s, t);
        snprintf(path, sizeof path, "outputs/%s", name);
        fixture_values(f, path, rate, steps);
    }
    free(rate);
}

/* ---- training ---- */

static nsm_tensor *layer(fixture *f, nsm_tape *tape, nsm_module *m, size_t i, const char *kind,
                         nsm_tensor *x)
{
    char weight[NAME], bias[NAME];
    float a, b;
    snprintf(weight, sizeof weight, "%zu.weight", i);
    snprintf(bias, sizeof bias, "%zu.bias", i);
    if (!strcmp(kind, "linear"))
        return nsm_linear(tape, x, nsm_module_find(m, weight), nsm_module_find(m, bias));
    int act = nsm_act_find(kind);
    if (act == NSM_ACT_GELU && !strcmp(fixture_text(f, "approximate", "none"), "tanh"))
        act = NSM_ACT_GELU_TANH;
    if (act < 0) {
        fixture_fault(f, "there is no layer %s", kind);
        return NULL;
    }
    nsm_act_constants((nsm_act)act, &a, &b);
    return nsm_activate(tape, x, NULL, (nsm_act)act, a, b, 0);
}

static nsm_tensor *loss_of(fixture *f, nsm_tape *tape, nsm_tensor *y, nsm_tensor *target)
{
    static const char *const names[] = { "mean", "sum", "none", "batchmean" };
    const char *kind = fixture_text(f, "loss", ""),
               *reduction = fixture_text(f, "reduction", "mean");
    int r = 0;
    while (r < 4 && strcmp(names[r], reduction)) r++;
    if (r == 4 || r == NSM_LOSS_NONE) fixture_fault(f, "reduction %s makes no loss", reduction);
    else if (!strcmp(kind, "mse")) return nsm_mse_loss(tape, y, target, (nsm_reduction)r);
    else if (!strcmp(kind, "cross_entropy"))
        return nsm_cross_entropy(tape, y, target,
                                 &(nsm_cross_entropy_config){ .reduction = (nsm_reduction)r });
    else fixture_fault(f, "there is no loss %s", kind);
    return NULL;
}

/* One step on the whole batch; the loss before it. */
static float train_step(fixture *f, nsm_tape *tape, nsm_module *m, nsm_optimizer *o, double lr)
{
    json_t *layers = json_object_get(fixture_config(f), "layers"), *kind;
    nsm_tensor *y = fixture_input(f, "x");
    bool classes = !strcmp(fixture_text(f, "loss", ""), "cross_entropy");
    size_t i;
    json_array_foreach(layers, i, kind) {
        const char *name = json_string_value(kind);
        y = layer(f, tape, m, i, name ? name : "", y);
    }
    int64_t dim[NSM_MAX_RANK];
    classes = classes && fixture_dims(f, "inputs/y", dim) == 1;
    nsm_tensor *loss = loss_of(f, tape, y, classes ? fixture_index(f, "y") : fixture_input(f, "y"));
    float value = loss ? nsm_tensor_item(loss) : NAN;
    nsm_tape_backward(tape, loss);
    nsm_optimizer_step(o, lr);
    nsm_tape_reset(tape);
    return value;
}

static void compare_finals(fixture *f, nsm_module *m)
{
    for (int i = 0; i < m->params; i++) {
        char path[NAME];
        int64_t n = nsm_numel(m->param[i].tensor);
        float *w = calloc((size_t)n + 1, sizeof *w);
        snprintf(path, sizeof path, "outputs/final_%s", m->param[i].name);
        nsm_tensor_get(m->param[i].tensor, w);
        fixture_values(f, path, w, n);
        free(w);
    }
}

static void run_train(fixture *f)
{
    nsm_module m;
    json_t *clip = json_object_get(fixture_config(f), "clip");
    nsm_optimizer_config config = config_of(f);
    int64_t milestone[64], steps = steps_of(f);
    json_t *plan = json_object_get(fixture_config(f), "schedule");
    nsm_schedule s = { .lr = fixture_number(f, "lr", 0) };
    if (json_is_object(plan)) s = schedule_of(f, plan, s.lr, milestone, 64);
    if (number(clip, "norm_type", 2) != 2) fixture_fault(f, "only norm_type 2 is built");
    config.max_norm = json_is_object(clip) ? number(clip, "max_norm", 0) : 0;
    module_of(f, "weights/", true, &m);
    nsm_optimizer *o = nsm_optimizer_new(&m, &config);
    nsm_tape *tape = nsm_tape_new(fixture_ctx(f));
    float *loss = calloc((size_t)steps + 1, sizeof *loss);
    float *norm = calloc((size_t)steps + 1, sizeof *norm);
    for (int64_t t = 0; loss && norm && o && tape && t < steps; t++) {
        loss[t] = train_step(f, tape, &m, o, nsm_schedule_rate(&s, t));
        norm[t] = (float)nsm_optimizer_norm(o);
    }
    fixture_values(f, "outputs/losses", loss, steps);
    if (json_is_object(clip) || fixture_has(f, "outputs/grad_norms"))
        fixture_values(f, "outputs/grad_norms", norm, steps);
    compare_finals(f, &m);
    free(loss);
    free(norm);
    nsm_tape_free(tape);
    nsm_optimizer_free(o);
    nsm_module_clear(&m);
}

extern const oracle_kind oracle_optimizers[];
const oracle_kind oracle_optimizers[] = {
    { "optimizers", "sgd", run_steps },
    { "optimizers", "adam", run_steps },
    { "optimizers", "adamw", run_steps },
    { "optimizers", "rmsprop", run_steps },
    { "optimizers", "adagrad", run_steps },
    { "optimizers", "adadelta", run_steps },
    { "optimizers", "nadam", run_steps },
    { "optimizers", "radam", run_steps },
    { "optimizers", "lion", run_steps },
    { "optimizers", "clip_grad_norm", run_clip },
    { "optimizers", "ema", run_ema },
    { "optimizers", "lr_schedules", run_schedules },
    { "optimizers", "train", run_train },
    { NULL, NULL, NULL },
};
