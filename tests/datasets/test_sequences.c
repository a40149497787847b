/* tests/datasets/test_sequences.c - Sequences: the container, importers number by number, made
 * tasks against a recomputation from their rows alone. */
#include "config.h"
#include "datasets/sequences.h"
#include "tests/datasets/sample.h"
#include "tests/test.h"

static nsm_ctx *ctx;
static void begin(void) { ctx = nsm_ctx_new(NULL); }
static void end(void)
{
    ck_ok(ctx);
    nsm_ctx_free(ctx);
    sample_folder_remove();
}

static nsm_sequences *generate(const char *task, int options, const nsm_option *option)
{
    nsm_sequences *s = nsm_sequences_generate(ctx, task, option, options);
    ck_ok(ctx);
    return s;
}
#define MAKE(task, ...)                                                                            \
    generate(task, (int)(sizeof((nsm_option[]){ __VA_ARGS__ }) / sizeof(nsm_option)),              \
             (nsm_option[]){ __VA_ARGS__ })

static nsm_sequences *import_text(const char *format, const char *name, const char *text,
                                  int options, const nsm_option *option)
{
    sample_write(sample_path("%s", name), text, strlen(text));
    return nsm_sequences_import(ctx, format, sample_path("%s", name), option, options);
}

/* ---- the container ---- */
static bool same(const void *a, const void *b, int64_t n, size_t bytes)
{
    return (!a) == (!b) && (!a || !memcmp(a, b, (size_t)n * bytes));
}

static bool equal(const nsm_sequences *a, const nsm_sequences *b)
{
    bool ok = a->kind == b->kind && a->vocab == b->vocab && a->classes == b->classes &&
              a->groups == b->groups && !strcmp(a->name, b->name);
    for (int64_t i = 0; a->symbol && ok && i < a->vocab; i++)
        ok = b->symbol && !strcmp(a->symbol[i], b->symbol[i]);
    for (int64_t i = 0; ok && i < a->groups; i++) ok = !strcmp(a->group[i], b->group[i]);
    for (int k = 0; k < NSM_SPLIT_PARTS && ok; k++) {
        const nsm_sequence_part *p = &a->part[k], *q = &b->part[k];
        int64_t n = p->start ? p->start[p->rows] : p->rows * p->length;
        ok = p->rows == q->rows && p->length == q->length &&
             same(p->start, q->start, p->rows + 1, sizeof *p->start) &&
             same(p->id, q->id, n, sizeof *p->id) &&
             same(p->target, q->target, a->kind == NSM_SEQUENCE_CLASS ? p->rows : n,
                  sizeof *p->target) &&
             same(p->level, q->level, n, sizeof *p->level) &&
             same(p->group, q->group, p->rows, sizeof *p->group);
    }
    const nsm_sequence_series *x = &a->series, *y = &b->series;
    return ok && x->steps == y->steps && !memcmp(x->end, y->end, sizeof x->end) &&
           same(x->value, y->value, x->steps * a->vocab, sizeof *x->value) &&
           same(x->mean, y->mean, a->vocab, sizeof *x->mean) &&
           same(x->deviation, y->deviation, a->vocab, sizeof *x->deviation);
}

/* Saved and loaded it is the same; saved again, the same bytes.  Frees it. */
static void check_round(nsm_sequences *s)
{
    size_t n, m;
    ck_ok(ctx);
    nsm_sequences_save(s, sample_path("a.h5"));
    nsm_sequences *back = nsm_sequences_load(ctx, sample_path("a.h5"));
    ck_ok(ctx);
    ck_assert_msg(equal(s, back), "%s comes back as something else", s->name);
    nsm_sequences_save(back, sample_path("b.h5"));
    char *a = sample_read(sample_path("a.h5"), &n), *b = sample_read(sample_path("b.h5"), &m);
    ck_assert(n == m && !memcmp(a, b, n));
    free(a);
    free(b);
    nsm_sequences_free(s);
    nsm_sequences_free(back);
}

static const char series_text[] = "date,a,b\nd0,1,5\nd1,3,5\nd2,-1e1,5\nd3,4,5.5\nd4,0,6\nd5,7,"
                                  "6\nd6,8,6\nd7,9,6\nd8,9,6\nd9,9,6\n";

START_TEST(round_trip)
{
    begin();
    check_round(
        MAKE("induction", { "length", "9" }, { "train", "7" }, { "valid", "0" }, { "test", "2" }));
    check_round(import_text("ett", "series.csv", series_text, 0, NULL));
    check_round(import_text("text", "words", "so sad, so säd", 0, NULL));
    end();
}
END_TEST

START_TEST(faults) /* what validation must see */
{
    begin();
    nsm_sequences *s = MAKE("induction", { "length", "9" }, { "train", "3" }, { "valid", "0" },
                            { "test", "2" });
    nsm_sequence_part *p = &s->part[NSM_TRAIN];
    ck_assert_int_eq(nsm_sequences_validate(s), NSM_OK);
#define FAULT(change, back, code)                               \
    change;                                                     \
    nsm_sequences_validate(s);                                  \
    ck_error(ctx, code);                                        \
    back
    FAULT(p->id[3] += 100, p->id[3] -= 100, NSM_EINVAL);
    FAULT(p->target[8] = -2, p->target[8] = -1, NSM_EINVAL);
    FAULT(s->vocab = 0, s->vocab = 16, NSM_EINVAL);
    FAULT(p->start = ((int64_t[]){ 0, 5, 4, 27 }), p->start = NULL, NSM_EINVAL);
    FAULT(p->start = ((int64_t[]){ 1, 5, 6, 27 }), p->start = NULL, NSM_EINVAL);
    FAULT(p->start = ((int64_t[]){ 0, 10, 19, 27 }), p->start = NULL,
          NSM_EINVAL);                                                       /* longer than 9 */
    FAULT(p->group = ((int32_t[]){ 0, 1, 0 }), p->group = NULL, NSM_EINVAL); /* without groups */
    float level[27] = { 0 };
    level[26] = NAN;
    FAULT(p->level = level, p->level = NULL, NSM_ENUMBER);
    nsm_sequences_free(s);
    s = import_text("ett", "series.csv", series_text, 0, NULL);
    FAULT(s->series.end[1] = 1, s->series.end[1] = 8, NSM_EINVAL);
    FAULT(s->series.end[2] = 11, s->series.end[2] = 10, NSM_EINVAL);
    float old = s->series.value[4];
    FAULT(s->series.value[4] = INFINITY, s->series.value[4] = old, NSM_ENUMBER);
    nsm_sequences_free(s);
    end();
}
END_TEST

/* ---- made tasks ---- */
START_TEST(seeds) /* the same options and seed give the same rows, another seed others; fewer rows
                     the first of them */
{
    begin();
    for (int i = 0; nsm_sequences_task(i); i++) {
        const char *task = nsm_sequences_task(i)->name;
        bool listops = !strcmp(task, "listops");
        nsm_option few[] = { { "train", "6" }, { "valid", "2" }, { "test", "2" },
                             { "seed", "3" },  { "least", "5" }, { "most", "90" } };
        int options = listops ? 6 : 4;
        nsm_sequences *a = generate(task, options, few), *b = generate(task, options, few);
        ck_assert_msg(equal(a, b), "%s differs from itself", task);
        few[0].value = "4";
        nsm_sequences *c = generate(task, options, few);
        int64_t n, at = nsm_sequences_row(&a->part[0], 3, &n);
        ck_assert_msg(!memcmp(a->part[0].id, c->part[0].id, (size_t)(at + n) * sizeof(int32_t)),
                      "%s: row 3 depends on those behind it", task);
        few[3].value = "4";
        nsm_sequences *d = generate(task, options, few);
        ck_assert_msg(!equal(c, d), "%s does not depend on the seed", task);
        nsm_sequences_row(&c->part[1], 0, &n);
        nsm_sequences_row(&c->part[2], 0, &at);
        ck_assert_msg(n != at || memcmp(c->part[1].id, c->part[2].id, (size_t)n * sizeof(int32_t)),
                      "%s: parts begin alike", task);
        nsm_sequences_free(a);
        nsm_sequences_free(b);
        nsm_sequences_free(c);
        check_round(d);
    }
    end();
}
END_TEST

/* The row's tokens and targets. */
typedef struct { int64_t n; const int32_t *id, *target; const float *level; } row;
static row row_of(const nsm_sequence_part *p, int64_t r)
{
    int64_t n, at = nsm_sequences_row(p, r, &n);
    return (row){ n, p->id + at, p->target + at, p->level ? p->level + at : NULL };
}

START_TEST(ntm) /* targets from the tokens alone */
{
    begin();
    nsm_sequences *s = MAKE("ntm_copy", { "bits", "5" }, { "least", "2" }, { "most", "6" },
                            { "train", "200" });
    bool length[8] = { false };
    ck_assert(s->kind == NSM_SEQUENCE_BITS && s->vocab == 64 && s->classes == 32);
    for (int64_t r = 0; r < 200; r++) {
        row x = row_of(&s->part[0], r);
        int64_t n = x.n / 2;
        length[n] = true;
        ck_assert(x.n % 2 && x.id[n] == 32);
        for (int64_t i = 0; i < n; i++)
            ck_assert(x.id[i] < 32 && x.target[i] == -1 && x.id[n + 1 + i] == 0 &&
                      x.target[n + 1 + i] == x.id[i]);
        ck_assert(x.target[n] == -1);
    }
    for (int n = 0; n < 8; n++) ck_assert(length[n] == (n >= 2 && n <= 6));
    nsm_sequences_free(s);

    s = MAKE("repeat_copy", { "bits", "4" }, { "most", "3" }, { "repeats", "4" },
             { "normalise", "4" }, { "train", "400" });
    double sum = 0, square = 0;
    for (int64_t r = 0; r < 400; r++) {
        row x = row_of(&s->part[0], r);
        int64_t mark = 0, last = x.n - 1;
        while (x.id[mark] != 16) mark++;
        int64_t times = (x.n - mark - 2) / mark;
        ck_assert(mark >= 1 && mark <= 3 && times >= 1 && times <= 4 &&
                  x.n == mark + 2 + times * mark && x.target[last] == 16);
        for (int64_t i = 0; i < x.n; i++) {
            ck_assert((x.level[i] != 0) == (i == mark) && (i <= mark || x.id[i] == 0));
            ck_assert(i == last || x.target[i] == (i <= mark ? -1 : x.id[(i - mark - 1) % mark]));
        }
        ck_assert(fabs(x.level[mark] - ((double)times - 2.5) / sqrt(1.25)) < 1e-6);
        sum += x.level[mark] / 400.0;
        square += x.level[mark] * x.level[mark] / 400.0;
    }
    ck_assert(fabs(sum) < 0.15 && fabs(square - 1) < 0.15);
    nsm_sequences_free(s);

    s = MAKE("associative_recall", { "bits", "9" }, { "item", "2" }, { "most", "4" },
             { "train", "100" });
    for (int64_t r = 0; r < 100; r++) { /* marks: 512 an item, 1024 the query */
        row x = row_of(&s->part[0], r);
        int64_t items = x.n / 3 - 2, q = items * 3, found = -1;
        ck_assert(x.n % 3 == 0 && items >= 2 && items <= 4 && x.id[q] == 1024 &&
                  x.id[q + 3] == 1024);
        for (int64_t i = 0; i < items; i++) {
            ck_assert(x.id[3 * i] == 512);
            if (i + 1 < items && !memcmp(x.id + 3 * i + 1, x.id + q + 1, 2 * sizeof *x.id))
                found = i;
        }
        ck_assert(found >= 0 && !memcmp(x.target + q + 4, x.id + 3 * found + 4, 2 * sizeof *x.id));
        for (int64_t i = 0; i < q + 4; i++) ck_assert(x.target[i] == -1);
        ck_assert(x.id[q + 4] == 0 && x.id[q + 5] == 0);
    }
    nsm_sequences_free(s);
    end();
}
END_TEST

/* The value of a list of tokens, read by a stack from the end to the beginning. */
static int listops_value(const row *x, const nsm_sequences *s)
{
    int stack[4096], top = 0;
    for (int64_t i = x->n - 1; i >= 0; i--) {
        const char *word = s->symbol[x->id[i]];
        if (word[0] == ']' || word[0] != '[') {
            stack[top++] = word[0] == ']' ? -1 : atoi(word);
            continue;
        }
        int count[10] = { 0 }, n = 0, sum = 0, low = 9, high = 0, value = 0;
        for (int v; (v = stack[--top]) >= 0; n++) {
            count[v]++;
            sum += v;
            if (v < low) low = v;
            if (v > high) high = v;
        }
        ck_assert(n >= 2);
        if (!strcmp(word, "[MIN")) value = low;
        else if (!strcmp(word, "[MAX")) value = high;
        else if (!strcmp(word, "[SM")) value = sum % 10;
        else { /* the two in the middle, counted from below */
            int twice = 0;
            for (int k = 0; k < 2; k++) {
                int rank = (n - 1 + k) / 2, v = 0;
                for (int seen = count[0]; seen <= rank; seen += count[++v]) {}
                twice += v;
            }
            value = twice / 2;
        }
        stack[top++] = value;
    }
    ck_assert(top == 1);
    return stack[0];
}

START_TEST(classes)
{
    begin();
    nsm_sequences *s = MAKE("listops", { "least", "20" }, { "most", "200" }, { "train", "500" },
                            { "valid", "0" }, { "test", "0" });
    int seen[16] = { 0 };
    ck_assert(s->vocab == 15 && s->classes == 10);
    for (int64_t r = 0; r < 500; r++) {
        row x = row_of(&s->part[0], r);
        ck_assert(x.n >= 20 && x.n <= 200);
        ck_assert_int_eq(listops_value(&x, s), s->part[0].target[r]);
        seen[s->part[0].target[r]]++;
    }
    for (int v = 0; v < 10; v++) ck_assert(seen[v] > 0);
    nsm_sequences_free(s);
    ck_assert(!nsm_sequences_generate(ctx, "listops", (nsm_option[]){ { "depth", "2" } }, 1));
    ck_assert(strstr(nsm_error_message(ctx), "no tree of depth 2 has 500 to 2000 tokens"));
    nsm_error_clear(ctx);

    s = MAKE("parity", { "length", "9" }, { "least", "3" }, { "train", "100" });
    for (int64_t r = 0; r < 100; r++) {
        row x = row_of(&s->part[0], r);
        int64_t ones = 0;
        for (int64_t i = 0; i < x.n; i++) ones += x.id[i];
        ck_assert(x.n >= 3 && x.n <= 9 && s->part[0].target[r] == ones % 2);
    }
    nsm_sequences_free(s);
    end();
}
END_TEST

/* Mark all lit pixels that can be come to from `at` by steps shorter than 3. */
static void flood(const int32_t *pixel, int64_t size, int64_t at, bool *reached)
{
    int64_t stack[4096], top = 0;
    reached[at] = true;
    for (stack[top++] = at; top > 0;) {
        int64_t p = stack[--top];
        for (int64_t dy = -2; dy <= 2; dy++)
            for (int64_t dx = -2; dx <= 2; dx++) {
                int64_t x = p % size + dx, y = p / size + dy, q = y * size + x;
                if (x < 0 || y < 0 || x >= size || y >= size || reached[q] || pixel[q] < 64)
                    continue;
                reached[q] = true;
                stack[top++] = q;
            }
    }
}

/* the class from the picture alone: circles are where four pixels are full */
START_TEST(pathfinder)
{
    begin();
    nsm_sequences *s = MAKE("pathfinder", { "size", "32" }, { "train", "300" }, { "valid", "0" },
                            { "test", "0" });
    int64_t joined = 0, size = 32;
    for (int64_t r = 0; r < 300; r++) {
        row x = row_of(&s->part[0], r);
        int64_t first = -1, other = -1;
        bool reached[1024] = { false };
        ck_assert(x.n == 1024);
        for (int64_t p = size + 1; p < 1024 - size - 1; p++) {
            bool full = true;
            for (int64_t k = 0; k < 4; k++) full = full && x.id[p + k / 2 * size + k % 2] == 255;
            if (!full) continue;
            if (first < 0) first = p;
            else if (llabs(p % size - first % size) > 4 || p / size - first / size > 4) other = p;
        }
        ck_assert_msg(first >= 0 && other >= 0, "row %lld has not two circles", (long long)r);
        flood(x.id, size, first, reached);
        ck_assert_msg(reached[other] == s->part[0].target[r], "row %lld is of class %d",
                      (long long)r, s->part[0].target[r]);
        joined += s->part[0].target[r];
    }
    ck_assert(joined > 110 && joined < 190);
    nsm_sequences_free(s);
    ck_assert(!nsm_sequences_generate(ctx, "pathfinder",
                                      (nsm_option[]){ { "size", "16" }, { "dashes", "40" } }, 2));
    ck_assert(strstr(nsm_error_message(ctx), "do not fit 16 x 16 pixels"));
    nsm_error_clear(ctx);
    end();
}
END_TEST

/* ---- importers ---- */
START_TEST(ett)
{
    begin();
    nsm_sequences *s = import_text("ett", "series.csv", series_text, 0, NULL);
    ck_ok(ctx);
    ck_assert(s->kind == NSM_SEQUENCE_SERIES && s->vocab == 2 && !strcmp(s->symbol[1], "b"));
    ck_assert(s->series.steps == 10 && s->series.end[0] == 7 && s->series.end[1] == 8 &&
              s->series.end[2] == 10);
    double a[10] = { 1, 3, -10, 4, 0, 7, 8, 9, 9, 9 }, mean = 13 / 7.0, square = 0;
    for (int i = 0; i < 7; i++) square += (a[i] - mean) * (a[i] - mean) / 7;
    for (int i = 0; i < 10; i++)
        ck_assert(fabs(s->series.value[2 * i] - (a[i] - mean) / sqrt(square)) < 1e-6);
    ck_assert(fabs(s->series.mean[0] - mean) < 1e-6 &&
              fabs(s->series.deviation[0] - sqrt(square)) < 1e-6);
    nsm_sequences_free(s);
    s = import_text("ett", "series.csv", series_text, 1, &(nsm_option){ "valid", "0.3" });
    ck_assert(s->series.end[0] == 5 && s->series.end[1] == 8 && s->series.end[2] == 10);
    nsm_sequences_free(s);

    char *text = malloc(20 << 16),
         *to = text; /* 20 months of hours, and more; the first column is constant */
    to += sprintf(to, "date,k,x\n");
    for (int i = 0; i < 14500; i++) to += sprintf(to, "%d,2,%d\n", i, i % 100);
    s = import_text("ett", "ETTh9.csv", text, 0, NULL);
    ck_ok(ctx);
    ck_assert(s->series.end[0] == 8640 && s->series.end[1] == 11520 && s->series.end[2] == 14400 &&
              s->series.steps == 14500);
    ck_assert(s->series.value[0] == 0 && s->series.deviation[0] == 1);
    nsm_sequences_free(s);
    s = import_text("ett", "ETTm9.csv", text, 0, NULL);
    ck_assert(!s && strstr(nsm_error_message(ctx), "20 months are 57600"));
    nsm_error_clear(ctx);
    free(text);
    end();
}
END_TEST

static const char task_text[] =
    "1 Mary went to the hall.\n2 John, who knew, left.\n3 Where is Mary? \thall\t1\n4 Mary went "
    "out!\n"
    "5 What does she carry?\tMilk,apple\t1 4\n1 She left.\n2 Where? \thall\t1\n";

/* The folder babi/SET with one task; train NULL: without its file. */
static nsm_sequences *import_babi(const char *set, const char *train, int options,
                                  const nsm_option *option)
{
    sample_folder_remove();
    if (train)
        sample_write(sample_path("babi/%s/qa2_two-facts_train.txt", set), train, strlen(train));
    sample_write(sample_path("babi/%s/qa2_two-facts_test.txt", set), task_text, strlen(task_text));
    return nsm_sequences_import(ctx, "babi", sample_path("babi"), option, options);
}
static const nsm_option only_task_2[] = {
    { "valid", "0" }, { "skip", "1,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20" }
};

START_TEST(babi)
{
    begin();
    nsm_sequences *s = import_babi("en", task_text, 2, only_task_2);
    ck_ok(ctx);
    static const char *const words[] = { "!",    ".",          "?",    "carry", "does",
                                         "hall", "is",         "john", "knew",  "left",
                                         "mary", "milk,apple", "out",  "she",   "the",
                                         "to",   "went",       "what", "where", "who" };
    ck_assert(s->kind == NSM_SEQUENCE_CLASS && s->vocab == 20 && s->classes == 20 &&
              s->groups == 1 && !strcmp(s->group[0], "qa2_two-facts"));
    for (int i = 0; i < 20; i++) ck_assert_str_eq(s->symbol[i], words[i]);
    const nsm_sequence_part *p = &s->part[NSM_TRAIN];
    ck_assert(p->rows == 3 && p->length == 20 && s->part[NSM_TEST].rows == 3 &&
              !s->part[NSM_VALID].rows);
    /* the second: mary went to the hall . john who knew left . mary went out ! what does she carry
     * ? -- without the first question */
    static const int32_t second[] = { 10, 16, 15, 14, 5, 1,  7, 19, 8, 9,
                                      1,  10, 16, 12, 0, 17, 4, 13, 3, 2 };
    int64_t n, at = nsm_sequences_row(p, 1, &n);
    ck_assert(n == 20 && !memcmp(p->id + at, second, sizeof second) && p->target[1] == 11);
    at = nsm_sequences_row(p, 2, &n); /* another story */
    ck_assert(n == 5 && p->id[at] == 13 && p->target[2] == 5 && p->group[2] == 0);
    check_round(s);
    s = import_babi("en", task_text, 0, NULL);
    ck_assert(
        !s &&
        strstr(nsm_error_message(ctx),
               "the training file of task 1 is not there, in a folder en; skip=1 does without"));
    nsm_error_clear(ctx);
    s = import_babi("en-10k", task_text, 2, (nsm_option[]){ only_task_2[1], { "set", "en-10k" } });
    ck_ok(ctx);
    ck_assert(s->part[NSM_TRAIN].rows + s->part[NSM_VALID].rows == 3);
    nsm_sequences_free(s);
    end();
}
END_TEST

START_TEST(malformed) /* one fault each: one error that names file and line */
{
    static const struct { const char *format, *file, *text, *says; } cases[] = {
        { "ett", "x.csv", "", "x.csv:1: the file is empty" },
        { "ett", "x.csv", "date\n1\n", "x.csv:1: there is no column beside the first, \"date\"" },
        { "ett", "x.csv", "date,a,,b\n", "x.csv:1: column 3 has no name" },
        { "ett", "x.csv", "date,a,b\nd,1,2\nd,1\n", "x.csv:3: the line has 1 numbers, want 2" },
        { "ett", "x.csv", "date,a,b\nd,1,2,3\n", "x.csv:2: the line has more than 2 numbers" },
        { "ett", "x.csv", "date,a,b\nd,1,two\n", "x.csv:2: b is \"two\", which is not a number" },
        { "ett", "x.csv", "date,a,b\nd,1,nan\n", "x.csv:2: b is \"nan\"" },
        { "ett", "x.csv", "date,a,b\n,1,2\n", "x.csv:2: the line has no date" },
        { "ett", "x.csv", "date,a,b\nd,1,2\n", "1 lines leave nothing to train on" },
        { "ett", "ETTh1.csv", "date,a,b\nd,1,2\n", "1 lines of numbers, but 20 months are 14400" },
    };
    begin();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        nsm_sequences *s = import_text(cases[i].format, cases[i].file, cases[i].text, 0, NULL);
        ck_assert_msg(!s && strstr(nsm_error_message(ctx), cases[i].says),
                      "case %zu: want \"%s\", have \"%s\"", i, cases[i].says,
                      nsm_error_message(ctx));
        nsm_error_clear(ctx);
    }
    static const struct { const char *train, *says;
    } stories[] = {
        { NULL, "the training file of task 2 is not there" },
        { "", "qa2_two-facts_train.txt: the file is empty" },
        { "1 A b.\nWhere is b?\tc\t1\n",
          "train.txt:2: \"Where is b?\tc\t1\" does not begin with 1 or 2" },
        { "1 A b.\n3 C d.\n", "train.txt:2: \"3 C d.\" does not begin with 1 or 2" },
        { "1 A b.\n2 Where?\tc\n", "train.txt:2: the question has no answer, or no numbers" },
        { "1 A b.\n2 Where?\t\t1\n", "train.txt:2: the question has no answer" },
        { "1 A b.\n2 Where?\tc\t2\n", "train.txt:2: \"2\" are not numbers of earlier lines" },
        { "1 A b.\n2 Where?\tc\t1 x\n", "train.txt:2: \"1 x\" are not numbers" },
    };
    for (size_t i = 0; i < sizeof stories / sizeof *stories; i++) {
        nsm_sequences *s = import_babi("en", stories[i].train, 2, only_task_2);
        ck_assert_msg(!s && strstr(nsm_error_message(ctx), stories[i].says),
                      "story %zu: want \"%s\", have \"%s\"", i, stories[i].says,
                      nsm_error_message(ctx));
        nsm_error_clear(ctx);
    }
    ck_assert(!nsm_sequences_import(ctx, "ett", sample_path("nothing.csv"), NULL, 0));
    ck_error(ctx, NSM_EIO);
    end();
}
END_TEST

int main(void)
{
    return test_main("sequences", (const TTest *const[]){ round_trip, faults, seeds, ntm, classes,
                                                          pathfinder, ett, babi, malformed, NULL });
}
