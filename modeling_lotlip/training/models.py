# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The model and the tokenizer that a training starts from, made ready for it."""

from collections import Counter
from contextlib import suppress

import datasets
import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from transformers import PreTrainedModel, ProcessorMixin

import modeling_lotlip

from .. import LotlipConfig, LotlipModel, LotlipProcessor, LotlipTokenizer
from ..convert_lotlip_to_hf import load_towers
from ..data.images import undecoded
from ..data.reader import RowReader
from ..embedding.arguments import LoadingArguments
from ..embedding.features import get_padding, get_text_kwargs
from ..embedding.models import count_positions, load_model
from ..embedding.token_wise import is_token_wise
from ..losses.global_loss import check_dims
from .arguments import TowerArguments, TrainArguments
from .dual_encoder import check_dual_encoder
from .image_processors import find_used_size, make_image_processor
from .objectives import OBJECTIVES, Objective
from .positions import stretch_positions


# The towers that are trained from scratch where none is named: small, for drawn scenes.
SMALL_TOWER = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "initializer_range": 0.1,
}


MAX_VOCAB_SIZE = 8192


def build_model(
    args: TrainArguments, dataset: datasets.Dataset, reader: RowReader
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """
    The dual encoder to train and its processor, whose tokenizer has the limit of texts. What is not trained is frozen:
    the image tower, and corner tokens that no caption has.

    Args:
        args (`TrainArguments`):
            The arguments of the training.
        dataset (`Dataset`):
            The training data: without a tokenizer its words are the vocabulary.
        reader (`RowReader`):
            Reads its captions.

    Raises:
        `ValueError`: if the model does not fit the arguments.
    """
    objective = OBJECTIVES[args.objective]
    if args.model_name_or_path is not None:
        loading = LoadingArguments(device="cpu")  # trained in float32, whatever the weights are stored in
        model, processor = load_model(args.model_name_or_path, loading, takes_tokens=True)
        check_dual_encoder(model, f"`--model_name_or_path {args.model_name_or_path}`")
    else:
        try:
            model, processor = load_towers_or_new(args, dataset, reader)
        except OSError as error:
            names = {name: value for name, value in vars(args).items() if name.endswith(("_or_path", "config_name"))}
            named = " ".join(f"--{name} {value}" for name, value in names.items() if value is not None)
            raise ValueError(f"`{named}` cannot be loaded: {error}") from error
    set_corners(args, model)
    model = convert_model(model, objective)
    limit_texts(model, processor, args.max_length)
    if args.matryoshka_dims is not None:
        num_dims = getattr(model.config, "projection_dim", None) or model.config.text_config.projection_size
        check_dims(args.matryoshka_dims, num_dims, "--matryoshka_dims")
        model.config.matryoshka_dims = sorted({*args.matryoshka_dims, num_dims}, reverse=True)

    is_frozen = args.freeze_vision_model
    if is_frozen is None:
        is_frozen = args.model_name_or_path is not None or args.vision_model_name_or_path is not None
    if not is_frozen and args.cache_image_features:
        raise ValueError("`--cache_image_features` is for a frozen image tower.")
    model.vision_model.requires_grad_(not is_frozen)
    has_long_captions = args.num_long_captions > 0 and reader.has_long_captions
    if not has_long_captions and count_corners(model) > 0:
        model.text_model.embeddings.corner_tokens.requires_grad_(False)
    if args.gradient_checkpointing:
        # its older name is deprecated, and all that transformers 5.21 knows
        getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    return model, processor


def count_corners(model: PreTrainedModel) -> int:
    """The corner tokens of a text tower, which LoTLIP alone has."""
    return getattr(model.config.get_text_config(), "num_corner_tokens", 0)


def set_corners(args: TowerArguments, model: PreTrainedModel) -> None:
    """
    Lifts the mask of the corner tokens, if that is asked for.

    Raises:
        `ValueError`: if the model has another number of corner tokens than is asked for, or none that are masked.
    """
    num_corners = count_corners(model)
    if args.num_corner_tokens not in (None, num_corners):
        raise ValueError(
            f"`--num_corner_tokens {args.num_corner_tokens}`, but the {type(model).__name__} has {num_corners}: "
            "leave it out, or start a new LoTLIP from towers."
        )
    if args.no_corner_attention_mask:
        if num_corners == 0:
            raise ValueError(
                "`--no_corner_attention_mask` is for a model with corner tokens, and this one has none: leave it out."
            )
        model.config.text_config.corner_attention_mask = False


def build_small_model(dataset: datasets.Dataset, reader: RowReader) -> tuple[LotlipModel, LotlipProcessor]:
    """A small LoTLIP with random weights for images of 64 pixels, and its processor with the words of the captions."""
    return build_model(TrainArguments(output_dir="."), dataset, reader)


def load_towers_or_new(
    args: TowerArguments, dataset: datasets.Dataset, reader: RowReader
) -> tuple[LotlipModel, LotlipProcessor]:
    """A LoTLIP of the towers or the configuration that the arguments name, and its processor."""
    tokenizer_name = args.tokenizer_name or args.text_model_name_or_path
    if tokenizer_name is not None:
        tokenizer = LotlipTokenizer.from_pretrained(tokenizer_name)
    else:
        tokenizer = build_tokenizer(dataset, reader)
    if args.config_name is not None:
        config = LotlipConfig.from_pretrained(args.config_name)
        config.text_config.vocab_size = max(config.text_config.vocab_size, len(tokenizer))
        if args.num_corner_tokens is not None:
            config.text_config.num_corner_tokens = args.num_corner_tokens
        elif OBJECTIVES[args.objective].num_corner_tokens == 0:
            config.text_config.num_corner_tokens = 0
        model = LotlipModel(config)
    else:
        model = join_towers(args, tokenizer)
        check_vocabulary(args, tokenizer, model.config.text_config.vocab_size)
    tokenizer.model_max_length = 128 - count_corners(model)  # as in the paper
    image_processor = make_image_processor(
        model.vision_model.embeddings.image_size, args.vision_model_name_or_path, args.image_mean, args.image_std
    )
    return model, LotlipProcessor(image_processor=image_processor, tokenizer=tokenizer)


def join_towers(args: TowerArguments, tokenizer: LotlipTokenizer) -> LotlipModel:
    """A model of two towers, each loaded by its name, or small and with random weights where none is named."""
    text_fields = {"text_num_corner_tokens": args.num_corner_tokens}
    image_size = args.image_size
    if image_size is None and args.vision_model_name_or_path is not None:
        image_size = find_used_size(args.vision_model_name_or_path)
    vision_fields = {"vision_image_size": image_size} if image_size is not None else {}
    if args.text_model_name_or_path is None:
        text_fields |= {f"text_{name}": value for name, value in SMALL_TOWER.items()}
        text_fields |= {"text_vocab_size": len(tokenizer), "text_hidden_dropout_prob": 0.0}
        text_fields |= {"text_attention_probs_dropout_prob": 0.0, "text_pad_token_id": tokenizer.pad_token_id}
    if args.vision_model_name_or_path is None:
        vision_fields |= {f"vision_{name}": value for name, value in SMALL_TOWER.items()}
        vision_fields |= {"vision_patch_size": 8, "vision_image_size": args.image_size or 64}
    return load_towers(args.vision_model_name_or_path, args.text_model_name_or_path, **text_fields, **vision_fields)


def check_vocabulary(args: TowerArguments, tokenizer: LotlipTokenizer, vocab_size: int) -> None:
    """
    Raises a `ValueError` for a tokenizer that is not that of the pretrained text tower: other words than are written
    would be read. Without a tokenizer of its own the sizes of tower and tokenizer are compared.
    """
    if args.text_model_name_or_path is None:
        return
    tower, named, own = f"`--text_model_name_or_path {args.text_model_name_or_path}`", "The tokenizer", None
    if args.tokenizer_name is not None:
        named = f"`--tokenizer_name {args.tokenizer_name}`"
        with suppress(OSError, ValueError):  # it has none
            own = LotlipTokenizer.from_pretrained(args.text_model_name_or_path)
    if own is not None and own.get_vocab() != tokenizer.get_vocab():
        num_same = len(own.get_vocab().items() & tokenizer.get_vocab().items())
        raise ValueError(
            f"{named} is not the tokenizer of {tower}: {num_same} of its {len(tokenizer)} words have the same number "
            "there. Leave it out."
        )
    # a table may have more rows than its own tokenizer has words
    is_larger = len(tokenizer) > vocab_size
    if own is None and (is_larger or (args.tokenizer_name is not None and len(tokenizer) < vocab_size)):
        raise ValueError(
            f"{named} has {len(tokenizer)} words, but {tower} {vocab_size}: name the one that it was trained with "
            "(`--tokenizer_name`)."
        )


def limit_texts(model: PreTrainedModel, processor: ProcessorMixin, max_length: int | None) -> None:
    """
    Sets the most tokens of a text, where the processor pads and truncates too: by default what the tokenizer says, or
    as many as there are positions. Beyond these the position table is stretched.

    Raises:
        `ValueError`: if there is no room for a text.
    """
    tokenizer, num_positions = processor.tokenizer, count_positions(model)
    if max_length is None:
        max_length = min(tokenizer.model_max_length, num_positions or tokenizer.model_max_length)
    if max_length <= tokenizer.num_special_tokens_to_add():
        raise ValueError(f"`--max_length {max_length}` leaves no room for a text beside the special tokens: raise it.")
    if num_positions is not None and max_length > num_positions:
        stretch_positions(model, max_length)
    tokenizer.model_max_length = max_length
    if get_padding(processor) == "max_length":
        # padding is read too (SigLIP): no mask
        tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = ["input_ids"]
    if "max_length" in get_text_kwargs(processor) or "max_length" in tokenizer.init_kwargs:
        tokenizer.init_kwargs["max_length"] = max_length  # goes before what the class of the processor says


def gather_model(model: nn.Module, accelerator: Accelerator) -> PreTrainedModel | None:
    """
    The dual encoder in a [`ContrastiveModel`]; where its parameters are sharded (FSDP2) a copy that has all of them on
    the main process, and None on the others. Every process must call this.
    """
    trained = accelerator.unwrap_model(model).model
    if not accelerator.is_fsdp2:
        return trained
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)  # gathered to the main process alone
    weights = get_model_state_dict(trained, options=options)
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

    Raises:
        `ValueError`: if the model compares all tokens and the objective does not, or the other way round.
    """
    model_class = getattr(modeling_lotlip, objective.model_class)
    if is_token_wise(model) and model_class is not type(model):
        raise ValueError("A model with late interaction is trained with `--objective filip` alone.")
    if isinstance(model, model_class) or not isinstance(model, LotlipModel):
        if model_class.__name__ == "LotlipTokenWiseModel" and not is_token_wise(model):
            raise ValueError(
                f"`--objective filip` compares all tokens of texts and images, which a {type(model).__name__} cannot: "
                "leave it out, or train a LoTLIP."
            )
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
    A tokenizer with the words of the captions, the most frequent ones, and their characters for all other words. It is
    the same on every process and in every run, which a trained WordPiece vocabulary is not: its trainer breaks ties at
    random.
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
