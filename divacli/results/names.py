"""Names of the files in a folder of results: tables without suffix, and JSON files without `.json`.

Each command writes its own (`FILES` of its module in `divacli.curate`); pages and plots read them back.
"""

from __future__ import annotations

FAILED = "failed"
"""Table of samples that could not be used, of every command."""

SCORES, DUPLICATES, HARM, SUMMARY = "scores", "duplicates", "harm", "summary"
"""Tables of `diva score`: samples, copies and near-copies, sums by column; and its JSON file."""

KEPT, DROPPED, PRUNE = "kept", "dropped", "prune"
"""Tables of `diva prune`, and its JSON file."""

RELABELLED, CHANGES, RELABEL = "relabelled", "changes", "relabel"
"""Tables of `diva relabel`, and its JSON file."""

REWEIGHTED, REWEIGHT, TRAIN = "reweighted", "reweight", "train"
"""The table of `diva reweight` and `diva train`, and their JSON files."""

AUGMENT = "augment"
"""The JSON file of `diva augment`."""

EXTENDED, SELECTED, REMAINING = "extended", "selected", "remaining"
"""Tables of `diva extend` and `diva aggregate`."""

EXTEND, AGGREGATE = "extend", "aggregate"
"""Their JSON files."""

HISTORY = "history"
"""Table of what these and `diva train` went through."""

EVALUATION, CURVE = "evaluation", "curve"
"""Tables of `diva evaluate`; the first is the name of its JSON file, too."""
