/* fusion/fused.c - See fused.h. */
#include "config.h"
#include <math.h>
#include "base/internal.h"
#include "fusion/fused.h"
#include "fusion/parts.h"

enum { GRAPH, TEXT, PICTURE, MODALITIES };
enum { MOST_WIDTH = 1 << 20 }; /* four times it is an int still */

struct nsm_fused {
    nsm_module module;
    nsm_fused_config config;
    char *name[5];           /* copies of the configuration's words */
    int place[MODALITIES];   /* of each modality among the fuser's; -1: the model has it not */
    nsm_gnn *gnn;
    nsm_backbone *text;      /* NULL: a bag of words */
    nsm_image *image;        /* of both at most one */
    nsm_patch *patch;
    nsm_fuser *fuser;
    nsm_tensor *feature, *shown, *relation, *word, *reader, *question, *question_bias;
    nsm_tensor *up, *up_bias, *down, *down_bias;
    nsmi_pair norm, last;
    nsm_tensor *head, *head_bias, *key; /* key: of a pointer */
};

/* ---- making ---- */
static void make_gnn(nsm_fused *f)
{
    const nsm_fused_config *c = &f->config;
    f->gnn = nsm_gnn_new(f->module.ctx, &(nsm_gnn_config){ .kind = c->gnn,
                                                           .in_channels = c->width,
                                                           .hidden_channels = c->width,
                                                           .out_channels = c->width,
                                                           .layers = c->gnn_layers,
                                                           .norm = NSM_GNN_LAYER_NORM,
                                                           .residual = true,
                                                           .jump = NSM_GNN_JUMP_CONCAT,
                                                           .dropout = c->dropout,
                                                           .relations = c->relations,
                                                           .aggr = c->aggr,
                                                           .num_bases = c->bases });
    nsm_module_child(&f->module, "gnn", f->gnn ? nsm_gnn_module(f->gnn) : NULL);
}

static void make_graph(nsm_fused *f)
{
    const nsm_fused_config *c = &f->config;
    float small = 1 / sqrtf((float)c->width);
    if (c->features)
        f->feature = nsmi_drawn(&f->module, "feature.weight", c->width, c->features, small);
    if (c->shown) f->shown = nsmi_drawn(&f->module, "shown.weight", c->width, c->shown, small);
    if (strcmp(c->gnn, "none")) make_gnn(f);
    f->relation = nsmi_drawn(&f->module, "relation.weight", c->relations + 1, c->width, small);
}

static void make_text(nsm_fused *f)
{
    const nsm_fused_config *c = &f->config;
    f->word = nsmi_drawn(&f->module, "word.weight", c->vocab, c->width, 0.5f);
    if (!strcmp(c->mixer, "none")) return;
    f->text = nsm_backbone_new(f->module.ctx, &(nsm_backbone_config){ .mixer = c->mixer,
                                                                      .options = c->mixer_options,
                                                                      .width = c->width,
                                                                      .layers = c->text_layers,
                                                                      .inner = 2 * c->width,
                                                                      .rms_norm = true,
                                                                      .dropout = c->dropout,
                                                                      .bare = true });
    nsm_module_child(&f->module, "text", f->text ? nsm_backbone_module(f->text) : NULL);
}

static bool has_picture(const nsm_fused_config *c)
{
    return c->image.channels > 0 || c->patch.channels > 0;
}

static void make_picture(nsm_fused *f)
{
    nsm_fused_config *c = &f->config;
    if (c->image.channels) f->image = nsm_image_new(f->module.ctx, &c->image);
    if (!c->patch.features) c->patch.features = c->width;
    if (!c->image.channels) f->patch = nsm_patch_new(f->module.ctx, &c->patch);
    nsm_module_child(&f->module, "picture",
                     f->image ? nsm_image_module(f->image)
                     : f->patch ? nsm_patch_module(f->patch) : NULL);
}

void nsm_fused_picture_grid(const nsm_fused *f, int64_t *height, int64_t *width)
{
    const nsm_patch_config *p = &f->config.patch;
    *height = f->patch ? p->height / p->patch[0] : 0;
    *width = f->patch ? p->width / p->patch[1] : 0;
    if (f->image) nsm_image_grid(f->image, height, width);
}

/* Features of an element of each modality; 0: the model has it not. */
static int64_t element_features(const nsm_fused *f, int m)
{
    const nsm_fused_config *c = &f->config;
    if (m == GRAPH) return c->graph ? c->width : 0;
    if (m == TEXT) return c->vocab ? c->width : 0;
    return f->image ? nsm_image_features(f->image) : f->patch ? nsm_patch_features(f->patch) : 0;
}

static void make_fuser(nsm_fused *f)
{
    const nsm_fused_config *c = &f->config;
    nsm_fuser_config s = { .width = c->width, .query_features = c->width,
                           .options = c->fuser_options };
    for (int m = 0; m < MODALITIES; m++) {
        int64_t features = element_features(f, m);
        f->place[m] = features ? s.modalities++ : -1;
        if (features) s.features[f->place[m]] = (int)features;
    }
    f->fuser = nsm_fuser_new(f->module.ctx, c->fuser, &s);
    nsm_module_child(&f->module, "fuser", nsm_fuser_module(f->fuser));
}

static void make(nsm_fused *f)
{
    const nsm_fused_config *c = &f->config;
    float small = 1 / sqrtf((float)c->width);
    if (c->graph) make_graph(f);
    if (c->vocab) make_text(f);
    if (has_picture(c)) make_picture(f);
    if (c->question_features) {
        f->question = nsmi_drawn(&f->module, "question.weight", c->width, c->question_features,
                                 1 / sqrtf((float)c->question_features));
        f->question_bias = nsmi_filled(&f->module, "question.bias", c->width, 0);
    } else {
        f->reader = nsmi_drawn(&f->module, "reader.weight", 1, c->width, 1);
    }
    make_fuser(f);
    f->norm = nsmi_norm_new(&f->module, "norm", c->width);
    f->up = nsmi_drawn(&f->module, "up.weight", 4 * c->width, c->width, small);
    f->up_bias = nsmi_filled(&f->module, "up.bias", 4 * c->width, 0);
    f->down = nsmi_drawn(&f->module, "down.weight", c->width, 4 * c->width, small / 2);
    f->down_bias = nsmi_filled(&f->module, "down.bias", c->width, 0);
    f->last = nsmi_norm_new(&f->module, "last", c->width);
    bool points = c->head == NSM_FUSED_POINTER;
    int64_t outputs = points ? c->width : c->outputs;
    if (!outputs) return;
    f->head = nsmi_drawn(&f->module, "head.weight", outputs, c->width, small);
    f->head_bias = nsmi_filled(&f->module, "head.bias", outputs, 0);
    /* a bias here would be the same for all elements: softmax takes it out */
    if (points) f->key = nsmi_drawn(&f->module, "key.weight", c->width, c->width, small);
}

static bool config_ok(nsm_ctx *ctx, const nsm_fused_config *c)
{
    bool ok = c->width > 0 && c->width <= MOST_WIDTH && c->relations < INT32_MAX &&
              c->outputs >= 0 && c->vocab >= 0 && c->question_features >= 0 && c->features >= 0 &&
              c->shown >= 0 && (!c->graph || c->relations > 0) && c->dropout >= 0 && c->dropout < 1;
    if (!ok)
        nsm_error_set(
            ctx, NSM_EINVAL,
            "nsm_fused_new: width %d, %d outputs, %d words, questions of %d, %d features, "
            "%d classes shown, %d relations, dropout %g: one is out of range",
            c->width, c->outputs, c->vocab, c->question_features, c->features, c->shown,
            c->relations, (double)c->dropout);
    else if (!c->graph && !c->vocab && !has_picture(c))
        nsm_error_set(ctx, NSM_EINVAL,
                      "nsm_fused_new: neither a graph nor a text nor a picture is asked for");
    else if (c->head == NSM_FUSED_POINTER && !c->graph)
        nsm_error_set(ctx, NSM_EINVAL, "nsm_fused_new: a pointer wants a graph to point into");
    else if (c->head == NSM_FUSED_TOKENS && (!c->vocab || c->question_features))
        nsm_error_set(ctx, NSM_EINVAL,
                      "nsm_fused_new: a head for tokens wants a text, and no questions");
    return !nsmi_failed(ctx);
}

/* The configuration with its defaults, its words copied. */
static bool settle(nsm_fused *f)
{
    nsm_fused_config *c = &f->config;
    const char **word[] = { &c->fuser, &c->fuser_options, &c->gnn, &c->mixer, &c->mixer_options };
    static const char *const fallback[] = { "nsm", "", "rgcn", "nsm", "" };
    for (size_t i = 0; i < sizeof word / sizeof *word; i++) {
        f->name[i] = nsmi_strdup(f->module.ctx, *word[i] ? *word[i] : fallback[i]);
        *word[i] = f->name[i];
    }
    if (!c->gnn_layers) c->gnn_layers = 2;
    if (!c->text_layers) c->text_layers = 1;
    return !nsmi_failed(f->module.ctx);
}

nsm_fused *nsm_fused_new(nsm_ctx *ctx, const nsm_fused_config *config)
{
    nsm_fused *f = !nsmi_failed(ctx) && config_ok(ctx, config) ? nsmi_calloc(ctx, 1, sizeof *f)
                                                               : NULL;
    if (!f) return NULL;
    nsm_module_init(&f->module, ctx);
    f->config = *config;
    if (settle(f)) make(f);
    if (!nsmi_failed(ctx)) return f;
    nsm_fused_free(f);
    return NULL;
}

void nsm_fused_free(nsm_fused *f)
{
    if (!f) return;
    nsm_module_clear(&f->module);
    nsm_gnn_free(f->gnn);
    nsm_backbone_free(f->text);
    nsm_image_free(f->image);
    nsm_patch_free(f->patch);
    nsm_fuser_free(f->fuser);
    for (size_t i = 0; i < sizeof f->name / sizeof *f->name; i++) free(f->name[i]);
    free(f);
}

nsm_module *nsm_fused_module(nsm_fused *f) { return f ? &f->module : NULL; }
nsm_fuser *nsm_fused_fuser(nsm_fused *f) { return f->fuser; }
const nsm_fused_config *nsm_fused_settings(const nsm_fused *f) { return &f->config; }

/* ---- running ---- */
nsm_tensor *nsm_fused_nodes(nsm_tape *tape, nsm_fused *f, const nsm_graph *graph,
                            nsm_graph *const *block, nsm_tensor *x, nsm_tensor *shown)
{
    nsm_tensor *x0 = NULL;
    if (nsmi_failed(f->module.ctx)) return NULL;
    if (!f->config.graph || (f->feature == NULL) != (x == NULL) || (shown && !f->shown)) {
        nsm_error_set(f->module.ctx, NSM_EINVAL,
                      "nsm_fused_nodes: features or shown classes are given where the model has "
                      "none, or the other way round");
        return NULL;
    }
    if (x) x0 = nsm_linear(tape, x, f->feature, NULL);
    if (shown) {
        nsm_tensor *told = nsm_linear(tape, shown, f->shown, NULL);
        x0 = x ? nsm_add(tape, x0, told) : told;
    }
    if (!x0 || !f->gnn) return x0;
    return block ? nsm_gnn_apply_blocks(tape, f->gnn, block, x0, NULL)
                 : nsm_gnn_apply(tape, f->gnn, graph, x0, NULL);
}

static nsm_tensor *thinned(nsm_tape *tape, const nsm_fused *f, nsm_tensor *x)
{
    return f->config.dropout > 0 ? nsm_dropout(tape, x, f->config.dropout) : x;
}

/* near: [B, m, d] the thing's own node and its neighbours, or NULL without a graph */
static nsm_set_input graph_elements(nsm_tape *tape, const nsm_fused *f, const nsm_fused_input *in,
                                    nsm_tensor *near)
{
    nsm_tensor *h = nsm_add(tape, near, nsm_embedding(tape, f->relation, in->relation, -1));
    return (nsm_set_input){ thinned(tape, f, h), in->elements };
}

static nsm_set_input text_elements(nsm_tape *tape, const nsm_fused *f, const nsm_fused_input *in)
{
    nsm_tensor *x = nsm_embedding(tape, f->word, in->word, -1);
    if (f->text) x = nsm_backbone_layers(tape, f->text, x, in->words, NULL);
    return (nsm_set_input){ thinned(tape, f, x), in->words };
}

static nsm_set_input picture_elements(nsm_tape *tape, const nsm_fused *f, const nsm_fused_input *in)
{
    nsm_tensor *x = f->image ? nsm_image_apply(tape, f->image, in->picture)
                             : nsm_patch_apply(tape, f->patch, in->picture);
    return (nsm_set_input){ thinned(tape, f, x), in->pictures };
}

static int64_t things_of(const nsm_fused_input *in)
{
    const nsm_tensor *x = in->element ? in->element : in->words ? in->words : in->picture;
    return x->dim[0];
}

/* What is asked: the questions, the words, or one reader for each thing; each knows the thing's own
 * node. */
static nsm_tensor *readers(nsm_tape *tape, const nsm_fused *f, const nsm_fused_input *in,
                           nsm_tensor *near, nsm_tensor *words)
{
    bool has_own = near && !f->config.sets;
    nsm_tensor *own = has_own ? nsm_slice(tape, near, 1, 0, 1) : NULL, *q; /* [B, 1, d] */
    if (f->question) q = nsm_linear(tape, in->question, f->question, f->question_bias);
    else if (f->config.head == NSM_FUSED_TOKENS) q = nsm_add(tape, words, f->reader);
    else q = nsmi_for_each(tape, f->reader, things_of(in));
    return has_own ? nsm_add(tape, q, own) : q;
}

/* Every modality whole or not at all, at least one, none that the model has not; questions if it
 * wants them. */
static bool input_ok(const nsm_fused *f, const nsm_fused_input *in)
{
    const nsm_fused_config *c = &f->config;
    bool graph = in->nodes && in->element && in->relation && in->elements,
         some_graph = in->nodes || in->element || in->relation || in->elements,
         text = in->word && in->words, some_text = in->word || in->words,
         picture = in->picture != NULL, asked = in->question != NULL,
         wanted = c->question_features > 0;
    const struct { const char *what; bool wrong; } fault[] = {
        { "the model has no graph, but one is given", some_graph && !c->graph },
        { "the model has no text, but one is given", some_text && !c->vocab },
        { "the model has no picture, but one is given", picture && !has_picture(c) },
        { "nodes, element, relation or elements of the graph are missing", some_graph && !graph },
        { "word or words of the text are missing", some_text && !text },
        { "graph, text and picture are all missing", !graph && !text && !picture },
        { "the model wants questions", wanted && !asked },
        { "the model wants no questions", asked && !wanted },
        { "a pointer wants a graph to point into", c->head == NSM_FUSED_POINTER && !graph },
        { "a head for tokens wants the words", c->head == NSM_FUSED_TOKENS && !text },
    };
    for (size_t i = 0; i < sizeof fault / sizeof *fault; i++) {
        if (!fault[i].wrong) continue;
        nsm_error_set(f->module.ctx, NSM_EINVAL, "nsm_fused_read: %s", fault[i].what);
        return false;
    }
    return true;
}

/* part: room for what the fuser gets of each modality. */
static nsm_tensor *read_parts(nsm_tape *tape, nsm_fused *f, const nsm_fused_input *in,
                              nsm_set_input *part)
{
    nsm_tensor *near = in->element ? nsm_gather(tape, in->nodes, in->element) : NULL, *words = NULL;
    if (near) part[f->place[GRAPH]] = graph_elements(tape, f, in, near);
    if (in->word) part[f->place[TEXT]] = text_elements(tape, f, in);
    if (in->word) words = part[f->place[TEXT]].x;
    if (in->picture) part[f->place[PICTURE]] = picture_elements(tape, f, in);
    nsm_tensor *y = nsm_fuser_apply(tape, f->fuser, part, readers(tape, f, in, near, words));
    nsm_tensor *x = nsmi_normed(tape, f->norm, y, 1e-5f);
    x = thinned(tape, f, nsm_gelu(tape, nsm_linear(tape, x, f->up, f->up_bias)));
    y = nsm_add(tape, y, nsm_linear(tape, x, f->down, f->down_bias));
    return nsmi_normed(tape, f->last, y, 1e-5f);
}

nsm_tensor *nsm_fused_read(nsm_tape *tape, nsm_fused *f, const nsm_fused_input *in)
{
    nsm_set_input part[NSM_FUSER_MODALITIES] = { 0 };
    if (!f || nsmi_failed(f->module.ctx) || !input_ok(f, in)) return NULL;
    return read_parts(tape, f, in, part);
}

/* y [B, readers, d] by the elements [B, m, d] that are there -> [B, readers, m] */
static nsm_tensor *pointed(nsm_tape *tape, const nsm_fused *f, nsm_tensor *y,
                           const nsm_set_input *at)
{
    float scale = 1 / sqrtf((float)f->config.width);
    nsm_tensor *key = nsm_linear(tape, at->x, f->key, NULL);
    y = nsm_scale(tape, nsm_bmm(tape, y, key, false, true), scale, 0);
    if (!y) return NULL;
    int64_t dim[3] = { y->dim[0], 1, y->dim[2] };
    nsm_tensor *shut = nsmi_shut(tape, at, 1, dim[0], dim[2]);
    if (shut) y = nsm_add(tape, y, nsm_reshape(tape, shut, 3, dim));
    return nsmi_failed(f->module.ctx) ? NULL : y;
}

nsm_tensor *nsm_fused_apply(nsm_tape *tape, nsm_fused *f, const nsm_fused_input *in)
{
    nsm_set_input part[NSM_FUSER_MODALITIES] = { 0 };
    if (f && !nsmi_failed(f->module.ctx) && !f->head)
        nsm_error_set(f->module.ctx, NSM_EINVAL, "nsm_fused_apply: the model has no outputs");
    if (!f || nsmi_failed(f->module.ctx) || !input_ok(f, in)) return NULL;
    nsm_tensor *z = thinned(tape, f, read_parts(tape, f, in, part)),
               *y = nsm_linear(tape, z, f->head, f->head_bias);
    return f->config.head == NSM_FUSED_POINTER ? pointed(tape, f, y, &part[f->place[GRAPH]]) : y;
}
