# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The training of `lotlip train`, from top to bottom: data, model, optimizer, steps, evaluation, checkpoints."""

import logging
import math
import os
import signal
import sys
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import datasets
import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import InitProcessGroupKwargs, ProjectConfiguration, gather_object, set_seed
from torch.optim import AdamW
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import InterpolationMode, RandomResizedCrop
from transformers import get_scheduler

from .. import LotlipModel, LotlipProcessor
from ..data.loading import get_columns, leave_signals_to_the_main_process, load_split
from ..data.reader import RowReader
from ..data.side_captions import UnmatchedKeys
from ..signals import StopSignal
from ..terminal import progress_bar
from .arguments import TrainArguments, list_doubts
from .batches import BatchSampler, StreamBatchSampler
from .checkpoints import (
    LOGGING_FOLDER,
    RUN_NAME,
    TrainingState,
    check_output_dir,
    find_checkpoint,
    list_checkpoints,
    load_checkpoint,
    read_state,
    save_checkpoint,
    take_output_dir,
)
from .disk import check_room, count_needed_room
from .dual_encoder import ContrastiveModel
from .evaluation import (
    EvaluationData,
    check_overlap,
    evaluate_model,
    format_results,
    load_evaluation_data,
)
from .image_features import cache_samples
from .models import build_model, gather_model
from .monitoring import MetricsFile, Throughput, forget_metrics, measure_slots, peak_memory
from .objectives import choose_objective
from .samples import BadSamples, CaptionedImages, HardNegatives, SampleCollator
from .saving import (
    BEST_FOLDER,
    check_services,
    push_model,
    rescue_model,
    save_model,
)
from .skipped_steps import count_skipped_step
from .step import StepResult, parameter_groups, train_step
from .summary import write_summary


logger = get_logger(__name__)


def start(args: TrainArguments) -> tuple[Accelerator, Path | None]:
    """The processes, and the checkpoint to resume from. What cannot go well is refused before anything is done."""
    accelerator = Accelerator(
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        mixed_precision=args.mixed_precision,
        log_with=[MetricsFile(args.output_dir), *([args.report_to] if args.with_tracking else [])],
        project_config=ProjectConfiguration(
            project_dir=str(args.output_dir), logging_dir=str(args.output_dir / LOGGING_FOLDER)
        ),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(seconds=args.ddp_timeout))],
    )
    logging.basicConfig(format="%(asctime)s - %(levelname)s - %(message)s", datefmt="%H:%M:%S")
    logger.setLevel(logging.INFO)
    if accelerator.device.type == "cpu":
        # `accelerate launch` leaves all cores but one idle
        torch.set_num_threads(max(1, os.cpu_count() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
    args.mixed_precision = accelerator.mixed_precision
    for doubt in list_doubts(args):
        logger.warning(doubt)
    check_output_dir(args)
    check_services(args)
    checkpoint = find_checkpoint(args)
    accelerator.wait_for_everyone()
    set_seed(args.seed)
    return accelerator, checkpoint


# ---------------------------------------------------------------------------------------------------------------------
# Data


def load_training_data(args: TrainArguments, accelerator: Accelerator) -> tuple[datasets.Dataset, RowReader]:
    """The training data, and what reads its captions."""
    dataset = load_split(args, args.train_split, args.max_train_samples, weights=args.data_weights, seed=args.seed)
    reader = RowReader(get_columns(dataset), args, args, args.image_column)
    if args.objective == "long_clip" and (args.short_captions == "none" or reader.short_column is None):
        raise ValueError(
            "`--objective long_clip` is `clip` on long captions where there are no short ones, whose loss it changes: "
            "name their column with `--caption_column`, or train with `debias`, which draws them from the long ones."
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
            f"The training data has {len(dataset)} images, too few for one batch of {global_batch_size} "
            f"(`--per_device_train_batch_size {args.per_device_train_batch_size}`, {accelerator.num_processes} "
            "processes): lower the batch size."
        )
    return dataset, reader


def make_samples(
    args: TrainArguments, dataset: datasets.Dataset, reader: RowReader, model: LotlipModel
) -> CaptionedImages:
    """Images, or random crops of them, with captions drawn for them."""
    crop = None
    if (args.num_views or not args.freeze_vision_model) and args.min_crop_scale < 1:
        crop = RandomResizedCrop(
            model.vision_model.embeddings.image_size,
            scale=(args.min_crop_scale, 1.0),
            interpolation=InterpolationMode.BICUBIC,
        )
    num_views = (args.num_views or 1) if args.freeze_vision_model else None
    return CaptionedImages(dataset, reader, args, args.seed, crop, num_views)


def make_loader(
    args: TrainArguments,
    dataset: datasets.Dataset,
    samples: CaptionedImages,
    processor: LotlipProcessor,
    accelerator: Accelerator,
) -> DataLoader:
    """Batches of this process, in the order that their sampler gives."""
    batch_size, num_processes = args.per_device_train_batch_size, accelerator.num_processes
    if args.streaming:
        buffer_size = args.shuffle_buffer_size
        sampler = StreamBatchSampler(dataset, batch_size, args.seed, args.image_column, accelerator, buffer_size)
    else:
        sampler = BatchSampler(len(dataset), batch_size, args.seed, accelerator.process_index, num_processes)
    return DataLoader(
        samples,
        batch_sampler=sampler,
        collate_fn=SampleCollator(processor, args.max_length, args.hard_negatives),
        num_workers=args.dataloader_num_workers,
        persistent_workers=args.dataloader_num_workers > 0,
        worker_init_fn=leave_signals_to_the_main_process,
        generator=torch.Generator(),  # leaves the global random state to dropout: a resumed run draws the same
    )


# ---------------------------------------------------------------------------------------------------------------------
# Model, optimizer, and all that a training needs


@dataclass
class Training:
    """The parts of a training, and where it is."""

    args: TrainArguments
    accelerator: Accelerator
    model: torch.nn.Module
    processor: LotlipProcessor
    loader: DataLoader
    evaluation_data: EvaluationData
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler
    state: TrainingState
    bad_samples: BadSamples
    unmatched_keys: UnmatchedKeys
    hard_negatives: HardNegatives
    throughput: Throughput


def make_optimizer(args: TrainArguments, model: ContrastiveModel, loader: DataLoader) -> tuple[AdamW, LRScheduler]:
    """AdamW and the learning rate, for as many steps as `--max_train_steps` or the epochs have."""
    if args.max_train_steps is None:
        num_batches = len(loader.batch_sampler) * args.num_train_epochs
        args.max_train_steps = max(1, num_batches // args.gradient_accumulation_steps)
    optimizer = AdamW(
        parameter_groups(model, args.weight_decay),
        lr=args.learning_rate,
        betas=(args.adam_beta1, args.adam_beta2),
        eps=args.adam_epsilon,
        fused=True,
    )
    return optimizer, get_scheduler(args.lr_scheduler_type, optimizer, args.warmup_steps, args.max_train_steps)


def prepare(args: TrainArguments, accelerator: Accelerator, checkpoint: Path | None) -> Training:
    """Loads data and model, and makes an output folder that is this run's."""
    with accelerator.main_process_first():  # which reads a new data set, the others find it in the cache
        dataset, reader = load_training_data(args, accelerator)
        evaluation_data = load_evaluation_data(args)
    check_overlap(args, dataset, evaluation_data)
    model, processor = build_model(args, dataset, reader)
    trained = ContrastiveModel(model)
    args.max_length, args.freeze_vision_model = processor.tokenizer.model_max_length, trained.is_vision_frozen
    args.matryoshka_dims = getattr(model.config, "matryoshka_dims", None)
    args.patch_dropout = None if args.freeze_vision_model else model.config.vision_config.patch_dropout
    samples = make_samples(args, dataset, reader, model)
    loader = make_loader(args, dataset, samples, processor, accelerator)
    optimizer, scheduler = make_optimizer(args, trained, loader)
    num_samples = None if args.streaming else len(dataset)
    check_room(args, count_needed_room(args, model, None if args.streaming else len(loader.batch_sampler)))
    settings = {"global_batch_size": loader.batch_sampler.global_batch_size, "num_samples": num_samples}
    settings |= {"num_processes": accelerator.num_processes, **args.compared_on_resume()}
    if args.streaming:  # which does not know the number of its samples
        settings["max_train_samples"] = args.max_train_samples
    state = TrainingState(settings)

    if accelerator.is_main_process:
        reader.report_keys(dataset)
        evaluation_data.reader.report_keys(evaluation_data.dataset)
    if args.cache_image_features:
        samples.image_features = cache_samples(samples, dataset, model, processor, args, accelerator)
    if checkpoint is not None:
        state.check_settings(read_state(checkpoint)["progress"]["settings"])
    if accelerator.is_main_process:
        take_output_dir(args, checkpoint)
    accelerator.wait_for_everyone()

    if accelerator.is_fsdp2:
        # a scalar cannot be sharded, and need not be averaged: every process has the gradient of the whole loss for it
        accelerator.state.fsdp_plugin.ignored_modules = [torch.nn.ParameterList(trained.scalars.values())]
    num_parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    model, optimizer = accelerator.prepare(trained, optimizer)
    set_seed(args.seed, device_specific=True)
    if checkpoint is not None:
        load_checkpoint(accelerator, checkpoint, state, scheduler)
        logger.info(f"Resuming from {checkpoint}, at step {state.step}.")
    logger.info(
        f"{num_samples or 'A stream of'} training images, {settings['global_batch_size']} in a batch, "
        f"{args.max_train_steps} steps; {num_parameters:,} trained parameters, image tower "
        f"{'frozen' if args.freeze_vision_model else 'trained'}."
    )
    own_samples = None if num_samples is None else math.ceil(num_samples / accelerator.num_processes)
    return Training(
        args,
        accelerator,
        model,
        processor,
        loader,
        evaluation_data,
        optimizer,
        scheduler,
        state,
        bad_samples=BadSamples(args.max_bad_fraction, args.max_bad_in_a_row, own_samples),
        unmatched_keys=UnmatchedKeys(),
        hard_negatives=HardNegatives(),
        throughput=Throughput(accelerator),
    )


# ---------------------------------------------------------------------------------------------------------------------
# Training


def train(training: Training) -> None:
    """The loop over steps, with checkpoints, evaluations and an end at SIGTERM or SIGINT."""
    args, accelerator, state = training.args, training.accelerator, training.state
    sampler = training.loader.batch_sampler
    is_checkpoint_due = False
    training.throughput.restart()
    if is_evaluation_due(training):  # the resumed run was stopped before it
        evaluate(training, gather(training))
    shown = {"total": args.max_train_steps, "initial": state.step, "unit": " steps"}
    with StopSignal() as stop, progress_bar(**shown, disable=not accelerator.is_local_main_process) as bar:
        while state.step < args.max_train_steps:
            training.model.train()
            sampler.epoch, sampler.first_batch = state.epoch, state.batch
            for batch, report in training.loader:
                result = take_step(training, batch, report)
                if not result.is_update:
                    continue
                bar.update()
                if state.step % args.logging_steps == 0 or state.step == args.max_train_steps:
                    bar.set_postfix_str(measure(training, result), refresh=False)

                stop_number = stop.on_any_process(accelerator)
                if args.checkpointing_steps not in (None, "epoch"):
                    is_checkpoint_due = state.step % int(args.checkpointing_steps) == 0
                if is_checkpoint_due or stop_number:
                    save_state(training)
                    is_checkpoint_due = False
                if is_evaluation_due(training) and not stop_number:
                    evaluate(training, gather(training))
                    training.model.train()
                    training.throughput.restart()
                    stop_number = stop.on_any_process(accelerator)
                    if stop_number:
                        save_state(training)
                if stop_number:
                    bar.close()
                    end_early(training, stop_number)
                if state.step == args.max_train_steps:
                    if args.checkpointing_steps == "epoch":  # the last one ends here
                        save_state(training)
                    break
            else:
                state.epoch, state.batch = state.epoch + 1, 0
                training.unmatched_keys.check()
                if args.checkpointing_steps == "epoch" and accelerator.sync_gradients:
                    save_state(training)
                elif args.checkpointing_steps == "epoch":
                    is_checkpoint_due = True  # once the update that the epoch ended in the middle of is done


def take_step(training: Training, batch: dict[str, torch.Tensor], report: dict[str, list]) -> StepResult:
    """Trains on a batch, and counts it."""
    args, state = training.args, training.state
    training.throughput.count(batch)
    training.bad_samples.count(report["bad"])
    training.unmatched_keys.count(report["unmatched"])
    training.hard_negatives.count(report["hard_negatives"])
    result = train_step(
        training.model,
        batch,
        training.optimizer,
        choose_objective(args.objective, args.matryoshka_dims, args.hard_negatives),
        training.accelerator,
        keep_duplicate_negatives=args.keep_duplicate_negatives,
        tokens_per_chunk=args.grad_cache_tokens,
        max_grad_norm=args.max_grad_norm,
    )
    state.batch += 1
    if result.is_taken:
        state.skipped_in_a_row = 0
    elif result.is_update:
        count_skipped_step(state, report["name"], training.loader.batch_sampler, args, training.accelerator)
    if result.is_update:
        training.scheduler.step()
        state.step += 1
    training.throughput.end_of_step()
    return result


def measure(training: Training, result: StepResult) -> str:
    """Writes down what is measured of a step; gives what the progress bar shows."""
    accelerator = training.accelerator
    model = accelerator.unwrap_model(training.model).model
    measured = {
        "loss": result.loss.loss.item(),
        "learning_rate": training.scheduler.get_last_lr()[0],
        "logit_scale": model.logit_scale.item(),
        "gradient_norm": result.gradient_norm,
        **training.throughput.measure(),
        "memory_gb": peak_memory(accelerator.device),
        "skipped_steps": training.state.skipped_steps,
        "bad_samples": training.bad_samples.sum_over_processes(training.state.bad_causes)[0].total(),
    }
    if accelerator.is_main_process:
        _, *parts = result.loss
        measured |= measure_slots(*parts, model.config.text_config.num_corner_tokens)
    accelerator.log(measured, step=training.state.step)
    return "loss {loss:.3f}, lr {learning_rate:.1e}, {images_per_second:.0f} images/s".format(**measured)


def is_evaluation_due(training: Training) -> bool:
    args, state = training.args, training.state
    is_at_end = state.step in (0, args.max_train_steps)  # where it has its own place
    return state.step % args.eval_steps == 0 and state.evaluated_step < state.step and not is_at_end


def gather(training: Training) -> LotlipModel | None:
    """The model with all its parameters: of sharded ones (FSDP2) on the main process alone, which then evaluates."""
    return gather_model(training.model, training.accelerator)


def evaluate(training: Training, model: LotlipModel | None) -> dict[str, float]:
    """Results on the evaluation data, on the main process; it keeps the model if they are the best so far."""
    args, state = training.args, training.state
    is_alone = training.accelerator.is_fsdp2
    results = evaluate_model(model, training.processor, training.evaluation_data, args, is_alone)
    state.evaluated_step = state.step
    if training.accelerator.is_main_process:
        training.accelerator.log(results, step=state.step)
        print(f"Step {state.step}:\n{format_results(results)}", flush=True)
        best_dir = args.output_dir / BEST_FOLDER
        if state.is_best(results, args.metric_for_best_model, best_dir):
            save_model(args, best_dir, model, training.processor, results, state.step)
    return results


# ---------------------------------------------------------------------------------------------------------------------
# Saving


def save_state(training: Training) -> None:
    """A checkpoint, from which the run can be resumed."""
    bad_causes, _ = training.bad_samples.sum_over_processes(training.state.bad_causes)
    saved = replace(training.state, bad_causes=dict(bad_causes))
    save_checkpoint(training.accelerator, training.args, saved, training.scheduler)
    training.state.saved_step = saved.saved_step


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
    causes, by_process = training.bad_samples.sum_over_processes(training.state.bad_causes)
    if causes:
        logger.warning(f"{causes.total()} bad samples were skipped: {dict(causes)}; by process {by_process}.")
    unmatched_keys = UnmatchedKeys.sum(gather_object([training.unmatched_keys]))
    if unmatched_keys.num_unmatched:
        logger.warning(unmatched_keys)
    hard_negatives = HardNegatives.sum(gather_object([training.hard_negatives]))
    if hard_negatives.num_absent:
        logger.warning(hard_negatives)
    model = gather(training)
    if accelerator.is_main_process:  # before the evaluation, which may meet a broken image
        try:
            save_model(args, args.output_dir, model, training.processor)
        except OSError as error:
            logger.warning(f"{error}. It is tried again after the evaluation.")
    results = evaluate(training, model)
    if accelerator.is_main_process:
        try:
            names = save_model(args, args.output_dir, model, training.processor, results)
        except OSError as error:
            checkpoint = next(reversed(list_checkpoints(args.output_dir)), None)
            raise ValueError(rescue_model(args, model, training.processor, results, checkpoint, error)) from error
        if args.push_to_hub:
            logger.info(f"Uploaded to {push_model(args, names)}.")
        logger.info(f"The summary of this training is {write_summary(args.output_dir)}.")
    accelerator.wait_for_everyone()  # none takes its leave while another is still saving
    accelerator.end_training()


def run(args: TrainArguments) -> None:
    """A whole training."""
    accelerator, checkpoint = start(args)
    training = prepare(args, accelerator, checkpoint)
    simple = {name: value for name, value in args.to_dict().items() if isinstance(value, (int, float, str))}
    accelerator.init_trackers(RUN_NAME, simple)  # trackers take no lists
    if accelerator.is_main_process:
        forget_metrics(args.output_dir, training.state)
    train(training)
    finish(training)
