"""Absence (rules V7 to V10): which validators let their slots as leader pass, who is jailed for it, and who may come back.

A slot is let pass if its view brought no block of the chain. That says nothing about whose fault it was, so a single one costs
nothing; jail takes nothing either: it ends the wait for somebody who is not there.
"""

from collections.abc import Container, Iterator

from msgspec.structs import replace

from protocol.errors import InvalidTransaction, Rejection
from protocol.ledger.draft import Draft
from protocol.ledger.entries import ATTENDANCE_CODEC, Attendance, Jail, Kind, attendance_key
from protocol.ledger.onions import Slots
from protocol.params import Params
from protocol.transactions import Unjail
from protocol.units import Milliseconds, NodeId, PartsPerMillion
from protocol.validators import ValidatorSet

_PPM = 1_000_000
_NO_SLOT_YET = Attendance(0, None)


def get_attendance(draft: Draft, node: NodeId) -> Attendance:
    """What a node made of its last slots; one that never had any missed none."""
    return draft.get(attendance_key(node), ATTENDANCE_CODEC) or _NO_SLOT_YET


def is_jailed(attendance: Attendance) -> bool:
    """Whether its node stays out of the sets that are computed now."""
    return attendance.jail is not None and not attendance.jail.is_over


def count_missed(attendance: Attendance) -> int:
    """How many of the last slots in the window it let pass."""
    return attendance.recent.bit_count()


def move_attendance(draft: Draft, slots: Slots) -> None:
    """V7: every slot since the parent's view was let pass, but the proposer's last. Who is jailed is not counted."""
    window = draft.base.constants.params.missed_slots_window
    for node, count in slots.counts:
        known = get_attendance(draft, node)
        if is_jailed(known):
            continue
        recent = known.recent
        for _ in range(min(window, count - (node == slots.proposer))):
            recent = recent << 1 | 1
        moved = recent << (node == slots.proposer) & (1 << window) - 1
        if moved != known.recent:
            draft.put(attendance_key(node), replace(known, recent=moved))


def jail_absent(
    draft: Draft, validators: ValidatorSet, qualified: Container[NodeId], time_ms: Milliseconds
) -> frozenset[NodeId]:
    """At the boundary of these validators' epoch: who let more than half of the window pass is jailed (V8), as far as V9 allows it.

    Who does not qualify for the next set is out anyway, and leaves its room to others.
    """
    params, jailed = draft.base.constants.params, set[NodeId]()
    room = params.jail_share_ppm - _sum_jailed(draft, params, time_ms)
    for _, node, share_ppm in sorted(_list_absent(draft, validators)):
        if share_ppm <= room and node in qualified:
            room -= share_ppm
            jailed.add(node)
            draft.put(attendance_key(node), Attendance(0, Jail(time_ms, share_ppm, is_over=False)))
    return frozenset(jailed)


def check_unjail(draft: Draft, body: Unjail) -> None:
    """Accept who has been in jail for long enough, by the time of the block before (V10). Raises: InvalidTransaction."""
    jail, name = get_attendance(draft, body.sender).jail, body.sender.hex()[:12]
    if jail is None or jail.is_over:
        raise InvalidTransaction(Rejection.NOT_JAILED, f"{name} is not jailed: there is nothing to end")
    until_ms, now_ms = compute_jail_end(draft.base.constants.params, jail), draft.base.chain.time_ms
    if now_ms < until_ms:
        raise InvalidTransaction(
            Rejection.JAILED, f"{name} is jailed for absence for another {until_ms - now_ms} ms: send it again then"
        )


def release(draft: Draft, node: NodeId) -> None:
    """End a jail: its node is in the next set computed if it qualifies. V9 goes on counting it."""
    known = get_attendance(draft, node)
    assert known.jail is not None and not known.jail.is_over, node.hex()
    draft.put(attendance_key(node), Attendance(0, replace(known.jail, is_over=True)))


def compute_jail_end(params: Params, jail: Jail) -> Milliseconds:
    """From when on an Unjail is valid."""
    return jail.time_ms + params.jail_ms


def forget_attendance(draft: Draft, voting: Container[NodeId], time_ms: Milliseconds) -> None:
    """Remove what is known of nodes that no longer vote, unless they are jailed or V9 still counts them."""
    params = draft.base.constants.params
    for node, known in _list_known(draft):
        if node not in voting and not is_jailed(known) and not _is_counted(params, known, time_ms):
            draft.remove(attendance_key(node))


def _list_absent(draft: Draft, validators: ValidatorSet) -> Iterator[tuple[int, NodeId, PartsPerMillion]]:
    """(minus the slots missed, node, its share of the weight rounded up) of those that V8 jails: the most absent sort first."""
    window, total = draft.base.constants.params.missed_slots_window, validators.total_weight
    for member in validators.members:
        missed = count_missed(get_attendance(draft, member.node))
        if 2 * missed > window:
            yield -missed, member.node, -(-member.weight * _PPM // total)


def _sum_jailed(draft: Draft, params: Params, time_ms: Milliseconds) -> int:
    """The weight jailed within V9's window, in ppm: those that came back since are counted too."""
    known = (attendance for _, attendance in _list_known(draft) if _is_counted(params, attendance, time_ms))
    return sum(attendance.jail.share_ppm for attendance in known if attendance.jail is not None)


def _is_counted(params: Params, attendance: Attendance, time_ms: Milliseconds) -> bool:
    return attendance.jail is not None and time_ms - attendance.jail.time_ms < params.jail_window_ms


def _list_known(draft: Draft) -> Iterator[tuple[NodeId, Attendance]]:
    for key in draft.list_keys(bytes((Kind.ATTENDANCE,))):
        yield key[1:], get_attendance(draft, key[1:])
