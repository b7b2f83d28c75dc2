"""Files of other projects that browsers load from us, exactly as published; `manifest.json` names version, licence and SHA-256."""
