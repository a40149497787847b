/* fused.c - See fused.h; fused_parts.h tells which file does what. */
#include "config.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "tools/fused_look.h"
#include "tools/progress.h"
#include "tools/tool.h"

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
    float *row = fused_room(s->tape, f->things, c, sizeof *row);
    if (!p || !row || nsm_tensor_get(p, row)) return nsm_error(s->ctx);
    for (int64_t i = 0; i < f->things; i++)
        memcpy(s->guess + fused_target(s, f->from->node[i]) * c, row + i * c,
               (size_t)c * sizeof *row);
    return NSM_OK;
}

/* ---- training ---- */
nsm_sampler *fused_sampler(fused_task *s, int64_t count, const int32_t *target, bool in_order,
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
                                                          .light = true,
                                                          .seed = seed });
}

static nsm_tensor *answers_loss(fused_task *s, const nsm_batch *b, nsm_tensor *h)
{
    fused_batch f = { 0 };
    nsm_tensor *y = fused_logits(s, b, h, &f);
    nsm_tensor *l = loss_of(s, &f, y, (float)s->options->label_smoothing);
    if (l) remember(s, &f, y);
    return l;
}

static int train_batch(fused_task *s, const nsm_batch *b, double *loss)
{
    nsm_tensor *h = s->graph && s->whole ? fused_whole_nodes(s, s->tape, b) : NULL;
    nsm_tensor *l = s->retrieval ? fused_sides_loss(s, b, h) : answers_loss(s, b, h);
    if (!nsm_tape_backward(s->tape, l)) *loss = (double)nsm_tensor_item(l) * (double)b->seeds;
    fused_end_step(s);
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
        s->sampler = fused_sampler(s, s->looks[NSM_TRAIN], s->look[NSM_TRAIN], false,
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
    fused_marks marks;
    float *told;        /* [count, C] probabilities of the nodes in their order, or NULL */
    bool groups, keep;  /* note the scores of groups; what is told is shown from now on */
    fused_usage *usage; /* of the first things, or NULL */
} look;

enum { WATCHED = 16384 }; /* things whose states are noted in an evaluation, about */

static int count_right(fused_task *s, const fused_batch *f, nsm_tensor *y, look *l)
{
    int64_t n = f->things * f->readers;
    int32_t *best = fused_room(s->tape, n, 1, sizeof *best);
    nsm_tensor *first = nsm_tape_tensor(s->tape, NSM_I32, 1, &n, NULL);
    if (!best || !first) return nsm_error(s->ctx);
    s->ctx->dev.be->argmax(&s->ctx->dev, n, f->choices, y->f32, first->i32);
    if (nsm_tensor_get(first, best)) return nsm_error(s->ctx);
    int64_t asked = 0;
    for (int64_t i = 0; i < n; i++) {
        bool is = f->answer[i] >= 0, right = is && best[i] == f->answer[i];
        asked += is;
        l->right += right;
        fused_mark(&l->marks, f->answer[i], best[i]);
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
    fused_batch f = { 0 };
    bool watched = l->usage && l->usage->things < WATCHED;
    if (watched) nsm_fuser_watch(nsm_fused_fuser(s->model), true);
    nsm_tensor *y = fused_logits(s, b, h, &f);
    int code = y ? count_right(s, &f, y, l) : nsm_error(s->ctx);
    if (watched && !code) code = fused_usage_add(s, &f, l->usage);
    if (watched) nsm_fuser_watch(nsm_fused_fuser(s->model), false);
    if (!code && l->keep) code = remember(s, &f, y);
    nsm_tensor *p = !code && l->told ? nsm_softmax(s->tape, y, -1) : NULL;
    if (p) nsm_tensor_get(p, l->told + at * f.readers * f.choices);
    fused_end_step(s);
    return nsm_error(s->ctx);
}

/* Always the same draws: a model that does not change is not judged anew. */
static int look_at(fused_task *s, int64_t count, const int32_t *node, nsm_tensor *h, look *l)
{
    nsm_sampler *batches = fused_sampler(s, count, node, true, 0);
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

nsm_tensor *fused_nodes_for_looking(fused_task *s)
{
    if (!s->graph || !s->whole) return NULL;
    nsm_tape_inference(s->node_tape, true);
    return fused_whole_nodes(s, s->node_tape, NULL);
}

/* The training part is left out where its classes are shown: it would be asked for what it sees.
 * How states are used is noted of the first things of validation, or of the test part. */
static int evaluate(task *base, part_score part[3])
{
    fused_task *s = (fused_task *)base;
    fused_usage usage = { 0 };
    int code = NSM_OK, noted = s->looks[NSM_VALID] ? NSM_VALID : NSM_TEST;
    if (base->notes && !fused_usage_make(s->ctx, nsm_fused_fuser(s->model), &usage))
        code = nsm_error(s->ctx);
    if (s->guess) nsm_tensor_get(s->told, s->guess);
    nsm_tensor *h = fused_nodes_for_looking(s);
    if (s->by_group) memset(s->by_group, 0, (size_t)s->ds->question.groups * sizeof *s->by_group);
    for (int p = 0; p < NSM_SPLIT_PARTS; p++) part[p] = (part_score){ NAN, NAN };
    for (int p = s->options->show_labels ? NSM_VALID : NSM_TRAIN; !code && p <= NSM_TEST; p++) {
        look l = { .groups = p == NSM_TEST && s->by_group, .keep = s->guess && p != NSM_TRAIN };
        if (!s->looks[p]) continue;
        if (base->notes && p == noted) l.usage = &usage;
        code = look_at(s, s->looks[p], s->look[p], h, &l);
        part[p].score = !l.asked                      ? NAN
                        : s->head == NSM_FUSED_TOKENS ? fused_f1(&l.marks)
                                                      : l.right / (double)l.asked;
        if (p == NSM_TEST) s->marks = l.marks;
        if (p != NSM_TEST && l.asked) part[p].loss = l.loss / (double)l.asked;
    }
    nsm_tape_reset(s->node_tape);
    if (base->notes) fused_usage_notes(&usage, base->note);
    fused_usage_clear(&usage);
    if (s->guess && !code) nsm_tensor_set(s->told, s->guess);
    return nsm_error(s->ctx) ? nsm_error(s->ctx) : code;
}

int fused_task_predict(fused_task *s, float *out)
{
    int32_t *every = nsmi_malloc(s->ctx, (size_t)s->data.targets * sizeof *every);
    look l = { .told = out };
    if (s->questions)
        nsm_error_set(s->ctx, NSM_EINVAL, "the model answers questions: nsm eval tells how well");
    if (s->head == NSM_FUSED_TOKENS)
        nsm_error_set(s->ctx, NSM_EINVAL, "the model tells words apart: nsm eval tells how well");
    fused_answers(s);
    for (int64_t i = 0; every && i < s->data.targets; i++) every[i] = (int32_t)(s->data.first + i);
    if (s->guess) nsm_tensor_get(s->told, s->guess);
    int code = every && !nsm_error(s->ctx)
                   ? look_at(s, s->data.targets, every, fused_nodes_for_looking(s), &l)
                   : nsm_error(s->ctx);
    nsm_tape_reset(s->node_tape);
    free(every);
    return code;
}

void fused_task_details(const fused_task *s, json_t *o)
{
    const nsm_dataset_questions *q = &s->ds->question;
    if (s->retrieval) fused_sides_details(s, o);
    fused_head_details(s, o);
    if (!s->by_group) return;
    json_t *list = json_array();
    for (int64_t g = 0; g < q->groups; g++) {
        char name[64];
        if (!s->by_group[g].asked) continue;
        snprintf(name, sizeof name, q->group_names ? "%.60s" : "%.0s%lld",
                 q->group_names ? q->group_names[g] : "", (long long)g);
        json_array_append_new(list, json_pack("{s:s, s:o}", "group", name, s->base.metric,
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
    nsm_fused_config config = {
        .width = (int)o->width,
        .outputs = (int)s->base.outputs,
        .head = s->head,
        .sets = s->graphs,
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
        .aggr = recipe_aggr(o),
        .vocab = s->text ? (int)v->text.vocab : 0,
        .mixer = o->text_mixer,
        .mixer_options = o->text_options,
        .question_features = s->questions ? (int)s->ds->question.features : 0,
    };
    if (s->picture) fused_picture_config(o, s->ds, &config);
    nsm_module_init(&s->module, s->ctx);
    if (*o->sides) {
        s->retrieval = nsm_retrieval_new(s->ctx, &config);
        s->model = nsm_retrieval_fused(s->retrieval);
    } else {
        s->model = nsm_fused_new(s->ctx, &config);
    }
    nsm_module_child(&s->module, "model",
                     s->retrieval ? nsm_retrieval_module(s->retrieval)
                                  : nsm_fused_module(s->model));
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
            int32_t i = s->split->index[p][k];
            if (!fused_sides_there(s, i) || !fused_asked(s, i)) continue;
            s->look[p][s->looks[p]++] = (int32_t)(s->data.first + i);
            if (p == NSM_TRAIN) s->known[i] = 1;
        }
    }
    return nsm_error(s->ctx);
}

/* The fan-outs: what is an element of a thing, then for the encoder's layers.  Of graphs all nodes
 * are, and the encoder sees all of a batch's graphs. */
static int make_fan_out(fused_task *s)
{
    const setting_list *f = &s->options->fanouts;
    if (s->graphs && s->options->layers >= SETTING_LIST_MOST)
        return nsm_error_set(s->ctx, NSM_EINVAL, "layers=%lld: a model of graphs has at most %d",
                             (long long)s->options->layers, SETTING_LIST_MOST - 1);
    for (s->layers = 0; s->graphs && s->layers <= s->options->layers;) s->fan_out[s->layers++] = -1;
    if (s->graphs) return NSM_OK;
    s->layers = s->graph && !s->whole ? (int)s->options->layers + 1 : 1;
    if (f->count < s->layers)
        return nsm_error_set(s->ctx, NSM_EINVAL,
                             "fanouts has %d numbers, want %d: of a thing's own elements%s",
                             f->count, s->layers, s->layers > 1 ? ", then one for each layer" : "");
    for (int k = 0; k < s->layers; k++) {
        if (!(f->value[k] >= -1 && f->value[k] <= 1e6))
            return nsm_error_set(s->ctx, NSM_EINVAL, "fanouts: %g is no number of neighbours",
                                 f->value[k]);
        s->fan_out[k] = s->graph ? (int)f->value[k] : 0;
    }
    return NSM_OK;
}

/* What the model is to see, and whether the data has it. */
static int choose(fused_task *s)
{
    const train_options *o = s->options;
    const nsm_dataset *ds = s->ds;
    const nsm_dataset_labels *l = &ds->label;
    if (fused_head_choose(s) || fused_sides_choose(s)) return nsm_error(s->ctx);
    s->graphs = l->of_graphs && l->kind == NSM_LABEL_CLASS && !*o->sides && !ds->question.count &&
                s->head == NSM_FUSED_CLASSES && !o->show_labels;
    bool graph_alone = s->graphs && !*o->modalities;
    unsigned used = fused_modalities(o, ds,
                                     graph_alone ? 1u << FUSED_GRAPH : s->side[0] | s->side[1]);
    s->questions = ds->question.count > 0 && !*o->sides && s->head != NSM_FUSED_TOKENS;
    s->graph = used >> FUSED_GRAPH & 1;
    s->text = used >> FUSED_TEXT & 1;
    s->picture = used >> FUSED_PICTURE & 1;
    s->whole = o->whole && !s->graphs;
    if (!used) return nsm_error(s->ctx);
    if (s->graphs && (s->text || s->picture))
        return nsm_error_set(s->ctx, NSM_EINVAL,
                             "modalities=%s: the graphs of %s have no texts or pictures of their "
                             "own",
                             o->modalities, ds->name);
    if (s->graph && !o->node_features && !o->show_labels)
        return nsm_error_set(s->ctx, NSM_EINVAL,
                             "the graph's nodes show nothing: node_features=false wants "
                             "show_labels=true, or modalities without the graph");
    if (l->of_graphs && !s->graphs)
        return nsm_error_set(s->ctx, NSM_EINVAL,
                             "%s is a set of graphs: of these a fused model learns classes, and "
                             "nothing else",
                             ds->name);
    if (!s->questions && !*o->sides && s->head == NSM_FUSED_CLASSES && l->kind != NSM_LABEL_CLASS)
        return nsm_error_set(s->ctx, NSM_EINVAL,
                             "%s has neither questions nor classes of nodes to learn", ds->name);
    if (s->questions && o->show_labels)
        return nsm_error_set(s->ctx, NSM_EINVAL, "show_labels: %s asks questions, not classes",
                             ds->name);
    return fused_head_check(s);
}

static int set_up(fused_task *s, const trainer_meta *trained)
{
    const nsm_dataset *ds = s->ds;
    if (choose(s)) return nsm_error(s->ctx);
    s->split = nsm_dataset_split_find(ds, *s->options->split ? s->options->split : NULL);
    if (!s->split || fused_data_make(ds, s->options, s->graphs, &s->data)) return nsm_error(s->ctx);
    bool sides = *s->options->sides != 0;
    int64_t batch = s->options->batch_size, outputs = fused_outputs(s);
    if (batch < 1) return nsm_error_set(s->ctx, NSM_EINVAL, "a fused model wants a batch_size");
    if (trained && (trained->inputs != s->data.features || trained->outputs != outputs))
        return nsm_error_set(s->ctx, NSM_ESHAPE,
                             "the model has %lld features and %lld answers, %s has %lld and %lld",
                             (long long)trained->inputs, (long long)trained->outputs, ds->name,
                             (long long)s->data.features, (long long)outputs);
    if (make_parts(s)) return nsm_error(s->ctx);
    if (!trained && !s->looks[NSM_TRAIN])
        return nsm_error_set(s->ctx, NSM_EINVAL, "split %s of %s has no training %s%s",
                             s->split->name, ds->name, s->graphs ? "graphs" : "nodes",
                             sides ? " with both sides" : "");
    s->base = (task){ .ctx = s->ctx,
                      .metric = sides                         ? "mrr"
                                : s->head == NSM_FUSED_TOKENS ? "f1"
                                                              : "accuracy",
                      .inputs = s->data.features,
                      .outputs = outputs,
                      .labels = sides ? NSM_LABEL_NONE : NSM_LABEL_CLASS,
                      .epoch = epoch,
                      .evaluate = sides ? fused_sides_evaluate : evaluate,
                      .steps_per_epoch = (s->looks[NSM_TRAIN] + batch - 1) / batch };
    if (make_fan_out(s) || make_model(s) || (s->graph && s->whole && make_whole(s)))
        return nsm_error(s->ctx);
    s->base.module = &s->module;
    if (nsm_fused_fuser(s->model)->states && !sides) {
        static const char *const name[] = { "states_open", "states_mass", "states_read" };
        s->base.notes = sizeof name / sizeof *name;
        memcpy(s->base.note_name, name, sizeof name);
    }
    if (s->questions && ds->question.groups)
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
    if (s->retrieval) nsm_retrieval_free(s->retrieval);
    else nsm_fused_free(s->model);
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
