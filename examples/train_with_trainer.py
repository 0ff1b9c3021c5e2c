# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = ["lotlip[peft]"]
# ///
"""
Fine-tuning of LoTLIP with the `Trainer` of transformers, on images with short and long captions: of all weights, or on
one GPU of low-rank matrices beside those of the text tower, and the projection (LoRA, which needs `pip install peft`).

    python examples/train_with_trainer.py --model LoTLIP-ViT-B-16 --output_dir outputs/trainer \
        --dataset_name imagefolder --data_dir FOLDER [--lora_rank 16]

`OUTPUT_DIR/model` gets the model, with LoRA `OUTPUT_DIR/adapter` the matrices and the projection alone; to adapt the
image tower too, leave `text_model` out of `target_modules`. `Trainer` contrasts within the batch of each process;
`train_lotlip.py` gathers those of all. What that script does beside, `Trainer` does not: equal captions not taken for
negatives, bad samples skipped.
"""

from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset, DatasetDict
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer, TrainingArguments

from modeling_lotlip import LotlipModel, LotlipProcessor
from modeling_lotlip.data.arguments import CaptionArguments, DatasetArguments, TrainSplitArguments
from modeling_lotlip.data.collator import CaptionCollator, with_captions
from modeling_lotlip.data.loading import load_split
from modeling_lotlip.data.reader import RowReader
from modeling_lotlip.training.dual_encoder import ClampLogitScaleCallback
from modeling_lotlip.utils.arguments import Arguments, argument, exit_on_error, parse


# Of one image the loss is 0, and a tenth is held back
MIN_IMAGES = 11
LEARNING_RATE = 1e-5
LORA_LEARNING_RATE = 2e-4


@dataclass
class FineTuningArguments(Arguments):
    """What is trained, and how."""

    model_name_or_path: str = argument(help="The LoTLIP model to start from.", aliases=("--model",))
    output_dir: Path = argument(
        help="Where the model goes, into a folder `model`, and the checkpoints.",
    )
    lora_rank: int | None = argument(
        None,
        "The rank of LoRA's matrices. Default: all weights are trained.",
        least=1,
    )
    learning_rate: float | None = argument(None, "The highest one. Default: 1e-5, with LoRA 2e-4.")
    per_device_train_batch_size: int = argument(64, "Images of a process in a step.", least=2)
    num_train_epochs: float = argument(3.0, "Passes over the data.")
    max_steps: int = argument(-1, "Optimizer steps, instead of a number of epochs.")
    bf16: bool = argument(False, "Compute in bfloat16, on a GPU.")
    use_cpu: bool = argument(False, "Leave a GPU alone.")

    def __post_init__(self):
        super().__post_init__()
        if self.learning_rate is None:
            self.learning_rate = LEARNING_RATE
            if self.lora_rank is not None:
                self.learning_rate = LORA_LEARNING_RATE


def add_lora(model: LotlipModel, rank: int) -> PreTrainedModel:
    """Returns a model of which low-rank matrices beside those of the text tower, and the projection, are trained."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=r"text_model\..*\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2)",
        modules_to_save=["text_projection"],
    )
    model = get_peft_model(model, config)
    model.print_trainable_parameters()
    return model


class FineTuningTrainer(Trainer):
    """Leaves out the last batch, which is not full, in training alone."""

    def get_eval_dataloader(self, eval_dataset: Dataset | None = None) -> DataLoader:
        """Returns the batches of all images that are evaluated on."""
        loader = DataLoader(
            self.eval_dataset if eval_dataset is None else eval_dataset,
            self.args.eval_batch_size,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
        )
        return self.accelerator.prepare(loader)


def hold_back(images: Dataset, batch_size: int) -> DatasetDict:
    """
    Returns captioned images as `train` and `test`, a tenth.

    Args:
        images (`Dataset`): The images.
        batch_size (`int`): The images of a step, of all processes.

    Raises:
        `ValueError`: if they are too few for that, or for a batch.
    """
    if len(images) < MIN_IMAGES:
        raise ValueError(
            f"{len(images)} images with captions are too few to evaluate on a tenth: give {MIN_IMAGES} or more."
        )
    parts = images.train_test_split(test_size=0.1, seed=0)
    if len(parts["train"]) < batch_size:
        raise ValueError(f"{len(parts['train'])} images are less than a batch: lower --per_device_train_batch_size.")
    return parts


def main() -> None:
    args, data, split, captions = parse(
        (FineTuningArguments, DatasetArguments, TrainSplitArguments, CaptionArguments),
        description=__doc__,
    )
    model = LotlipModel.from_pretrained(args.model_name_or_path)
    processor = LotlipProcessor.from_pretrained(args.model_name_or_path)
    if args.lora_rank is not None:
        model = add_lora(model, args.lora_rank)
    images = load_split(data, split.train_split, split.max_train_samples)
    reader = RowReader(images.column_names, captions, image_column=data.image_column)
    arguments = TrainingArguments(
        args.output_dir,
        learning_rate=args.learning_rate,
        per_device_train_batch_size=args.per_device_train_batch_size,
        per_device_eval_batch_size=args.per_device_train_batch_size,  # the loss depends on the number of others
        dataloader_drop_last=True,
        num_train_epochs=args.num_train_epochs,
        max_steps=args.max_steps,
        bf16=args.bf16,
        use_cpu=args.use_cpu,
        dataloader_num_workers=data.dataloader_num_workers,
        remove_unused_columns=False,  # the collator reads them
        eval_strategy="epoch",
    )
    images = hold_back(with_captions(images, reader), arguments.train_batch_size * arguments.world_size)
    trainer = FineTuningTrainer(
        model,
        arguments,
        train_dataset=images["train"],
        eval_dataset=images["test"],
        data_collator=CaptionCollator(processor, reader),
        processing_class=processor,  # it is saved with each checkpoint
        callbacks=[ClampLogitScaleCallback()],
    )
    trainer.train()
    if args.lora_rank is None:
        trainer.save_model(args.output_dir / "model")
    else:
        trainer.save_model(args.output_dir / "adapter")
        model.merge_and_unload().save_pretrained(args.output_dir / "model")
        processor.save_pretrained(args.output_dir / "model")


if __name__ == "__main__":
    with exit_on_error("train_with_trainer.py"):
        main()
