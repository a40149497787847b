/* fused_explain.c - What a fused model's answers rest on, measured.
 *
 * The fuser says how much a reader took of each element (fusion/fuser.h).  Is it so?  Without the k
 * elements that it names the accuracy should fall further than without k drawn at random, and with
 * these alone it should stay (comprehensiveness and sufficiency: DeYoung et al., ERASER,
 * arXiv:1911.03429).  Words and neighbours are left out, a picture's cells take its ground; a
 * thing's own node stays, but what was told of it before is not shown.  Beside it the accuracy
 * without each modality.  Of things that are asked several questions, thing i is asked number i
 * modulo their count. */
#include "config.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "tools/fused_parts.h"
#include "tools/progress.h"
#include "tools/tool.h"

enum { WHOLE, WITHOUT_NAMED, WITHOUT_RANDOM, NAMED_ALONE, WITHOUT_MODALITY };
enum { WAYS = WITHOUT_MODALITY + FUSED_MODALITIES };
static const char *const way_name[WAYS] = { "accuracy",      "without_named", "without_random",
                                            "named_alone",   "without_graph", "without_text",
                                            "without_picture" };

typedef struct {
    fused_task *s;
    nsm_tensor *h;            /* the whole graph's nodes for this batch, or NULL */
    int64_t k, things, seen;  /* elements taken away; things looked at, so far */
    int64_t right[WAYS];
    uint8_t *gone;            /* [things of a batch, places] */
    float *weight; /* [things of a batch, places] what was taken of each; -1: not there */
    uint32_t *draw;           /* [places] */
} explainer;

static int64_t places_of(const fused_batch *f)
{
    int64_t all = 0;
    for (int m = 0; m < FUSED_MODALITIES; m++) all += f->places[m];
    return all;
}

/* The reader of a thing that is looked at; -1: nothing is asked. */
static int64_t reader_of(const fused_batch *f, int64_t i)
{
    int64_t asked = 0;
    while (asked < f->readers && f->answer[i * f->readers + asked] >= 0) asked++;
    return asked ? i % asked : -1;
}

static int count_right(explainer *e, const fused_batch *f, nsm_tensor *y, int way)
{
    int64_t c = e->s->base.outputs;
    float *row = y ? fused_room(e->s->tape, f->things * f->readers, c, sizeof *row) : NULL;
    if (!row || nsm_tensor_get(y, row)) return nsm_error(e->s->ctx);
    for (int64_t i = 0; i < f->things; i++) {
        int64_t r = reader_of(f, i), best = 0;
        if (r < 0) continue;
        const float *logit = row + (i * f->readers + r) * c;
        for (int64_t j = 1; j < c; j++)
            if (logit[j] > logit[best]) best = j;
        e->right[way] += best == f->answer[i * f->readers + r];
        if (way == WHOLE) e->seen++;
    }
    return NSM_OK;
}

/* What each thing's reader took of each place; places that hold nothing, and the own node, -1. */
static int take_weights(explainer *e, const fused_batch *f)
{
    fused_task *s = e->s;
    int64_t all = places_of(f);
    int32_t *count[FUSED_MODALITIES] = { 0 };
    const nsm_tensor *held[FUSED_MODALITIES] = { f->in.elements, f->in.words, f->in.pictures };
    float *flow = fused_room(s->tape, f->readers, all, sizeof *flow);
    for (int m = 0; m < FUSED_MODALITIES; m++) {
        count[m] = held[m] ? fused_room(s->tape, f->things, 1, sizeof **count) : NULL;
        if (held[m] && (!count[m] || nsm_tensor_get(held[m], count[m]))) return nsm_error(s->ctx);
    }
    for (int64_t i = 0; flow && i < f->things; i++) {
        int64_t r = reader_of(f, i), at = 0;
        if (nsm_fuser_flow(nsm_fused_fuser(s->model), i, f->readers, all, flow)) break;
        for (int m = 0; m < FUSED_MODALITIES; m++)
            for (int64_t j = 0; j < f->places[m]; j++, at++) {
                bool there = (!count[m] || j < count[m][i]) && !(m == FUSED_GRAPH && j == 0);
                e->weight[i * all + at] = there && r >= 0 ? flow[r * all + at] : -1;
            }
    }
    return nsm_error(s->ctx);
}

/* Mark the k places of one thing that come first: by weight, or in a random order. */
static void mark(const explainer *e, const float *weight, int64_t places, bool random, bool others,
                 uint8_t *gone)
{
    memset(gone, others ? 1 : 0, (size_t)places);
    for (int64_t k = 0; k < e->k; k++) {
        int64_t best = -1;
        for (int64_t j = 0; j < places; j++) {
            if (weight[j] < 0 || gone[j] != (others ? 1 : 0)) continue;
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

static void mark_batch(explainer *e, const fused_batch *f, int way)
{
    int64_t all = places_of(f);
    for (int64_t i = 0; i < f->things; i++) {
        uint8_t *gone = e->gone + i * all;
        nsm_random from = { 7, (uint64_t)f->from->node[i] };
        for (int64_t j = 0; j < all; j++) e->draw[j] = nsm_random_u32(from, (uint64_t)j);
        if (way >= WITHOUT_MODALITY) mark_modality(f, way - WITHOUT_MODALITY, all, gone);
        else mark(e, e->weight + i * all, all, way == WITHOUT_RANDOM, way == NAMED_ALONE, gone);
    }
}

static bool room_for(explainer *e, const fused_batch *f)
{
    size_t all = (size_t)places_of(f), cells = all * (size_t)f->things;
    free(e->gone);
    free(e->weight);
    free(e->draw);
    e->gone = nsmi_malloc(e->s->ctx, cells);
    e->weight = nsmi_malloc(e->s->ctx, cells * sizeof *e->weight);
    e->draw = nsmi_malloc(e->s->ctx, all * sizeof *e->draw);
    return e->gone && e->weight && e->draw;
}

static int explain_batch(explainer *e, const nsm_batch *b)
{
    fused_task *s = e->s;
    fused_batch f = { 0 };
    nsm_fuser *fuser = nsm_fused_fuser(s->model);
    int code = nsm_fuser_watch(fuser, true);
    nsm_tape_inference(s->node_tape, true);
    e->h = s->graph && s->whole ? fused_whole_nodes(s, s->node_tape, b) : NULL;
    nsm_tensor *y = code ? NULL : fused_logits(s, b, e->h, &f);
    code = y ? count_right(e, &f, y, WHOLE) : nsm_error(s->ctx);
    if (!code && (!room_for(e, &f) || take_weights(e, &f))) code = nsm_error(s->ctx);
    nsm_fuser_watch(fuser, false);
    fused_end_step(s);
    for (int way = WHOLE + 1; !code && way < WAYS; way++) {
        if (way >= WITHOUT_MODALITY && !f.places[way - WITHOUT_MODALITY]) continue;
        /* the answers stand on the tape: the batch is laid out anew, the same way */
        fused_batch again = { 0 };
        memcpy(again.places, f.places, sizeof f.places);
        again.from = b;
        again.things = b->seeds;
        mark_batch(e, &again, way);
        s->gone = e->gone;
        y = fused_logits(s, b, e->h, &again);
        s->gone = NULL;
        code = y ? count_right(e, &again, y, way) : nsm_error(s->ctx);
        fused_end_step(s);
    }
    nsm_tape_reset(s->node_tape);
    return nsm_error(s->ctx) ? nsm_error(s->ctx) : code;
}

json_t *fused_task_explain(fused_task *s, int64_t k, int64_t things)
{
    explainer e = { .s = s, .k = k };
    if (s->retrieval) {
        nsm_error_set(s->ctx, NSM_EINVAL, "--explain is for models of classes or answers, not of "
                                          "sides");
        return NULL;
    }
    int64_t count = s->looks[NSM_TEST];
    if (count > things) count = things;
    if (s->guess) nsm_tensor_get(s->told, s->guess);
    s->forget = true;
    nsm_sampler *batches = fused_sampler(s, count, s->look[NSM_TEST], true, 0);
    int code = batches ? nsm_sampler_start(batches, 0, 0) : nsm_error(s->ctx);
    const nsm_batch *b;
    nsm_tape_inference(s->tape, true);
    while (!code && !stop_signal() && (b = nsm_sampler_next(batches))) code = explain_batch(&e, b);
    nsm_sampler_free(batches);
    s->forget = false;
    free(e.gone);
    free(e.weight);
    free(e.draw);
    if (nsm_error(s->ctx)) return NULL;
    json_t *o = json_pack("{s:I, s:I}", "taken_away", (json_int_t)k, "things", (json_int_t)e.seen);
    const bool has[FUSED_MODALITIES] = { s->graph, s->text, s->picture };
    for (int way = 0; way < WAYS; way++)
        if (way < WITHOUT_MODALITY || has[way - WITHOUT_MODALITY])
            json_object_set_new(o, way_name[way],
                                report_real((double)e.right[way] / (double)e.seen));
    return o;
}
