"""`make vendor`: fetches the files of `manifest.json` from npm again, and writes their SHA-256 into it.

To take a newer version, change `version` in the manifest and run it. Then review the difference in git.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from api.vendored.manifest import MANIFEST, Package, read_manifest

_TIMEOUT_S = 300


def main() -> None:
    """Raises SystemExit when npm is missing."""
    if (npm := shutil.which("npm")) is None:
        sys.exit("npm is needed to fetch the packages: install it (Debian: apt-get install npm).")
    packages = [_renewed(npm, package) for package in read_manifest().packages]
    MANIFEST.write_text(json.dumps({"packages": [package.model_dump() for package in packages]}, indent=2) + "\n")


def _renewed(npm: str, package: Package) -> Package:
    """Fetches the package's files. Raises CalledProcessError when npm does not have it, KeyError when it lacks a file."""
    with tempfile.TemporaryDirectory() as folder:
        spec = f"{package.name}@{package.version}"
        subprocess.run([npm, "pack", "--silent", spec, "--pack-destination", folder], check=True, timeout=_TIMEOUT_S)
        [archive] = Path(folder).glob("*.tgz")
        hashes = {}
        with tarfile.open(archive) as files:
            for name in package.files:
                content = files.extractfile(f"package/{name}")
                assert content is not None
                data = content.read()
                target = package.folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
                hashes[name] = hashlib.sha256(data).hexdigest()
    return package.model_copy(update={"files": hashes})


if __name__ == "__main__":
    main()
