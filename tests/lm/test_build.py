"""`lm build` reads, prints and writes what it documents."""

from pathlib import Path

import pytest

from ds2_jax import cli
from ds2_jax.config import Config, DataConfig
from ds2_jax.runs import run_folder
from tests.small_runs import write_noise_manifest

TEXT = "go left\nGO RIGHT\ngo left now\n"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def failure(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """Runs a command that must fail, and returns its output on standard error."""
    assert cli.main(["lm", "build", *map(str, words)]) == 1
    return capsys.readouterr().err


def test_report(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    heard = tmp_path / "heard.txt"
    heard.write_text("GO LEFT\nGO HOME\n\nGO 5\n")
    out = tmp_path / "lm.arpa"
    words = ["lm", "build", str(text), "--out", str(out), "--order", "2", "--on-unknown", "skip", "--test", str(heard)]
    assert cli.main(words) == 0
    told = capsys.readouterr()
    assert told.out == (
        'alphabet "\'ABCDEFGHIJKLMNOPQRSTUVWXYZ ": the defaults (give --config FILE or --run RUN for others)\n'
        "3 sentences, 7 words, 4 different\n"
        "order      n-grams      D1      D2     D3+\n"
        "    1            7  0.5000  1.0000  1.5000\n"
        "    2            7  0.5000  1.0000  1.5000\n"
        f"{heard}: perplexity 2.28, with ends of sentences but without unknown words, which are 1 of 4 (25.00%)\n"
        "  1 left out because they have no words\n"
        "  1 left out because of characters outside the alphabet: '5' in 1\n"
        f"  the first: {heard}, line 4: 'GO 5'\n"
        f"{out}: 0.0 MB. To use it: python main.py evaluate RUN --lm {out}\n"
    )
    assert told.err == (
        "warning: no discounts can be estimated from the 1-grams (4, 0, 1, 0 of them were counted once, twice, 3 and 4 "
        "times), so the usual 0.5, 1, 1.5 are used\n"
        "warning: no discounts can be estimated from the 2-grams (5, 1, 1, 0 of them were counted once, twice, 3 and 4 "
        "times), so the usual 0.5, 1, 1.5 are used\n"
    )
    assert out.read_text().startswith("\\data\\\nngram 1=7\nngram 2=7\n")


def test_the_alphabet_of_a_run_and_settings_beside_it(text: Path, tmp_path: Path) -> None:
    text.write_text("Você, não?\n")
    config = Config(data=DataConfig(alphabet="acenoêãv ", remove=","))
    run_folder.open_run(tmp_path / "run", config, overwrite=False)
    words = ["lm", "build", str(text), "--out", str(tmp_path / "lm.arpa"), "--run", str(tmp_path / "run")]
    assert cli.main(words) == 1
    assert cli.main([*words, "--data.remove=,?"]) == 0
    assert "\t<s> você não\n" in (tmp_path / "lm.arpa").read_text(encoding="utf-8")


def test_manifests_and_a_config_file(tmp_path: Path) -> None:
    manifest = write_noise_manifest(tmp_path, ("你好", "好"))
    config = tmp_path / "config.py"
    config.write_text(
        "from ds2_jax.config import Config, DataConfig\nconfig = Config(data=DataConfig(alphabet='你好吗'))\n",
        encoding="utf-8",
    )
    out = tmp_path / "lm.arpa"
    assert cli.main(["lm", "build", str(manifest), "--out", str(out), "--config", str(config), "--order", "4"]) == 0
    assert "\t<s> 你 好 </s>\n" in out.read_text(encoding="utf-8")


def test_an_earlier_file_is_replaced(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "lm.arpa"
    out.write_text("old")
    assert cli.main(["lm", "build", str(text), "--out", str(out)]) == 0
    assert out.read_text().endswith("\\end\\\n")


def test_wrong_command_lines(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "lm.arpa"
    assert failure(capsys, text, "--out", out, "--order", "0") == "error: --order must be 1 to 9, got 0.\n"
    assert failure(capsys, text, "--out", out, "--order", "10") == "error: --order must be 1 to 9, got 10.\n"
    assert failure(capsys, text, "--out", out, "--order", "6") == (
        "error: --order must be at most 5, the number of words in the longest sentence including <s> and </s>, got 6. "
        "Give a smaller one.\n"
    )
    assert failure(capsys, "--out", out) == (
        "error: TEXT must name at least one file, got none. Add it, or - for standard input.\n"
    )
    assert failure(capsys, text, "--out", tmp_path) == (
        f"error: --out must be a file, got {tmp_path}, which is a folder. Name the file.\n"
    )
    spellings: list[list[str | Path]] = [
        [text, "--out", text],
        [out, "--test", text, "--out", tmp_path / "." / text.name],
    ]
    for words in spellings:
        assert failure(capsys, *words) == (
            f"error: --out must differ from every text, got {words[-1]} for both. Give another name.\n"
        )
    assert text.read_text() == TEXT
    assert not out.exists()


def test_the_group_lists_its_tools(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lm", "--help"]) == 0
    assert "  build  build an n-gram model from text files or manifests, as an ARPA file\n" in capsys.readouterr().out
    assert cli.main(["lm", "grow"]) == 1
    assert capsys.readouterr().err.startswith("error: TOOL must be one of build")


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lm", "build", "--help"]) == 0
    told = capsys.readouterr().out
    for option in ("--out", "--order", "--config", "--run", "--data.alphabet", "--on-unknown", "--test", "TEXT"):
        assert option in told
