/* base/memory.c - The caching allocator of device memory.
 *
 * Freed blocks are kept by size class and handed out again, so that a steady training step asks
 * the system for nothing.  Classes step by an eighth of a power of two: at most 12.5 % is lost, and
 * batches of varying size (sampling) still find each other's blocks.  When the system has no more,
 * what is kept is given back and the request tried again.
 *
 * A block carries no header (device memory cannot): a hash table maps its address to its class.
 *
 * What is replayed (base/replay.c) writes to the places it had when it was recorded, so these come
 * from a pool of their own, which blocks go back to and nobody else takes from. */
#include "config.h"
#include "base/internal.h"

enum { CLASSES = 64 * 8 };

typedef struct block {
    void *p;
    size_t bytes;
    nsmi_blocks *of;
    struct block *next;
} block;

struct nsmi_blocks {
    block *kept[CLASSES];   /* free blocks by class */
    int64_t fresh;          /* blocks that the system was asked for */
};

struct nsmi_cache {
    nsm_device *dev;
    nsmi_blocks own, *now;    /* now: the pool that is taken from */
    block **used;           /* open hash of blocks in use */
    size_t buckets, count;
    block *spare;           /* block records without a block */
    nsm_memory sum;
};

/* The class of a size, and the size every block of it has. */
static int class_of(size_t bytes, size_t *rounded)
{
    if (bytes < 64) bytes = 64;
    int top = 63 - __builtin_clzll((unsigned long long)bytes); /* 2^top <= bytes */
    size_t step = (size_t)1 << (top - 3);
    size_t eighth = (bytes - ((size_t)1 << top) + step - 1) / step; /* 0..8 */
    *rounded = ((size_t)1 << top) + eighth * step;
    return top * 8 + (int)eighth; /* eighth 8 is the next power's 0: the same number */
}

static size_t bucket_of(const nsmi_cache *c, const void *p)
{
    return (size_t)(((uintptr_t)p >> 6) * 0x9E3779B97F4A7C15ull >> 20) & (c->buckets - 1);
}

nsmi_cache *nsmi_cache_new(nsm_device *d)
{
    nsmi_cache *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->dev = d;
    c->now = &c->own;
    c->buckets = 1024;
    c->used = calloc(c->buckets, sizeof *c->used);
    if (!c->used) { free(c); return NULL; }
    return c;
}

static void trim(nsmi_cache *c)
{
    for (int k = 0; k < CLASSES; k++)
        while (c->own.kept[k]) {
            block *b = c->own.kept[k];
            c->own.kept[k] = b->next;
            c->dev->be->release(c->dev, b->p, b->bytes);
            c->sum.cached_bytes -= (int64_t)b->bytes;
            b->next = c->spare;
            c->spare = b;
        }
}

void nsmi_cache_free(nsmi_cache *c)
{
    if (!c) return;
    trim(c);
    while (c->spare) { block *b = c->spare; c->spare = b->next; free(b); }
    free(c->used);
    free(c);
}

static void grow_table(nsmi_cache *c)
{
    size_t old = c->buckets;
    block **bigger = calloc(old * 2, sizeof *bigger);
    if (!bigger) return; /* longer chains, nothing worse */
    block **from = c->used;
    c->used = bigger;
    c->buckets = old * 2;
    for (size_t i = 0; i < old; i++)
        while (from[i]) {
            block *b = from[i];
            from[i] = b->next;
            size_t k = bucket_of(c, b->p);
            b->next = c->used[k];
            c->used[k] = b;
        }
    free(from);
}

/* A kept block of this class, or of one up to a quarter larger. */
static block *take_kept(nsmi_cache *c, int class)
{
    for (int k = class; k <= class + 2 && k < CLASSES; k++)
        if (c->now->kept[k]) {
            block *b = c->now->kept[k];
            c->now->kept[k] = b->next;
            c->sum.cached_bytes -= (int64_t)b->bytes;
            return b;
        }
    return NULL;
}

static block *take_new(nsmi_cache *c, size_t rounded)
{
    block *b = c->spare;
    if (b) c->spare = b->next;
    else if (!(b = malloc(sizeof *b))) return NULL;
    b->bytes = rounded;
    b->of = c->now;
    c->now->fresh++;
    b->p = c->dev->be->alloc(c->dev, rounded);
    if (!b->p) {
        trim(c);
        b->p = c->dev->be->alloc(c->dev, rounded);
    }
    if (b->p) return b;
    free(b);
    return NULL;
}

static void use(nsmi_cache *c, block *b)
{
    if (++c->count > c->buckets * 2) grow_table(c);
    size_t k = bucket_of(c, b->p);
    b->next = c->used[k];
    c->used[k] = b;
    c->sum.used_bytes += (int64_t)b->bytes;
    if (c->sum.used_bytes > c->sum.peak_bytes) c->sum.peak_bytes = c->sum.used_bytes;
}

void *nsmi_device_alloc(nsm_ctx *ctx, size_t bytes)
{
    if (nsmi_failed(ctx) || nsmi_fails_now(ctx)) return NULL;
    nsmi_cache *c = ctx->cache;
    size_t rounded;
    if (bytes > (size_t)1 << 60) {
        nsm_error_set(ctx, NSM_ENOMEM, "out of memory: %zu bytes were wanted", bytes);
        return NULL;
    }
    int class = class_of(bytes, &rounded);
    block *b = take_kept(c, class);
    if (b) ctx->reused++;
    else b = take_new(c, rounded);
    if (!b) {
        nsm_error_set(ctx, NSM_ENOMEM, "out of memory: %zu bytes were wanted, %lld are in use",
                      bytes, (long long)c->sum.used_bytes);
        return NULL;
    }
    use(c, b);
    return b->p;
}

void nsmi_device_free(nsm_ctx *ctx, void *p)
{
    if (!p) return;
    nsmi_cache *c = ctx->cache;
    block **at = &c->used[bucket_of(c, p)];
    while (*at && (*at)->p != p) at = &(*at)->next;
    block *b = *at;
    if (!b) return; /* not ours: a bug, which ASan shows as a leak */
    *at = b->next;
    c->count--;
    size_t rounded;
    int class = class_of(b->bytes, &rounded);
    b->next = b->of->kept[class];
    b->of->kept[class] = b;
    c->sum.used_bytes -= (int64_t)b->bytes;
    c->sum.cached_bytes += (int64_t)b->bytes;
}

/* ---- pools ---- */
nsmi_blocks *nsmi_blocks_new(nsm_ctx *ctx) { return nsmi_calloc(ctx, 1, sizeof(nsmi_blocks)); }

void nsmi_blocks_free(nsm_ctx *ctx, nsmi_blocks *pool)
{
    if (!pool) return;
    nsmi_cache *c = ctx->cache;
    for (int k = 0; k < CLASSES; k++)
        while (pool->kept[k]) {
            block *b = pool->kept[k];
            pool->kept[k] = b->next;
            b->of = &c->own;
            b->next = c->own.kept[k];
            c->own.kept[k] = b;
        }
    for (size_t i = 0; i < c->buckets; i++)
        for (block *b = c->used[i]; b; b = b->next)
            if (b->of == pool) b->of = &c->own;
    free(pool);
}

void nsmi_blocks_use(nsm_ctx *ctx, nsmi_blocks *pool)
{
    ctx->cache->now = pool ? pool : &ctx->cache->own;
}

int64_t nsmi_blocks_fresh(const nsmi_blocks *pool) { return pool->fresh; }

bool nsmi_blocks_take(nsm_ctx *ctx, nsmi_blocks *pool, void *p, size_t bytes)
{
    size_t rounded;
    int class = class_of(bytes, &rounded);
    for (int k = class; k <= class + 2 && k < CLASSES; k++)
        for (block **at = &pool->kept[k]; *at; at = &(*at)->next) {
            block *b = *at;
            if (b->p != p) continue;
            *at = b->next;
            ctx->cache->sum.cached_bytes -= (int64_t)b->bytes;
            use(ctx->cache, b);
            return true;
        }
    return false;
}

nsm_memory nsm_ctx_memory(const nsm_ctx *ctx)
{
    return ctx && ctx->cache ? ctx->cache->sum : (nsm_memory){0};
}

void nsm_ctx_trim(nsm_ctx *ctx)
{
    if (ctx && ctx->cache) trim(ctx->cache);
}
