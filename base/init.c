/* base/init.c - Initialisers, with PyTorch's fans and gains.
 *
 * Glorot & Bengio, AISTATS 2010; He et al., ICCV 2015, arXiv:1502.01852; Saxe et al., ICLR 2014,
 * arXiv:1312.6120.  A weight [out, in, ...] has fan_in = in * receptive field and
 * fan_out = out * receptive field; all numbers come from the context's generator. */
#include "config.h"
#include "base/internal.h"

static bool writable(nsm_tensor *t, const char *who)
{
    if (!t || nsmi_failed(t->ctx)) return false;
    if (t->type == NSM_F32 && t->data) return true;
    nsm_error_set(t->ctx, NSM_EINVAL, "%s: want a float32 tensor", who);
    return false;
}

static void fans(const nsm_tensor *t, double *in, double *out)
{
    double field = 1;
    for (int i = 2; i < t->rank; i++) field *= (double)t->dim[i];
    *in = (t->rank > 1 ? (double)t->dim[1] : (double)t->dim[0]) * field;
    *out = (double)t->dim[0] * field;
}

int nsm_init_uniform(nsm_tensor *t, float low, float high)
{
    if (!writable(t, "nsm_init_uniform")) return t ? nsm_error(t->ctx) : NSM_EINVAL;
    int64_t n = nsm_numel(t);
    t->ctx->dev.be->uniform(&t->ctx->dev, nsm_random_take(t->ctx, n), low, high, n, t->f32);
    return NSM_OK;
}

int nsm_init_normal(nsm_tensor *t, float mean, float std)
{
    if (!writable(t, "nsm_init_normal")) return t ? nsm_error(t->ctx) : NSM_EINVAL;
    int64_t n = nsm_numel(t);
    t->ctx->dev.be->normal(&t->ctx->dev, nsm_random_take(t->ctx, n), mean, std, n, t->f32);
    return NSM_OK;
}

int nsm_init_glorot_uniform(nsm_tensor *t, float gain)
{
    double in, out;
    if (!t) return NSM_EINVAL;
    fans(t, &in, &out);
    float a = (float)(gain * sqrt(6.0 / fmax(in + out, 1)));
    return nsm_init_uniform(t, -a, a);
}

int nsm_init_glorot_normal(nsm_tensor *t, float gain)
{
    double in, out;
    if (!t) return NSM_EINVAL;
    fans(t, &in, &out);
    return nsm_init_normal(t, 0, (float)(gain * sqrt(2.0 / fmax(in + out, 1))));
}

int nsm_init_kaiming_uniform(nsm_tensor *t, float a)
{
    double in, out;
    if (!t) return NSM_EINVAL;
    fans(t, &in, &out);
    float bound = (float)(sqrt(2.0 / (1.0 + (double)a * a)) * sqrt(3.0 / fmax(in, 1)));
    return nsm_init_uniform(t, -bound, bound);
}

int nsm_init_kaiming_normal(nsm_tensor *t, float a)
{
    double in, out;
    if (!t) return NSM_EINVAL;
    fans(t, &in, &out);
    return nsm_init_normal(t, 0, (float)(sqrt(2.0 / (1.0 + (double)a * a)) / sqrt(fmax(in, 1))));
}

/* Gram-Schmidt, twice for orthogonality to rounding, over the shorter side of v [n, m], n <= m. */
static void orthonormal_rows(double *v, int64_t n, int64_t m)
{
    for (int64_t i = 0; i < n; i++) {
        double *a = v + i * m, norm = 0;
        for (int pass = 0; pass < 2; pass++)
            for (int64_t j = 0; j < i; j++) {
                const double *b = v + j * m;
                double dot = 0;
                for (int64_t k = 0; k < m; k++) dot += a[k] * b[k];
                for (int64_t k = 0; k < m; k++) a[k] -= dot * b[k];
            }
        for (int64_t k = 0; k < m; k++) norm += a[k] * a[k];
        norm = norm > 0 ? 1 / sqrt(norm) : 0;
        for (int64_t k = 0; k < m; k++) a[k] *= norm;
    }
}

int nsm_init_orthogonal(nsm_tensor *t, float gain)
{
    if (nsm_init_normal(t, 0, 1)) return t ? nsm_error(t->ctx) : NSM_EINVAL;
    int64_t all = nsm_numel(t), rows = t->rank ? t->dim[0] : 1, cols = rows ? all / rows : 0;
    int64_t n = rows < cols ? rows : cols, m = rows < cols ? cols : rows;
    float *host = nsmi_malloc(t->ctx, (size_t)all * sizeof *host);
    double *v = nsmi_malloc(t->ctx, (size_t)all * sizeof *v);
    if (host && v) {
        nsm_tensor_get(t, host);
        for (int64_t i = 0; i < all; i++) v[i] = host[i];
        orthonormal_rows(v, n, m);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < cols; c++)
                host[r * cols + c] = (float)(gain * (rows <= cols ? v[r * m + c] : v[c * m + r]));
        nsm_tensor_set(t, host);
    }
    free(host);
    free(v);
    return nsm_error(t->ctx);
}
