/* base/replay.c - See replay.h.
 *
 * A recording is good as long as everything stands where it stood: values of the pass and gradients
 * come from a pool of its own, memory that kernels share must not have moved, and the module's
 * tensors must have kept their places; else it is made anew.  Gradients are taken out of the pool
 * again before a replay, since whoever updates weights gives them back. */
#include "config.h"
#include "base/internal.h"
#include "base/replay.h"

enum { SHAPES = 8, WATCHED = 4 }; /* recordings kept; runs that may still ask for memory */

typedef struct {
    int64_t shape;
    int64_t runs;      /* that were watched */
    bool steady;       /* the last of them took nothing new, */
    int64_t constants; /* and copied so many bytes that are always the same */
    void *recorded;    /* the backend's; NULL: not yet */
    nsm_precision precision;
    nsm_random from;   /* where it drew from, */
    uint64_t drawn;    /* and how far */
    int64_t moves;
    void **data;       /* [tensors] where the module's tensors stood, */
    float **grad;      /* and what gradients the pass left */
} recording;

struct nsm_replay {
    nsm_ctx *ctx;
    nsmi_blocks *pool;
    nsm_tensor **tensor; /* the module's */
    int64_t tensors;
    recording of[SHAPES];
    int shapes, next;    /* next: the one to give up when another shape comes */
    int64_t count;
    const char *why;
};

static int add_tensor(void *user, const char *name, nsm_tensor *t, bool buffer)
{
    nsm_replay *r = user;
    (void)name;
    (void)buffer;
    if (r->tensor) r->tensor[r->tensors] = t;
    r->tensors++;
    return NSM_OK;
}

static void collect(nsm_replay *r, nsm_module *module)
{
    nsm_module_walk(module, add_tensor, r);
    size_t n = (size_t)r->tensors;
    r->tensors = 0;
    r->tensor = nsmi_calloc(r->ctx, n, sizeof *r->tensor);
    for (int i = 0; i < SHAPES; i++) {
        r->of[i].data = nsmi_calloc(r->ctx, n, sizeof *r->of[i].data);
        r->of[i].grad = nsmi_calloc(r->ctx, n, sizeof *r->of[i].grad);
    }
    if (r->tensor) nsm_module_walk(module, add_tensor, r);
}

nsm_replay *nsm_replay_new(nsm_module *module)
{
    if (!module || nsmi_failed(module->ctx)) return NULL;
    nsm_replay *r = nsmi_calloc(module->ctx, 1, sizeof *r);
    if (!r) return NULL;
    r->ctx = module->ctx;
    const char *wanted = getenv("NSM_REPLAY");
    r->why = !r->ctx->dev.be->record          ? "the backend would save nothing by it"
             : wanted && !strcmp(wanted, "0") ? "NSM_REPLAY is 0"
                                              : "";
    r->pool = nsmi_blocks_new(r->ctx);
    collect(r, module);
    if (!nsmi_failed(r->ctx)) return r;
    nsm_replay_free(r);
    return NULL;
}

static void forget(nsm_replay *r, recording *a)
{
    if (a->recorded) r->ctx->dev.be->forget(&r->ctx->dev, a->recorded);
    *a = (recording){ .data = a->data, .grad = a->grad, .shape = a->shape };
}

void nsm_replay_free(nsm_replay *r)
{
    if (!r) return;
    for (int i = 0; i < SHAPES; i++) {
        forget(r, &r->of[i]);
        free(r->of[i].data);
        free(r->of[i].grad);
    }
    nsmi_blocks_free(r->ctx, r->pool);
    free(r->tensor);
    free(r);
}

static recording *of_shape(nsm_replay *r, int64_t shape)
{
    for (int i = 0; i < r->shapes; i++)
        if (r->of[i].shape == shape) return &r->of[i];
    recording *a = &r->of[r->shapes < SHAPES ? r->shapes++ : r->next++ % SHAPES];
    forget(r, a);
    a->shape = shape;
    return a;
}

/* ---- calling the pass ---- */

/* The pass with memory of the pool. */
static int call(nsm_replay *r, int (*pass)(void *user), void *user)
{
    nsmi_blocks_use(r->ctx, r->pool);
    int code = pass(user);
    nsmi_blocks_use(r->ctx, NULL);
    return code ? code : nsm_error(r->ctx);
}

/* A first run may make what later ones find: judged is the second, and what follows. */
static int watch(nsm_replay *r, recording *a, int (*pass)(void *user), void *user)
{
    const nsm_device *d = &r->ctx->dev;
    int64_t fresh = nsmi_blocks_fresh(r->pool), waits = d->waits, uploads = d->uploads,
            moves = d->moves, constants = d->constants;
    int code = call(r, pass, user);
    a->steady = nsmi_blocks_fresh(r->pool) == fresh && d->moves == moves;
    a->constants = d->constants - constants;
    if (++a->runs < 2) a->steady = false;
    else if (d->waits != waits) r->why = "the pass waits for the device";
    else if (d->uploads != uploads) r->why = "the pass copies from the host";
    else if (!a->steady && a->runs >= WATCHED) r->why = "the pass goes on asking for memory";
    return code;
}

/* ---- recording, and replaying ---- */

static int replay(nsm_replay *r, recording *a, uint64_t further)
{
    nsm_device *d = &r->ctx->dev;
    d->be->replay(d, a->recorded, further);
    nsmi_device_trouble(r->ctx, "nsm_replay_run");
    return nsm_error(r->ctx);
}

static int record(nsm_replay *r, recording *a, int (*pass)(void *user), void *user)
{
    nsm_device *d = &r->ctx->dev;
    a->from = r->ctx->random;
    a->precision = d->precision;
    a->moves = d->moves;
    for (int64_t i = 0; i < r->tensors; i++) a->data[i] = r->tensor[i]->data;
    if (d->be->record(d, a->constants)) {
        call(r, pass, user);
        a->recorded = d->be->recorded(d);
    }
    nsmi_device_trouble(r->ctx, "nsm_replay_run");
    if (nsmi_failed(r->ctx)) {
        forget(r, a);
        return nsm_error(r->ctx);
    }
    a->drawn = r->ctx->random.offset - a->from.offset;
    for (int64_t i = 0; i < r->tensors; i++) a->grad[i] = r->tensor[i]->grad;
    return replay(r, a, 0);
}

/* Is everything where the recording has it? */
static bool holds(const nsm_replay *r, const recording *a)
{
    const nsm_device *d = &r->ctx->dev;
    bool same = a->moves == d->moves && a->precision == d->precision &&
                a->from.seed == r->ctx->random.seed;
    for (int64_t i = 0; same && i < r->tensors; i++) same = a->data[i] == r->tensor[i]->data;
    return same;
}

/* What the pass would leave behind, on the host, too. */
static int again(nsm_replay *r, recording *a)
{
    uint64_t further = r->ctx->random.offset - a->from.offset;
    for (int64_t i = 0; i < r->tensors; i++) {
        nsm_tensor *t = r->tensor[i];
        size_t bytes = (size_t)nsm_numel(t) * sizeof(float);
        if (a->grad[i] && nsmi_blocks_take(r->ctx, r->pool, a->grad[i], bytes))
            t->grad = a->grad[i];
    }
    r->ctx->random.offset += a->drawn;
    r->count++;
    return replay(r, a, further);
}

int nsm_replay_run(nsm_replay *r, int64_t shape, int (*pass)(void *user), void *user)
{
    if (!r) return NSM_EINVAL;
    if (nsmi_failed(r->ctx)) return nsm_error(r->ctx);
    bool plain = *r->why;
    /* Gradients that are added to stand anywhere. */
    for (int64_t i = 0; !plain && i < r->tensors; i++) plain = r->tensor[i]->grad;
    if (plain) return pass(user);
    recording *a = of_shape(r, shape);
    if (a->recorded && !holds(r, a)) forget(r, a);
    if (a->recorded) return again(r, a);
    return a->steady ? record(r, a, pass, user) : watch(r, a, pass, user);
}

int64_t nsm_replay_count(const nsm_replay *r) { return r ? r->count : 0; }
const char *nsm_replay_why(const nsm_replay *r) { return r ? r->why : "out of memory"; }
