/* base/tape.c - Applying ops, recording them, walking back.
 *
 * Nodes and the tensors that ops return are carved from arena blocks that nsm_tape_reset() rewinds,
 * values come from the context's cache: a steady step allocates nothing.
 *
 * A value lives until the last of: the caller dropped it or backward has passed its maker, and no
 * recorded backward reads it any more (nsm_op.reads says what it reads; `held` counts them).
 * Reshaped views have no node: they share the values and the gradient of their base. */
#include "config.h"
#include "base/internal.h"

enum { ARENA_BYTES = 1 << 16 };
enum { KEEP = 1, DROPPED = 2 }; /* nsm_tensor.flags */

typedef struct arena { struct arena *next; size_t used, room; char bytes[]; } arena;

struct nsm_tape {
    nsm_ctx *ctx;
    arena *first, *now;
    nsm_node **node;         /* recorded, in order */
    int64_t nodes, room;
    nsm_tensor **made;       /* every tensor the tape made: results and what is saved */
    int64_t tensors, tensor_room;
    void **scratch;          /* of the op pass under way */
    int scratches, scratch_room;
    bool inference;
};

static void *carve(nsm_tape *t, size_t bytes)
{
    bytes = (bytes + 15) & ~(size_t)15;
    for (;;) {
        if (t->now && t->now->used + bytes <= t->now->room) {
            void *p = t->now->bytes + t->now->used;
            t->now->used += bytes;
            memset(p, 0, bytes);
            return p;
        }
        if (t->now && t->now->next) {
            t->now = t->now->next;
            t->now->used = 0;
            continue;
        }
        size_t room = bytes > ARENA_BYTES ? bytes : ARENA_BYTES;
        arena *a = nsmi_malloc(t->ctx, sizeof *a + room);
        if (!a) return NULL;
        a->room = room;
        a->next = NULL;
        a->used = 0;
        if (t->now) t->now->next = a;
        else t->first = a;
        t->now = a;
    }
}

void *nsmi_tape_room(nsm_tape *t, size_t bytes)
{
    return nsmi_failed(t->ctx) ? NULL : carve(t, bytes);
}

static bool push(nsm_ctx *ctx, void ***list, int64_t *count, int64_t *room, void *item)
{
    if (*count == *room) {
        int64_t more = *room ? *room * 2 : 64;
        void **bigger = nsmi_realloc(ctx, *list, (size_t)more, sizeof **list);
        if (!bigger) return false;
        *list = bigger;
        *room = more;
    }
    (*list)[(*count)++] = item;
    return true;
}

nsm_tape *nsm_tape_new(nsm_ctx *ctx)
{
    if (nsmi_failed(ctx)) return NULL;
    nsm_tape *t = nsmi_calloc(ctx, 1, sizeof *t);
    if (t) t->ctx = ctx;
    return t;
}

void nsm_tape_free(nsm_tape *t)
{
    if (!t) return;
    nsm_tape_reset(t);
    for (arena *a = t->first, *next; a; a = next) {
        next = a->next;
        free(a);
    }
    free(t->node);
    free(t->made);
    free(t->scratch);
    free(t);
}

void nsm_tape_inference(nsm_tape *t, bool on) { if (t) t->inference = on; }
bool nsm_tape_training(const nsm_tape *t) { return t && !t->inference; }
nsm_ctx *nsm_tape_ctx(const nsm_tape *t) { return t ? t->ctx : NULL; }

static void give_back(nsm_tensor *x)
{
    if (!x->base) nsmi_device_free(x->ctx, x->data);
    x->data = NULL;
}

static void give_back_grad(nsm_tensor *x)
{
    if (!x->base) nsmi_device_free(x->ctx, x->grad);
    x->grad = NULL;
}

void nsm_tape_reset(nsm_tape *t)
{
    if (!t) return;
    for (int64_t k = 0; k < t->tensors; k++) {
        give_back(t->made[k]);
        give_back_grad(t->made[k]);
    }
    t->tensors = t->nodes = 0;
    t->now = t->first;
    if (t->now) t->now->used = 0;
}

/* ---- making tensors ---- */
static nsm_tensor *make(nsm_tape *t, nsm_type type, int rank, const int64_t *dim)
{
    nsm_tensor *x = carve(t, sizeof *x);
    if (!x) return NULL;
    x->ctx = t->ctx;
    x->owner = t;
    x->type = type;
    x->rank = rank;
    for (int i = 0; i < NSM_MAX_RANK; i++) x->dim[i] = i < rank ? dim[i] : 1;
    return push(t->ctx, (void ***)&t->made, &t->tensors, &t->tensor_room, x) ? x : NULL;
}

static bool count_bytes(nsm_ctx *ctx, const char *who, nsm_type type, int rank, const int64_t *dim,
                        size_t *bytes)
{
    int64_t count = 1;
    bool ok = rank >= 0 && rank <= NSM_MAX_RANK;
    for (int i = 0; ok && i < rank; i++) ok = nsmi_mul(count, dim[i], &count);
    if (!ok || count > INT64_MAX / 16) {
        nsm_error_set(ctx, NSM_ENOMEM, "%s: the size of a result overflows", who);
        return false;
    }
    *bytes = (size_t)count * nsm_type_bytes(type);
    return true;
}

static nsm_tensor *bare(nsm_tape *t, const char *who, nsm_type type, int rank, const int64_t *dim,
                        size_t *bytes)
{
    if (!t || nsmi_failed(t->ctx) || !count_bytes(t->ctx, who, type, rank, dim, bytes)) return NULL;
    nsm_tensor *x = make(t, type, rank, dim);
    if (x) x->data = nsmi_device_alloc(t->ctx, *bytes);
    return x && x->data ? x : NULL;
}

nsm_tensor *nsm_tape_tensor(nsm_tape *t, nsm_type type, int rank, const int64_t *dim,
                            const void *host)
{
    size_t bytes;
    nsm_tensor *x = bare(t, "nsm_tape_tensor", type, rank, dim, &bytes);
    if (x && host) t->ctx->dev.be->to_device(&t->ctx->dev, bytes, host, x->data);
    return x;
}

void nsmi_constant(nsm_ctx *ctx, size_t bytes, const void *host, void *to)
{
    const nsm_backend *be = ctx->dev.be;
    (be->constant ? be->constant : be->to_device)(&ctx->dev, bytes, host, to);
}

nsm_tensor *nsm_tape_constant(nsm_tape *t, nsm_type type, int rank, const int64_t *dim,
                              const void *host)
{
    size_t bytes;
    nsm_tensor *x = bare(t, "nsm_tape_constant", type, rank, dim, &bytes);
    if (x && host) nsmi_constant(t->ctx, bytes, host, x->data);
    return x;
}

nsm_tensor *nsm_node_out(nsm_node *n, int k, nsm_type type, int rank, const int64_t *dim)
{
    size_t bytes;
    if (nsmi_failed(n->ctx) || !count_bytes(n->ctx, n->op->name, type, rank, dim, &bytes))
        return NULL;
    nsm_tensor *y = make(n->tape, type, rank, dim);
    if (y) y->data = nsmi_device_alloc(n->ctx, bytes);
    return n->out[k] = y;
}

nsm_tensor *nsm_node_save(nsm_node *n, int k, nsm_type type, int rank, const int64_t *dim)
{
    size_t bytes;
    if (nsmi_failed(n->ctx) || !count_bytes(n->ctx, n->op->name, type, rank, dim, &bytes))
        return NULL;
    nsm_tensor *y = make(n->tape, type, rank, dim);
    if (y) y->data = nsmi_device_alloc(n->ctx, bytes);
    return n->saved[k] = y;
}

void *nsm_node_scratch(nsm_node *n, size_t bytes)
{
    nsm_tape *t = n->tape;
    if (t->scratches == t->scratch_room) {
        int more = t->scratch_room ? t->scratch_room * 2 : 8;
        void **bigger = nsmi_realloc(n->ctx, t->scratch, (size_t)more, sizeof *bigger);
        if (!bigger) return NULL;
        t->scratch = bigger;
        t->scratch_room = more;
    }
    void *p = nsmi_device_alloc(n->ctx, bytes);
    if (p) t->scratch[t->scratches++] = p;
    return p;
}

static void free_scratch(nsm_tape *t)
{
    while (t->scratches) nsmi_device_free(t->ctx, t->scratch[--t->scratches]);
}

nsm_random nsm_node_random(nsm_node *n, int64_t draws)
{
    return n->random = nsm_random_take(n->ctx, draws);
}

nsm_tensor *nsm_reshape(nsm_tape *t, nsm_tensor *x, int rank, const int64_t *dim)
{
    if (!t || !x || nsmi_failed(t->ctx)) return NULL;
    int64_t want = nsm_numel(x), have = 1, to[NSM_MAX_RANK];
    int hole = -1;
    bool ok = rank >= 0 && rank <= NSM_MAX_RANK && !x->csr && x->data;
    for (int i = 0; ok && i < rank; i++) {
        to[i] = dim[i];
        if (dim[i] == -1 && hole < 0) hole = i;
        else ok = nsmi_mul(have, dim[i], &have);
    }
    if (ok && hole >= 0) {
        ok = have > 0 && want % have == 0;
        if (ok) { to[hole] = want / have; have = want; }
    }
    if (!ok || have != want) {
        char a[96];
        nsm_error_set(t->ctx, NSM_ESHAPE,
                      "nsm_reshape: %s does not hold the %lld values of the new shape of rank %d",
                      nsm_shape_text(x, a), (long long)have, rank);
        return NULL;
    }
    nsm_tensor *y = make(t, x->type, rank, to);
    if (!y) return NULL;
    y->base = nsmi_root(x);
    y->data = x->data;
    y->needs_grad = x->needs_grad;
    return y;
}

/* ---- applying ---- */
static bool reads(const nsm_op *op, unsigned what) { return op->reads == 0 || (op->reads & what); }

static void hold(nsm_node *n, int step)
{
    for (int i = 0; i < NSM_OP_INPUTS; i++)
        if (n->in[i] && reads(n->op, NSM_READS_IN(i))) nsmi_root(n->in[i])->held += step;
    for (int k = 0; k < NSM_OP_OUTPUTS; k++)
        if (n->out[k] && reads(n->op, NSM_READS_OUT(k))) n->out[k]->held += step;
}

static bool check_inputs(nsm_node *n)
{
    for (int i = 0; i < NSM_OP_INPUTS; i++) {
        nsm_tensor *x = n->in[i];
        if (!x) {
            if (i < n->op->required) return false;
            continue;
        }
        if (x->ctx != n->ctx)
            nsm_error_set(n->ctx, NSM_EINVAL, "%s: input %d belongs to another context",
                          n->op->name, i);
        else if (!x->data)
            nsm_error_set(n->ctx, NSM_EINVAL,
                          "%s: the value of input %d was given back; use nsm_tape_keep",
                          n->op->name, i);
        else if (x->csr && !(n->op->sparse && i == 0))
            nsm_error_set(n->ctx, NSM_ESHAPE,
                          "%s: input %d is a sparse matrix, which this op does not take",
                          n->op->name, i);
        else
            continue;
        return false;
    }
    return true;
}

static nsm_node *apply(nsm_tape *t, const nsm_op *op, const nsm_args *args)
{
    if (!t || nsmi_failed(t->ctx)) return NULL;
    nsm_node *n = carve(t, sizeof *n);
    if (!n) return NULL;
    n->op = op;
    n->ctx = t->ctx;
    n->tape = t;
    memcpy(n->in, args->in, sizeof n->in);
    memcpy(n->i, args->i, sizeof n->i);
    memcpy(n->f, args->f, sizeof n->f);
    memcpy(n->p, args->p, sizeof n->p);
    if (!check_inputs(n)) return NULL;
    for (int i = 0; i < NSM_OP_INPUTS; i++)
        n->recorded |= !t->inference && op->backward && n->in[i] && n->in[i]->needs_grad;
    op->shape(n);
    if (!nsmi_failed(t->ctx)) op->forward(n);
    nsmi_device_trouble(t->ctx, op->name);
    free_scratch(t);
    if (nsmi_failed(t->ctx)) return NULL;
    if (!n->recorded) {
        for (int k = 0; k < NSM_OP_SAVED; k++)
            if (n->saved[k]) give_back(n->saved[k]);
        return n;
    }
    for (int k = 0; k < NSM_OP_OUTPUTS; k++)
        if (n->out[k]) n->out[k]->needs_grad = n->out[k]->type == NSM_F32;
    hold(n, 1);
    return push(t->ctx, (void ***)&t->node, &t->nodes, &t->room, n) ? n : NULL;
}

nsm_tensor *nsm_apply(nsm_tape *t, const nsm_op *op, const nsm_args *args)
{
    nsm_node *n = apply(t, op, args);
    return n ? n->out[0] : NULL;
}

int nsm_apply_many(nsm_tape *t, const nsm_op *op, const nsm_args *args, nsm_tensor **out, int count)
{
    nsm_node *n = apply(t, op, args);
    for (int k = 0; k < count; k++) out[k] = n ? n->out[k] : NULL;
    return t ? nsm_error(t->ctx) : NSM_EINVAL;
}

/* ---- walking back ---- */
static bool ours(const nsm_tape *t, const nsm_tensor *x) { return x && x->owner == t; }

/* Free a result's value when nobody is going to look at it any more. */
static void release_if_done(nsm_tensor *x)
{
    if (x->held == 0 && (x->flags & DROPPED) && !(x->flags & KEEP)) give_back(x);
}

void nsm_tape_keep(nsm_tape *t, nsm_tensor *x)
{
    if (t && x && x->owner == t) nsmi_root(x)->flags |= KEEP;
}

void nsm_tape_drop(nsm_tape *t, nsm_tensor *x)
{
    if (!t || !ours(t, x) || x->base) return;
    x->flags |= DROPPED;
    release_if_done(x);
}

float *nsm_node_dy(nsm_node *n, int k) { return n->out[k] ? n->out[k]->grad : NULL; }

bool nsmi_needs(nsm_node *n, int i) { return n->in[i] && n->in[i]->needs_grad; }

float *nsm_node_dx_beta(nsm_node *n, int i, float *beta)
{
    bool fresh;
    *beta = 0;
    if (!nsmi_needs(n, i)) return NULL;
    float *dx = nsmi_grad(n->in[i], &fresh);
    *beta = fresh ? 0.0f : 1.0f;
    return dx;
}

float *nsm_node_dx(nsm_node *n, int i)
{
    float beta, *dx = nsm_node_dx_beta(n, i, &beta);
    if (dx && beta == 0)
        n->ctx->dev.be->zero(&n->ctx->dev, (size_t)nsm_numel(n->in[i]) * sizeof(float), dx);
    return dx;
}

int nsm_tape_seed(nsm_tape *t, nsm_tensor *y, const float *host)
{
    bool fresh;
    if (!t || nsmi_failed(t->ctx) || !y) return t ? nsm_error(t->ctx) : NSM_EINVAL;
    if (!y->needs_grad) return NSM_OK;
    float *g = nsmi_grad(y, &fresh);
    if (!g) return nsm_error(t->ctx);
    size_t bytes = (size_t)nsm_numel(y) * sizeof(float);
    if (fresh) {
        t->ctx->dev.be->to_device(&t->ctx->dev, bytes, host, g);
        return NSM_OK;
    }
    float *more = nsmi_device_alloc(t->ctx, bytes);
    if (!more) return nsm_error(t->ctx);
    t->ctx->dev.be->to_device(&t->ctx->dev, bytes, host, more);
    t->ctx->dev.be->axpy(&t->ctx->dev, nsm_numel(y), 1.0f, more, g);
    nsmi_device_free(t->ctx, more);
    return NSM_OK;
}

static bool has_gradient(const nsm_node *n)
{
    for (int k = 0; k < NSM_OP_OUTPUTS; k++)
        if (n->out[k] && n->out[k]->grad) return true;
    return false;
}

/* Backward of one node, then give back what only it needed. */
static void step_back(nsm_tape *t, nsm_node *n, const nsm_tensor *loss)
{
    if (has_gradient(n) && !nsmi_failed(t->ctx)) n->op->backward(n);
    nsmi_device_trouble(t->ctx, n->op->name);
    free_scratch(t);
    hold(n, -1);
    for (int i = 0; i < NSM_OP_INPUTS; i++)
        if (n->in[i] && ours(t, nsmi_root(n->in[i]))) release_if_done(nsmi_root(n->in[i]));
    for (int k = 0; k < NSM_OP_SAVED; k++)
        if (n->saved[k]) give_back(n->saved[k]);
    for (int k = 0; k < NSM_OP_OUTPUTS; k++) {
        nsm_tensor *y = n->out[k];
        if (!y || (y->flags & KEEP)) continue;
        if (y != loss) give_back(y);
        give_back_grad(y);
    }
}

/* d loss / d loss, which needs no copy from the host. */
static void seed_one(nsm_tape *t, nsm_tensor *loss)
{
    bool fresh;
    if (nsmi_failed(t->ctx) || !loss->needs_grad) return;
    float *g = nsmi_grad(loss, &fresh);
    nsm_device *d = &t->ctx->dev;
    if (g && fresh) d->be->fill(d, 1, 1.0f, g);
    else if (g) d->be->unary(d, NSMI_SCALE, 1, 1, 1, g, g);
}

int nsm_tape_backward(nsm_tape *t, nsm_tensor *loss)
{
    if (!t) return NSM_EINVAL;
    if (!nsmi_failed(t->ctx) && loss && (nsm_numel(loss) != 1 || loss->type != NSM_F32)) {
        char a[96];
        nsm_error_set(t->ctx, NSM_ESHAPE, "nsm_tape_backward: the loss is %s, want one number",
                      nsm_shape_text(loss, a));
    }
    if (!nsmi_failed(t->ctx) && t->inference)
        nsm_error_set(t->ctx, NSM_EINVAL, "nsm_tape_backward: the tape is in inference mode");
    if (loss) seed_one(t, loss);
    const nsm_tensor *root = loss ? nsmi_root(loss) : NULL;
    while (t->nodes > 0) step_back(t, t->node[--t->nodes], root);
    return nsm_error(t->ctx);
}

void nsmi_bad_shape(nsm_node *n, const char *what)
{
    char text[400] = "", shape[96];
    size_t at = 0;
    for (int i = 0; i < NSM_OP_INPUTS && at < sizeof text - 100; i++)
        if (n->in[i])
            at += (size_t)snprintf(text + at, sizeof text - at, "%s%s %s", at ? ", " : "",
                                   nsm_type_name(n->in[i]->type), nsm_shape_text(n->in[i], shape));
    nsm_error_set(n->ctx, NSM_ESHAPE, "%s: %s; inputs are %s", n->op->name, what, text);
}
