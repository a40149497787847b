/* tool.c - From the command line to a subcommand: which one, its options, its context, its end.
 * Usage errors of all kinds end in exit code 2, failures in 1. */
#include "tools/tool.h"
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tools/nearest.h"

const char *tool_get(const tool *t, const char *option)
{
    for (int i = 0; t->command->options && t->command->options[i].name; i++)
        if (!strcmp(t->command->options[i].name, option)) return t->value[i];
    return NULL;
}

static void say(const tool *t, const char *format, va_list args)
{
    fprintf(stderr, "nsm%s%s: ", *t->command->name ? " " : "", t->command->name);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
}

#define SAY(t, format)             \
    do {                           \
        va_list args_;             \
        va_start(args_, format);   \
        say(t, format, args_);     \
        va_end(args_);             \
    } while (0)

int tool_fail(const tool *t, const char *format, ...)
{
    SAY(t, format);
    return TOOL_FAILED;
}

int tool_usage(const tool *t, const char *format, ...)
{
    SAY(t, format);
    return TOOL_USAGE;
}

void tool_note(const tool *t, const char *format, ...)
{
    if (!t->quiet) SAY(t, format);
}

int tool_error(const tool *t)
{
    const char *message = nsm_error_message(t->ctx);
    int code = nsm_error(t->ctx);
    return tool_fail(t, "%s", *message ? message : nsm_error_text(code ? code : NSM_ENOMEM));
}

int tool_settings(tool *t, const setting *fields, void *options)
{
    if (settings_init(t->ctx, fields, options)) return tool_error(t);
    if (settings_pairs(t->ctx, fields, options, t->pairs, t->pair))
        return tool_usage(t, "%s", nsm_error_message(t->ctx));
    return TOOL_DONE;
}

/* ---- which command ---- */

static const char *const takes_value[] = { "--threads", "--seed", "--device", "--precision", NULL };

/* The first argument that is not an option of the common ones: the command's name; argc if none. */
static int find_name(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] != '-') return i;
        for (int k = 0; takes_value[k]; k++)
            if (!strcmp(argv[i], takes_value[k])) i++;
    }
    return argc;
}

static const tool_command *find(const tool_command *const *commands, const char *name)
{
    for (; *commands; commands++)
        if (!strcmp((*commands)->name, name)) return *commands;
    return NULL;
}

static int unknown_command(const tool_command *const *commands, const char *name)
{
    nearest n = {0};
    for (int i = 0; commands[i]; i++) nearest_try(&n, name, commands[i]->name);
    nearest_try(&n, name, "help");
    fprintf(stderr,
            "nsm: unknown command \"%s\"; the nearest known one is \"%s\" (nsm --help lists all)\n",
            name, n.name);
    return TOOL_USAGE;
}

/* nsm --help, nsm --version and the like: a command without a name, whose help lists the others. */
static int no_command(const tool_command *const *commands, int argc, char **argv)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    if (!out) return TOOL_FAILED;
    fputs("Commands:\n", out);
    for (int i = 0; commands[i]; i++)
        fprintf(out, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    fputs("\nnsm help COMMAND, or nsm COMMAND --help, says more of each.", out);
    if (fclose(out)) return TOOL_FAILED;
    const tool_command top = {
        .name = "",
        .args = "COMMAND [ARGUMENT...]",
        .details = text,
        .most = 0,
        .summary = "Graph and multimodal reasoning: train, run and look into models."};
    tool t = {.command = &top};
    int code = tool_parse(&t, argc, argv);
    if (code < 0) {
        fputs("nsm: no command is given (nsm --help lists all)\n", stderr);
        code = TOOL_USAGE;
    }
    free(t.arg);
    free(t.pair);
    free(text);
    return code;
}

/* At exit: results must have reached stdout, or the program has failed (a full disk, for one). */
static void close_stdout(void)
{
    bool bad = ferror(stdout);
    if (fclose(stdout) == 0 && !bad) return;
    fprintf(stderr, "nsm: standard output could not be written: %s\n", strerror(errno));
    _exit(TOOL_FAILED);
}

static int run(tool *t)
{
    t->ctx = nsm_ctx_new(
        &(nsm_ctx_config){.backend = t->device, .threads = t->threads, .seed = t->seed});
    if (!t->ctx || nsm_error(t->ctx)) return tool_error(t);
    if (nsm_ctx_set_precision(t->ctx, t->precision))
        return tool_usage(t, "--precision=%s wants --device=cuda: the %s computes in float32 alone",
                          nsm_precision_name(t->precision),
                          strcmp(nsm_ctx_backend(t->ctx), "cpu") ? nsm_ctx_backend(t->ctx) : "CPU");
    return t->command->run(t);
}

int tool_main(const tool_command *const *commands, int argc, char **argv)
{
    atexit(close_stdout);
    signal(SIGXFSZ, SIG_IGN); /* a file too large is an error like others, not a death */
    int at = find_name(argc, argv);
    bool help = at < argc && !strcmp(argv[at], "help");
    if (at == argc || (help && at + 1 >= argc)) {
        char *ask[] = {(char *)"nsm", (char *)"--help", NULL};
        return help ? no_command(commands, 2, ask)
                    : (argv[0] = (char *)"nsm", no_command(commands, argc, argv));
    }
    tool t = {.command = find(commands, argv[at + help])};
    if (!t.command) return unknown_command(commands, argv[at + help]);
    /* The line without the command's name, which goes to the front as "nsm train". */
    char name[64], **line = calloc((size_t)argc + 1, sizeof *line), *ask = (char *)"--help";
    int count = 0;
    if (!line) return tool_fail(&t, "out of memory");
    snprintf(name, sizeof name, "nsm %s", t.command->name);
    line[count++] = name;
    for (int i = 1; i < argc && !help; i++)
        if (i != at) line[count++] = argv[i];
    if (help) line[count++] = ask;
    int code = tool_parse(&t, count, line);
    if (code < 0) code = run(&t);
    nsm_ctx_free(t.ctx);
    free(t.arg);
    free(t.pair);
    free(line);
    return code;
}
