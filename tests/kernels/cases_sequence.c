/* tests/kernels/cases_sequence.c - Attention on sequences, rotation by position, recurrent layers,
 * against plain loops in double. */
#include "config.h"
#include "tests/kernels/cases.h"

typedef struct {
    int64_t batch, n, m, heads, groups, dk, dv;
    bool causal;
    int64_t window, offset;
    bool keys, offsets; /* given by row */
    int bias;           /* 1 by head and key, 2 by query, too */
} shape;

static const shape shapes[] = {
    { 1, 1, 1, 1, 1, 1, 1, false, 0, 0, false, false, 0 },
    { 2, 5, 7, 2, 1, 3, 4, true, 0, 2, true, false, 1 },
    { 1, 3, 300, 4, 2, 20, 17, true, 0, 297, false, false, 1 },      /* few queries */
    { 3, 1, 40, 2, 2, 16, 16, true, 9, 0, true, true, 0 },
    { 1, 16, 3, 1, 1, 3, 20, false, 0, 0, false, false, 0 },         /* a tile, mostly empty */
    { 1, 64, 64, 2, 1, 32, 32, true, 0, 0, false, false, 2 },        /* and full */
    { 2, 40, 45, 1, 1, 20, 3, true, 0, -25, true, false, 2 },        /* some see no key */
    { 1, 100, 100, 2, 2, 64, 64, true, 0, 0, false, false, 0 },      /* several blocks */
    { 1, 150, 140, 1, 1, 64, 20, false, 20, 0, false, false, 0 },    /* tiles behind and ahead */
    { 1, 130, 200, 2, 1, 128, 128, true, 0, 65, true, false, 0 },
    { 1, 66, 131, 2, 2, 70, 128, true, 90, 60, false, false, 2 },
    { 2, 203, 397, 4, 2, 33, 48, false, 0, 0, true, false, 1 },
    { 2, 203, 397, 4, 1, 33, 48, true, 50, 190, true, true, 0 },
    { 1, 420, 420, 1, 1, 8, 100, true, 130, 0, false, false, 0 },
    { 1, 130, 210, 1, 1, 600, 1030, true, 0, 80, false, false, 0 },  /* smaller blocks */
};
enum { SHAPES = sizeof shapes / sizeof shapes[0], ROUNDED_FROM = 4, ROUNDED_TO = 11 };

typedef struct {
    nsmi_attention a;
    reals q, k, v, dy, bias, y, lse, scratch;
    ints keys, offsets;
} problem;

/* q, k, v stand side by side with a gap behind each, as a packed projection has them. */
static problem problem_new(kernels *k, const shape *s)
{
    problem p = { .a = { .batch = s->batch,
                         .n = s->n,
                         .m = s->m,
                         .heads = s->heads,
                         .groups = s->groups,
                         .dk = s->dk,
                         .dv = s->dv,
                         .scale = 0.8f / sqrtf((float)s->dk),
                         .causal = s->causal,
                         .window = s->window,
                         .offset = s->offset } };
    int64_t q = s->heads * s->dk + 3, key = s->groups * s->dk, v = s->groups * s->dv + 5;
    memcpy(p.a.q, (int64_t[3]){ s->n * q, q, s->dk }, sizeof p.a.q);
    memcpy(p.a.k, (int64_t[3]){ s->m * key, key, s->dk }, sizeof p.a.k);
    memcpy(p.a.v, (int64_t[3]){ s->m * v, v, s->dv }, sizeof p.a.v);
    p.q = reals_random(k, s->batch * s->n * q, -2, 2);
    p.k = reals_random(k, s->batch * s->m * key, -2, 2);
    p.v = reals_random(k, s->batch * s->m * v, -1, 1);
    p.dy = reals_random(k, s->batch * s->n * s->heads * s->dv, -1, 1);
    p.bias = reals_random(k, s->heads * (s->bias == 2 ? s->n : 1) * s->m, -1, 1);
    p.keys = ints_random(k, s->batch, s->m / 2, s->m + 1);
    p.offsets = ints_random(k, s->batch, -2, s->m);
    for (int64_t i = 0; i < p.bias.n; i += 5) p.bias.h[i] = -INFINITY;
    reals_up(k, p.bias);
    if (s->keys) p.a.keys = p.keys.d;
    if (s->offsets) p.a.offsets = p.offsets.d;
    if (s->bias) {
        p.a.bias = p.bias.d;
        p.a.bias_stride[1] = s->bias == 2 ? s->n * s->m : s->m;
        p.a.bias_stride[2] = s->bias == 2 ? s->m : 0;
        p.a.bias_stride[3] = 1;
    }
    p.y = reals_blank(k, p.dy.n);
    p.lse = reals_blank(k, s->batch * s->heads * s->n);
    p.scratch = reals_blank(k, nsmi_attention_scratch(&p.a, true) +
                                   nsmi_attention_scratch(&p.a, false));
    return p;
}

/* The softmax of one query over all keys, 0 where not seen; its lse. */
static double weights_of(const problem *p, const shape *s, int64_t b, int64_t h, int64_t i,
                         double *w)
{
    const float *q = p->q.h + b * p->a.q[0] + i * p->a.q[1] + h * p->a.q[2];
    int64_t keys = s->keys ? p->keys.h[b] : s->m,
            at = i + (s->offsets ? p->offsets.h[b] : s->offset), g = h / (s->heads / s->groups);
    double top = -INFINITY, sum = 0;
    for (int64_t j = 0; j < s->m; j++) {
        const float *key = p->k.h + b * p->a.k[0] + j * p->a.k[1] + g * p->a.k[2];
        bool seen = j < keys && (!s->causal || j <= at) && (!s->window || j > at - s->window);
        w[j] = s->bias ? (double)p->bias.h[h * p->a.bias_stride[1] + i * p->a.bias_stride[2] + j]
                       : 0;
        for (int64_t e = 0; e < s->dk; e++)
            w[j] += (double)p->a.scale * (double)q[e] * (double)key[e];
        if (!seen) w[j] = -INFINITY;
        if (w[j] > top) top = w[j];
    }
    for (int64_t j = 0; j < s->m; j++) sum += w[j] = isinf(w[j]) ? 0 : exp(w[j] - top);
    for (int64_t j = 0; j < s->m && sum > 0; j++) w[j] /= sum;
    return sum > 0 ? top + log(sum) : 0;
}

/* What may be lost where products read rounded operands: TF32 has 11 bits, bf16 8. */
static double within(const kernels *k, double float32)
{
    static const double times[] = { 1, 300, 2400 };
    return float32 * times[k->d->precision];
}

static void forward(kernels *k, const problem *p, const shape *s)
{
    double *y = wanted(k, p->y.n), *lse = wanted(k, p->lse.n), *w = wanted(k, s->m);
    for (int64_t r = 0; r < p->lse.n; r++) {
        int64_t i = r % s->n, h = r / s->n % s->heads, b = r / s->n / s->heads,
                g = h / (s->heads / s->groups);
        lse[r] = weights_of(p, s, b, h, i, w);
        for (int64_t j = 0; j < s->m; j++)
            for (int64_t e = 0; e < s->dv && w[j] > 0; e++)
                y[((b * s->n + i) * s->heads + h) * s->dv + e] +=
                    w[j] * (double)p->v.h[b * p->a.v[0] + j * p->a.v[1] + g * p->a.v[2] + e];
    }
    k->be->attention(k->d, &p->a, p->q.d, p->k.d, p->v.d, p->scratch.d, p->y.d, p->lse.d);
    result(k, "attention", p->y, y, within(k, 3e-6));
    result(k, "attention: lse", p->lse, lse, within(k, 3e-6));
}

static void backward(kernels *k, const problem *p, const shape *s, float beta)
{
    reals dq = reals_random(k, p->q.n, -1, 1), dk = reals_random(k, p->k.n, -1, 1),
          dv = reals_random(k, p->v.n, -1, 1);
    reals ds = reals_blank(k, s->batch * s->heads * s->n * s->m);
    double *wq = wanted_from(k, dq, 1), *wk = wanted_from(k, dk, 1), *wv = wanted_from(k, dv, 1),
           *ws = wanted(k, ds.n), *w = wanted(k, s->m);
    for (int64_t r = 0; r < p->lse.n; r++) { /* what the gradients replace or are added to */
        int64_t i = r % s->n, h = r / s->n % s->heads, b = r / s->n / s->heads;
        for (int64_t e = 0; e < s->dk; e++)
            wq[b * p->a.q[0] + i * p->a.q[1] + h * p->a.q[2] + e] *= (double)beta;
    }
    for (int64_t r = 0; r < s->batch * s->m * s->groups; r++) {
        int64_t g = r % s->groups, j = r / s->groups % s->m, b = r / s->groups / s->m;
        for (int64_t e = 0; e < s->dk; e++)
            wk[b * p->a.k[0] + j * p->a.k[1] + g * p->a.k[2] + e] *= (double)beta;
        for (int64_t e = 0; e < s->dv; e++)
            wv[b * p->a.v[0] + j * p->a.v[1] + g * p->a.v[2] + e] *= (double)beta;
    }
    for (int64_t r = 0; r < p->lse.n; r++) {
        int64_t i = r % s->n, h = r / s->n % s->heads, b = r / s->n / s->heads,
                g = h / (s->heads / s->groups);
        int64_t q = b * p->a.q[0] + i * p->a.q[1] + h * p->a.q[2];
        const float *dy = p->dy.h + ((b * s->n + i) * s->heads + h) * s->dv;
        double delta = 0;
        weights_of(p, s, b, h, i, w);
        for (int64_t j = 0; j < s->m; j++) {
            int64_t v = b * p->a.v[0] + j * p->a.v[1] + g * p->a.v[2];
            double dp = 0;
            for (int64_t e = 0; e < s->dv && w[j] > 0; e++) {
                dp += (double)dy[e] * (double)p->v.h[v + e];
                wv[v + e] += w[j] * (double)dy[e];
            }
            ws[r * s->m + j] = w[j] * dp;
            delta += w[j] * dp;
        }
        for (int64_t j = 0; j < s->m; j++) {
            int64_t key = b * p->a.k[0] + j * p->a.k[1] + g * p->a.k[2];
            double d = ws[r * s->m + j] -= w[j] * delta;
            for (int64_t e = 0; e < s->dk && w[j] > 0; e++) {
                wq[q + e] += d * (double)p->a.scale * (double)p->k.h[key + e];
                wk[key + e] += d * (double)p->a.scale * (double)p->q.h[q + e];
            }
        }
    }
    k->be->attention_back(k->d, &p->a, p->q.d, p->k.d, p->v.d, p->y.d, p->lse.d, p->dy.d,
                          p->scratch.d, (float[]){ beta, beta, beta }, dq.d, dk.d, dv.d,
                          beta != 0 ? ds.d : NULL);
    result(k, "attention_back: dq", dq, wq, within(k, 1e-5));
    result(k, "attention_back: dk", dk, wk, within(k, 1e-5));
    result(k, "attention_back: dv", dv, wv, within(k, 1e-5));
    if (beta != 0) result(k, "attention_back: ds", ds, ws, within(k, 1e-5));
}

void case_attention(kernels *k)
{
    for (int i = 0; i < SHAPES; i++) {
        problem p = problem_new(k, &shapes[i]);
        forward(k, &p, &shapes[i]);
        backward(k, &p, &shapes[i], 0);
        backward(k, &p, &shapes[i], 0.5f);
    }
    for (int how = NSM_PRECISION_FLOAT32 + 1; k->be->precisions && how < NSM_PRECISION_KINDS;
         how++) {
        k->d->precision = (nsm_precision)how;
        for (int i = ROUNDED_FROM; i < ROUNDED_TO; i++) {
            problem p = problem_new(k, &shapes[i]);
            forward(k, &p, &shapes[i]);
            backward(k, &p, &shapes[i], 0.5f);
        }
    }
    k->d->precision = NSM_PRECISION_FLOAT32;
}

static void rotate(kernels *k, int64_t batch, int64_t n, int64_t cols, int64_t heads, int64_t size,
                   int64_t pairs, int options)
{
    bool side = options & 1, by_row = options & 2, adds = options & 4;
    double base = side ? 50 : 10000, sign = adds ? -1 : 1;
    reals x = reals_random(k, batch * n * cols, -1, 1),
          y = adds ? reals_random(k, x.n, -1, 1) : reals_blank(k, x.n);
    ints offsets = ints_random(k, batch, 0, 100000);
    double *want = wanted_from(k, y, adds ? 0.5 : 0);
    for (int64_t i = 0; i < x.n; i++) {
        int64_t c = i % cols, t = i / cols % n, b = i / cols / n, in_head = c % size;
        bool turns = c < heads * size && in_head < 2 * pairs;
        int64_t pair = side ? in_head / 2 : in_head % pairs, other = side ? 1 - 2 * (in_head % 2)
                                                                     : in_head < pairs ? pairs
                                                                                       : -pairs;
        double angle = sign * (double)(t + (by_row ? offsets.h[b] : 17)) *
                       pow(base, -(double)pair / (double)pairs);
        want[i] += turns ? (double)x.h[i] * cos(angle) -
                               (double)x.h[i + other] * sin(angle) * (other > 0 ? 1 : -1)
                         : (double)x.h[i];
    }
    k->be->rotate(k->d, batch, n, cols, heads, size, pairs, side, base, 17,
                  by_row ? offsets.d : NULL, (float)sign, x.d, adds ? 0.5f : 0, y.d);
    result(k, "rotate", y, want, 2e-6);
}

void case_rotate(kernels *k)
{
    for (int options = 0; options < 8; options++) {
        rotate(k, 1, 1, 2, 1, 2, 1, options);
        rotate(k, 3, 40, 70, 3, 21, 9, options);
        rotate(k, 2, 5, 1300, 1, 1300, 600, options);
    }
}

/* ---- recurrent layers ---- */
typedef struct {
    nsmi_rnn a;
    reals gx, w, bias, h0, c0, scratch, y, gates, c, hn, cn, dy, dhn, dcn, dg, dgh, before, dh0,
        dc0;
    ints length;
} layer;

static layer layer_new(kernels *k, bool gru, int64_t batch, int64_t n, int64_t h, int options)
{
    layer l = { .a = { gru, options & 1, batch, n, h, NULL } };
    int64_t g = gru ? 3 : 4, all = batch * n * h, rows = batch * h;
    l.gx = reals_random(k, all * g, -2, 2);
    l.w = reals_random(k, g * h * h, -1, 1);
    l.bias = reals_random(k, h, -1, 1);
    l.h0 = reals_random(k, rows, -1, 1);
    l.c0 = reals_random(k, rows, -1, 1);
    l.dy = reals_random(k, all, -1, 1);
    l.dhn = reals_random(k, rows, -1, 1);
    l.dcn = reals_random(k, rows, -1, 1);
    l.length = ints_random(k, batch, 0, n + 1);
    if (options & 2) l.a.length = l.length.d;
    reals *blank[] = { &l.y, &l.c, &l.before };
    for (int i = 0; i < 3; i++) *blank[i] = reals_blank(k, all);
    reals *row[] = { &l.hn, &l.cn, &l.dh0, &l.dc0 };
    for (int i = 0; i < 4; i++) *row[i] = reals_blank(k, rows);
    l.gates = reals_random(k, all * 4, 0, 0); /* places behind a row's end are nobody's */
    reals_up(k, l.gates);
    l.dg = reals_blank(k, all * g);
    l.dgh = reals_blank(k, all * g);
    l.scratch = reals_blank(k, nsmi_rnn_scratch(&l.a));
    return l;
}

static double logistic(double x) { return 1 / (1 + exp(-x)); }

/* One row, forward and back, in double; everything of a step kept. */
static void one_row(const layer *l, bool given, int64_t b, double *y, double *hn, double *cn,
                    double *dg, double *dgh, double *before, double *dh0, double *dc0)
{
    int64_t n = l->a.n, h = l->a.hidden, g = l->a.gru ? 3 : 4,
            len = l->a.length ? l->length.h[b] : n;
    double *gate = calloc((size_t)(n * 4 * h + 1), sizeof *gate),
           *cell = calloc((size_t)((n + 1) * h), sizeof *cell),
           *sum = calloc((size_t)(g * h), sizeof *sum);
    double *dh = dh0 + b * h, *dc = dc0 + b * h, *state = hn + b * h;
    for (int64_t u = 0; u < h; u++) {
        state[u] = given ? (double)l->h0.h[b * h + u] : 0;
        cell[n * h + u] = cn[b * h + u] = given && !l->a.gru ? (double)l->c0.h[b * h + u] : 0;
    }
    for (int64_t s = 0; s < len; s++) {
        int64_t t = l->a.reverse ? len - 1 - s : s, at = b * n + t;
        double *q = gate + t * 4 * h;
        for (int64_t u = 0; u < h; u++) before[at * h + u] = state[u];
        for (int64_t r = 0; r < g * h; r++) {
            sum[r] = l->a.gru && r >= 2 * h ? (double)l->bias.h[r - 2 * h] : 0;
            for (int64_t u = 0; u < h; u++) sum[r] += (double)l->w.h[r * h + u] * state[u];
        }
        for (int64_t u = 0; u < h; u++) {
            const float *x = l->gx.h + at * g * h + u;
            if (l->a.gru) {
                q[u] = logistic((double)x[0] + sum[u]);
                q[h + u] = logistic((double)x[h] + sum[h + u]);
                q[3 * h + u] = sum[2 * h + u];
                q[2 * h + u] = tanh((double)x[2 * h] + q[u] * sum[2 * h + u]);
                state[u] = (1 - q[h + u]) * q[2 * h + u] + q[h + u] * state[u];
            } else {
                for (int v = 0; v < 4; v++)
                    q[v * h + u] = v == 2 ? tanh((double)x[v * h] + sum[v * h + u])
                                          : logistic((double)x[v * h] + sum[v * h + u]);
                cn[b * h + u] = cell[t * h + u] = q[h + u] * cn[b * h + u] + q[u] * q[2 * h + u];
                state[u] = q[3 * h + u] * tanh(cell[t * h + u]);
            }
            y[at * h + u] = state[u];
        }
    }
    for (int64_t u = 0; u < h; u++) {
        dh[u] = given ? (double)l->dhn.h[b * h + u] : 0;
        dc[u] = given ? (double)l->dcn.h[b * h + u] : 0;
    }
    for (int64_t s = len - 1; s >= 0; s--) {
        int64_t t = l->a.reverse ? len - 1 - s : s, at = b * n + t,
                old = s == 0         ? n
                      : l->a.reverse ? t + 1
                                     : t - 1;
        const double *q = gate + t * 4 * h;
        for (int64_t u = 0; u < h; u++) {
            double d = dh[u] + (double)l->dy.h[at * h + u], *x = dg + at * g * h + u,
                   *z = dgh + at * g * h + u;
            if (l->a.gru) {
                double dm = d * (1 - q[h + u]) * (1 - q[2 * h + u] * q[2 * h + u]);
                z[0] = x[0] = dm * q[3 * h + u] * q[u] * (1 - q[u]);
                z[h] = x[h] = d * (before[at * h + u] - q[2 * h + u]) * q[h + u] * (1 - q[h + u]);
                x[2 * h] = dm;
                z[2 * h] = dm * q[u];
                dh[u] = d * q[h + u];
            } else {
                double tc = tanh(cell[t * h + u]), e = dc[u] + d * q[3 * h + u] * (1 - tc * tc);
                x[0] = e * q[2 * h + u] * q[u] * (1 - q[u]);
                x[h] = e * cell[old * h + u] * q[h + u] * (1 - q[h + u]);
                x[2 * h] = e * q[u] * (1 - q[2 * h + u] * q[2 * h + u]);
                x[3 * h] = d * tc * q[3 * h + u] * (1 - q[3 * h + u]);
                dc[u] = e * q[h + u];
                dh[u] = 0;
            }
        }
        const double *through = l->a.gru ? dgh : dg;
        for (int64_t u = 0; u < h; u++)
            for (int64_t r = 0; r < g * h; r++)
                dh[u] += through[at * g * h + r] * (double)l->w.h[r * h + u];
    }
    free(gate);
    free(cell);
    free(sum);
}

static void recur(kernels *k, bool gru, int64_t batch, int64_t n, int64_t h, int options)
{
    layer l = layer_new(k, gru, batch, n, h, options);
    bool given = options & 4;
    int64_t g = gru ? 3 : 4, all = batch * n * h, rows = batch * h;
    double *y = wanted(k, all), *before = wanted(k, all), *dg = wanted(k, all * g),
           *dgh = wanted(k, all * g), *hn = wanted(k, rows), *cn = wanted(k, rows),
           *dh0 = wanted(k, rows), *dc0 = wanted(k, rows);
    for (int64_t b = 0; b < batch; b++) one_row(&l, given, b, y, hn, cn, dg, dgh, before, dh0, dc0);
    k->be->rnn(k->d, &l.a, l.gx.d, l.w.d, gru ? l.bias.d : NULL, given ? l.h0.d : NULL,
               given && !gru ? l.c0.d : NULL, l.scratch.d, l.y.d, l.gates.d, gru ? NULL : l.c.d,
               l.hn.d, gru ? NULL : l.cn.d);
    result(k, "rnn: y", l.y, y, 1e-5);
    result(k, "rnn: hn", l.hn, hn, 1e-5);
    if (!gru) result(k, "rnn: cn", l.cn, cn, 1e-5);
    k->be->rnn_back(k->d, &l.a, l.w.d, given ? l.h0.d : NULL, given && !gru ? l.c0.d : NULL, l.y.d,
                    l.gates.d, gru ? NULL : l.c.d, l.dy.d, given ? l.dhn.d : NULL,
                    given && !gru ? l.dcn.d : NULL, l.scratch.d, l.dg.d, gru ? l.dgh.d : NULL,
                    l.before.d, l.dh0.d, l.dc0.d);
    result(k, "rnn_back: dg", l.dg, dg, 3e-5);
    if (gru) result(k, "rnn_back: dgh", l.dgh, dgh, 3e-5);
    result(k, "rnn_back: before", l.before, before, 1e-5);
    result(k, "rnn_back: dh0", l.dh0, dh0, 3e-5);
    if (!gru) result(k, "rnn_back: dc0", l.dc0, dc0, 3e-5);
}

void case_rnn(kernels *k)
{
    for (int options = 0; options < 16; options++) {
        bool gru = options >= 8;
        recur(k, gru, 1, 1, 1, options % 8);
        recur(k, gru, 3, 5, 17, options % 8);
        recur(k, gru, 6, 4, 70, options % 8);
        recur(k, gru, 1, 9, 40, options % 8);
    }
}
