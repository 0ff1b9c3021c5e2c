"""What `docs/scaling.md` says that grows with processes and batch, counted on what is exchanged and computed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from scaffold.scaling import (
    MemoryCounter,
    count_loss_memory,
    count_operations,
    count_slots,
    count_variants,
    exchanged_bytes,
    gathered_bytes,
    loss_operations,
    repeat_rows,
)
from scaffold.timing import encoder_flops
from torch.utils.flop_counter import FlopCounterMode

from modeling_lotlip import LotlipConfig, LotlipModel
from modeling_lotlip.losses import blockwise_contrastive_loss
from tests.conftest import tiny_config, training_environment


ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def volumes(tmp_path_factory) -> dict[int, list[dict]]:
    """What each process counted, by their number."""
    output = tmp_path_factory.mktemp("exchange") / "volume"
    command = [sys.executable, str(ROOT / "tests" / "helpers" / "exchange_volume.py"), str(output), "2", "4", "8"]
    done = subprocess.run(command, env=training_environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return {
        number: [json.loads(Path(f"{output}.{number}.{process}").read_text()) for process in range(number)]
        for number in (2, 4, 8)
    }


@pytest.mark.parametrize("num_processes", [2, 4, 8])
def test_processes_exchange_what_the_page_says(volumes, num_processes):
    config = tiny_config()
    model = LotlipModel(config)
    num_slots = count_slots(config, num_long_captions=3)
    vision = sum(parameter.numel() for parameter in model.vision_model.parameters())
    everything = sum(parameter.numel() for parameter in model.parameters())
    variants = {"frozen": everything - vision, "trained": everything}
    for name, num_gradients in variants.items():
        expected = exchanged_bytes(4, num_slots, config.projection_dim, 6, num_gradients)
        own = gathered_bytes(expected)
        for results in volumes[num_processes]:
            # in chunks there are more passes, but no more exchange
            for step in (results[name], results[f"{name}, in chunks"]):
                assert step["are_gradients_equal"]
                assert step["sent"] == {
                    "allgather_": own,
                    "allreduce_": expected["gradients"],
                    "broadcast_": sum(buffer.nbytes for buffer in model.buffers()),  # the position numbers, by DDP
                }
                assert step["received"] == {**step["sent"], "allgather_": num_processes * own}


def test_operations_of_towers_and_loss():
    config = LotlipConfig(text_config={"num_hidden_layers": 2}, vision_config={"num_hidden_layers": 2})
    counted = count_operations(config, num_long_captions=3, short_length=20, long_length=50)
    image = encoder_flops(197, 197, num_layers=2) + 2 * 196 * 768**2  # and the patches
    texts = [(20, 1)] + 3 * [(52, 3)]  # tokens with corners, outputs
    heads = sum(2 * 2 * outputs * 768**2 for _, outputs in texts)  # pooler and projection
    text = sum(encoder_flops(length, length, num_layers=2) for length, _ in texts) + heads
    similarity = 2 * 768  # of the one short caption with its image
    assert counted["image forward"] == image and counted["text forward"] == text + similarity
    # twice the forward pass, but for what begins it: no gradient for pixels
    assert counted["image backward"] == 2 * image - 2 * 196 * 768**2 and counted["text backward"] == 2 * text

    embeds = torch.randn(6, 5, 8, requires_grad=True)
    for num_processes in (1, 3):  # of which it is the last
        arguments = {"gather": repeat_rows(num_processes), "process_index": num_processes - 1}
        with FlopCounterMode(display=False) as counter:
            blockwise_contrastive_loss(embeds[:, 0], embeds, torch.ones(()), block_size=60, **arguments).backward()
        assert counter.get_total_flops() == loss_operations(6, 6 * num_processes, num_slots=5, dim=8)


def test_operations_of_the_ways_to_train():
    """In chunks the towers that are trained, texts always, run forward once more."""
    operations = {"image forward": 1, "image backward": 10, "text forward": 100, "text backward": 1000}
    assert count_variants(operations) == {
        "frozen image tower": 1101,
        "cached image features": 1100,
        "trained image tower": 1111,
        "frozen, in chunks": 1201,
        "cached, in chunks": 1200,
        "trained, in chunks": 1212,
        "the pass that caches a view": 1,
    }


def test_memory_counter():
    with MemoryCounter() as memory:
        first = torch.zeros(100)  # 400 bytes written
        second = first[:50] + 1  # 200 read, 200 written
        assert memory.current == memory.peak == 600
        del first
        second.view(5, 10).mul_(2)  # 200 read, 200 written, nothing new
        assert memory.current == 200 and memory.peak == 600 and memory.moved == 1200


def count_loss(num_own_rows: int, num_processes: int) -> tuple[int, int, int]:
    """Operations, most bytes held and bytes moved, of the loss in one process, counted on the loss itself."""
    with FlopCounterMode(display=False) as counter:
        peak, moved = count_loss_memory(num_own_rows, num_processes, num_slots=10, dim=64)
    return counter.get_total_flops(), peak, moved


def test_a_process_computes_and_holds_more_with_their_number_not_with_its_square():
    (flops, few, _), (more_flops, more, _), (most_flops, most, _) = (
        count_loss(512, number) for number in (64, 128, 256)
    )
    assert (more_flops, most_flops) == (2 * flops, 4 * flops)
    # embeddings of all processes; the blocks are full with 64 already
    assert most - more == pytest.approx(2 * (more - few), rel=0.1)
    assert most - more < 6 * 4 * 11 * 64 * 512 * 128, "less than six copies of what the other processes sent"


def test_more_processes_share_the_same_batch():
    (flops, peak, moved), (fewer_flops, less, less_moved) = (count_loss(8192 // n, n) for n in (2, 16))
    assert flops == 8 * fewer_flops and less < peak
    assert moved == pytest.approx(8 * less_moved, rel=0.15)
