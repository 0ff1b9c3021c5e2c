# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Contrastive training of LoTLIP in one file, to be read from top to bottom and changed. `lotlip train` has what is left
out here: streams, side captions, frozen towers computed once, batches larger than the memory, bad images, and more.

A small model from scratch, on drawn scenes:

    python examples/train_lotlip.py --output_dir outputs/demo

LoTLIP, CLIP or the like (not SigLIP) further, on a folder of captioned images, in two processes:

    accelerate launch --num_processes 2 examples/train_lotlip.py --output_dir outputs/mine \
        --dataset_name imagefolder --data_dir FOLDER --model_name_or_path weiwu-ww/LoTLIP-ViT-B-16-100M
"""

import argparse
import hashlib
import json
import math
import random
import shutil
from pathlib import Path

import datasets
import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, set_seed
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import AutoModel, AutoProcessor, get_scheduler

from modeling_lotlip.data.arguments import CaptionArguments
from modeling_lotlip.data.reader import RowReader
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.evaluation.retrieval import evaluate_retrieval
from modeling_lotlip.losses import contrastive_loss, global_loss
from modeling_lotlip.training.dual_encoder import ContrastiveModel
from modeling_lotlip.training.models import build_small_model


# ---------------------------------------------------------------------------------------------------------------------
# Arguments


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--output_dir", type=Path, required=True, help="where model, results and checkpoints go")
    add("--overwrite_output_dir", action="store_true", help="replace the model and the checkpoints there")
    add("--dataset_name", help="a data set that `datasets` loads, or a builder such as imagefolder; default: scenes")
    add("--data_dir", help="the folder of a builder")
    add("--image_column", default="image")
    add("--caption_column", default="caption", help="short captions, a string or a list")
    add("--long_captions_column", default="long_captions", help="long captions, a string or a list")
    add("--max_train_samples", type=int)
    add("--max_eval_samples", type=int)
    add("--model_name_or_path", help="a LoTLIP or CLIP to train further; default: a small one from scratch")
    add("--per_device_train_batch_size", type=int, default=64)
    add("--per_device_eval_batch_size", type=int, default=64)
    add("--learning_rate", type=float, help="default: 1e-5 for a model that is trained further, else 1e-3")
    add("--weight_decay", type=float, default=0.1)
    add("--max_grad_norm", type=float, default=1.0)
    add("--num_train_epochs", type=int, default=10)
    add("--max_train_steps", type=int, help="instead of a number of epochs")
    add("--warmup_steps", type=float, default=0.1, help="a number, or below 1 a share of all steps")
    add("--mixed_precision", choices=("no", "fp16", "bf16"))
    add("--eval_steps", type=int, default=500)
    add("--checkpointing_steps", type=int, help="save the state every N steps")
    add("--resume_from_checkpoint", help="a folder checkpoint-N, or `latest`; give the other arguments again")
    add("--dataloader_num_workers", type=int, default=0)
    add("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.learning_rate is None:
        args.learning_rate = 1e-5 if args.model_name_or_path else 1e-3
    if args.overwrite_output_dir and args.resume_from_checkpoint:
        parser.error("--overwrite_output_dir excludes --resume_from_checkpoint: leave out one of them")
    if args.resume_from_checkpoint == "latest":
        checkpoints = sorted(args.output_dir.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
        args.resume_from_checkpoint = checkpoints[-1] if checkpoints else None
    elif args.output_dir.exists() and not (args.overwrite_output_dir or args.resume_from_checkpoint):
        parser.error(f"--output_dir {args.output_dir} is there already: add --overwrite_output_dir, or resume")
    return args


# ---------------------------------------------------------------------------------------------------------------------
# Data


def load_data(args: argparse.Namespace) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Images and captions to train and to evaluate on, the images not yet decoded."""
    if args.dataset_name is None:
        train, test = load_scenes(args.max_train_samples or 8192), load_scenes(256, seed=1)
    else:
        splits = datasets.load_dataset(args.dataset_name, data_dir=args.data_dir)
        if len(splits) == 1:
            (rows,) = splits.values()
            splits = rows.train_test_split(test_size=0.1, seed=args.seed)
        train, test = splits["train"], splits["test" if "test" in splits else "validation"]
    train, test = (rows.cast_column(args.image_column, datasets.Image(decode=False)) for rows in (train, test))
    return train.take(args.max_train_samples or len(train)), test.take(args.max_eval_samples or len(test))


class CaptionedImages(torch.utils.data.Dataset):
    """An image with a short and a long caption of it, drawn by seed, epoch and row; "" where it has none."""

    def __init__(self, rows: datasets.Dataset, reader: RowReader, seed: int):
        self.rows, self.reader, self.seed, self.epoch = rows, reader, seed, 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        generator = random.Random(f"{self.seed} {self.epoch} {index}")
        sample = {"short": [], "long": []}
        for item in self.reader(index, self.rows[index]):  # the image, then the captions
            if item.kind == "image":
                sample["image"] = item.content
            else:
                sample[item.kind].append(item.content)
        return sample | {kind: generator.choice(sample[kind] or [""]) for kind in ("short", "long")}


def collate(samples: list[dict], processor) -> dict[str, torch.Tensor]:
    """The inputs of `ContrastiveModel`, masks zero where a caption is absent, and a number of each short caption."""
    batch = dict(processor.image_processor([sample["image"] for sample in samples], return_tensors="pt"))
    for kind, prefix in (("short", "short_"), ("long", "")):
        texts = [sample[kind] for sample in samples]
        tokens = processor.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        batch[f"{prefix}input_ids"] = tokens["input_ids"]
        batch[f"{prefix}attention_mask"] = tokens["attention_mask"] * torch.tensor([[bool(text)] for text in texts])
    batch["input_ids"], batch["attention_mask"] = batch["input_ids"][:, None], batch["attention_mask"][:, None]
    digests = [hashlib.sha256(sample["short"].encode()).digest() for sample in samples]
    batch["short_groups"] = torch.tensor([int.from_bytes(digest[:7], "big") for digest in digests])
    return batch


# ---------------------------------------------------------------------------------------------------------------------
# Training


def main() -> None:
    args = parse_args()
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),
        mixed_precision=args.mixed_precision,
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True, data_seed=args.seed),
    )
    set_seed(args.seed)
    if accelerator.is_main_process:
        if not args.resume_from_checkpoint:
            for checkpoint in args.output_dir.glob("checkpoint-*"):
                shutil.rmtree(checkpoint)
        args.output_dir.mkdir(parents=True, exist_ok=True)
    accelerator.wait_for_everyone()

    with accelerator.main_process_first():
        train_rows, eval_rows = load_data(args)
    captions = CaptionArguments(args.caption_column, args.long_captions_column)
    reader = RowReader(train_rows.column_names, captions, image_column=args.image_column)
    samples = CaptionedImages(train_rows, reader, args.seed)

    # model
    if args.model_name_or_path is None:
        model, processor = build_small_model(train_rows, reader)
    else:
        model = AutoModel.from_pretrained(args.model_name_or_path, dtype=torch.float32)
        processor = AutoProcessor.from_pretrained(args.model_name_or_path)
        others = ("logit_bias", "get_text_token_embeds")  # the sigmoid loss, and late interaction
        if not hasattr(model, "logit_scale") or any(hasattr(model, name) for name in others):
            cause = f"--model_name_or_path {args.model_name_or_path} is a {type(model).__name__}, and this script"
            raise SystemExit(f"{cause} takes a LoTLIP or CLIP that is trained by softmax: `lotlip train` takes others")
    model = ContrastiveModel(model)

    # optimizer: matrices decay, all else does not
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in parameters if parameter.dim() >= 2], "weight_decay": args.weight_decay},
        {"params": [parameter for parameter in parameters if parameter.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=args.learning_rate, betas=(0.9, 0.98), eps=1e-6)
    loader = DataLoader(
        samples,
        args.per_device_train_batch_size,
        shuffle=True,
        collate_fn=lambda rows: collate(rows, processor),
        num_workers=args.dataloader_num_workers,
        drop_last=True,
    )
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    if len(loader) == 0:
        raise SystemExit(f"{len(samples)} images are less than a batch: lower --per_device_train_batch_size")
    num_steps = args.max_train_steps or args.num_train_epochs * len(loader)
    num_warmup_steps = math.ceil(args.warmup_steps * (num_steps if args.warmup_steps < 1 else 1))
    scheduler = get_scheduler("cosine", optimizer, num_warmup_steps, num_steps)
    accelerator.register_for_checkpointing(scheduler)  # not prepared: it makes a step in each process
    step = 0
    if args.resume_from_checkpoint is not None:
        accelerator.load_state(args.resume_from_checkpoint)
        step = int(Path(args.resume_from_checkpoint).name.split("-")[1])
        if step >= num_steps:
            raise SystemExit(f"{args.resume_from_checkpoint} is at step {step}, and {num_steps} were asked for")
        if scheduler.base_lrs[0] != args.learning_rate:
            raise SystemExit(f"--learning_rate was {scheduler.base_lrs[0]} in the checkpoint: give the same")

    # loop
    evaluation = {"image_column": args.image_column, "batch_size": args.per_device_eval_batch_size}
    evaluation["distinct_short_captions"] = args.dataset_name is None  # several scenes have the same
    progress = tqdm(total=num_steps, initial=step, disable=not accelerator.is_local_main_process)
    model.train()
    while step < num_steps:
        samples.epoch, num_done = divmod(step, len(loader))
        loader.set_epoch(samples.epoch)
        for batch in accelerator.skip_first_batches(loader, num_done) if num_done > 0 else loader:
            short_groups = batch.pop("short_groups")
            image_embeds, text_embeds = model(**batch)
            logit_scale = accelerator.unwrap_model(model).scalars["logit_scale"].exp()
            options = {"logit_scale": logit_scale, "short_groups": short_groups}
            loss, _ = global_loss(contrastive_loss, image_embeds, text_embeds, **options)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), args.max_grad_norm)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            accelerator.unwrap_model(model).scalars["logit_scale"].data.clamp_(0, math.log(100))
            step += 1
            progress.update()
            progress.set_postfix(loss=f"{loss.item():.3f}", lr=f"{scheduler.get_last_lr()[0]:.1e}", refresh=False)
            if args.checkpointing_steps is not None and step % args.checkpointing_steps == 0:
                accelerator.save_state(str(args.output_dir / f"checkpoint-{step}"))
            if step % args.eval_steps == 0 or step == num_steps:
                trained = accelerator.unwrap_model(model).model
                results = evaluate_retrieval(trained, processor, eval_rows, captions, **evaluation)
                model.train()
                shown = [name for name in results if name.endswith(("recall@1", "truncated"))]  # of texts too long
                accelerator.print(f"step {step}: { {name: round(results[name], 2) for name in shown} }")
            if step == num_steps:
                break

    # model and results
    if accelerator.is_main_process:
        trained.save_pretrained(args.output_dir)
        processor.save_pretrained(args.output_dir)
        (args.output_dir / "eval_results.json").write_text(json.dumps(results, indent=2) + "\n")
    model, optimizer, loader = accelerator.free_memory(model, optimizer, loader)  # or the end may hang
    accelerator.end_training()


if __name__ == "__main__":
    main()
