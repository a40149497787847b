/* summary.c - What import, generate and split have in common. */
#include "tools/summary.h"
#include <stdlib.h>
#include <string.h>
#include "tools/progress.h"

json_t *split_summary(const nsm_dataset *ds)
{
    json_t *list = json_array();
    for (int i = 0; i < ds->splits; i++) {
        const nsm_dataset_split *s = &ds->split[i];
        json_array_append_new(list, json_pack("{s:s, s:I, s:I, s:I}", "name", s->name, "train",
                                              (json_int_t)s->count[NSM_TRAIN], "valid",
                                              (json_int_t)s->count[NSM_VALID], "test",
                                              (json_int_t)s->count[NSM_TEST]));
    }
    return list;
}

json_t *dataset_summary(const nsm_dataset *ds, const char *path)
{
    int64_t nodes = 0, edges = 0;
    for (int i = 0; i < ds->node_types; i++) nodes += ds->node[i].count;
    for (int i = 0; i < ds->edge_types; i++) edges += ds->edge[i].count;
    json_t *o = json_pack("{s:s, s:s, s:I, s:I, s:I}", "file", path, "name",
                          ds->name ? ds->name : "", "graphs", (json_int_t)ds->graphs, "nodes",
                          (json_int_t)nodes, "edges", (json_int_t)edges);
    if (!o) return NULL;
    if (ds->node_types)
        json_object_set_new(o, "features", json_integer(ds->node[ds->target].features));
    if (ds->label.kind == NSM_LABEL_CLASS || ds->label.kind == NSM_LABEL_MULTI)
        json_object_set_new(o, "classes", json_integer(ds->label.columns));
    if (ds->label.kind == NSM_LABEL_VALUE)
        json_object_set_new(o, "values", json_integer(ds->label.columns));
    if (ds->splits) json_object_set_new(o, "splits", split_summary(ds));
    return o;
}

nsm_option *pair_options(const tool *t, bool with_seed, int *count)
{
    size_t bytes = (size_t)(t->pairs + 1) * sizeof(nsm_option) + 32;
    for (int i = 0; i < t->pairs; i++) bytes += strlen(t->pair[i]) + 1;
    nsm_option *list = malloc(bytes);
    if (!list) {
        tool_fail(t, "out of memory");
        return NULL;
    }
    char *text = (char *)(list + t->pairs + 1);
    bool seeded = false;
    *count = 0;
    for (int i = 0; i < t->pairs; i++) {
        char *value = strchr(strcpy(text, t->pair[i]), '=');
        *value++ = 0;
        seeded |= !strcmp(text, "seed");
        list[(*count)++] = (nsm_option){text, value};
        text = value + strlen(value) + 1;
    }
    if (with_seed && t->seeded && !seeded) {
        sprintf(text, "%llu", (unsigned long long)t->seed);
        list[(*count)++] = (nsm_option){"seed", text};
    }
    return list;
}

void formats_help(FILE *out, const char *title, const nsm_format *(*at)(int i))
{
    fprintf(out, "%s, each with the keys it takes as KEY=VALUE, and their defaults:\n", title);
    for (int i = 0; at(i); i++) {
        const nsm_format *f = at(i);
        fprintf(out, "\n%s: %s\n", f->name, f->help);
        for (const char *line = f->options; line && *line;) {
            int n = (int)strcspn(line, "\n"), space = (int)strcspn(line, " \n");
            char key[128], text[512];
            snprintf(key, sizeof key, "%.*s", space, line);
            snprintf(text, sizeof text, "%.*s", n - space, line + space);
            help_line(out, key, text);
            line += n + (line[n] == '\n');
        }
    }
}

int dataset_finish(const tool *t, nsm_dataset *ds, const char *path, double began)
{
    json_t *result = NULL;
    int code = TOOL_FAILED;
    if (!ds || nsm_dataset_save(ds, path)) code = tool_error(t);
    else if ((result = dataset_summary(ds, path))) {
        json_object_set_new(result, "seconds", report_real(progress_now() - began));
        code = report_result(t, result);
    } else code = tool_fail(t, "out of memory");
    nsm_dataset_free(ds);
    return code;
}

/* Tokens of a part, or the steps of a series. */
static int64_t tokens_of(const nsm_sequences *s, int part)
{
    const nsm_sequence_part *p = &s->part[part];
    if (s->kind == NSM_SEQUENCE_SERIES)
        return s->series.end[part] - (part ? s->series.end[part - 1] : 0);
    return p->start ? p->start[p->rows] : p->rows * p->length;
}

json_t *sequences_summary(const nsm_sequences *s, const char *path)
{
    static const char *const part[] = {"train", "valid", "test"};
    json_t *o = json_pack("{s:s, s:s, s:s, s:I, s:I}", "file", path, "name", s->name ? s->name : "",
                          "kind", nsm_sequence_kind_name(s->kind), "vocab", (json_int_t)s->vocab,
                          "classes", (json_int_t)s->classes);
    json_t *list = json_array();
    for (int p = 0; o && p < NSM_SPLIT_PARTS; p++)
        json_array_append_new(list, json_pack("{s:s, s:I, s:I}", "part", part[p], "rows",
                                              (json_int_t)s->part[p].rows, "tokens",
                                              (json_int_t)tokens_of(s, p)));
    if (o) json_object_set_new(o, "parts", list);
    return o;
}

int sequences_finish(const tool *t, nsm_sequences *s, const char *path, double began)
{
    json_t *result = NULL;
    int code = TOOL_FAILED;
    if (!s || nsm_sequences_save(s, path)) code = tool_error(t);
    else if ((result = sequences_summary(s, path))) {
        json_object_set_new(result, "seconds", report_real(progress_now() - began));
        code = report_result(t, result);
    } else code = tool_fail(t, "out of memory");
    nsm_sequences_free(s);
    return code;
}
