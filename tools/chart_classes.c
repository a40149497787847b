/* chart_classes.c - Two views of the same counts: the confusion matrix, and each class's accuracy.
 * Both grow with the number of classes, so that 45 names stay readable. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tools/charts.h"
#include "tools/paper.h"

enum { HEAD = 150, NAME_MOST = 460 };

static int64_t at(const chart_confusion *c, int row, int col)
{ return c->count[(int64_t)row * c->classes + col]; }

static int64_t row_sum(const chart_confusion *c, int row)
{
    int64_t sum = 0;
    for (int k = 0; k < c->classes; k++) sum += at(c, row, k);
    return sum;
}

static const char *class_name(const chart_confusion *c, int k, char buf[32])
{
    if (c->name) return c->name[k];
    snprintf(buf, 32, "%d", k);
    return buf;
}

static double name_width(const chart_confusion *c, double size)
{
    double widest = 0;
    char buf[32];
    for (int k = 0; k < c->classes; k++)
        widest = fmax(widest, paper_text_width(class_name(c, k, buf), size));
    return fmin(widest, NAME_MOST);
}

static void overall(const chart_confusion *c, int64_t *right, int64_t *all)
{
    *right = *all = 0;
    for (int k = 0; k < c->classes; k++) {
        *right += at(c, k, k);
        *all += row_sum(c, k);
    }
}

/* ---- the matrix ---- */

typedef struct {
    const chart_confusion *c;
    double cell, size, left, bottom, width, height;
} matrix;

static matrix measure_matrix(const chart_confusion *c)
{
    matrix m = {.c = c};
    m.cell = fmax(26, fmin(100, 1170.0 / c->classes));
    m.size = fmin(26, 0.72 * m.cell);
    double names = name_width(c, m.size);
    m.left = names + 100;
    m.bottom = names + 90;
    m.width = fmax(m.left + m.cell * c->classes + 160, 900);
    m.height = m.bottom + m.cell * c->classes + HEAD;
    return m;
}

/* The share of a cell as text: "7" per cent, "<1", or its count when cells are large. */
static void draw_cell(const matrix *m, int row, int col)
{
    const chart_confusion *c = m->c;
    int64_t n = at(c, row, col), sum = row_sum(c, row);
    double share = sum ? (double)n / (double)sum : 0;
    double x = m->left + col * m->cell, y = m->bottom + (c->classes - 1 - row) * m->cell,
           gap = m->cell > 40 ? 1.5 : 0.75;
    paper_box(x + gap, y + gap, x + m->cell - gap, y + m->cell - gap, paper_shade(share));
    if (m->cell < 40 || n == 0) return;
    char buf[32];
    uint32_t ink = share > 0.5 ? PAPER_WHITE : PAPER_INK;
    double size = fmin(26, 0.36 * m->cell);
    snprintf(buf, sizeof buf, share >= 0.01 ? "%.0f%%" : "<1%%", 100 * share);
    if (m->cell < 66) buf[strcspn(buf, "%")] = 0;
    paper_text(x + m->cell / 2, y + m->cell * (m->cell < 66 ? 0.5 : 0.6), size, PAPER_MIDDLE, ink,
               buf);
    if (m->cell < 66) return;
    snprintf(buf, sizeof buf, "%lld", (long long)n);
    paper_text(x + m->cell / 2, y + m->cell * 0.27, 0.7 * size, PAPER_MIDDLE,
               paper_alpha(ink, 0.75), buf);
}

static void draw_scale(const matrix *m)
{
    double x = m->left + m->cell * m->c->classes + 44, y = m->bottom,
           tall = m->cell * m->c->classes;
    enum { STEPS = 128 };
    for (int i = 0; i < STEPS; i++)
        paper_box(x, y + tall * i / STEPS, x + 26, y + tall * (i + 1) / STEPS + 0.5,
                  paper_shade((i + 0.5) / STEPS));
    for (int i = 0; i <= 4; i++) {
        char buf[32];
        snprintf(buf, sizeof buf, "%d%%", 25 * i);
        paper_text(x + 38, y + tall * i / 4, 22, PAPER_LEFT, PAPER_SOFT, buf);
    }
}

static void draw_matrix(const void *user)
{
    const matrix *m = user;
    const chart_confusion *c = m->c;
    int64_t right, all;
    char buf[200], number[32];
    for (int row = 0; row < c->classes; row++)
        for (int col = 0; col < c->classes; col++) draw_cell(m, row, col);
    for (int k = 0; k < c->classes; k++) {
        double mid = (k + 0.5) * m->cell;
        const char *name = class_name(c, k, number);
        paper_text(m->left - 12, m->bottom + m->cell * c->classes - mid, m->size, PAPER_RIGHT,
                   PAPER_SOFT, name);
        if (c->name)
            paper_text_up(m->left + mid, m->bottom - 12, m->size, PAPER_RIGHT, PAPER_SOFT, name);
        else paper_text(m->left + mid, m->bottom - 26, m->size, PAPER_MIDDLE, PAPER_SOFT, name);
    }
    draw_scale(m);
    overall(c, &right, &all);
    paper_title(48, m->height - 52, 38, PAPER_INK, c->title);
    snprintf(buf, sizeof buf, "%.1f%% of %lld right; colour: share of the true class",
             all ? 100.0 * (double)right / (double)all : 0.0, (long long)all);
    paper_text(48, m->height - 102, 25, PAPER_LEFT, PAPER_SOFT, buf);
    paper_text(m->left + m->cell * c->classes / 2, 34, 27, PAPER_MIDDLE, PAPER_SOFT,
               "predicted class");
    paper_text_up(34, m->bottom + m->cell * c->classes / 2, 27, PAPER_MIDDLE, PAPER_SOFT,
                  "true class");
}

static int check(nsm_ctx *ctx, const char *path, const chart_confusion *c)
{
    if (c->classes >= 1 && c->classes <= 400) return nsm_error(ctx);
    return nsm_error_set(ctx, NSM_EINVAL, "%s: a chart of %d classes; 1 to 400 fit", path,
                         c->classes);
}

int chart_confusion_draw(nsm_ctx *ctx, const char *path, const chart_confusion *c)
{
    if (check(ctx, path, c)) return nsm_error(ctx);
    matrix m = measure_matrix(c);
    return paper_draw(ctx, path, (int)m.width, (int)m.height, draw_matrix, &m);
}

/* ---- bars ---- */

typedef struct {
    int k;
    double share; /* of its members that were found; -1: it has none */
    int64_t all;
} bar;
typedef struct {
    const chart_confusion *c;
    bar *bars;
    double row, left, right, bottom, width, height;
} bar_chart;

static int best_first(const void *a, const void *b)
{
    const bar *x = a, *y = b;
    if (x->share != y->share) return x->share < y->share ? 1 : -1;
    return x->k - y->k;
}

static void draw_bar(const bar_chart *b, int i)
{
    char buf[32];
    const bar *it = &b->bars[i];
    double mid = b->bottom + (b->c->classes - i - 0.5) * b->row, half = 0.33 * b->row,
           size = fmin(25, 0.74 * b->row);
    double end = b->left + fmax(it->share, 0) * (b->right - b->left);
    paper_text(b->left - 16, mid, size, PAPER_RIGHT, PAPER_INK, class_name(b->c, it->k, buf));
    if (it->share >= 0)
        paper_box(b->left, mid - half, fmax(end, b->left + 2), mid + half, paper_colour(0));
    if (it->share >= 0) snprintf(buf, sizeof buf, "%.1f%%", 100 * it->share);
    else snprintf(buf, sizeof buf, "-");
    paper_text(b->width - 190, mid, 0.88 * size, PAPER_RIGHT, PAPER_INK, buf);
    snprintf(buf, sizeof buf, "%lld", (long long)it->all);
    paper_text(b->width - 48, mid, 0.88 * size, PAPER_RIGHT, PAPER_SOFT, buf);
}

static void draw_bars(const void *user)
{
    const bar_chart *b = user;
    int64_t right, all;
    char buf[200];
    double top = b->bottom + b->c->classes * b->row;
    overall(b->c, &right, &all);
    double mean = all ? (double)right / (double)all : 0,
           mean_x = b->left + mean * (b->right - b->left);
    for (int i = 0; i <= 4; i++) {
        double x = b->left + i * (b->right - b->left) / 4;
        paper_line(x, b->bottom, x, top, i ? PAPER_GRID : PAPER_AXIS, i ? 1.5 : 2);
        snprintf(buf, sizeof buf, "%d%%", 25 * i);
        paper_text(x, b->bottom - 26, 23, PAPER_MIDDLE, PAPER_SOFT, buf);
    }
    for (int i = 0; i < b->c->classes; i++) draw_bar(b, i);
    paper_dashes(mean_x, b->bottom, mean_x, top, paper_colour(1), 2.5);
    snprintf(buf, sizeof buf, "all %.1f%%", 100 * mean);
    paper_text(mean_x, top + 22, 23, mean > 0.85 ? PAPER_RIGHT : PAPER_MIDDLE, paper_colour(1),
               buf);
    paper_text(b->width - 190, top + 22, 23, PAPER_RIGHT, PAPER_SOFT, "found");
    paper_text(b->width - 48, top + 22, 23, PAPER_RIGHT, PAPER_SOFT, "members");
    paper_title(48, b->height - 52, 38, PAPER_INK, b->c->title);
    paper_text(48, b->height - 100, 25, PAPER_LEFT, PAPER_SOFT,
               "share of each class's members that were found");
}

int chart_classes_draw(nsm_ctx *ctx, const char *path, const chart_confusion *c)
{
    if (check(ctx, path, c)) return nsm_error(ctx);
    bar_chart b = {.c = c, .bars = malloc((size_t)c->classes * sizeof *b.bars)};
    if (!b.bars) return nsm_error_set(ctx, NSM_ENOMEM, "out of memory for %s", path);
    for (int k = 0; k < c->classes; k++) {
        int64_t all = row_sum(c, k);
        b.bars[k] = (bar){k, all ? (double)at(c, k, k) / (double)all : -1, all};
    }
    qsort(b.bars, (size_t)c->classes, sizeof *b.bars, best_first);
    b.row = fmax(30, fmin(60, 900.0 / c->classes));
    b.left = fmax(140, 76 + name_width(c, fmin(25, 0.74 * b.row)));
    b.width = 1600;
    b.right = b.width - 330;
    b.bottom = 70;
    b.height = b.bottom + b.row * c->classes + HEAD + 40;
    paper_draw(ctx, path, (int)b.width, (int)b.height, draw_bars, &b);
    free(b.bars);
    return nsm_error(ctx);
}
