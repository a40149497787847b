/* progress.c - Progress lines, and orderly stopping. */
#include "tools/progress.h"
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { BAR = 24 };
static const double refresh = 0.1, plain_every = 10.0; /* seconds */

double progress_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

const char *progress_time(double seconds, char buf[32])
{
    long s = seconds < 3e8 ? (long)(seconds + 0.5) : 300000000;
    if (s >= 3600) snprintf(buf, 32, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else snprintf(buf, 32, "%ld:%02ld", s / 60, s % 60);
    return buf;
}

void progress_start(progress *p, const tool *t, const char *what, const char *unit, int64_t from,
                    int64_t total)
{
    double now = progress_now();
    const char *term = getenv("TERM");
    *p = (progress){.silent = t->quiet,
                    .what = what,
                    .unit = unit,
                    .from = from,
                    .total = total,
                    .began = now,
                    .shown = now - 1,
                    .printed = now,
                    .at_shown = from};
    p->terminal = isatty(STDERR_FILENO) && term && strcmp(term, "dumb");
}

bool progress_due(const progress *p)
{
    double now = progress_now();
    return !p->silent &&
           (p->terminal ? now - p->shown >= refresh : now - p->printed >= plain_every);
}

/* Steps a second: the mean at first, of late (about 5 s) afterwards. */
static void measure(progress *p, int64_t done, double now)
{
    double dt = now - p->shown, mean = (double)(done - p->from) / (now - p->began + 1e-9);
    if (done <= p->at_shown || dt <= 0) return;
    double fresh = (double)(done - p->at_shown) / dt, keep = 5.0 / (5.0 + dt);
    p->rate = now - p->began < 3 || p->rate <= 0 ? mean : keep * p->rate + (1 - keep) * fresh;
    p->shown = now;
    p->at_shown = done;
}

static void put_rate(FILE *f, const char *unit, double rate)
{
    if (rate >= 10) fprintf(f, "%.0f %ss/s", rate, unit);
    else if (rate >= 1) fprintf(f, "%.1f %ss/s", rate, unit);
    else fprintf(f, "%.1f s/%s", 1 / rate, unit);
}

/* "training  epoch 31/200  [#####     ] 15%  12.1 epochs/s  0:14 left  loss 0.31" */
static void compose(const progress *p, FILE *f, int64_t done, bool ended, const char *note)
{
    char buf[32];
    double now = progress_now();
    if (p->terminal && p->total > 0) {
        int full = (int)(BAR * (done < p->total ? done : p->total) / p->total);
        fprintf(f, "%s [%.*s%*s] ", p->what, full, "########################", BAR - full, "");
    } else {
        fprintf(f, "%s: ", p->what);
    }
    fprintf(f, "%s %lld", p->unit, (long long)done);
    if (p->total > 0) fprintf(f, "/%lld", (long long)p->total);
    double rate = ended ? (double)(done - p->from) / (now - p->began + 1e-9) : p->rate;
    if (rate > 0) {
        fputs(", ", f);
        put_rate(f, p->unit, rate);
    }
    if (ended) fprintf(f, ", %s", progress_time(now - p->began, buf));
    else if (rate > 0 && p->total > 0)
        fprintf(f, ", %s left", progress_time((double)(p->total - done) / rate, buf));
    if (*note) fprintf(f, ", %s", note);
}

static void show(progress *p, int64_t done, bool ended, const char *format, va_list args)
{
    char line[512], note[256] = "";
    measure(p, done, progress_now());
    if (format) vsnprintf(note, sizeof note, format, args);
    FILE *f = fmemopen(line, sizeof line, "w");
    if (!f) return;
    compose(p, f, done, ended, note);
    fclose(f);
    line[sizeof line - 1] = 0;
    if (!p->terminal) {
        fprintf(stderr, "%s\n", line);
        p->printed = progress_now();
        return;
    }
    struct winsize size = {0};
    int columns =
        ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 20 ? size.ws_col : 80;
    fprintf(stderr, "\r%.*s\033[K%s", columns - 1, line, ended ? "\n" : "");
    fflush(stderr);
    p->shown = progress_now();
    p->open = !ended;
}

void progress_step(progress *p, int64_t done, const char *format, ...)
{
    if (!progress_due(p) || (!p->terminal && done == p->total))
        return; /* the end has a line of its own */
    va_list args;
    va_start(args, format);
    show(p, done, false, format, args);
    va_end(args);
}

void progress_end(progress *p, int64_t done, const char *format, ...)
{
    if (p->silent) return;
    va_list args;
    va_start(args, format);
    show(p, done, true, format, args);
    va_end(args);
}

/* ---- stopping ---- */

static volatile sig_atomic_t asked;

static void on_signal(int signal_number)
{
    static const char first[] = "\nnsm: stopping after this step; once more stops at once\n";
    if (asked) _exit(128 + signal_number);
    asked = signal_number;
    if (write(STDERR_FILENO, first, sizeof first - 1) < 0)
        return; /* nothing to be done about it here */
}

void stop_install(void)
{
    struct sigaction act = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&act.sa_mask);
    sigaction(SIGINT, &act, NULL);
    sigaction(SIGTERM, &act, NULL);
    sigaction(SIGHUP, &act, NULL);
}

int stop_signal(void) { return asked; }
