/* tests/base/test_optimizer.c - What an optimizer does around the arithmetic of a step: rules by
 * name, clipping, accumulation, refusal of NaN, late gradients, state, averages.
 * The arithmetic is held to PyTorch's by tests/oracle. */
#include "config.h"
#include "tests/test.h"
#include "base/optimizer.h"

enum { ROWS = 3, COLS = 5, N = ROWS * COLS };

typedef struct {
    nsm_module m, inner;
    nsm_tensor *weight, *bias, *deep, *mean;
} model;

/* weight [3,5], bias [5], inner.weight [4], and a buffer. */
static void model_make(model *x, nsm_ctx *ctx)
{
    nsm_module_init(&x->m, ctx);
    nsm_module_init(&x->inner, ctx);
    x->weight = nsm_module_param(&x->m, "weight", 2, (const int64_t[]){ ROWS, COLS });
    x->bias = nsm_module_param(&x->m, "bias", 1, (const int64_t[]){ COLS });
    x->deep = nsm_module_param(&x->inner, "weight", 1, (const int64_t[]){ 4 });
    x->mean = nsm_module_buffer(&x->m, "mean", 1, (const int64_t[]){ COLS });
    nsm_module_child(&x->m, "inner", &x->inner);
}

static void model_free(model *x)
{
    nsm_module_clear(&x->m);
    nsm_module_clear(&x->inner);
}

static void fill(nsm_tensor *t, uint64_t seed, bool grad)
{
    float x[N];
    bool fresh;
    if (!t) return;
    test_random(seed, nsm_numel(t), x);
    if (!grad) nsm_tensor_set(t, x);
    else if (nsmi_grad(t, &fresh))
        t->ctx->dev.be->to_device(&t->ctx->dev, (size_t)nsm_numel(t) * sizeof *x, x, t->grad);
}

static void fill_model(model *x, uint64_t seed, bool grad)
{
    fill(x->weight, seed, grad);
    fill(x->bias, seed + 1, grad);
    fill(x->deep, seed + 2, grad);
}

static void values(const nsm_tensor *t, float *x)
{
    nsm_tensor_get(t, x);
}

START_TEST(rules)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    model x;
    float before[N], grad[N], after[N], deep[4], same[4];
    const nsm_optimizer_rule rule[] = {
        { .pattern = "bias", .no_weight_decay = true, .lr_factor = 2 },
        { .pattern = "inner.*", .frozen = true },
        { .pattern = "*", .weight_decay = 0.5 },
    };
    model_make(&x, ctx);
    fill_model(&x, 1, false);
    nsm_optimizer *o = nsm_optimizer_new(
        &x.m, &(nsm_optimizer_config){ .weight_decay = 9, .rule = rule, .rules = 3 });
    ck_ok(ctx);
    fill(x.weight, 11, true);
    fill(x.bias, 12, true);
    values(x.deep, deep);
    values(x.weight, before);
    nsm_tensor_get_grad(x.weight, grad);
    nsm_optimizer_step(o, 0.1);
    values(x.weight, after);
    for (int i = 0; i < N; i++)
        ck_assert_float_eq_tol(after[i], before[i] - 0.1f * (grad[i] + 0.5f * before[i]), 1e-6f);
    test_random(2, COLS, before);
    test_random(12, COLS, grad);
    values(x.bias, after);
    for (int i = 0; i < COLS; i++)
        ck_assert_float_eq_tol(after[i], before[i] - 0.2f * grad[i], 1e-6f);
    values(x.deep, same);
    ck_assert_mem_eq(deep, same, sizeof same);
    ck_assert(!x.deep->needs_grad);
    ck_assert(!x.weight->grad);
    nsm_optimizer_free(o);
    model_free(&x);
    nsm_ctx_free(ctx);
}
END_TEST

/* What has been added up over the passes is divided by their number, or not. */
START_TEST(accumulation)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    model x;
    float before[N], grad[N], after[N];
    model_make(&x, ctx);
    for (int sum = 0; sum < 2; sum++) {
        nsm_optimizer *o = nsm_optimizer_new(
            &x.m, &(nsm_optimizer_config){ .accumulate = 4, .accumulate_sum = sum });
        fill_model(&x, 1, false);
        fill_model(&x, 5, true);
        values(x.weight, before);
        nsm_tensor_get_grad(x.weight, grad);
        for (int pass = 0; pass < 4; pass++) {
            values(x.weight, after);
            ck_assert_mem_eq(before, after, sizeof after);
            ck_assert_int_eq(nsm_optimizer_pending(o), pass);
            ck_assert_int_eq(nsm_optimizer_steps(o), 0);
            nsm_optimizer_step(o, 0.1);
        }
        ck_assert_int_eq(nsm_optimizer_steps(o), 1);
        values(x.weight, after);
        for (int i = 0; i < N; i++)
            ck_assert_float_eq_tol(after[i], before[i] - 0.1f * grad[i] / (sum ? 1 : 4), 1e-6f);
        nsm_optimizer_free(o);
    }
    ck_ok(ctx);
    model_free(&x);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(clipping)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    model x;
    float w[N], g[N];
    double sum = 0;
    model_make(&x, ctx);
    fill_model(&x, 5, true);
    for (int k = 0; k < 3; k++) {
        nsm_tensor *t = (nsm_tensor *[]){ x.weight, x.bias, x.deep }[k];
        nsm_tensor_get_grad(t, g);
        for (int64_t i = 0; i < nsm_numel(t); i++) sum += (double)g[i] * g[i];
    }
    nsm_tensor_get_grad(x.weight, g);
    nsm_optimizer *o = nsm_optimizer_new(&x.m, &(nsm_optimizer_config){ .max_norm = 0.25 });
    nsm_optimizer_step(o, 1);
    ck_assert_double_eq_tol(nsm_optimizer_norm(o), sqrt(sum), 1e-6);
    values(x.weight, w);
    for (int i = 0; i < N; i++)
        ck_assert_float_eq_tol(w[i], -g[i] * (float)(0.25 / (sqrt(sum) + 1e-6)), 1e-6f);
    nsm_optimizer_free(o);
    model_free(&x);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(not_finite)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    model x;
    float before[N], after[N];
    model_make(&x, ctx);
    fill_model(&x, 1, false);
    nsm_optimizer *o = nsm_optimizer_new(&x.m, &(nsm_optimizer_config){ .kind = NSM_ADAMW });
    fill_model(&x, 5, true);
    nsm_optimizer_step(o, 0.1);
    values(x.weight, before);
    for (int k = 0; k < 2; k++) {
        float bad = k ? NAN : INFINITY;
        fill_model(&x, 6, true);
        ctx->dev.be->to_device(&ctx->dev, sizeof bad, &bad, x.deep->grad + 2);
        int64_t step = nsm_optimizer_steps(o) + 1;
        bool late = ctx->dev.be
                        ->judge; /* it is told with the next copy: good steps change nothing */
        ck_assert_int_eq(nsm_optimizer_step(o, 0.1), late ? NSM_OK : NSM_ENUMBER);
        for (int good = 0; late && good < 2; good++) {
            fill_model(&x, 7, true);
            ck_assert_int_eq(nsm_optimizer_step(o, 0.1), NSM_OK);
        }
        values(x.weight, after);
        char told[80];
        snprintf(told, sizeof told, "the gradient of inner.weight is not finite in step %lld",
                 (long long)step);
        ck_assert_msg(strstr(nsm_error_message(ctx), told), "%s", nsm_error_message(ctx));
        ck_error(ctx, NSM_ENUMBER);
        values(x.weight, after);
        ck_assert_mem_eq(before, after, sizeof after);
        ck_assert_int_eq(nsm_optimizer_steps(o), late ? step + 2 : 1);
    }
    fill_model(&x, 8, true);
    nsm_optimizer_step(o, 0.1);
    values(x.weight, after); /* told, a device goes on */
    ck_assert(memcmp(before, after, sizeof after));
    ck_ok(ctx);
    nsm_optimizer_step(o, NAN);
    ck_error(ctx, NSM_ENUMBER);
    nsm_optimizer_free(o);
    model_free(&x);
    nsm_ctx_free(ctx);
}
END_TEST

/* Tensors of every size, more than a launch of any device takes: their norm, and the name of the
 * one that is not finite; told at the latest by freeing the optimizer. */
START_TEST(many)
{
    enum { MANY = 230, MOST = 9000 };
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    nsm_module m;
    char name[16];
    float *x = malloc(MOST * sizeof *x), after[3];
    double sum = 0;
    bool fresh;
    nsm_tensor *t[MANY];
    nsm_module_init(&m, ctx);
    for (int k = 0; k < MANY; k++) {
        int64_t n = k % 50 == 7 ? MOST - k : 1 + k % 3;
        snprintf(name, sizeof name, "t%d", k);
        t[k] = nsm_module_param(&m, name, 1, &n);
        nsm_tensor_zero(t[k]);
    }
    for (int bad = 0; bad < 2; bad++) {
        nsm_optimizer *o = nsm_optimizer_new(&m, &(nsm_optimizer_config){ .max_norm = 0.5,
                                                                          .accumulate = 1 });
        ck_ok(ctx);
        for (int k = 0; k < MANY; k++) {
            int64_t n = nsm_numel(t[k]);
            test_random((uint64_t)k + 1, n, x);
            for (int64_t i = 0; !bad && i < n; i++) sum += (double)x[i] * (double)x[i];
            if (bad && (k == 211 || k == 207)) x[n - 1] = -INFINITY;
            ck_assert_ptr_nonnull(nsmi_grad(t[k], &fresh));
            ctx->dev.be->to_device(&ctx->dev, (size_t)n * sizeof *x, x, t[k]->grad);
        }
        nsm_optimizer_step(o, 1);
        if (!bad) {
            ck_assert_double_eq_tol(nsm_optimizer_norm(o), sqrt(sum), 1e-9 * sqrt(sum));
            test_random(1 + 128, 3, x);
            nsm_tensor_get(t[128], after); /* of 3 numbers */
            for (int i = 0; i < 3; i++)
                ck_assert_float_eq_tol(after[i], -x[i] * (float)(0.5 / (sqrt(sum) + 1e-6)), 1e-8f);
            ck_ok(ctx);
        }
        nsm_optimizer_free(o);
    }
    ck_assert_msg(strstr(nsm_error_message(ctx), "t207 is not finite"), "%s",
                  nsm_error_message(ctx));
    ck_error(ctx, NSM_ENUMBER);
    free(x);
    nsm_module_clear(&m);
    nsm_ctx_free(ctx);
}
END_TEST

/* A tensor that gets its first gradient late trains as it would have from its first step on. */
START_TEST(late)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    model x, y;
    float a[4], b[4];
    int64_t n;
    model_make(&x, ctx);
    model_make(&y, ctx);
    for (int kind = 0; kind < NSM_OPTIMIZER_KINDS; kind++) {
        nsm_optimizer_config c = { .kind = (nsm_optimizer_kind)kind,
                                   .momentum = 0.9,
                                   .dampening = 0.3 };
        fill_model(&x, 1, false);
        fill_model(&y, 1, false);
        nsm_optimizer *o = nsm_optimizer_new(&x.m, &c), *p = nsm_optimizer_new(&y.m, &c);
        for (int step = 0; step < 6; step++) {
            fill_model(&x, 20 + (uint64_t)step, true);
            if (step < 3) nsm_tensor_zero_grad(x.deep);
            nsm_optimizer_step(o, 0.01);
            if (step < 3) continue;
            fill_model(&y, 20 + (uint64_t)step, true);
            nsm_optimizer_step(p, 0.01);
        }
        values(x.deep, a);
        values(y.deep, b);
        ck_assert_mem_eq(a, b, sizeof a);
        ck_assert_int_eq(nsm_optimizer_counts(o, &n)[2], 3);
        ck_assert_int_eq(nsm_optimizer_counts(o, &n)[0], 6);
        nsm_optimizer_free(o);
        nsm_optimizer_free(p);
    }
    ck_ok(ctx);
    model_free(&x);
    model_free(&y);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(steady)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    model x;
    model_make(&x, ctx);
    for (int kind = 0; kind < NSM_OPTIMIZER_KINDS; kind++) {
        nsm_optimizer *o = nsm_optimizer_new(
            &x.m, &(nsm_optimizer_config){ .kind = (nsm_optimizer_kind)kind, .max_norm = 1 });
        for (int step = 0; step < 3; step++) {
            fill_model(&x, 5, true);
            int64_t before = ctx->allocations;
            nsm_optimizer_step(o, 0.1);
            ck_assert_int_eq(ctx->allocations, before);
        }
        nsm_optimizer_free(o);
    }
    ck_ok(ctx);
    model_free(&x);
    nsm_ctx_free(ctx);
}
END_TEST

static int name_one(void *user, const char *name, nsm_tensor *t, bool buffer)
{
    (void)t;
    (void)buffer;
    strcat(strcat(user, name), " ");
    return 0;
}

START_TEST(state)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    model x;
    char names[512] = "";
    model_make(&x, ctx);
    nsm_optimizer *o =
        nsm_optimizer_new(&x.m, &(nsm_optimizer_config){ .kind = NSM_ADAM, .amsgrad = true });
    nsm_optimizer_walk(o, name_one, names);
    ck_assert_str_eq(
        names,
        "weight.exp_avg weight.exp_avg_sq weight.max_exp_avg_sq bias.exp_avg bias.exp_avg_sq "
        "bias.max_exp_avg_sq inner.weight.exp_avg inner.weight.exp_avg_sq "
        "inner.weight.max_exp_avg_sq ");
    nsm_optimizer_free(o);
    o = nsm_optimizer_new(&x.m, &(nsm_optimizer_config){ .kind = NSM_SGD });
    names[0] = '\0';
    nsm_optimizer_walk(o, name_one, names);
    ck_assert_str_eq(names, "");
    nsm_optimizer_restore(o, 3, (const int64_t[]){ 3, 3 }, 2);
    ck_error(ctx, NSM_EINVAL);
    nsm_optimizer_restore(o, 3, (const int64_t[]){ 3, 4, 3 }, 3);
    ck_error(ctx, NSM_EINVAL);
    nsm_optimizer_free(o);
    model_free(&x);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(averages)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    model x;
    float first[N], second[N], have[N];
    model_make(&x, ctx);
    fill_model(&x, 1, false);
    nsm_ema *ema = nsm_ema_new(&x.m, 0.75);
    values(x.weight, first);
    fill_model(&x, 2, false);
    values(x.weight, second);
    nsm_ema_update(ema);
    nsm_ema_swap(ema);
    values(x.weight, have);
    for (int i = 0; i < N; i++)
        ck_assert_float_eq_tol(have[i], 0.75f * first[i] + 0.25f * second[i], 1e-6f);
    ck_ok(ctx);
    nsm_ema_update(ema);
    ck_error(ctx, NSM_EINVAL);
    nsm_ema_swap(ema);
    values(x.weight, have);
    ck_assert_mem_eq(have, second, sizeof have);
    nsm_ema_free(ema);
    ck_assert(!nsm_ema_new(&x.m, 1.5));
    ck_error(ctx, NSM_EINVAL);
    model_free(&x);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(errors)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    model x;
    model_make(&x, ctx);
    const nsm_optimizer_config bad[] = {
        { .kind = (nsm_optimizer_kind)77 },
        { .kind = NSM_ADAM, .beta1 = 1 },
        { .kind = NSM_ADAM, .beta2 = NAN },
        { .weight_decay = -1 },
        { .nesterov = true },
        { .momentum = 0.9, .dampening = 0.5, .nesterov = true },
        { .max_norm = -1 },
        { .accumulate = -2 },
        { .rule = &(nsm_optimizer_rule){ .pattern = "conv*" }, .rules = 1 },
        { .rule = &(nsm_optimizer_rule){ .pattern = "bias", .lr_factor = -1 }, .rules = 1 },
        { .rule = &(nsm_optimizer_rule){ .frozen = true }, .rules = 1 },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ck_assert(!nsm_optimizer_new(&x.m, &bad[i]));
        ck_error(ctx, NSM_EINVAL);
    }
    for (int k = 0; k < NSM_OPTIMIZER_KINDS; k++)
        ck_assert_int_eq(nsm_optimizer_find(nsm_optimizer_name((nsm_optimizer_kind)k)), k);
    ck_assert_int_eq(nsm_optimizer_find("adamz"), -1);
    model_free(&x);
    nsm_ctx_free(ctx);
}
END_TEST

static void run(nsm_ctx *ctx)
{
    model x;
    model_make(&x, ctx);
    nsm_optimizer *o = nsm_optimizer_new(
        &x.m, &(nsm_optimizer_config){ .kind = NSM_RMSPROP, .centered = true, .momentum = 0.5 });
    nsm_ema *ema = nsm_ema_new(&x.m, 0.9);
    if (!nsm_error(ctx)) fill_model(&x, 5, true);
    nsm_optimizer_step(o, 0.1);
    nsm_ema_update(ema);
    nsm_ema_free(ema);
    nsm_optimizer_free(o);
    model_free(&x);
}

START_TEST(memory)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    ck_assert_int_gt(test_brutal(run, ctx), 30);
    nsm_ctx_free(ctx);
}
END_TEST

int main(void)
{
    return test_main("optimizer",
                     (const TTest *const[]){ rules, accumulation, clipping, not_finite, many, late,
                                             steady, state, averages, errors, memory, NULL });
}
