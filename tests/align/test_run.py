"""What `lotlip align` says of the data that it trains on."""

import pytest
import torch

from modeling_lotlip.align.features import Features
from modeling_lotlip.align.run import FEW_ROWS, warn_of_counts


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unreadable_images", "1 of 900 images cannot be read, and are left out."),
        ("images_without_caption", "1 images have no caption and are left out."),
        (
            "truncated_captions",
            "1 of 950 captions are longer than the 16 tokens that the text model reads, and are cut off.",
        ),
    ],
)
def test_only_what_is_left_out_or_cut_off_is_warned_of(name, message, caplog):
    counts = {"rows": 900, "num_captions": 950}
    counts |= {"unreadable_images": 0, "images_without_caption": 0, "truncated_captions": 0, name: 1}
    nothing = torch.zeros(0, 3)
    warn_of_counts(Features(torch.zeros(FEW_ROWS, 1), nothing, nothing, counts), max_length=16)
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [message]
