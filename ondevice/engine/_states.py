"""What has been computed of conversations: a tree of token prefixes, in RAM and on the disk.

A node holds the state of some tokens, which come after those of its parents; conversations that
begin alike share nodes. What is on the disk is in the page cache as well while there is room for
it, so that a change of conversation costs a copy, and on a small machine one large read.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ondevice.disk import states as kept
from ondevice.engine._state_files import Head, StateFolder, packed
from ondevice.messages import Keep, StateKey


@dataclass(eq=False)
class Node:
    """Tokens from ``start`` to ``end`` of a conversation, and what was computed of them."""

    name: str
    parent: Node | None
    tokens: tuple[int, ...]
    state: bytes | bytearray | None = None  # in RAM
    folders: list[StateFolder] = field(default_factory=list)  # on the disk, one for each key

    @property
    def start(self) -> int:
        return self.parent.end if self.parent else 0

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)

    @property
    def all_tokens(self) -> list[int]:
        """From the first one to the last of these."""
        return [token for node in self.path() for token in node.tokens]

    def path(self) -> list[Node]:
        """From the first tokens to these."""
        nodes: list[Node] = []
        node: Node | None = self
        while node is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]


class States:
    """The nodes of one loaded model.

    What is only in RAM is so while ``may_hold`` agrees to the bytes that there are and those that
    come.
    """

    def __init__(self, may_hold: Callable[[int, int], bool]) -> None:
        self._root = b""
        self._may_hold = may_hold
        self._nodes: dict[str, Node] = {}
        self._children: dict[Node | None, list[Node]] = {None: []}
        self._folders: dict[StateKey, StateFolder] = {}
        self._held: list[Node] = []  # only in RAM, what was used longest ago first
        self.keep: Keep | None = None
        self.problem = ""  # why nothing can be kept, until somebody has told the user
        self._written = 0  # bytes, not told yet
        self._has_failed = False

    @property
    def is_kept(self) -> bool:
        """Whether the present conversation is kept on the disk."""
        return self.keep is not None

    def identify(self, identity: bytes) -> bool:
        """Begin anew if ``identity``, of all that states depend on but tokens, is another one."""
        root = hashlib.blake2b(identity, digest_size=16).digest()
        changed, self._root = root != self._root, root
        if changed:
            self._nodes.clear()
            self._children = {None: []}
            self._folders.clear()
            self._held.clear()
        return changed

    def open(self, keep: Keep | None) -> None:
        """Begin with a conversation, which may be the one before: read what is new of it."""
        self.keep = keep
        if keep is None:
            return
        for key in (keep.shared, keep.own):
            folder = self._folders.get(key)
            if folder is None:
                folder = self._folders[key] = StateFolder(Path(keep.folder), key)
            self._read_heads(folder)

    def find(self, tokens: Sequence[int], *, within: bool) -> tuple[Node | None, int]:
        """The node up to which most of ``tokens`` are there, and how many these are.

        ``within``: the last node need not be all there.
        """
        best: tuple[Node | None, int] = None, 0
        reached: list[Node | None] = [None]
        while reached:
            parent = reached.pop()
            at = parent.end if parent else 0
            for node in self._children.get(parent, ()):
                if not self._has(node):
                    continue
                alike = common_prefix(node.tokens, tokens[at : at + len(node.tokens)])
                if alike == len(node.tokens):
                    reached.append(node)
                elif not within:
                    continue
                if at + alike > best[1]:
                    best = node, at + alike
        return best

    def load(self, nodes: Iterable[Node]) -> Iterable[tuple[tuple[int, ...], bytes | bytearray]]:
        """Tokens and state of each of ``nodes``, up to one that is not there any more."""
        room = bytearray()  # that is not new each time: new memory takes longer than the copying
        for node in nodes:
            state = node.state
            if node in self._held:
                self._held.remove(node)
                self._held.append(node)
            if state is None and (folder := self._folder(node)) is not None:
                state = folder.read(node.name, room)
            if state is None:
                return
            yield node.tokens, state

    def has_room(self, n_bytes: int) -> bool:
        """Whether so many bytes more may be held in RAM, beside all that is."""
        return self._may_hold(self._held_bytes, n_bytes)

    def make_room(self, n_bytes: int, parent: Node | None) -> bool:
        """Give up what was used longest ago for so many bytes that come after ``parent``.

        False: there is no such room.
        """
        needed = parent.path() if parent else []
        while not self.has_room(n_bytes):
            parents = [node.parent for node in self._held]
            free = (node for node in self._held if node not in parents and node not in needed)
            if (node := next(free, None)) is None:
                return False
            self._let_go(node)
        return True

    def hold(
        self, parent: Node | None, tokens: Sequence[int], state: bytes | bytearray
    ) -> Node | None:
        """Have the state of ``tokens`` in RAM; None: there is no room."""
        if not self.make_room(len(state), parent):
            return None
        node = self._node(parent, tokens)
        node.state = state
        if node not in self._held:
            self._held.append(node)
        return node

    def write(
        self, parent: Node | None, tokens: Sequence[int], state: bytes | bytearray, *, shared: bool
    ) -> Node | None:
        """Have the state of ``tokens`` on the disk; None: it is not kept.

        What is kept already is not written again. If the disk takes no more, nothing is kept until
        :meth:`open` asks anew.
        """
        node = self._node(parent, tokens)
        if self._folder(node) is not None:
            return node
        if self.keep is None:
            return None
        folder = self._folders[self.keep.shared if shared else self.keep.own]
        head = Head(node.name, parent.name if parent else "", node.tokens)
        try:
            self._written += folder.write(head, state)
        except OSError as error:
            if error.errno != errno.ENOENT and not self._has_failed:  # else it was forgotten
                self.problem = error.strerror or str(error)
                self._has_failed = True
            self.keep = None
            return None
        if folder not in node.folders:
            node.folders.append(folder)
        if node in self._held:
            self._let_go(node)
        return node

    def longest(self) -> Node | None:
        """The node at the end of the most tokens of the present conversation that are kept."""
        own = self._folders.get(self.keep.own) if self.keep else None
        ends = [node for node in self._nodes.values() if own in node.folders]
        return max(ends, key=lambda node: node.end, default=None)

    def tidy(self) -> None:
        """Keep no more on the disk than there may be."""
        if self.keep is not None and self._written:
            folder = Path(self.keep.folder)
            kept.wrote(folder, self._written)
            kept.shrink(folder, self.keep.most_bytes)
            self._written = 0

    def _let_go(self, node: Node) -> None:
        node.state = None
        self._held.remove(node)
        gone: Node | None = node
        while gone and not (gone.state or gone.folders or self._children.get(gone)):
            self._children.pop(gone, None)
            self._children[gone.parent].remove(gone)
            del self._nodes[gone.name]
            gone = gone.parent

    @property
    def _held_bytes(self) -> int:
        return sum(len(node.state or b"") for node in self._held)

    def _read_heads(self, folder: StateFolder) -> None:
        waiting = list(folder.new_heads())
        entered = True
        while waiting and entered:  # parents first; without its parents, a node is of no use
            entered = False
            for head in list(waiting):
                parent = self._nodes.get(head.parent)
                if head.parent and parent is None:
                    continue
                waiting.remove(head)
                if self._name(parent, head.tokens) == head.name:  # else it is of another model
                    self._node(parent, head.tokens).folders.append(folder)
                    entered = True

    def _node(self, parent: Node | None, tokens: Sequence[int]) -> Node:
        name = self._name(parent, tokens)
        if name not in self._nodes:
            self._nodes[name] = node = Node(name, parent, tuple(tokens))
            self._children.setdefault(parent, []).append(node)
        return self._nodes[name]

    def _has(self, node: Node) -> bool:
        """Whether its state is still there, and the present conversation may use it."""
        return node.state is not None or self._folder(node) is not None

    def _folder(self, node: Node) -> StateFolder | None:
        """Where the present conversation has it on the disk."""
        if self.keep is None:
            return None
        keys = self.keep.own, self.keep.shared
        return next((f for f in node.folders if f.key in keys and f.has(node.name)), None)

    def _name(self, parent: Node | None, tokens: Sequence[int]) -> str:
        before = bytes.fromhex(parent.name) if parent else self._root
        return hashlib.blake2b(before + packed(tokens), digest_size=16).hexdigest()


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens ``a`` and ``b`` begin with alike."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))
