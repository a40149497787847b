/* paper.h - A sheet to draw a chart on, in pixels, origin at the lower left; PLplot does the work.
 *
 * PLplot may call exit() and its drivers may crash, so a chart is drawn in a child process: the
 * worst that can happen is one clear error.  The child writes to a temporary file, which is
 * renamed when it is whole.  In the child only: paper_fail() and the drawing functions. */
#ifndef TOOLS_PAPER_H
#define TOOLS_PAPER_H
#include <nsm.h>

/* Colours are 0xRRGGBBAA. */
enum { PAPER_LEFT, PAPER_MIDDLE, PAPER_RIGHT };
#define PAPER_INK 0x1f2933ffu    /* titles, values */
#define PAPER_SOFT 0x52606dffu   /* labels */
#define PAPER_AXIS 0x9aa5b1ffu
#define PAPER_GRID 0xe4e7ebffu
#define PAPER_WHITE 0xffffffffu

/* Colours for series and classes that colour-blind readers can tell apart; i is taken modulo. */
enum { PAPER_COLOURS = 10 };
uint32_t paper_colour(int i);
uint32_t paper_alpha(uint32_t colour, double alpha);   /* alpha 0..1 */
uint32_t paper_shade(double share);                    /* 0 nearly white .. 1 dark blue */

/* Draw(user) on a white sheet in a child process and put the PNG at path. */
int paper_draw(nsm_ctx *ctx, const char *path, int width, int height,
               void (*draw)(const void *user), const void *user);
void paper_fail(const char *message) __attribute__((noreturn)); /* in draw: end with this error */

void paper_path(int n, const double *x, const double *y, uint32_t colour, double width);
void paper_line(double x0, double y0, double x1, double y1, uint32_t colour, double width);
void paper_dashes(double x0, double y0, double x1, double y1, uint32_t colour, double width);
void paper_fill(int n, const double *x, const double *y, uint32_t colour);
void paper_box(double x0, double y0, double x1, double y1, uint32_t colour);
void paper_disc(double x, double y, double radius, uint32_t colour);
/* Text of this size (the height of its capitals is about 0.7 of it), centred on y. */
void paper_text(double x, double y, double size, int align, uint32_t colour, const char *text);
/* bold, from the left */
void paper_title(double x, double y, double size, uint32_t colour, const char *text);
/* turned left */
void paper_text_up(double x, double y, double size, int align, uint32_t colour, const char *text);
double paper_text_width(const char *text, double size); /* about */

/* Ticks: the least nice number >= 0 whose multiples cut the range into at most `most` parts. */
double paper_tick(double range, int most);
/* with as many digits as the ticks need */
const char *paper_number(double value, double tick, char buf[32]);

#endif
