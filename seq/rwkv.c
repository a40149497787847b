/* seq/rwkv.c - RWKV's time mixing: v4 (Peng et al., arXiv:2305.13048), v5 "Eagle" and v6 "Finch"
 * (arXiv:2404.05892), v7 "Goose" (arXiv:2503.14456).
 *
 * Each input is the token mixed with the one before, x_j = m x_t + (1 - m) x_{t-1}: a convolution
 *   of two taps. v4  y = W_o (sigmoid(r) * wkv), wkv by channel: the formula of nsm_wkv(), w =
 *   -exp(time_decay), u = time_first
 *   v5  S_t = Diag(a) S_{t-1} + k_t v_t',  o_t = S_{t-1}' r_t + (r_t . u k_t) v_t,  a =
 *       exp(-exp(time_decay)) by head and channel y = W_o (norm(o / divisor) * silu(g)), norm:
 *       layer norm of each head, then a weight and bias a channel
 *   v6  as v5 with a_t and the mixing of each token by low-rank maps of it; no divisor
 *   v7  S_t = Diag(a_t) S_{t-1} + b_t (S_{t-1}' c_t)' + k_t v_t',  o_t = S_t' r_t, the delta rule
 *       with c = -kk, b = kk eta; y = W_o ((norm(o) + (r . r_k k) v) * g)
 * In a model v7's later layers also take in the first layer's values (value_rank).
 * Parameters have the published checkpoints' names.
 * State: last [B, 1, d], the token before; v4 sums [B, 3, d]; the others s [B, H, N, N]. */
#include "config.h"
#include "seq/rwkv.h"

typedef struct {
    nsm_mixer base;
    int inner, heads, mix_rank, decay_rank, rate_rank, gate_rank, value_rank;
    float norm_eps, divisor;
    nsm_tensor *r, *k, *v, *g, *out, *decay, *bonus;
    nsm_tensor *mix[6];              /* of v4 k v r; v5 k v r g; v6 w k v r g; v7 r w k v a g */
    nsm_tensor *mix_x, *mix_w1, *mix_w2, *decay_w1, *decay_w2;      /* v6 */
    nsm_tensor *w0, *w1, *w2, *a0, *a1, *a2, *g1, *g2, *v0, *v1, *v2, *k_k, *k_a, *r_k; /* v7 */
    nsm_tensor *ln, *ln_bias;
    /* v7, of a model's first layer: what it computed last, until its last layer has run */
    nsm_tensor *values;
} rwkv;

/* ---- the token before ---- */

nsm_tensor *nsmi_token_mix(nsm_tape *tape, nsm_tensor *x, nsm_tensor *m, nsm_tensor *last,
                           nsm_tensor *length, nsm_tensor **next)
{
    nsm_tensor *own = m ? nsm_reshape(tape, m, 2, (int64_t[]){ -1, 1 }) : NULL;
    nsm_tensor *taps = own ? nsm_concat(tape, (nsm_tensor *[]){ nsm_scale(tape, own, -1, 1), own },
                                        2, 1)
                           : NULL;
    return nsm_conv1d(tape, x, taps, NULL, false, last, length, next);
}

nsm_tensor *nsmi_token_change(nsm_tape *tape, nsm_tensor *x, nsm_tensor *last, nsm_tensor *length,
                              nsm_tensor **next)
{
    nsm_tensor *one = nsm_tape_tensor(tape, NSM_F32, 2, (int64_t[]){ x->dim[2], 1 }, NULL);
    if (one) nsm_tensor_fill(one, 1);
    nsm_tensor *taps = nsm_concat(tape, (nsm_tensor *[]){ one, nsm_scale(tape, one, -1, 0) }, 2, 1);
    return nsm_conv1d(tape, x, taps, NULL, false, last, length, next);
}

/* ---- v4 ---- */
#define INNER_KEY KEY_INT(rwkv, inner, 0, 0, 65536, "width of the mixing (0: the model's)")
static const nsm_mixer_key keys4[] = { INNER_KEY, KEYS_END };

static int make4(nsm_mixer *m)
{
    rwkv *a = (rwkv *)m;
    if (!a->inner) a->inner = m->width;
    int64_t d = m->width, inner = a->inner;
    a->decay = nsmi_mixer_fill(m, "time_decay", 1, &inner, 0);
    nsm_init_uniform(a->decay, -5, 2);
    a->bonus = nsmi_mixer_fill(m, "time_first", 1, &inner, logf(0.3f));
    a->mix[0] = nsmi_mixer_fill(m, "time_mix_key", 1, &d, 0.5f);
    a->mix[1] = nsmi_mixer_fill(m, "time_mix_value", 1, &d, 0.5f);
    a->mix[2] = nsmi_mixer_fill(m, "time_mix_receptance", 1, &d, 0.5f);
    a->k = nsmi_mixer_linear(m, "key.weight", inner, d);
    a->v = nsmi_mixer_linear(m, "value.weight", inner, d);
    a->r = nsmi_mixer_linear(m, "receptance.weight", inner, d);
    a->out = nsmi_mixer_linear(m, "output.weight", d, inner);
    return nsm_error(m->module.ctx);
}

/* An empty sum: 0 / 0 at the scale e^-1e38. */
static const float nothing = -1e38f;

static int start4(nsm_mixer *m, nsm_state *s)
{
    nsm_tensor *sums = nsm_state_get(s, "sums");
    nsm_ctx *ctx = m->module.ctx;
    int64_t c = ((const rwkv *)m)->inner;
    for (int64_t b = 0; sums && b < s->batch; b++)
        ctx->dev.be->fill(&ctx->dev, c, nothing, sums->f32 + (b * 3 + 2) * c);
    return nsm_error(ctx);
}

static nsm_tensor *empty_sums(nsm_tape *tape, int64_t batch, int64_t c)
{
    nsm_ctx *ctx = nsm_tape_ctx(tape);
    nsm_tensor *s = nsm_tape_tensor(tape, NSM_F32, 3, (int64_t[]){ batch, 3, c }, NULL);
    if (s) nsm_tensor_zero(s);
    for (int64_t b = 0; s && b < batch; b++)
        ctx->dev.be->fill(&ctx->dev, c, nothing, s->f32 + (b * 3 + 2) * c);
    return s;
}

static nsm_tensor *forward4(nsm_tape *tape, nsm_mixer *m, nsm_tensor *x, nsm_tensor *length,
                            nsm_state *s)
{
    rwkv *a = (rwkv *)m;
    nsm_tensor *last = nsmi_begin(tape, s, "last"), *next = NULL,
               *sums = s ? nsmi_begin(tape, s, "sums") : empty_sums(tape, x->dim[0], a->inner);
    nsm_tensor *k = nsm_linear(tape, nsmi_token_mix(tape, x, a->mix[0], last, NULL, NULL), a->k,
                               NULL);
    nsm_tensor *v = nsm_linear(tape, nsmi_token_mix(tape, x, a->mix[1], last, NULL, NULL), a->v,
                               NULL);
    nsm_tensor *r = nsm_sigmoid(tape,
                                nsm_linear(tape,
                                           nsmi_token_mix(tape, x, a->mix[2], last, length, &next),
                                           a->r, NULL));
    nsmi_leave(s, "last", next); /* last is the part itself */
    nsm_tensor *y = nsm_wkv(tape, nsm_neg(tape, nsm_exp(tape, a->decay)), a->bonus, k, v, sums,
                            length, &next);
    nsmi_leave(s, "sums", next);
    return nsm_linear(tape, nsm_mul(tape, r, y), a->out, NULL);
}

static int state4(nsm_mixer *m, nsm_state *s)
{
    nsm_state_add(s, "last", NSM_F32, 2, (int64_t[]){ 1, m->width });
    nsm_state_add(s, "sums", NSM_F32, 2, (int64_t[]){ 3, ((const rwkv *)m)->inner });
    return nsm_error(m->module.ctx);
}

const nsm_mixer_type nsmi_mixer_rwkv4 = {
    .name = "rwkv4",
    .about = "RWKV-4's time mixing (arXiv:2305.13048)",
    .bytes = sizeof(rwkv),
    .keys = keys4,
    .make = make4,
    .forward = forward4,
    .state = state4,
    .start = start4,
};

/* ---- v5 and v6 ---- */
#define HEADS_KEY KEY_INT(rwkv, heads, 4, 1, 65536, "heads, a divisor of the width of the mixing")
static const nsm_mixer_key keys5[] = {
    INNER_KEY,
    HEADS_KEY,
    KEY_REAL(rwkv, norm_eps, 1e-5, 0, 1, "of the heads' norm"),
    KEY_REAL(rwkv, divisor, 8, 1e-3, 1e6, "of the heads before their norm"),
    KEYS_END
};
static const nsm_mixer_key keys6[] = {
    INNER_KEY,
    HEADS_KEY,
    KEY_REAL(rwkv, norm_eps, 64e-5, 0, 1, "of the heads' norm"),
    KEY_REAL(rwkv, divisor, 1, 1e-3, 1e6, "of the heads before their norm"),
    KEY_INT(rwkv, mix_rank, 32, 1, 65536, "rank of the mixing"),
    KEY_INT(rwkv, decay_rank, 64, 1, 65536, "rank of the decays"),
    KEYS_END
};

static int check_heads(nsm_mixer *m)
{
    rwkv *a = (rwkv *)m;
    if (!a->inner) a->inner = m->width;
    if (a->inner % a->heads == 0 && a->inner / a->heads <= 512) return NSM_OK;
    return nsm_error_set(m->module.ctx, NSM_EINVAL,
                         "%s: %d heads do not divide the width %d, or are larger than 512",
                         m->type->name, a->heads, a->inner);
}

/* What v5, v6 and v7 share. */
static void make_projections(nsm_mixer *m)
{
    rwkv *a = (rwkv *)m;
    int64_t d = m->width, inner = a->inner;
    a->r = nsmi_mixer_linear(m, "receptance.weight", inner, d);
    a->k = nsmi_mixer_linear(m, "key.weight", inner, d);
    a->v = nsmi_mixer_linear(m, "value.weight", inner, d);
    a->out = nsmi_mixer_linear(m, "output.weight", d, inner);
    a->ln = nsmi_mixer_fill(m, "ln_x.weight", 1, &inner, 1);
    a->ln_bias = nsmi_mixer_fill(m, "ln_x.bias", 1, &inner, 0);
}

static int make56(nsm_mixer *m, bool six)
{
    static const char *const five[] = { "time_mix_k", "time_mix_v", "time_mix_r", "time_mix_g" };
    static const char *const maa[] = { "time_maa_w", "time_maa_k", "time_maa_v", "time_maa_r",
                                       "time_maa_g" };
    rwkv *a = (rwkv *)m;
    if (check_heads(m)) return nsm_error(m->module.ctx);
    int64_t d = m->width, inner = a->inner, by_head[2] = { a->heads, inner / a->heads };
    for (int i = 0; i < (six ? 5 : 4); i++)
        a->mix[i] = nsmi_mixer_fill(m, six ? maa[i] : five[i], 1, &d, 0.5f);
    a->decay = nsmi_mixer_fill(m, "time_decay", six ? 1 : 2, six ? &inner : by_head, 0);
    nsm_init_uniform(a->decay, -6, 0);
    a->bonus = nsmi_mixer_fill(m, "time_faaaa", 2, by_head, 0.5f);
    a->g = nsmi_mixer_linear(m, "gate.weight", inner, d);
    if (six) {
        a->mix_x = nsmi_mixer_fill(m, "time_maa_x", 1, &d, 0.5f);
        a->mix_w1 = nsmi_mixer_linear(m, "time_maa_w1", d, 5 * (int64_t)a->mix_rank);
        a->mix_w2 = nsmi_mixer_fill(m, "time_maa_w2", 3, (int64_t[]){ 5, a->mix_rank, d }, 0);
        nsm_init_uniform(a->mix_w2, -0.01f, 0.01f);
        a->decay_w1 = nsmi_mixer_linear(m, "time_decay_w1", d, a->decay_rank);
        a->decay_w2 = nsmi_mixer_fill(m, "time_decay_w2", 2, (int64_t[]){ a->decay_rank, inner },
                                      0);
        nsm_init_uniform(a->decay_w2, -0.01f, 0.01f);
    }
    make_projections(m);
    return nsm_error(m->module.ctx);
}
static int make5(nsm_mixer *m) { return make56(m, false); }
static int make6(nsm_mixer *m) { return make56(m, true); }

/* x w for w [in, out], as these checkpoints store their low-rank maps */
static nsm_tensor *times(nsm_tape *tape, nsm_tensor *x, nsm_tensor *w)
{
    return x ? nsm_linear(tape, x, nsm_transpose(tape, w), NULL) : NULL;
}

/* Layer norm of each head, then the channels' weight and bias. */
static nsm_tensor *normed(nsm_tape *tape, rwkv *a, nsm_tensor *o)
{
    if (a->divisor != 1 && a->divisor > 0) o = nsm_scale(tape, o, 1 / a->divisor, 0);
    o = nsmi_join_last(tape, nsm_layer_norm(tape, o, NULL, NULL, 1, a->norm_eps));
    return nsm_add(tape, nsm_mul(tape, o, a->ln), a->ln_bias);
}

/* v6: x and its five mixtures, each with a share that the token itself says. */
static void mix6(nsm_tape *tape, rwkv *a, nsm_tensor *x, nsm_tensor *xx, nsm_tensor *to[5])
{
    nsm_tensor *z = nsm_tanh(tape,
                             times(tape, nsm_add(tape, x, nsm_mul(tape, xx, a->mix_x)), a->mix_w1));
    for (int i = 0; i < 5; i++) {
        nsm_tensor *w2 = nsm_slice(tape, a->mix_w2, 0, i, 1),
                   *part = nsm_slice(tape, z, 2, (int64_t)i * a->mix_rank, a->mix_rank);
        if (w2) w2 = nsm_reshape(tape, w2, 2, w2->dim + 1);
        nsm_tensor *share = nsm_add(tape, times(tape, part, w2), a->mix[i]);
        to[i] = nsm_add(tape, x, nsm_mul(tape, xx, share));
    }
}

static nsm_tensor *forward56(nsm_tape *tape, nsm_mixer *m, nsm_tensor *x, nsm_tensor *length,
                             nsm_state *s)
{
    rwkv *a = (rwkv *)m;
    nsm_tensor *last = nsmi_begin(tape, s, "last"), *next = NULL,
               *xx = nsmi_token_change(tape, x, last, length, &next), *in[5], *w = a->decay;
    if (a->mix_x) mix6(tape, a, x, xx, in);
    else
        for (int i = 0; i < 4; i++)
            in[i + 1] = nsmi_token_mix(tape, x, a->mix[i], last, NULL, NULL);
    nsmi_leave(s, "last", next);
    if (a->mix_x)
        w = nsm_add(tape, times(tape, nsm_tanh(tape, times(tape, in[0], a->decay_w1)), a->decay_w2),
                    a->decay);
    nsm_tensor *g = nsm_neg(tape, nsm_exp(tape, w));
    if (a->mix_x) g = nsmi_split_heads(tape, g, a->heads);
    nsm_tensor *k = nsmi_split_heads(tape, nsm_linear(tape, in[1], a->k, NULL), a->heads);
    nsm_tensor *v = nsmi_split_heads(tape, nsm_linear(tape, in[2], a->v, NULL), a->heads);
    nsm_tensor *r = nsmi_split_heads(tape, nsm_linear(tape, in[3], a->r, NULL), a->heads);
    if (!g) return NULL;
    nsm_tensor *o = nsmi_carried_recurrence(
        tape, r, k, v,
        (nsm_recurrence_config){ .scale = 1, .g = g, .before = true, .bonus = a->bonus }, length, s,
        "s");
    nsm_tensor *gate = nsm_linear(tape, in[4], a->g, NULL);
    return nsm_linear(tape, nsm_mul_silu(tape, normed(tape, a, o), gate), a->out, NULL);
}

static int state_of_heads(nsm_mixer *m, nsm_state *s)
{
    const rwkv *a = (const rwkv *)m;
    int64_t n = a->inner / a->heads;
    nsm_state_add(s, "last", NSM_F32, 2, (int64_t[]){ 1, m->width });
    nsm_state_add(s, "s", NSM_F32, 3, (int64_t[]){ a->heads, n, n });
    return nsm_error(m->module.ctx);
}

const nsm_mixer_type nsmi_mixer_rwkv5 = {
    .name = "rwkv5",
    .about = "RWKV-5's time mixing (arXiv:2404.05892)",
    .bytes = sizeof(rwkv),
    .keys = keys5,
    .sizes = "heads",
    .make = make5,
    .forward = forward56,
    .state = state_of_heads,
};
const nsm_mixer_type nsmi_mixer_rwkv6 = {
    .name = "rwkv6",
    .about = "RWKV-6's time mixing (arXiv:2404.05892)",
    .bytes = sizeof(rwkv),
    .keys = keys6,
    .sizes = "heads",
    .make = make6,
    .forward = forward56,
    .state = state_of_heads,
};

/* ---- v7 ---- */
static const nsm_mixer_key keys7[] = {
    HEADS_KEY,
    KEY_REAL(rwkv, norm_eps, 64e-5, 0, 1, "of the heads' norm"),
    KEY_INT(rwkv, decay_rank, 64, 1, 65536, "rank of the decays"),
    KEY_INT(rwkv, rate_rank, 64, 1, 65536, "rank of the learning rates"),
    KEY_INT(rwkv, gate_rank, 128, 1, 65536, "rank of the gate"),
    KEY_INT(rwkv, value_rank, 0, 0, 65536,
            "rank of a later layer's mixing with the first one's values (0: none)"),
    KEYS_END
};

static nsm_tensor *low_rank(nsm_mixer *m, const char *name, int64_t rows, int64_t cols, bool small)
{
    nsm_tensor *w = nsmi_mixer_linear(m, name, rows, cols);
    if (small) nsm_init_uniform(w, -0.1f, 0.1f);
    return w;
}

static int make7(nsm_mixer *m)
{
    static const char *const mix[] = { "x_r", "x_w", "x_k", "x_v", "x_a", "x_g" };
    rwkv *a = (rwkv *)m;
    int64_t d = m->width;
    if (check_heads(m)) return nsm_error(m->module.ctx);
    for (int i = 0; i < 6; i++) a->mix[i] = nsmi_mixer_fill(m, mix[i], 1, &d, 0.5f);
    a->w0 = nsmi_mixer_fill(m, "w0", 1, &d, 0);
    nsm_init_uniform(a->w0, -6, 0);
    a->w1 = low_rank(m, "w1", d, a->decay_rank, false);
    a->w2 = low_rank(m, "w2", a->decay_rank, d, true);
    a->a0 = nsmi_mixer_fill(m, "a0", 1, &d, 0);
    a->a1 = low_rank(m, "a1", d, a->rate_rank, false);
    a->a2 = low_rank(m, "a2", a->rate_rank, d, true);
    a->g1 = low_rank(m, "g1", d, a->gate_rank, false);
    a->g2 = low_rank(m, "g2", a->gate_rank, d, true);
    if (m->layer == 0) a->value_rank = 0;
    if (a->value_rank) {
        a->v0 = nsmi_mixer_fill(m, "v0", 1, &d, 1);
        a->v1 = low_rank(m, "v1", d, a->value_rank, false);
        a->v2 = low_rank(m, "v2", a->value_rank, d, true);
    }
    a->k_k = nsmi_mixer_fill(m, "k_k", 1, &d, 0.85f);
    a->k_a = nsmi_mixer_fill(m, "k_a", 1, &d, 1);
    a->r_k = nsmi_mixer_fill(m, "r_k", 2, (int64_t[]){ a->heads, m->width / a->heads }, 0);
    make_projections(m);
    return nsm_error(m->module.ctx);
}

/* v, or with the first layer's values: v + (first - v) sigmoid(v0 + x v1 v2) */
static nsm_tensor *values_of(nsm_tape *tape, rwkv *a, nsm_tensor *x, nsm_tensor **first)
{
    nsm_tensor *v = nsm_linear(tape, x, a->v, NULL);
    if (!a->value_rank) {
        *first = v;
        return v;
    }
    if (!*first) {
        nsm_error_set(nsm_tape_ctx(tape), NSM_EINVAL,
                      "rwkv7: a layer with value_rank takes the first layer's values");
        return NULL;
    }
    nsm_tensor *share = nsm_sigmoid(tape, nsm_add(tape, times(tape, times(tape, x, a->v1), a->v2),
                                                  a->v0));
    return nsm_add(tape, v, nsm_mul(tape, nsm_sub(tape, *first, v), share));
}

nsm_tensor *nsmi_rwkv7(nsm_tape *tape, nsm_mixer *m, nsm_tensor *x, nsm_tensor **first,
                       nsm_tensor *length, nsm_state *s)
{
    rwkv *a = (rwkv *)m;
    nsm_tensor *last = nsmi_begin(tape, s, "last"), *next = NULL,
               *xx = nsmi_token_change(tape, x, last, length, &next), *in[6];
    nsmi_leave(s, "last", next);
    for (int i = 0; i < 6; i++) in[i] = nsm_add(tape, x, nsm_mul(tape, xx, a->mix[i]));
    nsm_tensor *r = nsm_linear(tape, in[0], a->r, NULL), *k = nsm_linear(tape, in[2], a->k, NULL),
               *v = values_of(tape, a, in[3], first);
    nsm_tensor *w = nsm_add(tape, times(tape, nsm_tanh(tape, times(tape, in[1], a->w1)), a->w2),
                            a->w0);
    /* -exp(-softplus(-w) - 1/2) */
    nsm_tensor *g = nsm_scale(tape, nsm_sigmoid(tape, w), -expf(-0.5f), 0);
    nsm_tensor *rate = nsm_sigmoid(tape,
                                   nsm_add(tape, times(tape, times(tape, in[4], a->a1), a->a2),
                                           a->a0));
    nsm_tensor *gate = times(tape, nsm_sigmoid(tape, times(tape, in[5], a->g1)), a->g2);
    nsm_tensor *kk = nsm_normalize(tape, nsmi_split_heads(tape, nsm_mul(tape, k, a->k_k), a->heads),
                                   1e-12f);
    k = nsm_mul(tape, k,
                nsm_scale(tape, nsm_mul(tape, nsm_scale(tape, rate, 1, -1), a->k_a), 1, 1));
    r = nsmi_split_heads(tape, r, a->heads);
    k = nsmi_split_heads(tape, k, a->heads);
    v = nsmi_split_heads(tape, v, a->heads);
    nsm_recurrence_config c = { .scale = 1,
                                .g = nsmi_split_heads(tape, g, a->heads),
                                .a = nsm_neg(tape, kk),
                                .b = nsm_mul(tape, kk, nsmi_split_heads(tape, rate, a->heads)) };
    if (!c.b) return NULL;
    nsm_tensor *o = normed(tape, a, nsmi_carried_recurrence(tape, r, k, v, c, length, s, "s"));
    /* [B,n,H,1] */
    nsm_tensor *own = nsm_sum(tape, nsm_mul(tape, nsm_mul(tape, r, k), a->r_k), -1, true);
    o = nsm_add(tape, o, nsmi_join_last(tape, nsm_mul(tape, v, own)));
    return nsm_linear(tape, nsm_mul(tape, o, gate), a->out, NULL);
}

static nsm_tensor *forward7(nsm_tape *tape, nsm_mixer *m, nsm_tensor *x, nsm_tensor *length,
                            nsm_state *s)
{
    rwkv *lead = (rwkv *)m->first;
    nsm_tensor *first = m->layer ? lead->values : NULL,
               *y = nsmi_rwkv7(tape, m, x, &first, length, s);
    lead->values = m->layer + 1 < m->layers ? first : NULL;
    return y;
}

const nsm_mixer_type nsmi_mixer_rwkv7 = {
    .name = "rwkv7",
    .about = "RWKV-7's time mixing (arXiv:2503.14456)",
    .bytes = sizeof(rwkv),
    .keys = keys7,
    .sizes = "heads",
    .make = make7,
    .forward = forward7,
    .state = state_of_heads,
};
