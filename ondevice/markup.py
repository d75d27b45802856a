"""How families of models mark their thinking and their answer: data, and what it says of a prompt.

Marks come from the models' own chat templates. Some families write sections (``<think>`` …
``</think>``), others messages with a heading that names a channel.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

Part = Literal["answer", "thinking"]


class Section(NamedTuple):
    """A part of a reply between two marks, at its beginning or after the thinking."""

    opening: str
    closing: str
    part: Part = "thinking"
    then: str = "\n\n"  # what stands between the thinking and the answer
    at_start: bool = True  # False: without thinking before it, it is text
    answer_end: str = ""  # after thinking: the mark after the answer


class Channels(NamedTuple):
    """A reply of messages: a heading, one of ``bodies``, text, and one of ``ends``."""

    begins: tuple[str, ...]  # how such a reply may begin
    bodies: tuple[tuple[str, Part | None], ...]  # None: the heading says what it is
    thinking: tuple[str, ...]  # in headings of what is no answer
    ends: tuple[str, ...]
    prompt: str  # the end of a prompt
    #: In the template, what ends a message, and what begins the answer after a prompt.
    answer: tuple[tuple[str, str, str], ...]


SECTIONS = (
    Section("<think>", "</think>"),  # Qwen, DeepSeek, GLM, Nemotron, MiniMax, Granite, …
    Section("[THINK]", "[/THINK]"),  # Mistral
    Section("<seed:think>", "</seed:think>"),  # Seed-OSS
    Section("<mm:think>", "</mm:think>"),  # MiniMax-M3
    Section("<think:opensource>", "</think:opensource>"),  # Hunyuan 3
    Section("<|START_THINKING|>", "<|END_THINKING|>", then=""),  # Command A
    Section("<|START_RESPONSE|>", "<|END_RESPONSE|>", "answer"),
    Section("<|channel>thought", "<channel|>", then=""),  # Gemma 4
    Section("<|inner_prefix|>", "<|inner_suffix|>", then=""),  # Apertus
    Section("<thought>", "</thought>"),  # EXAONE Deep
    Section("<|begin_of_thought|>", "<|end_of_thought|>"),  # OpenThinker
    Section("<|begin_of_solution|>", "<|end_of_solution|>", "answer"),
    # Kimi
    Section("<|open|>think<|sep|>", "<|close|>think<|sep|>", then="<|open|>response<|sep|>"),
    Section("<|open|>response<|sep|>", "<|close|>response<|sep|>", "answer"),
    Section(  # Apriel, whose prompt begins the thinking
        "Here are my reasoning steps:",
        "[BEGIN FINAL RESPONSE]",
        then="\n",
        answer_end="[END FINAL RESPONSE]",
    ),
    Section("[BEGIN FINAL RESPONSE]", "[END FINAL RESPONSE]", "answer"),
    Section("<response>", "</response>", "answer", at_start=False),  # Granite 3
    Section("<answer>", "</answer>", "answer", at_start=False),  # Hunyuan
)

CHANNELS = (
    Channels(  # gpt-oss; Muse names the addressee in place of a channel
        begins=("<|channel|>", "<|start|>assistant", "to=self<|message|>", "to=user<|message|>"),
        bodies=(("<|message|>", None),),
        thinking=("analysis", "commentary", "to=self"),
        ends=(
            *("<|end|>", "<|return|>", "<|call|>", "<|eom|>", "<|eot|>"),
            *("<|start|>", "<|channel|>"),
        ),
        prompt="<|start|>assistant",
        answer=(
            ("<|channel|>", "<|end|>", "<|channel|>final<|message|>"),
            ("to=self", "<|eom|>", "<|message|>"),
        ),
    ),
    Channels(  # Solar
        begins=("<|begin|>assistant", "<|think|>", "<|content|>"),
        bodies=(("<|think|>", "thinking"), ("<|content|>", "answer")),
        thinking=(),
        ends=("<|end|>", "<|begin|>"),
        prompt="<|begin|>assistant",
        answer=(("<|content|>", "<|end|>", "<|content|>"),),
    ),
)


_MARK = re.compile(r"(<[^<>\s]+>|\[[^\[\]]+\])")  # what may be a single token


def _tokens() -> frozenset[str]:
    sections = [mark for section in SECTIONS for mark in (section.opening, section.closing)]
    channels = [
        mark
        for channel in CHANNELS
        for mark in (*channel.begins, *(body for body, _ in channel.bodies), *channel.ends)
    ]
    return frozenset(token for mark in (*sections, *channels) for token in _MARK.findall(mark))


#: All marks that may be single tokens of a vocabulary.
TOKENS = _tokens()


def open_section(prompt: str) -> Section | None:
    """The section that the end of ``prompt`` has begun."""
    end = prompt.rstrip()
    return next((section for section in SECTIONS if end.endswith(section.opening)), None)


def closed_section(prompt: str) -> Section | None:
    """The thinking that the end of ``prompt`` has ended, as where a model is not to think."""
    end = prompt.rstrip()
    thoughts = (section for section in SECTIONS if section.part == "thinking")
    return next((section for section in thoughts if end.endswith(section.closing)), None)


def open_message(prompt: str) -> tuple[Channels, Part] | None:
    """The message of a reply that ``prompt`` ends in, and what it is."""
    for channel in CHANNELS:
        bodies = ((prompt.rfind(mark), mark, part) for mark, part in channel.bodies)
        at, _, part = max(bodies)
        start = prompt.rfind(channel.prompt)
        if at < 0 or start < 0 or start > at:
            continue
        if any(prompt.find(mark, at) >= 0 for mark in channel.ends):
            continue
        return channel, part or heading_part(channel, prompt[start:at])
    return None


def heading_part(channel: Channels, heading: str) -> Part:
    """What a message with this heading is."""
    return "thinking" if any(name in heading for name in channel.thinking) else "answer"


def answer_opening(prompt: str, template: str) -> str:
    """What must follow ``prompt`` so that the model is in its answer and not in its thinking."""
    section = open_section(prompt)
    if section is not None:
        line = "" if prompt.endswith("\n") or not section.then.startswith("\n") else "\n"
        return f"{line}{section.closing}{section.then}" if section.part == "thinking" else ""
    for channel in CHANNELS:
        if prompt.rstrip().endswith(channel.prompt):
            for named, _, opening in channel.answer:
                if named in template:
                    return opening
    return ""


def thinking_end(thinking: Section | Channels, template: str) -> list[str]:
    """What must follow ``thinking`` so that the answer begins: marks, and text between them.

    On a line of its own where the models of the family write it so.
    """
    if isinstance(thinking, Section):
        line = "\n" if thinking.then.startswith("\n") else ""
        end = f"{line}{thinking.closing}{thinking.then}"
    else:
        known = (each for each in thinking.answer if each[0] in template)
        _, mark, opening = next(known, thinking.answer[0])
        end = f"{mark}{thinking.prompt}{opening}"
    return [part for part in _MARK.split(end) if part]
