# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Long captions for any collection of images, by one or several captioners, in parquet files that training reads with
the images; a stopped run resumes where it stopped.

    lotlip recaption --captioner llava --output_dir captions --dataset_name my_photos
    accelerate launch -m lotlip recaption --output_dir captions --captioner llava sharegpt4v \\
        --dataset_name webdataset --data_files "shards/*.tar" --image_column jpg --streaming
    lotlip recaption --output_dir captions --captioner Qwen/Qwen2.5-VL-7B-Instruct \\
        --endpoint http://localhost:8000/v1 --dataset_name my_photos
"""

import signal
import sys
from datetime import timedelta
from functools import partial

from ..captioning.arguments import CaptionerArguments, RecaptionArguments, RuleArguments
from ..data.arguments import SourceArguments, TrainSplitArguments


ARGUMENTS = (RecaptionArguments, SourceArguments, TrainSplitArguments, CaptionerArguments, RuleArguments)


def run(
    arguments: RecaptionArguments,
    source: SourceArguments,
    split: TrainSplitArguments,
    captioning: CaptionerArguments,
    rules: RuleArguments,
) -> None:
    """
    Captions the images of a dataset.

    Args:
        arguments ([`RecaptionArguments`]): The captioners, and where captions go.
        source ([`SourceArguments`]): The dataset.
        split ([`TrainSplitArguments`]): What of it is read.
        captioning ([`CaptionerArguments`]): How captioners run.
        rules ([`RuleArguments`]): The rules for captions.
    """
    from ..captioning.recaption import recaption
    from ..utils.processes import join_processes

    # a process that is ready early waits for the last one
    state = join_processes(captioning.device, timeout=timedelta(days=7))
    report = partial(print, flush=True)
    stop_number = recaption(source, split, arguments, captioning, rules, state, report)
    if stop_number:
        report(f"Stopped by {signal.Signals(stop_number).name}. Resume with the same command.")
        sys.exit(128 + stop_number)
