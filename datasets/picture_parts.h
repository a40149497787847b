/* datasets/picture_parts.h - What reads one format of pictures.  Not installed. */
#ifndef NSM_PICTURE_PARTS_H
#define NSM_PICTURE_PARTS_H
#include "base/internal.h"
#include "datasets/picture.h"

/* A file in memory, and how large the picture in it may be. */
typedef struct {
    nsm_ctx *ctx;
    const char *name;
    const void *bytes;
    size_t count;
    int64_t most;
} nsmi_picture_source;

/* Room for the picture of this size, or false and the error. */
bool nsmi_picture_room(const nsmi_picture_source *s, int64_t height, int64_t width,
                       int64_t channels, nsm_picture *p);
/* Bring a picture, which messages call name, to the size and channels that are wanted. */
int nsmi_picture_fit(nsm_ctx *ctx, const char *name, const nsm_picture_options *o, nsm_picture *p);
/* The file's own channels. */
void nsmi_png_decode(const nsmi_picture_source *s, nsm_picture *p);
void nsmi_jpeg_decode(const nsmi_picture_source *s, nsm_picture *p);
/* malloc()ed bytes, or NULL and the error. */
void *nsmi_png_encode(nsm_ctx *ctx, const nsm_picture *p, size_t *count);

#endif
