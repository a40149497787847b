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

/* Call take for every word of s .. end: a run of letters and digits, made lower case; bytes past
 * ASCII count as letters, and what is longer than NSMI_WORD_MOST bytes is cut. */
enum { NSMI_WORD_MOST = 63 };
void nsmi_words_each(const char *s, const char *end, void (*take)(void *user, const char *word),
                     void *user);

/* Texts row by row, to become a column of nodes.  Start from zero. */
typedef struct {
    nsmi_words words;
    int64_t rows, entries, row_room, room;
    int64_t *end;      /* [rows] entries behind each row's last */
    int32_t *id;       /* [entries] numbers of words */
} nsmi_texts;

bool nsmi_texts_word(nsm_ctx *ctx, nsmi_texts *t, const char *word); /* of the row that is open */
bool nsmi_texts_end(nsm_ctx *ctx, nsmi_texts *t);                    /* of that row */
/* The nodes' text: word 0 is "?" and stands for all that come less than `least` times, the others
 * are in the order of their coming.  Nodes behind the last row have none. */
int nsmi_texts_to_nodes(nsm_dataset *ds, nsmi_texts *t, int64_t least, nsm_dataset_nodes *v);
/* The features of nodes that have a text: a column a word, w / sqrt(sum of w^2) for one that comes
 * w times.  The rare words count as none. */
int nsmi_texts_to_features(nsm_dataset *ds, nsm_dataset_nodes *v);
void nsmi_texts_clear(nsmi_texts *t);

/* Give the dataset classes: cls [count] (taken over) holds numbers of w, or -1. */
int nsmi_words_to_classes(nsm_dataset *ds, nsmi_words *w, int32_t *cls, int64_t count);
#endif
