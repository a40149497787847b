/* plot.c - nsm plot: charts of a run's folder, of a model, or of a dataset's graph. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/seal.h"
#include "tools/model.h"
#include "tools/pictures.h"
#include "tools/report.h"
#include "tools/run.h"

typedef struct {
    int64_t node, hops, most;
} options;

static const setting fields[] = {{"node", SETTING_INT, offsetof(options, node), "-1",
                                  "the node whose neighbourhood is drawn; -1: one that suits", NULL,
                                  ">=-1"},
                                 {"hops", SETTING_INT, offsetof(options, hops), "2",
                                  "how far the neighbourhood goes", NULL, "1..10"},
                                 {"most", SETTING_INT, offsetof(options, most), "80",
                                  "nodes in the picture, at most", NULL, "2..5000"},
                                 {0}};
static const tool_keys keys[] = {{"Keys for pictures of graphs", fields}, {0}};
static const tool_option command_options[] = {
    MODEL_OPTIONS,
    {"out", 'o', "FILE.png",
     "where a picture of a graph goes (DATASET.png; neighbourhood.png beside a model)"},
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

/* A run's folder: its curves; with node=N, and for a checkpoint, the model's view of a
 * neighbourhood. */
static int plot_model(tool *t, const options *o, bool folder)
{
    model m = {0};
    char file[4096];
    int64_t node = o->node;
    const char *out = tool_get(t, "out"), *from = t->arg[0], *slash = strrchr(from, '/');
    if (!out)
        snprintf(file, sizeof file, "%.*s/neighbourhood.png",
                 folder  ? (int)strlen(from)
                 : slash ? (int)(slash - from)
                         : 1,
                 folder || slash ? from : ".");
    if (folder && node < 0) {
        if (picture_curves(t->ctx, from, from, -1)) return tool_error(t);
        return report_result(t, json_pack("{s:s}", "folder", from));
    }
    if (model_open(t, from, &m) && model_of_nodes(t, &m, "nsm plot"))
        draw_model(t, &m, o, out ? out : file, &node);
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
                                       "node=N, coloured by the predicted class, with attention.",
                                   .options = command_options,
                                   .keys = keys,
                                   .least = 1,
                                   .most = 1,
                                   .run = run_plot};
