/* datasets/node_pictures.c - Pictures of nodes from files, all brought to one size. */
#include "config.h"
#include <strings.h>
#include "datasets/node_pictures.h"

enum { MOST_SIDE = 1 << 16 };

nsm_picture_options nsmi_picture_wanted(const nsmi_options *o)
{
    const char *size = nsmi_option_text(o, "size", NULL);
    nsm_picture_options wanted = { 0 };
    if (size) {
        char side[2][24] = { "", "" };
        const char *p[2] = { side[0], side[1] }, *by = strchr(size, 'x');
        snprintf(side[0], sizeof side[0], "%.*s", (int)strcspn(size, "x"), size);
        snprintf(side[1], sizeof side[1], "%s", by ? by + 1 : side[0]);
        if (!nsmi_parse_int(&p[0], 1, MOST_SIDE, &wanted.height) || *p[0] ||
            !nsmi_parse_int(&p[1], 1, MOST_SIDE, &wanted.width) || *p[1])
            nsm_error_set(o->ctx, NSM_EINVAL,
                          "%s: size=%.40s is neither a height nor HEIGHTxWIDTH, of 1 to %d", o->who,
                          size, MOST_SIDE);
    }
    int64_t channels = nsmi_option_int(o, "channels", 1, 3, 3);
    if (channels == 2)
        nsm_error_set(o->ctx, NSM_EINVAL, "%s: channels=2 is neither 1, grey, nor 3, colours",
                      o->who);
    wanted.channels = (int)channels;
    return wanted;
}

/* ---- one by one ---- */
static int64_t bytes_of(const nsm_dataset_images *m) { return m->height * m->width * m->channels; }

bool nsmi_images_room(nsm_dataset *ds, nsm_dataset_nodes *v, const nsm_picture *like)
{
    int64_t bytes = like->height * like->width * like->channels;
    v->image = (nsm_dataset_images){ like->height, like->width, like->channels,
                                     nsm_dataset_array(ds, v->count, (size_t)bytes),
                                     nsm_dataset_array(ds, v->count, 1) };
    if (!v->image.pixel || !v->image.there) return false;
    memset(v->image.pixel, 0, (size_t)(v->count * bytes));
    memset(v->image.there, 0, (size_t)v->count);
    return true;
}

void nsmi_images_put(nsm_dataset_nodes *v, int64_t i, const nsm_picture *p)
{
    int64_t bytes = bytes_of(&v->image);
    memcpy(v->image.pixel + i * bytes, p->pixel, (size_t)bytes);
    v->image.there[i] = 1;
}

int64_t nsmi_images_end(nsm_dataset_nodes *v)
{
    int64_t count = 0;
    for (int64_t i = 0; i < v->count; i++) count += v->image.there[i];
    if (count == v->count) {
        nsm_dataset_release(v->image.there);
        v->image.there = NULL;
    }
    return count;
}

/* ---- from files ---- */
char *nsmi_picture_path(nsm_ctx *ctx, const char *folder, const char *name)
{
    if (*name == '/') return nsmi_strdup(ctx, name);
    size_t room = strlen(folder) + strlen(name) + 2;
    char *path = nsmi_malloc(ctx, room);
    if (path) snprintf(path, room, "%s/%s", folder, name);
    return path;
}

void nsmi_picture_paths_free(char **path, int64_t count)
{
    for (int64_t i = 0; path && i < count; i++) free(path[i]);
    free(path);
}

/* Where the name of a picture's file ends before its suffix; 0: it is none. */
static size_t before_suffix(const char *name)
{
    const char *dot = strrchr(name, '.');
    bool is = dot &&
              (!strcasecmp(dot, ".png") || !strcasecmp(dot, ".jpg") || !strcasecmp(dot, ".jpeg"));
    return is ? (size_t)(dot - name) : 0;
}

static void take_file(nsm_ctx *ctx, const char *folder, const char *file, const nsmi_words *node,
                      char **path)
{
    size_t n = before_suffix(file);
    char *name = n ? nsmi_strdup(ctx, file) : NULL;
    if (!name) return;
    name[n] = 0;
    int64_t i = nsmi_words_find(node, name);
    if (i < 0)
        nsm_error_set(ctx, NSM_EFORMAT,
                      "%s/%s: there is no node %.60s; image=COLUMN takes only the pictures that a "
                      "column names",
                      folder, file, name);
    else if (path[i])
        nsm_error_set(ctx, NSM_EFORMAT, "%s/%s: node %.60s has a picture already, %s", folder, file,
                      name, path[i]);
    else path[i] = nsmi_picture_path(ctx, folder, file);
    free(name);
}

char **nsmi_pictures_in(nsm_ctx *ctx, const char *folder, const nsmi_words *node)
{
    char **path = nsmi_calloc(ctx, (size_t)node->count + 1, sizeof *path);
    char **file = path ? nsmi_list_folder(ctx, folder) : NULL;
    for (char **f = file; f && *f && !nsmi_failed(ctx); f++) take_file(ctx, folder, *f, node, path);
    nsmi_free_list(file);
    if (!nsmi_failed(ctx)) return path;
    nsmi_picture_paths_free(path, node->count);
    return NULL;
}

int nsmi_pictures_to_nodes(nsm_dataset *ds, nsm_dataset_nodes *v, char *const *path,
                           const nsmi_options *o)
{
    nsm_picture_options wanted = nsmi_picture_wanted(o);
    const nsm_dataset_images *m = &v->image;
    const char *first = NULL;
    for (int64_t i = 0; i < v->count && !nsmi_failed(ds->ctx); i++) {
        nsm_picture p;
        if (!path[i] || nsm_picture_read(ds->ctx, path[i], &wanted, &p)) continue;
        if (!first && nsmi_images_room(ds, v, &p)) first = path[i];
        if (first && (p.height != m->height || p.width != m->width))
            nsm_error_set(ds->ctx, NSM_EFORMAT,
                          "%s has %lld x %lld pixels, %s %lld x %lld; size=HEIGHTxWIDTH makes them "
                          "one size",
                          path[i], (long long)p.height, (long long)p.width, first,
                          (long long)m->height, (long long)m->width);
        else if (first) nsmi_images_put(v, i, &p);
        nsm_picture_clear(&p);
    }
    if (!first && !nsmi_failed(ds->ctx))
        nsm_error_set(ds->ctx, NSM_EFORMAT, "%s: no node has a picture", o->who);
    if (!nsmi_failed(ds->ctx)) nsmi_images_end(v);
    return nsm_error(ds->ctx);
}
