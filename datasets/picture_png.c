/* datasets/picture_png.c - PNG by libpng.
 *
 * Reading goes by rows: the simplified interface of libpng before 1.6.51 writes beyond its rows
 * where an interlaced file has 16 bits.  The library reports by functions of ours: an error jumps
 * back into read_all(), which owns nothing that is not in `reader`.  Samples are taken as they
 * stand, whatever the file says of gamma. */
#include "config.h"
#include "datasets/picture_parts.h"

#if defined(HAVE_PNG)
#include <setjmp.h>
#include <png.h>

typedef struct {
    png_structp png;
    png_infop info;
    jmp_buf back;
    const nsmi_picture_source *s;
    size_t next; /* byte of the source */
    nsm_picture *p;
    png_bytep *row;
} reader;

static void give_up(png_structp png, png_const_charp what)
{
    reader *r = png_get_error_ptr(png);
    if (!nsmi_failed(r->s->ctx))
        nsm_error_set(r->s->ctx, NSM_EFORMAT, "%s: not a whole PNG file: %s", r->s->name, what);
    longjmp(r->back, 1);
}

static void warn(png_structp png, png_const_charp what)
{
    (void)png;
    (void)what;
}

static void next_bytes(png_structp png, png_bytep to, size_t count)
{
    reader *r = png_get_io_ptr(png);
    if (count > r->s->count - r->next) png_error(png, "it ends early");
    memcpy(to, (const char *)r->s->bytes + r->next, count);
    r->next += count;
}

/* The size is looked at before memory is asked for; then 8 bits, no palette, all passes. */
static void read_rows(reader *r)
{
    png_read_info(r->png, r->info);
    png_uint_32 height = png_get_image_height(r->png, r->info),
                width = png_get_image_width(r->png, r->info);
    png_set_expand(r->png);
    png_set_scale_16(r->png);
    png_set_interlace_handling(r->png);
    png_read_update_info(r->png, r->info);
    if (!nsmi_picture_room(r->s, height, width, png_get_channels(r->png, r->info), r->p)) return;
    size_t bytes = (size_t)(r->p->width * r->p->channels);
    if (png_get_rowbytes(r->png, r->info) != bytes) png_error(r->png, "rows of another size");
    r->row = nsmi_malloc(r->s->ctx, height * sizeof *r->row);
    if (!r->row) return;
    for (png_uint_32 i = 0; i < height; i++) r->row[i] = r->p->pixel + i * bytes;
    png_read_image(r->png, r->row);
    png_read_end(r->png, NULL);
}

static void read_all(reader *r)
{
    if (setjmp(r->back)) return;
    r->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, r, give_up, warn);
    r->info = r->png ? png_create_info_struct(r->png) : NULL;
    if (!r->info) {
        nsm_error_set(r->s->ctx, NSM_ENOMEM, "%s: out of memory for libpng", r->s->name);
        return;
    }
    png_set_read_fn(r->png, r, next_bytes);
    read_rows(r);
}

void nsmi_png_decode(const nsmi_picture_source *s, nsm_picture *p)
{
    reader *r = nsmi_calloc(s->ctx, 1, sizeof *r);
    if (!r) return;
    r->s = s;
    r->p = p;
    read_all(r);
    png_destroy_read_struct(&r->png, &r->info, NULL);
    free(r->row);
    free(r);
}

void *nsmi_png_encode(nsm_ctx *ctx, const nsm_picture *p, size_t *count)
{
    static const png_uint_32 format[] = { PNG_FORMAT_GRAY, PNG_FORMAT_GA, PNG_FORMAT_RGB,
                                          PNG_FORMAT_RGBA };
    png_image image = { .version = PNG_IMAGE_VERSION };
    png_alloc_size_t bytes = 0;
    void *to = NULL;
    if (p->channels < 1 || p->channels > 4 || p->height < 1 || p->width < 1 ||
        p->height > INT32_MAX / 4 / p->width) {
        nsm_error_set(ctx, NSM_EINVAL, "nsm_picture_write: %lld x %lld pixels of %lld channels",
                      (long long)p->height, (long long)p->width, (long long)p->channels);
        return NULL;
    }
    image.height = (png_uint_32)p->height;
    image.width = (png_uint_32)p->width;
    image.format = format[p->channels - 1];
    if (png_image_write_to_memory(&image, NULL, &bytes, 0, p->pixel, 0, NULL))
        to = nsmi_malloc(ctx, bytes);
    if (to && png_image_write_to_memory(&image, to, &bytes, 0, p->pixel, 0, NULL)) *count = bytes;
    if (PNG_IMAGE_FAILED(image)) {
        nsm_error_set(ctx, NSM_EIO, "nsm_picture_write: %s", image.message);
        free(to);
        to = NULL;
    }
    png_image_free(&image);
    return to;
}

#else

void nsmi_png_decode(const nsmi_picture_source *s, nsm_picture *p)
{
    (void)p;
    nsm_error_set(s->ctx, NSM_EINVAL,
                  "%s is PNG, which needs libpng; this nsm was built without it", s->name);
}

void *nsmi_png_encode(nsm_ctx *ctx, const nsm_picture *p, size_t *count)
{
    (void)p;
    (void)count;
    nsm_error_set(ctx, NSM_EINVAL, "writing PNG needs libpng; this nsm was built without it");
    return NULL;
}

#endif
