/* base/optimizer.c - Optimizers: which tensors, which state, which rate; the arithmetic of a step
 * is the backend's `update`.
 *
 * Every trained tensor has a count of its own, as in PyTorch, where one that gets its first
 * gradient late starts its bias correction then.  As a rule all counts are equal and a step is one
 * call of the backend; where they differ, each run of equal counts is one. */
#include "config.h"
#include <fnmatch.h>
#include "base/internal.h"
#include "base/optimizer.h"

enum { STATES = 4 };

typedef struct {
    char *name;
    nsm_tensor *weight;
    nsm_tensor *state[STATES]; /* NULL where the rule, as configured, has none */
    double lr_factor, weight_decay;
    double mu_product;         /* NADAM: product of mu_1 .. mu_count */
} item;

struct nsm_optimizer {
    nsm_ctx *ctx;
    nsm_optimizer_config config; /* defaults filled in; rule is not kept */
    nsmi_step constants;
    item *item;
    int64_t *count;    /* steps each item has had */
    nsmi_slot *slot;   /* of the step, in the order of items */
    int64_t *slot_item;
    int64_t items;
    int64_t steps;
    int pending;
    double norm;
    double *verdict; /* on a device that judges: norm and scale of the last step; or NULL */
};

static const char *const names[] = {
#define OPTIMIZER_NAME(kind, name) name,
    NSM_OPTIMIZERS(OPTIMIZER_NAME)
};

/* The backend's rule, and the state it keeps in each place; "" none. */
static const struct { nsmi_rule rule; const char *state[STATES]; } rules[] = {
    [NSM_SGD] = { NSMI_SGD, { "momentum_buffer", "", "", "" } },
    [NSM_ADAM] = { NSMI_ADAM, { "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "" } },
    [NSM_ADAMW] = { NSMI_ADAMW, { "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "" } },
    [NSM_RMSPROP] = { NSMI_RMSPROP, { "square_avg", "momentum_buffer", "grad_avg", "" } },
    [NSM_ADAGRAD] = { NSMI_ADAGRAD, { "sum", "", "", "" } },
    [NSM_ADADELTA] = { NSMI_ADADELTA, { "square_avg", "acc_delta", "", "" } },
    [NSM_NADAM] = { NSMI_NADAM, { "exp_avg", "exp_avg_sq", "", "" } },
    [NSM_RADAM] = { NSMI_RADAM, { "exp_avg", "exp_avg_sq", "", "" } },
    [NSM_LION] = { NSMI_LION, { "exp_avg", "", "", "" } },
};

const char *nsm_optimizer_name(nsm_optimizer_kind kind)
{
    return (unsigned)kind < NSM_OPTIMIZER_KINDS ? names[kind] : "unknown";
}

int nsm_optimizer_find(const char *name)
{
    for (int i = 0; name && i < NSM_OPTIMIZER_KINDS; i++)
        if (!strcmp(names[i], name)) return i;
    return -1;
}

/* ---- making ---- */

static bool keeps(const nsm_optimizer_config *c, int k)
{
    if (!*rules[c->kind].state[k]) return false;
    switch (c->kind) {
    case NSM_SGD: return c->momentum != 0;
    case NSM_ADAM:
    case NSM_ADAMW: return k < 2 || c->amsgrad;
    case NSM_RMSPROP: return k == 0 || (k == 1 ? c->momentum != 0 : c->centered);
    default: return true;
    }
}

static void fill_in(double *x, double value)
{
    if (*x == 0) *x = value;
    else if (*x < 0) *x = 0;
}

static void fill_defaults(nsm_optimizer_config *c)
{
    fill_in(&c->beta1, 0.9);
    fill_in(&c->beta2, c->kind == NSM_LION ? 0.99 : 0.999);
    fill_in(&c->eps, c->kind == NSM_ADAGRAD ? 1e-10 : c->kind == NSM_ADADELTA ? 1e-6 : 1e-8);
    fill_in(&c->alpha, 0.99);
    fill_in(&c->rho, 0.9);
    fill_in(&c->momentum_decay, 4e-3);
    if (c->accumulate == 0) c->accumulate = 1;
}

typedef struct { bool wrong; const char *what; double value; } demand;

static int check_config(nsm_ctx *ctx, const nsm_optimizer_config *c)
{
    const demand rule[] = {
        { (unsigned)c->kind >= NSM_OPTIMIZER_KINDS, "kind is unknown", (double)c->kind },
        { !(c->weight_decay >= 0), "weight_decay must not be negative", c->weight_decay },
        { !(c->beta1 < 1), "beta1 must be below 1", c->beta1 },
        { !(c->beta2 < 1), "beta2 must be below 1", c->beta2 },
        { !isfinite(c->eps), "eps must be finite", c->eps },
        { !(c->momentum >= 0), "momentum must not be negative", c->momentum },
        { !isfinite(c->dampening), "dampening must be finite", c->dampening },
        { c->nesterov && (c->momentum == 0 || c->dampening != 0),
          "nesterov needs a momentum and no dampening", c->momentum },
        { !(c->alpha < 1), "alpha must be below 1", c->alpha },
        { !(c->rho <= 1), "rho must be at most 1", c->rho },
        { !(c->lr_decay >= 0), "lr_decay must not be negative", c->lr_decay },
        { !(c->initial_accumulator >= 0), "initial_accumulator must not be negative",
          c->initial_accumulator },
        { !isfinite(c->momentum_decay), "momentum_decay must be finite", c->momentum_decay },
        { !(c->max_norm >= 0), "max_norm must not be negative", c->max_norm },
        { c->accumulate < 0, "accumulate must not be negative", c->accumulate },
    };
    for (size_t i = 0; i < sizeof rule / sizeof *rule; i++)
        if (rule[i].wrong)
            return nsm_error_set(ctx, NSM_EINVAL, "nsm_optimizer_new: %s: %s, it is %g",
                                 nsm_optimizer_name(c->kind), rule[i].what, rule[i].value);
    for (int i = 0; i < c->rules; i++) {
        const nsm_optimizer_rule *r = &c->rule[i];
        if (!r->pattern || !(r->lr_factor >= 0) || !(r->weight_decay >= 0))
            return nsm_error_set(
                ctx, NSM_EINVAL,
                "nsm_optimizer_new: rule %d (%s): it has no pattern or a negative number", i,
                r->pattern ? r->pattern : "none");
    }
    return NSM_OK;
}

typedef struct {
    nsm_optimizer *o;
    const nsm_optimizer_config *config;
    unsigned char *fits; /* [rules] has a name been found for it? */
} making;

static const nsm_optimizer_rule *rule_of(const making *m, const char *name)
{
    const nsm_optimizer_rule *first = NULL;
    for (int i = 0; i < m->config->rules; i++) {
        if (fnmatch(m->config->rule[i].pattern, name, 0)) continue;
        m->fits[i] = 1;
        if (!first) first = &m->config->rule[i];
    }
    return first;
}

/* How many tensors there are, frozen ones among them, so that the arrays need not grow. */
static int count_one(void *user, const char *name, nsm_tensor *t, bool buffer)
{
    (void)name;
    *(int64_t *)user += !buffer && t->needs_grad;
    return 0;
}

static int add_item(void *user, const char *name, nsm_tensor *t, bool buffer)
{
    const making *m = user;
    nsm_optimizer *o = m->o;
    if (buffer || !t->needs_grad) return NSM_OK;
    const nsm_optimizer_rule *r = rule_of(m, name);
    if (r && r->frozen) {
        t->needs_grad = false;
        return NSM_OK;
    }
    item *it = &o->item[o->items++];
    it->weight = t;
    it->mu_product = 1;
    it->lr_factor = r && r->lr_factor != 0 ? r->lr_factor : 1;
    it->weight_decay = r && r->weight_decay != 0 ? r->weight_decay : o->config.weight_decay;
    if (r && r->no_weight_decay) it->weight_decay = 0;
    it->name = nsmi_strdup(o->ctx, name);
    for (int k = 0; it->name && k < STATES; k++) {
        if (!keeps(&o->config, k)) continue;
        it->state[k] = nsm_tensor_new(o->ctx, NSM_F32, t->rank, t->dim);
        if (it->state[k])
            nsm_tensor_fill(it->state[k], o->config.kind == NSM_ADAGRAD
                                              ? (float)o->config.initial_accumulator
                                              : 0);
    }
    return nsm_error(o->ctx);
}

static nsmi_step constants_of(const nsm_optimizer_config *c)
{
    return (nsmi_step){
        .rule = rules[c->kind].rule,
        .beta1 = c->beta1,
        .beta2 = c->beta2,
        .eps = c->eps,
        .momentum = c->momentum,
        .dampening = c->dampening,
        .alpha = c->alpha,
        .rho = c->rho,
        .lr_decay = c->lr_decay,
        .momentum_decay = c->momentum_decay,
        .nesterov = c->nesterov,
        .amsgrad = c->amsgrad,
        .centered = c->centered,
        .maximize = c->maximize,
    };
}

static void make_items(nsm_optimizer *o, nsm_module *module, const nsm_optimizer_config *config)
{
    int64_t most = 0;
    nsm_module_walk(module, count_one, &most);
    o->item = nsmi_calloc(o->ctx, (size_t)most, sizeof *o->item);
    o->count = nsmi_calloc(o->ctx, (size_t)most, sizeof *o->count);
    o->slot = nsmi_calloc(o->ctx, (size_t)most, sizeof *o->slot);
    o->slot_item = nsmi_calloc(o->ctx, (size_t)most, sizeof *o->slot_item);
    if (o->ctx->dev.be->judge) o->verdict = nsmi_device_alloc(o->ctx, 2 * sizeof *o->verdict);
    making m = { o, config, nsmi_calloc(o->ctx, (size_t)config->rules, 1) };
    if (!nsmi_failed(o->ctx)) nsm_module_walk(module, add_item, &m);
    for (int i = 0; !nsmi_failed(o->ctx) && i < config->rules; i++)
        if (!m.fits[i])
            nsm_error_set(o->ctx, NSM_EINVAL,
                          "nsm_optimizer_new: rule %d: no trained tensor has a name like \"%s\"", i,
                          config->rule[i].pattern);
    free(m.fits);
}

nsm_optimizer *nsm_optimizer_new(nsm_module *module, const nsm_optimizer_config *config)
{
    if (!module || nsmi_failed(module->ctx) || check_config(module->ctx, config)) return NULL;
    nsm_optimizer *o = nsmi_calloc(module->ctx, 1, sizeof *o);
    if (!o) return NULL;
    o->ctx = module->ctx;
    o->config = *config;
    o->config.rule = NULL;
    fill_defaults(&o->config);
    o->constants = constants_of(&o->config);
    make_items(o, module, config);
    if (!nsmi_failed(o->ctx)) return o;
    nsm_optimizer_free(o);
    return NULL;
}

void nsm_optimizer_free(nsm_optimizer *o)
{
    if (!o) return;
    if (o->verdict) {
        o->ctx->dev.be->sync(&o->ctx->dev); /* it may yet tell a name */
        nsmi_device_trouble(o->ctx, "nsm_optimizer_free");
    }
    for (int64_t i = 0; i < o->items; i++) {
        for (int k = 0; k < STATES; k++) nsm_tensor_free(o->item[i].state[k]);
        free(o->item[i].name);
    }
    free(o->item);
    free(o->count);
    free(o->slot);
    free(o->slot_item);
    nsmi_device_free(o->ctx, o->verdict);
    free(o);
}

/* ---- a step ---- */

/* The norm of all gradients together, in double, where no finite numbers overflow: it is finite
 * when they all are. */
static double norm_of(nsm_optimizer *o)
{
    nsm_device *d = &o->ctx->dev;
    double sum = 0;
    for (int64_t i = 0; i < o->items; i++) {
        const nsm_tensor *t = o->item[i].weight;
        if (t->grad) sum += d->be->sum_squares(d, nsm_numel(t), t->grad);
    }
    return sqrt(sum);
}

static int name_the_bad(nsm_optimizer *o)
{
    nsm_device *d = &o->ctx->dev;
    for (int64_t i = 0; i < o->items; i++) {
        const nsm_tensor *t = o->item[i].weight;
        if (t->grad && !d->be->all_finite(d, nsm_numel(t), t->grad))
            return nsm_error_set(
                o->ctx, NSM_ENUMBER,
                "nsm_optimizer_step: the gradient of %s is not finite in step %lld",
                o->item[i].name, (long long)o->steps + 1);
    }
    return nsm_error_set(o->ctx, NSM_ENUMBER,
                         "nsm_optimizer_step: the norm of the gradients is not finite in step %lld",
                         (long long)o->steps + 1);
}

static int64_t fill_slots(nsm_optimizer *o, double lr)
{
    int64_t n = 0;
    for (int64_t i = 0; i < o->items; i++) {
        const item *it = &o->item[i];
        if (!it->weight->grad) continue;
        nsmi_slot *s = &o->slot[n];
        *s = (nsmi_slot){ .name = it->name,
                          .n = nsm_numel(it->weight),
                          .w = it->weight->f32,
                          .g = it->weight->grad,
                          .lr = (float)(lr * it->lr_factor),
                          .weight_decay = (float)it->weight_decay };
        for (int k = 0; k < STATES; k++) s->s[k] = it->state[k] ? it->state[k]->f32 : NULL;
        o->slot_item[n++] = i;
    }
    return n;
}

/* NADAM's mu_t (Dozat, ICLR 2016 workshop, as in PyTorch). */
static double mu(const nsm_optimizer *o, int64_t t)
{
    return o->config.beta1 * (1 - 0.5 * pow(0.96, (double)t * o->config.momentum_decay));
}

static void update(nsm_optimizer *o, int64_t slots)
{
    nsm_device *d = &o->ctx->dev;
    for (int64_t a = 0, b; a < slots; a = b) {
        int64_t t = o->count[o->slot_item[a]] + 1;
        for (b = a; b < slots && o->count[o->slot_item[b]] + 1 == t; b++) {
            o->item[o->slot_item[b]].mu_product *= mu(o, t);
            o->count[o->slot_item[b]] = t;
        }
        o->constants.step = t;
        o->constants.mu_product = o->item[o->slot_item[a]].mu_product;
        d->be->update(d, &o->constants, b - a, o->slot + a);
        nsmi_device_trouble(o->ctx, "nsm_optimizer_step");
    }
}

/* What the update multiplies gradients with, from their norm where that is wanted: the host's to
 * know, or left with the device. */
static int judge(nsm_optimizer *o, int64_t slots)
{
    nsm_device *d = &o->ctx->dev;
    double scale = o->config.accumulate_sum ? 1 : 1.0 / o->config.accumulate,
           limit = o->config.max_norm;
    bool check = !o->config.unchecked, judges = o->verdict && (check || limit > 0);
    o->constants.verdict = judges ? o->verdict : NULL;
    if (judges) {
        d->be->judge(d, &(nsmi_judgement){ o->steps + 1, scale, limit, check }, slots, o->slot,
                     o->verdict);
        nsmi_device_trouble(o->ctx, "nsm_optimizer_step");
        scale = 1;
    } else if (check || limit > 0) {
        o->norm = norm_of(o) * scale;
        if (check && !isfinite(o->norm)) return name_the_bad(o);
        if (limit > 0 && limit / (o->norm + 1e-6) < 1) scale *= limit / (o->norm + 1e-6);
    }
    o->constants.grad_scale = (float)scale;
    return nsm_error(o->ctx);
}

int nsm_optimizer_step(nsm_optimizer *o, double lr)
{
    if (!o) return NSM_EINVAL;
    if (nsmi_failed(o->ctx)) return nsm_error(o->ctx);
    if (!isfinite(lr))
        return nsm_error_set(o->ctx, NSM_ENUMBER, "nsm_optimizer_step: the rate is %g in step %lld",
                             lr, (long long)o->steps + 1);
    if (++o->pending < o->config.accumulate) return NSM_OK;
    o->pending = 0;
    int64_t slots = fill_slots(o, lr);
    if (judge(o, slots)) return nsm_error(o->ctx);
    update(o, slots);
    for (int64_t i = 0; i < o->items; i++) nsm_tensor_zero_grad(o->item[i].weight);
    o->steps++;
    return nsm_error(o->ctx);
}

nsm_optimizer_kind nsm_optimizer_kind_of(const nsm_optimizer *o)
{ return o ? o->config.kind : NSM_SGD; }
int64_t nsm_optimizer_steps(const nsm_optimizer *o) { return o ? o->steps : 0; }
int nsm_optimizer_pending(const nsm_optimizer *o) { return o ? o->pending : 0; }
double nsm_optimizer_norm(const nsm_optimizer *o)
{
    double norm = o ? o->norm : 0;
    if (o && o->constants.verdict)
        o->ctx->dev.be->to_host(&o->ctx->dev, sizeof norm, o->verdict, &norm);
    return norm;
}

/* ---- the state ---- */

int nsm_optimizer_walk(nsm_optimizer *o, nsm_visit visit, void *user)
{
    char name[640];
    if (!o) return NSM_EINVAL;
    for (int64_t i = 0; i < o->items; i++)
        for (int k = 0; k < STATES; k++) {
            if (!o->item[i].state[k]) continue;
            snprintf(name, sizeof name, "%s.%s", o->item[i].name, rules[o->config.kind].state[k]);
            int code = visit(user, name, o->item[i].state[k], false);
            if (code) return code;
        }
    return NSM_OK;
}

const int64_t *nsm_optimizer_counts(const nsm_optimizer *o, int64_t *count)
{
    *count = o ? o->items : 0;
    return o ? o->count : NULL;
}

int nsm_optimizer_restore(nsm_optimizer *o, int64_t steps, const int64_t *counts, int64_t count)
{
    if (!o) return NSM_EINVAL;
    if (nsmi_failed(o->ctx)) return nsm_error(o->ctx);
    bool fits = steps >= 0 && count == o->items;
    for (int64_t i = 0; fits && i < count; i++) fits = counts[i] >= 0 && counts[i] <= steps;
    if (!fits)
        return nsm_error_set(
            o->ctx, NSM_EINVAL,
            "nsm_optimizer_restore: %lld steps and %lld counts do not fit %lld trained tensors",
            (long long)steps, (long long)count, (long long)o->items);
    o->steps = steps;
    o->pending = 0;
    for (int64_t i = 0; i < count; i++) {
        o->count[i] = counts[i];
        o->item[i].mu_product = 1;
        if (o->config.kind == NSM_NADAM)
            for (int64_t t = 1; t <= counts[i] && o->item[i].mu_product > 0; t++)
                o->item[i].mu_product *= mu(o, t);
    }
    return NSM_OK;
}

/* ---- the moving average ---- */

typedef struct { char *name; nsm_tensor *weight, *average; } averaged;

struct nsm_ema {
    nsm_ctx *ctx;
    float share; /* 1 - decay */
    averaged *item;
    int64_t items;
    bool swapped;
};

static int add_average(void *user, const char *name, nsm_tensor *t, bool buffer)
{
    nsm_ema *ema = user;
    if (buffer || !t->needs_grad) return NSM_OK;
    averaged *it = &ema->item[ema->items++];
    it->weight = t;
    it->name = nsmi_strdup(ema->ctx, name);
    it->average = it->name ? nsm_tensor_new(ema->ctx, NSM_F32, t->rank, t->dim) : NULL;
    if (it->average) nsm_tensor_copy(it->average, t);
    return nsm_error(ema->ctx);
}

nsm_ema *nsm_ema_new(nsm_module *module, double decay)
{
    int64_t most = 0;
    if (!module || nsmi_failed(module->ctx)) return NULL;
    if (!(decay >= 0 && decay <= 1)) {
        nsm_error_set(module->ctx, NSM_EINVAL, "nsm_ema_new: decay is %g, want 0..1", decay);
        return NULL;
    }
    nsm_module_walk(module, count_one, &most);
    nsm_ema *ema = nsmi_calloc(module->ctx, 1, sizeof *ema);
    if (!ema) return NULL;
    ema->ctx = module->ctx;
    ema->share = (float)(1 - decay);
    ema->item = nsmi_calloc(ema->ctx, (size_t)most, sizeof *ema->item);
    if (ema->item && !nsm_module_walk(module, add_average, ema)) return ema;
    nsm_ema_free(ema);
    return NULL;
}

void nsm_ema_free(nsm_ema *ema)
{
    if (!ema) return;
    for (int64_t i = 0; i < ema->items; i++) {
        nsm_tensor_free(ema->item[i].average);
        free(ema->item[i].name);
    }
    free(ema->item);
    free(ema);
}

int nsm_ema_update(nsm_ema *ema)
{
    if (!ema) return NSM_EINVAL;
    if (nsmi_failed(ema->ctx)) return nsm_error(ema->ctx);
    if (ema->swapped)
        return nsm_error_set(ema->ctx, NSM_EINVAL,
                             "nsm_ema_update: the averages are swapped in; swap back first");
    nsm_device *d = &ema->ctx->dev;
    for (int64_t i = 0; i < ema->items; i++) {
        const averaged *it = &ema->item[i];
        d->be->lerp(d, nsm_numel(it->weight), ema->share, it->weight->f32, it->average->f32);
    }
    return NSM_OK;
}

/* The tensors trade their memory: nothing is copied. */
int nsm_ema_swap(nsm_ema *ema)
{
    if (!ema) return NSM_EINVAL;
    if (nsmi_failed(ema->ctx)) return nsm_error(ema->ctx);
    for (int64_t i = 0; i < ema->items; i++) {
        void *data = ema->item[i].weight->data;
        ema->item[i].weight->data = ema->item[i].average->data;
        ema->item[i].average->data = data;
    }
    ema->swapped = !ema->swapped;
    return NSM_OK;
}

bool nsm_ema_swapped(const nsm_ema *ema) { return ema && ema->swapped; }

int nsm_ema_walk(nsm_ema *ema, nsm_visit visit, void *user)
{
    if (!ema) return NSM_EINVAL;
    for (int64_t i = 0; i < ema->items; i++) {
        int code = visit(user, ema->item[i].name, ema->item[i].average, false);
        if (code) return code;
    }
    return NSM_OK;
}
