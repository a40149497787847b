/* datasets/picture.h - Pictures in files: PNG and JPEG in, PNG out.
 *
 * A picture is 8-bit pixels.  Palettes, grey of fewer bits and 16 bits become 8-bit samples,
 * interlaced and progressive files are read whole, CMYK becomes RGB; what a file says of turning
 * the picture (Exif) is not looked at.  Equal files give equal pixels on every machine. */
#ifndef NSM_PICTURE_H
#define NSM_PICTURE_H
#include "base/context.h"
#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    int64_t height, width,
        channels;   /* channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha */
    uint8_t *pixel; /* [height, width, channels] */
} nsm_picture;

/* Start from zero, set what you need: a field left 0 takes the value in ( ). */
typedef struct {
    int64_t height, width; /* wanted: each pixel the mean of the area it covers (as in the file) */
    int channels;          /* wanted, 1..4 (1 or 3, as in the file) */
    int64_t most_pixels;   /* height x width of a file that is read (2^26) */
} nsm_picture_options;

/* Read a file, or bytes that messages call name.  Without wanted alpha the picture is composed on
 * white.  options may be NULL.  The caller clears what is in *p; on an error it is empty.
 * Errors: NSM_EIO; NSM_EFORMAT damaged, cut off, empty, too large, neither PNG nor JPEG;
 * NSM_EINVAL built without the library for it; NSM_ENOMEM. */
int nsm_picture_read(nsm_ctx *ctx, const char *path, const nsm_picture_options *options,
                     nsm_picture *p);
int nsm_picture_decode(nsm_ctx *ctx, const char *name, const void *bytes, size_t count,
                       const nsm_picture_options *options, nsm_picture *p);
void nsm_picture_clear(nsm_picture *p);

/* Write as PNG, to a temporary file that then takes path's name. */
int nsm_picture_write(nsm_ctx *ctx, const char *path, const nsm_picture *p);

#ifdef __cplusplus
}
#endif
#endif
