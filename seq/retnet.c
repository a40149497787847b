/* seq/retnet.c - Retention (Sun et al., arXiv:2307.08621), eq. 6 to 8, its chunkwise form:
 *
 *   S_t = gamma_h S_{t-1} + k_t v_t'    o_t = S_t' q_t / sqrt(s_t),  s_t = gamma_h s_{t-1} + 1,
 *   gamma_h = 1 - 2^(-5-h)
 *   y   = (silu(g) * norm(o)) W_out^T
 *
 * q, k are turned by position, pairs side by side, the last of P pairs by 1/10000: base^(-c/P) with
 * base = 10000^(P/(P-1)).  norm: RMS of each head, no weight.  sqrt(s_t) is the recurrent form's;
 * the norm takes every factor of a head out again but for eps.
 * Letters: H heads, D, E sizes of keys and values.
 * Parameters: {q,k,v,g}_proj.weight, out_proj.weight.  State: kv [B, H, D, E]; scale = s [B, H, 1,
 * 1]. */
#include "config.h"
#include "seq/carried.h"

typedef struct {
    nsm_mixer base;
    int heads;
    float value_expand, norm_eps;
    int value_width;
    nsm_tensor *q, *k, *v, *g, *out, *decay;
} retnet;

static const nsm_mixer_key keys[] = {
    KEY_INT(retnet, heads, 4, 1, 65536, "heads; width / heads must be even"),
    KEY_REAL(retnet, value_expand, 1, 0.001, 64, "width of the values / width"),
    KEY_REAL(retnet, norm_eps, 1e-6, 0, 1, "of the heads' norm"),
    KEYS_END
};

static int make(nsm_mixer *m)
{
    retnet *r = (retnet *)m;
    r->value_width = (int)lround((double)m->width * (double)r->value_expand);
    if (m->width % (2 * r->heads) || r->value_width < 1 || r->value_width % r->heads)
        return nsm_error_set(
            m->module.ctx, NSM_EINVAL,
            "retnet: width is %d, heads %d, width of the values %d; want an even width of a head",
            m->width, r->heads, r->value_width);
    r->q = nsmi_mixer_linear(m, "q_proj.weight", m->width, m->width);
    r->k = nsmi_mixer_linear(m, "k_proj.weight", m->width, m->width);
    r->v = nsmi_mixer_linear(m, "v_proj.weight", r->value_width, m->width);
    r->g = nsmi_mixer_linear(m, "g_proj.weight", r->value_width, m->width);
    r->out = nsmi_mixer_linear(m, "out_proj.weight", m->width, r->value_width);
    float *log_gamma = nsmi_malloc(m->module.ctx, (size_t)r->heads * sizeof *log_gamma);
    for (int h = 0; log_gamma && h < r->heads; h++) log_gamma[h] = (float)log1p(-exp2(-5.0 - h));
    r->decay = log_gamma
                   ? nsm_tensor_from(m->module.ctx, NSM_F32, 1, (int64_t[]){ r->heads }, log_gamma)
                   : NULL;
    free(log_gamma);
    return nsm_error(m->module.ctx);
}

static void clear(nsm_mixer *m) { nsm_tensor_free(((retnet *)m)->decay); }

/* Where each row of the batch stands, on the device. */
static nsm_tensor *places(nsm_tape *tape, const nsm_state *s)
{
    nsm_tensor *p = nsm_tape_tensor(tape, NSM_I32, 1, &s->batch, NULL);
    int64_t *seen = p ? nsmi_tape_room(tape, (size_t)s->batch * sizeof *seen) : NULL;
    if (seen && !nsm_tensor_get(s->seen, seen))
        for (int64_t b = 0; b < s->batch; b++)
            s->ctx->dev.be->to_device(&s->ctx->dev, sizeof(int32_t), &(int32_t){ (int32_t)seen[b] },
                                      p->i32 + b);
    return p;
}

/* s_t [B, n, H, 1]: the recurrence itself, of ones. */
static nsm_tensor *weights(nsm_tape *tape, retnet *r, const nsm_tensor *x, nsm_tensor *length,
                           nsm_state *s)
{
    nsm_tensor *one = nsm_tape_tensor(tape, NSM_F32, 4, (int64_t[]){ x->dim[0], x->dim[1], 1, 1 },
                                      NULL);
    if (one) nsm_tensor_fill(one, 1);
    return nsmi_carried_recurrence(tape, one, one, one,
                                   (nsm_recurrence_config){ .scale = 1, .g = r->decay }, length, s,
                                   "scale");
}

static nsm_tensor *forward(nsm_tape *tape, nsm_mixer *m, nsm_tensor *x, nsm_tensor *length,
                           nsm_state *s)
{
    retnet *r = (retnet *)m;
    int d = m->width / r->heads, pairs = d / 2;
    nsm_rotary_config turn = { .heads = r->heads,
                               .size = d,
                               .side_by_side = true,
                               .offsets = s ? places(tape, s) : NULL,
                               .base = pairs > 1 ? (float)pow(10000, (double)pairs / (pairs - 1))
                                                 : 10000 };
    nsm_tensor *q = nsm_rotary(tape, nsm_linear(tape, x, r->q, NULL), &turn),
               *k = nsm_rotary(tape, nsm_linear(tape, x, r->k, NULL), &turn);
    nsm_tensor *v = nsm_linear(tape, x, r->v, NULL), *g = nsm_linear(tape, x, r->g, NULL);
    nsm_tensor *o = nsmi_carried_recurrence(tape, nsmi_split_heads(tape, q, r->heads),
                                            nsmi_split_heads(tape, k, r->heads),
                                            nsmi_split_heads(tape, v, r->heads),
                                            (nsm_recurrence_config){ .g = r->decay }, length, s,
                                            "kv");
    /* 0 behind a row's end */
    nsm_tensor *w = nsm_rsqrt(tape, nsm_scale(tape, weights(tape, r, x, length, s), 1, 1e-30f));
    o = nsm_rms_norm(tape, nsm_mul(tape, o, nsm_clamp(tape, w, 0, 1)), NULL, 1, r->norm_eps);
    return nsm_linear(tape, nsm_mul_silu(tape, nsmi_join_last(tape, o), g), r->out, NULL);
}

static int state(nsm_mixer *m, nsm_state *s)
{
    retnet *r = (retnet *)m;
    nsm_state_add(s, "kv", NSM_F32, 3,
                  (int64_t[]){ r->heads, m->width / r->heads, r->value_width / r->heads });
    nsm_state_add(s, "scale", NSM_F32, 3, (int64_t[]){ r->heads, 1, 1 });
    return nsm_error(m->module.ctx);
}

const nsm_mixer_type nsmi_mixer_retnet = {
    .name = "retnet",
    .about = "retention (arXiv:2307.08621)",
    .bytes = sizeof(retnet),
    .keys = keys,
    .sizes = "value_expand heads",
    .make = make,
    .clear = clear,
    .forward = forward,
    .state = state,
};
