# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""The model and the tokenizer that a training starts from."""

import argparse
from collections import Counter

import datasets
from transformers import AutoProcessor

from .. import LotlipConfig, LotlipImageProcessor, LotlipModel, LotlipProcessor, LotlipTokenizer
from ..data.captions import CaptionReader
from ..data.images import undecoded
from .objectives import OBJECTIVES


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
    args: argparse.Namespace, dataset: datasets.Dataset, reader: CaptionReader
) -> tuple[LotlipModel, LotlipProcessor, bool]:
    """The model to train, its processor, and whether the weights of its image tower were loaded."""
    model_class = OBJECTIVES[args.objective].model_class
    text_fields = {}
    if args.num_corner_tokens is not None:
        text_fields["num_corner_tokens"] = args.num_corner_tokens
    if args.no_corner_attention_mask:
        text_fields["corner_attention_mask"] = False

    if args.model_name_or_path is not None:
        config = LotlipConfig.from_pretrained(args.model_name_or_path)
        saved = config.text_config.num_corner_tokens
        if args.num_corner_tokens not in (None, saved):
            raise ValueError(f"`--num_corner_tokens {args.num_corner_tokens}`, but the model has {saved} of them.")
        for name, value in text_fields.items():
            setattr(config.text_config, name, value)
        config.token_wise = model_class.is_token_wise
        model = model_class.from_pretrained(args.model_name_or_path, config=config)
        return model, AutoProcessor.from_pretrained(args.model_name_or_path), True

    tokenizer_name = args.tokenizer_name or args.text_model_name_or_path
    if tokenizer_name is not None:
        tokenizer = LotlipTokenizer.from_pretrained(tokenizer_name)
    else:
        tokenizer = build_tokenizer(dataset, reader)

    if args.config_name is not None:
        config = LotlipConfig.from_pretrained(args.config_name)
        config.text_config.vocab_size = max(config.text_config.vocab_size, len(tokenizer))
        for name, value in text_fields.items():
            setattr(config.text_config, name, value)
        config.token_wise = model_class.is_token_wise
        model = model_class(config)
    else:
        text_fields = {f"text_{name}": value for name, value in text_fields.items()}
        vision_fields = {"vision_image_size": args.image_size} if args.image_size is not None else {}
        if args.text_model_name_or_path is None:
            text_fields |= {f"text_{name}": value for name, value in SMALL_TOWER.items()}
            text_fields |= {"text_vocab_size": len(tokenizer), "text_hidden_dropout_prob": 0.0}
            text_fields |= {"text_attention_probs_dropout_prob": 0.0, "text_pad_token_id": tokenizer.pad_token_id}
        if args.vision_model_name_or_path is None:
            vision_fields |= {f"vision_{name}": value for name, value in SMALL_TOWER.items()}
            vision_fields |= {"vision_patch_size": 8, "vision_image_size": args.image_size or 64}
        model = model_class.from_vision_text_pretrained(
            args.vision_model_name_or_path,
            args.text_model_name_or_path,
            token_wise=model_class.is_token_wise,
            **text_fields,
            **vision_fields,
        )
    height, width = model.vision_model.embeddings.image_size
    image_processor = LotlipImageProcessor(
        size={"shortest_edge": max(height, width)}, crop_size={"height": height, "width": width}
    )
    processor = LotlipProcessor(image_processor=image_processor, tokenizer=tokenizer)
    return model, processor, args.vision_model_name_or_path is not None


def build_tokenizer(dataset: datasets.Dataset, reader: CaptionReader) -> LotlipTokenizer:
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
    for row in undecoded(dataset, reader.image_column).select_columns(reader.columns):
        for text in reader.short_captions(row) + reader.long_captions(row):
            text = backend.normalizer.normalize_str(text).replace(tokenizer.sep_token, " ")
            words.update(word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text))
    characters = sorted(set("".join(words)))
    vocab = dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    vocab |= dict.fromkeys(characters + [f"##{character}" for character in characters])
    frequent = sorted(words, key=lambda word: (-words[word], word))
    vocab |= dict.fromkeys(frequent[: max(0, MAX_VOCAB_SIZE - len(vocab))])
    return LotlipTokenizer(vocab={token: index for index, token in enumerate(vocab)})
