/* tests/datasets/sample_picture.h - Small PNG and JPEG files of every kind, for tests. */
#ifndef NSM_TEST_SAMPLE_PICTURE_H
#define NSM_TEST_SAMPLE_PICTURE_H
#include <stddef.h>

enum {
    SAMPLE_HEIGHT = 19,
    SAMPLE_WIDTH = 21,
    SAMPLE_PIXELS = SAMPLE_HEIGHT * SAMPLE_WIDTH,
    SAMPLE_PNGS = 14, /* grey of 1, 8, 16 bits, with alpha; palette; RGB of 8, 16 bits, with alpha:
                         each plain, then interlaced */
    SAMPLE_JPEGS = 5  /* grey, grey progressive, colour, colour progressive, CMYK */
};
extern const int sample_png_channels[SAMPLE_PNGS];

/* A file in memory, to be freed; what a reader must make of it (JPEG: nearly). */
unsigned char *sample_png(int kind, size_t *count);
void sample_png_pixels(int kind, unsigned char *pixel);
unsigned char *sample_jpeg(int kind, size_t *count);
void sample_jpeg_pixels(int kind, unsigned char *pixel);

#endif
