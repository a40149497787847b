/* bench/mixer.c - See mixer.h.  The work is that of the peers' script: one layer, projections and
 * all. */
#include "config.h"
#include "base/internal.h"
#include "base/ops.h"
#include "bench/gnn.h"
#include "bench/mixer.h"

enum { STEPS = 32 }; /* of a run of decoding */

typedef struct {
    const bench_mixer_config *config;
    nsm_tape *tape;
    nsm_mixer *mixer;
    nsm_tensor *x;
    nsm_state *state; /* of decoding; NULL: a whole sequence is read */
} job;

static int pass(void *user)
{
    job *j = user;
    for (int i = 0; i < STEPS && j->state; i++) nsm_mixer_step(j->tape, j->mixer, j->x, j->state);
    nsm_tensor *y = j->state ? NULL : nsm_mixer_forward(j->tape, j->mixer, j->x, NULL, NULL);
    if (y && j->config->train)
        nsm_tape_backward(j->tape, nsm_mean(j->tape, nsm_square(j->tape, y), NSM_ALL, false));
    return nsm_error(j->mixer->module.ctx);
}

/* What a step stands on: so many tokens seen. */
static nsm_state *prefilled(nsm_tape *tape, nsm_mixer *m, const bench_mixer_config *c)
{
    nsm_state *s = nsm_mixer_state(m, c->batch);
    nsm_tensor *x = nsm_tape_tensor(tape, NSM_F32, 3, (int64_t[]){ c->batch, c->tokens, c->width },
                                    NULL);
    if (x) nsm_init_normal(x, 0, 1);
    nsm_mixer_forward(tape, m, x, NULL, s);
    nsm_tape_reset(tape);
    return s;
}

static int measure(nsm_ctx *ctx, job *j, bench_mixer_result *r)
{
    const bench_mixer_config *c = j->config;
    double *ms = nsmi_malloc(ctx, (size_t)c->runs * sizeof *ms);
    nsm_replay *replay = nsm_replay_new(&j->mixer->module);
    nsm_tape_inference(j->tape, !c->train);
    if (c->decode) j->state = prefilled(j->tape, j->mixer, c);
    for (int run = -bench_warm(replay); ms && run < c->runs && !nsmi_failed(ctx); run++) {
        nsm_init_normal(j->x, 0, 1);
        nsm_module_zero_grad(&j->mixer->module);
        nsm_tensor_zero_grad(j->x);
        double began = bench_seconds();
        if (j->state) pass(j); /* which stands elsewhere each time */
        else nsm_replay_run(replay, 0, pass, j);
        ctx->dev.be->sync(&ctx->dev);
        if (run >= 0) ms[run] = 1e3 * (bench_seconds() - began) / (c->decode ? STEPS : 1);
        nsm_tape_reset(j->tape);
    }
    if (ms && !nsmi_failed(ctx)) {
        qsort(ms, (size_t)c->runs, sizeof *ms, bench_rising);
        *r = (bench_mixer_result){ .ms = ms[c->runs / 2],
                                   .ms_min = ms[0],
                                   .peak_mib = bench_peak_mib(),
                                   .threads = nsm_ctx_threads(ctx),
                                   .parameters = nsm_module_count(&j->mixer->module),
                                   .state_bytes = j->state ? nsm_state_bytes(j->state) : 0 };
    }
    nsm_state_free(j->state);
    nsm_replay_free(replay);
    free(ms);
    return nsm_error(ctx);
}

int bench_mixer(nsm_ctx *ctx, const bench_mixer_config *config, bench_mixer_result *result)
{
    bench_mixer_config c = *config;
    if (nsmi_failed(ctx)) return nsm_error(ctx);
    if (!c.batch) c.batch = 1;
    if (!c.tokens) c.tokens = 4096;
    if (!c.width) c.width = 256;
    if (!c.runs) c.runs = 5;
    nsm_mixer *m = nsm_mixer_new(ctx, c.type,
                                 &(nsm_mixer_config){ .width = c.width, .options = c.options });
    nsm_tape *tape = nsm_tape_new(ctx);
    nsm_tensor *x = c.decode ? nsm_tensor_new(ctx, NSM_F32, 2, (int64_t[]){ c.batch, c.width })
                             : nsm_tensor_new(ctx, NSM_F32, 3,
                                              (int64_t[]){ c.batch, c.tokens, c.width });
    if (x) x->needs_grad = true;
    if (!nsmi_failed(ctx)) measure(ctx, &(job){ &c, tape, m, x, NULL }, result);
    nsm_tensor_free(x);
    nsm_tape_free(tape);
    nsm_mixer_free(m);
    return nsm_error(ctx);
}
