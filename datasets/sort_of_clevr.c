/* datasets/sort_of_clevr.c - Sort-of-CLEVR: pictures of six coloured shapes, and questions.
 *
 * Santoro et al., "A simple neural network module for relational reasoning", NeurIPS 2017,
 * arXiv:1706.01427, section 4.2 and supplementary C: one object of each colour, square or circle,
 * 10 questions of a picture about one object and 10 about how objects stand to each other.  A
 * question is 11 numbers: the colour it names (6), of one object or relational (2), which of three
 * (3).
 *
 *   one object: its shape; is it left; is it above          the middle of the picture
 *   relational: the shape of the object nearest to it; of the farthest; how many have its shape
 *
 * What the paper leaves open: shapes are 11 pixels wide in 75, at least a pixel apart; no object is
 * as far from one as from another, so that every answer is one.  Beside its picture a scene has its
 * objects as nodes with edges to it: the colour (6), the shape (2), x and y in 0..1; and a question
 * points at the object whose shape or place it asks for, one about how many have its shape at none.
 * All in whole numbers, each scene from its own draws: the same bytes on every machine. */
#include "config.h"
#include "datasets/planted.h"

enum {
    COLOURS = 6,
    OBJECTS = COLOURS,
    HALF = 5,
    GAP = 2 * HALF + 2,
    EACH = 10,
    QUESTION = 11,
    ANSWERS = 10,
    KINDS = 6,
    FEATURES = COLOURS + 4,
    STREAM_SCENES = 16,
    DRAWS = 20
};
enum { YES, NO, SQUARE, CIRCLE, ONE }; /* answers; SQUARE, CIRCLE less SQUARE is a shape */
enum { SHAPE, LEFT, ABOVE, NEAREST, FARTHEST, SAME_SHAPE }; /* kinds */

static const uint8_t colour[COLOURS][3] = { { 255, 0, 0 },   { 0, 255, 0 },     { 0, 0, 255 },
                                            { 255, 156, 0 }, { 128, 128, 128 }, { 255, 255, 0 } };
static const char *const colour_name[COLOURS] = {
    "red", "green", "blue", "orange", "grey", "yellow"
};
static const char *const value_name[QUESTION] = { "red",          "green",       "blue",
                                                  "orange",       "grey",        "yellow",
                                                  "one object",   "relational",  "1st of three",
                                                  "2nd of three", "3rd of three" };
static const char *const answer_name[ANSWERS] = { "yes", "no", "rectangle", "circle", "1",
                                                  "2",   "3",  "4",         "5",      "6" };
static const char *const kind_name[KINDS] = { "shape",   "left",     "above",
                                              "nearest", "farthest", "count" };

typedef struct {
    int64_t x[OBJECTS], y[OBJECTS];
    int shape[OBJECTS];
} scene;

/* Draws of one scene: at most 2^DRAWS of them, far more than any takes. */
typedef struct {
    uint64_t seed, next;
} draws;
static int64_t below(draws *d, int64_t n)
{
    return (int64_t)((uint64_t)nsmi_draw(d->seed, STREAM_SCENES, d->next++) * (uint64_t)n >> 32);
}

static int64_t distance(const scene *s, int a, int b)
{
    int64_t dx = s->x[a] - s->x[b], dy = s->y[a] - s->y[b];
    return dx * dx + dy * dy;
}

/* Does object n keep its distance, and is it as far from none as from another, or as these are? */
static bool fits(const scene *s, int n)
{
    for (int a = 0; a < n; a++) {
        if (llabs(s->x[a] - s->x[n]) < GAP && llabs(s->y[a] - s->y[n]) < GAP) return false;
        for (int b = 0; b < n; b++)
            if (b != a &&
                (distance(s, n, a) == distance(s, n, b) || distance(s, n, a) == distance(s, a, b)))
                return false;
    }
    return true;
}

static void place(draws *d, int64_t size, scene *s)
{
    for (int n = 0; n < OBJECTS; n++) {
        s->shape[n] = (int)below(d, 2);
        do {
            s->x[n] = HALF + below(d, size - 2 * HALF);
            s->y[n] = HALF + below(d, size - 2 * HALF);
        } while (!fits(s, n));
    }
}

static void draw(const scene *s, int64_t size, uint8_t *pixel)
{
    memset(pixel, 255, (size_t)(size * size * 3));
    for (int n = 0; n < OBJECTS; n++)
        for (int64_t dy = -HALF; dy <= HALF; dy++)
            for (int64_t dx = -HALF; dx <= HALF; dx++)
                if (s->shape[n] == 0 || dx * dx + dy * dy <= HALF * HALF)
                    memcpy(pixel + ((s->y[n] + dy) * size + s->x[n] + dx) * 3, colour[n], 3);
}

static int other(const scene *s, int n, bool farthest)
{
    int best = n ? 0 : 1;
    for (int a = 0; a < OBJECTS; a++)
        if (a != n && (farthest ? distance(s, n, a) > distance(s, n, best)
                                : distance(s, n, a) < distance(s, n, best)))
            best = a;
    return best;
}

/* The object that a question about object n is after, -1: none. */
static int object_of(const scene *s, int n, int kind)
{
    if (kind == SAME_SHAPE) return -1;
    return kind == NEAREST || kind == FARTHEST ? other(s, n, kind == FARTHEST) : n;
}

static int answer_of(const scene *s, int64_t size, int n, int kind)
{
    int count = 0, object = object_of(s, n, kind);
    switch (kind) {
    case LEFT: return 2 * s->x[n] + 1 < size ? YES : NO;
    case ABOVE: return 2 * s->y[n] + 1 < size ? YES : NO;
    case SAME_SHAPE:
        for (int a = 0; a < OBJECTS; a++) count += s->shape[a] == s->shape[n];
        return ONE + count - 1;
    default: return SQUARE + s->shape[object];
    }
}

static void ask(draws *d, const scene *s, int64_t size, int64_t first, int32_t node,
                nsm_dataset_questions *q)
{
    for (int64_t k = first; k < first + 2 * EACH; k++) {
        bool relational = k >= first + EACH;
        int n = (int)below(d, COLOURS), which = (int)below(d, 3), kind = 3 * relational + which,
            object = object_of(s, n, kind);
        float *value = q->value + k * QUESTION;
        memset(value, 0, QUESTION * sizeof *value);
        value[n] = value[COLOURS + relational] = value[COLOURS + 2 + which] = 1;
        q->node[k] = node;
        q->group[k] = kind;
        q->answer[k] = answer_of(s, size, n, kind);
        q->pointed[k] = object < 0 ? -1 : node * OBJECTS + object;
    }
}

/* Objects of scene i as nodes and edges. */
static void list_objects(nsm_dataset *ds, const scene *s, int64_t size, int64_t i)
{
    float *x = ds->node[1].dense + i * OBJECTS * FEATURES;
    for (int n = 0; n < OBJECTS; n++, x += FEATURES) {
        memset(x, 0, FEATURES * sizeof *x);
        x[n] = x[COLOURS + s->shape[n]] = 1;
        x[COLOURS + 2] = (float)s->x[n] / (float)(size - 1);
        x[COLOURS + 3] = (float)s->y[n] / (float)(size - 1);
        ds->edge[0].src[i * OBJECTS + n] = (int32_t)(i * OBJECTS + n);
        ds->edge[0].dst[i * OBJECTS + n] = (int32_t)i;
    }
}

/* "red circle at 12,40", for all: not from several threads. */
static void name_objects(nsm_dataset *ds, int64_t size)
{
    nsm_dataset_nodes *v = &ds->node[1];
    v->names = nsmi_calloc(ds->ctx, (size_t)v->count, sizeof *v->names);
    for (int64_t i = 0; v->names && i < v->count && !nsmi_failed(ds->ctx); i++) {
        const float *x = v->dense + i * FEATURES;
        v->names[i] = nsmi_format(ds->ctx, "%s %s at %ld,%ld", colour_name[i % OBJECTS],
                                  answer_name[x[COLOURS] > 0 ? SQUARE : CIRCLE],
                                  lrintf(x[COLOURS + 2] * (float)(size - 1)),
                                  lrintf(x[COLOURS + 3] * (float)(size - 1)));
    }
}

static char **strings(nsm_dataset *ds, int64_t count, const char *const *from)
{
    char **to = nsm_dataset_array(ds, count, sizeof *to);
    for (int64_t k = 0; to && k < count; k++) to[k] = nsm_dataset_string(ds, from[k]);
    return to;
}

/* Room for all: scenes with pictures, objects, edges, questions. */
static void make_room(nsm_dataset *ds, int64_t scenes, int64_t size)
{
    nsm_dataset_nodes *v = nsm_dataset_add_nodes(ds, "scene", scenes), *o = NULL;
    nsm_dataset_questions *q = &ds->question;
    int64_t count = scenes * 2 * EACH;
    if (v) v->image = (nsm_dataset_images){ size, size, 3, NULL, NULL };
    if (v) v->image.pixel = nsm_dataset_array(ds, scenes * size * size * 3, 1);
    if (v) o = nsm_dataset_add_nodes(ds, "object", scenes * OBJECTS);
    if (o) o->dense = nsm_dataset_array(ds, scenes * OBJECTS * FEATURES, sizeof *o->dense);
    if (o) o->features = FEATURES;
    if (o) nsm_dataset_add_edges(ds, "in", 1, 0, scenes * OBJECTS);
    if (nsmi_failed(ds->ctx)) return;
    ds->directed = true;
    *q = (nsm_dataset_questions){
        .count = count, .features = QUESTION, .classes = ANSWERS, .groups = KINDS
    };
    q->node = nsm_dataset_array(ds, count, sizeof *q->node);
    q->value = nsm_dataset_array(ds, count * QUESTION, sizeof *q->value);
    q->answer = nsm_dataset_array(ds, count, sizeof *q->answer);
    q->group = nsm_dataset_array(ds, count, sizeof *q->group);
    q->answer_names = strings(ds, ANSWERS, answer_name);
    q->group_names = strings(ds, KINDS, kind_name);
    q->value_names = strings(ds, QUESTION, value_name);
    q->pointed = nsm_dataset_array(ds, count, sizeof *q->pointed);
    q->pointed_type = 1;
}

static void fill(nsm_dataset *ds, int64_t size, uint64_t seed)
{
    int64_t scenes = ds->node[0].count;
#pragma omp parallel for schedule(static) num_threads(ds->ctx->dev.threads)
    for (int64_t i = 0; i < scenes; i++) {
        draws d = { seed, (uint64_t)i << DRAWS };
        scene s;
        place(&d, size, &s);
        draw(&s, size, ds->node[0].image.pixel + i * size * size * 3);
        list_objects(ds, &s, size, i);
        ask(&d, &s, size, i * 2 * EACH, (int32_t)i, &ds->question);
    }
}

static void split(nsm_dataset *ds, const int64_t count[NSM_SPLIT_PARTS])
{
    nsm_dataset_split *s = nsm_dataset_add_split(ds, "default");
    for (int64_t p = 0, at = 0; s && p < NSM_SPLIT_PARTS; at += count[p++]) {
        s->index[p] = nsm_dataset_array(ds, count[p], sizeof *s->index[p]);
        s->count[p] = s->index[p] ? count[p] : 0;
        for (int64_t k = 0; k < s->count[p]; k++) s->index[p][k] = (int32_t)(at + k);
    }
}

nsm_dataset *nsmi_generate_sort_of_clevr(nsm_ctx *ctx, const char *kind, const nsmi_options *o)
{
    const int64_t most = 10000000,
                  count[NSM_SPLIT_PARTS] = { nsmi_option_int(o, "train", 1, most, 9800),
                                             nsmi_option_int(o, "valid", 0, most, 200),
                                             nsmi_option_int(o, "test", 0, most, 200) };
    int64_t size = nsmi_option_int(o, "size", 75, 1024, 75);
    uint64_t seed = (uint64_t)nsmi_option_int(o, "seed", 0, INT64_MAX, 0);
    nsm_dataset *ds = nsmi_failed(ctx) ? NULL : nsm_dataset_new(ctx, kind);
    if (ds) make_room(ds, count[0] + count[1] + count[2], size);
    if (ds && !nsmi_failed(ctx)) {
        fill(ds, size, seed);
        name_objects(ds, size);
        split(ds, count);
    }
    if (!nsmi_failed(ctx)) return ds;
    nsm_dataset_free(ds);
    return NULL;
}
