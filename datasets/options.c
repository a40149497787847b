/* datasets/options.c - key=value options of importers and generators, and finding these by name. */
#include "config.h"
#include "datasets/internal.h"

static const char *find(const nsmi_options *o, const char *key)
{
    const char *value = NULL;
    for (int i = 0; i < o->options; i++)
        if (!strcmp(o->option[i].key, key)) value = o->option[i].value;
    return value;
}

const char *nsmi_option_text(const nsmi_options *o, const char *key, const char *otherwise)
{
    const char *value = find(o, key);
    return value ? value : otherwise;
}

int64_t nsmi_option_int(const nsmi_options *o, const char *key, int64_t low, int64_t high,
                        int64_t otherwise)
{
    const char *value = find(o, key), *p = value;
    int64_t v = otherwise;
    if (value && (!nsmi_parse_int(&p, low, high, &v) || *p))
        nsm_error_set(o->ctx, NSM_EINVAL, "%s: %s=%.60s is not a whole number from %lld to %lld",
                      o->who, key, value, (long long)low, (long long)high);
    return v;
}

double nsmi_option_float(const nsmi_options *o, const char *key, double low, double high,
                         double otherwise)
{
    const char *value = find(o, key), *p = value;
    double v = otherwise;
    if (value && (!nsmi_parse_double(&p, &v) || *p || v < low || v > high)) {
        nsm_error_set(o->ctx, NSM_EINVAL, "%s: %s=%.60s is not a number from %g to %g", o->who, key,
                      value, low, high);
        return otherwise;
    }
    return v;
}

bool nsmi_option_bool(const nsmi_options *o, const char *key, bool otherwise)
{
    static const char *const word[] = { "false", "true", "no", "yes", "0", "1", "off", "on" };
    const char *value = find(o, key);
    if (!value) return otherwise;
    for (int i = 0; i < 8; i++)
        if (!strcmp(value, word[i])) return i % 2;
    nsm_error_set(o->ctx, NSM_EINVAL, "%s: %s=%.60s is neither true nor false", o->who, key, value);
    return otherwise;
}

int nsmi_option_choice(const nsmi_options *o, const char *key, const char *const *list)
{
    const char *value = find(o, key);
    char known[160] = "";
    if (!value) return 0;
    for (int i = 0; list[i]; i++) {
        if (!strcmp(value, list[i])) return i;
        size_t n = strlen(known);
        snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", list[i]);
    }
    nsm_error_set(o->ctx, NSM_EINVAL, "%s: %s=%.60s is none of %s", o->who, key, value, known);
    return 0;
}

/* The option lines of a maker are "key=default  help\n..."; *line moves to the next. */
static bool next_key(const char **line, char *key, size_t room)
{
    if (!**line) return false;
    size_t n = strcspn(*line, "=\n"), all = strcspn(*line, "\n");
    snprintf(key, room, "%.*s", (int)n, *line);
    *line += all + ((*line)[all] == '\n');
    return true;
}

static bool key_known(nsmi_options *o, const char *lines, const char *key)
{
    char name[64], known[300] = "";
    for (const char *line = lines; next_key(&line, name, sizeof name);) {
        if (!strcmp(name, key)) return true;
        size_t n = strlen(known);
        snprintf(known + n, sizeof known - n, "%s%s", n ? ", " : "", name);
    }
    nsm_error_set(o->ctx, NSM_EINVAL, "%s: there is no option %.60s; there are %s", o->who, key,
                  *known ? known : "none");
    return false;
}

bool nsmi_options_known(nsmi_options *o, const char *lines)
{
    for (int i = 0; i < o->options; i++)
        if (!key_known(o, lines, o->option[i].key)) return false;
    return true;
}

nsm_dataset *nsmi_make(nsm_ctx *ctx, const nsmi_maker *table, const char *verb, const char *name,
                       const char *source, const nsm_option *option, int options)
{
    if (nsmi_failed(ctx)) return NULL;
    char known[200] = "", who[64];
    snprintf(who, sizeof who, "%s %.40s", verb, name);
    nsmi_options o = { ctx, who, option, options };
    for (; table->run && strcmp(table->about.name, name); table++) {
        size_t n = strlen(known);
        snprintf(known + n, sizeof known - n, "%s%s", n ? ", " : "", table->about.name);
    }
    if (!table->run) {
        nsm_error_set(ctx, NSM_EINVAL, "%s: there is no %.40s; there are %s", verb, name, known);
        return NULL;
    }
    if (!nsmi_options_known(&o, table->about.options)) return NULL;
    nsm_dataset *ds = table->run(ctx, source, &o);
    if (ds && nsmi_dataset_check(ds, who, NSM_EFORMAT) == NSM_OK) return ds;
    nsm_dataset_free(ds);
    return NULL;
}
