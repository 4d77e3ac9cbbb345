--- weighted_round_robin: round_robin by the name that says what it does.

local round_robin = require("gateway.balancer.round_robin")

return { name = "weighted_round_robin", balance = round_robin.balance }
