/* sequence.c - See sequence.h.
 *
 * What a step draws depends on the seed and the step's number alone, so a resumed run draws what
 * the uninterrupted one did. */
#include "config.h"
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "tools/progress.h"
#include "tools/sequence_parts.h"

enum {
    BATCH = 32,
    POOL = 8
}; /* rows of a step, when the settings do not say; steps whose rows are drawn at once */
static const uint64_t draws_apart = 0x5e90e7ce; /* from what dropout draws of the same seed */

/* What works on data of this kind; NULL: nothing does. */
static const sequence_kind *kind_of(int64_t kind, const train_options *o)
{
    static const sequence_kind *const kinds[] = { [NSM_SEQUENCE_STREAM] = &stream_kind,
                                                  [NSM_SEQUENCE_TOKENS] = &row_kind,
                                                  [NSM_SEQUENCE_CLASS] = &row_kind,
                                                  [NSM_SEQUENCE_BITS] = &bits_kind,
                                                  [NSM_SEQUENCE_SERIES] = &forecast_kind };
    if (kind == NSM_SEQUENCE_CLASS && o->sentences) return &qa_kind;
    return kind >= 0 && kind < (int64_t)(sizeof kinds / sizeof *kinds) ? kinds[kind] : NULL;
}

/* Says where the numbers went wrong. */
static int not_finite(sequence_task *s, const sequence_batch *b, int64_t step)
{
    const char *where = s->kind->fault ? s->kind->fault(s, b) : NULL;
    return nsm_error_set(s->ctx, NSM_ENUMBER,
                         "the loss of step %lld is not finite; the first result that is not is "
                         "that of %s. Try a lower lr, or clip=1",
                         (long long)step, where ? where : "the loss itself");
}

/* ---- training ---- */
static sequence_batch upload(sequence_task *s, int64_t rows)
{
    sequence_batch b = { .rows = rows };
    s->kind->upload(s, &b);
    return b;
}

static bool alike(const sequence_batch *a, const sequence_batch *b)
{
    for (int k = 0; k < SEQUENCE_PARTS; k++)
        if (!a->part[k] != !b->part[k] ||
            (a->part[k] && memcmp(a->part[k]->dim, b->part[k]->dim, sizeof a->part[k]->dim)))
            return false;
    return true;
}

/* The place of batches of this shape, with this one in it; NULL: too many shapes have one. */
static sequence_batch *keep(sequence_task *s, const sequence_batch *b)
{
    sequence_batch *to = s->kept, *end = s->kept + SEQUENCE_SHAPES;
    while (to < end && to->rows && !alike(to, b)) to++;
    if (to == end) return NULL;
    for (int k = 0; k < SEQUENCE_PARTS; k++) {
        const nsm_tensor *x = b->part[k];
        if (x && !to->rows) to->part[k] = nsm_tensor_new(s->ctx, x->type, x->rank, x->dim);
        if (x && to->part[k]) nsm_tensor_copy(to->part[k], x);
    }
    to->rows = b->rows;
    to->asked = b->asked;
    return to;
}

static int pass(void *user)
{
    sequence_task *s = user;
    nsm_tensor *l = s->kind->loss(s, s->now, s->kind->output(s, s->now),
                                  (float)s->options->label_smoothing);
    nsm_tape_backward(s->tape, l);
    return l ? nsm_tensor_copy(s->loss, l) : nsm_tensor_zero(s->loss);
}

/* Forward and backward; returns the loss.  What a state is carried into stands elsewhere each
 * time: it is not replayed. */
static double learn(sequence_task *s, sequence_batch *b)
{
    sequence_batch *kept = s->carried || *nsm_replay_why(s->replay) ? NULL : keep(s, b);
    s->now = kept ? kept : b;
    if (kept) nsm_replay_run(s->replay, kept - s->kept, pass, s);
    else pass(s);
    return (double)nsm_tensor_item(s->loss);
}

typedef struct { int64_t place, tokens, order; } drawn;
static int by_length(const void *a, const void *b)
{
    const drawn *x = a, *y = b;
    return x->tokens != y->tokens ? (x->tokens > y->tokens) - (x->tokens < y->tokens)
                                  : (x->order > y->order) - (x->order < y->order);
}

/* Rows of unequal length: those of POOL steps are drawn at once and dealt out by length, so that
 * little is padding; which step of the pool gets which lengths is drawn too. */
static void draw_alike(sequence_task *s, const nsm_sequence_part *p, nsm_random seed, int64_t step)
{
    int64_t count = POOL * s->batch, turn[POOL];
    nsm_random from = { seed.seed, (uint64_t)(step / POOL) * (uint64_t)(2 * count + POOL) };
    drawn *all = malloc((size_t)count * sizeof *all);
    if (!all) nsm_error_set(s->ctx, NSM_ENOMEM, "out of memory for a batch");
    for (int64_t i = 0; all && i < count; i++) {
        uint64_t draw = (uint64_t)nsm_random_u32(from, 2 * (uint64_t)i) << 32 |
                        nsm_random_u32(from, 2 * (uint64_t)i + 1);
        all[i] = (drawn){ .place = (int64_t)(draw % (uint64_t)p->rows), .order = i };
        nsm_sequences_row(p, all[i].place, &all[i].tokens);
    }
    if (all) qsort(all, (size_t)count, sizeof *all, by_length);
    for (int64_t i = 0; i < POOL; i++) { /* a random order of 0 .. POOL - 1, from within */
        int64_t j = nsm_random_u32(from, (uint64_t)(2 * count + i)) % (uint64_t)(i + 1);
        if (j != i) turn[i] = turn[j];
        turn[j] = i;
    }
    for (int64_t r = 0; all && r < s->batch && !nsm_error(s->ctx); r++)
        s->kind->take(s, NSM_TRAIN, r, all[turn[step % POOL] * s->batch + r].place);
    free(all);
}

/* Step by step a group of `segments` windows of the same places; the first of them begins anew. */
static int64_t take_up(sequence_task *s, int64_t *step)
{
    int64_t part = *step % s->options->segments;
    if (!s->carried) return 0;
    if (part == 0) nsm_backbone_restart(s->model, s->carried);
    *step /= s->options->segments;
    return part * s->length;
}

static void draw_batch(sequence_task *s, int64_t step)
{
    int64_t further = take_up(s, &step);
    nsm_random from = { nsm_random_get(s->ctx).seed ^ draws_apart,
                        (uint64_t)step * (uint64_t)s->batch * 2 };
    s->draws = (nsm_random){ ~from.seed, (uint64_t)step << 32 };
    if (s->ds->part[NSM_TRAIN].start) {
        draw_alike(s, &s->ds->part[NSM_TRAIN], from, step);
        return;
    }
    int64_t places = s->kind->places(s, NSM_TRAIN);
    for (int64_t r = 0; r < s->batch && !nsm_error(s->ctx); r++) {
        uint64_t draw = (uint64_t)nsm_random_u32(from, 2 * (uint64_t)r) << 32 |
                        nsm_random_u32(from, 2 * (uint64_t)r + 1);
        s->kind->take(s, NSM_TRAIN, r, (int64_t)(draw % (uint64_t)places) + further);
    }
}

static int epoch(task *base, int64_t number, epoch_place *at, int (*step)(void *user), void *user)
{
    sequence_task *s = (sequence_task *)base;
    int code = nsm_error(s->ctx);
    s->training = true;
    while (!code && at->steps < base->steps_per_epoch) {
        double began = progress_now();
        int64_t global = (number - 1) * base->steps_per_epoch + at->steps;
        nsm_tape_inference(s->tape, false);
        draw_batch(s, global);
        sequence_batch b = upload(s, s->batch);
        double loss = nsm_error(s->ctx) ? 0 : learn(s, &b);
        if (!nsm_error(s->ctx) && !isfinite(loss)) not_finite(s, &b, global + 1);
        nsm_tape_reset(s->tape);
        s->seconds += progress_now() - began;
        if ((code = nsm_error(s->ctx))) break;
        at->steps++;
        at->rows += b.asked;
        at->loss += loss * (double)b.asked;
        s->trained += s->batch * s->length;
        code = step(user);
    }
    s->training = false;
    return code;
}

/* ---- looking ---- */
static void look(sequence_task *s, int64_t rows, sequence_sums *sum)
{
    sequence_batch b = upload(s, rows);
    nsm_tensor *y = s->kind->output(s, &b), *l = s->kind->loss(s, &b, y, 0);
    if (l && b.asked) {
        sum->loss += (double)nsm_tensor_item(l) * (double)b.asked;
        sum->asked += b.asked;
        s->kind->look(s, &b, y, sum);
    }
    nsm_tape_reset(s->tape);
}

/* Every row or window on its own, in batches. */
static void look_apart(sequence_task *s, int part, int64_t all, sequence_sums *sum)
{
    int64_t rows = 0;
    for (int64_t i = 0; i < all && !nsm_error(s->ctx); i++) {
        s->kind->take(s, part, rows, s->kind->windows ? i * s->length : i);
        if (++rows < s->batch && i + 1 < all) continue;
        look(s, rows, sum);
        rows = 0;
    }
}

/* The stream in as many stretches as a batch has rows; window after window goes on with what the
 * last one left. */
static void look_on(sequence_task *s, int part, int64_t all, sequence_sums *sum)
{
    int64_t rows = all < s->batch ? all : s->batch, stretch = rows ? (all + rows - 1) / rows : 0;
    nsm_state *training = s->carried;
    s->carried = nsm_backbone_state(s->model, rows);
    for (int64_t i = 0; i < stretch && !nsm_error(s->ctx); i++) {
        for (int64_t r = 0; r < rows; r++) s->kind->take(s, part, r, (r * stretch + i) * s->length);
        look(s, rows, sum);
    }
    nsm_state_free(s->carried);
    s->carried = training;
}

static part_score score_part(sequence_task *s, int part)
{
    int64_t all = s->kind->windows ? s->kind->windows(s, part) : s->kind->places(s, part),
            most = s->options->eval_rows;
    sequence_sums sum = { 0 };
    if (most && most < all) all = most;
    if (s->by_group) memset(s->by_group, 0, (size_t)s->ds->groups * sizeof *s->by_group);
    nsm_tape_inference(s->tape, true);
    (s->base.together && all ? look_on : look_apart)(s, part, all, &sum);
    nsm_tape_inference(s->tape, false);
    s->second[part] = sum.asked ? sum.second / (double)sum.asked : NAN;
    if (!sum.asked) return (part_score){ NAN, NAN };
    return (part_score){ sum.loss / (double)sum.asked, sum.score / (double)sum.asked };
}

static int evaluate(task *base, part_score part[3])
{
    sequence_task *s = (sequence_task *)base;
    part[NSM_TRAIN] = (part_score){ NAN, NAN }; /* the running loss says it */
    for (int p = NSM_VALID; p <= NSM_TEST; p++) part[p] = score_part(s, p);
    return nsm_error(s->ctx);
}

void sequence_task_details(const sequence_task *s, json_t *o)
{
    int64_t groups = s->by_group ? s->ds->groups : 0, seen = 0;
    double sum = 0;
    json_t *list = groups ? json_array() : NULL;
    if (s->kind->second) json_object_set_new(o, s->kind->second, report_real(s->second[NSM_TEST]));
    for (int64_t g = 0; g < groups; g++) {
        double n = (double)s->by_group[g].asked, right = s->by_group[g].right;
        if (n == 0) continue;
        sum += 1 - right / n;
        seen++;
        json_array_append_new(list, json_pack("{s:s, s:I, s:o}", "group", s->ds->group[g], "asked",
                                              (json_int_t)n, "error", report_real(1 - right / n)));
    }
    if (seen) json_object_set_new(o, "test_mean_error", report_real(sum / (double)seen));
    if (list) json_object_set_new(o, "test_groups", list);
}

/* ---- making ---- */
bool sequence_room(sequence_task *s, void *pointer, int64_t count, size_t bytes)
{
    void *p = calloc((size_t)count + 1, bytes);
    if (!p) nsm_error_set(s->ctx, NSM_ENOMEM, "out of memory for a batch");
    memcpy(pointer, &p, sizeof p);
    return p != NULL;
}

/* A mixer that does not see order by itself gets learned positions, unless the settings say. */
nsm_position sequence_position(const sequence_task *s)
{
    const char *word = s->options->position;
    if (!strcmp(word, "learned")) return NSM_POSITION_LEARNED;
    if (!strcmp(word, "sinusoidal")) return NSM_POSITION_SINUSOIDAL;
    if (!strcmp(word, "none")) return NSM_POSITION_NONE;
    nsm_random before = nsm_random_get(s->ctx);
    nsm_mixer *m = nsm_mixer_new(s->ctx, s->options->mixer,
                                 &(nsm_mixer_config){ .width = (int)s->options->width,
                                                      .options = s->options->mixer_options });
    bool needs = m && m->unordered;
    nsm_mixer_free(m);
    nsm_random_set(s->ctx, before);
    return needs ? NSM_POSITION_LEARNED : NSM_POSITION_NONE;
}

nsm_backbone_config sequence_backbone(sequence_task *s)
{
    const train_options *o = s->options;
    bool gated = !strcmp(o->ff, "swiglu"), none = !strcmp(o->ff, "none"),
         rwkv = !strcmp(o->ff, "rwkv");
    int version = !strncmp(o->mixer, "rwkv", 4) && isdigit((unsigned char)o->mixer[4])
                      ? o->mixer[4] - '0'
                      : 4;
    snprintf(s->feed, sizeof s->feed, "version=%d inner=%d", version, (int)o->inner);
    return (nsm_backbone_config){ .mixer = o->mixer,
                                  .options = o->mixer_options,
                                  .width = (int)o->width,
                                  .layers = (int)o->layers,
                                  .inner = none ? -1 : (int)o->inner,
                                  .act = gated ? NSM_ACT_SILU : NSM_ACT_GELU,
                                  .gated = gated,
                                  .feed = rwkv ? "rwkv_channel" : NULL,
                                  .feed_options = rwkv ? s->feed : NULL,
                                  .embed_norm = rwkv,
                                  .rms_norm = o->rms_norm,
                                  .dropout = (float)o->dropout };
}

int64_t sequence_longest(const sequence_task *s)
{
    int64_t most = 1;
    for (int p = 0; s->ds && p < NSM_SPLIT_PARTS; p++)
        if (s->ds->part[p].length > most) most = s->ds->part[p].length;
    return most;
}

/* A recipe that is made for other data; runs that begin from none, or from a file, take what there
 * is. */
static bool recipe_fits(const sequence_task *s)
{
    static const struct { const char *recipe; int kinds; const char *wants; } made_for[] = {
        { "lm", 1 << NSM_SEQUENCE_STREAM, "stream" },
        { "recall", 1 << NSM_SEQUENCE_TOKENS | 1 << NSM_SEQUENCE_BITS, "tokens or bits" },
        { "classify", 1 << NSM_SEQUENCE_CLASS, "class" },
        { "qa", 1 << NSM_SEQUENCE_CLASS, "class" },
        { "forecast", 1 << NSM_SEQUENCE_SERIES, "series" },
    };
    for (size_t i = 0; i < sizeof made_for / sizeof *made_for; i++) {
        if (strcmp(s->options->recipe, made_for[i].recipe) || made_for[i].kinds >> s->ds->kind & 1)
            continue;
        nsm_error_set(s->ctx, NSM_EINVAL,
                      "the recipe %s is for data of the kind %s, but %s is of the kind %s",
                      made_for[i].recipe, made_for[i].wants, s->options->data,
                      nsm_sequence_kind_name(s->ds->kind));
        return false;
    }
    return true;
}

static bool data_fits(sequence_task *s, const trainer_meta *trained)
{
    const nsm_sequences *ds = s->ds;
    if (!ds) return true;
    if (trained && (ds->vocab != trained->inputs || ds->classes != trained->outputs ||
                    ds->kind != (nsm_sequence_kind)trained->labels))
        nsm_error_set(s->ctx, NSM_EINVAL,
                      "%s has %lld tokens and %lld classes, the model %lld and %lld, or another "
                      "kind of targets",
                      s->options->data, (long long)ds->vocab, (long long)ds->classes,
                      (long long)trained->inputs, (long long)trained->outputs);
    else if (!trained && recipe_fits(s) && s->kind->places(s, NSM_TRAIN) < 1)
        nsm_error_set(s->ctx, NSM_EINVAL, "%s has nothing to train on", s->options->data);
    return nsm_error(s->ctx) == NSM_OK;
}

static int64_t steps_of(const sequence_task *s)
{
    int64_t group = s->options->segments;
    if (s->options->steps) return s->options->steps;
    int64_t rows = !s->ds             ? 1
                   : s->kind->windows ? s->kind->windows(s, NSM_TRAIN)
                                      : s->kind->places(s, NSM_TRAIN);
    return rows / s->batch > 0 ? (rows / s->batch + group - 1) / group * group : group;
}

/* With segments: the state that they hand on, and steps that keep them together. */
static int carry_on(sequence_task *s)
{
    const train_options *o = s->options;
    if (o->segments < 2) return NSM_OK;
    if (s->kind != &stream_kind || s->base.steps_per_epoch % o->segments ||
        o->checkpoint_steps % o->segments)
        return nsm_error_set(s->ctx, NSM_EINVAL,
                             "segments=%lld is for streams, and steps=%lld and "
                             "checkpoint_steps=%lld must be multiples of it",
                             (long long)o->segments, (long long)s->base.steps_per_epoch,
                             (long long)o->checkpoint_steps);
    s->base.together = o->segments;
    s->carried = s->ds ? nsm_backbone_state(s->model, s->batch) : NULL;
    return nsm_error(s->ctx);
}

static int set_up(sequence_task *s, const trainer_meta *trained)
{
    const nsm_sequences *ds = s->ds;
    s->base = (task){ .ctx = s->ctx,
                      .metric = s->kind->metric,
                      .lower = s->kind->lower,
                      .epoch = epoch,
                      .evaluate = evaluate,
                      .inputs = trained ? trained->inputs : ds->vocab,
                      .outputs = trained ? trained->outputs : ds->classes,
                      .labels = trained ? trained->labels : (int64_t)ds->kind };
    s->length = s->kind->length(s);
    if (!data_fits(s, trained)) return nsm_error(s->ctx);
    s->base.steps_per_epoch = steps_of(s);
    s->tape = nsm_tape_new(s->ctx);
    if (ds && ds->symbol) s->symbols = symbols_join(s->ctx, ds->symbol, ds->vocab);
    else if (ds && ds->tokenizer && !(s->symbols = strdup(ds->tokenizer)))
        nsm_error_set(s->ctx, NSM_ENOMEM, "out of memory");
    s->base.symbols = s->symbols;
    if (ds && ds->groups && sequence_room(s, &s->by_group, ds->groups, sizeof *s->by_group))
        sequence_room(s, &s->group, s->batch, sizeof *s->group);
    if (nsm_error(s->ctx) || s->kind->make(s)) return nsm_error(s->ctx);
    s->loss = nsm_tensor_new(s->ctx, NSM_F32, 0, NULL);
    s->replay = nsm_replay_new(s->base.module);
    return carry_on(s);
}

sequence_task *sequence_task_new(nsm_ctx *ctx, const train_options *options,
                                 const nsm_sequences *ds, const trainer_meta *trained)
{
    if (nsm_error(ctx)) return NULL;
    sequence_task *s = calloc(1, sizeof *s);
    if (!s) {
        nsm_error_set(ctx, NSM_ENOMEM, "out of memory");
        return NULL;
    }
    int64_t kind = trained ? trained->labels : (int64_t)ds->kind;
    *s = (sequence_task){ .ctx = ctx,
                          .options = options,
                          .ds = ds,
                          .batch = options->batch_size ? options->batch_size : BATCH,
                          .kind = kind_of(kind, options) };
    if (!s->kind)
        nsm_error_set(ctx, NSM_EFORMAT, "sequences of kind %lld are not known", (long long)kind);
    if (s->kind && !set_up(s, trained) && !nsm_error(ctx)) return s;
    sequence_task_free(s);
    return NULL;
}

void sequence_task_free(sequence_task *s)
{
    if (!s) return;
    nsm_tape_free(s->tape);
    nsm_replay_free(s->replay);
    nsm_tensor_free(s->loss);
    for (int i = 0; i < SEQUENCE_SHAPES * SEQUENCE_PARTS; i++)
        nsm_tensor_free(s->kept[i / SEQUENCE_PARTS].part[i % SEQUENCE_PARTS]);
    nsm_state_free(s->carried);
    if (s->kind && s->kind->clear) s->kind->clear(s);
    nsm_backbone_free(s->model);
    free(s->symbols);
    free(s->id);
    free(s->target);
    free(s->tokens);
    free(s->group);
    free(s->by_group);
    free(s);
}

task *sequence_task_base(sequence_task *s) { return &s->base; }
nsm_backbone *sequence_task_model(sequence_task *s) { return s->model; }

int sequence_task_set(sequence_task *s, const char *keys)
{
    if (keys && !s->model)
        return nsm_error_set(s->ctx, NSM_EINVAL, "--set is for models of tokens and classes");
    for (int i = 0; keys && i < (int)s->options->layers && !nsm_error(s->ctx); i++)
        nsm_mixer_set(nsm_backbone_mixer(s->model, i), keys);
    return nsm_error(s->ctx);
}

double sequence_task_rate(const sequence_task *s)
{
    return s->trained ? (double)s->trained / s->seconds : NAN;
}

/* ---- alphabets: "1:a3:\xe2\x82\xac..." ---- */
char *symbols_join(nsm_ctx *ctx, char *const *symbol, int64_t vocab)
{
    size_t bytes = 1;
    for (int64_t i = 0; i < vocab; i++) bytes += strlen(symbol[i]) + 24;
    char *text = malloc(bytes), *to = text;
    if (!text) nsm_error_set(ctx, NSM_ENOMEM, "out of memory");
    for (int64_t i = 0; text && i < vocab; i++)
        to += sprintf(to, "%zu:%s", strlen(symbol[i]), symbol[i]);
    return text;
}

void symbols_free(char **symbol, int64_t vocab)
{
    for (int64_t i = 0; symbol && i < vocab; i++) free(symbol[i]);
    free(symbol);
}

char **symbols_split(nsm_ctx *ctx, const char *text, int64_t vocab)
{
    if (!text || !*text) return NULL;
    char **symbol = calloc((size_t)vocab, sizeof *symbol);
    bool ok = symbol != NULL;
    for (int64_t i = 0; ok && i < vocab; i++) {
        char *end;
        unsigned long n = strtoul(text, &end, 10);
        ok = end != text && *end == ':' && n <= strlen(end + 1) &&
             (symbol[i] = strndup(end + 1, n));
        text = ok ? end + 1 + n : text;
    }
    if (ok && !*text) return symbol;
    nsm_error_set(ctx, NSM_EFORMAT, "the checkpoint's alphabet is not one of %lld symbols",
                  (long long)vocab);
    symbols_free(symbol, vocab);
    return NULL;
}
