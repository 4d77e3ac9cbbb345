require("gateway.testing")
local source = require("gateway.source")

describe("source.join", function()
  it("makes one tidy path", function()
    for _, case in ipairs({
      { "conf", "../plugins", "plugins" }, { "conf", "routes/a.lua", "conf/routes/a.lua" }, { ".", "x", "x" },
      { "", "x", "x" }, { "/etc/gw", "../p", "/etc/p" }, { "conf", "/abs/p", "/abs/p" }, { "a", "../../b",
        "../b" },
      { "conf", "./x", "conf/x" }, { ".", "..", ".." }, { "a", "..", "." }, { "/", "x", "/x" },
    }) do
      assert.equal(case[3], source.join(case[1], case[2]))
    end
  end)
end)

describe("source.folder", function()
  it("is where a file lies", function()
    assert.equal("conf", source.folder("conf/x.yaml"))
    assert.equal(".", source.folder("x.yaml"))
    assert.equal("/", source.folder("/x.yaml"))
  end)
end)

describe("a source", function()
  local dir

  local function write(name, text)
    local file = assert(io.open(dir .. "/" .. name, "w"))
    file:write(text)
    file:close()
  end

  before_each(function()
    dir = os.tmpname()
    os.remove(dir)
    assert(require("lfs").mkdir(dir))
  end)

  after_each(function() os.execute("rm -rf " .. dir) end)

  it("reads the disk once, and remembers misses", function()
    write("a.lua", "one")
    local disk = source.disk()
    assert.equal("one", disk:read(dir .. "/a.lua"))
    write("a.lua", "two")
    assert.equal("one", disk:read(dir .. "/a.lua"))
    local text, err = disk:read(dir .. "/b.lua")
    assert.is_nil(text)
    assert.matches("b.lua: No such file", err)
    write("b.lua", "late")
    assert.is_nil((disk:read(dir .. "/b.lua")))
    assert.is_nil((disk:read(dir)))
    assert.same({ "a.lua", "b.lua" }, disk:list(dir))
    assert.is_nil((disk:list(dir .. "/none")))
    assert.same({ files = { dir, dir .. "/a.lua", dir .. "/b.lua" }, dirs = { dir, dir .. "/none" } },
      disk:watch())
  end)

  it("finds files by pattern", function()
    for _, name in ipairs({ "b.lua", "a.lua", "a.txt", ".a.lua", "a+b.lua" }) do write(name, "") end
    local disk = source.disk()
    assert.same({ dir .. "/a+b.lua", dir .. "/a.lua", dir .. "/b.lua" }, disk:glob(dir, "*.lua"))
    assert.same({ dir .. "/a.lua", dir .. "/b.lua" }, disk:glob("/", dir .. "/?.lua"))
    assert.same({ dir .. "/a+b.lua" }, disk:glob(dir, "a+*"))
    assert.same({ dir .. "/x.lua" }, disk:glob(dir, "x.lua"))
    assert.same({}, disk:glob(dir, "none/*.lua"))
  end)

  it("makes the same pack of the same files, however they were asked for", function()
    local names, first, second = {}, source.disk(), source.disk()
    for i = 1, 50 do
      names[i] = ("%s/%d.lua"):format(dir, i)
      if i % 2 == 0 then write(i .. ".lua", "text") end
    end
    for i = 1, 50 do first:read(names[i]) end
    for i = 50, 1, -1 do second:read(names[i]) end
    assert.equal(first:pack(), second:pack())
    write("7.lua", "other")
    local third = source.disk()
    for i = 1, 50 do third:read(names[i]) end
    assert.not_equal(first:pack(), third:pack())
  end)

  it("answers the same from a pack, and from nothing else", function()
    write("a.lua", "one")
    local disk = source.disk()
    disk:read(dir .. "/a.lua")
    disk:read(dir .. "/b.lua")
    disk:list(dir)
    local packed = source.unpack(disk:pack())
    write("b.lua", "late")
    assert.equal("one", packed:read(dir .. "/a.lua"))
    assert.matches("No such file", select(2, packed:read(dir .. "/b.lua")))
    assert.same({ "a.lua" }, packed:list(dir))
    assert.same(disk:watch(), packed:watch())
    assert.is_nil((packed:read("/etc/hostname")))
  end)
end)
