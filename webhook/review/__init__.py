"""AdmissionReview in, answer out: no HTTP, no access to a cluster."""
