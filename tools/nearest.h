/* nearest.h - Which known name did somebody mean?  For unknown commands, options and keys. */
#ifndef TOOLS_NEAREST_H
#define TOOLS_NEAREST_H
#include <stddef.h>

/* Edits (insert, delete, replace, swap of neighbours) from a to b, case ignored. */
size_t edit_distance(const char *a, const char *b);

/* Keeps the nearest of the names that it is shown; start from {0}. */
typedef struct {
    const char *name; /* NULL: none seen */
    size_t distance;
} nearest;
void nearest_try(nearest *n, const char *wanted, const char *candidate);

#endif
