/* sample.c - nsm sample: let a sequence model go on from a text, token by token, with a carried
 * state.
 *
 * The state's file holds, beside the model's, the token that was told last (it is not yet read),
 * the seed and how many draws were made: a later call goes on as if there had been no stop. */
#include "config.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tools/model.h"
#include "tools/progress.h"
#include "tools/report.h"
#include "tools/sequence.h"

typedef struct { int64_t tokens, top_k; double temperature, top_p; } sample_options;

#define FIELD(name, type, fallback, help, range) \
    { \
#name, SETTING_##type, offsetof(sample_options, name), fallback, help, NULL, range \
    }
static const setting fields[] = {
    FIELD(tokens, INT, "200", "tokens to tell", "0..100000000"),
    FIELD(temperature, REAL, "1", "logits are divided by it; 0: always the likeliest token", ">=0"),
    FIELD(top_k, INT, "0", "only from so many likeliest tokens; 0: all", ">=0"),
    FIELD(top_p, REAL, "1", "only from the likeliest tokens that together have this probability",
          "0..1"),
    { NULL, SETTING_BOOL, 0, NULL, NULL, NULL, NULL },
};
static const tool_keys keys[] = { { "Keys", fields }, { NULL, NULL } };
static const tool_option options[] = {
    { "prompt", 'p', "TEXT", "what to go on from; needed unless a state is there" },
    { "state", 0, "FILE", "take the state from FILE if it is there, and leave it there" },
    { NULL, 0, NULL, NULL },
};

typedef struct {
    tool *t;
    model m;
    sample_options o;
    sequence_task *task;
    nsm_backbone *net;
    nsm_tape *tape;
    nsm_state *state;
    char **symbol;
    nsm_tokenizer *tokenizer; /* in place of symbols; NULL: none */
    bool begun;           /* something was told or stood before */
    int64_t vocab;
    int32_t next;         /* told, and not yet read */
    uint64_t seed, draws;
    struct choice { float p; int32_t token; } *choice; /* [vocab] */
    float *logits;
    char *text;           /* what was told, for --json */
    size_t used, room;
} job;

static int fail(job *j, const char *what)
{
    return nsm_error_set(j->t->ctx, NSM_EINVAL, "%s", what);
}

/* ---- the state's file ---- */
static int add_own_parts(job *j)
{
    nsm_state_add(j->state, "next", NSM_I32, 0, NULL);
    nsm_state_add(j->state, "seed", NSM_I64, 0, NULL);
    nsm_state_add(j->state, "draws", NSM_I64, 0, NULL);
    return nsm_error(j->t->ctx);
}

static int take_state(job *j)
{
    const char *path = tool_get(j->t, "state");
    int64_t seed, draws;
    j->state = nsm_backbone_state(j->net, 1);
    j->seed = j->t->seed;
    j->next = -1;
    if (!j->state || add_own_parts(j) || !path || access(path, F_OK)) return nsm_error(j->t->ctx);
    if (nsm_state_load(j->state, path)) return nsm_error(j->t->ctx);
    nsm_tensor_get(nsm_state_get(j->state, "next"), &j->next);
    nsm_tensor_get(nsm_state_get(j->state, "seed"), &seed);
    nsm_tensor_get(nsm_state_get(j->state, "draws"), &draws);
    j->seed = (uint64_t)seed;
    j->draws = (uint64_t)draws;
    return j->next >= 0 && j->next < j->vocab
               ? nsm_error(j->t->ctx)
               : fail(j, "the state's last token is not one of this model's");
}

static int leave_state(job *j)
{
    const char *path = tool_get(j->t, "state");
    if (!path) return NSM_OK;
    nsm_tensor_set(nsm_state_get(j->state, "next"), &j->next);
    nsm_tensor_set(nsm_state_get(j->state, "seed"), &(int64_t){ (int64_t)j->seed });
    nsm_tensor_set(nsm_state_get(j->state, "draws"), &(int64_t){ (int64_t)j->draws });
    return nsm_state_save(j->state, path);
}

/* ---- text and tokens ---- */
static void put(job *j, const char *s, size_t n)
{
    if (!j->t->json) {
        fwrite(s, 1, n, stdout);
        return;
    }
    if (j->used + n + 1 > j->room) {
        char *more = realloc(j->text, j->room = 2 * (j->room + n) + 64);
        if (!more) {
            nsm_error_set(j->t->ctx, NSM_ENOMEM, "out of memory");
            return;
        }
        j->text = more;
    }
    memcpy(j->text + j->used, s, n);
    j->text[j->used += n] = 0;
}

static void tell(job *j, int32_t token)
{
    char byte[2] = { (char)token };
    int64_t n = 1;
    char *text = j->tokenizer ? nsm_tokenizer_decode(j->tokenizer, &token, 1, !j->begun, &n) : NULL;
    const char *s = j->tokenizer ? text : j->symbol ? j->symbol[token] : byte;
    if (s) put(j, s, j->symbol ? strlen(s) : (size_t)n);
    j->begun = true;
    free(text);
}

/* The prompt's tokens after the one that waits; *count of them; the caller frees. */
static int32_t *tokens_of(job *j, const char *prompt, int64_t *count)
{
    int64_t cut = 0;
    int32_t *piece = j->tokenizer
                         ? nsm_tokenizer_encode(j->tokenizer, prompt, (int64_t)strlen(prompt), &cut)
                         : NULL;
    int32_t *id = malloc((strlen(prompt) + (size_t)cut + 1) * sizeof *id);
    *count = 0;
    if (!id) nsm_error_set(j->t->ctx, NSM_ENOMEM, "out of memory");
    if (id && j->next >= 0) id[(*count)++] = j->next;
    for (int64_t i = 0; id && i < cut; i++) id[(*count)++] = piece[i];
    free(piece);
    j->begun = *count > 0;
    if (j->tokenizer) return id;
    for (size_t n; id && *prompt; prompt += n) {
        int32_t token = (unsigned char)*prompt;
        n = 1;
        if (j->symbol) token = nsm_sequences_token(j->symbol, j->vocab, prompt, &n);
        if (token < 0 || token >= j->vocab) {
            nsm_error_set(j->t->ctx, NSM_EINVAL, "the model has no token for \"%.8s\"", prompt);
            break;
        }
        id[(*count)++] = token;
    }
    return id;
}

/* ---- choosing ---- */
static int falling(const void *a, const void *b)
{
    const struct choice *x = a, *y = b;
    return x->p != y->p ? (x->p < y->p) - (x->p > y->p)
                        : (x->token > y->token) - (x->token < y->token);
}

static int32_t choose(job *j)
{
    const sample_options *o = &j->o;
    double sum = 0, most, kept = 0;
    int64_t n = o->top_k && o->top_k < j->vocab ? o->top_k : j->vocab, k = 0;
    for (int64_t i = 0; i < j->vocab; i++)
        j->choice[i] = (struct choice){ j->logits[i], (int32_t)i };
    qsort(j->choice, (size_t)j->vocab, sizeof *j->choice, falling);
    if (o->temperature == 0) return j->choice[0].token;
    most = (double)j->choice[0].p;
    for (int64_t i = 0; i < n; i++) sum += exp(((double)j->choice[i].p - most) / o->temperature);
    double left = sum * o->top_p, at;
    do kept += exp(((double)j->choice[k].p - most) / o->temperature);
    while (++k < n && kept < left);
    at = kept * (double)nsm_random_uniform((nsm_random){ j->seed, j->draws++ }, 0);
    for (int64_t i = 0; i < k; i++)
        if ((at -= exp(((double)j->choice[i].p - most) / o->temperature)) < 0)
            return j->choice[i].token;
    return j->choice[k - 1].token;
}

/* ---- decoding ---- */
/* Logits after these tokens, read at once. */
static int read_tokens(job *j, const int32_t *id, int64_t count)
{
    nsm_tensor *x = nsm_tape_tensor(j->tape, NSM_I32, 2, (int64_t[]){ 1, count }, id);
    nsm_tensor *h = nsm_backbone_hidden(j->tape, j->net, x, NULL, NULL, j->state);
    nsm_tensor *y = nsm_backbone_head(j->tape, j->net, nsm_slice(j->tape, h, 1, count - 1, 1));
    if (y) nsm_tensor_get(y, j->logits);
    nsm_tape_reset(j->tape);
    return nsm_error(j->t->ctx);
}

static int read_one(job *j)
{
    nsm_tensor *x = nsm_tape_tensor(j->tape, NSM_I32, 1, (int64_t[]){ 1 }, &j->next);
    nsm_tensor *y = nsm_backbone_step(j->tape, j->net, x, j->state);
    if (y) nsm_tensor_get(y, j->logits);
    nsm_tape_reset(j->tape);
    return nsm_error(j->t->ctx);
}

static int decode(job *j, double *seconds)
{
    const char *prompt = tool_get(j->t, "prompt");
    int64_t count;
    int32_t *id = tokens_of(j, prompt ? prompt : "", &count);
    nsm_tape_inference(j->tape, true);
    if (!nsm_error(j->t->ctx) && !count)
        fail(j, "there is nothing to go on from: give --prompt TEXT, or --state FILE of an earlier "
                "call");
    if (!nsm_error(j->t->ctx) && count > 1) read_tokens(j, id, count - 1);
    if (!nsm_error(j->t->ctx)) j->next = id[count - 1];
    free(id);
    double began = progress_now();
    for (int64_t i = 0; i < j->o.tokens && !nsm_error(j->t->ctx) && !stop_signal(); i++) {
        if (read_one(j)) break;
        tell(j, j->next = choose(j));
    }
    *seconds = progress_now() - began;
    return nsm_error(j->t->ctx);
}

static bool open_model(job *j)
{
    nsm_ctx *ctx = j->t->ctx;
    if (!model_read(j->t, j->t->arg[0], &j->m)) return false;
    if (!sequence_wanted(&j->m.options) || j->m.meta.labels != NSM_SEQUENCE_STREAM)
        return fail(j, "this model does not tell the next token") == NSM_OK;
    j->vocab = j->m.meta.outputs;
    j->task = sequence_task_new(ctx, &j->m.options, NULL, &j->m.meta);
    const char *symbols = j->m.meta.symbols ? j->m.meta.symbols : "";
    if (*symbols == '{') j->tokenizer = nsm_tokenizer_parse(ctx, symbols, j->m.path);
    else j->symbol = symbols_split(ctx, symbols, j->vocab);
    j->choice = malloc((size_t)j->vocab * sizeof *j->choice);
    j->logits = malloc((size_t)j->vocab * sizeof *j->logits);
    j->tape = nsm_tape_new(ctx);
    if (!j->choice || !j->logits) nsm_error_set(ctx, NSM_ENOMEM, "out of memory");
    if (nsm_error(ctx)) return false;
    j->net = sequence_task_model(j->task);
    return trainer_load(ctx, j->m.path, sequence_task_base(j->task)->module) == NSM_OK;
}

static int finish(job *j, double seconds)
{
    if (!j->t->json) {
        putchar('\n');
        return TOOL_DONE;
    }
    json_t *o = json_object(), *text = json_string(j->text ? j->text : "");
    json_object_set_new(o, "text", text ? text : json_null()); /* bytes need not be UTF-8 */
    json_object_set_new(o, "tokens", json_integer(j->o.tokens));
    json_object_set_new(o, "tokens_per_s", report_real(floor((double)j->o.tokens / seconds)));
    json_object_set_new(o, "state_bytes", json_integer(nsm_state_bytes(j->state)));
    return report_result(j->t, o);
}

static int run_sample(tool *t)
{
    job j = { .t = t };
    double seconds = 0;
    int code = tool_settings(t, fields, &j.o);
    if (code == TOOL_DONE) {
        stop_install();
        bool ok = open_model(&j) && !take_state(&j) && !decode(&j, &seconds) && !leave_state(&j);
        code = ok ? finish(&j, seconds) : tool_error(t);
    }
    nsm_state_free(j.state);
    nsm_tape_free(j.tape);
    nsm_tokenizer_free(j.tokenizer);
    if (j.symbol) symbols_free(j.symbol, j.vocab);
    sequence_task_free(j.task);
    free(j.choice);
    free(j.logits);
    free(j.text);
    model_close(&j.m);
    settings_clear(fields, &j.o);
    return code;
}

const tool_command sample_command = {
    .name = "sample",
    .args = "CHECKPOINT|RUN [KEY=VALUE...]",
    .summary = "Let a sequence model go on from a text.",
    .details = "With --state the model's state is left in a file: another call with the same file, "
               "without a prompt, goes on as if "
               "there had been no stop.",
    .options = options,
    .keys = keys,
    .least = 1,
    .most = 1,
    .run = run_sample,
};
