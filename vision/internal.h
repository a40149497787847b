/* vision/internal.h - What the image encoders share.  Not installed. */
#ifndef NSM_VISION_INTERNAL_H
#define NSM_VISION_INTERNAL_H
#include "base/internal.h"
#include "base/ops.h"
#include "vision/place.h"

/* y [B, D, h, w] as elements [B, h w, D], row after row. */
nsm_tensor *nsmi_elements(nsm_tape *tape, nsm_tensor *y);
/* x [B, h w, D] with two more features: x and y. */
nsm_tensor *nsmi_append_places(nsm_tape *tape, nsm_tensor *x, int64_t height, int64_t width);
/* Is x [B, channels, height, width] of float32, B above 0?  Leaves the error. */
bool nsmi_want_images(const char *who, const nsm_tensor *x, int64_t channels, int64_t height,
                      int64_t width);

#endif
