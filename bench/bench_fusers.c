/* bench/bench_fusers.c - bench_fusers [key=value ...]: what a fuser learns of two
 * sets that must be joined by name.
 *
 * One set says an attribute of each of 6 names, another set a second attribute of the same names,
 * in other orders; three readers each ask for both attributes of a name.  So elements of two
 * modalities must come together by a part of what they are (the name), not by all of it.  Right:
 * both attributes; by chance 1/64.  Every step has fresh sets.  Prints one line of JSON: accuracy
 * on 256 sets after each fifth of the steps, training milliseconds a step.
 *
 * Keys: fuser (nsm), options ("slots=16,heads=4"), steps, batch, width, seed, threads, rate. */
#include "config.h"
#include "base/internal.h"
#include "base/ops.h"
#include "base/optimizer.h"
#include "bench/gnn.h"
#include "fusion/fuser.h"

enum { NAMES = 16, ITEMS = 6, VALUES = 8, ASKED = 3, FEATURES = NAMES + VALUES };
enum { CHECKS = 5, CHECK_SETS = 256 };

typedef struct {
    const char *fuser, *options;
    int64_t steps, batch, width, seed, threads;
    double rate;
} settings;

typedef struct {
    nsm_module module;
    nsm_fuser *fuser;
    nsm_tensor *w, *b;
} model;

/* Sets side by side, and what is right. */
typedef struct {
    float *x[2], *query;
    int32_t *answer[2];
} task;

static const char *text(int argc, char **argv, const char *key, const char *fallback)
{
    size_t n = strlen(key);
    for (int i = 1; i < argc; i++)
        if (!strncmp(argv[i], key, n) && argv[i][n] == '=') return argv[i] + n + 1;
    return fallback;
}

static int64_t value(int argc, char **argv, const char *key, int64_t fallback)
{
    const char *t = text(argc, argv, key, NULL);
    return t ? strtoll(t, NULL, 10) : fallback;
}

/* ---- the task ---- */
/* 0 .. n-1 in an order that is drawn. */
static void shuffle(nsm_ctx *ctx, int n, int *order)
{
    for (int i = 0; i < n; i++) order[i] = i;
    for (int i = n - 1; i > 0; i--) {
        int j = (int)nsm_random_below(ctx, (uint64_t)i + 1), other = order[i];
        order[i] = order[j];
        order[j] = other;
    }
}

static void draw_set(nsm_ctx *ctx, const task *t, int64_t row)
{
    int name[NAMES], order[ITEMS], attribute[2][ITEMS];
    shuffle(ctx, NAMES, name);
    for (int m = 0; m < 2; m++) {
        float *x = t->x[m] + row * ITEMS * FEATURES;
        shuffle(ctx, ITEMS, order);
        for (int i = 0; i < ITEMS; i++) attribute[m][i] = (int)nsm_random_below(ctx, VALUES);
        for (int i = 0; i < ITEMS; i++) {
            x[i * FEATURES + name[order[i]]] = 1;
            x[i * FEATURES + NAMES + attribute[m][order[i]]] = 1;
        }
    }
    shuffle(ctx, ITEMS, order);
    for (int i = 0; i < ASKED; i++) {
        t->query[(row * ASKED + i) * NAMES + name[order[i]]] = 1;
        for (int m = 0; m < 2; m++) t->answer[m][row * ASKED + i] = attribute[m][order[i]];
    }
}

static bool draw(nsm_ctx *ctx, nsm_tape *tape, int64_t batch, task *t)
{
    for (int m = 0; m < 2; m++) {
        t->x[m] = nsmi_tape_room(tape, (size_t)(batch * ITEMS * FEATURES) * sizeof(float));
        t->answer[m] = nsmi_tape_room(tape, (size_t)(batch * ASKED) * sizeof(int32_t));
    }
    t->query = nsmi_tape_room(tape, (size_t)(batch * ASKED * NAMES) * sizeof(float));
    if (nsmi_failed(ctx)) return false;
    for (int64_t row = 0; row < batch; row++) draw_set(ctx, t, row);
    return true;
}

/* ---- the model ---- */
static model *model_new(nsm_ctx *ctx, const settings *s)
{
    model *m = nsmi_calloc(ctx, 1, sizeof *m);
    if (!m) return NULL;
    nsm_module_init(&m->module, ctx);
    m->fuser = nsm_fuser_new(ctx, s->fuser,
                             &(nsm_fuser_config){ .width = (int)s->width,
                                                  .modalities = 2,
                                                  .features = { FEATURES, FEATURES },
                                                  .query_features = NAMES,
                                                  .options = s->options });
    nsm_module_child(&m->module, "fuser", nsm_fuser_module(m->fuser));
    m->w = nsm_module_param(&m->module, "head.weight", 2, (int64_t[]){ 2 * VALUES, s->width });
    m->b = nsm_module_param(&m->module, "head.bias", 1, (int64_t[]){ 2 * VALUES });
    nsm_init_uniform(m->w, -1 / sqrtf((float)s->width), 1 / sqrtf((float)s->width));
    return m;
}

static void model_free(model *m)
{
    if (!m) return;
    nsm_fuser_free(m->fuser);
    nsm_module_clear(&m->module);
    free(m);
}

/* Logits of both attributes [B * ASKED, VALUES] each. */
static void forward(nsm_tape *tape, model *m, const task *t, int64_t batch, nsm_tensor *logits[2])
{
    nsm_set_input in[2] = { 0 };
    for (int k = 0; k < 2; k++)
        in[k].x = nsm_tape_tensor(tape, NSM_F32, 3, (int64_t[]){ batch, ITEMS, FEATURES }, t->x[k]);
    nsm_tensor *q = nsm_tape_tensor(tape, NSM_F32, 3, (int64_t[]){ batch, ASKED, NAMES }, t->query);
    nsm_tensor *y = nsm_linear(tape, nsm_fuser_apply(tape, m->fuser, in, q), m->w, m->b);
    y = y ? nsm_reshape(tape, y, 2, (int64_t[]){ batch * ASKED, 2 * VALUES }) : NULL;
    for (int k = 0; k < 2; k++) logits[k] = y ? nsm_slice(tape, y, 1, k * VALUES, VALUES) : NULL;
}

static int largest(const float *x)
{
    int best = 0;
    for (int i = 1; i < VALUES; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

/* The share of questions whose both answers are right, on sets that are the same every time. */
static double check(nsm_ctx *ctx, nsm_tape *tape, model *m)
{
    nsm_random before = nsm_random_get(ctx);
    static float y[2][CHECK_SETS * ASKED * VALUES];
    nsm_tensor *logits[2];
    task t;
    int right = 0;
    nsm_random_set(ctx, (nsm_random){ 99, 0 });
    nsm_tape_inference(tape, true);
    if (draw(ctx, tape, CHECK_SETS, &t)) forward(tape, m, &t, CHECK_SETS, logits);
    for (int k = 0; k < 2 && !nsmi_failed(ctx); k++) nsm_tensor_get(logits[k], y[k]);
    for (int i = 0; i < CHECK_SETS * ASKED && !nsmi_failed(ctx); i++)
        right += largest(y[0] + i * VALUES) == t.answer[0][i] &&
                 largest(y[1] + i * VALUES) == t.answer[1][i];
    nsm_tape_reset(tape);
    nsm_tape_inference(tape, false);
    nsm_random_set(ctx, before);
    return right / (double)(CHECK_SETS * ASKED);
}

static void step(nsm_ctx *ctx, nsm_tape *tape, model *m, int64_t batch)
{
    nsm_tensor *logits[2], *loss[2];
    task t;
    if (!draw(ctx, tape, batch, &t)) return;
    forward(tape, m, &t, batch, logits);
    for (int k = 0; k < 2; k++) {
        nsm_tensor *answer = nsm_tape_tensor(tape, NSM_I32, 1, (int64_t[]){ batch * ASKED },
                                             t.answer[k]);
        loss[k] = nsm_cross_entropy(tape, logits[k], answer, NULL);
    }
    nsm_tape_backward(tape, nsm_add(tape, loss[0], loss[1]));
}

/* Warm-up over 50 steps, then half a wave down to 5 %. */
static double rate_at(const settings *s, int64_t t)
{
    double warm = t < 50 ? (double)(t + 1) / 50 : 1;
    return s->rate * warm * (0.475 * (1 + cos(M_PI * (double)t / (double)s->steps)) + 0.05);
}

static void train(nsm_ctx *ctx, const settings *s, model *m, double accuracy[CHECKS], double *ms)
{
    nsm_tape *tape = nsm_tape_new(ctx);
    nsm_optimizer *o = nsm_optimizer_new(&m->module, &(nsm_optimizer_config){ .kind = NSM_ADAMW,
                                                                              .weight_decay = 0.01,
                                                                              .max_norm = 1 });
    double seconds = 0;
    for (int64_t t = 0; t < s->steps && !nsmi_failed(ctx); t++) {
        double began = bench_seconds();
        step(ctx, tape, m, s->batch);
        nsm_optimizer_step(o, rate_at(s, t));
        nsm_tape_reset(tape);
        seconds += bench_seconds() - began;
        for (int c = 0; c < CHECKS; c++)
            if (t + 1 == s->steps * (c + 1) / CHECKS) accuracy[c] = check(ctx, tape, m);
    }
    *ms = 1e3 * seconds / (double)s->steps;
    nsm_optimizer_free(o);
    nsm_tape_free(tape);
}

int main(int argc, char **argv)
{
    settings s = {
        text(argc, argv, "fuser", "nsm"), text(argc, argv, "options", ""),
        value(argc, argv, "steps", 400),  value(argc, argv, "batch", 48),
        value(argc, argv, "width", 48),   value(argc, argv, "seed", 0),
        value(argc, argv, "threads", 1),  strtod(text(argc, argv, "rate", "2e-3"), NULL)
    };
    double accuracy[CHECKS] = { 0 }, ms = 0;
    nsm_ctx *ctx = nsm_ctx_new(
        &(nsm_ctx_config){ .threads = (int)s.threads, .seed = (uint64_t)s.seed + 1 });
    model *m = s.steps >= CHECKS && s.batch > 0 ? model_new(ctx, &s) : NULL;
    if (m && !nsmi_failed(ctx)) train(ctx, &s, m, accuracy, &ms);
    int code = m ? nsm_error(ctx) : NSM_EINVAL;
    if (code)
        fprintf(stderr, "bench_fusers: %s\n",
                nsm_error(ctx) ? nsm_error_message(ctx) : "want steps of at least 5, a batch");
    else
        printf("{\"bench\": \"fusers\", \"fuser\": \"%s\", \"options\": \"%s\", \"steps\": %lld, "
               "\"seed\": %lld, \"accuracy\": %.3f, \"at\": [%.3f, %.3f, %.3f, %.3f, %.3f], "
               "\"ms\": %.2f, \"parameters\": %lld}\n",
               s.fuser, s.options, (long long)s.steps, (long long)s.seed, accuracy[CHECKS - 1],
               accuracy[0], accuracy[1], accuracy[2], accuracy[3], accuracy[4], ms,
               (long long)nsm_module_count(&m->module));
    model_free(m);
    nsm_ctx_free(ctx);
    return code ? EXIT_FAILURE : EXIT_SUCCESS;
}
