/* kernels/cpu/rnn.c - LSTM and GRU over a whole sequence in one direction.
 *
 * The recurrent weights are packed once, by blocks of units with all their gates side by side, so
 * that a thread that owns a block has its share in its own cache for all steps.  A step is a
 * product of the batch's hidden rows with a block, and the gates' arithmetic on what comes out of
 * it, while it is in registers.  With several groups of rows each thread takes a group through all
 * steps; else, if a step is work enough, threads share its blocks and meet once a step.
 * Letters: B batch, n steps, H units, G gates (4 of an LSTM, 3 of a GRU); u a block of W units. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/meeting.h"

#include <omp.h>

#define INLINE static inline __attribute__((always_inline))
enum { GATES = 4, WIDE = 4 }; /* WIDE: vectors of a block of columns, backward */
#if defined(__AVX512F__)
enum { ROWS = 4 };            /* of the batch, at a time */
#else
enum { ROWS = 2 };
#endif

typedef struct {
    const nsmi_rnn *a;
    int64_t gates, blocks;           /* G, blocks of units */
    const float *gx, *w, *bias, *h0, *c0;
    float *packed, *zero;            /* zero: a row of H zeros */
    float *y, *saved, *c_saved, *c;  /* c [B, H]: the running cell */
    /* backward */
    const float *dy, *y_read, *gates_read, *c_read;
    float *dh, *dc, *dg, *dgh, *h_before;
} job;

/* sums[r][v] = over k of row[r][k] packed[k, v] */
INLINE void products(const float *const *row, const int rows, const float *packed, int64_t depth,
                     const int vectors, vf sums[ROWS][GATES])
{
    vf even[ROWS][GATES], odd[GATES];
    int64_t k = 0;
    for (int v = 0; v < vectors; v++) {
        odd[v] = vf_set(0);
        for (int r = 0; r < rows; r++) even[r][v] = vf_set(0);
    }
    /* two chains of sums: one would wait for itself */
    for (; rows == 1 && k + 1 < depth; k += 2, packed += 2 * vectors * W) {
        vf a = vf_set(row[0][k]), b = vf_set(row[0][k + 1]);
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            even[0][v] += a * vf_load(packed + v * W);
            odd[v] += b * vf_load(packed + (vectors + v) * W);
        }
    }
    for (; k < depth; k++, packed += vectors * W) {
        vf b[GATES];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) b[v] = vf_load(packed + v * W);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            vf a = vf_set(row[r][k]);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) even[r][v] += a * b[v];
        }
    }
    for (int v = 0; v < vectors; v++)
        for (int r = 0; r < rows; r++) sums[r][v] = rows == 1 ? even[r][v] + odd[v] : even[r][v];
}

static inline void product_of(const float *const *row, int64_t rows, const float *packed,
                              int64_t depth, int64_t vectors, vf sums[ROWS][GATES])
{
    if (vectors == 3) {
        if (rows == 1) products(row, 1, packed, depth, 3, sums);
        else if (rows == 2) products(row, 2, packed, depth, 3, sums);
        else products(row, ROWS, packed, depth, 3, sums);
    } else if (rows == 1) products(row, 1, packed, depth, 4, sums);
    else if (rows == 2) products(row, 2, packed, depth, 4, sums);
    else products(row, ROWS, packed, depth, 4, sums);
}

static inline vf sigmoid(vf x) { return 1.0f / (1.0f + vf_exp(-x)); }

/* ---- where a step stands ---- */
static int64_t length_of(const job *j, int64_t b)
{
    return j->a->length ? j->a->length[b] : j->a->n;
}
static bool is_there(const job *j, int64_t b, int64_t t) { return t < length_of(j, b); }

/* The hidden row that step t of row b begins from. */
static const float *before(const job *j, const float *y, int64_t b, int64_t t)
{
    int64_t h = j->a->hidden, first = j->a->reverse ? length_of(j, b) - 1 : 0;
    if (t == first || !is_there(j, b, t)) return j->h0 ? j->h0 + b * h : j->zero;
    return y + (b * j->a->n + t + (j->a->reverse ? 1 : -1)) * h;
}

/* Block u of the weights w [G*H, H], turned: [H, G, W], zeros past the last unit. */
static void pack_block(const job *j, int64_t u)
{
    int64_t h = j->a->hidden;
    float *to = j->packed + u * h * j->gates * W;
    for (int64_t k = 0; k < h; k++)
        for (int64_t g = 0; g < j->gates; g++)
            for (int64_t l = 0; l < W; l++, to++)
                *to = u * W + l < h ? j->w[(g * h + u * W + l) * h + k] : 0;
}

/* How the threads share the work; results are the same either way. */
typedef struct { int64_t groups; bool by_group; int team; } sharing;
static sharing sharing_of(const nsm_device *d, const job *j)
{
    int64_t groups = nsmi_blocks(j->a->batch, ROWS),
            step = j->a->batch * j->a->hidden * j->a->hidden * j->gates;
    bool by_group = groups > 1;
    return (sharing){ groups, by_group, nsmi_team(d, step * (by_group ? j->a->n : 1)) };
}

/* What this thread of a team does of each step. */
typedef struct { int64_t from, to; int team; } share;
static share share_of(int64_t blocks)
{
    int64_t me = omp_get_thread_num(), team = omp_get_num_threads();
    return (share){ blocks * me / team, blocks * (me + 1) / team, (int)team };
}

static int64_t time_of(const job *j, int64_t s) { return j->a->reverse ? j->a->n - 1 - s : s; }

/* ---- forward ---- */
typedef struct { int64_t b, t, at, lanes; const float *gx; } spot; /* at: the block's first unit */

static void lstm_spot(const job *j, const spot *s, const vf *sum)
{
    int64_t h = j->a->hidden, k = s->lanes;
    float *c = j->c + s->b * h + s->at;
    vf i = sigmoid(vf_get(s->gx, k) + sum[0]), f = sigmoid(vf_get(s->gx + h, k) + sum[1]);
    vf g = vf_tanh(vf_get(s->gx + 2 * h, k) + sum[2]),
       o = sigmoid(vf_get(s->gx + 3 * h, k) + sum[3]);
    vf cell = f * vf_get(c, k) + i * g;
    int64_t place = s->b * j->a->n + s->t;
    vf_put(c, cell, k);
    vf_put(j->y + place * h + s->at, o * vf_tanh(cell), k);
    if (!j->saved) return;
    const vf all[GATES] = { i, f, g, o };
    for (int v = 0; v < GATES; v++) vf_put(j->saved + (place * GATES + v) * h + s->at, all[v], k);
    vf_put(j->c_saved + place * h + s->at, cell, k);
}

static void gru_spot(const job *j, const spot *s, const vf *sum)
{
    int64_t h = j->a->hidden, k = s->lanes, place = s->b * j->a->n + s->t;
    vf old = vf_get(before(j, j->y, s->b, s->t) + s->at, k);
    vf r = sigmoid(vf_get(s->gx, k) + sum[0]), z = sigmoid(vf_get(s->gx + h, k) + sum[1]);
    vf inner = sum[2];
    if (j->bias) inner += vf_get(j->bias + s->at, k);
    vf m = vf_tanh(vf_get(s->gx + 2 * h, k) + r * inner);
    vf_put(j->y + place * h + s->at, (1.0f - z) * m + z * old, k);
    if (!j->saved) return;
    const vf all[GATES] = { r, z, m, inner };
    for (int v = 0; v < GATES; v++) vf_put(j->saved + (place * GATES + v) * h + s->at, all[v], k);
}

/* Rows b0 .. of step t, block u. */
static void forward_task(const job *j, int64_t t, int64_t b0, int64_t u)
{
    int64_t h = j->a->hidden, rows = j->a->batch - b0 < ROWS ? j->a->batch - b0 : ROWS;
    const float *row[ROWS];
    vf sums[ROWS][GATES];
    bool any = false;
    for (int64_t r = 0; r < ROWS; r++) {
        row[r] = before(j, j->y, r < rows ? b0 + r : b0, t);
        any |= r < rows && is_there(j, b0 + r, t);
    }
    if (any) product_of(row, rows, j->packed + u * h * j->gates * W, h, j->gates, sums);
    for (int64_t r = 0; r < rows; r++) {
        int64_t b = b0 + r, place = b * j->a->n + t;
        spot s = { b, t, u * W, h - u * W < W ? h - u * W : W,
                   j->gx + place * j->gates * h + u * W };
        if (!is_there(j, b, t)) vf_put(j->y + place * h + s.at, vf_set(0), s.lanes);
        else if (j->a->gru) gru_spot(j, &s, sums[r]);
        else lstm_spot(j, &s, sums[r]);
    }
}

static void last_row(const job *j, int64_t b, float *hn)
{
    int64_t h = j->a->hidden, len = length_of(j, b);
    const float *from = len == 0 ? (j->h0 ? j->h0 + b * h : j->zero)
                                 : j->y + (b * j->a->n + (j->a->reverse ? 0 : len - 1)) * h;
    memcpy(hn + b * h, from, (size_t)h * sizeof *hn);
}

static void start_rows(float *to, const float *from, int64_t n)
{
    if (from) memcpy(to, from, (size_t)n * sizeof *to);
    else memset(to, 0, (size_t)n * sizeof *to);
}

static job job_of(const nsmi_rnn *a, const float *w, const float *h0, const float *c0,
                  float *scratch)
{
    job j = { .a = a,
              .gates = a->gru ? 3 : 4,
              .blocks = nsmi_blocks(a->hidden, W),
              .w = w,
              .h0 = h0,
              .c0 = c0,
              .zero = scratch };
    j.packed = scratch + nsmi_blocks(a->hidden, W) * W;
    memset(j.zero, 0, (size_t)a->hidden * sizeof(float));
    return j;
}

static void rnn(nsm_device *d, const nsmi_rnn *a, const float *gx, const float *w,
                const float *bias, const float *h0, const float *c0, float *scratch, float *y,
                float *gates, float *c, float *hn, float *cn)
{
    job j = job_of(a, w, h0, c0, scratch);
    sharing how = sharing_of(d, &j);
    j.gx = gx;
    j.bias = bias;
    j.y = y;
    j.saved = gates;
    j.c_saved = c;
    j.c = cn;
    nsmi_meeting meeting = { 0 };
    if (!a->gru) start_rows(cn, c0, a->batch * a->hidden);
#pragma omp parallel num_threads(how.team)
    {
#pragma omp for schedule(static)
        for (int64_t u = 0; u < j.blocks; u++) pack_block(&j, u);
#pragma omp for schedule(dynamic)
        for (int64_t r = 0; r < (how.by_group ? how.groups : 0); r++)
            for (int64_t k = 0; k < a->n * j.blocks; k++)
                forward_task(&j, time_of(&j, k / j.blocks), r * ROWS, k % j.blocks);
        share mine = share_of(j.blocks);
        for (int64_t s = 0; s < (how.by_group ? 0 : a->n); s++) {
            for (int64_t u = mine.from; u < mine.to; u++) forward_task(&j, time_of(&j, s), 0, u);
            nsmi_meet(&meeting, mine.team);
        }
#pragma omp for schedule(static)
        for (int64_t b = 0; b < a->batch; b++) last_row(&j, b, hn);
    }
}

/* ---- backward ---- */
/* Columns k0 .. of w as they stand, [G*H, WIDE, W]. */
static void pack_columns(const job *j, int64_t u)
{
    int64_t h = j->a->hidden, rows = j->gates * h, k0 = u * WIDE * W;
    float *to = j->packed + u * rows * WIDE * W;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t l = 0; l < WIDE * W; l++, to++) *to = k0 + l < h ? j->w[r * h + k0 + l] : 0;
}

static void lstm_back_spot(const job *j, int64_t b, int64_t t, int64_t at, int64_t k)
{
    int64_t h = j->a->hidden, place = b * j->a->n + t,
            first = j->a->reverse ? length_of(j, b) - 1 : 0;
    const float *gate = j->gates_read + place * GATES * h + at;
    float *dh = j->dh + b * h + at, *dc = j->dc + b * h + at, *dg = j->dg + place * GATES * h + at;
    vf i = vf_get(gate, k), f = vf_get(gate + h, k), g = vf_get(gate + 2 * h, k),
       o = vf_get(gate + 3 * h, k);
    vf cell = vf_tanh(vf_get(j->c_read + place * h + at, k)), old = vf_set(0);
    if (t != first) old = vf_get(j->c_read + (place + (j->a->reverse ? 1 : -1)) * h + at, k);
    else if (j->c0) old = vf_get(j->c0 + b * h + at, k);
    vf dy = vf_get(dh, k) + vf_get(j->dy + place * h + at, k);
    vf d = vf_get(dc, k) + dy * o * (1.0f - cell * cell);
    vf_put(dg, d * g * i * (1.0f - i), k);
    vf_put(dg + h, d * old * f * (1.0f - f), k);
    vf_put(dg + 2 * h, d * i * (1.0f - g * g), k);
    vf_put(dg + 3 * h, dy * cell * o * (1.0f - o), k);
    vf_put(dc, d * f, k);
    vf_put(dh, vf_set(0), k);
}

static void gru_back_spot(const job *j, int64_t b, int64_t t, int64_t at, int64_t k)
{
    int64_t h = j->a->hidden, place = b * j->a->n + t;
    const float *gate = j->gates_read + place * GATES * h + at;
    float *dh = j->dh + b * h + at, *dg = j->dg + place * 3 * h + at,
          *dgh = j->dgh + place * 3 * h + at;
    vf r = vf_get(gate, k), z = vf_get(gate + h, k), m = vf_get(gate + 2 * h, k),
       inner = vf_get(gate + 3 * h, k);
    vf old = vf_get(before(j, j->y_read, b, t) + at, k),
       dy = vf_get(dh, k) + vf_get(j->dy + place * h + at, k);
    vf dm = dy * (1.0f - z) * (1.0f - m * m), dr = dm * inner * r * (1.0f - r),
       dz = dy * (old - m) * z * (1.0f - z);
    vf_put(dg, dr, k);
    vf_put(dg + h, dz, k);
    vf_put(dg + 2 * h, dm, k);
    vf_put(dgh, dr, k);
    vf_put(dgh + h, dz, k);
    vf_put(dgh + 2 * h, dm * r, k);
    vf_put(dh, dy * z, k);
}

/* The gates' gradients of step t, block u; what goes on to the step before by way of the cell and
 * the mix. */
static void gates_task(const job *j, int64_t t, int64_t b, int64_t u)
{
    int64_t h = j->a->hidden, at = u * W, k = h - at < W ? h - at : W, place = b * j->a->n + t;
    bool there = is_there(j, b, t);
    vf_put(j->h_before + place * h + at,
           there ? vf_get(before(j, j->y_read, b, t) + at, k) : vf_set(0), k);
    if (there && j->a->gru) gru_back_spot(j, b, t, at, k);
    else if (there) lstm_back_spot(j, b, t, at, k);
    for (int64_t g = 0; !there && g < j->gates; g++) {
        vf_put(j->dg + (place * j->gates + g) * h + at, vf_set(0), k);
        vf_put(j->dgh + (place * j->gates + g) * h + at, vf_set(0), k);
    }
}

/* What goes on by way of the weights: dh += dgh w, a block of columns. */
static void weights_task(const job *j, int64_t t, int64_t b0, int64_t u)
{
    int64_t h = j->a->hidden, depth = j->gates * h,
            rows = j->a->batch - b0 < ROWS ? j->a->batch - b0 : ROWS;
    const float *row[ROWS];
    vf sums[ROWS][GATES];
    for (int64_t r = 0; r < ROWS; r++)
        row[r] = j->dgh + ((r < rows ? b0 + r : b0) * j->a->n + t) * depth;
    product_of(row, rows, j->packed + u * depth * WIDE * W, depth, WIDE, sums);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t v = 0; v < WIDE; v++) {
            int64_t at = (u * WIDE + v) * W, k = h - at < W ? h - at : W;
            float *dh = j->dh + (b0 + r) * h + at;
            if (k <= 0) break;
            vf_put(dh, vf_get(dh, k) + sums[r][v], k);
        }
}

static void rnn_back(nsm_device *d, const nsmi_rnn *a, const float *w, const float *h0,
                     const float *c0, const float *y, const float *gates, const float *c,
                     const float *dy, const float *dhn, const float *dcn, float *scratch, float *dg,
                     float *dgh, float *h_before, float *dh0, float *dc0)
{
    job j = job_of(a, w, h0, c0, scratch);
    int64_t columns = nsmi_blocks(a->hidden, WIDE * W);
    sharing how = sharing_of(d, &j);
    j.y_read = y;
    j.gates_read = gates;
    j.c_read = c;
    j.dy = dy;
    j.dh = dh0;
    j.dc = dc0;
    j.dg = dg;
    j.dgh = a->gru ? dgh : dg;
    j.h_before = h_before;
    nsmi_meeting meeting = { 0 };
    start_rows(dh0, dhn, a->batch * a->hidden);
    if (!a->gru) start_rows(dc0, dcn, a->batch * a->hidden);
#pragma omp parallel num_threads(how.team)
    {
#pragma omp for schedule(static)
        for (int64_t u = 0; u < columns; u++) pack_columns(&j, u);
#pragma omp for schedule(dynamic)
        for (int64_t r = 0; r < (how.by_group ? how.groups : 0); r++)
            for (int64_t s = a->n - 1; s >= 0; s--) {
                int64_t t = time_of(&j, s),
                        end = (r + 1) * ROWS < a->batch ? (r + 1) * ROWS : a->batch;
                for (int64_t b = r * ROWS; b < end; b++)
                    for (int64_t u = 0; u < j.blocks; u++) gates_task(&j, t, b, u);
                for (int64_t u = 0; u < columns; u++) weights_task(&j, t, r * ROWS, u);
            }
        /* a thread's units get their gradients from its own columns: only the gates' are shared */
        share mine = share_of(columns);
        int64_t last = mine.to * WIDE < j.blocks ? mine.to * WIDE : j.blocks;
        for (int64_t s = how.by_group ? -1 : a->n - 1; s >= 0; s--) {
            int64_t t = time_of(&j, s);
            for (int64_t u = mine.from * WIDE; u < last; u++)
                for (int64_t b = 0; b < a->batch; b++) gates_task(&j, t, b, u);
            nsmi_meet(&meeting, mine.team);
            for (int64_t u = mine.from; u < mine.to; u++) weights_task(&j, t, 0, u);
        }
    }
}

void NSMI_FILL(rnn)(nsm_backend *be)
{
    be->rnn = rnn;
    be->rnn_back = rnn_back;
}
