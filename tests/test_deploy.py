"""deploy/ uses options, pins, files and exit codes that exist, and the commands of docs/large-scale.md parse."""

import contextlib
import functools
import importlib.metadata
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from ds2_jax import cli
from ds2_jax.curation.pack import name_splits
from ds2_jax.decoding.options import GREEDY
from ds2_jax.parallel.processes import LOST
from ds2_jax.serving.guard import PROBES
from ds2_jax.serving.metrics import Metrics
from ds2_jax.serving.options import Limits
from ds2_jax.serving.settings import ModelSettings, read_models
from tests.commands import parse_only

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
SCRIPT = DEPLOY / "train.slurm"
SAVED_AFTER_SIGTERM = 128 + signal.SIGTERM


def parse_train(words: list[str]) -> SimpleNamespace:
    """Parses `words` as `python main.py train` does; the test fails if the command would."""
    with contextlib.chdir(ROOT):
        command = cli.parse("train", words)
    assert isinstance(command, functools.partial)
    return SimpleNamespace(**command.keywords)


def pins(path: Path) -> dict[str, Requirement]:
    lines = path.read_text().splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith(("#", "-r "))]
    assert all(re.fullmatch(r"==[^*,]+", str(pin.specifier)) for pin in found)
    return {pin.name: pin for pin in found}


def test_the_pins_for_cuda_are_what_the_pinned_jax_asks_for() -> None:
    runtime, cuda = pins(ROOT / "requirements.txt"), pins(DEPLOY / "requirements-cuda12.txt")
    assert runtime.keys().isdisjoint(cuda)
    asked = [Requirement(text) for text in importlib.metadata.requires("jax") or ()]
    [plugin] = [each for each in asked if each.marker and each.marker.evaluate({"extra": "cuda12"}) and each.extras]
    assert importlib.metadata.version("jax") == str(runtime["jax"].specifier).removeprefix("==")
    for name in (plugin.name, "jax-cuda12-pjrt"):
        assert plugin.specifier.contains(str(cuda[name].specifier).removeprefix("==")), name
    assert {"nvidia-cudnn-cu12", "nvidia-nccl-cu12", "nvidia-cuda-nvcc-cu12"} <= cuda.keys()


def instructions() -> list[tuple[str, str]]:
    """Lists the instructions of the Dockerfile, each with its arguments."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines if line and line[0] != "#")]


def test_the_image_holds_what_its_context_does() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split("\n")
    context = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert "*" in ignored
    copied = {source for name, rest in instructions() if name == "COPY" for source in rest.split()[:-1]}
    assert copied == context
    assert all((ROOT / source).exists() for source in copied)
    installed = [rest.split()[-1] for name, rest in instructions() if name == "RUN" and "pip install" in rest]
    assert installed == ["requirements.txt", "deploy/requirements-cuda12.txt", "requirements-serve.txt"]
    assert set(installed) <= copied


def test_the_image_has_a_variant_for_each_accelerator() -> None:
    stages = [rest.split() for name, rest in instructions() if name == "FROM"]
    assert [stage[-1] for stage in stages] == ["cpu", "cuda12", "serve", "${ACCELERATOR}"]
    assert ("ARG", "ACCELERATOR=cpu") in instructions()
    version = re.fullmatch(r"python:(3\.11\.\d+)-slim-bookworm", stages[0][0])
    assert version
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert SpecifierSet(project["requires-python"]).contains(version[1])


def test_the_image_runs_the_commands_as_a_user() -> None:
    [*_, user, entry, command] = instructions()
    assert user == ("USER", "1000")
    assert entry == ("ENTRYPOINT", '["python", "main.py"]')
    assert command == ("CMD", '["--help"]')


def test_the_serving_image_serves_as_a_user_and_holds_what_it_runs() -> None:
    steps = instructions()
    start = steps.index(("FROM", "python:3.11.15-slim-bookworm AS serve"))
    end = next(index for index in range(start + 1, len(steps)) if steps[index][0] == "FROM")
    own = dict(steps[start:end])
    assert (own["USER"], own["EXPOSE"], own["CMD"]) == ("1000", "8000", '["--help"]')
    assert own["ENTRYPOINT"] == '["python", "main.py", "serve"]'
    copied = {word for name, rest in steps[start:end] if name == "COPY" for word in rest.split()}
    needed = set(
        re.findall(r"^-r (\S+)", "".join((ROOT / each).read_text() for each in copied if "serve" in each), re.M)
    )
    assert needed == {"requirements-recognise-lm.txt"}
    assert {"requirements-recognise.txt", "requirements-recognise-lm.txt", "main.py", "ds2_jax"} <= copied


def test_the_pins_of_the_server_are_those_of_the_tests() -> None:
    served, tested = pins(ROOT / "requirements-serve.txt"), pins(ROOT / "requirements-dev.txt")
    tested |= pins(ROOT / "requirements.txt")
    assert all(served[name].specifier == tested[name].specifier for name in served)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extra = {Requirement(each).name for each in project["project"]["optional-dependencies"]["serve"]}
    assert set(project["dependency-groups"]["recognise-serve"]) == extra <= served.keys()


def run_tool(*words: str | Path) -> str:
    """Runs a program of the environment, which must succeed, and returns its output."""
    tool, *arguments = words
    ended = subprocess.run([Path(sys.executable).with_name(str(tool)), *arguments], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    assert run_tool("hadolint", DEPLOY / "Dockerfile") == ""


@pytest.mark.parametrize("version", ["1.33.0", "1.37.0"])
@pytest.mark.parametrize(("file", "number"), [("kubernetes.yaml", 3), ("kubernetes-serve.yaml", 5)])
def test_the_manifests_are_valid_by_kubernetes_own_schemas(file: str, number: int, version: str) -> None:
    printed = run_tool("kubernetes-validate", "--strict", "-k", version, DEPLOY / file)
    assert printed.count("passed for resource") == number


def test_the_serving_pods_use_what_the_server_has(tmp_path: Path) -> None:
    """The settings are options, the probes are paths, and a pod has the time that draining takes."""
    found = {each["kind"]: each for each in yaml.safe_load_all((DEPLOY / "kubernetes-serve.yaml").read_text())}
    pod = found["Deployment"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    settings = tmp_path / "serve.toml"
    settings.write_text(found["ConfigMap"]["data"]["serve.toml"])
    (argument,) = container["args"]
    assert argument == "--settings=/settings/serve.toml"
    command = cli.parse("serve", ["--settings", str(settings)])
    assert isinstance(command, functools.partial)
    access, limits, network = (command.keywords[name] for name in ("access", "limits", "network"))
    tables = read_models(settings, ModelSettings(Path(), None, GREEDY))
    assert {str(each.run.parent) for each in tables.values()} == {"/models"} <= mounts.keys()
    assert str(access.api_key_file.parent) in mounts
    assert found["Service"]["metadata"]["name"] in access.allowed_host
    assert network.port == container["ports"][0]["containerPort"] == found["Service"]["spec"]["ports"][0]["port"]
    probes = {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    assert probes == set(PROBES)
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= pause + limits.drain_seconds + 10
    uploads = next(each["emptyDir"]["sizeLimit"] for each in pod["volumes"] if each["name"] == mounts["/tmp"])
    assert int(uploads.removesuffix("Gi")) * 2**30 >= 2 * limits.max_requests * limits.max_megabytes * 1e6
    scaled = found["HorizontalPodAutoscaler"]["spec"]
    assert scaled["scaleTargetRef"]["name"] == found["Deployment"]["metadata"]["name"]
    published = Metrics().text().decode()
    for each in scaled["metrics"]:
        assert f"\n{each['pods']['metric']['name']} " in published
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert found["Service"]["spec"]["selector"] == labels
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels


def run_script(folder: Path, code: int, *words: str) -> tuple[int, list[str], str]:
    """Runs the SLURM script with an srun that exits with `code`.

    Returns:
        The script's exit code, the command of srun, and the arguments of scontrol.
    """
    for name, lines in {"srun": 'printf "%s\\n" "$@" > command\nexit "$CODE"', "scontrol": 'echo "$@" > told'}.items():
        (folder / name).write_text(f"#!/bin/sh\n{lines}\n")
        (folder / name).chmod(0o755)
    slurm = {"SLURM_JOB_ID": "17", "SLURM_CPUS_PER_TASK": "8", "CODE": str(code)}
    ended = subprocess.run(
        ["bash", SCRIPT, *words],
        cwd=folder,
        env={"PATH": f"{folder}:/usr/bin:/bin"} | slurm,
        capture_output=True,
        text=True,
    )
    assert ended.stderr == ""
    told = (folder / "told").read_text() if (folder / "told").exists() else ""
    return ended.returncode, (folder / "command").read_text().splitlines(), told


@pytest.mark.parametrize("code", [0, 1, 130, 137, SAVED_AFTER_SIGTERM])
def test_the_slurm_job_goes_back_into_the_queue_where_it_was_told_to_stop_and_has_saved(
    tmp_path: Path, code: int
) -> None:
    returned, _, told = run_script(tmp_path, code)
    assert returned == code
    assert told == ("requeue 17\n" if code == SAVED_AFTER_SIGTERM else "")


def test_the_slurm_script_starts_a_training_on_every_gpu(tmp_path: Path) -> None:
    words = ["--config", "configs/librispeech.py", "--workdir", "a b"]
    _, command, _ = run_script(tmp_path, 0, *words)
    at = command.index("main.py")
    assert command[at - 1 : at + 2] == [".venv/bin/python", "main.py", "train"]
    assert "--kill-on-bad-exit=0" in command[:at]  # otherwise the first process to save would get the others killed
    parsed = parse_train(command[at + 2 :])
    assert parsed.cluster.distributed
    assert (parsed.workdir, parsed.settings.data.num_workers) == (Path("a b"), 8)
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.+))?$", SCRIPT.read_text(), flags=re.MULTILINE))
    assert asked["ntasks-per-node"] == asked["gpus-per-node"]
    assert asked.keys() & {"gpus-per-task", "gres"} == set()
    assert asked["signal"].startswith("TERM@")  # for the processes; B:TERM would be for the script
    assert (asked["open-mode"], "requeue" in asked) == ("append", True)


@pytest.fixture
def manifests() -> dict[str, Any]:
    """Reads the manifests of deploy/kubernetes.yaml by kind."""
    found = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
    return {manifest["kind"]: manifest for manifest in found}


def test_the_pods_are_told_their_place(manifests: dict[str, Any]) -> None:
    job, service, claim = (manifests[kind] for kind in ("Job", "Service", "PersistentVolumeClaim"))
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["args"][0] == "train"
    last = job["spec"]["completions"] - 1
    parsed = parse_train([word.replace("$(JOB_COMPLETION_INDEX)", str(last)) for word in container["args"][1:]])
    assert job["spec"]["completionMode"] == "Indexed"
    assert job["spec"]["parallelism"] == job["spec"]["completions"] == parsed.cluster.num_processes
    assert (parsed.cluster.distributed, parsed.cluster.process_index) == (True, last)
    [port], [open_port] = service["spec"]["ports"], container["ports"]
    assert port["port"] == open_port["containerPort"]
    assert pod["subdomain"] == service["metadata"]["name"]
    coordinator = f"{job['metadata']['name']}-0.{service['metadata']['name']}:{port['port']}"
    assert parsed.cluster.coordinator == coordinator
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": job["metadata"]["name"]}
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert parsed.cluster.wait_minutes > 10
    assert claim["metadata"]["name"] in str(pod["volumes"])
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert parsed.workdir is not None
    assert str(parsed.workdir.parents[-2]) in mounted
    for split in ("train", "dev", "test"):
        assert str(getattr(parsed.settings.data, split)).startswith("tfds:/storage/")


def test_a_pod_that_was_preempted_costs_no_try(manifests: dict[str, Any]) -> None:
    spec = manifests["Job"]["spec"]
    pod = spec["template"]["spec"]
    disrupted, saved = spec["podFailurePolicy"]["rules"]
    assert disrupted == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    codes = {"containerName": pod["containers"][0]["name"], "operator": "In", "values": [LOST, SAVED_AFTER_SIGTERM]}
    assert saved == {"action": "Ignore", "onExitCodes": codes}
    assert (pod["restartPolicy"], spec["podReplacementPolicy"]) == (
        "Never",
        "Failed",
    )  # podFailurePolicy requires these
    assert pod["terminationGracePeriodSeconds"] >= 120
    assert pod["securityContext"]["runAsUser"] == 1000  # the user of the image


def page_commands() -> list[str]:
    """Lists the commands of docs/large-scale.md."""
    text = (ROOT / "docs/large-scale.md").read_text()
    blocks = re.findall(r"^```\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(blocks).replace("\\\n", " ").splitlines()


def test_the_pages_trainings_parse() -> None:
    text = (ROOT / "docs/large-scale.md").read_text()
    found = [re.match(r"(?:python main\.py|.* ds2_jax:cuda12) train (.*)", line) for line in page_commands()]
    trainings = [each[1] for each in found if each] + re.findall(r"`sbatch deploy/train\.slurm (.*?)`", text)
    [pack] = re.findall(r"^```\n(--data\.train .*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    assert len(trainings) == 6
    for words in map(shlex.split, trainings):
        parsed = parse_train(words)
        if parsed.config.stem == "librispeech":
            parsed = parse_train([*words, *shlex.split(pack.replace("\\\n", " "))])
            assert str(parsed.settings.data.test) == "tfds:datasets/librispeech-packed#test_clean"


def test_the_pages_other_commands_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    parse_only(monkeypatch)
    monkeypatch.chdir(ROOT)
    commands = [line for line in page_commands() if re.match(r"python main\.py (prepare|data)", line)]
    assert len(commands) == 4
    for command in commands:
        assert cli.main(shlex.split(command)[2:]) == 0, command
    [pack] = [shlex.split(command) for command in commands if " data pack " in command]
    assert name_splits(pack[4 : pack.index("--out")]).keys() == {"train", "dev", "test_clean", "test_other"}


def test_the_page_names_options_of_the_training(capsys: pytest.CaptureFixture[str]) -> None:
    named = set(re.findall(r"`(--[a-z][\w.-]*)", (ROOT / "docs/large-scale.md").read_text()))
    assert len(named) > 5
    with pytest.raises(SystemExit):
        parse_train(["--config", "configs/librispeech.py", "--help"])
    assert named <= set(re.findall(r"--[a-z][\w.-]*", capsys.readouterr().out))


def test_the_page_names_files_that_are_there() -> None:
    text = (ROOT / "docs/large-scale.md").read_text()
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert (ROOT / "docs" / link).is_file(), link
    for path in re.findall(r"`((?:deploy|configs)/[\w.-]+)`", text):
        assert (ROOT / path).is_file(), path


def test_the_page_on_serving_names_options_metrics_and_settings_that_exist(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs/serving-operations.md").read_text()
    with pytest.raises(SystemExit):
        cli.parse("serve", ["--help"])
    options = set(re.findall(r"--[a-z][\w-]*", capsys.readouterr().out))
    named = set(re.findall(r"`(--[a-z][\w-]*)", text)) - {"--help"}
    assert len(named) > 15
    assert named <= options | {"--engine"}
    for name in {*re.findall(r"`(ds2_\w+)", text)}:
        assert f"# TYPE {name.removesuffix('_total')}" in Metrics().text().decode(), name
    [settings] = re.findall(r"^```toml\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "serve.toml").write_text(settings)
    cli.parse("serve", ["--settings", str(tmp_path / "serve.toml")])
    assert set(read_models(tmp_path / "serve.toml", ModelSettings(Path(), None, GREEDY))) == {"letters", "names"}
    defaults = dict(re.findall(r"^\| `--([\w-]+)` \| ([\d,]+) \|", text, flags=re.MULTILINE))
    assert len(defaults) == 6
    for name, value in defaults.items():
        assert getattr(Limits(), name.replace("-", "_")) == float(value.replace(",", ""))
