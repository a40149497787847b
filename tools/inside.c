/* inside.c - nsm report: one page of HTML that shows what a trained model is and, of a fused one,
 * what its answers rest on.  See inside.h. */
#include "tools/inside.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "config.h"
#include "tools/figure.h"
#include "tools/report.h"
#include "tools/run.h"
#include "tools/sequence.h"

typedef struct {
    int64_t examples, explain;
    setting_list node;
} inside_options;

static const setting fields[] = {
    { "examples", SETTING_INT, offsetof(inside_options, examples), "6",
      "things of the test part to show: right and wrong answers, half of each, drawn by --seed",
      NULL, "0..1000" },
    { "node", SETTING_LIST, offsetof(inside_options, node), "",
      "show these nodes instead, by their numbers", NULL, NULL },
    { "explain", SETTING_INT, offsetof(inside_options, explain), "4",
      "elements that are taken away to measure what they are worth", NULL, "1..1000000" },
    { 0 }
};
static const tool_keys keys[] = { { "Keys", fields }, { 0 } };
static const tool_option command_options[] = {
    MODEL_OPTIONS,
    { "out", 'o', "FILE.html", "the page (report.html in the run's folder)" },
    { 0 }
};
static const char *const part_name[3] = { "train", "valid", "test" };

/* ---- the model ---- */
static void fact(inside *in, const char *name, const char *value)
{
    page_row(in->page);
    page_cell(in->page, name);
    page_cell(in->page, value);
}

static void fact_number(inside *in, const char *name, int64_t value)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)value);
    fact(in, name, text);
}

static const char *system_name(const train_options *o)
{
    return *o->mixer ? o->mixer : *o->fuser ? o->fuser : *o->decoder ? o->decoder : o->model;
}

static void put_facts(inside *in)
{
    const train_options *o = &in->m.options;
    const nsm_dataset_split *split = in->m.fused ? fused_task_split(in->m.fused) : NULL;
    fact(in, "data", o->data);
    if (split) fact(in, "split", split->name);
    if (*o->recipe) fact(in, "recipe", o->recipe);
    fact(in, "model", in->fuser ? in->fuser->type->about : system_name(o));
    if (in->m.fused) {
        char text[64];
        const fused_task *s = in->m.fused;
        snprintf(text, sizeof text, "%s%s%s", s->graph ? "graph " : "", s->text ? "text " : "",
                 s->picture ? "picture" : "");
        fact(in, "it sees", text);
        fact_number(in, "parameters", nsm_module_count(s->base.module));
    }
    fact_number(in, "epoch", in->m.meta.state.epoch);
}

static void put_scores(inside *in, const char *metric, const part_score part[3])
{
    const nsm_dataset_split *split = in->m.fused ? fused_task_split(in->m.fused) : NULL;
    page_head(in->page, "part", false);
    if (split) page_head(in->page, "nodes", true);
    page_head(in->page, metric, true);
    page_head(in->page, "loss", true);
    for (int p = 0; p < 3; p++) {
        page_row(in->page);
        page_cell(in->page, part_name[p]);
        if (split) page_number(in->page, (double)split->count[p], 0);
        page_number(in->page, part[p].score, 3);
        page_number(in->page, part[p].loss, 3);
    }
}

/* The log beside the checkpoint. */
static bool read_log(inside *in, run_table *log)
{
    char path[4200];
    const char *slash = strrchr(in->m.path, '/');
    snprintf(path, sizeof path, "%.*slog.csv", slash ? (int)(slash - in->m.path + 1) : 0,
             in->m.path);
    return access(path, F_OK) == 0 && run_table_read(in->ctx, log, path) == NSM_OK;
}

typedef struct { const char *column, *name, *kind; } curve;

static void put_curves(inside *in, const run_table *log, const char *title, const curve *of,
                       int curves)
{
    figure_line line[4];
    int lines = 0;
    for (int k = 0; k < curves; k++) {
        const double *y = run_table_column(log, of[k].column);
        bool any = false;
        for (int64_t i = 0; y && i < log->rows; i++) any |= isfinite(y[i]);
        if (any)
            line[lines++] = (figure_line){ of[k].name, of[k].kind, log->rows, log->value, y };
    }
    if (lines) figure_curves(page_markup(in->page), title, log->name[0], lines, line);
}

static void put_training(inside *in)
{
    static const curve loss[] = { { "loss", "loss", "picture" },
                                  { "valid_loss", "validation", "graph" } },
                       score[] = { { "train", "train", "picture" },
                                   { "valid", "validation", "graph" },
                                   { "test", "test", "text" } };
    run_table log;
    if (!read_log(in, &log)) {
        page_say(in->page, "There is no log beside the checkpoint, so no curves.");
        return;
    }
    fputs("<h4>Training</h4><div class=\"row\">", page_markup(in->page));
    put_curves(in, &log, "loss by epoch", loss, 2);
    put_curves(in, &log, "score by epoch", score, 3);
    fputs("</div>\n", page_markup(in->page));
    run_table_free(&log);
}

static void put_model(inside *in, const char *metric, const part_score part[3])
{
    page_section(in->page, "The model");
    if (in->m.ds && *in->m.ds->description) page_say(in->page, "%s.", in->m.ds->description);
    fputs("<div class=\"row\"><div>", page_markup(in->page));
    put_facts(in);
    fputs("</div><div>", page_markup(in->page));
    put_scores(in, metric, part);
    fputs("</div></div>\n", page_markup(in->page));
    put_training(in);
    page_fold(in->page, "All settings", in->m.meta.config);
}

/* ---- states ---- */
static void put_life(inside *in)
{
    static const curve count[] = { { "states_open", "states that are open", "state" },
                                   { "states_read", "that an answer reads", "graph" } },
                       mass[] = { { "states_mass", "inputs in an open state", "text" } };
    run_table log;
    if (!read_log(in, &log)) return;
    if (run_table_column(&log, "states_open")) {
        put_curves(in, &log, "states of a thing by epoch", count, 2);
        put_curves(in, &log, "inputs in a state by epoch", mass, 1);
    }
    run_table_free(&log);
}

static void put_states_table(inside *in, const json_t *measured)
{
    const fused_usage *u = &in->view.usage;
    const json_t *without = json_object_get(measured, "states");
    double things = (double)u->things;
    char name[INSIDE_NAME];
    int64_t shown = (int64_t)json_array_size(without);
    page_head(in->page, inside_state(in->fuser, name), false);
    page_head(in->page, "open in", true);
    page_head(in->page, "inputs in it", true);
    page_head(in->page, "share of reading", true);
    page_head(in->page, "read most in", true);
    page_head(in->page, "accuracy without it", true);
    for (int64_t k = 0; k < shown; k++) {
        snprintf(name, sizeof name, "%lld%s", (long long)k, k < u->learned ? ", learned" : "");
        page_row(in->page);
        page_cell(in->page, name);
        page_number(in->page, (double)u->open[k] / things, 3);
        page_number(in->page, u->mass[k] / things, 2);
        page_number(in->page, u->read[k] / things, 3);
        page_number(in->page, (double)u->first[k] / things, 3);
        page_number(in->page,
                    json_number_value(json_object_get(json_array_get(without, (size_t)k),
                                                      "accuracy")), 3);
    }
    if (shown < u->states)
        page_say(in->page, "%lld more are not listed.", (long long)(u->states - shown));
}

static void put_states(inside *in, const json_t *measured)
{
    const fused_usage *u = &in->view.usage;
    const char *states = in->fuser->type->states;
    double note[3];
    fused_usage_notes(u, note);
    page_section(in->page, "Its states");
    if (u->learned < u->states)
        page_say(in->page,
                 "Every thing has a pool of its own: %d of %d %s %s there from the start, inputs "
                 "open others where none is near.  None is merged with another, and none is "
                 "given up: a pool ends with its thing.",
                 u->learned, u->states, states, u->learned == 1 ? "is" : "are");
    else
        page_say(in->page, "All %d %s are there for every thing: none is opened, merged or given "
                           "up.", u->states, states);
    page_say(in->page,
             "Over %lld things of the test part: %.2f %s are open, %.2f inputs are in an open one, "
             "an answer reads %.2f of them (exp of the entropy of what it reads).",
             (long long)u->things, note[0], states, note[1], note[2]);
    put_states_table(in, measured);
    fputs("<div class=\"row\">", page_markup(in->page));
    if (u->learned < u->states)
        figure_columns(page_markup(in->page), "things by their open states", "open states",
                       u->states + 1, u->by_open);
    put_life(in);
    fputs("</div>\n", page_markup(in->page));
}

/* ---- what answers rest on ---- */
static void measured_row(inside *in, const json_t *measured, const char *key, const char *what)
{
    const json_t *v = json_object_get(measured, key);
    if (!v) return;
    double value = json_number_value(v),
           whole = json_number_value(json_object_get(measured, "accuracy"));
    page_row(in->page);
    page_cell(in->page, what);
    page_number(in->page, value, 3);
    page_number(in->page, value - whole, 3);
}

static void measured_head(inside *in)
{
    page_head(in->page, "taken away", false);
    page_head(in->page, "accuracy", true);
    page_head(in->page, "change", true);
}

/* What is not taken away. */
static const char *stays_of(const fused_task *s)
{
    int held = fused_held(s);
    return s->graphs             ? "of a graph no node has to stay."
           : held == FUSED_GRAPH ? "the nodes stay, for an answer is one of them."
           : held == FUSED_TEXT  ? "the words stay, for they are what is asked for."
                                 : "a thing's own node stays, which has heard of its neighbours, but "
                                   "neither its class nor what was told of it before is shown.";
}

static void put_faith(inside *in, const json_t *measured)
{
    const fused_task *s = in->m.fused;
    json_int_t k = json_integer_value(json_object_get(measured, "taken_away"));
    page_section(in->page, "What its answers rest on");
    page_say(in->page,
             "Measured on %lld things of the test part, drawn at random.  Words and neighbours are "
             "left out, cells of a picture take its ground's colour; %s",
             (long long)json_integer_value(json_object_get(measured, "things")), stays_of(s));
    measured_head(in);
    measured_row(in, measured, "accuracy", "nothing");
    if (k) {
        char text[3][64];
        snprintf(text[0], sizeof *text, "the %lld that it names", (long long)k);
        snprintf(text[1], sizeof *text, "%lld at random", (long long)k);
        snprintf(text[2], sizeof *text, "all but the %lld that it names", (long long)k);
        measured_row(in, measured, "without_named", text[0]);
        measured_row(in, measured, "without_random", text[1]);
        measured_row(in, measured, "named_alone", text[2]);
    }
    measured_row(in, measured, "without_graph", "the graph: its neighbours");
    measured_row(in, measured, "without_text", "the text");
    measured_row(in, measured, "without_picture", "the picture");
    measured_row(in, measured, "without_most_read_state", "the state that each answer read most");
    measured_row(in, measured, "without_random_state", "one state at random that it read");
    if (k)
        page_say(in->page,
                 "If what it names is what it rests on, the second row is below the third, and the "
                 "fourth near the first.");
    if (in->fuser->states)
        page_say(in->page,
                 "A state that is taken away is closed to the answer; other states may have heard "
                 "of it.");
}

/* ---- examples ---- */
static int look(inside *in, int64_t examples)
{
    int64_t count = FUSED_EXPLAINED;
    int32_t *node = fused_draw(in->m.fused, in->t->seed, &count);
    if (node && count)
        fused_task_look(in->m.fused, count, node, (examples + 1) / 2, examples / 2, &in->view);
    free(node);
    return nsm_error(in->ctx);
}

/* The nodes that were asked for. */
static int look_at(inside *in, const setting_list *list, fused_view *v)
{
    int32_t node[SETTING_LIST_MOST];
    for (int k = 0; k < list->count; k++) {
        double x = list->value[k];
        if (!(x >= 0 && x <= INT32_MAX && x == floor(x)))
            return nsm_error_set(in->ctx, NSM_EINVAL, "node=%g is no number of a node", x);
        node[k] = (int32_t)x;
    }
    return fused_task_look(in->m.fused, list->count, node, list->count, list->count, v);
}

static void put_examples(inside *in, const fused_view *v, bool drawn)
{
    const nsm_fuser_type *type = in->fuser->type;
    page_section(in->page, "Examples");
    if (drawn)
        page_say(in->page, "Of %lld things of the test part, drawn at random, %lld are told "
                           "rightly; here are some right answers and some wrong ones.",
                 (long long)v->things, (long long)v->right);
    if (type->weights)
        page_say(in->page,
                 "Shares say how much of what an answer took came from an input (%s); a ring marks "
                 "the input that opened a state.", type->weights);
    else
        page_say(in->page,
                 "The fuser %s has no weights that say how much an answer took of an input: there "
                 "are no shares to show, no states, and nothing that it names.", type->name);
    fputs("<p>", page_markup(in->page));
    for (int m = 0; m < FUSED_MODALITIES; m++) {
        const fused_task *s = in->m.fused;
        if (m == FUSED_GRAPH ? s->graph : m == FUSED_TEXT ? s->text : s->picture)
            fprintf(page_markup(in->page), "<span class=\"key %s\">\xe2\x96\xa0 %s</span> ",
                    fused_modality_name[m], fused_modality_name[m]);
    }
    if (type->states)
        fprintf(page_markup(in->page), "<span class=\"key state\">\xe2\x96\xa0 %s</span>",
                type->states);
    fputs("</p>\n", page_markup(in->page));
    for (int64_t k = 0; k < v->count; k++) inside_example(in, &v->example[k]);
}

/* ---- the whole ---- */
static void page_begin(inside *in)
{
    char title[512];
    const train_options *o = &in->m.options;
    const char *slash = strrchr(o->data, '/');
    snprintf(title, sizeof title, "%.200s on %.200s", system_name(o),
             in->m.ds ? in->m.ds->name : slash ? slash + 1 : o->data);
    in->page = page_new(title, "What this model is, and what its answers rest on: a page of nsm "
                               "report.");
    if (!in->page) nsm_error_set(in->ctx, NSM_ENOMEM, "out of memory for the page");
}

/* A model of another kind: what its checkpoint and its log say. */
static void plain_page(inside *in)
{
    const trainer_state *s = &in->m.meta.state;
    part_score part[3];
    for (int p = 0; p < 3; p++) part[p] = (part_score){ s->kept_loss[p], s->kept[p] };
    page_begin(in);
    if (!in->page) return;
    put_model(in, "score", part);
    page_say(in->page, sequence_wanted(&in->m.options)
                           ? "What it did with each token is what nsm trace shows."
                           : "It fuses no modalities: there are no states to look into.");
}

static void fused_page(inside *in, const inside_options *o)
{
    fused_task *s = in->m.fused;
    task *what = fused_task_base(s);
    fused_view asked = { 0 };
    part_score part[3];
    int64_t k = in->fuser->type->weights && fused_removable(s) ? o->explain : 0;
    bool test = fused_task_split(s)->count[NSM_TEST] > 0, drawn = !o->node.count;
    json_t *measured = NULL;
    if (what->evaluate(what, part)) return;
    if (test) measured = fused_task_explain(s, k, FUSED_EXPLAINED);
    if (!nsm_error(in->ctx)) look(in, drawn ? o->examples : 0);
    if (!nsm_error(in->ctx) && !drawn) look_at(in, &o->node, &asked);
    if (!nsm_error(in->ctx)) page_begin(in);
    if (in->page) {
        put_model(in, what->metric, part);
        put_examples(in, drawn ? &in->view : &asked, drawn);
        if (test && in->fuser->states) put_states(in, measured);
        if (test) put_faith(in, measured);
    }
    fused_view_clear(&asked);
    json_decref(measured);
}

static bool open_model(inside *in)
{
    if (!model_read(in->t, in->t->arg[0], &in->m)) return false;
    if (!fused_wanted(&in->m.options) || *in->m.options.sides) return true;
    model_close(&in->m);
    if (!model_open(in->t, in->t->arg[0], &in->m)) return false;
    in->fuser = nsm_fused_fuser(in->m.fused->model);
    return true;
}

/* Where the page goes: given, or beside the checkpoint. */
static void path_of(const inside *in, char path[4200])
{
    const char *out = tool_get(in->t, "out"), *slash = strrchr(in->m.path, '/');
    if (out) snprintf(path, 4200, "%s", out);
    else snprintf(path, 4200, "%.*sreport.html", slash ? (int)(slash - in->m.path + 1) : 0,
                  in->m.path);
}

static int run_report(tool *t)
{
    inside in = { .t = t, .ctx = t->ctx };
    inside_options o = { 0 };
    char path[4200];
    int code = tool_settings(t, fields, &o);
    if (code != TOOL_DONE) return code;
    if (open_model(&in)) {
        if (in.fuser) fused_page(&in, &o);
        else if (o.node.count)
            nsm_error_set(t->ctx, NSM_EINVAL, "node=: %s is not a fused model", in.m.path);
        else plain_page(&in);
    }
    char *html = page_end(in.page);
    if (!nsm_error(t->ctx) && !html)
        nsm_error_set(t->ctx, NSM_ENOMEM, "out of memory for the page");
    if (!nsm_error(t->ctx)) {
        path_of(&in, path);
        write_file(t->ctx, path, html, strlen(html));
    }
    code = nsm_error(t->ctx)
               ? tool_error(t)
               : report_result(t, json_pack("{s:s, s:I, s:I}", "page", path, "bytes",
                                            (json_int_t)strlen(html), "examples",
                                            (json_int_t)(o.node.count ? o.node.count
                                                                      : in.view.count)));
    free(html);
    fused_view_clear(&in.view);
    model_close(&in.m);
    return code;
}

const tool_command report_command = {
    .name = "report",
    .args = "RUN|CHECKPOINT [KEY=VALUE...]",
    .summary = "Write a page that looks inside a trained model.",
    .details = "One file of HTML, which needs nothing beside it: settings, scores, curves; of a "
               "fused model examples with their inputs, the states that these were written to and "
               "that the answer read, how states are used, and what the answers rest on, measured "
               "as nsm eval --explain does.",
    .options = command_options,
    .keys = keys,
    .least = 1,
    .most = 1,
    .run = run_report
};
