/* tests/datasets/test_datasets.c - The dataset container, its file, importers and generators. */
#include "config.h"
#include <dirent.h>
#include <locale.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/seal.h"
#include "datasets/info.h"
#include "tests/datasets/sample.h"
#include "tests/test.h"

static nsm_ctx *ctx;
static void begin(void) { ctx = nsm_ctx_new(NULL); }
static void end(void)
{
    nsm_ctx_free(ctx);
    sample_folder_remove();
}

static void ck_same_file(const char *a, const char *b)
{
    size_t n, m;
    char *x = sample_read(a, &n), *y = sample_read(b, &m);
    ck_assert_msg(n == m && !memcmp(x, y, n), "%s and %s differ", a, b);
    free(x);
    free(y);
}

START_TEST(round_trip) /* every layout: equal in memory, and saved again equal in bytes */
{
    begin();
    for (int kind = NSM_LABEL_NONE; kind <= NSM_LABEL_VALUE; kind++)
        for (int graphs = 0; graphs < 2; graphs++) {
            const char *a = sample_path("a.h5"), *b = sample_path("b.h5"), *c = sample_path("c.h5");
            nsm_dataset *ds = sample_new(ctx, (nsm_label_kind)kind, graphs);
            ck_assert_int_eq(nsm_dataset_save(ds, a), NSM_OK);
            nsm_dataset *got = nsm_dataset_load(ctx, a, NULL);
            ck_ok(ctx);
            const char *what = sample_difference(ds, got);
            ck_assert_msg(!what, "%s differs", what ? what : "");
            nsm_dataset_save(got, b);
            ck_same_file(a, b);
            nsm_dataset *kept = nsm_dataset_load(ctx, a,
                                                 &(nsm_dataset_options){
                                                     .features_in_file_bytes = -1 });
            ck_ok(ctx);
            ck_assert(kept->node[0].in_file && !kept->node[0].dense);
            nsm_dataset_save(kept, c);
            ck_same_file(a, c);
            nsm_dataset_free(kept);
            nsm_dataset_free(got);
            nsm_dataset_free(ds);
        }
    end();
}
END_TEST

/* features by row list: from memory, from the file over many chunks, spread from sparse */
START_TEST(rows)
{
    enum { N = 5000, F = 130 };
    begin();
    const char *path = sample_path("rows.h5");
    nsm_dataset *ds = nsm_dataset_new(ctx, "rows");
    nsm_dataset_nodes *v = nsm_dataset_add_nodes(ds, "node", N);
    v->features = F;
    v->dense = nsm_dataset_array(ds, N * F, sizeof *v->dense);
    test_random(1, N * F, v->dense);
    nsm_dataset_save(ds, path);
    nsm_dataset *kept = nsm_dataset_load(ctx, path,
                                         &(nsm_dataset_options){ .features_in_file_bytes = 1000 });
    ck_ok(ctx);
    int32_t list[600];
    static float a[600 * F], b[600 * F];
    for (int i = 0; i < 600; i++) list[i] = (int32_t)((int64_t)i * 7919 % N);
    ck_assert_int_eq(nsm_dataset_features_rows(ds, 0, 0, 600, list, a), NSM_OK);
    ck_assert_int_eq(nsm_dataset_features_rows(kept, 0, 0, 600, list, b), NSM_OK);
    ck_assert(!memcmp(a, b, sizeof a) &&
              !memcmp(a, v->dense + (int64_t)list[0] * F, F * sizeof *a));
    ck_assert_int_eq(nsm_dataset_features_rows(kept, 0, N - 600, 600, NULL, b), NSM_OK);
    ck_assert(!memcmp(b, v->dense + (int64_t)(N - 600) * F, sizeof b));
    list[5] = N;
    nsm_dataset_features_rows(kept, 0, 0, 600, list, b);
    ck_error(ctx, NSM_EINVAL);
    nsm_dataset_features_rows(kept, 0, N - 1, 2, NULL, b);
    ck_error(ctx, NSM_EINVAL);
    nsm_dataset_free(kept);
    nsm_dataset_free(ds);
    ds = sample_new(ctx, NSM_LABEL_NONE, false);
    ck_assert_int_eq(nsm_dataset_features_rows(ds, 1, 1, 1, NULL, a), NSM_OK);
    for (int64_t k = ds->node[1].ptr[1]; k < ds->node[1].ptr[2]; k++)
        ck_assert(a[ds->node[1].idx[k]] == ds->node[1].val[k]);
    nsm_dataset_free(ds);
    end();
}
END_TEST

/* ---- faults: each change must be named ---- */

static void bad_feature(nsm_dataset *d) { d->node[0].dense[7] = NAN; }
static void bad_idx(nsm_dataset *d) { d->node[1].idx[1] = 9; }
static void bad_order(nsm_dataset *d) { d->node[1].idx[1] = d->node[1].idx[0]; }
static void bad_ptr(nsm_dataset *d) { d->node[1].ptr[2] = 1000; }
static void bad_edge(nsm_dataset *d) { d->edge[0].dst[3] = 12; }
static void bad_edge_below(nsm_dataset *d) { d->edge[0].src[3] = -1; }
static void bad_weight(nsm_dataset *d) { d->edge[0].weight[2] = INFINITY; }
static void bad_undirected(nsm_dataset *d) { d->directed = false; d->edge_types = 1; }
static void bad_class(nsm_dataset *d) { d->label.cls[4] = 3; }
static void bad_label_count(nsm_dataset *d) { d->label.count--; }
static void bad_split(nsm_dataset *d) { d->split[0].index[0][0] = 12; }
static void bad_twice(nsm_dataset *d) { d->split[0].index[0][0] = d->split[0].index[2][0]; }
static void bad_unlabelled(nsm_dataset *d) { d->label.cls[d->split[0].index[1][0]] = -1; }
static void bad_name(nsm_dataset *d) { d->node[0].name[1] = '/'; }
static void bad_same_name(nsm_dataset *d) { strcpy(d->split[1].name, "default"); }
static void bad_type(nsm_dataset *d) { d->edge[1].src_type = 2; }
static void bad_target(nsm_dataset *d) { d->target = 2; }
static void bad_storage(nsm_dataset *d) { d->node[0].features = 0; }
static void bad_word(nsm_dataset *d) { d->node[0].text.id[4] = 3; }
static void bad_text(nsm_dataset *d)
{
    nsm_dataset_text *t = &d->node[0].text;
    nsmi_h5_free_strings(t->symbol, t->vocab); /* vocab says how many there are to free */
    t->symbol = NULL;
    t->vocab = 0;
}
static void bad_word_class(nsm_dataset *d) { d->node[0].text.label[2] = 2; }
static void bad_word_below(nsm_dataset *d) { d->node[0].text.label[1] = -2; }
static void bad_no_classes(nsm_dataset *d)
{
    nsmi_h5_free_strings(d->node[0].text.class_names, 2); /* as above */
    d->node[0].text.class_names = NULL;
    d->node[0].text.classes = 0;
}
static void bad_text_ptr(nsm_dataset *d) { d->node[0].text.ptr[7] = 0; }
static void bad_picture(nsm_dataset *d) { d->node[0].image.height = 0; }
static void bad_there(nsm_dataset *d) { d->node[0].image.there[2] = 7; }
static void bad_asked(nsm_dataset *d) { d->question.node[3] = 12; }
static void bad_asked_order(nsm_dataset *d) { d->question.node[2] = -1; }
static void bad_answer(nsm_dataset *d) { d->question.answer[0] = 2; }
static void bad_kind(nsm_dataset *d) { d->question.group[1] = 2; }
static void bad_question(nsm_dataset *d) { d->question.value[5] = NAN; }
static void bad_pointed(nsm_dataset *d) { d->question.pointed[1] = 7; }
static void bad_pointed_below(nsm_dataset *d) { d->question.pointed[0] = -2; }
static void bad_pointed_type(nsm_dataset *d) { d->question.pointed_type = 2; }
static void bad_relation(nsm_dataset *d) { d->link[NSM_VALID].relation[1] = 99; }
static void bad_end(nsm_dataset *d) { d->link[NSM_TEST].dst[2] = 12; }
static void bad_start(nsm_dataset *d) { d->link[NSM_TEST].src[0] = -1; }

START_TEST(faults)
{
    static const struct { void (*spoil)(nsm_dataset *d); const char *says;
    } cases[] = {
        { bad_feature, "nodes thing: feature value 7 is not finite" },
        { bad_idx, "feature 9 of row" },
        { bad_order, "do not ascend" },
        { bad_ptr, "ptr falls" },
        { bad_edge, "edge 3 joins" },
        { bad_edge_below, "edge 3 joins -1" },
        { bad_weight, "weight value 2 is not finite" },
        { bad_undirected, "has no reverse" },
        { bad_class, "class 3 of 4" },
        { bad_label_count, "labels: 11, want 12" },
        { bad_split, "train[0] is 12" },
        { bad_twice, "stands twice" },
        { bad_unlabelled, "has no label" },
        { bad_name, "slash" },
        { bad_same_name, "split default stands twice" },
        { bad_type, "from node type 2" },
        { bad_target, "target is node type 2" },
        { bad_storage, "stored 1 times" },
        { bad_word, "word 3 at 4 of text/id" },
        { bad_text, "a text of 0 words" },
        { bad_text_ptr, "text/ptr falls at 6" },
        { bad_word_class, "class 2 at 2 of text/label" },
        { bad_word_below, "class -2 at 1 of text/label" },
        { bad_no_classes, "0 classes of words" },
        { bad_picture, "pictures of 0 x 2 pixels" },
        { bad_there, "images/there[2] is 7" },
        { bad_asked, "node[3] is 12" },
        { bad_asked_order, "node[2] is -1" },
        { bad_answer, "answer[0] is 2" },
        { bad_kind, "group[1] is 2" },
        { bad_question, "value 5 is not finite" },
        { bad_pointed, "pointed[1] is 7" },
        { bad_pointed_below, "pointed[0] is -2" },
        { bad_pointed_type, "pointed_type is node type 2" },
        { bad_relation, "relation[1] of valid is 99" },
        { bad_end, "link 2 of test joins 2 and 12" },
        { bad_start, "link 0 of test joins -1 and 0" },
    };
    begin();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        nsm_dataset *ds = sample_new(ctx, NSM_LABEL_CLASS, false);
        ck_assert_int_eq(nsm_dataset_validate(ds), NSM_OK);
        cases[i].spoil(ds);
        int code = nsm_dataset_save(ds, sample_path("bad.h5"));
        ck_assert_msg(code != NSM_OK && strstr(nsm_error_message(ctx), cases[i].says),
                      "want \"%s\", have \"%s\"", cases[i].says, nsm_error_message(ctx));
        nsm_error_clear(ctx);
        ck_assert(access(sample_path("bad.h5"), F_OK) != 0);
        ds->edge_types = 2;
        nsm_dataset_free(ds);
    }
    end();
}
END_TEST

/* ---- sealed files ---- */

/* every byte of the seal, and many behind it, flipped; cut; the wrong kind; no nsm file */
START_TEST(seal)
{
    begin();
    const char *path = sample_path("seal.h5"), *bad = sample_path("bad.h5");
    size_t bytes;
    nsm_dataset *ds = sample_new(ctx, NSM_LABEL_CLASS, false);
    nsm_dataset_save(ds, path);
    char *data = sample_read(path, &bytes);
    for (size_t at = 0; at < bytes; at += at < 600 ? 1 : 37) {
        data[at] ^= (char)(1 << at % 8);
        sample_write(bad, data, bytes);
        data[at] ^= (char)(1 << at % 8);
        ck_assert(!nsm_dataset_load(ctx, bad, NULL));
        ck_error(ctx, NSM_EFORMAT);
        sample_write(bad, data, at);
        ck_assert(!nsm_dataset_load(ctx, bad, NULL));
        ck_error(ctx, NSM_EFORMAT);
    }
    sample_write(bad, data + NSMI_SEAL_BYTES, bytes - NSMI_SEAL_BYTES);
    ck_assert(!nsm_dataset_load(ctx, bad, NULL));
    ck_assert(strstr(nsm_error_message(ctx), "nsm import hdf5"));
    nsm_error_clear(ctx);
    nsm_dataset *got = nsm_import(ctx, "hdf5", bad, NULL, 0);
    ck_ok(ctx);
    ck_assert(!sample_difference(ds, got));
    nsm_dataset_free(got);
    ck_assert(!nsmi_h5_open(ctx, path, "checkpoint"));
    ck_assert(strstr(nsm_error_message(ctx), "is a dataset, not a checkpoint"));
    nsm_error_clear(ctx);
    ck_assert(!nsm_dataset_load(ctx, sample_path("absent.h5"), NULL));
    ck_error(ctx, NSM_EIO);
    ck_assert(!nsm_dataset_load(ctx, sample_folder(), NULL));
    ck_error(ctx, NSM_EIO);
    free(data);
    nsm_dataset_free(ds);
    end();
}
END_TEST

/* Temporaries that stand in the folder. */
static int drafts(void)
{
    int n = 0;
    DIR *dir = opendir(sample_folder());
    for (struct dirent *e; (e = readdir(dir));) n += strstr(e->d_name, ".draft-") != NULL;
    closedir(dir);
    return n;
}

/* what a killed writer leaves is removed by the next; what a living one holds is not */
START_TEST(draft)
{
    begin();
    const char *path = sample_path("draft.h5");
    nsm_dataset *ds = sample_new(ctx, NSM_LABEL_CLASS, false);
    nsm_dataset_save(ds, path);
    pid_t child = fork();
    if (child == 0) {
        nsmi_h5_create(ctx, path, "dataset");
        raise(SIGKILL);
    }
    waitpid(child, NULL, 0);
    ck_assert_int_eq(drafts(), 1);
    nsmi_h5 *held = nsmi_h5_create(ctx, path, "dataset");
    ck_assert_int_eq(drafts(), 1);
    nsm_dataset_save(ds, path);
    ck_ok(ctx);
    ck_assert_int_eq(drafts(), 1);
    nsmi_h5_close(held);
    ck_assert_int_eq(drafts(), 0);
    ck_assert(!nsmi_h5_create(ctx, "/dev/null", "dataset"));
    ck_error(ctx, NSM_EIO);
    ck_assert(!nsmi_h5_create(ctx, sample_path("no/such/folder/x.h5"), "dataset"));
    ck_error(ctx, NSM_EIO);
    nsm_dataset_free(ds);
    end();
}
END_TEST

/* a write that fails anywhere leaves an error, the old file and no temporary */
START_TEST(full_disk)
{
    begin();
    const char *path = sample_path("full.h5");
    size_t bytes;
    nsm_dataset *ds = sample_new(ctx, NSM_LABEL_CLASS, false);
    nsm_dataset_save(ds, path);
    char *before = sample_read(path, &bytes);
    signal(SIGXFSZ, SIG_IGN);
    for (size_t limit = 0; limit < bytes; limit += bytes / 40) {
        /* what libhdf5 could not write it tries again at exit: in another process */
        pid_t child = fork();
        if (child == 0) {
            setrlimit(RLIMIT_FSIZE, &(struct rlimit){ limit, limit });
            _exit(nsm_dataset_save(ds, path) == NSM_EIO ? 0 : 1);
        }
        int status = 0;
        waitpid(child, &status, 0);
        ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "limit %zu: status %d", limit,
                      status);
        ck_assert_int_eq(drafts(), 0);
        size_t n;
        char *after = sample_read(path, &n);
        ck_assert(n == bytes && !memcmp(before, after, n));
        free(after);
    }
    free(before);
    nsm_dataset_free(ds);
    end();
}
END_TEST

/* ---- failing allocations ---- */

static const sample_source *brutal_source;
static void run_load(nsm_ctx *c)
{
    nsm_dataset_free(nsm_dataset_load(c, sample_path("brutal.h5"), NULL));
}
static void run_kept(nsm_ctx *c)
{
    nsm_dataset_options o = { .features_in_file_bytes = -1 };
    nsm_dataset_free(nsm_dataset_load(c, sample_path("brutal.h5"), &o));
}
static void run_import(nsm_ctx *c) { nsm_dataset_free(sample_import(c, brutal_source)); }
static void run_sbm(nsm_ctx *c)
{
    static const nsm_option o[] = { { "nodes", "20" }, { "degree", "2" }, { "features", "3" } };
    nsm_dataset_free(nsm_generate(c, "sbm", o, 3));
}

START_TEST(memory)
{
    begin();
    nsm_dataset *ds = sample_new(ctx, NSM_LABEL_CLASS, false);
    nsm_dataset_save(ds, sample_path("brutal.h5"));
    nsm_dataset_free(ds);
    ck_assert_int_gt(test_brutal(run_load, ctx), 20);
    ck_assert_int_gt(test_brutal(run_kept, ctx), 20);
    ck_assert_int_gt(test_brutal(run_sbm, ctx), 5);
    for (brutal_source = sample_sources;
         brutal_source->format && !strstr("graphml", brutal_source->format); brutal_source++) {
        sample_make(brutal_source);
        ck_assert_int_gt(test_brutal(run_import, ctx), 5);
    }
    end();
}
END_TEST

/* ---- importers ---- */

static const sample_source *source_named(const char *name)
{
    const sample_source *s = sample_sources;
    while (s->format && strcmp(s->name, name)) s++;
    return s;
}

static nsm_dataset *import_sample(const char *name)
{
    const sample_source *s = source_named(name);
    sample_make(s);
    nsm_dataset *ds = sample_import(ctx, s);
    ck_ok(ctx);
    return ds;
}

START_TEST(small_imports) /* what the small sources say, number by number */
{
    begin();
    nsm_dataset *ds = import_sample("ogb-plain");
    ck_assert_int_eq(ds->edge[0].count, 11); /* five edges twice, a loop once */
    ck_assert(ds->node[0].features == 3 && ds->node[0].dense[2] == -2e-3f &&
              ds->node[0].dense[8] == 1e9f);
    ck_assert(ds->label.cls[2] == -1 && ds->label.columns == 3 &&
              ds->split[0].index[NSM_TEST][0] == 4);
    nsm_dataset_free(ds);
    ds = import_sample("ogb-packed");
    ck_assert(ds->node[0].ptr[5] == 5 && ds->node[0].idx[3] == 0 && ds->node[0].val[3] == 7);
    nsm_dataset_free(ds);
    ds = import_sample("ogb-typed");
    ck_assert(ds->directed && ds->edge_types == 4 && !strcmp(ds->edge[2].name, "rev_likes"));
    ck_assert(ds->edge[2].src[1] == 0 && ds->edge[2].dst[1] == 2 &&
              ds->label.kind == NSM_LABEL_MULTI);
    nsm_dataset_free(ds);
    ds = import_sample("ogb-graphs");
    ck_assert(ds->graphs == 3 && ds->node[0].graph_ptr[1] == 3 && ds->node[0].graph_ptr[2] == 4);
    ck_assert(ds->edge[0].count == 8 && ds->edge[0].src[3] == 6 && ds->edge[0].dst[3] == 4);
    ck_assert(ds->edge[0].features == 1 && ds->edge[0].feature[3] == 4 &&
              ds->edge[0].feature[7] == 4);
    ck_assert(ds->label.of_graphs && ds->label.kind == NSM_LABEL_MULTI && ds->label.columns == 2);
    ck_assert(ds->label.multi[1] == 1 && ds->label.multi[2] == 255 && ds->label.multi[3] == 255);
    ck_assert(!strcmp(ds->split[0].name, "scaffold") && ds->split[0].index[NSM_TEST][0] == 2);
    ck_assert_int_eq(nsm_dataset_save(ds, sample_path("graphs.h5")), NSM_OK);
    nsm_dataset *again = nsm_dataset_load(ctx, sample_path("graphs.h5"), NULL);
    ck_assert(again && !sample_difference(ds, again));
    nsm_dataset_free(again);
    nsm_dataset_free(ds);
    ds = import_sample("wordnet");
    ck_assert(ds->node[0].count == 5 && !strcmp(ds->node[0].names[3], "alive") &&
              ds->label.cls[1] == 5);
    ck_assert_int_eq(ds->edge_types, 4);
    nsm_dataset_free(ds);
    ds = import_sample("SET");
    ck_assert(ds->graphs == 2 && ds->node[0].features == 4 && ds->node[0].dense[7] == 1 &&
              !ds->directed);
    ck_assert(ds->edge[0].features == 2 && !strcmp(ds->label.names[0], "-1") && ds->splits == 1);
    nsm_dataset_free(ds);
    ds = import_sample("csv");
    ck_assert(!strcmp(ds->node[0].names[2], "z \"q\"") && ds->label.cls[2] == -1 &&
              ds->edge[0].weight[1] == 2);
    ck_assert_int_eq(ds->node[0].features, 2);
    const nsm_dataset_text *said = &ds->node[0].text;
    ck_assert(said->vocab == 4 && said->ptr[1] == 3 && said->ptr[2] == 3 && said->ptr[3] == 5);
    ck_assert(said->id[2] == said->id[3] && !strcmp(said->symbol[said->id[0]], "red"));
    nsm_dataset_free(ds);
#ifdef HAVE_IGRAPH
    ds = import_sample("graphml");
    ck_assert(ds->node[0].count == 2 && ds->node[0].dense[1] == -2 && ds->label.cls[1] == 1 &&
              ds->edge[0].weight[0] == 3);
    nsm_dataset_free(ds);
    ds = import_sample("gml");
    ck_assert(ds->directed && !strcmp(ds->node[0].names[1], "two"));
    nsm_dataset_free(ds);
    ds = import_sample("pajek");
    ck_assert(ds->node[0].count == 3 && ds->edge[0].count == 4);
    nsm_dataset_free(ds);
    ds = import_sample("edgelist");
    ck_assert(ds->node[0].count == 3 && ds->edge[0].count == 3);
    nsm_dataset_free(ds);
#endif
    end();
}
END_TEST

START_TEST(triples)
{
    begin();
    const sample_source *s = sample_sources;
    while (strcmp(s->format, "triples")) s++;
    sample_make(s);
    nsm_dataset *ds = sample_import(ctx, s);
    ck_ok(ctx);
    ck_assert(ds->node[0].count == 4 && ds->edge_types == 2 && ds->directed);
    ck_assert_str_eq(ds->edge[1].name, "knows");
    ck_assert(ds->edge[0].count == 2 && ds->edge[1].count == 1);
    ck_assert(ds->edge[1].src[0] == 2 && ds->edge[1].dst[0] == 0);
    ck_assert(ds->link[NSM_TRAIN].count == 3 && ds->link[NSM_VALID].count == 1 &&
              ds->link[NSM_TEST].count == 2);
    ck_assert(ds->link[NSM_TEST].src[0] == 3 && ds->link[NSM_TEST].relation[0] == 1 &&
              ds->link[NSM_TEST].dst[0] == 1);
    const nsm_dataset_nodes *v = &ds->node[0];
    ck_assert_str_eq(v->names[3], "d");
    /* a: one; b: two words two; c has no line, d no words; x is nobody */
    ck_assert(v->text.vocab == 4 && v->text.ptr[1] == 1 && v->text.ptr[2] == 4 &&
              v->text.ptr[4] == 4);
    ck_assert_str_eq(v->text.symbol[v->text.id[3]], "two");
    ck_assert(v->features == 4 && v->ptr[2] - v->ptr[1] == 2 && v->idx[1] == v->text.id[1]);
    ck_assert(fabsf(v->val[1] - 2 / sqrtf(5)) < 1e-6f && v->val[0] == 1);
    ck_assert_str_eq(ds->description, "3 of 4 entities have a text; 1 texts are of none");
    nsm_dataset_free(ds);
    static const struct { const char *text, *says; } bad[] = {
        { "a\tone\nb two\n", "said.tsv:2: is not an entity and its words" },
        { "a\tone\nb\ttwo\na\tthree\n", "said.tsv:3: the entity a has a text already" },
        { "x\tone\n", "said.tsv: no line is of an entity" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        sample_write(sample_path("triples/said.tsv"), bad[i].text, (int64_t)strlen(bad[i].text));
        ck_assert(!sample_import(ctx, s));
        ck_assert_msg(strstr(nsm_error_message(ctx), bad[i].says), "%s", nsm_error_message(ctx));
        ck_error(ctx, NSM_EFORMAT);
    }
    sample_write(sample_path("triples/valid.txt"), "a\tlikes\n", 8);
    ck_assert(!sample_import(ctx, s));
    ck_assert_msg(strstr(nsm_error_message(ctx), "valid.txt:1"), "%s", nsm_error_message(ctx));
    ck_error(ctx, NSM_EFORMAT);
    sample_make(s);
    end();
}
END_TEST

START_TEST(malformed) /* one change each: one error, with file and line */
{
    static const struct { const char *source, *file, *text, *says;
    } cases[] = {
        { "ogb-plain", "raw/edge.csv", "0,1\n1,5\n", "edge.csv:2: \"1,5\"" },
        { "ogb-plain", "raw/edge.csv", "0,1\n-1,2\n", "edge.csv:2:" },
        { "ogb-plain", "raw/edge.csv", "0,1\n1,2\n", "has 2 edges, num-edge-list says 6" },
        { "ogb-plain", "raw/node-feat.csv", "1,2\n1,nan\n", "node-feat.csv:2: column 2" },
        { "ogb-plain", "raw/node-feat.csv", "1,2\n1\n", "1 columns, line 1 has 2" },
        { "ogb-plain", "raw/node-feat.csv", "1\n1\n1\n1\n1e39\n", "not a finite number" },
        { "ogb-plain", "raw/node-feat.csv", "1\n2\n", "has 2 rows, want 5" },
        { "ogb-plain", "raw/node-label.csv", "0\n1\n-2\n0\n0\n", "below -1" },
        { "ogb-plain", "raw/num-node-list.csv", "", "has 0 lines" },
        { "ogb-plain", "split/s/train.csv", "0\n0\n", "stands twice" },
        { "ogb-plain", "split/s/train.csv", "2\n", "has no label" },
        { "ogb-plain", "split/s/train.csv", "5\n", "train.csv:1:" },
        { "ogb-typed", "raw/node-feat.mtx", "%%MatrixMarket matrix array real general\n",
          "MatrixMarket" },
        { "ogb-typed", "raw/node-feat.mtx",
          "%%MatrixMarket matrix coordinate pattern general\n3 2 1\n4 1\n", "mtx:3:" },
        { "ogb-typed", "raw/node-feat.mtx",
          "%%MatrixMarket matrix coordinate pattern general\n3 2 2\n1 1\n1 1\n", "stands twice" },
        { "ogb-graphs", "raw/num-node-list.csv", "3\n1\n",
          "graph-label.csv: has 3 lines, want 2 graphs" },
        { "ogb-graphs", "raw/num-edge-list.csv", "2\n2\n",
          "num-edge-list.csv: has 2 lines, want 3" },
        { "ogb-graphs", "raw/num-edge-list.csv", "2\n1\n1\n", "edge.csv:3: \"0,1\"" },
        { "ogb-graphs", "raw/edge.csv", "0,1\n1,2\n0,3\n2,0\n", "edge.csv:3: \"0,3\"" },
        { "ogb-graphs", "raw/edge.csv", "0,1\n", "has 1 edges, num-edge-list says 4" },
        { "ogb-graphs", "raw/edge-feat.csv", "1\n2\n", "has 2 rows, want 4 edges" },
        { "ogb-graphs", "raw/graph-label.csv", "0\n", "has 1 lines, want 3 graphs" },
        { "ogb-graphs", "raw/graph-label.csv", "0.5\nnan\n1\n",
          "graph-label.csv:2: a target is unknown" },
        { "ogb-graphs", "split/scaffold/test.csv", "3\n", "test.csv:1:" },
        { "ogb-typed", "raw/relation-list.csv", "likes,3\n", "relation-list says 3" },
        { "ogb-typed", "raw/relation-list.csv", "hates,3\n", "edge-hates.csv[.gz] is missing" },
        { "wordnet", "data.verb",
          "00000001 31 v 01 be 0 001 + 00000777 n 0101 01 + 02 00 | exist\n",
          "where no synset is" },
        { "wordnet", "data.verb", "00000001 31 n 01 be 0 000 | exist\n",
          "data.verb:1: the synset type" },
        { "wordnet", "data.adv", "00000001 45 r 01 not 0 000 | no\n", "lexicographer file" },
        { "SET", "SET_A.txt", "1, 3\n2, 1\n3, 4\n4, 3\n", "joins two graphs" },
        { "SET", "SET_graph_indicator.txt", "1\n3\n", "graph 3 follows graph 1" },
        { "csv", "edges.csv", "from,to,w\nx,nobody,1\n",
          "edges.csv:2: node nobody is not in the node file" },
        { "csv", "edges.csv", "from,to,w\nx,y\n", "2 columns, the first line has 3" },
        { "csv", "nodes.csv", "id,f1,lab,f2,said\nx,one,A,2,\n",
          "column f1: \"one\" is not a finite number" },
        { "csv", "nodes.csv", "id,f1,lab,f2\nx,1,A,2\n", "text=said: there is no such column" },
    };
    begin();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const sample_source *s = source_named(cases[i].source);
        sample_make(s);
        sample_write(sample_path("%s/%s", s->name, cases[i].file), cases[i].text,
                     strlen(cases[i].text));
        nsm_dataset *ds = sample_import(ctx, s);
        ck_assert_msg(!ds && strstr(nsm_error_message(ctx), cases[i].says),
                      "case %zu: want \"%s\", have \"%s\"", i, cases[i].says,
                      nsm_error_message(ctx));
        nsm_error_clear(ctx);
    }
    sample_make(source_named("ogb-plain"));
    ck_assert(
        !nsm_import(ctx, "ogb", sample_path("ogb-plain"), &(nsm_option){ "direct", "true" }, 1));
    ck_assert(strstr(nsm_error_message(ctx), "there is no option direct; there are directed"));
    nsm_error_clear(ctx);
    ck_assert(
        !nsm_import(ctx, "ogb", sample_path("ogb-plain"), &(nsm_option){ "directed", "maybe" }, 1));
    ck_error(ctx, NSM_EINVAL);
    ck_assert(!nsm_import(ctx, "xls", sample_path("ogb-plain"), NULL, 0));
    ck_error(ctx, NSM_EINVAL);
    end();
}
END_TEST

/* The edges of all types. */
static int64_t all_edges(const nsm_dataset *ds)
{
    int64_t n = 0;
    for (int i = 0; i < ds->edge_types; i++) n += ds->edge[i].count;
    return n;
}

START_TEST(shared_data) /* the public data sets, with the counts of their README files */
{
    static const struct {
        const char *format, *name;
        int64_t nodes, edges, features, classes, graphs, train;
    } sets[] = {
        { "ogb", "cora", 2708, 2 * 5278, 1433, 7, 1, 140 },
        { "ogb", "citeseer", 3327, 2 * 4552, 3703, 6, 1, 120 },
        { "ogb", "dblp", 17716, 2 * 52867, 1639, 4, 1, 80 },
        { "ogb", "sffsd", 77881, 85834 + 153337 + 154990 + 155283, 10, 2, 1, 11857 },
        { "tu", "MUTAG", 3371, 7442, 7, 2, 188, 169 },
        { "graphml", "karate/karate.graphml", 34, 2 * 78, 0, 4, 1, 0 },
    };
    begin();
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        const char *path = sample_shared(sets[i].name);
        bool karate = !strcmp(sets[i].format, "graphml");
#ifndef HAVE_IGRAPH
        if (karate) continue;
#endif
        if (!path) {
            printf("shared data set %s is not at hand: skipped\n", sets[i].name);
            continue;
        }
        nsm_dataset *ds = nsm_import(ctx, sets[i].format, path, &(nsm_option){ "label", "label" },
                                     karate);
        ck_ok(ctx);
        ck_assert_int_eq(ds->node[0].count, sets[i].nodes);
        ck_assert_int_eq(all_edges(ds), sets[i].edges);
        ck_assert_int_eq(ds->node[0].features, sets[i].features);
        ck_assert_int_eq(ds->label.columns, sets[i].classes);
        ck_assert_int_eq(ds->graphs, sets[i].graphs);
        if (sets[i].train)
            ck_assert_int_eq(nsm_dataset_split_find(ds, NULL)->count[NSM_TRAIN], sets[i].train);
        nsm_dataset_free(ds);
    }
    end();
}
END_TEST

START_TEST(as_before) /* files of before, without what points, word classes and names of values */
{
    begin();
    nsm_dataset *ds = sample_new(ctx, NSM_LABEL_CLASS, false);
    nsm_dataset_questions *q = &ds->question;
    nsm_dataset_text *t = &ds->node[0].text;
    free(q->pointed);
    free(t->label);
    nsmi_h5_free_strings(q->value_names, q->features);
    nsmi_h5_free_strings(t->class_names, t->classes);
    q->pointed = t->label = NULL;
    q->value_names = t->class_names = NULL;
    q->pointed_type = 0;
    t->classes = 0;
    ck_assert_int_eq(nsm_dataset_save(ds, sample_path("before.h5")), NSM_OK);
    nsm_dataset *again = nsm_dataset_load(ctx, sample_path("before.h5"), NULL);
    ck_ok(ctx);
    ck_assert(!sample_difference(ds, again) && !again->question.pointed);
    nsm_dataset_free(again);
    nsm_dataset_free(ds);
    end();
}
END_TEST

/* Labels of a synset's words: "." not asked, "0", "1". */
static const char *marks(const nsm_dataset *ds, int64_t i)
{
    static char text[64];
    const nsm_dataset_text *t = &ds->node[0].text;
    int64_t n = 0;
    for (int64_t k = t->ptr[i]; k < t->ptr[i + 1]; k++) text[n++] = ".01"[t->label[k] + 1];
    text[n] = 0;
    return text;
}

START_TEST(genus) /* words of definitions that a direct hypernym is called by */
{
    static const char *const file[] = { "data.noun", "data.verb", "data.adj", "data.adv" };
    static const char *const text[] = {
        "00000001 03 n 01 entity 0 000 | that which is\n"
        "00000050 05 n 02 Animal 0 living_thing 0 001 @ 00000001 n 0000 | any of the entities; "
        "\"an entity\"\n"
        "00000090 05 n 01 dog 0 001 @ 00000050 n 0000 | dog animals, living things, a living "
        "animal thing of entity\n"
        "00000150 05 n 01 Rex 0 001 @i 00000090 n 0000 | dogs and dogged men\n",
        "00000001 38 v 01 move 0 000 01 + 02 00 | go\n"
        "00000050 38 v 01 run 0 001 @ 00000001 v 0000 01 + 02 00 | moving, moved or moves\n",
        "00000001 00 a 01 alive 0 000 | living entity\n", "00000001 02 r 01 not 0 000 | negation\n"
    };
    begin();
    for (int f = 0; f < 4; f++)
        sample_write(sample_path("genus/%s", file[f]), text[f], strlen(text[f]));
    const nsm_option o[] = { { "genus", "true" }, { "least", "1" }, { "features", "64" } };
    nsm_dataset *ds = nsm_import(ctx, "wordnet", sample_path("genus"), o, 3);
    ck_ok(ctx);
    ck_assert_str_eq(marks(ds, 0), "....");        /* it has no hypernym */
    ck_assert_str_eq(marks(ds, 1), "...0001..");   /* by rule; not in its example */
    ck_assert_str_eq(marks(ds, 2), ".0111001000"); /* "living things"; not the hypernym's own */
    ck_assert_str_eq(marks(ds, 3), ".1000");       /* no rule of nouns takes off -ged */
    ck_assert_str_eq(marks(ds, 5), ".1101");
    ck_assert_str_eq(marks(ds, 6), "...");
    ck_assert_str_eq(ds->node[0].text.class_names[1], "genus");
    nsm_dataset_free(ds);
    ds = nsm_import(ctx, "wordnet", sample_path("genus"), o + 1, 2);
    ck_assert(ds && !ds->node[0].text.label);
    nsm_dataset_free(ds);
    end();
}
END_TEST

static int64_t of_class(const nsm_dataset *ds, const nsm_dataset_split *s, int part, int32_t cls)
{
    int64_t n = 0;
    for (int64_t k = 0; k < s->count[part]; k++) n += ds->label.cls[s->index[part][k]] == cls;
    return n;
}

/* A fold's validation part comes out of its training part, a share of each class. */
START_TEST(fold_validation)
{
    const char *path = sample_shared("MUTAG");
    if (!path) {
        printf("MUTAG is not at hand: skipped\n");
        return;
    }
    begin();
    const nsm_option o[] = { { "valid", "0.1" }, { "seed", "3" } };
    nsm_dataset *ds = nsm_import(ctx, "tu", path, o, 2),
                *all = nsm_import(ctx, "tu", path, NULL, 0),
                *other = nsm_import(ctx, "tu", path, o, 1);
    ck_ok(ctx);
    const nsm_dataset_split *s = &ds->split[0], *t = &all->split[0];
    ck_assert(s->count[NSM_TRAIN] == 152 && s->count[NSM_VALID] == 17 && s->count[NSM_TEST] == 19);
    ck_assert(!t->count[NSM_VALID] &&
              !memcmp(s->index[NSM_TEST], t->index[NSM_TEST], 19 * sizeof(int32_t)));
    for (int32_t c = 0; c < 2; c++)
        ck_assert_int_eq(of_class(ds, s, NSM_TRAIN, c) + of_class(ds, s, NSM_VALID, c),
                         of_class(all, t, NSM_TRAIN, c));
    ck_assert_int_eq(of_class(ds, s, NSM_VALID, 0), 6); /* of 57 */
    ck_assert(memcmp(s->index[NSM_VALID], other->split[0].index[NSM_VALID], 17 * sizeof(int32_t)));
    nsm_dataset_free(other);
    nsm_dataset_free(all);
    nsm_dataset_free(ds);
    ck_assert(!nsm_import(ctx, "tu", path, &(nsm_option){ "valid", "1.5" }, 1));
    ck_error(ctx, NSM_EINVAL);
    end();
}
END_TEST

START_TEST(wordnet) /* WordNet 3.0, where it is installed */
{
    const char *folder = getenv("NSM_WORDNET") ? getenv("NSM_WORDNET") : "/usr/share/wordnet";
    if (access(folder, R_OK)) {
        printf("WordNet is not installed: skipped\n");
        return;
    }
    begin();
    nsm_dataset *ds = nsm_import(ctx, "wordnet", folder, NULL, 0);
    ck_ok(ctx);
    ck_assert_int_eq(ds->node[0].count, 117659);
    ck_assert_int_eq(all_edges(ds), 377592);
    const nsm_dataset_split *split = nsm_dataset_split_find(ds, "default");
    const nsm_dataset_text *gloss = &ds->node[0].text;
    ck_assert(gloss->vocab > 10000 && gloss->ptr[117659] > 1000000);
    ck_assert_str_eq(gloss->symbol[0], "?"); /* a word that few synsets have */
    int seen[45] = { 0 };
    for (int64_t i = 0; i < split->count[NSM_TRAIN]; i++)
        seen[ds->label.cls[split->index[NSM_TRAIN][i]]] = 1;
    for (int c = 0; c < 45; c++) ck_assert(seen[c]);
    ck_assert_int_eq(split->count[0] + split->count[1] + split->count[2], 117659);
    nsm_dataset_free(ds);
    end();
}
END_TEST

/* ---- splits, numbers, generators, info ---- */

START_TEST(splits)
{
    begin();
    nsm_dataset *ds = nsm_generate(ctx, "sbm",
                                   (nsm_option[]){ { "nodes", "1000" }, { "classes", "10" } }, 2);
    ck_assert_int_eq(nsm_dataset_split_make(ds, "shchur",
                                            &(nsm_split_config){ .kind = NSM_SPLIT_PER_CLASS }),
                     NSM_OK);
    const nsm_dataset_split *s = nsm_dataset_split_find(ds, "shchur");
    ck_assert(s->count[0] == 200 && s->count[1] == 300 && s->count[2] == 500);
    nsm_dataset_split_make(ds, "half",
                           &(nsm_split_config){
                               .kind = NSM_SPLIT_STRATIFIED, .train = 0.5, .valid = 0.25 });
    s = nsm_dataset_split_find(ds, "half");
    ck_assert(s->count[0] == 500 && s->count[1] == 250 && s->count[2] == 250);
    int32_t first = s->index[0][0], last = s->index[0][499];
    nsm_dataset_split_make(ds, "half",
                           &(nsm_split_config){
                               .kind = NSM_SPLIT_STRATIFIED, .train = 0.5, .valid = 0.25 });
    s = nsm_dataset_split_find(ds, "half");
    ck_assert(s->index[0][0] == first && s->index[0][499] == last && ds->splits == 3);
    ck_assert_int_eq(nsm_dataset_validate(ds), NSM_OK);
    nsm_dataset_split_make(ds, "big",
                           &(nsm_split_config){ .kind = NSM_SPLIT_PER_CLASS,
                                                .train_per_class = 90 });
    ck_error(ctx, NSM_EINVAL);
    ck_assert(!nsm_dataset_split_find(ds, "nothing"));
    ck_assert(strstr(nsm_error_message(ctx), "default shchur half"));
    nsm_error_clear(ctx);
    nsm_dataset_free(ds);
    /* without labels every node is dealt out, at random alone */
    ds = nsm_dataset_new(ctx, "bare");
    nsm_dataset_add_nodes(ds, "node", 10);
    ck_assert_int_eq(nsm_dataset_split_make(ds, "a",
                                            &(nsm_split_config){ .kind = NSM_SPLIT_RANDOM,
                                                                 .train = 0.5, .valid = 0.2 }),
                     NSM_OK);
    s = nsm_dataset_split_find(ds, "a");
    ck_assert(s->count[0] == 5 && s->count[1] == 2 && s->count[2] == 3);
    ck_assert_int_eq(nsm_dataset_validate(ds), NSM_OK);
    nsm_dataset_split_make(ds, "b", &(nsm_split_config){ .kind = NSM_SPLIT_STRATIFIED });
    ck_error(ctx, NSM_EINVAL);
    nsm_dataset_free(ds);
    end();
}
END_TEST

START_TEST(numbers) /* as strtod reads them, in any locale; junk is refused */
{
    static const char *const good[] = { "0",
                                        "-1",
                                        "1e-3",
                                        "3.14159",
                                        ".5",
                                        "5.",
                                        "1e22",
                                        "123456789012345678901234",
                                        "1e-300",
                                        "0.1",
                                        "9007199254740993",
                                        "2.2250738585072014e-308",
                                        "+7",
                                        "1E5" };
    static const char *const bad[] = { "",      "-",    ".",  "e5",  "nan", "inf", "0x1p3",
                                       "1e999", "1..2", "1e", "--1", "1a",  "1 2x" };
    setlocale(LC_ALL, "de_DE.UTF-8");
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        const char *p = good[i];
        double v = 0;
        ck_assert_msg(nsmi_parse_double(&p, &v) && !*p, "%s", good[i]);
        setlocale(LC_NUMERIC, "C");
        ck_assert_msg(v == strtod(good[i], NULL), "%s gives %.17g", good[i], v);
        setlocale(LC_NUMERIC, "de_DE.UTF-8");
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const char *p = bad[i];
        double v;
        ck_assert_msg(!nsmi_parse_double(&p, &v) || *p, "%s", bad[i]);
    }
    int64_t n;
    const char *p = "2147483648";
    ck_assert(!nsmi_parse_int(&p, 0, INT32_MAX, &n));
    p = "9999999999999999999";
    ck_assert(!nsmi_parse_int(&p, INT64_MIN, INT64_MAX, &n));
    p = "-5,";
    ck_assert(nsmi_parse_int(&p, -5, 5, &n) && n == -5 && *p == ',');
}
END_TEST

START_TEST(generators) /* the same for any number of threads; what was asked for */
{
    static const nsm_option rmat[] = {
        { "nodes", "3000" }, { "edges", "40000" }, { "features", "5" }, { "seed", "3" }
    };
    nsm_ctx *one = nsm_ctx_new(&(nsm_ctx_config){ .threads = 1 }),
            *three = nsm_ctx_new(&(nsm_ctx_config){ .threads = 3 });
    nsm_dataset *a = nsm_generate(one, "rmat", rmat, 4), *b = nsm_generate(three, "rmat", rmat, 4);
    ck_ok(one);
    ck_ok(three);
    ck_assert(!sample_difference(a, b));
    ck_assert_int_eq(a->edge[0].count, 40000);
    nsm_dataset_stats s;
    nsm_dataset_info(a, &s);
    ck_assert(s.unpaired == 0 && s.self_loops == 0 && s.homophily > 0.48 && s.homophily < 0.6);
    nsm_dataset_stats_clear(&s);
    nsm_dataset_free(a);
    nsm_dataset_free(b);
    a = nsm_generate(one, "sbm", (nsm_option[]){ { "nodes", "5000" }, { "homophily", "0.7" } }, 2);
    nsm_dataset_info(a, &s);
    ck_assert(fabs(s.degree_mean - 10) < 0.3 && fabs(s.homophily - 0.7) < 0.02 &&
              s.duplicates == 0);
    nsm_dataset_stats_clear(&s);
    nsm_dataset_free(a);
    a = nsm_generate(one, "csbm", (nsm_option[]){ { "nodes", "5000" }, { "lambda", "2" } }, 2);
    nsm_dataset_info(a, &s);
    ck_assert(fabs(s.homophily - (0.5 + 2 / sqrt(10) / 2)) < 0.02 && a->node[0].features == 100);
    nsm_dataset_stats_clear(&s);
    nsm_dataset_free(a);
#ifdef HAVE_IGRAPH
    a = nsm_generate(one, "ba", NULL, 0);
    b = nsm_generate(three, "ba", NULL, 0);
    ck_assert(!sample_difference(a, b) && a->edge[0].count == 2 * (4 * 995 + 10));
    nsm_dataset_free(a);
    nsm_dataset_free(b);
#endif
    ck_assert(!nsm_generate(one, "rmat", (nsm_option[]){ { "edges", "3" } }, 1));
    ck_error(one, NSM_EINVAL);
    ck_assert(
        !nsm_generate(one, "sbm", (nsm_option[]){ { "nodes", "10" }, { "degree", "100" } }, 2));
    ck_error(one, NSM_EINVAL);
    nsm_ctx_free(one);
    nsm_ctx_free(three);
}
END_TEST

/* a graph that can be counted by hand: 0-1, 1-2 twice, 3-3, 4 alone; and 5 -> 0 one way */
START_TEST(info)
{
    static const int32_t src[] = { 0, 1, 1, 2, 1, 2, 3, 5 }, dst[] = { 1, 0, 2, 1, 2, 1, 3, 0 };
    static const int32_t cls[] = { 0, 0, 1, 1, -1, 0 };
    begin();
    nsm_dataset *ds = nsm_dataset_new(ctx, "hand");
    nsm_dataset_add_nodes(ds, "node", 6);
    nsm_dataset_edges *e = nsm_dataset_add_edges(ds, "edge", 0, 0, 8);
    memcpy(e->src, src, sizeof src);
    memcpy(e->dst, dst, sizeof dst);
    ds->directed = true;
    ds->label = (nsm_dataset_labels){ .kind = NSM_LABEL_CLASS, .count = 6, .columns = 2 };
    ds->label.cls = nsm_dataset_array(ds, 6, sizeof(int32_t));
    memcpy(ds->label.cls, cls, sizeof cls);
    nsm_dataset_stats s;
    ck_assert_int_eq(nsm_dataset_info(ds, &s), NSM_OK);
    ck_assert(s.nodes == 6 && s.edges == 8 && s.self_loops == 1 && s.duplicates == 2 &&
              s.unpaired == 1);
    ck_assert(s.isolated == 1 && s.components == 3 && s.largest == 4);
    ck_assert(s.degree_min == 0 && s.degree_max == 3 && s.degree_median == 1.5);
    ck_assert(s.labelled == 5 && s.classes == 2 && s.class_count[0] == 3 && s.class_count[1] == 2);
    ck_assert(fabs(s.homophily - 4.0 / 8) < 1e-12);
    nsm_dataset_stats_clear(&s);
    int64_t n;
    int32_t *u, *v, *t;
    ck_assert_int_eq(nsm_dataset_edges_merged(ds, 0, &n, &u, &v, &t), NSM_OK);
    ck_assert(n == 8 && u[7] == 5 && v[7] == 0 && t[7] == 0);
    nsm_dataset_release(u);
    nsm_dataset_release(v);
    nsm_dataset_release(t);
    nsm_dataset_free(ds);
    end();
}
END_TEST

int main(void)
{
    return test_main(
        "datasets",
        (const TTest *const[]){
            round_trip,    rows,    faults,    seal,        draft,     full_disk, memory,
            small_imports, triples, malformed, shared_data, as_before, genus,     fold_validation,
            wordnet,       splits,  numbers,   generators,  info,      NULL });
}
