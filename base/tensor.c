/* base/tensor.c - Tensors that the caller makes and frees; copies to and from the host. */
#include "config.h"
#include "base/internal.h"

size_t nsm_type_bytes(nsm_type type)
{
    static const size_t bytes[] = { [NSM_F32] = 4, [NSM_BF16] = 2, [NSM_F16] = 2, [NSM_I32] = 4,
                                    [NSM_I64] = 8, [NSM_U8] = 1,   [NSM_F64] = 8 };
    return bytes[type];
}

const char *nsm_type_name(nsm_type type)
{
    static const char *const names[] = { "float32", "bfloat16", "float16", "int32",
                                         "int64",   "uint8",    "float64" };
    return names[type];
}

int64_t nsm_numel(const nsm_tensor *t)
{
    if (t->csr) return t->csr->nnz;
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++) n *= t->dim[i];
    return n;
}

const char *nsm_shape_text(const nsm_tensor *t, char buf[96])
{
    size_t at = 0;
    buf[at++] = '[';
    for (int i = 0; i < t->rank && at < 80; i++)
        at += (size_t)snprintf(buf + at, 96 - at, "%s%lld", i ? "," : "", (long long)t->dim[i]);
    snprintf(buf + at, 96 - at, "]");
    return buf;
}

/* Check dims and count bytes; leaves the error. */
static bool size_of(nsm_ctx *ctx, nsm_type type, int rank, const int64_t *dim, size_t *bytes)
{
    int64_t n = 1;
    if (rank < 0 || rank > NSM_MAX_RANK) {
        nsm_error_set(ctx, NSM_EINVAL, "nsm_tensor_new: rank is %d, want 0..%d", rank,
                      NSM_MAX_RANK);
        return false;
    }
    for (int i = 0; i < rank; i++) {
        if (dim[i] < 0) {
            nsm_error_set(ctx, NSM_EINVAL, "nsm_tensor_new: dim %d is %lld", i, (long long)dim[i]);
            return false;
        }
        if (!nsmi_mul(n, dim[i], &n) || n > INT64_MAX / 16) {
            nsm_error_set(ctx, NSM_ENOMEM, "nsm_tensor_new: the size overflows at dim %d", i);
            return false;
        }
    }
    *bytes = (size_t)n * nsm_type_bytes(type);
    return true;
}

nsm_tensor *nsm_tensor_new(nsm_ctx *ctx, nsm_type type, int rank, const int64_t *dim)
{
    size_t bytes;
    if (nsmi_failed(ctx) || !size_of(ctx, type, rank, dim, &bytes)) return NULL;
    nsm_tensor *t = nsmi_calloc(ctx, 1, sizeof *t);
    if (!t) return NULL;
    t->ctx = ctx;
    t->type = type;
    t->rank = rank;
    for (int i = 0; i < NSM_MAX_RANK; i++) t->dim[i] = i < rank ? dim[i] : 1;
    t->data = nsmi_device_alloc(ctx, bytes);
    if (t->data) return t;
    free(t);
    return NULL;
}

nsm_tensor *nsm_tensor_from(nsm_ctx *ctx, nsm_type type, int rank, const int64_t *dim,
                            const void *host)
{
    nsm_tensor *t = nsm_tensor_new(ctx, type, rank, dim);
    if (t) nsm_tensor_set(t, host);
    return t;
}

nsm_tensor *nsm_tensor_sparse(nsm_ctx *ctx, const nsm_csr *csr, const float *host_values)
{
    if (nsmi_failed(ctx) || !csr) return NULL;
    nsm_tensor *t = nsm_tensor_from(ctx, NSM_F32, 1, (const int64_t[]){ csr->nnz }, host_values);
    if (!t) return NULL;
    t->csr = csr;
    t->rank = 2;
    t->dim[0] = csr->rows;
    t->dim[1] = csr->cols;
    return t;
}

void nsm_tensor_free(nsm_tensor *t)
{
    if (!t || t->owner) return;
    nsmi_device_free(t->ctx, t->grad);
    if (!t->base) nsmi_device_free(t->ctx, t->data);
    free(t);
}

static size_t bytes_of(const nsm_tensor *t)
{
    return (size_t)nsm_numel(t) * nsm_type_bytes(t->type);
}

/* May t's values be touched?  Leaves the error if not. */
static bool usable(const nsm_tensor *t, const char *who)
{
    if (!t || nsmi_failed(t->ctx)) return false;
    if (t->data) return true;
    nsm_error_set(
        t->ctx, NSM_EINVAL,
        "%s: the value was given back by nsm_tape_backward or nsm_tape_drop; use nsm_tape_keep",
        who);
    return false;
}

/* The error that stands after a copy. */
static int settled(const nsm_tensor *t, const char *who)
{
    nsmi_device_trouble(t->ctx, who);
    return nsm_error(t->ctx);
}

int nsm_tensor_set(nsm_tensor *t, const void *host)
{
    if (!usable(t, "nsm_tensor_set")) return t ? nsm_error(t->ctx) : NSM_EINVAL;
    t->ctx->dev.be->to_device(&t->ctx->dev, bytes_of(t), host, t->data);
    return settled(t, "nsm_tensor_set");
}

int nsm_tensor_get(const nsm_tensor *t, void *host)
{
    if (!usable(t, "nsm_tensor_get")) return t ? nsm_error(t->ctx) : NSM_EINVAL;
    t->ctx->dev.be->to_host(&t->ctx->dev, bytes_of(t), t->data, host);
    return settled(t, "nsm_tensor_get");
}

int nsm_tensor_get_grad(const nsm_tensor *t, float *host)
{
    if (!t || nsmi_failed(t->ctx)) return t ? nsm_error(t->ctx) : NSM_EINVAL;
    const nsm_tensor *root = t->base ? t->base : t;
    if (root->grad)
        t->ctx->dev.be->to_host(&t->ctx->dev, (size_t)nsm_numel(t) * sizeof(float), root->grad,
                                host);
    else memset(host, 0, (size_t)nsm_numel(t) * sizeof(float));
    return settled(t, "nsm_tensor_get_grad");
}

int nsm_tensor_zero(nsm_tensor *t)
{
    if (!usable(t, "nsm_tensor_zero")) return t ? nsm_error(t->ctx) : NSM_EINVAL;
    t->ctx->dev.be->zero(&t->ctx->dev, bytes_of(t), t->data);
    return NSM_OK;
}

int nsm_tensor_fill(nsm_tensor *t, float value)
{
    if (!usable(t, "nsm_tensor_fill")) return t ? nsm_error(t->ctx) : NSM_EINVAL;
    if (t->type != NSM_F32)
        return nsm_error_set(t->ctx, NSM_EINVAL, "nsm_tensor_fill: type is %s, want float32",
                             nsm_type_name(t->type));
    t->ctx->dev.be->fill(&t->ctx->dev, nsm_numel(t), value, t->f32);
    return NSM_OK;
}

int nsm_tensor_copy(nsm_tensor *to, const nsm_tensor *from)
{
    if (!usable(to, "nsm_tensor_copy") || !usable(from, "nsm_tensor_copy"))
        return to ? nsm_error(to->ctx) : NSM_EINVAL;
    if (nsm_numel(to) != nsm_numel(from) || to->type != from->type) {
        char a[96], b[96];
        return nsm_error_set(to->ctx, NSM_ESHAPE, "nsm_tensor_copy: %s %s into %s %s",
                             nsm_type_name(from->type), nsm_shape_text(from, a),
                             nsm_type_name(to->type), nsm_shape_text(to, b));
    }
    to->ctx->dev.be->copy(&to->ctx->dev, bytes_of(from), from->data, to->data);
    return NSM_OK;
}

void nsm_tensor_zero_grad(nsm_tensor *t)
{
    if (!t) return;
    t = nsmi_root(t);
    nsmi_device_free(t->ctx, t->grad);
    t->grad = NULL;
}

float nsm_tensor_item(const nsm_tensor *t)
{
    float value = NAN;
    if (!usable(t, "nsm_tensor_item")) return value;
    if (nsm_numel(t) != 1 || t->type != NSM_F32) {
        char a[96];
        nsm_error_set(t->ctx, NSM_ESHAPE, "nsm_tensor_item: the tensor is %s, want one float32",
                      nsm_shape_text(t, a));
        return value;
    }
    nsm_tensor_get(t, &value);
    return value;
}

float *nsmi_grad(nsm_tensor *t, bool *fresh)
{
    t = nsmi_root(t);
    *fresh = !t->grad;
    if (!t->grad) t->grad = nsmi_device_alloc(t->ctx, (size_t)nsm_numel(t) * sizeof(float));
    return t->grad;
}
