local ffi = require "ffi"
local json = require "cjson"
local rt = require "support.runtime"
local C = rt.load("base/log.h")

local TEXT, JSON = C.GW_LOG_TEXT, C.GW_LOG_JSON
local DEBUG, INFO, WARN, ERROR = C.GW_LOG_DEBUG, C.GW_LOG_INFO, C.GW_LOG_WARN, C.GW_LOG_ERROR
local NAME = "worker-1"

local unescape = { n = "\n", r = "\r", t = "\t", ['"'] = '"', ["\\"] = "\\" }

-- Reads a line of logfmt back; raises an error where it is not one.
local function parse_logfmt(line)
  local fields, keys, at = {}, {}, 1
  while at <= #line do
    local key, next_at = line:match("^([%w_.-]+)=()", at)
    assert(key, "no key at " .. at .. " of " .. line)
    local value
    if line:sub(next_at, next_at) == '"' then
      local parts, i = {}, next_at + 1
      while line:sub(i, i) ~= '"' do
        local c = line:sub(i, i)
        assert(c ~= "", "no closing quote in " .. line)
        if c == "\\" then
          local escape = line:sub(i + 1, i + 1)
          if escape == "x" then
            parts[#parts + 1] = string.char(tonumber(line:sub(i + 2, i + 3), 16))
            i = i + 4
          elseif escape == "u" then
            parts[#parts + 1] = "<" .. line:sub(i + 2, i + 5) .. ">"
            i = i + 6
          else
            parts[#parts + 1] = assert(unescape[escape], "an odd escape")
            i = i + 2
          end
        else
          parts[#parts + 1] = c
          i = i + 1
        end
      end
      value, at = table.concat(parts), i + 1
    else
      value, at = line:match("^([^ =\"\\]+)()", next_at)
      assert(value, "an empty value in " .. line)
    end
    assert(at > #line or line:sub(at, at) == " ", "no space between fields in " .. line)
    at = at + 1
    keys[#keys + 1] = key
    fields[key] = value
  end
  return fields, keys
end

describe("the log", function()
  local path
  local line

  before_each(function()
    path = os.tmpname()
    line = ffi.new "struct gw_log_line"
    C.gw_log_name(NAME)
  end)

  after_each(function()
    assert(C.gw_log_setup(INFO, TEXT, nil))
    os.remove(path)
  end)

  local function setup_log(format, level) assert(C.gw_log_setup(level or INFO, format, path)) end

  local function written()
    local file = assert(io.open(path))
    local text = file:read "*a"
    file:close()
    return text
  end

  local function only_line()
    local text = written()
    assert.matches("^[^\n]*\n$", text)
    return (text:gsub("\n$", ""))
  end

  -- A line with one field, read back.
  local function logged(format, key, value)
    assert(io.open(path, "w")):close()
    setup_log(format)
    C.gw_log_begin(line, INFO, "message")
    C.gw_log_str(line, key, rt.slice(value))
    C.gw_log_end(line)
    local text = only_line()
    return format == JSON and json.decode(text) or parse_logfmt(text), text
  end

  it("writes time, level, process, message and fields in this order", function()
    setup_log(TEXT)
    C.gw_log_begin(line, WARN, "it happened")
    C.gw_log_cstr(line, "x", "abc123")
    C.gw_log_int(line, "n", -9223372036854775807LL)
    C.gw_log_float(line, "seconds", 0.125)
    C.gw_log_end(line)
    local fields, keys = parse_logfmt(only_line())
    assert.same({ "ts", "level", "proc", "msg", "x", "n", "seconds" }, keys)
    assert.equal("warn", fields.level)
    assert.equal(NAME, fields.proc)
    assert.equal("it happened", fields.msg)
    assert.equal("abc123", fields.x)
    assert.equal("-9223372036854775807", fields.n)
    assert.equal("0.125", fields.seconds)
  end)

  it("writes the same as JSON", function()
    setup_log(JSON)
    C.gw_log_begin(line, ERROR, "it happened")
    C.gw_log_cstr(line, "x", "abc123")
    C.gw_log_int(line, "n", -5)
    C.gw_log_float(line, "seconds", 0.125)
    C.gw_log_float(line, "odd", 0 / 0)
    C.gw_log_end(line)
    local fields = json.decode(only_line())
    assert.matches("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%dZ$", fields.ts)
    fields.ts = nil
    assert.same({
      level = "error", proc = NAME, msg = "it happened", x = "abc123", n = -5, seconds = 0.125,
      odd = json.null,
    }, fields)
  end)

  it("stamps lines with the time of day in UTC", function()
    setup_log(TEXT)
    local before = os.time()
    C.gw_log(INFO, "now")
    local after = os.time()
    local y, mo, d, h, mi, s =
      parse_logfmt(only_line()).ts:match "^(%d+)-(%d+)-(%d+)T(%d+):(%d+):(%d+)%.%d%d%dZ$"
    local function utc(stamp) return os.date("!%Y%m%d%H%M%S", stamp) end
    local stamp = y .. mo .. d .. h .. mi .. s
    assert.is_true(utc(before) <= stamp and stamp <= utc(after))
  end)

  it("leaves out what is below its level", function()
    setup_log(TEXT, WARN)
    assert.is_false(C.gw_log_enabled(INFO))
    assert.is_true(C.gw_log_enabled(WARN))
    for _, level in ipairs { DEBUG, INFO, WARN, ERROR } do
      C.gw_log(level, "level %d", ffi.cast("int", level))
      C.gw_log_begin(line, level, "fields")
      C.gw_log_int(line, "n", 1)
      C.gw_log_end(line)
    end
    local levels = {}
    for level in written():gmatch "level=(%a+)" do levels[#levels + 1] = level end
    assert.same({ "warn", "warn", "error", "error" }, levels)
  end)

  it("formats a message and nothing else in the short form", function()
    setup_log(TEXT)
    C.gw_log(INFO, "%s is %d", "x", ffi.cast("int", 7))
    assert.matches(' msg="x is 7"$', only_line())
  end)

  describe("escaping", function()
    -- Value, and how it reads back from logfmt and from JSON where that is not the value itself.
    local replaced = "\239\191\189"
    local values = {
      { "plain" }, { "" }, { " " }, { "two words" }, { "a=b" }, { 'say "hi"' }, { "back\\slash" },
      { "\\" }, { "\\\\n" }, { '"' }, { "line\nbreak" }, { "a\r\nlevel=error msg=forged" },
      { "tab\there" }, { "nul\0byte" }, { "esc\27[31mred" }, { "\127" }, { "\1\31" },
      { "üñ€😀" }, { "/path?q=1&r=%20" }, { "{json}" }, { "</script>" },
      { "\194\155", "<009b>" },
      { "bad\255byte", nil, "bad" .. replaced .. "byte" },
      { "\192\175", nil, replaced:rep(2) },
      { "\224\128\128", nil, replaced:rep(3) },
      { "\237\160\128", nil, replaced:rep(3) },
      { "\244\144\128\128", nil, replaced:rep(4) },
      { "\240\143\191\191", nil, replaced:rep(4) },
      { "cut\226\130", nil, "cut" .. replaced:rep(2) },
      { "\195", nil, replaced }, { "\128", nil, replaced },
      { "\240\159\152", nil, replaced:rep(3) },
    }

    for _, case in ipairs(values) do
      local value, text, decoded = case[1], case[2], case[3]
      local name = value:gsub("[^%w ]", "?")

      it("keeps one line and one value in logfmt: " .. name, function()
        local fields, whole = logged(TEXT, "v", value)
        assert.equal(text or value, fields.v)
        assert.is_nil(whole:find "[%c\127]")
      end)

      it("keeps one line and one value in JSON: " .. name, function()
        local fields, whole = logged(JSON, "v", value)
        assert.equal(decoded or value, fields.v)
        assert.is_nil(whole:find "[%c\127]")
      end)
    end

    it("quotes only where it has to", function()
      assert.matches(" v=/a/b%?c$", select(2, logged(TEXT, "v", "/a/b?c")))
      assert.matches(' v="a b"$', select(2, logged(TEXT, "v", "a b")))
      assert.matches(' v=""$', select(2, logged(TEXT, "v", "")))
    end)

    it("lets nothing odd into a key", function()
      for _, format in ipairs { TEXT, JSON } do
        assert.equal("v", logged(format, 'a b="c\n', "v")["a_b__c_"])
        assert.equal("v", logged(format, "", "v")["_"])
        assert.equal("v", logged(format, ("k"):rep(500), "v")[("k"):rep(format == TEXT and 69 or 68)])
      end
    end)

    it("takes the same care of the message", function()
      setup_log(TEXT)
      C.gw_log(INFO, "%s", 'x\nlevel=error msg="forged"')
      assert.equal('x\nlevel=error msg="forged"', parse_logfmt(only_line()).msg)
    end)
  end)

  describe("a line that does not fit", function()
    for _, format in ipairs { TEXT, JSON } do
      local name = format == TEXT and "logfmt" or "JSON"

      it("is cut where it is full and stays " .. name, function()
        for _, char in ipairs { "x", '"', "\n", "\255", "€", " " } do
          for extra = 0, 12 do
            local value = ("y"):rep(extra) .. char:rep(5000)
            local fields, text = logged(format, "v", value)
            assert.is_true(#text <= 4096)
            assert.is_true(#text > 3900)
            assert.equal("true", tostring(fields.cut))
            assert.equal(("y"):rep(extra), fields.v:sub(1, extra))
          end
        end
      end)

      it("never loses the end of a field that has begun, in " .. name, function()
        for fill = 3880, 3985 do
          assert(io.open(path, "w")):close()
          setup_log(format)
          C.gw_log_begin(line, INFO, "m")
          C.gw_log_str(line, "fill", rt.slice(("f"):rep(fill)))
          C.gw_log_cstr(line, "a", "b c")
          C.gw_log_int(line, "n", 123456)
          C.gw_log_float(line, "f", 1.5)
          C.gw_log_cstr(line, "z", "")
          C.gw_log_end(line)
          local text = only_line()
          local fields = format == JSON and json.decode(text) or parse_logfmt(text)
          assert.equal(#fields.fill, fill)
          if fields.n then assert.equal(123456, tonumber(fields.n)) end
          if not (fields.a == "b c" and fields.n and fields.f and fields.z) then
            assert.equal("true", tostring(fields.cut))
          end
        end
      end)
    end
  end)

  describe("its file", function()
    it("is appended to, and opened again under its name", function()
      setup_log(TEXT)
      C.gw_log(INFO, "one")
      local old = path .. ".old"
      assert(os.rename(path, old))
      C.gw_log(INFO, "two")
      C.gw_log_reopen()
      C.gw_log(INFO, "three")
      assert.matches("msg=three\n$", written())
      assert.is_nil(written():find "msg=two")
      local file = assert(io.open(old))
      assert.matches("msg=one\n.*msg=two\n$", file:read "*a")
      file:close()
      os.remove(old)
    end)

    it("stays what it was when another one can't be opened", function()
      setup_log(TEXT)
      assert.is_false(C.gw_log_setup(DEBUG, JSON, "/nonexistent/folder/log"))
      assert.equal(2, ffi.errno())
      assert.is_false(C.gw_log_setup(DEBUG, JSON, ("x"):rep(5000)))
      C.gw_log(INFO, "still")
      assert.matches("msg=still\n$", written())
    end)

    it("stays open when it can't be opened again, and says so in it", function()
      local folder = path .. ".d"
      assert(os.execute("mkdir " .. folder) == 0)
      assert(C.gw_log_setup(INFO, TEXT, folder .. "/log"))
      assert(os.execute(("mv %s %s.gone"):format(folder, folder)) == 0)
      C.gw_log_reopen()
      local file = assert(io.open(folder .. ".gone/log"))
      assert.matches("level=error .*can't reopen the log", file:read "*a")
      file:close()
      os.execute(("rm -r %s.gone"):format(folder))
    end)
  end)
end)
