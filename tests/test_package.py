"""The wheel holds everything, and works without a clone."""

import dataclasses
import email
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import soundfile

import ds2_jax
from ds2_jax import cli
from ds2_jax.config import load
from ds2_jax.corpora import synthetic

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The content of the wheel. It is built from a copy, because setuptools writes beside the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("ds2_jax", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir"]
    subprocess.run([*command, folder, source], check=True, capture_output=True)
    [wheel] = folder.glob("ds2_jax-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_wheel_holds_the_whole_package_and_the_recipes(installed: Path) -> None:
    package = {name for name in names_in(ROOT / "ds2_jax") if "__pycache__" not in name}
    assert {"py.typed", "evaluation/report/templates/page.css", "__main__.py"} <= package
    recipes = {f"recipes/{path.name}" for path in (ROOT / "configs").glob("*.py")}
    assert "recipes/an4_cpu.py" in recipes
    assert names_in(installed / "ds2_jax") == package | recipes
    assert {path.name for path in installed.iterdir()} == {"ds2_jax", "ds2_jax-0.1.0.dist-info"}


def test_the_model_takes_at_most_four_megabytes_of_the_wheel(installed: Path) -> None:
    [wheel] = installed.parent.glob("ds2_jax-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert archive.getinfo("ds2_jax/runs/pretrained/spelling.safetensors").compress_size <= 4_000_000


def test_the_wheel_has_the_program_and_the_licence(installed: Path) -> None:
    about = installed / "ds2_jax-0.1.0.dist-info"
    assert "ds2-jax = ds2_jax.__main__:main" in (about / "entry_points.txt").read_text().splitlines()
    for name in ("LICENSE", "ds2_jax/runs/pretrained/AN4-LICENSE"):
        assert (about / "licenses" / name).read_bytes() == (ROOT / name).read_bytes()
    assert email.message_from_string((about / "METADATA").read_text())["Name"] in ("ds2_jax", "ds2-jax")


def test_an_installed_package_finds_recipes_by_name(installed: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(installed), "COLUMNS": "120"}
    command = [sys.executable, "-m", "ds2_jax"]
    for words, code, found in (
        (["--config", "an4_cpu", "--help"], 0, "usage: python -m ds2_jax train [-h] [OPTIONS]"),
        (["--config", "an5"], 1, "got an5, which does not exist. Known recipes: an4, an4_cpu, "),
    ):
        result = subprocess.run([*command, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert result.returncode == code
        assert found in result.stdout + result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_clone_finds_recipes_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = ROOT / "configs/an4_cpu.py"
    assert load.find_config(Path("an4_cpu")) == recipe
    assert load.load_config(Path("an4_cpu")) == load.load_config(recipe)


def test_a_recipe_names_its_run(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    monkeypatch.setattr("ds2_jax.training.train.train", lambda config, workdir, *_: runs.append((config, workdir)))
    assert cli.main(["--config", "an4_cpu", "--seed", "3"]) == 0
    [(config, workdir)] = runs
    assert workdir == Path("runs/an4_cpu")
    assert config == dataclasses.replace(load.load_config(ROOT / "configs/an4_cpu.py"), seed=3)


def test_a_file_comes_before_the_recipe_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("an4").write_text("from ds2_jax.config import Config\nconfig = Config(epochs=3)\n")
    assert load.load_config(Path("an4")).epochs == 3
    Path("an4_cpu").mkdir()
    assert load.find_config(Path("an4_cpu")) == ROOT / "configs/an4_cpu.py"


def test_an_installed_package_transcribes_at_once(installed: Path, tmp_path: Path) -> None:
    prompts = [synthetic.Prompt("EIGHT SEVEN", 130, 50, 0.5)]
    soundfile.write(tmp_path / "a.wav", synthetic.speak("en-us+f4", prompts)[0], synthetic.SAMPLE_RATE)
    words = [sys.executable, "-m", "ds2_jax", "transcribe", "spelling", "a.wav"]
    environment = os.environ | {"PYTHONPATH": str(installed), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    result = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    text = ds2_jax.load("spelling").transcribe(tmp_path / "a.wav").text
    assert result.stdout == f"{text}\n"
    assert text.startswith("EIGHT ")
    assert "spelling: converting" in result.stderr
    place = subprocess.run(
        [sys.executable, "-c", "import ds2_jax; print(ds2_jax.__file__)"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert place.stdout.strip() == str(installed / "ds2_jax/__init__.py")
