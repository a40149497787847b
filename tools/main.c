/* main.c - The program nsm: the table of its subcommands.  A new one is one file, and one line
 * here. */
#include <stdlib.h>
#include <unistd.h>
#include "tools/tool.h"

#define COMMANDS(X) \
    X(train) X(eval) X(predict) X(sample) X(export) X(import) X(generate) X(split) X(info) X(plot) \
    X(bench) X(compare) X(trace) X(report)

#define DECLARE(name) extern const tool_command name##_command;
#define LIST(name) &name##_command,
COMMANDS(DECLARE)
static const tool_command *const commands[] = {COMMANDS(LIST) NULL};

/* The OpenMP runtime's threads spin for milliseconds at every barrier, which on a machine with
 * other work costs far more than it saves.  It reads its settings when it is loaded, before main():
 * so ask for a short spin and begin again.  Somebody's own setting stands; a failure changes
 * nothing. */
static void spin_less(char **argv)
{
    if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY")) return;
    if (setenv("GOMP_SPINCOUNT", "20000", 1) == 0) execv("/proc/self/exe", argv);
}

int main(int argc, char **argv)
{
    spin_less(argv);
    return tool_main(commands, argc, argv);
}
