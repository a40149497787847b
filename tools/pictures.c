/* pictures.c - Charts of runs, predictions and neighbourhoods. */
#include "tools/pictures.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tools/charts.h"
#include "tools/run.h"

enum { SERIES_MOST = 12, NAME = 512 };

/* ---- curves ---- */

static bool is_loss(const char *name) { return strstr(name, "loss") != NULL; }

static bool is_score(const char *name)
{
    static const char *const no[] = {"seconds", "lr",   "learning_rate", "epoch",
                                     "step",    "norm", "time",          "_ms", "states"};
    for (size_t i = 0; i < sizeof no / sizeof *no; i++)
        if (strstr(name, no[i])) return false;
    return !is_loss(name);
}

static int draw_columns(nsm_ctx *ctx, const char *path, const run_table *t, chart_curves *c,
                        bool (*wanted)(const char *))
{
    chart_series s[SERIES_MOST];
    c->count = 0;
    for (int k = 1; k < t->columns && c->count < SERIES_MOST; k++)
        if (wanted(t->name[k]))
            s[c->count++] = (chart_series){t->name[k], t->rows, t->value, t->value + k * t->rows};
    c->series = s;
    return c->count && t->rows ? chart_curves_draw(ctx, path, c) : nsm_error(ctx);
}

int picture_curves(nsm_ctx *ctx, const char *folder, const char *title, int64_t mark)
{
    run_table t;
    char path[4096], text[NAME], label[64];
    snprintf(path, sizeof path, "%s/log.csv", folder);
    if (run_table_read(ctx, &t, path)) return nsm_error(ctx);
    snprintf(label, sizeof label, "kept: epoch %lld", (long long)mark);
    chart_curves c = {.title = text,
                      .x_label = t.columns ? t.name[0] : "",
                      .y_label = "loss",
                      .mark_x = (double)mark,
                      .mark_label = mark >= 0 ? label : NULL};
    snprintf(text, sizeof text, "Loss of %.400s", title);
    snprintf(path, sizeof path, "%s/loss.png", folder);
    draw_columns(ctx, path, &t, &c, is_loss);
    c.y_label = "share of right answers";
    snprintf(text, sizeof text, "Accuracy of %.400s", title);
    snprintf(path, sizeof path, "%s/accuracy.png", folder);
    draw_columns(ctx, path, &t, &c, is_score);
    run_table_free(&t);
    return nsm_error(ctx);
}

/* ---- classes ---- */

int picture_classes(nsm_ctx *ctx, const char *folder, const char *title, int classes,
                    char *const *class_name, int64_t n, const int32_t *truth, const int32_t *guess)
{
    char path[4096], text[NAME];
    if (nsm_error(ctx)) return nsm_error(ctx);
    int64_t *count = calloc((size_t)classes * (size_t)classes + 1, sizeof *count);
    if (!count)
        return nsm_error_set(ctx, NSM_ENOMEM, "out of memory for a matrix of %d classes", classes);
    for (int64_t i = 0; i < n; i++)
        if (truth[i] >= 0 && truth[i] < classes && guess[i] >= 0 && guess[i] < classes)
            count[(int64_t)truth[i] * classes + guess[i]]++;
    chart_confusion c = {.title = text, .classes = classes, .count = count, .name = class_name};
    snprintf(text, sizeof text, "Confusion of %.400s", title);
    snprintf(path, sizeof path, "%s/confusion.png", folder);
    chart_confusion_draw(ctx, path, &c);
    snprintf(text, sizeof text, "Classes found by %.400s", title);
    snprintf(path, sizeof path, "%s/classes.png", folder);
    if (!nsm_error(ctx)) chart_classes_draw(ctx, path, &c);
    free(count);
    return nsm_error(ctx);
}

/* ---- a neighbourhood ---- */

typedef struct {
    nsm_ctx *ctx;
    int64_t nodes, edges;
    const int32_t *src, *dst;
    const float *weight;  /* NULL: alike */
    int64_t *ptr;         /* [nodes + 1] edges that touch a node: ... */
    int32_t *touch;       /* [2 edges] ... their numbers */
    int32_t *place;       /* [nodes] number in the picture, -1 none */
    int32_t *chosen;      /* [most] nodes of the picture */
    int count;
} surroundings;

static bool index_edges(surroundings *s)
{
    s->ptr = calloc((size_t)s->nodes + 2, sizeof *s->ptr);
    s->touch = malloc((size_t)(2 * s->edges + 1) * sizeof *s->touch);
    s->place = malloc((size_t)(s->nodes + 1) * sizeof *s->place);
    if (!s->ptr || !s->touch || !s->place) return false;
    memset(s->place, 255, (size_t)s->nodes * sizeof *s->place);
    /* Counted two places ahead and filled one place ahead, so that at the end ptr[i] begins node
     * i. */
    for (int64_t e = 0; e < s->edges; e++) {
        s->ptr[s->src[e] + 2]++;
        if (s->dst[e] != s->src[e]) s->ptr[s->dst[e] + 2]++;
    }
    for (int64_t i = 2; i <= s->nodes + 1; i++) s->ptr[i] += s->ptr[i - 1];
    for (int64_t e = 0; e < s->edges; e++) {
        s->touch[s->ptr[s->src[e] + 1]++] = (int32_t)e;
        if (s->dst[e] != s->src[e]) s->touch[s->ptr[s->dst[e] + 1]++] = (int32_t)e;
    }
    return true;
}

typedef struct {
    int32_t node;
    float weight;
} candidate;

static int heaviest_first(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    if (x->weight != y->weight) return x->weight < y->weight ? 1 : -1;
    return (x->node > y->node) - (x->node < y->node);
}

/* Add the neighbours of a node, those of the greatest weight first, `room` at most. */
static bool add_neighbours(surroundings *s, int32_t node, int room)
{
    int64_t degree = s->ptr[node + 1] - s->ptr[node];
    candidate *c = malloc((size_t)(degree + 1) * sizeof *c);
    if (!c) return false;
    int64_t n = 0;
    for (int64_t k = s->ptr[node]; k < s->ptr[node + 1]; k++) {
        int32_t e = s->touch[k], there = s->src[e] == node ? s->dst[e] : s->src[e];
        bool incoming = s->dst[e] == node;
        if (s->place[there] < 0)
            c[n++] = (candidate){there, s->weight ? incoming ? s->weight[e] : -1 : 0};
    }
    if (n) qsort(c, (size_t)n, sizeof *c, heaviest_first);
    for (int64_t i = 0; i < n && room > 0; i++) {
        if (s->place[c[i].node] >= 0) continue;
        s->place[c[i].node] = s->count;
        s->chosen[s->count++] = c[i].node;
        room--;
    }
    free(c);
    return true;
}

/* Hop by hop; each node of the last hop may bring an equal part of what is left. */
static bool choose_nodes(surroundings *s, int32_t centre, int hops, int most)
{
    s->chosen = malloc((size_t)(most + 1) * sizeof *s->chosen);
    if (!s->chosen) return false;
    s->place[centre] = 0;
    s->chosen[s->count++] = centre;
    for (int hop = 0, first = 0; hop < hops && s->count < most; hop++) {
        int last = s->count,
            budget = hop + 1 < hops ? (most - 1) * (hop + 1) / (2 * hops - 1) : most;
        for (int i = first; i < last && s->count < most; i++) {
            int room = (most - s->count + (last - i) - 1) / (last - i);
            if (!add_neighbours(s, s->chosen[i],
                                hop == 0 && hops > 1 && room > budget ? budget : room))
                return false;
        }
        first = last;
    }
    return true;
}

/* The edges between chosen nodes; of an undirected pair without weights one direction is enough. */
static void choose_edges(const surroundings *s, chart_graph *g, int32_t *from, int32_t *to,
                         double *weight)
{
    for (int i = 0; i < s->count; i++) {
        int32_t node = s->chosen[i];
        for (int64_t k = s->ptr[node]; k < s->ptr[node + 1]; k++) {
            int32_t e = s->touch[k], a = s->src[e], b = s->dst[e];
            if (a == b || b != node || s->place[a] < 0)
                continue; /* each edge once: at its destination */
            if (!g->directed && s->place[a] > s->place[b]) continue;
            from[g->edges] = s->place[a];
            to[g->edges] = s->place[b];
            if (s->weight) weight[g->edges] = s->weight[e];
            g->edges++;
        }
    }
}

static int64_t count_edges(const surroundings *s)
{
    int64_t n = 0;
    for (int i = 0; i < s->count; i++) n += s->ptr[s->chosen[i] + 1] - s->ptr[s->chosen[i]];
    return n;
}

/* The first of several names, cut if long, with spaces for underscores. */
char *picture_name(const char *name)
{
    enum { MOST = 22 };
    char *s = malloc(MOST + 8);
    size_t n = strcspn(name, ",;");
    if (!s) return NULL;
    if (n <= MOST) snprintf(s, MOST + 8, "%.*s", (int)n, name);
    else {
        n = MOST - 2;
        while (n > 0 && ((unsigned char)name[n] & 0xc0) == 0x80) n--;
        snprintf(s, MOST + 8, "%.*s..", (int)n, name);
    }
    for (char *p = s; *p; p++) *p = *p == '_' ? ' ' : *p;
    return s;
}

static int draw_surroundings(surroundings *s, const char *path, const nsm_dataset *ds,
                             const neighbourhood *h)
{
    const nsm_dataset_nodes *nodes = &ds->node[ds->target];
    const int32_t *cls = h->guess                                                    ? h->guess
                         : ds->label.kind == NSM_LABEL_CLASS && !ds->label.of_graphs ? ds->label.cls
                                                                                     : NULL;
    size_t room = (size_t)count_edges(s) + 1, n = (size_t)s->count;
    int32_t *from = malloc(room * sizeof *from), *to = malloc(room * sizeof *to),
            *colour = malloc(n * sizeof *colour);
    double *weight = malloc(room * sizeof *weight);
    char **name = calloc(n, sizeof *name), title[NAME], note[NAME];
    bool ok = from && to && colour && weight && name;
    for (int i = 0; ok && i < s->count; i++) {
        colour[i] = cls ? cls[s->chosen[i]] : -1;
        if (nodes->names) ok = (name[i] = picture_name(nodes->names[s->chosen[i]])) != NULL;
    }
    chart_graph g = {.title = h->title ? h->title : title,
                     .note = h->note ? h->note : note,
                     .nodes = s->count,
                     .from = from,
                     .to = to,
                     .weight = s->weight ? weight : NULL,
                     .colour = colour,
                     .classes = cls ? (int)ds->label.columns : 0,
                     .class_name = ds->label.names,
                     .name = nodes->names ? name : NULL,
                     .centre = 0,
                     .directed = s->weight || ds->directed,
                     .seed = h->seed};
    if (nodes->names) snprintf(title, sizeof title, "Neighbourhood of %s", ok ? name[0] : "");
    else snprintf(title, sizeof title, "Neighbourhood of node %lld", (long long)h->node);
    snprintf(note, sizeof note, "%d hop%s, %d nodes, coloured by %s class%s", h->hops,
             h->hops == 1 ? "" : "s", s->count, h->guess ? "predicted" : "true",
             s->weight ? "; width of a line: attention" : "");
    if (ok) choose_edges(s, &g, from, to, weight);
    if (ok) chart_graph_draw(s->ctx, path, &g);
    else nsm_error_set(s->ctx, NSM_ENOMEM, "out of memory for %s", path);
    for (int i = 0; name && i < s->count; i++) free(name[i]);
    free(name);
    free(from);
    free(to);
    free(colour);
    free(weight);
    return nsm_error(s->ctx);
}

int picture_neighbourhood(nsm_ctx *ctx, const char *path, const nsm_dataset *ds,
                          const neighbourhood *given)
{
    neighbourhood h = *given;
    int32_t *src = NULL, *dst = NULL;
    surroundings s = {.ctx = ctx,
                      .nodes = ds->node[ds->target].count,
                      .edges = h.edges,
                      .src = h.src,
                      .dst = h.dst,
                      .weight = h.attention};
    if (nsm_error(ctx)) return nsm_error(ctx);
    if (h.hops <= 0) h.hops = 2;
    if (h.most <= 0) h.most = 80;
    if (h.node < 0 || h.node >= s.nodes)
        return nsm_error_set(ctx, NSM_EINVAL, "node %lld is not one of the %lld nodes",
                             (long long)h.node, (long long)s.nodes);
    if (!h.attention) {
        if (nsm_dataset_edges_merged(ds, ds->target, &s.edges, &src, &dst, NULL))
            return nsm_error(ctx);
        s.src = src;
        s.dst = dst;
    }
    if (index_edges(&s) && choose_nodes(&s, (int32_t)h.node, h.hops, h.most))
        draw_surroundings(&s, path, ds, &h);
    else nsm_error_set(ctx, NSM_ENOMEM, "out of memory for %s", path);
    nsm_dataset_release(src);
    nsm_dataset_release(dst);
    free(s.ptr);
    free(s.touch);
    free(s.place);
    free(s.chosen);
    return nsm_error(ctx);
}

int picture_model(nsm_ctx *ctx, const char *path, const nsm_dataset *ds, node_task *n,
                  neighbourhood h)
{
    node_edges e;
    if (node_task_edges(n, &e)) return nsm_error(ctx);
    h.edges = e.count;
    h.src = e.src;
    h.dst = e.dst;
    h.attention = e.attention;
    picture_neighbourhood(ctx, path, ds, &h);
    node_edges_clear(&e);
    return nsm_error(ctx);
}

int64_t picture_node(nsm_ctx *ctx, const nsm_dataset *ds, uint64_t seed)
{
    int64_t edges, nodes = ds->node[ds->target].count, best = 0;
    int32_t *dst = NULL;
    if (nsm_error(ctx) || nsm_dataset_edges_merged(ds, ds->target, &edges, NULL, &dst, NULL))
        return 0;
    int32_t *degree = calloc((size_t)nodes + 1, sizeof *degree);
    for (int64_t e = 0; degree && e < edges; e++) degree[dst[e]]++;
    if (!degree) nsm_error_set(ctx, NSM_ENOMEM, "out of memory for choosing a node");
    /* From a place that depends on the seed, the first node of 6 to 14 edges; else the one of
     * most. */
    for (int64_t i = 0; degree && i < nodes; i++) {
        int64_t node = (i + (int64_t)(seed * 7919 % (uint64_t)nodes)) % nodes;
        if (degree[node] > degree[best]) best = node;
        if (degree[node] < 6 || degree[node] > 14) continue;
        best = node;
        break;
    }
    free(degree);
    nsm_dataset_release(dst);
    return best;
}
