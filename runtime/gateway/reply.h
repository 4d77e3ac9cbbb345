/* Answers that the gateway makes itself: a plugin's reply, or an error as a small document. */
#ifndef GW_GATEWAY_REPLY_H
#define GW_GATEWAY_REPLY_H

#include "gateway/exchange.h"

/* An empty reply with that status, in place of one made before. Fields and body are added by the
 * caller; the exchange owns it. */
struct gw_reply *gw_reply_new(struct gw_exchange *x, unsigned status);
/* The error document for err, with Retry-After where waiting may help. */
void gw_reply_error(struct gw_exchange *x, enum gw_err err);
/* An error document with a status and sentence of the caller's (404, 405, 406 by the router). */
void gw_reply_problem(struct gw_exchange *x, unsigned status, struct gw_slice text);
/* Fills an error document: JSON, or plain text where the client asks for that (request may be
 * NULL, when it could not be read). id may be empty. */
void gw_problem_write(struct gw_head *head, struct gw_buf *body, const struct gw_head *request,
                      unsigned status, struct gw_slice text, struct gw_slice id);
/* Appends a text as a string of JSON. */
void gw_json_text(struct gw_buf *out, struct gw_slice text);
void gw_reply_free(struct gw_reply *reply);

#endif
