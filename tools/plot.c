/* plot.c - nsm plot: charts of a run's folder, of a model, of one of its answers, or of a dataset's
 * graph. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/seal.h"
#include "tools/charts.h"
#include "tools/inside.h"
#include "tools/pictures.h"
#include "tools/report.h"
#include "tools/run.h"

typedef struct {
    int64_t node, hops, most;
} options;

static const setting fields[] = {{"node", SETTING_INT, offsetof(options, node), "-1",
                                  "the node whose neighbourhood, or answer, is drawn; -1: one that "
                                  "suits",
                                  NULL, ">=-1"},
                                 {"hops", SETTING_INT, offsetof(options, hops), "2",
                                  "how far the neighbourhood goes", NULL, "1..10"},
                                 {"most", SETTING_INT, offsetof(options, most), "80",
                                  "nodes in the picture, at most", NULL, "2..5000"},
                                 {0}};
static const tool_keys keys[] = {{"Keys for pictures of graphs", fields}, {0}};
static const tool_option command_options[] = {
    MODEL_OPTIONS,
    {"out", 'o', "FILE.png",
     "where the picture goes (DATASET.png; neighbourhood.png or routing.png beside a model)"},
    {0}};

/* A neighbourhood, coloured by what the model predicts, its lines as wide as the first layer's
 * attention. */
static void draw_model(tool *t, model *m, const options *o, const char *path, int64_t *node)
{
    bool classes = m->ds->label.kind == NSM_LABEL_CLASS && !m->ds->label.of_graphs;
    const int32_t *guess = classes ? node_task_guess(m->task, -1) : NULL;
    *node = o->node < 0 ? picture_node(t->ctx, m->ds, t->seed) : o->node;
    if (classes && !guess) return;
    picture_model(t->ctx, path, m->ds, m->task,
                  (neighbourhood){.node = *node,
                                  .hops = (int)o->hops,
                                  .most = (int)o->most,
                                  .guess = guess,
                                  .seed = t->seed});
}

/* ---- an answer of a fused model ---- */
/* Three maps over an answer's inputs: where they were written, what the answer took of them by way
 * of each state, and in all. */
static int draw_maps(nsm_ctx *ctx, const model *m, const fused_example *e, const char *path)
{
    const nsm_fuser *fuser = nsm_fused_fuser(m->fused->model);
    size_t n = (size_t)e->count, s = (size_t)fuser->states;
    float *value = nsmi_calloc(ctx, (2 * s + 1) * n + 1, sizeof *value), *by = value + s * n,
          *all = by + s * n;
    char **name = nsmi_calloc(ctx, n + 1, sizeof *name), title[256], one[INSIDE_NAME] = "",
         answer[INSIDE_NAME], text[2][160];
    chart_mark *mark = nsmi_calloc(ctx, n + 1, sizeof *mark);
    int64_t marks = 0;
    for (size_t j = 0; value && name && mark && j < n; j++) {
        char buf[INSIDE_NAME];
        name[j] = picture_name(inside_element(m->fused, &e->element[j], buf));
        all[j] = e->element[j].flow;
        if (e->element[j].opened >= 0)
            mark[marks++] = (chart_mark){(int64_t)j, e->element[j].opened, CHART_OPENED};
        for (size_t i = 0; i < s; i++) {
            value[i * n + j] = e->mass[i] * e->took[i * n + j];
            by[i * n + j] = e->read[i] * e->took[i * n + j];
        }
        if (!name[j]) nsm_error_set(ctx, NSM_ENOMEM, "out of memory for names");
    }
    if (s) inside_state(fuser, one);
    snprintf(text[0], sizeof *text, "how much of each input was written to each %.60s", one);
    snprintf(text[1], sizeof *text, "what the answer took of them by way of each %.60s", one);
    snprintf(title, sizeof title, "Node %lld: %.120s, probability %.3f", (long long)e->node,
             inside_answer(m->fused, e, e->best, answer), (double)e->p[e->best]);
    const chart_panel panel[] = {
        {text[0], one, (int64_t)s, value, 0, marks, mark},
        {text[1], one, (int64_t)s, by, 0, 0, NULL},
        {"what the answer took of them", "", 1, all, 0, 0, NULL}};
    if (!nsm_error(ctx))
        chart_map_draw(ctx, path,
                       &(chart_map){.title = title,
                                    .columns = e->count,
                                    .name = name,
                                    .long_names = true,
                                    .panels = s ? 3 : 1,
                                    .panel = s ? panel : panel + 2});
    for (size_t j = 0; name && j < n; j++) free(name[j]);
    free(name);
    free(value);
    free(mark);
    return nsm_error(ctx);
}

/* A node that was asked for, or one of the test part. */
static void draw_answer(tool *t, model *m, const char *path, int64_t *node)
{
    fused_view v = {0};
    const nsm_dataset_split *split = fused_task_split(m->fused);
    int64_t tests = split->count[NSM_TEST];
    if (*node < 0 && tests) *node = split->index[NSM_TEST][t->seed % (uint64_t)tests];
    if (!nsm_fused_fuser(m->fused->model)->type->weights)
        nsm_error_set(t->ctx, NSM_EINVAL,
                      "%s: its fuser has no weights that say whence an answer comes", m->path);
    else if (*node < 0 || *node > INT32_MAX)
        nsm_error_set(t->ctx, NSM_EINVAL, "node=%lld is no node", (long long)*node);
    else if (!fused_task_look(m->fused, 1, &(int32_t){(int32_t)*node}, 1, 1, &v) && v.count)
        draw_maps(t->ctx, m, &v.example[0], path);
    else nsm_error_set(t->ctx, NSM_EINVAL, "nothing is asked of node %lld", (long long)*node);
    fused_view_clear(&v);
}

/* A run's folder: its curves; with node=N, and for a checkpoint, the model's view of a
 * neighbourhood, or of an answer. */
static int plot_model(tool *t, const options *o, bool folder)
{
    model m = {0};
    char file[4096];
    int64_t node = o->node;
    const char *out = tool_get(t, "out"), *from = t->arg[0], *slash = strrchr(from, '/');
    if (folder && node < 0) {
        if (picture_curves(t->ctx, from, from, -1)) return tool_error(t);
        return report_result(t, json_pack("{s:s}", "folder", from));
    }
    bool ok = model_open(t, from, &m);
    if (!out)
        snprintf(file, sizeof file, "%.*s/%s.png",
                 folder  ? (int)strlen(from)
                 : slash ? (int)(slash - from)
                         : 1,
                 folder || slash ? from : ".", m.fused ? "routing" : "neighbourhood");
    if (ok && m.fused) draw_answer(t, &m, out ? out : file, &node);
    else if (ok && model_of_nodes(t, &m, "nsm plot")) draw_model(t, &m, o, out ? out : file, &node);
    model_close(&m);
    if (nsm_error(t->ctx)) return tool_error(t);
    return report_result(
        t, json_pack("{s:s, s:I}", "picture", out ? out : file, "node", (json_int_t)node));
}

static int plot_dataset(tool *t, const char *path, const options *o)
{
    char file[4096];
    const char *out = tool_get(t, "out");
    if (!out)
        snprintf(file, sizeof file, "%.*s.png",
                 (int)(strlen(path) -
                       (strlen(path) > 3 && !strcmp(path + strlen(path) - 3, ".h5") ? 3 : 0)),
                 path);
    nsm_dataset *ds =
        nsm_dataset_load(t->ctx, path, &(nsm_dataset_options){.features_in_file_bytes = -1});
    int64_t node = ds && o->node < 0 ? picture_node(t->ctx, ds, t->seed) : o->node;
    if (ds)
        picture_neighbourhood(
            t->ctx, out ? out : file, ds,
            &(neighbourhood){
                .node = node, .hops = (int)o->hops, .most = (int)o->most, .seed = t->seed});
    nsm_dataset_free(ds);
    if (nsm_error(t->ctx)) return tool_error(t);
    return report_result(
        t, json_pack("{s:s, s:I}", "picture", out ? out : file, "node", (json_int_t)node));
}

static int run_plot(tool *t)
{
    struct stat st;
    options o = {0};
    char kind[NSMI_KIND_BYTES];
    int code = tool_settings(t, fields, &o);
    if (code != TOOL_DONE) return code;
    if (stat(t->arg[0], &st) == 0 && S_ISDIR(st.st_mode)) return plot_model(t, &o, true);
    if (nsmi_seal_kind(t->ctx, t->arg[0], kind)) return tool_error(t);
    if (!strcmp(kind, "dataset")) return plot_dataset(t, t->arg[0], &o);
    if (!strcmp(kind, "checkpoint")) return plot_model(t, &o, false);
    return tool_fail(t, "%s: a file of kind \"%s\", of which there is no picture", t->arg[0], kind);
}

const tool_command plot_command = {.name = "plot",
                                   .args = "RUN|CHECKPOINT|DATASET [KEY=VALUE...]",
                                   .summary = "Draw the curves of a run, or a picture of a graph.",
                                   .details =
                                       "Of a RUN's folder loss.png and accuracy.png are drawn anew "
                                       "from its log.  Of a DATASET the neighbourhood of a node is "
                                       "drawn, coloured by class; of a CHECKPOINT, or a RUN with "
                                       "node=N, coloured by the predicted class, with attention.  "
                                       "Of a fused model a map shows which of the node's inputs "
                                       "were written to which state, and which came to the answer.",
                                   .options = command_options,
                                   .keys = keys,
                                   .least = 1,
                                   .most = 1,
                                   .run = run_plot};
