/* seq/transformer.c - Attention (Vaswani et al., arXiv:1706.03762), multi-head or with fewer heads
 * of keys and values (Ainslie et al., arXiv:2305.13245), causal or not.
 *
 *   q, k, v = x W_qkv^T (+ b), q and k turned by position with `rotary` (Su et al.,
 *   arXiv:2104.09864)
 *   y       = softmax(q k^T / sqrt(D)) v W_out^T (+ b)
 *
 * Letters: H heads, G heads of keys and values, D size of a head.
 * Parameters: qkv.weight [(H+2G)*D, d], rows of q first, then k, then v; out.weight [d, H*D];
 * biases.
 * State: k, v [B, tokens, G*D], keys already turned: it grows with the sequence.
 * Cost: O(n^2 d) time, O(n d) memory. */
#include "config.h"
#include "seq/internal.h"

typedef struct {
    nsm_mixer base;
    int heads, kv_heads, head_dim, window;
    bool causal, rotary, bias;
    float rotary_base;
    nsm_tensor *qkv, *qkv_bias, *out, *out_bias;
    bool watch;
    nsm_tensor *seen;      /* qkv of the last watched forward, turned */
} transformer;

static const nsm_mixer_key keys[] = {
    KEY_INT(transformer, heads, 4, 1, 65536, "heads of queries"),
    KEY_INT(transformer, kv_heads, 0, 0, 65536,
            "heads of keys and values, a divisor of heads (0: heads)"),
    KEY_INT(transformer, head_dim, 0, 0, 65536, "size of a head (0: width / heads)"),
    KEY_INT(transformer, window, 0, 0, 1 << 30,
            "how many tokens back are seen, itself among them (0: all)"),
    KEY_BOOL(transformer, causal, true, "a token sees no later one"),
    KEY_BOOL(transformer, rotary, false, "positions by turning queries and keys"),
    KEY_REAL(transformer, rotary_base, 10000, 1, 1e30, "of the angles"),
    KEY_BOOL(transformer, bias, true, "biases in the projections"),
    KEYS_END
};

static int make(nsm_mixer *m)
{
    transformer *t = (transformer *)m;
    if (!t->kv_heads) t->kv_heads = t->heads;
    if (!t->head_dim) t->head_dim = m->width % t->heads ? 0 : m->width / t->heads;
    if (!t->head_dim || t->heads % t->kv_heads || (t->rotary && t->head_dim % 2))
        return nsm_error_set(m->module.ctx, NSM_EINVAL,
                             "transformer: width is %d, heads %d, kv_heads %d, head_dim %d; want "
                             "heads that divide the width, "
                             "kv_heads that divide heads, and an even head_dim with rotary",
                             m->width, t->heads, t->kv_heads, t->head_dim);
    int64_t rows = (int64_t)(t->heads + 2 * t->kv_heads) * t->head_dim,
            inner = (int64_t)t->heads * t->head_dim;
    m->two_way = !t->causal;
    m->unordered = !t->rotary;
    t->qkv = nsmi_mixer_linear(m, "qkv.weight", rows, m->width);
    if (t->bias) t->qkv_bias = nsmi_mixer_fill(m, "qkv.bias", 1, &rows, 0);
    t->out = nsmi_mixer_linear(m, "out.weight", m->width, inner);
    if (t->bias) t->out_bias = nsmi_mixer_fill(m, "out.bias", 1, (int64_t[]){ m->width }, 0);
    return nsm_error(m->module.ctx);
}

/* ---- with a state ---- */
/* Where the rows of a call go: by row where they differ. */
typedef struct { bool ragged; nsm_tensor *offsets; } places;

static const int64_t *places_of(nsm_tape *tape, const nsm_state *s, places *p)
{
    nsm_ctx *ctx = s->ctx;
    int64_t *at = nsmi_tape_room(tape, (size_t)s->batch * sizeof *at);
    if (!at || nsm_tensor_get(s->seen, at)) return NULL;
    for (int64_t b = 0; b < s->batch; b++) p->ragged |= at[b] != s->tokens;
    if (!p->ragged) return at;
    p->offsets = nsm_tape_tensor(tape, NSM_I32, 1, &s->batch, NULL);
    for (int64_t b = 0; p->offsets && b < s->batch; b++) {
        int32_t place = (int32_t)at[b];
        ctx->dev.be->to_device(&ctx->dev, sizeof place, &place, p->offsets->i32 + b);
    }
    return at;
}

/* x [B, n, C] behind the tokens that the part holds; without gradients that is all. */
static void store(nsm_state *s, const char *name, const nsm_tensor *x, const int64_t *at)
{
    nsm_tensor *part = nsm_state_get(s, name);
    int64_t n = x->dim[1], c = x->dim[2];
    for (int64_t b = 0; b < s->batch; b++)
        s->ctx->dev.be->copy(&s->ctx->dev, (size_t)(n * c) * sizeof(float), x->f32 + b * n * c,
                             part->f32 + (b * part->dim[1] + at[b]) * c);
}

/* The keys (or values) seen by these tokens: [B, tokens or more, G, D]. */
static nsm_tensor *extend(nsm_tape *tape, transformer *t, nsm_state *s, const char *name,
                          nsm_tensor *x, const int64_t *at)
{
    nsm_tensor *all = NULL;
    if (!x) return NULL;
    if (nsm_tape_training(tape)) {
        /* a copy: store() writes the part */
        nsm_tensor *old = nsm_slice(tape, nsm_state_get(s, name), 1, 0, s->tokens);
        all = nsm_append(tape, old, x, at);
    }
    store(s, name, x, at);
    return nsmi_split_heads(tape, nsm_tape_training(tape) ? all : nsm_state_get(s, name),
                            t->kv_heads);
}

static nsm_tensor *attend_on(nsm_tape *tape, transformer *t, nsm_tensor *qkv, nsm_state *s,
                             const int64_t *at, const places *p)
{
    int64_t n = qkv->dim[1], d = t->head_dim;
    if (nsm_state_reserve(s, s->tokens + n)) return NULL;
    nsm_tensor *part[3];
    nsm_split(tape, qkv, 2, 3,
              (int64_t[]){ t->heads * d, t->kv_heads * d, t->kv_heads * d }, part);
    nsm_tensor *k = extend(tape, t, s, "k", part[1], at), *v = extend(tape, t, s, "v", part[2], at);
    nsm_tensor *y = nsm_dot_attention(tape, nsmi_split_heads(tape, part[0], t->heads), k, v,
                                      &(nsm_dot_attention_config){ .causal = true,
                                                                   .window = t->window,
                                                                   .keys = s->tokens + n,
                                                                   .offset = s->tokens,
                                                                   .offsets = p->offsets });
    return nsmi_join_last(tape, y);
}

/* What flow() needs of a forward. */
static void keep(transformer *t, const nsm_tensor *qkv)
{
    nsm_tensor_free(t->seen);
    t->seen = nsm_tensor_new(qkv->ctx, NSM_F32, 3, qkv->dim);
    if (t->seen) nsm_tensor_copy(t->seen, qkv);
}

static nsm_tensor *forward(nsm_tape *tape, nsm_mixer *m, nsm_tensor *x, nsm_tensor *length,
                           nsm_state *s)
{
    transformer *t = (transformer *)m;
    places p = { 0 };
    const int64_t *at = s ? places_of(tape, s, &p) : NULL;
    nsm_tensor *qkv = nsm_linear(tape, x, t->qkv, t->qkv_bias); /* [B, n, (H+2G)*D] */
    if (t->rotary)
        qkv = nsm_rotary(tape, qkv,
                         &(nsm_rotary_config){ .heads = t->heads + t->kv_heads,
                                               .size = t->head_dim,
                                               .base = t->rotary_base,
                                               .offset = s ? s->tokens : 0,
                                               .offsets = p.offsets });
    if (t->watch && qkv) keep(t, qkv);
    nsm_tensor *y = NULL; /* causal attention never looks behind a row's end */
    if (s && !nsm_state_get(s, "k")) {
        nsm_error_set(m->module.ctx, NSM_EINVAL, "transformer: the state is of another mixer");
        return NULL;
    }
    if (s) y = at && qkv ? attend_on(tape, t, qkv, s, at, &p) : NULL;
    else
        y = nsm_dot_attention_packed(tape, qkv, t->heads, t->kv_heads,
                                     &(nsm_dot_attention_config){
                                         .causal = t->causal,
                                         .window = t->window,
                                         .key_length = t->causal ? NULL : length });
    return nsm_linear(tape, y, t->out, t->out_bias);
}

static int state(nsm_mixer *m, nsm_state *s)
{
    transformer *t = (transformer *)m;
    int64_t c = (int64_t)t->kv_heads * t->head_dim;
    nsm_state_add_growing(s, "k", NSM_F32, 1, &c);
    nsm_state_add_growing(s, "v", NSM_F32, 1, &c);
    return nsm_error(m->module.ctx);
}

/* ---- what can be seen ---- */
static int watch(nsm_mixer *m, bool on)
{
    transformer *t = (transformer *)m;
    t->watch = on;
    nsm_tensor_free(on ? NULL : t->seen);
    if (!on) t->seen = NULL;
    return NSM_OK;
}

static void clear(nsm_mixer *m) { watch(m, false); }

/* Add share times the softmax of query q [D] over n keys, of which number j stands at k + j * step,
 * from `from` on. */
static void add_attention(const float *q, const float *k, int64_t step, int64_t from, int64_t n,
                          int64_t d, float share, float *score, float *to)
{
    float most = -INFINITY, sum = 0;
    for (int64_t j = from; j < n; j++) {
        double dot = 0;
        for (int64_t c = 0; c < d; c++) dot += (double)q[c] * (double)k[j * step + c];
        score[j] = (float)dot / sqrtf((float)d);
        most = fmaxf(most, score[j]);
    }
    for (int64_t j = from; j < n; j++) sum += score[j] = expf(score[j] - most);
    for (int64_t j = from; j < n; j++) to[j] += share * score[j] / sum;
}

/* Attention made anew from what was kept: no op ever makes it. */
static int flow(nsm_mixer *m, int64_t row, int64_t n, float *out)
{
    transformer *t = (transformer *)m;
    nsm_ctx *ctx = m->module.ctx;
    if (!t->seen || row < 0 || row >= t->seen->dim[0] || n != t->seen->dim[1])
        return nsmi_flow_unseen(m, t->seen != NULL, row, n);
    int64_t d = t->head_dim, step = t->seen->dim[2], group = t->heads / t->kv_heads;
    float *qkv = nsmi_malloc(ctx, (size_t)(n * step) * sizeof *qkv),
          *score = nsmi_malloc(ctx, (size_t)n * sizeof *score);
    if (qkv && score) {
        ctx->dev.be->to_host(&ctx->dev, (size_t)(n * step) * sizeof *qkv,
                             t->seen->f32 + row * n * step, qkv);
        memset(out, 0, (size_t)(n * n) * sizeof *out);
        for (int64_t i = 0; i < n; i++)
            for (int64_t h = 0; h < t->heads; h++)
                add_attention(qkv + i * step + h * d, qkv + (t->heads + h / group) * d, step,
                              t->window && i >= t->window ? i - t->window + 1 : 0,
                              t->causal ? i + 1 : n, d, 1 / (float)t->heads, score, out + i * n);
    }
    free(qkv);
    free(score);
    return nsm_error(ctx);
}

const nsm_mixer_type nsmi_mixer_transformer = {
    .name = "transformer",
    .about = "attention over all tokens (arXiv:1706.03762)",
    .bytes = sizeof(transformer),
    .keys = keys,
    .make = make,
    .clear = clear,
    .forward = forward,
    .state = state,
    .weights = "attention",
    .watch = watch,
    .flow = flow,
};
