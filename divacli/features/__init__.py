"""Features of every sample: computed once, kept on disk under the content of its image."""

from divacli.features.backbone_choice import BackboneChoice
from divacli.features.embedding import copies_of, load_samples, samples_of
from divacli.features.options import ExtractOptions
from divacli.features.read import read_data
from divacli.features.samples import Samples, is_store, joined
from divacli.features.sources import finite_samples
from divacli.features.write_store import write_features, write_store

__all__ = [
    "BackboneChoice",
    "ExtractOptions",
    "Samples",
    "copies_of",
    "finite_samples",
    "is_store",
    "joined",
    "load_samples",
    "read_data",
    "samples_of",
    "write_features",
    "write_store",
]
