/* kernels/cpu/cpu.h - What the CPU kernels share.
 *
 * Every file beside this one is compiled once for each instruction set, with NSMI_ISA its name;
 * each ends in a function that fills its part of the table.  kernels/cpu/backend.c is compiled
 * once and picks the table at run time.
 *
 * Threads: work is cut into blocks of a fixed size (never by the number of threads), and a block
 * is computed by one thread in a fixed order, so results are the same for any number of threads. */
#ifndef NSM_CPU_H
#define NSM_CPU_H
#include <omp.h>
#include <stdlib.h>
#include "config.h"
#include "kernels/backend.h"
#include "kernels/cpu/simd.h"

#define NSMI_JOIN2(a, b) nsmi_cpu_##a##_##b
#define NSMI_JOIN(a, b) NSMI_JOIN2(a, b)
#define NSMI_FILL(part) NSMI_JOIN(part, NSMI_ISA) /* nsmi_cpu_dense_avx2 */

#if defined(NSMI_ISA)
/* Fill one part of a table; one set of these exists for each instruction set. */
void NSMI_FILL(dense)(nsm_backend *be);
void NSMI_FILL(gemm)(nsm_backend *be); /* after dense */
void NSMI_FILL(elementwise)(nsm_backend *be);
void NSMI_FILL(norm)(nsm_backend *be);
void NSMI_FILL(loss)(nsm_backend *be);
void NSMI_FILL(optimizer)(nsm_backend *be);
void NSMI_FILL(sparse)(nsm_backend *be);
void NSMI_FILL(attention)(nsm_backend *be);
void NSMI_FILL(attend)(nsm_backend *be);
void NSMI_FILL(rnn)(nsm_backend *be);
void NSMI_FILL(conv1d)(nsm_backend *be);
void NSMI_FILL(recurrence)(nsm_backend *be);
void NSMI_FILL(slots)(nsm_backend *be);
void NSMI_FILL(memory)(nsm_backend *be);
void NSMI_FILL(scan)(nsm_backend *be);
void NSMI_FILL(pool)(nsm_backend *be);
void NSMI_FILL(conv2d)(nsm_backend *be);
void NSMI_FILL(image)(nsm_backend *be);
#endif

/* What a device keeps for its kernels: they allocate nothing and so cannot fail.  Pages of it
 * that no kernel has touched cost no memory. */
typedef struct {
    float
        *scratch; /* NSMI_SCRATCH floats: partial results of blocks, used by one kernel at a time */
    float *pack;       /* NSMI_PACK floats for each thread: panels of a matrix product */
    size_t pack_bytes; /* of all threads */
} nsmi_cpu_state;
enum { NSMI_SCRATCH = 1 << 24, NSMI_PACK = 1 << 21 };

static inline float *nsmi_scratch(const nsm_device *d)
{
    return ((nsmi_cpu_state *)d->impl)->scratch;
}

enum { NSMI_BLOCK = 16384 }; /* elements of an elementwise pass that one thread takes at a time */

/* Threads for `work` elementary operations: a team is not worth waking for little.  All or one:
 * the OpenMP library ends and makes threads anew when a team's size changes. */
static inline int nsmi_team(const nsm_device *d, int64_t work)
{
    return work < 65536 ? 1 : d->threads;
}

/* Blocks of `size` that n is cut into, and where block b of them ends. */
static inline int64_t nsmi_blocks(int64_t n, int64_t size) { return (n + size - 1) / size; }
static inline int64_t nsmi_block_end(int64_t b, int64_t size, int64_t n)
{
    return b + 1 < nsmi_blocks(n, size) ? (b + 1) * size : n;
}

/* Rows that a block of about NSMI_BLOCK elements holds. */
static inline int64_t nsmi_block_rows(int64_t cols)
{
    return cols < NSMI_BLOCK ? (cols > 0 ? NSMI_BLOCK / cols : 1) : 1;
}

/* Rows of a block when each block leaves `width` partial sums in scratch: at most 64 blocks. */
static inline int64_t nsmi_partial_rows(int64_t rows, int64_t cols, int64_t width)
{
    int64_t most = width > 0 ? NSMI_SCRATCH / width : 64, least = nsmi_block_rows(cols);
    most = most > 64 ? 64 : most < 1 ? 1 : most;
    int64_t size = nsmi_blocks(rows, most);
    return size > least ? size : least;
}

#endif
