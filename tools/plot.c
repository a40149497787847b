/* plot.c - nsm plot: charts of a run's folder, or of a dataset's graph. */
#include <string.h>
#include <sys/stat.h>
#include "base/seal.h"
#include "tools/pictures.h"
#include "tools/report.h"
#include "tools/run.h"

typedef struct {
    int64_t node, hops, most;
} options;

static const setting fields[] = {
    {"node", SETTING_INT, offsetof(options, node), "-1", "the node whose neighbourhood is drawn; -1: one that suits", NULL, ">=-1"},
    {"hops", SETTING_INT, offsetof(options, hops), "2", "how far the neighbourhood goes", NULL, "1..10"},
    {"most", SETTING_INT, offsetof(options, most), "80", "nodes in the picture, at most", NULL, "2..5000"},
    {0}};
static const tool_keys keys[] = {{"Keys for pictures of graphs", fields}, {0}};
static const tool_option command_options[] = {{"out", 'o', "FILE.png", "where a picture of a graph goes (DATASET.png)"}, {0}};

static int plot_run(tool *t, const char *folder)
{
    if (picture_curves(t->ctx, folder, folder, -1)) return tool_error(t);
    return report_result(t, json_pack("{s:s}", "folder", folder));
}

static int plot_dataset(tool *t, const char *path, const options *o)
{
    char file[4096];
    const char *out = tool_get(t, "out");
    if (!out) snprintf(file, sizeof file, "%.*s.png", (int)(strlen(path) - (strlen(path) > 3 && !strcmp(path + strlen(path) - 3, ".h5") ? 3 : 0)), path);
    nsm_dataset *ds = nsm_dataset_load(t->ctx, path, &(nsm_dataset_options){.features_in_file_bytes = -1});
    int64_t node = ds && o->node < 0 ? picture_node(t->ctx, ds, t->seed) : o->node;
    if (ds) picture_neighbourhood(t->ctx, out ? out : file, ds, &(neighbourhood){.node = node, .hops = (int)o->hops, .most = (int)o->most, .seed = t->seed});
    nsm_dataset_free(ds);
    if (nsm_error(t->ctx)) return tool_error(t);
    return report_result(t, json_pack("{s:s, s:I}", "picture", out ? out : file, "node", (json_int_t)node));
}

static int run_plot(tool *t)
{
    struct stat st;
    options o = {0};
    char kind[NSMI_KIND_BYTES];
    int code = tool_settings(t, fields, &o);
    if (code != TOOL_DONE) return code;
    if (stat(t->arg[0], &st) == 0 && S_ISDIR(st.st_mode)) return plot_run(t, t->arg[0]);
    if (nsmi_seal_kind(t->ctx, t->arg[0], kind)) return tool_error(t);
    if (!strcmp(kind, "dataset")) return plot_dataset(t, t->arg[0], &o);
    return tool_fail(t, "%s: a file of kind \"%s\", of which there is no picture", t->arg[0], kind);
}

const tool_command plot_command = {
    .name = "plot", .args = "RUN|DATASET [KEY=VALUE...]", .summary = "Draw the curves of a run, or a picture of a graph.",
    .details = "RUN is a run's folder: loss.png and accuracy.png are drawn anew from its log.  Of a DATASET the neighbourhood of a node is "
               "drawn, coloured by class.", .options = command_options, .keys = keys, .least = 1, .most = 1, .run = run_plot};
