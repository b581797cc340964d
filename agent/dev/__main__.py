"""`python -m agent.dev`: patch the standard library before anything else uses it."""

import signal
import sys

# Until the command is loaded, Ctrl-C ends the process at once: Python would print a traceback.
_when_interrupted = signal.signal(signal.SIGINT, signal.SIG_DFL)

from gevent import monkey  # noqa: E402

monkey.patch_all()

from agent.dev.errors import MISSING  # noqa: E402

try:
    from agent.dev.command import main
except ModuleNotFoundError as error:
    print(MISSING.format("python -m agent.dev", error.name), file=sys.stderr)
    sys.exit(78)

signal.signal(signal.SIGINT, _when_interrupted)
main()
