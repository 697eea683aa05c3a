"""Finds the classes of connections: one replay for all that the same conditions lead to."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from closeseq.classes.drawing import TextTemplate
from closeseq.classes.evaluation import Columns
from closeseq.classes.forms import DROPPED, NOW, ONGOING, Forms, placed
from closeseq.classes.numbers import Number, Tape
from closeseq.classes.outcome import Outcome
from closeseq.classes.shadows import shadowed
from closeseq.classes.template import Template
from closeseq.classes.tree import WILD_NS, ReplayResult, Tree
from closeseq.connection import Connection
from closeseq.connections.steps import FAR_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from closeseq.classes.drawing import Drawer
    from closeseq.classes.forms import Wording
    from closeseq.classes.slots import Ends
    from closeseq.classes.tree import ConditionChain, Parted
    from closeseq.connections import Connections
    from closeseq.connections.conversation import Conversation
    from closeseq.connections.skeleton import Leaf, Skeleton
    from closeseq.settings import Settings
    from closeseq.verdict.fault import Faults

Found = TypeVar("Found")
Judged = TypeVar("Judged", bound=Connection)
MOST_CONDITIONS = 1 << 19  # kept in all; some 100 bytes each
MOST_FORMS = 1 << 17
MOST_TREES = 1 << 16
MOST_PATHS = 1 << 20
FEW = 32  # connections that are judged one by one: to find their classes takes longer
FEWEST = 4  # connections of a new class: to note its conditions costs as much as judging four
# As FEWEST, once so many more replays were noted in vain than with a gain: then hardly any two are alike.
FEWEST_UNLIKE, MOST_IN_VAIN = 16, 32


class Classified(NamedTuple):
    """Connections and their classes: equal-length columns, in the order of the connections."""

    connection: NDArray[np.int64]  # indices, ascending
    path: NDArray[np.integer[Any]]  # the number of the class; of this call
    outcome: NDArray[np.integer[Any]]  # index into Classes.outcomes
    until_ns: NDArray[np.int64]  # when it may be another one, though no packet comes; FAR_NS for never

    def groups(self) -> Groups:
        """Return the classes, by their smallest members."""
        order = np.argsort(self.path, kind="stable")
        start = np.flatnonzero(np.diff(self.path[order], prepend=np.int32(-1)))
        past = np.append(start[1:], len(order))
        first = order[start]
        by_first = np.argsort(first)
        return Groups(self.connection[order], start[by_first], past[by_first], self.outcome[first[by_first]])


class Groups(Sequence[tuple[NDArray[np.int64], int]]):
    """The classes, each as its connections (int64, ascending) and the number of its outcome.

    In columns, since every connection may be in a class of its own.

    Args:
        member: int64, the connections, class by class, each ascending.
        start: int64, where each class begins in that.
        past: int64, where it ends.
        outcome: the number of each class's outcome.
    """

    def __init__(
        self,
        member: NDArray[np.int64],
        start: NDArray[np.int64],
        past: NDArray[np.int64],
        outcome: NDArray[np.integer[Any]],
    ) -> None:
        self._member, self._start, self._past, self._outcome = member, start, past, outcome

    def __len__(self) -> int:
        return len(self._start)

    @overload
    def __getitem__(self, place: int) -> tuple[NDArray[np.int64], int]: ...
    @overload
    def __getitem__(self, place: slice) -> list[tuple[NDArray[np.int64], int]]: ...
    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        return self._member[self._start[place] : self._past[place]], int(self._outcome[place])


class Classes:
    """Finds the classes of connections, and keeps what it learned.

    Args:
        settings: timers and limits of the replays.
        kept: whether more connections follow: then what is learned is kept, and `Classified.until_ns` is
            known of all. Otherwise it is FAR_NS for all.
        faults: notes the connections at which closeseq itself fails.
        worded: whether whole judgements are needed (`judge`), with their texts.
        drawing: how connections are drawn, if that is what is needed (`drawn`).
        capture: the path of the capture, for what is drawn.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        kept: bool = False,
        faults: Faults | None = None,
        worded: bool = False,
        drawing: Drawer | None = None,
        capture: str = "",
    ) -> None:
        self.outcomes: list[Outcome] = []  # by number
        self.replays = 0  # that were made
        self.unlike = 0  # connections judged one by one because noting failed: a fault in closeseq
        self._settings = settings
        self._kept = kept
        self._faults = faults
        self._worded = worded or drawing is not None
        self._drawing = drawing
        self._modules = () if drawing is None else drawing.modules
        self._capture = capture
        self._templates: dict[int, Template | TextTemplate] = {}  # by path
        self._number: dict[Outcome, int] = {}
        self._moment: dict[Leaf, int] = {}
        self._of_path: list[int] = []  # the outcome of each path
        self._in_vain = 0  # replays noted for fewer connections than was worth while, less all others
        self._begin_anew()

    def find(
        self,
        connections: Connections,
        now_ns: int,
        *,
        among: NDArray[np.int64] | None = None,
        dropped: int = 0,
        ongoing: bool = False,
    ) -> Classified:
        """Return the classes of connections.

        Args:
            connections: all there are.
            now_ns: the moment for which they are judged, since the Unix epoch.
            among: int64, ascending indices of the connections to look at; None for all.
            dropped: packets that the capture itself reports lost.
            ongoing: whether the capture goes on.
        """
        if self._full or len(self._of_path) > MOST_PATHS:
            self._begin_anew()
            self._of_path.clear()
        index = np.arange(len(connections)) if among is None else among
        path = np.full(len(index), -1, np.int32)  # there may be millions
        until_ns = np.full(len(index), FAR_NS) if self._kept else np.broadcast_to(FAR_NS, len(index))
        self._moment = {NOW: now_ns, DROPPED: dropped, ONGOING: int(ongoing)}
        done = 0
        for portion in connections.portions(among):
            part = slice(done, done + len(portion))
            self._find(connections, portion, path[part], until_ns[part])
            done += len(portion)
        if self._kept:
            until_ns = np.where(until_ns < FAR_NS - now_ns, now_ns + until_ns, FAR_NS)
        return Classified(index, path, np.array(self._of_path, np.int32)[path], until_ns)

    def judge(
        self,
        connections: Connections,
        among: NDArray[np.int64],
        made: Callable[[Conversation], Judged],
        now_ns: int,
        *,
        dropped: int = 0,
        ongoing: bool = False,
        soon: bool = True,
    ) -> Iterator[Judged]:
        """Yield connections, judged by their classes; those of rare classes are judged when looked at.

        Args:
            connections: all there are.
            among: int64, ascending indices of those to yield.
            made: makes a connection of its conversation.
            now_ns: the moment for which they are judged, since the Unix epoch.
            dropped: packets that the capture itself reports lost.
            ongoing: whether the capture goes on.
            soon: whether the first of them are waited for.
        """
        if len(among) < FEW and not self._kept:
            yield from map(made, connections.conversations(among))
            return
        self._moment = {NOW: now_ns, DROPPED: dropped, ONGOING: int(ongoing)}
        for portion in connections.portions(among, soon=soon):
            found: dict[int, tuple[Template, NDArray[np.int64]]] = {}  # by the place in the portion
            for skeleton, rows, template, values in self._known(connections, portion):
                assert isinstance(template, Template)
                places = np.searchsorted(portion, skeleton.connection[rows])
                found.update(zip(places.tolist(), ((template, own) for own in values), strict=True))
            for place, conversation in enumerate(connections.conversations(portion)):
                connection = made(conversation)
                if (known := found.pop(place, None)) is not None:
                    template, own = known
                    self._attempt(partial(template.fill, connection, own.tolist()), 1, None)
                yield connection

    def drawn(
        self,
        connections: Connections,
        among: NDArray[np.int64],
        made: Callable[[Conversation], Connection],
        now_ns: int,
        *,
        dropped: int = 0,
        soon: bool = True,
    ) -> Iterator[str]:
        """Yield what the drawing makes of connections; of those of rare classes one by one.

        Args:
            connections: all there are.
            among: int64, ascending indices of those to draw.
            made: makes a connection of its conversation.
            now_ns: the moment for which they are judged, since the Unix epoch.
            dropped: packets that the capture itself reports lost.
            soon: whether the first of them are waited for.
        """
        assert self._drawing is not None
        draw = self._drawing.draw
        if len(among) < FEW and not self._kept:
            yield from map(draw, map(made, connections.conversations(among)))
            return
        self._moment = {NOW: now_ns, DROPPED: dropped, ONGOING: 0}
        for portion in connections.portions(among, soon=soon):
            texts: list[Callable[[], str | None] | None] = [None] * len(portion)
            for skeleton, rows, template, values in self._known(connections, portion):
                assert isinstance(template, TextTemplate)
                places = np.searchsorted(portion, skeleton.connection[rows]).tolist()
                for place, own, ends in zip(places, values, skeleton.ends(rows), strict=True):
                    texts[place] = partial(self._text, template, own, ends)
            alone = [place for place, text in enumerate(texts) if text is None]
            others = map(draw, map(made, connections.conversations(portion[alone])))
            for place, text in enumerate(texts):
                drawn = next(others) if text is None else text()
                texts[place] = None  # a record may be long, and a portion has many
                if drawn is None:
                    drawn = draw(made(connections.conversation(int(portion[place]))))
                yield drawn

    def _text(self, template: TextTemplate, values: NDArray[Any], ends: Ends) -> str | None:
        """Return the text of a connection; None if closeseq itself fails."""
        return self._attempt(lambda: template.text(values.tolist(), ends), 1, None)

    def _known(
        self, connections: Connections, portion: NDArray[np.int64]
    ) -> Iterator[tuple[Skeleton, NDArray[np.int64], Template | TextTemplate, NDArray[np.int64]]]:
        """Yield the connections of a portion that have a template: rows of a skeleton, it, and their values.

        Those that have none yet get one where that is worth while.
        """
        nothing = list[tuple[NDArray[np.int64], Template | TextTemplate, NDArray[np.int64]]]()
        with shadowed(self._modules):
            found = [
                (skeleton, *one)
                for skeleton in connections.skeletons(portion)
                for one in self._attempt(partial(self._filled, skeleton), len(skeleton), nothing)
            ]
        yield from found

    def _filled(
        self, skeleton: Skeleton
    ) -> list[tuple[NDArray[np.int64], Template | TextTemplate, NDArray[np.int64]]]:
        """Return the rows of a skeleton that have a template, with it and their values."""
        if self._full:
            self._begin_anew()
        if self._waits(skeleton):
            return []
        columns, found = self._columns(skeleton), []
        path = self._search(skeleton, columns).path
        for number in np.unique(path[path >= 0]).tolist():
            template, rows = self._templates.get(number), np.flatnonzero(path == number)
            if template is not None:
                found.append((rows, template, template.slots.values(columns, rows)))
        return found

    def _find(
        self,
        connections: Connections,
        index: NDArray[np.int64],
        path: NDArray[np.int32],
        holds_ns: NDArray[np.int64],
    ) -> None:
        """Find the classes of these connections; write their paths, and how long these hold at the least."""
        with shadowed():
            for skeleton in connections.skeletons(index):
                if self._full:
                    self._begin_anew()
                if self._waits(skeleton):
                    continue
                search = partial(self._search, skeleton, self._columns(skeleton))
                result = self._attempt(search, len(skeleton), ReplayResult(len(skeleton)))
                place = np.searchsorted(index, skeleton.connection)
                path[place] = result.path
                if self._kept:
                    holds_ns[place] = result.holds_ns
        alone = np.flatnonzero(path < 0)
        for at, conversation in zip(alone.tolist(), connections.conversations(index[alone]), strict=True):
            path[at] = self._new_path(self._judged(conversation))

    def _begin_anew(self) -> None:
        self._forms = Forms()
        self._trees: dict[bytes, Tree] = {}
        self._templates.clear()
        self._conditions = 0

    @property
    def _full(self) -> bool:
        """Whether what was learned takes so much memory that it must be dropped."""
        return (
            self._conditions > MOST_CONDITIONS
            or len(self._forms) > MOST_FORMS
            or len(self._trees) > MOST_TREES
        )

    def _waits(self, skeleton: Skeleton) -> bool:
        """Whether a skeleton has so few connections so far that each is judged by itself."""
        if self._kept:
            return False
        tree = self._trees.setdefault(skeleton.key, Tree()) if skeleton.shared else Tree()
        return tree.waits(len(skeleton), self._awaited)

    def _columns(self, skeleton: Skeleton) -> Columns:
        """Return the numbers of the connections of a skeleton."""
        return Columns(self._forms if skeleton.shared else Forms(in_order=False), skeleton, self._moment)

    def _attempt(self, step: Callable[[], Found], connections: int, otherwise: Found) -> Found:
        """Do a step for this many connections; if closeseq itself fails, each is judged by itself."""
        try:
            return step()
        except Exception:  # noqa: BLE001 - whatever it is
            self.unlike += connections
            return otherwise

    def _search(self, skeleton: Skeleton, columns: Columns) -> ReplayResult:
        """Find the classes of the connections of a skeleton."""
        tree = self._trees.setdefault(skeleton.key, Tree()) if skeleton.shared else Tree()
        result = ReplayResult(len(skeleton))
        noted: set[int] = set()

        def learn(parted: Parted) -> ConditionChain | None:
            if self._kept or tree.misses(parted) >= self._awaited:
                row = int(parted.rows[0])
                chain = None if row in noted else self._noted(skeleton, row, tree, parted, columns.forms)
                if chain is not None:
                    noted.add(row)
                    return chain
                self.unlike += len(parted.rows)
            result.holds_ns[parted.rows] = WILD_NS
            return None  # each is judged by itself

        tree.follow(columns, result, learn)
        if noted:
            self._weigh(len(noted), int(np.count_nonzero(result.path >= 0)))
        return result

    @property
    def _awaited(self) -> int:
        """How many connections must have come before a replay is noted for them."""
        return FEWEST if self._in_vain < MOST_IN_VAIN else FEWEST_UNLIKE

    def _weigh(self, noted: int, found: int) -> None:
        """Learn from the connections of one skeleton whether to note replays is worth while.

        Args:
            noted: how many replays were noted.
            found: for how many connections these and earlier ones held.
        """
        self._in_vain = max(self._in_vain + (noted if found < FEWEST * noted else -noted), 0)

    def _noted(
        self, skeleton: Skeleton, row: int, tree: Tree, parted: Parted, forms: Forms
    ) -> ConditionChain | None:
        """Add the replay of one connection to the known ones; None if that fails."""
        tape, leaf_form = Tape(forms), forms.leaf

        def wrap(value: int, leaf: Leaf) -> Number:
            return Number(int(value), leaf_form(leaf), 0, tape)

        try:
            conversation = placed(skeleton.conversation(row, wrap), tape.wording, skeleton.reasons)
            connection = self._connection(conversation, wrap, contained=False)
            outcome = Outcome.of(connection)
            template = self._template(connection, tape.wording)
        except Exception:  # noqa: BLE001 - noting failed, or judging does; judging it by itself shows which
            return None
        if not tree.fits(parted, tape.conditions):
            return None
        path = self._new_path(outcome)
        if template is not None:
            self._templates[path] = template
        chain = tree.grow(parted, tape.conditions, path)
        self._conditions += len(chain.conditions)
        return chain

    def _template(self, connection: Connection, wording: Wording) -> Template | TextTemplate | None:
        if self._drawing is not None:
            return TextTemplate(connection, wording, self._drawing)
        return Template(connection, wording) if self._worded else None

    def _judged(self, conversation: Conversation) -> Outcome:
        """Judge one connection by itself."""
        connection = self._connection(conversation, lambda value, _: value)
        try:
            return Outcome.of(connection)
        except Exception as fault:  # noqa: BLE001 - a fault in closeseq, whatever it is
            return Outcome.of(connection.unjudged(fault))

    def _connection(
        self, conversation: Conversation, wrap: Callable[[int, Leaf], Any], *, contained: bool = True
    ) -> Connection:
        """Return a connection to be judged; `wrap` returns what stands for a number."""
        self.replays += 1
        moment = self._moment
        return Connection(
            conversation,
            self._settings,
            wrap(moment[NOW], NOW),
            capture=self._capture,
            dropped=wrap(moment[DROPPED], DROPPED),
            ongoing=wrap(moment[ONGOING], ONGOING),
            contained=contained,
            worded=self._worded,
            faults=self._faults,
        )

    def _new_path(self, outcome: Outcome) -> int:
        number = self._number.setdefault(outcome, len(self.outcomes))
        if number == len(self.outcomes):
            self.outcomes.append(outcome)
        self._of_path.append(number)
        return len(self._of_path) - 1
