/* kernels/cuda/slots.cu - The slots of the state memory: open, route, write, read, and back.
 *
 * Which slots a token opens and is routed to follows from keys and usage alone, never from values.
 * So a pool (a row's head) goes over its tokens three times, each time with as many threads as
 * there is work:
 *   decide   a block a pool.  A slot's key is that of the token that opened it, so the cosines of a
 *            chunk of tokens with the slots as the chunk finds them, and with each other, are
 *            products made by all threads; then one warp takes the tokens in order, its lanes the
 *            slots, and only looks cosines up
 *   mix      with communication: the softmax over slots of every chunk's end, a block each
 *   values   a warp takes 32 columns of a pool's values, which go their way alone: writing and
 *            reading, no waiting
 * Backward: values again, from those stored where chunks start, and from the end back, each warp
 * leaving the dot products of its columns; routes, a warp a token, from these to the gradients of
 * cosines; keys, a warp 32 columns: what slots' keys give a token's vectors, forward, and what
 * tokens give the slots' keys, backward, summed by slot until the token that opened it is reached.
 *
 * Letters: B batch, n tokens, H heads, s slots, k kept by a routing, dk, dv sizes of a key and a
 * value, C chunk. */
#include "kernels/cuda/chunk.h"
#include "kernels/cuda/functions.h"

/* owner of a slot: its key was there; dead; dead from the start */
enum { NO_TOKEN = -1, DIED = -2, NEVER = -3 };

/* ---- where things stand ---- */
typedef struct {
    nsmi_slots c;
    nsmi_slots_in in;
    nsmi_slots_saved saved;      /* start may be NULL */
    /* [pools, chunks + 1]: the first token of each chunk; the tokens; [chunks + 1]: how many
     * chunks */
    int32_t *first;
    float *mix, *cosine;         /* [pools, chunks, s, s] with communication */
} pools_of;

static __device__ __forceinline__ int64_t tokens_of(const pools_of &k, int64_t pool)
{
    return nsmi_length(k.c.length, pool / k.c.heads, k.c.tokens);
}
static __device__ __forceinline__ int64_t seen_of(const pools_of &k, int64_t pool)
{
    return k.c.seen ? k.c.seen[pool / k.c.heads] : 0;
}

/* Token t of a pool in an array [B, n, H, size]. */
static __device__ __forceinline__ int64_t token_at(const pools_of &k, int64_t pool, int64_t t,
                                                   int64_t size)
{
    return ((pool / k.c.heads * k.c.tokens + t) * k.c.heads + pool % k.c.heads) * size;
}

/* Where the chunk that starts with token a ends: at most `chunk` tokens, and where states
 * communicate. */
static __device__ __forceinline__ int64_t chunk_end(const pools_of &k, int64_t pool, int64_t a)
{
    int64_t end = a + k.c.chunk, every = k.c.comm_every;
    if (every) end = least(end, a + every - (seen_of(k, pool) + a) % every);
    return least(end, tokens_of(k, pool));
}

static __device__ __forceinline__ bool communicates(const pools_of &k, int64_t pool, int64_t end)
{
    return k.c.comm_every && end > 0 && (seen_of(k, pool) + end) % k.c.comm_every == 0;
}

static __device__ __forceinline__ const float *key_of(const pools_of &k, int64_t pool,
                                                      int32_t owner, int64_t slot)
{
    if (owner >= 0) return k.in.k + token_at(k, pool, owner, k.c.keys);
    return k.in.key + (pool * k.c.slots + slot) * k.c.keys;
}

static __device__ __forceinline__ int32_t *owners_at(const pools_of &k, int64_t pool, int64_t chunk)
{
    return k.saved.owner + (pool * (k.c.chunks + 1) + chunk) * k.c.slots;
}

static __device__ __forceinline__ int32_t *kept_of(const pools_of &k, int64_t pool, int64_t t)
{
    return k.saved.kept + (pool * k.c.tokens + t) * (2 * k.c.top + 1);
}
static __device__ __forceinline__ float *prob_of(const pools_of &k, int64_t pool, int64_t t)
{
    return k.saved.prob + (pool * k.c.tokens + t) * 2 * k.c.top;
}
static __device__ __forceinline__ int32_t opened_at(const pools_of &k, int64_t pool, int64_t t)
{
    return kept_of(k, pool, t)[2 * k.c.top];
}

static __global__ void chunks_kernel(int64_t pools, pools_of k)
{
    EACH_ITEM(pool, pools) {
        int32_t *first = k.first + pool * (k.c.chunks + 2);
        int64_t chunks = 0;
        for (int64_t a = 0; a < tokens_of(k, pool); a = chunk_end(k, pool, a))
            first[chunks++] = (int32_t)a;
        first[chunks] = (int32_t)tokens_of(k, pool);
        first[k.c.chunks + 1] = (int32_t)chunks;
    }
}
static __device__ __forceinline__ int64_t chunks_of(const pools_of &k, int64_t pool)
{
    return k.first[pool * (k.c.chunks + 2) + k.c.chunks + 1];
}
static __device__ __forceinline__ int64_t chunk_first(const pools_of &k, int64_t pool,
                                                      int64_t chunk)
{
    return k.first[pool * (k.c.chunks + 2) + chunk];
}

/* ---- decide ---- */
typedef struct {
    pools_of k;
    nsmi_slots_state st;
    nsmi_slots_trace trace;
    bool traces;
    /* [pools, s]; [pools, 2, s] cosines of a token's key and query, -inf where dead */
    float *usage, *with;
    float *table;               /* [pools, 2, C, s] cosines with the slots that the chunk found */
    int32_t *owner;             /* [pools, s] */
    float *mass, *key;          /* out: [B, n, H], [B, H, s, dk] */
} deciding;

/* [t, j]: the token t's key, its query, with the key of token j of the chunk */
typedef struct { square k, q; } grams;

/* to[row, col] (pitch) = the products of the chunk's keys (queries) with up to 64 keys of `key` */
template <class Key>
static __device__ void cosines_with(const deciding &d, tile_room &m, int64_t pool, int64_t a,
                                    int64_t count, const float *rows, Key key, int cols, float *to,
                                    int64_t pitch)
{
    const int row = tile_row(), col = tile_col();
    const int64_t size = d.k.c.keys;
    float z[QUAD][QUAD];
    tile_clear(z);
    tile_product<true, true>(
        m, (int)size,
        [&](int t, int e) {
            return t < count && e < size ? rows[token_at(d.k, pool, a + t, size) + e] : 0;
        },
        [&](int j, int e) { return j < cols && e < size ? key(j)[e] : 0; }, z);
    for (int r = 0; r < QUAD; r++)
        for (int c = 0; c < QUAD; c++)
            if (row + r < count && col + c < cols) to[(row + r) * pitch + col + c] = z[r][c];
}

/* All cosines of a chunk of tokens. */
static __device__ void chunk_cosines(const deciding &d, tile_room &m, grams &g, int64_t pool,
                                     int64_t a, int64_t count)
{
    const int64_t s = d.k.c.slots;
    const int32_t *owner = d.owner + pool * s;
    auto token_key = [&](int j) { return d.k.in.k + token_at(d.k, pool, a + j, d.k.c.keys); };
    for (int which = 0; which < 2; which++) {
        const float *rows = which ? d.k.in.q : d.k.in.k;
        cosines_with(d, m, pool, a, count, rows, token_key, (int)count, which ? g.q[0] : g.k[0],
                     PITCH);
        for (int64_t s0 = 0; s0 < s; s0 += TOKENS)
            cosines_with(
                d, m, pool, a, count, rows,
                [&](int j) {
                    return owner[s0 + j] <= DIED ? d.k.in.k
                                                 : key_of(d.k, pool, owner[s0 + j], s0 + j);
                },
                (int)least(s - s0, TOKENS), d.table + ((pool * 2 + which) * d.k.c.chunk) * s + s0,
                s);
    }
}

/* The larger number, of equals the lower place, over a warp; place -1: none above -inf. */
typedef struct { float value; int32_t place; } choice;
static __device__ __forceinline__ choice better(choice a, choice b)
{
    bool takes = b.place >= 0 &&
                 (a.place < 0 || b.value > a.value || (b.value == a.value && b.place < a.place));
    return takes ? b : a;
}
static __device__ __forceinline__ choice warp_best(choice w)
{
    for (int o = LANES / 2; o; o /= 2) {
        choice other = { __shfl_xor_sync(0xffffffffu, w.value, o),
                         __shfl_xor_sync(0xffffffffu, w.place, o) };
        w = better(w, other);
    }
    return w;
}

/* A lane's best of x over its slots (of `use`). */
template <class Use>
static __device__ __forceinline__ choice lane_best(int64_t s, const float *x, Use use)
{
    choice w = { minus_infinity(), -1 };
    for (int64_t i = lane_of(); i < s; i += LANES) {
        choice next = { x[i], use(i) && x[i] > minus_infinity() ? (int32_t)i : -1 };
        w = better(w, next);
    }
    return w;
}

/* The lowest dead slot, else the least used one that may be given up: for a novel token; -1:
 * none. */
static __device__ int32_t choose_slot(const deciding &d, int64_t pool, float beta, bool *recycled)
{
    const nsmi_slots &c = d.k.c;
    const int32_t *owner = d.owner + pool * c.slots;
    const float *usage = d.usage + pool * c.slots;
    choice dead = { 0, -1 }, least_used = { 0, -1 };
    for (int64_t i = lane_of(); i < c.slots; i += LANES) {
        choice here = { 0, (int32_t)i }, rare = { -usage[i], (int32_t)i };
        if (owner[i] <= DIED) dead = better(dead, here);
        else if (i >= c.learned) least_used = better(least_used, rare);
    }
    dead = warp_best(dead);
    if (dead.place >= 0) return dead.place;
    least_used = warp_best(least_used);
    *recycled = least_used.place >= 0 && -least_used.value < c.tau_recycle * beta;
    return *recycled ? least_used.place : -1;
}

/* Usage fades, the unused die; cosines of those alive; the largest of the key's. */
static __device__ float fade_usage(const deciding &d, const grams &g, int64_t pool, int64_t a,
                                   int64_t t)
{
    const nsmi_slots &c = d.k.c;
    float best = minus_infinity();
    for (int64_t i = lane_of(); i < c.slots; i += LANES) {
        int32_t owner = d.owner[pool * c.slots + i];
        float usage = c.rho * d.usage[pool * c.slots + i];
        bool dies = owner > DIED && usage < c.tau_prune && i >= c.learned;
        if (d.traces) d.trace.pruned[(pool * c.tokens + t) * c.slots + i] = dies;
        if (dies) d.owner[pool * c.slots + i] = owner = DIED;
        d.usage[pool * c.slots + i] = dies ? 0 : usage;
        for (int which = 0; which < 2; which++) {
            float x = minus_infinity();
            if (owner >= a) x = which ? g.q[t - a][owner - a] : g.k[t - a][owner - a];
            else if (owner > DIED)
                x = d.table[((pool * 2 + which) * c.chunk + t - a) * c.slots + i];
            d.with[(pool * 2 + which) * c.slots + i] = x;
            if (which == 0 && x > best) best = x;
        }
    }
    return warp_max(best);
}

/* The k largest of x, whose places are taken out of it; prob gets their cosines.  How many there
 * are. */
static __device__ int64_t keep_largest(const nsmi_slots &c, float *x, int32_t *slot, float *prob)
{
    auto any = [](int64_t) { return true; };
    choice mine = lane_best(c.slots, x, any);
    int64_t count = 0;
    for (; count < c.top; count++) {
        choice w = warp_best(mine);
        if (w.place < 0) break;
        if (w.place == mine.place) {
            slot[count] = w.place;
            prob[count] = w.value;
            x[w.place] = minus_infinity();
            mine = lane_best(c.slots, x, any);
        }
    }
    for (int64_t i = count + lane_of(); i < c.top; i += LANES) {
        slot[i] = -1;
        prob[i] = 0;
    }
    __syncwarp();
    return count;
}

/* Softmax over the null share and the cosines kept, in their place; the sum of the shares. */
static __device__ float soften_kept(int64_t count, float *prob, float gamma, float null)
{
    float top = null, sum = 0;
    for (int64_t i = lane_of(); i < count; i += LANES) top = high_of(gamma * prob[i], top);
    top = warp_max(top);
    for (int64_t i = lane_of(); i < count; i += LANES) sum += prob[i] = expf(gamma * prob[i] - top);
    sum = warp_sum(sum);
    float by = 1 / (sum + expf(null - top));
    for (int64_t i = lane_of(); i < count; i += LANES) prob[i] *= by;
    __syncwarp();
    return sum * by;
}

/* Only a slot that takes at least half of a routing counts as used. */
static __device__ __forceinline__ void count_usage(const deciding &d, int64_t pool, int64_t count,
                                                   const int32_t *slot, const float *prob, float by)
{
    for (int64_t i = 0; i < count; i++)
        if (prob[i] >= 0.5f && slot[i] % LANES == (int32_t)lane_of())
            d.usage[pool * d.k.c.slots + slot[i]] += by * prob[i];
}

static __device__ void trace_token(const deciding &d, int64_t pool, int64_t t, int32_t opened,
                                   bool recycled, const int64_t count[2])
{
    const nsmi_slots &c = d.k.c;
    const int64_t at = pool * c.tokens + t, row = at * c.slots;
    const int32_t *slot = kept_of(d.k, pool, t);
    const float *prob = prob_of(d.k, pool, t);
    if (lane_of() == 0) {
        d.trace.slot[at] = opened;
        d.trace.recycled[at] = recycled;
    }
    for (int64_t i = lane_of(); i < c.slots; i += LANES) {
        d.trace.write[row + i] = d.trace.read[row + i] = 0;
        d.trace.usage[row + i] = d.usage[pool * c.slots + i];
        d.trace.alive[row + i] = d.owner[pool * c.slots + i] > DIED;
    }
    __syncwarp();
    for (int64_t i = lane_of(); i < count[0]; i += LANES) d.trace.write[row + slot[i]] = prob[i];
    for (int64_t i = lane_of(); i < count[1]; i += LANES)
        d.trace.read[row + slot[c.top + i]] = prob[c.top + i];
}

static __device__ void decide_token(const deciding &d, const grams &g, int64_t pool, int64_t a,
                                    int64_t t)
{
    const nsmi_slots &c = d.k.c;
    const int64_t at = token_at(d.k, pool, t, 1), h = pool % c.heads;
    const float beta = d.k.in.beta[at], *scalar = d.k.in.scalar;
    int32_t *slot = kept_of(d.k, pool, t), opened = -1;
    float *prob = prob_of(d.k, pool, t);
    bool recycled = false;
    if (fade_usage(d, g, pool, a, t) < c.tau_new && beta >= c.beta_min)
        opened = choose_slot(d, pool, beta, &recycled);
    /* the lane that has this slot in all loops over them */
    if (opened >= 0 && opened % LANES == (int32_t)lane_of()) {
        d.owner[pool * c.slots + opened] = (int32_t)t;
        d.usage[pool * c.slots + opened] = beta;
        d.with[pool * 2 * c.slots + opened] = g.k[t - a][t - a];
        d.with[(pool * 2 + 1) * c.slots + opened] = g.q[t - a][t - a];
    }
    int64_t count[2];
    float mass = 0;
    for (int which = 0; which < 2; which++) {
        count[which] = keep_largest(c, d.with + (pool * 2 + which) * c.slots, slot + which * c.top,
                                    prob + which * c.top);
        mass = soften_kept(count[which], prob + which * c.top, scalar[2 * which * c.heads + h],
                           scalar[(2 * which + 1) * c.heads + h]);
    }
    if (lane_of() == 0) {
        slot[2 * c.top] = opened;
        d.mass[at] = mass; /* of reading, the last */
    }
    count_usage(d, pool, count[0], slot, prob, beta);
    count_usage(d, pool, count[1], slot + c.top, prob + c.top, 1);
    if (d.traces) trace_token(d, pool, t, opened, recycled, count);
}

static __device__ void decide_begin(const deciding &d, int64_t pool)
{
    const nsmi_slots &c = d.k.c;
    for (int64_t i = threadIdx.x; i < c.slots; i += BLOCK) {
        int64_t at = pool * c.slots + i;
        bool alive = d.st.alive ? d.st.alive[at] != 0 : i < c.learned;
        d.owner[at] = alive ? NO_TOKEN : NEVER;
        d.usage[at] = d.st.usage ? d.st.usage[at] : 0;
    }
    __syncthreads();
}

/* The pool as the last token leaves it. */
static __device__ void decide_end(const deciding &d, int64_t pool)
{
    const nsmi_slots &c = d.k.c;
    for (int64_t i = threadIdx.x; i < c.slots * c.keys; i += BLOCK) {
        int64_t slot = i / c.keys;
        int32_t owner = d.owner[pool * c.slots + slot];
        d.key[pool * c.slots * c.keys + i] = owner <= DIED
                                                 ? 0
                                                 : key_of(d.k, pool, owner, slot)[i % c.keys];
    }
    for (int64_t i = threadIdx.x; d.st.usage && i < c.slots; i += BLOCK) {
        int64_t at = pool * c.slots + i;
        int32_t owner = d.owner[at];
        d.st.usage[at] = d.usage[at];
        d.st.alive[at] = owner > DIED;
        if (owner != NO_TOKEN) d.st.birth[at] = owner <= DIED ? -1 : seen_of(d.k, pool) + owner;
    }
    for (int64_t t = tokens_of(d.k, pool) + threadIdx.x; t < c.tokens; t += BLOCK)
        d.mass[token_at(d.k, pool, t, 1)] = 0;
}

/* A block a pool. */
static __global__ void decide_kernel(deciding d)
{
    __shared__ tile_room m;
    __shared__ grams g;
    const int64_t pool = blockIdx.x, chunks = chunks_of(d.k, pool);
    decide_begin(d, pool);
    for (int64_t i = 0; i <= chunks; i++) {
        const int64_t a = chunk_first(d.k, pool, i),
                      end = i < chunks ? chunk_first(d.k, pool, i + 1) : a;
        for (int64_t j = threadIdx.x; j < d.k.c.slots; j += BLOCK)
            owners_at(d.k, pool, i)[j] = d.owner[pool * d.k.c.slots + j];
        if (i == chunks) break;
        chunk_cosines(d, m, g, pool, a, end - a);
        __syncthreads();
        for (int64_t t = a; threadIdx.x < LANES && t < end; t++) decide_token(d, g, pool, a, t);
        __syncthreads();
    }
    decide_end(d, pool);
}

/* ---- communication: S_i <- (1 - kappa) S_i + kappa sum_j softmax_j(gamma K_i . K_j) S_j, i and j
 * alive; rows and columns of the dead 0 ---- */
static __global__ void mix_slots_kernel(pools_of k)
{
    const int64_t pool = blockIdx.x / k.c.chunks, chunk = blockIdx.x % k.c.chunks, s = k.c.slots;
    if (chunk >= chunks_of(k, pool) || !communicates(k, pool, chunk_first(k, pool, chunk + 1)))
        return;
    const int32_t *owner = owners_at(k, pool, chunk + 1);
    const float gamma = k.in.scalar[5 * k.c.heads + pool % k.c.heads];
    for (int64_t i = threadIdx.x / LANES; i < s; i += WARPS) {
        float *row = k.mix + (blockIdx.x * s + i) * s,
              *cosine = k.cosine + (blockIdx.x * s + i) * s, top = minus_infinity(), sum = 0;
        for (int64_t j = lane_of(); j < s; j += LANES) {
            bool both = owner[i] > DIED && owner[j] > DIED;
            cosine[j] = both ? dot_of(key_of(k, pool, owner[i], i), key_of(k, pool, owner[j], j),
                                      k.c.keys)
                             : 0;
            row[j] = both ? gamma * cosine[j] : minus_infinity();
            top = high_of(row[j], top);
        }
        top = warp_max(top);
        for (int64_t j = lane_of(); j < s; j += LANES)
            sum += row[j] = row[j] == minus_infinity() ? 0 : expf(row[j] - top);
        sum = warp_sum(sum);
        for (int64_t j = lane_of(); j < s; j += LANES) row[j] *= sum > 0 ? 1 / sum : 0;
    }
}

/* ---- values ---- */

/* A routing as it was noted; the address is prob * unit. */
typedef struct { const int32_t *slot; const float *prob; int count; float mass, unit; } noted;

static __device__ __forceinline__ noted recall(const pools_of &k, int64_t pool, int64_t t,
                                               bool read)
{
    noted r = { kept_of(k, pool, t) + (read ? k.c.top : 0),
                prob_of(k, pool, t) + (read ? k.c.top : 0), 0, 0, 0 };
    float squares = 0;
    for (; r.count < k.c.top && r.slot[r.count] >= 0; r.count++) {
        r.mass += r.prob[r.count];
        squares += r.prob[r.count] * r.prob[r.count];
    }
    r.unit = 1 / sqrtf(squares + 1e-12f);
    return r;
}

/* One column of a pool's values: those of slot i at at[i * pitch]. */
typedef struct { float *at; int64_t pitch; } column;
static __device__ __forceinline__ float &slot_of(const column &c, int64_t i)
{
    return c.at[i * c.pitch];
}

/* heard [B, H, s, dv] with communication */
typedef struct { pools_of k; float *heard, *o, *value; } valuing;

static __device__ void clear_dead(const pools_of &k, const int32_t *owner, const column &v)
{
    for (int64_t i = 0; i < k.c.slots; i++)
        if (owner[i] == DIED) slot_of(v, i) = 0;
}

/* heard = A v, or A' v */
static __device__ void hear(int64_t s, const float *mix, bool turned, const column &v,
                            const column &heard)
{
    for (int64_t i = 0; i < s; i++) {
        float sum = 0;
        for (int64_t j = 0; j < s; j++)
            sum += (turned ? mix[j * s + i] : mix[i * s + j]) * slot_of(v, j);
        slot_of(heard, i) = sum;
    }
}

static __device__ void talk(const pools_of &k, int64_t pool, const int32_t *owner,
                            const column &heard, const column &v)
{
    float kappa = k.in.scalar[4 * k.c.heads + pool % k.c.heads];
    for (int64_t i = 0; i < k.c.slots; i++)
        if (owner[i] > DIED)
            slot_of(v, i) = (1 - kappa) * slot_of(v, i) + kappa * slot_of(heard, i);
}

/* S <- alpha S + r u^T with u = b (v - alpha S^T r), then o = S^T p. */
static __device__ void value_token(const valuing &f, int64_t pool, int64_t t, int64_t e,
                                   const column &v)
{
    const pools_of &k = f.k;
    const int64_t at = token_at(k, pool, t, 1);
    const int32_t opened = opened_at(k, pool, t);
    const noted w = recall(k, pool, t, false), r = recall(k, pool, t, true);
    float old = 0, sum = 0;
    if (opened >= 0) slot_of(v, opened) = 0;
    for (int64_t i = 0; k.in.alpha && i < k.c.slots; i++) slot_of(v, i) *= k.in.alpha[at];
    for (int i = 0; i < w.count; i++) old += w.unit * w.prob[i] * slot_of(v, w.slot[i]);
    float u = k.in.beta[at] * w.mass * (k.in.v[at * k.c.values + e] - old);
    for (int i = 0; i < w.count; i++) slot_of(v, w.slot[i]) += w.unit * w.prob[i] * u;
    for (int i = 0; i < r.count; i++) sum += r.unit * r.prob[i] * slot_of(v, r.slot[i]);
    f.o[at * k.c.values + e] = sum;
}

/* A warp 32 columns of a pool. */
enum { HELD_SLOTS = 192 }; /* of so many slots the values stand in shared memory */

static __global__ void values_kernel(valuing f)
{
    __shared__ float held[HELD_SLOTS][LANES];
    const pools_of &k = f.k;
    const int64_t wide = ceil_of(k.c.values, LANES), pool = blockIdx.x / wide,
                  e = blockIdx.x % wide * LANES + threadIdx.x, s = k.c.slots, dv = k.c.values;
    if (e >= dv) return;
    column out = { f.value + pool * s * dv + e, dv }, v = out,
           heard = { f.heard ? f.heard + pool * s * dv + e : NULL, dv };
    if (s <= HELD_SLOTS) v = column{ &held[0][threadIdx.x], LANES };
    for (int64_t i = 0; i < s; i++)
        slot_of(v, i) = k.in.value ? k.in.value[(pool * s + i) * dv + e] : 0;
    const int64_t chunks = chunks_of(k, pool);
    for (int64_t c = 0; c <= chunks; c++) {
        clear_dead(k, owners_at(k, pool, c), v);
        if (c == chunks) break;
        const int64_t end = chunk_first(k, pool, c + 1);
        for (int64_t i = 0; k.saved.start && i < s; i++)
            k.saved.start[((pool * k.c.chunks + c) * s + i) * dv + e] = slot_of(v, i);
        for (int64_t t = chunk_first(k, pool, c); t < end; t++) value_token(f, pool, t, e, v);
        if (communicates(k, pool, end)) {
            clear_dead(k, owners_at(k, pool, c + 1), v);
            hear(s, k.mix + (pool * k.c.chunks + c) * s * s, false, v, heard);
            talk(k, pool, owners_at(k, pool, c + 1), heard, v);
        }
    }
    for (int64_t i = 0; i < s; i++) slot_of(out, i) = slot_of(v, i);
    for (int64_t t = tokens_of(k, pool); t < k.c.tokens; t++) f.o[token_at(k, pool, t, dv) + e] = 0;
}

/* ---- scratch memory: the same walk counts it and shares it out ---- */
typedef struct { float *base; int64_t used; } rooms;
static float *room_for(rooms *r, int64_t n)
{
    float *p = r->base ? r->base + r->used : NULL;
    r->used += ceil_of(n, 64) * 64;
    return p;
}

static void pools_rooms(pools_of *k, rooms *r)
{
    const int64_t pools = k->c.batch * k->c.heads, s = k->c.slots,
                  pairs = k->c.comm_every ? pools * k->c.chunks * s * s : 0;
    k->first = (int32_t *)room_for(r, pools * (k->c.chunks + 2));
    k->mix = room_for(r, pairs);
    k->cosine = room_for(r, pairs);
}

static void deciding_rooms(deciding *d, valuing *f, rooms *r)
{
    const nsmi_slots *c = &d->k.c;
    const int64_t pools = c->batch * c->heads, s = c->slots;
    pools_rooms(&d->k, r);
    d->usage = room_for(r, pools * s);
    d->with = room_for(r, pools * 2 * s);
    d->table = room_for(r, pools * 2 * c->chunk * s);
    d->owner = (int32_t *)room_for(r, pools * s);
    f->heard = room_for(r, c->comm_every ? pools * s * c->values : 0);
    if (!c->comm_every) f->heard = NULL;
    if (d->k.saved.kept) return;
    d->k.saved.owner = (int32_t *)room_for(r, pools * (c->chunks + 1) * s);
    d->k.saved.kept = (int32_t *)room_for(r, pools * c->tokens * (2 * c->top + 1));
    d->k.saved.prob = room_for(r, pools * c->tokens * 2 * c->top);
}

static void run_slots(nsm_device *d, const nsmi_slots *c, const nsmi_slots_in *in,
                      const nsmi_slots_state *st, float *scratch, float *o, float *mass, float *key,
                      float *value, const nsmi_slots_saved *saved, const nsmi_slots_trace *trace)
{
    const int64_t pools = c->batch * c->heads;
    deciding k = {
        { *c, *in, {}, NULL, NULL, NULL }, *st, {}, trace != NULL, NULL, NULL, NULL, NULL, mass, key
    };
    valuing f = { {}, NULL, o, value };
    rooms r = { scratch, 0 };
    if (pools == 0) return;
    if (saved) k.k.saved = *saved;
    if (trace) k.trace = *trace;
    deciding_rooms(&k, &f, &r);
    f.k = k.k;
    FOR_ITEMS(d, chunks_kernel, pools, k.k);
    NSM_LAUNCH(decide_kernel, (unsigned)pools, BLOCK, stream_of(d), k);
    if (c->comm_every)
        NSM_LAUNCH(mix_slots_kernel, (unsigned)(pools * c->chunks), BLOCK, stream_of(d), k.k);
    NSM_LAUNCH(values_kernel, (unsigned)(pools * ceil_of(c->values, LANES)), LANES, stream_of(d),
               f);
    launched(d);
}

/* ---- backward: values ---- */
typedef struct {
    pools_of k;
    nsmi_slots_grad g;
    /* warps of a pool's values; slots noted by a write; dot products of a token */
    int64_t wide, rows, parts;
    float *value, *dvalue, *heard; /* [B, H, s, dv] */
    float *old;                  /* [pools, C, rows, dv] what a token's write replaced */
    float *reset, *miss;         /* [pools, C, dv] what the slot held that a token opened; v - e */
    /* [pools, n, wide, parts]: of reading, of writing [k] each, of its strength, of the decay */
    float *part;
    float *comm_part;            /* [pools, chunks, wide, s, s] */
    float *dmix;                 /* [pools, chunks, s, s] gradients of the logits */
    /* [pools, n, 2 k] gradients of what gamma multiplies: the cosines' without it */
    float *dcosine;
    /* [pools, n, 2] of the null shares; [pools, chunks, 2] of kappa and its gamma; [pools, key
     * warps, 2] of the gammas */
    float *scalars;
    float *comm_scalars, *gammas;
} slots_backing;

/* Token t's write once more; what it replaces is kept at place i of the chunk. */
static __device__ void write_again(const slots_backing &f, int64_t pool, int64_t t, int64_t i,
                                   int64_t e, const column &v)
{
    const pools_of &k = f.k;
    const int64_t at = token_at(k, pool, t, 1), dv = k.c.values, place = pool * k.c.chunk + i;
    const int32_t opened = opened_at(k, pool, t);
    const noted w = recall(k, pool, t, false);
    column kept = { f.old + place * f.rows * dv + e, dv };
    float old = 0;
    if (opened >= 0) {
        f.reset[place * dv + e] = slot_of(v, opened);
        slot_of(v, opened) = 0;
    }
    for (int64_t j = 0; k.in.alpha && j < k.c.slots; j++) {
        slot_of(kept, j) = slot_of(v, j);
        slot_of(v, j) *= k.in.alpha[at];
    }
    for (int j = 0; j < w.count; j++) {
        float row = slot_of(v, w.slot[j]);
        if (!k.in.alpha) slot_of(kept, j) = row;
        old += w.unit * w.prob[j] * row;
    }
    float x = k.in.v[at * dv + e] - old;
    f.miss[place * dv + e] = x;
    x *= k.in.beta[at] * w.mass;
    for (int j = 0; j < w.count; j++) slot_of(v, w.slot[j]) += w.unit * w.prob[j] * x;
}

/* A whole warp calls it; `mine`: this lane has a column. */
static __device__ void value_token_back(const slots_backing &f, int64_t pool, int64_t tile,
                                        int64_t t, int64_t i, int64_t e, bool mine, const column &v,
                                        const column &dv)
{
    const pools_of &k = f.k;
    const int64_t at = token_at(k, pool, t, 1), size = k.c.values, place = pool * k.c.chunk + i;
    const int32_t opened = opened_at(k, pool, t);
    const noted r = recall(k, pool, t, true), w = recall(k, pool, t, false);
    float *part = f.part + ((pool * k.c.tokens + t) * f.wide + tile) * f.parts;
    column kept = { f.old + place * f.rows * size + e, size };
    const float o = mine && f.g.o ? f.g.o[at * size + e] : 0,
                miss = mine ? f.miss[place * size + e] : 0;
    const float alpha = k.in.alpha ? k.in.alpha[at] : 1, b = k.in.beta[at] * w.mass;
    for (int j = 0; j < r.count; j++) {
        float sum = warp_sum(mine ? slot_of(v, r.slot[j]) * o : 0);
        if (lane_of() == 0) part[j] = sum;
        if (mine) slot_of(dv, r.slot[j]) += r.unit * r.prob[j] * o;
    }
    float du = 0;
    for (int j = 0; mine && j < w.count; j++) du += w.unit * w.prob[j] * slot_of(dv, w.slot[j]);
    float strength = warp_sum(du * miss), de = -b * du;
    if (mine) f.g.dv[at * size + e] += b * du;
    for (int j = 0; j < w.count; j++) {
        float da = 0;
        if (mine) {
            float d = slot_of(dv, w.slot[j]), s = slot_of(kept, k.in.alpha ? w.slot[j] : j);
            da = d * b * miss + alpha * s * de;
            slot_of(dv, w.slot[j]) = d + w.unit * w.prob[j] * de;
            slot_of(v, w.slot[j]) = s;
        }
        da = warp_sum(da);
        if (lane_of() == 0) part[k.c.top + j] = da;
    }
    float decay = 0;
    for (int64_t j = 0; k.in.alpha && mine && j < k.c.slots; j++) {
        float d = slot_of(dv, j), s = slot_of(kept, j);
        decay += d * s;
        slot_of(dv, j) = alpha * d;
        slot_of(v, j) = s;
    }
    decay = warp_sum(decay);
    if (lane_of() == 0) {
        part[2 * k.c.top] = strength;
        part[2 * k.c.top + 1] = decay;
    }
    if (opened < 0 || !mine) return;
    slot_of(dv, opened) = 0;
    slot_of(v, opened) = f.reset[place * size + e];
}

/* dS_j = (1 - kappa) D_j + kappa sum_i A_ij D_i; D_i . S_j of these columns for the rest. */
static __device__ void comm_values_back(const slots_backing &f, int64_t pool, int64_t tile,
                                        int64_t chunk, int64_t e, bool mine, const column &v,
                                        const column &dv)
{
    const pools_of &k = f.k;
    const int64_t s = k.c.slots, at = pool * k.c.chunks + chunk;
    const int32_t *owner = owners_at(k, pool, chunk + 1);
    float *part = f.comm_part + (at * f.wide + tile) * s * s;
    for (int64_t i = 0; i < s; i++)
        for (int64_t j0 = 0; j0 < s; j0 += LANES) {
            float along[LANES];
            for (int j = 0; j < LANES; j++)
                along[j] = mine && j0 + j < s ? slot_of(dv, i) * slot_of(v, j0 + j) : 0;
            float sum = warp_sums<LANES>(along);
            if (j0 + lane_of() < s) part[i * s + j0 + lane_of()] = sum;
        }
    if (!mine) return;
    column heard = { f.heard + pool * s * k.c.values + e, k.c.values };
    hear(s, k.mix + at * s * s, true, dv, heard);
    talk(k, pool, owner, heard, dv);
    for (int64_t i = 0; i < s; i++)
        if (owner[i] <= DIED) slot_of(dv, i) = 0;
}

enum { HELD_BACK = 96 };

/* A warp 32 columns of a pool. */
static __global__ void values_back_kernel(slots_backing f)
{
    __shared__ float held[2][HELD_BACK][LANES];
    const pools_of &k = f.k;
    const int64_t pool = blockIdx.x / f.wide, tile = blockIdx.x % f.wide,
                  e = tile * LANES + threadIdx.x, s = k.c.slots, dv = k.c.values;
    const int64_t chunks = chunks_of(k, pool);
    const bool mine = e < dv;
    column v = { f.value + pool * s * dv + e, dv }, d = { f.dvalue + pool * s * dv + e, dv };
    if (s <= HELD_BACK)
        v = column{ &held[0][0][threadIdx.x], LANES },
        d = column{ &held[1][0][threadIdx.x], LANES };
    for (int64_t i = 0; mine && i < s; i++)
        slot_of(d, i) = owners_at(k, pool, chunks)[i] == DIED || !f.g.value
                            ? 0
                            : f.g.value[(pool * s + i) * dv + e];
    for (int64_t c = chunks - 1; c >= 0; c--) {
        const int64_t a = chunk_first(k, pool, c), end = chunk_first(k, pool, c + 1);
        for (int64_t i = 0; mine && i < s; i++)
            slot_of(v, i) = k.saved.start[((pool * k.c.chunks + c) * s + i) * dv + e];
        for (int64_t t = a; mine && t < end; t++) write_again(f, pool, t, t - a, e, v);
        if (communicates(k, pool, end)) comm_values_back(f, pool, tile, c, e, mine, v, d);
        for (int64_t t = end - 1; t >= a; t--)
            value_token_back(f, pool, tile, t, t - a, e, mine, v, d);
    }
    for (int64_t i = 0; mine && f.g.dvalue && i < s; i++)
        f.g.dvalue[(pool * s + i) * dv + e] += slot_of(d, i);
}

/* ---- backward: routes ---- */

/* From the gradients of a = P / |P| and m = sum P to those of the logits, and of the null share.
 *   dP = unit (da - a (a . da)) + dm,  dL_i = P_i (dP_i - sum of P dP) */
static __device__ float route_back(const noted &r, const float *da, float dm, float *dcosine)
{
    float along = 0, h = 0;
    for (int i = 0; i < r.count; i++) along += r.unit * r.prob[i] * da[i];
    for (int i = 0; i < r.count; i++)
        h += r.prob[i] * (r.unit * (da[i] - r.unit * r.prob[i] * along) + dm);
    for (int i = 0; i < r.count; i++)
        dcosine[i] = r.prob[i] * (r.unit * (da[i] - r.unit * r.prob[i] * along) + dm - h);
    return -(1 - r.mass) * h;
}

/* A thread a token: first the warps' parts, joined in the place of the first. */
static __global__ void routes_back_kernel(int64_t items, slots_backing f)
{
    EACH_ITEM(i, items) {
        const pools_of &k = f.k;
        const int64_t pool = i / k.c.tokens, t = i % k.c.tokens, at = token_at(k, pool, t, 1),
                      top = k.c.top;
        float *part = f.part + i * f.wide * f.parts, *null = f.scalars + i * 2;
        null[0] = null[1] = 0;
        if (t >= tokens_of(k, pool)) continue;
        const noted r = recall(k, pool, t, true), w = recall(k, pool, t, false);
        for (int64_t j = 0; j < f.parts; j++) {
            if (j < top ? j >= r.count : j < 2 * top && j - top >= w.count) continue;
            for (int64_t x = 1; x < f.wide; x++) part[j] += part[x * f.parts + j];
        }
        null[1] = route_back(r, part, f.g.mass ? f.g.mass[at] : 0, f.dcosine + i * 2 * top + top);
        null[0] = route_back(w, part + top, part[2 * top] * k.in.beta[at], f.dcosine + i * 2 * top);
        f.g.dbeta[at] += part[2 * top] * w.mass;
        if (k.in.alpha) f.g.dalpha[at] += part[2 * top + 1];
    }
}

/* dA_ij = kappa D_i . S_j, dkappa = sum D_i . (A S - S)_i: a block a chunk's end, a warp a row. */
static __global__ void comm_back_kernel(slots_backing f)
{
    __shared__ float sums[2][WARPS];
    const pools_of &k = f.k;
    const int64_t pool = blockIdx.x / k.c.chunks, chunk = blockIdx.x % k.c.chunks, s = k.c.slots,
                  warp = threadIdx.x / LANES;
    float *out = f.comm_scalars + blockIdx.x * 2, dkappa = 0, dgamma = 0;
    if (threadIdx.x < 2) out[threadIdx.x] = 0;
    if (chunk >= chunks_of(k, pool) || !communicates(k, pool, chunk_first(k, pool, chunk + 1)))
        return;
    const int32_t *owner = owners_at(k, pool, chunk + 1);
    const float kappa = k.in.scalar[4 * k.c.heads + pool % k.c.heads],
                gamma = k.in.scalar[5 * k.c.heads + pool % k.c.heads];
    for (int64_t i = warp; i < s; i += WARPS) {
        const int64_t row = (blockIdx.x * s + i) * s;
        float along = 0, self = 0;
        for (int64_t j = lane_of(); j < s; j += LANES) {
            float d = 0;
            for (int64_t x = 0; x < f.wide; x++)
                d += f.comm_part[(blockIdx.x * f.wide + x) * s * s + i * s + j];
            f.dmix[row + j] = d;
            along += k.mix[row + j] * d;
            if (j == i) self = d;
        }
        along = warp_sum(along);
        self = warp_sum(self);
        if (owner[i] > DIED) dkappa += along - self;
        for (int64_t j = lane_of(); j < s; j += LANES) {
            float dl = k.mix[row + j] * kappa * (f.dmix[row + j] - along);
            dgamma += dl * k.cosine[row + j];
            f.dmix[row + j] = gamma * dl;
        }
    }
    dgamma = warp_sum(dgamma);
    if (lane_of() == 0) sums[0][warp] = dkappa, sums[1][warp] = dgamma;
    __syncthreads();
    if (threadIdx.x >= 2) return;
    float sum = 0;
    for (int w = 0; w < WARPS; w++) sum += sums[threadIdx.x][w];
    out[threadIdx.x] = sum;
}

/* ---- backward: keys ---- */

/* Forward over the tokens: dz += gamma times the sum of dc_i times the keys of the slots kept; what
 * the gammas get of these columns. */
static __device__ void keys_forward(const slots_backing &f, int64_t pool, int64_t e, bool mine,
                                    const float gamma[2], const column &key, float dgamma[2])
{
    const pools_of &k = f.k;
    const int64_t size = k.c.keys;
    dgamma[0] = dgamma[1] = 0;
    for (int64_t i = 0; mine && i < k.c.slots; i++)
        slot_of(key, i) = owners_at(k, pool, 0)[i] == NO_TOKEN
                              ? k.in.key[(pool * k.c.slots + i) * size + e]
                              : 0;
    for (int64_t t = 0; mine && t < tokens_of(k, pool); t++) {
        const int64_t at = token_at(k, pool, t, size) + e;
        const int32_t *slot = kept_of(k, pool, t), opened = slot[2 * k.c.top];
        const float *dc = f.dcosine + (pool * k.c.tokens + t) * 2 * k.c.top;
        float sum[2] = { 0, 0 };
        if (opened >= 0) slot_of(key, opened) = k.in.k[at];
        for (int which = 0; which < 2; which++)
            for (int64_t i = which * k.c.top; i < (which + 1) * k.c.top && slot[i] >= 0; i++)
                sum[which] += dc[i] * slot_of(key, slot[i]);
        f.g.dk[at] += gamma[0] * sum[0];
        f.g.dq[at] += gamma[1] * sum[1];
        dgamma[0] += sum[0] * k.in.k[at];
        dgamma[1] += sum[1] * k.in.q[at];
    }
}

/* Where states communicated their keys get (L + L') K; the keys as the chunk left them. */
static __device__ void comm_keys_back(const slots_backing &f, int64_t pool, int64_t chunk,
                                      int64_t e, const column &key, const column &sum)
{
    const pools_of &k = f.k;
    const int64_t s = k.c.slots;
    const int32_t *owner = owners_at(k, pool, chunk + 1);
    const float *l = f.dmix + (pool * k.c.chunks + chunk) * s * s;
    for (int64_t i = 0; i < s; i++)
        slot_of(key, i) = owner[i] > DIED ? key_of(k, pool, owner[i], i)[e] : 0;
    for (int64_t i = 0; i < s; i++) {
        float more = 0;
        for (int64_t j = 0; owner[i] > DIED && j < s; j++)
            if (owner[j] > DIED) more += (l[i * s + j] + l[j * s + i]) * slot_of(key, j);
        slot_of(sum, i) += more;
    }
}

/* Back over the tokens: what they give a slot's key is summed until the token that opened it. */
static __device__ void keys_backward(const slots_backing &f, int64_t pool, int64_t e,
                                     const float gamma[2], const column &key, const column &sum)
{
    const pools_of &k = f.k;
    const int64_t size = k.c.keys, chunks = chunks_of(k, pool);
    const int32_t *last = owners_at(k, pool, chunks);
    for (int64_t i = 0; i < k.c.slots; i++)
        slot_of(sum, i) = f.g.key && last[i] != DIED ? f.g.key[(pool * k.c.slots + i) * size + e]
                                                     : 0;
    for (int64_t c = chunks - 1; c >= 0; c--) {
        const int64_t end = chunk_first(k, pool, c + 1);
        if (communicates(k, pool, end)) comm_keys_back(f, pool, c, e, key, sum);
        for (int64_t t = end - 1; t >= chunk_first(k, pool, c); t--) {
            const int64_t at = token_at(k, pool, t, size) + e;
            const int32_t *slot = kept_of(k, pool, t), opened = slot[2 * k.c.top];
            const float *dc = f.dcosine + (pool * k.c.tokens + t) * 2 * k.c.top;
            for (int which = 0; which < 2; which++) {
                const float z = gamma[which] * (which ? k.in.q[at] : k.in.k[at]);
                for (int64_t i = which * k.c.top; i < (which + 1) * k.c.top && slot[i] >= 0; i++)
                    slot_of(sum, slot[i]) += dc[i] * z;
            }
            if (opened < 0) continue;
            f.g.dk[at] += slot_of(sum, opened);
            slot_of(sum, opened) = 0;
        }
    }
    for (int64_t i = 0; f.g.dkey && i < k.c.slots; i++)
        f.g.dkey[(pool * k.c.slots + i) * size + e] += slot_of(sum, i);
}

/* A warp 32 columns of a pool's keys; room [B, H, s, 2, dk] where there are too many slots. */
static __global__ void keys_back_kernel(slots_backing f, float *room)
{
    __shared__ float held[2][HELD_BACK][LANES];
    const pools_of &k = f.k;
    const int64_t wide = ceil_of(k.c.keys, LANES), pool = blockIdx.x / wide,
                  e = blockIdx.x % wide * LANES + threadIdx.x;
    const bool mine = e < k.c.keys;
    column key = { room + pool * 2 * k.c.slots * k.c.keys + e, k.c.keys },
           sum = { key.at + k.c.slots * k.c.keys, k.c.keys };
    if (k.c.slots <= HELD_BACK)
        key = column{ &held[0][0][threadIdx.x], LANES },
        sum = column{ &held[1][0][threadIdx.x], LANES };
    const float gamma[2] = { k.in.scalar[pool % k.c.heads],
                             k.in.scalar[2 * k.c.heads + pool % k.c.heads] };
    float dgamma[2];
    keys_forward(f, pool, e, mine, gamma, key, dgamma);
    if (mine) keys_backward(f, pool, e, gamma, key, sum);
    for (int which = 0; which < 2; which++) {
        float all = warp_sum(dgamma[which]);
        if (lane_of() == 0) f.gammas[blockIdx.x * 2 + which] = all;
    }
}

/* ---- the scalars: [4|6, H] += the sums over the tokens of a head's pools, a block a pool and then
 * the rows of the batch ---- */
static __device__ float sum_of(const float *x, int64_t n, int64_t step)
{
    float sum = 0;
    for (int64_t i = threadIdx.x; i < n; i += BLOCK) sum += x[i * step];
    return group_sum<BLOCK>(sum);
}

static __global__ void scalars_kernel(slots_backing f, float *part) /* part [pools, 6] */
{
    const pools_of &k = f.k;
    const int64_t pool = blockIdx.x, wide = ceil_of(k.c.keys, LANES);
    float sum[6];
    for (int which = 0; which < 2; which++) {
        sum[2 * which] = sum_of(f.gammas + pool * wide * 2 + which, wide, 2);
        sum[2 * which + 1] = sum_of(f.scalars + pool * k.c.tokens * 2 + which, k.c.tokens, 2);
        sum[4 + which] = k.c.comm_every
                             ? sum_of(f.comm_scalars + pool * k.c.chunks * 2 + which, k.c.chunks, 2)
                             : 0;
    }
    for (int i = 0; i < 6; i++)
        if (threadIdx.x == 0) part[pool * 6 + i] = sum[i];
}

static __global__ void scalars_join_kernel(int64_t items, slots_backing f, const float *part)
{
    EACH_ITEM(i, items) {
        int64_t j = i / f.k.c.heads, h = i % f.k.c.heads;
        float sum = 0;
        for (int64_t b = 0; b < f.k.c.batch; b++) sum += part[(b * f.k.c.heads + h) * 6 + j];
        f.g.dscalar[i] += sum;
    }
}

typedef struct { float *key_room, *scalars; } last_rooms;

static last_rooms backing_rooms_of(slots_backing *f, bool decay, rooms *r)
{
    const nsmi_slots *c = &f->k.c;
    const int64_t pools = c->batch * c->heads, s = c->slots, dv = c->values,
                  pairs = c->comm_every ? pools * c->chunks * s * s : 0;
    last_rooms l;
    pools_rooms(&f->k, r);
    f->wide = ceil_of(dv, LANES);
    f->rows = decay ? s : c->top;
    f->parts = 2 * c->top + 2;
    f->value = room_for(r, pools * s * dv);
    f->dvalue = room_for(r, pools * s * dv);
    f->heard = room_for(r, c->comm_every ? pools * s * dv : 0);
    f->old = room_for(r, pools * c->chunk * f->rows * dv);
    f->reset = room_for(r, pools * c->chunk * dv);
    f->miss = room_for(r, pools * c->chunk * dv);
    f->part = room_for(r, pools * c->tokens * f->wide * f->parts);
    f->comm_part = room_for(r, pairs * f->wide);
    f->dmix = room_for(r, pairs);
    f->dcosine = room_for(r, pools * c->tokens * 2 * c->top);
    f->scalars = room_for(r, pools * c->tokens * 2);
    f->comm_scalars = room_for(r, pools * c->chunks * 2);
    f->gammas = room_for(r, pools * ceil_of(c->keys, LANES) * 2);
    l.key_room = room_for(r, s > HELD_BACK ? pools * 2 * s * c->keys : 0);
    l.scalars = room_for(r, pools * 6);
    return l;
}

static int64_t slots_room(nsm_device *d, const nsmi_slots *c, bool decay, bool backward)
{
    rooms r = { NULL, 0 };
    deciding k = {};
    valuing v = {};
    slots_backing f = {};
    (void)d;
    k.k.c = f.k.c = *c;
    if (backward) backing_rooms_of(&f, decay, &r);
    else deciding_rooms(&k, &v, &r);
    return r.used;
}

static void slots_back(nsm_device *d, const nsmi_slots *c, const nsmi_slots_in *in,
                       const nsmi_slots_saved *saved, float *scratch, const nsmi_slots_grad *g)
{
    const int64_t pools = c->batch * c->heads;
    slots_backing f = {};
    rooms r = { scratch, 0 };
    if (pools == 0) return;
    f.k = pools_of{ *c, *in, *saved, NULL, NULL, NULL };
    f.g = *g;
    last_rooms l = backing_rooms_of(&f, in->alpha != NULL, &r);
    FOR_ITEMS(d, chunks_kernel, pools, f.k);
    if (c->comm_every)
        NSM_LAUNCH(mix_slots_kernel, (unsigned)(pools * c->chunks), BLOCK, stream_of(d), f.k);
    NSM_LAUNCH(values_back_kernel, (unsigned)(pools * f.wide), LANES, stream_of(d), f);
    FOR_ITEMS(d, routes_back_kernel, pools * c->tokens, f);
    if (c->comm_every)
        NSM_LAUNCH(comm_back_kernel, (unsigned)(pools * c->chunks), BLOCK, stream_of(d), f);
    NSM_LAUNCH(keys_back_kernel, (unsigned)(pools * ceil_of(c->keys, LANES)), LANES, stream_of(d),
               f, l.key_room);
    NSM_LAUNCH(scalars_kernel, (unsigned)pools, BLOCK, stream_of(d), f, l.scalars);
    FOR_ITEMS(d, scalars_join_kernel, (c->comm_every ? 6 : 4) * c->heads, f, l.scalars);
    launched(d);
}

void nsmi_cuda_slots(nsm_backend *be)
{
    be->slots_room = slots_room;
    be->slots = run_slots;
    be->slots_back = slots_back;
}
