# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.10"
# dependencies = ["lotlip"]
# ///
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
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import AutoModel, AutoProcessor, PreTrainedModel, ProcessorMixin, get_scheduler

from modeling_lotlip import DualEncoder
from modeling_lotlip.data.arguments import CaptionArguments
from modeling_lotlip.data.reader import RowReader
from modeling_lotlip.data.scenes import load_scenes
from modeling_lotlip.evaluation.retrieval import evaluate_retrieval
from modeling_lotlip.hub import delete_earlier_model
from modeling_lotlip.hub_lotlip import find_pretrained
from modeling_lotlip.losses import contrastive_loss, global_loss
from modeling_lotlip.training.batch import CaptionBatch, Texts
from modeling_lotlip.training.dual_encoder import ContrastiveModel
from modeling_lotlip.training.models import build_small_model


# What a checkpoint holds beside the state that accelerate saves: what the steps after it depend on
SETTINGS_FILE = "settings.json"


# ---------------------------------------------------------------------------------------------------------------------
# Arguments


def parse_args() -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    add = parser.add_argument
    add("--output_dir", type=Path, required=True, help="where model, results and checkpoints go")
    add("--overwrite_output_dir", action="store_true", help="replace what an earlier run left there")
    add("--dataset_name", help="a dataset or a builder such as imagefolder; default: drawn scenes")
    add("--data_dir", help="the folder of a builder")
    add("--image_column", default="image")
    add("--caption_column", default="caption", help="short captions, a string or a list")
    add("--long_captions_column", default="long_captions", help="long captions, a string or a list")
    add("--max_train_samples", type=int)
    add("--max_eval_samples", type=int)
    add("--model_name_or_path", help="a LoTLIP or CLIP; default: a small one from scratch")
    add("--per_device_train_batch_size", type=int, default=64)
    add("--per_device_eval_batch_size", type=int, default=64)
    add("--short_loss_weight", type=float, help="of the slot of short captions; default: 1, for scenes 1.5")
    add("--long_loss_weight", type=float, default=1.0, help="of each slot of long captions")
    add("--learning_rate", type=float, help="default: 1e-5 for a named model, else 2e-3")
    add("--weight_decay", type=float, default=0.1)
    add("--max_grad_norm", type=float, default=1.0, help="clip gradients to this norm; 0: do not")
    add("--num_train_epochs", type=int, default=15)
    add("--max_train_steps", type=int, help="instead of a number of epochs")
    add("--warmup_steps", type=float, default=0.05, help="a number, or below 1 a fraction of all steps")
    add("--decay_steps", type=float, default=0.3, help="of the end, as above; the rate falls")
    add("--mixed_precision", choices=("no", "fp16", "bf16"))
    add("--eval_steps", type=int, default=500)
    add("--checkpointing_steps", type=int, help="save the state every N steps")
    add("--resume_from_checkpoint", help="a folder checkpoint-N, or `latest`")
    add("--dataloader_num_workers", type=int, default=0)
    add("--seed", type=int, default=0)
    args = parser.parse_args()
    counts = ("max_train_samples", "max_eval_samples", "max_train_steps", "num_train_epochs", "eval_steps")
    for name in (*counts, "checkpointing_steps", "per_device_train_batch_size", "per_device_eval_batch_size"):
        count = getattr(args, name)
        if count is not None and count < 1:
            parser.error(f"--{name} must be at least 1, got {count}")
    if args.max_grad_norm < 0:
        parser.error(f"--max_grad_norm must be at least 0, got {args.max_grad_norm}")
    if args.learning_rate is None:
        args.learning_rate = 1e-5 if args.model_name_or_path else 2e-3
    if args.short_loss_weight is None:
        # The paper's mean over slots is 1. On scenes the long captions' three slots then fill the image tower first.
        args.short_loss_weight = 1.5 if args.dataset_name is None else 1.0
    if args.overwrite_output_dir and args.resume_from_checkpoint:
        parser.error("--overwrite_output_dir excludes --resume_from_checkpoint: leave out one of them")
    if args.resume_from_checkpoint == "latest":
        checkpoints = sorted(args.output_dir.glob("checkpoint-*[0-9]"), key=read_step)
        args.resume_from_checkpoint = checkpoints[-1] if checkpoints else None
        # a run that was killed before its first checkpoint has left none
        if not checkpoints and (args.output_dir / "config.json").exists():
            parser.error(f"--output_dir {args.output_dir} holds a model, and no checkpoint to resume: name another")
    elif args.output_dir.exists() and not (args.overwrite_output_dir or args.resume_from_checkpoint):
        parser.error(f"--output_dir {args.output_dir} is there: add --overwrite_output_dir, or resume")
    return args


def read_step(checkpoint: Path) -> int:
    """Returns the step of a folder checkpoint-N."""
    return int(checkpoint.name.split("-")[1])


def prepare_output_dir(args: argparse.Namespace, accelerator: Accelerator) -> None:
    """
    Makes the output folder. A run removes the checkpoints of an earlier one that it does not resume, and one that was
    not complete.
    """
    if accelerator.is_main_process:
        pattern = "checkpoint-*.partial" if args.resume_from_checkpoint else "checkpoint-*"
        for checkpoint in args.output_dir.glob(pattern):
            shutil.rmtree(checkpoint)
        args.output_dir.mkdir(parents=True, exist_ok=True)
    accelerator.wait_for_everyone()


# ---------------------------------------------------------------------------------------------------------------------
# Data


def load_data(args: argparse.Namespace) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Loads images and captions to train and to evaluate on, the images not yet decoded."""
    if args.dataset_name is None:
        train = load_scenes(args.max_train_samples or 8192)
        test = load_scenes(256, seed=1)
    else:
        splits = datasets.load_dataset(args.dataset_name, data_dir=args.data_dir)
        if len(splits) == 1:
            (rows,) = splits.values()
            splits = rows.train_test_split(test_size=0.1, seed=args.seed)
        train = splits["train"]
        test = splits["test" if "test" in splits else "validation"]
    train = train.cast_column(args.image_column, datasets.Image(decode=False))
    test = test.cast_column(args.image_column, datasets.Image(decode=False))
    train = train.take(args.max_train_samples or len(train))
    test = test.take(args.max_eval_samples or len(test))
    return train, test


class CaptionedImages(torch.utils.data.Dataset):
    """
    Pixels of an image, and tokens of a short and of a long caption of it, which are sampled by seed, epoch and row.

    A row is read, and its captions are tokenized, whenever it is asked for. With `keep_in_memory` that happens once:
    the 8,192 scenes take 0.4 GB, and a step is a fifth shorter.
    """

    def __init__(
        self,
        rows: datasets.Dataset,
        reader: RowReader,
        processor: ProcessorMixin,
        seed: int,
        keep_in_memory: bool,
    ):
        self.rows = rows
        self.reader = reader
        self.processor = processor
        self.seed = seed
        self.keep_in_memory = keep_in_memory
        self.kept = {}
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        row = self.kept.get(index)
        if row is None:
            row = self.preprocess(index)
        if self.keep_in_memory:
            self.kept[index] = row
        generator = random.Random(f"{self.seed} {self.epoch} {index}")
        return {
            "image": row["image"],
            "short": generator.choice(row["short"]),
            "long": generator.choice(row["long"]),
        }

    def preprocess(self, index: int) -> dict:
        """Reads a row: the inputs of the image tower, and all short and all long captions as tokens."""
        row = {"short": [], "long": []}
        for item in self.reader(index, self.rows[index]):
            if item.kind == "image":
                inputs = self.processor.image_processor(item.content, return_tensors="pt")
                row["image"] = {name: values[0] for name, values in inputs.items()}
            else:
                row[item.kind].append(self.tokenize(item.content))
        for modality in ("short", "long"):
            if not row[modality]:
                row[modality].append(self.tokenize(""))
        return row

    def tokenize(self, text: str) -> dict[str, torch.Tensor]:
        """Returns ids and mask of a caption, of shape `(length,)`; the mask of an absent one, "", is zero."""
        tokens = self.processor.tokenizer(text, truncation=True)
        input_ids = torch.tensor(tokens["input_ids"])
        # an integer that equal captions share, in all processes
        digest = hashlib.sha256(text.encode()).digest()
        return {
            "input_ids": input_ids,
            "attention_mask": torch.full_like(input_ids, bool(text)),
            "group": torch.tensor(int.from_bytes(digest[:7], "big")),
        }

    def collate(self, samples: list[dict]) -> dict[str, dict[str, torch.Tensor] | torch.Tensor]:
        """
        Returns `images`, such as pixels of shape `(rows, channels, height, width)`; ids and masks of the `short`
        captions, `(rows, length)`, and of the `long` ones, `(rows, 1, length)`; and `short_groups` of shape `(rows,)`,
        equal for equal short captions.
        """
        names = samples[0]["image"]
        images = {name: torch.stack([sample["image"][name] for sample in samples]) for name in names}
        padding = {"input_ids": self.processor.tokenizer.pad_token_id, "attention_mask": 0}
        short = {}
        long = {}
        for name, value in padding.items():
            tokens = [sample["short"][name] for sample in samples]
            short[name] = pad_sequence(tokens, batch_first=True, padding_value=value)
            tokens = [sample["long"][name] for sample in samples]
            long[name] = pad_sequence(tokens, batch_first=True, padding_value=value)[:, None]  # one of each image
        groups = torch.stack([sample["short"]["group"] for sample in samples])
        return {"images": images, "short": short, "long": long, "short_groups": groups}


# ---------------------------------------------------------------------------------------------------------------------
# Model and optimizer


def load_model(
    args: argparse.Namespace, rows: datasets.Dataset, reader: RowReader
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Loads the model to train further, or makes a small one that knows the words of the captions."""
    if args.model_name_or_path is None:
        return build_small_model(rows, reader)
    name_or_path = find_pretrained(args.model_name_or_path)  # of a model in the original's layout its conversion
    model = AutoModel.from_pretrained(name_or_path, dtype=torch.float32)
    others = ("logit_bias", "get_text_token_embeds")  # the sigmoid loss, and late interaction
    if not hasattr(model, "logit_scale") or any(hasattr(model, name) for name in others):
        raise SystemExit(
            f"--model_name_or_path {args.model_name_or_path} is a {type(model).__name__}, and this script "
            "takes a LoTLIP or CLIP that is trained by softmax: `lotlip train` takes others"
        )
    # one whose tokenizer has the limit of the model: that of Long-CLIP says 77, and the model reads 248 tokens
    processor = DualEncoder(model, AutoProcessor.from_pretrained(name_or_path)).processor
    return model, processor


def make_loader(samples: CaptionedImages, args: argparse.Namespace, accelerator: Accelerator) -> DataLoader:
    """Makes the batches of an epoch in random order, the last one left out if it is not full."""
    batch_size = args.per_device_train_batch_size
    if len(samples) < batch_size * accelerator.num_processes:
        raise SystemExit(f"{len(samples)} images are less than a batch: lower --per_device_train_batch_size")
    return DataLoader(
        samples,
        batch_size,
        shuffle=True,
        collate_fn=samples.collate,
        num_workers=args.dataloader_num_workers,
        drop_last=True,
    )


def make_optimizer(model: torch.nn.Module, args: argparse.Namespace) -> torch.optim.Optimizer:
    """Makes AdamW: matrices decay; biases, norms and the temperature do not."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in parameters if parameter.dim() >= 2]
    others = [parameter for parameter in parameters if parameter.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": args.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=args.learning_rate, betas=(0.9, 0.98), eps=1e-6)


def make_scheduler(
    optimizer: torch.optim.Optimizer, num_steps: int, args: argparse.Namespace
) -> torch.optim.lr_scheduler.LambdaLR:
    """
    Makes a learning rate that rises, stays and falls. Short and long captions compete for the image tower, and one of
    them learns first: a rate that begins to fall at once, as by a cosine, is low before the other one has learned.
    """
    num_warmup_steps = count_steps(args.warmup_steps, num_steps)
    if num_warmup_steps >= num_steps:  # a run of one step would be taken at a rate of 0
        raise SystemExit(f"--warmup_steps {args.warmup_steps:g} is the whole run of {num_steps} steps: give fewer")
    num_decay_steps = min(count_steps(args.decay_steps, num_steps), num_steps - num_warmup_steps)
    return get_scheduler(
        "warmup_stable_decay",
        optimizer,
        num_warmup_steps,
        num_steps,
        scheduler_specific_kwargs={"num_decay_steps": num_decay_steps},
    )


def count_steps(steps: float, num_steps: int) -> int:
    """Returns a number of steps that is given as it is, or below 1 as a fraction of all, rounded down."""
    if steps < 1:  # without the error of the product: 0.29 * 100 is 28.999999999999996
        steps = math.floor(round(steps * num_steps, 6))
    return int(steps)


# ---------------------------------------------------------------------------------------------------------------------
# Training


def list_settings(args: argparse.Namespace, accelerator: Accelerator) -> dict[str, object]:
    """Lists what the steps of a run depend on; how many there are may change."""
    names = ("seed", "dataset_name", "data_dir", "max_train_samples", "per_device_train_batch_size")
    names += ("image_column", "caption_column", "long_captions_column", "short_loss_weight", "long_loss_weight")
    names += ("learning_rate", "warmup_steps", "decay_steps", "weight_decay", "max_grad_norm", "model_name_or_path")
    settings = {name: getattr(args, name) for name in names}
    settings["num_processes"] = accelerator.num_processes
    settings["mixed_precision"] = accelerator.mixed_precision
    return settings


def save_checkpoint(args: argparse.Namespace, accelerator: Accelerator, step: int) -> None:
    """Saves the state of a run in `checkpoint-STEP`, which has this name once it is complete."""
    checkpoint = args.output_dir / f"checkpoint-{step}"
    partial = checkpoint.with_name(f"{checkpoint.name}.partial")
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        for weights in partial.glob("model*.safetensors"):  # which only this user may read else
            shutil.copymode(partial / "random_states_0.pkl", weights)
        settings = list_settings(args, accelerator)
        (partial / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n")
        if checkpoint.exists():  # of a run that was resumed from an earlier one
            shutil.rmtree(checkpoint)
        partial.rename(checkpoint)


def resume(
    args: argparse.Namespace,
    accelerator: Accelerator,
    num_steps: int,
) -> int:
    """
    Loads the state of a checkpoint, if one is resumed.

    Args:
        args (`argparse.Namespace`): Name the checkpoint.
        accelerator (`Accelerator`): Has prepared what is loaded.
        num_steps (`int`): The steps of the whole training.

    Returns:
        `int`: the steps that are done.
    """
    if args.resume_from_checkpoint is None:
        return 0
    step = read_step(Path(args.resume_from_checkpoint))
    if step >= num_steps:
        raise SystemExit(f"{args.resume_from_checkpoint} is at step {step} of {num_steps}: ask for more")
    saved = json.loads(Path(args.resume_from_checkpoint, SETTINGS_FILE).read_text())
    for name, value in list_settings(args, accelerator).items():
        if saved.get(name, value) != value:
            raise SystemExit(f"{name} was {saved[name]} in {args.resume_from_checkpoint}, not {value}: give the same")
    accelerator.load_state(args.resume_from_checkpoint)
    return step


def skip_batches(loader: DataLoader, num_done: int, accelerator: Accelerator) -> DataLoader:
    """Returns the batches of an epoch without the first ones, which a resumed run has done."""
    if num_done <= 0:
        return loader
    return accelerator.skip_first_batches(loader, num_done)


def evaluate(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    rows: datasets.Dataset,
    args: argparse.Namespace,
) -> dict[str, float]:
    """
    Measures retrieval in both directions, of short and of long captions.

    Args:
        model (`PreTrainedModel`): The trained model, not wrapped.
        processor (`ProcessorMixin`): Its processor.
        rows (`datasets.Dataset`): Captioned images that it has not seen.
        args (`argparse.Namespace`): Name their columns.

    Returns:
        `dict[str, float]`: recalls in %, and more; empty on all processes but the main one.
    """
    return evaluate_retrieval(
        DualEncoder(model, processor),
        rows,
        CaptionArguments(args.caption_column, args.long_captions_column),
        image_column=args.image_column,
        batch_size=args.per_device_eval_batch_size,
        distinct_short_captions=args.dataset_name is None,  # several scenes have the same
    )


def save(
    output_dir: Path,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    results: dict[str, float],
) -> None:
    """
    Saves what is left of a training, in place of an earlier model; a model card of one's own stays.

    Args:
        output_dir (`Path`): Where it goes.
        model (`PreTrainedModel`): The trained model, which loads in the Auto classes.
        processor (`ProcessorMixin`): Its processor.
        results (`dict[str, float]`): Those of the last evaluation.
    """
    delete_earlier_model(output_dir, kept=["README.md"])
    model.save_pretrained(output_dir)
    processor.save_pretrained(output_dir)
    (output_dir / "eval_results.json").write_text(json.dumps(results, indent=2) + "\n")


def compute_loss(
    model: torch.nn.Module,
    batch: dict[str, dict | torch.Tensor],
    args: argparse.Namespace,
    accelerator: Accelerator,
) -> torch.Tensor:
    """
    Computes the contrastive loss of the batches of all processes.

    Args:
        model (`torch.nn.Module`): A prepared `ContrastiveModel`.
        batch (`dict[str, dict | torch.Tensor]`): What `collate` makes of the rows of this process.
        args (`argparse.Namespace`): Have the weights of short and long captions.
        accelerator (`Accelerator`): Has prepared the model.

    Returns:
        `torch.Tensor` of shape `()`: the mean over slots (short captions, long ones, each corner token) by weight.
    """
    embeds = model(CaptionBatch(batch["images"], Texts(**batch["short"]), Texts(**batch["long"])))
    losses = global_loss(
        contrastive_loss,
        embeds.images,
        embeds,  # of captions: `short`, `long` and `corners`
        short_groups=batch["short_groups"],  # images with the same short caption are no negatives there
        short_weight=args.short_loss_weight,
        long_weight=args.long_loss_weight,
        logit_scale=accelerator.unwrap_model(model).scalars["logit_scale"],
    )
    return losses.loss


def main() -> None:
    args = parse_args()
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),
        mixed_precision=args.mixed_precision,
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True, data_seed=args.seed),
    )
    set_seed(args.seed)
    with accelerator.main_process_first():
        train_rows, eval_rows = load_data(args)
    captions = CaptionArguments(args.caption_column, args.long_captions_column)
    reader = RowReader(train_rows.column_names, captions, image_column=args.image_column)
    model, processor = load_model(args, train_rows, reader)
    samples = CaptionedImages(train_rows, reader, processor, args.seed, args.dataset_name is None)
    loader = make_loader(samples, args, accelerator)
    prepare_output_dir(args, accelerator)

    model = ContrastiveModel(model)
    optimizer = make_optimizer(model, args)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    num_steps = args.max_train_steps or args.num_train_epochs * len(loader)
    scheduler = make_scheduler(optimizer, num_steps, args)
    accelerator.register_for_checkpointing(scheduler)  # not prepared: it makes a step in each process
    step = resume(args, accelerator, num_steps)

    progress = tqdm(total=num_steps, initial=step, disable=not accelerator.is_local_main_process)
    model.train()
    for epoch in range(step // len(loader), math.ceil(num_steps / len(loader))):
        samples.epoch = epoch
        loader.set_epoch(epoch)
        num_done = step - epoch * len(loader)  # not 0 where a checkpoint within the epoch is resumed
        for batch in skip_batches(loader, num_done, accelerator):
            loss = compute_loss(model, batch, args, accelerator)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), args.max_grad_norm or math.inf)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            accelerator.unwrap_model(model).clamp_temperature()  # as in the paper: it stays at 1/100 or more
            step += 1
            progress.update()
            progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
            if args.checkpointing_steps is not None and step % args.checkpointing_steps == 0:
                save_checkpoint(args, accelerator, step)
            if step % args.eval_steps == 0 or step == num_steps:
                dual_encoder = accelerator.unwrap_model(model).model
                results = evaluate(dual_encoder, processor, eval_rows, args)
                shown = [name for name in results if name.endswith(("recall@1", "truncated"))]
                accelerator.print(f"step {step}: { {name: round(results[name], 2) for name in shown} }")
                model.train()
            if step == num_steps:
                break

    if accelerator.is_main_process:
        save(args.output_dir, dual_encoder, processor, results)
    model, optimizer, loader = accelerator.free_memory(model, optimizer, loader)  # or the end may hang
    accelerator.end_training()


if __name__ == "__main__":
    main()
