/* datasets/words.c - Words to numbers: a hash table, texts and classes from words.
 * Open addressing, XXH3-64, at most two thirds full. */
#include "config.h"
#include <math.h>
#include <xxhash.h>
#include "datasets/words.h"

void nsmi_words_clear(nsmi_words *w)
{
    nsmi_h5_free_strings(w->word, w->count);
    free(w->slot);
    *w = (nsmi_words){ 0 };
}

static int64_t *slot_of(const nsmi_words *w, const char *word)
{
    uint64_t mask = (uint64_t)w->slots - 1, at = XXH3_64bits(word, strlen(word)) & mask;
    while (w->slot[at] && strcmp(w->word[w->slot[at] - 1], word)) at = (at + 1) & mask;
    return &w->slot[at];
}

static bool grow_slots(nsm_ctx *ctx, nsmi_words *w)
{
    int64_t slots = w->slots ? w->slots * 2 : 1024;
    int64_t *slot = nsmi_calloc(ctx, (size_t)slots, sizeof *slot);
    if (!slot) return false;
    free(w->slot);
    w->slot = slot;
    w->slots = slots;
    for (int64_t i = 0; i < w->count; i++) *slot_of(w, w->word[i]) = i + 1;
    return true;
}

int64_t nsmi_words_find(const nsmi_words *w, const char *word)
{
    return w->slots ? *slot_of(w, word) - 1 : -1;
}

int64_t nsmi_words_add(nsm_ctx *ctx, nsmi_words *w, const char *word)
{
    if (w->count * 3 >= w->slots * 2 && !grow_slots(ctx, w)) return -1;
    int64_t *slot = slot_of(w, word);
    if (*slot) return *slot - 1;
    if (!nsmi_grow(ctx, &w->word, w->count, &w->room, sizeof *w->word)) return -1;
    w->word[w->count] = nsmi_strdup(ctx, word);
    if (!w->word[w->count]) return -1;
    *slot = ++w->count;
    return w->count - 1;
}

/* ---- texts ---- */
static bool letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (unsigned char)c >= 128;
}

void nsmi_words_each(const char *s, const char *end, void (*take)(void *user, const char *word),
                     void *user)
{
    char word[NSMI_WORD_MOST + 1];
    while (s < end) {
        size_t n = 0;
        for (; s < end && letter(*s); s++)
            if (n < NSMI_WORD_MOST) word[n++] = *s >= 'A' && *s <= 'Z' ? (char)(*s + 32) : *s;
        word[n] = 0;
        if (n) take(user, word);
        else s++;
    }
}

bool nsmi_texts_word(nsm_ctx *ctx, nsmi_texts *t, const char *word)
{
    int64_t id = nsmi_words_add(ctx, &t->words, word);
    if (id < 0 || !nsmi_grow(ctx, &t->id, t->entries, &t->room, sizeof *t->id)) return false;
    t->id[t->entries++] = (int32_t)id;
    return true;
}

bool nsmi_texts_end(nsm_ctx *ctx, nsmi_texts *t)
{
    if (!nsmi_grow(ctx, &t->end, t->rows, &t->row_room, sizeof *t->end)) return false;
    t->end[t->rows++] = t->entries;
    return true;
}

/* [words] the number in the dataset of each word, rare ones 0; *kept: how many there are. */
static int32_t *new_numbers(nsm_ctx *ctx, const nsmi_texts *t, int64_t least, int64_t *kept)
{
    int64_t *count = nsmi_calloc(ctx, (size_t)t->words.count + 1, sizeof *count);
    int32_t *number = nsmi_calloc(ctx, (size_t)t->words.count + 1, sizeof *number);
    *kept = 1;
    for (int64_t k = 0; count && k < t->entries; k++) count[t->id[k]]++;
    for (int64_t w = 0; count && number && w < t->words.count; w++)
        number[w] = count[w] >= least ? (int32_t)(*kept)++ : 0;
    free(count);
    return number;
}

int nsmi_texts_to_nodes(nsm_dataset *ds, nsmi_texts *t, int64_t least, nsm_dataset_nodes *v)
{
    int64_t kept;
    int32_t *number = new_numbers(ds->ctx, t, least, &kept);
    nsm_dataset_text *x = &v->text;
    *x = (nsm_dataset_text){ .vocab = kept };
    x->ptr = nsm_dataset_array(ds, v->count + 1, sizeof *x->ptr);
    x->id = nsm_dataset_array(ds, t->entries, sizeof *x->id);
    x->symbol = nsmi_calloc(ds->ctx, (size_t)kept, sizeof *x->symbol);
    if (number && !nsmi_failed(ds->ctx)) {
        x->ptr[0] = 0;
        for (int64_t i = 0; i < v->count; i++)
            x->ptr[i + 1] = i < t->rows ? t->end[i] : x->ptr[i];
        for (int64_t k = 0; k < t->entries; k++) x->id[k] = number[t->id[k]];
        x->symbol[0] = nsm_dataset_string(ds, "?");
        for (int64_t w = 0; w < t->words.count; w++)
            if (number[w]) x->symbol[number[w]] = nsm_dataset_string(ds, t->words.word[w]);
    }
    free(number);
    return nsm_error(ds->ctx);
}

static int by_column(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* A row of columns, ascending, with repeats -> each once, weighed; how many. */
static int64_t weigh_row(int64_t n, int32_t *column, float *value)
{
    int64_t kept = 0;
    double square = 0;
    for (int64_t k = 0; k < n; k++)
        if (!kept || column[kept - 1] != column[k]) column[kept] = column[k], value[kept++] = 1;
        else value[kept - 1]++;
    for (int64_t k = 0; k < kept; k++) square += (double)value[k] * (double)value[k];
    for (int64_t k = 0; k < kept; k++) value[k] = (float)((double)value[k] / sqrt(square));
    return kept;
}

int nsmi_texts_to_features(nsm_dataset *ds, nsm_dataset_nodes *v)
{
    const nsm_dataset_text *t = &v->text;
    int64_t at = 0;
    v->ptr = nsm_dataset_array(ds, v->count + 1, sizeof *v->ptr);
    v->idx = nsm_dataset_array(ds, t->ptr[v->count], sizeof *v->idx);
    v->val = nsm_dataset_array(ds, t->ptr[v->count], sizeof *v->val);
    if (nsmi_failed(ds->ctx)) return nsm_error(ds->ctx);
    v->features = t->vocab;
    v->ptr[0] = 0;
    for (int64_t i = 0; i < v->count; i++) {
        int64_t n = 0;
        for (int64_t k = t->ptr[i]; k < t->ptr[i + 1]; k++)
            if (t->id[k]) v->idx[at + n++] = t->id[k];
        qsort(v->idx + at, (size_t)n, sizeof *v->idx, by_column);
        at += weigh_row(n, v->idx + at, v->val + at);
        v->ptr[i + 1] = at;
    }
    return NSM_OK;
}

void nsmi_texts_clear(nsmi_texts *t)
{
    nsmi_words_clear(&t->words);
    free(t->end);
    free(t->id);
    *t = (nsmi_texts){ 0 };
}

/* ---- classes ---- */
static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int by_number(const void *a, const void *b)
{
    const char *s = *(char *const *)a, *t = *(char *const *)b;
    int64_t x = 0, y = 0;
    nsmi_parse_int(&s, INT32_MIN, INT32_MAX, &x);
    nsmi_parse_int(&t, INT32_MIN, INT32_MAX, &y);
    return x != y ? (x > y) - (x < y) : by_text(a, b);
}

/* Classes in the order of their words: as numbers if all are whole numbers, else as text. */
int nsmi_words_to_classes(nsm_dataset *ds, nsmi_words *w, int32_t *cls, int64_t count)
{
    bool numbers = true;
    nsmi_words sorted = { 0 };
    nsm_dataset_labels *l = &ds->label;
    if (nsmi_failed(ds->ctx) || w->count == 0) {
        free(cls);
        return w->count ? nsm_error(ds->ctx)
                        : nsm_error_set(ds->ctx, NSM_EFORMAT,
                                        "dataset %s: the label column is empty", ds->name);
    }
    l->names = nsmi_calloc(ds->ctx, (size_t)w->count, sizeof *l->names);
    l->columns = w->count;
    for (int64_t i = 0; l->names && i < w->count; i++) {
        const char *p = w->word[i];
        int64_t v;
        numbers &= nsmi_parse_int(&p, INT32_MIN, INT32_MAX, &v) && !*p;
        l->names[i] = nsm_dataset_string(ds, w->word[i]);
    }
    if (!nsmi_failed(ds->ctx))
        qsort(l->names, (size_t)w->count, sizeof *l->names, numbers ? by_number : by_text);
    for (int64_t i = 0; !nsmi_failed(ds->ctx) && i < w->count; i++)
        nsmi_words_add(ds->ctx, &sorted, l->names[i]);
    for (int64_t i = 0; !nsmi_failed(ds->ctx) && i < count; i++)
        if (cls[i] >= 0) cls[i] = (int32_t)nsmi_words_find(&sorted, w->word[cls[i]]);
    nsmi_words_clear(&sorted);
    l->kind = NSM_LABEL_CLASS;
    l->count = count;
    l->cls = cls;
    return nsm_error(ds->ctx);
}
