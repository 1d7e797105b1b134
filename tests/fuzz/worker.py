"""Reads damaged files in a separate process, which may run out of memory, hang or crash.

    python -m tests.fuzz.worker FOLDER < requests

A request is a line of JSON: [target, number]. The answer is a line of JSON too: outcome (accepted, refused or failed),
CPU seconds, growth of the largest resident memory in MiB, detail, and the number's place among the files made by hand.
"""

import faulthandler
import json
import os
import resource
import shutil
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from ds2_jax.system.errors import InputError
from tests.fuzz.misdeeds import SELF_TEST
from tests.fuzz.target import MARK
from tests.fuzz.targets import TARGETS

ADDRESS_SPACE = 2 * 2**30
"""Bytes of memory that reading may use in addition to the imports; RLIMIT_AS enforces it."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
FORBIDDEN = (
    "pickle.find_class",
    "os.system",
    "os.exec",
    "os.fork",
    "socket.connect",
)
STARTING = ("subprocess.Popen", "os.posix_spawn")  # Python 3.13 starts programs by the second, too
RUNNING = ("exec", "compile", "import")
CHANGING = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.chmod", "os.truncate")


class Watch:
    """An audit hook that records forbidden actions of a reader.

    Attributes:
        folder: folder in which files may be written; None while nothing is watched.
        starts_programs: whether a program may be started.
        seen: actions against the rules.
    """

    def __init__(self) -> None:
        self.folder: str | None = None
        self.starts_programs = False
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        places = []
        if event == "open":
            places = [arguments[0]] if (arguments[2] or 0) & WRITING else []
        elif event in CHANGING:
            places = [each for each in arguments[:2] if isinstance(each, str | bytes | os.PathLike)]
        elif event in STARTING:
            self.seen += [] if self.starts_programs else [f"{event}{arguments[:2]}"]
        elif event in FORBIDDEN or (event in RUNNING and any(map(self._is_planted, arguments))):
            self.seen.append(f"{event}{arguments}"[:200])
        for place in places:
            if isinstance(place, str | bytes | os.PathLike):
                path = os.path.realpath(os.fsdecode(place))
                if not path.startswith(self.folder + os.sep) and path not in (self.folder, os.devnull):
                    self.seen.append(f"{event} {path}")

    def _is_planted(self, argument: Any) -> bool:
        """Whether code, its source, or the name of its file comes from the folder."""
        name = getattr(argument, "co_filename", argument)
        text = os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else ""
        return text.startswith(str(self.folder)) or MARK in text


def _resident(field: str) -> float:
    """Returns memory in MiB: VmRSS is the present value, VmHWM the largest since `_forget_peak`."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{field}:")[2].split()[0]) / 1024


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _limit_address_space() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ADDRESS_SPACE, resource.RLIM_INFINITY))


def read(watch: Watch, root: Path, name: str, number: int) -> dict[str, Any]:
    """Writes one damaged file, reads it, and returns the answer."""
    target, folder = (TARGETS | SELF_TEST)[name], root / "folder"
    folder.mkdir()
    for other, content in target.beside.items():
        (folder / other).write_bytes(content)
    (folder / target.file).write_bytes(target.content(name, number))
    _forget_peak()
    before, started = _resident("VmRSS"), time.process_time()
    watch.seen.clear()
    watch.starts_programs = target.starts_programs
    watch.folder = os.path.realpath(folder) if number != -1 else None
    try:
        target.read(folder / target.file)
        outcome, detail = "accepted", ""
    except InputError as error:
        outcome, detail = "refused", str(error)[:500]
    except BaseException:
        outcome, detail = "failed", traceback.format_exc()[-2000:]
    watch.folder = None
    seconds, growth = time.process_time() - started, _resident("VmHWM") - before
    shutil.rmtree(folder)
    if watch.seen:
        outcome, detail = "failed", f"did {watch.seen[:5]}"
    if left := [path.name for path in root.iterdir()]:
        outcome, detail = "failed", f"left {left} outside its folder"
        for path in root.iterdir():
            path.unlink()
    num_seeds, num_all = len(target.made(target.seeds)), len(target.unchanged())
    place = {"is_seed": -num_seeds <= number < 0, "is_last": number == -num_all}
    return {"outcome": outcome, "seconds": seconds, "growth": growth, "detail": detail, **place}


def main() -> None:
    """Answers requests until there are no more."""
    root = Path(sys.argv[1])
    os.environ["XDG_CACHE_HOME"] = str(root / "folder/cache")
    watch, answers = Watch(), os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the parent reads the output of libraries from stderr if this process dies
    faulthandler.enable()
    for line in sys.stdin:
        name, number = json.loads(line)
        if number == -1:  # this imports and compiles everything that the target needs
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
        answer = read(watch, root, name, number)
        if number == -1:
            _limit_address_space()
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
