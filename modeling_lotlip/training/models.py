# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The model and the tokenizer that a training starts from, made ready for it."""

from collections import Counter

import datasets
import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from transformers import AutoConfig, AutoModel, AutoProcessor, PreTrainedModel

import modeling_lotlip

from .. import LotlipConfig, LotlipModel, LotlipProcessor, LotlipTokenizer
from ..convert_lotlip_to_hf import load_towers
from ..data.images import undecoded
from ..data.reader import RowReader
from ..embedding.models import count_positions
from ..embedding.token_wise import is_token_wise
from ..hub_lotlip import find_pretrained
from ..losses.global_loss import check_dims
from .arguments import TowerArguments, TrainArguments
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
) -> tuple[LotlipModel, LotlipProcessor]:
    """
    The model to train and its processor, whose tokenizer has the limit of texts. What is not trained is frozen: the
    image tower, and corner tokens that no caption has.

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
    try:
        model, processor, has_pretrained_vision = load_model(args, dataset, reader)
    except OSError as error:
        names = {name: value for name, value in vars(args).items() if name.endswith(("name_or_path", "config_name"))}
        named = " ".join(f"--{name} {value}" for name, value in names.items() if value is not None)
        raise ValueError(f"`{named}` cannot be loaded: {error}") from error
    if args.max_position_embeddings is not None:
        stretch_positions(model, args.max_position_embeddings)
    processor.tokenizer.model_max_length = limit_texts(args, model, processor.tokenizer)
    if args.no_corner_attention_mask and model.config.text_config.num_corner_tokens == 0:
        raise ValueError("`--no_corner_attention_mask` is for a model with corner tokens, and this one has none.")

    is_frozen = args.freeze_vision_model if args.freeze_vision_model is not None else has_pretrained_vision
    if not is_frozen and args.cache_image_features:
        raise ValueError("`--cache_image_features` is for a frozen image tower.")
    model.vision_model.requires_grad_(not is_frozen)
    set_matryoshka_dims(model, args.matryoshka_dims)
    has_long_captions = args.num_long_captions > 0 and reader.has_long_captions
    if not has_long_captions and model.config.text_config.num_corner_tokens > 0:
        model.text_model.embeddings.corner_tokens.requires_grad_(False)
    if args.gradient_checkpointing:
        # its older name is deprecated, and all that transformers 5.21 knows
        getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    return model, processor


def build_small_model(dataset: datasets.Dataset, reader: RowReader) -> tuple[LotlipModel, LotlipProcessor]:
    """A small LoTLIP with random weights for images of 64 pixels, and its processor with the words of the captions."""
    return build_model(TrainArguments(output_dir="."), dataset, reader)


def load_model(
    args: TrainArguments, dataset: datasets.Dataset, reader: RowReader
) -> tuple[LotlipModel, LotlipProcessor, bool]:
    """The model that the arguments name, its processor, and whether the weights of its image tower were loaded."""
    objective = OBJECTIVES[args.objective]
    if args.model_name_or_path is not None:
        path = find_pretrained(args.model_name_or_path)
        config = AutoConfig.from_pretrained(path)
        if not hasattr(config, "vision_config") or not hasattr(config.text_config, "num_corner_tokens"):
            raise ValueError(
                f"`--model_name_or_path {args.model_name_or_path}` is a model of type {config.model_type!r}, not a "
                "whole LoTLIP: name one, or towers (`--text_model_name_or_path`, `--vision_model_name_or_path`)."
            )
        saved = config.text_config.num_corner_tokens
        if args.num_corner_tokens not in (None, saved):
            raise ValueError(f"`--num_corner_tokens {args.num_corner_tokens}`, but the model has {saved} of them.")
        if args.no_corner_attention_mask:
            config.text_config.corner_attention_mask = False
        # trained in float32, whatever the weights are stored in
        model = AutoModel.from_pretrained(path, config=config, dtype=torch.float32)
        return convert_model(model, objective), AutoProcessor.from_pretrained(path), True

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
        elif objective.num_corner_tokens == 0:
            config.text_config.num_corner_tokens = 0
        if args.no_corner_attention_mask:
            config.text_config.corner_attention_mask = False
        model = LotlipModel(config)
    else:
        model = join_towers(args, tokenizer)
        check_vocabulary(args, tokenizer, model.config.text_config.vocab_size)
    image_processor = make_image_processor(
        model.vision_model.embeddings.image_size, args.vision_model_name_or_path, args.image_mean, args.image_std
    )
    processor = LotlipProcessor(image_processor=image_processor, tokenizer=tokenizer)
    return convert_model(model, objective), processor, args.vision_model_name_or_path is not None


def join_towers(args: TowerArguments, tokenizer: LotlipTokenizer) -> LotlipModel:
    """A model of two towers, each loaded by its name, or small and with random weights where none is named."""
    text_fields = {"text_num_corner_tokens": args.num_corner_tokens}
    text_fields |= {"text_corner_attention_mask": not args.no_corner_attention_mask}
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
    Refuses a tokenizer that is not that of the pretrained text tower, which would read other words than are written.

    Raises:
        `ValueError`: if the tower's own tokenizer has another vocabulary, or, where it has none, the table of words
            another size.
    """
    if args.text_model_name_or_path is None:
        return
    tower = f"`--text_model_name_or_path {args.text_model_name_or_path}`"
    if args.tokenizer_name is None:
        if len(tokenizer) > vocab_size:
            raise ValueError(
                f"The tokenizer of {tower} has {len(tokenizer)} words, but the model {vocab_size}: name the right one "
                "with `--tokenizer_name`, or mend that folder."
            )
        return
    try:
        own = LotlipTokenizer.from_pretrained(args.text_model_name_or_path)
    except (OSError, ValueError):  # it has none
        own = None
    if own is None and len(tokenizer) != vocab_size:
        raise ValueError(
            f"`--tokenizer_name {args.tokenizer_name}` has {len(tokenizer)} words, but {tower} {vocab_size}: the "
            "model would read other words than are written. Name the tokenizer that it was trained with."
        )
    if own is not None and own.get_vocab() != tokenizer.get_vocab():
        num_same = len(own.get_vocab().items() & tokenizer.get_vocab().items())
        raise ValueError(
            f"`--tokenizer_name {args.tokenizer_name}` is not the tokenizer of {tower}: {num_same} of its "
            f"{len(tokenizer)} words have the same number there. The model would read other words than are written: "
            "leave out `--tokenizer_name`."
        )


def limit_texts(args: TowerArguments, model: LotlipModel, tokenizer: LotlipTokenizer) -> int:
    """
    The most tokens of a text. By default that of the model that is trained further, else 128 less the corner tokens.

    Raises:
        `ValueError`: if the text tower has fewer positions, or there is no room for a text.
    """
    num_positions, max_length = count_positions(model), args.max_length
    if max_length is None:
        of_paper = 128 - model.config.text_config.num_corner_tokens
        return min(of_paper if args.model_name_or_path is None else tokenizer.model_max_length, num_positions)
    if max_length > num_positions:
        raise ValueError(f"`--max_length {max_length}` is beyond the {num_positions} positions of the text tower.")
    if max_length <= tokenizer.num_special_tokens_to_add():
        raise ValueError(f"`--max_length {max_length}` leaves no room for a text beside the special tokens.")
    return max_length


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


def convert_model(model: LotlipModel, objective: Objective) -> LotlipModel:
    """
    A model of the class that an objective trains, with the weights of another one; the bias of the logits, and the
    temperature that goes with it, are new. A model that has a bias keeps it.
    """
    model_class = getattr(modeling_lotlip, objective.model_class)
    if is_token_wise(model) and model_class is not type(model):
        raise ValueError("A model with late interaction is trained with `--objective filip` alone.")
    if isinstance(model, model_class):
        return model
    new = {"model_type", "architectures", "auto_map", *model_class.config_class.__annotations__}
    config = model_class.config_class(**{k: value for k, value in model.config.to_dict().items() if k not in new})
    weights = model.state_dict()
    if "logit_scale_init_value" in new:
        del weights["logit_scale"]
    converted = model_class(config)
    converted.load_state_dict(weights, strict=False)
    return converted.eval()


def set_matryoshka_dims(model: LotlipModel, dims: list[int] | None) -> None:
    """
    Notes in the configuration of a model which prefixes of its embeddings are trained to be embeddings too. Without
    dims those of the model stay.

    Raises:
        `ValueError`: if it has fewer dimensions.
    """
    if dims is not None:
        check_dims(dims, model.config.projection_dim, "--matryoshka_dims")
        model.config.matryoshka_dims = sorted({*dims, model.config.projection_dim}, reverse=True)


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
