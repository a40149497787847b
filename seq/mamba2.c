/* seq/mamba2.c - Mamba-2 (Dao and Gu, arXiv:2405.21060): linear attention with a decay for each
 * head and token.
 *
 *   [z, xBC, dt] = x W_in^T    [x, B, C] = silu(conv(xBC))    dt = softplus(dt + dt_bias), within
 *   limits
 *   S_t = exp(-dt exp(A_log)) S_{t-1} + B_t (dt x_t)'    y_t = S_t' C_t + D x_t    out = norm(y
 *   silu(z)) W_out^T
 *
 * norm: RMS of each group's channels, with a weight.
 * Letters: H heads of P channels, G groups of N states (head h reads group h G / H), c taps.
 * Parameters: in_proj.weight [2 HP + 2 GN + H, d], conv1d.{weight [HP + 2GN, 1, c], bias}, dt_bias,
 * A_log, D [H], norm.weight [HP], out_proj.weight.  State: s [B, H, N, P]; conv [B, c-1, HP +
 * 2GN]. */
#include "config.h"
#include "seq/carried.h"

typedef struct {
    nsm_mixer base;
    int heads, head_dim, groups, states, conv_size;
    float expand, dt_low, dt_high, norm_eps;
    bool bias, conv_bias;
    int64_t inner, channels;
    nsm_tensor *in, *in_bias, *conv, *conv_b, *dt_bias, *a_log, *skip, *norm, *out, *out_bias;
} mamba2;

static const nsm_mixer_key keys[] = {
    KEY_REAL(mamba2, expand, 2, 0.1, 64, "inner width / width"),
    KEY_INT(mamba2, heads, 0, 0, 65536, "heads (0: inner width / head_dim)"),
    KEY_INT(mamba2, head_dim, 0, 0, 512, "channels of a head (0: at most 64)"),
    KEY_INT(mamba2, groups, 1, 1, 65536, "groups that share B and C"),
    KEY_INT(mamba2, states, 128, 1, 512, "states of a channel"),
    KEY_INT(mamba2, conv_size, 4, 1, 32, "taps of the convolution"),
    KEY_REAL(mamba2, dt_low, 0, 0, 1e30, "least step"),
    KEY_REAL(mamba2, dt_high, 1e30, 0, 1e30, "largest step"),
    KEY_REAL(mamba2, norm_eps, 1e-5, 0, 1, "of the norm"),
    KEY_BOOL(mamba2, bias, false, "biases in the projections"),
    KEY_BOOL(mamba2, conv_bias, true, "a bias in the convolution"),
    KEYS_END
};

static int make(nsm_mixer *m)
{
    mamba2 *a = (mamba2 *)m;
    int inner = (int)lround((double)m->width * (double)a->expand);
    if (!a->head_dim) a->head_dim = a->heads ? inner / a->heads : nsmi_divisor(inner, 64);
    if (!a->heads) a->heads = a->head_dim ? inner / a->head_dim : 0;
    if (a->heads < 1 || a->head_dim < 1 || a->heads * a->head_dim != inner || a->heads % a->groups)
        return nsm_error_set(
            m->module.ctx, NSM_EINVAL,
            "mamba2: inner width is %d, heads %d of %d, groups %d: they do not fit", inner,
            a->heads, a->head_dim, a->groups);
    int64_t h = a->heads;
    a->inner = inner;
    a->channels = inner + 2 * (int64_t)a->groups * a->states;
    a->in = nsmi_mixer_linear(m, "in_proj.weight", inner + a->channels + h, m->width);
    if (a->bias)
        a->in_bias = nsmi_mixer_fill(m, "in_proj.bias", 1, (int64_t[]){ inner + a->channels + h },
                                     0);
    a->conv = nsmi_mixer_linear(m, "conv1d.weight", a->channels, a->conv_size);
    if (a->conv_bias) a->conv_b = nsmi_mixer_fill(m, "conv1d.bias", 1, &a->channels, 0);
    a->dt_bias = nsmi_mixer_fill(m, "dt_bias", 1, &h, 0);
    nsm_init_uniform(a->dt_bias, logf(0.001f), logf(0.1f)); /* steps of 0.001 to 0.1 */
    a->a_log = nsmi_mixer_fill(m, "A_log", 1, &h, 0);
    nsm_init_uniform(a->a_log, 0, logf(16));
    a->skip = nsmi_mixer_fill(m, "D", 1, &h, 1);
    a->norm = nsmi_mixer_fill(m, "norm.weight", 1, &a->inner, 1);
    a->out = nsmi_mixer_linear(m, "out_proj.weight", m->width, inner);
    if (a->bias) a->out_bias = nsmi_mixer_fill(m, "out_proj.bias", 1, (int64_t[]){ m->width }, 0);
    return nsm_error(m->module.ctx);
}

static nsm_tensor *gated_norm(nsm_tape *tape, mamba2 *a, nsm_tensor *y, nsm_tensor *z)
{
    y = nsm_mul_silu(tape, y, z);
    if (a->groups == 1) return nsm_rms_norm(tape, y, a->norm, 1, a->norm_eps);
    y = nsm_rms_norm(tape, nsmi_split_heads(tape, y, a->groups), NULL, 1, a->norm_eps);
    return nsm_mul(tape, nsmi_join_last(tape, y), a->norm);
}

static nsm_tensor *forward(nsm_tape *tape, nsm_mixer *m, nsm_tensor *input, nsm_tensor *length,
                           nsm_state *s)
{
    mamba2 *a = (mamba2 *)m;
    int64_t gn = (int64_t)a->groups * a->states;
    nsm_tensor *all = nsm_linear(tape, input, a->in, a->in_bias);
    nsm_tensor *in[3], *part[3]; /* z, xbc, dt; x, b, c */
    nsm_split(tape, all, 2, 3, (int64_t[]){ a->inner, a->channels, a->heads }, in);
    nsm_tensor *xbc = nsmi_carried_conv(tape, in[1], a->conv, a->conv_b, true, length, s, "conv");
    nsm_split(tape, xbc, 2, 3, (int64_t[]){ a->inner, gn, gn }, part);
    nsm_tensor *x = nsmi_split_heads(tape, part[0], a->heads),
               *b = nsmi_split_heads(tape, part[1], a->groups),
               *c = nsmi_split_heads(tape, part[2], a->groups), *dt = in[2];
    dt = nsm_softplus(tape, nsm_add(tape, dt, a->dt_bias), 1, 20);
    if (a->dt_low > 0 || a->dt_high < 1e30f) dt = nsm_clamp(tape, dt, a->dt_low, a->dt_high);
    nsm_tensor *g = nsm_mul(tape, dt, nsm_neg(tape, nsm_exp(tape, a->a_log))),
               *v = nsm_mul(tape, x, nsmi_split_heads(tape, dt, a->heads));
    if (!g) return NULL;
    nsm_tensor *y = nsmi_carried_recurrence(tape, c, b, v,
                                            (nsm_recurrence_config){ .scale = 1, .g = g }, length,
                                            s, "s");
    y = nsm_add(tape, y,
                nsm_mul(tape, x, nsm_reshape(tape, a->skip, 2, (int64_t[]){ a->heads, 1 })));
    return nsm_linear(tape, gated_norm(tape, a, nsmi_join_last(tape, y), in[0]), a->out,
                      a->out_bias);
}

static int state(nsm_mixer *m, nsm_state *s)
{
    mamba2 *a = (mamba2 *)m;
    nsm_state_add(s, "s", NSM_F32, 3, (int64_t[]){ a->heads, a->states, a->head_dim });
    nsmi_add_conv(s, "conv", a->conv_size, a->channels);
    return nsm_error(m->module.ctx);
}

const nsm_mixer_type nsmi_mixer_mamba2 = {
    .name = "mamba2",
    .about = "state space duality (arXiv:2405.21060)",
    .bytes = sizeof(mamba2),
    .keys = keys,
    .sizes = "states expand",
    .make = make,
    .forward = forward,
    .state = state,
};
