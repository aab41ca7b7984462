"""A fit from end to end on the toy: killed and resumed, interrupted, spread over processes, refused."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import MCMC, NUTS
from pyro.infer.autoguide.initialization import init_to_value

from supermage.data_reduction.gridded import open_visibilities
from supermage.errors import CheckpointError, DataError, RecipeError, SupermageError
from supermage.inference import fit as fit_module
from supermage.inference.arviz_access import ess
from supermage.inference.chains import Problem, Workers
from supermage.inference.checkpoint import CheckpointStore
from supermage.inference.fit import _tell_discretisation, choose_chart, fit
from supermage.inference.model import Chart
from supermage.inference.posterior import Posterior, open_posterior
from supermage.inference.priors import Priors, build_priors
from supermage.inference.run import Run
from supermage.progress import SilentProgress
from supermage.recipe import FitSection, Recipe
from tests.inference.killed import MOMENTS
from tests.inference.toy import FREE, TRUTH, ToyFactory, held, toy_data, toy_fit, toy_recipe

ROOT = Path(__file__).resolve().parents[2]


def run(recipe: Recipe, **options: Any) -> Posterior:
    return fit(recipe, factory=ToyFactory(recipe), **options)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Posterior:
    return run(toy_recipe(tmp_path_factory.mktemp("undisturbed")))


@pytest.fixture(scope="module")
def warmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a fit that was interrupted before its first draws were saved."""
    folder = tmp_path_factory.mktemp("warmed")
    with pytest.raises(KeyboardInterrupt):
        run(toy_recipe(folder), progress=Counting([], interrupt_at=1))
    return folder


def copy(folder: Path, to: Path) -> Recipe:
    shutil.copytree(folder, to, dirs_exist_ok=True)
    return toy_recipe(to)


def assert_same_draws(one: Posterior, two: Posterior) -> None:
    assert one.names == two.names
    for group in ("posterior", "warmup_posterior", "sample_stats"):
        for name, values in one.to_arviz()[group].data_vars.items():
            assert np.array_equal(values.values, two.to_arviz()[group][name].values), (group, name)
    assert one.attributes["gradients"] == two.attributes["gradients"]


def assert_one_line(error: pytest.ExceptionInfo[SupermageError]) -> None:
    assert "\n" not in str(error.value)


def test_draws_and_what_is_told_of_them(undisturbed: Posterior) -> None:
    found = open_posterior(undisturbed.path or "")
    assert_same_draws(found, undisturbed)
    assert set(found.names) == set(FREE) and found.draws("Flux").shape == (2, 45)
    assert found.to_arviz()["warmup_posterior"]["Flux"].shape == (2, 20)
    facts = found.attributes
    assert facts["complete"] == 1 and facts["seed"] == 1 and facts["gradients"] == 2 * 65
    assert json.loads(facts["fixed"]) == {name: value for name, value in TRUTH.items() if name not in FREE}
    assert Recipe.model_validate({**json.loads(facts["recipe"]), "folder": "."}).fit is not None
    for p in found.parameters:
        values = found.draws(p.name)
        assert np.all((values >= p.lower) & (values <= (p.lower + 360.0 if p.name == "PA" else p.upper))), p.name
    # the toy's data know flux and velocity, and the truth is not far
    row = found.summary().loc["systemic_velocity"]
    assert abs(row["mean"] - TRUTH["systemic_velocity"]) < 6 * row["sd"]


def test_nuts_on_the_same_model_agrees(tmp_path: Path) -> None:
    """Pyro's NUTS on the Pyro program, in its own coordinates, against our kernel: means within 4 standard errors, widths within 25 %."""
    free = ("systemic_velocity", "x", "Flux")
    recipe = toy_recipe(tmp_path, priors=held(*free), warmup=(30, 40, 60), draws=600, segment=600)
    ours, galaxy = run(recipe), ToyFactory(recipe)()
    pyro.set_rng_seed(1)
    start = {name: torch.tensor(TRUTH[name], dtype=torch.float64) for name in free}
    mcmc = MCMC(NUTS(galaxy.pyro_model, init_strategy=init_to_value(values=start)), num_samples=250, warmup_steps=100, disable_progbar=True)
    mcmc.run()
    for name in free:
        theirs, values = mcmc.get_samples()[name].numpy(), ours.draws(name)
        error = math.sqrt(theirs.var() / ess(theirs[None], method="mean") + values.var() / ess(values, method="mean"))
        assert abs(theirs.mean() - values.mean()) < 4.0 * error, name
        assert values.std() == pytest.approx(theirs.std(), rel=0.25), name


def test_few_draws_have_not_converged(undisturbed: Posterior) -> None:
    assert not undisturbed.converged
    assert undisturbed.attributes["converged"] == 0
    assert undisturbed.attributes["smallest_ess"] == undisturbed.diagnosis.smallest_ess < 100


def test_two_processes_draw_the_same(undisturbed: Posterior, tmp_path: Path) -> None:
    assert_same_draws(run(toy_recipe(tmp_path, processes=2)), undisturbed)


def test_a_finished_fit_resumes_to_itself(undisturbed: Posterior, tmp_path: Path) -> None:
    assert undisturbed.path is not None
    stages: list[Any] = []
    assert_same_draws(run(copy(undisturbed.path.parent, tmp_path), progress=Counting(stages)), undisturbed)
    assert stages == ["draws"]


def test_a_fit_afresh_forgets_the_checkpoint(warmed: Path, tmp_path: Path) -> None:
    recipe = copy(warmed, tmp_path)

    class Scanned(Exception):  # noqa: N818 - no error
        pass

    class Stop(Counting):
        def start(self, what: str, total: int | None) -> None:
            raise Scanned(what)

    with pytest.raises(Scanned, match="draws"):
        run(recipe, progress=Stop([]))
    with pytest.raises(Scanned, match="execution"):
        run(recipe, progress=Stop([]), resume=False)
    # and gives it up only when there is something in its place
    with pytest.raises(Scanned, match="draws"):
        run(recipe, progress=Stop([]))


def test_a_new_run_sets_the_old_posterior_aside(warmed: Path, tmp_path: Path) -> None:
    """Cut off after its starts, it must not leave another run's posterior as its own; what may be done is said."""
    recipe = copy(warmed, tmp_path)
    old = (tmp_path / "posterior.nc").read_bytes()

    class Stop(Counting):
        def start(self, what: str, total: int | None) -> None:
            super().start(what, total)
            if what.startswith("warm-up"):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(recipe, progress=Stop([]), resume=False)
    assert (tmp_path / "posterior.previous.nc").read_bytes() == old
    with pytest.raises(DataError, match=r"which is not there; its fit has a checkpoint in posterior.checkpoint: the same `supermage fit`"):
        open_posterior(tmp_path / "posterior.nc")


def test_the_way_is_kept_from_before_the_starts(tmp_path: Path) -> None:
    """Killed while it scanned for starts, a run comes back by the way that it had chosen, whatever the clock would say now."""
    recipe = toy_recipe(tmp_path, execution="vmap", draws=6)

    class Stop(Counting):
        def start(self, what: str, total: int | None) -> None:
            if what.startswith("scan"):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(recipe, progress=Stop([]))
    again = toy_recipe(tmp_path, execution="loop", draws=6)
    assert json.loads(run(again).attributes["execution"])["way"] == "vmap"


def test_killed_at_every_moment_and_resumed(undisturbed: Posterior, tmp_path: Path) -> None:
    """kill -9 while it searches, warms up, draws and writes, one after the other in one folder: the draws are the same bit for bit."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.inference.killed", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=True)
    ends = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(ends) == len(MOMENTS)
    for (code, left), (moment, expected) in zip(ends, MOMENTS, strict=True):
        assert (code, left) == (-signal.SIGKILL, sorted(expected)), (moment, done.stderr)
    assert not (tmp_path / "posterior.nc").exists()
    assert_same_draws(run(toy_recipe(tmp_path)), undisturbed)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["posterior.checkpoint", "posterior.nc", "visibilities.nc"]
    assert sorted(path.name for path in (tmp_path / "posterior.checkpoint").iterdir()) == ["newest.ckpt", "previous.ckpt"]


class Counting:
    """Progress that notes the stages, and may interrupt."""

    def __init__(self, stages: list[Any], *, interrupt_at: int | None = None) -> None:
        self.stages = stages
        self.interrupt_at = interrupt_at
        self.draws = 0

    def start(self, what: str, total: int | None) -> None:
        self.stages.append(what)

    def advance(self, n: int = 1, note: str = "") -> None:
        if self.stages[-1] == "draws":
            self.draws += n
            if self.interrupt_at is not None and self.draws >= self.interrupt_at:
                raise KeyboardInterrupt

    def done(self, note: str = "") -> None:
        pass


def test_interruption_leaves_what_was_drawn(undisturbed: Posterior, warmed: Path, tmp_path: Path) -> None:
    recipe = copy(warmed, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, progress=Counting([], interrupt_at=30))
    found = open_posterior(tmp_path / "posterior.nc")
    assert found.attributes["complete"] == 0 and not found.converged
    assert np.array_equal(found.draws("Flux"), undisturbed.draws("Flux")[:, :30])
    assert_same_draws(run(recipe), undisturbed)


def test_another_recipe_or_other_data_are_refused(warmed: Path, tmp_path: Path) -> None:
    copy(warmed, tmp_path)
    for changed in (toy_recipe(tmp_path, seed=5), toy_recipe(tmp_path, priors=held(*FREE, "y"))):
        with pytest.raises(CheckpointError, match="must belong to this recipe, data and version") as error:
            run(changed)
        assert_one_line(error)
    toy_data(seed=4, n_cell=20, n_channel=6).save(tmp_path / "visibilities.nc")
    with pytest.raises(CheckpointError, match="must belong to this recipe"):
        run(toy_recipe(tmp_path))


@pytest.mark.parametrize("resume", [True, False])
def test_a_second_fit_of_a_running_one_is_refused(warmed: Path, tmp_path: Path, resume: bool) -> None:
    recipe = copy(warmed, tmp_path)
    folder = tmp_path / "posterior.checkpoint"
    kept = (folder / "newest.ckpt").read_bytes()
    with CheckpointStore(folder, "the other").alone(resume=False), pytest.raises(CheckpointError) as error:
        run(recipe, resume=resume)
    assert str(error.value) == (
        f"a fit must be alone with its checkpoint, got another one running in {folder} (process {os.getpid()} on {os.uname().nodename})"
    )
    assert (folder / "newest.ckpt").read_bytes() == kept and not (folder / "lock").exists()


def test_two_posteriors_in_one_folder_do_not_meet(warmed: Path, tmp_path: Path) -> None:
    recipe = copy(warmed, tmp_path)
    assert (tmp_path / "posterior.checkpoint" / "newest.ckpt").is_file()
    assert recipe.fit is not None
    stages: list[Any] = []
    other = recipe.fit.model_copy(update={"output": "other.nc"})
    with pytest.raises(KeyboardInterrupt):
        run(recipe.model_copy(update={"fit": other}), progress=Counting(stages, interrupt_at=1))
    assert stages[:2] == ["execution", "scan of starts"]
    assert (tmp_path / "other.checkpoint" / "newest.ckpt").is_file()


def test_more_draws_continue_a_fit_that_ended(tmp_path: Path) -> None:
    """50 draws and 50 more are the 100 of one fit, bit for bit, whatever the segments."""
    once = run(toy_recipe(tmp_path / "once", draws=100, segment=70))
    first = run(toy_recipe(tmp_path / "twice", draws=50, segment=30))
    stages: list[Any] = []
    more = run(toy_recipe(tmp_path / "twice", draws=100, segment=45), progress=Counting(stages))
    assert stages == ["draws"]
    assert_same_draws(more, once)
    assert more.attributes["complete"] == 1 and more.draws("Flux").shape == (2, 100)
    assert np.array_equal(first.draws("Flux"), once.draws("Flux")[:, :50])
    # fewer than there are: all that there are
    assert_same_draws(run(toy_recipe(tmp_path / "twice", draws=20)), once)


def test_a_fit_goes_on_until_its_chains_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked at after 20, 30, 45, 67, ... draws; the limit ends it; cut off and resumed it stops at the same draw."""
    seen: list[int] = []

    def agree_at(number: int) -> None:
        def found(run_: Any, priors: Any, draws: int) -> bool:
            seen.append(draws)
            return draws >= number

        monkeypatch.setattr(fit_module, "_converged", found)

    agree_at(45)
    recipe = toy_recipe(tmp_path / "one", draws=20, segment=7, most_draws=60)
    assert run(recipe, until_converged=True).draws("Flux").shape == (2, 45) and seen == [20, 30, 45]
    seen.clear()
    assert run(recipe, until_converged=True).draws("Flux").shape == (2, 45)
    agree_at(10**6)
    seen.clear()
    longer = run(recipe, until_converged=True)
    assert longer.draws("Flux").shape == (2, 60) and seen == [20, 30, 45, 60]
    assert_same_draws(longer, run(toy_recipe(tmp_path / "two", draws=60, segment=60)))


def test_only_the_draws_that_were_looked_at_decide(undisturbed: Posterior) -> None:
    rng = np.random.default_rng(1)
    theta = rng.standard_normal((4, 3000, len(undisturbed.parameters)))
    theta[:, 2000:] += 5.0 * np.arange(4)[:, None, None]
    nothing = torch.zeros(1, 1, dtype=torch.float64)
    state = Run(Chart(), [], nothing, nothing, nothing[0], 0.0, draws={"theta": theta})
    assert fit_module._converged(state, Priors(undisturbed.parameters, {}), 2000)
    assert not fit_module._converged(state, Priors(undisturbed.parameters, {}), 3000)


def test_the_mark_knows_what_a_draw_depends_on(tmp_path: Path) -> None:
    def mark(**sampler: Any) -> str:
        recipe = toy_recipe(tmp_path, **sampler)
        return fit_module._fingerprint(recipe, open_visibilities(tmp_path / "visibilities.nc"))

    assert mark() == mark(draws=99, segment=3, processes=2, execution="loop", most_draws=7)
    for changed in ({"seed": 2}, {"warmup": (6, 8, 7)}, {"chains": 3}, {"metric_points": 3}, {"target_acceptance": 0.5}):
        assert mark(**changed) != mark(), changed


def test_the_discretisation_is_told_before_sampling() -> None:
    """In per cent of the signal, at the parameters given; nothing where a model cannot tell."""
    said: list[str] = []

    class Says(SilentProgress):
        def done(self, note: str = "") -> None:
            said.append(note)

    galaxy = toy_fit(toy_data())
    _tell_discretisation(galaxy, {"x": 2.5}, Says())
    galaxy.galaxy_model.discretisation_error = lambda theta: 1e-3 * float(theta["x"])  # type: ignore[attr-defined]
    _tell_discretisation(galaxy, {"x": 2.5}, Says())
    assert said == ["0.25 % of the signal at the best start"]


def test_climbs_are_counted_as_they_end(tmp_path: Path) -> None:
    class Climbing(Counting):
        def advance(self, n: int = 1, note: str = "") -> None:
            if self.stages[-1] in ("climbs", ("climbs", 1)):
                self.stages.append(("climbs", n))

        def done(self, note: str = "") -> None:
            if ("climbs", 1) in self.stages:
                raise KeyboardInterrupt

    stages: list[Any] = []
    with pytest.raises(KeyboardInterrupt):
        run(toy_recipe(tmp_path, optima=2), progress=Climbing(stages))
    assert stages.count(("climbs", 1)) == 4


def test_damaged_checkpoints_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "posterior.checkpoint").mkdir()
    for name in ("newest.ckpt", "previous.ckpt"):
        (tmp_path / "posterior.checkpoint" / name).write_bytes(b"supermage checkpoint 1\n")
    with pytest.raises(CheckpointError, match="--fresh starts anew") as error:
        run(toy_recipe(tmp_path))
    assert_one_line(error)


def test_wrong_input_is_one_line_and_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def expensive(*_: object, **__: object) -> None:
        raise AssertionError("must be refused before anything is computed")

    monkeypatch.setattr(fit_module, "begin", expensive)
    for recipe, expected, message in (
        (toy_recipe(tmp_path, start={"Flux": 51.0}), RecipeError, r"inside the prior of 'Flux', \[1, 50\], got 51"),
        (toy_recipe(tmp_path, start={"qintr": 0.7}), RecipeError, "cannot move the fixed parameter 'qintr' from 0.6, got 0.7"),
        (toy_recipe(tmp_path, kernel="nuts"), RecipeError, "fit.sampler.kernel must be one of mala, .*, surrogate-hmc, got 'nuts'"),
        (toy_recipe(tmp_path, burn_in="baker"), RecipeError, "burn_in must be one of .*, got 'baker'; did you mean 'barker'"),
        (Recipe(folder=tmp_path), RecipeError, r"needs the sections \[galaxy\] and \[fit\]"),
    ):
        with pytest.raises(expected, match=message) as error:
            run(recipe)
        assert_one_line(error)
    recipe = toy_recipe(tmp_path)
    assert recipe.fit is not None
    for truth, content, message in (("none.json", None, "JSON file of true values"), ("bad.json", "[1]", "must hold 'parameters'")):
        if content is not None:
            (tmp_path / truth).write_text(content)
        with pytest.raises(DataError, match=message) as error:
            run(recipe.model_copy(update={"fit": recipe.fit.model_copy(update={"truth": truth})}))
        assert_one_line(error)


def test_a_start_is_used(tmp_path: Path) -> None:
    scanned: list[dict[str, float]] = []
    recipe = toy_recipe(tmp_path, start={"systemic_velocity": 1255.0, "PA": 12.0})
    assert recipe.fit is not None

    class Watching(Workers):
        def map(self, function: Any, arguments: Any, **options: Any) -> Any:
            if function.__name__ == "scan":
                scanned.extend(start for (starts,) in arguments for start in starts)
            if function.__name__ == "polish":
                raise KeyboardInterrupt
            return super().map(function, arguments, **options)

    factory = ToyFactory(recipe)
    data = toy_data(n_cell=20, n_channel=6)
    with pytest.raises(KeyboardInterrupt):
        fit_module.begin(Watching(factory, 1), build_priors(recipe.fit), recipe.fit, data, progress=Counting([]))
    assert len(scanned) == 4 and {(s["systemic_velocity"], s["PA"]) for s in scanned} == {(1255.0, 12.0)}


TERMINATED = """
import sys
from pathlib import Path
from supermage import cli
from supermage.inference import fit as module
from tests.inference.toy import ToyFactory, toy_recipe

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    recipe = toy_recipe(folder, processes=2, draws=100_000, segment=15)
    real = module.fit
    module.fit = lambda _, **options: real(recipe, factory=ToyFactory(recipe), **options)
    (folder / "recipe.toml").write_text(
        '[galaxy]\\nname = "a"\\ndistance = 1.0\\n[fit]\\nvisibilities = "v.nc"\\noutput = "posterior.nc"\\n')
    cli.main(["fit", str(folder / "recipe.toml")])
"""


def test_sigterm_saves_and_leaves_nothing_behind(warmed: Path, tmp_path: Path) -> None:
    copy(warmed, tmp_path)
    (tmp_path / "posterior.nc").unlink()
    script = tmp_path / "script.py"
    script.write_text(TERMINATED)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen([sys.executable, str(script), str(tmp_path)], env=environment, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if line.startswith("draws"):
                break
        newest = tmp_path / "posterior.checkpoint" / "newest.ckpt"
        before, until = newest.stat().st_mtime_ns, time.monotonic() + 60
        while newest.stat().st_mtime_ns == before and time.monotonic() < until:
            time.sleep(0.02)
        child.send_signal(signal.SIGTERM)
        rest = child.stderr.read()
    assert child.returncode == 143
    # no word of leaked semaphores, no traceback
    told = [line for line in rest.splitlines() if not line.startswith("draws: ")]
    assert told == ["supermage: interrupted; run the same command again to resume"]
    assert open_posterior(tmp_path / "posterior.nc").attributes["complete"] == 0


def _number(_: Problem, k: int) -> int:
    return k


def test_work_in_processes_is_counted_as_it_ends(tmp_path: Path) -> None:
    workers, ended = Workers(ToyFactory(toy_recipe(tmp_path)), 2), []
    try:
        assert workers.map(_number, [(k,) for k in range(5)], ended=lambda: ended.append(1)) == [0, 1, 2, 3, 4]
    finally:
        workers.close()
    assert len(ended) == 5


def _die(_: Problem) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_dies_is_one_line(tmp_path: Path) -> None:
    workers = Workers(ToyFactory(toy_recipe(tmp_path)), 2)
    try:
        with pytest.raises(SupermageError, match="must live to its end, got one that died") as error:
            workers.map(_die, [()])
    finally:
        workers.stop()
        workers.close()
    assert_one_line(error)


def test_chart_follows_the_optimum() -> None:
    chart = choose_chart({**TRUTH, "scale_length": 0.7}, build_priors(FitSection(visibilities="v.nc", output="p.nc")))
    assert chart.cut == TRUTH["PA"] and dict(chart.reference)["scale_length"] == 0.7
    # flux-weighted mean radius of an exponential disc: two scale lengths
    assert (chart.velocity_radius, chart.slope_radius) == pytest.approx((0.8 * 1.4, 0.5 * 1.4))



def test_versions_of_everything_that_computes_are_recorded(undisturbed: Posterior) -> None:
    versions = json.loads(undisturbed.attributes["versions"])
    assert {"python", "supermage", "torch", "numpy", "scipy", "astropy", "ducc0", "numba", "matplotlib", "casatools"} <= set(versions)
    assert "unknown" not in versions.values()
