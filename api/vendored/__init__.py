"""Files of other projects that browsers load from us, each as it was published; `manifest.json` names version, licence and SHA-256."""
