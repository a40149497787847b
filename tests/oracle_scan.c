/* tests/oracle_scan.c - Fixtures of scans by channel: Mamba's and RWKV's operators, Mamba's
 * mixer. */
#include "config.h"
#include "seq/carried.h"
#include "tests/oracle_model.h"

/* ---- the selective scan: [B, D, L] there ---- */
static nsm_tensor *by_token(nsm_tape *tape, nsm_tensor *x)
{
    return x ? nsm_transpose(tape, x) : NULL;
}

/* B or C: [D, N], [B, N, L] or [B, G, N, L] -> [D, N] or [B, L, G, N] */
static nsm_tensor *shared(nsm_tape *tape, nsm_tensor *x)
{
    if (!x || x->rank == 2) return x;
    if (x->rank == 3)
        x = nsm_reshape(tape, x, 4, (int64_t[]){ x->dim[0], 1, x->dim[1], x->dim[2] });
    return nsm_permute(tape, x, (const int[]){ 0, 3, 1, 2 });
}

static void run_scan(fixture *f)
{
    nsm_tape *tape = nsm_tape_new(fixture_ctx(f));
    nsm_tensor *last = NULL;
    nsm_scan_config c = { .skip = optional(f, "D"),
                          .dt_bias = optional(f, "delta_bias"),
                          .z = by_token(tape, optional(f, "z")),
                          .softplus = fixture_bool(f, "delta_softplus", false) };
    nsm_tensor *y = nsm_selective_scan(tape, by_token(tape, fixture_input(f, "u")),
                                       by_token(tape, fixture_input(f, "delta")),
                                       fixture_input(f, "A"), shared(tape, fixture_input(f, "B")),
                                       shared(tape, fixture_input(f, "C")), &c, &last);
    fixture_output(f, tape, "out", by_token(tape, y));
    fixture_output(f, tape, "last_state", last);
    fixture_grads(f, tape, NULL);
    nsm_tape_free(tape);
}

static void run_state_update(fixture *f)
{
    nsm_tape *tape = nsm_tape_new(fixture_ctx(f));
    nsm_tensor *s = fixture_input(f, "state"), *part[16];
    int steps = size(f, "steps", 0);
    for (int t = 0; t < steps && t < 16; t++) {
        nsm_scan_config c = { .skip = fixture_input(f, "D"),
                              .dt_bias = fixture_input(f, "dt_bias"),
                              .z = token(tape, fixture_input(f, "z"), t),
                              .softplus = true,
                              .state = s };
        part[t] = nsm_selective_scan(
            tape, token(tape, fixture_input(f, "x"), t), token(tape, fixture_input(f, "dt"), t),
            fixture_input(f, "A"), nsmi_split_heads(tape, token(tape, fixture_input(f, "B"), t), 1),
            nsmi_split_heads(tape, token(tape, fixture_input(f, "C"), t), 1), &c, &s);
        if (t == 0) fixture_output(f, tape, "state_after_1", s);
    }
    fixture_output(f, tape, "out", by_step(tape, part, steps));
    fixture_output(f, tape, "state_final", s);
    nsm_tape_free(tape);
}

/* ---- operators of RWKV ---- */
/* Three [B, C] as the state [B, 3, C]; part i of it. */
static nsm_tensor *rows(nsm_tape *tape, nsm_tensor *x)
{
    return x ? nsm_reshape(tape, x, 3, (int64_t[]){ x->dim[0], 1, x->dim[1] }) : NULL;
}
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
    nsm_tensor *s = host ? nsm_tape_tensor(tape, NSM_F32, 3, (int64_t[]){ k->dim[0], 3, k->dim[2] },
                                           host)
                         : NULL;
    free(host);
    return s;
}

static void run_wkv4(fixture *f)
{
    nsm_tape *tape = nsm_tape_new(fixture_ctx(f));
    nsm_tensor *k = fixture_input(f, "key"), *s, *next = NULL;
    if (has_input(f, "num_in"))
        s = nsm_concat(tape,
                       (nsm_tensor *[]){ rows(tape, fixture_input(f, "num_in")),
                                         rows(tape, fixture_input(f, "den_in")),
                                         rows(tape, fixture_input(f, "max_in")) },
                       3, 1);
    else s = empty(tape, k);
    nsm_tensor *w = nsm_neg(tape, nsm_exp(tape, fixture_input(f, "time_decay")));
    fixture_output(f, tape, "wkv",
                   nsm_wkv(tape, w, fixture_input(f, "time_first"), k, fixture_input(f, "value"), s,
                           NULL, &next));
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
    nsm_tensor *s = optional(f, "state_in"),
               *w = nsm_neg(tape, nsm_exp(tape, fixture_input(f, "w")));
    nsm_recurrence_config c = { .scale = 1,
                                .g = version == 5 ? w : nsmi_split_heads(tape, w, h),
                                .before = version < 7 };
    c.state = version == 7 && s ? nsm_transpose(tape, s) : s;
    if (version < 7) c.bonus = fixture_input(f, "u");
    if (version == 7) {
        c.a = nsmi_split_heads(tape, fixture_input(f, "a"), h);
        c.b = nsmi_split_heads(tape, fixture_input(f, "b"), h);
    }
    nsm_tensor *y = nsm_linear_recurrence(tape, nsmi_split_heads(tape, fixture_input(f, "r"), h),
                                          nsmi_split_heads(tape, fixture_input(f, "k"), h),
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
    nsm_mixer *m = nsm_mixer_new(fixture_ctx(f), type,
                                 &(nsm_mixer_config){ .width = width, .options = options });
    nsm_tape *tape = nsm_tape_new(fixture_ctx(f));
    if (m) {
        fixture_load(f, nsm_mixer_module(m));
        fixture_output(f, tape, "out",
                       nsm_mixer_forward(tape, m, fixture_input(f, in), NULL, NULL));
        fixture_grads(f, tape, nsm_mixer_module(m));
    }
    nsm_tape_free(tape);
    nsm_mixer_free(m);
}

static void run_mamba_mixer(fixture *f)
{
    char options[256];
    mamba_options(f, options);
    run_mixer(f, "mamba", size(f, "hidden_size", 0), options, "hidden_states");
}

const oracle_kind oracle_scan[] = {
    { "mamba", "selective_scan", run_scan },
    { "mamba", "selective_state_update", run_state_update },
    { "mamba", "mamba_mixer", run_mamba_mixer },
    { "rwkv", "rwkv4_wkv", run_wkv4 },
    { "rwkv", "rwkv5_wkv", run_wkv5 },
    { "rwkv", "rwkv6_wkv", run_wkv6 },
    { "rwkv", "rwkv7_wkv", run_wkv7 },
    { NULL, NULL, NULL },
};
