/* kernels/cuda/recurrence.cu - Linear recurrences over heads, chunk by chunk (formulas in
 * backend.h, the sums and their letters in chunk.h, the derivation beside the CPU's twin in
 * kernels/cpu/recurrence.c).
 *
 * Every chunk of every head is a block's, but for what has to go in order:
 *   fade    q from its chunk's start, k to its end, ...: P(0, i) x_i and P(j, m) y_j
 *   carry   S' = P(0, m) S + K^' V + B^' W, W = X^ S + Y^, chunk after chunk: a block takes 16
 *           columns of a state, which go their way alone, and without W 64 rows of them
 *   read    O = Q~ S + A V, A the scores of q and k
 * Where a token reads the state before it writes (delta rule, a and b), what a chunk's tokens write
 * is W = T (A~ S + Y), T = (1 - A_ab)^-1: invert gives T of every chunk, and X^ = T A~, Y^ = T Y.
 * Backward (recurrence_back.cu) is the same three: the gradients of states are carried from the
 * end, dE = T' (K^ dS + A' dO), dS' = P(0, m) dS + A~' dE + Q~' dO; pairs of arrays that met in
 * scores give each other their gradients chunk by chunk; and those of decays are sums from the
 * chunk's end.
 *
 * A few tokens without gradients (a step) take the state itself along, a warp 32 columns of it. */
#include "kernels/cuda/recurrence.h"

enum { FEW_TOKENS = 4, COLUMNS = 16, MOST_ROWS = NSMI_RECURRENCE_MOST };

static inline bool solves(const nsmi_recurrence_values *in) { return in->a || in->beta; }
static inline bool by_value(const nsmi_recurrence *r) { return r->fade == NSMI_FADE_VALUES; }

/* ---- fade: x times the product from its chunk's start, or to its end ---- */
typedef struct { heads_view x; float *to; bool early; } faded; /* to NULL: nothing */
typedef struct { sequences s; decay_view w; int64_t size; faded in[2], out[2]; float *all; } fader;

static __device__ void fade_in(const sequences &s, const faded &f, const chunk_place &p,
                               const fading &w, int64_t size, int d)
{
    float by = 1;
    strip x = strip_of(s, f.x, p);
    for (int t = 0; t < p.m; t++) {
        float *to = f.to + ((p.b * s.n + p.t0 + t) * s.heads + p.h) * size + d;
        if (f.early) *to = by * strip_at(x, t, d);
        by *= decay_at(w, t, d);
        if (!f.early) *to = by * strip_at(x, t, d);
    }
}

/* A thread a column of a chunk. */
static __global__ void fade_kernel(int64_t items, fader f)
{
    EACH_ITEM(i, items) {
        chunk_place p = place_of(f.s, i / f.size);
        fading w = fading_of(f.s, f.w, p);
        int d = (int)(i % f.size);
        for (int k = 0; k < 2; k++)
            if (f.in[k].to) fade_in(f.s, f.in[k], p, w, f.size, d);
        strip x[2];
        for (int k = 0; k < 2; k++)
            if (f.out[k].to) x[k] = strip_of(f.s, f.out[k].x, p);
        float by = 1;
        for (int t = p.m - 1; t >= 0; t--) {
            for (int k = 0; k < 2; k++)
                if (f.out[k].to)
                    f.out[k].to[((p.b * f.s.n + p.t0 + t) * f.s.heads + p.h) * f.size + d] =
                        by * strip_at(x[k], t, d);
            by *= decay_at(w, t, d);
        }
        f.all[i] = by;
    }
}

/* ---- carry ---- */
typedef struct {
    alignas(16) float l[DEPTH][PITCH], r[TOKENS][COLUMNS], w[TOKENS][COLUMNS];
} carry_room;

/* W of this block's columns: a thread has one row and four of them. */
template <int ROWS>
static __device__ void carry_write(const carrying &k, const chunk_place &p, carry_room &m,
                                   float (*state)[COLUMNS], int e0)
{
    const int row = (int)threadIdx.x / QUAD, col = (int)threadIdx.x % QUAD * QUAD;
    strip x = strip_of(k.s, k.x, p), y = strip_of(k.s, k.y, p);
    float acc[QUAD];
    for (int c = 0; c < QUAD; c++) acc[c] = strip_at(y, row, e0 + col + c);
    for (int d0 = 0; d0 < ROWS && d0 < k.dk; d0 += DEPTH) {
        __syncthreads();
        tile_fill<true>(m.l, d0, [&](int t, int d) { return strip_at(x, t, d); });
        __syncthreads();
        for (int d = 0; d < DEPTH; d++) {
            float v[QUAD];
            four_of(&state[d0 + d][col], v);
            for (int c = 0; c < QUAD; c++) acc[c] += m.l[d][row] * v[c];
        }
    }
    set<QUAD>(&m.w[row][col], 0, acc);
    for (int c = 0; c < QUAD; c++)
        if (row < p.m && e0 + col + c < k.dv)
            k.w[((p.b * k.s.n + p.t0 + row) * k.s.heads + p.h) * k.dv + e0 + col + c] = acc[c];
}

/* The rows d0.. of the state += those of l' r. */
static __device__ void carry_add(const carrying &k, const chunk_place &p, const heads_view &l,
                                 carry_room &m, float (*r)[COLUMNS], int d0, float acc[QUAD])
{
    const int row = (int)threadIdx.x / QUAD, col = (int)threadIdx.x % QUAD * QUAD;
    strip x = strip_of(k.s, l, p);
    for (int t0 = 0; t0 < p.m; t0 += DEPTH) {
        __syncthreads();
        tile_fill<false>(m.l, t0, [&](int d, int t) { return strip_at(x, t, d0 + d); });
        __syncthreads();
        for (int t = 0; t < DEPTH; t++) {
            float v[QUAD];
            four_of(&r[t0 + t][col], v);
            for (int c = 0; c < QUAD; c++) acc[c] += m.l[t][row] * v[c];
        }
    }
}

/* One chunk; row0: the first of the rows that this block has. */
template <int ROWS>
static __device__ void carry_chunk(const carrying &k, const chunk_place &p, carry_room &m,
                                   float (*state)[COLUMNS], int row0, int e0)
{
    const int row = (int)threadIdx.x / QUAD, col = (int)threadIdx.x % QUAD * QUAD;
    if (k.l[1].p) carry_write<ROWS>(k, p, m, state, e0);
    if (k.r[0].p) {
        strip r = strip_of(k.s, k.r[0], p);
        for (int s = (int)threadIdx.x; s < TOKENS * COLUMNS; s += BLOCK)
            m.r[s / COLUMNS][s % COLUMNS] = strip_at(r, s / COLUMNS, e0 + s % COLUMNS);
    }
    const float *all = k.all + (p.head * k.s.chunks + p.c) * (k.by_value ? k.dv : k.dk);
    for (int d0 = 0; d0 < ROWS && row0 + d0 < k.dk; d0 += TOKENS) {
        float acc[QUAD];
        int d = row0 + d0 + row;
        four_of(&state[d0 + row][col], acc);
        for (int c = 0; c < QUAD; c++) {
            int at = k.by_value ? e0 + col + c : d;
            acc[c] *= at < (k.by_value ? k.dv : k.dk) ? all[at] : 0;
        }
        if (k.l[0].p) carry_add(k, p, k.l[0], m, m.r, row0 + d0, acc);
        if (k.l[1].p) carry_add(k, p, k.l[1], m, m.w, row0 + d0, acc);
        set<QUAD>(&state[d0 + row][col], 0, acc);
    }
}

/* A block: 16 columns of a head's state, ROWS rows of it. */
template <int ROWS> static __global__ void carry_kernel(carrying k)
{
    __shared__ carry_room m;
    __align__(16) __shared__ float state[ROWS][COLUMNS];
    const int64_t wide = ceil_of(k.dv, COLUMNS), size = k.dk * k.dv,
                  head = (int64_t)blockIdx.x / (wide * k.slabs);
    const int e0 = (int)(blockIdx.x / k.slabs % wide) * COLUMNS,
              row0 = (int)(blockIdx.x % k.slabs) * ROWS;
    auto each_number = [&](auto job) {
        for (int s = (int)threadIdx.x; s < ROWS * COLUMNS; s += BLOCK) {
            int64_t d = row0 + s / COLUMNS, e = e0 + s % COLUMNS;
            if (d < k.dk && e < k.dv) job(&state[s / COLUMNS][s % COLUMNS], d * k.dv + e);
            else state[s / COLUMNS][s % COLUMNS] = 0;
        }
    };
    each_number([&](float *x, int64_t at) { *x = k.start ? k.start[head * size + at] : 0; });
    for (int64_t i = 0; i < k.s.chunks; i++) {
        int64_t c = k.back ? k.s.chunks - 1 - i : i;
        chunk_place p = place_of(k.s, head * k.s.chunks + c);
        __syncthreads();
        each_number([&](float *x, int64_t at) {
            k.states[(head * (k.s.chunks + 1) + c + k.back) * size + at] = *x;
        });
        if (p.m) carry_chunk<ROWS>(k, p, m, state, row0, e0);
    }
    __syncthreads();
    each_number([&](float *x, int64_t at) {
        k.states[(head * (k.s.chunks + 1) + (k.back ? 0 : k.s.chunks)) * size + at] = *x;
        if (k.end) k.end[head * size + at] = *x + (k.adds ? k.end[head * size + at] : 0);
    });
}

void nsmi_recurrence_carry(nsm_device *d, carrying k)
{
    int64_t heads = k.s.batch * k.s.heads, wide = ceil_of(k.dv, COLUMNS);
    bool together = k.l[1].p != NULL; /* all rows of a state in one block */
    k.slabs = together ? 1 : ceil_of(k.dk, TOKENS);
    unsigned blocks = (unsigned)(heads * wide * k.slabs);
    if (!together || k.dk <= TOKENS)
        NSM_LAUNCH(carry_kernel<TOKENS>, blocks, BLOCK, stream_of(d), k);
    else if (k.dk <= 2 * TOKENS)
        NSM_LAUNCH(carry_kernel<2 * TOKENS>, blocks, BLOCK, stream_of(d), k);
    else NSM_LAUNCH(carry_kernel<MOST_ROWS>, blocks, BLOCK, stream_of(d), k);
    launched(d);
}

/* ---- read: out = beta out + base S + A value, or A' value; A the scores of x and y ---- */
static __device__ void own_scores(const reading &k, const chunk_place &p, const strip &x,
                                  const strip &y, square a)
{
    for (int t = (int)threadIdx.x / LANES; t < TOKENS; t += WARPS) {
        float sum = 0;
        for (int d = (int)lane_of(); d < k.dk; d += LANES)
            sum += strip_at(x, t, d) * k.bonus[p.h * k.dk + d] * strip_at(y, t, d);
        sum = warp_sum(sum);
        if (lane_of() == 0) a[t][t] = sum;
    }
    __syncthreads();
}

static __global__ void __launch_bounds__(BLOCK, 2) read_kernel(reading k)
{
    __shared__ tile_room m;
    __shared__ square a;
    __shared__ second_room room;
    chunk_place p = place_of(k.s, blockIdx.x);
    strip x = strip_of(k.s, k.x, p), y = strip_of(k.s, k.y, p), value = strip_of(k.s, k.value, p);
    fading w = fading_of(k.s, k.w, p);
    tile_scores(
        m, room.scores, (int)k.dk, [&](int t, int d) { return strip_at(x, t, d); },
        [&](int t, int d) { return strip_at(y, t, d); },
        [&](int t, int d) { return k.by_value ? 1 : decay_at(w, t, d); }, k.early, k.strict, a);
    if (k.bonus) own_scores(k, p, x, y, a);
    for (int e0 = 0; e0 < k.dv; e0 += TOKENS) {
        float z[QUAD][QUAD];
        tile_clear(z);
        if (k.base.p) {
            strip base = strip_of(k.s, k.base, p);
            state_view s = state_of_chunk(k.states, k.s, p, k.behind, k.dk, k.dv);
            tile_product<true, false>(
                m, (int)k.dk, [&](int t, int d) { return strip_at(base, t, d); },
                [&](int e, int d) { return state_at(s, d, e0 + e); }, z);
        }
        auto values = [&](int t, int e) { return strip_at(value, t, e0 + e); };
        auto decays = [&](int t, int e) { return decay_at(w, t, e0 + e); };
        if (k.by_value && k.turned) tile_by_col(m, a, values, decays, k.early, z);
        else if (k.by_value) tile_by_row(m, a, values, decays, k.early, z);
        else
            tile_product<true, false>(
                m, TOKENS, [&](int i, int t) { return k.turned ? a[t][i] : a[i][t]; },
                [&](int e, int t) { return values(t, e); }, z);
        tile_put(k.s, p, k.out, k.dv, e0, k.beta, z);
    }
}

void nsmi_recurrence_read(nsm_device *d, const reading &k)
{
    int64_t tasks = k.s.batch * k.s.heads * k.s.chunks;
    NSM_LAUNCH(read_kernel, (unsigned)tasks, BLOCK, stream_of(d), k);
    launched(d);
}

/* ---- invert: T = (1 - A)^-1, A the strict scores of a and b; [B, H, chunks, 64, 64] ---- */

/* In fours of 16 rows: first those on the diagonal, a thread a column; then what stands left of
 * them. */
static __device__ void invert_lower(square a, square t)
{
    const int tid = (int)threadIdx.x;
    for (int s = tid; s < TOKENS * TOKENS; s += BLOCK)
        t[s / TOKENS][s % TOKENS] = s / TOKENS == s % TOKENS;
    __syncthreads();
    if (tid < TOKENS)
        for (int i = tid + 1; i < tid / DEPTH * DEPTH + DEPTH; i++) {
            float sum = 0;
            for (int l = tid; l < i; l++) sum += a[i][l] * t[l][tid];
            t[i][tid] = sum;
        }
    __syncthreads();
    for (int i0 = DEPTH; i0 < TOKENS; i0 += DEPTH) {
        const int i = tid / DEPTH;
        for (int j = tid % DEPTH; j < i0; j += DEPTH) { /* kept above the diagonal for a while */
            float sum = 0;
            for (int l = j; l < i0; l++) sum += a[i0 + i][l] * t[l][j];
            a[j][i0 + i] = sum;
        }
        __syncthreads();
        for (int j = tid % DEPTH; j < i0; j += DEPTH) {
            float sum = 0;
            for (int l = 0; l <= i; l++) sum += t[i0 + i][i0 + l] * a[j][i0 + l];
            t[i0 + i][j] = sum;
        }
        __syncthreads();
    }
}

typedef struct {
    sequences s;
    int64_t dk;
    heads_view a, b;
    decay_view w;
    bool early;
    float *t;
} inverting;

static __global__ void invert_kernel(inverting k)
{
    __shared__ tile_room m;
    __shared__ square a;
    __shared__ second_room room;
    chunk_place p = place_of(k.s, blockIdx.x);
    strip x = strip_of(k.s, k.a, p), y = strip_of(k.s, k.b, p);
    fading w = fading_of(k.s, k.w, p);
    tile_scores(
        m, room.scores, (int)k.dk, [&](int t, int d) { return strip_at(x, t, d); },
        [&](int t, int d) { return strip_at(y, t, d); },
        [&](int t, int d) { return decay_at(w, t, d); }, k.early, true, a);
    invert_lower(a, room.other);
    for (int s = (int)threadIdx.x; s < TOKENS * TOKENS; s += BLOCK)
        k.t[(int64_t)blockIdx.x * TOKENS * TOKENS + s] = room.other[s / TOKENS][s % TOKENS];
}

/* out = T x, or T' x; x and out [B, n, H, size] */
static __global__ void solve_kernel(sequences s, const float *t, bool turned, heads_view x,
                                    float *out)
{
    __shared__ tile_room m;
    chunk_place p = place_of(s, blockIdx.x);
    strip from = strip_of(s, x, p);
    t += (int64_t)blockIdx.x * TOKENS * TOKENS;
    for (int c0 = 0; c0 < x.size; c0 += TOKENS) {
        float z[QUAD][QUAD];
        tile_clear(z);
        tile_product<true, false>(
            m, TOKENS, [&](int i, int k) { return turned ? t[k * TOKENS + i] : t[i * TOKENS + k]; },
            [&](int c, int k) { return strip_at(from, k, c0 + c); }, z);
        tile_put(s, p, out, x.size, c0, 0, z);
    }
}

void nsmi_recurrence_solve(nsm_device *d, const sequences &s, const float *t, bool turned,
                           heads_view x, float *out)
{
    int64_t tasks = s.batch * s.heads * s.chunks;
    NSM_LAUNCH(solve_kernel, (unsigned)tasks, BLOCK, stream_of(d), s, t, turned, x, out);
    launched(d);
}

/* The delta rule's a = -beta k and beta v. */
static __global__ void delta_kernel(int64_t items, sequences s, heads_view x, const float *beta,
                                    float sign, float *to)
{
    EACH_ITEM(i, items) {
        int64_t c = i % x.size, h = i / x.size % s.heads, row = i / x.size / s.heads;
        to[i] = sign * beta[row * s.heads + h] *
                x.p[(row * x.heads + h * x.heads / s.heads) * x.size + c];
    }
}

/* ---- a few tokens: the state itself goes along ---- */
typedef struct {
    nsmi_recurrence r;
    nsmi_recurrence_values in;
    sequences s;
    decay_view w;
} stepping;

/* The sum over the block's warps, lane by lane. */
static __device__ float warps_sum(float v)
{
    __shared__ float part[WARPS][LANES];
    __syncthreads();
    part[threadIdx.x / LANES][lane_of()] = v;
    __syncthreads();
    v = 0;
    for (int w = 0; w < WARPS; w++) v += part[w][lane_of()];
    return v;
}

/* A block: 32 columns of a head's state, its warps share the rows. */
static __global__ void step_kernel(stepping k, float *o, float *s1)
{
    const nsmi_recurrence &r = k.r;
    const int64_t wide = ceil_of(r.dv, LANES), head = (int64_t)blockIdx.x / wide,
                  b = head / r.heads, h = head % r.heads, size = r.dk * r.dv;
    const int64_t e = (int64_t)blockIdx.x % wide * LANES + lane_of(),
                  there = nsmi_length(r.length, b, r.n), first = threadIdx.x / LANES;
    const bool mine = e < r.dv, pairs = k.in.a != NULL, column = r.fade == NSMI_FADE_VALUES;
    const float *from = k.in.s0 ? k.in.s0 + head * size : NULL;
    float *to = s1 + head * size;
    for (int64_t d = first; there == 0 && mine && d < r.dk; d += WARPS)
        to[d * r.dv + e] = from ? from[d * r.dv + e] : 0;
    for (int64_t t = 0; t < r.n; t++) {
        const int64_t row = b * r.n + t;
        const float *q = step_row(k.s, k.in.q, row, h, r.q_heads, r.dk),
                    *key = step_row(k.s, k.in.k, row, h, r.k_heads, r.dk);
        const float *a = pairs ? step_row(k.s, k.in.a, row, h, r.heads, r.dk) : key,
                    *w2 = pairs ? step_row(k.s, k.in.b, row, h, r.heads, r.dk) : NULL;
        chunk_place p = { b, h, head, 0, t, 1 };
        fading w = fading_of(k.s, k.w, p);
        float v = mine && t < there ? step_row(k.s, k.in.v, row, h, r.v_heads, r.dv)[e] : 0,
              found = 0, sum = 0, own = 0;
        if (t >= there) {
            if (mine && first == 0) o[(row * r.heads + h) * r.dv + e] = 0;
            continue;
        }
        if (pairs || k.in.beta) {
            for (int64_t d = first; mine && d < r.dk; d += WARPS)
                if (from) found += a[d] * from[d * r.dv + e] * (pairs ? 1 : decay_at(w, 0, (int)d));
            found = warps_sum(found);
            if (k.in.beta) v = k.in.beta[row * r.heads + h] * (v - found);
        }
        for (int64_t d = first; mine && d < r.dk; d += WARPS) {
            float was = from ? from[d * r.dv + e] : 0,
                  now = was * decay_at(w, 0, (int)(column ? e : d)) + key[d] * v;
            if (pairs) now += w2[d] * found;
            if (k.in.bonus) own += q[d] * k.in.bonus[h * r.dk + d] * key[d];
            sum += q[d] * (r.before ? was : now);
            to[d * r.dv + e] = now;
        }
        sum = warps_sum(sum + own * v);
        if (mine && first == 0) o[(row * r.heads + h) * r.dv + e] = r.scale * sum;
        from = to;
    }
}

/* ---- forward ---- */

static decay_view decays_of(const nsmi_recurrence *r, const nsmi_recurrence_values *in)
{
    decay_view w = { r->fade ? in->g : NULL, r->g_heads,
                     r->fade == NSMI_FADE_KEYS     ? r->dk
                     : r->fade == NSMI_FADE_VALUES ? r->dv
                                                   : 1,
                     r->g_constant };
    return w;
}

void nsmi_recurrence_rooms(recurrence_work *w, const nsmi_recurrence *r,
                           const nsmi_recurrence_values *in, float *base)
{
    const int64_t keys = r->batch * r->n * r->heads * r->dk,
                  values = r->batch * r->n * r->heads * r->dv, chunks = ceil_of(r->n, TOKENS);
    w->base = base;
    w->used = 0;
    w->s = sequences{ r->batch, r->n, r->heads, chunks, r->length };
    w->w = decays_of(r, in);
    w->r = *r;
    w->in = *in;
    w->pairs = in->b != NULL;
    w->solves = solves(in);
    w->by_value = by_value(r);
    w->q = view_of(in->q, r->q_heads, r->dk, r->scale);
    w->k = view_of(in->k, r->k_heads, r->dk, 1);
    w->v = view_of(in->v, r->v_heads, r->dv, 1);
    w->all = take_floats(w, r->batch * r->heads * chunks * (w->by_value ? r->dv : r->dk));
    if (w->by_value) w->v_out = take_floats(w, values);
    if (w->by_value) return;
    w->q_in = take_floats(w, keys);
    w->k_out = take_floats(w, keys);
    if (!w->solves) return;
    w->a = w->pairs ? view_of(in->a, r->heads, r->dk, 1)
                    : view_of(take_floats(w, keys), r->heads, r->dk, 1);
    w->b = w->pairs ? view_of(in->b, r->heads, r->dk, 1) : w->k;
    if (!w->pairs) w->v = view_of(take_floats(w, values), r->heads, r->dv, 1);
    w->a_in = take_floats(w, keys);
    if (w->pairs) w->b_out = take_floats(w, keys);
    w->t = take_floats(w, r->batch * r->heads * chunks * TOKENS * TOKENS);
    w->x = take_floats(w, keys);
    w->y = take_floats(w, values);
}

static void fade(nsm_device *d, const recurrence_work *w, const float *dout, float *dout_in)
{
    const nsmi_recurrence *r = &w->r;
    fader f = { w->s, w->w, w->by_value ? r->dv : r->dk, {}, {}, w->all };
    if (w->by_value) {
        f.in[0] = faded{ own_view(w, dout, r->dv), dout_in, false };
        f.out[0] = faded{ w->v, w->v_out, false };
    } else {
        f.in[0] = faded{ w->q, w->q_in, r->before };
        f.in[1] = faded{ w->a, w->a_in, w->pairs };
        f.out[0] = faded{ w->k, w->k_out, false };
        f.out[1] = faded{ w->b, w->b_out, false };
    }
    FOR_ITEMS(d, fade_kernel, r->batch * r->heads * w->s.chunks * f.size, f);
}

/* T, X^ and Y^ of every chunk. */
static void prepare_solving(nsm_device *d, const recurrence_work *w)
{
    const nsmi_recurrence *r = &w->r;
    const int64_t tasks = r->batch * r->heads * w->s.chunks;
    inverting k = { w->s, r->dk, w->a, w->b, w->w, w->pairs, w->t };
    NSM_LAUNCH(invert_kernel, (unsigned)tasks, BLOCK, stream_of(d), k);
    nsmi_recurrence_solve(d, w->s, w->t, false, own_view(w, w->a_in, r->dk), w->x);
    if (!w->pairs) {
        nsmi_recurrence_solve(d, w->s, w->t, false, w->v, w->y);
        return;
    }
    nsmi_recurrence_read(d, read_of_scores(w, w->a, w->k, true, false, w->v, 0, w->y));
    nsmi_recurrence_solve(d, w->s, w->t, false, own_view(w, w->y, r->dv), w->y);
}

/* What stands before the chunks: everything in scratch memory but what backward adds. */
void nsmi_recurrence_prepare(nsm_device *d, const recurrence_work *w, const float *dout,
                             float *dout_in)
{
    const nsmi_recurrence *r = &w->r;
    const int64_t rows = r->batch * r->n * r->heads;
    if (w->solves && !w->pairs) {
        FOR_ITEMS(d, delta_kernel, rows * r->dk, w->s, w->k, w->in.beta, -1.0f, (float *)w->a.p);
        FOR_ITEMS(d, delta_kernel, rows * r->dv, w->s, view_of(w->in.v, r->v_heads, r->dv, 1),
                  w->in.beta, 1.0f, (float *)w->v.p);
    }
    fade(d, w, dout, dout_in);
    if (w->solves) prepare_solving(d, w);
}

void nsmi_recurrence_read_out(nsm_device *d, const recurrence_work *w, const float *states,
                              float *o)
{
    const nsmi_recurrence *r = &w->r;
    heads_view base = w->by_value ? w->q : own_view(w, w->q_in, r->dk);
    nsmi_recurrence_read(d, reading{ w->s, r->dk, r->dv, w->q, w->k, w->w, w->by_value, r->before,
                                     r->before, false, w->in.bonus, base, states, 0,
                                     written_by_keys(w), 0, o });
    if (w->pairs)
        nsmi_recurrence_read(d, read_of_scores(w, w->q, w->b, false, false,
                                               own_view(w, w->y, r->dv), 1, o));
}

static void carry_forward(nsm_device *d, const recurrence_work *w, float *states, float *s1)
{
    const nsmi_recurrence *r = &w->r;
    carrying k = { w->s, false, w->by_value, r->dk,    r->dv, 0,      {}, {},
                   {},   {},    w->all,      w->in.s0, w->y,  states, s1, false };
    k.l[0] = w->by_value ? w->k : own_view(w, w->k_out, r->dk);
    k.r[0] = w->by_value ? own_view(w, w->v_out, r->dv) : w->v;
    if (w->solves) {
        k.l[1] = own_view(w, w->pairs ? w->b_out : w->k_out, r->dk);
        k.x = own_view(w, w->x, r->dk);
        k.y = own_view(w, w->y, r->dv);
    }
    if (w->solves && !w->pairs) k.l[0] = k.r[0] = heads_view{};
    nsmi_recurrence_carry(d, k);
}

static void recurrence(nsm_device *d, const nsmi_recurrence *r, const nsmi_recurrence_values *in,
                       float *o, float *s1, float *states)
{
    recurrence_work w = {};
    const int64_t heads = r->batch * r->heads;
    if (heads == 0) return;
    nsmi_recurrence_rooms(&w, r, in, NULL);
    if (!states && r->n <= FEW_TOKENS) {
        int64_t tasks = heads * ceil_of(r->dv, LANES);
        NSM_LAUNCH(step_kernel, (unsigned)tasks, BLOCK, stream_of(d), stepping{ *r, *in, w.s, w.w },
                   o, s1);
        launched(d);
        return;
    }
    int64_t own_states = states ? 0 : heads * (w.s.chunks + 1) * r->dk * r->dv;
    float *base = scratch_floats(d, w.used + own_states);
    if (!base) return;
    nsmi_recurrence_rooms(&w, r, in, base);
    if (!states) states = take_floats(&w, own_states);
    nsmi_recurrence_prepare(d, &w, NULL, NULL);
    carry_forward(d, &w, states, s1);
    nsmi_recurrence_read_out(d, &w, states, o);
}

void nsmi_cuda_recurrence(nsm_backend *be)
{
    be->recurrence = recurrence;
    nsmi_cuda_recurrence_back(be);
}
