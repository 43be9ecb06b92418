"""ImageExampleGen: writes photos as examples, and stops the run where too many cannot be used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import apache_beam as beam
from tfx import types
from tfx.components.util import examples_utils
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import io_utils

from components.errors import BrokenInput
from components.image_example_gen.examples import (
    CopiesAcrossSplits,
    IngestionReport,
    LeftOut,
    WriteShard,
    merged,
)
from components.image_example_gen.file_formats import READ, REPORT_FILE, UNKNOWN, counted_formats
from components.image_example_gen.image_files import ImageFile, find_images
from components.table_example_gen.splits import sample_sizes

IMAGES_PER_SHARD = 500
MINIMUM_SHARDS = 4
SHOWN_IMAGES = 3


class Executor(base_beam_executor.BaseBeamExecutor):
    """Writes gzipped TFRecord files of tf.Examples as TFX's own ExampleGens do, and ingestion.json."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Read the photos.

        Raises:
            BrokenInput: there are no photos, too many cannot be used, labels are missing that are required, or a class
                or a split is left without any photo.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        found = find_images(exec_properties["path"])
        photos = _sampled([*found.photos, *found.unread], exec_properties["sample"])
        if exec_properties["labels_required"]:
            _stop_on_missing_labels(exec_properties["path"], photos)
        artifact = artifact_utils.get_single_instance(output_dict["examples"])
        splits = sorted({"train", "eval", *(photo.split for photo in photos if photo.split)})
        artifact.split_names = artifact_utils.encode_split_names(splits)
        examples_utils.set_payload_format(artifact, example_gen_pb2.FORMAT_TF_EXAMPLE)
        examples_utils.set_file_format(artifact, "tfrecords_gzip")

        report = self._write(photos, found.passed_over, artifact, splits, exec_properties)
        _stop_on_lost_class(report, exec_properties["path"])
        _stop_on_too_many_unreadable(report, len(photos), exec_properties)
        for split in splits:
            if not sum(report.examples.get(split, {}).values()):
                raise BrokenInput(
                    f"{exec_properties['path']}: no photo is left for the {split} split, of {len(photos)}; add photos"
                )

    def _write(
        self,
        photos: Sequence[ImageFile],
        passed_over: Mapping[str, int],
        artifact: types.Artifact,
        splits: Sequence[str],
        exec_properties: dict[str, Any],
    ) -> IngestionReport:
        shards = _shuffled_shards(photos)
        folders = {split: artifact_utils.get_split_uri([artifact], split) for split in splits}
        unfinished, report_file = f"{artifact.uri}/unfinished", f"{artifact.uri}/{REPORT_FILE}"
        for folder in (*folders.values(), unfinished):
            fileio.makedirs(folder)
        write = WriteShard(
            folders,
            unfinished,
            shards=len(shards),
            eval_share=float(exec_properties["eval_share"]),
            max_pixels=exec_properties["max_pixels"],
        )
        with self._make_beam_pipeline() as pipeline:
            # Paths are spread over the workers, never photos: each is read by whoever writes it.
            _ = (
                pipeline
                | "Shards" >> beam.Create(list(enumerate(shards)))
                | "Spread" >> beam.Reshuffle()
                | "Write" >> beam.ParDo(write, copies=_copies_across_splits(pipeline, photos))
                | "Merge" >> beam.CombineGlobally(merged)
                | "Report" >> beam.Map(_write_report, report_file, dict(passed_over))
            )
        fileio.rmtree(unfinished)
        return _read_report(report_file)


def _sampled(photos: Sequence[ImageFile], most: int) -> list[ImageFile]:
    """So many photos at most of each split that folders tell, and of all others; some of each class; 0 for all."""
    if not most:
        return list(photos)
    groups: dict[str | None, dict[str, list[ImageFile]]] = {}
    for photo in sorted(photos, key=_hash_of_path):
        groups.setdefault(photo.split, {}).setdefault(photo.label, []).append(photo)
    kept: list[ImageFile] = []
    for of_label in groups.values():
        sizes = sample_sizes({label: len(found) for label, found in of_label.items()}, most)
        kept += [photo for label, found in of_label.items() for photo in found[: sizes[label]]]
    return kept


def _hash_of_path(photo: ImageFile) -> bytes:
    return hashlib.sha256(photo.path.encode()).digest()


def _shuffled_shards(photos: Sequence[ImageFile]) -> list[list[ImageFile]]:
    """The photos in an order that has nothing to do with their classes, the same in each run."""
    shuffled = sorted(photos, key=_hash_of_path)
    count = min(len(photos), max(MINIMUM_SHARDS, -(-len(photos) // IMAGES_PER_SHARD)))
    return [shuffled[number::count] for number in range(count)]


def _copies_across_splits(
    pipeline: beam.Pipeline, photos: Sequence[ImageFile]
) -> Mapping[str, str] | beam.pvalue.AsSideInput:
    if len({photo.split for photo in photos}) == 1:
        return {}  # content alone decides about the split, so copies are in the same one
    copies = (
        pipeline
        | "Photos" >> beam.Create(photos)
        | "SpreadPhotos" >> beam.Reshuffle()
        | "Copies" >> CopiesAcrossSplits()
    )
    return beam.pvalue.AsDict(copies)


def _write_report(report: IngestionReport, path: str, passed_over: dict[str, int]) -> None:
    io_utils.write_string_file(path, json.dumps(replace(report, passed_over=passed_over).as_json(), indent=2))


def _read_report(path: str) -> IngestionReport:
    with fileio.open(path, "r") as file:
        content = json.loads(file.read())
    left_out = tuple(LeftOut(**photo) for photo in content["left_out"])
    return IngestionReport(content["examples"], left_out, content["passed_over"])


def _stop_on_missing_labels(path: str, photos: Sequence[ImageFile]) -> None:
    missing = [photo.path for photo in photos if not photo.label]
    if missing:
        more = f" and {len(missing) - SHOWN_IMAGES} more" if len(missing) > SHOWN_IMAGES else ""
        raise BrokenInput(
            f"{path}: {len(missing)} of {len(photos)} photos have no label; fill the labels in, or leave these photos "
            f"out ({', '.join(missing[:SHOWN_IMAGES])}{more})"
        )


def _stop_on_lost_class(report: IngestionReport, path: str) -> None:
    kept = {label for labels in report.examples.values() for label, count in labels.items() if count}
    unreadable = [photo for photo in report.left_out if photo.unreadable and photo.label]
    lost = sorted({photo.label for photo in unreadable} - kept)
    if lost:
        photos = [photo for photo in unreadable if photo.label == lost[0]]
        others = f", and none of {len(lost) - 1} more classes" * (len(lost) > 1)
        raise BrokenInput(
            f"{path}: no photo of the class {lost[0]!r} can be used, of {len(photos)}{_formats(photos)}{others}; "
            f"{_remedy(photos)} ({photos[0].path}: {photos[0].reason})"
        )


def _formats(photos: Sequence[LeftOut]) -> str:
    formats = counted_formats(photo.format for photo in photos if photo.format)
    return f": {formats}" if formats else ""


def _remedy(photos: Sequence[LeftOut]) -> str:
    if any(photo.format not in ("", UNKNOWN) for photo in photos):
        return f"`ingraph run --convert` makes JPEGs of most other formats than {', '.join(READ)}"
    return "remove or replace them"


def _stop_on_too_many_unreadable(report: IngestionReport, photos: int, exec_properties: dict[str, Any]) -> None:
    unreadable = [photo for photo in report.left_out if photo.unreadable]
    if len(unreadable) <= float(exec_properties["max_unreadable_share"]) * photos:
        return
    shown = "; ".join(f"{photo.path}: {photo.reason}" for photo in unreadable[:SHOWN_IMAGES])
    more = f"; and {len(unreadable) - SHOWN_IMAGES} more" if len(unreadable) > SHOWN_IMAGES else ""
    raise BrokenInput(
        f"{exec_properties['path']}: {len(unreadable)} of {photos} photos cannot be used{_formats(unreadable)}, at "
        f"most a share of {exec_properties['max_unreadable_share']} may be; {_remedy(unreadable)} ({shown}{more})"
    )


class ImageExampleGenSpec(ComponentSpec):
    """Shares are text, as parameters of the other components are that are no whole numbers."""

    PARAMETERS = {
        "path": ExecutionParameter(type=str),
        "input_fingerprint": ExecutionParameter(type=str),
        "eval_share": ExecutionParameter(type=str),
        "max_unreadable_share": ExecutionParameter(type=str),
        "max_pixels": ExecutionParameter(type=int),
        "labels_required": ExecutionParameter(type=int),
        "sample": ExecutionParameter(type=int),
    }
    INPUTS: dict[str, ChannelParameter] = {}
    OUTPUTS = {"examples": ChannelParameter(type=standard_artifacts.Examples)}


class ImageExampleGen(base_beam_component.BaseBeamComponent):
    """Photos in class folders, or listed in a CSV file, as examples: `image`, `label`, `path` and `checksum`.

    Photos stay encoded. The artifact's splits are train and eval, and test where there is a folder of that name;
    its `ingestion.json` says how many photos each split and class has, and which were left out.

    Args:
        path: as image_files.list_images takes it.
        input_fingerprint: what image_files.input_fingerprint says of that path. TFX's cache compares parameters, and
            does not look at files.
        eval_share: which share is held out, where no folders say what is.
        max_unreadable_share: the run stops where more photos than that cannot be used.
        max_pixels: the largest photo that is taken, by the size that its header declares.
        labels_required: the run stops where a photo of a CSV file has no label.
        sample: how many photos are taken at most, of each split where folders say what is held out; 0 for all.
    """

    SPEC_CLASS = ImageExampleGenSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(
        self,
        path: str,
        input_fingerprint: str,
        eval_share: float = 0.2,
        max_unreadable_share: float = 0.01,
        max_pixels: int = 50_000_000,
        labels_required: bool = True,
        sample: int = 0,
    ) -> None:
        super().__init__(
            ImageExampleGenSpec(
                path=path,
                input_fingerprint=input_fingerprint,
                eval_share=str(eval_share),
                max_unreadable_share=str(max_unreadable_share),
                max_pixels=max_pixels,
                labels_required=int(labels_required),
                sample=sample,
                examples=types.Channel(type=standard_artifacts.Examples),
            )
        )
