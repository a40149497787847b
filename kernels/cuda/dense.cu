/* kernels/cuda/dense.cu - Copies of blocks, permutations, sums, and the largest of rows.
 *
 * A sum over some dims is cut into parts by the shape alone; a thread or a warp adds a part, and
 * where there is more than one, a warp adds the parts of each result. */
#include "kernels/cuda/cuda.h"

enum { TILE = 32, TILE_ROWS = BLOCK / TILE };

static __global__ void copy_block_kernel(int64_t n, int64_t cols, const float *x, int64_t ldx,
                                         float beta, float *y, int64_t ldy)
{
    EACH_ITEM(i, n) {
        int64_t r = i / cols, c = i - r * cols;
        put(&y[r * ldy + c], beta, x[r * ldx + c]);
    }
}

static void copy_block(nsm_device *d, int64_t rows, int64_t cols, const float *x, int64_t ldx,
                       float beta, float *y, int64_t ldy)
{
    FOR_ITEMS(d, copy_block_kernel, rows * cols, cols, x, ldx, beta, y, ldy);
}

/* ---- permutations ---- */

/* In y's order, the last dim first; dims of 1 left out and dims that stay neighbours joined. */
typedef struct { int rank; int64_t n, dim[DIMS], xs[DIMS], ys[DIMS]; } turning;

static turning turning_of(const int64_t dim[DIMS], const int perm[DIMS])
{
    int64_t stride[DIMS], n = 1;
    turning t;
    t.rank = 0;
    for (int k = DIMS - 1; k >= 0; n *= dim[k], k--) stride[k] = n;
    t.n = n;
    for (int k = DIMS - 1; k >= 0; k--) {
        int64_t size = dim[perm[k]], s = stride[perm[k]];
        int p = t.rank - 1;
        if (size == 1) continue;
        if (t.rank && s == t.xs[p] * t.dim[p]) {
            t.dim[p] *= size;
            continue;
        }
        t.dim[t.rank] = size;
        t.xs[t.rank++] = s;
    }
    n = 1;
    for (int k = 0; k < t.rank; n *= t.dim[k], k++) t.ys[k] = n;
    return t;
}

static __global__ void permute_kernel(int64_t n, turning t, const float *x, float beta, float *y)
{
    EACH_ITEM(i, n) {
        int64_t from = 0, rest = i;
        for (int k = 0; k < t.rank; k++) {
            int64_t next = rest / t.dim[k];
            from += (rest - next * t.dim[k]) * t.xs[k];
            rest = next;
        }
        put(&y[i], beta, x[from]);
    }
}

/* Tiles of the plane of y's inner dim and the dim `row` that is x's inner one, through shared
 * memory: both sides are read and written along their own lines. */
static __global__ void transpose_kernel(int64_t tiles, turning t, int row, int64_t down,
                                        int64_t across, const float *x, float beta, float *y)
{
    __shared__ float tile[TILE][TILE + 1];
    int column = (int)threadIdx.x % TILE, line = (int)threadIdx.x / TILE;
    for (int64_t at = blockIdx.x; at < tiles; at += gridDim.x) {
        int64_t j0 = at % across * TILE, i0 = at / across % down * TILE, rest = at / across / down,
                from = 0, to = 0;
        for (int k = 1; k < t.rank; k++) {
            if (k == row) continue;
            int64_t next = rest / t.dim[k], here = rest - next * t.dim[k];
            from += here * t.xs[k];
            to += here * t.ys[k];
            rest = next;
        }
        for (int r = line; r < TILE; r += TILE_ROWS)
            if (j0 + r < t.dim[0] && i0 + column < t.dim[row])
                tile[r][column] = x[from + (j0 + r) * t.xs[0] + i0 + column];
        __syncthreads();
        for (int r = line; r < TILE; r += TILE_ROWS)
            if (i0 + r < t.dim[row] && j0 + column < t.dim[0])
                put(&y[to + (i0 + r) * t.ys[row] + j0 + column], beta, tile[column][r]);
        __syncthreads();
    }
}

static void permute(nsm_device *d, const int64_t dim[DIMS], const int perm[DIMS], const float *x,
                    float beta, float *y)
{
    turning t = turning_of(dim, perm);
    int row = 0;
    for (int k = 1; k < t.rank; k++)
        if (t.xs[k] == 1) row = k;
    if (t.n == 0) return;
    if (row == 0) {
        FOR_ITEMS(d, permute_kernel, t.n, t, x, beta, y);
        return;
    }
    int64_t down = ceil_of(t.dim[row], TILE), across = ceil_of(t.dim[0], TILE);
    int64_t tiles = down * across * (t.n / (t.dim[row] * t.dim[0]));
    unsigned blocks = (unsigned)least(tiles, (int64_t)state_of(d)->multiprocessors * 32);
    NSM_LAUNCH(transpose_kernel, blocks, BLOCK, stream_of(d), tiles, t, row, down, across, x, beta,
               y);
    launched(d);
}

/* ---- sums ---- */

/* x's dims, the last first, of one kind each: kept in y, or summed over. */
typedef struct { int rank; int64_t n, dim[DIMS], xs[DIMS], ys[DIMS]; } dims;
typedef struct { dims kept, summed; int64_t part, parts; } folding;

static void add_dim(dims *d, int64_t dim, int64_t xs, int64_t ys)
{
    int p = d->rank - 1;
    d->n *= dim;
    if (dim == 1) return;
    if (d->rank && xs == d->xs[p] * d->dim[p] && ys == d->ys[p] * d->dim[p]) {
        d->dim[p] *= dim;
        return;
    }
    d->dim[d->rank] = dim;
    d->xs[d->rank] = xs;
    d->ys[d->rank++] = ys;
}

static __device__ __forceinline__ void dims_at(const dims &d, int64_t i, int64_t *x, int64_t *y)
{
    *x = *y = 0;
    for (int k = 0; k < d.rank; k++) {
        int64_t next = k + 1 < d.rank ? i / d.dim[k] : 0, at = i - next * d.dim[k];
        *x += at * d.xs[k];
        *y += at * d.ys[k];
        i = next;
    }
}

/* Part `t / kept` of result `t % kept`: into partial [kept, parts], or with one part into y. */
template <int G>
static __global__ void fold_kernel(int64_t tasks, folding f, const float *x, float beta, float *y,
                                   float *partial)
{
    int64_t t = group_number<G>(), xs = f.summed.rank == 1 ? f.summed.xs[0] : 0;
    if (t >= tasks) return;
    int64_t result = t % f.kept.n, part = t / f.kept.n, from, to, skip, none;
    dims_at(f.kept, result, &from, &to);
    int64_t lo = part * f.part, hi = lo + f.part < f.summed.n ? lo + f.part : f.summed.n;
    float sum[4] = { 0, 0, 0, 0 };
    int64_t i = lo + group_place<G>();
    if (f.summed.rank <= 1)
        for (; i + 3 * G < hi; i += 4 * G)
            for (int j = 0; j < 4; j++) sum[j] += x[from + (i + j * G) * xs];
    for (; i < hi; i += G) {
        dims_at(f.summed, i, &skip, &none);
        sum[0] += x[from + skip];
    }
    float all = group_sum<G>((sum[0] + sum[1]) + (sum[2] + sum[3]));
    if (group_place<G>() != 0) return;
    if (partial) partial[result * f.parts + part] = all;
    else put(&y[to], beta, all);
}

/* y = the sums of the parts. */
static __global__ void fold_finish_kernel(int64_t tasks, folding f, const float *partial,
                                          float beta, float *y)
{
    int64_t t = group_number<LANES>(), from, to;
    if (t >= tasks) return;
    float sum = 0;
    for (int64_t i = group_place<LANES>(); i < f.parts; i += LANES) sum += partial[t * f.parts + i];
    sum = warp_sum(sum);
    dims_at(f.kept, t, &from, &to);
    if (group_place<LANES>() == 0) put(&y[to], beta, sum);
}

static void sum_to(nsm_device *d, const int64_t dim[DIMS], const float *x, nsmi_strides s,
                   float beta, float *y)
{
    folding f;
    int64_t xs = 1;
    bool warp = true, first = true; /* a warp a part: where the sum runs along lines of x */
    f.kept.rank = f.summed.rank = 0;
    f.kept.n = f.summed.n = 1;
    for (int k = DIMS - 1; k >= 0; xs *= dim[k], k--) {
        add_dim(s.stride[k] ? &f.kept : &f.summed, dim[k], xs, s.stride[k]);
        if (dim[k] != 1 && first) warp = s.stride[k] == 0, first = false;
    }
    if (f.kept.n == 0) return;
    warp = warp && f.summed.n > 16;
    cut_sum(f.summed.n, f.kept.n, warp, &f.part, &f.parts);
    int64_t tasks = f.kept.n * f.parts;
    float *partial = f.parts > 1 ? scratch_floats(d, tasks) : NULL;
    if (f.parts > 1 && !partial) return;
    if (warp)
        NSM_LAUNCH(fold_kernel<LANES>, groups_of(tasks, LANES), BLOCK, stream_of(d), tasks, f, x,
                   beta, y, partial);
    else
        NSM_LAUNCH(fold_kernel<1>, groups_of(tasks, 1), BLOCK, stream_of(d), tasks, f, x, beta, y,
                   partial);
    if (partial)
        NSM_LAUNCH(fold_finish_kernel, groups_of(f.kept.n, LANES), BLOCK, stream_of(d), f.kept.n, f,
                   partial, beta, y);
    launched(d);
}

static void column_sum(nsm_device *d, int64_t rows, int64_t cols, const float *x, float beta,
                       float *y)
{
    int64_t dim[DIMS] = { 1, 1, 1, rows, cols };
    nsmi_strides s = { { 0, 0, 0, 0, 1 } };
    sum_to(d, dim, x, s, beta, y);
}

/* A block adds squares in double; then one block adds the blocks' sums, in order. */
static __global__ void squares_kernel(int64_t n, int64_t part, const float *x, double *partial)
{
    int64_t lo = blockIdx.x * part, hi = lo + part < n ? lo + part : n;
    double sum = 0;
    for (int64_t i = lo + threadIdx.x; i < hi; i += BLOCK) sum += (double)x[i] * (double)x[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[1 + blockIdx.x] = sum;
}

static __global__ void squares_finish_kernel(int64_t parts, double *partial)
{
    double sum = 0;
    for (int64_t i = threadIdx.x; i < parts; i += BLOCK) sum += partial[1 + i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[0] = sum;
}

static double sum_squares(nsm_device *d, int64_t n, const float *x)
{
    int64_t part = most(ceil_of(n, 1024), 4096), parts = ceil_of(n, part);
    double sum = 0,
           *partial = (double *)nsmi_cuda_scratch(d, (size_t)(1 + parts) * sizeof *partial);
    if (n == 0 || !partial) return 0;
    NSM_LAUNCH(squares_kernel, (unsigned)parts, BLOCK, stream_of(d), n, part, x, partial);
    NSM_LAUNCH(squares_finish_kernel, 1, BLOCK, stream_of(d), parts, partial);
    launched(d);
    d->be->to_host(d, sizeof sum, partial, &sum);
    return sum;
}

static __global__ void finite_kernel(int64_t n, const float *x, int *bad)
{
    EACH_ITEM(i, n)
        if (!(fabsf(x[i]) <= 3.402823466e38f)) *bad = 1; /* whoever finds one writes the same */
}

static bool all_finite(nsm_device *d, int64_t n, const float *x)
{
    int found = 0, *bad = (int *)nsmi_cuda_scratch(d, sizeof *bad);
    if (n == 0 || !bad) return true;
    d->be->zero(d, sizeof *bad, bad);
    FOR_ITEMS(d, finite_kernel, n, x, bad);
    d->be->to_host(d, sizeof found, bad, &found);
    return !found;
}

/* ---- the largest ---- */

typedef struct { float value; int32_t place; } winner;

/* Does x take best's place?  With nan, a NaN does, so that it shows; of equals the lower place. */
static __device__ __forceinline__ bool wins(winner x, winner best, bool nan)
{
    if (x.value > best.value) return true;
    bool x_nan = nan && x.value != x.value, best_nan = nan && best.value != best.value;
    if (x_nan != best_nan) return x_nan;
    return (x.value == best.value || (x_nan && best_nan)) && x.place < best.place;
}

template <int G> static __device__ __forceinline__ winner group_winner(winner w, bool nan)
{
    if constexpr (G > 1) {
        for (int o = LANES / 2; o; o /= 2) {
            winner other;
            other.value = __shfl_xor_sync(0xffffffffu, w.value, o);
            other.place = __shfl_xor_sync(0xffffffffu, w.place, o);
            if (wins(other, w, nan)) w = other;
        }
    }
    if constexpr (G > LANES) {
        __shared__ winner part[WARPS];
        __syncthreads();
        if (lane_of() == 0) part[threadIdx.x / LANES] = w;
        __syncthreads();
        w = part[0];
        for (int i = 1; i < WARPS; i++)
            if (wins(part[i], w, nan)) w = part[i];
    }
    return w;
}

/* Of sign * x [outer, n, inner] over n. */
template <int G>
static __global__ void best_kernel(int64_t rows, int64_t n, int64_t inner, float sign, bool nan,
                                   const float *x, float *y, int32_t *arg)
{
    int64_t r = group_number<G>();
    if (r >= rows) return;
    const float *from = x + r / inner * n * inner + r % inner;
    winner best = { minus_infinity(), 0 };
    for (int64_t j = group_place<G>(); j < n; j += G) {
        winner here = { sign * from[j * inner], (int32_t)j };
        if (here.value > best.value ||
            (nan && here.value != here.value && best.value == best.value))
            best = here;
    }
    best = group_winner<G>(best, nan);
    if (group_place<G>() != 0) return;
    if (y) y[r] = sign * best.value;
    if (arg) arg[r] = best.place;
}

static void best_of(nsm_device *d, int64_t rows, int64_t n, int64_t inner, float sign, bool nan,
                    const float *x, float *y, int32_t *arg)
{
    if (rows == 0) return;
    WITH_GROUP(inner > 1, n,
               NSM_LAUNCH(best_kernel<G>, groups_of(rows, G), BLOCK, stream_of(d), rows, n, inner,
                          sign, nan, x, y, arg));
    launched(d);
}

static void reduce(nsm_device *d, nsmi_reduce f, int64_t outer, int64_t n, int64_t inner,
                   const float *x, float *y, int32_t *arg)
{
    int64_t dim[DIMS] = { 1, 1, outer, n, inner };
    nsmi_strides s = { { 0, 0, inner, 0, 1 } };
    if (f == NSMI_MAX_OF || f == NSMI_MIN_OF) {
        best_of(d, outer * inner, n, inner, f == NSMI_MIN_OF ? -1.0f : 1.0f, true, x, y, arg);
        return;
    }
    sum_to(d, dim, x, s, 0, y);
    if (f == NSMI_MEAN) d->be->axpby(d, outer * inner, 1.0f / (float)n, y, 0, y);
}

static void argmax(nsm_device *d, int64_t rows, int64_t cols, const float *x, int32_t *y)
{
    best_of(d, rows, cols, 1, 1, false, x, NULL, y);
}

static __global__ void reduce_back_kernel(int64_t items, int64_t n, int64_t inner,
                                          const int32_t *arg, const float *dy, float *dx)
{
    EACH_ITEM(i, items) dx[(i / inner * n + arg[i]) * inner + i % inner] += dy[i];
}

static void reduce_back(nsm_device *d, int64_t outer, int64_t n, int64_t inner, const int32_t *arg,
                        const float *dy, float *dx)
{
    FOR_ITEMS(d, reduce_back_kernel, outer * inner, n, inner, arg, dy, dx);
}

void nsmi_cuda_dense(nsm_backend *be)
{
    be->copy_block = copy_block;
    be->permute = permute;
    be->sum_to = sum_to;
    be->column_sum = column_sum;
    be->sum_squares = sum_squares;
    be->all_finite = all_finite;
    be->reduce = reduce;
    be->reduce_back = reduce_back;
    be->argmax = argmax;
}
