/* tests/base/test_state.c - States: growth, order, copies, files that are whole, other, or
 * damaged. */
#include "config.h"
#include <unistd.h>
#include "base/state.h"
#include "tests/test.h"

enum { B = 3, D = 5 };

/* A state with every type, a part that grows and a child, after `tokens` tokens. */
static nsm_state *make(nsm_ctx *ctx, int64_t tokens, uint64_t seed)
{
    nsm_state *s = nsm_state_new(ctx, B), *c = nsm_state_new(ctx, B);
    float x[B * 2 * D];
    test_random(seed, B * 2 * D, x);
    nsm_tensor *h = nsm_state_add(s, "h", NSM_F32, 2, (int64_t[]){ 2, D });
    nsm_tensor *alive = nsm_state_add(s, "alive", NSM_U8, 1, (int64_t[]){ 2 });
    nsm_tensor *phase = nsm_state_add(c, "phase", NSM_F64, 0, NULL);
    nsm_state_add_growing(c, "k", NSM_F32, 1, (int64_t[]){ D });
    if (h) nsm_tensor_set(h, x);
    if (alive) nsm_tensor_set(alive, (uint8_t[]){ 1, 0, 1, 1, 0, (uint8_t)seed });
    if (phase) nsm_tensor_set(phase, (double[]){ 1.5, -1e300, (double)seed });
    for (int64_t t = 0; t < tokens && c && !nsmi_failed(ctx); t++) {
        float row[D];
        nsm_state_reserve(c, c->tokens + 1);
        nsm_tensor *k = nsm_state_get(c, "k");
        for (int64_t b = 0; b < B && !nsmi_failed(ctx); b++) {
            test_random(seed + (uint64_t)(100 * t + b), D, row);
            ctx->dev.be->to_device(&ctx->dev, sizeof row, row, k->f32 + (b * k->dim[1] + t) * D);
        }
        nsm_state_advance(c, 1, NULL);
    }
    nsm_state_child(s, "layer", c);
    return s;
}

/* A copy of a tensor on the host, to be freed. */
static char *host_of(const nsm_tensor *x)
{
    char *host = malloc((size_t)nsm_numel(x) * nsm_type_bytes(x->type) + 1);
    ck_assert(host && nsm_tensor_get(x, host) == NSM_OK);
    return host;
}

static bool equal(const nsm_state *a, const nsm_state *b)
{
    bool ok = a->tokens == b->tokens;
    for (int i = 0; i < a->parts; i++) {
        const nsm_tensor *x = a->part[i].tensor, *y = b->part[i].tensor;
        size_t row = nsm_type_bytes(x->type);
        for (int k = a->part[i].grows ? 2 : 1; k < x->rank; k++) row *= (size_t)x->dim[k];
        size_t used = a->part[i].grows ? row * (size_t)a->tokens : row;
        char *hx = host_of(x), *hy = host_of(y);
        for (int64_t r = 0; r < a->batch; r++)
            ok = ok && !memcmp(hx + (size_t)(a->part[i].grows ? r * x->dim[1] : r) * row,
                               hy + (size_t)(b->part[i].grows ? r * y->dim[1] : r) * row, used);
        free(hx);
        free(hy);
    }
    for (int i = 0; i < a->children; i++) ok = ok && equal(a->child[i].state, b->child[i].state);
    return ok;
}

START_TEST(files)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    char path[] = "/tmp/nsm-state-XXXXXX";
    close(mkstemp(path));
    static const int64_t tokens[] = { 0, 1, 200 };
    for (int i = 0; i < 3; i++) {
        nsm_state *s = make(ctx, tokens[i], 7), *other = make(ctx, 30, 8);
        ck_assert(!equal(s, other));
        ck_assert_int_eq(nsm_state_save(s, path), NSM_OK);
        ck_assert_int_eq(nsm_state_load(other, path), NSM_OK);
        ck_assert(equal(s, other));
        ck_assert_int_eq(nsm_state_bytes(s), B * (2 * D * 4 + 2 + 8 + tokens[i] * D * 4));
        nsm_state_free(s);
        nsm_state_free(other);
    }
    nsm_state *s = make(ctx, 9, 7), *before = make(ctx, 9, 7), *two = nsm_state_new(ctx, B);
    nsm_state_add(two, "h", NSM_F32, 2, (int64_t[]){ 2, D + 1 });
    ck_assert_int_eq(nsm_state_load(two, path), NSM_EFORMAT); /* of another shape */
    ck_error(ctx, NSM_EFORMAT);
    FILE *f = fopen(path, "r+b");
    fseek(f, 3000, SEEK_SET);
    int byte = fgetc(f);
    fseek(f, 3000, SEEK_SET);
    fputc(byte ^ 4, f);
    fclose(f);
    ck_assert_int_eq(nsm_state_load(s, path), NSM_EFORMAT);
    ck_error(ctx, NSM_EFORMAT);
    ck_assert(equal(s, before));
    unlink(path);
    nsm_state_free(s);
    nsm_state_free(before);
    nsm_state_free(two);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(rows)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    nsm_state *s = make(ctx, 70, 3), *t = make(ctx, 5, 4);
    ck_assert_int_eq(nsm_state_copy(t, s), NSM_OK);
    ck_assert(equal(s, t));
    nsm_state_reorder(t, (int32_t[]){ 2, 0, 1 });
    ck_ok(ctx);
    ck_assert(!equal(s, t));
    nsm_state_reorder(t, (int32_t[]){ 1, 2, 0 });
    ck_assert(equal(s, t));
    nsm_state_reorder(t, (int32_t[]){ 1, 3, 0 });
    ck_error(ctx, NSM_EINVAL);
    nsm_tensor *length = nsm_tensor_from(ctx, NSM_I32, 1, (int64_t[]){ B }, (int32_t[]){ 4, 0, 2 });
    nsm_state_zero(t);
    nsm_state_advance(t, 4, length);
    nsm_state_advance(t, 1, NULL);
    int64_t seen[B];
    nsm_tensor_get(t->seen, seen);
    ck_assert(seen[0] == 5 && seen[1] == 1 && seen[2] == 3 && t->tokens == 5);
    nsm_tensor_free(length);
    nsm_state_free(s);
    nsm_state_free(t);
    nsm_ctx_free(ctx);
}
END_TEST

static void run(nsm_ctx *ctx)
{
    nsm_state *s = make(ctx, 66, 1);
    nsm_state_reorder(s, (int32_t[]){ 0, 1, 1 });
    nsm_state_free(s);
}

START_TEST(memory)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    ck_assert_int_gt(test_brutal(run, ctx), 10);
    nsm_ctx_free(ctx);
}
END_TEST

int main(void) { return test_main("state", (const TTest *const[]){ files, rows, memory, NULL }); }
