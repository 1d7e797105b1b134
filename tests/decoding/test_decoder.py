"""The decoder makes hypotheses from log-probabilities, by greedy decoding and by beam search."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ds2_jax.config import Config, DataConfig
from ds2_jax.decoding.decoder import make_decoder
from ds2_jax.decoding.options import DecodingOptions
from ds2_jax.system.errors import InputError
from tests.beam_models import one_hot, random_log_probs

CONFIG = Config(data=DataConfig(alphabet="AB "))
BLANK, A, B, SPACE = range(4)
ARPA = """\\data\\
ngram 1=5
ngram 2=3

\\1-grams:
-2.0 <unk>
-99 <s> -0.3
-0.8 </s>
-0.5 AB -0.2
-0.9 {other} -0.1

\\2-grams:
-0.2 <s> AB
-0.3 AB {other}
-0.4 {other} </s>

\\end\\
"""


@pytest.fixture
def lm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "lm.arpa"
    path.write_text(ARPA.format(other="BA"))
    return path


def test_readings_of_a_beam_have_words_with_times(lm: Path) -> None:
    frames = [BLANK, A, A, B, BLANK, SPACE, B, BLANK, A, BLANK]
    decode = make_decoder(CONFIG, options=DecodingOptions(lm=lm, num_best=3))
    (reading,) = decode(one_hot(frames, 4))
    greedy = make_decoder(CONFIG)(one_hot(frames, 4))[0]
    assert reading.text == greedy.text == "AB BA"
    assert reading.words == greedy.words
    assert (reading.words[0].start, reading.words[0].end) == pytest.approx((0.02, 0.08))
    # Computed by hand: log10 of AB after <s>, BA after AB and </s> after BA; alpha and beta are 0.5.
    assert reading.score == pytest.approx(0.5 * np.log(10) * (-0.2 - 0.3 - 0.4) + 2 * 0.5, abs=1e-6)


def test_as_many_readings_as_asked_for_the_best_first() -> None:
    decode = make_decoder(CONFIG, options=DecodingOptions(num_best=5))
    readings = decode(random_log_probs(20, 4, 0))
    assert len({reading.text for reading in readings}) == 5
    assert [-reading.score for reading in readings] == sorted(-reading.score for reading in readings)
    assert all(0 <= word.confidence <= 1 for reading in readings for word in reading.words)


def test_no_frames_have_one_empty_reading(lm: Path) -> None:
    for options in (DecodingOptions(), DecodingOptions(num_best=3), DecodingOptions(lm=lm)):
        (reading,) = make_decoder(CONFIG, options=options)(np.zeros((0, 4), np.float32))
        assert (reading.text, reading.words) == ("", ())


def test_where_a_closed_vocabulary_allows_nothing_the_reading_is_empty(lm: Path) -> None:
    log_probs = np.maximum(one_hot([B, B], 4), -30.0).astype(np.float32)
    decode = make_decoder(CONFIG, options=DecodingOptions(lm=lm, closed_vocabulary=True))
    (reading,) = decode(log_probs)
    assert reading.text == ""
    assert reading.score <= -60


def test_a_language_model_of_another_alphabet_is_an_error(lm: Path) -> None:
    lm.write_text(ARPA.format(other="мир").replace(" AB", " дом").replace("AB ", "дом "))
    with pytest.raises(InputError, match=r"lm\.arpa must hold words of the alphabet .*, got only other words: "):
        make_decoder(CONFIG, options=DecodingOptions(lm=lm))


def test_greedy_decoding_loads_no_compiler() -> None:
    code = (
        "import sys, numpy as np\n"
        "from ds2_jax.config import Config\n"
        "from ds2_jax.decoding.decoder import make_decoder\n"
        "make_decoder(Config())(np.zeros((3, 29), np.float32))\n"
        "assert not {'numba', 'tensorflow'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).resolve().parents[2], check=True)
