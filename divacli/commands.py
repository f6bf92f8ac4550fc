"""The commands of `diva`, in the order of its help, and where Python finds their functions."""

COMMANDS: dict[str, str | None] = {
    "score": "decide",
    "prune": "decide",
    "relabel": "decide",
    "votes": "decide",
    "apply": "decide",
    "export": None,
    "report": None,
    "review": None,
    "reweight": "improve",
    "extend": "improve",
    "augment": "improve",
    "aggregate": "improve",
    "train": "train",
    "evaluate": "train",
    "plot": None,
    "embed": "features",
    "demo": None,
    "doctor": None,
}
"""Name -> module of `divacli.api` with its function; None where there is no result to return."""
