/* chart_curves.c - Lines over epochs: title, legend in one row below it, thin grid, and each
 * line's last value at its end; or lines over anything, by powers of ten, with their names
 * there. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tools/charts.h"
#include "tools/paper.h"

enum {
    WIDTH = 1600,
    HEIGHT = 960,
    LEFT = 140,
    RIGHT = 130,
    NAMES = 330,
    TOP = 170,
    BOTTOM = 110,
    SERIES = 64
};
static const double left = LEFT, bottom = BOTTOM, top = HEIGHT - TOP; /* the plot's corners ... */
/* ... set in the drawing process */
static double right;

/* Of a log axis low, high and tick are decimal logarithms. */
typedef struct {
    double low, high, tick;
    bool log;
} axis;

static double scaled(const axis *a, double v) { return !a->log ? v : v > 0 ? log10(v) : NAN; }

static double place(const axis *a, double v, double from, double to)
{
    return from + (scaled(a, v) - a->low) / (a->high - a->low) * (to - from);
}

/* The same, values beyond the axis put to its ends. */
static double inside(const axis *a, double v, double from, double to)
{
    return fmin(fmax(place(a, v, from, to), from), to);
}

static void widen(axis *a, int64_t n, const double *v)
{
    for (int64_t i = 0; i < n; i++) {
        double at = scaled(a, v[i]);
        if (!isfinite(at)) continue;
        a->low = fmin(a->low, at);
        a->high = fmax(a->high, at);
    }
}

/* Round an axis out to its ticks; round = false leaves its ends. */
static void settle(axis *a, int most, bool round)
{
    if (!(a->low <= a->high)) *a = (axis){0, 1, 0, a->log}; /* no point at all */
    if (a->high - a->low < 1e-12 * fmax(1, fabs(a->high))) {
        double pad = a->high == 0 ? 1 : 0.5 * fabs(a->high);
        a->low -= pad;
        a->high += pad;
    }
    a->tick = a->log ? 1 : paper_tick(a->high - a->low, most);
    if (!round) return;
    if (a->log) a->tick = 0.5; /* not whole powers alone: less room is lost */
    a->low = a->tick * floor(a->low / a->tick + 1e-9);
    a->high = a->tick * ceil(a->high / a->tick - 1e-9);
}

/* The next tick of an axis after v, ticks being 1, 2, 5 in every power of ten on a log axis. */
static double first_tick(const axis *a)
{
    return a->log ? pow(10, floor(a->low)) : a->tick * ceil(a->low / a->tick - 1e-9);
}

static double next_tick(const axis *a, double v)
{
    if (!a->log) return v + a->tick;
    double unit = pow(10, floor(log10(v) + 1e-9));
    return v < 1.5 * unit ? 2 * unit : v < 3 * unit ? 5 * unit : 10 * unit;
}

static bool past_end(const axis *a, double v) { return scaled(a, v) > a->high + 1e-6 * a->tick; }
static bool on_axis(const axis *a, double v)
{
    return !past_end(a, v) && scaled(a, v) > a->low - 1e-6 * a->tick;
}

static const char *tick_text(const axis *a, double v, char buf[32])
{
    if (!a->log) return paper_number(v, a->tick, buf);
    const char *unit = v >= 1e9 ? "G" : v >= 1e6 ? "M" : v >= 1e4 ? "k" : "";
    snprintf(buf, 32, "%g%s",
             v >= 1e9   ? v / 1e9
             : v >= 1e6 ? v / 1e6
             : v >= 1e4 ? v / 1e3
                        : v,
             unit);
    return buf;
}

static void draw_frame(const chart_curves *c, const axis *x, const axis *y)
{
    char buf[32];
    for (double v = first_tick(y); !past_end(y, v); v = next_tick(y, v)) {
        if (!on_axis(y, v)) continue;
        double at = place(y, v, bottom, top);
        paper_line(left, at, right, at, PAPER_GRID, 1.5);
        paper_text(left - 16, at, 25, PAPER_RIGHT, PAPER_SOFT, tick_text(y, v, buf));
    }
    for (double v = first_tick(x); !past_end(x, v); v = next_tick(x, v)) {
        if (!on_axis(x, v)) continue;
        double at = place(x, v, left, right);
        paper_line(at, bottom, at, top, PAPER_GRID, 1.5);
        paper_line(at, bottom, at, bottom - 8, PAPER_AXIS, 2);
        paper_text(at, bottom - 28, 25, PAPER_MIDDLE, PAPER_SOFT, tick_text(x, v, buf));
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
static void draw_series(const chart_series *s, const axis *x, const axis *y, uint32_t colour,
                        bool mark)
{
    double *px = malloc((size_t)(s->count + 1) * sizeof *px),
           *py = malloc((size_t)(s->count + 1) * sizeof *py);
    if (!px || !py) paper_fail("out of memory");
    int n = 0;
    for (int64_t i = 0; i <= s->count; i++) {
        if (i < s->count && isfinite(scaled(y, s->y[i])) && isfinite(scaled(x, s->x[i]))) {
            px[n] = place(x, s->x[i], left, right);
            py[n] = inside(y, s->y[i], bottom, top);
            if (mark) paper_disc(px[n], py[n], 7, colour);
            n++;
        } else {
            paper_path(n, px, py, colour, 3.5);
            if (n == 1) paper_disc(px[0], py[0], 5, colour);
            n = 0;
        }
    }
    free(px);
    free(py);
}

/* Last values (or names) at the right, moved apart where they would touch. */
static void draw_ends(const chart_curves *c, const axis *y)
{
    double at[SERIES], value[SERIES];
    int order[SERIES], n = 0;
    for (int i = 0; i < c->count; i++) {
        const chart_series *s = &c->series[i];
        int64_t last = s->count - 1;
        while (last >= 0 && !isfinite(scaled(y, s->y[last]))) last--;
        if (last < 0) continue;
        value[i] = s->y[last];
        at[i] = inside(y, value[i], bottom, top);
        int k = n++;
        for (; k > 0 && at[order[k - 1]] > at[i]; k--) order[k] = order[k - 1];
        order[k] = i;
    }
    for (int k = 1; k < n; k++) at[order[k]] = fmax(at[order[k]], at[order[k - 1]] + 30);
    double over = n ? fmax(0, at[order[n - 1]] - top) : 0; /* the uppermost stays on the sheet */
    for (int k = n - 1; k >= 0 && over > 0; k--)
        at[order[k]] = fmin(at[order[k]], k == n - 1 ? top : at[order[k + 1]] - 30);
    for (int k = 0; k < n; k++) {
        char buf[32];
        snprintf(buf, sizeof buf, fabs(value[order[k]]) >= 100 ? "%.0f" : "%.3f", value[order[k]]);
        paper_text(right + 14, at[order[k]], c->named_ends ? 22 : 25, PAPER_LEFT,
                   paper_colour(order[k]), c->named_ends ? c->series[order[k]].name : buf);
    }
}

static void draw(const void *user)
{
    const chart_curves *c = user;
    axis x = {INFINITY, -INFINITY, 0, c->log_x}, y = {INFINITY, -INFINITY, 0, c->log_y};
    right = WIDTH - (c->named_ends ? NAMES : RIGHT);
    for (int i = 0; i < c->count; i++) {
        widen(&x, c->series[i].count, c->series[i].x);
        widen(&y, c->series[i].count, c->series[i].y);
    }
    if (c->low < c->high) y = (axis){scaled(&y, c->low), scaled(&y, c->high), 0, c->log_y};
    settle(&x, 10, false);
    double pad = c->named_ends ? 0.02 * (x.high - x.low) : 0; /* marks stand clear of the frame */
    x.low -= pad;
    x.high += pad;
    settle(&y, 7, true);
    draw_frame(c, &x, &y);
    if (!c->named_ends) draw_legend(c);
    if (c->mark_label && on_axis(&x, c->mark_x)) {
        double at = place(&x, c->mark_x, left, right), wide = paper_text_width(c->mark_label, 24);
        bool before = at + wide + 20 > right;
        paper_dashes(at, bottom, at, top, PAPER_SOFT, 2);
        paper_text(at + (before ? -12 : 12), top + 22, 24, before ? PAPER_RIGHT : PAPER_LEFT,
                   PAPER_SOFT, c->mark_label);
    }
    for (int i = c->count - 1; i >= 0; i--)
        draw_series(&c->series[i], &x, &y, paper_colour(i), c->named_ends);
    draw_ends(c, &y);
}

int chart_curves_draw(nsm_ctx *ctx, const char *path, const chart_curves *c)
{
    if (c->count > SERIES)
        return nsm_error_set(ctx, NSM_EINVAL, "%s: %d curves, but at most %d fit", path, c->count,
                             SERIES);
    return paper_draw(ctx, path, WIDTH, HEIGHT, draw, c);
}
