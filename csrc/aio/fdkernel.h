/* The system calls for one entry of the table, and what two threads that make them at once do about it. */
#ifndef PYEPOLL_FDKERNEL_H
#define PYEPOLL_FDKERNEL_H

#include "aio/fdtable.h"

/* Answers of the kernel to a change of an fd that it has an entry of. */
typedef enum { SAME_FILE, NEW_FILE, REFUSED } Answer;

/* 0, or -1 with an exception, for the status of a call on the instance. */
int fdkernel_check(int status);

Answer fdkernel_modify(LoopSelector *self, FdEntry *entry, uint8_t events);

/* 0, or -1 with an exception. `exists`: that the kernel has an entry, of another thread, is none. */
int fdkernel_add(LoopSelector *self, FdEntry *entry, uint8_t events, bool exists);

/* A step on the entry begins. The other threads that are in one will repeat their last call. */
unsigned fdkernel_begin(LoopSelector *self, FdEntry *entry, uint8_t *present, uint8_t *wanted);

/* The system call after which the kernel has the wanted events. 0, or -1 with an exception. */
int fdkernel_apply(LoopSelector *self, FdEntry *entry, uint8_t present, uint8_t wanted);

/* After a step in which the kernel was asked for `events`: if other threads have begun steps meanwhile,
 * repeat it with what is wanted now. 0, or -1 with an exception. */
int fdkernel_settle(LoopSelector *self, FdEntry *entry, unsigned operation, uint8_t events);

#endif
