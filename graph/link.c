/* graph/link.c - See link.h. */
#include "config.h"
#include "base/internal.h"
#include "graph/link.h"

static bool shapes_ok(nsm_ctx *ctx, nsm_link_kind kind, const nsm_tensor *x, const nsm_tensor *r)
{
    char a[96], b[96];
    if (x->rank == 2 && r->rank == 2 && x->dim[0] == r->dim[0] && x->dim[1] == r->dim[1] &&
        (kind == NSM_LINK_DISTMULT || x->dim[1] % 2 == 0))
        return true;
    nsm_error_set(ctx, NSM_ESHAPE,
                  "nsm_link_query: shapes do not agree: entities are %s, relations %s, want "
                  "[B, D] both, D even with ComplEx",
                  nsm_shape_text(x, a), nsm_shape_text(r, b));
    return false;
}

/* The query's parts for h (a + ib) and r (c + id):
 *   Re(h r conj t) = (ac - bd) Re t + (ad + bc) Im t;
 * with t in place of h and conj r in place of r the same sum reads as one over h. */
static nsm_tensor *complex_query(nsm_tape *tape, nsm_link_end end, nsm_tensor *x, nsm_tensor *r)
{
    int64_t half[2] = { x->dim[1] / 2, x->dim[1] / 2 };
    nsm_tensor *ab[2], *cd[2];
    nsm_split(tape, x, 1, 2, half, ab);
    nsm_split(tape, r, 1, 2, half, cd);
    nsm_tensor *a = ab[0], *b = ab[1], *c = cd[0], *d = cd[1];
    if (end == NSM_LINK_HEAD) d = nsm_neg(tape, d);
    nsm_tensor *re = nsm_sub(tape, nsm_mul(tape, a, c), nsm_mul(tape, b, d)),
               *im = nsm_add(tape, nsm_mul(tape, a, d), nsm_mul(tape, b, c));
    return re && im ? nsm_concat(tape, (nsm_tensor *[]){ re, im }, 2, 1) : NULL;
}

nsm_tensor *nsm_link_query(nsm_tape *tape, nsm_link_kind kind, nsm_link_end end, nsm_tensor *x,
                           nsm_tensor *r)
{
    nsm_ctx *ctx = tape ? nsm_tape_ctx(tape) : NULL;
    if (nsmi_failed(ctx) || !x || !r) return NULL;
    if ((unsigned)kind > NSM_LINK_COMPLEX || (unsigned)end > NSM_LINK_HEAD) {
        nsm_error_set(ctx, NSM_EINVAL, "nsm_link_query: kind %d and end %d, want 0..1 both",
                      (int)kind, (int)end);
        return NULL;
    }
    if (!shapes_ok(ctx, kind, x, r)) return NULL;
    return kind == NSM_LINK_DISTMULT ? nsm_mul(tape, x, r) : complex_query(tape, end, x, r);
}

nsm_tensor *nsm_link_all(nsm_tape *tape, nsm_tensor *query, nsm_tensor *entity)
{
    return nsm_matmul(tape, query, entity, false, true);
}

nsm_tensor *nsm_link_score(nsm_tape *tape, nsm_link_kind kind, nsm_tensor *h, nsm_tensor *r,
                           nsm_tensor *t)
{
    nsm_tensor *q = nsm_link_query(tape, kind, NSM_LINK_TAIL, h, r);
    return nsm_sum(tape, nsm_mul(tape, q, t), 1, true);
}
