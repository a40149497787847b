/* compare_scaling.c - nsm compare --task scaling: time against length, for telling token by token
 * and for training.
 *
 * One pass over the longest length notes the time when each length is reached.  Telling: a step of
 * one token after the other with a carried state.  Training: segment after segment with the state
 * carried over, gradients stopping at a segment's start, the optimizer's step among it: so its
 * memory does not grow either.  The slope is that of the logarithm of time over the logarithm of
 * length by least squares, with its standard error: 1 is a time proportional to length.  Processor
 * time stands beside the clock's, on a machine with other work too. */
#include "config.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "tools/charts.h"
#include "tools/compare.h"
#include "tools/page.h"
#include "tools/progress.h"
#include "tools/report.h"
#include "tools/run.h"

enum { VOCAB = 256, WARM = 1024, ROWS_MOST = 64 };
static const char *const way_name[2] = { "decode", "train" };

/* ---- jobs ---- */
json_t *compare_scaling_job(const comparison *c, const contender *m, bool train)
{
    json_t *job = compare_job(c, m, "scaling", NAN, c->t->seed, 1), *lengths = json_array();
    for (int i = 0; i < c->s.lengths.count; i++)
        json_array_append_new(lengths, json_integer((json_int_t)c->s.lengths.value[i]));
    json_object_set_new(job, "lengths", lengths);
    json_object_set_new(job, "train", json_boolean(train));
    json_object_set_new(job, "segment", json_integer(c->s.segment));
    json_object_set_new(job, "limit", json_real(m->token_bytes ? c->s.limit : 0));
    return job;
}

void compare_scaling_folder(const contender *m, bool train, char path[COMPARE_PATH])
{
    snprintf(path, COMPARE_PATH, "%.3900s/scaling-%s", m->folder, way_name[train]);
}

/* ---- one pass ---- */
typedef struct {
    nsm_ctx *ctx;
    nsm_backbone *net;
    nsm_tape *tape;
    nsm_state *state;
    nsm_optimizer *optimizer;
    int64_t segment;
    int32_t *id; /* [segment + 1] */
} pass;

static double cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int32_t token_at(int64_t i)
{
    return (int32_t)(nsm_random_u32((nsm_random){ 7, 0 }, (uint64_t)i) % VOCAB);
}

static int one_step(pass *p, int64_t at)
{
    nsm_tensor *x = nsm_tape_tensor(p->tape, NSM_I32, 1, (int64_t[]){ 1 },
                                    &(int32_t){ token_at(at) });
    nsm_backbone_step(p->tape, p->net, x, p->state);
    nsm_tape_reset(p->tape);
    return nsm_error(p->ctx);
}

static int one_segment(pass *p, int64_t at, int64_t n)
{
    for (int64_t i = 0; i <= n; i++) p->id[i] = token_at(at + i);
    nsm_tensor *x = nsm_tape_tensor(p->tape, NSM_I32, 2, (int64_t[]){ 1, n }, p->id);
    nsm_tensor *y = nsm_backbone_apply(p->tape, p->net, x, NULL, p->state);
    y = y ? nsm_reshape(p->tape, y, 2, (int64_t[]){ n, VOCAB }) : NULL;
    nsm_tensor *loss = nsm_cross_entropy(p->tape, y,
                                         nsm_tape_tensor(p->tape, NSM_I32, 1, &n, p->id + 1), NULL);
    if (!nsm_tape_backward(p->tape, loss)) nsm_optimizer_step(p->optimizer, 1e-4);
    nsm_tape_reset(p->tape);
    return nsm_error(p->ctx);
}

/* From token `at` on to `to`. */
static int go_on(pass *p, bool train, int64_t at, int64_t to)
{
    while (at < to && !nsm_error(p->ctx) && !stop_signal()) {
        int64_t n = !train ? 1 : to - at < p->segment ? to - at : p->segment;
        if (train ? one_segment(p, at, n) : one_step(p, at)) break;
        at += n;
    }
    return nsm_error(p->ctx);
}

/* The lengths one after the other; a pass whose limit (seconds of either clock, 0: none) is over
 * ends there: other work on the machine does not make it shorter. */
static int measure(pass *p, const json_t *job, json_t *points)
{
    json_t *lengths = json_object_get(job, "lengths");
    bool train = json_is_true(json_object_get(job, "train"));
    double limit = json_number_value(json_object_get(job, "limit"));
    if (go_on(p, train, 0, train ? 2 * p->segment : WARM) || nsm_backbone_restart(p->net, p->state))
        return nsm_error(p->ctx);
    double began = progress_now(), cpu = cpu_seconds();
    int64_t at = 0;
    for (size_t i = 0; i < json_array_size(lengths); i++) {
        int64_t to = json_integer_value(json_array_get(lengths, i));
        if (go_on(p, train, at, to) || stop_signal()) return nsm_error(p->ctx);
        double seconds = progress_now() - began, busy = cpu_seconds() - cpu;
        json_array_append_new(
            points, json_pack("{s:I, s:o, s:o, s:I, s:o}", "tokens", (json_int_t)to, "seconds",
                              report_real(seconds), "cpu_seconds", report_real(busy),
                              "state_bytes", (json_int_t)nsm_state_bytes(p->state), "tensor_mib",
                              report_real((double)nsm_ctx_memory(p->ctx).peak_bytes / (1 << 20))));
        at = to;
        if (limit > 0 && fmin(seconds, busy) > limit) break;
    }
    return nsm_error(p->ctx);
}

int compare_scaling(nsm_ctx *ctx, const train_options *o, const json_t *job, json_t *result)
{
    bool gated = !strcmp(o->ff, "swiglu"), train = json_is_true(json_object_get(job, "train"));
    pass p = { .ctx = ctx,
               .segment = json_integer_value(json_object_get(job, "segment")),
               .tape = nsm_tape_new(ctx) };
    json_t *points = json_array();
    p.net = nsm_backbone_new(
        ctx, &(nsm_backbone_config){ .mixer = o->mixer,
                                     .options = o->mixer_options,
                                     .width = (int)o->width,
                                     .layers = (int)o->layers,
                                     .vocab = VOCAB,
                                     .inner = strcmp(o->ff, "none") ? (int)o->inner : -1,
                                     .act = gated ? NSM_ACT_SILU : NSM_ACT_GELU,
                                     .gated = gated,
                                     .rms_norm = o->rms_norm,
                                     .tied = o->tied });
    p.state = nsm_backbone_state(p.net, 1);
    p.id = malloc((size_t)(p.segment + 1) * sizeof *p.id);
    p.optimizer = train ? nsm_optimizer_new(nsm_backbone_module(p.net),
                                            &(nsm_optimizer_config){ .kind = NSM_ADAMW })
                        : NULL;
    if (!p.id) nsm_error_set(ctx, NSM_ENOMEM, "out of memory");
    nsm_tape_inference(p.tape, !train);
    if (!nsm_error(ctx)) measure(&p, job, points);
    if (!nsm_error(ctx))
        json_object_set_new(result, "parameters",
                            json_integer(nsm_module_count(nsm_backbone_module(p.net))));
    json_object_set_new(result, "points", points);
    free(p.id);
    nsm_optimizer_free(p.optimizer);
    nsm_state_free(p.state);
    nsm_backbone_free(p.net);
    nsm_tape_free(p.tape);
    return nsm_error(ctx);
}

/* ---- the table ---- */
static json_t *row_of(comparison *c, const contender *m, bool train)
{
    char folder[COMPARE_PATH];
    compare_scaling_folder(m, train, folder);
    json_t *job = compare_scaling_job(c, m, train), *r = compare_result(c->ctx, folder, job),
           *points = json_object_get(r, "points");
    report_line_fit wall = report_slope(points, "tokens", "seconds"),
                    cpu = report_slope(points, "tokens", "cpu_seconds");
    const json_t *last = json_array_get(points, json_array_size(points) - 1);
    json_t *row = json_pack(
        "{s:s, s:s, s:o, s:o, s:o, s:o, s:O?, s:O?, s:O?, s:O?, s:O?}", "model", m->label, "way",
        way_name[train], "slope", report_real(wall.slope), "slope_error", report_real(wall.error),
        "cpu_slope", report_real(cpu.slope), "cpu_slope_error", report_real(cpu.error),
        "parameters", json_object_get(r, "parameters"), "tokens", json_object_get(last, "tokens"),
        "state_bytes", json_object_get(last, "state_bytes"), "tensor_mib",
        json_object_get(last, "tensor_mib"), "points", points);
    json_decref(r);
    json_decref(job);
    return row;
}

static void cell(const json_t *row, int column, char text[128])
{
    static const char *const key[] = { "model",     "way",         "tokens",     "slope",
                                       "cpu_slope", "state_bytes", "tensor_mib", "us" };
    const json_t *v = json_object_get(row, key[column]), *points = json_object_get(row, "points"),
                 *last = json_array_get(points, json_array_size(points) - 1);
    char name[64];
    snprintf(name, sizeof name, "%s_error", key[column]);
    const json_t *error = json_object_get(row, name);
    if (json_is_number(error))
        snprintf(text, 128, "%.3f ± %.3f", json_number_value(v), json_number_value(error));
    else if (column == 7 && last)
        snprintf(text, 128, "%.3g",
                 1e6 * json_number_value(json_object_get(last, "seconds")) /
                     json_number_value(json_object_get(last, "tokens")));
    else if (json_is_string(v)) snprintf(text, 128, "%.120s", json_string_value(v));
    else if (json_is_integer(v)) snprintf(text, 128, "%lld", (long long)json_integer_value(v));
    else if (json_is_real(v)) snprintf(text, 128, "%.3f", json_real_value(v));
    else snprintf(text, 128, "-");
}

static const char *const title[] = {
    "model", "", "tokens", "slope", "slope (processor)", "state B", "tensors MiB", "us/token"
};
enum { COLUMNS = sizeof title / sizeof *title };

static char *text_of(const json_t *rows)
{
    static const int width[COLUMNS] = { 24, 6, 9, 15, 17, 12, 11, 9 };
    char *text = NULL, one[128];
    size_t bytes;
    FILE *f = open_memstream(&text, &bytes);
    for (size_t r = 0; f && r <= json_array_size(rows); r++)
        for (int k = 0; k < COLUMNS; k++) {
            if (r) cell(json_array_get(rows, r - 1), k, one);
            else snprintf(one, sizeof one, "%s", title[k]);
            int wide = width[k] + (strstr(one, "±") != NULL); /* a sign of two bytes */
            fprintf(f, k < 2 ? "%-*s%s" : "%*s%s", wide, one, k + 1 < COLUMNS ? "  " : "\n");
        }
    return f && !fclose(f) ? text : NULL;
}

static char *csv_of(const json_t *rows)
{
    char *text = NULL;
    size_t bytes, i, k;
    json_t *row, *p;
    FILE *f = open_memstream(&text, &bytes);
    if (!f) return NULL;
    fputs("model,way,tokens,seconds,cpu_seconds,state_bytes,tensor_mib\n", f);
    json_array_foreach(rows, i, row) json_array_foreach(json_object_get(row, "points"), k, p)
        fprintf(f, "\"%s\",%s,%lld,%.6g,%.6g,%lld,%.6g\n",
                json_string_value(json_object_get(row, "model")),
                json_string_value(json_object_get(row, "way")),
                (long long)json_integer_value(json_object_get(p, "tokens")),
                json_number_value(json_object_get(p, "seconds")),
                json_number_value(json_object_get(p, "cpu_seconds")),
                (long long)json_integer_value(json_object_get(p, "state_bytes")),
                json_number_value(json_object_get(p, "tensor_mib")));
    return fclose(f) ? NULL : text;
}

static int draw(comparison *c, const json_t *rows, const char *path)
{
    static double x[ROWS_MOST][SETTING_LIST_MOST], y[ROWS_MOST][SETTING_LIST_MOST];
    static char name[ROWS_MOST][300];
    chart_series s[ROWS_MOST];
    int n = 0;
    for (size_t r = 0; r < json_array_size(rows) && n < ROWS_MOST; r++, n++) {
        const json_t *row = json_array_get(rows, r), *points = json_object_get(row, "points");
        for (size_t i = 0; i < json_array_size(points); i++) {
            x[n][i] = json_number_value(json_object_get(json_array_get(points, i), "tokens"));
            y[n][i] = json_number_value(json_object_get(json_array_get(points, i), "seconds"));
        }
        snprintf(name[n], sizeof name[n], "%s, %s",
                 json_string_value(json_object_get(row, "model")),
                 json_string_value(json_object_get(row, "way")));
        s[n] = (chart_series){ name[n], (int64_t)json_array_size(points), x[n], y[n] };
    }
    return chart_curves_draw(c->ctx, path,
                             &(chart_curves){ .title = "Time against length",
                                              .x_label = "tokens",
                                              .y_label = "seconds",
                                              .count = n,
                                              .series = s,
                                              .log_x = true,
                                              .log_y = true,
                                              .named_ends = true });
}

static char *page_of(comparison *c, const json_t *rows, const char *picture)
{
    char one[128];
    page *p = page_new("Time against length",
                       "One pass of one sequence; telling: token by token; training: segments with "
                       "a carried state. "
                       "The slope of log time over log length: 1 is proportional to length.");
    for (int k = 0; k < COLUMNS; k++) page_head(p, title[k], k && k < COLUMNS - 1);
    for (size_t r = 0; r < json_array_size(rows); r++) {
        page_row(p);
        for (int k = 0; k < COLUMNS; k++) {
            cell(json_array_get(rows, r), k, one);
            page_cell(p, one);
        }
    }
    page_picture(p, "Time against length", picture);
    char *settings = settings_text(c->ctx, train_fields, &c->base);
    page_text(p, "Settings that all share", settings ? settings : "");
    free(settings);
    return page_end(p);
}

int compare_scaling_report(comparison *c)
{
    json_t *rows = json_array();
    char picture[COMPARE_PATH] = "";
    for (int i = 0; i < 2 * c->models; i++)
        json_array_append_new(rows, row_of(c, &c->model[i / 2], i % 2));
    char *text = text_of(rows), *csv = csv_of(rows), *html = NULL;
#ifdef HAVE_PLPLOT
    snprintf(picture, sizeof picture, "%s/scaling.png", c->out);
    if (!nsm_error(c->ctx)) draw(c, rows, picture);
#endif
    compare_put(c, "table.txt", text);
    compare_put(c, "table.csv", csv);
    if (!nsm_error(c->ctx)) compare_put(c, "index.html", html = page_of(c, rows, picture));
    if (!nsm_error(c->ctx) && !c->t->json) fputs(text, stdout);
    free(text);
    free(csv);
    free(html);
    if (c->t->json && !nsm_error(c->ctx))
        return report_result(
            c->t, json_pack("{s:s, s:s, s:o}", "task", "scaling", "folder", c->out, "rows", rows));
    json_decref(rows);
    return nsm_error(c->ctx) ? tool_error(c->t) : TOOL_DONE;
}
