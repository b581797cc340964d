"""All that the agent knows about iperf3, as pure functions: no process, no socket, no clock.

`features` reads what an installed iperf3 can do, `argv` turns a payload into its command line,
`documents` finds and reads the JSON it wrote, `verdict` says whether a run succeeded.
"""
