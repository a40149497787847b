/* bench.c - nsm bench: how long an epoch of a workload takes, beside what this machine can do.
 *
 * The work is that of the peers' scripts: forward, cross entropy on all nodes, backward, Adam, on a
 * random graph with a power law (or on a dataset's graph and features); median of the epochs after
 * one that is not counted. */
#include "config.h"
#include <math.h>
#include <string.h>
#include "bench/fuser.h"
#include "bench/gnn.h"
#include "bench/mixer.h"
#include "tools/nearest.h"
#include "tools/node.h"
#include "tools/report.h"

typedef struct {
    char *data, *order;
    int64_t nodes, edges, features, hidden, classes, heads, epochs;
    bool kernels;
} bench_options;

#define FIELD(name, type, fallback, help, choices, range) \
    { #name, SETTING_##type, offsetof(bench_options, name), fallback, help, choices, range }
static const setting fields[] = {
    FIELD(nodes, INT, "169343", "nodes of the random graph", NULL, ">=1"),
    FIELD(edges, INT, "1166243", "its edges, before it is made symmetric", NULL, ">=1"),
    FIELD(features, INT, "128", "features of a node", NULL, ">=1"),
    FIELD(hidden, INT, "256", "features of the hidden layer, all heads together", NULL, ">=1"),
    FIELD(classes, INT, "40", "classes", NULL, ">=1"),
    FIELD(heads, INT, "8", "attention heads, where the model has them", NULL, ">=1"),
    FIELD(epochs, INT, "5", "epochs that are measured", NULL, "1..100000"),
    FIELD(data, STRING, "", "a dataset whose graph, features and classes are used instead", NULL,
          NULL),
    FIELD(order, CHOICE, "none", "nodes of the random graph in another order", "none|degree|rcm",
          NULL),
    FIELD(kernels, BOOL, "true", "measure each kernel beside its limit too", NULL, NULL),
    { NULL, SETTING_BOOL, 0, NULL, NULL, NULL, NULL },
};

typedef struct {
    int64_t tokens, width, batch, runs;
    bool train, decode;
} mixer_options;

#define MIXER(name, type, fallback, help, range) \
    { \
#name, SETTING_##type, offsetof(mixer_options, name), fallback, help, NULL, range \
    }
static const setting mixer_fields[] = {
    MIXER(tokens, INT, "4096", "tokens of a sequence", "1..100000000"),
    MIXER(width, INT, "256", "width of the layer", "1..65536"),
    MIXER(batch, INT, "1", "sequences", "1..1000000"),
    MIXER(runs, INT, "5", "runs that are measured", "1..100000"),
    MIXER(train, BOOL, "false", "forward and backward; false: forward alone", NULL),
    MIXER(decode, BOOL, "false", "a step of one token, after so many tokens", NULL),
    { NULL, SETTING_BOOL, 0, NULL, NULL, NULL, NULL },
};

typedef struct {
    char *fuser, *options;
    int64_t elements, until, width, runs;
    bool train;
} fuser_options;

#define FUSER(name, type, fallback, help, range) \
    { \
#name, SETTING_##type, offsetof(fuser_options, name), fallback, help, NULL, range \
    }
static const setting fuser_fields[] = {
    FUSER(fuser, STRING, "nsm", "which: nsm, perceiver, attention, ...", NULL),
    FUSER(options, STRING, "", "its keys, as \"slots=64\"", NULL),
    FUSER(elements, INT, "16384", "elements of one set", "1..100000000"),
    FUSER(until, INT, "0", "also twice as many, and so on until so many; 0: not", "0..100000000"),
    FUSER(width, INT, "64", "width of elements and states", "1..65536"),
    FUSER(runs, INT, "3", "runs that are measured", "1..100000"),
    FUSER(train, BOOL, "false", "forward and backward; false: forward alone", NULL),
    { NULL, SETTING_BOOL, 0, NULL, NULL, NULL, NULL },
};

static const tool_keys keys[] = { { "Keys of graph networks", fields },
                                  { "Keys of sequence mixers, beside their own", mixer_fields },
                                  { "Keys of fuser", fuser_fields },
                                  { NULL, NULL } };

static json_t *kernels_of(const bench_gnn_result *r)
{
    json_t *list = json_array();
    for (int k = 0; k < r->kernels; k++) {
        const bench_kernel *b = &r->kernel[k];
        json_array_append_new(list,
                              json_pack("{s:s, s:o, s:o, s:o}", "kernel", b->name, "ms",
                                        report_real(b->ms), "limit_ms", report_real(b->limit_ms),
                                        "share", report_real(b->share)));
    }
    return list;
}

static int report(tool *t, const bench_gnn_result *r)
{
    json_t *o = json_object();
    json_object_set_new(o, "bench", json_string(t->arg[0]));
    json_object_set_new(o, "epoch_ms", report_real(r->epoch_ms));
    json_object_set_new(o, "epoch_ms_min", report_real(r->epoch_ms_min));
    json_object_set_new(o, "peak_mib", json_integer(r->peak_mib));
    json_object_set_new(o, "nodes", json_integer(r->nodes));
    json_object_set_new(o, "edges", json_integer(r->edges));
    json_object_set_new(o, "threads", json_integer(r->threads));
    json_object_set_new(o, "device", json_string(nsm_ctx_backend(t->ctx)));
    json_object_set_new(o, "precision", json_string(nsm_precision_name(t->precision)));
    json_object_set_new(o, "isa", json_string(nsm_ctx_isa(t->ctx)));
    if (r->kernels) {
        json_object_set_new(o, "triad_gb_per_s", report_real(r->triad_gbs));
        json_object_set_new(o, "openblas_gflop_per_s", report_real(r->gemm_gflops));
        json_object_set_new(o, "kernels", kernels_of(r));
    }
    return report_result(t, o);
}

/* The dataset's graph, features and classes, as training has them. */
static int bench_dataset(tool *t, const bench_options *o, bench_gnn_config *c, bench_gnn_result *r)
{
    train_options settings = { 0 };
    nsm_dataset *ds = nsm_dataset_load(t->ctx, o->data, &(nsm_dataset_options){ .no_names = true });
    if (ds && ds->label.kind != NSM_LABEL_CLASS)
        nsm_error_set(t->ctx, NSM_EINVAL, "%s has no classes to learn", o->data);
    if (nsm_error(t->ctx) == NSM_OK) settings_init(t->ctx, train_fields, &settings);
    node_task *n = nsm_error(t->ctx) ? NULL : node_task_new(t->ctx, &settings, ds, NULL);
    if (n) {
        node_task_data(n, &c->graph, &c->x, &c->y);
        c->classes = (int)ds->label.columns;
        bench_gnn(t->ctx, c, r);
    }
    node_task_free(n);
    settings_clear(train_fields, &settings);
    nsm_dataset_free(ds);
    return nsm_error(t->ctx);
}

static int unknown(tool *t)
{
    nearest n = { 0 };
    for (const char *const *kind = nsm_gnn_kinds(); *kind; kind++)
        nearest_try(&n, t->arg[0], *kind);
    for (const nsm_mixer_type *const *m = nsm_mixer_types(); *m; m++)
        nearest_try(&n, t->arg[0], (*m)->name);
    nearest_try(&n, t->arg[0], "fuser");
    return tool_usage(t, "there is no workload \"%s\"; did you mean \"%s\"?", t->arg[0], n.name);
}

/* The pairs that are the mixer's own become its options; the others are settled here. */
static int mixer_settings(tool *t, const nsm_mixer_type *type, mixer_options *o, char *own,
                          size_t room)
{
    int rest = 0;
    *own = 0;
    for (int i = 0; i < t->pairs; i++) {
        size_t n = strcspn(t->pair[i], "=");
        bool mine = false;
        for (const nsm_mixer_key *k = type->keys; k && k->name; k++)
            mine |= strlen(k->name) == n && !strncmp(k->name, t->pair[i], n);
        size_t at = strlen(own);
        if (mine) snprintf(own + at, room - at, "%s ", t->pair[i]);
        else t->pair[rest++] = t->pair[i];
    }
    t->pairs = rest;
    return tool_settings(t, mixer_fields, o);
}

static int run_mixer(tool *t, const nsm_mixer_type *type)
{
    mixer_options o = { 0 };
    bench_mixer_result r;
    char own[4096];
    int code = mixer_settings(t, type, &o, own, sizeof own);
    if (code != TOOL_DONE) return code;
    bench_mixer_config c = { .type = type->name,
                             .options = own,
                             .batch = o.batch,
                             .tokens = o.tokens,
                             .width = (int)o.width,
                             .runs = (int)o.runs,
                             .train = o.train,
                             .decode = o.decode };
    if (bench_mixer(t->ctx, &c, &r)) return tool_error(t);
    json_t *j = json_object();
    json_object_set_new(j, "bench", json_string(type->name));
    json_object_set_new(j, "ms", report_real(r.ms));
    json_object_set_new(j, "ms_min", report_real(r.ms_min));
    json_object_set_new(j, "tokens_per_s",
                        report_real(
                            floor(1e3 * (double)(o.batch * (o.decode ? 1 : o.tokens)) / r.ms)));
    json_object_set_new(j, "peak_mib", json_integer(r.peak_mib));
    json_object_set_new(j, "parameters", json_integer(r.parameters));
    if (o.decode) json_object_set_new(j, "state_bytes", json_integer(r.state_bytes));
    json_object_set_new(j, "threads", json_integer(r.threads));
    json_object_set_new(j, "device", json_string(nsm_ctx_backend(t->ctx)));
    json_object_set_new(j, "precision", json_string(nsm_precision_name(t->precision)));
    json_object_set_new(j, "isa", json_string(nsm_ctx_isa(t->ctx)));
    return report_result(t, j);
}

/* Time and memory at each size, and how they grow. */
static int run_fuser(tool *t)
{
    fuser_options o = { 0 };
    json_t *points = json_array();
    int code = tool_settings(t, fuser_fields, &o);
    for (int64_t n = o.elements; code == TOOL_DONE && (n <= o.until || n == o.elements); n *= 2) {
        bench_fuser_result r = { 0 };
        bench_fuser_config c = { .type = o.fuser, .options = o.options, .elements = n,
                                 .width = (int)o.width, .runs = (int)o.runs, .train = o.train };
        if (bench_fuser(t->ctx, &c, &r)) code = tool_error(t);
        nsm_ctx_trim(t->ctx);
        json_array_append_new(points, json_pack("{s:I, s:f, s:f}", "elements", (json_int_t)n, "ms",
                                                r.ms, "tensor_mib",
                                                (double)r.tensor_bytes / (1 << 20)));
    }
    report_line_fit time = report_slope(points, "elements", "ms"),
                    memory = report_slope(points, "elements", "tensor_mib");
    json_t *last = json_array_get(points, json_array_size(points) - 1);
    json_t *j = json_pack("{s:s, s:O?, s:O?, s:O?, s:o, s:o, s:o, s:i, s:s, s:O}", "bench", o.fuser,
                          "elements", json_object_get(last, "elements"), "ms",
                          json_object_get(last, "ms"), "tensor_mib",
                          json_object_get(last, "tensor_mib"), "slope", report_real(time.slope),
                          "slope_error", report_real(time.error), "memory_slope",
                          report_real(memory.slope), "threads", nsm_ctx_threads(t->ctx), "device",
                          nsm_ctx_backend(t->ctx), "points", points);
    json_decref(points);
    settings_clear(fuser_fields, &o);
    if (code == TOOL_DONE) return report_result(t, j);
    json_decref(j);
    return code;
}

static int run_bench(tool *t)
{
    if (!strcmp(t->arg[0], "fuser")) return run_fuser(t);
    if (nsm_mixer_find(t->arg[0])) return run_mixer(t, nsm_mixer_find(t->arg[0]));

    bench_options o = { 0 };
    bench_gnn_result r = { 0 };
    bool known = false;
    for (const char *const *kind = nsm_gnn_kinds(); *kind; kind++)
        known |= !strcmp(*kind, t->arg[0]);
    if (!known) return unknown(t);
    int code = tool_settings(t, fields, &o);
    if (code == TOOL_DONE) {
        bench_gnn_config c = { .kind = t->arg[0],
                               .nodes = o.nodes,
                               .edges = o.edges,
                               .features = (int)o.features,
                               .hidden = (int)o.hidden,
                               .classes = (int)o.classes,
                               .heads = (int)o.heads,
                               .epochs = (int)o.epochs,
                               .seed = t->seed,
                               .kernels = o.kernels,
                               .ordered = strcmp(o.order, "none") != 0,
                               .order = !strcmp(o.order, "rcm") ? NSM_ORDER_RCM
                                                                : NSM_ORDER_DEGREE };
        int failed = *o.data ? bench_dataset(t, &o, &c, &r) : bench_gnn(t->ctx, &c, &r);
        code = failed ? tool_error(t) : report(t, &r);
    }
    settings_clear(fields, &o);
    return code;
}

const tool_command bench_command = {
    .name = "bench",
    .args = "gcn|gat|gatv2|sage|MIXER|fuser [KEY=VALUE...]",
    .summary = "Time a workload, and each kernel beside its limit.",
    .details = "MIXER is a sequence system (transformer, ...): one layer, as the peers' script "
               "times it; fuser: what joins modalities, at one size or at growing ones with the "
               "slope of log time over log elements.  Of a graph network it prints the median "
               "epoch and, for each kernel, its "
               "time, what the machine's limit would take (measured in the same run) "
               "and the share of that limit it reaches.",
    .options = NULL,
    .keys = keys,
    .least = 1,
    .most = 1,
    .run = run_bench,
};
