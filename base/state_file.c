/* base/state_file.c - States in files.  A part that grows is written as far as it is in use. */
#include "config.h"
#include "base/hdf5.h"
#include "base/internal.h"
#include "base/state.h"

static const char kind[] = "state";
enum { FORMAT = 1, PATH_BYTES = 512 };

static char *path_in(nsm_ctx *ctx, const char *group, const char *name)
{
    return nsmi_format(ctx, "%s%s%s", group, *group ? "." : "", name);
}

/* The shape that a part has in a file. */
static void file_shape(const nsm_state_part *p, int64_t tokens, int64_t dim[NSM_MAX_RANK])
{
    memcpy(dim, p->tensor->dim, NSM_MAX_RANK * sizeof *dim);
    if (p->grows) dim[1] = tokens;
}

static size_t bytes_of(const nsm_tensor *t, const int64_t *dim)
{
    size_t bytes = nsm_type_bytes(t->type);
    for (int k = 0; k < t->rank; k++) bytes *= (size_t)dim[k];
    return bytes;
}

/* Rows of `row` bytes from one pitch to another, to or from the device. */
static void move_rows(const nsm_state *s, const nsm_state_part *p, const int64_t *dim, char *host,
                      bool to_device)
{
    size_t row = bytes_of(p->tensor, dim) / (size_t)s->batch,
           pitch = bytes_of(p->tensor, p->tensor->dim) / (size_t)s->batch;
    for (int64_t b = 0; b < s->batch && row; b++) {
        char *device = (char *)p->tensor->data + pitch * (size_t)b, *at = host + row * (size_t)b;
        if (to_device) s->ctx->dev.be->to_device(&s->ctx->dev, row, at, device);
        else s->ctx->dev.be->to_host(&s->ctx->dev, row, device, at);
    }
}

static void save(const nsm_state *s, nsmi_h5 *h, const char *group)
{
    for (int i = 0; i < s->parts && !nsmi_failed(s->ctx); i++) {
        const nsm_state_part *p = &s->part[i];
        int64_t dim[NSM_MAX_RANK];
        file_shape(p, s->tokens, dim);
        char *path = path_in(s->ctx, group, p->name),
             *host = nsmi_malloc(s->ctx, bytes_of(p->tensor, dim));
        if (path && host) {
            move_rows(s, p, dim, host, false);
            nsmi_h5_write(h, path, p->tensor->type, p->tensor->rank, dim, host);
        }
        free(path);
        free(host);
    }
    for (int i = 0; i < s->children && !nsmi_failed(s->ctx); i++) {
        char *path = path_in(s->ctx, group, s->child[i].name);
        if (path) save(s->child[i].state, h, path);
        free(path);
    }
}

int nsm_state_save(const nsm_state *s, const char *path)
{
    if (!s || nsmi_failed(s->ctx)) return s ? nsm_error(s->ctx) : NSM_EINVAL;
    nsmi_h5 *h = nsmi_h5_create(s->ctx, path, kind);
    nsmi_h5_put_int(h, "", "version", FORMAT);
    if (h) save(s, h, "");
    return nsmi_h5_commit(s->ctx, h);
}

/* What was read, until all of it was. */
typedef struct read_part {
    struct read_part *next;
    nsm_state *state;
    int part;
    void *host;
} read_part;

/* Of the row that has seen most; -1: a count is below 0. */
static int64_t most_tokens(const nsm_state *s, const int64_t *seen)
{
    int64_t most = 0;
    for (int64_t b = 0; b < s->batch; b++) {
        if (seen[b] < 0) return -1;
        if (seen[b] > most) most = seen[b];
    }
    return most;
}

static read_part *load(nsm_state *s, nsmi_h5 *h, const char *group, read_part *list)
{
    int64_t tokens = 0;
    for (int i = 0; i < s->parts && !nsmi_failed(s->ctx); i++) {
        const nsm_state_part *p = &s->part[i];
        read_part *r = nsmi_calloc(s->ctx, 1, sizeof *r);
        char *path = r ? path_in(s->ctx, group, p->name) : NULL;
        int64_t dim[NSM_MAX_RANK];
        file_shape(p, tokens, dim);
        if (r)
            *r = (read_part){ list, s, i,
                              path ? nsmi_h5_read(h, path, p->tensor->type, p->tensor->rank, dim)
                                   : NULL };
        if (r) list = r;
        /* "tokens" is the first part */
        if (i == 0 && r && r->host) tokens = most_tokens(s, r->host);
        if (tokens < 0)
            nsm_error_set(s->ctx, NSM_EFORMAT, "%s: %s counts fewer than no tokens",
                          nsmi_h5_path(h), path);
        free(path);
    }
    for (int i = 0; i < s->children && !nsmi_failed(s->ctx); i++) {
        char *path = path_in(s->ctx, group, s->child[i].name);
        if (path) list = load(s->child[i].state, h, path, list);
        free(path);
    }
    return list;
}

/* Room first, in every state, so that what follows cannot fail half way. */
static void apply(const read_part *list)
{
    for (const read_part *r = list; r; r = r->next)
        if (r->part == 0 && nsm_state_reserve(r->state, most_tokens(r->state, r->host))) return;
    for (const read_part *r = list; r; r = r->next)
        if (r->part == 0) r->state->tokens = most_tokens(r->state, r->host);
    for (const read_part *r = list; r; r = r->next) {
        const nsm_state_part *p = &r->state->part[r->part];
        int64_t dim[NSM_MAX_RANK];
        file_shape(p, r->state->tokens, dim);
        move_rows(r->state, p, dim, r->host, true);
    }
}

int nsm_state_load(nsm_state *s, const char *path)
{
    int64_t version;
    if (!s || nsmi_failed(s->ctx)) return s ? nsm_error(s->ctx) : NSM_EINVAL;
    nsmi_h5 *h = nsmi_h5_open(s->ctx, path, kind);
    read_part *list = NULL;
    if (h && !nsmi_h5_get_int(h, "", "version", 1, FORMAT, &version)) list = load(s, h, "", list);
    nsmi_h5_close(h);
    if (!nsmi_failed(s->ctx)) apply(list);
    for (read_part *next; list; list = next) {
        next = list->next;
        free(list->host);
        free(list);
    }
    return nsm_error(s->ctx);
}
