/* base/memory.c - The caching allocator of device memory.
 *
 * Freed blocks are kept by size class and handed out again, so that a steady training step asks
 * the system for nothing.  Classes step by an eighth of a power of two: at most 12.5 % is lost, and
 * batches of varying size (sampling) still find each other's blocks.  When the system has no more,
 * what is kept is given back and the request tried again.
 *
 * A block carries no header (device memory cannot): a hash table maps its address to its class. */
#include "config.h"
#include "base/internal.h"

enum { CLASSES = 64 * 8 };

typedef struct block { void *p; size_t bytes; struct block *next; } block;

struct nsmi_cache {
    nsm_device *dev;
    block *kept[CLASSES];   /* free blocks by class */
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
    c->buckets = 1024;
    c->used = calloc(c->buckets, sizeof *c->used);
    if (!c->used) { free(c); return NULL; }
    return c;
}

static void trim(nsmi_cache *c)
{
    for (int k = 0; k < CLASSES; k++)
        while (c->kept[k]) {
            block *b = c->kept[k];
            c->kept[k] = b->next;
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
        if (c->kept[k]) {
            block *b = c->kept[k];
            c->kept[k] = b->next;
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
    b->p = c->dev->be->alloc(c->dev, rounded);
    if (!b->p) {
        trim(c);
        b->p = c->dev->be->alloc(c->dev, rounded);
    }
    if (b->p) return b;
    free(b);
    return NULL;
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
    if (++c->count > c->buckets * 2) grow_table(c);
    size_t k = bucket_of(c, b->p);
    b->next = c->used[k];
    c->used[k] = b;
    c->sum.used_bytes += (int64_t)b->bytes;
    if (c->sum.used_bytes > c->sum.peak_bytes) c->sum.peak_bytes = c->sum.used_bytes;
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
    b->next = c->kept[class];
    c->kept[class] = b;
    c->sum.used_bytes -= (int64_t)b->bytes;
    c->sum.cached_bytes += (int64_t)b->bytes;
}

nsm_memory nsm_ctx_memory(const nsm_ctx *ctx)
{
    return ctx && ctx->cache ? ctx->cache->sum : (nsm_memory){0};
}

void nsm_ctx_trim(nsm_ctx *ctx)
{
    if (ctx && ctx->cache) trim(ctx->cache);
}
