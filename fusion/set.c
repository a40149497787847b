/* fusion/set.c - See set.h. */
#include "config.h"
#include <math.h>
#include "base/ops.h"
#include "fusion/parts.h"
#include "fusion/set.h"
#include "fusion/set_parts.h"
#include "seq/carried.h"

/* The parameters of one size each: rows [.., d]. */
#define SQUARES(X) \
    X(w_k) X(w_v) X(w_q) X(w_cq) X(w_ck) X(w_cv) X(w_co) X(w_rq) X(w_rk) X(w_rv) X(w_ro) X(w_rg) \
    X(w_z) X(u_z) X(w_r) X(u_r) X(w_h) X(u_h)
#define BIASES(X) X(b_z) X(b_r) X(b_h) X(b_rg) X(b_m2)
enum place { IN, COMM, MLP, READ, PLACES };
static const char *const place_name[PLACES] = { "in", "comm", "mlp", "read" };

struct nsm_set {
    nsm_module module;
    nsm_set_config config;
    /* the last: of queries */
    nsm_tensor *w_in[NSM_SET_MODALITIES + 1], *b_in[NSM_SET_MODALITIES + 1];
    nsm_tensor *ln_w[PLACES], *ln_b[PLACES];
#define MEMBER(name) *name,
    nsm_tensor *mu_key, *mu, SQUARES(MEMBER) BIASES(MEMBER) * w_m1, *b_m1, *w_m2, *log_gamma_w,
        *null_w, *log_gamma_r;
};

/* ---- making ---- */
static void make_embedding(nsm_set *s, int m, const char *which, int features)
{
    char name[32];
    int64_t d = s->config.width;
    snprintf(name, sizeof name, "w_in_%s", which);
    s->w_in[m] = nsmi_drawn(&s->module, name, d, features, 1 / sqrtf((float)features));
    snprintf(name, sizeof name, "b_in_%s", which);
    s->b_in[m] = nsmi_filled(&s->module, name, d, 0);
    if (s->b_in[m]) nsm_init_normal(s->b_in[m], 0, s->config.spread); /* tells modalities apart */
}

static void make(nsm_set *s)
{
    const nsm_set_config *c = &s->config;
    int64_t d = c->width;
    char name[32];
    float square = 1 / sqrtf((float)d);
    for (int m = 0; m < c->modalities; m++) {
        snprintf(name, sizeof name, "%d", m);
        make_embedding(s, m, name, c->features[m]);
    }
    if (c->query_features) make_embedding(s, NSM_SET_MODALITIES, "query", c->query_features);
    s->mu_key = nsmi_drawn(&s->module, "mu_key", c->learned, d, 1);
    s->mu = nsmi_drawn(&s->module, "mu", c->learned, d, 0.1f);
    for (int p = 0; p < PLACES; p++) {
        snprintf(name, sizeof name, "ln_%s_w", place_name[p]);
        s->ln_w[p] = nsmi_filled(&s->module, name, d, 1);
        snprintf(name, sizeof name, "ln_%s_b", place_name[p]);
        s->ln_b[p] = nsmi_filled(&s->module, name, d, 0);
    }
#define DRAW(name) s->name = nsmi_drawn(&s->module, #name, d, d, square);
#define ZERO(name) s->name = nsmi_filled(&s->module, #name, d, 0);
    SQUARES(DRAW)
    BIASES(ZERO)
    s->w_m1 = nsmi_drawn(&s->module, "w_m1", 2 * d, d, square);
    s->b_m1 = nsmi_filled(&s->module, "b_m1", 2 * d, 0);
    s->w_m2 = nsmi_drawn(&s->module, "w_m2", d, 2 * d, 1 / sqrtf(2 * (float)d));
    s->log_gamma_w = nsmi_filled(&s->module, "log_gamma_w", 1, logf(8));
    s->null_w = nsmi_filled(&s->module, "null_w", 1, 4);
    s->log_gamma_r = nsmi_filled(&s->module, "log_gamma_r", 1, logf(8));
}

static bool config_ok(nsm_ctx *ctx, const nsm_set_config *c)
{
    bool ok = c->width > 0 && c->modalities > 0 && c->modalities <= NSM_SET_MODALITIES &&
              c->learned > 0 && c->learned <= c->slots && c->top > 0 && c->heads > 0 &&
              c->width % c->heads == 0 && c->rounds >= 0 && c->query_features >= 0 && c->spread > 0;
    for (int m = 0; ok && m < c->modalities; m++) ok = c->features[m] > 0;
    if (!ok)
        nsm_error_set(ctx, NSM_EINVAL,
                      "nsm_set_new: width %d, %d heads, %d slots, %d of them learned, %d kept, %d "
                      "rounds, %d modalities, spread %g; want heads that divide the width, "
                      "1 <= learned <= slots, 1 to %d modalities with features, a spread above 0",
                      c->width, c->heads, c->slots, c->learned, c->top, c->rounds, c->modalities,
                      (double)c->spread, NSM_SET_MODALITIES);
    return ok;
}

nsm_set *nsm_set_new(nsm_ctx *ctx, const nsm_set_config *config)
{
    nsm_set_config c = *config;
    if (nsmi_failed(ctx)) return NULL;
    if (!c.slots) c.slots = 16;
    if (!c.learned) c.learned = 1;
    if (!c.top) c.top = 2;
    if (!c.heads) c.heads = 4;
    if (!c.rounds) c.rounds = 1;
    if (c.tau_new == 0) c.tau_new = 0.9f;
    if (c.rho == 0) c.rho = 0.5f;
    if (c.tau_prune == 0) c.tau_prune = 0.1f;
    if (c.spread == 0) c.spread = 0.1f;
    nsm_set *s = config_ok(ctx, &c) ? nsmi_calloc(ctx, 1, sizeof *s) : NULL;
    if (!s) return NULL;
    nsm_module_init(&s->module, ctx);
    s->config = c;
    make(s);
    if (!nsmi_failed(ctx)) return s;
    nsm_set_free(s);
    return NULL;
}

void nsm_set_free(nsm_set *s)
{
    if (s) nsm_module_clear(&s->module);
    free(s);
}

nsm_module *nsm_set_module(nsm_set *s) { return s ? &s->module : NULL; }

/* ---- elements ---- */
static nsm_tensor *normed(nsm_tape *tape, const nsm_set *s, nsm_tensor *x, enum place p)
{
    return nsm_layer_norm(tape, x, s->ln_w[p], s->ln_b[p], 1, 1e-5f);
}

static nsm_tensor *embedded(nsm_tape *tape, const nsm_set *s, nsm_tensor *x, int m)
{
    return normed(tape, s, nsm_linear(tape, x, s->w_in[m], s->b_in[m]), IN);
}

static bool inputs_ok(const nsm_set *s, const nsm_set_input *in, const nsm_tensor *query)
{
    nsm_ctx *ctx = s->module.ctx;
    const nsm_set_config *c = &s->config;
    char shape[96];
    int64_t batch = -1;
    for (int m = 0; m < c->modalities; m++) {
        const nsm_tensor *x = in[m].x, *length = in[m].length;
        if (!x) continue;
        if (batch < 0) batch = x->dim[0];
        if (x->type != NSM_F32 || x->rank != 3 || x->dim[0] != batch || x->dim[2] != c->features[m])
            nsm_error_set(ctx, NSM_ESHAPE,
                          "nsm_set_apply: modality %d is %s, want float32 [%lld,n,%d]", m,
                          nsm_shape_text(x, shape), (long long)batch, c->features[m]);
        else if (length &&
                 (length->type != NSM_I32 || length->rank != 1 || length->dim[0] != batch))
            nsm_error_set(ctx, NSM_ESHAPE,
                          "nsm_set_apply: the lengths of modality %d are %s, want int32 [%lld]", m,
                          nsm_shape_text(length, shape), (long long)batch);
    }
    if (batch < 0) nsm_error_set(ctx, NSM_EINVAL, "nsm_set_apply: every modality is missing");
    if ((query != NULL) != (c->query_features > 0) ||
        (query &&
         (query->rank != 3 || query->dim[0] != batch || query->dim[2] != c->query_features)))
        nsm_error_set(ctx, NSM_ESHAPE, "nsm_set_apply: the query is %s, want %s",
                      query ? nsm_shape_text(query, shape) : "not given",
                      c->query_features ? "[B,n,query_features]" : "none: the elements read");
    return !nsmi_failed(ctx);
}

/* Which elements are there, uint8 [B, n]; NULL: all. */
static nsm_tensor *presence(nsm_tape *tape, const nsm_set *s, const nsm_set_input *in,
                            int64_t batch, int64_t n)
{
    uint8_t *there = nsmi_presence(tape, in, s->config.modalities, batch, n);
    return there ? nsm_tape_tensor(tape, NSM_U8, 2, (int64_t[]){ batch, n }, there) : NULL;
}

/* The elements of all modalities side by side [B, n, d]. */
static nsm_tensor *elements(nsm_tape *tape, const nsm_set *s, const nsm_set_input *in)
{
    nsm_tensor *z[NSM_SET_MODALITIES];
    int count = 0;
    for (int m = 0; m < s->config.modalities; m++)
        if (in[m].x) z[count++] = embedded(tape, s, in[m].x, m);
    return count == 1 ? z[0] : nsm_concat(tape, z, count, 1);
}

/* ---- the pool ---- */
/* x [s0, d] and zeros -> [B, s, d] */
static nsm_tensor *fresh(nsm_tape *tape, const nsm_set *s, nsm_tensor *x, int64_t batch)
{
    const nsm_set_config *c = &s->config;
    nsm_tensor *rest = nsm_tape_tensor(tape, NSM_F32, 2,
                                       (int64_t[]){ c->slots - c->learned, c->width }, NULL);
    if (!rest) return NULL;
    nsm_tensor_zero(rest);
    return nsmi_for_each(tape, nsm_concat(tape, (nsm_tensor *[]){ x, rest }, 2, 0), batch);
}

static void begin(nsm_tape *tape, const nsm_set *s, int64_t batch, const nsmi_pool_parts *given,
                  nsmi_pool_parts *p)
{
    const nsm_set_config *c = &s->config;
    nsm_ctx *ctx = s->module.ctx;
    int64_t dim[2] = { batch, c->slots };
    if (given) {
        *p = *given;
        nsmi_pool age = { .batch = batch,
                          .slots = c->slots,
                          .learned = c->learned,
                          .rho = c->rho,
                          .tau_prune = c->tau_prune };
        nsm_tensor *kept = nsm_tape_tensor(tape, NSM_F32, 3, (int64_t[]){ batch, c->slots, 1 },
                                           NULL);
        if (!kept) return;
        ctx->dev.be->pool_age(&ctx->dev, &age, p->usage->f32, p->alive->u8, kept->f32);
        p->key = nsm_mul(tape, p->key, kept);
        p->value = nsm_mul(tape, p->value, kept);
        return;
    }
    uint8_t *alive = nsmi_tape_room(tape, (size_t)(batch * c->slots));
    for (int64_t i = 0; alive && i < batch * c->slots; i++) alive[i] = i % c->slots < c->learned;
    p->alive = alive ? nsm_tape_tensor(tape, NSM_U8, 2, dim, alive) : NULL;
    p->usage = nsm_tape_tensor(tape, NSM_F32, 2, dim, NULL);
    if (p->usage) nsm_tensor_zero(p->usage);
    p->key = fresh(tape, s, nsmi_unit_length(tape, s->mu_key, 1e-6f), batch);
    p->value = fresh(tape, s, s->mu, batch);
}

/* What elements bring to the states: shares [B,n,s] -> S after a gated update (GRU), which a state
 * that took nothing passes by. */
static nsm_tensor *write(nsm_tape *tape, const nsm_set *s, nsm_tensor *share, nsm_tensor *mass,
                         nsm_tensor *v, nsm_tensor *state)
{
    if (!mass) return NULL;
    nsm_tensor *whole = nsm_reshape(tape, mass, 3, (int64_t[]){ mass->dim[0], mass->dim[1], 1 });
    nsm_tensor *u = nsm_div(tape, nsm_bmm(tape, share, v, true, false),
                            nsm_scale(tape, whole, 1, 1e-6f));
    nsm_tensor *took = nsm_scale(tape, nsm_exp(tape, nsm_neg(tape, whole)), -1, 1);
    nsm_tensor *z = nsm_mul(tape,
                            nsm_sigmoid(tape, nsm_linear2(tape, u, s->w_z, state, s->u_z, s->b_z)),
                            took);
    nsm_tensor *r = nsm_sigmoid(tape, nsm_linear2(tape, u, s->w_r, state, s->u_r, s->b_r));
    nsm_tensor *h = nsm_tanh(tape,
                             nsm_linear2(tape, u, s->w_h, nsm_mul(tape, r, state), s->u_h, s->b_h));
    return nsm_add(tape, state, nsm_mul(tape, z, nsm_sub(tape, h, state)));
}

/* ---- attention over the states ---- */
typedef struct { nsm_tensor *q, *k, *v; } heads; /* [B, rows, H, d / H] */

static heads split(nsm_tape *tape, const nsm_set *s, nsm_tensor *a, nsm_tensor *b, nsm_tensor *wq,
                   nsm_tensor *wk, nsm_tensor *wv)
{
    int h = s->config.heads;
    return (heads){ nsmi_split_heads(tape, nsm_linear(tape, a, wq, NULL), h),
                    nsmi_split_heads(tape, nsm_linear(tape, b, wk, NULL), h),
                    nsmi_split_heads(tape, nsm_linear(tape, b, wv, NULL), h) };
}

static nsm_tensor *attended(nsm_tape *tape, heads x, nsm_tensor *bias, nsm_tensor *w)
{
    return nsm_linear(tape,
                      nsmi_join_last(tape, nsm_dot_attention(tape, x.q, x.k, x.v,
                                                             &(nsm_dot_attention_config){
                                                                 .bias = bias })),
                      w, NULL);
}

static nsm_tensor *reason(nsm_tape *tape, const nsm_set *s, nsm_tensor *state, nsm_tensor *shut)
{
    if (!shut) return NULL;
    int64_t b = shut->dim[0], slots = shut->dim[1];
    nsm_tensor *bias = nsm_reshape(tape, shut, 4, (int64_t[]){ b, 1, 1, slots });
    nsm_tensor *living = nsm_exp(tape, nsm_reshape(tape, shut, 3, (int64_t[]){ b, slots, 1 }));
    for (int i = 0; i < s->config.rounds; i++) {
        nsm_tensor *x = normed(tape, s, state, COMM);
        state = nsm_add(tape, state,
                        attended(tape, split(tape, s, x, x, s->w_cq, s->w_ck, s->w_cv), bias,
                                 s->w_co));
        x = nsm_gelu(tape, nsm_linear(tape, normed(tape, s, state, MLP), s->w_m1, s->b_m1));
        state = nsm_add(tape, state, nsm_linear(tape, x, s->w_m2, s->b_m2));
        state = nsm_mul(tape, state, living);
    }
    return state;
}

static nsm_tensor *read_back(nsm_tape *tape, const nsm_set *s, nsm_tensor *x,
                             const nsmi_pool_parts *p, nsm_tensor *shut, nsm_set_view *view)
{
    if (!x || !shut) return NULL;
    nsm_tensor *near = nsm_bmm(tape,
                               nsmi_unit_length(tape, nsm_linear(tape, x, s->w_q, NULL), 1e-6f),
                               p->key, false, true);
    near = nsm_mul(tape, near, nsm_exp(tape, s->log_gamma_r));
    if (!near) return NULL;
    near = nsm_reshape(tape, near, 4, (int64_t[]){ x->dim[0], 1, x->dim[1], -1 });
    nsm_tensor *bias = nsm_add(tape, near,
                               nsm_reshape(tape, shut, 4, (int64_t[]){ x->dim[0], 1, 1, -1 }));
    heads h = split(tape, s, x, normed(tape, s, p->value, READ), s->w_rq, s->w_rk, s->w_rv);
    nsm_tensor *y = nsm_mul(tape, nsm_sigmoid(tape, nsm_linear(tape, x, s->w_rg, s->b_rg)),
                            attended(tape, h, bias, s->w_ro));
    if (view) view->read = nsmi_attention_weights(tape, h.q, h.k, near, shut);
    return nsm_add(tape, x, y);
}

/* ---- the whole ---- */
nsm_tensor *nsmi_set_run(nsm_tape *tape, nsm_set *s, const nsm_set_input *in, nsm_tensor *query,
                         const nsmi_pool_parts *given, nsm_tensor *closed, nsmi_pool_parts *p,
                         nsm_set_view *view)
{
    const nsm_set_config *c = &s->config;
    if (nsmi_failed(s->module.ctx) || !inputs_ok(s, in, query)) return NULL;
    nsm_tensor *z = elements(tape, s, in);
    if (!z) return NULL;
    int64_t batch = z->dim[0], n = z->dim[1];
    nsm_tensor *there = presence(tape, s, in, batch, n), *shut = NULL;
    nsm_tensor *k = nsmi_unit_length(tape, nsm_linear(tape, z, s->w_k, NULL), 1e-6f),
               *v = nsm_linear(tape, z, s->w_v, NULL);
    nsm_tensor *opened = view ? nsm_tape_tensor(tape, NSM_I32, 2, (int64_t[]){ batch, n }, NULL)
                              : NULL;
    begin(tape, s, batch, given, p);
    p->key = nsm_pool_open(tape, k, p->key, p->alive, there, c->tau_new, opened, &shut);
    nsm_tensor *share = nsm_pool_route(tape, nsm_bmm(tape, k, p->key, false, true),
                                       nsm_exp(tape, s->log_gamma_w), s->null_w, p->alive, there,
                                       c->top);
    nsm_tensor *mass = nsm_sum(tape, share, 1, false);
    if (!mass) return NULL;
    s->module.ctx->dev.be->axpy(&s->module.ctx->dev, nsm_numel(mass), 1, mass->f32, p->usage->f32);
    p->value = reason(tape, s, write(tape, s, share, mass, v, p->value), shut);
    if (view) *view = (nsm_set_view){ opened, share, mass, NULL };
    if (closed) shut = nsm_add(tape, shut, closed);
    return read_back(tape, s, query ? embedded(tape, s, query, NSM_SET_MODALITIES) : z, p, shut,
                     view);
}

nsm_tensor *nsm_set_apply(nsm_tape *tape, nsm_set *s, const nsm_set_input *in, nsm_tensor *query,
                          nsm_state *pool, nsm_set_view *view)
{
    nsmi_pool_parts given, left = { 0 };
    if (!s || nsmi_failed(s->module.ctx)) return NULL;
    if (pool && !nsm_state_get(pool, "usage")) {
        nsm_error_set(s->module.ctx, NSM_EINVAL,
                      "nsm_set_apply: the state is not a pool of this set");
        return NULL;
    }
    if (pool)
        given = (nsmi_pool_parts){ nsmi_state_read(tape, pool, "K"),
                                   nsmi_state_read(tape, pool, "S"), nsm_state_get(pool, "alive"),
                                   nsm_state_get(pool, "usage") };
    nsm_tensor *y = nsmi_set_run(tape, s, in, query, pool ? &given : NULL, NULL, &left, view);
    if (!y || !pool) return y;
    nsmi_state_write(pool, "K", left.key);
    nsmi_state_write(pool, "S", left.value);
    return nsmi_failed(s->module.ctx) ? NULL : y;
}

nsm_state *nsm_set_pool(nsm_set *s, int64_t batch)
{
    const nsm_set_config *c = &s->config;
    nsm_state *pool = nsm_state_new(s->module.ctx, batch);
    if (!pool) return NULL;
    nsm_state_add(pool, "K", NSM_F32, 2, (int64_t[]){ c->slots, c->width });
    nsm_state_add(pool, "S", NSM_F32, 2, (int64_t[]){ c->slots, c->width });
    nsm_state_add(pool, "alive", NSM_U8, 1, (int64_t[]){ c->slots });
    nsm_state_add(pool, "usage", NSM_F32, 1, (int64_t[]){ c->slots });
    nsm_tape *tape = nsm_tape_new(s->module.ctx);
    nsmi_pool_parts p = { 0 };
    if (tape && !nsmi_failed(s->module.ctx)) {
        nsm_tape_inference(tape, true);
        begin(tape, s, batch, NULL, &p);
        nsmi_state_write(pool, "K", p.key);
        nsmi_state_write(pool, "S", p.value);
        nsm_tensor_copy(nsm_state_get(pool, "alive"), p.alive);
    }
    nsm_tape_free(tape);
    if (!nsmi_failed(s->module.ctx)) return pool;
    nsm_state_free(pool);
    return NULL;
}
