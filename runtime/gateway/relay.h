/* Moves bodies: the request's to the backend, the response's to the client, as plain bytes, as the
 * bytes of an event stream, or event by event through the hooks. */
#ifndef GW_GATEWAY_RELAY_H
#define GW_GATEWAY_RELAY_H

#include "gateway/exchange.h"

/* Sends what is there of the request body and credits the client for it. */
void gw_relay_upload(struct gw_exchange *x);
/* Takes in the whole request body, for a hook that wants to read it: GW_OK when it is all in
 * x->upload, GW_AGAIN while more is to come (the client may go on), GW_ERR_BODY_TOO_LARGE past
 * maxBufferedBody, GW_ERR_CLOSED when it has begun to go to the backend. */
enum gw_err gw_relay_hold_upload(struct gw_exchange *x) GW_MUST_CHECK;
/* Tells the backend that what it has sent of the response is taken care of. */
void gw_relay_credit(struct gw_exchange *x);
/* Begins with the response body; the head has just gone out. */
void gw_relay_start(struct gw_exchange *x);
/* Moves what may go on. GW_OK: all of the response is sent; GW_AGAIN: wait to be woken; else why
 * the client's stream must be broken off (x->why_upstream tells whose fault it is). */
enum gw_err gw_relay_run(struct gw_exchange *x) GW_MUST_CHECK;
/* The hooks of the rule have changed: takes up event or byte mode at the next boundary. */
void gw_relay_remode(struct gw_exchange *x);
/* An event stream that may be looked into (HTML standard 9.2; status 200, no Content-Encoding). */
bool gw_relay_is_stream(struct gw_exchange *x);
/* It is to end well at the next boundary between events. */
void gw_relay_retire(struct gw_exchange *x);
/* Is the stream between two events, with no hook thinking: may it change generations? */
bool gw_relay_between_events(const struct gw_exchange *x);
/* Why nothing may be put in between the events of the response; NULL: it may. */
const char *gw_relay_refuses(const struct gw_exchange *x);
/* The client is not behind by more than what a stream is paused for. */
bool gw_relay_has_room(const struct gw_exchange *x);
/* Puts whole events in: at once where the stream is between two, else behind the present one. */
void gw_relay_insert(struct gw_exchange *x, struct gw_slice events);
/* What was inserted goes to out now; for a hook whose own event comes behind it. */
void gw_relay_take_inserts(struct gw_exchange *x, struct gw_buf *out);
/* Time of the next `:keepalive`; 0 when none is to come. */
uint64_t gw_relay_keepalive_due(const struct gw_exchange *x);

#endif
