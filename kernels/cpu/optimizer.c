/* kernels/cpu/optimizer.c - One step of every optimizer, all tensors in one pass.
 *
 * Formulas and defaults are PyTorch's (torch.optim, the plain variants); Lion is Chen et al.,
 * arXiv:2302.06675, algorithm 2.  A rule is one loop over a run of elements; what depends on the
 * step alone is computed in double beforehand. */
#include "kernels/cpu/cpu.h"

/* Constants of a run, in the precision of the loops. */
typedef struct {
    float lr, decay, keep; /* of this tensor; keep = 1 - lr decay */
    float g_scale;         /* grad_scale, negative to maximize */
    float beta1, beta2, one_beta1, one_beta2, eps;
    float momentum, one_dampening, alpha, one_alpha;
    float step, step_next; /* what multiplies the update */
    float root;            /* sqrt(1 - beta2^t) or its inverse */
    bool first, nesterov, amsgrad, centered, rectified;
} constants;

typedef void (*rule)(const constants *k, int64_t n, float *restrict w, const float *restrict g0,
                     float *restrict s0, float *restrict s1, float *restrict s2);

#define RULE(name) \
    static void name(const constants *k, int64_t n, float *restrict w, const float *restrict g0, float *restrict s0, \
                     float *restrict s1, float *restrict s2)

/* The gradient with L2 decay; with decay apart from the gradient, as AdamW and Lion. */
#define GRADIENT(i) (k->g_scale * g0[i] + k->decay * w[i])
#define GRADIENT_ALONE(i) (k->g_scale * g0[i])

RULE(sgd)
{
    const float lr = k->lr;
    (void)s1;
    (void)s2;
    if (k->momentum == 0) {
        for (int64_t i = 0; i < n; i++) w[i] -= lr * GRADIENT(i);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        float g = GRADIENT(i);
        float m = k->first ? g : k->momentum * s0[i] + k->one_dampening * g;
        s0[i] = m;
        w[i] -= lr * (k->nesterov ? g + k->momentum * m : m);
    }
}

/* The two moments; returns the second, or with amsgrad its maximum so far. */
static inline float moments(const constants *k, float g, float *m, float *v)
{
    *m += k->one_beta1 * (g - *m);
    *v = k->beta2 * *v + k->one_beta2 * g * g;
    return *v;
}

static inline void adam_step(const constants *k, float g, float keep, float *w, float *m, float *v,
                             float *top)
{
    float second = moments(k, g, m, v);
    if (top) second = *top = *top > second ? *top : second;
    *w = keep * *w - k->step * *m / (sqrtf(second) / k->root + k->eps);
}

RULE(adam)
{
    if (k->amsgrad)
        for (int64_t i = 0; i < n; i++) adam_step(k, GRADIENT(i), 1, &w[i], &s0[i], &s1[i], &s2[i]);
    else
        for (int64_t i = 0; i < n; i++) adam_step(k, GRADIENT(i), 1, &w[i], &s0[i], &s1[i], NULL);
}

RULE(adamw)
{
    if (k->amsgrad)
        for (int64_t i = 0; i < n; i++)
            adam_step(k, GRADIENT_ALONE(i), k->keep, &w[i], &s0[i], &s1[i], &s2[i]);
    else
        for (int64_t i = 0; i < n; i++)
            adam_step(k, GRADIENT_ALONE(i), k->keep, &w[i], &s0[i], &s1[i], NULL);
}

RULE(nadam)
{
    (void)s2;
    for (int64_t i = 0; i < n; i++) {
        float g = GRADIENT(i), root = sqrtf(moments(k, g, &s0[i], &s1[i])) / k->root + k->eps;
        w[i] -= k->step * g / root + k->step_next * s0[i] / root;
    }
}

RULE(radam)
{
    (void)s2;
    for (int64_t i = 0; i < n; i++) {
        float root = sqrtf(moments(k, GRADIENT(i), &s0[i], &s1[i]));
        w[i] -= k->step * s0[i] * (k->rectified ? k->root / (root + k->eps) : 1);
    }
}

RULE(rmsprop)
{
    for (int64_t i = 0; i < n; i++) {
        float g = GRADIENT(i), square = s0[i] = k->alpha * s0[i] + k->one_alpha * g * g;
        if (k->centered) {
            s2[i] += k->one_alpha * (g - s2[i]);
            square -= s2[i] * s2[i];
        }
        float update = g / (sqrtf(square) + k->eps);
        if (k->momentum > 0) update = s1[i] = k->momentum * s1[i] + update;
        w[i] -= k->lr * update;
    }
}

RULE(adagrad)
{
    (void)s1;
    (void)s2;
    for (int64_t i = 0; i < n; i++) {
        float g = GRADIENT(i);
        s0[i] += g * g;
        w[i] -= k->step * g / (sqrtf(s0[i]) + k->eps);
    }
}

RULE(adadelta)
{
    (void)s2;
    for (int64_t i = 0; i < n; i++) {
        float g = GRADIENT(i);
        s0[i] = k->alpha * s0[i] + k->one_alpha * g * g;
        float delta = sqrtf(s1[i] + k->eps) / sqrtf(s0[i] + k->eps) * g;
        s1[i] = k->alpha * s1[i] + k->one_alpha * delta * delta;
        w[i] -= k->lr * delta;
    }
}

RULE(lion)
{
    (void)s1;
    (void)s2;
    for (int64_t i = 0; i < n; i++) {
        float g = GRADIENT_ALONE(i), c = k->beta1 * s0[i] + k->one_beta1 * g;
        float sign = (float)((c > 0) - (c < 0));
        w[i] = k->keep * w[i] - k->lr * sign;
        s0[i] = k->beta2 * s0[i] + k->one_beta2 * g;
    }
}

static const rule rules[] = {
    [NSMI_SGD] = sgd,         [NSMI_ADAM] = adam,       [NSMI_ADAMW] = adamw,
    [NSMI_RMSPROP] = rmsprop, [NSMI_ADAGRAD] = adagrad, [NSMI_ADADELTA] = adadelta,
    [NSMI_NADAM] = nadam,     [NSMI_RADAM] = radam,     [NSMI_LION] = lion,
};

/* RAdam's rectification of the variance (Liu et al., arXiv:1908.03265), 0 while there is none. */
static double rectification(const nsmi_step *s, double correction2)
{
    double most = 2 / (1 - s->beta2) - 1;
    double now = most - 2 * (double)s->step * (1 - correction2) / correction2;
    if (now <= 5) return 0;
    return sqrt((now - 4) * (now - 2) * most / ((most - 4) * (most - 2) * now));
}

/* What multiplies the update: bias correction, learning-rate decay, Nesterov's next momentum. */
static void step_size(const nsmi_step *s, double lr, constants *k)
{
    double t = (double)s->step, correction1 = 1 - pow(s->beta1, t),
           correction2 = 1 - pow(s->beta2, t);
    double mu = s->beta1 * (1 - 0.5 * pow(0.96, t * s->momentum_decay));
    double next = s->beta1 * (1 - 0.5 * pow(0.96, (t + 1) * s->momentum_decay));
    double rectify = s->rule == NSMI_RADAM ? rectification(s, correction2) : 0;
    k->root = (float)sqrt(correction2);
    k->step = (float)(lr / correction1);
    if (s->rule == NSMI_NADAM) {
        k->step = (float)(lr * (1 - mu) / (1 - s->mu_product));
        k->step_next = (float)(lr * next / (1 - s->mu_product * next));
    } else if (s->rule == NSMI_RADAM) {
        k->rectified = rectify > 0;
        k->root = (float)(sqrt(correction2) * rectify);
    } else if (s->rule == NSMI_ADAGRAD)
        k->step = (float)(lr / (1 + (t - 1) * s->lr_decay));
}

static constants constants_of(const nsmi_step *s, const nsmi_slot *slot)
{
    double lr = slot->lr, alpha = s->rule == NSMI_ADADELTA ? s->rho : s->alpha;
    constants k = {
        .lr = slot->lr,
        .decay = slot->weight_decay,
        .keep = (float)(1 - lr * slot->weight_decay),
        .g_scale = s->maximize ? -s->grad_scale : s->grad_scale,
        .beta1 = (float)s->beta1,
        .beta2 = (float)s->beta2,
        .one_beta1 = (float)(1 - s->beta1),
        .one_beta2 = (float)(1 - s->beta2),
        .eps = (float)s->eps,
        .momentum = (float)s->momentum,
        .one_dampening = (float)(1 - s->dampening),
        .alpha = (float)alpha,
        .one_alpha = (float)(1 - alpha),
        .first = s->step == 1,
        .nesterov = s->nesterov,
        .amsgrad = s->amsgrad,
        .centered = s->centered,
    };
    step_size(s, lr, &k);
    return k;
}

/* Blocks are counted through all tensors, and thread i takes every block that is its turn. */
static void update(nsm_device *d, const nsmi_step *s, int64_t count, const nsmi_slot *slot)
{
    int64_t all = 0;
    for (int64_t t = 0; t < count; t++) all += slot[t].n;
#pragma omp parallel num_threads(nsmi_team(d, all))
    {
        int64_t turn = omp_get_thread_num(), team = omp_get_num_threads(), seen = 0;
        for (int64_t t = 0; t < count; t++) {
            const nsmi_slot *p = &slot[t];
            constants k = constants_of(s, p);
            for (int64_t i = 0; i < p->n; i += NSMI_BLOCK, seen++) {
                if (seen % team != turn) continue;
                int64_t n = p->n - i < NSMI_BLOCK ? p->n - i : NSMI_BLOCK;
                rules[s->rule](&k, n, p->w + i, p->g + i, p->s[0] ? p->s[0] + i : NULL,
                               p->s[1] ? p->s[1] + i : NULL, p->s[2] ? p->s[2] + i : NULL);
            }
        }
    }
}

void NSMI_FILL(optimizer)(nsm_backend *be) { be->update = update; }
