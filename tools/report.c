/* report.c - JSON lines, or the same for people. */
#include "tools/report.h"
#include "tools/utf8.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Nine digits say a float32 exactly and keep 0.815 from being 0.81499999999999995. */
enum { DIGITS = 9, COLUMNS = 24, COLUMN_WIDEST = 40 };

json_t *report_real(double value) { return isfinite(value) ? json_real(value) : json_null(); }

static int print_json(const tool *t, json_t *object)
{
    if (!object) return tool_fail(t, "out of memory for the results");
    json_dumpf(object, stdout, JSON_COMPACT | JSON_REAL_PRECISION(DIGITS));
    fputc('\n', stdout);
    fflush(stdout);
    json_decref(object);
    return TOOL_DONE;
}

int report_line(const tool *t, json_t *object)
{
    if (t->json) return print_json(t, object);
    json_decref(object);
    return TOOL_DONE;
}

/* A plain value into buf. */
static void value_text(const json_t *v, char *buf, size_t bytes)
{
    buf[0] = 0;
    if (json_is_string(v)) snprintf(buf, bytes, "%s", json_string_value(v));
    else if (json_is_integer(v)) snprintf(buf, bytes, "%lld", (long long)json_integer_value(v));
    else if (json_is_real(v)) snprintf(buf, bytes, "%.4g", json_real_value(v));
    else if (json_is_boolean(v)) snprintf(buf, bytes, "%s", json_is_true(v) ? "yes" : "no");
    else if (json_is_array(v)) {
        size_t used = 0;
        for (size_t i = 0; i < json_array_size(v) && used + 48 < bytes; i++) {
            char item[256];
            value_text(json_array_get(v, i), item, sizeof item);
            used += (size_t)snprintf(buf + used, bytes - used, "%s%.40s", i ? ", " : "", item);
        }
    }
    else snprintf(buf, bytes, "-");
}

/* s in a field of this many letters, to the right if it is a number. */
static void put_field(const char *s, size_t width, bool right, bool last)
{
    size_t gap = utf8_letters(s) < width ? width - utf8_letters(s) : 0;
    if (right) printf("%*s%s", (int)gap, "", s);
    else printf("%s%*s", s, last ? 0 : (int)gap, "");
}

static bool is_table(const json_t *v)
{
    return json_is_array(v) && json_array_size(v) > 0 && json_is_object(json_array_get(v, 0));
}

/* An array of objects; the first one names the columns. */
static void print_table(json_t *rows, int indent)
{
    char text[1024];
    const char *key, *name[COLUMNS];
    size_t width[COLUMNS], columns = 0;
    json_t *row, *v;
    json_object_foreach(json_array_get(rows, 0), key, v) {
        if (columns == COLUMNS) break;
        name[columns] = key;
        width[columns] = utf8_letters(key);
        for (size_t i = 0; i < json_array_size(rows); i++) {
            value_text(json_object_get(json_array_get(rows, i), key), text, sizeof text);
            if (utf8_letters(text) > width[columns]) width[columns] = utf8_letters(text);
        }
        columns++;
    }
    printf("%*s", indent, "");
    for (size_t c = 0; c < columns; c++) {
        bool number = json_is_number(json_object_get(json_array_get(rows, 0), name[c]));
        put_field(name[c], width[c], number, c + 1 == columns);
        fputs(c + 1 < columns ? "  " : "\n", stdout);
    }
    for (size_t i = 0; i < json_array_size(rows); i++) {
        row = json_array_get(rows, i);
        printf("%*s", indent, "");
        for (size_t c = 0; c < columns; c++) {
            v = json_object_get(row, name[c]);
            value_text(v, text, sizeof text);
            put_field(text, width[c], json_is_number(v), c + 1 == columns);
            fputs(c + 1 < columns ? "  " : "\n", stdout);
        }
    }
}

static void print_object(json_t *object, int indent)
{
    const char *key;
    json_t *v;
    size_t widest = 0;
    char text[4096];
    json_object_foreach(object, key, v)
        if (!json_is_object(v) && !is_table(v) && utf8_letters(key) > widest) widest = utf8_letters(key);
    if (widest > COLUMN_WIDEST) widest = COLUMN_WIDEST;
    json_object_foreach(object, key, v) {
        printf("%*s", indent, "");
        if (json_is_object(v) || is_table(v)) {
            printf("%s\n", key);
            if (json_is_object(v)) print_object(v, indent + 2);
            else print_table(v, indent + 2);
            continue;
        }
        put_field(key, widest, false, false);
        value_text(v, text, sizeof text);
        printf("  %s\n", text);
    }
}

int report_result(const tool *t, json_t *object)
{
    if (t->json || !object) return print_json(t, object);
    print_object(object, 0);
    json_decref(object);
    return TOOL_DONE;
}

/* Least squares: first the means, then about them. */
report_line_fit report_slope(const json_t *points, const char *of, const char *what)
{
    size_t n = json_array_size(points);
    double x = 0, y = 0, xx = 0, xy = 0, yy = 0, count = (double)n;
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < n; i++) {
            const json_t *p = json_array_get(points, i);
            double u = log(json_number_value(json_object_get(p, of))),
                   v = log(json_number_value(json_object_get(p, what)));
            if (!pass) x += u / count, y += v / count;
            else xx += (u - x) * (u - x), xy += (u - x) * (v - y), yy += (v - y) * (v - y);
        }
    if (n < 2) return (report_line_fit){ NAN, NAN, (int)n };
    double slope = xy / xx, rest = fmax(0, yy - slope * xy);
    return (report_line_fit){ slope, n > 2 ? sqrt(rest / ((count - 2) * xx)) : NAN, (int)n };
}
