#include "aio/process.h"

#include "base/atfork.h"
#include "base/compat.h"

int
process_check(unsigned epoch)
{
    if (epoch == fork_epoch()) {
        return 0;
    }
    PyErr_SetString(PyExc_RuntimeError,
                    "this event loop belongs to the process that forked this one: make a new loop in the "
                    "child, for example with asyncio.run() or pyepoll.aio.run()");
    return -1;
}
