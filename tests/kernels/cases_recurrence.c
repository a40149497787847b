/* tests/kernels/cases_recurrence.c - Kernels that carry a state along a sequence, against plain loops in double. */
#include "config.h"
#include "tests/kernels/cases.h"

/* ---- the causal convolution ---- */
typedef struct {
    int64_t batch, n, channels, taps;
    bool silu, bias, tail;
} conv_shape;

static const conv_shape convs[] = {
    { 1, 1, 1, 1, false, false, false }, { 2, 1, 17, 4, true, true, true },    { 3, 2, 5, 4, true, false, false },
    { 1, 63, 64, 4, true, true, true },  { 1, 64, 80, 3, false, true, false }, { 2, 65, 131, 4, true, true, true },
    { 1, 300, 20, 32, true, true, true }, { 2, 1000, 33, 4, true, true, false },
};

typedef struct { reals x, w, bias, tail, dy; } conv_problem;

static double conv_x(const conv_shape *s, const conv_problem *p, int64_t b, int64_t t, int64_t ch)
{
    if (t >= 0) return (double)p->x.h[(b * s->n + t) * s->channels + ch];
    return s->tail ? (double)p->tail.h[(b * (s->taps - 1) + s->taps - 1 + t) * s->channels + ch] : 0;
}

static void conv_add(const conv_shape *s, double *dx, double *dtail, int64_t b, int64_t t, int64_t ch, double add)
{
    if (t >= 0) dx[(b * s->n + t) * s->channels + ch] += add;
    else dtail[(b * (s->taps - 1) + s->taps - 1 + t) * s->channels + ch] += add;
}

static void conv_run(kernels *k, const conv_shape *s)
{
    const int64_t c = s->taps, all = s->batch * s->n * s->channels, kept = s->batch * (c - 1) * s->channels;
    conv_problem p = { reals_random(k, all, -1, 1), reals_random(k, s->channels * c, -1, 1), reals_random(k, s->channels, -1, 1),
                       reals_random(k, kept, -1, 1), reals_random(k, all, -1, 1) };
    reals y = reals_blank(k, all), next = reals_blank(k, kept), dx = reals_random(k, all, -1, 1), dw = reals_random(k, p.w.n, -1, 1),
          db = reals_random(k, s->channels, -1, 1), dt = reals_random(k, kept, -1, 1);
    ints length = ints_random(k, s->batch, 0, s->n + 1);
    double *wy = wanted(k, all), *wn = wanted(k, kept), *wx = wanted_from(k, dx, 1), *ww = wanted_from(k, dw, 1), *wb = wanted_from(k, db, 1),
           *wt = wanted_from(k, dt, 1);
    const float *bias = s->bias ? p.bias.d : NULL, *tail = s->tail ? p.tail.d : NULL;
    for (int64_t i = 0; k->check && i < all; i++) {
        int64_t ch = i % s->channels, t = i / s->channels % s->n, b = i / s->channels / s->n;
        double z = s->bias ? (double)p.bias.h[ch] : 0;
        for (int64_t j = 0; j < c; j++) z += (double)p.w.h[ch * c + j] * conv_x(s, &p, b, t - (c - 1) + j, ch);
        double sig = 1 / (1 + exp(-z)), dz = (double)p.dy.h[i] * (s->silu ? sig * (1 + z * (1 - sig)) : 1);
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
    k->be->conv1d_back(k->d, s->silu, s->batch, s->n, s->channels, c, p.x.d, p.w.d, bias, tail, p.dy.d, dx.d, dw.d, db.d,
                       s->tail ? dt.d : NULL);
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
