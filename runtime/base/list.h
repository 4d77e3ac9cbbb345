/* An intrusive, circular, doubly linked list. A node that is in no list points to itself. */
#ifndef GW_BASE_LIST_H
#define GW_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct gw_list {
    struct gw_list *next, *prev;
};

#define GW_CONTAINER(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))

static inline void gw_list_init(struct gw_list *l)
{
    l->next = l->prev = l;
}

static inline bool gw_list_empty(const struct gw_list *l)
{
    return l->next == l;
}

static inline void gw_list_insert_before(struct gw_list *at, struct gw_list *node)
{
    node->prev = at->prev;
    node->next = at;
    at->prev->next = node;
    at->prev = node;
}

static inline void gw_list_push(struct gw_list *l, struct gw_list *node)
{
    gw_list_insert_before(l, node);
}

static inline void gw_list_push_front(struct gw_list *l, struct gw_list *node)
{
    gw_list_insert_before(l->next, node);
}

/* Harmless on a node that is in no list. */
static inline void gw_list_remove(struct gw_list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    gw_list_init(node);
}

/* Takes the first node out; NULL when the list is empty. */
static inline struct gw_list *gw_list_take(struct gw_list *l)
{
    struct gw_list *node = l->next;
    if (node == l)
        return NULL;
    gw_list_remove(node);
    return node;
}

/* Moves all nodes of src to the end of dst; src is empty afterwards. */
static inline void gw_list_splice(struct gw_list *dst, struct gw_list *src)
{
    if (gw_list_empty(src))
        return;
    src->next->prev = dst->prev;
    dst->prev->next = src->next;
    src->prev->next = dst;
    dst->prev = src->prev;
    gw_list_init(src);
}

#endif
