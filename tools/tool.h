/* tool.h - What every subcommand of nsm is made of and is given.
 *
 * A subcommand is one file with one tool_command, listed in tools/main.c.  Its common options are
 * read before run() is called; run() returns the exit code: 0 done, 1 failed with one clear line on
 * stderr, 2 wrong usage.  stdout holds results only. */
#ifndef TOOLS_TOOL_H
#define TOOLS_TOOL_H
#include <nsm.h>
#include <stdio.h>
#include "tools/settings.h"

enum { TOOL_DONE = 0, TOOL_FAILED = 1, TOOL_USAGE = 2, TOOL_OPTIONS = 16 };

typedef struct tool tool;

/* An option of one subcommand; NULL name ends the table. */
typedef struct {
    const char *name;
    char letter;      /* 0: none */
    const char *arg;  /* what its argument is called in --help; NULL: it takes none */
    const char *help;
} tool_option;

/* Keys that a subcommand takes as key=value; NULL fields ends the table. */
typedef struct {
    const char *title; /* "Keys" */
    const setting *fields;
} tool_keys;

typedef struct {
    const char *name;    /* "train" */
    const char *args;    /* "RECIPE|CONFIG [KEY=VALUE...]" */
    const char *summary; /* its line in nsm --help */
    const char *details; /* more paragraphs for its own --help; NULL: none */
    const tool_option *options;
    const tool_keys *keys; /* NULL: no key=value, unless takes_pairs */
    bool takes_pairs;      /* key=value is taken though no table lists the keys */
    void (*more_help)(FILE *out); /* what --help says at its end; NULL: nothing */
    int least, most;       /* arguments, key=value apart; most -1: any number */
    int (*run)(tool *t);
} tool_command;

struct tool {
    const tool_command *command;
    bool json, quiet;
    bool seeded;               /* --seed was given */
    uint64_t seed;
    int threads;               /* 0: the default */
    const char *device;        /* NULL: the default */
    nsm_precision precision;
    int args, pairs;
    char **arg, **pair;        /* plain arguments; key=value arguments */
    const char *value[TOOL_OPTIONS]; /* of the command's options: NULL not given, "" a flag */
    nsm_ctx *ctx;              /* made before run(), freed after it */
};

/* The value of one of the command's own options: NULL if not given, "" for a flag. */
const char *tool_get(const tool *t, const char *option);

/* Each prints one line on stderr, "nsm train: ...", and returns the exit code. */
int tool_fail(const tool *t, const char *format, ...) NSM_PRINTF(2, 3);  /* TOOL_FAILED */
int tool_usage(const tool *t, const char *format, ...) NSM_PRINTF(2, 3); /* TOOL_USAGE */
int tool_error(const tool *t);  /* the context's error: TOOL_FAILED */
void tool_note(const tool *t, const char *format, ...) NSM_PRINTF(2, 3); /* not with -q */

/* Fill settings from their defaults and the command line's key=value; TOOL_USAGE after a line on
 * stderr if one is wrong, else TOOL_DONE. */
int tool_settings(tool *t, const setting *fields, void *options);

/* Read the command line (argv[0] is ignored) and run what it says. */
int tool_main(const tool_command *const *commands, int argc, char **argv);

/* tools/options.c: read one command's line into t; -1: go on, else the exit code. */
int tool_parse(tool *t, int argc, char **argv);

#endif
