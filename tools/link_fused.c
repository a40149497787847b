/* link_fused.c - Entities as the fused model reads them (fusion/fused.h): by an entity's text, its
 * picture, its neighbours over the training edges, and what it is itself.
 *
 * A step encodes the entities of its questions, both ends, and some that are drawn; a question's
 * answer is told from all of them (in-batch negatives, temperature learned: Wang, Zhao, Wei and
 * Liu, "SimKGC", ACL 2022, arXiv:2203.02167), but for other answers that training knows.  The edges
 * that the batch asks for, either way, are nobody's neighbours in it: else an answer could be read
 * off them.  Evaluation encodes all entities once. */
#include "config.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "tools/fused_input.h"
#include "tools/link_parts.h"
#include "tools/progress.h"

struct link_fused {
    nsm_module module;
    nsm_fused *model;
    nsm_tensor *scale; /* [1] s: cosines are multiplied by e^s */
    fused_data data;
    unsigned used;   /* bits of the modalities */
    int64_t fan_out; /* neighbours of an entity, -1: all */
    int32_t *place;  /* [n] the row of each in the batch, -1: it is not there */
    int32_t *node;   /* [n] which each row is, the entities first */
    int64_t entities, nodes;
    link_question *asked; /* the batch's edges: head, relation, tail, sorted */
    int64_t asks, room;
    nsm_tensor *x; /* features of a batch's nodes, until its end */
    nsm_csr *x_rows;
    nsm_tensor *table; /* [n, D] */
    float *host;       /* of it */
};

/* ---- who is in a batch ---- */
static void add(link_fused *f, int32_t e)
{
    if (f->place[e] >= 0) return;
    f->place[e] = (int32_t)f->nodes;
    f->node[f->nodes++] = e;
}

static void forget(link_fused *f)
{
    for (int64_t i = 0; i < f->nodes; i++) f->place[f->node[i]] = -1;
    f->nodes = f->entities = f->asks = 0;
}

/* The edge that a question asks for, as it stands in the dataset. */
static link_question edge_of(const link_task *l, link_question q)
{
    int32_t half = (int32_t)(l->relations / 2);
    return q.relation < half ? q : (link_question){ q.answer, q.relation - half, q.from };
}

/* Both ends of the questions, what they ask for, and drawn entities. */
static bool gather(link_task *l, int64_t rows, const link_question *q, const int32_t *order,
                   int64_t step)
{
    link_fused *f = l->fused;
    int64_t drawn = l->options->negatives;
    int32_t *other = node_array(l->ctx, drawn, 1, sizeof *other);
    forget(f);
    if (rows > f->room) {
        link_question *grown = realloc(f->asked, (size_t)rows * sizeof *grown);
        if (!grown) nsm_error_set(l->ctx, NSM_ENOMEM, "out of memory for a batch's questions");
        else f->asked = grown, f->room = rows;
    }
    if (nsm_error(l->ctx)) {
        free(other);
        return false;
    }
    for (int64_t i = 0; i < rows; i++) {
        const link_question *one = &q[order ? order[i] : i];
        add(f, one->from);
        add(f, one->answer);
        f->asked[f->asks++] = edge_of(l, *one);
    }
    qsort(f->asked, (size_t)f->asks, sizeof *f->asked, link_compare);
    link_draw(l, step, drawn, other);
    for (int64_t k = 0; k < drawn; k++) add(f, other[k]);
    free(other);
    f->entities = f->nodes;
    return true;
}

/* ---- their elements ---- */
/* Is the edge k, which enters entity e, what the batch asks for? */
static bool is_asked(const link_task *l, int32_t e, int64_t k)
{
    const link_fused *f = l->fused;
    link_question edge = edge_of(l, (link_question){ f->data.idx[k], f->data.type[k], e });
    return f->asks && bsearch(&edge, f->asked, (size_t)f->asks, sizeof edge, link_compare);
}

/* Up to `most` of the edges that enter e, drawn by the seed and the step, to edge[]; free room for
 * all of them there. */
static int64_t draw_edges(const link_task *l, int32_t e, int64_t most, int64_t step, int64_t *edge)
{
    const fused_data *d = &l->fused->data;
    uint64_t key = nsm_random_get(l->ctx).seed ^ UINT64_C(0x6e656172), at = (uint64_t)step << 32;
    int64_t n = 0, first = d->ptr[e], end = d->ptr[e + 1];
    for (int64_t k = first; k < end; k++)
        if (!is_asked(l, e, k)) edge[n++] = k;
    for (int64_t k = 0; k < most && most < n; k++) {
        uint64_t draw = nsmi_philox_u32(key, at | (uint32_t)e, (uint64_t)k);
        int64_t other = k + (int64_t)(draw * (uint64_t)(n - k) >> 32), swap = edge[k];
        edge[k] = edge[other];
        edge[other] = swap;
    }
    return n < most ? n : most;
}

static int64_t most_edges(const link_fused *f)
{
    int64_t most = 0;
    for (int64_t i = 0; i < f->entities; i++) {
        int64_t n = f->data.ptr[f->node[i] + 1] - f->data.ptr[f->node[i]];
        if (n > most) most = n;
    }
    return most;
}

/* Every entity's own node and its neighbours, which join the batch's nodes. */
static void take_neighbours(link_task *l, int64_t step, nsm_fused_input *in)
{
    link_fused *f = l->fused;
    int64_t n = f->entities, all = most_edges(f),
            most = f->fan_out >= 0 && f->fan_out < all ? f->fan_out : all, places = most + 1;
    int64_t *edge = fused_room(l->tape, all, 1, sizeof *edge);
    int32_t *element = fused_room(l->tape, n, places, sizeof *element),
            *relation = fused_room(l->tape, n, places, sizeof *relation),
            *count = fused_room(l->tape, n, 1, sizeof *count);
    if (!edge || !element || !relation || !count) return;
    for (int64_t i = 0; i < n; i++) {
        int64_t drawn = draw_edges(l, f->node[i], most, step, edge), at = i * places;
        element[at] = (int32_t)i;
        relation[at++] = f->data.relations;
        for (int64_t k = 0; k < drawn; k++, at++) {
            add(f, f->data.idx[edge[k]]);
            element[at] = f->place[f->data.idx[edge[k]]];
            relation[at] = f->data.type[edge[k]];
        }
        count[i] = (int32_t)drawn + 1;
    }
    in->element = fused_upload(l->tape, NSM_I32, n, places, element);
    in->relation = fused_upload(l->tape, NSM_I32, n, places, relation);
    in->elements = fused_upload(l->tape, NSM_I32, n, 0, count);
}

/* What the graph knows of each of the batch's nodes: its features, and a row of its own. */
static nsm_tensor *known_nodes(link_task *l)
{
    link_fused *f = l->fused;
    nsm_tensor *h = NULL;
    if (f->data.features) {
        f->x = fused_data_rows(l->ctx, &f->data, f->nodes, f->node, &f->x_rows);
        h = nsm_fused_nodes(l->tape, f->model, NULL, NULL, f->x, NULL);
        if (!h) return NULL;
    }
    if (!l->entity) return h;
    nsm_tensor *own = nsm_gather(l->tape, l->entity,
                                 fused_upload(l->tape, NSM_I32, f->nodes, 0, f->node));
    return h ? nsm_add(l->tape, h, own) : own;
}

/* Embeddings [E, D] of the batch's entities. */
static nsm_tensor *encode(link_task *l, int64_t step)
{
    link_fused *f = l->fused;
    const nsm_dataset_nodes *v = &l->ds->node[l->ds->target];
    nsm_fused_input in = { 0 };
    fused_gone none = { 0 };
    if (f->used >> FUSED_GRAPH & 1) {
        take_neighbours(l, step, &in);
        in.nodes = known_nodes(l);
    }
    if (f->used >> FUSED_TEXT & 1)
        fused_take_words(l->tape, &v->text, l->options->words, f->entities, f->node, none, &in);
    if (f->used >> FUSED_PICTURE & 1)
        fused_take_pictures(l->tape, f->model, &v->image, f->entities, f->node, none, &in);
    nsm_tensor *z = nsm_error(l->ctx) ? NULL : nsm_fused_read(l->tape, f->model, &in);
    return z ? nsm_normalize(l->tape, nsm_reshape(l->tape, z, 2, (int64_t[]){ -1, l->width }),
                             1e-12f)
             : NULL;
}

nsm_tensor *link_fused_batch(link_task *l, int64_t rows, const link_question *q,
                             const int32_t *order, int64_t step)
{
    return gather(l, rows, q, order, step) ? encode(l, step) : NULL;
}

const int32_t *link_fused_place(const link_fused *f) { return f->place; }

nsm_tensor *link_fused_mask(link_task *l, int64_t rows, const link_question *q,
                            const int32_t *order)
{
    link_fused *f = l->fused;
    float *mask = fused_room(l->tape, rows, f->entities, sizeof *mask);
    for (int64_t i = 0; mask && i < rows; i++) {
        const link_question *one = &q[order ? order[i] : i];
        for (int64_t k = link_first_known(&l->learned, *one); k < l->learned.count; k++) {
            const link_question *other = &l->learned.q[k];
            int32_t at = f->place[other->answer];
            if (other->from != one->from || other->relation != one->relation) break;
            if (other->answer != one->answer && at >= 0 && at < f->entities)
                mask[i * f->entities + at] = -1e9f;
        }
    }
    return fused_upload(l->tape, NSM_F32, rows, f->entities, mask);
}

void link_fused_end(link_task *l)
{
    link_fused *f = l->fused;
    nsm_tape_reset(l->tape);
    nsm_tensor_free(f->x);
    nsm_csr_free(f->x_rows);
    f->x = NULL;
    f->x_rows = NULL;
}

nsm_tensor *link_fused_sharpen(link_task *l, nsm_tensor *query)
{
    nsm_tensor *s = nsm_exp(l->tape, nsm_clamp(l->tape, l->fused->scale, -INFINITY, logf(100)));
    return nsm_mul(l->tape, nsm_normalize(l->tape, query, 1e-12f), s);
}

nsm_tensor *link_fused_table(link_task *l)
{
    link_fused *f = l->fused;
    int64_t batch = l->options->batch_size;
    for (int64_t i = 0; i < l->entities && !stop_signal(); i += batch) {
        forget(f);
        for (int64_t e = i; e < l->entities && e < i + batch; e++) add(f, (int32_t)e);
        f->entities = f->nodes;
        nsm_tensor *z = encode(l, -1);
        if (z) nsm_tensor_get(z, f->host + i * l->width);
        link_fused_end(l);
        if (nsm_error(l->ctx)) return NULL;
    }
    return !stop_signal() && !nsm_tensor_set(f->table, f->host) ? f->table : NULL;
}

/* ---- making ---- */
static int check(link_task *l)
{
    const train_options *o = l->options;
    if (o->batch_size < 1)
        return nsm_error_set(l->ctx, NSM_EINVAL, "encoder=fused wants a batch_size");
    if (o->fanouts.count < 1 || !(o->fanouts.value[0] >= -1 && o->fanouts.value[0] <= 1e6))
        return nsm_error_set(l->ctx, NSM_EINVAL,
                             "fanouts: want the number of an entity's neighbours, or -1");
    if (l->ds->node_types > 1)
        return nsm_error_set(l->ctx, NSM_EINVAL,
                             "encoder=fused: %s has %d types of nodes, want one", l->ds->name,
                             l->ds->node_types);
    l->fused->fan_out = (int64_t)o->fanouts.value[0];
    l->fused->used = fused_modalities(o, l->ds, 0);
    if (l->fused->used >> FUSED_GRAPH & 1 && !o->node_features && !l->entity)
        return nsm_error_set(l->ctx, NSM_EINVAL,
                             "the graph's nodes show nothing: node_features=false wants own=true, "
                             "or modalities without the graph");
    return nsm_error(l->ctx);
}

static int make_model(link_task *l)
{
    const train_options *o = l->options;
    link_fused *f = l->fused;
    bool text = f->used >> FUSED_TEXT & 1, graph = f->used >> FUSED_GRAPH & 1;
    nsm_fused_config config = {
        .width = (int)l->width,
        .fuser = *o->fuser ? o->fuser : NULL,
        .fuser_options = o->fuser_options,
        .dropout = (float)o->dropout,
        .graph = graph,
        .features = graph ? (int)f->data.features : 0,
        .relations = f->data.relations,
        .gnn = "none",
        .vocab = text ? (int)l->ds->node[l->ds->target].text.vocab : 0,
        .mixer = o->text_mixer,
        .mixer_options = o->text_options,
    };
    if (f->used >> FUSED_PICTURE & 1) fused_picture_config(o, l->ds, &config);
    f->model = nsm_fused_new(l->ctx, &config);
    nsm_module_child(&f->module, "model", nsm_fused_module(f->model));
    f->scale = nsm_module_param(&f->module, "scale", 1, (const int64_t[]){ 1 });
    if (f->scale) nsm_tensor_fill(f->scale, logf(20));
    return nsm_error(l->ctx);
}

static int make_room(link_task *l)
{
    link_fused *f = l->fused;
    int64_t n = l->entities;
    f->place = node_array(l->ctx, n, 1, sizeof *f->place);
    f->node = node_array(l->ctx, n, 1, sizeof *f->node);
    f->host = node_array(l->ctx, n, l->width, sizeof *f->host);
    f->table = nsm_tensor_new(l->ctx, NSM_F32, 2, (int64_t[]){ n, l->width });
    for (int64_t i = 0; f->place && i < n; i++) f->place[i] = -1;
    return nsm_error(l->ctx);
}

link_fused *link_fused_new(link_task *l)
{
    link_fused *f = l->fused = nsmi_calloc(l->ctx, 1, sizeof *f);
    if (!f) return NULL;
    nsm_module_init(&f->module, l->ctx);
    if (!check(l) && !fused_data_make(l->ds, l->options, false, &f->data) && !make_model(l))
        make_room(l);
    return f;
}

void link_fused_free(link_fused *f)
{
    if (!f) return;
    nsm_module_clear(&f->module);
    nsm_fused_free(f->model);
    fused_data_clear(&f->data);
    nsm_tensor_free(f->x);
    nsm_csr_free(f->x_rows);
    nsm_tensor_free(f->table);
    free(f->host);
    free(f->place);
    free(f->node);
    free(f->asked);
    free(f);
}

nsm_module *link_fused_module(link_fused *f) { return f ? &f->module : NULL; }
