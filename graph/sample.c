/* graph/sample.c - Drawing one batch.
 *
 * What it costs is memory's latency: two random lines an edge (the neighbour, its place in the
 * hash). So destinations are taken a few at a time, and what each step will read is asked for a
 * step before.  Without replacement by Floyd's algorithm (Bentley and Floyd, CACM 1987): k draws
 * for k of n, whatever n is.
 *
 * Draws come from Philox under a key of (seed, epoch), then (batch, hop), at a counter that names
 * the destination's place in the batch.  Nothing here touches a context. */
#include "config.h"
#include <stdlib.h>
#include <string.h>
#include "graph/sample.h"
#include "kernels/philox.h"

enum { GROUP = 32, AHEAD = 16, FEW = 32 };

static uint64_t key_of(uint64_t seed, uint64_t counter)
{
    uint32_t w[4];
    nsmi_philox(seed, counter, w);
    return (uint64_t)w[0] << 32 | w[1];
}

uint64_t nsmi_epoch_key(uint64_t seed, int64_t epoch) { return key_of(seed, (uint64_t)epoch); }

void nsmi_shuffle(uint64_t epoch_key, int64_t n, int32_t *node)
{
    uint64_t key = key_of(epoch_key, UINT64_MAX); /* no batch has this number */
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t k = (int64_t)((uint64_t)nsmi_philox_u32(key, 0, (uint64_t)i) * (uint64_t)(i + 1) >>
                              32);
        int32_t swap = node[i];
        node[i] = node[k];
        node[k] = swap;
    }
}

/* ---- arrays that grow ---- */
static bool grow(void **array, int64_t *room, int64_t want, size_t bytes)
{
    if (want <= *room) return true;
    int64_t more = want + want / 4;
    void *bigger = realloc(*array, (size_t)more * bytes);
    if (!bigger) return false;
    *array = bigger;
    *room = more;
    return true;
}
#define GROW(array, room, want) grow((void **)&(array), &(room), want, sizeof *(array))

static void free_features(nsmi_draft *d)
{
    if (d->device) d->device->be->host_free(d->device, d->x);
    else free(d->x);
    d->x = NULL;
}

void nsmi_draft_clear(nsmi_draft *d, int layers)
{
    for (int k = 0; d->hop && k < layers; k++) {
        free(d->hop[k].ptr);
        free(d->hop[k].idx);
        free(d->hop[k].type);
    }
    free(d->hop);
    free(d->node);
    free_features(d);
    *d = (nsmi_draft){ 0 };
}

void nsmi_picker_clear(nsmi_picker *p)
{
    free(p->slot);
    free(p->place);
    *p = (nsmi_picker){ 0 };
}

/* ---- which number a node has within the batch ---- */
static inline int64_t home(const nsmi_picker *p, int32_t node)
{
    return (int64_t)((uint32_t)node * 0x9E3779B1u >> p->shift);
}

/* The number of a node, `next` if it had none. */
static inline int32_t number_of(nsmi_picker *p, int32_t node, int32_t next)
{
    int64_t mask = p->slots - 1;
    for (int64_t i = home(p, node);; i = (i + 1) & mask) {
        if (p->slot[i].number < 0) {
            p->slot[i].node = node;
            p->slot[i].number = next;
        }
        if (p->slot[i].node == node) return p->slot[i].number;
    }
}

/* Empty the hash, with room for `want` nodes, and put those of the draft in. */
static bool reset_numbers(nsmi_picker *p, int64_t want, const nsmi_draft *d)
{
    int bits = 10;
    while (((int64_t)1 << bits) < 2 * want && bits < 32) bits++;
    if (((int64_t)1 << bits) > p->slots) {
        free(p->slot);
        p->slots = (int64_t)1 << bits;
        p->shift = 32 - bits;
        p->slot = malloc((size_t)p->slots * sizeof *p->slot);
        if (!p->slot) {
            p->slots = 0;
            return false;
        }
    }
    memset(p->slot, 0xff, (size_t)p->slots * sizeof *p->slot); /* number -1: free */
    for (int64_t i = 0; i < d->nodes; i++) number_of(p, d->node[i], (int32_t)i);
    return true;
}

/* ---- k of n ---- */
typedef struct { uint64_t key, counter; uint32_t word[4]; int left; } stream;

static inline int64_t below(stream *s, int64_t n)
{
    if (!s->left) {
        nsmi_philox(s->key, s->counter++, s->word);
        s->left = 4;
    }
    return (int64_t)((uint64_t)s->word[--s->left] * (uint64_t)n >> 32);
}

static inline bool among(const int64_t *set, int64_t count, int64_t value)
{
    for (int64_t i = 0; i < count; i++)
        if (set[i] == value) return true;
    return false;
}

/* Many of n: selection sampling (Knuth, TAOCP 2, 3.4.2 S), one draw each of n. */
static void pick_many(stream *s, int64_t n, int64_t k, int64_t first, int64_t *out)
{
    for (int64_t i = 0, got = 0; got < k; i++)
        if (below(s, n - i) < k - got) out[got++] = first + i;
}

/* k places of first .. first + n - 1. */
static inline void pick(stream *s, int64_t n, int64_t k, int64_t first, int64_t *out)
{
    if (k == n) {
        for (int64_t i = 0; i < k; i++) out[i] = first + i;
    } else if (k > FEW) {
        pick_many(s, n, k, first, out);
    } else {
        for (int64_t i = 0; i < k; i++) {
            int64_t j = n - k + i, t = first + below(s, j + 1);
            out[i] = among(out, i, t) ? first + j : t;
        }
    }
}

/* ---- a hop ---- */
/* How many each destination gets, as row starts. */
static void count_hop(const nsm_sampler_config *c, const nsmi_draft *d, int fan_out, nsmi_hop *h)
{
    h->ptr[0] = 0;
    for (int64_t i = 0; i < h->dst; i++) {
        if (i + AHEAD < h->dst) __builtin_prefetch(c->ptr + d->node[i + AHEAD]);
        int64_t n = c->ptr[d->node[i] + 1] - c->ptr[d->node[i]];
        h->ptr[i + 1] = h->ptr[i] + (fan_out >= 0 && fan_out < n ? fan_out : n);
    }
    h->edges = h->ptr[h->dst];
}

/* Edges of destinations from .. to: where they stand, then who they are, then their numbers. */
static void draw_group(const nsm_sampler_config *c, nsmi_picker *p, uint64_t key, nsmi_draft *d,
                       nsmi_hop *h, int64_t from, int64_t to)
{
    for (int64_t i = from; i < to; i++) {
        int64_t first = c->ptr[d->node[i]], n = c->ptr[d->node[i] + 1] - first, at = h->ptr[i],
                k = h->ptr[i + 1] - at;
        stream s = { .key = key, .counter = (uint64_t)i << 32 };
        pick(&s, n, k, first, p->place + at);
        for (int64_t e = at; e < at + k; e++) __builtin_prefetch(c->idx + p->place[e]);
        for (int64_t e = at; c->types && e < at + k; e++) __builtin_prefetch(c->type + p->place[e]);
    }
    for (int64_t e = h->ptr[from]; e < h->ptr[to]; e++) {
        h->idx[e] = c->idx[p->place[e]];
        if (c->types) h->type[e] = c->type[p->place[e]];
        __builtin_prefetch(&p->slot[home(p, h->idx[e])], 1);
    }
    for (int64_t e = h->ptr[from]; e < h->ptr[to]; e++) {
        int32_t node = h->idx[e], number = number_of(p, node, (int32_t)d->nodes);
        if (number == d->nodes) d->node[d->nodes++] = node;
        h->idx[e] = number;
    }
}

static int draw_hop(const nsm_sampler_config *c, nsmi_picker *p, uint64_t key, int fan_out,
                    nsmi_draft *d, nsmi_hop *h)
{
    h->dst = d->nodes;
    if (!GROW(h->ptr, h->ptr_room, h->dst + 1)) return NSM_ENOMEM;
    count_hop(c, d, fan_out, h);
    int64_t most = d->nodes + h->edges;
    if (most > INT32_MAX || !GROW(h->idx, h->idx_room, h->edges) ||
        (c->types && !GROW(h->type, h->type_room, h->edges)) ||
        !GROW(p->place, p->place_room, h->edges) || !GROW(d->node, d->node_room, most))
        return NSM_ENOMEM;
    if (2 * most > p->slots && !reset_numbers(p, most, d)) return NSM_ENOMEM;
    for (int64_t i = 0; i < h->dst; i += GROUP)
        draw_group(c, p, key, d, h, i, i + GROUP < h->dst ? i + GROUP : h->dst);
    d->edges += h->edges;
    return NSM_OK;
}

/* ---- features ---- */
static int gather(const nsm_sampler_config *c, nsmi_draft *d)
{
    int64_t f = c->features, want = d->nodes * f;
    if (want > d->x_room) {
        free_features(d);
        d->x_room = want + want / 4;
        size_t bytes = ((size_t)d->x_room * sizeof *d->x + 63) & ~(size_t)63;
        d->x = d->device ? d->device->be->host_alloc(d->device, bytes) : aligned_alloc(64, bytes);
        if (!d->x) {
            d->x_room = 0;
            return NSM_ENOMEM;
        }
    }
    if (c->read) return c->read(c->user, d->nodes, d->node, d->x);
    for (int64_t i = 0; i < d->nodes; i++) {
        if (i + AHEAD < d->nodes)
            for (int64_t k = 0; k < f; k += 16)
                __builtin_prefetch(c->x + d->node[i + AHEAD] * f + k);
        memcpy(d->x + i * f, c->x + d->node[i] * f, (size_t)f * sizeof *d->x);
    }
    return NSM_OK;
}

int nsmi_sample(const nsm_sampler_config *c, nsmi_picker *p, uint64_t epoch_key, int64_t number,
                int64_t seeds, const int32_t *seed_node, nsmi_draft *d)
{
    if (!d->hop && !(d->hop = calloc((size_t)c->layers, sizeof *d->hop))) return NSM_ENOMEM;
    if (!GROW(d->node, d->node_room, seeds)) return NSM_ENOMEM;
    memcpy(d->node, seed_node, (size_t)seeds * sizeof *d->node);
    d->seeds = d->nodes = seeds;
    d->edges = 0;
    if (!reset_numbers(p, seeds, d)) return NSM_ENOMEM;
    for (int k = 0; k < c->layers; k++) {
        int code = draw_hop(c, p, key_of(epoch_key, (uint64_t)number * 64 + (uint64_t)k),
                            c->fan_out[k], d, &d->hop[k]);
        if (code) return code;
    }
    return c->features ? gather(c, d) : NSM_OK;
}
