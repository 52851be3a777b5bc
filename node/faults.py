"""What went wrong, as the interfaces say it: a reason in one word, an exit code, an RPC code, and what mends it.

One table serves JSON-RPC, the command line and docs/errors.md, so that they cannot drift. It says what follows from a reason;
the sentence itself (what, expected, got) is written where the fault is found.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final

from protocol.errors import Refusal, Rejection


class Exit(IntEnum):
    """The exit codes of `quorate`, whatever the verb."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    CONFIGURATION = 3
    UNREACHABLE = 4
    NOT_READY = 5
    INVALID = 6
    NO_ANSWER = 7
    LOCKED = 8
    INCOMPATIBLE = 9
    TEMPORARY = 75


class RpcCode(IntEnum):
    """The specification's codes, and our own in -32000..-32099."""

    PARSE_ERROR = -32700
    INVALID_REQUEST = -32600
    METHOD_NOT_FOUND = -32601
    INVALID_PARAMS = -32602
    INTERNAL = -32603
    REFUSED = -32000  # the ledger or the mempool does not admit it
    NOT_FOUND = -32001
    NOT_READY = -32002
    UNAVAILABLE = -32003  # it exists, but this node cannot give it now
    TIMED_OUT = -32004
    OVERLOADED = -32005
    UNAUTHORIZED = -32006
    TOO_LARGE = -32007


class Trouble(Enum):
    """Reasons of the interfaces' own, beside those of `Rejection`."""

    # The call
    PARSE_ERROR = "parse_error"
    INVALID_REQUEST = "invalid_request"
    UNKNOWN_METHOD = "unknown_method"
    INVALID_PARAMS = "invalid_params"
    INTERNAL = "internal"
    BATCH_TOO_LARGE = "batch_too_large"
    BODY_TOO_LARGE = "body_too_large"
    WRONG_CONTENT_TYPE = "wrong_content_type"
    WRONG_HTTP_METHOD = "wrong_http_method"
    UNKNOWN_PATH = "unknown_path"
    FOREIGN_ORIGIN = "foreign_origin"
    UNAUTHORIZED = "unauthorized"
    TOO_MANY_REQUESTS = "too_many_requests"
    TIMED_OUT = "timed_out"
    # The node
    SYNCING = "syncing"
    HALTED = "halted"
    UNKNOWN_BLOCK = "unknown_block"
    FEE_ABOVE_MAXIMUM = "fee_above_maximum"
    PROMPT_REFUSED = "prompt_refused"
    STALE_TRUST = "stale_trust"
    CERTIFICATE_UNAVAILABLE = "certificate_unavailable"
    OUTPUT_UNAVAILABLE = "output_unavailable"
    # The command line
    USAGE = "usage"
    NO_NODE_RUNNING = "no_node_running"
    UNREACHABLE = "unreachable"
    NOT_A_NODE = "not_a_node"
    NO_SUCH_FILE = "no_such_file"
    FILE_EXISTS = "file_exists"
    CANNOT_WRITE = "cannot_write"
    BAD_GENESIS = "bad_genesis"
    BAD_CONFIGURATION = "bad_configuration"
    BAD_MODEL = "bad_model"
    BAD_KEY = "bad_key"
    KEY_LOCKED = "key_locked"
    PERMISSION = "permission"
    HOME_LOCKED = "home_locked"
    WRONG_HOME = "wrong_home"
    NOT_A_HOME = "not_a_home"
    PORT_IN_USE = "port_in_use"
    DISK_FULL = "disk_full"
    DISK = "disk"
    DAMAGED_LEDGER = "damaged_ledger"
    BAD_PROTECTION = "bad_protection"
    VOTES_LOST = "votes_lost"
    INTERRUPTED = "interrupted"
    JOB_FAILED = "failed"
    JOB_INCONCLUSIVE = "inconclusive"


Reason = Rejection | Trouble


@dataclass(frozen=True, slots=True)
class Consequence:
    """What follows from a reason: codes, whether the same call may succeed later, and what to do."""

    exit: Exit
    rpc: RpcCode
    retryable: bool
    cure: str


_RESIGN: Final = "encode and sign it again for this network (`quorate status` shows its chain id)"
_REASK: Final = "change the request and ask again"
_SERVED: Final = "`quorate status --json` lists the models that are served; `quorate ask --model NAME` chooses one"
_CERTIFICATE: Final = (
    "fetch it again with `quorate jobs show JOB --out FILE`; if it is refused again, do not trust its source"
)
_STEPS: Final = "fetch the changes of the validator set with `quorate chain --out FILE`, and give --chain FILE"
_REPORT: Final = "this is a fault of the node: look for `internal` in its log and report it"

_REFUSED: Final = (Exit.USAGE, RpcCode.REFUSED, False)
_LATER: Final = (Exit.TEMPORARY, RpcCode.REFUSED, True)
_FORGED: Final = (Exit.INVALID, RpcCode.INVALID_PARAMS, False)
_HTTP: Final = (Exit.USAGE, RpcCode.INVALID_REQUEST, False)
_BAD: Final = (Exit.CONFIGURATION, RpcCode.INTERNAL, False)

_TABLE: Final[dict[Reason, tuple[Exit, RpcCode, bool, str]]] = {
    # Bytes from outside
    Rejection.TOO_LARGE: (*_FORGED, "send fewer bytes: the message names the limit"),
    Rejection.MALFORMED: (*_FORGED, "send the canonical encoding of protocol/README.md, whole"),
    Rejection.NOT_CANONICAL: (*_FORGED, "send the canonical encoding of protocol/README.md"),
    Rejection.WRONG_CHAIN: (*_FORGED, "use the genesis file of the network it was made on"),
    Rejection.NEWER_VERSION: (Exit.INCOMPATIBLE, RpcCode.INVALID_PARAMS, False, "upgrade quorate"),
    Rejection.BAD_SIGNATURE: (*_FORGED, _RESIGN),
    # Transactions
    Rejection.BAD_NONCE: (
        *_LATER,
        "read the account's nonce with `quorate balance --json` and sign it again with the next one",
    ),
    Rejection.EXPIRED: (*_REFUSED, "sign it again with a later valid_until"),
    Rejection.UNAFFORDABLE: (
        *_REFUSED,
        "lower the fee or the number of seats, or have units sent to this account (`quorate transfer`)",
    ),
    Rejection.DUPLICATE: (*_REFUSED, "nothing: it was taken before"),
    Rejection.UNKNOWN_MODEL: (*_REFUSED, _SERVED),
    Rejection.MODEL_EXISTS: (*_REFUSED, "nothing: this card is registered"),
    Rejection.TOO_MANY: (*_LATER, "wait for the next block, then send it again"),
    Rejection.BAD_CARD: (*_REFUSED, "make the card again with `quorate models card DIR`"),
    Rejection.NOT_BONDED: (*_REFUSED, "bond stake first"),
    Rejection.ZERO_AMOUNT: (*_REFUSED, "give an amount above 0"),
    Rejection.BUSY: (*_LATER, "wait until some of it has ended, then try again"),
    Rejection.CONVICTED: (*_REFUSED, "use another key: this one has broken a voting rule"),
    Rejection.JAILED: (*_LATER, "wait until its time is over, then send it again"),
    Rejection.NOT_JAILED: (*_REFUSED, "nothing: `quorate status` shows whether a node votes"),
    Rejection.TOO_EARLY: (*_LATER, "send what comes before it first, then try again"),
    # Jobs
    Rejection.EMPTY_PROMPT: (*_REFUSED, "write a question"),
    Rejection.PROMPT_TOO_LONG: (*_REFUSED, "shorten the question, or ask a model with a larger context"),
    Rejection.BAD_SEATS: (*_REFUSED, "choose an odd number of seats with --committee: 1, 3, 5 …"),
    Rejection.TOO_FEW_CANDIDATES: (
        *_REFUSED,
        "choose fewer seats with --committee, or wait until more nodes serve the model",
    ),
    Rejection.FEE_TOO_LOW: (*_REFUSED, "leave the fee out, or raise it"),
    Rejection.BAD_WINDOW: (*_REFUSED, "leave the windows out, or choose them between the bounds"),
    Rejection.BAD_SETTINGS: (*_REFUSED, _REASK),
    Rejection.UNKNOWN_JOB: (
        Exit.USAGE,
        RpcCode.NOT_FOUND,
        False,
        "`quorate jobs ls` lists the jobs that this node knows",
    ),
    Rejection.WRONG_PHASE: (*_REFUSED, "nothing: the phase is over"),
    Rejection.NOT_A_MEMBER: (*_REFUSED, "nothing: only drawn members answer"),
    Rejection.COMMITMENT_MISMATCH: (*_REFUSED, "reveal the payload and salt that were committed"),
    # Blocks and ordering: no interface takes blocks, so these are seen only inside a certificate
    Rejection.BAD_PARENT: (*_FORGED, _CERTIFICATE),
    Rejection.BAD_HEIGHT: (*_FORGED, _CERTIFICATE),
    Rejection.BAD_TIME: (*_FORGED, _CERTIFICATE),
    Rejection.BAD_BEACON: (*_FORGED, _CERTIFICATE),
    Rejection.BAD_ROOT: (*_FORGED, _CERTIFICATE),
    Rejection.BAD_BODY: (*_FORGED, _CERTIFICATE),
    Rejection.UNKNOWN_SIGNER: (*_FORGED, _CERTIFICATE),
    Rejection.NO_QUORUM: (*_FORGED, _CERTIFICATE),
    Rejection.NOT_LEADER: (*_FORGED, _CERTIFICATE),
    Rejection.BAD_JUSTIFICATION: (*_FORGED, _CERTIFICATE),
    Rejection.OUT_OF_RANGE: (*_FORGED, "give a value inside the range"),
    Rejection.BAD_PROOF: (*_FORGED, _CERTIFICATE),
    Rejection.BAD_DRAW: (*_FORGED, _CERTIFICATE),
    Rejection.BAD_DECISION: (*_FORGED, _CERTIFICATE),
    Rejection.BAD_OUTPUT: (*_FORGED, _CERTIFICATE),
    # Trust in a validator set
    Rejection.MISSING_STEPS: (*_FORGED, _STEPS),
    Rejection.BAD_VALIDATORS: (
        *_FORGED,
        "get both files again, from another node; do not trust whoever gave you these",
    ),
    Rejection.BEFORE_TRUST: (
        *_FORGED,
        "use a trusted header of that epoch or an earlier one, or leave out --trusted",
    ),
    # The call
    Trouble.PARSE_ERROR: (
        Exit.USAGE,
        RpcCode.PARSE_ERROR,
        False,
        "send one JSON object, or an array of them, in UTF-8",
    ),
    Trouble.INVALID_REQUEST: (*_HTTP, 'send {"jsonrpc": "2.0", "id": 1, "method": …, "params": {…}}'),
    Trouble.UNKNOWN_METHOD: (Exit.USAGE, RpcCode.METHOD_NOT_FOUND, False, "`rpc.discover` lists the methods"),
    Trouble.INVALID_PARAMS: (
        Exit.USAGE,
        RpcCode.INVALID_PARAMS,
        False,
        "`rpc.discover` lists each method's parameters",
    ),
    Trouble.INTERNAL: (Exit.INTERNAL, RpcCode.INTERNAL, False, _REPORT),
    Trouble.BATCH_TOO_LARGE: (*_HTTP, "send the calls in several batches"),
    Trouble.BODY_TOO_LARGE: (Exit.USAGE, RpcCode.TOO_LARGE, False, "send a smaller body"),
    Trouble.WRONG_CONTENT_TYPE: (*_HTTP, "send the header content-type: application/json"),
    Trouble.WRONG_HTTP_METHOD: (*_HTTP, "send POST to /rpc"),
    Trouble.UNKNOWN_PATH: (*_HTTP, "the paths are /rpc, /livez and /readyz"),
    Trouble.FOREIGN_ORIGIN: (
        Exit.LOCKED,
        RpcCode.UNAUTHORIZED,
        False,
        "call the node from a program, by the address it is bound to",
    ),
    Trouble.UNAUTHORIZED: (
        Exit.LOCKED,
        RpcCode.UNAUTHORIZED,
        False,
        "give the node's token: --token-file FILE, or the header authorization: Bearer TOKEN",
    ),
    Trouble.TOO_MANY_REQUESTS: (Exit.TEMPORARY, RpcCode.OVERLOADED, True, "wait a second, then try again"),
    Trouble.TIMED_OUT: (Exit.NO_ANSWER, RpcCode.TIMED_OUT, True, "wait longer: `quorate jobs wait JOB`"),
    # The node
    Trouble.SYNCING: (Exit.NOT_READY, RpcCode.NOT_READY, True, "wait until `quorate status` says ready"),
    Trouble.HALTED: (
        Exit.NOT_READY,
        RpcCode.NOT_READY,
        False,
        "read the reason in `quorate status`, then restart the node",
    ),
    Trouble.UNKNOWN_BLOCK: (
        Exit.USAGE,
        RpcCode.NOT_FOUND,
        False,
        "ask for a height between 1 and the node's (`quorate status`)",
    ),
    Trouble.PROMPT_REFUSED: (*_REFUSED, "change the question, or ask another model"),
    Trouble.FEE_ABOVE_MAXIMUM: (*_REFUSED, "raise --max-fee, or choose fewer seats"),
    Trouble.CERTIFICATE_UNAVAILABLE: (
        Exit.TEMPORARY,
        RpcCode.UNAVAILABLE,
        True,
        "wait until the job is settled, then ask again",
    ),
    Trouble.STALE_TRUST: (
        Exit.INVALID,
        RpcCode.INTERNAL,
        False,
        "compare the block with a node that you trust (`quorate checkpoint`), and verify with --trusted FILE",
    ),
    Trouble.OUTPUT_UNAVAILABLE: (
        Exit.TEMPORARY,
        RpcCode.UNAVAILABLE,
        True,
        "ask again once a node that holds it is connected",
    ),
    # The command line
    Trouble.USAGE: (Exit.USAGE, RpcCode.INVALID_REQUEST, False, "quorate VERB --help"),
    Trouble.NO_NODE_RUNNING: (
        Exit.UNREACHABLE,
        RpcCode.INTERNAL,
        True,
        "start it with `quorate run`, or name one with --rpc URL or --home DIR",
    ),
    Trouble.UNREACHABLE: (
        Exit.UNREACHABLE,
        RpcCode.INTERNAL,
        True,
        "check that it runs and listens there: `quorate status --rpc URL`",
    ),
    Trouble.NOT_A_NODE: (
        Exit.UNREACHABLE,
        RpcCode.INTERNAL,
        False,
        "give the address of a quorate node's RPC with --rpc URL",
    ),
    Trouble.NO_SUCH_FILE: (Exit.USAGE, RpcCode.INTERNAL, False, "check the path"),
    Trouble.FILE_EXISTS: (*_BAD, "choose another path, or remove it first"),
    Trouble.CANNOT_WRITE: (Exit.USAGE, RpcCode.INTERNAL, False, "name another file with --out FILE"),
    Trouble.BAD_GENESIS: (*_BAD, "get the network's genesis file again, whole"),
    Trouble.BAD_CONFIGURATION: (*_BAD, "correct the file or the option that the message names"),
    Trouble.BAD_MODEL: (*_BAD, "get the model's directory again, whole, or make a new network with its card"),
    Trouble.BAD_KEY: (
        *_BAD,
        "restore keys/node.key from a backup; without one, `quorate init` in a new home makes a new identity",
    ),
    Trouble.KEY_LOCKED: (Exit.LOCKED, RpcCode.INTERNAL, False, "give the right passphrase with --passphrase-file FILE"),
    Trouble.PERMISSION: (
        Exit.LOCKED,
        RpcCode.INTERNAL,
        False,
        "run as the user who owns it, or correct its permissions",
    ),
    Trouble.HOME_LOCKED: (
        Exit.LOCKED,
        RpcCode.INTERNAL,
        True,
        "stop the other node, or choose another home with --home DIR",
    ),
    Trouble.WRONG_HOME: (
        *_BAD,
        "use this network's home, or make a new one with `quorate init --home DIR --genesis FILE`",
    ),
    Trouble.BAD_PROTECTION: (*_BAD, "write the file anew with `quorate ledger export-protection` in the old home"),
    Trouble.VOTES_LOST: (*_BAD, "start the node, and wait until it signs again"),
    Trouble.NOT_A_HOME: (*_BAD, "make it with `quorate init --home DIR --genesis FILE`"),
    Trouble.PORT_IN_USE: (*_BAD, "choose another port, or 0 for a free one, or stop who holds it"),
    Trouble.DISK_FULL: (
        Exit.TEMPORARY,
        RpcCode.INTERNAL,
        True,
        "free some space and start again: nothing that was final is lost",
    ),
    Trouble.DISK: (
        Exit.INTERNAL,
        RpcCode.INTERNAL,
        False,
        "check the disk; restore the home from a backup, or sync into a new one",
    ),
    Trouble.DAMAGED_LEDGER: (
        Exit.INVALID,
        RpcCode.INTERNAL,
        False,
        "move chain.db* away, keep votes.wal, and start again: the node then fetches the chain from its peers",
    ),
    Trouble.INTERRUPTED: (Exit.TEMPORARY, RpcCode.INTERNAL, True, "run it again"),
    Trouble.JOB_FAILED: (Exit.NO_ANSWER, RpcCode.REFUSED, True, "ask again: too few members answered in time"),
    Trouble.JOB_INCONCLUSIVE: (
        Exit.NO_ANSWER,
        RpcCode.REFUSED,
        True,
        "ask again, with more seats or another model: the members disagreed",
    ),
}

CONSEQUENCES: Final[dict[Reason, Consequence]] = {reason: Consequence(*row) for reason, row in _TABLE.items()}


class Fault(Exception):
    """Something that the caller is told in one sentence; everything else follows from its reason."""

    def __init__(
        self, reason: Reason, message: str, *, cure: str = "", exit_code: Exit | None = None, job: str = ""
    ) -> None:
        super().__init__(message)
        consequence = CONSEQUENCES[reason]
        self.reason = reason
        self.message = message
        self.job = job  # the job that it is about, where a program should know
        self.cure = cure or consequence.cure
        self.exit_code = consequence.exit if exit_code is None else exit_code
        self.rpc_code = consequence.rpc
        self.retryable = consequence.retryable


def fault_of(refusal: Refusal) -> Fault:
    """A refusal by the protocol, as the interfaces say it."""
    return Fault(refusal.reason, str(refusal))
