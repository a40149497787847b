/* settings.h - Configuration: one table of fields serves everything.
 *
 * A command's settings are a plain struct and a table of its fields (name, type, offset, default,
 * help).  From the table come: reading YAML, key=value overrides, the list of keys in --help, the
 * resolved config.yaml in a run's folder and the text that a checkpoint stores.  A nested YAML
 * mapping sets dotted keys ("optimizer: {lr: 1}" sets optimizer.lr).  Numbers have '.' as their
 * point whatever the locale is.  An unknown key is an error that names the nearest known one.
 *
 *   typedef struct { int64_t hidden; double lr; char *model; } options;
 *   static const setting fields[] = {
 *       { "hidden", SETTING_INT, offsetof(options, hidden), "64", "features of a hidden layer",
 *       .range = ">=1" },
 *       { "lr", SETTING_REAL, offsetof(options, lr), "0.01", "learning rate" },
 *       { "model", SETTING_CHOICE, offsetof(options, model), "gcn", "which layers", .choices =
 *       "gcn|gat" },
 *       { 0 } };
 *
 * Errors are left in the context; functions that do something return NSM_OK or a code. */
#ifndef TOOLS_SETTINGS_H
#define TOOLS_SETTINGS_H
#include <nsm.h>
#include <stdio.h>

typedef enum {
    SETTING_BOOL,   /* bool: true false yes no on off 1 0 */
    SETTING_INT,    /* int64_t: 64, 1_000_000 and 1e6 are allowed */
    SETTING_REAL,   /* double */
    SETTING_STRING, /* char *, never NULL, owned by the settings */
    SETTING_CHOICE, /* char *: one of choices, "a|b|c" */
    SETTING_LIST    /* setting_list: 15,10 or [15, 10] */
} setting_type;

enum { SETTING_LIST_MOST = 16 };
typedef struct {
    int count;
    double value[SETTING_LIST_MOST];
} setting_list;

typedef struct {
    const char *name; /* NULL ends a table */
    setting_type type;
    size_t offset;
    /* the default, as text; NULL: the command asks for it or works it out ("" or 0) */
    const char *fallback;
    const char *help;
    const char *choices; /* of a SETTING_CHOICE */
    const char *range;   /* of a number: ">0", ">=1" or "0..1" (both included); NULL: any */
} setting;

/* Set every field to its default.  The struct must be zero or have been cleared. */
int settings_init(nsm_ctx *ctx, const setting *fields, void *options);
void settings_clear(const setting *fields, void *options); /* free the strings */
/* to: as for init */
int settings_copy(nsm_ctx *ctx, const setting *fields, const void *from, void *to);

/* Set one field from text.  where: who says so ("the command line", "my.yaml:3"). */
int settings_set(nsm_ctx *ctx, const setting *fields, void *options, const char *key,
                 const char *value, const char *where);
/* key=value */
int settings_pairs(nsm_ctx *ctx, const setting *fields, void *options, int count,
                   char *const *pair);

/* Read YAML, from a file or from text that is called `name` in errors; keys not in it keep their
 * values.  ignore_unknown is for text written by a later version or for another command. */
int settings_read(nsm_ctx *ctx, const setting *fields, void *options, const char *path);
int settings_parse(nsm_ctx *ctx, const setting *fields, void *options, const char *text,
                   size_t bytes, const char *name, bool ignore_unknown);

/* All settings as YAML that settings_parse() reads back to the same values; the caller frees. */
char *settings_text(nsm_ctx *ctx, const setting *fields, const void *options);
/* One value as text into a new string. */
char *settings_value(nsm_ctx *ctx, const setting *field, const void *options);

const setting *settings_find(const setting *fields, const char *key); /* NULL: none */
/* the keys, for --help; the caller frees; NULL: out of memory */
char *settings_help(const setting *fields);
/* one of them: text beside key, wrapped */
void help_line(FILE *out, const char *key, const char *text);

/* The shortest decimal text that reads back as the same number, with '.' in every locale. */
const char *real_text(double value, char buf[32]);
/* The whole of text as a number; false if it is none. */
bool real_parse(const char *text, double *value);
bool int_parse(const char *text, int64_t *value);

#endif
