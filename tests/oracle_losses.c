/* tests/oracle_losses.c - The losses, as their fixtures' config says. */
#include "config.h"
#include "base/ops.h"
#include "tests/fixture.h"

static nsm_reduction reduction_of(fixture *f)
{
    static const char *const names[] = { "mean", "sum", "none", "batchmean" };
    const char *name = fixture_text(f, "reduction", "mean");
    for (int k = 0; k < 4; k++)
        if (!strcmp(name, names[k])) return (nsm_reduction)k;
    fixture_fault(f, "reduction %s is not known", name);
    return NSM_LOSS_MEAN;
}

/* One loss: a function of the fixture, a tape t and a reduction r. */
#define LOSS(name, expression)                               \
    static void run_##name(fixture *f)                       \
    {                                                        \
        nsm_tape *t = nsm_tape_new(fixture_ctx(f));          \
        nsm_reduction r = reduction_of(f);                   \
        fixture_output(f, t, "loss", expression);            \
        fixture_grads(f, t, NULL);                           \
        nsm_tape_free(t);                                    \
    }
#define IN(name) fixture_input(f, name)

static nsm_tensor *cross_entropy(fixture *f, nsm_tape *t, nsm_reduction r)
{
    bool soft = !strcmp(fixture_text(f, "target", "index"), "probabilities");
    int axis = (int)fixture_int(f, "class_axis", 1);
    nsm_cross_entropy_config c = {
        .reduction = r,
        .class_axis = axis,
        .class_first = axis == 0,
        .label_smoothing = (float)fixture_number(f, "label_smoothing", 0),
        .ignore = true,
        .ignore_index = fixture_int(f, "ignore_index", -100),
        .class_weight = fixture_bool(f, "class_weight", false) ? IN("class_weight") : NULL,
    };
    return nsm_cross_entropy(t, IN("logits"), soft ? IN("target") : fixture_index(f, "target"), &c);
}

static nsm_tensor *info_nce(fixture *f, nsm_tape *t, nsm_reduction r)
{
    nsm_info_nce_config c = {
        .symmetric = fixture_bool(f, "symmetric", false),
        .normalize = fixture_bool(f, "normalize", false),
        .eps = (float)fixture_number(f, "normalize_eps", 1e-12),
        .scale = !strcmp(fixture_text(f, "scale", ""), "exp") ? IN("scale") : NULL,
        .reduction = r,
    };
    return nsm_info_nce(t, IN("a"), IN("b"), &c);
}

LOSS(bce_with_logits,
     nsm_bce_with_logits(t, IN("input"), IN("target"),
                         fixture_bool(f, "pos_weight", false) ? IN("pos_weight") : NULL, r))
LOSS(cross_entropy, cross_entropy(f, t, r))
LOSS(distillation,
     nsm_distillation(t, IN("student"), IN("teacher"), (float)fixture_number(f, "temperature", 1),
                      fixture_bool(f, "scale_by_temperature_squared", false), r))
LOSS(gaussian_kl, nsm_gaussian_kl(t, IN("mu"), IN("logvar"), r))
LOSS(huber, nsm_huber_loss(t, IN("input"), IN("target"), (float)fixture_number(f, "delta", 1), r))
LOSS(info_nce, info_nce(f, t, r))
LOSS(kl_div, nsm_kl_div(t, IN("input"), IN("target"), fixture_bool(f, "log_target", false), r))
LOSS(l1, nsm_l1_loss(t, IN("input"), IN("target"), r))
LOSS(mse, nsm_mse_loss(t, IN("input"), IN("target"), r))
LOSS(smooth_l1,
     nsm_smooth_l1_loss(t, IN("input"), IN("target"), (float)fixture_number(f, "beta", 1), r))

#define KIND(name) { "losses", #name, run_##name }
const oracle_kind oracle_losses[] = {
    KIND(bce_with_logits),
    KIND(cross_entropy),
    KIND(distillation),
    KIND(gaussian_kl),
    KIND(huber),
    KIND(info_nce),
    KIND(kl_div),
    KIND(l1),
    KIND(mse),
    KIND(smooth_l1),
    { NULL, NULL, NULL },
};
