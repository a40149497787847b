/* tests/base/test_checkpoint.c - Checkpoints: what is saved is what is loaded, equal runs write
 * equal bytes, damage is always noticed, nothing is applied in part, a killed writer leaves a whole
 * file. */
#include "config.h"
#include <glob.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "tests/test.h"
#include "base/checkpoint.h"

/* ---- a small run ---- */

typedef struct {
    nsm_ctx *ctx;
    nsm_module m, inner;
    nsm_optimizer *optimizer;
    nsm_ema *ema;
    nsm_random random;
    int64_t epoch, losses, order;
    double best;
    char *config;
    float *loss;
    int64_t *sampler;
    nsm_field field[6];
} run;

static void run_make(run *r, nsm_ctx *ctx, nsm_optimizer_kind kind)
{
    *r = (run){ .ctx = ctx, .best = -INFINITY };
    nsm_module_init(&r->m, ctx);
    nsm_module_init(&r->inner, ctx);
    nsm_module_param(&r->m, "weight", 2, (const int64_t[]){ 7, 5 });
    nsm_module_param(&r->m, "scale", 0, NULL);
    nsm_module_param(&r->inner, "weight", 1, (const int64_t[]){ 9 });
    nsm_module_param(&r->inner, "empty", 2, (const int64_t[]){ 0, 3 });
    nsm_module_buffer(&r->inner, "mean", 1, (const int64_t[]){ 5 });
    nsm_module_child(&r->m, "conv1.lin", &r->inner);
    r->optimizer = nsm_optimizer_new(&r->m, &(nsm_optimizer_config){ .kind = kind });
    r->ema = nsm_ema_new(&r->m, 0.9);
    const nsm_field field[] = {
        { .name = "epoch", .type = NSM_FIELD_INT, .value = &r->epoch },
        { .name = "best", .type = NSM_FIELD_DOUBLE, .value = &r->best },
        { .name = "config", .type = NSM_FIELD_TEXT, .value = &r->config },
        { .name = "loss", .type = NSM_FIELD_FLOATS, .value = &r->loss, .count = &r->losses },
        { .name = "sampler.order",
          .type = NSM_FIELD_INTS,
          .value = &r->sampler,
          .count = &r->order },
    };
    memcpy(r->field, field, sizeof field);
}

static void run_free(run *r)
{
    nsm_ema_free(r->ema);
    nsm_optimizer_free(r->optimizer);
    nsm_module_clear(&r->m);
    nsm_module_clear(&r->inner);
    free(r->config);
    free(r->loss);
    free(r->sampler);
}

static nsm_checkpoint contents(run *r)
{
    return (nsm_checkpoint){ .module = &r->m,
                             .optimizer = r->optimizer,
                             .ema = r->ema,
                             .random = &r->random,
                             .field = r->field,
                             .fields = 5 };
}

static int give_grad(void *user, const char *name, nsm_tensor *t, bool buffer)
{
    float x[64];
    bool fresh;
    (void)name;
    if (buffer) return 0;
    test_random(++*(uint64_t *)user, nsm_numel(t), x);
    if (nsmi_grad(t, &fresh))
        t->ctx->dev.be->to_device(&t->ctx->dev, (size_t)nsm_numel(t) * sizeof *x, x, t->grad);
    return nsm_error(t->ctx);
}

/* Steps of a training run; what they do depends on the state and on nothing else. */
static void train(run *r, int steps)
{
    for (int i = 0; i < steps && !nsm_error(r->ctx); i++) {
        uint64_t seed = 100 * (uint64_t)r->epoch + r->random.seed;
        nsm_module_walk(&r->m, give_grad, &seed);
        nsm_optimizer_step(r->optimizer, 0.01);
        nsm_ema_update(r->ema);
        r->epoch++;
        r->random.offset += 3;
        r->best = (double)r->epoch / 3;
        float *loss = realloc(r->loss, (size_t)(r->losses + 1) * sizeof *loss);
        int64_t *sampler = realloc(r->sampler, (size_t)(r->order + 1) * sizeof *sampler);
        ck_assert(loss && sampler);
        r->loss = loss;
        r->sampler = sampler;
        r->loss[r->losses++] = 1 / (float)r->epoch;
        r->sampler[r->order++] = r->epoch << 40;
    }
}

/* ---- files ---- */

static char folder[64];

static void make_folder(void)
{
    strcpy(folder, "/tmp/nsm-checkpoint-XXXXXX");
    ck_assert(mkdtemp(folder));
}

static void remove_folder(void)
{
    static const char *const patterns[] = { "/*", "/.*draft*" };
    for (int k = 0; k < 2; k++) {
        char pattern[128];
        glob_t found;
        snprintf(pattern, sizeof pattern, "%s%s", folder, patterns[k]);
        if (!glob(pattern, 0, NULL, &found))
            for (size_t i = 0; i < found.gl_pathc; i++) unlink(found.gl_pathv[i]);
        globfree(&found);
    }
    ck_assert_int_eq(rmdir(folder), 0);
}

static const char *in_folder(const char *name)
{
    static char path[2][128];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

static char *slurp(const char *path, size_t *bytes)
{
    FILE *f = fopen(path, "rb");
    ck_assert(f);
    fseek(f, 0, SEEK_END);
    *bytes = (size_t)ftell(f);
    rewind(f);
    char *data = malloc(*bytes + 1);
    ck_assert(data && fread(data, 1, *bytes, f) == *bytes);
    fclose(f);
    return data;
}

static void spill(const char *path, const char *data, size_t bytes)
{
    FILE *f = fopen(path, "wb");
    ck_assert(f && fwrite(data, 1, bytes, f) == bytes && !fclose(f));
}

static void ck_same_bytes(const char *a, const char *b)
{
    size_t m, n;
    char *x = slurp(a, &m), *y = slurp(b, &n);
    ck_assert_uint_eq(m, n);
    ck_assert_mem_eq(x, y, m);
    free(x);
    free(y);
}

/* ---- the tests ---- */

/* Save in mid-run, load into a fresh run, go on with both: the files they write are equal. */
START_TEST(resume)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    make_folder();
    for (int kind = 0; kind < NSM_OPTIMIZER_KINDS; kind++) {
        run a, b;
        run_make(&a, ctx, (nsm_optimizer_kind)kind);
        run_make(&b, ctx, (nsm_optimizer_kind)kind);
        a.random.seed = UINT64_MAX;
        a.config = strdup("model: gat\nheads: 8\n");
        train(&a, 4);
        nsm_checkpoint c = contents(&a), d = contents(&b);
        nsm_checkpoint_save(ctx, in_folder("middle.h5"), &c);
        nsm_checkpoint_load(ctx, in_folder("middle.h5"), &d);
        ck_ok(ctx);
        ck_assert_int_eq(b.epoch, 4);
        ck_assert_str_eq(b.config, a.config);
        ck_assert_int_eq(nsm_optimizer_steps(b.optimizer), 4);
        train(&a, 3);
        train(&b, 3);
        nsm_checkpoint_save(ctx, in_folder("a.h5"), &c);
        nsm_checkpoint_save(ctx, in_folder("b.h5"), &d);
        ck_ok(ctx);
        ck_same_bytes(in_folder("a.h5"), in_folder("b.h5"));
        run_free(&a);
        run_free(&b);
    }
    remove_folder();
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(doubles)
{
    static const double x[] = {
        0.1, -0.0, 5e-324, 1.7976931348623157e308, INFINITY, -INFINITY, NAN
    };
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    make_folder();
    for (size_t i = 0; i < sizeof x / sizeof *x; i++) {
        double y = x[i], z = 7;
        nsm_field save = { .name = "best", .type = NSM_FIELD_DOUBLE, .value = &y }, load = save;
        load.value = &z;
        nsm_checkpoint_save(ctx, in_folder("x.h5"),
                            &(nsm_checkpoint){ .field = &save, .fields = 1 });
        nsm_checkpoint_load(ctx, in_folder("x.h5"),
                            &(nsm_checkpoint){ .field = &load, .fields = 1 });
        ck_ok(ctx);
        ck_assert(isnan(y) ? isnan(z) : y == z && signbit(y) == signbit(z));
    }
    remove_folder();
    nsm_ctx_free(ctx);
}
END_TEST

static nsm_checkpoint weights_of(nsm_module *m) { return (nsm_checkpoint){ .module = m }; }

/* Every difference between file and model is named, and nothing has changed after it. */
START_TEST(mismatch)
{
    static const struct {
        const char *name;
        int rank;
        int64_t dim[2];
        const char *says;
    } other[] = {
        { "weight", 2, { 5, 7 }, "weights/weight is float32 [7,5], want float32 [5,7]" },
        { "weight", 1, { 35 }, "want float32 [35]" },
        { "bias", 1, { 5 }, "weights/bias is missing" },
        { NULL, 0, { 0 }, "weights/weight has no place" },
    };
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    run r;
    make_folder();
    run_make(&r, ctx, NSM_ADAM);
    train(&r, 1);
    nsm_checkpoint c = contents(&r);
    nsm_checkpoint_save(ctx, in_folder("x.h5"), &c);
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        nsm_module m;
        nsm_module_init(&m, ctx);
        nsm_tensor *first = nsm_module_param(&m, "scale", 0, NULL);
        if (other[i].name) nsm_module_param(&m, other[i].name, other[i].rank, other[i].dim);
        nsm_checkpoint_load(ctx, in_folder("x.h5"), &(nsm_checkpoint){ .module = &m });
        ck_assert_msg(strstr(nsm_error_message(ctx), other[i].says), "%s", nsm_error_message(ctx));
        ck_error(ctx, NSM_EFORMAT);
        ck_assert_float_eq(nsm_tensor_item(first), 0);
        nsm_module_clear(&m);
    }
    run s;
    run_make(&s, ctx, NSM_SGD);
    c = contents(&s);
    nsm_checkpoint_load(ctx, in_folder("x.h5"), &c);
    ck_assert_ptr_nonnull(strstr(nsm_error_message(ctx), "the optimizer is adam, want sgd"));
    ck_error(ctx, NSM_EFORMAT);
    ck_assert_int_eq(s.epoch, 0);
    nsm_checkpoint only = weights_of(&r.m);
    nsm_checkpoint_save(ctx, in_folder("x.h5"), &only);
    nsm_checkpoint_load(ctx, in_folder("x.h5"), &c);
    ck_error(ctx, NSM_EFORMAT);
    nsm_field missing = { .name = "epoch", .type = NSM_FIELD_INT, .value = &s.epoch };
    nsm_checkpoint_load(ctx, in_folder("x.h5"),
                        &(nsm_checkpoint){ .field = &missing, .fields = 1 });
    ck_error(ctx, NSM_EFORMAT);
    missing.optional = true;
    nsm_checkpoint_load(ctx, in_folder("x.h5"),
                        &(nsm_checkpoint){ .field = &missing, .fields = 1 });
    ck_ok(ctx);
    run_free(&r);
    run_free(&s);
    remove_folder();
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(errors)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    run r;
    int64_t x = 1;
    nsm_field bad[] = {
        { .name = "a/b", .type = NSM_FIELD_INT, .value = &x },
        { .name = "", .type = NSM_FIELD_INT, .value = &x },
        { .name = "loss", .type = NSM_FIELD_FLOATS, .value = &x },
        { .name = "loss", .type = NSM_FIELD_INT },
    };
    make_folder();
    run_make(&r, ctx, NSM_SGD);
    nsm_checkpoint c = contents(&r);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        nsm_checkpoint_save(ctx, in_folder("x.h5"),
                            &(nsm_checkpoint){ .field = &bad[i], .fields = 1 });
        ck_error(ctx, NSM_EINVAL);
    }
    nsm_ema_swap(r.ema);
    nsm_checkpoint_save(ctx, in_folder("x.h5"), &c);
    ck_error(ctx, NSM_EINVAL);
    nsm_ema_swap(r.ema);
    nsm_optimizer_free(r.optimizer);
    c.optimizer = r.optimizer = nsm_optimizer_new(&r.m, &(nsm_optimizer_config){ .accumulate = 2 });
    train(&r, 1);
    nsm_checkpoint_save(ctx, in_folder("x.h5"), &c);
    ck_error(ctx, NSM_EINVAL);
    nsm_checkpoint_save(ctx, in_folder("no/such/folder.h5"),
                        &(nsm_checkpoint){ .random = &r.random });
    ck_error(ctx, NSM_EIO);
    nsm_checkpoint_load(ctx, in_folder("none.h5"), &c);
    ck_error(ctx, NSM_EIO);
    nsm_checkpoint_rotate(ctx, folder, 1, 1, &c);
    ck_error(ctx, NSM_EINVAL);
    run_free(&r);
    remove_folder();
    nsm_ctx_free(ctx);
}
END_TEST

/* Cut at every 97th length, and 2000 bits turned over one at a time. */
START_TEST(damage)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    run r, fresh;
    size_t bytes;
    float before[35], after[35];
    make_folder();
    run_make(&r, ctx, NSM_ADAM);
    run_make(&fresh, ctx, NSM_ADAM);
    train(&r, 2);
    nsm_checkpoint c = contents(&r), d = contents(&fresh);
    nsm_checkpoint_save(ctx, in_folder("x.h5"), &c);
    ck_ok(ctx);
    char *data = slurp(in_folder("x.h5"), &bytes);
    nsm_tensor_get(nsm_module_find(&fresh.m, "weight"), before);
    for (size_t n = 0; n < bytes; n += 97) {
        spill(in_folder("y.h5"), data, n);
        nsm_checkpoint_load(ctx, in_folder("y.h5"), &d);
        ck_error(ctx, NSM_EFORMAT);
    }
    for (int i = 0; i < 2000; i++) {
        float where;
        test_random(77 + (uint64_t)i, 1, &where);
        size_t at = (size_t)((where + 1) / 2 * (float)bytes) % bytes;
        data[at] = (char)(data[at] ^ 1 << i % 8);
        spill(in_folder("y.h5"), data, bytes);
        nsm_checkpoint_load(ctx, in_folder("y.h5"), &d);
        ck_error(ctx, NSM_EFORMAT);
        data[at] = (char)(data[at] ^ 1 << i % 8);
    }
    nsm_tensor_get(nsm_module_find(&fresh.m, "weight"), after);
    ck_assert_mem_eq(before, after, sizeof after);
    ck_assert_int_eq(fresh.epoch, 0);
    free(data);
    run_free(&r);
    run_free(&fresh);
    remove_folder();
    nsm_ctx_free(ctx);
}
END_TEST

static bool exists(const char *name) { return access(in_folder(name), F_OK) == 0; }

START_TEST(rotation)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    run r;
    int64_t step = 0;
    make_folder();
    run_make(&r, ctx, NSM_SGD);
    nsm_checkpoint c = contents(&r);
    ck_assert(!nsm_checkpoint_newest(ctx, folder, &step));
    ck_assert(!nsm_checkpoint_newest(ctx, in_folder("nowhere"), &step));
    ck_ok(ctx);
    for (int64_t s = 8; s <= 12; s++) nsm_checkpoint_rotate(ctx, folder, s, 3, &c);
    ck_assert(!exists("checkpoint-9.h5") && exists("checkpoint-10.h5") &&
              exists("checkpoint-12.h5"));
    nsm_checkpoint_save(ctx, in_folder("best.h5"), &c);
    spill(in_folder("checkpoint-12.h5"), "torn", 4);
    char *path = nsm_checkpoint_newest(ctx, folder, &step);
    ck_ok(ctx);
    ck_assert_str_eq(path, in_folder("checkpoint-11.h5"));
    ck_assert_int_eq(step, 11);
    free(path);
    /* Gone on from 11: what is left of 12 does not count as one of the newest two. */
    nsm_checkpoint_rotate(ctx, folder, 11, 0, &c);
    ck_assert(exists("checkpoint-10.h5") && exists("checkpoint-11.h5") &&
              !exists("checkpoint-12.h5"));
    ck_assert(exists("best.h5"));
    spill(in_folder("checkpoint-10.h5"), "torn", 4);
    spill(in_folder("checkpoint-11.h5"), "", 0);
    ck_assert(!nsm_checkpoint_newest(ctx, folder, &step));
    ck_error(ctx, NSM_EFORMAT);
    run_free(&r);
    remove_folder();
    nsm_ctx_free(ctx);
}
END_TEST

static void save_for_ever(void)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    run r;
    run_make(&r, ctx, NSM_ADAM);
    nsm_checkpoint c = contents(&r);
    char *path = nsm_checkpoint_newest(ctx, folder, NULL);
    if (path) nsm_checkpoint_load(ctx, path, &c);
    free(path);
    while (!nsm_error(ctx)) {
        train(&r, 1);
        nsm_checkpoint_rotate(ctx, folder, r.epoch, 2, &c);
    }
    _exit(1);
}

/* Killed at 50 moments, started anew each time: the newest whole checkpoint always loads, agrees
 * with itself, and is never older than the one before. */
START_TEST(killed)
{
    int64_t last = 0;
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    make_folder();
    for (int i = 0; i < 50; i++) {
        float when;
        run r;
        int64_t step = 0;
        pid_t child = fork();
        ck_assert_int_ge(child, 0);
        if (!child) save_for_ever();
        test_random(1000 + (uint64_t)i, 1, &when);
        nanosleep(&(struct timespec){ .tv_nsec = 30000000 + (long)(25000000 * when) }, NULL);
        ck_assert_int_eq(waitpid(child, NULL, WNOHANG), 0); /* it has met no error */
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        run_make(&r, ctx, NSM_ADAM);
        nsm_checkpoint c = contents(&r);
        char *path = nsm_checkpoint_newest(ctx, folder, &step);
        ck_ok(ctx);
        if (path) nsm_checkpoint_load(ctx, path, &c);
        ck_ok(ctx);
        ck_assert_int_ge(step, last);
        ck_assert(!path || (r.epoch == step && nsm_optimizer_steps(r.optimizer) == step &&
                            r.losses == step));
        last = step;
        free(path);
        run_free(&r);
    }
    ck_assert_int_gt(last, 10);
    remove_folder();
    nsm_ctx_free(ctx);
}
END_TEST

static void save_and_load(nsm_ctx *ctx)
{
    run r, s;
    run_make(&r, ctx, NSM_ADAM);
    if (!nsm_error(ctx)) train(&r, 1);
    nsm_checkpoint c = contents(&r);
    nsm_checkpoint_rotate(ctx, folder, 1, 2, &c);
    run_make(&s, ctx, NSM_ADAM);
    c = contents(&s);
    char *path = nsm_checkpoint_newest(ctx, folder, NULL);
    if (path) nsm_checkpoint_load(ctx, path, &c);
    bool all = s.epoch == 1 && nsm_optimizer_steps(s.optimizer) == 1;
    ck_assert(all ? nsm_error(ctx) == NSM_OK
                  : s.epoch == 0 && nsm_optimizer_steps(s.optimizer) == 0);
    free(path);
    run_free(&s);
    run_free(&r);
}

START_TEST(memory)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    make_folder();
    ck_assert_int_gt(test_brutal(save_and_load, ctx), 100);
    remove_folder();
    nsm_ctx_free(ctx);
}
END_TEST

int main(void)
{
    return test_main("checkpoint",
                     (const TTest *const[]){ resume, doubles, mismatch, errors, damage, rotation,
                                             killed, memory, NULL });
}
