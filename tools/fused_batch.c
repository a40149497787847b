/* fused_batch.c - From a sampled batch to what the fused model takes. */
#include "config.h"
#include <stdlib.h>
#include <string.h>
#include "tools/fused_parts.h"

/* ---- what is shown of classes ---- */
int64_t fused_target(const fused_task *s, int64_t node)
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
    else if (s->guess && !(hidden && s->forget))
        memcpy(row, s->guess + i * c, (size_t)c * sizeof *row);
}

/* The classes shown at these nodes (NULL: all), the seeds' own hidden: [count, C]. */
static nsm_tensor *shown(fused_task *s, nsm_tape *tape, int64_t count, const int32_t *node,
                         const nsm_batch *hide)
{
    int64_t c = s->base.outputs;
    float *row = s->options->show_labels ? fused_room(tape, count, c, sizeof *row) : NULL;
    if (!row) return NULL;
    for (int64_t k = 0; k < count; k++) {
        int64_t i = fused_target(s, node ? node[k] : k);
        if (i >= 0) show(s, i, node && hide && k < hide->seeds, row + k * c);
    }
    for (int64_t k = 0; !node && hide && k < hide->seeds; k++)
        show(s, fused_target(s, hide->node[k]), true, row + hide->node[k] * c);
    return fused_upload(tape, NSM_F32, count, c, row);
}

/* ---- a batch ---- */
/* Every node's embedding, of the whole graph. */
nsm_tensor *fused_whole_nodes(fused_task *s, nsm_tape *tape, const nsm_batch *hide)
{
    return nsm_fused_nodes(tape, s->model, s->all, NULL, s->x,
                           shown(s, tape, s->data.nodes, NULL, hide));
}

/* The features of a batch live as long as its step. */
void fused_end_step(fused_task *s)
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
    if (s->data.features) s->x = fused_data_rows(s->ctx, &s->data, b->nodes, b->node, &s->x_rows);
    return nsm_fused_nodes(s->tape, s->model, NULL, b->block, s->x,
                           shown(s, s->tape, b->nodes, b->node, b));
}

int64_t fused_places(const fused_batch *f)
{
    int64_t all = 0;
    for (int m = 0; m < FUSED_MODALITIES; m++) all += f->places[m];
    return all;
}

int64_t fused_reader(const fused_batch *f, int64_t i, int64_t turn)
{
    const int32_t *answer = f->answer + i * f->readers;
    int64_t asked = 0, r = -1;
    for (int64_t k = 0; k < f->readers; k++) asked += answer[k] >= 0;
    if (!asked) return -1;
    for (turn %= asked; turn >= 0; r++) turn -= answer[r + 1] >= 0;
    return r;
}

int32_t *fused_draw(const fused_task *s, uint64_t seed, int64_t *count)
{
    int64_t all = s->split->count[NSM_TEST];
    int32_t *node = nsmi_malloc(s->ctx, (size_t)all * sizeof *node);
    nsm_random from = { seed, 0x7e57 };
    if (*count > all) *count = all;
    if (node && all) memcpy(node, s->split->index[NSM_TEST], (size_t)all * sizeof *node);
    for (int64_t k = 0; node && k < *count; k++) {
        uint64_t left = (uint64_t)(all - k), draw = nsm_random_u32(from, (uint64_t)k);
        int64_t other = k + (int64_t)(draw * left >> 32);
        int32_t swap = node[k];
        node[k] = node[other];
        node[other] = swap;
    }
    return node;
}

/* ---- what is taken away ---- */
/* Which elements of a modality are gone. */
static fused_gone gone_of(const fused_task *s, const fused_batch *f, int m)
{
    int64_t first = 0;
    for (int k = 0; k < m; k++) first += f->places[k];
    return (fused_gone){ s->gone ? s->gone + first : NULL, fused_places(f) };
}

/* The thing's own node, then what enters it; of a graph its nodes. */
static void take_elements(fused_task *s, fused_batch *f)
{
    const nsm_batch *b = f->from;
    const nsm_graph *g = b->block[s->layers - 1];
    int64_t n = f->things, most = 1;
    int own = !s->graphs;
    int32_t *src = fused_room(s->tape, g->edges, 1, sizeof *src),
            *dst = fused_room(s->tape, g->edges, 1, sizeof *dst),
            *type = fused_room(s->tape, g->edges, 1, sizeof *type),
            *count = fused_room(s->tape, n, 1, sizeof *count);
    if (!src || !dst || !type || !count || nsm_graph_edges(g, src, dst)) return;
    if (g->edges && nsm_tensor_get(g->type, type)) return;
    for (int64_t i = 0; i < n; i++) count[i] = own;
    for (int64_t k = 0; k < g->edges; k++)
        if (++count[dst[k]] > most) most = count[dst[k]];
    f->places[FUSED_GRAPH] = most;
    int32_t *element = fused_room(s->tape, n, most, sizeof *element),
            *relation = fused_room(s->tape, n, most, sizeof *relation);
    if (!element || !relation) return;
    for (int64_t i = 0; i < n; i++) {
        count[i] = own;
        if (!own) continue;
        element[i * most] = s->whole ? b->node[i] : (int32_t)i;
        relation[i * most] = s->data.relations;
    }
    for (int64_t k = 0; k < g->edges; k++) {
        int64_t to = dst[k] * most + count[dst[k]]++;
        element[to] = s->whole ? b->node[src[k]] : src[k];
        relation[to] = type[k];
    }
    fused_gone gone = gone_of(s, f, FUSED_GRAPH);
    for (int64_t i = 0; gone.row && i < n; i++)
        count[i] = fused_close_gaps(gone, i, count[i], own, element + i * most,
                                    relation + i * most);
    f->element = element;
    f->elements = count;
    f->in.element = fused_upload(s->tape, NSM_I32, n, most, element);
    f->in.relation = fused_upload(s->tape, NSM_I32, n, most, relation);
    f->in.elements = fused_upload(s->tape, NSM_I32, n, 0, count);
}

void fused_lay_out(fused_task *s, const nsm_batch *b, nsm_tensor *h, fused_batch *f)
{
    int64_t places[FUSED_MODALITIES];
    memcpy(places, f->places, sizeof places); /* what was taken away is counted by these */
    *f = (fused_batch){ .from = b, .things = b->seeds };
    if (s->gone) memcpy(f->places, places, sizeof places);
    if (s->graph) {
        f->in.nodes = h ? h : sampled_nodes(s, b);
        take_elements(s, f);
    }
    const nsm_dataset_nodes *v = &s->ds->node[s->ds->target];
    int32_t *thing = fused_room(s->tape, f->things, 1, sizeof *thing);
    for (int64_t i = 0; thing && i < f->things; i++)
        thing[i] = (int32_t)fused_target(s, b->node[i]);
    if (!thing) return;
    if (s->text)
        f->places[FUSED_TEXT] = fused_take_words(s->tape, &v->text, s->options->words, f->things,
                                                 thing, gone_of(s, f, FUSED_TEXT), &f->in);
    if (s->picture)
        f->places[FUSED_PICTURE] = fused_take_pictures(s->tape, s->model, &v->image, f->things,
                                                       thing, gone_of(s, f, FUSED_PICTURE), &f->in);
}

nsm_tensor *fused_logits(fused_task *s, const nsm_batch *b, nsm_tensor *h, fused_batch *f)
{
    fused_lay_out(s, b, h, f);
    if (!nsm_error(s->ctx)) fused_ask(s, f);
    if (nsm_error(s->ctx)) return NULL;
    f->target = fused_upload(s->tape, NSM_I32, f->things * f->readers, 0, f->answer);
    if (!f->target) return NULL;
    nsm_tensor *y = nsm_fused_apply(s->tape, s->model, &f->in);
    return y ? nsm_reshape(s->tape, y, 2, (int64_t[]){ -1, f->choices }) : NULL;
}
