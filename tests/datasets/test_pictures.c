/* tests/datasets/test_pictures.c - Pictures from PNG and JPEG files of every kind, their sizes and
 * channels, damaged files; IDX files; Sort-of-CLEVR; superpixels. */
#include "config.h"
#include "datasets/picture.h"
#include "datasets/superpixels.h"
#include "tests/datasets/sample.h"
#include "tests/datasets/sample_picture.h"
#include "tests/test.h"

static nsm_ctx *ctx;
static void begin(void) { ctx = nsm_ctx_new(NULL); }
static void end(void)
{
    ck_ok(ctx);
    nsm_ctx_free(ctx);
    sample_folder_remove();
}

#if defined(HAVE_PNG)
/* what each kind of file holds, interlaced or not */
START_TEST(png)
{
    begin();
    for (int kind = 0; kind < SAMPLE_PNGS; kind++) {
        nsm_picture p;
        size_t count, c = (size_t)sample_png_channels[kind];
        unsigned char *file = sample_png(kind, &count), want[SAMPLE_PIXELS * 4];
        nsm_picture_decode(ctx, "a", file, count, &(nsm_picture_options){ .channels = (int)c }, &p);
        ck_ok(ctx);
        ck_assert(p.height == SAMPLE_HEIGHT && p.width == SAMPLE_WIDTH && (size_t)p.channels == c);
        sample_png_pixels(kind, want);
        ck_assert_msg(!memcmp(p.pixel, want, SAMPLE_PIXELS * c), "kind %d", kind);
        nsm_picture_clear(&p);
        free(file);
    }
    end();
}
END_TEST

/* grey by weights, alpha on white */
START_TEST(channels)
{
    begin();
    uint8_t pixel[2][4] = { { 255, 0, 0, 255 }, { 10, 200, 30, 51 } };
    const uint8_t want[4][2][4] = { { { 76 }, { 229 } }, /* 0.2 of the colour, 0.8 of white */
                                    { { 76, 255 }, { 124, 51 } },
                                    { { 255, 0, 0 }, { 206, 244, 210 } },
                                    { { 255, 0, 0, 255 }, { 10, 200, 30, 51 } } };
    const char *path = sample_path("a.png");
    nsm_picture p = { 1, 2, 4, &pixel[0][0] };
    ck_assert_int_eq(nsm_picture_write(ctx, path, &p), NSM_OK);
    for (int c = 1; c <= 4; c++) {
        nsm_picture_read(ctx, path, &(nsm_picture_options){ .channels = c }, &p);
        ck_ok(ctx);
        for (int i = 0; i < 2 * c; i++) ck_assert_int_eq(p.pixel[i], want[c - 1][i / c][i % c]);
        nsm_picture_clear(&p);
    }
    nsm_picture_read(ctx, path, NULL, &p);
    ck_assert_int_eq(p.channels, 3);
    nsm_picture_clear(&p);
    end();
}
END_TEST

/* each pixel is the mean of the area that it covers */
START_TEST(sizes)
{
    begin();
    uint8_t pixel[12] = { 0, 100, 200, 50, 10, 110, 210, 60, 20, 120, 220, 70 };
    nsm_picture p = { 3, 4, 1, pixel };
    const char *path = sample_path("a.png");
    nsm_picture_write(ctx, path, &p);
    nsm_picture_read(ctx, path, &(nsm_picture_options){ .height = 1, .width = 2 }, &p);
    ck_ok(ctx);
    ck_assert(p.pixel[0] == 60 && p.pixel[1] == 135);
    nsm_picture_clear(&p);
    nsm_picture_read(ctx, path, &(nsm_picture_options){ .height = 3, .width = 3 }, &p);
    ck_assert(p.pixel[0] == 25 && p.pixel[1] == 150 && p.pixel[2] == 88);
    nsm_picture_clear(&p);
    nsm_picture_read(ctx, path, &(nsm_picture_options){ .height = 6, .width = 8 }, &p);
    for (int i = 0; i < 48; i++) ck_assert_int_eq(p.pixel[i], pixel[i / 16 * 4 + i % 8 / 2]);
    nsm_picture_clear(&p);
    end();
}
END_TEST

/* cut off anywhere, too large, nothing at all: one error, no picture */
START_TEST(refused)
{
    begin();
    nsm_picture p;
    size_t count;
    unsigned char *file = sample_png(2, &count);
    for (size_t cut = 0; cut < count; cut++) {
        nsm_picture_decode(ctx, "a", file, cut, NULL, &p);
        ck_error(ctx, NSM_EFORMAT);
        ck_assert(!p.pixel);
    }
    nsm_picture_decode(ctx, "a", file, count, &(nsm_picture_options){ .most_pixels = 10 }, &p);
    ck_error(ctx, NSM_EFORMAT);
    nsm_picture_decode(ctx, "a", file, count, &(nsm_picture_options){ .channels = 5 }, &p);
    ck_error(ctx, NSM_EINVAL);
    nsm_picture_read(ctx, sample_path("none.png"), NULL, &p);
    ck_error(ctx, NSM_EIO);
    memset(file + 16, 0x7f, 8); /* the sizes */
    nsm_picture_decode(ctx, "a", file, count, NULL, &p);
    ck_error(ctx, NSM_EFORMAT);
    free(file);
    end();
}
END_TEST

/* A picture of one colour, h x w pixels, under this name. */
static void write_colour(const char *name, int64_t height, int64_t width, uint8_t r, uint8_t g,
                         uint8_t b)
{
    uint8_t pixel[64 * 3];
    for (int64_t i = 0; i < height * width; i++)
        pixel[3 * i] = r, pixel[3 * i + 1] = g, pixel[3 * i + 2] = b;
    nsm_picture_write(ctx, sample_path("%s", name), &(nsm_picture){ height, width, 3, pixel });
    ck_ok(ctx);
}

/* nodes a, b, c and edges between them; what is joined to them, by up to three options */
static nsm_dataset *join(const char *image, const char *images, const char *size, bool grey)
{
    nsm_option o[5] = { { "nodes", sample_path("g/nodes.csv") } };
    int n = 1;
    if (image) o[n++] = (nsm_option){ "image", image };
    if (images) o[n++] = (nsm_option){ "images", sample_path("%s", images) };
    if (size) o[n++] = (nsm_option){ "size", size };
    if (grey) o[n++] = (nsm_option){ "channels", "1" };
    return nsm_import(ctx, "csv", sample_path("g/edges.csv"), o, n);
}

static void refuse(nsm_dataset *ds, int code, const char *text)
{
    ck_assert(!ds);
    ck_assert_msg(strstr(nsm_error_message(ctx), text) != NULL, "no \"%s\" in: %s", text,
                  nsm_error_message(ctx));
    ck_error(ctx, code);
}

static void write_nodes(const char *text)
{
    sample_write(sample_path("g/nodes.csv"), text, strlen(text));
    sample_write(sample_path("g/edges.csv"), "src,dst\na,b\nb,c\n", 16);
}

/* by a column of paths, by names in a folder; a node without a picture; sizes; grey */
START_TEST(of_nodes)
{
    begin();
    write_nodes("id,f,look\na,1,red.png\nb,2,\nc,3,sub/green.png\n");
    sample_write(sample_path("g/sub/notes.txt"), "", 0); /* makes the folder */
    write_colour("g/red.png", 2, 4, 255, 0, 0);
    write_colour("g/sub/green.png", 4, 4, 0, 255, 0);
    nsm_dataset *ds = join("look", NULL, "2x3", false);
    ck_ok(ctx);
    const nsm_dataset_images *m = &ds->node[0].image;
    ck_assert(m->height == 2 && m->width == 3 && m->channels == 3 && ds->node[0].features == 1);
    ck_assert(m->there && m->there[0] == 1 && m->there[1] == 0 && m->there[2] == 1);
    for (int i = 0; i < 18; i++) {
        ck_assert_int_eq(m->pixel[i], i % 3 == 0 ? 255 : 0);
        ck_assert_int_eq(m->pixel[18 + i], 0);
        ck_assert_int_eq(m->pixel[36 + i], i % 3 == 1 ? 255 : 0);
    }
    nsm_dataset_free(ds);

    write_nodes("id\na\nb\nc\n");
    sample_write(sample_path("look/notes.txt"), "no picture", 10);
    write_colour("look/a.png", 3, 3, 9, 9, 9);
    write_colour("look/b.PNG", 3, 3, 0, 0, 0);
    write_colour("look/c.png", 3, 3, 255, 255, 255);
    ds = join(NULL, "look", NULL, true);
    ck_ok(ctx);
    m = &ds->node[0].image;
    ck_assert(m->height == 3 && m->width == 3 && m->channels == 1 && !m->there);
    ck_assert(m->pixel[0] == 9 && m->pixel[9] == 0 && m->pixel[26] == 255);
    nsm_dataset_free(ds);
    end();
}
END_TEST

START_TEST(of_nodes_refused)
{
    begin();
    write_nodes("id,look\na,red.png\nb,none.png\nc,\n");
    write_colour("g/red.png", 2, 4, 255, 0, 0);
    refuse(join("look", NULL, NULL, false), NSM_EFORMAT, "nodes.csv:3: column look: ");
    refuse(join("face", NULL, NULL, false), NSM_EFORMAT, "there is no column image=face");
    write_nodes("id,look\na,red.png\nb,bad.png\nc,\n");
    sample_write(sample_path("g/bad.png"), "\x89PNG\r\n\x1a\n and no more", 20);
    refuse(join("look", NULL, "3", false), NSM_EFORMAT, "g/bad.png: not a whole PNG file");
    write_colour("g/bad.png", 4, 4, 0, 0, 0);
    refuse(join("look", NULL, NULL, false), NSM_EFORMAT, "has 4 x 4 pixels");
    refuse(join("look", NULL, "3x", false), NSM_EINVAL, "size=3x is neither");
    refuse(join("look", NULL, "0", false), NSM_EINVAL, "size=0 is neither");
    write_nodes("id,look\na,\nb,\nc,\n");
    refuse(join("look", NULL, NULL, false), NSM_EFORMAT, "no node has a picture");
    write_nodes("id\na\nb\nc\n");
    sample_write(sample_path("look/notes.txt"), "no picture", 10);
    write_colour("look/a.png", 3, 3, 9, 9, 9);
    write_colour("look/d.png", 3, 3, 9, 9, 9);
    refuse(join(NULL, "look", NULL, false), NSM_EFORMAT, "look/d.png: there is no node d");
    ck_assert_int_eq(remove(sample_path("look/d.png")), 0);
    write_colour("look/a.jpeg", 3, 3, 9, 9, 9);
    refuse(join(NULL, "look", NULL, false), NSM_EFORMAT, "node a has a picture already");
    refuse(join(NULL, "nowhere", NULL, false), NSM_EIO, "nowhere: ");
    refuse(join(NULL, NULL, "3", false), NSM_EINVAL, "size= and channels= are of pictures");
    const nsm_option column = { "image", "look" };
    refuse(nsm_import(ctx, "csv", sample_path("g/edges.csv"), &column, 1), NSM_EINVAL,
           "image=look is a column of nodes=FILE");
    end();
}
END_TEST
#endif

#if defined(HAVE_JPEG)
/* baseline and progressive, grey and colour, CMYK; cut off it is refused */
START_TEST(jpeg)
{
    begin();
    for (int kind = 0; kind < SAMPLE_JPEGS; kind++) {
        nsm_picture p;
        size_t count;
        unsigned char *file = sample_jpeg(kind, &count), want[SAMPLE_PIXELS * 3];
        nsm_picture_decode(ctx, "a", file, count, NULL, &p);
        ck_ok(ctx);
        sample_jpeg_pixels(kind, want);
        ck_assert(p.height == SAMPLE_HEIGHT && p.width == SAMPLE_WIDTH);
        ck_assert_int_eq(p.channels, kind < 2 ? 1 : 3);
        for (int i = 0; i < SAMPLE_PIXELS * p.channels; i++)
            ck_assert_int_le(abs(p.pixel[i] - want[i]), 6);
        nsm_picture_clear(&p);
        for (size_t cut = 3; cut < count - 2; cut += 7) {
            nsm_picture_decode(ctx, "a", file, cut, NULL, &p);
            ck_error(ctx, NSM_EFORMAT);
            ck_assert(!p.pixel);
        }
        free(file);
    }
    end();
}
END_TEST
#endif

/* Four files of 5 + 3 pictures of 2 x 3. */
static void write_idx(const char *folder)
{
    static const char *const part[] = { "train", "t10k" };
    for (int k = 0; k < 2; k++) {
        unsigned char images[16 + 30] = { 0, 0, 8, 3, 0, 0, 0, k ? 3 : 5, 0, 0, 0, 2, 0, 0, 0, 3 },
                                  labels[8 + 5] = { 0, 0, 8, 1, 0, 0, 0, k ? 3 : 5 };
        int n = k ? 3 : 5;
        for (int i = 0; i < 6 * n; i++) images[16 + i] = (unsigned char)(100 * k + i);
        for (int i = 0; i < n; i++) labels[8 + i] = (unsigned char)((i + k) % 4);
        sample_write(sample_path("%s/%s-images-idx3-ubyte%s", folder, part[k], k ? "" : ".gz"),
                     images, (size_t)(16 + 6 * n));
        sample_write(sample_path("%s/%s-labels-idx1-ubyte", folder, part[k]), labels,
                     (size_t)(8 + n));
    }
}

START_TEST(idx)
{
    begin();
    write_idx("mnist");
    const nsm_option valid = { "valid", "2" };
    nsm_dataset *ds = nsm_import(ctx, "idx", sample_path("mnist"), &valid, 1);
    ck_ok(ctx);
    const nsm_dataset_nodes *v = &ds->node[0];
    ck_assert(v->count == 8 && v->image.height == 2 && v->image.width == 3 &&
              v->image.channels == 1);
    ck_assert(v->image.pixel[29] == 29 && v->image.pixel[30] == 100);
    ck_assert(ds->label.columns == 4 && ds->label.cls[1] == 1 && ds->label.cls[5] == 1);
    ck_assert(ds->split[0].count[0] == 3 && ds->split[0].count[1] == 2 &&
              ds->split[0].count[2] == 3 && ds->split[0].index[2][0] == 5);
    nsm_dataset_free(ds);
    sample_write(sample_path("mnist/t10k-labels-idx1-ubyte"), "\0\0\x08\1\0\0\0\2ab", 10);
    ck_assert(!nsm_import(ctx, "idx", sample_path("mnist"), NULL, 0)); /* 3 pictures, 2 classes */
    ck_error(ctx, NSM_EFORMAT);
    end();
}
END_TEST

/* The answers of a scene's questions, worked out from the pixels alone. */
typedef struct {
    double x[6], y[6];
    bool square[6];
} seen;

static seen look(const uint8_t *pixel, int64_t size)
{
    static const uint8_t colour[6][3] = { { 255, 0, 0 },   { 0, 255, 0 },     { 0, 0, 255 },
                                          { 255, 156, 0 }, { 128, 128, 128 }, { 255, 255, 0 } };
    seen s = { { 0 }, { 0 }, { 0 } };
    for (int c = 0; c < 6; c++) {
        int count = 0;
        for (int64_t i = 0; i < size * size; i++) {
            if (memcmp(pixel + 3 * i, colour[c], 3)) continue;
            s.x[c] += (double)(i % size);
            s.y[c] += (double)(i / size);
            count++;
        }
        ck_assert(count == 121 || count == 81); /* none is hidden */
        s.square[c] = count == 121;
        s.x[c] /= count;
        s.y[c] /= count;
    }
    return s;
}

/* The object that a question about object n is after, -1: none. */
static int object_of(const seen *s, int n, int kind)
{
    int best = -1;
    for (int a = 0; a < 6; a++) {
        double d = hypot(s->x[a] - s->x[n], s->y[a] - s->y[n]),
               b = best < 0 ? 0 : hypot(s->x[best] - s->x[n], s->y[best] - s->y[n]);
        if (a != n && (best < 0 || (kind == 3 ? d < b : d > b))) best = a;
    }
    return kind < 3 ? n : kind < 5 ? best : -1;
}

static const char *answer(const seen *s, int n, int kind, int64_t size)
{
    static const char *const number[] = { "0", "1", "2", "3", "4", "5", "6" };
    int best = object_of(s, n, kind), same = 0;
    for (int a = 0; a < 6; a++) same += s->square[a] == s->square[n];
    switch (kind) {
    case 0: return s->square[n] ? "rectangle" : "circle";
    case 1: return s->x[n] < (double)(size - 1) / 2 ? "yes" : "no";
    case 2: return s->y[n] < (double)(size - 1) / 2 ? "yes" : "no";
    case 5: return number[same];
    default: return s->square[best] ? "rectangle" : "circle";
    }
}

START_TEST(sort_of_clevr)
{
    begin();
    const nsm_option o[] = { { "train", "40" }, { "valid", "5" }, { "test", "7" } };
    nsm_dataset *ds = nsm_generate(ctx, "sort_of_clevr", o, 3);
    ck_ok(ctx);
    const nsm_dataset_questions *q = &ds->question;
    const int64_t size = ds->node[0].image.height;
    int kinds[6] = { 0 };
    ck_assert(ds->node[0].count == 52 && ds->node[1].count == 52 * 6 && q->count == 52 * 20);
    ck_assert(ds->split[0].count[0] == 40 && ds->split[0].count[2] == 7 && size == 75);
    for (int64_t k = 0; k < q->count; k++) {
        seen s = look(ds->node[0].image.pixel + q->node[k] * size * size * 3, size);
        const float *v = q->value + k * 11;
        int n = 0, which = 0, relational = v[7] > 0;
        while (n < 5 && v[n] <= 0) n++;
        while (which < 2 && v[8 + which] <= 0) which++;
        ck_assert_int_eq(q->group[k], 3 * relational + which);
        ck_assert_int_eq(relational, k % 20 >= 10);
        ck_assert_str_eq(q->answer_names[q->answer[k]], answer(&s, n, q->group[k], size));
        int to = object_of(&s, n, q->group[k]);
        ck_assert_int_eq(q->pointed[k], to < 0 ? -1 : q->node[k] * 6 + to);
        char name[64];
        snprintf(name, sizeof name, "%s %s at %.0f,%.0f", q->value_names[n],
                 s.square[n] ? "rectangle" : "circle", s.x[n], s.y[n]);
        ck_assert_str_eq(ds->node[1].names[q->node[k] * 6 + n], name);
        const float *object = ds->node[1].dense + (q->node[k] * 6 + n) * 10;
        ck_assert(object[n] > 0 && object[s.square[n] ? 6 : 7] > 0);
        ck_assert_double_eq_tol((double)object[8] * (double)(size - 1), s.x[n], 1e-3);
        kinds[q->group[k]]++;
    }
    for (int k = 0; k < 6; k++) ck_assert_int_gt(kinds[k], 100);
    nsm_dataset_free(ds);
    end();
}
END_TEST

#if defined(HAVE_VLFEAT)
/* ---- superpixels ---- */
/* Three pictures of 12 x 12: the second is absent, the first and third have four even quarters. */
static nsm_dataset *quarters(nsm_ctx *c)
{
    enum { SIZE = 12, N = 3 };
    static const uint8_t colour[4][3] = { { 250, 0, 0 },
                                          { 0, 250, 0 },
                                          { 0, 0, 250 },
                                          { 250, 250, 0 } };
    nsm_dataset *ds = nsm_dataset_new(c, "quarters");
    nsm_dataset_nodes *v = nsm_dataset_add_nodes(ds, "picture", N);
    v->image = (nsm_dataset_images){ SIZE, SIZE, 3, nsm_dataset_array(ds, N * SIZE * SIZE * 3, 1),
                                     nsm_dataset_array(ds, N, 1) };
    for (int i = 0; i < N * SIZE * SIZE; i++) {
        int y = i / SIZE % SIZE, x = i % SIZE;
        memcpy(v->image.pixel + i * 3, colour[y / 6 * 2 + x / 6], 3);
    }
    for (int i = 0; i < N; i++) v->image.there[i] = i != 1;
    return ds;
}

START_TEST(superpixels)
{
    for (int threads = 1; threads <= 3; threads += 2) {
        nsm_ctx *c = nsm_ctx_new(&(nsm_ctx_config){ .threads = threads });
        nsm_dataset *ds = quarters(c);
        ck_assert_int_eq(nsm_dataset_superpixels(ds, 4, 0.01), NSM_OK);
        const nsm_dataset_nodes *v = &ds->node[1];
        const nsm_dataset_edges *in = &ds->edge[0], *beside = &ds->edge[1];
        ck_assert_str_eq(v->name, "superpixel");
        ck_assert_int_eq(v->count, 8);
        ck_assert_int_eq(v->features, 7);
        ck_assert_int_eq(in->count, 8);
        for (int s = 0; s < 8; s++) {
            const float *x = v->dense + s * 7;
            ck_assert_int_eq(in->src[s], s);
            ck_assert_int_eq(in->dst[s], s < 4 ? 0 : 2);
            ck_assert_float_eq_tol(x[5], 0.25f, 1e-6f);                          /* its share */
            ck_assert_float_eq_tol(x[6], 0, 1e-3f);                              /* its deviation */
            ck_assert_float_eq_tol(x[3], (s % 4 / 2 ? 8.5f : 2.5f) / 11, 1e-5f); /* its row */
            ck_assert_float_eq_tol(x[4], (s % 2 ? 8.5f : 2.5f) / 11, 1e-5f);
            ck_assert_float_eq_tol(x[0], s % 4 == 0 || s % 4 == 3 ? 250 / 255.0f : 0, 1e-5f);
        }
        ck_assert_int_eq(beside->count, 16); /* four borders of each, both ways */
        for (int k = 0; k < 16; k++) {
            ck_assert_int_eq(beside->src[k], beside->dst[k ^ 1]);
            ck_assert_int_eq(beside->src[k] / 4, beside->dst[k] / 4);
            ck_assert_int_ne(beside->src[k] % 4 + beside->dst[k] % 4, 3); /* no corners */
        }
        nsm_dataset_free(ds);
        nsm_ctx_free(c);
    }
}
END_TEST

START_TEST(superpixels_refused)
{
    nsm_ctx *c = nsm_ctx_new(NULL);
    nsm_dataset *ds = quarters(c);
    nsm_dataset_superpixels(ds, 0, 0.1);
    ck_error(c, NSM_EINVAL);
    nsm_dataset_superpixels(ds, 145, 0.1);
    ck_error(c, NSM_EINVAL);
    nsm_dataset_superpixels(ds, 4, -1);
    ck_error(c, NSM_EINVAL);
    nsm_dataset_free(ds);
    ds = nsm_dataset_new(c, "none");
    nsm_dataset_add_nodes(ds, "node", 3);
    nsm_dataset_superpixels(ds, 4, 0.1);
    ck_error(c, NSM_EINVAL);
    nsm_dataset_free(ds);
    nsm_ctx_free(c);
}
END_TEST
#endif

int main(void)
{
    return test_main(
        "pictures", (const TTest *const[]) {
#if defined(HAVE_PNG)
            png, channels, sizes, refused, of_nodes, of_nodes_refused,
#endif
#if defined(HAVE_JPEG)
                jpeg,
#endif
#if defined(HAVE_VLFEAT)
                superpixels, superpixels_refused,
#endif
                idx, sort_of_clevr, NULL
        });
}
