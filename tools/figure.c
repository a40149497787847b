/* figure.c - See figure.h. */
#include "tools/figure.h"
#include <math.h>
#include <stdlib.h>
#include "tools/page.h"
#include "tools/paper.h"

/* ---- pieces ---- */
static void begin(FILE *f, double width, double height, const char *title)
{
    fprintf(f,
            "<div class=\"wide\"><svg role=\"img\" "
            "width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f %.0f\" aria-label=\"",
            width, height, width, height);
    page_escape(f, title, -1);
    fputs("\">\n", f);
}

static void end(FILE *f) { fputs("</svg></div>\n", f); }

/* anchor: start, middle, end; y is the middle of the letters */
static void put_text(FILE *f, double x, double y, const char *anchor, bool soft, int most,
                     const char *text)
{
    fprintf(f, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\"%s>", x, y + 4, anchor,
            soft ? " class=\"soft\"" : "");
    page_escape(f, text, most);
    fputs("</text>\n", f);
}

static void put_axis(FILE *f, double x0, double y0, double x1, double y1)
{
    fprintf(f, "<path class=\"axis\" d=\"M%.1f %.1fL%.1f %.1f\"/>\n", x0, y0, x1, y1);
}

/* ---- curves ---- */
enum { WIDTH = 460, HEIGHT = 250, LEFT = 50, RIGHT = 14, TOP = 34, BOTTOM = 40 };
typedef struct { double x0, x1, y0, y1; } frame; /* the values at the axes' ends */

static double at_x(const frame *p, double x)
{
    return LEFT + (x - p->x0) / (p->x1 - p->x0) * (WIDTH - LEFT - RIGHT);
}

static double at_y(const frame *p, double y)
{
    return HEIGHT - BOTTOM - (y - p->y0) / (p->y1 - p->y0) * (HEIGHT - TOP - BOTTOM);
}

static frame frame_of(int lines, const figure_line *line)
{
    frame p = { INFINITY, -INFINITY, INFINITY, -INFINITY };
    for (int k = 0; k < lines; k++)
        for (int64_t i = 0; i < line[k].count; i++) {
            if (!isfinite(line[k].y[i])) continue;
            p.x0 = fmin(p.x0, line[k].x[i]);
            p.x1 = fmax(p.x1, line[k].x[i]);
            p.y0 = fmin(p.y0, line[k].y[i]);
            p.y1 = fmax(p.y1, line[k].y[i]);
        }
    if (!(p.x1 > p.x0)) p.x0 -= 0.5, p.x1 = p.x0 + 1;
    double room = p.y1 > p.y0 ? 0.06 * (p.y1 - p.y0) : 0.5;
    p.y1 += room;
    p.y0 = p.y0 >= 0 ? fmax(0, p.y0 - room) : p.y0 - room;
    return p;
}

static void put_frame(FILE *f, const frame *p, const char *x_label)
{
    char number[32];
    double tick = paper_tick(p->y1 - p->y0, 5);
    for (double y = ceil(p->y0 / tick) * tick; y <= p->y1 + 1e-9 * tick; y += tick) {
        put_axis(f, LEFT, at_y(p, y), WIDTH - RIGHT, at_y(p, y));
        put_text(f, LEFT - 8, at_y(p, y), "end", true, -1, paper_number(y, tick, number));
    }
    tick = fmax(1, ceil(paper_tick(p->x1 - p->x0, 8)));
    for (double x = ceil(p->x0 / tick) * tick; x <= p->x1 + 1e-9 * tick; x += tick)
        put_text(f, at_x(p, x), HEIGHT - BOTTOM + 14, "middle", true, -1,
                 paper_number(x, tick, number));
    put_text(f, (LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 8, "middle", true, -1, x_label);
}

void figure_curves(FILE *f, const char *title, const char *x_label, int lines,
                   const figure_line *line)
{
    enum { MARKED = 40 }; /* points of a line that are marked, at most */
    frame p = frame_of(lines, line);
    double at = LEFT;
    if (!isfinite(p.y0) || !isfinite(p.y1)) return;
    begin(f, WIDTH, HEIGHT, title);
    put_frame(f, &p, x_label);
    for (int k = 0; k < lines; k++) {
        const figure_line *l = &line[k];
        fprintf(f, "<g class=\"%s\"><path class=\"line\" d=\"", l->kind);
        int64_t points = 0;
        for (int64_t i = 0; i < l->count; i++)
            if (isfinite(l->y[i]))
                fprintf(f, "%c%.1f %.1f", points++ ? 'L' : 'M', at_x(&p, l->x[i]),
                        at_y(&p, l->y[i]));
        if (!points) fputs("M0 0", f);
        fputs("\"/>", f);
        for (int64_t i = 0; i < l->count && points <= MARKED; i++)
            if (isfinite(l->y[i]))
                fprintf(f, "<circle class=\"bar\" cx=\"%.1f\" cy=\"%.1f\" r=\"2.5\"><title>%g: %g"
                           "</title></circle>", at_x(&p, l->x[i]), at_y(&p, l->y[i]), l->x[i],
                        l->y[i]);
        fprintf(f, "<path class=\"line\" d=\"M%.1f 14h16\"/></g>\n", at);
        put_text(f, at + 22, 14, "start", false, -1, l->name);
        at += 44 + paper_text_width(l->name, 12);
    }
    end(f);
}

void figure_columns(FILE *f, const char *title, const char *x_label, int64_t columns,
                    const int64_t *count)
{
    int64_t most = 1;
    for (int64_t k = 0; k < columns; k++) most = count[k] > most ? count[k] : most;
    frame p = { -0.5, (double)columns - 0.5, 0, 1.06 * (double)most };
    double wide = fmax(1, (WIDTH - LEFT - RIGHT) / (double)columns - 3);
    begin(f, WIDTH, HEIGHT, title);
    put_frame(f, &p, x_label);
    put_text(f, LEFT, 14, "start", false, -1, title);
    fputs("<g class=\"state\">\n", f);
    for (int64_t k = 0; k < columns; k++)
        if (count[k])
            fprintf(f,
                    "<rect class=\"bar\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\">"
                    "<title>%lld: %lld</title></rect>\n",
                    at_x(&p, (double)k) - wide / 2, at_y(&p, (double)count[k]), wide,
                    at_y(&p, 0) - at_y(&p, (double)count[k]), (long long)k, (long long)count[k]);
    fputs("</g>\n", f);
    end(f);
}

/* ---- ways of an answer ---- */
enum { WAYS_WIDTH = 800, INPUT_X = 250, STATE_X = 460, ANSWER_X = 640, BAR = 9, PITCH = 18,
       SCALE = 260, LABEL = 34 };
typedef struct { double y, height, left, right; } place; /* left, right: bands so far */

/* Below each other, at least a line of text apart; returns where they end. */
static double stack(int bars, const figure_bar *bar, place *at)
{
    double y = 4;
    for (int k = 0; k < bars; k++) {
        double height = fmax(bar[k].size * SCALE, 1.5), slot = fmax(height, PITCH);
        at[k] = (place){ y + (slot - height) / 2, height, 0, 0 };
        y += slot + 4;
    }
    return y;
}

static void put_bars(FILE *f, double x, const char *anchor, double label_x, int bars,
                     const figure_bar *bar, const place *at)
{
    for (int k = 0; k < bars; k++) {
        fprintf(f,
                "<g class=\"%s\"><rect class=\"bar\" x=\"%.0f\" y=\"%.1f\" width=\"%d\" "
                "height=\"%.1f\"><title>", bar[k].kind, x, at[k].y, BAR, at[k].height);
        page_escape(f, bar[k].name, -1);
        fprintf(f, ": %.3f</title></rect></g>\n", bar[k].size);
        put_text(f, label_x, at[k].y + at[k].height / 2, anchor, false, LABEL, bar[k].name);
    }
}

static void put_band(FILE *f, const char *kind, double x0, double y0, double x1, double y1,
                     double wide, const char *from, const char *to, double share)
{
    double middle = (x0 + x1) / 2;
    fprintf(f,
            "<path class=\"edge %s\" d=\"M%.1f %.1fC%.1f %.1f %.1f %.1f %.1f %.1fv%.2fC%.1f %.1f "
            "%.1f %.1f %.1f %.1fZ\"><title>",
            kind, x0, y0, middle, y0, middle, y1, x1, y1, wide, middle, y1 + wide, middle,
            y0 + wide, x0, y0 + wide);
    page_escape(f, from, -1);
    fputs(" \xe2\x86\x92 ", f); /* an arrow */
    page_escape(f, to, -1);
    fprintf(f, ": %.3f</title></path>\n", share);
}

/* Bands from the inputs to the states, or to the answer at once. */
static void put_input_bands(FILE *f, const figure_ways *w, place *input, place *state,
                            place *answer)
{
    for (int i = 0; i < w->inputs; i++)
        for (int k = 0; k < (w->states ? w->states : 1); k++) {
            double share = w->states ? w->share[i * w->states + k] : w->input[i].size,
                   wide = share * SCALE;
            place *to = w->states ? &state[k] : answer;
            if (share > 0.002)
                put_band(f, w->input[i].kind, INPUT_X + BAR, input[i].y + input[i].right,
                         w->states ? STATE_X : ANSWER_X, to->y + to->left, wide,
                         w->input[i].name, w->states ? w->state[k].name : w->answer, share);
            input[i].right += wide;
            to->left += wide;
        }
}

void figure_flow(FILE *f, const figure_ways *w)
{
    place *input = calloc((size_t)(w->inputs + w->states) + 2, sizeof *input),
          *state = input ? input + w->inputs : NULL;
    if (!input) return;
    double whole = 0, height = stack(w->inputs, w->input, input),
           middle = stack(w->states, w->state, state);
    for (int k = 0; k < (w->states ? w->states : w->inputs); k++)
        whole += w->states ? w->state[k].size : w->input[k].size;
    height = fmax(fmax(height, middle), whole * SCALE + 8);
    for (int k = 0; k < w->states; k++) state[k].y += (height - middle) / 2;
    place answer = { (height - whole * SCALE) / 2, whole * SCALE, 0, 0 };
    begin(f, WAYS_WIDTH, height, w->title);
    put_input_bands(f, w, input, state, &answer);
    answer.left = 0;
    for (int k = 0; k < w->states; k++) {
        double wide = w->state[k].size * SCALE;
        if (w->state[k].size > 0.002)
            put_band(f, w->state[k].kind, STATE_X + BAR, state[k].y, ANSWER_X,
                     answer.y + answer.left, wide, w->state[k].name, w->answer, w->state[k].size);
        answer.left += wide;
    }
    put_bars(f, INPUT_X, "end", INPUT_X - 8, w->inputs, w->input, input);
    put_bars(f, STATE_X, "start", STATE_X + BAR + 6, w->states, w->state, state);
    put_bars(f, ANSWER_X, "start", ANSWER_X + BAR + 6, 1,
             &(figure_bar){ w->answer, "none", whole }, &answer);
    end(f);
    free(input);
}

/* ---- a map ---- */
enum { ROW = 16, HEAD = 62, NAMES = 230, CELL_MOST = 26, CELL_LEAST = 9, MAP_WIDTH = 560 };

static void put_column(FILE *f, const figure_map_of *m, int64_t k, double x, double wide,
                       double most)
{
    double tall = 30 * m->read[k] / most;
    fprintf(f,
            "<g class=\"state\"><rect class=\"bar\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" "
            "height=\"%.1f\"><title>", x + 1, 36 - tall, wide - 2, fmax(tall, 0.5));
    fprintf(f, "%s %d: %.3f of what the answer read</title></rect></g>\n", m->column_name,
            m->column[k], m->read[k]);
    if (wide < 14 && k % 4) return;
    char number[16];
    snprintf(number, sizeof number, "%d", m->column[k]);
    put_text(f, x + wide / 2, 48, "middle", true, -1, number);
}

static void put_cell(FILE *f, const figure_map_of *m, int64_t r, int64_t k, double x, double y,
                     double wide, float most)
{
    float v = m->value[r * m->columns + k];
    if (v >= 0.01f * most) {
        fprintf(f,
                "<rect class=\"cell\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" "
                "fill-opacity=\"%.2f\"><title>", x, y, wide - 1, ROW - 1, (double)(v / most));
        page_escape(f, m->row[r].name, -1);
        fprintf(f, " \xe2\x86\x92 %s %d: %.3f %s</title></rect>\n", m->column_name, m->column[k],
                (double)v, m->value_name);
    }
    if (m->mark && m->mark[r] == k)
        fprintf(f, "<circle class=\"opened\" cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\"/>\n",
                x + (wide - 1) / 2, y + (ROW - 1) / 2.0);
}

void figure_map(FILE *f, const figure_map_of *m)
{
    double wide = fmin(CELL_MOST, fmax(CELL_LEAST, MAP_WIDTH / (double)m->columns)), read = 1e-9,
           right = NAMES + wide * (double)m->columns;
    float most = 1e-9f;
    for (int64_t i = 0; i < m->rows * m->columns; i++) most = fmaxf(most, m->value[i]);
    for (int64_t k = 0; k < m->columns; k++) read = fmax(read, m->read[k]);
    begin(f, right + 20, (double)(HEAD + ROW * m->rows + 4), m->title);
    for (int64_t k = 0; k < m->columns; k++)
        put_column(f, m, k, NAMES + wide * (double)k, wide, read);
    for (int64_t r = 0; r < m->rows; r++) {
        double y = (double)(HEAD + ROW * r);
        put_text(f, NAMES - 8, y + ROW / 2.0, "end", false, LABEL, m->row[r].name);
        put_axis(f, NAMES, y + ROW - 0.5, right, y + ROW - 0.5);
        fprintf(f, "<g class=\"%s\">\n", m->row[r].kind);
        for (int64_t k = 0; k < m->columns; k++)
            put_cell(f, m, r, k, NAMES + wide * (double)k, y, wide, most);
        fputs("</g>\n", f);
    }
    end(f);
}
