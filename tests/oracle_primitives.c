/* tests/oracle_primitives.c - Linear maps, activations, norms and embeddings, as their fixtures'
 * config says. */
#include "config.h"
#include "base/ops.h"
#include "tests/fixture.h"

static float number(fixture *f, const char *key, double fallback)
{
    return (float)fixture_number(f, key, fallback);
}

/* A weight, if the config says that there are weights and the file has this one. */
static nsm_tensor *weight_if(fixture *f, const char *flag, const char *name)
{
    char path[64];
    snprintf(path, sizeof path, "weights/%s", name);
    return fixture_bool(f, flag, true) && fixture_has(f, path) ? fixture_weight(f, name) : NULL;
}

static void finish(fixture *f, nsm_tape *t)
{
    fixture_grads(f, t, NULL);
    nsm_tape_free(t);
}

/* One output y, a function of the input x. */
#define PRIMITIVE(name, expression)                          \
    static void run_##name(fixture *f)                       \
    {                                                        \
        nsm_tape *t = nsm_tape_new(fixture_ctx(f));          \
        nsm_tensor *x = fixture_input(f, "x");               \
        fixture_output(f, t, "y", expression);               \
        finish(f, t);                                        \
    }

static bool is_tanh(const char *approximate) { return approximate && !strcmp(approximate, "tanh"); }

PRIMITIVE(elu, nsm_elu(t, x, number(f, "alpha", 1)))
PRIMITIVE(gelu,
          is_tanh(fixture_text(f, "approximate", "none")) ? nsm_gelu_tanh(t, x) : nsm_gelu(t, x))
PRIMITIVE(hardswish, nsm_hardswish(t, x))
PRIMITIVE(mish, nsm_mish(t, x))
PRIMITIVE(relu, nsm_relu(t, x))
PRIMITIVE(relu6, nsm_relu6(t, x))
PRIMITIVE(sigmoid, nsm_sigmoid(t, x))
PRIMITIVE(silu, nsm_silu(t, x))
PRIMITIVE(tanh, nsm_tanh(t, x))
PRIMITIVE(leaky_relu, nsm_leaky_relu(t, x, number(f, "negative_slope", 0.01)))
PRIMITIVE(quick_gelu, nsm_quick_gelu(t, x, number(f, "alpha", 1.702)))
PRIMITIVE(softplus, nsm_softplus(t, x, number(f, "beta", 1), number(f, "threshold", 20)))
PRIMITIVE(linear, nsm_linear(t, x, fixture_weight(f, "weight"), weight_if(f, "bias", "bias")))

static int axes(fixture *f)
{
    return (int)json_array_size(json_object_get(fixture_config(f), "normalized_shape"));
}

PRIMITIVE(layer_norm, nsm_layer_norm(t, x, weight_if(f, "elementwise_affine", "weight"),
                                     weight_if(f, "elementwise_affine", "bias"), axes(f),
                                     number(f, "eps", 1e-5)))
PRIMITIVE(rms_norm, nsm_rms_norm(t, x, weight_if(f, "elementwise_affine", "weight"), axes(f),
                                 number(f, "eps", 1e-6)))
PRIMITIVE(group_norm,
          nsm_group_norm(t, x, weight_if(f, "affine", "weight"), weight_if(f, "affine", "bias"),
                         (int)fixture_int(f, "num_groups", 1), number(f, "eps", 1e-5)))
PRIMITIVE(layer_norm_channels_first,
          nsm_layer_norm_axis(t, x, weight_if(f, "affine", "weight"),
                              weight_if(f, "affine", "bias"),
                              (int)fixture_int(f, "normalized_axis", 1), number(f, "eps", 1e-6)))

static void run_softmax(fixture *f)
{
    nsm_tape *t = nsm_tape_new(fixture_ctx(f));
    nsm_tensor *x = fixture_input(f, "x");
    const char *name;
    json_t *output;
    json_object_foreach(json_object_get(fixture_config(f), "outputs"), name, output) {
        const char *what = json_string_value(json_object_get(output, "function"));
        int axis = (int)json_integer_value(json_object_get(output, "dim"));
        nsm_tensor *y = NULL;
        if (!what) fixture_fault(f, "output %s has no function", name);
        else if (!strcmp(what, "softmax")) y = nsm_softmax(t, x, axis);
        else if (!strcmp(what, "log_softmax")) y = nsm_log_softmax(t, x, axis);
        else if (!strcmp(what, "logsumexp")) y = nsm_logsumexp(t, x, axis, false);
        else fixture_fault(f, "function %s is not known", what);
        fixture_output(f, t, name, y);
    }
    finish(f, t);
}

static void run_glu_family(fixture *f)
{
    nsm_tape *t = nsm_tape_new(fixture_ctx(f));
    nsm_tensor *x = fixture_input(f, "x");
    const char *name;
    json_t *output;
    json_object_foreach(json_object_get(fixture_config(f), "outputs"), name, output) {
        const char *what = json_string_value(json_object_get(output, "activation"));
        int act = what ? nsm_act_find(what) : -1,
            half = (int)json_integer_value(json_object_get(output, "activated_half"));
        if (act == NSM_ACT_GELU &&
            is_tanh(json_string_value(json_object_get(output, "approximate"))))
            act = NSM_ACT_GELU_TANH;
        if (act < 0) fixture_fault(f, "output %s has no activation that is known", name);
        else
            fixture_output(f, t, name,
                           nsm_glu(t, x, (int)fixture_int(f, "dim", -1), (nsm_act)act, half));
    }
    finish(f, t);
}

static void run_embedding(fixture *f)
{
    nsm_tape *t = nsm_tape_new(fixture_ctx(f));
    fixture_output(f, t, "y",
                   nsm_embedding(t, fixture_weight(f, "weight"), fixture_index(f, "ids"),
                                 fixture_int(f, "padding_idx", -1)));
    finish(f, t);
}

/* The running statistics move in place; they are outputs, too. */
static void batch_norm(fixture *f, nsm_tensor *w, nsm_tensor *b, nsm_tensor *mean, nsm_tensor *var,
                       const char *const outputs[3])
{
    nsm_tape *t = nsm_tape_new(fixture_ctx(f));
    nsm_batch_stats s = { mean, var, number(f, "momentum", 0.1), number(f, "eps", 1e-5),
                          fixture_bool(f, "training", true) };
    nsm_tensor *after[3] = { nsm_batch_norm(t, fixture_input(f, "x"), w, b, &s), mean, var };
    for (int k = 0; k < 3; k++) {
        char path[64];
        snprintf(path, sizeof path, "outputs/%s", outputs[k]);
        if (k == 0 || fixture_has(f, path))
            fixture_output(f, k == 0 ? t : NULL, outputs[k], after[k]);
    }
    finish(f, t);
}

static void run_batch_norm(fixture *f)
{
    static const char *const outputs[] = { "y", "running_mean_out", "running_var_out" };
    batch_norm(f, weight_if(f, "affine", "weight"), weight_if(f, "affine", "bias"),
               weight_if(f, "track_running_stats", "running_mean"),
               weight_if(f, "track_running_stats", "running_var"), outputs);
}

static void run_graph_batch_norm(fixture *f)
{
    static const char *const outputs[] = { "out", "new_running_mean", "new_running_var" };
    batch_norm(f, weight_if(f, "affine", "norm.weight"), weight_if(f, "affine", "norm.bias"),
               fixture_input(f, "running_mean"), fixture_input(f, "running_var"), outputs);
}

#define KIND(name) { "primitives", #name, run_##name }
const oracle_kind oracle_primitives[] = {
    KIND(elu),
    KIND(gelu),
    KIND(hardswish),
    KIND(mish),
    KIND(relu),
    KIND(relu6),
    KIND(sigmoid),
    KIND(silu),
    KIND(tanh),
    KIND(leaky_relu),
    KIND(quick_gelu),
    KIND(softplus),
    KIND(linear),
    KIND(layer_norm),
    KIND(rms_norm),
    KIND(group_norm),
    KIND(layer_norm_channels_first),
    KIND(softmax),
    KIND(glu_family),
    KIND(embedding),
    KIND(batch_norm),
    { "norm", "batch_norm", run_graph_batch_norm },
    { NULL, NULL, NULL },
};
