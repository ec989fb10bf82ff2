/* A loop belongs to the process that made it. */
#ifndef PYEPOLL_AIO_PROCESS_H
#define PYEPOLL_AIO_PROCESS_H

/* 0 in the process in which fork_epoch() was `epoch`; in one that it has forked -1 with RuntimeError. */
int process_check(unsigned epoch);

#endif
