/* kernels/update.h - One step of every optimizer for one number: what all backends compute.
 *
 * Formulas and defaults are PyTorch's (torch.optim, the plain variants); Lion is Chen et al.,
 * arXiv:2302.06675, algorithm 2.  What depends on the step alone is computed in double beforehand.
 * Plain C for the host and, with NSMI_UPDATE_DEVICE set to __host__ __device__, for CUDA.
 * w the weight, g its gradient, s0 s1 s2 its state, whose meaning backend.h gives. */
#ifndef NSM_UPDATE_H
#define NSM_UPDATE_H
#include <math.h>
#include "kernels/backend.h"

#ifndef NSMI_UPDATE_DEVICE
#define NSMI_UPDATE_DEVICE
#endif
#define RULE NSMI_UPDATE_DEVICE static inline void

/* Constants of a run, in the precision of the loops. */
typedef struct {
    float lr, decay, keep; /* of this tensor; keep = 1 - lr decay */
    float g_scale;         /* grad_scale, negative to maximize */
    float beta1, beta2, one_beta1, one_beta2, eps;
    float momentum, one_dampening, alpha, one_alpha;
    float step, step_next; /* what multiplies the update */
    float root;            /* sqrt(1 - beta2^t) or its inverse */
    bool first, nesterov, amsgrad, centered, rectified;
} nsmi_constants;

/* The gradient with L2 decay; with decay apart from the gradient, as AdamW and Lion. */
NSMI_UPDATE_DEVICE static inline float nsmi_gradient(const nsmi_constants *k, float w, float g)
{
    return k->g_scale * g + k->decay * w;
}

RULE nsmi_sgd(const nsmi_constants *k, float *w, float g)
{
    *w -= k->lr * nsmi_gradient(k, *w, g);
}

RULE nsmi_sgd_momentum(const nsmi_constants *k, float *w, float g, float *s0)
{
    g = nsmi_gradient(k, *w, g);
    float m = k->first ? g : k->momentum * *s0 + k->one_dampening * g;
    *s0 = m;
    *w -= k->lr * (k->nesterov ? g + k->momentum * m : m);
}

/* The two moments; returns the second. */
NSMI_UPDATE_DEVICE static inline float nsmi_moments(const nsmi_constants *k, float g, float *m,
                                                    float *v)
{
    *m += k->one_beta1 * (g - *m);
    *v = k->beta2 * *v + k->one_beta2 * g * g;
    return *v;
}

/* top NULL: without amsgrad, which divides by the largest second moment so far */
RULE nsmi_adam_by(const nsmi_constants *k, float keep, float *w, float g, float *m, float *v,
                  float *top)
{
    float second = nsmi_moments(k, g, m, v);
    if (top) second = *top = *top > second ? *top : second;
    *w = keep * *w - k->step * *m / (sqrtf(second) / k->root + k->eps);
}

RULE nsmi_adam(const nsmi_constants *k, float *w, float g, float *m, float *v, float *top)
{
    nsmi_adam_by(k, 1, w, nsmi_gradient(k, *w, g), m, v, top);
}

RULE nsmi_adamw(const nsmi_constants *k, float *w, float g, float *m, float *v, float *top)
{
    nsmi_adam_by(k, k->keep, w, k->g_scale * g, m, v, top);
}

RULE nsmi_nadam(const nsmi_constants *k, float *w, float g, float *m, float *v)
{
    g = nsmi_gradient(k, *w, g);
    float root = sqrtf(nsmi_moments(k, g, m, v)) / k->root + k->eps;
    *w -= k->step * g / root + k->step_next * *m / root;
}

RULE nsmi_radam(const nsmi_constants *k, float *w, float g, float *m, float *v)
{
    float root = sqrtf(nsmi_moments(k, nsmi_gradient(k, *w, g), m, v));
    *w -= k->step * *m * (k->rectified ? k->root / (root + k->eps) : 1);
}

/* s1 is touched with momentum, s2 when centered */
RULE nsmi_rmsprop(const nsmi_constants *k, float *w, float g, float *s0, float *s1, float *s2)
{
    g = nsmi_gradient(k, *w, g);
    float square = *s0 = k->alpha * *s0 + k->one_alpha * g * g;
    if (k->centered) {
        *s2 += k->one_alpha * (g - *s2);
        square -= *s2 * *s2;
    }
    float update = g / (sqrtf(square) + k->eps);
    if (k->momentum > 0) update = *s1 = k->momentum * *s1 + update;
    *w -= k->lr * update;
}

RULE nsmi_adagrad(const nsmi_constants *k, float *w, float g, float *s0)
{
    g = nsmi_gradient(k, *w, g);
    *s0 += g * g;
    *w -= k->step * g / (sqrtf(*s0) + k->eps);
}

RULE nsmi_adadelta(const nsmi_constants *k, float *w, float g, float *s0, float *s1)
{
    g = nsmi_gradient(k, *w, g);
    *s0 = k->alpha * *s0 + k->one_alpha * g * g;
    float delta = sqrtf(*s1 + k->eps) / sqrtf(*s0 + k->eps) * g;
    *s1 = k->alpha * *s1 + k->one_alpha * delta * delta;
    *w -= k->lr * delta;
}

RULE nsmi_lion(const nsmi_constants *k, float *w, float g, float *s0)
{
    g = k->g_scale * g;
    float c = k->beta1 * *s0 + k->one_beta1 * g, sign = (float)((c > 0) - (c < 0));
    *w = k->keep * *w - k->lr * sign;
    *s0 = k->beta2 * *s0 + k->one_beta2 * g;
}

#undef RULE

/* ---- on the host: the constants of a step ---- */

/* RAdam's rectification of the variance (Liu et al., arXiv:1908.03265), 0 while there is none. */
static inline double nsmi_rectification(const nsmi_step *s, double correction2)
{
    double most = 2 / (1 - s->beta2) - 1;
    double now = most - 2 * (double)s->step * (1 - correction2) / correction2;
    if (now <= 5) return 0;
    return sqrt((now - 4) * (now - 2) * most / ((most - 4) * (most - 2) * now));
}

/* What multiplies the update: bias correction, learning-rate decay, Nesterov's next momentum. */
static inline void nsmi_step_size(const nsmi_step *s, double lr, nsmi_constants *k)
{
    double t = (double)s->step, correction1 = 1 - pow(s->beta1, t),
           correction2 = 1 - pow(s->beta2, t);
    double mu = s->beta1 * (1 - 0.5 * pow(0.96, t * s->momentum_decay));
    double next = s->beta1 * (1 - 0.5 * pow(0.96, (t + 1) * s->momentum_decay));
    double rectify = s->rule == NSMI_RADAM ? nsmi_rectification(s, correction2) : 0;
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

static inline nsmi_constants nsmi_constants_of(const nsmi_step *s, const nsmi_slot *slot)
{
    double lr = (double)slot->lr, alpha = s->rule == NSMI_ADADELTA ? s->rho : s->alpha;
    nsmi_constants k;
    k.lr = slot->lr;
    k.decay = slot->weight_decay;
    k.keep = (float)(1 - lr * (double)slot->weight_decay);
    k.g_scale = s->maximize ? -s->grad_scale : s->grad_scale;
    k.beta1 = (float)s->beta1;
    k.beta2 = (float)s->beta2;
    k.one_beta1 = (float)(1 - s->beta1);
    k.one_beta2 = (float)(1 - s->beta2);
    k.eps = (float)s->eps;
    k.momentum = (float)s->momentum;
    k.one_dampening = (float)(1 - s->dampening);
    k.alpha = (float)alpha;
    k.one_alpha = (float)(1 - alpha);
    k.step_next = 0;
    k.first = s->step == 1;
    k.nesterov = s->nesterov;
    k.amsgrad = s->amsgrad;
    k.centered = s->centered;
    k.rectified = false;
    nsmi_step_size(s, lr, &k);
    return k;
}

#endif
