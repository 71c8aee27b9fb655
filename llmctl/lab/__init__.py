"""Where we rehearse: probes of what a provider does today, and drills of what we do when it does not."""
