return require("lib.actor")("director", true)
