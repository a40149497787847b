/* predict.c - nsm predict: the class and the probabilities of every node, or the best entities at
 * the missing end of every test link.
 *
 * CSV "node,class,p0,p1,..." on standard output or in --out, of a model of graphs
 * "graph,class,..."; JSON lines with --json; an HDF5 file where --out ends in .h5: class [n] and
 * probability [n, C].  For labels that are several at once, or numbers, there is no class:
 * "node,p0,..." or "node,value0,...".
 *
 * Of links "head,relation,tail,asked,rank,entity0,score0,entity1,...": asked says which end is to
 * be told, rank how far behind the best ones the right answer is. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/hdf5.h"
#include "base/seal.h"
#include "tools/model.h"
#include "tools/report.h"

static const tool_option options[] = {
    MODEL_OPTIONS,
    { "out", 'o', "FILE", "write to FILE: CSV, or HDF5 if it ends in .h5" },
    { "best", 0, "K", "links: so many entities of each question (10)" },
    { 0 }
};

typedef struct {
    int64_t nodes, columns;
    float *p;         /* [nodes, columns] */
    int32_t *guess;   /* [nodes], NULL: the labels are no classes */
    const char *head; /* of a column: "p", "value" */
    link_best best;   /* of links, in place of all these */
    const nsm_dataset_links *link;
    const char *of; /* "node", or "graph" */
} prediction;

static bool predict_fused(nsm_ctx *ctx, model *m, prediction *p)
{
    bool graphs = m->ds->label.of_graphs;
    *p = (prediction){ .nodes = graphs ? m->ds->graphs : m->ds->node[m->ds->target].count,
                       .columns = m->meta.outputs,
                       .head = "p",
                       .of = graphs ? "graph" : "node" };
    p->p = node_array(ctx, p->nodes, p->columns, sizeof *p->p);
    p->guess = node_array(ctx, p->nodes, 1, sizeof *p->guess);
    if (nsm_error(ctx) || fused_task_predict(m->fused, p->p)) return false;
    for (int64_t i = 0; i < p->nodes; i++) {
        const float *row = p->p + i * p->columns;
        p->guess[i] = 0;
        for (int32_t c = 1; c < p->columns; c++)
            if (row[c] > row[p->guess[i]]) p->guess[i] = c;
    }
    return true;
}

static bool predict_links(tool *t, model *m, prediction *p)
{
    const char *text = tool_get(t, "best");
    char *end = "";
    errno = 0;
    long k = text ? strtol(text, &end, 10) : 10;
    if (*end || end == text || errno || k < 1)
        nsm_error_set(t->ctx, NSM_EINVAL, "--best=%s is no number of entities", text);
    p->link = &m->ds->link[NSM_TEST];
    return !nsm_error(t->ctx) && link_task_best(m->link, k, &p->best) == NSM_OK;
}

static bool predict(tool *t, model *m, prediction *p)
{
    nsm_ctx *ctx = t->ctx;
    if (m->link) return predict_links(t, m, p);
    if (tool_get(t, "best"))
        return !nsm_error_set(ctx, NSM_EINVAL, "--best is for models of links; %s is none",
                              m->path);
    if (m->fused) return predict_fused(ctx, m, p);
    nsm_label_kind kind = node_task_labels(m->task);
    bool classes = kind == NSM_LABEL_CLASS;
    *p = (prediction){ .nodes = node_task_nodes(m->task),
                       .columns = m->meta.outputs,
                       .head = kind == NSM_LABEL_VALUE ? "value" : "p",
                       .of = "node" };
    p->p = node_array(ctx, p->nodes, p->columns, sizeof *p->p);
    p->guess = classes ? node_array(ctx, p->nodes, 1, sizeof *p->guess) : NULL;
    return !nsm_error(ctx) && node_task_predict(m->task, p->p, p->guess) == NSM_OK;
}

/* ---- links ---- */
static void links_csv(FILE *f, const prediction *p)
{
    const link_best *b = &p->best;
    fputs("head,relation,tail,asked,rank", f);
    for (int64_t k = 0; k < b->k; k++)
        fprintf(f, ",entity%lld,score%lld", (long long)k, (long long)k);
    fputc('\n', f);
    for (int64_t i = 0; i < b->questions; i++) {
        fprintf(f, "%d,%d,%d,%s,%.7g", p->link->src[i / 2], p->link->relation[i / 2],
                p->link->dst[i / 2], i % 2 ? "head" : "tail", b->rank[i]);
        for (int64_t k = i * b->k; k < (i + 1) * b->k; k++)
            fprintf(f, ",%d,%.7g", b->entity[k], (double)b->score[k]);
        fputc('\n', f);
    }
}

static void links_lines(FILE *f, const prediction *p)
{
    const link_best *b = &p->best;
    for (int64_t i = 0; i < b->questions; i++) {
        fprintf(f, "{\"head\":%d,\"relation\":%d,\"tail\":%d,\"asked\":\"%s\",\"rank\":%.7g",
                p->link->src[i / 2], p->link->relation[i / 2], p->link->dst[i / 2],
                i % 2 ? "head" : "tail", b->rank[i]);
        for (int64_t k = 0; k < b->k; k++)
            fprintf(f, "%s%d", k ? "," : ",\"entity\":[", b->entity[i * b->k + k]);
        for (int64_t k = 0; k < b->k; k++)
            fprintf(f, "%s%.7g", k ? "," : "],\"score\":[", (double)b->score[i * b->k + k]);
        fputs("]}\n", f);
    }
}

static void links_hdf5(nsmi_h5 *h, const prediction *p)
{
    const link_best *b = &p->best;
    const int64_t links[] = { p->link->count }, ends[] = { p->link->count, 2, b->k };
    nsmi_h5_write(h, "head", NSM_I32, 1, links, p->link->src);
    nsmi_h5_write(h, "relation", NSM_I32, 1, links, p->link->relation);
    nsmi_h5_write(h, "tail", NSM_I32, 1, links, p->link->dst);
    nsmi_h5_write(h, "entity", NSM_I32, 3, ends, b->entity);
    nsmi_h5_write(h, "score", NSM_F32, 3, ends, b->score);
}

/* ---- nodes ---- */
static void write_csv(FILE *f, const prediction *p)
{
    if (p->link) {
        links_csv(f, p);
        return;
    }
    fprintf(f, "%s%s", p->of, p->guess ? ",class" : "");
    for (int64_t c = 0; c < p->columns; c++) fprintf(f, ",%s%lld", p->head, (long long)c);
    fputc('\n', f);
    for (int64_t i = 0; i < p->nodes; i++) {
        fprintf(f, "%lld", (long long)i);
        if (p->guess) fprintf(f, ",%d", p->guess[i]);
        for (int64_t c = 0; c < p->columns; c++)
            fprintf(f, ",%.7g", (double)p->p[i * p->columns + c]);
        fputc('\n', f);
    }
}

static void write_lines(FILE *f, const prediction *p)
{
    if (p->link) links_lines(f, p);
    for (int64_t i = 0; i < p->nodes; i++) {
        fprintf(f, "{\"%s\":%lld", p->of, (long long)i);
        if (p->guess) fprintf(f, ",\"class\":%d", p->guess[i]);
        fprintf(f, ",\"%s\":[", p->head);
        for (int64_t c = 0; c < p->columns; c++)
            fprintf(f, "%s%.7g", c ? "," : "", (double)p->p[i * p->columns + c]);
        fputs("]}\n", f);
    }
}

static int write_text(nsm_ctx *ctx, const char *path, const prediction *p)
{
    nsmi_draft *d = nsmi_draft_new(ctx, path);
    if (!d) return nsm_error(ctx);
    FILE *f = fopen(nsmi_draft_temporary(d), "w");
    if (f) write_csv(f, p);
    bool bad = !f || ferror(f);
    if (f && fclose(f)) bad = true;
    if (bad) nsm_error_set(ctx, NSM_EIO, "%s could not be written", path);
    return nsmi_draft_commit(ctx, d, NULL);
}

static int write_hdf5(nsm_ctx *ctx, const char *path, const prediction *p)
{
    nsmi_h5 *h = nsmi_h5_create(ctx, path, "predictions");
    if (h && p->link) links_hdf5(h, p);
    if (h && p->guess)
        nsmi_h5_write(h, "class", NSM_I32, 1, (const int64_t[]){ p->nodes }, p->guess);
    if (h && !p->link)
        nsmi_h5_write(h, p->guess || *p->head == 'p' ? "probability" : "value", NSM_F32, 2,
                      (const int64_t[]){ p->nodes, p->columns }, p->p);
    return nsmi_h5_commit(ctx, h);
}

static int run_predict(tool *t)
{
    model m;
    prediction p = { 0 };
    const char *out = tool_get(t, "out");
    size_t n = out ? strlen(out) : 0;
    if (model_open(t, t->arg[0], &m) && predict(t, &m, &p)) {
        if (out && n > 3 && !strcmp(out + n - 3, ".h5")) write_hdf5(t->ctx, out, &p);
        else if (out) write_text(t->ctx, out, &p);
        else if (t->json) write_lines(stdout, &p);
        else write_csv(stdout, &p);
    }
    int code = nsm_error(t->ctx) ? tool_error(t) : TOOL_DONE;
    if (code == TOOL_DONE && (out || t->json)) {
        json_t *o = json_pack("{s:s, s:s, s:I, s:I}", "checkpoint", m.path, "data", m.options.data,
                              p.link         ? "questions"
                              : *p.of == 'g' ? "graphs"
                                             : "nodes",
                              (json_int_t)(p.link ? p.best.questions : p.nodes),
                              p.link    ? "best"
                              : p.guess ? "classes"
                                        : "columns",
                              (json_int_t)(p.link ? p.best.k : p.columns));
        if (o && out) json_object_set_new(o, "file", json_string(out));
        code = report_result(t, o);
    }
    free(p.p);
    free(p.guess);
    link_best_clear(&p.best);
    model_close(&m);
    return code;
}

const tool_command predict_command = {
    .name = "predict",
    .args = "CHECKPOINT|RUN",
    .summary = "Predict the class of every node, or the missing ends of test links.",
    .details = "CSV with the header node,class,p0,p1,... (of links "
               "head,relation,tail,asked,rank,entity0,score0,...) goes to standard output or to "
               "--out.  RUN "
               "is a run's folder: its kept model is "
               "taken.  With --data the model is put to another graph, of the same features.",
    .options = options,
    .least = 1,
    .most = 1,
    .run = run_predict
};
