/* The effective configuration as the gateway floor needs it: plain numbers, no Lua, no YAML.
 * It stands here and not in config/, because a lower floor may not include a higher one; config/
 * fills it. Times are milliseconds, sizes are bytes, 0 means no limit. */
#ifndef GW_GATEWAY_SETTINGS_H
#define GW_GATEWAY_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>
#include "base/log.h"
#include "http/codec.h"
#include "net/network.h"

enum gw_keepalive_mode { GW_KEEPALIVE_INTERVAL, GW_KEEPALIVE_IDLE };

enum { GW_LISTENERS_MAX = 16, GW_MODE_UNSET = 01000 };

struct gw_listen {
    char host[128]; /* "unix:/path", too */
    unsigned port;
    unsigned mode; /* of a socket's file; GW_MODE_UNSET: what the umask leaves */
    bool proxy_protocol;
};

struct gw_settings {
    unsigned listener_count;
    struct gw_listen listener[GW_LISTENERS_MAX];
    struct gw_http_limits client; /* heads, bodies and times of client connections */
    struct gw_http_limits origin; /* the same of backend connections */
    size_t max_buffered_body;     /* a request body that a hook reads whole */
    uint64_t write_ms;            /* no progress writing an ordinary response */
    unsigned max_connections;     /* of all workers together */
    struct gw_networks trusted;   /* peers that are believed who their client is */
    bool forwarded;               /* they say it by Forwarded, not by X-Forwarded-For */
    unsigned max_client_connections, client_prefix6; /* bits of IPv6 that are one client */
    size_t max_buffered_bytes;                       /* of all buffers of a worker */
    char upgrades[512];                              /* protocols of tunnels: "websocket,other" */
    uint64_t tunnel_idle_ms;                         /* no byte either way in a tunnel */

    bool sse_enabled;
    uint64_t sse_write_ms;
    uint64_t max_age_ms;   /* of an event stream */
    double max_age_jitter; /* part of it by which streams end earlier, at most */
    uint64_t first_event_ms;
    unsigned client_user_ms; /* TCP_USER_TIMEOUT */
    uint64_t sse_keepalive_ms;
    enum gw_keepalive_mode sse_keepalive_mode;
    size_t max_event_bytes;
    size_t sse_max_buffered; /* bytes of a stream that its client has not taken */

    unsigned max_idle, max_idle_per_host;
    uint64_t idle_conn_ms;
    bool keep_alive;
    unsigned tcp_keepalive_s, sse_tcp_keepalive_s;
    uint64_t dial_ms, sse_dial_ms;
    uint64_t response_head_ms;
    uint64_t origin_write_ms; /* a backend takes nothing of a request, or of a tunnel */
    uint64_t sse_silence_ms;

    /* Host names among the instances. */
    char dns_servers[512]; /* "10.0.0.1,[::1]:5353"; empty: those of the system */
    uint64_t dns_timeout_ms;
    uint64_t dns_min_ttl_ms, dns_max_ttl_ms;
    uint64_t dns_hold_ms; /* of addresses, when servers have come to say that there are none */
    int dns_family;       /* AF_INET, AF_INET6; 0: both */

    /* What plugins ask for by gateway.http. */
    unsigned calls_per_host; /* at the same time, for each address */
    uint64_t call_ms;
    size_t max_call_bytes;

    uint64_t lua_run_ms; /* CPU time of a hook at a stretch */
    size_t lua_max_memory;

    unsigned workers; /* 0 = one per core */
    uint64_t drain_ms;
    size_t shared_max_bytes; /* what plugins share; of the first version, for good */
    enum gw_log_level log_level;
    enum gw_log_format log_format;
    bool log_access;
    char log_file[256]; /* empty: stderr */

    bool admin_enabled;
    struct gw_listen admin;
};

#endif
