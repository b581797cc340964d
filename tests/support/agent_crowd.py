"""Many agents as greenlets of one process.

`python -m tests.support.agent_crowd URL DIRECTORY FIRST COUNT` runs COUNT agents, from aFIRST on,
for the Manager at URL, each with its own state directory below DIRECTORY, until it is killed.
"""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402

from agent.config.key import Key  # noqa: E402
from agent.config.settings import read_settings  # noqa: E402
from agent.logs.setup import configure_logging  # noqa: E402
from agent.service.lifecycle import Agent  # noqa: E402
from agent.service.signals import StopSignals  # noqa: E402


def main(url: str, directory: str, first: str, count: str) -> None:
    """Run the agents; raises what the first of them that ends was ended by."""
    configure_logging("error", "json", "crowd", str)
    agents = []
    for number in range(int(first), int(first) + int(count)):
        name = f"a{number}"
        settings = read_settings(
            {"manager_url": url, "agent_name": name, "state_dir": str(Path(directory) / name)},
            {"AGENT_KEY": f"key-{number}"},
        )
        agents.append(
            gevent.spawn(
                Agent(settings, Key(settings.agent_key, settings.agent_key_file), StopSignals()).run
            )
        )
    gevent.joinall(agents, raise_error=True, count=1)


if __name__ == "__main__":
    main(*sys.argv[1:])
