"""The contract suites, one module for each seam; import them from `dkron.plugins.testing`."""
