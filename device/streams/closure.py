"""`Closures`: which packets must be decoded for a picture, of one stream, without any decoder.

The rules:

1. Packets are fed in decode order, each at most once: what lies before the last is past.
2. A picture needs what its headers say it reads: the last writers of those reference slots.
   Where they do not say, it needs every reference picture since the entry. (Slots and "every"
   are one case: without masks a picture reads all slots, and a reference writes them all.)
3. A clean entry needs nothing. Nor does an open entry, but the leading pictures that follow it
   need what came before it; the others need neither that nor leading pictures.
4. What needs a picture that will never be decoded is unreachable: a picture that was passed
   over, lost, given up at the bound, or that the decoder failed on.
5. The packets of the current group and of the group before it are held, up to a bound. Beyond
   it, in this order: the group before is given up; then pictures that nobody needs; then the
   whole group, and nothing is reachable until the next entry.
6. A stream that cannot be gated is decoded whole: every picture needs all before it, entries
   mean nothing, and after a gap or at the bound decoding just goes on, as any player's does.

Laws: what a closure names and what was decoded before is all that its target needs (decoding it
is exact); nothing in it can be left out; whoever decodes every packet as it comes is refused
nothing; what is held stays within the bound.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from triparty.device.streams.packets import Entry, Packet, Picture, PictureType
from triparty.device.streams.reachability import Bound, Closure, Counters, Unreachable
from triparty.device.streams.references import ALL_SLOTS, References, Writer

LONG_MASK = 1024  # bits
_WHOLE = Picture(type=PictureType.P, reference=True)


@dataclass(slots=True)
class _Held:
    """A packet that may still be decoded.

    Attributes:
        packet: itself.
        cost: of decoding it alone.
        total: of decoding its closure.
        closure: the held packets that it takes, itself too, as a mask by number.
        before: at an entry, the packets that decoding must have been through, or go through,
            for it to continue instead of starting anew; a mask by number.
        severed: at an entry, that it cannot continue.
    """

    packet: Packet
    cost: float
    total: float
    closure: int
    before: int = 0
    severed: bool = False


class Closures:
    """The packets of one stream that may still be decoded, and what each of them takes.

    Args:
        bound: on what is held.
    """

    def __init__(self, bound: Bound | None = None) -> None:
        """Knows no packet yet."""
        self.counters = Counters()
        self._bound = bound or Bound()
        self._held: dict[int, _Held] = {}
        self._dead: dict[int, Unreachable] = {}
        self._held_bytes = 0
        self._base = 0  # the number that the lowest bit of masks stands for
        self._newest = -1
        self._position = -1
        self._entry = -1
        self._waiting: Unreachable | None = Unreachable.NO_ENTRY
        self._whole = False
        self._references = References()
        self._leading_references: References | None = None  # after an open entry

    @property
    def held_bytes(self) -> int:
        """Compressed bytes of the packets that are held."""
        return self._held_bytes

    @property
    def held_packets(self) -> int:
        """How many packets are held."""
        return len(self._held)

    @property
    def waiting(self) -> Unreachable | None:
        """Why nothing that arrives now can be decoded until the next entry; None if it can."""
        return self._waiting

    def add(self, packet: Packet, cost: float = 0.0) -> None:
        """Takes in the next packet; a number that is left out is a gap.

        Args:
            packet: numbered above all before it.
            cost: of decoding it alone, in CPU ms.
        """
        number = packet.number
        if number != self._newest + 1 and self._newest >= 0:
            self.gap()
        self._newest = number
        self.counters.arrived += 1
        if number - self._base >= LONG_MASK:
            self._rebase()
        picture = _WHOLE if self._whole else packet.picture
        if picture.entry:
            self._enter(packet, cost)
        elif self._waiting is None:
            self._continue(packet, picture, cost)
        else:
            self._bury(number, self._waiting)
            self.counters.unreachable += 1
        if self._held_bytes > self._bound.size or len(self._held) > self._bound.packets:
            self._overflow()

    def outgrown_by(self, packet: Packet) -> bool:
        """Whether taking in the next packet would give up the group that it belongs to.

        Args:
            packet: the next one; it is taken to be within reach.
        """
        if self._whole or self._waiting is not None or packet.picture.entry:
            return False
        bound = self._bound
        size = self._held_bytes + packet.size
        if len(self._held) < bound.packets and size <= bound.size:
            return False
        needed = [
            held.packet.size
            for number, held in self._held.items()
            if number >= self._entry and _is_needed(held.packet.picture)
        ]
        return len(needed) >= bound.packets or sum(needed) + packet.size > bound.size

    def closure(self, number: int) -> Closure | Unreachable:
        """What must be decoded for a picture, or why it cannot be had.

        Args:
            number: of its packet.
        """
        held = self._held.get(number)
        if held is None:
            return self._why_not(number)
        if not (held.packet.picture.shown or self._whole):
            return Unreachable.HIDDEN
        packets = tuple(self._held[one].packet for one in self._numbers(held.closure))
        return Closure(packets, self._restarts(held.closure))

    def beginning(self, number: int, cost: float) -> tuple[Closure, float] | None:
        """As much of the references of a picture as can be decoded for a cost.

        Decoding it makes the picture cheaper by as much.

        Args:
            number: of the picture.
            cost: CPU ms that may be spent, by the costs that came with `add`.

        Returns:
            The beginning of the closure and what it costs; None if not even one packet fits.
        """
        whole = self.closure(number)
        if isinstance(whole, Unreachable):
            return None
        spent, packets = 0.0, list[Packet]()
        for packet in whole.packets[:-1]:
            own = self._held[packet.number].cost
            if spent + own > cost:
                break
            spent += own
            packets.append(packet)
        if not packets:
            return None
        taken = self._mask(packet.number for packet in packets)
        return Closure(tuple(packets), self._restarts(taken), part=True), spent

    def backlog(self) -> Closure | None:
        """All that is held and not decoded, of a stream that is decoded whole."""
        if not (self._whole and self._held):
            return None
        held = list(self._held.values())
        return Closure(tuple(one.packet for one in held), held[0].severed)

    def cost(self, number: int) -> float | None:
        """CPU ms of a closure by the costs that came with `add`; None where there is none."""
        held = self._held.get(number)
        if held is None or not (held.packet.picture.shown or self._whole):
            return None
        return held.total

    def decoded(self, numbers: Collection[int]) -> None:
        """Hears what was fed to the decoder: closures, whole and in decode order."""
        if not numbers:
            return
        self._position = max(self._position, *numbers)
        self.counters.decoded += len(numbers)
        past = self._mask(one for one in self._held if one <= self._position)
        done = past & self._mask(one for one in numbers if one in self._held)
        self._settle(done, past & ~done, Unreachable.SKIPPED)

    def failed(self, number: int) -> None:
        """Hears that the decoder failed on a packet: the rest of its group is out of reach.

        It may come late, when the packets were called decoded and others have arrived.
        """
        self.counters.failures += 1
        self._position = max(self._position, number)
        if self._whole:
            past = self._mask(one for one in self._held if one <= number)
            self._settle(past, 0, Unreachable.FAILED)
            return
        if number >= self._entry:
            self._settle(0, self._mask(self._held), Unreachable.FAILED)
            self._wait(Unreachable.FAILED)
            return
        # A group later: its entry starts anew, and what leads it is lost.
        gone = [
            one
            for one, held in self._held.items()
            if one < self._entry or held.packet.picture.leading
        ]
        self._settle(0, self._mask(gone), Unreachable.FAILED)
        if self._entry in self._held:
            self._held[self._entry].severed = True
        if self._leading_references is not None:
            never = Writer(self._entry, ALL_SLOTS, Unreachable.LEADING)
            self._leading_references = References(never)

    def gap(self) -> None:
        """Hears that packets are missing here: only an entry continues."""
        self.counters.gaps += 1
        if not self._whole:
            self._wait(Unreachable.LOST)

    def decode_whole(self) -> None:
        """From here on every packet is decoded, for the stream cannot be gated."""
        self._whole, self._waiting = True, None
        self._references, self._leading_references = References(), None
        closure, total = 0, 0.0
        for number, held in self._held.items():
            closure |= self._bit(number)
            total += held.cost
            held.closure, held.total = closure, total
            held.before = 0
            self._references = References(Writer(number, ALL_SLOTS, None))

    def _enter(self, packet: Packet, cost: float) -> None:
        """Begins a group, and forgets all groups but the one before."""
        number = packet.number
        old = self._mask(one for one in self._held if one < self._entry)
        self._settle(0, old, Unreachable.PASSED)
        before = 0
        severed = self._waiting is not None
        for writer in self._references:
            severed = severed or writer.dead is not None
            if writer.number in self._held:
                before |= self._held[writer.number].closure
        self._leading_references = None
        if packet.picture.entry is Entry.OPEN:
            never = References(Writer(number, ALL_SLOTS, Unreachable.LEADING))
            self._leading_references = never if severed else self._references
            self._leading_references.write(number, ALL_SLOTS, dead=None, over_all=False)
        self._references = References(Writer(number, ALL_SLOTS, None))
        self._entry, self._waiting = number, None
        own = self._bit(number)
        self._held[number] = _Held(packet, cost, cost, own, before, severed)
        self._held_bytes += packet.size

    def _continue(self, packet: Packet, picture: Picture, cost: float) -> None:
        """Takes in a picture of the current group."""
        references = self._references
        if picture.leading and self._leading_references is not None:
            references = self._leading_references
        reads = ALL_SLOTS if picture.reads is None else picture.reads
        closure = 0
        dead = None
        for writer in references:
            if writer.slots & reads:
                dead = dead or writer.dead
                needed = self._held.get(writer.number)
                if needed is not None:
                    closure |= needed.closure
        if dead is None:
            total = cost + self._sum(closure) if closure else cost
            closure |= 1 << (packet.number - self._base)
            self._held[packet.number] = _Held(packet, cost, total, closure)
            self._held_bytes += packet.size
        else:
            dead = _blame(packet, dead)
            self._bury(packet.number, dead)
            self.counters.unreachable += 1
        self._write(packet.number, picture, dead)

    def _sum(self, closure: int) -> float:
        """The cost of a closure, from that of its last picture, which often is all."""
        last = self._held[self._base + closure.bit_length() - 1]
        others = closure & ~last.closure
        if not others:
            return last.total
        return last.total + sum(self._held[one].cost for one in self._numbers(others))

    def _write(self, number: int, picture: Picture, dead: Unreachable | None) -> None:
        """Notes what later pictures read of this one."""
        slots = picture.writes
        if slots is None:
            slots = ALL_SLOTS if picture.reference else 0
        if not slots:
            return
        # Where it wrote unknown slots, what it read remains within reach through it alone only
        # if it may have read all there was.
        over_all = picture.writes is not None or picture.reads is None
        if not (picture.leading and self._leading_references):
            self._references.write(number, slots, dead=dead, over_all=over_all)
        if self._leading_references is not None:
            self._leading_references.write(number, slots, dead=dead, over_all=over_all)

    def _wait(self, reason: Unreachable) -> None:
        self._waiting = reason
        self._references, self._leading_references = References(), None

    def _overflow(self) -> None:
        """Gives up packets until what is held is within the bound; see rule 5."""
        self.counters.overflows += 1
        self._evict(one for one in self._held if one < self._entry)
        if not self._fits() and not self._whole:
            self._evict(one for one in self._held if self._is_leaf(one))
        if not self._fits():
            self._evict(self._held)
            if self._whole:
                self._references = References()
            else:
                self._wait(Unreachable.EVICTED)

    def _fits(self) -> bool:
        bound = self._bound
        return len(self._held) <= bound.packets and self._held_bytes <= bound.size

    def _is_leaf(self, number: int) -> bool:
        return number != self._newest and not _is_needed(self._held[number].packet.picture)

    def _evict(self, numbers: Iterable[int]) -> None:
        gone = self._mask(numbers)
        before = len(self._held)
        self._settle(0, gone, Unreachable.EVICTED)
        self.counters.evicted += before - len(self._held)

    def _settle(self, done: int, lost: int, reason: Unreachable) -> None:
        """Takes pictures out: decoded ones, and ones that never will be.

        What needs a lost one is lost with it.

        Args:
            done: mask of the decoded.
            lost: mask of the others.
            reason: why a picture that needs a lost one is out of reach.
        """
        if not done | lost:
            return
        costs = {number: self._held[number].cost for number in self._numbers(done)}
        for number, held in list(self._held.items()):
            own = self._bit(number)
            if held.closure & lost:
                lost |= own
                self._drop(number)
                self._bury(number, _blame(held.packet, reason))
            elif own & done:
                self._drop(number)
            elif held.closure & done:
                shared = held.closure & done
                held.closure ^= shared
                held.total -= sum(costs[one] for one in self._numbers(shared))
            held.severed = held.severed or bool(held.before & lost)
            held.before &= ~done
        for references in (self._references, self._leading_references or ()):
            for writer in references:
                if lost & self._bit(writer.number) and writer.dead is None:
                    writer.dead = self._dead.get(writer.number, reason)

    def _drop(self, number: int) -> None:
        self._held_bytes -= self._held.pop(number).packet.size

    def _bury(self, number: int, reason: Unreachable) -> None:
        """Remembers why a picture is out of reach; only of the last ones."""
        self._dead[number] = reason
        while len(self._dead) > self._bound.packets:
            del self._dead[next(iter(self._dead))]

    def _why_not(self, number: int) -> Unreachable:
        if number > self._newest:
            return Unreachable.UNKNOWN
        if number <= self._position:
            return Unreachable.PASSED
        return self._dead.get(number, Unreachable.PASSED)

    def _restarts(self, closure: int) -> bool:
        """Whether decoding a closure starts anew at an entry in it."""
        for number in self._numbers(closure):
            held = self._held[number]
            if held.packet.picture.entry and not self._whole:
                return held.severed or bool(held.before & ~closure)
        return False

    def _bit(self, number: int) -> int:
        return 1 << (number - self._base) if number >= self._base else 0

    def _mask(self, numbers: Iterable[int]) -> int:
        mask = 0
        for number in numbers:
            mask |= self._bit(number)
        return mask

    def _numbers(self, mask: int) -> Iterator[int]:
        """The numbers in a mask, lowest first."""
        while mask:
            lowest = mask & -mask
            yield self._base + lowest.bit_length() - 1
            mask ^= lowest

    def _rebase(self) -> None:
        """Keeps masks short: their lowest bit follows the oldest packet held."""
        oldest = next(iter(self._held), self._newest)
        shift = oldest - self._base
        self._base = oldest
        for held in self._held.values():
            held.closure >>= shift
            held.before >>= shift


def _is_needed(picture: Picture) -> bool:
    """Whether other pictures may need it."""
    return picture.reference or bool(picture.writes)


def _blame(packet: Packet, reason: Unreachable) -> Unreachable:
    """Why a packet is lost with another: a leading one by where decoding started."""
    return Unreachable.LEADING if packet.picture.leading else reason
