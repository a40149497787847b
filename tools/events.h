/* events.h - TensorBoard event files: scalars in TFRecord frames.
 *
 * A record is length (8 bytes), masked CRC-32C of it, the data, masked CRC-32C of that; the data is
 * an Event of TensorFlow's event.proto.  Only what scalars need is written, by hand: the format has
 * stood still for years and a protobuf library would be the largest dependency of all. */
#ifndef TOOLS_EVENTS_H
#define TOOLS_EVENTS_H
#include <nsm.h>

typedef struct events events;

/* Open for appending, made if missing.  Records of steps after `last_step` and a torn last record
 * are cut off first (-1: start a new file).  NULL on error: NSM_EIO, NSM_EFORMAT, NSM_ENOMEM. */
events *events_open(nsm_ctx *ctx, const char *path, int64_t last_step);
int events_scalar(events *e, int64_t step, const char *tag, double value);
int events_flush(events *e);
int events_close(events *e); /* flushes and frees; NULL is allowed */

uint32_t events_crc32c(const void *data, size_t bytes);

#endif
