/* export.c - nsm export: a model in other programs' formats.
 *   FILE.safetensors  the weights, under the names they have in the checkpoint
 *   FILE.graphml      the graph with predictions, and attention where the model has it (igraph)
 *   FILE.png          of a dataset: its first pictures, on one sheet (libpng) */
#include <stdlib.h>
#include <string.h>
#include "base/safetensors.h"
#include "base/seal.h"
#include "config.h"
#include "datasets/picture.h"
#include "tools/model.h"
#include "tools/report.h"
#ifdef HAVE_IGRAPH
#include <igraph/igraph.h>
#endif

static const tool_option options[] = {MODEL_OPTIONS, {0}};

static int export_weights(tool *t, const char *path)
{
    model m;
    model_weights w = {0};
    if (model_read(t, t->arg[0], &m) && model_weights_read(t->ctx, m.path, true, &w)) {
        nsm_safetensors_array *array = calloc((size_t)w.count + 1, sizeof *array);
        const nsm_safetensors_text text = {"nsm.config", m.meta.config};
        for (int64_t i = 0; array && i < w.count; i++)
            array[i] = (nsm_safetensors_array){w.weight[i].name, (nsm_type)w.weight[i].type,
                                               w.weight[i].rank, w.weight[i].dim, w.weight[i].data};
        if (!array) nsm_error_set(t->ctx, NSM_ENOMEM, "out of memory for the list of weights");
        else nsm_safetensors_write(t->ctx, path, array, w.count, &text, 1);
        free(array);
    }
    int code =
        nsm_error(t->ctx)
            ? tool_error(t)
            : report_result(t, json_pack("{s:s, s:I, s:I}", "file", path, "tensors",
                                         (json_int_t)w.count, "numbers", (json_int_t)w.parameters));
    model_weights_clear(&w);
    model_close(&m);
    return code;
}

#ifdef HAVE_IGRAPH

#define TRY(call) ((call) == IGRAPH_SUCCESS)

/* Attributes of the nodes: name, label, prediction, its probability. */
static bool add_node_attributes(igraph_t *g, const nsm_dataset *ds, const float *p,
                                const int32_t *guess, int64_t columns)
{
    const nsm_dataset_nodes *nodes = &ds->node[ds->target];
    bool labelled = ds->label.kind == NSM_LABEL_CLASS && !ds->label.of_graphs, ok = true;
    for (int what = 0; what < 3 && ok; what++) { /* name, class, predicted */
        static const char *const attribute[] = {"name", "class", "predicted"};
        igraph_strvector_t v;
        if ((what == 0 && !nodes->names) || (what == 1 && !labelled)) continue;
        if (!TRY(igraph_strvector_init(&v, nodes->count))) return false;
        for (int64_t i = 0; i < nodes->count && ok; i++) {
            char number[32];
            int32_t k = what == 1 ? ds->label.cls[i] : guess[i];
            snprintf(number, sizeof number, "%d", k);
            const char *text = what == 0         ? nodes->names[i]
                               : k < 0           ? ""
                               : ds->label.names ? ds->label.names[k]
                                                 : number;
            ok = TRY(igraph_strvector_set(&v, i, text));
        }
        ok = ok && TRY(igraph_cattribute_VAS_setv(g, attribute[what], &v));
        igraph_strvector_destroy(&v);
    }
    igraph_vector_t v;
    if (!ok || !TRY(igraph_vector_init(&v, nodes->count))) return false;
    for (int64_t i = 0; i < nodes->count; i++) VECTOR(v)[i] = (double)p[i * columns + guess[i]];
    ok = TRY(igraph_cattribute_VAN_setv(g, "probability", &v));
    igraph_vector_destroy(&v);
    return ok;
}

static bool add_attention(igraph_t *g, const node_edges *e)
{
    igraph_vector_t v;
    if (!e->attention) return true;
    if (!TRY(igraph_vector_init(&v, e->count))) return false;
    for (int64_t k = 0; k < e->count; k++) VECTOR(v)[k] = (double)e->attention[k];
    bool ok = TRY(igraph_cattribute_EAN_setv(g, "attention", &v));
    igraph_vector_destroy(&v);
    return ok;
}

static bool make_graph(igraph_t *g, const node_edges *e, int64_t nodes)
{
    igraph_vector_int_t list;
    if (!TRY(igraph_vector_int_init(&list, 2 * e->count))) return false;
    for (int64_t k = 0; k < e->count; k++) {
        VECTOR(list)[2 * k] = e->src[k];
        VECTOR(list)[2 * k + 1] = e->dst[k];
    }
    bool ok = TRY(igraph_create(g, &list, nodes, true));
    igraph_vector_int_destroy(&list);
    return ok;
}

static int write_graphml(nsm_ctx *ctx, const char *path, const igraph_t *g)
{
    nsmi_draft *d = nsmi_draft_new(ctx, path);
    if (!d) return nsm_error(ctx);
    FILE *f = fopen(nsmi_draft_temporary(d), "w");
    bool bad = !f || !TRY(igraph_write_graph_graphml(g, f, true));
    if (f && fclose(f)) bad = true;
    if (bad) nsm_error_set(ctx, NSM_EIO, "%s could not be written as GraphML", path);
    return nsmi_draft_commit(ctx, d, NULL);
}

static int export_graph(tool *t, const char *path)
{
    model m;
    igraph_t g;
    node_edges e = {0};
    nsm_ctx *ctx = t->ctx;
    float *p = NULL;
    int32_t *guess = NULL;
    int64_t nodes = 0, edges = 0;
    igraph_set_error_handler(igraph_error_handler_ignore);
    igraph_set_attribute_table(&igraph_cattribute_table);
    if (model_open(t, t->arg[0], &m) && model_of_nodes(t, &m, "nsm export graph") &&
        node_task_edges(m.task, &e) == NSM_OK) {
        nodes = node_task_nodes(m.task);
        edges = e.count;
        p = node_array(ctx, nodes, m.meta.outputs, sizeof *p);
        guess = node_array(ctx, nodes, 1, sizeof *guess);
        if (!nsm_error(ctx) && node_task_predict(m.task, p, guess) == NSM_OK) {
            if (!make_graph(&g, &e, nodes))
                nsm_error_set(ctx, NSM_ENOMEM, "out of memory for the graph");
            else {
                if (add_node_attributes(&g, m.ds, p, guess, m.meta.outputs) &&
                    add_attention(&g, &e))
                    write_graphml(ctx, path, &g);
                else
                    nsm_error_set(ctx, NSM_ENOMEM, "out of memory for the attributes of the graph");
                igraph_destroy(&g);
            }
        }
    }
    int code = nsm_error(ctx)
                   ? tool_error(t)
                   : report_result(t, json_pack("{s:s, s:I, s:I}", "file", path, "nodes",
                                                (json_int_t)nodes, "edges", (json_int_t)edges));
    node_edges_clear(&e);
    free(p);
    free(guess);
    model_close(&m);
    return code;
}

#else
static int export_graph(tool *t, const char *path)
{
    return tool_fail(t, "%s: this nsm was built without igraph and cannot write GraphML", path);
}
#endif

enum { SHEET = 8, GAP = 2 }; /* pictures of a row and column, pixels between them */

/* The first pictures of the first type that has some; those that are not there stay grey. */
static bool make_sheet(nsm_ctx *ctx, const nsm_dataset *ds, nsm_picture *sheet, int64_t *count)
{
    int type = 0;
    while (type < ds->node_types && !ds->node[type].image.channels) type++;
    const nsm_dataset_images *m = type < ds->node_types ? &ds->node[type].image : NULL;
    if (!m || m->channels > 4) {
        nsm_error_set(ctx, NSM_EINVAL, "dataset %s has no pictures of 1 to 4 channels", ds->name);
        return false;
    }
    int64_t n = ds->node[type].count < SHEET * SHEET ? ds->node[type].count : SHEET * SHEET,
            cols = n < SHEET ? n : SHEET, rows = (n + SHEET - 1) / SHEET, c = m->channels;
    *sheet = (nsm_picture){ rows * (m->height + GAP) - GAP, cols * (m->width + GAP) - GAP, c,
                            NULL };
    *count = n;
    if (n > 0) sheet->pixel = malloc((size_t)(sheet->height * sheet->width * c));
    if (!sheet->pixel) {
        nsm_error_set(ctx, NSM_ENOMEM, "no memory, or no picture, for a sheet of %lld",
                      (long long)n);
        return false;
    }
    memset(sheet->pixel, 160, (size_t)(sheet->height * sheet->width * c));
    for (int64_t i = 0; i < n * m->height; i++) {
        int64_t k = i / m->height, y = k / SHEET * (m->height + GAP) + i % m->height,
                x = k % SHEET * (m->width + GAP);
        if (!m->there || m->there[k])
            memcpy(sheet->pixel + (y * sheet->width + x) * c, m->pixel + i * m->width * c,
                   (size_t)(m->width * c));
    }
    return true;
}

static int export_pictures(tool *t, const char *path)
{
    nsm_picture sheet = { 0 };
    int64_t count = 0;
    nsm_dataset *ds = nsm_dataset_load(t->ctx, t->arg[0], NULL);
    if (ds && make_sheet(t->ctx, ds, &sheet, &count)) nsm_picture_write(t->ctx, path, &sheet);
    int code = nsm_error(t->ctx)
                   ? tool_error(t)
                   : report_result(t, json_pack("{s:s, s:I, s:I, s:I}", "file", path, "pictures",
                                                (json_int_t)count, "width", (json_int_t)sheet.width,
                                                "height", (json_int_t)sheet.height));
    nsm_picture_clear(&sheet);
    nsm_dataset_free(ds);
    return code;
}

static bool ends(const char *s, const char *with)
{
    size_t n = strlen(s), m = strlen(with);
    return n > m && !strcmp(s + n - m, with);
}

static int run_export(tool *t)
{
    const char *path = t->arg[1];
    if (ends(path, ".safetensors")) return export_weights(t, path);
    if (ends(path, ".graphml")) return export_graph(t, path);
    if (ends(path, ".png")) return export_pictures(t, path);
    return tool_usage(t,
                      "%s: a file ends in .safetensors (weights), .graphml (the graph with "
                      "predictions) or .png (pictures of a dataset)",
                      path);
}

const tool_command export_command = {
    .name = "export",
    .args = "CHECKPOINT|RUN|DATA FILE",
    .summary = "Write weights, predictions or pictures for other programs.",
    .details = "FILE.safetensors gets the weights.  FILE.graphml gets the graph: each node with "
               "its class, the predicted one and the "
               "probability of that; each edge with its attention, where the model has it.  "
               "FILE.png gets the first 64 pictures of a dataset, side by side.",
    .options = options,
    .least = 2,
    .most = 2,
    .run = run_export
};
