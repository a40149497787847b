/* fused_sides.c - Things of which one side is to be found by the other: their pictures by their
 * words, and the other way.
 *
 * A batch's things are told apart from each other (fusion/retrieval.h).  In evaluation all things
 * of a part are the candidates; a thing that lacks a side is neither asked for nor a candidate.
 * Equal scores count as the mean of their ranks. */
#include "config.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/metrics.h"
#include "tools/fused_parts.h"
#include "tools/progress.h"

enum { SCORES_AT_ONCE = 1 << 22 };
static const int recall_at[FUSED_RECALLS] = { 1, 5, 10 };

/* ---- what is asked for ---- */
int fused_sides_choose(fused_task *s)
{
    const train_options *o = s->options;
    const char *slash = strchr(o->sides, '/');
    if (!*o->sides) return NSM_OK;
    if (slash) {
        s->side[0] = fused_modalities_of(o->sides, slash);
        s->side[1] = fused_modalities_of(slash + 1, slash + strlen(slash));
    }
    if (!s->side[0] || !s->side[1] || (s->side[0] & s->side[1]))
        return nsm_error_set(s->ctx, NSM_EINVAL,
                             "sides=%.60s: want two sides of graph, text, picture with nothing in "
                             "common, as picture/text or picture/text,graph",
                             o->sides);
    if (*o->modalities || o->show_labels)
        return nsm_error_set(s->ctx, NSM_EINVAL,
                             "sides=%.60s says what is used of what: modalities and show_labels "
                             "stay out of it",
                             o->sides);
    return NSM_OK;
}

int fused_answers(const fused_task *s)
{
    return s->retrieval ? nsm_error_set(s->ctx, NSM_EINVAL,
                                        "the model finds sides of things, it gives no answers that "
                                        "could be shown: nsm eval tells how well it finds")
                        : NSM_OK;
}

bool fused_sides_there(const fused_task *s, int64_t i)
{
    const nsm_dataset_nodes *v = &s->ds->node[s->ds->target];
    if (!s->side[0]) return true;
    const bool there[FUSED_MODALITIES] = { true, v->text.ptr && v->text.ptr[i + 1] > v->text.ptr[i],
                                           v->image.channels &&
                                               (!v->image.there || v->image.there[i]) };
    for (int k = 0; k < 2; k++) {
        bool any = false;
        for (int m = 0; m < FUSED_MODALITIES; m++) any |= there[m] && s->side[k] >> m & 1;
        if (!any) return false;
    }
    return true;
}

/* ---- both sides of a batch ---- */
static nsm_tensor *side(fused_task *s, const fused_batch *f, int k)
{
    nsm_fused_input in = f->in;
    unsigned has = s->side[k];
    if (!(has >> FUSED_GRAPH & 1)) in.nodes = in.element = in.relation = in.elements = NULL;
    if (!(has >> FUSED_TEXT & 1)) in.word = in.words = NULL;
    if (!(has >> FUSED_PICTURE & 1)) in.picture = in.pictures = NULL;
    return nsm_retrieval_side(s->tape, s->retrieval, &in);
}

nsm_tensor *fused_sides_loss(fused_task *s, const nsm_batch *b, nsm_tensor *h)
{
    fused_batch f = { 0 };
    fused_lay_out(s, b, h, &f);
    nsm_tensor *u = side(s, &f, 0), *v = side(s, &f, 1);
    return nsm_retrieval_loss(s->tape, s->retrieval, u, v);
}

/* ---- looking ---- */
/* Both sides of a part's things: out[k] [looks, D]. */
static int embed(fused_task *s, int part, nsm_tensor *h, float *out[2])
{
    nsm_sampler *batches = fused_sampler(s, s->looks[part], s->look[part], true, 0);
    const nsm_batch *b;
    int64_t at = 0;
    int code = batches ? nsm_sampler_start(batches, 0, 0) : nsm_error(s->ctx);
    while (!code && !stop_signal() && (b = nsm_sampler_next(batches))) {
        fused_batch f = { 0 };
        fused_lay_out(s, b, h, &f);
        for (int k = 0; k < 2 && !code; k++) {
            nsm_tensor *y = side(s, &f, k);
            code = y ? nsm_tensor_get(y, out[k] + at * s->base.outputs) : nsm_error(s->ctx);
        }
        at += b->seeds;
        fused_end_step(s);
    }
    nsm_sampler_free(batches);
    return nsm_error(s->ctx) ? nsm_error(s->ctx) : stop_signal() ? TASK_PAUSED : code;
}

/* Ranks of the right candidates and the sum of losses for the queries first .. first + rows. */
static int rank_rows(fused_task *s, int64_t n, int64_t first, int64_t rows, const float *query,
                     const float *candidate, double *rank, double *loss)
{
    int64_t d = s->base.outputs;
    float *score = fused_room(s->tape, rows, n, sizeof *score);
    int32_t *truth = fused_room(s->tape, rows, 1, sizeof *truth);
    for (int64_t i = 0; truth && i < rows; i++) truth[i] = (int32_t)(first + i);
    nsm_tensor *u = nsm_tape_tensor(s->tape, NSM_F32, 2, (int64_t[]){ rows, d }, query + first * d),
               *v = nsm_tape_tensor(s->tape, NSM_F32, 2, (int64_t[]){ n, d }, candidate),
               *right = truth ? nsm_tape_tensor(s->tape, NSM_I32, 1, &rows, truth) : NULL,
               *all = nsm_retrieval_scores(s->tape, s->retrieval, u, v),
               *mean = nsm_cross_entropy(s->tape, all, right, NULL);
    if (mean && score && !nsm_tensor_get(all, score)) {
        *loss += (double)nsm_tensor_item(mean) * (double)rows;
        nsm_ranks(s->ctx, NSM_TIES_MEAN, rows, n, score, truth, rank + first);
    }
    nsm_tape_reset(s->tape);
    return nsm_error(s->ctx);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static fused_found found_by(nsm_ctx *ctx, int64_t n, double *rank)
{
    fused_found found = { .mrr = nsm_mrr(ctx, n, rank) };
    for (int k = 0; k < FUSED_RECALLS; k++) found.recall[k] = nsm_hits(ctx, n, rank, recall_at[k]);
    qsort(rank, (size_t)n, sizeof *rank, by_size);
    found.median = (rank[(n - 1) / 2] + rank[n / 2]) / 2;
    return found;
}

static int evaluate_part(fused_task *s, int part, nsm_tensor *h, part_score *score)
{
    int64_t n = s->looks[part], d = s->base.outputs,
            most = n && SCORES_AT_ONCE / n > 0 ? SCORES_AT_ONCE / n : 1;
    float *out = n ? nsmi_malloc(s->ctx, (size_t)(2 * n * d) * sizeof *out) : NULL;
    double *rank = n ? nsmi_malloc(s->ctx, (size_t)n * sizeof *rank) : NULL, loss = 0;
    float *of[2] = { out, out ? out + n * d : NULL };
    int code = out && rank ? embed(s, part, h, of) : nsm_error(s->ctx);
    for (int way = 0; way < 2 && out && rank && !code; way++) {
        for (int64_t i = 0; i < n && !code; i += most)
            code = rank_rows(s, n, i, n - i < most ? n - i : most, of[way], of[1 - way], rank,
                             &loss);
        if (!code) s->found[part][way] = found_by(s->ctx, n, rank);
    }
    if (n && !code)
        *score = (part_score){ loss / (double)(2 * n),
                               (s->found[part][0].mrr + s->found[part][1].mrr) / 2 };
    free(out);
    free(rank);
    return code;
}

/* The training part is not looked at: it has other candidates, and more. */
int fused_sides_evaluate(task *base, part_score part[3])
{
    fused_task *s = (fused_task *)base;
    int code = NSM_OK;
    for (int p = 0; p < NSM_SPLIT_PARTS; p++) part[p] = (part_score){ NAN, NAN };
    nsm_tape_inference(s->tape, true);
    nsm_tensor *h = fused_nodes_for_looking(s);
    for (int p = NSM_VALID; p <= NSM_TEST && !code; p++) code = evaluate_part(s, p, h, &part[p]);
    nsm_tape_reset(s->node_tape);
    nsm_tape_inference(s->tape, false);
    return nsm_error(s->ctx) ? nsm_error(s->ctx) : code;
}

static void side_name(unsigned of, char name[32])
{
    *name = 0;
    for (int m = FUSED_MODALITIES - 1; m >= 0; m--)
        if (of >> m & 1) {
            size_t n = strlen(name);
            snprintf(name + n, 32 - n, "%s%s", n ? "," : "", fused_modality_name[m]);
        }
}

void fused_sides_details(const fused_task *s, json_t *o)
{
    int64_t n = s->looks[NSM_TEST];
    json_t *list = json_array();
    for (int way = 0; way < 2 && n; way++) {
        const fused_found *f = &s->found[NSM_TEST][way];
        char from[32], to[32], key[32];
        side_name(s->side[way], from);
        side_name(s->side[1 - way], to);
        json_t *row = json_pack("{s:s, s:s}", "from", from, "to", to);
        for (int k = 0; k < FUSED_RECALLS; k++) {
            snprintf(key, sizeof key, "recall%d", recall_at[k]);
            json_object_set_new(row, key, report_real(f->recall[k]));
        }
        json_object_set_new(row, "mrr", report_real(f->mrr));
        json_object_set_new(row, "median_rank", report_real(f->median));
        json_array_append_new(list, row);
    }
    json_object_set_new(o, "candidates", json_integer(n));
    json_object_set_new(o, "ways", list);
}
