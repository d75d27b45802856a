"""Jinja for templates of unknown origin: bounded in time and memory as well as in what they reach.

Jinja's sandbox keeps a template from Python's insides, but not from filling the memory or running
for ever. Here each step of a template is counted and each value that it makes is measured, before
it is made where a few characters of source could make much. Nothing is computed while a template
is compiled.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

#: Characters of the longest template that is compiled; those of known models have up to 20,000.
MAX_SOURCE = 100_000

# Of this thread's own time, so that a busy machine changes nothing.
_SECONDS, _SHORT_SECONDS = 1.5, 0.2
_SECONDS_PER_MESSAGE = 2e-3
_BYTES = 40 << 20  # that a template may make, besides
_BYTES_PER_BYTE = 32  # of the conversation, and
_BYTES_PER_MESSAGE = 4 << 10
_LOOKED_AT = 32  # steps between two looks at the clock
_BITS = 8192  # of a whole number
_COUNT = 100_000  # largest number that a filter or method takes as a count or width
_SLOW = 100_000  # characters of text that filters take which are slow

_SLOW_ONES = frozenset({"wordwrap", "urlize", "striptags", "pprint", "xmlattr"})
_COUNTED = frozenset(
    {"batch", "slice", "truncate", "wordwrap", "round", "center", "ljust", "rjust", "zfill"}
)
_REFUSED = frozenset({"translate", "maketrans", "to_bytes", "from_bytes", "hex"})
_CONTAINERS: tuple[type, ...] = (
    *(list, tuple, set, frozenset, dict),
    *(type({}.keys()), type({}.values()), type({}.items())),
)

# What loops, joined texts and displays such as [a, b] are led through; no template can name them.
_EACH, _JOINED, _DISPLAY = "% each", "% joined", "% display"


class TooMuch(jinja2.TemplateError):
    """The template takes more time or memory than it may."""


class Stopped(Exception):
    """Rendering was cancelled."""


class Work:
    """What one rendering has done and made, and how much it may."""

    def __init__(
        self,
        messages: Iterable[Mapping[str, Any]],
        stop: Callable[[], bool] = lambda: False,
        *,
        short: bool = False,
    ) -> None:
        texts = [str(value) for message in messages for value in message.values()]
        count = len(texts) // 2
        self._stop = stop
        self._steps = 0
        seconds = _SHORT_SECONDS if short else _SECONDS + _SECONDS_PER_MESSAGE * count
        self._end = time.thread_time() + seconds
        size = sum(map(sys.getsizeof, texts))
        self._bytes = _BYTES + _BYTES_PER_BYTE * size + _BYTES_PER_MESSAGE * count
        self._most = self._bytes  # of one value, each part counted as often as it occurs
        #: id → value, its size. Values cannot change, and none of these is freed before the end.
        self._sizes: dict[int, tuple[object, int]] = {}

    def step(self) -> None:
        """Count a step. Raises :class:`TooMuch` or :class:`Stopped`."""
        self._steps += 1
        if self._steps % _LOOKED_AT == 0:
            if self._stop():
                raise Stopped
            if time.thread_time() > self._end:
                raise TooMuch("it takes too long")

    def may_make(self, n_bytes: int) -> None:
        """Raises :class:`TooMuch` if so much cannot be made."""
        if n_bytes > self._bytes:
            raise TooMuch("it takes too much memory")

    def made(self, value: Any) -> Any:
        """``value``, with what is new in it counted. Iterators count as they go."""
        if isinstance(value, str | bytes):
            self._spend(sys.getsizeof(value))
        elif isinstance(value, Iterator) and not isinstance(value, LoopContext):
            return self.each(value)
        else:
            self.size(value)
        return value

    def each(self, values: Iterable[Any]) -> Iterator[Any]:
        """``values``, each a step."""
        for value in values:
            self.step()
            yield value

    def size(self, value: Any) -> int:
        """Bytes of ``value`` written out, roughly: parts that occur twice count twice."""
        if isinstance(value, str | bytes):
            return sys.getsizeof(value)
        if not isinstance(value, _CONTAINERS):
            return 32
        if (known := self._sizes.get(id(value))) is not None:
            return known[1]
        self.step()
        own = sys.getsizeof(value)
        total = own
        parts: Any = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        for part in parts:
            if isinstance(part, str | bytes):
                own += sys.getsizeof(part)
            elif part is value:
                continue
            total += self.size(part)
        if total > self._most:
            raise TooMuch("it takes too much memory")
        self._spend(own)
        self._sizes[id(value)] = value, total
        return total

    def _spend(self, n_bytes: int) -> None:
        self.may_make(n_bytes)
        self._bytes -= n_bytes


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Compiles templates and renders them within bounds.

    Set up as Hugging Face's library sets up Jinja for chat templates, ``{% generation %}``
    included.
    """

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        self.work = Work(())
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _Generation],
            optimized=False,
            finalize=self._finalize,
            cache_size=0,
        )
        self.code_generator_class = _NothingComputed
        # Shadows a static method: macros and blocks join their texts with it.
        self.concat = self._concat  # type: ignore[method-assign]
        del self.globals["lipsum"]
        self.globals["namespace"] = _Names
        self.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "sort_keys": False}
        for name, function in list(self.filters.items()):
            self.filters[name] = self._guarded(name, function)
        self.filters[_EACH] = self._each
        self.filters[_JOINED] = self._joined
        self.filters[_DISPLAY] = self._display

    def render(
        self,
        template: jinja2.Template,
        messages: list[dict[str, Any]],
        stop: Callable[[], bool] = lambda: False,
        *,
        short: bool = False,
        **variables: Any,
    ) -> str:
        """What ``template`` makes of ``messages``; ``stop`` is asked now and then.

        ``short`` is for a look at what a template does: it has less time. Raises what Jinja and
        Python raise, :class:`TooMuch` and :class:`Stopped`.
        """
        self.work = Work(messages, stop, short=short)
        context = template.new_context({"messages": messages, **variables})
        pieces: list[str] = []
        for piece in template.root_render_func(context):
            self.work.step()
            self.work.made(piece)
            pieces.append(piece)
        return "".join(pieces)

    # -------------------------------------------------------------- what compiling makes

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        if len(source) > MAX_SOURCE:
            raise TooMuch(f"it has {len(source)} characters")
        tree: nodes.Template = _Led().visit(super()._parse(source, name, filename))
        tree.set_environment(self)
        return tree

    # -------------------------------------------------------------- what rendering does

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        self.work.step()
        if operator == "%" and isinstance(left, str | bytes):
            self._format(left, right if isinstance(right, tuple) else (right,))
        elif operator == "*":
            for one, other in ((left, right), (right, left)):
                if isinstance(one, str | bytes | list | tuple) and isinstance(other, int):
                    self.work.may_make(self.work.size(one) * max(other, 0))
        elif operator == "+" and isinstance(left, str | bytes | list | tuple):
            self.work.may_make(sys.getsizeof(left) + sys.getsizeof(right))
        if isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * (abs(right) if operator == "**" else 1)
            if bits + right.bit_length() > _BITS:
                raise TooMuch("it computes with numbers that are too large")
        return self.work.made(super().call_binop(context, operator, left, right))

    def call(self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        work = self.work
        work.step()
        method = getattr(__obj, "__wrapped__", __obj)  # str.format comes in a wrapper of Jinja's
        owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
        if isinstance(owner, str | bytes | int | float):
            if name in _REFUSED:
                raise SecurityError(f"{name} is not allowed")
            args = self._checked(name, owner, args, kwargs)
        elif isinstance(__obj, LoopContext) and args:
            args = (work.each(args[0]), *args[1:])
        else:
            for value in (*args, *kwargs.values()):
                work.size(value)
        return work.made(super().call(__context, __obj, *args, **kwargs))

    def _each(self, values: Iterable[Any]) -> Iterator[Any]:
        return self.work.each(values)

    def _joined(self, parts: list[Any]) -> str:
        return self._concat([self._finalize(part) for part in parts])

    def _display(self, value: Any) -> Any:
        return self.work.made(value)

    def _finalize(self, value: Any) -> str:
        """``value`` as the text that is printed."""
        if isinstance(value, str):
            return value
        self.work.size(value)
        text = str(value)
        self.work.made(text)
        return text

    def _concat(self, parts: Iterable[str]) -> str:
        work = self.work
        texts, total = [], 0
        for text in parts:
            work.step()
            total += sys.getsizeof(text)
            work.may_make(total)
            texts.append(text)
        joined = "".join(texts)
        work.made(joined)
        return joined

    def _guarded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The filter ``function`` within bounds. Jinja's marks on it come along."""
        first = 1 if hasattr(function, "jinja_pass_arg") else 0

        @wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            self.work.step()
            value, rest = args[first], args[first + 1 :]
            if name == "join" and not isinstance(value, str):
                value = list(value)
                separator = rest[0] if rest else kwargs.get("d", "")
                size = self.work.size(value) + len(value) * self.work.size(separator)
                self.work.may_make(size)
            elif name == "sum" and not isinstance(
                rest[1] if len(rest) > 1 else kwargs.get("start", 0), int | float
            ):
                raise TooMuch("it adds up things that are not numbers")
            else:
                rest = self._checked(name, value, rest, kwargs)
            return self.work.made(function(*args[:first], value, *rest, **kwargs))

        return guarded

    def _checked(
        self, name: str, value: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, ...]:
        """The arguments of a filter or a text's method that may make much of ``value``.

        Raises :class:`TooMuch` if it would.
        """
        work, given = self.work, (*args, *kwargs.values())
        text = value if isinstance(value, str) else ""
        if name in _COUNTED and any(isinstance(n, int) and abs(n) > _COUNT for n in given):
            raise TooMuch("it asks for too many characters or parts")
        if name in _SLOW_ONES and work.size(value) > _SLOW:
            raise TooMuch("it takes too long")
        if name == "replace" and len(given) > 1:
            times = text.count(str(given[0])) if text else 0
            work.may_make(sys.getsizeof(value) + times * sys.getsizeof(given[1]))
        elif name == "join" and args and not isinstance(args[0], str):
            parts = list(args[0])
            work.may_make(work.size(parts) + len(parts) * work.size(value))
            return (parts, *args[1:])
        elif name == "join" and args:
            work.may_make(len(args[0]) * work.size(value))
        elif name in ("format", "format_map"):
            self._format(value, given)
        elif name == "expandtabs":
            work.may_make(sum(n * text.count("\t") for n in given if isinstance(n, int)))
        elif name == "indent":
            width = given[0] if given else 4
            width = len(width) if isinstance(width, str) else int(width)
            work.may_make((text.count("\n") + 2) * width * 4)
        elif name == "tojson" and given and given[0] is not None:
            if work.size(value) > 256 << 10 or given[0] > 8:
                raise TooMuch("it takes too much memory")
        elif name in ("split", "rsplit", "splitlines"):
            separators = [given[0]] if given and isinstance(given[0], str) else " \t\n\r"
            work.may_make(sum(64 * text.count(mark) for mark in separators if mark))
        elif name == "list" and text:
            work.may_make((8 if text.isascii() else 80) * len(text))
        return args

    def _format(self, form: Any, given: tuple[Any, ...]) -> None:
        """Raises :class:`TooMuch` if ``form`` would make much of what it is given."""
        form = form.decode("latin-1") if isinstance(form, bytes) else str(form)
        fields = form.count("%") + form.count("{")
        widths = [int(number) for number in re.findall(r"[0-9]{1,9}", form)]
        if "*" in form or "{" in form:
            widths += [abs(value) for value in given if isinstance(value, int)]
        if max(widths, default=0) > _COUNT:
            raise TooMuch("it asks for too many characters or parts")
        size = max(map(self.work.size, given), default=0)
        self.work.may_make(len(form) + fields * 4 * (max(widths, default=0) + size))


class _Names(Namespace):
    """A namespace that is not written out: its parts may hold each other."""

    def __repr__(self) -> str:
        return "<namespace>"


class _NothingComputed(CodeGenerator):
    """Leaves all that could be computed while compiling to the rendering, where it is bounded."""

    def _output_child_to_const(
        self, node: nodes.Expr, frame: Frame, finalize: CodeGenerator._FinalizeInfo
    ) -> str:
        if not isinstance(node, nodes.Const | nodes.TemplateData):
            raise nodes.Impossible
        return super()._output_child_to_const(node, frame, finalize)


class _Led(NodeTransformer):
    """Leads loops, ``~`` and displays of lists, tuples and dicts through filters of ours."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _filtered(node.iter, _EACH)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)  # in place
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), _JOINED)

    def visit_ScopedEvalContextModifier(self, node: nodes.Node) -> nodes.Node:
        # What it prints is five times as long, and no chat template wants that.
        raise jinja2.TemplateSyntaxError("it escapes what it prints", node.lineno)

    def visit_List(self, node: nodes.List) -> nodes.Node:
        return self._display(node, node.items)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        return self._display(node, node.items) if node.ctx == "load" else node

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        return self._display(node, [pair.value for pair in node.items])

    def _display(self, node: nodes.Expr, parts: Sequence[nodes.Expr]) -> nodes.Node:
        if all(isinstance(part, nodes.Const) for part in parts):
            return node
        self.generic_visit(node)  # in place
        return _filtered(node, _DISPLAY)


def _filtered(node: Any, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


class _Generation(Extension):
    """``{% generation %} … {% endgeneration %}`` marks what a model is trained to say."""

    tags = frozenset({"generation"})  # type: ignore[assignment]

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)
