/* Everything that can go wrong with an exchange, with its text, HTTP status and log slug. */
#ifndef GW_BASE_ERR_H
#define GW_BASE_ERR_H

enum gw_err {
    GW_OK = 0,
    GW_AGAIN,       /* nothing wrong: not now, wait for readiness */
    GW_EOF,         /* the peer ended its sending in order */
    GW_ERR_IO,      /* a system call on the socket failed */
    GW_ERR_RESET,   /* connection reset by the peer */
    GW_ERR_REFUSED, /* connect refused or unreachable */
    GW_ERR_DIAL_TIMEOUT,
    GW_ERR_UNKNOWN_NAME,     /* a host's name has no address */
    GW_ERR_RESOLVE,          /* no name server gave an answer */
    GW_ERR_HEAD_TIMEOUT,     /* a client's request head took too long */
    GW_ERR_IDLE_TIMEOUT,     /* keep-alive connection without a request */
    GW_ERR_RESPONSE_TIMEOUT, /* the backend's response head took too long */
    GW_ERR_SILENCE_TIMEOUT,  /* an open stream was silent for longer than allowed */
    GW_ERR_WRITE_TIMEOUT,    /* the peer took nothing for too long */
    GW_ERR_TUNNEL_IDLE,      /* no byte went either way through a tunnel for too long */
    GW_ERR_BODY_TIMEOUT,     /* a client's request body made no progress */
    GW_ERR_TOTAL_TIMEOUT,    /* the rule's timeout for the whole exchange */
    GW_ERR_BAD_REQUEST,      /* a request that is not HTTP, or whose framing is in doubt */
    GW_ERR_BAD_VERSION,
    GW_ERR_HEAD_TOO_LARGE,
    GW_ERR_TARGET_TOO_LONG,
    GW_ERR_BODY_TOO_LARGE,
    GW_ERR_NOT_IMPLEMENTED, /* a method or transfer coding that is not served */
    GW_ERR_BAD_RESPONSE,    /* the backend's answer is not HTTP */
    GW_ERR_TRUNCATED,       /* the peer closed before the message was complete */
    GW_ERR_EVENT_TOO_LARGE,
    GW_ERR_NO_EVENT,    /* a stream ended before the event that was waited for */
    GW_ERR_FIRST_EVENT, /* a stream's first event says that there will be no other */
    GW_ERR_NO_INSTANCE,
    GW_ERR_OVERLOADED, /* a bound of the gateway is reached */
    GW_ERR_CLIENT_GONE,
    GW_ERR_HOOK,      /* a hook raised an error */
    GW_ERR_SHUTDOWN,  /* the gateway is stopping */
    GW_ERR_CLOSED,    /* this side closed on purpose */
    GW_ERR_CANCELLED, /* reset by the other side of the exchange */
    /* A bound is reached; these stand together. */
    GW_ERR_MAX_CONNECTIONS,
    GW_ERR_CLIENT_CONNECTIONS,
    GW_ERR_MAX_STREAMS,
    GW_ERR_CLIENT_STREAMS,
    GW_ERR_RULE_STREAMS,
    GW_ERR_RULE_CLIENT_STREAMS,
    GW_ERR_SESSION_STREAMS,
    GW_ERR_BUFFERED,  /* bytes in buffers of the process */
    GW_ERR_UNCOUNTED, /* no room to count one more client, rule or session */
    GW_ERR_NO_PROXY_HEADER,
    GW_ERR_BAD_PROXY_HEADER,
    GW_ERR_PEER_TIMEOUT,        /* the peer acknowledged nothing that was sent */
    GW_ERR_FIRST_EVENT_TIMEOUT, /* a stream's first event took too long */
    GW_ERR_MAX_AGE,             /* a stream was old enough to end */
    GW_ERR_LIMIT                /* number of entries, not an error */
};

/* A sentence fragment for people; never NULL. */
const char *gw_err_text(enum gw_err err);

/* The word for logs, metrics and on_close reasons, such as "reset" (whose side is said elsewhere);
 * never NULL. */
const char *gw_err_slug(enum gw_err err);

/* The HTTP status a client gets when the response head is not out yet; 0 where none fits. */
int gw_err_status(enum gw_err err);

#endif
