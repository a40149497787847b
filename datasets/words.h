/* datasets/words.h - Words to numbers 0, 1, ... in the order of their coming.  Not installed. */
#ifndef NSM_WORDS_H
#define NSM_WORDS_H
#include "datasets/internal.h"

/* Start from zero. */
typedef struct {
    char **word;       /* [count] */
    int64_t count, room;
    int64_t *slot;     /* [slots] number + 1, or 0 */
    int64_t slots;
} nsmi_words;

int64_t nsmi_words_find(const nsmi_words *w, const char *word);          /* -1: not there */
/* its number; -1: out of memory */
int64_t nsmi_words_add(nsm_ctx *ctx, nsmi_words *w, const char *word);
void nsmi_words_clear(nsmi_words *w);

/* Give the dataset classes: cls [count] (taken over) holds numbers of w, or -1. */
int nsmi_words_to_classes(nsm_dataset *ds, nsmi_words *w, int32_t *cls, int64_t count);
#endif
