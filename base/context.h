/* base/context.h - The context: backend, random generator, sticky error.
 *
 * One context per thread, freed last.  The first error stays in the context, as a code and one
 * sentence with the numbers, until nsm_error_clear(); until then every call but _free returns at
 * once.  So a chain of calls reads like its formula and whoever drives the step checks once.
 * The library never prints, exits or aborts. */
#ifndef NSM_CONTEXT_H
#define NSM_CONTEXT_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define NSM_PRINTF(a, b) __attribute__((format(printf, a, b)))
#else
#define NSM_PRINTF(a, b)
#endif

/* Every code: name, number, what it means. */
#define NSM_ERRORS(X)                                              \
    X(NSM_OK, 0, "no error")                                       \
    X(NSM_EINVAL, -1, "an argument or option is not allowed")      \
    X(NSM_ESHAPE, -2, "shapes or types do not agree")              \
    X(NSM_ENOMEM, -3, "out of memory")                             \
    X(NSM_EIO, -4, "a file could not be read or written")          \
    X(NSM_EFORMAT, -5, "a file is damaged or not what it should be") \
    X(NSM_EDEVICE, -6, "the device is missing or failed")          \
    X(NSM_ENUMBER, -7, "a number is not finite where it must be")  \
    X(NSM_ESTOP, -8, "stopped on request")

typedef enum {
#define NSM_ERROR_ENUM(name, value, text) name = value,
    NSM_ERRORS(NSM_ERROR_ENUM)
#undef NSM_ERROR_ENUM
    NSM_ERROR_LIMIT = -99
} nsm_status;

typedef struct nsm_ctx nsm_ctx;

/* Start from zero, set what you need: a field left 0 takes the value in ( ). */
typedef struct {
    const char *backend; /* "cpu", "cuda" (the environment's NSM_BACKEND, else "cpu") */
    /* of the CPU backend (the environment's NSM_THREADS, else the cores this process may use) */
    int threads;
    uint64_t seed;       /* of the random generator (0) */
} nsm_ctx_config;

/* Make a context; config may be NULL.  Returns NULL only when memory is out.  With a backend
 * that does not exist or has no device the context carries NSM_EDEVICE, which cannot be cleared:
 * look at nsm_error(). */
nsm_ctx *nsm_ctx_new(const nsm_ctx_config *config);

/* Free the context; everything made with it must have been freed before.  NULL is allowed. */
void nsm_ctx_free(nsm_ctx *ctx);

const char *nsm_ctx_backend(const nsm_ctx *ctx); /* "cpu" or "cuda" */
const char *nsm_ctx_isa(const nsm_ctx *ctx);     /* "avx512", "avx2", "generic", "sm_90", ... */
int nsm_ctx_threads(const nsm_ctx *ctx);

/* How matrix products read their operands.  Sums, results and all that is not a matrix product stay
 * float32, and so do weights, gradients and optimizer states: what is rounded is a copy. */
#define NSM_PRECISIONS(X) \
    X(NSM_PRECISION_FLOAT32, "float32") \
    X(NSM_PRECISION_TF32, "tf32") /* the GPU's: 10 bits of fraction */ \
    X(NSM_PRECISION_BF16, "bf16") /* rounded to the nearest of 7 */

typedef enum {
#define NSM_PRECISION_ENUM(kind, name) kind,
    NSM_PRECISIONS(NSM_PRECISION_ENUM)
#undef NSM_PRECISION_ENUM
        NSM_PRECISION_KINDS
} nsm_precision;

/* From now on; a context starts with NSM_PRECISION_FLOAT32.  Returns NSM_OK or the error.
 * Errors: NSM_EINVAL the backend has float32 alone, as the CPU has. */
int nsm_ctx_set_precision(nsm_ctx *ctx, nsm_precision precision);
nsm_precision nsm_ctx_precision(const nsm_ctx *ctx);
const char *nsm_precision_name(nsm_precision precision); /* "bf16" */
int nsm_precision_find(const char *name); /* the precision of a name, -1 if there is none */

/* Bytes of device memory in use now, the most that ever were, and those kept for reuse. */
typedef struct { int64_t used_bytes, peak_bytes, cached_bytes; } nsm_memory;
nsm_memory nsm_ctx_memory(const nsm_ctx *ctx);
void nsm_ctx_trim(nsm_ctx *ctx); /* give what is kept for reuse back to the system */

/* ---- errors ---- */
/* the sticky code, NSM_OK if none; NULL: NSM_ENOMEM */
int nsm_error(const nsm_ctx *ctx);
const char *nsm_error_message(const nsm_ctx *ctx); /* its sentence, "" if none */
const char *nsm_error_name(int code);              /* "NSM_ESHAPE" */
const char *nsm_error_text(int code);              /* "shapes or types do not agree" */
void nsm_error_clear(nsm_ctx *ctx);

/* Leave an error unless there is one already; returns the code that now stands. */
int nsm_error_set(nsm_ctx *ctx, int code, const char *format, ...) NSM_PRINTF(3, 4);

/* ---- random numbers: Philox4x32-10 (Salmon et al., SC 2011) ----
 * The generator is (seed, offset): the number at a place depends on nothing else, so it is the
 * same for any thread count and on every device, and the state of a run is two integers. */
typedef struct { uint64_t seed, offset; } nsm_random;
nsm_random nsm_random_get(const nsm_ctx *ctx);
void nsm_random_set(nsm_ctx *ctx, nsm_random state);

/* Reserve n draws: returns the state to draw them from and moves the context's past them. */
nsm_random nsm_random_take(nsm_ctx *ctx, int64_t n);
uint32_t nsm_random_u32(nsm_random from, uint64_t i);           /* draw i of a reserved block */
float nsm_random_uniform(nsm_random from, uint64_t i);          /* in [0, 1) */
/* in [0, n), takes one draw; n > 0 */
uint64_t nsm_random_below(nsm_ctx *ctx, uint64_t n);

#ifdef __cplusplus
}
#endif
#endif
