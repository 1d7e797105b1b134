"""Tables of several runs, and the errors."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ds2_jax import cli
from ds2_jax.config import Config, DataConfig, FeatureConfig, ModelConfig
from ds2_jax.data.manifest import Utterance
from ds2_jax.decoding.options import GREEDY
from ds2_jax.evaluation.provenance import Provenance
from ds2_jax.evaluation.results import Evaluation, Result, write_evaluation
from ds2_jax.evaluation.summary import summary
from ds2_jax.runs.run_folder import open_run
from ds2_jax.system.errors import InputError

ROOT = Path(__file__).parents[2]
SPOKEN = {"a": "GO ON", "b": "ONE TWO", "c": "STOP"}
"""References: 5 words, 14 characters, and 2 spaces."""
TWO_WRONG = {"a": "GO ON", "b": "ONE", "c": "STOPS"}
"""A word of three letters is missing, and another has an extra letter."""
ONE_WRONG = {"a": "GO IN", "b": "ONE TWO", "c": "STOP"}

HEADER = (
    "| run | seed | training, minutes | WER (errors / words) | 95 % interval of the WER (bootstrap over 3 utterances) "
    "| CER without spaces (errors / characters) | CER with spaces (errors / characters) |\n"
    "| --- | --- | --- | --- | --- | --- | --- |\n"
)


def evaluation(heard: Mapping[str, str], spoken: Mapping[str, str] = SPOKEN, left_out: int = 0) -> Evaluation:
    results = [
        Result(Utterance(Path(f"{name}.wav"), 1.0, text, name), text, heard[name]) for name, text in spoken.items()
    ]
    return Evaluation(results, 1.5, 0, left_out)


def write_run(folder: Path, seed: int = 0, heard: Mapping[str, str] | None = None, **settings: Any) -> Path:
    """Makes a run with a seed, and an evaluation of its test split if there are hypotheses."""
    open_run(folder, Config(seed=seed, **settings), overwrite=False)
    if heard:
        write_evaluation(folder, "test", evaluation(heard))
    return folder


def write_times(run: Path, *wall_seconds: float | None) -> None:
    """Writes a log with a step for each time; None writes a step without a time, as in older logs."""
    lines = [
        json.dumps({"step": step} if seconds is None else {"step": step, "wall_seconds": seconds})
        for step, seconds in enumerate(wall_seconds, start=1)
    ]
    (run / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return write_run(tmp_path / "first", 1, TWO_WRONG)


@pytest.fixture
def second(tmp_path: Path) -> Path:
    return write_run(tmp_path / "second", 2, ONE_WRONG)


def test_table_of_two_runs(first: Path, second: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_times(first, 30.0, 90.0)
    write_times(second, 150.0)
    assert cli.main(["summary", str(first), str(second)]) == 0
    output = capsys.readouterr()
    # Of the 27 ways to draw three utterances, one in 27 (3.7 %) takes the worst or the best three times.
    assert output.out == (
        "### test: 3 utterances\n\n" + HEADER + "| first | 1 | 1.5 | 40.00% (2 / 5) | 0.00% to 100.00% "
        "| 28.57% (4 / 14) | 31.25% (5 / 16) |\n"
        "| second | 2 | 2.5 | 20.00% (1 / 5) | 0.00% to 50.00% | 7.14% (1 / 14) | 6.25% (1 / 16) |\n"
        "| mean of 2 runs |  | 2.0 | 30.00%, spread 20.00 points |  | 17.86% | 18.75% |\n"
    )
    assert output.err == ""


def rows(capsys: pytest.CaptureFixture[str], *runs: Path) -> tuple[list[list[str]], str]:
    """Gives the cells of the rows below each header, and the lines on standard error."""
    assert summary(runs) == 0
    output = capsys.readouterr()
    lines = [line for line in output.out.splitlines() if line.startswith("| ") and "| --- |" not in line]
    return [line.strip("| ").split(" | ") for line in lines if not line.startswith("| run |")], output.err


def test_a_run_that_can_stream_tells_how_far_it_is_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    features, model = FeatureConfig(normalisation="running"), ModelConfig(bidirectional=False)
    run = write_run(tmp_path / "live", heard=ONE_WRONG, features=features, model=model)
    assert cli.main(["summary", str(run)]) == 0
    # Half a window, half of both kernels and 19 frames of 20 ms ahead, and a step.
    behind = 10 + 50 + 100 + 19 * 20 + 160
    assert f"live: live, text comes {behind} ms behind the speech; a frame lasts 20 ms" in capsys.readouterr().err


def test_one_run_has_no_mean(first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [[name, *_]], said = rows(capsys, first)
    assert (name, said) == ("first", "")


def test_every_evaluation_has_a_table_and_those_who_lack_it_are_named(
    first: Path, second: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for run in (first, second):
        write_evaluation(run / "evaluations", "an4-test+4.gram", evaluation(SPOKEN))
    write_evaluation(second / "evaluations", "an4-dev", evaluation(SPOKEN))
    (second / "evaluations/an4-dev_skipped.jsonl").write_text("{}\n")
    assert summary((first, second)) == 0
    output = capsys.readouterr()
    sections = output.out.split("\n\n")
    assert sections[::2] == [f"### {name}: 3 utterances" for name in ("test", "an4-test+4.gram", "an4-dev")]
    names = [[row.split(" | ")[0] for row in table.splitlines()[2:]] for table in sections[1::2]]
    both = ["| first", "| second", "| mean of 2 runs"]
    assert names == [both, both, ["| second"]]
    assert output.err == f"an4-dev is not in {first}: its table has only the other runs\n"


BEAM: dict[str, Any] = vars(GREEDY) | {"hot_word": [], "lm": "/3-gram.arpa", "alpha": 0.5, "beta": 0.5}


def with_provenance(name: str, steps: int = 8, written: str = "2030-01-01", **others: Any) -> Evaluation:
    values: dict[str, Any] = {
        "manifest": f"/{name}/test.jsonl",
        "manifest_digest": f"{name:0>64}",
        "weights_digest": f"{steps:064}",
        "decoding": vars(GREEDY) | {"hot_word": []},
        "lm_digest": "",
    }
    made_by = Provenance(**values | others, steps=[steps], written=written)
    return dataclasses.replace(evaluation(SPOKEN), provenance=made_by)


def write_named(run: Path, *evaluations: Evaluation) -> None:
    for each in evaluations:
        assert each.provenance is not None
        write_evaluation(run / "evaluations", each.provenance.name, each)


def test_tables_follow_what_files_say_and_not_their_names(
    first: Path, second: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_named(
        first,
        with_provenance("a/en"),
        with_provenance("b/en"),
        with_provenance("a/en", decoding=BEAM, lm_digest="1" * 64),
        with_provenance("a/en", decoding=BEAM, lm_digest="2" * 64),  # another model of the same name
        with_provenance("a/en", decoding=BEAM | {"alpha": 0.6}, lm_digest="1" * 64),
    )
    write_named(second, with_provenance("a/en", manifest="/moved/en/test.jsonl", steps=9))
    assert summary((first, second)) == 0
    output = capsys.readouterr().out
    tables = {part.partition("\n")[0]: part.count("\n| ") - 2 for part in output.split("\n\n### ")[1:]}
    digests = [f"{name:0>64}"[:8] for name in ("a/en", "b/en")]
    assert tables == {
        f"en-test, greedy (/a/en/test.jsonl, digest {digests[0]}): 3 utterances": 3,
        f"en-test, greedy (/b/en/test.jsonl, digest {digests[1]}): 3 utterances": 1,
        "en-test, beam search, 3-gram.arpa (11111111), alpha 0.5, beta 0.5: 3 utterances": 1,
        "en-test, beam search, 3-gram.arpa (22222222), alpha 0.5, beta 0.5: 3 utterances": 1,
        "en-test, beam search, 3-gram.arpa (11111111), alpha 0.6, beta 0.5: 3 utterances": 1,
    }


def test_results_of_earlier_weights_have_a_table_of_their_own(
    first: Path, second: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_named(first, with_provenance("en"), with_provenance("en", steps=16, written="2030-01-02"))
    write_named(second, with_provenance("en"))
    assert summary((first, second)) == 0
    tables = capsys.readouterr().out.split("\n\n### ")[1:]
    names = [[line.split(" | ")[0] for line in table.splitlines()[4:]] for table in tables]
    assert names == [["| first, step 16", "| second", "| mean of 2 runs"], ["| first, step 8"]]
    assert [table.partition(":")[0] for table in tables] == ["en-test, greedy", "en-test, greedy, earlier weights"]


def test_a_language_model_under_two_names(first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_named(first, with_provenance("en", decoding=BEAM, lm_digest="1" * 64))
    other = BEAM | {"lm": "/other.arpa"}
    write_named(first, with_provenance("en", decoding=other, lm_digest="1" * 64, written="2030-01-02"))
    assert summary((first,)) == 0
    titles = [table.partition(":")[0] for table in capsys.readouterr().out.split("\n\n### ")[1:]]
    assert titles[1].endswith("beta 0.5, earlier evaluation")


def test_evaluation_is_enough_without_a_test_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "only")
    write_evaluation(run / "evaluations", "an4-dev", evaluation(SPOKEN))
    [row], _ = rows(capsys, run)
    assert row[3] == "0.00% (0 / 5)"


def test_time_is_the_last_one_noted_and_unknown_in_older_runs(
    first: Path, second: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_times(first, None, 60.0, 120.0)
    log = first / "metrics.jsonl"
    log.write_text(log.read_text() + '{"step": 3}\n{"step": 4, "wall_seconds": 6')  # a kill in the middle of a line
    for times in ((), (None,)):
        write_times(second, *times)
        found, _ = rows(capsys, first, second)
        assert [row[2] for row in found] == ["2.0", "–", "–"]
    (second / "metrics.jsonl").unlink()
    assert rows(capsys, first, second)[0] == found


@pytest.mark.parametrize("value", ["NaN", "-1", '"60"', "true", "null", "1e999", "1" + "0" * 400])
def test_time_that_is_none_is_refused(first: Path, value: str) -> None:
    path = first / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{{"step": 2, "wall_seconds": {value}}}\n')
    with pytest.raises(
        InputError, match=f"^{path}, line 2: wall_seconds must be a number of seconds, got .* Delete the line.$"
    ):
        summary((first,))


@pytest.mark.parametrize("line", ["{", "[]", '[["step", 1]]', '{"wall_seconds": 1.0}', '{"step": null}'])
def test_damaged_line_of_the_log_is_named(first: Path, line: str) -> None:
    path = first / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n')
    with pytest.raises(InputError) as caught:
        summary((first,))
    assert str(caught.value) == (
        f"{path}, line 2 must be a JSON object with a step, got {line + chr(10)!r}. Delete the line."
    )


def test_damaged_evaluation_is_named(first: Path) -> None:
    (first / "test.jsonl").unlink()
    with pytest.raises(InputError, match=f"^{first}/test.json and test.jsonl must hold an evaluation, got "):
        summary((first,))


def test_run_without_an_evaluation_is_named(first: Path, tmp_path: Path) -> None:
    unfinished = write_run(tmp_path / "unfinished")
    with pytest.raises(InputError) as caught:
        summary((first, unfinished))
    assert str(caught.value) == (
        f"{unfinished} must hold an evaluation, got none. Continue its training to the end, or evaluate it: "
        f"python main.py evaluate {unfinished}"
    )


def test_no_run_is_named(first: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"^RUN must be .*, got {tmp_path}/no, where there is nothing"):
        summary((first, tmp_path / "no"))
    with pytest.raises(InputError, match=r"^RUN must be the folder of a training run, got none\. Name at least one\.$"):
        summary(())


def test_run_that_is_named_twice_counts_once(
    first: Path, second: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = tmp_path / "link"
    link.symlink_to(first)
    found, said = rows(capsys, first, second, link)
    assert [row[0] for row in found] == ["first", "second", "mean of 2 runs"]
    assert said == f"{link} is the same run as {first}: it counts once\n"


def test_runs_of_one_name_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tuple(write_run(tmp_path / f"{seed}|/run", seed, SPOKEN) for seed in (1, 2))
    assert summary(runs) == 0
    output = capsys.readouterr().out
    for seed in (1, 2):
        assert f"\n| {tmp_path}/{seed}\\|/run | {seed} | " in output


def test_other_settings_are_told_but_for_seed_and_places(
    first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = write_run(tmp_path / "moved", 2, SPOKEN, data=DataConfig(train=Path("b.jsonl")), parallel="pmap")
    assert rows(capsys, first, moved)[1] == ""
    other = write_run(tmp_path / "other", 3, SPOKEN, epochs=7, data=DataConfig(batch_size=2))
    found, said = rows(capsys, first, moved, other)
    assert found[-1][0] == "mean of 3 runs"
    assert said == (
        "the runs differ in more than the seed, so their mean says little:\n"
        f"  epochs: {Config().epochs} in {first}, 7 in {other}\n"
        f"  data.batch_size: {DataConfig().batch_size} in {first}, 2 in {other}\n"
    )


@pytest.mark.parametrize(
    ("spoken", "found"),
    [
        ({"a": "GO ON", "b": "ONE TWO"}, "1 that are not in both, such as c"),
        ({"a": "GO ON", "b": "ONE TOO", "c": "STOP"}, "1 that are not in both, such as b"),
        ({"a": "GO ON", "b": "ONE TWO", "d": "STOP"}, "2 that are not in both, such as c"),
    ],
)
def test_other_utterances_have_no_mean(first: Path, tmp_path: Path, spoken: dict[str, str], found: str) -> None:
    other = write_run(tmp_path / "other", 2)
    write_evaluation(other, "test", evaluation(spoken, spoken))
    with pytest.raises(InputError) as caught:
        summary((first, other))
    assert str(caught.value) == (
        f"{other}/test.json must be of the same utterances and references as {first}/test.json, got {found}. "
        "Evaluate both on one manifest, or leave one of the runs out."
    )


def test_utterances_that_were_left_out_are_told(first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_evaluation(first, "test", evaluation(TWO_WRONG, left_out=2))
    assert rows(capsys, first)[1] == f"{first}/test: 2 utterances were left out\n"


@pytest.mark.parametrize("spoken", [{}, {"a": "", "b": ""}])
def test_empty_references_have_no_error_rate(
    first: Path, second: Path, spoken: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    for run in (first, second):
        write_evaluation(run, "test", evaluation(SPOKEN, spoken))
    found, _ = rows(capsys, first, second)
    for row in found[:2]:
        assert row[3:5] == [f"– ({4 if spoken else 0} / 0)", "–"]
    assert found[2][3:] == ["–", "", "–", "–"]


def test_nothing_heavy_is_loaded(first: Path) -> None:
    script = (
        "import sys; from ds2_jax import cli; code = cli.main(sys.argv[1:])\n"
        "sys.exit(code or ' '.join({'jax', 'tensorflow', 'tensorboardX'} & set(sys.modules)) or 0)"
    )
    command = [sys.executable, "-c", script, "summary", str(first)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("### test: 3 utterances\n")
