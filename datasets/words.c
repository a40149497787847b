/* datasets/words.c - Words to numbers: a hash table, and classes from words.
 * Open addressing, XXH3-64, at most two thirds full. */
#include "config.h"
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
