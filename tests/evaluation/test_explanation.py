"""What one model does with a text and an image, and the page of it."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BertTokenizer, CLIPTokenizer

from modeling_lotlip import LotlipTokenizer
from modeling_lotlip.data.scenes import make_scene
from modeling_lotlip.embedding.batches import tokenize
from modeling_lotlip.embedding.models import text_limit
from modeling_lotlip.evaluation.explanation import Explanation, encode_png, explain, number_tokens, render_page
from modeling_lotlip.evaluation.relevance import heat_map
from modeling_lotlip.sub_captions import join_sub_captions, split_sub_captions
from tests.helpers.dual_encoders import build_clip, build_siglip


@pytest.mark.parametrize("build", [build_clip, build_siglip])
def test_texts_of_other_dual_encoders(build, tmp_path):
    torch.manual_seed(0)
    model, processor = build(tmp_path)
    model.eval()
    processor.tokenizer.model_max_length = text_limit(model, processor)
    image = make_scene(seed=1, index=0).draw()
    explanation = explain("other", model, processor, "a red boat. the ground is sand", image)
    assert len(explanation.over_text) == len(explanation.tokens)
    assert {number for number in explanation.numbers if number is not None} == {0, 1}
    assert explanation.over_image.shape[0] == 3


SENTENCES = 'Mr. Hill says "it is red". It is 3.5 m long! The sea (blue). A sky'


def build_tokenizer(name: str):
    """A tokenizer with the words of `SENTENCES`; CLIP's has a token for a full stop behind a mark, as the real one."""
    if name == "clip":
        return CLIPTokenizer().train_new_from_iterator([SENTENCES.lower().replace(" ", "  ")] * 4, 600)
    words = [*'mr . hill says " it is red 3 5 m long ! the sea ( blue ) a sky'.split()]
    vocab = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    return LotlipTokenizer(vocab=vocab) if name == "lotlip" else BertTokenizer(vocab=vocab)


@pytest.mark.parametrize("name", ["lotlip", "bert", "clip"])
@pytest.mark.parametrize("splitter", ["paper", "sentences"])
def test_tokens_belong_to_the_sub_captions_that_they_are_in(name, splitter):
    tokenizer = build_tokenizer(name)
    processor = SimpleNamespace(tokenizer=tokenizer)
    sub_captions = split_sub_captions(SENTENCES, splitter)
    (input_ids,) = tokenize(processor, [join_sub_captions(sub_captions)])["input_ids"].tolist()
    numbers = number_tokens(processor, input_ids, sub_captions)
    assert numbers[0] is numbers[-1] is None and None not in numbers[1:-1]
    for number, sub_caption in enumerate(sub_captions):
        tokens = tokenizer.decode([token for token, of_token in zip(input_ids, numbers) if of_token == number])
        letters = [re.sub(r"[^a-z0-9]", "", text.replace("[SEP]", "").lower()) for text in (tokens, sub_caption)]
        assert letters[0] == letters[1]

    # truncated inside the second one: the others are not read, whatever full stops there are
    limit = numbers.index(1) + 2
    (input_ids,) = tokenize(processor, [join_sub_captions(sub_captions)], limit)["input_ids"].tolist()
    numbers = number_tokens(processor, input_ids, sub_captions)
    assert numbers == [None, *[0] * (limit - 3), 1, None]
    assert Explanation("", [], numbers, [], sub_captions).num_read == 2


def build_explanation(name: str, mark: str) -> Explanation:
    """Of a text with `mark` in every place where a text or a name stands, whose last sub-caption is not read."""
    return Explanation(
        name=name,
        tokens=["[CLS]", f"{mark}red", "##dish", "boat", "[UNK]", "[SEP]"],
        numbers=[None, 0, 0, 0, 1, None],
        over_text=[0.0, 0.5, -0.25, 0.0, 0.25, 0.0],
        sub_captions=[f"{mark}reddish boat", f"{mark}sea", f"{mark}sky"],
        image=Image.new("RGB", (8, 8)),
        similarities=[0.5, 0.25, -0.001],
        over_image=torch.rand(3, 2, 2),
    )


def test_a_page_escapes_every_text_and_needs_no_other_file():
    mark = """<b class="x" title='y'>&amp;"""
    page = render_page([build_explanation(f"{mark}model", mark)])
    assert "<b " not in page and "&amp;&lt;" not in page
    # nothing is escaped twice either
    escaped = "&lt;b class=&#34;x&#34; title=&#39;y&#39;&gt;&amp;amp;"
    # name, a token, an unread sub-caption and two maps
    assert page.count("&lt;b ") == page.count(escaped) == 5
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)


def test_a_page_has_the_numbers():
    page = render_page([build_explanation("model", "")])
    lines = re.findall(r'<div class="line">(.*)</div>', page)
    shown = [re.sub(r"<[^>]+>", "", line.replace("</span><span>", "|")) for line in lines]
    assert [line.split("|")[-1] for line in shown] == ["0.0 %", "25.0 %", "25.0 %", "0.0 %"]
    assert " reddish boat" in shown[1] and "sky (beyond the limit)" in shown[3]
    assert "sub-captions: 1." in page and "[UNK]: a word" in page
    assert re.findall(r'<span class="note">([-+.\d]+)</span></figcaption>', page) == ["0.50", "+0.25", "+0.00"]
    assert 'title="-0.25"' in page and "rgb(33 102 191 / 0.42)" in page  # half of the largest, in blue


def test_tokens_are_shaded_by_their_share_of_the_largest():
    """`[CLS]` may stand out far, and is not what the others are measured by."""
    explanation = build_explanation("model", "")._replace(over_text=[9.0, 0.2, -0.1, 0.0, -0.4, 0.0])
    shades = re.findall(r"background: rgb\((\d+) [^/]*/ ([\d.]+)\)", render_page([explanation]))
    assert shades == [("214", "0.85"), ("214", "0.42"), ("33", "0.21"), ("33", "0.00"), ("33", "0.85")]


def test_the_maps_of_sub_captions_share_a_scale_of_their_own():
    whole, *parts = over_image = torch.tensor([8.0, 0.5, 1.0])[:, None, None] * torch.eye(2)
    explanation = build_explanation("model", "")._replace(over_image=over_image)
    expected = [
        heat_map(explanation.image, whole, 8.0),
        *(heat_map(explanation.image, part, 1.0) for part in parts),
    ]
    page = render_page([explanation])
    assert re.findall(r'src="([^"]+)"', page)[1:] == list(map(encode_png, expected))
    assert not np.array_equal(*expected[1:])
