"""What every evaluation does, whatever it measures: its folder, its provenance, its arms."""
