/* The table of everything that can go wrong. Everybody reads it, nobody changes it.
 * Invariant: every value of enum gw_err has a row; text and slug are never NULL. */
#include "base/err.h"

#include <stddef.h>

struct err_row {
    const char *text, *slug;
    int status;
};

static const struct err_row rows[GW_ERR_LIMIT] = {
    [GW_OK] = {"ok", "ok", 0},
    [GW_AGAIN] = {"not ready yet", "again", 0},
    [GW_EOF] = {"the peer closed the connection", "eof", 502},
    [GW_ERR_IO] = {"input or output failed", "io_error", 502},
    [GW_ERR_RESET] = {"the peer reset the connection", "reset", 502},
    [GW_ERR_REFUSED] = {"the connection was refused", "refused", 502},
    [GW_ERR_DIAL_TIMEOUT] = {"connecting took too long", "dial_timeout", 504},
    [GW_ERR_UNKNOWN_NAME] = {"the host is not known", "unknown_name", 502},
    [GW_ERR_RESOLVE] = {"no name server answered", "resolve_failed", 502},
    [GW_ERR_HEAD_TIMEOUT] = {"the request head took too long", "head_timeout", 408},
    [GW_ERR_IDLE_TIMEOUT] = {"the connection was idle for too long", "idle_timeout", 0},
    [GW_ERR_RESPONSE_TIMEOUT] = {"the answer took too long", "response_timeout", 504},
    [GW_ERR_SILENCE_TIMEOUT] = {"the stream was silent for too long", "silence_timeout", 504},
    [GW_ERR_WRITE_TIMEOUT] = {"the peer took no bytes for too long", "write_timeout", 504},
    [GW_ERR_BODY_TIMEOUT] = {"the request body took too long", "body_timeout", 408},
    [GW_ERR_TOTAL_TIMEOUT] = {"the exchange took too long", "timeout", 504},
    [GW_ERR_BAD_REQUEST] = {"the request is malformed", "bad_request", 400},
    [GW_ERR_BAD_VERSION] = {"this version of HTTP is not served", "bad_version", 505},
    [GW_ERR_HEAD_TOO_LARGE] = {"the request head is too large", "head_too_large", 431},
    [GW_ERR_TARGET_TOO_LONG] = {"the request target is too long", "target_too_long", 414},
    [GW_ERR_BODY_TOO_LARGE] = {"the request body is too large", "body_too_large", 413},
    [GW_ERR_NOT_IMPLEMENTED] = {"the method or transfer coding is not served", "not_implemented",
                                501},
    [GW_ERR_BAD_RESPONSE] = {"the answer is malformed", "bad_response", 502},
    [GW_ERR_TRUNCATED] = {"the message ended before it was complete", "truncated", 502},
    [GW_ERR_EVENT_TOO_LARGE] = {"an event is too large", "event_too_large", 502},
    [GW_ERR_NO_EVENT] = {"the stream ended without an event", "no_event", 502},
    [GW_ERR_FIRST_EVENT] = {"the stream began with an error", "error_event", 503},
    [GW_ERR_NO_INSTANCE] = {"no instance can serve the request", "no_instance", 503},
    [GW_ERR_OVERLOADED] = {"the gateway is at its limit", "overloaded", 503},
    [GW_ERR_CLIENT_GONE] = {"the client left", "client_gone", 0},
    [GW_ERR_HOOK] = {"a plugin failed", "hook_error", 500},
    [GW_ERR_SHUTDOWN] = {"the gateway is stopping", "shutdown", 503},
    [GW_ERR_CLOSED] = {"closed on purpose", "closed", 0},
    [GW_ERR_CANCELLED] = {"cancelled by the other side", "cancelled", 0},
    [GW_ERR_MAX_CONNECTIONS] = {"the gateway has as many connections as it may", "max_connections",
                                503},
    [GW_ERR_CLIENT_CONNECTIONS] = {"too many connections of this client",
                                   "max_connections_per_client", 429},
    [GW_ERR_MAX_STREAMS] = {"the gateway has as many event streams as it may", "max_streams", 503},
    [GW_ERR_CLIENT_STREAMS] = {"too many event streams of this client", "max_streams_per_client",
                               429},
    [GW_ERR_RULE_STREAMS] = {"this path has as many event streams as it may", "rule_max_streams",
                             503},
    [GW_ERR_RULE_CLIENT_STREAMS] = {"too many event streams of this client on this path",
                                    "rule_max_streams_per_client", 429},
    [GW_ERR_SESSION_STREAMS] = {"too many event streams of this session", "max_streams_per_session",
                                429},
    [GW_ERR_BUFFERED] = {"the gateway is short of memory", "max_buffered_bytes", 503},
    [GW_ERR_UNCOUNTED] = {"the gateway counts as many clients as it can", "bounds_full", 503},
    [GW_ERR_NO_PROXY_HEADER] = {"the header of the PROXY protocol is missing", "no_proxy_header",
                                0},
    [GW_ERR_BAD_PROXY_HEADER] = {"the header of the PROXY protocol is malformed",
                                 "bad_proxy_header", 0},
    [GW_ERR_TUNNEL_IDLE] = {"the tunnel was idle for too long", "tunnel_idle_timeout", 0},
    [GW_ERR_PEER_TIMEOUT] = {"the peer is not there any more", "peer_timeout", 504},
    [GW_ERR_FIRST_EVENT_TIMEOUT] = {"the first event took too long", "first_event_timeout", 504},
    [GW_ERR_MAX_AGE] = {"the stream was old enough", "max_age", 0},
};

static const struct err_row unknown = {"unknown error", "unknown", 500};

static const struct err_row *row_of(enum gw_err err)
{
    if ((unsigned)err >= GW_ERR_LIMIT || rows[err].text == NULL)
        return &unknown;
    return &rows[err];
}

const char *gw_err_text(enum gw_err err)
{
    return row_of(err)->text;
}

const char *gw_err_slug(enum gw_err err)
{
    return row_of(err)->slug;
}

int gw_err_status(enum gw_err err)
{
    return row_of(err)->status;
}
