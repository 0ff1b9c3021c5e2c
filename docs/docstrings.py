"""
Griffe extension for the pages of the API: docstrings in the style of transformers become Markdown.

It reads source, and runs none of it: what `auto_docstring` adds to a docstring when a module is imported is added
here, from the same tables of transformers.
"""

import ast
import re
import textwrap
from collections.abc import Iterator

import griffe
from transformers.utils.auto_docstring import ImageProcessorArgs, ModelArgs, ModelOutputArgs, ProcessorArgs


# Descriptions of arguments and of fields that no docstring needs to repeat
COMMON = {**vars(ProcessorArgs), **vars(ImageProcessorArgs), **vars(ModelOutputArgs), **vars(ModelArgs)}
# Where the words of transformers do not fit the image processors
COMMON |= {
    "size": {"type": "dict[str, int]", "description": "What the shortest edge is resized to, in pixels."},
    "crop_size": {"type": "dict[str, int]", "description": "Height and width of the crop, in pixels."},
    "image_mean": {"type": "list[float]", "description": "Mean of each channel in normalization: 0.5 each."},
    "image_std": {"type": "list[float]", "description": "Standard deviation of each channel: 0.5 each."},
    "resample": {"type": "PILImageResampling", "description": "The filter of resizing."},
}
# What stands in them for the classes of a model
CLASSES = {"{image_processor_class}": "LotlipImageProcessor", "{processor_class}": "LotlipProcessor"}

# `name (type): text`, or the text in the lines below
ENTRY = re.compile(r"(\*{0,2}\w+(?:, \w+)*)(?: \((.*?)\))?:(?: (.+))?")
# Entries at the head of a docstring of `auto_docstring`, and each of them
ENTRIES = re.compile(r"(?:\w+ \(.*\):\n(?: {4}.*\n|\n(?= {4}))+)+")
DESCRIBED = re.compile(r"^(\w+) \(.*\):\n(?: {4}.*\n|\n(?= {4}))+", re.MULTILINE)
# A section of arguments at the head of a docstring of `auto_docstring`, which takes them with and without a title
OWN_ARGS = re.compile(r"\AArgs:\n((?: {4}.*\n|\n(?= {4}))+)")
SECTION = re.compile(r"^(Args|Parameters|Attributes|Returns|Yields|Raises):\n((?:(?: {4}.*)?\n)+)", re.MULTILINE)
TITLES = {"Args": "Arguments", "Parameters": "Arguments", "Attributes": "Fields"}
REFERENCE = re.compile(r"\[`~?([\w.]+)`\](?![(\[])")


def walk(module: griffe.Object) -> Iterator[griffe.Object]:
    """Everything that is defined in a module."""
    for member in module.members.values():
        if not member.is_alias:
            yield member
            yield from walk(member)


def auto_docstring_intro(obj: griffe.Object) -> str | None:
    """The text that `auto_docstring` is given for an object, or `None` where it does not decorate it."""
    for decorator in getattr(obj, "decorators", ()):
        if decorator.callable_path.endswith("auto_docstring"):
            arguments = getattr(decorator.value, "arguments", ())
            texts = [ast.literal_eval(str(item.value)) for item in arguments if item.name == "custom_intro"]
            return textwrap.dedent("".join(texts)).strip()
    return None


def describe(name: str, annotation: object, default: object) -> str:
    """An argument that the docstring leaves to transformers, or nothing where it has no words for it either."""
    if not isinstance(COMMON.get(name), dict):
        return ""
    shape = COMMON[name].get("shape")
    if annotation is None:  # a class attribute
        annotation = "bool" if str(default) in ("True", "False") else COMMON[name].get("type")
    kinds = [f"`torch.Tensor` {shape}" if isinstance(shape, str) else f"`{annotation}`" if annotation else ""]
    kinds += ["*optional*" if default is not None else ""]
    kinds += [f"defaults to `{default}`" if str(default) != "None" else ""]
    text = textwrap.dedent(COMMON[name]["description"]).strip().split("\n\n[What are")[0]
    for placeholder, class_name in CLASSES.items():
        text = text.replace(f"{placeholder}.__call__", class_name).replace(placeholder, class_name)
    return f"{name} ({', '.join(filter(None, kinds))}):\n{textwrap.indent(text, '    ')}\n"


def complete(obj: griffe.Object, intro: str, text: str) -> str:
    """What `auto_docstring` makes of a docstring: all arguments in their order, behind the introduction."""
    arguments = {item.name: (item.annotation, item.default) for item in obj.parameters}
    if obj.is_class:
        members = {**obj.inherited_members, **obj.members}.values()
        arguments |= {item.name: (item.annotation, item.value) for item in members if item.is_attribute}
    if text.startswith("Args:\n"):
        text = OWN_ARGS.sub(lambda section: textwrap.dedent(section[1]), text)
    entries = ENTRIES.match(text)
    described = {entry[1]: entry[0] for entry in DESCRIBED.finditer(entries[0] if entries else "")}
    described = "".join(described.get(name) or describe(name, *argument) for name, argument in arguments.items())
    title = "Attributes" if "dataclass" in obj.labels else "Args"
    section = f"{title}:\n{textwrap.indent(described, '    ')}\n" if described else ""
    return f"{intro}\n\n{section}{text[entries.end() :] if entries else text}"


def to_markdown(section: re.Match) -> str:
    """A section of a docstring: arguments as a list of definitions, the others as they are under their title."""
    name, block = section[1], textwrap.dedent(section[2]).strip()
    if name in TITLES:  # a definition begins with a colon and three spaces
        lines, mark = [], ""
        for line in block.splitlines():
            entry = ENTRY.fullmatch(line)
            if entry:
                kind = f" ({entry[2]})" if entry[2] else ""
                lines += ["", f"`{entry[1]}`{kind}"]
                line, mark = entry[3] or "", ":   "
            if line:
                lines.append(f"{mark}{line.strip()}" if mark else line)
                mark = ""
            elif not mark:
                lines.append("")
        block = "\n".join(lines)
    elif name == "Raises":
        block = re.sub(r"\n(?=`\w+`:)", "\n\n", block)
    return f"\n**{TITLES.get(name, name)}**\n\n{block}\n\n"


class TransformersDocstrings(griffe.Extension):
    """Completes the docstrings of a package and writes them as Markdown."""

    def on_package(self, *, pkg: griffe.Module, **kwargs) -> None:
        """Rewrites the docstrings once griffe has loaded the package."""
        objects = list(walk(pkg))
        paths = {obj.path.removeprefix(f"{obj.module.path}."): obj.path for obj in objects if not obj.is_module}

        def link(reference: re.Match) -> str:
            name = reference[1]
            return f"[`{name}`][{paths[name]}]" if name in paths else f"`{name}`"

        for obj in objects:
            intro = auto_docstring_intro(obj)
            if obj.docstring is None and intro is None:
                continue
            text = f"{obj.docstring.value}\n" if obj.docstring else ""
            if intro is not None:
                text = complete(obj, intro, text)
            text = SECTION.sub(to_markdown, text)
            text = re.sub(r"^(Examples?):$", r"**\1**", text, flags=re.MULTILINE)
            text = text.replace("```python\n>>>", "```pycon\n>>>").replace("  # doctest: +SKIP", "")
            obj.docstring = griffe.Docstring(REFERENCE.sub(link, text), parent=obj)
