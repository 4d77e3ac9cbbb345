/* Owns what a VM needs for keyed hashes by OpenSSL's libcrypto: signed cookies are made of them,
 * and of a comparison that takes the same time wherever two texts differ. Called by gateway.ticket
 * and gateway.session. Invariant: whatever key the last call had, the next one brings its own. */
#include "script/api.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
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

/* To look an algorithm up takes longer than a hash. */
static EVP_MAC_CTX *mac_of(struct gw_vm *vm)
{
    char sha256[] = "SHA256";
    OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, sha256, 0),
                           OSSL_PARAM_construct_end()};
    if (vm->mac)
        return vm->mac;
    EVP_MAC *hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    vm->mac = hmac ? EVP_MAC_CTX_new(hmac) : NULL;
    EVP_MAC_free(hmac);
    if (vm->mac && !EVP_MAC_CTX_set_params(vm->mac, params))
        gw_api_crypto_end(vm);
    return vm->mac;
}

void gw_api_crypto_end(struct gw_vm *vm)
{
    EVP_MAC_CTX_free(vm->mac);
    vm->mac = NULL;
}

/* hmac_sha256(key, text) -> 64 hexadecimal digits */
static int hmac_sha256(lua_State *L)
{
    unsigned char hash[EVP_MAX_MD_SIZE];
    size_t len;
    struct gw_slice key = gw_lua_slice(L, 1), text = gw_lua_slice(L, 2);
    EVP_MAC_CTX *mac = mac_of(gw_api_vm(L));
    if (!mac || !EVP_MAC_init(mac, (const unsigned char *)key.ptr, key.len, NULL) ||
        !EVP_MAC_update(mac, (const unsigned char *)text.ptr, text.len) ||
        !EVP_MAC_final(mac, hash, &len, sizeof hash))
        return luaL_error(L, "HMAC-SHA256 is not to be had");
    return push_hex(L, hash, len);
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
