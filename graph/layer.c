/* graph/layer.c - What the graph layers share. */
#include "config.h"
#include "graph/attention.h"
#include "graph/internal.h"

void *nsmi_host_copy(nsm_ctx *ctx, const void *device, size_t bytes)
{
    void *host = nsmi_malloc(ctx, bytes);
    if (host && bytes) ctx->dev.be->to_host(&ctx->dev, bytes, device, host);
    return host;
}

bool nsmi_want(const char *who, const char *what, const nsm_tensor *x, int64_t rows, int64_t cols)
{
    char have[96];
    if (x->type == NSM_F32 && x->rank == 2 && x->dim[0] == rows && x->dim[1] == cols) return true;
    nsm_error_set(x->ctx, NSM_ESHAPE,
                  "%s: shapes do not agree: %s is %s %s, want float32 [%lld,%lld]", who, what,
                  nsm_type_name(x->type), nsm_shape_text(x, have), (long long)rows,
                  (long long)cols);
    return false;
}

nsm_tensor *nsmi_finish(nsm_tape *tape, nsm_tensor *y, nsm_tensor *bias, nsm_act act, float a,
                        float b, float dropout)
{
    if (a == 0 && b == 0) nsm_act_constants(act, &a, &b);
    nsm_tensor *z = y ? nsm_activate(tape, y, bias, act, a, b, dropout) : NULL;
    if (z != y) nsm_tape_drop(tape, y);
    return z;
}

nsm_tensor *nsmi_first_rows(nsm_tape *tape, nsm_tensor *x, int64_t rows)
{
    return x && x->dim[0] != rows ? nsm_slice(tape, x, 0, 0, rows) : x;
}

nsm_tensor *nsmi_join_heads(nsm_tape *tape, nsm_tensor *y, int heads, bool average)
{
    if (!y || !average || heads == 1) return y;
    nsm_tensor *by_head = nsm_reshape(tape, y, 3,
                                      (int64_t[]){ y->dim[0], heads, y->dim[1] / heads });
    nsm_tensor *mean = nsm_mean(tape, by_head, 1, false);
    nsm_tape_drop(tape, y);
    return mean;
}

nsm_tensor *nsmi_add_residual(nsm_tape *tape, nsm_tensor *y, nsm_tensor *x, nsm_tensor *w)
{
    nsm_tensor *r = nsm_linear(tape, x, w, NULL);
    nsm_tensor *sum = nsm_add(tape, y, r);
    nsm_tape_drop(tape, y);
    nsm_tape_drop(tape, r);
    return sum;
}

bool nsmi_graph_covers(const char *who, const nsm_graph *g)
{
    if (g->sources >= g->nodes) return true;
    nsm_error_set(g->ctx, NSM_ESHAPE,
                  "%s: the graph has %lld sources and %lld destinations; the first sources are the "
                  "destinations",
                  who, (long long)g->sources, (long long)g->nodes);
    return false;
}

int nsm_attention_get(const nsm_attention *a, int32_t *src, int32_t *dst, float *prob)
{
    if (!a || !a->csr) return NSM_EINVAL;
    nsm_ctx *ctx = a->csr->ctx;
    if (nsmi_failed(ctx)) return nsm_error(ctx);
    int64_t *ptr = nsmi_host_copy(ctx, a->csr->fwd.ptr, (size_t)(a->csr->rows + 1) * sizeof *ptr);
    for (int64_t r = 0; ptr && r < a->csr->rows; r++)
        for (int64_t e = ptr[r]; e < ptr[r + 1]; e++) dst[e] = (int32_t)r;
    free(ptr);
    ctx->dev.be->to_host(&ctx->dev, (size_t)a->csr->nnz * sizeof *src, a->csr->fwd.idx, src);
    return a->prob ? nsm_tensor_get(a->prob, prob)
                   : nsm_error_set(ctx, NSM_EINVAL, "nsm_attention_get: nothing was computed");
}
