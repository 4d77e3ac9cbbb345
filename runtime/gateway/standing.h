/* How an instance stands with those who choose: what checks and requests say of it, and how much of
 * its weight counts. In shared memory; who changes something says so in the log. */
#ifndef GW_GATEWAY_STANDING_H
#define GW_GATEWAY_STANDING_H

#include <stdbool.h>
#include <stdint.h>

struct gw_instance;
struct gw_service;

enum {
    GW_TENTHS = 10,  /* a weight that counts in full */
    GW_NO_ANSWER = 1 /* in the place of a status: the instance gave none */
};

enum gw_checked { GW_CHECK_NONE, GW_CHECK_UP, GW_CHECK_DOWN };

/* Of an instance. Stored by whoever learns something; each member is right by itself. */
struct gw_standing {
    uint32_t missing;     /* tenths of the weight that do not count; GW_TENTHS: not to be asked */
    uint32_t checked;     /* enum gw_checked: what the checks say */
    uint32_t contrary;    /* checks in a row that say otherwise */
    uint32_t failures;    /* requests in a row that failed */
    uint32_t ejections;   /* in a row: the next one takes longer */
    uint32_t full;        /* all its places for streams are taken */
    uint64_t checked_ms;  /* when the last check ended */
    uint64_t ejected_ms;  /* until when it is ejected; 0: it is not */
    uint64_t eject_ms;    /* for how long it was, the last time */
    uint64_t spared_ms;   /* when it was said last that it may not be */
    uint64_t returned_ms; /* since when it is back; 0: it was never away */
    uint64_t tally[2];    /* requests of this half of the window and of the last one */
    uint64_t failed_total, ejected_total, failed_checks_total;
};

/* Of a service: what tells that a list of its instances is out of date. */
struct gw_roll {
    uint32_t changes;     /* of what any of them may get, or of when */
    uint32_t max_streams; /* by the newest version; streams of older ones end by it, too */
};

/* A number that changes whenever what an instance of the service may get has changed. What was due
 * is done first. */
uint32_t gw_standing_changes(struct gw_service *service, uint64_t now_ms);
/* Looks at all instances of the service anew: also finds what a process that died left undone. */
void gw_standing_review(struct gw_service *service, uint64_t now_ms);
/* How many tenths of its weight count; 0: it is not to be asked. */
unsigned gw_standing_tenths(const struct gw_instance *instance);
/* "up", "slow_start", "full", "ejected", "down", or "unhealthy" by configuration. */
const char *gw_standing_state(const struct gw_instance *instance);

/* A check has ended; `why` says how, where it was no success. */
void gw_standing_check(struct gw_instance *instance, bool good, const char *why, uint64_t now_ms);
/* A request was answered with this status, or was not: then it is GW_NO_ANSWER, and `why` tells. */
void gw_standing_answer(struct gw_instance *instance, unsigned status, const char *why,
                        uint64_t now_ms);

/* Takes one of the places that the instance has for streams. False: they are all taken. */
bool gw_standing_take_place(struct gw_instance *instance, uint64_t now_ms);
void gw_standing_give_place(struct gw_instance *instance, uint64_t now_ms);

#endif
