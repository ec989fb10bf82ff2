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
 *     it is late. It is dropped, and does not come again unless it proves itself in another wait;
 *
 *   - in a wait that began after it, was fetched after it:
 *
 *         change     unregister or replace: complete
 *         wait W                                      begins ---- epoll_wait fetches the event
 *
 *     so the kernel has an entry for it that we have asked it to drop, or that we could not ask it to: a
 *     stale registration. Its first such event proves it, whoever else waits, whatever other fds change, and
 *     however many stale registrations the fd has.
 *
 * While the change is under way, neither is settled: if the kernel refuses it, the event fits after all. Then
 * stale_classify() waits for the ctl lock and looks again.
 *
 * The rule holds for epoll data that were made here. In a foreign instance, others are delivered.
 */
#ifndef PYEPOLL_STALE_H
#define PYEPOLL_STALE_H

#include "core/instance.h"

/* An event that fits no registration, of a wait that began at `seen`. True if it fits one after all; else it
 * is counted, and if it proves a stale registration, the next wait repairs that first. */
bool stale_classify(Instance *self, const Seen *seen, uint64_t epoll_data);

/* Check that the fd of a live registration is open. False if it is not: then the registration is forgotten,
 * and what reported is stale. */
bool stale_check_open(Instance *self, uint64_t epoll_data);

/* The kernel has an entry of `fd` and of the file that it is now: whether that is a stale registration of
 * ours, whose file has the fd again as another duplicate. With the ctl lock. */
bool stale_is_entry(Instance *self, int fd);

#endif
