/* tests/tools/nsm_emulated.c - The program nsm with one backend more, "emulated": CUDA's kernels on
 * the host.  For tests/tools/emulated.sh. */
#include "base/internal.h"
int program(int argc, char **argv);
#define main program
#include "tools/main.c"
#undef main

extern const nsm_backend nsmi_emulated;

int main(int argc, char **argv)
{
    if (argc < 2) return 77; /* not a test by itself */
    nsmi_test_backend = &nsmi_emulated;
    return program(argc, argv);
}
