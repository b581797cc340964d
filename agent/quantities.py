"""Quantities and durations in words, for people."""

_PREFIXES = ("", "k", "M", "G", "T")


def prefix(value: float) -> tuple[str, float]:
    """The decimal prefix that suits a value, and its factor: `M` and 1e6 for 20 million."""
    power = 0
    # Three digits: 999.6 is shown as 1.00 k.
    while value / 1000.0**power >= 999.5 and power < len(_PREFIXES) - 1:
        power += 1
    return _PREFIXES[power], 1000.0**power


def quantity(value: float, unit: str) -> str:
    """A number of units with a prefix and three digits, such as `19.5 GB`."""
    symbol, factor = prefix(value)
    scaled = value / factor
    digits = 2 if scaled < 9.995 else 1 if scaled < 99.95 else 0
    return f"{scaled:.{digits if symbol or scaled % 1 else 0}f} {symbol}{unit}"


def rate(bits_per_second: float) -> str:
    """A throughput such as `9.41 Gbit/s`."""
    return quantity(bits_per_second, "bit/s")


def duration(seconds: float) -> str:
    """A number of seconds in its two largest units, such as `2 h 5 min`; fractions are cut off."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
