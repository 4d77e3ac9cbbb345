/* Owns nothing. Lua's way to what OpenSSL's libcrypto does: the keyed hash of signed cookies, and
 * a comparison that takes the same time wherever two texts differ. Called by gateway.ticket and
 * gateway.session. Invariant: no key outlives a call. */
#include "script/api.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sys/random.h>

enum { RANDOM_MAX = 32 };

static int push_hex(lua_State *L, const unsigned char *bytes, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    char text[2 * EVP_MAX_MD_SIZE];
    for (size_t i = 0; i < n; i++) {
        text[2 * i] = digits[bytes[i] >> 4];
        text[2 * i + 1] = digits[bytes[i] & 15];
    }
    lua_pushlstring(L, text, 2 * n);
    return 1;
}

/* hmac_sha256(key, text) -> 64 hexadecimal digits */
static int hmac_sha256(lua_State *L)
{
    unsigned char mac[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    struct gw_slice key = gw_lua_slice(L, 1), text = gw_lua_slice(L, 2);
    luaL_argcheck(L, key.len <= INT32_MAX, 1, "too long");
    if (!HMAC(EVP_sha256(), key.ptr, (int)key.len, (const unsigned char *)text.ptr, text.len, mac,
              &len))
        return luaL_error(L, "HMAC-SHA256 is not to be had");
    return push_hex(L, mac, len);
}

/* equal(a, b): whether they are the same; how long it takes tells of nothing but their lengths. */
static int equal(lua_State *L)
{
    struct gw_slice a = gw_lua_slice(L, 1), b = gw_lua_slice(L, 2);
    lua_pushboolean(L, a.len == b.len && CRYPTO_memcmp(a.ptr, b.ptr, a.len) == 0);
    return 1;
}

/* random(n): that many random bytes as hexadecimal text, fit to be a session's name. */
static int random_hex(lua_State *L)
{
    unsigned char bytes[RANDOM_MAX];
    lua_Integer n = luaL_optinteger(L, 1, 16);
    luaL_argcheck(L, n > 0 && n <= RANDOM_MAX, 1, "from 1 to 32 bytes");
    if (getrandom(bytes, (size_t)n, 0) != n)
        return luaL_error(L, "no random bytes to be had");
    return push_hex(L, bytes, (size_t)n);
}

static const luaL_Reg functions[] = {
    {"hmac_sha256", hmac_sha256},
    {"equal", equal},
    {"random", random_hex},
    {NULL, NULL},
};

void gw_api_crypto(struct gw_vm *vm)
{
    lua_pushlightuserdata(vm->L, vm);
    luaL_setfuncs(vm->L, functions, 1);
}
