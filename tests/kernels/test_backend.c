/* tests/kernels/test_backend.c - Every entry of the kernel table against plain loops in double, and
 * the same bits for any number of threads; NSM_KERNELS=all: on every instruction set of this
 * machine. */
#include "config.h"
#include "tests/kernels/cases.h"

#define TEST(name) \
    START_TEST(name) { on_every_device(case_##name); } \
    END_TEST

TEST(products)
TEST(batched_products)
TEST(rounded_products)
TEST(copies)
TEST(passes)
TEST(sums)
TEST(extremes)
TEST(turning)
TEST(draws)
TEST(unary)
TEST(binary)
TEST(fused)
TEST(softmax)
TEST(row_norm)
TEST(batch_norm)
TEST(cross_entropy)
TEST(updates)
TEST(gather)
TEST(gather_add)
TEST(scatter_rows)
TEST(spmm)
TEST(sddmm)
TEST(spmm_max)
TEST(segments)
TEST(segment_softmax)
TEST(gat)
TEST(gatv2)
TEST(attention)
TEST(rotate)
TEST(rnn)
TEST(conv1d)
TEST(linear_recurrence)
TEST(scan)
TEST(wkv)
TEST(clock)
TEST(window)
TEST(memory_mix)
TEST(slots)
TEST(pool_age)
TEST(pool_open)
TEST(pool_route)
TEST(conv2d)
TEST(max_pool2d)
TEST(resample)

int main(void)
{
    return test_main("backend", (const TTest *const[]){ products,
                                                        batched_products,
                                                        rounded_products,
                                                        copies,
                                                        passes,
                                                        sums,
                                                        extremes,
                                                        turning,
                                                        draws,
                                                        unary,
                                                        binary,
                                                        fused,
                                                        softmax,
                                                        row_norm,
                                                        batch_norm,
                                                        cross_entropy,
                                                        updates,
                                                        gather,
                                                        gather_add,
                                                        scatter_rows,
                                                        spmm,
                                                        sddmm,
                                                        spmm_max,
                                                        segments,
                                                        segment_softmax,
                                                        gat,
                                                        gatv2,
                                                        attention,
                                                        rotate,
                                                        rnn,
                                                        conv1d,
                                                        linear_recurrence,
                                                        scan,
                                                        wkv,
                                                        clock,
                                                        window,
                                                        memory_mix,
                                                        slots,
                                                        pool_age,
                                                        pool_open,
                                                        pool_route,
                                                        conv2d,
                                                        max_pool2d,
                                                        resample,
                                                        NULL });
}
