"""The columns that diva knows: their names, their types, and which of them are its own results.

Any other column belongs to the user and is carried along untouched. `path`, `label` and `weight`, which every
table of samples has, are written out where they are used; all others are called by the names below.
"""

from __future__ import annotations

import pandas as pd

GROUP = "group"
"""Text: samples of one value are left out together."""

SPLIT = "split"
"""Text: the part of a data set that a sample is from; no command uses it."""

ID = "id"
"""Text: another name of the sample; no command uses it."""

FEATURE_SOURCE = "feature_source"
"""Text: the `.npz` file that has the sample's features, from the table's folder on; "" for an image."""

IMAGE_SHA256 = "image_sha256"
"""Text: digest of the image's content, by which a store finds its features."""

RANK = "rank"
"""Integer from 1: place among the scored samples, the most harmful first."""

DERIVATIVE = "derivative"
"""Number: dL/d(weight) of the summed validation loss; positive = harmful."""

LOO_LOSS = "loo_loss"
"""Number >= 0: loss of the sample's leave-one-out prediction."""

PREDICTED_LABEL = "predicted_label"
"""Text: class with the largest leave-one-out prediction."""

MISLABEL_PROBABILITY = "mislabel_probability"
"""Number in [0, 1]: probability that the given label is wrong."""

SUGGESTED_LABEL = "suggested_label"
"""Text: most probable class other than the given label."""

SUGGESTED_PROBABILITY = "suggested_probability"
"""Number in [0, 1]: probability that the suggested label is right."""

OUTLIER_SCORE = "outlier_score"
"""Number: distance and unexpected residual together; 1 = as far as the average sample."""

DERIVATIVE_SE = "derivative_se"
"""Number >= 0: standard error of the derivative."""

SIGNIFICANT = "significant"
"""Truth: whether the derivative differs from zero by more than chance."""

REASON = "reason"
"""Text: why a sample failed, was dropped or was not chosen."""

GIVEN_LABEL = "given_label"
"""Text: the label before any correction."""

TRUE_LABEL = "true_label"
"""Text: the right label, where it is known; for judging decisions alone."""

EXPECTED_LABEL = "expected_label"
"""Text; no command uses it."""

LABEL_SOURCE = "label_source"
"""Text: "predicted" where the label of a chosen sample is no given one."""

BATCH = "batch"
"""Integer from 1: between which refits a pool sample was chosen."""

POOL_DERIVATIVE = "pool_derivative"
"""Number: derivative of a labelled pool sample at weight zero; negative = worth adding. Not read back."""

EXPECTED_DERIVATIVE = "expected_derivative"
"""Number: the same of an unlabelled one, over the predicted probabilities of its label."""

LABEL_PROBABILITY = "label_probability"
"""Number in [0, 1]: probability that a pool sample's label is right. Not read back."""

MODALITY = "modality"
"""Text: the pool of another modality that a sample is from."""

TEXT = "text"
"""Text: a sample that is a text and no image."""

COPY_OF = "copy_of"
"""Text; no command uses it."""

IMAGE_PATH = "image_path"
"""Text: the name that an image in a Parquet file had before; no command uses it."""

REQUIRED = ("path", "label")
"""Columns that a table of samples cannot do without."""

OPTIONAL = (GROUP, SPLIT, ID, FEATURE_SOURCE)
"""Columns that follow path, label and weight, in order, where a table has them."""

COLUMN_TYPES = {
    "path": "text",
    "label": "text",
    "weight": "number",
    GROUP: "text",
    SPLIT: "text",
    ID: "text",
    FEATURE_SOURCE: "text",
    RANK: "integer",
    DERIVATIVE: "number",
    LOO_LOSS: "number",
    PREDICTED_LABEL: "text",
    MISLABEL_PROBABILITY: "number",
    SUGGESTED_LABEL: "text",
    SUGGESTED_PROBABILITY: "number",
    OUTLIER_SCORE: "number",
    DERIVATIVE_SE: "number",
    SIGNIFICANT: "truth",
    REASON: "text",
    IMAGE_SHA256: "text",
    GIVEN_LABEL: "text",
    TRUE_LABEL: "text",
    EXPECTED_LABEL: "text",
    LABEL_SOURCE: "text",
    EXPECTED_DERIVATIVE: "number",
    BATCH: "integer",
    MODALITY: "text",
    TEXT: "text",
    COPY_OF: "text",
    IMAGE_PATH: "text",
}
"""How the cells of each column that diva reads are typed: "text", "number", "integer" or "truth"."""

SCORE_COLUMNS = (RANK, "path", "label", "weight", DERIVATIVE, LOO_LOSS, PREDICTED_LABEL)
"""First columns of a table of scores, in order."""

JUDGED_COLUMNS = (
    MISLABEL_PROBABILITY,
    SUGGESTED_LABEL,
    SUGGESTED_PROBABILITY,
    OUTLIER_SCORE,
    DERIVATIVE_SE,
    SIGNIFICANT,
)
"""Columns that follow them, in order; the user's own come after these."""

RESULTS = tuple(name for name in (*SCORE_COLUMNS, *JUDGED_COLUMNS) if name not in ("path", "label", "weight"))
"""Columns that scoring makes, in order."""

BESIDE_DERIVATIVE = frozenset({*RESULTS, EXPECTED_DERIVATIVE, BATCH})
"""Known only beside a derivative: in a table without one they are the user's own."""

COMMON = frozenset({BATCH, MODALITY, REASON, TEXT, GIVEN_LABEL, SIGNIFICANT, IMAGE_PATH})
"""Names that are common for columns of other kinds too: cells not of the kind stated above make such a column
the user's own, and are no reason to refuse the table."""


def without_scores(table: pd.DataFrame) -> pd.DataFrame:
    """The table without the columns of an earlier result, which hold only for the samples it had."""
    if "derivative" not in table:
        return table
    return table.drop(columns=[name for name in table if name in RESULTS])
