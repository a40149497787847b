/* tests/seq/test_mixers.c - What every sequence system must do.  The list of systems is walked, so
 * a new one is tested by being listed; `more` adds options to try.
 *
 * For each, at lengths 1, 2, 3, 63, 64, 65 and 1000: forward over the whole, over pieces with a
 * carried state, and by steps give the same; a state that was saved and read back goes on as if
 * nothing had happened; no output depends on a later input, whatever the weights; the padding of a
 * short row does not matter, neither for its outputs nor for its state; gradients are those of
 * difference quotients; the same bits for any number of threads; every allocation fails in turn; a
 * steady step asks the system for no memory. */
#include "config.h"
#include <unistd.h>
#include "base/ops.h"
#include "seq/mixer.h"
#include "tests/test.h"

enum { D = 24, B = 3, LONGEST = 1000 };
static const int64_t lengths[] = { 1, 2, 3, 63, 64, 65, LONGEST };

/* Options beside none. */
static const struct { const char *type, *options;
} more[] = {
    { "transformer", "heads=6 kv_heads=2 rotary=true bias=false" },
    { "transformer", "heads=2 head_dim=10 window=7 rotary=true" },
    { "transformer", "causal=false" },
    { "linear_transformer", "heads=3 key_dim=5 value_dim=7" },
    { "linear_transformer", "causal=false" },
    { "retnet", "heads=3 value_expand=1.5" },
    { "gla", "heads=6 kv_heads=2 gate_rank=3 gate_normalizer=1" },
    { "gla", "simple=true expand_k=1" },
    { "deltanet", "heads=3 gate=true negative=true" },
    { "gated_deltanet", "heads=2 v_heads=4 head_dim=6 conv_size=3" },
    { "gsa", "heads=4 kv_heads=2 slots=7" },
    { "mamba", "states=5 rank=3 bias=true expand=1.5" },
    { "s4", "states=6 channels=2 copies=3 rank=2" },
    { "s4", "states=4 kernel_length=50" },
    { "s4d", "states=10 channels=2 copies=4 init=lin zoh=bilinear" },
    { "s4d", "states=6 init=inv2 dt_max=0.05" },
    { "rwkv1", "heads=3 inner=30" },
    { "rwkv4", "inner=32" },
    { "rwkv5", "heads=3 inner=30" },
    { "rwkv6", "heads=2 inner=36 mix_rank=3 decay_rank=5" },
    { "rwkv_channel", "" },
    { "rwkv_channel", "version=1 inner=30" },
    { "rwkv_channel", "version=2" },
    { "rwkv_channel", "version=6" },
    { "rwkv_channel", "version=7 inner=50" },
    { "rwkv6", "heads=3 mix_rank=3 decay_rank=5" },
    { "mamba2", "heads=6 groups=2 states=9 dt_low=0.01 dt_high=0.5" },
    { "lstm", "hidden=40" },
    { "gru", "hidden=17" },
    { "nsm", "heads=3 s=7 topk=3 window=5 rho=0.8 tau_prune=0.2 tau_recycle=0.9 decay=true" },
    { "nsm",
      "heads=2 s=5 s0=2 dk=6 dv=10 window=1 conv=1 clock=0 comm_every=5 rho=0.9 tau_prune=0.3" },
    { "nsm", "heads=2 s=40 s0=3 topk=30 window=70 tau_new=2 beta_min=0" },
    { "nsm", "heads=4 s=6 s0=6 topk=6 window=9 clock=2 comm_every=7 decay=true" },
    { "nsm", "heads=3 s=8 topk=3 window=4 decay=true decay_bias=-5" },
    { "nsm", "heads=3 s=9 topk=4 clock=3 clock_heads=2" },
    { "nsm",
      "heads=3 dense_heads=1 s=7 topk=3 dv=10 rho=0.8 tau_prune=0.2 decay=true clock_heads=1" },
    { "nsm", "heads=4 dense_heads=3 s=6 s0=6 topk=6 window=9 clock=2 comm_every=7" },
    { "nsm", "heads=3 dense_heads=1 s=6 s0=6 topk=6 window=4 clock_heads=1 dv=5 gate=silu" },
    { "nsm", "heads=2 dense_heads=1 s=9 s0=2 dk=6 dv=10 window=1 conv=1 clock=0" },
    { "nsm", "heads=3 dense_heads=2 dense_window=false s=6 topk=3 window=5 clock=1 gate=silu" },
    { "nsm", "heads=3 dense_heads=1 dense_window=false s=5 topk=2 window=4 dv=5" },
};
enum { MORE = sizeof more / sizeof more[0] };

typedef struct { nsm_ctx *ctx; nsm_mixer *m; nsm_tape *tape; } subject;

static bool carried(const nsm_mixer *m) { return !m->two_way && m->type->state; }

/* A mixer with weights that are larger than at the start: decays near 0 and near 1, sharp
 * choices. */
static subject subject_new(int threads, const char *type, const char *options, bool large)
{
    subject s = { .ctx = nsm_ctx_new(&(nsm_ctx_config){ .threads = threads, .seed = 5 }) };
    s.m = nsm_mixer_new(s.ctx, type, &(nsm_mixer_config){ .width = D, .options = options });
    s.tape = nsm_tape_new(s.ctx);
    ck_ok(s.ctx);
    for (int i = 0; large && i < s.m->module.params; i++) {
        nsm_tensor *w = s.m->module.param[i].tensor;
        int64_t n = nsm_numel(w);
        float *x = malloc((size_t)n * 2 * sizeof *x);
        nsm_tensor_get(w, x);
        test_random((uint64_t)i + 1, n, x + n);
        for (int64_t k = 0; k < n; k++) x[k] += 0.7f * x[n + k];
        nsm_tensor_set(w, x);
        free(x);
    }
    return s;
}

static void subject_free(subject *s)
{
    nsm_tape_free(s->tape);
    nsm_mixer_free(s->m);
    nsm_ctx_free(s->ctx);
}

static nsm_tensor *tensor(nsm_ctx *ctx, int64_t n, const float *x)
{
    return nsm_tensor_from(ctx, NSM_F32, 3, (int64_t[]){ B, n, D }, x);
}

/* Forward over tokens from .. to of x [B, n, D] into the same places of y. */
static void piece(subject *s, nsm_state *state, int64_t n, const float *x, int64_t from, int64_t to,
                  float *y)
{
    int64_t rows = to - from;
    float *part = malloc((size_t)(B * rows * D) * sizeof *part);
    for (int64_t b = 0; b < B; b++)
        memcpy(part + b * rows * D, x + (b * n + from) * D, (size_t)(rows * D) * sizeof *x);
    nsm_tensor *in = tensor(s->ctx, rows, part),
               *out = nsm_mixer_forward(s->tape, s->m, in, NULL, state);
    ck_ok(s->ctx);
    nsm_tensor_get(out, part);
    for (int64_t b = 0; b < B; b++)
        memcpy(y + (b * n + from) * D, part + b * rows * D, (size_t)(rows * D) * sizeof *x);
    nsm_tape_reset(s->tape);
    nsm_tensor_free(in);
    free(part);
}

static void steps(subject *s, nsm_state *state, int64_t n, const float *x, int64_t from, int64_t to,
                  float *y)
{
    float part[B * D];
    nsm_tape_inference(s->tape, true);
    for (int64_t t = from; t < to; t++) {
        for (int64_t b = 0; b < B; b++) memcpy(part + b * D, x + (b * n + t) * D, D * sizeof *x);
        nsm_tensor *in = nsm_tensor_from(s->ctx, NSM_F32, 2, (int64_t[]){ B, D }, part),
                   *out = nsm_mixer_step(s->tape, s->m, in, state);
        ck_ok(s->ctx);
        nsm_tensor_get(out, part);
        for (int64_t b = 0; b < B; b++) memcpy(y + (b * n + t) * D, part + b * D, D * sizeof *x);
        nsm_tape_reset(s->tape);
        nsm_tensor_free(in);
    }
    nsm_tape_inference(s->tape, false);
}

static void check(const subject *s, const char *what, int64_t n, const float *a, const float *b)
{
    double e = test_difference(a, b, B * n * D, 1e-6);
    ck_assert_msg(e < 2e-4, "%s: %s of %lld tokens: %g", s->m->type->name, what, (long long)n, e);
}

/* Whole, pieces (trained and not), steps; a state handed over through a file. */
static void forms(const char *type, const char *options)
{
    subject s = subject_new(2, type, options, true);
    float *x = malloc(B * LONGEST * D * 3 * sizeof *x), *y = x + B * LONGEST * D,
          *z = y + B * LONGEST * D;
    char path[] = "/tmp/nsm-mixer-XXXXXX";
    close(mkstemp(path));
    for (int i = 0; i < 7; i++) {
        int64_t n = lengths[i], cut = n / 3;
        test_random(11, B * n * D, x);
        piece(&s, NULL, n, x, 0, n, y);
        for (int64_t k = 0; k < B * n * D; k++) ck_assert(isfinite(y[k]));
        if (!carried(s.m)) continue;
        nsm_state *state = nsm_mixer_state(s.m, B), *other = nsm_mixer_state(s.m, B);
        steps(&s, state, n, x, 0, n, z);
        check(&s, "steps", n, z, y);
        ck_assert(state->tokens == n);
        nsm_mixer_restart(s.m, state);
        if (cut) piece(&s, state, n, x, 0, cut, z);
        nsm_tape_inference(s.tape, true);
        piece(&s, state, n, x, cut, n - cut, z);
        nsm_tape_inference(s.tape, false);
        nsm_state_save(state, path);
        nsm_state_load(other, path);
        ck_ok(s.ctx);
        steps(&s, other, n, x, n - cut, n, z);
        check(&s, "pieces", n, z, y);
        float *again = malloc((size_t)(B * n * D) * sizeof *again);
        memcpy(again, z, (size_t)(B * n * D) * sizeof *again);
        steps(&s, state, n, x, n - cut, n, again);
        ck_assert_msg(!memcmp(again, z, (size_t)(B * n * D) * sizeof *z),
                      "%s: a state read back is another", type);
        free(again);
        nsm_state_free(state);
        nsm_state_free(other);
    }
    unlink(path);
    free(x);
    subject_free(&s);
}

/* What comes later changes nothing before, at all; a two-way mixer must show that it does. */
static void causality(const char *type, const char *options)
{
    enum { N = 130 };
    subject s = subject_new(2, type, options, true);
    static float x[B * N * D], y[B * N * D], z[B * N * D];
    static const int64_t from[] = { 1, 2, 31, 32, 64, 65, 127, 129 };
    for (int i = 0; i < 8; i++) {
        double moved = 0;
        test_random(13, B * N * D, x);
        if (i == 0) piece(&s, NULL, N, x, 0, N, y);
        for (int64_t b = 0; b < B; b++)
            test_random(17 + (uint64_t)i, (N - from[i]) * D, x + (b * N + from[i]) * D);
        piece(&s, NULL, N, x, 0, N, z);
        for (int64_t b = 0; b < B; b++)
            for (int64_t k = 0; k < from[i] * D; k++)
                moved = fmax(moved, fabs((double)(z[b * N * D + k] - y[b * N * D + k])));
        if (s.m->two_way) ck_assert_msg(moved > 1e-4, "%s: calls itself two-way and is not", type);
        else
            ck_assert_msg(moved == 0, "%s: outputs before %lld moved by %g", type,
                          (long long)from[i], moved);
    }
    subject_free(&s);
}

/* Rows of 0, 40 and 70 tokens in one batch: outputs and states are those of the rows alone. */
static void padding(const char *type, const char *options)
{
    enum { N = 70, AFTER = 5 };
    subject s = subject_new(2, type, options, true);
    const int32_t length[B] = { 1, 40, N };
    static float x[B * N * D], other[B * N * D], y[B * N * D], z[B * N * D], next[B * AFTER * D],
        after[B * AFTER * D], want[B * AFTER * D];
    nsm_tensor *lengths_of = nsm_tensor_from(s.ctx, NSM_I32, 1, (int64_t[]){ B }, length);
    test_random(19, B * N * D, x);
    test_random(23, B * N * D, other);
    test_random(29, B * AFTER * D, next);
    for (int64_t b = 0; b < B; b++)
        memcpy(other + b * N * D, x + b * N * D, (size_t)(length[b] * D) * sizeof *x);
    const float *in[2] = { x, other };
    float *out[2] = { y, z };
    for (int i = 0; i < 2; i++) { /* the padding is other, the rest the same */
        nsm_state *state = carried(s.m) ? nsm_mixer_state(s.m, B) : NULL;
        nsm_tensor *t = tensor(s.ctx, N, in[i]);
        nsm_tensor_get(nsm_mixer_forward(s.tape, s.m, t, lengths_of, state), out[i]);
        ck_ok(s.ctx);
        nsm_tape_reset(s.tape);
        nsm_tensor_free(t);
        if (state) steps(&s, state, AFTER, next, 0, AFTER, i ? want : after);
        nsm_state_free(state);
    }
    for (int64_t b = 0; b < B; b++)
        ck_assert_msg(!memcmp(y + b * N * D, z + b * N * D, (size_t)(length[b] * D) * sizeof *y),
                      "%s: row %d sees its padding", type, (int)b);
    for (int64_t b = 0; b < B; b++) { /* the row alone, without padding */
        int64_t n = length[b];
        nsm_tensor *t = nsm_tensor_from(s.ctx, NSM_F32, 3, (int64_t[]){ 1, n, D }, x + b * N * D);
        nsm_state *state = carried(s.m) ? nsm_mixer_state(s.m, 1) : NULL;
        nsm_tensor_get(nsm_mixer_forward(s.tape, s.m, t, NULL, state), z);
        ck_ok(s.ctx);
        double e = test_difference(y + b * N * D, z, n * D, 1e-6);
        ck_assert_msg(e < 2e-4, "%s: row %d of %lld alone: %g", type, (int)b, (long long)n, e);
        nsm_tensor_free(t);
        t = nsm_tensor_from(s.ctx, NSM_F32, 3, (int64_t[]){ 1, AFTER, D }, next + b * AFTER * D);
        if (state) nsm_tensor_get(nsm_mixer_forward(s.tape, s.m, t, NULL, state), z);
        nsm_tape_reset(s.tape);
        e = state ? fmax(test_difference(after + b * AFTER * D, z, AFTER * D, 1e-6),
                         test_difference(want + b * AFTER * D, z, AFTER * D, 1e-6))
                  : 0;
        ck_assert_msg(e < 2e-4, "%s: after row %d of %lld: %g", type, (int)b, (long long)n, e);
        nsm_tensor_free(t);
        nsm_state_free(state);
    }
    nsm_tensor_free(lengths_of);
    subject_free(&s);
}

/* ---- gradients ---- */
/* sum of c * y over two segments with a carried state (or one, where none is carried): the loss,
 * and gradients. */
static double loss_of(subject *s, nsm_tensor *x[2], const float *c, int segments, bool back)
{
    double loss = 0;
    nsm_state *state = segments > 1 ? nsm_mixer_state(s->m, B) : NULL;
    for (int i = 0; i < segments; i++) {
        nsm_tensor *y = nsm_mixer_forward(s->tape, s->m, x[i], NULL, state);
        ck_ok(s->ctx);
        int64_t n = nsm_numel(y);
        float *host = malloc((size_t)n * sizeof *host);
        nsm_tensor_get(y, host);
        if (i == segments - 1) /* gradients stop at the state: only the last segment's are whole */
            for (int64_t k = 0; k < n; k++) loss += (double)c[k] * (double)host[k];
        if (back && i == segments - 1) {
            nsm_tape_seed(s->tape, y, c);
            nsm_tape_backward(s->tape, NULL);
        }
        nsm_tape_reset(s->tape);
        free(host);
    }
    ck_ok(s->ctx);
    nsm_state_free(state);
    return loss;
}

/* Along a random direction v of tensor t: g . v and the difference quotient. */
static void slope(subject *s, nsm_tensor *t, const char *name, nsm_tensor *x[2], const float *c,
                  int segments)
{
    int64_t n = nsm_numel(t);
    float *old = malloc((size_t)n * 3 * sizeof *old), *v = old + n, *moved = v + n;
    double along = 0, norm = 0, h = 2e-3, f[4];
    const double at[4] = { 1, -1, 2, -2 };
    nsm_tensor_get_grad(t, v);
    for (int64_t k = 0; k < n; k++) norm += (double)v[k] * (double)v[k];
    for (int64_t k = 0; k < n; k++) along += (double)v[k] * (double)v[k];
    nsm_tensor_get(t, old);
    norm = sqrt(norm) + 1e-9;
    for (int p = 0; p < 4; p++) { /* down the gradient itself: the largest slope there is */
        for (int64_t k = 0; k < n; k++)
            moved[k] = (float)((double)old[k] + at[p] * h * (double)v[k] / norm);
        nsm_tensor_set(t, moved);
        f[p] = loss_of(s, x, c, segments, false);
    }
    nsm_tensor_set(t, old);
    double have = (8 * (f[0] - f[1]) - (f[2] - f[3])) / (12 * h);
    ck_assert_msg(fabs(have - along / norm) < 3e-2 * fabs(along / norm) + 2e-2,
                  "%s: gradient of %s with %d segments: the slope is %g, the gradient says %g",
                  s->m->type->name, name, segments, have, along / norm);
    free(old);
}

/* A difference quotient steps over what is discrete, and round what turns fast: systems that choose
 * are tried where there is no choice, S4D's modes where they turn slowly. */
static bool has_slope(const char *type, const char *options)
{
    if (!strcmp(type, "s4d")) return options != NULL;
    return strcmp(type, "nsm") || (options && strstr(options, "s=6 s0=6 topk=6"));
}

static void gradients(const char *type, const char *options)
{
    enum { N = 37 };
    if (!has_slope(type, options)) return;
    subject s = subject_new(2, type, options, false);
    static float host[B * N * D], c[B * N * D];
    nsm_tensor *x[2];
    for (int i = 0; i < 2; i++) {
        test_random(31 + (uint64_t)i, B * N * D, host);
        x[i] = tensor(s.ctx, N, host);
        x[i]->needs_grad = true;
    }
    test_random(37, B * N * D, c);
    for (int segments = 1; segments <= (carried(s.m) ? 2 : 1); segments++) {
        nsm_module_zero_grad(&s.m->module);
        nsm_tensor_zero_grad(x[0]);
        nsm_tensor_zero_grad(x[1]);
        loss_of(&s, x, c, segments, true);
        slope(&s, x[segments - 1], "x", x, c, segments);
        for (int i = 0; i < s.m->module.params && segments == 1; i++)
            slope(&s, s.m->module.param[i].tensor, s.m->module.param[i].name, x, c, segments);
    }
    nsm_tensor_free(x[0]);
    nsm_tensor_free(x[1]);
    subject_free(&s);
}

/* Values and gradients, bit for bit. */
static void threads(const char *type, const char *options)
{
    enum { N = 300 };
    static float host[B * N * D], first[2][B * N * D], now[2][B * N * D];
    const int count[] = { 1, 2, 3, 5 };
    test_random(41, B * N * D, host);
    for (int i = 0; i < 4; i++) {
        subject s = subject_new(count[i], type, options, true);
        nsm_tensor *x = tensor(s.ctx, N, host), *y;
        x->needs_grad = true;
        y = nsm_mixer_forward(s.tape, s.m, x, NULL, NULL);
        nsm_tensor_get(y, now[0]);
        nsm_tape_seed(s.tape, y, host);
        nsm_tape_backward(s.tape, NULL);
        nsm_tensor_get_grad(x, now[1]);
        ck_ok(s.ctx);
        if (i == 0) memcpy(first, now, sizeof now);
        ck_assert_msg(!memcmp(first, now, sizeof now), "%s: %d threads give other bits", type,
                      count[i]);
        nsm_tensor_free(x);
        subject_free(&s);
    }
}

static const char *brutal_type, *brutal_options;
static void make_and_use(nsm_ctx *ctx)
{
    nsm_mixer *m = nsm_mixer_new(ctx, brutal_type,
                                 &(nsm_mixer_config){ .width = D, .options = brutal_options });
    nsm_tape *tape = nsm_tape_new(ctx);
    nsm_tensor *x = nsm_tensor_new(ctx, NSM_F32, 3, (int64_t[]){ B, 6, D });
    if (x) nsm_tensor_fill(x, 0.5f);
    if (x) x->needs_grad = true;
    nsm_state *s = m && carried(m) ? nsm_mixer_state(m, B) : NULL;
    nsm_tensor *y = x ? nsm_mixer_forward(tape, m, x, NULL, s) : NULL;
    if (y) nsm_tape_backward(tape, nsm_sum(tape, y, NSM_ALL, false));
    nsm_state_free(s);
    nsm_tensor_free(x);
    nsm_tape_free(tape);
    nsm_mixer_free(m);
}

static void memory(const char *type, const char *options)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    brutal_type = type;
    brutal_options = options;
    ck_assert_int_gt(test_brutal(make_and_use, ctx), 5);
    nsm_ctx_free(ctx);
}

/* What has been asked of the system so far. */
static int64_t asked(const nsm_ctx *ctx) { return ctx->allocations - ctx->reused; }

/* Steps of training and of decoding: the first ones fill the cache, those after them take from
 * it. */
static void steady(const char *type, const char *options)
{
    enum { N = 70, WARM = 4, STEPS = 12 };
    static float host[B * N * D];
    subject s = subject_new(2, type, options, false);
    test_random(43, B * N * D, host);
    nsm_tensor *x = tensor(s.ctx, N, host),
               *one = nsm_tensor_from(s.ctx, NSM_F32, 2, (int64_t[]){ B, D }, host);
    int64_t before = 0;
    x->needs_grad = true;
    for (int i = 0; i < STEPS; i++) {
        if (i == WARM) before = asked(s.ctx);
        nsm_tape_backward(s.tape, nsm_sum(s.tape, nsm_mixer_forward(s.tape, s.m, x, NULL, NULL),
                                          NSM_ALL, false));
        nsm_tape_reset(s.tape);
    }
    ck_assert_msg(asked(s.ctx) == before, "%s: %lld allocations in %d steps of training", type,
                  (long long)(asked(s.ctx) - before), STEPS - WARM);
    nsm_state *state = carried(s.m) ? nsm_mixer_state(s.m, B) : NULL;
    if (state) nsm_state_reserve(state, STEPS);
    nsm_tape_inference(s.tape, true);
    for (int i = 0; state && i < STEPS; i++) {
        if (i == WARM) before = asked(s.ctx);
        nsm_mixer_step(s.tape, s.m, one, state);
        nsm_tape_reset(s.tape);
    }
    ck_ok(s.ctx);
    ck_assert_msg(asked(s.ctx) == before, "%s: %lld allocations in %d steps of decoding", type,
                  (long long)(asked(s.ctx) - before), STEPS - WARM);
    nsm_state_free(state);
    nsm_tensor_free(x);
    nsm_tensor_free(one);
    subject_free(&s);
}

/* A mixer that says whence it takes what it tells: shares, none of them of a later token; errors
 * where they are due. */
static void flow(const char *type, const char *options)
{
    enum { N = 70 };
    static float share[N * N], x[B * N * D];
    subject s = subject_new(2, type, options, true);
    test_random(3, B * N * D, x);
    if (!s.m->type->weights) {
        ck_assert_int_eq(nsm_mixer_watch(s.m, true), NSM_EINVAL);
        ck_error(s.ctx, NSM_EINVAL);
        ck_assert_int_eq(nsm_mixer_flow(s.m, 0, N, share), NSM_EINVAL);
        ck_error(s.ctx, NSM_EINVAL);
        subject_free(&s);
        return;
    }
    nsm_tensor *in = tensor(s.ctx, N, x);
    ck_assert_int_eq(nsm_mixer_flow(s.m, 0, N, share), NSM_EINVAL); /* nothing was watched */
    ck_error(s.ctx, NSM_EINVAL);
    ck_assert_int_eq(nsm_mixer_watch(s.m, true), NSM_OK);
    nsm_mixer_forward(s.tape, s.m, in, NULL, NULL);
    ck_assert_int_eq(nsm_mixer_flow(s.m, B, N, share), NSM_ESHAPE);
    ck_error(s.ctx, NSM_ESHAPE);
    double most = 0;
    for (int64_t b = 0; b < B; b++) {
        ck_assert_int_eq(nsm_mixer_flow(s.m, b, N, share), NSM_OK);
        for (int64_t t = 0; t < N; t++) {
            double sum = 0;
            for (int64_t i = 0; i < N; i++) {
                ck_assert(share[t * N + i] >= 0 &&
                          (s.m->two_way || i <= t || share[t * N + i] == 0));
                sum += (double)share[t * N + i];
            }
            ck_assert_double_le(sum, 1 + 1e-5);
            most = fmax(most, sum);
        }
    }
    /* learned states alone: filed under no token */
    ck_assert(most > 0.05 || strstr(options ? options : "", "s0=6"));
    nsm_mixer_watch(s.m, false);
    nsm_tensor_free(in);
    subject_free(&s);
}

static void for_all(void (*test)(const char *type, const char *options))
{
    for (const nsm_mixer_type *const *t = nsm_mixer_types(); *t; t++) test((*t)->name, NULL);
    for (int i = 0; i < MORE; i++) test(more[i].type, more[i].options);
}

#define ALL(name)                               \
    START_TEST(test_##name) { for_all(name); } \
    END_TEST
ALL(forms)
ALL(causality)
ALL(padding)
ALL(gradients)
ALL(threads)
ALL(memory)
ALL(steady)
ALL(flow)

/* Attention as it is told is what the outputs are made with: y = flow (x W_v^T) W_out^T, in every
 * head. */
START_TEST(attention)
{
    enum { N = 20 };
    subject s = subject_new(1, "transformer", "heads=1 bias=false rotary=true window=9", true);
    nsm_tensor *w = nsm_module_find(&s.m->module, "qkv.weight"),
               *out = nsm_module_find(&s.m->module, "out.weight");
    static float x[B * N * D], y[B * N * D], qkv[3 * D * D], o[D * D], share[N * N];
    test_random(4, B * N * D, x);
    nsm_tensor_get(w, qkv);
    nsm_tensor_get(out, o);
    nsm_tensor *in = tensor(s.ctx, N, x);
    nsm_mixer_watch(s.m, true);
    nsm_tensor *told = nsm_mixer_forward(s.tape, s.m, in, NULL, NULL);
    ck_assert_int_eq(nsm_tensor_get(told, y), NSM_OK);
    for (int64_t b = 0; b < B; b++) {
        ck_assert_int_eq(nsm_mixer_flow(s.m, b, N, share), NSM_OK);
        for (int64_t t = 0; t < N; t++) {
            double read[D] = { 0 };
            for (int64_t i = 0; i < N; i++)
                for (int64_t c = 0; c < D; c++)
                    for (int64_t k = 0; k < D; k++)
                        read[c] += (double)share[t * N + i] * (double)qkv[(2 * D + c) * D + k] *
                                   (double)x[(b * N + i) * D + k];
            for (int64_t c = 0; c < D; c++) {
                double sum = 0;
                for (int64_t k = 0; k < D; k++) sum += (double)o[c * D + k] * read[k];
                ck_assert_double_le(fabs(sum - (double)y[(b * N + t) * D + c]),
                                    1e-3 * fmax(1, fabs(sum)));
            }
        }
    }
    nsm_tensor_free(in);
    subject_free(&s);
}
END_TEST

/* Parameter `to` of a is rows from .. of parameter `from` of b. */
static void take_rows(subject *a, const char *to, subject *b, const char *from, int64_t first)
{
    nsm_tensor *x = nsm_module_find(&a->m->module, to), *y = nsm_module_find(&b->m->module, from);
    ck_assert_msg(x && y, "%s, %s", to, from);
    int64_t cols = nsm_numel(y) / y->dim[0];
    float *host = malloc((size_t)nsm_numel(y) * sizeof *host);
    nsm_tensor_get(y, host);
    ck_assert_int_le(first * cols + nsm_numel(x), nsm_numel(y));
    nsm_tensor_set(x, host + first * cols);
    free(host);
}

/* A dense head of the state memory, its window shut out, is a head of Gated DeltaNet. */
START_TEST(dense)
{
    enum { N = 70, DK = 6, DV = 9 };
    static const char *const same[][2] = {
        { "q_proj.weight", "w_q" },      { "k_proj.weight", "w_k" },
        { "v_proj.weight", "w_v" },      { "q_conv1d.weight", "conv_q" },
        { "k_conv1d.weight", "conv_k" }, { "v_conv1d.weight", "conv_v" },
        { "b_proj.weight", "w_beta" },   { "a_proj.weight", "w_fade" },
        { "dt_bias", "b_fade" },         { "A_log", "log_fade" },
        { "o_norm.weight", "norm_mem" },
    };
    static const int64_t first[] = { DK, DK, DV, DK, DK, DV, 1, 0, 0, 0, 1 };
    static float x[B * N * D], y[B * N * D], z[B * N * D], out[D * 2 * DV], own[D * DV];
    subject a = subject_new(2, "gated_deltanet",
                            "heads=1 head_dim=6 expand_v=1.5 gate=false norm_eps=1.66666667e-6",
                            true),
            b = subject_new(2, "nsm", "heads=2 dense_heads=1 dk=6 dv=9 s=5", true);
    for (int i = 0; i < 11; i++) take_rows(&a, same[i][0], &b, same[i][1], first[i]);
    nsm_tensor_get(nsm_module_find(&b.m->module, "w_out"), out);
    for (int i = 0; i < D; i++) {
        memset(out + i * 2 * DV, 0, DV * sizeof *out); /* nothing of the other head */
        memcpy(own + i * DV, out + i * 2 * DV + DV, DV * sizeof *own);
    }
    nsm_tensor_set(nsm_module_find(&b.m->module, "w_out"), out);
    nsm_tensor_set(nsm_module_find(&a.m->module, "o_proj.weight"), own);
    nsm_tensor_zero(nsm_module_find(&b.m->module, "b_beta"));
    nsm_tensor_zero(nsm_module_find(&b.m->module, "w_gate"));
    nsm_tensor_fill(nsm_module_find(&b.m->module, "b_gate"), 60);
    test_random(6, B * N * D, x);
    piece(&a, NULL, N, x, 0, N, y);
    piece(&b, NULL, N, x, 0, N, z);
    check(&b, "a dense head", N, z, y);
    subject_free(&a);
    subject_free(&b);
}
END_TEST

/* A gate by SiLU begins open over pools and with no sign over dense heads; a share has none. */
START_TEST(gate)
{
    enum { H = 3, DENSE = 1, DV = 5 };
    static const struct {
        const char *options;
        float open;
    } start[] = {
        { "heads=3 dense_heads=1 dk=4 dv=5 gate=silu", 1 },
        { "heads=3 dense_heads=1 dk=4 dv=5 gate=silu gate_bias=0.25", 0.25f },
        { "heads=3 dense_heads=1 dk=4 dv=5", 0 },
    };
    for (int i = 0; i < 3; i++) {
        float b[H * DV];
        subject s = subject_new(1, "nsm", start[i].options, false);
        nsm_tensor_get(nsm_module_find(&s.m->module, "b_gate"), b);
        for (int c = 0; c < H * DV; c++)
            ck_assert(b[c] == (c < (H - DENSE) * DV ? start[i].open : 0));
        subject_free(&s);
    }
}
END_TEST

/* What a pool keeps at every token at the start is told by decay_bias; the biases of dense heads
 * are their own. */
START_TEST(decay_bias)
{
    static const struct {
        const char *options;
        float bias;
    } start[] = {
        { "heads=3 dense_heads=1 decay=true", 6 },
        { "heads=3 dense_heads=1 decay=true decay_bias=-0.5", -0.5f },
    };
    for (int i = 0; i < 2; i++) {
        float b[2], fade;
        subject s = subject_new(1, "nsm", start[i].options, false);
        nsm_tensor_get(nsm_module_find(&s.m->module, "b_alpha"), b);
        nsm_tensor_get(nsm_module_find(&s.m->module, "b_fade"), &fade);
        ck_assert(b[0] == start[i].bias && b[1] == start[i].bias && fade == -4);
        subject_free(&s);
    }
}
END_TEST

START_TEST(errors)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    static const char *const wrong[] = { "heads=0",   "heads=5",      "heads",
                                         "head=3",    "causal=maybe", "heads=4 kv_heads=3",
                                         "heads=2.5", "rotary_base=x" };
    for (int i = 0; i < 8; i++) {
        ck_assert(!nsm_mixer_new(ctx, "transformer",
                                 &(nsm_mixer_config){ .width = D, .options = wrong[i] }));
        ck_error(ctx, NSM_EINVAL);
    }
    static const char *const dense_wrong[] = { "dense_heads=4", "dense_heads=-1",
                                               "dk=600 dense_heads=1",
                                               "dense_heads=2 clock_heads=3" };
    for (int i = 0; i < 4; i++) {
        ck_assert(!nsm_mixer_new(ctx, "nsm",
                                 &(nsm_mixer_config){ .width = D, .options = dense_wrong[i] }));
        ck_error(ctx, NSM_EINVAL);
    }
    ck_assert(!nsm_mixer_new(ctx, "nothing", &(nsm_mixer_config){ .width = D }));
    ck_error(ctx, NSM_EINVAL);
    nsm_mixer *m = nsm_mixer_new(ctx, "transformer", &(nsm_mixer_config){ .width = D }),
              *two = nsm_mixer_new(ctx, "transformer",
                                   &(nsm_mixer_config){ .width = D, .options = "causal=false" });
    nsm_tape *tape = nsm_tape_new(ctx);
    nsm_state *s = nsm_mixer_state(m, 2), *bare = nsm_state_new(ctx, B);
    nsm_tensor *x = nsm_tensor_new(ctx, NSM_F32, 3, (int64_t[]){ B, 4, D }),
               *flat = nsm_tensor_new(ctx, NSM_F32, 2, (int64_t[]){ B, D });
    nsm_tensor_zero(x);
    nsm_tensor_zero(flat);
    ck_assert(!nsm_mixer_state(two, 2));
    ck_error(ctx, NSM_EINVAL);
    ck_assert(!nsm_mixer_forward(tape, m, flat, NULL, NULL));
    ck_error(ctx, NSM_ESHAPE);
    ck_assert(!nsm_mixer_forward(tape, m, x, NULL, s)); /* of another batch */
    ck_error(ctx, NSM_ESHAPE);
    ck_assert(!nsm_mixer_forward(tape, m, x, flat, NULL)); /* no lengths */
    ck_error(ctx, NSM_ESHAPE);
    ck_assert(!nsm_mixer_forward(tape, two, x, NULL, s));
    ck_error(ctx, NSM_EINVAL);
    ck_assert(!nsm_mixer_forward(tape, m, x, NULL, bare)); /* not a state of this mixer */
    ck_error(ctx, NSM_EINVAL);
    ck_assert(!nsm_mixer_step(tape, m, flat, NULL));
    ck_error(ctx, NSM_EINVAL);
    ck_assert(!nsm_mixer_forward(tape, m, NULL, NULL, NULL));
    ck_ok(ctx);
    nsm_tensor_free(x);
    nsm_tensor_free(flat);
    nsm_state_free(s);
    nsm_state_free(bare);
    nsm_tape_free(tape);
    nsm_mixer_free(m);
    nsm_mixer_free(two);
    nsm_ctx_free(ctx);
}
END_TEST

int main(void)
{
    return test_main("mixers",
                     (const TTest *const[]){ test_forms, test_causality, test_padding,
                                             test_gradients, test_threads, test_memory, test_steady,
                                             test_flow, attention, dense, gate, decay_bias, errors,
                                             NULL });
}
