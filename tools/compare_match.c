/* compare_match.c - Sizes of the rows: as they are, or matched to one another.
 *
 * State: the keys that a mixer's type names as its state's sizes are tried, one after the other,
 * until the bytes of a sequence's state are nearest the target.  Parameters: the width of the
 * feed-forward, or the key that sizes a fuser's, on which they depend linearly.  What a row misses
 * its target by is said in its note: a state that is a vector of hidden units, for one, takes a
 * square of parameters to grow. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tools/compare.h"
#include "tools/fused.h"
#include "tools/sequence.h"

enum { KNOBS = 4, SWEEPS = 2, INTS = 128, SIXTEENTHS = 128, LARGEST_INT = 65536 };
static const double near = 0.005; /* near enough not to be spoken of */

/* ---- what a mixer carries ---- */
typedef struct {
    int64_t fixed, by_token, parameters;
} state_size;

static state_size size_of_state(const nsm_state *s)
{
    state_size size = { nsm_state_bytes(s), 0, 0 };
    for (int i = 0; i < s->parts; i++) {
        const nsm_tensor *x = s->part[i].tensor;
        int64_t each = 1;
        for (int k = 2; k < x->rank; k++) each *= x->dim[k];
        if (s->part[i].grows) size.by_token += each * (int64_t)nsm_type_bytes(x->type);
    }
    for (int i = 0; i < s->children; i++) {
        state_size child = size_of_state(s->child[i].state);
        size.by_token += child.by_token;
    }
    return size;
}

/* Of one layer with these options; fixed -1: there is no such mixer. */
static state_size size_of_layer(nsm_ctx *ctx, const contender *m, const char *options)
{
    state_size size = { -1, 0, 0 };
    if (nsm_error(ctx)) return size;
    nsm_mixer *mixer = nsm_mixer_new(ctx, m->type->name,
                                     &(nsm_mixer_config){ .width = (int)m->o.width,
                                                          .options = options,
                                                          .layers = (int)m->o.layers });
    nsm_state *s = mixer ? nsm_mixer_state(mixer, 1) : NULL;
    if (s) size = size_of_state(s);
    if (mixer) size.parameters = nsm_module_count(nsm_mixer_module(mixer));
    nsm_state_free(s);
    nsm_mixer_free(mixer);
    nsm_error_clear(ctx);
    return size;
}

/* ---- equal states ---- */
typedef struct {
    nsm_ctx *ctx;
    const contender *m;
    double target; /* bytes of a layer */
    const nsm_mixer_key *key[KNOBS];
    double value[KNOBS]; /* NaN: as the options have it */
    int knobs;
    double off; /* |log(bytes / target)| of these values */
    double bytes;
    int64_t parameters, most; /* of the layer's mixer, and what they may grow to */
} search;

/* The row's options with those values behind them, which so count. */
static const char *options_of(const search *s, char text[1024])
{
    char number[32];
    int n = snprintf(text, 1024, "%s", s->m->o.mixer_options);
    for (int k = 0; k < s->knobs && n < 960; k++)
        if (!isnan(s->value[k]))
            n += snprintf(text + n, (size_t)(1024 - n), " %s=%s", s->key[k]->name,
                          real_text(s->value[k], number));
    return text;
}

static void measure(search *s)
{
    char text[1024];
    state_size size = size_of_layer(s->ctx, s->m, options_of(s, text));
    s->bytes = (double)size.fixed;
    s->parameters = size.parameters;
    s->off = size.fixed > 0 && (!s->most || size.parameters <= s->most)
                 ? fabs(log(s->bytes / s->target))
                 : INFINITY;
}

/* Number i of the values that a key is tried with, rising; NaN behind the last. */
static double candidate(const nsm_mixer_key *key, int i)
{
    double v = key->type == NSM_KEY_REAL ? (i + 1) / 16.0
               : i < INTS                ? i + 1
                                         : floor(INTS * pow(1.03, i - INTS));
    bool end = v > key->high || (key->type == NSM_KEY_REAL ? i >= SIXTEENTHS : v > LARGEST_INT);
    return end ? NAN : v < key->low ? key->low : v;
}

/* Turn one knob through all its values and leave it where the state is nearest. */
static void turn(search *s, int knob)
{
    search best = *s;
    double last = INFINITY;
    for (int i = 0; !isnan(s->value[knob] = candidate(s->key[knob], i)); i++) {
        measure(s);
        if (s->off < best.off - 1e-9) best = *s;
        bool large = s->bytes > 2 * s->target || s->parameters > s->most;
        if (s->bytes > last && large) break; /* it only grows from here on */
        if (s->bytes > 0) last = s->bytes;
    }
    *s = best;
}

/* All real knobs by the same factor: two sizes a little off rather than one by far. */
static void turn_together(search *s)
{
    search best = *s;
    int turned = 0;
    for (int f = 1; f <= SIXTEENTHS; f++) {
        turned = 0;
        for (int k = 0; k < s->knobs; k++)
            if (s->key[k]->type == NSM_KEY_REAL)
                s->value[k] = s->key[k]->fallback * f / 16, turned++;
        if (turned < 2) return;
        measure(s);
        if (s->off < best.off - 1e-9) best = *s;
    }
    *s = best;
}

static bool is_given(const char *options, const char *key)
{
    size_t n = strlen(key);
    for (const char *p = options; *(p += strspn(p, " ,")); p += strcspn(p, " ,"))
        if (!strncmp(p, key, n) && p[n] == '=') return true;
    return false;
}

static search search_of(nsm_ctx *ctx, const contender *m, double target, double grow)
{
    search s = { .ctx = ctx, .m = m, .target = target };
    for (const char *p = m->type->sizes ? m->type->sizes : "";
         *(p += strspn(p, " ")) && s.knobs < KNOBS; p += strcspn(p, " "))
        for (const nsm_mixer_key *k = m->type->keys; k && k->name; k++) {
            if (strlen(k->name) != strcspn(p, " ") || strncmp(p, k->name, strlen(k->name)) ||
                is_given(m->o.mixer_options, k->name))
                continue;
            s.key[s.knobs] = k;
            s.value[s.knobs++] = NAN;
        }
    measure(&s);
    s.most = (int64_t)(grow * (double)s.parameters);
    return s;
}

static int match_state(comparison *c, contender *m, int64_t target)
{
    char text[1024];
    if (m->token_bytes) {
        snprintf(m->note, sizeof m->note, "its state grows with every token and cannot be matched");
        return NSM_OK;
    }
    search s = search_of(c->ctx, m, (double)target / (double)m->o.layers, c->s.grow);
    if (s.knobs) turn_together(&s);
    for (int i = 0; i < SWEEPS * s.knobs && s.off > near / 8; i++) turn(&s, i % s.knobs);
    if (settings_set(c->ctx, train_fields, &m->o, "mixer_options", options_of(&s, text), m->label))
        return nsm_error(c->ctx);
    m->state_bytes = (int64_t)s.bytes * m->o.layers;
    double off = 100 * ((double)m->state_bytes / (double)target - 1);
    if (fabs(off) > 100 * near)
        snprintf(m->note, sizeof m->note, "state %+.1f %%%s", off,
                 !s.knobs   ? ": only the width sizes it"
                 : off < -5 ? ": more would take too many parameters"
                            : "");
    return NSM_OK;
}

/* ---- equal parameters ---- */
static int64_t count_parameters(comparison *c, contender *m)
{
    int64_t count = -1;
    fused_task *f = c->fused ? fused_task_new(c->ctx, &m->o, c->things, NULL) : NULL;
    sequence_task *s = c->ds ? sequence_task_new(c->ctx, &m->o, c->ds, NULL) : NULL;
    if (f) count = nsm_module_count(fused_task_base(f)->module);
    if (s) count = nsm_module_count(sequence_task_base(s)->module);
    if (!c->ds && !c->fused) count = 0; /* time against length: the jobs tell */
    fused_task_free(f);
    sequence_task_free(s);
    return count;
}

/* Is there something that sizes a row, the feed-forward of a mixer or a fuser's own key? */
static bool has_size(const contender *m)
{
    return !m->fuser || (m->fuser->size && !is_given(m->o.fuser_options, m->fuser->size));
}

static int set_size(comparison *c, contender *m, const char *options, int64_t size)
{
    char text[1024];
    if (!m->fuser) {
        m->o.inner = size;
        return NSM_OK;
    }
    snprintf(text, sizeof text, "%.900s%s%s=%lld", options, *options ? " " : "", m->fuser->size,
             (long long)size);
    return settings_set(c->ctx, train_fields, &m->o, "fuser_options", text, m->label);
}

/* Parameters depend linearly on the size: two of them tell which is nearest. */
static int fit_size(comparison *c, contender *m, int64_t target, bool *fitted)
{
    int64_t count[2] = { 0 }, inner = m->o.inner;
    char *options = strdup(m->o.fuser_options);
    for (int k = 0; options && k < 2 && !nsm_error(c->ctx); k++) {
        if (set_size(c, m, options, k + 1)) break;
        count[k] = count_parameters(c, m);
    }
    double slope = (double)(count[1] - count[0]),
           size = slope > 0 ? fmax(1, 1 + round((double)(target - count[0]) / slope)) : 0;
    *fitted = slope > 0;
    if (!nsm_error(c->ctx) && *fitted) set_size(c, m, options, (int64_t)size);
    else if (!nsm_error(c->ctx) && m->fuser)
        settings_set(c->ctx, train_fields, &m->o, "fuser_options", options, m->label);
    else m->o.inner = inner;
    if (!options) nsm_error_set(c->ctx, NSM_ENOMEM, "out of memory");
    free(options);
    return nsm_error(c->ctx);
}

static int match_params(comparison *c, contender *m, int64_t target)
{
    bool fitted = false;
    if (has_size(m) && fit_size(c, m, target, &fitted)) return nsm_error(c->ctx);
    m->parameters = count_parameters(c, m);
    double off = 100 * ((double)m->parameters / (double)target - 1);
    size_t n = strlen(m->note);
    if (fabs(off) > 100 * near)
        snprintf(m->note + n, sizeof m->note - n, "%sparameters %+.1f %%%s", n ? "; " : "", off,
                 !fitted     ? ": there is no feed-forward to size"
                 : m->fuser  ? ""
                             : ": even without feed-forward");
    return nsm_error(c->ctx);
}

/* ---- all rows ---- */
/* The first row whose state has a fixed size, or whose parameters are known, sets what the others
 * are matched to. */
static int64_t state_target(const comparison *c)
{
    for (int i = 0; i < c->models; i++)
        if (!c->model[i].token_bytes && c->model[i].state_bytes) return c->model[i].state_bytes;
    return 0;
}

static int look(comparison *c, contender *m)
{
    state_size size = { -1, 0, 0 };
    if (m->type) size = size_of_layer(c->ctx, m, m->o.mixer_options);
    m->state_bytes = size.fixed > 0 ? size.fixed * m->o.layers : 0;
    m->token_bytes = size.by_token * m->o.layers;
    m->parameters = count_parameters(c, m);
    return nsm_error(c->ctx);
}

int compare_sizes(comparison *c)
{
    const int each = c->s.state.count ? c->s.state.count
                                      : 1; /* rows of a model stand together, one a state's size */
    for (int i = 0; i < c->models; i++)
        if (look(c, &c->model[i])) return nsm_error(c->ctx);
    int64_t target = state_target(c);
    for (int i = 0; i < c->models && c->match & MATCH_STATE && target; i++)
        if (match_state(c, &c->model[i],
                        c->s.state.count ? (int64_t)c->s.state.value[i % each] : target))
            return nsm_error(c->ctx);
    for (int i = 0; i < c->models && c->match; i++)
        c->model[i].parameters = count_parameters(c, &c->model[i]);
    target = c->s.params ? c->s.params : c->model[0].parameters;
    for (int i = 0; i < c->models && c->match & MATCH_PARAMS; i++)
        if (match_params(c, &c->model[i], target)) return nsm_error(c->ctx);
    nsm_ctx_trim(c->ctx);
    return nsm_error(c->ctx);
}
