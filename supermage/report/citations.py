"""BibTeX of what a fit used."""

from __future__ import annotations

from collections.abc import Collection

PAPER = r"""@misc{YantovskiBarth2025,
  author = {Yantovski-Barth, M. J. and Stone, Connor and Zhang, Hengyue and Bureau, Martin and Smyth, Nolan and Hezaveh, Yashar
            and Perreault-Levasseur, Laurence},
  title  = {Neural Deprojection of Galaxy Stellar Mass Profiles},
  year   = {2025},
  note   = {the method: Nuker profile to MGE by a neural network}
}"""

REFERENCES = {
    "paper": PAPER,
    "nuker": r"""@article{Lauer1995,
  author  = {Lauer, Tod R. and others},
  title   = {The Centers of Early-Type Galaxies with {HST}. {I}. An Observational Survey},
  journal = {AJ},
  year    = {1995},
  volume  = {110},
  pages   = {2622}
}""",
    "mge": r"""@article{Cappellari2002,
  author  = {Cappellari, Michele},
  title   = {Efficient multi-{Gaussian} expansion of galaxies},
  journal = {MNRAS},
  year    = {2002},
  volume  = {333},
  pages   = {400}
}""",
    "mala": r"""@article{RobertsRosenthal1998,
  author  = {Roberts, Gareth O. and Rosenthal, Jeffrey S.},
  title   = {Optimal scaling of discrete approximations to {Langevin} diffusions},
  journal = {Journal of the Royal Statistical Society: Series B},
  year    = {1998},
  volume  = {60},
  pages   = {255}
}""",
    "besag": r"""@article{Besag1994,
  author  = {Besag, Julian},
  title   = {Comments on "{Representations} of knowledge in complex systems" by {Grenander} and {Miller}},
  journal = {Journal of the Royal Statistical Society: Series B},
  year    = {1994},
  volume  = {56},
  pages   = {591}
}""",
    "persistent": r"""@article{Horowitz1991,
  author  = {Horowitz, Alan M.},
  title   = {A generalized guided {Monte} {Carlo} algorithm},
  journal = {Physics Letters B},
  year    = {1991},
  volume  = {268},
  pages   = {247},
  doi     = {10.1016/0370-2693(91)90812-5}
}""",
    "hmc": r"""@article{Duane1987,
  author  = {Duane, Simon and Kennedy, A. D. and Pendleton, Brian J. and Roweth, Duncan},
  title   = {Hybrid {Monte} {Carlo}},
  journal = {Physics Letters B},
  year    = {1987},
  volume  = {195},
  pages   = {216},
  doi     = {10.1016/0370-2693(87)91197-X}
}""",
    "dual averaging": r"""@article{HoffmanGelman2014,
  author  = {Hoffman, Matthew D. and Gelman, Andrew},
  title   = {The {No-U-Turn} Sampler: Adaptively Setting Path Lengths in {Hamiltonian} {Monte} {Carlo}},
  journal = {Journal of Machine Learning Research},
  year    = {2014},
  volume  = {15},
  pages   = {1593--1623},
  note    = {dual averaging of the step size}
}""",
    "rhat": r"""@article{Vehtari2021,
  author  = {Vehtari, Aki and Gelman, Andrew and Simpson, Daniel and Carpenter, Bob and B{\"u}rkner, Paul-Christian},
  title   = {Rank-Normalization, Folding, and Localization: An Improved {$\hat{R}$} for Assessing Convergence of {MCMC}},
  journal = {Bayesian Analysis},
  year    = {2021},
  volume  = {16},
  pages   = {667},
  doi     = {10.1214/20-BA1221}
}""",
    "pyro": r"""@article{Bingham2019,
  author  = {Bingham, Eli and others},
  title   = {{Pyro}: Deep Universal Probabilistic Programming},
  journal = {Journal of Machine Learning Research},
  year    = {2019},
  volume  = {20},
  number  = {28},
  pages   = {1--6}
}""",
    "torch": r"""@inproceedings{Paszke2019,
  author    = {Paszke, Adam and others},
  title     = {{PyTorch}: An Imperative Style, High-Performance Deep Learning Library},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2019},
  volume    = {32}
}""",
    "numpy": r"""@article{Harris2020,
  author  = {Harris, Charles R. and others},
  title   = {Array programming with {NumPy}},
  journal = {Nature},
  year    = {2020},
  volume  = {585},
  pages   = {357--362},
  doi     = {10.1038/s41586-020-2649-2}
}""",
    "scipy": r"""@article{Virtanen2020,
  author  = {Virtanen, Pauli and others},
  title   = {{SciPy} 1.0: fundamental algorithms for scientific computing in {Python}},
  journal = {Nature Methods},
  year    = {2020},
  volume  = {17},
  pages   = {261--272},
  doi     = {10.1038/s41592-019-0686-2}
}""",
    "matplotlib": r"""@article{Hunter2007,
  author  = {Hunter, John D.},
  title   = {{Matplotlib}: A {2D} Graphics Environment},
  journal = {Computing in Science \& Engineering},
  year    = {2007},
  volume  = {9},
  number  = {3},
  pages   = {90--95},
  doi     = {10.1109/MCSE.2007.55}
}""",
    "xarray": r"""@article{HoyerHamman2017,
  author  = {Hoyer, Stephan and Hamman, Joseph J.},
  title   = {xarray: {N-D} labeled Arrays and Datasets in {Python}},
  journal = {Journal of Open Research Software},
  year    = {2017},
  volume  = {5},
  number  = {1},
  pages   = {10},
  doi     = {10.5334/jors.148}
}""",
    "arviz": r"""@article{Kumar2019,
  author  = {Kumar, Ravin and Carroll, Colin and Hartikainen, Ari and Martin, Osvaldo},
  title   = {{ArviZ} a unified library for exploratory analysis of {Bayesian} models in {Python}},
  journal = {Journal of Open Source Software},
  year    = {2019},
  volume  = {4},
  number  = {33},
  pages   = {1143},
  doi     = {10.21105/joss.01143}
}""",
    "corner": r"""@article{ForemanMackey2016,
  author  = {Foreman-Mackey, Daniel},
  title   = {corner.py: Scatterplot matrices in {Python}},
  journal = {Journal of Open Source Software},
  year    = {2016},
  volume  = {1},
  number  = {2},
  pages   = {24},
  doi     = {10.21105/joss.00024}
}""",
    "astropy": r"""@article{Astropy2022,
  author  = {{Astropy Collaboration}},
  title   = {The {Astropy} Project: Sustaining and Growing a Community-oriented Open-source Project
             and the Latest Major Release (v5.0) of the Core Package},
  journal = {ApJ},
  year    = {2022},
  volume  = {935},
  pages   = {167},
  doi     = {10.3847/1538-4357/ac7c74}
}""",
    "ducc": r"""@article{Arras2021,
  author  = {Arras, Philipp and Reinecke, Martin and Westermann, R{\"u}diger and En{\ss}lin, Torsten A.},
  title   = {Efficient wide-field radio interferometry response},
  journal = {A\&A},
  year    = {2021},
  volume  = {646},
  pages   = {A58},
  doi     = {10.1051/0004-6361/202039723}
}""",
    "numba": r"""@inproceedings{Lam2015,
  author    = {Lam, Siu Kwan and Pitrou, Antoine and Seibert, Stanley},
  title     = {{Numba}: a {LLVM}-based {Python} {JIT} compiler},
  booktitle = {Proceedings of the Second Workshop on the {LLVM} Compiler Infrastructure in {HPC}},
  year      = {2015},
  pages     = {1--6},
  doi       = {10.1145/2833157.2833162}
}""",
    "casa": r"""@article{Casa2022,
  author  = {{CASA Team}},
  title   = {{CASA}, the Common Astronomy Software Applications for Radio Astronomy},
  journal = {PASP},
  year    = {2022},
  volume  = {134},
  pages   = {114501},
  doi     = {10.1088/1538-3873/ac9642}
}""",
    "barker": r"""@article{Livingstone2022,
  author  = {Livingstone, Samuel and Zanella, Giacomo},
  title   = {The {Barker} Proposal: Combining Robustness and Efficiency in Gradient-Based {MCMC}},
  journal = {Journal of the Royal Statistical Society B},
  year    = {2022},
  volume  = {84},
  pages   = {496},
  doi     = {10.1111/rssb.12482}
}""",
    "surrogate": r"""@article{Zhang2017,
  author  = {Zhang, Cheng and Shahbaba, Babak and Zhao, Hongkai},
  title   = {{Hamiltonian} {Monte Carlo} Acceleration Using Surrogate Functions with Random Bases},
  journal = {Statistics and Computing},
  year    = {2017},
  volume  = {27},
  pages   = {1473},
  doi     = {10.1007/s11222-016-9699-1}
}""",
    "nfw": r"""@article{Navarro1997,
  author  = {Navarro, Julio F. and Frenk, Carlos S. and White, Simon D. M.},
  title   = {A Universal Density Profile from Hierarchical Clustering},
  journal = {ApJ},
  year    = {1997},
  volume  = {490},
  pages   = {493}
}""",
    "freeman": r"""@article{Freeman1970,
  author  = {Freeman, Kenneth C.},
  title   = {On the Disks of Spiral and {S0} Galaxies},
  journal = {ApJ},
  year    = {1970},
  volume  = {160},
  pages   = {811},
  doi     = {10.1086/150474}
}""",
}
"""Entries by what was used; authors are shortened to "and others" where a list is long."""


KERNELS = {"mala": ("besag", "mala"), "mala-paper": ("besag", "mala"), "persistent-mala": ("besag", "mala", "persistent"), "hmc": ("hmc",),
           "barker": ("barker",), "surrogate-hmc": ("hmc", "surrogate")}
"""What each sampling kernel is cited by."""


COMPONENTS = {"halo": "nfw", "gas": "freeman"}
"""What each component of the mass model beyond the paper's is cited by."""


def bibtex(*, components: Collection[str], kernel: str) -> str:
    """Entries of everything that this fit and its report used, the method's paper first.

    ducc0 stands behind the report's images, numba behind gridding and the forward model, so both are always there.

    Parameters
    ----------
    components
        Components of the circular velocity.
    kernel
        The sampling kernel as recipes name it; one that is not known here is not cited.
    """
    cited = KERNELS.get(kernel, ())
    left_out = {name for names in KERNELS.values() for name in names if name not in cited}
    left_out |= {name for component, name in COMPONENTS.items() if component not in components}
    return "\n\n".join(entry for name, entry in REFERENCES.items() if name not in left_out) + "\n"
