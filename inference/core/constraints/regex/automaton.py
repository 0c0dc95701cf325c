"""Expressions as automata without memory: whether a text matches, and whether two can match the same text."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from .characters import CharSet, has, intersection
from .tree import Alt, Cat, Chars, Node, Ref, Rep

# Of an automaton, and pairs of states that are looked at before two are said to overlap.
MAX_STATES, MAX_PAIRS = 4_000, 20_000


class TooLarge(ValueError):
    """The expression is not made into an automaton."""


class Automaton:
    """Thompson's construction. Raises TooLarge when it is built."""

    def __init__(self, node: Node) -> None:
        self._free: list[list[int]] = []
        self._steps: list[list[tuple[CharSet, int]]] = []
        self._first = self._state()
        self._last = self._add(node, self._first)
        self._closed: dict[int, frozenset[int]] = {}

    def matches(self, text: str) -> bool:
        """Whether it matches the whole text. Takes time in proportion to the text and the states."""
        current = self._closure([self._first])
        for character in text:
            current = self._closure(
                target for state in current for of, target in self._steps[state] if has(of, character)
            )
        return self._last in current

    def overlaps(self, other: Automaton) -> bool:
        """Whether some text is matched by both; True as well where that takes too long to find."""
        waiting = deque([(self._first, other._first)])
        seen = {(self._first, other._first)}
        while waiting:
            mine, its = waiting.popleft()
            if mine == self._last and its == other._last:
                return True
            for pair in self._next(mine, other, its):
                if pair not in seen:
                    seen.add(pair)
                    waiting.append(pair)
            if len(seen) > MAX_PAIRS:
                return True
        return False

    def _next(self, mine: int, other: Automaton, its: int) -> Iterable[tuple[int, int]]:
        for target in self._free[mine]:
            yield target, its
        for target in other._free[its]:
            yield mine, target
        for of, target in self._steps[mine]:
            for of_it, target_of_it in other._steps[its]:
                if intersection(of, of_it):
                    yield target, target_of_it

    def _closure(self, states: Iterable[int]) -> set[int]:
        reached: set[int] = set()
        waiting = list(states)
        while waiting:
            state = waiting.pop()
            if state not in reached:
                reached.add(state)
                waiting += self._free[state]
        return reached

    def _state(self) -> int:
        if len(self._free) >= MAX_STATES:
            raise TooLarge("the expression is too large to be compared with others")
        self._free.append([])
        self._steps.append([])
        return len(self._free) - 1

    def _add(self, node: Node, at: int) -> int:
        """Add `node` behind the state `at`; the state behind it."""
        match node:
            case Chars():
                end = self._state()
                self._steps[at].append((node.of, end))
                return end
            case Cat():
                for part in node.parts:
                    at = self._add(part, at)
                return at
            case Alt():
                end = self._state()
                for part in node.parts:
                    begin = self._state()
                    self._free[at].append(begin)
                    self._free[self._add(part, begin)].append(end)
                return end
            case Rep():
                return self._repeated(node, at)
            case Ref():
                raise TooLarge("rules have no automaton")

    def _repeated(self, node: Rep, at: int) -> int:
        for _ in range(node.low):
            at = self._add(node.node, at)
        end = self._state()
        self._free[at].append(end)
        if node.high is None:
            loop = self._state()
            self._free[at].append(loop)
            after = self._add(node.node, loop)
            self._free[after] += [loop, end]
            return end
        for _ in range(node.high - node.low):
            begin = self._state()
            self._free[at].append(begin)
            at = self._add(node.node, begin)
            self._free[at].append(end)
        return end
