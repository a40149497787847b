/* tests/datasets/sample.c - See sample.h. */
#include "config.h"
#include <errno.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include "tests/datasets/sample.h"

/* ---- folders and files ---- */

static char folder[256];

const char *sample_folder(void)
{
    const char *tmp = getenv("TMPDIR");
    if (!*folder) {
        snprintf(folder, sizeof folder, "%.200s/nsm-test-XXXXXX", tmp && *tmp ? tmp : "/tmp");
        if (!mkdtemp(folder)) abort();
    }
    return folder;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *where)
{
    (void)st; (void)flag; (void)where;
    return remove(path);
}

void sample_folder_remove(void)
{
    if (*folder) nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    *folder = 0;
}

const char *sample_path(const char *format, ...)
{
    static char ring[16][512];
    static int next;
    char *p = ring[next++ % 16];
    va_list args;
    int n = snprintf(p, 512, "%s/", sample_folder());
    va_start(args, format);
    vsnprintf(p + n, (size_t)(512 - n), format, args);
    va_end(args);
    return p;
}

static void make_folders(const char *path)
{
    char part[512];
    for (const char *s = path + 1; (s = strchr(s, '/')); s++) {
        snprintf(part, sizeof part, "%.*s", (int)(s - path), path);
        if (mkdir(part, 0777) && errno != EEXIST) abort();
    }
}

void sample_write(const char *path, const void *data, size_t bytes)
{
    make_folders(path);
    bool pack = strlen(path) > 3 && !strcmp(path + strlen(path) - 3, ".gz") &&
                !(bytes > 1 &&
                  !memcmp(data, "\x1f\x8b", 2)); /* a packed text that is written back */
    if (pack) {
        gzFile f = gzopen(path, "wb9");
        if (!f || (bytes && gzwrite(f, data, (unsigned)bytes) != (int)bytes) || gzclose(f)) abort();
    } else {
        FILE *f = fopen(path, "wb");
        if (!f || fwrite(data, 1, bytes, f) != bytes || fclose(f)) abort();
    }
}

void *sample_read(const char *path, size_t *bytes)
{
    FILE *f = fopen(path, "rb");
    if (!f) abort();
    fseek(f, 0, SEEK_END);
    *bytes = (size_t)ftell(f);
    rewind(f);
    char *p = malloc(*bytes + 1);
    if (!p || fread(p, 1, *bytes, f) != *bytes) abort();
    p[*bytes] = 0;
    fclose(f);
    return p;
}

const char *sample_shared(const char *name)
{
    static char path[512];
    const char *root = getenv("NSM_SHARED"), *top = getenv("top_srcdir");
    if (root && *root) snprintf(path, sizeof path, "%s/data/%s", root, name);
    else snprintf(path, sizeof path, "%s/../shared/data/%s", top && *top ? top : ".", name);
    return access(path, R_OK) ? NULL : path;
}

/* ---- a dataset of everything ---- */

static float value(int64_t i) { return (float)(i * 37 % 101) / 16 - 3; }

static void add_sparse(nsm_dataset *ds, nsm_dataset_nodes *v)
{
    v->features = 9;
    v->ptr = nsm_dataset_array(ds, v->count + 1, sizeof *v->ptr);
    v->idx = nsm_dataset_array(ds, v->count * 2, sizeof *v->idx);
    v->val = nsm_dataset_array(ds, v->count * 2, sizeof *v->val);
    for (int64_t i = 0, k = 0; v->val && i <= v->count; i++) {
        v->ptr[i] = k;
        for (int c = 0; i < v->count && i % 3 && c < 2; c++, k++) {
            v->idx[k] = (int32_t)(i % 4 + 4 * c);
            v->val[k] = value(k + 1);
        }
    }
}

static void add_labels(nsm_dataset *ds, nsm_label_kind kind, bool graphs)
{
    static const char *const words[] = { "red", "green", "blue" };
    nsm_dataset_labels *l = &ds->label;
    if (kind == NSM_LABEL_NONE) return;
    *l = (nsm_dataset_labels){ .kind = kind, .of_graphs = graphs, .columns = 3 };
    l->count = graphs ? ds->graphs : ds->node[0].count;
    if (kind == NSM_LABEL_CLASS) l->cls = nsm_dataset_array(ds, l->count, sizeof *l->cls);
    if (kind == NSM_LABEL_MULTI) l->multi = nsm_dataset_array(ds, l->count * 3, 1);
    if (kind == NSM_LABEL_VALUE) l->value = nsm_dataset_array(ds, l->count * 3, sizeof *l->value);
    for (int64_t i = 0; l->cls && i < l->count; i++) l->cls[i] = (int32_t)(i % 3);
    for (int64_t i = 0; l->multi && i < l->count * 3; i++)
        l->multi[i] = (uint8_t)(i % 5 == 4 ? 255 : i % 2);
    for (int64_t i = 0; l->value && i < l->count * 3; i++) l->value[i] = value(i);
    l->names = calloc(3, sizeof *l->names);
    for (int c = 0; c < 3; c++) l->names[c] = nsm_dataset_string(ds, words[c]);
    for (int s = 0; s < 2; s++) {
        nsm_dataset_split *split = nsm_dataset_add_split(ds, s ? "second one" : "default");
        for (int p = 0; split && p < NSM_SPLIT_PARTS; p++) {
            split->index[p] = nsm_dataset_array(ds, 1, sizeof(int32_t));
            if (!split->index[p]) return;
            split->index[p][0] = (p + s) % 3;
            split->count[p] = p == 1 && s ? 0 : 1;
        }
    }
}

static void add_edges(nsm_dataset *ds, bool graphs)
{
    nsm_dataset_edges *e = nsm_dataset_add_edges(ds, "links", 0, 0, 12);
    for (int k = 0; e && k < 12; k++) {
        e->src[k] = k % 4 == 3 ? k - 3 : k;
        e->dst[k] = k % 4 == 3 ? k - 3 : k + 1 - 2 * (k % 4 == 2);
    }
    if (e) e->weight = nsm_dataset_array(ds, 12, sizeof *e->weight);
    for (int k = 0; e && e->weight && k < 12; k++) e->weight[k] = value(k);
    e = graphs ? NULL : nsm_dataset_add_edges(ds, "of", 1, 0, 3);
    for (int k = 0; e && k < 3; k++) {
        e->src[k] = k;
        e->dst[k] = 2 * k;
    }
    if (!e) return;
    e->feature = nsm_dataset_array(ds, 6, sizeof *e->feature);
    e->features = 2;
    for (int k = 0; e->feature && k < 6; k++) e->feature[k] = value(k);
}

static void add_content(nsm_dataset *ds)
{
    static const int32_t id[] = { 2, 0, 1, 1, 2 }, label[] = { -1, 0, 1, 0, -1 };
    nsm_dataset_nodes *v = &ds->node[0];
    nsm_dataset_text *t = &v->text;
    nsm_dataset_images *m = &v->image;
    *t = (nsm_dataset_text){ .vocab = 3, .classes = 2 };
    t->ptr = nsm_dataset_array(ds, v->count + 1, sizeof *t->ptr);
    t->id = nsm_dataset_array(ds, 5, sizeof *t->id);
    t->label = nsm_dataset_array(ds, 5, sizeof *t->label);
    if (t->label) memcpy(t->label, label, sizeof label);
    t->class_names = calloc(2, sizeof *t->class_names);
    for (int i = 0; t->class_names && i < 2; i++)
        t->class_names[i] = nsm_dataset_string(ds, i ? "marked" : "other");
    for (int64_t i = 0; t->ptr && i <= v->count; i++) t->ptr[i] = i < 2 ? 0 : i < 5 ? 3 : 5;
    if (t->id) memcpy(t->id, id, sizeof id);
    t->symbol = calloc(3, sizeof *t->symbol);
    for (int i = 0; t->symbol && i < 3; i++) t->symbol[i] = nsmi_format(ds->ctx, "word %d", i);
    *m = (nsm_dataset_images){ .height = 3, .width = 2, .channels = 4 };
    m->pixel = nsm_dataset_array(ds, v->count * 24, 1);
    m->there = nsm_dataset_array(ds, v->count, 1);
    for (int64_t i = 0; m->pixel && i < v->count * 24; i++) m->pixel[i] = (uint8_t)(i * 7);
    for (int64_t i = 0; m->there && i < v->count; i++) m->there[i] = i % 4 != 1;
}

static void add_questions(nsm_dataset *ds)
{
    static const int32_t node[] = { 0, 0, 3, 11 }, answer[] = { 1, 0, 1, 1 },
                         kind[] = { 0, 1, 0, 0 }, pointed[] = { -1, 6, 0, 3 };
    nsm_dataset_questions *q = &ds->question;
    *q = (nsm_dataset_questions){
        .count = 4, .features = 2, .classes = 2, .groups = 2, .pointed_type = ds->node_types - 1
    };
    q->pointed = nsm_dataset_array(ds, 4, sizeof *q->pointed);
    if (q->pointed) memcpy(q->pointed, pointed, sizeof pointed);
    q->node = nsm_dataset_array(ds, 4, sizeof *q->node);
    q->answer = nsm_dataset_array(ds, 4, sizeof *q->answer);
    q->group = nsm_dataset_array(ds, 4, sizeof *q->group);
    q->value = nsm_dataset_array(ds, 8, sizeof *q->value);
    if (q->node) memcpy(q->node, node, sizeof node);
    if (q->answer) memcpy(q->answer, answer, sizeof answer);
    if (q->group) memcpy(q->group, kind, sizeof kind);
    for (int i = 0; q->value && i < 8; i++) q->value[i] = value(i);
    q->answer_names = calloc(2, sizeof *q->answer_names);
    for (int i = 0; q->answer_names && i < 2; i++)
        q->answer_names[i] = nsm_dataset_string(ds, i ? "yes" : "no");
    q->value_names = calloc(2, sizeof *q->value_names);
    for (int i = 0; q->value_names && i < 2; i++)
        q->value_names[i] = nsm_dataset_string(ds, i ? "large" : "round");
}

static void add_links(nsm_dataset *ds)
{
    for (int p = NSM_VALID; p <= NSM_TEST; p++) {
        if (nsm_dataset_links_make(ds, p, p + 1)) return;
        for (int i = 0; i <= p; i++) {
            ds->link[p].src[i] = i;
            ds->link[p].relation[i] = 0;
            ds->link[p].dst[i] = 2 * i;
        }
    }
}

nsm_dataset *sample_new(nsm_ctx *ctx, nsm_label_kind kind, bool graphs)
{
    nsm_dataset *ds = nsm_dataset_new(ctx, "sample");
    nsm_dataset_nodes *v = ds ? nsm_dataset_add_nodes(ds, "thing", 12) : NULL;
    if (!v) return ds;
    ds->directed = true;
    v->features = 5;
    v->dense = nsm_dataset_array(ds, 12 * 5, sizeof *v->dense);
    for (int i = 0; v->dense && i < 60; i++) v->dense[i] = value(i);
    v->names = calloc(12, sizeof *v->names);
    for (int i = 0; v->names && i < 12; i++) v->names[i] = nsmi_format(ctx, "thing %d", i * i * i);
    if (graphs) {
        ds->graphs = 3;
        v->graph_ptr = nsm_dataset_array(ds, 4, sizeof *v->graph_ptr);
        for (int g = 0; v->graph_ptr && g < 4; g++) v->graph_ptr[g] = 4 * g;
    } else if ((v = nsm_dataset_add_nodes(ds, "kind", 7))) {
        add_sparse(ds, v);
    }
    if (!nsmi_failed(ctx)) add_content(ds);
    if (!nsmi_failed(ctx)) add_questions(ds);
    if (!nsmi_failed(ctx)) add_edges(ds, graphs);
    if (!nsmi_failed(ctx)) add_links(ds);
    if (!nsmi_failed(ctx)) add_labels(ds, kind, graphs);
    return ds;
}

/* ---- comparing ---- */

static bool same(const void *a, const void *b, int64_t count, size_t bytes)
{
    return (!a && !b) || (a && b && !memcmp(a, b, (size_t)count * bytes)) || count == 0;
}

static bool same_words(char *const *a, char *const *b, int64_t count)
{
    for (int64_t i = 0; a && b && i < count; i++)
        if (strcmp(a[i], b[i])) return false;
    return !a == !b;
}

static const char *content_difference(const nsm_dataset_nodes *a, const nsm_dataset_nodes *b)
{
    const nsm_dataset_text *s = &a->text, *t = &b->text;
    const nsm_dataset_images *m = &a->image, *o = &b->image;
    if (s->vocab != t->vocab || !same(s->ptr, t->ptr, a->count + 1, 8)) return "text";
    if (s->ptr && !same(s->id, t->id, s->ptr[a->count], 4)) return "words";
    if (!same_words(s->symbol, t->symbol, s->vocab)) return "symbols";
    if (s->classes != t->classes || !same_words(s->class_names, t->class_names, s->classes))
        return "classes of words";
    if (s->ptr && !same(s->label, t->label, s->ptr[a->count], 4)) return "labels of words";
    if (m->height != o->height || m->width != o->width || m->channels != o->channels)
        return "size of pictures";
    if (!same(m->there, o->there, a->count, 1)) return "which pictures are there";
    int64_t pixels = a->count * m->height * m->width * m->channels;
    return same(m->pixel, o->pixel, pixels, 1) ? NULL : "pixels";
}

static const char *questions_difference(const nsm_dataset_questions *a,
                                        const nsm_dataset_questions *b)
{
    if (a->count != b->count || a->features != b->features || a->classes != b->classes ||
        a->groups != b->groups)
        return "questions";
    if (!same(a->node, b->node, a->count, 4) || !same(a->answer, b->answer, a->count, 4) ||
        !same(a->group, b->group, a->count, 4) ||
        !same(a->value, b->value, a->count * a->features, 4))
        return "what is asked";
    if (a->pointed_type != b->pointed_type || !same(a->pointed, b->pointed, a->count, 4))
        return "what is pointed at";
    if (!same_words(a->value_names, b->value_names, a->features)) return "names of values";
    if (!same_words(a->answer_names, b->answer_names, a->classes)) return "names of answers";
    return same_words(a->group_names, b->group_names, a->groups) ? NULL : "names of kinds";
}

static const char *nodes_difference(const nsm_dataset *d, const nsm_dataset_nodes *a,
                                    const nsm_dataset_nodes *b)
{
    if (strcmp(a->name, b->name) || a->count != b->count || a->features != b->features)
        return "node type";
    if (!same(a->dense, b->dense, a->count * a->features, 4)) return "dense features";
    if (!same(a->ptr, b->ptr, a->count + 1, 8)) return "ptr";
    if (a->ptr && !same(a->idx, b->idx, a->ptr[a->count], 4)) return "idx";
    if (a->ptr && !same(a->val, b->val, a->ptr[a->count], 4)) return "val";
    if (!same_words(a->names, b->names, a->count)) return "names";
    if (content_difference(a, b)) return content_difference(a, b);
    return same(a->graph_ptr, b->graph_ptr, d->graphs + 1, 8) ? NULL : "graph_ptr";
}

static const char *edges_difference(const nsm_dataset_edges *a, const nsm_dataset_edges *b)
{
    if (strcmp(a->name, b->name) || a->count != b->count || a->features != b->features)
        return "edge type";
    if (a->src_type != b->src_type || a->dst_type != b->dst_type) return "types of an edge";
    if (!same(a->src, b->src, a->count, 4) || !same(a->dst, b->dst, a->count, 4)) return "edges";
    if (!same(a->weight, b->weight, a->count, 4)) return "weights";
    return same(a->feature, b->feature, a->count * a->features, 4) ? NULL : "edge features";
}

static const char *labels_difference(const nsm_dataset_labels *a, const nsm_dataset_labels *b)
{
    if (a->kind != b->kind || a->of_graphs != b->of_graphs || a->count != b->count ||
        a->columns != b->columns)
        return "labels";
    if (!same(a->cls, b->cls, a->count, 4) || !same(a->multi, b->multi, a->count * a->columns, 1) ||
        !same(a->value, b->value, a->count * a->columns, 4)) return "label values";
    return same_words(a->names, b->names, a->columns) ? NULL : "label names";
}

const char *sample_difference(const nsm_dataset *a, const nsm_dataset *b)
{
    const char *what = NULL;
    if (strcmp(a->name, b->name) || strcmp(a->description, b->description))
        return "name or description";
    if (a->directed != b->directed || a->graphs != b->graphs || a->target != b->target)
        return "root";
    if (a->node_types != b->node_types || a->edge_types != b->edge_types || a->splits != b->splits)
        return "counts";
    for (int i = 0; !what && i < a->node_types; i++)
        what = nodes_difference(a, &a->node[i], &b->node[i]);
    for (int i = 0; !what && i < a->edge_types; i++)
        what = edges_difference(&a->edge[i], &b->edge[i]);
    if (!what) what = labels_difference(&a->label, &b->label);
    if (!what) what = questions_difference(&a->question, &b->question);
    for (int p = 0; !what && p < NSM_SPLIT_PARTS; p++) {
        const nsm_dataset_links *l = &a->link[p], *m = &b->link[p];
        if (l->count != m->count || !same(l->src, m->src, l->count, 4) ||
            !same(l->relation, m->relation, l->count, 4) || !same(l->dst, m->dst, l->count, 4))
            what = "links";
    }
    for (int i = 0; !what && i < a->splits; i++) {
        if (strcmp(a->split[i].name, b->split[i].name)) return "split name";
        for (int p = 0; p < NSM_SPLIT_PARTS; p++)
            if (a->split[i].count[p] != b->split[i].count[p] ||
                !same(a->split[i].index[p], b->split[i].index[p], a->split[i].count[p], 4))
                return "split";
    }
    return what;
}

/* ---- sources of the importers ---- */

#define OGB_BODY \
    "0,1\n1,2\n2,3\n0,3\n3,4\n4,4\n", "5\n", "6\n", "1\n0\n-1\n1\n2\n", "0\n3\n", "1\n", "4\n"

const sample_source sample_sources[] = {
    { "triples",
      "triples",
      { "train.txt", "valid.txt", "test.txt", "said.tsv" },
      { "a\tlikes\tb\nb\tlikes\tc\nc\tknows\ta\n", "a\tlikes\tc\n", "d\tknows\tb\nb\tknows\tc\n",
        "b\tTwo words, two\na\tone\nx\tof nobody\nd\t\n" },
      "",
      { { "text", "@said.tsv" } },
      1,
      false },
    { "ogb",
      "ogb-plain",
      { "raw/edge.csv", "raw/num-node-list.csv", "raw/num-edge-list.csv", "raw/node-label.csv",
        "split/s/train.csv", "split/s/valid.csv", "split/s/test.csv", "raw/node-feat.csv" },
      { OGB_BODY, "0.5,1,-2e-3\n1,2,3\n.25,0,1e9\n4,5,6\n7,8,9.125\n" },
      "",
      { { 0 } },
      0,
      false },
    { "ogb",
      "ogb-packed",
      { "raw/edge.csv.gz", "raw/num-node-list.csv.gz", "raw/num-edge-list.csv.gz",
        "raw/node-label.csv.gz", "split/s/train.csv.gz", "split/s/valid.csv.gz",
        "split/s/test.csv.gz", "raw/node-feat.mtx.gz" },
      { OGB_BODY, "%%MatrixMarket matrix coordinate real general\n% made by hand\n5 4 5\n1 1 "
                  "0.5\n1 3 2\n3 2 1\n5 4 -1\n4 1 7\n" },
      "",
      { { 0 } },
      0,
      true },
    { "ogb",
      "ogb-typed",
      { "raw/relation-list.csv", "raw/edge-likes.csv", "raw/edge-knows.csv",
        "raw/num-node-list.csv", "raw/node-feat.mtx", "raw/node-label.csv" },
      { "likes,2\nknows,1\n", "0,1\n2,0\n", "1,2\n", "3\n",
        "%%MatrixMarket matrix coordinate pattern general\n3 2 2\n1 1\n2 2\n", "0,1\n1,1\n0,0\n" },
      "",
      { { "inverse", "true" }, { "splits", "false" } },
      2,
      false },
    { "ogb",
      "ogb-graphs",
      { "raw/edge.csv", "raw/num-node-list.csv", "raw/num-edge-list.csv", "raw/graph-label.csv",
        "raw/node-feat.csv", "raw/edge-feat.csv", "split/scaffold/train.csv",
        "split/scaffold/valid.csv", "split/scaffold/test.csv" },
      { "0,1\n1,2\n0,1\n2,0\n", "3\n1\n3\n", "2\n0\n2\n", "0,1\n,nan\n1,0\n",
        "5,0\n6,0\n7,1\n8,0\n5,1\n6,1\n7,1\n", "1\n2\n3\n4\n", "0\n", "1\n", "2\n" },
      "",
      { { 0 } },
      0,
      false },
    { "wordnet",
      "wordnet",
      { "data.noun", "data.verb", "data.adj", "data.adv" },
      { "  1 This is a licence line\n"
        "00000001 03 n 01 entity 0 002 ~ 00000090 n 0000 + 00000001 v 0101 | that which is "
        "\"there\"\n"
        "00000090 05 n 02 dog 0 domestic_dog 1 001 @ 00000001 n 0000 | a member of the genus "
        "Canis\n",
        "00000001 31 v 01 be 0 001 + 00000001 n 0101 01 + 02 00 | exist\n",
        "00000001 00 s 01 alive(p) 0 001 \\ 00000090 n 0101 | living\n",
        "00000001 02 r 01 not 0 000 | negation\n" },
      "",
      { { "features", "64" } },
      1,
      false },
    { "tu",
      "SET",
      { "SET_A.txt", "SET_graph_indicator.txt", "SET_graph_labels.txt", "SET_node_labels.txt",
        "SET_node_attributes.txt", "SET_edge_labels.txt", "10fold_idx/train_idx-1.txt",
        "10fold_idx/test_idx-1.txt" },
      { "1, 2\n2, 1\n3, 4\n4, 3\n", "1\n1\n2\n2\n", "-1\n1\n", "0\n5\n0\n5\n",
        "0.5, 1\n2, 3\n4, 5\n6, 7\n", "0\n0\n1\n1\n", "0\n", "1\n" },
      "",
      { { 0 } },
      0,
      false },
    { "csv",
      "csv",
      { "edges.csv", "nodes.csv" },
      { "from,to,w\nx,y,1.5\ny,\"z \"\"q\"\"\",2\n",
        "id,f1,lab,f2,said\nx,1,A,2,Red and blue\ny,3,B,4,\n\"z \"\"q\"\"\",5,,6,\"blue, "
        "blue\"\n" },
      "edges.csv",
      { { "nodes", "@nodes.csv" }, { "label", "lab" }, { "weight", "w" }, { "text", "said" } },
      4,
      false },
#ifdef HAVE_IGRAPH
    { "graphml",
      "graphml",
      { "g.graphml" },
      { "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<graphml "
        "xmlns=\"http://graphml.graphdrawing.org/xmlns\">\n"
        "<key id=\"l\" for=\"node\" attr.name=\"label\" attr.type=\"int\"/>\n"
        "<key id=\"x\" for=\"node\" attr.name=\"x\" attr.type=\"double\"/>\n"
        "<key id=\"w\" for=\"edge\" attr.name=\"weight\" attr.type=\"double\"/>\n"
        "<graph id=\"g\" edgedefault=\"undirected\">\n"
        "<node id=\"a\"><data key=\"l\">0</data><data key=\"x\">1.5</data></node>\n"
        "<node id=\"b\"><data key=\"l\">1</data><data key=\"x\">-2</data></node>\n"
        "<edge source=\"a\" target=\"b\"><data key=\"w\">3</data></edge>\n</graph></graphml>\n" },
      "g.graphml",
      { { "label", "label" } },
      1,
      false },
    { "gml",
      "gml",
      { "g.gml" },
      { "graph [ directed 1 node [ id 1 name \"one\" x 1.5 ] node [ id 2 name \"two\" x 2 ] edge [ "
        "source 1 target 2 weight 2 ] ]\n" },
      "g.gml",
      { { 0 } },
      0,
      false },
    { "pajek",
      "pajek",
      { "g.net" },
      { "*Vertices 3\n1 \"a\" 0.1 0.2\n2 \"b\" 0.3 0.4\n3 \"c\" 0.5 0.6\n*Edges\n1 2 1.5\n2 3 "
        "2\n" },
      "g.net",
      { { 0 } },
      0,
      false },
    { "edgelist", "edgelist", { "g.txt" }, { "0 1\n1 2\n2 0\n" }, "g.txt", { { 0 } }, 0, false },
#endif
    { NULL },
};

const char *sample_make(const sample_source *s)
{
    for (int i = 0; i < 12 && s->file[i]; i++)
        sample_write(sample_path("%s/%s", s->name, s->file[i]), s->text[i], strlen(s->text[i]));
    return sample_path(*s->source ? "%s/%s" : "%s%s", s->name, s->source);
}

nsm_dataset *sample_import(nsm_ctx *ctx, const sample_source *s)
{
    nsm_option option[4];
    for (int i = 0; i < s->options; i++) {
        option[i] = s->option[i];
        if (*option[i].value == '@')
            option[i].value = sample_path("%s/%s", s->name, option[i].value + 1);
    }
    return nsm_import(ctx, s->format,
                      sample_path(*s->source ? "%s/%s" : "%s%s", s->name, s->source), option,
                      s->options);
}
