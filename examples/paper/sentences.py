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
"""
How often the ticks of the search page are right: measured on drawn scenes, of which the answers are known.

    python examples/evaluate_sentences.py --model_name_or_path outputs/demo

Each long caption is a query over all scenes, and of every sentence it is known which scenes it is true of. The table
has the share of ticks that are right and that of true ones which get a tick, beside the share of true ones among all,
and how often a scene of which a sentence is true has a higher score than one of which it is not (AUC).
"""

import argparse
from collections import defaultdict
from statistics import fmean

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel, ProcessorMixin

from modeling_lotlip.data.arguments import HelpFormatter
from modeling_lotlip.data.scenes import (
    COUNT_TEMPLATES,
    FRAME_TEMPLATES,
    FRAMES,
    GROUND_TEMPLATES,
    GROUNDS,
    LIGHT_TEMPLATES,
    LIGHTS,
    NUMBERS,
    Scene,
    make_scene,
)
from modeling_lotlip.embedding.arguments import add_evaluation_arguments
from modeling_lotlip.embedding.batches import embed_images
from modeling_lotlip.embedding.models import load_model
from modeling_lotlip.files import write_json
from modeling_lotlip.search.arguments import SENTENCE_SCORES
from modeling_lotlip.search.index import Index
from modeling_lotlip.search.query import SATISFIED, embed_query, search_index


# What a sentence says: of which kind it is, and the value
STATEMENTS = {
    template.format(**{kind: value}): (kind, value)
    for kind, templates, values in (
        ("ground", GROUND_TEMPLATES, GROUNDS),
        ("light", LIGHT_TEMPLATES, LIGHTS),
        ("frame", FRAME_TEMPLATES, FRAMES),
        ("count", COUNT_TEMPLATES, NUMBERS.values()),
    )
    for template in templates
    for value in values
}


def is_true(sentence: str, scene: Scene) -> tuple[str, bool]:
    """
    The kind of a sub-caption of any scene, and whether it is true of this one.

    ```python
    >>> from modeling_lotlip.data.scenes import make_scene
    >>> from examples.paper.sentences import is_true

    >>> scene = make_scene(seed=0, index=0)
    >>> [is_true(sentence, scene)[1] for sentence in scene.sub_captions] == [True] * len(scene.sub_captions)
    True
    ```"""
    if sentence not in STATEMENTS:
        words = set(sentence.split())
        return "thing", any({thing.size, thing.colour, thing.kind, thing.place} <= words for thing in scene.others)
    kind, value = STATEMENTS[sentence]
    own = NUMBERS[len(scene.others)] if kind == "count" else getattr(scene, kind)
    return kind, own == value


def evaluate_score(
    model: PreTrainedModel, processor: ProcessorMixin, index: Index, scenes: list[Scene], num_queries: int, score: str
) -> dict[str, dict[str, float]]:
    """For each kind of sentence `precision`, `recall`, `true` and `auc`, in per cent."""
    fits, truths = defaultdict(list), defaultdict(list)
    for scene in tqdm(scenes[:num_queries], desc=score, unit=" queries"):
        results = search_index(index, embed_query(model, processor, scene.long_caption, None, score), len(scenes))
        for place, sentence in enumerate(scene.sub_captions):
            judged = [is_true(sentence, scenes[int(result.name)]) for result in results]
            kind = judged[0][0]
            truth = torch.tensor([is_so for _, is_so in judged])
            if not truth.all() and results[0].fits[place] is not None:
                fits[kind].append(torch.tensor([result.fits[place] for result in results]))
                truths[kind].append(truth)
    table = {}
    for kind in sorted(fits):
        fit, truth = torch.stack(fits[kind]), torch.stack(truths[kind])
        ticked = fit >= SATISFIED
        higher = [(own[is_so][:, None] > own[~is_so]).float().mean().item() for own, is_so in zip(fit, truth)]
        table[kind] = {
            "precision": 100 * truth[ticked].float().mean().item(),
            "recall": 100 * ticked[truth].float().mean().item(),
            "true": 100 * truth.float().mean().item(),
            "auc": 100 * fmean(higher),
        }
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add_evaluation_arguments(parser)
    parser.add_argument("--num_scenes", type=int, default=512, help="How many scenes are searched.")
    parser.add_argument("--num_queries", type=int, default=64, help="How many of their captions are queries.")
    parser.add_argument("--seed", type=int, default=3, help="The series of scenes; 0 is that of the training.")
    args = parser.parse_args()
    if not 1 <= args.num_queries <= args.num_scenes or args.num_scenes < 2:
        parser.error("--num_queries must be from 1 to --num_scenes, and that at least 2.")

    model, processor = load_model(args.model_name_or_path, args)
    scenes = [make_scene(args.seed, number) for number in range(args.num_scenes)]
    embeds = []
    for start in range(0, len(scenes), args.batch_size):
        images = [scene.draw() for scene in scenes[start : start + args.batch_size]]
        embeds.append(embed_images(model, dict(processor.image_processor(images, return_tensors="pt"))))
    index = Index([str(number) for number in range(len(scenes))], torch.cat(embeds))
    results = {
        score: evaluate_score(model, processor, index, scenes, args.num_queries, score) for score in SENTENCE_SCORES
    }
    print("| score | sentences | true, per cent | ticks that are right | true ones ticked | AUC |")
    print("| --- | --- | --- | --- | --- | --- |")
    for score, table in results.items():
        for kind, row in table.items():
            print(
                f"| `{score}` | {kind} " + "| {true:.1f} | {precision:.1f} | {recall:.1f} | {auc:.1f} |".format(**row)
            )
    if args.output_file is not None:
        write_json(args.output_file, results)


if __name__ == "__main__":
    main()
