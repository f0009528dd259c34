"""The ``stylize`` command: parse, call, talk; no maths."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metrics.commands.terminal import bar, follow, path, run, say, version
from metrics.errors import InputError
from metrics.registry import unknown

from ..shipped import shipped
from ..styles import DEFAULT_PRESET, LEARNT, PRESETS, chosen
from ..styles.methods import stages, style_method
from .diffusion import COMMANDS as diffusion_commands
from .progress import finish
from .recipe import app as recipe

if TYPE_CHECKING:
    from ..styles.bank import StyleBank

app = typer.Typer(
    name="stylize",
    help="Give synthetic images the look of real photos. Add --debug to any command for a traceback.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Workers = Annotated[int, typer.Option(min=1, help="Processes of one thread each; never changes a pixel.")]
Format = Annotated[str, typer.Option(help="png, jpeg or webp.")]
Quality = Annotated[int, typer.Option(help="1 to 100, for jpeg and webp.")]
Seed = Annotated[int, typer.Option(help="Decides every random draw.")]
MaxErrors = Annotated[int, typer.Option(min=0, help="Unreadable images to skip and list before stopping.")]
Options = Annotated[list[str] | None, typer.Option(help="NAME=VALUE of the family, e.g. activation=holomorphic.")]
CORES = os.cpu_count() or 1
app.add_typer(recipe, name="recipe")
app.callback()(version)


@app.command()
def render(
    family: Annotated[str, typer.Argument(help="Pattern family, or a JSON file from `stylize patterns`.")],
    out: Annotated[Path, typer.Argument(help="Folder to fill: one subfolder per class.", parser=path)],
    classes: Annotated[int | None, typer.Option(help="Number of classes; 10, or all of a JSON file.")] = None,
    per_class: Annotated[int, typer.Option(help="Images per class.")] = 30,
    size: Annotated[int, typer.Option(help="Side in pixels.")] = 256,
    seed: Seed = 0,
    option: Options = None,
    workers: Workers = CORES,
    format: Format = "png",
    quality: Quality = 90,
    device: Annotated[str, typer.Option(help="cpu or cuda: the same images, drawn a shard at a time.")] = "cpu",
) -> None:
    """Render a labelled pattern dataset.

    Example: stylize render neural-fractal patterns --classes 10 --per-class 30
    """
    from ..patterns.health import health
    from ..writing.render import iter_render

    options: dict[str, Any] = {"classes": classes, "per_class": per_class, "size": size, "seed": seed}
    options |= {"workers": workers, "format": format, "quality": quality, "options": _options(option), "device": device}
    finish(iter_render(family, out, **options), "render", out)
    for line in health(out).lines():
        say(line)


@app.command()
def patterns(
    family: Annotated[str | None, typer.Argument(help="Show parameters of this family.")] = None,
    class_id: Annotated[int | None, typer.Option("--class", min=0, help="One class, by its number.")] = None,
    classes: Annotated[int | None, typer.Option(min=1, help="The first so many classes.")] = None,
    seed: Seed = 0,
    option: Options = None,
) -> None:
    """List the pattern families, or print classes of one as JSON that `stylize render` takes back.

    Example: stylize patterns neural-fractal --class 17 > class17.json
    """
    from ..patterns import check_options, family_summary, known_families, load_family
    from ..patterns.class_json import to_json

    if family is None:
        width = max(map(len, known_families()))
        print("\n".join(f"{name:<{width}}  {family_summary(name)}" for name in known_families()))
        return
    if class_id is not None and classes is not None:
        raise InputError("got both --class and --classes. Expected one of the two.")
    wanted = range(classes) if classes is not None else [class_id or 0]
    options = _options(option)
    check_options(family, options)
    print(to_json(family, [load_family(family).sample_class(seed, number, **options) for number in wanted]), end="")


@app.command()
def learn(
    real: Annotated[Path, typer.Argument(help="Folder of real photos.", parser=path)],
    style: Annotated[Path, typer.Argument(help="Style file to write, *.safetensors.", parser=path)],
    method: Annotated[
        list[str] | None, typer.Option(help="Method to learn for, may be repeated; by default the usual ones.")
    ] = None,
    crops: Annotated[int, typer.Option(help="Crops per photo; each is one style.")] = 8,
    size: Annotated[int, typer.Option(help="Side of a crop; best the side of the images to stylise.")] = 256,
    seed: Seed = 0,
    max_errors: MaxErrors = 100,
    allow: Annotated[
        str | None, typer.Option(help="Refuse photos under other licences or none, e.g. CC0-1.0,CC-BY-4.0 (SPDX).")
    ] = None,
) -> None:
    """Learn a style bank from real photos.

    Example: stylize learn photos style.safetensors
    """
    if style.suffix != ".safetensors":
        raise InputError(
            f"{style}: expected a file name ending in .safetensors, e.g. {style.with_suffix('.safetensors')}."
        )
    from metrics.image_sets.ledger import restricted

    from ..styles.bank import learn as learn_bank

    _warn_copying(method or [])
    options: dict[str, Any] = {"crops": crops, "size": size, "seed": seed, "max_errors": max_errors}
    bank = learn_bank(real, methods=method or LEARNT, allow=() if allow is None else allow.split(","), **options)
    for line in (
        *(f"skipped {key}: {reason}" for key, reason in bank.header["skipped"].items()),
        *bank.header["notes"],
        *restricted(bank.header["licences"]),
    ):
        say(line)
    _warn_unlicensed(bank.header["unlicensed"])
    bank.save(style)
    photos = len({source["photo"] for source in bank.sources})
    say(f"{len(bank)} styles from {photos} photos, {style.stat().st_size / 1e6:.1f} MB")
    print(style)


@app.command()
def apply(
    style: Annotated[Path, typer.Argument(help="Style file from `stylize learn`.", parser=path)],
    synthetic: Annotated[Path, typer.Argument(help="Folder, zip, tar or list of synthetic images.", parser=path)],
    out: Annotated[Path, typer.Argument(help="Folder to fill; mirrors the input's tree.", parser=path)],
    method: Annotated[
        str | None, typer.Option(help="`stylize styles` lists them; colour+texture composes. Default: a preset.")
    ] = None,
    strength: Annotated[
        float | None, typer.Option(help="0 (unchanged) to 1 (all of the style's statistics), the default.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help=f"{', '.join(PRESETS)}; default {DEFAULT_PRESET}.")] = None,
    assignment: Annotated[
        str, typer.Option(help="Which image gets which style: balanced (optimal transport) or random.")
    ] = "balanced",
    network: Annotated[
        Path | None, typer.Option(help="Weights of the method network, from `stylize train`.", parser=path)
    ] = None,
    workers: Workers = CORES,
    format: Format = "png",
    quality: Quality = 90,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    max_errors: MaxErrors = 100,
) -> None:
    """Stylise an image set. Interrupted? The same command continues.

    Example: stylize apply style.safetensors patterns stylised
    """
    from ..styles.bank import StyleBank
    from ..writing.apply import iter_apply

    method, strength = _chosen(method, strength, preset)
    bank = StyleBank.load(style)
    header = bank.header
    _warn_unlicensed(header["unlicensed"])
    _warn_copying([method])
    if network is None and _is_trained(method):
        _warn_untrained(header)
    _warn_strange(bank, method, network)
    options: dict[str, Any] = {
        "method": method,
        "strength": strength,
        "assignment": assignment,
        "network": network,
        "workers": workers,
    }
    options |= {"format": format, "quality": quality, "device": device, "max_errors": max_errors}
    finish(iter_apply(style, synthetic, out, **options), "stylise", out)


@app.command()
def styles() -> None:
    """List the style methods with what they were measured to do, and the presets.

    Example: stylize styles
    """
    from ..styles.leaderboard import LEGEND, table

    print(table())
    say(LEGEND)


@app.command()
def train(
    real: Annotated[Path, typer.Argument(help="Folder of real photos.", parser=path)],
    synthetic: Annotated[Path, typer.Argument(help="Folder of synthetic images.", parser=path)],
    network: Annotated[Path, typer.Argument(help="Weight file to write, *.safetensors.", parser=path)],
    steps: Annotated[int, typer.Option(help="Steps in all.")] = 6000,
    minutes: Annotated[float, typer.Option(help="Stop after so long; the same command continues.")] = float("inf"),
    size: Annotated[int, typer.Option(help="Side of the windows, a multiple of 8.")] = 128,
    batch: Annotated[int, typer.Option(help="Windows per step.")] = 4,
    seed: Seed = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    max_errors: MaxErrors = 100,
) -> None:
    """Train the network of the style method `network` on your own photos and images. Interrupted? Repeat the command.

    Example: stylize train photos patterns network.safetensors --minutes 30
    """
    from ..training.train import iter_train

    options: dict[str, Any] = {"steps": steps, "minutes": minutes, "size": size, "batch": batch, "seed": seed}
    options |= {"max_errors": max_errors}
    unfinished = False
    for step in follow(iter_train(real, synthetic, network, device=device, **options), "train"):
        for line in step.notes:
            say(line)
        if step.done % 100 == 0:
            say(f"step {step.done}: " + ", ".join(f"{name} {value:.3f}" for name, value in step.losses.items()))
        unfinished = step.done < step.total
    if unfinished:
        say(f"stopped after {minutes:g} minutes; the same command continues")
    print(network)


@app.command()
def export(
    out: Annotated[Path, typer.Argument(help="File to write, *.onnx.", parser=path)],
    network: Annotated[
        Path | None, typer.Option(help="From `stylize train`; default: the one that comes along.", parser=path)
    ] = None,
) -> None:
    """Export the network of the style method `network` as ONNX.

    Example: stylize export stylizer.onnx
    """
    from ..styles.methods.network import SHIPPED
    from ..training.export_onnx import export_onnx

    export_onnx(out, network or SHIPPED)
    print(out)


@app.command()
def tune(
    real: Annotated[
        Path, typer.Argument(help="Folder of photos: learn/, tune/ and judge/, or one that is split here.", parser=path)
    ],
    synthetic: Annotated[Path, typer.Argument(help="Folder of synthetic images.", parser=path)],
    out: Annotated[Path, typer.Argument(help="Folder of the study.", parser=path)],
    trials: Annotated[int, typer.Option(help="Trials in all, those of earlier runs included.")] = 40,
    images: Annotated[int, typer.Option(help="Contents that every trial stylises.")] = 100,
    method: Annotated[
        list[str] | None, typer.Option(help="Method to choose from, may be repeated; by default the fast ones.")
    ] = None,
    structure: Annotated[float, typer.Option(help="Least mean gradient correlation with the content.")] = 0.8,
    labels: Annotated[float, typer.Option(help="Least label probe: accuracy after over accuracy before.")] = 0.95,
    copies: Annotated[float, typer.Option(help="Largest share of copied patches.")] = 0.05,
    extractor: Annotated[str, typer.Option(help="Network of the search.")] = "efficientnet-lite0",
    judge: Annotated[bool, typer.Option(help="Close the study: measure the winner by judge/ photos.")] = False,
    judge_extractor: Annotated[str, typer.Option(help="Network that the search must not use.")] = "efficientnet-lite2",
    size: Annotated[int, typer.Option(help="Side of a style crop; best that of the images.")] = 256,
    seed: Seed = 0,
    workers: Workers = CORES,
    max_errors: MaxErrors = 100,
) -> None:
    """Search for the method and strength that close most of the gap within a budget. Interrupted? Repeat the command.

    Example: stylize tune photos patterns study --trials 40, then once: stylize tune photos patterns study --judge
    """
    from metrics.report import to_markdown

    from ..styles import TUNED
    from ..tuning.report import command, read_study, write_page
    from ..tuning.report import judge as judge_winner
    from ..tuning.search import iter_tune
    from ..tuning.study import Constraints, best

    options: dict[str, Any] = {"trials": trials, "images": images, "methods": method or TUNED, "extractor": extractor}
    options |= {"budget": Constraints(structure, labels, copies), "size": size, "seed": seed}
    if judge:
        with bar("judge") as progress:
            judge_options: dict[str, Any] = {"extractor": judge_extractor, "workers": workers, "progress": progress}
            reports = judge_winner(real, synthetic, out, **judge_options)
        for report in reports:
            print(to_markdown(report))
    else:
        for trial in follow(iter_tune(real, synthetic, out, **options, max_errors=max_errors), "tune"):
            for line in trial.notes:
                say(line)
            say(trial.line())
    page = write_page(out, synthetic)
    found, budget = read_study(out)
    print(command(best(found, budget), out, synthetic))
    say(f"page: {page}")


@app.command()
def demo(
    out: Annotated[Path, typer.Argument(help="Folder to fill.", parser=path)],
    photos: Annotated[
        Path | None,
        typer.Option(help="Folder with learn/ and judge/ subfolders of photos; those that come along.", parser=path),
    ] = None,
    per_class: Annotated[int, typer.Option(min=1, help="Fractals of each of the ten classes.")] = 30,
    extractor: Annotated[str, typer.Option(help="Network that measures the gap.")] = "efficientnet-lite0",
    workers: Workers = CORES,
    seed: Seed = 0,
) -> None:
    """Render 300 neural fractals, stylise them with the photos in learn/, and measure the gap to those in judge/.

    Example: stylize demo out
    """
    from metrics.comparison.compare import compare
    from metrics.image_sets.open import open_images
    from metrics.report import to_markdown, write_report

    from ..styles.bank import learn as learn_bank
    from ..writing.apply import iter_apply
    from ..writing.render import iter_render

    photos = photos or shipped("photos")
    for part in ("learn", "judge"):
        open_images(photos / part)  # before any work is spent
    style = out / "style.safetensors"
    patterns, stylised = out / "patterns", out / "stylised"
    options: dict[str, Any] = {"classes": 10, "per_class": per_class, "size": 256, "seed": seed, "workers": workers}
    finish(iter_render("neural-fractal", patterns, **options), "render", patterns, quiet=True)
    learn_bank(photos / "learn", seed=seed).save(style)
    finish(iter_apply(style, patterns, stylised, workers=workers), "stylise", stylised, quiet=True)
    sets: dict[str, Any] = {"before": patterns, "floor": photos / "learn", "crops": 16}
    with bar() as progress:
        report = compare(stylised, photos / "judge", **sets, extractor=extractor, progress=progress)
    write_report(report, out)
    print(to_markdown(report))
    say(f"report: {out / 'report.html'}")


for command in diffusion_commands:
    app.command()(command)


def main() -> None:
    """Entry point of the ``stylize`` command."""
    run(app, "stylize")


def _options(words: list[str] | None) -> dict[str, Any]:
    """NAME=VALUE words; a value is read as JSON where it is JSON (2.0, true, null), else as text."""
    options: dict[str, Any] = {}
    for word in words or []:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise InputError(f"--option {word}: expected NAME=VALUE, e.g. --option activation=holomorphic")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options


def _chosen(method: str | None, strength: float | None, preset: str | None) -> tuple[str, float]:
    if preset is None:
        return chosen(method, strength)
    if method is not None or strength is not None:
        raise InputError("got --preset with --method or --strength. Expected a preset, or the two others.")
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    return PRESETS[preset]


def _warn_copying(methods: Iterable[str]) -> None:
    names = dict.fromkeys(stage for method in methods for stage, _ in stages(method) if style_method(stage).copies)
    if names:
        say(f"warning: {', '.join(names)} copies by design: results and style file hold pixels of the photos")


def _warn_untrained(header: Mapping[str, Any]) -> None:
    from ..styles.methods.network import SHIPPED, read_network

    known = {row["sha256"] for row in read_network(SHIPPED)[0]["licences"]}
    if header["unlicensed"] or any(row["sha256"] not in known for row in header["licences"]):
        say(
            "note: the network that comes along was trained on other photos; on new ones it closes less of the gap than"
        )
        say("`texture`. Train your own: stylize train PHOTOS IMAGES network.safetensors, then apply with --network")


def _warn_strange(bank: StyleBank, method: str, network: Path | None) -> None:
    """Names the photos whose styles the network cannot paint; the method's name is checked where it is used."""
    if not _is_trained(method):
        return
    bank.check_holds(method)
    strange = [
        source["photo"] for index, source in enumerate(bank.sources) if bank.painted(method, index, network) != method
    ]
    if strange:
        say(
            f"note: the network was trained on no styles like {len(strange)} of {len(bank)}, from {_some(strange)}: "
            "`texture` paints these"
        )


def _is_trained(method: str) -> bool:
    """Whether a network that was trained takes part."""
    return any(style_method(stage).fallback for stage, _ in stages(method))


def _some(names: Iterable[str]) -> str:
    """The first three different names, and how many more."""
    unique = list(dict.fromkeys(names))
    return ", ".join(unique[:3]) + (f" and {len(unique) - 3} more" if len(unique) > 3 else "")


def _warn_unlicensed(photos: list[str]) -> None:
    if photos:
        say(f"warning: no licence entry for {_some(photos)}: add it to ledger.json beside the photos before publishing")
