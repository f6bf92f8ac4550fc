"""Several processes give one process's answers, to the last bit; here they are threads."""

import copy
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from divacli import parallel
from divacli.errors import SolveError
from divacli.ridge import (
    Extension,
    Problem,
    Rest,
    SquaredLoss,
    TrainingWeights,
    decompose,
    fit_noise,
    forecast,
    in_eigenbasis,
    leave_one_out,
    loo_derivative,
    loo_predictions,
    moments,
    near_duplicates,
    ridge_path,
    scores,
    validation_derivative,
)


class Threads:
    """What of `torch.distributed` the package uses, between threads of this process."""

    def __init__(self, size):
        self._size = size
        self._barrier = threading.Barrier(size, timeout=60)
        self._board = [None] * size
        self._local = threading.local()

    def is_available(self):
        return True

    def is_initialized(self):
        return hasattr(self._local, "rank")

    def get_rank(self):
        return self._local.rank

    def get_world_size(self):
        return self._size

    def _exchanged(self, thing):
        self._board[self._local.rank] = thing
        self._barrier.wait()
        things = list(self._board)
        self._barrier.wait()
        return things

    def broadcast(self, tensor, source):
        tensor.copy_(self._exchanged(tensor.clone())[source])

    def all_reduce(self, tensor):
        tensor.copy_(sum(self._exchanged(tensor.clone())))

    def all_gather_object(self, things, thing):
        things[:] = copy.deepcopy(self._exchanged(thing))

    def run(self, work):
        """What every rank's call of `work` gives."""

        def ranked(rank):
            self._local.rank = rank
            try:
                return work()
            except BaseException:
                self._barrier.abort()
                raise

        with ThreadPoolExecutor(self._size) as pool:
            return [future.result() for future in [pool.submit(ranked, rank) for rank in range(self._size)]]


@pytest.fixture(params=[2, 3, 4])
def threads(request, monkeypatch):
    found = Threads(request.param)
    monkeypatch.setattr(parallel, "distributed", found)
    return found


@pytest.fixture(params=["plain", "groups", "validation"])
def work(request, make_problem, make_groups):
    """A whole solve of five batches: everything it finds, as tensors."""
    groups = make_groups(*[3] * 30) if request.param == "groups" else None
    task = make_problem(90, 6, 3, batch_rows=20, groups=groups).task
    held_out = make_problem(50, 6, 3, seed=1, batch_rows=20).task
    judged = held_out if request.param == "validation" else None

    def solve():
        spectrum, turned, [validation] = in_eigenbasis(task, decompose(task), judged)
        path = ridge_path(turned, spectrum)
        fit = spectrum.fit(float(path.ridges[path.best]))
        predictions = loo_predictions(turned, fit, torch.tensor([40, 3, 77]))
        everyone = loo_predictions(turned, fit, torch.arange(90))
        strengths = (math.inf, 300.0)
        fitted = parallel.world().once(lambda: fit_noise(everyone, task.labels, strengths=strengths))
        order = torch.arange(90 if judged is None else 50)
        found = scores(turned, fit, SquaredLoss(), fitted.model, order, validation)
        walk = Extension(task, replace(held_out, labels=held_out.labels), torch.arange(90))
        candidates = walk.candidates()
        walk.add(walk.choose(candidates, torch.ones(50, dtype=torch.bool), 5))
        cholesky = moments(task).fit(2.0)
        return [
            path.loss,
            predictions,
            found.derivative,
            found.errors,
            found.loo.loss,
            found.diagnosis.mislabel_probability,
            found.diagnosis.confusions,
            candidates.derivative,
            walk.candidates().derivative,
            leave_one_out(task, cholesky, SquaredLoss()).loss,
            loo_derivative(task, cholesky, SquaredLoss()).derivative,
            validation_derivative(task, held_out, cholesky, SquaredLoss())[0],
        ]

    return solve


def test_every_process_finds_what_one_finds(threads, work):
    expected = work()
    for found in threads.run(work):
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one, other)


def test_a_forecast_is_the_same(threads, make_problem):
    task = make_problem(90, 6, 3, batch_rows=20).task
    problem = Problem(task, 1.0, torch.arange(90), robust=False)

    def decide(rest):
        # Computed by the functions behind the properties: Python 3.11 holds a lock over those, under which
        # threads would wait for each other for ever. Processes have a lock each.
        leverage, predicted = Rest.leverage.func(rest), Rest.predictions.func(rest)
        weights = rest.task.weights.clone()
        weights[rest.rows[leverage < leverage.median()]] = 0.0
        worst = rest.derivative(SquaredLoss()) + predicted.amax(dim=1)
        less = rest.task.weights.clone()
        less[rest.rows[worst > worst.quantile(0.8)]] = 0.0
        return {"half": TrainingWeights(weights), "most": TrainingWeights(less)}

    def judged():
        return forecast(problem, decide, torch.ones(90))

    expected = judged()
    for found in threads.run(judged):
        assert {*found.wrong} == {"nothing", "half", "most"}
        assert all(torch.equal(found.wrong[name], expected.wrong[name]) for name in expected.wrong)


def test_copies_are_the_same(threads):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(300, 8, generator=generator)
    features[150:160] = features[:10] + 1e-4 * torch.randn(10, 8, generator=generator)

    def search():
        return near_duplicates(features, torch.arange(300))

    expected = search()
    assert len(expected.numbers.unique()) == 290
    for found in threads.run(search):
        assert torch.equal(found.numbers, expected.numbers)
        assert torch.equal(found.distance, expected.distance)


def test_what_one_process_meets_all_of_them_raise(threads, make_problem):
    """One sample has a leverage of one, and one process alone works on it: no other may wait for it."""
    task = make_problem(90, 6, 3, batch_rows=20).task
    features = task.features.clone()
    features[:, 5] = 0.0
    features[88, 5] = 3.0
    task = replace(task, features=features, weights=torch.ones(90, dtype=torch.float64))

    def refused():
        with pytest.raises(SolveError, match="sample 88 has a leverage of one") as raised:
            leave_one_out(task, decompose(task).fit(0.0), SquaredLoss())
        return str(raised.value)

    assert set(threads.run(refused)) == {refused()}


def test_with_fewer_batches_than_processes_some_have_none(threads, make_problem):
    task = make_problem(24).task
    expected = moments(task)
    for found in threads.run(lambda: moments(task)):
        assert torch.equal(found.gram, expected.gram)
