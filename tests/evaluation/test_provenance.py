"""Results say what made them, and other results have other names."""

import dataclasses
import json
from pathlib import Path

import pytest

from ds2_jax.config import DataConfig
from ds2_jax.data.manifest import Utterance
from ds2_jax.data.splits import Split
from ds2_jax.decoding.options import GREEDY, DecodingOptions
from ds2_jax.evaluation.provenance import Provenance
from ds2_jax.system.program import VERSION
from ds2_jax.text.alphabet import Alphabet

WEIGHTS = [12, 8], "f" * 64


def split_of(*durations: float) -> Split:
    utterances = [Utterance(Path(f"{i}.wav"), each, "GO", str(i)) for i, each in enumerate(durations)]
    return Split(utterances, Alphabet.of(DataConfig()))


SPLIT = split_of(1.0, 2.0)


def made_by(
    manifest: str = "/a/en/test.jsonl",
    split: Split = SPLIT,
    weights: tuple[list[int], str] = WEIGHTS,
    decoding: DecodingOptions = GREEDY,
) -> Provenance:
    return Provenance.of(Path(manifest), split, weights, decoding)


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    """Writes two files of one stem, which are not read as models, and a copy of the first."""
    paths = [tmp_path / name for name in ("3-gram.arpa", "3-gram.pruned.1e-7.arpa", "copy.arpa")]
    for path, text in zip(paths, ("one", "two", "one"), strict=True):
        path.write_text(text)
    return paths


def test_all_that_makes_a_result_is_stated(models: list[Path]) -> None:
    found = made_by(decoding=DecodingOptions(lm=models[0], alpha=0.5, beta=1.0, hot_word=("B=2", "A=1")))
    written = json.loads(json.dumps(dataclasses.asdict(found.written_now())))
    assert (written["manifest"], written["steps"], written["weights_digest"]) == ("/a/en/test.jsonl", *WEIGHTS)
    assert written["version"] == VERSION
    assert written["written"][:2] == "20"
    assert {"lm": str(models[0]), "alpha": 0.5, "beta": 1.0, "beam_width": 128, "hot_word": ["A=1", "B=2"]}.items() <= (
        written["decoding"].items()
    )
    assert written["decoding"].keys() == vars(GREEDY).keys()
    assert dataclasses.replace(Provenance.read(written), written="") == found


def test_names_say_manifest_and_model(models: list[Path]) -> None:
    assert made_by().name.rpartition("-")[0] == "en-test"
    assert made_by(decoding=DecodingOptions(num_best=2)).name.rpartition("-")[0] == "en-test+beam"
    named = made_by(decoding=DecodingOptions(lm=models[1])).name
    assert named.rpartition("-")[0] == "en-test+3-gram.pruned.1e-7"
    assert len(named.rpartition("-")[2]) == 8


def test_other_results_have_other_names(models: list[Path]) -> None:
    with_lm = DecodingOptions(lm=models[0], alpha=0.5, beta=0.5)
    made = [
        made_by(),
        made_by("/noisy/en/test.jsonl"),
        made_by(split=split_of(1.0, 2.5)),
        made_by(weights=([12], "e" * 64)),
        made_by(weights=([12], "")),  # a checkpoint without sums
        made_by(weights=([16], "")),
        made_by(decoding=DecodingOptions(beam_width=128)),
        made_by(decoding=DecodingOptions(beam_width=64)),
        made_by(decoding=with_lm),
        made_by(decoding=dataclasses.replace(with_lm, alpha=0.6)),
        made_by(decoding=dataclasses.replace(with_lm, lm=models[1])),
    ]
    digests = [each.name.rpartition("-")[2] for each in made]
    assert len(set(digests)) == len(made)


def test_what_changes_no_result_changes_no_name(models: list[Path]) -> None:
    assert made_by(split=Split(SPLIT.utterances[::-1], SPLIT.alphabet)).name == made_by().name
    assert made_by(decoding=DecodingOptions(unknown_penalty=9.0)).name == made_by().name  # greedy has no use for it
    digests = {made_by(decoding=DecodingOptions(lm=lm)).name.rpartition("-")[2] for lm in (models[0], models[2])}
    assert len(digests) == 1


def test_headings_say_what_is_not_the_default(models: list[Path]) -> None:
    assert str(made_by()) == "en-test, greedy"
    assert str(made_by(decoding=DecodingOptions(num_best=3))) == "en-test, beam search, num best 3, beam width 128"
    found = made_by(decoding=DecodingOptions(lm=models[0], alpha=0.5, beta=0.5))
    assert str(found) == (
        f"en-test, beam search, 3-gram.arpa ({found.lm_digest[:8]}), alpha 0.5, beta 0.5, beam width 128"
    )
