"""`python -m agent.dev`: patch the standard library before anything else uses it."""

from gevent import monkey

monkey.patch_all()

from agent.dev.command import main  # noqa: E402

main()
