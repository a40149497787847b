/* kernels/cpu/memory.c - What stands around the slots of the state memory: clocks, the exact
 * window, the mix.
 *
 * The clock turns a unit vector by a phase that the content drives: phases are sums over the
 * tokens, in double since they grow with n, the angles reduced in double and turned in float.
 * The window is attention with few keys for each query: a block of queries meets its band of keys
 * by small products (tile.h), rows and columns outside the band left out by groups.  Backward goes
 * over segments of blocks; what a segment gives to the keys before it stands apart and is added in
 * order.
 * Letters: B batch, n tokens, H heads, D, E sizes of keys and values, w window; r query of a block,
 * c column of its band: query r sees columns r .. r + w - 1, the last of them itself. */
#include "kernels/cpu/tile.h"

/* ---- clock ---- */
enum { PAIRS = NSMI_CLOCK_PAIRS };

/* What pair m turns by a phase of 1: from a quarter turn down by 10^1.5. */
static void frequencies(int64_t pairs, double *omega)
{
    for (int64_t m = 0; m < pairs; m++)
        omega[m] = acos(-1.0) / 2 * pow(10, -1.5 * (double)m / (double)(pairs > 1 ? pairs - 1 : 1));
}

/* Phases of all tokens; where the last one is left, if start is in double. */
static void run_phases(const nsmi_clock *c, int64_t pool, const float *rate, double *phase)
{
    int64_t b = pool / c->heads, h = pool % c->heads, at = (b * c->rows + c->row) * c->heads + h;
    double now = c->start         ? c->start[at]
                 : c->start_float ? (double)c->start_float[at]
                                  : 0,
           last = now;
    for (int64_t t = 0; t < c->tokens; t++) {
        int64_t i = (b * c->tokens + t) * c->heads + h;
        phase[i] = now += (double)rate[i];
        if (t < nsmi_length(c->length, b, c->tokens)) last = now;
    }
    if (c->start) c->start[at] = last;
}

/* Turn the pairs m.. of y, W of them or `lanes`, by phase; back with sign -1. */
static inline void turn(float *y, int64_t pairs, int64_t m, int64_t lanes, const double *omega,
                        double phase, float sign, vf *sine)
{
    const double turns = 1 / (2 * acos(-1.0));
    float angle[W] __attribute__((aligned(64))) = { 0 };
    for (int64_t i = 0; i < lanes; i++) {
        double a = phase * omega[m + i] * turns;
        angle[i] = (float)((a - rint(a)) / turns);
    }
    vf co = vf_cos(vf_load(angle)), si = sign * vf_sin(vf_load(angle)), a = vf_get(y + m, lanes),
       b = vf_get(y + pairs + m, lanes);
    vf_put(y + m, a * co - b * si, lanes);
    vf_put(y + pairs + m, a * si + b * co, lanes);
    *sine = si;
}

static void clock_row(const nsmi_clock *c, const double *omega, const double *phase, const float *x,
                      float *by, float *y)
{
    vf squares = vf_set(0), unused;
    VF_EACH(i, lanes, c->size, {
        vf v = vf_get(x + i, lanes);
        squares += v * v;
    });
    *by = 1 / sqrtf(vf_sum(squares) + 1e-6f);
    VF_EACH(i, lanes, c->size, vf_put(y + i, *by * vf_get(x + i, lanes), lanes););
    VF_EACH(m, lanes, c->pairs, turn(y, c->pairs, m, lanes, omega, *phase, 1, &unused););
}

static void clock_turn(nsm_device *d, const nsmi_clock *c, const float *x, const float *rate,
                       double *phase, float *by, float *y)
{
    double omega[PAIRS];
    int64_t rows = c->batch * c->tokens * c->heads, step = nsmi_block_rows(c->size * 4);
    frequencies(c->pairs, omega);
    if (c->pairs)
        for (int64_t i = 0; i < c->batch * c->heads; i++) run_phases(c, i, rate, phase);
#pragma omp parallel for num_threads(nsmi_team(d, rows * c->size * 4)) schedule(static)
    for (int64_t k = 0; k < nsmi_blocks(rows, step); k++)
        for (int64_t i = k * step; i < nsmi_block_end(k, step, rows); i++)
            clock_row(c, omega, c->pairs ? phase + i : NULL, x + i * c->size, by + i,
                      y + i * c->size);
}

/* dy back to dx of one row; what the phase gets.  z, dz: room for a row each. */
static float clock_row_back(const nsmi_clock *c, const double *omega, const double *phase,
                            const float *y, const float *dy, float by, float beta, float *dx)
{
    float z[PAIRS * 2 + W], dz[PAIRS * 2 + W];
    int64_t size = c->size, turned = 2 * c->pairs;
    vf along = vf_set(0), dphase = vf_set(0), unused;
    memcpy(z, y, (size_t)turned * sizeof *z);
    memcpy(dz, dy, (size_t)turned * sizeof *dz);
    VF_EACH(i, lanes, size, along += vf_get(y + i, lanes) * vf_get(dy + i, lanes););
    VF_EACH(m, lanes, c->pairs, {
        vf speed = vf_set(0);
        for (int64_t i = 0; i < lanes; i++) speed[i] = (float)omega[m + i];
        dphase += speed * (vf_get(y + m, lanes) * vf_get(dy + c->pairs + m, lanes) -
                           vf_get(y + c->pairs + m, lanes) * vf_get(dy + m, lanes));
        turn(z, c->pairs, m, lanes, omega, *phase, -1, &unused);
        turn(dz, c->pairs, m, lanes, omega, *phase, -1, &unused);
    });
    float a = vf_sum(along);
    VF_EACH(i, lanes, size, {
        int64_t in = turned - i < lanes ? turned - i : lanes; /* lanes that were turned */
        vf u = vf_get(y + i, lanes);
        vf g = vf_get(dy + i, lanes);
        if (in > 0) u = vf_first(vf_get(z + i, lanes), in, u);
        if (in > 0) g = vf_first(vf_get(dz + i, lanes), in, g);
        vf v = by * (g - u * a);
        blend_n(dx + i, beta, v, lanes);
    });
    return vf_sum(dphase);
}

/* A rate moves its own phase and all later ones. */
static void phases_back(const nsmi_clock *c, int64_t pool, const float *dphase, float *drate,
                        float *dstart)
{
    int64_t b = pool / c->heads, h = pool % c->heads;
    double sum = 0;
    for (int64_t t = c->tokens - 1; t >= 0; t--) {
        int64_t i = (b * c->tokens + t) * c->heads + h;
        sum += (double)dphase[i];
        if (drate) drate[i] += (float)sum;
    }
    if (dstart) dstart[(b * c->rows + c->row) * c->heads + h] += (float)sum;
}

static void clock_back(nsm_device *d, const nsmi_clock *c, const double *phase, const float *by,
                       const float *y, const float *dy, float *scratch, float beta, float *dx,
                       float *drate, float *dstart)
{
    double omega[PAIRS];
    int64_t rows = c->batch * c->tokens * c->heads, step = nsmi_block_rows(c->size * 4);
    frequencies(c->pairs, omega);
#pragma omp parallel for num_threads(nsmi_team(d, rows * c->size * 4)) schedule(static)
    for (int64_t k = 0; k < nsmi_blocks(rows, step); k++)
        for (int64_t i = k * step; i < nsmi_block_end(k, step, rows); i++)
            scratch[i] = clock_row_back(c, omega, c->pairs ? phase + i : NULL, y + i * c->size,
                                        dy + i * c->size, by[i], beta, dx + i * c->size);
    if (drate || dstart)
        for (int64_t i = 0; i < c->batch * c->heads; i++) phases_back(c, i, scratch, drate, dstart);
}

/* ---- window ---- */
/* of a block; blocks of a segment, at least; of backward */
enum { QUERIES = 64, SEGMENT = 8, TASKS = 16 };

typedef struct {
    const nsmi_window *c;
    const nsmi_window_in *in;
    int64_t b, h, there;       /* tokens before these that can be seen */
    int64_t i0, rows, cols;    /* the block: its first query; its band starts w - 1 before that */
    int64_t lds;
    /* a thread's room */
    float *keys, *values, *turned_k, *turned_v, *packed, *score, *dscore, *bias;
    int32_t *first, *last;
} band;

static int64_t band_floats(const nsmi_window *c)
{
    int64_t cols = tile_width(QUERIES + c->window - 1),
            wide = tile_width(c->keys) + tile_width(c->values);
    return cols * (wide + tile_width(c->keys) + c->keys + c->values) +
           2 * (QUERIES * cols + 2 * W) + c->window + W + 2 * (cols / TILE_ROWS + QUERIES);
}

static void band_rooms(band *k, float *room)
{
    int64_t cols = tile_width(QUERIES + k->c->window - 1);
    k->lds = cols;
    k->score = room;
    k->dscore = k->score + QUERIES * cols + 2 * W;
    k->turned_k = k->dscore + QUERIES * cols + 2 * W;
    k->turned_v = k->turned_k + tile_width(k->c->keys) * cols;
    k->packed = k->turned_v + tile_width(k->c->values) * cols;
    k->keys = k->packed + tile_width(k->c->keys) * cols;
    k->values = k->keys + k->c->keys * cols;
    k->bias = k->values + k->c->values * cols;
    k->first = (int32_t *)(k->bias + k->c->window + W);
    k->last = k->first + cols / TILE_ROWS + QUERIES;
}

/* Head h of row b: its biases by column. */
static void band_head(band *k, int64_t b, int64_t h)
{
    int64_t w = k->c->window;
    k->b = b;
    k->h = h;
    k->there = !k->in->past_k ? 0 : !k->c->seen || k->c->seen[b] > w - 1 ? w - 1 : k->c->seen[b];
    for (int64_t c = 0; c < w; c++) k->bias[c] = k->in->bias[h * w + w - 1 - c];
}

/* The band's rows of x [B,n,H,size], in `room` where some of them come from the past; *ld: their
 * distance. */
static const float *band_rows(const band *k, const float *x, const float *past, int64_t size,
                              float *room, int64_t *ld)
{
    int64_t j0 = k->i0 - (k->c->window - 1), before = k->c->window - 1;
    const float *first = x + (k->b * k->c->tokens * k->c->heads + k->h) * size;
    *ld = k->c->heads * size;
    if (j0 >= 0) return first + j0 * *ld;
    for (int64_t c = 0; c < k->cols; c++) {
        int64_t j = j0 + c;
        if (j >= 0) memcpy(room + c * size, first + j * *ld, (size_t)size * sizeof *room);
        else if (j >= -k->there)
            memcpy(room + c * size,
                   past + ((k->b * before + before + j) * k->c->heads + k->h) * size,
                   (size_t)size * sizeof *room);
        else memset(room + c * size, 0, (size_t)size * sizeof *room);
    }
    *ld = size;
    return room;
}

static void band_block(band *k, int64_t i0)
{
    k->i0 = i0;
    k->rows = k->c->tokens - i0 < QUERIES ? k->c->tokens - i0 : QUERIES;
    k->cols = k->rows + k->c->window - 1;
}

/* The columns that a group of queries sees. */
static void spans_of_rows(const band *k)
{
    for (int64_t r = 0, g = 0; r < k->rows; r += TILE_ROWS, g++) {
        k->first[g] = (int32_t)r;
        k->last[g] = (int32_t)((r + TILE_ROWS < k->rows ? r + TILE_ROWS : k->rows) + k->c->window -
                               1);
    }
}

/* The queries that see a group of the columns from c0 on. */
static void spans_of_columns(const band *k, int64_t c0)
{
    for (int64_t c = c0, g = 0; c < k->cols; c += TILE_ROWS, g++) {
        int64_t first = c - k->c->window + 1, last = c + TILE_ROWS;
        k->first[g] = (int32_t)(first > 0 ? first : 0);
        k->last[g] = (int32_t)(last < k->rows ? last : k->rows);
    }
}

/* Query r's columns low..high; the products of the rest of its row are no one's. */
static inline int64_t low_of(const band *k, int64_t r)
{
    int64_t low = k->c->window - 1 - k->i0 - k->there;
    return low > r ? low : r;
}

static inline void clear_outside(const band *k, float *row, int64_t low, int64_t high)
{
    memset(row, 0, (size_t)low * sizeof *row);
    memset(row + high, 0, (size_t)(k->lds - high) * sizeof *row);
}

/* Scores of the block's queries: q . k, not yet scaled. */
static void band_scores(const band *k, const float *q)
{
    int64_t ld = k->c->heads * k->c->keys;
    spans_of_rows(k);
    tile_run(&(tile_product){ q, ld, false, k->turned_k, k->rows, k->cols, k->c->keys, 1, 0,
                              k->score, k->lds, k->first, k->last, true });
}

static inline vf exp_of(vf x) { return vf_exp(vf_max(vf_set(-87.0f), x)); }

/* A row of scores to the softmax of gamma s + bias, and its log of the sum of exponentials. */
static float soften(const band *k, int64_t r, float gamma)
{
    float *row = k->score + r * k->lds;
    int64_t low = low_of(k, r), n = r + k->c->window - low;
    const float *bias = k->bias + low - r;
    vf most = vf_set(-INFINITY), sum = vf_set(0);
    clear_outside(k, row, low, r + k->c->window);
    row += low;
    VF_EACH(c, lanes, n, {
        vf l = gamma * vf_get(row + c, lanes) + vf_get(bias + c, lanes);
        vf_put(row + c, l, lanes);
        most = vf_max(vf_first(l, lanes, most), most);
    });
    float top = vf_top(most);
    VF_EACH(c, lanes, n, {
        vf e = exp_of(vf_get(row + c, lanes) - top);
        vf_put(row + c, e, lanes);
        sum += vf_first(e, lanes, vf_set(0));
    });
    float total = vf_sum(sum), by = 1 / total;
    VF_EACH(c, lanes, n, vf_put(row + c, by * vf_get(row + c, lanes), lanes););
    return top + logf(total);
}

static void window_block(band *k, float *y, float *lse)
{
    const nsmi_window *c = k->c;
    int64_t ld, at = (k->b * c->tokens + k->i0) * c->heads + k->h;
    const float *rows = band_rows(k, k->in->k, k->in->past_k, c->keys, k->keys, &ld);
    tile_pack(rows, ld, true, k->cols, c->keys, k->turned_k);
    band_scores(k, k->in->q + at * c->keys);
    for (int64_t r = 0; r < k->rows; r++) {
        float l = soften(k, r, k->in->gamma[k->h]);
        if (lse) lse[at + r * c->heads] = l;
    }
    rows = band_rows(k, k->in->v, k->in->past_v, c->values, k->values, &ld);
    tile_pack(rows, ld, false, c->values, k->cols, k->turned_v);
    tile_run(&(tile_product){ k->score, k->lds, false, k->turned_v, k->rows, c->values, k->cols, 1,
                              0, y + at * c->values, c->heads * c->values, k->first, k->last,
                              false });
}

/* Backward's tasks: segments of a head's blocks.  Each has rooms of its own for the keys before it
 * and for the sums over its queries. */
typedef struct { int64_t count, blocks; int64_t halo, sums; } segments;

static segments segments_of(const nsmi_window *c)
{
    int64_t blocks = nsmi_blocks(c->tokens, QUERIES),
            tasks = nsmi_blocks(TASKS, c->batch * c->heads);
    int64_t least = nsmi_blocks(c->window, QUERIES) > SEGMENT ? nsmi_blocks(c->window, QUERIES)
                                                              : SEGMENT;
    int64_t each = nsmi_blocks(blocks, tasks) > least ? nsmi_blocks(blocks, tasks) : least;
    return (segments){ nsmi_blocks(blocks, each), each, (c->window - 1) * (c->keys + c->values),
                       c->window + 1 };
}

/* [w-1,D], [w-1,E], by column [w], [1] */
typedef struct { float *keys, *values, *bias, *gamma; } segment_room;

static segment_room room_of(const nsmi_window *c, const segments *s, float *part, int64_t task)
{
    float *room = part + task * (s->halo + s->sums);
    return (segment_room){ room, room + (c->window - 1) * c->keys, room + s->halo,
                           room + s->halo + c->window };
}

/* A row of scores and of dscores to p and to gamma ds; the sums over ds. */
static void soften_back(const band *k, int64_t r, float gamma, float lse, const segment_room *to)
{
    float *row = k->score + r * k->lds, *drow = k->dscore + r * k->lds;
    int64_t low = low_of(k, r), n = r + k->c->window - low;
    const float *bias = k->bias + low - r;
    float *dbias = to->bias + low - r;
    vf delta = vf_set(0), dgamma = vf_set(0);
    clear_outside(k, row, low, r + k->c->window);
    clear_outside(k, drow, low, r + k->c->window);
    row += low;
    drow += low;
    VF_EACH(c, lanes, n, {
        vf p = vf_first(exp_of(gamma * vf_get(row + c, lanes) + vf_get(bias + c, lanes) - lse),
                        lanes, vf_set(0));
        delta += p * vf_get(drow + c, lanes);
    });
    float d = vf_sum(delta);
    VF_EACH(c, lanes, n, {
        vf s = vf_get(row + c, lanes);
        vf p = vf_first(exp_of(gamma * s + vf_get(bias + c, lanes) - lse), lanes, vf_set(0));
        vf ds = p * (vf_get(drow + c, lanes) - d);
        dgamma += ds * s;
        vf_put(dbias + c, vf_get(dbias + c, lanes) + ds, lanes);
        vf_put(row + c, p, lanes);
        vf_put(drow + c, gamma * ds, lanes);
    });
    *to->gamma += vf_sum(dgamma);
}

/* += what the block gives to the columns c0 .. c1 of its band: of keys and of values. */
static void give_columns(const band *k, int64_t c0, int64_t c1, float *dk, int64_t ldk, float *dv,
                         int64_t ldv)
{
    const nsmi_window *c = k->c;
    spans_of_columns(k, c0);
    tile_run(&(tile_product){ k->dscore + c0, k->lds, true, k->turned_k, c1 - c0, c->keys, k->rows,
                              1, 1, dk, ldk, k->first, k->last, false });
    tile_run(&(tile_product){ k->score + c0, k->lds, true, k->turned_v, c1 - c0, c->values, k->rows,
                              1, 1, dv, ldv, k->first, k->last, false });
}

static void window_block_back(band *k, int64_t segment_start, const float *lse, const float *dy,
                              const nsmi_window_grad *g, const segment_room *to)
{
    const nsmi_window *c = k->c;
    int64_t ldk, ldv, at = (k->b * c->tokens + k->i0) * c->heads + k->h,
                      j0 = k->i0 - (c->window - 1);
    int64_t wide_k = c->heads * c->keys, wide_v = c->heads * c->values;
    const float *q = k->in->q + at * c->keys;
    const float *keys = band_rows(k, k->in->k, k->in->past_k, c->keys, k->keys, &ldk);
    const float *values = band_rows(k, k->in->v, k->in->past_v, c->values, k->values, &ldv);
    dy += at * c->values;
    tile_pack(keys, ldk, true, k->cols, c->keys, k->turned_k);
    band_scores(k, q);
    tile_pack(values, ldv, true, k->cols, c->values, k->turned_v);
    tile_run(&(tile_product){ dy, wide_v, false, k->turned_v, k->rows, k->cols, c->values, 1, 0,
                              k->dscore, k->lds, k->first, k->last, true });
    for (int64_t r = 0; r < k->rows; r++)
        soften_back(k, r, k->in->gamma[k->h], lse[at + r * c->heads], to);
    tile_pack(keys, ldk, false, c->keys, k->cols, k->packed);
    tile_run(&(tile_product){ k->dscore, k->lds, false, k->packed, k->rows, c->keys, k->cols, 1, 1,
                              g->dq + at * c->keys, wide_k, k->first, k->last, false });
    tile_pack(q, wide_k, false, c->keys, k->rows, k->turned_k);
    tile_pack(dy, wide_v, false, c->values, k->rows, k->turned_v);
    int64_t outside = segment_start > j0 ? segment_start - j0 : 0, first = outside + j0;
    if (outside) {
        int64_t skip = c->window - 1 - outside; /* the rooms start w - 1 before the segment */
        give_columns(k, 0, outside, to->keys + skip * c->keys, c->keys,
                     to->values + skip * c->values, c->values);
    }
    int64_t there = (k->b * c->tokens + first) * c->heads + k->h;
    give_columns(k, outside, k->cols, g->dk + there * c->keys, wide_k, g->dv + there * c->values,
                 wide_v);
}

static void window_segment(const nsmi_window *c, const nsmi_window_in *in, const segments *s,
                           int64_t task, const float *lse, const float *dy, float *room,
                           float *part, const nsmi_window_grad *g)
{
    band k = { .c = c, .in = in };
    segment_room to = room_of(c, s, part, task);
    int64_t start = task % s->count * s->blocks * QUERIES, end = start + s->blocks * QUERIES;
    memset(to.keys, 0, (size_t)(s->halo + s->sums) * sizeof(float));
    band_rooms(&k, room);
    band_head(&k, task / s->count / c->heads, task / s->count % c->heads);
    for (int64_t i = start; i < end && i < c->tokens; i += QUERIES) {
        band_block(&k, i);
        window_block_back(&k, start, lse, dy, g, &to);
    }
}

/* Add what segments left apart, in order. */
static void add_rows(const float *x, int64_t rows, int64_t size, float *y, int64_t ld)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t e = 0; e < size; e++) y[r * ld + e] += x[r * size + e];
}

static void join_segment(const nsmi_window *c, const segments *s, int64_t task, float *part,
                         const nsmi_window_grad *g)
{
    segment_room from = room_of(c, s, part, task);
    int64_t head = task / s->count, b = head / c->heads, h = head % c->heads,
            before = c->window - 1;
    int64_t start = task % s->count * s->blocks * QUERIES,
            at = (b * c->tokens + start - before) * c->heads + h;
    for (int64_t i = 0; i <= before; i++) g->dbias[h * c->window + before - i] += from.bias[i];
    g->dgamma[h] += *from.gamma;
    if (start) {
        add_rows(from.keys, before, c->keys, g->dk + at * c->keys, c->heads * c->keys);
        add_rows(from.values, before, c->values, g->dv + at * c->values, c->heads * c->values);
        return;
    }
    at = b * before * c->heads + h;
    if (g->dpast_k)
        add_rows(from.keys, before, c->keys, g->dpast_k + at * c->keys, c->heads * c->keys);
    if (g->dpast_v)
        add_rows(from.values, before, c->values, g->dpast_v + at * c->values, c->heads * c->values);
}

static int64_t window_work(const nsmi_window *c)
{
    return c->batch * c->heads * c->tokens * c->window * (c->keys + c->values) / 16;
}
static int64_t band_step(const nsmi_window *c) { return nsmi_blocks(band_floats(c), 16) * 16; }

static int64_t window_room(nsm_device *d, const nsmi_window *c, bool back)
{
    segments s = segments_of(c);
    int64_t parts = back ? c->batch * c->heads * s.count * (s.halo + s.sums) : 0;
    return nsmi_team(d, window_work(c)) * band_step(c) + parts;
}

static void window(nsm_device *d, const nsmi_window *c, const nsmi_window_in *in, float *scratch,
                   float *y, float *lse)
{
    int64_t blocks = nsmi_blocks(c->tokens, QUERIES);
#pragma omp parallel for num_threads(nsmi_team(d, window_work(c))) schedule(dynamic)
    for (int64_t i = 0; i < c->batch * c->heads * blocks; i++) {
        band k = { .c = c, .in = in };
        band_rooms(&k, scratch + omp_get_thread_num() * band_step(c));
        band_head(&k, i / blocks / c->heads, i / blocks % c->heads);
        band_block(&k, i % blocks * QUERIES);
        window_block(&k, y, lse);
    }
}

static void window_back(nsm_device *d, const nsmi_window *c, const nsmi_window_in *in,
                        const float *lse, const float *dy, float *scratch,
                        const nsmi_window_grad *g)
{
    segments s = segments_of(c);
    int64_t tasks = c->batch * c->heads * s.count;
    float *part = scratch + nsmi_team(d, window_work(c)) * band_step(c);
#pragma omp parallel for num_threads(nsmi_team(d, window_work(c))) schedule(dynamic)
    for (int64_t i = 0; i < tasks; i++)
        window_segment(c, in, &s, i, lse, dy, scratch + omp_get_thread_num() * band_step(c), part,
                       g);
    for (int64_t i = 0; i < tasks; i++) join_segment(c, &s, i, part, g);
}

/* ---- mix: y = g m rms(o, w) + (1 - g) near, g = sigmoid(gate); rows are tokens of a head ---- */
static inline vf gate_of(const float *gate, int64_t lanes)
{
    return 1 / (1 + vf_exp(-vf_get(gate, lanes)));
}

static inline float rms_of(const float *o, int64_t n)
{
    vf squares = vf_set(0);
    VF_EACH(i, lanes, n, {
        vf v = vf_get(o + i, lanes);
        squares += v * v;
    });
    return 1 / sqrtf(vf_sum(squares) / (float)n + 1e-5f);
}

static void memory_mix(nsm_device *d, int64_t tokens, int64_t heads, int64_t size, const float *o,
                       const float *mass, const float *near, const float *gate, const float *w,
                       float *y)
{
    int64_t rows = tokens * heads, step = nsmi_block_rows(size * 4);
#pragma omp parallel for num_threads(nsmi_team(d, rows * size * 4)) schedule(static)
    for (int64_t k = 0; k < nsmi_blocks(rows, step); k++)
        for (int64_t i = k * step; i < nsmi_block_end(k, step, rows); i++) {
            int64_t at = i * size;
            const float *by = w + i % heads * size;
            float r = mass[i] * rms_of(o + at, size);
            VF_EACH(e, lanes, size, {
                vf g = gate_of(gate + at + e, lanes);
                vf b = vf_get(near + at + e, lanes);
                vf_put(y + at + e,
                       b + g * (r * vf_get(o + at + e, lanes) * vf_get(by + e, lanes) - b), lanes);
            });
        }
}

/* One row: a = dy g m w is the gradient of x = o r; do = r (a - x mean(x a)). */
static void mix_row_back(const nsmi_mix *x, int64_t i, int64_t size, const float *w,
                         const float *dy, const nsmi_mix_grad *g, float *dw)
{
    int64_t at = i * size;
    const float *o = x->o + at;
    float r = rms_of(o, size), m = x->mass[i];
    vf dm = vf_set(0);
    VF_EACH(e, lanes, size, {
        vf gate = gate_of(x->gate + at + e, lanes);
        vf dye = vf_get(dy + at + e, lanes);
        vf unit = r * vf_get(o + e, lanes);
        vf far = unit * vf_get(w + e, lanes);
        if (g->gate)
            blend_n(g->gate + at + e, g->beta[3],
                    dye * gate * (1 - gate) * (m * far - vf_get(x->near + at + e, lanes)), lanes);
        if (g->near) blend_n(g->near + at + e, g->beta[2], dye * (1 - gate), lanes);
        dm += dye * gate * far;
        vf_put(dw + e, vf_get(dw + e, lanes) + dye * gate * m * unit, lanes);
    });
    float along = vf_sum(dm);
    if (g->mass) g->mass[i] = along + (g->beta[1] == 0 ? 0 : g->beta[1] * g->mass[i]);
    if (!g->o) return;
    along *= m / (float)size;
    VF_EACH(e, lanes, size, {
        vf a = vf_get(dy + at + e, lanes) * gate_of(x->gate + at + e, lanes) * m *
               vf_get(w + e, lanes);
        blend_n(g->o + at + e, g->beta[0], r * (a - r * vf_get(o + e, lanes) * along), lanes);
    });
}

static void memory_mix_back(nsm_device *d, int64_t tokens, int64_t heads, int64_t size,
                            const nsmi_mix *x, const float *w, const float *dy,
                            const nsmi_mix_grad *g)
{
    int64_t wide = heads * size, step = nsmi_partial_rows(tokens, wide, wide),
            blocks = nsmi_blocks(tokens, step);
    float *partial = nsmi_scratch(d); /* [blocks, H, E] */
#pragma omp parallel for num_threads(nsmi_team(d, tokens * wide * 8)) schedule(static)
    for (int64_t k = 0; k < blocks; k++) {
        float *dw = partial + k * wide;
        memset(dw, 0, (size_t)wide * sizeof *dw);
        for (int64_t t = k * step; t < nsmi_block_end(k, step, tokens); t++)
            for (int64_t h = 0; h < heads; h++)
                mix_row_back(x, t * heads + h, size, w + h * size, dy, g, dw + h * size);
    }
    for (int64_t k = 0; g->w && k < blocks; k++)
        for (int64_t j = 0; j < wide; j++) g->w[j] += partial[k * wide + j];
}

void NSMI_FILL(memory)(nsm_backend *be)
{
    be->clock = clock_turn;
    be->clock_back = clock_back;
    be->window_room = window_room;
    be->window = window;
    be->window_back = window_back;
    be->memory_mix = memory_mix;
    be->memory_mix_back = memory_mix_back;
}
