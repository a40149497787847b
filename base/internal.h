/* base/internal.h - What the library's own files share: the inside of the context, host memory,
 * and the short names that op bodies are written in.  Not installed. */
#ifndef NSM_INTERNAL_H
#define NSM_INTERNAL_H
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/context.h"
#include "base/module.h"
#include "base/options.h"
#include "base/sparse.h"
#include "base/tape.h"
#include "base/tensor.h"
#include "kernels/backend.h"

typedef struct nsmi_cache nsmi_cache; /* base/memory.c */
typedef struct nsmi_blocks nsmi_blocks;

struct nsm_ctx {
    nsm_device dev;
    nsmi_cache *cache;
    nsm_random random;
    int error;
    bool unusable;          /* the backend could not be opened: the error cannot be cleared */
    char message[512];
    int64_t fail_at;        /* tests: the allocation, counted from 1, that fails; 0 none */
    bool fail_on;           /* ... and every later one too */
    int64_t allocations, reused; /* tests: asked for; of them, given from the cache */
};

/* ---- host memory: every allocation of the library, so that tests can fail each in turn ---- */
/* NULL and NSM_ENOMEM when out; 0 bytes is allowed */
void *nsmi_malloc(nsm_ctx *ctx, size_t bytes);
void *nsmi_calloc(nsm_ctx *ctx, size_t count, size_t bytes); /* checks the product */
/* p stays valid on failure */
void *nsmi_realloc(nsm_ctx *ctx, void *p, size_t count, size_t bytes);
char *nsmi_strdup(nsm_ctx *ctx, const char *s);
char *nsmi_format(nsm_ctx *ctx, const char *format, ...) NSM_PRINTF(2, 3); /* a new string */
/* counts an allocation; leaves NSM_ENOMEM */
bool nsmi_fails_now(nsm_ctx *ctx);

/* Zeros on the host that are there until the tape is reset; a steady step finds the room of the
 * last one. */
void *nsmi_tape_room(nsm_tape *tape, size_t bytes);

/* ---- device memory, from the context's cache ---- */
void *nsmi_device_alloc(nsm_ctx *ctx, size_t bytes);
void nsmi_device_free(nsm_ctx *ctx, void *p);
nsmi_cache *nsmi_cache_new(nsm_device *d);
void nsmi_cache_free(nsmi_cache *c);

/* Blocks that nobody takes but who uses the pool; they go back to it, by whomever they are freed.
 * Freeing the pool gives all of them to the cache. */
nsmi_blocks *nsmi_blocks_new(nsm_ctx *ctx);
void nsmi_blocks_free(nsm_ctx *ctx, nsmi_blocks *pool);
void nsmi_blocks_use(nsm_ctx *ctx, nsmi_blocks *pool); /* from now on; NULL: the cache's own */
int64_t nsmi_blocks_fresh(const nsmi_blocks *pool);    /* blocks that it had not, so far */
/* Take the block at p, of `bytes` when it was asked for, out again; false: it is not there. */
bool nsmi_blocks_take(nsm_ctx *ctx, nsmi_blocks *pool, void *p, size_t bytes);

/* A copy to the device of numbers that follow from shapes and settings alone. */
void nsmi_constant(nsm_ctx *ctx, size_t bytes, const void *host, void *to);

/* A device copy of a host array. */
void *nsmi_device_put(nsm_ctx *ctx, const void *host, size_t bytes);

/* ---- sparse matrices: base/sparse.c, base/typed.c ---- */
/* to [nnz] = from (NULL: 0, 1, 2, ...) ordered by key, stable; count is scratch [keys + 1], which
 * keeps the ends of the keys' runs. */
void nsmi_counting_sort(int64_t nnz, int64_t keys, const int32_t *key, const int32_t *from,
                        int32_t *to, int64_t *count);
/* One direction of host rows; to be freed also where it fails. */
bool nsmi_csr_fill_part(nsm_ctx *ctx, nsm_csr_part *p, int64_t rows, int64_t cols,
                        const int64_t *ptr, const int32_t *idx, const int32_t *pos);
void nsmi_csr_free_part(nsm_ctx *ctx, nsm_csr_part *p);

/* Product of sizes; false when it overflows int64 or something is negative. */
bool nsmi_mul(int64_t a, int64_t b, int64_t *product);

/* One more backend that nsm_ctx_new() finds by its name; tests set it. */
extern const nsm_backend *nsmi_test_backend;

/* Make what the device could not do, if anything, the context's error: "who: what".  After every
 * call of kernels that may not have done their work. */
void nsmi_device_trouble(nsm_ctx *ctx, const char *who);

/* ---- options: "key=value key=value", blanks or commas between, by a table that ends in a key
 * without a name.  who: begins the sentence of an error, NSM_EINVAL. ---- */
void nsmi_options_default(const nsm_key *keys, void *to);
/* live: no keys but those that may be changed later; to NULL: the text is only checked. */
int nsmi_options_read(nsm_ctx *ctx, const char *who, const nsm_key *keys, const char *text,
                      bool live, void *to);
int nsmi_option_check(nsm_ctx *ctx, const char *who, const nsm_key *keys, const char *key,
                      const char *value);

/* Rows of a table of keys. */
#define KEY_INT(type, field, fallback, low, high, help) \
    { #field, NSM_KEY_INT, offsetof(type, field), fallback, low, high, NULL, help, false }
#define KEY_REAL(type, field, fallback, low, high, help) \
    { #field, NSM_KEY_REAL, offsetof(type, field), fallback, low, high, NULL, help, false }
#define KEY_BOOL(type, field, fallback, help) \
    { #field, NSM_KEY_BOOL, offsetof(type, field), fallback, 0, 1, NULL, help, false }
#define KEY_CHOICE(type, field, fallback, choices, help) \
    { #field, NSM_KEY_CHOICE, offsetof(type, field), fallback, 0, 0, choices, help, false }
/* ... that may be changed later. */
#define KEY_LIVE_INT(type, field, fallback, low, high, help) \
    { #field, NSM_KEY_INT, offsetof(type, field), fallback, low, high, NULL, help, true }
#define KEY_LIVE_REAL(type, field, fallback, low, high, help) \
    { #field, NSM_KEY_REAL, offsetof(type, field), fallback, low, high, NULL, help, true }
#define KEYS_END { NULL, NSM_KEY_INT, 0, 0, 0, 0, NULL, NULL, false }

/* Was there an error?  For the first line of a call: if (nsmi_failed(ctx)) return NULL. */
static inline bool nsmi_failed(const nsm_ctx *ctx) { return !ctx || ctx->error != NSM_OK; }

static inline nsm_tensor *nsmi_root(nsm_tensor *t) { return t->base ? t->base : t; }

/* The gradient of a tensor, made (uninitialised: *fresh) if there is none. */
float *nsmi_grad(nsm_tensor *t, bool *fresh);

/* ---- op bodies ---- */
#define BE(n) ((n)->ctx->dev.be)
#define DEV(n) (&(n)->ctx->dev)
#define X(i) (n->in[i]->f32)
#define Y(k) (n->out[k]->f32)
#define DY(k) nsm_node_dy(n, k)
#define DX(i) nsm_node_dx(n, i)

/* Tiny allowances for op shape functions: leave NSM_ESHAPE with "op: what" and the shapes. */
void nsmi_bad_shape(nsm_node *n, const char *what);
bool nsmi_needs(nsm_node *n, int i); /* input i is given and wants a gradient */

/* nsm_node_out with dims in the call. */
#define OUT(n, k, ...) \
    nsm_node_out(n, k, NSM_F32, (int)(sizeof((int64_t[]){ __VA_ARGS__ }) / sizeof(int64_t)), \
                 (const int64_t[]){ __VA_ARGS__ })
#define SAVE(n, k, ...) \
    nsm_node_save(n, k, NSM_F32, (int)(sizeof((int64_t[]){ __VA_ARGS__ }) / sizeof(int64_t)), \
                  (const int64_t[]){ __VA_ARGS__ })

/* Every op of the library, NULL last: the gradient test walks it (base/ops/list.c). */
extern const nsm_op *const nsmi_ops[];

#endif
