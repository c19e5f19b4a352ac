"""FHIR R4 resources and iCure entities, mapped both ways without loss."""
