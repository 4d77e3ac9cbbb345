return require("lib.trace")("trace_b", true)
