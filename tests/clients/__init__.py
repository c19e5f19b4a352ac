"""FHIR's public client libraries, unmodified, against a running server."""
