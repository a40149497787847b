/* fused_look.c - See fused_look.h. */
#include "config.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "tools/fused_look.h"
#include "tools/progress.h"

/* ---- how states are used ---- */
bool fused_usage_make(nsm_ctx *ctx, const nsm_fuser *fuser, fused_usage *u)
{
    size_t s = (size_t)fuser->states;
    *u = (fused_usage){ .states = fuser->states, .learned = fuser->learned };
    u->open = nsmi_calloc(ctx, s + 1, sizeof *u->open);
    u->first = nsmi_calloc(ctx, s + 1, sizeof *u->first);
    u->by_open = nsmi_calloc(ctx, s + 1, sizeof *u->by_open);
    u->mass = nsmi_calloc(ctx, s + 1, sizeof *u->mass);
    u->read = nsmi_calloc(ctx, s + 1, sizeof *u->read);
    return !nsm_error(ctx);
}

void fused_usage_clear(fused_usage *u)
{
    free(u->open);
    free(u->first);
    free(u->by_open);
    free(u->mass);
    free(u->read);
    *u = (fused_usage){ 0 };
}

static void add_thing(fused_usage *u, const float *mass, const float *read, int64_t elements,
                      const int32_t *opened, uint8_t *open)
{
    int64_t count = 0, first = 0;
    double entropy = 0;
    for (int i = 0; i < u->states; i++) open[i] = i < u->learned;
    for (int64_t j = 0; j < elements; j++)
        if (opened[j] >= 0) open[opened[j]] = 1;
    for (int i = 0; i < u->states; i++) {
        count += open[i];
        u->open[i] += open[i];
        u->mass[i] += (double)mass[i];
        u->read[i] += (double)read[i];
        if (read[i] > read[first]) first = i;
        if (read[i] > 0) entropy -= (double)read[i] * log((double)read[i]);
    }
    u->first[first]++;
    u->by_open[count]++;
    u->used += exp(entropy);
    u->things++;
}

int fused_usage_add(fused_task *s, const fused_batch *f, fused_usage *u)
{
    int64_t all = fused_places(f);
    nsm_fuser *fuser = nsm_fused_fuser(s->model);
    const nsm_fuser_parts parts = {
        .read = fused_room(s->tape, f->readers, u->states, sizeof *parts.read),
        .mass = fused_room(s->tape, 1, u->states, sizeof *parts.mass),
        .opened = fused_room(s->tape, 1, all, sizeof *parts.opened)
    };
    uint8_t *open = fused_room(s->tape, 1, u->states, 1);
    for (int64_t i = 0; open && i < f->things; i++) {
        int64_t r = fused_reader(f, i, f->from->node[i]);
        if (r < 0) continue;
        if (nsm_fuser_look(fuser, i, f->readers, all, &parts)) break;
        add_thing(u, parts.mass, parts.read + r * u->states, all, parts.opened, open);
    }
    return nsm_error(s->ctx);
}

void fused_usage_notes(const fused_usage *u, double note[3])
{
    double open = 0, mass = 0, things = (double)u->things;
    for (int i = 0; i < u->states; i++) {
        open += (double)u->open[i];
        mass += u->mass[i];
    }
    note[0] = open / things;
    note[1] = mass / open;
    note[2] = u->used / things;
}

/* ---- examples ---- */
typedef struct {
    fused_task *s;
    fused_view *v;
    int64_t right, wrong;    /* examples that are wanted still */
    bool weights;
    const fused_batch *f;
    int64_t all, states;     /* places; s */
    /* of the batch, on its tape: */
    float *p, *flow;
    nsm_fuser_parts parts;
    int32_t *node, *relation, *word, *count[FUSED_MODALITIES];
} looker;

static void *fetched(looker *l, const nsm_tensor *x)
{
    void *to = x ? fused_room(l->s->tape, nsm_numel(x), 1, nsm_type_bytes(x->type)) : NULL;
    if (to) nsm_tensor_get(x, to);
    return to;
}

/* What the batch tells of all its things. */
static int fetch(looker *l, nsm_tensor *y)
{
    fused_task *s = l->s;
    const fused_batch *f = l->f;
    const nsm_tensor *held[FUSED_MODALITIES] = { f->in.elements, f->in.words, f->in.pictures };
    l->all = fused_places(f);
    l->p = fetched(l, nsm_softmax(s->tape, y, -1));
    l->node = fetched(l, f->in.element);
    l->relation = fetched(l, f->in.relation);
    l->word = fetched(l, f->in.word);
    for (int m = 0; m < FUSED_MODALITIES; m++) l->count[m] = fetched(l, held[m]);
    l->flow = fused_room(s->tape, f->readers, l->all, sizeof *l->flow);
    l->parts = (nsm_fuser_parts){
        .took = fused_room(s->tape, l->states, l->all, sizeof *l->parts.took),
        .read = fused_room(s->tape, f->readers, l->states, sizeof *l->parts.read),
        .mass = fused_room(s->tape, 1, l->states, sizeof *l->parts.mass),
        .opened = fused_room(s->tape, 1, l->all, sizeof *l->parts.opened)
    };
    return nsm_error(s->ctx);
}

/* Is place j of modality m there, of thing i? */
static bool is_there(const looker *l, int m, int64_t i, int64_t j)
{
    return j < (l->count[m] ? l->count[m][i] : l->f->places[m]);
}

static fused_element element_of(const looker *l, int m, int64_t i, int64_t j)
{
    fused_element e = { .modality = m, .id = (int32_t)j, .opened = -1 };
    int64_t at = i * l->f->places[m] + j;
    if (m == FUSED_GRAPH) {
        e.id = l->s->whole ? l->node[at] : l->f->from->node[l->node[at]];
        e.relation = l->relation[at];
    }
    if (m == FUSED_TEXT) e.id = l->word[at];
    return e;
}

/* The elements of thing i, and what reader r took of them, directly and by way of states. */
static int take_elements(looker *l, int64_t i, int64_t r, fused_example *e)
{
    nsm_ctx *ctx = l->s->ctx;
    int64_t at = 0, states = l->states;
    for (int m = 0; m < FUSED_MODALITIES; m++)
        for (int64_t j = 0; j < l->f->places[m]; j++) e->count += is_there(l, m, i, j);
    e->element = nsmi_calloc(ctx, (size_t)e->count + 1, sizeof *e->element);
    e->took = nsmi_calloc(ctx, (size_t)(states * e->count) + 1, sizeof *e->took);
    e->read = nsmi_calloc(ctx, (size_t)states + 1, sizeof *e->read);
    e->mass = nsmi_calloc(ctx, (size_t)states + 1, sizeof *e->mass);
    if (nsm_error(ctx)) return nsm_error(ctx);
    if (states) {
        memcpy(e->read, l->parts.read + r * states, (size_t)states * sizeof *e->read);
        memcpy(e->mass, l->parts.mass, (size_t)states * sizeof *e->mass);
    }
    int64_t k = 0;
    for (int m = 0; m < FUSED_MODALITIES; m++)
        for (int64_t j = 0; j < l->f->places[m]; j++, at++) {
            if (!is_there(l, m, i, j)) continue;
            e->element[k] = element_of(l, m, i, j);
            if (l->weights) e->element[k].flow = l->flow[r * l->all + at];
            if (states) e->element[k].opened = l->parts.opened[at];
            for (int64_t q = 0; q < states; q++)
                e->took[q * e->count + k] = l->parts.took[q * l->all + at];
            k++;
        }
    return NSM_OK;
}

static int take_example(looker *l, int64_t i, int64_t r, int32_t best)
{
    fused_task *s = l->s;
    nsm_fuser *fuser = nsm_fused_fuser(s->model);
    int64_t c = l->f->choices, target = fused_target(s, l->f->from->node[i]);
    fused_example *e = &l->v->example[l->v->count++];
    *e = (fused_example){ .node = target,
                          .question = s->questions ? s->data.asked[target] + r : -1,
                          .word = s->head == NSM_FUSED_TOKENS ? (int32_t)r : -1,
                          .truth = l->f->answer[i * l->f->readers + r],
                          .best = best,
                          .choices = s->head == NSM_FUSED_POINTER ? l->f->elements[i] : c };
    e->p = nsmi_malloc(s->ctx, (size_t)c * sizeof *e->p);
    if (!e->p) return nsm_error(s->ctx);
    memcpy(e->p, l->p + (i * l->f->readers + r) * c, (size_t)c * sizeof *e->p);
    if (l->weights && nsm_fuser_flow(fuser, i, l->f->readers, l->all, l->flow))
        return nsm_error(s->ctx);
    if (l->states && nsm_fuser_look(fuser, i, l->f->readers, l->all, &l->parts))
        return nsm_error(s->ctx);
    return take_elements(l, i, r, e);
}

/* A class that is not known is asked all the same, where there is one reader. */
static int64_t asked_reader(const looker *l, int64_t i)
{
    int64_t r = fused_reader(l->f, i, l->f->from->node[i]);
    bool one = !l->s->questions && l->s->head == NSM_FUSED_CLASSES;
    return r < 0 && one ? 0 : r;
}

static int take_things(looker *l)
{
    int64_t c = l->f->choices;
    for (int64_t i = 0; i < l->f->things; i++) {
        int64_t r = asked_reader(l, i);
        if (r < 0) continue;
        const float *p = l->p + (i * l->f->readers + r) * c;
        int32_t best = 0;
        for (int32_t k = 1; k < c; k++)
            if (p[k] > p[best]) best = k;
        bool right = best == l->f->answer[i * l->f->readers + r];
        int64_t *wanted = right ? &l->right : &l->wrong;
        l->v->things++;
        l->v->right += right;
        if (*wanted <= 0) continue;
        --*wanted;
        if (take_example(l, i, r, best)) break;
    }
    return nsm_error(l->s->ctx);
}

static int look_at_batch(looker *l, const nsm_batch *b)
{
    fused_task *s = l->s;
    fused_batch f = { 0 };
    nsm_tape_inference(s->node_tape, true);
    nsm_tensor *h = s->graph && s->whole ? fused_whole_nodes(s, s->node_tape, b) : NULL;
    nsm_tensor *y = fused_logits(s, b, h, &f);
    l->f = &f;
    if (y && !fetch(l, y) && !take_things(l) && l->states)
        fused_usage_add(s, &f, &l->v->usage);
    fused_end_step(s);
    nsm_tape_reset(s->node_tape);
    return nsm_error(s->ctx);
}

/* Their numbers among all nodes, to be freed. */
static int32_t *numbers_of(fused_task *s, int64_t nodes, const int32_t *node)
{
    int32_t *all = nsmi_malloc(s->ctx, (size_t)nodes * sizeof *all);
    for (int64_t k = 0; all && k < nodes; k++) {
        if (node[k] >= 0 && node[k] < s->data.targets) {
            all[k] = (int32_t)(s->data.first + node[k]);
            continue;
        }
        nsm_error_set(s->ctx, NSM_EINVAL, "node %d is not one of the %lld %s of %s", node[k],
                      (long long)s->data.targets, s->graphs ? "graphs" : "nodes", s->ds->name);
        free(all);
        return NULL;
    }
    return all;
}

int fused_task_look(fused_task *s, int64_t nodes, const int32_t *node, int64_t right,
                    int64_t wrong, fused_view *v)
{
    nsm_fuser *fuser = nsm_fused_fuser(s->model);
    looker l = { .s = s, .v = v, .right = right, .wrong = wrong, .states = fuser->states,
                 .weights = fuser->type->weights != NULL };
    const nsm_batch *b;
    *v = (fused_view){ .example = nsmi_calloc(s->ctx, (size_t)(right + wrong) + 1,
                                              sizeof *v->example) };
    if (fused_answers(s)) return nsm_error(s->ctx);
    if (!v->example || !fused_usage_make(s->ctx, fuser, &v->usage)) return nsm_error(s->ctx);
    int32_t *all = numbers_of(s, nodes, node);
    nsm_sampler *batches = all ? fused_sampler(s, nodes, all, true, 0) : NULL;
    if (s->guess) nsm_tensor_get(s->told, s->guess);
    s->forget = true;
    nsm_tape_inference(s->tape, true);
    if (l.weights) nsm_fuser_watch(fuser, true);
    if (batches && !nsm_sampler_start(batches, 0, 0))
        while (!nsm_error(s->ctx) && !stop_signal() && (b = nsm_sampler_next(batches)))
            look_at_batch(&l, b);
    if (l.weights) nsm_fuser_watch(fuser, false);
    nsm_tape_inference(s->tape, false);
    s->forget = false;
    nsm_sampler_free(batches);
    free(all);
    return nsm_error(s->ctx);
}

void fused_view_clear(fused_view *v)
{
    for (int64_t k = 0; v->example && k < v->count; k++) {
        free(v->example[k].p);
        free(v->example[k].element);
        free(v->example[k].took);
        free(v->example[k].read);
        free(v->example[k].mass);
    }
    free(v->example);
    fused_usage_clear(&v->usage);
    *v = (fused_view){ 0 };
}
