--- gateway.source: where configuration, routes and plugins are read from.
-- The loader reads files through a source only. The master's reads the disk and remembers all it
-- gave, misses included; packed, it goes to the workers, which so load the very same files,
-- whatever is saved meanwhile.

local buffer = require("string.buffer")

---@class gateway.Source
---@field _files table<string, string|false>    path -> text; false where there was none
---@field _dirs table<string, string[]|false>   folder -> sorted names
---@field _errors table<string, string>         path -> why not
---@field _read fun(path: string): string?, string?     asked once for each path
---@field _list fun(dir: string): string[]?, string?
local Source = {}
Source.__index = Source

local source = {}

--- A folder and a name below it as one path, without `.` and `x/..` in it.
---@param dir string
---@param name string
---@return string
function source.join(dir, name)
  local path = (name:sub(1, 1) == "/" or dir == "" or dir == ".") and name or dir .. "/" .. name
  local parts = {}
  for part in path:gmatch("[^/]+") do
    if part == ".." and parts[1] and parts[#parts] ~= ".." then
      parts[#parts] = nil
    elseif part ~= "." then
      parts[#parts + 1] = part
    end
  end
  local tidy = table.concat(parts, "/")
  if path:sub(1, 1) == "/" then return "/" .. tidy end
  return tidy == "" and "." or tidy
end

--- The folder a file lies in.
---@param path string
---@return string
function source.folder(path)
  local dir = path:match("^(.*)/[^/]*$")
  if not dir then return "." end
  return dir == "" and "/" or dir
end

local function read_disk(path)
  local file, err = io.open(path, "rb")
  if not file then return nil, err end
  local text, why = file:read("*a")
  file:close()
  if not text then return nil, path .. ": " .. (why or "can't be read") end
  return text
end

--- The text of a file.
---@param path string
---@return string? text, string? err
function Source:read(path)
  if self._files[path] == nil then
    local text, err = self._read(path)
    self._files[path], self._errors[path] = text or false, err
  end
  local text = self._files[path]
  if text then return text end
  return nil, self._errors[path] or path .. ": No such file"
end

--- The names in a folder, sorted.
---@param dir string
---@return string[]? names, string? err
function Source:list(dir)
  if self._dirs[dir] == nil then
    local names, err = self._list(dir)
    self._dirs[dir], self._errors[dir] = names or false, err
  end
  local names = self._dirs[dir]
  if names then return names end
  return nil, self._errors[dir] or dir .. ": No such folder"
end

local function glob_pattern(name)
  local pattern = name:gsub("[%^%$%(%)%%%.%[%]%+%-]", "%%%0"):gsub("%*", ".*"):gsub("%?", ".")
  return "^" .. pattern .. "$"
end

--- The files a pattern names; `*` and `?` may stand in its last part, and do not match a leading
--- dot.
---@param dir string the folder a relative pattern counts from
---@param pattern string
---@return string[] paths sorted; a pattern without wildcards is returned as it is
function Source:glob(dir, pattern)
  local path = source.join(dir, pattern)
  if not path:find("[*?]") then return { path } end
  local folder, found = source.folder(path), {}
  local wanted = glob_pattern(path:match("[^/]*$"))
  for _, name in ipairs(self:list(folder) or {}) do
    if name:sub(1, 1) ~= "." and name:find(wanted) then found[#found + 1] = source.join(folder, name) end
  end
  return found
end

local function sorted_keys(map)
  local keys = {}
  for key in pairs(map) do keys[#keys + 1] = key end
  table.sort(keys)
  return keys
end

--- All that was read or looked for, so that a change of it can be noticed.
---@return {files: string[], dirs: string[]}
function Source:watch()
  return { files = sorted_keys(self._files), dirs = sorted_keys(self._dirs) }
end

local function pairs_of(map)
  local list = {}
  for _, key in ipairs(sorted_keys(map)) do
    list[#list + 1] = key
    list[#list + 1] = map[key]
  end
  return list
end

local function map_of(list)
  local map = {}
  for i = 1, #list, 2 do map[list[i]] = list[i + 1] end
  return map
end

--- All that was given so far, as one string for `source.unpack`. The same files make the same
--- string, whatever the order they were asked for in.
---@return string
function Source:pack()
  return buffer.encode({ pairs_of(self._files), pairs_of(self._dirs), pairs_of(self._errors) })
end

local function new(read, list, all)
  all = all or { files = {}, dirs = {}, errors = {} }
  return setmetatable({ _read = read, _list = list,
    _files = all.files, _dirs = all.dirs, _errors = all.errors }, Source)
end

local function nothing() end

--- A source that reads the disk.
---@return gateway.Source
function source.disk()
  return new(read_disk, function(dir) return require("gateway.core").list(dir) end)
end

--- A source that answers from a pack only.
---@param packed string from `Source:pack`
---@return gateway.Source
function source.unpack(packed)
  local files, dirs, errors = unpack(buffer.decode(packed))
  return new(nothing, nothing, { files = map_of(files), dirs = map_of(dirs), errors = map_of(errors) })
end

--- A source over texts in memory, for specs.
---@param files table<string, string> path -> text
---@return gateway.Source
function source.memory(files)
  local dirs = {}
  local function place(path)
    local dir, name = source.folder(path), path:match("[^/]*$")
    if not dirs[dir] then
      dirs[dir] = {}
      if dir:find("/", 1, true) then place(dir) end
    end
    table.insert(dirs[dir], name)
  end
  for _, path in ipairs(sorted_keys(files)) do place(path) end
  return new(function(path) return files[path] end, function(dir) return dirs[dir] end)
end

return source
