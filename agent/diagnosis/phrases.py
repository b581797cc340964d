"""Parts of the words for an operator."""

# A limit so many times the size that is used is not what holds that down.
_MUCH_MORE = 4
# The largest window without the option of TCP that scales it.
_UNSCALED = 65535


def thread(cpu: tuple[float, float] | None) -> str:
    """How busy a thread was, and what helps it."""
    ran, waited = cpu or (0.0, 0.0)
    words = f"its busiest thread ran {share(ran)} of the time and waited {share(waited)} for a core"
    if waited > ran:
        return f"{words}. Other work or a quota has it: see `top`, and `cpu.max` of its group"
    return f"{words}. From iperf3 3.16 on, `parallel` streams use a core each"


def raised(name: str, host: str, most: int | None, used: int | None) -> str:
    """The advice to raise a sysctl; one that allows much more than is used is not the limit."""
    if used and (most or 0) >= _MUCH_MORE * used:
        scaling = "window scaling or " if used <= _UNSCALED else ""
        off = f"{scaling}tcp_moderate_rcvbuf may be off, or " if host == "receiver" else ""
        limit = f"net.ipv4.{name} on the {host} allows {size(most)}"
        return f": {limit}, so {off}a memory limit may hold it down"
    now = "" if most is None else f" (now at most {size(most)})"
    return f" and raise net.ipv4.{name} on the {host}{now}"


def share(part: float | None) -> str:
    """A share in per cent, such as `97 %` or `0.021 %`."""
    per_cent = 100 * (part or 0.0)
    return f"{per_cent:.0f} %" if per_cent >= 9.95 else f"{per_cent:.2g} %"


def size(number: float | None) -> str:
    """Bytes such as `38 KiB`."""
    kib = (number or 0.0) / 1024
    return f"{kib / 1024:.3g} MiB" if kib >= 999.5 else f"{kib:.3g} KiB"
