"""Compiler options, and the persistent compilation cache: what one start of a command compiled, the next one loads.

JAX keeps the entries and decides which one fits (program, versions, flags, accelerator). Chosen here: where they lie,
who may have written them, and how many of them stay. They are native code that will be run, so a folder that somebody
else could have written to is not used.
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
"""The first bytes of its frames (RFC 8878)."""
PROBE_BYTES = 2**20  # about a large entry
ENTRIES = "**/*-cache"


def enable_cache() -> None:
    """Turns JAX's compilation cache on, for this process; without a usable folder, says so and goes on without.

    The user's JAX_COMPILATION_CACHE_DIR and JAX_ENABLE_COMPILATION_CACHE keep their meaning. To be called before the
    first compilation.
    """
    settings = jax.config.values
    if not settings["jax_enable_compilation_cache"]:
        return
    if settings["jax_compilation_cache_dir"] is None:
        try:
            jax.config.update("jax_compilation_cache_dir", str(_prepare(user_cache() / "ds2_jax")))
        except (OSError, RuntimeError, InputError) as error:  # RuntimeError: the user has no home
            reason = str(error).rstrip(".")
            logger.warning(f"compiling without a cache: {reason}. JAX_COMPILATION_CACHE_DIR may name another.")
            return
    # By default JAX leaves out what compiles in less than a second: most of the programs of a start.
    for setting, value in (("min_compile_time_secs", 0.0), ("min_entry_size_bytes", -1)):
        if f"JAX_PERSISTENT_CACHE_{setting.upper()}" not in os.environ:
            jax.config.update(f"jax_persistent_cache_{setting}", value)


def compiler_options() -> dict[str, str]:
    """Options for `jax.jit`: on a CPU, the optimisation barriers of `model/` are kept.

    XLA's CPU compiler removes them before it orders the instructions, each as early as possible. A training
    step of 5 x 1024 (16 x 457 frames) then holds 3.3 GiB of arrays instead of 2.2.
    """
    return {"xla_disable_hlo_passes": "cse_barrier_expander"} if jax.default_backend() == "cpu" else {}


def cautious_options(rematerialise: bool) -> dict[str, str]:
    """Options under which a step takes the memory that it may take on a device of another kind.

    The compiler for an accelerator may drop the barriers: a step of 5 x 1024, compiled for a CPU, then takes 1.7 times
    as much. With rematerialisation they are kept all the same: without them XLA's CPU compiler finds what is computed
    twice, and keeps it instead.
    """
    return compiler_options() if rematerialise else dict.fromkeys(compiler_options(), "")


def machine_type() -> str:
    """Names the processor and its features, which native code depends on.

    The number of cores need not be in it: a step compiled on two gave, loaded on one, the bits of one compiled there.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        described = sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU "))})
    except OSError:  # not Linux
        described = [platform.processor()]
    digest = hashlib.sha256("\n".join(described).encode()).hexdigest()
    return f"{sys.platform}-{platform.machine()}-{digest[:12]}"


def _prepare(root: Path) -> Path:
    """Makes and checks the folder for this machine and version below `root`, and tidies them all.

    Raises:
        InputError: somebody else could have written to it.
        OSError: it cannot be made or written.
    """
    machine = root / machine_type()
    folder = machine / f"jax-{jax.__version__}-jaxlib-{importlib.metadata.version('jaxlib')}"
    for each in (root, machine, folder):
        private_folder(each)
    _tidy(root)
    with tempfile.TemporaryFile(dir=folder) as probe:  # a full disk shows here, once, and not at every program
        probe.write(bytes(PROBE_BYTES))
        probe.flush()
    return folder


def _tidy(root: Path) -> None:
    """Deletes damaged entries, and the longest unused ones beyond MAX_BYTES.

    JAX never writes over an entry: one cut off when its process was killed would be compiled anew, with a warning, at
    every start. What was found whole is made read-only, so that each entry is read once. One that another process is
    just writing is lost, and compiled once more. JAX's own limit on the size needs another package (filelock).
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
        except FileNotFoundError:  # another process tidies too
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
    if content and content[0] != 0x78:  # not zlib's first byte: of another kind
        return False
    try:
        zlib.decompress(content)
    except zlib.error:
        return True
    return False


def _damaged_zstandard(content: bytes) -> bool:
    """Of an entry as JAX writes it where zstandard is installed, as Apache Beam brings it; without it none is read."""
    try:
        import zstandard
    except ModuleNotFoundError:
        return False
    try:
        zstandard.ZstdDecompressor().decompress(content)
    except zstandard.ZstdError:
        return True
    return False
