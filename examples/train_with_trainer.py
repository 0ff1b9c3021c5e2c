# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Fine-tuning all weights of LoTLIP with the `Trainer` of transformers, on images with short and long captions.

    python examples/train_with_trainer.py --model LoTLIP-ViT-B-16 --output_dir outputs/trainer \
        --dataset_name imagefolder --data_dir FOLDER

`Trainer` contrasts within the batch of each process; `train_lotlip.py` gathers those of all. What that script does
beside, `Trainer` does not: captions drawn at random, equal captions not taken for negatives, bad samples skipped.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import Trainer, TrainingArguments

from modeling_lotlip import LotlipModel, LotlipProcessor
from modeling_lotlip.arguments import Arguments, argument, exit_on_error, parse
from modeling_lotlip.data.arguments import DatasetArguments, TrainSplitArguments
from modeling_lotlip.data.loading import load_split
from modeling_lotlip.training.callbacks import ClampLogitScaleCallback


@dataclass
class FineTuningArguments(Arguments):
    model_name_or_path: str = argument(help="The LoTLIP model to start from.", aliases=("--model",))
    output_dir: Path = argument(help="Where the model goes, into a folder `model`, and the checkpoints.")
    learning_rate: float = argument(1e-5, "The highest one, after the warm-up.")
    per_device_train_batch_size: int = argument(64, "Images of a process in a step.", least=2)
    num_train_epochs: float = argument(3.0, "Passes over the data.")
    max_steps: int = argument(-1, "Optimizer steps, instead of a number of epochs.")
    bf16: bool = argument(False, "Compute in bfloat16, on a GPU.")
    use_cpu: bool = argument(False, "Leave a GPU alone.")


@dataclass
class Collator:
    """A batch of short and long captions, each padded to a length of its own."""

    processor: LotlipProcessor
    image_column: str

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor | bool]:
        images = self.processor.image_processor([row[self.image_column] for row in rows], return_tensors="pt")
        short = self.processor.tokenizer([row["caption"] for row in rows], padding=True, return_tensors="pt")
        long = self.processor.tokenizer([row["long_captions"][0] for row in rows], padding=True, return_tensors="pt")
        return {
            "pixel_values": images["pixel_values"],
            "short_input_ids": short["input_ids"],
            "short_attention_mask": short["attention_mask"],
            "input_ids": long["input_ids"][:, None],  # (images, long captions, length)
            "attention_mask": long["attention_mask"][:, None],
            "return_loss": True,
        }


def main() -> None:
    args, data, split = parse((FineTuningArguments, DatasetArguments, TrainSplitArguments), description=__doc__)
    model = LotlipModel.from_pretrained(args.model_name_or_path)
    processor = LotlipProcessor.from_pretrained(args.model_name_or_path)
    photos = load_split(data, split.train_split, split.max_train_samples)
    photos = photos.select_columns([data.image_column, "caption", "long_captions"])  # an error if one is not there
    photos = photos.train_test_split(test_size=0.1, seed=0)

    arguments = TrainingArguments(
        args.output_dir,
        learning_rate=args.learning_rate,
        per_device_train_batch_size=args.per_device_train_batch_size,
        num_train_epochs=args.num_train_epochs,
        max_steps=args.max_steps,
        bf16=args.bf16,
        use_cpu=args.use_cpu,
        dataloader_num_workers=data.dataloader_num_workers,
        remove_unused_columns=False,  # the collator reads them
        eval_strategy="epoch",
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=photos["train"],
        eval_dataset=photos["test"],
        data_collator=Collator(processor, data.image_column),
        callbacks=[ClampLogitScaleCallback()],
    )
    trainer.train()
    model.save_pretrained(args.output_dir / "model")
    processor.save_pretrained(args.output_dir / "model")  # checkpoints have no processor


if __name__ == "__main__":
    with exit_on_error("train_with_trainer.py"):
        main()
