"""A model's answer, drawn as Markdown; it can neither drive the terminal nor open what it likes."""

from __future__ import annotations

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markdown_it.utils import EnvType
from textual.content import Content
from textual.visual import Visual
from textual.widgets import Markdown
from textual.widgets._markdown import MarkdownParagraph  # not among those it exports
from textual.widgets.markdown import MarkdownBlock, MarkdownFence

from ondevice.terminal import printable
from tui.widgets.placed_once import PlacedOnce

_SPARE = 2  # lines that a paragraph takes beyond those it needs, while it grows
_MAY_OPEN = ("http://", "https://", "mailto:")


class _Parser(MarkdownIt):
    """The Markdown of GitHub."""

    def __init__(self) -> None:
        super().__init__("gfm-like")

    def normalizeLinkText(self, link: str) -> str:
        # Percent-decoding for display could bring control characters back.
        return printable(super().normalizeLinkText(link))


class _LinearParser(_Parser):
    """For a screen reader a table is better line by line, as it was written, than drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.disable(["table", "hr"])

    def parse(self, src: str, env: EnvType | None = None) -> list[Token]:
        tokens = super().parse(src, env)
        for token in tokens:
            for child in token.children or ():
                if child.type == "softbreak":
                    child.type = "hardbreak"
        return tokens


class _Fence(MarkdownFence):
    """A code block. Without a language it stays plain: guessing one loads every lexer there is."""

    @classmethod
    def highlight(cls, code: str, language: str, ansi: bool = False, dark: bool = False) -> Content:
        name, *_ = [*language.split(), "text"]
        return super().highlight(code, name, ansi, dark)


class _Paragraph(PlacedOnce, MarkdownParagraph):
    """A paragraph that grows, by some lines at a time.

    Only for another line is the screen arranged anew, and that costs the most of what it takes to
    show a piece of a reply.
    """

    def set_content(self, content: Content) -> None:
        self._content = content
        size = self.content_size
        lines = self._height(content, size.width) if size.width else 0
        if 0 < lines <= size.height:
            self.update(content, layout=False)
        else:
            if lines:
                self.styles.min_height = lines + _SPARE
            self.update(content)

    def settle(self) -> None:
        """Keep no more lines than it has."""
        self.styles.min_height = None

    def _height(self, visual: Visual, width: int) -> int:
        return visual.get_height(self.styles, width)  # type: ignore[arg-type]  # as Textual does


_OURS: dict[type[MarkdownBlock], type[MarkdownBlock]] = {
    MarkdownFence: _Fence,
    MarkdownParagraph: _Paragraph,
}


class ReplyText(PlacedOnce, Markdown):
    """A whole answer, or one that is still being written."""

    def __init__(self, text: str = "") -> None:
        super().__init__(printable(text), parser_factory=self._parser, open_links=False)
        self._written = False

    def _parser(self) -> MarkdownIt:
        return _LinearParser() if self.app.has_class("-linear") else _Parser()

    def get_block_class(self, block_name: str) -> type[MarkdownBlock]:
        block = super().get_block_class(block_name)
        return _OURS.get(block, block)

    async def write(self, text: str) -> None:
        """Append what has come; done when it is drawn, which takes longer the longer a block is."""
        self._written = True
        last = self.children[-1] if self.children else None
        with self.app.batch_update():  # or the lines that are given back would be seen for a moment
            await self.append(printable(text))
            if isinstance(last, _Paragraph) and last is not self.children[-1]:
                last.settle()

    async def finish(self) -> None:
        """Draw the whole once more: what was cut in two on its way, such as a code fence, mends."""
        if self._written:
            self._written = False
            await self.update(self.source)

    def on_markdown_link_clicked(self, event: Markdown.LinkClicked) -> None:
        event.stop()
        if event.href.startswith(_MAY_OPEN):
            self.app.open_url(event.href)
