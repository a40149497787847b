/* charts.h - The charts of nsm, each one PNG file.  Errors are left in the context. */
#ifndef TOOLS_CHARTS_H
#define TOOLS_CHARTS_H
#include <nsm.h>

/* ---- curves: loss, accuracy ---- */
typedef struct {
    const char *name;
    int64_t count;
    const double *x, *y; /* NaN in y: a gap */
} chart_series;
typedef struct {
    const char *title, *x_label, *y_label;
    int count;
    const chart_series *series;
    double low, high;       /* of y; equal: from the data */
    bool log_x, log_y;      /* powers of ten; values not above 0 are gaps */
    /* each line's name at its end, in place of a legend and of its last value; points are marked */
    bool named_ends;
    const char *mark_label; /* a dashed line at mark_x, "kept: epoch 63"; NULL: none */
    double mark_x;
} chart_curves;
int chart_curves_draw(nsm_ctx *ctx, const char *path, const chart_curves *c);

/* ---- maps: states by tokens, or by inputs ---- */
enum { CHART_OPENED, CHART_RECYCLED, CHART_PRUNED, CHART_MARKS };
typedef struct { int64_t column, row; int kind; } chart_mark;
typedef struct {
    const char *title, *row_label;
    int64_t rows;
    const float *value;     /* [rows, columns] of the map, >= 0 */
    double high;            /* the darkest value; 0: the largest */
    int64_t marks;
    const chart_mark *mark;
} chart_panel;
typedef struct {
    const char *title, *column_label;
    int64_t columns;
    char *const *name;      /* [columns], drawn where there is room; NULL: none */
    bool long_names;        /* these stand upright, in place of the columns' numbers */
    int panels;
    const chart_panel *panel; /* below each other */
} chart_map;
int chart_map_draw(nsm_ctx *ctx, const char *path, const chart_map *m);

/* ---- classes: confusion matrix, accuracy of each ---- */
typedef struct {
    const char *title;
    int classes;
    const int64_t *count; /* [classes, classes]: row the true class, column the predicted one */
    char *const *name;    /* NULL: numbers */
} chart_confusion;
int chart_confusion_draw(nsm_ctx *ctx, const char *path, const chart_confusion *c);

/* Bars of each class's share of right answers, best first, made from the same counts. */
int chart_classes_draw(nsm_ctx *ctx, const char *path, const chart_confusion *c);

/* ---- a graph, or a node's neighbourhood ---- */
typedef struct {
    const char *title, *note;   /* the note stands below the title; NULL: none */
    int nodes;
    int64_t edges;
    const int32_t *from, *to;   /* [edges] */
    const double *weight;       /* [edges] width of the lines, >= 0; NULL: all alike */
    const int32_t *colour;      /* [nodes] class, -1 none */
    int classes;
    char *const *class_name;    /* NULL: numbers */
    char *const *name;          /* [nodes] labels, drawn where there is room; NULL: none */
    int centre;                 /* the node to show as the centre; -1: none */
    bool directed;              /* arrow heads */
    uint64_t seed;              /* of the layout */
} chart_graph;
int chart_graph_draw(nsm_ctx *ctx, const char *path, const chart_graph *g);

#endif
