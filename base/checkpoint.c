/* base/checkpoint.c - What stands where in a checkpoint.  base/hdf5.c has the container, its seal
 * and the renaming.
 *
 * Loading stages: every array is checked and read into host memory first, then, when nothing can
 * fail any more, handed out. */
#include "config.h"
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <unistd.h>
#include "base/checkpoint.h"
#include "base/hdf5.h"
#include "base/internal.h"

enum { FORMAT = 1, PATH_BYTES = 800, LEAST_KEPT = 2 };

static const char kind[] = "checkpoint";

/* ---- saving ---- */

typedef struct {
    nsm_ctx *ctx;
    nsmi_h5 *file;
    const char *group;
    void *buffer;        /* host, grown as needed */
    size_t buffer_bytes;
} saving;

static int save_tensor(void *user, const char *name, nsm_tensor *t, bool buffer)
{
    saving *s = user;
    char path[PATH_BYTES];
    size_t bytes = (size_t)nsm_numel(t) * nsm_type_bytes(t->type);
    (void)buffer;
    if (bytes > s->buffer_bytes) {
        free(s->buffer);
        s->buffer = nsmi_malloc(s->ctx, bytes);
        s->buffer_bytes = s->buffer ? bytes : 0;
    }
    if (nsmi_failed(s->ctx) || nsm_tensor_get(t, s->buffer)) return nsm_error(s->ctx);
    snprintf(path, sizeof path, "%s/%s", s->group, name);
    return nsmi_h5_write(s->file, path, t->type, t->rank, t->dim, s->buffer);
}

static void save_optimizer(saving *s, nsm_optimizer *o)
{
    int64_t n;
    const int64_t *counts = nsm_optimizer_counts(o, &n);
    nsmi_h5_group(s->file, "optimizer");
    nsmi_h5_put_text(s->file, "optimizer", "kind", nsm_optimizer_name(nsm_optimizer_kind_of(o)));
    nsmi_h5_put_int(s->file, "optimizer", "steps", nsm_optimizer_steps(o));
    nsmi_h5_write(s->file, "optimizer/counts", NSM_I64, 1, &n, counts);
    nsmi_h5_group(s->file, "optimizer/state");
    s->group = "optimizer/state";
    nsm_optimizer_walk(o, save_tensor, s);
}

/* A number that is not finite has no place in an attribute of numbers: it is a word. */
static const char *word_of(double x) { return isnan(x) ? "nan" : x > 0 ? "inf" : "-inf"; }

static void save_field(saving *s, const nsm_field *f)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "run/%s", f->name);
    switch (f->type) {
    case NSM_FIELD_INT: nsmi_h5_put_int(s->file, "run", f->name, *(int64_t *)f->value); break;
    case NSM_FIELD_DOUBLE: {
        double x = *(double *)f->value;
        if (isfinite(x)) nsmi_h5_put_float(s->file, "run", f->name, x);
        else nsmi_h5_put_text(s->file, "run/not_finite", f->name, word_of(x));
        break;
    }
    case NSM_FIELD_TEXT: {
        const char *text = *(char **)f->value;
        nsmi_h5_write_text(s->file, path, text ? text : "");
        break;
    }
    case NSM_FIELD_INTS:
        nsmi_h5_write(s->file, path, NSM_I64, 1, f->count, *(int64_t **)f->value);
        break;
    case NSM_FIELD_FLOATS:
        nsmi_h5_write(s->file, path, NSM_F32, 1, f->count, *(float **)f->value);
        break;
    }
}

static int check_contents(nsm_ctx *ctx, const char *who, const nsm_checkpoint *c)
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    for (int i = 0; i < c->fields; i++) {
        const nsm_field *f = &c->field[i];
        bool array = f->type == NSM_FIELD_INTS || f->type == NSM_FIELD_FLOATS;
        if (!f->name || !*f->name || strlen(f->name) > NSMI_H5_MAX_NAME ||
            f->name[strspn(f->name, letters)] || !strcmp(f->name, "not_finite"))
            return nsm_error_set(ctx, NSM_EINVAL,
                                 "%s: field %d has a name that is not allowed: %.100s", who, i,
                                 f->name ? f->name : "none");
        if (!f->value || (array && !f->count))
            return nsm_error_set(ctx, NSM_EINVAL, "%s: field %s has no value or no count", who,
                                 f->name);
    }
    if (c->ema && nsm_ema_swapped(c->ema))
        return nsm_error_set(ctx, NSM_EINVAL, "%s: the averages are swapped in; swap back first",
                             who);
    return NSM_OK;
}

int nsm_checkpoint_save(nsm_ctx *ctx, const char *path, const nsm_checkpoint *c)
{
    if (nsmi_failed(ctx) || check_contents(ctx, "nsm_checkpoint_save", c)) return nsm_error(ctx);
    if (c->optimizer && nsm_optimizer_pending(c->optimizer))
        return nsm_error_set(
            ctx, NSM_EINVAL,
            "nsm_checkpoint_save: %d backward passes are accumulated and not yet applied",
            nsm_optimizer_pending(c->optimizer));
    saving s = { .ctx = ctx, .file = nsmi_h5_create(ctx, path, kind) };
    nsmi_h5_put_int(s.file, "", "version", FORMAT);
    s.group = "weights";
    if (c->module) nsmi_h5_group(s.file, s.group);
    if (c->module) nsm_module_walk(c->module, save_tensor, &s);
    if (c->optimizer) save_optimizer(&s, c->optimizer);
    s.group = "ema";
    if (c->ema) nsmi_h5_group(s.file, s.group);
    if (c->ema) nsm_ema_walk(c->ema, save_tensor, &s);
    if (c->random) {
        nsmi_h5_group(s.file, "random");
        nsmi_h5_put_int(s.file, "random", "seed", (int64_t)c->random->seed);
        nsmi_h5_put_int(s.file, "random", "offset", (int64_t)c->random->offset);
    }
    nsmi_h5_group(s.file, "run");
    nsmi_h5_group(s.file, "run/not_finite");
    for (int i = 0; i < c->fields; i++) save_field(&s, &c->field[i]);
    free(s.buffer);
    return nsmi_h5_commit(ctx, s.file);
}

/* ---- loading ---- */

/* Something read: the numbers of a tensor, or the value of a field. */
typedef struct {
    char *path;             /* of a tensor's */
    nsm_tensor *tensor;
    const nsm_field *field; /* where tensor is NULL */
    void *data;             /* text and arrays too; NULL: there is none */
    int64_t count, whole;
    double number;
} staged;

typedef struct {
    nsm_ctx *ctx;
    const char *file_path;
    nsmi_h5 *file;
    const char *group;
    staged *item;
    int64_t items, room;
    int64_t steps, *counts, optimized; /* the optimizer's */
    nsm_random random;
} loading;

static int wrong(loading *l, const char *path, const char *what)
{
    return nsm_error_set(l->ctx, NSM_EFORMAT, "%s: %s %s", l->file_path, path, what);
}

static staged *stage(loading *l)
{
    if (l->items == l->room) {
        int64_t room = 2 * l->room + 32;
        staged *more = nsmi_realloc(l->ctx, l->item, (size_t)room, sizeof *more);
        if (!more) return NULL;
        l->item = more;
        l->room = room;
    }
    staged *s = &l->item[l->items++];
    *s = (staged){ .path = NULL };
    return s;
}

/* In the file a number without dimensions is [1]. */
static bool same_shape(const nsm_tensor *t, int type, int rank, const int64_t *dim)
{
    if (type != (int)t->type || rank != (t->rank ? t->rank : 1)) return false;
    for (int i = 0; i < rank; i++)
        if (dim[i] != t->dim[i]) return false;
    return true;
}

static int wrong_shape(loading *l, const char *path, const nsm_tensor *t, int type, int rank,
                       const int64_t *dim)
{
    nsm_tensor found = { .rank = rank };
    char have[96], want[96];
    memcpy(found.dim, dim, sizeof found.dim);
    return nsm_error_set(l->ctx, NSM_EFORMAT, "%s: %s is %s %s, want %s %s", l->file_path, path,
                         type < 0 ? "text" : nsm_type_name((nsm_type)type),
                         nsm_shape_text(&found, have), nsm_type_name(t->type),
                         nsm_shape_text(t, want));
}

static int load_tensor(void *user, const char *name, nsm_tensor *t, bool buffer)
{
    loading *l = user;
    int type, rank;
    int64_t dim[NSM_MAX_RANK];
    staged *s = stage(l);
    (void)buffer;
    if (!s) return nsm_error(l->ctx);
    s->tensor = t;
    s->path = nsmi_format(l->ctx, "%s/%s", l->group, name);
    if (!s->path) return nsm_error(l->ctx);
    if (!nsmi_h5_has(l->file, s->path)) return wrong(l, s->path, "is missing");
    if (nsmi_h5_shape(l->file, s->path, &type, &rank, dim)) return nsm_error(l->ctx);
    if (!same_shape(t, type, rank, dim)) return wrong_shape(l, s->path, t, type, rank, dim);
    s->data = nsmi_h5_read(l->file, s->path, t->type, rank, dim);
    return nsm_error(l->ctx);
}

/* Nothing may stand in the group but what was staged from place `from` on. */
static int check_extra(loading *l, int64_t from)
{
    int64_t n;
    char **name = nsmi_h5_list(l->file, l->group, &n);
    for (int64_t i = 0; i < n && n != l->items - from && !nsmi_failed(l->ctx); i++) {
        char *path = nsmi_format(l->ctx, "%s/%s", l->group, name[i]);
        int64_t k = from;
        while (path && k < l->items && strcmp(l->item[k].path, path)) k++;
        if (path && k == l->items) wrong(l, path, "has no place in what it is loaded into");
        free(path);
    }
    nsmi_h5_free_strings(name, n);
    return nsm_error(l->ctx);
}

static int load_module(loading *l, nsm_module *m)
{
    int64_t from = l->items;
    l->group = "weights";
    return nsm_module_walk(m, load_tensor, l) ? nsm_error(l->ctx) : check_extra(l, from);
}

static int load_ema(loading *l, nsm_ema *ema)
{
    int64_t from = l->items;
    l->group = "ema";
    if (!nsmi_h5_is_group(l->file, l->group)) return wrong(l, l->group, "is missing");
    return nsm_ema_walk(ema, load_tensor, l) ? nsm_error(l->ctx) : check_extra(l, from);
}

static int load_optimizer(loading *l, nsm_optimizer *o)
{
    int64_t from = l->items;
    if (!nsmi_h5_is_group(l->file, "optimizer")) return wrong(l, "optimizer", "is missing");
    char *have = nsmi_h5_get_text(l->file, "optimizer", "kind");
    const char *want = nsm_optimizer_name(nsm_optimizer_kind_of(o));
    if (have && strcmp(have, want))
        nsm_error_set(l->ctx, NSM_EFORMAT, "%s: the optimizer is %.32s, want %s", l->file_path,
                      have, want);
    free(have);
    nsm_optimizer_counts(o, &l->optimized);
    nsmi_h5_get_int(l->file, "optimizer", "steps", 0, INT64_MAX, &l->steps);
    l->counts = nsmi_h5_read(l->file, "optimizer/counts", NSM_I64, 1, &l->optimized);
    for (int64_t i = 0; l->counts && i < l->optimized; i++)
        if (l->counts[i] < 0 || l->counts[i] > l->steps)
            return wrong(l, "optimizer/counts", "has a count that is not possible");
    l->group = "optimizer/state";
    if (nsmi_failed(l->ctx) || nsm_optimizer_walk(o, load_tensor, l)) return nsm_error(l->ctx);
    return check_extra(l, from);
}

static int load_random(loading *l)
{
    int64_t seed = 0, offset = 0;
    if (!nsmi_h5_is_group(l->file, "random")) return wrong(l, "random", "is missing");
    nsmi_h5_get_int(l->file, "random", "seed", INT64_MIN, INT64_MAX, &seed);
    nsmi_h5_get_int(l->file, "random", "offset", INT64_MIN, INT64_MAX, &offset);
    l->random = (nsm_random){ (uint64_t)seed, (uint64_t)offset };
    return nsm_error(l->ctx);
}

static bool has_field(loading *l, const nsm_field *f, const char *path)
{
    if (f->type == NSM_FIELD_INT) return nsmi_h5_has_attribute(l->file, "run", f->name);
    if (f->type != NSM_FIELD_DOUBLE) return nsmi_h5_has(l->file, path);
    return nsmi_h5_has_attribute(l->file, "run", f->name) ||
           nsmi_h5_has_attribute(l->file, "run/not_finite", f->name);
}

static void load_double(loading *l, const nsm_field *f, double *x)
{
    if (nsmi_h5_has_attribute(l->file, "run", f->name)) {
        nsmi_h5_get_float(l->file, "run", f->name, x);
        return;
    }
    char *word = nsmi_h5_get_text(l->file, "run/not_finite", f->name);
    *x = word && !strcmp(word, "inf") ? INFINITY : word && !strcmp(word, "-inf") ? -INFINITY : NAN;
    free(word);
}

static int load_field(loading *l, const nsm_field *f)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "run/%s", f->name);
    if (!has_field(l, f, path))
        return nsmi_failed(l->ctx) ? nsm_error(l->ctx)
               : f->optional       ? NSM_OK
                                   : wrong(l, path, "is missing");
    staged *s = stage(l);
    if (!s) return nsm_error(l->ctx);
    s->field = f;
    s->count = -1;
    switch (f->type) {
    case NSM_FIELD_INT:
        nsmi_h5_get_int(l->file, "run", f->name, INT64_MIN, INT64_MAX, &s->whole);
        break;
    case NSM_FIELD_DOUBLE: load_double(l, f, &s->number); break;
    case NSM_FIELD_TEXT: s->data = nsmi_h5_read_text(l->file, path); break;
    case NSM_FIELD_INTS: s->data = nsmi_h5_read(l->file, path, NSM_I64, 1, &s->count); break;
    case NSM_FIELD_FLOATS: s->data = nsmi_h5_read(l->file, path, NSM_F32, 1, &s->count); break;
    }
    return nsm_error(l->ctx);
}

static void load_all(loading *l, const nsm_checkpoint *c)
{
    int64_t version;
    if (nsmi_h5_get_int(l->file, "", "version", 1, FORMAT, &version)) return;
    if (c->module && load_module(l, c->module)) return;
    if (c->optimizer && load_optimizer(l, c->optimizer)) return;
    if (c->ema && load_ema(l, c->ema)) return;
    if (c->random && load_random(l)) return;
    for (int i = 0; i < c->fields; i++)
        if (load_field(l, &c->field[i])) return;
}

static void apply_field(staged *s)
{
    const nsm_field *f = s->field;
    if (f->type == NSM_FIELD_INT) *(int64_t *)f->value = s->whole;
    else if (f->type == NSM_FIELD_DOUBLE) *(double *)f->value = s->number;
    else {
        free(*(void **)f->value);
        *(void **)f->value = s->data;
        s->data = NULL;
        if (f->count) *f->count = s->count;
    }
}

/* Nothing here can fail. */
static void apply_all(loading *l, const nsm_checkpoint *c)
{
    for (int64_t i = 0; i < l->items; i++) {
        if (l->item[i].tensor) nsm_tensor_set(l->item[i].tensor, l->item[i].data);
        else apply_field(&l->item[i]);
    }
    if (c->optimizer) nsm_optimizer_restore(c->optimizer, l->steps, l->counts, l->optimized);
    if (c->random) *c->random = l->random;
}

int nsm_checkpoint_load(nsm_ctx *ctx, const char *path, const nsm_checkpoint *c)
{
    if (nsmi_failed(ctx) || check_contents(ctx, "nsm_checkpoint_load", c)) return nsm_error(ctx);
    loading l = { .ctx = ctx, .file_path = path, .file = nsmi_h5_open(ctx, path, kind) };
    if (l.file) load_all(&l, c);
    nsmi_h5_close(l.file);
    if (!nsmi_failed(ctx)) apply_all(&l, c);
    for (int64_t i = 0; i < l.items; i++) {
        free(l.item[i].path);
        free(l.item[i].data);
    }
    free(l.item);
    free(l.counts);
    return nsm_error(ctx);
}

/* ---- the checkpoints of a run ---- */

/* The step in "checkpoint-<step>.h5", or -1 for any other name. */
static int64_t step_of(const char *name)
{
    static const char before[] = "checkpoint-", after[] = ".h5";
    const char *digits = name + sizeof before - 1;
    if (strncmp(name, before, sizeof before - 1)) return -1;
    size_t n = strspn(digits, "0123456789");
    if (n < 1 || n > 18 || strcmp(digits + n, after) || (n > 1 && *digits == '0')) return -1;
    return strtoll(digits, NULL, 10);
}

static int descending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

/* The steps there are checkpoints of, newest first, to be freed; *count -1: error. */
static int64_t *list_steps(nsm_ctx *ctx, const char *folder, int64_t *count)
{
    int64_t *step = NULL, n = 0, room = 0;
    DIR *dir = opendir(folder);
    *count = 0;
    if (!dir && errno != ENOENT)
        nsm_error_set(ctx, NSM_EIO, "%s: it cannot be listed: %s", folder, strerror(errno));
    for (struct dirent *e; dir && (e = readdir(dir));) {
        if (step_of(e->d_name) < 0) continue;
        if (n == room) {
            int64_t *more = nsmi_realloc(ctx, step, (size_t)(room += 32), sizeof *more);
            if (!more) break;
            step = more;
        }
        step[n++] = step_of(e->d_name);
    }
    if (dir) closedir(dir);
    if (n) qsort(step, (size_t)n, sizeof *step, descending);
    *count = nsmi_failed(ctx) ? -1 : n;
    return step;
}

static char *path_of(nsm_ctx *ctx, const char *folder, int64_t step)
{
    return nsmi_format(ctx, "%s/checkpoint-%lld.h5", folder, (long long)step);
}

int nsm_checkpoint_rotate(nsm_ctx *ctx, const char *folder, int64_t step, int keep,
                          const nsm_checkpoint *contents)
{
    int64_t n, kept = 0;
    if (nsmi_failed(ctx)) return nsm_error(ctx);
    if (keep == 0) keep = LEAST_KEPT;
    if (keep < LEAST_KEPT || step < 0)
        return nsm_error_set(ctx, NSM_EINVAL,
                             "nsm_checkpoint_rotate: keep is %d, want at least %d; step is %lld",
                             keep, LEAST_KEPT, (long long)step);
    char *path = path_of(ctx, folder, step);
    if (path) nsm_checkpoint_save(ctx, path, contents);
    free(path);
    int64_t *have = nsmi_failed(ctx) ? NULL : list_steps(ctx, folder, &n);
    for (int64_t i = 0; have && i < n; i++) {
        if (have[i] <= step && kept++ < keep) continue;
        path = path_of(ctx, folder, have[i]);
        if (path && unlink(path) && errno != ENOENT)
            nsm_error_set(ctx, NSM_EIO, "%s: it cannot be removed: %s", path, strerror(errno));
        free(path);
    }
    free(have);
    return nsm_error(ctx);
}

char *nsm_checkpoint_newest(nsm_ctx *ctx, const char *folder, int64_t *step)
{
    int64_t n;
    char *path = NULL, why[sizeof ctx->message] = "";
    if (nsmi_failed(ctx)) return NULL;
    int64_t *have = list_steps(ctx, folder, &n);
    for (int64_t i = 0; i < n && !path && !nsmi_failed(ctx); i++) {
        path = path_of(ctx, folder, have[i]);
        nsmi_h5 *file = path ? nsmi_h5_open(ctx, path, kind) : NULL;
        if (file && step) *step = have[i];
        nsmi_h5_close(file);
        if (file) break;
        free(path);
        path = NULL;
        if (nsm_error(ctx) != NSM_EFORMAT) break;
        if (!*why) memcpy(why, ctx->message, sizeof why);
        nsm_error_clear(ctx);
    }
    free(have);
    if (!path && *why && !nsmi_failed(ctx)) nsm_error_set(ctx, NSM_EFORMAT, "%s", why);
    return path;
}
