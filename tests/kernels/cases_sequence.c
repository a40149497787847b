/* tests/kernels/cases_sequence.c - Attention on sequences, rotation by position, against plain loops in double. */
#include "config.h"
#include "tests/kernels/cases.h"

typedef struct {
    int64_t batch, n, m, heads, groups, dk, dv;
    bool causal;
    int64_t window, offset;
    bool keys, offsets, bias; /* given by row; a bias by head and key */
} shape;

static const shape shapes[] = {
    { 1, 1, 1, 1, 1, 1, 1, false, 0, 0, false, false, false },
    { 2, 5, 7, 2, 1, 3, 4, true, 0, 2, true, false, true },
    { 1, 3, 300, 4, 2, 20, 17, true, 0, 297, false, false, true },   /* few queries */
    { 3, 1, 40, 2, 2, 16, 16, true, 9, 0, true, true, false },
    { 1, 100, 100, 2, 2, 64, 64, true, 0, 0, false, false, false },  /* several blocks */
    { 2, 203, 397, 4, 2, 33, 48, false, 0, 0, true, false, true },
    { 2, 203, 397, 4, 1, 33, 48, true, 50, 190, true, true, false },
    { 1, 420, 420, 1, 1, 8, 100, true, 130, 0, false, false, false },
    { 1, 130, 210, 1, 1, 600, 1030, true, 0, 80, false, false, false }, /* smaller blocks */
};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

typedef struct {
    nsmi_attention a;
    reals q, k, v, dy, bias, y, lse, scratch;
    ints keys, offsets;
} problem;

/* q, k, v stand side by side with a gap behind each, as a packed projection has them. */
static problem problem_new(kernels *k, const shape *s)
{
    problem p = { .a = { .batch = s->batch, .n = s->n, .m = s->m, .heads = s->heads, .groups = s->groups, .dk = s->dk, .dv = s->dv,
                         .scale = 0.8f / sqrtf((float)s->dk), .causal = s->causal, .window = s->window, .offset = s->offset } };
    int64_t q = s->heads * s->dk + 3, key = s->groups * s->dk, v = s->groups * s->dv + 5;
    memcpy(p.a.q, (int64_t[3]){ s->n * q, q, s->dk }, sizeof p.a.q);
    memcpy(p.a.k, (int64_t[3]){ s->m * key, key, s->dk }, sizeof p.a.k);
    memcpy(p.a.v, (int64_t[3]){ s->m * v, v, s->dv }, sizeof p.a.v);
    p.q = reals_random(k, s->batch * s->n * q, -2, 2);
    p.k = reals_random(k, s->batch * s->m * key, -2, 2);
    p.v = reals_random(k, s->batch * s->m * v, -1, 1);
    p.dy = reals_random(k, s->batch * s->n * s->heads * s->dv, -1, 1);
    p.bias = reals_random(k, s->heads * s->m, -1, 1);
    p.keys = ints_random(k, s->batch, s->m / 2, s->m + 1);
    p.offsets = ints_random(k, s->batch, -2, s->m);
    for (int64_t i = 0; i < p.bias.n; i += 5) p.bias.h[i] = -INFINITY;
    reals_up(k, p.bias);
    if (s->keys) p.a.keys = p.keys.d;
    if (s->offsets) p.a.offsets = p.offsets.d;
    if (s->bias) {
        p.a.bias = p.bias.d;
        p.a.bias_stride[1] = s->m;
        p.a.bias_stride[3] = 1;
    }
    p.y = reals_blank(k, p.dy.n);
    p.lse = reals_blank(k, s->batch * s->heads * s->n);
    p.scratch = reals_blank(k, nsmi_attention_scratch(&p.a, true) + nsmi_attention_scratch(&p.a, false));
    return p;
}

/* The softmax of one query over all keys, 0 where not seen; its lse. */
static double weights_of(const problem *p, const shape *s, int64_t b, int64_t h, int64_t i, double *w)
{
    const float *q = p->q.h + b * p->a.q[0] + i * p->a.q[1] + h * p->a.q[2];
    int64_t keys = s->keys ? p->keys.h[b] : s->m, at = i + (s->offsets ? p->offsets.h[b] : s->offset), g = h / (s->heads / s->groups);
    double top = -INFINITY, sum = 0;
    for (int64_t j = 0; j < s->m; j++) {
        const float *key = p->k.h + b * p->a.k[0] + j * p->a.k[1] + g * p->a.k[2];
        bool seen = j < keys && (!s->causal || j <= at) && (!s->window || j > at - s->window);
        w[j] = s->bias ? (double)p->bias.h[h * s->m + j] : 0;
        for (int64_t e = 0; e < s->dk; e++) w[j] += (double)p->a.scale * (double)q[e] * (double)key[e];
        if (!seen) w[j] = -INFINITY;
        if (w[j] > top) top = w[j];
    }
    for (int64_t j = 0; j < s->m; j++) sum += w[j] = isinf(w[j]) ? 0 : exp(w[j] - top);
    for (int64_t j = 0; j < s->m && sum > 0; j++) w[j] /= sum;
    return sum > 0 ? top + log(sum) : 0;
}

static void forward(kernels *k, const problem *p, const shape *s)
{
    double *y = wanted(k, p->y.n), *lse = wanted(k, p->lse.n), *w = wanted(k, s->m);
    for (int64_t r = 0; r < p->lse.n; r++) {
        int64_t i = r % s->n, h = r / s->n % s->heads, b = r / s->n / s->heads, g = h / (s->heads / s->groups);
        lse[r] = weights_of(p, s, b, h, i, w);
        for (int64_t j = 0; j < s->m; j++)
            for (int64_t e = 0; e < s->dv && w[j] > 0; e++)
                y[((b * s->n + i) * s->heads + h) * s->dv + e] += w[j] * (double)p->v.h[b * p->a.v[0] + j * p->a.v[1] + g * p->a.v[2] + e];
    }
    k->be->attention(k->d, &p->a, p->q.d, p->k.d, p->v.d, p->scratch.d, p->y.d, p->lse.d);
    result(k, "attention", p->y, y, 3e-6);
    result(k, "attention: lse", p->lse, lse, 3e-6);
}

static void backward(kernels *k, const problem *p, const shape *s, float beta)
{
    reals dq = reals_random(k, p->q.n, -1, 1), dk = reals_random(k, p->k.n, -1, 1), dv = reals_random(k, p->v.n, -1, 1);
    reals ds = reals_blank(k, s->batch * s->heads * s->n * s->m);
    double *wq = wanted_from(k, dq, 1), *wk = wanted_from(k, dk, 1), *wv = wanted_from(k, dv, 1), *ws = wanted(k, ds.n), *w = wanted(k, s->m);
    for (int64_t r = 0; r < p->lse.n; r++) { /* what the gradients replace or are added to */
        int64_t i = r % s->n, h = r / s->n % s->heads, b = r / s->n / s->heads;
        for (int64_t e = 0; e < s->dk; e++) wq[b * p->a.q[0] + i * p->a.q[1] + h * p->a.q[2] + e] *= (double)beta;
    }
    for (int64_t r = 0; r < s->batch * s->m * s->groups; r++) {
        int64_t g = r % s->groups, j = r / s->groups % s->m, b = r / s->groups / s->m;
        for (int64_t e = 0; e < s->dk; e++) wk[b * p->a.k[0] + j * p->a.k[1] + g * p->a.k[2] + e] *= (double)beta;
        for (int64_t e = 0; e < s->dv; e++) wv[b * p->a.v[0] + j * p->a.v[1] + g * p->a.v[2] + e] *= (double)beta;
    }
    for (int64_t r = 0; r < p->lse.n; r++) {
        int64_t i = r % s->n, h = r / s->n % s->heads, b = r / s->n / s->heads, g = h / (s->heads / s->groups);
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
    k->be->attention_back(k->d, &p->a, p->q.d, p->k.d, p->v.d, p->y.d, p->lse.d, p->dy.d, p->scratch.d, (float[]){ beta, beta, beta },
                          dq.d, dk.d, dv.d, beta != 0 ? ds.d : NULL);
    result(k, "attention_back: dq", dq, wq, 1e-5);
    result(k, "attention_back: dk", dk, wk, 1e-5);
    result(k, "attention_back: dv", dv, wv, 1e-5);
    if (beta != 0) result(k, "attention_back: ds", ds, ws, 1e-5);
}

void case_attention(kernels *k)
{
    for (int i = 0; i < SHAPES; i++) {
        problem p = problem_new(k, &shapes[i]);
        forward(k, &p, &shapes[i]);
        backward(k, &p, &shapes[i], 0);
        backward(k, &p, &shapes[i], 0.5f);
    }
}

static void rotate(kernels *k, int64_t batch, int64_t n, int64_t cols, int64_t heads, int64_t size, int64_t pairs, int options)
{
    bool side = options & 1, by_row = options & 2, adds = options & 4;
    double base = side ? 50 : 10000, sign = adds ? -1 : 1;
    reals x = reals_random(k, batch * n * cols, -1, 1), y = adds ? reals_random(k, x.n, -1, 1) : reals_blank(k, x.n);
    ints offsets = ints_random(k, batch, 0, 100000);
    double *want = wanted_from(k, y, adds ? 0.5 : 0);
    for (int64_t i = 0; i < x.n; i++) {
        int64_t c = i % cols, t = i / cols % n, b = i / cols / n, in_head = c % size;
        bool turns = c < heads * size && in_head < 2 * pairs;
        int64_t pair = side ? in_head / 2 : in_head % pairs, other = side ? 1 - 2 * (in_head % 2) : in_head < pairs ? pairs : -pairs;
        double angle = sign * (double)(t + (by_row ? offsets.h[b] : 17)) * pow(base, -(double)pair / (double)pairs);
        want[i] += turns ? (double)x.h[i] * cos(angle) - (double)x.h[i + other] * sin(angle) * (other > 0 ? 1 : -1) : (double)x.h[i];
    }
    k->be->rotate(k->d, batch, n, cols, heads, size, pairs, side, base, 17, by_row ? offsets.d : NULL, (float)sign, x.d, adds ? 0.5f : 0, y.d);
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
