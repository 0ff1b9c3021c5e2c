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
    CONFIG_MAPPING,
    MODEL_MAPPING,
    AutoConfig,
    AutoImageProcessor,
    BaseImageProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)

from .. import (
    LotlipConfig,
    LotlipImageProcessor,
    LotlipModel,
    LotlipProcessor,
    LotlipSigmoidModel,
    LotlipTokenizer,
    LotlipTokenWiseModel,
)
from ..convert_lotlip_to_hf import load_towers
from ..data.images import undecoded
from ..data.reader import RowReader
from ..encoder.arguments import LoadingArguments
from ..encoder.dual_encoder import load_encoder, warn_of_whole_embeddings
from ..encoder.families import count_positions, find_family, get_text_kwargs
from ..hub_lotlip import find_pretrained
from ..losses.global_loss import check_dims
from .arguments import TrainArguments
from .distillation import StartModel
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

# The last layer of texts: its name in `--freeze`, and those of families (CLIP and LoTLIP; SigLIP)
TEXT_HEAD = "text_head"
TEXT_HEADS = ("text_projection", "text_model.head")


def build_model(
    args: TrainArguments, dataset: datasets.Dataset, reader: RowReader
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """
    Builds the dual encoder to train, what is not trained frozen, and its processor, whose tokenizer has the limit of
    texts; without a tokenizer the words of the captions are the vocabulary. Raises a `ValueError` if it does not fit
    `args`.
    """
    model, processor, _ = build_model_and_start(args, dataset, reader)
    return model, processor


def build_model_and_start(
    args: TrainArguments, dataset: datasets.Dataset, reader: RowReader
) -> tuple[PreTrainedModel, ProcessorMixin, StartModel | None]:
    """Builds the same as [`build_model`], and a copy of the model before it is changed, if it is to be a teacher."""
    if args.model_name_or_path is not None:
        # trained in float32, whatever the weights are stored in
        loading = LoadingArguments(device="cpu", trust_remote_code=args.trust_remote_code)
        encoder = load_encoder(args.model_name_or_path, loading)
        model = encoder.model
        processor = encoder.processor
        check_dual_encoder(model, f"`--model_name_or_path {args.model_name_or_path}`")
        warn_of_whole_embeddings(encoder, "The trained model", args.model_name_or_path)
        separate_storages(model)
    else:
        model, processor = load_towers_or_new(args, dataset, reader)
    check_vocabulary(args, model, processor.tokenizer)
    check_corners(args, model)
    start = None
    if args.distill_weight > 0:
        if issubclass(OBJECTIVES[args.objective].load_model_class(), LotlipTokenWiseModel):
            raise ValueError(
                f"`--distill_weight` keeps single embeddings, which `--objective {args.objective}` has not: leave it "
                "out."
            )
        start = StartModel.copy(model, find_limit(model, processor))
    if args.no_corner_attention_mask:
        model.config.text_config.corner_attention_mask = False
    model = convert_model(model, OBJECTIVES[args.objective])
    limit_texts(model, processor, args.max_length)
    if args.matryoshka_dims is not None:
        num_dims = getattr(model.config, "projection_dim", None)
        if not num_dims:
            num_dims = model.config.text_config.projection_size
        check_dims(args.matryoshka_dims, num_dims, "--matryoshka_dims")
        model.config.matryoshka_dims = sorted({*args.matryoshka_dims, num_dims}, reverse=True)

    model.vision_model.requires_grad_(not args.freeze_vision_model)
    freeze(model, args.freeze)
    has_long_captions = args.num_long_captions > 0 and reader.has_long_captions
    # that short captions do not read, unless there is no mask
    has_unread_corners = count_corners(model) > 0 and model.config.text_config.corner_attention_mask
    if has_unread_corners and not has_long_captions:
        model.text_model.embeddings.corner_tokens.requires_grad_(False)
    if args.gradient_checkpointing:
        # deprecated until transformers 6, and the only name that 5.21 and older know
        model.gradient_checkpointing_enable()
    return model, processor, start


def separate_storages(model: PreTrainedModel) -> None:
    """
    Gives each parameter memory of its own. Those that were loaded as parts of one tensor (TIPSv2) share it, and then
    cannot be saved in a checkpoint.
    """
    for parameter in model.parameters():
        if parameter.untyped_storage().nbytes() != parameter.nbytes:
            parameter.data = parameter.data.clone()


def check_corners(args: TrainArguments, model: PreTrainedModel) -> None:
    """Raises a `ValueError` if arguments ask for corner tokens that a model does not have."""
    num_corners = count_corners(model)
    given = None
    if args.num_corner_tokens not in (None, num_corners):
        given = f"--num_corner_tokens {args.num_corner_tokens}"
    elif args.no_corner_attention_mask and num_corners == 0:
        given = "--no_corner_attention_mask"
    if given is not None:
        raise ValueError(
            f"The {type(model).__name__} has {num_corners} corner tokens: leave out `{given}`, or start a new LoTLIP "
            "from towers."
        )


def freeze(model: PreTrainedModel, names: list[str]) -> None:
    """
    Freezes modules and parameters by their names; `text_head` is the last layer of texts, whatever a family calls it.
    Raises a `ValueError` for a name that there is not, or if nothing is left to train.
    """
    parameters = dict(model.named_parameters())
    modules = dict(model.named_modules())
    for name in names:
        if name == TEXT_HEAD and name not in modules:
            name = next((head for head in TEXT_HEADS if head in modules), name)
        if name in parameters:
            parameters[name].requires_grad_(False)
        elif name in modules and name != "":  # the name of the whole model
            modules[name].requires_grad_(False)
        else:
            scalars = [known for known in parameters if "." not in known]
            top_level = [known for known, _ in model.named_children()]
            raise ValueError(
                f"`--freeze {name}` is no module or parameter of the {type(model).__name__}, which has "
                f"{', '.join([*top_level, *scalars])}: name one of these, or one within, as `text_model.embeddings`."
            )
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise ValueError(f"`--freeze {' '.join(names)}` leaves nothing to train: leave out a name.")


def check_vocabulary(
    args: TrainArguments,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """
    Finds out by the size of its vocabulary whether a tokenizer is that of another model. Raises a `ValueError` if it
    has more words than the text tower, and warns if it has far fewer.
    """
    num_words = len(tokenizer)
    num_rows = model.config.get_text_config().vocab_size
    if num_words > num_rows:
        raise ValueError(
            f"The tokenizer has {num_words} words, but the text tower {num_rows}: it is that of another model. Put "
            "the right one into the folder of the model."
        )
    is_loaded = args.model_name_or_path is not None or args.text_model_name_or_path is not None
    # a table that is padded to a multiple of 128 has fewer rows than that without a word
    if is_loaded and num_rows - num_words >= 128:
        logger.warning(
            f"The tokenizer has {num_words} words, but the text tower {num_rows}: if it is that of another model, "
            "texts are read as other words."
        )


def count_corners(model: PreTrainedModel) -> int:
    """Counts the corner tokens of a text tower, which LoTLIP alone has."""
    return getattr(model.config.get_text_config(), "num_corner_tokens", 0)


def build_small_model(dataset: datasets.Dataset, reader: RowReader) -> tuple[LotlipModel, LotlipProcessor]:
    """
    Builds a small LoTLIP with random weights for images of 64 pixels, and its processor with the words of the
    captions.
    """
    return build_model(TrainArguments(output_dir="."), dataset, reader)


def load_towers_or_new(
    args: TrainArguments, dataset: datasets.Dataset, reader: RowReader
) -> tuple[LotlipModel, LotlipProcessor]:
    """Loads a LoTLIP of the towers or the configuration that the arguments name, and its processor."""
    text_name = args.text_model_name_or_path
    vision_name = args.vision_model_name_or_path
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
        vision = {}
        image_size = args.image_size
        if vision_name is None:
            vision = SMALL_TOWER | {"patch_size": SMALL_PATCH_SIZE}
            image_size = image_size or 64
        elif image_size is None:
            image_size = find_used_size(vision_name)
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
    """Finds the image processor of an image tower of transformers, if it has one."""
    try:
        return AutoImageProcessor.from_pretrained(find_pretrained(name))
    except (OSError, ValueError):
        return None


def make_image_processor(
    image_size: tuple[int, int], vision_model_name_or_path: str | None = None
) -> LotlipImageProcessor:
    """
    Makes the image processor of an image tower for images of (height, width), which keep their proportions. Mean,
    standard deviation, resampling and the margin around the center crop are those of the tower's image processor, or,
    without a margin, of its timm configuration. Raises a `ValueError` if the tower has no mean and standard deviation.
    """
    height, width = image_size
    settings = {}
    margin = 1.0
    if vision_model_name_or_path is not None:
        config = AutoConfig.from_pretrained(find_pretrained(vision_model_name_or_path))
        timm_settings = getattr(config, "pretrained_cfg", None) or {}
        if "mean" in timm_settings:
            settings = read_timm_settings(timm_settings)
        else:
            theirs = None
            if config.model_type != "timm_wrapper":
                theirs = find_image_processor(vision_model_name_or_path)
            if theirs is None or not scales_to_one(theirs):
                raise ValueError(
                    f"`--vision_model_name_or_path {vision_model_name_or_path}` does not tell mean and standard "
                    "deviation of pixels from 0 to 1: save an image processor in its folder."
                )
            settings, margin = read_image_processor(theirs)
    size = {"shortest_edge": round(max(height, width) * margin)}
    return LotlipImageProcessor(size=size, crop_size={"height": height, "width": width}, **settings)


def read_timm_settings(timm_settings: dict) -> dict:
    """Reads mean, standard deviation and resampling from the configuration of a tower of timm."""
    interpolation = timm_settings.get("interpolation", "").upper()
    return {
        "image_mean": timm_settings["mean"],
        "image_std": timm_settings["std"],
        "resample": getattr(Resampling, interpolation, Resampling.BICUBIC),
    }


def scales_to_one(image_processor: BaseImageProcessor) -> bool:
    """Returns whether an image processor makes pixels numbers from 0 to 1, before it normalizes them."""
    if not image_processor.do_rescale:
        return False
    return math.isclose(image_processor.rescale_factor, 1 / 255, rel_tol=1e-3)


def read_image_processor(image_processor: BaseImageProcessor) -> tuple[dict, float]:
    """Reads mean, standard deviation and resampling of an image processor, and its margin around the center crop."""
    settings = {"image_mean": [0.0] * 3, "image_std": [1.0] * 3, "resample": image_processor.resample}
    if image_processor.do_normalize:
        settings["image_mean"] = image_processor.image_mean
        settings["image_std"] = image_processor.image_std
    margin = 1.0
    shortest_edge = dict(image_processor.size).get("shortest_edge")
    is_cut_out = getattr(image_processor, "do_center_crop", None)
    if image_processor.do_resize and shortest_edge and is_cut_out:
        crop_size = image_processor.crop_size
        margin = shortest_edge / max(crop_size["height"], crop_size["width"])
    return settings, margin


def find_image_size(image_processor: BaseImageProcessor) -> tuple[int, int] | None:
    """Finds height and width of what an image processor makes of any image, None if that is not one size."""
    size = getattr(image_processor, "size", None)
    if getattr(image_processor, "do_center_crop", False):
        size = getattr(image_processor, "crop_size", None)
    size = dict(size or {})
    if not size.get("height") or not size.get("width"):
        return None
    return size["height"], size["width"]


def find_used_size(name: str) -> int | None:
    """
    Finds the side of the images that an image tower is used at, where its image processor makes smaller ones than its
    configuration says: DINOv2's is of 518 pixels, and its processor cuts out 224.
    """
    largest = getattr(AutoConfig.from_pretrained(find_pretrained(name)), "image_size", None)
    height, width = find_image_size(find_image_processor(name)) or (0, 0)
    if isinstance(largest, int) and 0 < height == width < largest:
        return height
    return None


def limit_texts(model: PreTrainedModel, processor: ProcessorMixin, max_length: int | None) -> None:
    """
    Sets the max number of tokens of a text, by default what the tokenizer says, or as many as there are positions.
    Beyond these the position table is stretched. Raises a `ValueError` if there is no room for a text.
    """
    tokenizer = processor.tokenizer
    family = find_family(model.config, processor)
    num_positions = count_positions(model, family)
    limit = find_limit(model, processor)
    if max_length is None:
        max_length = limit
    elif family.padding == "max_length" and max_length < limit:
        raise ValueError(
            f"`--max_length {max_length}` is below the {limit} tokens that a {type(model).__name__} was trained "
            "with: it reads padding, so every text would be another one. Leave it out, or give more."
        )
    elif max_length == family.stale_limit and num_positions is not None and max_length < num_positions:
        raise ValueError(
            f"`--max_length {max_length}` would not be kept: tokenizers of longer models often say so by "
            f"mistake, and the saved model would read {num_positions} tokens. Give {max_length - 1} or "
            f"{max_length + 1}."
        )
    if max_length <= tokenizer.num_special_tokens_to_add():
        raise ValueError(f"`--max_length {max_length}` leaves no room for a text with its special tokens: raise it.")
    if num_positions is not None and max_length > num_positions:
        stretch_positions(model, max_length)
    tokenizer.model_max_length = max_length
    if "max_length" in get_text_kwargs(processor) or "max_length" in tokenizer.init_kwargs:
        # goes before what the class of the processor says
        tokenizer.init_kwargs["max_length"] = max_length


def find_limit(model: PreTrainedModel, processor: ProcessorMixin) -> int:
    """Finds the max number of tokens of a text: that of the tokenizer, but no more than there are positions."""
    limit = processor.tokenizer.model_max_length
    num_positions = count_positions(model, find_family(model.config))
    if num_positions is None:
        return limit
    return min(limit, num_positions)


def stretch_positions(model: PreTrainedModel, max_length: int) -> None:
    """
    Stretches the position table of a text tower in place, for texts of `max_length` tokens, corners not counted. The
    first 20 positions, of a short table half of it, stay as they are, and so does the last one, which is read out
    where texts are padded to the full length (SigLIP); the others are interpolated linearly ("knowledge-preserved
    stretching" of Zhang et al., 2024, https://arxiv.org/abs/2403.15378, section 3.2). Positions that are computed, not
    learned (TIPSv2), go on as they began.

    Raises a `ValueError` if the model has no such table, or has that many positions already.
    """
    config = model.config.get_text_config()
    num_positions = count_positions(model, find_family(model.config))
    names = ("position_embedding", "position_embeddings")
    tables = [name for name, _ in model.text_model.named_modules() if name.split(".")[-1] in names]
    if num_positions is None or len(tables) != 1:
        raise ValueError(f"`{type(model).__name__}` has no one table of text positions that can be stretched.")
    if max_length <= num_positions:
        raise ValueError(f"`max_length={max_length}` needs no more than the {num_positions} positions there are.")
    parent, _, name = tables[0].rpartition(".")
    embeddings = model.text_model.get_submodule(parent)
    weights = embeddings.state_dict()
    table_name = f"{name}.weight"
    num_new = config.max_position_embeddings + max_length - num_positions
    if table_name in weights:
        weights[table_name] = stretch_table(weights[table_name], num_new)
    config.max_position_embeddings = num_new
    # a new module has all buffers of the new length
    longer = type(embeddings)(config).to(next(embeddings.parameters()))
    longer.load_state_dict(weights)
    model.text_model.set_submodule(parent, longer.train(embeddings.training))


def stretch_table(table: torch.Tensor, num_new: int) -> torch.Tensor:
    """Stretches a table of positions of shape (positions, dim) to (num_new, dim): see [`stretch_positions`]."""
    num_old = len(table)
    num_kept = min(20, num_old // 2)
    # where the new positions are in the old table
    num_stretched = num_new - num_kept
    old_positions = torch.linspace(num_kept, num_old - 1, num_stretched, dtype=torch.float64, device=table.device)
    left = old_positions.long().clamp(max=num_old - 2)
    fractions = (old_positions - left)[:, None]
    stretched = torch.lerp(table[left].double(), table[left + 1].double(), fractions).to(table)
    return torch.cat([table[:num_kept], stretched])


def gather_model(model: nn.Module, accelerator: Accelerator) -> PreTrainedModel | None:
    """
    Returns the dual encoder in a [`ContrastiveModel`]; where its parameters are sharded (FSDP2) a copy that has all of
    them on the main process, and None on the others. Every process must call this.
    """
    dual_encoder = accelerator.unwrap_model(model).model
    if not accelerator.is_fsdp2:
        return dual_encoder
    weights = accelerator.get_state_dict(dual_encoder)  # of the main process alone
    if not accelerator.is_main_process:
        return None
    # weights are sampled, and replaced: the random state of the training stays
    with torch.random.fork_rng():
        copy = type(dual_encoder)(dual_encoder.config)
    copy.load_state_dict(weights)
    return copy.to(accelerator.device)


def convert_model(model: PreTrainedModel, objective: Objective) -> PreTrainedModel:
    """
    Makes a LoTLIP of the class that an objective trains, with the weights of another one; the bias of the logits, and
    the temperature that goes with it, are new. A model that has a bias keeps it, and other dual encoders are as they
    are. Raises a `ValueError` if the model compares all tokens and the objective does not, or the other way round, or
    if `AutoModel` would not find the class.
    """
    model_class = objective.load_model_class()
    if find_family(model.config).compares_tokens and model_class is not type(model):
        raise ValueError("A model with late interaction is trained with `--objective filip` alone.")
    if not isinstance(model, LotlipModel) and issubclass(model_class, LotlipTokenWiseModel):
        raise ValueError(
            f"`--objective filip` compares all tokens of texts and images, which a {type(model).__name__} cannot: "
            "leave it out, or train a LoTLIP."
        )
    if not isinstance(model, LotlipModel) and model_class not in (LotlipModel, LotlipSigmoidModel):
        raise ValueError(
            f"The objective trains a {model_class.__name__}, which a {type(model).__name__} cannot become: choose "
            "another `--objective`, or train a LoTLIP."
        )
    if isinstance(model, model_class) or not isinstance(model, LotlipModel):
        return model
    check_model_class(model_class)
    # what the class has of its own, which the configuration of another one would overwrite
    new = {"model_type", "architectures", "auto_map", *model_class.config_class.__annotations__}
    settings = {name: value for name, value in model.config.to_dict().items() if name not in new}
    config = model_class.config_class(**settings)
    weights = model.state_dict()
    if "logit_scale_init_value" in new:  # the class starts from a temperature of its own
        del weights["logit_scale"]
    converted = model_class(config)
    lost = converted.load_state_dict(weights, strict=False).unexpected_keys
    if lost:
        logger.warning(
            f"A {model_class.__name__} has no {', '.join(lost)}: these weights of the {type(model).__name__} are lost."
        )
    return converted.eval()


def check_model_class(model_class: type[PreTrainedModel]) -> None:
    """Raises a `ValueError` for a class that `AutoModel` does not find by its configuration: it loads another one."""
    config_class = model_class.config_class
    model_type = config_class.model_type
    is_known = model_type in CONFIG_MAPPING and CONFIG_MAPPING[model_type] is config_class
    if is_known and MODEL_MAPPING.get(config_class, None) is model_class:
        return
    raise ValueError(
        f"The class {model_class.__name__} would be trained, but saved models of its `model_type`, {model_type!r}, "
        "would load as another class: give it a `config_class` with a `model_type` of its own, and register both with "
        "`AutoConfig` and `AutoModel`."
    )


def build_tokenizer(dataset: datasets.Dataset, reader: RowReader) -> LotlipTokenizer:
    """
    Builds a tokenizer with the most frequent words of the captions, and their characters for all other words, the same
    in every process and run; the trainer of WordPiece breaks ties at random.
    """
    if isinstance(dataset, datasets.IterableDataset):
        raise ValueError("A stream gives no vocabulary: name a tokenizer with `--tokenizer_name`.")
    tokenizer = LotlipTokenizer()
    backend = tokenizer.backend_tokenizer
    words = Counter()
    for row in undecoded(dataset, reader.image_column).select_columns(reader.text_columns):
        for text in reader.short_captions(row) + reader.long_captions(row):
            text = tokenizer.clean_text(text)  # as it does before it tokenizes
            text = backend.normalizer.normalize_str(text).replace(tokenizer.sep_token, " ")
            words.update(word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text))
    characters = sorted(set("".join(words)))
    vocab = dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    vocab |= dict.fromkeys(characters + [f"##{character}" for character in characters])
    frequent = sorted(words, key=lambda word: (-words[word], word))
    vocab |= dict.fromkeys(frequent[: max(0, MAX_VOCAB_SIZE - len(vocab))])
    return LotlipTokenizer(vocab={token: index for index, token in enumerate(vocab)})
