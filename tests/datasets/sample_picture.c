/* tests/datasets/sample_picture.c - See sample_picture.h.  Pixels are smooth slopes, so that JPEG
 * keeps them. */
#include "config.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/datasets/sample_picture.h"

/* Sample k of pixel (i, j). */
static unsigned char slope(int i, int j, int k)
{
    return (unsigned char)(k == 3 ? 255 - 9 * i : 40 + (k + 3) * i + (7 - 2 * k) * j);
}

#if defined(HAVE_PNG)
#include <png.h>

static const struct {
    int type, depth, channels;
} pngs[] = {
    { PNG_COLOR_TYPE_GRAY, 1, 1 },       { PNG_COLOR_TYPE_GRAY, 8, 1 },
    { PNG_COLOR_TYPE_GRAY_ALPHA, 8, 2 }, { PNG_COLOR_TYPE_PALETTE, 8, 3 },
    { PNG_COLOR_TYPE_RGB, 8, 3 },        { PNG_COLOR_TYPE_RGB, 16, 3 },
    { PNG_COLOR_TYPE_RGB_ALPHA, 8, 4 },
};
const int sample_png_channels[SAMPLE_PNGS] = { 1, 1, 2, 3, 3, 3, 4, 1, 1, 2, 3, 3, 3, 4 };

static unsigned char sample_of(int kind, int i, int j, int k)
{
    int channels = pngs[kind % 7].channels;
    if (kind % 7 == 0) return (i + j) % 3 ? 255 : 0;
    if (kind % 7 == 3) return slope(i % 3, j % 2, k); /* 6 colours */
    return slope(i, j, channels == 2 && k == 1 ? 3 : k);
}

void sample_png_pixels(int kind, unsigned char *pixel)
{
    int channels = pngs[kind % 7].channels;
    for (int i = 0; i < SAMPLE_PIXELS * channels; i++)
        pixel[i] = sample_of(kind, i / channels / SAMPLE_WIDTH, i / channels % SAMPLE_WIDTH,
                             i % channels);
}

/* A row as the file has it. */
static void make_row(int kind, int i, unsigned char *row)
{
    int depth = pngs[kind % 7].depth, channels = pngs[kind % 7].channels;
    memset(row, 0, SAMPLE_WIDTH * 8);
    for (int j = 0; j < SAMPLE_WIDTH; j++)
        for (int k = 0; k < channels; k++) {
            unsigned char v = sample_of(kind, i, j, k);
            int at = j * channels + k;
            if (kind % 7 == 3) row[j] = (unsigned char)(i % 3 * 2 + j % 2);
            else if (depth == 1) row[j / 8] |= (unsigned char)((v ? 128 : 0) >> j % 8);
            else if (depth == 16) row[2 * at] = row[2 * at + 1] = v;
            else row[at] = v;
        }
}

static void set_palette(png_structp png, png_infop info)
{
    png_color palette[6];
    for (int c = 0; c < 6; c++)
        palette[c] = (png_color){ slope(c / 2, c % 2, 0), slope(c / 2, c % 2, 1),
                                  slope(c / 2, c % 2, 2) };
    png_set_PLTE(png, info, palette, 6);
}

unsigned char *sample_png(int kind, size_t *count)
{
    static unsigned char rows[SAMPLE_HEIGHT][SAMPLE_WIDTH * 8];
    png_bytep row[SAMPLE_HEIGHT];
    char *bytes = NULL;
    FILE *f = open_memstream(&bytes, count);
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    if (!f || !info || setjmp(png_jmpbuf(png))) abort();
    for (int i = 0; i < SAMPLE_HEIGHT; i++) {
        row[i] = rows[i];
        make_row(kind, i, row[i]);
    }
    png_init_io(png, f);
    png_set_IHDR(png, info, SAMPLE_WIDTH, SAMPLE_HEIGHT, pngs[kind % 7].depth, pngs[kind % 7].type,
                 kind < 7 ? PNG_INTERLACE_NONE : PNG_INTERLACE_ADAM7, 0, 0);
    if (kind % 7 == 3) set_palette(png, info);
    png_write_info(png, info);
    png_write_image(png, row);
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    fclose(f);
    return (unsigned char *)bytes;
}
#endif

#if defined(HAVE_JPEG)
#include <jpeglib.h>

static int jpeg_channels(int kind) { return kind < 2 ? 1 : kind < 4 ? 3 : 4; }

void sample_jpeg_pixels(int kind, unsigned char *pixel)
{
    int channels = kind < 2 ? 1 : 3;
    for (int i = 0; i < SAMPLE_PIXELS * channels; i++) {
        int p = i / channels, v = slope(p / SAMPLE_WIDTH, p % SAMPLE_WIDTH, i % channels);
        pixel[i] = (unsigned char)(kind == 4 ? v * 200 / 255 : v); /* black leaves 200 */
    }
}

unsigned char *sample_jpeg(int kind, size_t *count)
{
    struct jpeg_compress_struct c;
    struct jpeg_error_mgr errors;
    unsigned char *bytes = NULL, row[SAMPLE_WIDTH * 4];
    unsigned long size = 0;
    int channels = jpeg_channels(kind);
    c.err = jpeg_std_error(&errors); /* which exits: this is a test */
    jpeg_create_compress(&c);
    jpeg_mem_dest(&c, &bytes, &size);
    c.image_width = SAMPLE_WIDTH;
    c.image_height = SAMPLE_HEIGHT;
    c.input_components = channels;
    c.in_color_space = channels == 1 ? JCS_GRAYSCALE : channels == 3 ? JCS_RGB : JCS_CMYK;
    jpeg_set_defaults(&c);
    jpeg_set_quality(&c, 98, TRUE);
    if (kind == 1 || kind == 3) jpeg_simple_progression(&c);
    if (kind == 4) c.write_Adobe_marker = TRUE;
    jpeg_start_compress(&c, TRUE);
    for (int i = 0; i < SAMPLE_HEIGHT; i++) {
        JSAMPROW one = row;
        for (int j = 0; j < SAMPLE_WIDTH * channels; j++)
            row[j] = kind == 4 && j % 4 == 3 ? 200 : slope(i, j / channels, j % channels);
        jpeg_write_scanlines(&c, &one, 1);
    }
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    *count = size;
    return bytes;
}
#endif
