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
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import datasets
import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import DistributedType, InitProcessGroupKwargs, ProjectConfiguration, gather_object, set_seed
from huggingface_hub.constants import HF_HOME
from torch.optim import AdamW
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import InterpolationMode, RandomResizedCrop
from transformers import PreTrainedModel, ProcessorMixin, get_scheduler

from ..data.loading import compute_fingerprint, get_columns, leave_signals_to_the_main_process, load_split
from ..data.reader import RowCounts, RowReader
from ..files import write_json
from ..losses.global_loss import GlobalLoss
from ..output_folder import OutputFolder, delete
from ..signals import StopSignal
from ..terminal import progress_bar
from .arguments import TrainArguments
from .batches import BatchSampler, StreamBatchSampler
from .checkpoints import (
    BEST_FOLDER,
    LOGGING_FOLDER,
    RUN_NAME,
    SETTINGS_FILE,
    TrainingState,
    check_output_dir,
    check_room,
    find_checkpoint,
    find_leftovers,
    load_checkpoint,
    read_state,
    resumes_in_output_dir,
    save_checkpoint,
)
from .dual_encoder import ContrastiveModel
from .evaluation import EvaluationData, check_overlap, evaluate_model, format_results, load_evaluation_data
from .image_features import cache_image_features
from .image_processors import describe_images, find_image_size
from .models import build_model, count_corners, gather_model
from .monitoring import Throughput, forget_metrics, log, measure_slots, peak_memory
from .objectives import OBJECTIVES
from .processes import fail_together, next_together
from .samples import NUM_AWAITED, CaptionedImages, SampleCollator, SampleCounts
from .saving import check_repository, check_trackers, is_best, push_model, save_model, save_model_somewhere
from .step import StepResult, make_loss, parameter_groups, train_step


logger = get_logger(__name__)


@dataclass
class Training:
    """The parts of a training, and where it is."""

    args: TrainArguments
    settings: dict[str, object]
    accelerator: Accelerator
    model: torch.nn.Module
    processor: ProcessorMixin
    loader: DataLoader
    evaluation_data: EvaluationData
    loss_function: Callable[..., GlobalLoss]
    optimizer: torch.optim.Optimizer
    schedule: Callable[[int], float]
    state: TrainingState
    counts: SampleCounts
    throughput: Throughput


def run(args: TrainArguments) -> None:
    """
    A whole training: see `lotlip train`. Every process calls this.

    Raises:
        `ValueError`: if the arguments, the data and the model do not fit together, or the data is too bad.
        `OSError`: if something cannot be read or written.
    """
    accelerator = start_processes(args)
    with fail_together(accelerator):
        checkpoint = find_checkpoint(args)
        check_output_dir(args)
        check_repository(args)
    with ExitStack() as stack:
        training = prepare(args, accelerator, checkpoint, stack)
        train(training)
        finish(training)


def start_processes(args: TrainArguments) -> Accelerator:
    """The processes, ready for this training."""
    check_trackers(args)
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # else accelerate starts no process group
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        mixed_precision=args.mixed_precision,
        log_with=args.report_to if args.with_tracking else None,
        project_config=ProjectConfiguration(
            project_dir=str(args.output_dir), logging_dir=str(args.output_dir / LOGGING_FOLDER)
        ),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(seconds=args.ddp_timeout))],
    )
    kind = accelerator.distributed_type
    if kind == DistributedType.DEEPSPEED or (kind == DistributedType.FSDP and not accelerator.is_fsdp2):
        name = "DeepSpeed" if kind == DistributedType.DEEPSPEED else "FSDP version 1"
        raise ValueError(f"{name} is not supported: configure `fsdp_version: 2`, or data parallelism alone.")
    if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise ValueError(
            "`--mixed_precision fp16` needs an accelerator, and there is none: use bf16, or leave it out."
        )
    logging.basicConfig(format="%(asctime)s - %(levelname)s - %(message)s", datefmt="%H:%M:%S")
    logger.setLevel(logging.INFO)
    if accelerator.device.type == "cpu":
        # `accelerate launch` leaves all cores but one idle
        torch.set_num_threads(max(1, os.cpu_count() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
    args.mixed_precision = accelerator.mixed_precision
    names = args.model_name_or_path, args.config_name, args.text_model_name_or_path, args.vision_model_name_or_path
    if args.dataset_name is not None and not any(names):
        logger.warning(
            "No model is named: a small one is trained from scratch, which learns little about photographs. Name a "
            "model with `--model_name_or_path`, or towers."
        )
    set_seed(args.seed)
    return accelerator


def load_training_data(args: TrainArguments, accelerator: Accelerator) -> tuple[datasets.Dataset, RowReader]:
    """The training data, and what reads its captions."""
    how = {"weights": args.data_weights, "seed": args.seed, "key_column": args.image_key_column}
    dataset = load_split(args, args.train_split, args.max_train_samples, **how)
    reader = RowReader(get_columns(dataset), args, args, args.image_column)
    if args.objective == "long_clip" and (args.short_captions == "none" or reader.short_column is None):
        raise ValueError(
            "`--objective long_clip` is `clip` on long captions where there are no short ones, whose loss it changes: "
            "name their column with `--caption_column`, or train with `debias`, which draws them from the long ones."
        )
    if args.short_captions == "given" and args.num_long_captions == 0 and reader.short_column is None:
        raise ValueError(
            "Short captions alone are trained on, but the training data has none: name their column with "
            "`--caption_column`, or draw them from the long ones with `--short_captions any`."
        )
    if args.hard_negatives > 0 and not reader.has_long_captions:
        raise ValueError(
            f"`--hard_negatives {args.hard_negatives}` is of long captions, but the training data has none: name "
            "their column with `--long_captions_column`."
        )
    global_batch_size = args.per_device_train_batch_size * accelerator.num_processes
    if global_batch_size < 2:
        raise ValueError("A batch of one image has nothing to be contrasted with: raise the batch size to 2 or more.")
    if not args.streaming and len(dataset) < global_batch_size:
        raise ValueError(
            f"The training data has {len(dataset)} images, too few for one batch of {global_batch_size}: lower "
            f"`--per_device_train_batch_size {args.per_device_train_batch_size}`."
        )
    return dataset, reader


def make_loader(
    args: TrainArguments,
    dataset: datasets.Dataset,
    reader: RowReader,
    processor: ProcessorMixin,
    accelerator: Accelerator,
) -> DataLoader:
    """
    Batches of this process, in the order that their sampler gives, of images, or random crops of them, with captions
    drawn for them.
    """
    crop = None
    if not args.freeze_vision_model and args.min_crop_scale < 1:
        scale, interpolation = (args.min_crop_scale, 1.0), InterpolationMode.BICUBIC
        crop = RandomResizedCrop(find_image_size(processor.image_processor), scale, interpolation=interpolation)
    batch_size, num_processes = args.per_device_train_batch_size, accelerator.num_processes
    if args.streaming:
        buffer_size = args.shuffle_buffer_size
        sampler = StreamBatchSampler(dataset, batch_size, args.seed, args.image_column, accelerator, buffer_size)
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
    warmup_steps = args.warmup_steps
    if warmup_steps < 1:  # a share, as in transformers
        warmup_steps = math.ceil(warmup_steps * args.max_train_steps)
    if warmup_steps > args.max_train_steps:
        raise ValueError(
            f"`--warmup_steps {args.warmup_steps:g}` is longer than the run of {args.max_train_steps} steps, which "
            "would never reach its learning rate: give fewer steps, or a share of them such as 0.1."
        )
    optimizer = AdamW(
        parameter_groups(model, args.weight_decay),
        lr=args.learning_rate,
        betas=(args.adam_beta1, args.adam_beta2),
        eps=args.adam_epsilon,
        fused=True,
    )
    scheduler = get_scheduler(args.lr_scheduler_type, optimizer, int(warmup_steps), args.max_train_steps)
    return optimizer, lambda step: args.learning_rate * scheduler.lr_lambdas[0](step)


def prepare(args: TrainArguments, accelerator: Accelerator, checkpoint: Path | None, stack: ExitStack) -> Training:
    """Loads data, model and checkpoint, and takes over the output folder, until the stack is closed."""
    for is_turn in (accelerator.is_main_process, not accelerator.is_main_process):
        with fail_together(accelerator):  # the main process reads a new data set, the others find it in the cache
            if is_turn:
                dataset, reader = load_training_data(args, accelerator)
                evaluation_data = load_evaluation_data(args)
    check_overlap(args, dataset, evaluation_data)
    model, processor = build_model(args, dataset, reader)
    trained = ContrastiveModel(model)
    args.max_length, args.freeze_vision_model = processor.tokenizer.model_max_length, trained.is_vision_frozen
    args.matryoshka_dims = getattr(model.config, "matryoshka_dims", None)
    has_bias = "logit_bias" in trained.scalars
    if has_bias and OBJECTIVES[args.objective].loss == "contrastive":
        logger.info(f"`--objective {args.objective}` takes the sigmoid loss here: the model has a `logit_bias`.")
    loss_function = make_loss(
        args.objective,
        has_bias,
        keep_duplicate_negatives=args.keep_duplicate_negatives,
        num_hard_negatives=args.hard_negatives,
        matryoshka_dims=args.matryoshka_dims or (),
    )
    loader = make_loader(args, dataset, reader, processor, accelerator)
    optimizer, schedule = make_optimizer(args, trained, loader)
    check_room(args, model)
    num_samples = None if args.streaming else len(dataset)
    settings = {"global_batch_size": loader.batch_sampler.global_batch_size, "num_samples": num_samples}
    settings |= {"num_processes": accelerator.num_processes, **args.compared_on_resume()}
    if args.streaming:  # which does not know the number of its samples
        settings["max_train_samples"] = args.max_train_samples
    state = TrainingState() if checkpoint is None else read_state(checkpoint, settings)
    if state.step > args.max_train_steps:
        raise ValueError(
            f"`--resume_from_checkpoint {checkpoint}` is at step {state.step}, but this run has only "
            f"{args.max_train_steps} steps: raise `--max_train_steps` or `--num_train_epochs`."
        )
    with fail_together(accelerator):
        if accelerator.is_main_process:
            reader.report_keys(dataset)
            evaluation_data.reader.report_keys(evaluation_data.dataset)
            stack.enter_context(OutputFolder(args.output_dir, content="a training"))
    if args.cache_image_features:
        loader.dataset.image_features = cache_image_features(
            trained,
            processor,
            loader.dataset.load_image,
            len(dataset),
            data_key=compute_fingerprint(dataset, args.image_column),
            folder=args.image_features_dir or Path(HF_HOME) / "lotlip" / "image_features",
            accelerator=accelerator,
            batch_size=args.per_device_eval_batch_size,
            num_workers=args.dataloader_num_workers,
        )

    with fail_together(accelerator):
        if accelerator.is_main_process:
            if not resumes_in_output_dir(args):
                for path in find_leftovers(args.output_dir):
                    delete(path)
            forget_metrics(args.output_dir, state)
            write_json(args.output_dir / SETTINGS_FILE, args.to_dict() | {"num_processes": accelerator.num_processes})
    trackable = {name: value for name, value in args.to_dict().items() if isinstance(value, (int, float, str))}
    accelerator.init_trackers(RUN_NAME, trackable)
    num_parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    of_processes = f" ({accelerator.num_processes} processes of {args.per_device_train_batch_size})"
    logger.info(
        f"{num_samples or 'A stream of'} training images, {settings['global_batch_size']} in a batch"
        f"{of_processes * (accelerator.num_processes > 1)}, {args.max_train_steps} steps; {num_parameters:,} trained "
        f"parameters, image tower {'frozen' if args.freeze_vision_model else 'trained'}; images of "
        f"{describe_images(processor.image_processor)}, texts of up to {args.max_length} tokens."
    )
    if accelerator.is_fsdp2:
        # a scalar cannot be sharded, and need not be averaged: every process has the gradient of the whole loss for it
        accelerator.state.fsdp_plugin.ignored_modules = [torch.nn.ParameterList(trained.scalars.values())]
    model, optimizer = accelerator.prepare(trained, optimizer)
    set_seed(args.seed, device_specific=True)
    if checkpoint is not None:
        load_checkpoint(accelerator, checkpoint)
        logger.info(f"Resuming from {checkpoint}, at step {state.step}.")
    samples_per_process = None if num_samples is None else math.ceil(num_samples / accelerator.num_processes)
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
        counts=SampleCounts(args.max_bad_fraction, args.max_bad_in_a_row, samples_per_process),
        throughput=Throughput(),
    )


def train(training: Training) -> None:
    """The steps, with checkpoints and evaluations between them, up to the last one or a signal to end."""
    args, accelerator, state = training.args, training.accelerator, training.state
    sampler = training.loader.batch_sampler
    batches, is_checkpoint_due = iter(()), False
    training.model.train()
    training.throughput.restart()
    shown = {"total": args.max_train_steps, "initial": state.step, "unit": " steps"}
    with StopSignal() as stop, progress_bar(**shown, disable=not accelerator.is_local_main_process) as bar:
        is_epoch_begun = False
        while True:
            # a resumed run may have been stopped before it
            if is_evaluation_due(training) and not next_together(iter(()), stop.number, accelerator)[1]:
                evaluate(training, gather_model(training.model, accelerator))
                training.model.train()
                training.throughput.restart()
            is_done = state.step == args.max_train_steps
            if not is_epoch_begun and not is_done:
                sampler.epoch, sampler.first_batch, is_epoch_begun = state.epoch, state.batch, True
                batches = count_samples(training)
            item, stop_number = next_together(iter(()) if is_done else batches, stop.number, accelerator)
            if stop_number and accelerator.sync_gradients:  # else once the update that is begun is done
                save(training)
                bar.close()
                end_early(training, stop_number)
            if is_done:
                return
            if item is None:
                state.epoch, state.batch, is_epoch_begun = state.epoch + 1, 0, False
                sum_counts(training)["rows"].check_matched()
                is_checkpoint_due = args.checkpointing_steps == "epoch"
            else:
                result = take_step(training, *item)
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


def count_samples(training: Training) -> Iterator[tuple[dict[str, torch.Tensor], list[str]]]:
    """The batches of what is left of an epoch with the names of their samples, which are counted."""
    for batch, report in training.loader:
        training.throughput.count(batch)
        for name, bad, unmatched in report["read"]:
            training.counts.count(name, bad, unmatched)
        training.counts.count_hard_negatives(report["hard_negatives"])
        yield batch, report["names"]


def sum_counts(training: Training) -> dict[str, RowCounts]:
    """What became of all rows and hard negatives of the run, of all processes and all its starts."""
    counts = {"rows": training.counts.rows, "hard_negatives": training.counts.hard_negatives}
    earlier = {name: RowCounts(**state) for name, state in training.state.counts.items()}
    return {name: earlier.get(name, RowCounts()) + own.sum_over_processes() for name, own in counts.items()}


def take_step(training: Training, batch: dict[str, torch.Tensor], names: list[str]) -> StepResult:
    """Trains on a batch at the learning rate of the step."""
    args, state = training.args, training.state
    for group in training.optimizer.param_groups:
        group["lr"] = training.schedule(state.step)
    model, optimizer, accelerator = training.model, training.optimizer, training.accelerator
    limits = args.grad_cache_tokens, args.max_grad_norm
    result = train_step(model, batch, optimizer, training.loss_function, accelerator, *limits)
    state.batch += 1
    if result.is_taken:
        state.skipped_in_a_row = 0
    elif result.is_update:
        count_skipped_step(training, names)
    state.step += result.is_update
    training.throughput.end_of_step()
    return result


def count_skipped_step(training: Training, names: list[str]) -> None:
    """
    Counts a step whose loss or gradients were not finite.

    Raises:
        `ValueError`: after `--max_skipped_steps` in a row; `not_finite.json` has what was in the last one.
    """
    args, state = training.args, training.state
    state.skipped_steps += 1
    state.skipped_in_a_row += 1
    logger.warning(f"Step {state.step + 1} is skipped: its loss or gradients are not finite.")
    if state.skipped_in_a_row < args.max_skipped_steps:
        return
    path, names = args.output_dir / "not_finite.json", gather_object(names)
    if training.accelerator.is_main_process:
        write_json(path, {"step": state.step + 1, "samples": names})
    raise ValueError(
        f"{state.skipped_in_a_row} steps in a row had a loss or gradients that are not finite. The samples of the "
        f"last batch are in {path}. Start again with a lower learning rate, or without them."
    )


def measure(training: Training, result: StepResult) -> str:
    """Logs what is measured of a step; gives what the progress bar shows."""
    args, accelerator = training.args, training.accelerator
    model = accelerator.unwrap_model(training.model).model
    rows = sum_counts(training)["rows"]
    if rows.num_rows >= NUM_AWAITED:
        rows.check_matched()
    measured = {
        "loss": result.loss.loss.item(),
        "learning_rate": training.schedule(training.state.step),
        "logit_scale": model.logit_scale.item(),
        "gradient_norm": result.gradient_norm,
        **training.throughput.measure(accelerator),
        **peak_memory(accelerator.device),
        "skipped_steps": training.state.skipped_steps,
        "bad_samples": sum(rows.left_out.values()),
    }
    measured |= measure_slots(result.loss.slot_losses, count_corners(model))
    log(measured, training.state.step, args.output_dir, accelerator)
    return "loss {loss:.3f}, lr {learning_rate:.1e}, {images_per_second:.0f} images/s".format(**measured)


def is_evaluation_due(training: Training) -> bool:
    """Whether to evaluate after this step. The evaluation of the last step is that of `finish`."""
    args, state = training.args, training.state
    return state.step % args.eval_steps == 0 and max(0, state.evaluated_step) < state.step < args.max_train_steps


def evaluate(training: Training, model: PreTrainedModel | None) -> dict[str, float]:
    """Results on the evaluation data, on the main process, which keeps the model if they are the best so far."""
    args, accelerator, state = training.args, training.accelerator, training.state
    results = evaluate_model(model, training.processor, training.evaluation_data, args, accelerator.is_fsdp2)
    state.evaluated_step = state.step
    with fail_together(accelerator):
        if accelerator.is_main_process:
            log(results, state.step, args.output_dir, accelerator)
            print(f"Step {state.step}:\n{format_results(results)}", flush=True)
            folder, metric = args.output_dir / BEST_FOLDER, args.metric_for_best_model
            if metric is not None and is_best(results, metric, folder):
                save_model(args, folder, model, training.processor, results, state.step)
    return results


def save(training: Training) -> None:
    """A checkpoint, from which the run can be resumed."""
    counts = {name: total.state_dict() for name, total in sum_counts(training).items()}
    state, args = replace(training.state, counts=counts), training.args
    save_checkpoint(training.accelerator, args.output_dir, state, training.settings, args.checkpoints_total_limit)


def end_early(training: Training, stop_number: int) -> None:
    """Ends the program after a signal."""
    logger.warning(
        f"Stopped by {signal.Signals(stop_number).name} after step {training.state.step}. Resume with "
        "`--resume_from_checkpoint latest`."
    )
    training.accelerator.end_training()
    sys.exit(128 + stop_number)


def finish(training: Training) -> None:
    """Saves and evaluates the trained model, and says what was wrong with the data."""
    args, accelerator = training.args, training.accelerator
    for name, total in sum_counts(training).items():
        if total.left_out or total.num_unmatched:
            logger.warning(f"Of the {name.replace('_', ' ')} of this training, {total}")
    model = gather_model(training.model, accelerator)
    if accelerator.is_main_process:  # before the evaluation, which may meet a broken image
        try:
            save_model(args, args.output_dir, model, training.processor)
        except OSError as error:
            logger.warning(f"{error}. It is tried again after the evaluation.")
    results = evaluate(training, model)
    with fail_together(accelerator):
        if accelerator.is_main_process:
            names = save_model_somewhere(args, model, training.processor, results)
            if args.push_to_hub:
                logger.info(f"Uploaded to {push_model(args, names)}.")
    accelerator.end_training()
