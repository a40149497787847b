/* fusion/fuse_nsm.c - The Neural State Machine over sets (set.h) as a fuser: elements of all
 * modalities in one pool of states, which the queries read.  Its input maps are the set's own.
 *
 * Parameters: set., those of set.h; query. */
#include "config.h"
#include "fusion/fuser_parts.h"
#include "fusion/set_parts.h"

typedef struct {
    nsm_fuser base;
    int slots, learned, topk, heads, rounds;
    float tau_new, spread;
    nsm_set *set;
} pool;

static const nsm_key keys[] = {
    KEY_INT(pool, slots, 16, 1, 65536, "states of the pool"),
    KEY_INT(pool, learned, 1, 1, 65536, "of them learned, there from the start"),
    KEY_INT(pool, topk, 2, 1, 65536, "states that an element is written to"),
    KEY_INT(pool, heads, 4, 1, 65536, "heads of reasoning and reading"),
    KEY_INT(pool, rounds, 1, 1, 1024, "times that states hear of each other"),
    KEY_REAL(pool, tau_new, 0.9, -1, 2, "an element less near than that to every state opens one"),
    KEY_REAL(pool, spread, 0.1, 1e-6, 100, "deviation of the modalities' embeddings at the start"),
    KEYS_END
};

static int make(nsm_fuser *f)
{
    pool *p = (pool *)f;
    nsm_set_config c = { .width = f->width,
                         .slots = p->slots,
                         .learned = p->learned,
                         .top = p->topk,
                         .heads = p->heads,
                         .rounds = p->rounds,
                         .modalities = f->modalities,
                         .query_features = f->query_features ? f->query_features : f->width,
                         .tau_new = p->tau_new,
                         .spread = p->spread };
    memcpy(c.features, f->features, sizeof c.features);
    f->states = p->slots;
    f->learned = p->learned;
    p->set = nsm_set_new(f->module.ctx, &c);
    if (p->set) nsm_module_child(&f->module, "set", nsm_set_module(p->set));
    return nsm_error(f->module.ctx);
}

static void clear(nsm_fuser *f) { nsm_set_free(((pool *)f)->set); }

static nsm_tensor *forward(nsm_tape *tape, nsm_fuser *f, const nsm_fuser_call *c)
{
    nsm_set_view view = { 0 };
    nsmi_pool_parts left = { 0 };
    nsm_tensor *y = nsmi_set_run(tape, ((pool *)f)->set, c->in, c->query, NULL, c->closed, &left,
                                 f->watched ? &view : NULL);
    if (!y || !f->watched) return y;
    nsm_tensor *mass = nsm_reshape(tape, view.mass, 3, (int64_t[]){ c->batch, 1, -1 });
    nsm_tensor *took = nsm_div(tape, view.route, nsm_scale(tape, mass, 1, 1e-6f)); /* [B, n, s] */
    nsmi_fuser_keep_through(tape, f, nsm_mean(tape, view.read, 1, false),
                            nsm_transpose(tape, took), view.mass, view.opened);
    return y;
}

const nsm_fuser_type nsmi_fuser_nsm = {
    .name = "nsm",
    .about = "Neural State Machine: one pool of states, opened by what is new",
    .bytes = sizeof(pool),
    .keys = keys,
    .make = make,
    .clear = clear,
    .forward = forward,
    .weights = "routing",
    .states = "states",
};
