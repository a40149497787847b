/* seq/mamba.c - Mamba (Gu and Dao, arXiv:2312.00752), the selective state space model.
 *
 *   [x, z] = input W_in^T    x = silu(conv(x))    [dt, B, C] = x W_x^T    dt = softplus(dt W_dt^T +
 *   b_dt)
 *   s_t = exp(-dt exp(A_log)) s_{t-1} + dt B_t x_t    y_t = (s_t . C_t + D x_t) silu(z_t)    out =
 *   y W_out^T
 *
 * Letters: I inner channels, N states of each, R rank of dt, c taps.
 * Parameters: in_proj.weight [2I, d], conv1d.{weight [I, 1, c], bias}, x_proj.weight [R + 2N, I],
 * dt_proj.{weight [I, R], bias}, A_log [I, N], D [I], out_proj.weight [d, I].  State: s [B, I, N];
 * conv [B, c-1, I].  Cost: O(n I N). */
#include "config.h"
#include "seq/carried.h"

typedef struct {
    nsm_mixer base;
    int states, rank, conv_size;
    float expand;
    bool bias, conv_bias;
    int64_t inner;
    nsm_tensor *in, *in_bias, *conv, *conv_b, *x, *dt, *dt_bias, *a_log, *skip, *out, *out_bias;
} mamba;

static const nsm_mixer_key keys[] = {
    KEY_REAL(mamba, expand, 2, 0.1, 64, "inner width / width"),
    KEY_INT(mamba, states, 16, 1, 256, "states of a channel"),
    KEY_INT(mamba, rank, 0, 0, 65536, "rank of the step's projection (0: width / 16, rounded up)"),
    KEY_INT(mamba, conv_size, 4, 1, 32, "taps of the convolution"),
    KEY_BOOL(mamba, bias, false, "biases in the projections"),
    KEY_BOOL(mamba, conv_bias, true, "a bias in the convolution"),
    KEYS_END
};

/* A of state n is -(n + 1) at the start. */
static void start_decays(mamba *a)
{
    int64_t n = a->inner * a->states;
    float *host = nsmi_malloc(a->base.module.ctx, (size_t)n * sizeof *host);
    for (int64_t i = 0; host && i < n; i++) host[i] = logf((float)(i % a->states + 1));
    if (host) nsm_tensor_set(a->a_log, host);
    free(host);
}

static int make(nsm_mixer *m)
{
    mamba *a = (mamba *)m;
    int64_t width = m->width;
    a->inner = lround((double)m->width * (double)a->expand);
    if (!a->rank) a->rank = (m->width + 15) / 16;
    if (a->inner < 1)
        return nsm_error_set(m->module.ctx, NSM_EINVAL, "mamba: the inner width is %lld",
                             (long long)a->inner);
    a->in = nsmi_mixer_linear(m, "in_proj.weight", 2 * a->inner, width);
    if (a->bias) a->in_bias = nsmi_mixer_fill(m, "in_proj.bias", 1, (int64_t[]){ 2 * a->inner }, 0);
    a->conv = nsmi_mixer_linear(m, "conv1d.weight", a->inner, a->conv_size);
    if (a->conv_bias) a->conv_b = nsmi_mixer_fill(m, "conv1d.bias", 1, &a->inner, 0);
    a->x = nsmi_mixer_linear(m, "x_proj.weight", a->rank + 2 * a->states, a->inner);
    a->dt = nsmi_mixer_linear(m, "dt_proj.weight", a->inner, a->rank);
    a->dt_bias = nsmi_mixer_fill(m, "dt_proj.bias", 1, &a->inner, 0);
    nsm_init_uniform(a->dt_bias, logf(0.001f), logf(0.1f)); /* steps of 0.001 to 0.1 */
    a->a_log = nsmi_mixer_fill(m, "A_log", 2, (int64_t[]){ a->inner, a->states }, 0);
    if (a->a_log) start_decays(a);
    a->skip = nsmi_mixer_fill(m, "D", 1, &a->inner, 1);
    a->out = nsmi_mixer_linear(m, "out_proj.weight", width, a->inner);
    if (a->bias) a->out_bias = nsmi_mixer_fill(m, "out_proj.bias", 1, &width, 0);
    return nsm_error(m->module.ctx);
}

static nsm_tensor *forward(nsm_tape *tape, nsm_mixer *m, nsm_tensor *input, nsm_tensor *length,
                           nsm_state *s)
{
    mamba *a = (mamba *)m;
    nsm_tensor *next = NULL, *xz[2], *p[3]; /* p: dt's few numbers, B, C */
    nsm_split(tape, nsm_linear(tape, input, a->in, a->in_bias), 2, 2,
              (int64_t[]){ a->inner, a->inner }, xz);
    nsm_tensor *x = nsmi_carried_conv(tape, xz[0], a->conv, a->conv_b, true, length, s, "conv");
    nsm_split(tape, nsm_linear(tape, x, a->x, NULL), 2, 3,
              (int64_t[]){ a->rank, a->states, a->states }, p);
    nsm_tensor *dt = nsm_linear(tape, p[0], a->dt, NULL);
    nsm_scan_config c = { .skip = a->skip,
                          .dt_bias = a->dt_bias,
                          .z = xz[1],
                          .softplus = true,
                          .state = nsmi_begin(tape, s, "s"),
                          .length = length };
    if (!xz[1]) return NULL;
    nsm_tensor *y = nsm_selective_scan(tape, x, dt, nsm_neg(tape, nsm_exp(tape, a->a_log)),
                                       nsmi_split_heads(tape, p[1], 1),
                                       nsmi_split_heads(tape, p[2], 1), &c, &next);
    nsmi_leave(s, "s", next);
    return nsm_linear(tape, y, a->out, a->out_bias);
}

static int state(nsm_mixer *m, nsm_state *s)
{
    mamba *a = (mamba *)m;
    nsm_state_add(s, "s", NSM_F32, 2, (int64_t[]){ a->inner, a->states });
    nsmi_add_conv(s, "conv", a->conv_size, a->inner);
    return nsm_error(m->module.ctx);
}

const nsm_mixer_type nsmi_mixer_mamba = {
    .name = "mamba",
    .about = "the selective state space model (arXiv:2312.00752)",
    .bytes = sizeof(mamba),
    .keys = keys,
    .sizes = "states expand",
    .make = make,
    .forward = forward,
    .state = state,
};
