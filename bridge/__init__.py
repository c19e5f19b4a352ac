"""FHIR R4 on iCure, end-to-end encrypted."""
