/* kernels/cpu/random.h - Philox4x32-10 for W counters at a time (kernels/philox.h says which
 * draw stands where), and draws of a block as floats in [0, 1). */
#ifndef NSM_CPU_RANDOM_H
#define NSM_CPU_RANDOM_H
#include "kernels/cpu/cpu.h"
#include "kernels/philox.h"

enum {
    NSMI_DRAWS = 1024,                   /* the most draws of one nsmi_units() */
    NSMI_DRAW_ROOM = NSMI_DRAWS + 4 * 16 /* floats of its buffer */
};

/* hi and lo words of a * m, lane by lane */
static inline void vu_multiply(vu a, uint32_t m, vu *hi, vu *lo)
{
#if defined(__AVX512F__)
    __m512i b = _mm512_set1_epi32((int)m);
    __m512i even = _mm512_mul_epu32((__m512i)a, b);
    __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64((__m512i)a, 32), b);
    *hi = (vu)_mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 32), odd);
    *lo = (vu)_mm512_mullo_epi32((__m512i)a, b);
#elif defined(__AVX2__)
    __m256i b = _mm256_set1_epi32((int)m);
    __m256i even = _mm256_mul_epu32((__m256i)a, b);
    __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64((__m256i)a, 32), b);
    *hi = (vu)_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
    *lo = (vu)_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
#else
    vu high = {0};
    for (int i = 0; i < W; i++) high[i] = (uint32_t)((uint64_t)a[i] * m >> 32);
    *hi = high;
    *lo = a * m;
#endif
}

/* The 4 W draws of counters counter .. counter + W - 1, in order. */
static inline void nsmi_philox_wide(uint64_t seed, uint64_t counter, vu out[4])
{
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    vu c0 = (vu)vi_lanes() + (uint32_t)counter, c2 = {0}, c3 = {0}, hi0, lo0, hi1, lo1;
    vu c1 = (uint32_t)(counter >> 32) -
            (vu)(c0 < (uint32_t)counter); /* where the low word wrapped: + 1 */
    for (int round = 0; round < NSMI_PHILOX_ROUNDS; round++) {
        vu_multiply(c0, NSMI_PHILOX_M0, &hi0, &lo0);
        vu_multiply(c2, NSMI_PHILOX_M1, &hi1, &lo1);
        c0 = hi1 ^ c1 ^ k0;
        c1 = lo1;
        c2 = hi0 ^ c3 ^ k1;
        c3 = lo0;
        k0 += NSMI_PHILOX_W0;
        k1 += NSMI_PHILOX_W1;
    }
    vu low02, high02, low13, high13;
    vu_interleave(c0, c2, &low02, &high02);
    vu_interleave(c1, c3, &low13, &high13);
    vu_interleave(low02, low13, &out[0], &out[1]);
    vu_interleave(high02, high13, &out[2], &out[3]);
}

/* Draws first .. first + n - 1 of r (n <= NSMI_DRAWS) in [0, 1): a pointer into buffer. */
static inline const float *nsmi_units(nsm_random r, int64_t first, int64_t n,
                                      float buffer[NSMI_DRAW_ROOM])
{
    uint64_t counter = r.offset + (uint64_t)first / 4;
    int64_t skip = first % 4;
    for (int64_t i = 0; i < n + skip; i += 4 * W, counter += W) {
        vu draw[4];
        nsmi_philox_wide(r.seed, counter, draw);
        for (int j = 0; j < 4; j++)
            vf_store(buffer + i + j * W,
                     __builtin_convertvector((vi)(draw[j] >> 8), vf) * 0x1p-24f);
    }
    return buffer + skip;
}

#endif
