"""Imports run one way: from a program down to the contracts, never back, and never in a circle.

The top level of each package holds what a user types: programs, modules named in gin files, contracts to
subclass. Everything else lives in a room, a sub-package. FLOORS puts both in order, lowest first; a place may
import places on lower floors only. A new room or top-level module needs a floor here.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

FLOORS = {
    "engine": (
        "errors",
        "training_data feature_extractor log_writer optimizers parameter_groups replica_context",
        "task durations smoothing cli graphs",
        "distribution batching cloud tiling",
        "inner_loop input_pipeline schedules batch_schedules early_stopping",
        "storage adaptive_batch",
        "evaluation",
        "experiment mlflow_tracker",
        "reporting gin_config",
        "outer_loop",
        "memory packing pictures",
        "inference run_reports diagnosis",
        "translation exporting sweeps",
        "train evaluate translate preview doctor launch tpu_job data_service report sweep events export"
        " open_run run_weights pack",
    ),
    "data": (
        "errors roles gfile quiet_tensorflow imaging",
        "description",
        "augmentation formats",
        "supply video",
        "tfrecords",
        "preparation",
        "synthetic",
        "pipeline",
        "pairs",
        "unpaired single labelled prepare",
    ),
    "models": (
        "networks",
        "losses initialisation side_information pytorch latent_networks weight_transfer",
        "fidelity patch_nce torch_weights regularisation application_features application_backbone lpips",
        "discriminators scaled_discriminators",
        "supervised label_network",
        "pix2pix cyclegan cut bicycle_gan image_labels",
        "colourisation super_resolution classification regression",
    ),
}

PROGRAMS = FLOORS["engine"][-1].split()

BETWEEN_PACKAGES = {
    "data": set(),
    "models": {
        "engine.errors",
        "engine.feature_extractor",
        "engine.optimizers",
        "engine.replica_context",
        "engine.task",
        "data.imaging",
        "data.roles",
    },
    "engine": {
        "data.description",
        "data.errors",
        "data.gfile",
        "data.imaging",
        "data.roles",
        "data.quiet_tensorflow",
    },
}
"""What a package may import of the others. Programs of the engine and FREE_ROOMS may import everything, the
program `data.prepare` also `engine.cli`."""

FREE_ROOMS = ("pictures", "inference", "translation", "exporting")


def modules(package):
    """(dotted name, syntax tree) of each module of a package."""
    for path in sorted((ROOT / package).rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        yield name, ast.parse(path.read_text(encoding="utf-8"))


def imports(tree):
    """Names of everything that a module imports, wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def place(name):
    """The room or top-level module that a name belongs to: engine.storage.manifest -> engine.storage."""
    return ".".join(name.split(".")[:2])


@pytest.mark.parametrize("package", FLOORS)
def test_every_place_has_a_floor_and_every_room_says_what_it_holds(package):
    folder = ROOT / package
    rooms = {path.name for path in folder.iterdir() if (path / "__init__.py").exists()}
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    listed = [place for floor in FLOORS[package] for place in floor.split()]
    assert sorted(listed) == sorted(rooms | files), "list each room and top-level module once in FLOORS"
    for room in rooms:
        description = ast.get_docstring(ast.parse((folder / room / "__init__.py").read_text()))
        assert description, f"{package}/{room}/__init__.py: say what lives there"
        assert len(list((folder / room).glob("*.py"))) > 1, f"{package}/{room} is empty"


@pytest.mark.parametrize("package", FLOORS)
def test_imports_run_one_way_between_rooms(package):
    floor_of = {f"{package}.{p}": n for n, floor in enumerate(FLOORS[package]) for p in floor.split()}
    back = [
        f"{name} imports {imported}"
        for name, tree in modules(package)
        for imported in imports(tree)
        if place(name) in floor_of and place(imported) in floor_of
        if place(name) != place(imported) and floor_of[place(imported)] >= floor_of[place(name)]
    ]
    assert not back, f"a place may import places on lower floors only (see FLOORS): {back}"


@pytest.mark.parametrize("package", FLOORS)
def test_packages_import_of_each_other_only_what_is_agreed(package):
    free = {f"engine.{name}" for name in (*PROGRAMS, *FREE_ROOMS)}
    foreign = [
        f"{name} imports {imported}"
        for name, tree in modules(package)
        for imported in imports(tree)
        if imported.split(".")[0] in FLOORS and imported.split(".")[0] != package
        if place(imported) not in BETWEEN_PACKAGES[package] and imported not in BETWEEN_PACKAGES[package]
        if place(name) not in free and name != "engine"
        if not (name == "data.prepare" and place(imported) == "engine.cli")
    ]
    assert not foreign, f"a package may import of the others only BETWEEN_PACKAGES: {foreign}"


def test_no_circle_between_the_modules_of_a_room():
    trees = {name: tree for package in FLOORS for name, tree in modules(package)}
    below = {
        name: {full if full in trees else full.rpartition(".")[0] for full in imports(tree)} & trees.keys()
        for name, tree in trees.items()
    }
    done = set()
    while ready := {name for name in below.keys() - done if below[name] <= done}:
        done |= ready
    assert not below.keys() - done, f"imported in a circle: {sorted(below.keys() - done)}"


def test_only_one_room_imports_gin():
    importers = {
        name
        for package in FLOORS
        for name, tree in modules(package)
        for i in imports(tree)
        if i.split(".")[0] == "gin"
    }
    assert {place(name) for name in importers} == {"engine.gin_config"}
