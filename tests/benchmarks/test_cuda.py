"""What is measured on a CUDA device, run on the CPU at a tiny size; and the count of operations."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import cuda
from benchmarks.cost import Size, operations
from divacli.ridge.fit.products import column_blocks
from divacli.ridge.leave_out import ridge_path as path

CPU = torch.device("cpu")

IN_PLACE = {torch.ops.aten.addmm_: lambda total, left, right, **_: 2 * left[0] * left[1] * right[1]}
"""A product that torch's counter does not know, by its shapes."""


def test_everything_but_embedding_runs_at_a_tiny_size(capsys):
    assert all(value > 0 for value in cuda.bandwidths(CPU, 1 << 16).values())
    rate = cuda.matrix_rate(CPU, torch.float64, 100, 20)
    row = cuda.solve(400, 12, 3, CPU, rate)
    assert row["ridges"] > 15
    assert set(cuda.SOLVE) < set(row["seconds"])
    assert set(row["operations"]) < set(row["seconds"])
    assert row["solve"] == pytest.approx(sum(row["seconds"][name] for name in cuda.SOLVE))
    assert "of the float32 rate" in capsys.readouterr().out


def test_without_a_device_nothing_is_measured(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(cuda, "save", lambda *_: pytest.fail("nothing was measured"))
    cuda.main()
    assert "skipped" in capsys.readouterr().out


@pytest.mark.parametrize("most", [10**6, 300], ids=["path of all", "path of a part"])
@pytest.mark.parametrize(("n", "d", "k"), [(1500, 40, 7), (700, 330, 12)])
def test_operations_are_those_that_are_counted(n, d, k, most, monkeypatch):
    """Of matrix products; products with a vector are not counted, nor are factorisations."""
    monkeypatch.setattr(path, "PATH_SAMPLES", most)
    monkeypatch.setattr("benchmarks.cost.PATH_SAMPLES", most)
    order = []

    def counting(device, work, repeats=1):
        with FlopCounterMode(display=False, custom_mapping=IN_PLACE) as counter:
            work()
        order.append(counter.get_total_flops())
        return 1.0

    monkeypatch.setattr(cuda, "seconds", counting)
    took, n_ridges = cuda.phases(cuda.problem(n, d, k, CPU))
    counted = dict(zip(took, order, strict=True))
    counted["eigenbasis"] += 9 * d**3
    del counted["noise"]
    predicted = operations(Size(n, d, k, n_ridges, len(column_blocks(d, CPU))))
    assert predicted == pytest.approx(counted, rel=0.03)
