/* bench/fuser.c - See fuser.h. */
#include "config.h"
#include "base/internal.h"
#include "base/ops.h"
#include "bench/fuser.h"
#include "bench/gnn.h"

static int measure(nsm_ctx *ctx, const bench_fuser_config *c, nsm_fuser *f, nsm_tape *tape,
                   nsm_tensor *x, bench_fuser_result *r)
{
    double *ms = nsmi_malloc(ctx, (size_t)c->runs * sizeof *ms);
    nsm_tape_inference(tape, !c->train);
    for (int run = -1; ms && run < c->runs && !nsmi_failed(ctx); run++) {
        nsm_module_zero_grad(nsm_fuser_module(f));
        nsm_tensor_zero_grad(x);
        double began = bench_seconds();
        nsm_tensor *y = nsm_fuser_apply(tape, f, &(nsm_set_input){ x, NULL }, NULL);
        if (c->train) nsm_tape_backward(tape, nsm_mean(tape, nsm_square(tape, y), NSM_ALL, false));
        ctx->dev.be->sync(&ctx->dev);
        if (run >= 0) ms[run] = 1e3 * (bench_seconds() - began);
        nsm_tape_reset(tape);
    }
    if (ms && !nsmi_failed(ctx)) {
        qsort(ms, (size_t)c->runs, sizeof *ms, bench_rising);
        *r = (bench_fuser_result){ .ms = ms[c->runs / 2],
                                   .ms_min = ms[0],
                                   .tensor_bytes = nsm_ctx_memory(ctx).peak_bytes,
                                   .parameters = nsm_module_count(nsm_fuser_module(f)) };
    }
    free(ms);
    return nsm_error(ctx);
}

int bench_fuser(nsm_ctx *ctx, const bench_fuser_config *config, bench_fuser_result *result)
{
    bench_fuser_config c = *config;
    if (nsmi_failed(ctx)) return nsm_error(ctx);
    if (!c.elements) c.elements = 16384;
    if (!c.readers) c.readers = 1;
    if (!c.width) c.width = 64;
    if (!c.runs) c.runs = 3;
    nsm_fuser *f = nsm_fuser_new(ctx, c.type, &(nsm_fuser_config){ .width = c.width,
                                                                   .modalities = 1,
                                                                   .features = { c.width },
                                                                   .readers = (int)c.readers,
                                                                   .options = c.options });
    nsm_tape *tape = nsm_tape_new(ctx);
    nsm_tensor *x = nsm_tensor_new(ctx, NSM_F32, 3, (int64_t[]){ 1, c.elements, c.width });
    if (x) {
        x->needs_grad = true;
        nsm_init_normal(x, 0, 1);
    }
    if (!nsmi_failed(ctx)) measure(ctx, &c, f, tape, x, result);
    nsm_tensor_free(x);
    nsm_tape_free(tape);
    nsm_fuser_free(f);
    return nsm_error(ctx);
}
