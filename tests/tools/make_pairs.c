/* make_pairs.c - FILE.h5: 216 things whose picture and text tell the same.
 *
 * The picture is three stripes of six colours, with noise; the text names the colour of each stripe
 * and, in half of the things, says so in one word more.  Edges join things that differ in the last
 * stripe alone.  Thing 0 has no picture, thing 1 no words.  No labels, no split. */
#include "datasets/dataset.h"
#include "base/internal.h"

enum { COLOURS = 6, THINGS = COLOURS * COLOURS * COLOURS, SIDE = 12, BYTES = SIDE * SIDE * 3 };
static const uint8_t colour[COLOURS][3] = { { 220, 30, 30 },  { 30, 200, 40 },   { 40, 60, 230 },
                                            { 230, 220, 40 }, { 250, 250, 250 }, { 20, 20, 20 } };

static int stripe(int thing, int k)
{
    return k == 0 ? thing / 36 : k == 1 ? thing / 6 % 6 : thing % 6;
}

static void draw(int thing, uint8_t *pixel)
{
    nsm_random noise = { 11, (uint64_t)thing << 20 };
    for (int i = 0; i < BYTES; i++) {
        int row = i / (SIDE * 3), c = colour[stripe(thing, row * 3 / SIDE)][i % 3],
            by = (int)(nsm_random_u32(noise, (uint64_t)i) % 21) - 10;
        pixel[i] = (uint8_t)(c + by < 0 ? 0 : c + by > 255 ? 255 : c + by);
    }
}

/* word 6 k + c: stripe k is of colour c; 18: "indeed" */
static void tell(nsm_dataset_text *t, int thing)
{
    int64_t at = t->ptr[thing];
    for (int k = 0; k < 3 && thing != 1; k++) t->id[at++] = 6 * k + stripe(thing, k);
    if (thing % 2 == 0) t->id[at++] = 18;
    t->ptr[thing + 1] = at;
}

static void join(nsm_dataset_edges *e)
{
    e->count = 0;
    for (int i = 0; i < THINGS; i++)
        for (int j = i - i % 6; j < i - i % 6 + 6; j++) {
            if (i == j) continue;
            e->src[e->count] = i;
            e->dst[e->count++] = j;
        }
}

int main(int argc, char **argv)
{
    if (argc == 1) { /* in the list of tests; retrieve.sh gives it a file */
        puts("no file to make");
        return 77;
    }
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    if (!ctx) return 2;
    nsm_dataset *ds = nsm_dataset_new(ctx, "pairs");
    nsm_dataset_nodes *v = ds ? nsm_dataset_add_nodes(ds, "thing", THINGS) : NULL;
    nsm_dataset_edges *e = v ? nsm_dataset_add_edges(ds, "like", 0, 0, THINGS * 5) : NULL;
    if (e) {
        v->text = (nsm_dataset_text){ .vocab = 19,
                                      .ptr = nsm_dataset_array(ds, THINGS + 1, sizeof(int64_t)),
                                      .id = nsm_dataset_array(ds, THINGS * 4, sizeof(int32_t)) };
        v->image = (nsm_dataset_images){ SIDE, SIDE, 3, nsm_dataset_array(ds, THINGS, BYTES),
                                         nsm_dataset_array(ds, THINGS, 1) };
    }
    if (!nsm_error(ctx)) {
        join(e);
        v->text.ptr[0] = 0;
        for (int i = 0; i < THINGS; i++) {
            draw(i, v->image.pixel + i * BYTES);
            tell(&v->text, i);
            v->image.there[i] = i > 0;
        }
        memset(v->image.pixel, 0, BYTES);
        nsm_dataset_save(ds, argv[1]);
    }
    int code = nsm_error(ctx) ? 1 : 0;
    if (code) fprintf(stderr, "%s\n", nsm_error_message(ctx));
    nsm_dataset_free(ds);
    nsm_ctx_free(ctx);
    return code;
}
