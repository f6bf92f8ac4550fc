"""DATA of all kinds -> samples ready to be solved: embedded, their groups checked, copies and kin told of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from divacli.errors import listed
from divacli.features import (
    BackboneChoice,
    ExtractOptions,
    Samples,
    copies_of,
    finite_samples,
    read_data,
    samples_of,
)
from divacli.features.set_range import SharedRange
from divacli.images.failures import left_out
from divacli.manifest import Labels, Manifest, alike_between
from divacli.manifest.columns import FEATURE_SOURCE
from divacli.manifest.table import LOOKS
from divacli.manifest.understood import sentence
from divacli.manifest.validate import require_all_listed
from divacli.progress import Progress, silent
from divacli.reading import NamedData
from divacli.run_record import current
from divacli.solve.duplicates import (
    NEAR_SAMPLES,
    Duplicates,
    all_together,
    find_duplicates,
    with_known_sets,
    with_sets,
)
from divacli.solve.group_checks import GroupChecks
from divacli.solve.overlap import check_one_table, shared_samples

if TYPE_CHECKING:
    from divacli.features.augmentation import NamedTransform


Given = str | NamedData | Manifest | Samples
"""DATA as it was named, or as it was read."""


class Loader:
    """What one run of a command, or one call from Python, reads and embeds.

    Args:
        choice: The network for images.
        extract: How it runs, and on which device everything else does.
        cache: Folder for features, shared by all.
        group: A column of groups, "duplicates" to search for copies where DATA has no such column, "none", or
            None for the default one where there is such.
        strict: Raise where a sample has no features of use, instead of leaving it out.
        progress: Told how far the work is.
        warn: Told what the user should know, one sentence at a time.
        note: Told what is no warning.
    """

    def __init__(
        self,
        choice: BackboneChoice,
        extract: ExtractOptions,
        cache: Path,
        group: str | None = None,
        *,
        strict: bool = False,
        progress: Progress = silent,
        warn: Callable[[str], None],
        note: Callable[[str], None],
    ) -> None:
        self.choice = choice.telling(self.tell)
        self.device = extract.device
        self.cache = cache
        self.progress = progress
        self._extract = extract
        self._strict = strict
        self.groups = GroupChecks(group, warn)
        self.warn = warn
        self._note = note
        self._used = {group}
        self._noted: set[str] = set()
        self._found: Duplicates | None = None
        self._range = SharedRange(self.tell, warn)

    def use(self, columns: Sequence[str]) -> None:
        """Count columns among those that are used."""
        self._used.update(columns)

    def load(self, data: Given) -> Samples:
        """Samples of DATA with their features."""
        return self.embedded(opened(data))

    def load_both(self, data: Given, validation: Given | None) -> tuple[Samples, Samples | None]:
        """Samples with their features, and those of a validation set; both are checked before any work."""
        samples, _, found = self.load_all(data, [], validation)
        return samples, found

    def load_all(
        self,
        data: Given,
        others: Sequence[Manifest | Samples],
        validation: Given | None,
    ) -> tuple[Samples, list[Samples], Samples | None]:
        """As `load_both`, with further sets that need no check."""
        training = opened(data)
        manifest = manifest_in(training)
        self.groups.check(manifest)
        held_out = None if validation is None else opened(validation)
        if held_out is not None:
            manifest_in(held_out).class_numbers(manifest.classes)
            self.groups.warn_of_kin(manifest, manifest_in(held_out))
        self.warned_of_alike(manifest, *map(manifest_in, others))
        self._range.settle(training, *others, held_out)
        samples, further = self.embedded(training), [self.embedded(other) for other in others]
        judged = None if held_out is None else self.embedded(held_out)
        self._warn_of_shared(samples, judged)
        return self._with_copies(samples, further, judged)

    def load_pool(
        self, data: Given, pool: Given, validation: Given | None, *, labels_given: bool = True
    ) -> tuple[Samples, Samples, Samples | None]:
        """A core, the candidates of a pool, and a validation set; all are read before any is embedded.

        Args:
            data: The core.
            pool: With labels or without.
            validation: Its labels are among those of core and pool.
            labels_given: Whether the pool's labels, where it has any, are looked at.
        """
        training = opened(data)
        candidates = opened(pool, labels="optional")
        if not labels_given:
            if isinstance(candidates, Samples):
                candidates = replace(candidates, manifest=candidates.manifest.without_labels())
            else:
                candidates = candidates.without_labels()
        manifest = manifest_in(training)
        check_one_table(manifest, manifest_in(candidates))
        held_out = None if validation is None else opened(validation)
        if held_out is not None:
            known = {*manifest.classes, *manifest_in(candidates).classes}
            manifest_in(held_out).class_numbers(sorted(known))
        self.warned_of_alike(manifest, manifest_in(candidates))
        self.groups.check_all(
            manifest, [manifest_in(candidates)], None if held_out is None else manifest_in(held_out)
        )
        self._range.settle(training, candidates, held_out)
        core, chosen_from = self.embedded(training), self.embedded(candidates)
        judged = None if held_out is None else self.embedded(held_out)
        self._warn_of_shared(core, judged)
        core, [chosen_from], judged = self._with_copies(core, [chosen_from], judged)
        return core, chosen_from, judged

    def copies(self, samples: Samples, transform: NamedTransform, seed: int) -> Samples:
        """Samples with the features of their transformed copies; warns of images that have none.

        Args:
            samples: Images.
            transform: Of images.
            seed: Of what it draws.
        """
        # A class may be left without copies.
        manifest = replace(samples.manifest, labels_required=False)
        found = copies_of(
            manifest,
            self.choice,
            transform,
            self._extract,
            self.cache,
            seed=seed,
            strict=self._strict,
            progress=self.progress,
        )
        if len(found.failed):
            self.warn(
                f"{len(found.failed):,} images have no copy by {transform.name} and stay as they are, the "
                f"first: {found.failed['path'].iloc[0]} ({found.failed['reason'].iloc[0]})"
            )
        return found

    def load_modalities(
        self, data: Given, pools: Mapping[str, Given], validation: Given | None
    ) -> tuple[Samples, list[tuple[str, Samples]], Samples | None]:
        """A core, other modalities by name, and a validation set.

        Args:
            data: The core.
            pools: Samples of another modality each, or a table of texts.
            validation: Of the core's modality.
        """
        from divacli.features.texts import TEXTS, is_text_table, read_texts

        training = opened(data)
        manifest = manifest_in(training)
        texts: dict[str, Manifest] = {}
        others: dict[str, Manifest | Samples] = {}
        for name, pool in pools.items():
            place = pool.name if isinstance(pool, NamedData) else pool
            if isinstance(place, str) and is_text_table(place):
                texts[name] = read_texts(place)
            elif isinstance(pool, Manifest) and pool.kind == TEXTS:
                texts[name] = pool
            else:
                others[name] = opened(pool, labels="optional")
        held_out = None if validation is None else opened(validation)
        candidates = [*texts.values(), *(manifest_in(other) for other in others.values())]
        if held_out is not None:
            known = {label for one in (manifest, *candidates) for label in one.classes}
            manifest_in(held_out).class_numbers(sorted(known))
        self.warned_of_alike(manifest, *candidates)
        self.groups.check_all(manifest, candidates, None if held_out is None else manifest_in(held_out))
        # A network that embeds no texts is refused before any image is embedded.
        embedded = self._text_embedder() if texts else None
        self._range.settle(training, *others.values(), held_out)
        core = self.embedded(training)
        found: dict[str, Samples] = {}
        for name in pools:
            if embedded is not None and name in texts:
                found[name] = self._told(embedded(texts[name]))
            else:
                found[name] = self.embedded(others[name])
        core, modalities, judged = self._with_copies(
            core, list(found.values()), None if held_out is None else self.embedded(held_out)
        )
        return core, list(zip(found, modalities, strict=True)), judged

    def _warn_of_shared(self, training: Samples, judged: Samples | None) -> None:
        """Say how many samples that a loss is over are among those that are trained on."""
        if judged is not None and (shared := shared_samples(training, judged)):
            self.warn(
                f"{shared:,} of the {len(judged):,} validation samples are also in {training.manifest.name}: "
                "the validation flatters what is trained on them"
            )

    def _text_embedder(self) -> Callable[[Manifest], Samples]:
        from divacli.backbones.hub.clip import load_text_encoder
        from divacli.features.texts import text_samples

        model = self.choice.model
        encoder = load_text_encoder(model if isinstance(model, str) else None)
        return lambda texts: text_samples(texts, encoder, self._extract, self.cache, progress=self.progress)

    def warned_of_alike(self, training: Manifest, *others: Manifest) -> None:
        """Say which labels of other samples are those of the training samples but for case or spaces."""
        for other in others:
            pairs = alike_between(other.classes, training.classes)
            if pairs:
                self.warn(
                    f"labels of {other.name} and {training.name} that differ only by {LOOKS} count as "
                    f"different: {listed(pairs)}"
                )

    def duplicates_of(self, samples: Samples, *, asked: bool = False) -> Duplicates:
        """The copies among some samples, searched for unless they are known.

        Args:
            samples: Of many, only equal ones are looked for unless that was asked for.
            asked: Whether it was.
        """
        if self._found is None or self._found.samples is not samples:
            near = asked or len(samples) <= NEAR_SAMPLES
            if not near:
                self.tell(
                    f"only equal samples were looked for: {len(samples):,} are too many to compare all. "
                    "--group duplicates looks for almost equal ones, too"
                )
            self._found = find_duplicates(samples, self.device, self.progress, near=near)
        return self._found

    def training_manifests(self, read: Sequence[Manifest | Samples]) -> list[Manifest]:
        """Samples to train a network on, then those to test it on, all checked.

        Copies that are searched for are those that the network sees before it is trained.

        Args:
            read: What `read_data` gave.
        """
        self._range.settle(*read)
        read = [part if isinstance(part, Samples) else self._range.of(part) for part in read]
        manifests = [manifest_in(part) for part in read]
        core, *tested = manifests
        self.groups.check(core)
        if self.groups.searches_copies(core):
            for manifest in tested:
                manifest.class_numbers(core.classes)
            found, others, _ = self._with_copies(
                self.embedded(read[0]), [self.embedded(part) for part in read[1:]], None
            )
            manifests = [
                with_known_sets(manifest, samples.manifest)
                for manifest, samples in zip(manifests, [found, *others], strict=True)
            ]
        else:
            for manifest in manifests:
                self.warned(manifest)
        for manifest in manifests[1:]:
            self.groups.warn_of_kin(manifests[0], manifest)
        return manifests

    def _with_copies(
        self, core: Samples, others: list[Samples], judged: Samples | None
    ) -> tuple[Samples, list[Samples], Samples | None]:
        """The same samples with the sets of copies among all of them as a column, where these are the groups.

        Args:
            core: Training samples.
            others: Further samples.
            judged: Those that a loss is over; copies of the core among them are told of.
        """
        if not self.groups.searches_copies(core.manifest):
            return core, others, judged
        held_out = [] if judged is None else [judged]
        sets = [core, *others, *held_out]
        found = self.duplicates_of(all_together(sets), asked=True)
        n_copies = int((found.numbers[: len(core)] > 0).sum())
        self.tell(
            f"{n_copies:,} of the {len(core):,} samples of {core.manifest.name} have copies, "
            "which are left out together"
            if n_copies
            else f"no copies found of samples of {core.manifest.name}: each is left out by itself"
        )
        core, *rest = with_sets(sets, found)
        if not others and judged is None:
            self._found = replace(found, samples=core)
        if judged is not None:
            judged = rest.pop()
            self.groups.warn_of_kin(core.manifest, judged.manifest)
        return core, rest, judged

    def embedded(self, data: Manifest | Samples) -> Samples:
        """Samples with their features."""
        if isinstance(data, Samples):
            return self._told(finite_samples(data, strict=self._strict))
        found = samples_of(
            self._range.of(data),
            self.choice,
            self._extract,
            self.cache,
            strict=self._strict,
            progress=self.progress,
        )
        return self._told(found)

    def _told(self, samples: Samples) -> Samples:
        self.warned(samples.manifest)
        if self.choice.named and FEATURE_SOURCE in samples.manifest.table:
            self.warn(
                f"{samples.manifest.name} brings its features: the network that was named is not used for it"
            )
        for note in samples.notes:
            self.tell(note)
        current().embedded(samples.manifest, samples.fingerprint, samples.identity)
        if len(samples.failed):
            what = "samples" if FEATURE_SOURCE in samples.manifest.table else "images"
            self.warn(left_out(samples.failed, what))
        return samples

    def tell(self, note: str) -> None:
        """Say something that is no warning, once: all data of one command go through one network."""
        if note not in self._noted:
            self._note(note)
            self._noted.add(note)

    def warned(self, manifest: Manifest) -> None:
        """Say what the user should know of a data set.

        Raises:
            DataError: Its table names a part of the images only, where that is to stop.
        """
        if self._strict:
            require_all_listed(manifest)
        unused = [column for column in manifest.unused if column not in self._used]
        if unused:
            self.warn(f"{manifest.name}: columns kept but not used: {listed(unused)}.")
        for message in manifest.warnings:
            self.warn(message)
        for note in (sentence(manifest), *manifest.notes):
            self.tell(note)


def manifest_in(data: Manifest | Samples) -> Manifest:
    """The samples alone."""
    return data.manifest if isinstance(data, Samples) else data


def opened(data: Given, labels: Labels = "required") -> Manifest | Samples:
    """Read DATA that was named; what was read already stays as it is.

    Args:
        data: As on the command line, or read.
        labels: As for `read_data`.

    Raises:
        DivaError: DATA is not usable.
    """
    if isinstance(data, NamedData):
        return read_data(data.name, labels=labels, reading=data.reading)
    return read_data(data, labels=labels) if isinstance(data, str) else data
