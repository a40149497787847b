/* base/options.h - Options as text, "heads=4 rotary=true": keys by table, each a field of a struct
 * by its offset.  Mixers (seq/mixer.h) and fusers (fusion/fuser.h) keep such tables. */
#ifndef NSM_OPTIONS_H
#define NSM_OPTIONS_H
#include <stdbool.h>
#include <stddef.h>
#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    NSM_KEY_INT,   /* int */
    NSM_KEY_REAL,  /* float */
    NSM_KEY_BOOL,  /* bool */
    NSM_KEY_CHOICE /* int: place in `choices`, "elu|relu" */
} nsm_key_type;
typedef struct {
    const char *name;
    nsm_key_type type;
    size_t offset;
    double fallback;
    double low, high; /* both allowed */
    const char *choices;
    const char *help;
    bool live; /* may be changed in what is made and trained */
} nsm_key;

#ifdef __cplusplus
}
#endif
#endif
