"""The ``domain-gap`` command: parse, call, talk; no maths."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from ..statistics.table import METRICS
from .terminal import bar, path, run, say, version

if TYPE_CHECKING:
    from ..features.cache import FeatureCache

SOURCES = "a folder, zip, tar shards, file list, glob or saved Hugging Face dataset"

EXTRACTORS = (
    "efficientnet-lite0, efficientnet-lite2, inception[:clean|:torchmetrics], dinov2[:vitl14], clip, random-conv or "
    "timm:MODEL; each with /LAYER"
)

app = typer.Typer(
    name="domain-gap",
    help="Measure how far an image set is from real images. Add --debug to any command for a traceback.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.callback()(version)


@app.command()
def compare(
    synthetic: Annotated[str, typer.Argument(help=f"The images under test: {SOURCES}.")],
    real: Annotated[str, typer.Argument(help="Real images to compare with; keep them out of style learning.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for report.json, report.md and report.html.", parser=path)
    ],
    before: Annotated[str | None, typer.Option(help="The same images before stylising: adds the gap closed.")] = None,
    floor: Annotated[str | None, typer.Option(help="The style photos: their distance to REAL is the floor.")] = None,
    crops: Annotated[
        int, typer.Option(min=0, help="Cut this many square crops from every photo of REAL and of the floor.")
    ] = 0,
    extractor: Annotated[
        str,
        typer.Option(help=f"{EXTRACTORS}."),
    ] = "efficientnet-lite0",
    weights: Annotated[
        Path | None, typer.Option(help="File or folder with the weights, instead of a download.", parser=path)
    ] = None,
    metric: Annotated[str, typer.Option(help=f"Comma-separated: {', '.join(METRICS)}.")] = "kid,fid",
    permutations: Annotated[int, typer.Option(min=0, help="Deals of the permutation test; 0: no test.")] = 199,
    slice_: Annotated[
        list[str] | None, typer.Option("--slice", help="Also by 'label' or a column of metadata.jsonl; repeatable.")
    ] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Also by layers of the network, low to high.")] = False,
    explain: Annotated[int, typer.Option(min=0, help="Name this many images on either side that make the gap.")] = 12,
    precision: Annotated[str, typer.Option(help="float32, or bfloat16: faster where the processor knows it.")] = (
        "float32"
    ),
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    batch_size: Annotated[int, typer.Option(min=1, help="Images per forward pass: changes rounding only.")] = 32,
    cache: Annotated[bool, typer.Option(help="Keep features for the next run: domain-gap cache.")] = True,
    seed: Annotated[int, typer.Option(help="Decides crops, splits and permutations.")] = 0,
) -> None:
    """Compare an image set with real images and write a report; prints its Markdown.

    Example: domain-gap compare stylised photos/judge --before patterns --floor photos/learn --crops 16 -o report
    """
    from ..comparison.compare import compare as compare_sets
    from ..report import to_markdown, write_report

    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file. Name a folder for the report.")
    out.mkdir(parents=True, exist_ok=True)  # before the work that it is for
    with _cache(cache) as held, bar() as progress:
        report = compare_sets(
            synthetic,
            real,
            before=before,
            floor=floor,
            crops=crops,
            metrics=tuple(name.strip() for name in metric.split(",") if name.strip()),
            permutations=permutations,
            slices=tuple(slice_ or ()),
            profile=profile,
            explained=explain,
            extractor=extractor,
            weights=weights,
            precision=precision,
            device=device,
            batch_size=batch_size,
            cache=held,
            seed=seed,
            progress=progress,
        )
    write_report(report, out)
    print(to_markdown(report))
    say(f"report: {out / 'report.html'}")


@app.command()
def gate(
    report: Annotated[
        Path, typer.Argument(help="report.json of domain-gap compare, or the folder that holds it.", parser=path)
    ],
    budget: Annotated[Path | None, typer.Option(help="TOML file of budgets.", parser=path)] = None,
    max_: Annotated[
        list[str] | None, typer.Option("--max", help="At most: kid=0.05, slices.kid=0.08, change.kid=0; repeatable.")
    ] = None,
    min_: Annotated[
        list[str] | None, typer.Option("--min", help="At least: closed.kid=0.3, kept.label-probe=0.95; repeatable.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Earlier report.json against the same real images.", parser=path)
    ] = None,
    max_increase: Annotated[
        list[str] | None, typer.Option(help="At most so much above the baseline: kid=0.002; repeatable.")
    ] = None,
    max_decrease: Annotated[
        list[str] | None, typer.Option(help="At most so much below the baseline: precision=0.05; repeatable.")
    ] = None,
    value_only: Annotated[
        list[str] | None, typer.Option(help="Decide this metric without an error bar: fid; repeatable.")
    ] = None,
    confidence: Annotated[float | None, typer.Option(help="One-sided, of every verdict; else the file's or 0.95.")] = (
        None
    ),
    junit: Annotated[Path | None, typer.Option(help="JUnit XML file to write.", parser=path)] = None,
    scalars: Annotated[
        Path | None, typer.Option(help="metrics.json to write, for DVC and other trackers.", parser=path)
    ] = None,
    github: Annotated[
        bool, typer.Option("--github", help="Print annotations, and append to $GITHUB_STEP_SUMMARY.")
    ] = False,
) -> None:
    """Decide whether a report keeps its budgets; exit code 0 pass, 1 fail, 3 inconclusive (too few images to tell).

    Example: domain-gap gate report --budget budgets.toml --max kid=0.05 --baseline main/report.json --junit junit.xml
    """
    from ..budget_gate.budgets import combine, from_flags, read_budgets
    from ..budget_gate.gate import gate as decide
    from ..report.junit import write_junit
    from ..report.reading import read_report
    from ..report.scalars import write_scalars
    from ..report.step_summary import append_summary, gate_markdown, to_annotations

    flags = from_flags(
        maximum=max_ or (), minimum=min_ or (), max_increase=max_increase or (), max_decrease=max_decrease or ()
    )
    budgets = combine(read_budgets(budget) if budget else None, flags, confidence, value_only or ())
    inputs = {"the report": report, "--budget": budget, "--baseline": baseline}
    _check_distinct({"--junit": junit, "--scalars": scalars}, inputs)
    found = read_report(report)
    result = decide(found, budgets, baseline=read_report(baseline) if baseline else None)
    if junit:
        write_junit(result, junit)
    if scalars:
        write_scalars(found, scalars, result)
    print(gate_markdown(result, found))
    if github:
        print(*to_annotations(result, str(budget) if budget else None), sep="\n")
        summary = os.environ.get("GITHUB_STEP_SUMMARY")
        if summary:
            append_summary(result, summary, found)
    raise typer.Exit(result.exit_code)


@app.command()
def stats(
    source: Annotated[str, typer.Argument(help=f"Images: {SOURCES}.")],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help=".safetensors: features; .npz: mean and covariance, as pytorch-fid has.", parser=path
        ),
    ],
    crops: Annotated[int, typer.Option(min=0, help="Cut this many square crops from every image.")] = 0,
    size: Annotated[int, typer.Option(min=8, help="Side of the crops.")] = 256,
    extractor: Annotated[str, typer.Option(help="As for domain-gap compare.")] = "efficientnet-lite0",
    weights: Annotated[
        Path | None, typer.Option(help="File or folder with the weights, instead of a download.", parser=path)
    ] = None,
    precision: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    batch_size: Annotated[int, typer.Option(min=1, help="Images per forward pass: changes rounding only.")] = 32,
    cache: Annotated[bool, typer.Option(help="Keep features for the next run.")] = True,
    seed: Annotated[int, typer.Option(help="Decides crops.")] = 0,
) -> None:
    """Extract features once, to compare with later: a reference set that need not travel as images.

    Example: domain-gap stats photos/judge --crops 16 -o judge.safetensors
    """
    from ..extractors import load_extractor
    from ..features.extraction import extract
    from ..features.statistics_file import write_statistics
    from ..image_sets.open import open_images
    from ..statistics.frechet_sources import mean_and_covariance

    if out.suffix not in (".safetensors", ".npz"):
        raise InputError(f"{out}: expected a name ending in .safetensors (features) or .npz (mean and covariance).")
    if not out.parent.is_dir():
        raise InputError(f"{out.parent}: no such folder. Make it first: mkdir -p {out.parent}")
    network = load_extractor(extractor, weights=weights, device=device, precision=precision)
    images = open_images(source)
    measured = images.crops(crops, size, seed) if crops else images
    with _cache(cache) as held, bar() as progress:
        features = extract(measured, network, batch_size=batch_size, cache=held, progress=progress)
    if out.suffix == ".npz":
        write_statistics(out, *mean_and_covariance(features), images=len(features), skipped=features.skipped)
    else:
        features.save(out)
    for line in (*features.notes, *(f"skipped {key}: {reason}" for key, reason in features.skipped)):
        say(line)
    if features.skipped:
        say(f"{len(features.skipped)} of {features.photos + len(features.skipped)} images could not be read")
    say(f"{out}: {len(features)} images, {features.features.shape[1]} features each")


@app.command()
def frechet(
    a: Annotated[str, typer.Argument(help="Images, features (.safetensors, .npy) or statistics (.npz: mu, sigma).")],
    b: Annotated[str, typer.Argument(help="The same.")],
    extractor: Annotated[str, typer.Option(help="The network behind the statistics.")] = "inception",
    weights: Annotated[
        Path | None, typer.Option(help="File or folder with the weights, instead of a download.", parser=path)
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    batch_size: Annotated[int, typer.Option(min=1, help="Images per forward pass: changes rounding only.")] = 32,
    cache: Annotated[bool, typer.Option(help="Keep features for the next run.")] = True,
) -> None:
    """Print the Fréchet distance (FID) of two sources, also to published statistics.

    Example: domain-gap frechet samples cifar10-statistics.npz --extractor inception
    """
    from ..extractors import load_extractor
    from ..features.feature_source import is_feature_file
    from ..statistics.frechet_sources import frechet_of_sources

    ready = is_feature_file(a) and is_feature_file(b)
    network = None if ready else load_extractor(extractor, weights=weights, device=device)
    with _cache(cache) as held:
        print(frechet_of_sources(a, b, network, batch_size=batch_size, cache=held, tell=say))


@app.command()
def cache(
    what: Annotated[str, typer.Argument(help="info, prune or clear.")] = "info",
    max_size: Annotated[float | None, typer.Option(min=0, help="prune: down to this many GB; default 2.")] = None,
) -> None:
    """Show, shrink or empty the feature cache ($REVERSE_STYLIZE_CACHE, else ~/.cache/reverse-stylize/features).

    Example: domain-gap cache prune --max-size 1
    """
    from ..features.cache import FeatureCache
    from ..registry import unknown

    if what not in ("info", "prune", "clear"):
        raise unknown("action", what, ("info", "prune", "clear"))
    if max_size is not None and what != "prune":
        raise InputError(f"--max-size goes with prune, not with {what}: domain-gap cache prune --max-size {max_size:g}")
    held = FeatureCache()
    if what == "prune":
        say(f"removed {held.prune(None if max_size is None else int(max_size * 1e9))} features")
    elif what == "clear":
        held.clear()
    found = held.stats()
    print(
        f"{found.path}: {found.entries} features, {found.size / 1e6:.1f} MB of at most {found.max_bytes / 1e6:.0f} MB"
    )
    held.close()


@app.command()
def audit(
    result: Annotated[Path, typer.Argument(help="Folder of the images under test.", parser=path)],
    real: Annotated[
        Path, typer.Argument(help="Folder of real photos that may have been copied: the style photos.", parser=path)
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for audit.json, audit.md and audit.html.", parser=path)
    ] = None,
    held_out: Annotated[
        Path | None,
        typer.Option(
            help="Other real photos, to set the threshold; else REAL's own are held out in turn.", parser=path
        ),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Look at this many results, spread evenly over the set.")] = 300,
    patches: Annotated[int, typer.Option(min=1, help="Patches drawn per image and patch size.")] = 8,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    seed: Annotated[int, typer.Option(help="Decides patches and crops.")] = 0,
) -> None:
    """Measure which share of an image set's patches are near-verbatim copies of real photos; prints the Markdown.

    Example: domain-gap audit stylised photos/learn --held-out photos/judge -o audit
    """
    from ..copy_audit.audit import audit as audit_set
    from ..report import audit_to_markdown, write_audit

    if out is not None and out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file. Name a folder for the audit.")
    with bar() as progress:
        report = audit_set(
            result, real, held_out=held_out, images=images, patches=patches, seed=seed, device=device, progress=progress
        )
    print(audit_to_markdown(report))
    if out is not None:
        write_audit(report, out)
        say(f"audit: {out / 'audit.html'}")


def _check_distinct(outputs: Mapping[str, Path | None], inputs: Mapping[str, Path | None]) -> None:
    """Raises InputError if two files that are written are one, or one of them is an input."""
    taken = {(one / "report.json" if one.is_dir() else one).resolve(): name for name, one in inputs.items() if one}
    for name, one in outputs.items():
        if one is not None and taken.setdefault(one.resolve(), name) != name:
            raise InputError(f"{name} {one}: is also {taken[one.resolve()]}. Name another file.")


@contextmanager
def _cache(wanted: bool) -> Iterator[FeatureCache | None]:
    """The feature cache, or None; what is wrong with it is said once and ends nothing, because it costs time only."""
    if not wanted:
        yield None
        return
    from ..features.cache import FeatureCache

    try:
        held = FeatureCache()
    except InputError as error:
        say(f"going on without a cache: {error}")
        yield None
        return
    with held:
        yield held
        if held.damaged:
            say(f"{held.damaged} cached features were damaged and computed again")
        if held.fault:
            say(f"went on without the cache {held.path} ({held.fault}): {held.unsaved} features were not saved")
        elif held.unsaved:
            say(f"{held.unsaved} features could not be saved in {held.path}")


def main() -> None:
    """Entry point of the ``domain-gap`` command."""
    run(app, "domain-gap")
