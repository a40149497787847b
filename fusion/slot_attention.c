/* fusion/slot_attention.c - See slot_attention.h. */
#include "config.h"
#include "fusion/parts.h"
#include "fusion/slot_attention.h"
#include "seq/internal.h"

enum { MOST = 1 << 20, MOST_ITERATIONS = 1024 };

struct nsm_slot_attention {
    nsm_module module;
    nsm_slot_attention_config config;
    nsm_tensor *mu, *log_sigma;
    nsmi_pair norm_input, norm_slots, norm_mlp, to_q, to_k, to_v, mlp0, mlp2;
    nsmi_gru gru;
};

/* ---- making ---- */
static void make_gru(nsm_slot_attention *s)
{
    int64_t d = s->config.width;
    nsm_tensor **to[4] = { &s->gru.ih, &s->gru.hh, &s->gru.bih, &s->gru.bhh };
    static const char *const name[4] = { "gru.weight_ih", "gru.weight_hh", "gru.bias_ih",
                                         "gru.bias_hh" };
    float bound = 1 / sqrtf((float)d);
    for (int i = 0; i < 4; i++) {
        *to[i] = nsm_module_param(&s->module, name[i], i < 2 ? 2 : 1, (int64_t[]){ 3 * d, d });
        nsm_init_uniform(*to[i], -bound, bound);
    }
}

static void make(nsm_slot_attention *s)
{
    const nsm_slot_attention_config *c = &s->config;
    nsm_module *m = &s->module;
    int64_t d = c->width, start[3] = { 1, 1, d };
    float bound = sqrtf(6 / (1 + (float)d)); /* Glorot's for d values of one */
    s->mu = nsm_module_param(m, "slots_mu", 3, start);
    s->log_sigma = nsm_module_param(m, "slots_log_sigma", 3, start);
    nsm_init_uniform(s->mu, -bound, bound);
    nsm_init_uniform(s->log_sigma, -bound, bound);
    s->norm_input = nsmi_norm_new(m, "norm_input", c->inputs);
    s->norm_slots = nsmi_norm_new(m, "norm_slots", d);
    s->norm_mlp = nsmi_norm_new(m, "norm_mlp", d);
    s->to_q = nsmi_linear_new(m, "to_q", d, d, false);
    s->to_k = nsmi_linear_new(m, "to_k", d, c->inputs, false);
    s->to_v = nsmi_linear_new(m, "to_v", d, c->inputs, false);
    make_gru(s);
    s->mlp0 = nsmi_linear_new(m, "mlp.0", c->hidden, d, true);
    s->mlp2 = nsmi_linear_new(m, "mlp.2", d, c->hidden, true);
}

nsm_slot_attention *nsm_slot_attention_new(nsm_ctx *ctx, const nsm_slot_attention_config *config)
{
    if (nsmi_failed(ctx)) return NULL;
    nsm_slot_attention_config c = *config;
    if (!c.hidden && c.width <= MOST) c.hidden = 2 * c.width;
    if (!c.iterations) c.iterations = 3;
    if (c.eps == 0) c.eps = 1e-8f;
    if (c.norm_eps == 0) c.norm_eps = 1e-5f;
    if (c.inputs < 1 || c.slots < 1 || c.width < 1 || c.hidden < 1 || c.inputs > MOST ||
        c.slots > MOST || c.width > MOST || c.hidden > MOST || c.iterations < 1 ||
        c.iterations > MOST_ITERATIONS || !(c.eps > 0) || !(c.norm_eps > 0)) {
        nsm_error_set(ctx, NSM_EINVAL,
                      "nsm_slot_attention_new: %d inputs, %d slots of width %d, %d hidden, %d "
                      "iterations, eps %g; want sizes in 1..%d, iterations in 1..%d, eps above 0",
                      c.inputs, c.slots, c.width, c.hidden, c.iterations, (double)c.eps, MOST,
                      MOST_ITERATIONS);
        return NULL;
    }
    nsm_slot_attention *s = nsmi_calloc(ctx, 1, sizeof *s);
    if (!s) return NULL;
    nsm_module_init(&s->module, ctx);
    s->config = c;
    make(s);
    if (!nsmi_failed(ctx)) return s;
    nsm_slot_attention_free(s);
    return NULL;
}

void nsm_slot_attention_free(nsm_slot_attention *s)
{
    if (s) nsm_module_clear(&s->module);
    free(s);
}

nsm_module *nsm_slot_attention_module(nsm_slot_attention *s) { return s ? &s->module : NULL; }

/* ---- a call ---- */
static bool call_ok(const nsm_slot_attention *s, const nsm_tensor *x, const nsm_tensor *noise,
                    const nsm_tensor *shut)
{
    const nsm_slot_attention_config *c = &s->config;
    char shape[3][96];
    bool ok = x->type == NSM_F32 && x->rank == 3 && x->dim[1] > 0 && x->dim[2] == c->inputs &&
              (!noise ||
               (noise->type == NSM_F32 && noise->rank == 3 && noise->dim[0] == x->dim[0] &&
                noise->dim[1] == c->slots && noise->dim[2] == c->width)) &&
              (!shut || (shut->type == NSM_F32 && shut->rank == 2 && shut->dim[0] == x->dim[0] &&
                         shut->dim[1] == x->dim[1]));
    if (!ok)
        nsm_error_set(s->module.ctx, NSM_ESHAPE,
                      "nsm_slot_attention_apply: x is %s, noise %s, shut %s; want [B,n,%d], "
                      "[B,%d,%d], [B,n]",
                      nsm_shape_text(x, shape[0]), noise ? nsm_shape_text(noise, shape[1]) : "none",
                      shut ? nsm_shape_text(shut, shape[2]) : "none", c->inputs, c->slots,
                      c->width);
    return ok;
}

static nsm_tensor *start(nsm_tape *tape, const nsm_slot_attention *s, nsm_tensor *noise,
                         int64_t batch)
{
    const nsm_slot_attention_config *c = &s->config;
    if (!noise) {
        noise = nsm_tape_tensor(tape, NSM_F32, 3, (int64_t[]){ batch, c->slots, c->width }, NULL);
        if (noise) nsm_init_normal(noise, 0, 1);
    }
    return nsm_add(tape, s->mu, nsm_mul(tape, nsm_exp(tape, s->log_sigma), noise));
}

/* S [B, s, d] with what came, u [B, s, d]. */
static nsm_tensor *updated(nsm_tape *tape, const nsm_slot_attention *s, nsm_tensor *u,
                           nsm_tensor *slots)
{
    int64_t d = s->config.width, batch = slots ? slots->dim[0] : 0, rows[2] = { -1, d };
    if (!u || !slots) return NULL;
    u = nsm_reshape(tape, u, 2, rows);
    slots = nsmi_gru_cell(tape, &s->gru, u, nsm_reshape(tape, slots, 2, rows));
    if (!slots) return NULL;
    slots = nsm_reshape(tape, slots, 3, (int64_t[]){ batch, -1, d });
    nsm_tensor *h = nsmi_mapped(tape, s->mlp0,
                                nsmi_normed(tape, s->norm_mlp, slots, s->config.norm_eps));
    return nsm_add(tape, slots, nsmi_mapped(tape, s->mlp2, nsm_relu(tape, h)));
}

nsm_tensor *nsm_slot_attention_apply(nsm_tape *tape, nsm_slot_attention *s, nsm_tensor *x,
                                     nsm_tensor *noise, nsm_tensor *shut, nsm_tensor **seen)
{
    if (!tape || !s || !x || nsmi_failed(s->module.ctx) || !call_ok(s, x, noise, shut)) return NULL;
    const nsm_slot_attention_config *c = &s->config;
    int64_t batch = x->dim[0], n = x->dim[1];
    nsm_tensor *there = shut ? nsm_exp(tape, nsm_reshape(tape, shut, 3, (int64_t[]){ batch, n, 1 }))
                             : NULL;
    x = nsmi_normed(tape, s->norm_input, x, c->norm_eps);
    nsm_tensor *k = nsmi_mapped(tape, s->to_k, x), *v = nsmi_mapped(tape, s->to_v, x);
    nsm_tensor *slots = start(tape, s, noise, batch), *a = NULL;
    for (int i = 0; i < c->iterations && slots; i++) {
        nsm_tensor *q = nsmi_mapped(tape, s->to_q,
                                    nsmi_normed(tape, s->norm_slots, slots, c->norm_eps));
        a = nsm_scale(tape, nsm_bmm(tape, k, q, false, true), 1 / sqrtf((float)c->width), 0);
        a = nsm_softmax(tape, a, -1); /* [B, n, s] */
        nsm_tensor *w = nsm_scale(tape, a, 1, c->eps);
        if (there) a = nsm_mul(tape, a, there);
        if (there) w = nsm_mul(tape, w, there);
        /* a set without elements divides 0 by next to nothing */
        nsm_tensor *sum = nsm_scale(tape, nsm_sum(tape, w, 1, true), 1, shut ? 1e-30f : 0);
        nsm_tensor *u = nsm_bmm(tape, nsm_div(tape, w, sum), v, true, false); /* [B, s, d] */
        slots = updated(tape, s, u, slots);
    }
    if (seen) *seen = a;
    return slots;
}
