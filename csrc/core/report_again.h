/* Events that were fetched and are not handed out. */
#ifndef PYEPOLL_REPORT_AGAIN_H
#define PYEPOLL_REPORT_AGAIN_H

#include "core/instance.h"

/* An event of the wait that took `snapshot` will not be handed out: make the kernel report an edge or a
 * one-shot again, unless its registration has been changed since. Best effort. */
void report_again(Instance *self, uint64_t epoll_data, const WaitSnapshot *snapshot);

#endif
