/* base/options.c - See options.h: reading "key=value key=value" into the fields of a struct. */
#include "config.h"
#include <locale.h>
#include "base/internal.h"

enum { KEY_BYTES = 64, VALUE_BYTES = 64 };

static const nsm_key *find_key(const nsm_key *keys, const char *name)
{
    for (const nsm_key *k = keys; k && k->name; k++)
        if (!strcmp(k->name, name)) return k;
    return NULL;
}

static int place_of(const char *choices, const char *text)
{
    size_t n = strlen(text);
    int at = 0;
    for (const char *p = choices; p; p = strchr(p, '|'), p = p ? p + 1 : NULL, at++)
        if (n && strcspn(p, "|") == n && !strncmp(p, text, n)) return at;
    return -1;
}

static bool parse(const nsm_key *k, const char *text, double *value)
{
    char *end;
    if (k->type == NSM_KEY_CHOICE) return (*value = place_of(k->choices, text)) >= 0;
    if (k->type == NSM_KEY_BOOL) {
        *value = place_of("false|true", text) >= 0 ? place_of("false|true", text)
                                                   : place_of("0|1", text);
        return *value >= 0;
    }
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    *value = strtod_l(text, &end, c);
    freelocale(c);
    return end != text && !*end && *value >= k->low && *value <= k->high &&
           (k->type == NSM_KEY_REAL || *value == floor(*value));
}

static void put(void *to, const nsm_key *k, double value)
{
    void *at = (char *)to + k->offset;
    if (k->type == NSM_KEY_BOOL) *(bool *)at = value != 0;
    else if (k->type == NSM_KEY_REAL) *(float *)at = (float)value;
    else *(int *)at = (int)value;
}

static int check(nsm_ctx *ctx, const char *who, const nsm_key *keys, const char *key,
                 const char *text, double *value)
{
    const nsm_key *k = find_key(keys, key);
    char names[512] = "";
    if (k && parse(k, text, value)) return NSM_OK;
    if (k && k->type == NSM_KEY_CHOICE)
        return nsm_error_set(ctx, NSM_EINVAL, "%s: %s is \"%s\", want one of %s", who, key, text,
                             k->choices);
    if (k && k->type == NSM_KEY_BOOL)
        return nsm_error_set(ctx, NSM_EINVAL, "%s: %s is \"%s\", want true or false", who, key,
                             text);
    if (k)
        return nsm_error_set(ctx, NSM_EINVAL, "%s: %s is \"%s\", want %s in %g..%g", who, key, text,
                             k->type == NSM_KEY_INT ? "a whole number" : "a number", k->low,
                             k->high);
    for (k = keys; k && k->name; k++)
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", k == keys ? "" : ", ",
                 k->name);
    return nsm_error_set(ctx, NSM_EINVAL, "%s: unknown key \"%s\"; there are %s", who, key,
                         *names ? names : "none");
}

int nsmi_option_check(nsm_ctx *ctx, const char *who, const nsm_key *keys, const char *key,
                      const char *value)
{
    double number;
    return nsmi_failed(ctx) ? nsm_error(ctx) : check(ctx, who, keys, key, value, &number);
}

void nsmi_options_default(const nsm_key *keys, void *to)
{
    for (const nsm_key *k = keys; k && k->name; k++) put(to, k, k->fallback);
}

int nsmi_options_read(nsm_ctx *ctx, const char *who, const nsm_key *keys, const char *text,
                      bool live, void *to)
{
    char key[KEY_BYTES], value[VALUE_BYTES];
    for (const char *p = text ? text : ""; *(p += strspn(p, " ,"));) {
        size_t n = strcspn(p, "= ,"), v = p[n] == '=' ? strcspn(p + n + 1, " ,") : 0;
        double number;
        if (p[n] != '=' || n == 0 || n >= sizeof key || v >= sizeof value)
            return nsm_error_set(ctx, NSM_EINVAL, "%s: \"%.80s\" does not begin with key=value",
                                 who, p);
        snprintf(key, sizeof key, "%.*s", (int)n, p);
        snprintf(value, sizeof value, "%.*s", (int)v, p + n + 1);
        if (check(ctx, who, keys, key, value, &number)) return nsm_error(ctx);
        const nsm_key *k = find_key(keys, key);
        if (live && !k->live)
            return nsm_error_set(ctx, NSM_EINVAL, "%s: %s cannot be changed once it is made", who,
                                 key);
        if (to) put(to, k, number);
        p += n + 1 + v;
    }
    return NSM_OK;
}
