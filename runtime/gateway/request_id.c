/* Owns nothing. Called when a request begins, and by exchanges whose stream stays open. Invariant:
 * what was packed is unpacked as the same text. */
#include "gateway/request_id.h"

#include <stdint.h>
#include <string.h>
#include "base/random.h"

enum { DIGITS = 32, DIGIT_BITS = 4 };
static const char digits[] = "0123456789abcdef";

bool gw_id_is_sane(struct gw_slice id)
{
    if (id.len == 0 || id.len > GW_ID_MAX)
        return false;
    for (size_t i = 0; i < id.len; i++) {
        char c = id.ptr[i];
        bool word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!word && !strchr("-_.:+/=", c))
            return false;
    }
    return true;
}

static void put_digits(const unsigned char bits[DIGITS / 2], char *text)
{
    for (unsigned i = 0; i < DIGITS / 2; i++) {
        text[2 * i] = digits[bits[i] >> DIGIT_BITS];
        text[2 * i + 1] = digits[bits[i] & 15];
    }
    text[DIGITS] = '\0';
}

/* Ids must not repeat; they need not be secret. */
void gw_id_new(char text[GW_ID_TEXT])
{
    uint64_t bits[] = {gw_random(), gw_random()};
    put_digits((const unsigned char *)bits, text);
}

static bool is_digits(const char *id)
{
    for (unsigned i = 0; i < DIGITS; i++) {
        if (!((id[i] >= '0' && id[i] <= '9') || (id[i] >= 'a' && id[i] <= 'f')))
            return false;
    }
    return !id[DIGITS];
}

size_t gw_id_packed_size(const char *id)
{
    return 1 + (is_digits(id) ? DIGITS / 2 : strlen(id));
}

static unsigned digit(char c)
{
    return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
}

/* Digits begin with a NUL, where no text does. */
void gw_id_pack(const char *id, char *out)
{
    if (!is_digits(id)) {
        memcpy(out, id, strlen(id) + 1);
        return;
    }
    *out++ = '\0';
    for (unsigned i = 0; i < DIGITS; i += 2)
        *out++ = (char)(digit(id[i]) << DIGIT_BITS | digit(id[i + 1]));
}

const char *gw_id_unpack(const char *in, char text[GW_ID_TEXT])
{
    if (*in)
        memcpy(text, in, strlen(in) + 1);
    else
        put_digits((const unsigned char *)in + 1, text);
    return text;
}
