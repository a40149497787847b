/* compare_table.c - The results of all jobs as one table: text, CSV, charts, a page.
 *
 * A row is a JSON object; the columns that are printed stand in a table of their own, so that text,
 * CSV and page say the same.  What is not there yet is "-", so the table can be looked at while it
 * fills. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "config.h"
#include "tools/charts.h"
#include "tools/compare.h"
#include "tools/page.h"
#include "tools/report.h"
#include "tools/run.h"
#include "tools/utf8.h"

enum { TIMES_MOST = SETTING_LIST_MOST, CELL = 128, COLUMNS_MOST = 40, ROWS_MOST = 64 };

/* ---- numbers of several seeds ---- */
typedef struct {
    int64_t n;
    double sum, square;
} spread;

static void count_in(spread *s, json_t *v)
{
    if (!json_is_number(v)) return;
    double x = json_number_value(v);
    s->n++;
    s->sum += x;
    s->square += x * x;
}

static double mean_of(const spread *s) { return s->n ? s->sum / (double)s->n : NAN; }
static double deviation_of(const spread *s)
{
    double m = mean_of(s);
    return s->n > 1 ? sqrt(fmax(0, s->square - (double)s->n * m * m) / (double)(s->n - 1)) : NAN;
}

/* ---- a row ---- */
static void put_means(json_t *row, const char *const *name, spread *s, int count)
{
    for (int i = 0; i < count; i++) json_object_set_new(row, name[i], report_real(mean_of(&s[i])));
}

/* Where the data has no test part that of validation stands for it, and the metric says so. */
static void stand_in(json_t *row, spread *test, const spread *valid)
{
    const char *metric = json_string_value(json_object_get(row, "metric"));
    if (test->n || !valid->n || !metric) return;
    *test = *valid;
    json_object_set_new(row, "metric", json_sprintf("%s (validation)", metric));
}

/* What the runs say: scores, memory, time. */
static void add_runs(comparison *c, const contender *m, json_t *row)
{
    static const char *const name[] = { "test",          "valid",      "test_loss",
                                        "train_seconds", "tensor_mib", "process_mib" };
    enum { COUNT = sizeof name / sizeof *name };
    spread s[COUNT] = { 0 };
    char folder[COMPARE_PATH];
    int64_t failed = 0;
    for (int64_t k = 0; k < c->seeds && isfinite(m->lr); k++) {
        uint64_t seed = c->t->seed + (uint64_t)k;
        compare_seed_folder(m, seed, folder);
        json_t *job = compare_seed_job(c, m, seed), *r = compare_result(c->ctx, folder, job);
        for (int i = 0; i < COUNT; i++) count_in(&s[i], json_object_get(r, name[i]));
        failed += json_object_get(r, "failed") != NULL;
        if (json_object_get(r, "metric"))
            json_object_set(row, "metric", json_object_get(r, "metric"));
        json_decref(r);
        json_decref(job);
    }
    stand_in(row, &s[0], &s[1]);
    put_means(row, name, s, COUNT);
    json_object_set_new(row, "test_sd", report_real(deviation_of(&s[0])));
    json_object_set_new(row, "seeds", json_integer(s[0].n));
    if (failed) json_object_set_new(row, "diverged", json_integer(failed));
}

/* What answers rest on; the names are those of compare_explain.c. */
static void add_explanations(comparison *c, const contender *m, json_t *row)
{
    static const char *const name[] = { "own_comprehensiveness",
                                        "own_sufficiency",
                                        "own_effective",
                                        "own_gini",
                                        "gradient_comprehensiveness",
                                        "gradient_sufficiency",
                                        "gradient_effective",
                                        "gradient_gini",
                                        "random_comprehensiveness",
                                        "random_sufficiency",
                                        "answers" },
                      *const fused[] = { "explained_accuracy",
                                         "own_comprehensiveness",
                                         "own_sufficiency",
                                         "random_comprehensiveness",
                                         "fall_without_graph",
                                         "fall_without_text",
                                         "fall_without_picture",
                                         "fall_without_state",
                                         "answers" };
    enum { COUNT = sizeof name / sizeof *name, FUSED = sizeof fused / sizeof *fused };
    const char *const *key = c->fused ? fused : name;
    int count = c->fused ? FUSED : COUNT;
    spread s[COUNT] = { 0 };
    char folder[COMPARE_PATH];
    for (int64_t k = 0; k < c->seeds && c->s.explain && isfinite(m->lr); k++) {
        uint64_t seed = c->t->seed + (uint64_t)k;
        compare_explain_folder(m, seed, folder);
        json_t *job = compare_job(c, m, "explain", m->lr, seed, c->steps),
               *r = compare_result(c->ctx, folder, job);
        for (int i = 0; i < count; i++) count_in(&s[i], json_object_get(r, key[i]));
        json_decref(r);
        json_decref(job);
    }
    if (!c->s.explain) return;
    put_means(row, key, s, count);
    const char *weights = m->fuser ? m->fuser->weights : m->type->weights;
    json_object_set_new(row, "explained_by",
                        json_string(weights ? weights : m->fuser ? "nothing" : "gradient x input"));
}

static void add_times(comparison *c, const contender *m, json_t *row)
{
    char folder[COMPARE_PATH], name[64];
    compare_speed_folder(m, folder);
    json_t *job = compare_job(c, m, "speed", NAN, c->t->seed, 1),
           *r = compare_result(c->ctx, folder, job);
    for (int i = 0; i < c->s.lengths.count; i++) {
        json_t *time = json_array_get(json_object_get(r, "times"), (size_t)i);
        snprintf(name, sizeof name, "step_us_%.0f", c->s.lengths.value[i]);
        json_object_set_new(row, name,
                            time ? json_incref(json_object_get(time, "step_us")) : json_null());
        snprintf(name, sizeof name, "read_us_%.0f", c->s.lengths.value[i]);
        json_object_set_new(row, name,
                            time ? json_incref(json_object_get(time, "read_us")) : json_null());
    }
    json_decref(r);
    json_decref(job);
}

static json_t *row_of(comparison *c, const contender *m)
{
    json_t *row = json_object();
    json_object_set_new(row, "model", json_string(m->label));
    json_object_set_new(row, "options", json_string(compare_options(m)));
    add_runs(c, m, row);
    json_object_set_new(row, "lr", report_real(m->lr));
    json_object_set_new(row, "parameters", json_integer(m->parameters));
    if (m->type) {
        json_object_set_new(row, "state_bytes", json_integer(m->state_bytes));
        json_object_set_new(row, "state_bytes_a_token", json_integer(m->token_bytes));
    }
    add_times(c, m, row);
    add_explanations(c, m, row);
    json_object_set_new(row, "note", json_string(m->note));
    return row;
}

/* ---- columns ---- */
/* Of a plain one `key` is the row's; digits after the point, of a real number -1: three that count.
 */
typedef struct {
    char title[48], key[48];
    int digits;
} column;

static int columns_of(const comparison *c, const char *metric, column *to)
{
    int n = 0;
    to[n++] = (column){ "model", "model", 0 };
    snprintf(to[n].title, sizeof to[n].title, "%.40s", metric);
    snprintf(to[n++].key, sizeof to[n].key, "test");
    static const column plain[] = { { "seeds", "seeds", 0 },
                                    { "lr", "lr", -1 },
                                    { "parameters", "parameters", 0 },
                                    { "state B", "state", 0 },
                                    { "tensors MiB", "tensor_mib", 1 },
                                    { "process MiB", "process_mib", 0 },
                                    { "training s", "train_seconds", 1 } };
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (!c->fused || strcmp(plain[i].key, "state")) to[n++] = plain[i];
    for (int i = 0; i < c->s.lengths.count; i++, n++) {
        to[n].digits = -1;
        snprintf(to[n].title, sizeof to[n].title, "us/token @%.0f", c->s.lengths.value[i]);
        snprintf(to[n].key, sizeof to[n].key, "step_us_%.0f", c->s.lengths.value[i]);
    }
    static const column explained[] = { { "explained by", "explained_by", 0 },
                                        { "compr.", "own_comprehensiveness", 3 },
                                        { "suff.", "own_sufficiency", 3 },
                                        { "inputs", "own_effective", 1 },
                                        { "gini", "own_gini", 2 },
                                        { "compr. (grad)", "gradient_comprehensiveness", 3 },
                                        { "suff. (grad)", "gradient_sufficiency", 3 },
                                        { "compr. (random)", "random_comprehensiveness", 3 },
                                        { "suff. (random)", "random_sufficiency", 3 } },
                        fused[] = { { "explained by", "explained_by", 0 },
                                    { "of answers", "explained_accuracy", 3 },
                                    { "compr.", "own_comprehensiveness", 3 },
                                    { "suff.", "own_sufficiency", 3 },
                                    { "compr. (random)", "random_comprehensiveness", 3 },
                                    { "less graph", "fall_without_graph", 3 },
                                    { "less text", "fall_without_text", 3 },
                                    { "less picture", "fall_without_picture", 3 },
                                    { "less state", "fall_without_state", 3 } };
    size_t few = c->fused ? sizeof fused / sizeof *fused : sizeof explained / sizeof *explained;
    for (size_t i = 0; c->s.explain && i < few; i++) to[n++] = c->fused ? fused[i] : explained[i];
    to[n++] = (column){ "note", "note", 0 };
    return n;
}

/* What stands in a cell of text and page. */
static void cell_text(const column *col, const json_t *row, char text[CELL])
{
    json_t *v = json_object_get(row, col->key), *sd = json_object_get(row, "test_sd");
    bool grows = json_integer_value(json_object_get(row, "state_bytes_a_token")) > 0;
    if (!strcmp(col->key, "state"))
        snprintf(text, CELL, "%lld%s",
                 (long long)json_integer_value(
                     json_object_get(row, grows ? "state_bytes_a_token" : "state_bytes")),
                 grows ? " a token" : "");
    else if (!strcmp(col->key, "test") && json_is_number(v) && json_is_number(sd))
        snprintf(text, CELL, "%.4f ± %.4f", json_number_value(v), json_number_value(sd));
    else if (!strcmp(col->key, "test") && json_is_number(v))
        snprintf(text, CELL, "%.4f", json_number_value(v));
    else if (json_is_integer(v)) snprintf(text, CELL, "%lld", (long long)json_integer_value(v));
    else if (json_is_real(v) && col->digits < 0) snprintf(text, CELL, "%.3g", json_real_value(v));
    else if (json_is_real(v)) snprintf(text, CELL, "%.*f", col->digits, json_real_value(v));
    else
        snprintf(text, CELL, "%.*s", CELL - 1,
                 json_is_string(v) && *json_string_value(v) ? json_string_value(v) : "-");
}

/* ---- text ---- */
static void put_row(FILE *f, const char (*cell)[CELL], const size_t *width, int columns)
{
    for (int k = 0; k < columns; k++) {
        int gap = (int)(width[k] - utf8_letters(cell[k]));
        bool left = k == 0 || k == columns - 1; /* names and notes; numbers end in line */
        fprintf(f, "%s%*s%s%*s", k ? "  " : "", left ? 0 : gap, "", cell[k],
                left && k + 1 < columns ? gap : 0, "");
    }
    fputc('\n', f);
}

static char *text_of(const json_t *rows, const column *col, int columns)
{
    char cell[COLUMNS_MOST][CELL], *text = NULL;
    size_t width[COLUMNS_MOST] = { 0 }, bytes;
    FILE *f = open_memstream(&text, &bytes);
    for (size_t pass = 0; f && pass < 2; pass++)
        for (size_t r = 0; r <= json_array_size(rows); r++) {
            for (int k = 0; k < columns; k++) {
                if (r) cell_text(&col[k], json_array_get(rows, r - 1), cell[k]);
                else snprintf(cell[k], CELL, "%.47s", col[k].title);
                if (!pass && utf8_letters(cell[k]) > width[k]) width[k] = utf8_letters(cell[k]);
            }
            if (pass) put_row(f, (const char(*)[CELL])cell, width, columns);
        }
    return f && !fclose(f) ? text : NULL;
}

/* ---- CSV: every number of a row, in full ---- */
static void put_value(FILE *f, const json_t *v)
{
    char number[32];
    if (json_is_integer(v)) fprintf(f, "%lld", (long long)json_integer_value(v));
    else if (json_is_real(v)) fputs(real_text((double)(float)json_real_value(v), number), f);
    else if (json_is_string(v)) {
        fputc('"', f);
        for (const char *p = json_string_value(v); *p; p++)
            fprintf(f, *p == '"' ? "\"\"" : "%c", *p);
        fputc('"', f);
    }
}

static char *csv_of(const json_t *rows)
{
    char *text = NULL;
    size_t bytes, widest = 0;
    const char *key;
    json_t *v;
    FILE *f = open_memstream(&text, &bytes);
    for (size_t r = 0; r < json_array_size(rows); r++) /* one without results lacks some */
        if (json_object_size(json_array_get(rows, r)) >
            json_object_size(json_array_get(rows, widest)))
            widest = r;
    json_t *head = json_array_get(rows, widest);
    if (!f) return NULL;
    json_object_foreach(head, key, v)
        fprintf(f, "%s%s", v == json_object_get(head, "model") ? "" : ",", key);
    fputc('\n', f);
    for (size_t r = 0; r < json_array_size(rows); r++) {
        json_object_foreach(head, key, v)
        {
            if (v != json_object_get(head, "model")) fputc(',', f);
            put_value(f, json_object_get(json_array_get(rows, r), key));
        }
        fputc('\n', f);
    }
    return fclose(f) ? NULL : text;
}

/* ---- charts ---- */
/* Time of a token against the tokens before it, a line for each row. */
static int draw_cost(comparison *c, const json_t *rows, const char *path)
{
    double y[ROWS_MOST][TIMES_MOST];
    chart_series s[ROWS_MOST];
    char name[64];
    int n = 0;
    for (size_t r = 0; r < json_array_size(rows) && n < ROWS_MOST; r++, n++) {
        const json_t *row = json_array_get(rows, r);
        for (int i = 0; i < c->s.lengths.count; i++) {
            snprintf(name, sizeof name, "step_us_%.0f", c->s.lengths.value[i]);
            json_t *v = json_object_get(row, name);
            y[n][i] = json_is_number(v) ? json_number_value(v) : NAN;
        }
        s[n] = (chart_series){ json_string_value(json_object_get(row, "model")), c->s.lengths.count,
                               c->s.lengths.value, y[n] };
    }
    return chart_curves_draw(
        c->ctx, path,
        &(chart_curves){ .title = "Time to tell one more token, by the tokens before it",
                         .x_label = "tokens",
                         .y_label = "microseconds a token",
                         .count = n,
                         .series = s,
                         .log_x = true,
                         .log_y = true,
                         .named_ends = true });
}

/* Score against the bytes of a sequence's state: rows of one model (which differ by their state
 * alone) are one line. */
static int draw_state(comparison *c, const json_t *rows, const char *metric, const char *path)
{
    double x[ROWS_MOST], y[ROWS_MOST];
    chart_series s[ROWS_MOST];
    char name[ROWS_MOST][256];
    int n = 0, each = c->s.state.count ? c->s.state.count : 1;
    double length = (double)c->ds->part[NSM_TRAIN].length;
    for (int r = 0; r < (int)json_array_size(rows) && r < ROWS_MOST; r++) {
        const json_t *row = json_array_get(rows, (size_t)r);
        double grown = json_number_value(json_object_get(row, "state_bytes_a_token")) *
                       fmin(length, (double)c->base.context);
        if (c->ds->kind != NSM_SEQUENCE_STREAM)
            grown = json_number_value(json_object_get(row, "state_bytes_a_token")) * length;
        x[r] = json_number_value(json_object_get(row, "state_bytes")) + grown;
        y[r] = json_is_number(json_object_get(row, "test"))
                   ? json_number_value(json_object_get(row, "test"))
                   : NAN;
        if (r % each) {
            s[n - 1].count++;
            continue;
        }
        const char *label = json_string_value(json_object_get(row, "model"));
        snprintf(name[n], sizeof name[n], "%.*s", (int)strcspn(label, "@"), label);
        s[n] = (chart_series){ name[n], 1, x + r, y + r };
        n++;
    }
    return chart_curves_draw(
        c->ctx, path,
        &(chart_curves){ .title = "Score by the bytes that a sequence's state takes",
                         .x_label = "bytes; of a state that grows, at the data's length",
                         .high = strcmp(metric, "accuracy") ? 0 : 1,
                         .y_label = metric,
                         .count = n,
                         .series = s,
                         .log_x = true,
                         .named_ends = true });
}

/* ---- all of it ---- */
void compare_put(comparison *c, const char *name, const char *text)
{
    char path[COMPARE_PATH];
    snprintf(path, sizeof path, "%s/%s", c->out, name);
    if (!text) nsm_error_set(c->ctx, NSM_ENOMEM, "out of memory for %s", path);
    else write_file(c->ctx, path, text, strlen(text));
}

static int draw_charts(comparison *c, const json_t *rows, const char *metric,
                       char cost[COMPARE_PATH], char state[COMPARE_PATH])
{
    *cost = *state = 0;
    if (c->fused) return nsm_error(c->ctx);
#ifdef HAVE_PLPLOT
    snprintf(state, COMPARE_PATH, "%s/state.png", c->out);
    draw_state(c, rows, metric, state);
    if (!c->s.lengths.count) return nsm_error(c->ctx);
    snprintf(cost, COMPARE_PATH, "%s/cost.png", c->out);
    return draw_cost(c, rows, cost);
#else
    (void)rows, (void)metric;
    tool_note(c->t, "no charts: this nsm was built without PLplot");
    return nsm_error(c->ctx);
#endif
}

static const char *metric_of(const json_t *rows)
{
    for (size_t r = 0; r < json_array_size(rows); r++)
        if (json_object_get(json_array_get(rows, r), "metric"))
            return json_string_value(json_object_get(json_array_get(rows, r), "metric"));
    return "score";
}

static char *page_of(comparison *c, const json_t *rows, const column *col, int columns,
                     const char *cost, const char *state)
{
    char cell[CELL], title[256], about[512];
    snprintf(title, sizeof title, "Comparison on %.200s",
             c->fused ? c->things->name : c->ds->name);
    snprintf(about, sizeof about,
             "%.200s. %lld steps of %lld rows each; learning rates chosen among %d with one seed "
             "and %g of the steps; %lld seeds.",
             c->fused ? c->things->description : c->ds->description, (long long)c->steps, (long long)c->base.batch_size, c->s.lrs.count,
             c->s.trial, (long long)c->seeds);
    page *p = page_new(title, about);
    for (int k = 0; k < columns; k++) page_head(p, col[k].title, k && k < columns - 1);
    for (size_t r = 0; r < json_array_size(rows); r++) {
        page_row(p);
        for (int k = 0; k < columns; k++) {
            cell_text(&col[k], json_array_get(rows, r), cell);
            page_cell(p, cell);
        }
    }
    page_picture(p, "Score by state", state);
    page_picture(p, "Cost by length", cost);
    char *settings = settings_text(c->ctx, train_fields, &c->base);
    page_text(p, "Settings that all share", settings ? settings : "");
    free(settings);
    return page_end(p);
}

int compare_report(comparison *c)
{
    json_t *rows = json_array();
    column col[COLUMNS_MOST] = { 0 };
    char cost[COMPARE_PATH], state[COMPARE_PATH];
    for (int i = 0; i < c->models; i++) json_array_append_new(rows, row_of(c, &c->model[i]));
    const char *metric = metric_of(rows);
    int columns = columns_of(c, metric, col);
    char *text = text_of(rows, col, columns), *csv = csv_of(rows);
    compare_put(c, "table.txt", text);
    compare_put(c, "table.csv", csv);
    if (!nsm_error(c->ctx)) draw_charts(c, rows, metric, cost, state);
    char *html = nsm_error(c->ctx) ? NULL : page_of(c, rows, col, columns, cost, state);
    if (!nsm_error(c->ctx)) compare_put(c, "index.html", html);
    if (!nsm_error(c->ctx) && !c->t->json) fputs(text, stdout);
    free(text);
    free(csv);
    free(html);
    if (c->t->json && !nsm_error(c->ctx))
        return report_result(c->t, json_pack("{s:s, s:s, s:s, s:o}", "task", c->task, "folder",
                                             c->out, "metric", metric, "rows", rows));
    json_decref(rows);
    return nsm_error(c->ctx) ? tool_error(c->t) : TOOL_DONE;
}
