/* kernels/cpu/elementwise.c - Functions of one and of two numbers over arrays, and the fused
 * bias + activation + dropout.
 *
 * Each function is a pair of inline vector functions: its value, and its derivative times dy.
 * A macro makes of each pair the loops over a run of elements, and a table lists the loops. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/random.h"

enum { DIMS = 5 };

/* ---- functions of one number: x, constants a and b ---- */

static inline vf positive(vf x, vf yes, vf no) { return vf_pick(x > 0, yes, no); }
static inline vf within(vf x, vf low, vf high, vf dy)
{
    return vf_pick((x >= low) & (x <= high), dy, vf_set(0));
}

#define SQRT_HALF 0.7071067812f
#define SQRT_2_OVER_PI 0.7978845608f
#define ONE_OVER_SQRT_2_PI 0.3989422804f
#define GELU_CUBIC 0.044715f

/* tanh(log(1 + exp(x))) without cancellation: (e^2 + 2e) / (e^2 + 2e + 2), 1 in float from 20 on */
static inline vf mish_gate(vf x)
{
    vf e = vf_exp(vf_min(vf_set(20), x)), s = e * (e + 2);
    return s / (s + 2);
}

static inline vf mish_back(vf x, vf dy)
{
    vf gate = mish_gate(x);
    return dy * (gate + x * vf_sigmoid(x) * (1 - gate * gate));
}

static inline vf gelu_tanh_back(vf x, vf dy)
{
    vf t = vf_tanh(SQRT_2_OVER_PI * (x + GELU_CUBIC * x * x * x));
    vf slope = SQRT_2_OVER_PI * (1 + 3 * GELU_CUBIC * x * x);
    return dy * (0.5f * (1 + t) + 0.5f * x * (1 - t * t) * slope);
}

static inline vf sigmoid_back(vf x, vf dy)
{
    vf s = vf_sigmoid(x);
    return dy * s * (1 - s);
}

static inline vf tanh_back(vf x, vf dy)
{
    vf t = vf_tanh(x);
    return dy * (1 - t * t);
}

static inline vf quick_gelu_back(vf x, vf dy)
{
    vf s = vf_sigmoid(1.702f * x);
    return dy * s * (1 + 1.702f * x * (1 - s));
}

/* name, its value, its derivative times dy; SOFTPLUS: a is beta, b the threshold */
#define UNARY(F) \
    F(RELU, vf_max(vf_set(0), x), positive(x, dy, vf_set(0))) \
    F(LEAKY_RELU, positive(x, x, a * x), positive(x, dy, a * dy)) \
    F(ELU, positive(x, x, a * vf_expm1(x)), positive(x, dy, a * dy * vf_exp(x))) \
    F(GELU, 0.5f * x * (1 + vf_erf(SQRT_HALF * x)), \
      dy * (0.5f * (1 + vf_erf(SQRT_HALF * x)) + x * ONE_OVER_SQRT_2_PI * vf_exp(-0.5f * x * x))) \
    F(GELU_TANH, 0.5f * x * (1 + vf_tanh(SQRT_2_OVER_PI * (x + GELU_CUBIC * x * x * x))), \
      gelu_tanh_back(x, dy)) \
    F(SILU, x * vf_sigmoid(x), vf_silu_back(x, dy)) \
    F(SIGMOID, vf_sigmoid(x), sigmoid_back(x, dy)) \
    F(TANH, vf_tanh(x), tanh_back(x, dy)) \
    F(SOFTPLUS, vf_pick(a * x > b, x, vf_log1p(vf_exp(a * x)) / a), \
      vf_pick(a * x > b, dy, dy * vf_sigmoid(a * x))) \
    F(RELU6, vf_min(vf_set(6), vf_max(vf_set(0), x)), vf_pick((x > 0) & (x < 6), dy, vf_set(0))) \
    F(HARDSWISH, x * vf_min(vf_set(6), vf_max(vf_set(0), x + 3)) / 6, \
      vf_pick(x < -3, vf_set(0), vf_pick(x <= 3, dy * (x / 3 + 0.5f), dy))) \
    F(MISH, x * mish_gate(x), mish_back(x, dy)) \
    F(QUICK_GELU, x * vf_sigmoid(1.702f * x), quick_gelu_back(x, dy)) \
    F(EXP, vf_exp(x), dy * vf_exp(x)) \
    F(LOG, vf_log(x), dy / x) \
    F(SQRT, vf_sqrt(x), 0.5f * dy / vf_sqrt(x)) \
    F(RSQRT, 1 / vf_sqrt(x), -0.5f * dy / (x * vf_sqrt(x))) \
    F(SQUARE, x * x, 2 * x * dy) \
    F(ABS, vf_abs(x), positive(x, dy, vf_pick(x < 0, -dy, vf_set(0)))) \
    F(NEG, -x, -dy) \
    F(RECIPROCAL, 1 / x, -dy / (x * x)) \
    F(SIN, vf_sin(x), dy * vf_cos(x)) \
    F(COS, vf_cos(x), -dy * vf_sin(x)) \
    F(SCALE, a * x + b, a * dy) \
    F(CLAMP, vf_min(b, vf_max(a, x)), within(x, a, b, dy)) \
    F(LOG_SIGMOID, vf_min(vf_set(0), x) - vf_log1p(vf_exp(-vf_abs(x))), dy * vf_sigmoid(-x)) \
    F(IDENTITY, x, dy)

#define UNARY_LOOPS(name, value, slope) \
    static inline vf name##_value(vf x, vf a, vf b) \
    { \
        (void)a; \
        (void)b; \
        return value; \
    } \
    static inline vf name##_slope(vf x, vf dy, vf a, vf b) \
    { \
        (void)x; \
        (void)a; \
        (void)b; \
        return slope; \
    } \
    static void name##_run(int64_t n, float a, float b, const float *x, float *y) \
    { \
        vf va = vf_set(a), vb = vf_set(b); \
        VF_EACH(i, k, n, { vf_put(y + i, name##_value(vf_get(x + i, k), va, vb), k); }); \
    } \
    static void name##_back(int64_t n, float a, float b, const float *x, const float *dy, \
                            float beta, float *dx) \
    { \
        vf va = vf_set(a), vb = vf_set(b); \
        if (beta == 0) \
            VF_EACH(i, k, n, { \
                vf d = name##_slope(vf_get(x + i, k), vf_get(dy + i, k), va, vb); \
                vf_put(dx + i, d, k); \
            }); \
        else \
            VF_EACH(i, k, n, { \
                vf d = name##_slope(vf_get(x + i, k), vf_get(dy + i, k), va, vb); \
                vf_put(dx + i, beta * vf_get(dx + i, k) + d, k); \
            }); \
    }
UNARY(UNARY_LOOPS)

static const struct {
    void (*run)(int64_t n, float a, float b, const float *x, float *y);
    void (*back)(int64_t n, float a, float b, const float *x, const float *dy, float beta,
                 float *dx);
} unaries[NSMI_UNARIES] = {
#define UNARY_ENTRY(name, value, slope) [NSMI_##name] = { name##_run, name##_back },
    UNARY(UNARY_ENTRY)
};

static void unary(nsm_device *d, nsmi_unary f, float a, float b, int64_t n, const float *x,
                  float *y)
{
#pragma omp parallel for num_threads(nsmi_team(d, n)) schedule(static)
    for (int64_t block = 0; block < nsmi_blocks(n, NSMI_BLOCK); block++) {
        int64_t i = block * NSMI_BLOCK;
        unaries[f].run(nsmi_block_end(block, NSMI_BLOCK, n) - i, a, b, x + i, y + i);
    }
}

static void unary_back(nsm_device *d, nsmi_unary f, float a, float b, int64_t n, const float *x,
                       const float *dy, float beta, float *dx)
{
#pragma omp parallel for num_threads(nsmi_team(d, n)) schedule(static)
    for (int64_t block = 0; block < nsmi_blocks(n, NSMI_BLOCK); block++) {
        int64_t i = block * NSMI_BLOCK;
        unaries[f].back(nsmi_block_end(block, NSMI_BLOCK, n) - i, a, b, x + i, dy + i, beta,
                        dx + i);
    }
}

/* ---- functions of two numbers ---- */

static inline vf divide_b(vf a, vf b, vf dy) { return -dy * a / (b * b); }

/* A maximum of equals gives each half of dy; NaN shows in the value. */
static inline vf larger(vf a, vf b) { return vf_pick((a > b) | (a != a), a, b); }
static inline vf smaller(vf a, vf b) { return vf_pick((a < b) | (a != a), a, b); }
static inline vf share(vi mine, vf a, vf b, vf dy)
{
    return vf_pick(mine, dy, vf_pick(a == b, 0.5f * dy, vf_set(0)));
}

/* name, its value, its derivatives in a and in b times dy */
#define BINARY(F) \
    F(ADD, a + b, dy, dy) \
    F(SUB, a - b, dy, -dy) \
    F(MUL, a * b, dy * b, dy * a) \
    F(DIV, a / b, dy / b, divide_b(a, b, dy)) \
    F(MAX, larger(a, b), share(a > b, a, b, dy), share(b > a, a, b, dy)) \
    F(MIN, smaller(a, b), share(a < b, a, b, dy), share(b < a, a, b, dy)) \
    F(GATE, a * (b * vf_sigmoid(b)), dy * b * vf_sigmoid(b), vf_silu_back(b, dy * a))

/* W lanes of an operand along the last dim: a run, one number, or every stride-th. */
static inline vf operand(const float *p, int64_t stride, int64_t i, int64_t k)
{
    if (stride == 1) return vf_get(p + i, k);
    if (stride == 0) return vf_set(*p);
    vf v = {0};
    for (int64_t j = 0; j < k; j++) v[j] = p[(i + j) * stride];
    return v;
}

static inline void add_or_put(float *p, float beta, vf v, int64_t k)
{
    vf_put(p, beta == 0 ? v : beta * vf_get(p, k) + v, k);
}

#define BINARY_RUN(expr, sa, sb) \
    VF_EACH(i, k, n, { \
        vf a = operand(pa, sa, i, k), b = operand(pb, sb, i, k); \
        vf_put(y + i, expr, k); \
    })

#define BINARY_LOOPS(name, value, slope_a, slope_b) \
    static void name##_run(int64_t n, const float *pa, int64_t sa, const float *pb, int64_t sb, \
                           float *y) \
    { \
        if (sa == 1 && sb == 1) BINARY_RUN(value, 1, 1); \
        else if (sa == 1 && sb == 0) BINARY_RUN(value, 1, 0); \
        else if (sa == 0 && sb == 1) BINARY_RUN(value, 0, 1); \
        else BINARY_RUN(value, sa, sb); \
    } \
    static void name##_back(int64_t n, const float *pa, int64_t sa, const float *pb, int64_t sb, \
                            const float *pdy, float beta_a, float *da, float beta_b, float *db) \
    { \
        VF_EACH(i, k, n, { \
            vf a = operand(pa, sa, i, k), b = operand(pb, sb, i, k), dy = vf_get(pdy + i, k); \
            (void)a; \
            (void)b; \
            if (da) add_or_put(da + i, beta_a, slope_a, k); \
            if (db) add_or_put(db + i, beta_b, slope_b, k); \
        }); \
    }
BINARY(BINARY_LOOPS)

static const struct {
    void (*run)(int64_t n, const float *a, int64_t sa, const float *b, int64_t sb, float *y);
    void (*back)(int64_t n, const float *a, int64_t sa, const float *b, int64_t sb, const float *dy,
                 float beta_a, float *da, float beta_b, float *db);
} binaries[NSMI_BINARIES] = {
#define BINARY_ENTRY(name, value, slope_a, slope_b) [NSMI_##name] = { name##_run, name##_back },
    BINARY(BINARY_ENTRY)
};

/* Two broadcast operands over rows of a last dim: dims of 1 left out, joint neighbours joined. */
typedef struct {
    int rank;
    int64_t dim[DIMS], as[DIMS], bs[DIMS];
    int64_t n, inner, rows;     /* elements, the last dim, the product of the others */
    int64_t row_block, piece, pieces; /* rows a task; or pieces of a long row */
} broadcast;

static broadcast broadcast_of(const int64_t dim[DIMS], nsmi_strides as, nsmi_strides bs)
{
    broadcast c = { .n = 1, .inner = 1 };
    for (int k = 0; k < DIMS; k++) {
        int64_t sa = as.stride[k], sb = bs.stride[k];
        int p = c.rank - 1;
        c.n *= dim[k];
        if (dim[k] == 1) continue;
        if (c.rank && c.as[p] == sa * dim[k] && c.bs[p] == sb * dim[k]) {
            c.dim[p] *= dim[k];
        } else {
            p = c.rank++;
            c.dim[p] = dim[k];
        }
        c.as[p] = sa;
        c.bs[p] = sb;
    }
    if (c.rank) c.inner = c.dim[c.rank - 1];
    c.rows = c.inner ? c.n / c.inner : 0;
    c.row_block = nsmi_block_rows(c.inner);
    c.piece = c.inner < NSMI_BLOCK ? c.inner : NSMI_BLOCK;
    c.pieces = c.inner ? nsmi_blocks(c.inner, c.piece) : 0;
    return c;
}

/* Where row r of the operands starts. */
static inline void broadcast_at(const broadcast *c, int64_t r, int64_t *a, int64_t *b)
{
    *a = *b = 0;
    for (int k = c->rank - 2; k >= 0; k--) {
        int64_t i = k ? r % c->dim[k] : r;
        *a += i * c->as[k];
        *b += i * c->bs[k];
        if (k) r /= c->dim[k];
    }
}

/* Do the loop body for every run: n elements, at `at` in y, at oa and ob in the operands, whose
 * inner strides are sa and sb. */
#define FOR_RUNS(c) \
    int64_t sa = c.rank ? c.as[c.rank - 1] : 0, sb = c.rank ? c.bs[c.rank - 1] : 0; \
    _Pragma("omp parallel for num_threads(nsmi_team(d, c.n)) schedule(static)") for ( \
        int64_t task = 0; task < nsmi_blocks(c.rows, c.row_block) * c.pieces; \
        task++) for (int64_t r = task / c.pieces * c.row_block, first = task % c.pieces * c.piece, \
                     oa, ob, at, n; \
                     r < nsmi_block_end(task / c.pieces, c.row_block, c.rows) && \
                     (broadcast_at(&c, r, &oa, &ob), oa += first * sa, ob += first * sb, \
                      at = r * c.inner + first, \
                      n = nsmi_block_end(task % c.pieces, c.piece, c.inner) - first, true); \
                     r++)

static void binary(nsm_device *d, nsmi_binary f, const int64_t dim[DIMS], const float *a,
                   nsmi_strides as, const float *b, nsmi_strides bs, float *y)
{
    broadcast c = broadcast_of(dim, as, bs);
    FOR_RUNS(c) binaries[f].run(n, a + oa, sa, b + ob, sb, y + at);
}

static void binary_back(nsm_device *d, nsmi_binary f, const int64_t dim[DIMS], const float *a,
                        nsmi_strides as, const float *b, nsmi_strides bs, const float *dy,
                        float beta_a, float *da, float beta_b, float *db)
{
    broadcast c = broadcast_of(dim, as, bs);
    FOR_RUNS(c)
    binaries[f].back(n, a + oa, sa, b + ob, sb, dy + at, beta_a, da ? da + at : NULL, beta_b,
                     db ? db + at : NULL);
}

static void lerp(nsm_device *d, int64_t n, float t, const float *x, float *y)
{
#pragma omp parallel for num_threads(nsmi_team(d, n)) schedule(static)
    for (int64_t block = 0; block < nsmi_blocks(n, NSMI_BLOCK); block++)
        for (int64_t i = block * NSMI_BLOCK; i < nsmi_block_end(block, NSMI_BLOCK, n); i++)
            y[i] += t * (x[i] - y[i]);
}

/* ---- bias, activation and dropout in one pass ----
 * A chunk of at most NSMI_DRAWS elements, whole rows or a piece of one, stays in the first cache
 * while each step goes over it. */

typedef struct {
    nsmi_unary f;
    float a, b, p, scale;
    nsm_random r;
    int64_t rows, cols, chunk_rows, chunk_cols;
} fused;

static fused fused_of(nsmi_unary f, float a, float b, float p, nsm_random r, int64_t rows,
                      int64_t cols)
{
    fused u = { f, a, b, p, p < 1 ? 1 / (1 - p) : 0, r, rows, cols, 1, cols };
    if (cols < NSMI_DRAWS)
        u.chunk_rows = NSMI_DRAWS / cols;
    else
        u.chunk_cols = NSMI_DRAWS;
    return u;
}

/* y = x + bias; rows of `cols`, the elements of a chunk. */
static void add_bias(int64_t rows, int64_t cols, const float *x, const float *bias, float *y)
{
    for (int64_t r = 0; r < rows; r++, x += cols, y += cols)
        VF_EACH(i, k, cols, { vf_put(y + i, vf_get(x + i, k) + vf_get(bias + i, k), k); });
}

/* y = x where the draws from `first` on keep it, scaled; y may be x. */
static void drop(const fused *u, int64_t first, int64_t n, const float *x, float *y)
{
    float buffer[NSMI_DRAW_ROOM];
    const float *draw = nsmi_units(u->r, first, n, buffer);
    vf p = vf_set(u->p);
    VF_EACH(i, k, n, {
        vf_put(y + i, vf_pick(vf_get(draw + i, k) >= p, u->scale * vf_get(x + i, k), vf_set(0)), k);
    });
}

static void bias_act_dropout(nsm_device *d, nsmi_unary f, float a, float b, float p, nsm_random r,
                             int64_t rows, int64_t cols, const float *x, const float *bias,
                             float *y)
{
    if (rows == 0 || cols == 0) return;
    fused u = fused_of(f, a, b, p, r, rows, cols);
    int64_t size = nsmi_block_rows(cols);
#pragma omp parallel for num_threads(nsmi_team(d, rows * cols)) schedule(static)
    for (int64_t block = 0; block < nsmi_blocks(rows, size); block++)
        for (int64_t row = block * size, end = nsmi_block_end(block, size, rows); row < end;
             row += u.chunk_rows)
            for (int64_t col = 0; col < cols; col += u.chunk_cols) {
                int64_t m = end - row < u.chunk_rows ? end - row : u.chunk_rows;
                int64_t n = cols - col < u.chunk_cols ? cols - col : u.chunk_cols,
                        at = row * cols + col;
                if (bias) add_bias(m, n, x + at, bias + col, y + at);
                if (f != NSMI_IDENTITY || !bias)
                    unaries[f].run(m * n, a, b, bias ? y + at : x + at, y + at);
                if (p > 0) drop(&u, at, m * n, y + at, y + at);
            }
}

/* The gradient at x + bias of one chunk, into g (which may be dy). */
static void fused_slope(const fused *u, int64_t m, int64_t n, int64_t at, int64_t col,
                        const float *x, const float *bias, const float *y, const float *dy,
                        float *g)
{
    float sum[NSMI_DRAWS];
    const float *from = dy + at;
    if (!x && u->f == NSMI_RELU) { /* y > 0: it was kept and is positive */
        const float *value = y + at;
        VF_EACH(i, k, m * n, {
            vf_put(g + i, positive(vf_get(value + i, k), u->scale * vf_get(from + i, k), vf_set(0)),
                   k);
        });
        return;
    }
    if (u->p > 0) {
        drop(u, at, m * n, from, g);
        from = g;
    }
    if (u->f == NSMI_IDENTITY) {
        if (from != g) memmove(g, from, (size_t)(m * n) * sizeof(float));
        return;
    }
    if (bias) add_bias(m, n, x + at, bias + col, sum);
    unaries[u->f].back(m * n, u->a, u->b, bias ? sum : x + at, from, 0, g);
}

static void add_rows(int64_t rows, int64_t cols, const float *g, float *sum)
{
    for (int64_t r = 0; r < rows; r++, g += cols)
        VF_EACH(i, k, cols, { vf_put(sum + i, vf_get(sum + i, k) + vf_get(g + i, k), k); });
}

/* dbias comes from partial sums of fixed blocks of rows, added in order. */
static void bias_act_dropout_back(nsm_device *d, nsmi_unary f, float a, float b, float p,
                                  nsm_random r, int64_t rows, int64_t cols, const float *x,
                                  const float *bias, const float *y, const float *dy, float beta,
                                  float *dx, float *dbias)
{
    if (rows == 0 || cols == 0) return;
    fused u = fused_of(f, a, b, p, r, rows, cols);
    int64_t size = dbias ? nsmi_partial_rows(rows, cols, cols) : nsmi_block_rows(cols),
            blocks = nsmi_blocks(rows, size);
    float *partial = dbias ? nsmi_scratch(d) : NULL; /* [blocks, C] */
#pragma omp parallel for num_threads(nsmi_team(d, rows * cols)) schedule(static)
    for (int64_t block = 0; block < blocks; block++) {
        float g[NSMI_DRAWS];
        if (partial) memset(partial + block * cols, 0, (size_t)cols * sizeof(float));
        for (int64_t row = block * size, end = nsmi_block_end(block, size, rows); row < end;
             row += u.chunk_rows)
            for (int64_t col = 0; col < cols; col += u.chunk_cols) {
                int64_t m = end - row < u.chunk_rows ? end - row : u.chunk_rows;
                int64_t n = cols - col < u.chunk_cols ? cols - col : u.chunk_cols,
                        at = row * cols + col;
                fused_slope(&u, m, n, at, col, x, bias, y, dy, g);
                if (partial) add_rows(m, n, g, partial + block * cols + col);
                float *to = dx + at;
                VF_EACH(i, k, m * n, {
                    vf v = vf_get(g + i, k);
                    blend_n(to + i, beta, v, k);
                });
            }
    }
    if (partial)
        for (int64_t block = 0; block < blocks; block++)
            add_rows(1, cols, partial + block * cols, dbias);
}

void NSMI_FILL(elementwise)(nsm_backend *be)
{
    be->unary = unary;
    be->unary_back = unary_back;
    be->binary = binary;
    be->binary_back = binary_back;
    be->lerp = lerp;
    be->bias_act_dropout = bias_act_dropout;
    be->bias_act_dropout_back = bias_act_dropout_back;
}
