/* Owns the tasks of an exchange's own and the queue of those that wait to send to it. Called by
 * hooks.c when the exchange moves or ends, and by api_task.c. Invariant: no task outlives the
 * handle it was started with. */
#include "script/company.h"

#include <stdlib.h>
#include "base/check.h"
#include "script/task.h"

struct gw_company *gw_company_of(struct gw_handle *handle)
{
    if (handle->company)
        return handle->company;
    handle->company = malloc(sizeof *handle->company);
    GW_CHECK(handle->company != NULL);
    gw_list_init(&handle->company->tasks);
    gw_list_init(&handle->company->calls);
    gw_list_init(&handle->company->senders);
    return handle->company;
}

bool gw_company_busy(const struct gw_handle *handle)
{
    return handle->company && !gw_list_empty(&handle->company->tasks);
}

bool gw_company_tied(const struct gw_handle *handle)
{
    if (!handle->company)
        return false;
    const struct gw_list *tasks = &handle->company->tasks;
    for (const struct gw_list *at = tasks->next; at != tasks; at = at->next) {
        if (!GW_CONTAINER(at, struct gw_task, node)->movable)
            return true;
    }
    return false;
}

static void leave_queue(struct gw_task *task)
{
    gw_list_remove(&task->queue);
}

void gw_company_wait(struct gw_handle *handle, struct gw_task *sender)
{
    gw_list_push(&gw_company_of(handle)->senders, &sender->queue);
    gw_task_wait(sender, leave_queue);
}

void gw_company_room(struct gw_handle *handle)
{
    if (!handle->company)
        return;
    for (struct gw_list *at; (at = gw_list_take(&handle->company->senders));)
        gw_task_wake(GW_CONTAINER(at, struct gw_task, queue));
}

void gw_company_end(struct gw_handle *handle)
{
    if (!handle->company)
        return;
    gw_task_drop_list(&handle->company->tasks);
    gw_calls_close(&handle->company->calls);
    gw_company_room(handle);
    free(handle->company);
    handle->company = NULL;
}
