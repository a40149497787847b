/* chart_curves.c - Lines over epochs: title, legend in one row below it, thin grid, and each
 * line's last value at its end. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tools/charts.h"
#include "tools/paper.h"

enum { WIDTH = 1600, HEIGHT = 960, LEFT = 140, RIGHT = 130, TOP = 170, BOTTOM = 110, SERIES = 32 };
static const double left = LEFT, right = WIDTH - RIGHT, bottom = BOTTOM,
                    top = HEIGHT - TOP; /* the plot's corners */

typedef struct {
    double low, high, tick;
} axis;

static double place(const axis *a, double v, double from, double to)
{
    return from + (v - a->low) / (a->high - a->low) * (to - from);
}

static void widen(axis *a, int64_t n, const double *v)
{
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(v[i])) continue;
        a->low = fmin(a->low, v[i]);
        a->high = fmax(a->high, v[i]);
    }
}

/* Round an axis out to its ticks; round = false leaves its ends. */
static void settle(axis *a, int most, bool round)
{
    if (!(a->low <= a->high)) *a = (axis){0, 1, 0}; /* no point at all */
    if (a->high - a->low < 1e-12 * fmax(1, fabs(a->high))) {
        double pad = a->high == 0 ? 1 : 0.5 * fabs(a->high);
        a->low -= pad;
        a->high += pad;
    }
    a->tick = paper_tick(a->high - a->low, most);
    if (!round) return;
    a->low = a->tick * floor(a->low / a->tick + 1e-9);
    a->high = a->tick * ceil(a->high / a->tick - 1e-9);
}

static void draw_frame(const chart_curves *c, const axis *x, const axis *y)
{
    char buf[32];
    for (double v = y->low; v <= y->high + 1e-6 * y->tick; v += y->tick) {
        double at = place(y, v, bottom, top);
        paper_line(left, at, right, at, PAPER_GRID, 1.5);
        paper_text(left - 16, at, 25, PAPER_RIGHT, PAPER_SOFT, paper_number(v, y->tick, buf));
    }
    for (double v = x->tick * ceil(x->low / x->tick - 1e-9); v <= x->high + 1e-6 * x->tick;
         v += x->tick) {
        double at = place(x, v, left, right);
        paper_line(at, bottom, at, top, PAPER_GRID, 1.5);
        paper_line(at, bottom, at, bottom - 8, PAPER_AXIS, 2);
        paper_text(at, bottom - 28, 25, PAPER_MIDDLE, PAPER_SOFT, paper_number(v, x->tick, buf));
    }
    paper_line(left, bottom, right, bottom, PAPER_AXIS, 2);
    paper_title(left, HEIGHT - 52, 38, PAPER_INK, c->title);
    paper_text((left + right) / 2, 34, 27, PAPER_MIDDLE, PAPER_SOFT, c->x_label);
    paper_text_up(34, (bottom + top) / 2, 27, PAPER_MIDDLE, PAPER_SOFT, c->y_label);
}

static void draw_legend(const chart_curves *c)
{
    double at = left;
    for (int i = 0; i < c->count; i++) {
        paper_line(at, HEIGHT - 112, at + 44, HEIGHT - 112, paper_colour(i), 6);
        paper_text(at + 58, HEIGHT - 112, 27, PAPER_LEFT, PAPER_INK, c->series[i].name);
        at += 58 + paper_text_width(c->series[i].name, 27) + 46;
    }
}

/* The runs of points between gaps. */
static void draw_series(const chart_series *s, const axis *x, const axis *y, uint32_t colour)
{
    double *px = malloc((size_t)(s->count + 1) * sizeof *px),
           *py = malloc((size_t)(s->count + 1) * sizeof *py);
    if (!px || !py) paper_fail("out of memory");
    int n = 0;
    for (int64_t i = 0; i <= s->count; i++) {
        if (i < s->count && isfinite(s->y[i])) {
            px[n] = place(x, s->x[i], left, right);
            py[n++] = place(y, fmin(fmax(s->y[i], y->low), y->high), bottom, top);
        } else {
            paper_path(n, px, py, colour, 3.5);
            if (n == 1) paper_disc(px[0], py[0], 5, colour);
            n = 0;
        }
    }
    free(px);
    free(py);
}

/* Last values at the right, moved apart where they would touch. */
static void draw_ends(const chart_curves *c, const axis *y)
{
    double at[SERIES], value[SERIES];
    int order[SERIES], n = 0;
    for (int i = 0; i < c->count; i++) {
        const chart_series *s = &c->series[i];
        int64_t last = s->count - 1;
        while (last >= 0 && !isfinite(s->y[last])) last--;
        if (last < 0) continue;
        value[i] = s->y[last];
        at[i] = place(y, fmin(fmax(value[i], y->low), y->high), bottom, top);
        int k = n++;
        for (; k > 0 && at[order[k - 1]] > at[i]; k--) order[k] = order[k - 1];
        order[k] = i;
    }
    for (int k = 1; k < n; k++) at[order[k]] = fmax(at[order[k]], at[order[k - 1]] + 30);
    for (int k = 0; k < n; k++) {
        char buf[32];
        snprintf(buf, sizeof buf, fabs(value[order[k]]) >= 100 ? "%.0f" : "%.3f", value[order[k]]);
        paper_text(right + 14, at[order[k]], 25, PAPER_LEFT, paper_colour(order[k]), buf);
    }
}

static void draw(const void *user)
{
    const chart_curves *c = user;
    axis x = {INFINITY, -INFINITY, 0}, y = {INFINITY, -INFINITY, 0};
    for (int i = 0; i < c->count; i++) {
        widen(&x, c->series[i].count, c->series[i].x);
        widen(&y, c->series[i].count, c->series[i].y);
    }
    if (c->low < c->high) y = (axis){c->low, c->high, 0};
    settle(&x, 10, false);
    settle(&y, 7, true);
    draw_frame(c, &x, &y);
    draw_legend(c);
    if (c->mark_label && c->mark_x >= x.low && c->mark_x <= x.high) {
        double at = place(&x, c->mark_x, left, right), wide = paper_text_width(c->mark_label, 24);
        bool before = at + wide + 20 > right;
        paper_dashes(at, bottom, at, top, PAPER_SOFT, 2);
        paper_text(at + (before ? -12 : 12), top + 22, 24, before ? PAPER_RIGHT : PAPER_LEFT,
                   PAPER_SOFT, c->mark_label);
    }
    for (int i = c->count - 1; i >= 0; i--) draw_series(&c->series[i], &x, &y, paper_colour(i));
    draw_ends(c, &y);
}

int chart_curves_draw(nsm_ctx *ctx, const char *path, const chart_curves *c)
{
    if (c->count > SERIES)
        return nsm_error_set(ctx, NSM_EINVAL, "%s: %d curves, but at most %d fit", path, c->count,
                             SERIES);
    return paper_draw(ctx, path, WIDTH, HEIGHT, draw, c);
}
