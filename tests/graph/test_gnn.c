/* tests/graph/test_gnn.c - Stacks of every kind with every option. */
#include "config.h"
#include "graph/gnn.h"
#include "tests/graph/layer.h"

enum { N = 30, OUT_CHANNELS = 4 };

static nsm_tensor *input(nsm_ctx *ctx)
{
    float host[N * LAYER_IN];
    test_random(4, N * LAYER_IN, host);
    return nsm_tensor_from(ctx, NSM_F32, 2, (int64_t[]){ N, LAYER_IN }, host);
}

static nsm_gnn_config options(const char *kind, int which)
{
    nsm_gnn_config c = { .kind = kind,
                         .in_channels = LAYER_IN,
                         .hidden_channels = 5,
                         .out_channels = OUT_CHANNELS,
                         .layers = 3,
                         .heads = 2,
                         .out_heads = 2,
                         .act = NSM_ACT_ELU };
    c.norm = (nsm_gnn_norm)(which % 3);
    c.residual = which / 3 % 2;
    c.jump = (nsm_gnn_jump)(which / 6 % 3);
    c.aggr = (nsm_sage_aggr)(which % 3);
    c.relations = LAYER_TYPES;
    c.num_bases = which % 2 ? 2 : 0;
    return c;
}

/* All parameters get a gradient, and the result is as wide as was asked. */
static int has_grad(void *user, const char *name, nsm_tensor *t, bool buffer)
{
    (void)user;
    ck_assert_msg(buffer || t->grad, "no gradient reached %s", name);
    return 0;
}

START_TEST(every_option)
{
    for (const char *const *kind = nsm_gnn_kinds(); *kind; kind++)
        for (int which = 0; which < 18; which++) {
            nsm_ctx *ctx = nsm_ctx_new(NULL);
            nsm_gnn_config c = options(*kind, which);
            nsm_graph *g = layer_graph(ctx, N, 90);
            nsm_tensor *x = input(ctx);
            nsm_gnn *gnn = nsm_gnn_new(ctx, &c);
            nsm_tape *tape = nsm_tape_new(ctx);
            nsm_tensor *y = nsm_gnn_apply(tape, gnn, g, x, NULL);
            ck_ok(ctx);
            ck_assert(y->dim[0] == N && y->dim[1] == OUT_CHANNELS);
            nsm_tape_backward(tape, nsm_mean(tape, nsm_square(tape, y), NSM_ALL, false));
            ck_ok(ctx);
            nsm_module_walk(nsm_gnn_module(gnn), has_grad, NULL);
            nsm_tape_free(tape);
            nsm_gnn_free(gnn);
            nsm_tensor_free(x);
            nsm_graph_free(g);
            nsm_ctx_free(ctx);
        }
}
END_TEST

START_TEST(names) /* a checkpoint's paths */
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    nsm_gnn *gnn = nsm_gnn_new(ctx, &(nsm_gnn_config){ .kind = "sage",
                                                       .in_channels = 3,
                                                       .hidden_channels = 4,
                                                       .out_channels = 2,
                                                       .norm = NSM_GNN_BATCH_NORM,
                                                       .residual = true });
    static const char *const want[] = { "conv1.lin_l.weight", "conv2.lin_r.weight", "norm1.weight",
                                        "norm1.running_var", "skip1.weight" };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        ck_assert_msg(nsm_module_find(nsm_gnn_module(gnn), want[i]) != NULL, "%s is missing",
                      want[i]);
    nsm_gnn_free(gnn);
    ck_assert(
        !nsm_gnn_new(ctx, &(nsm_gnn_config){ .kind = "gnc", .in_channels = 3, .out_channels = 2 }));
    ck_assert_msg(strstr(nsm_error_message(ctx), "gcn, gat, gatv2, sage"), "%s",
                  nsm_error_message(ctx));
    ck_error(ctx, NSM_EINVAL);
    ck_assert(!nsm_gnn_new(ctx, &(nsm_gnn_config){ .kind = "gcn",
                                                   .in_channels = 3,
                                                   .hidden_channels = 2,
                                                   .out_channels = 2,
                                                   .layers = -1 }));
    ck_error(ctx, NSM_EINVAL);
    nsm_ctx_free(ctx);
}
END_TEST

/* Dropout acts while training and is drawn from the context's state alone. */
START_TEST(dropout)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    nsm_gnn_config c = { .kind = "gat",
                         .in_channels = LAYER_IN,
                         .hidden_channels = 5,
                         .out_channels = 2,
                         .dropout = 0.5f,
                         .attn_dropout = 0.5f };
    float y[4][N * 2];
    nsm_graph *g = layer_graph(ctx, N, 90);
    nsm_tensor *x = input(ctx);
    nsm_gnn *gnn = nsm_gnn_new(ctx, &c);
    nsm_tape *tape = nsm_tape_new(ctx);
    nsm_random start = nsm_random_get(ctx);
    for (int i = 0; i < 4; i++) {
        if (i == 1) nsm_random_set(ctx, start);
        nsm_tape_inference(tape, i == 3);
        nsm_tensor_get(nsm_gnn_apply(tape, gnn, g, x, NULL), y[i]);
        nsm_tape_reset(tape);
    }
    ck_ok(ctx);
    ck_assert_mem_eq(y[0], y[1], sizeof y[0]);
    ck_assert_mem_ne(y[0], y[2], sizeof y[0]);
    ck_assert_mem_ne(y[0], y[3], sizeof y[0]);
    nsm_tape_free(tape);
    nsm_gnn_free(gnn);
    nsm_tensor_free(x);
    nsm_graph_free(g);
    nsm_ctx_free(ctx);
}
END_TEST

static void build(nsm_ctx *ctx)
{
    nsm_random start = nsm_random_get(ctx);
    nsm_gnn_config c = options("gat", 16);
    nsm_graph *g = layer_graph(ctx, N, 90);
    nsm_tensor *x = input(ctx);
    nsm_gnn *gnn = nsm_gnn_new(ctx, &c);
    nsm_tape *tape = nsm_tape_new(ctx);
    nsm_tensor *y = g && x && gnn ? nsm_gnn_apply(tape, gnn, g, x, NULL) : NULL;
    if (tape) nsm_tape_backward(tape, nsm_mean(tape, y, NSM_ALL, false));
    nsm_tape_free(tape);
    nsm_gnn_free(gnn);
    nsm_tensor_free(x);
    nsm_graph_free(g);
    nsm_random_set(ctx, start);
}

START_TEST(memory)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    ck_assert_int_gt(test_brutal(build, ctx), 100);
    nsm_ctx_free(ctx);
}
END_TEST

int main(void)
{
    return test_main("gnn", (const TTest *const[]){ every_option, names, dropout, memory, NULL });
}
