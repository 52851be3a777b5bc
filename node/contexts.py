"""What ordering works under in an epoch: who votes by the final state, and whether this node does (rule R10)."""

from dataclasses import dataclass

from node.signing import Signing
from protocol.crypto import SigningKey, is_signature_valid
from protocol.ledger.draft import Ledger
from protocol.ledger.epochs import get_epoch_terms
from protocol.ordering.messages import QuorumCert
from protocol.ordering.state import Context, Tip
from protocol.params import compute_boundary
from protocol.validators import index_of


@dataclass(frozen=True, slots=True)
class Contexts:
    """Makes the context of an epoch, with this node's key where it may sign."""

    key: SigningKey
    signing: Signing

    def make(self, final: Ledger, start: Tip, start_cert: QuorumCert | None) -> Context:
        """The context of the epoch of the next block, which starts on this block, and what made that final."""
        terms = get_epoch_terms(final)
        own = index_of(terms.validators, self.key.public) if self.signing.may_sign(terms.epoch) else None
        return Context(
            chain=final.constants.chain_id,
            epoch=terms.epoch,
            seed=terms.seed,
            validators=terms.validators,
            own=own,
            params=final.constants.params,
            signer=None if own is None else self.key,
            verify=is_signature_valid,
            start=start,
            start_cert=start_cert,
            boundary=compute_boundary(final.constants.params, terms.epoch),
            floor=self.signing.compute_floor(terms.epoch),
        )
