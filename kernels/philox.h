/* kernels/philox.h - Philox4x32-10, the counter-based generator (Salmon et al., SC 2011), for one
 * counter at a time: plain C, for the host and, with NSMI_DEVICE set to __host__ __device__, for
 * CUDA.
 *
 * Draw i of a block {seed, offset} is word i % 4 of the cipher of counter offset + i / 4 (64 bits
 * in the two low counter words, the high ones 0), keyed with the two halves of seed. */
#ifndef NSM_PHILOX_H
#define NSM_PHILOX_H
#include <stdint.h>

#ifndef NSMI_DEVICE
#define NSMI_DEVICE
#endif

#define NSMI_PHILOX_M0 0xD2511F53u
#define NSMI_PHILOX_M1 0xCD9E8D57u
#define NSMI_PHILOX_W0 0x9E3779B9u
#define NSMI_PHILOX_W1 0xBB67AE85u
enum { NSMI_PHILOX_ROUNDS = 10 };

NSMI_DEVICE static inline void nsmi_philox(uint64_t seed, uint64_t counter, uint32_t out[4])
{
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    uint32_t c0 = (uint32_t)counter, c1 = (uint32_t)(counter >> 32), c2 = 0, c3 = 0;
    for (int round = 0; round < NSMI_PHILOX_ROUNDS; round++) {
        uint64_t p0 = (uint64_t)NSMI_PHILOX_M0 * c0, p1 = (uint64_t)NSMI_PHILOX_M1 * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += NSMI_PHILOX_W0;
        k1 += NSMI_PHILOX_W1;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* Draw i of the block {seed, offset}. */
NSMI_DEVICE static inline uint32_t nsmi_philox_u32(uint64_t seed, uint64_t offset, uint64_t i)
{
    uint32_t word[4];
    nsmi_philox(seed, offset + i / 4, word);
    return word[i % 4];
}

/* In [0, 1): the 24 high bits. */
NSMI_DEVICE static inline float nsmi_philox_uniform(uint64_t seed, uint64_t offset, uint64_t i)
{
    return (float)(nsmi_philox_u32(seed, offset, i) >> 8) * 0x1p-24f;
}

#endif
