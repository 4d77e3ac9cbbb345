--- slow: a policy that thinks for some milliseconds, so that workers come to think at the same time.
return {
  name = "slow",
  balance = function()
    local till = os.clock() + 0.003
    repeat until os.clock() >= till
  end,
}
