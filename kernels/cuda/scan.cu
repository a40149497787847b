/* kernels/cuda/scan.cu - Scans by channel: the selective scan of Mamba and the weighted sum of
 * RWKV-4.
 *
 * Chunks of NSMI_CHUNK tokens are computed side by side, in three passes: what a chunk makes of a
 * state of nothing; from these, one after another, the states before the chunks; the chunks from
 * these.  Backward the same with the gradients of states, from the end.  A thread is a channel, so
 * that neighbours read and write neighbours, with GROUP of its states in registers; channels of
 * more states go over the chunk once for each group and add.  Nothing of size B n D N is made:
 * backward keeps the state every STRIDE tokens of a chunk, and computes those between anew.
 *
 * Gradients of what channels share (B, C of a token) are summed over a warp; a block of 128
 * channels leaves one part, and these are added in order.
 * Letters: B batch, n tokens, D channels, N states. */
#include "kernels/cuda/functions.h"

enum {
    SCAN_GROUP = 8,
    SCAN_STRIDE = 8,
    SCAN_CHANNELS = 128,
    SCAN_PARTS = NSMI_CHUNK / SCAN_STRIDE,
    SCAN_WARPS = SCAN_CHANNELS / LANES
};

/* blocks: of channels, of a group */
typedef struct { nsmi_scan s; nsmi_scan_values in; int64_t chunks, blocks; } scanning;

/* A thread: a channel of a row, in one chunk; ch < 0: none. */
typedef struct { int64_t b, g, c, ch, block, t0, t1; } scan_spot;

static __device__ __forceinline__ scan_spot scan_place(const scanning &k)
{
    const int64_t own = k.s.channels / k.s.groups, task = blockIdx.x;
    scan_spot p = { task / k.blocks / k.s.groups / k.chunks,
                    task / k.blocks % k.s.groups,
                    task / k.blocks / k.s.groups % k.chunks,
                    0,
                    task % k.blocks,
                    0,
                    0 };
    int64_t at = p.block * SCAN_CHANNELS + threadIdx.x, there = nsmi_length(k.s.length, p.b, k.s.n);
    p.ch = at < own ? p.g * own + at : -1;
    p.t0 = p.c * NSMI_CHUNK;
    p.t1 = least(most(there, p.t0), p.t0 + NSMI_CHUNK);
    return p;
}

/* What a token brings. */
typedef struct { float raw, dt, u; } scan_token;

static __device__ __forceinline__ float softplus_of(float x)
{
    return high_of(x, 0) + log1pf(expf(-fabsf(x)));
}

static __device__ __forceinline__ scan_token token_of(const scanning &k, const scan_spot &p,
                                                      int64_t t)
{
    int64_t at = (p.b * k.s.n + t) * k.s.channels + p.ch;
    scan_token x = { k.in.dt[at] + (k.in.bias ? k.in.bias[p.ch] : 0), 0, k.in.u[at] };
    x.dt = k.s.softplus ? softplus_of(x.raw) : x.raw;
    return x;
}

/* States n0 .. n0 + GROUP of x [D, N]: 0 behind the last. */
static __device__ __forceinline__ void own_states(const scanning &k, const scan_spot &p,
                                                  const float *x, int64_t n0, float v[SCAN_GROUP])
{
    for (int i = 0; i < SCAN_GROUP; i++)
        v[i] = p.ch >= 0 && n0 + i < k.s.states ? x[p.ch * k.s.states + n0 + i] : 0;
}

/* B or C of a token. */
static __device__ __forceinline__ void factors(const scanning &k, const scan_spot &p,
                                               const float *x, const float fixed[SCAN_GROUP],
                                               int64_t t, int64_t n0, float v[SCAN_GROUP])
{
    const float *row = k.s.fixed ? x : x + ((p.b * k.s.n + t) * k.s.groups + p.g) * k.s.states + n0;
    for (int i = 0; i < SCAN_GROUP; i++)
        v[i] = k.s.fixed ? fixed[i] : n0 + i < k.s.states ? row[i] : 0;
}

/* Where state n of this channel stands in an array [B, chunks, N, D]. */
static __device__ __forceinline__ int64_t kept_place(const scanning &k, const scan_spot &p,
                                                     int64_t c, int64_t n)
{
    return ((p.b * k.chunks + c) * k.s.states + n) * k.s.channels + p.ch;
}

static __device__ __forceinline__ void scan_on(const scan_token &x, const float a[SCAN_GROUP],
                                               const float b[SCAN_GROUP], float s[SCAN_GROUP])
{
    for (int i = 0; i < SCAN_GROUP; i++) s[i] = s[i] * expf(x.dt * a[i]) + x.dt * x.u * b[i];
}

/* ---- forward ---- */

/* A chunk of a state of nothing: local [B, chunks, N, D], and the sum of dt [B, chunks, D]. */
static __global__ void scan_local_kernel(scanning k, float *local, float *sum)
{
    scan_spot p = scan_place(k);
    if (p.ch < 0) return;
    for (int64_t n0 = 0; n0 < k.s.states; n0 += SCAN_GROUP) {
        float a[SCAN_GROUP], fixed[SCAN_GROUP], b[SCAN_GROUP], s[SCAN_GROUP] = { 0 }, total = 0;
        own_states(k, p, k.in.a, n0, a);
        if (k.s.fixed) own_states(k, p, k.in.b, n0, fixed);
        for (int64_t t = p.t0; t < p.t1; t++) {
            scan_token x = token_of(k, p, t);
            factors(k, p, k.in.b, fixed, t, n0, b);
            scan_on(x, a, b, s);
            total += x.dt;
        }
        for (int i = 0; i < SCAN_GROUP; i++)
            if (n0 + i < k.s.states) local[kept_place(k, p, p.c, n0 + i)] = s[i];
        if (n0 == 0) sum[(p.b * k.chunks + p.c) * k.s.channels + p.ch] = total;
    }
}

/* From what chunks make of nothing: the state before each (back: the gradient behind each), in
 * their place; the last in end [B, D, N]. */
static __global__ void scan_join_kernel(int64_t items, scanning k, bool back, const float *sum,
                                        const float *start, float *states, float *end)
{
    EACH_ITEM(i, items) {
        int64_t ch = i % k.s.channels, n = i / k.s.channels % k.s.states,
                b = i / k.s.channels / k.s.states;
        int64_t at = (b * k.s.channels + ch) * k.s.states + n;
        float now = start ? start[at] : 0, a = k.in.a[ch * k.s.states + n];
        for (int64_t c = 0; c < k.chunks; c++) {
            int64_t row = b * k.chunks + (back ? k.chunks - 1 - c : c);
            float *place = &states[(row * k.s.states + n) * k.s.channels + ch], made = *place;
            *place = now;
            now = now * expf(a * sum[row * k.s.channels + ch]) + made;
        }
        if (end) end[at] = back ? end[at] + now : now;
    }
}

/* start: before the chunks, [B, chunks, N, D]; NULL: there is one chunk, which goes from s0 to
 * s1. */
static __global__ void scan_kernel(scanning k, const float *start, float *y, float *s1)
{
    scan_spot p = scan_place(k);
    if (p.ch < 0) return;
    const float skip = k.in.skip ? k.in.skip[p.ch] : 0;
    for (int64_t n0 = 0; n0 < k.s.states; n0 += SCAN_GROUP) {
        const bool last = n0 + SCAN_GROUP >= k.s.states;
        const int64_t size = k.s.channels * k.s.states;
        float a[SCAN_GROUP], fb[SCAN_GROUP], fc[SCAN_GROUP], b[SCAN_GROUP], c[SCAN_GROUP],
            s[SCAN_GROUP] = { 0 };
        own_states(k, p, k.in.a, n0, a);
        if (k.s.fixed) own_states(k, p, k.in.b, n0, fb);
        if (k.s.fixed) own_states(k, p, k.in.c, n0, fc);
        if (!start && k.in.s0) own_states(k, p, k.in.s0 + p.b * size, n0, s);
        for (int i = 0; start && i < SCAN_GROUP && n0 + i < k.s.states; i++)
            s[i] = start[kept_place(k, p, p.c, n0 + i)];
        for (int64_t t = p.t0; t < p.t1; t++) {
            int64_t at = (p.b * k.s.n + t) * k.s.channels + p.ch;
            scan_token x = token_of(k, p, t);
            factors(k, p, k.in.b, fb, t, n0, b);
            factors(k, p, k.in.c, fc, t, n0, c);
            scan_on(x, a, b, s);
            float sum = n0 ? y[at] : skip * x.u;
            for (int i = 0; i < SCAN_GROUP; i++) sum += s[i] * c[i];
            y[at] = last && k.in.z ? sum * k.in.z[at] * sigmoid_of(k.in.z[at]) : sum;
        }
        for (int i = 0; !start && i < SCAN_GROUP && n0 + i < k.s.states; i++)
            s1[p.b * size + p.ch * k.s.states + n0 + i] = s[i];
    }
    for (int64_t t = p.t1; t < least(p.t0 + NSMI_CHUNK, k.s.n); t++)
        y[(p.b * k.s.n + t) * k.s.channels + p.ch] = 0;
}

static scanning scanning_of(const nsmi_scan *s, const nsmi_scan_values *in)
{
    scanning k = { *s, *in, ceil_of(s->n, NSMI_CHUNK),
                   ceil_of(s->channels / s->groups, SCAN_CHANNELS) };
    return k;
}

#define SCAN_LAUNCH(d, kernel, k, ...) \
    NSM_LAUNCH(kernel, (unsigned)((k).s.batch * (k).chunks * (k).s.groups * (k).blocks), \
               SCAN_CHANNELS, stream_of(d), __VA_ARGS__)

static void scan(nsm_device *d, const nsmi_scan *s, const nsmi_scan_values *in, float *y, float *s1,
                 float *states)
{
    scanning k = scanning_of(s, in);
    const int64_t rows = s->batch * k.chunks * s->channels, kept = rows * s->states;
    if (rows == 0) return;
    if (k.chunks == 1 && !states) {
        SCAN_LAUNCH(d, scan_kernel, k, k, (const float *)NULL, y, s1);
        launched(d);
        return;
    }
    float *sum = scratch_floats(d, rows + (states ? 0 : kept));
    if (!sum) return;
    if (!states) states = sum + rows;
    SCAN_LAUNCH(d, scan_local_kernel, k, k, states, sum);
    FOR_ITEMS(d, scan_join_kernel, s->batch * s->channels * s->states, k, false, sum, in->s0,
              states, s1);
    SCAN_LAUNCH(d, scan_kernel, k, k, states, y, s1);
    launched(d);
}

/* ---- backward ---- */
typedef struct {
    const float *states, *dout;
    nsmi_scan_grads to;
    /* [B, chunks, N, D] gradients behind the chunks; [B, chunks, D] sums of dt */
    float *ds, *sum;
    /* [B, chunks, N, D] of a, and of fixed b, c: a part for each chunk */
    float *da, *db, *dc;
    float *dskip, *dbias;        /* [B, chunks, D] */
    float *part;                 /* [B, G, blocks, n, 2, N] of B and C; NULL: fixed */
} scan_backing;

/* The gradient of what the scan gave, before the gate. */
static __device__ __forceinline__ float ungated(const scanning &k, int64_t at, const float *dout)
{
    float z = k.in.z ? k.in.z[at] : 0;
    return k.in.z ? dout[at] * z * sigmoid_of(z) : dout[at];
}

/* What a chunk's outputs alone give to the state before it. */
static __global__ void scan_local_back_kernel(scanning k, scan_backing f)
{
    scan_spot p = scan_place(k);
    if (p.ch < 0) return;
    for (int64_t n0 = 0; n0 < k.s.states; n0 += SCAN_GROUP) {
        float a[SCAN_GROUP], fixed[SCAN_GROUP], c[SCAN_GROUP], sum[SCAN_GROUP] = { 0 }, total = 0;
        own_states(k, p, k.in.a, n0, a);
        if (k.s.fixed) own_states(k, p, k.in.c, n0, fixed);
        for (int64_t t = p.t0; t < p.t1; t++) {
            float dy = ungated(k, (p.b * k.s.n + t) * k.s.channels + p.ch, f.dout);
            total += token_of(k, p, t).dt;
            factors(k, p, k.in.c, fixed, t, n0, c);
            for (int i = 0; i < SCAN_GROUP; i++) sum[i] += dy * c[i] * expf(total * a[i]);
        }
        for (int i = 0; i < SCAN_GROUP; i++)
            if (n0 + i < k.s.states) f.ds[kept_place(k, p, p.c, n0 + i)] = sum[i];
        if (n0 == 0) f.sum[(p.b * k.chunks + p.c) * k.s.channels + p.ch] = total;
    }
}

/* What a thread carries through its chunk, of one group of states. */
typedef struct {
    float a[SCAN_GROUP], fb[SCAN_GROUP], fc[SCAN_GROUP];
    float ds[SCAN_GROUP], da[SCAN_GROUP], db[SCAN_GROUP], dc[SCAN_GROUP];
    float skip, dskip, dbias;
} scan_sums;

typedef float scan_shared[SCAN_WARPS][NSMI_CHUNK][2 * SCAN_GROUP];

/* Token t of a channel, whose state was `was` and became s; there: it is a token at all. */
static __device__ __forceinline__ void scan_token_back(const scanning &k, const scan_backing &f,
                                                       const scan_spot &p, int64_t t, bool there,
                                                       int64_t n0, const float was[SCAN_GROUP],
                                                       const float s[SCAN_GROUP], scan_sums &g,
                                                       scan_shared shared)
{
    float b[SCAN_GROUP], c[SCAN_GROUP], to_b[SCAN_GROUP], to_c[SCAN_GROUP], dt = 0, sum = 0, y = 0;
    const int64_t at = (p.b * k.s.n + t) * k.s.channels + p.ch;
    scan_token x = { 0, 0, 0 };
    float dy = 0;
    for (int i = 0; i < SCAN_GROUP; i++) to_b[i] = to_c[i] = 0;
    if (there) {
        x = token_of(k, p, t);
        dy = ungated(k, at, f.dout);
        factors(k, p, k.in.b, g.fb, t, n0, b);
        factors(k, p, k.in.c, g.fc, t, n0, c);
        for (int i = 0; i < SCAN_GROUP; i++) {
            float ds = g.ds[i] + dy * c[i], w = expf(x.dt * g.a[i]), fade = ds * was[i] * w;
            y += s[i] * c[i];
            to_c[i] = dy * s[i];
            to_b[i] = ds * x.dt * x.u;
            sum += ds * b[i];
            dt += fade * g.a[i];
            g.da[i] += fade * x.dt;
            g.ds[i] = ds * w;
        }
        float draw = (dt + sum * x.u) * (k.s.softplus ? sigmoid_of(x.raw) : 1),
              first = n0 == 0 ? 1 : 0;
        g.dskip += first * dy * x.u;
        g.dbias += draw;
        if (f.to.u) f.to.u[at] += sum * x.dt + first * dy * g.skip;
        if (f.to.dt) f.to.dt[at] += draw;
        if (f.to.z)
            f.to.z[at] += f.dout[at] * (y + first * g.skip * x.u) * gated_slope(k.in.z[at], 1);
    }
    if (k.s.fixed) {
        for (int i = 0; i < SCAN_GROUP; i++) {
            g.db[i] += to_b[i];
            g.dc[i] += to_c[i];
        }
        return;
    }
    float all_b = warp_sums<SCAN_GROUP>(to_b), all_c = warp_sums<SCAN_GROUP>(to_c);
    float *row = shared[threadIdx.x / LANES][t - p.t0];
    if (lane_of() < SCAN_GROUP) row[lane_of()] = all_b;
    else if (lane_of() < 2 * SCAN_GROUP) row[lane_of()] = all_c;
}

/* The chunk of one channel and group of states, from its end. */
static __device__ void scan_chunk_back(const scanning &k, const scan_backing &f, const scan_spot &p,
                                       int64_t n0, scan_sums &g, scan_shared shared)
{
    float kept[SCAN_PARTS][SCAN_GROUP], s[SCAN_GROUP] = { 0 }, b[SCAN_GROUP];
    const bool mine = p.ch >= 0;
    for (int i = 0; mine && i < SCAN_GROUP && n0 + i < k.s.states; i++)
        s[i] = f.states[kept_place(k, p, p.c, n0 + i)];
    for (int64_t t = p.t0; mine && t < p.t1; t++) {
        if ((t - p.t0) % SCAN_STRIDE == 0)
            for (int i = 0; i < SCAN_GROUP; i++) kept[(t - p.t0) / SCAN_STRIDE][i] = s[i];
        factors(k, p, k.in.b, g.fb, t, n0, b);
        scan_on(token_of(k, p, t), g.a, b, s);
    }
    for (int64_t part = ceil_of(p.t1 - p.t0, SCAN_STRIDE) - 1; part >= 0; part--) {
        float was[SCAN_STRIDE + 1][SCAN_GROUP];
        const int64_t first = p.t0 + part * SCAN_STRIDE;
        for (int i = 0; i < SCAN_GROUP; i++) was[0][i] = mine ? kept[part][i] : 0;
        for (int j = 0; j < SCAN_STRIDE; j++) {
            for (int i = 0; i < SCAN_GROUP; i++) was[j + 1][i] = was[j][i];
            if (!mine || first + j >= p.t1) continue;
            factors(k, p, k.in.b, g.fb, first + j, n0, b);
            scan_on(token_of(k, p, first + j), g.a, b, was[j + 1]);
        }
        for (int j = SCAN_STRIDE - 1; j >= 0; j--)
            if (first + j < p.t1)
                scan_token_back(k, f, p, first + j, mine, n0, was[j], was[j + 1], g, shared);
    }
}

static __device__ void put_scan_sums(const scanning &k, const scan_backing &f, const scan_spot &p,
                                     int64_t n0, const scan_sums &g)
{
    for (int i = 0; i < SCAN_GROUP && n0 + i < k.s.states; i++) {
        int64_t at = kept_place(k, p, p.c, n0 + i);
        f.da[at] = g.da[i];
        if (k.s.fixed) f.db[at] = g.db[i];
        if (k.s.fixed) f.dc[at] = g.dc[i];
    }
}

static __global__ void scan_back_kernel(scanning k, scan_backing f)
{
    __shared__ scan_shared shared;
    scan_spot p = scan_place(k);
    scan_sums g;
    g.skip = p.ch >= 0 && k.in.skip ? k.in.skip[p.ch] : 0;
    g.dskip = g.dbias = 0;
    for (int64_t n0 = 0; n0 < k.s.states; n0 += SCAN_GROUP) {
        own_states(k, p, k.in.a, n0, g.a);
        if (k.s.fixed) own_states(k, p, k.in.b, n0, g.fb);
        if (k.s.fixed) own_states(k, p, k.in.c, n0, g.fc);
        for (int i = 0; i < SCAN_GROUP; i++) {
            g.da[i] = g.db[i] = g.dc[i] = 0;
            g.ds[i] = p.ch >= 0 && n0 + i < k.s.states ? f.ds[kept_place(k, p, p.c, n0 + i)] : 0;
        }
        scan_chunk_back(k, f, p, n0, g, shared);
        if (p.ch >= 0) put_scan_sums(k, f, p, n0, g);
        if (k.s.fixed) continue;
        __syncthreads();
        float *part = f.part +
                      ((p.b * k.s.groups + p.g) * k.blocks + p.block) * k.s.n * 2 * k.s.states;
        for (int64_t i = threadIdx.x; i < (p.t1 - p.t0) * 2 * SCAN_GROUP; i += SCAN_CHANNELS) {
            int64_t t = i / (2 * SCAN_GROUP), which = i / SCAN_GROUP % 2, n = n0 + i % SCAN_GROUP;
            float sum = 0;
            for (int w = 0; w < SCAN_WARPS; w++) sum += shared[w][t][i % (2 * SCAN_GROUP)];
            if (n < k.s.states) part[((p.t0 + t) * 2 + which) * k.s.states + n] = sum;
        }
        __syncthreads();
    }
    if (p.ch < 0) return;
    f.dskip[(p.b * k.chunks + p.c) * k.s.channels + p.ch] = g.dskip;
    f.dbias[(p.b * k.chunks + p.c) * k.s.channels + p.ch] = g.dbias;
}

/* to [B, D, size] = (adds: +=) the sum over chunks of from [B, chunks, size, D] */
static __global__ void scan_chunks_kernel(int64_t items, int64_t chunks, int64_t channels,
                                          int64_t size, bool adds, const float *from, float *to)
{
    EACH_ITEM(i, items) {
        int64_t ch = i % channels, n = i / channels % size, b = i / channels / size,
                at = (b * channels + ch) * size + n;
        float sum = 0;
        for (int64_t c = 0; c < chunks; c++)
            sum += from[((b * chunks + c) * size + n) * channels + ch];
        to[at] = sum + (adds ? to[at] : 0);
    }
}

/* dB and dC [B, n, G, N] += the parts of a group's blocks. */
static __global__ void scan_parts_kernel(int64_t items, scanning k, const float *part, float *db,
                                         float *dc)
{
    EACH_ITEM(i, items) {
        int64_t n = i % k.s.states, g = i / k.s.states % k.s.groups,
                row = i / k.s.states / k.s.groups, b = row / k.s.n, t = row % k.s.n;
        float sum[2] = { 0, 0 };
        if (t >= nsmi_length(k.s.length, b, k.s.n)) continue;
        for (int64_t block = 0; block < k.blocks; block++)
            for (int which = 0; which < 2; which++)
                sum[which] +=
                    part[((((b * k.s.groups + g) * k.blocks + block) * k.s.n + t) * 2 + which) *
                             k.s.states +
                         n];
        if (db) db[i] += sum[0];
        if (dc) dc[i] += sum[1];
    }
}

/* The sums over chunks; a gradient that nobody wants is left out. */
static void join_scan_chunks(nsm_device *d, const scanning &k, const scan_backing &f)
{
    const int64_t channels = k.s.batch * k.s.channels, states = channels * k.s.states;
    if (f.to.a)
        FOR_ITEMS(d, scan_chunks_kernel, states, k.chunks, k.s.channels, k.s.states, false, f.da,
                  f.to.a);
    if (k.s.fixed && f.to.b)
        FOR_ITEMS(d, scan_chunks_kernel, states, k.chunks, k.s.channels, k.s.states, false, f.db,
                  f.to.b);
    if (k.s.fixed && f.to.c)
        FOR_ITEMS(d, scan_chunks_kernel, states, k.chunks, k.s.channels, k.s.states, false, f.dc,
                  f.to.c);
    if (f.to.skip)
        FOR_ITEMS(d, scan_chunks_kernel, channels, k.chunks, k.s.channels, (int64_t)1, false,
                  f.dskip, f.to.skip);
    if (f.to.bias)
        FOR_ITEMS(d, scan_chunks_kernel, channels, k.chunks, k.s.channels, (int64_t)1, false,
                  f.dbias, f.to.bias);
    if (!k.s.fixed && (f.to.b || f.to.c))
        FOR_ITEMS(d, scan_parts_kernel, k.s.batch * k.s.n * k.s.groups * k.s.states, k, f.part,
                  f.to.b, f.to.c);
}

static void scan_back(nsm_device *d, const nsmi_scan *s, const nsmi_scan_values *in,
                      const float *states, const float *dout, const float *ds1, float *scratch,
                      const nsmi_scan_grads *to)
{
    scanning k = scanning_of(s, in);
    const int64_t rows = s->batch * k.chunks * s->channels, kept = rows * s->states;
    if (rows == 0) return;
    float *at = scratch_floats(d, 3 * rows + (s->fixed ? 4 : 2) * kept);
    if (!at) return;
    scan_backing f = { states,
                       dout,
                       *to,
                       at,
                       at + kept,
                       at + kept + 3 * rows,
                       NULL,
                       NULL,
                       at + kept + rows,
                       at + kept + 2 * rows,
                       scratch };
    if (s->fixed) f.db = f.da + kept;
    if (s->fixed) f.dc = f.db + kept;
    SCAN_LAUNCH(d, scan_local_back_kernel, k, k, f);
    FOR_ITEMS(d, scan_join_kernel, s->batch * s->channels * s->states, k, true, f.sum, ds1, f.ds,
              to->s0);
    SCAN_LAUNCH(d, scan_back_kernel, k, k, f);
    join_scan_chunks(d, k, f);
    launched(d);
}

/* ---- RWKV-4: y_t = (sum over i < t of e^((t-1-i) w + k_i) v_i + e^(u + k_t) v_t) / (the same
 * without v) ---- */
typedef struct { float num, den, top; } wkv_state; /* the true sums are num e^top, den e^top */
typedef struct {
    int64_t batch, n, channels, chunks;
    const int32_t *length;
    const float *w, *u, *k, *v;
} wkv_scan;

static __device__ __forceinline__ float wkv_read(const wkv_state &s, float u, float k, float v,
                                                 float *past, float *own, float *den)
{
    float p = high_of(s.top, u + k);
    *past = expf(s.top - p);
    *own = expf(u + k - p);
    *den = *past * s.den + *own;
    return (*past * s.num + *own * v) / *den;
}

static __device__ __forceinline__ void wkv_write(wkv_state &s, float w, float k, float v,
                                                 float *past, float *own)
{
    float q = high_of(s.top + w, k);
    *past = expf(s.top + w - q);
    *own = expf(k - q);
    s.num = *past * s.num + *own * v;
    s.den = *past * s.den + *own;
    s.top = q;
}

/* A thread: a channel of a row, in one chunk. */
typedef struct { int64_t b, c, ch, t0, t1; } wkv_spot;
static __device__ __forceinline__ wkv_spot wkv_place(const wkv_scan &f, int64_t i)
{
    wkv_spot p = { i / f.channels / f.chunks, i / f.channels % f.chunks, i % f.channels, 0, 0 };
    p.t0 = p.c * NSMI_CHUNK;
    p.t1 = least(most(nsmi_length(f.length, p.b, f.n), p.t0), p.t0 + NSMI_CHUNK);
    return p;
}

/* s [rows, 3, C] */
static __device__ __forceinline__ wkv_state wkv_load(const wkv_scan &f, const float *s, int64_t row,
                                                     int64_t ch)
{
    const float *at = s + row * 3 * f.channels + ch;
    wkv_state r = { at[0], at[f.channels], at[2 * f.channels] };
    return r;
}
static __device__ __forceinline__ void wkv_store(const wkv_scan &f, const wkv_state &s, float *to,
                                                 int64_t row, int64_t ch)
{
    float *at = to + row * 3 * f.channels + ch;
    at[0] = s.num, at[f.channels] = s.den, at[2 * f.channels] = s.top;
}

static __global__ void wkv_local_kernel(int64_t items, wkv_scan f, float *states)
{
    EACH_ITEM(i, items) {
        wkv_spot p = wkv_place(f, i);
        wkv_state s = { 0, 0, minus_infinity() };
        float w = f.w[p.ch], past, own;
        for (int64_t t = p.t0, at = (p.b * f.n + t) * f.channels + p.ch; t < p.t1;
             t++, at += f.channels)
            wkv_write(s, w, f.k[at], f.v[at], &past, &own);
        wkv_store(f, s, states, p.b * f.chunks + p.c, p.ch);
    }
}

/* The states before the chunks, from what chunks make of nothing: what stood before fades by as
 * many tokens. */
static __global__ void wkv_join_kernel(int64_t items, wkv_scan f, const float *s0, float *states,
                                       float *s1)
{
    EACH_ITEM(i, items) {
        int64_t b = i / f.channels, ch = i % f.channels, there = nsmi_length(f.length, b, f.n);
        wkv_state s = wkv_load(f, s0, b, ch);
        for (int64_t c = 0; c < f.chunks; c++) {
            wkv_state made = wkv_load(f, states, b * f.chunks + c, ch);
            wkv_store(f, s, states, b * f.chunks + c, ch);
            if (there <= c * NSMI_CHUNK) continue;
            float fallen = s.top + (float)least(there - c * NSMI_CHUNK, NSMI_CHUNK) * f.w[ch],
                  top = high_of(fallen, made.top);
            float past = expf(fallen - top), own = expf(made.top - top);
            s.num = past * s.num + own * made.num;
            s.den = past * s.den + own * made.den;
            s.top = top;
        }
        wkv_store(f, s, s1, b, ch);
    }
}

static __global__ void wkv_kernel(int64_t items, wkv_scan f, const float *states, float *y)
{
    EACH_ITEM(i, items) {
        wkv_spot p = wkv_place(f, i);
        wkv_state s = wkv_load(f, states, p.b * f.chunks + p.c, p.ch);
        float w = f.w[p.ch], u = f.u[p.ch], past, own, den;
        int64_t at = (p.b * f.n + p.t0) * f.channels + p.ch;
        for (int64_t t = p.t0; t < least(p.t0 + NSMI_CHUNK, f.n); t++, at += f.channels) {
            y[at] = t < p.t1 ? wkv_read(s, u, f.k[at], f.v[at], &past, &own, &den) : 0;
            if (t < p.t1) wkv_write(s, w, f.k[at], f.v[at], &past, &own);
        }
    }
}

static void wkv(nsm_device *d, int64_t batch, int64_t n, int64_t channels, const int32_t *length,
                const float *w, const float *u, const float *k, const float *v, const float *s0,
                float *y, float *s1, float *states)
{
    wkv_scan f = { batch, n, channels, ceil_of(n, NSMI_CHUNK), length, w, u, k, v };
    const int64_t items = batch * f.chunks * channels;
    if (!states) states = scratch_floats(d, 3 * items);
    if (!states) return;
    FOR_ITEMS(d, wkv_local_kernel, items, f, states);
    FOR_ITEMS(d, wkv_join_kernel, batch * channels, f, s0, states, s1);
    FOR_ITEMS(d, wkv_kernel, items, f, states, y);
}

/* The scale of the sums is free: gradients are of num and den at the scale that stands, and none
 * passes through it but to the first. */
typedef struct { float num, den, w, u; } wkv_sums;

static __device__ __forceinline__ void wkv_token_back(const wkv_state &was, float w, float u,
                                                      float k, float v, float dy, wkv_sums &g,
                                                      float *dk, float *dv)
{
    float past, own, den, ahead, mine;
    wkv_state s = was;
    float y = wkv_read(was, u, k, v, &past, &own, &den);
    wkv_write(s, w, k, v, &ahead, &mine);
    float gn = dy / den, gd = -gn * y, through = mine * (g.num * v + g.den),
          at = own * (gn * v + gd);
    *dv = mine * g.num + own * gn;
    *dk = through + at;
    g.u += at;
    g.w += ahead * (g.num * was.num + g.den * was.den);
    g.num = ahead * g.num + past * gn;
    g.den = ahead * g.den + past * gd;
}

/* ds [B, chunks, 3, C]: behind chunks; dw, du by chunk */
typedef struct { const float *states, *dout; float *dw, *du, *dk, *dv, *ds0, *ds; } wkv_backing;

/* A chunk from its end; known: the gradient behind it is known, and what it gives is kept, else
 * what it gives the state before it. */
static __device__ void wkv_chunk_back(const wkv_scan &f, const wkv_backing &k, const wkv_spot &p,
                                      bool known)
{
    const int64_t row = p.b * f.chunks + p.c;
    wkv_state was[SCAN_STRIDE + 1], kept[SCAN_PARTS], s = wkv_load(f, k.states, row, p.ch),
                                                      behind = { 0, 0, 0 };
    const float w = f.w[p.ch], u = f.u[p.ch];
    float past, own;
    if (known) behind = wkv_load(f, k.ds, row, p.ch);
    wkv_sums g = { behind.num, behind.den, 0, 0 };
    for (int64_t t = p.t0, at = (p.b * f.n + t) * f.channels + p.ch; t < p.t1;
         t++, at += f.channels) {
        if ((t - p.t0) % SCAN_STRIDE == 0) kept[(t - p.t0) / SCAN_STRIDE] = s;
        wkv_write(s, w, f.k[at], f.v[at], &past, &own);
    }
    for (int64_t part = ceil_of(p.t1 - p.t0, SCAN_STRIDE) - 1; part >= 0; part--) {
        const int64_t first = p.t0 + part * SCAN_STRIDE;
        was[0] = kept[part];
        for (int j = 0; j < SCAN_STRIDE; j++) {
            int64_t at = (p.b * f.n + first + j) * f.channels + p.ch;
            was[j + 1] = was[j];
            if (first + j < p.t1) wkv_write(was[j + 1], w, f.k[at], f.v[at], &past, &own);
        }
        for (int j = SCAN_STRIDE - 1; j >= 0; j--) {
            int64_t at = (p.b * f.n + first + j) * f.channels + p.ch;
            float dk, dv;
            if (first + j >= p.t1) continue;
            wkv_token_back(was[j], w, u, f.k[at], f.v[at], k.dout[at], g, &dk, &dv);
            if (known && k.dk) k.dk[at] += dk;
            if (known && k.dv) k.dv[at] += dv;
        }
    }
    if (known) {
        k.dw[row * f.channels + p.ch] = g.w;
        k.du[row * f.channels + p.ch] = g.u;
    } else {
        wkv_state own_part = { g.num, g.den, s.top };
        wkv_store(f, own_part, k.ds, row, p.ch);
    }
}

static __global__ void wkv_back_kernel(int64_t items, wkv_scan f, wkv_backing k, bool known)
{
    EACH_ITEM(i, items) wkv_chunk_back(f, k, wkv_place(f, i), known);
}

/* The gradients behind the chunks, from what chunks give alone: past a chunk they fade as the
 * state's scale does. */
static __global__ void wkv_join_back_kernel(int64_t items, wkv_scan f, wkv_backing k)
{
    EACH_ITEM(i, items) {
        int64_t b = i / f.channels, ch = i % f.channels, there = nsmi_length(f.length, b, f.n);
        wkv_state g = { 0, 0, 0 };
        for (int64_t c = f.chunks - 1; c >= 0; c--) {
            wkv_state made = wkv_load(f, k.ds, b * f.chunks + c, ch);
            wkv_store(f, g, k.ds, b * f.chunks + c, ch);
            if (there <= c * NSMI_CHUNK) continue;
            float top = k.states[((b * f.chunks + c) * 3 + 2) * f.channels + ch];
            float passed = expf(top + (float)least(there - c * NSMI_CHUNK, NSMI_CHUNK) * f.w[ch] -
                                made.top);
            g.num = passed * g.num + made.num;
            g.den = passed * g.den + made.den;
        }
        if (!k.ds0 || there == 0) continue;
        wkv_state first = wkv_load(f, k.states, b * f.chunks, ch), was = wkv_load(f, k.ds0, b, ch);
        wkv_state sum = { was.num + g.num, was.den + g.den,
                          was.top + g.num * first.num + g.den * first.den };
        wkv_store(f, sum, k.ds0, b, ch);
    }
}

static void wkv_back(nsm_device *d, int64_t batch, int64_t n, int64_t channels,
                     const int32_t *length, const float *w, const float *u, const float *k,
                     const float *v, const float *states, const float *dout, float *dw, float *du,
                     float *dk, float *dv, float *ds0)
{
    wkv_scan f = { batch, n, channels, ceil_of(n, NSMI_CHUNK), length, w, u, k, v };
    const int64_t items = batch * f.chunks * channels;
    float *room = items ? scratch_floats(d, 5 * items) : NULL;
    if (!room) return;
    wkv_backing g = { states, dout, room, room + items, dk, dv, ds0, room + 2 * items };
    FOR_ITEMS(d, wkv_back_kernel, items, f, g, false);
    FOR_ITEMS(d, wkv_join_back_kernel, batch * channels, f, g);
    FOR_ITEMS(d, wkv_back_kernel, items, f, g, true);
    FOR_ITEMS(d, scan_chunks_kernel, batch * channels, f.chunks, channels, (int64_t)1, false, g.dw,
              dw);
    FOR_ITEMS(d, scan_chunks_kernel, batch * channels, f.chunks, channels, (int64_t)1, false, g.du,
              du);
}

void nsmi_cuda_scan(nsm_backend *be)
{
    be->scan = scan;
    be->scan_back = scan_back;
    be->wkv = wkv;
    be->wkv_back = wkv_back;
}
