/* fused.c - See fused.h. */
#include "config.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/internal.h"
#include "fusion/fused.h"
#include "tools/fused.h"
#include "tools/fused_data.h"
#include "tools/progress.h"
#include "tools/report.h"
#include "tools/tool.h"

struct fused_task {
    task base;
    nsm_ctx *ctx;
    const train_options *options;
    const nsm_dataset *ds;
    const nsm_dataset_split *split;
    fused_data data;
    bool graph, text, questions, whole;
    nsm_module module;       /* the model, and what it last told */
    nsm_fused *model;
    nsm_graph *all;          /* the whole graph; NULL where neighbours are sampled */
    nsm_tensor *x;           /* features: of the whole graph, or of a batch's nodes */
    nsm_csr *x_rows;
    nsm_tape *tape, *node_tape; /* node_tape: what every batch of an evaluation reads */
    nsm_sampler *sampler;    /* of the training nodes, from the first epoch on */
    int fan_out[SETTING_LIST_MOST];
    int layers;              /* of a sampled batch: blocks */
    nsm_tensor *told;        /* [targets, C] what was last told of each, zeros: nothing; or NULL */
    float *guess;            /* host copy of it */
    uint8_t *known;          /* [targets] 1: of the training part */
    int32_t *look[NSM_SPLIT_PARTS]; /* the nodes of each part, as numbers of all */
    struct { double right; int64_t asked; } *by_group; /* of the test part */
};

/* One batch on a tape. */
typedef struct {
    const nsm_batch *from;
    int64_t things, readers;
    nsm_fused_input in;
    nsm_tensor *target;      /* int32 [things * readers], -1 where nothing is asked */
    int32_t *answer, *group; /* the same on the host; group: of each, NULL without */
} fused_batch;

/* ---- room on the tape for host arrays: given back with the step ---- */
static void *room(nsm_tape *tape, int64_t rows, int64_t cols, size_t bytes)
{
    int64_t all;
    if (!nsmi_mul(rows, cols, &all) || !nsmi_mul(all, (int64_t)bytes, &all)) return NULL;
    return nsmi_tape_room(tape, (size_t)all + 1);
}

static nsm_tensor *upload(nsm_tape *tape, nsm_type type, int64_t rows, int64_t cols, const void *x)
{
    return x ? nsm_tape_tensor(tape, type, cols ? 2 : 1, (int64_t[]){ rows, cols }, x) : NULL;
}

/* ---- what is shown of classes ---- */
static int64_t target_of(const fused_task *s, int64_t node)
{
    int64_t i = node - s->data.first;
    return i >= 0 && i < s->data.targets ? i : -1;
}

/* The row of a node that may be asked for (hidden) or not. */
static void show(const fused_task *s, int64_t i, bool hidden, float *row)
{
    int64_t c = s->base.outputs;
    memset(row, 0, (size_t)c * sizeof *row);
    if (s->known[i] && !hidden) row[s->ds->label.cls[i]] = 1;
    else if (s->guess) memcpy(row, s->guess + i * c, (size_t)c * sizeof *row);
}

/* The classes shown at these nodes (NULL: all), the seeds' own hidden: [count, C]. */
static nsm_tensor *shown(fused_task *s, nsm_tape *tape, int64_t count, const int32_t *node,
                         const nsm_batch *hide)
{
    int64_t c = s->base.outputs;
    float *row = s->options->show_labels ? room(tape, count, c, sizeof *row) : NULL;
    if (!row) return NULL;
    memset(row, 0, (size_t)(count * c) * sizeof *row);
    for (int64_t k = 0; k < count; k++) {
        int64_t i = target_of(s, node ? node[k] : k);
        if (i >= 0) show(s, i, node && hide && k < hide->seeds, row + k * c);
    }
    for (int64_t k = 0; !node && hide && k < hide->seeds; k++)
        show(s, target_of(s, hide->node[k]), true, row + hide->node[k] * c);
    return upload(tape, NSM_F32, count, c, row);
}

/* ---- a batch ---- */
/* Every node's embedding, of the whole graph. */
static nsm_tensor *whole_nodes(fused_task *s, nsm_tape *tape, const nsm_batch *hide)
{
    return nsm_fused_nodes(tape, s->model, s->all, NULL, s->x,
                           shown(s, tape, s->data.nodes, NULL, hide));
}

/* The features of a batch live as long as its step. */
static void end_step(fused_task *s)
{
    nsm_tape_reset(s->tape);
    if (s->whole) return;
    nsm_tensor_free(s->x);
    nsm_csr_free(s->x_rows);
    s->x = NULL;
    s->x_rows = NULL;
}

/* The embeddings of the last block's sources. */
static nsm_tensor *sampled_nodes(fused_task *s, const nsm_batch *b)
{
    if (s->data.features)
        s->x = fused_data_rows(s->ctx, &s->data, b->nodes, b->node, &s->x_rows);
    return nsm_fused_nodes(s->tape, s->model, NULL, b->block, s->x,
                           shown(s, s->tape, b->nodes, b->node, b));
}

/* The thing's own node, then what enters it. */
static void take_elements(fused_task *s, fused_batch *f)
{
    const nsm_batch *b = f->from;
    const nsm_graph *g = b->block[s->layers - 1];
    int64_t n = f->things, most = 1;
    int32_t *src = room(s->tape, g->edges, 1, sizeof *src),
            *dst = room(s->tape, g->edges, 1, sizeof *dst),
            *type = room(s->tape, g->edges, 1, sizeof *type),
            *count = room(s->tape, n, 1, sizeof *count);
    if (!src || !dst || !type || !count || nsm_graph_edges(g, src, dst)) return;
    if (g->edges && nsm_tensor_get(g->type, type)) return;
    for (int64_t i = 0; i < n; i++) count[i] = 1;
    for (int64_t k = 0; k < g->edges; k++)
        if (++count[dst[k]] > most) most = count[dst[k]];
    int32_t *element = room(s->tape, n, most, sizeof *element),
            *relation = room(s->tape, n, most, sizeof *relation);
    if (!element || !relation) return;
    memset(element, 0, (size_t)(n * most) * sizeof *element);
    memset(relation, 0, (size_t)(n * most) * sizeof *relation);
    for (int64_t i = 0; i < n; i++) {
        element[i * most] = s->whole ? b->node[i] : (int32_t)i;
        relation[i * most] = s->data.relations;
        count[i] = 1;
    }
    for (int64_t k = 0; k < g->edges; k++) {
        int64_t to = dst[k] * most + count[dst[k]]++;
        element[to] = s->whole ? b->node[src[k]] : src[k];
        relation[to] = type[k];
    }
    f->in.element = upload(s->tape, NSM_I32, n, most, element);
    f->in.relation = upload(s->tape, NSM_I32, n, most, relation);
    f->in.elements = upload(s->tape, NSM_I32, n, 0, count);
}

static void take_words(fused_task *s, fused_batch *f)
{
    const nsm_dataset_text *t = &s->ds->node[s->ds->target].text;
    int64_t n = f->things, most = 1, limit = s->options->words;
    int32_t *count = room(s->tape, n, 1, sizeof *count);
    for (int64_t i = 0; count && i < n; i++) {
        int64_t v = target_of(s, f->from->node[i]), have = t->ptr[v + 1] - t->ptr[v];
        count[i] = (int32_t)(have < limit ? have : limit);
        if (count[i] > most) most = count[i];
    }
    int32_t *word = count ? room(s->tape, n, most, sizeof *word) : NULL;
    if (!word) return;
    memset(word, 0, (size_t)(n * most) * sizeof *word);
    for (int64_t i = 0; i < n; i++)
        if (count[i])
            memcpy(word + i * most, t->id + t->ptr[target_of(s, f->from->node[i])],
                   (size_t)count[i] * sizeof *word);
    f->in.word = upload(s->tape, NSM_I32, n, most, word);
    f->in.words = upload(s->tape, NSM_I32, n, 0, count);
}

static void take_questions(fused_task *s, fused_batch *f)
{
    const nsm_dataset_questions *q = &s->ds->question;
    int64_t n = f->things, most = 1;
    for (int64_t i = 0; i < n; i++) {
        int64_t v = target_of(s, f->from->node[i]), have = s->data.asked[v + 1] - s->data.asked[v];
        if (have > most) most = have;
    }
    f->readers = most;
    float *value = room(s->tape, n * most, q->features, sizeof *value);
    f->answer = room(s->tape, n, most, sizeof *f->answer);
    f->group = q->groups ? room(s->tape, n, most, sizeof *f->group) : NULL;
    if (!value || !f->answer || (q->groups && !f->group)) return;
    memset(value, 0, (size_t)(n * most * q->features) * sizeof *value);
    for (int64_t i = 0; i < n; i++) {
        int64_t v = target_of(s, f->from->node[i]), at = s->data.asked[v],
                have = s->data.asked[v + 1] - at;
        if (have)
            memcpy(value + i * most * q->features, q->value + at * q->features,
                   (size_t)(have * q->features) * sizeof *value);
        for (int64_t k = 0; k < most; k++) {
            f->answer[i * most + k] = k < have ? q->answer[at + k] : -1;
            if (f->group) f->group[i * most + k] = k < have ? q->group[at + k] : 0;
        }
    }
    f->in.question = nsm_tape_tensor(s->tape, NSM_F32, 3, (int64_t[]){ n, most, q->features },
                                     value);
}

static void take_classes(fused_task *s, fused_batch *f)
{
    const nsm_dataset_labels *l = &s->ds->label;
    f->readers = 1;
    f->answer = room(s->tape, f->things, 1, sizeof *f->answer);
    for (int64_t i = 0; f->answer && i < f->things; i++)
        f->answer[i] = l->cls ? l->cls[target_of(s, f->from->node[i])] : -1;
}

/* Logits [things * readers, C] of a batch; h: the whole graph's nodes, or NULL: they are sampled,
 * the seeds' own classes hidden. */
static nsm_tensor *logits_of(fused_task *s, const nsm_batch *b, nsm_tensor *h, fused_batch *f)
{
    *f = (fused_batch){ .from = b, .things = b->seeds };
    if (s->graph) {
        f->in.nodes = h ? h : sampled_nodes(s, b);
        take_elements(s, f);
    }
    if (s->text) take_words(s, f);
    if (s->questions) take_questions(s, f);
    else take_classes(s, f);
    f->target = upload(s->tape, NSM_I32, f->things * f->readers, 0, f->answer);
    if (nsm_error(s->ctx) || !f->target) return NULL;
    nsm_tensor *y = nsm_fused_apply(s->tape, s->model, &f->in);
    return y ? nsm_reshape(s->tape, y, 2, (int64_t[]){ -1, s->base.outputs }) : NULL;
}

static nsm_tensor *loss_of(fused_task *s, const fused_batch *f, nsm_tensor *y, float smoothing)
{
    return y ? nsm_cross_entropy(s->tape, y, f->target,
                                 &(nsm_cross_entropy_config){ .label_smoothing = smoothing })
             : NULL;
}

/* Take down what was told of a batch's things. */
static int remember(fused_task *s, const fused_batch *f, nsm_tensor *y)
{
    int64_t c = s->base.outputs;
    if (!s->guess) return NSM_OK;
    nsm_tensor *p = nsm_softmax(s->tape, y, -1);
    float *row = room(s->tape, f->things, c, sizeof *row);
    if (!p || !row || nsm_tensor_get(p, row)) return nsm_error(s->ctx);
    for (int64_t i = 0; i < f->things; i++)
        memcpy(s->guess + target_of(s, f->from->node[i]) * c, row + i * c,
               (size_t)c * sizeof *row);
    return NSM_OK;
}

/* ---- training ---- */
static nsm_sampler *sampler_of(fused_task *s, int64_t count, const int32_t *target, bool in_order,
                               uint64_t seed)
{
    const fused_data *d = &s->data;
    return nsm_sampler_new(s->ctx, &(nsm_sampler_config){ .nodes = d->nodes,
                                                          .ptr = d->ptr,
                                                          .idx = d->idx,
                                                          .types = d->relations,
                                                          .type = d->type,
                                                          .layers = s->layers,
                                                          .fan_out = s->fan_out,
                                                          .seeds = count,
                                                          .seed_node = target,
                                                          .batch = (int)s->options->batch_size,
                                                          .in_order = in_order,
                                                          .seed = seed });
}

static int train_batch(fused_task *s, const nsm_batch *b, double *loss)
{
    fused_batch f;
    nsm_tensor *h = s->graph && s->whole ? whole_nodes(s, s->tape, b) : NULL;
    nsm_tensor *y = logits_of(s, b, h, &f);
    nsm_tensor *l = loss_of(s, &f, y, (float)s->options->label_smoothing);
    if (l) remember(s, &f, y);
    if (!nsm_tape_backward(s->tape, l)) *loss = (double)nsm_tensor_item(l) * (double)b->seeds;
    end_step(s);
    if (s->guess) nsm_tensor_set(s->told, s->guess);
    return nsm_error(s->ctx);
}

static int epoch(task *base, int64_t number, epoch_place *at, int (*step)(void *user), void *user)
{
    fused_task *s = (fused_task *)base;
    const nsm_batch *b;
    double loss = 0;
    int code = NSM_OK;
    if (!s->sampler)
        s->sampler = sampler_of(s, s->split->count[NSM_TRAIN], s->look[NSM_TRAIN], false,
                                nsm_random_get(s->ctx).seed);
    if (!s->sampler || nsm_sampler_start(s->sampler, number, at->steps)) return nsm_error(s->ctx);
    if (s->guess) nsm_tensor_get(s->told, s->guess);
    while (!code && (b = nsm_sampler_next(s->sampler))) {
        code = train_batch(s, b, &loss);
        at->steps++;
        at->rows += b->seeds;
        at->loss += loss;
        if (!code) code = step(user);
    }
    return nsm_error(s->ctx) ? nsm_error(s->ctx) : code;
}

/* ---- looking ---- */
typedef struct {
    double loss, right;
    int64_t asked;
    float *told;             /* [count, C] probabilities of the nodes in their order, or NULL */
    bool groups, keep;       /* note the scores of groups; what is told is shown from now on */
} look;

static int count_right(fused_task *s, const fused_batch *f, nsm_tensor *y, look *l)
{
    int64_t n = f->things * f->readers;
    int32_t *best = room(s->tape, n, 1, sizeof *best);
    nsm_tensor *first = nsm_tape_tensor(s->tape, NSM_I32, 1, &n, NULL);
    if (!best || !first) return nsm_error(s->ctx);
    s->ctx->dev.be->argmax(&s->ctx->dev, n, s->base.outputs, y->f32, first->i32);
    if (nsm_tensor_get(first, best)) return nsm_error(s->ctx);
    int64_t asked = 0;
    for (int64_t i = 0; i < n; i++) {
        bool is = f->answer[i] >= 0, right = is && best[i] == f->answer[i];
        asked += is;
        l->right += right;
        if (!l->groups || !f->group) continue;
        s->by_group[f->group[i]].asked += is;
        s->by_group[f->group[i]].right += right;
    }
    l->asked += asked;
    nsm_tensor *loss = asked ? loss_of(s, f, y, 0) : NULL;
    if (loss) l->loss += (double)nsm_tensor_item(loss) * (double)asked;
    return nsm_error(s->ctx);
}

static int look_batch(fused_task *s, const nsm_batch *b, nsm_tensor *h, look *l, int64_t at)
{
    fused_batch f;
    nsm_tensor *y = logits_of(s, b, h, &f);
    int code = y ? count_right(s, &f, y, l) : nsm_error(s->ctx);
    if (!code && l->keep) code = remember(s, &f, y);
    nsm_tensor *p = !code && l->told ? nsm_softmax(s->tape, y, -1) : NULL;
    if (p) nsm_tensor_get(p, l->told + at * f.readers * s->base.outputs);
    end_step(s);
    return nsm_error(s->ctx);
}

/* Always the same draws: a model that does not change is not judged anew. */
static int look_at(fused_task *s, int64_t count, const int32_t *node, nsm_tensor *h, look *l)
{
    nsm_sampler *batches = sampler_of(s, count, node, true, 0);
    const nsm_batch *b;
    int64_t at = 0;
    int code = batches ? nsm_sampler_start(batches, 0, 0) : nsm_error(s->ctx);
    nsm_tape_inference(s->tape, true);
    while (!code && !stop_signal() && (b = nsm_sampler_next(batches))) {
        code = look_batch(s, b, h, l, at);
        at += b->seeds;
    }
    nsm_sampler_free(batches);
    nsm_tape_inference(s->tape, false);
    return nsm_error(s->ctx) ? nsm_error(s->ctx) : stop_signal() ? TASK_PAUSED : NSM_OK;
}

/* The whole graph's nodes once for all batches; NULL: they are sampled, or an error. */
static nsm_tensor *nodes_for_looking(fused_task *s)
{
    if (!s->graph || !s->whole) return NULL;
    nsm_tape_inference(s->node_tape, true);
    return whole_nodes(s, s->node_tape, NULL);
}

/* The training part is left out where its classes are shown: it would be asked for what it sees. */
static int evaluate(task *base, part_score part[3])
{
    fused_task *s = (fused_task *)base;
    int code = NSM_OK;
    if (s->guess) nsm_tensor_get(s->told, s->guess);
    nsm_tensor *h = nodes_for_looking(s);
    if (s->by_group) memset(s->by_group, 0, (size_t)s->ds->question.groups * sizeof *s->by_group);
    for (int p = 0; p < NSM_SPLIT_PARTS; p++) part[p] = (part_score){ NAN, NAN };
    for (int p = s->options->show_labels ? NSM_VALID : NSM_TRAIN; !code && p <= NSM_TEST; p++) {
        look l = { .groups = p == NSM_TEST && s->by_group, .keep = s->guess && p != NSM_TRAIN };
        if (!s->split->count[p]) continue;
        code = look_at(s, s->split->count[p], s->look[p], h, &l);
        part[p].score = l.asked ? l.right / (double)l.asked : NAN;
        if (p != NSM_TEST && l.asked) part[p].loss = l.loss / (double)l.asked;
    }
    nsm_tape_reset(s->node_tape);
    if (s->guess && !code) nsm_tensor_set(s->told, s->guess);
    return nsm_error(s->ctx) ? nsm_error(s->ctx) : code;
}

int fused_task_predict(fused_task *s, float *out)
{
    int32_t *every = nsmi_malloc(s->ctx, (size_t)s->data.targets * sizeof *every);
    look l = { .told = out };
    if (s->questions)
        nsm_error_set(s->ctx, NSM_EINVAL, "the model answers questions: nsm eval tells how well");
    for (int64_t i = 0; every && i < s->data.targets; i++) every[i] = (int32_t)(s->data.first + i);
    if (s->guess) nsm_tensor_get(s->told, s->guess);
    int code = every && !nsm_error(s->ctx)
                   ? look_at(s, s->data.targets, every, nodes_for_looking(s), &l)
                   : nsm_error(s->ctx);
    nsm_tape_reset(s->node_tape);
    free(every);
    return code;
}

void fused_task_details(const fused_task *s, json_t *o)
{
    const nsm_dataset_questions *q = &s->ds->question;
    if (!s->by_group) return;
    json_t *list = json_array();
    for (int64_t g = 0; g < q->groups; g++) {
        char name[64];
        snprintf(name, sizeof name, q->group_names ? "%.60s" : "%.0s%lld",
                 q->group_names ? q->group_names[g] : "", (long long)g);
        json_array_append_new(list,
                              json_pack("{s:s, s:o}", "group", name, s->base.metric,
                                        report_real(s->by_group[g].right /
                                                    (double)s->by_group[g].asked)));
    }
    json_object_set_new(o, "groups", list);
}

/* ---- making ---- */
static int make_model(fused_task *s)
{
    const train_options *o = s->options;
    const nsm_dataset_nodes *v = &s->ds->node[s->ds->target];
    s->model = nsm_fused_new(
        s->ctx, &(nsm_fused_config){
                    .width = (int)o->width,
                    .outputs = (int)s->base.outputs,
                    .fuser = o->fuser,
                    .fuser_options = o->fuser_options,
                    .dropout = (float)o->dropout,
                    .graph = s->graph,
                    .features = (int)s->data.features,
                    .shown = o->show_labels ? (int)s->base.outputs : 0,
                    .relations = s->data.relations,
                    .gnn = o->encoder,
                    .gnn_layers = (int)o->layers,
                    .bases = (int)o->bases,
                    .vocab = s->text ? (int)v->text.vocab : 0,
                    .mixer = o->text_mixer,
                    .mixer_options = o->text_options,
                    .question_features = s->questions ? (int)s->ds->question.features : 0,
                });
    nsm_module_init(&s->module, s->ctx);
    nsm_module_child(&s->module, "model", nsm_fused_module(s->model));
    if (o->show_labels && o->reuse) {
        s->told = nsm_module_buffer(&s->module, "told", 2,
                                    (int64_t[]){ s->data.targets, s->base.outputs });
        s->guess = nsmi_calloc(s->ctx, (size_t)(s->data.targets * s->base.outputs),
                               sizeof *s->guess);
    }
    s->tape = nsm_tape_new(s->ctx);
    s->node_tape = nsm_tape_new(s->ctx);
    return nsm_error(s->ctx);
}

static int make_whole(fused_task *s)
{
    const fused_data *d = &s->data;
    int64_t edges = d->ptr[d->nodes];
    int32_t *dst = nsmi_malloc(s->ctx, (size_t)edges * sizeof *dst);
    for (int64_t i = 0; dst && i < d->nodes; i++)
        for (int64_t k = d->ptr[i]; k < d->ptr[i + 1]; k++) dst[k] = (int32_t)i;
    if (dst) s->all = nsm_graph_new(s->ctx, d->nodes, edges, d->idx, dst);
    if (s->all) nsm_graph_set_types(s->all, d->relations, d->type);
    free(dst);
    if (d->features) s->x = fused_data_rows(s->ctx, d, d->nodes, NULL, &s->x_rows);
    return nsm_error(s->ctx);
}

/* The parts' nodes as numbers of all nodes, and which are known. */
static int make_parts(fused_task *s)
{
    s->known = nsmi_calloc(s->ctx, (size_t)s->data.targets, 1);
    for (int p = 0; s->known && p < NSM_SPLIT_PARTS; p++) {
        int64_t count = s->split->count[p];
        s->look[p] = nsmi_malloc(s->ctx, (size_t)count * sizeof *s->look[p]);
        for (int64_t k = 0; s->look[p] && k < count; k++) {
            s->look[p][k] = (int32_t)(s->data.first + s->split->index[p][k]);
            if (p == NSM_TRAIN) s->known[s->split->index[p][k]] = 1;
        }
    }
    return nsm_error(s->ctx);
}

/* The fan-outs: what is an element of a thing, then for the encoder's layers. */
static int make_fan_out(fused_task *s)
{
    const setting_list *f = &s->options->fanouts;
    s->layers = s->graph && !s->whole ? (int)s->options->layers + 1 : 1;
    if (f->count < s->layers)
        return nsm_error_set(s->ctx, NSM_EINVAL,
                             "fanouts has %d numbers, want %d: of a thing's own elements%s",
                             f->count, s->layers,
                             s->layers > 1 ? ", then one for each layer" : "");
    for (int k = 0; k < s->layers; k++) {
        if (!(f->value[k] >= -1 && f->value[k] <= 1e6))
            return nsm_error_set(s->ctx, NSM_EINVAL, "fanouts: %g is no number of neighbours",
                                 f->value[k]);
        s->fan_out[k] = s->graph ? (int)f->value[k] : 0;
    }
    return NSM_OK;
}

static bool listed(const char *list, const char *word)
{
    size_t n = strlen(word);
    for (const char *s = list; (s = strstr(s, word)); s += n)
        if ((s == list || s[-1] == ',') && (!s[n] || s[n] == ',')) return true;
    return false;
}

/* What the model is to see, and whether the data has it. */
static int choose(fused_task *s)
{
    const train_options *o = s->options;
    const nsm_dataset *ds = s->ds;
    const nsm_dataset_labels *l = &ds->label;
    bool has_text = ds->node[ds->target].text.vocab > 0, all = !*o->modalities;
    s->questions = ds->question.count > 0;
    s->graph = listed(o->modalities, "graph") || (all && ds->edge_types > 0);
    s->text = listed(o->modalities, "text") || (all && has_text);
    s->whole = o->whole;
    if (s->graph && !ds->edge_types)
        return nsm_error_set(s->ctx, NSM_EINVAL, "modalities=%s: %s has no edges", o->modalities,
                             ds->name);
    if (s->text && !has_text)
        return nsm_error_set(s->ctx, NSM_EINVAL, "modalities=%s: the nodes of %s have no text",
                             o->modalities, ds->name);
    if (!s->graph && !s->text)
        return nsm_error_set(s->ctx, NSM_EINVAL,
                             "modalities=%s names none of graph, text that %s has", o->modalities,
                             ds->name);
    if (!s->questions && (l->kind != NSM_LABEL_CLASS || l->of_graphs))
        return nsm_error_set(s->ctx, NSM_EINVAL,
                             "%s has neither questions nor classes of nodes to learn", ds->name);
    if (s->questions && o->show_labels)
        return nsm_error_set(s->ctx, NSM_EINVAL, "show_labels: %s asks questions, not classes",
                             ds->name);
    return NSM_OK;
}

static int set_up(fused_task *s, const trainer_meta *trained)
{
    const nsm_dataset *ds = s->ds;
    if (choose(s)) return nsm_error(s->ctx);
    s->split = nsm_dataset_split_find(ds, *s->options->split ? s->options->split : NULL);
    if (!s->split || fused_data_make(ds, s->options, &s->data)) return nsm_error(s->ctx);
    int64_t outputs = s->questions ? ds->question.classes : ds->label.columns,
            batch = s->options->batch_size, train = s->split->count[NSM_TRAIN];
    if (batch < 1) return nsm_error_set(s->ctx, NSM_EINVAL, "a fused model wants a batch_size");
    if (trained && (trained->inputs != s->data.features || trained->outputs != outputs))
        return nsm_error_set(s->ctx, NSM_ESHAPE,
                             "the model has %lld features and %lld answers, %s has %lld and %lld",
                             (long long)trained->inputs, (long long)trained->outputs, ds->name,
                             (long long)s->data.features, (long long)outputs);
    if (!trained && !train)
        return nsm_error_set(s->ctx, NSM_EINVAL, "split %s of %s has no training nodes",
                             s->split->name, ds->name);
    s->base = (task){ .ctx = s->ctx, .metric = "accuracy", .inputs = s->data.features,
                      .outputs = outputs, .labels = NSM_LABEL_CLASS, .epoch = epoch,
                      .evaluate = evaluate, .steps_per_epoch = (train + batch - 1) / batch };
    if (make_fan_out(s) || make_parts(s) || make_model(s) ||
        (s->graph && s->whole && make_whole(s)))
        return nsm_error(s->ctx);
    s->base.module = &s->module;
    if (ds->question.groups)
        s->by_group = nsmi_calloc(s->ctx, (size_t)ds->question.groups, sizeof *s->by_group);
    return nsm_error(s->ctx);
}

fused_task *fused_task_new(nsm_ctx *ctx, const train_options *options, const nsm_dataset *ds,
                           const trainer_meta *trained)
{
    fused_task *s = nsm_error(ctx) ? NULL : nsmi_calloc(ctx, 1, sizeof *s);
    if (!s) return NULL;
    s->ctx = ctx;
    s->options = options;
    s->ds = ds;
    if (!set_up(s, trained)) return s;
    fused_task_free(s);
    return NULL;
}

void fused_task_free(fused_task *s)
{
    if (!s) return;
    nsm_sampler_free(s->sampler);
    nsm_tape_free(s->tape);
    nsm_tape_free(s->node_tape);
    nsm_module_clear(&s->module);
    nsm_fused_free(s->model);
    nsm_graph_free(s->all);
    nsm_tensor_free(s->x);
    nsm_csr_free(s->x_rows);
    for (int p = 0; p < NSM_SPLIT_PARTS; p++) free(s->look[p]);
    fused_data_clear(&s->data);
    free(s->guess);
    free(s->known);
    free(s->by_group);
    free(s);
}

task *fused_task_base(fused_task *s) { return &s->base; }
const nsm_dataset_split *fused_task_split(const fused_task *s) { return s->split; }
