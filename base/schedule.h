/* base/schedule.h - Learning-rate schedules: the rate as a pure function of the step.
 *
 * Nothing is carried from step to step, so a resumed run needs only its step number.  Formulas,
 * with t = 0, 1, .. the step, lr the base rate, w = warmup, n = steps:
 *
 *   constant        lr
 *   step            lr gamma^floor(t / step_size)
 *   multistep       lr gamma^(milestones m with t >= m)
 *   exponential     lr gamma^t
 *   linear          lr (a + (b - a) min(t, n) / n), a = start_factor, b = end_factor
 *   cosine          e + (lr - e) (1 + cos(pi t / n)) / 2, also past n; e = lr_end
 *   cosine_restarts the same with t counted from the last restart; periods n, n m, n m^2, ..
 *   warmup_*        lr t / w while t < w, then
 *     constant      lr
 *     linear        lr max(0, (n - t) / (n - w))
 *     cosine        lr max(0, (1 + cos(2 pi cycles (t - w) / (n - w))) / 2)
 *     inverse_sqrt  lr / sqrt((t + s - w) / s), s = timescale
 *     polynomial    (lr - e) (1 - (t - w) / (n - w))^power + e, and e after n
 *   one_cycle       Smith & Topin, arXiv:1708.07120: lr / div_factor -> lr by p n - 1 -> lr /
 *                   div_factor / final_div_factor by n - 1; with three_phase the way down stops
 *                   at the initial rate at 2 p n - 2.  p = pct_start.
 *
 * These are the schedules of torch.optim.lr_scheduler and of transformers (warmup_*). */
#ifndef NSM_SCHEDULE_H
#define NSM_SCHEDULE_H
#include "base/context.h"
#ifdef __cplusplus
extern "C" {
#endif

/* Every kind: enumerator and the name it has in a configuration. */
#define NSM_SCHEDULES(X)                                    \
    X(NSM_SCHEDULE_CONSTANT, "constant")                    \
    X(NSM_SCHEDULE_STEP, "step")                            \
    X(NSM_SCHEDULE_MULTISTEP, "multistep")                  \
    X(NSM_SCHEDULE_EXPONENTIAL, "exponential")              \
    X(NSM_SCHEDULE_LINEAR, "linear")                        \
    X(NSM_SCHEDULE_COSINE, "cosine")                        \
    X(NSM_SCHEDULE_COSINE_RESTARTS, "cosine_restarts")      \
    X(NSM_SCHEDULE_WARMUP_CONSTANT, "warmup_constant")      \
    X(NSM_SCHEDULE_WARMUP_LINEAR, "warmup_linear")          \
    X(NSM_SCHEDULE_WARMUP_COSINE, "warmup_cosine")          \
    X(NSM_SCHEDULE_WARMUP_INVERSE_SQRT, "warmup_inverse_sqrt") \
    X(NSM_SCHEDULE_WARMUP_POLYNOMIAL, "warmup_polynomial")  \
    X(NSM_SCHEDULE_ONE_CYCLE, "one_cycle")

typedef enum {
#define NSM_SCHEDULE_ENUM(kind, name) kind,
    NSM_SCHEDULES(NSM_SCHEDULE_ENUM)
#undef NSM_SCHEDULE_ENUM
    NSM_SCHEDULE_KINDS
} nsm_schedule_kind;

/* Start from zero, set what you need: a field left 0 takes the value in ( ); for those marked *
 * a negative number stands for 0 itself. */
typedef struct {
    nsm_schedule_kind kind;   /* (constant) */
    double lr;                /* the base rate; the highest of one_cycle */
    int64_t steps;            /* n: must be > 0 where the formula has it */
    int64_t warmup;           /* w (0) */
    int64_t step_size;        /* of step: must be > 0 */
    const int64_t *milestone; /* of multistep, in any order; not copied */
    int milestones;
    double gamma;             /* of step, multistep and exponential (0.1) * */
    double start_factor;      /* of linear (1) * */
    double end_factor;        /* of linear (0) */
    double lr_end;            /* e, of cosine, cosine_restarts, polynomial (0) */
    int64_t period_factor;    /* m, of cosine_restarts (1) */
    double cycles;            /* of warmup_cosine (0.5: half a wave) * */
    double timescale;         /* s, of inverse_sqrt (w, or 10000 where w is 0) */
    double power;             /* of polynomial (1) * */
    double pct_start;         /* p, of one_cycle (0.3) * */
    double div_factor;        /* of one_cycle (25) */
    double final_div_factor;  /* of one_cycle (10000) */
    bool linear_anneal;       /* of one_cycle: straight lines (cosines) */
    bool three_phase;         /* of one_cycle */
} nsm_schedule;

/* Are the numbers such that nsm_schedule_rate() is finite for every t?  Call it once, after
 * filling in.  Errors: NSM_EINVAL, which names the field. */
int nsm_schedule_check(nsm_ctx *ctx, const nsm_schedule *s);

/* The rate of step t; a negative t counts as 0. */
double nsm_schedule_rate(const nsm_schedule *s, int64_t t);

const char *nsm_schedule_name(nsm_schedule_kind kind); /* "warmup_cosine" */
int nsm_schedule_find(const char *name);               /* the kind of a name, -1 if there is none */

#ifdef __cplusplus
}
#endif
#endif
