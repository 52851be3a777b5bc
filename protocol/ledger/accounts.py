"""Accounts inside a block's draft: who has what, and every way units may move. Each function keeps the sum."""

from msgspec.structs import replace

from protocol.ledger.draft import Draft
from protocol.ledger.entries import ACCOUNT_CODEC, Account, account_key
from protocol.units import Micro, NodeId

NOTHING = Account(0, 0, 0, 0)


def get_account(draft: Draft, node: NodeId) -> Account:
    """A node's account; one that nobody has paid into yet is empty."""
    return draft.get(account_key(node), ACCOUNT_CODEC) or NOTHING


def compute_free_bond(account: Account) -> Micro:
    """What of the bond no open job holds."""
    return max(0, account.bonded - account.locked)


def credit(draft: Draft, node: NodeId, amount: Micro) -> None:
    """Add to a balance."""
    if amount:
        account = get_account(draft, node)
        draft.put(account_key(node), replace(account, balance=account.balance + amount))


def debit(draft: Draft, node: NodeId, amount: Micro) -> None:
    """Take from a balance that covers it."""
    account = get_account(draft, node)
    assert account.balance >= amount, (node.hex(), account, amount)
    draft.put(account_key(node), replace(account, balance=account.balance - amount))


def bond(draft: Draft, node: NodeId, amount: Micro) -> None:
    """Move from a balance that covers it into the bond."""
    account = get_account(draft, node)
    assert account.balance >= amount, (node.hex(), account, amount)
    draft.put(account_key(node), replace(account, balance=account.balance - amount, bonded=account.bonded + amount))


def lock(draft: Draft, node: NodeId, amount: Micro) -> None:
    """Hold a part of the free bond for a job."""
    account = get_account(draft, node)
    assert compute_free_bond(account) >= amount, (node.hex(), account, amount)
    draft.put(account_key(node), replace(account, locked=account.locked + amount))


def unlock(draft: Draft, node: NodeId, amount: Micro) -> None:
    """Let go of what `lock` held."""
    account = get_account(draft, node)
    assert account.locked >= amount, (node.hex(), account, amount)
    draft.put(account_key(node), replace(account, locked=account.locked - amount))


def burn_bond(draft: Draft, node: NodeId, amount: Micro) -> Micro:
    """Burn from the free bond; what was burned, at most the free bond (M6)."""
    account = get_account(draft, node)
    lost = min(amount, compute_free_bond(account))
    draft.put(account_key(node), replace(account, bonded=account.bonded - lost))
    draft.burned += lost
    return lost


def take_bond(draft: Draft, node: NodeId, amount: Micro) -> Micro:
    """Take from the bond, whatever open jobs hold of it; what was found, at most the amount. The caller keeps the sum."""
    account = get_account(draft, node)
    taken = min(amount, account.bonded)
    draft.put(account_key(node), replace(account, bonded=account.bonded - taken))
    return taken


def pay_base_fee(draft: Draft, node: NodeId, base_fee: Micro) -> None:
    """Half of the base fee is the proposer's, the rest, odd unit included, is burned (M2); the account's nonce moves."""
    account = get_account(draft, node)
    assert account.balance >= base_fee, (node.hex(), account, base_fee)
    draft.put(account_key(node), replace(account, balance=account.balance - base_fee, nonce=account.nonce + 1))
    draft.fees += base_fee // 2
    draft.burned += base_fee - base_fee // 2
