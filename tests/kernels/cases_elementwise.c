/* tests/kernels/cases_elementwise.c - Functions of one and two numbers, the fused pass, softmax,
 * norms, cross entropy; and the optimizers' bits (tests/base holds their rules to a reference).
 *
 * Slopes are held against central differences of the value in double: no formula stands twice. */
#include "config.h"
#include "tests/kernels/cases.h"

/* ---- functions of one number ---- */

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

static double value(nsmi_unary f, double x, double a, double b)
{
    switch (f) {
    case NSMI_RELU: return x < 0 ? 0 : x;
    case NSMI_LEAKY_RELU: return x > 0 ? x : a * x;
    case NSMI_ELU: return x > 0 ? x : a * expm1(x);
    case NSMI_GELU: return 0.5 * x * erfc(-x / sqrt(2));
    case NSMI_GELU_TANH: return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case NSMI_SILU: return x * sigmoid(x);
    case NSMI_SIGMOID: return sigmoid(x);
    case NSMI_TANH: return tanh(x);
    case NSMI_SOFTPLUS: return a * x > b ? x : log1p(exp(a * x)) / a;
    case NSMI_RELU6: return x < 0 ? 0 : x > 6 ? 6 : x;
    case NSMI_HARDSWISH: return x <= -3 ? 0 : x >= 3 ? x : x * (x + 3) / 6;
    case NSMI_MISH: return x * tanh(x > 30 ? x : log1p(exp(x)));
    case NSMI_QUICK_GELU: return x * sigmoid(1.702 * x);
    case NSMI_EXP: return exp(x);
    case NSMI_LOG: return log(x);
    case NSMI_SQRT: return sqrt(x);
    case NSMI_RSQRT: return 1 / sqrt(x);
    case NSMI_SQUARE: return x * x;
    case NSMI_ABS: return fabs(x);
    case NSMI_NEG: return -x;
    case NSMI_RECIPROCAL: return 1 / x;
    case NSMI_SIN: return sin(x);
    case NSMI_COS: return cos(x);
    case NSMI_SCALE: return a * x + b;
    case NSMI_CLAMP: return x < a ? a : x > b ? b : x;
    case NSMI_LOG_SIGMOID: return x < -30 ? x : -log1p(exp(-x));
    case NSMI_IDENTITY: return x;
    case NSMI_UNARIES: break;
    }
    return NAN;
}

static double slope(nsmi_unary f, double x, double a, double b)
{
    double h = 1e-6 * (fabs(x) < 1 ? 1 : fabs(x));
    return (value(f, x + h, a, b) - value(f, x - h, a, b)) / (2 * h);
}

static void constants(nsmi_unary f, float *a, float *b)
{
    *a = f == NSMI_CLAMP ? -1 : f == NSMI_SOFTPLUS ? 2 : 0.75f;
    *b = f == NSMI_SOFTPLUS ? 20 : 2;
}

static bool positive_only(nsmi_unary f)
{
    return f == NSMI_LOG || f == NSMI_SQRT || f == NSMI_RSQRT || f == NSMI_RECIPROCAL;
}

static void unary(kernels *k, nsmi_unary f, int64_t n)
{
    static const float special[] = { 1e-20f, -1e-20f, 20, -20, 80, -80, 0, -0.0f };
    float a, b;
    constants(f, &a, &b);
    bool positive = positive_only(f);
    reals x = reals_random(k, n, positive ? 0.05 : -8, 8), y = reals_blank(k, n),
          dy = reals_random(k, n, -1, 1);
    reals dx = reals_random(k, n, -1, 1);
    double *want = wanted(k, n), *back = wanted(k, n);
    for (int adds = 0; adds < 2; adds++) {
        for (int64_t i = 0; i < n; i++)
            back[i] = (adds ? 0.5 * (double)dx.h[i] : 0) +
                      (double)dy.h[i] * slope(f, (double)x.h[i], (double)a, (double)b);
        reals to = adds ? reals_copy(k, dx) : reals_blank(k, n);
        k->be->unary_back(k->d, f, a, b, n, x.d, dy.d, adds ? 0.5f : 0, to.d);
        char what[32];
        snprintf(what, sizeof what, "unary_back %d", (int)f);
        result_each(k, what, to, back, 1e-5);
    }
    for (int64_t i = 0; !positive && i < 8 && i < n; i++) x.h[i] = special[i];
    if (n > 8) x.h[8] = NAN;
    reals_up(k, x);
    for (int64_t i = 0; i < n; i++) {
        want[i] = value(f, (double)x.h[i], (double)a, (double)b);
        if (want[i] > 3.5e38) want[i] = INFINITY;
    }
    k->be->unary(k->d, f, a, b, n, x.d, y.d);
    char what[32];
    snprintf(what, sizeof what, "unary %d", (int)f);
    result_each(k, what, y, want, 5e-6);
}

void case_unary(kernels *k)
{
    for (int f = 0; f < NSMI_UNARIES; f++) {
        unary(k, (nsmi_unary)f, 0);
        unary(k, (nsmi_unary)f, 19);
        unary(k, (nsmi_unary)f, 70001);
    }
}

/* ---- functions of two ---- */

static double pair(nsmi_binary f, double a, double b)
{
    return f == NSMI_ADD   ? a + b
           : f == NSMI_SUB ? a - b
           : f == NSMI_MUL ? a * b
           : f == NSMI_DIV ? a / b
           : f == NSMI_MAX ? fmax(a, b)
           : f == NSMI_MIN ? fmin(a, b)
                           : a * b / (1 + exp(-b));
}

/* Operand a has only the dims in mask_a, b those in mask_b: the others are broadcast. */
static void binary(kernels *k, nsmi_binary f, const int64_t dim[5], int mask_a, int mask_b)
{
    nsmi_strides s[2] = { { { 0 } }, { { 0 } } };
    int64_t size[2] = { 1, 1 }, n = 1;
    int mask[2] = { mask_a, mask_b };
    for (int i = 4; i >= 0; i--) {
        n *= dim[i];
        for (int o = 0; o < 2; o++) {
            if (!(mask[o] >> i & 1)) continue;
            s[o].stride[i] = size[o];
            size[o] *= dim[i];
        }
    }
    reals a = reals_steps(k, size[0], 4), b = reals_steps(k, size[1], 4),
          dy = reals_random(k, n, -1, 1);
    for (int64_t i = 0; f == NSMI_DIV && i < size[1]; i++) b.h[i] += 2.5f;
    reals_up(k, b);
    reals y = reals_blank(k, n), da = reals_blank(k, n), db = reals_random(k, n, -1, 1);
    double *want = wanted(k, n), *to_a = wanted(k, n), *to_b = wanted(k, n), h = 1e-6;
    for (int64_t i = 0; i < n; i++) {
        int64_t rest = i, at[2] = { 0, 0 };
        for (int j = 4; j >= 0; j--) {
            for (int o = 0; o < 2; o++) at[o] += rest % dim[j] * s[o].stride[j];
            rest /= dim[j];
        }
        double p = (double)a.h[at[0]], q = (double)b.h[at[1]], g = (double)dy.h[i] / (2 * h);
        want[i] = pair(f, p, q); /* of equals in a maximum, differences give each half */
        to_a[i] = g * (pair(f, p + h, q) - pair(f, p - h, q));
        to_b[i] = 0.5 * (double)db.h[i] + g * (pair(f, p, q + h) - pair(f, p, q - h));
    }
    k->be->binary(k->d, f, dim, a.d, s[0], b.d, s[1], y.d);
    result_each(k, "binary", y, want, 1e-6);
    k->be->binary_back(k->d, f, dim, a.d, s[0], b.d, s[1], dy.d, 0, da.d, 0.5f,
                       mask_a % 3 ? db.d : NULL);
    result_each(k, "binary_back's da", da, to_a, 1e-5);
    if (mask_a % 3) result_each(k, "binary_back's db", db, to_b, 1e-5);
}

void case_binary(kernels *k)
{
    static const int64_t dim[][5] = {
        { 2, 3, 4, 5, 7 }, { 1, 1, 1, 301, 233 }, { 1, 1, 1, 1, 70001 }, { 2, 0, 1, 3, 1 }
    };
    static const int mask[][2] = { { 31, 31 }, { 31, 0 },  { 0, 31 },  { 31, 16 }, { 8, 31 },
                                   { 8, 16 },  { 31, 21 }, { 10, 31 }, { 19, 12 } };
    for (int f = 0; f < NSMI_BINARIES; f++)
        for (int i = 0; i < 4; i++)
            for (size_t m = 0; m < sizeof mask / sizeof *mask; m++)
                binary(k, (nsmi_binary)f, dim[i], mask[m][0], mask[m][1]);
}

/* ---- bias, activation, dropout ---- */

static void fused(kernels *k, nsmi_unary f, double p, bool biased, bool adds, int64_t rows,
                  int64_t cols)
{
    nsm_random r = { 99, 12 };
    float a, b;
    constants(f, &a, &b);
    int64_t n = rows * cols;
    bool from_y = f == NSMI_RELU && adds; /* backward from what forward gave */
    reals x = reals_random(k, n, 0.1, 3), bias = reals_random(k, cols, 0.1, 1),
          y = reals_blank(k, n);
    if (!positive_only(f)) x = reals_random(k, n, -3, 3);
    reals dy = reals_random(k, n, -1, 1), dx = adds ? reals_random(k, n, -1, 1) : reals_blank(k, n);
    reals dbias = reals_random(k, cols, -1, 1);
    double *want = wanted(k, n), *back = wanted_from(k, dx, adds), *sum = wanted_from(k, dbias, 1);
    for (int64_t i = 0; i < n; i++) {
        double z = biased ? (double)(x.h[i] + bias.h[i % cols]) : (double)x.h[i],
               scale = kept(r, p, i);
        double g = scale * (double)dy.h[i] * slope(f, z, (double)a, (double)b);
        want[i] = scale * value(f, z, (double)a, (double)b);
        back[i] += g;
        sum[i % cols] += g;
    }
    k->be->bias_act_dropout(k->d, f, a, b, (float)p, r, rows, cols, x.d, biased ? bias.d : NULL,
                            y.d);
    result_each(k, "bias_act_dropout", y, want, 5e-6);
    k->be->bias_act_dropout_back(k->d, f, a, b, (float)p, r, rows, cols, from_y ? NULL : x.d,
                                 biased ? bias.d : NULL, y.d, dy.d, (float)adds, dx.d,
                                 biased ? dbias.d : NULL);
    result_each(k, "bias_act_dropout_back", dx, back, 1e-5);
    if (biased) result(k, "bias_act_dropout_back's dbias", dbias, sum, 1e-5);
}

void case_fused(kernels *k)
{
    static const int64_t shape[][2] = { { 0, 3 }, { 3, 1 }, { 7, 17 }, { 501, 150 }, { 40, 2050 } };
    for (int f = 0; f < NSMI_UNARIES; f++)
        for (int i = 0; i < 3; i++)
            fused(k, (nsmi_unary)f, i % 2 ? 0.25 : 0, f % 3, f % 2, shape[i][0], shape[i][1]);
    for (int options = 0; options < 8; options++)
        for (int i = 3; i < 5; i++)
            fused(k, options % 3 ? NSMI_RELU : NSMI_ELU, options & 1 ? 0.5 : 0, options & 2,
                  options & 4, shape[i][0], shape[i][1]);
}

/* ---- softmax ---- */

static void softmax(kernels *k, bool log_of, bool adds, int64_t outer, int64_t n, int64_t inner)
{
    reals x = reals_random(k, outer * n * inner, -20, 20), y = reals_blank(k, x.n),
          dy = reals_random(k, x.n, -1, 1);
    reals dx = adds ? reals_random(k, x.n, -1, 1) : reals_blank(k, x.n);
    double *want = wanted(k, x.n), *back = wanted_from(k, dx, adds);
    for (int64_t i = 0; i < outer * inner; i++) {
        int64_t first = i / inner * n * inner + i % inner;
        double sum = 0, dot = 0;
        for (int64_t j = 0; j < n; j++) sum += exp((double)x.h[first + j * inner]);
        for (int64_t j = 0; j < n; j++) {
            int64_t at = first + j * inner;
            want[at] = log_of ? (double)x.h[at] - log(sum) : exp((double)x.h[at]) / sum;
            dot += (double)dy.h[at] * (log_of ? 1 : want[at]);
        }
        for (int64_t j = 0; j < n; j++) {
            int64_t at = first + j * inner;
            back[at] += log_of ? (double)dy.h[at] - exp(want[at]) * dot
                               : want[at] * ((double)dy.h[at] - dot);
        }
    }
    k->be->softmax(k->d, log_of, outer, n, inner, x.d, y.d);
    result(k, "softmax", y, want, 1e-5);
    k->be->softmax_back(k->d, log_of, outer, n, inner, y.d, dy.d, (float)adds, dx.d);
    result(k, "softmax_back", dx, back, 1e-5);
}

void case_softmax(kernels *k)
{
    static const int64_t shape[][3] = { { 0, 3, 1 },     { 3, 1, 1 },  { 5, 17, 1 },
                                        { 2001, 47, 1 }, { 3, 5, 19 }, { 9, 40, 257 },
                                        { 1, 30001, 1 } };
    for (int i = 0; i < 28; i++)
        softmax(k, i & 1, i & 2, shape[i / 4][0], shape[i / 4][1], shape[i / 4][2]);
}

/* ---- norms ----
 * Groups of numbers that share a mean; each number has a weight of its own number `channel`. */
static void norm_reference(bool rms, bool frozen, int64_t count, const int64_t *at,
                           const int64_t *channel, reals x, reals w, reals b, reals dy, double eps,
                           double stats[2], double *variance, double *y, double *dx, double *dw,
                           double *db)
{
    double mean = 0, var = 0, sum = 0, dot = 0;
    for (int64_t i = 0; !rms && i < count; i++) mean += (double)x.h[at[i]] / (double)count;
    for (int64_t i = 0; i < count; i++)
        var += ((double)x.h[at[i]] - mean) * ((double)x.h[at[i]] - mean) / (double)count;
    if (frozen) {
        mean = stats[0];
    } else {
        stats[0] = mean;
        stats[1] = 1 / sqrt(var + eps);
    }
    if (variance) *variance = var;
    for (int64_t i = 0; i < count; i++) {
        double v = ((double)x.h[at[i]] - mean) * stats[1],
               weight = w.n ? (double)w.h[channel[i]] : 1, g = (double)dy.h[at[i]];
        y[at[i]] = v * weight + (b.n ? (double)b.h[channel[i]] : 0);
        dw[channel[i]] += g * v;
        db[channel[i]] += g;
        sum += g * weight;
        dot += g * weight * v;
    }
    for (int64_t i = 0; i < count; i++) {
        double v = ((double)x.h[at[i]] - mean) * stats[1],
               g = (double)dy.h[at[i]] * (w.n ? (double)w.h[channel[i]] : 1);
        dx[at[i]] += stats[1] *
                     (frozen ? g : g - (rms ? 0 : sum / (double)count) - v * dot / (double)count);
    }
}

static void row_norm(kernels *k, bool rms, bool weighted, bool adds, int64_t rows, int64_t cols)
{
    reals x = reals_random(k, rows * cols, -1, 4), y = reals_blank(k, x.n),
          stats = reals_blank(k, 2 * rows), none = { 0 };
    reals w = weighted ? reals_random(k, cols, -1, 1) : none,
          b = weighted && !rms ? reals_random(k, cols, -1, 1) : none;
    reals dy = reals_random(k, x.n, -1, 1),
          dx = adds ? reals_random(k, x.n, -1, 1) : reals_blank(k, x.n);
    reals dw = reals_random(k, cols, -1, 1), db = reals_random(k, cols, -1, 1);
    double *want = wanted(k, x.n), *moments = wanted(k, 2 * rows), *back = wanted_from(k, dx, adds);
    double *to_w = wanted_from(k, dw, 1), *to_b = wanted_from(k, db, 1);
    int64_t *at = host_array(k, cols, sizeof *at), *channel = host_array(k, cols, sizeof *channel);
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t j = 0; j < cols; j++) {
            at[j] = r * cols + j;
            channel[j] = j;
        }
        norm_reference(rms, false, cols, at, channel, x, w, b, dy, 1e-5, moments + 2 * r, NULL,
                       want, back, to_w, to_b);
    }
    k->be->row_norm(k->d, rms, rows, cols, 1e-5f, x.d, w.d, b.d, y.d, stats.d);
    result(k, "row_norm", y, want, 1e-5);
    result(k, "row_norm's moments", stats, moments, 1e-5);
    k->be->row_norm_back(k->d, rms, rows, cols, x.d, w.d, stats.d, dy.d, (float)adds, dx.d,
                         weighted ? dw.d : NULL, b.d ? db.d : NULL);
    result(k, "row_norm_back's dx", dx, back, 1e-5);
    if (weighted) result(k, "row_norm_back's dw", dw, to_w, 1e-5);
    if (b.d) result(k, "row_norm_back's db", db, to_b, 1e-5);
}

void case_row_norm(kernels *k)
{
    static const int64_t shape[][2] = { { 0, 3 }, { 3, 5 }, { 7, 17 }, { 1501, 65 }, { 40, 2050 } };
    for (int i = 0; i < 40; i++) row_norm(k, i & 1, i & 2, i & 4, shape[i / 8][0], shape[i / 8][1]);
}

static void batch_norm(kernels *k, bool training, bool weighted, bool adds, int64_t outer,
                       int64_t c, int64_t inner)
{
    int64_t n = outer * c * inner, count = outer * inner;
    reals x = reals_random(k, n, -1, 4), y = reals_blank(k, n), none = { 0 };
    reals stats = training ? reals_blank(k, 2 * c) : reals_random(k, 2 * c, 0.5, 2),
          var = reals_blank(k, c);
    reals w = weighted ? reals_random(k, c, -1, 1) : none,
          b = weighted ? reals_random(k, c, -1, 1) : none;
    reals dy = reals_random(k, n, -1, 1), dx = adds ? reals_random(k, n, -1, 1) : reals_blank(k, n);
    reals dw = reals_random(k, c, -1, 1), db = reals_random(k, c, -1, 1);
    double *want = wanted(k, n), *moments = wanted_from(k, stats, training ? 0 : 1),
           *variance = wanted(k, c);
    double *back = wanted_from(k, dx, adds), *to_w = wanted_from(k, dw, 1),
           *to_b = wanted_from(k, db, 1);
    int64_t *at = host_array(k, count, sizeof *at),
            *channel = host_array(k, count, sizeof *channel);
    for (int64_t j = 0; j < c; j++) {
        for (int64_t i = 0; i < count; i++) {
            at[i] = (i / inner * c + j) * inner + i % inner;
            channel[i] = j;
        }
        norm_reference(false, !training, count, at, channel, x, w, b, dy, 1e-5, moments + 2 * j,
                       variance + j, want, back, to_w, to_b);
    }
    k->be->batch_norm(k->d, training, outer, c, inner, 1e-5f, x.d, w.d, b.d, y.d, stats.d,
                      training ? var.d : NULL);
    result(k, "batch_norm", y, want, 2e-5);
    result(k, "batch_norm's moments", stats, moments, 1e-5);
    if (training) result(k, "batch_norm's variances", var, variance, 1e-5);
    k->be->batch_norm_back(k->d, training, outer, c, inner, x.d, w.d, stats.d, dy.d, (float)adds,
                           dx.d, dw.d, db.d);
    result(k, "batch_norm_back's dx", dx, back, 2e-5);
    result(k, "batch_norm_back's dw", dw, to_w, 2e-5);
    result(k, "batch_norm_back's db", db, to_b, 2e-5);
}

void case_batch_norm(kernels *k)
{
    static const int64_t shape[][3] = {
        { 5, 1, 1 }, { 7, 17, 1 }, { 2501, 33, 1 }, { 3, 5, 7 }, { 9, 40, 250 }
    };
    for (int i = 0; i < 40; i++)
        batch_norm(k, i & 1, i & 2, i & 4, shape[i / 8][0], shape[i / 8][1], shape[i / 8][2]);
}

/* ---- cross entropy ---- */

static void cross_entropy(kernels *k, int options, int64_t outer, int64_t c, int64_t inner)
{
    bool smooth = options & 1, by_class = options & 2, by_row = options & 4, soft = options & 8;
    int64_t rows = outer * inner, n = rows * c;
    double even = smooth ? (double)0.1f : 0, beta = smooth ? 0.5 : 0;
    reals x = reals_random(k, n, -5, 5), prob = reals_random(k, n, 0, 1),
          class_weight = reals_random(k, c, 0.5, 2);
    reals row_weight = reals_random(k, rows, -1, 1), loss = reals_blank(k, rows),
          weight = reals_blank(k, rows);
    reals lse = reals_blank(k, rows), dloss = reals_random(k, rows, -1, 1),
          dx = smooth ? reals_random(k, n, -1, 1) : reals_blank(k, n);
    ints target = ints_random(k, rows, 0, c);
    double *want = wanted(k, rows), *weights = wanted(k, rows), *sums = wanted(k, rows),
           *back = wanted_from(k, dx, beta);
    for (int64_t i = 0; i < rows; i++) row_weight.h[i] = row_weight.h[i] > 0 ? row_weight.h[i] : 0;
    reals_up(k, row_weight);
    for (int64_t i = 0; i < rows; i++) {
        int64_t first = i / inner * c * inner + i % inner;
        double w = by_row ? (double)row_weight.h[i] : 1, sum = 0, all = 0;
        if (!soft && target.h[i] == 1) w = 0; /* ignored */
        if (w == 0) continue;
        for (int64_t j = 0; j < c; j++) sum += exp((double)x.h[first + j * inner]);
        sums[i] = log(sum);
        weights[i] = w * (by_class && !soft ? (double)class_weight.h[target.h[i]] : 1);
        for (int pass = 0; pass < 2; pass++)
            for (int64_t j = 0; j < c; j++) {
                double v = (double)x.h[first + j * inner],
                       q = soft ? (double)prob.h[first + j * inner] : j == target.h[i];
                double part = w * ((1 - even) * q + even / (double)c) *
                              (by_class ? (double)class_weight.h[j] : 1);
                if (pass)
                    back[first + j * inner] += (double)dloss.h[i] * (all * exp(v - sums[i]) - part);
                else {
                    want[i] += part * (sums[i] - v);
                    all += part;
                }
            }
    }
    nsmi_ce o = { smooth ? 0.1f : 0, 1, by_class ? class_weight.d : NULL,
                  by_row ? row_weight.d : NULL };
    k->be->cross_entropy(k->d, o, outer, c, inner, x.d, soft ? NULL : target.d,
                         soft ? prob.d : NULL, loss.d, weight.d, lse.d);
    result(k, "cross_entropy", loss, want, 5e-6);
    result(k, "cross_entropy's weights", weight, weights, 2e-6);
    result(k, "cross_entropy's sums", lse, sums, 5e-6);
    k->be->cross_entropy_back(k->d, o, outer, c, inner, x.d, soft ? NULL : target.d,
                              soft ? prob.d : NULL, lse.d, dloss.d, (float)beta, dx.d);
    result(k, "cross_entropy_back", dx, back, 1e-5);
}

void case_cross_entropy(kernels *k)
{
    static const int64_t shape[][3] = { { 0, 3, 1 },     { 5, 2, 1 },  { 33, 7, 1 },
                                        { 1501, 47, 1 }, { 3, 5, 11 }, { 3, 130, 200 } };
    for (int i = 0; i < 16 * 6; i++)
        cross_entropy(k, i % 16, shape[i / 16][0], shape[i / 16][1], shape[i / 16][2]);
}

/* ---- optimizers: the same bits for any number of threads ---- */

void case_updates(kernels *k)
{
    static const int64_t size[] = { 3, 70001, 0, 16385 };
    for (int rule = NSMI_SGD; rule <= NSMI_LION; rule++) {
        nsmi_step step = { .rule = (nsmi_rule)rule,
                           .step = 3,
                           .beta1 = 0.9,
                           .beta2 = 0.99,
                           .eps = 1e-8,
                           .momentum = 0.9,
                           .alpha = 0.9,
                           .rho = 0.9,
                           .momentum_decay = 0.004,
                           .mu_product = 0.5,
                           .grad_scale = 0.5f };
        nsmi_slot slot[4];
        reals w[4];
        for (int i = 0; i < 4; i++) {
            w[i] = reals_random(k, size[i], -1, 1);
            slot[i] = (nsmi_slot){ .n = size[i],
                                   .w = w[i].d,
                                   .g = reals_random(k, size[i], -1, 1).d,
                                   .lr = 0.01f,
                                   .weight_decay = 0.1f };
            for (int s = 0; s < 4; s++) slot[i].s[s] = reals_random(k, size[i], 0.1, 1).d;
        }
        k->be->update(k->d, &step, 4, slot);
        for (int i = 0; i < 4; i++) {
            result_digest(k, w[i]);
            for (int64_t j = 0; j < size[i]; j++) ck_assert(isfinite(w[i].h[j]));
        }
    }
}
