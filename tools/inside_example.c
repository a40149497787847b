/* inside_example.c - See inside.h: one answer. */
#include "config.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "datasets/picture_parts.h"
#include "tools/figure.h"
#include "tools/inside.h"

static const char *const others_name[FUSED_MODALITIES] = { "other nodes", "other words",
                                                           "other cells" };

/* ---- names ---- */
static const char *class_name(char *const *name, int64_t k, char buf[INSIDE_NAME])
{
    snprintf(buf, INSIDE_NAME, "class %lld", (long long)k);
    return k < 0 ? "not known" : name ? name[k] : buf;
}

const char *inside_answer(const fused_task *s, const fused_example *e, int64_t k,
                          char buf[INSIDE_NAME])
{
    const nsm_dataset *ds = s->ds;
    if (k >= 0 && s->head == NSM_FUSED_POINTER) return inside_element(s, &e->element[k], buf);
    return class_name(s->head == NSM_FUSED_TOKENS ? ds->node[ds->target].text.class_names
                      : s->questions              ? ds->question.answer_names
                                                  : ds->label.names,
                      k, buf);
}

/* Of a node of all types; behind them stand the graphs. */
static const char *node_name(const nsm_dataset *ds, int64_t node, char buf[INSIDE_NAME])
{
    int t = 0;
    while (t < ds->node_types && node >= ds->node[t].count) node -= ds->node[t++].count;
    if (t == ds->node_types) {
        snprintf(buf, INSIDE_NAME, "graph %lld", (long long)node);
        return buf;
    }
    const nsm_dataset_nodes *v = &ds->node[t];
    snprintf(buf, INSIDE_NAME, "%.60s %lld", v->name, (long long)node);
    return v->names ? v->names[node] : buf;
}

const char *inside_element(const fused_task *s, const fused_element *e, char buf[INSIDE_NAME])
{
    char **symbol = s->ds->node[s->ds->target].text.symbol;
    int64_t rows, cols;
    if (e->modality == FUSED_GRAPH) return node_name(s->ds, e->id, buf);
    if (e->modality == FUSED_TEXT) {
        snprintf(buf, INSIDE_NAME, "word %d", e->id);
        return symbol ? symbol[e->id] : buf;
    }
    nsm_fused_picture_grid(s->model, &rows, &cols);
    snprintf(buf, INSIDE_NAME, "row %lld column %lld", (long long)(e->id / cols) + 1,
             (long long)(e->id % cols) + 1);
    return buf;
}

const char *inside_state(const nsm_fuser *fuser, char buf[INSIDE_NAME])
{
    snprintf(buf, INSIDE_NAME, "%.*s", (int)strlen(fuser->type->states) - 1, fuser->type->states);
    return buf;
}

/* "hypernym ->": an edge to the thing; "<- hypernym": one from it, turned around */
static const char *relation_name(const fused_task *s, int32_t relation, char buf[INSIDE_NAME])
{
    int types = s->ds->edge_types;
    if (relation >= s->data.relations) return "itself";
    bool turned = relation >= types;
    snprintf(buf, INSIDE_NAME, "%s%.70s%s", turned ? "\xe2\x86\x90 " : "",
             s->ds->edge[relation % types].name, turned ? "" : " \xe2\x86\x92");
    return buf;
}

/* ---- the answer ---- */
static void put_answer(inside *in, const fused_example *e)
{
    const fused_task *s = in->m.fused;
    char buf[INSIDE_NAME];
    bool right = e->best == e->truth;
    FILE *f = page_markup(in->page);
    fprintf(f, "<p><span class=\"badge %s\">%s</span> The answer is <b>",
            right ? "right" : e->truth < 0 ? "soft" : "wrong",
            right ? "right" : e->truth < 0 ? "not known" : "wrong");
    page_escape(f, inside_answer(s, e, e->best, buf), -1);
    fprintf(f, "</b>, probability %.3f", (double)e->p[e->best]);
    if (!right && e->truth >= 0) {
        fputs("; the data says <b>", f);
        page_escape(f, inside_answer(s, e, e->truth, buf), -1);
        fprintf(f, "</b>, probability %.3f", (double)e->p[e->truth]);
    }
    fprintf(f, ". <span class=\"soft\">%s %lld</span></p>\n", s->graphs ? "Graph" : "Node",
            (long long)e->node);
}

/* What was asked: its kind, and its numbers, those that have names by these. */
static void put_question(inside *in, int64_t question)
{
    const nsm_dataset_questions *q = &in->m.ds->question;
    FILE *f = page_markup(in->page);
    if (question < 0) return;
    fprintf(f, "<p class=\"soft\">Question %lld", (long long)question);
    if (q->groups && q->group_names) {
        fputs(", of the kind <b>", f);
        page_escape(f, q->group_names[q->group[question]], -1);
        fputs("</b>", f);
    }
    fputs(":", f);
    const float *value = q->value + question * q->features;
    for (int64_t k = 0, told = 0; k < q->features && k < 64; k++) {
        bool one = !(value[k] < 1 || value[k] > 1);
        if (q->value_names && fabsf(value[k]) > 0) {
            fputs(told++ ? ", " : " ", f);
            page_escape(f, q->value_names[k], -1);
        }
        if (!q->value_names || (fabsf(value[k]) > 0 && !one)) fprintf(f, " %g", (double)value[k]);
    }
    fputs(q->features > 64 ? " \xe2\x80\xa6</p>\n" : "</p>\n", f);
}

/* Which word was asked. */
static void put_word(inside *in, const fused_example *e)
{
    FILE *f = page_markup(in->page);
    char buf[INSIDE_NAME];
    for (int64_t k = 0, at = 0; k < e->count && e->word >= 0; k++) {
        if (e->element[k].modality != FUSED_TEXT || at++ != e->word) continue;
        fprintf(f, "<p class=\"soft\">Word %d: <b>", e->word + 1);
        page_escape(f, inside_element(in->m.fused, &e->element[k], buf), -1);
        fputs("</b></p>\n", f);
    }
}

static void put_classes(inside *in, const fused_example *e)
{
    enum { BEST = 5 };
    int64_t c = e->choices, shown = c < BEST ? c : BEST;
    uint8_t *done = nsmi_calloc(in->ctx, (size_t)c, 1);
    char buf[INSIDE_NAME];
    page_head(in->page, "most likely", false);
    page_head(in->page, "probability", true);
    for (int64_t n = 0; done && n < shown; n++) {
        int64_t best = -1;
        for (int64_t k = 0; k < c; k++)
            if (!done[k] && (best < 0 || e->p[k] > e->p[best])) best = k;
        done[best] = 1;
        page_row(in->page);
        page_cell(in->page, inside_answer(in->m.fused, e, best, buf));
        page_number(in->page, (double)e->p[best], 3);
    }
    free(done);
}

/* ---- how it came about ---- */
/* Inputs, or states, that are drawn on their own: the largest; the others are bundled. */
typedef struct {
    int count;               /* of bars */
    int32_t *of;             /* of each the bar it is in */
    figure_bar *bar;
    char (*name)[INSIDE_NAME];
} bundle;
enum { ALONE = 12, BARS = ALONE + FUSED_MODALITIES };

static bool bundle_make(nsm_ctx *ctx, int64_t count, bundle *b)
{
    *b = (bundle){ 0 };
    b->of = nsmi_malloc(ctx, (size_t)count * sizeof *b->of + 1);
    b->bar = nsmi_calloc(ctx, BARS, sizeof *b->bar);
    b->name = nsmi_calloc(ctx, BARS, sizeof *b->name);
    for (int64_t k = 0; b->of && k < count; k++) b->of[k] = -1;
    return !nsm_error(ctx);
}

static void bundle_clear(bundle *b)
{
    free(b->of);
    free(b->bar);
    free(b->name);
}

/* The next one that is worth a bar of its own; -1: none. */
static int64_t largest(const bundle *b, int64_t count, const float *size, size_t stride)
{
    int64_t best = -1;
    for (int64_t k = 0; k < count && b->count < ALONE; k++) {
        float x = *(const float *)((const char *)size + (size_t)k * stride);
        if (b->of[k] < 0 && x > 0.01f &&
            (best < 0 || x > *(const float *)((const char *)size + (size_t)best * stride)))
            best = k;
    }
    return best;
}

static void bundle_inputs(const fused_task *s, const fused_example *e, bundle *b)
{
    for (int64_t k; (k = largest(b, e->count, &e->element[0].flow, sizeof *e->element)) >= 0;) {
        const fused_element *x = &e->element[k];
        b->bar[b->count] = (figure_bar){ inside_element(s, x, b->name[b->count]),
                                         fused_modality_name[x->modality], (double)x->flow };
        b->of[k] = b->count++;
    }
    for (int m = 0; m < FUSED_MODALITIES; m++) {
        int bar = b->count, others = 0;
        double size = 0;
        for (int64_t k = 0; k < e->count; k++) {
            if (b->of[k] >= 0 || e->element[k].modality != m) continue;
            b->of[k] = bar;
            size += (double)e->element[k].flow;
            others++;
        }
        if (!others) continue;
        snprintf(b->name[bar], INSIDE_NAME, "%s (%d)", others_name[m], others);
        b->bar[b->count++] = (figure_bar){ b->name[bar], fused_modality_name[m], size };
    }
}

static void bundle_states(const nsm_fuser *fuser, const fused_example *e, bundle *b)
{
    int64_t states = fuser->states;
    char one[INSIDE_NAME];
    int others = 0;
    double size = 0;
    inside_state(fuser, one);
    for (int64_t k; (k = largest(b, states, e->read, sizeof *e->read)) >= 0;) {
        snprintf(b->name[b->count], INSIDE_NAME, "%.60s %lld", one, (long long)k);
        b->bar[b->count] = (figure_bar){ b->name[b->count], "state", (double)e->read[k] };
        b->of[k] = b->count++;
    }
    for (int64_t k = 0; k < states; k++) {
        if (b->of[k] >= 0) continue;
        b->of[k] = b->count;
        size += (double)e->read[k];
        others += e->read[k] > 0;
    }
    if (!others) {
        b->bar[b->count] = (figure_bar){ "", "none", 0 };
        return;
    }
    snprintf(b->name[b->count], INSIDE_NAME, "other %.60s (%d)", fuser->type->states, others);
    b->bar[b->count] = (figure_bar){ b->name[b->count], "state", size };
    b->count++;
}

static void put_ways(inside *in, const fused_example *e)
{
    static double share[BARS * (BARS + 1)];
    const nsm_fuser *fuser = in->fuser;
    char buf[INSIDE_NAME];
    bundle input, state = { 0 };
    bool ok = bundle_make(in->ctx, e->count, &input) &&
              bundle_make(in->ctx, fuser->states, &state);
    if (ok) {
        bundle_inputs(in->m.fused, e, &input);
        if (fuser->states) bundle_states(fuser, e, &state);
        memset(share, 0, sizeof share);
        for (int64_t i = 0; i < fuser->states; i++)
            for (int64_t j = 0; j < e->count; j++)
                if (state.of[i] < state.count)
                    share[input.of[j] * state.count + state.of[i]] +=
                        (double)e->read[i] * (double)e->took[i * e->count + j];
        FILE *f = page_markup(in->page);
        fprintf(f, "<h4>From its inputs%s to the answer</h4>\n",
                fuser->states ? " by its states" : "");
        figure_flow(f, &(figure_ways){ .title = "from the inputs to the answer",
                                       .answer = inside_answer(in->m.fused, e, e->best, buf),
                                       .inputs = input.count,
                                       .states = state.count,
                                       .input = input.bar,
                                       .state = state.bar,
                                       .share = share });
    }
    bundle_clear(&input);
    bundle_clear(&state);
}

/* ---- where inputs were written ---- */
enum { ROWS = 48, COLUMNS = 64 }; /* that are shown, at most */

/* Inputs of these modalities (a bit each) in their order, without the weakest where there are
 * many. */
static int64_t strongest(const fused_example *e, unsigned modalities, int64_t most, int64_t *row)
{
    int64_t count = 0;
    for (int64_t j = 0; j < e->count; j++) {
        int64_t before = 0; /* how many come before it by what the answer took */
        for (int64_t k = 0; k < e->count; k++)
            before += (modalities >> e->element[k].modality & 1) &&
                      (e->element[k].flow > e->element[j].flow ||
                       (k < j && !(e->element[k].flow < e->element[j].flow)));
        if ((modalities >> e->element[j].modality & 1) && before < most) row[count++] = j;
    }
    return count;
}

static int64_t map_columns(const fused_example *e, int64_t states, int64_t most, int32_t *column)
{
    int64_t count = 0;
    for (int32_t k = 0; k < states && count < most; k++)
        if (e->mass[k] > 0.01f || e->read[k] > 0.01f) column[count++] = k;
    return count;
}

static void put_left_out(inside *in, int64_t count)
{
    if (count)
        page_say(in->page, "%lld of which the answer took less are left out.", (long long)count);
}

static void put_map(inside *in, const fused_example *e)
{
    static char name[ROWS][INSIDE_NAME];
    static float value[ROWS * COLUMNS];
    int64_t row[ROWS];
    int32_t column[COLUMNS], mark[ROWS];
    double read[COLUMNS];
    figure_bar bar[ROWS];
    char one[INSIDE_NAME];
    int64_t rows = strongest(e, ~0u, ROWS, row),
            columns = map_columns(e, in->fuser->states, COLUMNS, column);
    for (int64_t k = 0; k < columns; k++) read[k] = (double)e->read[column[k]];
    for (int64_t r = 0; r < rows; r++) {
        const fused_element *x = &e->element[row[r]];
        bar[r] = (figure_bar){ inside_element(in->m.fused, x, name[r]),
                               fused_modality_name[x->modality], (double)x->flow };
        mark[r] = -1;
        for (int64_t k = 0; k < columns; k++) {
            value[r * columns + k] = e->mass[column[k]] * e->took[column[k] * e->count + row[r]];
            if (x->opened == column[k]) mark[r] = (int32_t)k;
        }
    }
    FILE *f = page_markup(in->page);
    fprintf(f, "<h4>Which input was written to which %s</h4>\n", inside_state(in->fuser, one));
    figure_map(f, &(figure_map_of){ .title = "inputs by states",
                                    .value_name = "of it",
                                    .rows = rows,
                                    .columns = columns,
                                    .row = bar,
                                    .column = column,
                                    .column_name = one,
                                    .read = read,
                                    .value = value,
                                    .mark = mark });
    put_left_out(in, e->count - rows);
}

/* ---- the inputs ---- */
static float most_flow(const fused_example *e, int modality)
{
    float most = 0;
    for (int64_t k = 0; k < e->count; k++)
        if (e->element[k].modality == modality) most = fmaxf(most, e->element[k].flow);
    return most;
}

/* How many inputs are of a modality. */
static int64_t has(const fused_example *e, int modality)
{
    int64_t count = 0;
    for (int64_t k = 0; k < e->count; k++) count += e->element[k].modality == modality;
    return count;
}

static void put_nodes(inside *in, const fused_example *e)
{
    const fused_task *s = in->m.fused;
    char buf[INSIDE_NAME];
    bool weights = in->fuser->type->weights, shown = in->m.options.show_labels;
    int64_t row[ROWS], rows = strongest(e, 1u << FUSED_GRAPH, ROWS, row);
    fputs("<h4 class=\"graph\"><span class=\"key\">Graph</span></h4>\n", page_markup(in->page));
    page_head(in->page, "node", false);
    page_head(in->page, "relation", false);
    if (shown) page_head(in->page, "class shown", false);
    if (weights) page_head(in->page, "share", true);
    for (int64_t k = 0; k < rows; k++) {
        const fused_element *x = &e->element[row[k]];
        int64_t target = fused_target(s, x->id);
        bool known = target >= 0 && s->known[target] && x->relation < s->data.relations;
        page_row(in->page);
        page_cell(in->page, inside_element(s, x, buf));
        page_cell(in->page, relation_name(s, x->relation, buf));
        if (shown)
            page_cell(in->page,
                      known ? class_name(s->ds->label.names, s->ds->label.cls[target], buf) : "");
        if (weights) page_number(in->page, (double)x->flow, 3);
    }
    put_left_out(in, has(e, FUSED_GRAPH) - rows);
}

static void put_words(inside *in, const fused_example *e)
{
    float most = most_flow(e, FUSED_TEXT);
    char buf[INSIDE_NAME];
    FILE *f = page_markup(in->page);
    fputs("<h4 class=\"text\"><span class=\"key\">Text</span></h4>\n<p class=\"words text\">", f);
    for (int64_t k = 0; k < e->count; k++) {
        const fused_element *x = &e->element[k];
        if (x->modality != FUSED_TEXT) continue;
        fprintf(f, "<span style=\"--w:%.0f\" title=\"%.3f\">",
                most > 0 ? 60 * (double)(x->flow / most) : 0, (double)x->flow);
        page_escape(f, inside_element(in->m.fused, x, buf), -1);
        fputs("</span> ", f);
    }
    fputs("</p>\n", f);
}

/* The pixels as an image within the SVG; without libpng the grid stands alone. */
static void put_pixels(inside *in, FILE *f, int64_t node, double width, double height)
{
#ifdef HAVE_PNG
    const nsm_dataset_images *p = &in->m.ds->node[in->m.ds->target].image;
    size_t count, area = (size_t)(p->height * p->width * p->channels);
    if (p->channels > 4) return;
    const nsm_picture one = { .height = p->height, .width = p->width, .channels = p->channels,
                              .pixel = p->pixel + (size_t)node * area };
    void *bytes = nsmi_png_encode(in->ctx, &one, &count);
    if (!bytes) return;
    fprintf(f, "<image width=\"%.0f\" height=\"%.0f\" style=\"image-rendering:pixelated\" "
               "href=\"data:image/png;base64,", width, height);
    page_base64(f, bytes, count);
    fputs("\"/>\n", f);
    free(bytes);
#else
    (void)in, (void)f, (void)node, (void)width, (void)height;
#endif
}

static void put_picture(inside *in, const fused_example *e)
{
    enum { SIDE = 260 };
    const nsm_dataset_images *p = &in->m.ds->node[in->m.ds->target].image;
    double scale = (double)SIDE / (double)(p->height > p->width ? p->height : p->width),
           width = scale * (double)p->width, height = scale * (double)p->height;
    float most = most_flow(e, FUSED_PICTURE);
    int64_t rows, cols;
    nsm_fused_picture_grid(in->m.fused->model, &rows, &cols);
    FILE *f = page_markup(in->page);
    fputs("<h4 class=\"picture\"><span class=\"key\">Picture</span></h4>\n<div class=\"row\">", f);
    for (int weights = 0; weights < 1 + (most > 0); weights++) {
        fprintf(f, "<svg class=\"picture\" role=\"img\" "
                   "width=\"%.0f\" height=\"%.0f\" aria-label=\"%s\">\n", width, height,
                weights ? "what the answer took of each cell" : "the picture");
        put_pixels(in, f, e->node, width, height);
        for (int64_t k = 0; k < e->count && weights; k++) {
            const fused_element *x = &e->element[k];
            if (x->modality != FUSED_PICTURE) continue;
            fprintf(f, "<rect class=\"cell\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" "
                       "stroke=\"#8888\" fill-opacity=\"%.2f\"><title>row %lld column %lld: %.3f"
                       "</title></rect>\n",
                    (double)(x->id % cols) * width / (double)cols,
                    (double)(x->id / cols) * height / (double)rows, width / (double)cols,
                    height / (double)rows, 0.75 * (double)(x->flow / most),
                    (long long)(x->id / cols) + 1, (long long)(x->id % cols) + 1, (double)x->flow);
        }
        fputs("</svg>\n", f);
    }
    fputs("</div>\n", f);
}

/* Beside each other where there is room. */
static void between(inside *in) { fputs("</div><div>\n", page_markup(in->page)); }

void inside_example(inside *in, const fused_example *e)
{
    const fused_task *s = in->m.fused;
    char buf[INSIDE_NAME];
    page_article(in->page, node_name(in->m.ds, s->data.first + e->node, buf));
    put_answer(in, e);
    put_question(in, e->question);
    put_word(in, e);
    fputs("<div class=\"row\"><div>\n", page_markup(in->page));
    put_classes(in, e);
    between(in);
    if (has(e, FUSED_TEXT)) put_words(in, e);
    if (has(e, FUSED_PICTURE)) put_picture(in, e);
    fputs("</div></div>\n", page_markup(in->page));
    if (in->fuser->type->weights) put_ways(in, e);
    fputs("<div class=\"row\"><div>\n", page_markup(in->page));
    if (in->fuser->states) put_map(in, e);
    between(in);
    if (has(e, FUSED_GRAPH)) put_nodes(in, e);
    fputs("</div></div>\n", page_markup(in->page));
}
