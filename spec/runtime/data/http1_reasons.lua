--- Why the gateway decides as it does where nginx or HAProxy decide otherwise: by category, or by the name of a
-- case. Read by bench/strictness.lua for docs/http-peers.md. Keys: what the gateway does; else_: the rest.
return { categories = {}, cases = {} }
