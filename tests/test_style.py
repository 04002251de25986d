"""The code's own numbers and the import rule, measured: small functions, small files, no circles."""

import ast
import re
import statistics
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("soda_jax", "data", "experiments")
CODE = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").glob("*.py"))

READERS = [ROOT / "soda_jax" / "export" / f"{name}_encoder.py" for name in ("numpy", "onnx", "torch")]

# Inside soda_jax a package may import those of lower rank, and itself.
RANK = {"types": 0, "parallel": 1, "diffusion": 1, "nn": 1, "methods": 2}
RANK |= {"training": 3, "evaluation": 3, "editing": 3, "export": 3, "report": 4}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path):
    tree = ast.parse(path.read_text())
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def span(function) -> int:
    return function.end_lineno - function.lineno + 1


def imported_modules(path: Path) -> set[str]:
    """Every module that a file imports, wherever in the file; `from a.b import c` gives a.b and a.b.c."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)}:{node.lineno} has a relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", CODE + TESTS, ids=relative)
def test_no_file_over_300_lines_and_no_function_over_80(path):
    assert len(path.read_text().splitlines()) <= 300
    long = [f"{f.name}: {span(f)}" for f in functions(path) if span(f) > 80]
    assert not long


def test_the_median_function_has_at_most_8_lines():
    assert statistics.median(span(f) for path in CODE for f in functions(path)) <= 8


def test_tests_are_at_least_four_fifths_of_the_code():
    lines = {
        name: sum(len(p.read_text().splitlines()) for p in paths)
        for name, paths in (("code", CODE), ("tests", TESTS))
    }
    assert lines["tests"] >= 0.8 * lines["code"], lines


@pytest.mark.parametrize("path", CODE + TESTS, ids=relative)
def test_no_open_ends_and_no_suppression_without_its_reason(path):
    with tokenize.open(path) as file:
        comments = [t for t in tokenize.generate_tokens(file.readline) if t.type == tokenize.COMMENT]
    for comment in comments:
        assert not re.search(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b", comment.string), comment
        if re.search(r"#\s*(noqa|type:\s*ignore|pragma)", comment.string):
            assert re.search(r"(noqa|ignore|pragma)[^#]*(--|#)\s*\w+", comment.string), comment


@pytest.mark.parametrize("path", CODE, ids=relative)
def test_packages_import_one_way(path):
    imports = imported_modules(path)
    package = path.relative_to(ROOT).parts[0]
    roots = {name.split(".")[0] for name in imports}
    if path in READERS:  # they are copied into bundles, and read there alone
        assert not roots & {"soda_jax", "jax", "flax", "data", "experiments", "tests"}
    elif package == "soda_jax":
        assert not roots & {"data", "experiments", "tests", "tensorflow", "torch"}
    elif package == "data":
        ours = {name for name in imports if name.split(".")[0] == "soda_jax"}
        assert all(name == "soda_jax.types" or name.startswith("soda_jax.types.") for name in ours), ours
        assert not roots & {"experiments", "tests", "tensorflow", "torch"}
    elif "benchmarks" not in path.parts:
        assert not roots & {"tests", "tensorflow", "torch"}


@pytest.mark.parametrize("path", [p for p in CODE if p.is_relative_to(ROOT / "soda_jax")], ids=relative)
def test_inside_the_library_imports_run_one_way(path):
    own = path.relative_to(ROOT / "soda_jax").parts[0].removesuffix(".py")
    if own == "__init__":
        return
    for name in imported_modules(path):
        parts = name.split(".")
        if parts[0] == "soda_jax" and len(parts) > 1 and parts[1] in RANK and parts[1] != own:
            assert RANK[parts[1]] < RANK[own], f"{own} imports {name}"


def test_the_import_reader_sees_every_form_of_import(tmp_path):
    file = tmp_path / "a.py"
    file.write_text("import a.b\ndef f():\n    from c import d\n")
    assert imported_modules(file) == {"a.b", "c", "c.d"}
