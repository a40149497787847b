/* tests/oracle_images.c - Convolutions, pooling, padding and resampling of images, as their
 * fixtures' config says. */
#include "config.h"
#include "tests/oracle_parts.h"

/* A number or a pair of them. */
static void pair(fixture *f, const char *key, int fallback, int to[2])
{
    json_t *v = json_object_get(fixture_config(f), key);
    for (int a = 0; a < 2; a++) {
        json_t *one = json_is_array(v) ? json_array_get(v, (size_t)a) : v;
        to[a] = v ? (int)json_integer_value(one) : fallback;
        if (v && !json_is_integer(one)) fixture_fault(f, "%s is not one or two numbers", key);
    }
}

static nsm_pad_mode pad_mode(fixture *f, const char *name)
{
    static const char *const names[] = { "constant", "reflect", "replicate", "circular", "zeros" };
    for (int k = 0; name && k < 5; k++)
        if (!strcmp(name, names[k])) return (nsm_pad_mode)(k % 4);
    fixture_fault(f, "padding mode %s is not known", name ? name : "(none)");
    return NSM_PAD_CONSTANT;
}

static void done(fixture *f, nsm_tape *t, nsm_tensor *y)
{
    fixture_output(f, t, "y", y);
    fixture_grads(f, t, NULL);
    nsm_tape_free(t);
}

/* ---- convolutions ---- */

static void check_sizes(fixture *f, const nsm_tensor *w, bool transposed)
{
    int groups = size(f, "groups", 1), kernel[2];
    pair(f, "kernel_size", 1, kernel);
    if (!w) return;
    int64_t first = w->dim[0], second = w->dim[1] * groups, in = fixture_int(f, "in_channels", -1),
            out = fixture_int(f, "out_channels", -1);
    if (first != (transposed ? in : out) || second != (transposed ? out : in))
        fixture_fault(f, "channels are not those of the weight");
    for (int a = 2; a < w->rank; a++)
        if (w->dim[a] != kernel[a - 2]) fixture_fault(f, "kernel_size is not the weight's");
}

/* Padding that is not of zeros goes first. */
static nsm_tensor *padded(fixture *f, nsm_tape *t, nsm_tensor *x, nsm_conv2d_config *c)
{
    nsm_pad_mode mode = pad_mode(f, fixture_text(f, "padding_mode", "zeros"));
    if (mode == NSM_PAD_CONSTANT) return x;
    const int pad[4] = { c->padding[1], c->padding[1], c->padding[0], c->padding[0] };
    c->padding[0] = c->padding[1] = 0;
    return nsm_pad2d(t, x, pad, mode, 0);
}

static nsm_conv2d_config conv_config(fixture *f)
{
    nsm_conv2d_config c = { .groups = size(f, "groups", 1) };
    pair(f, "stride", 1, c.stride);
    pair(f, "dilation", 1, c.dilation);
    pair(f, "output_padding", 0, c.output_padding);
    return c;
}

static void run_conv2d(fixture *f)
{
    nsm_tape *t = nsm_tape_new(fixture_ctx(f));
    nsm_conv2d_config c = conv_config(f);
    nsm_tensor *w = fixture_weight(f, "weight");
    pair(f, "padding", 0, c.padding);
    check_sizes(f, w, false);
    nsm_tensor *x = padded(f, t, fixture_input(f, "x"), &c);
    done(f, t,
         nsm_conv2d(t, x, w, fixture_bool(f, "bias", true) ? fixture_weight(f, "bias") : NULL, &c));
}

static void run_conv_transpose2d(fixture *f)
{
    nsm_tape *t = nsm_tape_new(fixture_ctx(f));
    nsm_conv2d_config c = conv_config(f);
    nsm_tensor *w = fixture_weight(f, "weight");
    pair(f, "padding", 0, c.padding);
    check_sizes(f, w, true);
    done(f, t,
         nsm_conv_transpose2d(t, fixture_input(f, "x"), w,
                              fixture_bool(f, "bias", true) ? fixture_weight(f, "bias") : NULL,
                              &c));
}

/* [B, C, L] as images of one row, padded there. */
static nsm_tensor *pad_line(fixture *f, nsm_tape *t, nsm_tensor *x, int left, int right)
{
    const int pad[4] = { left, right, 0, 0 };
    const char *mode = fixture_text(f, "padding_mode", "zeros");
    if (!x || x->rank != 3) return NULL;
    x = nsm_reshape(t, x, 4, (const int64_t[]){ x->dim[0], x->dim[1], 1, x->dim[2] });
    x = nsm_pad2d(t, x, pad, pad_mode(f, mode), 0);
    return x ? nsm_reshape(t, x, 3, (const int64_t[]){ x->dim[0], x->dim[1], -1 }) : NULL;
}

static void run_conv1d(fixture *f)
{
    nsm_tape *t = nsm_tape_new(fixture_ctx(f));
    nsm_conv2d_config c = conv_config(f);
    nsm_tensor *x = fixture_input(f, "x"), *w = fixture_weight(f, "weight");
    bool causal = json_is_string(json_object_get(fixture_config(f), "padding"));
    int pad[2];
    check_sizes(f, w, false);
    if (causal) {
        want_text(f, "padding", "causal");
        pad[0] = (size(f, "kernel_size", 1) - 1) * c.dilation[0];
    } else {
        pair(f, "padding", 0, pad);
    }
    if (causal != fixture_bool(f, "causal", causal))
        fixture_fault(f, "causal is not the padding's");
    x = pad_line(f, t, x, pad[0], causal ? 0 : pad[0]);
    done(f, t,
         nsm_conv2d(t, x, w, fixture_bool(f, "bias", true) ? fixture_weight(f, "bias") : NULL, &c));
}

/* ---- pooling ---- */

static nsm_pool2d_config windows(fixture *f)
{
    nsm_pool2d_config c = { .ceil = fixture_bool(f, "ceil_mode", false),
                            .image_only = !fixture_bool(f, "count_include_pad", true) };
    json_t *override = json_object_get(fixture_config(f), "divisor_override");
    pair(f, "kernel_size", 1, c.kernel);
    pair(f, "stride", 0, c.stride);
    pair(f, "padding", 0, c.padding);
    pair(f, "dilation", 1, c.dilation);
    if (override && !json_is_null(override)) fixture_fault(f, "divisor_override is not built");
    return c;
}

static void run_max_pool2d(fixture *f)
{
    nsm_tape *t = nsm_tape_new(fixture_ctx(f));
    nsm_pool2d_config c = windows(f);
    done(f, t, nsm_max_pool2d(t, fixture_input(f, "x"), &c));
}

static void run_avg_pool2d(fixture *f)
{
    nsm_tape *t = nsm_tape_new(fixture_ctx(f));
    nsm_pool2d_config c = windows(f);
    done(f, t, nsm_avg_pool2d(t, fixture_input(f, "x"), &c));
}

static void run_adaptive_avg_pool2d(fixture *f)
{
    nsm_tape *t = nsm_tape_new(fixture_ctx(f));
    int to[2];
    pair(f, "output_size", 0, to);
    done(f, t, nsm_adaptive_avg_pool2d(t, fixture_input(f, "x"), to[0], to[1]));
}

/* ---- padding, resampling ---- */

static void run_pad(fixture *f)
{
    nsm_tape *t = nsm_tape_new(fixture_ctx(f));
    json_t *sides = json_object_get(fixture_config(f), "pad"), *mode;
    nsm_tensor *x = fixture_input(f, "x");
    int pad[4];
    size_t k;
    for (k = 0; k < 4; k++) pad[k] = (int)json_integer_value(json_array_get(sides, k));
    if (json_array_size(sides) != 4) fixture_fault(f, "pad is not four numbers");
    json_array_foreach(json_object_get(fixture_config(f), "modes"), k, mode)
    {
        const char *name = json_string_value(mode);
        if (name)
            fixture_output(f, t, name,
                           nsm_pad2d(t, x, pad, pad_mode(f, name), number(f, "value", 0)));
        else fixture_fault(f, "a mode is no text");
    }
    fixture_grads(f, t, NULL);
    nsm_tape_free(t);
}

static void run_pixel_shuffle(fixture *f)
{
    nsm_tape *t = nsm_tape_new(fixture_ctx(f));
    done(f, t, nsm_pixel_shuffle(t, fixture_input(f, "x"), size(f, "upscale_factor", 1)));
}

static void run_interpolate(fixture *f)
{
    static const char *const modes[] = { "nearest", "bilinear", "bicubic" };
    nsm_tape *t = nsm_tape_new(fixture_ctx(f));
    nsm_tensor *x = fixture_input(f, "x");
    const char *mode = fixture_text(f, "mode", "nearest");
    double factor = fixture_number(f, "scale_factor", 0);
    nsm_resize_config c = { .align_corners = fixture_bool(f, "align_corners", false),
                            .a = number(f, "cubic_coeff_a", -0.75) };
    int to[2], m = 0;
    while (m < 3 && strcmp(mode, modes[m])) m++;
    c.mode = (nsm_resize_mode)m;
    pair(f, "size", 0, to);
    for (int a = 0; factor > 0 && x && a < 2; a++)
        if (to[a] != (int)floor(factor * (double)x->dim[2 + a]))
            fixture_fault(f, "size is not scale_factor times the input's");
    if (m == 3) fixture_fault(f, "mode %s is not known", mode);
    if (fixture_bool(f, "antialias", false)) fixture_fault(f, "antialias is not built");
    done(f, t, m < 3 ? nsm_resize(t, x, to[0], to[1], &c) : NULL);
}

#define KIND(name) \
    { \
        "primitives", #name, run_##name \
    }
const oracle_kind oracle_images[] = {
    KIND(conv1d),           KIND(conv2d),
    KIND(conv_transpose2d), KIND(max_pool2d),
    KIND(avg_pool2d),       KIND(pad),
    KIND(interpolate),      KIND(adaptive_avg_pool2d),
    KIND(pixel_shuffle),    { NULL, NULL, NULL },
};
