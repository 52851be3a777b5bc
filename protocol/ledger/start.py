"""The first state: whether a network can start from a genesis (rule L1), and the entries it starts with."""

from collections.abc import Iterable
from typing import Final

from protocol.errors import InvalidGenesis, InvalidTransaction, Rejection
from protocol.genesis import Genesis, compute_validator_set
from protocol.ledger.admission import check_card
from protocol.ledger.draft import Draft, Ledger, compute_constants, create_empty_ledger
from protocol.ledger.entries import (
    Account,
    Chain,
    Milestone,
    Named,
    Onion,
    Serving,
    account_key,
    card_key,
    name_key,
    onion_key,
    serve_key,
)
from protocol.ledger.epochs import write_first_set
from protocol.ledger.milestones import add_milestone
from protocol.ledger.snapshot import take_snapshot
from protocol.models import compute_model_id
from protocol.params import Params
from protocol.units import NodeId

MAX_SUPPLY: Final = (
    2**53
)  # sums of units stay far below 2^63, and exact in every language a reader of certificates may use
MAX_TIME_MS: Final = 2**53
MAX_JAIL_SHARE_PPM: Final = 333_333
MAX_WINDOW_MS: Final = 2**40  # 35 years: added to any time it stays below 2^63


def start_ledger(genesis: Genesis) -> Ledger:
    """The state at height 0. Raises: InvalidGenesis."""
    check_genesis(genesis)
    draft = Draft(create_empty_ledger(compute_constants(genesis)))
    owned = {entry.node: entry.balance for entry in genesis.accounts}
    staked = {entry.node: entry.stake for entry in genesis.validators}
    for node in sorted({*owned, *staked}):
        draft.put(account_key(node), Account(owned.get(node, 0), staked.get(node, 0), 0, 0))
    for card in genesis.models:
        draft.put(card_key(compute_model_id(card)), card)
        draft.put(name_key(card.name), Named(compute_model_id(card)))
    for entry in genesis.validators:
        draft.put(onion_key(entry.node), Onion(entry.onion_tip, 0, 0, 0, None))
        for model in entry.serves:
            draft.put(serve_key(model, entry.node), Serving(0))
    write_first_set(draft, compute_validator_set(genesis))
    add_milestone(draft, Milestone(0, 0, genesis.time_ms))
    root = take_snapshot(draft, genesis.params, 0, genesis.time_ms)
    minted = sum(owned.values()) + sum(staked.values())
    return draft.seal(Chain(0, 0, genesis.time_ms, genesis.seed, genesis.seed, (), 0, root, minted, 0))


def check_genesis(genesis: Genesis) -> None:
    """Accept a genesis whose parts fit together. Raises: InvalidGenesis."""
    _check_params(genesis.params)
    if genesis.time_ms > MAX_TIME_MS:
        raise InvalidGenesis(
            Rejection.BAD_TIME, f"time_ms is {genesis.time_ms}, at most {MAX_TIME_MS} can be counted on from"
        )
    _check_distinct("validator", [entry.node for entry in genesis.validators])
    _check_distinct("account", [entry.node for entry in genesis.accounts])
    _check_models(genesis)
    for entry in genesis.validators:
        if entry.stake < genesis.params.min_bond:
            raise InvalidGenesis(
                Rejection.NOT_BONDED,
                f"validator {entry.node.hex()[:12]} stakes {entry.stake}, the least bond is {genesis.params.min_bond}",
            )
    minted = sum(entry.stake for entry in genesis.validators) + sum(entry.balance for entry in genesis.accounts)
    if minted > MAX_SUPPLY:
        raise InvalidGenesis(
            Rejection.TOO_LARGE, f"stakes and balances add up to {minted} micro-units, at most {MAX_SUPPLY} may exist"
        )


def _check_params(params: Params) -> None:
    for is_wrong, sentence in (
        (
            params.beacon_max_blocks > params.epoch_heights,
            f"beacon_max_blocks {params.beacon_max_blocks} is more than epoch_heights {params.epoch_heights}: a draw may lie one snapshot back, not two",
        ),
        (params.max_window_ms > MAX_WINDOW_MS, f"max_window_ms {params.max_window_ms} is more than {MAX_WINDOW_MS}"),
        (
            params.slash_window_ms > MAX_WINDOW_MS,
            f"slash_window_ms {params.slash_window_ms} is more than {MAX_WINDOW_MS}",
        ),
        (params.jail_ms > MAX_WINDOW_MS, f"jail_ms {params.jail_ms} is more than {MAX_WINDOW_MS}"),
        (
            params.jail_share_ppm > MAX_JAIL_SHARE_PPM,
            f"jail_share_ppm {params.jail_share_ppm} is more than {MAX_JAIL_SHARE_PPM}: those whom a quorum cannot do without may not be jailed at once",
        ),
        (params.suspension_ms > MAX_WINDOW_MS, f"suspension_ms {params.suspension_ms} is more than {MAX_WINDOW_MS}"),
        (
            params.unbonding_ms > MAX_WINDOW_MS,
            f"unbonding_ms {params.unbonding_ms} is more than {MAX_WINDOW_MS}",
        ),
        (
            params.unbonding_ms < params.evidence_max_ms or params.unbonding_heights < params.evidence_max_heights,
            f"unbonding ({params.unbonding_ms} ms, {params.unbonding_heights} heights) is shorter than the age of evidence ({params.evidence_max_ms} ms, {params.evidence_max_heights} heights): who broke a rule could leave before the proof comes",
        ),
        (
            params.unbonding_heights < 2 * params.epoch_heights + params.evidence_max_heights,
            f"unbonding_heights {params.unbonding_heights} is less than two epochs of {params.epoch_heights} and evidence_max_heights {params.evidence_max_heights}: who leaves votes for up to two epochs, and its stake must be there when the proof comes",
        ),
        (
            params.min_window_ms > params.max_window_ms,
            f"min_window_ms {params.min_window_ms} is more than max_window_ms {params.max_window_ms}",
        ),
        (params.min_bond == 0, "min_bond is 0: whoever serves must have something at stake"),
        (params.min_seat_fee == 0, "min_seat_fee is 0: free jobs would fill the ledger"),
        (params.pace_ms == 0, "pace_ms is 0: a header's time must move on"),
    ):
        if is_wrong:
            raise InvalidGenesis(Rejection.OUT_OF_RANGE, sentence)


def _check_distinct(what: str, nodes: Iterable[NodeId]) -> None:
    seen: set[NodeId] = set()
    for node in nodes:
        if node in seen:
            raise InvalidGenesis(Rejection.DUPLICATE, f"{what} {node.hex()[:12]} is listed twice")
        seen.add(node)


def _check_models(genesis: Genesis) -> None:
    models = [compute_model_id(card) for card in genesis.models]
    _check_distinct("model", models)
    _check_distinct("model name", [card.name.encode() for card in genesis.models])
    for card in genesis.models:
        try:
            check_card(card)
        except InvalidTransaction as error:
            raise InvalidGenesis(error.reason, f"model {card.name}: {error}") from error
    for entry in genesis.validators:
        _check_distinct(f"in the serves of {entry.node.hex()[:12]} the model", entry.serves)
        for model in entry.serves:
            if model not in models:
                raise InvalidGenesis(
                    Rejection.UNKNOWN_MODEL,
                    f"validator {entry.node.hex()[:12]} serves {model.hex()[:12]}, which is not among the models",
                )
