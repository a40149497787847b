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
 * Backward (slots_back.cu): values again, from those stored where chunks start, and from the end
 * back, each warp leaving the dot products of its columns; routes, a warp a token, from these to
 * the gradients of cosines; keys, a warp 32 columns: what slots' keys give a token's vectors,
 * forward, and what tokens give the slots' keys, backward, summed by slot until the token that
 * opened it is reached.
 *
 * Letters: B batch, n tokens, H heads, s slots, k kept by a routing, dk, dv sizes of a key and a
 * value, C chunk. */
#include "kernels/cuda/slots.h"

/* ---- chunks ---- */
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

void nsmi_slots_chunks(nsm_device *d, const pools_of *k)
{
    FOR_ITEMS(d, chunks_kernel, k->c.batch * k->c.heads, *k);
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

void nsmi_slots_mix(nsm_device *d, const pools_of *k)
{
    int64_t blocks = k->c.batch * k->c.heads * k->c.chunks;
    if (k->c.comm_every) NSM_LAUNCH(mix_slots_kernel, (unsigned)blocks, BLOCK, stream_of(d), *k);
}

/* ---- values ---- */

/* heard [B, H, s, dv] with communication */
typedef struct { pools_of k; float *heard, *o, *value; } valuing;

static __device__ void clear_dead(const pools_of &k, const int32_t *owner, const column &v)
{
    for (int64_t i = 0; i < k.c.slots; i++)
        if (owner[i] == DIED) slot_of(v, i) = 0;
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

/* ---- scratch memory ---- */
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
    nsmi_slots_chunks(d, &k.k);
    NSM_LAUNCH(decide_kernel, (unsigned)pools, BLOCK, stream_of(d), k);
    nsmi_slots_mix(d, &k.k);
    NSM_LAUNCH(values_kernel, (unsigned)(pools * ceil_of(c->values, LANES)), LANES, stream_of(d),
               f);
    launched(d);
}

static int64_t slots_room(nsm_device *d, const nsmi_slots *c, bool decay, bool backward)
{
    rooms r = { NULL, 0 };
    deciding k = {};
    valuing v = {};
    (void)d;
    if (backward) return nsmi_slots_back_room(c, decay);
    k.k.c = *c;
    deciding_rooms(&k, &v, &r);
    return r.used;
}

void nsmi_cuda_slots(nsm_backend *be)
{
    be->slots_room = slots_room;
    be->slots = run_slots;
    nsmi_cuda_slots_back(be);
}
