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
"""Tokenization class for LoTLIP."""

import html
import json
import os
import re
import reprlib
from typing import Any

from tokenizers import AddedToken, Encoding, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece
from transformers.tokenization_utils_base import (
    LARGE_INTEGER,
    BatchEncoding,
    PaddingStrategy,
    PreTokenizedInput,
    TextInput,
    TruncationStrategy,
)
from transformers.tokenization_utils_tokenizers import TokenizersBackend
from transformers.utils import logging

from .loading_lotlip import LotlipLoadingMixin


logger = logging.get_logger(__name__)

VOCAB_FILES_NAMES = {"vocab_file": "vocab.txt", "tokenizer_file": "tokenizer.json"}

# LoTLIP's context of 128 positions less its two corner tokens, which the model adds itself
DEFAULT_MODEL_MAX_LENGTH = 126

# What a backend keeps of a call. One that a tokenizer is made with is a default of the processor.
OF_A_CALL = ("max_length", "stride", "truncation_strategy", "pad_to_multiple_of")

# Stands for the separator while BERT's normalizer, which would lowercase it, is at work. A rare punctuation mark, left
# alone by that normalizer. One that the user typed is exchanged for its neighbour: both are unknown to BERT.
SEPARATOR_MARK, SEPARATOR_MARK_NEIGHBOUR = "\u2cf9", "\u2cfa"

# What ftfy and HTML unescaping may change: all but printable ASCII and plain line breaks, and anything with an "&"
NEEDS_CLEANING = re.compile(r"[^\t\n\r\x20-\x25\x27-\x7e]")

# More than ten times what the largest vocabularies take; files beyond it are not read
MAX_FILE_BYTES = 100_000_000


def _read_text(path: str | os.PathLike) -> str:
    """The text of a file of the tokenizer, which may be damaged or no text at all."""
    num_bytes = os.path.getsize(path)
    if num_bytes > MAX_FILE_BYTES:
        raise ValueError(f"`{path}` has {num_bytes:,} bytes; a file of a tokenizer may have {MAX_FILE_BYTES:,}.")
    try:
        with open(path, encoding="utf-8") as reader:
            return reader.read()
    except UnicodeDecodeError as error:
        raise ValueError(f"`{path}` is no text in UTF-8, it is damaged or another file: {error}.") from error


def _read_json(path: str | os.PathLike) -> dict[str, Any]:
    text = _read_text(path)
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"`{path}` is no JSON, it is damaged or cut off: {error}.") from error
    except RecursionError:
        raise ValueError(f"`{path}` is nested too deeply for a file of a tokenizer.") from None
    if not isinstance(content, dict):
        raise ValueError(f"`{path}` must hold a JSON object, but holds a `{type(content).__name__}`.")
    return content


def _check_tokenizer_json(content: dict[str, Any], path: str) -> None:
    """Refuses a `tokenizer.json` that is not one of a WordPiece tokenizer."""
    model, added_tokens = content.get("model"), content.get("added_tokens")
    if not isinstance(model, dict) or not isinstance(added_tokens, list):
        raise ValueError(f"`{path}` is no `tokenizer.json`: it must have a `model` (an object) and `added_tokens`.")
    # files of old versions of the tokenizers library do not name the model
    model_type = model.get("type", "WordPiece")
    if model_type != "WordPiece":
        raise ValueError(
            f"`{path}` holds a {model_type} tokenizer, but LoTLIP needs BERT's WordPiece: give the folder of a BERT"
            " tokenizer (with a `vocab.txt` or a `tokenizer.json`)."
        )
    _check_vocab(model.get("vocab"), f"{path}: model.vocab")
    without_words = {**content, "model": {**model, "type": "WordPiece", "vocab": {}}}
    try:
        Tokenizer.from_str(json.dumps(without_words))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the tokenizers library raises nothing narrower, and its panics are no `Exception`
        raise ValueError(f"`{path}` is no valid `tokenizer.json`: {error}.") from error


def _check_vocab(vocab: Any, name: str) -> None:
    """
    Ids are whole numbers from 0 on, each of one word. Repeated lines of a `vocab.txt` leave holes, but a vocabulary
    with more holes than words is damaged: its ids would lie beyond any embedding table.
    """
    if not isinstance(vocab, dict):
        raise ValueError(
            f"`{name}` must be a dictionary from words to ids (or the path of a `vocab.txt`), but is of type"
            f" `{type(vocab).__name__}`."
        )
    words = {}
    for word, index in vocab.items():
        if type(word) is not str or type(index) is not int or not 0 <= index < 2 * len(vocab):
            raise ValueError(
                f"`{name}` gives the word {reprlib.repr(word)} the id {reprlib.repr(index)}, but ids of {len(vocab)}"
                " words must be whole numbers, consecutive from 0 on."
            )
        if words.setdefault(index, word) != word:
            raise ValueError(f"`{name}` gives both {words[index]!r} and {word!r} the id {index}.")


class LotlipTokenizer(LotlipLoadingMixin, TokenizersBackend):
    r"""
    Construct a LoTLIP tokenizer: BERT's WordPiece (backed by HuggingFace's tokenizers library), in which each
    sub-caption of a long caption ends in a separator of its own.

    Every `". "` (a full stop and one space) becomes a real `sep_token`, then the text is cleaned with ftfy and HTML
    unescaping, and tokenized as by BERT into `[CLS] text [SEP]`, as in the [LoTLIP](https://huggingface.co/papers/2410.05249)
    code. The separators are made in `tokenizer.json`, so that other runtimes of the tokenizers library make them too;
    ftfy and HTML unescaping are done here, and only for texts they can change. After them, offsets are those of the
    cleaned text.

    The corner tokens are no business of the tokenizer: `model_max_length` counts `[CLS]` and `[SEP]`, not them. A text
    that is longer is truncated by default, keeping its last `[SEP]`, and the first such call warns
    in a warning; `truncation=False` keeps all of the text, `truncation=True` truncates without a word. Without special
    tokens (`add_special_tokens=False`, `tokenize`) only a `max_length` truncates.

    This tokenizer inherits from [`TokenizersBackend`] which contains most of the main methods. Users should refer to
    this superclass for more information regarding those methods.

    Args:
        vocab (`str`, `os.PathLike` or `dict[str, int]`, *optional*):
            Path of a `vocab.txt`, or the vocabulary itself. If not provided, the vocabulary holds the special tokens
            only.
        do_lower_case (`bool`, *optional*, defaults to `True`):
            Whether or not to lowercase the input when tokenizing.
        unk_token (`str`, *optional*, defaults to `"[UNK]"`):
            The token for what the vocabulary cannot spell.
        sep_token (`str`, *optional*, defaults to `"[SEP]"`):
            The token at the end of each sub-caption and of the text.
        pad_token (`str`, *optional*, defaults to `"[PAD]"`):
            The token used for padding, on the right.
        cls_token (`str`, *optional*, defaults to `"[CLS]"`):
            The first token of the sequence.
        mask_token (`str`, *optional*, defaults to `"[MASK]"`):
            The token used for masking values; LoTLIP itself makes no use of it.
        tokenize_chinese_chars (`bool`, *optional*, defaults to `True`):
            Whether or not to tokenize Chinese characters one by one.
        strip_accents (`bool`, *optional*):
            Whether or not to strip all accents. If not given, accents are stripped when lowercasing.
        model_max_length (`int`, *optional*, defaults to 126):
            The largest number of tokens of a text, `[CLS]` and `[SEP]` included. The position table of the model less
            its corner tokens is the upper bound. "No limit" means the default, and so does the limit of another
            tokenizer that is loaded into this class.

    Raises:
        `ValueError`: if a text is not a string; the message names its place in the batch. If the vocabulary lacks the
            `unk_token`, or its ids are not those of a vocabulary.

    Examples:

    ```python
    >>> from modeling_lotlip import LotlipTokenizer

    >>> words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "car", "the", "street", "is", "wet", "."]
    >>> tokenizer = LotlipTokenizer(vocab={word: index for index, word in enumerate(words)})
    >>> tokenizer("A red car. The street is wet.")["input_ids"]
    [2, 5, 6, 7, 3, 8, 9, 10, 11, 12, 3]
    >>> tokenizer.tokenize("A red car. The street is wet.")
    ['a', 'red', 'car', '[SEP]', 'the', 'street', 'is', 'wet', '.']
    ```
    """

    vocab_files_names = VOCAB_FILES_NAMES
    model_input_names = ["input_ids", "attention_mask"]
    model = WordPiece

    def __init__(
        self,
        vocab: str | os.PathLike | dict[str, int] | None = None,
        do_lower_case: bool = True,
        unk_token: str = "[UNK]",
        sep_token: str = "[SEP]",
        pad_token: str = "[PAD]",
        cls_token: str = "[CLS]",
        mask_token: str = "[MASK]",
        tokenize_chinese_chars: bool = True,
        strip_accents: bool | None = None,
        model_max_length: int = DEFAULT_MODEL_MAX_LENGTH,
        **kwargs,
    ):
        self.do_lower_case = do_lower_case
        self.tokenize_chinese_chars = tokenize_chinese_chars
        self.strip_accents = strip_accents
        if vocab is None:
            special_tokens = (pad_token, unk_token, cls_token, sep_token, mask_token)
            vocab = {str(token): index for index, token in enumerate(special_tokens)}
        elif isinstance(vocab, (str, os.PathLike)):
            if not os.path.isfile(vocab):
                raise FileNotFoundError(f"`vocab` must be the path of a `vocab.txt`, but there is no file `{vocab}`.")
            _read_text(vocab)  # refuses what is no text
            vocab = WordPiece.read_file(os.fspath(vocab))
        _check_vocab(vocab, "vocab")
        tokens = {"unk_token": unk_token, "sep_token": sep_token, "cls_token": cls_token}
        tokens |= {"pad_token": pad_token, "mask_token": mask_token}
        for name, token in tokens.items():
            if not isinstance(token, (str, AddedToken)) or not str(token):
                raise ValueError(f"`{name}` must be a token, got {token!r}.")
        switches = {"do_lower_case": do_lower_case, "tokenize_chinese_chars": tokenize_chinese_chars}
        for name, switch in (switches | {"strip_accents": strip_accents}).items():
            if not isinstance(switch, bool) and (name, switch) != ("strip_accents", None):
                raise ValueError(f"`{name}` must be true or false, got {switch!r}.")
        if str(unk_token) not in vocab:
            raise ValueError(f"The vocabulary of {len(vocab)} words lacks the `unk_token` {str(unk_token)!r}.")
        if isinstance(model_max_length, (int, float)) and model_max_length >= LARGE_INTEGER:
            model_max_length = DEFAULT_MODEL_MAX_LENGTH
        if not isinstance(model_max_length, int) or model_max_length < 2:
            raise ValueError(
                f"`model_max_length` must be a whole number from 2 on, with room for the {cls_token} and the"
                f" {sep_token}, got {model_max_length!r}."
            )
        self._tokenizer = Tokenizer(WordPiece(vocab, unk_token=str(unk_token)))
        chosen = {name: kwargs[name] for name in OF_A_CALL if kwargs.get(name) is not None}
        super().__init__(
            do_lower_case=do_lower_case,
            unk_token=unk_token,
            sep_token=sep_token,
            pad_token=pad_token,
            cls_token=cls_token,
            mask_token=mask_token,
            tokenize_chinese_chars=tokenize_chinese_chars,
            strip_accents=strip_accents,
            model_max_length=model_max_length,
            **kwargs,
        )
        # A backend remembers the truncation and padding of the last call, which were not meant for later ones
        for name in OF_A_CALL:
            self.init_kwargs.pop(name, None)
        self.init_kwargs |= chosen
        # After the base class, which may have loaded another backend with BERT's own settings
        self._set_backend()

    def _set_backend(self) -> None:
        """Sets all but the model in the backend, whatever it was loaded from."""
        self._tokenizer.normalizer = normalizers.Sequence(
            [
                normalizers.Replace(SEPARATOR_MARK, SEPARATOR_MARK_NEIGHBOUR),
                normalizers.Replace(self.sep_token, SEPARATOR_MARK),
                normalizers.Replace(". ", SEPARATOR_MARK),
                normalizers.BertNormalizer(
                    clean_text=True,
                    handle_chinese_chars=self.tokenize_chinese_chars,
                    strip_accents=self.strip_accents,
                    lowercase=self.do_lower_case,
                ),
                normalizers.Replace(SEPARATOR_MARK, self.sep_token),
            ]
        )
        self._tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self._tokenizer.decoder = decoders.WordPiece(prefix="##")

        # `normalized`: looked for in the normalized text, where the separators of the sub-captions are
        self._tokenizer.add_special_tokens([AddedToken(self.sep_token, normalized=True, special=True)])
        self._tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{self.cls_token}:0 $A:0 {self.sep_token}:0",
            pair=f"{self.cls_token}:0 $A:0 {self.sep_token}:0 $B:1 {self.sep_token}:1",
            special_tokens=[(self.cls_token, self.cls_token_id), (self.sep_token, self.sep_token_id)],
        )

    @classmethod
    def convert_to_native_format(cls, **kwargs) -> dict[str, Any]:
        """
        Takes BERT's normalizer settings from a `tokenizer.json` whose `tokenizer_config.json` does not have them.

        Raises:
            `ValueError`: if there is no vocabulary.
        """
        tokenizer_file = kwargs.get("tokenizer_file")
        if all(kwargs.get(name) is None for name in ("vocab", "vocab_file", "tokenizer_file")):
            raise ValueError(
                f"There is neither a `tokenizer.json` nor a `vocab.txt` in `{kwargs.get('name_or_path')}`: give the"
                " folder or the Hub name of a LoTLIP or BERT tokenizer."
            )
        if tokenizer_file is not None and os.path.isfile(tokenizer_file):
            normalizer = _read_json(tokenizer_file).get("normalizer") or {}
            for step in normalizer.get("normalizers", [normalizer]):
                if step.get("type") == "BertNormalizer":
                    kwargs.setdefault("do_lower_case", step["lowercase"])
                    kwargs.setdefault("tokenize_chinese_chars", step["handle_chinese_chars"])
                    kwargs.setdefault("strip_accents", step.get("strip_accents"))
        return super().convert_to_native_format(**kwargs)

    @classmethod
    def _from_pretrained(cls, resolved_vocab_files: dict[str, str], *args, **kwargs) -> "LotlipTokenizer":
        """
        Takes a limit from a folder of its own kind only: a BERT's 512 says nothing of LoTLIP's context.

        Raises:
            `ValueError`: if a file of the tokenizer is damaged or larger than `MAX_FILE_BYTES`, or the
            `tokenizer.json` is not a WordPiece tokenizer's.
        """
        contents = {
            name: _read_json(path)
            for name, path in resolved_vocab_files.items()
            if path is not None and str(path).endswith(".json")
        }
        if "tokenizer_file" in contents:
            _check_tokenizer_json(contents["tokenizer_file"], resolved_vocab_files["tokenizer_file"])
        saved_class = contents.get("tokenizer_config_file", {}).get("tokenizer_class")
        if saved_class != cls.__name__:
            kwargs.setdefault("model_max_length", DEFAULT_MODEL_MAX_LENGTH)
            kwargs.setdefault("max_length", None)
        return super()._from_pretrained(resolved_vocab_files, *args, **kwargs)

    def _save_pretrained(self, *args, **kwargs) -> tuple[str, ...]:
        """Saves a `tokenizer.json` that truncates by default too, for runtimes that read nothing else."""
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.model_max_length, direction=self.truncation_side)
        return super()._save_pretrained(*args, **kwargs)

    def _clean_text(self, text: str) -> str:
        """Cleans a text as the original does, all but the separators of plain texts, which the backend makes."""
        if NEEDS_CLEANING.search(text) is None:
            return text

        import ftfy  # not at the top: half of what importing this package would cost beside transformers

        text = ftfy.fix_text(text.replace(". ", self.sep_token))
        text = html.unescape(html.unescape(text))
        # Line breaks, so that a full stop that only now stands before whitespace makes no separator
        return "\n".join(text.split())

    def _clean(self, text: TextInput | PreTokenizedInput | list, name: str) -> str | list | tuple:
        """Cleans every text of a batch, of pairs or of split words."""
        if isinstance(text, str):
            return self._clean_text(text)
        if isinstance(text, (list, tuple)):
            cleaned = [self._clean(item, f"{name}[{index}]") for index, item in enumerate(text)]
            return tuple(cleaned) if isinstance(text, tuple) else cleaned
        raise ValueError(
            f"`{name}` is {reprlib.repr(text)} of type `{type(text).__name__}`, but only `str` (and lists or tuples of"
            " `str`) can be tokenized. Convert it, or leave it out."
        )

    def _get_padding_truncation_strategies(
        self,
        padding: bool | str | PaddingStrategy = False,
        truncation: bool | str | TruncationStrategy | None = None,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        verbose: bool = True,
        **kwargs,
    ) -> tuple[PaddingStrategy, TruncationStrategy | None, int | None, dict[str, Any]]:
        """Hands a `truncation` that the caller did not choose on to `_encode_plus`, as the strategy `None`."""
        if truncation is None:
            padding_strategy, _, max_length, kwargs = super()._get_padding_truncation_strategies(
                padding=padding, truncation=False, max_length=max_length, verbose=False, **kwargs
            )
            return padding_strategy, None, max_length, kwargs

        return super()._get_padding_truncation_strategies(
            padding=padding,
            truncation=truncation,
            max_length=max_length,
            # only a limit of the caller's has to be a multiple: the default of 126 is none of 8
            pad_to_multiple_of=None if max_length is None else pad_to_multiple_of,
            verbose=verbose,
            **kwargs,
        )

    def _encode_plus(
        self,
        text: TextInput | PreTokenizedInput | list[TextInput] | list[PreTokenizedInput],
        text_pair: TextInput | PreTokenizedInput | list[TextInput] | list[PreTokenizedInput] | None = None,
        add_special_tokens: bool = True,
        truncation_strategy: TruncationStrategy | None = TruncationStrategy.DO_NOT_TRUNCATE,
        max_length: int | None = None,
        **kwargs,
    ) -> BatchEncoding:
        """Cleans the texts and truncates them by default; all methods that tokenize pass through here."""
        if isinstance(text, (list, tuple)) and len(text) == 0 and not kwargs.get("is_split_into_words", False):
            raise ValueError("`text` is an empty list: give at least one text (the empty string is one).")
        text = self._clean(text, "text")
        if text_pair is not None:
            text_pair = self._clean(text_pair, "text_pair")

        truncate_by_default = truncation_strategy is None
        if truncate_by_default:
            if max_length is None and add_special_tokens and self.model_max_length < LARGE_INTEGER:
                max_length = self.model_max_length
            truncation_strategy = (
                TruncationStrategy.DO_NOT_TRUNCATE if max_length is None else TruncationStrategy.LONGEST_FIRST
            )
        num_special_tokens = self.num_special_tokens_to_add(text_pair is not None) if add_special_tokens else 0
        if truncation_strategy != TruncationStrategy.DO_NOT_TRUNCATE and max_length < num_special_tokens:
            raise ValueError(f"`max_length={max_length}` leaves no room for the {num_special_tokens} special tokens.")
        batch_encoding = super()._encode_plus(
            text,
            text_pair=text_pair,
            add_special_tokens=add_special_tokens,
            truncation_strategy=truncation_strategy,
            max_length=max_length,
            **kwargs,
        )

        if truncate_by_default and kwargs.get("verbose", True) and not kwargs.get("return_overflowing_tokens", False):
            self._warn_about_truncation(batch_encoding.encodings, max_length, kwargs.get("stride", 0))
        return batch_encoding

    def _warn_about_truncation(self, encodings: list[Encoding], max_length: int, stride: int) -> None:
        """Says once how many texts were truncated, and how long the longest was."""
        if self.deprecation_warnings.get("truncated-by-default", False):
            return

        truncated = [encoding for encoding in encodings if encoding.overflowing]
        if not truncated:
            return

        self.deprecation_warnings["truncated-by-default"] = True
        lengths = [_untruncated_length(encoding, stride) for encoding in truncated if encoding.n_sequences == 1]
        longest = f" (the longest has {max(lengths)})" if lengths else ""
        logger.warning(
            f"{len(truncated)} of {len(encodings)} texts are longer than {max_length} tokens{longest} and were"
            " truncated. Pass `truncation=True` to truncate without this warning, shorten the texts, or raise"
            " `max_length` (or the tokenizer's `model_max_length`) up to the model's position table less its corner"
            " tokens. Later texts are truncated without a warning."
        )


def _untruncated_length(encoding: Encoding, stride: int) -> int:
    """The number of tokens that a text (not a pair: those overflow in combinations) would have without truncation."""
    overflowing = [len(piece) - sum(piece.special_tokens_mask) - stride for piece in encoding.overflowing]
    return sum(encoding.attention_mask) + sum(overflowing)


LotlipTokenizer.register_for_auto_class()

__all__ = ["LotlipTokenizer"]
