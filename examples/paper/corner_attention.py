# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
What `[CLS]` and each corner token of LoTLIP attend to over the long captions of a data set, and how alike they are.

    python examples/paper/corner_attention.py --model outputs/demo --output_file outputs/corner_attention.json

Every image counts with its first long caption. The tables stand beside the output file (`.md`).
"""

import itertools
import math
import statistics

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from modeling_lotlip.arguments import exit_on_error, parse
from modeling_lotlip.data.arguments import (
    CaptionArguments,
    EvaluationSplitArguments,
    SideFileArguments,
    SourceArguments,
)
from modeling_lotlip.data.loading import get_columns, load_split
from modeling_lotlip.data.reader import RowReader
from modeling_lotlip.embedding.arguments import ModelArguments, OutputArguments
from modeling_lotlip.embedding.batches import embed_texts, tokenize
from modeling_lotlip.embedding.models import load_model
from modeling_lotlip.evaluation.relevance import sub_caption_numbers, token_attention
from modeling_lotlip.files import write_results
from modeling_lotlip.sub_captions import join_sub_captions
from modeling_lotlip.terminal import progress_bar
from modeling_lotlip.training.monitoring import effective_rank


# English words that say little by themselves; all others are content words
FUNCTION_WORDS = frozenset(
    "a about above across after against all along also among an and any are around as at away be because been "
    "before behind being below beneath beside between both but by can could did do does down during each either "
    "every few for from had has have he her hers him his i if in inside into is it its itself just may might more "
    "most much near no nor not of off on one only onto or other our out outside over own same she should so some "
    "such than that the their theirs them then there these they this those through to too toward towards under "
    "until up upon very was we were what when where which while who whom whose why will with within without would "
    "you your s".split()
)

# What attention goes to; the last is under the attention mask the corner token itself
KINDS = ("[CLS]", "[SEP]", "content words", "function words", "corners")
# Words by the third of the text that their sub-caption is in
PLACES = ("first", "middle", "last")


def classify_tokens(input_ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The kind of each token of a text, one of `KINDS`. A word piece is of the kind of its whole word."""
    tokens = tokenizer.convert_ids_to_tokens(input_ids)
    kinds = []
    for place, token in enumerate(tokens):
        word, end = token, place + 1
        while end < len(tokens) and tokens[end].startswith("##"):
            word, end = word + tokens[end][2:], end + 1
        if token in (tokenizer.cls_token, tokenizer.sep_token):
            kinds.append("[CLS]" if token == tokenizer.cls_token else "[SEP]")
        elif token.startswith("##"):
            kinds.append(kinds[-1])
        elif word in FUNCTION_WORDS or not any(map(str.isalnum, word)):
            kinds.append("function words")
        else:
            kinds.append("content words")
    return kinds


def locate_tokens(input_ids: list[int], kinds: list[str], tokenizer: PreTrainedTokenizerBase) -> list[str | None]:
    """The third of the text that the sub-caption of each word is in, None for special tokens."""
    numbers = sub_caption_numbers(input_ids, tokenizer)
    count = 1 + max(number for number, kind in zip(numbers, kinds) if kind.endswith("words"))
    return [PLACES[3 * number // count] if kind.endswith("words") else None for number, kind in zip(numbers, kinds)]


def describe_attention(attention: torch.Tensor, kinds: list[str], places: list[str | None]) -> dict[str, float]:
    """
    What one token of one text attends to.

    Args:
        attention (`torch.Tensor` of shape `(length,)`):
            Its attention to the tokens of the text; what lacks to 1 is that to the corner tokens.
        kinds (`list[str]`):
            The kind of each token.
        places (`list[str | None]`):
            The place of each word, None for special tokens.

    Returns:
        `dict[str, float]`: the shares of all attention by kind, the shares of the attention to words by place, both in
        per cent, and the `entropy` of the whole in bits.

    Example:

    ```python
    >>> import torch
    >>> from examples.paper.corner_attention import describe_attention

    >>> kinds, places = ["[CLS]", "content words", "content words", "[SEP]"], [None, "first", "last", None]
    >>> described = describe_attention(torch.tensor([0.0, 0.25, 0.25, 0.0]), kinds, places)
    >>> described["content words"], described["corners"], described["last"], described["entropy"]
    (50.0, 50.0, 50.0, 1.5)
    ```"""
    attention = attention.double().cpu()
    rest = (1 - attention.sum()).clamp(min=0)
    by_kind = dict.fromkeys(KINDS, 0.0) | {"corners": 100 * rest.item()}
    by_place = dict.fromkeys(PLACES, 0.0)
    for value, kind, place in zip(attention.tolist(), kinds, places):
        by_kind[kind] += 100 * value
        if place is not None:
            by_place[place] += value
    on_words = sum(by_place.values())
    by_place = {place: 100 * value / on_words if on_words > 0 else 0.0 for place, value in by_place.items()}
    entropy = torch.special.entr(torch.cat([attention, rest[None]])).sum() / math.log(2)
    return {**by_kind, **by_place, "entropy": entropy.item()}


def average(rows: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each number over dictionaries that have the same ones."""
    return {name: statistics.fmean(row[name] for row in rows) for name in rows[0]}


def overlap(attention: torch.Tensor) -> torch.Tensor:
    """What the attention (queries, length) of each two queries to a text has in common: (queries, queries)"""
    shares = attention / attention.sum(dim=-1, keepdim=True)
    return torch.minimum(shares[:, None], shares[None]).sum(dim=-1)


def cosines(embeds: torch.Tensor) -> torch.Tensor:
    """The cosines of embeddings (texts, slots, dim) of a text with each other, mean of the texts: (slots, slots)"""
    embeds = torch.nn.functional.normalize(embeds, dim=-1)
    return (embeds @ embeds.transpose(1, 2)).mean(dim=0)


def analyse(
    model: PreTrainedModel, processor: ProcessorMixin, texts: list[str], batch_size: int, max_length: int | None
) -> dict:
    """
    Measures what `[CLS]` and the corner tokens attend to, and how alike their embeddings are.

    Args:
        model (`PreTrainedModel`):
            A LoTLIP model with `attn_implementation="eager"`.
        processor (`ProcessorMixin`):
            Its processor.
        texts (`list[str]`):
            Long captions, at least one.
        batch_size (`int`):
            Texts in a batch.
        max_length (`int`, *optional*):
            Truncate texts at this many tokens.

    Returns:
        `dict`: `attention`, for the last layer (`last_layer`) and for all (`rollout`) the mean over the texts of
        [`describe_attention`] for each of `slots`, and what attention spread evenly over the text would give
        (`uniform`); `attention_overlap` of the last layer (0 to 1), `cosine` of the embeddings, `centred_cosine`
        without their means over the texts, each a matrix over the slots; `effective_rank` of the embeddings of each.
    """
    described = {name: [] for name in ("uniform", "last_layer", "rollout")}
    overlaps, embeds = [], []
    for start in progress_bar(range(0, len(texts), batch_size), desc="Attention", unit=" batches"):
        inputs = tokenize(processor, texts[start : start + batch_size], max_length)
        embeds.append(embed_texts(model, inputs, with_corners=True))
        attentions = token_attention(model, inputs)
        for text, mask in enumerate(inputs["attention_mask"].bool()):
            input_ids = inputs["input_ids"][text, mask].tolist()
            kinds = classify_tokens(input_ids, processor.tokenizer)
            places = locate_tokens(input_ids, kinds, processor.tokenizer)
            uniform = torch.full((len(kinds),), 1 / len(kinds))
            described["uniform"].append(describe_attention(uniform, kinds, places))
            for name, attention in attentions.items():
                rows = attention[text].cpu()[:, mask]
                described[name].append([describe_attention(row, kinds, places) for row in rows])
            overlaps.append(overlap(attentions["last_layer"][text].cpu()[:, mask]))
    embeds = torch.cat(embeds)
    slots = ["[CLS]", *(f"corner {number}" for number in range(1, embeds.shape[1]))]
    return {
        "num_texts": len(texts),
        "slots": slots,
        "attention": {
            "uniform": average(described["uniform"]),
            **{
                name: {slot: average(list(rows)) for slot, rows in zip(slots, zip(*described[name]))}
                for name in ("last_layer", "rollout")
            },
        },
        "attention_overlap": torch.stack(overlaps).mean(dim=0).tolist(),
        "cosine": cosines(embeds).tolist(),
        "centred_cosine": cosines(embeds - embeds.mean(dim=0)).tolist(),
        "effective_rank": {slot: effective_rank(own) for slot, own in zip(slots, embeds.unbind(dim=1))},
    }


def format_tables(results: dict) -> str:
    """The results of [`analyse`] as Markdown."""
    columns = [*KINDS, *PLACES, "entropy"]
    lines = [
        f"What is attended to, in per cent, mean of {results['num_texts']} texts and of the heads; first, middle and "
        "last: of the attention to words, by the third of the text; entropy in bits.",
        "",
        f"| | | {' | '.join(columns)} |",
        "| --- | --- |" + " --- |" * len(columns),
    ]
    rows = [("", "uniform", results["attention"]["uniform"])]
    for name, title in {"last_layer": "last layer", "rollout": "rollout"}.items():
        rows += [(title, slot, row) for slot, row in results["attention"][name].items()]
    for title, slot, row in rows:
        values = [f"{row[column]:.{2 if column == 'entropy' else 1}f}" for column in columns]
        lines.append(f"| {title} | {slot} | {' | '.join(values)} |")
    lines += [
        "",
        "How alike two of them are: cosine of the embeddings, the same without their means over the texts, and what "
        "their attention in the last layer has in common (0 to 1). Effective rank of the embeddings: "
        + ", ".join(f"{slot} {rank:.1f}" for slot, rank in results["effective_rank"].items())
        + ".",
        "",
        "| | cosine | centred cosine | overlap of attention |",
        "| --- | --- | --- | --- |",
    ]
    for (first, one), (second, other) in itertools.combinations(enumerate(results["slots"]), 2):
        values = [results[name][first][second] for name in ("cosine", "centred_cosine", "attention_overlap")]
        lines.append(f"| {one}, {other} | " + " | ".join(f"{value:.3f}" for value in values) + " |")
    return "\n".join(lines)


def read_texts(
    source: SourceArguments, split: EvaluationSplitArguments, captions: CaptionArguments, side_files: SideFileArguments
) -> list[str]:
    """The first long caption of each row."""
    dataset = load_split(source, split.eval_split, split.max_eval_samples, with_images=False)
    reader = RowReader(get_columns(dataset), captions, side_files, source.image_column)
    texts = []
    for row in dataset.select_columns(reader.text_columns):
        for text in reader.long_captions(row)[:1]:
            texts.append(join_sub_captions(reader.sub_captions(text)))
    texts = [text for text in texts if text]
    if not texts:
        raise ValueError("No image has a long caption: there is nothing to analyse. See the data arguments.")
    return texts


def main() -> None:
    named, *data, output = parse(
        (
            ModelArguments,
            SourceArguments,
            EvaluationSplitArguments,
            CaptionArguments,
            SideFileArguments,
            OutputArguments,
        ),
        description=__doc__,
    )
    texts = read_texts(*data)
    model, processor = load_model(named.model_name_or_path, named)
    if getattr(model.config.get_text_config(), "num_corner_tokens", 0) == 0:
        raise ValueError(f"`--model_name_or_path {named.model_name_or_path}` has no corner tokens.")
    model.set_attn_implementation("eager")
    results = analyse(model, processor, texts, named.batch_size, named.max_length)
    tables = format_tables(results)
    print(tables)
    if output.output_file is not None:
        results = {"model": named.model_name_or_path, "dataset": data[0].dataset_name or "scenes", **results}
        for path in {output.output_file, output.output_file.with_suffix(".md")}:
            write_results(path, results, tables)


if __name__ == "__main__":
    with exit_on_error("corner_attention.py"):
        main()
