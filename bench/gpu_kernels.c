/* bench/gpu_kernels.c - The tests of the kernel table, for bench/gpu.c: their program, under
 * another name. */
#define main kernels_main
#include "tests/kernels/test_backend.c"
