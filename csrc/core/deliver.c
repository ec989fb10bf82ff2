#include "core/deliver.h"

#include "core/event_member.h"
#include "core/repair/stale.h"

/* The second item of the pair. */
static PyObject *
events_of(Instance *self, uint32_t events, PyObject *data)
{
    EventsFactory make_events = self->make_events;
    return make_events != NULL ? make_events(self->module, events, data) : event_member(self->module, events);
}

/* Make the pair for an event, and keep it with the registration: for the first event, and for one whose mask
 * is not that of the last. `*again` is set when the registration was modified meanwhile. A new reference;
 * NULL without an exception where the registration has gone. */
static PyObject *
new_pair(Instance *self, uint64_t epoll_data, uint32_t events, PyObject *data, bool *again)
{
    PyObject *event = events_of(self, events, data);
    PyObject *pair = event != NULL ? PyTuple_Pack(2, data, event) : NULL;
    Py_XDECREF(event);
    if (pair == NULL) {
        return NULL;
    }
    PyObject *old = NULL;
    STATE_LOCK(self);
    Registration *present = interest_find(&self->list, epoll_data);
    bool kept = present != NULL && present->data == data;
    *again = present != NULL && !kept;
    if (kept) {
        old = present->pair;
        present->pair = Py_NewRef(pair);
        present->reported = events;
    }
    STATE_UNLOCK(self);
    Py_XDECREF(old);
    if (!kept) {
        Py_CLEAR(pair);
    }
    return pair;
}

/* The pair for an event that others registered, with the data of select.epoll: the low half of the epoll data
 * as an int. The other half is undefined in programs that set only the fd. */
static PyObject *
foreign_pair(Instance *self, uint64_t epoll_data, uint32_t events)
{
    PyObject *event = event_member(self->module, events);
    PyObject *data = PyLong_FromLong((int32_t)(uint32_t)epoll_data);
    PyObject *pair = event != NULL && data != NULL ? PyTuple_Pack(2, data, event) : NULL;
    Py_XDECREF(data);
    Py_XDECREF(event);
    return pair;
}

/* The result of looking up the registration of an event. */
typedef struct {
    PyObject *data;  /* owned; NULL if there is none */
    uint32_t events; /* to hand out */
    bool check;      /* it is time to see whether the fd is open */
    bool ended;      /* nothing is to be handed out */
} Lookup;

static Lookup
look_up(Instance *self, uint64_t epoll_data, uint32_t events, const WaitSnapshot *snapshot)
{
    Lookup lookup = {.events = events};
    STATE_LOCK(self);
    Registration *present = interest_find(&self->list, epoll_data);
    lookup.ended = self->lifecycle.state == CLOSED ||
                   (present != NULL && interest_is_disarmed(present, snapshot->started));
    if (present != NULL && !lookup.ended) {
        lookup.data = Py_NewRef(present->data);
        lookup.check = present->countdown == 0 || --present->countdown == 0;
        if (lookup.check) {
            present->countdown = (uint16_t)(1 << present->interval);
            present->interval += present->interval < INTEREST_LAST_CHECK;
        }
        if (present->always_ready) {
            lookup.events = stand_in_events(present->mask, events);
        }
        if (present->disarmed || present->always_ready) {
            present->countdown = 1; /* keeps the short cut away from it */
        }
    }
    STATE_UNLOCK(self);
    return lookup;
}

PyObject *
deliver(Instance *self, const WaitSnapshot *snapshot, uint64_t epoll_data, uint32_t events)
{
    PyObject *pair = NULL;
    for (bool again = true; again;) {
        again = false;
        Lookup lookup = look_up(self, epoll_data, events, snapshot);
        if (lookup.data != NULL) {
            if (!lookup.check || stale_check_open(self, epoll_data)) {
                pair = new_pair(self, epoll_data, lookup.events, lookup.data, &again);
            }
            Py_DECREF(lookup.data);
        }
        else if (!lookup.ended && self->foreign && !instance_made(self, epoll_data)) {
            pair = foreign_pair(self, epoll_data, events);
        }
        else if (!lookup.ended) {
            again = stale_classify(self, snapshot, epoll_data);
        }
    }
    return pair;
}
