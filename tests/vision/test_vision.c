/* tests/vision/test_vision.c - The image encoders: elements and their places, against plain loops;
 * norms learn and are used; any number of threads gives the same bits; every allocation fails in
 * turn; one clear error for wrong input. */
#include "config.h"
#include "base/ops.h"
#include "tests/test.h"
#include "vision/image.h"
#include "vision/patch.h"

enum { B = 2, C = 3, H = 9, WIDE = 12, PIXELS = B * C * H * WIDE };
static float pixels[PIXELS];

static nsm_tensor *images(nsm_tape *t)
{
    test_random(7, PIXELS, pixels);
    return nsm_tape_tensor(t, NSM_F32, 4, (int64_t[]){ B, C, H, WIDE }, pixels);
}

static nsm_image_config small(nsm_image_norm norm, nsm_place place, int features)
{
    return (nsm_image_config){ .channels = C,
                               .height = H,
                               .width = WIDE,
                               .layers = 2,
                               .filters = { 4, 8 },
                               .norm = norm,
                               .place = place,
                               .features = features };
}

/* each element is the linear map of its pixels; then its place */
START_TEST(patches)
{
    enum { P = 3, Q = 4, D = 5, N = (H / P) * (WIDE / Q) };
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    nsm_patch *patch = nsm_patch_new(
        ctx, &(nsm_patch_config){
                 .channels = C, .height = H, .width = WIDE, .patch = { P, Q }, .features = D });
    nsm_tape *t = nsm_tape_new(ctx);
    static float y[B * N * (D + 2)];
    nsm_init_uniform(nsm_module_find(nsm_patch_module(patch), "projection.bias"), -1, 1);
    float *w = test_weights(nsm_patch_module(patch), "projection.weight"),
          *b = test_weights(nsm_patch_module(patch), "projection.bias");
    nsm_tensor *e = nsm_patch_apply(t, patch, images(t));
    ck_ok(ctx);
    ck_assert(e->rank == 3 && e->dim[0] == B && e->dim[1] == N && e->dim[2] == D + 2);
    ck_assert(nsm_patch_elements(patch) == N && nsm_patch_features(patch) == D + 2);
    nsm_tensor_get(e, y);
    for (int i = 0; i < B * N * D; i++) {
        int d = i % D, at = i / D % N, row = at / (WIDE / Q), col = at % (WIDE / Q);
        double sum = (double)b[d];
        for (int k = 0; k < C * P * Q; k++)
            sum += (double)w[d * C * P * Q + k] *
                   (double)pixels[((i / D / N * C + k / P / Q) * H + row * P + k / Q % P) * WIDE +
                                  col * Q + k % Q];
        ck_assert_double_eq_tol(sum, (double)y[i / D * (D + 2) + d], 1e-5);
        ck_assert_float_eq_tol(y[i / D * (D + 2) + D], (float)(col - 1), 1e-6f); /* of 3 columns */
        ck_assert_float_eq_tol(y[i / D * (D + 2) + D + 1], (float)(row - 1), 1e-6f);
    }
    free(w);
    free(b);
    nsm_tape_free(t);
    nsm_patch_free(patch);
    nsm_ctx_free(ctx);
}
END_TEST

/* the class token goes first, the same for all images; learned places are added */
START_TEST(class_token)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    nsm_patch *patch = nsm_patch_new(ctx, &(nsm_patch_config){ .channels = C,
                                                               .height = H,
                                                               .width = WIDE,
                                                               .patch = { 3, 3 },
                                                               .features = 4,
                                                               .class_token = true,
                                                               .place = NSM_PLACE_LEARNED });
    nsm_tape *t = nsm_tape_new(ctx);
    static float y[B * 13 * 4];
    nsm_tensor *e = nsm_patch_apply(t, patch, images(t));
    float *token = test_weights(nsm_patch_module(patch), "cls_token"),
          *place = test_weights(nsm_patch_module(patch), "position_embeddings");
    ck_ok(ctx);
    ck_assert_int_eq(nsm_patch_elements(patch), 13);
    ck_assert_int_eq(e->dim[1], 13);
    nsm_tensor_get(e, y);
    for (int b = 0; b < B; b++)
        for (int d = 0; d < 4; d++)
            ck_assert_float_eq_tol(y[b * 13 * 4 + d], token[d] + place[d], 1e-6f);
    nsm_tape_backward(t, nsm_sum(t, nsm_square(t, e), NSM_ALL, false));
    ck_ok(ctx);
    ck_assert(nsm_module_find(nsm_patch_module(patch), "cls_token")->grad != NULL);
    free(token);
    free(place);
    nsm_tape_free(t);
    nsm_patch_free(patch);
    nsm_ctx_free(ctx);
}
END_TEST

static int count_grads(void *user, const char *name, nsm_tensor *t, bool buffer)
{
    ck_assert_msg(buffer || t->grad, "%s has no gradient", name);
    *(int *)user += !buffer;
    return 0;
}

/* every norm and kind of place: sizes, and a gradient for each parameter */
START_TEST(stems)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    for (int norm = 0; norm <= NSM_IMAGE_NO_NORM; norm++)
        for (int place = 0; place < NSM_PLACES; place++) {
            nsm_image_config c = small((nsm_image_norm)norm, (nsm_place)place, place ? 7 : 0);
            nsm_image *image = nsm_image_new(ctx, &c);
            nsm_tape *t = nsm_tape_new(ctx);
            nsm_tensor *e = nsm_image_apply(t, image, images(t));
            int64_t h, w;
            int grads = 0;
            ck_ok(ctx);
            nsm_image_grid(image, &h, &w);
            ck_assert(h == 3 && w == 3 && e->dim[0] == B && e->dim[1] == 9);
            ck_assert_int_eq(e->dim[2], place ? 7 : 10);
            ck_assert_int_eq(nsm_image_features(image), e->dim[2]);
            nsm_tape_backward(t, nsm_sum(t, nsm_square(t, e), NSM_ALL, false));
            ck_ok(ctx);
            nsm_module_walk(nsm_image_module(image), count_grads, &grads);
            ck_assert_int_eq(grads, (norm == NSM_IMAGE_NO_NORM ? 4 : 6) + (place ? 2 : 0) +
                                        (place == NSM_PLACE_LEARNED));
            nsm_tape_free(t);
            nsm_image_free(image);
        }
    nsm_ctx_free(ctx);
}
END_TEST

/* y of the default stem, two layers by hand from the same weights */
START_TEST(composition)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    nsm_image_config c = small(NSM_IMAGE_BATCH_NORM, NSM_PLACE_NONE, 0);
    nsm_image *image = nsm_image_new(ctx, &c);
    nsm_module *m = nsm_image_module(image);
    nsm_tape *t = nsm_tape_new(ctx);
    static float have[B * 9 * 8], want[B * 9 * 8], mean[8];
    nsm_tensor_get(nsm_image_apply(t, image, images(t)), have);
    nsm_tensor_get(nsm_module_find(m, "norm1.running_mean"), mean);
    ck_assert(fabsf(mean[0]) > 0);
    nsm_tensor *x = images(t);
    for (int k = 0; k < 2; k++) {
        x = nsm_conv2d(t, x, nsm_module_find(m, k ? "conv1.weight" : "conv0.weight"), NULL,
                       &(nsm_conv2d_config){ .stride = { 2, 2 }, .padding = { 1, 1 } });
        x = nsm_relu(t, nsm_batch_norm(t, x, NULL, NULL, &(nsm_batch_stats){ .eps = 1e-5f }));
    }
    nsm_tensor_get(nsm_permute(t, x, (const int[]){ 0, 2, 3, 1 }), want);
    ck_ok(ctx);
    ck_assert(test_difference(have, want, B * 9 * 8, 1e-6) < 1e-5);
    nsm_tape_inference(t, true); /* running statistics now */
    nsm_tensor_get(nsm_image_apply(t, image, images(t)), have);
    ck_ok(ctx);
    ck_assert(test_difference(have, want, B * 9 * 8, 1e-6) > 1e-2);
    nsm_tape_free(t);
    nsm_image_free(image);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(threads)
{
    static float y[2][B * 9 * 10];
    for (int k = 0; k < 2; k++) {
        nsm_ctx *ctx = nsm_ctx_new(&(nsm_ctx_config){ .threads = 1 + 2 * k, .seed = 5 });
        nsm_image_config c = small(NSM_IMAGE_LAYER_NORM, NSM_PLACE_APPENDED, 0);
        nsm_image *image = nsm_image_new(ctx, &c);
        nsm_tape *t = nsm_tape_new(ctx);
        nsm_tensor_get(nsm_image_apply(t, image, images(t)), y[k]);
        ck_ok(ctx);
        nsm_tape_free(t);
        nsm_image_free(image);
        nsm_ctx_free(ctx);
    }
    ck_assert(!memcmp(y[0], y[1], sizeof y[0]));
}
END_TEST

START_TEST(errors)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    nsm_image_config c = small(NSM_IMAGE_GROUP_NORM, NSM_PLACE_NONE, 0);
    c.groups = 3;
    ck_assert(!nsm_image_new(ctx, &c));
    ck_error(ctx, NSM_EINVAL);
    c = small(NSM_IMAGE_NO_NORM, NSM_PLACE_NONE, 0);
    c.kernel = 2;
    ck_assert(!nsm_image_new(ctx, &c));
    ck_error(ctx, NSM_EINVAL);
    c.kernel = 3;
    nsm_image *image = nsm_image_new(ctx, &c);
    nsm_tape *t = nsm_tape_new(ctx);
    ck_assert(!nsm_image_apply(t, image, NULL));
    ck_ok(ctx);
    ck_assert(
        !nsm_image_apply(t, image,
                         nsm_tape_tensor(t, NSM_F32, 4, (int64_t[]){ B, C, WIDE, H }, pixels)));
    ck_error(ctx, NSM_ESHAPE);
    ck_assert(!nsm_patch_new(
        ctx, &(nsm_patch_config){
                 .channels = C, .height = H, .width = WIDE, .patch = { 4, 4 }, .features = 4 }));
    ck_error(ctx, NSM_EINVAL);
    ck_assert(!nsm_conv2d(t, images(t), nsm_permute(t, images(t), (const int[]){ 0, 3, 1, 2 }),
                          NULL, NULL));
    ck_error(ctx, NSM_ESHAPE);
    ck_assert(!nsm_max_pool2d(t, images(t),
                              &(nsm_pool2d_config){ .kernel = { 2, 2 }, .padding = { 2, 0 } }));
    ck_error(ctx, NSM_ESHAPE);
    ck_assert(!nsm_pad2d(t, images(t), (const int[]){ 12, 0, 0, 0 }, NSM_PAD_REFLECT, 0));
    ck_error(ctx, NSM_ESHAPE);
    nsm_tape_free(t);
    nsm_image_free(image);
    nsm_ctx_free(ctx);
}
END_TEST

static void run(nsm_ctx *ctx)
{
    nsm_image_config c = small(NSM_IMAGE_BATCH_NORM, NSM_PLACE_APPENDED, 5);
    nsm_image *image = nsm_image_new(ctx, &c);
    nsm_patch *patch = nsm_patch_new(ctx, &(nsm_patch_config){ .channels = C,
                                                               .height = H,
                                                               .width = WIDE,
                                                               .patch = { 3, 3 },
                                                               .features = 5,
                                                               .class_token = true,
                                                               .place = NSM_PLACE_LEARNED });
    nsm_tape *t = nsm_tape_new(ctx);
    nsm_tensor *e[2] = { nsm_image_apply(t, image, images(t)),
                         nsm_patch_apply(t, patch, images(t)) };
    nsm_tape_backward(t, nsm_mean(t, nsm_concat(t, e, 2, 1), NSM_ALL, false));
    nsm_tape_free(t);
    nsm_patch_free(patch);
    nsm_image_free(image);
}

START_TEST(memory)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    ck_assert_int_gt(test_brutal(run, ctx), 20);
    nsm_ctx_free(ctx);
}
END_TEST

int main(void)
{
    return test_main("vision", (const TTest *const[]){ patches, class_token, stems, composition,
                                                       threads, errors, memory, NULL });
}
