"""From parsed options to the objects that do the work, and from results to files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from divacli.cli.command import RichProgress, say, warn
from divacli.cli.options import (
    ComputeOptions,
    DtypeName,
    FrameOptions,
    LossName,
    NetworkOptions,
    ProblemOptions,
    ValidationName,
)
from divacli.cli.processes import launched
from divacli.errors import listed

if TYPE_CHECKING:
    from divacli.curate.duplicates import Duplicates
    from divacli.curate.record import Scores
    from divacli.curate.solution import SolveOptions
    from divacli.embed import BackboneChoice, ExtractOptions, Samples
    from divacli.embed.augmentation import NamedTransform
    from divacli.manifest import Manifest


class Session:
    """One run of a command that works on features.

    Args:
        network: Options, and so are the others.
        compute: How features are computed.
        frame: Progress and quiet.
        group: `--group`: a column of groups, "duplicates" to search for copies where DATA has no such column,
            "none", or None for the default one where there is such.

    Raises:
        DivaError: There is no such device.
    """

    def __init__(
        self,
        network: NetworkOptions,
        compute: ComputeOptions,
        frame: FrameOptions,
        group: str | None = None,
    ) -> None:
        from divacli.embed import BackboneChoice, ExtractOptions
        from divacli.embed.device import resolve_device
        from divacli.parallel import join

        self.quiet = frame.quiet
        self.progress = RichProgress(frame)
        self.cache = compute.cache_dir or default_cache()
        self.device = resolve_device(compute.device)
        if launched():
            join(self.device)
        self.choice: BackboneChoice = BackboneChoice(
            network.model, network.checkpoint, network.weights, network.layer, network.image_size
        )
        self._extract: ExtractOptions = ExtractOptions(
            self.device, compute.batch_size, compute.workers, compute.amp, compute.compile, tell=warn
        )
        self._model = network.model
        self._network_named = network != NetworkOptions()
        self._strict = compute.strict
        self._group = group
        self._used = {group}
        self._noted: set[str] = set()
        self._found: Duplicates | None = None

    def use(self, opened: Manifest | Samples, columns: Sequence[str]) -> None:
        """Refuse samples without columns to sum derivatives by; those are not among the unused ones.

        Raises:
            DataError: There is no such column.
        """
        from divacli.curate.harm import require_columns

        require_columns(_manifest(opened), columns)
        self._used.update(columns)

    def load(self, data: str) -> Samples:
        """Samples of DATA with their features; warnings go to standard error."""
        from divacli.embed import read_data

        return self.embedded(read_data(data))

    def load_both(self, opened: Manifest | Samples, validation: str | None) -> tuple[Samples, Samples | None]:
        """Samples with their features, and those of a validation set; both are checked before any work."""
        samples, _, found = self.load_all(opened, [], validation)
        return samples, found

    def load_all(
        self, opened: Manifest | Samples, others: Sequence[Manifest | Samples], validation: str | None
    ) -> tuple[Samples, list[Samples], Samples | None]:
        """As `load_both`, with further sets that need no check."""
        from divacli.embed import read_data

        self.check_groups(_manifest(opened))
        held_out = None if validation is None else read_data(validation)
        if held_out is not None:
            _manifest(held_out).class_numbers(_manifest(opened).classes)
            self.warned_of_kin(_manifest(opened), _manifest(held_out))
        return self._with_copies(
            self.embedded(opened),
            [self.embedded(other) for other in others],
            None if held_out is None else self.embedded(held_out),
        )

    def load_pool(
        self, data: str, pool: str, validation: str | None, *, labels_given: bool = True
    ) -> tuple[Samples, Samples, Samples | None]:
        """A core, the candidates of a pool, and a validation set; all are read before any is embedded.

        Args:
            data: The core.
            pool: With labels or without.
            validation: Its labels are among those of core and pool.
            labels_given: Whether the pool's labels, where it has any, are looked at.
        """
        from divacli.curate.extend import check_one_table
        from divacli.embed import Samples, read_data

        opened = read_data(data)
        candidates = read_data(pool, labels="optional")
        if not labels_given:
            if isinstance(candidates, Samples):
                candidates = replace(candidates, manifest=candidates.manifest.without_labels())
            else:
                candidates = candidates.without_labels()
        check_one_table(_manifest(opened), _manifest(candidates))
        held_out = None if validation is None else read_data(validation)
        if held_out is not None:
            known = {*_manifest(opened).classes, *_manifest(candidates).classes}
            _manifest(held_out).class_numbers(sorted(known))
        self._check_kin(_manifest(opened), [_manifest(candidates)], held_out)
        core, [chosen_from], judged = self._with_copies(
            self.embedded(opened),
            [self.embedded(candidates)],
            None if held_out is None else self.embedded(held_out),
        )
        return core, chosen_from, judged

    def copies(self, samples: Samples, transform: NamedTransform, seed: int) -> Samples:
        """Samples with the features of their transformed copies; warns of images that have none.

        Args:
            samples: Images.
            transform: Of images.
            seed: Of what it draws.
        """
        from divacli.embed import copies_of

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
            warn(
                f"{len(found.failed):,} images have no copy by {transform.name} and stay as they are, the "
                f"first: {found.failed['path'].iloc[0]} ({found.failed['reason'].iloc[0]})"
            )
        return found

    def load_modalities(
        self, data: str, pools: list[str], validation: str | None
    ) -> tuple[Samples, list[tuple[str, Samples]], Samples | None]:
        """A core, other modalities by name (of their file), and a validation set."""
        from divacli.embed import read_data
        from divacli.embed.texts import is_text_table, read_texts

        opened = read_data(data)
        texts = {pool: read_texts(pool) for pool in pools if is_text_table(pool)}
        others = {pool: read_data(pool, labels="optional") for pool in pools if pool not in texts}
        held_out = None if validation is None else read_data(validation)
        candidates = [*texts.values(), *(_manifest(other) for other in others.values())]
        if held_out is not None:
            manifests = [_manifest(opened), *candidates]
            _manifest(held_out).class_numbers(sorted({label for one in manifests for label in one.classes}))
        self._check_kin(_manifest(opened), candidates, held_out)
        # A network that embeds no texts is refused before any image is embedded.
        embedded = self._text_embedder() if texts else None
        core = self.embedded(opened)
        found: dict[str, Samples] = {}
        for pool in dict.fromkeys(pools):
            if embedded is not None and pool in texts:
                samples = self._told(embedded(texts[pool]))
            else:
                samples = self.embedded(others[pool])
            name = Path(pool).stem or pool
            found[name if name not in found else f"{name}-{len(found) + 1}"] = samples
        core, modalities, judged = self._with_copies(
            core, list(found.values()), None if held_out is None else self.embedded(held_out)
        )
        return core, list(zip(found, modalities, strict=True)), judged

    def _text_embedder(self) -> Callable[[Manifest], Samples]:
        from divacli.backbones.clip import load_text_encoder
        from divacli.embed.texts import text_samples

        encoder = load_text_encoder(self._model)
        return lambda texts: text_samples(texts, encoder, self._extract, self.cache, progress=self.progress)

    def scored(self, data: str, problem: ProblemOptions, *, features: bool = True) -> Scores:
        """Scores of DATA: those that it holds, or else computed now.

        Args:
            data: As on the command line.
            problem: How they are computed.
            features: Whether the features that scores in DATA were made from are looked for.
        """
        from divacli.curate.record import Scores
        from divacli.curate.score import score
        from divacli.embed import Samples, is_store, read_data
        from divacli.embed.load import check_images
        from divacli.manifest import read_manifest

        options = self.solve_options(problem)
        opened = read_data(data) if is_store(data) else read_manifest(data)
        if not isinstance(opened, Samples) and "derivative" in opened.table:
            self.warned(opened)
            if replace(problem, dtype=DtypeName.float32, seed=0) != ProblemOptions():
                warn(
                    f"{opened.name} holds scores, which are used as they are: options of the problem "
                    "(--ridge, --loss, --val ...) change nothing. Give the images to score them anew"
                )
            return Scores.recorded(opened, self.cache, options, self.progress, features=features)
        if not isinstance(opened, Samples):
            check_images(opened)
        samples, validation = self.load_both(opened, problem.val)
        return Scores.fresh(score(samples, options, validation), options)

    def solve_options(
        self, problem: ProblemOptions, default_loss: LossName = LossName.squared
    ) -> SolveOptions:
        """How the problem is solved."""
        import torch

        from divacli.curate.solution import SolveOptions

        return SolveOptions(
            ridge=problem.ridge,
            loss=(problem.loss or default_loss).value,
            scaling=problem.scaling.value,
            around_head=problem.around_head,
            group=self.group_column,
            balanced=problem.validation is ValidationName.balanced,
            dtype=getattr(torch, problem.dtype.value),
            device=self.device,
            seed=problem.seed,
        )

    @property
    def group_column(self) -> str | None:
        """The column of groups that left-out samples are taken out with, whether it is there or not."""
        from divacli.curate.solution import DEFAULT_GROUP

        return {None: DEFAULT_GROUP, "none": None}.get(self._group, self._group)

    def check_groups(self, training: Manifest) -> None:
        """Refuse samples in which the column that was named tells no groups; warn where none has two members.

        Raises:
            DataError: There is no such column, or it has one value only.
        """
        from divacli.curate.solution import group_numbers, required_groups

        column = self.group_column
        if self._group is None or column is None or self.searches_copies(training):
            return
        required_groups(training, column)
        if group_numbers(training, column) is None:
            warn(f"{training.name}: no two samples are of one {column}: every one is left out by itself")

    def warned_of_kin(self, training: Manifest, judged: Manifest) -> None:
        """Say how many samples that a loss or error is over are kin of those that are trained on."""
        from divacli.curate.kin import present_kin
        from divacli.curate.solution import DUPLICATES_GROUP

        column = self.group_column
        n_kin, n = present_kin(training, judged, column)
        if n_kin:
            what = "have copies" if column == DUPLICATES_GROUP else f"are of a {column} that is also"
            warn(
                f"{n_kin:,} of the {n:,} samples of {judged.name} {what} in "
                f"{training.name}: they are predicted from their own kin, which flatters"
            )

    def searches_copies(self, training: Manifest) -> bool:
        """Whether the groups are the sets of copies: `--group duplicates`, and no such column of DATA."""
        from divacli.curate.solution import DUPLICATES_GROUP

        return self._group == DUPLICATES_GROUP and DUPLICATES_GROUP not in training.table

    def duplicates_of(self, samples: Samples, *, asked: bool = False) -> Duplicates:
        """The copies among some samples, searched for unless they are known.

        Args:
            samples: Of many, only equal ones are looked for unless that was asked for.
            asked: Whether it was.
        """
        from divacli.curate.duplicates import NEAR_SAMPLES, find_duplicates

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
        manifests = [_manifest(part) for part in read]
        core, *tested = manifests
        self.check_groups(core)
        if self.searches_copies(core):
            for manifest in tested:
                manifest.class_numbers(core.classes)
            found, others, _ = self._with_copies(
                self.embedded(read[0]), [self.embedded(part) for part in read[1:]], None
            )
            manifests = [
                _with_cells(manifest, samples.manifest)
                for manifest, samples in zip(manifests, [found, *others], strict=True)
            ]
        else:
            for manifest in manifests:
                self.warned(manifest)
        for manifest in manifests[1:]:
            self.warned_of_kin(manifests[0], manifest)
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
        from divacli.curate.duplicates import all_together, with_sets

        if not self.searches_copies(core.manifest):
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
            self.warned_of_kin(core.manifest, judged.manifest)
        return core, rest, judged

    def _check_kin(
        self, core: Manifest, pools: list[Manifest], validation: Manifest | Samples | None
    ) -> None:
        """Check the groups of a core, and that those of all who must not be its kin are known.

        Raises:
            DataError: A set lacks the column that was named, or the core has one value only in it.
        """
        from divacli.curate.solution import group_numbers, require_group_column

        self.check_groups(core)
        judged = [] if validation is None else [_manifest(validation)]
        column = self.group_column
        if self.searches_copies(core):
            return
        for other in (*pools, *judged):
            if self._group is not None and column is not None:
                require_group_column(other, column)
            elif group_numbers(core, column) is not None and column not in other.table:
                warn(
                    f"{other.name} has no column {column}, which {core.name} has: "
                    "who of a pool is kin of those that judge it cannot be told"
                )
        for manifest in judged:
            self.warned_of_kin(core, manifest)

    def embedded(self, opened: Manifest | Samples) -> Samples:
        """Samples with their features; warnings go to standard error."""
        from divacli.embed import Samples, samples_of

        if isinstance(opened, Samples):
            return self._told(opened)
        found = samples_of(
            opened, self.choice, self._extract, self.cache, strict=self._strict, progress=self.progress
        )
        return self._told(found)

    def _told(self, samples: Samples) -> Samples:
        self.warned(samples.manifest)
        if self._network_named and "feature_source" in samples.manifest.table:
            warn(
                f"{samples.manifest.name} brings its features: the network that was named is not used for it"
            )
        for note in samples.notes:
            self.tell(note)
        self._warned_of_failures(samples)
        return samples

    def tell(self, note: str) -> None:
        """Say something that is no warning, once: all data of one command go through one network."""
        if not self.quiet and note not in self._noted:
            say(f"note: {note}")
            self._noted.add(note)

    def _warned_of_failures(self, samples: Samples) -> None:
        if len(samples.failed):
            warn(
                f"{len(samples.failed):,} images cannot be used and are left out, the first: "
                f"{samples.failed['path'].iloc[0]} ({samples.failed['reason'].iloc[0]})"
            )

    def warned(self, manifest: Manifest) -> None:
        """Say what the user should know of a data set."""
        unused = [column for column in manifest.unused if column not in self._used]
        if unused:
            warn(f"{manifest.name}: columns kept but not used: {listed(unused)}.")
        for message in manifest.warnings:
            warn(message)


def _with_cells(manifest: Manifest, usable: Manifest) -> Manifest:
    """All samples, with the sets of copies that those with features were found to be in."""
    from divacli.curate.solution import DUPLICATES_GROUP

    if DUPLICATES_GROUP not in usable.table:
        return manifest
    sets = manifest.table["path"].map(usable.table.set_index("path")[DUPLICATES_GROUP]).fillna("")
    return replace(manifest, table=manifest.table.assign(**{DUPLICATES_GROUP: sets.astype("str")}))


def _manifest(opened: Manifest | Samples) -> Manifest:
    from divacli.embed import Samples

    return opened.manifest if isinstance(opened, Samples) else opened


def default_cache() -> Path:
    """The user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diva"
