"""`python agent.py ARGS` is the command `agent-run ARGS`, without an installed package."""

import runpy

# By name and not by import: tools that read the package's imports take this file for the package.
runpy.run_module("agent", run_name="__main__", alter_sys=True)
