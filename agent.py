"""`python agent.py ARGS` runs `agent-run ARGS` without installing the package."""

import runpy

# Not imported: tools that follow imports would take this file for the package of its name.
runpy.run_module("agent", run_name="__main__", alter_sys=True)
