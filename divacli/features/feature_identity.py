"""What features depend on beside the images, and which features may stand beside one another."""

from __future__ import annotations

import json

from divacli.errors import StoreError
from divacli.features.keys import digest_of
from divacli.images.scaling import PixelRange

PIXELS = "pixels"
"""Entry of an identity: which values of images of more than 8 bits are black and white, where that is not as
`scaling.AS_STORED` has it."""


def pixels_of(identity: dict[str, str], name: str) -> PixelRange:
    """The range of pixel values that features were computed with.

    Args:
        identity: What the features depend on.
        name: Whose they are, for messages.

    Raises:
        StoreError: The identity names something else.
    """
    try:
        return PixelRange.of_text(identity.get(PIXELS, ""))
    except ValueError as error:
        raise StoreError(
            f"{name}: {error}",
            expected="such as 0..4095",
            hint="make the store anew with: diva embed DATA --out DIR",
        ) from error


def identity_fingerprint(identity: dict[str, str]) -> str:
    """Hexadecimal digest of what features depend on."""
    return digest_of(json.dumps(identity, sort_keys=True).encode())


def require_same_identity(wanted: dict[str, str], found: dict[str, str], name: str) -> None:
    """Refuse to mix features of different networks.

    Args:
        wanted: What features are to depend on.
        found: What those of `name` depend on.
        name: A store or DATA.

    Raises:
        StoreError: What differs, by name.
    """
    different = [key for key in sorted({*wanted, *found}) if wanted.get(key) != found.get(key)]
    if different:
        differences = "; ".join(
            f"{key} {found.get(key, 'nothing')!r} and not {wanted.get(key, 'nothing')!r}" for key in different
        )
        raise StoreError(
            f"{name} holds features computed otherwise: {differences}",
            expected="the same network, weights, layer and transform",
            hint="embed the images again with the same options, in another folder",
        )


def require_same_space(wanted: dict[str, str], found: dict[str, str], name: str) -> None:
    """Refuse to mix embeddings that do not lie in one space.

    Images and texts of one CLIP model do: their identities agree in the entry `space`. Where neither has that
    entry, they must be features of one network. Embeddings without identity came without a network, so that
    there is nothing to compare.

    Args:
        wanted: What the one kind of embeddings depends on.
        found: What those of `name` depend on.
        name: A store or DATA.

    Raises:
        StoreError: They are of different models.
    """
    if not wanted or not found:
        return
    if "space" not in wanted and "space" not in found:
        require_same_identity(wanted, found, name)
    elif wanted.get("space") != found.get("space"):
        spaces = [identity.get("space", "none")[:12] for identity in (found, wanted)]
        raise StoreError(
            f"{name} holds embeddings of another model: space {spaces[0]} and not {spaces[1]}",
            expected="images and texts that one CLIP model has embedded",
            hint="give the same --model clip:NAME for both",
        )
