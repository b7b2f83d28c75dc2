"""Vendored files are unchanged: the manifest and the folder agree."""

import hashlib

import pytest

from api.vendored.manifest import FOLDER, Package, read_manifest


@pytest.mark.parametrize("package", read_manifest().packages, ids=lambda package: package.name)
def test_every_file_is_the_one_that_the_manifest_names(package: Package) -> None:
    assert package.files == {name: hashlib.sha256((package.folder / name).read_bytes()).hexdigest() for name in package.files}


@pytest.mark.parametrize("package", read_manifest().packages, ids=lambda package: package.name)
def test_every_package_has_its_licence_and_its_source(package: Package) -> None:
    assert any(name.upper().startswith("LICENSE") for name in package.files)
    assert package.licence
    assert package.origin.startswith("https://")


def test_nothing_else_is_vendored() -> None:
    known = {package.folder / name for package in read_manifest().packages for name in package.files}
    inside = {path for path in FOLDER.glob("*/**/*") if path.is_file() and "__pycache__" not in path.parts}
    assert inside == known
