/* seq/deltanet.c - DeltaNet (Yang et al., arXiv:2406.06484) and Gated DeltaNet (Yang et al.,
 * arXiv:2412.06464).
 *
 *   S_t = a_t S_{t-1} + beta_t k_t (v_t - a_t S_{t-1}' k_t)'    o_t = S_t' q_t / sqrt(D)
 *   beta = sigmoid(x W_b^T) (times 2 with negative);  log a = -exp(A_log) softplus(x W_a^T +
 *   dt_bias), 0 where not gated
 *   y = (norm(o) * silu(g)) W_o^T, the factor silu(g) with `gate`
 *
 * q, k, v come through short causal convolutions with SiLU; q and k are of unit length.
 * Letters: H heads of q and k, V of v (V a multiple of H), D, E sizes of keys and values, c taps.
 * Parameters: {q,k,v,b,o}_proj.weight, {q,k,v}_conv1d.weight [C, 1, c], o_norm.weight [E];
 * g_proj.weight with gate; a_proj.weight, A_log, dt_bias [V] where gated.
 * State: s [B, V, D, E]; conv_q, conv_k, conv_v [B, c-1, C]. */
#include "config.h"
#include "seq/carried.h"

typedef struct {
    nsm_mixer base;
    int heads, v_heads, head_dim, conv_size;
    float expand_k, expand_v, norm_eps;
    bool gate, negative, gated;
    int e;
    nsm_tensor *q, *k, *v, *b, *g, *a, *a_log, *dt_bias, *cq, *ck, *cv, *norm, *out;
} deltanet;

#define CONV_KEY KEY_INT(deltanet, conv_size, 4, 1, 32, "taps of the short convolutions")
#define NORM_KEY KEY_REAL(deltanet, norm_eps, 1e-5, 0, 1, "of the heads' norm")
#define NEGATIVE_KEY KEY_BOOL(deltanet, negative, false, "beta up to 2: eigenvalues down to -1")
static const nsm_mixer_key keys[] = {
    KEY_INT(deltanet, heads, 4, 1, 65536, "heads"),
    KEY_REAL(deltanet, expand_k, 1, 0.001, 64, "width of the keys / width"),
    KEY_REAL(deltanet, expand_v, 1, 0.001, 64, "width of the values / width"),
    KEY_BOOL(deltanet, gate, false, "the output gate"),
    CONV_KEY, NORM_KEY, NEGATIVE_KEY, KEYS_END
};
static const nsm_mixer_key gated_keys[] = {
    KEY_INT(deltanet, heads, 4, 1, 65536, "heads of queries and keys"),
    KEY_INT(deltanet, v_heads, 0, 0, 65536, "heads of values, a multiple of heads (0: heads)"),
    KEY_INT(deltanet, head_dim, 0, 0, 512, "size of a key (0: width / heads)"),
    KEY_REAL(deltanet, expand_v, 2, 0.001, 64, "size of a value / size of a key"),
    KEY_BOOL(deltanet, gate, true, "the output gate"),
    CONV_KEY, NORM_KEY, NEGATIVE_KEY, KEYS_END
};

/* Sizes of keys and values of a head; 0 where they do not come out. */
static void find_sizes(deltanet *n, int width)
{
    if (n->gated) {
        if (!n->head_dim) n->head_dim = width % n->heads ? 0 : width / n->heads;
        n->e = (int)lround((double)n->head_dim * (double)n->expand_v);
        return;
    }
    int wk = (int)lround((double)width * (double)n->expand_k),
        wv = (int)lround((double)width * (double)n->expand_v);
    n->head_dim = wk % n->heads ? 0 : wk / n->heads;
    n->e = wv % n->heads ? 0 : wv / n->heads;
}

static int make_any(nsm_mixer *m, bool gated)
{
    deltanet *n = (deltanet *)m;
    n->gated = gated;
    if (!n->v_heads) n->v_heads = n->heads;
    find_sizes(n, m->width);
    if (n->head_dim < 1 || n->e < 1 || n->head_dim > 512 || n->e > 512 || n->v_heads % n->heads)
        return nsm_error_set(
            m->module.ctx, NSM_EINVAL,
            "%s: width is %d, heads %d, v_heads %d: sizes of a head %d and %d do not fit",
            m->type->name, m->width, n->heads, n->v_heads, n->head_dim, n->e);
    int64_t wk = (int64_t)n->heads * n->head_dim, wv = (int64_t)n->v_heads * n->e, e = n->e,
            v = n->v_heads;
    n->q = nsmi_mixer_linear(m, "q_proj.weight", wk, m->width);
    n->k = nsmi_mixer_linear(m, "k_proj.weight", wk, m->width);
    n->v = nsmi_mixer_linear(m, "v_proj.weight", wv, m->width);
    n->b = nsmi_mixer_linear(m, "b_proj.weight", v, m->width);
    n->cq = nsmi_mixer_linear(m, "q_conv1d.weight", wk, n->conv_size);
    n->ck = nsmi_mixer_linear(m, "k_conv1d.weight", wk, n->conv_size);
    n->cv = nsmi_mixer_linear(m, "v_conv1d.weight", wv, n->conv_size);
    if (n->gate) n->g = nsmi_mixer_linear(m, "g_proj.weight", wv, m->width);
    if (gated) {
        n->a = nsmi_mixer_linear(m, "a_proj.weight", v, m->width);
        n->a_log = nsmi_mixer_fill(m, "A_log", 1, &v, 0);
        nsm_init_uniform(n->a_log, 0, logf(16)); /* A in 1..16 */
        n->dt_bias = nsmi_mixer_fill(m, "dt_bias", 1, &v, -4); /* softplus: 0.02 */
    }
    n->norm = nsmi_mixer_fill(m, "o_norm.weight", 1, &e, 1);
    n->out = nsmi_mixer_linear(m, "o_proj.weight", m->width, wv);
    return nsm_error(m->module.ctx);
}
static int make(nsm_mixer *m) { return make_any(m, false); }
static int make_gated(nsm_mixer *m) { return make_any(m, true); }

/* log a [B, n, V] */
static nsm_tensor *log_decay(nsm_tape *tape, deltanet *n, nsm_tensor *x)
{
    nsm_tensor *dt = nsm_softplus(tape, nsm_linear(tape, x, n->a, n->dt_bias), 1, 20);
    return nsm_mul(tape, dt, nsm_neg(tape, nsm_exp(tape, n->a_log)));
}

static nsm_tensor *forward(nsm_tape *tape, nsm_mixer *m, nsm_tensor *x, nsm_tensor *length,
                           nsm_state *s)
{
    deltanet *n = (deltanet *)m;
    nsm_tensor *q = nsmi_carried_conv(tape, nsm_linear(tape, x, n->q, NULL), n->cq, NULL, true,
                                      length, s, "conv_q");
    nsm_tensor *k = nsmi_carried_conv(tape, nsm_linear(tape, x, n->k, NULL), n->ck, NULL, true,
                                      length, s, "conv_k");
    nsm_tensor *v = nsmi_carried_conv(tape, nsm_linear(tape, x, n->v, NULL), n->cv, NULL, true,
                                      length, s, "conv_v");
    nsm_tensor *beta = nsm_sigmoid(tape, nsm_linear(tape, x, n->b, NULL));
    if (n->negative) beta = nsm_scale(tape, beta, 2, 0);
    q = nsmi_unit_length(tape, nsmi_split_heads(tape, q, n->heads), 1e-6f);
    k = nsmi_unit_length(tape, nsmi_split_heads(tape, k, n->heads), 1e-6f);
    nsm_recurrence_config c = { .beta = beta, .g = n->gated ? log_decay(tape, n, x) : NULL };
    if (n->gated && !c.g) return NULL;
    nsm_tensor *o = nsmi_carried_recurrence(tape, q, k, nsmi_split_heads(tape, v, n->v_heads), c,
                                            length, s, "s");
    o = nsmi_join_last(tape, nsm_rms_norm(tape, o, n->norm, 1, n->norm_eps));
    if (n->gate) o = nsm_mul_silu(tape, o, nsm_linear(tape, x, n->g, NULL));
    return nsm_linear(tape, o, n->out, NULL);
}

static int state(nsm_mixer *m, nsm_state *s)
{
    deltanet *n = (deltanet *)m;
    int64_t wk = (int64_t)n->heads * n->head_dim, wv = (int64_t)n->v_heads * n->e;
    nsm_state_add(s, "s", NSM_F32, 3, (int64_t[]){ n->v_heads, n->head_dim, n->e });
    nsmi_add_conv(s, "conv_q", n->conv_size, wk);
    nsmi_add_conv(s, "conv_k", n->conv_size, wk);
    nsmi_add_conv(s, "conv_v", n->conv_size, wv);
    return nsm_error(m->module.ctx);
}

const nsm_mixer_type nsmi_mixer_deltanet = {
    .name = "deltanet",
    .about = "the delta rule over unit keys (arXiv:2406.06484)",
    .bytes = sizeof(deltanet),
    .keys = keys,
    .sizes = "expand_k expand_v",
    .make = make,
    .forward = forward,
    .state = state,
};
const nsm_mixer_type nsmi_mixer_gated_deltanet = {
    .name = "gated_deltanet",
    .about = "the delta rule with decay (arXiv:2412.06464)",
    .bytes = sizeof(deltanet),
    .keys = gated_keys,
    .sizes = "head_dim expand_v",
    .make = make_gated,
    .forward = forward,
    .state = state,
};
