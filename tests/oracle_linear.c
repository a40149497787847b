/* tests/oracle_linear.c - Fixtures of linear recurrences: linear transformer, RetNet, GLA,
 * DeltaNet, GSA, Mamba-2.
 *
 * Bare operators go to the op; layers are mixers, whose parameters have the fixtures' names.
 * Carried states come in the source's layout: `turn` says whether the last two axes are swapped. */
#include "config.h"
#include "seq/carried.h"
#include "tests/oracle_model.h"

/* [B, H, n, ...] <-> [B, n, H, ...] */
static nsm_tensor *heads_last(nsm_tape *tape, nsm_tensor *x, bool wanted)
{
    if (!wanted || !x) return x;
    return nsm_permute(tape, x,
                       x->rank == 4 ? (const int[]){ 0, 2, 1, 3 } : (const int[]){ 0, 2, 1 });
}

static nsm_tensor *turned(nsm_tape *tape, nsm_tensor *x, bool wanted)
{
    return wanted && x ? nsm_transpose(tape, x) : x;
}

/* ---- bare recurrences ---- */
typedef struct {
    const char *q, *k, *v, *g, *beta, *s_in, *s_out, *s_first, *out;
    bool head_first;
} names;

/* Whole, or with `steps` one token a call. */
static void run_recurrence(fixture *f, const names *n)
{
    nsm_tape *tape = nsm_tape_new(fixture_ctx(f));
    nsm_tensor *q = heads_last(tape, fixture_input(f, n->q), n->head_first),
               *k = heads_last(tape, fixture_input(f, n->k), n->head_first);
    nsm_tensor *v = heads_last(tape, fixture_input(f, n->v), n->head_first),
               *g = n->g ? fixture_input(f, n->g) : NULL;
    nsm_tensor *beta = n->beta ? heads_last(tape, fixture_input(f, n->beta), n->head_first) : NULL,
               *s = optional(f, n->s_in), *y = NULL;
    int steps = size(f, "steps", 0);
    nsm_recurrence_config c = { .g = g, .beta = beta, .scale = number(f, "scale", 0) };
    if (steps == 0) {
        c.state = s;
        y = nsm_linear_recurrence(tape, q, k, v, &c, &s);
    }
    nsm_tensor *part[16];
    for (int t = 0; q && k && v && t < steps && t < 16; t++) {
        c.state = s;
        c.g = g ? nsm_slice(tape, g, 1, t, 1) : NULL;
        c.beta = beta ? nsm_slice(tape, beta, 1, t, 1) : NULL;
        part[t] = nsm_linear_recurrence(tape, nsm_slice(tape, q, 1, t, 1),
                                        nsm_slice(tape, k, 1, t, 1), nsm_slice(tape, v, 1, t, 1),
                                        &c, &s);
        if (t == 0) fixture_output(f, tape, n->s_first, s);
    }
    if (steps > 0) y = nsm_concat(tape, part, steps, 1);
    fixture_output(f, tape, n->out, heads_last(tape, y, n->head_first));
    fixture_output(f, tape, n->s_out, s);
    if (steps == 0) fixture_grads(f, tape, NULL);
    nsm_tape_free(tape);
}

static void run_gla(fixture *f)
{
    run_recurrence(f, &(names){ "q", "k", "v", "gk", NULL, "h_in", "h_out", NULL, "o", false });
}
static void run_simple_gla(fixture *f)
{
    run_recurrence(f, &(names){ "q", "k", "v", "g", NULL, "h_in", "h_out", NULL, "o", false });
}
static void run_gated_delta(fixture *f)
{
    run_recurrence(f, &(names){ "q", "k", "v", "g", "beta", "h_in", "h_out", NULL, "o", false });
}
static void run_delta(fixture *f)
{
    run_recurrence(f, &(names){ "q", "k", "v", NULL, "beta", "S_in", "S_out", NULL, "o", true });
}
static void run_gla_decode(fixture *f)
{
    run_recurrence(f, &(names){ "q", "k", "v", "gk", NULL, "h_in", "h_final", "h_after_1", "o",
                                false });
}
static void run_simple_gla_decode(fixture *f)
{
    run_recurrence(f, &(names){ "q", "k", "v", "g", NULL, "h_in", "h_final", "h_after_1", "o",
                                false });
}
static void run_gated_delta_decode(fixture *f)
{
    run_recurrence(f, &(names){ "q", "k", "v", "g", "beta", "h_in", "h_final", "h_after_1", "o",
                                false });
}
static void run_delta_decode(fixture *f)
{
    run_recurrence(f, &(names){ "q", "k", "v", NULL, "beta", "S_in", "S_final", "S_after_1", "o",
                                true });
}

static void run_retention_op(fixture *f)
{
    nsm_tape *tape = nsm_tape_new(fixture_ctx(f));
    int h = size(f, "num_heads", 1);
    float log_gamma[64];
    for (int i = 0; i < h && i < 64; i++) log_gamma[i] = (float)log1p(-exp2(-5.0 - i));
    nsm_tensor *g = nsm_tape_tensor(tape, NSM_F32, 1, (int64_t[]){ h }, log_gamma);
    nsm_tensor *o = nsm_linear_recurrence(tape, heads_last(tape, fixture_input(f, "q"), true),
                                          heads_last(tape, fixture_input(f, "k"), true),
                                          heads_last(tape, fixture_input(f, "v"), true),
                                          &(nsm_recurrence_config){ .g = g }, NULL);
    fixture_output(f, tape, "o", heads_last(tape, o, true));
    fixture_grads(f, tape, NULL);
    nsm_tape_free(tape);
}

/* Mamba-2's: the state is [P, N] there. */
static void run_ssd(fixture *f)
{
    nsm_tape *tape = nsm_tape_new(fixture_ctx(f));
    nsm_tensor *s = optional(f, "initial_states");
    if (s)
        s = turned(tape,
                   nsm_reshape(tape, s, 4,
                               (int64_t[]){ s->dim[0], s->dim[2], s->dim[3], s->dim[4] }),
                   true);
    nsm_tensor *y = nsm_linear_recurrence(
        tape, fixture_input(f, "C"), fixture_input(f, "B"), fixture_input(f, "X"),
        &(nsm_recurrence_config){ .scale = 1, .g = fixture_input(f, "A"), .state = s }, &s);
    fixture_output(f, tape, "Y", y);
    fixture_output(f, tape, "final_state", turned(tape, s, true));
    fixture_grads(f, tape, NULL);
    nsm_tape_free(tape);
}

static void run_ssd_update(fixture *f)
{
    nsm_tape *tape = nsm_tape_new(fixture_ctx(f));
    nsm_tensor *s = turned(tape, fixture_input(f, "state"), true), *part[16],
               *a = fixture_input(f, "A"), *skip = fixture_input(f, "D");
    int steps = size(f, "steps", 0);
    for (int t = 0; t < steps && t < 16; t++) {
        nsm_tensor *x = token(tape, fixture_input(f, "x"), t),
                   *z = token(tape, fixture_input(f, "z"), t);
        nsm_tensor *dt = nsm_softplus(tape,
                                      nsm_add(tape, token(tape, fixture_input(f, "dt"), t),
                                              fixture_input(f, "dt_bias")),
                                      1, 20);
        nsm_recurrence_config c = { .scale = 1, .g = nsm_mul(tape, dt, a), .state = s };
        nsm_tensor *y = nsm_linear_recurrence(
            tape, token(tape, fixture_input(f, "C"), t), token(tape, fixture_input(f, "B"), t),
            nsm_mul(tape, x, nsmi_split_heads(tape, dt, dt ? dt->dim[2] : 1)), &c, &s);
        y = nsm_add(tape, y, nsm_mul(tape, x, nsm_reshape(tape, skip, 2, (int64_t[]){ -1, 1 })));
        part[t] = nsm_mul(tape, y, nsm_silu(tape, z));
        if (t == 0) fixture_output(f, tape, "state_after_1", turned(tape, s, true));
    }
    fixture_output(f, tape, "out", by_step(tape, part, steps));
    fixture_output(f, tape, "state_final", turned(tape, s, true));
    nsm_tape_free(tape);
}

/* ---- gated slot attention ---- */
/* States by head of keys, for every head of queries, and back. */
static nsm_tensor *spread(nsm_tape *tape, nsm_tensor *s, int64_t times)
{
    nsm_tensor *one[32];
    if (!s || times == 1) return s;
    nsm_tensor *x = nsm_reshape(tape, s, 5,
                                (int64_t[]){ s->dim[0], s->dim[1], 1, s->dim[2], s->dim[3] });
    for (int64_t i = 0; i < times && i < 32; i++) one[i] = x;
    return nsm_reshape(tape, nsm_concat(tape, one, (int)times, 2), 4,
                       (int64_t[]){ s->dim[0], s->dim[1] * times, s->dim[2], s->dim[3] });
}
static nsm_tensor *gathered(nsm_tape *tape, nsm_tensor *s, int64_t times)
{
    if (!s || times == 1) return s;
    s = nsm_reshape(tape, s, 5,
                    (int64_t[]){ s->dim[0], s->dim[1] / times, times, s->dim[2], s->dim[3] });
    return nsm_reshape(tape, nsm_slice(tape, s, 2, 0, 1), 4,
                       (int64_t[]){ s->dim[0], s->dim[1], s->dim[3], s->dim[4] });
}

static void run_gsa(fixture *f)
{
    nsm_tape *tape = nsm_tape_new(fixture_ctx(f));
    int steps = size(f, "steps", 0), times = size(f, "num_heads", 1) / size(f, "num_kv_heads", 1),
        parts = steps ? steps : 1;
    nsm_tensor *in[5], *now[5], *part[16],
        *state[2] = { spread(tape, optional(f, "hk_in"), times),
                      spread(tape, optional(f, "hv_in"), times) };
    static const char *const name[5] = { "q", "k", "v", "s", "g" };
    for (int i = 0; i < 5; i++) in[i] = fixture_input(f, name[i]);
    for (int t = 0; t < parts && t < 16; t++) {
        for (int i = 0; i < 5; i++) now[i] = steps ? nsm_slice(tape, in[i], 1, t, 1) : in[i];
        part[t] = nsmi_slot_attention(tape, now[0], now[1], now[2], now[3], now[4],
                                      number(f, "scale", 1), NULL, state);
        if (t > 0 || !steps) continue;
        fixture_output(f, tape, "hk_after_1", gathered(tape, state[0], times));
        fixture_output(f, tape, "hv_after_1", gathered(tape, state[1], times));
    }
    fixture_output(f, tape, "o", parts > 1 ? nsm_concat(tape, part, parts, 1) : part[0]);
    fixture_output(f, tape, steps ? "hk_final" : "hk_out", gathered(tape, state[0], times));
    fixture_output(f, tape, steps ? "hv_final" : "hv_out", gathered(tape, state[1], times));
    if (!steps) fixture_grads(f, tape, NULL);
    nsm_tape_free(tape);
}

/* ---- layers ---- */
/* One token a call over x [B, n, d]. */
static void decode_layer(fixture *f, nsm_mixer *m, const char *in, const char *out,
                         const state_view *c)
{
    nsm_tape *tape = nsm_tape_new(fixture_ctx(f));
    nsm_tensor *x = fixture_input(f, in), *part[16];
    nsm_state *s = x ? nsm_mixer_state(m, x->dim[0]) : NULL,
              *old = x ? nsm_mixer_state(m, x->dim[0]) : NULL;
    for (const state_view *k = c; k->part && s; k++) view_put(f, s, k, 0, 1);
    int steps = size(f, "steps", 0);
    for (int t = 0; s && t < steps && t < 16; t++) {
        nsm_state_copy(old, s);
        part[t] = nsm_mixer_forward(tape, m, nsm_slice(tape, x, 1, t, 1), NULL, s);
        for (const state_view *k = c; k->part && (t == 0 || t == steps - 1); k++) {
            if (t == 0) view_check(f, s, old, k, 0, 1, "after_1");
            if (t == steps - 1) view_check(f, s, old, k, 0, 1, "final");
        }
    }
    if (s) fixture_output(f, tape, out, nsm_concat(tape, part, steps, 1));
    nsm_state_free(s);
    nsm_state_free(old);
    nsm_tape_free(tape);
}

/* A layer: whole with gradients, or with `steps` decoded. */
static void run_layer(fixture *f, const char *type, int width, const char *options, const char *in,
                      const char *out, const state_view *c)
{
    nsm_mixer *m = nsm_mixer_new(fixture_ctx(f), type,
                                 &(nsm_mixer_config){ .width = width, .options = options });
    if (!m) return;
    fixture_load(f, nsm_mixer_module(m));
    if (fixture_int(f, "steps", 0)) {
        decode_layer(f, m, in, out, c);
    } else {
        nsm_tape *tape = nsm_tape_new(fixture_ctx(f));
        fixture_output(f, tape, out, nsm_mixer_forward(tape, m, fixture_input(f, in), NULL, NULL));
        fixture_grads(f, tape, nsm_mixer_module(m));
        nsm_tape_free(tape);
    }
    nsm_mixer_free(m);
}

static void run_gla_layer(fixture *f)
{
    char options[256];
    snprintf(options, sizeof options,
             "heads=%d kv_heads=%d expand_k=%.9g expand_v=%.9g gate_rank=%d gate_normalizer=%.9g "
             "norm_eps=%.9g",
             size(f, "num_heads", 1), size(f, "num_kv_heads", 0),
             fixture_number(f, "expand_k", 0.5), fixture_number(f, "expand_v", 1),
             size(f, "gate_low_rank_dim", 16), fixture_number(f, "gate_logit_normalizer", 16),
             fixture_number(f, "norm_eps", 1e-5));
    static const state_view c[] = { { .part = "s", .array = "recurrent_state_0", .turn = true },
                                    { .part = NULL } };
    run_layer(f, "gla", size(f, "hidden_size", 0), options, "hidden_states", "out", c);
}

#define CONVS \
    { .part = "conv_q", .array = "conv_state_q", .conv = true }, \
        { .part = "conv_k", .array = "conv_state_k", .conv = true }, \
    { \
        .part = "conv_v", .array = "conv_state_v", .conv = true \
    }
static void run_deltanet_layer(fixture *f)
{
    char options[256];
    want_text(f, "qk_norm", "l2");
    snprintf(options, sizeof options,
             "heads=%d expand_k=%.9g expand_v=%.9g gate=%s conv_size=%d negative=%s norm_eps=%.9g",
             size(f, "num_heads", 1), fixture_number(f, "expand_k", 1),
             fixture_number(f, "expand_v", 1), truth(f, "use_gate", false), size(f, "conv_size", 4),
             truth(f, "allow_neg_eigval", false), fixture_number(f, "norm_eps", 1e-5));
    static const state_view c[] = { { .part = "s", .array = "recurrent_state_0" },
                                    CONVS,
                                    { .part = NULL } };
    run_layer(f, "deltanet", size(f, "hidden_size", 0), options, "hidden_states", "out", c);
}

static void run_gated_deltanet_layer(fixture *f)
{
    char options[256];
    want_text(f, "qk_norm", "l2");
    snprintf(options, sizeof options,
             "heads=%d v_heads=%d head_dim=%d expand_v=%.9g gate=%s conv_size=%d negative=%s "
             "norm_eps=%.9g",
             size(f, "num_heads", 1), size(f, "num_v_heads", 0), size(f, "head_dim", 0),
             fixture_number(f, "expand_v", 1), truth(f, "use_gate", true), size(f, "conv_size", 4),
             truth(f, "allow_neg_eigval", false), fixture_number(f, "norm_eps", 1e-5));
    static const state_view c[] = { { .part = "s", .array = "recurrent_state_0", .turn = true },
                                    CONVS,
                                    { .part = NULL } };
    run_layer(f, "gated_deltanet", size(f, "hidden_size", 0), options, "hidden_states", "out", c);
}

static void run_gsa_layer(fixture *f)
{
    char options[256];
    snprintf(options, sizeof options,
             "heads=%d kv_heads=%d slots=%d gate_normalizer=%.9g norm_eps=%.9g",
             size(f, "num_heads", 1), size(f, "num_kv_heads", 0), size(f, "num_slots", 0),
             fixture_number(f, "gate_logit_normalizer", 8), fixture_number(f, "norm_eps", 1e-5));
    static const state_view c[] = { { .part = "keys", .array = "recurrent_state_0" },
                                    { .part = "values", .array = "recurrent_state_1" },
                                    { .part = NULL } };
    run_layer(f, "gsa", size(f, "hidden_size", 0), options, "hidden_states", "out", c);
}

static void run_mamba2_mixer(fixture *f)
{
    char options[256];
    mamba2_options(f, options);
    run_layer(f, "mamba2", size(f, "hidden_size", 0), options, "hidden_states", "out", NULL);
}

/* ---- RetNet ---- */
static nsm_mixer *retention(fixture *f)
{
    char options[256];
    retnet_options(f, options);
    return nsm_mixer_new(fixture_ctx(f), "retnet",
                         &(nsm_mixer_config){ .width = size(f, "decoder_embed_dim", 0),
                                              .options = options });
}

static void run_retention(fixture *f)
{
    nsm_mixer *m = retention(f);
    nsm_tape *tape = nsm_tape_new(fixture_ctx(f));
    if (m) fixture_load(f, nsm_mixer_module(m));
    nsm_tensor *y = m ? nsm_mixer_forward(tape, m, fixture_input(f, "x"), NULL, NULL) : NULL;
    output(f, tape, "out", y);
    output(f, tape, "out_parallel", y);
    output(f, tape, "out_chunkwise", y);
    output(f, tape, "out_recurrent", y);
    if (!fixture_has(f, "outputs/out_parallel") && m) fixture_grads(f, tape, nsm_mixer_module(m));
    nsm_tape_free(tape);
    nsm_mixer_free(m);
}

/* ---- the linear transformer ---- */
/* 1 where a key is there, by inputs/<name> [B]: [B, n, 1, 1] */
static nsm_tensor *key_mask(fixture *f, nsm_tape *tape, const char *name, int64_t n)
{
    char path[64];
    int64_t batch;
    snprintf(path, sizeof path, "inputs/%s", name);
    const int32_t *length = fixture_has(f, path) ? fixture_ints(f, path, &batch) : NULL;
    if (!length) return NULL;
    float *mask = calloc((size_t)(batch * n) + 1, sizeof *mask);
    for (int64_t i = 0; mask && i < batch * n; i++) mask[i] = i % n < length[i / n];
    nsm_tensor *t = mask ? nsm_tape_tensor(tape, NSM_F32, 4, (int64_t[]){ batch, n, 1, 1 }, mask)
                         : NULL;
    free(mask);
    return t;
}

static void run_linear_attention(fixture *f)
{
    nsm_tape *tape = nsm_tape_new(fixture_ctx(f));
    nsm_tensor *k = fixture_input(f, "keys"), *q = fixture_input(f, "queries"),
               *mask = k ? key_mask(f, tape, "key_lengths", k->dim[1]) : NULL;
    fixture_output(f, tape, "out",
                   nsmi_linear_attention(tape, q, k, fixture_input(f, "values"),
                                         fixture_bool(f, "causal", false), number(f, "eps", 1e-6),
                                         mask, NULL));
    fixture_grads(f, tape, NULL);
    nsm_tape_free(tape);
}

/* S [B,H,D,E] and Z [B,H,D] side by side, and apart. */
static void outputs_of_sums(fixture *f, nsm_tape *tape, nsm_tensor *sums, const char *s,
                            const char *z)
{
    if (!sums) return;
    int64_t e = sums->dim[3] - 1;
    fixture_output(f, tape, s, nsm_slice(tape, sums, 3, 0, e));
    fixture_output(f, tape, z, nsm_reshape(tape, nsm_slice(tape, sums, 3, e, 1), 3, sums->dim));
}

static void run_linear_steps(fixture *f)
{
    nsm_tape *tape = nsm_tape_new(fixture_ctx(f));
    nsm_tensor *z = fixture_input(f, "Z0"), *part[16];
    if (!z) return;
    nsm_tensor *sums = nsm_concat(tape,
                                  (nsm_tensor *[]){ fixture_input(f, "S0"),
                                                    nsm_reshape(tape, z, 4,
                                                                (int64_t[]){ z->dim[0], z->dim[1],
                                                                             z->dim[2], 1 }) },
                                  2, 3);
    int steps = size(f, "steps", 0);
    for (int t = 0; t < steps && t < 16; t++)
        part[t] = nsmi_linear_attention(tape, token(tape, fixture_input(f, "query"), t),
                                        token(tape, fixture_input(f, "key"), t),
                                        token(tape, fixture_input(f, "value"), t), true,
                                        number(f, "eps", 1e-6), NULL, &sums);
    fixture_output(f, tape, "out", by_step(tape, part, steps));
    outputs_of_sums(f, tape, sums, "S", "Z");
    fixture_grads(f, tape, NULL);
    nsm_tape_free(tape);
}

const oracle_kind oracle_linear[] = {
    { "gla", "gla", run_gla },
    { "gla", "gla_decode", run_gla_decode },
    { "gla", "simple_gla", run_simple_gla },
    { "gla", "simple_gla_decode", run_simple_gla_decode },
    { "gla", "gla_layer", run_gla_layer },
    { "gla", "gla_layer_decode", run_gla_layer },
    { "deltanet", "delta_rule", run_delta },
    { "deltanet", "delta_rule_decode", run_delta_decode },
    { "deltanet", "deltanet_layer", run_deltanet_layer },
    { "deltanet", "deltanet_layer_decode", run_deltanet_layer },
    { "gated_deltanet", "gated_delta_rule", run_gated_delta },
    { "gated_deltanet", "gated_delta_rule_decode", run_gated_delta_decode },
    { "gated_deltanet", "gated_deltanet_layer", run_gated_deltanet_layer },
    { "gated_deltanet", "gated_deltanet_layer_decode", run_gated_deltanet_layer },
    { "gsa", "gsa", run_gsa },
    { "gsa", "gsa_decode", run_gsa },
    { "gsa", "gsa_layer", run_gsa_layer },
    { "gsa", "gsa_layer_decode", run_gsa_layer },
    { "retnet", "retention_op", run_retention_op },
    { "retnet", "retention", run_retention },
    { "retnet", "retention_three_forms", run_retention },
    { "mamba2", "ssd", run_ssd },
    { "mamba2", "ssd_state_update", run_ssd_update },
    { "mamba2", "mamba2_mixer", run_mamba2_mixer },
    { "linear_transformer", "linear_attention", run_linear_attention },
    { "linear_transformer", "linear_attention_step", run_linear_steps },
    { NULL, NULL, NULL },
};
