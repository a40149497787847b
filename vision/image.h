/* vision/image.h - Images as elements: a stem of convolutions gives a grid of embeddings.
 *
 * Each layer is y = act(norm(conv(x))), the convolution with padding kernel / 2; as in Santoro et
 * al., "A simple neural network module for relational reasoning", arXiv:1706.01427, where four
 * layers of 24 filters, stride 2, with batch norm and ReLU read images of 75 x 75, and the grid's
 * cells are told their places.
 *
 * Letters: B images of C channels, H x W; n = h w cells of the grid; F filters of the last layer; d
 * features of an element.
 * Parameters: conv0.weight [F0, C, k, k], conv1..; conv0.bias without a norm; norm0.weight,
 * norm0.bias [F0], and with batch norm the buffers norm0.running_mean, norm0.running_var;
 * proj.weight [d, F] (with appended places [d, F + 2]), proj.bias with `features`; place [n, d]
 * where it is learned.  Cost: O(B sum of h w k^2 F F'). */
#ifndef NSM_IMAGE_H
#define NSM_IMAGE_H
#include "base/module.h"
#include "base/ops.h"
#include "vision/place.h"
#ifdef __cplusplus
extern "C" {
#endif

enum { NSM_IMAGE_LAYERS = 8 };

typedef enum {
    NSM_IMAGE_BATCH_NORM, /* over images and places */
    NSM_IMAGE_LAYER_NORM, /* over the channels of a place */
    NSM_IMAGE_GROUP_NORM, /* over `groups` runs of channels and all places */
    NSM_IMAGE_NO_NORM
} nsm_image_norm;

/* Start from zero, set what you need: a field left 0 takes the value in ( ). */
typedef struct {
    int channels, height, width;   /* C, H, W: must be given */
    int layers;                    /* at most NSM_IMAGE_LAYERS (4) */
    int filters[NSM_IMAGE_LAYERS]; /* of each layer (24) */
    int stride[NSM_IMAGE_LAYERS];  /* (2) */
    int kernel;                    /* k, odd (3) */
    nsm_image_norm norm;           /* (batch norm) */
    int groups;                    /* of group norm (4) */
    nsm_act act;                   /* (ReLU) */
    nsm_place place;               /* (appended) */
    int features;                  /* d: a linear map to so many (none: d = F, or F + 2) */
    float momentum, eps;           /* of the norms (0.1) (1e-5) */
} nsm_image_config;

typedef struct nsm_image nsm_image;

/* Make one: He-normal convolutions drawn from ctx's generator.  Return it, or NULL.  The caller
 * frees it, before ctx.  Errors: NSM_EINVAL a size is out of range; NSM_ENOMEM. */
nsm_image *nsm_image_new(nsm_ctx *ctx, const nsm_image_config *config);
void nsm_image_free(nsm_image *image); /* NULL is allowed */
nsm_module *nsm_image_module(nsm_image *image);

/* The grid: rows, columns; d. */
void nsm_image_grid(const nsm_image *image, int64_t *height, int64_t *width);
int64_t nsm_image_features(const nsm_image *image);

/* x [B, C, H, W] -> [B, n, d], row after row of the grid; it belongs to the tape.
 * Errors: NSM_ESHAPE; NSM_ENOMEM. */
nsm_tensor *nsm_image_apply(nsm_tape *tape, nsm_image *image, nsm_tensor *x);

#ifdef __cplusplus
}
#endif
#endif
