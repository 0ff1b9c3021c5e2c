# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The model and the tokenizer that a training starts from, made ready for it."""

import logging
import math
from collections import Counter

import datasets
import torch
from accelerate import Accelerator
from PIL.Image import Resampling
from torch import nn
from torch.nn.functional import normalize
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    BaseImageProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)

import modeling_lotlip

from .. import LotlipConfig, LotlipImageProcessor, LotlipModel, LotlipProcessor, LotlipTokenizer
from ..convert_lotlip_to_hf import load_towers
from ..data.images import undecoded
from ..data.reader import RowReader
from ..encoder.arguments import LoadingArguments
from ..encoder.features import get_padding, get_text_kwargs, is_token_wise
from ..encoder.models import count_positions, load_model
from ..hub_lotlip import find_pretrained
from ..losses.global_loss import check_dims
from .arguments import TrainArguments
from .dual_encoder import check_dual_encoder
from .objectives import OBJECTIVES, Objective


logger = logging.getLogger(__name__)

# The towers that are trained from scratch where none is named: small, for drawn scenes
SMALL_TOWER = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "initializer_range": 0.1,
}
# In pixels. A thing of a scene lies in one to four patches of this side; of 8 pixels there are so many that two layers
# learn late what they are parts of.
SMALL_PATCH_SIZE = 16

# The words of a new tokenizer, and their characters
MAX_VOCAB_SIZE = 8192

# A new text tower is called collapsed above this mean cosine of different captions. Small ones of width 128 start at
# 1.000 with an `initializer_range` of 0.02, at 0.998 with 0.05, and at 0.92 to 0.98 with 0.1, with which they learn.
COLLAPSED_COSINE = 0.995
NUM_COMPARED_CAPTIONS = 64


def build_model(
    args: TrainArguments, dataset: datasets.Dataset, reader: RowReader
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """
    The dual encoder to train, what is not trained frozen, and its processor, whose tokenizer has the limit of texts;
    without a tokenizer the words of the captions are the vocabulary. Raises a `ValueError` if it does not fit `args`.
    """
    if args.model_name_or_path is not None:
        loading = LoadingArguments(device="cpu")  # trained in float32, whatever the weights are stored in
        model, processor = load_model(args.model_name_or_path, loading, takes_tokens=True)
        check_dual_encoder(model, f"`--model_name_or_path {args.model_name_or_path}`")
    else:
        model, processor = load_towers_or_new(args, dataset, reader)
    check_vocabulary(args, model, processor.tokenizer)
    num_corners, wanted = count_corners(model), args.num_corner_tokens
    is_wrong_number = wanted not in (None, num_corners)
    if is_wrong_number or (args.no_corner_attention_mask and num_corners == 0):
        wrong = f"--num_corner_tokens {wanted}" if is_wrong_number else "--no_corner_attention_mask"
        cause = f"The {type(model).__name__} has {num_corners} corner tokens: leave out `{wrong}`"
        raise ValueError(f"{cause}, or start a new LoTLIP from towers.")
    if args.no_corner_attention_mask:
        model.config.text_config.corner_attention_mask = False
    model = convert_model(model, OBJECTIVES[args.objective])
    limit_texts(model, processor, args.max_length)
    if args.matryoshka_dims is not None:
        num_dims = getattr(model.config, "projection_dim", None) or model.config.text_config.projection_size
        check_dims(args.matryoshka_dims, num_dims, "--matryoshka_dims")
        model.config.matryoshka_dims = sorted({*args.matryoshka_dims, num_dims}, reverse=True)

    model.vision_model.requires_grad_(not args.freeze_vision_model)
    has_long_captions = args.num_long_captions > 0 and reader.has_long_captions
    if not has_long_captions and num_corners > 0:
        model.text_model.embeddings.corner_tokens.requires_grad_(False)
    if args.gradient_checkpointing:
        # its older name is deprecated, and all that transformers 5.21 knows
        getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    return model, processor


def check_vocabulary(args: TrainArguments, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Tells a tokenizer of another model by the size of its vocabulary; a table of words may be padded."""
    num_words, num_rows = len(tokenizer), model.config.get_text_config().vocab_size
    cause = f"The tokenizer has {num_words} words, but the text tower {num_rows}"
    if num_words > num_rows:
        raise ValueError(f"{cause}: it is that of another model. Put the right one into the folder of the model.")
    is_loaded = args.model_name_or_path is not None or args.text_model_name_or_path is not None
    if is_loaded and num_rows - num_words >= 128:
        logger.warning(f"{cause}: if it is that of another model, texts are read as other words.")


def count_corners(model: PreTrainedModel) -> int:
    """The corner tokens of a text tower, which LoTLIP alone has."""
    return getattr(model.config.get_text_config(), "num_corner_tokens", 0)


def build_small_model(dataset: datasets.Dataset, reader: RowReader) -> tuple[LotlipModel, LotlipProcessor]:
    """A small LoTLIP with random weights for images of 64 pixels, and its processor with the words of the captions."""
    return build_model(TrainArguments(output_dir="."), dataset, reader)


def load_towers_or_new(
    args: TrainArguments, dataset: datasets.Dataset, reader: RowReader
) -> tuple[LotlipModel, LotlipProcessor]:
    """A LoTLIP of the towers or the configuration that the arguments name, and its processor."""
    text_name, vision_name = args.text_model_name_or_path, args.vision_model_name_or_path
    tokenizer_name = args.tokenizer_name or text_name
    if tokenizer_name is not None:
        tokenizer = LotlipTokenizer.from_pretrained(tokenizer_name)
    else:
        tokenizer = build_tokenizer(dataset, reader)
    if args.config_name is not None:
        config = LotlipConfig.from_pretrained(args.config_name)
        config.text_config.vocab_size = max(config.text_config.vocab_size, len(tokenizer))
        if args.num_corner_tokens is not None:
            config.text_config.num_corner_tokens = args.num_corner_tokens
        model = LotlipModel(config)
    else:
        text = {"num_corner_tokens": args.num_corner_tokens}
        if text_name is None:
            text |= SMALL_TOWER | {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
            text |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        vision = SMALL_TOWER | {"patch_size": SMALL_PATCH_SIZE} if vision_name is None else {}
        image_size = args.image_size or (64 if vision_name is None else find_used_size(vision_name))
        if image_size is not None:
            vision["image_size"] = image_size
        model = load_towers(vision_name, text_name, vision, text)
    tokenizer.model_max_length = 128 - count_corners(model)  # as in the paper
    if text_name is None:
        warn_if_collapsed(model, tokenizer, dataset, reader)
    image_processor = make_image_processor(model.vision_model.embeddings.image_size, vision_name)
    return model, LotlipProcessor(image_processor=image_processor, tokenizer=tokenizer)


def warn_if_collapsed(
    model: LotlipModel,
    tokenizer: LotlipTokenizer,
    dataset: datasets.Dataset | datasets.IterableDataset,
    reader: RowReader,
) -> None:
    """
    Warns if a new text tower embeds different captions alike: what it learns from is then smaller than what its layer
    norms keep, and the training waits for long. A few captions are compared, in one forward pass.

    Args:
        model (`LotlipModel`): The model, whose text tower has random weights.
        tokenizer (`LotlipTokenizer`): Its tokenizer.
        dataset (`Dataset` or `IterableDataset`): The rows that it is trained on.
        reader (`RowReader`): Reads the captions of a row.
    """
    captions = {}
    for row in undecoded(dataset, reader.image_column).select_columns(reader.text_columns):
        captions |= dict.fromkeys(reader.short_captions(row) or reader.long_captions(row))
        if len(captions) >= NUM_COMPARED_CAPTIONS:
            break
    cosine = compare_captions(model, tokenizer, list(captions)[:NUM_COMPARED_CAPTIONS])
    if cosine > COLLAPSED_COSINE:
        logger.warning(
            f"The text tower starts collapsed: different captions have a mean cosine of {cosine:.4f}. Raise "
            f"`initializer_range` of its configuration, which is {model.config.text_config.initializer_range}: the "
            f"small tower that is trained without `--config_name` has {SMALL_TOWER['initializer_range']}."
        )


@torch.no_grad()
def compare_captions(model: LotlipModel, tokenizer: LotlipTokenizer, captions: list[str]) -> float:
    """Returns the mean cosine between the embeddings of different captions, without dropout; 0 for fewer than two."""
    if len(captions) < 2:
        return 0.0
    is_training = model.training
    model.eval()
    tokens = tokenizer(captions, padding=True, truncation=True, return_tensors="pt")
    embeds = normalize(model.get_text_features(**tokens).pooler_output, dim=-1)
    model.train(is_training)
    cosines = embeds @ embeds.t()
    num_pairs = len(captions) * (len(captions) - 1)
    return (cosines.sum() - cosines.trace()).item() / num_pairs


def find_image_processor(name: str) -> BaseImageProcessor | None:
    """The image processor of an image tower of transformers, if it has one."""
    try:
        return AutoImageProcessor.from_pretrained(find_pretrained(name))
    except (OSError, ValueError):
        return None


def make_image_processor(
    image_size: tuple[int, int], vision_model_name_or_path: str | None = None
) -> LotlipImageProcessor:
    """
    The image processor of an image tower for images of (height, width), which keep their proportions. Mean, standard
    deviation, resampling and the margin around the center crop are those of the tower's image processor, or, without a
    margin, of its timm configuration. Raises a `ValueError` if the tower does not tell mean and standard deviation.
    """
    height, width = image_size
    settings, margin = {}, 1.0
    if vision_model_name_or_path is not None:
        config = AutoConfig.from_pretrained(find_pretrained(vision_model_name_or_path))
        timm_settings = getattr(config, "pretrained_cfg", None) or {}
        theirs = None if config.model_type == "timm_wrapper" else find_image_processor(vision_model_name_or_path)
        if "mean" in timm_settings:
            settings = {"image_mean": timm_settings["mean"], "image_std": timm_settings["std"]}
            interpolation = timm_settings.get("interpolation", "").upper()
            settings["resample"] = getattr(Resampling, interpolation, Resampling.BICUBIC)
        elif theirs is not None and theirs.do_rescale and math.isclose(theirs.rescale_factor, 1 / 255, rel_tol=1e-3):
            mean, std = (theirs.image_mean, theirs.image_std) if theirs.do_normalize else ([0.0] * 3, [1.0] * 3)
            settings = {"image_mean": mean, "image_std": std, "resample": theirs.resample}
            size = dict(theirs.size) if theirs.do_resize else {}
            if size.get("shortest_edge") and getattr(theirs, "do_center_crop", None):
                margin = size["shortest_edge"] / max(theirs.crop_size["height"], theirs.crop_size["width"])
        else:
            cause = (
                f"`--vision_model_name_or_path {vision_model_name_or_path}` does not tell mean and standard deviation"
            )
            raise ValueError(f"{cause} of pixels from 0 to 1: save an image processor in its folder.")
    size, crop_size = {"shortest_edge": round(max(height, width) * margin)}, {"height": height, "width": width}
    return LotlipImageProcessor(size=size, crop_size=crop_size, **settings)


def find_image_size(image_processor: BaseImageProcessor) -> tuple[int, int] | None:
    """Height and width of what an image processor makes of any image, None if that is not one size."""
    is_cut_out = getattr(image_processor, "do_center_crop", False)
    size = dict(getattr(image_processor, "crop_size" if is_cut_out else "size", None) or {})
    return (size["height"], size["width"]) if size.get("height") and size.get("width") else None


def find_used_size(name: str) -> int | None:
    """
    The side of the images that an image tower is used at, where its image processor makes smaller ones than its
    configuration says: DINOv2's is of 518 pixels, and its processor cuts out 224.
    """
    largest = getattr(AutoConfig.from_pretrained(find_pretrained(name)), "image_size", None)
    height, width = find_image_size(find_image_processor(name)) or (0, 0)
    return height if isinstance(largest, int) and 0 < height == width < largest else None


def limit_texts(model: PreTrainedModel, processor: ProcessorMixin, max_length: int | None) -> None:
    """
    Sets the most tokens of a text, by default what the tokenizer says, or as many as there are positions. Beyond these
    the position table is stretched. Raises a `ValueError` if there is no room for a text.
    """
    tokenizer, num_positions = processor.tokenizer, count_positions(model)
    if max_length is None:
        max_length = min(tokenizer.model_max_length, num_positions or tokenizer.model_max_length)
    if max_length <= tokenizer.num_special_tokens_to_add():
        raise ValueError(f"`--max_length {max_length}` leaves no room for a text with its special tokens: raise it.")
    if num_positions is not None and max_length > num_positions:
        stretch_positions(model, max_length)
    tokenizer.model_max_length = max_length
    if get_padding(processor) == "max_length":
        # padding is read too (SigLIP): no mask
        tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = ["input_ids"]
    if "max_length" in get_text_kwargs(processor) or "max_length" in tokenizer.init_kwargs:
        tokenizer.init_kwargs["max_length"] = max_length  # goes before what the class of the processor says


def stretch_positions(model: PreTrainedModel, max_length: int) -> None:
    """
    Stretches the position table of a text tower in place, for texts of `max_length` tokens, corners not counted. The
    first 20 positions, of a short table half of it, stay as they are; the others are interpolated linearly between
    these and the last one ("knowledge-preserved stretching" of Zhang et al., 2024, https://arxiv.org/abs/2403.15378,
    section 3.2). Raises a `ValueError` if the model has no such table, or has that many positions already.
    """
    config, num_positions = model.config.get_text_config(), count_positions(model)
    names = ("position_embedding", "position_embeddings")
    tables = [name for name, _ in model.text_model.named_modules() if name.split(".")[-1] in names]
    if num_positions is None or len(tables) != 1:
        raise ValueError(f"`{type(model).__name__}` has no one table of text positions that can be stretched.")
    if max_length <= num_positions:
        raise ValueError(f"`max_length={max_length}` needs no more than the {num_positions} positions there are.")
    parent, _, name = tables[0].rpartition(".")
    embeddings = model.text_model.get_submodule(parent)
    weights = embeddings.state_dict()
    table = weights[f"{name}.weight"]
    num_old, num_new, num_kept = len(table), len(table) + max_length - num_positions, min(20, len(table) // 2)
    # where the new positions are in the old table
    places = torch.linspace(num_kept, num_old - 1, num_new - num_kept, dtype=torch.float64, device=table.device)
    left = places.long().clamp(max=num_old - 2)
    stretched = torch.lerp(table[left].double(), table[left + 1].double(), (places - left)[:, None]).to(table)
    weights[f"{name}.weight"] = torch.cat([table[:num_kept], stretched])
    config.max_position_embeddings = num_new
    longer = type(embeddings)(config).to(table)  # with all buffers of the new length
    longer.load_state_dict(weights)
    model.text_model.set_submodule(parent, longer.train(embeddings.training))


def gather_model(model: nn.Module, accelerator: Accelerator) -> PreTrainedModel | None:
    """
    The dual encoder in a [`ContrastiveModel`]; where its parameters are sharded (FSDP2) a copy that has all of them on
    the main process, and None on the others. Every process must call this.
    """
    trained = accelerator.unwrap_model(model).model
    if not accelerator.is_fsdp2:
        return trained
    weights = accelerator.get_state_dict(trained)  # of the main process alone
    if not accelerator.is_main_process:
        return None
    with torch.random.fork_rng():
        copy = type(trained)(trained.config)
    copy.load_state_dict(weights)
    return copy.to(accelerator.device)


def convert_model(model: PreTrainedModel, objective: Objective) -> PreTrainedModel:
    """
    A LoTLIP of the class that an objective trains, with the weights of another one; the bias of the logits, and the
    temperature that goes with it, are new. A model that has a bias keeps it, and other dual encoders are as they are.
    Raises a `ValueError` if the model compares all tokens and the objective does not, or the other way round.
    """
    model_class = getattr(modeling_lotlip, objective.model_class)
    if is_token_wise(model) and model_class is not type(model):
        raise ValueError("A model with late interaction is trained with `--objective filip` alone.")
    if not isinstance(model, LotlipModel) and objective.model_class == "LotlipTokenWiseModel":
        cause = f"`--objective filip` compares all tokens of texts and images, which a {type(model).__name__} cannot"
        raise ValueError(f"{cause}: leave it out, or train a LoTLIP.")
    if isinstance(model, model_class) or not isinstance(model, LotlipModel):
        return model
    new = {"model_type", "architectures", "auto_map", *model_class.config_class.__annotations__}
    config = model_class.config_class(**{k: value for k, value in model.config.to_dict().items() if k not in new})
    weights = model.state_dict()
    if "logit_scale_init_value" in new:
        del weights["logit_scale"]
    converted = model_class(config)
    converted.load_state_dict(weights, strict=False)
    return converted.eval()


def build_tokenizer(dataset: datasets.Dataset, reader: RowReader) -> LotlipTokenizer:
    """
    A tokenizer with the most frequent words of the captions, and their characters for all other words, the same in
    every process and run; the trainer of WordPiece breaks ties at random.
    """
    if isinstance(dataset, datasets.IterableDataset):
        raise ValueError("A stream gives no vocabulary: name a tokenizer with `--tokenizer_name`.")
    tokenizer = LotlipTokenizer()
    backend = tokenizer.backend_tokenizer
    words = Counter()
    for row in undecoded(dataset, reader.image_column).select_columns(reader.text_columns):
        for text in reader.short_captions(row) + reader.long_captions(row):
            text = backend.normalizer.normalize_str(text).replace(tokenizer.sep_token, " ")
            words.update(word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text))
    characters = sorted(set("".join(words)))
    vocab = dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    vocab |= dict.fromkeys(characters + [f"##{character}" for character in characters])
    frequent = sorted(words, key=lambda word: (-words[word], word))
    vocab |= dict.fromkeys(frequent[: max(0, MAX_VOCAB_SIZE - len(vocab))])
    return LotlipTokenizer(vocab={token: index for index, token in enumerate(vocab)})
