"""Why something foreign was refused: one enum of reasons, one exception for each kind of thing that can be refused.

A message says what was checked, what was expected, what came, and, where the reader can act, what to do.
"""

from enum import Enum


class Rejection(Enum):
    """A language-neutral reason; its value is the `reason` that interfaces show."""

    # Structure
    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    NOT_CANONICAL = "not_canonical"
    WRONG_CHAIN = "wrong_chain"
    NEWER_VERSION = "newer_version"
    BAD_SIGNATURE = "bad_signature"
    # Transactions
    BAD_NONCE = "bad_nonce"
    EXPIRED = "expired"
    UNAFFORDABLE = "unaffordable"
    DUPLICATE = "duplicate"
    UNKNOWN_MODEL = "unknown_model"
    MODEL_EXISTS = "model_exists"
    TOO_MANY = "too_many"
    BAD_CARD = "bad_card"
    NOT_BONDED = "not_bonded"
    ZERO_AMOUNT = "zero_amount"
    BUSY = "busy"  # a limit is reached: the same transaction may be valid later
    CONVICTED = "convicted"  # the sender has broken a voting rule: it never has stake or duties again
    JAILED = "jailed"  # for absence: valid later
    NOT_JAILED = "not_jailed"
    TOO_EARLY = "too_early"  # an earlier one is missing, or its phase has not begun: valid later
    # Jobs
    EMPTY_PROMPT = "empty_prompt"
    PROMPT_TOO_LONG = "prompt_too_long"
    BAD_SEATS = "bad_seats"
    TOO_FEW_CANDIDATES = "too_few_candidates"
    FEE_TOO_LOW = "fee_too_low"
    BAD_WINDOW = "bad_window"
    BAD_SETTINGS = "bad_settings"
    UNKNOWN_JOB = "unknown_job"
    WRONG_PHASE = "wrong_phase"
    NOT_A_MEMBER = "not_a_member"
    COMMITMENT_MISMATCH = "commitment_mismatch"
    # Blocks
    BAD_PARENT = "bad_parent"
    BAD_HEIGHT = "bad_height"
    BAD_TIME = "bad_time"
    BAD_BEACON = "bad_beacon"
    BAD_ROOT = "bad_root"
    BAD_BODY = "bad_body"
    # Ordering
    UNKNOWN_SIGNER = "unknown_signer"
    NO_QUORUM = "no_quorum"
    NOT_LEADER = "not_leader"
    BAD_JUSTIFICATION = "bad_justification"
    OUT_OF_RANGE = "out_of_range"
    # Certificates
    BAD_PROOF = "bad_proof"
    BAD_DRAW = "bad_draw"
    BAD_DECISION = "bad_decision"
    BAD_OUTPUT = "bad_output"
    # Trust in a validator set
    MISSING_STEPS = "missing_steps"  # another set votes by then than the steps at hand lead to
    BAD_VALIDATORS = "bad_validators"  # a set that never voted in that epoch
    BEFORE_TRUST = "before_trust"  # older than the header that is trusted


class Refusal(Exception):
    """Something foreign was refused; `reason` says why in one word, the message in one sentence."""

    def __init__(self, reason: Rejection, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class InvalidMessage(Refusal):
    """Bytes that are no canonical message, or a message whose signature or range is wrong."""


class InvalidTransaction(Refusal):
    """A well-formed transaction that this state of the ledger does not admit."""


class InvalidBlock(Refusal):
    """A block that no honest leader could have built on this parent."""


class InvalidCertificate(Refusal):
    """A certificate that does not prove what it claims."""


class InvalidTrust(Refusal):
    """A chain file or a trusted header that does not hold."""


class InvalidGenesis(Refusal):
    """A genesis that no network could start from."""
