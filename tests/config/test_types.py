"""What each type of setting accepts, which value it becomes, and what is refused."""

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from agent.config import types
from agent.config.types import Kind

GOOD: list[tuple[Kind, str, Any]] = [
    (types.URL, "http://localhost:8000", "http://localhost:8000"),
    (types.URL, "https://manager.example/base/", "https://manager.example/base"),
    (types.URL, "http://[fd00::1]:8000", "http://[fd00::1]:8000"),
    (types.NAME, "a", "a"),
    (types.NAME, "rack-1.host_2", "rack-1.host_2"),
    (types.NAME, "x" * 64, "x" * 64),
    (types.one_of("json", "console"), "JSON", "json"),
    (types.whole(1, 128), "1", 1),
    (types.whole(1, 128), "128", 128),
    (types.seconds(0.1, 3600), "0.1", 0.1),
    (types.seconds(0.1, 3600), "3600", 3600),
    (types.size(65536), "65536", 65536),
    (types.size(65536), "64k", 65536),
    (types.size(65536), "64M", 64 * 1024**2),
    (types.size(65536), "1T", 1024**4),
    (types.RATE, "1", 1),
    (types.RATE, "500M", 500 * 10**6),
    (types.RATE, "10G", 10**10),
    (types.PATH, "/var/x", Path("/var/x")),
    (types.PATH, "~/x", Path.home() / "x"),
    (types.ADDRESS, "192.0.2.7", "192.0.2.7"),
    (types.ADDRESS, "FD00::0:1", "fd00::1"),
    (types.NETWORKS, "10.1.2.3/8", (ip_network("10.0.0.0/8"),)),
    (
        types.NETWORKS,
        "192.0.2.7, fd00::/8",
        (ip_network("192.0.2.7/32"), ip_network("fd00::/8")),
    ),
    (types.HOST_PORT, "127.0.0.1:9201", ("127.0.0.1", 9201)),
    (types.HOST_PORT, "[::1]:9201", ("::1", 9201)),
    (types.HOST_PORT, "localhost:1", ("localhost", 1)),
]

BAD: list[tuple[Kind, list[str]]] = [
    (
        types.URL,
        [
            "manager:8000",
            "ftp://manager",
            "http://",
            "http://:8000",
            "http://manager:0",
            "http://manager:65536",
            "http://manager:x",
            "http://[::1",
            "http://user@manager",
            "http://user:pass@manager",
            "http://manager/?",
            "http://manager/?a=b",
            "http://manager/#top",
            "http://my manager",
            "http://manager\n",
        ],
    ),
    (types.NAME, ["x" * 65, "a b", "a/b", "../a", ".a", "-a", "a\n", "é"]),
    (types.one_of("json", "console"), ["jsonl", "json console"]),
    (types.whole(1, 128), ["0", "129", "-1", "1.5", "many", "0x10", "9" * 5000]),
    (types.seconds(0.1, 3600), ["0", "0.05", "3601", "-1", "nan", "inf", "-inf", "5s"]),
    (types.size(65536), ["65535", "63K", "-1", "1.5M", "64MB", "64 M", "M", "9" * 19]),
    (types.RATE, ["0", "-1", "1.5G", "10Gbit", "G"]),
    (types.PATH, ["~nobody-of-that-name/x"]),
    (types.READABLE_FILE, ["/no/such/file", "/", "~nobody-of-that-name/x"]),
    (types.ADDRESS, ["localhost", "192.0.2", "192.0.2.7/32", "0.0.0.0", "::", "224.0.0.1"]),
    (types.NETWORKS, ["10.0.0.0/33", "localhost", "10.0.0.0/8,", "10.0.0.0/8;fd00::/8"]),
    (
        types.HOST_PORT,
        ["9201", ":9201", "host", "host:", "host:0", "host:65536", "::1:9201", "u@host:1"]
        + ["host:1/x", "host:1?x", "host:1#x", "my host:1"],
    ),
]


@pytest.mark.parametrize(("kind", "text", "value"), GOOD)
def test_an_accepted_text_becomes_its_value(kind: Kind, text: str, value: Any) -> None:
    assert kind.parse(text) == value


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in BAD for text in texts])
def test_an_invalid_text_is_refused(kind: Kind, text: str) -> None:
    with pytest.raises(ValueError):
        kind.parse(text)


def test_a_readable_file_must_exist(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    with pytest.raises(ValueError):
        types.READABLE_FILE.parse(str(file))
    file.touch()
    assert types.READABLE_FILE.parse(str(file)) == file


def test_a_writable_file_exists_or_can_be_created_and_is_not_touched(tmp_path: Path) -> None:
    kind = types.WRITABLE_FILE
    (tmp_path / "link").symlink_to(tmp_path / "log")
    for good in ("log", "link"):
        assert kind.parse(str(tmp_path / good)) == tmp_path / good
    assert not (tmp_path / "log").exists()
    (tmp_path / "log").touch()
    assert kind.parse(str(tmp_path / "log")) == tmp_path / "log"
    for bad in (tmp_path, tmp_path / "no" / "log", tmp_path / "log" / "below"):
        with pytest.raises(ValueError):
            kind.parse(str(bad))


def test_bounds_are_written_in_full() -> None:
    assert types.seconds(0.1, 10**9).accepted == "a number of seconds from 0.1 to 1000000000"
    assert types.whole(1, 100_000).accepted == "a whole number from 1 to 100000"
