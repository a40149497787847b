/* datasets/picture_jpeg.c - JPEG by libjpeg(-turbo).
 *
 * The library reports by functions of ours: an error jumps back into read_all(), which owns nothing
 * that is not in `reader`.  What it only warns of (data that end early, a code that does not exist)
 * leaves a picture with a part missing: an error here. */
#include "config.h"
#include "datasets/picture_parts.h"

#if defined(HAVE_JPEG)
#include <setjmp.h>
#include <jpeglib.h>
#include <jerror.h>

enum { MOST_SCANS = 200 }; /* of a progressive file: each costs a pass over all of it */

typedef struct {
    struct jpeg_error_mgr errors; /* first: the library hands it back */
    struct jpeg_progress_mgr progress;
    struct jpeg_decompress_struct d;
    jmp_buf back;
    const nsmi_picture_source *s;
    nsm_picture *p;
    uint8_t *row; /* of CMYK */
} reader;

static void give_up(j_common_ptr d)
{
    reader *r = (reader *)d->err;
    char text[JMSG_LENGTH_MAX];
    d->err->format_message(d, text);
    if (!nsmi_failed(r->s->ctx))
        nsm_error_set(r->s->ctx, NSM_EFORMAT, "%s: not a whole JPEG file: %s", r->s->name, text);
    longjmp(r->back, 1);
}

static void warn(j_common_ptr d, int level)
{
    int code = d->err->msg_code;
    if (level < 0 && code != JWRN_EXTRANEOUS_DATA && code != JWRN_ADOBE_XFORM &&
        code != JWRN_JFIF_MAJOR)
        give_up(d);
}

static void count_scans(j_common_ptr d)
{
    reader *r = (reader *)d->err;
    if (r->d.input_scan_number <= MOST_SCANS) return;
    nsm_error_set(r->s->ctx, NSM_EFORMAT, "%s: a JPEG file of more than %d scans", r->s->name,
                  MOST_SCANS);
    longjmp(r->back, 1);
}

/* Adobe's CMYK is stored as what is left of each light. */
static void row_from_cmyk(const reader *r, uint8_t *to)
{
    for (JDIMENSION j = 0; j < r->d.output_width; j++)
        for (int k = 0; k < 3; k++) {
            int c = r->row[4 * j + (JDIMENSION)k], black = r->row[4 * j + 3];
            if (!r->d.saw_Adobe_marker) c = 255 - c, black = 255 - black;
            to[3 * j + (JDIMENSION)k] = (uint8_t)((c * black + 127) / 255);
        }
}

static void read_rows(reader *r)
{
    struct jpeg_decompress_struct *d = &r->d;
    bool grey = d->jpeg_color_space == JCS_GRAYSCALE, four = d->num_components == 4;
    d->out_color_space = grey ? JCS_GRAYSCALE : four ? JCS_CMYK : JCS_RGB;
    d->dct_method = JDCT_ISLOW; /* the same on every machine */
    if (!nsmi_picture_room(r->s, d->image_height, d->image_width, grey ? 1 : 3, r->p)) return;
    if (four) r->row = nsmi_malloc(r->s->ctx, (size_t)d->image_width * 4);
    if (four && !r->row) return;
    jpeg_start_decompress(d);
    while (d->output_scanline < d->output_height) {
        uint8_t *to = r->p->pixel + (int64_t)d->output_scanline * r->p->width * r->p->channels;
        JSAMPROW row = four ? r->row : to;
        jpeg_read_scanlines(d, &row, 1);
        if (four) row_from_cmyk(r, to);
    }
    jpeg_finish_decompress(d);
}

static void read_all(reader *r)
{
    if (setjmp(r->back)) return;
    jpeg_create_decompress(&r->d);
    r->d.progress = &r->progress;
    jpeg_mem_src(&r->d, r->s->bytes, r->s->count);
    jpeg_read_header(&r->d, TRUE);
    read_rows(r);
}

void nsmi_jpeg_decode(const nsmi_picture_source *s, nsm_picture *p)
{
    reader *r = nsmi_calloc(s->ctx, 1, sizeof *r);
    if (!r) return;
    r->s = s;
    r->p = p;
    r->d.err = jpeg_std_error(&r->errors);
    r->errors.error_exit = give_up;
    r->errors.emit_message = warn;
    r->progress.progress_monitor = count_scans;
    read_all(r);
    jpeg_destroy_decompress(&r->d);
    free(r->row);
    free(r);
}

#else

void nsmi_jpeg_decode(const nsmi_picture_source *s, nsm_picture *p)
{
    (void)p;
    nsm_error_set(s->ctx, NSM_EINVAL,
                  "%s is JPEG, which needs libjpeg; this nsm was built without it", s->name);
}

#endif
