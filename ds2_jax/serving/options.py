"""The options of `serve`."""

import dataclasses
import re
from pathlib import Path
from typing import Annotated, Literal

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
    """Longest recording, and longest turn of a Realtime client that commits its turns, in seconds."""
    max_requests: int = 64
    """Recordings that may be uploading, waiting or being recognised at once. Further ones get status 429."""
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
    """Address to listen on. Any other than localhost needs --api-key-file or --no-key."""
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
        """Reads the keys: none without --api-key-file; requests then need no key.

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


@dataclasses.dataclass(frozen=True)
class Network:
    """How clients reach the server."""

    port: int = 8000
    """Port to listen on; 0 for a free one."""
    certificate: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Certificate in PEM format, followed by its intermediate certificates. The server then speaks only HTTPS."""
    certificate_key: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Private key of the certificate. It can also stand in the file of the certificate."""
    root_path: str = ""
    """Path under which a proxy offers the server, such as /speech. The proxy removes it from requests."""
    forwarded_allow_ips: str = "127.0.0.1"
    """Addresses of proxies, separated by commas, whose X-Forwarded-For and X-Forwarded-Proto are believed; * for all.
    The log then names the client, not the proxy."""
    allow_origin: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="ORIGIN")] = ()
    """Origin whose pages may use the server from browsers, such as https://talk.example. You can repeat this option."""

    def __post_init__(self) -> None:
        require(0 <= self.port < 2**16, "--port", f"be 0 to {2**16 - 1}", self.port)
        alone = self.certificate_key is not None and self.certificate is None
        require(not alone, "--certificate-key", "be used with --certificate", str(self.certificate_key))
        for name, path in (("--certificate", self.certificate), ("--certificate-key", self.certificate_key)):
            require(path is None or path.is_file(), name, "be a file", str(path), "Correct the path.")
        right = not self.root_path or re.fullmatch(r"(/[\w.~-]+)+", self.root_path)
        require(bool(right), "--root-path", "be /NAME or /NAME/NAME, of letters, digits and _ . ~ -", self.root_path)
        for origin in self.allow_origin:
            right = re.fullmatch(r"https?://[^/?#@\s]+", origin)
            require(bool(right), "--allow-origin", "be scheme://host[:port]", origin, "Leave out the path.")


@dataclasses.dataclass(frozen=True)
class Log:
    """What is logged of requests."""

    log_format: Literal["text", "json"] = "text"
    """json: one object a line."""
    log_texts: bool = False
    """Log the texts that were recognised and the names of files, too."""


LOCAL_ONLY = Access()
DEFAULTS = Limits()
NETWORK, LOG = Network(), Log()
"""The defaults."""
