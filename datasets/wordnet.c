/* datasets/wordnet.c - WordNet's database files (wndb(5WN)): a folder with data.noun, data.verb,
 * data.adj, data.adv.
 *
 * Every synset is a node, in the order of these files and their lines; its name is its first word.
 * Every pointer is a directed edge of the type of its symbol; pointers between two senses count for
 * their synsets.  The lexicographer file is the class.  Features are the words of the synset and of
 * its gloss: lower-case runs of letters and digits, hashed (XXH3-64) to `features` columns, tf-idf
 *
 *   val = tf * (log((1 + n) / (1 + df)) + 1),  rows of length 1,
 *
 * df counted by column, so that words which share one share their weight.  The text is the same
 * words in their order, less those that come less than `least` times.  Part of speech is no
 * feature: the classes would give it away.
 *
 * With `genus` the words of definitions have classes: is a word (a form of) a lemma of one of the
 * synset's direct hypernyms?  That is the genus term, "animal" in "a young animal", that the
 * definition begins from.  A definition is the gloss up to its first quoted example; a lemma of
 * several words is marked whole, its last word in any form that morphy(7WN) takes off by rule.
 * Synsets without hypernyms, and words outside of definitions, are not asked.
 *
 * A line:  offset lex_filenum ss_type w_cnt word lex_id ... p_cnt symbol offset pos src/tgt ... |
 * gloss */
#include "config.h"
#include <xxhash.h>
#include "datasets/words.h"

enum {
    FILES = 4,
    CLASSES = 45,
    MAX_TOKEN = 64,
    MAX_LINE = 1 << 15 /* the longest real one has less than half */
};

static const struct { const char *file, *letters; } parts[FILES] = {
    { "data.noun", "n" }, { "data.verb", "v" }, { "data.adj", "as" }, { "data.adv", "r" },
};

static const char *const classes[CLASSES] = {
    "adj.all",          "adj.pert",           "adv.all",
    "noun.Tops",        "noun.act",           "noun.animal",
    "noun.artifact",    "noun.attribute",     "noun.body",
    "noun.cognition",   "noun.communication", "noun.event",
    "noun.feeling",     "noun.food",          "noun.group",
    "noun.location",    "noun.motive",        "noun.object",
    "noun.person",      "noun.phenomenon",    "noun.plant",
    "noun.possession",  "noun.process",       "noun.quantity",
    "noun.relation",    "noun.shape",         "noun.state",
    "noun.substance",   "noun.time",          "verb.body",
    "verb.change",      "verb.cognition",     "verb.communication",
    "verb.competition", "verb.consumption",   "verb.contact",
    "verb.creation",    "verb.emotion",       "verb.motion",
    "verb.perception",  "verb.possession",    "verb.social",
    "verb.stative",     "verb.weather",       "adj.ppl",
};

static const struct { const char *symbol, *name;
} relations[] = {
    { "!", "antonym" },
    { "@", "hypernym" },
    { "@i", "instance_hypernym" },
    { "~", "hyponym" },
    { "~i", "instance_hyponym" },
    { "#m", "member_holonym" },
    { "#s", "substance_holonym" },
    { "#p", "part_holonym" },
    { "%m", "member_meronym" },
    { "%s", "substance_meronym" },
    { "%p", "part_meronym" },
    { "=", "attribute" },
    { "+", "derivation" },
    { ";c", "domain_topic" },
    { "-c", "member_topic" },
    { ";r", "domain_region" },
    { "-r", "member_region" },
    { ";u", "domain_usage" },
    { "-u", "member_usage" },
    { "*", "entailment" },
    { ">", "cause" },
    { "^", "also_see" },
    { "$", "verb_group" },
    { "&", "similar" },
    { "<", "participle" },
    { "\\", "pertainym" },
};
enum { RELATIONS = sizeof relations / sizeof *relations };

enum { HYPERNYM = 1, INSTANCE_HYPERNYM }; /* of these */

/* What comes off the end of a form, and what takes its place; of nouns, of verbs. */
static const struct {
    const char *off, *on;
    bool verb;
} rules[] = {
    { "s", "", false },      { "ses", "s", false },   { "xes", "x", false },
    { "zes", "z", false },   { "ches", "ch", false }, { "shes", "sh", false },
    { "men", "man", false }, { "ies", "y", false },   { "s", "", true },
    { "ies", "y", true },    { "es", "e", true },     { "es", "", true },
    { "ed", "e", true },     { "ed", "", true },      { "ing", "e", true },
    { "ing", "", true },
};

typedef struct {
    int32_t from, offset;
    int8_t file, relation;
} pointer;


typedef struct {
    nsm_ctx *ctx;
    nsmi_text *text;
    int64_t first[FILES + 1];     /* nodes of file f are [first[f], first[f+1]) */
    int64_t nodes, node_room[3];
    int32_t *offset, *cls;        /* [nodes] */
    char **name;
    int64_t pointers, pointer_room;
    pointer *pointer;
    int64_t entries, entry_room[2], row_room;
    int64_t *ptr;     /* [nodes + 1] */
    int32_t *idx;     /* column of each entry */
    float *val;       /* tf, later tf-idf */
    int32_t columns;  /* a power of two */
    nsmi_texts texts; /* the same words in their order */
    int64_t lemmas, lemma_room, ptr_room[2];
    int64_t *lemma;      /* [lemmas] where the words of each end in texts */
    int64_t *lemma_ptr;  /* [nodes + 1] */
    int64_t *definition; /* [nodes] where the words of each definition end */
} wordnet;

/* ---- text features ---- */

static void add_word(void *user, const char *word)
{
    wordnet *w = user;
    int32_t column = (int32_t)(XXH3_64bits(word, strlen(word)) & (uint64_t)(w->columns - 1));
    if (!nsmi_texts_word(w->ctx, &w->texts, word)) return;
    for (int64_t k = w->ptr[w->nodes]; k < w->entries; k++)
        if (w->idx[k] == column) {
            w->val[k]++;
            return;
        }
    if (!nsmi_grow(w->ctx, &w->idx, w->entries, &w->entry_room[0], sizeof *w->idx) ||
        !nsmi_grow(w->ctx, &w->val, w->entries, &w->entry_room[1], sizeof *w->val)) return;
    w->idx[w->entries] = column;
    w->val[w->entries++] = 1;
}

/* tf to tf-idf; sort each row by column, to length 1. */
static void finish_row(wordnet *w, const float *idf, int64_t row)
{
    double squares = 0;
    int64_t first = w->ptr[row], end = w->ptr[row + 1];
    for (int64_t k = first; k < end; k++) {
        int32_t column = w->idx[k];
        float v = w->val[k] * idf[column];
        int64_t to = k;
        for (; to > first && w->idx[to - 1] > column; to--) {
            w->idx[to] = w->idx[to - 1];
            w->val[to] = w->val[to - 1];
        }
        w->idx[to] = column;
        w->val[to] = v;
        squares += (double)v * v;
    }
    float scale = squares > 0 ? (float)(1 / sqrt(squares)) : 0;
    for (int64_t k = first; k < end; k++) w->val[k] *= scale;
}

static void weigh(wordnet *w)
{
    float *idf = nsmi_calloc(w->ctx, (size_t)w->columns, sizeof *idf);
    if (!idf) return;
    for (int64_t k = 0; k < w->entries; k++) idf[w->idx[k]]++;
    for (int32_t c = 0; c < w->columns; c++)
        idf[c] = (float)(log((1 + (double)w->nodes) / (1 + (double)idf[c])) + 1);
    for (int64_t i = 0; i < w->nodes; i++) finish_row(w, idf, i);
    free(idf);
}

/* ---- lines ---- */

/* The next blank-separated field, NUL-terminated, or NULL. */
static char *field(char **p)
{
    char *s = *p;
    if (!*s) return NULL;
    char *end = strchr(s, ' ');
    *p = end ? end + 1 : s + strlen(s);
    if (end) *end = 0;
    return *s ? s : NULL;
}

static bool number(char **p, int64_t high, int64_t *value)
{
    const char *s = field(p);
    return s && nsmi_parse_int(&s, 0, high, value) && !*s;
}

static bool hex(char **p, int64_t high, int64_t *value)
{
    char *s = field(p);
    int64_t v = 0;
    if (!s || strlen(s) > 4 || strspn(s, "0123456789abcdef") != strlen(s)) return false;
    for (; *s; s++) v = v * 16 + (*s <= '9' ? *s - '0' : *s - 'a' + 10);
    *value = v;
    return v <= high;
}

static int file_of(char letter)
{
    for (int f = 0; letter && f < FILES; f++)
        if (strchr(parts[f].letters, letter)) return f;
    return -1;
}

static int relation_of(const char *symbol)
{
    for (int r = 0; r < RELATIONS; r++)
        if (!strcmp(symbol, relations[r].symbol)) return r;
    return -1;
}

static const char *read_words(wordnet *w, char **p)
{
    int64_t count = 0, id = 0;
    if (!hex(p, 255, &count) || count < 1) return "word count";
    for (int64_t i = 0; i < count; i++) {
        char *word = field(p);
        if (!word || !hex(p, 255, &id)) return "word";
        size_t n = strlen(word);
        /* "(p)": where an adjective may stand */
        char *mark = n && word[n - 1] == ')' ? strrchr(word, '(') : NULL;
        if (mark) *mark = 0;
        if (i == 0) w->name[w->nodes] = nsmi_strdup(w->ctx, word);
        nsmi_words_each(word, word + strlen(word), add_word, w);
        if (!nsmi_grow(w->ctx, &w->lemma, w->lemmas, &w->lemma_room, sizeof *w->lemma)) return NULL;
        w->lemma[w->lemmas++] = w->texts.entries;
    }
    return NULL;
}

static const char *read_pointers(wordnet *w, char **p)
{
    int64_t count = 0, offset = 0;
    if (!number(p, 999, &count)) return "pointer count";
    for (int64_t i = 0; i < count; i++) {
        char *symbol = field(p);
        int r = symbol ? relation_of(symbol) : -1;
        if (r < 0 || !number(p, 99999999, &offset)) return "pointer";
        char *letter = field(p), *senses = field(p);
        int file = letter && !letter[1] ? file_of(*letter) : -1;
        if (file < 0 || !senses || strspn(senses, "0123456789abcdef") != 4 || senses[4])
            return "pointer";
        if (!nsmi_grow(w->ctx, &w->pointer, w->pointers, &w->pointer_room, sizeof *w->pointer))
            return NULL;
        w->pointer[w->pointers++] = (pointer){ (int32_t)w->nodes, (int32_t)offset, (int8_t)file,
                                               (int8_t)r };
    }
    return NULL;
}

/* One synset; returns the part that is wrong, or NULL. */
static const char *read_synset(wordnet *w, int f, char *line)
{
    int64_t offset = 0, cls = 0;
    char *p = line, *gloss = strstr(line, " | ");
    if (!gloss) return "gloss";
    *gloss = 0;
    gloss += 3;
    if (!number(&p, 99999999, &offset)) return "offset";
    if (w->nodes > w->first[f] && offset <= w->offset[w->nodes - 1]) return "order of offsets";
    if (!number(&p, CLASSES - 1, &cls)) return "lexicographer file";
    char *type = field(&p);
    if (!type || type[1] || file_of(*type) != f) return "synset type";
    w->offset[w->nodes] = (int32_t)offset;
    w->cls[w->nodes] = (int32_t)cls;
    const char *wrong = read_words(w, &p);
    if (!wrong) wrong = read_pointers(w, &p);
    if (wrong) return wrong;
    char *end = gloss + strlen(gloss), *example = strchr(gloss, '"');
    if (!example) example = end;
    nsmi_words_each(gloss, example, add_word, w);
    w->definition[w->nodes] = w->texts.entries;
    nsmi_words_each(example, end, add_word, w);
    return NULL;
}

static bool room_for_synset(wordnet *w)
{
    return nsmi_grow(w->ctx, &w->offset, w->nodes, &w->node_room[0], sizeof *w->offset) &&
           nsmi_grow(w->ctx, &w->cls, w->nodes, &w->node_room[1], sizeof *w->cls) &&
           nsmi_grow(w->ctx, &w->name, w->nodes, &w->node_room[2], sizeof *w->name) &&
           nsmi_grow(w->ctx, &w->ptr, w->nodes + 1, &w->row_room, sizeof *w->ptr) &&
           nsmi_grow(w->ctx, &w->lemma_ptr, w->nodes + 1, &w->ptr_room[0], sizeof *w->lemma_ptr) &&
           nsmi_grow(w->ctx, &w->definition, w->nodes, &w->ptr_room[1], sizeof *w->definition);
}

static void read_file(wordnet *w, const char *folder, int f)
{
    char *path = nsmi_find_file(w->ctx, "%s/%s", folder, parts[f].file);
    if (!path) nsm_error_set(w->ctx, NSM_EIO, "%s/%s is missing", folder, parts[f].file);
    nsmi_text *t = path ? nsmi_text_open(w->ctx, path) : NULL;
    w->first[f] = w->nodes;
    for (char *line; (line = nsmi_text_line(t));) {
        if (line[0] == ' ' && line[1] == ' ') continue; /* the licence */
        if (strlen(line) > MAX_LINE) nsmi_text_error(t, "the line is too long");
        if (nsmi_failed(w->ctx) || !room_for_synset(w)) break;
        w->ptr[w->nodes] = w->entries;
        w->lemma_ptr[w->nodes] = w->lemmas;
        w->name[w->nodes] = NULL;
        const char *wrong = read_synset(w, f, line);
        w->nodes++;
        if (nsmi_failed(w->ctx)) break;
        if (wrong) {
            nsmi_text_error(t, "the %s of the synset is not as it should be", wrong);
            break;
        }
        w->ptr[w->nodes] = w->entries;
        w->lemma_ptr[w->nodes] = w->lemmas;
        if (!nsmi_texts_end(w->ctx, &w->texts)) break;
    }
    nsmi_text_close(t);
    free(path);
    w->first[f + 1] = w->nodes;
    if (!nsmi_failed(w->ctx) && w->nodes == w->first[f])
        nsm_error_set(w->ctx, NSM_EFORMAT, "%s/%s: holds no synset", folder, parts[f].file);
}

/* ---- the dataset ---- */

/* The node of a synset, by its file and offset; -1 if there is none. */
static int64_t find_synset(const wordnet *w, int f, int32_t offset)
{
    int64_t low = w->first[f], high = w->first[f + 1];
    while (low < high) {
        int64_t mid = (low + high) / 2;
        if (w->offset[mid] < offset) low = mid + 1;
        else high = mid;
    }
    return low < w->first[f + 1] && w->offset[low] == offset ? low : -1;
}

static void add_relations(wordnet *w, nsm_dataset *ds)
{
    int64_t count[RELATIONS] = { 0 };
    int type[RELATIONS];
    for (int64_t k = 0; k < w->pointers; k++) count[w->pointer[k].relation]++;
    for (int r = 0; r < RELATIONS; r++) {
        type[r] = ds->edge_types;
        if (count[r] && !nsm_dataset_add_edges(ds, relations[r].name, 0, 0, count[r])) return;
        count[r] = 0;
    }
    for (int64_t k = 0; k < w->pointers; k++) {
        const pointer *p = &w->pointer[k];
        int64_t to = find_synset(w, p->file, p->offset);
        if (to < 0) {
            nsm_error_set(w->ctx, NSM_EFORMAT, "%s: %08d points to %08d, where no synset is",
                          parts[p->file].file, w->offset[p->from], p->offset);
            return;
        }
        nsm_dataset_edges *e = &ds->edge[type[p->relation]];
        e->src[count[p->relation]] = p->from;
        e->dst[count[p->relation]++] = (int32_t)to;
    }
}

/* ---- genus terms ---- */

/* Is word this lemma, or by rule a form of it? */
static bool is_form(const char *word, const char *lemma, bool verb)
{
    size_t n = strlen(word), m = strlen(lemma);
    if (!strcmp(word, lemma)) return true;
    for (size_t r = 0; r < sizeof rules / sizeof *rules; r++) {
        size_t off = strlen(rules[r].off), on = strlen(rules[r].on);
        if (rules[r].verb == verb && n > off && n - off + on == m &&
            !strcmp(word + n - off, rules[r].off) && !memcmp(word, lemma, n - off) &&
            !strcmp(lemma + n - off, rules[r].on))
            return true;
    }
    return false;
}

/* Mark a lemma, words first .. end of texts, where it stands in words at .. last. */
static void mark_lemma(const wordnet *w, int64_t first, int64_t end, bool verb, int64_t at,
                       int64_t last, int32_t *label)
{
    const int32_t *id = w->texts.id;
    char *const *word = w->texts.words.word;
    int64_t n = end - first;
    for (; n > 0 && at + n <= last; at++) {
        int64_t same = 0;
        while (same < n - 1 && id[at + same] == id[first + same]) same++;
        if (same < n - 1 || !is_form(word[id[at + same]], word[id[end - 1]], verb)) continue;
        for (int64_t k = 0; k < n; k++) label[at + k] = 1;
    }
}

/* Classes of all words; NULL: out of memory. */
static int32_t *genus_terms(const wordnet *w)
{
    int32_t *label = nsmi_malloc(w->ctx, (size_t)w->texts.entries * sizeof *label);
    for (int64_t k = 0; label && k < w->texts.entries; k++) label[k] = -1;
    for (int64_t k = 0; label && k < w->pointers; k++) {
        const pointer *p = &w->pointer[k];
        int64_t to = find_synset(w, p->file, p->offset),
                at = w->lemma[w->lemma_ptr[p->from + 1] - 1], last = w->definition[p->from];
        if ((p->relation != HYPERNYM && p->relation != INSTANCE_HYPERNYM) || to < 0) continue;
        for (int64_t i = at; i < last; i++)
            if (label[i] < 0) label[i] = 0;
        for (int64_t l = w->lemma_ptr[to]; l < w->lemma_ptr[to + 1]; l++) {
            bool own = l == w->lemma_ptr[to]; /* a synset's words are where its row begins */
            int64_t first = own ? to ? w->texts.end[to - 1] : 0 : w->lemma[l - 1];
            mark_lemma(w, first, w->lemma[l], !strcmp(parts[p->file].letters, "v"), at, last,
                       label);
        }
    }
    return label;
}

static void set_genus(wordnet *w, nsm_dataset *ds)
{
    nsm_dataset_text *t = &ds->node[0].text;
    t->label = genus_terms(w);
    if (!t->label) return;
    t->classes = 2;
    t->class_names = nsmi_calloc(w->ctx, 2, sizeof *t->class_names);
    if (t->class_names) t->class_names[0] = nsm_dataset_string(ds, "other");
    if (t->class_names) t->class_names[1] = nsm_dataset_string(ds, "genus");
}

static void set_labels(wordnet *w, nsm_dataset *ds)
{
    nsm_dataset_labels *l = &ds->label;
    *l = (nsm_dataset_labels){
        .kind = NSM_LABEL_CLASS, .count = w->nodes, .columns = CLASSES, .cls = w->cls
    };
    w->cls = NULL;
    l->names = nsmi_calloc(w->ctx, CLASSES, sizeof *l->names);
    for (int c = 0; l->names && c < CLASSES; c++) l->names[c] = nsm_dataset_string(ds, classes[c]);
}

static nsm_dataset *finish(wordnet *w, const nsmi_options *o)
{
    nsm_dataset *ds = nsm_dataset_new(w->ctx, "wordnet");
    nsm_dataset_nodes *v = ds ? nsm_dataset_add_nodes(ds, "synset", w->nodes) : NULL;
    if (!v) return ds;
    nsm_dataset_release(ds->description);
    ds->description = nsm_dataset_string(
        ds, "WordNet: synsets, their pointers, words and glosses as hashed tf-idf, "
            "lexicographer files as classes");
    ds->directed = true;
    weigh(w);
    v->features = w->columns;
    v->ptr = w->ptr;
    v->idx = w->idx;
    v->val = w->val;
    v->names = w->name;
    w->ptr = NULL;
    w->idx = NULL;
    w->val = NULL;
    w->name = NULL;
    nsmi_texts_to_nodes(ds, &w->texts, nsmi_option_int(o, "least", 1, INT32_MAX, 3), v);
    add_relations(w, ds);
    if (nsmi_option_bool(o, "genus", false) && !nsmi_failed(w->ctx)) set_genus(w, ds);
    set_labels(w, ds);
    nsm_dataset_split_make(ds, "default",
                           &(nsm_split_config){
                               .kind = NSM_SPLIT_STRATIFIED,
                               .seed = (uint64_t)nsmi_option_int(o, "seed", 0, INT64_MAX, 0) });
    return ds;
}

nsm_dataset *nsmi_import_wordnet(nsm_ctx *ctx, const char *source, const nsmi_options *o)
{
    wordnet w = { .ctx = ctx };
    nsm_dataset *ds = NULL;
    w.columns = (int32_t)nsmi_option_int(o, "features", 2, 1 << 24, 1 << 15);
    if (w.columns & (w.columns - 1))
        nsm_error_set(ctx, NSM_EINVAL, "%s: features=%d is not a power of two", o->who, w.columns);
    for (int f = 0; f < FILES && !nsmi_failed(ctx); f++) read_file(&w, source, f);
    if (!nsmi_failed(ctx)) ds = finish(&w, o);
    nsmi_h5_free_strings(w.name, w.nodes);
    nsmi_texts_clear(&w.texts);
    free(w.lemma);
    free(w.lemma_ptr);
    free(w.definition);
    free(w.offset);
    free(w.cls);
    free(w.pointer);
    free(w.ptr);
    free(w.idx);
    free(w.val);
    if (!nsmi_failed(ctx)) return ds;
    nsm_dataset_free(ds);
    return NULL;
}
