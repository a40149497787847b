/* base/module.h - Modules: named parameters and children; initialisers.
 *
 * The first member of every layer is an nsm_module.  Names are stable: dotted ("conv1.lin.weight")
 * they are a checkpoint's paths and what weight import maps to.  A module owns its tensors and is
 * told of its children, which the layer that holds them frees. */
#ifndef NSM_MODULE_H
#define NSM_MODULE_H
#include "base/tensor.h"
#ifdef __cplusplus
extern "C" {
#endif

typedef struct nsm_module nsm_module;
typedef struct {
    const char *name;
    nsm_tensor *tensor;
    bool buffer; /* part of the state but not trained: running statistics */
} nsm_param;
struct nsm_module {
    nsm_ctx *ctx;
    nsm_param *param;
    int params;
    struct { const char *name; nsm_module *module; } *child;
    int children;
};

void nsm_module_init(nsm_module *m, nsm_ctx *ctx);
void nsm_module_clear(nsm_module *m); /* free what init and the calls below made */

/* Add a parameter (needs_grad set) or a buffer (not trained), zeros.  name is copied.  Returns
 * the tensor, owned by the module, or NULL. */
nsm_tensor *nsm_module_param(nsm_module *m, const char *name, int rank, const int64_t *dim);
nsm_tensor *nsm_module_buffer(nsm_module *m, const char *name, int rank, const int64_t *dim);
/* child NULL: an error stands already */
int nsm_module_child(nsm_module *m, const char *name, nsm_module *child);

/* Call visit for every tensor, depth first in the order of making, with its dotted name. */
typedef int (*nsm_visit)(void *user, const char *name, nsm_tensor *t, bool buffer);
int nsm_module_walk(nsm_module *m, nsm_visit visit, void *user);

nsm_tensor *nsm_module_find(nsm_module *m, const char *dotted_name); /* NULL, no error, if none */
int64_t nsm_module_count(nsm_module *m); /* trained numbers */
void nsm_module_zero_grad(nsm_module *m);

/* ---- initialisers: draw from the context's generator ---- */
/* fan_in = dim[1] * receptive field, fan_out = dim[0] * receptive field, as in PyTorch. */
int nsm_init_glorot_uniform(nsm_tensor *t, float gain);
int nsm_init_glorot_normal(nsm_tensor *t, float gain);
/* a: the negative slope of the leaky relu that follows; sqrt(5) is torch.nn.Linear's default. */
int nsm_init_kaiming_uniform(nsm_tensor *t, float a);
int nsm_init_kaiming_normal(nsm_tensor *t, float a);
int nsm_init_orthogonal(nsm_tensor *t, float gain);
int nsm_init_normal(nsm_tensor *t, float mean, float std);
int nsm_init_uniform(nsm_tensor *t, float low, float high);

#ifdef __cplusplus
}
#endif
#endif
