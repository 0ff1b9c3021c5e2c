# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""What a training needs before its first step: processes, data, model, optimizer, output folder."""

import logging
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from glob import glob
from pathlib import Path

import datasets
import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.tracking import get_available_trackers
from accelerate.utils import (
    DistributedType,
    GradientAccumulationPlugin,
    InitProcessGroupKwargs,
    ProjectConfiguration,
    set_seed,
)
from huggingface_hub.constants import HF_HOME
from torch.optim import AdamW
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import InterpolationMode, RandomResizedCrop
from transformers import PreTrainedModel, ProcessorMixin, get_scheduler

from ..data.arguments import find_folder
from ..data.images import make_noise_image, undecoded
from ..data.loading import finish_split, join_splits, load_slices
from ..data.reader import RowReader
from ..data.repeated_images import warn_of_repeated_images
from ..data.row_functions import read_rows
from ..data.rows import Rows
from ..data.slices import Slice, count_shared_rows, find_shared_files, take_first
from ..encoder.hashes import describe_architecture, hash_model, hash_processor
from ..encoder.preprocessing import Preprocessing
from ..evaluation.retrieval import ImageEmbeddingCache
from ..losses.global_loss import BatchLoss
from ..utils.output_folder import OutputFolder
from ..utils.signals import leave_signals_to_the_main_process
from . import outputs
from .arguments import TrainArguments
from .batch import CaptionBatch
from .contents import describe_contents
from .distillation import StartModel, Teacher
from .dual_encoder import ContrastiveModel, freeze_unused, inspect_image_side
from .image_features import FeatureCache
from .models import build_model_and_start, find_image_size
from .objectives import OBJECTIVES
from .order import BatchSampler, StreamBatchSampler
from .plan import Plan, count_part, count_steps
from .processes import fail_together
from .samples import CaptionedImages, Sample, SampleCollator, SampleCounts
from .step import LossOptions, ObjectiveLoss, StepOptions, parameter_groups


logger = get_logger(__name__)

# The most words of a text by which it is seen what embeddings depend on: tokenizers may have no limit
LONGEST_PROBE = 512


@dataclass(frozen=True)
class Data:
    """Rows of a dataset, and what reads them."""

    dataset: datasets.Dataset | datasets.IterableDataset
    reader: RowReader
    slices: list[Slice] = field(default_factory=list)  # which it has
    # which a resumed run compares; of evaluation data where it keeps the best model
    contents: dict[str, int | str] = field(default_factory=dict)


@dataclass
class Training:
    """
    The parts of a training, and where it is.

    Args:
        args (`TrainArguments`): Its arguments.
        plan (`Plan`): What they leave open.
        settings (`dict`): What a resumed run must have in common with it.
        accelerator (`Accelerator`): The processes.
        model (`torch.nn.Module`): The [`ContrastiveModel`], as the accelerator has prepared it.
        processor (`ProcessorMixin`): The processor.
        loader (`DataLoader`): The batches of this process.
        evaluation_data (`Data`): What is evaluated on.
        optimizer (`torch.optim.Optimizer`): The optimizer.
        schedule (`Callable`): Gives the learning rate of a step by the number of steps before it.
        state (`TrainingState`): Where it is.
        teacher (`Teacher`, *optional*): The start model, near which images and short captions are kept.
        counts (`SampleCounts`): What became of the rows that this process has read since the start.
        throughput (`Throughput`): The images and tokens since it was last logged.
        step_losses (`list[BatchLoss]`): The losses of the batches of a step that is not complete.
        image_cache (`ImageEmbeddingCache`): What a frozen image side gave for the evaluation data.
        has_warned_of_padding (`bool`): Whether it was said that much of the batches is padding.
    """

    args: TrainArguments
    plan: Plan
    settings: dict[str, object]
    accelerator: Accelerator
    model: torch.nn.Module
    processor: ProcessorMixin
    loader: DataLoader
    evaluation_data: Data
    optimizer: torch.optim.Optimizer
    schedule: Callable[[int], float]
    state: outputs.TrainingState
    teacher: Teacher | None = None
    counts: SampleCounts = field(default_factory=SampleCounts)
    throughput: outputs.Throughput = field(default_factory=outputs.Throughput)
    step_losses: list[BatchLoss] = field(default_factory=list)
    image_cache: ImageEmbeddingCache = field(default_factory=ImageEmbeddingCache)
    has_warned_of_padding: bool = False

    @property
    def contrastive_model(self) -> ContrastiveModel:
        """The model without what the accelerator has put around it."""
        return self.accelerator.unwrap_model(self.model)

    @property
    def step_options(self) -> StepOptions:
        """How steps are taken."""
        args = self.args
        return StepOptions(args.grad_cache_tokens, args.max_grad_norm, self.teacher, args.distill_weight)


def start_processes(args: TrainArguments) -> Accelerator:
    """Starts the processes. Raises a `ValueError` for ways to train that are not supported."""
    installed = [str(tracker) for tracker in get_available_trackers()]
    if args.with_tracking and not (installed and args.report_to in ("all", *installed)):
        raise ValueError(
            f"`--report_to {args.report_to}` is not installed, but {installed}. Install a tracker: "
            "`pip install tensorboard`."
        )
    trackers = None
    if args.with_tracking:
        trackers = args.report_to
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # else accelerate starts no process group
        # not the argument of that name, before which a variable of the environment comes
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=args.gradient_accumulation_steps),
        mixed_precision=args.mixed_precision,
        log_with=trackers,
        project_config=ProjectConfiguration(str(args.output_dir), str(args.output_dir / outputs.LOGGING_FOLDER)),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(seconds=args.ddp_timeout))],
    )
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        raise ValueError("DeepSpeed is not supported: configure `fsdp_version: 2`, or data parallelism alone.")
    if accelerator.distributed_type == DistributedType.FSDP and not accelerator.is_fsdp2:
        raise ValueError("FSDP version 1 is not supported: configure `fsdp_version: 2`, or data parallelism alone.")
    if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise ValueError("`--mixed_precision fp16` needs an accelerator: use bf16, or leave it out.")
    logging.basicConfig(format="%(asctime)s - %(levelname)s - %(message)s", datefmt="%H:%M:%S")
    logger.setLevel(logging.INFO)
    if accelerator.device.type == "cpu":
        torch.set_num_threads(count_threads())
    set_seed(args.seed)
    return accelerator


def count_threads() -> int:
    """
    Returns how many threads this process computes with on a CPU: `OMP_NUM_THREADS`, or an equal part of the cores.
    Launchers set that variable to 1 unless it is set, which would leave cores idle: their 1 does not count.
    """
    is_launched = "LOCAL_WORLD_SIZE" in os.environ or "ACCELERATE_MIXED_PRECISION" in os.environ
    num_threads = os.environ.get("OMP_NUM_THREADS", "")
    if num_threads.isdecimal() and int(num_threads) > 0 and not (is_launched and num_threads == "1"):
        return int(num_threads)
    return max(1, os.cpu_count() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


# ---- data


def load_data(args: TrainArguments, accelerator: Accelerator) -> tuple[Data, Data]:
    """
    Loads the data to train and to evaluate on: the main process reads a new dataset, the others find it in the cache,
    but for the columns of a row reader, which each makes itself.
    """
    for is_turn in (accelerator.is_main_process, not accelerator.is_main_process):
        with fail_together(accelerator):
            if is_turn:
                data = load_training_data(args, accelerator.num_processes)
                evaluation_data = load_evaluation_data(args)
    warn_of_shared_rows(args, data, evaluation_data)
    return data, evaluation_data


def load_parts(
    args: TrainArguments,
    data_files: list[str] | None,
    split: str,
    max_samples: int | None,
    may_repeat: bool = False,
) -> tuple[list[Rows], list[Slice]]:
    """
    Loads rows of files, with `--data_weights` those of each value by themselves: a slice is one of each.

    Args:
        args (`TrainArguments`): The arguments.
        data_files (`list[str]`, *optional*): The files.
        split (`str`): The name of a split, or a slice, or several.
        max_samples (`int`, *optional*): Use the first rows of each part only.
        may_repeat (`bool`, *optional*, defaults to `False`): Whether several slices may have rows in common.

    Returns:
        `tuple[list[Rows], list[Slice]]`: the parts, and the slices of all of them, with their files.
    """
    groups = [data_files]
    if args.data_weights is not None:
        groups = [[value] for value in data_files]
    parts = []
    slices = []
    for group in groups:
        source = replace(args, data_files=group, data_weights=None)
        rows, slices_of_part = load_slices(
            source, split, max_samples, key_column=args.image_key_column, may_repeat=may_repeat
        )
        files = tuple(resolve_files(group, find_folder(args)))
        parts.append(rows)
        slices += [part._replace(files=files) for part in slices_of_part]
    return parts, slices


def load_training_data(args: TrainArguments, num_processes: int) -> Data:
    """
    Loads the training data. Raises a `ValueError` if it lacks captions that are trained on, or has no two images.
    """
    parts, slices = load_parts(args, args.data_files, args.train_split, args.max_train_samples, may_repeat=True)
    dataset = parts[0]
    if args.data_weights is not None:
        probabilities = [weight / sum(args.data_weights) for weight in args.data_weights]
        dataset = datasets.interleave_datasets(parts, probabilities, args.seed, stopping_strategy="all_exhausted")
        dataset = finish_split(dataset, args, args.train_split, args.max_train_samples)
    dataset = read_rows(dataset, args.row_reader, args.image_column)
    reader = RowReader.of(dataset, args, args, args.image_column)
    check_captions(args, reader)
    batch_size = args.per_device_train_batch_size * num_processes
    if batch_size < 2 or (not args.streaming and len(dataset) < 2):
        raise ValueError("A batch of one image has nothing to be contrasted with: give more images, a larger batch.")
    if not args.streaming and len(dataset) % batch_size == 1:
        logger.warning(
            "The last batch of each epoch has one image, which has nothing to be contrasted with: its step teaches "
            "nothing. Give another batch size, or one image more or fewer."
        )
    return Data(dataset, reader, slices, describe_contents(args, args.train_split, dataset, reader))


def check_captions(args: TrainArguments, reader: RowReader) -> None:
    """Raises a `ValueError` if there are no captions to train on, or an argument of captions has no effect."""
    has_short = args.short_captions == "any" or (args.short_captions == "given" and reader.short_column is not None)
    needs_short = args.objective == "long_clip" or args.num_long_captions == 0
    if needs_short and not has_short:
        raise ValueError(
            f"`--objective {args.objective}` trains on short captions, and there are none: name "
            "`--caption_column`, or sample them from the long ones with `--short_captions any`."
        )
    if args.distill_weight > 0 and not has_short:
        raise ValueError(
            f"`--distill_weight {args.distill_weight:g}` is for short captions, too, and there are "
            "none: name `--caption_column`, or sample them from the long ones with "
            "`--short_captions any`."
        )
    has_long = args.num_long_captions > 0 and reader.has_long_captions
    if not (has_short and has_long):
        check_weights_of_one_modality(args, "short" if has_short else "long")
    default = OBJECTIVES[args.objective].num_long_captions
    if not reader.has_long_captions and args.num_long_captions not in (0, default):
        refuse_without_long_captions("num_long_captions", args.num_long_captions)
    samples_from_long = args.num_long_captions > 0 or args.short_captions == "any"
    if args.num_sub_captions is not None and not (reader.has_long_captions and samples_from_long):
        refuse_without_long_captions("num_sub_captions", args.num_sub_captions)


def check_weights_of_one_modality(args: TrainArguments, modality: str) -> None:
    """Raises a `ValueError` for a weight where captions are all short, or all long: 0 would leave no loss."""
    for name in ("short_loss_weight", "long_loss_weight"):
        weight = getattr(args, name)
        if weight != 1:
            raise ValueError(
                f"`--{name} {weight:g}` is a weight of short against long captions, and only "
                f"{modality} ones are trained on: leave it out."
            )


def refuse_without_long_captions(name: str, value: int) -> None:
    """Raises a `ValueError` for an argument of long captions where there are none."""
    raise ValueError(
        f"`--{name} {value}` is of long captions, and there are none: name `--long_captions_column`, "
        "and raise `--num_long_captions`."
    )


def load_evaluation_data(args: TrainArguments) -> Data:
    """Loads the data to evaluate on. Raises a `ValueError` if `--metric_for_best_model` cannot be measured on it."""
    data_files = args.eval_data_files or args.data_files
    parts, slices = load_parts(args, data_files, args.eval_split, args.max_eval_samples)
    dataset = parts[0]
    if len(parts) > 1:
        dataset = finish_split(join_splits(parts, args.eval_split), args, args.eval_split, args.max_eval_samples)
        if args.max_eval_samples is not None:
            slices = take_first(slices, args.max_eval_samples)
    dataset = read_rows(dataset, args.row_reader, args.image_column)
    reader = RowReader.of(dataset, args, args, args.image_column)
    contents = {}
    if args.metric_for_best_model is not None:
        length = args.metric_for_best_model.split("_")[0]
        is_there = {"short": reader.short_column is not None, "long": reader.has_long_captions}
        if not is_there[length]:
            raise ValueError(
                f"`--metric_for_best_model {args.metric_for_best_model}` cannot be measured: the "
                f"evaluation data has no {length} captions."
            )
        source = replace(args, data_files=data_files, data_weights=None)
        contents = describe_contents(source, args.eval_split, dataset, reader)
        if args.streaming:
            contents["max_samples"] = args.max_eval_samples
    return Data(dataset, reader, slices, contents)


def resolve_files(patterns: list[str] | None, folder: str) -> list[str]:
    """Lists the real paths of the files in a folder that patterns name; a pattern of none stays."""
    files = []
    for pattern in patterns or []:
        pattern = os.path.join(folder, pattern)
        # a name may have brackets, as a pattern has
        found = [pattern] if os.path.isfile(pattern) else sorted(glob(pattern, recursive=True))
        files += [os.path.realpath(file) for file in found] or [pattern]
    return files


def warn_of_shared_rows(args: TrainArguments, data: Data, evaluation_data: Data) -> None:
    """Says how many rows are trained and evaluated on, or else of which files they may be."""
    num_shared = count_shared_rows(data.slices, evaluation_data.slices)
    if num_shared and args.streaming:
        logger.warning(
            f"Rows of `--eval_split {args.eval_split}` are trained on. Name other files with `--eval_data_files`, "
            "or another split."
        )
    elif num_shared:
        number = str(num_shared)
        if args.data_weights is not None and args.max_train_samples is not None:
            # it is not known of which files the first samples are
            number = f"Up to {min(num_shared, args.max_train_samples)}"
        logger.warning(
            f"{number} rows of `--eval_split {args.eval_split}` are trained on. Hold rows back, such as "
            '`--train_split "train[:90%]" --eval_split "train[90%:]" --split_seed 0`.'
        )
    shared_files = find_shared_files(data.slices, evaluation_data.slices)
    if shared_files:
        logger.warning(
            f"{len(shared_files)} files that are evaluated are trained on together with others, as "
            f"{shared_files[0]!r}: rows of them may be evaluated that were trained on. Name other files with "
            "`--eval_data_files`, or leave it out and hold rows back by slices in both splits."
        )


def make_loader(
    args: TrainArguments,
    data: Data,
    processor: ProcessorMixin,
    accelerator: Accelerator,
) -> DataLoader:
    """
    Batches of this process, in the order of their sampler, of images, or crops of them, with sampled captions.

    Args:
        args (`TrainArguments`): The arguments.
        data (`Data`): The training data.
        processor (`ProcessorMixin`): The processor.
        accelerator (`Accelerator`): The processes.

    Returns:
        `DataLoader`: of batches with the outcomes of their rows.
    """
    crop = make_crop(args, processor)
    batch_size = args.per_device_train_batch_size
    if args.streaming:
        stream = undecoded(data.dataset, args.image_column)
        stream = stream.shuffle(seed=args.seed, buffer_size=args.shuffle_buffer_size)
        sampler = StreamBatchSampler(stream, batch_size, accelerator)
    else:
        sampler = BatchSampler(
            len(data.dataset), batch_size, args.seed, accelerator.process_index, accelerator.num_processes
        )
    return DataLoader(
        CaptionedImages(data.dataset, data.reader, args, args.seed, crop),
        batch_sampler=sampler,
        collate_fn=SampleCollator(processor, are_cropped=crop is not None),
        num_workers=args.dataloader_num_workers,
        persistent_workers=args.dataloader_num_workers > 0,
        worker_init_fn=leave_signals_to_the_main_process,
        generator=torch.Generator(),  # leaves the global random state to dropout, which is the same in a resumed run
    )


def make_crop(args: TrainArguments, processor: ProcessorMixin) -> RandomResizedCrop | None:
    """Makes what cuts a part out of each image, if it is to be cropped; a `ValueError` if it cannot."""
    if args.min_crop_scale == 1:
        return None
    size = find_image_size(processor.image_processor)
    if size is None:
        raise ValueError(
            f"Images of `{type(processor.image_processor).__name__}` cannot be cropped at random: it "
            "makes images of several sizes. Give `--min_crop_scale 1`."
        )
    return RandomResizedCrop(size, (args.min_crop_scale, 1.0), interpolation=InterpolationMode.BICUBIC)


# ---- model and optimizer


def make_trained_model(
    args: TrainArguments, model: PreTrainedModel, processor: ProcessorMixin, has_long_captions: bool
) -> ContrastiveModel:
    """
    Makes a dual encoder with the loss of its objective, ready to be trained.

    Args:
        args (`TrainArguments`): The arguments.
        model (`PreTrainedModel`): The dual encoder.
        processor (`ProcessorMixin`): Its processor.
        has_long_captions (`bool`): Whether long captions are trained on.

    Raises:
        `ValueError`: if objective and model do not fit together.
    """
    options = LossOptions(
        args.short_loss_weight,
        args.long_loss_weight,
        tuple(getattr(model.config, "matryoshka_dims", None) or ()),
        args.keep_duplicate_negatives,
    )
    has_bias = getattr(model, "logit_bias", None) is not None
    objective = OBJECTIVES[args.objective]
    if objective.load_loss(has_bias) is None:
        if has_bias:
            raise ValueError(
                f"`--objective {args.objective}` is for a model without a `logit_bias`: choose another one."
            )
        raise ValueError(f"`--objective {args.objective}` is for a model with a `logit_bias`: choose another one.")
    contrastive_model = ContrastiveModel(
        model, ObjectiveLoss(objective, has_bias, options, args.all_objective_options)
    )
    # square, as processors that keep the form of images are made for
    images = Preprocessing(processor).prepare_images([make_noise_image(64, 64)])
    inspect_image_side(contrastive_model, images)
    unused = freeze_unused(contrastive_model, make_probes(processor, has_long_captions))
    if unused:
        logger.info(f"Not trained, since no embedding depends on it: {', '.join(unused)}.")
    return contrastive_model


def make_probes(processor: ProcessorMixin, has_long_captions: bool) -> list[CaptionBatch]:
    """
    Makes batches (1, ...) that show what embeddings depend on: of a short text, and of one that fills what is read.

    Args:
        processor (`ProcessorMixin`): The processor.
        has_long_captions (`bool`): Whether long captions are trained on.
    """
    collate = SampleCollator(processor)
    words = ["a"] * min(collate.preprocessing.max_length, LONGEST_PROBE)
    while len(words) > 1 and collate.preprocessing.tokenize([" ".join(words)]).truncated[0]:
        words.pop()
    image = make_noise_image(64, 64)
    batches = []
    for text in ("a", " ".join(words)):
        batch, _ = collate([Sample(text, [text] if has_long_captions else [], image=image)])
        batches.append(batch)
    return batches


def make_plan(
    args: TrainArguments,
    accelerator: Accelerator,
    data: Data,
    loader: DataLoader,
    contrastive_model: ContrastiveModel,
) -> Plan:
    """
    Resolves what arguments leave open.

    Args:
        args (`TrainArguments`): The arguments.
        accelerator (`Accelerator`): The processes.
        data (`Data`): The training data.
        loader (`DataLoader`): Its batches.
        contrastive_model (`ContrastiveModel`): The model.

    Returns:
        [`Plan`]
    """
    num_samples = None
    batches_per_epoch = None
    if not args.streaming:
        num_samples = len(data.dataset)
        batches_per_epoch = len(loader.batch_sampler)
    max_train_steps, warmup_steps = count_steps(args, batches_per_epoch)
    return Plan(
        mixed_precision=accelerator.mixed_precision,
        num_processes=accelerator.num_processes,
        global_batch_size=args.per_device_train_batch_size * accelerator.num_processes,
        num_samples=num_samples,
        max_train_samples=args.max_train_samples,
        max_train_steps=max_train_steps,
        warmup_steps=warmup_steps,
        decay_steps=min(count_part(args.decay_steps, max_train_steps), max_train_steps - warmup_steps),
        max_length=loader.collate_fn.preprocessing.max_length,
        matryoshka_dims=getattr(contrastive_model.model.config, "matryoshka_dims", None),
    )


def make_optimizer(
    args: TrainArguments, plan: Plan, contrastive_model: ContrastiveModel
) -> tuple[AdamW, Callable[[int], float]]:
    """
    Makes AdamW, and a function that gives the learning rate of a step by the number of steps before it. A checkpoint
    has no state of it: so a run that is lengthened goes on at the rate of its new length. Raises a `ValueError` if no
    step of the run has a rate above 0.
    """
    optimizer = AdamW(
        parameter_groups(contrastive_model, args.weight_decay),
        lr=args.learning_rate,
        betas=(args.adam_beta1, args.adam_beta2),
        eps=args.adam_epsilon,
        fused=True,
    )
    options = None
    if args.lr_scheduler_type == "warmup_stable_decay":
        options = {"num_decay_steps": plan.decay_steps}
    # every choice of `--lr_scheduler_type` is a `LambdaLR`, of which the function alone is used
    scheduler = get_scheduler(
        args.lr_scheduler_type,
        optimizer,
        plan.warmup_steps,
        plan.max_train_steps,
        scheduler_specific_kwargs=options,
    )
    # a warm-up alone can do that: its first step has a rate of 0
    if all(scheduler.lr_lambdas[0](step) == 0 for step in range(plan.max_train_steps)):
        raise ValueError(
            f"`--warmup_steps {args.warmup_steps:g}` leaves a learning rate of 0 for all "
            f"{plan.max_train_steps} steps of this run, which would learn nothing: give "
            "`--warmup_steps 0`, or more steps."
        )
    return optimizer, lambda step: args.learning_rate * scheduler.lr_lambdas[0](step)


# ---- where a run begins


def describe_settings(
    args: TrainArguments,
    plan: Plan,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    start: StartModel | None,
) -> dict[str, object]:
    """
    Returns what a resumed run must have in common with the run that wrote its checkpoint.

    Args:
        args (`TrainArguments`): The arguments.
        plan (`Plan`): What they leave open.
        model (`PreTrainedModel`): The dual encoder, before a step; of a frozen image tower the weights count.
        processor (`ProcessorMixin`): Its processor.
        start (`StartModel`, *optional*): What the teacher is made of.
    """
    settings = plan.compared_on_resume(args)
    settings["architecture"] = describe_architecture(model)
    settings["processor"] = hash_processor(processor)
    settings["start_model"] = start is not None and hash_model(start.model)
    settings["image_tower"] = args.freeze_vision_model and hash_model(model.vision_model)
    return settings


def find_state(
    plan: Plan,
    checkpoint: Path | None,
    settings: dict[str, object],
) -> outputs.TrainingState:
    """
    Finds where the run begins. Raises a `ValueError` if the checkpoint is of another run, or after this one's end.
    """
    if checkpoint is None:
        return outputs.TrainingState()
    state = outputs.read_state(checkpoint, settings)
    if state.step > plan.max_train_steps:
        raise ValueError(
            f"`--resume_from_checkpoint {checkpoint}` is at step {state.step}, but this run has only "
            f"{plan.max_train_steps} steps: raise `--max_train_steps` or `--num_train_epochs`."
        )
    return state


def describe_start(
    args: TrainArguments,
    plan: Plan,
    contrastive_model: ContrastiveModel,
    processor: ProcessorMixin,
) -> str:
    """
    Describes a run at its start.

    Args:
        args (`TrainArguments`): The arguments.
        plan (`Plan`): What they leave open.
        contrastive_model (`ContrastiveModel`): The model.
        processor (`ProcessorMixin`): Its processor.
    """
    trained = [parameter for parameter in contrastive_model.parameters() if parameter.requires_grad]
    num_parameters = sum(parameter.numel() for parameter in trained)
    image_size = find_image_size(processor.image_processor)
    size = "several sizes"
    if image_size is not None:
        height, width = image_size
        size = f"{height} x {width} pixels"
    images = "A stream of" if args.streaming else plan.num_samples
    tower = "frozen" if args.freeze_vision_model else "trained"
    return (
        f"{images} training images, {plan.global_batch_size} in a batch ({plan.num_processes} x "
        f"{args.per_device_train_batch_size}), {plan.max_train_steps} steps; {num_parameters:,} "
        f"trained parameters, image tower {tower}; images of {size}, {plan.max_length} tokens of "
        "text."
    )


def prepare(
    args: TrainArguments,
    accelerator: Accelerator,
    checkpoint: Path | None,
    stack: ExitStack,
) -> Training:
    """
    Gets everything ready, and takes over the output folder until the stack is closed.

    The order matters. Everything that a user's mistake can stop comes first, and changes no file: the data, the model,
    the plan, and whether a checkpoint is of the same run. Only then is the output folder taken over, which deletes
    what an earlier run left there, and are features of images computed, which may take hours. The accelerator wraps
    the model last, since it may divide the weights among the processes: their hashes, the teacher and the optimizer
    need them whole. A checkpoint is loaded into what is wrapped, and sets the random state after `set_seed` has.

    Args:
        args (`TrainArguments`): The arguments.
        accelerator (`Accelerator`): The processes.
        checkpoint (`Path`, *optional*): Where to resume from.
        stack (`ExitStack`): What holds the output folder.

    Returns:
        [`Training`]: ready for its next step.
    """
    # the data first: a new tokenizer takes its words from them
    data, evaluation_data = load_data(args, accelerator)
    model, processor, start = build_model_and_start(args, data.dataset, data.reader)
    has_long_captions = data.reader.has_long_captions and args.num_long_captions > 0
    contrastive_model = make_trained_model(args, model, processor, has_long_captions)
    # before the plan, which counts its batches
    loader = make_loader(args, data, processor, accelerator)
    teacher = None
    if start is not None:
        teacher = Teacher(start, contrastive_model, accelerator)
        loader.collate_fn.read_for_teacher(start.max_length)
    plan = make_plan(args, accelerator, data, loader, contrastive_model)
    optimizer, schedule = make_optimizer(args, plan, contrastive_model)
    outputs.check_room(args, model)
    settings = describe_settings(args, plan, model, processor, start)
    settings["data"] = data.contents
    state = find_state(plan, checkpoint, settings)
    features = FeatureCache(
        contrastive_model,
        processor,
        accelerator,
        folder=args.image_features_dir or Path(HF_HOME) / "lotlip" / "image_features",
        batch_size=args.per_device_eval_batch_size,
        num_workers=args.dataloader_num_workers,
    )
    if args.cache_image_features:
        features.check()

    # from here on files change
    take_over_output_dir(args, accelerator, (data, evaluation_data), checkpoint, stack)
    if args.cache_image_features:
        loader.dataset.features_dir = features.fill(data.dataset, args.image_column)
    with fail_together(accelerator):
        if accelerator.is_main_process:
            if args.metric_for_best_model is not None:
                state.best = outputs.find_best(args, state, evaluation_data.contents)
            outputs.delete_leftovers(args, state)
    accelerator.init_trackers(outputs.RUN_NAME, plan.in_trackers(args))
    logger.info(describe_start(args, plan, contrastive_model, processor))

    if accelerator.is_fsdp2:
        accelerator.state.fsdp_plugin.ignored_modules = [
            torch.nn.ParameterList(contrastive_model.unsharded_parameters)
        ]
    wrapped, optimizer = accelerator.prepare(contrastive_model, optimizer)
    # dropout differs between processes; the weights were made by the same seed in all of them
    set_seed(args.seed, device_specific=True)
    if checkpoint is not None:
        outputs.load_checkpoint(accelerator, checkpoint)
        logger.info(f"Resuming from {checkpoint}, at step {state.step}.")
    return Training(
        args=args,
        plan=plan,
        settings=settings,
        accelerator=accelerator,
        model=wrapped,
        processor=processor,
        loader=loader,
        evaluation_data=evaluation_data,
        optimizer=optimizer,
        schedule=schedule,
        state=state,
        teacher=teacher,
    )


def take_over_output_dir(
    args: TrainArguments,
    accelerator: Accelerator,
    data: tuple[Data, Data],
    checkpoint: Path | None,
    stack: ExitStack,
) -> None:
    """
    Takes over the output folder, once it is known how many images have captions in caption files. Raises a
    `ValueError` if another run has written there since this one has looked.

    Args:
        args (`TrainArguments`): The arguments.
        accelerator (`Accelerator`): The processes.
        data (`tuple[Data, Data]`): The training data and the evaluation data.
        checkpoint (`Path`, *optional*): Where to resume from, as it was found at the start.
        stack (`ExitStack`): What holds the output folder.
    """
    with fail_together(accelerator):
        if accelerator.is_main_process:
            for part, what in zip(data, ("training images", "evaluation images")):
                part.reader.report_keys(part.dataset, what)
            for part, what in zip(data, ("training", "evaluation")):
                if args.data_weights is None or what == "evaluation":  # by which rows come several times
                    warn_of_repeated_images(part.dataset, args.image_column, what)
            stack.enter_context(OutputFolder(args.output_dir, content="a training"))
            # another run may have begun and ended there while this one loaded data and model
            outputs.check_output_dir(args)
            outputs.check_latest(args, checkpoint)
