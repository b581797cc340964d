"""What the agent knows about iperf3, as pure functions: no process, no socket, no clock.

`features` reads what an installed iperf3 can do, and `argv` turns a payload into its command line.
`stream` turns what a client streams into a document, `documents` finds the documents in an output,
`summary` reads their figures, `verdict` says whether a run succeeded, and `warnings` what to know
before trusting it. `failures` knows iperf3's error messages.
"""
