"""Damaged and hostile files are refused by name or read as they are, and nothing else happens.

They are read in a separate process. tests/fuzz/target.py has the rules, the other modules the files and the damage.
"""

import ast
import collections
import contextlib
import copy
import dataclasses
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2_jax.config import Config, from_json, to_json
from ds2_jax.data.manifest import read_manifest
from ds2_jax.decoding.calibration import Calibration
from ds2_jax.runs.fitted import Tuned, read_calibration, read_tuned
from ds2_jax.runs.run_folder import load_config
from ds2_jax.system.errors import InputError
from tests.fuzz import campaign
from tests.fuzz.campaign import Worker
from tests.fuzz.misdeeds import MISDEEDS
from tests.fuzz.targets import TARGETS
from tests.fuzz.upstream import CRASHES

NUM_QUICK, NUM_SLOW = 100, 12_000
SLOW_FIRST = 1000
"""The slow test begins after the mutations of the quick test."""
T = TypeVar("T")
PACKAGE = Path(__file__).parents[2] / "ds2_jax"


def check(num_mutations: int, first: int, folder: Path) -> None:
    outcomes = list(campaign.run(list(TARGETS), math.ceil(num_mutations / len(TARGETS)), folder, first))
    faults = {each.kind: f"{each.again} ...\n{each.fault}" for each in outcomes if each.fault}  # one of each kind
    assert not faults, "\n".join(faults.values())
    counts = collections.Counter(each.outcome for each in outcomes if each.number >= 0)
    assert counts.total() >= num_mutations
    assert set(counts) == {"accepted", "refused"}
    assert min(counts.values()) > num_mutations / 10, "the damage is too small, or so large that nothing is read"


@pytest.mark.timeout(300)
def test_seeds_claims_payloads_and_100_mutations(tmp_path: Path) -> None:
    check(NUM_QUICK, 0, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_12_000_mutations(tmp_path: Path) -> None:
    check(NUM_SLOW, SLOW_FIRST, tmp_path)


@pytest.mark.parametrize(
    "name", [name for name in TARGETS if "of a" not in name]
)  # Orbax draws random names and writes times
def test_the_same_number_is_the_same_file(name: str) -> None:
    first, second = ([TARGETS[name].content(name, number) for number in range(20)] for _ in range(2))
    assert first == second
    assert len(set(first)) > 10


@pytest.mark.parametrize(("name", "number"), [("mp3", 1007), ("mp3", 1146)])
def test_a_damaged_mp3_is_the_same_from_memory(name: str, number: int, tmp_path: Path) -> None:
    """The frame with the Info header, or the tag before it, is damaged."""
    path = tmp_path / TARGETS[name].file
    path.write_bytes(TARGETS[name].content(name, number))
    with contextlib.suppress(InputError):
        TARGETS[name].read(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", CRASHES)
def test_crashes_of_libraries_are_still_there(name: str) -> None:
    """When a library fixes a crash, the protection against it can be removed."""
    done = subprocess.run([sys.executable, "-m", "tests.fuzz.upstream", name], cwd=PACKAGE.parent, capture_output=True)
    assert done.returncode == -CRASHES[name].signal


def test_every_misdeed_is_noticed(tmp_path: Path) -> None:
    with Worker(tmp_path) as worker, Worker(tmp_path, seconds_to_hang=1.0) as hasty:
        found = {
            what: (hasty if what == "hang" else worker).read("misdeeds", -2 - place)
            for place, what in enumerate(MISDEEDS)
        }
    faults = {what: outcome.fault for what, outcome in found.items()}
    assert faults.pop("refuse") == ""
    assert faults.pop("crash").startswith("crashed: exit code -6: Fatal Python error: Aborted")
    assert faults.pop("hang").startswith("hung: exit code -6: ")
    assert "in _misbehave" in faults.pop("fail")
    assert faults.pop("refuse without a name").endswith("AssertionError: names no file\n")
    assert faults.pop("grow").endswith(" MiB")
    assert faults.pop("ask for too much").endswith("MemoryError\n")
    assert faults.pop("write outside").startswith("failed: left ['left'] outside its folder")
    assert faults.pop("unpickle").startswith("failed: did [\"pickle.find_class('posix', 'system')")
    assert faults.pop("start a program").startswith("failed: did [\"subprocess.Popen('true'")
    assert "exec" in faults.pop("execute")
    assert "planted.py" in faults.pop("import")
    assert not faults


NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([2**31, 2**63, -(2**63), 10**4000, math.inf, math.nan]))
TEXTS = st.one_of(
    st.text(), st.text(st.characters(categories=["Cs", "Cc"])), st.sampled_from(["", "0", "../..", "a\0"])
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda below: st.one_of(st.lists(below, max_size=4), st.dictionaries(TEXTS, below, max_size=4)),
)
"""Any JSON, plus NaN and infinity, which Python also reads."""


@st.composite
def trees(draw: st.DrawFn, whole: dict[str, Any]) -> str:
    """Draws the JSON of a tree in which one or two values are changed, deleted or duplicated, or a name is changed."""
    tree = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 2))):
        place: dict[str, Any] = tree
        name = draw(st.sampled_from(sorted(place)))
        while isinstance(place[name], dict) and place[name] and draw(st.booleans()):
            place = place[name]
            name = draw(st.sampled_from(sorted(place)))
        match draw(st.sampled_from(["value", "value", "name", "gone"])):
            case "value":
                place[name] = draw(VALUES)
            case "name":
                place[draw(TEXTS)] = place.pop(name)
            case _:
                del place[name]
        if not tree:
            break
    text = json.dumps(tree)
    return f"{{{json.dumps(name)}: {json.dumps(draw(VALUES))}, {text[1:]}" if draw(st.booleans()) else text


def refuses_or(path: Path, read: Callable[[], T]) -> T | None:
    """Returns what is read; None if the file is refused, with an error that must name it."""
    try:
        return read()
    except InputError as error:
        assert str(path) in str(error)  # noqa: PT017 - both may come
        return None


@given(data=st.data())
def test_any_tree_in_place_of_settings(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("run", numbered=True)
    (folder / "config.json").write_text(data.draw(trees(json.loads(to_json(Config())))))
    found = refuses_or(folder / "config.json", lambda: load_config(folder))
    assert found is None or from_json(to_json(found)) == found


@given(data=st.data())
def test_any_tree_in_place_of_what_was_fitted(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("run", numbered=True)
    tuned = Tuned("a.arpa", 0.5, 1.0, 0.1, 0.1, 100, 5)
    (folder / "decoding.json").write_text(data.draw(trees({"ab" * 32: dataclasses.asdict(tuned)})))
    (folder / "calibration.json").write_text(data.draw(trees(dataclasses.asdict(Calibration()))))
    for each in (refuses_or(folder / "decoding.json", lambda: read_tuned(folder)) or {}).values():
        assert math.isfinite(each.alpha + each.beta)
    calibration = refuses_or(folder / "calibration.json", lambda: read_calibration(folder))
    assert calibration is None or 0 < calibration.temperature < 10


@given(data=st.data())
def test_any_tree_in_place_of_an_utterance(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("set", numbered=True) / "set.jsonl"
    row = {"audio": "a.wav", "duration": 1.5, "transcript": "GO", "id": "a", "speaker": "", "words": [["GO", 0, 1]]}
    path.write_text("".join(data.draw(trees(row)) + "\n" for _ in range(2)))
    for utterance in refuses_or(path, lambda: read_manifest(path)) or []:
        assert 0 <= utterance.duration <= 3600
        assert (utterance.id + utterance.speaker + utterance.transcript).encode()


FORBIDDEN_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "load_module", "run_path", "run_module"}


def risks(source: str) -> list[str]:
    """Lists the calls that could run the content of a file: unpickling, `np.load`, `torch.load`, running code."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found += [each.name for each in names if each.name.split(".")[0] in FORBIDDEN_MODULES]
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in FORBIDDEN_MODULES:
                found.append(module)
            case ast.Call(func=ast.Name(id=name)) if name in FORBIDDEN_CALLS:
                found.append(name)
            case ast.Call(func=ast.Attribute(attr=name, value=ast.Name(id=module))):
                if name in FORBIDDEN_CALLS - {"compile"} or (module, name) == ("torch", "load"):
                    found.append(f"{module}.{name}")
            case ast.keyword(arg="allow_pickle", value=value) if ast.unparse(value) != "False":
                found.append("allow_pickle")
    return found


def test_no_module_unpickles_or_runs_what_a_file_holds() -> None:
    source = "import pickle\nfrom joblib import load\neval('1')\nnp.load(file, allow_pickle=True)\ntorch.load(file)"
    assert set(risks(source)) == {"pickle", "joblib", "eval", "allow_pickle", "torch.load"}
    found = {path.relative_to(PACKAGE).as_posix(): risks(path.read_text()) for path in PACKAGE.rglob("*.py")}
    # A recipe is a program that the user names; a run stores its settings as JSON. PyTorch's files are pickles: their
    # reader looks up no name, as tests/engines/test_pytorch.py shows.
    expected = {"config/load.py": ["runpy.run_path"], "engines/pytorch.py": ["pickle"]}
    assert {name: each for name, each in found.items() if each} == expected
