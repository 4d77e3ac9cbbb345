return require("lib.trace")("trace_d")
