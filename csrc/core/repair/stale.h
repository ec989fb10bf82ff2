/*
 * Events that fit no registration: which of them are late, and which prove a stale registration.
 *
 * Each slot of the interest list has the time, of the instance's clock, at which its last change was
 * complete, which is after epoll_ctl had returned. Each wait has the time at which it began. An event whose
 * generation is not its slot's
 *
 *   - in a wait that began before the change was complete, may have been fetched before it:
 *
 *         wait W     begins ---- epoll_wait fetches the event ------------------- hands it out
 *         change                                     unregister or replace: complete
 *
 *     it is late. It is dropped; if a stale registration reports it after all, the next wait shows that;
 *
 *   - in a wait that began after it, was fetched after it:
 *
 *         change     unregister or replace: complete
 *         wait W                                      begins ---- epoll_wait fetches the event
 *
 *     so the kernel has an entry that it should not have: a stale registration. Its first such event proves
 *     it, regardless of other waiters, of changes to other fds, and of the number of stale registrations of
 *     the fd.
 *
 * While the change is under way, neither is settled: if the kernel refuses it, the event fits after all. Then
 * stale_classify() waits for the ctl lock and looks again.
 *
 * The rule holds for epoll data that were made here. In a foreign instance, events with others' epoll data
 * are delivered.
 */
#ifndef PYEPOLL_STALE_H
#define PYEPOLL_STALE_H

#include "core/instance.h"

/* Classify an event that fits no registration, of the wait that took `snapshot`. True if it fits one after
 * all. Otherwise it is counted, and if it proves a stale registration, the next wait repairs that first. */
bool stale_classify(Instance *self, const WaitSnapshot *snapshot, uint64_t epoll_data);

/* Check that the fd of a live registration is open. False if it is not: then the registration is lost, and
 * the entry that reported is stale. */
bool stale_check_open(Instance *self, uint64_t epoll_data);

/* The kernel has an entry for `fd` and the file that it refers to: whether that is a stale registration of
 * ours, whose file is under this fd again, as another duplicate. With the ctl lock. */
bool stale_is_entry(Instance *self, int fd);

#endif
