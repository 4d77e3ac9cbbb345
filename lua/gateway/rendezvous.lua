--- gateway.rendezvous: one of several by a key, so that the same key finds the same one.
-- Each candidate bids for the key with a number that hangs on the two of them and its weight; the best one
-- gets it (weighted rendezvous hashing). So a candidate that goes, or gets less weight, loses keys, one that
-- comes, or gets more, wins some, and no key moves between two others.

local core = require("gateway.core")

local hash, log = core.hash, math.log

local rendezvous = {}

-- The hash of each candidate's id. Weak: it goes with the candidate.
local salts = setmetatable({}, { __mode = "k" })

local function salt_of(candidate)
  local salt = salts[candidate]
  if not salt then
    salt = hash(candidate.id)
    salts[candidate] = salt
  end
  return salt
end

---@class gateway.Candidate an instance is one
---@field id string
---@field weight number

--- Takes time for each candidate: for some tens of them, not for thousands.
---@generic T: gateway.Candidate
---@param key string
---@param candidates T[]
---@return T? nil when none has a weight above 0
function rendezvous.choose(key, candidates)
  local best, least = nil, math.huge
  for i = 1, #candidates do
    local candidate = candidates[i]
    if candidate.weight > 0 then
      local bid = -log((hash(key, salt_of(candidate)) + 1) / 2 ^ 53) / candidate.weight
      if not best or bid < least then best, least = candidate, bid end
    end
  end
  return best
end

return rendezvous
