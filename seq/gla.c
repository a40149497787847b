/* seq/gla.c - Gated linear attention (Yang et al., arXiv:2312.06635), and its simple form.
 *
 *   S_t = Diag(a_t) S_{t-1} + k_t v_t'    o_t = S_t' q_t / sqrt(D)    log a_t = log sigmoid(x W_0^T
 *   W_1^T + b) / normalizer
 *   y   = (norm(o) * silu(g)) W_o^T
 *
 * a_t has a number for each row of S, or with `simple` one for each head.  norm: RMS of each head,
 * with a weight.
 * Letters: H heads, K heads of keys and values, D, E sizes of keys and values.
 * Parameters: {q,k,v,g,o}_proj.weight, gk_proj.0.weight [rank, d], gk_proj.1.{weight,bias},
 * g_norm_swish_gate.weight [E].
 * State: s [B, H, D, E]. */
#include "config.h"
#include "seq/carried.h"

typedef struct {
    nsm_mixer base;
    int heads, kv_heads, gate_rank;
    float expand_k, expand_v, gate_normalizer, norm_eps;
    bool simple;
    int d, e;
    nsm_tensor *q, *k, *v, *g, *low, *high, *high_bias, *norm, *out;
} gla;

static const nsm_mixer_key keys[] = {
    KEY_INT(gla, heads, 4, 1, 65536, "heads"),
    KEY_INT(gla, kv_heads, 0, 0, 65536,
            "heads of keys, values and decays, a divisor of heads (0: heads)"),
    KEY_REAL(gla, expand_k, 0.5, 0.001, 64, "width of the keys / width"),
    KEY_REAL(gla, expand_v, 1, 0.001, 64, "width of the values / width"),
    KEY_INT(gla, gate_rank, 16, 1, 65536, "rank of the decays' projection"),
    KEY_REAL(gla, gate_normalizer, 16, 1e-3, 1e6, "log decays are divided by it"),
    KEY_REAL(gla, norm_eps, 1e-5, 0, 1, "of the heads' norm"),
    KEY_BOOL(gla, simple, false, "one decay a head"),
    KEYS_END
};

static int make(nsm_mixer *m)
{
    gla *a = (gla *)m;
    int wk = (int)lround((double)m->width * (double)a->expand_k),
        wv = (int)lround((double)m->width * (double)a->expand_v);
    if (!a->kv_heads) a->kv_heads = a->heads;
    if (a->heads % a->kv_heads || wk < 1 || wk % a->heads || wv < 1 || wv % a->heads)
        return nsm_error_set(
            m->module.ctx, NSM_EINVAL,
            "gla: %d heads, kv_heads %d, widths of keys and values %d and %d do not fit", a->heads,
            a->kv_heads, wk, wv);
    a->d = wk / a->heads;
    a->e = wv / a->heads;
    int64_t rows = a->kv_heads * (a->simple ? 1 : (int64_t)a->d), e = a->e;
    a->q = nsmi_mixer_linear(m, "q_proj.weight", wk, m->width);
    a->k = nsmi_mixer_linear(m, "k_proj.weight", (int64_t)a->kv_heads * a->d, m->width);
    a->v = nsmi_mixer_linear(m, "v_proj.weight", (int64_t)a->kv_heads * a->e, m->width);
    a->g = nsmi_mixer_linear(m, "g_proj.weight", wv, m->width);
    a->low = nsmi_mixer_linear(m, "gk_proj.0.weight", a->gate_rank, m->width);
    a->high = nsmi_mixer_linear(m, "gk_proj.1.weight", rows, a->gate_rank);
    a->high_bias = nsmi_mixer_fill(m, "gk_proj.1.bias", 1, &rows, 0);
    a->norm = nsmi_mixer_fill(m, "g_norm_swish_gate.weight", 1, &e, 1);
    a->out = nsmi_mixer_linear(m, "o_proj.weight", m->width, wv);
    return nsm_error(m->module.ctx);
}

static nsm_tensor *forward(nsm_tape *tape, nsm_mixer *m, nsm_tensor *x, nsm_tensor *length,
                           nsm_state *s)
{
    gla *a = (gla *)m;
    nsm_tensor *q = nsm_linear(tape, x, a->q, NULL), *k = nsm_linear(tape, x, a->k, NULL),
               *v = nsm_linear(tape, x, a->v, NULL);
    nsm_tensor *g = nsm_linear(tape, nsm_linear(tape, x, a->low, NULL), a->high, a->high_bias);
    g = nsm_scale(tape, nsm_log_sigmoid(tape, g), 1 / a->gate_normalizer, 0);
    if (!a->simple) g = nsmi_split_heads(tape, g, a->kv_heads);
    nsm_tensor *o = nsmi_carried_recurrence(tape, nsmi_split_heads(tape, q, a->heads),
                                            nsmi_split_heads(tape, k, a->kv_heads),
                                            nsmi_split_heads(tape, v, a->kv_heads),
                                            (nsm_recurrence_config){ .g = g }, length, s, "s");
    o = nsmi_join_last(tape, nsm_rms_norm(tape, o, a->norm, 1, a->norm_eps));
    return nsm_linear(tape, nsm_mul_silu(tape, o, nsm_linear(tape, x, a->g, NULL)), a->out, NULL);
}

static int state(nsm_mixer *m, nsm_state *s)
{
    gla *a = (gla *)m;
    nsm_state_add(s, "s", NSM_F32, 3, (int64_t[]){ a->heads, a->d, a->e });
    return nsm_error(m->module.ctx);
}

const nsm_mixer_type nsmi_mixer_gla = {
    .name = "gla",
    .about = "gated linear attention (arXiv:2312.06635)",
    .bytes = sizeof(gla),
    .keys = keys,
    .sizes = "expand_k expand_v",
    .make = make,
    .forward = forward,
    .state = state,
};
