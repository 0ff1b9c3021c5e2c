# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Rules for captions that models have written: edits, which mend a caption, and rejections, which mark it.

The edits are repeated until they change nothing; then the first rejection that holds marks the caption, which stays as
it was written. So a caption that went through the rules once is left alone by them.
"""

import re
from collections import Counter
from collections.abc import Collection
from itertools import groupby
from operator import eq

from ..utils.sub_captions import split_sentences


# Chinese and Japanese characters are words of their own
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")
SENTENCE_END = re.compile(r"[.!?…。！？][\"'”’»)\]*]*$")

# What models that reason write around their thoughts, and some around their answer
THOUGHTS = r"(?:think(?:ing)?|thoughts?|reason(?:ing)?|analysis)"
OPENING = re.compile(rf"<{THOUGHTS}>|◁think▷", re.IGNORECASE)
CLOSING = re.compile(rf"</{THOUGHTS}>|◁/think▷", re.IGNORECASE)
ANSWER = re.compile(r"</?(?:answer|caption|description|response)>|<\|(?:begin|end)_of_box\|>", re.IGNORECASE)
FENCE = re.compile(r"^[ \t]*```[\w-]*[ \t]*$\n?", re.MULTILINE)
JSON = re.compile(r"\{\s*\"|^\s*\[\s*[\"{\[]")
# The marks of lists and headings
MARK = re.compile(r"^[ \t]*(?:#{1,6}|[-*+•‣–]|\(?\d{1,2}[.)])(?:[ \t]+|$)", re.MULTILINE)
EMPHASIS = re.compile(r"(\*\*|__)(?=\S)([^*_\n]{1,200})\1")

PICTURE = r"(?:(?:provided|given|uploaded) )?(?:image|picture|photo|photograph|scene)(?: you (?:provided|shared))?"
AGREEMENT = r"(?:sure|certainly|of course|okay|absolutely)(?: thing)?"
# Sentences that only announce: "Sure!", "Here is a detailed description of the image:", "Description:"
ANNOUNCEMENT = (
    rf"{AGREEMENT}[.!:]+"
    r"|(?:i'd|i’d|i would) be (?:happy|glad) to (?:describe|help)[^.!:\n]{0,60}[.!:]+"
    rf"|(?:here is|here's|here’s) what (?:i|we|you) (?:can )?see(?: in (?:the|this|your) {PICTURE})?[.!:]+"
    rf"|(?:{AGREEMENT}[,!.]* )?(?:here is|here's|here’s|below is|the following is) "
    rf"(?:an?|the|my|your) (?:\w+,? ){{0,4}}(?:description|caption)(?: (?:of|for) (?:the|this|your) {PICTURE})?[.!:]+"
    rf"|(?:the|an?) (?:\w+ ){{0,2}}(?:description|caption)(?: (?:of|for) (?:the|this) {PICTURE})? "
    r"(?:is|reads)(?: as follows)?[.:]+"
    rf"|(?:the|this) {PICTURE} (?:is|can be) described (?:as follows|below)[.:]+"
    r"|(?:detailed |image |long )?(?:description|caption|answer|assistant):"
)
# The beginning of a sentence that goes on: "The image shows", "In this picture, we can see", "This is a photo of"
SHOWS = (
    r"(?:\w+ly )?(?:shows|depicts|displays|features|presents|portrays|captures|showcases|illustrates|contains"
    r"|is an? (?:image|picture|photo|photograph) (?:of|showing))(?: that)?"
)
CAN_SEE = rf"in (?:the|this) {PICTURE},? (?:we|you|one|i) can see(?: that)?"
PREFIX = rf"(?:(?:the|this) {PICTURE} {SHOWS}|this {SHOWS}|{CAN_SEE})"
LEAD = re.compile(rf"\s*(?:(?:{ANNOUNCEMENT})(?:\s+|$)|{PREFIX}(?: the following)?:?\s+(?=\S))*", re.IGNORECASE)

REFUSAL = re.compile(
    r"\b(?:as|i am|i'm|being) an? (?:ai|artificial intelligence|(?:large |text-based )?language model)\b"
    r"|\bai language model\b"
    r"|\b(?:i'm|i am) (?:sorry|afraid)[,;.]? (?:but )?(?:that )?(?:i|there|as|this|the image)\b"
    r"|\bi apologi[sz]e,? (?:but|for)\b"
    r"|\bi(?: am|'m| was) (?:unable|not able) to\b"
    r"|\bi (?:cannot|can't|can not|could not|couldn't|won't) (?:\w+ )?"
    r"(?:see|view|provide|describe|help|assist|identify|access|process|analy[sz]e|answer|generate|display)\b"
    r"|\bi (?:don't|do not) (?:actually )?(?:see (?:an?|any|the) (?:image|picture|photo)"
    r"|have (?:the )?(?:ability|capability|access|enough information))\b"
    r"|\b(?:no (?:image|picture|photo) (?:was|is|has been)|without an? (?:image|picture|photo)) "
    r"(?:provided|attached|uploaded|shared)\b"
    r"|\bplease (?:provide|upload|share|attach) (?:the|an?|your|another) (?:image|picture|photo)\b",
    re.IGNORECASE,
)

# A phrase that is repeated has at most so many words, and with all its repetitions at least so many.
MAX_PHRASE_WORDS = 30
MIN_REPEATED_WORDS = 8
MIN_SENTENCE_WORDS = 3
NUM_REPETITIONS = 4
MAX_WORD_LENGTH = 40  # on average

# What each rule does; `duplicate` needs the other captions: see [`filter_captions`]
RULES = {
    "reasoning": "removes a model's thoughts before its answer (<think>); rejects what is nothing else",
    "structure": "removes ``` fences; rejects JSON",
    "lists": "removes the marks of lists, headings and bold print",
    "announcement": 'removes "The image shows", "Here is a description:" from the beginning; rejects what is nothing '
    "else",
    "cut_off": "drops a last sentence without an end",
    "too_short": "rejects fewer than --min_words words",
    "too_long": "rejects more than --max_words words",
    "refusal": "rejects refusals and talk about being an AI",
    "repetition": f"rejects a sentence that comes {NUM_REPETITIONS} times, or a phrase that does in a row",
    "duplicate": "rejects a caption that more than three images have from the same captioner",
}


def is_sentence(text: str) -> bool:
    """Whether a text ends as a sentence does."""
    return SENTENCE_END.search(text[-50:]) is not None


def strip_reasoning(text: str) -> str:
    """A caption without the thoughts before it, which may lack an end or a beginning, and without an answer's tags."""
    *_, start = 0, *(tag.end() for tag in CLOSING.finditer(text))
    opening = OPENING.search(text, start)
    answer = ANSWER.sub("", text[start : opening and opening.start()])
    return text if answer == text else answer.strip()


def strip_fences(text: str) -> str:
    """A caption without the fences of a code block."""
    return FENCE.sub("", text).strip() if "```" in text else text


def strip_marks(text: str) -> str:
    """A caption without the marks of lists, headings and bold print: a line break ends a sub-caption as it is."""
    return MARK.sub("", EMPHASIS.sub(r"\2", text))


def strip_announcement(text: str) -> str:
    """A caption without what announces it, up to the first words of what is seen: see `ANNOUNCEMENT` and `PREFIX`."""
    rest = text[LEAD.match(text).end() :]
    return text if rest == text.lstrip() else rest[:1].upper() + rest[1:]


def keep_whole_sentences(text: str) -> str:
    """A caption that was cut off, without its last sentence, or line, if that has no end; empty if none has one."""
    stripped = text.rstrip()
    sentences = split_sentences(stripped)
    if is_sentence(stripped) or not sentences:
        return text
    return stripped.removesuffix(sentences[-1]).rstrip() if stripped.endswith(sentences[-1]) else ""


def drop_cut_off_sentence(text: str) -> str:
    """A caption without its last sentence, if that does not end as the one before does."""
    sentences = split_sentences(text)
    if len(sentences) < 2 or not is_sentence(sentences[-2]):
        return text
    return keep_whole_sentences(text) or text


def is_repetitive(text: str) -> bool:
    """
    Whether a sentence, or a phrase in a row, comes `NUM_REPETITIONS` times. Numbers count as the same: a model that
    counts on without end repeats itself.
    """
    sentences = (tuple(normalized_words(sentence)) for sentence in split_sentences(text))
    counts = Counter(sentence for sentence in sentences if len(sentence) >= MIN_SENTENCE_WORDS)
    if max(counts.values(), default=0) >= NUM_REPETITIONS:
        return True
    words = normalized_words(text)
    # a repeated phrase has four words in a row that come nearly as often as itself: most texts have none
    if max(Counter(zip(words, words[1:], words[2:], words[3:])).values(), default=0) < NUM_REPETITIONS - 1:
        return False
    for length in range(1, min(MAX_PHRASE_WORDS, len(words) // 2) + 1):
        runs = groupby(map(eq, words, words[length:]))
        longest = max((sum(1 for _ in run) for is_same, run in runs if is_same), default=0)
        if longest + length >= max(NUM_REPETITIONS * length, MIN_REPEATED_WORDS):
            return True
    return False


def normalized_words(text: str) -> list[str]:
    """The words of a text in lower case, all numbers as one."""
    return ["0" if word.isdecimal() else word for word in WORD.findall(text.lower())]


EDITS = {
    "reasoning": strip_reasoning,
    "structure": strip_fences,
    "lists": strip_marks,
    "announcement": strip_announcement,
    "cut_off": drop_cut_off_sentence,
}


def apply_rules(
    caption: str, rules: Collection[str] = tuple(RULES), min_words: int = 5, max_words: int = 500
) -> tuple[str, str | None, list[str]]:
    """
    Mends a caption, or rejects it.

    Args:
        caption (`str`):
            What the model wrote.
        rules (`Collection[str]`, *optional*):
            The names of the rules that apply, of `RULES`. By default all.
        min_words, max_words (`int`, *optional*, defaults to 5 and 500):
            Of the rules `too_short` and `too_long`. Each Chinese or Japanese character is a word.

    Returns:
        `tuple[str, str | None, list[str]]`: the caption, mended, or as it was where it is rejected; the rule that
        rejects it, None if none does; the rules that changed it.

    Example:

    ```python
    >>> from modeling_lotlip.captioning.rules import apply_rules

    >>> apply_rules("The image shows a red boat on the beach. The sea is calm. In the back")
    ('A red boat on the beach. The sea is calm.', None, ['announcement', 'cut_off'])
    >>> apply_rules("I'm sorry, but I cannot see the image.")
    ("I'm sorry, but I cannot see the image.", 'refusal', [])
    ```"""
    text, changed, before = caption, [], None
    while text != before:
        before = text
        for name, edit in EDITS.items():
            if "too_long" in rules and len(text) > MAX_WORD_LENGTH * max_words:  # before others have to read it
                return caption, "too_long", []
            edited = edit(text) if name in rules else text
            if text.strip() and not edited.strip():
                return caption, name, []
            changed += [name] * (edited != text)
            text = edited
    num_words = len(WORD.findall(text))
    for name, rejects in {
        "too_long": lambda text: num_words > max_words,
        "structure": JSON.search,
        "refusal": lambda text: REFUSAL.search(text.replace("’", "'")),
        "repetition": is_repetitive,
        "too_short": lambda text: num_words < min_words,
    }.items():
        if name in rules and rejects(text):
            return caption, name, []
    return text, None, list(dict.fromkeys(changed))
