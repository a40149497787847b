/* paper.c - Drawing through PLplot's pngcairo device, in a child process.
 * Axes, legends and boxes are drawn by the charts themselves from lines, fills and text: PLplot's
 * own have a look of their time. */
#include "tools/paper.h"
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/seal.h"
#include "config.h"
#include "tools/utf8.h"
#ifdef HAVE_PLPLOT
#include <plplot/plplot.h>
#endif

/* PLplot's pages are in dots an inch, its letters in mm: at this DPI a dot is a pixel. */
#ifdef HAVE_PLPLOT
static const double DPI = 96, PIXEL_MM = 25.4 / 96;
#endif
enum { DISC = 48, SECONDS_MOST = 120, CHILD_FAILED = 3 };

/* Okabe and Ito's colours without black and yellow, then four of Tol's that differ from them. */
uint32_t paper_colour(int i)
{
    static const uint32_t colour[PAPER_COLOURS] = {0x0072b2ff, 0xd55e00ff, 0x009e73ff, 0xcc79a7ff,
                                                   0xe69f00ff, 0x56b4e9ff, 0x882255ff, 0x332288ff,
                                                   0x999933ff, 0x661100ff};
    return colour[i % PAPER_COLOURS];
}

uint32_t paper_alpha(uint32_t colour, double alpha)
{
    return (colour & ~0xffu) | (uint32_t)lround(255 * fmin(fmax(alpha, 0), 1));
}

uint32_t paper_shade(double share)
{
    static const double stop[5][3] = {
        {246, 249, 252}, {198, 219, 239}, {107, 174, 214}, {33, 113, 181}, {8, 48, 107}};
    double at = 4 * fmin(fmax(share, 0), 1);
    int k = at >= 4 ? 3 : (int)at;
    uint32_t c = 0;
    for (int i = 0; i < 3; i++)
        c = c << 8 | (uint32_t)lround(stop[k][i] + (at - k) * (stop[k + 1][i] - stop[k][i]));
    return c << 8 | 255;
}

double paper_tick(double range, int most)
{
    if (!(range > 0) || !isfinite(range)) return 1;
    double unit = pow(10, floor(log10(range / most)));
    static const double nice[] = {1, 2, 2.5, 5, 10};
    for (int i = 0; i < 5; i++)
        if (range / (unit * nice[i]) <= most * (1 + 1e-9)) return unit * nice[i];
    return unit * 20;
}

const char *paper_number(double value, double tick, char buf[32])
{
    int digits = 0;
    for (double t = tick; digits < 9 && fabs(t - round(t)) > 1e-6 * fabs(tick); digits++)
        t = tick * pow(10, digits + 1);
    if (fabs(value) < 1e-9 * tick) value = 0;
    if (fabs(value) >= 1e6 || (tick > 0 && tick < 1e-6)) snprintf(buf, 32, "%.3g", value);
    else snprintf(buf, 32, "%.*f", digits, value);
    return buf;
}

double paper_text_width(const char *text, double size)
{
    double n = 0;
    for (; *text; text++) {
        if (((unsigned char)*text & 0xc0) == 0x80) continue;
        n += strchr("ijlI.,:;'|!()[] ft", *text) ? 0.36 : strchr("mwMW%@", *text) ? 0.9 : 0.6;
    }
    return n * size;
}

#ifndef HAVE_PLPLOT

int paper_draw(nsm_ctx *ctx, const char *path, int width, int height, void (*draw)(const void *),
               const void *user)
{
    (void)width, (void)height, (void)draw, (void)user;
    return nsm_error_set(ctx, NSM_EINVAL,
                         "%s: this nsm was built without PLplot and cannot draw charts", path);
}
void paper_fail(const char *message) { (void)message; abort(); }
void paper_path(int n, const double *x, const double *y, uint32_t c, double w)
{ (void)n, (void)x, (void)y, (void)c, (void)w; }
void paper_line(double a, double b, double c, double d, uint32_t e, double w)
{ (void)a, (void)b, (void)c, (void)d, (void)e, (void)w; }
void paper_dashes(double a, double b, double c, double d, uint32_t e, double w)
{ (void)a, (void)b, (void)c, (void)d, (void)e, (void)w; }
void paper_fill(int n, const double *x, const double *y, uint32_t c)
{ (void)n, (void)x, (void)y, (void)c; }
void paper_box(double a, double b, double c, double d, uint32_t e)
{ (void)a, (void)b, (void)c, (void)d, (void)e; }
void paper_disc(double x, double y, double r, uint32_t c) { (void)x, (void)y, (void)r, (void)c; }
void paper_text(double x, double y, double s, int a, uint32_t c, const char *t)
{ (void)x, (void)y, (void)s, (void)a, (void)c, (void)t; }
void paper_title(double x, double y, double s, uint32_t c, const char *t)
{ (void)x, (void)y, (void)s, (void)c, (void)t; }
void paper_text_up(double x, double y, double s, int a, uint32_t c, const char *t)
{ (void)x, (void)y, (void)s, (void)a, (void)c, (void)t; }

#else

/* ---- marks ---- */

static void pen(uint32_t colour, double width)
{
    plscol0a(1, (PLINT)(colour >> 24), (PLINT)(colour >> 16 & 255), (PLINT)(colour >> 8 & 255),
             (colour & 255) / 255.0);
    plcol0(1);
    plwidth(width);
}

void paper_path(int n, const double *x, const double *y, uint32_t colour, double width)
{
    pen(colour, width);
    if (n > 1) plline(n, x, y);
}

void paper_line(double x0, double y0, double x1, double y1, uint32_t colour, double width)
{
    paper_path(2, (double[]){x0, x1}, (double[]){y0, y1}, colour, width);
}

void paper_dashes(double x0, double y0, double x1, double y1, uint32_t colour, double width)
{
    const double dash = 10, gap = 8, length = hypot(x1 - x0, y1 - y0);
    for (double at = 0; at < length; at += dash + gap) {
        double a = at / length, b = fmin(at + dash, length) / length;
        paper_line(x0 + a * (x1 - x0), y0 + a * (y1 - y0), x0 + b * (x1 - x0), y0 + b * (y1 - y0),
                   colour, width);
    }
}

void paper_fill(int n, const double *x, const double *y, uint32_t colour)
{
    pen(colour, 0);
    plfill(n, x, y);
}

void paper_box(double x0, double y0, double x1, double y1, uint32_t colour)
{
    paper_fill(4, (double[]){x0, x1, x1, x0}, (double[]){y0, y0, y1, y1}, colour);
}

void paper_disc(double x, double y, double radius, uint32_t colour)
{
    double px[DISC], py[DISC];
    for (int i = 0; i < DISC; i++) {
        px[i] = x + radius * cos(2 * M_PI * i / DISC);
        py[i] = y + radius * sin(2 * M_PI * i / DISC);
    }
    paper_fill(DISC, px, py, colour);
}

/* ---- text ---- */

/* PLplot's escape character doubled, control characters and what is not UTF-8 replaced. */
static const char *clean(const char *text, char *buf, size_t bytes)
{
    size_t used = 0;
    for (const char *s = text; *s && used + 8 < bytes;) {
        int n = utf8_bytes(s);
        if (n == 1 && *s == '#') buf[used++] = '#';
        if (n == 0 || (n == 1 && *s < 32)) buf[used++] = n ? ' ' : '?';
        else for (int i = 0; i < n; i++) buf[used++] = s[i];
        s += n ? n : 1;
    }
    buf[used] = 0;
    return buf;
}

static void put_text(double x, double y, double dx, double dy, double size, int align,
                     uint32_t colour, bool bold, const char *text)
{
    char buf[1024];
    pen(colour, 1);
    plsfont(PL_FCI_SANS, PL_FCI_UPRIGHT, bold ? PL_FCI_BOLD : PL_FCI_MEDIUM);
    plschr(size * PIXEL_MM, 1);
    plptex(x, y, dx, dy, align * 0.5, clean(text, buf, sizeof buf));
}

void paper_text(double x, double y, double size, int align, uint32_t colour, const char *text)
{
    put_text(x, y, 1, 0, size, align, colour, false, text);
}

void paper_title(double x, double y, double size, uint32_t colour, const char *text)
{
    put_text(x, y, 1, 0, size, PAPER_LEFT, colour, true, text);
}

void paper_text_up(double x, double y, double size, int align, uint32_t colour, const char *text)
{
    put_text(x, y, 0, 1, size, align, colour, false, text);
}

/* ---- the child ---- */

void paper_fail(const char *message)
{
    fprintf(stderr, "%s\n", message);
    fflush(stderr);
    _exit(CHILD_FAILED);
}

static void child(const char *file, int width, int height, int out, void (*draw)(const void *),
                  const void *user)
{
    signal(SIGINT, SIG_IGN); /* Ctrl-C is for the parent, which waits for this short work */
    signal(SIGTERM, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    if (dup2(out, STDOUT_FILENO) < 0 || dup2(out, STDERR_FILENO) < 0) _exit(CHILD_FAILED);
    alarm(SECONDS_MOST);
    plsdev("pngcairo");
    plsfnam(file);
    plspage(DPI, DPI, width, height, 0, 0);
    plscolbg(255, 255, 255);
    plinit();
    pladv(0);
    plvpor(0, 1, 0, 1);
    plwind(0, width, 0, height);
    draw(user);
    plend();
    struct stat st;
    if (stat(file, &st) || st.st_size < 100) paper_fail("PLplot wrote nothing");
    _exit(0);
}

/* What the child said, its first line, and how it ended: true if well. */
static bool wait_for(pid_t pid, int from, char *said, size_t bytes)
{
    char rest[1024];
    size_t used = 0;
    for (ssize_t n;;) {
        n = used + 1 < bytes ? read(from, said + used, bytes - 1 - used)
                             : read(from, rest, sizeof rest);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        if (used + 1 < bytes) used += (size_t)n;
    }
    said[used] = 0;
    said[strcspn(said, "\n")] = 0;
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return true;
    if (!*said && WIFSIGNALED(status))
        snprintf(said, bytes, "the drawing process died: %s", strsignal(WTERMSIG(status)));
    if (!*said) snprintf(said, bytes, "the drawing process failed");
    return false;
}

int paper_draw(nsm_ctx *ctx, const char *path, int width, int height, void (*draw)(const void *),
               const void *user)
{
    int end[2];
    char said[400] = "";
    nsmi_draft *draft = nsmi_draft_new(ctx, path);
    if (!draft) return nsm_error(ctx);
    if (pipe(end)) {
        nsm_error_set(ctx, NSM_EIO, "%s: %s", path, strerror(errno));
        nsmi_draft_abort(draft);
        return nsm_error(ctx);
    }
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) child(nsmi_draft_temporary(draft), width, height, end[1], draw, user);
    close(end[1]);
    if (pid < 0)
        nsm_error_set(ctx, NSM_ENOMEM, "%s: no process to draw in: %s", path, strerror(errno));
    else if (!wait_for(pid, end[0], said, sizeof said))
        nsm_error_set(ctx, NSM_EIO, "%s could not be drawn: %s", path, said);
    close(end[0]);
    return nsmi_draft_commit(ctx, draft, NULL);
}
#endif
