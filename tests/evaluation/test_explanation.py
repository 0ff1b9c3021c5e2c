"""What one model does with a text and an image, and the page of it."""

import re

import pytest
import torch
from PIL import Image

from modeling_lotlip.data.scenes import make_scene
from modeling_lotlip.embedding.models import text_limit
from modeling_lotlip.evaluation.explanation import Explanation, describe_unread, explain
from modeling_lotlip.evaluation.maps import draw_image, draw_text
from modeling_lotlip.evaluation.page import render_page
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
