/* bench/gpu_replay.c - Passes that are replayed, for bench/gpu.c: the tests of base/replay.h, and
 * what a training step of many small launches costs, called and replayed. */
#define main replay_tests
#include "tests/base/test_replay.c"
#undef main
#include <stdio.h>
#include <time.h>

enum { WIDTH = 64, BATCH = 256, LAYERS = 16, STEPS = 200, WARM = 8 };

typedef struct {
    nsm_module m;
    nsm_tape *tape;
    nsm_tensor *w[LAYERS], *x, *label, *loss;
} network;

static void network_make(network *n, nsm_ctx *ctx)
{
    static float x[BATCH * WIDTH];
    int32_t label[BATCH];
    char name[16];
    nsm_module_init(&n->m, ctx);
    for (int l = 0; l < LAYERS; l++) {
        snprintf(name, sizeof name, "w%d", l);
        n->w[l] = nsm_module_param(&n->m, name, 2, (const int64_t[]){ WIDTH, WIDTH });
        nsm_init_kaiming_uniform(n->w[l], 0);
    }
    for (int i = 0; i < BATCH; i++) label[i] = i % WIDTH;
    test_random(1, BATCH * WIDTH, x);
    n->x = nsm_tensor_from(ctx, NSM_F32, 2, (const int64_t[]){ BATCH, WIDTH }, x);
    n->label = nsm_tensor_from(ctx, NSM_I32, 1, (const int64_t[]){ BATCH }, label);
    n->loss = nsm_tensor_new(ctx, NSM_F32, 0, NULL);
    n->tape = nsm_tape_new(ctx);
}

static void network_free(network *n)
{
    nsm_tape_free(n->tape);
    nsm_tensor_free(n->x);
    nsm_tensor_free(n->label);
    nsm_tensor_free(n->loss);
    nsm_module_clear(&n->m);
}

static int network_pass(void *user)
{
    network *n = user;
    nsm_tensor *h = n->x;
    for (int l = 0; l < LAYERS; l++)
        h = nsm_dropout(n->tape, nsm_relu(n->tape, nsm_linear(n->tape, h, n->w[l], NULL)), 0.1f);
    nsm_tensor *l = nsm_cross_entropy(n->tape, h, n->label, NULL);
    nsm_tape_backward(n->tape, l);
    nsm_tensor_copy(n->loss, l);
    nsm_tape_reset(n->tape);
    return NSM_OK;
}

/* Seconds of a step, its loss looked at; the last loss to *loss. */
static double time_steps(bool replayed, float *loss, int64_t *replays)
{
    nsm_ctx *ctx = nsm_ctx_new(&(nsm_ctx_config){ .seed = 1 });
    network n;
    struct timespec from, to;
    network_make(&n, ctx);
    nsm_replay *r = replayed ? nsm_replay_new(&n.m) : NULL;
    nsm_optimizer *o = nsm_optimizer_new(&n.m, &(nsm_optimizer_config){ .kind = NSM_ADAMW });
    int64_t steps = strcmp(nsm_ctx_backend(ctx), "emulated") ? STEPS : WARM;
    for (int64_t k = 0; k < WARM + steps; k++) {
        if (k == WARM) clock_gettime(CLOCK_MONOTONIC, &from);
        if (r) nsm_replay_run(r, 0, network_pass, &n);
        else network_pass(&n);
        nsm_optimizer_step(o, 1e-3);
        *loss = nsm_tensor_item(n.loss);
    }
    clock_gettime(CLOCK_MONOTONIC, &to);
    if (nsm_error(ctx)) printf("FAIL replay: %s\n", nsm_error_message(ctx));
    *replays = nsm_replay_count(r);
    nsm_optimizer_free(o);
    nsm_replay_free(r);
    network_free(&n);
    nsm_ctx_free(ctx);
    return ((double)(to.tv_sec - from.tv_sec) + 1e-9 * (double)(to.tv_nsec - from.tv_nsec)) /
           (double)steps;
}

int replay_main(void);
int replay_main(void)
{
    float loss[2];
    int64_t replays;
    int failed = replay_tests();
    double called = time_steps(false, &loss[0], &replays);
    double replayed = time_steps(true, &loss[1], &replays);
    bool good = replays > 0 && !memcmp(&loss[0], &loss[1], sizeof(float));
    printf("%s replay: a step of %d layers of %d, %d rows: %.1f us called, %.1f us replayed\n",
           good ? "PASS" : "FAIL", LAYERS, WIDTH, BATCH, called * 1e6, replayed * 1e6);
    return failed || !good;
}
