/* kernels/cuda/memory.cu - What stands around the slots of the state memory: clocks, the exact
 * window, the mix.
 *
 * Phases are sums over the tokens of a head in double, by a block: each thread a run of tokens, the
 * runs joined by a scan.  In the window a warp takes a query, its lanes the keys; backward leaves p
 * and the gradient of each score in scratch memory, from which a key gathers what its queries give
 * it.
 * Letters: B batch, n tokens, H heads, D, E sizes of keys and values, w window. */
#include "kernels/cuda/functions.h"
#include "kernels/cuda/rows.h"

/* ---- clock ---- */
typedef struct { double omega[NSMI_CLOCK_PAIRS]; } clock_speeds;

/* What pair m turns by a phase of 1: from a quarter turn down by 10^1.5. */
static clock_speeds speeds_of(int64_t pairs)
{
    clock_speeds s;
    for (int64_t m = 0; m < pairs; m++)
        s.omega[m] = acos(-1.0) / 2 *
                     pow(10, -1.5 * (double)m / (double)(pairs > 1 ? pairs - 1 : 1));
    return s;
}

/* Sums of a head's numbers up to each token, or from each on: put(i, sum).  The sum of all runs
 * before this thread's first. */
template <class X, class Put>
static __device__ void sum_along(const nsmi_clock &c, bool back, double start, X x, Put put)
{
    __shared__ double part[BLOCK];
    const int64_t run = ceil_of(c.tokens, BLOCK), first = least(threadIdx.x * run, c.tokens),
                  last = least(first + run, c.tokens);
    const int me = (int)threadIdx.x;
    double sum = 0;
    auto place = [&](int64_t t) {
        int64_t at = back ? c.tokens - 1 - t : t;
        return ((blockIdx.x / c.heads) * c.tokens + at) * c.heads + blockIdx.x % c.heads;
    };
    for (int64_t t = first; t < last; t++) sum += (double)x(place(t));
    part[me] = sum;
    for (int o = 1; o < BLOCK; o *= 2) {
        __syncthreads();
        double more = me >= o ? part[me - o] : 0;
        __syncthreads();
        part[me] += more;
    }
    __syncthreads();
    sum = start + (me ? part[me - 1] : 0);
    for (int64_t t = first; t < last; t++) put(place(t), t, sum += (double)x(place(t)));
}

/* Phases of all tokens of a head; where the last one is left, if start is in double. */
static __global__ void phases_kernel(nsmi_clock c, const float *rate, double *phase)
{
    const int64_t b = blockIdx.x / c.heads,
                  at = (b * c.rows + c.row) * c.heads + blockIdx.x % c.heads,
                  there = nsmi_length(c.length, b, c.tokens);
    double start = c.start ? c.start[at] : c.start_float ? (double)c.start_float[at] : 0;
    sum_along(
        c, false, start, [&](int64_t i) { return rate[i]; },
        [&](int64_t i, int64_t t, double sum) {
            phase[i] = sum;
            if (c.start && t == there - 1) c.start[at] = sum;
        });
}

/* The sine and cosine of pair m's angle, reduced in double. */
static __device__ __forceinline__ void pair_turn(const clock_speeds &s, int64_t m, double phase,
                                                 float *sine, float *cosine)
{
    const double whole = 6.283185307179586476925;
    double a = phase * s.omega[m] / whole;
    float angle = (float)((a - rint(a)) * whole);
    *sine = sinf(angle);
    *cosine = cosf(angle);
}

/* A warp a row. */
static __global__ void clock_kernel(int64_t rows, nsmi_clock c, clock_speeds s, const float *x,
                                    const double *phase, float *by, float *y)
{
    int64_t i = group_number<LANES>(), pairs = c.pairs;
    if (i >= rows) return;
    x += i * c.size;
    y += i * c.size;
    float unit = 1 / sqrtf(dot_warp(x, x, c.size) + 1e-6f), sine, cosine;
    if (lane_of() == 0) by[i] = unit;
    for (int64_t m = lane_of(); m < pairs; m += LANES) {
        pair_turn(s, m, phase[i], &sine, &cosine);
        float a = unit * x[m], b = unit * x[pairs + m];
        y[m] = a * cosine - b * sine;
        y[pairs + m] = a * sine + b * cosine;
    }
    for (int64_t m = 2 * pairs + lane_of(); m < c.size; m += LANES) y[m] = unit * x[m];
}

static void clock_turn(nsm_device *d, const nsmi_clock *c, const float *x, const float *rate,
                       double *phase, float *by, float *y)
{
    const int64_t rows = c->batch * c->tokens * c->heads;
    if (rows == 0) return;
    if (c->pairs)
        NSM_LAUNCH(phases_kernel, (unsigned)(c->batch * c->heads), BLOCK, stream_of(d), *c, rate,
                   phase);
    NSM_LAUNCH(clock_kernel, groups_of(rows, LANES), BLOCK, stream_of(d), rows, *c,
               speeds_of(c->pairs), x, phase, by, y);
    launched(d);
}

/* With u the unit vector before it was turned and g its gradient: dx = (g - u (u . g)) / |x|. */
static __global__ void clock_back_kernel(int64_t rows, nsmi_clock c, clock_speeds s,
                                         const double *phase, const float *by, const float *y,
                                         const float *dy, float *dphase, float beta, float *dx)
{
    int64_t i = group_number<LANES>(), pairs = c.pairs;
    if (i >= rows) return;
    y += i * c.size;
    dy += i * c.size;
    dx += i * c.size;
    float along = dot_warp(y, dy, c.size), sum = 0, sine, cosine;
    for (int64_t m = lane_of(); m < pairs; m += LANES) {
        float a = y[m], b = y[pairs + m], da = dy[m], db = dy[pairs + m];
        pair_turn(s, m, phase[i], &sine, &cosine);
        sum += (float)s.omega[m] * (a * db - b * da);
        put(&dx[m], beta, by[i] * (da * cosine + db * sine - (a * cosine + b * sine) * along));
        put(&dx[pairs + m], beta,
            by[i] * (db * cosine - da * sine - (b * cosine - a * sine) * along));
    }
    for (int64_t m = 2 * pairs + lane_of(); m < c.size; m += LANES)
        put(&dx[m], beta, by[i] * (dy[m] - y[m] * along));
    sum = warp_sum(sum);
    if (lane_of() == 0) dphase[i] = sum;
}

/* A rate moves its own phase and all later ones. */
static __global__ void phases_back_kernel(nsmi_clock c, const float *dphase, float *drate,
                                          float *dstart)
{
    const int64_t at = ((blockIdx.x / c.heads) * c.rows + c.row) * c.heads + blockIdx.x % c.heads;
    sum_along(
        c, true, 0, [&](int64_t i) { return dphase[i]; },
        [&](int64_t i, int64_t t, double sum) {
            if (drate) drate[i] += (float)sum;
            if (dstart && t == c.tokens - 1) dstart[at] += (float)sum;
        });
}

static void clock_back(nsm_device *d, const nsmi_clock *c, const double *phase, const float *by,
                       const float *y, const float *dy, float *scratch, float beta, float *dx,
                       float *drate, float *dstart)
{
    const int64_t rows = c->batch * c->tokens * c->heads;
    if (rows == 0) return;
    NSM_LAUNCH(clock_back_kernel, groups_of(rows, LANES), BLOCK, stream_of(d), rows, *c,
               speeds_of(c->pairs), phase, by, y, dy, scratch, beta, dx);
    if (drate || dstart)
        NSM_LAUNCH(phases_back_kernel, (unsigned)(c->batch * c->heads), BLOCK, stream_of(d), *c,
                   scratch, drate, dstart);
    launched(d);
}

/* ---- window ---- */
typedef struct { nsmi_window c; nsmi_window_in in; } windowed;
/* keys: how many it sees, itself first */
typedef struct { int64_t b, t, h, keys; const float *q; } window_query;

static __device__ __forceinline__ int64_t window_past(const windowed &k, int64_t b)
{
    if (!k.in.past_k) return 0;
    return !k.c.seen || k.c.seen[b] > k.c.window - 1 ? k.c.window - 1 : k.c.seen[b];
}

static __device__ __forceinline__ window_query window_query_of(const windowed &k, int64_t i)
{
    window_query r = { i / k.c.heads / k.c.tokens, i / k.c.heads % k.c.tokens, i % k.c.heads, 0,
                       k.in.q + i * k.c.keys };
    r.keys = least(k.c.window, r.t + 1 + window_past(k, r.b));
    return r;
}

/* Row j of x [B, n, H, size], or of those before it. */
static __device__ __forceinline__ const float *window_row(const windowed &k, const float *x,
                                                          const float *past, int64_t b, int64_t j,
                                                          int64_t h, int64_t size)
{
    if (j >= 0) return x + ((b * k.c.tokens + j) * k.c.heads + h) * size;
    return past + ((b * (k.c.window - 1) + k.c.window - 1 + j) * k.c.heads + h) * size;
}

static __device__ __forceinline__ float window_product(const windowed &k, const window_query &r,
                                                       int64_t off)
{
    return dot_of(r.q, window_row(k, k.in.k, k.in.past_k, r.b, r.t - off, r.h, k.c.keys), k.c.keys);
}

static __global__ void window_kernel(int64_t queries, windowed k, float *y, float *lse)
{
    int64_t i = group_number<LANES>();
    if (i >= queries) return;
    window_query r = window_query_of(k, i);
    const float gamma = k.in.gamma[r.h];
    for (int64_t first = 0; first < k.c.values; first += WIDE) {
        float top = minus_infinity(), sum = 0, held[HELD];
        clear(held);
        for (int64_t o0 = 0; o0 < r.keys; o0 += LANES) {
            int64_t off = o0 + lane_of();
            float s = off < r.keys
                          ? gamma * window_product(k, r, off) + k.in.bias[r.h * k.c.window + off]
                          : minus_infinity(),
                  best = warp_max(s);
            if (best > top) {
                float scale = expf(top - best);
                sum *= scale;
                for (int x = 0; x < HELD; x++) held[x] *= scale;
                top = best;
            }
            float p = expf(s - top);
            sum += p;
            for (int64_t o = o0; o < o0 + LANES && o < r.keys; o++)
                add_row(held, __shfl_sync(0xffffffffu, p, (int)(o - o0)),
                        window_row(k, k.in.v, k.in.past_v, r.b, r.t - o, r.h, k.c.values), first,
                        k.c.values);
        }
        sum = warp_sum(sum);
        put_row(held, 1 / sum, 0, y + i * k.c.values, first, k.c.values);
        if (first == 0 && lse && lane_of() == 0) lse[i] = top + logf(sum);
    }
}

static int64_t window_room(nsm_device *d, const nsmi_window *c, bool back)
{
    (void)d;
    return back ? c->batch * c->tokens * c->heads * (2 * c->window + 1) : 1;
}

static void window(nsm_device *d, const nsmi_window *c, const nsmi_window_in *in, float *scratch,
                   float *y, float *lse)
{
    const int64_t queries = c->batch * c->tokens * c->heads;
    windowed k = { *c, *in };
    (void)scratch;
    if (queries == 0) return;
    NSM_LAUNCH(window_kernel, groups_of(queries, LANES), BLOCK, stream_of(d), queries, k, y, lse);
    launched(d);
}

/* p and ds [B, n, H, w], and gamma's [B, n, H]: of each query. */
typedef struct {
    const float *lse, *dy;
    float *p, *ds, *dgamma;
    nsmi_window_grad to;
} window_backing;

/* A query: p and ds of its keys, 0 where it sees none, and dq. */
static __global__ void window_query_kernel(int64_t queries, windowed k, window_backing f)
{
    int64_t i = group_number<LANES>(), w = k.c.window;
    if (i >= queries) return;
    window_query r = window_query_of(k, i);
    const float gamma = k.in.gamma[r.h];
    float delta = 0, with_score = 0, score = 0;
    for (int64_t off = lane_of(); off < w; off += LANES) {
        float p = 0, dp = 0;
        if (off < r.keys) {
            float s = window_product(k, r, off);
            p = expf(gamma * s + k.in.bias[r.h * w + off] - f.lse[i]);
            dp = p * dot_of(f.dy + i * k.c.values,
                            window_row(k, k.in.v, k.in.past_v, r.b, r.t - off, r.h, k.c.values),
                            k.c.values);
            delta += dp;
            with_score += dp * s;
            score += p * s;
        }
        f.p[i * w + off] = p;
        f.ds[i * w + off] = dp;
    }
    delta = warp_sum(delta);
    with_score = warp_sum(with_score);
    score = warp_sum(score);
    if (lane_of() == 0) f.dgamma[i] = with_score - delta * score;
    for (int64_t off = lane_of(); off < w; off += LANES)
        f.ds[i * w + off] -= f.p[i * w + off] * delta;
    __syncwarp();
    for (int64_t first = 0; first < k.c.keys; first += WIDE) {
        float held[HELD];
        clear(held);
        for (int64_t o = 0; o < r.keys; o++)
            add_row(held, f.ds[i * w + o],
                    window_row(k, k.in.k, k.in.past_k, r.b, r.t - o, r.h, k.c.keys), first,
                    k.c.keys);
        put_row(held, gamma, 1, f.to.dq + i * k.c.keys, first, k.c.keys);
    }
}

/* A key, those before the tokens too: what the queries that see it give it. */
static __global__ void window_key_kernel(int64_t keys, windowed k, window_backing f)
{
    int64_t i = group_number<LANES>(), h = i % k.c.heads, before = k.c.window - 1,
            rows = k.c.tokens + before, w = k.c.window;
    if (i >= keys) return;
    int64_t j = i / k.c.heads % rows - before, b = i / k.c.heads / rows,
            size = most(k.c.keys, k.c.values);
    int64_t t0 = most(j, 0), t1 = least(k.c.tokens, j + w),
            at = j >= 0 ? (b * k.c.tokens + j) * k.c.heads + h
                        : (b * before + before + j) * k.c.heads + h;
    float *dk = j >= 0 ? f.to.dk : f.to.dpast_k, *dv = j >= 0 ? f.to.dv : f.to.dpast_v;
    if (!dk && !dv) return;
    for (int64_t first = 0; first < size; first += WIDE) {
        float held_k[HELD], held_v[HELD];
        clear(held_k);
        clear(held_v);
        for (int64_t t = t0; t < t1; t++) {
            int64_t row = (b * k.c.tokens + t) * k.c.heads + h;
            add_row(held_k, f.ds[row * w + t - j], k.in.q + row * k.c.keys, first, k.c.keys);
            add_row(held_v, f.p[row * w + t - j], f.dy + row * k.c.values, first, k.c.values);
        }
        if (dk) put_row(held_k, k.in.gamma[h], 1, dk + at * k.c.keys, first, k.c.keys);
        if (dv) put_row(held_v, 1, 1, dv + at * k.c.values, first, k.c.values);
    }
}

static void window_back(nsm_device *d, const nsmi_window *c, const nsmi_window_in *in,
                        const float *lse, const float *dy, float *scratch,
                        const nsmi_window_grad *g)
{
    const int64_t rows = c->batch * c->tokens, queries = rows * c->heads,
                  keys = c->batch * (c->tokens + c->window - 1) * c->heads;
    windowed k = { *c, *in };
    window_backing f = {
        lse, dy, scratch, scratch + queries * c->window, scratch + 2 * queries * c->window, *g
    };
    if (queries == 0) return;
    NSM_LAUNCH(window_query_kernel, groups_of(queries, LANES), BLOCK, stream_of(d), queries, k, f);
    NSM_LAUNCH(window_key_kernel, groups_of(keys, LANES), BLOCK, stream_of(d), keys, k, f);
    launched(d);
    d->be->column_sum(d, rows, c->heads * c->window, f.ds, 1, g->dbias);
    d->be->column_sum(d, rows, c->heads, f.dgamma, 1, g->dgamma);
}

/* ---- mix: y = g m rms(o) w + (1 - g) near, g = sigmoid(gate); rows are tokens of a head, a warp
 * each ---- */
static __device__ __forceinline__ float rms_of(const float *o, int64_t size)
{
    return 1 / sqrtf(dot_warp(o, o, size) / (float)size + 1e-5f);
}

static __global__ void mix_kernel(int64_t rows, int64_t heads, int64_t size, nsmi_mix x,
                                  const float *w, float *y)
{
    int64_t i = group_number<LANES>(), at = i * size;
    if (i >= rows) return;
    float r = x.mass[i] * rms_of(x.o + at, size);
    for (int64_t e = lane_of(); e < size; e += LANES) {
        float g = sigmoid_of(x.gate[at + e]), b = x.near[at + e];
        y[at + e] = b + g * (r * x.o[at + e] * w[i % heads * size + e] - b);
    }
}

static void memory_mix(nsm_device *d, int64_t tokens, int64_t heads, int64_t size, const float *o,
                       const float *mass, const float *near, const float *gate, const float *w,
                       float *y)
{
    nsmi_mix x = { o, mass, near, gate };
    if (tokens * heads == 0) return;
    NSM_LAUNCH(mix_kernel, groups_of(tokens * heads, LANES), BLOCK, stream_of(d), tokens * heads,
               heads, size, x, w, y);
    launched(d);
}

/* One row: a = dy g m w is the gradient of x = o r; do = r (a - x mean(x a)).  unit [rows]: r, for
 * w's gradient. */
static __global__ void mix_back_kernel(int64_t rows, int64_t heads, int64_t size, nsmi_mix x,
                                       const float *w, const float *dy, nsmi_mix_grad g,
                                       float *unit)
{
    int64_t i = group_number<LANES>(), at = i * size;
    if (i >= rows) return;
    const float *o = x.o + at, *by = w + i % heads * size;
    float r = rms_of(o, size), m = x.mass[i], along = 0;
    if (lane_of() == 0) unit[i] = r;
    for (int64_t e = lane_of(); e < size; e += LANES) {
        float gate = sigmoid_of(x.gate[at + e]), far = r * o[e] * by[e], d = dy[at + e];
        if (g.gate)
            put(&g.gate[at + e], g.beta[3], d * gate * (1 - gate) * (m * far - x.near[at + e]));
        if (g.near) put(&g.near[at + e], g.beta[2], d * (1 - gate));
        along += d * gate * far;
    }
    along = warp_sum(along);
    if (g.mass && lane_of() == 0) put(&g.mass[i], g.beta[1], along);
    along *= m / (float)size;
    for (int64_t e = lane_of(); g.o && e < size; e += LANES) {
        float a = dy[at + e] * sigmoid_of(x.gate[at + e]) * m * by[e];
        put(&g.o[at + e], g.beta[0], r * (a - r * o[e] * along));
    }
}

/* Part `i / (H E)` of the tokens' sum for weight i % (H E): partial [H E, parts] */
static __global__ void mix_weights_kernel(int64_t items, int64_t tokens, int64_t heads,
                                          int64_t size, int64_t part, int64_t parts, nsmi_mix x,
                                          const float *dy, const float *unit, float *partial)
{
    EACH_ITEM(i, items) {
        int64_t wide = heads * size, c = i % wide, p = i / wide, h = c / size;
        float sum = 0;
        for (int64_t t = p * part; t < least((p + 1) * part, tokens); t++) {
            int64_t at = t * wide + c, row = t * heads + h;
            sum += dy[at] * sigmoid_of(x.gate[at]) * x.mass[row] * unit[row] * x.o[at];
        }
        partial[c * parts + p] = sum;
    }
}

static void memory_mix_back(nsm_device *d, int64_t tokens, int64_t heads, int64_t size,
                            const nsmi_mix *x, const float *w, const float *dy,
                            const nsmi_mix_grad *g)
{
    const int64_t rows = tokens * heads, wide = heads * size;
    int64_t part, parts;
    cut_sum(tokens, wide, false, &part, &parts);
    const int64_t dim[DIMS] = { 1, 1, 1, wide, parts };
    const nsmi_strides s = { { 0, 0, 0, 1, 0 } };
    float *unit = rows ? scratch_floats(d, rows + wide * parts) : NULL;
    if (!unit) return;
    NSM_LAUNCH(mix_back_kernel, groups_of(rows, LANES), BLOCK, stream_of(d), rows, heads, size, *x,
               w, dy, *g, unit);
    launched(d);
    if (!g->w) return;
    FOR_ITEMS(d, mix_weights_kernel, wide * parts, tokens, heads, size, part, parts, *x, dy, unit,
              unit + rows);
    d->be->sum_to(d, dim, unit + rows, s, 1, g->w); /* so few that it needs no scratch memory */
}

void nsmi_cuda_memory(nsm_backend *be)
{
    be->clock = clock_turn;
    be->clock_back = clock_back;
    be->window_room = window_room;
    be->window = window;
    be->window_back = window_back;
    be->memory_mix = memory_mix;
    be->memory_mix_back = memory_mix_back;
}
