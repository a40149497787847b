/* main.c - The program nsm: the table of its subcommands.  A new one is one file, and one line here. */
#include "tools/tool.h"

#define COMMANDS(X) \
    X(train) X(eval) X(predict) X(export) X(import) X(generate) X(split) X(info) X(plot)

#define DECLARE(name) extern const tool_command name##_command;
#define LIST(name) &name##_command,
COMMANDS(DECLARE)
static const tool_command *const commands[] = {COMMANDS(LIST) NULL};

int main(int argc, char **argv) { return tool_main(commands, argc, argv); }
