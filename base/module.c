/* base/module.c - Named parameters and children. */
#include "config.h"
#include "base/internal.h"

void nsm_module_init(nsm_module *m, nsm_ctx *ctx) { *m = (nsm_module){ .ctx = ctx }; }

void nsm_module_clear(nsm_module *m)
{
    if (!m) return;
    for (int i = 0; i < m->params; i++) {
        nsm_tensor_free(m->param[i].tensor);
        free((char *)m->param[i].name);
    }
    for (int i = 0; i < m->children; i++) free((char *)m->child[i].name);
    free(m->param);
    free(m->child);
    *m = (nsm_module){ .ctx = m->ctx };
}

static nsm_tensor *add(nsm_module *m, const char *name, int rank, const int64_t *dim, bool buffer)
{
    if (nsmi_failed(m->ctx)) return NULL;
    nsm_param *more = nsmi_realloc(m->ctx, m->param, (size_t)m->params + 1, sizeof *more);
    if (!more) return NULL;
    m->param = more;
    char *copy = nsmi_strdup(m->ctx, name);
    nsm_tensor *t = copy ? nsm_tensor_new(m->ctx, NSM_F32, rank, dim) : NULL;
    if (!t) {
        free(copy);
        return NULL;
    }
    t->needs_grad = !buffer;
    nsm_tensor_zero(t);
    m->param[m->params++] = (nsm_param){ copy, t, buffer };
    return t;
}

nsm_tensor *nsm_module_param(nsm_module *m, const char *name, int rank, const int64_t *dim)
{
    return add(m, name, rank, dim, false);
}
nsm_tensor *nsm_module_buffer(nsm_module *m, const char *name, int rank, const int64_t *dim)
{
    return add(m, name, rank, dim, true);
}

int nsm_module_child(nsm_module *m, const char *name, nsm_module *child)
{
    if (nsmi_failed(m->ctx)) return nsm_error(m->ctx);
    if (!child) return nsm_error_set(m->ctx, NSM_EINVAL, "nsm_module_child: %s is NULL", name);
    void *more = nsmi_realloc(m->ctx, m->child, (size_t)m->children + 1, sizeof *m->child);
    if (!more) return nsm_error(m->ctx);
    m->child = more;
    char *copy = nsmi_strdup(m->ctx, name);
    if (!copy) return nsm_error(m->ctx);
    m->child[m->children].name = copy;
    m->child[m->children++].module = child;
    return NSM_OK;
}

enum { NAME_BYTES = 512 };

static int walk(nsm_module *m, char *name, size_t at, nsm_visit visit, void *user)
{
    for (int i = 0; i < m->params; i++) {
        snprintf(name + at, NAME_BYTES - at, "%s", m->param[i].name);
        int code = visit(user, name, m->param[i].tensor, m->param[i].buffer);
        if (code) return code;
    }
    for (int i = 0; i < m->children; i++) {
        int wrote = snprintf(name + at, NAME_BYTES - at, "%s.", m->child[i].name);
        if (wrote < 0 || (size_t)wrote >= NAME_BYTES - at)
            return nsm_error_set(m->ctx, NSM_EINVAL,
                                 "nsm_module_walk: a dotted name is longer than %d bytes",
                                 NAME_BYTES);
        int code = walk(m->child[i].module, name, at + (size_t)wrote, visit, user);
        if (code) return code;
    }
    return NSM_OK;
}

int nsm_module_walk(nsm_module *m, nsm_visit visit, void *user)
{
    char name[NAME_BYTES];
    return m ? walk(m, name, 0, visit, user) : NSM_EINVAL;
}

typedef struct { const char *name; nsm_tensor *found; } search;

static int match(void *user, const char *name, nsm_tensor *t, bool buffer)
{
    search *s = user;
    (void)buffer;
    if (strcmp(name, s->name)) return 0;
    s->found = t;
    return 1;
}

nsm_tensor *nsm_module_find(nsm_module *m, const char *dotted_name)
{
    search s = { dotted_name, NULL };
    nsm_module_walk(m, match, &s);
    return s.found;
}

static int count(void *user, const char *name, nsm_tensor *t, bool buffer)
{
    (void)name;
    if (!buffer) *(int64_t *)user += nsm_numel(t);
    return 0;
}

int64_t nsm_module_count(nsm_module *m)
{
    int64_t n = 0;
    nsm_module_walk(m, count, &n);
    return n;
}

static int clear_grad(void *user, const char *name, nsm_tensor *t, bool buffer)
{
    (void)user;
    (void)name;
    (void)buffer;
    nsm_tensor_zero_grad(t);
    return 0;
}

void nsm_module_zero_grad(nsm_module *m) { nsm_module_walk(m, clear_grad, NULL); }
