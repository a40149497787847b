/* base/schedule.c - Learning-rate schedules.  The formulas are in base/schedule.h. */
#include "config.h"
#include "base/internal.h"
#include "base/schedule.h"

static const double pi = 3.14159265358979323846;

static const char *const names[] = {
#define SCHEDULE_NAME(kind, name) name,
    NSM_SCHEDULES(SCHEDULE_NAME)
};

const char *nsm_schedule_name(nsm_schedule_kind kind)
{
    return (unsigned)kind < NSM_SCHEDULE_KINDS ? names[kind] : "unknown";
}

int nsm_schedule_find(const char *name)
{
    for (int i = 0; name && i < NSM_SCHEDULE_KINDS; i++)
        if (!strcmp(names[i], name)) return i;
    return -1;
}

/* A field left 0 takes the default; a negative one says 0. */
static double or_default(double x, double value) { return x == 0 ? value : x < 0 ? 0 : x; }

static double cosine(double from, double to, double share)
{
    return to + (from - to) * (1 + cos(pi * share)) / 2;
}

static double straight(double from, double to, double share) { return from + (to - from) * share; }

static double multistep(const nsm_schedule *s, double t)
{
    int passed = 0;
    for (int i = 0; i < s->milestones; i++) passed += t >= (double)s->milestone[i];
    return s->lr * pow(or_default(s->gamma, 0.1), passed);
}

/* Where t stands in its period, as a share of it. */
static double restart_share(const nsm_schedule *s, double t)
{
    double period = (double)s->steps, factor = s->period_factor ? (double)s->period_factor : 1;
    if (factor == 1) return fmod(t, period) / period;
    while (t >= period) {
        t -= period;
        period *= factor;
    }
    return t / period;
}

static double after_warmup(const nsm_schedule *s, double t)
{
    double w = (double)s->warmup, n = (double)s->steps, rest = fmax(1, n - w);
    double scale = s->timescale > 0 ? s->timescale : s->warmup ? w : 10000;
    switch (s->kind) {
    case NSM_SCHEDULE_WARMUP_LINEAR: return s->lr * fmax(0, (n - t) / rest);
    case NSM_SCHEDULE_WARMUP_COSINE:
        return s->lr *
               fmax(0, 0.5 * (1 + cos(2 * pi * or_default(s->cycles, 0.5) * (t - w) / rest)));
    case NSM_SCHEDULE_WARMUP_INVERSE_SQRT: return s->lr / sqrt((t + scale - w) / scale);
    case NSM_SCHEDULE_WARMUP_POLYNOMIAL:
        if (t > n) return s->lr_end;
        return (s->lr - s->lr_end) * pow(1 - (t - w) / rest, or_default(s->power, 1)) + s->lr_end;
    default: return s->lr;
    }
}

static double one_cycle(const nsm_schedule *s, double t)
{
    double n = (double)s->steps, p = or_default(s->pct_start, 0.3);
    double first = s->lr / or_default(s->div_factor, 25);
    double last = first / or_default(s->final_div_factor, 10000);
    struct { double end, from, to; } phase[3] = {
        { p * n - 1, first, s->lr },
        { s->three_phase ? 2 * p * n - 2 : n - 1, s->lr, s->three_phase ? first : last },
        { n - 1, first, last },
    };
    int phases = s->three_phase ? 3 : 2, i = 0;
    double begin = 0, share;
    t = fmin(t, n - 1);
    while (i < phases - 1 && t > phase[i].end) begin = phase[i++].end;
    share = phase[i].end > begin ? (t - begin) / (phase[i].end - begin) : 1;
    return (s->linear_anneal ? straight : cosine)(phase[i].from, phase[i].to, share);
}

double nsm_schedule_rate(const nsm_schedule *s, int64_t step)
{
    double t = step > 0 ? (double)step : 0, n = (double)s->steps;
    switch (s->kind) {
    case NSM_SCHEDULE_STEP:
        return s->lr * pow(or_default(s->gamma, 0.1), floor(t / (double)s->step_size));
    case NSM_SCHEDULE_MULTISTEP: return multistep(s, t);
    case NSM_SCHEDULE_EXPONENTIAL: return s->lr * pow(or_default(s->gamma, 0.1), t);
    case NSM_SCHEDULE_LINEAR:
        return s->lr * straight(or_default(s->start_factor, 1), s->end_factor, fmin(t, n) / n);
    case NSM_SCHEDULE_COSINE: return cosine(s->lr, s->lr_end, t / n);
    case NSM_SCHEDULE_COSINE_RESTARTS: return cosine(s->lr, s->lr_end, restart_share(s, t));
    case NSM_SCHEDULE_WARMUP_CONSTANT:
    case NSM_SCHEDULE_WARMUP_LINEAR:
    case NSM_SCHEDULE_WARMUP_COSINE:
    case NSM_SCHEDULE_WARMUP_INVERSE_SQRT:
    case NSM_SCHEDULE_WARMUP_POLYNOMIAL:
        return t < (double)s->warmup ? s->lr * t / (double)s->warmup : after_warmup(s, t);
    case NSM_SCHEDULE_ONE_CYCLE: return one_cycle(s, t);
    default: return s->lr;
    }
}

typedef struct { bool wrong; const char *what; double value; } demand;

/* Does the kind's formula contain n? */
static bool has_steps(nsm_schedule_kind kind)
{
    return kind == NSM_SCHEDULE_LINEAR || kind == NSM_SCHEDULE_COSINE ||
           kind == NSM_SCHEDULE_COSINE_RESTARTS || kind == NSM_SCHEDULE_WARMUP_LINEAR ||
           kind == NSM_SCHEDULE_WARMUP_COSINE || kind == NSM_SCHEDULE_WARMUP_POLYNOMIAL ||
           kind == NSM_SCHEDULE_ONE_CYCLE;
}

int nsm_schedule_check(nsm_ctx *ctx, const nsm_schedule *s)
{
    const demand rule[] = {
        { (unsigned)s->kind >= NSM_SCHEDULE_KINDS, "kind is unknown", (double)s->kind },
        { !isfinite(s->lr) || s->lr < 0, "lr must be a number from 0", s->lr },
        { has_steps(s->kind) && s->steps <= 0, "steps must be positive", (double)s->steps },
        { s->kind == NSM_SCHEDULE_STEP && s->step_size <= 0, "step_size must be positive",
          (double)s->step_size },
        { s->warmup < 0, "warmup must not be negative", (double)s->warmup },
        { s->period_factor < 0, "period_factor must not be negative", (double)s->period_factor },
        { s->milestones < 0 || (s->milestones > 0 && !s->milestone), "milestones have no array",
          s->milestones },
        { !isfinite(s->gamma), "gamma must be finite", s->gamma },
        { s->kind == NSM_SCHEDULE_WARMUP_INVERSE_SQRT &&
              !(s->timescale >= 0 && isfinite(s->timescale)),
          "timescale must not be negative", s->timescale },
        { !isfinite(s->power), "power must be finite", s->power },
        { !isfinite(s->lr_end) || !isfinite(s->start_factor) || !isfinite(s->end_factor) ||
              !isfinite(s->cycles),
          "lr_end, the factors and cycles must be finite", s->lr_end },
        { !(s->pct_start <= 1), "pct_start must be at most 1", s->pct_start },
        { !(s->div_factor >= 0) || !(s->final_div_factor >= 0), "div factors must not be negative",
          s->div_factor },
    };
    if (nsmi_failed(ctx)) return nsm_error(ctx);
    for (size_t i = 0; i < sizeof rule / sizeof *rule; i++)
        if (rule[i].wrong)
            return nsm_error_set(ctx, NSM_EINVAL, "nsm_schedule_check: %s: %s, it is %g",
                                 nsm_schedule_name(s->kind), rule[i].what, rule[i].value);
    return NSM_OK;
}
