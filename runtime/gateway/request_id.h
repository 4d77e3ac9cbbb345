/* Request ids: drawn here, or the client's. */
#ifndef GW_GATEWAY_REQUEST_ID_H
#define GW_GATEWAY_REQUEST_ID_H

#include <stdbool.h>
#include <stddef.h>
#include "base/slice.h"

enum { GW_ID_MAX = 64, GW_ID_TEXT = GW_ID_MAX + 1 }; /* bytes of an id; with its NUL */

/* Draws one: 128 bits in 32 hexadecimal digits. */
void gw_id_new(char text[GW_ID_TEXT]);
/* May it be taken over: 1 to 64 letters, digits and -_.:+/= only. */
bool gw_id_is_sane(struct gw_slice id);
/* Bytes that gw_id_pack writes: 17 for ids like those drawn here, else all of it and a NUL. */
size_t gw_id_packed_size(const char *id);
/* id: at most GW_ID_MAX bytes, not empty. */
void gw_id_pack(const char *id, char *out);
/* Returns `text`, which it writes. */
const char *gw_id_unpack(const char *in, char text[GW_ID_TEXT]);

#endif
