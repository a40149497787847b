/* report.h - Results on stdout: one description serves people and programs.
 *
 * A command builds a jansson object.  With --json it is printed as one line; else an object is
 * printed as aligned "name  value" lines, and an array of objects in it as a table. */
#ifndef TOOLS_REPORT_H
#define TOOLS_REPORT_H
#include <jansson.h>
#include "tools/tool.h"

/* A line before the result, with --json only.  The object is freed.  NULL: out of memory. */
int report_line(const tool *t, json_t *object);
/* The result.  The object is freed.  Returns the exit code. */
int report_result(const tool *t, json_t *object);

/* A number; null if it is not finite, which JSON cannot say. */
json_t *report_real(double value);

/* The slope of log `y` over log `x`, keys of the objects in points, and its standard error; NaN
 * where there are too few. */
typedef struct { double slope, error; int points; } report_line_fit;
report_line_fit report_slope(const json_t *points, const char *x, const char *y);

#endif
