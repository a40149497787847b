/* fused_explain.c - What a fused model's answers rest on, measured.
 *
 * The fuser says how much a reader took of each element (fusion/fuser.h).  Is it so?  Without the k
 * elements that it names the accuracy should fall further than without k drawn at random, and with
 * these alone it should stay (comprehensiveness and sufficiency: DeYoung et al., ERASER,
 * arXiv:1911.03429).  Words and neighbours are left out, a picture's cells take its ground; a
 * thing's own node stays, but what was told of it before is not shown.  Beside it the accuracy
 * without each modality, and of a fuser with states without the one that each answer read most,
 * without one at random of those that it read, and without each in turn: no reader sees it, though
 * other states may have heard of it.  Of things that are asked several questions, thing i is asked
 * number i modulo their count.  What answers are of, the nodes that a pointer may point at or the
 * words that are told apart, is not taken away: there would be no right answer left. */
#include "config.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "tools/fused_parts.h"
#include "tools/progress.h"
#include "tools/tool.h"

enum { WHOLE, WITHOUT_NAMED, WITHOUT_RANDOM, NAMED_ALONE, WITHOUT_MODALITY };
enum { WITHOUT_READ_STATE = WITHOUT_MODALITY + FUSED_MODALITIES, WITHOUT_RANDOM_STATE };
enum { NAMED_WAYS = WITHOUT_RANDOM_STATE + 1, STATES_MOST = 32, WAYS = NAMED_WAYS + STATES_MOST };
static const char *const way_name[NAMED_WAYS] = {
    "accuracy",      "without_named",   "without_random",          "named_alone",
    "without_graph", "without_text",    "without_picture",         "without_most_read_state",
    "without_random_state"
};

typedef struct {
    fused_task *s;
    nsm_tensor *h;            /* the whole graph's nodes for this batch, or NULL */
    int64_t k, things, seen;  /* elements taken away; things looked at, so far */
    bool weights;             /* the fuser has some */
    int64_t states, each;     /* s; so many of them are closed in turn */
    int64_t right[WAYS];
    uint8_t *gone;            /* [things of a batch, places] */
    float *weight; /* [things of a batch, places] what was taken of each; -1: not there */
    float *read;              /* [things of a batch, s] what was read of each state */
    uint8_t *closed;          /* [things of a batch, s] */
    uint32_t *draw;           /* [places or s] */
} explainer;

static bool has_modality(const fused_task *s, int m)
{
    return m == FUSED_GRAPH ? s->graph : m == FUSED_TEXT ? s->text : s->picture;
}

bool fused_removable(const fused_task *s)
{
    for (int m = 0; m < FUSED_MODALITIES; m++)
        if (has_modality(s, m) && m != fused_held(s)) return true;
    return false;
}

/* Can it be measured? */
static bool has_way(const explainer *e, int way)
{
    int m = way - WITHOUT_MODALITY;
    if (way == WHOLE) return true;
    if (way < WITHOUT_MODALITY) return e->k > 0 && fused_removable(e->s);
    if (way < WITHOUT_READ_STATE) return has_modality(e->s, m) && m != fused_held(e->s);
    if (way < NAMED_WAYS) return e->states > 0;
    return way - NAMED_WAYS < e->each;
}

static int count_right(explainer *e, const fused_batch *f, nsm_tensor *y, int way)
{
    int64_t c = f->choices;
    float *row = y ? fused_room(e->s->tape, f->things * f->readers, c, sizeof *row) : NULL;
    if (!row || nsm_tensor_get(y, row)) return nsm_error(e->s->ctx);
    for (int64_t i = 0; i < f->things; i++) {
        int64_t r = fused_reader(f, i, i), best = 0;
        if (r < 0) continue;
        const float *logit = row + (i * f->readers + r) * c;
        for (int64_t j = 1; j < c; j++)
            if (logit[j] > logit[best]) best = j;
        e->right[way] += best == f->answer[i * f->readers + r];
        if (way == WHOLE) e->seen++;
    }
    return NSM_OK;
}

/* What reader r of thing i read of each state. */
static int take_read(explainer *e, const fused_batch *f, int64_t i, int64_t r)
{
    float *read = fused_room(e->s->tape, f->readers, e->states, sizeof *read);
    if (!read || nsm_fuser_look(nsm_fused_fuser(e->s->model), i, f->readers, fused_places(f),
                                &(nsm_fuser_parts){ .read = read }))
        return nsm_error(e->s->ctx);
    for (int64_t k = 0; k < e->states; k++)
        if (read[r * e->states + k] > 0) e->read[i * e->states + k] = read[r * e->states + k];
    return NSM_OK;
}

/* What each thing's reader took of each place; places that hold nothing, the own node and what
 * stays, -1. */
static int take_weights(explainer *e, const fused_batch *f)
{
    fused_task *s = e->s;
    int64_t all = fused_places(f);
    int stays = fused_held(s);
    int32_t *count[FUSED_MODALITIES] = { 0 };
    const nsm_tensor *held[FUSED_MODALITIES] = { f->in.elements, f->in.words, f->in.pictures };
    float *flow = fused_room(s->tape, f->readers, all, sizeof *flow);
    for (int m = 0; m < FUSED_MODALITIES; m++) {
        count[m] = held[m] ? fused_room(s->tape, f->things, 1, sizeof **count) : NULL;
        if (held[m] && (!count[m] || nsm_tensor_get(held[m], count[m]))) return nsm_error(s->ctx);
    }
    for (int64_t i = 0; flow && i < f->things; i++) {
        int64_t r = fused_reader(f, i, i), at = 0;
        if (nsm_fuser_flow(nsm_fused_fuser(s->model), i, f->readers, all, flow)) break;
        if (e->states && r >= 0 && take_read(e, f, i, r)) break;
        for (int m = 0; m < FUSED_MODALITIES; m++)
            for (int64_t j = 0; j < f->places[m]; j++, at++) {
                bool own = m == FUSED_GRAPH && j == 0 && !s->graphs,
                     there = (!count[m] || j < count[m][i]) && !own && m != stays;
                e->weight[i * all + at] = there && r >= 0 ? flow[r * all + at] : -1;
            }
    }
    return nsm_error(s->ctx);
}

/* Mark the k places of one thing that come first: by weight, or in a random order. */
static void mark(const explainer *e, int64_t k, const float *weight, int64_t places, bool random,
                 bool others, uint8_t *gone)
{
    /* what has no weight is not there, or stays */
    for (int64_t j = 0; j < places; j++) gone[j] = others && weight[j] >= 0;
    for (; k > 0; k--) {
        int64_t best = -1;
        for (int64_t j = 0; j < places; j++) {
            if (weight[j] < 0 || gone[j] != others) continue;
            if (best < 0 || (random ? e->draw[j] > e->draw[best] : weight[j] > weight[best]))
                best = j;
        }
        if (best < 0) return;
        gone[best] = !others;
    }
}

static void mark_modality(const fused_batch *f, int modality, int64_t places, uint8_t *gone)
{
    int64_t at = 0;
    memset(gone, 0, (size_t)places);
    for (int m = 0; m < FUSED_MODALITIES; m++) {
        if (m == modality) memset(gone + at, 1, (size_t)f->places[m]);
        at += f->places[m];
    }
}

static void draw_numbers(explainer *e, const fused_batch *f, int64_t i, int64_t count)
{
    nsm_random from = { 7, (uint64_t)f->from->node[i] };
    for (int64_t j = 0; j < count; j++) e->draw[j] = nsm_random_u32(from, (uint64_t)j);
}

/* What is taken away of the batch's elements; states are closed. */
static int mark_batch(explainer *e, const fused_batch *f, int way)
{
    int64_t all = fused_places(f);
    for (int64_t i = 0; i < f->things && way < WITHOUT_READ_STATE; i++) {
        uint8_t *gone = e->gone + i * all;
        draw_numbers(e, f, i, all);
        if (way >= WITHOUT_MODALITY) mark_modality(f, way - WITHOUT_MODALITY, all, gone);
        else
            mark(e, e->k, e->weight + i * all, all, way == WITHOUT_RANDOM, way == NAMED_ALONE,
                 gone);
    }
    e->s->gone = way < WITHOUT_READ_STATE ? e->gone : NULL;
    if (way < WITHOUT_READ_STATE) return NSM_OK;
    for (int64_t i = 0; i < f->things; i++) {
        uint8_t *closed = e->closed + i * e->states;
        draw_numbers(e, f, i, e->states);
        if (way < NAMED_WAYS)
            mark(e, 1, e->read + i * e->states, e->states, way == WITHOUT_RANDOM_STATE, false,
                 closed);
        else
            for (int64_t k = 0; k < e->states; k++) closed[k] = k == way - NAMED_WAYS;
    }
    return nsm_fuser_close(nsm_fused_fuser(e->s->model), f->things, e->closed);
}

static void clear_room(explainer *e)
{
    free(e->gone);
    free(e->weight);
    free(e->read);
    free(e->closed);
    free(e->draw);
}

static bool room_for(explainer *e, const fused_batch *f)
{
    nsm_ctx *ctx = e->s->ctx;
    size_t things = (size_t)f->things, all = (size_t)fused_places(f), states = (size_t)e->states;
    clear_room(e);
    e->gone = nsmi_malloc(ctx, things * all);
    e->weight = nsmi_malloc(ctx, things * all * sizeof *e->weight);
    e->read = nsmi_malloc(ctx, things * states * sizeof *e->read);
    e->closed = nsmi_malloc(ctx, things * states);
    e->draw = nsmi_malloc(ctx, (all > states ? all : states) * sizeof *e->draw);
    /* a state that was not read is none to draw */
    for (size_t k = 0; e->read && k < things * states; k++) e->read[k] = -1;
    return !nsm_error(ctx);
}

/* The batch once more, something of it taken away. */
static int ask_again(explainer *e, const fused_batch *f, int way)
{
    fused_task *s = e->s;
    /* the answers stand on the tape: the batch is laid out anew, the same way */
    fused_batch again = { .from = f->from, .things = f->things };
    memcpy(again.places, f->places, sizeof again.places);
    nsm_tensor *y = mark_batch(e, &again, way) ? NULL : fused_logits(s, f->from, e->h, &again);
    s->gone = NULL;
    if (y) count_right(e, &again, y, way);
    if (e->states) nsm_fuser_close(nsm_fused_fuser(s->model), 0, NULL);
    fused_end_step(s);
    return nsm_error(s->ctx);
}

static int explain_batch(explainer *e, const nsm_batch *b)
{
    fused_task *s = e->s;
    fused_batch f = { 0 };
    nsm_fuser *fuser = nsm_fused_fuser(s->model);
    int code = e->weights ? nsm_fuser_watch(fuser, true) : NSM_OK;
    nsm_tape_inference(s->node_tape, true);
    e->h = s->graph && s->whole ? fused_whole_nodes(s, s->node_tape, b) : NULL;
    nsm_tensor *y = code ? NULL : fused_logits(s, b, e->h, &f);
    code = y ? count_right(e, &f, y, WHOLE) : nsm_error(s->ctx);
    if (!code && (!room_for(e, &f) || (e->weights && take_weights(e, &f))))
        code = nsm_error(s->ctx);
    if (e->weights) nsm_fuser_watch(fuser, false);
    fused_end_step(s);
    for (int way = WHOLE + 1; !code && way < WAYS; way++)
        if (has_way(e, way)) code = ask_again(e, &f, way);
    nsm_tape_reset(s->node_tape);
    return nsm_error(s->ctx) ? nsm_error(s->ctx) : code;
}

static json_t *found(const explainer *e)
{
    json_t *o = json_pack("{s:I, s:I}", "taken_away", (json_int_t)e->k, "things",
                          (json_int_t)e->seen);
    for (int way = 0; way < NAMED_WAYS; way++)
        if (has_way(e, way))
            json_object_set_new(o, way_name[way],
                                report_real((double)e->right[way] / (double)e->seen));
    json_t *states = json_array();
    for (int64_t k = 0; k < e->each; k++)
        json_array_append_new(
            states, json_pack("{s:I, s:o}", "without_state", (json_int_t)k, "accuracy",
                              report_real((double)e->right[NAMED_WAYS + k] / (double)e->seen)));
    if (e->each) json_object_set(o, "states", states);
    json_decref(states);
    return o;
}

json_t *fused_task_explain(fused_task *s, int64_t k, int64_t things)
{
    if (fused_answers(s)) return NULL;
    if (k && !fused_removable(s)) {
        nsm_error_set(s->ctx, NSM_EINVAL,
                      "head=%s: what answers are of is not taken away, and there "
                      "is nothing beside it",
                      s->options->head);
        return NULL;
    }
    const nsm_fuser *fuser = nsm_fused_fuser(s->model);
    explainer e = { .s = s, .k = k, .states = fuser->states,
                    .each = fuser->states < STATES_MOST ? fuser->states : STATES_MOST,
                    .weights = fuser->type->weights != NULL };
    if (k && !e.weights) nsm_fuser_watch(nsm_fused_fuser(s->model), true); /* which says why not */
    int32_t *node = fused_draw(s, 0, &things);
    for (int64_t i = 0; node && i < things; i++) node[i] += (int32_t)s->data.first;
    if (s->guess) nsm_tensor_get(s->told, s->guess);
    s->forget = true;
    nsm_sampler *batches = node ? fused_sampler(s, things, node, true, 0) : NULL;
    int code = batches ? nsm_sampler_start(batches, 0, 0) : nsm_error(s->ctx);
    const nsm_batch *b;
    nsm_tape_inference(s->tape, true);
    while (!code && !stop_signal() && (b = nsm_sampler_next(batches))) code = explain_batch(&e, b);
    nsm_tape_inference(s->tape, false);
    nsm_sampler_free(batches);
    free(node);
    s->forget = false;
    clear_room(&e);
    return nsm_error(s->ctx) ? NULL : found(&e);
}
