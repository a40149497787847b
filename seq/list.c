/* seq/list.c - Every sequence system, by name.  A new one is a line here. */
#include "config.h"
#include "seq/internal.h"

#define MIXERS(X)                                                                         \
    X(transformer) X(nsm) X(lstm) X(gru)                                                  \
    X(linear_transformer) X(retnet) X(gla) X(deltanet) X(gated_deltanet) X(gsa) X(mamba2) \
    X(mamba) X(s4) X(s4d) X(rwkv4) X(rwkv5) X(rwkv6) X(rwkv7) X(none)                     \
    X(rwkv2) X(rwkv3)

/* Found by name, but not among the systems that are compared: one sees only the token before, one
 * has no state to carry. */
#define OTHERS(X) X(rwkv_channel) X(rwkv1)

#define DECLARE(name) extern const nsm_mixer_type nsmi_mixer_##name;
#define ADDRESS(name) &nsmi_mixer_##name,
MIXERS(DECLARE)
OTHERS(DECLARE)
static const nsm_mixer_type *const types[] = { MIXERS(ADDRESS) NULL }, *const others[] = { OTHERS(
                                                                           ADDRESS) NULL };

const nsm_mixer_type *const *nsm_mixer_types(void) { return types; }

static const nsm_mixer_type *find(const nsm_mixer_type *const *list, const char *name)
{
    while (*list && strcmp((*list)->name, name)) list++;
    return *list;
}

const nsm_mixer_type *nsm_mixer_find(const char *name)
{
    const nsm_mixer_type *found = find(types, name);
    return found ? found : find(others, name);
}
