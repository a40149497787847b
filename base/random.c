/* base/random.c - The generator's state, and single draws on the host.
 * Philox4x32-10 itself is in kernels/philox.h, which every backend includes. */
#include "config.h"
#include "base/internal.h"
#include "kernels/philox.h"

nsm_random nsm_random_get(const nsm_ctx *ctx) { return ctx->random; }
void nsm_random_set(nsm_ctx *ctx, nsm_random state) { ctx->random = state; }

/* The offset counts blocks of four draws: a reservation starts at a block of its own. */
nsm_random nsm_random_take(nsm_ctx *ctx, int64_t n)
{
    nsm_random from = ctx->random;
    if (n > 0) ctx->random.offset += ((uint64_t)n + 3) / 4;
    return from;
}

uint32_t nsm_random_u32(nsm_random from, uint64_t i)
{
    uint32_t out[4];
    nsmi_philox(from.seed, from.offset + i / 4, out);
    return out[i % 4];
}

float nsm_random_uniform(nsm_random from, uint64_t i)
{
    return (float)(nsm_random_u32(from, i) >> 8) * 0x1p-24f;
}

/* 64 bits from one block; the bias of a remainder below 2^-32 is nothing for any n in use. */
uint64_t nsm_random_below(nsm_ctx *ctx, uint64_t n)
{
    uint32_t out[4];
    nsm_random from = nsm_random_take(ctx, 4);
    nsmi_philox(from.seed, from.offset, out);
    uint64_t r = (uint64_t)out[0] << 32 | out[1];
    return (uint64_t)(((unsigned __int128)r * n) >> 64);
}
