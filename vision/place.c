/* vision/place.c - Grids as elements, and where these stand. */
#include "config.h"
#include "vision/internal.h"

nsm_tensor *nsmi_elements(nsm_tape *tape, nsm_tensor *y)
{
    if (!y) return NULL;
    nsm_tensor *grid = nsm_permute(tape, y, (const int[]){ 0, 2, 3, 1 }); /* [B, h, w, D] */
    return nsm_reshape(tape, grid, 3,
                       (const int64_t[]){ y->dim[0], y->dim[2] * y->dim[3], y->dim[1] });
}

/* -1 .. 1 */
static float place_of(int64_t i, int64_t n)
{
    return n > 1 ? (float)(2 * i) / (float)(n - 1) - 1 : 0;
}

nsm_tensor *nsmi_append_places(nsm_tape *tape, nsm_tensor *x, int64_t height, int64_t width)
{
    if (!x) return NULL;
    int64_t n = height * width, dim[3] = { x->dim[0], n, 2 };
    float *host = nsmi_malloc(x->ctx, (size_t)(x->dim[0] * n * 2) * sizeof *host);
    for (int64_t i = 0; host && i < x->dim[0] * n; i++) {
        host[2 * i] = place_of(i % width, width);
        host[2 * i + 1] = place_of(i % n / width, height);
    }
    nsm_tensor *place = host ? nsm_tape_tensor(tape, NSM_F32, 3, dim, host) : NULL;
    free(host);
    return place ? nsm_concat(tape, (nsm_tensor *[]){ x, place }, 2, 2) : NULL;
}

bool nsmi_want_images(const char *who, const nsm_tensor *x, int64_t channels, int64_t height,
                      int64_t width)
{
    if (x->type == NSM_F32 && x->rank == 4 && x->dim[0] > 0 && x->dim[1] == channels &&
        x->dim[2] == height && x->dim[3] == width)
        return true;
    nsm_error_set(x->ctx, NSM_ESHAPE,
                  "%s: x is of %s, rank %d, [%lld,%lld,%lld,%lld]; want float32 [B,%lld,%lld,%lld]",
                  who, nsm_type_name(x->type), x->rank, (long long)x->dim[0], (long long)x->dim[1],
                  (long long)x->dim[2], (long long)x->dim[3], (long long)channels,
                  (long long)height, (long long)width);
    return false;
}
