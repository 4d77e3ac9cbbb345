return require("lib.trace")("trace_c")
