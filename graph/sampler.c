/* graph/sampler.c - The queue of batches: threads draw them, the caller takes them in order.
 *
 * A ring of drafts: batch b stands in slot b % ahead.  A thread takes the next batch whose slot is
 * empty; the caller waits for its slot to be ready and empties it when it asks for the next.  One
 * mutex and one condition guard it all: a batch is milliseconds of work.  The threads use no
 * context (it belongs to the caller's thread), so tensors and graphs are made in next().
 *
 * A device with memory of its own gets the features of the next batch, where it is ready, while the
 * caller works on this one: the draft's features are in pinned memory, and its slot is not emptied
 * before they are on the device. */
#include "config.h"
#include <pthread.h>
#include <signal.h>
#include "graph/internal.h"
#include "graph/sample.h"

typedef enum { EMPTY, BUSY, READY } slot_state;
typedef struct { nsmi_draft draft; slot_state state; int code; } slot;

struct nsm_sampler {
    nsm_ctx *ctx;
    nsm_sampler_config config;
    int *fan_out;
    int32_t *order;          /* [seeds] of this epoch */
    int64_t batches, next_drawn, next_given;
    uint64_t epoch_key;
    slot *ring;
    slot *held;              /* the slot of the batch that the caller has */
    nsm_batch batch;
    nsm_tensor view;         /* batch.x where the device is this machine's memory */
    nsm_tensor *coming;      /* the features of batch next_given, on their way; or NULL */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    pthread_t *thread;
    int threads;
    bool running, stop, locks;
    int taken;               /* threads of the context's team that make room for ours */
};

/* ---- the cores: while an epoch runs, the context's team is smaller by our threads ---- */
static void take_cores(nsm_sampler *s)
{
    int spare = s->ctx->dev.threads - 1;
    if (s->taken || s->config.light) return;
    s->taken = spare < s->config.workers ? spare : s->config.workers;
    s->ctx->dev.threads -= s->taken;
}

static void give_cores(nsm_sampler *s)
{
    s->ctx->dev.threads += s->taken;
    s->taken = 0;
}

/* ---- the threads ---- */
static bool may_draw(const nsm_sampler *s)
{
    return s->running && s->next_drawn < s->batches &&
           s->ring[s->next_drawn % s->config.ahead].state == EMPTY;
}

static void *work(void *user)
{
    nsm_sampler *s = user;
    nsmi_picker picker = { 0 };
    pthread_mutex_lock(&s->mutex);
    for (;;) {
        while (!s->stop && !may_draw(s)) pthread_cond_wait(&s->changed, &s->mutex);
        if (s->stop) break;
        int64_t b = s->next_drawn++, first = b * s->config.batch;
        int64_t seeds = s->config.seeds - first < s->config.batch ? s->config.seeds - first
                                                                  : s->config.batch;
        slot *mine = &s->ring[b % s->config.ahead];
        mine->state = BUSY;
        pthread_mutex_unlock(&s->mutex);
        int code = nsmi_sample(&s->config, &picker, s->epoch_key, b, seeds, s->order + first,
                               &mine->draft);
        pthread_mutex_lock(&s->mutex);
        mine->code = code;
        mine->state = READY;
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->mutex);
    nsmi_picker_clear(&picker);
    return NULL;
}

/* With every signal blocked: they are for the caller's thread. */
static bool start_threads(nsm_sampler *s)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (s->threads < s->config.workers &&
           pthread_create(&s->thread[s->threads], NULL, work, s) == 0)
        s->threads++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (s->threads == s->config.workers) return true;
    nsm_error_set(s->ctx, NSM_ENOMEM, "nsm_sampler_new: thread %d of %d could not be started",
                  s->threads + 1, s->config.workers);
    return false;
}

/* ---- making ---- */
static bool numbers_ok(nsm_ctx *ctx, const nsm_sampler_config *c)
{
    bool ok = c->nodes >= 0 && c->nodes <= INT32_MAX && c->layers > 0 && c->layers <= 64 &&
              c->seeds >= 0 && c->seeds <= INT32_MAX && c->batch > 0 && c->workers > 0 &&
              c->workers <= 1024 && c->ahead > 0 && c->ahead <= 4096 && c->features >= 0 &&
              (c->features == 0 || c->x || c->read) && c->types >= 0 &&
              (c->types == 0 || c->type) && c->ptr && c->idx && c->fan_out;
    if (!ok)
        nsm_error_set(ctx, NSM_EINVAL,
                      "nsm_sampler_new: nodes %lld, layers %d, seeds %lld, batch %d, workers %d, "
                      "ahead %d, features %lld: "
                      "one is out of range, or what it needs is NULL",
                      (long long)c->nodes, c->layers, (long long)c->seeds, c->batch, c->workers,
                      c->ahead, (long long)c->features);
    for (int k = 0; ok && k < c->layers; k++)
        if (c->fan_out[k] < -1) {
            nsm_error_set(ctx, NSM_EINVAL,
                          "nsm_sampler_new: the fan-out of hop %d is %d, want -1 or more", k,
                          c->fan_out[k]);
            return false;
        }
    return ok;
}

static bool graph_ok(nsm_ctx *ctx, const nsm_sampler_config *c)
{
    bool rises = c->ptr[0] == 0;
    for (int64_t i = 0; rises && i < c->nodes; i++) rises = c->ptr[i] <= c->ptr[i + 1];
    if (!rises) {
        nsm_error_set(ctx, NSM_EINVAL, "nsm_sampler_new: ptr does not rise from 0");
        return false;
    }
    for (int64_t e = 0; e < c->ptr[c->nodes]; e++)
        if (c->idx[e] < 0 || c->idx[e] >= c->nodes) {
            nsm_error_set(ctx, NSM_EINVAL,
                          "nsm_sampler_new: the source of entry %lld is %d, want 0..%lld",
                          (long long)e, c->idx[e], (long long)c->nodes - 1);
            return false;
        }
    for (int64_t e = 0; c->types && e < c->ptr[c->nodes]; e++)
        if (c->type[e] < 0 || c->type[e] >= c->types) {
            nsm_error_set(ctx, NSM_EINVAL,
                          "nsm_sampler_new: the type of entry %lld is %d, want 0..%d", (long long)e,
                          c->type[e], c->types - 1);
            return false;
        }
    for (int64_t i = 0; i < c->seeds; i++) {
        int64_t node = c->seed_node ? c->seed_node[i] : i;
        if (node >= 0 && node < c->nodes) continue;
        nsm_error_set(ctx, NSM_EINVAL, "nsm_sampler_new: seed %lld is node %lld, want 0..%lld",
                      (long long)i, (long long)node, (long long)c->nodes - 1);
        return false;
    }
    return true;
}

static bool make_parts(nsm_sampler *s)
{
    const nsm_sampler_config *c = &s->config;
    s->fan_out = nsmi_malloc(s->ctx, (size_t)c->layers * sizeof *s->fan_out);
    s->order = nsmi_malloc(s->ctx, (size_t)c->seeds * sizeof *s->order);
    s->ring = nsmi_calloc(s->ctx, (size_t)c->ahead, sizeof *s->ring);
    s->thread = nsmi_malloc(s->ctx, (size_t)c->workers * sizeof *s->thread);
    s->batch.block = nsmi_calloc(s->ctx, (size_t)c->layers, sizeof *s->batch.block);
    if (nsmi_failed(s->ctx)) return false;
    for (int i = 0; i < c->ahead && s->ctx->dev.be->send; i++)
        s->ring[i].draft.device = &s->ctx->dev;
    memcpy(s->fan_out, c->fan_out, (size_t)c->layers * sizeof *s->fan_out);
    s->config.fan_out = s->fan_out;
    s->locks = pthread_mutex_init(&s->mutex, NULL) == 0;
    if (s->locks && pthread_cond_init(&s->changed, NULL)) {
        pthread_mutex_destroy(&s->mutex);
        s->locks = false;
    }
    if (!s->locks) nsm_error_set(s->ctx, NSM_ENOMEM, "nsm_sampler_new: no mutex");
    return s->locks;
}

nsm_sampler *nsm_sampler_new(nsm_ctx *ctx, const nsm_sampler_config *config)
{
    if (nsmi_failed(ctx)) return NULL;
    nsm_sampler_config c = *config;
    if (c.batch == 0) c.batch = 1024;
    if (c.workers == 0) c.workers = 1;
    if (c.ahead == 0) c.ahead = 2 * c.workers;
    if (!numbers_ok(ctx, &c) || !graph_ok(ctx, &c)) return NULL;
    nsm_sampler *s = nsmi_calloc(ctx, 1, sizeof *s);
    if (!s) return NULL;
    s->ctx = ctx;
    s->config = c;
    s->batches = (c.seeds + c.batch - 1) / c.batch;
    if (make_parts(s) && start_threads(s)) return s;
    nsm_sampler_free(s);
    return NULL;
}

/* ---- features, to the device ---- */
/* Of two batches in turn: the one that the caller has, the one that comes. */
static int sending(int64_t number) { return (int)(number % NSMI_SENDS); }

static nsm_tensor *send_features(nsm_sampler *s, const nsmi_draft *d, int64_t number)
{
    nsm_tensor *x = nsm_tensor_new(s->ctx, NSM_F32, 2, (int64_t[]){ d->nodes, s->config.features });
    if (x)
        s->ctx->dev.be->send(&s->ctx->dev, sending(number), (size_t)nsm_numel(x) * sizeof(float),
                             d->x, x->data);
    return x;
}

/* The next batch's, if it is drawn: beside what the caller is going to ask of the device. */
static void send_next(nsm_sampler *s)
{
    int64_t number = s->next_given;
    if (!s->ctx->dev.be->send || !s->config.features || number >= s->batches) return;
    slot *next = &s->ring[number % s->config.ahead];
    pthread_mutex_lock(&s->mutex);
    bool ready = next != s->held && next->state == READY && !next->code;
    pthread_mutex_unlock(&s->mutex);
    if (ready) s->coming = send_features(s, &next->draft, number);
}

/* What was sent and is not wanted: its memory is free for others, and the draft for the threads. */
static void forget_coming(nsm_sampler *s)
{
    if (!s->coming) return;
    s->ctx->dev.be->arrive(&s->ctx->dev, sending(s->next_given));
    s->ctx->dev.be->sent(&s->ctx->dev, sending(s->next_given));
    nsm_tensor_free(s->coming);
    s->coming = NULL;
}

/* The caller is done with the batch it has. */
static void give_up_batch(nsm_sampler *s)
{
    bool sent = s->batch.x && s->batch.x != &s->view;
    if (sent) s->ctx->dev.be->sent(&s->ctx->dev, sending(s->batch.number));
    for (int k = 0; s->batch.block && k < s->config.layers; k++) {
        nsm_graph_free(s->batch.block[k]);
        s->batch.block[k] = NULL;
    }
    if (s->batch.x == &s->view) { /* the values are the draft's, the gradient is ours */
        nsm_tensor_zero_grad(&s->view);
    } else {
        nsm_tensor_free(s->batch.x);
    }
    s->batch.x = NULL;
}

void nsm_sampler_free(nsm_sampler *s)
{
    if (!s) return;
    if (s->locks) {
        pthread_mutex_lock(&s->mutex);
        s->stop = true;
        pthread_cond_broadcast(&s->changed);
        pthread_mutex_unlock(&s->mutex);
    }
    for (int i = 0; i < s->threads; i++) pthread_join(s->thread[i], NULL);
    give_up_batch(s);
    forget_coming(s);
    give_cores(s);
    for (int i = 0; s->ring && i < s->config.ahead; i++)
        nsmi_draft_clear(&s->ring[i].draft, s->config.layers);
    if (s->locks) {
        pthread_mutex_destroy(&s->mutex);
        pthread_cond_destroy(&s->changed);
    }
    free(s->fan_out);
    free(s->order);
    free(s->ring);
    free(s->thread);
    free(s->batch.block);
    free(s);
}

int64_t nsm_sampler_batches(const nsm_sampler *s) { return s ? s->batches : 0; }

/* ---- the caller's side ---- */
static bool any_busy(const nsm_sampler *s)
{
    for (int i = 0; i < s->config.ahead; i++)
        if (s->ring[i].state == BUSY) return true;
    return false;
}

int nsm_sampler_start(nsm_sampler *s, int64_t epoch, int64_t first)
{
    if (!s) return NSM_EINVAL;
    if (nsmi_failed(s->ctx)) return nsm_error(s->ctx);
    if (epoch < 0 || first < 0 || first > s->batches)
        return nsm_error_set(
            s->ctx, NSM_EINVAL,
            "nsm_sampler_start: epoch %lld, batch %lld; want epoch >= 0, batch 0..%lld",
            (long long)epoch, (long long)first, (long long)s->batches);
    give_up_batch(s);
    forget_coming(s);
    s->held = NULL;
    pthread_mutex_lock(&s->mutex);
    s->running = false;
    while (any_busy(s)) pthread_cond_wait(&s->changed, &s->mutex);
    for (int i = 0; i < s->config.ahead; i++) s->ring[i].state = EMPTY;
    s->epoch_key = nsmi_epoch_key(s->config.seed, epoch);
    for (int64_t i = 0; i < s->config.seeds; i++)
        s->order[i] = s->config.seed_node ? s->config.seed_node[i] : (int32_t)i;
    if (!s->config.in_order) nsmi_shuffle(s->epoch_key, s->config.seeds, s->order);
    s->next_drawn = s->next_given = first;
    take_cores(s); /* before they run: a reader may look at the team */
    s->running = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->mutex);
    return NSM_OK;
}

/* On the CPU backend device memory is ours, and the draft's features need no copy. */
static nsm_tensor *features_of(nsm_sampler *s, nsmi_draft *d, int64_t number)
{
    nsm_tensor *x = s->coming;
    s->view = (nsm_tensor){ .ctx = s->ctx,
                            .rank = 2,
                            .type = NSM_F32,
                            .dim = { d->nodes, s->config.features, 1, 1, 1 },
                            .data = d->x };
    if (!s->ctx->dev.be->send) return &s->view;
    if (!x) x = send_features(s, d, number);
    s->coming = NULL;
    if (x) s->ctx->dev.be->arrive(&s->ctx->dev, sending(number));
    return x;
}

static const nsm_batch *hand_out(nsm_sampler *s, nsmi_draft *d, int64_t number)
{
    nsm_batch *b = &s->batch;
    int layers = s->config.layers;
    b->number = number;
    b->seeds = d->seeds;
    b->nodes = d->nodes;
    b->node = d->node;
    b->edges = d->edges;
    b->layers = layers;
    for (int k = 0; k < layers; k++) {
        nsmi_hop *h = &d->hop[k];
        int64_t sources = k + 1 < layers ? d->hop[k + 1].dst : d->nodes;
        b->block[layers - 1 - k] = nsm_graph_from_rows(s->ctx, sources, h->dst, h->ptr, h->idx,
                                                       false);
        if (s->config.types)
            nsm_graph_set_types(b->block[layers - 1 - k], s->config.types, h->type);
    }
    if (s->config.features) b->x = features_of(s, d, number);
    send_next(s);
    return nsmi_failed(s->ctx) ? NULL : b;
}

const nsm_batch *nsm_sampler_next(nsm_sampler *s)
{
    if (!s || nsmi_failed(s->ctx)) return NULL;
    give_up_batch(s);
    pthread_mutex_lock(&s->mutex);
    if (s->held) {
        s->held->state = EMPTY;
        s->held = NULL;
        pthread_cond_broadcast(&s->changed);
    }
    if (!s->running || s->next_given == s->batches) {
        pthread_mutex_unlock(&s->mutex);
        give_cores(s);
        return NULL;
    }
    int64_t number = s->next_given++;
    slot *mine = &s->ring[number % s->config.ahead];
    while (mine->state != READY) pthread_cond_wait(&s->changed, &s->mutex);
    s->held = mine;
    int code = mine->code;
    pthread_mutex_unlock(&s->mutex);
    if (code) {
        nsm_error_set(s->ctx, code, "nsm_sampler_next: batch %lld could not be drawn: %s",
                      (long long)number, nsm_error_text(code));
        return NULL;
    }
    return hand_out(s, &mine->draft, number);
}
