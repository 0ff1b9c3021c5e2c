# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The training of `lotlip train`, from top to bottom: data, model, optimizer, steps, evaluation, checkpoints."""

import logging
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import datasets
import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.tracking import get_available_trackers
from accelerate.utils import DistributedType, InitProcessGroupKwargs, ProjectConfiguration, gather_object, set_seed
from huggingface_hub import HfApi
from huggingface_hub.constants import HF_HOME
from torch.optim import AdamW
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import InterpolationMode, RandomResizedCrop
from transformers import PreTrainedModel, ProcessorMixin, get_scheduler

from ..data.images import undecoded
from ..data.loading import count_shared_rows, get_columns, load_split
from ..data.reader import RowCounts, RowReader
from ..encoder.dual_encoder import DualEncoder
from ..encoder.hashes import hash_processor, hash_weights
from ..evaluation.retrieval import embed_dataset, format_table, measure_retrieval
from ..utils.output_folder import OutputFolder, delete
from ..utils.signals import StopSignal, leave_signals_to_the_main_process
from ..utils.terminal import progress_bar
from . import outputs
from .arguments import TrainArguments
from .dual_encoder import ContrastiveModel
from .image_features import cache_image_features
from .models import build_model, count_corners, find_image_size, gather_model
from .objectives import OBJECTIVES
from .processes import fail_together, largest
from .samples import (
    COUNTED,
    NUM_AWAITED,
    BatchSampler,
    CaptionedImages,
    SampleCollator,
    StreamBatchSampler,
    count_found,
)
from .step import StepResult, make_loss, parameter_groups, train_step


logger = get_logger(__name__)

# Steps in a row whose loss or gradients are not finite, after which a run ends
MAX_SKIPPED_STEPS = 10


# Rows of a data set, and what reads them
Data = tuple[datasets.Dataset | datasets.IterableDataset, RowReader]


@dataclass
class Training:
    """The parts of a training, and where it is."""

    args: TrainArguments
    settings: dict[str, object]
    accelerator: Accelerator
    model: torch.nn.Module
    processor: ProcessorMixin
    loader: DataLoader
    evaluation_data: Data
    loss_function: Callable[..., tuple[torch.Tensor, torch.Tensor]]
    optimizer: torch.optim.Optimizer
    schedule: Callable[[int], float]
    state: outputs.TrainingState
    # what became of the rows and captions that this process has read, by what is counted
    counts: dict[str, RowCounts] = field(default_factory=lambda: {kind: RowCounts() for kind in COUNTED})
    throughput: outputs.Throughput = field(default_factory=outputs.Throughput)
    known_images: dict = field(default_factory=dict)  # what a frozen image tower gave for them: see `embed_dataset`


def run(args: TrainArguments) -> None:
    """
    A whole training: see `lotlip train`. Every process calls this. Raises a `ValueError` if arguments, data and model
    do not fit together, or the data is too bad, and an `OSError` if something cannot be read or written.
    """
    accelerator = start_processes(args)
    with fail_together(accelerator):
        checkpoint = outputs.find_checkpoint(args)
        outputs.check_output_dir(args)
        if args.push_to_hub and accelerator.is_main_process:  # says now if it cannot be uploaded
            HfApi().create_repo(outputs.name_repository(args), exist_ok=True)
    with ExitStack() as stack:
        training = prepare(args, accelerator, checkpoint, stack)
        stop_number = train(training)
        if stop_number == 0:
            finish(training)
    del training  # a model in DistributedDataParallel that outlives its process group may hang
    accelerator.free_memory()
    accelerator.end_training()
    if stop_number:
        sys.exit(128 + stop_number)


def start_processes(args: TrainArguments) -> Accelerator:
    """The processes, ready for this training."""
    installed = [str(tracker) for tracker in get_available_trackers()]
    if args.with_tracking and not (installed and args.report_to in ("all", *installed)):
        cause = f"`--report_to {args.report_to}` is not installed, but {installed}"
        raise ValueError(f"{cause}. Install a tracker: `pip install tensorboard`.")
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # else accelerate starts no process group
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        mixed_precision=args.mixed_precision,
        log_with=args.report_to if args.with_tracking else None,
        project_config=ProjectConfiguration(str(args.output_dir), str(args.output_dir / outputs.LOGGING_FOLDER)),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(seconds=args.ddp_timeout))],
    )
    kind = accelerator.distributed_type
    if kind == DistributedType.DEEPSPEED or (kind == DistributedType.FSDP and not accelerator.is_fsdp2):
        name = "DeepSpeed" if kind == DistributedType.DEEPSPEED else "FSDP version 1"
        raise ValueError(f"{name} is not supported: configure `fsdp_version: 2`, or data parallelism alone.")
    if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise ValueError("`--mixed_precision fp16` needs an accelerator: use bf16, or leave it out.")
    args.mixed_precision = accelerator.mixed_precision
    logging.basicConfig(format="%(asctime)s - %(levelname)s - %(message)s", datefmt="%H:%M:%S")
    logger.setLevel(logging.INFO)
    if accelerator.device.type == "cpu":
        # `accelerate launch` leaves all cores but one idle
        torch.set_num_threads(max(1, os.cpu_count() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
    set_seed(args.seed)
    return accelerator


def load_training_data(args: TrainArguments, num_processes: int) -> Data:
    """The training data. Raises a `ValueError` if it lacks captions that are trained on, or has no two images."""
    source, how = replace(args, data_weights=None), {"seed": args.seed, "key_column": args.image_key_column}
    dataset = load_split(source, args.train_split, args.max_train_samples, weights=args.data_weights, **how)
    reader = RowReader(get_columns(dataset), args, args, args.image_column)
    lacks_short = args.short_captions == "none" or (args.short_captions == "given" and reader.short_column is None)
    if lacks_short and (args.objective == "long_clip" or args.num_long_captions == 0):
        cause = f"`--objective {args.objective}` trains on short captions, and there are none: name `--caption_column`"
        raise ValueError(f"{cause}, or draw them from the long ones with `--short_captions any`.")
    default = OBJECTIVES[args.objective].num_long_captions
    has_long = reader.has_long_captions and args.num_long_captions > 0
    is_split = has_long or (reader.has_long_captions and args.short_captions in ("any", "details"))
    of_long_captions = {
        "num_long_captions": not reader.has_long_captions and args.num_long_captions not in (0, default),
        "short_captions": not reader.has_long_captions and args.short_captions == "details",
        "num_sub_captions": args.num_sub_captions is not None and not is_split,
        "hard_negatives": args.hard_negatives > 0 and not has_long,
    }
    if without_effect := [name for name, has_no_effect in of_long_captions.items() if has_no_effect]:
        name = without_effect[0]
        cause = f"`--{name} {getattr(args, name)}` is of long captions, and there are none"
        raise ValueError(f"{cause}: name `--long_captions_column`, and raise `--num_long_captions`.")
    if args.per_device_train_batch_size * num_processes < 2 or (not args.streaming and len(dataset) < 2):
        raise ValueError("A batch of one image has nothing to be contrasted with: give more images, a larger batch.")
    return dataset, reader


def load_evaluation_data(args: TrainArguments) -> Data:
    """The data to evaluate on. Raises a `ValueError` if `--metric_for_best_model` cannot be measured on it."""
    source = replace(args, data_files=args.eval_data_files or args.data_files, data_weights=None)
    dataset = load_split(source, args.eval_split, args.max_eval_samples, key_column=args.image_key_column)
    reader = RowReader(get_columns(dataset), args, args, args.image_column)
    kind = (args.metric_for_best_model or "").split("_")[0]
    if kind and not {"short": reader.short_column, "long": reader.has_long_captions}[kind]:
        cause = f"`--metric_for_best_model {args.metric_for_best_model}` cannot be measured"
        raise ValueError(f"{cause}: the evaluation data has no {kind} captions.")
    return dataset, reader


def make_loader(args: TrainArguments, data: Data, processor: ProcessorMixin, accelerator: Accelerator) -> DataLoader:
    """Batches of this process, in the order of their sampler, of images, or crops of them, with captions drawn."""
    (dataset, reader), crop, size = data, None, find_image_size(processor.image_processor)
    if args.min_crop_scale < 1 and size is None:
        cause = f"Images of `{type(processor.image_processor).__name__}` cannot be cropped at random"
        raise ValueError(f"{cause}: it makes images of several sizes. Give `--min_crop_scale 1`.")
    if args.min_crop_scale < 1:
        crop = RandomResizedCrop(size, (args.min_crop_scale, 1.0), interpolation=InterpolationMode.BICUBIC)
    batch_size, num_processes = args.per_device_train_batch_size, accelerator.num_processes
    if args.streaming:
        stream = undecoded(dataset, args.image_column)
        stream = stream.shuffle(seed=args.seed, buffer_size=args.shuffle_buffer_size)
        sampler = StreamBatchSampler(stream, batch_size, accelerator)
    else:
        sampler = BatchSampler(len(dataset), batch_size, args.seed, accelerator.process_index, num_processes)
    return DataLoader(
        CaptionedImages(dataset, reader, args, args.seed, crop),
        batch_sampler=sampler,
        collate_fn=SampleCollator(processor, args.hard_negatives, crop is not None),
        num_workers=args.dataloader_num_workers,
        persistent_workers=args.dataloader_num_workers > 0,
        worker_init_fn=leave_signals_to_the_main_process,
        generator=torch.Generator(),  # leaves the global random state to dropout: a resumed run draws the same
    )


def make_optimizer(
    args: TrainArguments, model: ContrastiveModel, loader: DataLoader
) -> tuple[AdamW, Callable[[int], float]]:
    """AdamW, and the learning rate of each step: there are `--max_train_steps`, or as many as the epochs have."""
    if args.max_train_steps is None:
        num_batches = len(loader.batch_sampler) * args.num_train_epochs
        args.max_train_steps = max(1, num_batches // args.gradient_accumulation_steps)
    # below 1 a share, as in transformers
    warmup_steps = math.ceil(args.warmup_steps * (args.max_train_steps if args.warmup_steps < 1 else 1))
    if warmup_steps > args.max_train_steps:
        cause = f"`--warmup_steps {args.warmup_steps:g}` is longer than the run of {args.max_train_steps} steps"
        raise ValueError(f"{cause}: give fewer steps, or a share of them such as 0.1.")
    options = {"lr": args.learning_rate, "betas": (args.adam_beta1, args.adam_beta2), "eps": args.adam_epsilon}
    optimizer = AdamW(parameter_groups(model, args.weight_decay), **options, fused=True)
    scheduler = get_scheduler(args.lr_scheduler_type, optimizer, warmup_steps, args.max_train_steps)
    return optimizer, lambda step: args.learning_rate * scheduler.lr_lambdas[0](step)


def prepare(args: TrainArguments, accelerator: Accelerator, checkpoint: Path | None, stack: ExitStack) -> Training:
    """Loads data, model and checkpoint, and takes over the output folder, until the stack is closed."""
    for is_turn in (accelerator.is_main_process, not accelerator.is_main_process):
        with fail_together(accelerator):  # the main process reads a new data set, the others find it in the cache
            if is_turn:
                dataset, reader = load_training_data(args, accelerator.num_processes)
                evaluation_data = load_evaluation_data(args)
    is_known = args.eval_data_files in (None, args.data_files) and args.data_weights is None
    if is_known and (num_shared := count_shared_rows(dataset, evaluation_data[0])):
        remedy = '`--train_split "train[:90%]" --eval_split "train[90%:]" --split_seed 0`'
        cause = f"{'All' if args.streaming else num_shared} rows of `--eval_split {args.eval_split}` are trained on"
        logger.warning(f"{cause}. Hold rows back, such as {remedy}.")
    model, processor = build_model(args, dataset, reader)
    trained = ContrastiveModel(model)
    args.max_length = processor.tokenizer.model_max_length
    args.matryoshka_dims = getattr(model.config, "matryoshka_dims", None)
    options = {"num_hard_negatives": args.hard_negatives, "matryoshka_dims": args.matryoshka_dims or ()}
    loss_function = make_loss(args.objective, "logit_bias" in trained.scalars, **options)
    loader = make_loader(args, (dataset, reader), processor, accelerator)
    optimizer, schedule = make_optimizer(args, trained, loader)
    outputs.check_room(args, model)
    batch_size, num_processes = args.per_device_train_batch_size, accelerator.num_processes
    settings = {"global_batch_size": batch_size * num_processes, "num_processes": num_processes}
    # of a stream, which does not know the number of its samples, the one that is asked for
    settings |= {"max_train_samples": args.max_train_samples} if args.streaming else {"num_samples": len(dataset)}
    settings |= {**args.compared_on_resume(), "processor": hash_processor(processor)}
    settings["image_tower"] = args.freeze_vision_model and hash_weights(model.vision_model)
    state = outputs.TrainingState() if checkpoint is None else outputs.read_state(checkpoint, settings)
    if state.step > args.max_train_steps:
        cause = f"`--resume_from_checkpoint {checkpoint}` is at step {state.step}, but this run has only"
        raise ValueError(f"{cause} {args.max_train_steps} steps: raise `--max_train_steps` or `--num_train_epochs`.")

    with fail_together(accelerator):
        if accelerator.is_main_process:
            reader.report_keys(dataset, "training images")
            evaluation_data[1].report_keys(evaluation_data[0], "evaluation images")
            stack.enter_context(OutputFolder(args.output_dir, content="a training"))
    if args.cache_image_features:
        folder = args.image_features_dir or Path(HF_HOME) / "lotlip" / "image_features"
        of_images = {"batch_size": args.per_device_eval_batch_size, "num_workers": args.dataloader_num_workers}
        loader.dataset.image_features = cache_image_features(
            trained, processor, dataset, args.image_column, folder, accelerator, **of_images
        )
    with fail_together(accelerator):
        if accelerator.is_main_process:
            for path in outputs.find_leftovers(args):
                delete(path)
            outputs.drop_later_metrics(args.output_dir, state)
    trackable = {name: value for name, value in vars(args).items() if isinstance(value, (int, float, str))}
    accelerator.init_trackers(outputs.RUN_NAME, trackable)
    num_parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    image_size = find_image_size(processor.image_processor)
    logger.info(
        f"{'A stream of' if args.streaming else len(dataset)} training images, {batch_size * num_processes} in a "
        f"batch ({num_processes} x {batch_size}), {args.max_train_steps} steps; {num_parameters:,} trained "
        f"parameters, image tower {'frozen' if args.freeze_vision_model else 'trained'}; images of "
        f"{'{} x {} pixels'.format(*image_size) if image_size else 'several sizes'}, {args.max_length} tokens of text."
    )
    if accelerator.is_fsdp2:
        # a scalar cannot be sharded, and need not be averaged: every process has the gradient of the whole loss for it
        accelerator.state.fsdp_plugin.ignored_modules = [torch.nn.ParameterList(trained.scalars.values())]
    model, optimizer = accelerator.prepare(trained, optimizer)
    set_seed(args.seed, device_specific=True)
    if checkpoint is not None:
        outputs.load_checkpoint(accelerator, checkpoint)
        logger.info(f"Resuming from {checkpoint}, at step {state.step}.")
    return Training(
        args,
        settings,
        accelerator,
        model,
        processor,
        loader,
        evaluation_data,
        loss_function,
        optimizer,
        schedule,
        state,
    )


def train(training: Training) -> int:
    """The steps, with checkpoints and evaluations, to the last one or a signal, whose number is returned, else 0."""
    args, accelerator, state = training.args, training.accelerator, training.state
    batches, is_checkpoint_due = read_epoch(training), False
    training.model.train()
    training.throughput.restart()
    shown = {"total": args.max_train_steps, "initial": state.step, "unit": " steps"}
    with StopSignal() as stop, progress_bar(**shown, disable=not accelerator.is_local_main_process) as bar:
        while True:
            # a resumed run may have been stopped before it; the evaluation of the last step is that of `finish`
            is_evaluation_due = state.step % args.eval_steps == 0 and state.evaluated_step < state.step
            if 0 < state.step < args.max_train_steps and is_evaluation_due:
                if not largest(stop.number, accelerator):
                    evaluate(training, gather_model(training.model, accelerator))
                    training.model.train()
                    training.throughput.restart()
            is_done = state.step == args.max_train_steps
            with fail_together(accelerator):
                item = None if is_done else next(batches, None)
            stop_number = largest(stop.number, accelerator)
            if stop_number and accelerator.sync_gradients:  # else once the update that is begun is done
                save(training)
                bar.close()
                cause = f"Stopped by {signal.Signals(stop_number).name} after step {state.step}"
                logger.warning(f"{cause}. Resume with `--resume_from_checkpoint latest`.")
                return stop_number
            if is_done:
                return 0
            if item is None:
                state.epoch, state.batch, batches = state.epoch + 1, 0, read_epoch(training)
                sum_counts(training)["rows"].check_matched()
                is_checkpoint_due = args.checkpointing_steps == "epoch"
            else:
                result = take_step(training, item)
                if result.is_update:
                    bar.update()
                    if state.step % args.logging_steps == 0 or state.step == args.max_train_steps:
                        bar.set_postfix_str(measure(training, result), refresh=False)
                    if args.checkpointing_steps == "epoch":
                        is_checkpoint_due |= state.step == args.max_train_steps  # the last epoch ends here
                    elif args.checkpointing_steps is not None:
                        is_checkpoint_due = state.step % int(args.checkpointing_steps) == 0
            if is_checkpoint_due and accelerator.sync_gradients:
                save(training)
                is_checkpoint_due = False


def read_epoch(training: Training) -> Iterator[dict[str, torch.Tensor]]:
    """The batches of what is left of an epoch, whose samples are counted."""
    args, counts, sampler = training.args, training.counts, training.loader.batch_sampler
    sampler.epoch, sampler.first_batch = training.state.epoch, training.state.batch
    num_samples = None if args.streaming else math.ceil(sampler.num_samples / training.accelerator.num_processes)
    for batch, found in training.loader:
        training.throughput.count(batch)
        count_found(counts, found, args.max_bad_fraction, num_samples)
        yield batch


def sum_counts(training: Training) -> dict[str, RowCounts]:
    """What became of all rows and captions of the run, of all processes and all its starts."""
    parts = [training.state.counts, *gather_object([training.counts])]
    return {kind: sum((part[kind] for part in parts if part), start=RowCounts()) for kind in COUNTED}


def take_step(training: Training, batch: dict[str, torch.Tensor]) -> StepResult:
    """Trains on a batch at the learning rate of the step. Raises a `ValueError` after ten that were not finite."""
    args, state, optimizer = training.args, training.state, training.optimizer
    for group in optimizer.param_groups:
        group["lr"] = training.schedule(state.step)
    limits = args.grad_cache_tokens, args.max_grad_norm, args.keep_duplicate_negatives
    result = train_step(training.model, batch, optimizer, training.loss_function, training.accelerator, *limits)
    state.batch += 1
    if result.is_taken:
        state.skipped_in_a_row = 0
    elif result.is_update:
        state.skipped_steps += 1
        state.skipped_in_a_row += 1
        logger.warning(f"Step {state.step + 1} is skipped: its loss or gradients are not finite.")
        if state.skipped_in_a_row == MAX_SKIPPED_STEPS:
            cause = f"{MAX_SKIPPED_STEPS} steps in a row had a loss or gradients that are not finite"
            raise ValueError(f"{cause}: start again with a lower learning rate.")
    state.step += result.is_update
    return result


def measure(training: Training, result: StepResult) -> str:
    """Logs what is measured of a step; gives what the progress bar shows."""
    args, accelerator = training.args, training.accelerator
    model = accelerator.unwrap_model(training.model).model
    rows = sum_counts(training)["rows"]
    if rows.num_rows >= NUM_AWAITED:
        rows.check_matched()
    measured = {
        "loss": result.loss.item(),
        "learning_rate": training.schedule(training.state.step),
        "logit_scale": model.logit_scale.item(),
        "gradient_norm": result.gradient_norm,
        **training.throughput.measure(accelerator),
        "skipped_steps": training.state.skipped_steps,
        "bad_samples": sum(rows.left_out.values()),
        **outputs.measure_slots(result.slot_losses, count_corners(model)),
    }
    outputs.log(measured, training.state.step, args.output_dir, accelerator)
    return "loss {loss:.3f}, lr {learning_rate:.1e}, {images_per_second:.0f} images/s".format(**measured)


def evaluate(training: Training, model: PreTrainedModel | None) -> dict[str, float]:
    """
    Retrieval on the evaluation data, with the keys `short_...` and `long_...`. Every process embeds its share, or the
    main one all if it has the model alone (FSDP2); it has the results, and keeps the model if they are the best so
    far, the others get none.
    """
    args, accelerator, state, results = training.args, training.accelerator, training.state, {}
    if model is not None:
        projection = getattr(model, "visual_projection", None)
        has_projection = projection is not None and any(True for _ in projection.parameters())
        embedded = embed_dataset(
            DualEncoder(model, training.processor),
            *training.evaluation_data,
            batch_size=args.per_device_eval_batch_size,
            num_workers=args.dataloader_num_workers,
            is_alone=accelerator.is_fsdp2,
            known_images=training.known_images if args.freeze_vision_model and not has_projection else None,
        )
        if accelerator.is_main_process:  # a drawn scene has the short caption of others
            are_distinct = args.dataset_name is None
            results = measure_retrieval(embedded, distinct_short_captions=are_distinct, device=model.device)
    state.evaluated_step = state.step
    with fail_together(accelerator):
        if accelerator.is_main_process:
            print(f"Step {state.step}:\n{format_table(results)}", flush=True)
            outputs.log(results, state.step, args.output_dir, accelerator)
            folder, metric = args.output_dir / outputs.BEST_FOLDER, args.metric_for_best_model
            if metric is not None and outputs.is_best(results, metric, folder):
                outputs.save_model(args, folder, model, training.processor, {"num_steps": state.step, **results})
    return results


def save(training: Training) -> None:
    """A checkpoint, from which the run can be resumed."""
    state, args = replace(training.state, counts=sum_counts(training)), training.args
    limit = args.checkpoints_total_limit
    outputs.save_checkpoint(training.accelerator, args.output_dir, state, training.settings, limit)


def finish(training: Training) -> None:
    """Saves and evaluates the trained model, and says what was wrong with the data."""
    args, accelerator, counts = training.args, training.accelerator, sum_counts(training)
    for kind, total in counts.items():
        if total.left_out or total.num_unmatched:
            logger.warning(f"Of the {kind.replace('_', ' ')} of this training, {total}")
    model = gather_model(training.model, accelerator)
    with fail_together(accelerator):
        if accelerator.is_main_process:
            outputs.save_last_model(args, model, training.processor)
    results = evaluate(training, model)
    with fail_together(accelerator):
        counts["rows"].check_matched()
        if accelerator.is_main_process:
            outputs.save_results(args, args.output_dir, results)
            if args.push_to_hub:
                logger.info(f"Uploaded to {outputs.push_model(args)}.")
