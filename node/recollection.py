"""What this node remembers of another validator's signatures, for one that has lost its own log (rule R10).

It looks where signatures lie anyway: among the votes that ordering holds, and in the FinalCerts of the newest blocks.
"""

from collections.abc import Iterator
from typing import Final

from node.storage import Storage
from node.wire import Recollection
from protocol.ledger.draft import Ledger
from protocol.ledger.epochs import get_validators
from protocol.ordering.messages import QUORUM_CERT_CODEC, QuorumCert, Vote
from protocol.ordering.state import SimplexState
from protocol.ordering.votes import split_cert
from protocol.units import NodeId
from protocol.validators import index_of

LOOKED_CERTIFICATES: Final = 64  # of the newest blocks; deciding takes no more than two milliseconds


def find_recollection(node: NodeId, state: SimplexState, final: Ledger, storage: Storage) -> Recollection:
    """The newest vote of a node that is remembered here, and the epoch that this node is in."""
    context = state.context
    index = index_of(context.validators, node)
    votes = [] if index is None else list(_list_held(state, index))
    certs = list(_list_certs(state, storage))
    votes.extend(vote for cert in certs if (vote := _find_vote(cert, node, final)) is not None)
    newest = max(votes, key=lambda vote: (vote.epoch, vote.view, vote.kind), default=None)
    return Recollection(context.epoch, newest)


def _list_held(state: SimplexState, index: int) -> Iterator[Vote]:
    for record in state.views.values():
        yield from (vote for (_, signer), vote in record.votes.items() if signer == index)


def _list_certs(state: SimplexState, storage: Storage) -> Iterator[QuorumCert]:
    if state.tip_cert is not None:
        yield state.tip_cert
    for encoded in storage.get_newest_certificates(LOOKED_CERTIFICATES):
        yield QUORUM_CERT_CODEC.decode(encoded)


def _find_vote(cert: QuorumCert, node: NodeId, final: Ledger) -> Vote | None:
    """A node's vote in a certificate; None too where the certificate is of an epoch whose table the state holds no more."""
    try:
        index = index_of(get_validators(final, cert.epoch), node)
    except LookupError:
        return None
    if index is None or index not in cert.signers:
        return None
    return split_cert(cert)[cert.signers.index(index)]
