/* Finds where events end in a stream of bytes, read by read (HTML standard, 9.2.6: lines end in LF,
 * CR or CRLF, mixed; a blank line ends an event). State between reads is one byte; nothing is kept
 * of the stream itself, and no byte is looked at twice. Byte mode needs only at_boundary; event
 * mode needs the offsets.
 *
 * A stream is cut into blocks: each ends behind the terminator of a blank line, so that the blocks
 * and the unfinished rest put together are the stream. A comment with a blank line behind it is a
 * block, and so is every blank line too many.
 *
 * CR and LF across reads: a blank line that ends in CR ends its block at once, because nobody knows
 * when the next byte comes. Where the LF of a CRLF is there already it is part of the block. Where
 * it comes first in the next read it never ends a block of its own: gw_sse_scan_skip_lf says so,
 * for callers that want it out of the way, and without that call it is the first byte of the next
 * block.
 *
 * A BOM as the first bytes of all is no part of a line: `BOM LF` is a blank line. Byte mode feeds
 * it to the scanner like any other bytes. Event mode takes it off before it scans, since a block
 * with a BOM in front is no event text (struct gw_event's raw has none). */
#ifndef GW_SSE_SCAN_H
#define GW_SSE_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buf.h"

struct gw_sse_scan {
    uint8_t state; /* where in a line, and in an event, the last byte left us */
};

/* At the start of a stream, where a BOM may come. */
void gw_sse_scan_init(struct gw_sse_scan *scan);

/* Event mode: looks for the end of the current block in bytes[0, len), which are the ones after
 * those of the last call. When it is here, *ended is true and the result is the number of bytes up
 * to and including the blank line's terminator; the rest is for the next call. Else *ended is false
 * and all of len is part of the block. The caller keeps the bytes and adds the results up:
 *
 *     kept += gw_sse_scan_next(&scan, piece, len, &ended);
 *     if (ended)
 *         ... the first `kept` bytes are a block
 */
size_t gw_sse_scan_next(struct gw_sse_scan *scan, const char *bytes, size_t len, bool *ended);
/* At the start of a block: 1 when bytes begin with the LF whose CR ended the block before, which is
 * then done with; else 0. Only the first byte is looked at; with none nothing changes. */
size_t gw_sse_scan_skip_lf(struct gw_sse_scan *scan, const char *bytes, size_t len);
/* Event mode over a buffer whose front is the front of a block: goes on behind *scanned, which
 * counts the bytes of the block. True: they are all of it. */
bool gw_sse_scan_buf(struct gw_sse_scan *scan, const struct gw_buf *buf, uint32_t *scanned);
/* Byte mode: runs over all bytes at once, whatever ends in them. */
void gw_sse_scan_run(struct gw_sse_scan *scan, const char *bytes, size_t len);
/* Byte mode: like run, and returns the offset of the last boundary (as below) that these bytes lead
 * to, behind the LF of a CRLF where both are here; 0 if there is none. */
size_t gw_sse_scan_last(struct gw_sse_scan *scan, const char *bytes, size_t len);
/* True where a comment with its blank line may go in and nothing else changes: no line is begun,
 * and no field has been seen since the last blank line. So at the very start (a BOM must not follow
 * then: it would be part of a line), behind a BOM, behind an event, and behind a comment line that
 * no field stands before. After a CR an LF may still follow: what goes in between makes that LF a
 * blank line of its own, which dispatches nothing. */
bool gw_sse_scan_at_boundary(const struct gw_sse_scan *scan);

/* True inside of an event: a field of it has begun and its blank line has not come. */
bool gw_sse_scan_in_event(const struct gw_sse_scan *scan);

/* gw_sse_scan_next by a plain byte machine: to test the vector code against. */
size_t gw_sse_scan_next_bytewise(struct gw_sse_scan *scan, const char *bytes, size_t len,
                                 bool *ended);

#endif
