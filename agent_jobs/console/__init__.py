"""Pages for people in a browser. For now this is only Django's admin; this package has the rules of its sessions."""
