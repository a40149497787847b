/* seq/gsa.c - Gated slot attention (Zhang et al., arXiv:2409.07146): two gated linear attentions
 * around a softmax.
 *
 *   K_t = K_{t-1} Diag(a_t) + k_t s_t'    p_t = softmax over slots of scale K_t' q_t        a_t =
 *   exp(f_t), s_t = 1 - a_t
 *   V_t = Diag(a_t) V_{t-1} + s_t v_t'    o_t = V_t' p_t                  f = log sigmoid(x W_f^T)
 *   / normalizer
 *   y   = norm(silu(o)) W_o^T, RMS over all channels
 *
 * q, k, v go through SiLU.  Letters: H heads, G heads of keys and values, D, E sizes of keys and
 * values, M slots.
 * Parameters: {q,k,v,f,o}_proj.weight, g_norm.weight [H*E].  State: keys [B, H, D, M], values [B,
 * H, M, E]. */
#include "config.h"
#include "seq/carried.h"

typedef struct {
    nsm_mixer base;
    int heads, kv_heads, slots;
    float gate_normalizer, norm_eps;
    int d;
    nsm_tensor *q, *k, *v, *f, *norm, *out;
} gsa;

static const nsm_mixer_key keys[] = {
    KEY_INT(gsa, heads, 4, 1, 65536, "heads"),
    KEY_INT(gsa, kv_heads, 0, 0, 65536,
            "heads of keys, values and slots, a divisor of heads (0: heads)"),
    KEY_INT(gsa, slots, 64, 1, 512, "slots of a head"),
    KEY_REAL(gsa, gate_normalizer, 8, 1e-3, 1e6, "log decays are divided by it"),
    KEY_REAL(gsa, norm_eps, 1e-5, 0, 1, "of the norm"),
    KEYS_END
};

static int make(nsm_mixer *m)
{
    gsa *a = (gsa *)m;
    if (!a->kv_heads) a->kv_heads = a->heads;
    if (m->width % a->heads || a->heads % a->kv_heads)
        return nsm_error_set(m->module.ctx, NSM_EINVAL,
                             "gsa: width is %d, heads %d, kv_heads %d; want divisors", m->width,
                             a->heads, a->kv_heads);
    a->d = m->width / a->heads;
    int64_t kv = (int64_t)a->kv_heads * a->d;
    a->q = nsmi_mixer_linear(m, "q_proj.weight", m->width, m->width);
    a->k = nsmi_mixer_linear(m, "k_proj.weight", kv, m->width);
    a->v = nsmi_mixer_linear(m, "v_proj.weight", kv, m->width);
    a->f = nsmi_mixer_linear(m, "f_proj.weight", (int64_t)a->kv_heads * a->slots, m->width);
    a->norm = nsmi_mixer_fill(m, "g_norm.weight", 1, (int64_t[]){ m->width }, 1);
    a->out = nsmi_mixer_linear(m, "o_proj.weight", m->width, m->width);
    return nsm_error(m->module.ctx);
}

nsm_tensor *nsmi_slot_attention(nsm_tape *tape, nsm_tensor *q, nsm_tensor *k, nsm_tensor *v,
                                nsm_tensor *s, nsm_tensor *f, float scale, nsm_tensor *length,
                                nsm_tensor *state[2])
{
    nsm_recurrence_config c = {
        .g = f, .decay_values = true, .scale = scale, .state = state[0], .length = length
    };
    /* [B,n,H,M] */
    nsm_tensor *p = nsm_softmax(tape, nsm_linear_recurrence(tape, q, k, s, &c, &state[0]), -1);
    c = (nsm_recurrence_config){ .g = f, .scale = 1, .state = state[1], .length = length };
    return nsm_linear_recurrence(tape, p, s, v, &c, &state[1]);
}

static nsm_tensor *forward(nsm_tape *tape, nsm_mixer *m, nsm_tensor *x, nsm_tensor *length,
                           nsm_state *st)
{
    gsa *a = (gsa *)m;
    nsm_tensor *q = nsmi_split_heads(tape, nsm_silu(tape, nsm_linear(tape, x, a->q, NULL)),
                                     a->heads);
    nsm_tensor *k = nsmi_split_heads(tape, nsm_silu(tape, nsm_linear(tape, x, a->k, NULL)),
                                     a->kv_heads);
    nsm_tensor *v = nsmi_split_heads(tape, nsm_silu(tape, nsm_linear(tape, x, a->v, NULL)),
                                     a->kv_heads);
    nsm_tensor *f = nsm_scale(tape, nsm_log_sigmoid(tape, nsm_linear(tape, x, a->f, NULL)),
                              1 / a->gate_normalizer, 0);
    f = nsmi_split_heads(tape, f, a->kv_heads);
    nsm_tensor *s = nsm_scale(tape, nsm_exp(tape, f), -1, 1),
               *state[2] = { nsmi_begin(tape, st, "keys"), nsmi_begin(tape, st, "values") };
    nsm_tensor *o = nsmi_slot_attention(tape, q, k, v, s, f, 1, length, state);
    nsmi_leave(st, "keys", state[0]);
    nsmi_leave(st, "values", state[1]);
    return nsm_linear(tape,
                      nsm_rms_norm(tape, nsm_silu(tape, nsmi_join_last(tape, o)), a->norm, 1,
                                   a->norm_eps),
                      a->out, NULL);
}

static int state(nsm_mixer *m, nsm_state *s)
{
    gsa *a = (gsa *)m;
    nsm_state_add(s, "keys", NSM_F32, 3, (int64_t[]){ a->heads, a->d, a->slots });
    nsm_state_add(s, "values", NSM_F32, 3, (int64_t[]){ a->heads, a->slots, a->d });
    return nsm_error(m->module.ctx);
}

const nsm_mixer_type nsmi_mixer_gsa = {
    .name = "gsa",
    .about = "gated slot attention (arXiv:2409.07146)",
    .bytes = sizeof(gsa),
    .keys = keys,
    .sizes = "slots",
    .make = make,
    .forward = forward,
    .state = state,
};
