"""What a person can do about each class of error that a result may carry."""

ADVICE = {
    "refused": "No server listens at that address and port, or a firewall answers for it:"
    " look at the server's task.",
    "busy": "An iperf3 server serves one client at a time: wait for the other test's end, or"
    " choose another port.",
    "unreachable": "The client's host has no way to the server's, or a firewall drops what it"
    " sends: check the server's address, routes and firewalls.",
    "unknown_host": "The client's host cannot look up the server's name: check the name, or give"
    " an address.",
    "port_in_use": "Choose another port, or stop what listens on this one.",
    "arguments": "The host's iperf3 or its kernel does not take one of the test's options: leave"
    " it out or change it.",
    "peer_lost": "The other side went away during the test: look at its task, and at the network"
    " between the two.",
    "timed_out": "The test hung: its server froze, the network stopped passing packets, or the"
    " agent went away. Try again when both agents are online.",
    "killed": "A kill_all or a cancellation stops tests, and the message then says so. If it"
    " names a signal, look in the host's log: lack of memory, for instance.",
    "interrupted": "The agent was told to stop the test, or was stopped itself: start it again.",
    "bad_output": "iperf3 wrote no result that can be used: check its installation and the"
    " agent's disk.",
    "bad_payload": "The message names the parameter that is wrong: change it.",
    "unsupported": "The host's iperf3 is too old for the test: install a newer one, or leave the"
    " option out.",
    "not_allowed": "The server wants a login, or the agent's owner does not allow the test: the"
    " message says which.",
    "too_many": "The agent runs as many tasks as it may: wait for some to end, or raise its"
    " MAX_TASKS.",
    "state_full": "Make room on the disk of the agent's state directory; the agent goes on by"
    " itself.",
    "iperf3_missing": "Install iperf3 on the agent's host, or set IPERF3_PATH; the agent looks"
    " again with the next task.",
    "other": "The agent's log tells the task's whole story: look for its task_id.",
}
