/* settings.c - The field table at work: text to values, values to text, YAML in and out.
 *
 * YAML is read with libyaml's event parser: a document that is one mapping, whose values are
 * scalars, flat lists of scalars, or mappings again (dotted keys).  Anchors, several documents and
 * deeper lists are refused: a configuration has no use for them. */
#include "tools/settings.h"
#include <errno.h>
#include <float.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>
#include "tools/nearest.h"

enum { KEY_BYTES = 128, VALUE_BYTES = 4096, DEEPEST = 8, FILE_MOST = 1 << 20 };

/* ---- numbers, in the C locale ---- */

static locale_t c_locale(void)
{
    static locale_t c;
    if (!c) c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    return c;
}

bool real_parse(const char *text, double *value)
{
    char *end;
    errno = 0;
    double v = strtod_l(text, &end, c_locale());
    if (end == text || *end || (errno == ERANGE && fabs(v) > 1)) return false;
    *value = v;
    return true;
}

bool int_parse(const char *text, int64_t *value)
{
    char digits[32];
    size_t n = 0;
    for (const char *p = text; *p; p++) {
        if (*p == '_' && p > text) continue;
        if (n + 1 >= sizeof digits) return false;
        digits[n++] = *p;
    }
    digits[n] = 0;
    char *end;
    errno = 0;
    long long v = strtoll(digits, &end, 10);
    if (n && !*end && errno == 0) {
        *value = v;
        return true;
    }
    double d; /* 1e6 */
    if (!n || !real_parse(digits, &d) || d != floor(d) || fabs(d) > 9e15) return false;
    *value = (int64_t)d;
    return true;
}

const char *real_text(double value, char buf[32])
{
    locale_t old = uselocale(c_locale());
    double back = 0;
    bool whole = value == floor(value) && fabs(value) < 1e15; /* 10, not 1e+01 */
    if (whole) snprintf(buf, 32, "%.0f", value);
    for (int digits = 1; !whole && digits <= DBL_DECIMAL_DIG; digits++) {
        snprintf(buf, 32, "%.*g", digits, value);
        if (real_parse(buf, &back) && back == value) break;
    }
    uselocale(old);
    return buf;
}

/* ---- one value ---- */

#define AT(type, base, field) ((type *)((char *)(base) + (field)->offset))
#define AT_CONST(type, base, field) ((const type *)((const char *)(base) + (field)->offset))

static const char *type_text(const setting *f, char buf[VALUE_BYTES])
{
    static const char *const name[] = {
        "true or false", "a whole number", "a number", "text", "", "numbers with commas"};
    if (f->type == SETTING_CHOICE) snprintf(buf, VALUE_BYTES, "one of %s", f->choices);
    else if (f->range)
        snprintf(buf, VALUE_BYTES, "%s %s%s", name[f->type], *f->range == '>' ? "" : "in ",
                 f->range);
    else snprintf(buf, VALUE_BYTES, "%s", name[f->type]);
    return buf;
}

static bool in_range(const char *range, double v)
{
    double low, high;
    char first[32];
    if (!range) return true;
    if (isnan(v)) return false;
    if (range[0] == '>' && range[1] == '=') return real_parse(range + 2, &low) && v >= low;
    if (range[0] == '>') return real_parse(range + 1, &low) && v > low;
    const char *dots = strstr(range, "..");
    if (!dots || (size_t)(dots - range) >= sizeof first) return false;
    memcpy(first, range, (size_t)(dots - range));
    first[dots - range] = 0;
    return real_parse(first, &low) && real_parse(dots + 2, &high) && v >= low && v <= high;
}

static bool set_bool(bool *to, const char *text)
{
    static const char *const yes[] = {"true", "yes", "on", "1"}, *const no[] = {"false", "no",
                                                                                "off", "0"};
    for (int i = 0; i < 4; i++) {
        bool is_yes = !strcasecmp(text, yes[i]);
        if (!is_yes && strcasecmp(text, no[i])) continue;
        *to = is_yes;
        return true;
    }
    return false;
}

static bool set_list(setting_list *to, const char *text, const char *range)
{
    setting_list list = {0};
    char item[64];
    for (const char *p = text; *p;) {
        p += strspn(p, " [");
        size_t n = strcspn(p, ",]");
        while (n && p[n - 1] == ' ') n--;
        if (n == 0 && *p == ']' && list.count == 0) break;
        if (n == 0 || n >= sizeof item || list.count == SETTING_LIST_MOST) return false;
        memcpy(item, p, n);
        item[n] = 0;
        double v;
        if (!real_parse(item, &v) || !in_range(range, v)) return false;
        list.value[list.count++] = v;
        p += n;
        p += strspn(p, " ");
        if (*p == ']') { p++; break; }
        if (*p == ',' && !*++p) return false;
    }
    *to = list;
    return true;
}

static bool is_choice(const char *choices, const char *text)
{
    size_t n = strlen(text);
    for (const char *p = choices; n && p; p = strchr(p, '|'), p = p ? p + 1 : NULL)
        if (strcspn(p, "|") == n && !strncmp(p, text, n)) return true;
    return false;
}

static bool set_string(char **to, const char *text)
{
    char *copy = strdup(text);
    if (!copy) return false;
    free(*to);
    *to = copy;
    return true;
}

/* False: the text is not such a value (or memory is out). */
static bool set_value(const setting *f, void *options, const char *text)
{
    int64_t i;
    double d;
    switch (f->type) {
    case SETTING_BOOL: return set_bool(AT(bool, options, f), text);
    case SETTING_INT:
        if (!int_parse(text, &i) || !in_range(f->range, (double)i)) return false;
        *AT(int64_t, options, f) = i;
        return true;
    case SETTING_REAL:
        if (!real_parse(text, &d) || isnan(d) || !in_range(f->range, d)) return false;
        *AT(double, options, f) = d;
        return true;
    case SETTING_CHOICE:
        return is_choice(f->choices, text) && set_string(AT(char *, options, f), text);
    case SETTING_STRING: return set_string(AT(char *, options, f), text);
    case SETTING_LIST: return set_list(AT(setting_list, options, f), text, f->range);
    }
    return false;
}

const setting *settings_find(const setting *fields, const char *key)
{
    for (const setting *f = fields; f->name; f++)
        if (!strcmp(f->name, key)) return f;
    return NULL;
}

int settings_set(nsm_ctx *ctx, const setting *fields, void *options, const char *key,
                 const char *value, const char *where)
{
    const setting *f = settings_find(fields, key);
    if (!f) {
        nearest n = {0};
        for (f = fields; f->name; f++) nearest_try(&n, key, f->name);
        if (!n.name)
            return nsm_error_set(ctx, NSM_EINVAL, "%s: there are no keys here, but \"%s\" is given",
                                 where, key);
        return nsm_error_set(ctx, NSM_EINVAL,
                             "%s: unknown key \"%s\"; the nearest known one is \"%s\"", where, key,
                             n.name);
    }
    char want[VALUE_BYTES];
    if (set_value(f, options, value)) return NSM_OK;
    return nsm_error_set(ctx, NSM_EINVAL, "%s: %s is \"%.200s\", but must be %s", where, key, value,
                         type_text(f, want));
}

int settings_pairs(nsm_ctx *ctx, const setting *fields, void *options, int count, char *const *pair)
{
    for (int i = 0; i < count && !nsm_error(ctx); i++) {
        char key[KEY_BYTES];
        size_t n = strcspn(pair[i], "=");
        if (pair[i][n] != '=' || n == 0 || n >= sizeof key)
            return nsm_error_set(ctx, NSM_EINVAL, "\"%.200s\" is not of the form key=value",
                                 pair[i]);
        memcpy(key, pair[i], n);
        key[n] = 0;
        settings_set(ctx, fields, options, key, pair[i] + n + 1, "command line");
    }
    return nsm_error(ctx);
}

/* ---- the whole struct ---- */

int settings_init(nsm_ctx *ctx, const setting *fields, void *options)
{
    for (const setting *f = fields; f->name && !nsm_error(ctx); f++) {
        bool text = f->type == SETTING_STRING || f->type == SETTING_CHOICE;
        bool set = f->fallback ? set_value(f, options, f->fallback)
                               : !text || set_string(AT(char *, options, f), "");
        if (!set)
            nsm_error_set(ctx, NSM_ENOMEM, "out of memory for settings (the default of %s)",
                          f->name);
    }
    return nsm_error(ctx);
}

void settings_clear(const setting *fields, void *options)
{
    for (const setting *f = fields; f->name; f++) {
        if (f->type != SETTING_STRING && f->type != SETTING_CHOICE) continue;
        free(*AT(char *, options, f));
        *AT(char *, options, f) = NULL;
    }
}

int settings_copy(nsm_ctx *ctx, const setting *fields, const void *from, void *to)
{
    static const size_t bytes[] = {[SETTING_BOOL] = sizeof(bool),
                                   [SETTING_INT] = sizeof(int64_t),
                                   [SETTING_REAL] = sizeof(double),
                                   [SETTING_LIST] = sizeof(setting_list)};
    for (const setting *f = fields; f->name; f++) {
        if (f->type != SETTING_STRING && f->type != SETTING_CHOICE)
            memcpy(AT(char, to, f), AT_CONST(char, from, f), bytes[f->type]);
        else if (!set_string(AT(char *, to, f), *AT_CONST(char *, from, f)))
            return nsm_error_set(ctx, NSM_ENOMEM, "out of memory for settings");
    }
    return NSM_OK;
}

/* ---- values to text ---- */

/* A scalar that YAML would read as something else, or not at all, goes into double quotes. */
static void put_string(FILE *f, const char *s)
{
    bool plain = *s &&
                 strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+-") ==
                     strlen(s) &&
                 *s != '-' && *s != '.' && *s != '+';
    if (plain) { fputs(s, f); return; }
    fputc('"', f);
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') fprintf(f, "\\%c", c);
        else if (c < 32) fprintf(f, "\\x%02x", c);
        else fputc(c, f);
    }
    fputc('"', f);
}

static void put_value(FILE *out, const setting *f, const void *options, bool yaml)
{
    char buf[32];
    const setting_list *list = AT_CONST(setting_list, options, f);
    switch (f->type) {
    case SETTING_BOOL: fputs(*AT_CONST(bool, options, f) ? "true" : "false", out); return;
    case SETTING_INT: fprintf(out, "%lld", (long long)*AT_CONST(int64_t, options, f)); return;
    case SETTING_REAL: fputs(real_text(*AT_CONST(double, options, f), buf), out); return;
    case SETTING_STRING:
    case SETTING_CHOICE:
        if (yaml) put_string(out, *AT_CONST(char *, options, f));
        else fputs(*AT_CONST(char *, options, f), out);
        return;
    case SETTING_LIST:
        fputs(yaml ? "[" : "", out);
        for (int i = 0; i < list->count; i++)
            fprintf(out, "%s%s", i ? yaml ? ", " : "," : "", real_text(list->value[i], buf));
        fputs(yaml ? "]" : "", out);
        return;
    }
}

/* Close a memory stream and return its text, or leave NSM_ENOMEM. */
static char *finish_text(nsm_ctx *ctx, FILE *f, char **text)
{
    if (f && fclose(f) == 0 && *text) return *text;
    nsm_error_set(ctx, NSM_ENOMEM, "out of memory for settings as text");
    return NULL;
}

char *settings_text(nsm_ctx *ctx, const setting *fields, const void *options)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    for (const setting *f = fields; out && f->name; f++) {
        fprintf(out, "%s: ", f->name);
        put_value(out, f, options, true);
        fputc('\n', out);
    }
    return finish_text(ctx, out, &text);
}

char *settings_value(nsm_ctx *ctx, const setting *field, const void *options)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    if (out) put_value(out, field, options, false);
    return finish_text(ctx, out, &text);
}

void help_line(FILE *out, const char *key, const char *text)
{
    enum { indent = 29, width = 78 };
    int at = fprintf(out, "  %s", key);
    if (at > indent - 2) fprintf(out, "\n%*s", indent, "");
    else fprintf(out, "%*s", indent - at, "");
    at = indent;
    for (const char *p = text + strspn(text, " "); *p; p += strspn(p, " ")) {
        int n = (int)strcspn(p, " ");
        if (at > indent && at + 1 + n > width) {
            fprintf(out, "\n%*s", indent, "");
            at = indent;
        } else if (at > indent) {
            fputc(' ', out);
            at++;
        }
        fprintf(out, "%.*s", n, p);
        at += n;
        p += n;
    }
    fputc('\n', out);
}

char *settings_help(const setting *fields)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    if (!out) return NULL;
    for (const setting *f = fields; f->name; f++) {
        char key[KEY_BYTES], line[2 * VALUE_BYTES], want[VALUE_BYTES];
        snprintf(key, sizeof key, "%s=%s", f->name, f->fallback ? f->fallback : "");
        bool plain = f->type == SETTING_STRING || f->type == SETTING_BOOL;
        snprintf(line, sizeof line, "%s%s%s%s", f->help, plain ? "" : " (",
                 plain ? "" : type_text(f, want), plain ? "" : ")");
        help_line(out, key, line);
    }
    return fclose(out) == 0 ? text : (free(text), NULL);
}

/* ---- YAML ---- */

typedef struct {
    nsm_ctx *ctx;
    const setting *fields;
    void *options;
    const char *name;    /* of the file, for errors */
    bool ignore_unknown;
    yaml_parser_t parser;
    yaml_event_t event;
    char where[512];
} reader;

static int refuse(reader *r, const char *what)
{
    return nsm_error_set(r->ctx, NSM_EINVAL, "%.300s:%zu: %s", r->name,
                         r->event.start_mark.line + 1, what);
}

static bool next(reader *r)
{
    yaml_event_delete(&r->event);
    memset(&r->event, 0, sizeof r->event);
    if (!yaml_parser_parse(&r->parser, &r->event)) {
        size_t line = r->parser.problem_mark.line + 1;
        nsm_error_set(r->ctx, NSM_EINVAL, "%.300s:%zu: not YAML: %s", r->name, line,
                      r->parser.problem ? r->parser.problem : "out of memory");
        return false;
    }
    if (r->event.type == YAML_ALIAS_EVENT) refuse(r, "anchors are not allowed in a configuration");
    return !nsm_error(r->ctx);
}

static const char *scalar(const reader *r) { return (const char *)r->event.data.scalar.value; }

static void assign(reader *r, const char *key, const char *value, size_t line)
{
    if (r->ignore_unknown && !settings_find(r->fields, key)) return;
    snprintf(r->where, sizeof r->where, "%.300s:%zu", r->name, line);
    settings_set(r->ctx, r->fields, r->options, key, value, r->where);
}

/* After a sequence's start: its scalars, with commas between, are the key's value. */
static void read_list(reader *r, const char *key)
{
    char text[VALUE_BYTES];
    size_t used = 0, line = r->event.start_mark.line + 1;
    text[0] = 0;
    while (next(r) && r->event.type != YAML_SEQUENCE_END_EVENT) {
        if (r->event.type != YAML_SCALAR_EVENT) {
            refuse(r, "a list may hold plain values only");
            return;
        }
        if (strlen(scalar(r)) + used + 2 > sizeof text) {
            refuse(r, "the list is too long");
            return;
        }
        used +=
            (size_t)snprintf(text + used, sizeof text - used, "%s%s", used ? "," : "", scalar(r));
    }
    if (!nsm_error(r->ctx)) assign(r, key, text, line);
}

/* After a mapping's start: its pairs, the keys with prefix before them. */
static void read_mapping(reader *r, const char *prefix, int depth)
{
    while (next(r) && r->event.type != YAML_MAPPING_END_EVENT) {
        char key[KEY_BYTES];
        if (r->event.type != YAML_SCALAR_EVENT) { refuse(r, "a key must be plain text"); return; }
        int n = snprintf(key, sizeof key, "%s%s%s", prefix, *prefix ? "." : "", scalar(r));
        if (n < 0 || (size_t)n >= sizeof key) { refuse(r, "the key is too long"); return; }
        if (!next(r)) return;
        if (r->event.type == YAML_SCALAR_EVENT)
            assign(r, key, scalar(r), r->event.start_mark.line + 1);
        else if (r->event.type == YAML_SEQUENCE_START_EVENT) read_list(r, key);
        else if (depth < DEEPEST) read_mapping(r, key, depth + 1);
        else refuse(r, "too many mappings inside each other");
        if (nsm_error(r->ctx)) return;
    }
}

static void read_document(reader *r)
{
    if (!next(r) || !next(r))
        return; /* the stream's start; the document's start, or the end of an empty stream */
    if (r->event.type == YAML_STREAM_END_EVENT || !next(r)) return;
    if (r->event.type == YAML_SCALAR_EVENT && !*scalar(r)) return;
    if (r->event.type != YAML_MAPPING_START_EVENT) {
        refuse(r, "expected lines of the form key: value");
        return;
    }
    read_mapping(r, "", 0);
    if (nsm_error(r->ctx) || !next(r) || !next(r)) return;
    if (r->event.type != YAML_STREAM_END_EVENT) refuse(r, "more than one document");
}

int settings_parse(nsm_ctx *ctx, const setting *fields, void *options, const char *text,
                   size_t bytes, const char *name, bool ignore_unknown)
{
    reader r = {.ctx = ctx,
                .fields = fields,
                .options = options,
                .name = name,
                .ignore_unknown = ignore_unknown};
    if (nsm_error(ctx)) return nsm_error(ctx);
    if (!yaml_parser_initialize(&r.parser))
        return nsm_error_set(ctx, NSM_ENOMEM, "out of memory for reading %s", name);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, bytes);
    read_document(&r);
    yaml_event_delete(&r.event);
    yaml_parser_delete(&r.parser);
    return nsm_error(ctx);
}

int settings_read(nsm_ctx *ctx, const setting *fields, void *options, const char *path)
{
    if (nsm_error(ctx)) return nsm_error(ctx);
    FILE *f = fopen(path, "rb");
    if (!f) return nsm_error_set(ctx, NSM_EIO, "%s: %s", path, strerror(errno));
    char *text = malloc(FILE_MOST);
    size_t bytes = text ? fread(text, 1, FILE_MOST, f) : 0;
    if (!text) nsm_error_set(ctx, NSM_ENOMEM, "out of memory for reading %s", path);
    else if (ferror(f)) nsm_error_set(ctx, NSM_EIO, "%s: %s", path, strerror(errno));
    else if (bytes == FILE_MOST)
        nsm_error_set(ctx, NSM_EFORMAT, "%s: longer than a configuration may be (%d bytes)", path,
                      FILE_MOST);
    else settings_parse(ctx, fields, options, text, bytes, path, false);
    fclose(f);
    free(text);
    return nsm_error(ctx);
}
