/* tests/base/test_replay.c - What a pass may do and be replayed, what it may not, and when it is
 * recorded anew.  On the CPU, where nothing is replayed, the same numbers are asked for.
 * Passes of models are replayed in tests/seq/test_steps.c. */
#include "config.h"
#include "base/ops.h"
#include "base/optimizer.h"
#include "base/replay.h"
#include "tests/test.h"

enum { ROWS = 6, COLS = 4, WORDS = 5, RUNS = 6 };

/* An embedding, dropout, the sum of squares: one table, rows of indices. */
typedef struct {
    nsm_ctx *ctx;
    nsm_module m;
    nsm_tape *tape;
    nsm_tensor *table, *index[2], *loss;
    int which;         /* of the index tensors */
    bool copies, waits;
    int calls;
} model;

static void model_make(model *x, nsm_ctx *ctx)
{
    float numbers[WORDS * COLS];
    const int32_t at[ROWS] = { 0, 3, 1, 4, 4, 2 };
    *x = (model){ .ctx = ctx };
    nsm_module_init(&x->m, ctx);
    x->table = nsm_module_param(&x->m, "table", 2, (const int64_t[]){ WORDS, COLS });
    test_random(7, WORDS * COLS, numbers);
    nsm_tensor_set(x->table, numbers);
    x->index[0] = nsm_tensor_from(ctx, NSM_I32, 1, (const int64_t[]){ ROWS }, at);
    x->index[1] = nsm_tensor_from(ctx, NSM_I32, 1, (const int64_t[]){ ROWS - 2 }, at);
    x->loss = nsm_tensor_new(ctx, NSM_F32, 0, NULL);
    x->tape = nsm_tape_new(ctx);
}

static void model_free(model *x)
{
    nsm_tape_free(x->tape);
    nsm_tensor_free(x->index[0]);
    nsm_tensor_free(x->index[1]);
    nsm_tensor_free(x->loss);
    nsm_module_clear(&x->m);
}

static int pass(void *user)
{
    model *x = user;
    nsm_tensor *i = x->index[x->which];
    x->calls++;
    if (x->copies) i = nsm_tape_tensor(x->tape, NSM_I32, 1, (const int64_t[]){ 2 },
                                       (const int32_t[]){ 1, 2 });
    nsm_tensor *y = nsm_dropout(x->tape, nsm_embedding(x->tape, x->table, i, -1), 0.5f);
    nsm_tensor *l = nsm_sum(x->tape, nsm_square(x->tape, y), NSM_ALL, false);
    if (x->waits) nsm_tensor_item(l);
    nsm_tape_backward(x->tape, l);
    nsm_tensor_copy(x->loss, l);
    nsm_tape_reset(x->tape);
    return NSM_OK;
}

/* Gradients, and what else changes from run to run, of some passes of some models' first lives. */
typedef struct { float loss[RUNS], grad[RUNS][WORDS * COLS]; uint64_t drawn; } story;

static void live(model *x, nsm_replay *r, bool turns, story *s)
{
    nsm_random_set(x->ctx, (nsm_random){ 5, 0 });
    for (int k = 0; k < RUNS; k++) {
        x->which = turns ? k % 2 : 0;
        if (r) nsm_replay_run(r, x->which, pass, x);
        else pass(x);
        s->loss[k] = nsm_tensor_item(x->loss);
        nsm_tensor_get_grad(x->table, s->grad[k]);
        nsm_tensor_zero_grad(x->table);
    }
    s->drawn = nsm_random_get(x->ctx).offset;
    ck_ok(x->ctx);
}

static bool replays(const nsm_ctx *ctx) { return ctx->dev.be->record; }

/* The model's story with a replay is the one without; returns how many runs were replayed. */
static int64_t same_story(model *x, nsm_replay *r, bool turns)
{
    story plain, replayed;
    memset(&plain, 0, sizeof plain);
    memset(&replayed, 0, sizeof replayed);
    int64_t before = nsm_replay_count(r);
    live(x, NULL, turns, &plain);
    live(x, r, turns, &replayed);
    ck_assert_msg(!memcmp(&plain, &replayed, sizeof plain), "the stories differ");
    return nsm_replay_count(r) - before;
}

START_TEST(passes)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    model x;
    model_make(&x, ctx);
    nsm_replay *r = nsm_replay_new(&x.m);
    int64_t count = same_story(&x, r, false);
    ck_assert_int_eq(count, replays(ctx) ? RUNS - 3 : 0); /* two are watched, one is recorded */
    if (replays(ctx)) ck_assert_str_eq(nsm_replay_why(r), "");
    else ck_assert_msg(*nsm_replay_why(r), "a CPU replays");
    nsm_replay_free(r);
    r = nsm_replay_new(&x.m);
    same_story(&x, r, true); /* two shapes, by turns */
    ck_assert_int_eq(same_story(&x, r, true), replays(ctx) ? RUNS : 0);
    nsm_replay_free(r);
    setenv("NSM_REPLAY", "0", 1);
    r = nsm_replay_new(&x.m);
    ck_assert_int_eq(same_story(&x, r, false), 0);
    ck_assert_msg(*nsm_replay_why(r), "NSM_REPLAY=0 is not heard");
    unsetenv("NSM_REPLAY");
    nsm_replay_free(r);
    model_free(&x);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(refused)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    for (int how = 0; how < 2; how++) {
        model x;
        model_make(&x, ctx);
        x.copies = how == 0;
        x.waits = how == 1;
        nsm_replay *r = nsm_replay_new(&x.m);
        ck_assert_int_eq(same_story(&x, r, false), 0);
        ck_assert_int_eq(x.calls, 2 * RUNS);
        if (replays(ctx))
            ck_assert_str_eq(nsm_replay_why(r), how ? "the pass waits for the device"
                                                    : "the pass copies from the host");
        nsm_replay_free(r);
        model_free(&x);
    }
    nsm_ctx_free(ctx);
}
END_TEST

/* Gradients that are there already are added to, by calling the pass. */
START_TEST(added)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    float one[WORDS * COLS], two[WORDS * COLS];
    model x;
    model_make(&x, ctx);
    nsm_replay *r = nsm_replay_new(&x.m);
    same_story(&x, r, false);
    nsm_random_set(ctx, (nsm_random){ 5, 0 });
    nsm_replay_run(r, 0, pass, &x);
    nsm_tensor_get_grad(x.table, one);
    nsm_random_set(ctx, (nsm_random){ 5, 0 });
    nsm_replay_run(r, 0, pass, &x);
    nsm_tensor_get_grad(x.table, two);
    for (int i = 0; i < WORDS * COLS; i++) ck_assert(two[i] == 2 * one[i]);
    ck_ok(ctx);
    nsm_replay_free(r);
    model_free(&x);
    nsm_ctx_free(ctx);
}
END_TEST

/* Another seed, a table that stands elsewhere, scratch that has grown: recorded anew. */
START_TEST(moved)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    model x;
    model_make(&x, ctx);
    nsm_replay *r = nsm_replay_new(&x.m);
    same_story(&x, r, false);
    int64_t steady = same_story(&x, r, false);
    ck_assert_int_eq(steady, replays(ctx) ? RUNS : 0);
    nsm_tensor *other = nsm_tensor_new(ctx, NSM_F32, 2, x.table->dim);
    nsm_tensor_copy(other, x.table);
    void *data = x.table->data;
    x.table->data = other->data;
    nsm_tensor_fill(&(nsm_tensor){ .ctx = ctx, .type = NSM_F32, .rank = 1, .dim = { 1, 1, 1, 1, 1 },
                                   .data = data }, NAN);
    ck_assert_int_eq(same_story(&x, r, false), replays(ctx) ? RUNS - 3 : 0);
    x.table->data = data;
    nsm_tensor_copy(x.table, other);
    ctx->dev.moves++;
    ck_assert_int_eq(same_story(&x, r, false), replays(ctx) ? RUNS - 3 : 0);
    nsm_tensor_free(other);
    nsm_replay_free(r);
    model_free(&x);
    nsm_ctx_free(ctx);
}
END_TEST

/* What a replay finds is told as what a call finds. */
START_TEST(wrong)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    model x;
    model_make(&x, ctx);
    nsm_replay *r = nsm_replay_new(&x.m);
    same_story(&x, r, false);
    nsm_tensor_set(x.index[0], (const int32_t[ROWS]){ 0, 1, WORDS, 3, 4, 0 });
    nsm_replay_run(r, 0, pass, &x);
    nsm_tensor_item(x.loss);
    ck_error(ctx, NSM_EINVAL);
    nsm_tape_reset(x.tape);
    nsm_tensor_zero_grad(x.table);
    nsm_replay_free(r);
    ck_assert_ptr_null(nsm_replay_new(NULL));
    ck_assert_int_eq(nsm_replay_run(NULL, 0, pass, &x), NSM_EINVAL);
    model_free(&x);
    nsm_ctx_free(ctx);
}
END_TEST

static model shared;
static void make_one(nsm_ctx *ctx)
{
    (void)ctx;
    nsm_replay_free(nsm_replay_new(&shared.m));
}

START_TEST(memory)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    model_make(&shared, ctx);
    ck_assert_int_gt(test_brutal(make_one, ctx), 2);
    int64_t before = nsm_ctx_memory(ctx).used_bytes;
    nsm_replay *r = nsm_replay_new(&shared.m);
    same_story(&shared, r, true);
    nsm_replay_free(r);
    ck_assert_int_eq(nsm_ctx_memory(ctx).used_bytes, before);
    model_free(&shared);
    nsm_ctx_free(ctx);
}
END_TEST

int main(void)
{
    return test_main("replay", (const TTest *const[]){ passes, refused, added, moved, wrong, memory,
                                                       NULL });
}
