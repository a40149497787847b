/* trace.c - nsm trace: what a trained sequence model did with each token, as arrays and as
 * pictures.
 *
 * Of the Neural State Machine: which states each token was written to and read (with their null
 * shares, which are 1 less the sum), usage, which states were opened, used again and given up, and
 * under which token each was filed: "token t reads what was filed under token i".  Of a mixer with
 * other weights of its own (attention): these.
 *
 * The file, of kind "trace": token [n]; for each layer layers/0/: flow [n, n] (nsm_mixer_flow);
 * with the mixer nsm write, read, usage [H, n, s], alive, pruned [H, n, s], recycled [H, n], slot
 * [H, n] the state opened or -1, filed [H, n, s] the token under which each state's content stands
 * after each token or -1, beta [n, H], gate [n, H] of the H heads with a pool, rate [n, 2 heads];
 * and the events in order, events/: kind (0 opened, 1 used again, 2 given up), token, head, state,
 * filed (before). */
#include "config.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/hdf5.h"
#include "seq/memory.h"
#include "tools/charts.h"
#include "tools/model.h"
#include "tools/report.h"
#include "tools/run.h"
#include "tools/sequence.h"

typedef struct {
    int64_t row, from, tokens, head;
    char *part;
} trace_options;

#define FIELD(name, type, fallback, help, choices, range)                                          \
    {                                                                                              \
#name, SETTING_##type, offsetof(trace_options, name), fallback, help, choices, range       \
    }
static const setting fields[] = {
    FIELD(part, CHOICE, "test", "of the data", "train|valid|test", NULL),
    FIELD(row, INT, "0", "which row of it", NULL, ">=0"),
    FIELD(from, INT, "0", "first token of the row (of a stream)", NULL, ">=0"),
    FIELD(tokens, INT, "256", "tokens from there, at most", NULL, "1..100000"),
    FIELD(head, INT, "0", "the head whose states are drawn", NULL, ">=0"),
    { NULL, SETTING_BOOL, 0, NULL, NULL, NULL, NULL },
};
static const tool_keys keys[] = { { "Keys", fields }, { NULL, NULL } };
static const tool_option options[] = {
    { "data", 'd', "FILE", "sequences (those that the model was trained on)" },
    { "prompt", 'p', "TEXT", "look at this text instead" },
    { "set", 0, "KEYS", "change what a trained mixer allows to be changed, as \"s=128\"" },
    { "out", 'o', "DIR", "where trace.h5 and the pictures go (trace)" },
    { NULL, 0, NULL, NULL },
};

typedef struct {
    int64_t count, room;
    int32_t *kind, *token, *head, *state;
    int64_t *filed;
} event_list;

typedef struct {
    tool *t;
    nsm_ctx *ctx;
    model m;
    trace_options o;
    nsm_sequences *ds;
    sequence_task *task;
    nsm_backbone *net;
    nsmi_h5 *file;
    char **symbol, **name; /* of the alphabet; of each token */
    int64_t n, pictures, opened, recycled, pruned;
    int32_t *id;
    const char *folder;
} job;

/* ---- the tokens ---- */
static int take_prompt(job *j, const char *text)
{
    int64_t vocab = j->m.meta.outputs;
    j->id = malloc((strlen(text) + 1) * sizeof *j->id);
    for (size_t bytes; j->id && *text; text += bytes) {
        int32_t token = (unsigned char)*text;
        bytes = 1;
        if (j->symbol) token = nsm_sequences_token(j->symbol, vocab, text, &bytes);
        if (token < 0 || token >= vocab)
            return nsm_error_set(j->ctx, NSM_EINVAL, "the model has no token for \"%.8s\"", text);
        j->id[j->n++] = token;
    }
    return j->n ? NSM_OK : nsm_error_set(j->ctx, NSM_EINVAL, "--prompt is empty");
}

static int take_row(job *j)
{
    int part = !strcmp(j->o.part, "train")   ? NSM_TRAIN
               : !strcmp(j->o.part, "valid") ? NSM_VALID
                                             : NSM_TEST;
    const nsm_sequence_part *p = &j->ds->part[part];
    int64_t there = 0, at = j->o.row < p->rows ? nsm_sequences_row(p, j->o.row, &there) : 0;
    if (j->o.from >= there)
        return nsm_error_set(j->ctx, NSM_EINVAL,
                             "the part %s has %lld rows; its row %lld has no token %lld", j->o.part,
                             (long long)p->rows, (long long)j->o.row, (long long)j->o.from);
    j->n = there - j->o.from < j->o.tokens ? there - j->o.from : j->o.tokens;
    j->id = malloc((size_t)j->n * sizeof *j->id);
    if (!j->id) return nsm_error_set(j->ctx, NSM_ENOMEM, "out of memory");
    memcpy(j->id, p->id + at + j->o.from, (size_t)j->n * sizeof *j->id);
    return NSM_OK;
}

/* What each token reads as, for the pictures. */
static void take_names(job *j)
{
    j->name = calloc((size_t)j->n, sizeof *j->name);
    for (int64_t i = 0; j->name && i < j->n; i++) {
        const char *text = j->symbol ? j->symbol[j->id[i]] : NULL;
        char number[16];
        snprintf(number, sizeof number, "%d", j->id[i]);
        j->name[i] = strdup(!text                 ? number
                            : !strcmp(text, " ")  ? "_"
                            : !strcmp(text, "\n") ? "\\n"
                                                  : text);
    }
}

static bool open_model(job *j)
{
    const char *data = tool_get(j->t, "data"), *prompt = tool_get(j->t, "prompt");
    if (!model_read(j->t, j->t->arg[0], &j->m)) return false;
    if (!sequence_wanted(&j->m.options))
        return nsm_error_set(j->ctx, NSM_EINVAL, "%s is no model of sequences", j->t->arg[0]) ==
               NSM_OK;
    if (data) settings_set(j->ctx, train_fields, &j->m.options, "data", data, "--data");
    if (!prompt) j->ds = nsm_sequences_load(j->ctx, j->m.options.data);
    if (nsm_error(j->ctx)) return false;
    j->task = sequence_task_new(j->ctx, &j->m.options, j->ds, &j->m.meta);
    j->net = j->task ? sequence_task_model(j->task) : NULL;
    if (j->task && (!j->net || !nsm_backbone_settings(j->net)->vocab))
        nsm_error_set(j->ctx, NSM_EINVAL, "%s is no model of tokens", j->t->arg[0]);
    j->symbol = symbols_split(j->ctx, j->m.meta.symbols, j->m.meta.inputs);
    if (nsm_error(j->ctx) || (prompt ? take_prompt(j, prompt) : take_row(j))) return false;
    take_names(j);
    return !trainer_load(j->ctx, j->m.path, sequence_task_base(j->task)->module) &&
           !sequence_task_set(j->task, tool_get(j->t, "set"));
}

/* ---- what a layer showed ---- */
static int write_array(job *j, int layer, const char *name, nsm_type type, int rank,
                       const int64_t *dim, const void *data)
{
    char path[64];
    snprintf(path, sizeof path, "layers/%d/%s", layer, name);
    return nsmi_h5_write(j->file, path, type, rank, dim, data);
}

/* x [1, ...] as an array of the file; on the host, to be freed. */
static void *write_tensor(job *j, int layer, const char *name, const nsm_tensor *x)
{
    void *host = x ? malloc((size_t)nsm_numel(x) * nsm_type_bytes(x->type) + 1) : NULL;
    if (!x) return NULL;
    if (!host) nsm_error_set(j->ctx, NSM_ENOMEM, "out of memory for what was seen");
    if (host && !nsm_tensor_get(x, host))
        write_array(j, layer, name, x->type, x->rank - 1, x->dim + 1, host);
    return host;
}

static void add_event(job *j, event_list *e, int kind, int64_t token, int64_t head, int64_t state,
                      int64_t filed)
{
    if (e->count == e->room) {
        size_t room = (size_t)(e->room = 2 * e->room + 256);
        int32_t **const list[4] = { &e->kind, &e->token, &e->head, &e->state };
        for (int i = 0; i < 4; i++) {
            int32_t *more = realloc(*list[i], room * sizeof *more);
            if (more) *list[i] = more;
            else nsm_error_set(j->ctx, NSM_ENOMEM, "out of memory for events");
        }
        int64_t *more = realloc(e->filed, room * sizeof *more);
        if (more) e->filed = more;
        else nsm_error_set(j->ctx, NSM_ENOMEM, "out of memory for events");
        if (nsm_error(j->ctx)) return;
    }
    e->kind[e->count] = kind;
    e->token[e->count] = (int32_t)token;
    e->head[e->count] = (int32_t)head;
    e->state[e->count] = (int32_t)state;
    e->filed[e->count++] = filed;
    *(kind == CHART_OPENED ? &j->opened : kind == CHART_RECYCLED ? &j->recycled : &j->pruned) += 1;
}

/* The events of a head in their order, and under which token each state is filed after each token:
 * filed [n, s]. */
static void follow(job *j, event_list *e, int64_t head, int64_t s, const int32_t *slot,
                   const uint8_t *recycled, const uint8_t *pruned, int64_t *birth, int64_t *filed)
{
    for (int64_t t = 0; t < j->n && !nsm_error(j->ctx); t++) {
        for (int64_t i = 0; i < s; i++) {
            if (!pruned[t * s + i]) continue;
            add_event(j, e, CHART_PRUNED, t, head, i, birth[i]);
            birth[i] = -1;
        }
        if (slot[t] >= 0) {
            add_event(j, e, recycled[t] ? CHART_RECYCLED : CHART_OPENED, t, head, slot[t],
                      birth[slot[t]]);
            birth[slot[t]] = t;
        }
        memcpy(filed + t * s, birth, (size_t)s * sizeof *filed);
    }
}

static void write_events(job *j, int layer, const event_list *e)
{
    static const char *const name[4] = { "events/kind", "events/token", "events/head",
                                         "events/state" };
    const int32_t *const list[4] = { e->kind, e->token, e->head, e->state };
    for (int i = 0; i < 4; i++) write_array(j, layer, name[i], NSM_I32, 1, &e->count, list[i]);
    write_array(j, layer, "events/filed", NSM_I64, 1, &e->count, e->filed);
}

/* The mean over a head of its gate, opened: the share of memory against the window, [n, H]. */
static void write_gate(job *j, int layer, const nsm_tensor *gate, int64_t heads)
{
    int64_t size = gate->dim[2] / heads;
    float *x = malloc((size_t)nsm_numel(gate) * sizeof *x),
          *share = calloc((size_t)(j->n * heads), sizeof *share);
    if (!x || !share) nsm_error_set(j->ctx, NSM_ENOMEM, "out of memory");
    else if (!nsm_tensor_get(gate, x)) {
        for (int64_t i = 0; i < nsm_numel(gate); i++)
            share[i / size] += 1 / ((1 + expf(-x[i])) * (float)size);
        write_array(j, layer, "gate", NSM_F32, 2, (int64_t[]){ j->n, heads }, share);
    }
    free(x);
    free(share);
}

/* ---- pictures ---- */
/* [n, s] -> [s, n] */
static float *turned(const float *x, int64_t n, int64_t s)
{
    float *y = malloc((size_t)(n * s) * sizeof *y);
    for (int64_t i = 0; y && i < n * s; i++) y[i % s * n + i / s] = x[i];
    return y;
}

static int draw_map(job *j, const char *name, const chart_map *m)
{
#ifdef HAVE_PLPLOT
    char path[4200];
    snprintf(path, sizeof path, "%.4000s/%s", j->folder, name);
    j->pictures++;
    return chart_map_draw(j->ctx, path, m);
#else
    (void)name, (void)m;
    return nsm_error(j->ctx);
#endif
}

/* Writing, reading and usage of one head's states, with its events. */
static int draw_states(job *j, int layer, int64_t s, const event_list *e, const float *written,
                       const float *taken, const float *usage)
{
    int64_t h = j->o.head, at = h * j->n * s, count = 0;
    float *map[3] = { turned(written + at, j->n, s), turned(taken + at, j->n, s),
                      turned(usage + at, j->n, s) };
    chart_mark *mark = malloc((size_t)(e->count + 1) * sizeof *mark);
    char title[200], name[64];
    for (int64_t i = 0; mark && i < e->count; i++)
        if (e->head[i] == h) mark[count++] = (chart_mark){ e->token[i], e->state[i], e->kind[i] };
    snprintf(title, sizeof title, "States of layer %d, head %lld, token by token", layer,
             (long long)h);
    snprintf(name, sizeof name, "states-%d.png", layer);
    if (map[0] && map[1] && map[2] && mark)
        draw_map(j, name,
                 &(chart_map){
                     .title = title,
                     .column_label = "token",
                     .columns = j->n,
                     .name = j->name,
                     .panels = 3,
                     .panel = (chart_panel[]){ { "written to", "state", s, map[0], 1, count, mark },
                                               { "read", "state", s, map[1], 1, 0, NULL },
                                               { "usage", "state", s, map[2], 0, 0, NULL } } });
    else nsm_error_set(j->ctx, NSM_ENOMEM, "out of memory for a picture");
    for (int i = 0; i < 3; i++) free(map[i]);
    free(mark);
    return nsm_error(j->ctx);
}

/* Token t takes from what stands under token i: the mean of the heads. */
static int put_flow(job *j, int layer, nsm_mixer *mixer)
{
    char title[200], name[64];
    float *flow = malloc((size_t)(j->n * j->n) * sizeof *flow), *map = NULL;
    if (!flow)
        return nsm_error_set(j->ctx, NSM_ENOMEM, "out of memory for what tokens take from tokens");
    if (!nsm_mixer_flow(mixer, 0, j->n, flow) &&
        !write_array(j, layer, "flow", NSM_F32, 2, (int64_t[]){ j->n, j->n }, flow) &&
        (map = turned(flow, j->n, j->n))) {
        snprintf(title, sizeof title, "Whence each token takes what it tells: %s of layer %d",
                 mixer->type->weights, layer);
        snprintf(name, sizeof name, "flow-%d.png", layer);
        draw_map(j, name,
                 &(chart_map){ .title = title,
                               .column_label = "token",
                               .columns = j->n,
                               .name = j->name,
                               .panels = 1,
                               .panel = &(chart_panel){ "share, mean of the heads", "of token",
                                                        j->n, map, 0, 0, NULL } });
    }
    free(map);
    free(flow);
    return nsm_error(j->ctx);
}

/* ---- a layer of the Neural State Machine ---- */
static int put_states(job *j, int layer, const nsm_memory_view *v)
{
    int64_t heads = v->slots.read->dim[1], s = v->slots.read->dim[3], dim[3] = { heads, j->n, s };
    float *written = write_tensor(j, layer, "write", v->slots.write),
          *taken = write_tensor(j, layer, "read", v->slots.read);
    float *usage = write_tensor(j, layer, "usage", v->slots.usage);
    uint8_t *alive = write_tensor(j, layer, "alive", v->slots.alive),
            *pruned = write_tensor(j, layer, "pruned", v->slots.pruned);
    uint8_t *recycled = write_tensor(j, layer, "recycled", v->slots.recycled);
    int32_t *slot = write_tensor(j, layer, "slot", v->slots.slot);
    int64_t *birth = malloc((size_t)(heads * s) * sizeof *birth),
            *filed = malloc((size_t)(heads * j->n * s) * sizeof *filed);
    event_list e = { 0 };
    free(write_tensor(j, layer, "beta", v->beta));
    free(write_tensor(j, layer, "rate", v->rate));
    write_gate(j, layer, v->gate, heads);
    if (!birth || !filed) nsm_error_set(j->ctx, NSM_ENOMEM, "out of memory for events");
    else nsm_tensor_get(v->birth, birth);
    for (int64_t h = 0; h < heads && !nsm_error(j->ctx); h++)
        follow(j, &e, h, s, slot + h * j->n, recycled + h * j->n, pruned + h * j->n * s,
               birth + h * s, filed + h * j->n * s);
    if (!nsm_error(j->ctx)) {
        write_array(j, layer, "filed", NSM_I64, 3, dim, filed);
        write_events(j, layer, &e);
        if (j->o.head >= heads)
            nsm_error_set(j->ctx, NSM_EINVAL, "head is %lld, but layer %d has %lld",
                          (long long)j->o.head, layer, (long long)heads);
        else draw_states(j, layer, s, &e, written, taken, usage);
    }
    void *const all[] = { written, taken, usage,  alive,   pruned, recycled, slot,
                          birth,   filed, e.kind, e.token, e.head, e.state,  e.filed };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    return nsm_error(j->ctx);
}

static int look(job *j)
{
    nsm_tape *tape = nsm_tape_new(j->ctx);
    int layers = nsm_backbone_settings(j->net)->layers;
    nsm_tape_inference(tape, true);
    for (int i = 0; i < layers; i++) nsm_mixer_watch(nsm_backbone_mixer(j->net, i), true);
    nsm_tensor *x = nsm_tape_tensor(tape, NSM_I32, 2, (int64_t[]){ 1, j->n }, j->id);
    nsm_backbone_hidden(tape, j->net, x, NULL, NULL, NULL);
    nsmi_h5_put_int(j->file, "", "version", 1);
    nsmi_h5_put_text(j->file, "", "mixer", nsm_backbone_settings(j->net)->mixer);
    nsmi_h5_write(j->file, "token", NSM_I32, 1, &j->n, j->id);
    for (int i = 0; i < layers && !nsm_error(j->ctx); i++) {
        nsm_mixer *mixer = nsm_backbone_mixer(j->net, i);
        if (!put_flow(j, i, mixer) && nsm_memory_seen(mixer))
            put_states(j, i, nsm_memory_seen(mixer));
        nsm_mixer_watch(mixer, false);
    }
    nsm_tape_free(tape);
    return nsm_error(j->ctx);
}

static int run_trace(tool *t)
{
    job j = { .t = t, .ctx = t->ctx, .folder = tool_get(t, "out") };
    char path[4200];
    int code = tool_settings(t, fields, &j.o);
    if (!j.folder) j.folder = "trace";
    snprintf(path, sizeof path, "%.4000s/trace.h5", j.folder);
    if (code == TOOL_DONE) {
        if (open_model(&j) && !make_folder(t->ctx, j.folder)) {
            j.file = nsmi_h5_create(t->ctx, path, "trace");
            if (j.file) look(&j);
            nsmi_h5_commit(t->ctx, j.file);
        }
        code = nsm_error(t->ctx)
                   ? tool_error(t)
                   : report_result(
                         t, json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "file", path, "mixer",
                                      nsm_backbone_settings(j.net)->mixer, "tokens",
                                      (json_int_t)j.n, "opened", (json_int_t)j.opened, "used_again",
                                      (json_int_t)j.recycled, "given_up", (json_int_t)j.pruned,
                                      "pictures", (json_int_t)j.pictures));
    }
    if (j.symbol) symbols_free(j.symbol, j.m.meta.inputs);
    if (j.name) symbols_free(j.name, j.n);
    sequence_task_free(j.task);
    nsm_sequences_free(j.ds);
    free(j.id);
    model_close(&j.m);
    settings_clear(fields, &j.o);
    return code;
}

const tool_command trace_command = {
    .name = "trace",
    .args = "CHECKPOINT|RUN [KEY=VALUE...]",
    .summary = "Show what a sequence model did with each token.",
    .details = "Of the Neural State Machine: which states each token was written to and read, "
               "usage, what was opened, used again and given up, "
               "and under which token what is read was filed; of attention: its weights.  As "
               "arrays in trace.h5, and as pictures, "
               "states-LAYER.png and flow-LAYER.png.",
    .options = options,
    .keys = keys,
    .least = 1,
    .most = 1,
    .run = run_trace,
};
