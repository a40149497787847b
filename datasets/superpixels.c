/* datasets/superpixels.c - See superpixels.h. */
#include "config.h"
#include <math.h>
#include "base/internal.h"
#include "datasets/superpixels.h"

#ifdef HAVE_VLFEAT
#include <vl/slic.h>

enum { MOST = 4096 }; /* superpixels of a picture */

/* All pictures cut up. */
typedef struct {
    const nsm_dataset_images *p;
    int64_t pictures, area, region;
    float compactness;
    uint16_t *label;              /* [pictures, area] */
    int64_t *node, *touch;        /* [pictures + 1] where its superpixels, its pairs begin */
    float *x;                     /* [superpixels, F] */
    int32_t *of, *one, *other;    /* [superpixels] their picture; [pairs] who touches whom */
} cutting;

/* What one thread works with. */
typedef struct {
    float *pixel;                 /* [C, H, W], 0..1 */
    uint32_t *segment;            /* [H, W] */
    int32_t *number;              /* [area] of a segment; -1 */
    uint8_t *touches;             /* [MOST, MOST] */
} desk;

static bool desk_open(nsm_ctx *ctx, const cutting *c, desk *d)
{
    size_t area = (size_t)c->area;
    d->pixel = nsmi_malloc(ctx, area * (size_t)c->p->channels * sizeof *d->pixel);
    d->segment = nsmi_malloc(ctx, area * sizeof *d->segment);
    d->number = nsmi_malloc(ctx, area * sizeof *d->number);
    d->touches = nsmi_calloc(ctx, (size_t)MOST * MOST / 8, 1);
    return d->pixel && d->segment && d->number && d->touches;
}

static void desk_close(desk *d)
{
    free(d->pixel);
    free(d->segment);
    free(d->number);
    free(d->touches);
}

/* Segments in the order of their first pixels, from 0: how many there are.  SLIC leaves gaps. */
static int64_t number_segments(const cutting *c, desk *d, uint16_t *label)
{
    int64_t count = 0;
    for (int64_t i = 0; i < c->area; i++) d->number[i] = -1;
    for (int64_t i = 0; i < c->area; i++) {
        int32_t *n = &d->number[d->segment[i]];
        if (*n < 0) *n = (int32_t)(count < MOST ? count++ : MOST - 1);
        label[i] = (uint16_t)*n;
    }
    return count;
}

/* The bit of two labels in `touches`. */
static int64_t pair_of(int64_t a, int64_t b) { return a < b ? a * MOST + b : b * MOST + a; }

/* Note that labels a and b touch; true the first time. */
static bool meet(desk *d, int64_t a, int64_t b)
{
    int64_t at = pair_of(a, b);
    if (a == b || d->touches[at / 8] >> at % 8 & 1) return false;
    d->touches[at / 8] |= (uint8_t)(1 << at % 8);
    return true;
}

/* Walk the borders of picture i, which has been cut: the number of pairs that touch, both ways;
 * they are noted from `at` on, or with -1 counted alone. */
static int64_t borders(const cutting *c, desk *d, int64_t i, int64_t at)
{
    const uint16_t *label = c->label + i * c->area;
    int64_t w = c->p->width, count = 0;
    for (int pass = 0; pass < 2; pass++) /* the second clears what the first has marked */
        for (int64_t k = 0; k < c->area; k++)
            for (int side = 0; side < 2; side++) {
                if (side == 0 ? k % w == w - 1 : k + w >= c->area) continue;
                int64_t a = label[k], b = label[k + (side ? w : 1)];
                if (pass) d->touches[pair_of(a, b) / 8] = 0;
                else if (meet(d, a, b)) {
                    if (at >= 0) {
                        c->one[at + count] = c->other[at + count + 1] = (int32_t)(c->node[i] + a);
                        c->other[at + count] = c->one[at + count + 1] = (int32_t)(c->node[i] + b);
                    }
                    count += 2;
                }
            }
    return count;
}

static void cut(const cutting *c, desk *d, int64_t i)
{
    const nsm_dataset_images *p = c->p;
    const uint8_t *from = p->pixel + i * c->area * p->channels;
    uint16_t *label = c->label + i * c->area;
    c->node[i + 1] = c->touch[i + 1] = 0;
    if (p->there && !p->there[i]) return;
    for (int64_t k = 0; k < c->area; k++)
        for (int64_t ch = 0; ch < p->channels; ch++)
            d->pixel[ch * c->area + k] = (float)from[k * p->channels + ch] / 255;
    vl_slic_segment(d->segment, d->pixel, (vl_size)p->width, (vl_size)p->height,
                    (vl_size)p->channels, (vl_size)c->region, c->compactness,
                    (vl_size)(c->region * c->region / 4));
    c->node[i + 1] = number_segments(c, d, label);
    c->touch[i + 1] = borders(c, d, i, -1);
}

/* The features of picture i's superpixels. */
static void describe(const cutting *c, int64_t i)
{
    const nsm_dataset_images *p = c->p;
    int64_t channels = p->channels, features = channels + 4;
    const uint8_t *from = p->pixel + i * c->area * channels;
    float *row = c->x + c->node[i] * features;
    for (int64_t k = 0; k < c->area; k++) {
        float *x = row + c->label[i * c->area + k] * features;
        for (int64_t ch = 0; ch < channels; ch++) {
            float v = (float)from[k * channels + ch] / 255;
            x[ch] += v;
            x[channels + 3] += v * v;
        }
        x[channels] += (float)(k / p->width);
        x[channels + 1] += (float)(k % p->width);
        x[channels + 2]++;
    }
    for (int64_t s = c->node[i]; s < c->node[i + 1]; s++) {
        float *x = c->x + s * features, size = x[channels + 2], square = 0;
        for (int64_t ch = 0; ch < channels; ch++) x[ch] /= size, square += x[ch] * x[ch];
        x[channels] /= size * (float)(p->height > 1 ? p->height - 1 : 1);
        x[channels + 1] /= size * (float)(p->width > 1 ? p->width - 1 : 1);
        x[channels + 2] = size / (float)c->area;
        x[channels + 3] = sqrtf(fmaxf(0, x[channels + 3] / size - square) / (float)channels);
        c->of[s] = (int32_t)i;
    }
}

/* Every picture, by all threads. */
static void each_picture(nsm_ctx *ctx, const cutting *c, bool fill)
{
#pragma omp parallel num_threads(ctx->dev.threads)
    {
        desk d = { 0 };
        bool ready = false;
#pragma omp critical(nsm_superpixels)
        ready = desk_open(ctx, c, &d);
#pragma omp for schedule(dynamic, 64)
        for (int64_t i = 0; i < c->pictures; i++) {
            if (!ready) continue;
            if (!fill) cut(c, &d, i);
            else if (c->node[i] < c->node[i + 1]) { /* the others were not cut: no labels */
                describe(c, i);
                borders(c, &d, i, c->touch[i]);
            }
        }
        desk_close(&d);
    }
}

/* Room for what was cut, as nodes and edges of the dataset. */
static void make_room(nsm_dataset *ds, cutting *c)
{
    for (int64_t i = 0; i < c->pictures; i++) {
        c->node[i + 1] += c->node[i];
        c->touch[i + 1] += c->touch[i];
    }
    int64_t nodes = c->node[c->pictures], features = c->p->channels + 4;
    if (nodes > INT32_MAX) {
        nsm_error_set(ds->ctx, NSM_EINVAL, "superpixels: %lld of them, more than %d",
                      (long long)nodes, INT32_MAX);
        return;
    }
    int type = ds->node_types;
    nsm_dataset_nodes *v = nsm_dataset_add_nodes(ds, "superpixel", nodes);
    if (v) v->features = features;
    if (v) v->dense = c->x = nsm_dataset_array(ds, nodes * features, sizeof *c->x);
    if (c->x) memset(c->x, 0, (size_t)(nodes * features) * sizeof *c->x);
    nsm_dataset_edges *e = nsm_dataset_add_edges(ds, "in", type, ds->target, nodes);
    if (!e) return;
    c->of = e->dst;
    for (int64_t s = 0; s < nodes; s++) e->src[s] = (int32_t)s;
    e = nsm_dataset_add_edges(ds, "beside", type, type, c->touch[c->pictures]);
    if (!e) return;
    c->one = e->src;
    c->other = e->dst;
    ds->directed = true;
}

int nsm_dataset_superpixels(nsm_dataset *ds, int64_t count, double compactness)
{
    nsm_ctx *ctx = ds->ctx;
    nsm_dataset_images image = ds->node_types ? ds->node[ds->target].image
                                              : (nsm_dataset_images){ 0 };
    cutting c = { .p = &image, .area = image.height * image.width,
                  .compactness = (float)compactness };
    if (nsmi_failed(ctx)) return nsm_error(ctx);
    if (!image.channels)
        return nsm_error_set(ctx, NSM_EINVAL, "superpixels: the nodes have no pictures");
    if (count < 1 || count > MOST || count > c.area || !(compactness >= 0 && compactness <= 1e6))
        return nsm_error_set(ctx, NSM_EINVAL,
                             "superpixels: %lld of a picture of %lld pixels, at most %d, with "
                             "compactness %g: out of range",
                             (long long)count, (long long)c.area, MOST, compactness);
    c.pictures = ds->node[ds->target].count;
    c.region = (int64_t)fmax(1, round(sqrt((double)c.area / (double)count)));
    c.label = nsmi_malloc(ctx, (size_t)(c.pictures * c.area) * sizeof *c.label);
    c.node = nsmi_calloc(ctx, (size_t)c.pictures + 1, sizeof *c.node);
    c.touch = nsmi_calloc(ctx, (size_t)c.pictures + 1, sizeof *c.touch);
    if (c.label && c.node && c.touch) each_picture(ctx, &c, false);
    if (!nsmi_failed(ctx)) make_room(ds, &c);
    if (!nsmi_failed(ctx)) each_picture(ctx, &c, true);
    free(c.label);
    free(c.node);
    free(c.touch);
    return nsm_error(ctx);
}

#else

int nsm_dataset_superpixels(nsm_dataset *ds, int64_t count, double compactness)
{
    (void)count;
    (void)compactness;
    return nsm_error_set(ds->ctx, NSM_EINVAL,
                         "superpixels need VLFeat; this nsm was built without it");
}

#endif
