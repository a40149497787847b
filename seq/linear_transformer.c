/* seq/linear_transformer.c - Linear attention (Katharopoulos et al., arXiv:2006.16236), eq. 9:
 *
 *   y_i = phi(q_i) sum over j of phi(k_j) v_j' / (phi(q_i) . sum over j of phi(k_j) + eps),   phi =
 *   elu + 1
 *
 * over j <= i, or, not causal, over all j.  The denominator is one more column of the values: ones.
 * Letters: H heads, D, E sizes of keys and values.
 * Parameters: {query,key,value,out}_projection.{weight,bias}.
 * State: sums [B, H, D, E + 1].  Cost: O(n H D E). */
#include "config.h"
#include "seq/carried.h"

typedef struct {
    nsm_mixer base;
    int heads, key_dim, value_dim;
    bool causal;
    float eps;
    nsm_tensor *q, *qb, *k, *kb, *v, *vb, *out, *out_bias;
} linear_transformer;

static const nsm_mixer_key keys[] = {
    KEY_INT(linear_transformer, heads, 4, 1, 65536, "heads"),
    KEY_INT(linear_transformer, key_dim, 0, 0, 512, "size of a key (0: width / heads)"),
    KEY_INT(linear_transformer, value_dim, 0, 0, 511, "size of a value (0: width / heads)"),
    KEY_BOOL(linear_transformer, causal, true, "a token sees no later one"),
    KEY_REAL(linear_transformer, eps, 1e-6, 0, 1, "added to the denominator"),
    KEYS_END
};

static int make(nsm_mixer *m)
{
    linear_transformer *t = (linear_transformer *)m;
    int size = m->width % t->heads ? 0 : m->width / t->heads;
    if (!t->key_dim) t->key_dim = size;
    if (!t->value_dim) t->value_dim = size;
    if (!t->key_dim || !t->value_dim)
        return nsm_error_set(m->module.ctx, NSM_EINVAL,
                             "linear_transformer: %d heads do not divide the width %d", t->heads,
                             m->width);
    int64_t d = (int64_t)t->heads * t->key_dim, e = (int64_t)t->heads * t->value_dim;
    m->two_way = !t->causal;
    m->unordered = true;
    t->q = nsmi_mixer_linear(m, "query_projection.weight", d, m->width);
    t->qb = nsmi_mixer_fill(m, "query_projection.bias", 1, &d, 0);
    t->k = nsmi_mixer_linear(m, "key_projection.weight", d, m->width);
    t->kb = nsmi_mixer_fill(m, "key_projection.bias", 1, &d, 0);
    t->v = nsmi_mixer_linear(m, "value_projection.weight", e, m->width);
    t->vb = nsmi_mixer_fill(m, "value_projection.bias", 1, &e, 0);
    t->out = nsmi_mixer_linear(m, "out_projection.weight", m->width, e);
    t->out_bias = nsmi_mixer_fill(m, "out_projection.bias", 1, (int64_t[]){ m->width }, 0);
    return nsm_error(m->module.ctx);
}

/* sums [B,n,H,E+1] -> the last column divides the others */
static nsm_tensor *divide(nsm_tape *tape, nsm_tensor *sums, float eps)
{
    if (!sums) return NULL;
    int64_t e = sums->dim[3] - 1;
    return nsm_div(tape, nsm_slice(tape, sums, 3, 0, e),
                   nsm_scale(tape, nsm_slice(tape, sums, 3, e, 1), 1, eps));
}

static nsm_tensor *features(nsm_tape *tape, nsm_tensor *x)
{
    return nsm_scale(tape, nsm_elu(tape, x, 1), 1, 1);
}

nsm_tensor *nsmi_linear_attention(nsm_tape *tape, nsm_tensor *q, nsm_tensor *k, nsm_tensor *v,
                                  bool causal, float eps, nsm_tensor *mask, nsm_tensor **sums)
{
    if (!q || !k || !v) return NULL;
    nsm_tensor *one = nsm_tape_tensor(tape, NSM_F32, 4,
                                      (int64_t[]){ v->dim[0], v->dim[1], v->dim[2], 1 }, NULL),
               *last = NULL;
    if (one) nsm_tensor_fill(one, 1);
    nsm_tensor *wide = nsm_concat(tape, (nsm_tensor *[]){ v, one }, 2, 3);
    q = features(tape, q);
    k = features(tape, k);
    if (mask) k = nsm_mul(tape, k, mask);
    nsm_recurrence_config c = { .scale = 1, .state = sums ? *sums : NULL };
    nsm_tensor *y = nsm_linear_recurrence(tape, causal ? q : k, k, wide, &c, &last);
    if (sums) *sums = last;
    if (!causal) {
        y = nsm_bmm(tape, nsm_permute(tape, q, (const int[]){ 0, 2, 1, 3 }), last, false, false);
        y = nsm_permute(tape, y, (const int[]){ 0, 2, 1, 3 });
    }
    return divide(tape, y, eps);
}

/* 1 for keys that are there, 0 behind a row's end: [B,n,1,1], of the running count of tokens, which
 * is 0 behind it.  A query behind it reads those that are. */
static nsm_tensor *keys_there(nsm_tape *tape, nsm_tensor *length, int64_t n)
{
    nsm_tensor *one = nsm_tape_tensor(tape, NSM_F32, 4, (int64_t[]){ length->dim[0], n, 1, 1 },
                                      NULL);
    if (one) nsm_tensor_fill(one, 1);
    nsm_recurrence_config c = { .scale = 1, .length = length };
    return nsm_clamp(tape, nsm_linear_recurrence(tape, one, one, one, &c, NULL), 0, 1);
}

nsm_tensor *nsmi_linear_transformer(nsm_tape *tape, nsm_mixer *m, nsm_tensor *x, nsm_tensor *length,
                                    nsm_tensor **sums)
{
    linear_transformer *t = (linear_transformer *)m;
    nsm_tensor *there = length ? keys_there(tape, length, x->dim[1]) : NULL;
    if (length && !there) return NULL;
    nsm_tensor *y = nsmi_linear_attention(
        tape, nsmi_split_heads(tape, nsm_linear(tape, x, t->q, t->qb), t->heads),
        nsmi_split_heads(tape, nsm_linear(tape, x, t->k, t->kb), t->heads),
        nsmi_split_heads(tape, nsm_linear(tape, x, t->v, t->vb), t->heads), t->causal, t->eps,
        there, sums);
    return nsm_linear(tape, nsmi_join_last(tape, y), t->out, t->out_bias);
}

static nsm_tensor *forward(nsm_tape *tape, nsm_mixer *m, nsm_tensor *x, nsm_tensor *length,
                           nsm_state *s)
{
    nsm_tensor *sums = nsmi_begin(tape, s, "sums"),
               *y = nsmi_linear_transformer(tape, m, x, length, &sums);
    nsmi_leave(s, "sums", sums);
    return y;
}

static int state(nsm_mixer *m, nsm_state *s)
{
    linear_transformer *t = (linear_transformer *)m;
    nsm_state_add(s, "sums", NSM_F32, 3, (int64_t[]){ t->heads, t->key_dim, t->value_dim + 1 });
    return nsm_error(m->module.ctx);
}

const nsm_mixer_type nsmi_mixer_linear_transformer = {
    .name = "linear_transformer",
    .about = "linear attention with elu + 1 (arXiv:2006.16236)",
    .bytes = sizeof(linear_transformer),
    .keys = keys,
    .sizes = "key_dim value_dim",
    .make = make,
    .forward = forward,
    .state = state,
};
