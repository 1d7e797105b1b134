"""Mutation testing: draws changes of the code by seed, makes each one alone, and checks that a test fails.

    python -m tests.mutations --count 60 --seed 0 --out mutations.jsonl

Each change is made in a copy of the last commit. The tests that import the changed module run first, for each change.
Then all tests of `make test` run for each change that they did not notice. The same command continues after an
interruption.
"""

import argparse
import ast
import dataclasses
import functools
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECONDS_FEW, SECONDS_ALL = 900, 3600
"""Time limits for the tests of one module and for all tests. A change that exceeds a limit counts as noticed."""
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
}


@dataclasses.dataclass(frozen=True)
class Mutation:
    """A change of one place in one file."""

    path: str
    line: int
    kind: str
    before: str
    after: str
    start: int
    """Offset of `before` in the file, in bytes."""

    def apply(self, root: Path) -> None:
        """Makes the change in the copy of the code at `root`."""
        file = root / self.path
        source = file.read_bytes()
        end = self.start + len(self.before.encode())
        assert source[self.start : end].decode() == self.before
        file.write_bytes(source[: self.start] + self.after.encode() + source[end:])


def changed(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Lists the possible changes of a node of the syntax tree: each kind with the new code."""
    match node:
        case ast.Compare(left, [operator], [right]) if type(operator) in COMPARISONS:
            yield "comparison", ast.unparse(ast.Compare(left, [COMPARISONS[type(operator)]()], [right]))
        case ast.BinOp(left, operator, right) if type(operator) in ARITHMETIC and not isinstance(left, ast.Constant):
            yield "arithmetic", f"({ast.unparse(ast.BinOp(left, ARITHMETIC[type(operator)](), right))})"
        case ast.BoolOp(operator, values):
            other: ast.boolop = ast.And() if isinstance(operator, ast.Or) else ast.Or()
            yield "and, or", f"({ast.unparse(ast.BoolOp(other, values))})"
        case ast.UnaryOp(ast.Not(), operand):
            yield "not", f"({ast.unparse(operand)})"
        case ast.Constant(bool(value)):
            yield "constant", str(not value)
        case ast.Constant(int(value)):
            yield "constant", str(value + 1)
        case ast.Constant(float(value)):
            yield "constant", str(value * 2 if value else 1.0)
        case ast.Return(value) if value is not None and not isinstance(value, ast.Constant):
            yield "return", "return None"
        case ast.Expr(ast.Call()) | ast.Assign() | ast.AugAssign() | ast.Raise():
            yield "statement", "pass"


def mutations_of(path: Path) -> dict[int, list[Mutation]]:
    """Lists the possible changes of a file by line."""
    content = path.read_bytes()
    starts = [0]
    for line in content.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found: dict[int, list[Mutation]] = {}
    tree = ast.parse(content)
    inside_annotation = {
        id(below)
        for node in ast.walk(tree)
        for name in ("annotation", "returns")
        if (part := getattr(node, name, None)) is not None
        for below in ast.walk(part)
    }
    for node in ast.walk(tree):
        if id(node) in inside_annotation or not isinstance(node, ast.expr | ast.stmt):
            continue
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start, end = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
        before = content[start:end].decode()
        for kind, after in changed(node):
            if before != after:
                place = path.relative_to(ROOT).as_posix()
                found.setdefault(node.lineno, []).append(Mutation(place, node.lineno, kind, before, after, start))
    return found


def draw(count: int, seed: int) -> list[Mutation]:
    """Draws changes: first a line of the package, all with equal probability, then a change that it allows."""
    generator = random.Random(seed)
    lines = [
        (path, number)
        for path in sorted((ROOT / "ds2_jax").rglob("*.py"))
        for number in range(1, len(path.read_text(encoding="utf-8").splitlines()) + 1)
    ]
    possible: dict[Path, dict[int, list[Mutation]]] = {}
    drawn: dict[tuple[str, int], Mutation] = {}
    while len(drawn) < count:
        path, number = generator.choice(lines)
        if path not in possible:
            possible[path] = mutations_of(path)
        if mutations := possible[path].get(number):
            mutation = generator.choice(mutations)
            drawn.setdefault((mutation.path, mutation.line), mutation)
    return list(drawn.values())


@functools.cache
def imported_by() -> dict[str, set[str]]:
    """Lists the names that each test file imports, with their modules."""
    return {
        str(file.relative_to(ROOT)): {
            f"{node.module}.{alias.name}"
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom) and node.module
            for alias in node.names
        }
        for file in sorted((ROOT / "tests").rglob("test_*.py"))
    }


def tests_of(path: str) -> list[str]:
    """Lists the test files that import a module; if there are none, those of its folder."""
    module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    importing = [
        file
        for file, names in imported_by().items()
        if module in names or any(name.startswith(f"{module}.") for name in names)
    ]
    folder = Path("tests", *Path(path).parent.parts[1:])
    beside = [file for file in imported_by() if Path(file).parent == folder]
    return importing or beside or ["tests/test_contract.py", "tests/test_cli.py"]


def notices(copy: Path, tests: Sequence[str], seconds: float) -> str | None:
    """Runs tests and returns the first failure, or that they took too long; None if they pass."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "2", "--dist", "loadfile", "--quick-compilation"]
    command += ["-m", "not slow", *tests]
    try:
        done = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return "too long"
    if done.returncode == 0:
        return None
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed[0][:200] if failed else f"exit code {done.returncode}"


def try_one(mutation: Mutation, tests: Sequence[str], seconds: float) -> str | None:
    """Makes a change in a copy of the last commit and runs tests there; returns what `notices` finds."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "ds2_jax"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(copy)], check=True)
        mutation.apply(copy)
        return notices(copy, tests, seconds)


def main() -> int:
    """Draws the changes and tries those that are not yet in the file of results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    os.environ.setdefault("DS2_JAX_AN4", str(ROOT.parent / "shared/data/an4_sphere.tar.gz"))
    rows = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    noticed = {(row["path"], row["line"], row["after"], row["by"]): row["first"] for row in rows}
    left = draw(options.count, options.seed)
    for by, seconds in (("its tests", SECONDS_FEW), ("all tests", SECONDS_ALL)):
        survivors = []
        for number, mutation in enumerate(left, start=1):
            key = (mutation.path, mutation.line, mutation.after, by)
            if key not in noticed:
                noticed[key] = try_one(mutation, tests_of(mutation.path) if by == "its tests" else [], seconds)
                row = {**dataclasses.asdict(mutation), "by": by, "first": noticed[key]}
                with options.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
            state = f"noticed by {by}" if noticed[key] else f"NOT NOTICED by {by}"
            print(f"{number:3} {mutation.path}:{mutation.line} {mutation.kind}: {state}", flush=True)
            if not noticed[key]:
                survivors.append(mutation)
        left = survivors
    print(f"{options.count - len(left)} of {options.count} noticed")
    return 0 if len(left) <= 0.1 * options.count else 1


if __name__ == "__main__":
    sys.exit(main())
