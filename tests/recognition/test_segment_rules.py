"""Where real speech is cut: every threshold of `recognition.segments` matters in one of these recordings."""

import json
from pathlib import Path

import pytest

from ds2_jax.recognition import segments
from tests.golden.make_pauses import cuts
from tests.golden.pauses import read_utterances, recordings

Cuts = dict[str, list[list[int]]]
RULES = [name for name, value in vars(segments).items() if name.isupper() and isinstance(value, int | float)]


@pytest.fixture(scope="module")
def stored() -> Cuts:
    found: Cuts = json.loads((Path(__file__).parents[1] / "golden/pauses.json").read_text())
    return found


def test_real_speech_is_cut_where_it_was(an4_archive: Path, stored: Cuts) -> None:
    spoken = recordings(read_utterances(an4_archive))
    assert spoken.keys() == stored.keys()
    for name, waveform in spoken.items():
        assert cuts(waveform) == stored[name], name


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_no_threshold_can_change_unnoticed(
    an4_archive: Path, stored: Cuts, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By half as much again, or by a third less."""
    spoken = recordings(read_utterances(an4_archive))
    value = getattr(segments, rule)
    for factor in (0.67, 1.5):
        changed = round(factor * value) if isinstance(value, int) else factor * value
        if rule == "LOUD_QUANTILE":
            changed = min(changed, 0.99)
        monkeypatch.setattr(segments, rule, changed)
        assert any(cuts(waveform) != stored[name] for name, waveform in spoken.items()), (rule, changed)
