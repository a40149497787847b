/* test_tools.c - The parts of the program that are not commands: settings, names, logs, events. */
#include "config.h"
#include <math.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include "tests/test.h"
#include "tools/charts.h"
#include "tools/events.h"
#include "tools/figure.h"
#include "tools/nearest.h"
#include "tools/page.h"
#include "tools/paper.h"
#include "tools/run.h"
#include "tools/settings.h"

typedef struct {
    int64_t hidden;
    double lr;
    char *model, *note;
    bool fast;
    setting_list fanouts;
} options;

static const setting fields[] = {
    {"hidden", SETTING_INT, offsetof(options, hidden), "64", "features", NULL, ">=1"},
    {"optimizer.lr", SETTING_REAL, offsetof(options, lr), "0.01", "learning rate", NULL, "0..1"},
    {"model", SETTING_CHOICE, offsetof(options, model), "gcn", "layers", "gcn|gat", NULL},
    {"note", SETTING_STRING, offsetof(options, note), NULL, "text", NULL, NULL},
    {"fast", SETTING_BOOL, offsetof(options, fast), "false", "be fast", NULL, NULL},
    {"fanouts", SETTING_LIST, offsetof(options, fanouts), "15,10", "neighbours", NULL, ">=0"},
    {0}};

static char folder[] = "/tmp/nsm-test-XXXXXX";

static const char *in_folder(const char *name)
{
    static char path[4][256];
    static int k;
    k = (k + 1) % 4;
    snprintf(path[k], sizeof path[k], "%s/%s", folder, name);
    return path[k];
}

static int yaml(nsm_ctx *ctx, options *o, const char *text)
{
    return settings_parse(ctx, fields, o, text, strlen(text), "x.yaml", false);
}

START_TEST(names)
{
    ck_assert_uint_eq(edit_distance("hidden", "hiden"), 1);
    ck_assert_uint_eq(edit_distance("hidden", "HIDDNE"), 1);
    ck_assert_uint_eq(edit_distance("", "abc"), 3);
    nearest n = {0};
    nearest_try(&n, "trian", "eval");
    nearest_try(&n, "trian", "train");
    nearest_try(&n, "trian", "info");
    ck_assert_str_eq(n.name, "train");
}
END_TEST

START_TEST(values)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    options o = {0};
    ck_assert_int_eq(settings_init(ctx, fields, &o), NSM_OK);
    ck_assert(o.hidden == 64 && o.lr == 0.01 && !o.fast && o.fanouts.count == 2 &&
              o.fanouts.value[1] == 10);
    ck_assert_str_eq(o.note, "");
    char *pair[] = {(char *)"hidden=1_000", (char *)"optimizer.lr=1e-3", (char *)"fast=yes",
                    (char *)"fanouts=[5, 4,3]", (char *)"note=a=b"};
    ck_assert_int_eq(settings_pairs(ctx, fields, &o, 5, pair), NSM_OK);
    ck_assert(o.hidden == 1000 && o.lr == 0.001 && o.fast && o.fanouts.count == 3);
    ck_assert_str_eq(o.note, "a=b");
    static const char *const wrong[][2] = {{"hidden", "x"},
                                           {"hidden", "0"},
                                           {"hidden", "1.5"},
                                           {"hidden", ""},
                                           {"hidden", "99999999999999999999"},
                                           {"optimizer.lr", "nan"},
                                           {"optimizer.lr", "2"},
                                           {"optimizer.lr", "0,5"},
                                           {"model", "ga"},
                                           {"model", "gcn|gat"},
                                           {"fast", "maybe"},
                                           {"fanouts", "5,,4"},
                                           {"fanouts", "5,"},
                                           {"fanouts", "-1"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        settings_set(ctx, fields, &o, wrong[i][0], wrong[i][1], "here");
        ck_assert_ptr_nonnull(strstr(nsm_error_message(ctx), wrong[i][0]));
        ck_assert_ptr_nonnull(strstr(nsm_error_message(ctx), "must be"));
        ck_error(ctx, NSM_EINVAL);
    }
    settings_set(ctx, fields, &o, "hiden", "3", "here");
    ck_assert_ptr_nonnull(strstr(nsm_error_message(ctx), "nearest known one is \"hidden\""));
    ck_error(ctx, NSM_EINVAL);
    ck_assert(o.hidden == 1000 && o.lr == 0.001);
    settings_clear(fields, &o);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(yaml_in)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    options o = {0};
    settings_init(ctx, fields, &o);
    ck_assert_int_eq(
        yaml(
            ctx, &o,
            "# a comment\nhidden: 8\noptimizer:\n  lr: 0.5\nfanouts: [1, 2, 3]\nnote: \"x: #y\"\n"),
        NSM_OK);
    ck_assert(o.hidden == 8 && o.lr == 0.5 && o.fanouts.count == 3);
    ck_assert_str_eq(o.note, "x: #y");
    ck_assert_int_eq(yaml(ctx, &o, ""), NSM_OK);
    ck_assert_int_eq(yaml(ctx, &o, "# nothing\n"), NSM_OK);
    ck_assert_int_eq(settings_parse(ctx, fields, &o, "later: 1\nhidden: 9\n", 19, "x", true),
                     NSM_OK);
    ck_assert(o.hidden == 9);
    static const struct { const char *text, *where;
    } bad[] = {{"hidden: 8\nhiden: 9\n", "x.yaml:2"},
               {"hidden: 8\nfast: 7\n", "x.yaml:2"},
               {"a: [\n", "x.yaml:"},
               {"- 1\n", "x.yaml:1"},
               {"fanouts: [[1]]\n", "x.yaml:1"},
               {"hidden: &a 1\nnote: *a\n", "x.yaml:2"},
               {"hidden: 1\n---\nhidden: 2\n", "x.yaml:"},
               {"\x01\x02", "x.yaml:"},
               {"hidden: \xff\n", "x.yaml:"},
               {"a: {b: {c: {d: {e: {f: {g: {h: {i: {j: 1}}}}}}}}}\n", "x.yaml:1"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        yaml(ctx, &o, bad[i].text);
        ck_assert_msg(strstr(nsm_error_message(ctx), bad[i].where), "%s", nsm_error_message(ctx));
        ck_error(ctx, NSM_EINVAL);
    }
    settings_read(ctx, fields, &o, in_folder("missing.yaml"));
    ck_error(ctx, NSM_EIO);
    settings_clear(fields, &o);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(yaml_out) /* what is written reads back as the same values */
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    options a = {0}, b = {0};
    static const char *const notes[] = {"",           "plain",
                                        "yes",        "a: b # c",
                                        "\"quoted\\", "line\nbreak\ttab",
                                        "- x",        "\xc3\xa4\xe2\x82\xac",
                                        "null",       "{x}"};
    for (size_t i = 0; i < sizeof notes / sizeof *notes; i++) {
        settings_init(ctx, fields, &a);
        settings_init(ctx, fields, &b);
        settings_set(ctx, fields, &a, "note", notes[i], "here");
        a.lr = 1.0 / (double)(3 + i);
        a.hidden = INT64_MAX / 1000;
        char *text = settings_text(ctx, fields, &a);
        ck_assert_int_eq(yaml(ctx, &b, text), NSM_OK);
        ck_assert(a.lr == b.lr && a.hidden == b.hidden && a.fanouts.count == b.fanouts.count);
        ck_assert_str_eq(a.note, b.note);
        free(text);
        settings_clear(fields, &b);
        ck_assert_int_eq(settings_copy(ctx, fields, &a, &b), NSM_OK);
        ck_assert_str_eq(a.note, b.note);
        settings_clear(fields, &a);
        settings_clear(fields, &b);
    }
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(numbers)
{
    char buf[32];
    static const double v[] = {0,       10,        -3,   0.1,    1e-300,
                               1.0 / 3, 123456789, 1e20, 5e-324, 1.7976931348623157e308};
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        double back = 1;
        ck_assert(real_parse(real_text(v[i], buf), &back));
        ck_assert(back == v[i]);
    }
    ck_assert_str_eq(real_text(10, buf), "10");
    ck_assert_str_eq(real_text(0.0005, buf), "0.0005");
    ck_assert_str_eq(paper_number(0.25, 0.25, buf), "0.25");
    ck_assert_str_eq(paper_number(150, 50, buf), "150");
    ck_assert(fabs(paper_tick(1, 7) - 0.2) < 1e-12);
    ck_assert(fabs(paper_tick(199, 10) - 20) < 1e-12);
}
END_TEST

static int64_t size_of(const char *path)
{
    struct stat st;
    return stat(path, &st) ? -1 : st.st_size;
}

START_TEST(event_file)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    const char *path = in_folder("events");
    ck_assert_uint_eq(events_crc32c("123456789", 9), 0xe3069283u);
    int64_t after[5];
    events *e = events_open(ctx, path, -1);
    for (int step = 1; step <= 4; step++) {
        ck_assert_int_eq(events_scalar(e, 100 * step, "loss", 1.0 / step), NSM_OK);
        events_flush(e);
        after[step] = size_of(path);
    }
    ck_assert_int_eq(events_close(e), NSM_OK);
    ck_assert(after[1] > 40 && after[2] - after[1] == after[3] - after[2]);
    ck_assert_int_eq(truncate(path, after[4] - 3), 0); /* a torn record */
    ck_assert_int_eq(events_close(events_open(ctx, path, 250)), NSM_OK);
    ck_assert_int_eq(size_of(path), after[2]);
    ck_assert_int_eq(events_close(events_open(ctx, path, -1)), NSM_OK);
    ck_assert(size_of(path) < after[1]);
    ck_assert_ptr_null(events_open(ctx, in_folder("no/such/folder"), -1));
    ck_error(ctx, NSM_EIO);
    nsm_ctx_free(ctx);
}
END_TEST

static void log_epochs(nsm_ctx *ctx, run *r, int from, int to, int64_t kept)
{
    static const char *const column[] = {"epoch", "loss", "valid"};
    ck_assert_int_eq(run_log_open(r, 3, column, kept), NSM_OK);
    for (int e = from; e <= to; e++)
        ck_assert_int_eq(run_log(r, (double[]){e, 1.0 / e, e % 2 ? NAN : 0.5}), NSM_OK);
    ck_ok(ctx);
}

START_TEST(run_folder_files)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL), *other = nsm_ctx_new(NULL);
    const char *path = in_folder("a/b");
    run *r = run_open(ctx, path, false);
    ck_assert_ptr_nonnull(r);
    ck_assert_ptr_null(run_open(other, path, true)); /* locked */
    ck_error(other, NSM_EIO);
    log_epochs(ctx, r, 1, 10, -1);
    write_file(ctx, run_path(r, "checkpoint-10.h5"), "x", 1);
    write_file(ctx, run_path(r, "checkpoint-10.h5.old"), "x", 1);
    write_file(ctx, run_path(r, ".best.h5.draft-1-1"), "x", 1);
    ck_assert_int_eq(run_close(r), NSM_OK);

    r = run_open(ctx, path, true); /* go on after epoch 6 */
    log_epochs(ctx, r, 7, 8, 6);
    ck_assert_int_eq(size_of(in_folder("a/b/checkpoint-10.h5")), 1);
    ck_assert_int_eq(size_of(in_folder("a/b/.best.h5.draft-1-1")),
                     -1); /* left by a writer that died */
    ck_assert_int_eq(run_close(r), NSM_OK);
    run_table t;
    ck_assert_int_eq(run_table_read(ctx, &t, in_folder("a/b/log.csv")), NSM_OK);
    ck_assert(t.columns == 3 && t.rows == 8);
    const double *epoch = run_table_column(&t, "epoch"), *valid = run_table_column(&t, "valid");
    for (int i = 0; i < 8; i++)
        ck_assert(epoch[i] == i + 1 && (i % 2 ? valid[i] == 0.5 : isnan(valid[i])));
    ck_assert_ptr_null(run_table_column(&t, "none"));
    run_table_free(&t);

    r = run_open(ctx, path, false); /* afresh */
    ck_assert_int_eq(size_of(in_folder("a/b/checkpoint-10.h5")), -1);
    ck_assert_int_eq(size_of(in_folder("a/b/log.csv")), -1);
    ck_assert_int_eq(size_of(in_folder("a/b/checkpoint-10.h5.old")), 1);
    ck_assert_int_eq(run_close(r), NSM_OK);
    nsm_ctx_free(other);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(bad_logs)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    static const char *const bad[] = {"a,b\n1,2,3\n", "a,b\n1\n", "a,b\n1,x\n", "a,b\n1,\"2\n"};
    run_table t;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_file(ctx, in_folder("bad.csv"), bad[i], strlen(bad[i]));
        run_table_read(ctx, &t, in_folder("bad.csv"));
        ck_error(ctx, NSM_EFORMAT);
    }
    write_file(ctx, in_folder("torn.csv"), "a,b\n1,2\n3,", 10);
    ck_assert_int_eq(run_table_read(ctx, &t, in_folder("torn.csv")), NSM_OK);
    ck_assert_int_eq(t.rows, 1);
    run_table_free(&t);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(charts)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    double x[3] = {1, 2, 3}, y[3] = {0.5, NAN, 0.25};
    int64_t count[4] = {3, 1, 0, 0};
    int32_t from[] = {0, 1}, to[] = {1, 2};
    chart_series s = {"a # \xff name", 3, x, y};
    chart_curves c = {.title = "Title", .x_label = "x", .y_label = "y", .count = 1, .series = &s};
    chart_confusion m = {.title = "Title", .classes = 2, .count = count};
    chart_graph g = {.title = "Title", .nodes = 4, .edges = 2, .from = from, .to = to, .centre = 1};
    if (chart_curves_draw(ctx, in_folder("c.png"), &c)) { /* built without PLplot */
        ck_assert_ptr_nonnull(strstr(nsm_error_message(ctx), "without PLplot"));
        ck_error(ctx, NSM_EINVAL);
    } else {
        ck_assert_int_eq(chart_confusion_draw(ctx, in_folder("m.png"), &m), NSM_OK);
        ck_assert_int_eq(chart_classes_draw(ctx, in_folder("b.png"), &m), NSM_OK);
        ck_assert(size_of(in_folder("c.png")) > 1000 && size_of(in_folder("m.png")) > 1000);
        ck_assert(size_of(in_folder("b.png")) > 1000);
#ifdef HAVE_IGRAPH
        ck_assert_int_eq(chart_graph_draw(ctx, in_folder("g.png"), &g), NSM_OK);
        ck_assert(size_of(in_folder("g.png")) > 1000);
#else
        chart_graph_draw(ctx, in_folder("g.png"), &g);
        ck_assert_ptr_nonnull(strstr(nsm_error_message(ctx), "without igraph"));
        ck_error(ctx, NSM_EIO);
#endif
        chart_curves_draw(ctx, in_folder("no/such/c.png"), &c);
        ck_error(ctx, NSM_EIO);
    }
    to[1] = 4;
    chart_graph_draw(ctx, in_folder("g.png"), &g);
    ck_error(ctx, NSM_EINVAL);
    nsm_ctx_free(ctx);
}
END_TEST

#define BAD "\xef\xbf\xbd"

START_TEST(page_text_of_anything) /* whatever a name holds, it shows and nothing breaks */
{
    static const struct { const char *text, *shown; int most; } t[] = {
        { "<a href=\"x\">&amp;", "&lt;a href=&quot;x&quot;&gt;&amp;amp;", -1 },
        { "tab\tline\n", "tab\tline\n", -1 },
        { "\x01\x7f\r", BAD BAD BAD, -1 },
        { "\xff\xc0\xaf\xfe", BAD BAD BAD BAD, -1 }, /* no UTF-8; overlong */
        { "\xe0\x80\x80", BAD BAD BAD, -1 },
        { "\xed\xa0\x80", BAD BAD BAD, -1 },       /* a surrogate */
        { "\xef\xbf\xbf\xef\xbf\xbe", BAD BAD BAD BAD BAD BAD, -1 },
        { "\xf4\x90\x80\x80", BAD BAD BAD BAD, -1 }, /* beyond U+10FFFF */
        { "caf\xc3", "caf" BAD, -1 },              /* cut off */
        { "\xc3\xa9\xe2\x82\xac\xf0\x9f\x99\x82", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x99\x82", -1 },
        { "\xc3\xa9t\xc3\xa9s", "\xc3\xa9t\xe2\x80\xa6", 3 },
        { "four", "four", 4 },
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char *out = NULL;
        size_t bytes;
        FILE *f = open_memstream(&out, &bytes);
        page_escape(f, t[i].text, t[i].most);
        fclose(f);
        ck_assert_str_eq(out, t[i].shown);
        free(out);
    }
}
END_TEST

START_TEST(pages) /* blocks end with what comes next; numbers in full; the digits of base 64 */
{
    static const double epoch[] = { 1, 2, 3 }, none[] = { NAN, NAN, NAN }, some[] = { 2, NAN, 1 };
    page *p = page_new("<T>", "about");
    page_section(p, "one");
    page_head(p, "name", false);
    page_head(p, "value", true);
    page_row(p);
    page_cell(p, "a");
    page_number(p, 1.0 / 3, 2);
    page_row(p);
    page_cell(p, "b");
    page_number(p, NAN, 2);
    page_article(p, "card");
    page_say(p, "%d%%", 50);
    page_section(p, "two");
    page_picture(p, "none", "/no/such/picture.png");
    page_base64(page_markup(p), "any carnal pleas", 16);
    const figure_line line[] = { { "n", "text", 3, epoch, none }, { "s", "text", 3, epoch, some } };
    figure_curves(page_markup(p), "nothing", "epoch", 1, line);
    figure_curves(page_markup(p), "something", "epoch", 2, line);
    char *html = page_end(p);
    ck_assert_ptr_nonnull(strstr(html, "<title>&lt;T&gt;</title>"));
    ck_assert_ptr_nonnull(strstr(html, "<data value=\"0.333333333\">0.33</data></td>"));
    ck_assert_ptr_nonnull(strstr(html, "</tr></tbody></table></div>\n<article>"));
    ck_assert_ptr_nonnull(strstr(html, "<p>50%</p>\n</article>\n</section>\n<section>"));
    ck_assert_ptr_nonnull(strstr(html, "YW55IGNhcm5hbCBwbGVhcw=="));
    ck_assert_ptr_null(strstr(html, "nothing"));
    ck_assert_ptr_null(strstr(html, "nan"));
    ck_assert_str_eq(html + strlen(html) - 26, "</section>\n</body></html>\n");
    free(html);
    ck_assert_ptr_null(page_end(NULL));
    page_row(NULL); /* no memory for a page: no more than that */
}
END_TEST

int main(void)
{
    if (!mkdtemp(folder)) return 1;
    int code = test_main("tools", (const TTest *const[]){names, values, yaml_in, yaml_out, numbers,
                                                         event_file, run_folder_files, bad_logs,
                                                         charts, page_text_of_anything, pages,
                                                         NULL});
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command) ? 1 : code;
}
