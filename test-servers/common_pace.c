/* common_pace: one timer per rate, not per stream, so that thousands of paced streams cost little.
 * A period is cut into slots and the members are spread over them, so that they don't all send in
 * the same instant. Invariant: slot_members[i] counts the list slot[i]; members is their sum. */
#include "common_pace.h"

#include <stdlib.h>

#define SLOTS     64
#define MIN_STEP  0.002
#define MAX_STALL 1.0

struct ts_pace {
    ev_timer timer;
    struct ev_loop *loop;
    ts_pace_fn *turn;
    struct ts_pace *next;
    double rate, step, due;
    unsigned slots, current;
    size_t members, slot_members[SLOTS];
    struct ts_paced *slot[SLOTS];
};

static struct ts_pace *paces;

static void slot_fire(struct ts_pace *pace, unsigned slot)
{
    struct ts_paced *next;

    for (struct ts_paced *member = pace->slot[slot]; member; member = next) {
        next = member->next;
        pace->turn(member);
    }
}

static void on_timer(struct ev_loop *loop, ev_timer *w, int revents)
{
    struct ts_pace *pace = w->data;
    double now = ev_now(loop);

    (void)revents;
    if (now - pace->due > MAX_STALL)
        pace->due = now; /* after a stall: go on, don't make up for it in one burst */
    for (; pace->due <= now && pace->members > 0; pace->due += pace->step) {
        slot_fire(pace, pace->current);
        pace->current = (pace->current + 1) % pace->slots;
    }
}

static unsigned slots_of(double rate)
{
    double slots = 1 / rate / MIN_STEP;

    return slots > SLOTS ? SLOTS : slots < 1 ? 1 : (unsigned)slots;
}

struct ts_pace *ts_pace_get(struct ev_loop *loop, double rate, ts_pace_fn *turn)
{
    struct ts_pace *pace = paces;

    while (pace && (pace->rate != rate || pace->turn != turn))
        pace = pace->next;
    if (pace)
        return pace;
    pace = calloc(1, sizeof *pace);
    if (!pace)
        abort();
    pace->loop = loop;
    pace->turn = turn;
    pace->rate = rate;
    pace->slots = slots_of(rate);
    pace->step = 1 / rate / pace->slots;
    ev_timer_init(&pace->timer, on_timer, 0, pace->step > 0.001 ? pace->step : 0.001);
    pace->timer.data = pace;
    pace->next = paces;
    paces = pace;
    return pace;
}

/* The emptiest slot, and of those the one whose turn is nearest. */
static unsigned slot_choose(const struct ts_pace *pace)
{
    unsigned best = pace->current;

    for (unsigned i = 1; i < pace->slots; i++) {
        unsigned slot = (pace->current + i) % pace->slots;
        if (pace->slot_members[slot] < pace->slot_members[best])
            best = slot;
    }
    return best;
}

void ts_pace_join(struct ts_pace *pace, struct ts_paced *member)
{
    member->pace = pace;
    member->slot = slot_choose(pace);
    member->link = &pace->slot[member->slot];
    member->next = *member->link;
    if (member->next)
        member->next->link = &member->next;
    *member->link = member;
    pace->slot_members[member->slot]++;
    if (pace->members++ == 0) {
        pace->due = ev_now(pace->loop) + pace->step;
        ev_timer_again(pace->loop, &pace->timer);
    }
}

void ts_pace_leave(struct ts_paced *member)
{
    struct ts_pace *pace = member->pace;

    if (!pace)
        return;
    *member->link = member->next;
    if (member->next)
        member->next->link = member->link;
    pace->slot_members[member->slot]--;
    if (--pace->members == 0)
        ev_timer_stop(pace->loop, &pace->timer);
    *member = (struct ts_paced){0};
}
