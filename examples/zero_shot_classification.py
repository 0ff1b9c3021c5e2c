# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Zero-shot classification of images with the model and its processor: a class is the mean of its name's embeddings in
several prompts, and an image belongs to the class that is most similar to it.

    python examples/zero_shot_classification.py photo.jpg --model outputs/demo --class_names boat car cup house
    python examples/zero_shot_classification.py *.jpg --class_names cat dog --templates "a photo of a {}" "a {}"

`lotlip classify` measures it on a data set with labels.
"""

from dataclasses import dataclass

import torch
from PIL import Image
from torch.nn.functional import normalize

from modeling_lotlip import LotlipModel, LotlipProcessor
from modeling_lotlip.arguments import Arguments, argument, exit_on_error, parse


@dataclass
class ZeroShotArguments(Arguments):
    images: list[str] = argument(help="Files of images.", positional=True)
    model_name_or_path: str = argument(
        "weiwu-ww/LoTLIP-ViT-B-16-100M", "A LoTLIP model: a Hub id or a folder.", aliases=("--model",)
    )
    class_names: list[str] = argument(["a boat", "a car", "a cup", "a house"], "The classes.")
    templates: list[str] = argument(
        ["a photo of {}"], "Prompts with {} for the class name; their embeddings are averaged."
    )
    k: int = argument(5, "The most likely classes to print.", least=1)


@torch.inference_mode()
def embed_classes(
    model: LotlipModel, processor: LotlipProcessor, class_names: list[str], templates: list[str]
) -> torch.Tensor:
    """Normalised embeddings (classes, dim)."""
    if not all("{}" in template for template in templates):
        raise ValueError(f"Each of `--templates` needs {{}} for the class name, got {templates}.")
    prompts = [template.replace("{}", name) for name in class_names for template in templates]
    inputs = processor.tokenizer(prompts, padding=True, return_tensors="pt")
    embeds = normalize(model.get_text_features(**inputs).pooler_output, dim=-1)
    return normalize(embeds.unflatten(0, (len(class_names), len(templates))).mean(dim=1), dim=-1)


@torch.inference_mode()
def classify(
    model: LotlipModel, processor: LotlipProcessor, image: Image.Image, class_embeds: torch.Tensor
) -> torch.Tensor:
    """The probability (classes,) of each class."""
    inputs = processor.image_processor(image, return_tensors="pt")
    image_embeds = normalize(model.get_image_features(**inputs).pooler_output, dim=-1)
    return (model.logit_scale.exp() * image_embeds @ class_embeds.t()).softmax(dim=-1)[0]


def main() -> None:
    (args,) = parse((ZeroShotArguments,), description=__doc__)
    model = LotlipModel.from_pretrained(args.model_name_or_path).eval()
    processor = LotlipProcessor.from_pretrained(args.model_name_or_path)
    class_embeds = embed_classes(model, processor, args.class_names, args.templates)
    for path in args.images:
        probabilities = classify(model, processor, Image.open(path), class_embeds)
        values, classes = probabilities.topk(min(args.k, len(args.class_names)))
        print(path)
        for value, index in zip(values.tolist(), classes.tolist()):
            print(f"{100 * value:6.1f} %  {args.class_names[index]}")


if __name__ == "__main__":
    with exit_on_error("zero_shot_classification.py"):
        main()
