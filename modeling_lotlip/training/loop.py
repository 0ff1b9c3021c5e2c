# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""The training of `lotlip train`, from top to bottom: epochs, steps, evaluations, checkpoints."""

import math
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

from accelerate.logging import get_logger
from accelerate.utils import gather_object
from huggingface_hub import HfApi
from transformers import PreTrainedModel

from ..encoder.dual_encoder import DualEncoder
from ..evaluation.retrieval import embed_dataset, format_recalls, measure_retrieval
from ..losses.global_loss import average_losses
from ..utils.signals import StopSignal
from ..utils.terminal import progress_bar, without_stop
from . import outputs
from .arguments import TrainArguments
from .batch import CaptionBatch, make_as_many
from .dual_encoder import ImageSide
from .models import gather_model
from .outputs import TrainingState
from .prepare import Training, prepare, start_processes
from .processes import fail_together
from .samples import NUM_AWAITED, SampleCounts
from .step import StepResult, size_groups, train_step


logger = get_logger(__name__)

# Steps in a row whose loss or gradients are not finite, after which a run ends
MAX_SKIPPED_STEPS = 10
# The fraction of the samples of a stream's batches that may be padding without a warning
MAX_PADDING_FRACTION = 0.05


@dataclass(frozen=True)
class NextBatch:
    """
    A batch of this process, and what all processes have agreed on before it is trained on.

    Args:
        batch (`CaptionBatch`): The batch.
        sizes (`list[int]`): The rows of each group that it is embedded in.
        stop_number (`int`): That of a signal that any process has got, 0 if there is none.
        counts (`SampleCounts`): What became of the rows that this process has read, once it is trained on this batch.
    """

    batch: CaptionBatch
    sizes: list[int]
    stop_number: int
    counts: SampleCounts


def run(args: TrainArguments) -> None:
    """
    Runs a whole training: see `lotlip train`. Every process calls this. Raises a `ValueError` if arguments, data and
    model do not fit together, or the data is too bad, and an `OSError` if something cannot be read or written.
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


def train(training: Training) -> int:
    """
    Takes the steps, with checkpoints and evaluations. Returns 0 after the last one, or the number of the signal that
    stopped it before.
    """
    args = training.args
    accelerator = training.accelerator
    state = training.state
    last_step = training.plan.max_train_steps
    # whether an epoch has ended without its checkpoint: amid an accumulation it waits for the update
    is_epoch_over = False
    training.model.train()
    training.throughput.restart()
    with (
        StopSignal() as stop,
        progress_bar(
            total=last_step, initial=state.step, unit=" steps", disable=not accelerator.is_local_main_process
        ) as bar,
    ):
        evaluate_if_due(training)  # a resumed run may have been stopped before it
        while state.step < last_step:
            for next_batch in read_epoch(training, stop):
                # else once the update that is begun is done
                if next_batch.stop_number and accelerator.sync_gradients:
                    return stop_training(training, next_batch.stop_number)
                result = take_step(training, next_batch)
                if not result.is_update:
                    continue
                bar.update()
                if state.step % args.logging_steps == 0 or state.step == last_step:
                    bar.set_postfix_str(log_step(training, result), refresh=False)
                if is_checkpoint_due(training, is_epoch_over):
                    save(training)
                    is_epoch_over = False
                evaluate_if_due(training)
                if state.step == last_step:
                    break
            else:
                state.epoch += 1
                state.batch = 0
                is_epoch_over = True
                counts = sum_counts(training)
                counts.rows.check_matched()
                warn_of_padding(training, counts)
                if accelerator.sync_gradients and args.checkpointing_steps == "epoch":
                    save(training)
                    is_epoch_over = False
    return 0


def read_epoch(training: Training, stop: StopSignal) -> Iterator[NextBatch]:
    """
    Reads the batches of what is left of an epoch. For each batch the processes exchange once
    how many groups they need for it, whether one of them has failed, and whether one has got a signal to stop.
    """
    args = training.args
    state = training.state
    loader = training.loader
    sampler = loader.batch_sampler
    sampler.epoch = state.epoch
    sampler.first_batch = state.batch
    num_samples = None
    if not args.streaming:
        num_samples = math.ceil(sampler.num_samples / training.accelerator.num_processes)
    batches = iter(loader)
    while True:
        with fail_together(training.accelerator, num_groups=0, stop_number=0) as agreed:
            item = next(batches, None)
            if item is not None:
                batch, outcomes = item
                training.throughput.count(batch)
                counts = SampleCounts()
                counts.count_batch(outcomes, len(batch))
                for outcome in outcomes:
                    if outcome.message is not None:
                        logger.warning(f"Skipped: {without_stop(outcome.message)}.", main_process_only=False)
                counts = training.counts + counts
                counts.check(args.max_bad_fraction, num_samples)
                sizes = size_groups(training.contrastive_model, batch, args.grad_cache_tokens)
                agreed["num_groups"] = len(sizes)
            agreed["stop_number"] = stop.number
        if item is None:
            return
        yield NextBatch(batch, make_as_many(sizes, agreed["num_groups"]), agreed["stop_number"], counts)


def take_step(training: Training, next_batch: NextBatch) -> StepResult:
    """
    Trains on a batch, the last of an accumulation with an update of the weights. Raises a `ValueError` after ten steps
    in a row that were not finite.
    """
    state = training.state
    optimizer = training.optimizer
    for group in optimizer.param_groups:
        group["lr"] = training.schedule(state.step)
    result = train_step(
        training.model, next_batch.batch, optimizer, training.accelerator, training.step_options, next_batch.sizes
    )
    state.batch += 1
    # not before: a run that stops before the batch reads it again when it resumes
    training.counts = next_batch.counts
    training.step_losses.append(result.loss.detach())
    if not result.is_update:
        return result
    result = replace(result, losses=average_losses(training.step_losses))
    training.step_losses = []
    if result.is_taken:
        state.skipped_in_a_row = 0
        if result.gradient_norm == 0:
            state.idle_steps += 1
    else:
        state.skipped_steps += 1
        state.skipped_in_a_row += 1
        logger.warning(f"Step {state.step + 1} is skipped: its loss or gradients are not finite.")
        if state.skipped_in_a_row == MAX_SKIPPED_STEPS and state.step + 1 == MAX_SKIPPED_STEPS:
            raise ValueError(
                f"The first {MAX_SKIPPED_STEPS} steps had a loss or gradients that are not finite, "
                "before any weight was changed: look at the start model, and at the loss of "
                "`--objective`."
            )
        if state.skipped_in_a_row == MAX_SKIPPED_STEPS:
            raise ValueError(
                f"{MAX_SKIPPED_STEPS} steps in a row had a loss or gradients that are not finite: "
                "start again with a lower `--learning_rate`."
            )
    state.step += 1  # a skipped one too: the schedule and the end of the run count it
    return result


def is_checkpoint_due(training: Training, is_epoch_over: bool) -> bool:
    """Returns whether the step that was taken ends with a checkpoint."""
    state = training.state
    every = training.args.checkpointing_steps
    if every is None:
        return False
    if every == "epoch":  # the last epoch ends with the last step
        return is_epoch_over or state.step == training.plan.max_train_steps
    return state.step % int(every) == 0


def stop_training(training: Training, stop_number: int) -> int:
    """Ends a run after a signal with a checkpoint; the number of the signal."""
    save(training)
    name = signal.Signals(stop_number).name
    logger.warning(
        f"Stopped by {name} after step {training.state.step}. Resume with `--resume_from_checkpoint latest`."
    )
    return stop_number


def sum_counts(training: Training) -> SampleCounts:
    """Returns what became of all rows and captions of the run, of all processes and all its starts."""
    return sum(gather_object([training.counts]), start=training.state.counts)


def warn_of_padding(training: Training, counts: SampleCounts) -> None:
    """Warns once if much of a stream's batches is padding: some processes have fewer rows than others."""
    is_much = training.args.streaming and counts.padding_fraction > MAX_PADDING_FRACTION
    if not is_much or training.has_warned_of_padding:
        return
    training.has_warned_of_padding = True
    num_samples = counts.rows.num_rows + counts.num_padding
    logger.warning(
        f"{counts.num_padding} of {num_samples} samples so far are padding: processes whose shards "
        "have fewer rows wait for the others, with smaller batches. Write shards of equal size "
        "(`lotlip pack --shard_size`), or leave out `--streaming`."
    )


def log_step(training: Training, result: StepResult) -> str:
    """Logs what is measured of the step that was taken. Returns what the progress bar shows."""
    accelerator = training.accelerator
    state = training.state
    counts = sum_counts(training)
    warn_of_padding(training, counts)
    rows = counts.rows
    if rows.num_rows >= NUM_AWAITED:
        rows.check_matched()
    measured = {
        "loss": result.losses["loss"],  # here to come first; those of the slots come last
        "learning_rate": training.schedule(state.step - 1),  # that it was taken at: it is counted by now
        "logit_scale": training.contrastive_model.scalars["logit_scale"].log().item(),
        "gradient_norm": result.gradient_norm,
        **training.throughput.measure(accelerator),
        "skipped_steps": state.skipped_steps,
        "bad_samples": sum(rows.left_out.values()),
        **result.losses,
    }
    outputs.log(measured, state.step, training.args.output_dir, accelerator)
    return "loss {loss:.3f}, lr {learning_rate:.1e}, {images_per_second:.0f} images/s".format(**measured)


def evaluate_if_due(training: Training) -> None:
    """Evaluates at every `--eval_steps` steps, but not at the last one, where [`finish`] does."""
    state = training.state
    is_due = state.step % training.args.eval_steps == 0 and state.evaluated_step < state.step
    if is_due and 0 < state.step < training.plan.max_train_steps:
        evaluate(training, gather_model(training.model, training.accelerator))
        training.model.train()
        training.throughput.restart()


def evaluate(training: Training, model: PreTrainedModel | None) -> dict[str, float]:
    """
    Evaluates retrieval, and keeps the model if it is the best so far. Every process calls this, and embeds its part.
    With FSDP2 the main process alone has the model, and embeds all.

    Returns:
        `dict[str, float]`: the results, as `short_...` and `long_...`; empty on all processes but the main one.
    """
    args = training.args
    accelerator = training.accelerator
    state = training.state
    results = {}
    if model is not None:
        is_frozen = training.contrastive_model.image_side is ImageSide.FROZEN
        embedded = embed_dataset(
            DualEncoder(model, training.processor),
            training.evaluation_data.dataset,
            training.evaluation_data.reader,
            batch_size=args.per_device_eval_batch_size,
            num_workers=args.dataloader_num_workers,
            is_alone=accelerator.is_fsdp2,
            image_cache=training.image_cache if is_frozen else None,
            must_match=False,  # the training goes on
        )
        if accelerator.is_main_process:
            is_drawn = args.dataset_name is None  # scenes, many of which have the same short caption
            results = measure_retrieval(embedded, distinct_short_captions=is_drawn, device=model.device)
    state.evaluated_step = state.step
    with fail_together(accelerator):
        if accelerator.is_main_process:
            print_results(state.step, results)
            outputs.log(results, state.step, args.output_dir, accelerator)
            folder = args.output_dir / outputs.BEST_FOLDER
            metric = args.metric_for_best_model
            if metric is not None and outputs.is_best(results, metric, state.best):
                data = training.evaluation_data.contents
                state.best = outputs.BestModel(state.step, results, data, metric)
                outputs.save_model(args, training.plan, folder, model, training.processor, state.best)
    return results


def print_results(step: int, results: dict[str, float]) -> None:
    """Prints what was measured at a step. Who read it, such as `head`, may be gone: the run goes on."""
    try:
        print(f"Step {step}:\n{format_recalls(results)}", flush=True)
    except BrokenPipeError:
        logger.warning(f"Nobody reads standard output any more: see {outputs.METRICS_FILE}.")


def save(training: Training) -> None:
    """Saves a checkpoint, from which the run can be resumed."""
    state = replace(training.state, counts=sum_counts(training))
    limit = training.args.checkpoints_total_limit
    outputs.save_checkpoint(training.accelerator, training.args.output_dir, state, training.settings, limit)


def check_learning(state: TrainingState) -> None:
    """Raises a `ValueError` if no step had a gradient to learn by, those before the run was resumed included."""
    if 0 < state.step == state.idle_steps:
        raise ValueError(
            f"None of {state.idle_steps} steps had a gradient: in no batch have two images different "
            "captions, as tokens. Give more of them, or a larger `--per_device_train_batch_size`."
        )
    if 0 < state.step == state.idle_steps + state.skipped_steps:
        raise ValueError(
            f"Nothing was learned: of {state.step} steps {state.skipped_steps} were skipped, since "
            f"their loss or gradients were not finite, and {state.idle_steps} had no gradient. Take "
            "more steps, or look at the start model."
        )


def finish(training: Training) -> None:
    """Saves and evaluates the trained model, if it is one, and says what was wrong with the data."""
    check_learning(training.state)
    args = training.args
    plan = training.plan
    accelerator = training.accelerator
    counts = sum_counts(training)
    for name in ("rows", "short_captions", "long_captions"):
        total = getattr(counts, name)
        if total.left_out or total.num_unmatched:
            logger.warning(f"Of the {name.replace('_', ' ')} of this training, {total}")
    model = gather_model(training.model, accelerator)
    with fail_together(accelerator):
        if accelerator.is_main_process:
            outputs.save_last_model(args, plan, model, training.processor)
    results = evaluate(training, model)
    with fail_together(accelerator):
        counts.rows.check_matched()
        if accelerator.is_main_process:
            outputs.save_results(args, plan, args.output_dir, results)
            if args.push_to_hub:
                logger.info(f"Uploaded to {outputs.push_model(args)}.")
