/* seq/rnn.c - See rnn.h.  A layer is one product for all inputs and one fused op (base/ops/rnn.c);
 * with a projection it is a composition, step by step. */
#include "config.h"
#include "seq/internal.h"
#include "seq/rnn.h"

/* One direction of one layer. */
typedef struct { nsm_tensor *ih, *hh, *bih, *bhh, *hr; } direction;

struct nsm_rnn {
    nsm_module module;
    nsm_rnn_config config;
    direction *part; /* [layers * directions] */
};

static int directions(const nsm_rnn_config *c) { return c->two_way ? 2 : 1; }
static int size_of(const nsm_rnn_config *c) { return c->projection ? c->projection : c->hidden; }

static nsm_tensor *parameter(nsm_rnn *r, const char *what, int layer, int way, int64_t rows,
                             int64_t cols)
{
    char name[64];
    float bound = 1 / sqrtf((float)r->config.hidden);
    snprintf(name, sizeof name, "%s_l%d%s", what, layer, way ? "_reverse" : "");
    nsm_tensor *t = nsm_module_param(&r->module, name, cols ? 2 : 1, (int64_t[]){ rows, cols });
    nsm_init_uniform(t, -bound, bound);
    return t;
}

nsm_rnn *nsm_rnn_new(nsm_ctx *ctx, const nsm_rnn_config *config)
{
    if (nsmi_failed(ctx)) return NULL;
    nsm_rnn_config c = *config;
    if (!c.layers) c.layers = 1;
    if (c.input < 1 || c.hidden < 1 || c.layers < 0 || c.projection < 0 ||
        (c.gru && c.projection)) {
        nsm_error_set(
            ctx, NSM_EINVAL,
            "nsm_rnn_new: input is %d, hidden %d, layers %d, projection %d (of an LSTM only)",
            c.input, c.hidden, c.layers, c.projection);
        return NULL;
    }
    nsm_rnn *r = nsmi_calloc(ctx, 1, sizeof *r);
    if (!r) return NULL;
    nsm_module_init(&r->module, ctx);
    r->config = c;
    r->part = nsmi_calloc(ctx, (size_t)(c.layers * directions(&c)), sizeof *r->part);
    int64_t rows = (int64_t)(c.gru ? 3 : 4) * c.hidden, size = size_of(&c);
    for (int k = 0; r->part && k < c.layers * directions(&c); k++) {
        int layer = k / directions(&c), way = k % directions(&c);
        direction *d = &r->part[k];
        d->ih = parameter(r, "weight_ih", layer, way, rows,
                          layer ? size * directions(&c) : c.input);
        d->hh = parameter(r, "weight_hh", layer, way, rows, size);
        if (!c.no_bias) d->bih = parameter(r, "bias_ih", layer, way, rows, 0);
        if (!c.no_bias) d->bhh = parameter(r, "bias_hh", layer, way, rows, 0);
        if (c.projection) d->hr = parameter(r, "weight_hr", layer, way, c.projection, c.hidden);
    }
    if (!nsmi_failed(ctx)) return r;
    nsm_rnn_free(r);
    return NULL;
}

void nsm_rnn_free(nsm_rnn *r)
{
    if (!r) return;
    nsm_module_clear(&r->module);
    free(r->part);
    free(r);
}

nsm_module *nsm_rnn_module(nsm_rnn *r) { return r ? &r->module : NULL; }

/* ---- one direction ---- */
/* Both biases as one; of a GRU's inner part only that of the inputs: the other stands inside a
 * product. */
static nsm_tensor *joint_bias(nsm_tape *tape, const nsm_rnn_config *c, const direction *d)
{
    if (!d->bih) return NULL;
    if (!c->gru) return nsm_add(tape, d->bih, d->bhh);
    int64_t h = c->hidden;
    nsm_tensor *none = nsm_tape_tensor(tape, NSM_F32, 1, &h, NULL);
    if (none) nsm_tensor_zero(none);
    nsm_tensor *part[2] = { nsm_slice(tape, d->bhh, 0, 0, 2 * h), none };
    return none ? nsm_add(tape, d->bih, nsm_concat(tape, part, 2, 0)) : NULL;
}

/* An LSTM with a projection, a step at a time. */
static nsm_tensor *projected(nsm_tape *tape, const nsm_rnn_config *c, const direction *d,
                             nsm_tensor *gx, nsm_tensor *h, nsm_tensor *cell, bool reverse,
                             nsm_tensor **hn, nsm_tensor **cn)
{
    int64_t n = gx->dim[1], b = gx->dim[0], units = c->hidden;
    nsm_tensor *y = NULL;
    for (int64_t s = 0; s < n; s++) {
        int64_t t = reverse ? n - 1 - s : s;
        nsm_tensor *gate = nsm_reshape(tape, nsm_slice(tape, gx, 1, t, 1), 2,
                                       (int64_t[]){ b, 4 * units }),
                   *part[4];
        if (h) gate = nsm_add(tape, gate, nsm_linear(tape, h, d->hh, NULL));
        for (int g = 0; g < 4; g++) part[g] = nsm_slice(tape, gate, 1, g * units, units);
        nsm_tensor *in = nsm_mul(tape, nsm_sigmoid(tape, part[0]), nsm_tanh(tape, part[2]));
        cell = cell ? nsm_add(tape, nsm_mul(tape, nsm_sigmoid(tape, part[1]), cell), in) : in;
        h = nsm_linear(tape, nsm_mul(tape, nsm_sigmoid(tape, part[3]), nsm_tanh(tape, cell)), d->hr,
                       NULL);
        nsm_tensor *row = h ? nsm_reshape(tape, h, 3, (int64_t[]){ b, 1, c->projection }) : NULL,
                   *pair[2] = { y, row };
        if (reverse) { pair[0] = row; pair[1] = y; }
        y = y ? nsm_concat(tape, pair, 2, 1) : row;
    }
    *hn = h;
    *cn = cell;
    return y;
}

static nsm_tensor *one_way(nsm_tape *tape, const nsm_rnn_config *c, const direction *d,
                           nsm_tensor *x, nsm_tensor *h0, nsm_tensor *c0, nsm_tensor *length,
                           bool reverse, nsm_tensor **hn, nsm_tensor **cn)
{
    nsm_tensor *gx = nsm_linear(tape, x, d->ih, joint_bias(tape, c, d)); /* [B, n, G*H] */
    if (!gx) return NULL;
    if (c->projection) return projected(tape, c, d, gx, h0, c0, reverse, hn, cn);
    if (!c->gru) return nsm_lstm(tape, gx, d->hh, h0, c0, length, reverse, hn, cn);
    nsm_tensor *inner = d->bhh ? nsm_slice(tape, d->bhh, 0, 2 * c->hidden, c->hidden) : NULL;
    return nsm_gru(tape, gx, d->hh, inner, h0, length, reverse, hn);
}

nsm_tensor *nsmi_gru_cell(nsm_tape *tape, const nsmi_gru *w, nsm_tensor *x, nsm_tensor *h)
{
    if (!x || !h) return NULL;
    const direction d = { w->ih, w->hh, w->bih, w->bhh, NULL };
    const nsm_rnn_config c = { .gru = true, .hidden = (int)h->dim[1] };
    nsm_tensor *last = NULL, *none = NULL;
    x = nsm_reshape(tape, x, 3, (int64_t[]){ x->dim[0], 1, x->dim[1] });
    return one_way(tape, &c, &d, x, h, NULL, NULL, false, &last, &none) ? last : NULL;
}

/* ---- the stack ---- */
static nsm_tensor *row_of(nsm_tape *tape, nsm_tensor *all, int k)
{
    nsm_tensor *t = all ? nsm_slice(tape, all, 0, k, 1) : NULL;
    return t ? nsm_reshape(tape, t, 2, all->dim + 1) : NULL;
}

/* [B, P] each -> [count, B, P] */
static nsm_tensor *stacked(nsm_tape *tape, nsm_tensor **row, int count)
{
    for (int k = 0; k < count; k++)
        row[k] = row[k] ? nsm_reshape(tape, row[k], 3,
                                      (int64_t[]){ 1, row[k]->dim[0], row[k]->dim[1] })
                        : NULL;
    return nsm_concat(tape, row, count, 0);
}

static bool start_ok(const nsm_rnn *r, const char *what, const nsm_tensor *t, int64_t batch,
                     int64_t size)
{
    char shape[96];
    int64_t count = (int64_t)r->config.layers * directions(&r->config);
    if (!t || (t->type == NSM_F32 && t->rank == 3 && t->dim[0] == count && t->dim[1] == batch &&
               t->dim[2] == size))
        return true;
    nsm_error_set(r->module.ctx, NSM_ESHAPE,
                  "nsm_rnn_apply: %s is %s, want float32 [%lld,%lld,%lld]", what,
                  nsm_shape_text(t, shape), (long long)count, (long long)batch, (long long)size);
    return false;
}

static nsm_tensor *apply(nsm_tape *tape, nsm_rnn *r, nsm_tensor *x, nsm_tensor *h0, nsm_tensor *c0,
                         nsm_tensor *length, nsm_tensor **last)
{
    const nsm_rnn_config *c = &r->config;
    int ways = directions(c), count = c->layers * ways;
    for (int l = 0; l < c->layers && x; l++) {
        nsm_tensor *way[2] = { NULL };
        for (int w = 0; w < ways; w++) {
            int k = l * ways + w;
            way[w] = one_way(tape, c, &r->part[k], x, row_of(tape, h0, k), row_of(tape, c0, k),
                             length, w == 1, &last[k], &last[count + k]);
        }
        x = ways == 2 ? nsm_concat(tape, way, 2, 2) : way[0];
    }
    return x;
}

nsm_tensor *nsm_rnn_apply(nsm_tape *tape, nsm_rnn *r, nsm_tensor *x, nsm_tensor *h0, nsm_tensor *c0,
                          nsm_tensor *length, nsm_tensor **hn, nsm_tensor **cn)
{
    if (!tape || !r || !x || nsmi_failed(r->module.ctx)) return NULL;
    const nsm_rnn_config *c = &r->config;
    char shape[96];
    int count = c->layers * directions(c);
    if (x->type != NSM_F32 || x->rank != 3 || x->dim[2] != c->input || x->dim[1] < 1) {
        nsm_error_set(r->module.ctx, NSM_ESHAPE, "nsm_rnn_apply: x is %s, want float32 [B,n,%d]",
                      nsm_shape_text(x, shape), c->input);
        return NULL;
    }
    if (length && c->projection) {
        nsm_error_set(r->module.ctx, NSM_EINVAL, "nsm_rnn_apply: lengths with a projection");
        return NULL;
    }
    if (!start_ok(r, "h0", h0, x->dim[0], size_of(c)) ||
        !start_ok(r, "c0", c->gru ? NULL : c0, x->dim[0], c->hidden))
        return NULL;
    nsm_tensor **last = nsmi_tape_room(tape, (size_t)(2 * count) * sizeof *last);
    nsm_tensor *y = last ? apply(tape, r, x, h0, c->gru ? NULL : c0, length, last) : NULL;
    if (hn) *hn = y ? stacked(tape, last, count) : NULL;
    if (cn) *cn = y && !c->gru ? stacked(tape, last + count, count) : NULL;
    return y;
}

/* ---- the mixers ---- */
typedef struct {
    nsm_mixer base;
    int hidden;
    direction d;
    nsm_tensor *out;
} recurrent;

static const nsm_mixer_key keys[] = {
    KEY_INT(recurrent, hidden, 0, 0, 1 << 20,
            "units (0: width); others than the width get a linear map back to it"),
    KEYS_END
};

static nsm_rnn_config config_of(const recurrent *m, bool gru)
{
    return (nsm_rnn_config){ .gru = gru, .input = m->base.width, .hidden = m->hidden, .layers = 1 };
}

static int make(nsm_mixer *base, bool gru)
{
    recurrent *m = (recurrent *)base;
    if (!m->hidden) m->hidden = base->width;
    int64_t rows = (int64_t)(gru ? 3 : 4) * m->hidden;
    nsm_tensor **to[4] = { &m->d.ih, &m->d.hh, &m->d.bih, &m->d.bhh };
    static const char *const name[4] = { "weight_ih_l0", "weight_hh_l0", "bias_ih_l0",
                                         "bias_hh_l0" };
    float bound = 1 / sqrtf((float)m->hidden);
    for (int k = 0; k < 4; k++) {
        *to[k] = nsm_module_param(&base->module, name[k], k < 2 ? 2 : 1,
                                  (int64_t[]){ rows, k ? m->hidden : base->width });
        nsm_init_uniform(*to[k], -bound, bound);
    }
    if (m->hidden != base->width)
        m->out = nsmi_mixer_linear(base, "out.weight", base->width, m->hidden);
    return nsm_error(base->module.ctx);
}
static int make_lstm(nsm_mixer *m) { return make(m, false); }
static int make_gru(nsm_mixer *m) { return make(m, true); }

static nsm_tensor *forward(nsm_tape *tape, nsm_mixer *base, nsm_tensor *x, nsm_tensor *length,
                           nsm_state *s, bool gru)
{
    recurrent *m = (recurrent *)base;
    nsm_rnn_config c = config_of(m, gru);
    nsm_tensor *hn = NULL, *cn = NULL, *h0 = s ? nsmi_state_read(tape, s, "h") : NULL,
               *c0 = s && !gru ? nsmi_state_read(tape, s, "c") : NULL;
    nsm_tensor *y = one_way(tape, &c, &m->d, x, h0, c0, length, false, &hn, &cn);
    if (s && y) nsmi_state_write(s, "h", hn);
    if (s && y && !gru) nsmi_state_write(s, "c", cn);
    return m->out ? nsm_linear(tape, y, m->out, NULL) : y;
}
static nsm_tensor *forward_lstm(nsm_tape *tape, nsm_mixer *m, nsm_tensor *x, nsm_tensor *length,
                                nsm_state *s)
{
    return forward(tape, m, x, length, s, false);
}
static nsm_tensor *forward_gru(nsm_tape *tape, nsm_mixer *m, nsm_tensor *x, nsm_tensor *length,
                               nsm_state *s)
{
    return forward(tape, m, x, length, s, true);
}

static int state_gru(nsm_mixer *m, nsm_state *s)
{
    nsm_state_add(s, "h", NSM_F32, 1, (int64_t[]){ ((recurrent *)m)->hidden });
    return nsm_error(s->ctx);
}

static int state_lstm(nsm_mixer *m, nsm_state *s)
{
    nsm_state_add(s, "c", NSM_F32, 1, (int64_t[]){ ((recurrent *)m)->hidden });
    return state_gru(m, s);
}

const nsm_mixer_type nsmi_mixer_lstm = {
    .name = "lstm",
    .about = "long short-term memory (Neural Computation 9, 1997)",
    .bytes = sizeof(recurrent),
    .keys = keys,
    .sizes = "hidden",
    .make = make_lstm,
    .forward = forward_lstm,
    .state = state_lstm,
};
const nsm_mixer_type nsmi_mixer_gru = {
    .name = "gru",
    .about = "gated recurrent unit (arXiv:1406.1078)",
    .bytes = sizeof(recurrent),
    .keys = keys,
    .sizes = "hidden",
    .make = make_gru,
    .forward = forward_gru,
    .state = state_gru,
};
