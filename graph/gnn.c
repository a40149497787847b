/* graph/gnn.c - See gnn.h.
 *
 * Without norm and skip a layer's bias, activation and dropout are one pass in the layer itself;
 * else the layer gives its plain result and the stack goes on from there. */
#include "config.h"
#include "graph/gat.h"
#include "graph/gatv2.h"
#include "graph/gcn.h"
#include "graph/gnn.h"
#include "graph/internal.h"
#include "graph/rgcn.h"

/* What one layer is to be. */
typedef struct { int in, out, heads; bool average; nsm_act act; float a, b, dropout; } layer_plan;

/* A kind of layer: how it is made and applied. */
typedef struct {
    const char *name;
    void *(*make)(nsm_ctx *ctx, const nsm_gnn_config *c, const layer_plan *p);
    nsm_tensor *(*apply)(nsm_tape *tape, void *layer, const nsm_graph *g, nsm_tensor *x,
                         nsm_attention *attention);
    nsm_module *(*module)(void *layer);
    void (*free)(void *layer);
    bool heads;     /* has heads: the result is heads * out wide unless averaged */
    bool residual;  /* adds the residual itself */
} layer_kind;

static void *make_gcn(nsm_ctx *ctx, const nsm_gnn_config *c, const layer_plan *p)
{
    return nsm_gcn_new(ctx, &(nsm_gcn_config){ .in_channels = p->in,
                                               .out_channels = p->out,
                                               .improved = c->improved,
                                               .no_normalize = c->no_normalize,
                                               .no_self_loops = c->no_self_loops,
                                               .no_bias = c->no_bias,
                                               .act = p->act,
                                               .act_a = p->a,
                                               .act_b = p->b,
                                               .dropout = p->dropout });
}

static nsm_tensor *apply_gcn(nsm_tape *tape, void *layer, const nsm_graph *g, nsm_tensor *x,
                             nsm_attention *attention)
{
    (void)attention;
    return nsm_gcn_apply(tape, layer, g, x, NULL);
}

static nsm_module *module_gcn(void *layer) { return nsm_gcn_module(layer); }
static void free_gcn(void *layer) { nsm_gcn_free(layer); }

static void *make_gat(nsm_ctx *ctx, const nsm_gnn_config *c, const layer_plan *p)
{
    return nsm_gat_new(ctx, &(nsm_gat_config){ .in_channels = p->in,
                                               .out_channels = p->out,
                                               .heads = p->heads,
                                               .edge_dim = c->edge_dim,
                                               .average = p->average,
                                               .no_self_loops = c->no_self_loops,
                                               .no_bias = c->no_bias,
                                               .residual = c->residual,
                                               .negative_slope = c->negative_slope,
                                               .attn_dropout = c->attn_dropout,
                                               .act = p->act,
                                               .act_a = p->a,
                                               .act_b = p->b,
                                               .dropout = p->dropout });
}

static nsm_tensor *apply_gat(nsm_tape *tape, void *layer, const nsm_graph *g, nsm_tensor *x,
                             nsm_attention *attention)
{
    return nsm_gat_apply(tape, layer, g, x, NULL, attention);
}

static nsm_module *module_gat(void *layer) { return nsm_gat_module(layer); }
static void free_gat(void *layer) { nsm_gat_free(layer); }

static void *make_gatv2(nsm_ctx *ctx, const nsm_gnn_config *c, const layer_plan *p)
{
    return nsm_gatv2_new(ctx, &(nsm_gatv2_config){ .in_channels = p->in,
                                                   .out_channels = p->out,
                                                   .heads = p->heads,
                                                   .edge_dim = c->edge_dim,
                                                   .average = p->average,
                                                   .share_weights = c->share_weights,
                                                   .no_self_loops = c->no_self_loops,
                                                   .no_bias = c->no_bias,
                                                   .residual = c->residual,
                                                   .negative_slope = c->negative_slope,
                                                   .attn_dropout = c->attn_dropout,
                                                   .act = p->act,
                                                   .act_a = p->a,
                                                   .act_b = p->b,
                                                   .dropout = p->dropout });
}

static nsm_tensor *apply_gatv2(nsm_tape *tape, void *layer, const nsm_graph *g, nsm_tensor *x,
                               nsm_attention *attention)
{
    return nsm_gatv2_apply(tape, layer, g, x, NULL, attention);
}

static nsm_module *module_gatv2(void *layer) { return nsm_gatv2_module(layer); }
static void free_gatv2(void *layer) { nsm_gatv2_free(layer); }

static void *make_sage(nsm_ctx *ctx, const nsm_gnn_config *c, const layer_plan *p)
{
    return nsm_sage_new(ctx, &(nsm_sage_config){ .in_channels = p->in,
                                                 .out_channels = p->out,
                                                 .aggr = c->aggr,
                                                 .no_root_weight = c->no_root_weight,
                                                 .normalize = c->normalize,
                                                 .project = c->project,
                                                 .no_bias = c->no_bias,
                                                 .act = p->act,
                                                 .act_a = p->a,
                                                 .act_b = p->b,
                                                 .dropout = p->dropout });
}

static nsm_tensor *apply_sage(nsm_tape *tape, void *layer, const nsm_graph *g, nsm_tensor *x,
                              nsm_attention *attention)
{
    (void)attention;
    return nsm_sage_apply(tape, layer, g, x, NULL);
}

static nsm_module *module_sage(void *layer) { return nsm_sage_module(layer); }
static void free_sage(void *layer) { nsm_sage_free(layer); }

static void *make_rgcn(nsm_ctx *ctx, const nsm_gnn_config *c, const layer_plan *p)
{
    return nsm_rgcn_new(ctx, &(nsm_rgcn_config){ .in_channels = p->in,
                                                 .out_channels = p->out,
                                                 .relations = c->relations,
                                                 .num_bases = c->num_bases,
                                                 .num_blocks = c->num_blocks,
                                                 .aggr = c->aggr,
                                                 .no_root_weight = c->no_root_weight,
                                                 .no_bias = c->no_bias,
                                                 .act = p->act,
                                                 .act_a = p->a,
                                                 .act_b = p->b,
                                                 .dropout = p->dropout });
}

static nsm_tensor *apply_rgcn(nsm_tape *tape, void *layer, const nsm_graph *g, nsm_tensor *x,
                              nsm_attention *attention)
{
    (void)attention;
    return nsm_rgcn_apply(tape, layer, g, x);
}

static nsm_module *module_rgcn(void *layer) { return nsm_rgcn_module(layer); }
static void free_rgcn(void *layer) { nsm_rgcn_free(layer); }

static const layer_kind kinds[] = {
    { "gcn", make_gcn, apply_gcn, module_gcn, free_gcn, false, false },
    { "gat", make_gat, apply_gat, module_gat, free_gat, true, true },
    { "gatv2", make_gatv2, apply_gatv2, module_gatv2, free_gatv2, true, true },
    { "sage", make_sage, apply_sage, module_sage, free_sage, false, false },
    { "rgcn", make_rgcn, apply_rgcn, module_rgcn, free_rgcn, false, false },
};
enum { KINDS = sizeof kinds / sizeof *kinds };

const char *const *nsm_gnn_kinds(void)
{
    static const char *const names[] = { "gcn", "gat", "gatv2", "sage", "rgcn", NULL };
    _Static_assert(sizeof names / sizeof *names == KINDS + 1, "a name for each kind");
    return names;
}

/* ---- the stack ---- */
typedef struct {
    void *conv;
    /* weight, bias [width]; of batch norm also the running statistics */
    nsm_module norm;
    nsm_tensor *weight, *bias, *mean, *var;
    nsm_tensor *skip;              /* [width, in] or NULL */
    int width;
    bool act, plain;               /* an activation follows; the layer gives its plain result */
} stage;

struct nsm_gnn {
    nsm_module module;
    nsm_gnn_config config;
    const layer_kind *kind;
    stage *stage;                  /* [layers] */
    nsm_module lin;
    nsm_tensor *lin_weight, *lin_bias;
};

static const layer_kind *find_kind(nsm_ctx *ctx, const char *name)
{
    char known[128] = "";
    size_t at = 0;
    for (int k = 0; k < KINDS; k++) {
        if (name && !strcmp(kinds[k].name, name)) return &kinds[k];
        at += (size_t)snprintf(known + at, sizeof known - at, "%s%s", k ? ", " : "", kinds[k].name);
    }
    nsm_error_set(ctx, NSM_EINVAL, "nsm_gnn_new: there is no kind \"%s\"; known are %s",
                  name ? name : "(null)", known);
    return NULL;
}

static void make_norm(nsm_gnn *g, stage *s, const char *name)
{
    int64_t width = s->width;
    s->weight = nsm_module_param(&s->norm, "weight", 1, &width);
    s->bias = nsm_module_param(&s->norm, "bias", 1, &width);
    if (s->weight) nsm_tensor_fill(s->weight, 1);
    if (g->config.norm == NSM_GNN_BATCH_NORM) {
        s->mean = nsm_module_buffer(&s->norm, "running_mean", 1, &width);
        s->var = nsm_module_buffer(&s->norm, "running_var", 1, &width);
        if (s->var) nsm_tensor_fill(s->var, 1);
    }
    nsm_module_child(&g->module, name, &s->norm);
}

/* Layer k (from 0), whose input is `in` wide. */
static void make_stage(nsm_gnn *g, int k, int in)
{
    const nsm_gnn_config *c = &g->config;
    stage *s = &g->stage[k];
    char name[32];
    bool last = k == c->layers - 1, logits = last && !c->jump;
    int heads = g->kind->heads ? (last && !c->jump ? c->out_heads : c->heads) : 1;
    layer_plan p = { .in = in, .out = logits ? c->out_channels : c->hidden_channels, .heads = heads,
                     .average = logits ? !c->concat_out : c->average_hidden };
    bool skips = c->residual && !g->kind->residual;
    s->width = p.average ? p.out : p.out * heads;
    s->act = !logits;
    s->plain = s->act && (c->norm || skips);
    if (s->act && !s->plain) {
        p.act = c->no_act ? NSM_ACT_NONE : c->act;
        p.a = c->act_a;
        p.b = c->act_b;
        p.dropout = c->dropout;
    }
    s->conv = g->kind->make(g->module.ctx, c, &p);
    if (!s->conv) return;
    snprintf(name, sizeof name, "conv%d", k + 1);
    nsm_module_child(&g->module, name, g->kind->module(s->conv));
    if (s->act && c->norm) {
        snprintf(name, sizeof name, "norm%d", k + 1);
        make_norm(g, s, name);
    }
    if (skips && s->width != in) {
        snprintf(name, sizeof name, "skip%d.weight", k + 1);
        s->skip = nsm_module_param(&g->module, name, 2, (int64_t[]){ s->width, in });
        nsm_init_glorot_uniform(s->skip, 1);
    }
}

static void make_jump(nsm_gnn *g)
{
    const nsm_gnn_config *c = &g->config;
    int64_t in = 0, out = c->out_channels;
    for (int k = 0; k < c->layers; k++)
        in = c->jump == NSM_GNN_JUMP_CONCAT ? in + g->stage[k].width : g->stage[k].width;
    g->lin_weight = nsm_module_param(&g->lin, "weight", 2, (int64_t[]){ out, in });
    g->lin_bias = nsm_module_param(&g->lin, "bias", 1, &out);
    nsm_init_glorot_uniform(g->lin_weight, 1);
    nsm_module_child(&g->module, "lin", &g->lin);
}

static bool fill_defaults(nsm_ctx *ctx, nsm_gnn_config *c)
{
    if (c->layers == 0) c->layers = 2;
    if (c->heads == 0) c->heads = 1;
    if (c->out_heads == 0) c->out_heads = 1;
    if (c->act == NSM_ACT_NONE && !c->no_act) c->act = NSM_ACT_RELU;
    if (c->negative_slope == 0) c->negative_slope = 0.2f;
    if (c->layers > 0 && c->layers <= 1000 && c->dropout >= 0 && c->dropout < 1 &&
        (unsigned)c->norm <= NSM_GNN_LAYER_NORM && (unsigned)c->jump <= NSM_GNN_JUMP_MAX &&
        (unsigned)c->act < NSM_ACTS)
        return true;
    nsm_error_set(
        ctx, NSM_EINVAL,
        "nsm_gnn_new: layers is %d, dropout %g, norm %d, jump %d, act %d; want layers 1..1000, "
        "dropout in [0,1) and known names",
        c->layers, (double)c->dropout, (int)c->norm, (int)c->jump, (int)c->act);
    return false;
}

nsm_gnn *nsm_gnn_new(nsm_ctx *ctx, const nsm_gnn_config *config)
{
    if (nsmi_failed(ctx)) return NULL;
    nsm_gnn_config c = *config;
    const layer_kind *kind = find_kind(ctx, c.kind);
    if (!kind || !fill_defaults(ctx, &c)) return NULL;
    nsm_gnn *g = nsmi_calloc(ctx, 1, sizeof *g);
    if (!g) return NULL;
    c.kind = kind->name;
    g->config = c;
    g->kind = kind;
    nsm_module_init(&g->module, ctx);
    nsm_module_init(&g->lin, ctx);
    g->stage = nsmi_calloc(ctx, (size_t)c.layers, sizeof *g->stage);
    for (int k = 0; g->stage && k < c.layers; k++) nsm_module_init(&g->stage[k].norm, ctx);
    for (int k = 0, in = c.in_channels; !nsmi_failed(ctx) && k < c.layers; in = g->stage[k++].width)
        make_stage(g, k, in);
    if (!nsmi_failed(ctx) && c.jump) make_jump(g);
    if (!nsmi_failed(ctx)) return g;
    nsm_gnn_free(g);
    return NULL;
}

void nsm_gnn_free(nsm_gnn *g)
{
    if (!g) return;
    for (int k = 0; g->stage && k < g->config.layers; k++) {
        if (g->stage[k].conv) g->kind->free(g->stage[k].conv);
        nsm_module_clear(&g->stage[k].norm);
    }
    nsm_module_clear(&g->lin);
    nsm_module_clear(&g->module);
    free(g->stage);
    free(g);
}

int nsm_gnn_layers(const nsm_gnn *g) { return g ? g->config.layers : 0; }
const nsm_gnn_config *nsm_gnn_settings(const nsm_gnn *g) { return g ? &g->config : NULL; }
nsm_module *nsm_gnn_module(nsm_gnn *g) { return g ? &g->module : NULL; }

/* ---- forward ---- */
static nsm_tensor *add_skip(nsm_tape *tape, const stage *s, nsm_tensor *y, nsm_tensor *x)
{
    if (s->skip) return nsmi_add_residual(tape, y, x, s->skip);
    nsm_tensor *sum = nsm_add(tape, y, x);
    nsm_tape_drop(tape, y);
    return sum;
}

static nsm_tensor *apply_norm(nsm_tape *tape, const nsm_gnn *g, const stage *s, nsm_tensor *y)
{
    const float eps = 1e-5f;
    if (!s->weight || !y) return y;
    nsm_tensor *z;
    if (g->config.norm == NSM_GNN_LAYER_NORM) {
        z = nsm_layer_norm(tape, y, s->weight, s->bias, 1, eps);
    } else {
        nsm_batch_stats stats = { s->mean, s->var, 0.1f, eps, nsm_tape_training(tape) };
        z = nsm_batch_norm(tape, y, s->weight, s->bias, &stats);
    }
    nsm_tape_drop(tape, y);
    return z;
}

static nsm_tensor *apply_stage(nsm_tape *tape, const nsm_gnn *g, const stage *s,
                               const nsm_graph *graph, nsm_tensor *x, nsm_attention *attention)
{
    const nsm_gnn_config *c = &g->config;
    nsm_tensor *y = g->kind->apply(tape, s->conv, graph, x, attention);
    if (c->residual && !g->kind->residual)
        y = add_skip(tape, s, y, nsmi_first_rows(tape, x, graph->nodes));
    if (!s->plain) return y;
    y = apply_norm(tape, g, s, y);
    return nsmi_finish(tape, y, NULL, c->no_act ? NSM_ACT_NONE : c->act, c->act_a, c->act_b,
                       c->dropout);
}

/* lin of all stages' results, each cut to the rows that the last has. */
static nsm_tensor *apply_jump(nsm_tape *tape, const nsm_gnn *g, nsm_tensor **h)
{
    int layers = g->config.layers;
    nsm_tensor *y = h[layers - 1];
    int64_t rows = y ? y->dim[0] : 0;
    for (int k = 0; k < layers; k++) h[k] = nsmi_first_rows(tape, h[k], rows);
    if (g->config.jump == NSM_GNN_JUMP_CONCAT) y = nsm_concat(tape, h, layers, 1);
    else for (int k = layers - 2; k >= 0; k--) y = nsm_maximum(tape, h[k], y);
    return nsm_linear(tape, y, g->lin_weight, g->lin_bias);
}

static nsm_tensor *run(nsm_tape *tape, nsm_gnn *g, nsm_graph *const *block, const nsm_graph *whole,
                       nsm_tensor *x, nsm_attention *attention)
{
    nsm_ctx *ctx = g->module.ctx;
    int layers = g->config.layers;
    nsm_tensor **h = nsmi_calloc(ctx, (size_t)layers, sizeof *h),
               *now = nsm_dropout(tape, x, g->config.dropout);
    for (int k = 0; h && k < layers; k++) {
        nsm_tensor *before = now;
        now = apply_stage(tape, g, &g->stage[k], whole ? whole : block[k], now,
                          attention ? &attention[k] : NULL);
        h[k] = now;
        if (before != x && now != before && !g->config.jump) nsm_tape_drop(tape, before);
    }
    if (h && g->config.jump) now = nsmi_failed(ctx) ? NULL : apply_jump(tape, g, h);
    free(h);
    return nsmi_failed(ctx) ? NULL : now;
}

nsm_tensor *nsm_gnn_apply(nsm_tape *tape, nsm_gnn *g, const nsm_graph *graph, nsm_tensor *x,
                          nsm_attention *attention)
{
    if (!tape || !g || !graph || !x || nsmi_failed(g->module.ctx)) return NULL;
    return run(tape, g, NULL, graph, x, attention);
}

nsm_tensor *nsm_gnn_apply_blocks(nsm_tape *tape, nsm_gnn *g, nsm_graph *const *block, nsm_tensor *x,
                                 nsm_attention *attention)
{
    if (!tape || !g || !block || !x || nsmi_failed(g->module.ctx)) return NULL;
    return run(tape, g, block, NULL, x, attention);
}
