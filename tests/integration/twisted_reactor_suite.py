"""Twisted's tests on the reactor of examples/plugins, or on its own if ``everywhere`` is not on the path."""

import select
import sys

from twisted.internet import epollreactor, main
from twisted.internet.test.reactormixins import ReactorBuilder
from twisted.scripts import trial

if select.epoll.__module__ == "pyepoll":
    import twisted_reactor

    # One test knows by this name that epoll cannot pass it.
    reactor = type("EPollReactor", (twisted_reactor.PyepollReactor,), {"__module__": "twisted_reactor"})
    vars(twisted_reactor)["EPollReactor"] = reactor
    main.installReactor(reactor())
    ReactorBuilder._reactors[:] = ["twisted_reactor.EPollReactor"]
else:
    epollreactor.install()
    ReactorBuilder._reactors[:] = ["twisted.internet.epollreactor.EPollReactor"]
sys.argv = ["trial", "twisted.internet"]
trial.run()
