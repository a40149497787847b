/* link.c - See link.h. */
#include "config.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/metrics.h"
#include "tools/link_parts.h"
#include "tools/progress.h"

enum { SCORES_AT_ONCE = 1 << 22 };
static const int hits_at[LINK_HITS] = { 1, 3, 10 };

/* ---- questions ---- */
int link_compare(const void *x, const void *y)
{
    const link_question *a = x, *b = y;
    if (a->from != b->from) return a->from < b->from ? -1 : 1;
    if (a->relation != b->relation) return a->relation < b->relation ? -1 : 1;
    return (a->answer > b->answer) - (a->answer < b->answer);
}

static int make_questions(link_task *l)
{
    int64_t at = 0, half = l->relations / 2;
    for (int p = 0; p < NSM_SPLIT_PARTS; p++) l->known.count += 2 * l->ds->link[p].count;
    l->known.q = node_array(l->ctx, l->known.count, 1, sizeof *l->known.q);
    for (int p = 0; p < NSM_SPLIT_PARTS && l->known.q; p++) {
        const nsm_dataset_links *from = &l->ds->link[p];
        link_question *q = l->part[p] = node_array(l->ctx, from->count, 2, sizeof *q);
        l->count[p] = 2 * from->count;
        for (int64_t i = 0; q && i < from->count; i++) {
            int32_t r = from->relation[i];
            q[2 * i] = (link_question){ from->src[i], r, from->dst[i] };
            q[2 * i + 1] = (link_question){ from->dst[i], r + (int32_t)half, from->src[i] };
        }
        if (q && l->count[p]) memcpy(l->known.q + at, q, (size_t)l->count[p] * sizeof *q);
        at += l->count[p];
    }
    if (!nsm_error(l->ctx))
        qsort(l->known.q, (size_t)l->known.count, sizeof *l->known.q, link_compare);
    return nsm_error(l->ctx);
}

/* The questions of the training part in order, and whom they name. */
static int note_learned(link_task *l)
{
    int64_t n = l->learned.count = l->count[NSM_TRAIN];
    l->learned.q = node_array(l->ctx, n, 1, sizeof *l->learned.q);
    l->met = nsmi_calloc(l->ctx, (size_t)l->entities + 1, 1);
    if (!l->learned.q || !l->met) return nsm_error(l->ctx);
    memcpy(l->learned.q, l->part[NSM_TRAIN], (size_t)n * sizeof *l->learned.q);
    qsort(l->learned.q, (size_t)n, sizeof *l->learned.q, link_compare);
    for (int64_t i = 0; i < n; i++) l->met[l->learned.q[i].from] = 1;
    return NSM_OK;
}

int64_t link_first_known(const link_known *known, link_question q)
{
    int64_t low = 0, high = known->count;
    q.answer = 0;
    while (low < high) {
        int64_t mid = (low + high) / 2;
        if (link_compare(&known->q[mid], &q) < 0) low = mid + 1;
        else high = mid;
    }
    return low;
}

/* ---- the model ---- */
static int make_graph(link_task *l)
{
    int64_t edges, half = l->relations / 2;
    int32_t *src = NULL, *dst = NULL, *type = NULL, *both_type = NULL;
    nsm_edges both = { 0 };
    if (!nsm_dataset_edges_merged(l->ds, l->ds->target, &edges, &src, &dst, &type) &&
        (both_type = node_array(l->ctx, edges, 2, sizeof *both_type)) &&
        !nsm_edges_inverse(l->ctx, l->entities, edges, src, dst, (int)half, type, &both,
                           both_type)) {
        l->graph = nsm_graph_new(l->ctx, l->entities, both.count, both.src, both.dst);
        nsm_graph_set_types(l->graph, (int)l->relations, both_type);
    }
    nsm_edges_free(&both);
    nsm_dataset_release(src);
    nsm_dataset_release(dst);
    nsm_dataset_release(type);
    free(both_type);
    return nsm_error(l->ctx);
}

static int make_encoder(link_task *l)
{
    const train_options *o = l->options;
    int act = nsm_act_find(o->activation);
    if (act < 0)
        return nsm_error_set(l->ctx, NSM_EINVAL, "activation=%s is not known", o->activation);
    if (make_graph(l)) return nsm_error(l->ctx);
    l->encoder = nsm_gnn_new(l->ctx, &(nsm_gnn_config){ .kind = "rgcn",
                                                        .in_channels = (int)l->width,
                                                        .hidden_channels = (int)l->width,
                                                        .out_channels = (int)l->width,
                                                        .layers = (int)o->layers,
                                                        .act = (nsm_act)act,
                                                        .no_act = act == NSM_ACT_NONE,
                                                        .dropout = (float)o->dropout,
                                                        .residual = o->residual,
                                                        .relations = (int)l->relations,
                                                        .num_bases = (int)o->bases,
                                                        .num_blocks = (int)o->blocks });
    return nsm_module_child(&l->module, "encoder", l->encoder ? nsm_gnn_module(l->encoder) : NULL);
}

/* The entities' rows: all that is known of them, or what a fused model adds to the rest. */
static void make_rows(link_task *l)
{
    l->entity = nsm_module_param(&l->module, "entity", 2,
                                 (const int64_t[]){ l->entities, l->width });
    nsm_init_normal(l->entity, 0, (float)l->options->spread);
}

static int make_model(link_task *l)
{
    const train_options *o = l->options;
    l->width = o->hidden;
    l->kind = strcmp(o->decoder, "complex") ? NSM_LINK_DISTMULT : NSM_LINK_COMPLEX;
    if (l->kind == NSM_LINK_COMPLEX && l->width % 2)
        return nsm_error_set(l->ctx, NSM_EINVAL,
                             "hidden=%lld: the numbers of a complex embedding are even in number",
                             (long long)l->width);
    bool fused = !strcmp(o->encoder, "fused");
    if (!fused || o->own) make_rows(l);
    l->relation = nsm_module_param(&l->module, "relation", 2,
                                   (const int64_t[]){ l->relations, l->width });
    nsm_init_normal(l->relation, 0, (float)o->spread);
    l->tape = nsm_tape_new(l->ctx);
    if (nsm_error(l->ctx)) return nsm_error(l->ctx);
    if (!strcmp(o->encoder, "none")) return NSM_OK;
    if (fused) {
        l->fused = link_fused_new(l);
        return nsm_module_child(&l->module, "fused", link_fused_module(l->fused));
    }
    if (strcmp(o->encoder, "rgcn"))
        return nsm_error_set(l->ctx, NSM_EINVAL, "encoder=%s: links are encoded by rgcn, fused or "
                             "none", o->encoder);
    return make_encoder(l);
}

/* ---- scores ---- */
/* A batch's questions on the tape. */
typedef struct {
    nsm_tensor *from, *relation, *answer;
} asked;

/* place: the row of each entity among those that are scored; NULL: they all are. */
static asked upload(link_task *l, int64_t rows, const link_question *q, const int32_t *order,
                    const int32_t *place)
{
    int32_t *from = l->column, *relation = from + rows, *answer = relation + rows;
    for (int64_t i = 0; i < rows; i++) {
        const link_question *one = &q[order ? order[i] : i];
        from[i] = place ? place[one->from] : one->from;
        relation[i] = one->relation;
        answer[i] = place ? place[one->answer] : one->answer;
    }
    return (asked){ nsm_tape_tensor(l->tape, NSM_I32, 1, &rows, from),
                    nsm_tape_tensor(l->tape, NSM_I32, 1, &rows, relation),
                    nsm_tape_tensor(l->tape, NSM_I32, 1, &rows, answer) };
}

static nsm_tensor *entities(link_task *l)
{
    return l->encoder ? nsm_gnn_apply(l->tape, l->encoder, l->graph, l->entity, NULL) : l->entity;
}

static nsm_tensor *queries(link_task *l, const asked *a, nsm_tensor *x, nsm_tensor **h,
                           nsm_tensor **r)
{
    *h = nsm_gather(l->tape, x, a->from);
    *r = nsm_gather(l->tape, l->relation, a->relation);
    nsm_tensor *q = nsm_link_query(l->tape, l->kind, NSM_LINK_TAIL, *h, *r);
    if (l->fused) return link_fused_sharpen(l, q);
    return nsm_dropout(l->tape, q, l->encoder ? 0 : (float)l->options->dropout);
}

/* Size of every complex number (kind 1), or of every number. */
static nsm_tensor *moduli(link_task *l, nsm_tensor *x)
{
    nsm_tensor *size = nsm_abs(l->tape, x);
    if (l->kind == NSM_LINK_DISTMULT || !x) return size;
    int64_t half = l->width / 2;
    nsm_tensor *square = nsm_square(l->tape, x);
    nsm_tensor *sum = nsm_add(l->tape, nsm_slice(l->tape, square, 1, 0, half),
                              nsm_slice(l->tape, square, 1, half, half));
    return nsm_sqrt(l->tape, nsm_clamp(l->tape, sum, 1e-20f, FLT_MAX));
}

/* The nuclear 3-norm's bound (Lacroix et al., eq. 5): the sum of cubes, a question's share. */
static nsm_tensor *cubes(link_task *l, nsm_tensor *x)
{
    nsm_tensor *m = moduli(l, x);
    nsm_tensor *sum = nsm_sum(l->tape, nsm_mul(l->tape, nsm_square(l->tape, m), m), NSM_ALL, false);
    return nsm_scale(l->tape, sum, (float)l->options->penalty / (float)(x ? x->dim[0] : 1), 0);
}

void link_draw(const link_task *l, int64_t step, int64_t count, int32_t *node)
{
    uint64_t key = nsm_random_get(l->ctx).seed ^ UINT64_C(0x6c696e6b);
    for (int64_t i = 0; i < count; i++)
        node[i] = (int32_t)((uint64_t)nsmi_philox_u32(key, (uint64_t)step << 32, (uint64_t)i) *
                                (uint64_t)l->entities >>
                            32);
}

/* Entities to tell the answer from, the same for a batch. */
static nsm_tensor *draw_negatives(link_task *l, int64_t step)
{
    int64_t count = l->options->negatives;
    int32_t *node = node_array(l->ctx, count, 1, sizeof *node);
    if (node) link_draw(l, step, count, node);
    nsm_tensor *t = node ? nsm_tape_tensor(l->tape, NSM_I32, 1, &count, node) : NULL;
    free(node);
    return t;
}

/* Cross entropy of the answers among all entities, or among the answer and the drawn ones, an
 * entity that is drawn and the answer both counting twice.  mask: x are those of a batch, of which
 * some do not compete. */
static nsm_tensor *answer_loss(link_task *l, const asked *a, nsm_tensor *q, nsm_tensor *x,
                               nsm_tensor *answers, nsm_tensor *mask, int64_t step)
{
    nsm_cross_entropy_config c = { .label_smoothing = (float)l->options->label_smoothing };
    if (mask)
        return nsm_cross_entropy(l->tape, nsm_add(l->tape, nsm_link_all(l->tape, q, x), mask),
                                 a->answer, &c);
    if (!l->options->negatives)
        return nsm_cross_entropy(l->tape, nsm_link_all(l->tape, q, x), a->answer, &c);
    nsm_tensor *right = nsm_sum(l->tape, nsm_mul(l->tape, q, answers), 1, true);
    nsm_tensor *wrong = nsm_link_all(l->tape, q, nsm_gather(l->tape, x, draw_negatives(l, step)));
    if (!right || !wrong) return NULL;
    int64_t rows = right->dim[0];
    int32_t *first = nsmi_calloc(l->ctx, (size_t)rows, sizeof *first);
    nsm_tensor *label = first ? nsm_tape_tensor(l->tape, NSM_I32, 1, &rows, first) : NULL;
    free(first);
    nsm_tensor *scores = nsm_concat(l->tape, (nsm_tensor *[]){ right, wrong }, 2, 1);
    return nsm_cross_entropy(l->tape, scores, label, &c);
}

static nsm_tensor *batch_loss(link_task *l, int64_t rows, const int32_t *order, int64_t step)
{
    const link_question *asks = l->part[NSM_TRAIN];
    nsm_tensor *x = l->fused ? link_fused_batch(l, rows, asks, order, step) : entities(l);
    nsm_tensor *mask = l->fused ? link_fused_mask(l, rows, asks, order) : NULL;
    if (l->fused && (!x || !mask)) return NULL;
    asked a = upload(l, rows, asks, order, l->fused ? link_fused_place(l->fused) : NULL);
    nsm_tensor *h, *r, *q = queries(l, &a, x, &h, &r);
    bool penalised = l->options->penalty > 0, drawn = l->options->negatives && !l->fused;
    nsm_tensor *answers = penalised || drawn ? nsm_gather(l->tape, x, a.answer) : NULL;
    nsm_tensor *loss = answer_loss(l, &a, q, x, answers, mask, step);
    if (!penalised) return loss;
    nsm_tensor *both = nsm_add(l->tape, cubes(l, h), cubes(l, answers));
    return nsm_add(l->tape, loss, nsm_add(l->tape, both, cubes(l, r)));
}

/* ---- training ---- */
static int64_t batch_rows(const link_task *l)
{
    int64_t all = l->count[NSM_TRAIN], batch = l->options->batch_size;
    return batch && batch < all ? batch : all;
}

/* The order of an epoch comes from the seed and its number alone. */
static void shuffle(link_task *l, int64_t number)
{
    uint64_t key = nsm_random_get(l->ctx).seed ^ (uint64_t)number << 20;
    int64_t n = l->count[NSM_TRAIN];
    for (int64_t i = 0; i < n; i++) l->order[i] = (int32_t)i;
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t k = (int64_t)((uint64_t)nsmi_philox_u32(key, 0, (uint64_t)i) * (uint64_t)(i + 1) >>
                              32);
        int32_t swap = l->order[i];
        l->order[i] = l->order[k];
        l->order[k] = swap;
    }
}

static int epoch(task *base, int64_t number, epoch_place *at, int (*step)(void *user), void *user)
{
    link_task *l = (link_task *)base;
    int64_t batch = batch_rows(l), all = l->count[NSM_TRAIN];
    int code = nsm_error(l->ctx);
    shuffle(l, number);
    nsm_tape_inference(l->tape, false);
    while (!code && at->steps < base->steps_per_epoch) {
        double began = progress_now();
        int64_t first = at->steps * batch, rows = all - first < batch ? all - first : batch;
        nsm_tensor *loss = batch_loss(l, rows, l->order + first,
                                      (number - 1) * base->steps_per_epoch + at->steps);
        double value = loss ? (double)nsm_tensor_item(loss) : 0;
        nsm_tape_backward(l->tape, loss);
        if (l->fused) link_fused_end(l);
        nsm_tape_reset(l->tape);
        l->seconds += progress_now() - began;
        if ((code = nsm_error(l->ctx))) break;
        at->steps++;
        at->rows += rows;
        at->loss += value * (double)rows;
        l->trained += rows;
        code = step(user);
    }
    return code;
}

/* ---- looking ---- */
/* Take the other right answers of these questions out of the running. */
static void filter(const link_task *l, int64_t rows, const link_question *q, float *score)
{
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t k = link_first_known(&l->known, q[i]); k < l->known.count; k++) {
            const link_question *other = &l->known.q[k];
            if (other->from != q[i].from || other->relation != q[i].relation) break;
            if (other->answer != q[i].answer) score[i * l->entities + other->answer] = -FLT_MAX;
        }
    }
}

/* The k best of a row, the best first; of equal ones those of lower numbers. */
static void best_of(int64_t n, const float *score, int64_t k, int32_t *entity, float *value)
{
    int64_t have = 0;
    for (int64_t e = 0; e < n; e++) {
        if (have == k && score[e] <= value[k - 1]) continue;
        int64_t at = have < k ? have++ : k - 1;
        for (; at && value[at - 1] < score[e]; at--) {
            value[at] = value[at - 1];
            entity[at] = entity[at - 1];
        }
        value[at] = score[e];
        entity[at] = (int32_t)e;
    }
}

/* Ranks of these questions, and the sum of their losses. */
static int look(link_task *l, int64_t rows, const link_question *q, nsm_tensor *x, double *rank,
                double *loss)
{
    nsm_tensor *h, *r;
    asked a = upload(l, rows, q, NULL, NULL);
    nsm_tensor *scores = nsm_link_all(l->tape, queries(l, &a, x, &h, &r), x);
    nsm_tensor *mean = nsm_cross_entropy(l->tape, scores, a.answer,
                                         &(nsm_cross_entropy_config){ 0 });
    if (!mean || nsm_tensor_get(scores, l->score)) return nsm_error(l->ctx);
    *loss += (double)nsm_tensor_item(mean) * (double)rows;
    filter(l, rows, q, l->score);
    for (int64_t i = 0; l->best && i < rows; i++) {
        int64_t at = (rank - l->rank + i) * l->best->k;
        best_of(l->entities, l->score + i * l->entities, l->best->k, l->best->entity + at,
                l->best->score + at);
    }
    return nsm_ranks(l->ctx, NSM_TIES_MEAN, rows, l->entities, l->score, l->column + 2 * rows,
                     rank);
}

static int64_t rows_at_once(const link_task *l)
{
    int64_t rows = SCORES_AT_ONCE / l->entities;
    return rows < 1 ? 1 : rows;
}

/* The mean reciprocal rank of the test questions that speak of an entity no training triple
 * names. */
static void score_unmet(link_task *l)
{
    double sum = 0;
    l->unmet_asked = 0;
    for (int64_t i = 0; i < l->count[NSM_TEST]; i++) {
        const link_question *q = &l->part[NSM_TEST][i];
        if (l->met[q->from] && l->met[q->answer]) continue;
        sum += 1 / l->rank[i];
        l->unmet_asked++;
    }
    l->unmet = sum / (double)l->unmet_asked;
}

/* table: of a fused model; others encode here. */
static int evaluate_part(link_task *l, int part, nsm_tensor *table, part_score *out)
{
    double loss = 0;
    int64_t all = l->count[part], most = rows_at_once(l);
    nsm_tensor *kept = NULL;
    *out = (part_score){ NAN, NAN };
    for (int k = 0; k < LINK_HITS; k++) l->hits[part][k] = NAN;
    nsm_tape_inference(l->tape, true);
    for (int64_t i = 0; i < all; i += most) {
        if (!kept) kept = table ? table : entities(l);
        if (look(l, all - i < most ? all - i : most, l->part[part] + i, kept, l->rank + i, &loss))
            break;
        if (!l->encoder) {
            nsm_tape_reset(l->tape);
            kept = NULL;
        }
    }
    nsm_tape_reset(l->tape);
    if (nsm_error(l->ctx) || !all) return nsm_error(l->ctx);
    *out = (part_score){ loss / (double)all, nsm_mrr(l->ctx, all, l->rank) };
    for (int k = 0; k < LINK_HITS; k++)
        l->hits[part][k] = nsm_hits(l->ctx, all, l->rank, hits_at[k]);
    if (part == NSM_TEST) score_unmet(l);
    return nsm_error(l->ctx);
}

/* Training triples are not ranked: they are many, and nothing depends on it. */
static int evaluate(task *base, part_score part[3])
{
    link_task *l = (link_task *)base;
    nsm_tensor *table = NULL;
    part[NSM_TRAIN] = (part_score){ NAN, NAN };
    nsm_tape_inference(l->tape, true);
    if (l->fused && !(table = link_fused_table(l)))
        return nsm_error(l->ctx) ? nsm_error(l->ctx) : TASK_PAUSED;
    if (evaluate_part(l, NSM_VALID, table, &part[NSM_VALID])) return nsm_error(l->ctx);
    return evaluate_part(l, NSM_TEST, table, &part[NSM_TEST]);
}

int link_task_best(link_task *l, int64_t k, link_best *b)
{
    int64_t questions = l->count[NSM_TEST];
    part_score score;
    nsm_tensor *table = NULL;
    if (!questions || k < 1)
        return nsm_error_set(l->ctx, NSM_EINVAL, "%s has %lld links to test, want the best %lld",
                             l->ds->name, (long long)questions / 2, (long long)k);
    *b = (link_best){ questions, k < l->entities ? k : l->entities, NULL, NULL, NULL };
    b->rank = node_array(l->ctx, questions, 1, sizeof *b->rank);
    b->entity = node_array(l->ctx, questions, b->k, sizeof *b->entity);
    b->score = node_array(l->ctx, questions, b->k, sizeof *b->score);
    nsm_tape_inference(l->tape, true);
    if (nsm_error(l->ctx) || (l->fused && !(table = link_fused_table(l)))) return nsm_error(l->ctx);
    l->best = b;
    evaluate_part(l, NSM_TEST, table, &score);
    l->best = NULL;
    if (!nsm_error(l->ctx)) memcpy(b->rank, l->rank, (size_t)questions * sizeof *b->rank);
    return nsm_error(l->ctx);
}

void link_best_clear(link_best *b)
{
    free(b->rank);
    free(b->entity);
    free(b->score);
    *b = (link_best){ 0 };
}

/* ---- making ---- */
static int check_data(link_task *l, const trainer_meta *trained)
{
    const nsm_dataset *ds = l->ds;
    for (int r = 0; r < ds->edge_types; r++)
        if (ds->edge[r].src_type != ds->target || ds->edge[r].dst_type != ds->target)
            return nsm_error_set(l->ctx, NSM_EINVAL,
                                 "%s: the edges %s leave the %s nodes; links are predicted within "
                                 "one type of nodes",
                                 ds->name, ds->edge[r].name, ds->node[ds->target].name);
    if (!ds->link[NSM_TRAIN].count || !ds->link[NSM_VALID].count)
        return nsm_error_set(l->ctx, NSM_EINVAL,
                             "%s has %lld links to learn and %lld to validate with; nsm import "
                             "triples makes a dataset with links",
                             ds->name, (long long)ds->link[NSM_TRAIN].count,
                             (long long)ds->link[NSM_VALID].count);
    if (trained && (trained->inputs != l->entities || trained->outputs != l->relations))
        return nsm_error_set(l->ctx, NSM_ESHAPE,
                             "the model knows %lld entities and %lld relations, inverse ones too; "
                             "%s has %lld and %lld",
                             (long long)trained->inputs, (long long)trained->outputs, ds->name,
                             (long long)l->entities, (long long)l->relations);
    return NSM_OK;
}

static int set_up(link_task *l, const trainer_meta *trained)
{
    l->entities = l->ds->node[l->ds->target].count;
    l->relations = 2 * (int64_t)l->ds->edge_types;
    l->unmet = NAN;
    if (check_data(l, trained) || make_questions(l) || note_learned(l) || make_model(l))
        return nsm_error(l->ctx);
    int64_t batch = batch_rows(l), looked = rows_at_once(l), most = batch > looked ? batch : looked,
            ranks = l->count[NSM_VALID] > l->count[NSM_TEST] ? l->count[NSM_VALID]
                                                             : l->count[NSM_TEST];
    l->order = node_array(l->ctx, l->count[NSM_TRAIN], 1, sizeof *l->order);
    l->column = node_array(l->ctx, most, 3, sizeof *l->column);
    l->score = node_array(l->ctx, looked, l->entities, sizeof *l->score);
    l->rank = node_array(l->ctx, ranks, 1, sizeof *l->rank);
    l->base = (task){ .ctx = l->ctx,
                      .module = &l->module,
                      .metric = "mrr",
                      .steps_per_epoch = (l->count[NSM_TRAIN] + batch - 1) / batch,
                      .inputs = l->entities,
                      .outputs = l->relations,
                      .epoch = epoch,
                      .evaluate = evaluate };
    return nsm_error(l->ctx);
}

link_task *link_task_new(nsm_ctx *ctx, const train_options *options, const nsm_dataset *ds,
                         const trainer_meta *trained)
{
    link_task *l = ds && !nsm_error(ctx) ? nsmi_calloc(ctx, 1, sizeof *l) : NULL;
    if (!l) return NULL;
    l->ctx = ctx;
    l->options = options;
    l->ds = ds;
    nsm_module_init(&l->module, ctx);
    if (!set_up(l, trained)) return l;
    link_task_free(l);
    return NULL;
}

void link_task_free(link_task *l)
{
    if (!l) return;
    nsm_tape_free(l->tape);
    nsm_module_clear(&l->module);
    nsm_gnn_free(l->encoder);
    nsm_graph_free(l->graph);
    link_fused_free(l->fused);
    for (int p = 0; p < NSM_SPLIT_PARTS; p++) free(l->part[p]);
    free(l->known.q);
    free(l->learned.q);
    free(l->met);
    free(l->order);
    free(l->column);
    free(l->score);
    free(l->rank);
    free(l);
}

task *link_task_base(link_task *l) { return &l->base; }
double link_task_rate(const link_task *l)
{
    return l->seconds > 0 ? (double)l->trained / l->seconds : NAN;
}

void link_task_details(const link_task *l, json_t *o)
{
    static const char *const part[] = { "train", "valid", "test" };
    char name[32];
    for (int p = NSM_VALID; p <= NSM_TEST; p++)
        for (int k = 0; k < LINK_HITS; k++) {
            snprintf(name, sizeof name, "%s_hits%d", part[p], hits_at[k]);
            json_object_set_new(o, name, report_real(l->hits[p][k]));
        }
    if (!l->unmet_asked) return;
    json_object_set_new(o, "test_unmet", report_real(l->unmet));
    json_object_set_new(o, "test_unmet_questions", json_integer(l->unmet_asked));
}
