/* HTTP/1.1 and 1.0 (RFC 9112) over llhttp, both sides. One stream at a time per connection. */
#ifndef GW_HTTP_HTTP1_H
#define GW_HTTP_HTTP1_H

#include "http/codec.h"

/* Serves an accepted descriptor: streams come through host->on_stream. Starts reading. */
struct gw_codec *gw_http1_serve(struct gw_loop *loop, int fd, const struct gw_addr *peer,
                                const struct gw_transport_ops *transport,
                                const struct gw_http_limits *limits,
                                const struct gw_codec_host *host, void *owner);
/* Dials a backend. A stream may be opened at once: what it sends waits for the connection, and a
 * failed dial is its on_close. NULL with *err when there is no descriptor left. */
struct gw_codec *gw_http1_dial(struct gw_loop *loop, const struct gw_addr *to, uint64_t dial_ms,
                               unsigned keepalive_s, const struct gw_transport_ops *transport,
                               const struct gw_http_limits *limits,
                               const struct gw_codec_host *host, void *owner, enum gw_err *err);

#endif
