"""What one model does with a text and an image, and the page of it."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from modeling_lotlip.data.scenes import make_scene
from modeling_lotlip.embedding.models import text_limit
from modeling_lotlip.evaluation import maps
from modeling_lotlip.evaluation.explanation import Explanation, describe_unread, explain
from modeling_lotlip.evaluation.maps import draw_heat_map, draw_image, draw_text, lay_out_tokens
from modeling_lotlip.evaluation.page import encode_png, lay_out_maps, render_page
from modeling_lotlip.evaluation.relevance import heat_map
from tests.helpers.dual_encoders import build_clip, build_siglip


@pytest.mark.parametrize("build", [build_clip, build_siglip])
def test_texts_of_other_dual_encoders(build, tmp_path):
    torch.manual_seed(0)
    model, processor = build(tmp_path)
    model.eval().set_attn_implementation("eager")
    processor.tokenizer.model_max_length = text_limit(model, processor)
    image = make_scene(seed=1, index=0).draw()
    explanation = explain("other", model, processor, "a red boat. the ground is sand", image)
    assert list(explanation.over_text) == ["similarity with the image depends on"]
    assert {number for number in explanation.numbers if number is not None} == {0, 1}
    assert explanation.over_image.shape[0] == 3


def build_explanation(name: str, mark: str) -> Explanation:
    """Of a text with `mark` in every place where a text or a name stands, whose last sub-caption is not read."""
    return Explanation(
        name=name,
        tokens=["[CLS]", f"{mark}red", "##dish", "boat", "[UNK]", "[SEP]"],
        numbers=[None, 0, 0, 0, 1, None],
        over_text={
            f"{mark}[CLS] attends to": [0.1, 0.2, 0.1, 0.2, 0.3, 0.05],
            f"{mark}similarity depends on": [0.0, 0.5, -0.25, 0.0, 0.25, 0.0],
        },
        sub_captions=[f"{mark}reddish boat", f"{mark}sea", f"{mark}sky"],
        picture=Image.new("RGB", (8, 8)),
        similarities=[0.5, 0.25, -0.001],
        over_image=torch.rand(3, 2, 2),
    )


def test_a_page_escapes_every_text_and_needs_no_other_file():
    mark = """<b class="x" title='y'>&amp;"""
    page = render_page([build_explanation(f"{mark}model", mark)], f"{mark}method")
    assert "<b " not in page and "&amp;&lt;" not in page
    # nothing is escaped twice either
    escaped = "&lt;b class=&#34;x&#34; title=&#39;y&#39;&gt;&amp;amp;"
    # method, unread, name, two titles, two first tokens, two unread sub-captions and two maps
    assert page.count("&lt;b ") == page.count(escaped) == 11
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)


def test_a_page_has_the_numbers():
    page = render_page([build_explanation("model", "")], "occlusion")
    lines = re.findall(r'<div class="line">(.*)</div>', page)
    shown = [re.sub(r"<[^>]+>", "", line.replace("</span><span>", "|")) for line in lines]
    attention, relevance = ["10.0 %", "50.0 %", "30.0 %", "0.0 %", "5.0 %"], ["0.0 %", "25.0 %", "25.0 %", "0.0 %"]
    assert [line.split("|")[-1] for line in shown] == attention + relevance
    assert " reddish boat" in shown[1] and "sky (beyond the limit)" in shown[3] and "corner token itself" in shown[4]
    assert "(occlusion)" in page and "sub-captions: 1." in page and "[UNK]: a word" in page
    assert re.findall(r'<span class="note">([-+.\d]+)</span></figcaption>', page) == ["0.50", "+0.25", "+0.00"]
    assert 'title="-0.25"' in page and "rgb(33 102 191 / 0.42)" in page  # half of the largest, in blue


def test_pictures_of_models_side_by_side():
    explanations = [build_explanation("runs/one", "$"), build_explanation("runs/two", "$")]
    assert "Beyond the limit of one, sub-captions: 1." in describe_unread(explanations)
    figure = draw_text(explanations)
    titles = [text.get_text() for axes in figure.axes for text in axes.texts if text.get_fontsize() == 7.5]
    assert titles == [f"{name}: {title}" for name in ("one", "two") for title in explanations[0].over_text]
    figure = draw_image(explanations, "grad_cam")
    notes = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert notes == ["one", "one 0.50", "one +0.25", "one +0.00", "two", "two 0.50", "two +0.25", "two +0.00"]
    for drawn in (draw_text(explanations), figure):
        drawn.canvas.draw()  # dollars are no formulas


def test_sub_captions_begin_lines_and_no_line_is_too_long():
    explanation = build_explanation("model", "")
    assert lay_out_tokens(explanation) == [(None, [(0, 0)]), (0, [(0, 1), (3, 2), (8, 3)]), (1, [(0, 4)])]
    long = explanation._replace(tokens=["[CLS]", *6 * ["a" * 10], "[SEP]"], numbers=[None, *6 * [0], None])
    columns = [[column for column, _ in tokens] for _, tokens in lay_out_tokens(long)]
    assert columns == [[0], [0, 11, 22, 33], [0, 11]], "a line has 46 characters"


def test_tokens_and_bars_are_shaded_by_their_share_of_the_largest():
    """`[CLS]` may stand out far, and is not what the others are measured by."""
    explanation = build_explanation("model", "")._replace(over_text={"depends on": [9.0, 0.2, -0.1, 0.0, -0.4, 0.0]})
    axes = draw_text([explanation]).axes[0]
    shown = [(patch.get_width(), patch.get_facecolor()) for patch in axes.patches]
    red, blue = (0.84, 0.19, 0.15), (0.13, 0.40, 0.75)
    # tokens of a line, then the bar of its sub-caption
    expected = [(5, red, 1), (3, red, 0.5), (4, blue, 0.25), (4, blue, 0), (2.75, red, 1), (5, blue, 1), (11, blue, 1)]
    assert [width for width, _ in shown] == pytest.approx([width for width, _, _ in expected])
    for (_, seen), (_, colour, share) in zip(shown, expected):
        assert seen == pytest.approx((*colour, 0.85 * share))


def test_the_maps_of_sub_captions_share_a_scale_of_their_own():
    whole, *parts = over_image = torch.tensor([8.0, 0.5, 1.0])[:, None, None] * torch.eye(2)
    explanation = build_explanation("model", "")._replace(over_image=over_image)
    expected = [
        heat_map(explanation.picture, whole, 8.0),
        *(heat_map(explanation.picture, part, 1.0) for part in parts),
    ]
    for place, picture in enumerate(expected):
        assert np.array_equal(draw_heat_map(explanation, place), picture)
    assert [drawn["source"] for drawn in lay_out_maps(explanation)[1:]] == list(map(encode_png, expected))


def test_models_stand_below_each_other_in_every_block_of_panels(monkeypatch):
    monkeypatch.setattr(maps, "PANELS_PER_ROW", 2)
    one, two = build_explanation("one", ""), build_explanation("two", "")
    two = two._replace(over_image=two.over_image[:2], similarities=two.similarities[:2])
    axes = [panel for panel in draw_image([one, two], "grad_cam").axes if panel.texts]
    assert [panel.texts[0].get_text() for panel in axes] == [
        *("one", "one 0.50", "two", "two 0.50"),
        *("one +0.25", "one +0.00", "two +0.25", "two (beyond its limit)"),
    ]
    assert [panel.get_title() for panel in axes if panel.get_title()] == [
        *("the image", "the whole text", "reddish boat", "sea")
    ]
    assert np.array_equal(axes[4].images[0].get_array(), draw_heat_map(one, 1))
