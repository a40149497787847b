/* base/state.c - See state.h. */
#include "config.h"
#include "base/internal.h"
#include "base/state.h"

enum { LEAST_ROOM = 64 };

nsm_state *nsm_state_new(nsm_ctx *ctx, int64_t batch)
{
    if (nsmi_failed(ctx)) return NULL;
    if (batch < 1) {
        nsm_error_set(ctx, NSM_EINVAL, "nsm_state_new: batch is %lld, want 1 or more",
                      (long long)batch);
        return NULL;
    }
    nsm_state *s = nsmi_calloc(ctx, 1, sizeof *s);
    if (!s) return NULL;
    s->ctx = ctx;
    s->batch = batch;
    s->seen = nsm_state_add(s, "tokens", NSM_I64, 0, NULL);
    if (!nsmi_failed(ctx)) return s;
    nsm_state_free(s);
    return NULL;
}

void nsm_state_free(nsm_state *s)
{
    if (!s) return;
    for (int i = 0; i < s->parts; i++) {
        nsm_tensor_free(s->part[i].tensor);
        free(s->part[i].name);
    }
    for (int i = 0; i < s->children; i++) {
        nsm_state_free(s->child[i].state);
        free(s->child[i].name);
    }
    free(s->part);
    free(s->child);
    free(s);
}

static nsm_tensor *add(nsm_state *s, const char *name, nsm_type type, int rank, const int64_t *dim,
                       bool grows)
{
    if (!s || nsmi_failed(s->ctx)) return NULL;
    int64_t all[NSM_MAX_RANK + 2] = { s->batch, 0 };
    int first = grows ? 2 : 1;
    for (int k = 0; k < rank && k < NSM_MAX_RANK; k++) all[first + k] = dim[k];
    nsm_state_part *more = nsmi_realloc(s->ctx, s->part, (size_t)s->parts + 1, sizeof *more);
    if (!more) return NULL;
    s->part = more;
    char *copy = nsmi_strdup(s->ctx, name);
    nsm_tensor *t = copy ? nsm_tensor_new(s->ctx, type, first + rank, all) : NULL;
    if (!t) {
        free(copy);
        return NULL;
    }
    nsm_tensor_zero(t);
    s->part[s->parts++] = (nsm_state_part){ copy, t, grows };
    return t;
}

nsm_tensor *nsm_state_add(nsm_state *s, const char *name, nsm_type type, int rank,
                          const int64_t *dim)
{
    return add(s, name, type, rank, dim, false);
}

nsm_tensor *nsm_state_add_growing(nsm_state *s, const char *name, nsm_type type, int rank,
                                  const int64_t *dim)
{
    return add(s, name, type, rank, dim, true);
}

int nsm_state_child(nsm_state *s, const char *name, nsm_state *child)
{
    void *more = s && child && !nsmi_failed(s->ctx)
                     ? nsmi_realloc(s->ctx, s->child, (size_t)s->children + 1, sizeof *s->child)
                     : NULL;
    if (more) s->child = more;
    char *copy = more ? nsmi_strdup(s->ctx, name) : NULL;
    if (!copy) {
        nsm_state_free(child);
        return s ? nsm_error(s->ctx) : NSM_EINVAL;
    }
    s->child[s->children].name = copy;
    s->child[s->children++].state = child;
    return NSM_OK;
}

nsm_tensor *nsm_state_get(const nsm_state *s, const char *name)
{
    for (int i = 0; s && i < s->parts; i++)
        if (!strcmp(s->part[i].name, name)) return s->part[i].tensor;
    return NULL;
}

/* Bytes of one row of a part, or of one token of a row. */
static size_t row_bytes(const nsm_state_part *p, bool token)
{
    size_t bytes = nsm_type_bytes(p->tensor->type);
    for (int k = token ? 2 : 1; k < p->tensor->rank; k++) bytes *= (size_t)p->tensor->dim[k];
    return bytes;
}

static int grow(nsm_state *s, nsm_state_part *p, int64_t room)
{
    const nsm_backend *be = s->ctx->dev.be;
    size_t token = row_bytes(p, true);
    int64_t dim[NSM_MAX_RANK];
    memcpy(dim, p->tensor->dim, sizeof dim);
    dim[1] = room;
    nsm_tensor *wide = nsm_tensor_new(s->ctx, p->tensor->type, p->tensor->rank, dim);
    if (!wide) return nsm_error(s->ctx);
    nsm_tensor_zero(wide);
    for (int64_t b = 0; b < s->batch && s->tokens; b++)
        be->copy(&s->ctx->dev, token * (size_t)s->tokens,
                 (char *)p->tensor->data + token * (size_t)(b * p->tensor->dim[1]),
                 (char *)wide->data + token * (size_t)(b * room));
    nsm_tensor_free(p->tensor);
    p->tensor = wide;
    return NSM_OK;
}

int nsm_state_reserve(nsm_state *s, int64_t tokens)
{
    if (!s || nsmi_failed(s->ctx)) return s ? nsm_error(s->ctx) : NSM_EINVAL;
    for (int i = 0; i < s->parts; i++) {
        int64_t room = s->part[i].tensor->dim[1];
        if (!s->part[i].grows || room >= tokens) continue;
        if (room < LEAST_ROOM) room = LEAST_ROOM;
        while (room < tokens && room <= INT64_MAX / 2) room *= 2; /* more is refused as a tensor */
        if (grow(s, &s->part[i], room)) return nsm_error(s->ctx);
    }
    return NSM_OK;
}

enum { USUAL = 64 };

int nsm_state_advance(nsm_state *s, int64_t n, const nsm_tensor *length)
{
    int64_t few[USUAL], *seen = few, most = 0;
    int32_t few_more[USUAL], *more = few_more;
    if (!s || nsmi_failed(s->ctx)) return s ? nsm_error(s->ctx) : NSM_EINVAL;
    if (s->batch > USUAL) {
        seen = nsmi_malloc(s->ctx, (size_t)s->batch * sizeof *seen);
        more = nsmi_malloc(s->ctx, (size_t)s->batch * sizeof *more);
    }
    if (seen && more && !nsm_tensor_get(s->seen, seen) &&
        (!length || !nsm_tensor_get(length, more))) {
        for (int64_t b = 0; b < s->batch; b++) {
            seen[b] += length ? more[b] : n;
            if (seen[b] > most) most = seen[b];
        }
        nsm_tensor_set(s->seen, seen);
        s->tokens = most;
    }
    if (seen != few) free(seen);
    if (more != few_more) free(more);
    return nsm_error(s->ctx);
}

int nsm_state_zero(nsm_state *s)
{
    if (!s || nsmi_failed(s->ctx)) return s ? nsm_error(s->ctx) : NSM_EINVAL;
    s->tokens = 0;
    for (int i = 0; i < s->parts; i++) nsm_tensor_zero(s->part[i].tensor);
    for (int i = 0; i < s->children; i++) nsm_state_zero(s->child[i].state);
    return nsm_error(s->ctx);
}

/* Are both of the same make?  What grows may have grown differently. */
static bool alike(const nsm_state *a, const nsm_state *b)
{
    bool ok = a->batch == b->batch && a->parts == b->parts && a->children == b->children;
    for (int i = 0; ok && i < a->parts; i++) {
        const nsm_tensor *x = a->part[i].tensor, *y = b->part[i].tensor;
        ok = !strcmp(a->part[i].name, b->part[i].name) && x->type == y->type &&
             x->rank == y->rank && a->part[i].grows == b->part[i].grows;
        for (int k = 0; ok && k < x->rank; k++)
            ok = x->dim[k] == y->dim[k] || (k == 1 && a->part[i].grows);
    }
    for (int i = 0; ok && i < a->children; i++) ok = alike(a->child[i].state, b->child[i].state);
    return ok;
}

static void copy(nsm_state *to, const nsm_state *from)
{
    const nsm_backend *be = to->ctx->dev.be;
    to->tokens = 0; /* nothing to keep while growing */
    if (nsm_state_reserve(to, from->tokens)) return;
    to->tokens = from->tokens;
    for (int i = 0; i < to->parts; i++) {
        nsm_state_part *p = &to->part[i];
        const nsm_tensor *x = from->part[i].tensor;
        size_t all = row_bytes(p, false), have = row_bytes(&from->part[i], false),
               used = all < have ? all : have;
        for (int64_t b = 0; b < to->batch && used; b++)
            be->copy(&to->ctx->dev, used, (const char *)x->data + have * (size_t)b,
                     (char *)p->tensor->data + all * (size_t)b);
    }
    for (int i = 0; i < to->children; i++) copy(to->child[i].state, from->child[i].state);
}

int nsm_state_copy(nsm_state *to, const nsm_state *from)
{
    if (!to || !from || nsmi_failed(to->ctx)) return to ? nsm_error(to->ctx) : NSM_EINVAL;
    if (!alike(to, from))
        return nsm_error_set(to->ctx, NSM_ESHAPE,
                             "nsm_state_copy: the states are not of the same make");
    if (to != from) copy(to, from);
    return nsm_error(to->ctx);
}

int nsm_state_reorder(nsm_state *s, const int32_t *row)
{
    if (!s || nsmi_failed(s->ctx)) return s ? nsm_error(s->ctx) : NSM_EINVAL;
    for (int64_t b = 0; b < s->batch; b++)
        if (row[b] < 0 || row[b] >= s->batch)
            return nsm_error_set(s->ctx, NSM_EINVAL,
                                 "nsm_state_reorder: row %lld is %d, want 0..%lld", (long long)b,
                                 row[b], (long long)s->batch - 1);
    for (int i = 0; i < s->parts; i++) {
        nsm_tensor *from = s->part[i].tensor,
                   *to = nsm_tensor_new(s->ctx, from->type, from->rank, from->dim);
        size_t bytes = row_bytes(&s->part[i], false);
        if (!to) return nsm_error(s->ctx);
        for (int64_t b = 0; b < s->batch && bytes; b++)
            s->ctx->dev.be->copy(&s->ctx->dev, bytes,
                                 (const char *)from->data + bytes * (size_t)row[b],
                                 (char *)to->data + bytes * (size_t)b);
        if (from == s->seen) s->seen = to;
        s->part[i].tensor = to;
        nsm_tensor_free(from);
    }
    for (int i = 0; i < s->children; i++) nsm_state_reorder(s->child[i].state, row);
    return nsm_error(s->ctx);
}

int64_t nsm_state_bytes(const nsm_state *s)
{
    size_t bytes = 0;
    for (int i = 0; s && i < s->parts; i++)
        if (s->part[i].tensor != s->seen)
            bytes += (size_t)s->batch * (s->part[i].grows
                                             ? row_bytes(&s->part[i], true) * (size_t)s->tokens
                                             : row_bytes(&s->part[i], false));
    int64_t all = (int64_t)bytes;
    for (int i = 0; s && i < s->children; i++) all += nsm_state_bytes(s->child[i].state);
    return all;
}
