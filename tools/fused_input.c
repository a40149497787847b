/* fused_input.c - See fused_input.h. */
#include "config.h"
#include <math.h>
#include <string.h>
#include "base/internal.h"
#include "tools/fused_input.h"

const char *const fused_modality_name[FUSED_MODALITIES] = { "graph", "text", "picture" };

unsigned fused_modalities_of(const char *s, const char *end)
{
    unsigned side = 0;
    for (const char *comma; s <= end; s = comma + 1) {
        int m = 0;
        comma = memchr(s, ',', (size_t)(end - s));
        if (!comma) comma = end;
        size_t n = (size_t)(comma - s);
        while (m < FUSED_MODALITIES &&
               (strlen(fused_modality_name[m]) != n || memcmp(fused_modality_name[m], s, n)))
            m++;
        if (m == FUSED_MODALITIES || side >> m & 1) return 0;
        side |= 1u << m;
    }
    return side;
}

unsigned fused_modalities(const train_options *o, const nsm_dataset *ds, unsigned used)
{
    static const char *const lacks[] = { "%s has no edges", "the nodes of %s have no text",
                                         "the nodes of %s have no pictures" };
    const nsm_dataset_nodes *v = &ds->node[ds->target];
    const char *list = o->modalities;
    unsigned has = (ds->edge_types > 0 ? 1u << FUSED_GRAPH : 0) |
                   (v->text.vocab > 0 ? 1u << FUSED_TEXT : 0) |
                   (v->image.channels > 0 ? 1u << FUSED_PICTURE : 0);
    if (!used) used = *list ? fused_modalities_of(list, list + strlen(list)) : has;
    if (!used && *list)
        nsm_error_set(ds->ctx, NSM_EINVAL,
                      "modalities=%.60s: want some of graph,text,picture, each once", list);
    else if (!used)
        nsm_error_set(ds->ctx, NSM_EINVAL, "%s has neither edges nor texts nor pictures", ds->name);
    for (int m = 0; m < FUSED_MODALITIES; m++) {
        if (!((used & ~has) >> m & 1)) continue;
        nsm_error_set(ds->ctx, NSM_EINVAL, lacks[m], ds->name);
        return 0;
    }
    return used;
}

void fused_picture_config(const train_options *o, const nsm_dataset *ds, nsm_fused_config *c)
{
    const nsm_dataset_images *p = &ds->node[ds->target].image;
    int channels = (int)p->channels, height = (int)p->height, width = (int)p->width;
    if (!strcmp(o->picture, "patch")) {
        c->patch = (nsm_patch_config){ .channels = channels, .height = height, .width = width,
                                       .patch = { (int)o->patch, (int)o->patch } };
        return;
    }
    c->image = (nsm_image_config){ .channels = channels, .height = height, .width = width,
                                   .layers = (int)o->stem_layers };
    static const struct { const char *name; nsm_image_norm norm; } norms[] = {
        { "batch", NSM_IMAGE_BATCH_NORM }, { "layer", NSM_IMAGE_LAYER_NORM },
        { "group", NSM_IMAGE_GROUP_NORM }, { "none", NSM_IMAGE_NO_NORM } };
    for (size_t k = 0; k < sizeof norms / sizeof *norms; k++)
        if (!strcmp(o->stem_norm, norms[k].name)) c->image.norm = norms[k].norm;
    for (int k = 0; k < NSM_IMAGE_LAYERS; k++) c->image.filters[k] = (int)o->filters;
}

/* ---- room on the tape for host arrays: given back with the step ---- */
void *fused_room(nsm_tape *tape, int64_t rows, int64_t cols, size_t bytes)
{
    int64_t all;
    if (nsmi_mul(rows, cols, &all) && nsmi_mul(all, (int64_t)bytes, &all))
        return nsmi_tape_room(tape, (size_t)all + 1);
    nsm_error_set(nsm_tape_ctx(tape), NSM_ENOMEM, "out of memory for %lld rows of %lld numbers",
                  (long long)rows, (long long)cols);
    return NULL;
}

nsm_tensor *fused_upload(nsm_tape *tape, nsm_type type, int64_t rows, int64_t cols, const void *x)
{
    return x ? nsm_tape_tensor(tape, type, cols ? 2 : 1, (int64_t[]){ rows, cols }, x) : NULL;
}

/* ---- what is taken away ---- */
int32_t fused_close_gaps(fused_gone gone, int64_t i, int32_t count, int first, int32_t *a,
                         int32_t *b)
{
    const uint8_t *is = gone.row + i * gone.stride;
    int32_t kept = (int32_t)first;
    for (int32_t j = kept; j < count; j++) {
        if (is[j]) continue;
        a[kept] = a[j];
        if (b) b[kept] = b[j];
        kept++;
    }
    return kept < count ? kept : count;
}

/* The median of a channel's pixels, of 256 steps from 0 to 1. */
static float median(const float *x, int64_t n)
{
    int64_t count[256] = { 0 }, below = 0;
    int step = 0;
    for (int64_t i = 0; i < n; i++) count[(int)lrintf(x[i] * 255)]++;
    while (below + count[step] <= n / 2) below += count[step++];
    return (float)step / 255;
}

/* Cells of the grid that are gone, in the picture's median colour, its ground if it has one: x [c,
 * h, w].  A colour that stands nowhere, like the mean, would be a thing of its own. */
static void blank(const nsm_fused *model, const uint8_t *gone, const nsm_dataset_images *p,
                  float *x)
{
    int64_t rows, cols, area = p->height * p->width;
    nsm_fused_picture_grid(model, &rows, &cols);
    for (int64_t c = 0; c < p->channels; c++, x += area) {
        float ground = median(x, area);
        for (int64_t a = 0; a < area; a++) {
            int64_t row = a / p->width * rows / p->height, col = a % p->width * cols / p->width;
            if (gone[row * cols + col]) x[a] = ground;
        }
    }
}

/* ---- words and pictures ---- */
int64_t fused_take_words(nsm_tape *tape, const nsm_dataset_text *t, int64_t limit, int64_t n,
                         const int32_t *thing, fused_gone gone, nsm_fused_input *in)
{
    int64_t most = 1;
    int32_t *count = fused_room(tape, n, 1, sizeof *count);
    for (int64_t i = 0; count && i < n; i++) {
        int64_t have = t->ptr[thing[i] + 1] - t->ptr[thing[i]];
        count[i] = (int32_t)(have < limit ? have : limit);
        if (count[i] > most) most = count[i];
    }
    int32_t *word = count ? fused_room(tape, n, most, sizeof *word) : NULL;
    if (!word) return most;
    for (int64_t i = 0; i < n; i++)
        if (count[i])
            memcpy(word + i * most, t->id + t->ptr[thing[i]], (size_t)count[i] * sizeof *word);
    for (int64_t i = 0; gone.row && i < n; i++)
        count[i] = fused_close_gaps(gone, i, count[i], 0, word + i * most, NULL);
    in->word = fused_upload(tape, NSM_I32, n, most, word);
    in->words = fused_upload(tape, NSM_I32, n, 0, count);
    return most;
}

/* Pixels from 0 to 1, channel by channel. */
int64_t fused_take_pictures(nsm_tape *tape, const nsm_fused *model, const nsm_dataset_images *p,
                            int64_t n, const int32_t *thing, fused_gone gone, nsm_fused_input *in)
{
    int64_t area = p->height * p->width, all = area * p->channels, rows, cols;
    nsm_fused_picture_grid(model, &rows, &cols);
    float *x = fused_room(tape, n, all, sizeof *x);
    int32_t *count = p->there ? fused_room(tape, n, 1, sizeof *count) : NULL;
    if (!x || (p->there && !count)) return rows * cols;
    for (int64_t i = 0; i < n; i++) {
        int64_t v = thing[i];
        const uint8_t *pixel = p->pixel + v * all;
        for (int64_t a = 0; a < area; a++)
            for (int64_t c = 0; c < p->channels; c++)
                x[i * all + c * area + a] = (float)pixel[a * p->channels + c] / 255;
        if (gone.row) blank(model, gone.row + i * gone.stride, p, x + i * all);
        if (count) count[i] = p->there[v] ? (int32_t)(rows * cols) : 0;
    }
    in->picture = nsm_tape_tensor(tape, NSM_F32, 4,
                                  (int64_t[]){ n, p->channels, p->height, p->width }, x);
    in->pictures = fused_upload(tape, NSM_I32, n, 0, count);
    return rows * cols;
}
