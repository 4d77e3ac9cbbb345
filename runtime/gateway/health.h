/* The checks of instances that the gateway makes by itself, once for all workers: in the master. */
#ifndef GW_GATEWAY_HEALTH_H
#define GW_GATEWAY_HEALTH_H

#include "gateway/exchange.h"

struct gw_check;

struct gw_health {
    struct gw_gateway gateway; /* without clients: checks borrow their connections from its pool */
    struct gw_settings settings;
    struct gw_stats_slot uncounted;
    struct gw_list checks;
    struct gw_check *by_place[GW_FACTS_MAX]; /* the same, by the place of the instance */
    struct gw_timer review; /* of all services: what time brings, and what a dead worker left */
};

void gw_health_init(struct gw_health *health, struct gw_loop *loop, struct gw_facts *facts);
/* From now on the instances of this generation are checked; the reference is taken over. Those that
 * were checked before go on as they are. */
void gw_health_serve(struct gw_health *health, struct gw_generation *generation);
/* Looks at all services anew: a worker has died, and what it had taken is free. */
void gw_health_review(struct gw_health *health);
/* In a child process: closes what it has inherited, and leaves alone what is shared. */
void gw_health_abandon(struct gw_health *health);
void gw_health_fini(struct gw_health *health);

#endif
