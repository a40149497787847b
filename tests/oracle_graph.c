/* tests/oracle_graph.c - Fixtures of graph layers and of whole graph classifiers. */
#include "config.h"
#include "base/ops.h"
#include "base/optimizer.h"
#include "graph/gat.h"
#include "graph/gatv2.h"
#include "graph/gcn.h"
#include "graph/gnn.h"
#include "graph/pool.h"
#include "graph/rgcn.h"
#include "graph/sage.h"
#include "tests/fixture.h"

static int size(fixture *f, const char *key, int64_t fallback)
{
    return (int)fixture_int(f, key, fallback);
}

/* The graph of inputs/edge_index; sources -1: as many as nodes. */
static nsm_graph *open_graph(fixture *f, int64_t sources, int64_t nodes)
{
    int64_t count, dim[NSM_MAX_RANK];
    const int32_t *e = fixture_ints(f, "inputs/edge_index", &count);
    if (!e || fixture_dims(f, "inputs/edge_index", dim) != 2 || dim[0] != 2) {
        fixture_fault(f, "inputs/edge_index is not [2, E]");
        return NULL;
    }
    return nsm_graph_bipartite(fixture_ctx(f), sources, nodes, count / 2, e, e + count / 2);
}

static nsm_tensor *optional(fixture *f, bool wanted, const char *name)
{
    return wanted ? fixture_input(f, name) : NULL;
}

static void run_gcn(fixture *f)
{
    int64_t n = fixture_int(f, "num_nodes", 0);
    nsm_tape *tape = nsm_tape_new(fixture_ctx(f));
    nsm_graph *g = open_graph(f, n, n);
    nsm_gcn *gcn = nsm_gcn_new(fixture_ctx(f),
                               &(nsm_gcn_config){
                                   .in_channels = size(f, "in_channels", 0),
                                   .out_channels = size(f, "out_channels", 0),
                                   .improved = fixture_bool(f, "improved", false),
                                   .no_normalize = !fixture_bool(f, "normalize", true),
                                   .no_self_loops = !fixture_bool(f, "add_self_loops", true),
                                   .no_bias = !fixture_bool(f, "bias", true) });
    fixture_load(f, nsm_gcn_module(gcn));
    nsm_tensor *w = optional(f, fixture_bool(f, "edge_weight", false), "edge_weight");
    fixture_output(f, tape, "out", nsm_gcn_apply(tape, gcn, g, fixture_input(f, "x"), w));
    fixture_grads(f, tape, nsm_gcn_module(gcn));
    nsm_tape_free(tape);
    nsm_gcn_free(gcn);
    nsm_graph_free(g);
}

/* Only what the layers do is accepted: another rule must not pass for it. */
static void check_fill(fixture *f)
{
    if (strcmp(fixture_text(f, "fill_value", "mean"), "mean"))
        fixture_fault(f, "fill_value is not mean");
}

static void run_gat(fixture *f)
{
    int64_t n = fixture_int(f, "num_nodes", 0);
    nsm_tape *tape = nsm_tape_new(fixture_ctx(f));
    nsm_graph *g = open_graph(f, n, n);
    check_fill(f);
    nsm_gat *gat = nsm_gat_new(
        fixture_ctx(f),
        &(nsm_gat_config){ .in_channels = size(f, "in_channels", 0),
                           .out_channels = size(f, "out_channels", 0),
                           .heads = size(f, "heads", 1),
                           .edge_dim = size(f, "edge_dim", 0),
                           .average = !fixture_bool(f, "concat", true),
                           .no_self_loops = !fixture_bool(f, "add_self_loops", true),
                           .no_bias = !fixture_bool(f, "bias", true),
                           .residual = fixture_bool(f, "residual", false),
                           .negative_slope = (float)fixture_number(f, "negative_slope", 0.2) });
    fixture_load(f, nsm_gat_module(gat));
    nsm_tensor *e = optional(f, size(f, "edge_dim", 0) > 0, "edge_attr");
    fixture_output(f, tape, "out", nsm_gat_apply(tape, gat, g, fixture_input(f, "x"), e, NULL));
    fixture_grads(f, tape, nsm_gat_module(gat));
    nsm_tape_free(tape);
    nsm_gat_free(gat);
    nsm_graph_free(g);
}

static void run_gatv2(fixture *f)
{
    int64_t n = fixture_int(f, "num_nodes", 0);
    nsm_tape *tape = nsm_tape_new(fixture_ctx(f));
    nsm_graph *g = open_graph(f, n, n);
    check_fill(f);
    nsm_gatv2 *gat = nsm_gatv2_new(
        fixture_ctx(f),
        &(nsm_gatv2_config){ .in_channels = size(f, "in_channels", 0),
                             .out_channels = size(f, "out_channels", 0),
                             .heads = size(f, "heads", 1),
                             .edge_dim = size(f, "edge_dim", 0),
                             .average = !fixture_bool(f, "concat", true),
                             .share_weights = fixture_bool(f, "share_weights", false),
                             .no_self_loops = !fixture_bool(f, "add_self_loops", true),
                             .no_bias = !fixture_bool(f, "bias", true),
                             .residual = fixture_bool(f, "residual", false),
                             .negative_slope = (float)fixture_number(f, "negative_slope", 0.2) });
    fixture_load(f, nsm_gatv2_module(gat));
    nsm_tensor *e = optional(f, size(f, "edge_dim", 0) > 0, "edge_attr");
    fixture_output(f, tape, "out", nsm_gatv2_apply(tape, gat, g, fixture_input(f, "x"), e, NULL));
    fixture_grads(f, tape, nsm_gatv2_module(gat));
    nsm_tape_free(tape);
    nsm_gatv2_free(gat);
    nsm_graph_free(g);
}

static nsm_sage_aggr aggregation(fixture *f)
{
    const char *name = fixture_text(f, "aggr", "mean");
    if (!strcmp(name, "max")) return NSM_SAGE_MAX;
    if (!strcmp(name, "sum") || !strcmp(name, "add")) return NSM_SAGE_SUM;
    if (strcmp(name, "mean")) fixture_fault(f, "aggr is %s, want mean, max or sum", name);
    return NSM_SAGE_MEAN;
}

static void run_sage(fixture *f)
{
    bool two = fixture_bool(f, "bipartite", false);
    int64_t n = fixture_int(f, "num_nodes", 0);
    nsm_tape *tape = nsm_tape_new(fixture_ctx(f));
    nsm_graph *g = open_graph(f, n, two ? fixture_int(f, "num_dst", 0) : n);
    nsm_sage *sage = nsm_sage_new(fixture_ctx(f),
                                  &(nsm_sage_config){
                                      .in_channels = size(f, "in_channels", 0),
                                      .dst_channels = two ? size(f, "in_channels_dst", 0) : 0,
                                      .out_channels = size(f, "out_channels", 0),
                                      .aggr = aggregation(f),
                                      .no_root_weight = !fixture_bool(f, "root_weight", true),
                                      .normalize = fixture_bool(f, "normalize", false),
                                      .project = fixture_bool(f, "project", false),
                                      .no_bias = !fixture_bool(f, "bias", true) });
    fixture_load(f, nsm_sage_module(sage));
    nsm_tensor *x = fixture_input(f, two ? "x_src" : "x"), *dst = optional(f, two, "x_dst");
    fixture_output(f, tape, "out", nsm_sage_apply(tape, sage, g, x, dst));
    fixture_grads(f, tape, nsm_sage_module(sage));
    nsm_tape_free(tape);
    nsm_sage_free(sage);
    nsm_graph_free(g);
}

static void run_rgcn(fixture *f)
{
    int64_t n = fixture_int(f, "num_nodes", 0), count = 0;
    int relations = size(f, "num_relations", 0);
    nsm_tape *tape = nsm_tape_new(fixture_ctx(f));
    nsm_graph *g = open_graph(f, n, n);
    const int32_t *type = fixture_ints(f, "inputs/edge_type", &count);
    if (g && (!type || count != g->edges)) fixture_fault(f, "inputs/edge_type is not [E]");
    else nsm_graph_set_types(g, relations, type);
    nsm_rgcn *rgcn = nsm_rgcn_new(fixture_ctx(f),
                                  &(nsm_rgcn_config){
                                      .in_channels = size(f, "in_channels", 0),
                                      .out_channels = size(f, "out_channels", 0),
                                      .relations = relations,
                                      .num_bases = size(f, "num_bases", 0),
                                      .num_blocks = size(f, "num_blocks", 0),
                                      .aggr = aggregation(f),
                                      .no_root_weight = !fixture_bool(f, "root_weight", true),
                                      .no_bias = !fixture_bool(f, "bias", true) });
    fixture_load(f, nsm_rgcn_module(rgcn));
    fixture_output(f, tape, "out", nsm_rgcn_apply(tape, rgcn, g, fixture_input(f, "x")));
    fixture_grads(f, tape, nsm_rgcn_module(rgcn));
    nsm_tape_free(tape);
    nsm_rgcn_free(rgcn);
    nsm_graph_free(g);
}

/* ---- batches of graphs ---- */
/* Nodes without edges, in the graphs that inputs/batch says. */
static nsm_graph *open_batch(fixture *f)
{
    int64_t n;
    const int32_t *batch = fixture_ints(f, "inputs/batch", &n);
    nsm_graph *g = batch ? nsm_graph_new(fixture_ctx(f), n, 0, NULL, NULL) : NULL;
    if (g) nsm_graph_set_members(g, fixture_int(f, "num_graphs", 0), batch);
    return g;
}

static void run_graph_norm(fixture *f)
{
    nsm_tape *tape = nsm_tape_new(fixture_ctx(f));
    nsm_graph *g = open_batch(f);
    nsm_graph_norm *norm = nsm_graph_norm_new(fixture_ctx(f), size(f, "in_channels", 0),
                                              (float)fixture_number(f, "eps", 1e-5));
    fixture_load(f, nsm_graph_norm_module(norm));
    fixture_output(f, tape, "out", nsm_graph_norm_apply(tape, norm, g, fixture_input(f, "x")));
    fixture_grads(f, tape, nsm_graph_norm_module(norm));
    nsm_tape_free(tape);
    nsm_graph_norm_free(norm);
    nsm_graph_free(g);
}

static void run_global_pool(fixture *f)
{
    static const struct {
        const char *name;
        nsm_tensor *(*pool)(nsm_tape *, nsm_graph *, nsm_tensor *);
    } pools[] = {
        { "mean", nsm_pool_mean },
        { "max", nsm_pool_max },
        { "sum", nsm_pool_sum },
    };
    nsm_tape *tape = nsm_tape_new(fixture_ctx(f));
    nsm_graph *g = open_batch(f);
    for (size_t i = 0; i < 3; i++) {
        char path[32];
        snprintf(path, sizeof path, "outputs/%s", pools[i].name);
        if (fixture_has(f, path))
            fixture_output(f, tape, pools[i].name, pools[i].pool(tape, g, fixture_input(f, "x")));
    }
    fixture_grads(f, tape, NULL);
    nsm_tape_free(tape);
    nsm_graph_free(g);
}

static void run_attention_pool(fixture *f)
{
    int gates = size(f, "gate_channels", 1), out = size(f, "out_channels", 0);
    if (gates != 1 && gates != out)
        fixture_fault(f, "gate_channels is %d, want 1 or %d", gates, out);
    nsm_tape *tape = nsm_tape_new(fixture_ctx(f));
    nsm_graph *g = open_batch(f);
    nsm_attention_pool *p = nsm_attention_pool_new(fixture_ctx(f), &(nsm_attention_pool_config){
        .in_channels = size(f, "in_channels", 0), .out_channels = out, .by_feature = gates != 1 });
    fixture_load(f, nsm_attention_pool_module(p));
    fixture_output(f, tape, "out", nsm_attention_pool_apply(tape, p, g, fixture_input(f, "x")));
    fixture_grads(f, tape, nsm_attention_pool_module(p));
    nsm_tape_free(tape);
    nsm_attention_pool_free(p);
    nsm_graph_free(g);
}

/* ---- whole classifiers ---- */
typedef struct {
    fixture *f;
    nsm_tape *tape;
    nsm_graph *graph;
    nsm_gnn *gnn;
    nsm_tensor *x, *target, *mask;
} model;

/* concat of layer k: one value for all, or a list. */
static bool concatenates(fixture *f, int k, bool fallback)
{
    json_t *v = json_object_get(fixture_config(f), "concat");
    if (json_is_array(v)) v = json_array_get(v, (size_t)k);
    return json_is_boolean(v) ? json_is_true(v) : fallback;
}

static nsm_gnn *open_gnn(fixture *f)
{
    int layers = size(f, "num_layers", 2),
        act = nsm_act_find(fixture_text(f, "activation", "relu"));
    if (act < 0)
        fixture_fault(f, "the activation %s is not known", fixture_text(f, "activation", ""));
    nsm_gnn_config c = { .kind = fixture_text(f, "conv", "?"),
                         .in_channels = size(f, "in_channels", 0),
                         .hidden_channels = size(f, "hidden_channels", 0),
                         .out_channels = size(f, "num_classes", 0),
                         .layers = layers,
                         .act = act > 0 ? (nsm_act)act : NSM_ACT_NONE,
                         .no_act = act <= 0,
                         .dropout = (float)fixture_number(f, "dropout", 0),
                         .residual = fixture_bool(f, "residual", false),
                         .no_bias = !fixture_bool(f, "bias", true),
                         .heads = size(f, "heads", 1),
                         .out_heads = size(f, "out_heads", 1),
                         .average_hidden = !concatenates(f, 0, true),
                         .concat_out = concatenates(f, layers - 1, false),
                         .negative_slope = (float)fixture_number(f, "negative_slope", 0.2),
                         .no_self_loops = !fixture_bool(f, "add_self_loops", true),
                         .improved = fixture_bool(f, "improved", false),
                         .no_root_weight = !fixture_bool(f, "root_weight", true),
                         .aggr = aggregation(f),
                         .project = fixture_bool(f, "project", false) };
    if (c.act == NSM_ACT_ELU) c.act_a = (float)fixture_number(f, "alpha", 1);
    bool gcn = !strcmp(c.kind, "gcn"), normalize = fixture_bool(f, "normalize", gcn);
    c.no_normalize = gcn && !normalize;
    c.normalize = !gcn && normalize;
    return nsm_gnn_new(fixture_ctx(f), &c);
}

static nsm_tensor *forward(model *m, nsm_tensor **logits)
{
    nsm_cross_entropy_config c = { .row_weight = m->mask };
    if (!strcmp(fixture_text(m->f, "reduction", "mean"), "sum")) c.reduction = NSM_LOSS_SUM;
    *logits = nsm_gnn_apply(m->tape, m->gnn, m->graph, m->x, NULL);
    return nsm_cross_entropy(m->tape, *logits, m->target, &c);
}

/* A recorded run of optimizer steps: the loss after each, and the weights after the last. */
static void train(model *m, const char *name, json_t *how)
{
    fixture *f = m->f;
    char path[256];
    float losses[256];
    const char *only = json_string_value(json_object_get(how, "decay_only"));
    const char *kind = json_string_value(json_object_get(how, "optimizer"));
    json_t *betas = json_object_get(how, "betas");
    int steps = (int)json_integer_value(json_object_get(how, "steps"));
    char pattern[128];
    snprintf(pattern, sizeof pattern, "%s*", only ? only : "");
    nsm_optimizer_rule rule[] = { { .pattern = pattern },
                                  { .pattern = "*", .no_weight_decay = true } };
    nsm_optimizer_config c = { .kind = kind && !strcmp(kind, "AdamW") ? NSM_ADAMW : NSM_ADAM,
                               .weight_decay = json_number_value(
                                   json_object_get(how, "weight_decay")),
                               .beta1 = json_number_value(json_array_get(betas, 0)),
                               .beta2 = json_number_value(json_array_get(betas, 1)),
                               .eps = json_number_value(json_object_get(how, "eps")),
                               .amsgrad = json_is_true(json_object_get(how, "amsgrad")),
                               .rule = rule,
                               .rules = only ? 2 : 0 };
    if (!kind || (strcmp(kind, "Adam") && strcmp(kind, "AdamW")) || steps < 1 || steps > 256)
        fixture_fault(f, "the training %s has an unknown optimizer or number of steps", name);
    fixture_load(f, nsm_gnn_module(m->gnn));
    nsm_module_zero_grad(nsm_gnn_module(m->gnn));
    nsm_optimizer *o = nsm_optimizer_new(nsm_gnn_module(m->gnn), &c);
    for (int s = 0; s <= steps && s <= 256 && o; s++) {
        nsm_tensor *logits, *loss = forward(m, &logits);
        if (s > 0) losses[s - 1] = loss ? nsm_tensor_item(loss) : NAN;
        if (s < steps && nsm_tape_backward(m->tape, loss) == NSM_OK)
            nsm_optimizer_step(o, json_number_value(json_object_get(how, "lr")));
        nsm_tape_reset(m->tape);
    }
    snprintf(path, sizeof path, "train/%s/losses", name);
    if (o) fixture_values(f, path, losses, steps);
    snprintf(path, sizeof path, "train/%s/weights", name);
    fixture_module(f, path, nsm_gnn_module(m->gnn));
    nsm_optimizer_free(o);
}

static void run_model(fixture *f)
{
    int64_t n = fixture_int(f, "num_nodes", 0), count;
    const char *name;
    json_t *how;
    nsm_ctx *ctx = fixture_ctx(f);
    model m = { f,           nsm_tape_new(ctx),     open_graph(f, n, n),
                open_gnn(f), fixture_input(f, "x"), fixture_index(f, "y"),
                NULL };
    const float *mask = fixture_floats(f, "inputs/train_mask", &count);
    if (mask) m.mask = nsm_tensor_from(ctx, NSM_F32, 1, &count, mask);
    fixture_load(f, nsm_gnn_module(m.gnn));
    nsm_tensor *logits, *loss = forward(&m, &logits);
    fixture_output(f, m.tape, "logits", logits);
    fixture_output(f, m.tape, "loss", loss);
    fixture_grads(f, m.tape, nsm_gnn_module(m.gnn));
    nsm_tape_reset(m.tape);
    if (m.x) m.x->needs_grad = false;
    json_object_foreach(json_object_get(fixture_config(f), "training"), name, how) if (m.gnn)
        train(&m, name, how);
    nsm_tape_free(m.tape);
    nsm_gnn_free(m.gnn);
    nsm_graph_free(m.graph);
    nsm_tensor_free(m.mask);
}

const oracle_kind oracle_graph[] = {
    { "gcn", "gcn", run_gcn },
    { "gat", "gat", run_gat },
    { "gatv2", "gatv2", run_gatv2 },
    { "sage", "sage", run_sage },
    { "rgcn", "rgcn", run_rgcn },
    { "models", "gcn_node_classifier", run_model },
    { "models", "gat_node_classifier", run_model },
    { "models", "sage_node_classifier", run_model },
    { "norm", "graph_norm", run_graph_norm },
    { "pool", "global_pool", run_global_pool },
    { "pool", "attentional_pool", run_attention_pool },
    { NULL, NULL, NULL },
};
