/* tests/kernels/test_mma.cc - Products by a warp (kernels/cuda/mma.h) against plain loops: with
 * fragments filled by the formulas of the PTX ISA ("Matrix Fragments for mma.m16n8k8" and
 * "m16n8k16"), which are written out here a second time, and with those that are read from shared
 * memory; and rounding.  Numbers are small integers, so all sums are exact.
 *
 * For the emulated device.  It also compiles for a real one:
 *   nvcc -x cu -std=c++17 -arch=native -I. tests/kernels/test_mma.cc */
#include "kernels/cuda/mma.h"
#include <stdio.h>
#include <string.h>

enum { ROWS = 16, COLS = 8, MOST_K = 16, LD = 24 };

static __device__ void number_at(tf32, uint32_t *word, int, float x)
{
    *word = (uint32_t)__float_as_int(x);
}
static __device__ void number_at(bf16, uint32_t *word, int i, float x)
{
    *word |= (uint32_t)nearest_bf16(x) << 16 * i;
}

/* The ISA's places of a lane's number i, counted in numbers, not words. */
static __device__ int row_of_a(tf32, int g, int i) { return i == 0 || i == 2 ? g : g + 8; }
static __device__ int col_of_a(tf32, int t, int i) { return i < 2 ? t : t + 4; }
static __device__ int row_of_b(tf32, int t, int i) { return i == 0 ? t : t + 4; }
static __device__ int row_of_a(bf16, int g, int i)
{
    return i < 2 || (i >= 4 && i < 6) ? g : g + 8;
}
static __device__ int col_of_a(bf16, int t, int i) { return 2 * t + (i & 1) + (i < 4 ? 0 : 8); }
static __device__ int row_of_b(bf16, int t, int i) { return 2 * t + (i & 1) + (i < 2 ? 0 : 8); }

/* c [16, 8] += a [16, K] b [K, 8] */
template <class T> static __global__ void by_formulas(const float *a, const float *b, float *c)
{
    enum { K = STEP_WORDS * T::NUMBERS };
    const int g = (int)lane_of() / 4, t = (int)lane_of() % 4;
    uint32_t fa[1][1][4] = {}, fb[1][1][2] = {};
    float fc[1][1][4];
    for (int i = 0; i < 4 * T::NUMBERS; i++)
        number_at(T(), &fa[0][0][i / T::NUMBERS], i % T::NUMBERS,
                  a[row_of_a(T(), g, i) * K + col_of_a(T(), t, i)]);
    for (int i = 0; i < 2 * T::NUMBERS; i++)
        number_at(T(), &fb[0][0][i / T::NUMBERS], i % T::NUMBERS,
                  b[row_of_b(T(), t, i) * COLS + g]);
    for (int i = 0; i < 4; i++) fc[0][0][i] = c[(i < 2 ? g : g + 8) * COLS + 2 * t + (i & 1)];
    multiply_step<T>(fc, fa, fb);
    for (int i = 0; i < 4; i++) c[(i < 2 ? g : g + 8) * COLS + 2 * t + (i & 1)] = fc[0][0][i];
}

/* c [16, 16] = a [16, 16] b [16, 16] in bf16, with b as it is, or turned and read by rows. */
static __global__ void from_shared(const uint16_t *a, const uint16_t *b, bool turned, float *c)
{
    __align__(16) __shared__ uint16_t tile[2][ROWS][LD];
    const int lane = (int)lane_of(), row = lane % 8, upper = lane / 8 % 2, far = lane / 16;
    uint32_t fa[1][1][4], fb[1][2][2];
    float fc[1][2][4] = {};
    for (int i = lane; i < 2 * ROWS * 2; i += LANES) {
        const uint16_t *from = (i / (2 * ROWS) ? b : a) + i / 2 % ROWS * 16 + i % 2 * 8;
        copy_async(&tile[i / (2 * ROWS)][i / 2 % ROWS][i % 2 * 8], from, true);
    }
    wait_for_copies();
    __syncthreads();
    read_fragments(fa[0][0][0], fa[0][0][1], fa[0][0][2], fa[0][0][3],
                   &tile[0][row + upper * 8][far * 8]);
    if (turned)
        read_fragments(fb[0][0][0], fb[0][0][1], fb[0][1][0], fb[0][1][1],
                       &tile[1][row + far * 8][upper * 8]);
    else
        read_turned(fb[0][0][0], fb[0][0][1], fb[0][1][0], fb[0][1][1],
                    &tile[1][row + upper * 8][far * 8]);
    multiply_step<bf16>(fc, fa, fb);
    for (int n = 0; n < 2; n++)
        for (int i = 0; i < 4; i++)
            c[(lane / 4 + i / 2 * 8) * 16 + n * 8 + lane % 4 * 2 + i % 2] = fc[0][n][i];
}

static __global__ void round_kernel(const float *x, int n, float *y)
{
    for (int i = 0; i < n; i++) {
        uint32_t pair = pair_bf16(x[i], -x[i]);
        y[3 * i] = nearest_tf32(x[i]);
        y[3 * i + 1] = float_of_bf16((uint16_t)pair);
        y[3 * i + 2] = -float_of_bf16((uint16_t)(pair >> 16));
    }
}

static cudaStream_t stream;
static int failed;

static void *device_array(size_t bytes, const void *from)
{
    void *p = NULL;
    if (cudaMallocAsync(&p, bytes, stream) != cudaSuccess) return NULL;
    cudaMemcpyAsync(p, from, bytes, cudaMemcpyHostToDevice, stream);
    return p;
}

static void check(const char *what, int n, const float *on_device, const double *want)
{
    float got[1024];
    cudaMemcpyAsync(got, on_device, (size_t)n * sizeof *got, cudaMemcpyDeviceToHost, stream);
    cudaStreamSynchronize(stream);
    for (int i = 0; i < n; i++)
        if ((double)got[i] != want[i] && !(got[i] != got[i] && want[i] != want[i])) {
            printf("%s: [%d] is %.9g, want %.9g\n", what, i, (double)got[i], want[i]);
            failed = 1;
            return;
        }
}

/* Of numbers that need no rounding. */
static uint16_t bf16_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)(bits >> 16);
}

static float small_integer(int i) { return (float)((i * 7919 + i * i * 31) % 23 - 11); }

template <class T> static void formulas(const char *what)
{
    enum { K = STEP_WORDS * T::NUMBERS };
    float a[ROWS * K], b[K * COLS], c[ROWS * COLS];
    double want[ROWS * COLS];
    for (int i = 0; i < ROWS * K; i++) a[i] = small_integer(i);
    for (int i = 0; i < K * COLS; i++) b[i] = small_integer(i + 1000);
    for (int i = 0; i < ROWS * COLS; i++) want[i] = (double)(c[i] = small_integer(i + 2000));
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < COLS; j++)
            for (int k = 0; k < K; k++)
                want[i * COLS + j] += (double)a[i * K + k] * (double)b[k * COLS + j];
    const float *da = (const float *)device_array(sizeof a, a);
    const float *db = (const float *)device_array(sizeof b, b);
    float *dc = (float *)device_array(sizeof c, c);
    NSM_LAUNCH((by_formulas<T>), 1, LANES, stream, da, db, dc);
    check(what, ROWS * COLS, dc, want);
}

static void shared(bool turned)
{
    uint16_t a[256], b[256];
    float c[256] = { 0 };
    double want[256] = { 0 };
    for (int i = 0; i < 256; i++) a[i] = bf16_of(small_integer(i));
    for (int i = 0; i < 256; i++) b[i] = bf16_of(small_integer(i + 500));
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 16; j++)
            for (int k = 0; k < 16; k++)
                want[i * 16 + j] += (double)small_integer(i * 16 + k) *
                                    (double)small_integer(turned ? j * 16 + k + 500
                                                                 : k * 16 + j + 500);
    const uint16_t *da = (const uint16_t *)device_array(sizeof a, a);
    const uint16_t *db = (const uint16_t *)device_array(sizeof b, b);
    float *dc = (float *)device_array(sizeof c, c);
    NSM_LAUNCH(from_shared, 1, LANES, stream, da, db, turned, dc);
    check(turned ? "rows from shared memory" : "columns from shared memory", 256, dc, want);
}

static void rounding_of(void)
{
    const float e = 1.0f / 2048; /* half of TF32's last place at 1 */
    const float x[] = { 1 + e,      1 + 3 * e, 1 + 0.9f * e, 1 + 8 * e,
                        1 + 24 * e, -1 - e,    NAN,          INFINITY };
    const double want[][3] = { { 1 + 2 * e, 1, 1 },
                               { 1 + 4 * e, 1, 1 },
                               { 1, 1, 1 },
                               { 1 + 8 * e, 1, 1 },
                               { 1 + 24 * e, 1 + 32 * e, 1 + 32 * e },
                               { -1 - 2 * e, -1, -1 },
                               { NAN, NAN, NAN },
                               { INFINITY, INFINITY, INFINITY } };
    enum { N = sizeof x / sizeof *x };
    float y[3 * N] = { 0 };
    const float *dx = (const float *)device_array(sizeof x, x);
    float *dy = (float *)device_array(sizeof y, y);
    NSM_LAUNCH(round_kernel, 1, 1, stream, dx, (int)N, dy);
    check("rounding", 3 * N, dy, &want[0][0]);
}

int main(void)
{
    if (cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) != cudaSuccess) return 77;
    formulas<tf32>("TF32 by the ISA's formulas");
    formulas<bf16>("bf16 by the ISA's formulas");
    shared(false);
    shared(true);
    rounding_of();
    return failed;
}
