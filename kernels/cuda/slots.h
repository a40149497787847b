/* kernels/cuda/slots.h - What the two directions of the state memory's slots share: where pools,
 * their chunks, routings and values stand, and how states communicate (slots.cu says what is done).
 */
#ifndef NSM_CUDA_SLOTS_H
#define NSM_CUDA_SLOTS_H
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

static __device__ __forceinline__ int64_t chunks_of(const pools_of &k, int64_t pool)
{
    return k.first[pool * (k.c.chunks + 2) + k.c.chunks + 1];
}
static __device__ __forceinline__ int64_t chunk_first(const pools_of &k, int64_t pool,
                                                      int64_t chunk)
{
    return k.first[pool * (k.c.chunks + 2) + chunk];
}

/* ---- routings and values ---- */

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

/* ---- scratch memory: the same walk counts it and shares it out ---- */
typedef struct { float *base; int64_t used; } rooms;
static inline float *room_for(rooms *r, int64_t n)
{
    float *p = r->base ? r->base + r->used : NULL;
    r->used += ceil_of(n, 64) * 64;
    return p;
}

static inline void pools_rooms(pools_of *k, rooms *r)
{
    const int64_t pools = k->c.batch * k->c.heads, s = k->c.slots,
                  pairs = k->c.comm_every ? pools * k->c.chunks * s * s : 0;
    k->first = (int32_t *)room_for(r, pools * (k->c.chunks + 2));
    k->mix = room_for(r, pairs);
    k->cosine = room_for(r, pairs);
}

/* ---- kernels/cuda/slots.cu ---- */

/* Before either direction: where chunks start, and with communication the softmax over slots of
 * every chunk's end. */
NSMI_SHARED void nsmi_slots_chunks(nsm_device *d, const pools_of *k);
NSMI_SHARED void nsmi_slots_mix(nsm_device *d, const pools_of *k);
/* kernels/cuda/slots_back.cu */
NSMI_SHARED void nsmi_cuda_slots_back(nsm_backend *be);
NSMI_SHARED int64_t nsmi_slots_back_room(const nsmi_slots *c, bool decay);

#endif
