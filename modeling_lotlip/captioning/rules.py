# Copyright 2026 The LoTLIP for Hugging Face authors. All rights reserved.
# SPDX-License-Identifier: Apache-2.0
"""
Rules for captions that models have written: edits, which mend a caption, and rejections, which mark it.

The edits are repeated, in the order of `RULES`, until they change nothing; then the first rejection that holds marks
the caption, which stays as it was written. So a caption that went through the rules once is left alone by them.
"""

import json
import re
from collections import Counter
from collections.abc import Callable
from itertools import groupby
from operator import eq
from typing import NamedTuple

from ..sub_captions import split_sentences


# Chinese and Japanese characters are words of their own
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")
SENTENCE_END = re.compile(r"[.!?…。！？][\"'”’»)\]*]*$")

# What models that reason write around their thoughts, and some around their answer
THOUGHTS = r"(?:think(?:ing)?|thoughts?|reason(?:ing)?|analysis)"
OPENING = re.compile(rf"<{THOUGHTS}>|◁think▷", re.IGNORECASE)
CLOSING = re.compile(rf"</{THOUGHTS}>|◁/think▷", re.IGNORECASE)
ANSWER = re.compile(r"</?(?:answer|caption|description|response)>|<\|(?:begin|end)_of_box\|>", re.IGNORECASE)
FENCE = re.compile(r"^[ \t]*```[\w-]*[ \t]*$\n?", re.MULTILINE)
FENCED_JSON = re.compile(r"```\w*\s*([{\[].*?)\s*(?:```|\Z)", re.DOTALL)
CAPTION_NAMES = ("caption", "description", "detailed_caption", "long_caption", "text", "answer", "response")

# What some models write around a prompt that they repeat
ROLE = r"(?:(?:user|human|assistant|question|answer)\s*:|<image>|\[/?inst\])"

LIST_MARK = re.compile(r"[ \t]*(?:[-*+•‣–]|\(?\d{1,2}[.)]|\(?[a-z]\))[ \t]+", re.IGNORECASE)
HEADING_MARK = re.compile(r"[ \t]*#{1,6}[ \t]+")
EMPHASIS = re.compile(r"(\*\*|__)(?=\S)([^*_\n]{1,200})\1")
# What a caption without lists and headings has none of
MARK = re.compile(r"^[ \t]*(?:[-*+•‣–#]|\(?\w{1,2}[.)])|\*\*|__|\d[.)][ \t]", re.MULTILINE)
INLINE_NUMBER = re.compile(r"(?:^|(?<=[.!?:;,]))[ \t]*\(?(\d{1,2})[.)][ \t]+")

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
MAX_WORD_LENGTH = 40  # on average


def is_sentence(text: str) -> bool:
    """Whether a text ends as a sentence does."""
    return SENTENCE_END.search(text[-50:]) is not None


def capitalize(text: str) -> str:
    """A text with a capital letter at its beginning; the others stay."""
    return text[:1].upper() + text[1:]


def strip_reasoning(text: str) -> str:
    """A caption without the thoughts before it, which may lack an end or a beginning, and without an answer's tags."""
    *_, start = 0, *(tag.end() for tag in CLOSING.finditer(text))
    opening = OPENING.search(text, start)
    answer = ANSWER.sub("", text[start : opening and opening.start()])
    return text if answer == text else answer.strip()


def read_structure(text: str) -> str:
    """The caption in a fenced answer or in JSON; empty where JSON is cut off, or does not say which text it is."""
    fenced = FENCED_JSON.search(text)
    bare = fenced[1] if fenced else FENCE.sub("", text).strip() if "```" in text else text
    try:
        return find_caption(json.loads(bare)) if bare.lstrip().startswith(("{", "[")) else bare
    except (json.JSONDecodeError, RecursionError):
        return "" if re.match(r"\s*[\[{]\s*[\"{\[]", bare) else bare


def find_caption(value: object) -> str:
    """The caption in what was JSON, empty if there is none or several texts could be it."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return " ".join(value)
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return ""
    named = {str(name).lower().replace(" ", "_"): part for name, part in value.items()}
    found = [named[name] for name in CAPTION_NAMES if name in named] or [*named.values()]
    return find_caption(found[0]) if len(found) == 1 else ""


def strip_prompt(text: str, prompt: str | None) -> str:
    """A caption without the prompt that it begins with, and without the roles of a conversation around it."""
    words = (prompt or "").split()
    if not words:
        return text
    echo = r"\s+".join(map(re.escape, words)) + (r"\b" if words[-1][-1].isalnum() else "")
    match = re.match(rf"\s*(?:{ROLE}\s*)*(?:{echo}\s*(?:{ROLE}\s*)*)+", text, re.IGNORECASE)
    return text if match is None else text[match.end() :].lstrip(" \t\n:")


def strip_inline_numbers(line: str) -> str:
    """A line without the numbers of a list that runs in it: "1. A boat. 2. A car."."""
    marks = list(INLINE_NUMBER.finditer(line))
    if len(marks) < 2 or [int(mark[1]) for mark in marks] != [*range(1, len(marks) + 1)]:
        return line
    ends = [mark.start() for mark in marks[1:]] + [len(line)]
    items = (capitalize(line[mark.end() : end].strip()) for mark, end in zip(marks, ends))
    return " ".join([line[: marks[0].start()], *items]).strip()


def lists_to_sentences(text: str) -> str:
    """
    A caption with its numbered or bulleted lists as running text, each item a sentence, and without the marks of
    headings and of bold print. A last item stays open if the others do not: it was cut off.
    """
    if MARK.search(text) is None:
        return text
    lines = text.splitlines()
    items = [(number, mark) for number, line in enumerate(lines) if (mark := LIST_MARK.match(line))]
    items = dict(items) if len(items) > 1 else {}
    are_sentences = any(is_sentence(lines[number].rstrip()) for number in items)
    parts = []
    for number, line in enumerate(lines):
        mark = items.get(number) or HEADING_MARK.match(line)
        if mark is None:
            parts.append("\n" + EMPHASIS.sub(r"\2", strip_inline_numbers(line)))
            continue
        line = capitalize(EMPHASIS.sub(r"\2", line[mark.end() :]).strip().rstrip(",;"))
        is_open = number in items and are_sentences and number == len(lines) - 1
        if line and not is_open and not is_sentence(line) and not line.endswith(":"):
            line += "."
        if number not in items:
            parts.append("\n" + line)
            continue
        while parts and not parts[-1].strip():
            parts.pop()
        if parts:  # goes on where the list was announced, or the item before it ended
            parts[-1] = parts[-1].rstrip()
        parts.append(" " + line)
    result = "".join(parts)[1:]
    return result if result != "\n".join(lines) else text


def strip_announcement(text: str) -> str:
    """A caption without what announces it, up to the first words of what is seen: see `ANNOUNCEMENT` and `PREFIX`."""
    rest = text[LEAD.match(text).end() :]
    return text if rest == text.lstrip() else capitalize(rest)


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


def count_words(text: str) -> int:
    """The number of words, where each Chinese or Japanese character is one."""
    return len(WORD.findall(text))


def is_too_long(text: str, most: int) -> bool:
    """Whether a text has more words, or as many characters as that many words never have."""
    return len(text) > MAX_WORD_LENGTH * most or count_words(text) > most


def is_refusal(text: str) -> bool:
    """Whether a model refuses, or speaks of itself."""
    return REFUSAL.search(text.replace("’", "'")) is not None


def is_repetitive(text: str, number: int) -> bool:
    """
    Whether a sentence stands in a text `number` times, or a phrase so many times in a row. Numbers count as the same:
    a model that counts on without end repeats itself.
    """
    sentences = (tuple(normalized_words(sentence)) for sentence in split_sentences(text))
    if any(count >= number for count in Counter(s for s in sentences if len(s) >= MIN_SENTENCE_WORDS).values()):
        return True
    words = normalized_words(text)
    # a repeated phrase has four words in a row that come nearly as often as itself: most texts have none
    if max(Counter(zip(words, words[1:], words[2:], words[3:])).values(), default=0) < number - 1:
        return False
    for length in range(1, min(MAX_PHRASE_WORDS, len(words) // 2) + 1):
        runs = groupby(map(eq, words, words[length:]))
        longest = max((sum(1 for _ in run) for is_same, run in runs if is_same), default=0)
        if longest + length >= max(number * length, MIN_REPEATED_WORDS):
            return True
    return False


def normalized_words(text: str) -> list[str]:
    """The words of a text in lower case, all numbers as one."""
    return ["0" if word.isdecimal() else word for word in WORD.findall(text.lower())]


class Rule(NamedTuple):
    """
    A rule for captions: what it does, with `{}` for its number; its number by default; the edit of a caption, given
    the prompt; and whether a caption is rejected, given the number.
    """

    help: str
    number: int | None = None
    edit: Callable[[str, str | None], str] = lambda text, _: text
    rejects: Callable[[str, int | None], bool] = lambda text, _: False


# In the order in which they apply. `duplicate` needs the other captions: see [`CaptionFilter`].
RULES = {
    "reasoning": Rule(
        "removes a model's thoughts before its answer (<think>); rejects what is nothing else",
        edit=lambda text, _: strip_reasoning(text),
    ),
    "structure": Rule(
        "takes the caption out of JSON and of ``` fences; rejects JSON of which it is not clear",
        edit=lambda text, _: read_structure(text),
    ),
    "too_long": Rule("rejects more than {} words", 500, rejects=is_too_long),
    "prompt_echo": Rule("removes the prompt from the beginning; rejects what is nothing else", edit=strip_prompt),
    "lists": Rule(
        "turns lists into sentences, removes marks of headings", edit=lambda text, _: lists_to_sentences(text)
    ),
    "announcement": Rule(
        'removes "The image shows", "Here is a description:" from the beginning; rejects what is nothing else',
        edit=lambda text, _: strip_announcement(text),
    ),
    "cut_off": Rule("drops a last sentence without an end", edit=lambda text, _: drop_cut_off_sentence(text)),
    "refusal": Rule("rejects refusals and talk about being an AI", rejects=lambda text, _: is_refusal(text)),
    "repetition": Rule(
        "rejects a sentence that comes {} times, or a phrase that does in a row", 4, rejects=is_repetitive
    ),
    "too_short": Rule("rejects fewer than {} words", 5, rejects=lambda text, least: count_words(text) < least),
    "duplicate": Rule("rejects a caption that {} other images have from the same captioner", 3),
}
DEFAULT_RULES = {name: rule.number for name, rule in RULES.items()}


def read_rules(names: list[str], without: list[str]) -> dict[str, int | None]:
    """
    The rules that `--rules` and `--without_rule` name.

    Args:
        names (`list[str]`):
            Names of rules, each alone or with a number (`"too_short=8"`), `"all"`, or `"none"` alone.
        without (`list[str]`):
            Names of rules to leave out.

    Returns:
        `dict[str, int | None]`: the number of each rule, None where it has none, in the order in which they apply.

    Raises:
        `ValueError`: if there is no such rule, or a number is none, or is for a rule that has none.

    Example:

    ```python
    >>> from modeling_lotlip.captioning.rules import read_rules

    >>> read_rules(["refusal", "too_short=8"], [])
    {'refusal': None, 'too_short': 8}
    ```"""
    chosen = dict(DEFAULT_RULES) if "all" in names else {}
    for argument in (name for name in names if names != ["none"] and name != "all"):
        name, has_number, number = argument.partition("=")
        check_name("rules", argument, name)
        chosen[name] = RULES[name].number
        if has_number and (chosen[name] is None or not number.isdecimal() or int(number) == 0):
            expected = "has no number" if chosen[name] is None else "needs a whole number from 1 on"
            raise ValueError(f"`--rules {argument}`: the rule {name} {expected}.")
        if has_number:
            chosen[name] = int(number)
    for name in without:
        check_name("without_rule", name, name)
    return {name: chosen[name] for name in RULES if name in chosen and name not in without}


def check_name(option: str, argument: str, name: str) -> None:
    """Raises a `ValueError` if an option names no rule."""
    if name not in RULES:
        raise ValueError(f"`--{option} {argument}` names no rule: there are {[*RULES]}, and `all`.")


def apply_rules(
    caption: str, prompt: str | None = None, rules: dict[str, int | None] = DEFAULT_RULES
) -> tuple[str, str | None, list[str]]:
    """
    Mends a caption, or rejects it.

    Args:
        caption (`str`):
            What the model wrote.
        prompt (`str`, *optional*):
            What it was asked.
        rules (`dict[str, int | None]`, *optional*):
            The rules that apply with their numbers: see [`read_rules`]. By default all of them.

    Returns:
        `tuple[str, str | None, list[str]]`: the caption, mended, or as it was where it is rejected; the rule that
        rejects it, None if none does; the rules that changed it.

    Example:

    ```python
    >>> from modeling_lotlip.captioning.rules import apply_rules

    >>> apply_rules("The image shows a red boat on the beach. The sea is calm. In the back", "Describe the image.")
    ('A red boat on the beach. The sea is calm.', None, ['announcement', 'cut_off'])
    >>> apply_rules("I'm sorry, but I cannot see the image.")
    ("I'm sorry, but I cannot see the image.", 'refusal', [])
    ```"""
    text, changed, before = caption, [], None
    while text != before:
        before = text
        for name, number in rules.items():
            if name == "too_long" and is_too_long(text, number):
                return caption, name, []  # before the others have to read it
            edited = RULES[name].edit(text, prompt)
            if edited != text:
                changed.append(name)
            if text.strip() and not edited.strip():
                return caption, name, []
            text = edited
    for name, number in rules.items():
        if RULES[name].rejects(text, number):
            return caption, name, []
    return text, None, list(dict.fromkeys(changed))
