/* base/ops/common.h - The checks and shapes that op bodies share. */
#ifndef NSM_OPS_COMMON_H
#define NSM_OPS_COMMON_H
#include <float.h>
#include "base/internal.h"
#include "base/ops.h"

/* Are all inputs float32?  Leaves the error if not. */
static inline bool nsmi_all_floats(nsm_node *n)
{
    for (int i = 0; i < NSM_OP_INPUTS; i++)
        if (n->in[i] && n->in[i]->type != NSM_F32) {
            nsmi_bad_shape(n, "all must be float32");
            return false;
        }
    return true;
}

/* The usual shape of an op: that of input 0. */
static inline void nsmi_same_shape(nsm_node *n)
{
    if (nsmi_all_floats(n)) nsm_node_out(n, 0, NSM_F32, n->in[0]->rank, n->in[0]->dim);
}

/* Is t [c], or not given? */
static inline bool nsmi_is_vector(const nsm_tensor *t, int64_t c)
{
    return !t || (t->rank == 1 && t->dim[0] == c);
}

/* Make n->i[k], an axis of input 0 or NSM_ALL, count from the first.  Leaves the error. */
static inline bool nsmi_resolve_axis(nsm_node *n, int k, bool or_all)
{
    int64_t axis = n->i[k], rank = n->in[0]->rank;
    if (or_all && axis == NSM_ALL) return true;
    if (axis >= -rank && axis < rank) {
        n->i[k] = axis < 0 ? axis + rank : axis;
        return true;
    }
    nsm_error_set(n->ctx, NSM_EINVAL, "%s: axis is %lld, the rank %lld", n->op->name,
                  (long long)axis, (long long)rank);
    return false;
}

/* A tensor seen from one axis: [outer, n, inner]. */
typedef struct { int64_t outer, n, inner; } nsmi_view;
static inline nsmi_view nsmi_around(const nsm_tensor *x, int64_t axis)
{
    if (axis == NSM_ALL) return (nsmi_view){ 1, nsm_numel(x), 1 };
    nsmi_view v = { 1, 1, 1 };
    for (int k = 0; k < x->rank; k++)
        *(k < axis ? &v.outer : k > axis ? &v.inner : &v.n) *= x->dim[k];
    return v;
}

/* Where a kernel that always writes dx may write it: the gradient of input i, or scratch. */
static inline float *nsmi_dx_or_scratch(nsm_node *n, int i, float *beta)
{
    float *dx = nsm_node_dx_beta(n, i, beta);
    return dx || nsmi_needs(n, i)
               ? dx
               : nsm_node_scratch(n, (size_t)nsm_numel(n->in[i]) * sizeof(float));
}

static inline float *nsmi_floats(nsm_node *n, int64_t count)
{
    return nsm_node_scratch(n, (size_t)count * sizeof(float));
}

/* A copy of an int32 tensor on the host, to be freed. */
static inline int32_t *nsmi_host_ints(nsm_node *n, const nsm_tensor *t)
{
    size_t bytes = (size_t)nsm_numel(t) * sizeof(int32_t);
    int32_t *host = nsmi_malloc(n->ctx, bytes);
    if (host) BE(n)->to_host(DEV(n), bytes, t->i32, host);
    return host;
}

enum { NSMI_NO_OTHER = -1 - INT32_MAX };

/* Is every value of t 0..limit-1, or `also` (NSMI_NO_OTHER: nothing else)?  A device that looks
 * itself tells later.  Leaves the error. */
static inline bool nsmi_check_index(nsm_node *n, const char *what, const nsm_tensor *t,
                                    int64_t limit, int64_t also)
{
    if (BE(n)->check_index) {
        BE(n)->check_index(DEV(n), nsm_numel(t), t->i32, limit, also);
        return true;
    }
    for (int64_t k = 0, count = nsm_numel(t); k < count; k++) {
        int32_t v = t->i32[k];
        if ((v >= 0 && v < limit) || (also != NSMI_NO_OTHER && v == also)) continue;
        nsm_error_set(n->ctx, NSM_EINVAL, "%s: %s %lld is %d, want 0..%lld", n->op->name, what,
                      (long long)k, v, (long long)limit - 1);
        return false;
    }
    return true;
}

#endif
