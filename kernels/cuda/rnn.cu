/* kernels/cuda/rnn.cu - LSTM and GRU: one direction of one layer over whole sequences.
 *
 * A step is one launch: every hidden number of a step needs all of the step before, and only the
 * end of a kernel makes all blocks meet.  A warp takes a unit with all of its gates and up to ROWS
 * rows of the batch, its lanes share the units that are multiplied, so weights are read once for
 * all of these rows and along their length; what the gates do follows in the same launch.  Backward
 * the weights stand turned, and a launch goes from the gates' gradients of one step to those of the
 * step before.
 * Letters: B batch, n steps, H units, G gates (4 of an LSTM, 3 of a GRU). */
#include "kernels/cuda/functions.h"

enum { RNN_ROWS = 8, RNN_GATES = 4 };

typedef struct {
    nsmi_rnn a;
    int64_t gates;                    /* G */
    const float *gx, *w, *bias, *h0, *c0;
    float *y, *saved, *c_saved, *c;   /* c [B, H]: the running cell */
    /* backward; w is turned: [H, G * H] */
    const float *dy, *y_read, *gates_read, *c_read;
    float *dh, *dc, *dg, *dgh, *h_before;
} rnn_job;

/* A warp's place: a unit, and the first of its rows. */
typedef struct { int64_t unit, b0, rows; } rnn_spot;

static __device__ __forceinline__ rnn_spot rnn_place(const rnn_job &j)
{
    int64_t i = group_number<LANES>();
    rnn_spot p = { i % j.a.hidden, i / j.a.hidden * RNN_ROWS, 0 };
    p.rows = least(j.a.batch - p.b0, RNN_ROWS);
    return p;
}

static __device__ __forceinline__ int64_t rnn_length(const rnn_job &j, int64_t b)
{
    return nsmi_length(j.a.length, b, j.a.n);
}
static __device__ __forceinline__ int64_t rnn_first(const rnn_job &j, int64_t b)
{
    return j.a.reverse ? rnn_length(j, b) - 1 : 0;
}

/* The hidden row that step t of row b begins from; NULL: zeros. */
static __device__ __forceinline__ const float *rnn_before(const rnn_job &j, const float *y,
                                                          int64_t b, int64_t t)
{
    if (t == rnn_first(j, b) || t >= rnn_length(j, b)) return j.h0 ? j.h0 + b * j.a.hidden : NULL;
    return y + (b * j.a.n + t + (j.a.reverse ? 1 : -1)) * j.a.hidden;
}

static __device__ __forceinline__ float number_at(const float *row, int64_t i)
{
    return row ? row[i] : 0;
}

static __device__ __forceinline__ int64_t rnn_time(const rnn_job &j, int64_t s)
{
    return j.a.reverse ? j.a.n - 1 - s : s;
}

/* What is left of the gates once their sums are there, for one unit of one row. */
static __device__ void lstm_gates(const rnn_job &j, int64_t b, int64_t t, int64_t u,
                                  const float sum[RNN_GATES])
{
    const int64_t h = j.a.hidden, place = b * j.a.n + t;
    const float *gx = j.gx + place * RNN_GATES * h + u;
    float i = sigmoid_of(gx[0] + sum[0]), f = sigmoid_of(gx[h] + sum[1]),
          g = tanhf(gx[2 * h] + sum[2]), o = sigmoid_of(gx[3 * h] + sum[3]);
    float cell = f * j.c[b * h + u] + i * g;
    j.c[b * h + u] = cell;
    j.y[place * h + u] = o * tanhf(cell);
    if (!j.saved) return;
    float *to = j.saved + place * RNN_GATES * h + u;
    to[0] = i, to[h] = f, to[2 * h] = g, to[3 * h] = o;
    j.c_saved[place * h + u] = cell;
}

static __device__ void gru_gates(const rnn_job &j, int64_t b, int64_t t, int64_t u,
                                 const float sum[RNN_GATES])
{
    const int64_t h = j.a.hidden, place = b * j.a.n + t;
    const float *gx = j.gx + place * 3 * h + u;
    float old = number_at(rnn_before(j, j.y, b, t), u), inner = sum[2] + (j.bias ? j.bias[u] : 0);
    float r = sigmoid_of(gx[0] + sum[0]), z = sigmoid_of(gx[h] + sum[1]),
          m = tanhf(gx[2 * h] + r * inner);
    j.y[place * h + u] = (1 - z) * m + z * old;
    if (!j.saved) return;
    float *to = j.saved + place * RNN_GATES * h + u;
    to[0] = r, to[h] = z, to[2 * h] = m, to[3 * h] = inner;
}

static __global__ void rnn_step_kernel(rnn_job j, int64_t s)
{
    const rnn_spot p = rnn_place(j);
    const int64_t h = j.a.hidden, t = rnn_time(j, s);
    float sums[RNN_GATES * RNN_ROWS], sum[RNN_GATES];
    const float *row[RNN_ROWS];
    if (p.b0 >= j.a.batch) return;
    for (int i = 0; i < RNN_GATES * RNN_ROWS; i++) sums[i] = 0;
    for (int r = 0; r < RNN_ROWS; r++)
        row[r] = r < p.rows && t < rnn_length(j, p.b0 + r) ? rnn_before(j, j.y, p.b0 + r, t) : NULL;
    for (int64_t k = lane_of(); k < h; k += LANES) {
        float w[RNN_GATES];
        for (int g = 0; g < RNN_GATES; g++) w[g] = g < j.gates ? j.w[(g * h + p.unit) * h + k] : 0;
        for (int r = 0; r < RNN_ROWS; r++) {
            float x = number_at(row[r], row[r] ? k : 0);
            for (int g = 0; g < RNN_GATES; g++) sums[g * RNN_ROWS + r] += w[g] * x;
        }
    }
    float own = warp_sums<RNN_GATES * RNN_ROWS>(sums); /* gate l / ROWS of row l % ROWS */
    for (int g = 0; g < RNN_GATES; g++)
        sum[g] = __shfl_sync(0xffffffffu, own, g * RNN_ROWS + (int)lane_of() % RNN_ROWS);
    const int64_t b = p.b0 + lane_of();
    if (lane_of() >= p.rows) return;
    if (t >= rnn_length(j, b)) j.y[(b * j.a.n + t) * h + p.unit] = 0;
    else if (j.a.gru) gru_gates(j, b, t, p.unit, sum);
    else lstm_gates(j, b, t, p.unit, sum);
}

/* The row that is left at the end. */
static __global__ void rnn_last_kernel(int64_t items, rnn_job j, float *hn)
{
    EACH_ITEM(i, items) {
        int64_t h = j.a.hidden, b = i / h, u = i % h, len = rnn_length(j, b);
        hn[i] = len == 0 ? (j.h0 ? j.h0[i] : 0)
                         : j.y[(b * j.a.n + (j.a.reverse ? 0 : len - 1)) * h + u];
    }
}

static void start_rows(nsm_device *d, float *to, const float *from, int64_t n)
{
    if (from) d->be->copy(d, (size_t)n * sizeof *to, from, to);
    else d->be->zero(d, (size_t)n * sizeof *to, to);
}

static unsigned rnn_blocks(const nsmi_rnn *a)
{
    return groups_of(ceil_of(a->batch, RNN_ROWS) * a->hidden, LANES);
}

static void rnn(nsm_device *d, const nsmi_rnn *a, const float *gx, const float *w,
                const float *bias, const float *h0, const float *c0, float *scratch, float *y,
                float *gates, float *c, float *hn, float *cn)
{
    rnn_job j = { *a, a->gru ? 3 : 4, gx, w, bias, h0, c0, y, gates, c, cn };
    const int64_t rows = a->batch * a->hidden;
    (void)scratch;
    if (!a->gru) start_rows(d, cn, c0, rows);
    for (int64_t s = 0; s < a->n; s++)
        NSM_LAUNCH(rnn_step_kernel, rnn_blocks(a), BLOCK, stream_of(d), j, s);
    FOR_ITEMS(d, rnn_last_kernel, rows, j, hn);
    launched(d);
}

/* ---- backward ---- */
static __device__ void lstm_back(const rnn_job &j, int64_t b, int64_t t, int64_t u, float dh)
{
    const int64_t h = j.a.hidden, place = b * j.a.n + t;
    const float *gate = j.gates_read + place * RNN_GATES * h + u;
    float *dg = j.dg + place * RNN_GATES * h + u, *dc = &j.dc[b * h + u], i = gate[0], f = gate[h],
          g = gate[2 * h], o = gate[3 * h];
    float cell = tanhf(j.c_read[place * h + u]), old = j.c0 ? j.c0[b * h + u] : 0;
    if (t != rnn_first(j, b)) old = j.c_read[(place + (j.a.reverse ? 1 : -1)) * h + u];
    float dy = dh + j.dy[place * h + u], e = *dc + dy * o * (1 - cell * cell);
    dg[0] = e * g * i * (1 - i);
    dg[h] = e * old * f * (1 - f);
    dg[2 * h] = e * i * (1 - g * g);
    dg[3 * h] = dy * cell * o * (1 - o);
    *dc = e * f;
    j.dh[b * h + u] = 0;
}

static __device__ void gru_back(const rnn_job &j, int64_t b, int64_t t, int64_t u, float dh)
{
    const int64_t h = j.a.hidden, place = b * j.a.n + t;
    const float *gate = j.gates_read + place * RNN_GATES * h + u;
    float *dg = j.dg + place * 3 * h + u, *dgh = j.dgh + place * 3 * h + u, r = gate[0],
          z = gate[h], m = gate[2 * h], inner = gate[3 * h];
    float old = number_at(rnn_before(j, j.y_read, b, t), u), dy = dh + j.dy[place * h + u];
    float dm = dy * (1 - z) * (1 - m * m), dr = dm * inner * r * (1 - r),
          dz = dy * (old - m) * z * (1 - z);
    dg[0] = dr, dg[h] = dz, dg[2 * h] = dm;
    dgh[0] = dr, dgh[h] = dz, dgh[2 * h] = dm * r;
    j.dh[b * h + u] = dy * z;
}

/* Step s from the gates' gradients of s + 1, where there is one; s -1: what is left. */
static __global__ void rnn_back_kernel(rnn_job j, int64_t s)
{
    const rnn_spot p = rnn_place(j);
    const int64_t h = j.a.hidden, depth = j.gates * h, t = rnn_time(j, s),
                  later = rnn_time(j, s + 1);
    float sums[RNN_ROWS];
    if (p.b0 >= j.a.batch) return;
    for (int r = 0; r < RNN_ROWS; r++) sums[r] = 0;
    for (int64_t k = lane_of(); s + 1 < j.a.n && k < depth; k += LANES) {
        float w = j.w[p.unit * depth + k];
        for (int r = 0; r < RNN_ROWS; r++)
            if (r < p.rows) sums[r] += w * j.dgh[((p.b0 + r) * j.a.n + later) * depth + k];
    }
    float sum = warp_sums<RNN_ROWS>(sums);
    const int64_t b = p.b0 + lane_of(), at = b * h + p.unit, place = b * j.a.n + t;
    if (lane_of() >= p.rows) return;
    float dh = j.dh[at] + sum;
    j.dh[at] = dh;
    if (s < 0) return;
    const bool there = t < rnn_length(j, b);
    j.h_before[place * h + p.unit] = there ? number_at(rnn_before(j, j.y_read, b, t), p.unit) : 0;
    if (there && j.a.gru) gru_back(j, b, t, p.unit, dh);
    else if (there) lstm_back(j, b, t, p.unit, dh);
    for (int64_t g = 0; !there && g < j.gates; g++)
        j.dg[(place * j.gates + g) * h + p.unit] = j.dgh[(place * j.gates + g) * h + p.unit] = 0;
}

static void rnn_back(nsm_device *d, const nsmi_rnn *a, const float *w, const float *h0,
                     const float *c0, const float *y, const float *gates, const float *c,
                     const float *dy, const float *dhn, const float *dcn, float *scratch, float *dg,
                     float *dgh, float *h_before, float *dh0, float *dc0)
{
    const int64_t rows = a->batch * a->hidden, depth = (a->gru ? 3 : 4) * a->hidden,
                  dim[DIMS] = { 1, 1, 1, depth, a->hidden };
    const int turned[DIMS] = { 0, 1, 2, 4, 3 };
    rnn_job j = { *a,
                  a->gru ? 3 : 4,
                  NULL,
                  scratch,
                  NULL,
                  h0,
                  c0,
                  NULL,
                  NULL,
                  NULL,
                  NULL,
                  dy,
                  y,
                  gates,
                  c,
                  dh0,
                  dc0,
                  dg,
                  a->gru ? dgh : dg,
                  h_before };
    d->be->permute(d, dim, turned, w, 0, scratch);
    start_rows(d, dh0, dhn, rows);
    if (!a->gru) start_rows(d, dc0, dcn, rows);
    for (int64_t s = a->n - 1; s >= -1; s--)
        NSM_LAUNCH(rnn_back_kernel, rnn_blocks(a), BLOCK, stream_of(d), j, s);
    launched(d);
}

void nsmi_cuda_rnn(nsm_backend *be)
{
    be->rnn = rnn;
    be->rnn_back = rnn_back;
}
