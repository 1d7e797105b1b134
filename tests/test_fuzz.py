"""Damaged and hostile files, read in a process of its own: refused by name or read as they are, and nothing else.

tests/fuzz/ says what is read, how it is damaged and what a reader must not do.
"""

import ast
import collections
import math
from pathlib import Path

import pytest

from tests.fuzz import campaign
from tests.fuzz.campaign import Worker
from tests.fuzz.targets import MISDEEDS, TARGETS

NUM_QUICK, NUM_SLOW = 500, 12_000
SLOW_FIRST = 1000
"""The slow test begins where the quick one does not reach."""
PACKAGE = Path(__file__).parent.parent / "ds2_jax"


def check(num_mutations: int, first: int, folder: Path) -> None:
    outcomes = list(campaign.run(list(TARGETS), math.ceil(num_mutations / len(TARGETS)), folder, first))
    faults = {each.kind: f"{each.again} ...\n{each.fault}" for each in outcomes if each.fault}  # one of those alike
    assert not faults, "\n".join(faults.values())
    counts = collections.Counter(each.outcome for each in outcomes if each.number >= 0)
    assert counts.total() >= num_mutations
    assert set(counts) == {"accepted", "refused"}
    assert min(counts.values()) > num_mutations / 10, "the damage is too small, or so large that nothing is read"


@pytest.mark.timeout(300)
def test_seeds_claims_payloads_and_500_mutations(tmp_path: Path) -> None:
    check(NUM_QUICK, 0, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_12_000_mutations(tmp_path: Path) -> None:
    check(NUM_SLOW, SLOW_FIRST, tmp_path)


@pytest.mark.parametrize("name", [name for name in TARGETS if "of a" not in name])  # Orbax draws names and writes times
def test_the_same_number_is_the_same_file(name: str) -> None:
    first, second = ([TARGETS[name].content(name, number) for number in range(20)] for _ in range(2))
    assert first == second
    assert len(set(first)) > 10


def test_every_misdeed_is_noticed(tmp_path: Path) -> None:
    with Worker(tmp_path, seconds_to_hang=1.0) as worker:
        found = {what: worker.read("misdeeds", -2 - place) for place, what in enumerate(MISDEEDS)}
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
    assert "exec" in faults.pop("execute")
    assert "planted.py" in faults.pop("import")
    assert not faults


FORBIDDEN_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "load_module", "run_path", "run_module"}


def risks(source: str) -> list[str]:
    """What could run what a file holds: unpickling, `np.load`, `torch.load`, running code."""
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
            case ast.keyword(arg="allow_pickle"):
                found.append("allow_pickle")
    return found


def test_no_module_unpickles_or_runs_what_a_file_holds() -> None:
    source = "import pickle\nfrom joblib import load\neval('1')\nnp.load(file, allow_pickle=True)\ntorch.load(file)"
    assert set(risks(source)) == {"pickle", "joblib", "eval", "allow_pickle", "torch.load"}
    found = {path.relative_to(PACKAGE).as_posix(): risks(path.read_text()) for path in PACKAGE.rglob("*.py")}
    # A recipe is a program, which the user names; a run keeps its settings as JSON.
    assert {name: each for name, each in found.items() if each} == {"config.py": ["runpy.run_path"]}
