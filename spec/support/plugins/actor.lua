return require("lib.actor")("actor")
