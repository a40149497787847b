/* run.c - The run folder: files that are whole or absent, a log that resuming cuts back. */
#include "tools/run.h"
#include <csv.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "base/seal.h"
#include "tools/events.h"

enum { COLUMNS_MOST = 32, PATHS = 8 };
static const char log_name[] = "log.csv", events_name[] = "events.out.tfevents.nsm";

struct run {
    nsm_ctx *ctx;
    char *folder;
    int lock; /* the folder itself, open and locked */
    FILE *log;
    events *events;
    time_t flushed; /* when both were last */
    int columns;
    char *column[COLUMNS_MOST];
    char **path; /* every path handed out */
    int paths;
};

static int failed(nsm_ctx *ctx, const char *path)
{
    return nsm_error_set(ctx, NSM_EIO, "%s: %s", path, strerror(errno));
}

/* ---- whole files ---- */

int write_file(nsm_ctx *ctx, const char *path, const void *data, size_t bytes)
{
    nsmi_draft *d = nsmi_draft_new(ctx, path);
    const char *from = data;
    while (d && bytes) {
        ssize_t n = write(nsmi_draft_fd(d), from, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            failed(ctx, path);
            break;
        }
        from += n;
        bytes -= (size_t)n;
    }
    return d ? nsmi_draft_commit(ctx, d, NULL) : nsm_error(ctx);
}

/* ---- the folder ---- */

static int make_folders(nsm_ctx *ctx, char *folder)
{
    for (char *p = folder + 1;; p++) {
        char c = *p;
        if (c && c != '/') continue;
        *p = 0;
        bool bad = mkdir(folder, 0777) && errno != EEXIST;
        if (bad) failed(ctx, folder);
        *p = c;
        if (bad || !c) return nsm_error(ctx);
    }
}

int make_folder(nsm_ctx *ctx, const char *folder)
{
    char *own = strdup(folder);
    if (own) make_folders(ctx, own);
    else nsm_error_set(ctx, NSM_ENOMEM, "out of memory");
    free(own);
    return nsm_error(ctx);
}

static bool is_checkpoint(const char *name)
{
    int end = 0;
    return sscanf(name, "checkpoint-%*[0-9].h5%n", &end) == 0 && end > 0 && !name[end];
}

/* Remove drafts of writers that died (nobody else writes here: the folder is locked) and, unless
 * the run goes on, what an earlier one left.  Files that are not a run's stay. */
static int clear(run *r, bool resume)
{
    static const char *const own[] = {"config.yaml", log_name, events_name, "best.h5"};
    DIR *d = opendir(r->folder);
    if (!d) return failed(r->ctx, r->folder);
    for (struct dirent *e; (e = readdir(d));) {
        bool old = is_checkpoint(e->d_name),
             dead = e->d_name[0] == '.' && strstr(e->d_name, ".draft-");
        for (size_t i = 0; i < sizeof own / sizeof *own; i++) old |= !strcmp(e->d_name, own[i]);
        if ((dead || (old && !resume)) && unlinkat(dirfd(d), e->d_name, 0))
            failed(r->ctx, e->d_name);
    }
    closedir(d);
    return nsm_error(r->ctx);
}

static int lock(run *r)
{
    r->lock = open(r->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (r->lock < 0) return failed(r->ctx, r->folder);
    if (flock(r->lock, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return NSM_OK;
    return nsm_error_set(r->ctx, NSM_EIO, "%s: another process is writing in this folder",
                         r->folder);
}

run *run_open(nsm_ctx *ctx, const char *folder, bool resume)
{
    if (nsm_error(ctx)) return NULL;
    run *r = calloc(1, sizeof *r);
    if (r) *r = (run){.ctx = ctx, .lock = -1, .folder = strdup(*folder ? folder : ".")};
    if (!r || !r->folder) nsm_error_set(ctx, NSM_ENOMEM, "out of memory for the run's folder");
    else if (make_folders(ctx, r->folder) == NSM_OK && lock(r) == NSM_OK &&
             clear(r, resume) == NSM_OK)
        return r;
    run_close(r);
    return NULL;
}

int run_close(run *r)
{
    if (!r) return NSM_OK;
    nsm_ctx *ctx = r->ctx;
    if (r->log && fclose(r->log)) failed(ctx, log_name);
    events_close(r->events);
    if (r->lock >= 0) close(r->lock);
    for (int i = 0; i < r->columns; i++) free(r->column[i]);
    for (int i = 0; i < r->paths; i++) free(r->path[i]);
    free(r->path);
    free(r->folder);
    free(r);
    return nsm_error(ctx);
}

const char *run_folder(const run *r) { return r->folder; }

const char *run_path(run *r, const char *name)
{
    char *path = NULL;
    if (r->paths % PATHS == 0) {
        char **more = realloc(r->path, (size_t)(r->paths + PATHS) * sizeof *more);
        if (more) r->path = more;
        else goto fail;
    }
    if (asprintf(&path, "%s/%s", r->folder, name) < 0) goto fail;
    for (int i = 0; i < r->paths; i++) {
        if (strcmp(r->path[i], path)) continue;
        free(path);
        return r->path[i];
    }
    return r->path[r->paths++] = path;
fail:
    nsm_error_set(r->ctx, NSM_ENOMEM, "out of memory for a path in %s", r->folder);
    return NULL;
}

int run_config(run *r, const setting *fields, const void *options)
{
    char *text = settings_text(r->ctx, fields, options);
    const char *path = run_path(r, "config.yaml");
    if (text && path) write_file(r->ctx, path, text, strlen(text));
    free(text);
    return nsm_error(r->ctx);
}

/* ---- the log ---- */

/* Of `columns` values the first `given`, the others empty. */
static void put_row(FILE *f, int columns, int given, const double *value, int64_t step)
{
    char buf[32];
    for (int c = 0; c < columns; c++)
        fprintf(f, "%s%s",
                c >= given || isnan(value[c * step]) ? "" : real_text(value[c * step], buf),
                c + 1 < columns ? "," : "\n");
}

/* The header and the rows of the earlier log up to epoch, as text. */
static char *kept_rows(run *r, const char *path, int64_t epoch)
{
    char *text = NULL;
    size_t bytes;
    run_table t = {0};
    bool there = epoch >= 0 && access(path, F_OK) == 0;
    if (there && run_table_read(r->ctx, &t, path)) return NULL;
    /* one of an earlier version may lack the last columns */
    bool same = there && t.columns <= r->columns;
    for (int c = 0; same && c < t.columns; c++) same = !strcmp(t.name[c], r->column[c]);
    if (there && !same)
        nsm_error_set(r->ctx, NSM_EFORMAT, "%s: its columns are not those of this run", path);
    FILE *f = nsm_error(r->ctx) ? NULL : open_memstream(&text, &bytes);
    for (int c = 0; f && c < r->columns; c++)
        fprintf(f, "%s%s", r->column[c], c + 1 < r->columns ? "," : "\n");
    for (int64_t i = 0; f && i < t.rows; i++)
        if (t.value[i] <= (double)epoch) put_row(f, r->columns, t.columns, t.value + i, t.rows);
    run_table_free(&t);
    if (f && fclose(f) == 0) return text;
    if (!nsm_error(r->ctx)) nsm_error_set(r->ctx, NSM_ENOMEM, "out of memory for %s", path);
    return NULL;
}

int run_log_open(run *r, int columns, const char *const *column, int64_t epoch)
{
    const char *path = run_path(r, log_name), *events_path = run_path(r, events_name);
    if (nsm_error(r->ctx)) return nsm_error(r->ctx);
    if (columns < 1 || columns > COLUMNS_MOST)
        return nsm_error_set(r->ctx, NSM_EINVAL, "a log of %d columns", columns);
    for (; r->columns < columns; r->columns++)
        if (!(r->column[r->columns] = strdup(column[r->columns])))
            return nsm_error_set(r->ctx, NSM_ENOMEM, "out of memory for the log");
    char *text = kept_rows(r, path, epoch);
    if (text && write_file(r->ctx, path, text, strlen(text)) == NSM_OK &&
        !(r->log = fopen(path, "ab")))
        failed(r->ctx, path);
    free(text);
    if (nsm_error(r->ctx)) return nsm_error(r->ctx);
    r->events = events_open(r->ctx, events_path, epoch);
    return nsm_error(r->ctx);
}

int run_log(run *r, const double *value)
{
    if (nsm_error(r->ctx)) return nsm_error(r->ctx);
    put_row(r->log, r->columns, r->columns, value, 1);
    if (ferror(r->log)) return failed(r->ctx, log_name);
    for (int c = 1; c < r->columns; c++)
        if (!isnan(value[c])) events_scalar(r->events, (int64_t)value[0], r->column[c], value[c]);
    /* whoever looks on sees the last second, epochs of microseconds are not held up */
    if (nsm_error(r->ctx) || time(NULL) == r->flushed) return nsm_error(r->ctx);
    return run_log_flush(r);
}

int run_log_flush(run *r)
{
    if (r->log && fflush(r->log)) return failed(r->ctx, log_name);
    r->flushed = time(NULL);
    return r->events ? events_flush(r->events) : NSM_OK;
}

/* ---- reading a log ---- */

typedef struct {
    run_table *t;
    double *row; /* all values so far, row by row */
    size_t count, room;
    int column;
    bool header, bad;
} log_reader;

static void on_field(void *field, size_t bytes, void *user)
{
    log_reader *l = user;
    const char *text = bytes ? field : "";
    double v = NAN;
    if (l->bad) return;
    if (l->header) {
        if (l->t->columns == COLUMNS_MOST || !(l->t->name[l->t->columns] = strdup(text)))
            l->bad = true;
        else l->t->columns++;
        return;
    }
    if (l->column++ >= l->t->columns || (*text && !real_parse(text, &v))) {
        l->bad = true;
        return;
    }
    if (l->count == l->room) {
        l->room = 2 * l->room + 1024;
        double *more = realloc(l->row, l->room * sizeof *more);
        if (!more) {
            l->bad = true;
            return;
        }
        l->row = more;
    }
    l->row[l->count++] = v;
}

static void on_row(int c, void *user)
{
    log_reader *l = user;
    if (c == -1 && !l->header) { /* the end without a newline: a torn row */
        l->count -= (size_t)l->column;
        l->column = 0;
        return;
    }
    if (!l->header && l->column != l->t->columns) l->bad = true;
    l->header = false;
    l->column = 0;
}

int run_table_read(nsm_ctx *ctx, run_table *t, const char *path)
{
    char buf[65536];
    struct csv_parser p;
    *t = (run_table){0};
    if (nsm_error(ctx)) return nsm_error(ctx);
    FILE *f = fopen(path, "rb");
    if (!f) return failed(ctx, path);
    t->name = calloc(COLUMNS_MOST, sizeof *t->name);
    log_reader l = {.t = t, .header = true, .bad = !t->name};
    if (csv_init(&p, CSV_STRICT | CSV_APPEND_NULL)) l.bad = true;
    for (size_t n; !l.bad && (n = fread(buf, 1, sizeof buf, f)) > 0;)
        if (csv_parse(&p, buf, n, on_field, on_row, &l) != n) l.bad = true;
    if (ferror(f)) failed(ctx, path);
    if (!l.bad) csv_fini(&p, on_field, on_row, &l);
    csv_free(&p);
    fclose(f);
    if (l.bad) nsm_error_set(ctx, NSM_EFORMAT, "%s: not a log of numbers in equal rows", path);
    t->rows = t->columns ? (int64_t)l.count / t->columns : 0;
    t->value = malloc((l.count + 1) * sizeof *t->value);
    for (size_t i = 0; !l.bad && t->value && i < l.count; i++)
        t->value[(int64_t)i % t->columns * t->rows + (int64_t)i / t->columns] = l.row[i];
    if (!t->value) nsm_error_set(ctx, NSM_ENOMEM, "out of memory for %s", path);
    free(l.row);
    if (nsm_error(ctx)) run_table_free(t);
    return nsm_error(ctx);
}

void run_table_free(run_table *t)
{
    for (int c = 0; c < t->columns; c++) free(t->name[c]);
    free(t->name);
    free(t->value);
    *t = (run_table){0};
}

const double *run_table_column(const run_table *t, const char *name)
{
    for (int c = 0; c < t->columns; c++)
        if (!strcmp(t->name[c], name)) return t->value + c * t->rows;
    return NULL;
}
