/* info.c - nsm info: what a file holds. */
#include "datasets/info.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/seal.h"
#include "tools/model.h"
#include "tools/summary.h"

static const char *const label_name[] = {"none", "classes", "several labels", "values"};

static json_t *node_types(const nsm_dataset *ds)
{
    json_t *list = json_array();
    for (int i = 0; i < ds->node_types; i++) {
        const nsm_dataset_nodes *n = &ds->node[i];
        const char *storage = !n->features ? "none"
                              : n->ptr     ? "sparse"
                              : n->in_file ? "dense, in the file"
                                           : "dense";
        json_t *o =
            json_pack("{s:s, s:I, s:I, s:s}", "name", n->name, "nodes", (json_int_t)n->count,
                      "features", (json_int_t)n->features, "storage", storage);
        if (n->ptr) json_object_set_new(o, "stored", json_integer(n->ptr[n->count]));
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *edge_types(const nsm_dataset *ds)
{
    json_t *list = json_array();
    for (int i = 0; i < ds->edge_types; i++) {
        const nsm_dataset_edges *e = &ds->edge[i];
        json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:I, s:b, s:I}", "name", e->name,
                                              "from", ds->node[e->src_type].name, "to",
                                              ds->node[e->dst_type].name, "edges",
                                              (json_int_t)e->count, "weights", e->weight != NULL,
                                              "features", (json_int_t)e->features));
    }
    return list;
}

static json_t *classes(const nsm_dataset *ds, const nsm_dataset_stats *s)
{
    json_t *list = json_array();
    for (int64_t k = 0; k < s->classes; k++) {
        char number[32];
        snprintf(number, sizeof number, "%lld", (long long)k);
        json_array_append_new(list, json_pack("{s:I, s:s, s:I}", "class", (json_int_t)k, "name",
                                              ds->label.names ? ds->label.names[k] : number,
                                              "members", (json_int_t)s->class_count[k]));
    }
    return list;
}

static json_t *structure(const nsm_dataset_stats *s)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:{s:I, s:o, s:o, s:I, s:o}, s:o}",
                     "self_loops", (json_int_t)s->self_loops, "duplicates",
                     (json_int_t)s->duplicates, "unpaired", (json_int_t)s->unpaired, "isolated",
                     (json_int_t)s->isolated, "components", (json_int_t)s->components,
                     "largest_component", (json_int_t)s->largest, "degree", "least",
                     (json_int_t)s->degree_min, "median", report_real(s->degree_median), "mean",
                     report_real(s->degree_mean), "most", (json_int_t)s->degree_max, "deviation",
                     report_real(s->degree_std), "homophily", report_real(s->homophily));
}

static int dataset_info(tool *t, const char *path)
{
    nsm_dataset_stats s = {0};
    nsm_dataset *ds = nsm_dataset_load(
        t->ctx, path, &(nsm_dataset_options){.features_in_file_bytes = -1, .no_names = true});
    if (!ds || nsm_dataset_info(ds, &s)) {
        nsm_dataset_free(ds);
        return tool_error(t);
    }
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:b, s:I, s:I, s:I}", "kind", "dataset", "file",
                          path, "name", ds->name, "description", ds->description, "directed",
                          ds->directed, "graphs", (json_int_t)ds->graphs, "nodes",
                          (json_int_t)s.nodes, "edges", (json_int_t)s.edges);
    if (o) {
        json_object_set_new(o, "node_types", node_types(ds));
        json_object_set_new(o, "edge_types", edge_types(ds));
        json_object_set_new(o, "structure", structure(&s));
        json_object_set_new(o, "labels", json_string(label_name[ds->label.kind]));
        json_object_set_new(o, "labelled", json_integer(s.labelled));
        if (s.classes) json_object_set_new(o, "classes", classes(ds, &s));
        json_object_set_new(o, "splits", split_summary(ds));
    }
    nsm_dataset_stats_clear(&s);
    nsm_dataset_free(ds);
    return report_result(t, o);
}

static int sequences_info(tool *t, const char *path)
{
    nsm_sequences *s = nsm_sequences_load(t->ctx, path);
    json_t *o = s ? sequences_summary(s, path) : NULL;
    if (o) json_object_set_new(o, "description", json_string(s->description));
    nsm_sequences_free(s);
    return o ? report_result(t, o) : tool_error(t);
}

static json_t *weights(const model_weights *w)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < w->count; i++) {
        char shape[128] = "";
        int at = 0;
        for (int k = 0; k < w->weight[i].rank; k++)
            at += snprintf(shape + at, sizeof shape - (size_t)at, "%s%lld", k ? " x " : "",
                           (long long)w->weight[i].dim[k]);
        json_array_append_new(list,
                              json_pack("{s:s, s:s}", "name", w->weight[i].name, "shape", shape));
    }
    return list;
}

static json_t *scores(const trainer_state *s)
{
    return json_pack("{s:I, s:o, s:I, s:{s:o, s:o, s:o}, s:{s:o, s:o, s:o}}", "epoch",
                     (json_int_t)s->epoch, "loss", report_real(s->loss), "kept_epoch",
                     (json_int_t)s->kept_epoch, "now", "train", report_real(s->now[0]), "valid",
                     report_real(s->now[1]), "test", report_real(s->now[2]), "kept", "train",
                     report_real(s->kept[0]), "valid", report_real(s->kept[1]), "test",
                     report_real(s->kept[2]));
}

static json_t *configuration(nsm_ctx *ctx, const train_options *o)
{
    json_t *all = json_object();
    for (const setting *f = train_fields; f->name; f++) {
        char *value = settings_value(ctx, f, o);
        json_object_set_new(all, f->name, json_string(value ? value : ""));
        free(value);
    }
    return all;
}

static int checkpoint_info(tool *t, const char *path)
{
    model m;
    model_weights w = {0};
    json_t *o = NULL;
    if (model_read(t, path, &m) && model_weights_read(t->ctx, m.path, false, &w)) {
        o = json_pack("{s:s, s:s, s:s, s:I, s:I, s:I}", "kind", "checkpoint", "file", m.path,
                      "model", *m.options.mixer ? m.options.mixer : m.options.model, "inputs",
                      (json_int_t)m.meta.inputs, "outputs", (json_int_t)m.meta.outputs,
                      "parameters", (json_int_t)w.parameters);
        json_object_set_new(o, "weights", weights(&w));
        json_object_set_new(o, "scores", scores(&m.meta.state));
        json_object_set_new(o, "configuration", configuration(t->ctx, &m.options));
    }
    model_weights_clear(&w);
    model_close(&m);
    return nsm_error(t->ctx) ? tool_error(t) : report_result(t, o);
}

static int run_info(tool *t)
{
    struct stat st;
    char kind[NSMI_KIND_BYTES];
    if (stat(t->arg[0], &st) == 0 && S_ISDIR(st.st_mode)) return checkpoint_info(t, t->arg[0]);
    if (nsmi_seal_kind(t->ctx, t->arg[0], kind)) return tool_error(t);
    if (!strcmp(kind, "dataset")) return dataset_info(t, t->arg[0]);
    if (!strcmp(kind, "sequences")) return sequences_info(t, t->arg[0]);
    if (!strcmp(kind, "checkpoint")) return checkpoint_info(t, t->arg[0]);
    return tool_fail(t, "%s: a file of kind \"%s\", about which nothing can be said", t->arg[0],
                     kind);
}

const tool_command info_command = {
    .name = "info",
    .args = "DATASET|CHECKPOINT|RUN",
    .summary = "Say what a dataset or a checkpoint holds.",
    .details = "Of a dataset: counts, degrees, homophily, components, classes and splits.  Of a "
               "checkpoint, or of the kept one in a run's folder: "
               "weights, scores and configuration.",
    .least = 1,
    .most = 1,
    .run = run_info};
