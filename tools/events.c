/* events.c - Writing TensorBoard event files. */
#include "tools/events.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { RECORD_MOST = 1024, TAG_MOST = 200 };

struct events {
    nsm_ctx *ctx;
    FILE *file;
    char *path;
};

/* CRC-32C (Castagnoli), reflected, a byte at a time: records are short. */
uint32_t events_crc32c(const void *data, size_t bytes)
{
    static uint32_t table[256];
    if (!table[1]) {
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t c = i;
            for (int k = 0; k < 8; k++) c = c & 1 ? c >> 1 ^ 0x82f63b78u : c >> 1;
            table[i] = c;
        }
    }
    const uint8_t *p = data;
    uint32_t c = ~0u;
    for (size_t i = 0; i < bytes; i++) c = c >> 8 ^ table[(c ^ p[i]) & 0xff];
    return ~c;
}

static uint32_t masked(const void *data, size_t bytes)
{
    uint32_t c = events_crc32c(data, bytes);
    return (c >> 15 | c << 17) + 0xa282ead8u;
}

/* ---- protobuf ---- */

typedef struct {
    uint8_t byte[RECORD_MOST];
    size_t n;
} message;

static void put_little(message *m, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++) m->byte[m->n++] = (uint8_t)(v >> 8 * i);
}

static void put_varint(message *m, uint64_t v)
{
    for (; v >= 128; v >>= 7) m->byte[m->n++] = (uint8_t)(v | 128);
    m->byte[m->n++] = (uint8_t)v;
}

static void put_bytes(message *m, int field, const void *data, size_t n)
{
    put_varint(m, (uint64_t)field << 3 | 2);
    put_varint(m, n);
    memcpy(m->byte + m->n, data, n);
    m->n += n;
}

static void put_double(message *m, int field, double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    put_varint(m, (uint64_t)field << 3 | 1);
    put_little(m, bits, 8);
}

static void put_float(message *m, int field, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    put_varint(m, (uint64_t)field << 3 | 5);
    put_little(m, bits, 4);
}

/* ---- records ---- */

static int failed(events *e)
{
    return nsm_error_set(e->ctx, NSM_EIO, "%s: %s", e->path, strerror(errno));
}

static int put_record(events *e, const message *data)
{
    message frame = {.n = 0};
    put_little(&frame, data->n, 8);
    put_little(&frame, masked(frame.byte, 8), 4);
    memcpy(frame.byte + frame.n, data->byte, data->n);
    frame.n += data->n;
    put_little(&frame, masked(data->byte, data->n), 4);
    return fwrite(frame.byte, 1, frame.n, e->file) == frame.n ? NSM_OK : failed(e);
}

/* Event: wall_time = 1, step = 2, file_version = 3, summary = 5. */
static message start_event(void)
{
    struct timespec t;
    message m = {.n = 0};
    clock_gettime(CLOCK_REALTIME, &t);
    put_double(&m, 1, (double)t.tv_sec + 1e-9 * (double)t.tv_nsec);
    return m;
}

int events_scalar(events *e, int64_t step, const char *tag, double value)
{
    message v = {.n = 0}, summary = {.n = 0}, event = start_event();
    if (nsm_error(e->ctx)) return nsm_error(e->ctx);
    put_bytes(&v, 1, tag, strnlen(tag, TAG_MOST)); /* Value: tag = 1, simple_value = 2 */
    put_float(&v, 2, (float)value);
    put_bytes(&summary, 1, v.byte, v.n);           /* Summary: value = 1 */
    put_varint(&event, 2 << 3);
    put_varint(&event, (uint64_t)step);
    put_bytes(&event, 5, summary.byte, summary.n);
    return put_record(e, &event);
}

static uint64_t get_little(const uint8_t *p, int bytes)
{
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++) v |= (uint64_t)p[i] << 8 * i;
    return v;
}

/* The step of an event that this file wrote: wall time (9 bytes), then the step if there is one. */
static int64_t step_of(const uint8_t *data, size_t n)
{
    uint64_t v = 0;
    if (n < 11 || data[9] != 2 << 3) return 0;
    for (size_t i = 10, shift = 0; i < n && shift < 64; i++, shift += 7) {
        v |= (uint64_t)(data[i] & 127) << shift;
        if (data[i] < 128) break;
    }
    return (int64_t)v;
}

/* Where the records end that are whole and of steps up to last_step. */
static long keep_until(FILE *f, int64_t last_step)
{
    long end = 0;
    uint8_t head[12], data[RECORD_MOST + 4];
    while (fread(head, 1, 12, f) == 12 && get_little(head + 8, 4) == masked(head, 8)) {
        uint64_t n = get_little(head, 8);
        if (n > RECORD_MOST || fread(data, 1, n + 4, f) != n + 4) break;
        if (get_little(data + n, 4) != masked(data, n) || step_of(data, n) > last_step) break;
        end += (long)(n + 16);
    }
    return end;
}

/* Position the open file behind what is kept; write the version record if nothing is. */
static int begin(events *e, int64_t last_step)
{
    long end = last_step < 0 ? 0 : keep_until(e->file, last_step);
    if (fseek(e->file, end, SEEK_SET) || fflush(e->file) || ftruncate(fileno(e->file), end))
        return failed(e);
    if (end > 0) return NSM_OK;
    message m = start_event();
    put_bytes(&m, 3, "brain.Event:2", 13);
    return put_record(e, &m);
}

events *events_open(nsm_ctx *ctx, const char *path, int64_t last_step)
{
    if (nsm_error(ctx)) return NULL;
    events *e = calloc(1, sizeof *e);
    if (!e || !(e->path = strdup(path))) {
        nsm_error_set(ctx, NSM_ENOMEM, "out of memory for %s", path);
        free(e);
        return NULL;
    }
    e->ctx = ctx;
    e->file = fopen(path, "r+b");
    if (!e->file && errno == ENOENT) e->file = fopen(path, "w+b");
    if (!e->file) failed(e);
    else if (begin(e, last_step) == NSM_OK) return e;
    events_close(e);
    return NULL;
}

int events_flush(events *e) { return fflush(e->file) ? failed(e) : NSM_OK; }

int events_close(events *e)
{
    if (!e) return NSM_OK;
    nsm_ctx *ctx = e->ctx;
    if (e->file && fclose(e->file)) failed(e);
    free(e->path);
    free(e);
    return nsm_error(ctx);
}
