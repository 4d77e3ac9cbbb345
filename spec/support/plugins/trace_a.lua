return require("lib.trace")("trace_a", true)
