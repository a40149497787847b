/* options.c - The command line of a subcommand, read by glibc's argp.
 *
 * argp prints --help, --usage and --version and reports wrong usage with exit code 2.  An unknown
 * long option is looked for before argp runs, so that the message can name the nearest known
 * one. */
#include <argp.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "config.h"
#include "tools/nearest.h"
#include "tools/tool.h"

const char *argp_program_version = "nsm " PACKAGE_VERSION;

enum { KEY_JSON = 1000, KEY_THREADS, KEY_SEED, KEY_DEVICE, KEY_PRECISION, KEY_OWN = 2000 };

static const struct argp_option common[] = {
    { "json", KEY_JSON, 0, 0, "write JSON lines only on stdout, the last one the result", 0 },
    { "threads", KEY_THREADS, "N", 0, "use N threads (the cores that this process may use)", 0 },
    { "seed", KEY_SEED, "N", 0, "start the random generator from N (0)", 0 },
    { "device", KEY_DEVICE, "NAME", 0, "compute on cpu or cuda (cpu)", 0 },
    { "precision", KEY_PRECISION, "NAME", 0,
      "matrix products of float32, tf32 or bf16 (float32; the last two with cuda)", 0 },
    { "quiet", 'q', 0, 0, "no progress on stderr", 0 },
    { 0, 'h', 0, OPTION_HIDDEN, 0, 0 },
    { 0 }
};
static const char *const built_in[] = {"help", "usage", "version", NULL};

static error_t parse_common(int key, char *arg, struct argp_state *state)
{
    tool *t = state->input;
    int64_t n = 0;
    char *end;
    switch (key) {
    case KEY_JSON: t->json = true; return 0;
    case 'q': t->quiet = true; return 0;
    case 'h': argp_state_help(state, stdout, ARGP_HELP_STD_HELP); return 0;
    case KEY_THREADS:
        if (!int_parse(arg, &n) || n < 1 || n > 4096)
            argp_error(state, "--threads is \"%s\", but must be a whole number in 1..4096", arg);
        t->threads = (int)n;
        return 0;
    case KEY_SEED:
        errno = 0;
        t->seed = strtoull(arg, &end, 10);
        t->seeded = true;
        if (end == arg || *end || *arg == '-' || errno)
            argp_error(state, "--seed is \"%s\", but must be a whole number, 0 or more", arg);
        return 0;
    case KEY_DEVICE:
        if (strcmp(arg, "cpu") && strcmp(arg, "cuda"))
            argp_error(state, "--device is \"%s\", but must be cpu or cuda", arg);
        t->device = arg;
        return 0;
    case KEY_PRECISION:
        if (nsm_precision_find(arg) < 0)
            argp_error(state, "--precision is \"%s\", but must be float32, tf32 or bf16", arg);
        t->precision = (nsm_precision)nsm_precision_find(arg);
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* key=value, the key a plain identifier: ./a=b and dir/a=b stay file names. */
static bool is_pair(const char *arg)
{
    size_t n = strspn(arg, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-");
    return n > 0 && arg[n] == '=' && ((arg[0] | 32) >= 'a' && (arg[0] | 32) <= 'z');
}

static error_t parse_own(int key, char *arg, struct argp_state *state)
{
    tool *t = state->input;
    const tool_command *c = t->command;
    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = t; return 0;
    case ARGP_KEY_ARG:
        if (is_pair(arg) && (c->keys || c->takes_pairs)) t->pair[t->pairs++] = arg;
        else if (c->most < 0 || t->args < c->most) t->arg[t->args++] = arg;
        else
            argp_error(state,
                       is_pair(arg) ? "\"%s\": this command takes no key=value"
                                    : "\"%s\" is one argument too many",
                       arg);
        return 0;
    case ARGP_KEY_END:
        if (t->args < c->least) argp_error(state, "too few arguments: expected %s", c->args);
        return 0;
    }
    for (int i = 0; c->options && c->options[i].name; i++) {
        const tool_option *o = &c->options[i];
        if (key != (o->letter ? o->letter : KEY_OWN + i)) continue;
        t->value[i] = arg ? arg : "";
        return 0;
    }
    return ARGP_ERR_UNKNOWN;
}

/* Below the options: the keys that the command takes. */
static char *help_filter(int key, const char *text, void *input)
{
    const tool *t = input;
    if (key != ARGP_KEY_HELP_EXTRA || !t) return (char *)text;
    char *all = NULL;
    size_t bytes;
    FILE *out = open_memstream(&all, &bytes);
    if (!out) return NULL;
    for (const tool_keys *k = t->command->keys; k && k->fields; k++) {
        char *keys = settings_help(k->fields);
        fprintf(out, "%s%s, given as KEY=VALUE, with their defaults:\n%s",
                k == t->command->keys ? "" : "\n", k->title, keys ? keys : "");
        free(keys);
    }
    if (t->command->more_help) t->command->more_help(out);
    fputs(ftell(out) ? "\nThe manual is nsm(1)." : "The manual is nsm(1).", out);
    return fclose(out) == 0 ? all : NULL;
}

/* The first long option that nobody knows is reported; false then.  As getopt_long does, a prefix
 * counts as known (getopt says so itself when it is ambiguous). */
static bool known_options(const tool *t, const struct argp_option *own, int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--"); i++) {
        if (strncmp(argv[i], "--", 2)) continue;
        char name[64];
        nearest near = {0};
        size_t n = strcspn(argv[i] + 2, "=");
        snprintf(name, sizeof name, "%.*s", (int)(n < 63 ? n : 63), argv[i] + 2);
        const struct argp_option *found = NULL;
        bool known = false;
        for (const struct argp_option *table = own; table; table = table == own ? common : NULL) {
            for (const struct argp_option *o = table; o->name || o->key || o->doc; o++) {
                if (!o->name) continue;
                nearest_try(&near, name, o->name);
                if (strncmp(name, o->name, strlen(name))) continue;
                found = o;
                known = true;
            }
        }
        for (int k = 0; built_in[k]; k++) {
            nearest_try(&near, name, built_in[k]);
            known |= !strncmp(name, built_in[k], strlen(name));
        }
        if (!known) {
            fprintf(stderr, "nsm%s%s: unknown option --%s; the nearest known one is --%s\n",
                    *t->command->name ? " " : "", t->command->name, name, near.name);
            return false;
        }
        if (found && found->arg && !argv[i][2 + n]) i++; /* its argument may begin with -- */
    }
    return true;
}

int tool_parse(tool *t, int argc, char **argv)
{
    const tool_command *c = t->command;
    struct argp_option own[TOOL_OPTIONS + 1] = {{0}};
    for (int i = 0; c->options && c->options[i].name && i < TOOL_OPTIONS; i++) {
        const tool_option *o = &c->options[i];
        own[i] = (struct argp_option){.name = o->name,
                                      .key = o->letter ? o->letter : KEY_OWN + i,
                                      .arg = o->arg,
                                      .doc = o->help};
    }
    if (!known_options(t, own, argc, argv)) return TOOL_USAGE;
    char doc[4096];
    snprintf(doc, sizeof doc, "%s%s%s\v", c->summary, c->details ? "\n\n" : "",
             c->details ? c->details : "");
    const struct argp common_argp = {.options = common, .parser = parse_common};
    const struct argp_child child[] = {{&common_argp, 0, "Common to all commands:", 0}, {0}};
    /* No options at all is NULL: argp loses the memory of an empty table. */
    const struct argp argp = {.options = c->options ? own : NULL,
                              .parser = parse_own,
                              .args_doc = c->args,
                              .doc = doc,
                              .children = child,
                              .help_filter = help_filter};
    argp_err_exit_status = TOOL_USAGE;
    setenv("ARGP_HELP_FMT", "no-dup-args-note", 0);
    t->arg = calloc((size_t)argc + 1, sizeof *t->arg);
    t->pair = calloc((size_t)argc + 1, sizeof *t->pair);
    if (!t->arg || !t->pair) return tool_fail(t, "out of memory");
    return argp_parse(&argp, argc, argv, 0, NULL, t) ? TOOL_USAGE : -1;
}
