/* kernels/cpu/conv1d.c - The causal depthwise convolution of short sequences of taps, with bias and
 * SiLU.
 *
 *   z[t, ch] = bias[ch] + sum over j of w[ch, j] x[t - (c - 1) + j, ch]     y = z, or z sigmoid(z)
 *
 * Rows before the first are the tail that was carried in, or zeros.  Lanes are channels, so that
 * every load is of neighbours; a task is a block of ROWS rows by CHANNELS channels.  Backward
 * computes z anew (two exponentials are cheaper than keeping it), also for the c - 1 rows behind
 * its block whose gradient reaches back into it; sums over rows leave a part for each block, added
 * in order.
 * Letters: B batch, n tokens, C channels, c taps. */
#include "kernels/cpu/cpu.h"

#define INLINE static inline __attribute__((always_inline))

enum {
    CHANNELS = 64, /* of a task: they stay in the first cache with all rows of a block */
    ROWS = 64,
    TAPS = NSMI_CONV_TAPS,
    WORK = 4 /* elementary operations for each tap of an element */
};

typedef struct {
    bool silu;
    int64_t batch, n, channels, taps;
    const float *x, *w, *bias, *tail;
} conv;

/* Row t of sequence b: of the tail where t is negative; NULL: zeros. */
static inline const float *row_at(const conv *k, int64_t b, int64_t t)
{
    if (t >= 0) return k->x + (b * k->n + t) * k->channels;
    return k->tail ? k->tail + (b * (k->taps - 1) + k->taps - 1 + t) * k->channels : NULL;
}

/* Bodies below take the number of taps once more: a constant where it is a usual one, so that all
 * that goes by taps stays in registers. */
#define WITH_TAPS(k, call) \
    switch ((k)->taps) { \
    case 2: { \
        enum { taps = 2 }; \
        call; \
        break; \
    } \
    case 3: { \
        enum { taps = 3 }; \
        call; \
        break; \
    } \
    case 4: { \
        enum { taps = 4 }; \
        call; \
        break; \
    } \
    default: { \
        const int64_t taps = (k)->taps; \
        call; \
    } \
    }

/* The taps of channels ch..: w[j] is a vector; the bias; lanes past the last channel are 0. */
INLINE vf load_taps(const conv *k, const int64_t taps, int64_t ch, int64_t lanes, vf *w)
{
    for (int64_t j = 0; j < taps; j++) {
        float lane[W] = { 0 };
        for (int64_t l = 0; l < lanes; l++) lane[l] = k->w[(ch + l) * k->taps + j];
        w[j] = vf_load(lane);
    }
    return k->bias ? vf_get(k->bias + ch, lanes) : vf_set(0);
}

INLINE vf row_lanes(const conv *k, int64_t b, int64_t t, int64_t ch, int64_t lanes)
{
    const float *row = row_at(k, b, t);
    return row ? vf_get(row + ch, lanes) : vf_set(0);
}

INLINE vf before_act(const conv *k, const int64_t taps, int64_t b, int64_t t, int64_t ch,
                     int64_t lanes, const vf *w, vf bias)
{
    vf z = bias;
    if (t >= taps - 1) {
        const float *x = k->x + (b * k->n + t - (taps - 1)) * k->channels + ch;
        for (int64_t j = 0; j < taps; j++, x += k->channels) z += w[j] * vf_get(x, lanes);
    } else {
        for (int64_t j = 0; j < taps; j++)
            z += w[j] * row_lanes(k, b, t - (taps - 1) + j, ch, lanes);
    }
    return z;
}

INLINE void forward_taps(const conv *k, const int64_t taps, int64_t b, int64_t t0, int64_t t1,
                         int64_t c0, int64_t c1, float *y)
{
    vf w[TAPS];
    VF_EACH(i, lanes, c1 - c0, {
        vf bias = load_taps(k, taps, c0 + i, lanes, w);
        for (int64_t t = t0; t < t1; t++) {
            vf z = before_act(k, taps, b, t, c0 + i, lanes, w, bias);
            vf_put(y + (b * k->n + t) * k->channels + c0 + i, k->silu ? z * vf_sigmoid(z) : z,
                   lanes);
        }
    });
}

static void forward_block(const conv *k, int64_t b, int64_t t0, int64_t t1, int64_t c0, int64_t c1,
                          float *y)
{
    WITH_TAPS(k, forward_taps(k, taps, b, t0, t1, c0, c1, y));
}

static void conv1d(nsm_device *d, bool silu, int64_t batch, int64_t n, int64_t channels,
                   int64_t taps, const float *x, const float *w, const float *bias,
                   const float *tail, float *y)
{
    const conv k = { silu, batch, n, channels, taps, x, w, bias, tail };
    int64_t rows = nsmi_blocks(n, ROWS), cols = nsmi_blocks(channels, CHANNELS);
#pragma omp parallel for schedule(static) num_threads(nsmi_team(d, batch *n *channels *taps *WORK))
    for (int64_t i = 0; i < batch * rows * cols; i++) {
        int64_t r = i / cols % rows, c = i % cols;
        forward_block(&k, i / cols / rows, r * ROWS, nsmi_block_end(r, ROWS, n), c * CHANNELS,
                      nsmi_block_end(c, CHANNELS, channels), y);
    }
}

/* ---- backward ---- */
typedef struct {
    float *dx, *dtail, *part;
    const float *dy;
} gradients;

/* dz of rows t0 .. t1 + c - 1, rows past the last are 0: [ROWS + TAPS][W] */
INLINE void pull_back(const conv *k, const int64_t taps, const gradients *g, int64_t b, int64_t t0,
                      int64_t t1, int64_t ch, int64_t lanes, const vf *w, vf bias, vf *dz)
{
    for (int64_t t = t0; t < t1 + taps - 1; t++) {
        vf s = vf_set(0);
        if (t < k->n) {
            s = vf_get(g->dy + (b * k->n + t) * k->channels + ch, lanes);
            if (k->silu) s = vf_silu_back(before_act(k, taps, b, t, ch, lanes, w, bias), s);
        }
        dz[t - t0] = s;
    }
}

static inline void add_to(float *to, vf x, int64_t lanes)
{
    vf_put(to, vf_get(to, lanes) + x, lanes);
}

/* One vector of channels: rows t0..t1 of dx, the tail's before the first row; sums into part [taps
 * + 1, C]. */
INLINE void backward_taps(const conv *k, const int64_t taps, const gradients *g, int64_t b,
                          int64_t t0, int64_t t1, int64_t ch, int64_t lanes)
{
    const int64_t before = taps - 1;
    vf w[TAPS], dz[ROWS + TAPS], sum[TAPS + 1];
    vf bias = load_taps(k, taps, ch, lanes, w);
    pull_back(k, taps, g, b, t0, t1, ch, lanes, w, bias, dz);
    for (int64_t t = t0; g->dx && t < t1; t++) {
        vf s = vf_set(0);
        for (int64_t j = 0; j < taps; j++) s += w[j] * dz[t - t0 + before - j];
        add_to(g->dx + (b * k->n + t) * k->channels + ch, s, lanes);
    }
    for (int64_t t = -before; g->dtail && t0 == 0 && t < 0; t++) {
        vf s = vf_set(0);
        for (int64_t j = 0; j <= t + before; j++) s += w[j] * dz[t + before - j];
        add_to(g->dtail + (b * before + before + t) * k->channels + ch, s, lanes);
    }
    if (!g->part) return;
    for (int64_t j = 0; j <= taps; j++) sum[j] = vf_set(0);
    for (int64_t t = t0; t < t1; t++) {
        for (int64_t j = 0; j < taps; j++)
            sum[j] += dz[t - t0] * row_lanes(k, b, t - before + j, ch, lanes);
        sum[taps] += dz[t - t0];
    }
    for (int64_t j = 0; j <= taps; j++) add_to(g->part + j * k->channels + ch, sum[j], lanes);
}

static void backward_lanes(const conv *k, const gradients *g, int64_t b, int64_t t0, int64_t t1,
                           int64_t ch, int64_t lanes)
{
    WITH_TAPS(k, backward_taps(k, taps, g, b, t0, t1, ch, lanes));
}

/* dw [C, taps] and dbias [C] += the parts, in order */
static void add_parts(const conv *k, int64_t parts, const float *part, float *dw, float *dbias)
{
    for (int64_t p = 0; p < parts; p++, part += (k->taps + 1) * k->channels)
        for (int64_t j = 0; j <= k->taps; j++)
            for (int64_t ch = 0; ch < k->channels; ch++) {
                float *to = j < k->taps ? (dw ? dw + ch * k->taps + j : NULL)
                                        : (dbias ? dbias + ch : NULL);
                if (to) *to += part[j * k->channels + ch];
            }
}

static void conv1d_back(nsm_device *d, bool silu, int64_t batch, int64_t n, int64_t channels,
                        int64_t taps, const float *x, const float *w, const float *bias,
                        const float *tail, const float *dy, float *dx, float *dw, float *dbias,
                        float *dtail)
{
    const conv k = { silu, batch, n, channels, taps, x, w, bias, tail };
    const int64_t width = (taps + 1) * channels,
                  most = width < NSMI_SCRATCH / 64 ? 64 : NSMI_SCRATCH / width;
    const int64_t all = batch * nsmi_blocks(n, ROWS), each = nsmi_blocks(all, most ? most : 1),
                  parts = nsmi_blocks(all, each);
    const int64_t rows = nsmi_blocks(n, ROWS), cols = nsmi_blocks(channels, CHANNELS);
    float *scratch = dw || dbias ? nsmi_scratch(d) : NULL;
    if (scratch) memset(scratch, 0, (size_t)(parts * width) * sizeof *scratch);
#pragma omp parallel for schedule(static) num_threads(nsmi_team(d, batch *n *channels *taps *WORK))
    for (int64_t i = 0; i < parts * cols; i++) {
        int64_t part = i / cols, c = i % cols;
        gradients g = { dx, dtail, scratch ? scratch + part * width : NULL, dy };
        for (int64_t r = part * each; r < nsmi_block_end(part, each, all); r++)
            VF_EACH(ch, lanes, nsmi_block_end(c, CHANNELS, channels) - c * CHANNELS,
                    backward_lanes(&k, &g, r / rows, r % rows * ROWS,
                                   nsmi_block_end(r % rows, ROWS, n), c * CHANNELS + ch, lanes););
    }
    if (scratch) add_parts(&k, parts, scratch, dw, dbias);
}

/* The last taps - 1 rows of what was there: of x's first length[b] rows, and before these the
 * tail's. */
static void conv1d_tail(nsm_device *d, int64_t batch, int64_t n, int64_t channels, int64_t taps,
                        const float *x, const float *tail, const int32_t *length, float *next)
{
    const conv k = { false, batch, n, channels, taps, x, NULL, NULL, tail };
    (void)d;
    for (int64_t b = 0; b < batch; b++)
        for (int64_t j = 0; j < taps - 1; j++) {
            const float *row = row_at(&k, b, nsmi_length(length, b, n) - (taps - 1) + j);
            float *to = next + (b * (taps - 1) + j) * channels;
            if (row) memcpy(to, row, (size_t)channels * sizeof *to);
            else memset(to, 0, (size_t)channels * sizeof *to);
        }
}

void NSMI_FILL(conv1d)(nsm_backend *be)
{
    be->conv1d = conv1d;
    be->conv1d_back = conv1d_back;
    be->conv1d_tail = conv1d_tail;
}
