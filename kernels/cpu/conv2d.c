/* kernels/cpu/conv2d.c - 2-D convolution, forward and backward, without a matrix of patches.
 *
 * The image is copied once, padded, into planes: one for each phase of the stride (x[i s0 + r, j s1
 * + s] is plane (r, s) at (i, j)).  Then each tap of the kernel is a plane seen from a fixed shift,
 * so a run of outputs on a grid as wide as the planes reads, for every channel and tap, a run of
 * numbers that stands there already: the tile of a matrix product whose B needs no packing.
 * What the grid has beside the outputs, at most (kw - 1) dw / s1 columns of a row, is computed and
 * thrown away.  Several small images stand behind each other in the planes.
 *
 * The gradient of x is the same with planes of dy, for each phase of x those taps that reach it;
 * that of w is made of dot products of planes of dy and planes of x.  oneDNN, which does the
 * same for large images, was measured and left out: see doc/images.md.
 *
 * A task is a block of outputs' channels of a block of rows, or of images; sums over images leave a
 * part for each of at most PARTS runs of blocks, added in order.
 * Letters: B images, C channels in, O out, G groups; K = C/G kh kw taps of all channels. */
#include "kernels/cpu/cpu.h"

enum {
    VECTORS = 3,        /* of a register tile ... */
    SPAN = VECTORS * W, /* ... so many places of the grid, */
#if defined(__AVX512F__)
    GROUP = 8,    /* by so many output channels */
    DOT_ROWS = 4, /* dot products at a time: output channels by taps */
    DOT_TAPS = 6,
#else
    GROUP = 4,
    DOT_ROWS = 3,
    DOT_TAPS = 3,
#endif
    OUTPUTS = 64,       /* output channels of a task */
    CHANNELS = 64,      /* channels in planes at a time */
    PLANES = 80 * 1024, /* numbers in planes at a time, where a row of outputs has room */
    PLACES = 2048,      /* of the grid, likewise */
    TASKS = 8,          /* images share a task only where there are more tasks than these */
    PARTS = 16,
    SUMS = 4 * (NSMI_CONV_ROW + W), /* at least GROUP rows of outputs, DOT_ROWS planes */
    WORK = 32                       /* products that weigh as much as an element of other work */
};

/* ---- one pass: images that are read give images that are written ---- */
typedef struct {
    int64_t channels, size[2];     /* of a group; height, width */
    int64_t stride[2], padding[2]; /* row of phase r at i: i stride + r - padding */
} side;

typedef struct {
    const nsmi_conv *c;
    side from, to;
    int64_t phases[2];        /* of `from` in use: the first so many of each axis ... */
    int64_t grid[2], halo[2]; /* places of outputs; rows and columns read behind them */
    int64_t pitch;            /* of a plane */
    bool back;
    /* how it is cut */
    int64_t channels, rows, images;
    int64_t row_blocks, image_blocks, output_blocks;
} pass;

/* A block of it. */
typedef struct {
    const pass *p;
    int64_t image, images, group, row, rows; /* rows of the grid, without halo */
    int64_t size;                            /* rows * pitch of an image in a plane */
} block;

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* Numbers of a plane, and how many of them outputs stand on. */
static int64_t places(const block *b) { return nsmi_blocks(b->images * b->size, W) * W; }
static int64_t used(const block *b) { return (b->images - 1) * b->size + b->rows * b->p->pitch; }

/* Choose channels, rows and images of a block by the shape alone. */
static void cut(pass *p)
{
    const nsmi_conv *c = p->c;
    int64_t phases = p->phases[0] * p->phases[1], unit = phases * p->pitch,
            rows = least(p->grid[0], 2 * p->halo[0] + 4), taps = c->kernel[0] * c->kernel[1];
    p->channels = least(least(p->from.channels, CHANNELS), NSMI_CONV_KERNEL / taps);
    p->channels = most(1, least(p->channels, PLANES / (unit * (rows + p->halo[0]))));
    rows = least(PLANES / (p->channels * unit) - p->halo[0], PLACES / p->pitch);
    rows = most(1, least(rows, p->grid[0]));
    p->row_blocks = nsmi_blocks(p->grid[0], rows);
    p->rows = nsmi_blocks(p->grid[0], p->row_blocks);
    p->output_blocks = nsmi_blocks(p->to.channels, OUTPUTS);
    p->images = 1;
    if (p->row_blocks == 1) {
        int64_t size = (p->rows + p->halo[0]) * p->pitch, other = c->groups * p->output_blocks,
                wanted = nsmi_blocks(TASKS, other);
        p->images = least(PLANES / (p->channels * phases * size), PLACES / size);
        p->images = most(1, least(p->images, nsmi_blocks(c->batch, wanted)));
    }
    p->image_blocks = nsmi_blocks(c->batch, p->images);
}

/* x to y */
static pass forward_pass(const nsmi_conv *c)
{
    pass p = { .c = c,
               .from = { c->channels / c->groups,
                         { c->height, c->width },
                         { c->stride[0], c->stride[1] },
                         { c->padding[0], c->padding[1] } },
               .to = { c->outputs / c->groups, { c->out_height, c->out_width }, { 1, 1 }, { 0 } },
               .grid = { c->out_height, c->out_width } };
    for (int a = 0; a < 2; a++) {
        int64_t reach = (c->kernel[a] - 1) * c->dilation[a];
        p.halo[a] = reach / c->stride[a];
        p.phases[a] = least(c->stride[a], reach + 1);
    }
    p.pitch = p.grid[1] + p.halo[1];
    cut(&p);
    return p;
}

/* dy to dx: the phases are those of what is written */
static pass backward_pass(const nsmi_conv *c)
{
    pass p = { .c = c,
               .from = { c->outputs / c->groups, { c->out_height, c->out_width }, { 1, 1 }, { 0 } },
               .to = { c->channels / c->groups,
                       { c->height, c->width },
                       { c->stride[0], c->stride[1] },
                       { c->padding[0], c->padding[1] } },
               .phases = { 1, 1 },
               .back = true };
    for (int a = 0; a < 2; a++) {
        p.halo[a] = (c->kernel[a] - 1) * c->dilation[a] / c->stride[a];
        p.from.padding[a] = p.halo[a];
        p.grid[a] = (p.to.size[a] - 1 + c->padding[a]) / c->stride[a] + 1;
    }
    p.pitch = p.grid[1] + p.halo[1];
    cut(&p);
    return p;
}

/* Task t of images and rows, as a block of group g. */
static block block_of(const pass *p, int64_t t, int64_t group)
{
    block b = { .p = p, .group = group };
    b.image = t / p->row_blocks * p->images;
    b.images = least(p->images, p->c->batch - b.image);
    b.row = t % p->row_blocks * p->rows;
    b.rows = least(p->rows, p->grid[0] - b.row);
    b.size = (b.rows + p->halo[0]) * p->pitch;
    return b;
}

/* ---- planes ---- */

static void copy_row(int64_t n, int64_t step, const float *from, float *to)
{
    int64_t j = 0;
    if (step == 1) memcpy(to, from, (size_t)n * sizeof *to);
    if (step == 2)
        for (const vi even = 2 * vi_lanes(); j + W < n; j += W)
            vf_store(to + j, (vf)__builtin_shuffle((vi)vf_load(from + 2 * j),
                                                   (vi)vf_load(from + 2 * j + W), even));
    for (; step != 1 && j < n; j++) to[j] = from[j * step];
}

/* One phase of one channel of one image, whose padding stands there as zeros. */
static void fill_plane(const block *b, const side *s, int64_t rows, int64_t r0, int64_t r1,
                       const float *image, float *plane)
{
    int64_t pitch = b->p->pitch, s1 = s->stride[1], x0 = r1 - s->padding[1],
            first = x0 < 0 ? nsmi_blocks(-x0, s1) : 0, /* columns first..last are the image's */
        last = least(pitch, x0 < s->size[1] ? (s->size[1] - 1 - x0) / s1 + 1 : 0);
    for (int64_t i = 0; i < rows; i++) {
        int64_t y = (b->row + i) * s->stride[0] + r0 - s->padding[0];
        if (y >= 0 && y < s->size[0] && first < last)
            copy_row(last - first, s1, image + y * s->size[1] + x0 + first * s1,
                     plane + i * pitch + first);
    }
}

/* Channels c0..c1 of the block's group, so many rows of them: [channels, phases, images, rows of
 * the block and halo, pitch]; zeros in what is left, and behind as far as a tap may read. */
static void fill_planes(const block *b, const side *s, const int64_t phases[2], int64_t rows,
                        int64_t c0, int64_t c1, const float *x, float *planes)
{
    const int64_t count = phases[0] * phases[1], area = s->size[0] * s->size[1],
                  behind = b->p->halo[0] * b->p->pitch + b->p->halo[1] + SPAN;
    memset(planes, 0, (size_t)((c1 - c0) * count * places(b) + behind) * sizeof *planes);
    for (int64_t c = c0; c < c1; c++)
        for (int64_t n = 0; n < b->images; n++) {
            const float *image = x +
                                 (((b->image + n) * b->p->c->groups + b->group) * s->channels + c) *
                                     area;
            float *to = planes + (c - c0) * count * places(b) + n * b->size;
            for (int64_t r = 0; r < count; r++)
                fill_plane(b, s, rows, r / phases[1], r % phases[1], image, to + r * places(b));
        }
}

/* ---- taps ---- */
typedef struct {
    int32_t plane, shift, weight;
} tap; /* weight: of one (output, channel) */

/* The taps that reach phase r of what is written; forward there is one phase, and all reach it. */
static int64_t taps_of(const pass *p, const int64_t r[2], tap *taps)
{
    const nsmi_conv *c = p->c;
    int64_t count = 0;
    for (int64_t e = 0; e < c->kernel[0]; e++)
        for (int64_t f = 0; f < c->kernel[1]; f++) {
            const int64_t at[2] = { e * c->dilation[0], f * c->dilation[1] };
            int64_t phase[2], i[2];
            for (int a = 0; a < 2; a++) {
                phase[a] = at[a] % c->stride[a];
                i[a] = at[a] / c->stride[a];
                if (p->back) i[a] = p->halo[a] - i[a];
            }
            if (p->back && (phase[0] != r[0] || phase[1] != r[1])) continue;
            taps[count++] = (tap){ p->back ? 0 : (int32_t)(phase[0] * p->phases[1] + phase[1]),
                                   (int32_t)(i[0] * p->pitch + i[1]),
                                   (int32_t)(e * c->kernel[1] + f) };
        }
    return count;
}

/* A thread's own memory, NSMI_PACK numbers of it. */
typedef struct {
    tap *taps;      /* [taps] */
    int32_t *at;    /* [K] where the run of a channel and tap starts in planes */
    float *weights; /* [K, GROUP] of a group of output channels */
    float *sums;    /* [GROUP, places]; SUMS numbers */
    float *planes;
} room;

static room room_of(const nsm_device *d)
{
    float *p = ((nsmi_cpu_state *)d->impl)->pack + (int64_t)omp_get_thread_num() * NSMI_PACK;
    room r = { .taps = (tap *)p };
    r.at = (int32_t *)(p + 3 * NSMI_CONV_KERNEL);
    r.weights = p + 4 * NSMI_CONV_KERNEL;
    r.sums = r.weights + GROUP * NSMI_CONV_KERNEL;
    r.planes = r.sums + SUMS + NSMI_CONV_ROW; /* taps read behind planes of dy, too */
    return r;
}

static void place_taps(const block *b, int64_t channels, int64_t phases, int64_t count,
                       const tap *taps, int32_t *at)
{
    for (int64_t c = 0; c < channels; c++)
        for (int64_t t = 0; t < count; t++)
            *at++ = (int32_t)((c * phases + taps[t].plane) * places(b) + taps[t].shift);
}

/* ---- outputs ---- */

/* rows x SPAN sums over k of weights [depth, rows] and runs of the planes */
static inline __attribute__((always_inline)) void span(const int rows, int64_t depth,
                                                       const float *weights, const int32_t *at,
                                                       const float *planes, float *sums, int64_t ld)
{
    vf sum[GROUP][VECTORS], x[VECTORS];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < VECTORS; v++) sum[r][v] = vf_set(0);
    for (int64_t k = 0; k < depth; k++, weights += rows) {
        const float *run = planes + at[k];
#pragma GCC unroll 3
        for (int v = 0; v < VECTORS; v++) x[v] = vf_load(run + v * W);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            vf w = vf_set(weights[r]);
#pragma GCC unroll 3
            for (int v = 0; v < VECTORS; v++) sum[r][v] += w * x[v];
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < VECTORS; v++) vf_store(sums + r * ld + v * W, sum[r][v]);
}
static void span_1(int64_t depth, const float *w, const int32_t *at, const float *planes, float *s,
                   int64_t ld)
{
    span(1, depth, w, at, planes, s, ld);
}
static void span_group(int64_t depth, const float *w, const int32_t *at, const float *planes,
                       float *s, int64_t ld)
{
    span(GROUP, depth, w, at, planes, s, ld);
}

/* Weights of outputs o.. of the group and channels c0..c1 at the taps: [K, rows], zeros past the
 * last. */
static void pack_weights(const block *b, int64_t o, int64_t there, int64_t rows, int64_t c0,
                         int64_t c1, int64_t count, const tap *taps, const float *w, float *packed)
{
    const pass *p = b->p;
    int64_t kernel = p->c->kernel[0] * p->c->kernel[1],
            by_channel = p->back ? p->to.channels * kernel : kernel,
            by_output = p->back ? kernel : p->from.channels * kernel;
    w += b->group * p->from.channels * p->to.channels * kernel + o * by_output;
    for (int64_t c = c0; c < c1; c++)
        for (int64_t t = 0; t < count; t++, packed += rows)
            for (int64_t r = 0; r < rows; r++)
                packed[r] = r < there ? w[r * by_output + c * by_channel + taps[t].weight] : 0;
}

static inline void put_row(int64_t n, int64_t step, const float *sums, float add, float beta,
                           float *y)
{
    if (step == 1) {
        VF_EACH(j, k, n, blend_n(y + j, beta, vf_get(sums + j, k) + add, k););
        return;
    }
    for (int64_t j = 0; j < n; j++)
        y[j * step] = (beta == 0 ? 0 : beta * y[j * step]) + sums[j] + add;
}

/* Sums on the grid to phase r of output o of the block's images: y = beta y + sums + bias. */
static void put(const block *b, const int64_t r[2], int64_t o, const float *sums, const float *bias,
                float beta, float *y)
{
    const side *s = &b->p->to;
    int64_t x0 = r[1] - s->padding[1], s1 = s->stride[1], first = x0 < 0 ? nsmi_blocks(-x0, s1) : 0,
            last = least(b->p->grid[1], x0 < s->size[1] ? (s->size[1] - 1 - x0) / s1 + 1 : 0);
    float add = bias ? bias[b->group * s->channels + o] : 0;
    for (int64_t n = 0; n < b->images && first < last; n++) {
        float *image = y + (((b->image + n) * b->p->c->groups + b->group) * s->channels + o) *
                               s->size[0] * s->size[1];
        for (int64_t i = 0; i < b->rows; i++) {
            int64_t row = (b->row + i) * s->stride[0] + r[0] - s->padding[0];
            if (row >= 0 && row < s->size[0])
                put_row(last - first, s1, sums + n * b->size + i * b->p->pitch + first, add, beta,
                        image + row * s->size[1] + x0 + first * s1);
        }
    }
}

typedef struct {
    const float *x, *w, *bias;
    float beta, *y;
} arrays;

/* Phase r of outputs o0..o1 from the channels c0..c1, which are in the planes. */
static void write_phase(const block *b, const int64_t r[2], int64_t o0, int64_t o1, int64_t c0,
                        int64_t c1, const arrays *a, const room *m)
{
    const pass *p = b->p;
    int64_t count = taps_of(p, r, m->taps), depth = (c1 - c0) * count,
            ld = nsmi_blocks(used(b), SPAN) * SPAN;
    float beta = c0 ? 1 : a->beta;
    if (count == 0 && beta == 1) return;
    place_taps(b, c1 - c0, p->phases[0] * p->phases[1], count, m->taps, m->at);
    for (int64_t o = o0; o < o1; o += GROUP) {
        int64_t there = least(GROUP, o1 - o), rows = there == 1 ? 1 : GROUP;
        pack_weights(b, o, there, rows, c0, c1, count, m->taps, a->w, m->weights);
        for (int64_t q = 0; q < used(b); q += SPAN)
            (rows == 1 ? span_1 : span_group)(depth, m->weights, m->at, m->planes + q, m->sums + q,
                                              ld);
        for (int64_t i = 0; i < there; i++)
            put(b, r, o + i, m->sums + i * ld, c0 ? NULL : a->bias, beta, a->y);
    }
}

static void write_block(const block *b, int64_t o0, int64_t o1, const arrays *a, const room *m)
{
    const pass *p = b->p;
    int64_t phases0 = p->back ? p->to.stride[0] : 1, phases1 = p->back ? p->to.stride[1] : 1;
    for (int64_t c0 = 0; c0 < p->from.channels; c0 += p->channels) {
        int64_t c1 = least(c0 + p->channels, p->from.channels);
        fill_planes(b, &p->from, p->phases, b->rows + p->halo[0], c0, c1, a->x, m->planes);
        for (int64_t r = 0; r < phases0 * phases1; r++)
            write_phase(b, (const int64_t[]){ r / phases1, r % phases1 }, o0, o1, c0, c1, a, m);
    }
}

static int64_t work_of(const nsmi_conv *c)
{
    return c->batch * c->outputs * c->out_height * c->out_width * (c->channels / c->groups) *
           c->kernel[0] * c->kernel[1] / WORK;
}

static void run(nsm_device *d, const pass *p, const arrays *a)
{
    int64_t blocks = p->image_blocks * p->row_blocks, groups = p->c->groups;
#pragma omp parallel for schedule(dynamic) num_threads(nsmi_team(d, work_of(p->c)))
    for (int64_t t = 0; t < blocks * groups * p->output_blocks; t++) {
        room m = room_of(d);
        block b = block_of(p, t / p->output_blocks / groups, t / p->output_blocks % groups);
        int64_t o = t % p->output_blocks * OUTPUTS;
        write_block(&b, o, least(o + OUTPUTS, p->to.channels), a, &m);
    }
}

static bool is_empty(const nsmi_conv *c)
{
    return c->batch * c->outputs * c->out_height * c->out_width == 0;
}

static void conv2d(nsm_device *d, const nsmi_conv *c, const float *x, const float *w,
                   const float *bias, float beta, float *y)
{
    if (is_empty(c)) return;
    pass p = forward_pass(c);
    run(d, &p, &(arrays){ x, w, bias, beta, y });
}

static void conv2d_back_x(nsm_device *d, const nsmi_conv *c, const float *w, const float *dy,
                          float beta, float *dx)
{
    if (c->batch * c->channels * c->height * c->width == 0) return;
    pass p = backward_pass(c);
    run(d, &p, &(arrays){ dy, w, NULL, beta, dx });
}

/* ---- the gradient of the weights ---- */

/* rows x taps dot products of n numbers, n a multiple of W, added to dw: dy by rows ld apart. */
static inline __attribute__((always_inline)) void dots(const int rows, const int taps, int64_t n,
                                                       const float *dy, int64_t ld,
                                                       const float *const *run, float *dw,
                                                       int64_t ldw)
{
    vf sum[DOT_ROWS][DOT_TAPS], x[DOT_TAPS];
    for (int r = 0; r < rows; r++)
        for (int t = 0; t < taps; t++) sum[r][t] = vf_set(0);
    for (int64_t q = 0; q < n; q += W) {
#pragma GCC unroll 6
        for (int t = 0; t < taps; t++) x[t] = vf_load(run[t] + q);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            vf y = vf_load(dy + r * ld + q);
#pragma GCC unroll 6
            for (int t = 0; t < taps; t++) sum[r][t] += y * x[t];
        }
    }
    for (int r = 0; r < rows; r++)
        for (int t = 0; t < taps; t++) dw[r * ldw + t] += vf_sum(sum[r][t]);
}

/* One tile, whatever there is of it. */
static void dot_tile(int64_t rows, int64_t taps, int64_t n, const float *dy, int64_t ld,
                     const float *planes, const int32_t *at, float *dw, int64_t ldw)
{
    const float *run[DOT_TAPS];
    for (int t = 0; t < DOT_TAPS; t++) run[t] = planes + at[t < taps ? t : 0];
    if (rows == DOT_ROWS && taps == DOT_TAPS) dots(DOT_ROWS, DOT_TAPS, n, dy, ld, run, dw, ldw);
    else if (taps == DOT_TAPS)
        for (int64_t r = 0; r < rows; r++)
            dots(1, DOT_TAPS, n, dy + r * ld, ld, run, dw + r * ldw, ldw);
    else
        for (int64_t r = 0; r < rows; r++)
            for (int64_t t = 0; t < taps; t++)
                dots(1, 1, n, dy + r * ld, ld, run + t, dw + r * ldw + t, ldw);
}

/* dw [O/G, K] of outputs o0..o1 += those of one block; planes of dy stand in the room of sums. */
static void dot_block(const block *b, int64_t o0, int64_t o1, const float *x, const float *dy,
                      float *dw, const room *m)
{
    static const int64_t one[2] = { 1, 1 };
    const pass *p = b->p;
    const int64_t count = taps_of(p, one, m->taps), all = p->from.channels * count,
                  n = nsmi_blocks(used(b), W) * W;
    float *rows = m->sums;
    for (int64_t c0 = 0; c0 < p->from.channels; c0 += p->channels) {
        int64_t c1 = least(c0 + p->channels, p->from.channels), depth = (c1 - c0) * count;
        fill_planes(b, &p->from, p->phases, b->rows + p->halo[0], c0, c1, x, m->planes);
        place_taps(b, c1 - c0, p->phases[0] * p->phases[1], count, m->taps, m->at);
        for (int64_t o = o0, step; o < o1; o += step) {
            step = least(o1 - o, SUMS / places(b) / DOT_ROWS * DOT_ROWS);
            fill_planes(b, &p->to, one, b->rows, o, o + step, dy, rows);
            for (int64_t k = 0; k < depth; k += DOT_TAPS)
                for (int64_t r = 0; r < step; r += DOT_ROWS)
                    dot_tile(least(DOT_ROWS, step - r), least(DOT_TAPS, depth - k), n,
                             rows + r * places(b), places(b), m->planes, m->at + k,
                             dw + (o + r) * all + c0 * count + k, all);
        }
    }
}

static void add_parts(nsm_device *d, int64_t n, int64_t parts, const float *part, float *dw)
{
#pragma omp parallel for schedule(static) num_threads(nsmi_team(d, n *parts))
    for (int64_t i = 0; i < nsmi_blocks(n, NSMI_BLOCK); i++)
        for (int64_t s = 0; s < parts; s++)
            VF_EACH(j, k, nsmi_block_end(i, NSMI_BLOCK, n) - i * NSMI_BLOCK,
                    blend_n(dw + i * NSMI_BLOCK + j, 1,
                            vf_get(part + s * n + i * NSMI_BLOCK + j, k), k););
}

static void conv2d_back_w(nsm_device *d, const nsmi_conv *c, const float *x, const float *dy,
                          float *dw)
{
    if (is_empty(c)) return;
    pass p = forward_pass(c);
    int64_t groups = c->groups, size = c->outputs * p.from.channels * c->kernel[0] * c->kernel[1],
            blocks = p.image_blocks * p.row_blocks,
            parts = least(blocks, least(PARTS, NSMI_SCRATCH / size)), each, tasks;
    if (parts < 1) parts = 1;
    each = nsmi_blocks(blocks, parts);
    parts = nsmi_blocks(blocks, each);
    tasks = parts * groups * p.output_blocks;
    float *part = parts > 1 ? nsmi_scratch(d) : dw;
    if (parts > 1) memset(part, 0, (size_t)(parts * size) * sizeof *part);
#pragma omp parallel for schedule(dynamic) num_threads(nsmi_team(d, work_of(c)))
    for (int64_t t = 0; t < tasks; t++) {
        room m = room_of(d);
        int64_t at = t / p.output_blocks / groups, g = t / p.output_blocks % groups,
                o = t % p.output_blocks * OUTPUTS;
        for (int64_t i = at * each; i < nsmi_block_end(at, each, blocks); i++) {
            block b = block_of(&p, i, g);
            dot_block(&b, o, least(o + OUTPUTS, p.to.channels), x, dy,
                      part + at * size + g * (size / groups), &m);
        }
    }
    if (parts > 1) add_parts(d, size, parts, part, dw);
}

void NSMI_FILL(conv2d)(nsm_backend *be)
{
    be->conv2d = conv2d;
    be->conv2d_back_x = conv2d_back_x;
    be->conv2d_back_w = conv2d_back_w;
}
