"""Settings for all tests: eight simulated devices, strict shapes, repeatable examples, and no silent skips."""

import atexit
import ctypes.util
import gc
import logging
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"  # these must be set before JAX or TensorFlow is imported
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())  # pytest keeps the files of the last runs there
# Libraries leave files in the temporary folder, so the tests have one of their own, which is removed at the end.
os.environ["TMPDIR"] = tempfile.mkdtemp(prefix="ds2_jax-tests-")
# The tests of a process share compiled programs, and neither read nor fill the caches of the user.
os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="compiled-", dir=os.environ["TMPDIR"])
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="cache-", dir=os.environ["TMPDIR"])
os.environ.setdefault("MPLCONFIGDIR", str(Path(__file__).resolve().parent.parent / ".pytest_cache/matplotlib"))
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).resolve().parent.parent / ".pytest_cache/numba"))

import hypothesis
import jax
import pytest

from ds2_jax.system import logs

ROOT = Path(__file__).resolve().parent.parent
NO_AN4 = "the AN4 archive is not there; DS2_JAX_AN4 names it"
NO_CHECKPOINTS = "checkpoints of deepspeech.pytorch are not there; DS2_JAX_CHECKPOINTS names their folder"
NO_CHROMIUM = "Chromium is not there; apt-get install chromium"
NO_PORTAUDIO = "PortAudio is not there; apt-get install libportaudio2"
NO_NGINX = "nginx is not there; apt-get install nginx-light"
NO_SCTK = "sctk is not there; apt-get install sctk"
NO_NPM = "npm is not there; apt-get install npm"
NO_PYTHON312 = "Python 3.12 is not there; wyoming-openai needs it"
NO_FFMPEG = "ffmpeg is not there; apt-get install ffmpeg"
NO_DATA = (NO_AN4, NO_CHECKPOINTS)
NO_PROGRAM = (NO_CHROMIUM, NO_FFMPEG, NO_NGINX, NO_NPM, NO_PORTAUDIO, NO_PYTHON312, NO_SCTK)
ALLOWED_SKIPS = NO_DATA if os.environ.get("CI") else (*NO_DATA, *NO_PROGRAM)
"""The only allowed reasons to skip a test; any other skip is a failure. CI has every program."""

QUICK_XLA_FLAGS = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
"""They halve the time in which XLA compiles without optimisation (0.14 -> 0.06 s a program in test_streaming.py)."""

tempfile.tempdir = os.environ["TMPDIR"]
atexit.register(shutil.rmtree, tempfile.tempdir, ignore_errors=True)
jax.config.update("jax_numpy_rank_promotion", "raise")
logs.show()  # so that tests find on standard error what a command shows there
logging.getLogger(logs.PACKAGE).propagate = True  # pytest's caplog listens at the root
hypothesis.settings.register_profile("ds2_jax", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("ds2_jax")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first: at the end, one of the two processes would wait for them."""
    longest = ["test_survival.py", "test_train.py", "test_mesh.py"]
    items.sort(key=lambda item: longest.index(item.path.name) if item.path.name in longest else len(longest))


def pytest_collection_finish() -> None:
    """Lets the garbage collector pass over what was imported: looking through it took 7 % of the time of the tests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(scope="session")
def original_checkpoints() -> list[Path]:
    """Checkpoints that deepspeech.pytorch's own code wrote, each beside an .npz of what its model gave."""
    folder = Path(os.environ.get("DS2_JAX_CHECKPOINTS", ROOT.parent / "shared/checkpoints"))
    found = sorted(path for path in folder.glob("*") if path.suffix in (".pth", ".ckpt"))
    if not found:
        pytest.skip(NO_CHECKPOINTS)
    return found


@pytest.fixture(scope="session")
def an4_archive() -> Path:
    """The archive of real speech, from DS2_JAX_AN4 or from the folder shared/ beside the repository."""
    archive = Path(os.environ.get("DS2_JAX_AN4", ROOT.parent / "shared/data/an4_sphere.tar.gz"))
    if not archive.is_file():
        pytest.skip(NO_AN4)
    return archive


@pytest.fixture(scope="session")
def ffmpeg() -> None:
    """Skips the test if ffmpeg is not installed."""
    if shutil.which("ffmpeg") is None:
        pytest.skip(NO_FFMPEG)


@pytest.fixture
def portaudio() -> None:
    """Skips the test if PortAudio is not installed."""
    if ctypes.util.find_library("portaudio") is None:
        pytest.skip(NO_PORTAUDIO)


@pytest.fixture
def no_ffmpeg(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides ffmpeg and all other programs."""
    monkeypatch.setenv("PATH", str(tmp_path_factory.mktemp("bin")))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick-compilation", action="store_true", help="compile without optimisation, which takes less time"
    )


def pytest_configure(config: pytest.Config) -> None:
    quick = config.getoption("--quick-compilation")
    if quick:
        os.environ["XLA_FLAGS"] += " " + QUICK_XLA_FLAGS  # for other processes too; no backend has started yet
    jax.config.update("jax_disable_most_optimizations", quick)
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(quick)


@pytest.fixture(autouse=True, scope="module")
def forget_compilations() -> Iterator[None]:
    """Frees a module's compiled programs: those of all modules can exceed the memory maps that a process may have."""
    yield
    jax.clear_caches()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_unlisted_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_unlisted_skip(report)
    return report


def _fail_unlisted_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.outcome != "skipped" or hasattr(report, "wasxfail"):
        return
    assert isinstance(report.longrepr, tuple)  # file, line, reason
    reason = report.longrepr[2].removeprefix("Skipped: ")
    if reason not in ALLOWED_SKIPS:
        report.outcome = "failed"
        report.longrepr = f"skipped for a reason that is not on ALLOWED_SKIPS of conftest.py: {reason}"
