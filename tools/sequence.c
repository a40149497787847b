/* sequence.c - See sequence.h.
 *
 * What a step draws depends on the seed and the step's number alone, so a resumed run draws what the
 * uninterrupted one did. */
#include "config.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/internal.h"
#include "tools/progress.h"
#include "tools/sequence.h"

enum { BATCH = 32 }; /* rows, when the settings do not say */
static const uint64_t draws_apart = 0x5e90e7ce; /* from what dropout draws of the same seed */

struct sequence_task {
    task base;
    nsm_ctx *ctx;
    const train_options *options;
    const nsm_sequences *ds;
    nsm_backbone *model;
    nsm_tape *tape;
    int64_t batch, length;     /* rows and tokens of a step */
    char *symbols;
    int32_t *id, *target, *tokens; /* host [batch, length]; tokens [batch] */
    int64_t trained;           /* tokens */
    double seconds;
};

/* ---- one batch ---- */
typedef struct { nsm_tensor *id, *target, *tokens; int64_t asked; } batch;

static batch batch_of(sequence_task *s, int64_t rows, int64_t length)
{
    const nsm_sequences *ds = s->ds;
    bool by_row = ds->kind == NSM_SEQUENCE_CLASS, whole = true;
    int64_t targets = by_row ? rows : rows * length;
    batch b = { 0 };
    for (int64_t i = 0; i < targets; i++) b.asked += s->target[i] >= 0;
    for (int64_t r = 0; r < rows; r++) whole &= s->tokens[r] == length;
    b.id = nsm_tape_tensor(s->tape, NSM_I32, 2, (int64_t[]){ rows, length }, s->id);
    b.target = nsm_tape_tensor(s->tape, NSM_I32, 1, &targets, s->target);
    b.tokens = whole ? NULL : nsm_tape_tensor(s->tape, NSM_I32, 1, &rows, s->tokens);
    return b;
}

/* Row r of a batch: tokens from .. of a stream and what follows each. */
static void take_window(sequence_task *s, const nsm_sequence_part *p, int64_t r, int64_t from, int64_t length)
{
    int64_t there = p->length - 1 - from < length ? p->length - 1 - from : length;
    s->tokens[r] = (int32_t)there;
    for (int64_t i = 0; i < length; i++) {
        s->id[r * length + i] = i < there ? p->id[from + i] : 0;
        s->target[r * length + i] = i < there ? p->id[from + i + 1] : -1;
    }
}

static void take_row(sequence_task *s, const nsm_sequence_part *p, int64_t r, int64_t row)
{
    int64_t n = p->length;
    s->tokens[r] = p->tokens ? p->tokens[row] : (int32_t)n;
    memcpy(s->id + r * n, p->id + row * n, (size_t)n * sizeof *s->id);
    if (s->ds->kind == NSM_SEQUENCE_CLASS) s->target[r] = p->target[row];
    else memcpy(s->target + r * n, p->target + row * n, (size_t)n * sizeof *s->target);
}

/* Logits [asked places, classes], one row a target. */
static nsm_tensor *logits_of(sequence_task *s, const batch *b)
{
    nsm_tensor *y = nsm_backbone_apply(s->tape, s->model, b->id, b->tokens, NULL);
    return y ? nsm_reshape(s->tape, y, 2, (int64_t[]){ -1, s->base.outputs }) : NULL;
}

static nsm_tensor *loss_of(sequence_task *s, const batch *b, nsm_tensor *logits, float smoothing)
{
    return nsm_cross_entropy(s->tape, logits, b->target, &(nsm_cross_entropy_config){ .label_smoothing = smoothing });
}

/* Says where the numbers went wrong. */
static int not_finite(sequence_task *s, const batch *b, int64_t step)
{
    const char *where = nsm_backbone_fault(s->tape, s->model, b->id, b->tokens);
    return nsm_error_set(s->ctx, NSM_ENUMBER, "the loss of step %lld is not finite; the first result that is not is that of %s. Try a lower lr, or clip=1",
                         (long long)step, where ? where : "the loss itself");
}

/* ---- training ---- */
static void draw_batch(sequence_task *s, int64_t step)
{
    const nsm_sequence_part *p = &s->ds->part[NSM_TRAIN];
    nsm_random from = { nsm_random_get(s->ctx).seed ^ draws_apart, (uint64_t)step * (uint64_t)s->batch * 2 };
    bool stream = s->ds->kind == NSM_SEQUENCE_STREAM;
    int64_t places = !stream ? p->rows : p->length > s->length ? p->length - s->length : 1;
    for (int64_t r = 0; r < s->batch; r++) {
        uint64_t draw = (uint64_t)nsm_random_u32(from, 2 * (uint64_t)r) << 32 | nsm_random_u32(from, 2 * (uint64_t)r + 1);
        int64_t at = (int64_t)(draw % (uint64_t)places);
        if (stream) take_window(s, p, r, at, s->length);
        else take_row(s, p, r, at);
    }
}

static int epoch(task *base, int64_t number, epoch_place *at, int (*step)(void *user), void *user)
{
    sequence_task *s = (sequence_task *)base;
    int code = nsm_error(s->ctx);
    while (!code && at->steps < base->steps_per_epoch) {
        double began = progress_now();
        int64_t global = (number - 1) * base->steps_per_epoch + at->steps;
        nsm_tape_inference(s->tape, false);
        draw_batch(s, global);
        batch b = batch_of(s, s->batch, s->length);
        nsm_tensor *l = loss_of(s, &b, logits_of(s, &b), (float)s->options->label_smoothing);
        double loss = l ? (double)nsm_tensor_item(l) : 0;
        if (l && !isfinite(loss)) not_finite(s, &b, global + 1);
        if (!nsm_error(s->ctx)) nsm_tape_backward(s->tape, l);
        nsm_tape_reset(s->tape);
        s->seconds += progress_now() - began;
        if ((code = nsm_error(s->ctx))) break;
        at->steps++;
        at->rows += b.asked;
        at->loss += loss * (double)b.asked;
        s->trained += s->batch * s->length;
        code = step(user);
    }
    return code;
}

/* ---- looking ---- */
typedef struct { double loss; int64_t right, asked; } sums;

/* How many of the batch's targets the logits put first. */
static int64_t right_of(sequence_task *s, const batch *b, nsm_tensor *logits)
{
    int64_t n = b->target->dim[0], right = 0;
    int32_t *best = malloc((size_t)n * sizeof *best + 1);
    nsm_tensor *y = nsm_tape_tensor(s->tape, NSM_I32, 1, &n, NULL);
    if (!best) nsm_error_set(s->ctx, NSM_ENOMEM, "out of memory");
    if (best && logits && y) {
        s->ctx->dev.be->argmax(&s->ctx->dev, n, s->base.outputs, logits->f32, y->i32);
        nsm_tensor_get(y, best);
        for (int64_t i = 0; i < n; i++) right += s->target[i] >= 0 && best[i] == s->target[i];
    }
    free(best);
    return right;
}

static void look(sequence_task *s, int64_t rows, sums *sum)
{
    batch b = batch_of(s, rows, s->length);
    nsm_tensor *y = logits_of(s, &b), *l = loss_of(s, &b, y, 0);
    if (l && b.asked) {
        sum->loss += (double)nsm_tensor_item(l) * (double)b.asked;
        sum->right += s->ds->kind == NSM_SEQUENCE_STREAM ? 0 : right_of(s, &b, y);
        sum->asked += b.asked;
    }
    nsm_tape_reset(s->tape);
}

/* A stream's windows follow each other; the last may be short. */
static part_score score_part(sequence_task *s, const nsm_sequence_part *p)
{
    bool stream = s->ds->kind == NSM_SEQUENCE_STREAM;
    int64_t all = !stream ? p->rows : p->rows ? (p->length - 1 + s->length - 1) / s->length : 0, most = s->options->eval_rows, rows = 0;
    sums sum = { 0 };
    if (most && most < all) all = most;
    nsm_tape_inference(s->tape, true);
    for (int64_t i = 0; i < all && !nsm_error(s->ctx); i++) {
        if (stream) take_window(s, p, rows, i * s->length, s->length);
        else take_row(s, p, rows, i);
        if (++rows < s->batch && i + 1 < all) continue;
        look(s, rows, &sum);
        rows = 0;
    }
    nsm_tape_inference(s->tape, false);
    if (!sum.asked) return (part_score){ NAN, NAN };
    double loss = sum.loss / (double)sum.asked;
    return (part_score){ loss, stream ? loss / log(2) : (double)sum.right / (double)sum.asked };
}

static int evaluate(task *base, part_score part[3])
{
    sequence_task *s = (sequence_task *)base;
    part[NSM_TRAIN] = (part_score){ NAN, NAN }; /* the running loss says it */
    for (int p = NSM_VALID; p <= NSM_TEST; p++) part[p] = score_part(s, &s->ds->part[p]);
    return nsm_error(s->ctx);
}

/* ---- making ---- */
/* A mixer that does not see order by itself gets learned positions, unless the settings say. */
static nsm_position position_of(sequence_task *s)
{
    const char *word = s->options->position;
    if (!strcmp(word, "learned")) return NSM_POSITION_LEARNED;
    if (!strcmp(word, "sinusoidal")) return NSM_POSITION_SINUSOIDAL;
    if (!strcmp(word, "none")) return NSM_POSITION_NONE;
    nsm_random before = nsm_random_get(s->ctx);
    nsm_mixer *m = nsm_mixer_new(s->ctx, s->options->mixer, &(nsm_mixer_config){ .width = (int)s->options->width, .options = s->options->mixer_options });
    bool needs = m && m->unordered;
    nsm_mixer_free(m);
    nsm_random_set(s->ctx, before);
    return needs ? NSM_POSITION_LEARNED : NSM_POSITION_NONE;
}

static void make_model(sequence_task *s)
{
    const train_options *o = s->options;
    bool gated = !strcmp(o->ff, "swiglu"), none = !strcmp(o->ff, "none");
    bool tied = o->tied && s->base.inputs == s->base.outputs && s->base.labels != NSM_SEQUENCE_CLASS;
    s->model = nsm_backbone_new(s->ctx, &(nsm_backbone_config){
        .mixer = o->mixer, .options = o->mixer_options, .width = (int)o->width, .layers = (int)o->layers, .vocab = (int)s->base.inputs,
        .outputs = (int)s->base.outputs, .inner = none ? -1 : (int)o->inner, .act = gated ? NSM_ACT_SILU : NSM_ACT_GELU, .gated = gated,
        .position = position_of(s), .places = (int)s->length, .rms_norm = o->rms_norm, .tied = tied, .head_bias = !tied,
        .pool = s->base.labels == NSM_SEQUENCE_CLASS ? NSM_POOL_MEAN : NSM_POOL_NONE, .dropout = (float)o->dropout });
    s->tape = nsm_tape_new(s->ctx);
    s->base.module = nsm_backbone_module(s->model);
}

static bool data_fits(sequence_task *s, const trainer_meta *trained)
{
    const nsm_sequences *ds = s->ds;
    if (!ds) return true;
    if (trained && (ds->vocab != trained->inputs || ds->classes != trained->outputs || ds->kind != (nsm_sequence_kind)trained->labels))
        nsm_error_set(s->ctx, NSM_EINVAL, "%s has %lld tokens and %lld classes, the model %lld and %lld, or another kind of targets", s->options->data,
                      (long long)ds->vocab, (long long)ds->classes, (long long)trained->inputs, (long long)trained->outputs);
    else if (!trained && !ds->part[NSM_TRAIN].rows)
        nsm_error_set(s->ctx, NSM_EINVAL, "%s has nothing to train on", s->options->data);
    return nsm_error(s->ctx) == NSM_OK;
}

/* Tokens of a step's rows: of a stream the settings', else the longest row of the data. */
static int64_t length_of(const sequence_task *s)
{
    int64_t most = 0;
    if (!s->ds || s->ds->kind == NSM_SEQUENCE_STREAM) return s->options->context;
    for (int p = 0; p < NSM_SPLIT_PARTS; p++)
        if (s->ds->part[p].length > most) most = s->ds->part[p].length;
    return most;
}

static int64_t steps_of(const sequence_task *s)
{
    const nsm_sequence_part *p = s->ds ? &s->ds->part[NSM_TRAIN] : NULL;
    if (s->options->steps) return s->options->steps;
    int64_t rows = !p ? 1 : s->ds->kind == NSM_SEQUENCE_STREAM ? p->length / s->length : p->rows;
    return rows / s->batch > 0 ? rows / s->batch : 1;
}

sequence_task *sequence_task_new(nsm_ctx *ctx, const train_options *options, const nsm_sequences *ds, const trainer_meta *trained)
{
    if (nsm_error(ctx)) return NULL;
    sequence_task *s = calloc(1, sizeof *s);
    if (!s) {
        nsm_error_set(ctx, NSM_ENOMEM, "out of memory");
        return NULL;
    }
    *s = (sequence_task){ .ctx = ctx, .options = options, .ds = ds, .batch = options->batch_size ? options->batch_size : BATCH };
    bool stream = trained ? trained->labels == NSM_SEQUENCE_STREAM : ds->kind == NSM_SEQUENCE_STREAM;
    s->length = length_of(s);
    s->base = (task){ .ctx = ctx, .metric = stream ? "bits per token" : "accuracy", .lower = stream, .epoch = epoch, .evaluate = evaluate,
                      .inputs = trained ? trained->inputs : ds->vocab, .outputs = trained ? trained->outputs : ds->classes,
                      .labels = trained ? trained->labels : (int64_t)ds->kind };
    s->base.steps_per_epoch = steps_of(s);
    if (data_fits(s, trained)) make_model(s);
    if (ds && ds->symbol) s->symbols = symbols_join(ctx, ds->symbol, ds->vocab);
    s->base.symbols = s->symbols;
    size_t bytes = (size_t)(s->batch * s->length) * sizeof *s->id;
    s->id = malloc(bytes);
    s->target = malloc(bytes);
    s->tokens = malloc((size_t)s->batch * sizeof *s->tokens);
    if (!s->id || !s->target || !s->tokens) nsm_error_set(ctx, NSM_ENOMEM, "out of memory for a batch");
    if (!nsm_error(ctx)) return s;
    sequence_task_free(s);
    return NULL;
}

void sequence_task_free(sequence_task *s)
{
    if (!s) return;
    nsm_tape_free(s->tape);
    nsm_backbone_free(s->model);
    free(s->symbols);
    free(s->id);
    free(s->target);
    free(s->tokens);
    free(s);
}

task *sequence_task_base(sequence_task *s) { return &s->base; }
nsm_backbone *sequence_task_model(sequence_task *s) { return s->model; }
double sequence_task_rate(const sequence_task *s) { return s->trained ? (double)s->trained / s->seconds : NAN; }

/* ---- alphabets: "1:a3:\xe2\x82\xac..." ---- */
char *symbols_join(nsm_ctx *ctx, char *const *symbol, int64_t vocab)
{
    size_t bytes = 1;
    for (int64_t i = 0; i < vocab; i++) bytes += strlen(symbol[i]) + 24;
    char *text = malloc(bytes), *to = text;
    if (!text) nsm_error_set(ctx, NSM_ENOMEM, "out of memory");
    for (int64_t i = 0; text && i < vocab; i++) to += sprintf(to, "%zu:%s", strlen(symbol[i]), symbol[i]);
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
        ok = end != text && *end == ':' && n <= strlen(end + 1) && (symbol[i] = strndup(end + 1, n));
        text = ok ? end + 1 + n : text;
    }
    if (ok && !*text) return symbol;
    nsm_error_set(ctx, NSM_EFORMAT, "the checkpoint's alphabet is not one of %lld symbols", (long long)vocab);
    symbols_free(symbol, vocab);
    return NULL;
}
