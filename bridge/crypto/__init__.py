"""iCure's end-to-end encryption: keys, exchange data, delegations and encrypted content."""
