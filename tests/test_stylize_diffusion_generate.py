"""Generating and restyling with tiny random components, and the whole path from photos to a labelled set."""

import json
from dataclasses import fields
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("diffusers")

from safetensors.torch import save_file
from test_stylize_diffusion_invert import SAMPLES, build

from metrics.errors import InputError
from metrics.image_sets.open import open_images
from stylize.diffusion.generate import Generate, iter_generate
from stylize.diffusion.invert import iter_invert
from stylize.diffusion.pipeline import SCHEDULERS, load_pipeline
from stylize.diffusion.restyle import iter_restyle
from stylize.diffusion.sampler import Sampler

pytestmark = SAMPLES
OPTIONS = {"per_class": 3, "steps": 2, "guidance": 3.0, "batch": 2}


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    build().save_pretrained(folder)
    return folder


@pytest.fixture
def classes(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("coat\n\nankle boot\n")
    return path


@pytest.fixture
def embedding(tmp_path):
    path = tmp_path / "learned_embeds.safetensors"
    save_file({"<look>": torch.randn(2, 8, generator=torch.Generator().manual_seed(1))}, path, {"format": "pt"})
    return path


def generate(classes, out, **options):
    return iter_generate(classes, out, take_sampler(options), **options)


def restyle(embedding, synthetic, out, **options):
    options["embedding"] = embedding
    return iter_restyle(synthetic, out, take_sampler(options), **options)


def take_sampler(options):
    names = [field.name for field in fields(Sampler) if field.name in options]
    return Sampler(**{name: options.pop(name) for name in names})


def pixels(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def rows(folder):
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


def test_from_photos_to_a_labelled_set(folder, picture, model, classes, tmp_path):
    real = folder("real", {f"{label}/{i}.png": picture(i, 48, 32) for label in ("coat", "bag") for i in range(2)})
    list(iter_invert(real, tmp_path / "e.safetensors", model=model, steps=2, batch=1, vectors=2))
    list(generate(classes, tmp_path / "out", model=model, embedding=tmp_path / "e.safetensors", **OPTIONS))
    images = open_images(tmp_path / "out")
    assert [item.key for item in images][:3] == ["ankle boot/00000", "ankle boot/00001", "ankle boot/00002"]
    assert images.labels == ["ankle boot"] * 3 + ["coat"] * 3 and images[0].read().shape == (32, 32, 3)
    row = rows(tmp_path / "out")[0]
    assert row["prompt"] == "A ankle boot photo in the style of <style>" and row["guidance"] == 3.0
    assert {"seed", "steps", "scheduler", "model", "embedding", "negative", "dtype", "version"} <= set(row)


def test_pixels_are_those_of_diffusers_own_call(model, classes, embedding, tmp_path):
    list(generate(classes, tmp_path / "out", model=model, embedding=embedding, **{**OPTIONS, "batch": 1}))
    row = rows(tmp_path / "out")[-1]
    pipeline = load_pipeline(model)
    pipeline.load_textual_inversion(str(embedding))
    from diffusers import DPMSolverMultistepScheduler

    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    call = {"num_inference_steps": 2, "guidance_scale": 3.0, "output_type": "pil", "negative_prompt": ""}
    image = pipeline(row["prompt"], generator=torch.Generator().manual_seed(row["seed"]), **call).images[0]
    assert np.array_equal(np.asarray(image), np.asarray(Image.open(tmp_path / "out" / row["file_name"])))


def test_resuming_workers_and_other_images_of_the_run_change_no_pixel(model, classes, tmp_path, monkeypatch):
    list(generate(classes, tmp_path / "whole", model=model, **OPTIONS))
    monkeypatch.setattr("stylize.diffusion.generate.SHARD_SIZE", 2)
    steps = generate(classes, tmp_path / "part", model=model, **OPTIONS)
    assert [step.done for step in islice(steps, 2)] == [0, 2]
    steps.close()
    seen = []
    call = Generate.__call__
    monkeypatch.setattr(Generate, "__call__", lambda self, keys: seen.extend(keys) or call(self, keys))
    list(generate(classes, tmp_path / "part", model=model, **OPTIONS))
    assert seen == ["coat/00002", "ankle boot/00000", "ankle boot/00001", "ankle boot/00002"]
    assert pixels(tmp_path / "whole") == pixels(tmp_path / "part")
    assert (tmp_path / "whole/metadata.jsonl").read_bytes() == (tmp_path / "part/metadata.jsonl").read_bytes()
    with pytest.raises(InputError, match=r"guidance = 3\.0"):
        list(generate(classes, tmp_path / "part", model=model, **{**OPTIONS, "guidance": 2.0}))


def test_a_batch_changes_no_image_beyond_rounding(model, classes, tmp_path):
    for batch in (1, 3):
        list(
            generate(classes, tmp_path / str(batch), model=model, **{**OPTIONS, "batch": batch, "scheduler": "euler-a"})
        )
    one, three = pixels(tmp_path / "1"), pixels(tmp_path / "3")
    assert one.keys() == three.keys()
    for name in one:
        a, b = (np.asarray(Image.open(tmp_path / batch / name)).astype(int) for batch in ("1", "3"))
        assert abs(a - b).max() <= 1
    assert len(set(one.values())) == 6  # every (class, index) has a seed of its own


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_scheduler_samples(model, classes, tmp_path, scheduler):
    options = {**OPTIONS, "per_class": 1, "steps": 3, "scheduler": scheduler}
    assert [*generate(classes, tmp_path / "out", model=model, **options)][-1].done == 2


def test_class_wise_embeddings_are_chosen_by_class(folder, picture, model, classes, tmp_path):
    labels = ("coat", "ankle boot", "kinds/boot", "kinds-boot")  # the last two differ in a slash only
    real = folder("real", {f"{label}/0.png": picture() for label in labels})
    list(iter_invert(real, tmp_path / "e", model=model, mode="class-wise", steps=1, batch=1))
    list(generate(classes, tmp_path / "out", model=model, embedding=tmp_path / "e", **{**OPTIONS, "per_class": 1}))
    assert (tmp_path / "e/kinds/boot.safetensors").is_file() and (tmp_path / "e/kinds-boot.safetensors").is_file()
    prompts = {row["label"]: row["prompt"] for row in rows(tmp_path / "out")}
    assert prompts["coat"].endswith("<style-coat>") and "<style-ankle-boot-" in prompts["ankle boot"]
    classes.write_text("bag\n")
    with pytest.raises(InputError, match="no embedding of the class 'bag'"):
        list(generate(classes, tmp_path / "other", model=model, embedding=tmp_path / "e"))


def test_restyling_keeps_keys_and_labels_and_little_noise_keeps_the_image(folder, picture, model, embedding, tmp_path):
    synthetic = folder("patterns", {"a/0.png": picture(0, 32, 32), "b/1.png": picture(1, 40, 48), "b/2.png": b"torn"})
    (synthetic / "metadata.jsonl").write_text('{"file_name": "a/0.png", "weather": "rain", "seed": 7}\n')
    list(restyle(embedding, synthetic, tmp_path / "out", model=model, steps=4, strength=0.3))
    row, other = rows(tmp_path / "out")
    assert (row["file_name"], row["source"], row["label"], other["label"]) == ("a/0.png", "a/0.png", "a", "b")
    assert (row["prompt"], row["method"], row["strength"]) == ("A photo in the style of <look>", "restyle", 0.3)
    assert row["weather"] == "rain" and row["source_seed"] == 7 and row["seed"] != 7  # the input's columns are kept
    assert "b/2" in (tmp_path / "out/errors.jsonl").read_text()
    list(restyle(embedding, synthetic, tmp_path / "more", model=model, steps=4, strength=1.0))
    pipeline = load_pipeline(model)  # its autoencoder is random: compare with what it makes of the image itself
    start = torch.from_numpy(picture(0, 32, 32)).permute(2, 0, 1)[None].float() / 127.5 - 1
    decoded = pipeline.vae.decode(pipeline.vae.encode(start).latent_dist.mean).sample.clamp(-1, 1)[0].permute(1, 2, 0)
    ideal = ((decoded.numpy() + 1) * 127.5).round()
    weak, strong = (np.asarray(Image.open(tmp_path / name / "a/0.png")).astype(float) for name in ("out", "more"))
    assert abs(weak - ideal).mean() < abs(strong - ideal).mean()


def test_bad_input_is_refused_before_sampling(folder, picture, model, classes, embedding, tmp_path):
    out = tmp_path / "out"
    lists = {"": "names no class", "coat\ncoat\n": "twice", "../up\n": "name of a folder", "a{b\n": "breaks the prompt"}
    for text, message in lists.items():
        path = tmp_path / "bad.txt"
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            list(generate(path, out, model=model))
    cases = [
        ({"classes": tmp_path / "none.txt"}, "one class name a line"),
        ({"prompt": "A {class} in {token}"}, "Name one with --embedding"),
        ({"prompt": "A {class}", "embedding": embedding}, "would do nothing"),
        ({"scheduler": "dmp++"}, "Did you mean 'dpm\\+\\+'"),
        ({"steps": 0}, "at least 1 step"),
        ({"per_class": 0}, "at least 1 of each"),
        ({"size": 33}, "multiple of 4"),
        ({"embedding": tmp_path / "none.safetensors"}, "cannot be read"),
        ({"prompt": "very " * 80 + "{class}"}, "cut off"),
        ({"prompt": "A good photo"}, "same for the classes 'coat' and 'ankle boot'"),
    ]
    for options, message in cases:
        with pytest.raises(InputError, match=message):
            list(generate(options.pop("classes", classes), out, model=model, **options))
    wide = tmp_path / "wide.safetensors"
    save_file({"<s>": torch.zeros(1, 768)}, wide)
    with pytest.raises(InputError, match="768 numbers, and this model has 8"):
        list(generate(classes, out, model=model, embedding=wide))
    save_file({"<s>": torch.full((1, 8), float("nan"))}, wide)
    with pytest.raises(InputError, match="not finite"):
        list(generate(classes, out, model=model, embedding=wide))
    masks = folder("masks", {"0.png": picture(), "m.png": picture()})
    (masks / "metadata.jsonl").write_text('{"file_name": "0.png", "mask_file_name": "m.png"}\n')
    for synthetic, options, message in (
        (masks, {}, "no longer fit"),
        (masks, {"strength": 0.01}, "at least one step"),
        (folder("flat", {"0.png": picture()}), {"prompt": "A {class} in {token}"}, "name of the class"),
    ):
        with pytest.raises(InputError, match=message):
            list(restyle(embedding, synthetic, out, model=model, **options))
    assert not out.exists()
    with pytest.raises(InputError, match="inside the input folder"):
        list(restyle(embedding, folder("fine", {"0.png": picture()}), tmp_path / "fine/out", model=model))
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        list(generate(tmp_path / "latin.txt", out, model=model))
