/* nearest.c - Edit distance (optimal string alignment) between short names.
 * Three rows of the table are enough: the present one and the two before it. */
#include "tools/nearest.h"
#include <ctype.h>
#include <string.h>

enum { LONGEST = 63 }; /* longer names are compared by their beginnings */

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }
static int low(const char *s, size_t i) { return tolower((unsigned char)s[i]); }

size_t edit_distance(const char *a, const char *b)
{
    size_t n = strnlen(a, LONGEST), m = strnlen(b, LONGEST);
    size_t row[3][LONGEST + 1] = {{0}};
    for (size_t j = 0; j <= m; j++) row[0][j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t *now = row[i % 3], *last = row[(i + 2) % 3], *before = row[(i + 1) % 3];
        now[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t differ = low(a, i - 1) != low(b, j - 1);
            now[j] = smaller(smaller(last[j] + 1, now[j - 1] + 1), last[j - 1] + differ);
            if (i > 1 && j > 1 && low(a, i - 1) == low(b, j - 2) && low(a, i - 2) == low(b, j - 1))
                now[j] = smaller(now[j], before[j - 2] + 1);
        }
    }
    return row[n % 3][m];
}

void nearest_try(nearest *n, const char *wanted, const char *candidate)
{
    size_t d = edit_distance(wanted, candidate);
    if (n->name && d >= n->distance) return;
    n->name = candidate;
    n->distance = d;
}
