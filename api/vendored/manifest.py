"""The vendored packages: `manifest.json` as types. `make vendor` writes it (`renew.py`); the API serves its files (`serving.py`)."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

FOLDER = Path(__file__).parent
MANIFEST = FOLDER / "manifest.json"


class Package(BaseModel):
    """An npm package, some of whose files are vendored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: str
    licence: str
    """Its SPDX identifier."""
    origin: str
    """The address of its sources."""
    files: dict[str, str]
    """The SHA-256 of each file in hexadecimal, by its path in the package."""

    @property
    def folder(self) -> Path:
        """The folder of its files in this repository."""
        return FOLDER / self.name

    def address(self, file: str) -> str:
        """The path at which the API serves the file. It changes with the version, so browsers may keep the file forever."""
        return f"/vendored/{self.name}/{self.version}/{file}"


class Manifest(BaseModel):
    """All vendored packages."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    packages: list[Package]

    def package(self, name: str) -> Package:
        """Returns the package of this name. Raises KeyError."""
        for package in self.packages:
            if package.name == name:
                return package
        raise KeyError(name)


def read_manifest() -> Manifest:
    """Reads `manifest.json`."""
    return Manifest.model_validate_json(MANIFEST.read_bytes())
