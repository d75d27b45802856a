"""What reads languages, with Pygments. The app starts without."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

from pygments.lexer import ExtendedRegexLexer, LexerContext, RegexLexer
from pygments.lexers import find_lexer_class, get_all_lexers
from pygments.token import Token, _TokenType

_STYLES = {
    Token.Comment: "code-comment",
    Token.Comment.Preproc: "code-keyword",
    Token.Keyword: "code-keyword",
    Token.Keyword.Constant: "code-number",
    Token.Operator.Word: "code-keyword",
    Token.Name.Builtin: "code-builtin",
    Token.Name.Class: "code-name",
    Token.Name.Decorator: "code-builtin",
    Token.Name.Function: "code-name",
    Token.Name.Tag: "code-keyword",
    Token.Name.Attribute: "code-name",
    Token.Name.Variable: "code-name",
    Token.Literal.Number: "code-number",
    Token.Literal.String: "code-string",
    Token.Generic.Deleted: "code-deleted",
    Token.Generic.Inserted: "code-string",
    Token.Generic.Heading: "code-name",
    Token.Generic.Prompt: "code-comment",
}


class CodeReader(NamedTuple):
    """Gives the parts of a text: the place, the style (empty: none) and the text of each."""

    lexer: Any
    resumes: bool
    """It can begin in the middle, where its state is known; else each line is alone."""

    def read(self, text: str) -> Iterator[tuple[int, str, str]]:
        for place, kind, value in self.lexer.get_tokens_unprocessed(text):
            yield place, _style(kind), value

    def read_on(self, context: LexerContext) -> Iterator[tuple[int, str, str]]:
        """From where the context stands, whose ``stack`` is the lexer's state."""
        for place, kind, value in self.lexer.get_tokens_unprocessed(context=context):
            yield place, _style(kind), value


def reader(language: str) -> CodeReader | None:
    """For a language by one of its names in lower case; None: there is none."""
    kind = find_lexer_class(_names().get(language, "Text only"))
    if kind is None:
        return None
    if issubclass(kind, RegexLexer) and not issubclass(kind, ExtendedRegexLexer):
        resuming = type(kind.__name__, (ExtendedRegexLexer, kind), {})
        return CodeReader(resuming(), True)
    return CodeReader(kind(), False)


@cache
def _style(kind: _TokenType) -> str:
    while kind not in _STYLES and kind.parent is not None:
        kind = kind.parent
    return _STYLES.get(kind, "")


@cache
def _names() -> dict[str, str]:
    """Of the lexers by alias: asking for one that is not there would look through packages."""
    lexers = [(name, aliases) for name, aliases, *_ in get_all_lexers(plugins=False)]
    return {alias.lower(): name for name, aliases in lexers for alias in aliases}
