"""The example notebook runs, offline, from its first cell to its last."""

from __future__ import annotations

from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "example.ipynb"


def test_the_example_notebook_runs(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    shown = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in shown:
        cell.outputs = []
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    results = [output for cell in shown for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in results) == 2
    shown_as_text = "".join(output.get("data", {}).get("text/html", "") for output in results)
    for said in ("are harmful", "with another label", "corrections are right", "are chosen", "random pool"):
        assert said in shown_as_text, said
    printed = "".join(output.get("text", "") for output in results if output.get("name") == "stdout")
    assert float(printed.partition("%")[0]) > 90
