/* datasets/split.c - Drawing splits: at random, stratified by class, or fixed numbers of each
 * class.
 *
 * Every labelled thing draws a number from Philox at a place of its own; sorted by it, things stand
 * in random order.  So a split depends on the seed and the labels, on nothing else. */
#include "config.h"
#include "datasets/internal.h"
#include "kernels/philox.h"

typedef struct {
    int32_t group; /* class, or 0 when classes do not matter */
    int32_t index;
    uint64_t draw;
} ticket;

static int by_draw(const void *a, const void *b)
{
    const ticket *x = a, *y = b;
    if (x->group != y->group) return x->group < y->group ? -1 : 1;
    if (x->draw != y->draw) return x->draw < y->draw ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

static int by_index(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* Does thing i carry a label?  A row of labels counts unless all of it is unknown; where there are
 * no labels at all, every node of the target type counts. */
static bool labelled(const nsm_dataset_labels *l, int64_t i)
{
    if (l->kind == NSM_LABEL_NONE) return true;
    if (l->kind == NSM_LABEL_CLASS) return l->cls[i] >= 0;
    if (l->kind == NSM_LABEL_VALUE) return true;
    for (int64_t k = 0; k < l->columns; k++)
        if (l->multi[i * l->columns + k] != 255) return true;
    return false;
}

static ticket drawn(int64_t i, int32_t group, uint64_t seed)
{
    uint32_t r[4];
    nsmi_philox(seed, (uint64_t)i, r);
    return (ticket){ group, (int32_t)i, (uint64_t)r[0] << 32 | r[1] };
}

/* Everything labelled, class by class (all as one group unless by_class), each in random order. */
static ticket *draw_order(const nsm_dataset *ds, bool by_class, uint64_t seed, int64_t *count)
{
    const nsm_dataset_labels *l = &ds->label;
    int64_t things = l->kind == NSM_LABEL_NONE ? ds->node[ds->target].count : l->count;
    ticket *t = nsmi_malloc(ds->ctx, (size_t)things * sizeof *t);
    *count = 0;
    if (!t) return NULL;
    for (int64_t i = 0; i < things; i++)
        if (labelled(l, i)) t[(*count)++] = drawn(i, by_class ? l->cls[i] : 0, seed);
    qsort(t, (size_t)*count, sizeof *t, by_draw);
    return t;
}

/* How many of a group of n go where. */
static int share(const nsm_dataset *ds, const nsm_split_config *c, int group, int64_t n,
                 int64_t *train, int64_t *valid)
{
    if (c->kind == NSM_SPLIT_PER_CLASS) {
        *train = c->train_per_class;
        *valid = c->valid_per_class;
        if (*train + *valid > n)
            return nsm_error_set(ds->ctx, NSM_EINVAL,
                                 "split: class %d has %lld labelled, %lld + %lld are wanted", group,
                                 (long long)n, (long long)*train, (long long)*valid);
        return NSM_OK;
    }
    *train = (int64_t)floor(c->train * (double)n + 0.5);
    *valid = (int64_t)floor(c->valid * (double)n + 0.5);
    if (c->kind == NSM_SPLIT_STRATIFIED && *train < c->min_train)
        *train = c->min_train < n ? c->min_train : n;
    if (*train + *valid > n) *valid = n - *train;
    return NSM_OK;
}

static int deal(const nsm_dataset *ds, const nsm_split_config *c, const ticket *t, int64_t count,
                nsm_dataset_split *s)
{
    for (int p = 0; p < NSM_SPLIT_PARTS; p++)
        s->index[p] = nsm_dataset_array((nsm_dataset *)ds, count, sizeof(int32_t));
    for (int64_t at = 0, end; at < count && !nsmi_failed(ds->ctx); at = end) {
        int64_t train = 0, valid = 0;
        for (end = at; end < count && t[end].group == t[at].group; end++) { }
        share(ds, c, t[at].group, end - at, &train, &valid);
        for (int64_t k = at; k < end && !nsmi_failed(ds->ctx); k++) {
            int p = k - at < train ? NSM_TRAIN : k - at < train + valid ? NSM_VALID : NSM_TEST;
            s->index[p][s->count[p]++] = t[k].index;
        }
    }
    for (int p = 0; p < NSM_SPLIT_PARTS && !nsmi_failed(ds->ctx); p++)
        qsort(s->index[p], (size_t)s->count[p], sizeof(int32_t), by_index);
    return nsm_error(ds->ctx);
}

static int config_ok(const nsm_dataset *ds, const char *name, nsm_split_config *c)
{
    if (c->kind < 0 || c->kind > NSM_SPLIT_PER_CLASS || c->train < 0 || c->valid < 0 ||
        c->train + c->valid > 1)
        return nsm_error_set(ds->ctx, NSM_EINVAL,
                             "split: fractions %g and %g for training and validation", c->train,
                             c->valid);
    if (c->train_per_class < 0 || c->valid_per_class < 0 || c->min_train < 0)
        return nsm_error_set(ds->ctx, NSM_EINVAL, "split: negative numbers of each class");
    if (!nsmi_name_ok(name))
        return nsm_error_set(ds->ctx, NSM_EINVAL,
                             "split: the name is empty, too long, or has a slash");
    if (c->kind != NSM_SPLIT_RANDOM && ds->label.kind != NSM_LABEL_CLASS)
        return nsm_error_set(ds->ctx, NSM_EINVAL,
                             "split: dataset %s has no classes; a random split does without",
                             ds->name);
    if (c->train == 0) c->train = 0.1;
    if (c->valid == 0) c->valid = 0.1;
    if (c->min_train == 0) c->min_train = 1;
    if (c->train_per_class == 0) c->train_per_class = 20;
    if (c->valid_per_class == 0) c->valid_per_class = 30;
    return NSM_OK;
}

/* The split of this name, emptied, or a new one. */
static nsm_dataset_split *place(nsm_dataset *ds, const char *name)
{
    for (int i = 0; i < ds->splits; i++) {
        nsm_dataset_split *s = &ds->split[i];
        if (strcmp(s->name, name)) continue;
        for (int p = 0; p < NSM_SPLIT_PARTS; p++) {
            free(s->index[p]);
            s->index[p] = NULL;
            s->count[p] = 0;
        }
        return s;
    }
    return nsm_dataset_add_split(ds, name);
}

/* Everything in list that has a class, class by class, each in random order. */
static ticket *draw_list(const nsm_dataset *ds, const int32_t *list, int64_t count, uint64_t seed)
{
    ticket *t = nsmi_malloc(ds->ctx, (size_t)count * sizeof *t);
    for (int64_t k = 0; t && k < count; k++) t[k] = drawn(list[k], ds->label.cls[list[k]], seed);
    if (t) qsort(t, (size_t)count, sizeof *t, by_draw);
    return t;
}

int nsmi_split_valid(nsm_dataset *ds, nsm_dataset_split *s, double fraction, uint64_t seed)
{
    int64_t count = s->count[NSM_TRAIN];
    ticket *t = nsmi_failed(ds->ctx) ? NULL : draw_list(ds, s->index[NSM_TRAIN], count, seed);
    if (t) s->index[NSM_VALID] = nsm_dataset_array(ds, count, sizeof(int32_t));
    if (!nsmi_failed(ds->ctx)) s->count[NSM_TRAIN] = s->count[NSM_VALID] = 0;
    for (int64_t at = 0, end; at < count && !nsmi_failed(ds->ctx); at = end) {
        for (end = at; end < count && t[end].group == t[at].group; end++) {}
        int64_t valid = (int64_t)floor(fraction * (double)(end - at) + 0.5);
        for (int64_t k = at; k < end; k++) {
            int p = k - at < valid ? NSM_VALID : NSM_TRAIN;
            s->index[p][s->count[p]++] = t[k].index;
        }
    }
    for (int p = NSM_TRAIN; p <= NSM_VALID && !nsmi_failed(ds->ctx); p++)
        qsort(s->index[p], (size_t)s->count[p], sizeof(int32_t), by_index);
    free(t);
    return nsm_error(ds->ctx);
}

int nsm_dataset_split_make(nsm_dataset *ds, const char *name, const nsm_split_config *config)
{
    if (nsmi_failed(ds->ctx)) return nsm_error(ds->ctx);
    nsm_split_config c = config ? *config : (nsm_split_config){ 0 };
    nsm_dataset_split drawn = { 0 };
    int64_t count = 0;
    if (config_ok(ds, name, &c)) return nsm_error(ds->ctx);
    ticket *t = draw_order(ds, c.kind != NSM_SPLIT_RANDOM, c.seed, &count);
    nsm_dataset_split *s = t && deal(ds, &c, t, count, &drawn) == NSM_OK ? place(ds, name) : NULL;
    for (int p = 0; p < NSM_SPLIT_PARTS; p++) {
        if (s) {
            s->count[p] = drawn.count[p];
            s->index[p] = drawn.index[p];
        } else {
            free(drawn.index[p]);
        }
    }
    free(t);
    return nsm_error(ds->ctx);
}
