/* base/ops/pool.c - The ops of a pool of states over sets: open, route. */
#include "config.h"
#include "base/ops/common.h"

static nsmi_pool pool_of(const nsm_node *n, const nsm_tensor *key, const nsm_tensor *there)
{
    const nsm_tensor *x = n->in[0];
    return (nsmi_pool){ .batch = x->dim[0],
                        .tokens = x->dim[1],
                        .slots = key->dim[1],
                        .size = x->dim[2],
                        .top = n->i[0],
                        .tau_new = n->f[0],
                        .there = there ? there->u8 : NULL };
}

/* Is t [B, count] of this type, or not given? */
static bool is_grid(const nsm_tensor *t, nsm_type type, int64_t batch, int64_t count)
{
    return !t || (t->type == type && t->rank == 2 && t->dim[0] == batch && t->dim[1] == count);
}

/* ---- open: in = k, key, alive, there, opened; f = {tau_new}; saved = owner ---- */
enum { OPEN_KEY = 1, OPEN_ALIVE, OPEN_THERE, OPEN_OPENED };

static void open_shape(nsm_node *n)
{
    const nsm_tensor *k = n->in[0], *key = n->in[OPEN_KEY];
    bool ok = k->type == NSM_F32 && key->type == NSM_F32 && k->rank == 3 && key->rank == 3 &&
              k->dim[0] == key->dim[0] && k->dim[2] == key->dim[2] &&
              is_grid(n->in[OPEN_ALIVE], NSM_U8, k->dim[0], key->dim[1]) &&
              is_grid(n->in[OPEN_THERE], NSM_U8, k->dim[0], k->dim[1]) &&
              is_grid(n->in[OPEN_OPENED], NSM_I32, k->dim[0], k->dim[1]);
    if (!ok) {
        nsmi_bad_shape(n, "want k [B,n,D], key [B,s,D], alive uint8 [B,s], there uint8 [B,n], "
                          "opened int32 [B,n]");
        return;
    }
    nsm_node_out(n, 0, NSM_F32, 3, key->dim);
    nsm_node_out(n, 1, NSM_F32, 2, key->dim);
    nsm_node_save(n, 0, NSM_I32, 2, key->dim);
}

static void open_forward(nsm_node *n)
{
    nsm_tensor *opened = n->in[OPEN_OPENED];
    nsmi_pool c = pool_of(n, n->in[OPEN_KEY], n->in[OPEN_THERE]);
    float *near = nsmi_floats(n, c.batch * c.tokens);
    int32_t *room = opened ? opened->i32
                           : nsm_node_scratch(n, (size_t)(c.batch * c.tokens) * sizeof *room);
    if (near && room)
        BE(n)->pool_open(DEV(n), &c, X(0), X(OPEN_KEY), n->in[OPEN_ALIVE]->u8, near, room,
                         n->saved[0]->i32, Y(0), Y(1));
}

static void open_backward(nsm_node *n)
{
    nsmi_pool c = pool_of(n, n->in[OPEN_KEY], NULL);
    float *dk = DX(0), *dkey = DX(OPEN_KEY);
    if (DY(0) && !nsmi_failed(n->ctx))
        BE(n)->pool_open_back(DEV(n), &c, n->saved[0]->i32, DY(0), dk, dkey);
}

const nsm_op nsmi_op_pool_open = { "nsm_pool_open",   open_shape, open_forward, open_backward, 3,
                                   NSM_READS_NOTHING, false };

nsm_tensor *nsm_pool_open(nsm_tape *tape, nsm_tensor *k, nsm_tensor *key, nsm_tensor *alive,
                          nsm_tensor *there, float tau_new, nsm_tensor *opened, nsm_tensor **shut)
{
    nsm_tensor *out[2] = { NULL, NULL };
    nsm_apply_many(tape, &nsmi_op_pool_open,
                   &(nsm_args){ .in = { k, key, alive, there, opened }, .f = { tau_new } }, out, 2);
    if (shut) *shut = out[1];
    return out[0];
}

/* ---- route: in = cosine, gamma, null, alive, there; i = {top} ---- */
enum { ROUTE_GAMMA = 1, ROUTE_NULL, ROUTE_ALIVE, ROUTE_THERE };

static nsmi_pool route_of(const nsm_node *n)
{
    nsmi_pool c = pool_of(n, n->in[ROUTE_ALIVE], n->in[ROUTE_THERE]);
    if (c.top > c.slots) c.top = c.slots;
    return c;
}

static void route_shape(nsm_node *n)
{
    const nsm_tensor *x = n->in[0];
    bool ok = x->type == NSM_F32 && x->rank == 3 && nsm_numel(n->in[ROUTE_GAMMA]) == 1 &&
              nsm_numel(n->in[ROUTE_NULL]) == 1 && n->in[ROUTE_GAMMA]->type == NSM_F32 &&
              n->in[ROUTE_NULL]->type == NSM_F32 && n->i[0] > 0 &&
              is_grid(n->in[ROUTE_ALIVE], NSM_U8, x->dim[0], x->dim[2]) &&
              is_grid(n->in[ROUTE_THERE], NSM_U8, x->dim[0], x->dim[1]);
    if (ok) nsm_node_out(n, 0, NSM_F32, 3, x->dim);
    else
        nsmi_bad_shape(n, "want cosine [B,n,s], gamma and null [1], alive uint8 [B,s], there uint8 "
                          "[B,n], at least 1 kept");
}

static void route_forward(nsm_node *n)
{
    nsmi_pool c = route_of(n);
    BE(n)->pool_route(DEV(n), &c, X(0), n->in[ROUTE_ALIVE]->u8, X(ROUTE_GAMMA), X(ROUTE_NULL),
                      Y(0));
}

static void route_backward(nsm_node *n)
{
    nsmi_pool c = route_of(n);
    float *dx = DX(0), *dgamma = DX(ROUTE_GAMMA), *dnull = DX(ROUTE_NULL);
    if (!nsmi_failed(n->ctx))
        BE(n)->pool_route_back(DEV(n), &c, X(0), X(ROUTE_GAMMA), Y(0), DY(0), dx, dgamma, dnull);
}

const nsm_op nsmi_op_pool_route = { "nsm_pool_route",
                                    route_shape,
                                    route_forward,
                                    route_backward,
                                    4,
                                    NSM_READS_IN(0) | NSM_READS_IN(ROUTE_GAMMA) | NSM_READS_OUT(0),
                                    false };

nsm_tensor *nsm_pool_route(nsm_tape *tape, nsm_tensor *cosine, nsm_tensor *gamma, nsm_tensor *null,
                           nsm_tensor *alive, nsm_tensor *there, int top)
{
    return nsm_apply(tape, &nsmi_op_pool_route,
                     &(nsm_args){ .in = { cosine, gamma, null, alive, there }, .i = { top } });
}
