/* tests/seq/test_reader.c - Questions about stories: equal to a plain recomputation where no mixer
 * is; what comes behind a row's question does not matter; every mixer; errors. */
#include "config.h"
#include "base/ops.h"
#include "seq/reader.h"
#include "tests/test.h"

enum { B = 3, S = 5, W = 4, V = 9, D = 8, A = 6, HOPS = 3, OUT = 7 };
static const int32_t sentences[B] = { 5, 1, 3 };

static nsm_reader *model_new(nsm_ctx *ctx, const char *mixer)
{
    return nsm_reader_new(
        ctx,
        &(nsm_reader_config){ .layers = { .mixer = mixer, .width = D, .layers = 1, .inner = -1 },
                              .vocab = V,
                              .outputs = OUT,
                              .words = W + 2,
                              .ages = A,
                              .hops = HOPS });
}

/* Words of any number in every sentence, ages from the question back. */
static void story(int32_t *word, int32_t *age)
{
    for (int i = 0; i < B * S * W; i++) word[i] = i % W < 1 + i / W % W ? (i * 7 + i / 5) % V : V;
    for (int i = 0; i < B * S; i++)
        age[i] = i % S < sentences[i / S] ? sentences[i / S] - 1 - i % S : 0;
}

static nsm_tensor *apply(nsm_tape *tape, nsm_reader *r, const int32_t *word, const int32_t *age)
{
    return nsm_reader_apply(tape, r,
                            nsm_tape_tensor(tape, NSM_I32, 3, (int64_t[]){ B, S, W }, word),
                            nsm_tape_tensor(tape, NSM_I32, 2, (int64_t[]){ B, S }, age), sentences);
}

/* The formula of reader.h, without a mixer: layers leave x as it is. */
static void plain(nsm_reader *r, const int32_t *word, const int32_t *age, float *y)
{
    nsm_module *of = nsm_reader_module(r);
    float *e = test_weights(of, "embed.weight"), *f = test_weights(of, "place.weight"),
          *a = test_weights(of, "age.weight"), *hop = test_weights(of, "hop.weight"),
          *head = test_weights(of, "head.weight"), *bias = test_weights(of, "head.bias"),
          *scale = test_weights(of, "norm.weight"), *shift = test_weights(of, "norm.bias");
    for (int b = 0; b < B; b++) {
        int at = b * S + sentences[b] - 1;
        double x[D], mean = 0, square = 0;
        for (int k = 0; k < D; k++) {
            x[k] = a[age[at] * D + k];
            for (int j = 0; j < W; j++)
                if (word[at * W + j] < V) x[k] += f[j * D + k] * e[word[at * W + j] * D + k];
            for (int t = 0; t < HOPS; t++) x[k] += hop[t * D + k];
            mean += x[k] / D;
        }
        for (int k = 0; k < D; k++) square += (x[k] - mean) * (x[k] - mean) / D;
        for (int k = 0; k < D; k++)
            x[k] = (x[k] - mean) / sqrt(square + 1e-5) * scale[k] + shift[k];
        for (int o = 0; o < OUT; o++) {
            double sum = bias[o];
            for (int k = 0; k < D; k++) sum += head[o * D + k] * x[k];
            y[b * OUT + o] = (float)sum;
        }
    }
    free(e), free(f), free(a), free(hop), free(head), free(bias), free(scale), free(shift);
}

START_TEST(formula)
{
    nsm_ctx *ctx = nsm_ctx_new(&(nsm_ctx_config){ .seed = 3 });
    nsm_reader *r = model_new(ctx, "none");
    nsm_tape *tape = nsm_tape_new(ctx);
    int32_t word[B * S * W], age[B * S];
    float have[B * OUT], y[B * OUT];
    story(word, age);
    nsm_tensor_get(apply(tape, r, word, age), have);
    ck_ok(ctx);
    plain(r, word, age, y);
    ck_assert(test_difference(have, y, B * OUT, 1e-3) < 1e-5);
    nsm_tape_free(tape);
    nsm_reader_free(r);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(mixers) /* each sees the story, and nothing behind the question; the word that is none
                      stays zeros */
{
    for (const nsm_mixer_type *const *type = nsm_mixer_types(); *type; type++) {
        nsm_ctx *ctx = nsm_ctx_new(&(nsm_ctx_config){ .seed = 3 });
        nsm_reader *r = model_new(ctx, (*type)->name);
        nsm_tape *tape = nsm_tape_new(ctx);
        int32_t word[B * S * W], age[B * S];
        float first[B * OUT], other[B * OUT];
        story(word, age);
        nsm_tape_inference(tape, true);
        nsm_tensor *y = apply(tape, r, word, age);
        nsm_tensor_get(y, first);
        for (int i = 0; i < S * W; i++)
            word[S * W + i] = i < W ? word[S * W + i] : 1; /* row 1: behind the question */
        word[0] = (word[0] + 1) % V;                       /* row 0: the first sentence */
        nsm_tensor_get(apply(tape, r, word, age), other);
        ck_ok(ctx);
        ck_assert_msg(!memcmp(first + OUT, other + OUT, OUT * sizeof *first),
                      "%s sees what stands behind the question", (*type)->name);
        ck_assert_msg(!strcmp((*type)->name, "none") ||
                          memcmp(first, other, OUT * sizeof *first),
                      "%s does not see the story", (*type)->name);
        nsm_tape_inference(tape, false);
        nsm_tape_backward(
            tape, nsm_mean(tape, nsm_square(tape, apply(tape, r, word, age)), NSM_ALL, false));
        ck_ok(ctx);
        nsm_tape_free(tape);
        nsm_reader_free(r);
        nsm_ctx_free(ctx);
    }
}
END_TEST

START_TEST(errors)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    ck_assert(!nsm_reader_new(
        ctx, &(nsm_reader_config){ .layers = { .mixer = "none", .width = D }, .vocab = V }));
    ck_error(ctx, NSM_EINVAL);
    ck_assert(!nsm_reader_new(
        ctx, &(nsm_reader_config){
                 .layers = { .mixer = "nobody", .width = D }, .vocab = V, .outputs = 2 }));
    ck_error(ctx, NSM_EINVAL);
    nsm_reader *r = model_new(ctx, "none");
    nsm_tape *tape = nsm_tape_new(ctx);
    int32_t word[B * S * W], age[B * S];
    story(word, age);
    nsm_tensor *words = nsm_tape_tensor(tape, NSM_I32, 3, (int64_t[]){ B, S, W }, word),
               *ages = nsm_tape_tensor(tape, NSM_I32, 2, (int64_t[]){ B, S }, age);
    ck_assert(!nsm_reader_apply(tape, r, ages, words, sentences));
    ck_error(ctx, NSM_ESHAPE);
    ck_assert(!nsm_reader_apply(tape, r, words, ages, (int32_t[]){ 1, 0, 1 }));
    ck_error(ctx, NSM_EINVAL);
    ck_assert(!nsm_reader_apply(tape, r, words, ages, (int32_t[]){ 1, S + 1, 1 }));
    ck_error(ctx, NSM_EINVAL);
    ck_assert(!nsm_reader_apply(tape, r, NULL, ages, sentences));
    ck_ok(ctx);
    nsm_tape_free(tape);
    nsm_reader_free(r);
    nsm_ctx_free(ctx);
}
END_TEST

static void run(nsm_ctx *ctx)
{
    int32_t word[B * S * W], age[B * S];
    story(word, age);
    nsm_reader *r = model_new(ctx, "none");
    nsm_tape *tape = nsm_tape_new(ctx);
    apply(tape, r, word, age);
    nsm_tape_free(tape);
    nsm_reader_free(r);
}
START_TEST(memory)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    ck_assert(test_brutal(run, ctx) > 10);
    nsm_ctx_free(ctx);
}
END_TEST

int main(void)
{
    return test_main("reader", (const TTest *const[]){ formula, mixers, errors, memory, NULL });
}
