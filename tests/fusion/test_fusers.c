/* tests/fusion/test_fusers.c - What every fuser must do.  The list of systems is walked, so a new
 * one is tested by being listed; `more` adds options to try.
 *
 * For each, with learned readers and with queries: the order of a modality's elements does not
 * matter; neither do absent elements, a modality without any or one that is missing; gradients
 * reach every parameter and are those of difference quotients; the same bits for any number of
 * threads; parameters saved and read back give the same answers; what is seen are shares, the
 * product of their parts, and a closed state is not read; every allocation fails in turn; one clear
 * error for wrong input. */
#include "config.h"
#include <unistd.h>
#include "base/ops.h"
#include "base/safetensors.h"
#include "fusion/fuser.h"
#include "tests/test.h"

enum { B = 3, D = 12, F0 = 5, F1 = 7, N0 = 9, N1 = 6, N = N0 + N1, Q = 4, R = 2 };
static float x0[B * N0 * F0], x1[B * N1 * F1], query[B * R * Q], weight[B * R * D];

/* Options beside none. */
static const struct {
    const char *type, *options;
} more[] = {
    { "nsm", "slots=5 learned=2 topk=3 heads=3 rounds=2 tau_new=0.5" },
    { "perceiver", "latents=3 layers=1 blocks=2 heads=2 widening=1" },
    { "slot_attention", "slots=4 iterations=2 heads=3 fixed=true" },
    { "attention", "layers=1 heads=2 widening=3" },
    { "cross", "layers=3 heads=1 widening=1" },
    { "concat", "layers=3 hidden=10" },
};
enum { MORE = sizeof more / sizeof more[0] };

typedef struct {
    nsm_ctx *ctx;
    nsm_fuser *f;
    nsm_tape *tape;
    bool asked;
} subject;

static subject subject_new(int threads, const char *type, const char *options, bool asked)
{
    subject s = { .ctx = nsm_ctx_new(&(nsm_ctx_config){ .threads = threads, .seed = 3 }),
                  .asked = asked };
    s.f = nsm_fuser_new(s.ctx, type,
                        &(nsm_fuser_config){ .width = D,
                                             .modalities = 2,
                                             .features = { F0, F1 },
                                             .query_features = asked ? Q : 0,
                                             .readers = asked ? 0 : R,
                                             .options = options });
    s.tape = nsm_tape_new(s.ctx);
    ck_ok(s.ctx);
    test_random(1, B * N0 * F0, x0);
    test_random(2, B * N1 * F1, x1);
    test_random(3, B * R * Q, query);
    test_random(4, B * R * D, weight);
    return s;
}

static void subject_free(subject *s)
{
    nsm_tape_free(s->tape);
    nsm_fuser_free(s->f);
    nsm_ctx_free(s->ctx);
}

static nsm_tensor *elements(subject *s, int64_t n, int64_t features, const float *x)
{
    return nsm_tape_tensor(s->tape, NSM_F32, 3, (int64_t[]){ B, n, features }, x);
}

static nsm_tensor *lengths(subject *s, const int32_t *length)
{
    return nsm_tape_tensor(s->tape, NSM_I32, 1, (int64_t[]){ B }, length);
}

/* Without training, so that slots start from the noise that is kept. */
static nsm_tensor *apply(subject *s, const nsm_set_input *in, float *y)
{
    nsm_tape_inference(s->tape, true);
    nsm_tensor *q = s->asked ? elements(s, R, Q, query) : NULL,
               *out = nsm_fuser_apply(s->tape, s->f, in, q);
    ck_ok(s->ctx);
    nsm_tensor_get(out, y);
    for (int i = 0; i < B * R * D; i++) ck_assert(isfinite(y[i]));
    return out;
}

static void same(const subject *s, const char *what, const float *a, const float *b)
{
    double e = test_difference(a, b, B * R * D, 1e-6);
    ck_assert_msg(e < 2e-5, "%s: %s: %g", s->f->type->name, what, e);
}

/* Rows of x in reverse order, each set on its own. */
static void turn(int64_t n, int64_t features, const float *x, float *y)
{
    for (int64_t b = 0; b < B; b++)
        for (int64_t j = 0; j < n; j++)
            memcpy(y + (b * n + j) * features, x + (b * n + n - 1 - j) * features,
                   (size_t)features * sizeof *x);
}

static void order(const char *type, const char *options, bool asked)
{
    subject s = subject_new(2, type, options, asked);
    static float y[B * R * D], z[B * R * D], t0[B * N0 * F0], t1[B * N1 * F1];
    apply(&s,
          (nsm_set_input[]){ { elements(&s, N0, F0, x0), NULL },
                             { elements(&s, N1, F1, x1), NULL } },
          y);
    turn(N0, F0, x0, t0);
    turn(N1, F1, x1, t1);
    apply(&s,
          (nsm_set_input[]){ { elements(&s, N0, F0, t0), NULL },
                             { elements(&s, N1, F1, t1), NULL } },
          z);
    same(&s, "elements in another order", y, z);
    apply(&s, (nsm_set_input[]){ { elements(&s, N0, F0, x0), NULL }, { NULL, NULL } }, z);
    ck_assert_msg(test_difference(y, z, B * R * D, 1e-6) > 1e-3, "%s: a modality says nothing",
                  type);
    subject_free(&s);
}

static void absent(const char *type, const char *options, bool asked)
{
    subject s = subject_new(1, type, options, asked);
    static float y[B * R * D], z[B * R * D], other[B * N0 * F0];
    const int32_t none[B] = { 0 }, some[B] = { 4, N0, 1 };
    memcpy(other, x0, sizeof other);
    for (int64_t b = 0; b < B; b++) /* what is behind a length is of no account */
        for (int64_t k = some[b] * F0; k < N0 * F0; k++) other[b * N0 * F0 + k] = 100;
    nsm_tensor *a = elements(&s, N0, F0, x0), *b = elements(&s, N1, F1, x1);
    apply(&s, (nsm_set_input[]){ { a, lengths(&s, some) }, { b, NULL } }, y);
    apply(&s, (nsm_set_input[]){ { elements(&s, N0, F0, other), lengths(&s, some) }, { b, NULL } },
          z);
    same(&s, "other elements where none are", y, z);
    apply(&s, (nsm_set_input[]){ { nsm_slice(s.tape, a, 1, 0, 4), NULL }, { b, NULL } }, z);
    ck_assert(test_difference(y, z, R * D, 1e-6) < 2e-5); /* set 0 has its 4 elements alone */
    apply(&s, (nsm_set_input[]){ { a, NULL }, { NULL, NULL } }, y);
    apply(&s, (nsm_set_input[]){ { a, NULL }, { b, lengths(&s, none) } }, z);
    same(&s, "a modality whose elements are absent", y, z);
    apply(&s, (nsm_set_input[]){ { a, NULL }, { elements(&s, 0, F1, x1), NULL } }, z);
    same(&s, "a modality of no elements", y, z);
    apply(&s, (nsm_set_input[]){ { a, lengths(&s, none) }, { NULL, NULL } },
          z); /* nothing at all */
    subject_free(&s);
}

/* ---- gradients ---- */
static double loss_of(subject *s, bool back)
{
    static float y[B * R * D];
    double loss = 0;
    nsm_tape_inference(s->tape, false);
    nsm_tensor *q = s->asked ? elements(s, R, Q, query) : NULL,
               *out = nsm_fuser_apply(s->tape, s->f,
                                      (nsm_set_input[]){ { elements(s, N0, F0, x0), NULL },
                                                         { elements(s, N1, F1, x1), NULL } },
                                      q);
    nsm_tensor_get(out, y);
    for (int i = 0; i < B * R * D; i++) loss += (double)weight[i] * (double)y[i];
    if (back) nsm_tape_seed(s->tape, out, weight);
    if (back) nsm_tape_backward(s->tape, NULL);
    nsm_tape_reset(s->tape);
    ck_ok(s->ctx);
    return loss;
}

/* What a softmax cancels: no gradient but for rounding. */
static bool cancelled(const char *name)
{
    return strstr(name, "key.bias") || strstr(name, "norm_slots.bias");
}

/* A pool with a state for each element leaves none to the learned state, the only one that holds
 * something before: then the gates find nothing to keep. */
static bool roomy(const char *type, const char *options)
{
    return !strcmp(type, "nsm") && !options;
}

/* A difference quotient steps over what is discrete, and noise is drawn anew at every call. */
static bool has_slope(const char *type, const char *options)
{
    if (!strcmp(type, "slot_attention")) return options && strstr(options, "fixed=true");
    return strcmp(type, "nsm") != 0;
}

/* Along the gradient itself: its length, and the difference quotient. */
static void slope(subject *s, const char *name, nsm_tensor *t)
{
    int64_t n = nsm_numel(t);
    float *old = malloc((size_t)n * 3 * sizeof *old), *v = old + n, *moved = v + n;
    double norm = 0, h = 4e-3, f[2];
    nsm_tensor_get(t, old);
    nsm_tensor_get_grad(t, v);
    for (int64_t k = 0; k < n; k++) norm += (double)v[k] * (double)v[k];
    norm = sqrt(norm);
    for (int p = 0; p < 2; p++) {
        for (int64_t k = 0; k < n; k++)
            moved[k] = (float)((double)old[k] + (p ? -h : h) * (double)v[k] / (norm + 1e-12));
        nsm_tensor_set(t, moved);
        f[p] = loss_of(s, false);
    }
    nsm_tensor_set(t, old);
    double have = (f[0] - f[1]) / (2 * h);
    ck_assert_msg(fabs(have - norm) < 3e-2 * norm + 5e-3,
                  "%s: gradient of %s: the slope is %g, the gradient says %g", s->f->type->name,
                  name, have, norm);
    free(old);
}

static int check_gradient(void *user, const char *name, nsm_tensor *t, bool buffer)
{
    subject *s = user;
    int64_t n = nsm_numel(t);
    float *g = malloc((size_t)n * sizeof *g), most = 0;
    nsm_tensor_get_grad(t, g);
    for (int64_t k = 0; k < n; k++) most = fmaxf(most, fabsf(g[k]));
    ck_assert_msg(buffer || cancelled(name) || most > 1e-7f, "%s: no gradient reaches %s",
                  s->f->type->name, name);
    free(g);
    return 0;
}

static int check_slope(void *user, const char *name, nsm_tensor *t, bool buffer)
{
    if (!buffer && !cancelled(name)) slope(user, name, t);
    return 0;
}

static void gradients(const char *type, const char *options, bool asked)
{
    subject s = subject_new(2, type, options, asked);
    loss_of(&s, true);
    if (!roomy(type, options)) nsm_module_walk(nsm_fuser_module(s.f), check_gradient, &s);
    if (has_slope(type, options)) nsm_module_walk(nsm_fuser_module(s.f), check_slope, &s);
    subject_free(&s);
}

/* Values and gradients, bit for bit. */
static void threads(const char *type, const char *options, bool asked)
{
    static float first[2][B * N0 * F0], now[2][B * N0 * F0];
    memset(now, 0, sizeof now);
    for (int count = 1; count <= 5; count += 2) {
        subject s = subject_new(count, type, options, asked);
        nsm_tensor *x = nsm_tensor_from(s.ctx, NSM_F32, 3, (int64_t[]){ B, N0, F0 }, x0);
        x->needs_grad = true;
        nsm_tensor *y = nsm_fuser_apply(s.tape, s.f,
                                        (nsm_set_input[]){ { x, NULL },
                                                           { elements(&s, N1, F1, x1), NULL } },
                                        asked ? elements(&s, R, Q, query) : NULL);
        nsm_tensor_get(y, now[0]);
        nsm_tape_seed(s.tape, y, weight);
        nsm_tape_backward(s.tape, NULL);
        nsm_tensor_get_grad(x, now[1]);
        ck_ok(s.ctx);
        if (count == 1) memcpy(first, now, sizeof now);
        ck_assert_msg(!memcmp(first, now, sizeof now), "%s: %d threads give other bits", type,
                      count);
        nsm_tensor_free(x);
        subject_free(&s);
    }
}

/* Another fuser with the parameters of a file answers as the first. */
static void saved(const char *type, const char *options, bool asked)
{
    subject s = subject_new(1, type, options, asked);
    static float y[B * R * D], z[B * R * D];
    char path[] = "/tmp/nsm-fuser-XXXXXX";
    close(mkstemp(path));
    nsm_set_input in[2] = { { elements(&s, N0, F0, x0), NULL },
                            { elements(&s, N1, F1, x1), NULL } };
    apply(&s, in, y);
    nsm_safetensors_save(nsm_fuser_module(s.f), path, NULL);
    nsm_fuser *first = s.f;
    s.f = nsm_fuser_new(s.ctx, type,
                        &(nsm_fuser_config){ .width = D,
                                             .modalities = 2,
                                             .features = { F0, F1 },
                                             .query_features = asked ? Q : 0,
                                             .readers = R,
                                             .options = options });
    apply(&s, in, z);
    ck_assert_msg(memcmp(y, z, sizeof y), "%s: the draw is no other", type);
    nsm_safetensors_load(nsm_fuser_module(s.f), path, NULL);
    apply(&s, in, z);
    ck_assert_msg(!memcmp(y, z, sizeof y), "%s: what was read back is another", type);
    unlink(path);
    nsm_fuser_free(first);
    subject_free(&s);
}

/* ---- what is seen ---- */
static void flow(const char *type, const char *options, bool asked)
{
    subject s = subject_new(2, type, options, asked);
    static float share[R * N], y[B * R * D], z[B * R * D];
    const int32_t some[B] = { 4, N0, 0 };
    nsm_set_input in[2] = { { elements(&s, N0, F0, x0), lengths(&s, some) },
                            { elements(&s, N1, F1, x1), NULL } };
    if (!s.f->type->weights) {
        ck_assert_int_eq(nsm_fuser_watch(s.f, true), NSM_EINVAL);
        ck_error(s.ctx, NSM_EINVAL);
        ck_assert_int_eq(nsm_fuser_flow(s.f, 0, R, N, share), NSM_EINVAL);
        ck_error(s.ctx, NSM_EINVAL);
        subject_free(&s);
        return;
    }
    ck_assert_int_eq(nsm_fuser_flow(s.f, 0, R, N, share), NSM_EINVAL); /* nothing was watched */
    ck_error(s.ctx, NSM_EINVAL);
    apply(&s, in, y);
    ck_assert_int_eq(nsm_fuser_watch(s.f, true), NSM_OK);
    apply(&s, in, z);
    ck_assert(!memcmp(y, z, sizeof y)); /* watching changes nothing */
    ck_assert_int_eq(nsm_fuser_flow(s.f, B, R, N, share), NSM_ESHAPE);
    ck_error(s.ctx, NSM_ESHAPE);
    for (int64_t b = 0; b < B; b++) {
        ck_assert_int_eq(nsm_fuser_flow(s.f, b, R, N, share), NSM_OK);
        for (int64_t r = 0; r < R; r++) {
            double sum = 0;
            for (int64_t j = 0; j < N; j++) {
                ck_assert(share[r * N + j] >= 0);
                ck_assert(j < some[b] || j >= N0 || share[r * N + j] == 0);
                sum += (double)share[r * N + j];
            }
            ck_assert_double_le(sum, 1 + 1e-5);
            ck_assert_double_ge(sum, 0.2);
        }
    }
    subject_free(&s);
}

/* Shares are shares, their product is flow, and only nsm opens states: each at most once. */
static void check_parts(const subject *s, int states, int n, int there, const float *flow,
                        const nsm_fuser_parts *p)
{
    int opened = 0, once[64] = { 0 };
    for (int i = 0; i < states; i++) {
        double sum = 0;
        for (int j = 0; j < n; j++) {
            ck_assert(p->took[i * n + j] >= 0);
            ck_assert(j < there || j >= N0 || p->took[i * n + j] == 0);
            sum += (double)p->took[i * n + j];
        }
        ck_assert(p->mass[i] >= 0 && sum < 1 + 1e-4);
        ck_assert_msg(p->mass[i] < 0.01f || sum > 1 - 1e-3, "%s: a state took %g of all elements",
                      s->f->type->name, sum);
    }
    for (int r = 0; r < R; r++) {
        double sum = 0;
        for (int i = 0; i < states; i++) sum += (double)p->read[r * states + i];
        ck_assert_double_eq_tol(sum, 1, 1e-4);
        for (int j = 0; j < n; j++) {
            double product = 0;
            for (int i = 0; i < states; i++)
                product += (double)p->read[r * states + i] * (double)p->took[i * n + j];
            ck_assert_double_eq_tol(product, (double)flow[r * n + j], 1e-5);
        }
    }
    for (int j = 0; j < n; j++) {
        if (p->opened[j] < 0) continue;
        ck_assert(p->opened[j] < states && !once[p->opened[j]]++);
        ck_assert(j < there || j >= N0);
        opened++;
    }
    ck_assert((opened > 0) == !strcmp(s->f->type->name, "nsm"));
}

/* The parts of flow, and states closed to the readers. */
static void parts(const char *type, const char *options, bool asked)
{
    subject s = subject_new(2, type, options, asked);
    static float share[R * N], took[64 * N], read[R * 64], mass[64], y[B * R * D], z[B * R * D];
    static int32_t opened[N];
    static uint8_t closed[B * 64];
    const int32_t some[B] = { 4, N0, 0 };
    nsm_set_input in[2] = { { elements(&s, N0, F0, x0), lengths(&s, some) },
                            { elements(&s, N1, F1, x1), NULL } };
    const nsm_fuser_parts all = { took, read, mass, opened };
    int states = s.f->states;
    ck_assert((states > 0) == (s.f->type->states != NULL) && states <= 64);
    if (!states) {
        ck_assert_int_eq(nsm_fuser_look(s.f, 0, R, N, &all), NSM_EINVAL);
        ck_error(s.ctx, NSM_EINVAL);
        ck_assert_int_eq(nsm_fuser_close(s.f, 1, closed), NSM_EINVAL);
        ck_error(s.ctx, NSM_EINVAL);
        subject_free(&s);
        return;
    }
    ck_assert_int_eq(nsm_fuser_look(s.f, 0, R, N, &all), NSM_EINVAL); /* nothing was watched */
    ck_error(s.ctx, NSM_EINVAL);
    nsm_fuser_watch(s.f, true);
    apply(&s, in, y);
    ck_assert_int_eq(nsm_fuser_look(s.f, 0, R, N + 1, &all), NSM_ESHAPE);
    ck_error(s.ctx, NSM_ESHAPE);
    for (int64_t b = 0; b < B; b++) {
        ck_assert_int_eq(nsm_fuser_look(s.f, b, R, N, &all), NSM_OK);
        ck_assert_int_eq(nsm_fuser_flow(s.f, b, R, N, share), NSM_OK);
        check_parts(&s, states, N0 + N1, some[b], share, &all);
    }

    /* set 0 without the state that its first reader read most; then it, too, without any */
    nsm_fuser_look(s.f, 0, R, N, &(nsm_fuser_parts){ .read = read });
    int most = 0;
    for (int i = 1; i < states; i++)
        if (read[i] > read[most]) most = i;
    memset(closed, 0, sizeof closed);
    closed[most] = 1;
    ck_assert_int_eq(nsm_fuser_close(s.f, B, closed), NSM_OK);
    apply(&s, in, z);
    ck_assert_msg(test_difference(y, z, R * D, 1e-6) > 1e-4, "%s: a closed state says as much",
                  type);
    ck_assert(test_difference(y + R * D, z + R * D, (B - 1) * R * D, 1e-6) < 2e-5);
    nsm_fuser_look(s.f, 0, R, N, &(nsm_fuser_parts){ .read = read });
    ck_assert(read[most] == 0 && read[states + most] == 0);
    memset(closed, 1, sizeof closed);
    ck_assert_int_eq(nsm_fuser_close(s.f, 1, closed), NSM_OK);
    apply(&s, in, z); /* finite: see there */
    nsm_fuser_look(s.f, 1, R, N, &(nsm_fuser_parts){ .read = read });
    for (int i = 0; i < R * states; i++) ck_assert(read[i] == 0);
    ck_assert_int_eq(nsm_fuser_close(s.f, 2, closed), NSM_OK);
    ck_assert(!nsm_fuser_apply(s.tape, s.f, in, asked ? elements(&s, R, Q, query) : NULL));
    ck_error(s.ctx, NSM_ESHAPE);
    ck_assert_int_eq(nsm_fuser_close(s.f, 0, closed), NSM_EINVAL);
    ck_error(s.ctx, NSM_EINVAL);
    ck_assert_int_eq(nsm_fuser_close(s.f, 0, NULL), NSM_OK);
    apply(&s, in, z);
    ck_assert(!memcmp(y, z, sizeof y));
    subject_free(&s);
}

/* ---- failures ---- */
static const char *brutal_type, *brutal_options;
static bool brutal_asked;

static void make_and_use(nsm_ctx *ctx)
{
    const int32_t some[B] = { 4, N0, 0 };
    nsm_fuser *f = nsm_fuser_new(ctx, brutal_type,
                                 &(nsm_fuser_config){ .width = D,
                                                      .modalities = 2,
                                                      .features = { F0, F1 },
                                                      .query_features = brutal_asked ? Q : 0,
                                                      .readers = R,
                                                      .options = brutal_options });
    nsm_tape *tape = nsm_tape_new(ctx);
    if (f && tape) {
        subject s = { ctx, f, tape, brutal_asked };
        if (f->type->weights) nsm_fuser_watch(f, true);
        if (f->type->states) nsm_fuser_close(f, 1, (uint8_t[64]){ 1 });
        nsm_set_input in[2] = { { elements(&s, N0, F0, x0), lengths(&s, some) },
                                { elements(&s, N1, F1, x1), NULL } };
        nsm_tensor *q = brutal_asked ? elements(&s, R, Q, query) : NULL;
        if (in[0].x && in[0].length && in[1].x && (q || !brutal_asked)) {
            nsm_tensor *y = nsm_fuser_apply(tape, f, in, q);
            nsm_tape_backward(tape, nsm_sum(tape, y, NSM_ALL, false));
        }
    }
    nsm_tape_free(tape);
    nsm_fuser_free(f);
}

static void memory(const char *type, const char *options, bool asked)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    brutal_type = type;
    brutal_options = options;
    brutal_asked = asked;
    ck_assert_int_gt(test_brutal(make_and_use, ctx), 20);
    nsm_ctx_free(ctx);
}

static void for_all(void (*test)(const char *type, const char *options, bool asked))
{
    for (int asked = 0; asked < 2; asked++) {
        for (const nsm_fuser_type *const *t = nsm_fuser_types(); *t; t++)
            test((*t)->name, NULL, asked);
        for (int i = 0; i < MORE; i++) test(more[i].type, more[i].options, asked);
    }
}

#define ALL(name) \
    START_TEST(test_##name) { for_all(name); } \
    END_TEST
ALL(order)
ALL(absent)
ALL(gradients)
ALL(threads)
ALL(saved)
ALL(flow)
ALL(parts)
ALL(memory)

START_TEST(errors)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    static const nsm_fuser_config wrong[] = {
        { .width = 0, .modalities = 1, .features = { 2 } },
        { .width = 8, .modalities = 0 },
        { .width = 8, .modalities = 1 },
        { .width = 8, .modalities = 9, .features = { 1, 1, 1, 1, 1, 1, 1, 1 } },
        { .width = 8, .modalities = 1, .features = { 2 }, .readers = -1 },
        { .width = 8, .modalities = 1, .features = { 2 }, .options = "heads=3" },
        { .width = 8, .modalities = 1, .features = { 2 }, .options = "head=4" },
        { .width = 8, .modalities = 1, .features = { 2 }, .options = "latents=0" },
    };
    for (int i = 0; i < 8; i++) {
        ck_assert(!nsm_fuser_new(ctx, "perceiver", &wrong[i]));
        ck_error(ctx, NSM_EINVAL);
    }
    ck_assert(
        !nsm_fuser_new(ctx, "nothing",
                       &(nsm_fuser_config){ .width = 8, .modalities = 1, .features = { 2 } }));
    ck_error(ctx, NSM_EINVAL);
    ck_assert_int_eq(nsm_fuser_check(ctx, nsm_fuser_find("cross"), "layers", "2"), NSM_OK);
    ck_assert_int_eq(nsm_fuser_check(ctx, nsm_fuser_find("cross"), "layers", "x"), NSM_EINVAL);
    ck_error(ctx, NSM_EINVAL);
    nsm_ctx_free(ctx);

    subject s = subject_new(1, "cross", NULL, true), learned = subject_new(1, "cross", NULL, false);
    nsm_tensor *a = elements(&s, N0, F0, x0), *b = elements(&s, N1, F1, x1),
               *q = elements(&s, R, Q, query);
    nsm_set_input none[2] = { { NULL, NULL }, { NULL, NULL } },
                  wide[2] = { { b, NULL }, { b, NULL } }, flat[2] = { { a, q }, { b, NULL } },
                  good[2] = { { a, NULL }, { b, NULL } };
    ck_assert(!nsm_fuser_apply(s.tape, s.f, none, q));
    ck_error(s.ctx, NSM_EINVAL);
    ck_assert(!nsm_fuser_apply(s.tape, s.f, wide, q));
    ck_error(s.ctx, NSM_ESHAPE);
    ck_assert(!nsm_fuser_apply(s.tape, s.f, flat, q)); /* lengths that are none */
    ck_error(s.ctx, NSM_ESHAPE);
    ck_assert(!nsm_fuser_apply(s.tape, s.f, good, NULL));
    ck_error(s.ctx, NSM_ESHAPE);
    ck_assert(!nsm_fuser_apply(s.tape, s.f, good, a));
    ck_error(s.ctx, NSM_ESHAPE);
    nsm_set_input own[2] = { { elements(&learned, N0, F0, x0), NULL }, { NULL, NULL } };
    ck_assert(!nsm_fuser_apply(learned.tape, learned.f, own, own[0].x));
    ck_error(learned.ctx, NSM_ESHAPE);
    subject_free(&s);
    subject_free(&learned);
}
END_TEST

int main(void)
{
    return test_main("fusers",
                     (const TTest *const[]){ test_order, test_absent, test_gradients, test_threads,
                                             test_saved, test_flow, test_parts, test_memory,
                                             errors, NULL });
}
