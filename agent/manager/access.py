"""Where the Manager is, who asks, and with which key and certificates."""

from collections.abc import Callable
from dataclasses import dataclass

from agent.config.settings import Config


@dataclass(frozen=True)
class Access:
    """Where the Manager is and who asks. `key` gives the registration key as it is now."""

    url: str
    name: str
    key: Callable[[], str]
    api_version: int = 1
    ca_file: str | None = None
    certificate: tuple[str, str] | None = None


def manager_access(config: Config, key: Callable[[], str]) -> Access:
    """How the configuration says that the Manager is reached."""
    certificate = None
    if config.manager_cert_file and config.manager_cert_key_file:
        certificate = (str(config.manager_cert_file), str(config.manager_cert_key_file))
    return Access(
        url=config.manager_url,
        name=config.agent_name,
        key=key,
        api_version=config.api_version,
        ca_file=str(config.manager_ca_file) if config.manager_ca_file else None,
        certificate=certificate,
    )
