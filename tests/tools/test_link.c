/* test_link.c - Links of entities that the fused model encodes: nobody sees the edge that a batch
 * asks for, answers that training knows do not compete, every allocation fails in turn. */
#include "config.h"
#include <math.h>
#include <string.h>
#include "tests/test.h"
#include "tools/link_parts.h"

enum { ENTITIES = 6, TRIPLES = 7, D = 8 };
/* 0 -> 1 is the only edge of 0; two answers of (2, 0, ?) */
static const int32_t triple[TRIPLES][3] = { { 0, 0, 1 }, { 1, 0, 2 }, { 2, 0, 3 }, { 2, 0, 4 },
                                            { 3, 1, 4 }, { 4, 1, 5 }, { 5, 1, 1 } };

/* A ring with words, whose edges are the triples from `first` on. */
static nsm_dataset *dataset_of(nsm_ctx *ctx, int first)
{
    nsm_dataset *ds = nsm_dataset_new(ctx, "six");
    nsm_dataset_nodes *v = ds ? nsm_dataset_add_nodes(ds, "entity", ENTITIES) : NULL;
    if (v) {
        v->text = (nsm_dataset_text){ .vocab = 4,
                                      .ptr = nsm_dataset_array(ds, ENTITIES + 1, sizeof(int64_t)),
                                      .id = nsm_dataset_array(ds, ENTITIES, sizeof(int32_t)) };
        for (int i = 0; v->text.ptr && v->text.id && i <= ENTITIES; i++) {
            v->text.ptr[i] = i;
            if (i < ENTITIES) v->text.id[i] = i % 4;
        }
        ds->directed = true;
    }
    for (int r = 0; v && r < 2; r++) {
        int64_t count = 0;
        for (int i = first; i < TRIPLES; i++) count += triple[i][1] == r;
        nsm_dataset_edges *e = nsm_dataset_add_edges(ds, r ? "b" : "a", 0, 0, count);
        for (int i = first, k = 0; e && i < TRIPLES; i++)
            if (triple[i][1] == r) e->src[k] = triple[i][0], e->dst[k++] = triple[i][2];
    }
    for (int p = 0; v && p < NSM_SPLIT_PARTS && !nsm_error(ctx); p++) {
        int n = p == NSM_TRAIN ? TRIPLES : 1;
        if (nsm_dataset_links_make(ds, p, n)) break;
        for (int i = 0; i < n; i++) {
            ds->link[p].src[i] = triple[i][0];
            ds->link[p].relation[i] = triple[i][1];
            ds->link[p].dst[i] = triple[i][2];
        }
    }
    return ds;
}

typedef struct {
    train_options options;
    nsm_dataset *ds;
    link_task *l;
} subject;

/* The task reads the options where they stand. */
static void subject_make(subject *s, nsm_ctx *ctx, int first)
{
    static char *const pair[] = { "encoder=fused", "decoder=complex", "hidden=8", "own=true",
                                  "dropout=0", "batch_size=4", "fuser_options=slots=4 heads=2",
                                  "text_mixer=none", "negatives=2" };
    *s = (subject){ .ds = dataset_of(ctx, first) };
    nsm_random_set(ctx, (nsm_random){ 7, 0 });
    if (s->ds && !recipe_settings(ctx, "link", sizeof pair / sizeof *pair, pair, &s->options))
        s->l = link_task_new(ctx, &s->options, s->ds, NULL);
}

static void subject_free(subject *s)
{
    link_task_free(s->l);
    settings_clear(train_fields, &s->options);
    nsm_dataset_free(s->ds);
}

/* The embedding of entity 0 in a batch that asks for its only edge, one way or the other, or (ask
 * NULL) as evaluation sees it. */
static void embedding(link_task *l, const link_question *ask, float out[D])
{
    nsm_tape_inference(l->tape, true);
    nsm_tensor *x = ask ? link_fused_batch(l, 1, ask, NULL, 0) : link_fused_table(l);
    float all[ENTITIES * D];
    ck_ok(l->ctx);
    nsm_tensor_get(x, all);
    memcpy(out, all + (ask ? link_fused_place(l->fused)[0] : 0) * D, D * sizeof *out);
    link_fused_end(l);
}

START_TEST(asked_edge) /* leaves no trace; any other does */
{
    static const link_question ask[] = { { 0, 0, 1 }, { 1, 2, 0 }, { 0, 1, 1 } };
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    subject with, without;
    float a[D], b[D];
    subject_make(&with, ctx, 0);
    subject_make(&without, ctx, 1);
    ck_ok(ctx);
    embedding(without.l, NULL, b);
    embedding(with.l, NULL, a);
    ck_assert(test_difference(a, b, D, 1e-3) > 1e-3);
    for (int k = 0; k < 3; k++) { /* the third asks for another relation of the two */
        embedding(with.l, &ask[k], a);
        ck_assert((test_difference(a, b, D, 1e-3) < 1e-5) == (k < 2));
    }
    subject_free(&with);
    subject_free(&without);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(known_answers) /* of (2, 0, ?): 3 and 4 */
{
    static const link_question ask[] = { { 2, 0, 3 }, { 3, 1, 4 } };
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    subject s;
    float mask[2 * ENTITIES];
    subject_make(&s, ctx, 0);
    ck_ok(ctx);
    nsm_tensor *x = link_fused_batch(s.l, 2, ask, NULL, 0), *m = link_fused_mask(s.l, 2, ask, NULL);
    ck_ok(ctx);
    ck_assert(m->dim[0] == 2 && m->dim[1] == x->dim[0]);
    nsm_tensor_get(m, mask);
    int64_t four = link_fused_place(s.l->fused)[4];
    for (int64_t i = 0; i < 2; i++)
        for (int64_t e = 0; e < x->dim[0]; e++)
            ck_assert((mask[i * x->dim[0] + e] < -1e6f) == (i == 0 && e == four));
    link_fused_end(s.l);
    subject_free(&s);
    nsm_ctx_free(ctx);
}
END_TEST

static int go_on(void *user)
{
    (void)user;
    return NSM_OK;
}

static void learn(nsm_ctx *ctx)
{
    subject s;
    subject_make(&s, ctx, 0);
    part_score part[NSM_SPLIT_PARTS];
    epoch_place at = { 0 };
    task *what = s.l ? link_task_base(s.l) : NULL;
    if (what && !what->epoch(what, 1, &at, go_on, NULL) && !what->evaluate(what, part)) {
        ck_assert_int_eq(at.rows, 2 * TRIPLES);
        ck_assert(isfinite(at.loss) && part[NSM_TEST].score > 0);
    }
    subject_free(&s);
}

START_TEST(memory)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    ck_assert_int_gt(test_brutal(learn, ctx), 50);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(refused) /* what the settings ask for is not there */
{
    static char *const bad[] = { "batch_size=0", "modalities=picture", "modalities=words",
                                 "fanouts=-2", "fuser=glue", "hidden=9" };
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char *pair[] = { "encoder=fused", "decoder=complex", bad[i] };
        train_options o = { 0 };
        nsm_dataset *ds = dataset_of(ctx, 0);
        ck_assert_int_eq(recipe_settings(ctx, "link", 3, pair, &o), NSM_OK);
        ck_assert_msg(!link_task_new(ctx, &o, ds, NULL), "%s", bad[i]);
        ck_error(ctx, NSM_EINVAL);
        settings_clear(train_fields, &o);
        nsm_dataset_free(ds);
    }
    nsm_ctx_free(ctx);
}
END_TEST

int main(void)
{
    return test_main("link", (const TTest *const[]){ asked_edge, known_answers, memory, refused,
                                                     NULL });
}
