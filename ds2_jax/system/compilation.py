"""Compiler options, and the persistent compilation cache, so that a command does not compile again at its next start.

JAX stores the entries and decides which one fits (by program, versions, flags and accelerator). This module chooses the
folder, checks who may have written to it, and limits its size. Entries are native code that will be run, so a folder
that somebody else could have written to is not used.
"""

import hashlib
import importlib.metadata
import logging
import os
import platform
import stat
import sys
import tempfile
import zlib
from pathlib import Path

import jax

from ds2_jax.system.caches import private_folder, user_cache
from ds2_jax.system.errors import InputError

logger = logging.getLogger(__package__)

MAX_BYTES = 2 * 2**30
ZSTANDARD = b"(\xb5/\xfd"
"""The first bytes of a Zstandard frame (RFC 8878)."""
PROBE_BYTES = 2**20  # about the size of a large entry
ENTRIES = "**/*-cache"


def enable_cache() -> None:
    """Turns JAX's compilation cache on for this process. Without a usable folder, logs a warning instead.

    JAX_COMPILATION_CACHE_DIR and JAX_ENABLE_COMPILATION_CACHE keep their meaning. Call this before the first
    compilation.
    """
    settings = jax.config.values
    if not settings["jax_enable_compilation_cache"]:
        return
    if settings["jax_compilation_cache_dir"] is None:
        try:
            jax.config.update("jax_compilation_cache_dir", str(_prepare(user_cache() / "ds2_jax")))
        except (OSError, RuntimeError, InputError) as error:  # RuntimeError: the user has no home
            reason = str(error).rstrip(".")
            logger.warning(f"compiling without a cache: {reason}. Set JAX_COMPILATION_CACHE_DIR to another folder.")
            return
    # By default JAX does not store programs that compile in less than a second, which are most programs of a start.
    for setting, value in (("min_compile_time_secs", 0.0), ("min_entry_size_bytes", -1)):
        if f"JAX_PERSISTENT_CACHE_{setting.upper()}" not in os.environ:
            jax.config.update(f"jax_persistent_cache_{setting}", value)


def compiler_options() -> dict[str, str]:
    """Returns options for `jax.jit`. On a CPU they keep the optimisation barriers of `model/`.

    By default XLA's CPU compiler removes the barriers and then runs each instruction as early as possible. A training
    step of 5 x 1024 (16 x 457 frames) then holds 3.3 GiB of arrays instead of 2.2.
    """
    return {"xla_disable_hlo_passes": "cse_barrier_expander"} if jax.default_backend() == "cpu" else {}


def cautious_options(rematerialise: bool) -> dict[str, str]:
    """Returns options for a step compiled for a CPU, so that it needs the memory that it may need on another device.

    The compiler for an accelerator may remove the barriers. Without them a step of 5 x 1024, compiled for a CPU, takes
    1.7 times as much memory. With rematerialisation the options keep the barriers: without them XLA's CPU compiler
    would merge the repeated computations and store their results.
    """
    return compiler_options() if rematerialise else dict.fromkeys(compiler_options(), "")


def machine_type() -> str:
    """Returns a name for the processor and its features, on which native code depends.

    The number of cores does not matter: a step that was compiled on two cores and loaded on one gave the same bits as a
    step compiled on one.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        described = sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU "))})
    except OSError:  # not Linux
        described = [platform.processor()]
    digest = hashlib.sha256("\n".join(described).encode()).hexdigest()
    return f"{sys.platform}-{platform.machine()}-{digest[:12]}"


def _prepare(root: Path) -> Path:
    """Makes and checks the folder for this machine and version in `root`, and cleans up all folders in `root`.

    Raises:
        InputError: somebody else could have written to the folder.
        OSError: the folder cannot be made or written.
    """
    machine = root / machine_type()
    folder = machine / f"jax-{jax.__version__}-jaxlib-{importlib.metadata.version('jaxlib')}"
    for each in (root, machine, folder):
        private_folder(each)
    _tidy(root)
    with tempfile.TemporaryFile(dir=folder) as probe:  # a full disk gives one warning here, not one for each program
        probe.write(bytes(PROBE_BYTES))
        probe.flush()
    return folder


def _tidy(root: Path) -> None:
    """Deletes damaged entries and, beyond MAX_BYTES, the least recently used entries.

    JAX never overwrites an entry. If a process is killed while it writes one, the damaged entry would cause a
    compilation and a warning at every start. Intact entries are made read-only, so that each is checked only once. An
    entry that another process is writing at this moment is lost and compiled again. JAX's own limit on the size needs
    another package (filelock).
    """
    entries = []
    for path in root.glob(ENTRIES):
        try:
            status = path.stat()
            if status.st_mode & stat.S_IWUSR:
                if _damaged(path):
                    path.unlink()
                    continue
                path.chmod(stat.S_IRUSR)
        except FileNotFoundError:  # another process deleted it
            continue
        entries.append((max(status.st_atime, status.st_mtime), status.st_size, path))
    total = 0
    for _, size, path in sorted(entries, reverse=True):
        total += size
        if total > MAX_BYTES:
            path.unlink(missing_ok=True)


def _damaged(path: Path) -> bool:
    content = path.read_bytes()
    if content.startswith(ZSTANDARD):
        return _damaged_zstandard(content)
    if content and content[0] != 0x78:  # not zlib's first byte: an unknown format
        return False
    try:
        zlib.decompress(content)
    except zlib.error:
        return True
    return False


def _damaged_zstandard(content: bytes) -> bool:
    """Whether a Zstandard entry is damaged. JAX writes and reads such entries only if zstandard is installed."""
    try:
        import zstandard
    except ModuleNotFoundError:
        return False
    try:
        zstandard.ZstdDecompressor().decompress(content)
    except zstandard.ZstdError:
        return True
    return False
