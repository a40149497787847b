/* bench/bare/config.h - In place of what configure writes, where bench/gpu.c is built without
 * it. */
#define VERSION "bare"
#if !defined(NSM_EMULATE)
#define HAVE_CUDA 1
#else
#define NSM_EMULATION 1
#endif
