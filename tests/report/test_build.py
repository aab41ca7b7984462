import dataclasses
import os
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from astropy.io import fits

from supermage import __version__, open_posterior
from supermage.cli import _number
from supermage.errors import DataError, DomainError, SupermageError
from supermage.inference import langevin
from supermage.report import build as build_module
from supermage.report import case as case_module
from supermage.report import figures_fit
from supermage.report.build import report
from supermage.report.case import Case
from supermage.report.citations import KERNELS, bibtex
from supermage.report.figure import FigureSpec
from supermage.report.figures import FIGURES
from supermage.report.mass import mass_statement, summary_lines
from supermage.report.record import read_record
from supermage.report.rules import DEFINITIONS, ORDER, RULES
from supermage.report.sections import lead, verdict_facts
from supermage.report.tables import latex_table
from supermage.report.verdict import Status
from tests.report.factories import TRUTH, default_data, make_fit

DRAWN = FIGURES.keys() - {"stellar-mass"}
"""Of a fit without a prior on the stars' mass; test_mass_prior draws that one."""


@pytest.fixture(scope="module", autouse=True)
def few_draws_in_bands():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(case_module, "BAND_DRAWS", 12)
        yield


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    return make_fit(tmp_path_factory.mktemp("fit"))


@pytest.fixture(scope="module")
def page(fitted):
    return report(fitted)


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.links, self.sections, self.images, self.text = [], [], [], []

    def handle_starttag(self, tag, attributes):
        table = dict(attributes)
        self.links += [table[k] for k in ("href", "src") if k in table]
        if tag == "section":
            self.sections.append(table["id"])
        if tag == "img":
            self.images.append(table)

    def handle_data(self, data):
        self.text.append(data)


def parsed(path):
    parser = Links()
    parser.feed(path.read_text(encoding="utf-8"))
    return parser


def test_sections_stand_in_order(page):
    assert parsed(page).sections == [
        "verdict",
        "mass",
        "parameters",
        "data",
        "residuals",
        "profiles",
        "posterior",
        "convergence",
        "provenance",
        "downloads",
    ]


def test_page_needs_nothing_from_elsewhere(page):
    text = page.read_text(encoding="utf-8")
    for link in parsed(page).links:
        assert link.startswith(("data:image/png;base64,", "#")) or (page.parent / link).is_file(), link[:80]
    assert not re.search(r"<script|<link|@import|url\(", text)


def test_every_figure_is_there_with_words(page):
    seen = parsed(page)
    assert len(seen.images) == len(DRAWN)
    assert all(len(image["alt"]) > 20 for image in seen.images)
    for name in DRAWN:
        assert (page.parent / "figures" / f"{name}.png").stat().st_size > 5000
        assert (page.parent / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert f"supermage report {page.parent.parent / 'posterior.nc'} --figure {name}" in " ".join(seen.text)


def test_mass_is_said_with_distance_and_truth(page):
    text = " ".join(parsed(page).text)
    assert "inside the 68 % interval." in text
    assert re.search(r"Msun? ?\(68 %\), [0-9.]+ to [0-9.]+ × 10\^8 Msun \(95 %\)", (page.parent / "summary.txt").read_text())
    assert "M is proportional to D; the distance's error is not included." in text
    assert "Truth of this mock" in text
    assert re.search(r"moves no parameter by more than 0\.\d+ of its standard error\.", text)
    assert "DETECTED" in text


def test_beam_and_moment_maps_are_fits(page):
    beam = fits.getdata(page.parent / "beam.fits")
    assert beam.max() == pytest.approx(1.0) and np.argmax(beam) == beam.shape[1] * (beam.shape[0] // 2) + beam.shape[1] // 2 - 1
    for name in ("data", "model"):
        flux, velocity, dispersion = (fits.getdata(page.parent / f"{name}-moment-{number}.fits") for number in range(3))
        assert flux.shape == velocity.shape == dispersion.shape == beam.shape and flux.max() > 0
        bright = np.isfinite(velocity)
        assert np.all((velocity[bright] > 1000) & (velocity[bright] < 1500))
        assert not np.any(dispersion < 0)
    assert fits.getheader(page.parent / "data-moment-0.fits")["BUNIT"] == "Jy/beam km/s"


def test_fits_cubes_add_up_and_point_at_the_sky(page):
    data, model, residual = (fits.getdata(page.parent / f"{name}.fits") for name in ("data", "model", "residual"))
    assert np.allclose(data - model, residual, atol=1e-6 * np.abs(data).max())
    header = fits.getheader(page.parent / "data.fits")
    assert header["CTYPE1"] == "RA---SIN"
    assert header["CDELT1"] < 0
    assert header["BUNIT"] == "Jy/beam"
    assert header["CDELT3"] > 0
    assert header["OBJECT"] == "NGC 4697"
    assert header["ORIGIN"] == "supermage"
    assert header["RADESYS"] == "ICRS"
    assert "EQUINOX" not in header
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", header["DATE"])
    history = "".join(str(line) for line in header["HISTORY"])
    assert default_data().checksum in history
    assert __version__ in history


def test_the_rules_are_told_in_prose(page):
    text = " ".join(parsed(page).text)
    assert all(words in text for words in (ORDER, *RULES.values(), *DEFINITIONS))
    assert "pure functions" not in text


def test_what_was_used_is_cited_once(page):
    text = (page.parent / "references.bib").read_text()
    keys = re.findall(r"^@\w+\{(\w+),$", text, flags=re.MULTILINE)
    assert len(keys) == len(set(keys)) == text.count("@")
    assert {"Harris2020", "Virtanen2020", "Hunter2007", "HoyerHamman2017", "HoffmanGelman2014"} <= set(keys)


def test_a_galaxy_with_a_strange_name_is_escaped(fitted):
    record = read_record(fitted)
    galaxy = record.recipe.galaxy.model_copy(update={"name": "a<b>_c"})
    table = latex_table(dataclasses.replace(record, recipe=record.recipe.model_copy(update={"galaxy": galaxy})), claimed=True)
    assert r"Posterior of a$<$b$>$\_c for" in table
    assert "to $9.799$" in table


def test_latex_and_bibtex(page):
    table = (page.parent / "parameters.tex").read_text()
    assert table.count(r"\\") == len(TRUTH) + 1
    assert table.count("{") == table.count("}")
    references = (page.parent / "references.bib").read_text()
    assert all(name in references for name in ("Yantovski-Barth", "Arras2021", "Lam2015", "Horowitz1991"))


@pytest.mark.parametrize(
    ("kernel", "cited"),
    [
        ("mala", {"Besag1994", "RobertsRosenthal1998"}),
        ("persistent-mala", {"Besag1994", "RobertsRosenthal1998", "Horowitz1991"}),
        ("hmc", {"Duane1987"}),
    ],
)
def test_kernels_are_cited_by_their_own_papers(kernel, cited):
    text = bibtex(components=(), kernel=kernel)
    assert {name for name in ("Besag1994", "RobertsRosenthal1998", "Horowitz1991", "Duane1987") if name in text} == cited
    assert text.count("{") == text.count("}")
    assert "Navarro1997" not in text
    assert "Navarro1997" in bibtex(components=("halo",), kernel=kernel)


def test_every_kernel_has_its_citations():
    assert set(KERNELS) == set(langevin.FIT_KERNELS)


def test_images_are_at_journal_width(page):
    from PIL import Image

    for name in DRAWN:
        with Image.open(page.parent / "figures" / f"{name}.png") as image:
            assert image.width in {round(3.35 * 300), 2100}, name


def test_no_figure_stays_open(page):
    import matplotlib.pyplot as plt

    assert plt.get_fignums() == []


def test_report_replaces_a_report_only(fitted, page, tmp_path):
    before = page.stat().st_ino
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.tex").write_text("x")
    with pytest.raises(DataError, match="earlier report"):
        report(fitted, output=folder)
    assert (folder / "thesis.tex").read_text() == "x"
    assert page.stat().st_ino == before


def test_failure_leaves_the_earlier_report(fitted, tmp_path, monkeypatch):
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "summary.txt").write_text("earlier")

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build_module, "write_fits", full_disk)
    with pytest.raises(DataError, match="No space left"):
        report(fitted, output=folder)
    assert (folder / "summary.txt").read_text() == "earlier"
    assert os.listdir(tmp_path) == ["report"]


def test_one_figure_is_redrawn(fitted, tmp_path):
    path = report(fitted, output=tmp_path / "out", figure="mass")
    assert path == tmp_path / "out" / "figures" / "mass.png"
    assert sorted(os.listdir(path.parent)) == ["mass.pdf", "mass.png"]


def test_redraw_commands_name_the_files_as_they_were_given(fitted, tmp_path):
    case = Case(read_record(fitted), output=tmp_path / "a b")
    assert FIGURES["mass"].command(case) == f"supermage report {fitted} --figure mass --output '{tmp_path / 'a b'}'"


@pytest.mark.parametrize(("name", "shown"), [("NGC 4697", "NGC 4697 (mock data)"), ("NGC 4697 (mock)", "NGC 4697 (mock)")])
def test_a_mock_is_called_so_once(fitted, name, shown):
    record = read_record(fitted)
    galaxy = record.recipe.galaxy.model_copy(update={"name": name})
    case = Case(dataclasses.replace(record, recipe=record.recipe.model_copy(update={"galaxy": galaxy})))
    assert f"<h1>Black hole of {shown}</h1>" in lead(case)


def test_unknown_figure_names_the_nearest(fitted):
    with pytest.raises(DomainError, match="did you mean 'moments'"):
        report(fitted, figure="moment")


@pytest.mark.parametrize("content", [b"not netCDF at all", b""])
def test_foreign_file_gets_one_line(tmp_path, content):
    path = tmp_path / "posterior.nc"
    path.write_bytes(content)
    with pytest.raises(SupermageError) as caught:
        report(path)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["posterior.nc"]


def test_missing_file_gets_one_line(tmp_path):
    with pytest.raises(DataError, match="not there"):
        report(tmp_path / "posterior.nc")


def test_posterior_of_others_gets_one_line(tmp_path):
    from supermage.inference import arviz_access

    arviz_access.write(arviz_access.from_dict({"posterior": {"mu": np.zeros((2, 10))}}, attributes={}), tmp_path / "posterior.nc")
    with pytest.raises(DataError, match="supermage fit"):
        report(tmp_path / "posterior.nc")


def test_other_data_are_refused(fitted, tmp_path):
    from tests.report.factories import make_data, make_recipe

    shutil.copy(fitted, tmp_path / "posterior.nc")
    other = make_data(make_recipe(tmp_path), seed=9, n_channel=8)
    with pytest.raises(DataError, match="checksum"):
        _ = Case(read_record(tmp_path / "posterior.nc"), gridded=other).gridded


def statement(tmp_path, **options):
    case = Case(read_record(make_fit(tmp_path, **options)))
    return case, mass_statement(case.record, case.verdict)


def test_flat_mass_is_never_sold(tmp_path):
    case, words = statement(tmp_path, width={"log10_mbh": 50.0})
    assert case.verdict.status is Status.UNRESOLVED
    assert words.headline.startswith("No mass is claimed")


def test_mass_at_the_lower_edge_is_an_upper_limit(tmp_path):
    case, words = statement(tmp_path, width={"log10_mbh": 0.6}, shift={"log10_mbh": -2.1}, truth=False)
    assert case.verdict.status is Status.UPPER_LIMIT
    assert "< 7." in words.headline
    assert "not a measurement" in words.headline
    assert not any("Truth" in line for line in words.lines)


def test_chains_apart_have_not_converged(tmp_path):
    case, words = statement(tmp_path, drift=1.5)
    assert case.verdict.status is Status.NOT_CONVERGED
    assert summary_lines(case.record, case.verdict)[0].startswith("verdict: NOT CONVERGED")
    assert "have not converged" in words.headline
    assert words.lines[0].startswith("draws so far, not a result: log10(M/Msun) = ")


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    return make_fit(tmp_path_factory.mktemp("held"), fixed={"log10_mbh": 8.0})


def test_a_mass_that_was_held_is_reported_as_such(held, monkeypatch):
    def drawn_only(spec, case, folder):
        figure = spec.draw(case)
        figure.set_layout_engine("none")
        figure.savefig(folder / f"{spec.name}.png", dpi=20)

    monkeypatch.setattr(FigureSpec, "save", drawn_only)  # every figure is drawn; that they are written well is shown above
    page = report(held)
    lines = (page.parent / "summary.txt").read_text().splitlines()
    assert lines[0].startswith("verdict: HELD FIXED: the black-hole mass was an assumption of the fit")
    assert lines[1].endswith("The mass was held fixed at log10 M = 8.000 (M = 1.00 × 10^8 Msun); nothing is measured")
    assert lines[3] == f"Truth of this mock: log10 M = {TRUTH['log10_mbh']:.3f} (M = 1.30 × 10^8 Msun)."
    names = {path.stem for path in (page.parent / "figures").iterdir()}
    assert names == DRAWN - {"mass"}
    assert 'figure-mass"' not in page.read_text(encoding="utf-8")
    assert "Held fixed: $\\log_{10} M_\\mathrm{BH}/M_\\odot$ $= 8$." in (page.parent / "parameters.tex").read_text()


def test_a_figure_of_a_parameter_that_was_held_is_refused(held):
    with pytest.raises(DomainError, match="needs a fit that sampled its parameter, got one that held log10_mbh = 8"):
        report(held, figure="mass")
    with pytest.raises(DomainError, match=r"^the figure 'stellar-mass' needs a fit with \[fit.mass_prior\], got one without$"):
        report(held, figure="stellar-mass")


def test_a_fit_that_calls_itself_unconverged_is(tmp_path):
    case, _ = statement(tmp_path, converged=0)
    assert case.verdict.status is Status.NOT_CONVERGED


def test_a_wrong_model_is_not_trusted(tmp_path):
    case, words = statement(tmp_path, data={"scale": 30.0})
    assert case.verdict.status is Status.DO_NOT_TRUST
    assert words.headline == "No mass is claimed: see the verdict"


def test_channels_whose_correlation_is_not_stated_are_not_trusted(tmp_path):
    case, words = statement(tmp_path, gridded=default_data().replace(hanning=False))
    assert case.verdict.status is Status.DO_NOT_TRUST
    assert "where 0.00 is assumed: set hanning or averaging under [reduce]" in " ".join(case.verdict.reasons)
    assert words.headline == "No mass is claimed: see the verdict"


def test_three_sigma_bands_take_every_draw(tmp_path):
    few, many = (Case(read_record(make_fit(tmp_path / str(n), draws=n))) for n in (500, 1250))
    assert few.record.tail_ess < 4000 < many.record.tail_ess
    assert len(few.band_draws()) == len(few.profiles.black_hole_mass) == case_module.BAND_DRAWS
    assert list(many.band_draws()) == list(range(5000))


def test_an_interrupted_fit_and_its_chains_are_said(tmp_path):
    case, _ = statement(tmp_path, attributes={"complete": 0, "chains_brought_back": 2})
    assert "interrupted before its end" in summary_lines(case.record, case.verdict)[0]
    assert "2 chains were brought back in warm-up from modes that hold less than e^-30" in verdict_facts(case)


def test_position_angle_across_north(tmp_path):
    case, _ = statement(tmp_path, shift={"PA": -66.9})
    assert case.record["PA"].draws.std() < 2
    assert 0 <= case.record.theta(5)["PA"] < 360


def test_a_corner_plot_of_chosen_parameters_with_reference_values(fitted, tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(figures_fit, "corner", lambda axes, draws, **given: drawn.update(draws=draws, **given))
    report(fitted, output=tmp_path / "out", figure="corner", parameters=("inclination", "log10_mbh"), reference={"log10_mbh": 8.25})
    assert drawn["draws"].shape[1] == 2 and "M" in drawn["labels"][1]
    shift = open_posterior(fitted).draws("log10_mbh").mean() - drawn["draws"][:, 1].mean()
    assert drawn["truth"][1] == pytest.approx(8.25 - shift, abs=0.05)
    with pytest.raises(DomainError, match=r"must be one of .* got 'inclinaton'; did you mean 'inclination'"):
        report(fitted, figure="corner", parameters=("inclinaton",))
    with pytest.raises(DomainError, match=r"^a reference must be a finite number, got log10_mbh = inf$"):
        report(fitted, figure="corner", reference={"log10_mbh": np.inf})


@pytest.mark.parametrize(
    ("figure", "given", "words"),
    [
        ("velocity", {"parameters": ("gamma",)}, "a parameter is for the figures corner, traces, ranks, got 'velocity'"),
        ("corner-full", {"parameters": ("gamma",)}, "a parameter is for the figures corner, traces, ranks, got 'corner-full'"),
        ("traces", {"reference": {"x": 1.0}}, "a reference is for the figures corner, corner-full, got 'traces'"),
        ("ranks", {"reference": {"x": 1.0}}, "a reference is for the figures corner, corner-full, got 'ranks'"),
    ],
)
def test_what_a_figure_does_not_take_is_refused(fitted, figure, given, words):
    with pytest.raises(DomainError, match=f"^{words}$"):
        report(fitted, figure=figure, **given)


def test_traces_of_chosen_parameters(fitted, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures_fit, "trace", lambda axes, draws, **given: drawn.append(draws))
    report(fitted, output=tmp_path / "out", figure="traces", parameters=("log10_mbh",))
    assert len(drawn) == 1 and np.array_equal(drawn[0], open_posterior(fitted).draws("log10_mbh"))


@pytest.mark.parametrize("word", ["log10_mbh", "log10_mbh=", "=8", "log10_mbh=heavy", "log10_mbh=nan"])
def test_a_reference_that_is_no_number_is_refused(word):
    with pytest.raises(DomainError, match="NAME=VALUE with a finite number"):
        _number(word, "--reference")
    assert _number("log10_mbh=8.1", "--reference") == ("log10_mbh", 8.1)
