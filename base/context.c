/* base/context.c - The context: opening a backend, the sticky error, host memory.
 *
 * Host memory goes through nsmi_malloc() and its kin, which count: a test can let the k-th
 * allocation of a context fail, and so walk every failure path of a layer. */
#include "config.h"
#include <ctype.h>
#include <sched.h>
#include <stdarg.h>
#include <sys/mman.h>
#include "base/internal.h"

static const nsm_backend *const backends[] = {
    &nsmi_cpu,
#if defined(HAVE_CUDA)
    &nsmi_cuda,
#endif
};
enum { BACKENDS = sizeof backends / sizeof *backends };
const nsm_backend *nsmi_test_backend;

/* The cores this process may use. */
static int usable_cores(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
    return 1;
}

static void unusable(nsm_ctx *ctx, int code, const char *why)
{
    nsm_error_set(ctx, code, "nsm_ctx_new: %s", why);
    ctx->unusable = true;
}

static void choose_threads(nsm_ctx *ctx, int wanted)
{
    const char *text = getenv("NSM_THREADS");
    if (wanted == 0 && text && *text) {
        char *end;
        long n = strtol(text, &end, 10);
        if (*end || n < 1 || n > 4096) {
            unusable(ctx, NSM_EINVAL, "NSM_THREADS is not a number from 1 to 4096");
            return;
        }
        wanted = (int)n;
    }
    ctx->dev.threads = wanted ? wanted : usable_cores();
}

static void open_backend(nsm_ctx *ctx, const char *name)
{
    char why[256] = "", text[384];
    if (!name) name = getenv("NSM_BACKEND");
    if (!name || !*name) name = "cpu";
    for (int i = 0; i <= BACKENDS; i++) {
        const nsm_backend *be = i < BACKENDS ? backends[i] : nsmi_test_backend;
        if (!be || strcmp(be->name, name)) continue;
        ctx->dev.be = be;
        if (be->open(&ctx->dev, why, sizeof why) == 0) return;
        snprintf(text, sizeof text, "backend %s: %s", name, why);
        unusable(ctx, NSM_EDEVICE, text);
        ctx->dev.be = NULL;
        return;
    }
    if (!strcmp(name, "cuda"))
        snprintf(text, sizeof text,
                 "backend cuda: not in this build, which was configured without CUDA");
    else
        snprintf(text, sizeof text, "there is no backend \"%.64s\" in this build", name);
    unusable(ctx, NSM_EDEVICE, text);
}

nsm_ctx *nsm_ctx_new(const nsm_ctx_config *config)
{
    nsm_ctx *ctx = calloc(1, sizeof *ctx);
    if (!ctx) return NULL;
    if (config) ctx->random.seed = config->seed;
    if (config && (config->threads < 0 || config->threads > 4096))
        unusable(ctx, NSM_EINVAL, "threads is not from 0 to 4096");
    else
        choose_threads(ctx, config ? config->threads : 0);
    open_backend(ctx, config ? config->backend : NULL);
    if (ctx->dev.be && !(ctx->cache = nsmi_cache_new(&ctx->dev))) {
        nsm_ctx_free(ctx);
        return NULL;
    }
    return ctx;
}

void nsm_ctx_free(nsm_ctx *ctx)
{
    if (!ctx) return;
    nsmi_cache_free(ctx->cache);
    if (ctx->dev.be) ctx->dev.be->close(&ctx->dev);
    free(ctx);
}

const char *nsm_ctx_backend(const nsm_ctx *ctx)
{
    return ctx && ctx->dev.be ? ctx->dev.be->name : "none";
}
const char *nsm_ctx_isa(const nsm_ctx *ctx)
{
    return ctx && ctx->dev.isa_name ? ctx->dev.isa_name : "none";
}
int nsm_ctx_threads(const nsm_ctx *ctx) { return ctx ? ctx->dev.threads : 0; }

/* ---- precision ---- */
static const char *const precisions[] = {
#define PRECISION_NAME(kind, name) name,
    NSM_PRECISIONS(PRECISION_NAME)
};

const char *nsm_precision_name(nsm_precision p)
{
    return (unsigned)p < NSM_PRECISION_KINDS ? precisions[p] : "unknown";
}

int nsm_precision_find(const char *name)
{
    for (int i = 0; name && i < NSM_PRECISION_KINDS; i++)
        if (!strcmp(precisions[i], name)) return i;
    return -1;
}

nsm_precision nsm_ctx_precision(const nsm_ctx *ctx)
{
    return ctx ? ctx->dev.precision : NSM_PRECISION_FLOAT32;
}

int nsm_ctx_set_precision(nsm_ctx *ctx, nsm_precision p)
{
    if (nsmi_failed(ctx)) return nsm_error(ctx);
    if ((unsigned)p >= NSM_PRECISION_KINDS)
        return nsm_error_set(ctx, NSM_EINVAL, "nsm_ctx_set_precision: there is no precision %d",
                             (int)p);
    if (p != NSM_PRECISION_FLOAT32 && !ctx->dev.be->precisions)
        return nsm_error_set(
            ctx, NSM_EINVAL,
            "nsm_ctx_set_precision: the backend %s computes in float32 alone, not in %s",
            ctx->dev.be->name, nsm_precision_name(p));
    ctx->dev.precision = p;
    return NSM_OK;
}

/* ---- errors ---- */
int nsm_error(const nsm_ctx *ctx) { return ctx ? ctx->error : NSM_ENOMEM; }
const char *nsm_error_message(const nsm_ctx *ctx) { return ctx ? ctx->message : "out of memory"; }

static const struct { int code; const char *name, *text; } errors[] = {
#define ERROR_ROW(name, value, text) { value, #name, text },
    NSM_ERRORS(ERROR_ROW)
};

const char *nsm_error_name(int code)
{
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].code == code) return errors[i].name;
    return "NSM_E?";
}

const char *nsm_error_text(int code)
{
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].code == code) return errors[i].text;
    return "unknown error";
}

void nsm_error_clear(nsm_ctx *ctx)
{
    if (!ctx || ctx->unusable) return;
    ctx->error = NSM_OK;
    ctx->message[0] = '\0';
}

int nsm_error_set(nsm_ctx *ctx, int code, const char *format, ...)
{
    if (!ctx) return NSM_ENOMEM;
    if (ctx->error) return ctx->error;
    ctx->error = code;
    va_list args;
    va_start(args, format);
    vsnprintf(ctx->message, sizeof ctx->message, format, args);
    va_end(args);
    return code;
}

void nsmi_device_trouble(nsm_ctx *ctx, const char *who)
{
    if (!ctx->dev.trouble) return;
    nsm_error_set(ctx, ctx->dev.error, "%s: %s", who, ctx->dev.trouble);
    ctx->dev.trouble = NULL;
}

/* ---- host memory ---- */
bool nsmi_fails_now(nsm_ctx *ctx)
{
    ctx->allocations++;
    bool now = ctx->fail_at && (ctx->allocations == ctx->fail_at ||
                                (ctx->fail_on && ctx->allocations > ctx->fail_at));
    if (now) nsm_error_set(ctx, NSM_ENOMEM, "out of memory");
    return now;
}

bool nsmi_mul(int64_t a, int64_t b, int64_t *product)
{
    return a >= 0 && b >= 0 && !__builtin_mul_overflow(a, b, product);
}

/* Large arrays are read at random places (edges, rows of features): huge pages spare most of what
 * looking up small ones costs.  malloc maps blocks of this size on their own. */
static void *on_huge_pages(void *p, size_t bytes)
{
#if defined(MADV_HUGEPAGE)
    enum { BIG = 32 << 20, PAGE = 4096 };
    uintptr_t first = ((uintptr_t)p + PAGE - 1) & ~(uintptr_t)(PAGE - 1);
    if (p && bytes >= BIG)
        madvise((void *)first, bytes - PAGE, MADV_HUGEPAGE); /* advice: no harm if it is refused */
#endif
    return p;
}

void *nsmi_malloc(nsm_ctx *ctx, size_t bytes)
{
    if (nsmi_fails_now(ctx)) return NULL;
    void *p = on_huge_pages(malloc(bytes ? bytes : 1), bytes);
    if (!p) nsm_error_set(ctx, NSM_ENOMEM, "out of memory: %zu bytes were wanted", bytes);
    return p;
}

void *nsmi_calloc(nsm_ctx *ctx, size_t count, size_t bytes)
{
    if (nsmi_fails_now(ctx)) return NULL;
    void *p = calloc(count ? count : 1, bytes ? bytes : 1);
    if (!p)
        nsm_error_set(ctx, NSM_ENOMEM, "out of memory: %zu x %zu bytes were wanted", count, bytes);
    return on_huge_pages(p, p ? count * bytes : 0);
}

void *nsmi_realloc(nsm_ctx *ctx, void *p, size_t count, size_t bytes)
{
    size_t all;
    if (nsmi_fails_now(ctx)) return NULL;
    void *q = __builtin_mul_overflow(count, bytes, &all) ? NULL : realloc(p, all ? all : 1);
    if (!q)
        nsm_error_set(ctx, NSM_ENOMEM, "out of memory: %zu x %zu bytes were wanted", count, bytes);
    return q;
}

char *nsmi_strdup(nsm_ctx *ctx, const char *s)
{
    size_t bytes = strlen(s) + 1;
    char *p = nsmi_malloc(ctx, bytes);
    if (p) memcpy(p, s, bytes);
    return p;
}

char *nsmi_format(nsm_ctx *ctx, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *p = n < 0 ? NULL : nsmi_malloc(ctx, (size_t)n + 1);
    if (!p) return NULL;
    va_start(args, format);
    vsnprintf(p, (size_t)n + 1, format, args);
    va_end(args);
    return p;
}
