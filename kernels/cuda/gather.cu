/* kernels/cuda/gather.cu - A gather's backward: rows of dy added up by index, in the order of k.
 *
 * The host never sees the indices.  They are sorted on the device, stably: by digits of 4 bits, the
 * lowest first; a block counts the digits of its tile, one block makes starts of all blocks'
 * counts, and every place goes to where its digit's next one belongs.  Then the rows of one index
 * stand together, a run, in their old order.  A thread adds up a run's rows in a few columns as far
 * as the next multiple of RUN_PIECE places; the parts of runs that go on are joined in order.
 * Letters: n indices, R rows, F columns. */
#include "kernels/cuda/rows.h"

enum { DIGIT_BITS = 4, DIGITS = 1 << DIGIT_BITS, SORT_TILE = 4 * BLOCK, RUN_PIECE = 256 };
static_assert(WARPS * DIGITS <= BLOCK, "a thread clears a count");

typedef struct {
    int32_t key, at;
} placed; /* row `at` of dy belongs to row `key` of dx */

/* What belongs to no row gets the key R, behind all others. */
static __global__ void place_index_kernel(int64_t n, const int32_t *index, int64_t rows,
                                          int64_t skip, placed *x)
{
    EACH_ITEM(i, n)
    {
        int64_t r = index[i];
        x[i].key = (int32_t)(r < 0 || r >= rows || r == skip ? rows : r);
        x[i].at = (int32_t)i;
    }
}

static __device__ __forceinline__ int digit_of(placed p, int shift)
{
    return p.key >> shift & (DIGITS - 1);
}

/* count [DIGITS, blocks] */
static __global__ void count_digits_kernel(int64_t n, const placed *x, int shift, int32_t *count)
{
    __shared__ int own[DIGITS];
    int64_t first = (int64_t)blockIdx.x * SORT_TILE;
    if (threadIdx.x < DIGITS) own[threadIdx.x] = 0;
    __syncthreads();
    for (int64_t i = first + threadIdx.x; i < n && i < first + SORT_TILE; i += BLOCK)
        atomicAdd(&own[digit_of(x[i], shift)], 1);
    __syncthreads();
    if (threadIdx.x < DIGITS) count[threadIdx.x * gridDim.x + blockIdx.x] = own[threadIdx.x];
}

/* One block: counts become the sums of those before them. */
static __global__ void counts_to_starts_kernel(int64_t counts, int32_t *count)
{
    __shared__ int32_t part[BLOCK];
    int64_t each = ceil_of(counts, BLOCK), lo = each * threadIdx.x, hi = least(lo + each, counts);
    int32_t sum = 0, before = 0;
    for (int64_t i = lo; i < hi; i++) sum += count[i];
    part[threadIdx.x] = sum;
    __syncthreads();
    for (unsigned t = 0; t < threadIdx.x; t++) before += part[t];
    for (int64_t i = lo; i < hi; i++) {
        int32_t own = count[i];
        count[i] = before;
        before += own;
    }
}

/* The lanes of this warp with the same digit; DIGITS: a lane that has none. */
static __device__ __forceinline__ unsigned same_digit(int digit)
{
    unsigned same = 0xffffffffu;
    for (int bit = 0; bit <= DIGIT_BITS; bit++) {
        unsigned votes = __ballot_sync(0xffffffffu, digit >> bit & 1);
        same &= digit >> bit & 1 ? votes : ~votes;
    }
    return same;
}

static __global__ void by_digit_kernel(int64_t n, const placed *x, int shift, const int32_t *start,
                                       placed *to)
{
    __shared__ int32_t next[DIGITS], count[WARPS][DIGITS];
    const unsigned warp = threadIdx.x / LANES, mine = threadIdx.x;
    if (mine < DIGITS) next[mine] = start[mine * gridDim.x + blockIdx.x];
    for (int round = 0; round < SORT_TILE / BLOCK; round++) {
        int64_t i = (int64_t)blockIdx.x * SORT_TILE + round * BLOCK + mine;
        placed p = { 0, 0 };
        if (i < n) p = x[i];
        int digit = i < n ? digit_of(p, shift) : DIGITS;
        if (mine < WARPS * DIGITS) count[mine / DIGITS][mine % DIGITS] = 0;
        __syncthreads();
        unsigned same = same_digit(digit), before = same & ((1u << lane_of()) - 1);
        if (i < n && !before) count[warp][digit] = __popc(same);
        __syncthreads();
        if (i < n) {
            int32_t at = next[digit] + __popc(before);
            for (unsigned w = 0; w < warp; w++) at += count[w][digit];
            to[at] = p;
        }
        __syncthreads();
        if (mine < DIGITS)
            for (int w = 0; w < WARPS; w++) next[mine] += count[w][mine];
        __syncthreads();
    }
}

/* ---- sums over runs ---- */

/* opening, within [pieces, F]: the part of the run that goes on behind a piece, where it begins
 * there and where it began before. */
typedef struct {
    int64_t n, rows, f, pieces;
    const placed *x;
    const float *dy;
    float *dx, *opening, *within;
} runs;

/* Does the place in front of this one belong to the same run? */
static __device__ __forceinline__ bool goes_on(const runs &j, int64_t at)
{
    return at > 0 && at < j.n && j.x[at - 1].key == j.x[at].key;
}

template <int V> static __global__ void runs_kernel(int64_t items, runs j)
{
    EACH_ITEM(i, items)
    {
        int64_t vecs = j.f / V, at = i / vecs, vec = i % vecs * V, piece = at / RUN_PIECE;
        int32_t key = j.x[at].key;
        bool first = !goes_on(j, at);
        if (key >= j.rows || (!first && at % RUN_PIECE)) continue;
        int64_t end = least(j.n, (piece + 1) * RUN_PIECE), e = at;
        float sum[V] = { 0 }, v[V];
        for (; e < end && j.x[e].key == key; e++) {
            get<V>(j.dy + j.x[e].at * j.f + vec, v);
            for (int k = 0; k < V; k++) sum[k] += v[k];
        }
        if (!first) set<V>(j.within + piece * j.f + vec, 0, sum);
        else if (e == end && goes_on(j, e)) set<V>(j.opening + piece * j.f + vec, 0, sum);
        else set<V>(j.dx + key * j.f + vec, 1, sum);
    }
}

/* A run that begins in a piece and goes on behind it. */
static __global__ void join_runs_kernel(int64_t items, runs j)
{
    EACH_ITEM(i, items)
    {
        int64_t piece = i / j.f, col = i % j.f, first = piece * RUN_PIECE, next = first + RUN_PIECE;
        if (!goes_on(j, next)) continue;
        int32_t key = j.x[next].key;
        if (key >= j.rows || (j.x[first].key == key && goes_on(j, first))) continue;
        float sum = j.opening[i];
        for (int64_t p = piece + 1; p < j.pieces && j.x[p * RUN_PIECE].key == key; p++)
            sum += j.within[p * j.f + col];
        j.dx[key * j.f + col] += sum;
    }
}

static void gather_add(nsm_device *d, int64_t n, int64_t cols, int64_t rows, int64_t skip,
                       const int32_t *index, const float *dy, float *dx)
{
    int64_t tiles = ceil_of(n, SORT_TILE), pieces = ceil_of(n, RUN_PIECE);
    size_t part_bytes = ((size_t)(pieces * cols) * sizeof(float) + 15) & ~(size_t)15,
           list_bytes = ((size_t)n * sizeof(placed) + 15) & ~(size_t)15;
    if (n == 0 || cols == 0) return;
    char *room = (char *)nsmi_cuda_scratch(d, 2 * (part_bytes + list_bytes) +
                                                  (size_t)(DIGITS * tiles) * sizeof(int32_t));
    if (!room) return;
    placed *x = (placed *)(room + 2 * part_bytes), *to = (placed *)((char *)x + list_bytes);
    int32_t *count = (int32_t *)((char *)to + list_bytes);
    FOR_ITEMS(d, place_index_kernel, n, index, rows, skip, x);
    for (int shift = 0; shift < 32 && rows >> shift; shift += DIGIT_BITS) {
        NSM_LAUNCH(count_digits_kernel, (unsigned)tiles, BLOCK, stream_of(d), n, x, shift, count);
        NSM_LAUNCH(counts_to_starts_kernel, 1, BLOCK, stream_of(d), DIGITS * tiles, count);
        NSM_LAUNCH(by_digit_kernel, (unsigned)tiles, BLOCK, stream_of(d), n, x, shift, count, to);
        placed *other = x;
        x = to;
        to = other;
    }
    runs j = { n, rows, cols, pieces, x, dy, dx, (float *)room, (float *)(room + part_bytes) };
    if (cols % 4 == 0 && aligned(dy) && aligned(dx)) FOR_ITEMS(d, runs_kernel<4>, n * cols / 4, j);
    else FOR_ITEMS(d, runs_kernel<1>, n * cols, j);
    FOR_ITEMS(d, join_runs_kernel, pieces * cols, j);
}

void nsmi_cuda_gather(nsm_backend *be) { be->gather_add = gather_add; }
