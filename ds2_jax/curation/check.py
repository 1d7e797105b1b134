"""Runs the command `data check`: checks the recordings and transcripts of manifests before training."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ds2_jax.config import Config
from ds2_jax.curation import stats
from ds2_jax.curation.findings import Checked, Finding, Level, Role, find, write_findings
from ds2_jax.curation.recordings import measure_all
from ds2_jax.data.manifest import (
    NUM_EXAMPLES,
    Problem,
    Utterance,
)
from ds2_jax.data.splits import AUDIO_REASONS, find_problems, manifests_of, read_utterances
from ds2_jax.data.usable import too_few_frames, usable_utterances, wrong_duration
from ds2_jax.runs.overrides import DataSettings, FeatureSettings, ModelSettings, read_settings
from ds2_jax.system.errors import InputError, shorten
from ds2_jax.system.program import command
from ds2_jax.text.alphabet import Alphabet
from ds2_jax.text.units import CHARACTERS

UNCHANGED_DATA, UNCHANGED_FEATURES, UNCHANGED_MODEL = DataSettings(), FeatureSettings(), ModelSettings()
DETAIL_LENGTH = 200
"""The report cuts the detail of an example after this many characters."""
CHARACTERS_A_LINE = 10
ROLES: tuple[Role, ...] = ("train", "dev", "test")
LEVELS: tuple[Level, ...] = ("error", "warning", "remark")
MANIFESTS = tyro.conf.arg(metavar="[MANIFEST ...]", help_behavior_hint="(default: those of the settings)")


def check(
    manifests: Annotated[tuple[Path, ...], tyro.conf.Positional, MANIFESTS] = (),
    config: Path | None = None,
    run: Path | None = None,
    test: Path | None = None,
    data: DataSettings = UNCHANGED_DATA,
    features: FeatureSettings = UNCHANGED_FEATURES,
    model: ModelSettings = UNCHANGED_MODEL,
    findings: Path | None = None,
    picture: Path | None = None,
    num_workers: int = 0,
) -> int:
    """Decodes every recording and reports errors (they stop training), warnings (to look at) and remarks (to know).

    Without manifests and without --test, the train, dev and test splits of the settings are checked. Manifests that you
    name are checked as training and dev splits: an utterance that cannot be used is an error unless
    data.on_bad_utterance is skip. If two manifests share a recording, a text or a speaker, the later manifest gets the
    finding.

    Args:
        manifests: manifests in any format that training reads, and tfds:NAME#SPLIT.
        config: configuration file or name of a recipe, for its sample rate, alphabet, limits and model. Default: the
            default settings.
        run: folder of a training run, instead of --config.
        test: manifest of a test split, checked after the others. Only its audio must be readable and as long as
            stated; other problems are warnings.
        data: settings that override those of --config or --run.
        features: settings that override those of --config or --run.
        model: settings that override those of --config or --run.
        findings: file for all findings, one JSON object a line; the report shows three examples of each kind.
        picture: PNG file for histograms of durations and speech rates.
        num_workers: recordings decoded at once; 0 means one per core.

    Returns:
        0 if training can start with these settings, else 1.

    Raises:
        InputError: the settings or a manifest cannot be read, there is no manifest, one is named twice, or a file
            cannot be written.
    """
    settings, source = read_settings(config, run, data=data, features=features, model=model)
    alphabet = Alphabet.of(settings.data)
    roles = choose_manifests(manifests, test, settings)
    rows = {path: read_utterances(path) for path in roles}
    print("\n".join(describe_settings(settings, source)), flush=True)
    started = time.perf_counter()
    checked = [
        check_manifest(path, roles[path], utterances, settings, alphabet, num_workers)
        for path, utterances in rows.items()
    ]
    elapsed = time.perf_counter() - started
    unusable: Literal["error", "warning"] = "warning" if settings.data.on_bad_utterance == "skip" else "error"
    found = find(checked, settings.features.sample_rate, unusable)
    print("\n".join(describe(checked, found)), flush=True)
    if findings is not None:
        write_findings(findings, found)
        print(f"\nall findings: {findings}")
    if picture is not None:
        from ds2_jax.curation.picture import draw_histograms  # loads Matplotlib

        draw_histograms(picture, checked, settings.data)
    hours = sum(utterance.duration for each in checked for utterance in each.utterances) / 3600
    print(f"\n{hours:.2f} hours checked in {elapsed:.1f} s ({hours * 3600 / max(elapsed, 1e-9):,.0f} times real time)")
    stopping = [reason for each in checked if (reason := stops_training(each, settings, alphabet))]
    counts = Counter(finding.level for finding in found)
    print(f"{counts['error']:,} errors, {counts['warning']:,} warnings, {counts['remark']:,} remarks")
    can = "training can start with these settings"
    if config is None and run is None:
        can = "training can start with the default settings; for those of a recipe, name it: --config RECIPE"
    print("\n".join(f"training cannot start: {reason}" for reason in stopping) or can)
    return 1 if stopping else 0


def choose_manifests(manifests: Sequence[Path], test: Path | None, settings: Config) -> dict[Path, Role]:
    """Lists the manifests to check with their roles.

    Raises:
        InputError: there is no manifest, or one is named twice.
    """
    chosen: list[tuple[Path, Role]] = [(path, "train") for path in manifests]
    if not manifests and test is None:
        named = manifests_of(settings.data)
        if "train" not in named:
            raise InputError("MANIFEST must be given if the settings have no data.train, got none. Add it.")
        chosen = [(named[role], role) for role in ROLES if role in named]
        if settings.data.corpus is not None and not named["train"].exists():
            corpus, root = settings.data.corpus, settings.data.root
            advice = f"Prepare it: {command('prepare', corpus, '--root', root)}."
            raise InputError(f"{root / corpus} must hold the corpus {corpus}, got no train.jsonl in it. {advice}")
    if test is not None:
        chosen.append((test, "test"))
    stats.require_distinct([path for path, _ in chosen])
    return dict(chosen)


def check_manifest(
    path: Path, role: Role, utterances: Sequence[Utterance], config: Config, alphabet: Alphabet, num_workers: int
) -> Checked:
    """Measures the recordings of a manifest and finds the problems that training would find in this split."""
    features = config.features
    problems = find_problems(utterances, config, alphabet, prune=True)
    unusable = {problem.id: problem.reason for problem in problems}
    recordings = measure_all(utterances, features.sample_rate, title=path.name, num_workers=num_workers)
    for utterance, recording in zip(utterances, recordings, strict=True):
        if unusable.get(utterance.id) in AUDIO_REASONS:
            continue
        if isinstance(recording, Problem):
            problems.append(recording)
            continue
        sizes = recording.num_samples, features.sample_rate, features.hop_length
        problem = wrong_duration(utterance, *sizes)
        if problem is None and role == "train" and utterance.id not in unusable:
            labels = alphabet.encode(utterance.transcript)
            reduction = config.model.time_reduction
            problem = too_few_frames(utterance, labels, recording.num_samples, features.hop_length, reduction)
        if problem is not None:
            if problem.reason == "wrong duration":  # the cause of these two, if the utterance has one of them
                effects = ("duration outside the limits", "too few output frames")
                problems = [each for each in problems if (each.id, each.reason in effects) != (problem.id, True)]
            problems.append(problem)
    transcripts = [alphabet.normalise(utterance.transcript) for utterance in utterances]
    return Checked(path, role, utterances, recordings, problems, transcripts)


def stops_training(checked: Checked, config: Config, alphabet: Alphabet) -> str:
    """Returns the error that would stop training at a manifest; "" if there is none."""
    problems = [problem for problem in checked.problems if checked.leaves_out(problem)]
    on_bad = config.data.on_bad_utterance
    try:
        usable_utterances(checked.utterances, problems, alphabet, on_bad_utterance=on_bad, manifest=checked.path)
    except InputError as error:
        return str(error)
    return ""


def describe_settings(config: Config, source: str) -> list[str]:
    """Describes the settings of the check in lines of text."""
    features, data = config.features, config.data
    milliseconds = 1000 * features.window_stride * config.model.time_reduction
    pieces = "" if data.units == CHARACTERS else f" in {len(Alphabet.of(data).units)} pieces"
    removed = f"; replaced by spaces, or kept inside words: {data.remove!r}" if data.remove else ""
    return [
        f"settings: {source}",
        f"  {features.sample_rate} Hz, {data.min_duration:g} to {data.max_duration:g} s, output frames of "
        f"{milliseconds:g} ms, data.on_bad_utterance {data.on_bad_utterance}",
        f"  alphabet {data.alphabet!r}{pieces}, case: {data.case}{removed}",
        "",
    ]


def describe(checked: Sequence[Checked], findings: Sequence[Finding]) -> Iterator[str]:
    """Yields the table, the characters and the findings as text."""
    names = stats.column_names([each.path for each in checked])
    columns = {}
    for name, each in zip(names, checked, strict=True):
        # The space after each name distinguishes these rows from those of the durations.
        rates = {f"{row} ": value for row, value in stats.quantiles(each.rates()).items()}
        columns[name] = stats.describe(each.utterances) | {"characters a second": ""} | rates
    yield stats.table(columns)
    counts = Counter(character for each in checked for text in each.transcripts for character in text)
    shown = [f"{character!r} {count:,}" for character, count in counts.most_common()]
    yield "\ncharacters, normalised:"
    yield from (
        "  " + "  ".join(row)
        for row in [shown[i : i + CHARACTERS_A_LINE] for i in range(0, len(shown), CHARACTERS_A_LINE)]
    )
    kinds: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in findings:
        kinds.setdefault((finding.manifest, finding.level, finding.kind), []).append(finding)
    for name, each in zip(names, checked, strict=True):
        mine = {key: found for key, found in kinds.items() if key[0] == str(each.path)}
        yield f"\n{name}, as a {each.role} split:" + ("" if mine else " nothing found")
        for level in LEVELS:
            for (_, its_level, kind), found in mine.items():
                if its_level == level:
                    yield from describe_kind(level, kind, found)


def describe_kind(level: str, kind: str, findings: Sequence[Finding]) -> Iterator[str]:
    """Yields the number of findings of a kind, and examples."""
    yield f"  {level}: {kind}: {len(findings):,}"
    for finding in findings[:NUM_EXAMPLES]:
        yield f"    {shorten(finding.where(), DETAIL_LENGTH)}: {shorten(finding.detail, DETAIL_LENGTH)}"
