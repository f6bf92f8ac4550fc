"""Which pixel values are black and white on a page of results: as the network saw the images."""

from __future__ import annotations

from divacli.errors import DivaError
from divacli.features.feature_identity import PIXELS
from divacli.images.pixel_range import find_range
from divacli.images.scaling import PixelRange
from divacli.manifest import Manifest
from divacli.results.read import Results
from divacli.results.runfile import RunFile


def shown_range(results: Results, samples: Manifest) -> PixelRange:
    """The range that the newest command that wrote into a folder has scaled its images by.

    Args:
        results: The folder.
        samples: All its samples; where no command is known to have seen them, they are looked at.
    """
    try:
        for run in reversed(RunFile.read(results.folder).runs):
            for read in run["inputs"]:
                if identity := read.get("features", {}).get("identity"):
                    return PixelRange.of_text(identity.get(PIXELS, ""))
    except (DivaError, LookupError, TypeError, ValueError, AttributeError):
        pass  # a record that somebody has edited
    named = samples.names_only
    return find_range([file for file, name in zip(samples.files(), named, strict=True) if not name])
