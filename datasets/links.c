/* datasets/links.c - Links to be predicted, in a dataset and in its file. */
#include "config.h"
#include "datasets/internal.h"

#define FAULT(c, ...) nsmi_fault(c, (c)->code, __VA_ARGS__)

static const char *const parts[] = { "train", "valid", "test" };

void nsmi_links_free(nsm_dataset_links *l)
{
    free(l->src);
    free(l->relation);
    free(l->dst);
}

static bool link_ok(const nsmi_check *c, int p, int64_t i)
{
    const nsm_dataset *ds = c->ds;
    const nsm_dataset_links *l = &ds->link[p];
    int32_t r = l->relation[i];
    if (r < 0 || r >= ds->edge_types)
        return FAULT(c, "links: relation[%lld] of %s is %d, want 0..%d", (long long)i, parts[p], r,
                     ds->edge_types - 1);
    int64_t from = ds->node[ds->edge[r].src_type].count, to = ds->node[ds->edge[r].dst_type].count;
    if (l->src[i] < 0 || l->src[i] >= from || l->dst[i] < 0 || l->dst[i] >= to)
        return FAULT(c, "links: link %lld of %s joins %d and %d, of %lld and %lld nodes",
                     (long long)i, parts[p], l->src[i], l->dst[i], (long long)from, (long long)to);
    return true;
}

bool nsmi_links_ok(const nsmi_check *c)
{
    for (int p = 0; p < NSM_SPLIT_PARTS; p++) {
        const nsm_dataset_links *l = &c->ds->link[p];
        if (l->count < 0 || l->count > INT32_MAX ||
            (l->count && (!l->src || !l->relation || !l->dst)))
            return FAULT(c, "links: %lld of %s, and src, relation or dst is missing",
                         (long long)l->count, parts[p]);
        for (int64_t i = 0; i < l->count; i++)
            if (!link_ok(c, p, i)) return false;
    }
    return true;
}

/* "links/valid/src" in a buffer of the caller's */
enum { PATH = 64 };
static const char *at(char buf[PATH], int part, const char *leaf)
{
    snprintf(buf, PATH, "links/%s%s%s", parts[part], *leaf ? "/" : "", leaf);
    return buf;
}

void nsmi_links_write(nsmi_h5 *h, const nsm_dataset *ds)
{
    char p[PATH];
    const nsm_dataset_links *l = ds->link;
    if (!l[NSM_TRAIN].count && !l[NSM_VALID].count && !l[NSM_TEST].count) return;
    nsmi_h5_group(h, "links");
    for (int k = 0; k < NSM_SPLIT_PARTS; k++) {
        nsmi_h5_group(h, at(p, k, ""));
        nsmi_h5_write(h, at(p, k, "src"), NSM_I32, 1, &l[k].count, l[k].src);
        nsmi_h5_write(h, at(p, k, "relation"), NSM_I32, 1, &l[k].count, l[k].relation);
        nsmi_h5_write(h, at(p, k, "dst"), NSM_I32, 1, &l[k].count, l[k].dst);
    }
}

void nsmi_links_read(nsmi_h5 *h, nsm_dataset *ds)
{
    char p[PATH];
    if (!nsmi_h5_has(h, "links")) return;
    for (int k = 0; k < NSM_SPLIT_PARTS; k++) {
        nsm_dataset_links *l = &ds->link[k];
        int64_t count = -1;
        l->src = nsmi_h5_read(h, at(p, k, "src"), NSM_I32, 1, &count);
        if (!l->src) return;
        l->count = count;
        l->relation = nsmi_h5_read(h, at(p, k, "relation"), NSM_I32, 1, &count);
        l->dst = nsmi_h5_read(h, at(p, k, "dst"), NSM_I32, 1, &count);
    }
}

int nsm_dataset_links_make(nsm_dataset *ds, int part, int64_t count)
{
    nsm_dataset_links *l = &ds->link[part];
    nsmi_links_free(l);
    *l = (nsm_dataset_links){ .count = count };
    l->src = nsm_dataset_array(ds, count, sizeof *l->src);
    l->relation = nsm_dataset_array(ds, count, sizeof *l->relation);
    l->dst = nsm_dataset_array(ds, count, sizeof *l->dst);
    return nsm_error(ds->ctx);
}
