"""What the tests of serving share: models, and a browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ds2_jax.recognition.recogniser import Recogniser
from tests.browser import Browser
from tests.environments import install_python
from tests.serving.pages import chromium, microphone
from tests.serving.servers import LIVE_CONFIG, talkative, write_talk
from tests.small_runs import SMALL_CONFIG


@pytest.fixture(scope="session")
def recogniser(tmp_path_factory: pytest.TempPathFactory) -> Recogniser:
    """A model that hears a recording as a whole."""
    return talkative(tmp_path_factory.mktemp("runs") / "whole", SMALL_CONFIG)


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Recogniser:
    """A model that can stream."""
    return talkative(tmp_path_factory.mktemp("runs") / "live", LIVE_CONFIG)


@pytest.fixture(scope="session")
def wordy(tmp_path_factory: pytest.TempPathFactory) -> Recogniser:
    """A model that can stream and writes many words."""
    return talkative(tmp_path_factory.mktemp("runs") / "wordy", LIVE_CONFIG, seed=11)


@pytest.fixture(scope="session")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the browser's microphone hears."""
    return write_talk(tmp_path_factory.mktemp("spoken") / "talk.wav", 12.0, 3)


@pytest.fixture
def browser(spoken: Path) -> Iterator[Browser]:
    """A browser with a microphone that plays a file."""
    with Browser(chromium(), *microphone(spoken)) as browser:
        yield browser


@pytest.fixture(scope="session")
def pausing(tmp_path_factory: pytest.TempPathFactory) -> Recogniser:
    """A model that can stream and writes nothing in the pauses of `talk`."""
    return talkative(tmp_path_factory.mktemp("runs") / "pausing", LIVE_CONFIG, pause_label=17)


@pytest.fixture(scope="session")
def openai_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has the package `openai` and what its Realtime needs."""
    return install_python(tmp_path_factory.mktemp("openai"), "openai[realtime]==3.57.0", "SpeechRecognition==3.17.0")
