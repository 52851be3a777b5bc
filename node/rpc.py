"""The registry of RPC methods: what each takes, gives and may refuse, and what it does.

Reads come from the engine's latest frozen snapshot, changes go to the engine and are answered once it has judged them. The
dispatcher is node/jsonrpc.py; the shapes are node/rpc_types.py.
"""

import os
from pathlib import Path
from typing import Final

import trio

from node.faults import Fault, Reason, Trouble
from node.jsonrpc import Context, Method, Registry, describe_registry, make_method, make_registry
from node.rpc_chain import (
    ChainParams,
    ChainResult,
    CheckpointParams,
    CheckpointResult,
    read_chain,
    read_checkpoint,
)
from node.rpc_discovery import Discovery
from node.rpc_jobs import read_certificate, read_job, read_jobs, read_output, submit_job, wait_job
from node.rpc_types import (
    AccountParams,
    AccountResult,
    BlockParams,
    BlockResult,
    BlockTransaction,
    CertificateResult,
    JobList,
    JobListParams,
    JobParams,
    JobState,
    JobSubmitParams,
    JobSubmitted,
    JobWaitParams,
    ModelList,
    NodeStatus,
    Nothing,
    OutputParams,
    OutputResult,
    PeerList,
    TransactionParams,
    TransactionResult,
    TransactionState,
    TransactionWaitParams,
    WorkerState,
)
from node.rpc_views import check_readiness, name_signing, view_account, view_models, view_peer
from node.version import get_version
from protocol.block import BLOCK_CODEC
from protocol.errors import Rejection
from protocol.jobs.settlement import Phase
from protocol.ledger.epochs import get_epoch_terms
from protocol.ledger.queries import get_job, get_standing, list_jobs
from protocol.params import compute_boundary
from protocol.transactions import TRANSACTION_CODEC, author_of, compute_transaction_id


async def read_account(context: Context, params: AccountParams) -> AccountResult:
    """An account: what it can spend, what it has bonded."""
    snapshot = context.api.get_snapshot()
    node = snapshot.node if params.node is None else bytes.fromhex(params.node)
    return view_account(snapshot, node)


async def read_block(context: Context, params: BlockParams) -> BlockResult:
    """A final block."""
    tip = context.api.get_snapshot().header.height
    height = tip if params.height is None else params.height
    stored = context.api.get_block(height)
    if stored is None:
        raise Fault(Trouble.UNKNOWN_BLOCK, f"this node holds no final block {height}; its last is {tip}")
    encoded, block_hash = stored
    block = BLOCK_CODEC.decode(encoded)
    header = block.header
    return BlockResult(
        height=header.height,
        hash=block_hash.hex(),
        parent_hash=header.parent_hash.hex(),
        epoch=header.epoch,
        view=header.view,
        time_ms=header.time_ms,
        state_root=header.state_root.hex(),
        candidates_root=header.candidates_root.hex(),
        beacon=header.beacon.hex(),
        transactions=tuple(_view_transaction(each) for each in block.body),
        block=encoded,
    )


def _view_transaction(encoded: bytes) -> BlockTransaction:
    body = TRANSACTION_CODEC.decode(encoded).body
    return BlockTransaction(compute_transaction_id(body).hex(), type(body).__name__, author_of(body).hex())


async def submit_transaction(context: Context, params: TransactionParams) -> TransactionResult:
    """Gives a signed transaction to the network."""
    signed = TRANSACTION_CODEC.decode(params.transaction)
    return TransactionResult((await context.api.submit_transaction(signed)).hex())


async def wait_transaction(context: Context, params: TransactionWaitParams) -> TransactionState:
    """Where a transaction is final, once it is, or after timeout_ms."""
    transaction, snapshot = bytes.fromhex(params.transaction), context.api.get_snapshot()
    with trio.move_on_after(params.timeout_ms / 1000):
        while context.api.find_transaction(transaction) is None:
            snapshot = await context.api.wait_block(snapshot.header.height)
    return TransactionState(params.transaction.lower(), context.api.find_transaction(transaction))


async def read_status(context: Context, _params: Nothing) -> NodeStatus:
    """The node, its chain and whether it is ready, with every check, its reason and its cure."""
    api = context.api
    snapshot = api.get_snapshot()
    worker, standing = snapshot.worker, get_standing(snapshot.ledger, snapshot.node)
    phases = [view.phase for job in list_jobs(snapshot.ledger) if (view := get_job(snapshot.ledger, job)) is not None]
    return NodeStatus(
        node=snapshot.node.hex(),
        version=get_version(),
        chain_id=snapshot.chain_id.hex(),
        chain_name=snapshot.chain_name,
        height=snapshot.header.height,
        block_hash=snapshot.header_hash.hex(),
        block_time_ms=snapshot.header.time_ms,
        state_root=snapshot.header.state_root.hex(),
        epoch=snapshot.epoch,
        epoch_end=compute_boundary(api.genesis.params, snapshot.epoch),
        view=snapshot.view,
        is_validator=snapshot.is_validator,
        weight=standing.weight,
        next_weight=standing.next_weight,
        jailed_until_ms=standing.jailed_until_ms,
        signing=name_signing(snapshot),
        signing_from=snapshot.signs_from,
        sync_target=snapshot.sync_target,
        halted=snapshot.halted,
        readiness=check_readiness(snapshot, context.now_ms()),
        peers_connected=sum(peer.connected for peer in snapshot.peers),
        peers_seeing_me=sum(peer.connected and peer.sees_me for peer in snapshot.peers),
        validators=len(get_epoch_terms(snapshot.ledger).validators.members),
        balance=api.get_balance(),
        open_jobs=sum(phase is not Phase.SETTLED for phase in phases),
        waiting_transactions=snapshot.mempool_transactions,
        worker=WorkerState(worker.ready, worker.reason, tuple(name for _, name in worker.models), worker.queued),
        started_ms=snapshot.started_ms,
        uptime_ms=max(0, context.now_ms() - snapshot.started_ms),
        rss_bytes=read_rss_bytes(),
        finality_ms_recent=snapshot.finality_ms_recent,
        generation_ms_recent=snapshot.generation_ms_recent,
        cpu_samples=dict(snapshot.cpu_samples),
        disk_wait_ms=snapshot.disk_wait_ms,
    )


def read_rss_bytes() -> int:
    """This process's resident memory, from Linux's /proc; 0 where there is none."""
    try:
        pages = Path("/proc/self/statm").read_text("ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


async def read_peers(context: Context, _params: Nothing) -> PeerList:
    """The peers, connected or not, and why not."""
    return PeerList(tuple(view_peer(peer) for peer in context.api.get_snapshot().peers))


async def read_models(context: Context, _params: Nothing) -> ModelList:
    """The registered models, and how many nodes may be drawn for each."""
    return ModelList(view_models(context.api.get_snapshot()))


_JOB_REFUSALS: Final[tuple[Reason, ...]] = (
    Rejection.UNKNOWN_MODEL,
    Rejection.EMPTY_PROMPT,
    Rejection.PROMPT_TOO_LONG,
    Rejection.BAD_SEATS,
    Rejection.TOO_FEW_CANDIDATES,
    Rejection.FEE_TOO_LOW,
    Rejection.BAD_WINDOW,
    Rejection.BAD_SETTINGS,
    Rejection.UNAFFORDABLE,
    Rejection.TOO_MANY,
    Rejection.BUSY,
    Trouble.FEE_ABOVE_MAXIMUM,
    Trouble.PROMPT_REFUSED,
    Trouble.SYNCING,
    Trouble.HALTED,
)
_TRANSACTION_REFUSALS: Final[tuple[Reason, ...]] = (
    Rejection.MALFORMED,
    Rejection.NOT_CANONICAL,
    Rejection.TOO_LARGE,
    Rejection.BAD_SIGNATURE,
    Rejection.BAD_NONCE,
    Rejection.EXPIRED,
    Rejection.UNAFFORDABLE,
    Rejection.DUPLICATE,
    Rejection.TOO_MANY,
    Rejection.BUSY,
    Rejection.TOO_EARLY,
    Rejection.CONVICTED,
    Rejection.JAILED,
    Rejection.NOT_JAILED,
    Rejection.NOT_BONDED,
    Rejection.ZERO_AMOUNT,
    Rejection.UNKNOWN_MODEL,
    Rejection.MODEL_EXISTS,
    Rejection.BAD_CARD,
    Rejection.EMPTY_PROMPT,
    Rejection.PROMPT_TOO_LONG,
    Rejection.BAD_SEATS,
    Rejection.TOO_FEW_CANDIDATES,
    Rejection.FEE_TOO_LOW,
    Rejection.BAD_WINDOW,
    Rejection.BAD_SETTINGS,
    Rejection.UNKNOWN_JOB,
    Rejection.WRONG_PHASE,
    Rejection.NOT_A_MEMBER,
    Rejection.COMMITMENT_MISMATCH,
    Rejection.UNKNOWN_SIGNER,
    Rejection.OUT_OF_RANGE,
    Rejection.BAD_PROOF,
)


_JOB: Final[tuple[Reason, ...]] = (Rejection.UNKNOWN_JOB,)

METHODS: Final[tuple[Method, ...]] = (
    make_method("job_submit", JobSubmitParams, JobSubmitted, "Asks the network a question.", _JOB_REFUSALS, submit_job),
    make_method("job_get", JobParams, JobState, "A job as the last final block has it.", _JOB, read_job),
    make_method(
        "job_wait",
        JobWaitParams,
        JobState,
        "Waits until a job has moved or is settled, at most 30 s a call.",
        _JOB,
        wait_job,
    ),
    make_method("job_list", JobListParams, JobList, "The newest jobs that the ledger still holds.", (), read_jobs),
    make_method(
        "certificate_get",
        JobParams,
        CertificateResult,
        "A settled job's certificate.",
        (*_JOB, Trouble.CERTIFICATE_UNAVAILABLE),
        read_certificate,
    ),
    make_method(
        "output_get",
        OutputParams,
        OutputResult,
        "An output of a job, checked against its hash.",
        (*_JOB, Trouble.OUTPUT_UNAVAILABLE),
        read_output,
    ),
    make_method(
        "chain_get", ChainParams, ChainResult, "The changes of the validator set, as a chain file.", (), read_chain
    ),
    make_method(
        "checkpoint_get",
        CheckpointParams,
        CheckpointResult,
        "A final block's header to be trusted, with its validators.",
        (Trouble.UNKNOWN_BLOCK,),
        read_checkpoint,
    ),
    make_method("account_get", AccountParams, AccountResult, "What an account owns.", (), read_account),
    make_method("block_get", BlockParams, BlockResult, "A final block.", (Trouble.UNKNOWN_BLOCK,), read_block),
    make_method(
        "tx_submit",
        TransactionParams,
        TransactionResult,
        "Gives a signed transaction to the network.",
        _TRANSACTION_REFUSALS,
        submit_transaction,
    ),
    make_method(
        "tx_wait",
        TransactionWaitParams,
        TransactionState,
        "Waits until a transaction is in a final block, at most 30 s a call.",
        (),
        wait_transaction,
    ),
    make_method("node_status", Nothing, NodeStatus, "The node, its chain, and whether it is ready.", (), read_status),
    make_method("net_peers", Nothing, PeerList, "The peers, and why they are not connected.", (), read_peers),
    make_method("model_list", Nothing, ModelList, "The registered models.", (), read_models),
)


async def _discover(_context: Context, _params: Nothing) -> Discovery:
    return describe_registry(REGISTRY, get_version())


REGISTRY: Final[Registry] = make_registry(
    (*METHODS, make_method("rpc.discover", Nothing, Discovery, "This list, as OpenRPC.", (), _discover))
)
