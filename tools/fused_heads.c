/* fused_heads.c - What is asked of a batch's things, and of what the answers are.
 *
 *   class    of a thing its class, or the answers to its questions
 *   pointer  of a question which node it is after: that node's first place among its thing's
 *            elements
 *   token    of each word of a thing's text its class; scored by F1, the harmonic mean of precision
 *            and recall, of all classes but the first together */
#include "config.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "tools/fused_parts.h"

/* ---- what the data has ---- */
int fused_head_choose(fused_task *s)
{
    const train_options *o = s->options;
    const nsm_dataset *ds = s->ds;
    s->head = *o->head == 'p'   ? NSM_FUSED_POINTER
              : *o->head == 't' ? NSM_FUSED_TOKENS
                                : NSM_FUSED_CLASSES;
    if (s->head == NSM_FUSED_CLASSES) return NSM_OK;
    if (*o->sides || o->show_labels)
        return nsm_error_set(s->ctx, NSM_EINVAL,
                             "head=%s: sides and show_labels are for models of classes", o->head);
    if (s->head == NSM_FUSED_POINTER && (!ds->question.count || !ds->question.pointed))
        return nsm_error_set(s->ctx, NSM_EINVAL,
                             "head=pointer: %s has no questions that point at "
                             "nodes",
                             ds->name);
    if (s->head == NSM_FUSED_POINTER && o->label_smoothing > 0)
        return nsm_error_set(
            s->ctx, NSM_EINVAL,
            "head=pointer: label_smoothing would spread over elements that are not "
            "there");
    if (s->head == NSM_FUSED_TOKENS && !ds->node[ds->target].text.label)
        return nsm_error_set(s->ctx, NSM_EINVAL, "head=token: the words of %s have no classes",
                             ds->name);
    return NSM_OK;
}

/* With what is used known. */
int fused_head_check(const fused_task *s)
{
    if (s->head == NSM_FUSED_POINTER && !s->graph)
        return nsm_error_set(s->ctx, NSM_EINVAL,
                             "head=pointer points at nodes of the graph: "
                             "modalities has to name it");
    if (s->head == NSM_FUSED_TOKENS && !s->text)
        return nsm_error_set(s->ctx, NSM_EINVAL,
                             "head=token tells words of the text: modalities "
                             "has to name it");
    return NSM_OK;
}

int64_t fused_outputs(const fused_task *s)
{
    const nsm_dataset *ds = s->ds;
    if (*s->options->sides || s->head == NSM_FUSED_POINTER) return s->options->width;
    if (s->head == NSM_FUSED_TOKENS) return ds->node[ds->target].text.classes;
    return s->questions ? ds->question.classes : ds->label.columns;
}

int fused_held(const fused_task *s)
{
    return s->head == NSM_FUSED_POINTER  ? FUSED_GRAPH
           : s->head == NSM_FUSED_TOKENS ? FUSED_TEXT
                                         : -1;
}

static int64_t words_of(const fused_task *s, int64_t thing)
{
    const nsm_dataset_text *t = &s->ds->node[s->ds->target].text;
    int64_t have = t->ptr[thing + 1] - t->ptr[thing];
    return have < s->options->words ? have : s->options->words;
}

bool fused_asked(const fused_task *s, int64_t thing)
{
    const nsm_dataset_text *t = &s->ds->node[s->ds->target].text;
    if (s->head != NSM_FUSED_TOKENS) return true;
    for (int64_t k = 0; k < words_of(s, thing); k++)
        if (t->label[t->ptr[thing] + k] >= 0) return true;
    return false;
}

/* ---- what is asked ---- */
/* The place of a question's node among the elements of thing i; -1: it is after none, or an
 * error. */
static int32_t place_of(fused_task *s, const fused_batch *f, int64_t i, int64_t question)
{
    const nsm_dataset_questions *q = &s->ds->question;
    int64_t node = s->data.pointed + q->pointed[question], most = f->places[FUSED_GRAPH];
    if (q->pointed[question] < 0) return -1;
    for (int64_t j = 0; j < f->elements[i]; j++) {
        int32_t at = f->element[i * most + j];
        if ((s->whole ? at : f->from->node[at]) == node) return (int32_t)j;
    }
    nsm_error_set(s->ctx, NSM_EINVAL,
                  "question %lld points at %s %d, which is no element of its thing: an edge has to "
                  "join them, and fanouts to let it in",
                  (long long)question, s->ds->node[q->pointed_type].name, q->pointed[question]);
    return -1;
}

static void take_questions(fused_task *s, fused_batch *f)
{
    const nsm_dataset_questions *q = &s->ds->question;
    int64_t n = f->things, most = 1;
    for (int64_t i = 0; i < n; i++) {
        int64_t v = fused_target(s, f->from->node[i]),
                have = s->data.asked[v + 1] - s->data.asked[v];
        if (have > most) most = have;
    }
    f->readers = most;
    float *value = fused_room(s->tape, n * most, q->features, sizeof *value);
    f->answer = fused_room(s->tape, n, most, sizeof *f->answer);
    f->group = q->groups ? fused_room(s->tape, n, most, sizeof *f->group) : NULL;
    if (!value || !f->answer || (q->groups && !f->group)) return;
    for (int64_t i = 0; i < n; i++) {
        int64_t v = fused_target(s, f->from->node[i]), at = s->data.asked[v],
                have = s->data.asked[v + 1] - at;
        if (have)
            memcpy(value + i * most * q->features, q->value + at * q->features,
                   (size_t)(have * q->features) * sizeof *value);
        for (int64_t k = 0; k < most; k++) {
            f->answer[i * most + k] = k >= have                      ? -1
                                      : s->head == NSM_FUSED_POINTER ? place_of(s, f, i, at + k)
                                                                     : q->answer[at + k];
            if (f->group) f->group[i * most + k] = k < have ? q->group[at + k] : 0;
        }
    }
    f->in.question = nsm_tape_tensor(s->tape, NSM_F32, 3, (int64_t[]){ n, most, q->features },
                                     value);
}

static void take_tokens(fused_task *s, fused_batch *f)
{
    const nsm_dataset_text *t = &s->ds->node[s->ds->target].text;
    int64_t most = f->readers = f->places[FUSED_TEXT];
    f->answer = fused_room(s->tape, f->things, most, sizeof *f->answer);
    for (int64_t i = 0; f->answer && i < f->things; i++) {
        int64_t v = fused_target(s, f->from->node[i]), have = words_of(s, v);
        for (int64_t k = 0; k < most; k++)
            f->answer[i * most + k] = k < have ? t->label[t->ptr[v] + k] : -1;
    }
}

static void take_classes(fused_task *s, fused_batch *f)
{
    const nsm_dataset_labels *l = &s->ds->label;
    f->readers = 1;
    f->answer = fused_room(s->tape, f->things, 1, sizeof *f->answer);
    for (int64_t i = 0; f->answer && i < f->things; i++)
        f->answer[i] = l->cls ? l->cls[fused_target(s, f->from->node[i])] : -1;
}

void fused_ask(fused_task *s, fused_batch *f)
{
    f->choices = s->head == NSM_FUSED_POINTER ? f->places[FUSED_GRAPH] : s->base.outputs;
    if (s->questions) take_questions(s, f);
    else if (s->head == NSM_FUSED_TOKENS) take_tokens(s, f);
    else take_classes(s, f);
}

/* ---- scores ---- */
void fused_mark(fused_marks *m, int32_t answer, int32_t told)
{
    if (answer < 0) return;
    m->told += told > 0;
    m->there += answer > 0;
    m->right += told > 0 && told == answer;
}

/* Nothing marked where nothing is to be marked: all is right. */
double fused_f1(const fused_marks *m)
{
    return m->told + m->there ? 2 * m->right / (m->told + m->there) : 1;
}

void fused_head_details(const fused_task *s, json_t *o)
{
    const fused_marks *m = &s->marks;
    if (s->head != NSM_FUSED_TOKENS) return;
    json_object_set_new(o, "precision", report_real(m->right / m->told));
    json_object_set_new(o, "recall", report_real(m->right / m->there));
    json_object_set_new(o, "marked", json_integer((json_int_t)m->there));
}
