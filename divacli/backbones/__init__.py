"""A model name, a user's factory or a checkpoint -> a feature extractor with its own transform."""

from divacli.backbones.backbone import Backbone, code_note, load_backbone
from divacli.backbones.linearised.expression import Linearize

__all__ = ["Backbone", "Linearize", "code_note", "load_backbone"]
