"""A fleet in the store of a dev Manager: two hundred agents in four places."""

from agent.dev.store.store import Store

COUNT = 200
PLACES = ("berlin", "lisbon", "oslo", "vienna")


def add_fleet(store: Store) -> list[int]:
    """Register `berlin-001` to `vienna-200`, until the store has 200 agents; returns their ids.

    The last one has never been heard of.
    """
    ids = []
    for number in range(len(store.agents.find()) + 1, COUNT + 1):
        place = PLACES[(number - 1) * len(PLACES) // COUNT]
        ids.append(store.agents.add(f"{place}-{number:03}", f"key-{number}").id)
        if number < COUNT:
            system = "Debian GNU/Linux 12 (bookworm)"
            store.agents.register(ids[-1], f"10.20.{number // 50}.{number % 50 + 1}", system)
    return ids
