"""Features of every sample: computed once, kept on disk under the content of its image."""

from divacli.embed.data import copies_of, load_samples, samples_of
from divacli.embed.network import BackboneChoice
from divacli.embed.open import read_data
from divacli.embed.options import ExtractOptions
from divacli.embed.samples import Samples, is_store, joined
from divacli.embed.sources import finite_samples
from divacli.embed.write_store import write_features, write_store

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
