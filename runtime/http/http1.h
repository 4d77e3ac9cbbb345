/* HTTP/1.1 and 1.0 (RFC 9112) over llhttp, both sides. One stream at a time per connection.
 *
 * Choices where the RFCs leave one, or where more than they ask for is refused:
 * - HTTP/1.2 to 1.9 count as 1.1; other major versions get 505, unknown methods and CONNECT 501.
 * - One empty line in front of a request is passed over; bare CR and LF are refused everywhere.
 * - Any Transfer-Encoding but one `chunked` in 1.1, and any repeated length, is refused with 400.
 * - An absolute target and a Host that differ are refused, an empty Host too.
 * - A Connection field that names what is meant for the backend (Host, Content-*, Authorization,
 *   Cookie, X-Forwarded-*, …) is refused in a request; in a response that name is passed over.
 * - Trailers are checked, bounded and dropped. A chunk has at most one extension with a value, and
 *   all extensions of a request are bounded together.
 * - Expect with anything but 100-continue gets 400 (there is no error for 417).
 * - A client that ends its sending, even if only that half, counts as gone while it is answered.
 * - A request whose field name becomes one of ours when `_` is read as `-` (Content_Length,
 *   X_Forwarded_For) is refused, and so are two Content-Type or two Authorization.
 * - A tunnel opens only on a 101 that the request asked for: see stream.h. No other 101 is passed
 * on.
 */
#ifndef GW_HTTP_HTTP1_H
#define GW_HTTP_HTTP1_H

#include "http/codec.h"

/* Serves an accepted descriptor: streams come through on_stream. Starts reading. */
struct gw_codec *gw_http1_serve(const struct gw_codec_host *host, int fd,
                                const struct gw_addr *peer,
                                const struct gw_transport_ops *transport);
/* Dials a backend. A stream may be opened at once: what it sends waits for the connection, and a
 * failed dial is its on_close. NULL with *err when there is no descriptor left. */
struct gw_codec *gw_http1_dial(const struct gw_codec_host *host, const struct gw_addr *to,
                               uint64_t dial_ms, unsigned keepalive_s,
                               const struct gw_transport_ops *transport, enum gw_err *err);

#endif
