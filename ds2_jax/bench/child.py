"""Child processes that measure. The parent sends requests, to one child at a time, as lines of JSON through pipes.

Each side has its own process, so that its threads, memory and settings do not affect the other side.
"""

import contextlib
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ds2_jax.system import platforms
from ds2_jax.system.errors import InputError

PAUSE = 0.3
"""Seconds to wait before each timed run. The other side's threads keep spinning for up to 0.2 s after their work."""


class Child:
    """A child process that runs a Python module, which answers requests with `serve`. Use it as a context manager.

    Args:
        module: name of the module to run.
        environment: environment variables to set, or to remove if the value is None.
    """

    def __init__(self, module: str, environment: Mapping[str, str | None] | None = None) -> None:
        root = str(Path(__file__).resolve().parents[2])
        variables = dict(os.environ) | {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
        for name, value in (environment or {}).items():
            variables.pop(name, None)
            if value is not None:
                variables[name] = value
        self._module = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", module], env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if error is not None:
            self._process.kill()
        with contextlib.suppress(BrokenPipeError):  # the child has ended before reading everything
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def ask(self, request: str, **arguments: Any) -> Any:
        """Sends a request and returns the answer.

        Raises:
            InputError: the process has ended, or it answers with an InputError.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = ""
        try:
            self._process.stdin.write(json.dumps([request, arguments]) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            pass
        if not line:
            raise InputError(
                f"{self._module} must answer {request!r}, got exit code {self._process.wait()}. See its output above. "
                "If the code is -9, memory probably ran out: try smaller --sizes, or --no-peer."
            )
        answer = json.loads(line)
        if "error" in answer:
            raise InputError(answer["error"])
        return answer["result"]

    def timed(self, request: str, **arguments: Any) -> Any:
        """Sends a request after a pause, and returns what the child has measured."""
        time.sleep(PAUSE)
        return self.ask(request, **arguments)


def serve(handlers: Mapping[str, Callable[..., Any]]) -> None:
    """Answers requests until the parent closes the pipe. Output of the handlers goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request, arguments = json.loads(line)
        try:
            with platforms.explained():
                answer = {"result": handlers[request](**arguments)}
        except InputError as error:
            answer = {"error": str(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def peak_memory() -> float:
    """Returns the largest resident memory of this process so far, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux's ru_maxrss starts at the peak of the process that started this one
        found = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)
        if found:
            return int(found[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
