/* datasets/text.c - Lines and numbers from text files, plain or gzip, the same in every locale.
 *
 * Lines come through a window that moves over the file, so a file need not fit in memory.  Numbers
 * are read by hand: a decimal of up to 19 digits and a small exponent is one exact integer and one
 * correctly rounded multiplication or division (Clinger's fast path); the rest goes to strtod in
 * the C locale. */
#include "config.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include "datasets/internal.h"

enum { WINDOW = 1 << 18, MAX_LINE = 1 << 30, CHUNK = 1 << 20 };

struct nsmi_text {
    nsm_ctx *ctx;
    char *path, *buf;
    gzFile file;
    size_t room, start, end;  /* unread bytes are buf[start, end) */
    int64_t number;
    bool finished;
};

/* gzread() passes text that is not gzip through; a damaged or empty .gz must not pass for text. */
static bool packed_as_named(const char *path, int fd)
{
    unsigned char head[2] = { 0, 0 };
    size_t n = strlen(path);
    if (n < 3 || strcmp(path + n - 3, ".gz")) return true;
    return pread(fd, head, 2, 0) == 2 && head[0] == 0x1f && head[1] == 0x8b;
}

nsmi_text *nsmi_text_open(nsm_ctx *ctx, const char *path)
{
    if (nsmi_failed(ctx)) return NULL;
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    nsmi_text *t = NULL;
    if (fd < 0 || fstat(fd, &st)) nsm_error_set(ctx, NSM_EIO, "%s: %s", path, strerror(errno));
    else if (!S_ISREG(st.st_mode)) nsm_error_set(ctx, NSM_EIO, "%s: is not a regular file", path);
    else if (!packed_as_named(path, fd))
        nsm_error_set(ctx, NSM_EFORMAT, "%s: is not a gzip file", path);
    else t = nsmi_calloc(ctx, 1, sizeof *t);
    if (t) {
        t->ctx = ctx;
        t->path = nsmi_strdup(ctx, path);
        t->room = WINDOW;
        t->buf = nsmi_malloc(ctx, WINDOW);
        t->file = t->path && t->buf ? gzdopen(fd, "rb") : NULL;
        if (t->file) {
            gzbuffer(t->file, 1 << 17);
            return t;
        }
        nsm_error_set(ctx, NSM_ENOMEM, "%s: out of memory", path);
    }
    nsmi_text_close(t);
    if (fd >= 0) close(fd);
    return NULL;
}

nsmi_text *nsmi_text_memory(nsm_ctx *ctx, const char *path, const char *text, int64_t bytes)
{
    nsmi_text *t = nsmi_failed(ctx) ? NULL : nsmi_calloc(ctx, 1, sizeof *t);
    if (!t) return NULL;
    *t = (nsmi_text){ .ctx = ctx,
                      .path = nsmi_strdup(ctx, path),
                      .buf = nsmi_malloc(ctx, (size_t)bytes + 1),
                      .room = (size_t)bytes + 1,
                      .end = (size_t)bytes,
                      .finished = true };
    if (t->path && t->buf) {
        memcpy(t->buf, text, (size_t)bytes);
        return t;
    }
    nsmi_text_close(t);
    return NULL;
}

void nsmi_text_close(nsmi_text *t)
{
    if (!t) return;
    if (t->file) gzclose(t->file);
    free(t->path);
    free(t->buf);
    free(t);
}

int64_t nsmi_text_number(const nsmi_text *t) { return t->number; }

int nsmi_text_error(nsmi_text *t, const char *format, ...)
{
    char what[300];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return nsm_error_set(t->ctx, NSM_EFORMAT, "%s:%lld: %s", t->path, (long long)t->number, what);
}

/* Get more of the file behind the unread bytes.  One byte stays free for a final NUL. */
static bool refill(nsmi_text *t)
{
    if (t->start > 0) {
        memmove(t->buf, t->buf + t->start, t->end - t->start);
        t->end -= t->start;
        t->start = 0;
    }
    if (t->end + 1 >= t->room) {
        if (t->room >= MAX_LINE) return nsmi_text_error(t, "the line is too long"), false;
        char *more = nsmi_realloc(t->ctx, t->buf, t->room * 2, 1);
        if (!more) return false;
        t->buf = more;
        t->room *= 2;
    }
    int n = gzread(t->file, t->buf + t->end, (unsigned)(t->room - t->end - 1)), code = Z_OK;
    const char *why = gzerror(t->file, &code);
    if (n < 0 || (n == 0 && code != Z_OK && code != Z_STREAM_END)) {
        nsm_error_set(t->ctx, code == Z_ERRNO ? NSM_EIO : NSM_EFORMAT, "%s: cannot be read: %s",
                      t->path,
                      code == Z_ERRNO       ? strerror(errno)
                      : code == Z_BUF_ERROR ? "it is cut short"
                                            : why);
        return false;
    }
    if (n == 0) t->finished = true;
    t->end += (size_t)n;
    return true;
}

char *nsmi_text_line(nsmi_text *t)
{
    if (!t || nsmi_failed(t->ctx)) return NULL;
    size_t seen = 0;
    t->number++;
    for (;;) {
        char *line = t->buf + t->start, *end = memchr(line + seen, '\n', t->end - t->start - seen);
        size_t length = end ? (size_t)(end - line) : t->end - t->start;
        if (end || (t->finished && length)) {
            t->start += length + (end != NULL);
            if (length && line[length - 1] == '\r') length--;
            line[length] = 0;
            if (!memchr(line, 0, length)) return line;
            nsmi_text_error(t, "a zero byte stands in the line");
            return NULL;
        }
        if (t->finished) return NULL;
        seen = length;
        if (!refill(t)) return NULL;
    }
}

/* ---- numbers ---- */

static bool ends_number(char c)
{
    return !c || c == ',' || c == ' ' || c == '\t' || c == ';' || c == '\r';
}
static bool digit(char c) { return c >= '0' && c <= '9'; }

bool nsmi_parse_int(const char **p, int64_t low, int64_t high, int64_t *value)
{
    const char *s = *p;
    bool minus = *s == '-';
    uint64_t v = 0;
    int digits = 0;
    if (*s == '-' || *s == '+') s++;
    for (; digit(*s); s++, digits++) v = v * 10 + (uint64_t)(*s - '0');
    if (digits < 1 || digits > 18 || !ends_number(*s)) return false;
    int64_t r = minus ? -(int64_t)v : (int64_t)v;
    if (r < low || r > high) return false;
    *value = r;
    *p = s;
    return true;
}

static locale_t c_locale;
static pthread_once_t c_locale_once = PTHREAD_ONCE_INIT;
static void make_c_locale(void) { c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0); }

/* strtod knows more than we want ("nan", "0x1p3"), so its text must be digits, dots and
 * exponents. */
static bool slow_double(const char **p, double *value)
{
    char *end;
    size_t n = strspn(*p, "+-0123456789.eE");
    pthread_once(&c_locale_once, make_c_locale);
    if (n == 0 || !c_locale || !ends_number((*p)[n])) return false;
    double v = strtod_l(*p, &end, c_locale);
    if (end != *p + n || !isfinite(v)) return false;
    *value = v;
    *p = end;
    return true;
}

bool nsmi_parse_double(const char **p, double *value)
{
    static const double power[] = { 1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                    1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                    1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22 };
    const char *s = *p;
    bool minus = *s == '-';
    uint64_t v = 0;
    int digits = 0, after = 0, exponent = 0;
    if (*s == '-' || *s == '+') s++;
    for (; digit(*s) && digits < 19; s++, digits++) v = v * 10 + (uint64_t)(*s - '0');
    if (*s == '.')
        for (s++; digit(*s) && digits < 19; s++, digits++, after++)
            v = v * 10 + (uint64_t)(*s - '0');
    if (digits && (*s == 'e' || *s == 'E')) {
        const char *e = s + 1;
        bool down = *e == '-';
        int n = 0;
        if (*e == '-' || *e == '+') e++;
        for (; digit(*e) && n < 4; e++, n++) exponent = exponent * 10 + (*e - '0');
        if (!n) return false;
        if (down) exponent = -exponent;
        s = e;
    }
    exponent -= after;
    if (!digits || !ends_number(*s) || v > (1ull << 53) || exponent < -22 || exponent > 22)
        return slow_double(p, value);
    double r = exponent < 0 ? (double)v / power[-exponent] : (double)v * power[exponent];
    *value = minus ? -r : r;
    *p = s;
    return true;
}

bool nsmi_parse_float(const char **p, float *value)
{
    double d;
    const char *s = *p;
    if (!nsmi_parse_double(&s, &d) || !isfinite((float)d)) return false;
    *value = (float)d;
    *p = s;
    return true;
}

/* ---- helpers ---- */

char *nsmi_read_all(nsm_ctx *ctx, const char *path, int64_t *bytes)
{
    gzFile f = nsmi_failed(ctx) ? NULL : gzopen(path, "rb");
    char *text = NULL;
    int64_t room = 0, n = 0;
    int got = 1;
    if (!f) nsm_error_set(ctx, NSM_EIO, "%s: %s", path, strerror(errno ? errno : ENOMEM));
    while (f && got > 0 && !nsmi_failed(ctx)) {
        if (n + CHUNK >= room) {
            char *more = nsmi_realloc(ctx, text, (size_t)(room = 2 * room + CHUNK + 1), 1);
            if (!more) break;
            text = more;
        }
        got = gzread(f, text + n, CHUNK);
        if (got < 0) nsm_error_set(ctx, NSM_EFORMAT, "%s: it cannot be read to its end", path);
        else n += got;
    }
    if (f) gzclose(f);
    *bytes = n;
    if (!nsmi_failed(ctx)) text[n] = 0;
    if (!nsmi_failed(ctx)) return text;
    free(text);
    return NULL;
}

bool nsmi_grow(nsm_ctx *ctx, void *array, int64_t count, int64_t *room, size_t bytes)
{
    if (count < *room) return true;
    int64_t more = *room ? *room * 2 : 1024;
    void *old, *p;
    memcpy(&old, array, sizeof old);
    p = nsmi_failed(ctx) ? NULL : nsmi_realloc(ctx, old, (size_t)more, bytes);
    if (!p) return false;
    memcpy(array, &p, sizeof p);
    *room = more;
    return true;
}

int64_t nsmi_text_ints(nsm_ctx *ctx, const char *path, int64_t low, int64_t high, int32_t **out)
{
    int64_t count = 0, room = 0, v = 0;
    int32_t *list = NULL;
    nsmi_text *t = nsmi_text_open(ctx, path);
    for (char *line; (line = nsmi_text_line(t));) {
        const char *p = line;
        if (!nsmi_parse_int(&p, low, high, &v) || *p) {
            nsmi_text_error(t, "\"%.40s\" is not a number from %lld to %lld", line, (long long)low,
                            (long long)high);
            break;
        }
        if (!nsmi_grow(ctx, &list, count, &room, sizeof *list)) break;
        list[count++] = (int32_t)v;
    }
    nsmi_text_close(t);
    if (nsmi_failed(ctx)) {
        free(list);
        list = NULL;
        count = 0;
    }
    *out = list;
    return count;
}

char *nsmi_find_file(nsm_ctx *ctx, const char *format, ...)
{
    char path[4096];
    va_list args;
    if (nsmi_failed(ctx)) return NULL;
    va_start(args, format);
    int n = vsnprintf(path, sizeof path - 3, format, args);
    va_end(args);
    if (n < 0 || n >= (int)sizeof path - 3) return NULL;
    if (access(path, F_OK) == 0) return nsmi_strdup(ctx, path);
    memcpy(path + n, ".gz", 4);
    return access(path, F_OK) == 0 ? nsmi_strdup(ctx, path) : NULL;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

char **nsmi_list_folder(nsm_ctx *ctx, const char *path)
{
    int64_t count = 0, room = 0;
    char **name = NULL;
    DIR *dir = nsmi_failed(ctx) ? NULL : opendir(path);
    if (!dir) {
        nsm_error_set(ctx, NSM_EIO, "%s: %s", path, strerror(errno));
        return NULL;
    }
    for (struct dirent *e;
         (e = readdir(dir)) && nsmi_grow(ctx, &name, count + 1, &room, sizeof *name);) {
        if (e->d_name[0] == '.') continue;
        name[count] = nsmi_strdup(ctx, e->d_name);
        if (!name[count]) break;
        count++;
    }
    closedir(dir);
    if (!name) name = nsmi_calloc(ctx, 1, sizeof *name);
    if (name) {
        name[count] = NULL;
        qsort(name, (size_t)count, sizeof *name, by_name);
    }
    if (!nsmi_failed(ctx)) return name;
    nsmi_free_list(name);
    return NULL;
}

void nsmi_free_list(char **name)
{
    for (char **p = name; p && *p; p++) free(*p);
    free(name);
}

char *nsmi_stem(nsm_ctx *ctx, const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    size_t start = n;
    while (start > 0 && path[start - 1] != '/') start--;
    size_t end = start;
    while (end < n && (path[end] != '.' || end == start)) end++;
    return nsmi_format(ctx, "%.*s", (int)(end - start), path + start);
}
