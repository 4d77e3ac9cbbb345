std = "luajit"
max_line_length = 110
cache = false
exclude_files = { "build*/**" }
files["spec"] = { std = "luajit+busted" }
files["lua/gateway/meta"] = { ignore = { "212", "241", "421", "611" } }
files["bench/nginx_filter.lua"] = { globals = { "ngx" } }
