"""`python -m agent.dev`: patch the standard library before anything else uses it."""

import signal

# Python would print where Ctrl-C has met it: until the command is loaded it ends the process.
_when_interrupted = signal.signal(signal.SIGINT, signal.SIG_DFL)

from gevent import monkey  # noqa: E402

monkey.patch_all()

from agent.dev.command import main  # noqa: E402

signal.signal(signal.SIGINT, _when_interrupted)
main()
