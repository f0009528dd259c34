"""The placeholder token of a learnt embedding: adding it to a pipeline, and reading and writing its file.

The file is what diffusers' ``load_textual_inversion`` reads: safetensors with one tensor ``float32 [vectors, hidden]``,
whose key is the placeholder. Several vectors stand for token, token_1, token_2, ...; pipelines expand the prompt.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from metrics.errors import InputError
from metrics.files import write_atomically

MAX_NUMBERS = 2**20  # in a file: 77 vectors, the length of a prompt, of 4096 numbers are a third of it


def token_names(token: str, vectors: int) -> list[str]:
    """The tokens that ``vectors`` vectors are stored as: ``<s>``, ``<s>_1``, ``<s>_2``, ..."""
    return [token, *(f"{token}_{number}" for number in range(1, vectors))]


def check_token(tokenizer: Any, token: str, vectors: int) -> None:
    """Raises InputError for a token that the vocabulary holds, or that would not survive loading elsewhere.

    Transformers 5 lower-cases added tokens, so that loaders which add ``<MV>`` find ``<mv>`` in a prompt and silently
    use only the first of its vectors: upper case is refused.
    """
    if vectors < 1:
        raise InputError(f"vectors = {vectors}: expected at least 1.")
    if not token or any(letter.isspace() for letter in token):
        raise InputError(f"placeholder {token!r}: expected one word without spaces, e.g. <my-style>")
    normal = unicodedata.normalize("NFC", token.lower())
    if token != normal:
        raise InputError(
            f"placeholder {token!r}: has upper-case letters or signs that tokenizers turn into others when the file is "
            f"loaded; all but the first vector would be lost. Use {normal!r}."
        )
    known = tokenizer.get_vocab()
    for name in token_names(token, vectors):
        if name in known or f"{name}</w>" in known:
            raise InputError(
                f"placeholder {name!r}: is already in the model's vocabulary, so prompts would lose that word. "
                f"Choose another, e.g. <{token.strip('<>')}-style>"
            )


def initialiser_id(tokenizer: Any, word: str) -> int:
    """The id of the one token that ``word`` is; raises InputError when it is none or several."""
    ids = tokenizer(word, add_special_tokens=False).input_ids
    if len(ids) != 1 or ids[0] in tokenizer.all_special_ids:
        pieces = tokenizer.convert_ids_to_tokens(ids)
        raise InputError(
            f"initialiser {word!r}: is {len(ids)} tokens for this model ({' '.join(pieces)}), and has to be one. "
            "Use one plain word, e.g. --initialiser style"
        )
    return int(ids[0])


def add_token(pipeline: Any, token: str, values: torch.Tensor) -> list[int]:
    """Add ``token`` with the vectors ``values [vectors, hidden]`` to tokenizer and text encoder; returns its ids.

    No other row of the embedding matrix changes by a bit.

    Args:
        pipeline: of :func:`stylize.diffusion.pipeline.load_pipeline`.
        token: the placeholder.
        values: its vectors ``[vectors, hidden]``.

    Returns:
        The ids of the new tokens, in the order of the vectors.
    """
    from transformers import AddedToken

    names = token_names(token, len(values))
    tokenizer, encoder = pipeline.tokenizer, pipeline.text_encoder
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in names])
    ids = [int(number) for number in tokenizer.convert_tokens_to_ids(names)]
    encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    weight = encoder.get_input_embeddings().weight
    weight.requires_grad_(False)
    weight[ids] = values.to(weight)
    return ids


def expanded(pipeline: Any, prompt: str) -> str:
    """The prompt in which a token of several vectors is followed by its other names, as pipelines do themselves."""
    return str(pipeline.maybe_convert_prompt(prompt, pipeline.tokenizer))


def prompt_ids(pipeline: Any, prompt: str, ids: Sequence[int]) -> list[int]:
    """Token ids of a prompt, padded to the model's length; ``ids`` have to be in it once each, in order.

    Args:
        pipeline: of :func:`stylize.diffusion.pipeline.load_pipeline`.
        prompt: the sentence.
        ids: of the placeholder's tokens.

    Returns:
        Ids, as many as the model reads.

    Raises:
        InputError: the prompt is too long, or something in it (a class name) hides or repeats the placeholder.
    """
    tokenizer = pipeline.tokenizer
    text = expanded(pipeline, prompt)
    full = tokenizer(text).input_ids
    if len(full) > tokenizer.model_max_length:
        raise InputError(
            f"prompt {prompt!r}: {len(full)} tokens, and the model reads {tokenizer.model_max_length}, so its end "
            "would be cut off. Shorten the class name or the prompt, or learn fewer vectors."
        )
    wanted = set(ids)
    found = [number for number in full if number in wanted]
    if found != list(ids):
        raise InputError(
            f"prompt {prompt!r}: the model reads the placeholder {len(found) / max(1, len(ids)):g} times instead of "
            "once. Rename the class, or choose another placeholder."
        )
    padded = tokenizer(text, padding="max_length", max_length=tokenizer.model_max_length)
    return [int(number) for number in padded.input_ids]


def save_embedding(path: Path, token: str, values: torch.Tensor, header: Mapping[str, Any]) -> None:
    """Write ``learned_embeds.safetensors``; ``header`` goes into its metadata, which loaders ignore."""
    tensor = values.detach().float().cpu().contiguous()
    write_atomically(path, save({token: tensor}, {"format": "pt", "stylize": json.dumps(header, sort_keys=True)}))


def read_embedding(path: Path) -> tuple[str, torch.Tensor]:
    """Placeholder and vectors ``float32 [vectors, hidden]`` of a learnt embedding; raises InputError."""
    try:
        if path.stat().st_size > 8 * MAX_NUMBERS + 2**20:  # before it is mapped into memory
            raise OSError(f"{path.stat().st_size} bytes, far more than any embedding has")
        with safe_open(path, "pt") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
            fits = len(shapes) == 1 and all(
                len(shape) in (1, 2) and math.prod(shape) <= MAX_NUMBERS for shape in shapes.values()
            )
            tensors = {name: file.get_tensor(name) for name in shapes if fits}
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path}: cannot be read as an embedding ({error}). Expected a file from `stylize invert`."
        ) from error
    if not fits:
        held = ", ".join(str(shape) for shape in [*shapes.values()][:3])
        raise InputError(
            f"{path}: holds {len(shapes)} tensors ({held}). Expected one [vectors, hidden] of at most {MAX_NUMBERS} "
            "numbers, named after its placeholder."
        )
    token, values = next(iter(tensors.items()))
    if not values.numel() or not values.isfinite().all():
        raise InputError(f"{path}: its vectors are empty or not finite. Learn it again, with a smaller --rate.")
    return token, values.float().reshape(-1, values.shape[-1])


def use_embedding(pipeline: Any, path: Path) -> tuple[str, list[int]]:
    """Add the embedding in ``path`` to the pipeline; returns its placeholder and the ids of its tokens.

    Args:
        pipeline: of :func:`stylize.diffusion.pipeline.load_pipeline`.
        path: the file of the embedding.

    Returns:
        Placeholder and ids.

    Raises:
        InputError: not an embedding, of another width than this model's, or its placeholder is in the vocabulary.
    """
    token, values = read_embedding(path)
    width = pipeline.text_encoder.get_input_embeddings().weight.shape[1]
    if values.shape[1] != width:
        raise InputError(
            f"{path}: vectors of {values.shape[1]} numbers, and this model has {width}. "
            "An embedding works only with the model (or its fine-tunes) that it was learnt for: name it with --model."
        )
    if token in pipeline.tokenizer.get_vocab():
        raise InputError(f"{path}: its placeholder {token!r} is already in the model's vocabulary.")
    return token, add_token(pipeline, token, values)
