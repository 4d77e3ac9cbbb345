--- Busted's output handler with one more line behind it, which CI reads: "N passed, N failed".
-- Errors (a file that does not load, a hook that raises) count as failed.

return function(options)
  local busted = require "busted"
  local isatty = io.type(io.stdout) == "file" and require("term").isatty(io.stdout)
  local handler = require("busted.outputHandlers." .. (isatty and "utfTerminal" or "plainTerminal"))(options)

  local function closing_line()
    local line = ("%d passed, %d failed"):format(handler.successesCount,
      handler.failuresCount + handler.errorsCount)
    if handler.pendingsCount > 0 then
      line = ("%s, %d skipped"):format(line, handler.pendingsCount)
    end
    io.write("\n", line, "\n")
    io.flush()
    return nil, true
  end

  busted.subscribe({ "suite", "end" }, closing_line)
  return handler
end
