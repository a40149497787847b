/* seq/backbone.c - See backbone.h. */
#include "config.h"
#include "seq/backbone.h"
#include "seq/internal.h"

typedef struct { nsm_tensor *w, *b; } norm;

typedef struct {
    nsm_module module;
    nsm_mixer *mixer, *feed;
    norm norm1, norm2;
    nsm_tensor *up, *up_bias, *down, *down_bias;
} layer;

struct nsm_backbone {
    nsm_module module;
    nsm_backbone_config config;
    char *name[4];               /* the configuration's own copies of its texts */
    nsm_tensor *embed, *embed_bias, *position, *type, *head, *head_bias;
    norm embed_norm, norm;
    layer *layer;
    int layers;                  /* made so far */
    char fault[64];
};

/* ---- making ---- */
static bool config_ok(nsm_ctx *ctx, const nsm_backbone_config *c)
{
    bool ok = c->mixer && c->width > 0 && c->layers >= 0 &&
              (c->vocab > 0) + (c->features > 0) == !c->bare && c->vocab >= 0 &&
              (c->bare || c->outputs > 0) && c->inner >= -1 && (unsigned)c->act < NSM_ACTS &&
              (c->position != NSM_POSITION_LEARNED || c->places > 0) && c->types >= 0 &&
              c->eps > 0 && c->last_eps > 0 && c->dropout >= 0 && c->dropout < 1 &&
              (!c->tied || (c->vocab > 0 && c->outputs == c->vocab));
    if (!ok)
        nsm_error_set(ctx, NSM_EINVAL,
                      "nsm_backbone_new: mixer %s, width %d, layers %d, vocab %d, features %d (one "
                      "of both), outputs %d (vocab if tied), inner %d, "
                      "places %d, types %d, eps %g, dropout %g",
                      c->mixer ? c->mixer : "none", c->width, c->layers, c->vocab, c->features,
                      c->outputs, c->inner, c->places, c->types, (double)c->eps,
                      (double)c->dropout);
    return ok;
}

static norm norm_new(nsm_module *m, const nsm_backbone_config *c, const char *name)
{
    char path[64];
    norm n = { 0 };
    snprintf(path, sizeof path, "%s.weight", name);
    n.w = nsm_module_param(m, path, 1, (int64_t[]){ c->width });
    if (n.w) nsm_tensor_fill(n.w, 1);
    snprintf(path, sizeof path, "%s.bias", name);
    if (!c->rms_norm) n.b = nsm_module_param(m, path, 1, (int64_t[]){ c->width });
    return n;
}

static nsm_tensor *linear_new(nsm_module *m, const char *name, int64_t out, int64_t in)
{
    nsm_tensor *w = nsm_module_param(m, name, 2, (int64_t[]){ out, in });
    float bound = 1 / sqrtf((float)in);
    nsm_init_uniform(w, -bound, bound);
    return w;
}

static nsm_mixer *mixer_new(layer *l, const nsm_backbone_config *c, const char *name, int at,
                            nsm_mixer *first)
{
    bool feed = !strcmp(name, "feed");
    nsm_mixer *m = nsm_mixer_new(l->module.ctx, feed ? c->feed : c->mixer,
                                 &(nsm_mixer_config){ .width = c->width,
                                                      .options = feed ? c->feed_options
                                                                      : c->options,
                                                      .layer = at,
                                                      .layers = c->layers,
                                                      .first = first });
    if (m) nsm_module_child(&l->module, name, &m->module);
    return m;
}

static void layer_new(nsm_backbone *b, int at)
{
    const nsm_backbone_config *c = &b->config;
    nsm_ctx *ctx = b->module.ctx;
    layer *l = &b->layer[at];
    char name[32];
    nsm_module_init(&l->module, ctx);
    b->layers = at + 1;
    l->norm1 = norm_new(&l->module, c, "norm1");
    l->mixer = mixer_new(l, c, "mixer", at, b->layer[0].mixer);
    if (c->feed || c->inner > 0) l->norm2 = norm_new(&l->module, c, "norm2");
    if (c->feed) {
        l->feed = mixer_new(l, c, "feed", at, b->layer[0].feed);
    } else if (c->inner > 0) {
        int64_t rows = (int64_t)c->inner * (c->gated ? 2 : 1);
        l->up = linear_new(&l->module, "up.weight", rows, c->width);
        if (!c->no_bias) l->up_bias = nsm_module_param(&l->module, "up.bias", 1, &rows);
        l->down = linear_new(&l->module, "down.weight", c->width, c->inner);
        if (!c->no_bias)
            l->down_bias = nsm_module_param(&l->module, "down.bias", 1, (int64_t[]){ c->width });
    }
    snprintf(name, sizeof name, "layers.%d", at);
    nsm_module_child(&b->module, name, &l->module);
}

static void make(nsm_backbone *b)
{
    const nsm_backbone_config *c = &b->config;
    nsm_module *m = &b->module;
    float spread = c->tied ? 0.02f : 0.5f;
    for (int i = 0; c->bare && i < c->layers && !nsmi_failed(m->ctx); i++) layer_new(b, i);
    if (c->bare) return;
    if (c->vocab) {
        b->embed = nsm_module_param(m, "embed.weight", 2, (int64_t[]){ c->vocab, c->width });
        nsm_init_normal(b->embed, 0, spread);
    } else {
        b->embed = linear_new(m, "embed.weight", c->width, c->features);
        b->embed_bias = nsm_module_param(m, "embed.bias", 1, (int64_t[]){ c->width });
    }
    if (c->position == NSM_POSITION_LEARNED) {
        b->position = nsm_module_param(m, "position.weight", 2, (int64_t[]){ c->places, c->width });
        nsm_init_normal(b->position, 0, 0.02f);
    }
    if (c->types) {
        b->type = nsm_module_param(m, "type.weight", 2, (int64_t[]){ c->types, c->width });
        nsm_init_normal(b->type, 0, 0.02f);
    }
    if (c->embed_norm) b->embed_norm = norm_new(m, c, "embed_norm");
    for (int i = 0; i < c->layers && !nsmi_failed(m->ctx); i++) layer_new(b, i);
    if (!c->post_norm) b->norm = norm_new(m, c, "norm");
    if (!c->tied) b->head = linear_new(m, "head.weight", c->outputs, c->width);
    if (c->head_bias) b->head_bias = nsm_module_param(m, "head.bias", 1, (int64_t[]){ c->outputs });
}

nsm_backbone *nsm_backbone_new(nsm_ctx *ctx, const nsm_backbone_config *config)
{
    if (nsmi_failed(ctx)) return NULL;
    nsm_backbone_config c = *config;
    if (!c.layers) c.layers = 2;
    if (!c.outputs) c.outputs = c.vocab;
    if (!c.inner) c.inner = 4 * c.width;
    if (!c.act) c.act = NSM_ACT_GELU;
    if (c.eps == 0) c.eps = 1e-5f;
    if (c.last_eps == 0) c.last_eps = c.eps;
    if (!config_ok(ctx, &c)) return NULL;
    nsm_backbone *b = nsmi_calloc(ctx, 1, sizeof *b);
    if (!b) return NULL;
    nsm_module_init(&b->module, ctx);
    const char **text[4] = { &c.mixer, &c.options, &c.feed, &c.feed_options };
    for (int i = 0; i < 4; i++)
        if (*text[i]) *text[i] = b->name[i] = nsmi_strdup(ctx, *text[i]);
    b->config = c;
    b->layer = nsmi_calloc(ctx, (size_t)c.layers, sizeof *b->layer);
    if (!nsmi_failed(ctx)) make(b);
    if (!nsmi_failed(ctx)) return b;
    nsm_backbone_free(b);
    return NULL;
}

void nsm_backbone_free(nsm_backbone *b)
{
    if (!b) return;
    for (int i = 0; i < b->layers; i++) {
        nsm_mixer_free(b->layer[i].mixer);
        nsm_mixer_free(b->layer[i].feed);
        nsm_module_clear(&b->layer[i].module);
    }
    nsm_module_clear(&b->module);
    free(b->layer);
    for (int i = 0; i < 4; i++) free(b->name[i]);
    free(b);
}

nsm_module *nsm_backbone_module(nsm_backbone *b) { return b ? &b->module : NULL; }
const nsm_backbone_config *nsm_backbone_settings(const nsm_backbone *b) { return &b->config; }
nsm_mixer *nsm_backbone_mixer(nsm_backbone *b, int at)
{
    return at >= 0 && at < b->layers ? b->layer[at].mixer : NULL;
}

/* ---- positions ---- */
/* The places of n tokens: [n] where all rows are alike, else [B, n]. */
typedef struct { int32_t *at; int64_t dim[3]; int rank; bool fixed; } places;

static bool places_of(nsm_tape *tape, int64_t n, const nsm_state *s, places *p)
{
    int64_t rows = s ? s->batch : 1, *seen = nsmi_tape_room(tape, (size_t)rows * sizeof *seen);
    bool alike = true;
    p->at = nsmi_tape_room(tape, (size_t)(rows * n) * sizeof *p->at);
    p->fixed = !s;
    if (!seen || !p->at || (s && nsm_tensor_get(s->seen, seen))) return false;
    for (int64_t r = 0; r < rows; r++) {
        alike = alike && seen[r] == seen[0];
        for (int64_t i = 0; i < n; i++) p->at[r * n + i] = (int32_t)(seen[r] + i);
    }
    p->rank = alike ? 1 : 2;
    p->dim[0] = alike ? n : rows;
    p->dim[1] = n;
    return true;
}

/* Numbers that the places say. */
static nsm_tensor *by_places(nsm_tape *tape, const places *p, nsm_type type, int rank,
                             const int64_t *dim, const void *x)
{
    return (p->fixed ? nsm_tape_constant : nsm_tape_tensor)(tape, type, rank, dim, x);
}

/* sin and cos of place / 10000^(2i/d), side by side (Vaswani et al., 3.5). */
static nsm_tensor *waves_at(nsm_tape *tape, places *p, int64_t d)
{
    int64_t count = p->rank == 1 ? p->dim[0] : p->dim[0] * p->dim[1];
    float *x = nsmi_tape_room(tape, (size_t)(count * d) * sizeof *x);
    for (int64_t k = 0; x && k < count * d; k++) {
        double angle = (double)p->at[k / d] * pow(10000, -(double)(k % d / 2 * 2) / (double)d);
        x[k] = (float)(k % 2 ? cos(angle) : sin(angle));
    }
    p->dim[p->rank] = d;
    return x ? by_places(tape, p, NSM_F32, p->rank + 1, p->dim, x) : NULL;
}

/* ---- the parts ---- */
/* a + b, of which nobody else needs b, nor a unless it is `given` */
static nsm_tensor *plus(nsm_tape *tape, nsm_tensor *a, nsm_tensor *b, const nsm_tensor *given)
{
    nsm_tensor *y = nsm_add(tape, a, b);
    if (a != given) nsm_tape_drop(tape, a);
    nsm_tape_drop(tape, b);
    return y;
}

static nsm_tensor *normed(nsm_tape *tape, const nsm_backbone *b, norm n, nsm_tensor *x)
{
    float eps = n.w == b->norm.w ? b->config.last_eps : b->config.eps;
    return b->config.rms_norm ? nsm_rms_norm(tape, x, n.w, 1, eps)
                              : nsm_layer_norm(tape, x, n.w, n.b, 1, eps);
}

static nsm_tensor *feed_forward(nsm_tape *tape, const nsm_backbone *b, const layer *l,
                                nsm_tensor *x)
{
    const nsm_backbone_config *c = &b->config;
    float p, q;
    nsm_act_constants(c->act, &p, &q);
    nsm_tensor *u = nsm_linear(tape, x, l->up, c->gated ? l->up_bias : NULL);
    nsm_tensor *a = c->gated ? nsm_glu(tape, u, -1, c->act, 0)
                             : nsm_activate(tape, u, l->up_bias, c->act, p, q, 0);
    nsm_tape_drop(tape, u);
    nsm_tensor *y = nsm_linear(tape, a, l->down, l->down_bias);
    nsm_tape_drop(tape, a);
    return y;
}

/* Does y stand, and if faults are looked for, is it finite?  Notes its name otherwise.  given: a
 * tensor of the caller's. */
typedef struct { nsm_backbone *b; bool looking; const nsm_tensor *given; } watch;
static bool stands(watch *w, int at, const char *what, const nsm_tensor *y)
{
    const nsm_ctx *ctx = w->b->module.ctx;
    if (!y) return false;
    if (!w->looking || ctx->dev.be->all_finite((nsm_device *)&ctx->dev, nsm_numel(y), y->f32))
        return true;
    if (at < 0) snprintf(w->b->fault, sizeof w->b->fault, "%s", what);
    else snprintf(w->b->fault, sizeof w->b->fault, "layers.%d.%s", at, what);
    return false;
}

/* x through a layer: one branch after the other. */
static nsm_tensor *through(nsm_tape *tape, nsm_backbone *b, int at, nsm_tensor *x,
                           nsm_tensor *length, nsm_state *s, watch *w)
{
    const nsm_backbone_config *c = &b->config;
    layer *l = &b->layer[at];
    for (int branch = 0; branch < (l->norm2.w ? 2 : 1) && x; branch++) {
        norm n = branch ? l->norm2 : l->norm1;
        nsm_tensor *in = c->post_norm ? x : normed(tape, b, n, x), *y;
        if (branch && !l->feed) y = feed_forward(tape, b, l, in);
        else
            y = nsm_mixer_forward(tape, branch ? l->feed : l->mixer, in, length,
                                  s ? s->child[branch ? b->layers + at : at].state : NULL);
        if (!stands(w, at, branch ? "feed-forward" : "mixer", y)) return NULL;
        if (in != x) nsm_tape_drop(tape, in);
        x = plus(tape, x, c->dropout > 0 ? nsm_dropout(tape, y, c->dropout) : y, w->given);
        if (!c->post_norm) continue;
        in = x;
        x = normed(tape, b, n, in);
        nsm_tape_drop(tape, in);
    }
    return x;
}

static nsm_tensor *embedded(nsm_tape *tape, nsm_backbone *b, nsm_tensor *input, nsm_tensor *type,
                            const nsm_state *s)
{
    const nsm_backbone_config *c = &b->config;
    nsm_tensor *x = c->vocab ? nsm_embedding(tape, b->embed, input, -1)
                             : nsm_linear(tape, input, b->embed, b->embed_bias);
    int64_t before = s ? s->tokens : 0;
    if (x && b->position && before + input->dim[1] > c->places) {
        nsm_error_set(b->module.ctx, NSM_EINVAL,
                      "nsm_backbone: %lld tokens, but the model has learned only %d places",
                      (long long)(before + input->dim[1]), c->places);
        return NULL;
    }
    if (x && c->position != NSM_POSITION_NONE) {
        places p;
        nsm_tensor *y = NULL;
        if (!places_of(tape, input->dim[1], s, &p)) return NULL;
        if (!b->position) y = waves_at(tape, &p, c->width);
        else y = nsm_embedding(tape, b->position, by_places(tape, &p, NSM_I32, p.rank, p.dim, p.at),
                               -1);
        x = plus(tape, x, y, NULL);
    }
    if (type && b->type) x = plus(tape, x, nsm_embedding(tape, b->type, type, -1), NULL);
    if (c->embed_norm) x = normed(tape, b, b->embed_norm, x);
    return c->dropout > 0 ? nsm_dropout(tape, x, c->dropout) : x;
}

/* Children of a state: the layers' mixers, then what they have in place of a feed-forward. */
static int states_of(const nsm_backbone *b) { return b->config.feed ? 2 * b->layers : b->layers; }
static nsm_mixer *carrier(const nsm_backbone *b, int child)
{
    return child < b->layers ? b->layer[child].mixer : b->layer[child - b->layers].feed;
}

static bool input_ok(const nsm_backbone *b, const nsm_tensor *input, const nsm_state *s)
{
    const nsm_backbone_config *c = &b->config;
    char shape[96];
    bool ok = c->vocab ? input->type == NSM_I32 && input->rank == 2
                       : input->type == NSM_F32 && input->rank == 3 && input->dim[2] == c->features;
    if (!ok)
        nsm_error_set(b->module.ctx, NSM_ESHAPE, "nsm_backbone: the input is %s %s, want %s",
                      nsm_type_name(input->type), nsm_shape_text(input, shape),
                      c->vocab ? "int32 [B,n]" : "float32 [B,n,features]");
    else if (s && (s->children != states_of(b) || s->batch != input->dim[0]))
        nsm_error_set(
            b->module.ctx, NSM_ESHAPE,
            "nsm_backbone: the state has %d parts and %lld rows, the model %d, the input %lld",
            s->children, (long long)s->batch, states_of(b), (long long)input->dim[0]);
    return !nsmi_failed(b->module.ctx);
}

static nsm_tensor *layers(nsm_tape *tape, nsm_backbone *b, nsm_tensor *x, nsm_tensor *length,
                          nsm_state *s, watch *w)
{
    for (int i = 0; i < b->layers && x; i++) x = through(tape, b, i, x, length, s, w);
    if (s && x) nsm_state_advance(s, x->dim[1], length);
    return x;
}

nsm_tensor *nsm_backbone_layers(nsm_tape *tape, nsm_backbone *b, nsm_tensor *x, nsm_tensor *length,
                                nsm_state *s)
{
    return tape && b && x ? layers(tape, b, x, length, s, &(watch){ b, false, x }) : NULL;
}

nsm_tensor *nsm_backbone_embed(nsm_tape *tape, nsm_backbone *b, nsm_tensor *input, nsm_tensor *type,
                               nsm_state *s)
{
    if (!tape || !b || !input || nsmi_failed(b->module.ctx) || !input_ok(b, input, s)) return NULL;
    return embedded(tape, b, input, type, s);
}

static nsm_tensor *run(nsm_tape *tape, nsm_backbone *b, nsm_tensor *input, nsm_tensor *type,
                       nsm_tensor *length, nsm_state *s, watch *w)
{
    nsm_tensor *x = nsm_backbone_embed(tape, b, input, type, s);
    if (!x || !stands(w, -1, "embed", x)) return NULL;
    x = layers(tape, b, x, length, s, w);
    return b->config.post_norm ? x : normed(tape, b, b->norm, x);
}

nsm_tensor *nsm_backbone_hidden(nsm_tape *tape, nsm_backbone *b, nsm_tensor *input,
                                nsm_tensor *type, nsm_tensor *length, nsm_state *s)
{
    return run(tape, b, input, type, length, s, &(watch){ b, false, NULL });
}

const char *nsm_backbone_fault(nsm_tape *tape, nsm_backbone *b, nsm_tensor *input,
                               nsm_tensor *length)
{
    watch w = { b, true, NULL };
    if (!b) return NULL;
    b->fault[0] = 0;
    nsm_tensor *h = run(tape, b, input, NULL, length, NULL, &w);
    if (h) stands(&w, -1, "head", nsm_backbone_head(tape, b, h));
    return b->fault[0] ? b->fault : NULL;
}

/* ---- heads ---- */
nsm_tensor *nsm_backbone_head(nsm_tape *tape, nsm_backbone *b, nsm_tensor *h)
{
    return b && h ? nsm_linear(tape, h, b->config.tied ? b->embed : b->head, b->head_bias) : NULL;
}

/* For every row where its pooled tokens stand in h [B*n, d], and what each counts: weights [B,
 * n]. */
static nsm_tensor *pooled(nsm_tape *tape, const nsm_backbone *b, nsm_tensor *h, nsm_tensor *length)
{
    int64_t rows = h->dim[0], n = h->dim[1];
    int32_t *len = nsmi_tape_room(tape, (size_t)rows * sizeof *len);
    float *weight = nsmi_tape_room(tape, (size_t)(rows * n) * sizeof *weight);
    nsm_tensor *y = NULL;
    if (len && weight && (!length || !nsm_tensor_get(length, len))) {
        for (int64_t r = 0; r < rows; r++) {
            int64_t m = length ? len[r] : n;
            if (b->config.pool == NSM_POOL_FIRST) weight[r * n] = 1;
            if (b->config.pool == NSM_POOL_LAST && m > 0) weight[r * n + m - 1] = 1;
            for (int64_t i = 0; b->config.pool == NSM_POOL_MEAN && i < m; i++)
                weight[r * n + i] = 1 / (float)m;
        }
        nsm_tensor *w = (length ? nsm_tape_tensor : nsm_tape_constant)(
            tape, NSM_F32, 3, (int64_t[]){ rows, 1, n }, weight);
        y = nsm_reshape(tape, nsm_bmm(tape, w, h, false, false), 2,
                        (int64_t[]){ rows, b->config.width });
    }
    return y;
}

static nsm_tensor *answer_of(nsm_tape *tape, nsm_backbone *b, nsm_tensor *h, nsm_tensor *length)
{
    return nsm_backbone_head(tape, b,
                             h && b->config.pool != NSM_POOL_NONE ? pooled(tape, b, h, length) : h);
}

nsm_tensor *nsm_backbone_apply(nsm_tape *tape, nsm_backbone *b, nsm_tensor *input,
                               nsm_tensor *length, nsm_state *s)
{
    return answer_of(tape, b, nsm_backbone_hidden(tape, b, input, NULL, length, s), length);
}

nsm_tensor *nsm_backbone_answer(nsm_tape *tape, nsm_backbone *b, nsm_tensor *x, nsm_tensor *length,
                                nsm_state *s)
{
    nsm_tensor *h = nsm_backbone_layers(tape, b, x, length, s);
    return answer_of(tape, b, h && !b->config.post_norm ? normed(tape, b, b->norm, h) : h, length);
}

nsm_tensor *nsm_backbone_step(nsm_tape *tape, nsm_backbone *b, nsm_tensor *input, nsm_state *s)
{
    if (!tape || !b || !input || nsmi_failed(b->module.ctx)) return NULL;
    int rank = b->config.vocab ? 1 : 2;
    if (!s || input->rank != rank) {
        nsm_error_set(b->module.ctx, NSM_ESHAPE,
                      "nsm_backbone_step: want a state and an input of rank %d, not %d", rank,
                      input->rank);
        return NULL;
    }
    nsm_tensor *one = nsm_reshape(tape, input, rank + 1,
                                  (int64_t[]){ input->dim[0], 1, b->config.features });
    nsm_tensor *y = nsm_backbone_head(tape, b, nsm_backbone_hidden(tape, b, one, NULL, NULL, s));
    return y ? nsm_reshape(tape, y, 2, (int64_t[]){ input->dim[0], b->config.outputs }) : NULL;
}

/* ---- states ---- */
nsm_state *nsm_backbone_state(nsm_backbone *b, int64_t batch)
{
    if (!b || nsmi_failed(b->module.ctx)) return NULL;
    nsm_state *s = nsm_state_new(b->module.ctx, batch);
    for (int i = 0; i < states_of(b) && s && !nsmi_failed(b->module.ctx); i++) {
        char name[32];
        snprintf(name, sizeof name, i < b->layers ? "layers.%d" : "feed.%d", i % b->layers);
        nsm_state_child(s, name, nsm_mixer_state(carrier(b, i), batch));
    }
    if (!nsmi_failed(b->module.ctx)) return s;
    nsm_state_free(s);
    return NULL;
}

int nsm_backbone_restart(nsm_backbone *b, nsm_state *s)
{
    if (!b || !s || nsmi_failed(b->module.ctx)) return b ? nsm_error(b->module.ctx) : NSM_EINVAL;
    nsm_state_zero(s);
    for (int i = 0; i < states_of(b) && i < s->children; i++)
        nsm_mixer_restart(carrier(b, i), s->child[i].state);
    return nsm_error(b->module.ctx);
}
