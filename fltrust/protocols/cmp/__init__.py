"""CMP (RFC 4210, updated by RFC 9480; the Lightweight CMP Profile, RFC 9483), as far as a device needs it."""
