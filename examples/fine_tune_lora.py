# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
LoRA on one GPU: small matrices trained beside the weights of the text tower, and the projection; the image tower stays
as it is. PEFT (https://huggingface.co/docs/peft) is needed: `pip install peft`.

    python examples/fine_tune_lora.py --model LoTLIP-ViT-B-16 --output_dir outputs/lora \
        --dataset_name imagefolder --data_dir FOLDER

`OUTPUT_DIR/adapter` gets the matrices and the projection, `OUTPUT_DIR/merged` a model like any other. To adapt the
image tower too, leave `text_model` out of `target_modules`; the corner tokens and `logit_scale` stay as they are.
"""

from dataclasses import dataclass
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from transformers import Trainer, TrainingArguments

from modeling_lotlip import LotlipModel, LotlipProcessor
from modeling_lotlip.arguments import Arguments, argument, exit_on_error, parse
from modeling_lotlip.data.arguments import CaptionArguments, DatasetArguments, TrainSplitArguments
from modeling_lotlip.data.collator import CaptionCollator, with_captions
from modeling_lotlip.data.loading import load_split
from modeling_lotlip.data.reader import RowReader


@dataclass
class LoraArguments(Arguments):
    model_name_or_path: str = argument(help="The LoTLIP model to adapt.", aliases=("--model",))
    output_dir: Path = argument(help="Where the adapter and the merged model go.")
    rank: int = argument(16, "The rank of the matrices.", least=1)
    learning_rate: float = argument(2e-4, "The highest one, after the warm-up.")
    per_device_train_batch_size: int = argument(64, "Images in a step.", least=2)
    num_train_epochs: float = argument(3.0, "Passes over the data.")
    max_steps: int = argument(-1, "Optimizer steps, instead of a number of epochs.")
    bf16: bool = argument(False, "Compute in bfloat16, on a GPU.")
    use_cpu: bool = argument(False, "Leave a GPU alone.")


def main() -> None:
    groups = (LoraArguments, DatasetArguments, TrainSplitArguments, CaptionArguments)
    args, data, split, captions = parse(groups, description=__doc__)
    processor = LotlipProcessor.from_pretrained(args.model_name_or_path)
    lora = LoraConfig(
        r=args.rank,
        lora_alpha=2 * args.rank,
        target_modules=r"text_model\..*\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2)",
        modules_to_save=["text_projection"],
    )
    model = get_peft_model(LotlipModel.from_pretrained(args.model_name_or_path), lora)
    model.print_trainable_parameters()

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
    )
    images = load_split(data, split.train_split, split.max_train_samples)
    reader = RowReader(images.column_names, captions, image_column=data.image_column)
    images = with_captions(images, reader)
    Trainer(model, arguments, train_dataset=images, data_collator=CaptionCollator(processor, reader)).train()
    model.save_pretrained(args.output_dir / "adapter")

    # later: the model with them, as one of its own
    base = LotlipModel.from_pretrained(args.model_name_or_path)
    merged = PeftModel.from_pretrained(base, args.output_dir / "adapter").merge_and_unload()
    merged.save_pretrained(args.output_dir / "merged")
    processor.save_pretrained(args.output_dir / "merged")


if __name__ == "__main__":
    with exit_on_error("fine_tune_lora.py"):
        main()
