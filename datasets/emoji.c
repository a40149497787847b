/* datasets/emoji.c - Emoji as things of three modalities: a picture from a colour font, the words
 * of their names and keywords, and edges between those that share a keyword.
 *
 *   SOURCE/emoji/emoji-test.txt                  which there are, in groups (Unicode, UTS #51)
 *   SOURCE/cldr/common/annotations/LANGUAGE.xml  names and keywords (CLDR), and annotationsDerived/
 *   font=FILE                                    bitmaps of colours (CBDT), read by FreeType
 *
 * An emoji is one code point, alone or with the variation selector that asks for colours.
 * Sequences are left out: skin tones and hair make near copies, and flags and families have no
 * glyph of their own without a shaper.  One that the font lacks is a node without a picture.
 * Features are the words of the text, each once, rows of length 1.  A keyword that more than `most`
 * share joins nothing.  The part of the default split comes from a hash of the code point, so that
 * an emoji stays in its part whatever the others are. */
#include "config.h"
#include "datasets/node_pictures.h"
#include "datasets/picture_parts.h"

#if defined(HAVE_FREETYPE)
#include <math.h>
#include <expat.h>
#include <ft2build.h>
#include FT_FREETYPE_H
#include <xxhash.h>

typedef struct {
    int32_t keyword, node;
} mention;

typedef struct {
    nsm_ctx *ctx;
    const nsmi_options *o;
    nsmi_words node; /* each in UTF-8, without the variation selector */
    nsmi_words class, keyword;
    int64_t room[3], mentions, mention_room;
    uint32_t *code; /* [node.count] */
    int32_t *cls;   /* [node.count] */
    char **name;    /* [node.count] */
    int64_t names;
    mention *mention;
    nsmi_texts text;
} emoji;

/* ---- which there are ---- */
static void encode(uint32_t code, char utf8[5])
{
    int more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    static const unsigned char lead[] = { 0, 0xc0, 0xe0, 0xf0 };
    for (int k = more; k > 0; k--, code >>= 6) utf8[k] = (char)(0x80 | (code & 0x3f));
    utf8[0] = (char)(lead[more] | code);
    utf8[more + 1] = 0;
}

/* The code points in front of the semicolon; how many, with the last of at most two. */
static int code_points(const char *line, uint32_t code[2], const char **end)
{
    int count = 0;
    char *after;
    for (const char *p = line; *p && *p != ';'; p = after) {
        p += strspn(p, " ");
        unsigned long c = strtoul(p, &after, 16);
        if (after == p || c > 0x10ffff || (*after != ' ' && *after != ';')) return 0;
        if (count < 2) code[count] = (uint32_t)c;
        count++;
        after += strspn(after, " ");
        *end = after;
    }
    return **end == ';' ? count : 0;
}

/* "1F600 ; fully-qualified # (itself) E1.0 grinning face" */
static void take_line(emoji *e, nsmi_text *t, const char *line, const char *group)
{
    uint32_t code[2] = { 0 };
    const char *p = line;
    char key[5];
    int count = code_points(line, code, &p);
    const char *name = count ? strstr(p, " E") : NULL;
    name = name ? strchr(name + 2, ' ') : NULL;
    if (!name || !*group) {
        nsmi_text_error(t, "\"%.40s\" is no emoji of a group", line);
        return;
    }
    bool whole = !strncmp(p + 1 + strspn(p + 1, " "), "fully-qualified", 15);
    if (!whole || count > 2 || (count == 2 && code[1] != 0xfe0f)) return;
    encode(code[0], key);
    int64_t i = e->node.count;
    if (nsmi_words_add(e->ctx, &e->node, key) != i) {
        nsmi_text_error(t, "\"%.40s\" stands twice", line);
        return;
    }
    if (!nsmi_grow(e->ctx, &e->code, i, &e->room[0], sizeof *e->code) ||
        !nsmi_grow(e->ctx, &e->cls, i, &e->room[1], sizeof *e->cls) ||
        !nsmi_grow(e->ctx, &e->name, i, &e->room[2], sizeof *e->name))
        return;
    e->code[i] = code[0];
    e->cls[i] = (int32_t)nsmi_words_add(e->ctx, &e->class, group);
    e->name[i] = nsmi_strdup(e->ctx, name + 1);
    e->names++;
}

static void read_list(emoji *e, const char *source)
{
    static const char *const kind[] = { "group", "subgroup", NULL };
    char mark[24];
    int n = snprintf(mark, sizeof mark, "# %s: ", kind[nsmi_option_choice(e->o, "class", kind)]);
    char *path = nsmi_picture_path(e->ctx, source, "emoji/emoji-test.txt");
    nsmi_text *t = path ? nsmi_text_open(e->ctx, path) : NULL;
    char group[64] = "";
    for (char *line; t && !nsmi_failed(e->ctx) && (line = nsmi_text_line(t));) {
        if (!strncmp(line, mark, (size_t)n)) snprintf(group, sizeof group, "%s", line + n);
        if (*line && *line != '#') take_line(e, t, line, group);
    }
    if (!nsmi_failed(e->ctx) && !e->node.count)
        nsm_error_set(e->ctx, NSM_EFORMAT, "%s: holds no emoji", path);
    nsmi_text_close(t);
    free(path);
}

/* ---- what they are called ---- */
/* <annotation cp="X" type="tts">name</annotation>, and without type: keyword | keyword */
typedef struct {
    emoji *e;
    const char *path;
    int64_t node; /* of the open annotation, or -1 */
    bool named;
    char *text;
    int64_t bytes, room;
} annotation;

static void open_element(void *user, const XML_Char *element, const XML_Char **attribute)
{
    annotation *a = user;
    const char *of = NULL, *type = NULL;
    if (strcmp(element, "annotation")) return;
    for (; *attribute; attribute += 2) {
        if (!strcmp(attribute[0], "cp")) of = attribute[1];
        if (!strcmp(attribute[0], "type")) type = attribute[1];
    }
    a->node = of ? nsmi_words_find(&a->e->node, of) : -1;
    a->named = type && !strcmp(type, "tts");
    a->bytes = 0;
}

static void take_text(void *user, const XML_Char *text, int bytes)
{
    annotation *a = user;
    if (a->node < 0 || nsmi_failed(a->e->ctx)) return;
    while (a->bytes + bytes >= a->room)
        if (!nsmi_grow(a->e->ctx, &a->text, a->room, &a->room, 1)) return;
    memcpy(a->text + a->bytes, text, (size_t)bytes);
    a->bytes += bytes;
    a->text[a->bytes] = 0;
}

static void take_keyword(emoji *e, int64_t node, const char *keyword)
{
    int64_t k = nsmi_words_add(e->ctx, &e->keyword, keyword);
    if (k >= 0 && nsmi_grow(e->ctx, &e->mention, e->mentions, &e->mention_room, sizeof *e->mention))
        e->mention[e->mentions++] = (mention){ (int32_t)k, (int32_t)node };
}

static void close_element(void *user, const XML_Char *element)
{
    annotation *a = user;
    emoji *e = a->e;
    if (strcmp(element, "annotation") || a->node < 0 || !a->bytes || nsmi_failed(e->ctx)) return;
    if (a->named) {
        free(e->name[a->node]);
        e->name[a->node] = nsmi_strdup(e->ctx, a->text);
    }
    for (char *p = a->text, *next; !a->named && p; p = next) {
        next = strchr(p, '|');
        if (next) *next++ = 0;
        p += strspn(p, " \t\n");
        size_t n = strlen(p);
        while (n && strchr(" \t\n", p[n - 1])) n--;
        p[n] = 0;
        if (n) take_keyword(e, a->node, p);
    }
    a->node = -1;
}

static void read_annotations(emoji *e, const char *source, const char *folder)
{
    const char *language = nsmi_option_text(e->o, "language", "en");
    char name[128];
    int64_t bytes = 0;
    snprintf(name, sizeof name, "cldr/common/%s/%.40s.xml", folder, language);
    char *path = nsmi_picture_path(e->ctx, source, name);
    char *text = path ? nsmi_read_all(e->ctx, path, &bytes) : NULL;
    XML_Parser parser = text ? XML_ParserCreate(NULL) : NULL;
    annotation a = { .e = e, .path = path, .node = -1 };
    if (text && (!parser || bytes > INT32_MAX))
        nsm_error_set(e->ctx, NSM_ENOMEM, "%s: out of memory for %lld bytes of XML", path,
                      (long long)bytes);
    else if (text) {
        XML_SetUserData(parser, &a);
        XML_SetElementHandler(parser, open_element, close_element);
        XML_SetCharacterDataHandler(parser, take_text);
        if (XML_Parse(parser, text, (int)bytes, 1) != XML_STATUS_OK && !nsmi_failed(e->ctx))
            nsm_error_set(e->ctx, NSM_EFORMAT, "%s:%lu: %s", path,
                          (unsigned long)XML_GetCurrentLineNumber(parser),
                          XML_ErrorString(XML_GetErrorCode(parser)));
    }
    if (parser) XML_ParserFree(parser);
    free(a.text);
    free(text);
    free(path);
}

/* ---- texts, features, edges ---- */
/* A word that the row has already says nothing new. */
static void take_word(void *user, const char *word)
{
    emoji *e = user;
    int64_t id = nsmi_words_find(&e->text.words, word),
            k = e->text.rows ? e->text.end[e->text.rows - 1] : 0;
    while (k < e->text.entries && e->text.id[k] != id) k++;
    if (k == e->text.entries) nsmi_texts_word(e->ctx, &e->text, word);
}

static int by_node(const void *x, const void *y)
{
    const mention *a = x, *b = y;
    if (a->node != b->node) return a->node < b->node ? -1 : 1;
    return (a->keyword > b->keyword) - (a->keyword < b->keyword);
}

static int by_keyword(const void *x, const void *y)
{
    const mention *a = x, *b = y;
    if (a->keyword != b->keyword) return a->keyword < b->keyword ? -1 : 1;
    return (a->node > b->node) - (a->node < b->node);
}

/* The name, then the keywords. */
static void set_texts(emoji *e, nsm_dataset *ds, nsm_dataset_nodes *v)
{
    int64_t k = 0;
    if (e->mentions) qsort(e->mention, (size_t)e->mentions, sizeof *e->mention, by_node);
    for (int64_t i = 0; i < e->node.count && !nsmi_failed(e->ctx); i++) {
        nsmi_words_each(e->name[i], e->name[i] + strlen(e->name[i]), take_word, e);
        for (; k < e->mentions && e->mention[k].node == i; k++) {
            const char *word = e->keyword.word[e->mention[k].keyword];
            nsmi_words_each(word, word + strlen(word), take_word, e);
        }
        nsmi_texts_end(e->ctx, &e->text);
    }
    nsmi_texts_to_nodes(ds, &e->text, nsmi_option_int(e->o, "least", 1, INT32_MAX, 2), v);
}

static int by_id(const void *x, const void *y)
{
    int32_t a = *(const int32_t *)x, b = *(const int32_t *)y;
    return (a > b) - (a < b);
}

/* The words of each text as a sparse row. */
static void set_features(nsm_dataset *ds, nsm_dataset_nodes *v)
{
    const nsm_dataset_text *t = &v->text;
    if (nsmi_failed(ds->ctx)) return;
    v->features = t->vocab;
    v->ptr = nsm_dataset_array(ds, v->count + 1, sizeof *v->ptr);
    v->idx = nsm_dataset_array(ds, t->ptr[v->count], sizeof *v->idx);
    v->val = nsm_dataset_array(ds, t->ptr[v->count], sizeof *v->val);
    if (nsmi_failed(ds->ctx)) return;
    v->ptr[0] = 0;
    for (int64_t i = 0; i < v->count; i++) {
        int64_t first = v->ptr[i], end = first, words = t->ptr[i + 1] - t->ptr[i];
        memcpy(v->idx + first, t->id + t->ptr[i], (size_t)words * sizeof *v->idx);
        qsort(v->idx + first, (size_t)words, sizeof *v->idx, by_id);
        for (int64_t k = first; k < first + words; k++)
            if (end == first || v->idx[k] != v->idx[end - 1]) v->idx[end++] = v->idx[k];
        for (int64_t k = first; k < end; k++) v->val[k] = 1 / sqrtf((float)(end - first));
        v->ptr[i + 1] = end;
    }
}

/* Pairs of emoji that share a keyword, counted, or with edges filled in. */
static int64_t pairs(const emoji *e, nsm_dataset_edges *edges, int64_t most)
{
    int64_t count = 0;
    for (int64_t i = 0, end; i < e->mentions; i = end) {
        for (end = i; end < e->mentions && e->mention[end].keyword == e->mention[i].keyword;) end++;
        if (end - i > most) continue;
        for (int64_t a = i; a < end; a++)
            for (int64_t b = a + 1; b < end; b++, count++) {
                if (!edges || e->mention[a].node == e->mention[b].node) continue;
                edges->src[edges->count] = e->mention[a].node;
                edges->dst[edges->count++] = e->mention[b].node;
            }
    }
    return count;
}

static void set_edges(emoji *e, nsm_dataset *ds)
{
    int64_t most = nsmi_option_int(e->o, "most", 0, 1000, 24);
    if (e->mentions) qsort(e->mention, (size_t)e->mentions, sizeof *e->mention, by_keyword);
    nsm_dataset_edges *edges = nsm_dataset_add_edges(ds, "keyword", 0, 0, pairs(e, NULL, most));
    if (!edges) return;
    edges->count = 0;
    pairs(e, edges, most);
    nsmi_edges_symmetric(ds, 0);
}

static void set_split(emoji *e, nsm_dataset *ds)
{
    nsm_dataset_split *s = nsmi_failed(e->ctx) ? NULL : nsm_dataset_add_split(ds, "default");
    for (int p = 0; s && p < NSM_SPLIT_PARTS; p++)
        s->index[p] = nsm_dataset_array(ds, e->node.count, sizeof *s->index[p]);
    for (int64_t i = 0; s && i < e->node.count && !nsmi_failed(e->ctx); i++) {
        uint64_t tenth = XXH3_64bits(e->node.word[i], strlen(e->node.word[i])) % 10;
        int p = tenth < 8 ? NSM_TRAIN : tenth == 8 ? NSM_VALID : NSM_TEST;
        s->index[p][s->count[p]++] = (int32_t)i;
    }
}

/* ---- pictures ---- */
/* The glyph in the middle of a white square; colours have been multiplied by their alpha. */
static bool on_white(nsm_ctx *ctx, const FT_Bitmap *b, nsm_picture *p)
{
    int64_t side = b->width > b->rows ? b->width : b->rows, top = (side - b->rows) / 2,
            left = (side - b->width) / 2;
    *p = (nsm_picture){ side, side, 3, nsmi_malloc(ctx, (size_t)(side * side * 3)) };
    if (!p->pixel) return false;
    memset(p->pixel, 255, (size_t)(side * side * 3));
    for (int64_t y = 0; y < b->rows; y++)
        for (int64_t x = 0; x < b->width; x++) {
            const uint8_t *bgra = b->buffer + y * b->pitch + 4 * x;
            uint8_t *to = p->pixel + ((top + y) * side + left + x) * 3;
            for (int k = 0; k < 3; k++) to[k] = (uint8_t)(255 - bgra[3] + bgra[2 - k]);
        }
    return true;
}

static void take_glyph(emoji *e, FT_Face face, const char *path, nsm_dataset_nodes *v, int64_t i,
                       const nsm_picture_options *wanted)
{
    nsm_picture p = { 0 };
    FT_UInt glyph = FT_Get_Char_Index(face, e->code[i]);
    if (!glyph) return;
    FT_Error code = FT_Load_Glyph(face, glyph, FT_LOAD_COLOR);
    const FT_Bitmap *b = &face->glyph->bitmap;
    if (code || b->pixel_mode != FT_PIXEL_MODE_BGRA || !b->width || !b->rows)
        nsm_error_set(e->ctx, NSM_EFORMAT,
                      "%s: the glyph of U+%04X is no bitmap of colours (FreeType's error %d)", path,
                      e->code[i], code);
    else if (on_white(e->ctx, b, &p) && !nsmi_picture_fit(e->ctx, path, wanted, &p))
        nsmi_images_put(v, i, &p);
    nsm_picture_clear(&p);
}

static void set_pictures(emoji *e, nsm_dataset *ds, nsm_dataset_nodes *v)
{
    const char *path = nsmi_option_text(e->o, "font",
                                        "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf");
    nsm_picture_options wanted = nsmi_picture_wanted(e->o);
    FT_Library library = NULL;
    FT_Face face = NULL;
    if (!wanted.height) wanted.height = wanted.width = 64;
    nsm_picture like = { wanted.height, wanted.width, wanted.channels, NULL };
    if (nsmi_failed(e->ctx) || !nsmi_images_room(ds, v, &like)) return;
    if (FT_Init_FreeType(&library)) nsm_error_set(e->ctx, NSM_ENOMEM, "out of memory for FreeType");
    else if (FT_New_Face(library, path, 0, &face))
        nsm_error_set(e->ctx, NSM_EIO, "%s cannot be read, or is no font", path);
    else if (!face->num_fixed_sizes || FT_Select_Size(face, 0))
        nsm_error_set(e->ctx, NSM_EFORMAT, "%s: the font has no bitmaps", path);
    for (int64_t i = 0; i < v->count && !nsmi_failed(e->ctx); i++)
        take_glyph(e, face, path, v, i, &wanted);
    if (face) FT_Done_Face(face);
    if (library) FT_Done_FreeType(library);
    if (!nsmi_failed(e->ctx) && !nsmi_images_end(v))
        nsm_error_set(e->ctx, NSM_EFORMAT, "%s: the font has no emoji", path);
}

/* ---- the dataset ---- */
static nsm_dataset *build(emoji *e)
{
    nsm_dataset *ds = nsm_dataset_new(e->ctx, "emoji");
    nsm_dataset_nodes *v = ds ? nsm_dataset_add_nodes(ds, "emoji", e->node.count) : NULL;
    if (!v) return ds;
    nsm_dataset_release(ds->description);
    ds->description = nsm_dataset_string(
        ds, "Emoji: pictures of a font, names and keywords, edges between those that share a "
            "keyword, groups as classes");
    set_texts(e, ds, v);
    set_features(ds, v);
    set_edges(e, ds);
    set_pictures(e, ds, v);
    nsmi_words_to_classes(ds, &e->class, e->cls, e->node.count);
    e->cls = NULL;
    set_split(e, ds);
    v->names = e->name;
    e->name = NULL;
    e->names = 0;
    return ds;
}

nsm_dataset *nsmi_import_emoji(nsm_ctx *ctx, const char *source, const nsmi_options *o)
{
    emoji e = { .ctx = ctx, .o = o };
    nsm_dataset *ds = NULL;
    read_list(&e, source);
    if (!nsmi_failed(ctx)) read_annotations(&e, source, "annotations");
    if (!nsmi_failed(ctx)) read_annotations(&e, source, "annotationsDerived");
    if (!nsmi_failed(ctx)) ds = build(&e);
    nsmi_words_clear(&e.node);
    nsmi_words_clear(&e.class);
    nsmi_words_clear(&e.keyword);
    nsmi_texts_clear(&e.text);
    nsmi_h5_free_strings(e.name, e.names);
    free(e.code);
    free(e.cls);
    free(e.mention);
    if (!nsmi_failed(ctx)) return ds;
    nsm_dataset_free(ds);
    return NULL;
}

#else

nsm_dataset *nsmi_import_emoji(nsm_ctx *ctx, const char *source, const nsmi_options *o)
{
    (void)source;
    nsm_error_set(ctx, NSM_EINVAL, "%s needs FreeType and Expat; this nsm was built without them",
                  o->who);
    return NULL;
}

#endif
