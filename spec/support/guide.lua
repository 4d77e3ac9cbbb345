--- guide: reads Markdown for the specs that run what it says: blocks of code, commands, links.
local guide = {}

---@class spec.Block
---@field lang string "lua", "yaml", "" for indented text
---@field mark? string what stands in an HTML comment right before it
---@field text string
---@field line integer of its first line

--- The fenced blocks of a page, in order.
---@param page string its text
---@return spec.Block[]
function guide.blocks(page)
  local blocks, block, mark, number = {}, nil, nil, 0
  for line in (page .. "\n"):gmatch("([^\n]*)\n") do
    number = number + 1
    local fence = line:match("^```(%w*)$")
    if block and fence then
      blocks[#blocks + 1], block.text, block = block, table.concat(block, "\n") .. "\n", nil
    elseif block then
      block[#block + 1] = line
    elseif fence then
      block = { lang = fence, mark = mark, line = number + 1 }
    end
    mark = line:match("^<!%-%- (.-) %-%->$")
  end
  return blocks
end

--- The indented lines outside of fenced blocks: commands, mostly.
---@param page string
---@return string[]
function guide.commands(page)
  local lines, fenced = {}, false
  for line in (page .. "\n"):gmatch("([^\n]*)\n") do
    if line:find("^```") then fenced = not fenced end
    if not fenced then lines[#lines + 1] = line:match("^    (.+)$") end
  end
  return lines
end

--- What stands in backquotes.
---@param page string
---@return string[]
function guide.code(page)
  local spans = {}
  for _, paragraph in ipairs({ (page:gsub("\n```.-\n```", "")) }) do
    for span in paragraph:gmatch("`([^`\n]+)`") do spans[#spans + 1] = span end
  end
  return spans
end

--- The targets of links to other pages of the tree.
---@param page string
---@return {path: string, anchor?: string}[]
function guide.links(page)
  local links = {}
  for target in page:gmatch("%]%(([^)%s]+)%)") do
    if not target:find("^%a+:") then
      local path, anchor = target:match("^([^#]*)#?(.*)$")
      links[#links + 1] = { path = path, anchor = anchor ~= "" and anchor or nil }
    end
  end
  return links
end

--- The anchors that a page's headings make.
---@param page string
---@return table<string, boolean>
function guide.anchors(page)
  local anchors = {}
  for title in ("\n" .. page):gmatch("\n#+ ([^\n]+)") do
    anchors[(title:lower():gsub("[^%w%s_-]", ""):gsub("%s", "-"))] = true
  end
  return anchors
end

return guide
