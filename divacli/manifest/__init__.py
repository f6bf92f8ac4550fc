"""The sample table: read it from any kind of DATA, check it, and write it back whole."""

from divacli.files.formats import Format
from divacli.manifest.arrayfile import ArrayFile
from divacli.manifest.read import Labels, manifest_of, read_manifest
from divacli.manifest.table import Manifest, alike_between
from divacli.manifest.validate import check_files
from divacli.manifest.write import relocate, write_table

__all__ = [
    "ArrayFile",
    "Format",
    "Labels",
    "Manifest",
    "alike_between",
    "check_files",
    "manifest_of",
    "read_manifest",
    "relocate",
    "write_table",
]
