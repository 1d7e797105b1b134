"""The options of `serve`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from ds2_jax.decoding.options import LARGEST_WEIGHT
from ds2_jax.system.checks import require
from ds2_jax.system.errors import InputError

Names = Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME")]
LOCAL = ("127.0.0.1", "::1", "localhost")


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds of what clients may ask for."""

    max_megabytes: float = 100.0
    """Largest upload, in megabytes."""
    max_seconds: float = 7200.0
    """Longest recording, in seconds."""
    max_requests: int = 64
    """Recordings that may be uploaded, wait and be recognised at once. Further ones get status 429."""
    max_streams: int = 100
    """Live streams that may be open at once. Further ones get status 429."""
    idle_seconds: float = 60.0
    """A client that sends nothing for so long, during an upload or a live stream, is dropped."""
    drain_seconds: float = 60.0
    """After SIGTERM, requests that have begun may take so long to finish."""
    hot_word_boost: float = 3.0
    """Nats added for each word of a request's prompt and keywords. 0 ignores them."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, name = getattr(self, field.name), f"--{field.name.replace('_', '-')}"
            if field.name == "hot_word_boost":
                require(0 <= value <= LARGEST_WEIGHT, name, f"be 0 to {LARGEST_WEIGHT:g}", value)
            else:
                require(0 < value < float("inf"), name, "be more than 0", value)


@dataclasses.dataclass(frozen=True)
class Access:
    """Who may connect."""

    host: str = "127.0.0.1"
    """Address to listen on. Another one than this machine's own needs --api-key-file or --no-key."""
    api_key_file: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File of API keys, one a line. Requests must send one: Authorization: Bearer KEY."""
    no_key: bool = False
    """Let everybody who reaches --host use the server."""
    allowed_host: Names = ()
    """A name under which clients reach the server, as it stands in their URL. Addresses and localhost are always
    allowed. You can repeat this option."""

    vosk_port: Annotated[int | None, tyro.conf.arg(metavar="PORT")] = None
    """A second port, for clients of vosk-server that connect without the path /vosk. vosk-server's own is 2700."""

    def __post_init__(self) -> None:
        require(self.vosk_port is None or 0 <= self.vosk_port < 2**16, "--vosk-port", "be 0 to 65535", self.vosk_port)
        if self.host not in LOCAL and self.api_key_file is None and not self.no_key:
            raise InputError(
                f"--host must be {LOCAL[0]} without keys, got {self.host}. "
                "Add --api-key-file FILE, or --no-key to let everybody in."
            )
        both = self.no_key and self.api_key_file is not None
        require(not both, "--no-key", "be used without --api-key-file", str(self.api_key_file), "Leave out one.")

    def keys(self) -> tuple[str, ...]:
        """Reads the keys; none are needed if there are none.

        Raises:
            InputError: the file cannot be read, or holds no key.
        """
        if self.api_key_file is None:
            return ()
        try:
            lines = self.api_key_file.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "bytes that are not UTF-8"
            raise InputError(f"--api-key-file must be a file of keys, got {reason}. Correct it.") from error
        keys = tuple(line.strip() for line in lines if line.strip())
        require(bool(keys), "--api-key-file", "hold at least one key", len(keys), "Write one key a line.")
        return keys


LOCAL_ONLY = Access()
DEFAULTS = Limits()
"""The defaults."""
