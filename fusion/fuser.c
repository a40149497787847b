/* fusion/fuser.c - See fuser.h: the list of systems, making, and the checks around every call. */
#include "config.h"
#include "fusion/fuser_parts.h"

/* Every fuser, by name.  A new one is a word here. */
#define FUSERS(X) X(nsm) X(perceiver) X(slot_attention) X(attention) X(cross) X(concat)
#define DECLARE(name) extern const nsm_fuser_type nsmi_fuser_##name;
#define ADDRESS(name) &nsmi_fuser_##name,
FUSERS(DECLARE)
static const nsm_fuser_type *const types[] = { FUSERS(ADDRESS) NULL };

enum { MOST = 1 << 20 }; /* what a size of a configuration may be */
/* deviation of a modality's embedding at the start: small beside what elements say (doc/set.md) */
static const float SPREAD = 0.1f;

const nsm_fuser_type *const *nsm_fuser_types(void) { return types; }

const nsm_fuser_type *nsm_fuser_find(const char *name)
{
    const nsm_fuser_type *const *t = types;
    while (*t && strcmp((*t)->name, name)) t++;
    return *t;
}

int nsm_fuser_check(nsm_ctx *ctx, const nsm_fuser_type *type, const char *key, const char *value)
{
    return nsmi_option_check(ctx, type->name, type->keys, key, value);
}

/* ---- making ---- */
static bool config_ok(nsm_ctx *ctx, const char *name, const nsm_fuser_type *type,
                      const nsm_fuser_config *c)
{
    bool ok = type && c->width > 0 && c->width <= MOST && c->modalities > 0 &&
              c->modalities <= NSM_FUSER_MODALITIES && c->query_features >= 0 &&
              c->query_features <= MOST && c->readers >= 0 && c->readers <= MOST;
    for (int m = 0; ok && m < c->modalities; m++) ok = c->features[m] > 0 && c->features[m] <= MOST;
    if (!ok)
        nsm_error_set(ctx, NSM_EINVAL,
                      "nsm_fuser_new: the type is %s (%s), width %d, %d modalities, %d features of "
                      "a query, %d readers; want sizes in 1..%d, 1 to %d modalities with features",
                      name, type ? "known" : "unknown", c->width, c->modalities, c->query_features,
                      c->readers, MOST, NSM_FUSER_MODALITIES);
    return ok;
}

nsm_fuser *nsm_fuser_new(nsm_ctx *ctx, const char *name, const nsm_fuser_config *config)
{
    const nsm_fuser_type *type = nsm_fuser_find(name);
    if (nsmi_failed(ctx) || !config_ok(ctx, name, type, config)) return NULL;
    nsm_fuser *f = nsmi_calloc(ctx, 1, type->bytes);
    if (!f) return NULL;
    nsm_module_init(&f->module, ctx);
    f->type = type;
    f->width = config->width;
    f->modalities = config->modalities;
    memcpy(f->features, config->features, sizeof f->features);
    f->query_features = config->query_features;
    f->readers = config->readers ? config->readers : 1;
    if (!f->query_features) {
        f->query = nsm_module_param(&f->module, "query", 2, (int64_t[]){ f->readers, f->width });
        nsm_init_normal(f->query, 0, 1);
    }
    nsmi_options_default(type->keys, f);
    if (!nsmi_options_read(ctx, name, type->keys, config->options, false, f)) type->make(f);
    if (!nsmi_failed(ctx)) return f;
    nsm_fuser_free(f);
    return NULL;
}

/* What was seen of the last call. */
static void forget(nsm_fuser *f)
{
    nsm_tensor **const seen[] = { &f->seen, &f->took, &f->read, &f->mass, &f->opened };
    for (size_t i = 0; i < sizeof seen / sizeof *seen; i++) {
        nsm_tensor_free(*seen[i]);
        *seen[i] = NULL;
    }
}

void nsm_fuser_free(nsm_fuser *f)
{
    if (!f) return;
    if (f->type->clear) f->type->clear(f);
    forget(f);
    free(f->closed);
    nsm_module_clear(&f->module);
    free(f);
}

nsm_module *nsm_fuser_module(nsm_fuser *f) { return f ? &f->module : NULL; }

/* ---- a call ---- */
static bool modality_ok(const nsm_fuser *f, int m, const nsm_set_input *in, int64_t batch)
{
    const nsm_tensor *x = in->x, *length = in->length;
    char shape[96];
    if (x->type != NSM_F32 || x->rank != 3 || x->dim[0] != batch || x->dim[2] != f->features[m])
        nsm_error_set(f->module.ctx, NSM_ESHAPE,
                      "%s: modality %d is %s %s, want float32 "
                      "[%lld,n,%d]",
                      f->type->name, m, nsm_type_name(x->type), nsm_shape_text(x, shape),
                      (long long)batch, f->features[m]);
    else if (length && (length->type != NSM_I32 || length->rank != 1 || length->dim[0] != batch))
        nsm_error_set(f->module.ctx, NSM_ESHAPE,
                      "%s: the lengths of modality %d are %s %s, want "
                      "int32 [%lld]",
                      f->type->name, m, nsm_type_name(length->type), nsm_shape_text(length, shape),
                      (long long)batch);
    return !nsmi_failed(f->module.ctx);
}

static bool query_ok(const nsm_fuser *f, const nsm_tensor *q, int64_t batch)
{
    char shape[96];
    bool ok = f->query_features ? q && q->type == NSM_F32 && q->rank == 3 && q->dim[0] == batch &&
                                      q->dim[1] > 0 && q->dim[2] == f->query_features
                                : !q;
    if (!ok)
        nsm_error_set(f->module.ctx, NSM_ESHAPE,
                      f->query_features ? "%s: the query is %s, want float32 [%lld,r,%d]"
                                        : "%s: the query is %s, want none: readers are learned",
                      f->type->name, q ? nsm_shape_text(q, shape) : "not given", (long long)batch,
                      f->query_features);
    return ok;
}

/* 0, or -inf for a state that is closed, [B, s]; NULL: none is, or an error. */
static nsm_tensor *closed_of(nsm_tape *tape, const nsm_fuser *f, int64_t batch)
{
    int64_t count = batch * f->states;
    if (!f->closed) return NULL;
    if (f->closed_sets != 1 && f->closed_sets != batch) {
        nsm_error_set(f->module.ctx, NSM_ESHAPE,
                      "%s: states of %lld sets are closed, and a call has %lld", f->type->name,
                      (long long)f->closed_sets, (long long)batch);
        return NULL;
    }
    float *x = nsmi_tape_room(tape, (size_t)count * sizeof *x);
    for (int64_t i = 0; x && i < count; i++)
        x[i] = f->closed[i % (f->closed_sets * f->states)] ? -INFINITY : 0;
    return x ? nsm_tape_tensor(tape, NSM_F32, 2, (int64_t[]){ batch, f->states }, x) : NULL;
}

nsm_tensor *nsm_fuser_apply(nsm_tape *tape, nsm_fuser *f, const nsm_set_input *in,
                            nsm_tensor *query)
{
    if (!tape || !f || nsmi_failed(f->module.ctx)) return NULL;
    nsm_set_input present[NSM_FUSER_MODALITIES] = { 0 };
    nsm_fuser_call c = { .in = present, .batch = -1 };
    for (int m = 0; m < f->modalities; m++) {
        if (!in[m].x) continue;
        if (c.batch < 0) c.batch = in[m].x->dim[0];
        if (!modality_ok(f, m, &in[m], c.batch)) return NULL;
        if (in[m].x->dim[1]) present[m] = in[m];
        c.elements += in[m].x->dim[1];
    }
    if (c.elements == 0 || c.batch < 1) {
        nsm_error_set(f->module.ctx, NSM_EINVAL, "%s: every modality is missing", f->type->name);
        return NULL;
    }
    if (!query_ok(f, query, c.batch)) return NULL;
    c.query = query ? query : nsmi_for_each(tape, f->query, c.batch);
    c.shut = nsmi_shut(tape, c.in, f->modalities, c.batch, c.elements);
    c.closed = closed_of(tape, f, c.batch);
    nsm_tensor *y = nsmi_failed(f->module.ctx) ? NULL : f->type->forward(tape, f, &c);
    return nsmi_failed(f->module.ctx) ? NULL : y;
}

/* ---- for systems ---- */
void nsmi_fuser_maps_make(nsm_fuser *f, nsmi_fuser_maps *maps)
{
    char name[32];
    for (int m = 0; m < f->modalities; m++) {
        snprintf(name, sizeof name, "in.%d", m);
        maps->in[m] = nsmi_linear_new(&f->module, name, f->width, f->features[m], true);
        nsm_init_normal(maps->in[m].b, 0, SPREAD);
    }
    if (f->query_features)
        maps->query = nsmi_linear_new(&f->module, "in.query", f->width, f->query_features, true);
}

nsm_tensor *nsmi_fuser_elements(nsm_tape *tape, const nsm_fuser *f, const nsmi_fuser_maps *maps,
                                const nsm_fuser_call *call)
{
    nsm_tensor *z[NSM_FUSER_MODALITIES];
    int count = 0;
    for (int m = 0; m < f->modalities; m++)
        if (call->in[m].x) z[count++] = nsmi_mapped(tape, maps->in[m], call->in[m].x);
    return count == 1 ? z[0] : nsm_concat(tape, z, count, 1);
}

nsm_tensor *nsmi_fuser_readers(nsm_tape *tape, const nsm_fuser *f, const nsmi_fuser_maps *maps,
                               const nsm_fuser_call *call)
{
    return f->query_features ? nsmi_mapped(tape, maps->query, call->query) : call->query;
}

nsm_perceiver_layer *nsmi_fuser_layer(nsm_fuser *f, const char *name, bool cross, int heads,
                                      int widening)
{
    nsm_perceiver_layer *l = nsm_perceiver_layer_new(f->module.ctx,
                                                     &(nsm_perceiver_layer_config){
                                                         .width = f->width,
                                                         .context = cross ? f->width : 0,
                                                         .heads = heads,
                                                         .widening = widening });
    if (l) nsm_module_child(&f->module, name, nsm_perceiver_layer_module(l));
    return l;
}

/* ---- what can be seen ---- */
int nsm_fuser_watch(nsm_fuser *f, bool on)
{
    if (!f || nsmi_failed(f->module.ctx)) return f ? nsm_error(f->module.ctx) : NSM_EINVAL;
    if (!f->type->weights)
        return nsm_error_set(f->module.ctx, NSM_EINVAL,
                             "%s: it has no weights that say whence a reader takes what it tells",
                             f->type->name);
    f->watched = on;
    if (!on) forget(f);
    return NSM_OK;
}

/* Is this set with these sizes one of the last call that was watched? */
static int seen_ok(nsm_fuser *f, int64_t row, int64_t readers, int64_t elements)
{
    if (!f || nsmi_failed(f->module.ctx)) return f ? nsm_error(f->module.ctx) : NSM_EINVAL;
    nsm_ctx *ctx = f->module.ctx;
    if (!f->type->weights) return nsm_fuser_watch(f, true); /* which says why not */
    if (!f->seen)
        return nsm_error_set(ctx, NSM_EINVAL, "%s: nothing was watched yet", f->type->name);
    if (row < 0 || row >= f->seen->dim[0] || readers != f->seen->dim[1] ||
        elements != f->seen->dim[2])
        return nsm_error_set(ctx, NSM_ESHAPE,
                             "%s: set %lld with %lld readers of %lld elements is not what was "
                             "watched: %lld sets, %lld readers, %lld elements",
                             f->type->name, (long long)row, (long long)readers, (long long)elements,
                             (long long)f->seen->dim[0], (long long)f->seen->dim[1],
                             (long long)f->seen->dim[2]);
    return NSM_OK;
}

/* One set of x [B, ...] to the host. */
static void set_of(nsm_ctx *ctx, const nsm_tensor *x, int64_t row, void *out)
{
    if (!x || !out) return;
    size_t bytes = (size_t)(nsm_numel(x) / x->dim[0]) * nsm_type_bytes(x->type);
    ctx->dev.be->to_host(&ctx->dev, bytes, (const char *)x->data + (size_t)row * bytes, out);
}

int nsm_fuser_flow(nsm_fuser *f, int64_t row, int64_t readers, int64_t elements, float *flow)
{
    int code = seen_ok(f, row, readers, elements);
    if (!code) set_of(f->module.ctx, f->seen, row, flow);
    return code ? code : nsm_error(f->module.ctx);
}

/* ---- states ---- */
static int states_ok(nsm_fuser *f)
{
    if (!f || nsmi_failed(f->module.ctx)) return f ? nsm_error(f->module.ctx) : NSM_EINVAL;
    return f->states ? NSM_OK
                     : nsm_error_set(f->module.ctx, NSM_EINVAL,
                                     "%s: it has no states between elements and readers",
                                     f->type->name);
}

int nsm_fuser_look(nsm_fuser *f, int64_t row, int64_t readers, int64_t elements,
                   const nsm_fuser_parts *parts)
{
    int code = states_ok(f);
    if (!code) code = seen_ok(f, row, readers, elements);
    if (code) return code;
    nsm_ctx *ctx = f->module.ctx;
    set_of(ctx, f->took, row, parts->took);
    set_of(ctx, f->read, row, parts->read);
    set_of(ctx, f->mass, row, parts->mass);
    set_of(ctx, f->opened, row, parts->opened);
    for (int64_t j = 0; parts->opened && !f->opened && j < elements; j++) parts->opened[j] = -1;
    return nsm_error(ctx);
}

int nsm_fuser_close(nsm_fuser *f, int64_t sets, const uint8_t *closed)
{
    int code = states_ok(f);
    if (code) return code;
    free(f->closed);
    f->closed = NULL;
    if (!closed) return NSM_OK;
    if (sets < 1)
        return nsm_error_set(f->module.ctx, NSM_EINVAL, "%s: states of %lld sets are to be closed",
                             f->type->name, (long long)sets);
    f->closed = nsmi_malloc(f->module.ctx, (size_t)(sets * f->states));
    if (!f->closed) return nsm_error(f->module.ctx);
    memcpy(f->closed, closed, (size_t)(sets * f->states));
    f->closed_sets = sets;
    return NSM_OK;
}

/* ---- for systems that are watched ---- */
static void keep(nsm_tensor **at, const nsm_tensor *x)
{
    nsm_tensor_free(*at);
    *at = x ? nsm_tensor_new(x->ctx, x->type, x->rank, x->dim) : NULL;
    if (*at) nsm_tensor_copy(*at, x);
}

void nsmi_fuser_keep(nsm_fuser *f, const nsm_tensor *shares) { keep(&f->seen, shares); }

void nsmi_fuser_keep_through(nsm_tape *tape, nsm_fuser *f, nsm_tensor *read, nsm_tensor *took,
                             nsm_tensor *mass, nsm_tensor *opened)
{
    read = nsm_detach(tape, read);
    took = nsm_detach(tape, took);
    keep(&f->seen, nsm_bmm(tape, read, took, false, false));
    keep(&f->read, read);
    keep(&f->took, took);
    keep(&f->mass, mass ? mass : nsm_sum(tape, took, 2, false));
    keep(&f->opened, opened);
}
