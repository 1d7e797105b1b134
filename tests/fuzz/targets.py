"""All fuzz targets by name."""

from tests.fuzz.archives import ARCHIVES, MODELS
from tests.fuzz.audio import AUDIO, FILMS
from tests.fuzz.exported import EXPORTED
from tests.fuzz.runs import RUNS
from tests.fuzz.texts import TEXTS

TARGETS = AUDIO | ARCHIVES | TEXTS | MODELS | RUNS | EXPORTED | FILMS
