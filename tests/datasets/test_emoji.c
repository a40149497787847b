/* tests/datasets/test_emoji.c - Emoji: which are taken, their names, words, classes, edges and
 * split from small files of Unicode's kind; pictures where the font is installed; what is wrong. */
#include "config.h"
#include <unistd.h>
#include "tests/datasets/sample.h"
#include "tests/test.h"

#define FONT "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
#define LIST "u/emoji/emoji-test.txt"
#define WORDS "u/cldr/common/annotations/en.xml"
#define DERIVED "u/cldr/common/annotationsDerived/en.xml"
#define GRIN "\xf0\x9f\x98\x80"
#define SMILE "\xe2\x98\xba"
#define DOG "\xf0\x9f\x90\xb6"

static nsm_ctx *ctx;

static const char list[] =
    "# emoji-test.txt\n\n# group: Faces\n# subgroup: smiling\n"
    "1F600      ; fully-qualified     # " GRIN " E1.0 grinning face\n"
    "263A FE0F  ; fully-qualified     # " SMILE " E0.6 smiling face\n"
    "263A       ; unqualified         # " SMILE " E0.6 smiling face\n"
    "1F44B 1F3FB ; fully-qualified    # x E1.0 waving hand: light skin tone\n"
    "# group: Animals\n# subgroup: dogs\n"
    "1F436      ; fully-qualified     # " DOG " E0.6 dog face\n"
    "1F415 200D 1F9BA ; fully-qualified # x E12.0 service dog\n"
    "# group: Component\n# subgroup: skin-tone\n"
    "1F3FB      ; component           # x E1.0 light skin tone\n#EOF\n";

static const char words[] =
    "<?xml version=\"1.0\" encoding=\"UTF-8\" ?>\n<!DOCTYPE ldml SYSTEM \"../none.dtd\">\n"
    "<ldml><annotations>\n"
    "<annotation cp=\"" GRIN "\">face | grin | grinning face</annotation>\n"
    "<annotation cp=\"" GRIN "\" type=\"tts\">Grinning &amp; face</annotation>\n"
    "<annotation cp=\"" SMILE "\">face | smile </annotation>\n"
    "<annotation cp=\"" DOG "\">dog | face | smile</annotation>\n"
    "<annotation cp=\"A\">letter | face</annotation>\n"
    "</annotations></ldml>\n";

static void put(const char *name, const char *text)
{
    sample_write(sample_path("%s", name), text, strlen(text));
}

static void begin(void)
{
    ctx = nsm_ctx_new(NULL);
    put(LIST, list);
    put(WORDS, words);
    put(DERIVED, "<ldml><annotations/></ldml>");
}

static void end(void)
{
    ck_ok(ctx);
    nsm_ctx_free(ctx);
    sample_folder_remove();
}

static nsm_dataset *import(const char *key, const char *value)
{
    const nsm_option o[] = { { "size", "16" }, { "least", "1" }, { key, value } };
    return nsm_import(ctx, "emoji", sample_path("u"), o, key ? 3 : 2);
}

#if defined(HAVE_FREETYPE)
static void refuse(const char *key, const char *value, int code, const char *text)
{
    ck_assert(!import(key, value));
    ck_assert_msg(strstr(nsm_error_message(ctx), text) != NULL, "no \"%s\" in: %s", text,
                  nsm_error_message(ctx));
    ck_error(ctx, code);
}

static void check_words(const nsm_dataset_nodes *v, int node, const char *want)
{
    char text[200] = "";
    for (int64_t k = v->text.ptr[node]; k < v->text.ptr[node + 1]; k++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s ",
                 v->text.symbol[v->text.id[k]]);
    ck_assert_str_eq(text, want);
}

enum { BYTES = 16 * 16 * 3 };

/* Something is drawn, and no two are alike. */
static void check_pictures(const nsm_dataset_nodes *v)
{
    const nsm_dataset_images *m = &v->image;
    uint8_t white[BYTES];
    memset(white, 255, BYTES);
    ck_assert(m->height == 16 && m->width == 16 && m->channels == 3 && !m->there);
    for (int64_t i = 0; i < v->count; i++) {
        ck_assert_msg(memcmp(m->pixel + i * BYTES, white, BYTES) != 0, "%s is white", v->names[i]);
        for (int64_t j = 0; j < i; j++)
            ck_assert_msg(memcmp(m->pixel + i * BYTES, m->pixel + j * BYTES, BYTES) != 0,
                          "%s is %s", v->names[i], v->names[j]);
    }
}

/* Faces: a corner is white, the middle is not; a grin is yellow. */
static void check_faces(const nsm_dataset_nodes *v)
{
    for (int64_t i = 0; i < v->count; i++) {
        const uint8_t *p = v->image.pixel + i * BYTES, *middle = p + (8 * 16 + 8) * 3;
        for (int k = 0; k < 3; k++) ck_assert_int_ge(p[k], 240);
        ck_assert_int_lt(middle[0] + middle[1] + middle[2], 720);
    }
    const uint8_t *brow = v->image.pixel + (2 * 16 + 8) * 3;
    ck_assert(brow[0] > 200 && brow[1] > 150 && brow[2] < 150);
}

START_TEST(small)
{
    if (access(FONT, R_OK)) {
        puts("skipped: fonts-noto-color-emoji is not installed");
        return;
    }
    begin();
    nsm_dataset *ds = import(NULL, NULL);
    ck_ok(ctx);
    const nsm_dataset_nodes *v = &ds->node[0];
    ck_assert_int_eq(v->count, 3);
    ck_assert_str_eq(v->names[0], "Grinning & face");
    ck_assert_str_eq(v->names[1], "smiling face"); /* the annotations have no name */
    check_words(v, 0, "grinning face grin ");
    check_words(v, 1, "smiling face smile ");
    check_words(v, 2, "dog face smile ");
    ck_assert(v->features == v->text.vocab && v->ptr[3] == 9);
    ck_assert_double_eq_tol((double)v->val[0], 1 / sqrt(3), 1e-6);
    ck_assert(ds->label.columns == 2 && !strcmp(ds->label.names[0], "Animals"));
    ck_assert(ds->label.cls[0] == 1 && ds->label.cls[1] == 1 && ds->label.cls[2] == 0);
    ck_assert_int_eq(ds->edge[0].count, 6); /* all share "face" */
    int64_t all = 0;
    for (int p = 0; p < NSM_SPLIT_PARTS; p++) all += ds->split[0].count[p];
    ck_assert_int_eq(all, 3);
    check_pictures(v);
    check_faces(v);
    nsm_dataset_free(ds);
    ds = import("most", "2");
    ck_assert_int_eq(ds->edge[0].count, 2); /* "smile" alone */
    nsm_dataset_free(ds);
    ds = import("class", "subgroup");
    ck_assert(ds->label.columns == 2 && !strcmp(ds->label.names[0], "dogs"));
    nsm_dataset_free(ds);
    /* what another file holds is not drawn in */
    put(WORDS, "<!DOCTYPE x [<!ENTITY e SYSTEM \"emoji-test.txt\">]><ldml><annotation cp=\"" GRIN
               "\" type=\"tts\">&e;</annotation></ldml>");
    ds = import(NULL, NULL);
    ck_assert_str_eq(ds->node[0].names[0], "grinning face");
    nsm_dataset_free(ds);
    end();
}
END_TEST

/* all of Unicode's, where they are installed */
START_TEST(whole)
{
    if (access(FONT, R_OK) || access("/usr/share/unicode/cldr/common/annotations/en.xml", R_OK) ||
        access("/usr/share/unicode/emoji/emoji-test.txt", R_OK)) {
        puts("skipped: unicode-data, unicode-cldr-core or the font is not installed");
        return;
    }
    begin();
    nsm_dataset *ds = nsm_import(ctx, "emoji", "/usr/share/unicode", &(nsm_option){ "size", "16" },
                                 1);
    ck_ok(ctx);
    ck_assert(ds->node[0].count > 1300 && ds->label.columns == 9);
    ck_assert(ds->split[0].count[NSM_TRAIN] > 1000 && ds->split[0].count[NSM_TEST] > 100);
    check_pictures(&ds->node[0]);
    nsm_dataset_free(ds);
    end();
}
END_TEST

START_TEST(refused)
{
    begin();
    refuse("font", sample_path("none.ttf"), NSM_EIO, "none.ttf cannot be read, or is no font");
    refuse("font", sample_path(WORDS), NSM_EIO, "en.xml cannot be read, or is no font");
    refuse("language", "xx", NSM_EIO, "annotations/xx.xml");
    refuse("class", "kind", NSM_EINVAL, "class=kind is none of group, subgroup");
    put(WORDS, "<ldml>\n<annotations>\n</ldml>");
    refuse(NULL, NULL, NSM_EFORMAT, "en.xml:3: mismatched tag");
    put(LIST, "# group: Faces\n1F600 ; fully-qualified # x\n");
    refuse(NULL, NULL, NSM_EFORMAT, "emoji-test.txt:2: ");
    put(LIST, "1F600 ; fully-qualified # x E1.0 grinning face\n");
    refuse(NULL, NULL, NSM_EFORMAT, "is no emoji of a group");
    put(LIST, "# group: Faces\n1F600 ; fully-qualified # x E1.0 grinning face\n"
              "1F600 ; fully-qualified # x E1.0 grinning face\n");
    refuse(NULL, NULL, NSM_EFORMAT, "emoji-test.txt:3: ");
    put(LIST, "# group: Faces\n1F600 1F601 ZZ ; fully-qualified # x E1.0 grinning face\n");
    refuse(NULL, NULL, NSM_EFORMAT, "emoji-test.txt:2: ");
    put(LIST, "# group: Faces\n");
    refuse(NULL, NULL, NSM_EFORMAT, "holds no emoji");
    end();
}
END_TEST

int main(void) { return test_main("emoji", (const TTest *const[]){ small, whole, refused, NULL }); }
#else
START_TEST(without)
{
    begin();
    ck_assert(!import(NULL, NULL));
    ck_assert(strstr(nsm_error_message(ctx), "FreeType") != NULL);
    ck_error(ctx, NSM_EINVAL);
    end();
}
END_TEST

int main(void) { return test_main("emoji", (const TTest *const[]){ without, NULL }); }
#endif
