"""migration-guard: makes live migration on KubeVirt safe before it starts."""
