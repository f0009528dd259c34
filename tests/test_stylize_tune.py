import json
import shutil
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from metrics.comparison import compare as gap
from metrics.copy_audit.audit import audit
from metrics.errors import InputError
from metrics.extractors.extractor import Extractor
from metrics.image_sets import items as metrics_images
from metrics.image_sets.open import open_images
from stylize.tuning import report as tune_report
from stylize.tuning import search as tuning
from stylize.tuning import study as studies
from stylize.tuning.report import command, judge, pareto, read_study, write_page
from stylize.tuning.search import iter_tune
from stylize.tuning.splits import split_photos
from stylize.tuning.study import Constraints, Trial, best


class Moments(torch.nn.Module):
    """Channel means and standard deviations, and those of the horizontal differences."""

    def forward(self, x):
        parts = x.flatten(2), (x[..., 1:] - x[..., :-1]).flatten(2)
        return torch.cat([f(part, -1) for part in parts for f in (torch.mean, torch.std)], 1)


def small_network(name, **options):
    return Extractor(name, Moments(), lambda images: images.float() / 255, architecture=name, preprocessing={})


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """A small network and no search for copies, which takes seconds."""
    monkeypatch.setattr(tuning, "audit", lambda *a, **k: SimpleNamespace(rate=0.01))
    for module in (tuning, gap):
        monkeypatch.setattr(module, "load_extractor", lambda name, *a, **k: small_network(name))


@pytest.fixture
def photos(folder, picture):
    """Rich colours and fine texture."""

    def photo(seed):
        noise = np.random.default_rng(seed).integers(0, 90, (40, 40, 3))
        return np.clip(picture(seed, 40, 40) * 0.6 + noise, 0, 255).astype(np.uint8)

    names = {"learn": 3, "tune": 2, "judge": 2}
    return folder(
        "photos", {f"{part}/{part}{i}.png": photo(ord(part[0]) + i) for part in names for i in range(names[part])}
    )


@pytest.fixture
def contents(folder):
    """Two classes of dark, nearly smooth images: bars across, bars down."""

    def bars(seed, down):
        wave = 20 + 10 * np.sin(np.arange(32) / (2 + seed % 3) + seed)
        image = np.repeat(wave[:, None], 32, 1)
        return np.repeat((image.T if down else image)[..., None], 3, 2).astype(np.uint8)

    return folder("contents", {f"{c}/{i}.png": bars(i, c == "b") for c in "ab" for i in range(14)})


def search(photos, contents, out, **options):
    defaults = {"trials": 4, "images": 20, "size": 32, "crops": 2, "methods": ("colour", "patches")}
    return list(iter_tune(photos, contents, out, **{**defaults, **options}))


def points(trials):
    return [(t.method, t.strength, t.assignment, t.state, t.kid, t.structure, t.labels) for t in trials]


# --- splits ---------------------------------------------------------------------------------------------------------


def test_a_flat_folder_is_dealt_by_photo(folder, picture, tmp_path):
    root = folder("flat", {f"{i}.png": picture(i) for i in range(9)} | {"copy.png": picture(0)})
    learnt, tuned, sealed = split_photos(root, 3)
    judged = sealed.open(tmp_path / "study")
    parts = [[item.key for item in part] for part in (learnt, tuned, judged)]
    assert [len(part) for part in parts] == [5, 2, 2] and len({*parts[0], *parts[1], *parts[2]}) == 9
    assert parts == [[item.key for item in part] for part in (*split_photos(root, 3)[:2], judged)]
    assert parts[0] != [item.key for item in split_photos(root, 4)[0]]


def test_a_photo_in_two_parts_or_too_few_are_refused(photos, folder, picture):
    (photos / "judge/again.png").write_bytes((photos / "learn/learn0.png").read_bytes())
    with pytest.raises(InputError, match=r"same photo is in the parts 'learn' and 'judge'"):
        split_photos(photos)
    with pytest.raises(InputError, match=r"1 photos are left for 'tune'; at least 2"):
        split_photos(folder("few", {f"{i}.png": picture(i) for i in range(4)}))


def packed(root, path):
    """A folder's images as a zip, a WebDataset tar or a list, by the suffix of ``path``."""
    files = sorted(root.rglob("*.png"))
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in files:
                archive.write(file, file.relative_to(root))
    elif path.suffix == ".tar":
        with tarfile.open(path, "w") as archive:
            for file in files:
                archive.add(file, file.relative_to(root))
    else:
        path.write_text("".join(f"{file}\n" for file in files))
    return path


@pytest.mark.parametrize("name", ["photos.zip", "photos.tar", "photos.txt"])
def test_photos_that_are_split_already_stay_so_in_any_source(photos, tmp_path, name):
    sets = split_photos(packed(photos, tmp_path / name))
    wanted = split_photos(photos)
    for found, expected in zip(sets[:2], wanted[:2], strict=True):
        assert [item.digest() for item in found] == [item.digest() for item in expected]
    assert len(sets[2]) == len(wanted[2]) == 2


@pytest.mark.parametrize("name", ["flat.zip", "flat.tar", "flat.txt"])
def test_photos_are_dealt_alike_whatever_they_are_packed_in(folder, picture, tmp_path, name):
    root = folder("flat", {f"{i}.png": picture(i) for i in range(9)})
    sets, wanted = split_photos(packed(root, tmp_path / name)), split_photos(root)
    assert [[Path(i.key).name for i in part] for part in sets[:2]] == [[i.key for i in part] for part in wanted[:2]]
    images = np.stack([item.read() for item in open_images(root)])
    assert [len(part) for part in split_photos(images)] == [5, 2, 2]


def test_a_part_that_is_missing_is_not_made_up(photos, tmp_path):
    shutil.rmtree(photos / "judge")
    for source in (photos, packed(photos, tmp_path / "p.zip")):
        with pytest.raises(InputError, match=r"has photos in learn, tune, and no judge\. Expected all of"):
            split_photos(source)


def test_photos_of_one_group_are_in_one_part(folder, picture):
    root = folder("flat", {f"{i}.png": picture(i) for i in range(16)})
    rows = [json.dumps({"file_name": f"{i}.png", "group": f"scene {i // 2}"}) for i in range(16)]
    (root / "metadata.jsonl").write_text("\n".join(rows))
    learnt, tuned, _ = split_photos(root)
    assert not {item.group for item in learnt} & {item.group for item in tuned}
    assert (len(learnt), len(tuned)) == (8, 4)


def test_a_photo_that_cannot_be_opened_is_named(folder, picture, tmp_path):
    path = packed(folder("flat", {f"{i}.png": picture(i) for i in range(9)}), tmp_path / "p.zip")
    data = bytearray(path.read_bytes())
    data[200] ^= 255
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"p\.zip::0\.png: cannot be opened \(damaged archive member"):
        split_photos(path)


# --- the search -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_interrupted_search_goes_the_same_way(photos, contents, tmp_path):
    whole = search(photos, contents, tmp_path / "whole", trials=10)
    first = search(photos, contents, tmp_path / "parts", trials=3)
    steps = iter_tune(
        photos, contents, tmp_path / "parts", trials=10, images=20, size=32, crops=2, methods=("colour", "patches")
    )
    second = [next(steps)]
    steps.close()
    third = search(photos, contents, tmp_path / "parts", trials=10)
    assert points(first + second + third) == points(whole)
    assert [t.done for t in first + second + third] == list(range(1, 11)) and whole[-1].total == 10
    assert search(photos, contents, tmp_path / "parts", trials=10) == []


def test_a_trial_killed_half_way_is_taken_again(photos, contents, tmp_path, monkeypatch):
    whole = search(photos, contents, tmp_path / "whole", trials=3)
    search(photos, contents, tmp_path / "killed", trials=1)
    studies.open_study(tmp_path / "killed").ask()  # a process that dies here leaves a running trial
    rest = search(photos, contents, tmp_path / "killed", trials=3)
    assert points(rest) == points(whole)[1:]


@pytest.mark.slow
def test_scores_are_those_of_the_written_images(photos, contents, tmp_path, monkeypatch):
    """What the search reports, measured again from files by the public functions."""
    from metrics.comparison.structure import gradient_correlation
    from metrics.statistics.kid import kid
    from stylize import iter_apply

    monkeypatch.setattr(tuning, "audit", audit)
    monkeypatch.setattr(tuning, "ASSIGNMENTS", ("random",))  # a balanced plan depends on the order of the contents
    trial = next(t for t in search(photos, contents, tmp_path / "s", images=28, trials=1) if t.state == "complete")
    out = tmp_path / "styled"
    list(iter_apply(tmp_path / "s/style.safetensors", contents, out, method=trial.method, strength=trial.strength,
                     assignment=trial.assignment))  # fmt: skip
    network = small_network("efficientnet-lite0")
    styled, targets = open_images(out), open_images(photos / "tune").crops(tuning.CROPS, 32, 0)
    x, y = tuning.features_of(styled, network), tuning.features_of(targets, network)
    assert trial.kid == pytest.approx(kid(x.features, y.features, groups_y=y.groups).value, rel=1e-6)
    kept = [gradient_correlation(a.read(), b.read()) for a, b in zip(open_images(contents), styled, strict=True)]
    assert trial.structure == pytest.approx(np.mean(kept), abs=1e-9)
    found = audit(styled, photos / "learn", held_out=photos / "tune", images=28, patches=tuning.PATCHES)
    assert abs(trial.copies - found.rate) < 0.05


def test_the_search_never_decodes_a_judge_photo(photos, contents, tmp_path, monkeypatch):
    seen, read_file = [], metrics_images.read_file
    monkeypatch.setattr(metrics_images, "read_file", lambda path: seen.append(str(path)) or read_file(path))
    search(photos, contents, tmp_path / "s", trials=2)
    assert any("/tune/" in path for path in seen) and not any("/judge/" in path for path in seen)


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".txt"])
def test_any_source_is_searched_and_judged_like_its_folder(photos, contents, tmp_path, suffix):
    budget = Constraints(structure=-1, labels=0, copies=1)
    inputs = packed(photos, tmp_path / f"photos{suffix}"), packed(contents, tmp_path / f"contents{suffix}")
    found = search(*inputs, tmp_path / "s", trials=1, budget=budget, methods=("colour",))
    if suffix != ".txt":  # where the keys of the contents begin elsewhere
        assert points(found) == points(search(photos, contents, tmp_path / "t", trials=1, budget=budget,
                                              methods=("colour",)))  # fmt: skip
    reports = judge(*inputs, tmp_path / "s", extractor="other")
    assert len(reports) == 2
    assert {item.label for item in open_images(tmp_path / "s/stylised")} == {i.label for i in open_images(inputs[1])}
    assert f"contents{suffix} stylised" in command(best(*read_study(tmp_path / "s")), tmp_path / "s", inputs[1])


def test_methods_of_several_scales_are_tried_on_some_of_them(photos, contents, tmp_path):
    found = search(photos, contents, tmp_path / "s", trials=9, methods=("colour", "patches"))
    methods = {trial.method for trial in found}
    assert any(":" in method for method in methods), methods
    assert all(word in ("colour", "patches", "patches:1", "patches:2") for m in methods for word in m.split("+"))
    trial = next(trial for trial in found if ":" in trial.method)
    assert f"--method {trial.method} " in command(trial, tmp_path, "patterns")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, r"holds a study with seed = 0, and this command says 1\."),
        ({"methods": ("colour",)}, "holds a study with methods"),
        ({"budget": Constraints(structure=0.5)}, r"holds a study with structure = 0\.8, and this command says 0\.5"),
        ({"images": 24}, "holds a study with images = 20"),
    ],
)
def test_another_study_in_the_folder_is_refused(photos, contents, tmp_path, change, message):
    search(photos, contents, tmp_path / "s", trials=1)
    with pytest.raises(InputError, match=message):
        search(photos, contents, tmp_path / "s", trials=2, **change)


@pytest.mark.parametrize(
    ("file", "part"), [("learn/learn1.png", "learn"), ("tune/tune0.png", "tune"), (None, "contents")]
)
def test_a_study_of_other_data_is_refused_and_kept(photos, contents, tmp_path, picture, file, part):
    search(photos, contents, tmp_path / "s", trials=1)
    before = points(read_study(tmp_path / "s")[0])
    changed = sorted(contents.rglob("*.png")) if file is None else [photos / file]
    for number, path in enumerate(changed):
        Image.fromarray(picture(90 + number, 40, 40)).save(path)
    with pytest.raises(InputError, match=rf"holds a study of other {part} images: .* Restore them to"):
        search(photos, contents, tmp_path / "s", trials=2)
    assert points(read_study(tmp_path / "s")[0]) == before


def test_bad_requests(photos, contents, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"trials = 0, images = 20: expected at least 1 trial"):
        search(photos, contents, tmp_path / "s", trials=0)
    with pytest.raises(InputError, match=r"unknown style method 'color'\. Did you mean 'colour'"):
        search(photos, contents, tmp_path / "s", methods=("color",))
    for bad in ({"structure": 2}, {"labels": -1}, {"copies": float("nan")}):
        with pytest.raises(InputError, match="expected a structure of -1 to 1, and labels and copies of 0 to 1"):
            search(photos, contents, tmp_path / "s", budget=Constraints(**bad))
    for inside in (photos, contents):
        with pytest.raises(InputError, match="lies inside the folder of images"):
            search(photos, contents, inside / "s")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").touch()
    with pytest.raises(InputError, match="no study of this command"):
        search(photos, contents, tmp_path / "full")
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"pip install 'reverse-stylize\[tune\]'"):
        search(photos, contents, tmp_path / "t")


# --- choosing and judging -------------------------------------------------------------------------------------------


def trial(number, closed, structure, labels=1.0, copies=0.0, budget=Constraints()):  # noqa: B008
    feasible = structure >= budget.structure and labels >= budget.labels and copies <= budget.copies
    return Trial(number, "complete", "colour", 0.5, "random", 1 - closed, closed, structure, labels, copies, feasible)


def test_the_best_is_the_feasible_trial_of_least_kid():
    trials = [
        trial(0, 0.9, 0.5),
        trial(1, 0.4, 0.9),
        trial(2, 0.6, 0.85, labels=0.9),
        trial(3, 0.5, 0.81),
        trial(5, 0.8, 0.9, copies=0.06),
    ]
    assert best(trials, Constraints()).number == 3
    with pytest.raises(
        InputError,
        match=r"none of 1 trials keeps .* labels 0\.95 and copies 0\.05; the best seen, .*structure 0\.50",
    ):
        best(trials[:1], Constraints())
    stopped = replace(trial(4, 0.99, 0.99), state="pruned", kid=None, closed=None, structure=None, feasible=False)
    assert best([*trials, stopped], Constraints()).number == 3


def test_pareto_front_by_brute_force():
    rng = np.random.default_rng(0)
    trials = [trial(i, *rng.random(2)) for i in range(40)]
    kept = [
        t for t in trials if not any(o.closed >= t.closed and o.structure >= t.structure and o is not t for o in trials)
    ]
    assert sorted(t.number for t in pareto(trials)) == sorted(t.number for t in kept)


def test_judging_closes_the_study_and_uses_fresh_contents(photos, contents, tmp_path, folder):
    out = tmp_path / "s"
    search(photos, contents, out, budget=Constraints(structure=-1, labels=0, copies=1))
    with pytest.raises(InputError, match="has tuned this study and cannot judge it"):
        judge(photos, contents, out, extractor="efficientnet-lite0")
    assert not (out / "judged.json").exists()
    reports = judge(photos, contents, out, extractor="other")
    assert [report.extractor for report in reports] and len(reports) == 2
    assert json.loads((out / "judged.json").read_text())["photos"] == ["judge0", "judge1"]
    assert (out / "judge-other/report.html").is_file() and (out / "judge-efficientnet-lite0/report.json").is_file()
    winner = best(*read_study(out))
    row = json.loads((out / "stylised/metadata.jsonl").read_text().splitlines()[0])
    assert (row["method"], row["strength"]) == (winner.method, winner.strength)
    with pytest.raises(InputError, match="has been judged, so it takes no more trials"):
        search(photos, contents, out, budget=Constraints(structure=-1, labels=0, copies=1), trials=9)
    again = judge(photos, contents, out, extractor="other")
    assert [r.rows[0].measurements[0].value for r in again] == [r.rows[0].measurements[0].value for r in reports]


def test_the_judge_refuses_what_the_search_has_seen_or_not_seen(photos, contents, tmp_path, picture):
    out, budget = tmp_path / "s", Constraints(structure=-1, labels=0, copies=1)
    search(photos, contents, out, trials=1, budget=budget)

    def refused(message):
        with pytest.raises(InputError, match=message):
            judge(photos, contents, out, extractor="other")
        assert not (out / "judged.json").exists() and not (out / "stylised").exists()

    again = photos / "judge/recoded.jpg"
    Image.open(photos / "tune/tune0.png").save(again, quality=90)
    refused(r"recoded\.jpg: shows the same picture as tune0, .* Remove it from the judge photos and repeat")
    again.unlink()
    (photos / "learn/learn0.png").rename(tmp_path / "away.png")
    refused("holds a study of other learn images")
    (tmp_path / "away.png").rename(photos / "learn/learn0.png")
    Image.fromarray(picture(77, 40, 40)).save(contents / "a/0.png")
    Image.fromarray(picture(78, 40, 40)).save(contents / "b/0.png")
    for path in contents.rglob("*.png"):
        Image.open(path).transpose(Image.Transpose.ROTATE_180).save(path)
    refused("holds a study of other contents images")


def test_a_study_is_judged_by_one_set_of_photos(folder, picture, tmp_path):
    sets = [folder(name, {f"{i}.png": picture(i + start) for i in range(8)}) for name, start in (("a", 0), ("b", 20))]
    first, second = (split_photos(root)[2] for root in sets)
    first.open(tmp_path), first.open(tmp_path)
    with pytest.raises(InputError, match=r"was judged by other photos before, named in .*judged\.json"):
        second.open(tmp_path)


def test_no_search_goes_on_while_a_study_is_judged(photos, contents, tmp_path):
    out, budget = tmp_path / "s", Constraints(structure=-1, labels=0, copies=1)
    searching = iter_tune(
        photos, contents, out, trials=9, images=20, size=32, crops=2, methods=("colour",), budget=budget
    )
    next(searching)
    with pytest.raises(InputError, match="another process is tuning in it or judging it"):
        judge(photos, contents, out, extractor="other")
    searching.close()


def test_damaged_studies_are_one_line(photos, contents, tmp_path):
    out = tmp_path / "s"
    search(photos, contents, out, trials=1)
    whole = (out / "study.sqlite3").read_bytes()
    (out / "study.sqlite3").write_bytes(whole[:2000])
    with pytest.raises(InputError, match=r"study\.sqlite3: cannot be read as a study \(.*\)\. Name a new folder"):
        search(photos, contents, out, trials=2)
    (out / "config.json").write_text("{")
    for call in (lambda: search(photos, contents, out, trials=2), lambda: read_study(out)):
        with pytest.raises(InputError, match=r"config\.json: damaged \(JSONDecodeError: .*\)\. Name a new folder"):
            call()


def test_contents_of_the_judge_are_fresh_where_there_are_enough(folder):
    images = open_images(
        folder("many", {f"{c}/{i}.png": np.zeros((8, 8, 3), np.uint8) for c in "abc" for i in range(30)})
    )
    config = {"seed": 0, "images": 20}
    used = {item.key for item in tuning.choose_contents(images, 20, 0)}
    fresh = [item.key for item in tune_report._fresh(images, config, 60)]
    assert len(used) == 20 and len(fresh) == 60 and not used & set(fresh)
    assert len({key[0] for key in used}) == 2, "ten of each of two classes"
    assert len(tune_report._fresh(images, {"seed": 0, "images": 60}, 300)) == 90, "30 left are too few: all are taken"


def test_page_and_command(photos, contents, tmp_path):
    out = tmp_path / "a study"
    search(photos, contents, out, budget=Constraints(structure=-1, labels=0, copies=1))
    page = write_page(out, contents).read_text()
    winner = best(*read_study(out))
    assert page.count("<circle") == sum(t.state == "complete" for t in read_study(out)[0]) + 1
    assert f"{winner.method} at strength {winner.strength:.2f} closes" in page
    assert command(winner, out, "p q").split(" --method ")[0].endswith("style.safetensors' 'p q' stylised")
    with pytest.raises(InputError, match=r"holds no study\. Start one with"):
        read_study(tmp_path)
