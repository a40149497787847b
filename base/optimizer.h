/* base/optimizer.h - Optimizers over a module, and the moving average of its weights.
 *
 * The rules are PyTorch's (torch.optim), number for number; Lion is Chen et al.,
 * arXiv:2302.06675.  The state of a trained tensor is made when the optimizer is, so that a steady
 * step allocates nothing; all tensors of a step go to the backend in one call.
 *
 * One step of training:
 *   nsm_tape_backward(tape, loss);
 *   nsm_optimizer_step(optimizer, nsm_schedule_rate(&schedule, nsm_optimizer_steps(optimizer)));
 *
 * A tensor that no gradient has reached is left alone, as if the step were not its own. */
#ifndef NSM_OPTIMIZER_H
#define NSM_OPTIMIZER_H
#include "base/module.h"
#ifdef __cplusplus
extern "C" {
#endif

/* Every rule: enumerator and the name it has in a configuration. */
#define NSM_OPTIMIZERS(X)        \
    X(NSM_SGD, "sgd")            \
    X(NSM_ADAM, "adam")          \
    X(NSM_ADAMW, "adamw")        \
    X(NSM_RMSPROP, "rmsprop")    \
    X(NSM_ADAGRAD, "adagrad")    \
    X(NSM_ADADELTA, "adadelta")  \
    X(NSM_NADAM, "nadam")        \
    X(NSM_RADAM, "radam")        \
    X(NSM_LION, "lion")

typedef enum {
#define NSM_OPTIMIZER_ENUM(kind, name) kind,
    NSM_OPTIMIZERS(NSM_OPTIMIZER_ENUM)
#undef NSM_OPTIMIZER_ENUM
    NSM_OPTIMIZER_KINDS
} nsm_optimizer_kind;

/* How some tensors differ from the rest.  The first rule whose pattern fits a tensor's dotted name
 * counts; * stands for any letters, dots too, ? for one, [a-z] for one of these. */
typedef struct {
    const char *pattern;
    double lr_factor;      /* of the rate (1) */
    double weight_decay;   /* (the optimizer's) */
    bool no_weight_decay;  /* none, whatever stands above */
    bool frozen;           /* not trained: needs_grad is cleared */
} nsm_optimizer_rule;

/* Start from zero, set what you need: a field left 0 takes the value in ( ); for those marked *
 * a negative number stands for 0 itself. */
typedef struct {
    nsm_optimizer_kind kind;      /* (sgd) */
    double weight_decay;          /* L2, added to the gradient; ADAMW, LION: decoupled (0) */
    double beta1, beta2;          /* (0.9, 0.999; LION 0.9, 0.99) * */
    double eps;                   /* (1e-8; ADAGRAD 1e-10, ADADELTA 1e-6) * */
    double momentum, dampening;   /* SGD; momentum also RMSPROP (0) */
    bool nesterov;                /* SGD */
    bool amsgrad;                 /* ADAM, ADAMW */
    bool centered;                /* RMSPROP */
    double alpha;                 /* RMSPROP (0.99) * */
    double rho;                   /* ADADELTA (0.9) * */
    double lr_decay;              /* ADAGRAD: lr / (1 + (t - 1) lr_decay) (0) */
    double initial_accumulator;   /* ADAGRAD: where the sum starts (0) */
    double momentum_decay;        /* NADAM (0.004) * */
    bool maximize;                /* go uphill */
    /* gradients together are scaled to at most this norm (no limit) */
    double max_norm;
    int accumulate;               /* backward passes that make one step (1) */
    bool accumulate_sum;          /* add them (their mean) */
    bool unchecked;               /* let NaN and infinite gradients through (error) */
    const nsm_optimizer_rule *rule; /* copied */
    int rules;
} nsm_optimizer_config;

typedef struct nsm_optimizer nsm_optimizer;

/* Make an optimizer of all that module trains; module must outlive it.  Returns it, or NULL.
 * Errors: NSM_EINVAL a number is out of range, a pattern fits nothing; NSM_ENOMEM. */
nsm_optimizer *nsm_optimizer_new(nsm_module *module, const nsm_optimizer_config *config);
void nsm_optimizer_free(nsm_optimizer *o); /* NULL is allowed */

/* A backward pass has added to the gradients: when it is the last of `accumulate`, check them,
 * clip them, change the weights with rate lr and clear the gradients.  Returns NSM_OK or the error.
 * Errors: NSM_ENUMBER a gradient is not finite, with tensor and step: no weight was changed.  CUDA
 * tells it with the next copy to the host, of a loss for one, and until then changes no weight. */
int nsm_optimizer_step(nsm_optimizer *o, double lr);

nsm_optimizer_kind nsm_optimizer_kind_of(const nsm_optimizer *o);
int64_t nsm_optimizer_steps(const nsm_optimizer *o); /* taken so far */
int nsm_optimizer_pending(const nsm_optimizer *o);   /* passes accumulated towards the next */
/* Of the last step's gradients before clipping; 0 with unchecked and without max_norm.  Waits for
 * the device. */
double nsm_optimizer_norm(const nsm_optimizer *o);

/* The state, for a checkpoint: its tensors ("conv1.weight.exp_avg"), and how many steps each
 * trained tensor has had, in the module's order. */
int nsm_optimizer_walk(nsm_optimizer *o, nsm_visit visit, void *user);
const int64_t *nsm_optimizer_counts(const nsm_optimizer *o, int64_t *count);
/* Set what a checkpoint had.  Errors: NSM_EINVAL count is another, a number is out of range. */
int nsm_optimizer_restore(nsm_optimizer *o, int64_t steps, const int64_t *counts, int64_t count);

const char *nsm_optimizer_name(nsm_optimizer_kind kind); /* "adamw" */
/* the kind of a name, -1 if there is none */
int nsm_optimizer_find(const char *name);

/* ---- exponential moving average of the weights ----
 * e = w at the start, then at each update e = decay e + (1 - decay) w.  For what is trained
 * only. */
typedef struct nsm_ema nsm_ema;

/* Errors: NSM_EINVAL decay is outside [0, 1]; NSM_ENOMEM. */
nsm_ema *nsm_ema_new(nsm_module *module, double decay);
/* NULL is allowed.  Freed while swapped, the averages stay as weights. */
void nsm_ema_free(nsm_ema *ema);
int nsm_ema_update(nsm_ema *ema); /* after each step; NSM_EINVAL: the averages are swapped in */
/* Exchange weights and averages: once to evaluate, once more to train on. */
int nsm_ema_swap(nsm_ema *ema);
bool nsm_ema_swapped(const nsm_ema *ema);
/* the averages, by the weights' names */
int nsm_ema_walk(nsm_ema *ema, nsm_visit visit, void *user);

#ifdef __cplusplus
}
#endif
#endif
