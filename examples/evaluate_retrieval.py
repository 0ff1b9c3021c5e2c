# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Image-text retrieval with the model, its processor and the metric: how well long captions find their images, and images
their captions.

    python examples/evaluate_retrieval.py --model outputs/demo
    python examples/evaluate_retrieval.py --model MODEL --dataset_name imagefolder --data_dir FOLDER --eval_split train

`lotlip evaluate` does more: short captions too, other dual encoders, the paper's benchmarks, several processes, images
that cannot be read.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from datasets import Dataset, IterableDataset

from modeling_lotlip import LotlipModel, LotlipProcessor
from modeling_lotlip.arguments import Arguments, argument, exit_on_error, parse
from modeling_lotlip.data.arguments import EvaluationSplitArguments, SourceArguments
from modeling_lotlip.data.loading import load_split
from modeling_lotlip.data.rows import read_captions
from modeling_lotlip.metrics import ImageTextRetrieval
from modeling_lotlip.sub_captions import join_sub_captions, split_sub_captions


@dataclass
class RetrievalArguments(Arguments):
    model_name_or_path: str = argument(
        "weiwu-ww/LoTLIP-ViT-B-16-100M", "A LoTLIP model: a Hub id or a folder.", aliases=("--model",)
    )
    long_captions_column: str = argument("long_captions", "The column of long captions, strings or lists.")
    batch_size: int = argument(64, "Images in a batch.", least=1)
    device: str | None = argument(None, "Such as `cpu` or `cuda:0`. Default: a GPU if there is one.")


def read_batches(
    dataset: Dataset | IterableDataset, image_column: str, captions_column: str, batch_size: int
) -> Iterator[tuple[list, list[list[str]]]]:
    """Images, and the long captions of each."""
    for batch in dataset.iter(batch_size):
        rows = [dict(zip(batch, values)) for values in zip(*batch.values())]
        # stops and line breaks between sentences become what they were in training
        texts = [
            [join_sub_captions(split_sub_captions(text)) for text in read_captions(row, captions_column)]
            for row in rows
        ]
        # an image without a caption is not in the gallery
        kept = [(row[image_column], own) for row, own in zip(rows, texts) if own]
        if kept:
            yield tuple(zip(*kept))


@torch.inference_mode()
def embed(
    model: LotlipModel, processor: LotlipProcessor, batches: Iterator[tuple[list, list[list[str]]]]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Embeddings of images (images, dim) and captions (captions, dim), and the image of each caption."""
    image_embeds, text_embeds, text_to_image, num_images = [], [], [], 0
    for images, captions in batches:
        inputs = processor.image_processor(list(images), return_tensors="pt").to(model.device)
        image_embeds.append(model.get_image_features(**inputs).pooler_output)
        # texts longer than the model's limit are truncated, and counted in a warning
        texts = [text for own in captions for text in own]
        inputs = processor.tokenizer(texts, padding=True, return_tensors="pt").to(model.device)
        text_embeds.append(model.get_text_features(**inputs).pooler_output)
        text_to_image += [num_images + image for image, own in enumerate(captions) for _ in own]
        num_images += len(images)
    if num_images < 2:
        raise ValueError(f"{num_images} images have a caption: retrieval takes at least two. See the data arguments.")
    return torch.cat(image_embeds), torch.cat(text_embeds), torch.tensor(text_to_image)


def main() -> None:
    args, data, split = parse((RetrievalArguments, SourceArguments, EvaluationSplitArguments), description=__doc__)
    dataset = load_split(data, split.eval_split, split.max_eval_samples)
    model = LotlipModel.from_pretrained(args.model_name_or_path).eval()
    model = model.to(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    processor = LotlipProcessor.from_pretrained(args.model_name_or_path)
    batches = read_batches(dataset, data.image_column, args.long_captions_column, args.batch_size)
    image_embeds, text_embeds, text_to_image = embed(model, processor, batches)

    # the metric normalises, and counts equal similarities fairly
    results = ImageTextRetrieval().compute(
        image_embeds=image_embeds, text_embeds=text_embeds, text_to_image=text_to_image, ks=(1, 5, 10)
    )
    print(f"{len(text_embeds)} captions, {len(image_embeds)} images")
    for metric, value in results.items():
        print(f"{metric:20} {value:6.1f}")


if __name__ == "__main__":
    with exit_on_error("evaluate_retrieval.py"):
        main()
