/* tests/kernels/cases_recurrence.c - Kernels that carry a state along a sequence, against plain
 * loops in double. */
#include "config.h"
#include "tests/kernels/cases.h"

/* ---- the causal convolution ---- */
typedef struct {
    int64_t batch, n, channels, taps;
    bool silu, bias, tail;
} conv_shape;

static const conv_shape convs[] = {
    { 1, 1, 1, 1, false, false, false },  { 2, 1, 17, 4, true, true, true },
    { 3, 2, 5, 4, true, false, false },   { 1, 63, 64, 4, true, true, true },
    { 1, 64, 80, 3, false, true, false }, { 2, 65, 131, 4, true, true, true },
    { 1, 300, 20, 32, true, true, true }, { 2, 1000, 33, 4, true, true, false },
};

typedef struct { reals x, w, bias, tail, dy; } conv_problem;

static double conv_x(const conv_shape *s, const conv_problem *p, int64_t b, int64_t t, int64_t ch)
{
    if (t >= 0) return (double)p->x.h[(b * s->n + t) * s->channels + ch];
    return s->tail ? (double)p->tail.h[(b * (s->taps - 1) + s->taps - 1 + t) * s->channels + ch]
                   : 0;
}

static void conv_add(const conv_shape *s, double *dx, double *dtail, int64_t b, int64_t t,
                     int64_t ch, double add)
{
    if (t >= 0) dx[(b * s->n + t) * s->channels + ch] += add;
    else dtail[(b * (s->taps - 1) + s->taps - 1 + t) * s->channels + ch] += add;
}

static void conv_run(kernels *k, const conv_shape *s)
{
    const int64_t c = s->taps, all = s->batch * s->n * s->channels,
                  kept = s->batch * (c - 1) * s->channels;
    conv_problem p = { reals_random(k, all, -1, 1), reals_random(k, s->channels * c, -1, 1),
                       reals_random(k, s->channels, -1, 1), reals_random(k, kept, -1, 1),
                       reals_random(k, all, -1, 1) };
    reals y = reals_blank(k, all), next = reals_blank(k, kept), dx = reals_random(k, all, -1, 1),
          dw = reals_random(k, p.w.n, -1, 1), db = reals_random(k, s->channels, -1, 1),
          dt = reals_random(k, kept, -1, 1);
    ints length = ints_random(k, s->batch, 0, s->n + 1);
    double *wy = wanted(k, all), *wn = wanted(k, kept), *wx = wanted_from(k, dx, 1),
           *ww = wanted_from(k, dw, 1), *wb = wanted_from(k, db, 1), *wt = wanted_from(k, dt, 1);
    const float *bias = s->bias ? p.bias.d : NULL, *tail = s->tail ? p.tail.d : NULL;
    for (int64_t i = 0; k->check && i < all; i++) {
        int64_t ch = i % s->channels, t = i / s->channels % s->n, b = i / s->channels / s->n;
        double z = s->bias ? (double)p.bias.h[ch] : 0;
        for (int64_t j = 0; j < c; j++)
            z += (double)p.w.h[ch * c + j] * conv_x(s, &p, b, t - (c - 1) + j, ch);
        double sig = 1 / (1 + exp(-z)),
               dz = (double)p.dy.h[i] * (s->silu ? sig * (1 + z * (1 - sig)) : 1);
        wy[i] = s->silu ? z * sig : z;
        wb[ch] += dz;
        for (int64_t j = 0; j < c; j++) {
            ww[ch * c + j] += dz * conv_x(s, &p, b, t - (c - 1) + j, ch);
            conv_add(s, wx, wt, b, t - (c - 1) + j, ch, dz * (double)p.w.h[ch * c + j]);
        }
    }
    for (int64_t i = 0; i < kept; i++) {
        int64_t ch = i % s->channels, j = i / s->channels % (c - 1), b = i / s->channels / (c - 1);
        wn[i] = conv_x(s, &p, b, length.h[b] - (c - 1) + j, ch);
    }
    k->be->conv1d(k->d, s->silu, s->batch, s->n, s->channels, c, p.x.d, p.w.d, bias, tail, y.d);
    k->be->conv1d_tail(k->d, s->batch, s->n, s->channels, c, p.x.d, tail, length.d, next.d);
    k->be->conv1d_back(k->d, s->silu, s->batch, s->n, s->channels, c, p.x.d, p.w.d, bias, tail,
                       p.dy.d, dx.d, dw.d, db.d, s->tail ? dt.d : NULL);
    result(k, "conv1d", y, wy, 2e-6);
    result(k, "conv1d_tail", next, wn, 0);
    result(k, "conv1d_back: dx", dx, wx, 2e-6);
    result(k, "conv1d_back: dw", dw, ww, 5e-6);
    result(k, "conv1d_back: dbias", db, wb, 5e-6);
    if (s->tail) result(k, "conv1d_back: dtail", dt, wt, 2e-6);
}

void case_conv1d(kernels *k)
{
    for (size_t i = 0; i < sizeof convs / sizeof *convs; i++) conv_run(k, &convs[i]);
}

/* ---- linear recurrences ---- */
typedef enum { PLAIN, DELTA, PAIRS, BEFORE } recurrence_rule;
typedef struct {
    int64_t batch, n, heads, dk, dv, q_heads, k_heads, v_heads, g_heads;
    nsmi_fade fade;
    bool constant, state, length;
    recurrence_rule rule;
    double low, high; /* of the log decays */
} recurrence_shape;

static const recurrence_shape recurrences[] = {
    { 1, 1, 1, 1, 1, 1, 1, 1, 1, NSMI_FADE_NONE, false, true, false, PLAIN, 0, 0 },
    { 2, 65, 4, 20, 17, 4, 2, 1, 1, NSMI_FADE_NONE, false, true, true, PLAIN, 0, 0 },
    { 1, 200, 2, 64, 64, 2, 2, 2, 2, NSMI_FADE_SCALAR, false, true, false, PLAIN, -0.2, 0 },
    { 1, 130, 2, 33, 20, 1, 1, 2, 2, NSMI_FADE_SCALAR, true, false, false, PLAIN, -1e-6, 0 },
    { 3, 150, 6, 20, 40, 2, 2, 3, 6, NSMI_FADE_SCALAR, false, true, true, PLAIN, -1, 0 },
    { 2, 131, 2, 64, 40, 2, 2, 2, 2, NSMI_FADE_KEYS, false, true, true, PLAIN, -3, 0 },
    { 1, 129, 1, 20, 20, 1, 1, 1, 1, NSMI_FADE_KEYS, false, true, false, PLAIN, -300, -60 },
    { 1, 100, 2, 20, 35, 2, 2, 1, 1, NSMI_FADE_VALUES, false, true, false, PLAIN, -2, 0 },
    { 2, 130, 2, 32, 48, 1, 1, 2, 2, NSMI_FADE_SCALAR, false, true, true, DELTA, -0.3, 0 },
    { 1, 64, 1, 8, 8, 1, 1, 1, 1, NSMI_FADE_NONE, false, false, false, DELTA, 0, 0 },
    { 1, 140, 2, 16, 24, 2, 2, 2, 2, NSMI_FADE_KEYS, false, true, false, PAIRS, -1, 0 },
    { 1, 140, 2, 16, 24, 2, 2, 2, 2, NSMI_FADE_KEYS, false, true, false, BEFORE, -90, 0 },
    { 1, 3, 2, 40, 24, 2, 2, 2, 2, NSMI_FADE_KEYS, true, true, false, BEFORE, -1, 0 },
    { 1, 3, 2, 40, 24, 2, 2, 2, 2, NSMI_FADE_SCALAR, false, true, false, DELTA, -1, 0 },
    { 1, 2, 2, 40, 24, 2, 2, 2, 2, NSMI_FADE_KEYS, false, true, false, PAIRS, -1, 0 },
};

typedef struct {
    reals q, k, v, g, beta, a, b, bonus, s0;
    ints length;
    nsmi_recurrence r;
    nsmi_recurrence_values in;
} recurrence_problem;

static recurrence_problem recurrence_new(kernels *k, const recurrence_shape *s)
{
    int64_t rows = s->batch * s->n, tokens = s->constant ? 1 : rows,
            by = s->fade == NSMI_FADE_KEYS     ? s->dk
                 : s->fade == NSMI_FADE_VALUES ? s->dv
                                               : 1;
    /* keys about as long as 1: the delta rule stays bounded */
    double unit = 1 / sqrt((double)s->dk);
    recurrence_problem p = { reals_random(k, rows * s->q_heads * s->dk, -1, 1),
                             reals_random(k, rows * s->k_heads * s->dk, -unit, unit),
                             reals_random(k, rows * s->v_heads * s->dv, -1, 1),
                             reals_random(k, tokens * s->g_heads * by, s->low, s->high),
                             reals_random(k, rows * s->heads, 0, 1),
                             reals_random(k, rows * s->heads * s->dk, -unit, unit),
                             reals_random(k, rows * s->heads * s->dk, -unit, unit),
                             reals_random(k, s->heads * s->dk, -1, 1),
                             reals_random(k, s->batch * s->heads * s->dk * s->dv, -1, 1),
                             ints_random(k, s->batch, 0, s->n + 1),
                             { s->batch, s->n, s->heads, s->dk, s->dv, s->q_heads, s->k_heads,
                               s->v_heads, s->g_heads, s->fade, s->constant, s->rule == BEFORE,
                               0.5f, NULL },
                             { 0 } };
    p.r.length = s->length ? p.length.d : NULL;
    p.in = (nsmi_recurrence_values){ p.q.d,
                                     p.k.d,
                                     p.v.d,
                                     s->fade ? p.g.d : NULL,
                                     s->rule == DELTA ? p.beta.d : NULL,
                                     s->rule == PAIRS ? p.a.d : NULL,
                                     s->rule == PAIRS ? p.b.d : NULL,
                                     s->rule == BEFORE ? p.bonus.d : NULL,
                                     s->state ? p.s0.d : NULL };
    return p;
}

/* The decay of S's entry (d, e) at a token. */
static double recurrence_decay(const recurrence_shape *s, const recurrence_problem *p, int64_t row,
                               int64_t h, int64_t d, int64_t e)
{
    int64_t at = (s->constant ? 0 : row) * s->g_heads + h * s->g_heads / s->heads;
    if (s->fade == NSMI_FADE_NONE) return 1;
    return exp((double)p->g.h[s->fade == NSMI_FADE_KEYS     ? at * s->dk + d
                              : s->fade == NSMI_FADE_VALUES ? at * s->dv + e
                                                            : at]);
}

/* One token of one head: S [D, E] goes on, o [E]. */
static void recurrence_token(const recurrence_shape *s, const recurrence_problem *p, int64_t row,
                             int64_t h, double *state, double *o)
{
    const float *q = p->q.h + (row * s->q_heads + h * s->q_heads / s->heads) * s->dk,
                *k = p->k.h + (row * s->k_heads + h * s->k_heads / s->heads) * s->dk;
    const float *v = p->v.h + (row * s->v_heads + h * s->v_heads / s->heads) * s->dv,
                *a = p->a.h + (row * s->heads + h) * s->dk;
    const float *b = p->b.h + (row * s->heads + h) * s->dk, *u = p->bonus.h + h * s->dk;
    for (int64_t e = 0; e < s->dv; e++) {
        double read = 0, beta = (double)p->beta.h[row * s->heads + h], sum = 0;
        for (int64_t d = 0; d < s->dk; d++) {
            double was = state[d * s->dv + e], faded = was * recurrence_decay(s, p, row, h, d, e);
            if (s->rule == BEFORE)
                sum += (double)q[d] * (was + (double)u[d] * (double)k[d] * (double)v[e]);
            read += s->rule == PAIRS   ? (double)a[d] * was
                    : s->rule == DELTA ? (double)k[d] * faded
                                       : 0;
            state[d * s->dv + e] = faded;
        }
        double add = s->rule == DELTA ? beta * ((double)v[e] - read) : (double)v[e];
        for (int64_t d = 0; d < s->dk; d++) {
            double *to = &state[d * s->dv + e];
            *to += (double)k[d] * add + (s->rule == PAIRS ? (double)b[d] * read : 0);
            if (s->rule != BEFORE) sum += (double)q[d] * *to;
        }
        o[e] = 0.5 * sum;
    }
}

/* Every gradient must be a number, and the same for any number of threads; test_ops holds them to
 * difference quotients. */
static void all_finite(kernels *k, const char *what, const reals *x, int count)
{
    for (int i = 0; i < count; i++) {
        result_digest(k, x[i]);
        /* trouble: no such kernel, told at the end */
        for (int64_t j = 0; !k->d->trouble && j < x[i].n; j++)
            if (!isfinite(x[i].h[j])) ck_abort_msg("%s: gradient %d is not finite", what, i);
    }
}

static void recurrence_back(kernels *k, const recurrence_shape *s, const recurrence_problem *p,
                            reals states)
{
    int64_t rows = s->batch * s->n, by = s->fade == NSMI_FADE_KEYS     ? s->dk
                                         : s->fade == NSMI_FADE_VALUES ? s->dv
                                                                       : 1;
    reals dout = reals_random(k, rows * s->heads * s->dv, -1, 1),
          ds1 = reals_random(k, p->s0.n, -1, 1);
    reals to[9];
    const int64_t count[9] = { rows * s->heads * s->dk,
                               rows * s->heads * s->dk,
                               rows * s->heads * s->dv,
                               rows * s->heads * by,
                               rows * s->heads,
                               rows * s->heads * s->dk,
                               rows * s->heads * s->dk,
                               s->batch * s->heads * s->dk,
                               p->s0.n };
    for (int i = 0; i < 9; i++) to[i] = reals_random(k, count[i], -1, 1);
    nsmi_recurrence_grads g = { to[0].d, to[1].d, to[2].d, s->fade ? to[3].d : NULL,
                                to[4].d, to[5].d, to[6].d, to[7].d,
                                to[8].d };
    k->be->recurrence_back(k->d, &p->r, &p->in, states.d, dout.d, ds1.d, &g);
    all_finite(k, "recurrence_back", to, 9);
}

static void recurrence_run(kernels *k, const recurrence_shape *s)
{
    recurrence_problem p = recurrence_new(k, s);
    int64_t rows = s->batch * s->n, size = s->dk * s->dv,
            chunks = (s->n + NSMI_CHUNK - 1) / NSMI_CHUNK;
    reals o = reals_blank(k, rows * s->heads * s->dv), s1 = reals_blank(k, p.s0.n),
          states = reals_blank(k, s->batch * s->heads * (chunks + 1) * size);
    double *wo = wanted(k, o.n), *ws = s->state ? wanted_from(k, p.s0, 1) : wanted(k, s1.n);
    for (int64_t i = 0; i < s->batch * s->heads; i++) {
        int64_t b = i / s->heads, h = i % s->heads, n = s->length ? p.length.h[b] : s->n;
        for (int64_t t = 0; t < n; t++)
            recurrence_token(s, &p, b * s->n + t, h, ws + i * size,
                             wo + ((b * s->n + t) * s->heads + h) * s->dv);
    }
    k->be->recurrence(k->d, &p.r, &p.in, o.d, s1.d, NULL);
    result(k, "recurrence", o, wo, 1e-5);
    result(k, "recurrence: state", s1, ws, 1e-5);
    k->be->recurrence(k->d, &p.r, &p.in, o.d, s1.d, states.d);
    result(k, "recurrence, states kept", o, wo, 1e-5);
    result(k, "recurrence: last state", s1, ws, 1e-5);
    recurrence_back(k, s, &p, states);
}

void case_linear_recurrence(kernels *k)
{
    for (size_t i = 0; i < sizeof recurrences / sizeof *recurrences; i++)
        recurrence_run(k, &recurrences[i]);
}

/* ---- scans by channel ---- */
typedef struct {
    int64_t batch, n, channels, states, groups;
    bool softplus, fixed, gate, state, length;
    double slow;
} scan_shape;

static const scan_shape scans[] = {
    { 1, 1, 1, 1, 1, false, false, false, true, false, 1 },
    { 2, 65, 34, 5, 2, true, false, true, true, true, 1 },
    { 1, 130, 200, 16, 1, true, false, true, true, false, 1 },
    { 2, 64, 17, 3, 1, true, true, false, false, true, 1 },
    { 1, 300, 20, 4, 1, false, false, true, true, false, 1e-6 },
    { 1, 70, 20, 4, 1, false, false, true, true, false, 90 },
};

typedef struct {
    reals u, dt, a, b, c, skip, bias, z, s0;
    ints length;
    nsmi_scan s;
    nsmi_scan_values in;
} scan_problem;

static scan_problem scan_new(kernels *k, const scan_shape *s)
{
    int64_t all = s->batch * s->n * s->channels, size = s->channels * s->states;
    int64_t shared = s->fixed ? size : s->batch * s->n * s->groups * s->states;
    scan_problem p = { reals_random(k, all, -1, 1),
                       reals_random(k, all, s->softplus ? -2 : 0.01, 1),
                       reals_random(k, size, -2 * s->slow, -0.1 * s->slow),
                       reals_random(k, shared, -1, 1),
                       reals_random(k, shared, -1, 1),
                       reals_random(k, s->channels, -1, 1),
                       reals_random(k, s->channels, -0.01, 0.01),
                       reals_random(k, all, -2, 2),
                       reals_random(k, s->batch * size, -1, 1),
                       ints_random(k, s->batch, 0, s->n + 1),
                       { s->batch, s->n, s->channels, s->states, s->groups, s->softplus, s->fixed,
                         NULL },
                       { 0 } };
    p.s.length = s->length ? p.length.d : NULL;
    p.in = (nsmi_scan_values){ p.u.d,
                               p.dt.d,
                               p.a.d,
                               p.b.d,
                               p.c.d,
                               p.skip.d,
                               p.bias.d,
                               s->gate ? p.z.d : NULL,
                               s->state ? p.s0.d : NULL };
    return p;
}

/* One channel of one row in turn. */
static void scan_channel(const scan_shape *s, const scan_problem *p, int64_t b, int64_t d,
                         double *state, double *y)
{
    int64_t n = s->length ? p->length.h[b] : s->n, g = d / (s->channels / s->groups);
    for (int64_t t = 0; t < n; t++) {
        int64_t at = (b * s->n + t) * s->channels + d,
                row = s->fixed ? d * s->states : ((b * s->n + t) * s->groups + g) * s->states;
        double dt = (double)p->dt.h[at] + (double)p->bias.h[d], u = (double)p->u.h[at],
               sum = (double)p->skip.h[d] * u;
        if (s->softplus) dt = log1p(exp(dt));
        for (int64_t i = 0; i < s->states; i++) {
            state[i] = exp(dt * (double)p->a.h[d * s->states + i]) * state[i] +
                       dt * (double)p->b.h[row + i] * u;
            sum += state[i] * (double)p->c.h[row + i];
        }
        double z = (double)p->z.h[at];
        y[at] = s->gate ? sum * z / (1 + exp(-z)) : sum;
    }
}

static void scan_run(kernels *k, const scan_shape *s)
{
    scan_problem p = scan_new(k, s);
    int64_t all = p.u.n, size = s->channels * s->states,
            chunks = (s->n + NSMI_CHUNK - 1) / NSMI_CHUNK;
    reals y = reals_blank(k, all), s1 = reals_blank(k, p.s0.n),
          states = reals_blank(k, s->batch * chunks * size), ds1 = reals_random(k, p.s0.n, -1, 1);
    reals dout = reals_random(k, all, -1, 1), scratch = reals_blank(k, nsmi_scan_scratch(&p.s));
    double *wy = wanted(k, all), *ws = s->state ? wanted_from(k, p.s0, 1) : wanted(k, s1.n);
    for (int64_t i = 0; i < s->batch * s->channels; i++)
        scan_channel(s, &p, i / s->channels, i % s->channels, ws + i * s->states, wy);
    k->be->scan(k->d, &p.s, &p.in, y.d, s1.d, NULL);
    result(k, "scan", y, wy, 1e-5);
    result(k, "scan: state", s1, ws, 1e-5);
    k->be->scan(k->d, &p.s, &p.in, y.d, s1.d, states.d);
    result(k, "scan, states kept", y, wy, 1e-5);
    int64_t rows = s->batch * size, by_row = s->fixed ? s->batch : 1;
    reals g[9] = { reals_random(k, all, -1, 1),
                   reals_random(k, all, -1, 1),
                   reals_blank(k, rows),
                   reals_random(k, by_row * p.b.n, -1, 1),
                   reals_random(k, by_row * p.c.n, -1, 1),
                   reals_blank(k, s->batch * s->channels),
                   reals_blank(k, s->batch * s->channels),
                   reals_random(k, all, -1, 1),
                   reals_random(k, rows, -1, 1) };
    k->be->scan_back(k->d, &p.s, &p.in, states.d, dout.d, ds1.d, scratch.d,
                     &(nsmi_scan_grads){ g[0].d, g[1].d, g[2].d, g[3].d, g[4].d, g[5].d, g[6].d,
                                         s->gate ? g[7].d : NULL, g[8].d });
    all_finite(k, "scan_back", g, 9);
}

void case_scan(kernels *k)
{
    for (size_t i = 0; i < sizeof scans / sizeof *scans; i++) scan_run(k, &scans[i]);
}

/* RWKV-4's sum, over keys that overflow without the running maximum. */
static void wkv_run(kernels *k, int64_t batch, int64_t n, int64_t channels, double large)
{
    int64_t all = batch * n * channels, chunks = (n + NSMI_CHUNK - 1) / NSMI_CHUNK;
    reals w = reals_random(k, channels, -3, 0), u = reals_random(k, channels, -1, 1),
          key = reals_random(k, all, -large, large);
    reals v = reals_random(k, all, -1, 1), s0 = reals_random(k, batch * 3 * channels, 0.1, 1),
          y = reals_blank(k, all), s1 = reals_blank(k, s0.n);
    reals states = reals_blank(k, batch * chunks * 3 * channels),
          dout = reals_random(k, all, -1, 1);
    ints length = ints_random(k, batch, 0, n + 1);
    double *want = wanted(k, all);
    for (int64_t i = 0; i < batch * channels; i++) {
        int64_t b = i / channels, c = i % channels;
        double num = (double)s0.h[(b * 3) * channels + c],
               den = (double)s0.h[(b * 3 + 1) * channels + c],
               top = (double)s0.h[(b * 3 + 2) * channels + c];
        for (int64_t t = 0; t < length.h[b]; t++) {
            int64_t at = (b * n + t) * channels + c;
            double kt = (double)key.h[at], vt = (double)v.h[at], own = kt + (double)u.h[c],
                   p = fmax(top, own), next = fmax(top + (double)w.h[c], kt);
            want[at] = (exp(top - p) * num + exp(own - p) * vt) /
                       (exp(top - p) * den + exp(own - p));
            num = exp(top + (double)w.h[c] - next) * num + exp(kt - next) * vt;
            den = exp(top + (double)w.h[c] - next) * den + exp(kt - next);
            top = next;
        }
    }
    k->be->wkv(k->d, batch, n, channels, length.d, w.d, u.d, key.d, v.d, s0.d, y.d, s1.d, NULL);
    result(k, "wkv", y, want, 1e-5);
    k->be->wkv(k->d, batch, n, channels, length.d, w.d, u.d, key.d, v.d, s0.d, y.d, s1.d, states.d);
    result(k, "wkv, states kept", y, want, 1e-5);
    result_digest(k, s1);
    reals g[5] = { reals_blank(k, batch * channels), reals_blank(k, batch * channels),
                   reals_random(k, all, -1, 1), reals_random(k, all, -1, 1),
                   reals_random(k, s0.n, -1, 1) };
    k->be->wkv_back(k->d, batch, n, channels, length.d, w.d, u.d, key.d, v.d, states.d, dout.d,
                    g[0].d, g[1].d, g[2].d, g[3].d, g[4].d);
    all_finite(k, "wkv_back", g, 5);
}

void case_wkv(kernels *k)
{
    wkv_run(k, 1, 1, 1, 1);
    wkv_run(k, 3, 65, 17, 3);
    wkv_run(k, 2, 300, 40, 200);
}
