"""A model name, a user's factory or a checkpoint -> a feature extractor with its own transform."""

from divacli.backbones.backbone import Backbone, code_note, load_backbone

__all__ = ["Backbone", "code_note", "load_backbone"]
