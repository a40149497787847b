/* datasets/content.c - What nodes may carry beside features: texts, pictures; and questions about
 * them.  The layout in a file: doc/format.md. */
#include "config.h"
#include "datasets/internal.h"

#define FAULT(c, ...) nsmi_fault(c, (c)->code, __VA_ARGS__)

enum { MOST_SIDE = 1 << 16, MOST_CHANNELS = 16, PATH = 2 * NSMI_H5_MAX_NAME };

/* ---- freeing ---- */
void nsmi_content_free(nsm_dataset_nodes *v)
{
    nsmi_h5_free_strings(v->text.symbol, v->text.vocab);
    nsmi_h5_free_strings(v->text.class_names, v->text.classes);
    free(v->text.ptr);
    free(v->text.id);
    free(v->text.label);
    free(v->image.pixel);
    free(v->image.there);
}

void nsmi_questions_free(nsm_dataset_questions *q)
{
    nsmi_h5_free_strings(q->answer_names, q->classes);
    nsmi_h5_free_strings(q->group_names, q->groups);
    nsmi_h5_free_strings(q->value_names, q->features);
    free(q->node);
    free(q->value);
    free(q->answer);
    free(q->group);
    free(q->pointed);
}

/* ---- checking ---- */
static bool text_ok(const nsmi_check *c, const nsm_dataset_nodes *v)
{
    const nsm_dataset_text *t = &v->text;
    if (t->vocab < 0 || t->vocab > INT32_MAX || (t->ptr != NULL) != (t->vocab > 0))
        return FAULT(c, "nodes %s: a text of %lld words, but no ptr", v->name, (long long)t->vocab);
    if (!t->ptr) return true;
    if (!nsmi_offsets_ok(c, v->name, "text/ptr", t->ptr, v->count, -1)) return false;
    if (!t->id && t->ptr[v->count]) return FAULT(c, "nodes %s: text/id is missing", v->name);
    for (int64_t k = 0; k < t->ptr[v->count]; k++)
        if (t->id[k] < 0 || t->id[k] >= t->vocab)
            return FAULT(c, "nodes %s: word %d at %lld of text/id is out of 0..%lld", v->name,
                         t->id[k], (long long)k, (long long)t->vocab - 1);
    if (t->classes < 0 || t->classes > INT32_MAX || (t->label != NULL) != (t->classes > 0))
        return FAULT(c, "nodes %s: %lld classes of words, but no text/label", v->name,
                     (long long)t->classes);
    for (int64_t k = 0; t->label && k < t->ptr[v->count]; k++)
        if (t->label[k] < -1 || t->label[k] >= t->classes)
            return FAULT(c, "nodes %s: class %d at %lld of text/label is out of -1..%lld", v->name,
                         t->label[k], (long long)k, (long long)t->classes - 1);
    return true;
}

static bool images_ok(const nsmi_check *c, const nsm_dataset_nodes *v)
{
    const nsm_dataset_images *p = &v->image;
    int64_t all = v->count;
    if (!p->channels && !p->pixel && !p->there) return true;
    if (p->height < 1 || p->width < 1 || p->channels < 1 || p->height > MOST_SIDE ||
        p->width > MOST_SIDE || p->channels > MOST_CHANNELS || !nsmi_mul(all, p->height, &all) ||
        !nsmi_mul(all, p->width, &all) || !nsmi_mul(all, p->channels, &all))
        return FAULT(c, "nodes %s: pictures of %lld x %lld pixels, %lld channels", v->name,
                     (long long)p->height, (long long)p->width, (long long)p->channels);
    if (all && !p->pixel) return FAULT(c, "nodes %s: the pictures' pixels are missing", v->name);
    for (int64_t i = 0; p->there && i < v->count; i++)
        if (p->there[i] > 1)
            return FAULT(c, "nodes %s: images/there[%lld] is %d, neither 0 nor 1", v->name,
                         (long long)i, p->there[i]);
    return true;
}

bool nsmi_content_ok(const nsmi_check *c, const nsm_dataset_nodes *v)
{
    return text_ok(c, v) && images_ok(c, v);
}

static bool pointed_ok(const nsmi_check *c, const nsm_dataset_questions *q)
{
    if (!q->pointed) return true;
    if (q->pointed_type < 0 || q->pointed_type >= c->ds->node_types)
        return FAULT(c, "questions: pointed_type is node type %d of %d", q->pointed_type,
                     c->ds->node_types);
    int64_t nodes = c->ds->node[q->pointed_type].count;
    for (int64_t i = 0; i < q->count; i++)
        if (q->pointed[i] < -1 || q->pointed[i] >= nodes)
            return FAULT(c, "questions: pointed[%lld] is %d, want -1..%lld", (long long)i,
                         q->pointed[i], (long long)nodes - 1);
    return true;
}

bool nsmi_questions_ok(const nsmi_check *c)
{
    const nsm_dataset_questions *q = &c->ds->question;
    int64_t nodes = c->ds->node[c->ds->target].count, values;
    if (!q->count) return true;
    if (q->count < 0 || q->features < 1 || q->classes < 1 || q->classes > INT32_MAX ||
        q->groups < 0 || q->groups > INT32_MAX || !nsmi_mul(q->count, q->features, &values))
        return FAULT(c, "questions: %lld of %lld numbers, %lld answers, %lld groups",
                     (long long)q->count, (long long)q->features, (long long)q->classes,
                     (long long)q->groups);
    if (!q->node || !q->value || !q->answer || (q->group != NULL) != (q->groups > 0))
        return FAULT(c, "questions: node, value, answer or group is missing");
    for (int64_t i = 0; i < q->count; i++) {
        if (q->node[i] < 0 || q->node[i] >= nodes || (i && q->node[i] < q->node[i - 1]))
            return FAULT(c, "questions: node[%lld] is %d, want 0..%lld, ascending", (long long)i,
                         q->node[i], (long long)nodes - 1);
        if (q->answer[i] < 0 || q->answer[i] >= q->classes)
            return FAULT(c, "questions: answer[%lld] is %d, want 0..%lld", (long long)i,
                         q->answer[i], (long long)q->classes - 1);
        if (q->group && (q->group[i] < 0 || q->group[i] >= q->groups))
            return FAULT(c, "questions: group[%lld] is %d, want 0..%lld", (long long)i, q->group[i],
                         (long long)q->groups - 1);
    }
    return pointed_ok(c, q) && nsmi_finite_all(c, "questions", "asked", "a", q->value, values);
}

/* ---- files ---- */
/* "nodes/paper/text/ptr" in a buffer of the caller's */
static const char *at(char buf[PATH], const nsm_dataset_nodes *v, const char *leaf)
{
    snprintf(buf, PATH, "nodes/%s/%s", v->name, leaf);
    return buf;
}

void nsmi_content_write(nsmi_h5 *h, const nsm_dataset_nodes *v)
{
    char p[PATH];
    const nsm_dataset_text *t = &v->text;
    const nsm_dataset_images *m = &v->image;
    if (t->vocab) {
        nsmi_h5_group(h, at(p, v, "text"));
        nsmi_h5_put_int(h, p, "vocab", t->vocab);
        nsmi_h5_write(h, at(p, v, "text/ptr"), NSM_I64, 1, (int64_t[]){ v->count + 1 }, t->ptr);
        nsmi_h5_write(h, at(p, v, "text/id"), NSM_I32, 1, &t->ptr[v->count], t->id);
        if (t->symbol) nsmi_h5_write_strings(h, at(p, v, "text/symbols"), t->vocab, t->symbol);
        if (t->label)
            nsmi_h5_write(h, at(p, v, "text/label"), NSM_I32, 1, &t->ptr[v->count], t->label);
        if (t->label) nsmi_h5_put_int(h, at(p, v, "text"), "classes", t->classes);
        if (t->label && t->class_names)
            nsmi_h5_write_strings(h, at(p, v, "text/classes"), t->classes, t->class_names);
    }
    if (m->channels) {
        nsmi_h5_group(h, at(p, v, "images"));
        nsmi_h5_write(h, at(p, v, "images/pixel"), NSM_U8, 4,
                      (int64_t[]){ v->count, m->height, m->width, m->channels }, m->pixel);
        if (m->there) nsmi_h5_write(h, at(p, v, "images/there"), NSM_U8, 1, &v->count, m->there);
    }
}

void nsmi_content_read(nsmi_h5 *h, nsm_dataset_nodes *v)
{
    char p[PATH];
    int64_t rows = v->count + 1, words = -1, dim[4] = { v->count, -1, -1, -1 };
    if (nsmi_h5_has(h, at(p, v, "text"))) {
        nsm_dataset_text *t = &v->text;
        nsmi_h5_get_int(h, p, "vocab", 1, INT32_MAX, &t->vocab);
        t->ptr = nsmi_h5_read(h, at(p, v, "text/ptr"), NSM_I64, 1, &rows);
        if (t->ptr) words = t->ptr[v->count];
        if (words >= 0) t->id = nsmi_h5_read(h, at(p, v, "text/id"), NSM_I32, 1, &words);
        if (nsmi_h5_has(h, at(p, v, "text/symbols")))
            t->symbol = nsmi_h5_read_strings(h, p, &t->vocab);
        if (words >= 0 && nsmi_h5_has(h, at(p, v, "text/label"))) {
            t->label = nsmi_h5_read(h, p, NSM_I32, 1, &words);
            nsmi_h5_get_int(h, at(p, v, "text"), "classes", 1, INT32_MAX, &t->classes);
        }
        if (t->classes && nsmi_h5_has(h, at(p, v, "text/classes")))
            t->class_names = nsmi_h5_read_strings(h, p, &t->classes);
    }
    if (nsmi_h5_has(h, at(p, v, "images"))) {
        nsm_dataset_images *m = &v->image;
        m->pixel = nsmi_h5_read(h, at(p, v, "images/pixel"), NSM_U8, 4, dim);
        if (m->pixel) m->height = dim[1], m->width = dim[2], m->channels = dim[3];
        if (nsmi_h5_has(h, at(p, v, "images/there")))
            m->there = nsmi_h5_read(h, p, NSM_U8, 1, &v->count);
    }
}

void nsmi_questions_write(nsmi_h5 *h, const nsm_dataset *ds)
{
    const nsm_dataset_questions *q = &ds->question;
    if (!q->count) return;
    nsmi_h5_group(h, "questions");
    nsmi_h5_put_int(h, "questions", "classes", q->classes);
    nsmi_h5_put_int(h, "questions", "groups", q->groups);
    nsmi_h5_write(h, "questions/node", NSM_I32, 1, &q->count, q->node);
    nsmi_h5_write(h, "questions/value", NSM_F32, 2, (int64_t[]){ q->count, q->features }, q->value);
    nsmi_h5_write(h, "questions/answer", NSM_I32, 1, &q->count, q->answer);
    if (q->group) nsmi_h5_write(h, "questions/group", NSM_I32, 1, &q->count, q->group);
    if (q->answer_names)
        nsmi_h5_write_strings(h, "questions/answers", q->classes, q->answer_names);
    if (q->group_names) nsmi_h5_write_strings(h, "questions/kinds", q->groups, q->group_names);
    if (q->value_names) nsmi_h5_write_strings(h, "questions/values", q->features, q->value_names);
    if (q->pointed) {
        nsmi_h5_put_text(h, "questions", "pointed_type", ds->node[q->pointed_type].name);
        nsmi_h5_write(h, "questions/pointed", NSM_I32, 1, &q->count, q->pointed);
    }
}

/* What they point at, which earlier files have not. */
static void read_pointed(nsmi_h5 *h, nsm_dataset *ds)
{
    nsm_dataset_questions *q = &ds->question;
    if (!nsmi_h5_has(h, "questions/pointed")) return;
    char *type = nsmi_h5_get_text(h, "questions", "pointed_type");
    q->pointed_type = type ? nsm_dataset_find_nodes(ds, type) : -1;
    if (type && q->pointed_type < 0)
        nsm_error_set(ds->ctx, NSM_EFORMAT,
                      "%s: questions: pointed_type: there is no node type "
                      "%.64s",
                      nsmi_h5_path(h), type);
    free(type);
    q->pointed = nsmi_h5_read(h, "questions/pointed", NSM_I32, 1, &q->count);
}

void nsmi_questions_read(nsmi_h5 *h, nsm_dataset *ds)
{
    nsm_dataset_questions *q = &ds->question;
    int64_t dim[2] = { -1, -1 };
    if (!nsmi_h5_has(h, "questions")) return;
    nsmi_h5_get_int(h, "questions", "classes", 1, INT32_MAX, &q->classes);
    nsmi_h5_get_int(h, "questions", "groups", 0, INT32_MAX, &q->groups);
    q->value = nsmi_h5_read(h, "questions/value", NSM_F32, 2, dim);
    if (!q->value) return;
    q->count = dim[0];
    q->features = dim[1];
    q->node = nsmi_h5_read(h, "questions/node", NSM_I32, 1, &q->count);
    q->answer = nsmi_h5_read(h, "questions/answer", NSM_I32, 1, &q->count);
    if (q->groups) q->group = nsmi_h5_read(h, "questions/group", NSM_I32, 1, &q->count);
    if (nsmi_h5_has(h, "questions/answers"))
        q->answer_names = nsmi_h5_read_strings(h, "questions/answers", &q->classes);
    if (nsmi_h5_has(h, "questions/kinds"))
        q->group_names = nsmi_h5_read_strings(h, "questions/kinds", &q->groups);
    if (nsmi_h5_has(h, "questions/values"))
        q->value_names = nsmi_h5_read_strings(h, "questions/values", &q->features);
    read_pointed(h, ds);
}
