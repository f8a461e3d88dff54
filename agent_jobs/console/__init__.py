"""What people see in a browser. For now that is Django's admin, and here are only the rules of its sessions."""
