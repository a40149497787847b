/* chart_map.c - Maps: shades of values, rows over columns, several below each other, with
 * marks in them. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "tools/charts.h"
#include "tools/paper.h"

enum {
    WIDTH = 1600,
    LEFT = 110,
    RIGHT = 40,
    TOP = 150,
    BOTTOM = 120,
    GAP = 74,
    PANEL_LEAST = 130,
    PANEL_MOST = 620,
    CELL_MOST = 14
};
static const uint32_t mark_colour[CHART_MARKS] = { 0x009e73ff, 0xe69f00ff, 0xd55e00ff };
static const char *const mark_name[CHART_MARKS] = { "opened", "used again", "given up" };

static int height_of(const chart_panel *p)
{
    int64_t height = p->rows * CELL_MOST;
    return height < PANEL_LEAST ? PANEL_LEAST : height > PANEL_MOST ? PANEL_MOST : (int)height;
}

/* Cells of nothing are left white; where a pixel has several cells the last one drawn shows, so the
 * largest is drawn. */
static void draw_cells(const chart_map *m, const chart_panel *p, double low, double high)
{
    double wide = (WIDTH - LEFT - RIGHT) / (double)m->columns,
           tall = (high - low) / (double)p->rows, most = p->high;
    int64_t step = wide < 1 ? (int64_t)ceil(1 / wide) : 1;
    for (int64_t i = 0; i < p->rows * m->columns && p->high <= 0; i++)
        most = fmax(most, (double)p->value[i]);
    for (int64_t r = 0; r < p->rows; r++)
        for (int64_t c = 0; c < m->columns; c += step) {
            double v = 0;
            for (int64_t k = c; k < c + step && k < m->columns; k++)
                v = fmax(v, (double)p->value[r * m->columns + k]);
            double x = LEFT + (double)c * wide, y = high - (double)(r + 1) * tall;
            if (v > 0.005 * most)
                paper_box(x, y, x + wide * (double)step, y + tall,
                          paper_shade(0.08 + 0.92 * v / most));
        }
}

static void draw_marks(const chart_map *m, const chart_panel *p, double low, double high)
{
    double wide = (WIDTH - LEFT - RIGHT) / (double)m->columns,
           tall = (high - low) / (double)p->rows;
    for (int64_t k = 0; k < p->marks; k++)
        paper_disc(LEFT + ((double)p->mark[k].column + 0.5) * wide,
                   high - ((double)p->mark[k].row + 0.5) * tall, fmin(5, fmax(2, tall / 2.4)),
                   mark_colour[p->mark[k].kind]);
}

static void draw_panel(const chart_map *m, const chart_panel *p, double low, double high)
{
    char number[32];
    double tick = fmax(1, paper_tick((double)p->rows, (int)fmax(2, (high - low) / 60))),
           tall = (high - low) / (double)p->rows;
    paper_text(LEFT, high + 22, 25, PAPER_LEFT, PAPER_INK, p->title);
    paper_text_up(30, (low + high) / 2, 22, PAPER_MIDDLE, PAPER_SOFT, p->row_label);
    draw_cells(m, p, low, high);
    for (double r = 0; r < (double)p->rows && p->rows > 1; r += tick)
        paper_text(LEFT - 14, high - (r + 0.5) * tall, 20, PAPER_RIGHT, PAPER_SOFT,
                   paper_number(r, tick, number));
    paper_path(5, (double[]){ LEFT, WIDTH - RIGHT, WIDTH - RIGHT, LEFT, LEFT },
               (double[]){ low, low, high, high, low }, PAPER_AXIS, 1.5);
    draw_marks(m, p, low, high);
}

/* Below the last panel: what each column is, where there is room, and its number. */
static void draw_columns(const chart_map *m, double low)
{
    char number[32];
    double wide = (WIDTH - LEFT - RIGHT) / (double)m->columns,
           tick = fmax(1, paper_tick((double)m->columns, 16));
    for (int64_t c = 0; m->long_names && wide >= 12 && c < m->columns; c++)
        paper_text_up(LEFT + ((double)c + 0.5) * wide, low - 12, fmin(20, wide), PAPER_RIGHT,
                      PAPER_INK, m->name[c]);
    if (m->long_names) return;
    for (int64_t c = 0; m->name && wide >= 15 && c < m->columns; c++)
        paper_text(LEFT + ((double)c + 0.5) * wide, low - 20, fmin(20, wide), PAPER_MIDDLE,
                   PAPER_INK, m->name[c]);
    for (double c = 0; c < (double)m->columns; c += tick)
        paper_text(LEFT + (c + 0.5) * wide, low - 52, 20, PAPER_MIDDLE, PAPER_SOFT,
                   paper_number(c, tick, number));
    paper_text((LEFT + WIDTH - RIGHT) / 2.0, low - 88, 25, PAPER_MIDDLE, PAPER_SOFT,
               m->column_label);
}

static double longest_name(const chart_map *m)
{
    double longest = 0;
    for (int64_t c = 0; c < m->columns; c++)
        longest = fmax(longest, paper_text_width(m->name[c], 20));
    return longest;
}

static int height_of_all(const chart_map *m)
{
    int height = TOP + BOTTOM - GAP;
    if (m->long_names) height += (int)longest_name(m) - BOTTOM + 30;
    for (int i = 0; i < m->panels; i++) height += GAP + height_of(&m->panel[i]);
    return height;
}

static void draw(const void *user)
{
    const chart_map *m = user;
    double top = height_of_all(m) - TOP, at = LEFT;
    bool marked[CHART_MARKS] = { false };
    paper_title(LEFT, top + TOP - 46, 34, PAPER_INK, m->title);
    for (int i = 0; i < m->panels; i++)
        for (int64_t k = 0; k < m->panel[i].marks; k++) marked[m->panel[i].mark[k].kind] = true;
    for (int k = 0; k < CHART_MARKS; k++) {
        if (!marked[k]) continue;
        paper_disc(at, top + TOP - 92, 7, mark_colour[k]);
        paper_text(at + 16, top + TOP - 92, 23, PAPER_LEFT, PAPER_INK, mark_name[k]);
        at += 56 + paper_text_width(mark_name[k], 23);
    }
    for (int i = 0; i < m->panels; i++) {
        double low = top - height_of(&m->panel[i]);
        draw_panel(m, &m->panel[i], low, top);
        if (i == m->panels - 1) draw_columns(m, low);
        top = low - GAP;
    }
}

int chart_map_draw(nsm_ctx *ctx, const char *path, const chart_map *m)
{
    return paper_draw(ctx, path, WIDTH, height_of_all(m), draw, m);
}
