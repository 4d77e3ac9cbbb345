/* One HTTP/1.1 response as it comes in, framing taken off. */
#ifndef BENCH_MESSAGE_H
#define BENCH_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum message_state { MESSAGE_HEAD, MESSAGE_BODY, MESSAGE_DONE, MESSAGE_BAD };

/* All zero is a response of which nothing has come. */
struct message {
    uint8_t state;   /* enum message_state */
    uint8_t framing; /* private: how the body ends */
    uint8_t chunk;   /* private: where in a chunk */
    bool is_events;  /* its media type is text/event-stream */
    uint16_t status;
    uint16_t head_len;
    uint64_t left; /* private: bytes of the body, or of the chunk */
    char *head;    /* while it is incomplete */
};

/* Takes bytes up to the end of the response and appends those of the body to `body`, which has room
 * for n more. Returns how many of the n belong to this response; the state tells the rest. */
size_t message_feed(struct message *m, const char *bytes, size_t n, char *body, size_t *body_len);
/* The peer has ended the connection: whether the response is complete with that. */
bool message_eof(const struct message *m);
/* Ready for the next response. */
void message_reset(struct message *m);

#endif
