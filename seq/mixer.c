/* seq/mixer.c - See mixer.h: options, making, and the checks around every call. */
#include "config.h"
#include "seq/internal.h"

/* ---- options ---- */
int nsm_mixer_check(nsm_ctx *ctx, const nsm_mixer_type *type, const char *key, const char *value)
{
    return nsmi_option_check(ctx, type->name, type->keys, key, value);
}

int nsm_mixer_set(nsm_mixer *m, const char *options)
{
    if (!m || nsmi_failed(m->module.ctx)) return m ? nsm_error(m->module.ctx) : NSM_EINVAL;
    nsm_ctx *ctx = m->module.ctx;
    const nsm_mixer_type *t = m->type;
    int code = nsmi_options_read(ctx, t->name, t->keys, options, true, NULL);
    return code ? code : nsmi_options_read(ctx, t->name, t->keys, options, true, m);
}

/* ---- making ---- */
nsm_mixer *nsm_mixer_new(nsm_ctx *ctx, const char *name, const nsm_mixer_config *config)
{
    const nsm_mixer_type *type = nsm_mixer_find(name);
    if (nsmi_failed(ctx)) return NULL;
    if (!type || config->width < 1 || config->layer < 0 || config->layer > config->layers ||
        (config->first && config->first->type != type)) {
        nsm_error_set(ctx, NSM_EINVAL,
                      "nsm_mixer_new: the type is %s (%s), width %d, layer %d of %d", name,
                      type ? "known" : "unknown", config->width, config->layer, config->layers);
        return NULL;
    }
    nsm_mixer *m = nsmi_calloc(ctx, 1, type->bytes);
    if (!m) return NULL;
    nsm_module_init(&m->module, ctx);
    m->type = type;
    m->width = config->width;
    m->layer = config->layer;
    m->layers = config->layers ? config->layers : 1;
    m->first = config->first ? config->first : m;
    nsmi_options_default(type->keys, m);
    if (!nsmi_options_read(ctx, name, type->keys, config->options, false, m)) type->make(m);
    if (!nsmi_failed(ctx)) return m;
    nsm_mixer_free(m);
    return NULL;
}

void nsm_mixer_free(nsm_mixer *m)
{
    if (!m) return;
    if (m->type->clear) m->type->clear(m);
    nsm_module_clear(&m->module);
    free(m);
}

nsm_module *nsm_mixer_module(nsm_mixer *m) { return m ? &m->module : NULL; }

nsm_tensor *nsmi_mixer_linear(nsm_mixer *m, const char *name, int64_t out, int64_t in)
{
    nsm_tensor *w = nsm_module_param(&m->module, name, 2, (int64_t[]){ out, in });
    float bound = 1 / sqrtf((float)in);
    nsm_init_uniform(w, -bound, bound);
    return w;
}

nsm_tensor *nsmi_mixer_fill(nsm_mixer *m, const char *name, int rank, const int64_t *dim,
                            float value)
{
    nsm_tensor *w = nsm_module_param(&m->module, name, rank, dim);
    if (w) nsm_tensor_fill(w, value);
    return w;
}

/* ---- states ---- */
nsm_state *nsm_mixer_state(nsm_mixer *m, int64_t batch)
{
    if (!m || nsmi_failed(m->module.ctx)) return NULL;
    if (m->two_way || !m->type->state) {
        nsm_error_set(m->module.ctx, NSM_EINVAL,
                      "%s: there is no state to carry: all tokens are looked at together",
                      m->type->name);
        return NULL;
    }
    nsm_state *s = nsm_state_new(m->module.ctx, batch);
    if (s && !m->type->state(m, s) && m->type->start) m->type->start(m, s);
    if (!nsmi_failed(m->module.ctx)) return s;
    nsm_state_free(s);
    return NULL;
}

int nsm_mixer_restart(nsm_mixer *m, nsm_state *s)
{
    if (!m) return NSM_EINVAL;
    int code = nsm_state_zero(s);
    return code || !m->type->start ? code : m->type->start(m, s);
}

nsm_tensor *nsmi_state_read(nsm_tape *tape, const nsm_state *s, const char *name)
{
    nsm_tensor *part = nsm_state_get(s, name);
    if (!part) {
        nsm_error_set(nsm_tape_ctx(tape), NSM_EINVAL,
                      "the state has no part %s: it is not of this mixer", name);
        return NULL;
    }
    return nsm_tape_training(tape) ? nsm_scale(tape, part, 1, 0) : part;
}

int nsmi_state_write(nsm_state *s, const char *name, const nsm_tensor *y)
{
    nsm_tensor *part = nsm_state_get(s, name);
    if (!part || !y)
        return nsmi_failed(s->ctx)
                   ? nsm_error(s->ctx)
                   : nsm_error_set(s->ctx, NSM_EINVAL,
                                   "the state has no part %s: it is not of this mixer", name);
    return nsm_tensor_copy(part, y);
}

nsm_tensor *nsmi_split_heads(nsm_tape *tape, nsm_tensor *x, int64_t heads)
{
    int64_t dim[NSM_MAX_RANK + 1];
    if (!x) return NULL;
    memcpy(dim, x->dim, sizeof x->dim);
    dim[x->rank - 1] = heads;
    dim[x->rank] = -1;
    return nsm_reshape(tape, x, x->rank + 1, dim);
}

nsm_tensor *nsmi_join_last(nsm_tape *tape, nsm_tensor *x)
{
    int64_t dim[NSM_MAX_RANK];
    if (!x) return NULL;
    memcpy(dim, x->dim, sizeof dim);
    dim[x->rank - 2] = -1;
    return nsm_reshape(tape, x, x->rank - 1, dim);
}

nsm_tensor *nsmi_shifted(nsm_tape *tape, nsm_tensor *x, int64_t rows)
{
    if (!x) return NULL;
    int64_t many = x->dim[0], wide = x->dim[1], step = wide / (2 * rows);
    nsm_tensor *zero = nsm_tape_tensor(tape, NSM_F32, 3, (int64_t[]){ 1, rows, 1 }, NULL);
    if (zero) nsm_tensor_zero(zero);
    x = nsm_add(tape, nsm_reshape(tape, x, 3, (int64_t[]){ many, 1, wide }), zero);
    x = x ? nsm_slice(tape, nsm_reshape(tape, x, 2, (int64_t[]){ many, -1 }), 1, 0,
                      rows * (wide - step))
          : NULL;
    return x ? nsm_reshape(tape, x, 3, (int64_t[]){ many, rows, wide - step }) : NULL;
}

/* ---- calls ---- */
static bool call_ok(nsm_tape *tape, nsm_mixer *m, const nsm_tensor *x, int rank,
                    const nsm_tensor *length, const nsm_state *s)
{
    char shape[96];
    if (!tape || !m || !x || nsmi_failed(m->module.ctx)) return false;
    if (x->type != NSM_F32 || x->rank != rank || x->dim[rank - 1] != m->width || x->dim[0] < 1 ||
        x->dim[rank - 2] < 1)
        nsm_error_set(m->module.ctx, NSM_ESHAPE, "%s: x is %s %s, want float32 [B,%s%d]",
                      m->type->name, nsm_type_name(x->type), nsm_shape_text(x, shape),
                      rank == 3 ? "n," : "", m->width);
    else if (length &&
             (length->type != NSM_I32 || length->rank != 1 || length->dim[0] != x->dim[0]))
        nsm_error_set(m->module.ctx, NSM_ESHAPE, "%s: length is %s %s, want int32 [%lld]",
                      m->type->name, nsm_type_name(length->type), nsm_shape_text(length, shape),
                      (long long)x->dim[0]);
    else if (s && (m->two_way || !m->type->state))
        nsm_error_set(m->module.ctx, NSM_EINVAL,
                      "%s: there is no state to carry: all tokens are looked at together",
                      m->type->name);
    else if (s && s->batch != x->dim[0])
        nsm_error_set(m->module.ctx, NSM_ESHAPE, "%s: the state is of %lld sequences, x of %lld",
                      m->type->name, (long long)s->batch, (long long)x->dim[0]);
    return !nsmi_failed(m->module.ctx);
}

nsm_tensor *nsm_mixer_forward(nsm_tape *tape, nsm_mixer *m, nsm_tensor *x, nsm_tensor *length,
                              nsm_state *s)
{
    if (!call_ok(tape, m, x, 3, length, s)) return NULL;
    nsm_tensor *y = m->type->forward(tape, m, x, length, s);
    if (y && s) nsm_state_advance(s, x->dim[1], length);
    return nsmi_failed(m->module.ctx) ? NULL : y;
}

nsm_tensor *nsm_mixer_step(nsm_tape *tape, nsm_mixer *m, nsm_tensor *x, nsm_state *s)
{
    if (!call_ok(tape, m, x, 2, NULL, s)) return NULL;
    if (!s) {
        nsm_error_set(m->module.ctx, NSM_EINVAL, "nsm_mixer_step: a step needs a state");
        return NULL;
    }
    nsm_tensor *y;
    if (m->type->step) {
        y = m->type->step(tape, m, x, s);
    } else {
        nsm_tensor *one = nsm_reshape(tape, x, 3, (int64_t[]){ x->dim[0], 1, m->width });
        y = one ? m->type->forward(tape, m, one, NULL, s) : NULL;
        if (y) y = nsm_reshape(tape, y, 2, (int64_t[]){ x->dim[0], m->width });
    }
    if (y) nsm_state_advance(s, 1, NULL);
    return nsmi_failed(m->module.ctx) ? NULL : y;
}

/* ---- what can be seen ---- */
int nsm_mixer_watch(nsm_mixer *m, bool on)
{
    if (!m || nsmi_failed(m->module.ctx)) return m ? nsm_error(m->module.ctx) : NSM_EINVAL;
    if (m->type->watch) return m->type->watch(m, on);
    return nsm_error_set(m->module.ctx, NSM_EINVAL,
                         "%s: it has no weights that say whence a token takes what it tells",
                         m->type->name);
}

int nsm_mixer_flow(nsm_mixer *m, int64_t row, int64_t n, float *flow)
{
    if (!m || nsmi_failed(m->module.ctx)) return m ? nsm_error(m->module.ctx) : NSM_EINVAL;
    if (m->type->flow) return m->type->flow(m, row, n, flow);
    return nsm_mixer_watch(m, true); /* which says why not */
}

int nsmi_flow_unseen(nsm_mixer *m, bool seen, int64_t row, int64_t n)
{
    if (!seen)
        return nsm_error_set(m->module.ctx, NSM_EINVAL, "%s: nothing was watched yet",
                             m->type->name);
    return nsm_error_set(m->module.ctx, NSM_ESHAPE,
                         "%s: row %lld of %lld tokens is not what was watched", m->type->name,
                         (long long)row, (long long)n);
}
