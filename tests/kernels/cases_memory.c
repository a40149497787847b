/* tests/kernels/cases_memory.c - The state memory's kernels: clocks, the exact window, the mix and
 * the slots, against plain loops in double.  What the slots' backward gives is held to difference
 * quotients by test_ops, and here, on another backend than the CPU, to the CPU's. */
#include "config.h"
#include "tests/kernels/cases.h"

/* ---- clock ---- */
typedef struct { int64_t batch, n, heads, size, pairs; bool start, doubles, length; } clock_shape;

static const clock_shape clocks[] = {
    { 1, 1, 1, 1, 0, false, false, false },   { 2, 7, 3, 5, 0, false, false, false },
    { 2, 300, 2, 16, 8, true, false, false }, { 1, 513, 1, 19, 7, false, false, false },
    { 3, 40, 2, 33, 1, true, true, true },    { 2, 3, 1, 64, 32, true, true, true },
};

static double omega_of(int64_t pairs, int64_t m)
{
    return acos(-1.0) / 2 * pow(10, -1.5 * (double)m / (double)(pairs > 1 ? pairs - 1 : 1));
}

typedef struct {
    nsmi_clock c;
    reals x, rate, start, dy;
    ints length;
    double *phase;
} clock_problem;

/* What row i gives: its unit vector turned, and with dy what its x and its phase get. */
static void clock_row(const clock_problem *p, int64_t i, double *y, double *dx, double *dphase)
{
    const int64_t n = p->c.size, pairs = p->c.pairs;
    const float *x = p->x.h + i * n, *dy = p->dy.h + i * n;
    double squares = 1e-6, along = 0, *g = calloc((size_t)n, sizeof *g),
           *u = calloc((size_t)n, sizeof *u);
    for (int64_t j = 0; j < n; j++) squares += (double)x[j] * (double)x[j];
    for (int64_t j = 0; j < n; j++)
        u[j] = y[j] = (double)x[j] / sqrt(squares), g[j] = (double)dy[j];
    for (int64_t m = 0; m < pairs; m++) {
        double w = omega_of(pairs, m), co = cos(p->phase[i] * w), si = sin(p->phase[i] * w);
        y[m] = u[m] * co - u[pairs + m] * si;
        y[pairs + m] = u[m] * si + u[pairs + m] * co;
        g[m] = (double)dy[m] * co + (double)dy[pairs + m] * si;
        g[pairs + m] = (double)dy[pairs + m] * co - (double)dy[m] * si;
        *dphase += w * (y[m] * (double)dy[pairs + m] - y[pairs + m] * (double)dy[m]);
    }
    for (int64_t j = 0; j < n; j++) along += u[j] * g[j];
    for (int64_t j = 0; j < n; j++) dx[j] += (g[j] - u[j] * along) / sqrt(squares);
    free(g);
    free(u);
}

static void clock_run(kernels *k, const clock_shape *s)
{
    const int64_t rows = s->batch * s->n * s->heads, heads = s->batch * s->heads, row = 1, of = 2;
    clock_problem p = { { s->batch, s->n, s->heads, s->size, s->pairs, row, of, NULL, NULL, NULL },
                        reals_random(k, rows * s->size, -1, 1),
                        reals_random(k, rows, 0, 3),
                        reals_random(k, s->batch * of * s->heads, -9, 9),
                        reals_random(k, rows * s->size, -1, 1),
                        ints_random(k, s->batch, 0, s->n + 1),
                        wanted(k, rows) };
    reals y = reals_blank(k, p.x.n), by = reals_blank(k, rows), scratch = reals_blank(k, rows),
          phase = reals_blank(k, 2 * rows);
    reals dx = reals_random(k, p.x.n, -1, 1), drate = reals_random(k, rows, -1, 1),
          dstart = reals_random(k, p.start.n, -1, 1);
    reals doubles = reals_blank(k, 2 * p.start.n);
    double *wy = wanted(k, y.n), *wx = wanted_from(k, dx, 0.5), *wr = wanted_from(k, drate, 1),
           *ws = wanted_from(k, dstart, 1), *start = (double *)doubles.h;
    for (int64_t i = 0; i < p.start.n; i++) start[i] = (double)p.start.h[i];
    reals_up(k, doubles);
    if (s->length) p.c.length = p.length.d;
    if (s->start && s->doubles) p.c.start = (double *)doubles.d;
    else if (s->start) p.c.start_float = p.start.d;
    for (int64_t i = 0; i < heads; i++) {
        int64_t b = i / s->heads, h = i % s->heads, at = (b * of + row) * s->heads + h;
        double now = s->start ? (double)p.start.h[at] : 0, sum = 0;
        for (int64_t t = 0; s->pairs && t < s->n; t++)
            p.phase[(b * s->n + t) * s->heads + h] = now += (double)p.rate
                                                                .h[(b * s->n + t) * s->heads + h];
        for (int64_t t = s->n - 1; t >= 0; t--) {
            int64_t r = (b * s->n + t) * s->heads + h;
            clock_row(&p, r, wy + r * s->size, wx + r * s->size, &sum);
            wr[r] += sum;
        }
        ws[at] += sum;
    }
    k->be->clock(k->d, &p.c, p.x.d, s->pairs ? p.rate.d : NULL, s->pairs ? (double *)phase.d : NULL,
                 by.d, y.d);
    result(k, "clock", y, wy, 1e-5);
    k->be->clock_back(k->d, &p.c, s->pairs ? (double *)phase.d : NULL, by.d, y.d, p.dy.d, scratch.d,
                      0.5f, dx.d, s->pairs ? drate.d : NULL, s->pairs ? dstart.d : NULL);
    result(k, "clock_back: dx", dx, wx, 1e-5);
    if (s->pairs) result(k, "clock_back: drate", drate, wr, 2e-5);
    if (s->pairs) result(k, "clock_back: dstart", dstart, ws, 2e-5);
    for (int64_t i = 0; p.c.start && k->check && i < heads; i++) {
        int64_t b = i / s->heads, h = i % s->heads, at = (b * of + row) * s->heads + h,
                there = s->length ? p.length.h[b] : s->n;
        double got[1], want = there ? p.phase[(b * s->n + there - 1) * s->heads + h] : start[at];
        k->be->to_host(k->d, sizeof got, p.c.start + at, got);
        ck_assert_msg(k->d->trouble || fabs(*got - want) < 1e-9 * (1 + fabs(want)),
                      "clock: the last phase is %.17g, want %.17g", *got, want);
    }
}

void case_clock(kernels *k)
{
    for (size_t i = 0; i < sizeof clocks / sizeof *clocks; i++) clock_run(k, &clocks[i]);
}

/* ---- window ---- */
typedef struct { int64_t batch, n, heads, dk, dv, w; bool past, seen; } window_shape;

static const window_shape windows[] = {
    { 1, 1, 1, 1, 1, 1, false, false },    { 2, 5, 3, 4, 7, 3, true, false },
    { 2, 130, 2, 20, 17, 16, true, true }, { 1, 70, 1, 33, 140, 70, false, false },
    { 3, 2, 2, 8, 8, 40, true, true },     { 1, 200, 2, 8, 8, 1, false, false },
};

typedef struct { reals q, k, v, gamma, bias, past_k, past_v, dy; int64_t *seen; } window_problem;

/* The key or value that query t sees `off` tokens back; NULL: nothing there.  *at: its place, in
 * `past` where it is of the past. */
static const float *window_row(const window_shape *s, const reals *x, const reals *past,
                               int64_t size, const window_problem *p, int64_t b, int64_t h,
                               int64_t j, int64_t *at)
{
    int64_t before = s->w - 1, there = !s->past                         ? 0
                                       : s->seen && p->seen[b] < before ? p->seen[b]
                                                                        : before;
    if (j < -there) return NULL;
    *at = (j >= 0 ? (b * s->n + j) * s->heads + h : (b * before + before + j) * s->heads + h) *
          size;
    return (j >= 0 ? x->h : past->h) + *at;
}

static double dot_double(const float *a, const float *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

/* Gradients: of q, k, v, gamma, bias, past k, past v. */
static void window_query(const window_shape *s, const window_problem *p, int64_t i, double *y,
                         double *g[7])
{
    int64_t h = i % s->heads, t = i / s->heads % s->n, b = i / s->heads / s->n, at = 0;
    double *score = calloc((size_t)s->w, sizeof *score), *prob = calloc((size_t)s->w, sizeof *prob),
           top = -INFINITY, sum = 0, delta = 0;
    const float *q = p->q.h + i * s->dk, *dy = p->dy.h + i * s->dv;
    int64_t count = 0;
    for (const float *key;
         count < s->w && (key = window_row(s, &p->k, &p->past_k, s->dk, p, b, h, t - count, &at));
         count++) {
        score[count] = dot_double(q, key, s->dk);
        prob[count] = (double)p->gamma.h[h] * score[count] + (double)p->bias.h[h * s->w + count];
        top = fmax(top, prob[count]);
    }
    for (int64_t o = 0; o < count; o++) sum += prob[o] = exp(prob[o] - top);
    for (int64_t o = 0; o < count; o++) {
        const float *v = window_row(s, &p->v, &p->past_v, s->dv, p, b, h, t - o, &at);
        prob[o] /= sum;
        delta += prob[o] * dot_double(dy, v, s->dv);
        for (int64_t e = 0; e < s->dv; e++) y[i * s->dv + e] += prob[o] * (double)v[e];
    }
    for (int64_t o = 0; o < count; o++) {
        const float *v = window_row(s, &p->v, &p->past_v, s->dv, p, b, h, t - o, &at);
        double ds = prob[o] * (dot_double(dy, v, s->dv) - delta), *dv = (t >= o ? g[2] : g[6]) + at,
               *dk = t >= o ? g[1] : g[5];
        for (int64_t e = 0; e < s->dv; e++) dv[e] += prob[o] * (double)dy[e];
        const float *key = window_row(s, &p->k, &p->past_k, s->dk, p, b, h, t - o, &at);
        for (int64_t d = 0; d < s->dk; d++) {
            g[0][i * s->dk + d] += ds * (double)p->gamma.h[h] * (double)key[d];
            dk[at + d] += ds * (double)p->gamma.h[h] * (double)q[d];
        }
        g[3][h] += ds * score[o];
        g[4][h * s->w + o] += ds;
    }
    free(score);
    free(prob);
}

static int64_t *longs_up(kernels *k, reals room, int64_t n, const int64_t *x)
{
    memcpy(room.h, x, (size_t)n * sizeof *x);
    reals_up(k, room);
    return (int64_t *)room.d;
}

static void window_run(kernels *k, const window_shape *s)
{
    const int64_t rows = s->batch * s->n * s->heads, past = s->batch * (s->w - 1) * s->heads;
    int64_t seen[8] = { 0, 2, 1000, 7 };
    window_problem p = { reals_random(k, rows * s->dk, -1, 1),
                         reals_random(k, rows * s->dk, -1, 1),
                         reals_random(k, rows * s->dv, -1, 1),
                         reals_random(k, s->heads, 0.5, 3),
                         reals_random(k, s->heads * s->w, -1, 1),
                         reals_random(k, past * s->dk, -1, 1),
                         reals_random(k, past * s->dv, -1, 1),
                         reals_random(k, rows * s->dv, -1, 1),
                         seen };
    nsmi_window c = { s->batch,
                      s->n,
                      s->heads,
                      s->dk,
                      s->dv,
                      s->w,
                      s->seen ? longs_up(k, reals_blank(k, 16), 8, seen) : NULL };
    nsmi_window_in in = { p.q.d,
                          p.k.d,
                          p.v.d,
                          p.gamma.d,
                          p.bias.d,
                          s->past ? p.past_k.d : NULL,
                          s->past ? p.past_v.d : NULL };
    reals y = reals_blank(k, p.v.n), lse = reals_blank(k, rows);
    const reals *from[7] = { &p.q, &p.k, &p.v, &p.gamma, &p.bias, &p.past_k, &p.past_v };
    static const char *const names[7] = { "window_back: dq",     "window_back: dk",
                                          "window_back: dv",     "window_back: dgamma",
                                          "window_back: dbias",  "window_back: dpast_k",
                                          "window_back: dpast_v" };
    reals got[7];
    double *want[7], *wy = wanted(k, y.n);
    for (int i = 0; i < 7; i++) {
        got[i] = reals_random(k, from[i]->n, -1, 1);
        want[i] = wanted_from(k, got[i], 1);
    }
    for (int64_t i = 0; i < rows; i++) window_query(s, &p, i, wy, want);
    reals room = reals_blank(k, k->be->window_room(k->d, &c, false)),
          back = reals_blank(k, k->be->window_room(k->d, &c, true));
    k->be->window(k->d, &c, &in, room.d, y.d, lse.d);
    result(k, "window", y, wy, 1e-5);
    k->be->window_back(k->d, &c, &in, lse.d, p.dy.d, back.d,
                       &(nsmi_window_grad){ got[0].d, got[1].d, got[2].d, got[3].d, got[4].d,
                                            s->past ? got[5].d : NULL, s->past ? got[6].d : NULL });
    /* gamma's: a sum of what mostly cancels */
    for (int i = 0; i < (s->past ? 7 : 5); i++)
        result(k, names[i], got[i], want[i], i == 3 ? 1e-4 : 2e-5);
}

void case_window(kernels *k)
{
    for (size_t i = 0; i < sizeof windows / sizeof *windows; i++) window_run(k, &windows[i]);
}

/* ---- mix ---- */
static void mix_run(kernels *k, int64_t tokens, int64_t heads, int64_t size, float beta)
{
    const int64_t rows = tokens * heads, all = rows * size;
    reals o = reals_random(k, all, -1, 1), m = reals_random(k, rows, 0, 1),
          near = reals_random(k, all, -1, 1), gate = reals_random(k, all, -3, 3);
    reals w = reals_random(k, heads * size, -1, 1), dy = reals_random(k, all, -1, 1),
          y = reals_blank(k, all);
    const int64_t count[5] = { all, rows, all, all, w.n };
    static const char *const names[5] = { "memory_mix_back: do", "memory_mix_back: dmass",
                                          "memory_mix_back: dnear", "memory_mix_back: dgate",
                                          "memory_mix_back: dw" };
    reals got[5];
    double *want[5], *wy = wanted(k, all);
    for (int i = 0; i < 5; i++) {
        got[i] = beta != 0 || i == 4 ? reals_random(k, count[i], -1, 1) : reals_blank(k, count[i]);
        want[i] = wanted_from(k, got[i], i == 4 ? 1 : (double)beta);
    }
    for (int64_t i = 0; i < rows; i++) {
        double r = 1 / sqrt(dot_double(o.h + i * size, o.h + i * size, size) / (double)size + 1e-5),
               along = 0, mass = (double)m.h[i];
        for (int pass = 0; pass < 2; pass++)
            for (int64_t e = 0; e < size; e++) {
                int64_t at = i * size + e, c = i % heads * size + e;
                double g = 1 / (1 + exp(-(double)gate.h[at])), unit = r * (double)o.h[at],
                       far = unit * (double)w.h[c], d = (double)dy.h[at];
                if (pass) {
                    want[0][at] += r * (d * g * mass * (double)w.h[c] -
                                        unit * along * mass / (double)size);
                    continue;
                }
                wy[at] = g * mass * far + (1 - g) * (double)near.h[at];
                along += d * g * far;
                want[1][i] += d * g * far;
                want[2][at] += d * (1 - g);
                want[3][at] += d * g * (1 - g) * (mass * far - (double)near.h[at]);
                want[4][c] += d * g * mass * unit;
            }
    }
    k->be->memory_mix(k->d, tokens, heads, size, o.d, m.d, near.d, gate.d, w.d, y.d);
    result(k, "memory_mix", y, wy, 1e-5);
    k->be->memory_mix_back(
        k->d, tokens, heads, size, &(nsmi_mix){ o.d, m.d, near.d, gate.d }, w.d, dy.d,
        &(nsmi_mix_grad){
            got[0].d, got[1].d, got[2].d, got[3].d, got[4].d, { beta, beta, beta, beta } });
    for (int i = 0; i < 5; i++) result(k, names[i], got[i], want[i], 2e-5);
}

void case_memory_mix(kernels *k)
{
    mix_run(k, 1, 1, 2, 0);
    mix_run(k, 7, 3, 5, 0.5f);
    mix_run(k, 300, 2, 40, 1);
    mix_run(k, 3, 1, 300, 0);
}

/* ---- slots ---- */
typedef struct {
    int64_t batch, n, heads, dk, dv, s, learned, top, chunk, every;
    bool decay, state, length;
    double tau_new, tau_recycle;
} slots_shape;

static const slots_shape slot_shapes[] = {
    { 1, 1, 1, 1, 1, 1, 0, 1, 64, 0, false, false, false, 0.5, 0.5 },
    { 2, 150, 2, 8, 12, 7, 2, 3, 64, 0, false, true, true, 0.5, 0.9 },
    { 1, 100, 2, 20, 33, 40, 0, 8, 64, 0, false, false, false, 0.6, 0.5 },
    { 2, 70, 1, 5, 40, 5, 1, 5, 32, 11, true, true, false, 0.4, 0.9 },
    { 1, 90, 1, 40, 20, 100, 3, 30, 64, 25, false, true, false, 0.8, 0.5 },
    { 1, 12, 1, 8, 8, 200, 0, 4, 4, 0, true, false, false, 2, 0.5 },
};

/* One side of a problem: the device's arrays, or the host's. */
typedef struct {
    nsmi_slots c;
    nsmi_slots_in in;
    nsmi_slots_state st;
    nsmi_slots_saved saved;
    nsmi_slots_trace trace;
    float *o, *mass, *key, *value;
} slots_side;

enum { SQ, SK, SV, SBETA, SALPHA, SSCALAR, SKEY, SVALUE, SLOT_INPUTS };
typedef struct {
    reals in[SLOT_INPUTS], usage, o, mass, key, value, start, prob, write, read, trace_usage;
    /* bytes, four to a number */
    ints length, owner, kept, slot, alive, pruned, recycled, was_alive;
    reals birth, seen;                                                  /* int64, two to one */
} slots_problem;

static slots_problem slots_new(kernels *k, const slots_shape *s, nsmi_slots *c)
{
    int64_t rows = s->batch * s->n * s->heads, pools = s->batch * s->heads,
            map = pools * s->n * s->s, each = pools * s->s;
    double unit = 1.5 / sqrt((double)s->dk);
    *c = (nsmi_slots){ s->batch,   s->n,
                       s->heads,   s->dk,
                       s->dv,      s->s,
                       s->learned, s->top,
                       s->chunk,   s->n / s->chunk + 1 + (s->every ? s->n / s->every + 1 : 0),
                       s->every,   (float)s->tau_new,
                       0.1f,       0.9f,
                       0.1f,       (float)s->tau_recycle,
                       NULL,       NULL };
    slots_problem p = {
        { reals_random(k, rows * s->dk, -unit, unit), reals_random(k, rows * s->dk, -unit, unit),
          reals_random(k, rows * s->dv, -1, 1), reals_random(k, rows, 0, 1),
          reals_random(k, rows, 0.8, 1), reals_random(k, 6 * s->heads, 0.2, 0.9),
          reals_random(k, each * s->dk, -unit, unit), reals_random(k, each * s->dv, -1, 1) },
        reals_random(k, each, 0.3, 1),
        reals_blank(k, rows * s->dv),
        reals_blank(k, rows),
        reals_blank(k, each * s->dk),
        reals_blank(k, each * s->dv),
        reals_blank(k, pools * c->chunks * s->s * s->dv),
        reals_blank(k, pools * s->n * 2 * s->top),
        reals_blank(k, map),
        reals_blank(k, map),
        reals_blank(k, map),
        ints_random(k, s->batch, 0, s->n + 1),
        ints_blank(k, pools * (c->chunks + 1) * s->s),
        ints_blank(k, pools * s->n * (2 * s->top + 1)),
        ints_blank(k, pools * s->n),
        ints_blank(k, map / 4 + 1),
        ints_blank(k, map / 4 + 1),
        ints_blank(k, pools * s->n / 4 + 1),
        ints_blank(k, each / 4 + 1),
        reals_blank(k, 2 * each),
        reals_blank(k, 2 * s->batch)
    };
    /* the gammas */
    for (int64_t h = 0; h < s->heads; h++)
        p.in[SSCALAR].h[h] = p.in[SSCALAR].h[2 * s->heads + h] = 6;
    reals_up(k, p.in[SSCALAR]);
    for (int64_t i = 0; i < s->batch; i++) ((int64_t *)p.seen.h)[i] = 3 * i;
    for (int64_t i = 0; i < each; i++) {
        ((uint8_t *)p.was_alive.h)[i] = i % s->s < s->learned || i % 3 == 0;
        ((int64_t *)p.birth.h)[i] = -1;
    }
    reals_up(k, p.seen);
    reals_up(k, p.birth);
    k->be->to_device(k->d, (size_t)p.was_alive.n * sizeof *p.was_alive.h, p.was_alive.h,
                     p.was_alive.d);
    return p;
}

#define SIDE(x) (host ? (x).h : (x).d)
static slots_side slots_on(const slots_shape *s, const nsmi_slots *c, slots_problem *p, bool host)
{
    bool given = s->state || s->learned;
    slots_side side = { *c,
                        { SIDE(p->in[SQ]), SIDE(p->in[SK]), SIDE(p->in[SV]), SIDE(p->in[SBETA]),
                          s->decay ? SIDE(p->in[SALPHA]) : NULL, SIDE(p->in[SSCALAR]),
                          given ? SIDE(p->in[SKEY]) : NULL, given ? SIDE(p->in[SVALUE]) : NULL },
                        { NULL, NULL, NULL },
                        { SIDE(p->start), SIDE(p->owner), SIDE(p->kept), SIDE(p->prob) },
                        { SIDE(p->write), SIDE(p->read), SIDE(p->trace_usage),
                          (uint8_t *)SIDE(p->alive), (uint8_t *)SIDE(p->pruned),
                          (uint8_t *)SIDE(p->recycled), SIDE(p->slot) },
                        SIDE(p->o),
                        SIDE(p->mass),
                        SIDE(p->key),
                        SIDE(p->value) };
    if (s->state)
        side.st = (nsmi_slots_state){ SIDE(p->usage), (uint8_t *)SIDE(p->was_alive),
                                      (int64_t *)SIDE(p->birth) };
    if (s->state) side.c.seen = (int64_t *)SIDE(p->seen);
    if (s->length) side.c.length = SIDE(p->length);
    return side;
}

/* A pool in double, as its paper's formulas stand. */
typedef struct {
    const slots_shape *s;
    const slots_problem *p;
    const nsmi_slots *c;
    int64_t b, h;
    double *key, *value, *usage;
    bool *alive;
} plain_pool;

static double plain_cosine(const plain_pool *u, const float *x, int64_t slot)
{
    double sum = 0;
    for (int64_t d = 0; d < u->s->dk; d++) sum += (double)x[d] * u->key[slot * u->s->dk + d];
    return sum;
}

/* prob [s] of a routing; its mass. */
static double plain_route(const plain_pool *u, const float *x, int which, double *prob)
{
    const int64_t s = u->s->s;
    double gamma = (double)u->p->in[SSCALAR].h[2 * which * u->s->heads + u->h],
           null = (double)u->p->in[SSCALAR].h[(2 * which + 1) * u->s->heads + u->h];
    double sum = exp(null), mass = 0;
    for (int64_t i = 0; i < s; i++) prob[i] = 0;
    for (int64_t n = 0; n < u->s->top; n++) {
        int64_t best = -1;
        for (int64_t i = 0; i < s; i++)
            if (u->alive[i] && prob[i] == 0 &&
                (best < 0 || plain_cosine(u, x, i) > plain_cosine(u, x, best)))
                best = i;
        if (best >= 0) sum += prob[best] = exp(gamma * plain_cosine(u, x, best));
    }
    for (int64_t i = 0; i < s; i++) mass += prob[i] /= sum;
    return mass;
}

static int64_t plain_slot(const plain_pool *u, double beta, bool *recycled)
{
    int64_t least = -1;
    for (int64_t i = 0; i < u->s->s; i++)
        if (!u->alive[i]) return i;
    for (int64_t i = u->s->learned; i < u->s->s; i++)
        if (least < 0 || u->usage[i] < u->usage[least]) least = i;
    *recycled = least >= 0 && u->usage[least] < (double)u->c->tau_recycle * beta;
    return *recycled ? least : -1;
}

static void plain_communicate(plain_pool *u)
{
    const int64_t s = u->s->s, dk = u->s->dk, dv = u->s->dv;
    double kappa = (double)u->p->in[SSCALAR].h[4 * u->s->heads + u->h],
           gamma = (double)u->p->in[SSCALAR].h[5 * u->s->heads + u->h];
    double *next = calloc((size_t)(s * dv), sizeof *next);
    for (int64_t i = 0; i < s; i++) {
        double sum = 0;
        for (int64_t j = 0; u->alive[i] && j < s; j++) {
            double along = 0;
            for (int64_t d = 0; d < dk; d++) along += u->key[i * dk + d] * u->key[j * dk + d];
            if (!u->alive[j]) continue;
            sum += exp(gamma * along);
            for (int64_t e = 0; e < dv; e++)
                next[i * dv + e] += exp(gamma * along) * u->value[j * dv + e];
        }
        for (int64_t e = 0; e < dv; e++)
            next[i * dv + e] = u->alive[i] ? (1 - kappa) * u->value[i * dv + e] +
                                                 kappa * next[i * dv + e] / sum
                                           : u->value[i * dv + e];
    }
    memcpy(u->value, next, (size_t)(s * dv) * sizeof *next);
    free(next);
}

typedef struct { double *o, *mass, *write, *read, *usage; int32_t *slot; } plain_wants;

static void plain_token(plain_pool *u, int64_t t, const plain_wants *w)
{
    const slots_shape *s = u->s;
    const slots_problem *p = u->p;
    int64_t row = (u->b * s->n + t) * s->heads + u->h, at = (u->b * s->heads + u->h) * s->n + t,
            opened = -1;
    const float *k = p->in[SK].h + row * s->dk, *q = p->in[SQ].h + row * s->dk,
                *v = p->in[SV].h + row * s->dv;
    double beta = (double)p->in[SBETA].h[row], best = -INFINITY, *write = w->write + at * s->s,
           *read = w->read + at * s->s, norm = 1e-12, also = 1e-12;
    bool recycled = false;
    for (int64_t i = 0; i < s->s; i++) {
        u->usage[i] *= (double)u->c->rho;
        if (u->alive[i] && i >= s->learned && u->usage[i] < (double)u->c->tau_prune) {
            u->alive[i] = false;
            u->usage[i] = 0;
            for (int64_t e = 0; e < s->dv; e++) u->value[i * s->dv + e] = 0;
        }
        if (u->alive[i]) best = fmax(best, plain_cosine(u, k, i));
    }
    if (best < (double)u->c->tau_new && beta >= (double)u->c->beta_min)
        opened = plain_slot(u, beta, &recycled);
    if (opened >= 0) {
        u->alive[opened] = true;
        u->usage[opened] = beta;
        for (int64_t d = 0; d < s->dk; d++) u->key[opened * s->dk + d] = (double)k[d];
        for (int64_t e = 0; e < s->dv; e++) u->value[opened * s->dv + e] = 0;
    }
    double b = beta * plain_route(u, k, 0, write);
    w->mass[row] = plain_route(u, q, 1, read);
    w->slot[at] = (int32_t)opened;
    for (int64_t i = 0; i < s->s; i++) norm += write[i] * write[i], also += read[i] * read[i];
    for (int64_t e = 0; e < s->dv; e++) {
        double old = 0, sum = 0;
        for (int64_t i = 0; i < s->s; i++)
            old += write[i] / sqrt(norm) *
                   (u->value[i * s->dv + e] *= s->decay ? (double)p->in[SALPHA].h[row] : 1);
        for (int64_t i = 0; i < s->s; i++)
            u->value[i * s->dv + e] += write[i] / sqrt(norm) * b * ((double)v[e] - old);
        for (int64_t i = 0; i < s->s; i++) sum += read[i] / sqrt(also) * u->value[i * s->dv + e];
        w->o[row * s->dv + e] = sum;
    }
    for (int64_t i = 0; i < s->s; i++) {
        u->usage[i] += (write[i] >= 0.5 ? beta * write[i] : 0) + (read[i] >= 0.5 ? read[i] : 0);
        w->usage[at * s->s + i] = u->usage[i];
    }
}

static void plain_slots(kernels *k, const slots_shape *s, const nsmi_slots *c,
                        const slots_problem *p, const plain_wants *w, double *key, double *value)
{
    for (int64_t pool = 0; pool < s->batch * s->heads; pool++) {
        plain_pool u = { s,
                         p,
                         c,
                         pool / s->heads,
                         pool % s->heads,
                         key + pool * s->s * s->dk,
                         value + pool * s->s * s->dv,
                         wanted(k, s->s),
                         host_array(k, s->s, sizeof(bool)) };
        int64_t n = s->length ? p->length.h[u.b] : s->n,
                seen = s->state ? ((int64_t *)p->seen.h)[u.b] : 0;
        for (int64_t i = 0; i < s->s; i++) {
            int64_t at = pool * s->s + i;
            u.alive[i] = s->state ? ((uint8_t *)p->was_alive.h)[at] : i < s->learned;
            u.usage[i] = s->state ? (double)p->usage.h[at] : 0;
            for (int64_t d = 0; d < s->dk; d++)
                u.key[i * s->dk + d] = (double)p->in[SKEY].h[at * s->dk + d];
            for (int64_t e = 0; e < s->dv; e++)
                u.value[i * s->dv + e] = s->state || s->learned
                                             ? (double)p->in[SVALUE].h[at * s->dv + e]
                                             : 0;
        }
        for (int64_t t = 0; t < n; t++) {
            plain_token(&u, t, w);
            if (s->every && (seen + t + 1) % s->every == 0) plain_communicate(&u);
        }
        for (int64_t i = 0; i < s->s; i++)
            for (int64_t d = 0; d < s->dk; d++)
                if (!u.alive[i]) u.key[i * s->dk + d] = 0;
    }
}

/* The CPU's gradients of the same, if this is another backend: on the host's arrays. */
static void slots_twin(kernels *k, const slots_side *side, const nsmi_slots_grad *g)
{
    nsm_ctx *ctx = nsm_ctx_new(&(nsm_ctx_config){ .backend = "cpu", .threads = 1 });
    nsm_device *d = &ctx->dev;
    int64_t forward = d->be->slots_room(d, &side->c, side->in.alpha, false),
            back = d->be->slots_room(d, &side->c, side->in.alpha, true);
    float *room = d->be->alloc(d, (size_t)(forward + back) * sizeof *room);
    ck_assert(room);
    d->be->slots(d, &side->c, &side->in, &side->st, room, side->o, side->mass, side->key,
                 side->value, &side->saved, NULL);
    d->be->slots_back(d, &side->c, &side->in, &side->saved, room, g);
    d->be->release(d, room, (size_t)(forward + back) * sizeof *room);
    nsm_ctx_free(ctx);
    (void)k;
}

static void slots_gradients(kernels *k, const slots_shape *s, const nsmi_slots *c, slots_problem *p)
{
    static const char *const names[SLOT_INPUTS] = { "slots_back: dq",     "slots_back: dk",
                                                    "slots_back: dv",     "slots_back: dbeta",
                                                    "slots_back: dalpha", "slots_back: dscalar",
                                                    "slots_back: dkey",   "slots_back: dvalue" };
    slots_side side = slots_on(s, c, p, false), host = slots_on(s, c, p, true);
    reals to = reals_random(k, p->o.n, -1, 1), tm = reals_random(k, p->mass.n, -1, 1),
          tk = reals_random(k, p->key.n, -1, 1), tv = reals_random(k, p->value.n, -1, 1);
    reals g[SLOT_INPUTS];
    float *twin[SLOT_INPUTS];
    bool given = side.in.key != NULL;
    for (int i = 0; i < SLOT_INPUTS; i++) {
        g[i] = reals_random(k, p->in[i].n, -1, 1);
        twin[i] = host_array(k, g[i].n, sizeof(float));
        memcpy(twin[i], g[i].h, (size_t)g[i].n * sizeof(float));
    }
    reals room = reals_blank(k, k->be->slots_room(k->d, c, s->decay, true));
    k->be->slots_back(k->d, &side.c, &side.in, &side.saved, room.d,
                      &(nsmi_slots_grad){ to.d, tm.d, tk.d, tv.d, g[SQ].d, g[SK].d, g[SV].d,
                                          g[SBETA].d, s->decay ? g[SALPHA].d : NULL, g[SSCALAR].d,
                                          given ? g[SKEY].d : NULL, given ? g[SVALUE].d : NULL });
    bool cpu = !strcmp(k->be->name, "cpu");
    if (!cpu && k->check)
        slots_twin(k, &host,
                   &(nsmi_slots_grad){ to.h, tm.h, tk.h, tv.h, twin[SQ], twin[SK], twin[SV],
                                       twin[SBETA], s->decay ? twin[SALPHA] : NULL, twin[SSCALAR],
                                       given ? twin[SKEY] : NULL, given ? twin[SVALUE] : NULL });
    for (int i = 0; i < SLOT_INPUTS; i++) {
        double *want = wanted(k, g[i].n);
        for (int64_t j = 0; j < g[i].n; j++) want[j] = (double)twin[i][j];
        if (!cpu) result(k, names[i], g[i], want, 5e-5);
        else result_digest(k, g[i]);
    }
}

static void slots_run(kernels *k, const slots_shape *s)
{
    nsmi_slots c;
    slots_problem p = slots_new(k, s, &c);
    slots_side side = slots_on(s, &c, &p, false);
    plain_wants w = { wanted(k, p.o.n),           wanted(k, p.mass.n),
                      wanted(k, p.write.n),       wanted(k, p.read.n),
                      wanted(k, p.trace_usage.n), host_array(k, p.slot.n, sizeof(int32_t)) };
    double *key = wanted(k, p.key.n), *value = wanted(k, p.value.n);
    for (int64_t i = 0; i < p.slot.n; i++) { /* behind a row's tokens the trace is nobody's */
        int64_t n = s->length ? p.length.h[i / s->n / s->heads] : s->n;
        w.slot[i] = -77;
        for (int64_t j = 0; i % s->n >= n && j < s->s; j++)
            w.write[i * s->s + j] = w.read[i * s->s + j] = w.usage[i * s->s + j] = NAN;
    }
    if (k->check) plain_slots(k, s, &c, &p, &w, key, value);
    reals room = reals_blank(k, k->be->slots_room(k->d, &c, s->decay, false));
    k->be->slots(k->d, &side.c, &side.in, &side.st, room.d, side.o, side.mass, side.key, side.value,
                 &side.saved, &side.trace);
    result_ints(k, "slots: opened", p.slot, w.slot);
    result_each(k, "slots: write", p.write, w.write, 3e-4);
    result_each(k, "slots: read", p.read, w.read, 3e-4);
    result_each(k, "slots: usage", p.trace_usage, w.usage, 3e-4);
    result(k, "slots", p.o, w.o, 5e-5);
    result(k, "slots: mass", p.mass, w.mass, 2e-5);
    result(k, "slots: keys", p.key, key, 0);
    result(k, "slots: values", p.value, value, 5e-5);
    slots_gradients(k, s, &c, &p);
}

void case_slots(kernels *k)
{
    for (size_t i = 0; i < sizeof slot_shapes / sizeof *slot_shapes; i++)
        slots_run(k, &slot_shapes[i]);
}
