/* tests/seq/test_steps.c - What a steady training step asks of the host: it waits for the device
 * once, for the loss. */
#include "config.h"
#include "base/ops.h"
#include "base/optimizer.h"
#include "graph/gcn.h"
#include "seq/backbone.h"
#include "tests/test.h"

enum { BATCH = 2, TOKENS = 20, WORDS = 11, NODES = 40, FEATURES = 6, CLASSES = 3, STEPS = 4 };

/* The loss of one step; its tensors are the tape's. */
typedef struct {
    nsm_backbone *model;
    nsm_gcn *gcn;
    nsm_graph *graph;
    nsm_tensor *x, *label;
    bool lengths;
} work;

static nsm_tensor *sequence_loss(nsm_tape *tape, work *w, int step)
{
    int32_t in[BATCH * TOKENS], out[BATCH * TOKENS], length[BATCH] = { TOKENS, TOKENS - 7 };
    for (int i = 0; i < BATCH * TOKENS; i++) {
        in[i] = (i * 5 + step) % WORDS;
        out[i] = (in[i] * 3 + 1) % WORDS;
    }
    nsm_tensor *x = nsm_tape_tensor(tape, NSM_I32, 2, (int64_t[]){ BATCH, TOKENS }, in),
               *to = nsm_tape_tensor(tape, NSM_I32, 1, (int64_t[]){ BATCH * TOKENS }, out),
               *n = w->lengths ? nsm_tape_tensor(tape, NSM_I32, 1, (int64_t[]){ BATCH }, length)
                               : NULL;
    nsm_tensor *y = nsm_backbone_apply(tape, w->model, x, n, NULL);
    y = nsm_reshape(tape, y, 2, (int64_t[]){ BATCH * TOKENS, WORDS });
    return nsm_cross_entropy(tape, y, to, NULL);
}

static nsm_tensor *graph_loss(nsm_tape *tape, work *w, int step)
{
    (void)step;
    nsm_tensor *y = nsm_gcn_apply(tape, w->gcn, w->graph, w->x, NULL);
    return nsm_cross_entropy(tape, y, w->label, NULL);
}

/* Waits of the last of some steps: clipped, checked, its loss looked at. */
static int64_t waits_of(nsm_ctx *ctx, nsm_module *m, work *w,
                        nsm_tensor *(*loss_of)(nsm_tape *, work *, int))
{
    nsm_optimizer *o = nsm_optimizer_new(m, &(nsm_optimizer_config){ .kind = NSM_ADAMW,
                                                                     .max_norm = 1 });
    nsm_tape *tape = nsm_tape_new(ctx);
    int64_t before = 0;
    double first = 0, last = 0;
    for (int step = 0; step < STEPS; step++) {
        before = ctx->dev.waits;
        nsm_tensor *loss = loss_of(tape, w, step);
        ck_ok(ctx);
        last = (double)nsm_tensor_item(loss);
        if (step == 0) first = last;
        nsm_tape_backward(tape, loss);
        nsm_tape_reset(tape);
        nsm_optimizer_step(o, 0.01);
    }
    ck_ok(ctx);
    ck_assert_msg(last < first, "the loss goes from %g to %g", first, last);
    int64_t waits = ctx->dev.waits - before;
    nsm_tape_free(tape);
    nsm_optimizer_free(o);
    return waits;
}

/* On a device; the CPU is never waited for. */
static int64_t one(const nsm_ctx *ctx) { return ctx->dev.be->judge ? 1 : 0; }

START_TEST(sequences)
{
    for (const nsm_mixer_type *const *t = nsm_mixer_types(); *t; t++)
        for (int lengths = 0; lengths < 2; lengths++) {
            nsm_ctx *ctx = nsm_ctx_new(&(nsm_ctx_config){ .seed = 3 });
            work w = { .lengths = lengths };
            w.model = nsm_backbone_new(ctx, &(nsm_backbone_config){ .mixer = (*t)->name,
                                                                    .width = 16,
                                                                    .vocab = WORDS,
                                                                    .layers = 2,
                                                                    .dropout = 0.1f });
            ck_ok(ctx);
            int64_t waits = waits_of(ctx, nsm_backbone_module(w.model), &w, sequence_loss);
            ck_assert_msg(waits == one(ctx), "%s%s: %lld waits", (*t)->name,
                          lengths ? ", with lengths" : "", (long long)waits);
            nsm_backbone_free(w.model);
            nsm_ctx_free(ctx);
        }
}
END_TEST

START_TEST(graphs)
{
    nsm_ctx *ctx = nsm_ctx_new(&(nsm_ctx_config){ .seed = 3 });
    int32_t from[3 * NODES], to[3 * NODES], label[NODES];
    float x[NODES * FEATURES];
    for (int i = 0; i < 3 * NODES; i++) {
        from[i] = i % NODES;
        to[i] = (i * 7 + i / NODES) % NODES;
        label[i % NODES] = i % CLASSES;
    }
    test_random(4, NODES * FEATURES, x);
    work w = { .graph = nsm_graph_new(ctx, NODES, 3 * NODES, from, to),
               .x = nsm_tensor_from(ctx, NSM_F32, 2, (int64_t[]){ NODES, FEATURES }, x),
               .label = nsm_tensor_from(ctx, NSM_I32, 1, (int64_t[]){ NODES }, label),
               .gcn = nsm_gcn_new(ctx, &(nsm_gcn_config){ .in_channels = FEATURES,
                                                          .out_channels = CLASSES,
                                                          .dropout = 0.2f }) };
    ck_ok(ctx);
    ck_assert_int_eq(waits_of(ctx, nsm_gcn_module(w.gcn), &w, graph_loss), one(ctx));
    nsm_tensor_free(w.x);
    nsm_tensor_free(w.label);
    nsm_gcn_free(w.gcn);
    nsm_graph_free(w.graph);
    nsm_ctx_free(ctx);
}
END_TEST

int main(void) { return test_main("steps", (const TTest *const[]){ sequences, graphs, NULL }); }
