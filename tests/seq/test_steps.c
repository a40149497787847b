/* tests/seq/test_steps.c - What a steady training step asks of the host: it waits for the device
 * once, for the loss; and its pass can be replayed, with the same losses bit for bit. */
#include "config.h"
#include "base/ops.h"
#include "base/optimizer.h"
#include "base/replay.h"
#include "graph/gcn.h"
#include "graph/gnn.h"
#include "seq/backbone.h"
#include "tests/test.h"

enum { BATCH = 2, TOKENS = 20, WORDS = 11, NODES = 40, FEATURES = 6, CLASSES = 3, STEPS = 6 };

/* A step's pass: inputs and its loss stand in tensors that stay. */
typedef struct work {
    nsm_tape *tape;
    nsm_backbone *model;
    nsm_gnn *gnn;
    nsm_graph *graph;
    nsm_tensor *x, *label, *length, *loss;
    nsm_tensor *(*output)(struct work *w);
    int calls;
} work;

static nsm_tensor *sequence_output(work *w)
{
    nsm_tensor *y = nsm_backbone_apply(w->tape, w->model, w->x, w->length, NULL);
    return nsm_reshape(w->tape, y, 2, (int64_t[]){ BATCH * TOKENS, WORDS });
}

static nsm_tensor *graph_output(work *w)
{
    return nsm_gnn_apply(w->tape, w->gnn, w->graph, w->x, NULL);
}

static int pass(void *user)
{
    work *w = user;
    w->calls++;
    nsm_tensor *loss = nsm_cross_entropy(w->tape, w->output(w), w->label, NULL);
    nsm_tape_backward(w->tape, loss);
    nsm_tensor_copy(w->loss, loss);
    nsm_tape_reset(w->tape);
    return NSM_OK;
}

static void set_batch(work *w, int step)
{
    int32_t in[BATCH * TOKENS], out[BATCH * TOKENS];
    for (int i = 0; i < BATCH * TOKENS; i++) {
        in[i] = (i * 5 + step) % WORDS;
        out[i] = (in[i] * 3 + 1) % WORDS;
    }
    nsm_tensor_set(w->x, in);
    nsm_tensor_set(w->label, out);
}

/* Train some steps, clipped, checked, every loss looked at; returns the waits of the last one. */
static int64_t train(nsm_ctx *ctx, nsm_module *m, work *w, nsm_replay *r, float loss[STEPS])
{
    nsm_optimizer *o = nsm_optimizer_new(m, &(nsm_optimizer_config){ .kind = NSM_ADAMW,
                                                                     .max_norm = 1 });
    int64_t before = 0;
    w->tape = nsm_tape_new(ctx);
    w->loss = nsm_tensor_new(ctx, NSM_F32, 0, NULL);
    for (int step = 0; step < STEPS; step++) {
        before = ctx->dev.waits;
        if (w->model) set_batch(w, step);
        if (r) nsm_replay_run(r, 0, pass, w);
        else pass(w);
        loss[step] = nsm_tensor_item(w->loss);
        nsm_optimizer_step(o, 0.01);
    }
    ck_ok(ctx);
    ck_assert_msg(loss[STEPS - 1] < loss[0], "the loss goes from %g to %g", (double)loss[0],
                  (double)loss[STEPS - 1]);
    int64_t waits = ctx->dev.waits - before;
    nsm_tensor_free(w->loss);
    nsm_tape_free(w->tape);
    nsm_optimizer_free(o);
    return waits;
}

/* On a device; the CPU is never waited for, nor is anything replayed there. */
static bool device(const nsm_ctx *ctx) { return ctx->dev.be->judge; }

/* Two trainings of what make() makes, one replayed: one wait a step, the same losses. */
static void check(const char *what, nsm_module *(*make)(nsm_ctx *ctx, work *w, const void *how),
                  void (*clear)(work *w), const void *how)
{
    float loss[2][STEPS];
    for (int replayed = 0; replayed < 2; replayed++) {
        nsm_ctx *ctx = nsm_ctx_new(&(nsm_ctx_config){ .seed = 3 });
        work w = { 0 };
        nsm_module *m = make(ctx, &w, how);
        nsm_replay *r = replayed ? nsm_replay_new(m) : NULL;
        ck_ok(ctx);
        int64_t waits = train(ctx, m, &w, r, loss[replayed]);
        ck_assert_msg(waits == device(ctx), "%s: %lld waits", what, (long long)waits);
        if (replayed && device(ctx))
            ck_assert_msg(nsm_replay_count(r) >= STEPS - 4, "%s: %lld replays, %s", what,
                          (long long)nsm_replay_count(r), nsm_replay_why(r));
        ck_assert_int_eq(w.calls + nsm_replay_count(r), STEPS);
        nsm_replay_free(r);
        clear(&w);
        nsm_ctx_free(ctx);
    }
    for (int i = 0; i < STEPS; i++)
        ck_assert_msg(!memcmp(&loss[0][i], &loss[1][i], sizeof(float)), "%s: step %d: %.9g, %.9g",
                      what, i, (double)loss[0][i], (double)loss[1][i]);
}

typedef struct { const char *mixer; bool lengths; } sequence;

static nsm_module *make_sequence(nsm_ctx *ctx, work *w, const void *how)
{
    const sequence *s = how;
    const int32_t length[BATCH] = { TOKENS, TOKENS - 7 };
    w->output = sequence_output;
    w->x = nsm_tensor_new(ctx, NSM_I32, 2, (int64_t[]){ BATCH, TOKENS });
    w->label = nsm_tensor_new(ctx, NSM_I32, 1, (int64_t[]){ BATCH * TOKENS });
    if (s->lengths) w->length = nsm_tensor_from(ctx, NSM_I32, 1, (int64_t[]){ BATCH }, length);
    w->model = nsm_backbone_new(ctx, &(nsm_backbone_config){ .mixer = s->mixer,
                                                             .width = 16,
                                                             .vocab = WORDS,
                                                             .layers = 1,
                                                             .dropout = 0.1f });
    return nsm_backbone_module(w->model);
}

static void clear_work(work *w)
{
    nsm_tensor_free(w->x);
    nsm_tensor_free(w->label);
    nsm_tensor_free(w->length);
    nsm_backbone_free(w->model);
    nsm_gnn_free(w->gnn);
    nsm_graph_free(w->graph);
}

START_TEST(sequences)
{
    char what[64];
    for (const nsm_mixer_type *const *t = nsm_mixer_types(); *t; t++)
        for (int lengths = 0; lengths < 2; lengths++) {
            snprintf(what, sizeof what, "%s%s", (*t)->name, lengths ? ", with lengths" : "");
            check(what, make_sequence, clear_work, &(sequence){ (*t)->name, lengths });
        }
}
END_TEST

static nsm_module *make_graph(nsm_ctx *ctx, work *w, const void *how)
{
    int32_t from[3 * NODES], to[3 * NODES], label[NODES];
    float x[NODES * FEATURES];
    for (int i = 0; i < 3 * NODES; i++) {
        from[i] = i % NODES;
        to[i] = (i * 7 + i / NODES) % NODES;
        label[i % NODES] = i % CLASSES;
    }
    test_random(4, NODES * FEATURES, x);
    w->output = graph_output;
    w->graph = nsm_graph_new(ctx, NODES, 3 * NODES, from, to);
    w->x = nsm_tensor_from(ctx, NSM_F32, 2, (int64_t[]){ NODES, FEATURES }, x);
    w->label = nsm_tensor_from(ctx, NSM_I32, 1, (int64_t[]){ NODES }, label);
    w->gnn = nsm_gnn_new(ctx, &(nsm_gnn_config){ .kind = how,
                                                 .in_channels = FEATURES,
                                                 .hidden_channels = 8,
                                                 .out_channels = CLASSES,
                                                 .layers = 2,
                                                 .heads = 2,
                                                 .norm = NSM_GNN_BATCH_NORM,
                                                 .dropout = 0.2f,
                                                 .attn_dropout = 0.2f });
    return nsm_gnn_module(w->gnn);
}

START_TEST(graphs)
{
    static const char *const kinds[] = { "gcn", "gat", "gatv2", "sage" };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        check(kinds[i], make_graph, clear_work, kinds[i]);
}
END_TEST

int main(void) { return test_main("steps", (const TTest *const[]){ sequences, graphs, NULL }); }
