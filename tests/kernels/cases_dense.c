/* tests/kernels/cases_dense.c - Matrix products, passes, sums, permutations and random numbers. */
#include "config.h"
#include <float.h>
#include "kernels/philox.h"
#include "tests/kernels/cases.h"

static const int64_t lengths[] = { 0, 1, 15, 16, 17, 16384, 100003 };
enum { LENGTHS = sizeof lengths / sizeof *lengths, PAD = 3 };

/* ---- products ---- */

/* x [rows, cols], or its transpose, in rows PAD longer than need be; NaN stands in the pad. */
static reals laid_out(kernels *k, const float *x, int64_t rows, int64_t cols, bool turned)
{
    int64_t down = turned ? cols : rows, across = turned ? rows : cols;
    reals y = reals_blank(k, down * (across + PAD));
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++)
            y.h[turned ? j * (across + PAD) + i : i * (across + PAD) + j] = x[i * cols + j];
    reals_up(k, y);
    return y;
}

/* x as a product of this precision takes it: of TF32 11 bits are left, of bf16 8, and of two as
 * near bf16 has the even one. */
static double taken(const kernels *k, float x)
{
    int e;
    double m = frexp((double)x, &e);
    switch (k->d->precision) {
    case NSM_PRECISION_TF32: return ldexp(round(ldexp(m, 11)), e - 11);
    case NSM_PRECISION_BF16: return ldexp(rint(ldexp(m, 8)), e - 8);
    default: return (double)x;
    }
}

/* Operands.  How a GPU rounds to TF32 is its own affair: there they need no rounding. */
static reals factors(kernels *k, int64_t n)
{
    reals x = reals_random(k, n, -1, 1);
    if (k->d->precision == NSM_PRECISION_TF32 && strcmp(k->be->name, "emulated"))
        for (int64_t i = 0; i < n; i++) x.h[i] = (float)taken(k, x.h[i]);
    reals_up(k, x);
    return x;
}

/* One shape, in all four layouts, with beta 0 and 1. */
static void product(kernels *k, int64_t m, int64_t n, int64_t depth)
{
    reals a = factors(k, m * depth), b = factors(k, depth * n);
    double *want = wanted(k, m * n), *now = wanted(k, m * (n + PAD));
    for (int64_t i = 0; k->check && i < m; i++)
        for (int64_t l = 0; l < depth; l++)
            for (int64_t j = 0; j < n; j++)
                want[i * n + j] += taken(k, a.h[i * depth + l]) * taken(k, b.h[l * n + j]);
    for (int layout = 0; layout < 8; layout++) {
        bool ta = layout & 1, tb = layout & 2;
        float alpha = layout & 4 ? -0.5f : 1.0f, beta = layout & 4 ? 1.0f : 0.0f;
        reals pa = laid_out(k, a.h, m, depth, ta), pb = laid_out(k, b.h, depth, n, tb);
        reals c = reals_random(k, m * (n + PAD), -1, 1);
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < n + PAD; j++) {
                int64_t at = i * (n + PAD) + j;
                if (beta == 0 && j < n) c.h[at] = NAN;
                now[at] = j < n ? (double)alpha * want[i * n + j] +
                                      (beta == 0 ? 0 : (double)beta * (double)c.h[at])
                                : (double)c.h[at];
            }
        reals_up(k, c);
        k->be->gemm(k->d, ta, tb, m, n, depth, alpha, pa.d, (ta ? m : depth) + PAD, pb.d,
                    (tb ? depth : n) + PAD, beta, c.d, n + PAD);
        char what[80];
        snprintf(what, sizeof what, "gemm %lld %lld %lld%s%s", (long long)m, (long long)n,
                 (long long)depth, ta ? " A'" : "", tb ? " B'" : "");
        result(k, what, c, now, 2e-6);
    }
}

void case_products(kernels *k)
{
    static const int64_t edge[] = { 1, 15, 16, 17 };
    static const int64_t large[][3] = {
        { 255, 257, 17 }, { 257, 16, 255 }, { 1000, 17, 257 }, { 17, 1000, 255 }, { 16, 15, 1000 },
        { 1, 257, 1000 }, { 257, 1, 1000 }, { 1000, 1000, 1 }, { 17, 15, 40000 }, { 255, 3, 10001 },
        { 129, 65, 300 }, { 0, 17, 16 },    { 17, 0, 16 },     { 17, 16, 0 },     { 1, 1, 100003 },
    };
    for (int i = 0; i < 64; i++) product(k, edge[i % 4], edge[i / 4 % 4], edge[i / 16]);
    for (size_t i = 0; i < sizeof large / sizeof *large; i++)
        product(k, large[i][0], large[i][1], large[i][2]);
}

static void batched(kernels *k, int64_t batch, int64_t m, int64_t n, int64_t depth, bool one_b)
{
    int64_t sa = m * depth + 2, sb = one_b ? 0 : depth * n, sc = m * n + 1;
    reals a = factors(k, batch * sa);
    reals b = factors(k, one_b ? depth * n : batch * sb);
    reals c = reals_random(k, batch * sc, -1, 1);
    for (int turned = 0; turned < 4; turned++) {
        bool ta = turned & 1, tb = turned & 2;
        double *want = wanted_from(k, c, 1);
        for (int64_t t = 0; k->check && t < batch; t++)
            for (int64_t i = 0; i < m; i++)
                for (int64_t l = 0; l < depth; l++)
                    for (int64_t j = 0; j < n; j++)
                        want[t * sc + i * n + j] +=
                            2 * taken(k, a.h[t * sa + (ta ? l * m + i : i * depth + l)]) *
                            taken(k, b.h[t * sb + (tb ? j * depth + l : l * n + j)]);
        reals y = reals_copy(k, c);
        k->be->gemm_batch(k->d, ta, tb, batch, m, n, depth, 2, a.d, ta ? m : depth, sa, b.d,
                          tb ? depth : n, sb, 1, y.d, n, sc);
        result(k, "gemm_batch", y, want, 2e-6);
    }
}

void case_batched_products(kernels *k)
{
    batched(k, 0, 3, 4, 5, false);
    batched(k, 7, 1, 1, 1, false);
    batched(k, 9, 17, 15, 16, false);
    batched(k, 13, 33, 20, 65, true);
    batched(k, 5, 17, 16, 0, false);
    batched(k, 3, 130, 100, 129, false);
}

/* Products of rounded operands are as near to those of the same numbers as float32 is; a NaN and
 * an infinity are not rounded away. */
void case_rounded_products(kernels *k)
{
    static const int64_t edge[] = { 1, 7, 8, 17 };
    for (int how = NSM_PRECISION_FLOAT32 + 1; k->be->precisions && how < NSM_PRECISION_KINDS;
         how++) {
        k->d->precision = (nsm_precision)how;
        for (int i = 0; i < 64; i++) product(k, edge[i % 4], edge[i / 4 % 4], edge[i / 16]);
        product(k, 65, 33, 300);
        product(k, 17, 16, 0);
        batched(k, 9, 17, 15, 16, false);
        batched(k, 13, 33, 20, 65, true);
        float x[] = { NAN, -NAN, INFINITY, -INFINITY, FLT_MAX, 1e-42f }, one = 1;
        uint32_t last = 0x7f800001u; /* a NaN whose upper bits alone are an infinity's */
        memcpy(&x[1], &last, sizeof last);
        reals a = reals_of(k, 6, x), b = reals_of(k, 1, &one), c = reals_blank(k, 6);
        k->be->gemm(k->d, false, false, 6, 1, 1, 1, a.d, 1, b.d, 1, 0, c.d, 1);
        k->be->to_host(k->d, sizeof x, c.d, x);
        ck_assert(isnan(x[0]) && isnan(x[1]) && x[2] == INFINITY && x[3] == -INFINITY);
        ck_assert(x[4] >= FLT_MAX / 2 && x[5] >= 0 && x[5] < 2e-42f);
    }
    k->d->precision = NSM_PRECISION_FLOAT32;
}

/* ---- passes ---- */

static void pass(kernels *k, int64_t n)
{
    reals x = reals_random(k, n, -2, 2), y = reals_random(k, n, -2, 2);
    double *want = wanted(k, n);
    reals out = reals_blank(k, n);
    for (int64_t i = 0; i < n; i++) want[i] = 0.75;
    k->be->fill(k->d, n, 0.75f, out.d);
    result(k, "fill", out, want, 0);
    out = reals_copy(k, y);
    for (int64_t i = 0; i < n; i++) want[i] = (double)y.h[i] - 1.5 * (double)x.h[i];
    k->be->axpy(k->d, n, -1.5f, x.d, out.d);
    result_each(k, "axpy", out, want, 1e-6);
    for (int keeps = 0; keeps < 2; keeps++) {
        out = keeps ? reals_copy(k, y) : reals_blank(k, n);
        for (int64_t i = 0; i < n; i++)
            want[i] = 0.5 * (double)x.h[i] + (keeps ? 0.25 * (double)y.h[i] : 0);
        k->be->axpby(k->d, n, 0.5f, x.d, keeps ? 0.25f : 0, out.d);
        result_each(k, "axpby", out, want, 1e-6);
    }
    out = reals_copy(k, y);
    for (int64_t i = 0; i < n; i++)
        want[i] = (double)y.h[i] + 0.125 * ((double)x.h[i] - (double)y.h[i]);
    k->be->lerp(k->d, n, 0.125f, x.d, out.d);
    result_each(k, "lerp", out, want, 1e-6);
    out = reals_blank(k, n);
    for (int64_t i = 0; i < n; i++) want[i] = (double)x.h[i];
    k->be->copy(k->d, (size_t)n * sizeof(float), x.d, out.d);
    result(k, "copy", out, want, 0);
    k->be->zero(k->d, (size_t)n * sizeof(float), out.d);
    result(k, "zero", out, wanted(k, n), 0);
}

/* What the host writes after a copy to the device does not reach it: short copies one behind the
 * other, and one that is longer than what a device may keep of them. */
void case_copies(kernels *k)
{
    enum { SHORT = 40, LONG = 3000001 };
    reals many = reals_blank(k, SHORT * SHORT), one = reals_blank(k, LONG);
    double *want = wanted(k, SHORT * SHORT), *long_want = wanted(k, LONG);
    float *host = host_array(k, LONG, sizeof *host);
    for (int i = 0; i < SHORT; i++) {
        for (int j = 0; j < SHORT; j++) want[i * SHORT + j] = host[j] = (float)(i * 100 + j);
        k->be->to_device(k->d, SHORT * sizeof *host, host, many.d + i * SHORT);
    }
    for (int64_t i = 0; i < LONG; i++) long_want[i] = host[i] = (float)(i % 9973);
    k->be->to_device(k->d, LONG * sizeof *host, host, one.d);
    for (int64_t i = 0; i < LONG; i++) host[i] = NAN;
    result(k, "short copies", many, want, 0);
    result(k, "a long copy", one, long_want, 0);
}

static void block(kernels *k, int64_t rows, int64_t cols, float beta)
{
    int64_t ldx = cols + 2, ldy = cols + 5;
    reals x = reals_random(k, rows * ldx, -1, 1), y = reals_random(k, rows * ldy, -1, 1);
    double *want = wanted_from(k, y, 1);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++)
            want[i * ldy + j] = (double)beta * (double)y.h[i * ldy + j] + (double)x.h[i * ldx + j];
    k->be->copy_block(k->d, rows, cols, x.d, ldx, beta, y.d, ldy);
    result_each(k, "copy_block", y, want, 1e-6);
}

void case_passes(kernels *k)
{
    static const int64_t shape[][2] = { { 0, 5 }, { 5, 0 }, { 1, 1 }, { 7, 17 }, { 333, 301 } };
    for (int i = 0; i < LENGTHS; i++) pass(k, lengths[i]);
    for (int i = 0; i < 10; i++) block(k, shape[i / 2][0], shape[i / 2][1], (float)(i % 2));
    pass(k, 500000); /* copies are shared out in large pieces */
}

/* ---- sums ---- */

static void sum_over(kernels *k, const int64_t dim[5], int mask, float beta)
{
    nsmi_strides s = { { 0 } };
    int64_t n = 1, out = 1;
    for (int i = 4; i >= 0; i--) {
        n *= dim[i];
        if (mask >> i & 1) continue; /* summed over */
        s.stride[i] = out;
        out *= dim[i];
    }
    reals x = reals_random(k, n, -1, 1), y = reals_random(k, out, -1, 1);
    if (beta == 0) y = reals_blank(k, out);
    double *want = wanted_from(k, y, (double)beta);
    for (int64_t i = 0; i < n; i++) {
        int64_t rest = i, at = 0;
        for (int j = 4; j >= 0; j--) {
            at += rest % dim[j] * s.stride[j];
            rest /= dim[j];
        }
        want[at] += (double)x.h[i];
    }
    k->be->sum_to(k->d, dim, x.d, s, beta, y.d);
    result(k, "sum_to", y, want, 2e-5);
}

static void scalars(kernels *k, int64_t n)
{
    reals x = reals_random(k, n, -3, 3);
    double want = 0, got = k->be->sum_squares(k->d, n, x.d);
    for (int64_t i = 0; i < n; i++) want += (double)x.h[i] * (double)x.h[i];
    ck_assert_msg(fabs(got - want) <= 1e-12 * want, "sum_squares of %lld", (long long)n);
    k->digest = (k->digest ^ (uint64_t)(got * 1e6)) * 0x100000001b3ull;
    ck_assert(k->be->all_finite(k->d, n, x.d));
    static const float bad[] = { NAN, INFINITY, -INFINITY };
    for (int64_t i = 0; i < 3 && i < n; i++) {
        reals y = reals_copy(k, x);
        y.h[n - 1 - i] = bad[i];
        reals_up(k, y);
        ck_assert(!k->be->all_finite(k->d, n, y.d));
    }
}

void case_sums(kernels *k)
{
    static const int64_t dim[][5] = { { 2, 3, 4, 5, 7 },     { 1, 1, 1, 700, 130 },
                                      { 1, 300, 1, 17, 21 }, { 1, 1, 1, 1, 100003 },
                                      { 3, 0, 2, 1, 5 },     { 1, 1, 1, 1, 1 },
                                      { 90000, 1, 1, 1, 1 } };
    for (size_t i = 0; i < sizeof dim / sizeof *dim; i++)
        for (int mask = 0; mask < 32; mask += i ? 1 + 2 * (mask % 4) : 1)
            sum_over(k, dim[i], mask, (float)(mask % 2));
    for (int i = 0; i < LENGTHS; i++) scalars(k, lengths[i]);
    static const int64_t shape[][2] = {
        { 0, 3 }, { 1, 1 }, { 17, 33 }, { 9001, 16 }, { 65, 3001 }
    };
    for (int i = 0; i < 5; i++) {
        int64_t rows = shape[i][0], cols = shape[i][1];
        reals x = reals_random(k, rows * cols, -1, 1), y = reals_random(k, cols, -1, 1);
        double *want = wanted_from(k, y, 1);
        for (int64_t j = 0; j < rows * cols; j++) want[j % cols] += (double)x.h[j];
        k->be->column_sum(k->d, rows, cols, x.d, 1, y.d);
        result(k, "column_sum", y, want, 2e-5);
    }
}

/* ---- along an axis ---- */

static void reduction(kernels *k, nsmi_reduce f, int64_t outer, int64_t n, int64_t inner)
{
    reals x = reals_steps(k, outer * n * inner, 16), y = reals_blank(k, outer * inner);
    ints arg = ints_blank(k, outer * inner);
    double *want = wanted(k, outer * inner);
    int32_t *winner = host_array(k, outer * inner, sizeof *winner);
    bool picks = f == NSMI_MAX_OF || f == NSMI_MIN_OF;
    for (int64_t i = 0; i < outer * inner; i++) {
        const float *at = x.h + i / inner * n * inner + i % inner;
        double sum = 0;
        for (int64_t j = 0; j < n; j++) {
            sum += (double)at[j * inner];
            bool wins = f == NSMI_MAX_OF ? at[j * inner] > at[winner[i] * inner]
                                         : at[j * inner] < at[winner[i] * inner];
            if (wins) winner[i] = (int32_t)j;
        }
        want[i] = f == NSMI_SUM    ? sum
                  : f == NSMI_MEAN ? sum / (double)n
                                   : (double)at[winner[i] * inner];
    }
    k->be->reduce(k->d, f, outer, n, inner, x.d, y.d, picks ? arg.d : NULL);
    result(k, "reduce", y, want, picks ? 0 : 1e-5);
    if (!picks) return;
    result_ints(k, "reduce's places", arg, winner);
    reals dy = reals_random(k, outer * inner, -1, 1), dx = reals_random(k, x.n, -1, 1);
    want = wanted_from(k, dx, 1);
    for (int64_t i = 0; i < outer * inner; i++)
        want[i / inner * n * inner + winner[i] * inner + i % inner] += (double)dy.h[i];
    k->be->reduce_back(k->d, outer, n, inner, arg.d, dy.d, dx.d);
    result_each(k, "reduce_back", dx, want, 1e-6);
    k->be->reduce(k->d, f, outer, n, inner, x.d, y.d, NULL);
    result_digest(k, y);
}

static void largest(kernels *k, int64_t rows, int64_t cols)
{
    reals x = reals_steps(k, rows * cols, 100);
    ints y = ints_blank(k, rows);
    int32_t *want = host_array(k, rows, sizeof *want);
    for (int64_t i = 0; i < rows; i++) {
        if (i % 3 == 1) x.h[i * cols + i % cols] = NAN;
        for (int64_t j = 1; j < cols; j++) {
            float top = x.h[i * cols + want[i]], v = x.h[i * cols + j];
            if (v > top || (isnan(top) && !isnan(v))) want[i] = (int32_t)j;
        }
    }
    reals_up(k, x);
    k->be->argmax(k->d, rows, cols, x.d, y.d);
    result_ints(k, "argmax", y, want);
}

void case_extremes(kernels *k)
{
    static const int64_t shape[][3] = { { 1, 1, 1 },     { 3, 17, 5 },   { 0, 4, 3 },
                                        { 2000, 33, 1 }, { 7, 41, 300 }, { 2, 5, 0 },
                                        { 1, 70001, 1 }, { 1, 3001, 33 } };
    for (size_t i = 0; i < 4 * sizeof shape / sizeof *shape; i++)
        reduction(k, (nsmi_reduce)(i % 4), shape[i / 4][0], shape[i / 4][1], shape[i / 4][2]);
    largest(k, 0, 5);
    largest(k, 5, 1);
    largest(k, 31, 17);
    largest(k, 3000, 40);
    largest(k, 2, 50001);
}

/* ---- permutations ---- */

static void turn(kernels *k, const int64_t dim[5], const int perm[5], float beta)
{
    int64_t n = 1, stride[5];
    for (int i = 4; i >= 0; i--) {
        stride[i] = n;
        n *= dim[i];
    }
    reals x = reals_random(k, n, -1, 1), y = reals_random(k, n, -1, 1);
    double *want = wanted_from(k, y, (double)beta);
    for (int64_t i = 0; i < n; i++) {
        int64_t rest = i, from = 0;
        for (int j = 4; j >= 0; j--) {
            from += rest % dim[perm[j]] * stride[perm[j]];
            rest /= dim[perm[j]];
        }
        want[i] += (double)x.h[from];
    }
    k->be->permute(k->d, dim, perm, x.d, beta, y.d);
    result_each(k, "permute", y, want, 1e-6);
}

void case_turning(kernels *k)
{
    static const int64_t dim[][5] = {
        { 2, 3, 4, 5, 7 }, { 1, 1, 1, 301, 333 }, { 1, 5, 33, 17, 40 }, { 3, 0, 1, 2, 2 }
    };
    for (int p = 0; p < 120; p++) { /* the p-th permutation */
        int perm[5], left[5] = { 0, 1, 2, 3, 4 };
        for (int i = 0, rest = p; i < 5; i++) {
            int at = rest % (5 - i);
            rest /= 5 - i;
            perm[i] = left[at];
            for (int j = at; j < 4; j++) left[j] = left[j + 1];
        }
        turn(k, dim[0], perm, (float)(p % 2));
        if (p % 7 == 0)
            for (int i = 1; i < 4; i++) turn(k, dim[i], perm, (float)(p / 7 % 2));
    }
}

/* ---- random numbers ---- */

/* The cipher as its paper has it, all words of counter and key free. */
static void philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c[4] = { counter[0], counter[1], counter[2], counter[3] }, k[2] = { key[0], key[1] };
    for (int round = 0; round < 10; round++) {
        uint64_t a = 0xD2511F53ull * c[0], b = 0xCD9E8D57ull * c[2];
        uint32_t next[4] = { (uint32_t)(b >> 32) ^ c[1] ^ k[0], (uint32_t)b,
                             (uint32_t)(a >> 32) ^ c[3] ^ k[1], (uint32_t)a };
        memcpy(c, next, sizeof c);
        k[0] += 0x9E3779B9u;
        k[1] += 0xBB67AE85u;
    }
    memcpy(out, c, sizeof c);
}

/* The known answers that Random123 publishes with the cipher. */
static void known_answers(void)
{
    static const struct {
        uint32_t counter[4], key[2], answer[4];
    } known[] = {
        { { 0, 0, 0, 0 }, { 0, 0 }, { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 } },
        { { 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff },
          { 0xffffffff, 0xffffffff },
          { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd } },
        { { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 },
          { 0xa4093822, 0x299f31d0 },
          { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 } },
    };
    uint32_t word[4];
    for (int i = 0; i < 3; i++) {
        philox(known[i].counter, known[i].key, word);
        ck_assert(!memcmp(word, known[i].answer, sizeof word));
    }
}

static float unit(nsm_random r, int64_t i)
{
    uint64_t at = r.offset + (uint64_t)i / 4;
    uint32_t counter[4] = { (uint32_t)at, (uint32_t)(at >> 32), 0, 0 };
    uint32_t key[2] = { (uint32_t)r.seed, (uint32_t)(r.seed >> 32) }, word[4];
    philox(counter, key, word);
    return (float)(word[i % 4] >> 8) * 0x1p-24f;
}

static void draw(kernels *k, int64_t n, nsm_random r)
{
    reals y = reals_blank(k, n), x = reals_random(k, n, -1, 1), z = reals_random(k, n, -1, 1);
    float *u = host_array(k, n + 1, sizeof *u);
    double *want = wanted(k, n);
    for (int64_t i = 0; i <= n; i++) u[i] = unit(r, i);
    ck_assert(nsmi_philox_uniform(r.seed, r.offset, (uint64_t)n) == u[n]);
    for (int64_t i = 0; i < n; i++) want[i] = (double)u[i];
    k->be->uniform(k->d, r, 0, 1, n, y.d);
    result(k, "uniform", y, want, 0); /* to the bit */
    for (int64_t i = 0; i < n; i++) want[i] = -2 + 5 * (double)u[i];
    k->be->uniform(k->d, r, -2, 3, n, y.d);
    result_each(k, "uniform", y, want, 1e-6);
    for (int64_t i = 0; i < n; i++) {
        double radius = sqrt(-2 * log(1 - (double)u[i & ~1ll]));
        double angle = 6.283185307179586 * (double)u[i | 1];
        want[i] = 0.5 + 2 * radius * (i % 2 ? sin(angle) : cos(angle));
    }
    k->be->normal(k->d, r, 0.5f, 2, n, y.d);
    result(k, "normal", y, want, 1e-5);
    for (int adds = 0; adds < 2; adds++) {
        y = adds ? reals_copy(k, z) : reals_blank(k, n);
        for (int64_t i = 0; i < n; i++)
            want[i] = (adds ? (double)z.h[i] : 0) +
                      (u[i] >= 0.3f ? (double)x.h[i] / (1 - (double)0.3f) : 0);
        k->be->dropout(k->d, 0.3f, r, n, x.d, (float)adds, y.d);
        result_each(k, "dropout", y, want, 1e-6);
    }
}

void case_draws(kernels *k)
{
    known_answers();
    for (int i = 0; i < LENGTHS; i++)
        draw(k, lengths[i],
             (nsm_random){ 0x299f31d0a4093822ull + (uint64_t)i, 0xfffffff0ull + (uint64_t)i });
    draw(k, 1025, (nsm_random){ 0, 0 });
    draw(k, 1025, (nsm_random){ ~0ull, ~0ull - 100 });
}
