/* tests/oracle_scan.c - Fixtures of scans by channel and of RWKV: operators, Mamba's mixer, time mixing v4 to v7. */
#include "config.h"
#include "base/ops.h"
#include "seq/carried.h"
#include "tests/fixture.h"

static int size(fixture *f, const char *key, int64_t fallback) { return (int)fixture_int(f, key, fallback); }
static bool has(fixture *f, const char *name)
{
    char path[96];
    snprintf(path, sizeof path, "inputs/%s", name);
    return fixture_has(f, path);
}
static nsm_tensor *optional(fixture *f, const char *name) { return has(f, name) ? fixture_input(f, name) : NULL; }

/* ---- the selective scan: [B, D, L] there ---- */
static nsm_tensor *by_token(nsm_tape *tape, nsm_tensor *x) { return x ? nsm_transpose(tape, x) : NULL; }

/* B or C: [D, N], [B, N, L] or [B, G, N, L] -> [D, N] or [B, L, G, N] */
static nsm_tensor *shared(nsm_tape *tape, nsm_tensor *x)
{
    if (!x || x->rank == 2) return x;
    if (x->rank == 3) x = nsm_reshape(tape, x, 4, (int64_t[]){ x->dim[0], 1, x->dim[1], x->dim[2] });
    return nsm_permute(tape, x, (const int[]){ 0, 3, 1, 2 });
}

static void run_scan(fixture *f)
{
    nsm_tape *tape = nsm_tape_new(fixture_ctx(f));
    nsm_tensor *last = NULL;
    nsm_scan_config c = { .skip = optional(f, "D"), .dt_bias = optional(f, "delta_bias"), .z = by_token(tape, optional(f, "z")),
                          .softplus = fixture_bool(f, "delta_softplus", false) };
    nsm_tensor *y = nsm_selective_scan(tape, by_token(tape, fixture_input(f, "u")), by_token(tape, fixture_input(f, "delta")), fixture_input(f, "A"),
                                       shared(tape, fixture_input(f, "B")), shared(tape, fixture_input(f, "C")), &c, &last);
    fixture_output(f, tape, "out", by_token(tape, y));
    fixture_output(f, tape, "last_state", last);
    fixture_grads(f, tape, NULL);
    nsm_tape_free(tape);
}

/* Row t of [steps, B, ...] as one token [B, 1, ...]. */
static nsm_tensor *token(nsm_tape *tape, nsm_tensor *x, int64_t t)
{
    x = nsm_slice(tape, x, 0, t, 1);
    return x ? nsm_reshape(tape, x, 3, (int64_t[]){ x->dim[1], 1, x->dim[2] }) : NULL;
}

static void run_state_update(fixture *f)
{
    nsm_tape *tape = nsm_tape_new(fixture_ctx(f));
    nsm_tensor *s = fixture_input(f, "state"), *part[16];
    int steps = size(f, "steps", 0);
    for (int t = 0; t < steps && t < 16; t++) {
        nsm_scan_config c = { .skip = fixture_input(f, "D"), .dt_bias = fixture_input(f, "dt_bias"), .z = token(tape, fixture_input(f, "z"), t),
                              .softplus = true, .state = s };
        nsm_tensor *y = nsm_selective_scan(tape, token(tape, fixture_input(f, "x"), t), token(tape, fixture_input(f, "dt"), t), fixture_input(f, "A"),
                                           nsmi_split_heads(tape, token(tape, fixture_input(f, "B"), t), 1),
                                           nsmi_split_heads(tape, token(tape, fixture_input(f, "C"), t), 1), &c, &s);
        part[t] = y ? nsm_reshape(tape, y, 3, (int64_t[]){ 1, y->dim[0], y->dim[2] }) : NULL;
        if (t == 0) fixture_output(f, tape, "state_after_1", s);
    }
    fixture_output(f, tape, "out", nsm_concat(tape, part, steps, 0));
    fixture_output(f, tape, "state_final", s);
    nsm_tape_free(tape);
}

/* ---- operators of RWKV ---- */
/* Three [B, C] as the state [B, 3, C]; part i of it. */
static nsm_tensor *rows(nsm_tape *tape, nsm_tensor *x) { return x ? nsm_reshape(tape, x, 3, (int64_t[]){ x->dim[0], 1, x->dim[1] }) : NULL; }
static nsm_tensor *row(nsm_tape *tape, nsm_tensor *s, int64_t i)
{
    s = nsm_slice(tape, s, 1, i, 1);
    return s ? nsm_reshape(tape, s, 2, (int64_t[]){ s->dim[0], s->dim[2] }) : NULL;
}

static nsm_tensor *empty(nsm_tape *tape, const nsm_tensor *k)
{
    int64_t n = k ? k->dim[0] * 3 * k->dim[2] : 0;
    float *host = k ? calloc((size_t)n + 1, sizeof *host) : NULL;
    for (int64_t i = 0; host && i < n; i++) host[i] = i / k->dim[2] % 3 == 2 ? -1e38f : 0;
    nsm_tensor *s = host ? nsm_tape_tensor(tape, NSM_F32, 3, (int64_t[]){ k->dim[0], 3, k->dim[2] }, host) : NULL;
    free(host);
    return s;
}

static void run_wkv4(fixture *f)
{
    nsm_tape *tape = nsm_tape_new(fixture_ctx(f));
    nsm_tensor *k = fixture_input(f, "key"), *s, *next = NULL;
    if (has(f, "num_in"))
        s = nsm_concat(tape, (nsm_tensor *[]){ rows(tape, fixture_input(f, "num_in")), rows(tape, fixture_input(f, "den_in")),
                                               rows(tape, fixture_input(f, "max_in")) }, 3, 1);
    else s = empty(tape, k);
    nsm_tensor *w = nsm_neg(tape, nsm_exp(tape, fixture_input(f, "time_decay")));
    fixture_output(f, tape, "wkv", nsm_wkv(tape, w, fixture_input(f, "time_first"), k, fixture_input(f, "value"), s, NULL, &next));
    fixture_output(f, tape, "num_out", row(tape, next, 0));
    fixture_output(f, tape, "den_out", row(tape, next, 1));
    fixture_output(f, tape, "max_out", row(tape, next, 2));
    fixture_grads(f, tape, NULL);
    nsm_tape_free(tape);
}

/* v5, v6, v7: heads of [B, T, C] */
static void run_wkv(fixture *f, int version)
{
    nsm_tape *tape = nsm_tape_new(fixture_ctx(f));
    int h = size(f, "n_head", 1);
    nsm_tensor *s = optional(f, "state_in"), *w = nsm_neg(tape, nsm_exp(tape, fixture_input(f, "w")));
    nsm_recurrence_config c = { .scale = 1, .g = version == 5 ? w : nsmi_split_heads(tape, w, h), .before = version < 7 };
    c.state = version == 7 && s ? nsm_transpose(tape, s) : s;
    if (version < 7) c.bonus = fixture_input(f, "u");
    if (version == 7) {
        c.a = nsmi_split_heads(tape, fixture_input(f, "a"), h);
        c.b = nsmi_split_heads(tape, fixture_input(f, "b"), h);
    }
    nsm_tensor *y = nsm_linear_recurrence(tape, nsmi_split_heads(tape, fixture_input(f, "r"), h), nsmi_split_heads(tape, fixture_input(f, "k"), h),
                                          nsmi_split_heads(tape, fixture_input(f, "v"), h), &c, &s);
    fixture_output(f, tape, "y", nsmi_join_last(tape, y));
    fixture_output(f, tape, "state_out", version == 7 && s ? nsm_transpose(tape, s) : s);
    fixture_grads(f, tape, NULL);
    nsm_tape_free(tape);
}
static void run_wkv5(fixture *f) { run_wkv(f, 5); }
static void run_wkv6(fixture *f) { run_wkv(f, 6); }
static void run_wkv7(fixture *f) { run_wkv(f, 7); }

/* ---- layers ---- */
static void run_mixer(fixture *f, const char *type, int width, const char *options, const char *in)
{
    nsm_mixer *m = nsm_mixer_new(fixture_ctx(f), type, &(nsm_mixer_config){ .width = width, .options = options });
    nsm_tape *tape = nsm_tape_new(fixture_ctx(f));
    if (m) {
        fixture_load(f, nsm_mixer_module(m));
        fixture_output(f, tape, "out", nsm_mixer_forward(tape, m, fixture_input(f, in), NULL, NULL));
        fixture_grads(f, tape, nsm_mixer_module(m));
    }
    nsm_tape_free(tape);
    nsm_mixer_free(m);
}

static void run_mamba_mixer(fixture *f)
{
    char options[160];
    if (strcmp(fixture_text(f, "hidden_act", "silu"), "silu")) fixture_fault(f, "hidden_act is not silu");
    snprintf(options, sizeof options, "expand=%.9g states=%d rank=%d conv_size=%d bias=%s conv_bias=%s",
             fixture_number(f, "intermediate_size", 0) / fixture_number(f, "hidden_size", 1), size(f, "state_size", 16), size(f, "time_step_rank", 0),
             size(f, "conv_kernel", 4), fixture_bool(f, "use_bias", false) ? "true" : "false", fixture_bool(f, "use_conv_bias", true) ? "true" : "false");
    run_mixer(f, "mamba", size(f, "hidden_size", 0), options, "hidden_states");
}

static void run_time_mix4(fixture *f)
{
    if (size(f, "attention_hidden_size", 0) != size(f, "hidden_size", 0)) fixture_fault(f, "attention_hidden_size is not hidden_size");
    run_mixer(f, "rwkv4", size(f, "hidden_size", 0), NULL, "hidden");
}

static void run_time_mix(fixture *f)
{
    char options[200];
    int version = strstr(fixture_kind(f), "rwkv5") ? 5 : 6;
    if (fixture_int(f, "dim_att", 0) != fixture_int(f, "n_embd", 0)) fixture_fault(f, "dim_att is not n_embd");
    snprintf(options, sizeof options, "heads=%d norm_eps=%.9g", size(f, "n_head", 1), fixture_number(f, "group_norm_eps", 1e-5));
    size_t at = strlen(options);
    if (version < 7) snprintf(options + at, sizeof options - at, " divisor=%.9g", fixture_number(f, "group_norm_input_divisor", 1));
    at = strlen(options);
    if (version == 6)
        snprintf(options + at, sizeof options - at, " mix_rank=%d decay_rank=%d", size(f, "d_mix_lora", 32), size(f, "d_decay_lora", 64));
    run_mixer(f, version == 5 ? "rwkv5" : "rwkv6", size(f, "n_embd", 0), options, "x");
}

static void run_time_mix7(fixture *f)
{
    char options[200];
    int64_t rank = 0, dim[NSM_MAX_RANK];
    nsm_tensor *first = optional(f, "v_first");
    if (fixture_int(f, "dim_att", 0) != fixture_int(f, "n_embd", 0)) fixture_fault(f, "dim_att is not n_embd");
    if (first && fixture_dims(f, "weights/v1", dim) == 2) rank = dim[1];
    if (first && rank != fixture_int(f, "d_mv_lora", 0)) fixture_fault(f, "v1 is not of rank d_mv_lora");
    snprintf(options, sizeof options, "heads=%d norm_eps=%.9g decay_rank=%d rate_rank=%d gate_rank=%d value_rank=%d", size(f, "n_head", 1),
             fixture_number(f, "group_norm_eps", 64e-5), size(f, "d_decay_lora", 64), size(f, "d_aaa_lora", 64), size(f, "d_gate_lora", 128), (int)rank);
    nsm_mixer *m = nsm_mixer_new(fixture_ctx(f), "rwkv7", &(nsm_mixer_config){ .width = size(f, "n_embd", 0), .options = options });
    nsm_tape *tape = nsm_tape_new(fixture_ctx(f));
    if (m) {
        bool later = first != NULL;
        fixture_load(f, nsm_mixer_module(m));
        fixture_output(f, tape, "out", nsmi_rwkv7(tape, m, fixture_input(f, "x"), &first, NULL, NULL));
        if (!later) fixture_output(f, tape, "v_first", first);
        fixture_grads(f, tape, nsm_mixer_module(m));
    }
    nsm_tape_free(tape);
    nsm_mixer_free(m);
}

const oracle_kind oracle_scan[] = {
    { "mamba", "selective_scan", run_scan }, { "mamba", "selective_state_update", run_state_update }, { "mamba", "mamba_mixer", run_mamba_mixer },
    { "rwkv", "rwkv4_wkv", run_wkv4 }, { "rwkv", "rwkv5_wkv", run_wkv5 }, { "rwkv", "rwkv6_wkv", run_wkv6 }, { "rwkv", "rwkv7_wkv", run_wkv7 },
    { "rwkv", "rwkv4_time_mix", run_time_mix4 }, { "rwkv", "rwkv5_time_mix", run_time_mix }, { "rwkv", "rwkv6_time_mix", run_time_mix },
    { "rwkv", "rwkv7_time_mix", run_time_mix7 },
    { NULL, NULL, NULL },
};
