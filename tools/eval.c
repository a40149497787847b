/* eval.c - nsm eval: how well a trained model does, on its own data or on another dataset. */
#include <stdlib.h>
#include <string.h>
#include "base/metrics.h"
#include "tools/model.h"
#include "tools/pictures.h"
#include "tools/report.h"
#include "tools/sequence.h"

static const tool_option options[] = {
    MODEL_OPTIONS,
    { "charts", 'c', "DIR", "draw confusion.png and classes.png in DIR" },
    { "set", 's', "KEYS", "change what a trained mixer allows to be changed: \"s=128 rho=0.999\"" },
    { "explain", 'e', "K",
      "of a fused model: measure what the K elements of each thing that it took "
      "most of are worth, on 2000 things of the test part" },
    { 0 }
};
static const char *const part_name[] = {"train", "valid", "test"};

/* The classes of the test part: truth and guess, [count] each, in one array that the caller
 * frees. */
static int32_t *test_classes(model *m, int64_t *count)
{
    node_list test = node_task_part(m->task, NSM_TEST);
    const int32_t *guess = node_task_guess(m->task, NSM_TEST);
    int32_t *pair = malloc(2 * (size_t)test.count * sizeof *pair + 1);
    if (!pair) nsm_error_set(m->ds->ctx, NSM_ENOMEM, "out of memory for the predictions");
    *count = 0;
    /* Without those that have no label. */
    for (int64_t k = 0; k < test.count && pair && guess; k++) {
        int32_t node = test.node[k];
        if (m->ds->label.cls[node] < 0) continue;
        pair[*count] = m->ds->label.cls[node];
        pair[test.count + (*count)++] = guess[node];
    }
    if (pair && *count < test.count)
        memmove(pair + *count, pair + test.count, (size_t)*count * sizeof *pair);
    return pair;
}

static json_t *class_rows(const nsm_dataset_labels *l, const double *score, const int64_t *support)
{
    json_t *list = json_array();
    for (int64_t k = 0; k < l->columns; k++) {
        char number[32];
        snprintf(number, sizeof number, "%lld", (long long)k);
        json_array_append_new(
            list,
            json_pack("{s:I, s:s, s:o, s:o, s:o, s:I}", "class", (json_int_t)k, "name",
                      l->names ? l->names[k] : number, "precision", report_real(score[k]), "recall",
                      report_real(score[l->columns + k]), "f1",
                      report_real(score[2 * l->columns + k]), "members", (json_int_t)support[k]));
    }
    return list;
}

static int add_classes(tool *t, model *m, json_t *result)
{
    nsm_ctx *ctx = t->ctx;
    const nsm_dataset_labels *l = &m->ds->label;
    int64_t count, c = l->columns;
    int32_t *truth = test_classes(m, &count), *guess = truth ? truth + count : NULL;
    int64_t *matrix = malloc((size_t)(c * c + c) * sizeof *matrix);
    double *score = malloc(3 * (size_t)c * sizeof *score);
    const char *folder = tool_get(t, "charts");
    if (!matrix || !score)
        nsm_error_set(ctx, NSM_ENOMEM, "out of memory for the scores of classes");
    else if (!nsm_error(ctx) && count > 0) {
        nsm_confusion(ctx, count, truth, guess, (int)c, matrix);
        nsm_score_classes(ctx, (int)c, matrix,
                          (nsm_class_scores){score, score + c, score + 2 * c, matrix + c * c});
        json_object_set_new(
            result, "macro_f1",
            report_real(nsm_f1(ctx, NSM_AVERAGE_MACRO, count, truth, guess, (int)c)));
        if (!nsm_error(ctx))
            json_object_set_new(result, "classes", class_rows(l, score, matrix + c * c));
        if (folder)
            picture_classes(ctx, folder, *m->options.recipe ? m->options.recipe : m->options.model,
                            (int)c, l->names, count, truth, guess);
    }
    free(truth);
    free(matrix);
    free(score);
    return nsm_error(ctx);
}

static json_t *scores_of(const model *m, const task *what, const part_score part[3])
{
    json_t *o = json_pack("{s:s, s:s, s:s, s:I}", "checkpoint", m->path, "data", m->options.data,
                          "metric", what->metric, "epoch", (json_int_t)m->meta.state.epoch);
    for (int k = NSM_VALID; k <= NSM_TEST; k++)
        json_object_set_new(o, part_name[k], report_real(part[k].score));
    json_object_set_new(o, "valid_loss", report_real(part[NSM_VALID].loss));
    json_object_set_new(o, "test_loss", report_real(part[NSM_TEST].loss));
    return o;
}

static int eval_sequences(tool *t, model *m)
{
    part_score part[3];
    json_t *o = NULL;
    const char *data = tool_get(t, "data");
    if (data) settings_set(t->ctx, train_fields, &m->options, "data", data, "--data");
    nsm_sequences *ds = nsm_sequences_load(t->ctx, m->options.data);
    sequence_task *s = ds ? sequence_task_new(t->ctx, &m->options, ds, &m->meta) : NULL;
    task *what = s ? sequence_task_base(s) : NULL;
    if (what && !trainer_load(t->ctx, m->path, what->module) &&
        !sequence_task_set(s, tool_get(t, "set")) && !what->evaluate(what, part)) {
        o = scores_of(m, what, part);
        sequence_task_details(s, o);
    }
    sequence_task_free(s);
    nsm_sequences_free(ds);
    return nsm_error(t->ctx) ? tool_error(t) : report_result(t, o);
}

static int eval_links(tool *t, model *m)
{
    part_score part[3];
    json_t *o = NULL;
    task *what = link_task_base(m->link);
    if (!what->evaluate(what, part)) {
        o = scores_of(m, what, part);
        link_task_details(m->link, o);
    }
    return nsm_error(t->ctx) ? tool_error(t) : report_result(t, o);
}

static void add_explanation(tool *t, model *m, json_t *o)
{
    const char *text = tool_get(t, "explain");
    char *end;
    long k = strtol(text, &end, 10);
    if (*end || end == text || k < 1 || k > 1000000)
        nsm_error_set(t->ctx, NSM_EINVAL, "--explain=%s is no number of elements", text);
    json_t *measured = nsm_error(t->ctx) ? NULL : fused_task_explain(m->fused, k, FUSED_EXPLAINED);
    if (measured) json_object_set_new(o, "explain", measured);
}

static int run_eval(tool *t)
{
    model of;
    bool read = model_read(t, t->arg[0], &of);
    if (read && sequence_wanted(&of.options)) {
        int done = eval_sequences(t, &of);
        model_close(&of);
        return done;
    }
    model_close(&of);

    model m;
    part_score part[3];
    json_t *o = NULL;
    bool ok = model_open(t, t->arg[0], &m);
    if (ok && m.link) {
        int done = eval_links(t, &m);
        model_close(&m);
        return done;
    }
    task *what = !ok ? NULL : m.fused ? fused_task_base(m.fused) : node_task_base(m.task);
    bool labelled = ok &&
                    (m.fused || (m.ds->label.kind != NSM_LABEL_NONE && !m.ds->label.of_graphs));
    const nsm_dataset_split *split = !ok       ? NULL
                                     : m.fused ? fused_task_split(m.fused)
                                               : node_task_split(m.task);
    if (ok && tool_get(t, "set"))
        nsm_error_set(t->ctx, NSM_EINVAL, "--set is for models of sequences; %s is one of graphs",
                      m.path);
    if (ok && tool_get(t, "explain") && !m.fused)
        nsm_error_set(t->ctx, NSM_EINVAL, "--explain is for fused models; %s is none", m.path);
    if (ok && (!labelled || !split))
        nsm_error_set(t->ctx, NSM_EINVAL, "%s has no labels or no split to evaluate with",
                      m.options.data);
    if (ok && !nsm_error(t->ctx) && what->evaluate(what, part) == NSM_OK) {
        o = json_pack("{s:s, s:s, s:s, s:s, s:I}", "checkpoint", m.path, "data", m.options.data,
                      "split", split->name, "metric", what->metric, "epoch",
                      (json_int_t)m.meta.state.epoch);
        for (int k = 0; k < 3; k++)
            json_object_set_new(o, part_name[k], report_real(part[k].score));
        json_object_set_new(o, "test_loss", report_real(part[NSM_TEST].loss));
        if (m.fused) fused_task_details(m.fused, o);
        if (m.fused && tool_get(t, "explain")) add_explanation(t, &m, o);
        if (!m.fused && m.ds->label.kind == NSM_LABEL_CLASS) add_classes(t, &m, o);
    }
    int code = nsm_error(t->ctx) ? tool_error(t) : report_result(t, json_incref(o));
    json_decref(o);
    model_close(&m);
    return code;
}

const tool_command eval_command = {
    .name = "eval",
    .args = "CHECKPOINT|RUN",
    .summary = "Say how well a trained model does.",
    .details = "RUN is a run's folder: its kept model is taken.  With --data the model is put to "
               "another graph, of the same features.",
    .options = options,
    .least = 1,
    .most = 1,
    .run = run_eval};
