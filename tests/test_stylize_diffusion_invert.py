"""Dataset style inversion on tiny random components that are built in memory."""

import csv
import json
import math
import shutil
from itertools import islice

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

pytest.importorskip("diffusers")

from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from metrics.errors import InputError
from stylize.diffusion.invert import class_token, iter_invert
from stylize.diffusion.pipeline import fingerprint, load_pipeline
from stylize.diffusion.placeholder import add_token, expanded, prompt_ids, read_embedding, use_embedding

SAMPLES = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' schedulers
WORDS = ("a", "photo", "in", "the", "style", "of", "good", "coat", "bag")


def build(prediction="epsilon"):
    """A Stable Diffusion pipeline of 40,000 random weights; 32 px images, 16x16 latents."""
    symbols = sorted(ByteLevel.alphabet())
    tokens, merges = [*symbols, *(s + "</w>" for s in symbols)], []
    for word in WORDS:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces = [pieces[0] + pieces[1], *pieces[2:]]
            tokens.append(pieces[0])
    vocabulary = {t: n for n, t in enumerate(dict.fromkeys([*tokens, "<|startoftext|>", "<|endoftext|>"]))}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=list(dict.fromkeys(merges)), model_max_length=77)
    torch.manual_seed(0)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=8,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(4, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8,
        norm_num_groups=2,
    )
    for name, weight in unet.named_parameters():  # as drawn, the networks hardly listen to the text
        if "attn2" in name:
            torch.nn.init.normal_(weight, std=0.7)
    vae = AutoencoderKL(
        block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=32,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction,
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    build().save_pretrained(folder)
    return folder


@pytest.fixture
def real(folder, picture):
    return folder("real", {f"{label}/{i}.png": picture(i, 32, 40) for label in ("coat", "bag") for i in range(2)})


def learn(real, out, model, **options):
    steps = list(iter_invert(real, out, **{"model": model, "steps": 4, "batch": 2, "rate": 0.05, **options}))
    return steps[-1]


def test_only_the_placeholder_moves_and_its_loss_falls(real, model, tmp_path):
    out = tmp_path / "e.safetensors"
    last = learn(real, out, model, steps=16, batch=64, rate=0.01)
    token, values = read_embedding(out)
    pipeline = load_pipeline(model)
    before = pipeline.text_encoder.get_input_embeddings().weight.clone()
    start = before[pipeline.tokenizer("style", add_special_tokens=False).input_ids[0]]
    assert token == "<style>" and values.shape == (1, 8) and (values[0] - start).abs().max() > 0.05
    rows = list(csv.DictReader((tmp_path / "e.safetensors.csv").read_text().splitlines()))
    assert float(rows[-1]["fixed_loss"]) < float(rows[0]["fixed_loss"]) - 1e-4
    assert (last.done, last.total) == (16, 16) and not (tmp_path / "e.safetensors.training").exists()
    use_embedding(pipeline, out)
    after = pipeline.text_encoder.get_input_embeddings().weight
    assert torch.equal(after[: len(before)], before) and torch.equal(after[-1], values[0])


def test_training_itself_leaves_every_weight_bit_identical(real, model, tmp_path, monkeypatch):
    held = []
    monkeypatch.setattr(
        "stylize.diffusion.invert.load_pipeline", lambda name: held.append(load_pipeline(name)) or held[0]
    )
    learn(real, tmp_path / "e.safetensors", model)
    untouched = load_pipeline(model)
    for name in ("unet", "vae", "text_encoder"):
        trained, loaded = (getattr(p, name).state_dict() for p in (held[0], untouched))
        for key, weight in loaded.items():
            assert torch.equal(trained[key][: len(weight)] if weight.ndim else trained[key], weight), key


def test_the_loss_is_that_of_a_plain_textual_inversion_step(real, model, tmp_path):
    """One step, against the usual script: a trainable embedding matrix, no hook, the library's own schedulers."""
    from metrics.image_sets.open import open_images
    from metrics.seed import generator

    options = {"steps": 1, "batch": 1, "rate": 0.1, "seed": 3}
    first = next(iter_invert(real, tmp_path / "e.safetensors", model=model, **options))
    pipeline = load_pipeline(model)
    images = open_images(real)
    draw = generator(3, "inversion", "0")
    item = images[int(generator(3, "epoch", "0").permutation(4)[0])]
    time = torch.tensor([int(draw.integers(0, 1000))])
    pixels = torch.from_numpy(item.read()[:, 4:36]).permute(2, 0, 1)[None].float() / 127.5 - 1  # 32x40: central square
    posterior = pipeline.vae.encode(pixels).latent_dist
    grain, noise = (torch.from_numpy(draw.standard_normal((1, 4, 16, 16), dtype=np.float32)) for _ in range(2))
    latents = (posterior.mean + posterior.std * grain) * pipeline.vae.config.scaling_factor
    alpha = pipeline.scheduler.alphas_cumprod[time].reshape(-1, 1, 1, 1)
    style = pipeline.tokenizer("style", add_special_tokens=False).input_ids[0]
    weight = pipeline.text_encoder.get_input_embeddings().weight
    ids = add_token(pipeline, "<style>", weight[style][None].clone())
    weight = pipeline.text_encoder.get_input_embeddings().weight.requires_grad_(True)
    text = pipeline.tokenizer(
        f"A {item.label} photo in the style of <style>", padding="max_length", return_tensors="pt"
    )
    hidden = pipeline.text_encoder(text.input_ids)[0]
    guess = pipeline.unet(
        alpha.sqrt() * latents + (1 - alpha).sqrt() * noise, time, encoder_hidden_states=hidden
    ).sample
    loss = ((guess - noise) ** 2).mean()
    loss.backward()
    assert first.loss == pytest.approx(float(loss.detach()), rel=1e-5)
    moved = read_embedding(tmp_path / "e.safetensors")[1][0] - weight[ids[0]].detach()
    assert torch.allclose(moved, -0.1 * weight.grad[ids[0]].sign(), atol=1e-3)  # Adam's first step is the sign


def test_an_interrupted_run_gives_the_bits_of_an_uninterrupted_one(real, model, tmp_path):
    learn(real, tmp_path / "whole.safetensors", model, vectors=2, warm_up=3, accumulate=2)
    options = {"model": model, "steps": 4, "batch": 2, "rate": 0.05, "vectors": 2, "warm_up": 3, "accumulate": 2}
    steps = iter_invert(real, tmp_path / "part.safetensors", **options, save_every=1)
    assert len(list(islice(steps, 2))) == 2
    steps.close()
    assert [step.done for step in iter_invert(real, tmp_path / "part.safetensors", **options, save_every=1)] == [3, 4]
    whole, part = (load_file(tmp_path / f"{name}.safetensors")["<style>"] for name in ("whole", "part"))
    assert torch.equal(whole, part)
    assert (tmp_path / "whole.safetensors.csv").read_bytes() == (tmp_path / "part.safetensors.csv").read_bytes()
    finished = list(iter_invert(real, tmp_path / "part.safetensors", **options))
    assert [(step.done, step.total) for step in finished] == [(4, 4)] and math.isnan(finished[0].loss)


def test_one_process_learns_an_embedding(real, model, tmp_path):
    out = tmp_path / "e.safetensors"
    steps = iter_invert(real, out, model=model, steps=2, save_every=1)
    next(steps)
    with pytest.raises(InputError, match="another process is training it"):
        next(iter_invert(real, out, model=model, steps=2, save_every=1))
    steps.close()
    assert next(iter_invert(real, out, model=model, steps=2, save_every=1)).done == 2
    assert not list(tmp_path.glob(".e*"))


def test_accumulated_passes_are_one_larger_batch(real, model, tmp_path):
    learn(real, tmp_path / "whole.safetensors", model, batch=4)
    learn(real, tmp_path / "parts.safetensors", model, batch=1, accumulate=4)
    whole, parts = (read_embedding(tmp_path / f"{name}.safetensors")[1] for name in ("whole", "parts"))
    assert torch.allclose(whole, parts, atol=1e-4)


@pytest.mark.parametrize(("name", "value"), [("rate", 0.1), ("seed", 1), ("initialiser", "photo"), ("batch", 1)])
def test_resuming_with_another_setting_is_refused_by_its_name(real, model, tmp_path, name, value):
    out = tmp_path / "e.safetensors"
    steps = iter_invert(real, out, model=model, steps=4, save_every=1)
    next(steps)
    steps.close()
    with pytest.raises(InputError, match=f"with {name} = "):
        learn(real, out, model, **{"batch": 4, "rate": 5e-4, name: value})


def test_the_file_loads_in_diffusers_and_several_vectors_expand(real, model, tmp_path):
    out = tmp_path / "e.safetensors"
    learn(real, out, model, vectors=3, token="<look>")
    with safe_open(out, "pt") as file:
        assert list(file.keys()) == ["<look>"] and file.metadata()["format"] == "pt"
        assert json.loads(file.metadata()["stylize"])["config"]["prompt"] == "A {class} photo in the style of {token}"
    pipeline = StableDiffusionPipeline.from_pretrained(model, safety_checker=None, requires_safety_checker=False)
    pipeline.load_textual_inversion(str(out))
    prompt = pipeline.maybe_convert_prompt("A coat in the style of <look>", pipeline.tokenizer)
    assert prompt.endswith("<look> <look>_1 <look>_2")
    ids = pipeline.tokenizer.convert_tokens_to_ids(["<look>", "<look>_1", "<look>_2"])
    rows = pipeline.text_encoder.get_input_embeddings().weight[ids]
    assert torch.equal(rows.detach(), load_file(out)["<look>"])
    ours = load_pipeline(model)
    use_embedding(ours, out)
    theirs = pipeline.tokenizer(prompt).input_ids
    assert ours.tokenizer(expanded(ours, "A coat in the style of <look>")).input_ids == theirs


@pytest.mark.slow
@SAMPLES
def test_velocity_models_and_bfloat16_learn_too_in_the_same_process(real, model, tmp_path):
    build("v_prediction").save_pretrained(tmp_path / "v")
    learn(real, tmp_path / "e.safetensors", tmp_path / "v", precision="bfloat16", validate_every=4)
    assert read_embedding(tmp_path / "e.safetensors")[1].isfinite().all() and (tmp_path / "e-000004.png").is_file()
    learn(real, tmp_path / "f.safetensors", tmp_path / "v", steps=1)
    with pytest.raises(InputError, match="predicts 'sample'"):
        build("sample").save_pretrained(tmp_path / "s")
        learn(real, tmp_path / "g.safetensors", tmp_path / "s")


def test_class_wise_writes_a_file_per_class_that_other_classes_do_not_change(real, model, tmp_path, folder, picture):
    last = learn(real, tmp_path / "both", model, mode="class-wise")
    assert last.done == last.total == 8
    assert read_embedding(tmp_path / "both/coat.safetensors")[0] == "<style-coat>"
    only = folder("only", {f"coat/{i}.png": picture(i, 32, 40) for i in range(2)})
    learn(only, tmp_path / "one", model, mode="class-wise")
    alone, among = (read_embedding(tmp_path / name / "coat.safetensors")[1] for name in ("one", "both"))
    assert torch.equal(alone, among)
    assert class_token("<s>", "Ankle boot") != class_token("<s>", "ankle-boot")


@SAMPLES
def test_style_mode_needs_no_labels_and_validation_sheets_are_written(folder, picture, model, tmp_path):
    flat = folder("flat", {f"{i}.png": picture(i, 40, 32) for i in range(2)})
    learn(flat, tmp_path / "e.safetensors", model, mode="style", steps=2, validate_every=2)
    assert (tmp_path / "e-000002.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(InputError, match="--mode style"):
        learn(flat, tmp_path / "f.safetensors", model)


BAD = {
    "upper case": ({"token": "<Style>"}, "Use '<style>'"),
    "a word of the model": ({"token": "photo"}, "already in the model's vocabulary"),
    "not composed": ({"token": "<cafe\u0301>"}, "signs that tokenizers turn"),
    "two words": ({"token": "my style"}, "one word without spaces"),
    "initialiser of several tokens": ({"initialiser": "impressionism"}, "has to be one"),
    "initialiser that is nothing": ({"initialiser": ""}, "has to be one"),
    "no vectors": ({"vectors": 0}, "at least 1"),
    "too many vectors": ({"vectors": 80}, "cut off"),
    "unknown mode": ({"mode": "dsl"}, "Did you mean 'dsi'"),
    "no steps": ({"steps": 0}, "steps = 0"),
    "no rate": ({"rate": float("nan")}, "learning rate"),
    "odd size": ({"size": 30}, "multiple of 4"),
    "half precision on a CPU": ({"precision": "float16"}, "bfloat16"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_options_are_one_clear_error_before_any_step(real, model, tmp_path, case):
    options, message = BAD[case]
    with pytest.raises(InputError, match=message):
        next(iter_invert(real, tmp_path / "e.safetensors", model=model, **options))
    assert not list(tmp_path.glob("e.*"))


def test_bad_images_and_labels_are_refused_by_name(folder, picture, model, tmp_path):
    out = tmp_path / "e.safetensors"
    whole = (folder("whole", {"0.png": picture()}) / "0.png").read_bytes()
    torn = whole[: len(whole) // 2]  # its size can be read, its pixels cannot
    sets = {
        "one class": ({"coat/0.png": picture()}, "all images are of one class"),
        "not an image": ({"coat/0.png": b"text", "bag/0.png": picture()}, "coat/0.png"),
        "torn": ({"coat/0.png": picture(), "bag/0.png": torn}, "bag/0.png: damaged"),
        "no letters": ({"_/0.png": picture(), "bag/0.png": picture()}, "breaks the prompt"),
        "braces": ({"co{at}/0.png": picture(), "bag/0.png": picture()}, "breaks the prompt"),
        "numbers": (
            {"0.png": picture(), "1.png": picture(), "metadata.jsonl": b'{"file_name": "0.png", "label": 3}\n'},
            "no class|name of the class",
        ),
        "the token": ({"<style>/0.png": picture(), "bag/0.png": picture()}, "2 times instead of once"),
        "too long": ({"x" * 100 + "/0.png": picture(), "bag/0.png": picture()}, "cut off"),
    }
    for name, (images, message) in sets.items():
        with pytest.raises(InputError, match=message):
            next(iter_invert(folder(name, images), out, model=model))
    outside = folder("outside", {"0.png": picture()})
    (outside / "metadata.jsonl").write_text('{"file_name": "0.png", "label": "../../up"}\n')
    with pytest.raises(InputError, match="name of a folder"):
        next(iter_invert(outside, tmp_path / "files", model=model, mode="class-wise"))
    out.write_bytes(b"somebody's")
    with pytest.raises(InputError, match="Name another file"):
        next(iter_invert(folder("fine", {"coat/0.png": picture(), "bag/0.png": picture()}), out, model=model))


def test_models_that_cannot_serve_are_refused_with_the_reason(model, tmp_path, monkeypatch):
    def changed(name, **index):
        folder = tmp_path / name
        shutil.copytree(model, folder)
        held = json.loads((folder / "model_index.json").read_text())
        (folder / "model_index.json").write_text(json.dumps(held | index))
        return folder

    cases = [
        (tmp_path / "nowhere", "no such folder"),
        ("nowhere", "OWNER/NAME"),
        ("nobody/nothing", "HF_HUB_OFFLINE is set"),
        (changed("xl", _class_name="StableDiffusionXLPipeline"), "two text encoders"),
        (changed("flux", _class_name="FluxPipeline"), "Expected a StableDiffusionPipeline"),
        (changed("blind", text_encoder=[None, None]), "no text encoder"),
    ]
    half = changed("half")
    next((half / "unet").glob("*.safetensors")).unlink()
    pickled = changed("pickled")
    next((pickled / "unet").glob("*.safetensors")).rename(pickled / "unet" / "diffusion_pytorch_model.bin")
    torn = changed("torn")
    weights = next((torn / "vae").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:2000])
    single = tmp_path / "v1-5.safetensors"
    single.write_bytes(b"x")
    mute = changed("mute")
    shutil.rmtree(mute / "tokenizer")  # diffusers alone would load it with an empty tokenizer
    still = changed("still")
    shutil.rmtree(still / "scheduler")
    for part in ("unet", "text_encoder"):
        cases.append((holed := changed(f"holed-{part}"), "cannot be loaded"))
        weights = next((holed / part).glob("*.safetensors"))
        save_file(dict(list(load_file(weights).items())[1:]), weights, {"format": "pt"})
    cases += [(half, r"unet/\*\.safetensors is missing"), (pickled, "pickled"), (torn, "cannot be loaded")]
    cases += [(mute, "tokenizer/vocab.json is missing"), (still, "scheduler_config.json is missing")]
    for name, message in [*cases, (single, "single-file"), (tmp_path, "model_index.json: not found")]:
        with pytest.raises(InputError, match=message):
            load_pipeline(name)
    with pytest.raises(InputError, match="dtype"):
        load_pipeline(model, dtype="float8")


def test_a_text_encoder_with_the_names_of_old_checkpoints_loads(model, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(model, old)
    weights = next((old / "text_encoder").glob("*.safetensors"))
    named = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in load_file(weights).items()}
    named["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(named, weights, {"format": "pt"})
    assert fingerprint(load_pipeline(old)) == fingerprint(load_pipeline(model))


def test_a_half_downloaded_model_of_the_hub_is_refused_and_a_whole_one_loads_without_network(
    model, tmp_path, monkeypatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    held, commit = tmp_path / "models--owner--name", "0" * 40
    (held / "refs").mkdir(parents=True)
    (held / "refs/main").write_text(commit)
    shutil.copytree(model, held / "snapshots" / commit)
    assert fingerprint(load_pipeline("owner/name")) == fingerprint(load_pipeline(model))
    shutil.rmtree(held / "snapshots" / commit / "tokenizer")
    with pytest.raises(InputError, match=r"tokenizer/vocab\.json is missing"):
        load_pipeline("owner/name")


def test_padding_and_the_end_token_survive_an_added_token(model):
    """With the legacy end-token id 2 CLIP pools at the largest id, which an added token would be."""
    pipeline = load_pipeline(model)
    before = fingerprint(pipeline)
    assert before == fingerprint(load_pipeline(model))
    ids = add_token(pipeline, "<mv>", torch.randn(2, 8))
    row = prompt_ids(pipeline, "A coat photo in the style of <mv>", ids)
    end = pipeline.tokenizer.eos_token_id
    assert (
        len(row) == 77
        and row[row.index(end) :] == [end] * (77 - row.index(end))
        and row[row.index(end) - 2 :][:2] == ids
    )
    pooled = pipeline.text_encoder(torch.tensor([row]))
    assert torch.equal(pooled.pooler_output[0], pooled.last_hidden_state[0, row.index(end)])
    assert before != fingerprint(pipeline)
