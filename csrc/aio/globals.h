/* Whether a clock is replaced: freezegun, for example, replaces time.monotonic. */
#ifndef PYEPOLL_GLOBALS_H
#define PYEPOLL_GLOBALS_H

#include "aio/loop_state.h"

/* Watch the modules of the clock, so that they are looked into only when they have changed. */
void globals_watch(LoopState *state);
void globals_unwatch(LoopState *state);

/* time.monotonic(), as asyncio's loop.time() calls it, is the interpreter's own. */
bool globals_have_stock_clock(LoopState *state);

#endif
