/* model.c - From a checkpoint, or a run's folder, to a model that is ready to run. */
#include "tools/model.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/checkpoint.h"
#include "base/hdf5.h"

/* The checkpoint that `from` means; NULL with an error. */
static char *find_checkpoint(nsm_ctx *ctx, const char *from)
{
    struct stat st;
    char *path = NULL;
    if (stat(from, &st) || !S_ISDIR(st.st_mode))
        path = strdup(from); /* what is not there is reported on reading */
    else {
        if (asprintf(&path, "%s/best.h5", from) < 0) path = NULL;
        if (path && access(path, F_OK) == 0) return path;
        free(path);
        path = nsm_checkpoint_newest(ctx, from, NULL);
        if (!path) nsm_error_set(ctx, NSM_EIO, "%s: there is no checkpoint in this folder", from);
        return path;
    }
    if (!path) nsm_error_set(ctx, NSM_ENOMEM, "out of memory");
    return path;
}

bool model_read(tool *t, const char *from, model *m)
{
    nsm_ctx *ctx = t->ctx;
    *m = (model){.path = find_checkpoint(ctx, from)};
    if (!m->path || trainer_read(ctx, m->path, &m->meta) ||
        settings_init(ctx, train_fields, &m->options))
        return false;
    /* Settings that a later version added are not known here, and need not be. */
    return settings_parse(ctx, train_fields, &m->options, m->meta.config, strlen(m->meta.config),
                          m->path, true) == NSM_OK;
}

bool model_open(tool *t, const char *from, model *m)
{
    nsm_ctx *ctx = t->ctx;
    const char *data = tool_get(t, "data"), *split = tool_get(t, "split");
    if (!model_read(t, from, m)) return false;
    if (data) settings_set(ctx, train_fields, &m->options, "data", data, "--data");
    if (split) settings_set(ctx, train_fields, &m->options, "split", split, "--split");
    else if (data)
        settings_set(ctx, train_fields, &m->options, "split", "",
                     "--data"); /* another file has splits of its own */
    m->ds = node_dataset(ctx, &m->options);
    if (m->ds && fused_wanted(&m->options))
        m->fused = fused_task_new(ctx, &m->options, m->ds, &m->meta);
    else if (m->ds && link_wanted(&m->options))
        m->link = link_task_new(ctx, &m->options, m->ds, &m->meta);
    else m->task = node_task_new(ctx, &m->options, m->ds, &m->meta);
    if (!m->fused && !m->link && !m->task) return false;
    task *what = m->fused  ? fused_task_base(m->fused)
                 : m->link ? link_task_base(m->link)
                           : node_task_base(m->task);
    return trainer_load(ctx, m->path, what->module) == NSM_OK;
}

bool model_of_nodes(tool *t, const model *m, const char *what)
{
    if (m->fused)
        nsm_error_set(t->ctx, NSM_EINVAL, "%s is for models of nodes; %s fuses modalities", what,
                      m->path);
    if (m->link)
        nsm_error_set(t->ctx, NSM_EINVAL, "%s is for models of nodes; %s predicts links", what,
                      m->path);
    return m->task != NULL;
}

void model_close(model *m)
{
    node_task_free(m->task);
    fused_task_free(m->fused);
    link_task_free(m->link);
    nsm_dataset_free(m->ds);
    settings_clear(train_fields, &m->options);
    trainer_meta_clear(&m->meta);
    free(m->path);
}

bool model_weights_read(nsm_ctx *ctx, const char *path, bool with_data, model_weights *w)
{
    *w = (model_weights){0};
    nsmi_h5 *h = nsmi_h5_open(ctx, path, "checkpoint");
    char **name = h ? nsmi_h5_list(h, "weights", &w->count) : NULL;
    w->weight = name ? calloc((size_t)w->count + 1, sizeof *w->weight) : NULL;
    if (name && !w->weight)
        nsm_error_set(ctx, NSM_ENOMEM, "out of memory for the weights of %s", path);
    for (int64_t i = 0; w->weight && i < w->count && !nsm_error(ctx); i++) {
        struct model_weight *x = &w->weight[i];
        char at[2 * NSMI_H5_MAX_NAME];
        snprintf(at, sizeof at, "weights/%s", name[i]);
        x->name = strdup(name[i]);
        if (!x->name) nsm_error_set(ctx, NSM_ENOMEM, "out of memory for the weights of %s", path);
        if (nsmi_h5_shape(h, at, &x->type, &x->rank, x->dim)) break;
        int64_t count = 1;
        for (int k = 0; k < x->rank; k++) count *= x->dim[k];
        w->parameters += count;
        if (with_data) x->data = nsmi_h5_read(h, at, (nsm_type)x->type, x->rank, x->dim);
    }
    if (name) nsmi_h5_free_strings(name, w->count);
    nsmi_h5_close(h);
    return nsm_error(ctx) == NSM_OK;
}

void model_weights_clear(model_weights *w)
{
    for (int64_t i = 0; w->weight && i < w->count; i++) {
        free(w->weight[i].name);
        free(w->weight[i].data);
    }
    free(w->weight);
}
