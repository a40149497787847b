/* figure.h - Figures of a page (page.h), as SVG within it: read without a script, coloured by the
 * page's style.  kind is a class of that style: graph, text, picture, state, none. */
#ifndef TOOLS_FIGURE_H
#define TOOLS_FIGURE_H
#include <stdint.h>
#include <stdio.h>

/* Lines over x; NaN in y is passed over. */
typedef struct {
    const char *name, *kind;
    int64_t count;
    const double *x, *y;
} figure_line;
void figure_curves(FILE *f, const char *title, const char *x_label, int lines,
                   const figure_line *line);

/* Columns of counts, column k for k. */
void figure_columns(FILE *f, const char *title, const char *x_label, int64_t columns,
                    const int64_t *count);

typedef struct {
    const char *name, *kind;
    double size; /* >= 0 */
} figure_bar;

/* What came to an answer: inputs to the left, states, the answer; bands as wide as their share. */
typedef struct {
    const char *title, *answer;
    int inputs, states;        /* states 0: inputs go to the answer at once */
    const figure_bar *input;   /* [inputs] size: what the answer took of it */
    const figure_bar *state;   /* [states] size: what the answer took of it */
    const double *share;       /* [inputs, states] of that, what went this way */
} figure_ways;
void figure_flow(FILE *f, const figure_ways *w);

/* Shades of values, inputs over states. */
typedef struct {
    const char *title, *value_name; /* "share of the input" */
    int64_t rows, columns;
    const figure_bar *row;     /* [rows] */
    const int32_t *column;     /* [columns] their numbers */
    const char *column_name;   /* "state": of one, before its number */
    const double *read;        /* [columns] drawn above them: what the answer took */
    const float *value;        /* [rows, columns] */
    const int32_t *mark;       /* [rows] the column with a ring, -1 none */
} figure_map_of;
void figure_map(FILE *f, const figure_map_of *m);

#endif
