/* datasets/picture.c - Pictures from files: which format, then channels and size as wanted.
 *
 * All in whole numbers, so that pixels are the same everywhere. */
#include "config.h"
#include "datasets/internal.h"
#include "base/seal.h"
#include "datasets/picture_parts.h"

enum { MOST_PIXELS = 1 << 26, MOST_SIDE = 1 << 16, MOST_BYTES = 1 << 28 };

void nsm_picture_clear(nsm_picture *p)
{
    if (!p) return;
    free(p->pixel);
    *p = (nsm_picture){ 0 };
}

bool nsmi_picture_room(const nsmi_picture_source *s, int64_t height, int64_t width,
                       int64_t channels, nsm_picture *p)
{
    if (height < 1 || width < 1 || height > MOST_SIDE || width > MOST_SIDE ||
        height * width > s->most) {
        nsm_error_set(s->ctx, NSM_EFORMAT,
                      "%s: a picture of %lld x %lld pixels; at most %lld are read", s->name,
                      (long long)height, (long long)width, (long long)s->most);
        return false;
    }
    *p = (nsm_picture){ height, width, channels, NULL };
    p->pixel = nsmi_malloc(s->ctx, (size_t)(height * width * channels));
    return p->pixel != NULL;
}

/* ---- channels ---- */

/* c on white, where it covers a / 255 */
static uint8_t on_white(int c, int a) { return (uint8_t)((c * a + 255 * (255 - a) + 127) / 255); }

/* One pixel of `have` channels as one of `want`: grey is 0.299 R + 0.587 G + 0.114 B (BT.601). */
static void convert(const uint8_t *from, int have, uint8_t *to, int want)
{
    bool grey = have < 3, alpha = have % 2 == 0;
    int rgb[3], a = alpha ? from[have - 1] : 255;
    for (int k = 0; k < 3; k++) {
        rgb[k] = from[grey ? 0 : k];
        if (want % 2) rgb[k] = on_white(rgb[k], a);
    }
    if (want < 3) to[0] = (uint8_t)((299 * rgb[0] + 587 * rgb[1] + 114 * rgb[2] + 500) / 1000);
    else
        for (int k = 0; k < 3; k++) to[k] = (uint8_t)rgb[k];
    if (want % 2 == 0) to[want - 1] = (uint8_t)a;
}

static void set_channels(nsm_ctx *ctx, nsm_picture *p, int want)
{
    int have = (int)p->channels;
    int64_t pixels = p->height * p->width;
    if (have == want) return;
    uint8_t *to = nsmi_malloc(ctx, (size_t)(pixels * want));
    for (int64_t i = 0; to && i < pixels; i++)
        convert(p->pixel + i * have, have, to + i * want, want);
    free(p->pixel);
    p->pixel = to;
    p->channels = want;
}

/* ---- size ---- */

/* The part of pixel i's span [i in, (i + 1) in) that source pixel k covers, in units of 1 / out. */
static uint64_t overlap(int64_t i, int64_t k, int64_t in, int64_t out)
{
    int64_t low = i * in > k * out ? i * in : k * out,
            high = (i + 1) * in < (k + 1) * out ? (i + 1) * in : (k + 1) * out;
    return (uint64_t)(high - low);
}

/* Colours weigh as much as they cover, so that what is transparent gives none away. */
static void mean_of(const nsm_picture *p, int64_t i, int64_t j, int64_t height, int64_t width,
                    uint8_t *to)
{
    int c = (int)p->channels, alpha = c % 2 == 0 ? c - 1 : -1;
    uint64_t sum[4] = { 0 }, all = 0, seen = 0;
    for (int64_t y = i * p->height / height; y * height < (i + 1) * p->height; y++)
        for (int64_t x = j * p->width / width; x * width < (j + 1) * p->width; x++) {
            const uint8_t *from = p->pixel + (y * p->width + x) * c;
            uint64_t w = overlap(i, y, p->height, height) * overlap(j, x, p->width, width),
                     a = alpha < 0 ? 1 : from[alpha];
            for (int k = 0; k < c; k++) sum[k] += k == alpha ? w * from[k] : w * a * from[k];
            all += w;
            seen += w * a;
        }
    for (int k = 0; k < c; k++) {
        uint64_t by = k == alpha ? all : seen;
        to[k] = (uint8_t)(by ? (sum[k] + by / 2) / by : 0);
    }
}

static void set_size(nsm_ctx *ctx, const char *name, nsm_picture *p, int64_t height, int64_t width)
{
    nsm_picture small;
    nsmi_picture_source any = { .ctx = ctx, .name = name, .most = INT32_MAX };
    if ((height == p->height && width == p->width) ||
        !nsmi_picture_room(&any, height, width, p->channels, &small))
        return;
#pragma omp parallel for schedule(static) num_threads(ctx->dev.threads)
    for (int64_t i = 0; i < height; i++)
        for (int64_t j = 0; j < width; j++)
            mean_of(p, i, j, height, width, small.pixel + (i * width + j) * p->channels);
    free(p->pixel);
    *p = small;
}

int nsmi_picture_fit(nsm_ctx *ctx, const char *name, const nsm_picture_options *o, nsm_picture *p)
{
    if (!nsmi_failed(ctx))
        set_size(ctx, name, p, o->height ? o->height : p->height, o->width ? o->width : p->width);
    if (!nsmi_failed(ctx))
        set_channels(ctx, p, o->channels ? o->channels : p->channels < 3 ? 1 : 3);
    if (nsmi_failed(ctx)) nsm_picture_clear(p);
    return nsm_error(ctx);
}

/* ---- reading ---- */

int nsm_picture_decode(nsm_ctx *ctx, const char *name, const void *bytes, size_t count,
                       const nsm_picture_options *options, nsm_picture *p)
{
    static const nsm_picture_options none = { 0 };
    const nsm_picture_options *o = options ? options : &none;
    nsmi_picture_source s = { ctx, name, bytes, count,
                              o->most_pixels ? o->most_pixels : MOST_PIXELS };
    *p = (nsm_picture){ 0 };
    if (nsmi_failed(ctx)) return ctx ? nsm_error(ctx) : NSM_EINVAL;
    if (o->height < 0 || o->width < 0 || o->channels < 0 || o->channels > 4 || s.most < 0)
        return nsm_error_set(ctx, NSM_EINVAL, "%s: %lld x %lld pixels of %d channels are wanted",
                             name, (long long)o->height, (long long)o->width, o->channels);
    if (count >= 8 && !memcmp(bytes, "\x89PNG\r\n\x1a\n", 8)) nsmi_png_decode(&s, p);
    else if (count >= 3 && !memcmp(bytes, "\xff\xd8\xff", 3)) nsmi_jpeg_decode(&s, p);
    else
        nsm_error_set(ctx, NSM_EFORMAT, "%s: %lld bytes, neither PNG nor JPEG", name,
                      (long long)count);
    return nsmi_picture_fit(ctx, name, o, p);
}

int nsm_picture_read(nsm_ctx *ctx, const char *path, const nsm_picture_options *options,
                     nsm_picture *p)
{
    FILE *f;
    long bytes = -1;
    *p = (nsm_picture){ 0 };
    if (nsmi_failed(ctx)) return ctx ? nsm_error(ctx) : NSM_EINVAL;
    f = fopen(path, "rb");
    if (f && fseek(f, 0, SEEK_END) == 0) bytes = ftell(f);
    if (bytes < 0 || bytes > MOST_BYTES || fseek(f, 0, SEEK_SET) != 0) {
        nsm_error_set(ctx, NSM_EIO, "%s cannot be read, or is larger than %d bytes", path,
                      MOST_BYTES);
        if (f) fclose(f);
        return nsm_error(ctx);
    }
    void *all = nsmi_malloc(ctx, (size_t)bytes + 1);
    if (all && fread(all, 1, (size_t)bytes, f) != (size_t)bytes)
        nsm_error_set(ctx, NSM_EIO, "%s cannot be read", path);
    fclose(f);
    if (all) nsm_picture_decode(ctx, path, all, (size_t)bytes, options, p);
    free(all);
    return nsm_error(ctx);
}

int nsm_picture_write(nsm_ctx *ctx, const char *path, const nsm_picture *p)
{
    size_t count = 0;
    void *bytes = nsmi_failed(ctx) ? NULL : nsmi_png_encode(ctx, p, &count);
    nsmi_draft *d = bytes ? nsmi_draft_new(ctx, path) : NULL;
    if (d) {
        FILE *f = fopen(nsmi_draft_temporary(d), "wb");
        bool bad = !f || fwrite(bytes, 1, count, f) != count;
        if ((f && fclose(f)) || bad) nsm_error_set(ctx, NSM_EIO, "%s could not be written", path);
        nsmi_draft_commit(ctx, d, NULL);
    }
    free(bytes);
    return nsm_error(ctx);
}
