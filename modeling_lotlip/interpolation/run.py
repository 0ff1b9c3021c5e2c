# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""Mixes the weights of two models, from loading them to the saved mixture: see [`interpolate`]."""

import logging

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from ..encoder.arguments import LoadingArguments
from ..encoder.dual_encoder import load_encoder, warn_of_whole_embeddings
from ..utils.output_folder import OutputFolder
from ..utils.processes import join_processes
from .arguments import InterpolateArguments
from .choose import MeasuredMixture, choose_best
from .measure import check_measured, has_same_images, keep_image_embeddings, load_held_back, measure_halves
from .outputs import Interpolation, check_mixture_dir, format_interpolation, save_mixture
from .weights import (
    check_computation,
    check_models,
    check_same_shapes,
    clone_weights,
    fit_start,
    mix_dims,
    mix_weights,
    warn_of_other_tokens,
    warn_of_same_weights,
)


logger = logging.getLogger(__name__)


def interpolate(args: InterpolateArguments) -> Interpolation | None:
    """
    Measures mixtures of the weights of two models on rows that were held back, and saves the best in
    `args.output_dir`.

    Args:
        args ([`InterpolateArguments`]): What `lotlip interpolate` takes.

    Returns:
        [`Interpolation`]: all that was measured; `None` but on the main process.

    Raises:
        `ValueError`: if the models do not fit together, or the data or the folder cannot be used.

    Example:

    ```python
    >>> from modeling_lotlip.interpolation.arguments import InterpolateArguments
    >>> from modeling_lotlip.interpolation.run import interpolate

    >>> models = {"start": "openai/clip-vit-base-patch16", "end": "outputs/long_clip"}
    >>> args = InterpolateArguments(**models, output_dir="outputs/near", dataset_name="my_photos")
    >>> interpolate(args).best.alpha  # doctest: +SKIP
    0.6
    ```"""
    check_mixture_dir(args.output_dir)
    state = join_processes(args.device)
    if not state.is_main_process:
        return measure_and_save(args, state)
    with OutputFolder(args.output_dir, content="a mixture"):
        check_mixture_dir(args.output_dir)  # another run may have ended there meanwhile
        return measure_and_save(args, state)


def measure_and_save(args: InterpolateArguments, state: PartialState) -> Interpolation | None:
    """Measures mixtures, and saves the best where no other run writes: see [`interpolate`]."""
    data = load_held_back(args)
    loading = LoadingArguments(device=args.device, trust_remote_code=args.trust_remote_code)
    start = load_encoder(args.start, loading, "start")
    end = load_encoder(args.end, loading, "end")
    check_models(start, end)
    warn_of_other_tokens(start, end)
    # of which sentence-transformers may have saved how many are kept with one of both, but not with the mixture
    if start.is_cut:
        warn_of_whole_embeddings(start, "The mixture", "START")
    else:
        warn_of_whole_embeddings(end, "The mixture", "END")
    start.truncate_dim = None
    end.truncate_dim = None
    fitted_start = fit_start(start, end)
    start_weights = clone_weights(fitted_start)
    end_weights = clone_weights(end.model)
    check_same_shapes(start_weights, end_weights)
    warn_of_same_weights(start_weights, end_weights)
    if data.class_names:
        end.check_single_embeddings()
    if has_same_images(start, end):
        logger.info("Both models embed images alike: they are embedded once.")
        keep_image_embeddings(data)
    end.model.load_state_dict(start_weights)
    check_computation(fitted_start, end)
    of_start = measure_halves(start, data, args)
    check_start_is_measured(of_start, state)
    mixtures = []
    for alpha in args.all_alphas:
        end.model.load_state_dict(mix_weights(start_weights, end_weights, alpha))
        mixtures.append(MeasuredMixture(alpha, measure_halves(end, data, args)))
        logger.info(f"Measured alpha {alpha:g}.")
    if not state.is_main_process:
        return None
    best = choose_best(mixtures, of_start, args.max_loss)
    num_rows = {name: len(half.rows) for name, half in data.halves.items()}
    is_stretched = fitted_start is not start.model
    interpolation = Interpolation(of_start, mixtures, best, is_stretched, num_rows)
    end.model.load_state_dict(mix_weights(start_weights, end_weights, best.alpha))
    mixed_dims = mix_dims(start.matryoshka_dims, end.matryoshka_dims, best.alpha)
    if mixed_dims != list(end.matryoshka_dims):
        end.model.config.matryoshka_dims = mixed_dims or None
    try:
        save_mixture(args, end, interpolation)
    except OSError:
        logger.warning(f"The best is not saved. What was measured:\n{format_interpolation(interpolation)}")
        raise
    return interpolation


def check_start_is_measured(of_start: dict[str, dict[str, float]], state: PartialState) -> None:
    """Raises the `ValueError` of [`check_measured`] in all processes, which would wait for the main one."""
    errors = [None]
    if state.is_main_process:  # which alone has the results
        try:
            check_measured(of_start)
        except ValueError as error:
            errors = [str(error)]
    broadcast_object_list(errors)
    if errors[0] is not None:
        raise ValueError(errors[0])
