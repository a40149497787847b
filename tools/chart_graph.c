/* chart_graph.c - A picture of a graph: igraph places the nodes, classes colour them, weights
 * (attention) make lines wide and dark.
 *
 * Small graphs are placed by Kamada and Kawai's springs (distances on paper follow distances in the
 * graph), larger ones by Fruchterman and Reingold's, which cost less.  Eyes tell some ten colours
 * apart: classes beyond the most frequent ones are drawn grey as "other". */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "config.h"
#include "tools/charts.h"
#include "tools/paper.h"
#ifdef HAVE_IGRAPH
#include <igraph/igraph.h>
#endif

enum {
    WIDTH = 1700,
    HEIGHT = 1240,
    LEGEND = 380,
    TOP = 150,
    MARGIN = 70,
    SHOWN = 9,
    SPRINGS_MOST = 350,
    NODES_MOST = 20000,
    LABELS = 64
};
static const uint32_t other = 0xa7b0baff;

typedef struct {
    const chart_graph *g;
    double *x, *y;       /* [nodes] on the sheet */
    int *degree;
    int shown[SHOWN];    /* the classes that have a colour of their own */
    int64_t members[SHOWN + 1];
    int shows;
    double radius;
} picture;

/* ---- where the nodes stand ---- */

#ifdef HAVE_IGRAPH
static bool ok(igraph_error_t code) { return code == IGRAPH_SUCCESS; }

static bool place(const chart_graph *g, double *x, double *y)
{
    igraph_t graph;
    igraph_vector_int_t list;
    igraph_matrix_t at;
    igraph_set_error_handler(igraph_error_handler_ignore);
    igraph_rng_seed(igraph_rng_default(), (igraph_uint_t)g->seed);
    if (!ok(igraph_vector_int_init(&list, 2 * g->edges)) || !ok(igraph_matrix_init(&at, 0, 0)))
        return false;
    for (int64_t e = 0; e < g->edges; e++) {
        VECTOR(list)[2 * e] = g->from[e];
        VECTOR(list)[2 * e + 1] = g->to[e];
    }
    if (!ok(igraph_create(&graph, &list, g->nodes, false)) ||
        !ok(igraph_simplify(&graph, true, true, NULL)))
        return false;
    bool done = g->nodes <= SPRINGS_MOST
                    ? ok(igraph_layout_kamada_kawai(&graph, &at, false, 50 * g->nodes, 0.0,
                                                    g->nodes, NULL, NULL, NULL, NULL, NULL))
                    : ok(igraph_layout_fruchterman_reingold(&graph, &at, false, 500, sqrt(g->nodes),
                                                            IGRAPH_LAYOUT_AUTOGRID, NULL, NULL,
                                                            NULL, NULL, NULL));
    for (int i = 0; done && i < g->nodes; i++) {
        x[i] = MATRIX(at, i, 0);
        y[i] = MATRIX(at, i, 1);
    }
    return done; /* the process ends soon: nothing is freed */
}
#else
static bool place(const chart_graph *g, double *x, double *y)
{
    (void)g, (void)x, (void)y;
    paper_fail("this nsm was built without igraph and cannot lay out graphs");
}
#endif

/* Turned so that the longer side lies flat (principal axis), then scaled to the sheet. */
static void fit(int n, double *x, double *y)
{
    double mx = 0, my = 0, xx = 0, yy = 0, xy = 0;
    for (int i = 0; i < n; i++) mx += x[i] / n, my += y[i] / n;
    for (int i = 0; i < n; i++) {
        x[i] -= mx, y[i] -= my;
        xx += x[i] * x[i], yy += y[i] * y[i], xy += x[i] * y[i];
    }
    double turn = 0.5 * atan2(2 * xy, xx - yy), c = cos(turn), s = sin(turn);
    double low[2] = {INFINITY, INFINITY}, high[2] = {-INFINITY, -INFINITY};
    for (int i = 0; i < n; i++) {
        double a = c * x[i] + s * y[i], b = c * y[i] - s * x[i];
        x[i] = a, y[i] = b;
        low[0] = fmin(low[0], a), high[0] = fmax(high[0], a);
        low[1] = fmin(low[1], b), high[1] = fmax(high[1], b);
    }
    double wide = WIDTH - LEGEND - 2 * MARGIN, tall = HEIGHT - TOP - 2 * MARGIN;
    double scale_x = wide / fmax(high[0] - low[0], 1e-9),
           scale_y = tall / fmax(high[1] - low[1], 1e-9);
    double most = 1.35 * fmin(scale_x, scale_y); /* a little stretch fills the sheet */
    scale_x = fmin(scale_x, most), scale_y = fmin(scale_y, most);
    for (int i = 0; i < n; i++) {
        x[i] = MARGIN + wide / 2 + scale_x * (x[i] - (low[0] + high[0]) / 2);
        y[i] = MARGIN + tall / 2 + scale_y * (y[i] - (low[1] + high[1]) / 2);
    }
}

/* ---- colours ---- */

static void choose_colours(picture *p)
{
    const chart_graph *g = p->g;
    int64_t *count = calloc((size_t)g->classes + 1, sizeof *count);
    if (!count) paper_fail("out of memory");
    int kinds = 0;
    for (int i = 0; i < g->nodes; i++)
        if (g->colour && g->colour[i] >= 0 && g->colour[i] < g->classes)
            kinds += count[g->colour[i]]++ == 0;
        else p->members[SHOWN]++;
    while (p->shows < SHOWN) {
        int best = -1;
        for (int k = 0; k < g->classes; k++)
            if (count[k] > 0 && (best < 0 || count[k] > count[best])) best = k;
        if (best < 0) break;
        p->shown[p->shows] = best;
        p->members[p->shows++] = count[best];
        count[best] = 0;
    }
    for (int k = 0; k < g->classes; k++) p->members[SHOWN] += count[k];
    free(count);
}

static uint32_t colour_of(const picture *p, int i)
{
    for (int k = 0; k < p->shows; k++)
        if (p->g->colour[i] == p->shown[k]) return paper_colour(k);
    return other;
}

/* ---- drawing ---- */

static void draw_arrow(const picture *p, int to, double dx, double dy, double width,
                       uint32_t colour)
{
    double length = hypot(dx, dy), tip = p->radius + 3, size = 7 + 1.6 * width;
    if (length < tip + size) return;
    dx /= length, dy /= length;
    double x = p->x[to] - tip * dx, y = p->y[to] - tip * dy;
    double bx = x - size * dx, by = y - size * dy, half = 0.42 * size;
    paper_fill(3, (double[]){x, bx - half * dy, bx + half * dy},
               (double[]){y, by + half * dx, by - half * dx}, colour);
}

static void draw_edges(const picture *p)
{
    const chart_graph *g = p->g;
    double most = 0;
    for (int64_t e = 0; g->weight && e < g->edges; e++)
        if (g->from[e] != g->to[e]) most = fmax(most, g->weight[e]);
    double plain = g->edges > 2000 ? 0.18 : g->edges > 400 ? 0.3 : 0.5;
    for (int64_t e = 0; e < g->edges; e++) {
        int a = g->from[e], b = g->to[e];
        if (a == b) continue;
        double share = g->weight && most > 0 ? g->weight[e] / most : 0;
        double alpha = g->weight ? 0.12 + 0.73 * share : plain,
               width = g->weight ? 1 + 7 * share : 1.5;
        uint32_t colour = paper_alpha(0x3e4c59ff, alpha);
        paper_line(p->x[a], p->y[a], p->x[b], p->y[b], colour, width);
        if (g->directed) draw_arrow(p, b, p->x[b] - p->x[a], p->y[b] - p->y[a], width, colour);
    }
}

static void draw_nodes(const picture *p)
{
    double r = p->radius, ring = fmax(1, 0.14 * r);
    int centre = p->g->centre;
    for (int i = 0; i < p->g->nodes; i++) {
        if (i == centre) continue;
        paper_disc(p->x[i], p->y[i], r + ring, PAPER_WHITE);
        paper_disc(p->x[i], p->y[i], r, colour_of(p, i));
    }
    if (centre < 0 || centre >= p->g->nodes) return;
    r = fmax(1.5 * r, 16);
    paper_disc(p->x[centre], p->y[centre], 1.75 * r, paper_alpha(colour_of(p, centre), 0.25));
    paper_disc(p->x[centre], p->y[centre], 1.3 * r, PAPER_INK);
    paper_disc(p->x[centre], p->y[centre], 1.14 * r, PAPER_WHITE);
    paper_disc(p->x[centre], p->y[centre], r, colour_of(p, centre));
}

/* Labels go where they cover neither another label nor a node; the centre and nodes of many edges
 * first. */
typedef struct {
    double x0, y0, x1, y1;
} box;

static bool is_free(const picture *p, int self, const box *b, const box *taken, int boxes)
{
    if (b->x0 < 8 || b->x1 > WIDTH - LEGEND + 60 || b->y0 < 8 || b->y1 > HEIGHT - TOP + 20)
        return false;
    for (int k = 0; k < boxes; k++)
        if (b->x0 < taken[k].x1 && b->x1 > taken[k].x0 && b->y0 < taken[k].y1 &&
            b->y1 > taken[k].y0)
            return false;
    for (int i = 0; i < p->g->nodes; i++) {
        double dx = fmax(fmax(b->x0 - p->x[i], p->x[i] - b->x1), 0),
               dy = fmax(fmax(b->y0 - p->y[i], p->y[i] - b->y1), 0);
        if (i != self && dx * dx + dy * dy < p->radius * p->radius) return false;
    }
    return true;
}

static void draw_label(const picture *p, int i, box *taken, int *boxes)
{
    double size = i == p->g->centre ? 28 : 21,
           r = i == p->g->centre ? 2.2 * fmax(1.5 * p->radius, 16) / 1.5 : p->radius;
    double wide = paper_text_width(p->g->name[i], size), tall = 1.1 * size;
    const double way[4][2] = {{1, 0}, {-1, 0}, {0, 1}, {0, -1}};
    for (int k = 0; k < 4; k++) {
        double x = p->x[i] + way[k][0] * (r + 8 + wide / 2),
               y = p->y[i] + way[k][1] * (r + 6 + tall / 2);
        box b = {x - wide / 2, y - tall / 2, x + wide / 2, y + tall / 2};
        if (!is_free(p, i, &b, taken, *boxes)) continue;
        for (int q = 0; q < 8; q++)
            paper_text(x + 2.5 * cos(q * M_PI / 4), y + 2.5 * sin(q * M_PI / 4), size, PAPER_MIDDLE,
                       0xffffffd0, p->g->name[i]);
        paper_text(x, y, size, PAPER_MIDDLE, PAPER_INK, p->g->name[i]);
        taken[(*boxes)++] = b;
        return;
    }
}

static void draw_labels(const picture *p)
{
    box taken[LABELS];
    int boxes = 0;
    char *done = calloc((size_t)p->g->nodes, 1);
    if (!done) paper_fail("out of memory");
    if (p->g->centre >= 0) draw_label(p, p->g->centre, taken, &boxes), done[p->g->centre] = 1;
    for (int tries = 0; tries < 4 * LABELS && boxes < LABELS; tries++) {
        int best = -1;
        for (int i = 0; i < p->g->nodes; i++)
            if (!done[i] && (best < 0 || p->degree[i] > p->degree[best])) best = i;
        if (best < 0) break;
        done[best] = 1;
        draw_label(p, best, taken, &boxes);
    }
    free(done);
}

static void draw_legend(const picture *p)
{
    double x = WIDTH - LEGEND + 30, y = HEIGHT - TOP - MARGIN;
    for (int k = 0; k <= p->shows; k++) {
        bool rest = k == p->shows;
        int64_t members = p->members[rest ? SHOWN : k];
        char buf[300], number[32];
        if (members == 0) continue;
        snprintf(number, sizeof number, "class %d", rest ? 0 : p->shown[k]);
        snprintf(buf, sizeof buf, "%.40s",
                 rest               ? p->shows ? "other" : "nodes"
                 : p->g->class_name ? p->g->class_name[p->shown[k]]
                                    : number);
        paper_disc(x, y, 12, rest ? other : paper_colour(k));
        paper_text(x + 28, y, 25, PAPER_LEFT, PAPER_INK, buf);
        double wide = paper_text_width(buf, 25);
        snprintf(buf, sizeof buf, "%lld", (long long)members);
        paper_text(x + 28 + wide + 16, y, 22, PAPER_LEFT, PAPER_AXIS, buf);
        y -= 46;
    }
}

static void draw(const void *user)
{
    const chart_graph *g = user;
    size_t n = (size_t)g->nodes;
    picture p = {.g = g,
                 .x = malloc(n * sizeof *p.x),
                 .y = malloc(n * sizeof *p.y),
                 .degree = calloc(n, sizeof *p.degree)};
    if (!p.x || !p.y || !p.degree) paper_fail("out of memory");
    if (!place(g, p.x, p.y)) paper_fail("igraph could not lay out the graph");
    fit(g->nodes, p.x, p.y);
    for (int64_t e = 0; e < g->edges; e++) p.degree[g->from[e]]++, p.degree[g->to[e]]++;
    p.radius = fmax(3.5, fmin(19, 200 / sqrt(g->nodes)));
    choose_colours(&p);
    draw_edges(&p);
    draw_nodes(&p);
    if (g->name) draw_labels(&p);
    draw_legend(&p);
    paper_title(48, HEIGHT - 52, 38, PAPER_INK, g->title);
    if (g->note) paper_text(48, HEIGHT - 102, 25, PAPER_LEFT, PAPER_SOFT, g->note);
    free(p.x);
    free(p.y);
    free(p.degree);
}

int chart_graph_draw(nsm_ctx *ctx, const char *path, const chart_graph *g)
{
    if (g->nodes < 1 || g->nodes > NODES_MOST)
        return nsm_error_set(ctx, NSM_EINVAL, "%s: a picture of %d nodes; 1 to %d fit", path,
                             g->nodes, NODES_MOST);
    for (int64_t e = 0; e < g->edges; e++)
        if (g->from[e] < 0 || g->from[e] >= g->nodes || g->to[e] < 0 || g->to[e] >= g->nodes)
            return nsm_error_set(ctx, NSM_EINVAL, "%s: edge %lld has an end outside the %d nodes",
                                 path, (long long)e, g->nodes);
    return paper_draw(ctx, path, WIDTH, HEIGHT, draw, g);
}
