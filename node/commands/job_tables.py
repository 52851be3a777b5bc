"""What `jobs show` prints."""

from node.commands.answers import describe_capture, print_seats
from node.render import clip, format_ppm, format_units, open_console, print_facts, shorten
from node.rpc_types import JobState


def print_job(state: JobState) -> None:
    """A job as it stands: facts, then one row a seat."""
    paid = "open" if state.cost is None else f"{format_units(state.cost)} units"
    heights = f"submitted {state.submit_height:,}"
    if state.maturity_height is not None:
        heights += f", drawn {state.maturity_height:,}"
    if state.settle_height is not None:
        heights += f", settled {state.settle_height:,}"
    facts = [
        ("job", state.job),
        ("status", state.status if state.status != "open" else f"open · {state.phase}"),
        ("question", clip(state.prompt, 200)),
        ("model", f"{state.model_name} ({shorten(state.model)})"),
        ("rule", f"{state.rule} of {len(state.seats)}"),
        ("heights", heights),
        ("asker", f"{shorten(state.requester)} · fee {format_units(state.fee)} units · paid {paid}"),
        ("candidates", f"{state.candidates} nodes with {format_ppm(state.candidate_share_ppm)} of all stake"),
        ("capture", describe_capture(state)),
    ]
    if state.agreement_ppm is not None:
        entropy = (state.entropy_millibits or 0) / 1000
        facts.append(("agreement", f"{format_ppm(state.agreement_ppm)} · entropy {entropy:.3f} bits"))
    print_facts(open_console(), facts)
    if state.seats:
        print_seats(state, {})
