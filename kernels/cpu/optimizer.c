/* kernels/cpu/optimizer.c - One step of every optimizer, all tensors in one pass: the rules of
 * kernels/update.h, each as one loop over a run of elements. */
#include "kernels/cpu/cpu.h"
#include "kernels/update.h"

typedef void (*rule)(const nsmi_constants *k, int64_t n, float *restrict w, const float *restrict g,
                     float *restrict s0, float *restrict s1, float *restrict s2);

/* A rule's loop: `each` does number i. */
#define LOOP(name, each)                                                                     \
    static void name(const nsmi_constants *k, int64_t n, float *restrict w,                  \
                     const float *restrict g, float *restrict s0, float *restrict s1,        \
                     float *restrict s2)                                                     \
    {                                                                                        \
        (void)s0;                                                                            \
        (void)s1;                                                                            \
        (void)s2;                                                                            \
        for (int64_t i = 0; i < n; i++) each;                                                \
    }
LOOP(sgd_plain, nsmi_sgd(k, &w[i], g[i]))
LOOP(sgd_momentum, nsmi_sgd_momentum(k, &w[i], g[i], &s0[i]))
LOOP(adam_plain, nsmi_adam(k, &w[i], g[i], &s0[i], &s1[i], NULL))
LOOP(adam_top, nsmi_adam(k, &w[i], g[i], &s0[i], &s1[i], &s2[i]))
LOOP(adamw_plain, nsmi_adamw(k, &w[i], g[i], &s0[i], &s1[i], NULL))
LOOP(adamw_top, nsmi_adamw(k, &w[i], g[i], &s0[i], &s1[i], &s2[i]))
LOOP(nadam, nsmi_nadam(k, &w[i], g[i], &s0[i], &s1[i]))
LOOP(radam, nsmi_radam(k, &w[i], g[i], &s0[i], &s1[i]))
LOOP(rmsprop_plain, nsmi_rmsprop(k, &w[i], g[i], &s0[i], NULL, NULL))
LOOP(rmsprop_full, nsmi_rmsprop(k, &w[i], g[i], &s0[i], s1 ? &s1[i] : NULL, s2 ? &s2[i] : NULL))
LOOP(adagrad, nsmi_adagrad(k, &w[i], g[i], &s0[i]))
LOOP(adadelta, nsmi_adadelta(k, &w[i], g[i], &s0[i], &s1[i]))
LOOP(lion, nsmi_lion(k, &w[i], g[i], &s0[i]))

/* The loop of a rule, and of it with its options. */
static const rule rules[][2] = {
    [NSMI_SGD] = { sgd_plain, sgd_momentum },
    [NSMI_ADAM] = { adam_plain, adam_top },
    [NSMI_ADAMW] = { adamw_plain, adamw_top },
    [NSMI_RMSPROP] = { rmsprop_plain, rmsprop_full },
    [NSMI_ADAGRAD] = { adagrad, adagrad },
    [NSMI_ADADELTA] = { adadelta, adadelta },
    [NSMI_NADAM] = { nadam, nadam },
    [NSMI_RADAM] = { radam, radam },
    [NSMI_LION] = { lion, lion },
};

static bool has_options(const nsmi_step *s)
{
    return s->rule == NSMI_SGD       ? s->momentum != 0
           : s->rule == NSMI_RMSPROP ? s->centered || s->momentum > 0
                                     : s->amsgrad;
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
            nsmi_constants k = nsmi_constants_of(s, p);
            for (int64_t i = 0; i < p->n; i += NSMI_BLOCK, seen++) {
                if (seen % team != turn) continue;
                int64_t n = p->n - i < NSMI_BLOCK ? p->n - i : NSMI_BLOCK;
                rules[s->rule][has_options(s)](&k, n, p->w + i, p->g + i,
                                               p->s[0] ? p->s[0] + i : NULL,
                                               p->s[1] ? p->s[1] + i : NULL,
                                               p->s[2] ? p->s[2] + i : NULL);
            }
        }
    }
}

void NSMI_FILL(optimizer)(nsm_backend *be) { be->update = update; }
